//! What a model is for, and what it answers: predictions, or the refusal of a batch.

use std::sync::Arc;

mod shape;

pub use shape::{Out, Part, Scores, Shape, Vectors};

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Text in, `[dim]` f32 out.
    TextEmbedding,
    /// Text in, label and scores out.
    TextClassification,
    /// Two texts in, a score of how well they fit out.
    TextRanking,
    /// Text in, labelled spans out.
    TokenClassification,
    /// Fields in, label and scores in f64 out.
    TabularClassification,
    /// Fields in, a number in f64 out.
    TabularRegression,
    /// Image bytes in, label and scores out.
    ImageClassification,
}

impl Task {
    /// The names of those that take texts.
    pub const OF_TEXTS: &str =
        "text-embedding, text-classification, text-ranking or token-classification";

    /// Whether it takes texts.
    pub fn is_of_text(self) -> bool {
        match self {
            Self::TextEmbedding
            | Self::TextClassification
            | Self::TextRanking
            | Self::TokenClassification => true,
            Self::TabularClassification | Self::TabularRegression | Self::ImageClassification => {
                false
            }
        }
    }

    /// As Hugging Face spells it.
    pub fn name(self) -> String {
        let name = serde_json::to_value(self).ok();
        name.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// A model's answer to one record.
#[derive(Debug, Clone, PartialEq)]
pub enum Prediction {
    /// `[dim]` f32.
    Embedding(Vec<f32>),
    /// The best label, and every label's score in the order of the model's labels.
    Label {
        /// Index of the best label.
        best: usize,
        /// Scores, each 0 to 1; of a text regression of several values, the values; of a cross-encoder what its
        /// own files make of its outputs.
        scores: Vec<Number>,
        /// The labels, shared.
        labels: Arc<[String]>,
    },
    /// A regression's value.
    Value(Number),
    /// Labelled pieces of the text.
    Spans(Vec<Span>),
    /// The windows of a text, each with its embedding.
    Chunks(Vec<Chunk>),
    /// The mean of a text's windows.
    Mean {
        /// `[dim]` f32, weighted by the windows' tokens; of unit length where the windows' embeddings are.
        embedding: Vec<f32>,
        /// How many windows.
        of: usize,
    },
}

impl Prediction {
    /// The best of `scores` wins, the first of equals. A score for each label.
    pub fn label<N>(scores: &[N], labels: &Arc<[String]>) -> Self
    where
        N: Copy + PartialOrd + Into<Number>,
    {
        Self::labelled(best(scores), scores, labels)
    }

    /// As [`label`](Self::label), where the best was chosen by more than the scores.
    pub fn labelled<N>(best: usize, scores: &[N], labels: &Arc<[String]>) -> Self
    where
        N: Copy + Into<Number>,
    {
        let scores = scores.iter().map(|score| (*score).into()).collect();
        Self::Label { best, scores, labels: Arc::clone(labels) }
    }
}

/// A number of an answer, as wide as it was computed. Printed, it reads back as the same.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum Number {
    /// Of text and images.
    Single(f32),
    /// Of tables.
    Double(f64),
}

impl From<f32> for Number {
    fn from(value: f32) -> Self {
        Self::Single(value)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Double(value)
    }
}

impl From<Number> for f64 {
    fn from(value: Number) -> Self {
        match value {
            Number::Single(value) => value.into(),
            Number::Double(value) => value,
        }
    }
}

/// A labelled piece of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The label; without its `B-` or `I-` where tokens are aggregated.
    pub label: String,
    /// 0 to 1.
    pub score: f32,
    /// First character, counted in Unicode scalar values as transformers does.
    pub start: usize,
    /// One past the last character.
    pub end: usize,
    /// The text between them. transformers rebuilds a word from its tokens instead, lower-cased by some and with
    /// other spaces.
    pub word: String,
}

/// A window of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// First character, counted in Unicode scalar values.
    pub start: usize,
    /// One past the last character.
    pub end: usize,
    /// `[dim]` f32: what the model gives to this piece of the text alone.
    pub embedding: Vec<f32>,
}

/// Why `predict` answered nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Something in these inputs: halve until it is alone.
    #[error("the model refused the batch: {0}")]
    Batch(String),
    /// This input, by its place in the call; the others are good.
    #[error("the model refused input {row}: {message}")]
    Row {
        /// Its place in the call.
        row: usize,
        /// Why.
        message: String,
    },
    /// The device has no memory for so many: halve, and never a dead letter.
    #[error("out of device memory: {0}")]
    OutOfMemory(String),
    /// The device is gone, or the code has a bug: the process stops.
    #[error("the device is lost: {0}")]
    DeviceLost(String),
}

impl Refused {
    /// The same refusal of a call that was a part of another: `rows` holds where each input of the part stands there.
    pub(crate) fn of_part(self, rows: impl Fn(usize) -> Option<usize>) -> Self {
        match self {
            Self::Row { row, message } => {
                Self::Row { row: rows(row).unwrap_or(usize::MAX), message }
            }
            other @ (Self::Batch(_) | Self::OutOfMemory(_) | Self::DeviceLost(_)) => other,
        }
    }
}

/// The index of the largest score; the first of equals.
pub fn best<N: PartialOrd>(scores: &[N]) -> usize {
    let mut best = 0;
    for (index, score) in scores.iter().enumerate() {
        if scores[best] < *score {
            best = index;
        }
    }
    best
}

/// Indices of the `top_k` best scores, the best first and equals in their order; without a number all, as they are.
pub fn chosen(scores: &[Number], top_k: Option<u32>) -> Vec<usize> {
    let mut chosen: Vec<usize> = (0..scores.len()).collect();
    if let Some(most) = top_k {
        chosen.sort_by(|a, b| f64::from(scores[*b]).total_cmp(&scores[*a].into()));
        chosen.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_is_the_best() {
        assert_eq!(best(&[0.2, 0.5, 0.5]), 1);
    }
}

//! What is published of a prediction: which of its parts, under which names, in which form. One walk, whatever it is
//! written as.

use serde::{Deserialize, Serialize};

use super::{Number, Prediction, chosen};

/// A part of a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// An embedding's numbers.
    Embedding,
    /// A text's windows, each with its place and its embedding.
    Chunks,
    /// The mean of the windows' embeddings.
    MeanEmbedding,
    /// Of how many windows.
    MeanOf,
    /// The best label.
    Label,
    /// Its score.
    Score,
    /// Every label's score.
    Scores,
    /// A number.
    Value,
    /// Labelled pieces.
    Spans,
}

impl Part {
    /// What a prediction has, in order.
    pub fn of(prediction: &Prediction) -> &'static [Self] {
        match prediction {
            Prediction::Embedding(_) => &[Self::Embedding],
            Prediction::Label { .. } => &[Self::Label, Self::Score, Self::Scores],
            Prediction::Value(_) => &[Self::Value],
            Prediction::Spans(_) => &[Self::Spans],
            Prediction::Chunks(_) => &[Self::Chunks],
            Prediction::Mean { .. } => &[Self::MeanEmbedding, Self::MeanOf],
        }
    }

    /// The name that it has unless another is given.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Chunks => "chunks",
            Self::MeanEmbedding => "mean_embedding",
            Self::MeanOf => "mean_of",
            Self::Label => "label",
            Self::Score => "score",
            Self::Scores => "scores",
            Self::Value => "value",
            Self::Spans => "spans",
        }
    }
}

/// What the numbers of an embedding are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vectors {
    /// A list of numbers.
    #[default]
    Array,
    /// Four bytes a number, little-endian: in JSON as base64.
    Bytes,
}

/// What scores are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scores {
    /// By their labels.
    #[default]
    Map,
    /// In the order of the model's labels.
    Array,
}

/// What is published of predictions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape {
    /// The published names, each with its part. None: every part under its own.
    pub fields: Vec<(String, Part)>,
    /// Most scores, the best.
    pub top_k: Option<u32>,
    /// Form of embeddings, also of those in chunks.
    pub vectors: Vectors,
    /// Form of scores.
    pub scores: Scores,
}

/// What a prediction is written to.
pub trait Out {
    /// The next value is the object's of this name.
    fn field(&mut self, name: &str);
    /// A text.
    fn text(&mut self, text: &str);
    /// A number.
    fn number(&mut self, number: Number);
    /// A count or a place.
    fn count(&mut self, count: usize);
    /// Numbers in a form.
    fn vector(&mut self, numbers: &[f32], form: Vectors);
    /// A list of what `each` writes.
    fn list<T>(&mut self, items: &[T], each: impl FnMut(&mut Self, &T));
    /// What `each` writes, by name.
    fn map<'n, T>(
        &mut self,
        items: &[T],
        name: impl Fn(&T) -> &'n str,
        each: impl FnMut(&mut Self, &T),
    );
    /// An object inside of another, whose fields `fields` writes.
    fn object(&mut self, fields: impl FnOnce(&mut Self));
}

impl Shape {
    /// The first published name, with its part, that is of none of these parts.
    pub fn lacks(&self, parts: &[Part]) -> Option<(&str, Part)> {
        let lacking = self.fields.iter().find(|(_, part)| !parts.contains(part));
        lacking.map(|(name, part)| (name.as_str(), *part))
    }

    /// The published names, each with its part, of a prediction that has `parts`.
    pub fn names<'a>(&'a self, parts: &'a [Part]) -> impl Iterator<Item = (&'a str, Part)> {
        let own = parts.iter().filter(|_| self.fields.is_empty());
        let given = self.fields.iter().map(|(name, part)| (name.as_str(), *part));
        own.map(|part| (part.name(), *part)).chain(given)
    }

    /// Writes the fields of a prediction that has [all](Self::lacks) that is published.
    pub fn write(&self, prediction: &Prediction, out: &mut impl Out) {
        for (name, part) in self.names(Part::of(prediction)) {
            out.field(name);
            self.part(part, prediction, out);
        }
    }

    fn part(&self, part: Part, prediction: &Prediction, out: &mut impl Out) {
        match prediction {
            Prediction::Mean { of, .. } if part == Part::MeanOf => out.count(*of),
            Prediction::Embedding(embedding) | Prediction::Mean { embedding, .. } => {
                out.vector(embedding, self.vectors);
            }
            Prediction::Chunks(chunks) => out.list(chunks, |out, chunk| {
                out.object(|out| {
                    out.field("start");
                    out.count(chunk.start);
                    out.field("end");
                    out.count(chunk.end);
                    out.field("embedding");
                    out.vector(&chunk.embedding, self.vectors);
                });
            }),
            Prediction::Value(value) => out.number(*value),
            Prediction::Label { best, scores, labels } => {
                let label = |index: usize| labels.get(index).map_or("", String::as_str);
                if part == Part::Label {
                    out.text(label(*best));
                } else if part == Part::Score {
                    out.number(scores.get(*best).copied().unwrap_or(Number::Single(f32::NAN)));
                } else if self.scores == Scores::Array {
                    out.list(scores, |out, score| out.number(*score));
                } else {
                    let chosen = chosen(scores, self.top_k);
                    out.map(
                        &chosen,
                        |index| label(*index),
                        |out, index| out.number(scores[*index]),
                    );
                }
            }
            Prediction::Spans(spans) => out.list(spans, |out, span| {
                out.object(|out| {
                    out.field("label");
                    out.text(&span.label);
                    out.field("score");
                    out.number(Number::Single(span.score));
                    out.field("start");
                    out.count(span.start);
                    out.field("end");
                    out.count(span.end);
                    out.field("word");
                    out.text(&span.word);
                });
            }),
        }
    }
}

//! The one trait of the model side, and what goes in and comes out.
//!
//! ```text
//!  record ─► format: Values ─► Model::prepare ─► Input ─┐
//!                                                       ├─► sub-batch ─► Model::predict ─► Prediction
//!                                             Input … ──┘
//! ```
//!
//! `prepare` runs on the decode threads, while the previous batch is in `predict`: text is tokenised and
//! fields are imputed, scaled and encoded there. Its cost in tokens is what closes a batch.
//!
//! From the ground up: the nouns here; [`files`] reads a folder safely; [`kernels`], [`device`], [`encoder`] and [`padded`]
//! compute; [`tabular`], [`text`] and [`image`] are the families; [`gate`] is what a version passes before it serves.
//! `tests/it/tidy.rs` has the floors.
//!
//! # Invariants
//!
//! 1. Same input, same answer, whatever the batch: `predict` of n inputs equals n calls with one. Bit for bit where
//!    the forward is [packed](encoder) or `model.determinism` is strict; else to the [rounding](padded) of the dtype.
//! 2. `predict` answers each input, in order, or refuses the whole call.
//! 3. No panic on input: what a record can cause is a [`Fault`] or a [`Refused`].

use serde_json::Value;

use crate::answer::{Prediction, Refused, Task};
use crate::clean::{Cleaning, Cleans, OnMissing};
use crate::field::{self, Values};
use crate::record::{Fault, Signature, Truncated};

pub mod artifact;
pub mod cache;
pub mod device;
pub mod encoder;
pub mod files;
mod folder;
mod found;
pub mod gate;
pub mod guard;
pub mod image;
pub mod kernels;
mod labels;
pub mod options;
pub mod padded;
pub mod report;
pub mod scores;
pub mod served;
pub mod tabular;
pub mod text;
pub mod unfit;
pub mod weights;

/// About so many tokens go through a packed model at once: they and a layer's weights stay in a core's second-level
/// cache (measured on `MiniLM`: 1,024 are 10 % slower in int8, 64 no faster).
pub const SUB_BATCH_TOKENS: usize = 256;

/// What all values of a field are, as a configuration says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// Texts.
    Text,
    /// Bytes.
    Bytes,
}

/// A model version that is loaded, warm and ready. Shared by all workers; scratch space is per call.
pub trait Model: Send + Sync {
    /// What it does and expects: for `/`, `check` and the gate.
    fn about(&self) -> &About;

    /// Names of the fields that it looks at: those it reads, and those that it must know of to refuse them.
    fn looks_at(&self) -> &[String] {
        &self.about().fields
    }

    /// Whether it takes such values in a field that it looks at: false where it never does.
    fn takes(&self, _field: &str, _given: Given) -> bool {
        true
    }

    /// What its author says that fields must be before they are prepared. The configuration's words about a field hold in
    /// place of these.
    fn cleans(&self) -> &Cleans {
        static NONE: Cleans = Cleans::new();
        &NONE
    }

    /// The places of the fields, among those it looks at, that it has something for where a record has none, and what: what
    /// it was fitted with, or nothing.
    fn fills(&self) -> Vec<(usize, OnMissing)> {
        Vec::new()
    }

    /// Turns the values of the fields that it [looks at](Model::looks_at), in that order, into this model's input. Called
    /// on decode threads.
    ///
    /// # Errors
    ///
    /// A [`Fault`] that names the field: the record becomes a dead letter, alone.
    fn prepare(&self, values: &Values<'_>) -> Result<Input, Fault>;

    /// As [`Model::prepare`], from a JSON object, cleaned as its author says.
    ///
    /// # Errors
    ///
    /// As there.
    fn prepare_object(&self, object: &serde_json::Map<String, Value>) -> Result<Input, Fault> {
        let cleaning = Cleaning::new(self.looks_at(), self.cleans(), &Cleans::new());
        let mut values = field::of_object(self.looks_at(), object);
        values.extend(field::of_object(cleaning.units(), object));
        cleaning.clean(&mut values)?;
        self.prepare(&values)
    }

    /// One pass over `inputs`; one prediction for each, in order. Inputs come from this model's `prepare`.
    ///
    /// # Errors
    ///
    /// [`Refused`]: no input was answered. The caller halves, or waits, or stops, by its kind.
    fn predict(&self, inputs: &[&Input]) -> Result<Vec<Prediction>, Refused>;

    /// The memory of the device that it computes on; `None` where that is the process's own.
    fn memory(&self) -> Option<Memory> {
        None
    }
}

/// What a model says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct About {
    /// The task, as Hugging Face spells it: `text-embedding`, `tabular-classification`, …
    pub task: Task,
    /// `bert`, `mlp`, `logistic`, …
    pub architecture: String,
    /// What the weights are computed in: `f32`, `int8`, …; `f64` of a tabular model, always.
    pub precision: &'static str,
    /// `cpu`, `cuda:0`, `cuda:0,cuda:1`, `metal:0`.
    pub device: String,
    /// Names of the fields it reads, in order.
    pub fields: Vec<String>,
    /// Labels by index, for classifiers.
    pub labels: Vec<String>,
    /// Numbers in an answer: an embedding's length, a classifier's labels, 1 of a regression.
    pub width: usize,
    /// Bytes that the weights take.
    pub bytes: u64,
    /// Tokens that one call of `predict` is best given.
    pub chunk_tokens: usize,
    /// Whether a call costs its rows times its longest row, and not the sum of its tokens.
    pub padded: bool,
    /// What whoever loads it should know, in plain sentences: what the files hold and nothing uses, a default taken.
    pub notes: Vec<String>,
}

impl About {
    /// What a swap must not change unasked, in words that two versions can be compared by.
    pub fn signature(&self) -> Signature {
        let task = self.task.name();
        let output = match self.task {
            Task::TextEmbedding => format!("embedding of {} numbers", self.width),
            Task::TabularRegression => "a value".to_owned(),
            Task::TextRanking => "a score".to_owned(),
            Task::TextClassification
            | Task::TokenClassification
            | Task::TabularClassification
            | Task::ImageClassification => {
                let mut labels = self.labels.clone();
                labels.sort();
                format!("{} labels: {}", labels.len(), Signature::short(&labels))
            }
        };
        Signature { task, fields: self.fields.clone(), output }
    }
}

#[cfg(test)]
impl About {
    /// What a model of a test says, as far as it does not matter there.
    pub(crate) fn of_tests() -> Self {
        Self {
            task: Task::TextEmbedding,
            architecture: "bert".to_owned(),
            precision: "f32",
            device: "cpu".to_owned(),
            fields: Vec::new(),
            labels: Vec::new(),
            width: 1,
            bytes: 0,
            chunk_tokens: 1,
            padded: false,
            notes: Vec::new(),
        }
    }
}

/// One record, ready for its model.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A text. Of type 1 are the ids with the bit [`encoder::TYPED`].
    Tokens(Tokens),
    /// Tokens of a text with their places in it, for models that label pieces of it.
    Marked(Box<Marked>),
    /// The windows of a text, for models that answer it in pieces.
    Windows(Box<[Window]>),
    /// Features after imputation, scaling and encoding: `[features]` f64.
    Row(Box<[f64]>),
    /// An image, decoded and resized. Normalised in `predict` only: a batch that waits takes a quarter of the memory.
    Pixels {
        /// `[height, width, 3]` u8, RGB.
        pixels: Box<[u8]>,
        /// Patches and the class token.
        tokens: usize,
    },
}

impl Input {
    /// What it costs the model: tokens of a text or an image; 1 for a row.
    pub fn tokens(&self) -> usize {
        match self {
            Self::Tokens(tokens) => tokens.ids.len(),
            Self::Marked(marked) => marked.ids.len(),
            Self::Windows(windows) => windows.iter().map(|window| window.ids.len()).sum(),
            Self::Row(_) => 1,
            Self::Pixels { tokens, .. } => *tokens,
        }
    }

    /// What of the text it does not have.
    pub fn truncated(&self) -> Option<Truncated> {
        match self {
            Self::Tokens(tokens) => tokens.truncated,
            Self::Marked(marked) => marked.truncated,
            Self::Windows(_) | Self::Row(_) | Self::Pixels { .. } => None,
        }
    }

    /// Bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        match self {
            Self::Tokens(tokens) => size_of_val(&*tokens.ids),
            Self::Marked(marked) => marked.memory(),
            Self::Windows(windows) => {
                let ids: usize = windows.iter().map(|window| size_of_val(&*window.ids)).sum();
                size_of_val(&**windows) + ids
            }
            Self::Row(features) => size_of_val(&**features),
            Self::Pixels { pixels, .. } => pixels.len(),
        }
    }
}

/// The tokens of a text, or of the two of a pair.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tokens {
    /// Token ids with their special tokens, at most the model's maximum.
    pub ids: Box<[u32]>,
    /// What was left out.
    pub truncated: Option<Truncated>,
}

/// A whole text's.
impl<T: Into<Box<[u32]>>> From<T> for Tokens {
    fn from(ids: T) -> Self {
        Self { ids: ids.into(), truncated: None }
    }
}

/// A piece of a text that the model takes whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Token ids with their special tokens, at most the model's maximum.
    pub ids: Box<[u32]>,
    /// Its first character, counted in Unicode scalar values.
    pub start: usize,
    /// One past its last.
    pub end: usize,
}

/// A text's tokens with their places in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Marked {
    /// Token ids with their special tokens, at most the model's maximum.
    pub ids: Box<[u32]>,
    /// What was left out.
    pub truncated: Option<Truncated>,
    /// One for each id.
    pub marks: Box<[Mark]>,
    /// The part of the text that was looked at, as far as its tokens reach.
    pub text: Box<str>,
    /// Characters of the text before it.
    pub before: u32,
}

impl Marked {
    /// Bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.ids) + size_of_val(&*self.marks) + self.text.len()
    }
}

/// A token's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its first character, counted in Unicode scalar values.
    pub start: u32,
    /// One past its last.
    pub end: u32,
    /// Whether it continues the word of the token before it.
    pub joins: bool,
    /// Whether the tokenizer added it: it has no place, and no label.
    pub special: bool,
}

/// A device's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What could be allocated now.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

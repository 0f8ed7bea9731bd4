//! Text models: embedding, classification of texts and of tokens, from a plain Hugging Face directory.
//!
//! ```text
//!  text ─► tokenizer ─► ids ─► backbone ─► ┬ pooling ─► normalise ─► embedding
//!                                          ├ first token ─► head ─► softmax | sigmoid ─► label
//!                                          └ each token ─► head ─► softmax ─► aggregation ─► spans
//! ```
//!
//! On the packed backbone a sequence's result does not depend on the batch it is in: nothing is padded, and every kernel
//! works row by row. [`padded`](super::padded) says what holds on the other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::Value;
use tokenizers::{Encoding, Tokenizer};

use super::device::{self, Memory, Place};
use super::weights::Weights;
use super::{About, Fields, Input, Model, Prediction, Refused, artifact, text_field};
use crate::config::{Aggregation, Determinism, OnLong, Precision};
use crate::record::{Fault, FaultClass};

mod architecture;
mod backbone;
mod head;
mod spans;
mod tokenizer;

pub use backbone::{Backbone, Take, Taken};
pub use spans::{Mark, Marked};

use architecture::Architecture;
use head::Head;
use spans::Marker;

/// How a text model is to be loaded.
#[derive(Debug, Clone)]
pub struct Options {
    /// The field that holds the text.
    pub field: String,
    /// What the weights are computed in.
    pub precision: Precision,
    /// What happens to a text longer than the model takes.
    pub on_long: OnLong,
    /// Longest input in tokens; default: what the model's own files say.
    pub max_length: Option<u32>,
    /// How a token classifier's labels become spans.
    pub aggregation: Aggregation,
    /// `cpu`, `cuda:0`.
    pub device: String,
    /// Whether an answer's last bits may depend on the batch.
    pub determinism: Determinism,
}

/// Why a text model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error(transparent)]
    File(Box<artifact::Error>),
    /// Something this build does not do, and what does.
    #[error("{0}")]
    Unsupported(String),
}

impl From<device::Error> for Error {
    fn from(error: device::Error) -> Self {
        Self::Unsupported(error.to_string())
    }
}

impl From<artifact::Error> for Error {
    fn from(error: artifact::Error) -> Self {
        Self::File(Box::new(error))
    }
}

/// A text model. See the module.
pub struct Text {
    about: About,
    backbone: Backbone,
    head: Head,
    tokenizer: Tokenizer,
    /// Where the head wants to know the places of tokens.
    marker: Option<Marker>,
    longest: usize,
    on_long: OnLong,
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Text").field("about", &self.about).finish_non_exhaustive()
    }
}

/// Loads a directory.
///
/// # Errors
///
/// With the file or tensor, what was expected and what was found.
pub fn load(dir: &Path, options: &Options) -> Result<Box<dyn Model>, Error> {
    let place: Place = options.device.parse()?;
    let architecture = Architecture::read(dir)?;
    let tokenizer = tokenizer::load(dir, architecture.longest())?;
    let weights = Weights::open(dir)?;
    let (backbone, named) = architecture.backbone(&weights, &place, options, &tokenizer)?;
    let head = Head::load(dir, &architecture, &weights, options.aggregation)?;
    weights.finish()?;
    let longest = longest(dir, &architecture, options)?;
    let marker = match head.take() {
        Take::Tokens => Some(Marker::load(dir, &tokenizer)?),
        Take::First | Take::Mean | Take::Max => None,
    };
    let about = About {
        task: head.task(),
        architecture: architecture.name().to_owned(),
        precision: named,
        device: place.to_string(),
        fields: vec![options.field.clone()],
        labels: head.labels().to_vec(),
        width: if head.labels().is_empty() { architecture.hidden() } else { head.labels().len() },
        bytes: backbone.bytes(),
        chunk_tokens: backbone.chunk_tokens(),
        padded: backbone.pads(),
    };
    let on_long = options.on_long;
    Ok(Box::new(Text { about, backbone, head, tokenizer, marker, longest, on_long }))
}

/// A JSON file that may be missing.
fn optional<T: serde::de::DeserializeOwned>(dir: &Path, file: &str) -> Result<Option<T>, Error> {
    if artifact::present(dir, file) { Ok(Some(artifact::json(dir, file)?)) } else { Ok(None) }
}

fn longest(dir: &Path, architecture: &Architecture, options: &Options) -> Result<usize, Error> {
    let places = architecture.longest();
    let said = |file: &str, key: &str| -> Result<Option<usize>, Error> {
        let value = optional::<Value>(dir, file)?.and_then(|value| value.get(key).cloned());
        let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
        if value.as_f64().is_none_or(|length| length < 2.0) {
            let message = format!("{key} is {value}, not a number of tokens from 2 on");
            return Err(artifact::Error::config(file, message).into());
        }
        // transformers writes 10^30 where there is no limit.
        let length = value.as_u64().and_then(|length| usize::try_from(length).ok());
        Ok(Some(length.unwrap_or(usize::MAX)))
    };
    let asked = options.max_length.and_then(|length| usize::try_from(length).ok());
    let own = match said("sentence_bert_config.json", "max_seq_length")? {
        Some(length) => Some(length),
        None => said("tokenizer_config.json", "model_max_length")?,
    };
    Ok(asked.or(own).unwrap_or(places).clamp(2, places))
}

/// The first `longest` of a text's tokens: the last of all is the special token that closes it, and stays the last.
fn kept<T: Copy>(all: &[T], longest: usize) -> Vec<T> {
    match all.last() {
        Some(last) if longest < all.len() => [&all[..longest - 1], &[*last]].concat(),
        _ => all.to_vec(),
    }
}

/// Bytes of text that are tokenised for each token that can be used, before looking whether it was enough.
const BYTES_A_TOKEN: usize = 32;
/// Bytes of text that are tokenised where that was not enough: a tokenizer takes about 100 bytes of memory for each.
const MOST_BYTES: usize = 256 << 10;
/// The last tokens of a text that was cut may be others than the whole text's: the cut may be inside a word.
const UNSURE: usize = 100;

impl Text {
    /// The tokens of a text with their special tokens, of which the first `longest` count, and whether that leaves
    /// some of the text out.
    fn encode(&self, text: &str) -> Result<(Encoding, bool), Fault> {
        let first = (self.longest + UNSURE).saturating_mul(BYTES_A_TOKEN);
        for bytes in [first, first.max(MOST_BYTES)] {
            let end = text.floor_char_boundary(bytes);
            let encoding = self.tokenise(text.get(..end).unwrap_or(text))?;
            if end == text.len() {
                let long = self.longest < encoding.len();
                return Ok((encoding, long));
            }
            if self.longest + UNSURE <= encoding.len() {
                return Ok((encoding, true));
            }
        }
        let message = format!(
            "the text has {} bytes, and its first {} have fewer than the {} tokens that the model takes: it is \
             nearly all white space, or one word",
            text.len(),
            first.max(MOST_BYTES),
            self.longest
        );
        Err(Fault::new(FaultClass::TooLong, message))
    }

    fn tokenise(&self, text: &str) -> Result<Encoding, Fault> {
        // A tokenizer's regular expressions may panic on hostile text.
        let encoded = catch_unwind(AssertUnwindSafe(|| match &self.marker {
            None => self.tokenizer.encode_fast(text, true),
            Some(_) => self.tokenizer.encode_char_offsets(text, true),
        }));
        let invalid =
            |why: String| Fault::new(FaultClass::Invalid, format!("tokenise the text: {why}"));
        encoded
            .map_err(|_panic| invalid("the tokenizer panicked".to_owned()))?
            .map_err(|error| invalid(error.to_string()))
    }
}

impl Model for Text {
    fn about(&self) -> &About {
        &self.about
    }

    fn prepare(&self, fields: &Fields) -> Result<Input, Fault> {
        let name = &self.about.fields[0];
        let text = text_field(fields, name, "a string")?;
        let (encoding, long) = self.encode(text)?;
        if long && self.on_long == OnLong::Reject {
            let message = format!("field {name:?} has more than {} tokens", self.longest);
            return Err(Fault::new(FaultClass::TooLong, message));
        }
        if encoding.is_empty() {
            let message = format!("field {name:?} tokenises to nothing");
            return Err(Fault::new(FaultClass::Invalid, message));
        }
        Ok(match &self.marker {
            None => Input::Tokens(kept(encoding.get_ids(), self.longest).into_boxed_slice()),
            Some(marker) => {
                let marked = marker.mark(text, &encoding, &self.tokenizer, self.longest);
                Input::Marked(Box::new(marked))
            }
        })
    }

    fn memory(&self) -> Option<Memory> {
        self.backbone.memory()
    }

    fn predict(&self, inputs: &[&Input]) -> Result<Vec<Prediction>, Refused> {
        let mut sequences = Vec::with_capacity(inputs.len());
        for (row, input) in inputs.iter().enumerate() {
            let refused = |message: String| Refused::Row { row, message };
            let ids = match input {
                Input::Tokens(ids) => ids,
                Input::Marked(marked) => &marked.ids,
                Input::Row(_) | Input::Pixels { .. } => {
                    let message = "a text model takes tokens, not features or pixels";
                    return Err(refused(message.to_owned()));
                }
            };
            if ids.is_empty() || self.longest < ids.len() {
                return Err(refused(format!("{} tokens, not 1 to {}", ids.len(), self.longest)));
            }
            if let Some(id) = ids.iter().find(|id| !self.backbone.knows(**id)) {
                return Err(refused(format!("token id {id} is beyond the vocabulary")));
            }
            sequences.push(&**ids);
        }
        let taken = self.backbone.run(&sequences, self.head.take())?;
        self.head.answer(taken, inputs)
    }
}

//! Text models: embedding, classification of texts and of tokens, from a plain Hugging Face directory.
//!
//! ```text
//!  text ─► tokenizer ─► ids ─► backbone ─► ┬ pooling ─► normalise ─► embedding
//!                                          ├ first token ─► head ─► softmax | sigmoid ─► label
//!                                          └ each token ─► head ─► softmax ─► aggregation ─► spans
//! ```
//!
//! A sequence's result does not depend on the batch it is in: nothing is padded, and every kernel works row by row.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::Value;
use tokenizers::{Encoding, Tokenizer};

use super::encoder::{self, Encoder, Family, Workspace};
use super::kernels;
use super::weights::Weights;
use super::{About, Fields, Input, Model, Prediction, Refused, artifact};
use crate::config::{Aggregation, OnLong, Precision};
use crate::format::kind;
use crate::record::{Fault, FaultClass};

mod backbone;
mod head;
mod spans;

pub use backbone::{Backbone, Take, Taken};
pub use spans::{Mark, Marked};

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
    /// `cpu`.
    pub device: String,
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
    if options.device != "cpu" {
        let message =
            format!("device {:?}: text models run on the CPU in this build", options.device);
        return Err(Error::Unsupported(message));
    }
    if options.precision == Precision::Bf16 {
        let message = "precision bf16 is for GPUs; on the CPU set model.precision: f32";
        return Err(Error::Unsupported(message.to_owned()));
    }
    let config: encoder::Config = artifact::json(dir, "config.json")?;
    let family = config.family()?;
    let tokenizer = tokenizer(dir)?;
    let weights = Weights::open(dir)?;
    let (encoder, named) = match options.precision {
        Precision::Int8 => (Encoder::new(&config, &weights, encoder::Precision::Int8)?, "int8"),
        Precision::Auto => fastest(&config, &weights, &tokenizer)?,
        Precision::F32 | Precision::Bf16 => {
            (Encoder::new(&config, &weights, encoder::Precision::F32)?, "f32")
        }
    };
    let head = Head::load(dir, &config, family, &weights, options.aggregation)?;
    drop(weights);
    let longest = longest(dir, &config, family, options)?;
    let backbone = Backbone::Packed(encoder);
    let marker = match head.take() {
        Take::Tokens => Some(Marker::load(dir, &tokenizer)?),
        Take::First | Take::Mean | Take::Max => None,
    };
    let about = About {
        task: head.task(),
        architecture: config.model_type.clone(),
        precision: named,
        device: "cpu".to_owned(),
        fields: vec![options.field.clone()],
        labels: head.labels().to_vec(),
        bytes: backbone.bytes(),
    };
    let on_long = options.on_long;
    Ok(Box::new(Text { about, backbone, head, tokenizer, marker, longest, on_long }))
}

/// What `precision: auto` looks at.
const PROBES: [&str; 8] = [
    "The quick brown fox jumps over the lazy dog.",
    "no",
    "Delivery took three weeks and the box was damaged, but support refunded me at once.",
    "SELECT count(*) FROM orders WHERE created_at > now() - interval '1 day';",
    "Der Zug nach Hamburg fährt heute von Gleis 7.",
    "Quarterly revenue rose by 12 % to 3.4 billion, well above what analysts had expected.",
    "Call me at 555-0199 before noon!!! :-)",
    "In the beginning the universe was hot, dense and nearly uniform; small differences grew under gravity.",
];

/// The least mean cosine to f32 at which `precision: auto` takes int8.
const CLOSE: f32 = 0.995;

/// int8 where the CPU multiplies it faster and the probes' mean states stay close to those in f32; else f32.
fn fastest(
    config: &encoder::Config,
    weights: &Weights,
    tokenizer: &Tokenizer,
) -> Result<(Encoder, &'static str), Error> {
    let exact = Encoder::new(config, weights, encoder::Precision::F32)?;
    if kernels::level() == kernels::Level::Portable {
        return Ok((exact, "f32"));
    }
    let fast = Encoder::new(config, weights, encoder::Precision::Int8)?;
    let longest = config.longest(config.family()?);
    let mean = |encoder: &Encoder, ids: &[u32]| -> Vec<f32> {
        let mut workspace = Workspace::default();
        let (states, _) = encoder.forward(&[ids], &mut workspace);
        let mut sums = vec![0.0; config.hidden()];
        for row in states.chunks_exact(config.hidden()) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        sums
    };
    let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let mut sum = 0.0;
    for probe in PROBES {
        let encoded = tokenizer
            .encode_fast(probe, true)
            .map_err(|error| Error::Unsupported(format!("tokenise a probe: {error}")))?;
        let ids: Vec<u32> = encoded.get_ids().iter().copied().take(longest).collect();
        if ids.is_empty() || ids.iter().any(|id| !exact.knows(*id)) {
            return Ok((exact, "f32"));
        }
        let (a, b) = (mean(&exact, &ids), mean(&fast, &ids));
        sum += dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
    }
    let cosine = sum / f32::from(u8::try_from(PROBES.len()).unwrap_or(u8::MAX));
    let (encoder, named) = if CLOSE <= cosine { (fast, "int8") } else { (exact, "f32") };
    tracing::info!(cosine, precision = named, "precision auto: int8 was compared with f32");
    Ok((encoder, named))
}

fn tokenizer(dir: &Path) -> Result<Tokenizer, Error> {
    let bytes = artifact::bytes(dir, "tokenizer.json")?;
    let fail = |why: String| {
        Error::from(artifact::Error::Config { file: "tokenizer.json".to_owned(), message: why })
    };
    let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(|error| fail(error.to_string()))?;
    tokenizer.with_padding(None);
    // Truncation is done on the ids, so that a text that is too long can be told from one that fits.
    tokenizer.with_truncation(None).map_err(|error| fail(error.to_string()))?;
    Ok(tokenizer)
}

/// A JSON file that may be missing.
fn optional<T: serde::de::DeserializeOwned>(dir: &Path, file: &str) -> Result<Option<T>, Error> {
    if dir.join(file).exists() { Ok(Some(artifact::json(dir, file)?)) } else { Ok(None) }
}

fn longest(
    dir: &Path,
    config: &encoder::Config,
    family: Family,
    options: &Options,
) -> Result<usize, Error> {
    let places = config.longest(family);
    let said = |file: &str, key: &str| -> Result<Option<usize>, Error> {
        let value = optional::<Value>(dir, file)?;
        let value = value.and_then(|value| value.get(key)?.as_u64());
        Ok(value.and_then(|value| usize::try_from(value).ok()))
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

impl Text {
    /// The tokens of a text with their special tokens, of which the first `longest` count, and whether that leaves
    /// some of the text out.
    fn encode(&self, text: &str) -> Result<(Encoding, bool), Fault> {
        let mut limit = self.longest.saturating_mul(BYTES_A_TOKEN);
        loop {
            let end = text.floor_char_boundary(limit);
            let head = text.get(..end).unwrap_or(text);
            // A tokenizer's regular expressions may panic on hostile text.
            let encoded = catch_unwind(AssertUnwindSafe(|| match &self.marker {
                None => self.tokenizer.encode_fast(head, true),
                Some(_) => self.tokenizer.encode_char_offsets(head, true),
            }));
            let invalid =
                |why: String| Fault::new(FaultClass::Invalid, format!("tokenise the text: {why}"));
            let encoding = encoded
                .map_err(|_panic| invalid("the tokenizer panicked".to_owned()))?
                .map_err(|error| invalid(error.to_string()))?;
            let cut = end < text.len();
            if cut && encoding.len() < self.longest {
                limit = limit.saturating_mul(4);
                continue;
            }
            let long = cut || self.longest < encoding.len();
            return Ok((encoding, long));
        }
    }
}

impl Model for Text {
    fn about(&self) -> &About {
        &self.about
    }

    fn prepare(&self, fields: &Fields) -> Result<Input, Fault> {
        let name = &self.about.fields[0];
        let text = match fields.get(name) {
            Some(Value::String(text)) => text,
            None | Some(Value::Null) => {
                return Err(Fault::new(
                    FaultClass::Missing,
                    format!("field {name:?} is missing or null"),
                ));
            }
            Some(other) => {
                let message = format!("field {name:?} is a {}, not a string", kind(other));
                return Err(Fault::new(FaultClass::Invalid, message));
            }
        };
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

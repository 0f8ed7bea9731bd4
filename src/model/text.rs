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

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;
use tokenizers::utils::truncation::TruncationDirection;

use super::device::{self, Memory, Place};
use super::weights::Weights;
use super::{About, Fields, Input, Model, Prediction, Refused, artifact, text_field};
use crate::config::{Aggregation, Determinism, OnLong, Precision};
use crate::record::{Fault, FaultClass};

mod architecture;
mod backbone;
mod cross;
mod head;
mod seam;
mod sequence;
mod spans;
mod template;
mod tokenizer;

pub use backbone::{Backbone, Take, Taken};
pub use spans::{Mark, Marked};

use architecture::Architecture;
use head::{Head, Pairs};
use sequence::{Sequence, Sequencer};
use spans::Marker;
use template::Template;

/// How a text model is to be loaded.
#[derive(Debug, Clone)]
pub struct Options {
    /// The field that holds the text.
    pub field: String,
    /// The field that holds the second text of a pair.
    pub pair_field: String,
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
    sequencer: Sequencer,
    /// Where the head wants to know the places of tokens.
    marker: Option<Marker>,
    on_long: OnLong,
    /// The fields of the text and of a second one.
    looks_at: [String; 2],
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
    let (tokenizer, side) = tokenizer::load(dir, architecture.longest())?;
    let weights = Weights::open(dir)?;
    let (backbone, named) = architecture.backbone(&weights, &place, options, &tokenizer)?;
    let head = Head::load(dir, &architecture, &weights, options.aggregation)?;
    weights.finish()?;
    let longest = longest(dir, &architecture, options)?;
    let marker = match head.take() {
        Take::Tokens => Some(Marker::load(dir, &tokenizer)?),
        Take::First | Take::Mean | Take::Max => None,
    };
    let looks_at = [options.field.clone(), options.pair_field.clone()];
    let both = head.pairs() == Pairs::Always;
    let about = About {
        task: head.task(),
        architecture: architecture.name().to_owned(),
        precision: named,
        device: place.to_string(),
        fields: looks_at[..if both { 2 } else { 1 }].to_vec(),
        labels: head.labels().to_vec(),
        width: if head.labels().is_empty() { architecture.hidden() } else { head.labels().len() },
        bytes: backbone.bytes(),
        chunk_tokens: backbone.chunk_tokens(),
        padded: backbone.pads(),
    };
    let sequencer = sequencer(dir, &architecture, (tokenizer, side), &head, longest)?;
    let on_long = options.on_long;
    Ok(Box::new(Text { about, backbone, head, sequencer, marker, on_long, looks_at }))
}

/// What makes sequences as the model takes them.
fn sequencer(
    dir: &Path,
    architecture: &Architecture,
    (tokenizer, side): (Tokenizer, TruncationDirection),
    head: &Head,
    longest: usize,
) -> Result<Sequencer, Error> {
    let fail = |why: String| Error::from(artifact::Error::config("tokenizer.json", why));
    let types = architecture.types();
    let typed = types != 0 && template::hands_types(dir)?;
    let known = |template: Template| {
        if template.is_typed() && types < 2 {
            return Err(
                "its tokenizer gives tokens the type 1, and type_vocab_size is 1".to_owned()
            );
        }
        Ok(template)
    };
    let single = Template::of(&tokenizer, 1, typed).and_then(known).map_err(fail)?;
    if longest < single.specials() {
        let specials = single.specials();
        return Err(fail(format!(
            "adds {specials} special tokens to each text, and {longest} tokens are to be used with them"
        )));
    }
    let pair = Template::of(&tokenizer, 2, typed).and_then(known);
    let places = head.take() == Take::Tokens;
    let sequencer = Sequencer::new((tokenizer, side), (single, pair), places, longest);
    match sequencer.no_pairs() {
        Some(why) if head.pairs() == Pairs::Always => {
            Err(Error::Unsupported(format!("a cross-encoder takes pairs of texts, and {why}")))
        }
        _ => Ok(sequencer),
    }
}

/// Whether a record has something in a field.
fn present(fields: &Fields, name: &str) -> bool {
    fields.get(name).is_some_and(|value| !value.is_null())
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
    // As transformers has it, and what it was called before.
    let own = [
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
        ("tokenizer_config.json", "max_len"),
    ];
    let own = own.iter().find_map(|(file, key)| said(file, key).transpose()).transpose()?;
    Ok(asked.or(own).unwrap_or(places).clamp(2, places))
}

impl Model for Text {
    fn about(&self) -> &About {
        &self.about
    }

    fn looks_at(&self) -> &[String] {
        &self.looks_at
    }

    fn prepare(&self, fields: &Fields) -> Result<Input, Fault> {
        let [name, pair] = &self.looks_at;
        let text = text_field(fields, name, "a string")?;
        let second = match self.head.pairs() {
            Pairs::Always => Some(text_field(fields, pair, "a string")?),
            // As transformers' pipeline has it, an empty second text is none.
            Pairs::Also if present(fields, pair) => {
                Some(text_field(fields, pair, "a string")?).filter(|second| !second.is_empty())
            }
            Pairs::Never if present(fields, pair) => {
                let message = format!(
                    "field {pair:?} has a second text, and a model for {} takes one: leave the field out, or name \
                     another in input.pair_field",
                    self.about.task.name()
                );
                return Err(Fault::new(FaultClass::Invalid, message));
            }
            Pairs::Also | Pairs::Never => None,
        };
        let too_long = |what: String| {
            let message = format!("{what} more than {} tokens", self.sequencer.longest());
            Err(Fault::new(FaultClass::TooLong, message))
        };
        if let Some(second) = second {
            let first = format!("{}{text}", self.head.prompt());
            let (ids, long) = self.sequencer.pair([&first, second])?;
            if long && self.on_long == OnLong::Reject {
                return too_long(format!("fields {name:?} and {pair:?} have together"));
            }
            return Ok(Input::Tokens(ids.into()));
        }
        let Sequence { ids, long, source } = self.sequencer.single(text)?;
        if long && self.on_long == OnLong::Reject {
            return too_long(format!("field {name:?} has"));
        }
        if ids.is_empty() {
            let message = format!("field {name:?} tokenises to nothing");
            return Err(Fault::new(FaultClass::Invalid, message));
        }
        Ok(match &self.marker {
            None => Input::Tokens(ids.into()),
            Some(marker) => {
                let marked = marker.mark(ids, &source, self.sequencer.tokenizer());
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
            let longest = self.sequencer.longest();
            if ids.is_empty() || longest < ids.len() {
                return Err(refused(format!("{} tokens, not 1 to {longest}", ids.len())));
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

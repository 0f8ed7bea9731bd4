//! Text models: embedding and classification, from a plain Hugging Face directory.
//!
//! ```text
//!  text ─► tokenizer ─► ids ─► encoder ─► ┬ pooling ─► normalise ─► embedding
//!                                         └ first token ─► head ─► softmax | sigmoid ─► label
//! ```
//!
//! A sequence's result does not depend on the batch it is in: nothing is padded, and every kernel works row by row.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::Tokenizer;

use super::device::{self, Place};
use super::encoder::{self, Encoder, Family, Linear, Workspace};
use super::kernels;
use super::tabular::{best, sigmoid, softmax};
use super::weights::Weights;
use super::worker::SUB_BATCH_TOKENS;
use super::{About, Fields, Input, Model, Prediction, Refused, Task, artifact};
use crate::config::{OnLong, Precision};
use crate::format::kind;
use crate::record::{Fault, FaultClass};

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

/// What `config.json` says beside the encoder.
#[derive(Debug, Deserialize)]
struct HeadConfig {
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    id2label: BTreeMap<String, String>,
    #[serde(default)]
    problem_type: Option<String>,
}

/// `1_Pooling/config.json` of sentence-transformers.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PoolingConfig {
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
}

/// How token vectors become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pooling {
    /// The mean over all tokens, special ones included, as sentence-transformers does.
    Mean,
    /// The first token's.
    First,
    /// The largest of each dimension.
    Max,
}

/// What stands on the encoder.
#[derive(Debug)]
enum Head {
    Embedding {
        pooling: Pooling,
        normalise: bool,
    },
    Classifier {
        hidden: Option<Box<(Linear, Squash)>>,
        output: Box<Linear>,
        labels: Arc<[String]>,
        scores: Scores,
    },
}

#[derive(Debug, Clone, Copy)]
enum Squash {
    Tanh,
    Relu,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scores {
    /// One label is right.
    Softmax,
    /// Each label is right or not.
    Sigmoid,
}

/// A text model. See the module.
pub struct Text {
    about: About,
    encoder: Encoder,
    head: Head,
    tokenizer: Tokenizer,
    longest: usize,
    on_long: OnLong,
    hidden: usize,
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
    if place != Place::Cpu {
        let message = format!("device {place}: text models run on the CPU in this build");
        return Err(Error::Unsupported(message));
    }
    if matches!(options.precision, Precision::Bf16 | Precision::F16) {
        place.dtype(options.precision)?;
    }
    let config: encoder::Config = artifact::json(dir, "config.json")?;
    let family = config.family()?;
    let heads: HeadConfig = artifact::json(dir, "config.json")?;
    let tokenizer = tokenizer(dir)?;
    let weights = Weights::open(dir)?;
    let (encoder, named) = match options.precision {
        Precision::Int8 => (Encoder::new(&config, &weights, encoder::Precision::Int8)?, "int8"),
        Precision::Auto => fastest(&config, &weights, &tokenizer)?,
        Precision::F32 | Precision::Bf16 | Precision::F16 => {
            (Encoder::new(&config, &weights, encoder::Precision::F32)?, "f32")
        }
    };
    let head = head(dir, &config, family, &heads, &weights)?;
    drop(weights);
    let longest = longest(dir, &config, family, options)?;
    let (task, labels) = match &head {
        Head::Embedding { .. } => (Task::TextEmbedding, Vec::new()),
        Head::Classifier { labels, .. } => (Task::TextClassification, labels.to_vec()),
    };
    let about = About {
        task,
        architecture: config.model_type.clone(),
        precision: named,
        device: "cpu".to_owned(),
        fields: vec![options.field.clone()],
        labels,
        bytes: encoder.bytes(),
        chunk_tokens: SUB_BATCH_TOKENS,
        padded: false,
    };
    let hidden = config.hidden();
    let on_long = options.on_long;
    Ok(Box::new(Text { about, encoder, head, tokenizer, longest, on_long, hidden }))
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
    if kernels::level() != kernels::Level::Vnni {
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

fn head(
    dir: &Path,
    config: &encoder::Config,
    family: Family,
    heads: &HeadConfig,
    weights: &Weights,
) -> Result<Head, Error> {
    let architecture = heads.architectures.first().map_or("", String::as_str);
    if !architecture.ends_with("ForSequenceClassification") {
        if architecture.contains("For") && !architecture.ends_with("ForMaskedLM") {
            let message = format!(
                "architecture {architecture:?}: embedding and sequence classification are supported"
            );
            return Err(Error::Unsupported(message));
        }
        return embedding(dir);
    }
    let labels = labels(&heads.id2label);
    let hidden = config.hidden();
    let (first, output) = match family {
        Family::Bert => (Some(("bert.pooler.dense", Squash::Tanh)), "classifier"),
        Family::DistilBert => (Some(("pre_classifier", Squash::Relu)), "classifier"),
        Family::Roberta => (Some(("classifier.dense", Squash::Tanh)), "classifier.out_proj"),
    };
    // A head is a thousandth of the work: it stays f32.
    let exact = |name, outputs| weights.linear(&[name], (hidden, outputs), encoder::Precision::F32);
    let first = match first {
        Some((name, squash)) => Some(Box::new((exact(name, hidden)?, squash))),
        None => None,
    };
    let scores = match heads.problem_type.as_deref() {
        Some("multi_label_classification") => Scores::Sigmoid,
        Some("regression") => {
            let message = "problem_type regression: a text regression is not supported";
            return Err(Error::Unsupported(message.to_owned()));
        }
        _ if labels.len() == 1 => Scores::Sigmoid,
        _ => Scores::Softmax,
    };
    let output = Box::new(exact(output, labels.len())?);
    Ok(Head::Classifier { hidden: first, output, labels: labels.into(), scores })
}

fn embedding(dir: &Path) -> Result<Head, Error> {
    let config = optional::<PoolingConfig>(dir, "1_Pooling/config.json")?;
    let pooling = match config {
        Some(PoolingConfig { pooling_mode_cls_token: true, .. }) => Pooling::First,
        Some(PoolingConfig { pooling_mode_max_tokens: true, .. }) => Pooling::Max,
        Some(PoolingConfig { pooling_mode_mean_tokens: true, .. }) | None => Pooling::Mean,
        Some(PoolingConfig { .. }) => {
            let message = "1_Pooling/config.json: mean, cls and max pooling are supported";
            return Err(Error::Unsupported(message.to_owned()));
        }
    };
    let modules = optional::<Vec<Value>>(dir, "modules.json")?.unwrap_or_default();
    let kinds: Vec<&str> =
        modules.iter().filter_map(|module| module.get("type")?.as_str()).collect();
    let known = ["Transformer", "Pooling", "Normalize"];
    if let Some(other) = kinds.iter().find(|kind| !known.iter().any(|known| kind.ends_with(known)))
    {
        let message = format!("modules.json: module {other:?} is none of {}", known.join(", "));
        return Err(Error::Unsupported(message));
    }
    // A directory without modules is a bare encoder: pooled and normalised, as vector stores want it.
    let normalise = kinds.is_empty() || kinds.iter().any(|kind| kind.ends_with("Normalize"));
    Ok(Head::Embedding { pooling, normalise })
}

/// Labels in the order of their indices; two without names where the configuration has none, as transformers.
fn labels(id2label: &BTreeMap<String, String>) -> Vec<String> {
    if id2label.is_empty() {
        return vec!["LABEL_0".to_owned(), "LABEL_1".to_owned()];
    }
    let mut labels: Vec<(usize, &String)> =
        id2label.iter().filter_map(|(id, label)| Some((id.parse().ok()?, label))).collect();
    labels.sort();
    labels.into_iter().map(|(_, label)| label.clone()).collect()
}

/// Bytes of text that are tokenised for each token that can be used, before looking whether it was enough.
const BYTES_A_TOKEN: usize = 32;

impl Text {
    /// Token ids with their special tokens, and whether some of the text was left out.
    fn ids(&self, text: &str) -> Result<(Vec<u32>, bool), Fault> {
        let mut limit = self.longest.saturating_mul(BYTES_A_TOKEN);
        loop {
            let end = text.floor_char_boundary(limit);
            let head = text.get(..end).unwrap_or(text);
            // A tokenizer's regular expressions may panic on hostile text.
            let encoded = catch_unwind(AssertUnwindSafe(|| self.tokenizer.encode_fast(head, true)));
            let invalid =
                |why: String| Fault::new(FaultClass::Invalid, format!("tokenise the text: {why}"));
            let encoding = encoded
                .map_err(|_panic| invalid("the tokenizer panicked".to_owned()))?
                .map_err(|error| invalid(error.to_string()))?;
            let mut ids = encoding.get_ids().to_vec();
            let cut = end < text.len();
            if cut && ids.len() < self.longest {
                limit = limit.saturating_mul(4);
                continue;
            }
            let long = cut || self.longest < ids.len();
            if self.longest < ids.len()
                && let Some(last) = ids.last().copied()
            {
                ids.truncate(self.longest - 1);
                ids.push(last); // the special token that closes a sequence
            }
            return Ok((ids, long));
        }
    }

    fn pool(&self, states: &[f32], pooling: Pooling, normalise: bool) -> Vec<f32> {
        let mut rows = states.chunks_exact(self.hidden);
        let mut pooled = rows.next().unwrap_or_default().to_vec();
        let mut count = 1.0_f32;
        for row in rows {
            for (pooled, value) in pooled.iter_mut().zip(row) {
                match pooling {
                    Pooling::Mean => *pooled += value,
                    Pooling::Max => *pooled = pooled.max(*value),
                    Pooling::First => (),
                }
            }
            count += 1.0;
        }
        if pooling == Pooling::Mean {
            pooled.iter_mut().for_each(|value| *value /= count);
        }
        if normalise {
            let length = pooled.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-12);
            pooled.iter_mut().for_each(|value| *value /= length);
        }
        pooled
    }

    fn answer(&self, states: &[f32]) -> Prediction {
        match &self.head {
            Head::Embedding { pooling, normalise } => {
                Prediction::Embedding(self.pool(states, *pooling, *normalise))
            }
            Head::Classifier { hidden, output, labels, scores } => {
                let mut x = states.get(..self.hidden).unwrap_or_default().to_vec();
                if let Some((layer, squash)) = hidden.as_deref() {
                    x = layer.forward(&x, 1);
                    x.iter_mut().for_each(|value| {
                        *value = match squash {
                            Squash::Tanh => value.tanh(),
                            Squash::Relu => value.max(0.0),
                        };
                    });
                }
                let y = output.forward(&x, 1);
                let scores = match scores {
                    Scores::Softmax => softmax(&y),
                    Scores::Sigmoid => y.iter().map(|value| sigmoid(*value)).collect(),
                };
                Prediction::Label { best: best(&scores), scores, labels: Arc::clone(labels) }
            }
        }
    }
}

fn is_finite(prediction: &Prediction) -> bool {
    match prediction {
        Prediction::Embedding(values) | Prediction::Label { scores: values, .. } => {
            values.iter().all(|value| value.is_finite())
        }
        Prediction::Value(value) => value.is_finite(),
        Prediction::Spans(spans) => spans.iter().all(|span| span.score.is_finite()),
    }
}

thread_local! {
    /// A worker's buffers, for whatever model it runs.
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
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
        let (ids, long) = self.ids(text)?;
        if long && self.on_long == OnLong::Reject {
            let message = format!("field {name:?} has more than {} tokens", self.longest);
            return Err(Fault::new(FaultClass::TooLong, message));
        }
        if ids.is_empty() {
            let message = format!("field {name:?} tokenises to nothing");
            return Err(Fault::new(FaultClass::Invalid, message));
        }
        Ok(Input::Tokens(ids.into_boxed_slice()))
    }

    fn predict(&self, inputs: &[&Input]) -> Result<Vec<Prediction>, Refused> {
        let mut sequences = Vec::with_capacity(inputs.len());
        for (row, input) in inputs.iter().enumerate() {
            let refused = |message: String| Refused::Row { row, message };
            let Input::Tokens(ids) = input else {
                return Err(refused("a text model takes tokens, not features".to_owned()));
            };
            if ids.is_empty() || self.longest < ids.len() {
                return Err(refused(format!("{} tokens, not 1 to {}", ids.len(), self.longest)));
            }
            if let Some(id) = ids.iter().find(|id| !self.encoder.knows(**id)) {
                return Err(refused(format!("token id {id} is beyond the vocabulary")));
            }
            sequences.push(&**ids);
        }
        WORKSPACE.with_borrow_mut(|workspace| {
            let (states, offsets) = self.encoder.forward(&sequences, workspace);
            let mut predictions = Vec::with_capacity(sequences.len());
            for (row, pair) in offsets.windows(2).enumerate() {
                let prediction = self.answer(&states[pair[0] * self.hidden..pair[1] * self.hidden]);
                if !is_finite(&prediction) {
                    return Err(Refused::Row {
                        row,
                        message: "the output is NaN or infinite".to_owned(),
                    });
                }
                predictions.push(prediction);
            }
            Ok(predictions)
        })
    }
}

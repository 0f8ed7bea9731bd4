//! Text models: embedding, classification of texts and of tokens, from a plain Hugging Face directory.
//!
//! ```text
//!  text ─► tokenizer ─► ids ─► backbone ─► ┬ pooling ─► normalise ─► embedding
//!                                          ├ first token ─► head ─► softmax | sigmoid ─► label
//!                                          └ each token ─► head ─► softmax ─► aggregation ─► spans
//! ```
//!
//! # What a folder says
//!
//! As transformers 5.24 and sentence-transformers 6.2 load it. A key that is absent or null means what they take for it;
//! one that is refused is named in the error.
//!
//! | file | key | |
//! |---|---|---|
//! | `modules.json` | `type`, `path` | followed in order: Transformer, Pooling, then Dense, `LayerNorm`, Normalize, Dropout, in both spellings; others, code of the folder, and a path that leads out are refused. Absent: the mean, not normalised |
//! | | `name` | twice the same: refused |
//! | `…_Pooling/config.json` | `pooling_mode` (text or list), `pooling_mode_*` | all modes, several side by side; none is the mean |
//! | | `include_prompt` | honoured |
//! | `…_Dense/` | `in_features`, `out_features`, `bias`, `use_residual` | honoured |
//! | | `activation_function` | Tanh (default), Identity, `ReLU`, GELU, `SiLU`, Sigmoid of torch; others refused |
//! | | `module_input_name`, `module_output_name` | `sentence_embedding`; others refused, of `Normalize` too |
//! | `…_LayerNorm/` | `dimension` | honoured |
//! | `sentence_bert_config.json`, `sentence_{roberta, distilbert, camembert, albert, xlm-roberta, xlnet}_config.json` | `max_seq_length`, `do_lower_case` | honoured, of the first that says something, where there is a `modules.json` |
//! | | `transformer_task`, `modality_config`, `module_output_name` | the last hidden states of texts; others refused |
//! | | `model_args`, `config_args`, `tokenizer_args`, `processing_kwargs` and their newer names | refused, but for what changes no answer (`torch_dtype`, `attn_implementation`, …) |
//! | | `query_length`, `document_length`, `query_expansion`, `unpad_inputs` | no part of `encode()` |
//! | `config_sentence_transformers.json` | `default_prompt_name`, `prompts` | the default one is put before each text; the others are for callers |
//! | | `truncate_dim` | honoured |
//! | | `model_type` | `SentenceTransformer`, `CrossEncoder`; `SparseEncoder` and `MultiVectorEncoder` refused |
//! | | `similarity_fn_name` | changes no embedding |
//! | `tokenizer_config.json` | `tokenizer_class` (or that of `config.json`) | `BertTokenizer`, `DistilBertTokenizer`, `MPNetTokenizer`, `RobertaTokenizer`, `XLMRobertaTokenizer`, `CamembertTokenizer` make their own rules around the vocabulary of `tokenizer.json`; `PreTrainedTokenizerFast` takes it as it is, and so does every `ModernBERT`; others refused |
//! | | `do_lower_case`, `strip_accents`, `tokenize_chinese_chars` | honoured by the classes of `WordPiece` |
//! | | `add_prefix_space`, `trim_offsets` | honoured by the classes of BPE and Unigram |
//! | | `added_tokens_decoder`, `*_token`, `extra_special_tokens`, `additional_special_tokens`, `split_special_tokens` | honoured |
//! | | `model_max_length`, `max_len`, `truncation_side` | honoured |
//! | | `fast_tokenizer_files` | others than `tokenizer.json` refused |
//! | | `padding_side`, `clean_up_tokenization_spaces`, `chat_template`, … | change no answer |
//! | `special_tokens_map.json`, `added_tokens.json` | all | honoured where there is no `added_tokens_decoder` |
//! | `tokenizer.json` | all | as the class has it; absent: refused, with how to make it |
//! | `config.json` | `architectures` | `…ForSequenceClassification`, `…ForTokenClassification`; `…ForQuestionAnswering`, `…ForMultipleChoice`, `…ForCausalLM` refused; every other is an embedding model, unless the weights have a classifier: then `model.task` is asked for |
//! | | sizes, `hidden_act`, `layer_norm_eps`, `pad_token_id`, … | honoured, where the family has them |
//! | | `is_decoder`, `position_embedding_type` other than absolute | refused |
//! | | `id2label`, `problem_type` | honoured where there is a head |
//! | weights | `model.safetensors`, else `model.safetensors.index.json` with its files | names with any prefix, `LayerNorm`'s also as gamma and beta; what nothing uses is [noted](super::About::notes) |
//!
//! # The same answer in every batch
//!
//! On the packed backbone a sequence's result does not depend on the batch it is in: nothing is padded, and every kernel
//! works row by row. [`padded`](super::padded) says what holds on the other.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::Value;
use tokenizers::{Encoding, Tokenizer};

use super::device::{self, Memory, Place};
use super::weights::Weights;
use super::{About, Fields, Input, Model, Prediction, Refused, Task, artifact, text_field};
use crate::config::{Aggregation, Determinism, OnLong, Precision};
use crate::record::{Fault, FaultClass};

mod architecture;
mod backbone;
mod encode;
mod head;
mod layout;
mod notes;
mod pooling;
mod rules;
mod spans;
mod stages;
mod tokenizer;

pub use backbone::{Backbone, Take, Taken};
pub use spans::{Mark, Marked};

use architecture::Architecture;
use encode::Encode;
use head::Head;
use layout::Layout;
use rules::Rules;
use spans::Marker;

/// How a text model is to be loaded.
#[derive(Debug, Clone)]
pub struct Options {
    /// The field that holds the text.
    pub field: String,
    /// What the model is for; default: what its files say.
    pub task: Option<Task>,
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
    /// What stands before each text.
    prompt: String,
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
    let layout = Layout::read(dir)?;
    let folder = &layout.encoder;
    let architecture = Architecture::read(folder)?;
    let encode = Encode::read(&layout)?;
    let named: Value = folder.json("config.json")?;
    let named = named.get("tokenizer_class").and_then(Value::as_str);
    let rules = Rules::read(folder, architecture.name(), named, encode.lowercase)?;
    let longest = longest(&architecture, &encode, &rules, options)?;
    let tokenizer = tokenizer::bounded(rules.tokenizer, architecture.longest())?;
    let weights = Weights::open_in(dir, folder.name())?;
    let (backbone, precision) = architecture.backbone(&weights, &place, options, &tokenizer)?;
    let prompt = tokens_of(&encode.prompt, &tokenizer, longest)?;
    let asked = (options.task, options.aggregation);
    let head = Head::load(&layout, &architecture, &weights, asked, (&encode, prompt))?;
    let notes = notes::of(&layout, &encode, head.task(), &weights.finish()?);
    let places = head.task() == Task::TokenClassification;
    let marker = places.then(|| Marker::load(dir, &tokenizer)).transpose()?;
    let about = About {
        task: head.task(),
        architecture: architecture.name().to_owned(),
        precision,
        device: place.to_string(),
        fields: vec![options.field.clone()],
        labels: head.labels().to_vec(),
        width: head.width(),
        bytes: backbone.bytes(),
        chunk_tokens: backbone.chunk_tokens(),
        padded: backbone.pads(),
        notes,
    };
    let (on_long, prompt) = (options.on_long, encode.prompt);
    Ok(Box::new(Text { about, backbone, head, tokenizer, marker, prompt, longest, on_long }))
}

/// The folder in an artifact with the weights and the tokenizer: the one that `modules.json` names, else the artifact
/// itself.
pub(super) fn folder(dir: &Path) -> String {
    Layout::read(dir).map_or_else(|_| String::new(), |layout| layout.encoder.name().to_owned())
}

/// Tokens that stand before each text's own: the prompt's, without the special one that would close it.
fn tokens_of(prompt: &str, tokenizer: &Tokenizer, longest: usize) -> Result<usize, Error> {
    if prompt.is_empty() {
        return Ok(0);
    }
    let encoded = tokenizer.encode_fast(prompt, true);
    let encoded = encoded
        .map_err(|error| Error::Unsupported(format!("tokenise the default prompt: {error}")))?;
    let ids = kept(encoded.get_ids(), longest);
    let last = ids.last().and_then(|id| tokenizer.id_to_token(*id));
    let closed = last.is_some_and(|last| tokenizer.get_added_vocabulary().is_special_token(&last));
    Ok(ids.len() - usize::from(closed))
}

/// A JSON file that may be missing.
fn optional<T: serde::de::DeserializeOwned>(dir: &Path, file: &str) -> Result<Option<T>, Error> {
    if artifact::present(dir, file) { Ok(Some(artifact::json(dir, file)?)) } else { Ok(None) }
}

/// Longest text in tokens: what was asked for, else what the files say, and never more than the model has positions.
fn longest(
    architecture: &Architecture,
    encode: &Encode,
    rules: &Rules,
    options: &Options,
) -> Result<usize, Error> {
    let places = architecture.longest();
    let asked = options.max_length.and_then(|length| usize::try_from(length).ok());
    let (file, key, said) = match &encode.longest {
        Some((file, length)) => (&**file, "max_seq_length", Some(length)),
        None => ("tokenizer_config.json", "model_max_length", rules.longest.as_ref()),
    };
    let fail = |message: String| Err(artifact::Error::config(file, message).into());
    let own = match said.map(|length| (length, length.as_u64(), length.as_f64())) {
        None => usize::MAX,
        Some((_, Some(length @ 2..), _)) => usize::try_from(length).unwrap_or(usize::MAX),
        // transformers writes 10^30 where there is no limit.
        Some((_, None, Some(length))) if 1e18 < length => usize::MAX,
        Some((length, ..)) => {
            return fail(format!("{key} is {length}, not a number of tokens from 2 on"));
        }
    };
    if encode.longest.is_some() && asked.is_none() && places < own && architecture.extends() {
        return fail(format!(
            "{key} is {own}, more than the {places} of max_position_embeddings in config.json, up to which positions \
             are supported: set model.max_length to at most that"
        ));
    }
    Ok(asked.unwrap_or(own).clamp(2, places))
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
        let text = match &*self.prompt {
            "" => Cow::Borrowed(text),
            prompt => Cow::Owned([prompt, text].concat()),
        };
        let (encoding, long) = self.encode(&text)?;
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
                let marked = marker.mark(&text, &encoding, &self.tokenizer, self.longest);
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

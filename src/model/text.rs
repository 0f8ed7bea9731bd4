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
//! | | `activation_fn` | of a `CrossEncoder`: Identity, Sigmoid, Tanh, `ReLU`, Softmax of torch; code of others is not run: the default, noted; others refused |
//! | | `similarity_fn_name` | changes no embedding |
//! | `tokenizer_config.json` | `tokenizer_class` (or that of `config.json`) | `BertTokenizer`, `DistilBertTokenizer`, `MPNetTokenizer`, `RobertaTokenizer`, `XLMRobertaTokenizer`, `CamembertTokenizer` make their own rules around the vocabulary of `tokenizer.json`; `PreTrainedTokenizerFast` takes it as it is, and so does every `ModernBERT`; others refused |
//! | | `do_lower_case`, `strip_accents`, `tokenize_chinese_chars` | honoured by the classes of `WordPiece` |
//! | | `add_prefix_space`, `trim_offsets` | honoured by the classes of BPE and Unigram |
//! | | `added_tokens_decoder`, `*_token`, `extra_special_tokens`, `additional_special_tokens`, `split_special_tokens` | honoured |
//! | | `model_max_length`, `max_len`, `truncation_side` | honoured; the side's default is that of `tokenizer.json` |
//! | | `model_input_names` | whether the model is told the types of tokens; by default BERT's tokenizers do |
//! | | `fast_tokenizer_files` | others than `tokenizer.json` refused |
//! | | `padding_side`, `clean_up_tokenization_spaces`, `chat_template`, … | change no answer |
//! | `special_tokens_map.json`, `added_tokens.json` | all | honoured where there is no `added_tokens_decoder` |
//! | `tokenizer.json` | all | as the class has it; absent: refused, with how to make it |
//! | `config.json` | `architectures` | `…ForSequenceClassification`, `…ForTokenClassification`; `…ForQuestionAnswering`, `…ForMultipleChoice`, `…ForCausalLM` refused; every other is an embedding model, unless the weights have a classifier: then `model.task` is asked for |
//! | | sizes, `hidden_act`, `layer_norm_eps`, `pad_token_id`, … | honoured, where the family has them |
//! | | `is_decoder`, `position_embedding_type` other than absolute | refused |
//! | | `id2label`, `problem_type` | honoured where there is a head; labels that occur twice are numbered |
//! | | `sentence_transformers`, `sbert_ce_default_activation_function` | a cross-encoder: answers as `CrossEncoder.predict`, with one label for the task text-ranking |
//! | `config_setfit.json`, `model_head.pkl`, other pickles, `adapter_config.json` | | not read, noted: the encoder's own answer is given |
//! | weights | `model.safetensors`, else `model.safetensors.index.json` with its files | names with any prefix, `LayerNorm`'s also as gamma and beta; what nothing uses is [noted](super::About::notes) |
//!
//! # The same answer in every batch
//!
//! On the packed backbone a sequence's result does not depend on the batch it is in: nothing is padded, and every kernel
//! works row by row. [`padded`](super::padded) says what holds on the other.

use std::borrow::Cow;

use serde_json::Value;
use tokenizers::Tokenizer;
use tokenizers::utils::truncation::TruncationDirection as Side;

use super::encoder::TYPED;
use super::files::Error;
use super::folder::{Folder, Json};
use super::options::LoadOptions;
use super::weights::Weights;
use super::{About, Given, Input, Marked, Memory, Model, Tokens};
use crate::answer::{Prediction, Refused, Task};
use crate::config::{self, OnLong};
use crate::field::{self, Values};
use crate::record::{Fault, FaultClass};

mod architecture;
mod backbone;
mod chunks;
mod cross;
mod encode;
mod head;
mod layout;
mod notes;
mod outputs;
mod pooling;
mod rules;
mod seam;
mod sequence;
mod spans;
mod stages;
mod template;
mod tokenizer;

pub use backbone::{Backbone, Taken};
pub(super) use layout::Layout;

use architecture::Architecture;
use cross::Cross;
use encode::Encode;
use head::{Head, Pairs};
use rules::Rules;
use sequence::{Sequence, Sequencer};
use spans::Marker;
use template::Template;

/// A text model. See the module.
pub struct Text {
    about: About,
    backbone: Backbone,
    head: Head,
    sequencer: Sequencer,
    /// Where the head wants to know the places of tokens.
    marker: Option<Marker>,
    /// What stands before each text, of a pair before the first.
    prompt: String,
    on_long: OnLong,
    /// Tokens that windows of a text have in common.
    overlap: usize,
    /// The fields of the text and of a second one.
    looks_at: [String; 2],
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Text").field("about", &self.about).finish_non_exhaustive()
    }
}

/// Loads a folder that was laid open, with its `config.json`.
///
/// # Errors
///
/// With the file or tensor, what was expected and what was found.
pub(super) fn load(
    layout: &Layout<'_>,
    config: &Json,
    options: &LoadOptions,
) -> Result<Box<dyn Model>, Error> {
    let place = &options.model.device;
    let folder = &layout.encoder;
    let architecture = Architecture::read(config)?;
    let mut encode = Encode::read(layout)?;
    let cross = Cross::of(layout, config, options.model.task)?;
    if let Some(cross) = &cross {
        (encode.longest, encode.prompt) = (cross.longest.clone(), cross.prompt.clone());
    }
    let named = config.value().get("tokenizer_class").and_then(Value::as_str);
    let rules = Rules::read(folder, architecture.name(), named, encode.lowercase)?;
    let longest = longest(&architecture, &encode, &rules, options)?;
    let tokenizer = tokenizer::bounded(rules.tokenizer, architecture.longest())?;
    let weights = Weights::open_in(folder.dir(), folder.name())?;
    let (backbone, precision) = architecture.backbone(&weights, place, options, &tokenizer)?;
    let side = if rules.cuts_left { Side::Left } else { Side::Right };
    let typed = architecture.types() != 0 && template::hands_types(folder, config.value())?;
    let types = (architecture.types(), typed);
    let mut sequencer = sequencer(folder, types, (tokenizer, side), longest)?;
    let prompt = tokens_of(&encode.prompt, &sequencer)?;
    let asked = (options.model.task, options.model.aggregation);
    let head =
        Head::load((layout, config), &architecture, &weights, asked, (&encode, prompt, cross))?;
    let mut notes = notes::of(layout, &encode, head.task(), &weights.finish()?);
    notes.extend(head.notes().iter().cloned());
    let places = head.task() == Task::TokenClassification;
    let marker = places.then(|| Marker::load(folder, sequencer.tokenizer())).transpose()?;
    sequencer.ask_places(places);
    let fields = match (head.pairs(), sequencer.no_pairs()) {
        (Pairs::Always, Some(why)) => {
            return Err(Error::Unsupported(format!("a cross-encoder takes two texts, and {why}")));
        }
        (Pairs::Always, None) => vec![options.field.clone(), options.pair_field.clone()],
        (Pairs::Either | Pairs::Also | Pairs::Never, _) => vec![options.field.clone()],
    };
    let about = About {
        task: head.task(),
        architecture: architecture.name().to_owned(),
        precision,
        device: place.to_string(),
        fields,
        labels: head.labels().to_vec(),
        width: head.width(),
        bytes: backbone.bytes(),
        chunk_tokens: backbone.chunk_tokens(),
        padded: backbone.pads(),
        notes,
    };
    let looks_at = [options.field.clone(), options.pair_field.clone()];
    let (on_long, prompt) = (options.model.on_long, encode.prompt);
    let overlap = windows(options, head.task(), &sequencer, &prompt)?;
    let text =
        Text { about, backbone, head, sequencer, marker, prompt, on_long, overlap, looks_at };
    Ok(Box::new(text))
}

/// How many tokens the windows of a text have in common, where texts are cut into such.
fn windows(
    options: &LoadOptions,
    task: Task,
    sequencer: &Sequencer,
    prompt: &str,
) -> Result<usize, Error> {
    let config::Model { on_long, chunk_overlap, .. } = options.model;
    if !on_long.cuts() || task != Task::TextEmbedding {
        return Ok(0);
    }
    let unsupported = |message: String| Err(Error::Unsupported(message));
    let fail = |fault: Fault| Error::Unsupported(format!("the default prompt: {}", fault.message));
    let taken = sequencer.places(prompt, "").map_err(fail)?.len();
    let room = sequencer.room().saturating_sub(taken);
    if room == 0 {
        return unsupported(format!(
            "model.on_long is chunks or mean, and the default prompt of {taken} tokens leaves no room for a text"
        ));
    }
    match usize::try_from(chunk_overlap) {
        Ok(overlap) if overlap <= room / 2 => Ok(overlap),
        _ => unsupported(format!(
            "model.chunk_overlap is {chunk_overlap}, more than half of the {room} tokens of a text that the model takes \
             at once: write at most {}",
            room / 2
        )),
    }
}

/// What makes sequences as the model takes them, which tells `types` types of tokens apart; `typed` where it is told them.
fn sequencer(
    folder: &Folder<'_>,
    (types, typed): (usize, bool),
    (tokenizer, side): (Tokenizer, Side),
    longest: usize,
) -> Result<Sequencer, Error> {
    let fail = |why: String| folder.fail("tokenizer.json", why);
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
    Ok(Sequencer::new((tokenizer, side), (single, pair), false, longest))
}

/// Tokens that stand before each text's own: the prompt's, without the special one that would close it.
fn tokens_of(prompt: &str, sequencer: &Sequencer) -> Result<usize, Error> {
    if prompt.is_empty() {
        return Ok(0);
    }
    let sequence = sequencer.single(prompt);
    let ids = sequence
        .map_err(|fault| Error::Unsupported(format!("the default prompt: {}", fault.message)))?
        .ids;
    let tokenizer = sequencer.tokenizer();
    let last = ids.last().and_then(|id| tokenizer.id_to_token(*id & !TYPED));
    let closed = last.is_some_and(|last| tokenizer.get_added_vocabulary().is_special_token(&last));
    Ok(ids.len() - usize::from(closed))
}

/// Longest text in tokens: what was asked for, else what the files say, and never more than the model has positions.
fn longest(
    architecture: &Architecture,
    encode: &Encode,
    rules: &Rules,
    options: &LoadOptions,
) -> Result<usize, Error> {
    let places = architecture.longest();
    let asked = options.model.max_length.and_then(|length| usize::try_from(length).ok());
    let (file, key, said) = match &encode.longest {
        Some((file, length)) => (&**file, "max_seq_length", Some(length)),
        None => ("tokenizer_config.json", "model_max_length", rules.longest.as_ref()),
    };
    let fail = |message: String| Err(Error::config(file, message));
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
    if let Some(padding) = architecture.padding()
        && asked.is_none()
        && places < own
        && usual(&rules.tokenizer).contains(&padding)
    {
        let message = format!(
            "pad_token_id is {padding}, a token that texts have and that takes no position: more than {places} tokens \
             would fit, which is not supported; set model.max_length to at most {places}"
        );
        return Err(Error::config("config.json", message));
    }
    Ok(asked.unwrap_or(own).clamp(2, places))
}

/// The ids around every text, and that of what a tokenizer does not know.
fn usual(tokenizer: &Tokenizer) -> Vec<u32> {
    let encoded = tokenizer.encode_fast("\u{10fffd}", true);
    encoded.map_or_else(|_| Vec::new(), |encoded| encoded.get_ids().to_vec())
}

impl Model for Text {
    fn about(&self) -> &About {
        &self.about
    }

    fn looks_at(&self) -> &[String] {
        &self.looks_at
    }

    fn takes(&self, _field: &str, given: Given) -> bool {
        given == Given::Text
    }

    fn prepare(&self, values: &Values<'_>) -> Result<Input, Fault> {
        let [name, pair] = &self.looks_at;
        let [first, second] = [0, 1].map(|place| values.get(place).and_then(Option::as_ref));
        let text = field::text(first, name, "a string")?;
        let (pairs, given) = (self.head.pairs(), field::is_given(second));
        if given && pairs == Pairs::Never {
            let message = format!(
                "field {pair:?} has a second text, and a model for {} takes one: leave the field out, or name \
                 another in input.pair_field",
                self.about.task.name()
            );
            return Err(Fault::new(FaultClass::Invalid, message));
        }
        let wanted = given || pairs == Pairs::Always;
        let second = wanted.then(|| field::text(second, pair, "a string")).transpose()?;
        let second = second.filter(|second| pairs != Pairs::Also || !second.is_empty());
        let too_long = |what: String| {
            let message = format!("{what} more than {} tokens", self.sequencer.longest());
            Err(Fault::new(FaultClass::TooLong, message))
        };
        if self.on_long.cuts() {
            let windows = self.sequencer.windows(&self.prompt, text, self.overlap)?;
            if windows.iter().any(|window| window.ids.is_empty()) {
                return Err(nothing(name));
            }
            return Ok(Input::Windows(windows.into()));
        }
        let text = match &*self.prompt {
            "" => Cow::Borrowed(text),
            prompt => Cow::Owned([prompt, text].concat()),
        };
        if let Some(second) = second {
            let (ids, truncated) = self.sequencer.pair([&text, second])?;
            if truncated.is_some() && self.on_long == OnLong::Reject {
                return too_long(format!("fields {name:?} and {pair:?} have together"));
            }
            return Ok(Input::Tokens(Tokens { ids: ids.into(), truncated }));
        }
        let Sequence { ids, truncated, source } = self.sequencer.single(&text)?;
        if truncated.is_some() && self.on_long == OnLong::Reject {
            return too_long(format!("field {name:?} has"));
        }
        if ids.is_empty() {
            return Err(nothing(name));
        }
        Ok(match &self.marker {
            None => Input::Tokens(Tokens { ids: ids.into(), truncated }),
            Some(marker) => {
                let marked = marker.mark(ids, &source, self.sequencer.tokenizer());
                Input::Marked(Box::new(Marked { truncated, ..marked }))
            }
        })
    }

    fn memory(&self) -> Option<Memory> {
        self.backbone.memory()
    }

    fn predict(&self, inputs: &[&Input]) -> Result<Vec<Prediction>, Refused> {
        let mut sequences: Vec<&[u32]> = Vec::with_capacity(inputs.len());
        // Which input each sequence is of.
        let mut owners = Vec::with_capacity(inputs.len());
        for (row, input) in inputs.iter().enumerate() {
            let refused = |message: String| Refused::Row { row, message };
            match input {
                Input::Tokens(tokens) => sequences.push(&tokens.ids),
                Input::Marked(marked) => sequences.push(&marked.ids),
                Input::Windows(windows) => sequences.extend(windows.iter().map(|one| &*one.ids)),
                Input::Row(_) | Input::Pixels { .. } => {
                    let message = "a text model takes tokens, not features or pixels";
                    return Err(refused(message.to_owned()));
                }
            }
            for ids in sequences.iter().skip(owners.len()) {
                self.check(ids).map_err(refused)?;
            }
            owners.resize(sequences.len(), row);
        }
        if inputs.iter().any(|input| matches!(input, Input::Windows(_))) {
            return self.predict_windows(inputs, &sequences, &owners);
        }
        let taken = self.backbone.run(&sequences, self.head.take())?;
        self.head.answer(taken, inputs)
    }
}

impl Text {
    /// Whether the model takes a sequence; else why not.
    fn check(&self, ids: &[u32]) -> Result<(), String> {
        let longest = self.sequencer.longest();
        if ids.is_empty() || longest < ids.len() {
            return Err(format!("{} tokens, not 1 to {longest}", ids.len()));
        }
        match ids.iter().find(|id| !self.backbone.knows(**id)) {
            Some(id) => Err(format!("token id {id} is beyond the vocabulary")),
            None => Ok(()),
        }
    }

    /// Runs windows as other rows, as many at once as the model is best given: a text may have hundreds.
    fn predict_windows(
        &self,
        inputs: &[&Input],
        sequences: &[&[u32]],
        owners: &[usize],
    ) -> Result<Vec<Prediction>, Refused> {
        let mut embeddings = Vec::with_capacity(sequences.len());
        let mut unit = false;
        for run in sequences.chunks(chunks::rows_a_run(sequences, self.about.chunk_tokens)) {
            let before = embeddings.len();
            let answered = self.backbone.run(run, self.head.take());
            let answered = answered.and_then(|taken| self.head.embeddings(taken));
            let owner = |row: usize| owners.get(before + row).copied();
            let (vectors, is_unit) = answered.map_err(|refused| refused.of_part(owner))?;
            embeddings.extend(vectors);
            unit = is_unit;
        }
        let (mut embeddings, mean) = (embeddings.into_iter(), self.on_long == OnLong::Mean);
        let answer = |input: &&Input| chunks::answer(input, &mut embeddings, (mean, unit));
        Ok(inputs.iter().map(answer).collect())
    }
}

fn nothing(field: &str) -> Fault {
    Fault::new(FaultClass::Invalid, format!("field {field:?} tokenises to nothing"))
}

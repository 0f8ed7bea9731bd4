//! How a folder's files make a tokenizer, as transformers 5 makes it.
//!
//! `tokenizer.json` alone does not say it. A class of transformers such as `BertTokenizer` takes the vocabulary from
//! there and nothing else: its own rules are made from `tokenizer_config.json`. Only the general class
//! (`PreTrainedTokenizerFast`, `TokenizersBackend`) takes `tokenizer.json` as it is. Then tokens are added that other
//! files name.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;
use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Sequence};

use crate::model::files::{self, Error};
use crate::model::folder::Folder;

mod class;
mod tokens;

use class::Class;
use tokens::{Tokens, Written};

/// The vocabulary, and every rule of the general class.
const FILE: &str = "tokenizer.json";
/// The class and its options.
const OPTIONS: &str = "tokenizer_config.json";

/// A tokenizer, and what else its files say.
#[derive(Debug)]
pub(super) struct Rules {
    /// It neither pads nor cuts yet.
    pub(super) tokenizer: Tokenizer,
    /// Longest text in tokens, as it is written: 10^30 where there is no limit.
    pub(super) longest: Option<Value>,
    /// Whether a text that is too long loses its beginning, not its end.
    pub(super) cuts_left: bool,
}

/// `tokenizer.json`, as far as it is looked at here.
#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    model: Vocabulary<'a>,
    normalizer: Option<Value>,
    added_tokens: Option<Vec<Numbered>>,
    truncation: Option<Truncation>,
}

#[derive(Deserialize)]
struct Vocabulary<'a> {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(borrow)]
    vocab: &'a RawValue,
    #[serde(borrow)]
    merges: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Truncation {
    direction: Option<String>,
}

#[derive(Deserialize)]
struct Numbered {
    id: u32,
    #[serde(flatten)]
    token: Written,
}

impl Rules {
    /// Reads the files of `folder` for a model of a kind; `named` is the class that `config.json` names. With
    /// `lowercase` texts are lower-cased before everything else.
    pub(super) fn read(
        folder: &Folder<'_>,
        model_type: &str,
        named: Option<&str>,
        lowercase: bool,
    ) -> Result<Self, Error> {
        if !folder.has(FILE) {
            return Err(folder.fail(FILE, absent(folder)));
        }
        let bytes = folder.bytes(FILE)?;
        let file: File<'_> = files::parse(&folder.file(FILE), &bytes)?;
        let options: Map<String, Value> = folder.optional(OPTIONS)?.unwrap_or_default();
        let said = |key: &str| options.get(key).filter(|value| !value.is_null());
        let named = said("tokenizer_class").and_then(Value::as_str).or(named);
        let class =
            Class::choose(model_type, named).map_err(|message| folder.fail(OPTIONS, message))?;
        if let Some(files) = said("fast_tokenizer_files").and_then(Value::as_array)
            && files.iter().any(|file| *file != FILE)
        {
            let message =
                "fast_tokenizer_files names others than tokenizer.json; only that is read";
            return Err(folder.fail(OPTIONS, message));
        }
        let fail = |why: String| folder.fail(FILE, why);
        let tokens = Tokens::read(folder, class, &options, &file)?;
        let mut tokenizer = match class {
            Class::General => Tokenizer::from_bytes(&bytes),
            Class::Bert | Class::Mpnet | Class::Roberta | Class::XlmRoberta | Class::Camembert => {
                Tokenizer::from_bytes(made(folder, class, &options, &tokens, &file)?)
            }
        }
        .map_err(|error| fail(error.to_string()))?;
        tokens.add(&mut tokenizer).map_err(|error| fail(error.to_string()))?;
        if class != Class::General {
            let after = after(class, &options, &tokens, &tokenizer);
            let after = serde_json::from_value(after).map_err(|error| fail(error.to_string()))?;
            tokenizer.with_post_processor(Some::<tokenizers::PostProcessorWrapper>(after));
        }
        if lowercase && !lowers(tokenizer.get_normalizer()) {
            let mut rules = vec![NormalizerWrapper::from(Lowercase)];
            rules.extend(tokenizer.get_normalizer().cloned());
            let rules = NormalizerWrapper::from(Sequence::new(rules));
            tokenizer.with_normalizer(Some(rules)).map_err(|error| fail(error.to_string()))?;
        }
        tokenizer.set_encode_special_tokens(flag(folder, &options, "split_special_tokens", false)?);
        let side = match (said("truncation_side"), &file.truncation) {
            (Some(side), _) => side.as_str().unwrap_or_default(),
            (None, Some(Truncation { direction: Some(side) })) => side,
            (None, _) => "right",
        };
        if !["left", "right"].contains(&&*side.to_lowercase()) {
            let message = format!("truncation_side is {side:?}, neither right nor left");
            return Err(folder.fail(OPTIONS, message));
        }
        let cuts_left = side.eq_ignore_ascii_case("left");
        let longest = match options.get("model_max_length") {
            Some(longest) => Some(longest),
            None => options.get("max_len"),
        };
        let longest = longest.filter(|longest| !longest.is_null()).cloned();
        Ok(Self { tokenizer, longest, cuts_left })
    }
}

/// What to do about a folder without `tokenizer.json`.
fn absent(folder: &Folder<'_>) -> String {
    let others = ["vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model"];
    let held = others.iter().find(|file| folder.has(file));
    let held = held.map(|file| format!(", {file} is there")).unwrap_or_default();
    format!(
        "is missing{held}; make it of the folder's other files with Python's transformers: \
         AutoTokenizer.from_pretrained(\"FOLDER\").save_pretrained(\"FOLDER\")"
    )
}

/// Whether a normalizer lower-cases as a step of its own.
fn lowers(normalizer: Option<&NormalizerWrapper>) -> bool {
    let lowers = |step: &NormalizerWrapper| matches!(step, NormalizerWrapper::Lowercase(_));
    normalizer.is_some_and(|normalizer| {
        if let NormalizerWrapper::Sequence(steps) = normalizer {
            steps.as_ref().iter().any(lowers)
        } else {
            lowers(normalizer)
        }
    })
}

/// A switch of [`OPTIONS`].
fn flag(
    folder: &Folder<'_>,
    options: &Map<String, Value>,
    key: &str,
    default: bool,
) -> Result<bool, Error> {
    match options.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(set)) => Ok(*set),
        Some(other) => Err(folder.fail(OPTIONS, format!("{key} is {other}, not a boolean"))),
    }
}

/// `tokenizer.json` as it would be if a class had written it: its own rules around the file's vocabulary.
fn made(
    folder: &Folder<'_>,
    class: Class,
    options: &Map<String, Value>,
    tokens: &Tokens,
    file: &File<'_>,
) -> Result<String, Error> {
    let wanted = match class {
        Class::Bert | Class::Mpnet => "WordPiece",
        Class::Roberta => "BPE",
        Class::General | Class::XlmRoberta | Class::Camembert => "Unigram",
    };
    if file.model.kind.as_deref().is_some_and(|kind| kind != wanted) {
        let message = format!(
            "holds a {} model, and the tokenizer's class takes a {wanted} one; write tokenizer_class \
             PreTrainedTokenizerFast in tokenizer_config.json, if tokenizer.json holds every rule",
            file.model.kind.as_deref().unwrap_or_default()
        );
        return Err(folder.fail(FILE, message));
    }
    let (normalizer, before) = steps(folder, class, options, file)?;
    let model = match class {
        Class::Bert | Class::Mpnet => json!({
            "type": wanted,
            "unk_token": tokens.named("unk_token"),
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        }),
        Class::Roberta => json!({
            "type": wanted, "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
        }),
        Class::General | Class::XlmRoberta | Class::Camembert => json!({
            "type": wanted, "unk_id": unknown(class, tokens, file)?, "byte_fallback": false,
        }),
    };
    let merges = match (class, file.model.merges) {
        (Class::Roberta, Some(merges)) => format!(", \"merges\": {}", merges.get()),
        (Class::Roberta, None) => ", \"merges\": []".to_owned(),
        _ => String::new(),
    };
    // The vocabulary is long, and stays the text that it is.
    let (model, vocabulary) = (model.to_string(), file.model.vocab.get());
    let model = model.trim_end_matches('}');
    Ok(format!(
        "{{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [], \
         \"normalizer\": {normalizer}, \"pre_tokenizer\": {before}, \"post_processor\": null, \
         \"decoder\": null, \"model\": {model}, \"vocab\": {vocabulary}{merges}}}}}"
    ))
}

/// What a class does to a text before its model: its normalizer, and what parts the text.
fn steps(
    folder: &Folder<'_>,
    class: Class,
    options: &Map<String, Value>,
    file: &File<'_>,
) -> Result<(Value, Value), Error> {
    let on = |key, default| flag(folder, options, key, default);
    Ok(match class {
        Class::Bert | Class::Mpnet => {
            let strip = match options.get("strip_accents") {
                None | Some(Value::Null) => Value::Null,
                Some(_) => on("strip_accents", false)?.into(),
            };
            let normalizer = json!({
                "type": "BertNormalizer",
                "clean_text": true,
                "handle_chinese_chars": on("tokenize_chinese_chars", true)?,
                "strip_accents": strip,
                "lowercase": on("do_lower_case", true)?,
            });
            (normalizer, json!({"type": "BertPreTokenizer"}))
        }
        Class::Roberta => {
            let space = on("add_prefix_space", false)?;
            let before = json!({
                "type": "ByteLevel", "add_prefix_space": space, "trim_offsets": true, "use_regex": true,
            });
            (Value::Null, before)
        }
        Class::General | Class::XlmRoberta | Class::Camembert => {
            let scheme = if on("add_prefix_space", true)? { "always" } else { "never" };
            let before = json!({"type": "Sequence", "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true},
            ]});
            (precompiled(file.normalizer.as_ref()).unwrap_or_default(), before)
        }
    })
}

/// The id of what a Unigram model does not know.
fn unknown(class: Class, tokens: &Tokens, file: &File<'_>) -> Result<usize, Error> {
    if class != Class::Camembert {
        return Ok(3);
    }
    let pieces: Vec<(String, f64)> = files::parse(FILE, file.model.vocab.get().as_bytes())?;
    let unknown = tokens.named("unk_token");
    let place = pieces.iter().position(|(piece, _)| Some(&**piece) == unknown);
    Ok(place.unwrap_or(0))
}

/// The step of a normalizer that is compiled into it.
fn precompiled(normalizer: Option<&Value>) -> Option<Value> {
    let normalizer = normalizer?;
    let steps = normalizer.get("normalizers").and_then(Value::as_array);
    let steps = steps.map_or_else(|| std::slice::from_ref(normalizer), Vec::as_slice);
    steps.iter().find(|step| step["type"] == "Precompiled").cloned()
}

/// What a class puts around a text's tokens.
fn after(
    class: Class,
    options: &Map<String, Value>,
    tokens: &Tokens,
    tokenizer: &Tokenizer,
) -> Value {
    let token = |name: &str| {
        let token = tokens.named(name).unwrap_or_default();
        (token, tokenizer.token_to_id(token).unwrap_or(0))
    };
    let template = |[first, last]: [&str; 2], single: Value, pair: Value| {
        let special: Map<String, Value> = [token(first), token(last)]
            .map(|(token, id)| {
                (token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]}))
            })
            .into_iter()
            .collect();
        json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special})
    };
    let piece =
        |name: &str, kind: u8| json!({"SpecialToken": {"id": token(name).0, "type_id": kind}});
    let text = |id: &str, kind: u8| json!({"Sequence": {"id": id, "type_id": kind}});
    match class {
        Class::Bert => template(
            ["cls_token", "sep_token"],
            json!([piece("cls_token", 0), text("A", 0), piece("sep_token", 0)]),
            json!([
                piece("cls_token", 0),
                text("A", 0),
                piece("sep_token", 0),
                text("B", 1),
                piece("sep_token", 1),
            ]),
        ),
        Class::Roberta | Class::Mpnet => {
            let on =
                |key: &str, default| options.get(key).and_then(Value::as_bool).unwrap_or(default);
            let own = class == Class::Roberta;
            json!({
                "type": "RobertaProcessing",
                "sep": token("sep_token"),
                "cls": token("cls_token"),
                "trim_offsets": !own || on("trim_offsets", true),
                "add_prefix_space": own && on("add_prefix_space", false),
            })
        }
        Class::General | Class::XlmRoberta | Class::Camembert => template(
            ["bos_token", "eos_token"],
            json!([piece("bos_token", 0), text("A", 0), piece("eos_token", 0)]),
            json!([
                piece("bos_token", 0),
                text("A", 0),
                piece("eos_token", 0),
                piece("eos_token", 0),
                text("B", 0),
                piece("eos_token", 0),
            ]),
        ),
    }
}

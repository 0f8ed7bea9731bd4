//! The tokens that other files add to the vocabulary of `tokenizer.json`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokenizers::{AddedToken, Tokenizer};

use super::class::{Class, NAMES};
use super::{File, OPTIONS};
use crate::model::files::Error;
use crate::model::folder::Folder;

/// Tokens that are special, in folders from before 2023.
const SPECIAL: &str = "special_tokens_map.json";
/// Tokens that were added, likewise.
const ADDED: &str = "added_tokens.json";

/// A token as these files write it.
#[derive(Clone, Deserialize)]
pub(super) struct Written {
    content: String,
    single_word: Option<bool>,
    lstrip: Option<bool>,
    rstrip: Option<bool>,
    normalized: Option<bool>,
    special: Option<bool>,
}

impl From<Written> for AddedToken {
    fn from(written: Written) -> Self {
        let token = Self::from(written.content, written.special.unwrap_or(false));
        let normalized = written.normalized.unwrap_or(token.normalized);
        token
            .single_word(written.single_word.unwrap_or(false))
            .lstrip(written.lstrip.unwrap_or(false))
            .rstrip(written.rstrip.unwrap_or(false))
            .normalized(normalized)
    }
}

/// The tokens that are added to the vocabulary.
pub(super) struct Tokens {
    /// By their ids in the files, then special ones.
    all: Vec<AddedToken>,
    /// Special ones by name, in the order in which they are added.
    special: Vec<(String, AddedToken)>,
}

impl Tokens {
    pub(super) fn read(
        folder: &Folder<'_>,
        class: Class,
        options: &Map<String, Value>,
        file: &File<'_>,
    ) -> Result<Self, Error> {
        let decoder = options.get("added_tokens_decoder").filter(|decoder| !decoder.is_null());
        let mut options = options.clone();
        let mut numbered: BTreeMap<u32, AddedToken> = BTreeMap::new();
        if let Some(decoder) = decoder {
            let tokens: BTreeMap<u32, Written> = serde_json::from_value(decoder.clone())
                .map_err(|error| folder.fail(OPTIONS, format!("added_tokens_decoder: {error}")))?;
            numbered.extend(tokens.into_iter().map(|(id, token)| (id, token.into())));
        } else {
            let special: Map<String, Value> = folder.optional(SPECIAL)?.unwrap_or_default();
            options.extend(special);
            let added: BTreeMap<String, u32> = folder.optional(ADDED)?.unwrap_or_default();
            let named = |token: &str| {
                let values = options.values().flat_map(|value| {
                    value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice)
                });
                values.into_iter().any(|value| content(value) == Some(token))
            };
            numbered.extend(added.into_iter().map(|(token, id)| {
                let special = named(&token);
                (id, AddedToken::from(token, special))
            }));
            // The file's own come with it where it is taken as it is.
            let own = file.added_tokens.iter().flatten();
            numbered.extend(own.map(|own| (own.id, own.token.clone().into())));
        }
        let mut tokens = Self { all: numbered.into_values().collect(), special: Vec::new() };
        // What a file that is taken as it is has itself.
        let own = file.added_tokens.iter().flatten().filter(|_| class == Class::General);
        let own: Vec<AddedToken> = own.map(|own| own.token.clone().into()).collect();
        for (name, default) in NAMES.into_iter().zip(class.special()) {
            tokens.name(class, name, options.get(name), default);
        }
        let extra = ["extra_special_tokens", "additional_special_tokens"];
        let extra = extra.iter().find_map(|key| {
            options.get(*key).filter(|value| !value.is_null() && **value != json!([]))
        });
        let others = options
            .iter()
            .filter(|(key, _)| key.ends_with("_token") && !NAMES.contains(&key.as_str()));
        for (name, value) in others.chain(extra.and_then(Value::as_object).into_iter().flatten()) {
            tokens.name(class, name, Some(value), None);
        }
        let unused = ["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"].map(Value::from);
        let extra = match extra {
            Some(extra) => extra.as_array().map_or(&[][..], Vec::as_slice),
            None if class == Class::Camembert => &unused,
            None => &[],
        };
        let special = tokens.special.iter().map(|(_, token)| token.clone());
        let extra = extra.iter().filter_map(token);
        for token in special.chain(extra).collect::<Vec<_>>() {
            if !own.iter().chain(&tokens.all).any(|known| known.content == token.content) {
                tokens.all.push(token);
            }
        }
        // What has a name and is new is special, whatever its token says.
        for token in tokens.all.iter_mut().filter(|token| !own.contains(token)) {
            token.special |= tokens.special.iter().any(|(_, named)| named.content == token.content);
        }
        Ok(tokens)
    }

    /// Takes a special token under its name: as a file describes it, else as another one of this text, else as the class
    /// has it.
    fn name(&mut self, class: Class, name: &str, value: Option<&Value>, default: Option<&str>) {
        let Some(content) = value.and_then(content).or(default) else { return };
        let known = self.all.iter().find(|token| token.content == content).cloned();
        let described = value.filter(|value| value.is_object()).and_then(token);
        let token = known.or(described).unwrap_or_else(|| class.token(name, content));
        self.special.push((name.to_owned(), token));
    }

    /// A special token by its name.
    pub(super) fn named(&self, name: &str) -> Option<&str> {
        self.special.iter().find(|(known, _)| known == name).map(|(_, token)| &*token.content)
    }

    pub(super) fn add(&self, tokenizer: &mut Tokenizer) -> tokenizers::Result<()> {
        tokenizer.add_tokens(self.all.iter().cloned()).map(drop)
    }
}

/// The text of a token: a string, or an object that describes it.
fn content(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// A special token that is written as a string or an object.
fn token(value: &Value) -> Option<AddedToken> {
    if let Some(content) = value.as_str() {
        return Some(AddedToken::from(content, true));
    }
    let written: Written = serde_json::from_value(value.clone()).ok()?;
    Some(Written { special: Some(true), ..written }.into())
}

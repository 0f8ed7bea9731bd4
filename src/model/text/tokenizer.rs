//! `tokenizer.json`: rules of others, which run on texts of others. What they make of a text has a bound.

use serde_json::Value;
use tokenizers::normalizers::NormalizerWrapper as Normalizer;
use tokenizers::{ModelWrapper, PostProcessor as _, Tokenizer};

use crate::model::files::Error;

/// The file in the artifact.
const FILE: &str = "tokenizer.json";

/// How many times longer a normalizer may make a text, by its rules. T5's and Llama's make 132 at most.
const MOST_GROWTH: usize = 1_000;

/// A tokenizer whose work is bounded, for a model that takes `places` tokens.
///
/// # Errors
///
/// What is wrong with its file.
pub(super) fn bounded(mut tokenizer: Tokenizer, places: usize) -> Result<Tokenizer, Error> {
    let fail = |why: String| Error::config(FILE, why);
    if let ModelWrapper::BPE(model) = tokenizer.get_model()
        && model.dropout.is_some_and(|dropout| 0.0 < dropout)
    {
        return Err(fail("model.dropout drops merges at random: set it to null".to_owned()));
    }
    tokenizer.with_padding(None);
    // Truncation is done on the ids, so that a text that is too long can be told from one that fits.
    tokenizer.with_truncation(None).map_err(|error| fail(error.to_string()))?;
    let added = tokenizer.get_post_processor().map_or(0, |added| added.added_tokens(false));
    if places <= added {
        return Err(fail(format!(
            "adds {added} special tokens to each text, and the model takes {places} tokens with them"
        )));
    }
    let growth = tokenizer.get_normalizer().map_or(1, growth);
    if MOST_GROWTH < growth {
        return Err(fail(format!(
            "its normalizer may make a text {growth} times as long, more than {MOST_GROWTH} times"
        )));
    }
    Ok(tokenizer)
}

/// How many times longer a text may become, at most.
fn growth(normalizer: &Normalizer) -> usize {
    match normalizer {
        Normalizer::Sequence(parts) => {
            parts.as_ref().iter().map(growth).fold(1, usize::saturating_mul)
        }
        Normalizer::Replace(replace) => {
            let rule = serde_json::to_value(replace).unwrap_or_default();
            match rule.pointer("/pattern/String").and_then(Value::as_str) {
                Some(pattern) if !pattern.is_empty() => {
                    replace.content.len().div_ceil(pattern.len()).max(1)
                }
                // A match may be empty.
                _ => replace.content.len().saturating_add(1),
            }
        }
        Normalizer::Prepend(prepend) => prepend.prepend.len().saturating_add(1),
        Normalizer::ByteLevel(_) => 2,
        // U+FDFA, 3 bytes, is 33 decomposed.
        Normalizer::NFKC(_) | Normalizer::NFKD(_) | Normalizer::Precompiled(_) => 11,
        // What they add, they add once: the next time there is nothing left to decompose or to lower.
        Normalizer::BertNormalizer(_)
        | Normalizer::StripNormalizer(_)
        | Normalizer::StripAccents(_)
        | Normalizer::NFC(_)
        | Normalizer::NFD(_)
        | Normalizer::Lowercase(_)
        | Normalizer::Nmt(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_that_multiply_are_counted() {
        let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
        let sequence = |parts: Vec<Value>| json!({"type": "Sequence", "normalizers": parts});
        let quotes = replace(json!({"String": "``"}), "\"");
        let spaces = replace(json!({"Regex": " {2,}"}), " ");
        let llama = sequence(vec![
            json!({"type": "Prepend", "prepend": "▁"}),
            replace(json!({"String": " "}), "▁"),
        ]);
        for (rules, expect) in [
            (json!({"type": "Lowercase"}), 1),
            (quotes.clone(), 1),
            (sequence(vec![quotes; 40]), 1),
            (spaces, 2),
            (llama, 12),
            (sequence(vec![replace(json!({"Regex": ""}), "x"); 30]), 1 << 30),
            (sequence(vec![replace(json!({"String": "a"}), "aa"); 200]), usize::MAX),
        ] {
            let normalizer: Normalizer = serde_json::from_value(rules.clone()).unwrap();
            assert_eq!(growth(&normalizer), expect, "{rules}");
        }
    }
}

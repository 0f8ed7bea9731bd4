//! The special tokens that a tokenizer's post-processor sets around a text, or around the two of a pair.

use serde_json::Value;
use tokenizers::{Encoding, Token, Tokenizer};

use crate::model::encoder::TYPED;
use crate::model::files::Error;
use crate::model::folder::Folder;

/// What stands where, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// A special token, with its type.
    Special(u32),
    /// The tokens of a text: 0 the first, 1 the second; and what they bear.
    Text(usize, u32),
}

impl Template {
    /// What a tokenizer makes of `texts` texts, 1 or 2. `typed` says whether the model is told the tokens' types.
    ///
    /// # Errors
    ///
    /// What such a template has that cannot be done.
    pub(super) fn of(tokenizer: &Tokenizer, texts: usize, typed: bool) -> Result<Self, String> {
        // No vocabulary reaches so far.
        const TEXTS: [u32; 2] = [u32::MAX - 1, u32::MAX];
        let text = |place: usize| {
            let token = Token::new(TEXTS[place], "x".to_owned(), (0, 1));
            Encoding::from_tokens(vec![token], u32::from(place == 1))
        };
        let second = (texts == 2).then(|| text(1));
        let shown = tokenizer.post_process(text(0), second, true).map_err(|why| why.to_string())?;
        let mut pieces = Vec::new();
        for (id, kind) in shown.get_ids().iter().zip(shown.get_type_ids()) {
            let bit = match kind {
                _ if !typed => 0,
                0 => 0,
                1 => TYPED,
                other => {
                    return Err(format!(
                        "its post-processor gives tokens the type {other}; 0 and 1 are supported"
                    ));
                }
            };
            pieces.push(match TEXTS.iter().position(|text| text == id) {
                Some(text) => Piece::Text(text, bit),
                None => Piece::Special(id | bit),
            });
        }
        let order: Vec<usize> = pieces.iter().filter_map(|piece| piece.text()).collect();
        if order != [0, 1][..texts] {
            return Err(format!(
                "its post-processor does not give {texts} texts once each, in their order"
            ));
        }
        Ok(Self(pieces))
    }

    /// How many special tokens there are.
    pub(super) fn specials(&self) -> usize {
        self.0.iter().filter(|piece| piece.text().is_none()).count()
    }

    /// How many special tokens stand before the first text, and how many behind the last.
    pub(super) fn around(&self) -> (usize, usize) {
        let special = |piece: &&Piece| piece.text().is_none();
        (self.0.iter().take_while(special).count(), self.0.iter().rev().take_while(special).count())
    }

    /// Whether a token has another type than 0.
    pub(super) fn is_typed(&self) -> bool {
        self.0.iter().any(
            |piece| matches!(piece, Piece::Special(bits) | Piece::Text(_, bits) if TYPED <= *bits),
        )
    }

    /// The whole sequence of these texts' tokens.
    pub(super) fn fill(&self, texts: &[&[u32]]) -> Vec<u32> {
        let mut ids =
            Vec::with_capacity(self.0.len() + texts.iter().map(|text| text.len()).sum::<usize>());
        for piece in &self.0 {
            match piece {
                Piece::Special(id) => ids.push(*id),
                Piece::Text(text, bit) => ids.extend(texts[*text].iter().map(|id| id | bit)),
            }
        }
        ids
    }
}

impl Piece {
    fn text(self) -> Option<usize> {
        match self {
            Self::Special(_) => None,
            Self::Text(text, _) => Some(text),
        }
    }
}

/// Whether a folder's tokenizer hands token types to its model: by `model_input_names`, else by its class, as
/// transformers has it. Of the classes for models that are supported here, BERT's does.
pub(super) fn hands_types(folder: &Folder<'_>, model: &Value) -> Result<bool, Error> {
    let own: Value = folder.optional("tokenizer_config.json")?.unwrap_or_default();
    if let Some(names) = own["model_input_names"].as_array() {
        return Ok(names.iter().any(|name| name == "token_type_ids"));
    }
    let class = own["tokenizer_class"].as_str().or_else(|| model["tokenizer_class"].as_str());
    Ok(match class {
        Some(class) => class.starts_with("BertTokenizer"),
        None => model["model_type"] == "bert",
    })
}

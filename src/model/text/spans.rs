//! From the labels of tokens to labelled spans, as transformers' `TokenClassificationPipeline` does it: tokens make
//! words, words of one entity make a span.
//!
//! ```text
//!  New    York   ##er   is          tokens, each with its place in the text and whether it continues a word
//!  B-LOC  I-LOC  O      O           a label each                                    none, simple
//!  B-LOC  I-LOC ──────  O           a label a word: of its first or surest token,   first, max, average
//!  LOC ───────────────              or of their mean
//! ```

use serde::Deserialize;
use serde_json::Value;
use tokenizers::Tokenizer;

use super::sequence::Source;
use crate::answer::{Span, best};
use crate::config::Aggregation;
use crate::model::files::Error;
use crate::model::folder::Folder;
use crate::model::{Mark, Marked};

/// Finds the places of tokens.
#[derive(Debug)]
pub(super) struct Marker {
    /// Whether a token that continues a word begins with a prefix such as `##`.
    prefixed: bool,
    /// The id of what the tokenizer does not know: always a word of its own.
    unknown: Option<u32>,
}

impl Marker {
    pub(super) fn load(folder: &Folder<'_>, tokenizer: &Tokenizer) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct File {
            model: Model,
        }
        #[derive(Deserialize)]
        struct Model {
            #[serde(default)]
            continuing_subword_prefix: Option<String>,
            #[serde(default)]
            unk_token: Option<String>,
            #[serde(default)]
            unk_id: Option<u32>,
        }
        let File { model } = folder.json("tokenizer.json")?;
        let config = folder.optional::<Value>("tokenizer_config.json")?.unwrap_or_default();
        // A name, or an object that describes the token.
        let named = &config["unk_token"];
        let named = named.as_str().or_else(|| named["content"].as_str());
        let unknown = named.or(model.unk_token.as_deref());
        Ok(Self {
            prefixed: model.continuing_subword_prefix.is_some_and(|prefix| !prefix.is_empty()),
            unknown: unknown.and_then(|token| tokenizer.token_to_id(token)).or(model.unk_id),
        })
    }

    /// The tokens `ids` with their places, which stand in the `source` in characters.
    pub(super) fn mark(&self, ids: Vec<u32>, source: &Source<'_>, tokenizer: &Tokenizer) -> Marked {
        let Source { encoding, kept, text, before } = source;
        let kept = || kept.iter().cloned().flatten();
        let offsets = || kept().map(|place| encoding.get_offsets()[place]);
        let reach = offsets().map(|(_, end)| end).max().unwrap_or(0);
        let chars: Vec<char> = text.chars().take(reach.saturating_add(1)).collect();
        let mark = |place: usize| {
            let (id, (start, end)) = (encoding.get_ids()[place], encoding.get_offsets()[place]);
            let joins = match tokenizer.id_to_token(id) {
                _ if Some(id) == self.unknown => false,
                Some(token) if self.prefixed => token.chars().count() != end.saturating_sub(start),
                // Words are not known to such a tokenizer: what no space parts is one.
                _ => start.checked_sub(1).is_some_and(|before| {
                    !chars.iter().skip(before).take(2).any(|character| *character == ' ')
                }),
            };
            let special = encoding.get_special_tokens_mask()[place] != 0;
            let at = |at: usize| short(if special { at } else { before + at });
            Mark { start: at(start), end: at(end), joins, special }
        };
        let marks = kept().map(mark).collect();
        let text: String = chars.iter().take(reach).collect();
        let (text, before) = (text.into(), short(*before));
        Marked { ids: ids.into(), truncated: None, marks, text, before }
    }
}

fn short(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// Part of a text under one label.
struct Piece<'a> {
    label: &'a str,
    score: f32,
    start: u32,
    end: u32,
}

/// The spans of a text, `scores` being `[tokens, labels]` f32 that add up to 1 in each row. Special tokens count
/// nothing, and what is labelled `O` is no span.
pub(super) fn spans(
    marked: &Marked,
    scores: &[f32],
    labels: &[String],
    aggregation: Aggregation,
) -> Vec<Span> {
    let rows = marked.marks.iter().zip(scores.chunks_exact(labels.len().max(1)));
    let tokens: Vec<(&Mark, &[f32])> = rows.filter(|(mark, _)| !mark.special).collect();
    let whole = match aggregation {
        Aggregation::None | Aggregation::Simple => false,
        Aggregation::First | Aggregation::Average | Aggregation::Max => true,
    };
    let words = tokens.chunk_by(|_, (mark, _)| whole && mark.joins);
    let pieces: Vec<Piece<'_>> = words.map(|word| piece(word, labels, aggregation)).collect();
    let bounds: Vec<usize> =
        marked.text.char_indices().map(|(byte, _)| byte).chain([marked.text.len()]).collect();
    let span = |label: &str, score: f32, start: u32, end: u32| {
        let [start, end, before] =
            [start, end, marked.before].map(|place| usize::try_from(place).unwrap_or(usize::MAX));
        let byte = |place: usize| bounds.get(place.checked_sub(before)?);
        let bytes = byte(start).zip(byte(end));
        let word = bytes.and_then(|(start, end)| marked.text.get(*start..*end)).unwrap_or_default();
        Span { label: label.to_owned(), score, start, end, word: word.to_owned() }
    };
    let groups = pieces.chunk_by(|last, next| {
        aggregation != Aggregation::None
            && !next.label.starts_with("B-")
            && entity(last.label) == entity(next.label)
    });
    let whole = |group: &[Piece<'_>]| {
        let (first, last) = (group.first()?, group.last()?);
        let label = match (aggregation, first.label.split_once('-')) {
            (Aggregation::None, _) | (_, None) => first.label,
            (_, Some((_, label))) => label,
        };
        let score = mean(group.iter().map(|piece| piece.score));
        (label != "O").then(|| span(label, score, first.start, last.end))
    };
    groups.filter_map(whole).collect()
}

/// A label without its `B-` or `I-`.
fn entity(label: &str) -> &str {
    label.strip_prefix("B-").or_else(|| label.strip_prefix("I-")).unwrap_or(label)
}

/// A word's label and score.
fn piece<'a>(
    word: &[(&Mark, &[f32])],
    labels: &'a [String],
    aggregation: Aggregation,
) -> Piece<'a> {
    let surest = |scores: &[f32]| (best(scores), scores.get(best(scores)).copied().unwrap_or(0.0));
    let first = word.first().map_or((0, 0.0), |(_, scores)| surest(scores));
    let (label, score) = match aggregation {
        Aggregation::None | Aggregation::Simple | Aggregation::First => first,
        Aggregation::Max => word
            .iter()
            .map(|(_, scores)| surest(scores))
            .fold(first, |most, next| if most.1 < next.1 { next } else { most }),
        Aggregation::Average => {
            let column = |label: usize| mean(word.iter().map(|(_, scores)| scores[label]));
            surest(&(0..labels.len()).map(column).collect::<Vec<f32>>())
        }
    };
    Piece {
        label: labels.get(label).map_or("", String::as_str),
        score,
        start: word.first().map_or(0, |(mark, _)| mark.start),
        end: word.last().map_or(0, |(mark, _)| mark.end),
    }
}

fn mean(values: impl Iterator<Item = f32>) -> f32 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[start, end]`, whether it joins, and the scores of O, B-LOC, I-LOC, PER.
    type Token = (u32, u32, bool, [f32; 4]);

    #[track_caller]
    fn finds(tokens: &[Token], aggregation: Aggregation, expect: &[(&str, &str)]) {
        let mark = |&(start, end, joins, _): &Token| Mark { start, end, joins, special: false };
        let marked = Marked {
            truncated: None,
            ids: tokens.iter().map(|_| 7).collect(),
            marks: tokens.iter().map(mark).collect(),
            text: "née New Yorker".into(),
            before: 0,
        };
        let scores: Vec<f32> = tokens.iter().flat_map(|(.., scores)| *scores).collect();
        let labels = ["O", "B-LOC", "I-LOC", "PER"].map(str::to_owned);
        let found = spans(&marked, &scores, &labels, aggregation);
        let found: Vec<(&str, &str)> =
            found.iter().map(|span| (&*span.label, &*span.word)).collect();
        assert_eq!(found, expect, "{aggregation:?}");
    }

    #[test]
    fn tokens_become_words_and_words_become_spans() {
        let tokens = [
            (0, 3, false, [0.1, 0.0, 0.0, 0.9]),
            (4, 7, false, [0.2, 0.7, 0.1, 0.0]),
            (8, 12, false, [0.1, 0.3, 0.6, 0.0]),
            (12, 14, true, [0.9, 0.1, 0.0, 0.0]),
        ];
        let apart = [("PER", "née"), ("B-LOC", "New"), ("I-LOC", "York")];
        finds(&tokens, Aggregation::None, &apart);
        finds(&tokens, Aggregation::Simple, &[("PER", "née"), ("LOC", "New York")]);
        finds(&tokens, Aggregation::First, &[("PER", "née"), ("LOC", "New Yorker")]);
        let without = [("PER", "née"), ("LOC", "New")];
        finds(&tokens, Aggregation::Max, &without);
        finds(&tokens, Aggregation::Average, &without);
        finds(&[], Aggregation::Simple, &[]);
    }

    #[test]
    fn a_beginning_parts_what_would_be_one() {
        let begins = [0.0, 1.0, 0.0, 0.0];
        let tokens = [(0, 3, false, begins), (4, 7, false, begins)];
        finds(&tokens, Aggregation::Simple, &[("LOC", "née"), ("LOC", "New")]);
        let goes_on = [(0, 3, false, [0.0, 0.0, 0.0, 1.0]), (4, 7, false, [0.0, 0.0, 0.0, 1.0])];
        finds(&goes_on, Aggregation::Simple, &[("PER", "née New")]);
    }
}

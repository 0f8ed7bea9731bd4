//! Where a text may be cut before it is tokenised without changing a token that is kept.
//!
//! ```text
//!  The quick brown| fox| jumps|over        "|" a seam: behind a letter, a digit or a full stop, before " x"
//! ```
//!
//! The tokens up to a seam are the same whatever follows it. Those from a second seam on are the same whatever stands
//! before the first, which the word between them keeps away. That holds because of what a tokenizer is made of, so its
//! parts are looked at once, and a tokenizer with a part that is not known here has no seams:
//!
//! - An added token that spans a seam would have a space behind something else. None may.
//! - A normalizer works character by character, cluster by cluster, or replaces spaces by spaces: neither composition
//!   nor decomposition crosses a space. What it makes of the three characters around a seam is looked at.
//! - A pre-tokenizer parts what the space parts, whatever stands farther away.
//! - A model sees one of these parts at a time.

use serde_json::Value;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::{NormalizedString, Normalizer as _, Tokenizer};

/// How many places are looked at before a text counts as one without seams.
const TRIES: usize = 1_000;

/// The seams of a tokenizer's texts.
#[derive(Debug)]
pub(super) struct Seams {
    normalizer: Option<NormalizerWrapper>,
    /// What the pre-tokenizer parts at.
    spaces: Vec<char>,
    /// Whether two Chinese characters are always parted, as BERT's normalizer does it.
    ideographs: bool,
}

impl Seams {
    /// `None` where some part of the tokenizer may look farther than a space away.
    pub(super) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let normalizer = tokenizer.get_normalizer();
        let rules = serde_json::to_value(normalizer).ok()?;
        let parts = serde_json::to_value(tokenizer.get_pre_tokenizer()).ok()?;
        let spaces = parting(&parts)?;
        let added = tokenizer.get_added_vocabulary();
        let names = added.get_added_tokens_decoder().iter().flat_map(|(id, token)| {
            [Some(token.content.clone()), added.simple_id_to_token(*id)].into_iter().flatten()
        });
        let names: Vec<String> = names.collect();
        if !near(&rules) || names.iter().any(|name| spans(name)) {
            return None;
        }
        let ideographs = rules["type"] == "BertNormalizer"
            && rules["handle_chinese_chars"] == true
            && ["BertPreTokenizer", "Whitespace", "WhitespaceSplit"]
                .iter()
                .any(|kind| parts["type"] == *kind)
            && !names.iter().any(|name| name.chars().any(ideograph));
        Some(Self { normalizer: normalizer.cloned(), spaces, ideographs })
    }

    /// The last seam at or before byte `end`.
    pub(super) fn last(&self, text: &str, end: usize) -> Option<usize> {
        let end = text.floor_char_boundary(end);
        let places = text.get(..end)?.char_indices().rev().map(|(place, _)| place);
        self.find(text, [end].into_iter().chain(places))
    }

    /// The first seam at or behind byte `start`.
    pub(super) fn first(&self, text: &str, start: usize) -> Option<usize> {
        let start = text.floor_char_boundary(start);
        let places = text.get(start..)?.char_indices().map(|(place, _)| start + place);
        self.find(text, places)
    }

    fn find(&self, text: &str, places: impl Iterator<Item = usize>) -> Option<usize> {
        let around = |place: usize| {
            let (before, after) = text.split_at_checked(place)?;
            let mut after = after.chars();
            Some((place, before.chars().next_back()?, after.next()?, after.next()?))
        };
        let found = places.filter_map(around).filter(|&(_, before, at, after)| {
            let word = (letter(before) || ".,;:!?".contains(before)) && at == ' ' && letter(after);
            word || self.ideographs && ideograph(before) && ideograph(at)
        });
        let holds = |&(_, before, at, after): &(usize, char, char, char)| {
            ideograph(at) || self.apart(before, after)
        };
        found.take(TRIES).find(holds).map(|(place, ..)| place)
    }

    /// Whether the normalizer keeps two characters with a space between them as that.
    fn apart(&self, before: char, after: char) -> bool {
        let mut text = NormalizedString::from(format!("{before} {after}"));
        if let Some(normalizer) = &self.normalizer
            && normalizer.normalize(&mut text).is_err()
        {
            return false;
        }
        let space = |c: char| spacing(c) || self.spaces.contains(&c);
        let text = text.get().trim_matches(space);
        match text.split_once(space) {
            Some((before, after)) => {
                let at = text.get(before.len()..).and_then(|rest| rest.chars().next());
                let whole = |part: &str| !part.is_empty() && !part.contains(space);
                at.is_some_and(|at| self.spaces.contains(&at)) && whole(before) && whole(after)
            }
            None => false,
        }
    }
}

/// Letters and digits that stand for themselves in every normal form, and join no others.
fn letter(c: char) -> bool {
    c.is_alphanumeric()
        && matches!(c,
            ..'\u{80}'
            | '\u{c0}'..='\u{24f}' // Latin
            | '\u{388}'..='\u{3ff}' // Greek
            | '\u{400}'..='\u{52f}' // Cyrillic
            | '\u{531}'..='\u{587}' // Armenian
            | '\u{5d0}'..='\u{5ea}' // Hebrew
            | '\u{620}'..='\u{64a}' | '\u{671}'..='\u{6d3}' // Arabic
            | '\u{904}'..='\u{939}' // Devanagari
            | '\u{10d0}'..='\u{10fa}' // Georgian
            | '\u{1e00}'..='\u{1eff}' // Latin, Vietnamese
            | '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' // Japanese
            | '\u{ac00}'..='\u{d7a3}' // Korean
        )
        || ideograph(c)
}

/// The most common Chinese characters; BERT's normalizer puts spaces around these and others.
fn ideograph(c: char) -> bool {
    matches!(c, '\u{4e00}'..='\u{9fff}')
}

/// A space, or what tokenizers write for one.
fn spacing(c: char) -> bool {
    c.is_whitespace() || matches!(c, '▁' | 'Ġ')
}

/// Whether a space stands behind something else.
fn spans(text: &str) -> bool {
    text.chars().zip(text.chars().skip(1)).any(|(a, b)| !spacing(a) && spacing(b))
}

/// Whether what a normalizer makes of a character depends on its neighbours only, and not across a space.
fn near(rules: &Value) -> bool {
    let parts = |key: &str| rules[key].as_array().map(Vec::as_slice).unwrap_or_default();
    match rules["type"].as_str() {
        None => rules.is_null(),
        Some("Sequence") => parts("normalizers").iter().all(near),
        Some(
            "BertNormalizer" | "Lowercase" | "NFC" | "NFD" | "NFKC" | "NFKD" | "Nmt"
            | "Precompiled" | "Prepend" | "Strip" | "StripAccents",
        ) => true,
        Some("Replace") => {
            let content = rules["content"].as_str().unwrap_or_default();
            match (rules["pattern"]["String"].as_str(), rules["pattern"]["Regex"].as_str()) {
                (Some(pattern), _) if pattern.chars().all(spacing) => !pattern.is_empty(),
                // A word is neither made nor taken away.
                (Some(pattern), _) => {
                    !pattern.contains(spacing) && !content.is_empty() && !content.contains(spacing)
                }
                (None, Some(" +" | " {2,}" | r"\s+" | r"\s{2,}")) => content.chars().all(spacing),
                (None, _) => false,
            }
        }
        Some(_) => false,
    }
}

/// What a pre-tokenizer parts at, if it always does.
fn parting(rules: &Value) -> Option<Vec<char>> {
    match rules["type"].as_str()? {
        "BertPreTokenizer" | "Whitespace" | "WhitespaceSplit" => Some(vec![' ']),
        "ByteLevel" => (rules["use_regex"] == true).then(|| vec![' ']),
        "CharDelimiterSplit" => (rules["delimiter"] == " ").then(|| vec![' ']),
        "Metaspace" => {
            let replacement = rules["replacement"].as_str()?.chars().next()?;
            (rules["split"] != false).then(|| vec![' ', replacement])
        }
        "Split" => splits(rules).then(|| vec![' ']),
        "Sequence" => {
            for part in rules["pretokenizers"].as_array()? {
                match part["type"].as_str()? {
                    // These part more, and never what only a space parts.
                    "Punctuation" | "Digits" => (),
                    _ => return parting(part),
                }
            }
            None
        }
        _ => None,
    }
}

/// Whether a splitting rule is one of those in use that part before a space or around it.
fn splits(rules: &Value) -> bool {
    const WORDS: [&str; 3] = [
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ];
    let behaviour = rules["behavior"].as_str().unwrap_or_default();
    let pattern = &rules["pattern"];
    let space = pattern["String"] == " " || pattern["Regex"] == r"\s+" || pattern["Regex"] == " ";
    match pattern["Regex"].as_str() {
        Some(words) if WORDS.contains(&words) => match behaviour {
            "Isolated" => true,
            "Removed" => rules["invert"] == true,
            _ => false,
        },
        _ => {
            space
                && rules["invert"] != true
                && matches!(behaviour, "Isolated" | "Removed" | "MergedWithNext" | "Contiguous")
        }
    }
}

//! From a text, or the two of a pair, to the tokens that a model gets.
//!
//! ```text
//!  text ─► tokens ─► the first (or last) that fit ─► with the special tokens around them
//! ```
//!
//! Truncation is the reference tokenizer's: on the side it names, of a pair the longer text first, and the special
//! tokens are set afterwards. A text far longer than the model takes is tokenised up to a [seam](super::seam) only, so
//! time and memory are bounded by what the model can see; its tokens are those of the whole text.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::utils::truncation::TruncationDirection as Side;
use tokenizers::{Encoding, Tokenizer};

use super::seam::Seams;
use super::template::Template;
use crate::record::{Fault, FaultClass, Truncated};

mod windows;

/// Bytes of text that are tokenised at first for each token that the model takes.
const BYTES_A_TOKEN: usize = 8;
/// How many times more is tokenised where that was not enough.
const MORE: usize = 4;
/// Bytes of text that are tokenised at most: a tokenizer takes about 100 bytes of memory for each.
const MOST_BYTES: usize = 256 << 10;
/// … or so many for each token that the model takes, and for so many tokens more, if that is more.
const MOST_BYTES_A_TOKEN: usize = 32;
const SPARE_TOKENS: usize = 100;

/// Makes sequences of texts.
pub(super) struct Sequencer {
    tokenizer: Tokenizer,
    seams: Option<Seams>,
    side: Side,
    /// Around one text.
    single: Template,
    /// Around two; else why there are no pairs.
    pair: Result<Template, String>,
    /// Whether places of tokens are asked for.
    places: bool,
    /// Longest sequence in tokens, at least as many as the special tokens of a single text.
    longest: usize,
}

/// What becomes of a text.
pub(super) struct Sequence<'t> {
    /// Token ids with their special tokens, at most as many as the model takes.
    pub(super) ids: Vec<u32>,
    /// Which part of the text's tokens that is, where some are left out.
    pub(super) truncated: Option<Truncated>,
    /// Where the ids come from.
    pub(super) source: Source<'t>,
}

/// The part of a text that was tokenised.
pub(super) struct Source<'t> {
    pub(super) encoding: Encoding,
    /// Of the encoding's tokens those that are kept, in order.
    pub(super) kept: [Range<usize>; 3],
    /// The part.
    pub(super) text: &'t str,
    /// Characters of the text before it.
    pub(super) before: usize,
}

/// Tokens of a text from its beginning, or up to its end, as far as they matter.
struct Tokens<'t> {
    encoding: Encoding,
    /// Those that are the text's: neither special ones nor those that only keep a distance.
    own: Range<usize>,
    /// Whether they are all that the text has.
    whole: bool,
    /// The part of the text.
    text: &'t str,
    /// Bytes of the text before it.
    start: usize,
}

impl Tokens<'_> {
    fn count(&self) -> usize {
        self.own.len()
    }

    /// The first or last `count`, or all.
    fn keep(&self, count: usize, side: Side) -> Range<usize> {
        let Range { start, end } = self.own;
        match side {
            Side::Right => start..end.min(start + count),
            Side::Left => start.max(end.saturating_sub(count))..end,
        }
    }

    fn ids(&self, range: Range<usize>) -> &[u32] {
        self.encoding.get_ids().get(range).unwrap_or_default()
    }
}

impl Sequencer {
    pub(super) fn new(
        (tokenizer, side): (Tokenizer, Side),
        (single, pair): (Template, Result<Template, String>),
        places: bool,
        longest: usize,
    ) -> Self {
        let pair = pair.and_then(|pair| match pair.specials() {
            most if longest <= most => Err(format!(
                "its tokenizer adds {most} special tokens to a pair, and it takes {longest} tokens with them"
            )),
            _ => Ok(pair),
        });
        let seams = Seams::of(&tokenizer);
        Self { tokenizer, seams, side, single, pair, places, longest }
    }

    /// From now on, sources of single texts have the places of tokens, or have none.
    pub(super) fn ask_places(&mut self, places: bool) {
        self.places = places;
    }

    /// Longest sequence in tokens.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// Why there are no pairs; `None` where there are.
    pub(super) fn no_pairs(&self) -> Option<&str> {
        self.pair.as_ref().err().map(String::as_str)
    }

    /// What makes the tokens.
    pub(super) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The sequence of one text.
    pub(super) fn single<'t>(&self, text: &'t str) -> Result<Sequence<'t>, Fault> {
        let tokens = self.tokens(text, self.longest + 1)?;
        let room = self.longest - self.single.specials();
        let (front, back) = self.single.around();
        let (length, own) = (tokens.encoding.len(), tokens.keep(room, self.side));
        let (own_tokens, whole) = (tokens.count(), tokens.whole);
        let long = room < own_tokens;
        let ids = if whole && !long && !self.single.is_typed() {
            tokens.encoding.get_ids().to_vec()
        } else {
            self.single.fill(&[tokens.ids(own.clone())])
        };
        let before = text.get(..tokens.start).map_or(0, |before| before.chars().count());
        let kept = [0..front, own, length - back..length];
        let source = Source { encoding: tokens.encoding, kept, text: tokens.text, before };
        let of = self.single.specials() + own_tokens;
        let truncated = long.then_some(Truncated { kept: ids.len(), of, more: !whole });
        Ok(Sequence { ids, truncated, source })
    }

    /// The ids of a pair's sequence, and which part of the texts' tokens that is, where some are left out.
    pub(super) fn pair(&self, texts: [&str; 2]) -> Result<(Vec<u32>, Option<Truncated>), Fault> {
        let template = self.pair.as_ref().map_err(|why| {
            Fault::new(FaultClass::Invalid, format!("the model takes no pair of texts: {why}"))
        })?;
        let room = self.longest - template.specials();
        let [mut first, mut second] =
            [self.tokens(texts[0], self.longest + 1)?, self.tokens(texts[1], self.longest + 1)?];
        // Which of two long texts is the longer one decides who gets the odd token.
        let unknown = |first: &Tokens<'_>, second: &Tokens<'_>| match (first.whole, second.whole) {
            (true, true) => false,
            (true, false) => second.count() < first.count(),
            (false, true) => first.count() <= second.count(),
            (false, false) => true,
        };
        if room % 2 == 1 && unknown(&first, &second) {
            [first, second] = [self.all(texts[0])?, self.all(texts[1])?];
        }
        let [one, two] = longest_first([first.count(), second.count()], room);
        let own = first.count() + second.count();
        let ids = [first.ids(first.keep(one, self.side)), second.ids(second.keep(two, self.side))];
        let (kept, of) = (template.specials() + one + two, template.specials() + own);
        let more = !first.whole || !second.whole;
        Ok((template.fill(&ids), (room < own).then_some(Truncated { kept, of, more })))
    }

    /// Bytes of a text that are tokenised at most.
    fn most(&self) -> usize {
        (self.longest + SPARE_TOKENS).saturating_mul(MOST_BYTES_A_TOKEN).max(MOST_BYTES)
    }

    /// All tokens of one of two long texts.
    fn all<'t>(&self, text: &'t str) -> Result<Tokens<'t>, Fault> {
        let most = self.most();
        if most < text.len() {
            let message = format!(
                "the texts of a pair are both longer than the model takes, and one has {} bytes: which of them has \
                 more tokens decides what is kept, and at most {most} bytes are looked at for it",
                text.len()
            );
            return Err(Fault::new(FaultClass::TooLong, message));
        }
        self.whole(text)
    }

    fn whole<'t>(&self, text: &'t str) -> Result<Tokens<'t>, Fault> {
        let encoding = self.tokenise(text)?;
        let own = self.own(&encoding);
        Ok(Tokens { encoding, own, whole: true, text, start: 0 })
    }

    /// A text's tokens, from the side that is kept on: all, or at least `enough`.
    fn tokens<'t>(&self, text: &'t str, enough: usize) -> Result<Tokens<'t>, Fault> {
        let most = self.most();
        let mut bytes = self.longest.saturating_mul(BYTES_A_TOKEN);
        while bytes < text.len() {
            if let Some(tokens) = self.part(text, bytes)?
                && enough <= tokens.count()
            {
                return Ok(tokens);
            }
            if most <= bytes {
                let message = format!(
                    "the text has {} bytes, and {most} of them are not enough to know the {} tokens that the model \
                     takes: they are nearly all white space, or have no space between two words",
                    text.len(),
                    self.longest
                );
                return Err(Fault::new(FaultClass::TooLong, message));
            }
            bytes = bytes.saturating_mul(MORE).min(most);
        }
        self.whole(text)
    }

    /// The tokens of at most `bytes` of a text from its beginning, or up to its end, that the whole text has too; `None`
    /// where nothing is known of them.
    fn part<'t>(&self, text: &'t str, bytes: usize) -> Result<Option<Tokens<'t>>, Fault> {
        let Some(seams) = &self.seams else { return Ok(None) };
        match self.side {
            Side::Right => {
                let part = seams.last(text, bytes).and_then(|end| text.get(..end));
                let Some(part) = part else { return Ok(None) };
                let encoding = self.tokenise(part)?;
                let own = self.own(&encoding);
                Ok(Some(Tokens { encoding, own, whole: false, text: part, start: 0 }))
            }
            Side::Left => {
                let start = seams.first(text, text.len() - bytes);
                let second = start.and_then(|start| seams.first(text, start + 1));
                let Some((start, second)) = start.zip(second) else { return Ok(None) };
                let (Some(word), Some(part)) = (text.get(start..second), text.get(start..)) else {
                    return Ok(None);
                };
                let word = self.own(&self.tokenise(word)?).len();
                let encoding = self.tokenise(part)?;
                let Range { start: first, end } = self.own(&encoding);
                let own = end.min(first + word)..end;
                Ok(Some(Tokens { encoding, own, whole: false, text: part, start }))
            }
        }
    }

    /// Where the tokens of the text stand between special ones.
    fn own(&self, encoding: &Encoding) -> Range<usize> {
        let (front, back) = self.single.around();
        front..encoding.len().saturating_sub(back)
    }

    fn tokenise(&self, text: &str) -> Result<Encoding, Fault> {
        self.encode(|tokenizer| {
            if self.places {
                tokenizer.encode_char_offsets(text, true)
            } else {
                tokenizer.encode_fast(text, true)
            }
        })
    }

    fn encode(
        &self,
        encode: impl FnOnce(&Tokenizer) -> tokenizers::Result<Encoding>,
    ) -> Result<Encoding, Fault> {
        // A tokenizer's regular expressions may panic on hostile text.
        let encoded = catch_unwind(AssertUnwindSafe(|| encode(&self.tokenizer)));
        let invalid =
            |why: String| Fault::new(FaultClass::Invalid, format!("tokenise the text: {why}"));
        encoded
            .map_err(|_panic| invalid("the tokenizer panicked".to_owned()))?
            .map_err(|error| invalid(error.to_string()))
    }
}

/// How many tokens of each of two texts are kept where `room` are, as the tokenizers library has it: of the longer one
/// what the shorter leaves; where both are longer than half, half, and the odd one is the longer text's, or the second's.
fn longest_first(counts: [usize; 2], room: usize) -> [usize; 2] {
    let [first, second] = counts;
    if first + second <= room {
        return counts;
    }
    let swapped = second < first;
    let shorter = first.min(second);
    let [shorter, longer] = if room < 2 * shorter {
        [room / 2, room / 2 + room % 2]
    } else {
        [shorter, room - shorter]
    };
    if swapped { [longer, shorter] } else { [shorter, longer] }
}

#[cfg(test)]
mod tests;

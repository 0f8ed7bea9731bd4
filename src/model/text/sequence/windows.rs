//! A text that is longer than the model takes, cut into windows that it takes.
//!
//! ```text
//!  The tide fills the pond.| Shut the gate and| drive the wheel.      cut where a token ends, rather before a space
//! ```
//!
//! A window is a piece of the text, tokenised by itself: its embedding is what the model gives to that piece alone. It has
//! the most tokens that fit; where one of the last quarter of them begins behind white space, it ends before that one. The
//! next one begins there, or some tokens earlier where windows overlap.

use super::{BYTES_A_TOKEN, MORE, Sequence, Sequencer};
use crate::model::Window;
use crate::record::{Fault, FaultClass};

/// Most windows of one text: 131,000 tokens of a model that takes 512.
const MOST: usize = 256;

/// A window at the beginning of what is left of a text, in bytes.
struct Cut {
    ids: Vec<u32>,
    end: usize,
    /// Where the next one begins; `None` where nothing is left.
    next: Option<usize>,
}

impl Sequencer {
    /// Most tokens of a text with the special tokens around them.
    pub(in crate::model::text) fn room(&self) -> usize {
        self.longest - self.single.specials()
    }

    /// The windows of a text, each with `prompt` before it. The last `overlap` tokens of a window, or fewer, are the next
    /// one's first. A text that fits is one window; at least one there is.
    ///
    /// # Errors
    ///
    /// A text of too many windows, and what the tokenizer refuses.
    pub(in crate::model::text) fn windows(
        &self,
        prompt: &str,
        text: &str,
        overlap: usize,
    ) -> Result<Vec<Window>, Fault> {
        let mut windows: Vec<Window> = Vec::new();
        let (mut start, mut before) = (0, 0);
        loop {
            let rest = text.get(start..).unwrap_or_default();
            let Cut { ids, end, next } = self.cut(prompt, rest, overlap)?;
            let piece = rest.get(..end).unwrap_or_default();
            let blank = piece.trim_start().is_empty() || ids.is_empty();
            if windows.len() == MOST && !blank {
                let message = format!(
                    "the text has {} bytes, more than {MOST} windows of {} tokens: cut it before it is sent",
                    text.len(),
                    self.longest
                );
                return Err(Fault::new(FaultClass::TooLong, message));
            }
            // White space and what gives no token are no window, unless the text is nothing else.
            if !blank || next.is_none() && windows.is_empty() {
                let end = before + piece.chars().count();
                windows.push(Window { ids: ids.into(), start: before, end });
            }
            let Some(next) = next else { return Ok(windows) };
            before += rest.get(..next).map_or(0, |passed| passed.chars().count());
            start += next;
        }
    }

    /// The first window of what is left of a text.
    fn cut(&self, prompt: &str, rest: &str, overlap: usize) -> Result<Cut, Fault> {
        let room = self.room();
        let most = rest.floor_char_boundary(self.most().saturating_sub(prompt.len()));
        let mut bytes = self.longest.saturating_mul(BYTES_A_TOKEN);
        let (places, end) = loop {
            let end = rest.floor_char_boundary(bytes).min(most);
            let places = self.places(prompt, rest.get(..end).unwrap_or_default())?;
            if room < places.len() || end == most {
                break (places, end);
            }
            bytes = bytes.saturating_mul(MORE);
        };
        if places.len() <= room {
            let (ids, _) = self.alone(prompt, rest.get(..end).unwrap_or_default())?;
            return Ok(Cut { ids, end, next: (end < rest.len()).then_some(end) });
        }
        // Between two tokens, and not inside a character that several tokens stand for.
        let clean = |at: usize| at.checked_sub(1).is_some_and(|b| places[b].1 <= places[at].0);
        let space = |at: usize| {
            let behind = rest.get(..places[at].0).is_some_and(|r| r.ends_with(char::is_whitespace));
            let ahead =
                rest.get(places[at].0..).is_some_and(|r| r.starts_with(char::is_whitespace));
            clean(at) && (behind || ahead)
        };
        let first = places.iter().take_while(|(_, end)| *end == 0).count();
        let least = first + (room - first.min(room)) * 3 / 4;
        let at_space = (least.max(first + 1)..=room).rev().find(|at| space(*at));
        let mut at = at_space.or_else(|| (first + 1..=room).rev().find(|at| clean(*at)));
        let mut step = 1;
        // What is cut off may have held tokens together: by itself, the piece may have more.
        while let Some(cut) = at {
            let end = rest.get(..places[cut].0).unwrap_or_default().trim_end().len();
            let (ids, long) = self.alone(prompt, rest.get(..end).unwrap_or_default())?;
            if !long {
                let wanted = |at: &usize| if at_space.is_some() { space(*at) } else { clean(*at) };
                let back = cut.saturating_sub(overlap).max(first + 1)..=cut;
                let next = back.into_iter().find(wanted).unwrap_or(cut);
                let left = rest.get(places[next].0..).unwrap_or_default().trim_start().len();
                return Ok(Cut { ids, end, next: (left != 0).then(|| rest.len() - left) });
            }
            at = (first + 1..=cut.saturating_sub(step)).rev().find(|at| clean(*at));
            step *= 2;
        }
        let message = format!(
            "a character of the text has more tokens than the {room} that the model takes at once"
        );
        Err(Fault::new(FaultClass::TooLong, message))
    }

    /// Where the tokens of a text behind a prompt stand in it, in bytes; those of the prompt end at 0.
    pub(in crate::model::text) fn places(
        &self,
        prompt: &str,
        text: &str,
    ) -> Result<Vec<(usize, usize)>, Fault> {
        let joined = [prompt, text].concat();
        let encoding = self.encode(|tokenizer| tokenizer.encode(joined.as_str(), true))?;
        let own = encoding.get_offsets().get(self.own(&encoding)).unwrap_or_default();
        let within = |place: usize| place.saturating_sub(prompt.len());
        Ok(own.iter().map(|(start, end)| (within(*start), within(*end))).collect())
    }

    /// The ids of a piece by itself, and whether some of its tokens are left out.
    fn alone(&self, prompt: &str, piece: &str) -> Result<(Vec<u32>, bool), Fault> {
        let joined = [prompt, piece].concat();
        let Sequence { ids, truncated, .. } = self.single(&joined)?;
        Ok((ids, truncated.is_some()))
    }
}

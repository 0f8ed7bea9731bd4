//! Dead letters that cannot be redriven: thousands may have one reason, and that is said once, then with growing pauses.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::repeated::Kinds;

/// Between two lines of one reason, at first and at most.
const SELDOM: Duration = Duration::from_secs(10);
const RARELY: Duration = Duration::from_secs(600);
/// So many reasons are told apart; a broker's words might differ each time.
const REASONS: usize = 64;
/// What the rest is counted as.
const OTHERS: &str = "other reasons";

/// Why a dead letter cannot be redriven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Why {
    /// What it has in common with others.
    pub(super) reason: String,
    /// The whole of it, for this one.
    pub(super) text: String,
}

/// How many there were of each reason.
#[derive(Debug)]
pub(super) struct Cannot {
    counts: BTreeMap<String, u64>,
    said: Kinds,
}

impl Default for Cannot {
    fn default() -> Self {
        Self { counts: BTreeMap::new(), said: Kinds::new(SELDOM, RARELY) }
    }
}

impl Cannot {
    /// One more, at this place. The line to say, where it is time for one.
    pub(super) fn add(&mut self, place: &str, why: &Why, now: Instant) -> Option<String> {
        let Why { reason, text } = why;
        let is_known = self.counts.contains_key(reason) || self.counts.len() < REASONS;
        let reason = if is_known { reason } else { OTHERS };
        *self.counts.entry(reason.to_owned()).or_default() += 1;
        Some(match self.said.seen(reason, now)? {
            1 => format!("{place} cannot be redriven: {text}"),
            count => {
                format!("{place} cannot be redriven, and {} before it: {text}", count - 1)
            }
        })
    }

    /// How many there were.
    pub(super) fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// How many there were of each reason.
    pub(super) fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    /// The same in words, most first.
    pub(super) fn in_words(&self) -> String {
        let mut counts: Vec<(&String, &u64)> = self.counts.iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let words = counts.iter().map(|(reason, count)| format!("{reason} {count}"));
        words.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_reasons_are_one_line_and_a_count() {
        #[expect(clippy::disallowed_methods, reason = "a test needs one arbitrary instant")]
        let start = Instant::now();
        let why = |reason: &str, text: &str| Why { reason: reason.into(), text: text.into() };
        let mut cannot = Cannot::default();
        let mut said = Vec::new();
        for offset in 0..6_000_u64 {
            let now = start + Duration::from_millis(10 * offset);
            let place = format!("in-dlq/0/{offset}");
            said.extend(cannot.add(
                &place,
                &why("came back", &format!("it came back {offset}")),
                now,
            ));
        }
        said.extend(cannot.add("in-dlq/1/7", &why("truncated", "it is cut"), start));
        assert_eq!(
            said,
            [
                "in-dlq/0/0 cannot be redriven: it came back 0",
                "in-dlq/0/1000 cannot be redriven, and 1000 before it: it came back 1000",
                "in-dlq/0/3000 cannot be redriven, and 3000 before it: it came back 3000",
                "in-dlq/1/7 cannot be redriven: it is cut",
            ]
        );
        assert_eq!(
            (cannot.total(), cannot.in_words().as_str()),
            (6_001, "came back 6000, truncated 1")
        );
        for reason in 0..10_000 {
            cannot.add("p", &why(&reason.to_string(), ""), start);
        }
        assert_eq!((cannot.total(), cannot.counts.len()), (16_001, REASONS + 1));
    }
}

//! Which dead letters of a partition were redriven. Pure; a property is the test.
//!
//! Everything below `next` was, except what is `left`: dead letters that a selection passed over, as ranges for each class.
//! The group's committed offset is the first one that is left, so that its lag says whether there is anything to redrive;
//! the rest stands beside the offset, as JSON.
//!
//! # Invariants
//!
//! 1. No dead letter is redriven twice, whatever was selected when, and where the command ended.
//! 2. None that was not redriven counts as redriven.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Ranges of offsets, first and last, in their order.
type Ranges = Vec<(i64, i64)>;

/// Which dead letters of a partition were redriven.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Progress {
    /// The id of the dead-letter topic: of another topic of its name nothing was redriven.
    topic: Option<String>,
    /// All below were, except:
    next: i64,
    /// What was passed over, by class. What stands in a range and has the class is left.
    left: BTreeMap<String, Ranges>,
    /// Whether nothing is remembered, which may be because it was forgotten.
    #[serde(skip)]
    unknown: bool,
}

impl Progress {
    /// What was committed: an offset and the text beside it, for the topic with this id that ends at `end`.
    pub(super) fn read(
        committed: Option<(i64, &[u8])>,
        topic: Option<&str>,
        end: i64,
    ) -> Option<Self> {
        let none = Self { topic: topic.map(str::to_owned), ..Self::default() };
        let Some((offset, text)) = committed else { return Some(Self { unknown: true, ..none }) };
        // Without a text, somebody else has said where to go on.
        let told = serde_json::from_slice::<Self>(text).ok();
        let found = told
            .filter(|found| found.first() == offset)
            .unwrap_or_else(|| Self { next: offset, ..none.clone() });
        let same = found.topic.is_none() || topic.is_none() || found.topic == none.topic;
        (same && found.first() <= end).then_some(Self { topic: none.topic, ..found })
    }

    /// Nothing, in the topic with this id.
    pub(super) fn nothing(topic: Option<&str>) -> Self {
        Self { topic: topic.map(str::to_owned), ..Self::default() }
    }

    /// Whether there is anything to remember.
    pub(super) fn is_any(&self) -> bool {
        self.next != 0
    }

    /// The first offset that may be left: what is committed.
    pub(super) fn first(&self) -> i64 {
        let first = self.left.values().filter_map(|ranges| ranges.first()).map(|range| range.0);
        first.min().map_or(self.next, |first| first.min(self.next))
    }

    /// Whether the dead letter of this class there was redriven.
    pub(super) fn is_done(&self, offset: i64, class: &str) -> bool {
        let ranges = self.left.get(class).map_or(&[][..], Vec::as_slice);
        offset < self.next && !ranges.iter().any(|(from, to)| (*from..=*to).contains(&offset))
    }

    /// What stands beside the offset.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A walk through a partition's dead letters, from the first that may be left on.
#[derive(Debug, Clone)]
pub(super) struct Walk {
    before: Progress,
    /// How far it has come.
    at: i64,
    left: BTreeMap<String, Ranges>,
    /// The classes whose last dead letter was left: the next one that is left belongs to the same range.
    open: BTreeSet<String>,
}

impl Walk {
    pub(super) fn new(before: Progress) -> Self {
        Self { before, at: 0, left: BTreeMap::new(), open: BTreeSet::new() }
    }

    /// Whether the dead letter was redriven before this walk.
    pub(super) fn was_done(&self, offset: i64, class: &str) -> bool {
        self.before.is_done(offset, class)
    }

    /// Whether it was never said, or is forgotten, what was redriven before this walk.
    pub(super) fn is_unknown(&self) -> bool {
        self.before.unknown
    }

    /// Passes a dead letter; `left` where it is not redriven now, nor was before.
    pub(super) fn pass(&mut self, offset: i64, class: &str, left: bool) {
        self.at = self.at.max(offset + 1);
        if !left {
            self.open.remove(class);
            return;
        }
        let ranges = self.left.entry(class.to_owned()).or_default();
        match ranges.last_mut() {
            Some(last) if !self.open.insert(class.to_owned()) => last.1 = offset,
            _ => ranges.push((offset, offset)),
        }
    }

    /// Comes to the partition's end.
    pub(super) fn end(&mut self, end: i64) {
        self.at = self.at.max(end);
    }

    /// What was redriven, were the walk to end here.
    pub(super) fn progress(&self) -> Progress {
        let mut left = self.left.clone();
        for (class, ranges) in &self.before.left {
            let ahead = ranges.iter().filter(|range| self.at <= range.1);
            let ahead: Ranges = ahead.map(|(from, to)| (self.at.max(*from), *to)).collect();
            if !ahead.is_empty() {
                left.entry(class.clone()).or_default().extend(ahead);
            }
        }
        let (topic, next) = (self.before.topic.clone(), self.before.next.max(self.at));
        Progress { topic, next, left, unknown: false }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLASSES: [&str; 3] = ["invalid", "missing", "other"];

    #[test]
    fn what_was_committed_is_read_back_where_it_is_of_this_topic() {
        let mut walk = Walk::new(Progress::nothing(Some("id")));
        walk.pass(3, "invalid", true);
        walk.pass(5, "missing", false);
        walk.end(9);
        let progress = walk.progress();
        assert_eq!(progress.text(), r#"{"topic":"id","next":9,"left":{"invalid":[[3,3]]}}"#);
        let text = progress.text();
        let read = |offset, text: &str, topic, end| {
            Progress::read(Some((offset, text.as_bytes())), topic, end)
        };
        assert_eq!(read(3, &text, Some("id"), 9), Some(progress));
        assert_eq!(read(3, &text, Some("id"), 2), None, "the topic is another one");
        assert_eq!(read(3, &text, Some("new"), 9), None, "the topic is another one");
        let reset = Progress { next: 4, ..Progress::nothing(Some("id")) };
        assert_eq!(read(4, "", Some("id"), 9), Some(reset.clone()), "an operator's will");
        assert_eq!(read(4, &text, Some("id"), 9), Some(reset), "an operator's will");
        let never = Progress { unknown: true, ..Progress::nothing(Some("id")) };
        assert_eq!(Progress::read(None, Some("id"), 9), Some(never));
    }

    #[test]
    fn a_class_that_is_passed_over_is_one_range() {
        let mut walk = Walk::new(Progress::nothing(None));
        for offset in 0..1_000 {
            let class = CLASSES[usize::try_from(offset % 2).unwrap()];
            walk.pass(offset, class, class == "invalid");
        }
        assert_eq!(walk.progress().left, BTreeMap::from([("invalid".to_owned(), vec![(0, 998)])]));
    }

    proptest! {
        /// Runs with selections of any kind, each ending somewhere: each dead letter is redriven at most once, and is done
        /// exactly when it was.
        #[test]
        fn each_is_redriven_once_and_only_then_done(
            classes in proptest::collection::vec(0..3_usize, 1..40),
            runs in proptest::collection::vec((any::<[bool; 3]>(), 0..40_i64, 0..40_i64, 0..50_i64), 1..6),
        ) {
            let letters: Vec<(i64, &str)> = (0..).zip(&classes).map(|(o, c)| (2 * o, CLASSES[*c])).collect();
            let end = i64::try_from(2 * letters.len()).unwrap();
            let (mut progress, mut redriven) = (Progress::nothing(None), BTreeMap::new());
            for (wanted, from, until, stop) in runs {
                let mut walk = Walk::new(progress.clone());
                for (offset, class) in letters.iter().filter(|(offset, _)| progress.first() <= *offset) {
                    if stop <= *offset {
                        break;
                    }
                    let place = CLASSES.iter().position(|c| c == class).unwrap();
                    let selected = wanted[place] && (from..=until).contains(offset);
                    let done = walk.was_done(*offset, class);
                    if selected && !done {
                        *redriven.entry(*offset).or_insert(0) += 1;
                    }
                    walk.pass(*offset, class, !done && !selected);
                }
                if end <= stop {
                    walk.end(end);
                }
                let text = walk.progress().text();
                progress = Progress::read(Some((walk.progress().first(), text.as_bytes())), None, end).unwrap();
                for (offset, class) in &letters {
                    let times = redriven.get(offset).copied().unwrap_or(0);
                    prop_assert!(times <= 1);
                    prop_assert_eq!(progress.is_done(*offset, class), times == 1, "{}", offset);
                    prop_assert!(progress.is_done(*offset, class) || progress.first() <= *offset);
                }
            }
        }
    }
}

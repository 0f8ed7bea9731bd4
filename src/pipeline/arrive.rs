//! Which records are ours: assignment, epochs, ends.
//!
//! # Invariants
//!
//! 1. A record is let in once, in offset order, and only under the partition's current epoch.
//! 2. `done` never passes a record that was let in and has no committed outcome.
//! 3. A record below the place where reading is counts as a sign that the partition is another one, never as seen
//!    before: where a reader went back, the log has changed under it.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::record::{End, Epoch, Offset, Partition, Version};

/// A partition that is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// The partition.
    pub partition: Partition,
    /// Its new epoch.
    pub epoch: Epoch,
    /// Where reading begins: the group's committed offset, reconciled with what the log holds.
    pub next: Offset,
    /// Where reading stops for good (`--until-end`); records from here on are not let in.
    pub until: Option<Offset>,
    /// Offsets that are passed over: they were answered before.
    pub skip: Option<Range<Offset>>,
    /// The version of the same model that answered last in this partition; `None` where that is not known, or where
    /// the registry cannot be asked about it.
    pub recorded: Option<Version>,
}

/// What becomes of a record that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It is to be processed.
    In,
    /// It is not ours, or beyond `until`, or was answered before.
    Out,
    /// It lies below what was read before in the same epoch: the partition is not the one that it was.
    Back {
        /// Where reading was.
        position: Offset,
    },
}

/// The partitions that are ours and how far each is.
#[derive(Debug, Default)]
pub struct Owned(BTreeMap<Partition, State>);

#[derive(Debug)]
struct State {
    epoch: Epoch,
    committed: Offset,
    until: Option<Offset>,
    skip: Option<Range<Offset>>,
    /// The next offset that may be let in.
    position: Offset,
    /// Everything below is read or is a control record.
    end: Option<Offset>,
    /// Records let in and not yet committed.
    outstanding: usize,
}

impl Owned {
    /// Takes a partition in; what was known of an older epoch is forgotten.
    pub fn assign(&mut self, assigned: Assigned) {
        let Assigned { partition, epoch, next, until, skip, .. } = assigned;
        let state = State {
            epoch,
            committed: next,
            until,
            skip,
            position: next,
            end: None,
            outstanding: 0,
        };
        self.0.insert(partition, state);
    }

    /// Gives a partition up.
    pub fn revoke(&mut self, partition: Partition) {
        self.0.remove(&partition);
    }

    /// Whether records of this epoch are still ours.
    pub fn holds(&self, partition: Partition, epoch: Epoch) -> bool {
        self.0.get(&partition).is_some_and(|state| state.epoch == epoch)
    }

    fn current(&mut self, partition: Partition, epoch: Epoch) -> Option<&mut State> {
        self.0.get_mut(&partition).filter(|state| state.epoch == epoch)
    }

    /// Judges a record that was read, and lets it in or not.
    #[must_use = "a record that is not let in must not be processed"]
    pub fn arrive(&mut self, partition: Partition, epoch: Epoch, offset: Offset) -> Entry {
        let Some(state) = self.current(partition, epoch) else {
            return Entry::Out;
        };
        if let Some(until) = state.until.filter(|until| *until <= offset) {
            state.end = Some(until);
            return Entry::Out;
        }
        if offset < state.position {
            return Entry::Back { position: state.position };
        }
        state.position = offset.next();
        if state.skip.as_ref().is_some_and(|skip| skip.contains(&offset)) {
            state.end = state.end.max(Some(offset.next()));
            return Entry::Out;
        }
        state.outstanding += 1;
        Entry::In
    }

    /// Notes that a partition was read to its end. The last one is where reading stops for good.
    pub fn end(&mut self, end: End) {
        let End { partition, epoch, next, is_last } = end;
        if let Some(state) = self.current(partition, epoch) {
            let end = state.until.map_or(next, |until| until.min(next));
            state.end = state.end.max(Some(end));
            if is_last {
                state.until = Some(end);
            }
        }
    }

    /// The offset to commit after `rows` records, the last at `last`: past trailing control records when
    /// nothing else of the partition is outstanding.
    pub fn next(&self, partition: Partition, last: Offset, rows: usize) -> Offset {
        let next = last.next();
        match self.0.get(&partition) {
            Some(state) if state.outstanding == rows => state.end.map_or(next, |end| end.max(next)),
            _ => next,
        }
    }

    /// Notes a committed offset and the `rows` it covers.
    pub fn committed(&mut self, partition: Partition, epoch: Epoch, next: Offset, rows: usize) {
        if let Some(state) = self.current(partition, epoch) {
            state.committed = state.committed.max(next);
            state.outstanding = state.outstanding.saturating_sub(rows);
        }
    }

    /// Partitions where only control records lie between the committed offset and the end.
    pub fn tails(&self) -> impl Iterator<Item = (Partition, Epoch, Offset)> {
        self.0.iter().filter_map(|(partition, state)| {
            let end = state.end.filter(|end| state.committed < *end)?;
            (state.outstanding == 0).then_some((*partition, state.epoch, end))
        })
    }

    /// Whether every partition that is ours is committed up to its `until`; so also where none is ours.
    pub fn reached_ends(&self) -> bool {
        self.0.values().all(|state| {
            state.outstanding == 0 && state.until.is_some_and(|until| until <= state.committed)
        })
    }

    /// How many partitions are ours.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is ours.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The committed offset of each partition.
    pub fn positions(&self) -> impl Iterator<Item = (Partition, Offset)> {
        self.0.iter().map(|(partition, state)| (*partition, state.committed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Partition = Partition { topic: 0, number: 0 };

    fn owned(next: i64, until: Option<i64>, skip: Option<Range<i64>>) -> Owned {
        let mut owned = Owned::default();
        owned.assign(Assigned {
            partition: P,
            epoch: Epoch(2),
            next: Offset(next),
            until: until.map(Offset),
            skip: skip.map(|skip| Offset(skip.start)..Offset(skip.end)),
            recorded: None,
        });
        owned
    }

    fn end(next: i64, is_last: bool) -> End {
        End { partition: P, epoch: Epoch(2), next: Offset(next), is_last }
    }

    #[test]
    fn a_record_is_let_in_once_and_only_if_it_is_ours() {
        let mut owned = owned(5, Some(12), Some(8..10));
        let back = |position| Entry::Back { position: Offset(position) };
        for (epoch, offset, expect) in [
            (1, 5, Entry::Out), // of an older epoch
            (2, 4, back(5)),    // before the place where reading began
            (2, 5, Entry::In),
            (2, 5, back(6)),
            (2, 7, Entry::In),  // a gap is no loss
            (2, 8, Entry::Out), // answered before
            (2, 9, Entry::Out),
            (2, 10, Entry::In),
            (2, 12, Entry::Out), // beyond `until`
        ] {
            assert_eq!(owned.arrive(P, Epoch(epoch), Offset(offset)), expect, "{epoch} {offset}");
        }
        let elsewhere = Partition { number: 1, ..P };
        assert_eq!(owned.arrive(elsewhere, Epoch(2), Offset(5)), Entry::Out);
    }

    #[test]
    fn commits_pass_control_records_but_no_record() {
        let mut owned = owned(0, None, None);
        for offset in [0, 1] {
            assert_eq!(owned.arrive(P, Epoch(2), Offset(offset)), Entry::In);
        }
        owned.end(end(3, false));
        assert_eq!(owned.next(P, Offset(0), 1), Offset(1), "offset 1 is outstanding");
        owned.committed(P, Epoch(2), Offset(1), 1);
        assert_eq!(owned.tails().count(), 0);
        assert_eq!(owned.next(P, Offset(1), 1), Offset(3));
        owned.committed(P, Epoch(2), Offset(2), 1);
        assert_eq!(owned.tails().collect::<Vec<_>>(), [(P, Epoch(2), Offset(3))]);
    }

    #[test]
    fn what_is_passed_over_is_committed_past() {
        let mut owned = owned(0, None, Some(0..2));
        for offset in [0, 1] {
            assert_eq!(owned.arrive(P, Epoch(2), Offset(offset)), Entry::Out);
        }
        assert_eq!(owned.tails().next(), Some((P, Epoch(2), Offset(2))));
        assert_eq!(owned.arrive(P, Epoch(2), Offset(2)), Entry::In);
        assert_eq!(owned.tails().next(), None, "not past a record without an outcome");
    }

    #[test]
    fn an_end_beyond_until_counts_as_until() {
        let mut owned = owned(3, Some(4), None);
        owned.end(end(9, false));
        assert_eq!(owned.tails().next(), Some((P, Epoch(2), Offset(4))));
        assert!(!owned.reached_ends());
        owned.committed(P, Epoch(2), Offset(4), 0);
        assert!(owned.reached_ends());
    }

    #[test]
    fn a_last_end_is_where_reading_stops() {
        for (until, stops) in [(None, 6), (Some(5), 5), (Some(9), 6)] {
            let mut owned = owned(5, until, None);
            let expect = if stops == 5 { Entry::Out } else { Entry::In };
            assert_eq!(owned.arrive(P, Epoch(2), Offset(5)), expect);
            owned.end(end(6, true));
            assert_eq!(owned.reached_ends(), stops == 5, "{until:?}");
            owned.committed(P, Epoch(2), Offset(6), 1);
            assert!(owned.reached_ends(), "{until:?}");
            assert_eq!(owned.arrive(P, Epoch(2), Offset(6)), Entry::Out, "{until:?}");
        }
        let mut empty = owned(0, None, None);
        assert!(!empty.reached_ends(), "the end is not known");
        empty.end(end(0, true));
        assert!(empty.reached_ends());
    }
}

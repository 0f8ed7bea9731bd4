//! Which records are ours: assignment, epochs, ends.
//!
//! # Invariants
//!
//! 1. A record is let in once, in offset order, and only under the partition's current epoch.
//! 2. `done` never passes a record that was let in and has no committed outcome.

use std::collections::BTreeMap;

use crate::record::{Epoch, Offset, Partition};

/// A partition that is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned {
    /// Which.
    pub partition: Partition,
    /// Since when.
    pub epoch: Epoch,
    /// The group's committed offset; `None` where it has none.
    pub committed: Option<Offset>,
    /// Where reading stops for good (`--until-end`); records from here on are not let in.
    pub until: Option<Offset>,
}

/// The partitions that are ours and how far each is.
#[derive(Debug, Default)]
pub struct Owned(BTreeMap<Partition, State>);

#[derive(Debug)]
struct State {
    epoch: Epoch,
    committed: Option<Offset>,
    until: Option<Offset>,
    /// The next offset that may be let in; `None` before the first.
    position: Option<Offset>,
    /// Everything below is read or is a control record.
    end: Option<Offset>,
    /// Records let in and not yet committed.
    outstanding: usize,
}

impl Owned {
    /// Takes a partition in; what was known of an older epoch is forgotten.
    pub fn assign(&mut self, assigned: Assigned) {
        let Assigned { partition, epoch, committed, until } = assigned;
        let state =
            State { epoch, committed, until, position: committed, end: None, outstanding: 0 };
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

    /// Lets a record in, or says no: not ours, seen before, or beyond `until`.
    #[must_use = "a record that is not let in must not be processed"]
    pub fn arrive(&mut self, partition: Partition, epoch: Epoch, offset: Offset) -> bool {
        let Some(state) = self.0.get_mut(&partition).filter(|state| state.epoch == epoch) else {
            return false;
        };
        if let Some(until) = state.until.filter(|until| *until <= offset) {
            state.end = Some(until);
            return false;
        }
        if state.position.is_some_and(|position| offset < position) {
            return false;
        }
        state.position = Some(offset.next());
        state.outstanding += 1;
        true
    }

    /// Notes that everything below `next` was read.
    pub fn end(&mut self, partition: Partition, epoch: Epoch, next: Offset) {
        if let Some(state) = self.0.get_mut(&partition).filter(|state| state.epoch == epoch) {
            let end = state.until.map_or(next, |until| until.min(next));
            state.end = state.end.max(Some(end));
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
        if let Some(state) = self.0.get_mut(&partition).filter(|state| state.epoch == epoch) {
            state.committed = state.committed.max(Some(next));
            state.outstanding = state.outstanding.saturating_sub(rows);
        }
    }

    /// Partitions where only control records lie between the committed offset and the end.
    pub fn tails(&self) -> impl Iterator<Item = (Partition, Epoch, Offset)> {
        self.0.iter().filter_map(|(partition, state)| {
            let end = state.end.filter(|end| state.committed.is_none_or(|done| done < *end))?;
            (state.outstanding == 0).then_some((*partition, state.epoch, end))
        })
    }

    /// Whether every partition is committed up to its `until`. False while one has none.
    pub fn reached_ends(&self) -> bool {
        self.0.values().all(|state| {
            let reached = |until: Offset| state.committed.is_some_and(|done| until <= done);
            state.outstanding == 0 && state.until.is_some_and(reached)
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

    /// The committed offset of each partition that has one.
    pub fn positions(&self) -> impl Iterator<Item = (Partition, Offset)> {
        self.0.iter().filter_map(|(partition, state)| Some((*partition, state.committed?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Partition = Partition { topic: 0, number: 0 };

    fn owned(committed: Option<i64>, until: Option<i64>) -> Owned {
        let mut owned = Owned::default();
        let (committed, until) = (committed.map(Offset), until.map(Offset));
        owned.assign(Assigned { partition: P, epoch: Epoch(2), committed, until });
        owned
    }

    #[test]
    fn a_record_is_let_in_once_and_only_if_it_is_ours() {
        let mut owned = owned(Some(5), Some(8));
        for (epoch, offset, expect) in [
            (1, 5, false), // of an older epoch
            (2, 4, false), // committed before
            (2, 5, true),
            (2, 5, false), // seen
            (2, 7, true),  // a gap is no loss
            (2, 8, false), // beyond `until`
        ] {
            assert_eq!(owned.arrive(P, Epoch(epoch), Offset(offset)), expect, "{epoch} {offset}");
        }
        assert!(!owned.arrive(Partition { number: 1, ..P }, Epoch(2), Offset(5)));
    }

    #[test]
    fn commits_pass_control_records_but_no_record() {
        let mut owned = owned(None, None);
        assert!(owned.arrive(P, Epoch(2), Offset(0)) && owned.arrive(P, Epoch(2), Offset(1)));
        owned.end(P, Epoch(2), Offset(3));
        assert_eq!(owned.next(P, Offset(0), 1), Offset(1), "offset 1 is outstanding");
        owned.committed(P, Epoch(2), Offset(1), 1);
        assert_eq!(owned.tails().count(), 0);
        assert_eq!(owned.next(P, Offset(1), 1), Offset(3));
        owned.committed(P, Epoch(2), Offset(2), 1);
        assert_eq!(owned.tails().collect::<Vec<_>>(), [(P, Epoch(2), Offset(3))]);
    }

    #[test]
    fn an_end_beyond_until_counts_as_until() {
        let mut owned = owned(Some(3), Some(4));
        owned.end(P, Epoch(2), Offset(9));
        assert_eq!(owned.tails().next(), Some((P, Epoch(2), Offset(4))));
        assert!(!owned.reached_ends());
        owned.committed(P, Epoch(2), Offset(4), 0);
        assert!(owned.reached_ends());
    }
}

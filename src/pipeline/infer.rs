//! Which version runs a batch, the switch between two batches, and what is left of a refused one.
//!
//! A version is *staged* when it has finished loading and *serves* only from the next boundary on. So every
//! prediction of a batch is of one version.

use std::ops::Range;
use std::sync::Arc;

use crate::answer::Refused;
use crate::record::{Outcome, Version};

use super::Batch;
use super::verdict::{Verdict, verdict};

/// The version that serves and the one that waits.
#[derive(Debug)]
pub(super) struct Slot {
    serving: Version,
    staged: Option<Version>,
}

impl Slot {
    pub(super) fn new(serving: Version) -> Self {
        Self { serving, staged: None }
    }

    /// Puts a loaded version in line, in the place of one that has not served yet.
    pub(super) fn stage(&mut self, version: Version) {
        self.staged = (version != self.serving).then_some(version);
    }

    /// Whether a version waits.
    pub(super) fn is_staged(&self) -> bool {
        self.staged.is_some()
    }

    /// To be called between two batches, never inside one.
    pub(super) fn at_boundary(&mut self) {
        if let Some(next) = self.staged.take() {
            self.serving = next;
        }
    }

    /// The version that a batch which is cut now pins.
    pub(super) fn serving(&self) -> Version {
        self.serving
    }

    /// The versions that may still be pinned.
    pub(super) fn versions(&self) -> impl Iterator<Item = Version> {
        [Some(self.serving), self.staged].into_iter().flatten()
    }
}

/// A batch on its way through the model.
#[derive(Debug)]
pub(super) struct Running<T, O> {
    pub(super) batch: Arc<Batch<T>>,
    outcomes: Vec<Option<Outcome<O>>>,
    /// Rows that have no outcome yet.
    pending: usize,
    /// Bytes that the outcomes take so far.
    pub(super) bytes: u64,
}

/// What comes of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// These rows are to run (again), each range alone.
    Run(Vec<Range<usize>>),
    /// As `Run`, and no batch is to be larger than this many tokens from now on.
    RunSmaller(Vec<Range<usize>>, u64),
    /// The process must stop.
    Exit(String),
}

impl<T, O> Running<T, O> {
    pub(super) fn new(batch: Arc<Batch<T>>) -> Self {
        let rows = batch.items.len();
        Self { batch, outcomes: (0..rows).map(|_| None).collect(), pending: rows, bytes: 0 }
    }

    /// Whether every row has its outcome.
    pub(super) fn is_ready(&self) -> bool {
        self.pending == 0
    }

    /// Takes the answer for `rows` in.
    pub(super) fn answer(
        &mut self,
        rows: Range<usize>,
        answer: Result<Vec<Outcome<O>>, Refused>,
    ) -> Next {
        let refused = match answer {
            Ok(outcomes) if outcomes.len() == rows.len() => {
                for (row, outcome) in rows.zip(outcomes) {
                    self.set(row, outcome);
                }
                return Next::Run(Vec::new());
            }
            Ok(outcomes) => {
                let (got, asked) = (outcomes.len(), rows.len());
                return Next::Exit(format!("run a batch: {asked} records in, {got} answers out"));
            }
            Err(refused) => refused,
        };
        match verdict(&refused, rows.len()) {
            Verdict::DeadLetter { row, fault } => {
                let row = rows.start + row;
                self.set(row, Outcome::DeadLetter(fault));
                Next::Run(not_empty([rows.start..row, row + 1..rows.end]))
            }
            Verdict::Halve => Next::Run(halves(rows)),
            Verdict::HalveForGood => {
                let tokens =
                    self.batch.items[rows.clone()].iter().map(|item| item.tokens).sum::<u64>();
                Next::RunSmaller(halves(rows), tokens / 2)
            }
            Verdict::Exit(message) => Next::Exit(message),
        }
    }

    fn set(&mut self, row: usize, outcome: Outcome<O>) {
        if self.outcomes[row].replace(outcome).is_none() {
            self.pending -= 1;
        }
    }

    /// The outcomes in input order. Only of a ready batch.
    pub(super) fn into_outcomes(self) -> (Arc<Batch<T>>, Vec<Outcome<O>>) {
        (self.batch, self.outcomes.into_iter().flatten().collect())
    }
}

fn halves(rows: Range<usize>) -> Vec<Range<usize>> {
    let middle = rows.start + rows.len() / 2;
    not_empty([rows.start..middle, middle..rows.end])
}

fn not_empty(ranges: [Range<usize>; 2]) -> Vec<Range<usize>> {
    ranges.into_iter().filter(|range| !range.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staged_version_serves_from_the_boundary_on() {
        let (one, two, three) = (Version(1), Version(2), Version(3));
        let mut slot = Slot::new(one);
        slot.at_boundary();
        slot.stage(two);
        assert_eq!(slot.serving(), one, "not before the boundary");
        slot.stage(three);
        slot.at_boundary();
        assert_eq!(slot.serving(), three, "two was overtaken and never served");
        slot.stage(one);
        slot.at_boundary();
        assert_eq!(slot.serving(), one, "a rollback is a swap like any other");
        slot.stage(two);
        slot.stage(one);
        assert!(!slot.is_staged(), "back to what serves");
    }

    #[test]
    fn halving_covers_each_row_once() {
        assert_eq!(halves(0..2), [0..1, 1..2]);
        assert_eq!(halves(3..8), [3..5, 5..8]);
        assert_eq!(not_empty([2..2, 3..9]).first(), Some(&(3..9)));
    }
}

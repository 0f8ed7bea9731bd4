//! Which version runs a batch, the switch between two batches, and what is left of a refused one.
//!
//! A version is *staged* when it has finished loading and *serves* only from the next boundary on. So every
//! prediction of a batch is of one version.

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

/// Rows of a batch that went through the model together, and what it said.
#[derive(Debug, Clone, PartialEq)]
pub struct Part<O> {
    /// Places in [`Batch::items`].
    pub rows: Vec<usize>,
    /// An outcome for each of `rows`, in their order; or the refusal of all of them.
    pub answer: Result<Vec<Outcome<O>>, Refused>,
}

/// A batch on its way through the model.
#[derive(Debug)]
pub(super) struct Running<T, O> {
    pub(super) batch: Arc<Batch<T>>,
    outcomes: Vec<Option<Outcome<O>>>,
    /// Rows that have no outcome yet.
    pending: usize,
    /// Rows that are in the model.
    asked: usize,
    /// Bytes that the outcomes take so far.
    pub(super) bytes: u64,
}

/// What comes of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Again {
    /// These rows run again, each set by itself.
    pub(super) sets: Vec<Vec<usize>>,
    /// No batch is to be larger than so many tokens from now on.
    pub(super) ceiling: Option<u64>,
}

impl<T, O> Running<T, O> {
    pub(super) fn new(batch: Arc<Batch<T>>) -> Self {
        let rows = batch.items.len();
        let outcomes = (0..rows).map(|_| None).collect();
        Self { batch, outcomes, pending: rows, asked: rows, bytes: 0 }
    }

    /// Whether every row has its outcome.
    pub(super) fn is_ready(&self) -> bool {
        self.pending == 0
    }

    /// Takes the answer to one [`Effect::Infer`](super::Effect::Infer) in: all of its rows, in as many parts as they went
    /// through the model.
    ///
    /// # Errors
    ///
    /// Why the process must stop.
    pub(super) fn answer(&mut self, parts: Vec<Part<O>>) -> Result<Again, String> {
        let asked: usize = parts.iter().map(|part| part.rows.len()).sum();
        let mut again = Again::default();
        let no_memory = |part: &Part<O>| matches!(part.answer, Err(Refused::OutOfMemory(_)));
        if parts.iter().any(no_memory) {
            let rows = parts.iter().flat_map(|part| &part.rows);
            let tokens: u64 = rows.map(|row| self.batch.items[*row].tokens).sum();
            again.ceiling = Some(tokens / 2);
        }
        for Part { rows, answer } in parts {
            match answer {
                Ok(outcomes) if outcomes.len() == rows.len() => {
                    rows.into_iter()
                        .zip(outcomes)
                        .for_each(|(row, outcome)| self.set(row, outcome));
                }
                Ok(outcomes) => {
                    let (got, asked) = (outcomes.len(), rows.len());
                    return Err(format!("run a batch: {asked} records in, {got} answers out"));
                }
                Err(refused) => again.sets.extend(self.refused(rows, asked, &refused)?),
            }
        }
        let answered = asked - again.sets.iter().map(Vec::len).sum::<usize>();
        self.asked = self.asked.saturating_sub(answered);
        if self.asked == 0 && self.pending != 0 {
            return Err(format!(
                "run a batch: {} records have no answer; this is a bug",
                self.pending
            ));
        }
        Ok(again)
    }

    /// The sets of rows that run again instead of a refused part.
    fn refused(
        &mut self,
        mut rows: Vec<usize>,
        asked: usize,
        refused: &Refused,
    ) -> Result<Vec<Vec<usize>>, String> {
        match verdict(refused, rows.len(), asked) {
            Verdict::DeadLetter { row, fault } => {
                let behind = rows.split_off(row + 1);
                rows.pop()
                    .into_iter()
                    .for_each(|row| self.set(row, Outcome::DeadLetter(fault.clone())));
                Ok(sets([rows, behind]))
            }
            Verdict::Halve | Verdict::HalveForGood => Ok(halves(rows)),
            Verdict::Exit(message) => Err(message),
        }
    }

    fn set(&mut self, row: usize, outcome: Outcome<O>) {
        if matches!(outcome, Outcome::DeadLetter(_)) {
            // It takes its record along, which is copied when it is sent.
            self.bytes += self.batch.items[row].bytes;
        }
        if self.outcomes[row].replace(outcome).is_none() {
            self.pending -= 1;
        }
    }

    /// The outcomes in input order. Only of a ready batch.
    pub(super) fn into_outcomes(self) -> (Arc<Batch<T>>, Vec<Outcome<O>>) {
        (self.batch, self.outcomes.into_iter().flatten().collect())
    }
}

fn halves(mut rows: Vec<usize>) -> Vec<Vec<usize>> {
    let behind = rows.split_off(rows.len() / 2);
    sets([rows, behind])
}

/// The sets that are not empty, each in the order of the batch.
fn sets(sets: [Vec<usize>; 2]) -> Vec<Vec<usize>> {
    let mut sets: Vec<_> = sets.into_iter().filter(|rows| !rows.is_empty()).collect();
    sets.iter_mut().for_each(|rows| rows.sort_unstable());
    sets
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
        assert_eq!(halves(vec![0, 1]), [[0], [1]]);
        assert_eq!(halves(vec![7, 3, 9, 4, 8]), [vec![3, 7], vec![4, 8, 9]]);
        assert_eq!(halves(vec![5]), [[5]], "nothing to halve: by itself");
    }
}

//! What one transaction holds, and when too much of it is dead letters.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::record::{Epoch, Offset, Outcome, Partition};

use super::Batch;
use super::arrive::Owned;

/// All that becomes visible together.
#[derive(Debug)]
pub struct Transaction<T, O> {
    /// Counts up over all lanes.
    pub id: u64,
    /// Batches in the order they were cut, of one version.
    pub batches: Vec<Finished<T, O>>,
    /// The offset to read next, by partition, and the epoch it is committed under.
    pub next: BTreeMap<Partition, (Epoch, Offset)>,
}

/// A batch with the outcomes of its rows that are still ours.
#[derive(Debug)]
pub struct Finished<T, O> {
    /// The batch as it was cut.
    pub batch: Arc<Batch<T>>,
    /// Row numbers with their outcomes, in order. Rows of a partition that was taken away are missing.
    pub rows: Vec<(usize, Outcome<O>)>,
}

/// What a transaction covers, kept until it is answered: rows and next offset by partition.
#[derive(Debug)]
pub(super) struct Covered {
    pub(super) id: u64,
    pub(super) partitions: BTreeMap<Partition, (Epoch, usize)>,
}

/// A batch whose rows all have their outcome.
pub(super) type Ready<T, O> = (Arc<Batch<T>>, Vec<Outcome<O>>);

/// Makes a transaction of `ready` batches; `None` when nothing of them is ours any more.
pub(super) fn transaction<T, O>(
    id: u64,
    ready: Vec<Ready<T, O>>,
    owned: &Owned,
) -> Option<(Transaction<T, O>, Covered)> {
    let mut last: BTreeMap<Partition, (Epoch, Offset, usize)> = BTreeMap::new();
    let mut batches = Vec::with_capacity(ready.len());
    for (batch, outcomes) in ready {
        let mut rows = Vec::with_capacity(outcomes.len());
        for (row, outcome) in outcomes.into_iter().enumerate() {
            let item = &batch.items[row];
            if owned.holds(item.partition, item.epoch) {
                let entry = last.entry(item.partition).or_insert((item.epoch, item.offset, 0));
                entry.1 = item.offset;
                entry.2 += 1;
                rows.push((row, outcome));
            }
        }
        if !rows.is_empty() {
            batches.push(Finished { batch, rows });
        }
    }
    if batches.is_empty() {
        return None;
    }
    let next = last.iter().map(|(partition, (epoch, last, rows))| {
        (*partition, (*epoch, owned.next(*partition, *last, *rows)))
    });
    let next = next.collect();
    let partitions = last.into_iter().map(|(p, (epoch, _, rows))| (p, (epoch, rows))).collect();
    Some((Transaction { id, batches, next }, Covered { id, partitions }))
}

/// The share of dead letters over the last records.
#[derive(Debug)]
pub(super) struct DeadRatio {
    max_ratio: f64,
    window: usize,
    dead: VecDeque<bool>,
    count: usize,
}

impl DeadRatio {
    /// Judged from so many records on: one broken record at the start is no flood.
    const FEWEST: usize = 100;

    pub(super) fn new(max_ratio: f64, window: usize) -> Self {
        Self { max_ratio, window: window.max(1), dead: VecDeque::new(), count: 0 }
    }

    /// Takes outcomes in; says the dead letters and records of the window if they are too many.
    pub(super) fn exceeded<'a, O: 'a>(
        &mut self,
        outcomes: impl Iterator<Item = &'a Outcome<O>>,
    ) -> Option<(usize, usize)> {
        for outcome in outcomes {
            let dead = matches!(outcome, Outcome::DeadLetter(_));
            self.count += usize::from(dead);
            self.dead.push_back(dead);
            if self.window < self.dead.len() && self.dead.pop_front() == Some(true) {
                self.count -= 1;
            }
        }
        let records = self.dead.len();
        let enough = Self::FEWEST.min(self.window) <= records;
        #[expect(clippy::cast_precision_loss, reason = "a window is far below 2^52 records")]
        let ratio = self.count as f64 / records.max(1) as f64;
        (enough && self.max_ratio < ratio).then_some((self.count, records))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Fault, FaultClass};

    #[test]
    fn a_flood_of_dead_letters_is_noticed() {
        let good = || Outcome::Prediction(());
        let dead = || Outcome::<()>::DeadLetter(Fault::new(FaultClass::Missing, "m"));
        let mut ratio = DeadRatio::new(0.5, 200);
        let few: Vec<_> = (0..99).map(|_| dead()).collect();
        assert_eq!(ratio.exceeded(few.iter()), None, "too few to judge");
        assert_eq!(ratio.exceeded([dead()].iter()), Some((100, 100)));
        let many: Vec<_> = (0..100).map(|_| good()).collect();
        assert_eq!(ratio.exceeded(many.iter()), None, "half of them is not above half");
        assert_eq!(ratio.exceeded([good()].iter()), None, "old ones leave the window");
        let never: Vec<_> = (0..500).map(|_| dead()).collect();
        assert_eq!(DeadRatio::new(1.0, 200).exceeded(never.iter()), None);
    }
}

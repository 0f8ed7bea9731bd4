//! What one transaction holds, and when too much of it is dead letters.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::record::{Buried, Epoch, Offset, Outcome, Partition};

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
    /// What its records and outcomes take in memory, bytes.
    pub(super) memory: Memory,
}

/// What is in memory for a lane's batches, bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Memory {
    pub(super) items: u64,
    pub(super) outcomes: u64,
}

/// A batch whose rows all have their outcome.
pub(super) type Ready<T, O> = (Arc<Batch<T>>, Vec<Outcome<O>>);

/// Makes a transaction of `ready` batches; `None` when nothing of them is ours any more.
pub(super) fn transaction<T, O>(
    id: u64,
    ready: Vec<Ready<T, O>>,
    memory: Memory,
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
    Some((Transaction { id, batches, next }, Covered { id, partitions, memory }))
}

/// Too many of the last records are dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flood {
    /// Dead letters in the window.
    pub dead: usize,
    /// Records in the window.
    pub records: usize,
    /// The newest of the dead letters, the newest last.
    pub newest: Vec<Buried>,
}

/// The share of dead letters over the last records: of the last `window` of them, and before there are so many, of all
/// since the start, from [`DeadRatio::FEWEST`] on.
#[derive(Debug)]
pub(super) struct DeadRatio {
    max_ratio: f64,
    window: usize,
    dead: VecDeque<bool>,
    count: usize,
    newest: VecDeque<Buried>,
}

impl DeadRatio {
    /// Judged from so many records on: one broken record at the start is no flood.
    const FEWEST: usize = 100;

    /// So many of the newest dead letters are named.
    const NAMED: usize = 3;

    pub(super) fn new(max_ratio: f64, window: usize) -> Self {
        let (dead, newest) = (VecDeque::new(), VecDeque::new());
        Self { max_ratio, window: window.max(1), dead, count: 0, newest }
    }

    /// Takes outcomes in; says the dead letters and records of the window if they are too many.
    pub(super) fn exceeded<'a, O: 'a>(
        &mut self,
        outcomes: impl Iterator<Item = (Partition, Offset, &'a Outcome<O>)>,
    ) -> Option<Flood> {
        for (partition, offset, outcome) in outcomes {
            let dead = if let Outcome::DeadLetter(fault) = outcome {
                self.name((partition, offset, fault.clone()));
                true
            } else {
                false
            };
            self.count += usize::from(dead);
            self.dead.push_back(dead);
            if self.window < self.dead.len() && self.dead.pop_front() == Some(true) {
                self.count -= 1;
            }
        }
        self.judge()
    }

    /// Records that were taken in as predictions have become dead letters.
    pub(super) fn bury(&mut self, buried: Vec<Buried>) -> Option<Flood> {
        if buried.is_empty() {
            return None;
        }
        let good = self.dead.iter_mut().rev().filter(|dead| !**dead);
        let mut turned = 0;
        good.take(buried.len()).for_each(|dead| {
            *dead = true;
            turned += 1;
        });
        self.count += turned;
        buried.into_iter().for_each(|dead| self.name(dead));
        self.judge()
    }

    fn name(&mut self, dead: Buried) {
        if self.newest.len() == Self::NAMED {
            self.newest.pop_front();
        }
        self.newest.push_back(dead);
    }

    fn judge(&self) -> Option<Flood> {
        let records = self.dead.len();
        let enough = Self::FEWEST.min(self.window) <= records;
        #[expect(clippy::cast_precision_loss, reason = "a window is far below 2^52 records")]
        let ratio = self.count as f64 / records.max(1) as f64;
        (enough && self.max_ratio < ratio).then(|| Flood {
            dead: self.count,
            records,
            newest: self.newest.iter().cloned().collect(),
        })
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
        let place = Partition { topic: 0, number: 3 };
        let mut offset = 0;
        let mut take = |ratio: &mut DeadRatio, outcomes: Vec<Outcome<()>>| {
            let first = offset;
            offset += i64::try_from(outcomes.len()).unwrap();
            let placed = (first..).zip(&outcomes).map(|(at, outcome)| (place, Offset(at), outcome));
            ratio.exceeded(placed)
        };
        let many = |count, outcome: fn() -> Outcome<()>| (0..count).map(|_| outcome()).collect();
        let mut ratio = DeadRatio::new(0.5, 200);
        assert_eq!(take(&mut ratio, many(99, dead)), None, "too few to judge");
        let flood = take(&mut ratio, many(1, dead)).unwrap();
        assert_eq!((flood.dead, flood.records), (100, 100));
        let newest: Vec<i64> = flood.newest.iter().map(|(_, offset, _)| offset.0).collect();
        assert_eq!(newest, [97, 98, 99], "the newest three, the newest last");
        assert_eq!(take(&mut ratio, many(100, good)), None, "half of them is not above half");
        assert_eq!(take(&mut ratio, many(1, good)), None, "old ones leave the window");
        assert_eq!(take(&mut DeadRatio::new(1.0, 200), many(500, dead)), None);
    }
}

//! What a feed and a sink know of the partitions that are ours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::Transaction;
use super::message::Notes;
use super::note::Note;
use crate::record::{Epoch, Offset, Partition};

/// A partition that is being read.
#[derive(Debug, Clone)]
pub struct Held {
    /// The epoch that it is read under.
    pub epoch: Epoch,
    /// The offset behind what is committed.
    pub committed: Offset,
    /// What the next commit carries forward.
    pub note: Note,
}

/// The partitions that are being read: the feed takes them in and out, the sink asks before each commit, and keeps what
/// it committed.
#[derive(Debug, Default)]
pub struct Ownership(RwLock<BTreeMap<Partition, Held>>);

impl Ownership {
    /// All of it, to look at.
    pub fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Partition, Held>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of it, to change.
    pub fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Partition, Held>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether records of this epoch are being read and may be committed.
    pub fn holds(&self, partition: Partition, epoch: Epoch) -> bool {
        self.read().get(&partition).is_some_and(|held| held.epoch == epoch)
    }

    /// Leaves out of a transaction what is not ours any more. False when nothing is left.
    pub fn keep(&self, transaction: &mut Transaction) -> bool {
        transaction.next.retain(|partition, (epoch, _)| self.holds(*partition, *epoch));
        for finished in &mut transaction.batches {
            finished.rows.retain(|row| self.holds(row.record.partition, row.epoch));
        }
        transaction.batches.retain(|finished| !finished.rows.is_empty());
        !transaction.next.is_empty()
    }

    /// What the commits of these partitions carry forward.
    pub fn notes<'a>(&self, of: impl Iterator<Item = &'a Partition>) -> Notes {
        let held = self.read();
        of.filter_map(|p| Some((*p, held.get(p)?.note.clone()))).collect()
    }

    /// Remembers what is committed: offsets, and the version that answered last where it answered records.
    pub fn commit(&self, transaction: &Transaction) {
        let model = transaction.batches.first().map(|batch| &*batch.info.model);
        let rows = transaction.batches.iter().flat_map(|batch| &batch.rows);
        let answered: BTreeSet<Partition> = rows.map(|row| row.record.partition).collect();
        let mut held = self.write();
        for (partition, (epoch, next)) in &transaction.next {
            let Some(held) = held.get_mut(partition).filter(|held| held.epoch == *epoch) else {
                continue;
            };
            held.committed = *next;
            if let Some(model) = model.filter(|_| answered.contains(partition)) {
                held.note = held.note.clone().answered(model);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::log::{BatchInfo, Finished, Row};
    use crate::record::{ModelId, Outcome, Reason, Record, Version};

    const A: Partition = Partition { topic: 0, number: 0 };
    const B: Partition = Partition { topic: 0, number: 1 };
    const C: Partition = Partition { topic: 1, number: 0 };

    fn row(partition: Partition, epoch: u64) -> Row {
        let record = Record::of_value(partition, Offset(4), None);
        Row {
            record: Arc::new(record),
            epoch: Epoch(epoch),
            outcome: Outcome::Tombstone,
            parent: None,
        }
    }

    #[test]
    fn what_was_taken_away_is_left_out_and_the_rest_is_remembered() {
        let owned = Ownership::default();
        for (partition, epoch) in [(A, 1), (B, 7), (C, 3)] {
            let note = Note::of_a_first_start(2, Offset(4));
            let held = Held { epoch: Epoch(epoch), committed: Offset(4), note };
            owned.write().insert(partition, held);
        }
        let model = ModelId { name: "m".into(), version: Version(3), digest: "sha256:ab".into() };
        let info = BatchInfo {
            id: uuid::Uuid::now_v7(),
            model: Arc::new(model.clone()),
            signature: Arc::default(),
            part_of: None,
            reason: Reason::Time,
            bytes: 0,
            tokens: 0,
            inference: Duration::ZERO,
        };
        // B was given back and taken again since; of C only control records are passed.
        let rows = vec![row(A, 1), row(B, 6), row(A, 1)];
        let next = [(A, 1), (B, 6), (C, 3)];
        let next = next.map(|(partition, epoch)| (partition, (Epoch(epoch), Offset(9))));
        let only_b = Finished { info: info.clone(), rows: vec![row(B, 6)] };
        let batches = vec![only_b, Finished { info, rows }];
        let mut transaction = Transaction { id: 1, batches, next: next.into() };
        assert!(owned.keep(&mut transaction));
        assert_eq!(transaction.next.keys().collect::<Vec<_>>(), [&A, &C]);
        assert_eq!(transaction.batches.len(), 1);
        assert_eq!(transaction.batches[0].rows.len(), 2);
        owned.commit(&transaction);
        let committed = |partition| owned.read()[&partition].committed.0;
        assert_eq!([A, B, C].map(committed), [9, 4, 9]);
        let answered = |partition| owned.read()[&partition].note.is_of(&model);
        assert_eq!([A, B, C].map(answered), [true, false, false]);
        owned.write().clear();
        assert!(!owned.keep(&mut transaction), "nothing is ours any more");
    }
}

//! What a feed and a sink know of the partitions that are ours.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::Transaction;
use super::message::Notes;
use super::note::Note;
use crate::record::{Epoch, ModelId, Offset, Partition};

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

    /// Remembers a commit: the offset, and the model whose records it covers, if any.
    pub fn commit(
        &self,
        partition: Partition,
        epoch: Epoch,
        next: Offset,
        model: Option<&ModelId>,
    ) {
        let mut held = self.write();
        let Some(held) = held.get_mut(&partition).filter(|held| held.epoch == epoch) else {
            return;
        };
        held.committed = next;
        if let Some(model) = model {
            held.note = held.note.clone().answered(model);
        }
    }
}

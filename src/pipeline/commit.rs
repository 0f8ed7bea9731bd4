//! When what is ready is committed, and what becomes of the answer.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::record::{Offset, Partition};

use super::infer::Running;
use super::publish::{self, Covered, Memory, Transaction};
use super::{Effect, Lane, Pipeline, Stop};

impl<T, O> Pipeline<T, O> {
    /// When the lane's finished batches have waited long enough; `None` while they cannot be committed.
    pub(super) fn commit_due(&self, lane: &Lane<T, O>) -> Option<Instant> {
        let (_, ready) = lane.running.front()?;
        let free = lane.committing.is_none();
        ready.filter(|_| free).map(|ready| ready + self.limits.commit_wait)
    }

    /// How many batches at the front of a lane are ready, of one version, and within a transaction's share of memory;
    /// and whether more would be too many.
    fn ready(&self, lane: &Lane<T, O>) -> (usize, bool) {
        let version = lane.running.front().map(|(running, _)| running.batch.version);
        let most = self.limits.outcome_bytes / u64::try_from(self.lanes.len() * 2).unwrap_or(1);
        let (mut count, mut bytes) = (0, 0);
        for (running, _) in &lane.running {
            if !running.is_ready() || Some(running.batch.version) != version {
                return (count, false);
            }
            bytes += running.bytes;
            if count == self.limits.commit_batches.max(1) || (count != 0 && most < bytes) {
                return (count, true);
            }
            count += 1;
        }
        (count, count == self.limits.commit_batches.max(1))
    }

    pub(super) fn commit(&mut self, now: Instant, effects: &mut Vec<Effect<T, O>>) {
        for index in 0..self.lanes.len() {
            while let Some(due) = self.commit_due(&self.lanes[index]) {
                let (ready, full) = self.ready(&self.lanes[index]);
                if now < due && !full && !self.closing && self.releasing.is_empty() {
                    break;
                }
                if !self.commit_ready(index, ready, effects) {
                    return;
                }
            }
            self.commit_tails(index, now, effects);
        }
    }

    /// Commits the first `ready` batches of a lane; false when the service stops instead.
    fn commit_ready(
        &mut self,
        index: usize,
        ready: usize,
        effects: &mut Vec<Effect<T, O>>,
    ) -> bool {
        let lane = &mut self.lanes[index];
        let ready: Vec<Running<T, O>> =
            lane.running.drain(..ready).map(|(running, _)| running).collect();
        let memory = Memory {
            items: ready.iter().map(|running| running.batch.memory).sum(),
            outcomes: ready.iter().map(|running| running.bytes).sum(),
        };
        let batches = ready.into_iter().map(Running::into_outcomes).collect();
        let id = self.next_number;
        self.next_number += 1;
        let Some((transaction, covered)) = publish::transaction(id, batches, memory, &self.owned)
        else {
            self.flight -= memory.items;
            return true;
        };
        let rows = transaction.batches.iter().flat_map(|finished| {
            let place = |row: usize| &finished.batch.items[row];
            let rows = finished.rows.iter();
            rows.map(move |(row, o)| (place(*row).partition, place(*row).offset, o))
        });
        if let Some(flood) = self.dead.exceeded(rows) {
            self.stop(Stop::DeadLetters(flood), effects);
            return false;
        }
        lane.committing = Some(covered);
        effects.push(Effect::Commit(index, transaction));
        true
    }

    /// Moves offsets past control records when a lane has nothing else to do.
    fn commit_tails(&mut self, index: usize, now: Instant, effects: &mut Vec<Effect<T, O>>) {
        let tails: Vec<_> = self.owned.tails().filter(|t| self.lane_of(t.0) == index).collect();
        let lane = &mut self.lanes[index];
        if tails.is_empty() || lane.committing.is_some() || !lane.running.is_empty() {
            lane.tail_after = None;
            return;
        }
        let after = *lane.tail_after.get_or_insert(now + self.limits.tail_every);
        if now < after && !self.closing {
            return;
        }
        lane.tail_after = None;
        let id = self.next_number;
        self.next_number += 1;
        let partitions = tails.iter().map(|(p, epoch, _)| (*p, (*epoch, 0))).collect();
        lane.committing = Some(Covered { id, partitions, memory: Memory::default() });
        let next = tails.into_iter().map(|(p, epoch, end)| (p, (epoch, end))).collect();
        effects.push(Effect::Commit(index, Transaction { id, batches: Vec::new(), next }));
    }

    /// Takes the answer to a transaction in.
    pub(super) fn committed(
        &mut self,
        lane: usize,
        id: u64,
        committed: &BTreeMap<Partition, Offset>,
        fits: Option<usize>,
    ) {
        let lane = &mut self.lanes[lane];
        let Some(covered) = lane.committing.take_if(|covered| covered.id == id) else {
            return;
        };
        self.flight -= covered.memory.items;
        match fits {
            Some(records) => lane.batcher.limit_records(records),
            None => lane.batcher.grow_records(),
        }
        for (partition, (epoch, rows)) in covered.partitions {
            if let Some(next) = committed.get(&partition) {
                self.owned.committed(partition, epoch, *next, rows);
            }
        }
    }
}

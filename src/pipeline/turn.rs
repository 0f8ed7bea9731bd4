//! Whose turn it is: which lane's next batch goes into the model, and when none does.

use std::sync::Arc;
use std::time::Instant;

use super::infer::Running;
use super::{Batch, Effect, Lane, Pipeline};
use crate::record::Reason;

impl<T, O> Pipeline<T, O> {
    /// Whether a lane's inference is so far ahead of its commits that it has to wait for them: otherwise a cheap
    /// model would answer all that was read ahead, a stop would have to commit it, and long answers would fill the
    /// memory.
    pub(super) fn is_ahead(&self, lane: &Lane<T, O>) -> bool {
        let share = self.limits.outcome_bytes / u64::try_from(self.lanes.len()).unwrap_or(1);
        let waits = !lane.running.is_empty() || lane.committing.is_some();
        self.limits.commit_batches + self.limits.slots <= lane.running.len()
            || (waits && share <= lane.outcome_bytes())
    }

    fn in_model(&self) -> impl Iterator<Item = &Running<T, O>> {
        let running = self.lanes.iter().flat_map(|lane| &lane.running);
        running.map(|(running, _)| running).filter(|running| !running.is_ready())
    }

    pub(super) fn free_slots(&self) -> usize {
        let alone = |running: &Running<T, O>| running.batch.is_alone();
        if self.in_model().any(alone) {
            return 0;
        }
        self.limits.slots.saturating_sub(self.in_model().count())
    }

    pub(super) fn cut(&mut self, now: Instant, effects: &mut Vec<Effect<T, O>>) {
        if self.paused {
            return;
        }
        let lanes = self.lanes.len();
        self.make_room();
        loop {
            let free = self.free_slots();
            if free == 0 {
                return;
            }
            let quiet = free == self.limits.slots;
            let turns = (self.turn..lanes).chain(0..self.turn);
            let open: Vec<usize> =
                turns.filter(|lane| !self.is_ahead(&self.lanes[*lane])).collect();
            // Suspects wait until nothing else is in the model, and nothing else may overtake them.
            let suspects = open.iter().find(|lane| self.lanes[**lane].batcher.alone().is_some());
            let candidates = match suspects {
                Some(_) if !quiet => return,
                Some(lane) => vec![*lane],
                None => open,
            };
            if !candidates.into_iter().any(|lane| self.cut_one(lane, now, quiet, effects)) {
                return;
            }
        }
    }

    /// Where the memory is full of records that wait for company, none can come: they leave.
    fn make_room(&mut self) {
        let busy = self.lanes.iter().any(|l| !l.running.is_empty() || l.committing.is_some());
        if !busy && self.is_full() {
            self.lanes.iter_mut().for_each(|lane| lane.batcher.flush(Reason::Bytes));
        }
    }

    /// Cuts a batch of this lane, if one is ready. The next turn is the next lane's.
    fn cut_one(
        &mut self,
        index: usize,
        now: Instant,
        idle: bool,
        effects: &mut Vec<Effect<T, O>>,
    ) -> bool {
        let lane = &mut self.lanes[index];
        let Some(cut) = lane.batcher.poll(now, idle) else {
            return false;
        };
        let version = lane.slot.serving();
        if lane.slot.is_staged() {
            lane.slot.at_boundary();
            if !self.closing {
                lane.batcher.unflush();
            }
        }
        self.flight += cut.memory;
        let number = self.next_number;
        self.next_number += 1;
        self.turn = (index + 1) % self.lanes.len();
        let batch = Arc::new(Batch::new(number, index, version, cut, now));
        let rows = (0..batch.items.len()).collect();
        self.lanes[index].running.push_back((Running::new(Arc::clone(&batch)), None));
        effects.push(Effect::Infer(batch, rows));
        // A partition may have waited for the boundary that this was.
        self.open(now, effects);
        true
    }
}

//! The service as a function: events in, effects out.
//!
//! ```text
//!  Arrived ─► arrive ─► batch ─► Infer ┄┄► Inferred ─► publish ─► Commit ┄┄► Committed
//!             ours?     closed?            halve?       in order             what is done
//!   ┄┄► is the outside: the engine carries an effect out and reports back with an event.
//! ```
//!
//! Nothing here reads a clock, waits, logs, or knows Kafka. Records and outcomes are opaque: the core is
//! the same for real payloads and for the numbers of a simulation.
//!
//! A batch belongs to one *lane*, as its partitions do. Lanes share the workers and nothing else.
//! A crash needs no code: the pipeline is dropped, reading starts at the committed offsets, a new one is made.
//!
//! # Invariants
//!
//! 1. Each record that is let in leaves in exactly one transaction, in offset order within its partition,
//!    unless its partition is taken away first.
//! 2. A committed offset is one past a record with an outcome, or past control records behind it.
//! 3. A batch and a transaction have one version; a lane changes its version only between two batches.
//! 4. At most one transaction a lane is outstanding; a lane's batches are committed in the order they were cut.
//! 5. `Release` follows the answer to every transaction that holds a partition of the revocation.
//! 6. At most `slots` batches are in the model, and a lane is at most as many batches ahead of its commits as a
//!    transaction takes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::Refused;
use crate::record::{Epoch, Offset, Outcome, Partition, Reason, Version};

pub mod arrive;
pub mod batch;
mod infer;
pub mod publish;
pub mod size;
pub mod verdict;

use arrive::{Assigned, Owned};
use batch::Batcher;
use infer::{Next, Running, Slot};
use publish::{Covered, DeadRatio, Transaction};

/// One record, by where it came from and what it costs.
#[derive(Debug, Clone)]
pub struct Item<T> {
    /// The partition it was read from.
    pub partition: Partition,
    /// The partition's epoch when it was read.
    pub epoch: Epoch,
    /// Its offset there.
    pub offset: Offset,
    /// Payload bytes.
    pub bytes: u64,
    /// What it costs the model.
    pub tokens: u64,
    /// The record itself; the core never looks at it.
    pub payload: T,
}

/// Records that go through the model together.
#[derive(Debug)]
pub struct Batch<T> {
    /// Counts up over all lanes.
    pub number: u64,
    /// The lane that commits it.
    pub lane: usize,
    /// The version that answers it.
    pub version: Version,
    /// The version before, if this is the lane's first batch after a swap.
    pub swapped_from: Option<Version>,
    /// Why it was closed.
    pub reason: Reason,
    /// How long its first record had waited when it was closed.
    pub waited: Duration,
    /// The records, in the order they arrived.
    pub items: Vec<Item<T>>,
}

/// What bounds the pipeline.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// What closes a batch.
    pub batch: batch::Limits,
    /// Transactional producers.
    pub lanes: usize,
    /// Most batches in the model at once: one that runs, one that is ready to.
    pub slots: usize,
    /// Most payload bytes from arrival to commit; above it nothing more is taken in.
    pub buffer_bytes: u64,
    /// How long a finished batch waits for others to share its transaction.
    pub commit_wait: Duration,
    /// Most batches in a transaction.
    pub commit_batches: usize,
    /// How often a partition's offset may move past control records alone.
    pub tail_every: Duration,
    /// Largest share of dead letters.
    pub max_dead_ratio: f64,
    /// Over how many of the last records.
    pub dead_window: usize,
}

/// What has happened outside.
#[derive(Debug)]
pub enum Event<T, O> {
    /// These partitions are ours.
    Assigned(Vec<Assigned>),
    /// These are not any more. Answered by [`Effect::Release`].
    Revoked {
        /// Which.
        partitions: Vec<Partition>,
        /// Whether they may belong to another member already: nothing is waited for.
        lost: bool,
        /// Comes back in `Release`.
        ticket: u64,
    },
    /// Records were read.
    Arrived(Vec<Item<T>>),
    /// Everything of a partition below the offset was read.
    End(Partition, Epoch, Offset),
    /// The model answered rows of a batch, or refused them.
    Inferred {
        /// [`Batch::number`].
        batch: u64,
        /// As in [`Effect::Infer`].
        rows: Range<usize>,
        /// An outcome for each row, in order.
        answer: Result<Vec<Outcome<O>>, Refused>,
    },
    /// A transaction was answered. Partitions lost meanwhile are missing from `committed`.
    Committed {
        /// The lane.
        lane: usize,
        /// [`Transaction::id`].
        id: u64,
        /// The committed offsets.
        committed: BTreeMap<Partition, Offset>,
    },
    /// A version is loaded and warm.
    Staged(Version),
    /// So many tokens close a batch from now on.
    Limit(u64),
    /// Time has passed.
    Tick,
    /// No more records will be taken; what waits leaves.
    Close,
}

/// What the engine is to do.
#[derive(Debug)]
pub enum Effect<T, O> {
    /// Run these rows of a batch. Answered by [`Event::Inferred`].
    Infer(Arc<Batch<T>>, Range<usize>),
    /// Commit on this lane. Answered by [`Event::Committed`].
    Commit(usize, Transaction<T, O>),
    /// The revocation of this ticket may go on.
    Release(u64),
    /// No batch will need this version again.
    Retire(Version),
    /// The service must stop: the dead letters are too many, or the model cannot go on.
    Stop(Stop),
}

/// Why the core stops. It does nothing more afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Stay up, unready, without committing: an operator decides.
    DeadLetters {
        /// Dead letters in the window.
        dead: usize,
        /// Records in the window.
        records: usize,
    },
    /// Exit; the next start reads the records again.
    Model(String),
}

struct Lane<T, O> {
    batcher: Batcher<T>,
    slot: Slot,
    /// Batches in the model or ready, in the order they were cut, with the time they became ready.
    running: VecDeque<(Running<T, O>, Option<Instant>)>,
    committing: Option<Covered>,
    tail_after: Option<Instant>,
}

/// Everything the service remembers between two restarts.
pub struct Pipeline<T, O> {
    limits: Limits,
    owned: Owned,
    lanes: Vec<Lane<T, O>>,
    /// Bytes of batches that are cut and not yet committed.
    flight_bytes: u64,
    /// Revocations that wait: ticket and partitions.
    releasing: Vec<(u64, BTreeSet<Partition>)>,
    versions: BTreeSet<Version>,
    dead: DeadRatio,
    next_number: u64,
    closing: bool,
    stopped: bool,
}

impl<T, O> std::fmt::Debug for Pipeline<T, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("owned", &self.owned).finish_non_exhaustive()
    }
}

impl<T, O> Pipeline<T, O> {
    /// A pipeline with nothing in it that begins with `serving`.
    pub fn new(limits: Limits, serving: Version) -> Self {
        let lane = |_| Lane {
            batcher: Batcher::new(limits.batch),
            slot: Slot::new(serving),
            running: VecDeque::new(),
            committing: None,
            tail_after: None,
        };
        Self {
            limits,
            owned: Owned::default(),
            lanes: (0..limits.lanes.max(1)).map(lane).collect(),
            flight_bytes: 0,
            releasing: Vec::new(),
            versions: BTreeSet::from([serving]),
            dead: DeadRatio::new(limits.max_dead_ratio, limits.dead_window),
            next_number: 0,
            closing: false,
            stopped: false,
        }
    }

    /// Takes in one event at `now` and writes what is to be done, in order.
    pub fn handle(&mut self, event: Event<T, O>, now: Instant, effects: &mut Vec<Effect<T, O>>) {
        if self.stopped {
            self.handle_stopped(event, effects);
            return;
        }
        match event {
            Event::Assigned(assigned) => {
                assigned.into_iter().for_each(|assigned| self.owned.assign(assigned));
            }
            Event::Revoked { partitions, lost, ticket } => {
                self.revoke(partitions, lost, ticket);
            }
            Event::Arrived(items) => self.arrive(items, now),
            Event::End(partition, epoch, next) => self.owned.end(partition, epoch, next),
            Event::Inferred { batch, rows, answer } => {
                self.inferred(batch, rows, answer, now, effects);
            }
            Event::Committed { lane, id, committed } => self.committed(lane, id, &committed),
            Event::Staged(version) => self.stage(version),
            Event::Limit(tokens) => {
                self.lanes.iter_mut().for_each(|lane| lane.batcher.limit_tokens(tokens));
            }
            Event::Tick => (),
            Event::Close => {
                self.closing = true;
                self.lanes.iter_mut().for_each(|lane| lane.batcher.finish());
            }
        }
        self.release(effects);
        self.cut(now, effects);
        self.commit(now, effects);
        self.retire(effects);
    }

    /// When [`Event::Tick`] is due; `None` while there is nothing to wait for.
    pub fn deadline(&self) -> Option<Instant> {
        let free = self.free_slots() != 0;
        let open = self.lanes.iter().filter(|lane| free && !self.is_ahead(lane));
        let batch = open.filter_map(|lane| lane.batcher.deadline());
        let commit = self.lanes.iter().filter_map(|lane| self.commit_due(lane));
        let tails = self.lanes.iter().filter_map(|lane| lane.tail_after);
        batch.chain(commit).chain(tails).min()
    }

    /// Whether more records may be taken in.
    pub fn has_room(&self) -> bool {
        let waiting: u64 = self.lanes.iter().map(|lane| lane.batcher.bytes()).sum();
        !self.closing && !self.stopped && waiting + self.flight_bytes < self.limits.buffer_bytes
    }

    /// Whether nothing waits, runs or is being committed.
    pub fn is_drained(&self) -> bool {
        self.lanes.iter().all(|lane| {
            lane.batcher.is_empty() && lane.running.is_empty() && lane.committing.is_none()
        })
    }

    /// Whether every partition that is ours is committed up to its `until`.
    pub fn reached_ends(&self) -> bool {
        self.owned.reached_ends()
    }

    /// The partitions that are ours.
    pub fn owned(&self) -> &Owned {
        &self.owned
    }

    /// The lane that commits a partition: fixed, so that its offsets are committed in order.
    pub fn lane_of(&self, partition: Partition) -> usize {
        let number = usize::try_from(partition.number).unwrap_or(0);
        (usize::from(partition.topic) + number) % self.lanes.len()
    }

    /// Stopped: only revocations are answered, so that the group can go on without us.
    fn handle_stopped(&mut self, event: Event<T, O>, effects: &mut Vec<Effect<T, O>>) {
        match event {
            Event::Revoked { partitions, lost, ticket } => self.revoke(partitions, lost, ticket),
            Event::Committed { lane, id, committed } => self.committed(lane, id, &committed),
            Event::Assigned(_)
            | Event::Arrived(_)
            | Event::End(..)
            | Event::Inferred { .. }
            | Event::Staged(_)
            | Event::Limit(_)
            | Event::Tick
            | Event::Close => (),
        }
        self.release(effects);
    }

    fn arrive(&mut self, items: Vec<Item<T>>, now: Instant) {
        for item in items {
            let lane = self.lane_of(item.partition);
            // Let in even when it is not taken any more: no offset is committed beyond it.
            if self.owned.arrive(item.partition, item.epoch, item.offset) && !self.closing {
                self.lanes[lane].batcher.push(item, now);
            }
        }
    }

    fn revoke(&mut self, partitions: Vec<Partition>, lost: bool, ticket: u64) {
        for partition in &partitions {
            self.owned.revoke(*partition);
        }
        let owned = &self.owned;
        for lane in &mut self.lanes {
            lane.batcher.retain(|item| owned.holds(item.partition, item.epoch));
            lane.batcher.flush(Reason::Rebalance);
        }
        let waits_for = if lost { BTreeSet::new() } else { partitions.into_iter().collect() };
        self.releasing.push((ticket, waits_for));
    }

    fn release(&mut self, effects: &mut Vec<Effect<T, O>>) {
        let lanes = &self.lanes;
        self.releasing.retain(|(ticket, partitions)| {
            let held = lanes.iter().filter_map(|lane| lane.committing.as_ref()).any(|covered| {
                covered.partitions.keys().any(|partition| partitions.contains(partition))
            });
            if !held {
                effects.push(Effect::Release(*ticket));
            }
            held
        });
    }

    fn stage(&mut self, version: Version) {
        self.versions.insert(version);
        for lane in &mut self.lanes {
            lane.slot.stage(version);
            if !lane.slot.is_staged() {
                continue;
            }
            if lane.batcher.is_empty() {
                lane.slot.at_boundary();
            } else {
                lane.batcher.flush(Reason::Swap);
            }
        }
    }

    /// Whether a lane's inference is so far ahead of its commits that it has to wait for them: otherwise a cheap
    /// model would answer all that was read ahead, and a stop would have to commit it.
    fn is_ahead(&self, lane: &Lane<T, O>) -> bool {
        self.limits.commit_batches + self.limits.slots <= lane.running.len()
    }

    fn free_slots(&self) -> usize {
        let in_model = |lane: &Lane<T, O>| {
            lane.running.iter().filter(|(running, _)| !running.is_ready()).count()
        };
        self.limits.slots.saturating_sub(self.lanes.iter().map(in_model).sum())
    }

    fn cut(&mut self, now: Instant, effects: &mut Vec<Effect<T, O>>) {
        let mut free = self.free_slots();
        let lanes = self.lanes.len();
        // The lane after the one that was served last comes first, so that none starves.
        let first = usize::try_from(self.next_number).unwrap_or(0) % lanes;
        for index in (first..lanes).chain(0..first) {
            while free != 0 && !self.is_ahead(&self.lanes[index]) {
                let lane = &mut self.lanes[index];
                let idle = free == self.limits.slots;
                let waited = lane.batcher.waited(now);
                let Some((items, reason)) = lane.batcher.poll(now, idle) else {
                    break;
                };
                let (version, swapped_from) = lane.slot.pin();
                if lane.slot.is_staged() {
                    lane.slot.at_boundary();
                    if !self.closing {
                        lane.batcher.unflush();
                    }
                }
                self.flight_bytes += items.iter().map(|item| item.bytes).sum::<u64>();
                let number = self.next_number;
                self.next_number += 1;
                let batch =
                    Batch { number, lane: index, version, swapped_from, reason, waited, items };
                let batch = Arc::new(batch);
                let rows = 0..batch.items.len();
                lane.running.push_back((Running::new(Arc::clone(&batch)), None));
                effects.push(Effect::Infer(batch, rows));
                free -= 1;
            }
        }
    }

    fn inferred(
        &mut self,
        number: u64,
        rows: Range<usize>,
        answer: Result<Vec<Outcome<O>>, Refused>,
        now: Instant,
        effects: &mut Vec<Effect<T, O>>,
    ) {
        let found = self.lanes.iter_mut().find_map(|lane| {
            let at = lane.running.iter().position(|(running, _)| running.batch.number == number)?;
            Some((lane, at))
        });
        let Some((lane, at)) = found else {
            return;
        };
        let (running, ready) = &mut lane.running[at];
        let again = match running.answer(rows, answer) {
            Next::Run(ranges) => ranges,
            Next::RunSmaller(ranges, tokens) => {
                lane.batcher.lower_ceiling(tokens);
                ranges
            }
            Next::Exit(message) => {
                self.stop(Stop::Model(message), effects);
                return;
            }
        };
        for range in again {
            effects.push(Effect::Infer(Arc::clone(&running.batch), range));
        }
        if running.is_ready() {
            *ready = Some(now);
        }
    }

    /// When the lane's finished batches have waited long enough; `None` while they cannot be committed.
    fn commit_due(&self, lane: &Lane<T, O>) -> Option<Instant> {
        let (_, ready) = lane.running.front()?;
        let free = lane.committing.is_none();
        ready.filter(|_| free).map(|ready| ready + self.limits.commit_wait)
    }

    /// How many batches at the front of a lane are ready and of one version.
    fn ready(&self, lane: &Lane<T, O>) -> usize {
        let version = lane.running.front().map(|(running, _)| running.batch.version);
        let ready = lane.running.iter().take_while(|(running, _)| {
            running.is_ready() && Some(running.batch.version) == version
        });
        ready.take(self.limits.commit_batches.max(1)).count()
    }

    fn commit(&mut self, now: Instant, effects: &mut Vec<Effect<T, O>>) {
        for index in 0..self.lanes.len() {
            while let Some(due) = self.commit_due(&self.lanes[index]) {
                let ready = self.ready(&self.lanes[index]);
                let full = ready == self.limits.commit_batches.max(1);
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
        let batches: Vec<_> =
            lane.running.drain(..ready).map(|(running, _)| running.into_outcomes()).collect();
        let bytes = batches.iter().flat_map(|(batch, _)| &batch.items).map(|item| item.bytes);
        self.flight_bytes -= bytes.sum::<u64>();
        let id = self.next_number;
        self.next_number += 1;
        let Some((transaction, covered)) = publish::transaction(id, batches, &self.owned) else {
            return true;
        };
        let rows = transaction.batches.iter().flat_map(|finished| &finished.rows);
        if let Some((dead, records)) = self.dead.exceeded(rows.map(|(_, outcome)| outcome)) {
            self.stop(Stop::DeadLetters { dead, records }, effects);
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
        lane.committing = Some(Covered { id, partitions });
        let next = tails.into_iter().map(|(p, epoch, end)| (p, (epoch, end))).collect();
        effects.push(Effect::Commit(index, Transaction { id, batches: Vec::new(), next }));
    }

    fn committed(&mut self, lane: usize, id: u64, committed: &BTreeMap<Partition, Offset>) {
        let Some(covered) = self.lanes[lane].committing.take_if(|covered| covered.id == id) else {
            return;
        };
        for (partition, (epoch, rows)) in covered.partitions {
            if let Some(next) = committed.get(&partition) {
                self.owned.committed(partition, epoch, *next, rows);
            }
        }
    }

    fn retire(&mut self, effects: &mut Vec<Effect<T, O>>) {
        if self.versions.len() < 2 {
            return;
        }
        let pinned: BTreeSet<Version> = self
            .lanes
            .iter()
            .flat_map(|lane| {
                let running = lane.running.iter().map(|(running, _)| running.batch.version);
                lane.slot.versions().chain(running)
            })
            .collect();
        self.versions.retain(|version| {
            let kept = pinned.contains(version);
            if !kept {
                effects.push(Effect::Retire(*version));
            }
            kept
        });
    }

    fn stop(&mut self, stop: Stop, effects: &mut Vec<Effect<T, O>>) {
        self.stopped = true;
        effects.push(Effect::Stop(stop));
    }
}

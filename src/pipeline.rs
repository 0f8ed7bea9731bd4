//! The service as a function: events in, effects out.
//!
//! ```text
//!  Assigned ─► takeover ─► Open ┄┄► Arrived ─► arrive ─► batch ─► Infer ┄┄► Inferred ─► publish ─► Commit ┄┄► Committed
//!              version?                       ours?     closed?            halve?       in order             what is done
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
//!    transaction takes, or as `outcome_bytes` hold.
//! 7. Lanes take turns: between two batches of a lane, every other lane that has one ready gets one.
//! 8. A partition is opened, and read, only while its lane serves the version that answered it last, or what the
//!    registry named after it was asked about that partition. So its answers follow the alias's history and never
//!    go back in it.
//! 9. A batch of suspects ([`Item::alone`]) is in the model by itself.
//! 10. In a pause nothing is taken in and no batch is cut; what was cut goes on to its commit, and revocations are answered.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::record::{Epoch, Offset, Partition, Reason, Version};

pub mod arrive;
pub mod batch;
mod commit;
mod event;
mod infer;
mod pause;
pub mod publish;
pub mod size;
mod takeover;
mod turn;
pub mod verdict;

use arrive::{Assigned, Entry, Owned};
use batch::{Batcher, Cut};
pub use event::{Effect, Event, Stop};
pub use infer::Part;
use infer::{Again, Running, Slot};
use publish::{Covered, DeadRatio};
use takeover::Held;

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
    /// Bytes of memory that it takes until it is committed, its outcome not counted.
    pub memory: u64,
    /// For a record that was in flight when the process died: in the model with at most so many others of its kind,
    /// and with nothing else.
    pub alone: Option<u32>,
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
    /// Why it was closed.
    pub reason: Reason,
    /// When its first record arrived.
    pub opened: Instant,
    /// Where the records of another moment begin, and when those arrived.
    pub arrivals: Vec<(usize, Instant)>,
    /// When it was closed.
    pub closed: Instant,
    /// Payload of its records, bytes.
    pub bytes: u64,
    /// What its records cost the model, tokens.
    pub tokens: u64,
    /// Memory that its records take until they are committed, bytes.
    pub memory: u64,
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
    /// Most memory of records from arrival to commit, bytes; above it nothing more is taken in.
    pub buffer_bytes: u64,
    /// Most memory of outcomes that are not committed, bytes, over all lanes; above it nothing more is inferred.
    pub outcome_bytes: u64,
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
    /// How long a partition is held back whose recorded version does not serve.
    pub takeover_wait: Duration,
}

impl<T> Batch<T> {
    /// What was cut at `closed`.
    pub fn new(number: u64, lane: usize, version: Version, cut: Cut<T>, closed: Instant) -> Self {
        let Cut { items, reason, opened, arrivals, bytes, tokens, memory } = cut;
        Self {
            number,
            lane,
            version,
            reason,
            opened,
            arrivals,
            closed,
            bytes,
            tokens,
            memory,
            items,
        }
    }

    /// Whether it is of suspects, and so in the model by itself.
    pub fn is_alone(&self) -> bool {
        self.items.first().is_some_and(|item| item.alone.is_some())
    }
}

struct Lane<T, O> {
    batcher: Batcher<T>,
    slot: Slot,
    /// Batches in the model or ready, in the order they were cut, with the time they became ready.
    running: VecDeque<(Running<T, O>, Option<Instant>)>,
    committing: Option<Covered>,
    tail_after: Option<Instant>,
}

impl<T, O> Lane<T, O> {
    /// Memory of outcomes that are not committed, bytes.
    fn outcome_bytes(&self) -> u64 {
        let running: u64 = self.running.iter().map(|(running, _)| running.bytes).sum();
        running + self.committing.as_ref().map_or(0, |covered| covered.memory.outcomes)
    }
}

/// Everything the service remembers between two restarts.
pub struct Pipeline<T, O> {
    limits: Limits,
    owned: Owned,
    held: Held,
    /// Questions to the registry so far.
    questions: u64,
    lanes: Vec<Lane<T, O>>,
    /// The lane whose turn it is.
    turn: usize,
    /// Memory of items that are cut and not yet committed, bytes.
    flight: u64,
    /// Revocations that wait: ticket and partitions.
    releasing: Vec<(u64, BTreeSet<Partition>)>,
    versions: BTreeSet<Version>,
    dead: DeadRatio,
    next_number: u64,
    paused: bool,
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
            held: Held::default(),
            questions: 0,
            lanes: (0..limits.lanes.max(1)).map(lane).collect(),
            turn: 0,
            flight: 0,
            releasing: Vec::new(),
            versions: BTreeSet::from([serving]),
            dead: DeadRatio::new(limits.max_dead_ratio, limits.dead_window),
            next_number: 0,
            paused: false,
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
            Event::Assigned(assigned) => self.assign(assigned, now, effects),
            Event::Named(question) => self.held.answered(question),
            Event::Revoked { partitions, lost, ticket } => {
                self.revoke(partitions, lost, ticket);
            }
            Event::Arrived(items) => self.arrive(items, now, effects),
            Event::End(end) => self.owned.end(end),
            Event::Inferred { batch, parts, bytes } => {
                self.inferred(batch, parts, bytes, now, effects);
            }
            Event::Committed { lane, id, committed, buried, fits } => {
                self.committed(lane, id, &committed, fits);
                if let Some(flood) = self.dead.bury(buried) {
                    self.stop(Stop::DeadLetters(flood), effects);
                    return;
                }
            }
            Event::Staged(version) => self.stage(version),
            Event::Limit(tokens) => {
                self.lanes.iter_mut().for_each(|lane| lane.batcher.limit_tokens(tokens));
            }
            Event::Tick => (),
            Event::Pause => self.paused = true,
            Event::Resume => self.resume(now),
            Event::Close => self.close(),
        }
        self.open(now, effects);
        self.release(effects);
        self.cut(now, effects);
        self.commit(now, effects);
        self.retire(effects);
    }

    /// When [`Event::Tick`] is due; `None` while there is nothing to wait for.
    pub fn deadline(&self) -> Option<Instant> {
        let free = self.free_slots() != 0 && !self.paused;
        let open = self.lanes.iter().filter(|lane| free && !self.is_ahead(lane));
        let batch = open.filter_map(|lane| lane.batcher.deadline());
        let commit = self.lanes.iter().filter_map(|lane| self.commit_due(lane));
        let tails = self.lanes.iter().filter_map(|lane| lane.tail_after);
        let held = self.held.deadline(self.limits.takeover_wait).filter(|_| !self.paused);
        batch.chain(commit).chain(tails).chain(held).min()
    }

    /// Whether more records may be taken in.
    pub fn has_room(&self) -> bool {
        !self.paused && !self.closing && !self.stopped && !self.is_full()
    }

    /// Whether nothing is taken in until [`Event::Resume`].
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    fn is_full(&self) -> bool {
        let waiting: u64 = self.lanes.iter().map(|lane| lane.batcher.memory()).sum();
        self.limits.buffer_bytes <= waiting + self.flight
    }

    /// Whether nothing waits, runs or is being committed.
    pub fn is_drained(&self) -> bool {
        self.lanes.iter().all(|lane| {
            lane.batcher.is_empty() && lane.running.is_empty() && lane.committing.is_none()
        })
    }

    /// The records that wait to go into the model and that nobody suspects.
    pub fn waiting(&self) -> impl Iterator<Item = &Item<T>> {
        let items = self.lanes.iter().flat_map(|lane| lane.batcher.waiting());
        items.filter(|item| item.alone.is_none())
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
        lane_of(partition, self.lanes.len())
    }

    /// Stopped: only revocations are answered, so that the group can go on without us.
    fn handle_stopped(&mut self, event: Event<T, O>, effects: &mut Vec<Effect<T, O>>) {
        match event {
            Event::Revoked { partitions, lost, ticket } => self.revoke(partitions, lost, ticket),
            Event::Committed { lane, id, committed, fits, .. } => {
                self.committed(lane, id, &committed, fits);
            }
            Event::Assigned(_)
            | Event::Named(_)
            | Event::Arrived(_)
            | Event::End(_)
            | Event::Inferred { .. }
            | Event::Staged(_)
            | Event::Limit(_)
            | Event::Pause
            | Event::Resume
            | Event::Tick
            | Event::Close => (),
        }
        self.release(effects);
    }

    /// Takes partitions in. One whose recorded version does not serve waits until the registry was asked.
    fn assign(&mut self, assigned: Vec<Assigned>, now: Instant, effects: &mut Vec<Effect<T, O>>) {
        let question = self.questions + 1;
        for assigned in assigned {
            let (partition, epoch) = (assigned.partition, assigned.epoch);
            let serving = self.lanes[self.lane_of(partition)].slot.serving();
            match assigned.recorded.filter(|recorded| *recorded != serving) {
                None => effects.push(Effect::Open(partition, epoch)),
                Some(recorded) => {
                    self.held.hold((partition, epoch), recorded, question, now);
                    if self.questions != question {
                        self.questions = question;
                        effects.push(Effect::Ask(question));
                    }
                }
            }
            self.owned.assign(assigned);
        }
    }

    /// Opens what was held back and may be read now; stops where something has waited too long.
    fn open(&mut self, now: Instant, effects: &mut Vec<Effect<T, O>>) {
        let lanes = &self.lanes;
        let slot = |partition| &lanes[lane_of(partition, lanes.len())].slot;
        let open = self.held.open(|p| (slot(p).serving(), slot(p).is_staged()));
        effects.extend(open.into_iter().map(|(partition, epoch)| Effect::Open(partition, epoch)));
        let expired = self.held.expired(self.limits.takeover_wait, now);
        if let Some((partition, recorded)) = expired.filter(|_| !self.closing && !self.paused) {
            let serving = self.lanes[self.lane_of(partition)].slot.serving();
            self.stop(Stop::Takeover { partition, recorded, serving }, effects);
        }
    }

    fn arrive(&mut self, items: Vec<Item<T>>, now: Instant, effects: &mut Vec<Effect<T, O>>) {
        for item in items {
            let (partition, offset) = (item.partition, item.offset);
            let lane = self.lane_of(partition);
            match self.owned.arrive(partition, item.epoch, offset) {
                // Let in even when it is not taken any more: no offset is committed beyond it.
                Entry::In if !self.closing => self.lanes[lane].batcher.push(item, now),
                Entry::In | Entry::Out => (),
                Entry::Back { position } => {
                    self.stop(Stop::WentBack { partition, offset, position }, effects);
                    return;
                }
            }
        }
    }

    fn revoke(&mut self, partitions: Vec<Partition>, lost: bool, ticket: u64) {
        for partition in &partitions {
            self.owned.revoke(*partition);
            self.held.revoke(*partition);
        }
        let owned = &self.owned;
        for lane in &mut self.lanes {
            lane.batcher.retain(|item| owned.holds(item.partition, item.epoch));
            lane.batcher.flush(Reason::Rebalance);
        }
        self.reach_boundaries();
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
            if lane.slot.is_staged() {
                lane.batcher.flush(Reason::Swap);
            }
        }
        self.reach_boundaries();
    }

    /// Where nothing waits there is no batch to wait for: the staged version serves at once. Also where what waited was
    /// taken away meanwhile.
    fn reach_boundaries(&mut self) {
        let empty = self.lanes.iter_mut().filter(|lane| lane.batcher.is_empty());
        empty.for_each(|lane| lane.slot.at_boundary());
    }

    fn inferred(
        &mut self,
        number: u64,
        parts: Vec<Part<O>>,
        bytes: u64,
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
        running.bytes += bytes;
        let Again { sets, ceiling } = match running.answer(parts) {
            Ok(again) => again,
            Err(message) => {
                self.stop(Stop::Model(message), effects);
                return;
            }
        };
        for rows in sets {
            effects.push(Effect::Infer(Arc::clone(&running.batch), rows));
        }
        if running.is_ready() {
            *ready = Some(now);
        }
        if let Some(tokens) = ceiling {
            lane.batcher.lower_ceiling(tokens);
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

/// Partitions go round the lanes.
fn lane_of(partition: Partition, lanes: usize) -> usize {
    let number = usize::try_from(partition.number).unwrap_or(0);
    (usize::from(partition.topic) + number) % lanes
}

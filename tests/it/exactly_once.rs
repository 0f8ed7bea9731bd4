//! Exactly once, whatever happens.
//!
//! The real [`Pipeline`] runs against a broker of a few lines that keeps Kafka's promise: a transaction's
//! outcomes and offsets become visible together or not at all, and nothing of a partition that belongs to
//! somebody else. A schedule of polls, waits, answers, refusals, promotions that are noticed late, rebalances, other
//! members that noticed earlier, crashes and commits whose answer is lost is drawn at random and shrunk when it fails. No
//! thread, no clock and no socket takes part, so a failure replays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tidemill::answer::Refused;
use tidemill::pipeline::arrive::Assigned;
use tidemill::pipeline::publish::Transaction;
use tidemill::pipeline::{Batch, Effect, Event, Item, Limits, Part, Pipeline, batch};
use tidemill::record::{End, Epoch, Offset, Outcome, Partition, Version};

mod turns;

const PARTITIONS: i32 = 3;

fn limits() -> Limits {
    Limits {
        batch: batch::Limits {
            max_records: 4,
            max_bytes: 12,
            max_tokens: 20,
            max_wait: Duration::from_millis(5),
            flush_when_idle: false,
        },
        lanes: 2,
        slots: 2,
        buffer_bytes: 60,
        outcome_bytes: 70,
        commit_wait: Duration::from_millis(1),
        commit_batches: 3,
        tail_every: Duration::from_millis(3),
        max_dead_ratio: 1.0,
        dead_window: 100,
        takeover_wait: Duration::from_secs(3_600),
    }
}

/// A record: its offset is its identity, `poison` never gets an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rec {
    offset: i64,
    poison: bool,
}

/// What a reader of committed data sees of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    offset: i64,
    dead: bool,
    version: u64,
    batch: (u64, u64),
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Poll(i32),
    Wait(u64),
    /// The n-th outstanding call of the model is answered.
    Answer(usize),
    /// The device has no memory for the n-th call if it has more than one row.
    OutOfMemory(usize),
    /// The lane's transaction is answered.
    Commit(usize),
    /// The process dies; `true`: after the outstanding transactions took effect.
    Crash(bool),
    /// The process is asked to stop, ends what it has begun, and is started again.
    Stop,
    Revoke(i32),
    Lose(i32),
    Assign(i32),
    /// Another member answers a record of a partition that is not ours, with the version that the alias names now.
    Other(i32),
    /// The alias moves.
    Promote(u64),
    /// Our watcher looks the alias up.
    Notice,
    /// The learned size changes.
    Limit(u64),
    /// An operator pauses the service, or lets it go on.
    Pause,
    Resume,
}

type Core = Pipeline<Rec, u64>;

/// The broker, the members' consumer position and what our process has outstanding.
struct World {
    input: BTreeMap<i32, Vec<Rec>>,
    committed: BTreeMap<i32, i64>,
    visible: BTreeMap<i32, Vec<Seen>>,
    owned: BTreeMap<i32, Epoch>,
    position: BTreeMap<i32, i64>,
    core: Core,
    generation: u64,
    now: Instant,
    calls: Vec<(Arc<Batch<Rec>>, Vec<usize>)>,
    commits: BTreeMap<usize, Transaction<Rec, u64>>,
    epochs: u64,
    /// Revocations: the partition, and whether it is somebody else's already.
    tickets: BTreeMap<u64, (i32, bool)>,
    releasing: BTreeSet<i32>,
    loaded: BTreeSet<u64>,
    /// Partitions that may be read.
    open: BTreeMap<i32, Epoch>,
    /// What the alias has named, in order, and the version that the watcher gave the core last.
    history: Vec<u64>,
    staged: u64,
    /// A question of the core that the registry has not answered.
    asked: Option<u64>,
    /// The version that answered last in each partition, as its committed offset bears it.
    recorded: BTreeMap<i32, u64>,
}

fn partition(number: i32) -> Partition {
    Partition { topic: 0, number }
}

impl World {
    fn new(input: BTreeMap<i32, Vec<Rec>>, now: Instant) -> Self {
        let mut world = Self {
            input,
            committed: BTreeMap::new(),
            visible: BTreeMap::new(),
            owned: BTreeMap::new(),
            position: BTreeMap::new(),
            core: Pipeline::new(limits(), Version(1)),
            generation: 0,
            now,
            calls: Vec::new(),
            commits: BTreeMap::new(),
            epochs: 0,
            tickets: BTreeMap::new(),
            releasing: BTreeSet::new(),
            loaded: BTreeSet::from([1]),
            open: BTreeMap::new(),
            history: vec![1],
            staged: 1,
            asked: None,
            recorded: BTreeMap::new(),
        };
        (0..PARTITIONS).for_each(|number| world.assign(number));
        world
    }

    fn tell(&mut self, event: Event<Rec, u64>) {
        let answers = matches!(event, Event::Inferred { .. });
        let mut effects = Vec::new();
        self.core.handle(event, self.now, &mut effects);
        for effect in effects {
            match effect {
                Effect::Infer(batch, rows) => {
                    assert!(!rows.is_empty() && rows.is_sorted());
                    let again = answers && rows.len() < batch.items.len();
                    assert!(again || !self.core.is_paused(), "invariant 10: cut in a pause");
                    assert!(self.loaded.contains(&batch.version.0), "a retired version is run");
                    self.calls.push((batch, rows));
                }
                Effect::Commit(lane, transaction) => {
                    let before = self.commits.insert(lane, transaction);
                    assert!(before.is_none(), "invariant 4: two transactions on lane {lane}");
                }
                Effect::Open(partition, epoch) => {
                    if self.owned.get(&partition.number) == Some(&epoch) {
                        self.open.insert(partition.number, epoch);
                    }
                }
                Effect::Ask(question) => self.asked = Some(question),
                Effect::Release(ticket) => {
                    let (number, lost) = self.tickets.remove(&ticket).expect("released once");
                    let held =
                        self.commits.values().any(|t| t.next.contains_key(&partition(number)));
                    assert!(lost || !held, "invariant 5: released under a transaction");
                    self.owned.remove(&number);
                    self.releasing.remove(&number);
                }
                Effect::Retire(version) => {
                    assert!(self.loaded.remove(&version.0), "retired twice");
                }
                Effect::Stop(stop) => panic!("stopped: {stop:?}"),
            }
        }
        let in_model: BTreeSet<u64> = self.calls.iter().map(|(batch, _)| batch.number).collect();
        assert!(in_model.len() <= limits().slots, "invariant 6");
        let suspects = self.calls.iter().any(|(batch, _)| batch.is_alone());
        assert!(!suspects || in_model.len() == 1, "invariant 9: suspects and others in the model");
    }

    fn assign(&mut self, number: i32) {
        if self.owned.contains_key(&number) {
            return;
        }
        self.epochs += 1;
        let epoch = Epoch(self.epochs);
        self.owned.insert(number, epoch);
        let next = self.committed.get(&number).copied().unwrap_or(0);
        self.position.insert(number, next);
        let assigned = Assigned {
            partition: partition(number),
            epoch,
            next: Offset(next),
            until: None,
            skip: None,
            recorded: self.recorded.get(&number).copied().map(Version),
        };
        self.tell(Event::Assigned(vec![assigned]));
    }

    /// The watcher looks the alias up, and answers what was asked before.
    fn notice(&mut self) {
        let asked = self.asked.take();
        let named = *self.history.last().unwrap();
        if named != self.staged {
            self.staged = named;
            self.loaded.insert(named);
            self.tell(Event::Staged(Version(named)));
        }
        if let Some(question) = asked {
            self.tell(Event::Named(question));
        }
    }

    /// Another member commits the next record of a partition that is not ours.
    fn other(&mut self, number: i32) {
        let ours = self.owned.get(&number).is_some_and(|epoch| *epoch != Epoch(u64::MAX));
        let next = self.committed.get(&number).copied().unwrap_or(0);
        let record = self.input[&number].iter().find(|record| next <= record.offset).copied();
        let Some(record) = record.filter(|_| !ours) else { return };
        let version = *self.history.last().unwrap();
        self.epochs += 1;
        let batch = (u64::MAX, self.epochs);
        let seen = Seen { offset: record.offset, dead: record.poison, version, batch };
        self.visible.entry(number).or_default().push(seen);
        self.committed.insert(number, record.offset + 1);
        self.recorded.insert(number, version);
    }

    fn revoke(&mut self, number: i32, lost: bool) {
        if !self.owned.contains_key(&number) || self.releasing.contains(&number) {
            return;
        }
        if lost {
            // Another member owns it from this moment on.
            self.owned.remove(&number);
            self.owned.insert(number, Epoch(u64::MAX));
        }
        let ticket = self.epochs * 1_000 + u64::try_from(self.tickets.len()).unwrap() + 1;
        self.epochs += 1;
        self.tickets.insert(ticket, (number, lost));
        self.releasing.insert(number);
        let partitions = vec![partition(number)];
        self.tell(Event::Revoked { partitions, lost, ticket });
    }

    fn poll(&mut self, number: i32) -> bool {
        self.core.has_room() && self.read(number)
    }

    /// Reads one record or the end; false when there is nothing new.
    fn read(&mut self, number: i32) -> bool {
        if self.releasing.contains(&number) || self.open.get(&number) != self.owned.get(&number) {
            return false;
        }
        let (Some(epoch), Some(records)) = (self.owned.get(&number), self.input.get(&number))
        else {
            return false;
        };
        let epoch = *epoch;
        let position = self.position[&number];
        if let Some(record) = records.iter().find(|record| position <= record.offset).copied() {
            self.position.insert(number, record.offset + 1);
            let item = Item {
                partition: partition(number),
                epoch,
                offset: Offset(record.offset),
                bytes: u64::try_from(record.offset % 14).unwrap(),
                tokens: u64::try_from(record.offset % 7).unwrap(),
                memory: u64::try_from(record.offset % 14).unwrap(),
                alone: (record.offset % 9 == 0).then_some(1 + u32::from(record.poison)),
                payload: record,
            };
            self.tell(Event::Arrived(vec![item]));
            return true;
        }
        // Behind the last record stands a control record.
        let end = records.last().map_or(1, |record| record.offset + 2);
        self.position.insert(number, end);
        let (partition, next) = (partition(number), Offset(end));
        self.tell(Event::End(End { partition, epoch, next, is_last: false }));
        position < end
    }

    fn answer(&mut self, call: usize, out_of_memory: bool) {
        if self.calls.is_empty() {
            return;
        }
        let (batch, rows) = self.calls.remove(call % self.calls.len());
        let bytes = u64::try_from(rows.len() * 4).unwrap();
        // As the inference threads do: in parts of several rows, in no order.
        let (odd, even): (Vec<usize>, Vec<usize>) =
            rows.iter().rev().partition(|row| *row % 2 == 1);
        let parts = [odd, even].into_iter().filter(|rows| !rows.is_empty());
        let parts = parts.map(|part| {
            let poison = part.iter().position(|row| batch.items[*row].payload.poison);
            let answer = match poison {
                _ if out_of_memory && 1 < rows.len() => Err(Refused::OutOfMemory(String::new())),
                Some(row) if batch.number % 2 == 0 => {
                    Err(Refused::Row { row, message: String::new() })
                }
                Some(_) => Err(Refused::Batch(String::new())),
                None => Ok(part.iter().map(|_| Outcome::Prediction(batch.version.0)).collect()),
            };
            Part { rows: part, answer }
        });
        let parts = parts.collect();
        self.tell(Event::Inferred { batch: batch.number, parts, bytes });
    }

    /// The broker's side of a transaction: all of it that is still ours, or nothing.
    fn take_effect(&mut self, transaction: &Transaction<Rec, u64>) -> BTreeMap<Partition, Offset> {
        let ours = |p: Partition, epoch: Epoch| self.owned.get(&p.number) == Some(&epoch);
        let versions: BTreeSet<u64> =
            transaction.batches.iter().map(|done| done.batch.version.0).collect();
        assert!(versions.len() <= 1, "invariant 3: {versions:?} in one transaction");
        let mut committed = BTreeMap::new();
        for done in &transaction.batches {
            for (row, outcome) in &done.rows {
                let item = &done.batch.items[*row];
                if !ours(item.partition, item.epoch) {
                    continue;
                }
                let version = done.batch.version.0;
                let dead = match outcome {
                    Outcome::Prediction(by) => {
                        assert_eq!(*by, version, "invariant 3: answered by another version");
                        false
                    }
                    Outcome::DeadLetter(_) => true,
                    Outcome::Tombstone => unreachable!(),
                };
                let batch = (self.generation, done.batch.number);
                let seen = Seen { offset: item.offset.0, dead, version, batch };
                self.visible.entry(item.partition.number).or_default().push(seen);
                self.recorded.insert(item.partition.number, version);
            }
        }
        for (partition, (epoch, next)) in &transaction.next {
            if ours(*partition, *epoch) {
                self.committed.insert(partition.number, next.0);
                committed.insert(*partition, *next);
            }
        }
        committed
    }

    fn commit(&mut self, lane: usize) {
        if let Some(transaction) = self.commits.remove(&lane) {
            let committed = self.take_effect(&transaction);
            let (id, buried) = (transaction.id, Vec::new());
            // A slow link, now and then.
            let fits = (id % 5 == 0).then_some(1 + usize::try_from(id % 3).unwrap());
            self.tell(Event::Committed { lane, id, committed, buried, fits });
        }
    }

    /// Until the core wants to look again, but not until it gives up waiting for the registry.
    fn wait(&mut self) {
        let soon = self.now + Duration::from_secs(60);
        if let Some(deadline) = self.core.deadline().filter(|deadline| *deadline < soon) {
            self.now = self.now.max(deadline);
        }
    }

    fn stop(&mut self) {
        self.tell(Event::Close);
        // What was on its way from the reading thread still comes in.
        (0..PARTITIONS).for_each(|number| {
            self.read(number);
        });
        let begun = self.calls.len();
        let mut batches = BTreeSet::new();
        for _ in 0..1_000 {
            batches.extend(self.calls.iter().map(|(batch, _)| batch.number));
            self.answer(0, false);
            (0..limits().lanes).for_each(|lane| self.commit(lane));
            self.wait();
            self.tell(Event::Tick);
            if self.core.is_drained() {
                assert!(batches.len() <= begun + limits().lanes, "one more batch a lane at most");
                return self.crash(false);
            }
        }
        panic!("it did not stop: {:?}", self.core);
    }

    fn crash(&mut self, took_effect: bool) {
        let commits = std::mem::take(&mut self.commits);
        if took_effect {
            commits.values().for_each(|transaction| drop(self.take_effect(transaction)));
        }
        self.calls.clear();
        self.tickets.clear();
        self.releasing.clear();
        self.owned.clear();
        self.open.clear();
        self.asked = None;
        self.generation += 1;
        let serving = *self.history.last().unwrap();
        self.staged = serving;
        self.loaded = BTreeSet::from([serving]);
        self.core = Pipeline::new(limits(), Version(serving));
        (0..PARTITIONS).for_each(|number| self.assign(number));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Poll(number) => {
                self.poll(number);
            }
            Step::Wait(ms) => {
                self.now += Duration::from_millis(ms);
                self.tell(Event::Tick);
            }
            Step::Answer(call) => self.answer(call, false),
            Step::OutOfMemory(call) => self.answer(call, true),
            Step::Commit(lane) => self.commit(lane),
            Step::Crash(took_effect) => self.crash(took_effect),
            Step::Stop => self.stop(),
            Step::Revoke(number) => self.revoke(number, false),
            Step::Lose(number) => self.revoke(number, true),
            Step::Assign(number) => self.assign(number),
            Step::Other(number) => self.other(number),
            Step::Promote(version) => {
                if self.history.last() != Some(&version) {
                    self.history.push(version);
                }
            }
            Step::Notice => self.notice(),
            Step::Limit(tokens) => self.tell(Event::Limit(tokens)),
            Step::Pause => self.tell(Event::Pause),
            Step::Resume => self.tell(Event::Resume),
        }
    }

    /// The faults stop: everything is assigned, read, answered and committed.
    fn heal(&mut self) {
        self.tell(Event::Resume);
        let mut quiet = 0;
        for _ in 0..10_000 {
            (0..PARTITIONS).for_each(|number| self.assign(number));
            self.notice();
            let polled = (0..PARTITIONS).any(|number| self.poll(number));
            let busy = polled || !self.calls.is_empty() || !self.commits.is_empty();
            self.answer(0, false);
            (0..limits().lanes).for_each(|lane| self.commit(lane));
            self.wait();
            self.tell(Event::Tick);
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet == 8 && self.core.is_drained() {
                return;
            }
        }
        panic!("it never came to rest: {:?}", self.core);
    }

    fn check(&self) {
        let mut versions: BTreeMap<(u64, u64), BTreeSet<u64>> = BTreeMap::new();
        for (number, records) in &self.input {
            let seen = self.visible.get(number).map_or(&[][..], Vec::as_slice);
            let got: Vec<(i64, bool)> = seen.iter().map(|seen| (seen.offset, seen.dead)).collect();
            let expect: Vec<(i64, bool)> = records.iter().map(|r| (r.offset, r.poison)).collect();
            assert_eq!(got, expect, "partition {number}: each record once, in order");
            let end = records.last().map_or(1, |record| record.offset + 2);
            assert_eq!(self.committed.get(number), Some(&end), "lag of partition {number} is 0");
            // Dead letters bear the version that could not answer them.
            let mut place = 0;
            for seen in seen {
                versions.entry(seen.batch).or_default().insert(seen.version);
                let here = self.history[place..].iter().position(|v| *v == seen.version);
                place += here.unwrap_or_else(|| {
                    panic!("invariant 8: {number}/{} goes back in {:?}", seen.offset, self.history)
                });
            }
        }
        assert!(versions.values().all(|versions| versions.len() == 1), "one version a batch");
        assert!(self.loaded.len() <= 1 || self.loaded.len() == 2, "old versions are retired");
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..PARTITIONS).prop_map(Step::Poll),
        4 => (0..7_u64).prop_map(Step::Wait),
        5 => (0..4_usize).prop_map(Step::Answer),
        1 => (0..4_usize).prop_map(Step::OutOfMemory),
        5 => (0..2_usize).prop_map(Step::Commit),
        1 => any::<bool>().prop_map(Step::Crash),
        1 => Just(Step::Stop),
        1 => (0..PARTITIONS).prop_map(Step::Revoke),
        1 => (0..PARTITIONS).prop_map(Step::Lose),
        2 => (0..PARTITIONS).prop_map(Step::Assign),
        3 => (0..PARTITIONS).prop_map(Step::Other),
        2 => (1..5_u64).prop_map(Step::Promote),
        2 => Just(Step::Notice),
        1 => (1..40_u64).prop_map(Step::Limit),
        1 => Just(Step::Pause),
        1 => Just(Step::Resume),
    ];
    prop::collection::vec(step, 0..160)
}

/// Records of one partition: offsets with gaps, one in eight poison.
fn records() -> impl Strategy<Value = Vec<Rec>> {
    prop::collection::vec((1..3_i64, 0..8_u8), 0..25).prop_map(|gaps| {
        let mut offset = -1;
        let record = |(gap, poison): (i64, u8)| {
            offset += gap;
            Rec { offset, poison: poison == 0 }
        };
        gaps.into_iter().map(record).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    /// Invariants 1 to 6, 8 and 9 of the pipeline, and the promise to a reader.
    #[test]
    fn each_record_has_one_outcome(
        input in prop::collection::vec(records(), 3..=3),
        steps in steps(),
    ) {
        let input = (0..).zip(input).collect();
        let mut world = World::new(input, epoch());
        steps.into_iter().for_each(|step| world.step(step));
        world.heal();
        world.check();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test needs one arbitrary instant")]
fn epoch() -> Instant {
    Instant::now()
}

//! A hundred replicas on a thousand partitions, simulated: the real core ([`Pipeline`]) in each, in virtual time, with a model
//! and a broker of a few lines. It measures what the core and the group's protocol make of changes: how long a partition
//! stands still, what is read twice inside (never committed twice: that is asserted), transactions a second.
//!
//! The group is the classic protocol's, cooperative: members hear of a change at their next heartbeat, give up what moves,
//! and only then it is given to others. A replica that restarts under its stable name gets its own back without a change.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemill::pipeline::arrive::Assigned;
use tidemill::pipeline::publish::Transaction;
use tidemill::pipeline::{Batch, Effect, Event, Item, Limits, Part, Pipeline, batch};
use tidemill::record::{Epoch, Offset, Outcome, Partition, Version};

const REPLICAS: usize = 100;
const PARTITIONS: usize = 1_000;
/// Records a second in each partition.
const RATE: f64 = 20.0;
const POLL: Duration = Duration::from_millis(10);
const HEARTBEAT: Duration = Duration::from_secs(3);
const SESSION: Duration = Duration::from_secs(20);
/// Committed offsets and ends are asked for before a partition is read.
const OPENING: Duration = Duration::from_millis(50);
const COMMIT: Duration = Duration::from_millis(10);
/// Of a model on one core: a call, and each record in it.
const CALL: Duration = Duration::from_millis(5);
const EACH: Duration = Duration::from_micros(500);
/// From the end of a process until its successor has loaded the model and joined.
const AWAY: Duration = Duration::from_secs(5);

type Core = Pipeline<(), ()>;

fn limits() -> Limits {
    Limits {
        batch: batch::Limits {
            max_records: 256,
            max_bytes: 8 << 20,
            max_tokens: 16_384,
            max_wait: Duration::from_millis(50),
            flush_when_idle: false,
        },
        lanes: 1,
        slots: 2,
        buffer_bytes: 16 << 20,
        outcome_bytes: 16 << 20,
        commit_wait: Duration::ZERO,
        commit_batches: 16,
        tail_every: Duration::from_secs(5),
        max_dead_ratio: 1.0,
        dead_window: 1_000,
        takeover_wait: Duration::from_secs(60),
    }
}

/// What happens at a moment. A member's own events bear its generation: a process that has ended hears no more.
enum What {
    Poll(usize, u64),
    Tick(usize, u64),
    Answered(usize, u64, Arc<Batch<()>>, Vec<usize>),
    Committed(usize, u64, usize, Transaction<(), ()>),
    Opened(usize, u64, Vec<usize>),
    /// Members have heard of the change, and give up what moves.
    Heard,
    /// What moves is given to its new members.
    Given,
    Die(usize),
    Leave(usize),
    Join(usize),
    Restart(usize),
    Back(usize),
}

struct Member {
    core: Core,
    generation: u64,
    alive: bool,
    /// In the group, as the coordinator sees it.
    counted: bool,
    position: BTreeMap<usize, i64>,
    open: BTreeMap<usize, Epoch>,
    /// Revocations, and whether the process ends once it is drained.
    tickets: BTreeMap<u64, Vec<usize>>,
    closing: Option<bool>,
}

struct World {
    begin: Instant,
    now: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    due: BTreeMap<u64, What>,
    number: u64,
    members: Vec<Member>,
    /// Whose a partition is, and in which epoch.
    owner: Vec<Option<(usize, Epoch)>>,
    target: Vec<usize>,
    committed: Vec<i64>,
    delivered: Vec<i64>,
    advanced: Vec<Duration>,
    /// The longest that each partition stood still.
    still: Vec<Duration>,
    epochs: u64,
    changing: bool,
    hearing: bool,
    again: bool,
    moved: usize,
    twice: u64,
    transactions: u64,
    spent: Duration,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            begin: Instant::now(),
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            due: BTreeMap::new(),
            number: 0,
            members: Vec::new(),
            owner: vec![None; PARTITIONS],
            target: (0..PARTITIONS).map(|p| p % REPLICAS).collect(),
            committed: vec![0; PARTITIONS],
            delivered: vec![0; PARTITIONS],
            advanced: vec![Duration::ZERO; PARTITIONS],
            still: vec![Duration::ZERO; PARTITIONS],
            epochs: 0,
            changing: false,
            hearing: false,
            again: false,
            moved: 0,
            twice: 0,
            transactions: 0,
            spent: Duration::ZERO,
        };
        (0..REPLICAS).for_each(|_| world.member());
        world.give();
        world
    }

    fn member(&mut self) {
        self.members.push(Member {
            core: Pipeline::new(limits(), Version(1)),
            generation: 0,
            alive: true,
            counted: true,
            position: BTreeMap::new(),
            open: BTreeMap::new(),
            tickets: BTreeMap::new(),
            closing: None,
        });
        self.at(POLL, What::Poll(self.members.len() - 1, 0));
    }

    fn at(&mut self, after: Duration, what: What) {
        self.number += 1;
        self.queue.push(Reverse((self.now + after, self.number)));
        self.due.insert(self.number, what);
    }

    fn run(&mut self, until: Duration) {
        while let Some(Reverse((time, number))) = self.queue.pop() {
            if until < time {
                self.queue.push(Reverse((time, number)));
                break;
            }
            self.now = time;
            let what = self.due.remove(&number).unwrap();
            self.happen(what);
        }
        self.now = until;
    }

    fn lives(&self, member: usize, generation: u64) -> bool {
        let it = &self.members[member];
        it.alive && it.generation == generation
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Poll(m, g) if self.lives(m, g) => self.poll(m),
            What::Tick(m, g) if self.lives(m, g) => self.tell(m, Event::Tick),
            What::Answered(m, g, batch, rows) if self.lives(m, g) => {
                let outcomes = rows.iter().map(|_| Outcome::Prediction(())).collect();
                let parts = vec![Part { rows, answer: Ok(outcomes) }];
                self.tell(m, Event::Inferred { batch: batch.number, parts, bytes: 0 });
            }
            What::Committed(m, g, lane, transaction) => {
                // It takes effect at the broker whether or not the process lives.
                let committed = self.take_effect(m, &transaction);
                if self.lives(m, g) {
                    let (id, buried) = (transaction.id, Vec::new());
                    self.tell(m, Event::Committed { lane, id, committed, buried, fits: None });
                }
            }
            What::Opened(m, g, partitions) if self.lives(m, g) => self.assigned(m, &partitions),
            What::Poll(..) | What::Tick(..) | What::Answered(..) | What::Opened(..) => {}
            What::Heard => self.heard(),
            What::Given => self.give(),
            What::Die(m) => {
                self.end(m);
                self.at(SESSION, What::Leave(m));
            }
            What::Leave(m) => {
                self.members[m].counted = false;
                if self.members[m].alive {
                    // It goes in order: what it holds is given back first, and then it is gone.
                    self.members[m].closing = Some(false);
                    self.tell(m, Event::Close);
                }
                self.change();
            }
            What::Join(m) => {
                self.member();
                assert_eq!(m, self.members.len() - 1);
                self.change();
            }
            What::Restart(m) => {
                self.members[m].closing = Some(true);
                self.tell(m, Event::Close);
            }
            What::Back(m) => {
                let it = &mut self.members[m];
                it.alive = true;
                let generation = it.generation;
                let mine: Vec<usize> = (0..PARTITIONS)
                    .filter(|p| self.owner[*p].is_some_and(|(owner, _)| owner == m))
                    .collect();
                self.at(OPENING, What::Opened(m, generation, mine));
                self.at(POLL, What::Poll(m, generation));
            }
        }
    }

    /// The process is gone, with all that it had in memory.
    fn end(&mut self, member: usize) {
        let it = &mut self.members[member];
        it.alive = false;
        it.generation += 1;
        it.core = Pipeline::new(limits(), Version(1));
        it.position.clear();
        it.open.clear();
        it.tickets.clear();
        it.closing = None;
    }

    /// How many records each partition has.
    fn high(&self) -> i64 {
        #[expect(clippy::cast_possible_truncation, reason = "some thousands")]
        let high = (self.now.as_secs_f64() * RATE) as i64;
        high
    }

    fn poll(&mut self, member: usize) {
        let mut items = Vec::new();
        let room = self.members[member].core.has_room();
        let open: Vec<(usize, Epoch)> =
            self.members[member].open.iter().map(|(p, e)| (*p, *e)).collect();
        for (p, epoch) in open.into_iter().filter(|_| room) {
            let (from, to) = (self.members[member].position[&p], self.high());
            for offset in from..to.min(from + 50) {
                self.twice += u64::from(offset < self.delivered[p]);
                self.delivered[p] = self.delivered[p].max(offset + 1);
                items.push(Item {
                    partition: partition(p),
                    epoch,
                    offset: Offset(offset),
                    bytes: 200,
                    tokens: 50,
                    memory: 800,
                    alone: None,
                    payload: (),
                });
            }
            self.members[member].position.insert(p, to.min(from + 50).max(from));
        }
        if !items.is_empty() {
            self.tell(member, Event::Arrived(items));
        }
        if self.members[member].alive {
            let generation = self.members[member].generation;
            self.at(POLL, What::Poll(member, generation));
        }
    }

    fn tell(&mut self, member: usize, event: Event<(), ()>) {
        let mut effects = Vec::new();
        let (now, started) = (self.begin + self.now, Instant::now());
        self.members[member].core.handle(event, now, &mut effects);
        self.spent += started.elapsed();
        let generation = self.members[member].generation;
        for effect in effects {
            match effect {
                Effect::Infer(batch, rows) => {
                    let took = CALL + EACH * u32::try_from(rows.len()).unwrap();
                    self.at(took, What::Answered(member, generation, batch, rows));
                }
                Effect::Commit(lane, transaction) => {
                    self.at(COMMIT, What::Committed(member, generation, lane, transaction));
                }
                Effect::Open(partition, epoch) => {
                    let p = usize::try_from(partition.number).unwrap();
                    self.members[member].open.insert(p, epoch);
                }
                Effect::Release(ticket) => self.released(member, ticket),
                Effect::Ask(_) | Effect::Retire(_) => {}
                Effect::Stop(stop) => panic!("stopped: {stop:?}"),
            }
        }
        if let Some(due) = self.members[member].core.deadline() {
            let after = due.saturating_duration_since(now).max(Duration::from_micros(100));
            if after < POLL {
                self.at(after, What::Tick(member, generation));
            }
        }
        let it = &self.members[member];
        if let Some(comes_back) = it.closing.filter(|_| it.core.is_drained()) {
            self.end(member);
            if comes_back {
                self.at(AWAY, What::Back(member));
            } else {
                self.owner
                    .iter_mut()
                    .filter(|o| o.is_some_and(|(m, _)| m == member))
                    .for_each(|o| *o = None);
            }
        }
    }

    /// The broker's side of a transaction: all of it that is still the member's. Nothing twice, nothing left out.
    fn take_effect(
        &mut self,
        member: usize,
        transaction: &Transaction<(), ()>,
    ) -> BTreeMap<Partition, Offset> {
        let mut committed = BTreeMap::new();
        let mut taken = BTreeSet::new();
        for (partition, (epoch, next)) in &transaction.next {
            let p = usize::try_from(partition.number).unwrap();
            if self.owner[p] == Some((member, *epoch)) {
                committed.insert(*partition, *next);
                taken.insert(*partition);
            }
        }
        for done in &transaction.batches {
            for (row, _) in &done.rows {
                let item = &done.batch.items[*row];
                if taken.contains(&item.partition) {
                    let p = usize::try_from(item.partition.number).unwrap();
                    assert_eq!(item.offset.0, self.committed[p], "each record once, in order");
                    self.committed[p] += 1;
                    self.still[p] = self.still[p].max(self.now.saturating_sub(self.advanced[p]));
                    self.advanced[p] = self.now;
                }
            }
        }
        self.transactions += 1;
        committed
    }

    fn assigned(&mut self, member: usize, partitions: &[usize]) {
        let mut assigned = Vec::new();
        for p in partitions {
            self.epochs += 1;
            let (epoch, next) = (Epoch(self.epochs), self.committed[*p]);
            self.owner[*p] = Some((member, epoch));
            self.members[member].position.insert(*p, next);
            assigned.push(Assigned {
                partition: partition(*p),
                epoch,
                next: Offset(next),
                until: None,
                skip: None,
                recorded: None,
            });
        }
        self.tell(member, Event::Assigned(assigned));
    }

    /// A member came or went.
    fn change(&mut self) {
        if std::mem::replace(&mut self.changing, true) {
            self.again = true;
        } else {
            self.at(HEARTBEAT, What::Heard);
        }
    }

    /// Who is there keeps what is its own, up to its share.
    fn heard(&mut self) {
        let members: Vec<usize> =
            (0..self.members.len()).filter(|m| self.members[*m].counted).collect();
        let share = PARTITIONS.div_ceil(members.len());
        let mut load: BTreeMap<usize, usize> = members.iter().map(|m| (*m, 0)).collect();
        let mut homeless = Vec::new();
        for p in 0..PARTITIONS {
            match load.get_mut(&self.target[p]).filter(|load| **load < share) {
                Some(load) => *load += 1,
                None => homeless.push(p),
            }
        }
        self.moved += homeless.len();
        for p in homeless {
            let (member, load) = load.iter_mut().min_by_key(|(_, load)| **load).unwrap();
            *load += 1;
            self.target[p] = *member;
        }
        self.hearing = true;
        for m in 0..self.members.len() {
            let leaves: Vec<usize> = (0..PARTITIONS)
                .filter(|p| {
                    self.target[*p] != m && self.owner[*p].is_some_and(|(owner, _)| owner == m)
                })
                .collect();
            if leaves.is_empty() {
                continue;
            }
            if !self.members[m].alive {
                leaves.iter().for_each(|p| self.owner[*p] = None);
                continue;
            }
            self.epochs += 1;
            let ticket = self.epochs;
            let partitions = leaves.iter().map(|p| partition(*p)).collect();
            self.members[m].open.retain(|p, _| !leaves.contains(p));
            self.members[m].tickets.insert(ticket, leaves);
            self.tell(m, Event::Revoked { partitions, lost: false, ticket });
        }
        self.hearing = false;
        self.given();
    }

    fn released(&mut self, member: usize, ticket: u64) {
        for p in self.members[member].tickets.remove(&ticket).unwrap_or_default() {
            self.owner[p] = None;
        }
        if !self.hearing {
            self.given();
        }
    }

    /// Once nothing that moves is held any more, the members hear whose it is.
    fn given(&mut self) {
        if self.changing && self.members.iter().all(|m| m.tickets.is_empty()) {
            self.at(HEARTBEAT, What::Given);
        }
    }

    /// Partitions that are nobody's go to those that they are for.
    fn give(&mut self) {
        for m in 0..self.members.len() {
            let mine: Vec<usize> = (0..PARTITIONS)
                .filter(|p| self.owner[*p].is_none() && self.target[*p] == m)
                .collect();
            if !mine.is_empty() && self.members[m].alive {
                let generation = self.members[m].generation;
                self.at(OPENING, What::Opened(m, generation, mine));
            }
        }
        self.changing = false;
        if std::mem::take(&mut self.again) {
            self.change();
        }
    }
}

fn partition(number: usize) -> Partition {
    Partition { topic: 0, number: i32::try_from(number).unwrap() }
}

/// Runs what `plan` prepares for so many seconds after ten quiet ones, and prints what came of it.
fn scenario(name: &str, seconds: u64, plan: impl Fn(&mut World)) {
    let mut world = World::new();
    world.run(Duration::from_secs(10));
    world.still = vec![Duration::ZERO; PARTITIONS];
    let (transactions, before) = (world.transactions, world.committed.iter().sum::<i64>());
    let (moved, twice, spent) = (world.moved, world.twice, world.spent);
    plan(&mut world);
    world.run(Duration::from_secs(10 + seconds));
    let during = (world.transactions - transactions) as f64 / seconds as f64;
    // What stands still to the end counts too.
    for p in 0..PARTITIONS {
        world.still[p] = world.still[p].max(world.now.saturating_sub(world.advanced[p]));
    }
    world.still.sort();
    let records = world.committed.iter().sum::<i64>() - before;
    let at = |share: usize| world.still[(PARTITIONS - 1) * share / 100].as_secs_f64();
    println!(
        "scale {name}: {REPLICAS} replicas, {PARTITIONS} partitions, {seconds} s: {:.0} records/s, {during:.0} transactions/s; \
         a partition's longest time without a commit: median {:.1} s, p99 {:.1} s, worst {:.1} s; {} partitions moved; {} \
         records read twice inside, none committed twice; core {:.2} µs a record",
        records as f64 / seconds as f64,
        at(50),
        at(99),
        at(100),
        world.moved - moved,
        world.twice - twice,
        world.spent.saturating_sub(spent).as_secs_f64() * 1e6 / records as f64,
    );
}

pub(crate) fn run() {
    let seconds = Duration::from_secs;
    scenario("steady", 60, |_| {});
    scenario("storm: one joins or leaves every 2 s for a minute", 120, |world| {
        for n in 0..15_usize {
            let at = 4 * u64::try_from(n).unwrap();
            world.at(seconds(at), What::Join(REPLICAS + n));
            world.at(seconds(at + 2), What::Leave(n * 5));
        }
    });
    scenario("rolling upgrade, four at a time", 240, |world| {
        for m in 0..REPLICAS {
            let at = u64::try_from(m / 4).unwrap() * 8;
            world.at(seconds(at), What::Restart(m));
        }
    });
    scenario("ten crash at once, session of 20 s", 60, |world| {
        (0..10).for_each(|m| world.at(Duration::ZERO, What::Die(m * 10)));
    });
}

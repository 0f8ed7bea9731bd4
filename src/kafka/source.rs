//! The reading side: one thread polls, hands records over, takes and gives up partitions.
//!
//! Each assigned partition has its own queue in the client. The main queue, with the group's events, is
//! polled always; a partition's queue only while `chunks` has room and the engine has opened its gate. So a stalled
//! engine stops the fetching, never the membership. The client wakes the thread when a queue fills; else it sleeps.
//!
//! The thread itself asks the cluster nothing. What the group assigns is answered at once, with nothing to fetch yet;
//! where the partitions begin is found out [beside](super::opening), and each is fetched from when it is known.
//!
//! A client that the group has fenced is of no use any more. Where no [twin](super::twin) lives, another one joins.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::Offset as Place;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::group::{Context, Rebalance, partition};
use super::observe::Order;
use super::opening::{Answer, Claims, Opened, Opener};
use super::twin::{How, Lost, Step};
use super::{Guard, Held, Shared, native, settings, spawn};
use crate::log::{Arrival, Assigned, Chunk, Control, Failure, Gate, Leave};
use crate::record::{Epoch, Offset, Partition, Record};

/// Most records of a chunk.
const CHUNK_RECORDS: usize = 512;
/// Most payload bytes of a chunk; the record that passes it is its last.
const CHUNK_BYTES: usize = 1 << 20;
/// How long the thread sleeps when nothing wakes it: the group's events are served at least so often.
const IDLE: Duration = Duration::from_millis(100);
/// How often the main queue is polled in a pass: a poll takes one event, and says the same for an event that
/// it served itself as for an empty queue.
const EVENTS: usize = 16;
/// How often room in `chunks` is looked for while the engine is behind.
const STALLED: Duration = Duration::from_millis(3);
/// How long leaving the group may take, and closing the client after it.
const CLOSE: Duration = Duration::from_secs(10);
/// What the engine has beyond `limits.transaction` to answer a revocation.
const REVOKE_MARGIN: Duration = Duration::from_secs(2);
/// How long the cluster may take to describe the group.
const ANSWER: Duration = Duration::from_secs(5);
/// A warning that is said again and again: after so long first, then after twice as long, up to [`RARELY`].
const SELDOM: Duration = Duration::from_secs(10);
const RARELY: Duration = Duration::from_secs(600);

/// A partition that is fetched.
struct Split {
    partition: Partition,
    epoch: Epoch,
    /// Where reading began.
    start: Offset,
    queue: PartitionQueue<Context>,
    gate: Gate,
}

/// What a pass over the queues left.
enum Left {
    /// Nothing: all queues are empty.
    Nothing,
    /// More than a chunk.
    More,
    /// `chunks` is full.
    NoRoom,
}

/// The other ends of the thread's channels.
pub(super) struct Ends {
    pub(super) control: mpsc::Sender<Control>,
    pub(super) chunks: mpsc::Sender<Chunk>,
    pub(super) leave: Leave,
    pub(super) orders: Receiver<Order>,
}

/// The poll thread's state.
pub(super) struct Source {
    shared: Arc<Shared>,
    /// `None` while the group has fenced the last one.
    consumer: Option<Arc<BaseConsumer<Context>>>,
    ends: Ends,
    /// To the thread that finds out where partitions begin, and back.
    claims: SyncSender<Claims>,
    opened: Receiver<Answer>,
    /// The thread that a filled queue wakes.
    sleeper: Arc<OnceLock<Thread>>,
    splits: Vec<Split>,
    /// Which queue the next chunk begins with.
    turn: usize,
    epoch: u64,
    failed: bool,
    lost: Option<(Lost, Instant)>,
    /// Whether the group is being left in order to join it again.
    rejoining: bool,
    /// Since when other members have refused to agree on how partitions are given out.
    disagreed: Option<Instant>,
    said: BTreeMap<String, Said>,
}

/// A warning that was said before.
struct Said {
    count: u64,
    next: Instant,
    pause: Duration,
}

impl Source {
    /// Makes the consumer and subscribes it.
    pub(super) fn open(shared: Arc<Shared>, ends: Ends, guard: &Guard) -> Result<Self, Failure> {
        let sleeper: Arc<OnceLock<Thread>> = Arc::new(OnceLock::new());
        let (claims, claimed) = sync_channel(64);
        let (answers, opened) = sync_channel(64);
        let (opener, wake) = (Opener::new(Arc::clone(&shared)), waker(&sleeper));
        // Not joined: it may be waiting for a cluster that does not answer.
        drop(guard.spawn("open", move || opener.run(&claimed, &answers, &wake))?);
        let mut source = Self {
            shared,
            consumer: None,
            ends,
            claims,
            opened,
            sleeper,
            splits: Vec::new(),
            turn: 0,
            epoch: 0,
            failed: false,
            lost: None,
            rejoining: false,
            disagreed: None,
            said: BTreeMap::new(),
        };
        source.join()?;
        Ok(source)
    }

    /// Makes a client and subscribes it.
    fn join(&mut self) -> Result<(), Failure> {
        let shared = Arc::clone(&self.shared);
        if shared.is_held_by_another(ANSWER) == Some(true) {
            *shared.took_over.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        let context = Context {
            journal: shared.journal.clone(),
            naming: shared.naming.clone(),
            control: self.ends.control.clone(),
            rebalances: Mutex::default(),
            closing: AtomicBool::new(false),
        };
        let settings = settings::consumer(&shared.config, &shared.instance);
        let mut consumer: BaseConsumer<Context> = settings
            .create_with_context(context)
            .map_err(|e| shared.failure("configure the Kafka consumer", &e, 78))?;
        consumer.set_nonempty_callback(waker(&self.sleeper));
        let consumer = Arc::new(consumer);
        *shared.consumer.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::downgrade(&consumer);
        self.consumer = Some(consumer);
        self.subscribe()
    }

    fn subscribe(&self) -> Result<(), Failure> {
        let Some(consumer) = &self.consumer else { return Ok(()) };
        let topics: Vec<&str> = self.shared.naming.inputs.iter().map(String::as_str).collect();
        let what = format!("subscribe to {}", topics.join(", "));
        consumer.subscribe(&topics).map_err(|e| self.shared.failure(&what, &e, 78))
    }

    /// Serves the group until told to leave.
    pub(super) fn run(mut self) {
        self.sleeper.get_or_init(std::thread::current);
        while !self.ends.leave.is_asked() {
            if let Err(failure) = self.pass() {
                self.fail(failure);
            }
            match self.read() {
                Left::Nothing => std::thread::park_timeout(IDLE),
                Left::NoRoom => std::thread::park_timeout(STALLED),
                Left::More => {}
            }
        }
        self.close();
    }

    /// Does what the group, the opener and the observer want.
    fn pass(&mut self) -> Result<(), Failure> {
        self.rejoin()?;
        self.serve()?;
        while let Ok(opened) = self.opened.try_recv() {
            self.take(opened?)?;
        }
        while let Ok(order) = self.ends.orders.try_recv() {
            match order {
                Order::Reopen(partitions) => self.reopen(&partitions)?,
                Order::Rejoin => self.leave_to_rejoin()?,
            }
        }
        Ok(())
    }

    /// Polls the main queue and does what the group wants.
    fn serve(&mut self) -> Result<(), Failure> {
        let Some(consumer) = self.consumer.clone() else { return Ok(()) };
        for event in (0..EVENTS).filter_map(|_| consumer.poll(Duration::ZERO)) {
            match event {
                Ok(message) => {
                    let message = format!(
                        "read {}/{}: a record came past its partition's queue; start again",
                        message.topic(),
                        message.partition()
                    );
                    return Err(Failure { message, exit: 75 });
                }
                Err(error) => self.judge(&error, None)?,
            }
        }
        while self.consumer.is_some() {
            let mut rebalances =
                consumer.context().rebalances.lock().unwrap_or_else(PoisonError::into_inner);
            let next = rebalances.pop_front();
            drop(rebalances);
            match next {
                Some(Rebalance::Assign(list)) => self.assign(&list)?,
                Some(Rebalance::Revoke(list)) => self.revoke(&list)?,
                None => break,
            }
        }
        if self.rejoining && self.shared.claimed().is_empty() {
            self.rejoining = false;
            self.subscribe()?;
        }
        Ok(())
    }

    /// Sends what the partitions' queues hold, one chunk.
    fn read(&mut self) -> Left {
        let chunks = self.ends.chunks.clone();
        let permit = match chunks.try_reserve() {
            Ok(permit) => permit,
            Err(TrySendError::Full(())) => return Left::NoRoom,
            Err(TrySendError::Closed(())) => return Left::Nothing,
        };
        let (mut arrivals, mut bytes, mut errors) = (Vec::new(), 0, Vec::new());
        let mut left = Left::Nothing;
        self.turn += 1;
        let (before, after) = self.splits.split_at(self.turn % self.splits.len().max(1));
        'splits: for split in after.iter().chain(before).filter(|split| split.gate.is_open()) {
            loop {
                if arrivals.len() >= CHUNK_RECORDS || bytes >= CHUNK_BYTES {
                    left = Left::More;
                    break 'splits;
                }
                match split.queue.poll(Duration::ZERO) {
                    Some(Ok(message)) => {
                        let record = copy(&message, split.partition);
                        bytes += record.bytes();
                        arrivals.push(Arrival::Record(split.epoch, record));
                    }
                    Some(Err(KafkaError::PartitionEOF(_))) => {
                        let next = self.position(split);
                        arrivals.push(Arrival::End(split.epoch, split.partition, next));
                    }
                    Some(Err(error)) => errors.push((error, split.partition)),
                    None => break,
                }
            }
        }
        if !arrivals.is_empty() {
            permit.send(Chunk(arrivals));
        }
        for (error, partition) in errors {
            if let Err(failure) = self.judge(&error, Some(partition)) {
                self.fail(failure);
            }
        }
        left
    }

    /// The offset after all that was taken out of a partition's queue, control records included.
    fn position(&self, split: &Split) -> Offset {
        let name = self.shared.naming.input(split.partition);
        let position = self.consumer.as_ref().and_then(|consumer| {
            let list = consumer.position().ok()?;
            list.find_partition(name, split.partition.number).map(|p| p.offset())
        });
        match position {
            Some(Place::Offset(next)) => Offset(next.max(split.start.0)),
            Some(_) | None => split.start,
        }
    }

    /// The group gives partitions: answered at once, with nothing to fetch yet, so that the others go on.
    fn assign(&mut self, list: &TopicPartitionList) -> Result<(), Failure> {
        self.disagreed = None;
        let partitions = self.partitions(list);
        tracing::info!(count = partitions.len(), "partitions assigned");
        self.consumer()?
            .incremental_assign(&TopicPartitionList::new())
            .map_err(|e| self.shared.failure("take assigned partitions", &e, 75))?;
        if partitions.is_empty() {
            self.tell(Control::Assigned(Vec::new()));
        }
        self.claim(partitions)
    }

    fn claim(&mut self, partitions: Vec<Partition>) -> Result<(), Failure> {
        if partitions.is_empty() {
            return Ok(());
        }
        let mut claims = Claims::new();
        for partition in partitions {
            self.epoch += 1;
            let epoch = Epoch(self.epoch);
            self.shared.claim(partition, Some(epoch));
            claims.push((partition, epoch));
        }
        self.claims.try_send(claims).map_err(|error| Failure {
            message: format!(
                "take assigned partitions: the thread that opens them is behind ({error})"
            ),
            exit: 75,
        })
    }

    /// Partitions whose beginning is known: they are fetched from now on, and read when the engine opens their gates.
    fn take(&mut self, opened: Vec<Opened>) -> Result<(), Failure> {
        let shared = Arc::clone(&self.shared);
        let consumer = self.consumer()?;
        let mut places = TopicPartitionList::new();
        let (mut assigned, mut splits) = (Vec::new(), Vec::new());
        for Opened { partition, epoch, next, end, note } in opened {
            if !shared.claims(partition, epoch) {
                continue; // taken away meanwhile
            }
            let name = shared.naming.input(partition);
            let added = places.add_partition_offset(name, partition.number, Place::Offset(next.0));
            let queue = consumer.split_partition_queue(name, partition.number);
            let (Ok(()), Some(mut queue)) = (added, queue) else {
                let message = format!("take {name}/{}: refused by the client", partition.number);
                return Err(Failure { message, exit: 75 });
            };
            queue.set_nonempty_callback(waker(&self.sleeper));
            let gate = Gate::new(waker(&self.sleeper));
            let until = shared.until.as_ref().map(|until| {
                // A partition that was not there at the start has nothing that is to be read.
                until.get(&partition).copied().unwrap_or(next)
            });
            let skip = note.skip.clone().map(|skip| Offset(skip.start)..Offset(skip.end));
            assigned.push(Assigned {
                partition,
                epoch,
                next,
                end,
                until,
                skip,
                answered: note.model.clone(),
                gate: gate.clone(),
            });
            shared.write_held().insert(partition, Held { epoch, committed: next, note });
            splits.push(Split { partition, epoch, start: next, queue, gate });
        }
        if assigned.is_empty() {
            return Ok(());
        }
        self.splits.append(&mut splits);
        self.tell(Control::Assigned(assigned));
        consumer
            .incremental_assign(&places)
            .map_err(|e| self.shared.failure("take assigned partitions", &e, 75))
    }

    /// The group takes partitions: given up once no transaction holds them, or at once where they are lost already.
    fn revoke(&mut self, list: &TopicPartitionList) -> Result<(), Failure> {
        let consumer = self.consumer()?;
        let lost = consumer.assignment_lost();
        let partitions = self.partitions(list);
        tracing::info!(count = partitions.len(), lost, "partitions revoked");
        self.disown(&partitions, lost);
        self.fetch_no_more(&consumer, list)
    }

    /// Stops reading partitions; unless they are lost, once nothing of theirs is being committed.
    fn disown(&mut self, partitions: &[Partition], lost: bool) {
        let held = |shared: &Shared| {
            let held = shared.read_held();
            partitions.iter().copied().filter(|p| held.contains_key(p)).collect::<Vec<_>>()
        };
        let read = held(&self.shared);
        partitions.iter().for_each(|p| self.shared.claim(*p, None));
        let drop_held = |shared: &Shared| {
            let mut held = shared.write_held();
            read.iter().for_each(|p| drop(held.remove(p)));
        };
        if lost {
            drop_held(&self.shared);
        }
        self.splits.retain(|split| !partitions.contains(&split.partition));
        if read.is_empty() {
            return;
        }
        let (done, answer) = sync_channel(1);
        self.tell(Control::Revoked { partitions: read.clone(), lost, done });
        if !lost {
            let patience = self.shared.config.limits.transaction.0 + REVOKE_MARGIN;
            let deadline = Instant::now() + patience;
            while !self.ends.leave.is_asked() && Instant::now() < deadline {
                match answer.recv_timeout(IDLE) {
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => {}
                }
            }
            drop_held(&self.shared);
        }
    }

    /// Answers a revocation: what was fetched of `list` is not any more.
    fn fetch_no_more(
        &self,
        consumer: &BaseConsumer<Context>,
        list: &TopicPartitionList,
    ) -> Result<(), Failure> {
        super::group::give_up(consumer, list)
            .map_err(|e| self.shared.failure("give up revoked partitions", &e, 75))
    }

    /// Looks anew where partitions begin that are ours: their topic is another one, or their offset does not fit.
    fn reopen(&mut self, partitions: &[Partition]) -> Result<(), Failure> {
        let claimed = self.shared.claimed();
        let ours: Vec<Partition> =
            partitions.iter().copied().filter(|p| claimed.contains(p)).collect();
        if ours.is_empty() {
            return Ok(());
        }
        let consumer = self.consumer()?;
        let mut list = TopicPartitionList::new();
        for partition in &ours {
            list.add_partition(self.shared.naming.input(*partition), partition.number);
        }
        self.disown(&ours, true);
        self.fetch_no_more(&consumer, &list)?;
        self.claim(ours)
    }

    /// Gives everything up, so that the group gives all partitions out again.
    fn leave_to_rejoin(&mut self) -> Result<(), Failure> {
        self.consumer()?.unsubscribe();
        self.rejoining = true;
        Ok(())
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<Partition> {
        let naming = &self.shared.naming;
        list.elements().iter().filter_map(|e| partition(naming, e.topic(), e.partition())).collect()
    }

    fn consumer(&self) -> Result<Arc<BaseConsumer<Context>>, Failure> {
        self.consumer.clone().ok_or_else(|| Failure {
            message: "use the group's client: there is none; this is a bug".to_owned(),
            exit: 75,
        })
    }

    /// What an error of the consumer means: most cure themselves inside the client.
    fn judge(&mut self, error: &KafkaError, partition: Option<Partition>) -> Result<(), Failure> {
        let Some(code) = error.rdkafka_error_code() else {
            self.warn(&error.to_string());
            return Ok(());
        };
        let place = partition
            .map_or_else(String::new, |p| format!(" {}/{}", self.shared.naming.input(p), p.number));
        // The first error of a client that is of no use any more says only that it is; the client knows the cause.
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_)) || code == Code::Fatal;
        let cause = self.consumer.as_ref().and_then(|c| c.client().fatal_error());
        let code = cause.map_or(code, |(code, _)| code);
        match meaning(code, fatal) {
            Meaning::Again => self.warn(&format!("read{place}: the client tries again: {error}")),
            Meaning::Reopen => {
                self.warn(&format!("read{place}: {error}: looking anew where it begins"));
                self.reopen(partition.as_slice())?;
            }
            Meaning::UnknownTopic => {
                self.warn(&format!("read{place}: {error}: comparing the topics' ids"));
                self.shared.doubt_topics();
            }
            Meaning::Lost(how) => self.lose(how),
            Meaning::Disagree => {
                let since = *self.disagreed.get_or_insert_with(Instant::now);
                let session = settings::session(&self.shared.config);
                if session <= since.elapsed() {
                    let message = format!(
                        "join the group {}: another member gives partitions out in another way than \
                         cooperative-sticky (a plain consumer's range or roundrobin?); stop it, or give this \
                         service a kafka.group of its own",
                        self.shared.naming.group
                    );
                    return Err(Failure { message, exit: 78 });
                }
                self.warn(
                    "join the group: its members do not agree yet how partitions are given out",
                );
            }
            Meaning::Exit(exit, remedy) => {
                let failure = self.shared.failure(&format!("read{place}"), error, exit);
                return Err(Failure { message: format!("{}; {remedy}", failure.message), exit });
            }
        }
        Ok(())
    }

    /// The group has given our name to another one: this client is of no use any more.
    fn lose(&mut self, how: How) {
        let Some(consumer) = self.consumer.take() else { return };
        tracing::warn!(
            instance = self.shared.instance,
            ?how,
            "another member has this kafka.instance: looking whether it lives"
        );
        consumer.context().closing.store(true, Ordering::Release);
        let claimed = self.shared.claimed();
        self.disown(&claimed, true);
        drop_aside(consumer);
        let now = Instant::now();
        // Waiting for the same name again is the same loss.
        let since = match &self.lost {
            Some((lost, _)) if lost.how == how => lost.since,
            _ => now,
        };
        let took_over = *self.shared.took_over.lock().unwrap_or_else(PoisonError::into_inner);
        let session = settings::session(&self.shared.config);
        let lost = Lost { how, since, took_over, session, looks: 0 };
        self.lost = Some((lost, now));
        let reason = format!(
            "another process has joined the group as {}: waiting until it is gone",
            self.shared.instance
        );
        self.tell(Control::Outside(Some(reason)));
    }

    /// Joins again once nobody else has our name.
    fn rejoin(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let (Some((lost, next)), None) = (&mut self.lost, &self.consumer) else { return Ok(()) };
        if now < *next {
            return Ok(());
        }
        let held = self.shared.is_held_by_another(ANSWER);
        match lost.step(held, now) {
            Step::Wait(pause) => {
                lost.looks += 1;
                *next = now + pause;
                Ok(())
            }
            Step::Join => {
                tracing::info!("nobody has this kafka.instance any more: joining the group again");
                self.tell(Control::Outside(None));
                self.join()
            }
            Step::Exit => {
                let message = format!(
                    "stay in the group: another live process has the same kafka.instance {}: give each replica \
                     its own name",
                    self.shared.instance
                );
                Err(Failure { message, exit: 78 })
            }
        }
    }

    /// Says a warning at once, and then more and more seldom, with how often it came.
    fn warn(&mut self, line: &str) {
        let now = Instant::now();
        match self.said.get_mut(line) {
            Some(said) => {
                said.count += 1;
                if said.next <= now {
                    said.pause = said.pause.saturating_mul(2).min(RARELY);
                    said.next = now + said.pause;
                    tracing::warn!(times = said.count, "{line}");
                }
            }
            None => {
                tracing::warn!("{line}");
                // Lines that differ in what they quote would pile up.
                if self.said.len() == 64 {
                    self.said.clear();
                }
                let said = Said { count: 1, next: now + SELDOM, pause: SELDOM };
                self.said.insert(line.to_owned(), said);
            }
        }
    }

    fn fail(&mut self, failure: Failure) {
        if !std::mem::replace(&mut self.failed, true) {
            self.tell(Control::Failed(failure));
        }
    }

    /// Waits when `control` is full. An engine that is gone needs no telling.
    fn tell(&self, control: Control) {
        if self.ends.control.blocking_send(control).is_err() {
            tracing::debug!("the engine has gone");
        }
    }

    /// Closes, after leaving the group where it is to be left for good. On a thread of its own: a client that does not
    /// close is left behind.
    fn close(mut self) {
        let Some(consumer) = self.consumer.take() else { return };
        let deadline = Instant::now() + CLOSE;
        let for_good = self.ends.leave.is_for_good();
        if for_good {
            // A static member leaves only when it gives its subscription up.
            consumer.unsubscribe();
        }
        loop {
            let mut rebalances =
                consumer.context().rebalances.lock().unwrap_or_else(PoisonError::into_inner);
            let noted: Vec<Rebalance> = rebalances.drain(..).collect();
            drop(rebalances);
            for rebalance in noted {
                let answer = match rebalance {
                    Rebalance::Assign(_) => consumer.incremental_assign(&TopicPartitionList::new()),
                    Rebalance::Revoke(list) => super::group::give_up(&consumer, &list),
                };
                if let Err(error) = answer {
                    tracing::debug!(%error, "a rebalance was not answered while leaving");
                }
            }
            let left = consumer.assignment().is_ok_and(|list| list.count() == 0);
            if !for_good || left || deadline <= Instant::now() {
                break;
            }
            drop(consumer.poll(Duration::from_millis(20)));
        }
        consumer.context().closing.store(true, Ordering::Release);
        self.splits.clear();
        let (closed, done) = sync_channel::<()>(1);
        let body = move || {
            drop(consumer);
            drop(closed);
        };
        if spawn("close", body).is_ok()
            && done.recv_timeout(CLOSE) == Err(RecvTimeoutError::Timeout)
        {
            tracing::warn!("the consumer did not close within {CLOSE:?} and is left behind");
        }
    }
}

/// Drops a client that is of no use any more, on a thread of its own: that may take its time.
fn drop_aside(consumer: Arc<BaseConsumer<Context>>) {
    if let Err(failure) = spawn("close", move || drop(consumer)) {
        tracing::debug!("{failure}");
    }
}

/// What an error of the consumer means.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// The client tries again by itself.
    Again,
    /// The offset does not fit the log any more.
    Reopen,
    /// A topic is not there, or not yet.
    UnknownTopic,
    /// Another member has our name.
    Lost(How),
    /// The members do not agree how partitions are given out.
    Disagree,
    /// The process must stop: exit code and remedy.
    Exit(u8, &'static str),
}

fn meaning(code: Code, fatal: bool) -> Meaning {
    #[expect(clippy::wildcard_enum_match_arm, reason = "librdkafka knows about 200 codes")]
    match code {
        Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => Meaning::Reopen,
        Code::FencedInstanceId => Meaning::Lost(How::Fenced),
        Code::UnreleasedInstanceId => Meaning::Lost(How::Unreleased),
        Code::UnknownTopicOrPartition
        | Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicId => Meaning::UnknownTopic,
        Code::InconsistentGroupProtocol => Meaning::Disagree,
        Code::TopicAuthorizationFailed => {
            Meaning::Exit(78, "allow READ and DESCRIBE on the input topics")
        }
        Code::GroupAuthorizationFailed => Meaning::Exit(78, "allow READ on the group kafka.group"),
        Code::PollExceeded => {
            Meaning::Exit(75, "the poll thread was stopped for minutes; start again")
        }
        _ if fatal => Meaning::Exit(75, "start again"),
        _ => Meaning::Again,
    }
}

fn waker(sleeper: &Arc<OnceLock<Thread>>) -> impl Fn() + Send + Sync + 'static {
    let sleeper = Arc::clone(sleeper);
    move || {
        if let Some(thread) = sleeper.get() {
            thread.unpark();
        }
    }
}

/// Copies a message out of the client's buffers.
fn copy(message: &BorrowedMessage<'_>, partition: Partition) -> Record {
    Record {
        partition,
        offset: Offset(message.offset()),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: native::headers(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_client_cannot_cure_has_a_meaning_of_its_own() {
        for (code, fatal, expect) in [
            (Code::AutoOffsetReset, false, Meaning::Reopen),
            (Code::OffsetOutOfRange, false, Meaning::Reopen),
            (Code::UnknownTopicOrPartition, false, Meaning::UnknownTopic),
            (Code::FencedInstanceId, true, Meaning::Lost(How::Fenced)),
            (Code::UnreleasedInstanceId, true, Meaning::Lost(How::Unreleased)),
            (Code::InconsistentGroupProtocol, false, Meaning::Disagree),
            (Code::Fatal, true, Meaning::Exit(75, "start again")),
            (Code::BrokerTransportFailure, false, Meaning::Again),
            (Code::AllBrokersDown, false, Meaning::Again),
        ] {
            assert_eq!(meaning(code, fatal), expect, "{code:?}");
        }
        assert!(matches!(meaning(Code::TopicAuthorizationFailed, false), Meaning::Exit(78, _)));
    }
}

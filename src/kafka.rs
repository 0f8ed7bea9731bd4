//! The log on Apache Kafka: a consumer group read by one thread, transactions written by the lanes.
//!
//! ```text
//!  cluster ─► consumer ─► poll thread ─► chunks, control ─► engine ─► lanes[n] ─► lane thread n ─► producer n ─► cluster
//!                              │                                                      │
//!                              └──────► ownership: partition → epoch ◄── asked ───────┘
//! ```
//!
//! * [`source`]: polls, hands records over, takes and gives up partitions. Never waits for a full channel.
//! * [`opening`]: finds out where newly assigned partitions begin ([`begin`]; [`manifests`] where offsets are lost).
//! * [`observe`]: looks at the cluster every few seconds: topic ids, partitions that nobody reads, the end of a job.
//! * [`group`]: what the client calls back, and what the group knows.
//! * [`lane`]: one transaction after the other: check, begin, produce, drain, check, offsets, commit.
//! * [`producer`]: a transactional producer whose calls have a deadline; one that is stuck is left behind.
//! * [`class`]: what an error means. [`settings`]: the clients' properties. [`native`]: what rdkafka does not wrap.
//!
//! Exactly once rests on the brokers: offsets are committed in the transaction of the predictions, under the
//! group's current generation, by a producer that fences its predecessor. What this module adds is that it
//! never goes on after an answer it does not understand, and that it knows its own topics, groups and versions again.

#![expect(
    clippy::disallowed_methods,
    reason = "deadlines towards the cluster are wall time; these threads exist to wait"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use tokio::sync::mpsc;

use native::Topic;

use crate::config::{Config, OutputPartition};
use crate::log::message::{Naming, Notes};
use crate::log::note::Note;
use crate::log::{Control, Failure, Leave, Log, Opening};
use crate::record::{Epoch, ModelId, Offset, Partition, Signature};

pub mod begin;
pub mod class;
pub mod group;
pub mod lane;
mod manifests;
pub mod native;
mod observe;
mod opening;
pub mod producer;
pub mod settings;
pub mod source;
mod twin;

/// How long the cluster may take to answer the first questions.
const FIRST_ANSWER: Duration = Duration::from_secs(15);

/// How long the topics' limits may take; without them a broker's default is taken.
const LIMITS_ANSWER: Duration = Duration::from_secs(5);

/// Room that a topic's limit leaves for a batch's own header, bytes.
const BATCH_HEADER: usize = 1_024;

/// How long the newest manifest may be looked for, for what the last version took and gave.
const LAST_ANSWER: Duration = Duration::from_secs(10);

/// Opens the log that `config` describes: looks at the topics, makes each lane's producer (which ends what a
/// predecessor left open), then joins the group.
///
/// Blocks for as long as that takes: up to a minute when a coordinator is away.
///
/// # Errors
///
/// With exit code 78 where the configuration or the cluster's permissions are wrong, with 75 where the
/// cluster does not answer.
pub fn open(config: &Config, naming: Naming, opening: &Opening) -> Result<Log, Failure> {
    let instance = settings::instance(config).ok_or_else(|| Failure {
        message:
            "name this replica: neither kafka.instance nor $POD_NAME nor the host has a name; \
                  set kafka.instance"
                .to_owned(),
        exit: 78,
    })?;
    let journal = Journal::default();
    let (control_tx, control) = mpsc::channel(8);
    let shared = Arc::new(Shared::open(config, naming, instance, journal, opening.until_end)?);
    let last = shared.last(opening.serving.as_ref());

    let (chunks_tx, chunks) = mpsc::channel(4);
    let lane_count = usize::from(config.kafka.lanes.max(1));
    let (done_tx, done) = mpsc::channel(2 * lane_count);
    let mut ready = Vec::with_capacity(lane_count);
    for number in 0..lane_count {
        ready.push(lane::Lane::new(number, Arc::clone(&shared))?);
    }
    let leave = Leave::default();
    let guard = Guard(control_tx.clone());
    let (orders_tx, orders) = sync_channel(4);
    let source = source::Source::open(
        Arc::clone(&shared),
        source::Ends {
            control: control_tx.clone(),
            chunks: chunks_tx,
            leave: leave.clone(),
            orders,
        },
        &guard,
    )?;
    let (judge, nudges) = sync_channel(1);
    let observer =
        observe::Observer::new(Arc::clone(&shared), control_tx.clone(), orders_tx, leave.clone());
    let mut lanes = Vec::with_capacity(lane_count);
    let mut threads = Vec::with_capacity(lane_count + 1);
    for (number, lane) in ready.into_iter().enumerate() {
        let (transactions, queue) = mpsc::channel(1);
        let (done, control) = (done_tx.clone(), control_tx.clone());
        threads.push(
            guard.spawn(&format!("lane-{number}"), move || lane.run(queue, &done, &control))?,
        );
        lanes.push(transactions);
    }
    threads.push(guard.spawn("poll", move || source.run())?);
    // Not joined: it may be waiting for a cluster that does not answer.
    drop(guard.spawn("observe", move || observer.run(&nudges))?);
    let (patience, judge) = (lane::PATIENCE, opening.until_end.then_some(judge));
    Ok(Log { control, chunks, lanes, done, leave, threads, shared: true, patience, judge, last })
}

/// Starts the threads of a log: one that panics says so, and does not leave the service waiting for it.
struct Guard(mpsc::Sender<Control>);

impl Guard {
    fn spawn(
        &self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>, Failure> {
        let (control, thread) = (self.0.clone(), name.to_owned());
        spawn(name, move || {
            if catch_unwind(AssertUnwindSafe(body)).is_err() {
                let message = format!("the thread {thread} panicked; please report this as a bug");
                let failed = Control::Failed(Failure { message, exit: 75 });
                // Nobody listens any more only if the service is ending anyhow.
                control.blocking_send(failed).unwrap_or_default();
            }
        })
    }
}

/// A partition that is being read.
#[derive(Debug, Clone)]
struct Held {
    epoch: Epoch,
    /// The group's committed offset, by our own commits.
    committed: Offset,
    /// What the next commit carries forward.
    note: Note,
}

/// What the threads of one log share.
pub(crate) struct Shared {
    config: Config,
    naming: Naming,
    instance: String,
    journal: Journal,
    /// For questions to the cluster. A member of nothing.
    look: BaseConsumer<Journal>,
    /// Bytes that every written topic takes in one batch.
    limit: usize,
    /// Topics that are compacted.
    compacted: BTreeSet<String>,
    /// Under `--until-end`: where reading stops, for every partition that was there at the start.
    until: Option<BTreeMap<Partition, Offset>>,
    /// The partitions that the group has assigned, and the epoch of their assignment. Written by the poll thread only.
    claims: RwLock<BTreeMap<Partition, Epoch>>,
    /// Those of them that are being read. Written by the poll thread, notes by the lanes and the observer.
    held: RwLock<BTreeMap<Partition, Held>>,
    /// For group metadata; weak, so that the poll thread alone closes it. Another one after a fencing.
    consumer: RwLock<Weak<BaseConsumer<group::Context>>>,
    /// Producers left behind with a call that did not return, of all lanes.
    stuck: AtomicU32,
    /// The round trip to the cluster, in microseconds, as it was measured last.
    round_trip: AtomicU64,
    /// Whether the cluster answered when it was asked last.
    reachable: AtomicBool,
    /// How often an unknown topic was met, and up to which of these times the topics' ids were compared since.
    topics_doubted: AtomicU64,
    topics_compared: AtomicU64,
    /// When a member with our instance name was there already while this process joined: whoever that is was fenced.
    took_over: Mutex<Option<Instant>>,
}

impl Shared {
    fn open(
        config: &Config,
        naming: Naming,
        instance: String,
        journal: Journal,
        until_end: bool,
    ) -> Result<Self, Failure> {
        let settings = settings::look(config, &instance);
        let look: BaseConsumer<Journal> = settings
            .create_with_context(journal.clone())
            .map_err(|error| journal.failure("configure the Kafka client", &error, 78))?;
        let mut shared = Self {
            config: config.clone(),
            naming,
            instance,
            journal,
            look,
            limit: settings::DEFAULT_LIMIT,
            compacted: BTreeSet::new(),
            until: None,
            claims: RwLock::default(),
            held: RwLock::default(),
            consumer: RwLock::new(Weak::new()),
            stuck: AtomicU32::new(0),
            round_trip: AtomicU64::new(0),
            reachable: AtomicBool::new(true),
            topics_doubted: AtomicU64::new(0),
            topics_compared: AtomicU64::new(0),
            took_over: Mutex::default(),
        };
        let counts = shared.topics(servers(&settings))?;
        shared.read_settings(&settings)?;
        shared.measure();
        if until_end {
            shared.until = Some(shared.ends(&counts)?);
        }
        Ok(shared)
    }

    /// Looks at the topics before anything is read: they are there, and wide enough. The partitions of each.
    fn topics(&self, servers: &str) -> Result<BTreeMap<String, i32>, Failure> {
        let naming = &self.naming;
        let mut counts = BTreeMap::new();
        for topic in naming.all() {
            let metadata = self.look.fetch_metadata(Some(topic), FIRST_ANSWER).map_err(|e| {
                drop(self.look.poll(Duration::from_millis(200)));
                let what = format!("read metadata of topic {topic} from {servers}");
                self.failure(&what, &e, if self.journal.refused() { 78 } else { 75 })
            })?;
            let count = metadata.topics().first().map_or(0, |t| t.partitions().len());
            if count == 0 {
                let message = format!(
                    "read metadata of topic {topic}: it does not exist or may not be described; create it \
                     or allow DESCRIBE"
                );
                return Err(Failure { message, exit: 78 });
            }
            counts.insert(topic.to_owned(), i32::try_from(count).unwrap_or(i32::MAX));
        }
        for (input, dead_letter) in naming.inputs.iter().zip(&naming.dead_letters) {
            let mut written = vec![dead_letter];
            if naming.partition == OutputPartition::Same {
                written.push(&naming.output);
            }
            let wanted = counts[input];
            if let Some(topic) = written.into_iter().find(|topic| counts[*topic] < wanted) {
                let message = format!(
                    "write partition by partition: topic {topic} has {} partitions, input topic \
                     {input} has {wanted}; add partitions to {topic}",
                    counts[topic]
                );
                return Err(Failure { message, exit: 78 });
            }
        }
        Ok(counts)
    }

    /// What the written topics take: the smallest `max.message.bytes` less the framing, a broker's default where it
    /// may not be read; and which topics are compacted.
    fn read_settings(&mut self, settings: &ClientConfig) -> Result<(), Failure> {
        let admin: AdminClient<Journal> = settings
            .create_with_context(self.journal.clone())
            .map_err(|error| self.failure("configure the Kafka client", &error, 78))?;
        let written = self.naming.written();
        let specifiers: Vec<_> = written.iter().map(|t| ResourceSpecifier::Topic(t)).collect();
        let options = AdminOptions::new().request_timeout(Some(LIMITS_ANSWER));
        let described = match wait(admin.describe_configs(&specifiers, &options)) {
            Ok(described) => described,
            Err(error) => {
                tracing::info!(%error, "topic settings cannot be read, the broker's default is taken");
                Vec::new()
            }
        };
        let mut limits = Vec::new();
        let mut compacted = BTreeSet::new();
        for (topic, resource) in written.iter().zip(&described) {
            let Ok(resource) = resource else { continue };
            let value = |key| resource.get(key).and_then(|entry| entry.value.as_deref());
            limits.extend(value("max.message.bytes").and_then(|v| v.parse::<usize>().ok()));
            if value("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
                compacted.insert((*topic).to_owned());
            }
        }
        self.compacted = compacted;
        self.limit = limits.into_iter().min().map_or(settings::DEFAULT_LIMIT, |limit| {
            limit.saturating_sub(BATCH_HEADER).clamp(1_024, 100_000_000)
        });
        Ok(())
    }

    /// How long the cluster takes for one answer: the best of three.
    fn measure(&self) {
        let topic = self.naming.output.as_str();
        let ask = |_| {
            let begin = Instant::now();
            let asked = self.look.fetch_metadata(Some(topic), LIMITS_ANSWER);
            asked.ok().map(|_| begin.elapsed())
        };
        if let Some(best) = (0..3).map_while(ask).min() {
            self.set_round_trip(best);
        }
    }

    /// Describes topics. Where the cluster has no controller to ask, by their partitions alone: an id that is not known
    /// is not compared now, and the observer goes on asking.
    fn describe(&self, names: &[&str], timeout: Duration) -> KafkaResult<BTreeMap<String, Topic>> {
        let described = native::describe_topics(self.look.client(), names, timeout);
        let Err(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut)) = described else {
            return described;
        };
        let mut topics = BTreeMap::new();
        for name in names {
            let metadata = self.look.fetch_metadata(Some(name), timeout)?;
            let count = metadata.topics().first().map_or(0, |t| t.partitions().len());
            let topic = Topic { id: None, partitions: i32::try_from(count).unwrap_or(i32::MAX) };
            topics.insert((*name).to_owned(), topic);
        }
        tracing::warn!("the cluster names no controller: topic ids are not compared for now");
        Ok(topics)
    }

    fn set_round_trip(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.round_trip.store(micros, Ordering::Release);
    }

    fn backoff(&self) -> Duration {
        settings::backoff(Duration::from_micros(self.round_trip.load(Ordering::Acquire)))
    }

    /// The ends of all partitions of the input topics, as readers of committed records see them now.
    fn ends(&self, counts: &BTreeMap<String, i32>) -> Result<BTreeMap<Partition, Offset>, Failure> {
        let partitions = self.naming.partitions(|name| counts.get(name).copied());
        let pairs: Vec<(&str, i32)> =
            partitions.iter().map(|p| (self.naming.input(*p), p.number)).collect();
        let which = native::Which::Stable;
        let ends = native::list_offsets(self.look.client(), &pairs, which, FIRST_ANSWER)
            .map_err(|error| self.failure("read the ends of the input topics", &error, 75))?;
        Ok(partitions.into_iter().zip(ends.into_iter().map(Offset)).collect())
    }

    /// The model that the group's commits name, where it is another than the one that is to serve, with what it took and
    /// gave by the newest manifest.
    fn last(&self, serving: Option<&ModelId>) -> Option<(ModelId, Signature)> {
        let serving = serving?;
        let client = self.look.client();
        let offsets =
            native::group_offsets(client, &self.naming.group, None, false, LIMITS_ANSWER).ok()?;
        let notes = offsets.iter().filter_map(|offset| Note::read(&offset.metadata));
        let mut others = notes.filter(|note| note.model.is_some() && !note.is_of(serving));
        others.next()?;
        let topic = &self.naming.manifest;
        let described = native::describe_topics(client, &[topic], LIMITS_ANSWER).ok()?;
        let count = described.get(topic)?.partitions;
        let pairs: Vec<(&str, i32)> = (0..count).map(|number| (topic.as_str(), number)).collect();
        let ask = |which| native::list_offsets(client, &pairs, which, LIMITS_ANSWER).ok();
        let (low, high) = (ask(native::Which::First)?, ask(native::Which::High)?);
        let places = (0..count).zip(low.into_iter().zip(high)).collect();
        let settings = settings::reader(&self.config, &self.instance);
        let deadline = Instant::now() + LAST_ANSWER;
        let newest = manifests::Reader::new(&settings, &self.journal, topic, places)
            .and_then(|mut reader| manifests::newest(&mut reader, &self.naming.group, deadline));
        newest.unwrap_or_else(|failure| {
            tracing::warn!("{failure}; what the version before took and gave is not compared");
            None
        })
    }

    fn most_batches(&self) -> usize {
        usize::try_from(self.config.commit.max_batches).unwrap_or(usize::MAX).max(1)
    }

    fn read_held(&self) -> RwLockReadGuard<'_, BTreeMap<Partition, Held>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_held(&self) -> RwLockWriteGuard<'_, BTreeMap<Partition, Held>> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether records of this epoch are being read and may be committed.
    fn owns(&self, partition: Partition, epoch: Epoch) -> bool {
        self.read_held().get(&partition).is_some_and(|held| held.epoch == epoch)
    }

    /// Whether the group has assigned this partition, in this epoch.
    fn claims(&self, partition: Partition, epoch: Epoch) -> bool {
        let claims = self.claims.read().unwrap_or_else(PoisonError::into_inner);
        claims.get(&partition) == Some(&epoch)
    }

    /// The partitions that the group has assigned.
    fn claimed(&self) -> Vec<Partition> {
        let claims = self.claims.read().unwrap_or_else(PoisonError::into_inner);
        claims.keys().copied().collect()
    }

    fn claim(&self, partition: Partition, epoch: Option<Epoch>) {
        let mut claims = self.claims.write().unwrap_or_else(PoisonError::into_inner);
        match epoch {
            Some(epoch) => claims.insert(partition, epoch),
            None => claims.remove(&partition),
        };
    }

    /// What the commits of these partitions carry forward.
    fn notes<'a>(&self, of: impl Iterator<Item = &'a Partition>) -> Notes {
        let held = self.read_held();
        of.filter_map(|p| Some((*p, held.get(p)?.note.clone()))).collect()
    }

    /// Remembers a commit: the offset, and the model whose records it covers, if any.
    fn commit(&self, partition: Partition, epoch: Epoch, next: Offset, model: Option<&ModelId>) {
        let mut held = self.write_held();
        let Some(held) = held.get_mut(&partition).filter(|held| held.epoch == epoch) else {
            return;
        };
        held.committed = next;
        if let Some(model) = model {
            held.note = held.note.clone().answered(model);
        }
        if held.note.skip.as_ref().is_some_and(|skip| skip.end <= next.0) {
            held.note.skip = None;
        }
    }

    fn consumer(&self) -> Option<Arc<BaseConsumer<group::Context>>> {
        self.consumer.read().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Whether the group has a member of our name, which is another one while this process is none; `None` where that
    /// is not told.
    fn is_held_by_another(&self, timeout: Duration) -> Option<bool> {
        let group = native::describe_group(self.look.client(), &self.naming.group, timeout);
        let group = group.ok()?;
        let ours = |member: &native::Member| member.instance.as_deref() == Some(&self.instance);
        Some(group.members.iter().any(ours))
    }

    fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Acquire)
    }

    /// An input topic was not known to a broker: it may have been deleted.
    fn doubt_topics(&self) {
        self.topics_doubted.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the topics' ids were compared since the last doubt.
    fn topics_are_known(&self) -> bool {
        let doubted = self.topics_doubted.load(Ordering::Acquire);
        doubted <= self.topics_compared.load(Ordering::Acquire)
    }

    fn failure(&self, what: &str, error: &KafkaError, exit: u8) -> Failure {
        self.journal.failure(what, error, exit)
    }
}

/// Passes the client's log on, and remembers the last line that names the cause of a refused connection:
/// the errors themselves only say that a broker is away.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<Option<String>>>);

impl Journal {
    /// What kept the last connection from coming up, as the client's log had it.
    pub fn cause(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the broker was reached and did not want us: no repetition cures that.
    fn refused(&self) -> bool {
        let cause = self.cause().unwrap_or_default().to_ascii_lowercase();
        ["authentication", "certificate"].iter().any(|word| cause.contains(word))
    }

    /// Keeps a line that names why there is no connection.
    fn note(&self, line: &str) {
        let lower = line.to_ascii_lowercase();
        let causes = ["authentication", "ssl", "sasl", "resolve", "connect to"];
        if causes.iter().any(|word| lower.contains(word)) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(line.to_owned());
        }
    }

    fn error(&self, error: &KafkaError, reason: &str) {
        self.note(reason);
        tracing::debug!(target: "rdkafka", %error, "{reason}");
    }

    fn write(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        if (level as i32) <= RDKafkaLogLevel::Warning as i32 {
            self.note(line);
        }
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(target: "rdkafka", facility, "{line}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "rdkafka", facility, "{line}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "rdkafka", facility, "{line}"),
        }
    }

    fn failure(&self, what: &str, error: &KafkaError, exit: u8) -> Failure {
        // Not `Display`: for a property that is not taken it prints the value, which may be a password.
        let why = if let KafkaError::ClientConfig(_, why, key, _) = error {
            format!("property {key}: {why}")
        } else {
            error.to_string()
        };
        let cause = self
            .cause()
            .map_or_else(String::new, |line| format!(" (last from the client: {line})"));
        Failure { message: format!("{what}: {why}{cause}"), exit }
    }
}

impl ClientContext for Journal {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.write(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Self::error(self, &error, reason);
    }
}

impl ConsumerContext for Journal {}

fn servers(settings: &ClientConfig) -> &str {
    let servers =
        settings.get("bootstrap.servers").or_else(|| settings.get("metadata.broker.list"));
    servers.unwrap_or("no bootstrap.servers in kafka.common")
}

/// Runs a future of the admin client to its end on this thread; that client polls itself.
fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut TaskContext::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(body).map_err(|error| Failure {
        message: format!("start thread {name}: {error}; allow the process more threads"),
        exit: 75,
    })
}

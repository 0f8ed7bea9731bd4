//! The log on Apache Kafka: a consumer group read by one thread, transactions written by the lanes.
//!
//! ```text
//!  cluster ─► consumer ─► poll thread ─► chunks, control ─► engine ─► lanes[n] ─► lane thread n ─► producer n ─► cluster
//!                              │                                                      │
//!                              └──────► ownership: partition → epoch ◄── asked ───────┘
//! ```
//!
//! * [`source`]: polls, hands records over, takes and gives up partitions. Never waits for a full channel.
//! * [`group`]: what the client calls back, and what the group knows.
//! * [`lane`]: one transaction after the other: check, begin, produce, drain, check, offsets, commit.
//! * [`producer`]: a transactional producer whose calls have a deadline; one that is stuck is left behind.
//! * [`class`]: what an error means. [`settings`], [`owned`]: the clients' properties. [`journal`]: what the clients say.
//!
//! Exactly once rests on the brokers: offsets are committed in the transaction of the predictions, under the
//! group's current generation, by a producer that fences its predecessor. What this module adds is that it
//! never goes on after an answer it does not understand.

#![expect(
    clippy::disallowed_methods,
    reason = "deadlines towards the cluster are wall time; these threads exist to wait"
)]

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, OutputPartition};
use crate::log::message::Naming;
use crate::log::{Failure, Log};
use crate::record::{Epoch, Partition};

pub mod class;
pub mod group;
pub mod journal;
pub mod lane;
pub mod native;
pub mod owned;
pub mod producer;
pub mod settings;
pub mod source;

pub use journal::Journal;

/// How long the cluster may take to answer the first questions.
const FIRST_ANSWER: Duration = Duration::from_secs(15);

/// How long the topics' limits may take; without them a broker's default is taken.
const LIMITS_ANSWER: Duration = Duration::from_secs(5);

/// Room that a topic's limit leaves for a batch's own header, bytes.
const BATCH_HEADER: usize = 1_024;

/// Opens the log that `config` describes: looks at the topics, makes each lane's producer (which ends what a
/// predecessor left open), then joins the group.
///
/// Blocks for as long as that takes: up to a minute when a coordinator is away.
///
/// # Errors
///
/// With exit code 78 where the configuration or the cluster's permissions are wrong, with 75 where the
/// cluster does not answer.
pub fn open(config: &Config, naming: Naming) -> Result<Log, Failure> {
    let instance = settings::instance(config)?;
    let journal = Journal::new(config);
    let limit = look(config, &naming, &instance, &journal)?;

    let (control_tx, control) = mpsc::channel(8);
    let (chunks_tx, chunks) = mpsc::channel(4);
    let lane_count = usize::from(config.kafka.lanes.max(1));
    let (done_tx, done) = mpsc::channel(2 * lane_count);
    let shared = Arc::new(Shared {
        config: config.clone(),
        naming,
        instance,
        journal,
        owned: RwLock::default(),
        consumer: OnceLock::new(),
        stuck: std::sync::atomic::AtomicU32::new(0),
    });

    let mut lanes = Vec::with_capacity(lane_count);
    let mut threads = Vec::with_capacity(lane_count + 1);
    let mut ready = Vec::with_capacity(lane_count);
    for number in 0..lane_count {
        ready.push(lane::Lane::new(number, Arc::clone(&shared), limit)?);
    }
    let leave = CancellationToken::new();
    let source =
        source::Source::open(Arc::clone(&shared), control_tx.clone(), chunks_tx, leave.clone())?;
    for (number, lane) in ready.into_iter().enumerate() {
        let (transactions, queue) = mpsc::channel(1);
        let (done, control) = (done_tx.clone(), control_tx.clone());
        threads.push(spawn(&format!("lane-{number}"), move || lane.run(queue, &done, &control))?);
        lanes.push(transactions);
    }
    threads.push(spawn("poll", move || source.run())?);
    Ok(Log { control, chunks, lanes, done, leave, threads })
}

/// What the threads of one log share.
pub(crate) struct Shared {
    config: Config,
    naming: Naming,
    instance: String,
    journal: Journal,
    /// The partitions that are ours and the epoch of their assignment. Written by the poll thread only.
    owned: RwLock<BTreeMap<Partition, Epoch>>,
    /// For group metadata and committed offsets; weak, so that the poll thread alone closes it.
    consumer: OnceLock<Weak<BaseConsumer<group::Context>>>,
    /// Producers left behind with a call that did not return, of all lanes.
    stuck: std::sync::atomic::AtomicU32,
}

impl Shared {
    fn owns(&self, partition: Partition, epoch: Epoch) -> bool {
        let owned = self.owned.read().unwrap_or_else(PoisonError::into_inner);
        owned.get(&partition) == Some(&epoch)
    }

    fn own(&self, partition: Partition, epoch: Option<Epoch>) {
        let mut owned = self.owned.write().unwrap_or_else(PoisonError::into_inner);
        match epoch {
            Some(epoch) => owned.insert(partition, epoch),
            None => owned.remove(&partition),
        };
    }

    fn consumer(&self) -> Option<Arc<BaseConsumer<group::Context>>> {
        self.consumer.get().and_then(Weak::upgrade)
    }

    fn failure(&self, what: &str, error: &KafkaError, exit: u8) -> Failure {
        self.journal.failure(what, error, exit)
    }
}

/// Looks at the topics before anything is read. Gives the largest message that all written topics take,
/// bytes.
fn look(
    config: &Config,
    naming: &Naming,
    instance: &str,
    journal: &Journal,
) -> Result<usize, Failure> {
    let settings = settings::look(config, instance);
    let configure = |e| journal.failure("configure the Kafka client", &e, 78);
    let admin: AdminClient<Journal> =
        settings.create_with_context(journal.clone()).map_err(configure)?;
    // Not the admin client: nobody polls its queue, in which librdkafka says why it has no connection.
    let client: BaseConsumer<Journal> =
        settings.create_with_context(journal.clone()).map_err(configure)?;
    let partitions = |topic: &str| {
        let metadata = client.fetch_metadata(Some(topic), FIRST_ANSWER).map_err(|e| {
            drop(client.poll(Duration::from_millis(200)));
            let what = format!("read metadata of topic {topic} from {}", servers(&settings));
            journal.failure(&what, &e, if journal.refused() { 78 } else { 75 })
        })?;
        let count = metadata.topics().first().map_or(0, |t| t.partitions().len());
        if count == 0 {
            let message = format!(
                "read metadata of topic {topic}: it does not exist or may not be described; create it \
                 or allow DESCRIBE"
            );
            return Err(Failure { message, exit: 78 });
        }
        Ok(count)
    };
    let output = partitions(&naming.output)?;
    partitions(&naming.manifest)?;
    for (input, dead_letter) in naming.inputs.iter().zip(&naming.dead_letters) {
        let wanted = partitions(input)?;
        let mut narrow = vec![(dead_letter, partitions(dead_letter)?)];
        if naming.partition == OutputPartition::Same {
            narrow.push((&naming.output, output));
        }
        if let Some((topic, count)) = narrow.into_iter().find(|(_, count)| *count < wanted) {
            let message = format!(
                "write partition by partition: topic {topic} has {count} partitions, input topic \
                 {input} has {wanted}; add partitions to {topic}"
            );
            return Err(Failure { message, exit: 78 });
        }
    }
    Ok(topic_limit(&admin, &naming.written()).min(settings::own_limit(config)))
}

fn servers(settings: &ClientConfig) -> &str {
    let servers =
        settings.get("bootstrap.servers").or_else(|| settings.get("metadata.broker.list"));
    servers.unwrap_or("no bootstrap.servers in kafka.common")
}

/// The smallest `max.message.bytes` of `topics` less the framing; a broker's default where it may not be read.
fn topic_limit(admin: &AdminClient<Journal>, topics: &[&str]) -> usize {
    let specifiers: Vec<_> = topics.iter().map(|t| ResourceSpecifier::Topic(t)).collect();
    let options = AdminOptions::new().request_timeout(Some(LIMITS_ANSWER));
    let described = match wait(admin.describe_configs(&specifiers, &options)) {
        Ok(described) => described,
        Err(error) => {
            tracing::info!(%error, "topic limits cannot be read, the broker's default is taken");
            Vec::new()
        }
    };
    let limits = described.iter().filter_map(|resource| {
        resource.as_ref().ok()?.get("max.message.bytes")?.value.as_ref()?.parse::<usize>().ok()
    });
    limits.min().map_or(settings::DEFAULT_LIMIT, |limit| {
        limit.saturating_sub(BATCH_HEADER).clamp(1_024, 100_000_000)
    })
}

/// Runs a future of the admin client to its end on this thread; that client polls itself.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
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

fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, Failure> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(body).map_err(|error| Failure {
        message: format!("start thread {name}: {error}; allow the process more threads"),
        exit: 75,
    })
}

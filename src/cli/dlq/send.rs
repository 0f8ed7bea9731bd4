//! Sends records in again: all of a chunk and how far the dead letters were redriven, in one transaction.

#![expect(
    clippy::disallowed_methods,
    reason = "deadlines towards the cluster and the time of writing are wall time"
)]

use std::fs::{File, TryLockError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{
    BaseRecord, DeliveryResult, NoCustomPartitioner, Producer as _, ProducerContext,
    ThreadedProducer,
};
use rdkafka::topic_partition_list::{Offset as At, TopicPartitionList};

use super::place::{Letters, Place};
use super::progress::Progress;
use crate::cli::cluster::Cluster;
use crate::config::Config;
use crate::failure::{Exit, Failure};
use crate::file;
use crate::kafka::class::is_of_a_record;
use crate::kafka::settings::{self, Tuning};
use crate::kafka::{Journal, native};
use crate::log::letter::Original;
use crate::record::Offset;
use crate::sqlite::{self, Store};

/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a full queue, and two tries of a call.
const PAUSE: Duration = Duration::from_millis(20);

/// A record on its way back.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) original: Original,
}

/// A record that its topic does not take: its place among the items, and the broker's words.
pub(super) type Refused = (usize, String);

/// How far a partition of a dead-letter topic was redriven.
pub(super) type Moved<'a> = (&'a str, i32, Progress);

/// What sends.
pub(super) enum Sender<'a> {
    Kafka(Kafka<'a>),
    Embedded {
        store: Store,
        group: &'a str,
        /// Held: two that redrive would both do it.
        _lock: File,
    },
}

impl<'a> Sender<'a> {
    /// Ends what a predecessor has left open. What was redriven is to be read after this.
    ///
    /// # Errors
    ///
    /// A cluster that does not answer (75) or refuses (78); another process that redrives (75).
    pub(super) fn open(config: &Config, letters: &'a Letters) -> Result<Self, Failure> {
        match &letters.place {
            Place::Kafka(cluster) => {
                let mut kafka = Kafka::new(config, cluster);
                kafka.renew()?;
                Ok(Self::Kafka(kafka))
            }
            Place::Embedded { file: log, .. } => {
                let path = file::beside(log, ".tidemill-dlq-lock");
                let fail = |why: String| Failure {
                    message: format!("lock {}: {why}", path.display()),
                    exit: Exit::Temporary,
                };
                let lock = file::writable(&path).map_err(|error| fail(error.to_string()))?;
                lock.try_lock().map_err(|error| match error {
                    TryLockError::WouldBlock => fail("another process redrives it".to_owned()),
                    TryLockError::Error(error) => fail(error.to_string()),
                })?;
                let store = Store::open(log)?;
                Ok(Self::Embedded { store, group: &letters.group, _lock: lock })
            }
        }
    }

    /// Sends items and says how far that is: both, or neither. Where some are refused, nothing was sent.
    ///
    /// # Errors
    ///
    /// With exit code 75 where the next run must find out how far it came, with 78 where the cluster refuses.
    pub(super) fn send(
        &mut self,
        items: &[&Item],
        moved: &[Moved<'_>],
    ) -> Result<Vec<Refused>, Failure> {
        match self {
            Self::Kafka(kafka) => {
                let refused = kafka.send(items, moved)?;
                if !refused.is_empty() {
                    kafka.renew()?;
                }
                Ok(refused)
            }
            Self::Embedded { store, group, .. } => {
                let messages: Vec<_> = items.iter().map(|item| stored(item)).collect();
                let offsets: Vec<_> = moved
                    .iter()
                    .map(|(topic, partition, progress)| {
                        (*topic, *partition, Offset(progress.first()), progress.text())
                    })
                    .collect();
                let done = store.append_and_commit(&messages, group, &offsets);
                done?;
                Ok(Vec::new())
            }
        }
    }
}

fn stored(item: &Item) -> (&str, i32, sqlite::Message) {
    let Original { timestamp, key, value, headers } = item.original.clone();
    let now = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
    };
    let timestamp = timestamp.unwrap_or_else(now);
    (&item.topic, item.partition, sqlite::Message { timestamp, key, value, headers })
}

/// Collects what the broker did not take.
struct Reports {
    journal: Journal,
    failed: Mutex<Vec<(usize, Code)>>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.journal.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        ClientContext::error(&self.journal, error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, item: usize) {
        if let Err((error, _)) = result {
            let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.push((item, code));
        }
    }
}

type Producer = ThreadedProducer<Reports, NoCustomPartitioner>;

/// A transactional producer with an id of its own: one that redrives fences another one of the same group.
pub(super) struct Kafka<'a> {
    cluster: &'a Cluster,
    settings: ClientConfig,
    producer: Option<Arc<Producer>>,
}

impl<'a> Kafka<'a> {
    fn new(config: &Config, cluster: &'a Cluster) -> Self {
        let tuning = Tuning {
            limit: settings::DEFAULT_LIMIT,
            // The broker's verdict on a record is to be its own.
            isolated: true,
            backoff: settings::backoff(Duration::ZERO),
        };
        let mut settings = settings::producer(config, "tidemill-dlq", 0, tuning);
        settings.set("transactional.id", format!("tidemill/{}/dlq", config.kafka.group));
        Self { cluster, settings, producer: None }
    }

    /// A new producer; the one before, and its transaction, end.
    fn renew(&mut self) -> Result<(), Failure> {
        self.producer = None;
        let failed = |error| self.cluster.failure("configure the Kafka producer", &error);
        let reports = Reports { journal: self.cluster.journal().clone(), failed: Mutex::default() };
        let producer: Producer = self.settings.create_with_context(reports).map_err(failed)?;
        let producer = Arc::new(producer);
        self.cluster.journal().identity().keep(&producer, |producer| producer.client());
        self.call("initialise transactions", |left| producer.init_transactions(left))?;
        self.producer = Some(producer);
        Ok(())
    }

    fn send(&self, items: &[&Item], moved: &[Moved<'_>]) -> Result<Vec<Refused>, Failure> {
        let Some(producer) = &self.producer else { return Ok(Vec::new()) };
        let begun = producer.begin_transaction();
        begun.map_err(|error| self.failure("begin a transaction", &error))?;
        let (mut refused, mut stopped) = (Vec::new(), None);
        for (place, item) in items.iter().enumerate() {
            match Self::hand_over(producer, place, item) {
                Ok(()) => (),
                Err(error) => match error.rdkafka_error_code() {
                    Some(code) if is_of_a_record(code) => refused.push((place, error.to_string())),
                    // The report on an earlier one says why.
                    Some(Code::State) => {
                        stopped = Some(error);
                        break;
                    }
                    _ => return Err(self.failure("send a record", &error)),
                },
            }
        }
        self.call("send the records", |left| producer.flush(left))?;
        let reports = &producer.client().context().failed;
        let failed = std::mem::take(&mut *reports.lock().unwrap_or_else(PoisonError::into_inner));
        let (of_records, others): (Vec<_>, Vec<_>) =
            failed.into_iter().partition(|(_, code)| is_of_a_record(*code));
        refused.extend(of_records.into_iter().map(|(place, code)| (place, code.to_string())));
        if !refused.is_empty() {
            return Ok(refused);
        }
        let others = others.into_iter().map(|(_, code)| KafkaError::MessageProduction(code));
        if let Some(error) = others.chain(stopped).next() {
            return Err(self.failure("send a record", &error));
        }
        self.offsets(producer, moved)?;
        self.call("commit a transaction (the next run finds out whether it was)", |left| {
            producer.commit_transaction(left)
        })?;
        Ok(Vec::new())
    }

    fn hand_over(producer: &Producer, place: usize, item: &Item) -> Result<(), KafkaError> {
        let Original { timestamp, key, value, headers } = &item.original;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut list = OwnedHeaders::new_with_capacity(headers.len());
            for header in headers {
                native::add_header(&mut list, &header.name, header.value.as_deref());
            }
            let record = BaseRecord::<[u8], [u8], usize> {
                topic: &item.topic,
                partition: Some(item.partition),
                payload: value.as_deref(),
                key: key.as_deref(),
                timestamp: *timestamp,
                headers: (!headers.is_empty()).then_some(list),
                delivery_opaque: place,
            };
            let Err((error, _)) = producer.send(record) else { return Ok(()) };
            let full = error.rdkafka_error_code() == Some(Code::QueueFull);
            if !full || deadline <= Instant::now() {
                return Err(error);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Adds to the open transaction how far the dead letters were redriven.
    fn offsets(&self, producer: &Producer, moved: &[Moved<'_>]) -> Result<(), Failure> {
        let what = "commit what was redriven";
        let mut list = TopicPartitionList::with_capacity(moved.len());
        for (topic, partition, progress) in moved {
            let place = At::Offset(progress.first());
            let added = list.add_partition_offset(topic, *partition, place);
            added.map_err(|error| self.failure(what, &error))?;
            if let Some(mut element) = list.find_partition(topic, *partition) {
                element.set_metadata(progress.text());
            }
        }
        let Some(membership) = self.cluster.membership() else {
            let message = format!("{what}: the client has no group; please report this as a bug");
            return Err(Failure { message, exit: Exit::Temporary });
        };
        self.call(what, |left| producer.send_offsets_to_transaction(&list, &membership, left))
    }

    /// Makes a call again while its error says that this helps.
    fn call(
        &self,
        what: &str,
        call: impl Fn(Duration) -> Result<(), KafkaError>,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match call(left) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && !left.is_zero() => {
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(self.failure(what, &error)),
            }
        }
    }

    fn failure(&self, what: &str, error: &KafkaError) -> Failure {
        // A message that is dropped because the producer was fenced says only that it was dropped.
        let fatal = self.producer.as_ref().and_then(|producer| producer.client().fatal_error());
        let codes = [fatal.map(|(code, _)| code), error.rdkafka_error_code()];
        let fenced = |code: Option<Code>| matches!(code, Some(Code::Fenced | Code::ProducerFenced));
        if codes.into_iter().any(fenced) {
            let message = format!(
                "{what}: another process has begun to redrive for this group and has ended this one; nothing is redriven \
                 twice, let that one end and run this again for what is left"
            );
            return Failure { message, exit: Exit::Temporary };
        }
        self.cluster.failure(what, error)
    }
}

//! Reads topics whole, without joining the group: to an end that is fixed before, as a reader of committed records.

#![expect(
    clippy::disallowed_methods,
    reason = "deadlines towards a cluster that does not answer are wall time, and this command exists to wait"
)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, OwnedResourceSpecifier, ResourceSpecifier,
};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset as Place, TopicPartitionList};

use crate::cli::terminal;
use crate::config::{Config, properties};
use crate::failure::{Exit, Failure};
use crate::kafka::{Journal, native, settings};
use crate::log::note::Note;

/// How long the cluster may take to answer, and a topic may give nothing before its end. A broker ends a dead
/// transaction within its time-out (15 s) and the interval at which it looks (10 s).
pub(super) const ANSWER: Duration = Duration::from_secs(45);
/// How long it may take to answer the first question.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(10);
/// Between two questions that are asked again.
const AGAIN: Duration = Duration::from_millis(100);
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);

/// The first and the last offset of each partition that is read, half open.
pub(super) type Ends = BTreeMap<i32, Range<i64>>;

/// What the group has committed in a partition.
#[derive(Debug, Clone, Default)]
pub(super) struct Committed {
    pub(super) next: Option<i64>,
    pub(super) note: Option<Note>,
}

/// A cluster and the group that is judged.
pub(super) struct Cluster {
    group: String,
    settings: ClientConfig,
    journal: Journal,
    /// Sees the ends of committed records, and waits for offsets of open transactions.
    stable: Arc<BaseConsumer<Journal>>,
    /// Sees the ends of everything, and offsets as they are.
    plain: Arc<BaseConsumer<Journal>>,
    started: Instant,
    told: Cell<Instant>,
    messages: Cell<u64>,
}

impl Cluster {
    /// For the group of this configuration; `name` is what the brokers are told of who asks.
    pub(super) fn new(config: &Config, name: &str) -> Result<Self, Failure> {
        let mut settings = settings::consumer(config, name, 1);
        // Nobody joins the group; and the newer protocol does not let a client choose what it reads.
        for key in ["group.instance.id", "group.protocol", "group.remote.assignor"] {
            settings.remove(key);
        }
        for (key, value) in [
            ("auto.offset.reset", "earliest"),
            ("statistics.interval.ms", "0"),
            // The end of a partition is told with the first answer that is empty.
            ("fetch.wait.max.ms", "20"),
            // What is fetched is compressed, and may be many times as much in memory.
            ("fetch.max.bytes", "2097152"),
            ("fetch.message.max.bytes", "262144"),
            ("queued.max.messages.kbytes", "16384"),
            ("queued.min.messages", "10000"),
        ] {
            settings.set(key, value);
        }
        let journal = Journal::new(config);
        journal.identity().ready()?;
        let client = |settings: &ClientConfig| {
            let client = made(settings, &journal);
            client.map_err(|error| failure(&journal, "configure the Kafka client", &error))
        };
        let mut plain = settings.clone();
        plain.set("isolation.level", "read_uncommitted");
        let (plain, stable) = (client(&plain)?, client(&settings)?);
        let now = Instant::now();
        Ok(Self {
            group: config.kafka.group.clone(),
            settings,
            journal,
            stable,
            plain,
            started: now,
            told: Cell::new(now),
            messages: Cell::new(0),
        })
    }

    pub(super) fn failure(&self, what: &str, error: &KafkaError) -> Failure {
        // The client says in its queue why it has no connection.
        drop(self.plain.poll(Duration::ZERO));
        drop(self.stable.poll(Duration::ZERO));
        failure(&self.journal, what, error)
    }

    /// Asks until there is an answer, or `patience` is over.
    fn ask<T>(
        &self,
        what: &str,
        patience: Duration,
        mut question: impl FnMut() -> Result<T, KafkaError>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + patience;
        loop {
            match question() {
                Ok(answer) => return Ok(answer),
                Err(error) if is_final(&error) || deadline <= Instant::now() => {
                    return Err(self.failure(what, &error));
                }
                Err(_) => std::thread::sleep(AGAIN),
            }
        }
    }

    /// The topics' ids and partition counts; those that do not exist are missing.
    pub(super) fn topics(
        &self,
        names: &[&str],
    ) -> Result<BTreeMap<String, native::Topic>, Failure> {
        self.ask(&format!("describe the topics {}", names.join(", ")), FIRST_ANSWER, || {
            native::describe_topics(self.plain.client(), names, QUESTION)
        })
    }

    /// The topics' `cleanup.policy`; those that may not be read are missing.
    pub(super) fn policies(&self, names: &[&str]) -> BTreeMap<String, String> {
        let Ok(admin) =
            self.settings.create_with_context::<_, AdminClient<Journal>>(self.journal.clone())
        else {
            return BTreeMap::new();
        };
        self.journal.identity().show(admin.inner());
        let topics: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let options = AdminOptions::new().request_timeout(Some(QUESTION));
        let described = pollster::block_on(admin.describe_configs(&topics, &options));
        let policy = |found: ConfigResource| {
            let policy = found.get("cleanup.policy")?.value.clone()?;
            let OwnedResourceSpecifier::Topic(name) = found.specifier else { return None };
            Some((name, policy))
        };
        described.unwrap_or_default().into_iter().flatten().filter_map(policy).collect()
    }

    /// What the group has committed, in the order of `places`. Offsets of transactions that are open are left out.
    pub(super) fn committed(&self, places: &[(String, i32)]) -> Result<Vec<Committed>, Failure> {
        self.offsets(&self.plain, places)
    }

    /// What the group has committed in these partitions of a topic, with the text beside it: what no open transaction is
    /// about to change.
    pub(super) fn texts(
        &self,
        topic: &str,
        partitions: i32,
    ) -> Result<Vec<native::GroupOffset>, Failure> {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions.saturating_sub(1).max(0));
        let what = format!("read the offsets that group {} has committed", self.group);
        self.ask(&what, ANSWER, || {
            let client = self.plain.client();
            let found = native::group_offsets(client, &self.group, Some(&list), true, QUESTION)?;
            match found.iter().find_map(|offset| offset.error) {
                Some(code) => Err(KafkaError::AdminOp(code)),
                None => Ok(found),
            }
        })
    }

    /// What the clients say.
    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What the group is to the broker: a reader of it that is no member.
    pub(super) fn membership(&self) -> Option<ConsumerGroupMetadata> {
        self.plain.group_metadata()
    }

    /// The same as [`committed`](Self::committed), after every transaction that is open now has ended: one partition at a
    /// time, for a service commits one transaction after the other.
    pub(super) fn settled(&self, place: (String, i32)) -> Result<Committed, Failure> {
        self.offsets(&self.stable, &[place])
            .map(|found| found.into_iter().next().unwrap_or_default())
    }

    fn offsets(
        &self,
        client: &BaseConsumer<Journal>,
        places: &[(String, i32)],
    ) -> Result<Vec<Committed>, Failure> {
        let what = format!("read the offsets that group {} has committed", self.group);
        let found = self.ask(&what, ANSWER, || {
            let mut list = TopicPartitionList::with_capacity(places.len());
            for (topic, partition) in places {
                list.add_partition(topic, *partition);
            }
            let list = client.committed_offsets(list, QUESTION)?;
            for element in list.elements() {
                element.error()?;
            }
            Ok(list)
        })?;
        let elements = found.elements();
        let of = |(topic, partition): &(String, i32)| {
            let same = |at: &usize| {
                elements[*at].topic() == topic && elements[*at].partition() == *partition
            };
            let Some(at) = (0..elements.len()).find(same) else { return Committed::default() };
            let next =
                if let Place::Offset(next) = elements[at].offset() { Some(next) } else { None };
            Committed { next, note: Note::read(&native::metadata(&found, at)) }
        };
        Ok(places.iter().map(of).collect())
    }

    /// Where a partition begins, and where everything that was written ends.
    pub(super) fn ends(&self, topic: &str, partitions: i32) -> Result<Ends, Failure> {
        self.watermarks(&self.plain, topic, partitions)
    }

    /// Where a partition begins, and where what readers of committed records see ends.
    pub(super) fn stable_ends(&self, topic: &str, partitions: i32) -> Result<Ends, Failure> {
        self.watermarks(&self.stable, topic, partitions)
    }

    fn watermarks(
        &self,
        client: &BaseConsumer<Journal>,
        topic: &str,
        partitions: i32,
    ) -> Result<Ends, Failure> {
        let what = format!("read the ends of {topic}");
        let of = |partition| {
            let (low, high) =
                self.ask(&what, ANSWER, || client.fetch_watermarks(topic, partition, QUESTION))?;
            Ok((partition, low..high))
        };
        (0..partitions).map(of).collect()
    }

    /// Waits until every transaction below these ends is committed or aborted.
    pub(super) fn settle(&self, topic: &str, ends: &Ends) -> Result<(), Failure> {
        let count = i32::try_from(ends.len()).unwrap_or(i32::MAX);
        let deadline = Instant::now() + ANSWER;
        loop {
            let stable = self.watermarks(&self.stable, topic, count)?;
            let open = ends.iter().find(|(partition, end)| stable[*partition].end < end.end);
            let Some((partition, end)) = open else { return Ok(()) };
            if deadline <= Instant::now() {
                let message = format!(
                    "read {topic}/{partition} up to offset {}: a transaction is open at {} and does not end; look for \
                     it with kafka-transactions.sh find-hanging",
                    end.end, stable[partition].end
                );
                return Err(Failure { message, exit: Exit::Temporary });
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Reads a topic's partitions from where `ends` begin to where they end; `visit` is given every message between, and
    /// may take its time.
    pub(super) fn read(
        &self,
        topic: &str,
        ends: &Ends,
        mut visit: impl FnMut(&BorrowedMessage<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let what = format!("read {topic}");
        let fail = |error: KafkaError| self.failure(&what, &error);
        let mut open: BTreeMap<i32, Range<i64>> =
            ends.iter().filter(|(_, r)| !r.is_empty()).map(|(p, r)| (*p, r.clone())).collect();
        if open.is_empty() {
            return Ok(());
        }
        let consumer = made(&self.settings, &self.journal).map_err(fail)?;
        let mut list = TopicPartitionList::new();
        for (partition, range) in &open {
            list.add_partition_offset(topic, *partition, Place::Offset(range.start))
                .map_err(fail)?;
        }
        consumer.assign(&list).map_err(fail)?;
        let total: i64 = open.values().map(|range| range.end - range.start).sum();
        let (mut read, mut heard) = (0_i64, Instant::now());
        while !open.is_empty() {
            let ended = match consumer.poll(Duration::from_millis(500)) {
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    let Some(range) = open.get(&partition) else { continue };
                    if offset < range.end {
                        visit(&message)?;
                        read += 1;
                    }
                    heard = Instant::now();
                    if read % 1_024 == 0 {
                        self.progress(topic, read, total);
                    }
                    (range.end <= offset + 1).then_some(partition)
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    heard = Instant::now();
                    Some(partition)
                }
                Some(Err(error)) if is_final(&error) => return Err(fail(error)),
                Some(Err(error)) if heard.elapsed() > ANSWER => return Err(fail(error)),
                None if heard.elapsed() > ANSWER => {
                    let message = format!(
                        "read {topic}: nothing came for {} s before its end",
                        ANSWER.as_secs()
                    );
                    return Err(Failure { message, exit: Exit::Temporary });
                }
                Some(Err(_)) | None => None,
            };
            if let Some(partition) = ended.filter(|partition| open.remove(partition).is_some()) {
                let mut done = TopicPartitionList::new();
                done.add_partition(topic, partition);
                consumer.incremental_unassign(&done).map_err(fail)?;
            }
        }
        self.messages.set(self.messages.get() + u64::try_from(read).unwrap_or(0));
        Ok(())
    }

    fn progress(&self, topic: &str, read: i64, total: i64) {
        if self.told.get().elapsed() < PROGRESS {
            return;
        }
        self.told.set(Instant::now());
        let percent = read.saturating_mul(100) / total.max(1);
        terminal::note(format_args!("reading {topic}: {read} messages, {percent} %"));
    }

    /// One record; `None` where it is not there any more.
    pub(super) fn record<T>(
        &self,
        reader: &BaseConsumer<Journal>,
        topic: &str,
        partition: i32,
        offset: i64,
        take: impl FnOnce(&BorrowedMessage<'_>) -> T,
    ) -> Result<Option<T>, Failure> {
        let what = format!("read {topic}/{partition}/{offset}");
        let fail = |error: KafkaError| self.failure(&what, &error);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Place::Offset(offset)).map_err(fail)?;
        reader.assign(&list).map_err(fail)?;
        let deadline = Instant::now() + ANSWER;
        loop {
            match reader.poll(Duration::from_millis(500)) {
                // What the assignment before had fetched.
                Some(Ok(message))
                    if message.partition() != partition
                        || message.topic() != topic
                        || message.offset() < offset => {}
                Some(Ok(message)) => {
                    return Ok((message.offset() == offset).then(|| take(&message)));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
                Some(Err(error)) if is_final(&error) => return Err(fail(error)),
                Some(Err(_)) | None if deadline <= Instant::now() => {
                    let message = format!("{what}: nothing came for {} s", ANSWER.as_secs());
                    return Err(Failure { message, exit: Exit::Temporary });
                }
                Some(Err(_)) | None => (),
            }
        }
    }

    /// A client to read single records with.
    pub(super) fn reader(&self) -> Result<Arc<BaseConsumer<Journal>>, Failure> {
        let mut settings = self.settings.clone();
        settings.set("queued.min.messages", "1");
        let reader = made(&settings, &self.journal);
        reader.map_err(|error| self.failure("configure the Kafka client", &error))
    }

    /// Messages that were read, and for how long.
    pub(super) fn effort(&self) -> crate::verify::Effort {
        let (messages, seconds) = (self.messages.get(), self.started.elapsed().as_secs_f64());
        crate::verify::Effort { messages, seconds }
    }
}

fn made(
    settings: &ClientConfig,
    journal: &Journal,
) -> Result<Arc<BaseConsumer<Journal>>, KafkaError> {
    let client = Arc::new(settings.create_with_context(journal.clone())?);
    journal.identity().keep(&client, |client: &BaseConsumer<Journal>| client.client());
    Ok(client)
}

/// Whether no repetition cures it.
fn is_final(error: &KafkaError) -> bool {
    let refused = [
        Code::TopicAuthorizationFailed,
        Code::GroupAuthorizationFailed,
        Code::ClusterAuthorizationFailed,
        Code::TransactionalIdAuthorizationFailed,
        Code::SaslAuthenticationFailed,
        Code::UnsupportedFeature,
        Code::InvalidTopic,
        Code::InvalidGroupId,
    ];
    matches!(error, KafkaError::ClientConfig(..) | KafkaError::MessageConsumptionFatal(_))
        || error.rdkafka_error_code().is_some_and(|code| refused.contains(&code))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the others are all of the cluster")]
fn failure(journal: &Journal, what: &str, error: &KafkaError) -> Failure {
    // Not `Display`: for a property that is not taken it prints the value, which may be a password; and the client's
    // reason may repeat it.
    let why = if let KafkaError::ClientConfig(_, why, key, value) = error {
        let why = if value.is_empty() { why.clone() } else { why.replace(value, "…") };
        format!("property {key}: {why}")
    } else {
        error.to_string()
    };
    let why = match error.rdkafka_error_code() {
        Some(Code::OperationTimedOut) => "no broker answered in time".to_owned(),
        _ => why,
    };
    let silent = match error.rdkafka_error_code() {
        Some(Code::OperationTimedOut | Code::BrokerTransportFailure | Code::AllBrokersDown) => {
            "; look whether the brokers of bootstrap.servers under kafka.common are well and may be reached from here"
        }
        _ => "",
    };
    let cause =
        journal.cause().map_or_else(String::new, |line| format!(" (last from the client: {line})"));
    let exit = match error {
        _ if is_final(error) => Exit::Config,
        // Of one partition: the cluster answers, and there is nothing to prove.
        KafkaError::OffsetFetch(_) => Exit::Data,
        _ => Exit::Temporary,
    };
    Failure { message: format!("{what}: {why}{cause}{silent}"), exit }
}

/// How Kafka's own tools reach the brokers: for a command that is to be copied. Without secrets.
pub(super) fn connection(config: &Config) -> String {
    let servers =
        properties::servers(&config.kafka).filter(|servers| !config.secrets.within(servers));
    let servers = servers.unwrap_or("HOST:PORT");
    let plain = config
        .kafka
        .common
        .get("security.protocol")
        .is_none_or(|p| p.eq_ignore_ascii_case("plaintext"));
    let more = if plain { "" } else { " --command-config client.properties" };
    format!("--bootstrap-server {servers}{more}")
}

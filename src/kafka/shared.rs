//! What the threads of one log share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;

use super::class::Call;
use super::coordinator::Coordinator;
use super::native::Topic;
use super::producer::Trouble;
use super::{Journal, away, group, manifests, native, servers, settings};
use crate::config::{Config, load};
use crate::failure::{Exit, Failure};
use crate::log::message::Naming;
use crate::log::note::Note;
use crate::log::{Committed, Ownership};
use crate::record::{Epoch, ModelId, Offset, Partition, Signature};

/// How long the cluster may take to answer the first questions.
const FIRST_ANSWER: Duration = Duration::from_secs(15);
/// How long the topics' limits may take; without them a broker's default is taken.
const LIMITS_ANSWER: Duration = Duration::from_secs(5);
/// Room that a topic's limit leaves for a batch's own header, bytes.
const BATCH_HEADER: usize = 1_024;
/// How long the newest manifest may be looked for, for what the last version took and gave.
const LAST_ANSWER: Duration = Duration::from_secs(10);

/// What the threads of one log share.
pub(crate) struct Shared {
    pub(super) config: Config,
    pub(super) naming: Naming,
    pub(super) instance: String,
    pub(super) journal: Journal,
    /// For questions to the cluster. A member of nothing.
    pub(super) look: Arc<BaseConsumer<Journal>>,
    /// For questions to the group's coordinator.
    pub(super) coordinator: Coordinator,
    /// Partitions of all input topics, when they were looked at first.
    pub(super) partitions: usize,
    /// Bytes that every written topic takes in one batch.
    pub(super) limit: usize,
    /// Topics that are compacted.
    pub(super) compacted: BTreeSet<String>,
    /// Topics in which the broker's time of writing replaces a message's timestamp.
    pub(super) stamped: BTreeSet<String>,
    /// Under `--until-end`: where reading stops, for every partition that was there at the start.
    pub(super) until: Option<BTreeMap<Partition, Offset>>,
    /// The partitions that the group has assigned, and the epoch of their assignment. Written by the poll thread only.
    pub(super) claims: RwLock<BTreeMap<Partition, Epoch>>,
    /// Those of them that are being read. Written by the poll thread, notes by the lanes and the observer.
    pub(super) owned: Ownership,
    /// For group metadata; weak, so that the poll thread alone closes it. Another one after a fencing.
    pub(super) consumer: RwLock<Weak<BaseConsumer<group::Context>>>,
    /// Producers left behind with a call that did not return, of all lanes.
    pub(super) stuck: AtomicU32,
    /// The round trip to the cluster, in microseconds, as it was measured last.
    pub(super) round_trip: AtomicU64,
    /// Whether the cluster answered when it was asked last.
    pub(super) reachable: AtomicBool,
    /// How often an unknown topic was met, and up to which of these times the topics' ids were compared since.
    pub(super) topics_doubted: AtomicU64,
    pub(super) topics_compared: AtomicU64,
    /// When a member with our instance name was there already while this process joined: whoever that is was fenced.
    pub(super) took_over: Mutex<Option<Instant>>,
}

impl Shared {
    pub(super) fn open(
        config: &Config,
        naming: Naming,
        instance: String,
        journal: Journal,
        until_end: bool,
    ) -> Result<Self, Failure> {
        let settings = settings::look(config, &instance);
        journal.identity().ready()?;
        let look: BaseConsumer<Journal> = settings
            .create_with_context(journal.beside())
            .map_err(|error| journal.failure("configure the Kafka client", &error, Exit::Config))?;
        let look = Arc::new(look);
        journal.identity().keep(&look, |look| look.client());
        let coordinator = Coordinator::new(settings, Journal::clone(look.client().context()))
            .map_err(|error| journal.failure("configure the Kafka client", &error, Exit::Config))?;
        let mut shared = Self {
            config: config.clone(),
            naming,
            instance,
            journal,
            look,
            coordinator,
            partitions: 1,
            limit: settings::DEFAULT_LIMIT,
            compacted: BTreeSet::new(),
            stamped: BTreeSet::new(),
            until: None,
            claims: RwLock::default(),
            owned: Ownership::default(),
            consumer: RwLock::new(Weak::new()),
            stuck: AtomicU32::new(0),
            round_trip: AtomicU64::new(0),
            reachable: AtomicBool::new(true),
            topics_doubted: AtomicU64::new(0),
            topics_compared: AtomicU64::new(0),
            took_over: Mutex::default(),
        };
        let patience = shared.first_answer();
        let counts = shared.topics(&shared.servers(), patience)?;
        let inputs = shared.naming.inputs.iter().filter_map(|input| counts.get(input));
        shared.partitions = usize::try_from(inputs.sum::<i32>()).unwrap_or(1).max(1);
        shared.read_settings()?;
        shared.measure();
        if until_end {
            shared.until = Some(shared.ends(&counts)?);
        }
        Ok(shared)
    }

    /// Where brokers are looked for, to be shown.
    pub(super) fn servers(&self) -> String {
        let settings = settings::look(&self.config, &self.instance);
        self.config.secrets.redact(servers(&settings))
    }

    /// Says so where no broker answers for long. How long each next question may take, which says what comes of it.
    fn first_answer(&self) -> Duration {
        let (begin, topic) = (Instant::now(), self.naming.output.as_str());
        let Err(error) = self.look.fetch_metadata(Some(topic), away::LONG) else {
            return FIRST_ANSWER;
        };
        drop(self.look.poll(Duration::ZERO));
        if away::LONG <= begin.elapsed() && !self.heard().refused() {
            tracing::warn!(
                %error,
                "no broker of {} has answered for {} s since the start: nothing is read yet",
                self.servers(),
                away::LONG.as_secs()
            );
        }
        FIRST_ANSWER.saturating_sub(away::LONG)
    }

    /// Looks at the topics before anything is read: they are there, and wide enough. The partitions of each.
    pub(super) fn topics(
        &self,
        servers: &str,
        patience: Duration,
    ) -> Result<BTreeMap<String, i32>, Failure> {
        let naming = &self.naming;
        let mut counts = BTreeMap::new();
        for topic in naming.all() {
            let metadata = self.look.fetch_metadata(Some(topic), patience).map_err(|e| {
                drop(self.look.poll(Duration::from_millis(200)));
                let what = format!("read metadata of topic {topic} from {servers}");
                self.failure(
                    &what,
                    &e,
                    if self.heard().refused() { Exit::Config } else { Exit::Temporary },
                )
            })?;
            let count = metadata.topics().first().map_or(0, |t| t.partitions().len());
            if count == 0 {
                let message = format!(
                    "read metadata of topic {topic}: it does not exist or may not be described; create it \
                     or allow DESCRIBE"
                );
                return Err(Failure { message, exit: Exit::Config });
            }
            counts.insert(topic.to_owned(), i32::try_from(count).unwrap_or(i32::MAX));
        }
        for (number, input) in (0..).zip(&naming.inputs) {
            let wanted = counts[input];
            let mut written = naming.numbered(number);
            if let Some(topic) = written.find(|topic| counts[*topic] < wanted) {
                let message = format!(
                    "write partition by partition: topic {topic} has {} partitions, input topic \
                     {input} has {wanted}; add partitions to {topic}",
                    counts[topic]
                );
                return Err(Failure { message, exit: Exit::Config });
            }
        }
        Ok(counts)
    }

    /// What the written topics take, which of them are compacted, and which are stamped by the broker.
    fn read_settings(&mut self) -> Result<(), Failure> {
        let (mut compacted, mut stamped) = (BTreeSet::new(), BTreeSet::new());
        let described = self.topic_settings()?;
        for (topic, resource) in &described {
            if value(resource, "cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
                compacted.insert(topic.clone());
            }
            if value(resource, "message.timestamp.type") == Some("LogAppendTime") {
                stamped.insert(topic.clone());
            }
        }
        self.limit = smallest(&described).unwrap_or(settings::DEFAULT_LIMIT);
        (self.compacted, self.stamped) = (compacted, stamped);
        Ok(())
    }

    /// What the written topics take now, bytes; `None` where that is not told.
    pub(super) fn limit_now(&self) -> Option<usize> {
        smallest(&self.topic_settings().ok()?)
    }

    /// The settings of the topics that are written; those that may not be read are missing.
    fn topic_settings(&self) -> Result<Vec<(String, ConfigResource)>, Failure> {
        let admin: AdminClient<Journal> = settings::look(&self.config, &self.instance)
            .create_with_context(self.journal.clone())
            .map_err(|error| self.failure("configure the Kafka client", &error, Exit::Config))?;
        self.journal.identity().show(admin.inner());
        let written = self.naming.written();
        let specifiers: Vec<_> = written.iter().map(|t| ResourceSpecifier::Topic(t)).collect();
        let options = AdminOptions::new().request_timeout(Some(LIMITS_ANSWER));
        let described = match pollster::block_on(admin.describe_configs(&specifiers, &options)) {
            Ok(described) => described,
            Err(error) => {
                tracing::info!(%error, "topic settings cannot be read, the broker's default is taken");
                Vec::new()
            }
        };
        let named = written.into_iter().zip(described);
        Ok(named.filter_map(|(topic, found)| Some((topic.to_owned(), found.ok()?))).collect())
    }

    /// How long the cluster takes for one answer: the best of three.
    pub(super) fn measure(&self) {
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

    /// Whether a topic that is written to does not exist any more, which a message that was not taken may be for: then the
    /// trouble says so, and what to do.
    pub(super) fn says_gone(&self, trouble: &mut Trouble) -> bool {
        let delivers = matches!(trouble.call, Call::Send | Call::Deliver);
        if !delivers || !trouble.verdicts.refused.is_empty() {
            return false;
        }
        let Ok(Some(gone)) = self.gone() else { return false };
        trouble.why += "; ";
        trouble.why += &gone;
        true
    }

    /// The topics that are written to and do not exist any more, as a sentence with what to do; `None` where all are there.
    /// An error where no broker answers: nothing is known then.
    pub(super) fn gone(&self) -> KafkaResult<Option<String>> {
        let mut gone = Vec::new();
        for topic in self.naming.written() {
            let found = self.look.fetch_metadata(Some(topic), LIMITS_ANSWER)?;
            if found.topics().first().is_some_and(is_unknown) {
                gone.push(topic);
            }
        }
        Ok(gone_words(&gone))
    }

    /// Describes topics. Where the cluster has no controller to ask, by their partitions alone: an id that is not known
    /// is not compared now, and the observer goes on asking.
    pub(super) fn describe(
        &self,
        names: &[&str],
        timeout: Duration,
    ) -> KafkaResult<BTreeMap<String, Topic>> {
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

    pub(super) fn set_round_trip(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.round_trip.store(micros, Ordering::Release);
    }

    pub(super) fn backoff(&self) -> Duration {
        settings::backoff(Duration::from_micros(self.round_trip.load(Ordering::Acquire)))
    }

    /// The ends of all partitions of the input topics, as readers of committed records see them now.
    pub(super) fn ends(
        &self,
        counts: &BTreeMap<String, i32>,
    ) -> Result<BTreeMap<Partition, Offset>, Failure> {
        let partitions = self.naming.partitions(|name| counts.get(name).copied());
        let pairs: Vec<(&str, i32)> =
            partitions.iter().map(|p| (self.naming.input(*p), p.number)).collect();
        let which = native::Which::Stable;
        let ends = native::list_offsets(self.look.client(), &pairs, which, FIRST_ANSWER).map_err(
            |error| self.failure("read the ends of the input topics", &error, Exit::Temporary),
        )?;
        Ok(partitions.into_iter().zip(ends.into_iter().map(Offset)).collect())
    }

    /// The model that the group's commits name, where it is another than the one that is to serve, with what it took and
    /// gave by the newest manifest.
    pub(super) fn last(&self, serving: Option<&ModelId>) -> Option<(ModelId, Signature)> {
        let serving = serving?;
        let group = &self.naming.group;
        let offsets = self.coordinator.ask(|client| {
            native::group_offsets(client.client(), group, None, false, LIMITS_ANSWER)
        });
        let offsets = offsets.ok()?;
        let notes = offsets.iter().filter_map(|offset| Note::read(&offset.metadata));
        let mut others = notes.filter(|note| note.model.is_some() && !note.is_of(serving));
        others.next()?;
        let topic = &self.naming.manifest;
        let described =
            native::describe_topics(self.look.client(), &[topic], LIMITS_ANSWER).ok()?;
        let count = described.get(topic)?.partitions;
        let pairs: Vec<(&str, i32)> = (0..count).map(|number| (topic.as_str(), number)).collect();
        let ask =
            |which| native::list_offsets(self.look.client(), &pairs, which, LIMITS_ANSWER).ok();
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

    pub(super) fn most_batches(&self) -> usize {
        usize::try_from(self.config.commit.max_batches).unwrap_or(usize::MAX).max(1)
    }

    /// Whether the group has assigned this partition, in this epoch.
    pub(super) fn claims(&self, partition: Partition, epoch: Epoch) -> bool {
        let claims = self.claims.read().unwrap_or_else(PoisonError::into_inner);
        claims.get(&partition) == Some(&epoch)
    }

    /// The partitions that the group has assigned.
    pub(super) fn claimed(&self) -> Vec<Partition> {
        let claims = self.claims.read().unwrap_or_else(PoisonError::into_inner);
        claims.keys().copied().collect()
    }

    pub(super) fn claim(&self, partition: Partition, epoch: Option<Epoch>) {
        let mut claims = self.claims.write().unwrap_or_else(PoisonError::into_inner);
        match epoch {
            Some(epoch) => claims.insert(partition, epoch),
            None => claims.remove(&partition),
        };
    }

    pub(super) fn consumer(&self) -> Option<Arc<BaseConsumer<group::Context>>> {
        self.consumer.read().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// What the group's coordinator says of the group.
    pub(super) fn describe_group(&self, timeout: Duration) -> KafkaResult<native::Group> {
        let group = &self.naming.group;
        self.coordinator.ask(|client| native::describe_group(client.client(), group, timeout))
    }

    /// The group's committed offsets of partitions; see [`group::committed`].
    pub(super) fn committed(
        &self,
        of: &[Partition],
        stable: bool,
        timeout: Duration,
    ) -> KafkaResult<BTreeMap<Partition, Option<Committed>>> {
        let naming = &self.naming;
        self.coordinator.ask(|client| group::committed(client, naming, of, stable, timeout))
    }

    /// Whether the group has a member of our name, which is another one while this process is none; `None` where that
    /// is not told.
    pub(super) fn is_held_by_another(&self, timeout: Duration) -> Option<bool> {
        let group = self.describe_group(timeout).ok()?;
        let ours = |member: &native::Member| member.instance.as_deref() == Some(&self.instance);
        Some(group.members.iter().any(ours))
    }

    pub(super) fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Acquire)
    }

    /// An input topic was not known to a broker: it may have been deleted.
    pub(super) fn doubt_topics(&self) {
        self.topics_doubted.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the topics' ids were compared since the last doubt.
    pub(super) fn topics_are_known(&self) -> bool {
        let doubted = self.topics_doubted.load(Ordering::Acquire);
        doubted <= self.topics_compared.load(Ordering::Acquire)
    }

    /// Which permission a refusal is about.
    fn allow(&self, code: RDKafkaErrorCode) -> Option<String> {
        let Naming { group, inputs, manifest, .. } = &self.naming;
        #[expect(clippy::wildcard_enum_match_arm, reason = "librdkafka knows about 200 codes")]
        match code {
            RDKafkaErrorCode::TransactionalIdAuthorizationFailed => Some(format!(
                "allow this user WRITE on the transactional ids that begin with tidemill/{group}/"
            )),
            RDKafkaErrorCode::GroupAuthorizationFailed => {
                Some(format!("allow this user READ on the group {group}"))
            }
            RDKafkaErrorCode::TopicAuthorizationFailed => Some(format!(
                "allow this user READ on {} and {manifest}, and WRITE on {}; `tidemill check` says which is missing",
                inputs.join(", "),
                self.naming.written().join(", ")
            )),
            RDKafkaErrorCode::ClusterAuthorizationFailed => {
                Some("allow this user IDEMPOTENT_WRITE on the cluster".to_owned())
            }
            _ => None,
        }
    }

    pub(super) fn failure(&self, what: &str, error: &KafkaError, exit: Exit) -> Failure {
        let journal = self.journal.younger(self.heard());
        let mut failure = journal.failure(what, error, exit);
        if let Some(remedy) = error.rdkafka_error_code().and_then(|code| self.allow(code)) {
            failure.message = format!("{failure}; {remedy}");
        }
        let refused = error.rdkafka_error_code()
            == Some(RDKafkaErrorCode::SaslAuthenticationFailed)
            || journal.refused()
            || self.heard().refused();
        let changed = if exit == Exit::Config && refused { self.changed() } else { Vec::new() };
        if changed.is_empty() {
            return failure;
        }
        let message = format!(
            "{failure}; since the start {} changed on disk: a restart takes that up",
            changed.join(", ")
        );
        Failure { message, exit: Exit::Temporary }
    }

    /// The keys of the clients' properties that would have other values after a restart.
    pub(super) fn changed(&self) -> Vec<String> {
        self.config.origin.changed(&self.config, load::environment())
    }

    /// What the client that only looks says.
    pub(super) fn heard(&self) -> &Journal {
        self.look.client().context()
    }
}

fn value<'a>(resource: &'a ConfigResource, key: &str) -> Option<&'a str> {
    resource.get(key)?.value.as_deref()
}

/// The smallest `max.message.bytes` less the framing; `None` where no topic's may be read.
fn smallest(described: &[(String, ConfigResource)]) -> Option<usize> {
    let limits =
        described.iter().filter_map(|(_, of)| value(of, "max.message.bytes")?.parse().ok());
    let least: usize = limits.min()?;
    Some(least.saturating_sub(BATCH_HEADER).clamp(1_024, 100_000_000))
}

/// Whether the brokers do not know a topic.
fn is_unknown(topic: &MetadataTopic) -> bool {
    use RDKafkaErrorCode::{UnknownTopic, UnknownTopicOrPartition};
    let code = topic.error().map(RDKafkaErrorCode::from);
    matches!(code, Some(UnknownTopic | UnknownTopicOrPartition))
}

/// What is said of topics that are written to and do not exist.
fn gone_words(gone: &[&str]) -> Option<String> {
    let what = match gone {
        [] => return None,
        [one] => {
            format!("topic {one} does not exist any more: it was deleted while this ran; create it")
        }
        more => {
            format!(
                "topics {} do not exist any more: they were deleted while this ran; create them",
                more.join(", ")
            )
        }
    };
    Some(format!("{what} again (tidemill check --create-topics does)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_that_are_gone_are_named_with_what_to_do() {
        assert_eq!(gone_words(&[]), None);
        let one = gone_words(&["out"]).unwrap();
        assert!(
            one.starts_with("topic out does not exist") && one.contains("--create-topics"),
            "{one}"
        );
        assert!(gone_words(&["out", "in-dlq"]).unwrap().starts_with("topics out, in-dlq do not"));
    }
}

//! Which properties of librdkafka are ours, with what we set them to and why; which client each one is for.

/// Which of our clients a property is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Every one; as a client, the one that only looks.
    All,
    /// The consumer.
    Consumer,
    /// The lanes' producers.
    Producer,
}

impl Client {
    /// Whether a property of this is passed on to a client of that kind.
    pub fn serves(self, of: Self) -> bool {
        self == Self::All || self == of
    }
}

/// What we do with a property that is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ours {
    /// It always has this value.
    Fixed(&'static str),
    /// It is made from something else that is configured, or known.
    Made(&'static str),
    /// It is left alone.
    Never,
}

/// A property that is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    /// librdkafka's first name of it.
    pub name: &'static str,
    /// Whose it is.
    pub client: Client,
    /// What we do with it.
    pub ours: Ours,
    /// Why, as the end of a sentence.
    pub why: &'static str,
    /// What to set in its place; empty where there is nothing.
    instead: &'static str,
}

impl Owned {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        if self.instead.is_empty() {
            "leave it out".to_owned()
        } else {
            format!("leave it out, and set {}", self.instead)
        }
    }
}

const fn ours(
    name: &'static str,
    client: Client,
    ours: Ours,
    why: &'static str,
    instead: &'static str,
) -> Owned {
    Owned { name, client, ours, why, instead }
}

use Client::{All, Consumer, Producer};
use Ours::{Fixed, Made, Never};

const OFFSETS: &str = "offsets are committed only inside the transaction of their predictions";
const ORDER: &str = "transactions keep order and number of the messages by themselves";
const MEMORY: &str = "what the client holds must stay within the memory for records in flight";
const UNUSED: &str = "librdkafka does nothing with it";
const CODE: &str = "it is not a text but a part of the program";
const NAMES: &str = "a restart must fence its predecessor, and nothing else";

/// Every property that is ours. What a user sets of them is refused, unless it is what we set.
pub const OWNED: &[Owned] = &[
    // Who we are.
    ours("group.id", Consumer, Made("kafka.group"), NAMES, "kafka.group"),
    ours("group.instance.id", Consumer, Made("kafka.instance"), NAMES, "kafka.instance"),
    ours(
        "client.id",
        All,
        Made("kafka.instance"),
        "brokers' logs and quotas name the replica",
        "kafka.instance",
    ),
    ours(
        "transactional.id",
        Producer,
        Made("kafka.group, kafka.instance and the lane"),
        NAMES,
        "kafka.instance",
    ),
    // Where reading begins and what counts as read.
    ours("enable.auto.commit", Consumer, Fixed("false"), OFFSETS, ""),
    ours("auto.commit.enable", Consumer, Never, OFFSETS, ""),
    ours("auto.commit.interval.ms", Consumer, Never, OFFSETS, ""),
    ours("enable.auto.offset.store", Consumer, Fixed("false"), OFFSETS, ""),
    ours("offset.store.method", Consumer, Never, OFFSETS, ""),
    ours("offset.store.path", Consumer, Never, OFFSETS, ""),
    ours("offset.store.sync.interval.ms", Consumer, Never, OFFSETS, ""),
    ours(
        "auto.offset.reset",
        Consumer,
        Made("kafka.on_out_of_range"),
        "a lost offset must not become silent loss or repetition",
        "kafka.start_from, kafka.on_missing_offset or kafka.on_out_of_range",
    ),
    ours(
        "isolation.level",
        Consumer,
        Fixed("read_committed"),
        "aborted records must not be answered",
        "",
    ),
    ours(
        "enable.partition.eof",
        Consumer,
        Fixed("true"),
        "the ends of partitions count for lag and for --until-end",
        "",
    ),
    ours(
        "partition.assignment.strategy",
        Consumer,
        Fixed("cooperative-sticky"),
        "any other takes every partition away at each rebalance, and all members must agree",
        "",
    ),
    ours("group.protocol.type", Consumer, Never, "all members of a group must agree on it", ""),
    ours(
        "statistics.interval.ms",
        Consumer,
        Fixed("0"),
        "nothing reads the client's statistics: the brokers are asked how far partitions go",
        "",
    ),
    ours("consume.callback.max.messages", Consumer, Never, CODE, ""),
    ours(
        "topic.blacklist",
        Consumer,
        Never,
        "a topic that it hides would be read by nobody",
        "input.topics",
    ),
    // How a transaction is written.
    ours(
        "transaction.timeout.ms",
        Producer,
        Fixed("15000"),
        "limits.transaction is the deadline, and what is left of it is kept to learn how a transaction ended",
        "limits.transaction",
    ),
    ours("enable.idempotence", Producer, Fixed("true"), "transactions need it", ""),
    ours("enable.gapless.guarantee", Producer, Never, ORDER, ""),
    ours(
        "acks",
        Producer,
        Fixed("all"),
        "a transaction counts once all in-sync replicas have it",
        "",
    ),
    ours("max.in.flight", Producer, Never, ORDER, ""),
    ours("retries", Producer, Never, ORDER, ""),
    ours("queuing.strategy", Producer, Never, ORDER, ""),
    ours("msg_order_cmp", Producer, Never, CODE, ""),
    ours(
        "message.timeout.ms",
        Producer,
        Never,
        "a message has as long as its transaction",
        "limits.transaction",
    ),
    ours(
        "linger.ms",
        Producer,
        Fixed("0"),
        "a transaction is sent whole and then waited for: there is nothing to linger for",
        "batch.max_wait or commit.max_wait",
    ),
    ours(
        "batch.size",
        Producer,
        Made("the written topics' max.message.bytes"),
        "a batch must fit the topic",
        "max.message.bytes of the topic",
    ),
    ours(
        "message.max.bytes",
        Producer,
        Fixed("1000000000"),
        "the topic's limit holds, which is for what is left after compression",
        "max.message.bytes of the topic",
    ),
    ours(
        "retry.backoff.ms",
        Producer,
        Made("the time that the cluster takes for an answer"),
        "most of it tells a repeated request from a slow one",
        "",
    ),
    ours(
        "retry.backoff.max.ms",
        Producer,
        Made("the time that the cluster takes for an answer"),
        "a repetition must not come before retry.backoff.ms",
        "",
    ),
    ours(
        "delivery.report.only.error",
        Producer,
        Fixed("false"),
        "every message of a transaction is accounted for before it commits",
        "",
    ),
    ours("produce.offset.report", Producer, Never, UNUSED, ""),
    ours(
        "partitioner",
        Producer,
        Made("output.partition"),
        "the order of the outcomes rests on it",
        "output.partition",
    ),
    ours("partitioner_cb", Producer, Never, CODE, "output.partition"),
    // What may be in memory.
    ours("queued.min.messages", Consumer, Made("limits.memory"), MEMORY, "limits.memory"),
    ours("queued.max.messages.kbytes", Consumer, Made("limits.memory"), MEMORY, "limits.memory"),
    ours("fetch.message.max.bytes", Consumer, Made("limits.memory"), MEMORY, "limits.memory"),
    ours("fetch.max.bytes", Consumer, Made("limits.memory"), MEMORY, "limits.memory"),
    ours("receive.message.max.bytes", Consumer, Made("limits.memory"), MEMORY, "limits.memory"),
    ours("queue.buffering.max.messages", Producer, Fixed("200000"), MEMORY, "limits.memory"),
    ours("queue.buffering.max.kbytes", Producer, Fixed("262144"), MEMORY, "limits.memory"),
    // What the client tells us, and how.
    ours(
        "log_level",
        All,
        Never,
        "logging.filter says what is logged",
        "logging.filter: rdkafka=debug",
    ),
    ours("log.queue", All, Never, "the log is taken from the client's queue", ""),
    ours("enabled_events", All, Never, "events are taken from the client's queue", ""),
    ours("log_cb", All, Never, CODE, ""),
    ours("error_cb", All, Never, CODE, ""),
    ours("stats_cb", All, Never, CODE, ""),
    ours("throttle_cb", All, Never, CODE, ""),
    ours("dr_cb", Producer, Never, CODE, ""),
    ours("dr_msg_cb", Producer, Never, CODE, ""),
    ours("consume_cb", Consumer, Never, CODE, ""),
    ours("rebalance_cb", Consumer, Never, CODE, ""),
    ours("offset_commit_cb", Consumer, Never, CODE, ""),
    ours("background_event_cb", All, Never, CODE, ""),
    ours("oauthbearer_token_refresh_cb", All, Never, CODE, ""),
    ours("socket_cb", All, Never, CODE, ""),
    ours("connect_cb", All, Never, CODE, ""),
    ours("closesocket_cb", All, Never, CODE, ""),
    ours("open_cb", All, Never, CODE, ""),
    ours("resolve_cb", All, Never, CODE, ""),
    ours("opaque", All, Never, CODE, ""),
    ours("default_topic_conf", All, Never, CODE, ""),
    ours("interceptors", All, Never, CODE, ""),
    ours("ssl_key", All, Never, CODE, "ssl.key.location or ssl.key.pem"),
    ours("ssl_certificate", All, Never, CODE, "ssl.certificate.location or ssl.certificate.pem"),
    ours("ssl_ca", All, Never, CODE, "ssl.ca.location or ssl.ca.pem"),
    ours("ssl_engine_callback_data", All, Never, CODE, ""),
    ours("ssl.certificate.verify_cb", All, Never, CODE, ""),
    ours("enable_sasl_queue", All, Never, CODE, ""),
    // What does nothing.
    ours("metadata.request.timeout.ms", All, Never, UNUSED, "socket.timeout.ms"),
    ours("topic.metadata.refresh.fast.cnt", All, Never, UNUSED, ""),
    ours("socket.blocking.max.ms", All, Never, UNUSED, ""),
    ours("reconnect.backoff.jitter.ms", All, Never, UNUSED, ""),
];

/// What we set where a user does not. Times in milliseconds.
pub const DEFAULTS: [(Client, &str, &str); 10] = [
    (All, "socket.timeout.ms", "10000"),
    (All, "reconnect.backoff.max.ms", "1000"),
    // A mistyped name must not become an empty topic.
    (All, "allow.auto.create.topics", "false"),
    (Consumer, "session.timeout.ms", "20000"),
    (Consumer, "heartbeat.interval.ms", "3000"),
    (Consumer, "max.poll.interval.ms", "300000"),
    (Consumer, "check.crcs", "true"),
    // The broker answers as soon as there is anything; a full queue is looked at again soon.
    (Consumer, "fetch.wait.max.ms", "500"),
    (Consumer, "fetch.queue.backoff.ms", "20"),
    (Producer, "compression.type", "zstd"),
];

/// Settings that KIP-848's protocol takes from the broker; librdkafka refuses them then.
pub const CLASSIC: [&str; 3] =
    ["partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms"];

/// Second names, and the first. Two names of one property would be set in any order.
pub const ALIASES: [(&str, &str); 11] = [
    ("metadata.broker.list", "bootstrap.servers"),
    ("sasl.mechanism", "sasl.mechanisms"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("max.in.flight.requests.per.connection", "max.in.flight"),
    ("message.send.max.retries", "retries"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("compression.codec", "compression.type"),
    ("request.required.acks", "acks"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("sasl.oauthbearer.client.credentials.client.id", "sasl.oauthbearer.client.id"),
    ("sasl.oauthbearer.client.credentials.client.secret", "sasl.oauthbearer.client.secret"),
];

/// The properties that have no value unless a user sets one: librdkafka does not list them.
pub const WITHOUT_DEFAULT: [&str; 40] = [
    "metadata.broker.list",
    "topic.blacklist",
    "ssl.cipher.suites",
    "ssl.curves.list",
    "ssl.sigalgs.list",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.ca.location",
    "ssl.ca.pem",
    "https.ca.location",
    "https.ca.pem",
    "ssl.crl.location",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.providers",
    "ssl.engine.location",
    "sasl.kerberos.keytab",
    "sasl.username",
    "sasl.password",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.oauthbearer.assertion.private.key.file",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.assertion.file",
    "sasl.oauthbearer.assertion.claim.aud",
    "sasl.oauthbearer.assertion.claim.iss",
    "sasl.oauthbearer.assertion.claim.sub",
    "sasl.oauthbearer.assertion.jwt.template.file",
    "plugin.library.paths",
    "group.remote.assignor",
    "client.rack",
    "bootstrap.servers",
];

/// What the Java client has and librdkafka has not, and what to do instead.
pub const JAVA: [(&str, &str); 9] = [
    ("sasl.jaas.config", "write sasl.username and sasl.password; JAAS is Java's"),
    ("sasl.login.callback.handler.class", "write sasl.oauthbearer.method; JAAS is Java's"),
    ("sasl.client.callback.handler.class", "write sasl.oauthbearer.method; JAAS is Java's"),
    ("ssl.truststore.location", "write ssl.ca.location with a PEM file; trust stores are Java's"),
    ("ssl.truststore.password", "write ssl.ca.location with a PEM file; trust stores are Java's"),
    ("ssl.truststore.certificates", "write ssl.ca.pem"),
    ("ssl.keystore.type", "write ssl.key.location and ssl.certificate.location with PEM files"),
    ("ssl.keystore.key", "write ssl.key.pem"),
    ("ssl.keystore.certificate.chain", "write ssl.certificate.pem"),
];

/// What a user may set for the consumer alone.
const FOR_CONSUMER: [&str; 11] = [
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "group.protocol",
    "group.remote.assignor",
    "coordinator.query.interval.ms",
    "max.poll.interval.ms",
    "fetch.wait.max.ms",
    "fetch.queue.backoff.ms",
    "fetch.min.bytes",
    "fetch.error.backoff.ms",
    "check.crcs",
];

/// What a user may set for the producers alone.
const FOR_PRODUCER: [&str; 6] = [
    "queue.buffering.backpressure.threshold",
    "compression.type",
    "compression.level",
    "batch.num.messages",
    "sticky.partitioning.linger.ms",
    "request.timeout.ms",
];

/// The first name of a property.
pub fn canonical(name: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, first)| first)
}

/// Which client takes a property that is not ours, by its first name.
pub fn client_of(name: &str) -> Client {
    if FOR_CONSUMER.contains(&name) {
        Consumer
    } else if FOR_PRODUCER.contains(&name) {
        Producer
    } else {
        All
    }
}

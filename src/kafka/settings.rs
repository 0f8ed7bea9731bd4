//! The properties of our clients: ours, then our defaults, then the user's. The one list of what is ours.
//!
//! What a user sets is passed on or refused with the reason, never dropped: [`refusal`] says which. A `ClientConfig`
//! is never printed: it holds passwords.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use super::native;
use super::owned::{self, Client, Ours, canonical};
use crate::config::{Config, Kafka, OutputPartition, secret, topics};
use crate::log::Failure;

/// Largest message when the topics' own limits cannot be read, bytes: what a broker takes by default, less
/// its framing.
pub const DEFAULT_LIMIT: usize = 1_000_000;

/// The shortest pause before the client repeats a request: its own default.
const BACKOFF: Duration = Duration::from_millis(100);

/// The longest: what is further away counts as repeated each time, which costs time and nothing else.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// How long the client waits before it repeats a request. Three quarters of it must be longer than what a call takes
/// without a repetition, which is up to three round trips: only then does a longer one tell that it was repeated.
pub fn backoff(round_trip: Duration) -> Duration {
    round_trip.saturating_mul(6).clamp(BACKOFF, LONGEST_BACKOFF)
}

/// What a record costs in the client beside its payload, bytes: the message, its place in a queue, its share of the
/// allocator.
const RECORD: u64 = 600;

/// Where every accepted value of a property is said.
const MANUAL: &str = "https://github.com/confluentinc/librdkafka/blob/v2.12.1/CONFIGURATION.md";

/// A section of the file whose keys are librdkafka's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// `kafka.common`: for all clients.
    Common,
    /// `kafka.consumer`.
    Consumer,
    /// `kafka.producer`.
    Producer,
}

impl Section {
    /// All, in the order in which a later one wins.
    pub const ALL: [Self; 3] = [Self::Common, Self::Consumer, Self::Producer];

    /// The key of the section.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Common => "kafka.common",
            Self::Consumer => "kafka.consumer",
            Self::Producer => "kafka.producer",
        }
    }

    /// What the file has in it.
    pub const fn of(self, kafka: &Kafka) -> &BTreeMap<String, String> {
        match self {
            Self::Common => &kafka.common,
            Self::Consumer => &kafka.consumer,
            Self::Producer => &kafka.producer,
        }
    }
}

/// Why `property` cannot be `value` in `section`, and what to do: never with the value, which may be a secret.
/// `None` where it is passed on to librdkafka as it is.
///
/// # Examples
///
/// ```
/// use tidemill::config::Config;
/// use tidemill::kafka::settings::{Section, refusal};
///
/// let kafka = Config::default().kafka;
/// let (message, _) = refusal(&kafka, Section::Common, "enable.auto.commit", "true").unwrap();
/// assert!(message.contains("inside the transaction"));
/// assert_eq!(refusal(&kafka, Section::Common, "ssl.ca.location", "/ca.pem"), None);
/// ```
pub fn refusal(
    kafka: &Kafka,
    section: Section,
    property: &str,
    value: &str,
) -> Option<(String, String)> {
    let name = canonical(property);
    if group_protocol_is_the_brokers(kafka) && owned::CLASSIC.contains(&name) {
        let message =
            "cannot be set with group.protocol: consumer: the broker says it for the whole group";
        let remedy = "leave it out: the brokers' own settings group.consumer.* say it";
        return Some((message.to_owned(), remedy.to_owned()));
    }
    if let Some(owned) = owned::OWNED.iter().find(|owned| owned.name == name) {
        return match owned.ours {
            Ours::Fixed(ours) if ours == value => None,
            Ours::Fixed(ours) => Some((
                format!("cannot be set: it is `{ours}`, because {}", owned.why),
                owned.remedy(),
            )),
            Ours::Made(from) => Some((
                format!("cannot be set: it is made from {from}, because {}", owned.why),
                owned.remedy(),
            )),
            Ours::Never => Some((format!("cannot be set: {}", owned.why), owned.remedy())),
        };
    }
    let client = owned::client_of(name);
    let wrong = match (section, client) {
        (Section::Consumer, Client::Producer) => Some(("producers", Section::Producer)),
        (Section::Producer, Client::Consumer) => Some(("consumer", Section::Consumer)),
        _ => None,
    };
    if let Some((whose, place)) = wrong {
        let message = format!("is a property of the {whose}: it would do nothing here");
        return Some((message, format!("write it under {}", place.key())));
    }
    let twice =
        section.of(kafka).keys().find(|other| *other != property && canonical(other) == name);
    if let Some(other) = twice {
        let message = format!("and `{other}` are two names of one property");
        return Some((message, "leave one of them out".to_owned()));
    }
    if value.contains('\0') {
        let message = "has a NUL character in it, where librdkafka would take it for the end";
        return Some((message.to_owned(), "leave that character out".to_owned()));
    }
    // In a PEM text white space means nothing.
    let pem = name.rsplit('.').next() == Some("pem");
    if value.starts_with([' ', '\t', '\n', '\r', '\x0b', '\x0c']) && !pem {
        let message = "begins with white space, which librdkafka cuts off";
        return Some((message.to_owned(), "write the value without it".to_owned()));
    }
    by_librdkafka(property, value)
}

/// What librdkafka itself says of a property.
fn by_librdkafka(property: &str, value: &str) -> Option<(String, String)> {
    let mut one = ClientConfig::new();
    one.set(property, value);
    match one.create_native_config() {
        Ok(_) => None,
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            let java = owned::JAVA.iter().find(|(java, _)| *java == property);
            let near = || nearest(property).map(|near| format!("did you mean `{near}`?"));
            let remedy = java
                .map(|(_, instead)| (*instead).to_owned())
                .or_else(near)
                .unwrap_or_else(|| format!("leave it out; all properties: {MANUAL}"));
            Some(("is not a property of librdkafka".to_owned(), remedy))
        }
        Err(error) => {
            let java = owned::JAVA.iter().find(|(java, _)| *java == property);
            let remedy = java.map_or_else(
                || format!("write a value that it takes: {MANUAL}"),
                |(_, instead)| (*instead).to_owned(),
            );
            Some((why(&error).unwrap_or_else(|| REFUSED.to_owned()), remedy))
        }
    }
}

const REFUSED: &str = "has a value that librdkafka does not take";

/// Why librdkafka does not take a property's value, without the value; `None` where `error` is another one.
///
/// Its own sentences quote the value, in one form or another, so only those parts are kept that cannot have it.
pub(super) fn why(error: &KafkaError) -> Option<String> {
    let KafkaError::ClientConfig(code, said, ..) = error else { return None };
    if *code == RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN {
        return Some("is not a property of librdkafka".to_owned());
    }
    // These two begin with the name, which may be the first one of a second name, and quote no text.
    let named = said.strip_prefix("Configuration property \"").unwrap_or_default();
    let build = named.split_once("\" not supported in this build: ");
    let range = named.rsplit_once(" allowed range ");
    Some(if let Some((_, reason)) = build {
        format!("is not supported by this build of librdkafka: {reason}")
    } else if let Some((_, range)) = range {
        format!("is outside of its range, {}", range.trim_end())
    } else if said.contains("true or false") {
        "is neither `true` nor `false`".to_owned()
    } else if said.contains("to empty value") {
        "is empty".to_owned()
    } else {
        REFUSED.to_owned()
    })
}

/// The property that was probably meant.
fn nearest(property: &str) -> Option<String> {
    let names =
        native::properties().into_iter().chain(owned::ALIASES.map(|(alias, _)| alias.to_owned()));
    names
        .map(|name| (strsim::jaro_winkler(property, &name), name))
        .filter(|(score, _)| 0.85 < *score)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// Whether a property's value is a secret by its name, whoever wrote it where. A name that librdkafka does not know
/// may be that of a secret with a slip in it.
pub fn sensitive(property: &str) -> bool {
    property.split('.').any(|part| part == "jaas" || secret::names_secret(part))
        || property.starts_with("sasl.oauthbearer.config")
        || property.starts_with("sasl.oauthbearer.extensions")
        || !native::is_property(property)
}

/// Whether KIP-848's protocol is chosen, in which the broker assigns partitions.
pub fn group_protocol_is_the_brokers(kafka: &Kafka) -> bool {
    let chosen =
        kafka.consumer.get("group.protocol").or_else(|| kafka.common.get("group.protocol"));
    chosen.is_some_and(|protocol| protocol.trim_start().eq_ignore_ascii_case("consumer"))
}

/// The addresses of the brokers, as the file has them.
pub fn servers(kafka: &Kafka) -> Option<&str> {
    let named = |name: &&String| canonical(name) == "bootstrap.servers";
    let (_, servers) = kafka.common.iter().find(|(name, _)| named(name))?;
    (!servers.trim().is_empty()).then_some(servers)
}

/// This replica's stable name: as configured, else `$POD_NAME`, else `$HOSTNAME`, else the host's name.
///
/// # Errors
///
/// With exit code 78 where there is none, or where Kafka does not take it; the message says where it came from.
pub fn instance(config: &Config) -> Result<String, Failure> {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    first_name([
        ("kafka.instance", config.kafka.instance.clone()),
        ("$POD_NAME", std::env::var("POD_NAME").ok()),
        ("$HOSTNAME", std::env::var("HOSTNAME").ok()),
        ("the host's name", host()),
    ])
    .map_err(|message| Failure { message, exit: 78 })
}

fn first_name(places: [(&str, Option<String>); 4]) -> Result<String, String> {
    let given = places.into_iter().find_map(|(place, name)| {
        let name = name?.trim().to_owned();
        (!name.is_empty()).then_some((place, name))
    });
    let Some((place, name)) = given else {
        return Err("name this replica: neither kafka.instance nor $POD_NAME nor $HOSTNAME nor the host has a name; \
                    set kafka.instance"
            .to_owned());
    };
    match topics::not_a_name(&name) {
        None => Ok(name),
        Some(wrong) => Err(format!(
            "name this replica by {place}: Kafka does not take {wrong}; set kafka.instance to a name of its own, \
             with {}",
            topics::NAMES
        )),
    }
}

/// The transactional id of a lane. No two lanes of any two replicas of any two groups share one: neither a group nor
/// an instance can have a `/` in its name.
pub fn transactional_id(group: &str, instance: &str, lane: usize) -> String {
    format!("tidemill/{group}/{instance}/{lane}")
}

/// How much the consumer may hold, so that it never has more than a quarter of `limit` bytes, over `partitions`
/// partitions that are read side by side, each with a queue of its own.
///
/// The client stops fetching a partition once it holds so many records or bytes of it, whichever comes first: one half is
/// for the records' own frames, the other for their payload. A response that is under way comes on top, and its records
/// take up to 60 times its bytes where they are empty, which is why a fetch is a small part of it. The largest message
/// must still come through: a broker sends a batch that is larger than asked for, alone, and
/// `receive.message.max.bytes` only guards against nonsense.
pub fn memory(limit: u64, partitions: usize) -> [(&'static str, String); 6] {
    let share = limit / 4;
    let partitions = u64::try_from(partitions.max(1)).unwrap_or(u64::MAX);
    let each = share / partitions;
    let fetch = (each / 64).clamp(16 << 10, 1 << 20);
    let fetches = fetch.saturating_mul(partitions).min(share / 4).clamp(fetch, 50 << 20);
    let message = (limit / 3).saturating_add(1 << 20).clamp(100_000_000, 2_147_483_647);
    [
        ("queued.min.messages", (each / 2 / RECORD).clamp(64, 10_000).to_string()),
        ("queued.max.messages.kbytes", (each >> 11).clamp(1, 2_097_151).to_string()),
        ("fetch.message.max.bytes", fetch.to_string()),
        ("fetch.max.bytes", fetches.to_string()),
        // For a consumer it is nothing but the least that `fetch.max.bytes` may be.
        ("message.max.bytes", fetches.min(1_000_000).to_string()),
        ("receive.message.max.bytes", message.to_string()),
    ]
}

/// The settings of the client that only looks: at topics, groups and offsets.
pub fn look(config: &Config, instance: &str) -> ClientConfig {
    let mut client = client(config, instance, Client::All);
    client.set("group.id", &config.kafka.group).set("enable.auto.commit", "false");
    client
}

/// The settings of a client that reads a topic without being a member of the group.
pub fn reader(config: &Config, instance: &str) -> ClientConfig {
    let mut client = client(config, instance, Client::Consumer);
    client.set("group.id", &config.kafka.group).set("auto.offset.reset", "earliest");
    client
}

/// The settings of the member of the group, which may come to read `partitions` partitions.
pub fn consumer(config: &Config, instance: &str, partitions: usize) -> ClientConfig {
    let mut client = client(config, instance, Client::Consumer);
    client.set("group.id", &config.kafka.group).set("group.instance.id", instance);
    // A position is always given; one that does not fit any more is looked at anew.
    client.set("auto.offset.reset", "error");
    for (name, value) in memory(config.limits.memory.0, partitions) {
        client.set(name, value);
    }
    client
}

/// How a lane's producer sends, for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Bytes that go into one batch of the client; a larger message goes by itself.
    pub limit: usize,
    /// Each message by itself, so that the broker's verdict on it is its own.
    pub isolated: bool,
    /// How long the client waits before it repeats a request.
    pub backoff: Duration,
}

/// The settings of lane `lane`'s producer.
pub fn producer(config: &Config, instance: &str, lane: usize, tuning: Tuning) -> ClientConfig {
    let mut client = client(config, instance, Client::Producer);
    let id = transactional_id(&config.kafka.group, instance, lane);
    client.set("transactional.id", id).set("batch.size", tuning.limit.to_string());
    let backoff = tuning.backoff.as_millis();
    client.set("retry.backoff.ms", backoff.to_string());
    client.set("retry.backoff.max.ms", backoff.max(1_000).to_string());
    if tuning.isolated {
        client.set("batch.num.messages", "1");
    }
    client.set(
        "partitioner",
        match config.output.partition {
            OutputPartition::Same => "consistent_random",
            OutputPartition::Key => "murmur2_random",
        },
    );
    client
}

/// How long a member of the group may be silent before the group gives its partitions away.
pub fn session(config: &Config) -> Duration {
    let settings = consumer(config, "", 1);
    let millis = settings.get("session.timeout.ms").and_then(|ms| ms.parse().ok());
    // KIP-848's is the broker's own: 45 s by default.
    Duration::from_millis(millis.unwrap_or(45_000))
}

/// The user's properties for such a client, by librdkafka's first name of each.
fn users(kafka: &Kafka, of: Client) -> BTreeMap<&str, &str> {
    let own = match of {
        Client::All => None,
        Client::Consumer => Some(&kafka.consumer),
        Client::Producer => Some(&kafka.producer),
    };
    let owned: BTreeSet<&str> = owned::OWNED.iter().map(|owned| owned.name).collect();
    let given = kafka.common.iter().chain(own.into_iter().flatten());
    given
        .map(|(name, value)| (canonical(name), value.as_str()))
        .filter(|(name, _)| !owned.contains(name) && owned::client_of(name).serves(of))
        .collect()
}

fn client(config: &Config, instance: &str, of: Client) -> ClientConfig {
    let by_broker = group_protocol_is_the_brokers(&config.kafka);
    let mut client = ClientConfig::new();
    client.set_log_level(RDKafkaLogLevel::Info);
    for owned in owned::OWNED.iter().filter(|owned| owned.client.serves(of)) {
        if let Ours::Fixed(value) = owned.ours
            && !(by_broker && owned::CLASSIC.contains(&owned.name))
        {
            client.set(owned.name, value);
        }
    }
    for (whose, name, value) in owned::DEFAULTS {
        if whose.serves(of) && !(by_broker && owned::CLASSIC.contains(&name)) {
            client.set(name, value);
        }
    }
    let users = users(&config.kafka, of);
    for (name, value) in &users {
        client.set(*name, *value);
    }
    if users.contains_key("debug") {
        // Its lines are of that level; `logging.filter` says whether they are written.
        client.set_log_level(RDKafkaLogLevel::Debug);
    }
    let tls = users.get("security.protocol").is_some_and(|protocol| {
        ["ssl", "sasl_ssl"].contains(&protocol.trim_start().to_ascii_lowercase().as_str())
    });
    if tls && !users.contains_key("ssl.ca.location") && !users.contains_key("ssl.ca.pem") {
        // The OpenSSL that is built in knows no authorities; librdkafka looks for the system's where it is told to.
        client.set("ssl.ca.location", "probe");
    }
    client.set("client.id", instance);
    client
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;

//! The properties of our clients: [ours](owned), then our defaults, then the user's. A `ClientConfig` is never printed: it
//! holds passwords.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::config::identity::{self, Tokens};
use crate::config::owned::{self, Client, Ours, canonical};
use crate::config::properties::group_protocol_is_the_brokers;
use crate::config::{Config, Kafka, OutputPartition, topics};
use crate::failure::{Exit, Failure};

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
    .map_err(|message| Failure { message, exit: Exit::Config })
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

/// How much the consumer may hold, so that it never has more than three sixteenths of `limit` bytes, over `partitions`
/// partitions that are read side by side, each with a queue of its own.
///
/// The client stops fetching a partition once it holds so many records or bytes of it, whichever comes first: one half is
/// for the records' own frames, the other for their payload. A response that is under way comes on top, and its records
/// take up to 60 times its bytes where they are empty, which is why a fetch is a small part of it. The largest message
/// must still come through: a broker sends a batch that is larger than asked for, alone, and
/// `receive.message.max.bytes` only guards against nonsense.
pub fn memory(limit: u64, partitions: usize) -> [(&'static str, String); 6] {
    let share = limit / 16 * 3;
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

/// Where the authorities are: in the file that OpenSSL's own variable names, as it is for our requests to the schema registry
/// and the collector, else where the system has them.
fn authorities(file: Option<String>) -> String {
    file.filter(|file| !file.is_empty()).unwrap_or_else(|| "probe".to_owned())
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
    for (name, value) in users.iter().filter(|(name, _)| !identity::is_ours(&config.kafka, name)) {
        client.set(*name, *value);
    }
    if identity::tokens(&config.kafka) != Tokens::None {
        client.set("sasl.mechanisms", identity::OAUTHBEARER);
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
        client.set("ssl.ca.location", authorities(std::env::var("SSL_CERT_FILE").ok()));
    }
    client.set("client.id", instance);
    client
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;

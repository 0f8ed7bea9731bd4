//! The properties of our clients: our defaults, then the user's, never what exactly-once rests on.
//!
//! A `ClientConfig` is never printed: it holds passwords.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::config::{Config, OutOfRange, OutputPartition};

/// Largest message when the topics' own limits cannot be read, bytes: what a broker takes by default, less
/// its framing.
pub(super) const DEFAULT_LIMIT: usize = 1_000_000;

/// What all clients of a process share. Times in milliseconds.
const COMMON: [(&str, &str); 3] = [
    ("socket.timeout.ms", "10000"),
    ("reconnect.backoff.max.ms", "1000"),
    ("allow.auto.create.topics", "false"),
];

const CONSUMER: [(&str, &str); 13] = [
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("session.timeout.ms", "20000"),
    ("heartbeat.interval.ms", "3000"),
    ("max.poll.interval.ms", "300000"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("isolation.level", "read_committed"),
    ("enable.partition.eof", "true"),
    ("check.crcs", "true"),
    // The broker answers as soon as there is anything; a full queue is looked at again soon.
    ("fetch.wait.max.ms", "500"),
    ("fetch.queue.backoff.ms", "20"),
    ("queued.min.messages", "10000"),
    ("statistics.interval.ms", "5000"),
];

const PRODUCER: [(&str, &str); 6] = [
    ("transaction.timeout.ms", "15000"),
    // A transaction is sent whole and then waited for: there is nothing to linger for.
    ("linger.ms", "0"),
    ("compression.type", "zstd"),
    // Half of it tells a repeated request from a slow one; see `lane`.
    ("retry.backoff.ms", "100"),
    ("queue.buffering.max.messages", "200000"),
    ("queue.buffering.max.kbytes", "262144"),
];

/// Settings that KIP-848's protocol takes from the broker; librdkafka refuses them then.
const CLASSIC_ONLY: [&str; 3] =
    ["partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms"];

/// Why a property of librdkafka must not be set by the user; `None` where it may.
///
/// # Examples
///
/// ```
/// use tidemill::kafka::settings::refused;
///
/// assert!(refused("enable.auto.commit").is_some());
/// assert!(refused("ssl.ca.location").is_none());
/// ```
pub fn refused(key: &str) -> Option<&'static str> {
    Some(match key {
        "enable.auto.commit"
        | "auto.commit.interval.ms"
        | "enable.auto.offset.store"
        | "auto.commit.enable"
        | "offset.store.method" => {
            "offsets are committed in the transaction that holds the predictions"
        }
        "isolation.level" => "aborted records would be answered",
        "acks"
        | "request.required.acks"
        | "enable.idempotence"
        | "enable.gapless.guarantee"
        | "max.in.flight"
        | "max.in.flight.requests.per.connection"
        | "retries"
        | "message.send.max.retries" => "transactions need the client's own value",
        "transactional.id" => "it is made of kafka.group, kafka.instance and the lane",
        "group.id" => "set kafka.group",
        "group.instance.id" | "client.id" => "set kafka.instance",
        "auto.offset.reset" => "set kafka.start_from and kafka.on_out_of_range",
        "partition.assignment.strategy" => {
            "partitions are given up one by one (cooperative-sticky)"
        }
        "enable.partition.eof" => "the end of a partition is how lag is known",
        "partitioner" => "set output.partition",
        "linger.ms" | "queue.buffering.max.ms" => "set batch.max_wait and commit.max_wait",
        "statistics.interval.ms" => "lag is taken from the statistics",
        "log.queue" | "log_cb" | "dr_cb" | "dr_msg_cb" | "error_cb" | "rebalance_cb"
        | "stats_cb" | "opaque" | "enabled_events" => "the client owns it",
        _ => return None,
    })
}

/// This replica's stable name: as configured, else `$POD_NAME`, else the host's name.
pub(super) fn instance(config: &Config) -> Option<String> {
    let environment = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    config
        .kafka
        .instance
        .clone()
        .or_else(|| environment("POD_NAME"))
        .or_else(|| environment("HOSTNAME"))
        .or_else(host)
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
}

/// The settings that only look: for metadata and topic limits.
pub(super) fn admin(config: &Config, instance: &str) -> ClientConfig {
    client(config, instance, &[], &BTreeMap::new())
}

/// The consumer's settings.
pub(crate) fn consumer(config: &Config, instance: &str) -> ClientConfig {
    let mut client = client(config, instance, &CONSUMER, &config.kafka.consumer);
    if client.get("group.protocol") == Some("consumer") {
        for key in CLASSIC_ONLY {
            client.remove(key);
        }
    }
    client.set("group.id", &config.kafka.group).set("group.instance.id", instance);
    client.set(
        "auto.offset.reset",
        match config.kafka.on_out_of_range {
            OutOfRange::Stop => "error",
            OutOfRange::Earliest => "earliest",
            OutOfRange::Latest => "latest",
        },
    );
    if !config.kafka.consumer.contains_key("queued.max.messages.kbytes") {
        // Half of the memory for records in flight: the other half is in the engine.
        let kib = (config.limits.memory.0 / 2048).clamp(64, 2_097_151);
        client.set("queued.max.messages.kbytes", kib.to_string());
    }
    client
}

/// The settings of lane `lane`'s producer, for messages of at most `limit` bytes.
pub(super) fn producer(config: &Config, instance: &str, lane: usize, limit: usize) -> ClientConfig {
    let mut client = client(config, instance, &PRODUCER, &config.kafka.producer);
    let id = format!("tidemill.{}.{instance}.{lane}", config.kafka.group);
    client.set("transactional.id", id).set("batch.size", limit.to_string());
    client.set("message.max.bytes", limit.to_string());
    client.set(
        "partitioner",
        match config.output.partition {
            OutputPartition::Same => "consistent_random",
            OutputPartition::Key => "murmur2_random",
        },
    );
    client
}

/// The largest message that the user allows, bytes.
pub(super) fn own_limit(config: &Config) -> usize {
    let given = |map: &BTreeMap<String, String>| map.get("message.max.bytes")?.parse().ok();
    given(&config.kafka.producer).or_else(|| given(&config.kafka.common)).unwrap_or(usize::MAX)
}

fn client(
    config: &Config,
    instance: &str,
    defaults: &[(&str, &str)],
    own: &BTreeMap<String, String>,
) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set_log_level(RDKafkaLogLevel::Info);
    for (key, value) in COMMON.iter().chain(defaults) {
        client.set(*key, *value);
    }
    let users = config.kafka.common.iter().chain(own);
    for (key, value) in users.filter(|(key, _)| refused(key).is_none()) {
        client.set(key, value);
    }
    client.set("client.id", instance);
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let mut config = Config::default();
        config.kafka.group = "g".to_owned();
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        config.kafka.common =
            BTreeMap::from([pair("bootstrap.servers", "b:9092"), pair("client.id", "mine")]);
        config
    }

    #[test]
    fn what_exactly_once_rests_on_cannot_be_set() {
        let mut config = config();
        for key in ["isolation.level", "enable.auto.commit", "group.instance.id"] {
            config.kafka.consumer.insert(key.to_owned(), "wrong".to_owned());
        }
        config.kafka.producer.insert("transactional.id".to_owned(), "wrong".to_owned());
        let consumer = consumer(&config, "pod-0");
        assert_eq!(consumer.get("isolation.level"), Some("read_committed"));
        assert_eq!(consumer.get("enable.auto.commit"), Some("false"));
        assert_eq!(consumer.get("group.instance.id"), Some("pod-0"));
        assert_eq!(consumer.get("client.id"), Some("pod-0"));
        assert_eq!(consumer.get("auto.offset.reset"), Some("error"));
        let producer = producer(&config, "pod-0", 2, 5_000);
        assert_eq!(producer.get("transactional.id"), Some("tidemill.g.pod-0.2"));
        assert_eq!(producer.get("message.max.bytes"), Some("5000"));
    }

    #[test]
    fn users_properties_win_over_defaults() {
        let mut config = config();
        config.kafka.consumer.insert("session.timeout.ms".to_owned(), "6000".to_owned());
        config.kafka.producer.insert("compression.type".to_owned(), "lz4".to_owned());
        assert_eq!(consumer(&config, "i").get("session.timeout.ms"), Some("6000"));
        assert_eq!(producer(&config, "i", 0, 9).get("compression.type"), Some("lz4"));
        assert_eq!(consumer(&config, "i").get("bootstrap.servers"), Some("b:9092"));
    }

    #[test]
    fn the_newer_protocol_takes_its_timeouts_from_the_broker() {
        let mut config = config();
        config.kafka.consumer.insert("group.protocol".to_owned(), "consumer".to_owned());
        for key in CLASSIC_ONLY {
            assert_eq!(consumer(&config, "i").get(key), None, "{key}");
        }
    }
}

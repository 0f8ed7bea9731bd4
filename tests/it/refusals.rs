//! What brokers and decoders refuse for ever is that record's outcome, and nobody else's.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use tidemill::kafka::native;

use crate::broker::Broker;
use crate::world::{GOOD, Replica, World, once, wait_on};

const DAY: i64 = 86_400_000;
/// Dead letters are what these tests want.
const EXTRA: &str = "dead_letters: { max_ratio: 1.0 }";

/// A record of a test: its key, its timestamp if it is not now, its headers.
#[derive(Default)]
struct Given<'a> {
    key: Option<&'a str>,
    timestamp: Option<i64>,
    headers: Option<OwnedHeaders>,
}

fn produce(world: &World, records: Vec<Given<'_>>) {
    let producer: ThreadedProducer<DefaultProducerContext> = world.client().create().unwrap();
    let topic = world.topic("in");
    for Given { key, timestamp, headers } in records {
        let record = BaseRecord::<str, str> {
            key,
            timestamp,
            headers,
            ..BaseRecord::to(&topic).partition(0).payload(GOOD)
        };
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}

/// Of `count` records, only these offsets became dead letters of class `refused`; each record has one outcome. The dead
/// letters' headers.
#[track_caller]
fn refused(world: &World, count: i64, offsets: &[i64]) -> Vec<BTreeMap<String, String>> {
    let config = world.config("a", EXTRA);
    let (code, log) = Replica::start(&config, &["--until-end"]).ended();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(world.outcomes(), once(1, 0..count));
    let mut dead = world.read("in-dlq", "read_committed");
    dead.sort_by_key(|seen| seen.number::<i64>("__connect.errors.offset"));
    let found: Vec<i64> =
        dead.iter().map(|seen| seen.number("__connect.errors.offset").unwrap()).collect();
    assert_eq!(found, offsets);
    for seen in &dead {
        assert_eq!(seen.headers["__connect.errors.exception.class.name"], "refused", "{seen:?}");
    }
    dead.into_iter().map(|seen| seen.headers).collect()
}

fn set(world: &World, topic: &str, key: &str, value: &str) {
    let topic = world.topic(topic);
    let config = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set(key, value);
    let done = wait_on(world.admin().alter_configs([&config], &AdminOptions::new())).unwrap();
    assert!(done.iter().all(Result::is_ok), "{done:?}");
}

/// The tests share a broker.
#[test]
fn a_permanent_refusal_is_that_records_outcome() {
    let Some(broker) = Broker::start() else { return };
    let world = World::on(broker, 1);
    without_a_key(&world.beside("compact", 1, &[]));
    with_timestamps_that_the_topic_refuses(&world.beside("times", 1, &[]));
    with_timestamps_that_overflow(&world.beside("range", 1, &[]));
    with_header_names_that_are_not_utf8(&world.beside("names", 1, &[]));
    bad_records_right_after_a_start_are_named(&world.beside("bad", 1, &[]));
}

/// A compacted topic takes no record without a key, and neither does a compacted dead-letter topic, which keeps them all.
fn without_a_key(world: &World) {
    set(world, "out", "cleanup.policy", "compact");
    set(world, "in-dlq", "cleanup.policy", "compact");
    let key = |at: i64| Given { key: (at % 50 != 7).then_some("k"), ..Given::default() };
    produce(world, (0..200).map(key).collect());
    let dead = refused(world, 200, &[7, 57, 107, 157]);
    for headers in dead {
        assert!(headers.contains_key("tidemill.original.key"), "{headers:?}");
        let message = &headers["__connect.errors.exception.message"];
        let expect = "topic compact-out refuses the prediction: the topic is compacted, and the record has no key: ";
        assert!(message.starts_with(expect) && message.is_ascii(), "{message:?}");
    }
}

/// Too old for the output, and for the dead letters, where the record's own time is kept beside one that is taken.
fn with_timestamps_that_the_topic_refuses(world: &World) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let now = i64::try_from(now).unwrap();
    set(world, "in", "message.timestamp.after.max.ms", &i64::MAX.to_string());
    for topic in ["out", "in-dlq"] {
        set(world, topic, "message.timestamp.before.max.ms", &DAY.to_string());
    }
    let times = [now, now - 3 * DAY, now, now + 2 * DAY, now];
    let given = |timestamp| Given { timestamp: Some(timestamp), ..Given::default() };
    produce(world, times.into_iter().map(given).collect());
    let dead = refused(world, 5, &[1, 3]);
    for (headers, time) in dead.iter().zip([now - 3 * DAY, now + 2 * DAY]) {
        assert_eq!(headers["tidemill.original.timestamp"], time.to_string());
        let message = &headers["__connect.errors.exception.message"];
        let expect = "topic times-out refuses the prediction: Invalid";
        assert!(message.starts_with(expect) && message.is_ascii(), "{message:?}");
    }
}

/// The least and the largest that a producer can write.
fn with_timestamps_that_overflow(world: &World) {
    for topic in ["in", "out", "in-dlq"] {
        set(world, topic, "message.timestamp.before.max.ms", &i64::MAX.to_string());
        set(world, topic, "message.timestamp.after.max.ms", &i64::MAX.to_string());
    }
    let given = |timestamp| Given { timestamp: Some(timestamp), ..Given::default() };
    produce(world, [1, i64::MAX, i64::MAX - 1].into_iter().map(given).collect());
    refused(world, 3, &[]);
}

/// Header names are bytes to Kafka: they go along as they are.
fn with_header_names_that_are_not_utf8(world: &World) {
    let headers = || {
        let mut headers = OwnedHeaders::new();
        native::add_header(&mut headers, b"\xff\xfe name", Some(b"value"));
        native::add_header(&mut headers, b"", None);
        headers
    };
    produce(
        world,
        (0..3).map(|_| Given { headers: Some(headers()), ..Given::default() }).collect(),
    );
    refused(world, 3, &[]);
}

/// A service that stops because of its dead letters says what was wrong with them: nothing of them was written.
fn bad_records_right_after_a_start_are_named(world: &World) {
    world.produce(0, &["[]"; 150]);
    let (code, log) = world.run("");
    assert_eq!(code, Some(65), "{log}");
    for word in ["above dead_letters.max_ratio", "bad-in/0 offset", "where an object is wanted"] {
        assert!(log.contains(word), "{word:?} is missing in {log}");
    }
    assert!(world.outcomes().is_empty());
}

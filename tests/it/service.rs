//! The whole service against a real broker: bounded runs, stops, refusals, bad input, control records.

use std::process::Command;
use std::time::Duration;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use crate::broker::Broker;
use crate::world::{Replica, World, wait_for};

const EXTRA: &str = "batch: { max_wait: 10ms }\ndead_letters: { max_ratio: 1.0 }";

fn producer(world: &World, transactional: bool) -> ThreadedProducer<DefaultProducerContext> {
    let mut client = world.client();
    client.set("message.max.bytes", "4000000");
    if transactional {
        client.set("transactional.id", "upstream");
    }
    client.create().unwrap()
}

fn send(producer: &ThreadedProducer<DefaultProducerContext>, partition: i32, value: &[u8]) {
    let record = BaseRecord::<[u8], [u8]>::to("in").partition(partition).payload(value);
    producer.send(record).map_err(|(error, _)| error).unwrap();
}

/// A world with version 1 promoted.
fn world(partitions: i32) -> Option<World> {
    let world = World::start(partitions)?;
    world.add_version(1);
    world.promote(1);
    Some(world)
}

#[test]
fn a_bounded_run_ends_by_itself_past_control_records() {
    let Some(world) = world(2) else { return };
    let upstream = producer(&world, true);
    upstream.init_transactions(Duration::from_secs(30)).unwrap();
    for round in 0..3 {
        upstream.begin_transaction().unwrap();
        for n in 0..100 {
            send(&upstream, n % 2, format!("{{\"x\":{}}}", round * 100 + n).as_bytes());
        }
        if round == 1 {
            upstream.flush(Duration::from_secs(30)).unwrap();
            upstream.abort_transaction(Duration::from_secs(30)).unwrap();
        } else {
            upstream.commit_transaction(Duration::from_secs(30)).unwrap();
        }
    }
    let config = world.config("a", EXTRA);
    let (code, log) = Replica::start(&config, &["--until-end"]).ended();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(world.read("out", "read_committed").len(), 200, "the aborted records are not input");
    world.wait_for_lag_0();
    let (code, log) = Replica::start(&config, &["--until-end"]).ended();
    assert_eq!(code, Some(0), "nothing to do is no error: {log}");
    assert_eq!(world.read("out", "read_committed").len(), 200);

    let verified = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["verify", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verified.stdout);
    assert!(verified.status.success() && said.contains("200 committed records"), "{said}");
    let checked = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["check", "--config"])
        .arg(&config)
        .output();
    let checked = checked.unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[test]
fn bad_input_ends_once_each_in_its_class() {
    let Some(world) = world(1) else { return };
    let producer = producer(&world, false);
    let long_text = format!("{{\"x\":1,\"text\":\"{}\"}}", "a ".repeat(400_000));
    let deep = "[".repeat(5_000);
    let cases: Vec<(&[u8], &str)> = vec![
        (b"{\"x\":1}", "prediction"),
        (b"\xff\xfe{}", "undecodable"),
        (b"{\"x\":1", "undecodable"),
        (b"", "undecodable"),
        (b"[1]", "undecodable"),
        (deep.as_bytes(), "undecodable"),
        (b"{\"x\":NaN}", "undecodable"),
        (b"{\"x\":1e999}", "undecodable"),
        (b"{\"x\":\"1\"}", "invalid"),
        (b"{\"x\":true}", "prediction"),
        (b"{\"x\":1e308}", "prediction"),
        (b"{}", "missing"),
        (b"{\"x\":null}", "missing"),
        (b"{\"x\":2,\"y\":3}", "prediction"),
        (long_text.as_bytes(), "prediction"),
    ];
    for (value, _) in &cases {
        send(&producer, 0, value);
    }
    let long_key = vec![b'k'; 10_000];
    let headers = OwnedHeaders::new().insert(Header { key: "empty", value: None::<&[u8]> });
    let record = BaseRecord::to("in").partition(0).key(&long_key[..]).payload(&b"{\"x\":3}"[..]);
    producer.send(record.headers(headers)).map_err(|(error, _)| error).unwrap();
    let tombstone = BaseRecord::<[u8], [u8]>::to("in").partition(0).key(b"gone");
    producer.send(tombstone).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(30)).unwrap();

    let (code, log) = Replica::start(&world.config("a", EXTRA), &["--until-end"]).ended();
    assert_eq!(code, Some(0), "{log}");
    let (out, dead) = (world.read("out", "read_committed"), world.read("in-dlq", "read_committed"));
    assert_eq!(out.len() + dead.len(), cases.len() + 2);
    for (offset, (value, expect)) in cases.iter().enumerate() {
        let offset = i64::try_from(offset).unwrap();
        let buried = dead.iter().find(|s| s.number("__connect.errors.offset") == Some(offset));
        match buried {
            Some(letter) => {
                assert_eq!(letter.headers["tidemill.error.class"], *expect, "offset {offset}");
                assert_eq!(letter.value.as_deref(), Some(*value), "byte for byte");
                assert_eq!(letter.headers["__connect.errors.topic"], "in");
            }
            None => assert_eq!(*expect, "prediction", "offset {offset}"),
        }
    }
    let keyed = out.iter().find(|seen| seen.key.as_deref() == Some(&long_key[..])).unwrap();
    assert!(keyed.headers.contains_key("empty"), "the record's own headers are kept");
    let tombstone = out.iter().find(|seen| seen.key.as_deref() == Some(b"gone")).unwrap();
    assert_eq!(tombstone.value, None);
    let letter = dead.iter().find(|s| s.headers["tidemill.error.class"] == "invalid").unwrap();
    let message = &letter.headers["__connect.errors.exception.message"];
    assert!(message.contains("field \"x\" is a string, not a number"), "{message}");
}

#[test]
fn what_cannot_work_is_refused_at_the_start() {
    let Some(world) = world(2) else { return };
    world.create_topics(&["wide", "wide-dlq"], 3);
    for (extra, from, to, part) in [
        ("", "topics: [in]", "topics: [nowhere]", "nowhere"),
        ("", "topics: [in]", "topics: [wide]", "add partitions to out"),
        ("", "lin@champion", "lin@nobody", "nobody"),
        ("", "models:/lin@champion", "models:/lin/7", "has no version 7; versions: 1"),
        ("", "127.0.0.1:0", "192.0.2.1:1", "http.listen"),
        ("", "input: {", "input: { format: bytes,", "which the model does not read"),
        ("surprise: 1", "", "", "surprise"),
    ] {
        let file = world.config("a", extra);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_tidemill"))
            .args(["run", "--config"])
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{to}: {said}");
        assert!(said.contains(part), "{part} in\n{said}");
    }
}

#[test]
fn too_many_dead_letters_stop_before_they_are_committed() {
    let Some(world) = world(1) else { return };
    let producer = producer(&world, false);
    for _ in 0..300 {
        send(&producer, 0, b"not for this model");
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    let (code, log) = Replica::start(&world.config("a", ""), &["--until-end"]).ended();
    assert_eq!(code, Some(65), "{log}");
    assert!(log.contains("above dead_letters.max_ratio"), "{log}");
    assert_eq!(world.read("in-dlq", "read_committed").len(), 0);
}

#[test]
fn a_stop_in_the_middle_loses_and_repeats_nothing() {
    const RECORDS: usize = 4_000;
    let Some(world) = world(2) else { return };
    let producer = producer(&world, false);
    for n in 0..RECORDS {
        send(&producer, i32::from(n % 2 == 1), format!("{{\"x\":{n}}}").as_bytes());
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    let config = world.config("a", "batch: { max_records: 4 }\ncommit: { max_batches: 1 }");
    let replica = Replica::start(&config, &[]);
    let observer = world.observer();
    let committed = || world.committed(&observer).map(|offsets| offsets.iter().sum::<i64>());
    wait_for("the first commit", || committed().filter(|sum| 0 < *sum));
    assert!(replica.stop().success(), "SIGTERM ends with 0");
    let answered = usize::try_from(wait_for("the offsets", committed)).unwrap();
    let out = world.read("out", "read_uncommitted");
    assert!(answered < RECORDS, "it was stopped in the middle: {answered}");
    assert_eq!(out.len(), answered, "a clean stop leaves nothing half done");

    let (code, log) = Replica::start(&config, &["--until-end"]).ended();
    assert_eq!(code, Some(0), "{log}");
    let seen = world.read("out", "read_committed");
    for partition in 0..2 {
        let here = seen.iter().filter(|seen| seen.partition == partition);
        let offsets: Vec<usize> =
            here.map(|seen| seen.number("tidemill.source.offset").unwrap()).collect();
        assert_eq!(offsets, (0..RECORDS / 2).collect::<Vec<_>>(), "each once, in order");
    }
}

#[test]
fn tls_and_sasl_by_kafkas_own_names() {
    let Some(broker) = Broker::start_with(&[("KAFKA_SASL", "1")]) else { return };
    let (host, port) = broker.servers.split_once(':').unwrap();
    let secure = format!("{host}:{}", port.parse::<u16>().unwrap() + 2);
    let authority = broker.home.join("tls/ca.crt");
    let world = World::on(broker, 1);
    world.add_version(1);
    world.promote(1);
    send(&producer(&world, false), 0, b"{\"x\":1}");
    let plain = format!("    bootstrap.servers: {}\n", world.broker.servers);
    let config = world.config("a", "");
    let secret = world.dir.path().join("password");
    std::fs::write(&secret, "alice-secret\n").unwrap();
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains(&plain), "{text}");
    let properties = format!(
        "    bootstrap.servers: {secure}\n    security.protocol: SASL_SSL\n    \
         sasl.mechanisms: SCRAM-SHA-512\n    sasl.username: alice\n    \
         sasl.password: ${{file:password}}\n    ssl.ca.location: {}\n",
        authority.display()
    );
    std::fs::write(&config, text.replace(&plain, &properties)).unwrap();
    let (code, log) = Replica::start(&config, &["--until-end"]).ended();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(world.read("out", "read_committed").len(), 1);
    assert!(!log.contains("alice-secret"), "a secret is never printed");

    std::fs::write(&secret, "wrong\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["check", "--config"])
        .arg(&config)
        .output();
    let said = String::from_utf8_lossy(&output.unwrap().stdout).into_owned();
    assert!(said.contains("check sasl.mechanisms, sasl.username and sasl.password"), "{said}");
    let (code, log) = Replica::start(&config, &["--until-end"]).ended();
    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains("uthentication failed") && !log.contains("wrong"), "{log}");
}

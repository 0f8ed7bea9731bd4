//! `tidemill dlq` against a real broker and the embedded log: what is a dead letter comes back as it was, once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset as Place, TopicPartitionList};
use serde_json::Value;
use tidemill::kafka::native;
use tidemill::log::letter::Original;
use tidemill::record::{Header, Offset};
use tidemill::sqlite::{Message, Store};

use crate::world::{Column, PATIENCE, Replica, World, wait_for};

/// A timestamp of a record: an hour and more ago, and not so old that a broker would delete it.
static TIME: LazyLock<i64> = LazyLock::new(|| {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap() - 7_200_000
});

/// The exit code, stdout and stderr of `tidemill dlq`.
fn dlq(file: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    let command = command.arg("dlq").args(arguments).arg("--config").arg(file);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// What `redrive` says, which must end with this code.
#[track_caller]
fn redrive(file: &Path, arguments: &[&str], code: i32) -> (String, String) {
    let (found, out, err) = dlq(file, &[&["redrive"], arguments].concat());
    assert_eq!(found, Some(code), "{out}{err}");
    (out, err)
}

/// The dead letters and the counts.
#[track_caller]
fn list(file: &Path, arguments: &[&str]) -> (Vec<Value>, Value) {
    let (code, out, err) = dlq(file, &[&["list", "--json"], arguments].concat());
    assert_eq!(code, Some(0), "{err}");
    let mut lines: Vec<Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let counts = lines.pop().unwrap();
    (lines, counts)
}

fn header(name: &str, value: Option<&[u8]>) -> Header {
    Header { name: name.as_bytes().to_vec(), value: value.map(<[u8]>::to_vec) }
}

fn record(key: Option<&[u8]>, value: &[u8], headers: Vec<Header>) -> Original {
    let (key, value) = (key.map(<[u8]>::to_vec), Some(value.to_vec()));
    Original { timestamp: Some(*TIME), key, value, headers }
}

fn produce(world: &World, partition: i32, records: &[Original]) {
    let producer: ThreadedProducer<DefaultProducerContext> = world.client().create().unwrap();
    for record in records {
        wait_for("room in the producer", || {
            let mut headers = OwnedHeaders::new();
            for header in &record.headers {
                native::add_header(&mut headers, &header.name, header.value.as_deref());
            }
            let message = BaseRecord::<[u8], [u8]> {
                topic: "in",
                partition: Some(partition),
                payload: record.value.as_deref(),
                key: record.key.as_deref(),
                timestamp: record.timestamp,
                headers: (!record.headers.is_empty()).then_some(headers),
                delivery_opaque: (),
            };
            producer.send(message).ok()
        });
    }
    producer.flush(PATIENCE).unwrap();
}

/// The committed records of a topic, partition by partition.
fn read(world: &World, topic: &str) -> BTreeMap<i32, Vec<Original>> {
    let mut client = world.client();
    client.set("group.id", "reader").set("enable.partition.eof", "true");
    client.set("isolation.level", "read_committed").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = client.create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..world.partitions {
        list.add_partition_offset(topic, partition, Place::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let (mut ended, mut seen) = (0, BTreeMap::<i32, Vec<Original>>::new());
    let deadline = Instant::now() + PATIENCE;
    while ended < world.partitions {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for the ends of {topic}");
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => seen.entry(message.partition()).or_default().push(Original {
                timestamp: message.timestamp().to_millis(),
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                headers: native::headers(&message),
            }),
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("{error}"),
            None => (),
        }
    }
    seen
}

/// Bytes that no compression makes fewer, and that are not UTF-8.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::once(0xff).chain(std::iter::repeat_with(next)).take(length).collect()
}

/// The record as it comes back the first time.
fn again(record: &Original) -> Original {
    let mut record = record.clone();
    record.headers.push(header("tidemill.redrive.attempt", Some(b"1")));
    record
}

/// The service answers what is there, with any number of dead letters.
fn answer(world: &World) {
    let file = world.config("a", "dead_letters: { max_ratio: 1.0 }");
    let (code, log) = Replica::start(&file, &["--until-end"]).ended();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn dead_letters_are_listed_and_come_back_as_they_were() {
    let Some(world) = World::start(2) else { return };
    world.add_version(1);
    world.promote(1);
    world.delete_topics(&["in-dlq"]);
    world.create_topics_with(&["in-dlq"], 2, &[("max.message.bytes", "3000")]);
    world.create_topics_with(&["small"], 1, &[("max.message.bytes", "1000")]);
    let own = vec![header("own", Some(b"1")), header("trace", None), header("own", Some(b"\xff"))];
    let missing = record(Some(b"k1"), br#"{"y":1}"#, own);
    let invalid = record(None, br#"{"x":"s"}"#, Vec::new());
    let binary = record(Some(b"\xff\x00"), &noise(1_500), vec![header("", None)]);
    let bad = [missing, invalid, binary];
    produce(&world, 0, &[record(Some(b"k"), br#"{"x":1}"#, Vec::new())]);
    produce(&world, 0, &bad[..2]);
    produce(&world, 1, &bad[2..]);
    produce(&world, 1, &[record(Some(b"big"), &noise(9_000), Vec::new())]);
    answer(&world);
    let file = world.config("a", "");
    are_listed(&file);
    is_shown(&world, &file, &bad[0]);
    come_back(&world, &file, &bad);
    are_answered(&world, &file, &bad[0]);
    killed_in_the_middle(&world, &file);
}

fn are_listed(file: &Path) {
    let (letters, counts) = list(file, &[]);
    let classes = serde_json::json!({"missing": 1, "invalid": 1, "undecodable": 2});
    assert_eq!((&counts["classes"], &counts["topics"]["in-dlq"]), (&classes, &4.into()));
    assert_eq!((&counts["truncated"], &counts["redriven"]), (&1.into(), &0.into()));
    let found = letters.iter().find(|letter| letter["class"] == "missing").unwrap();
    assert_eq!(found["source"], serde_json::json!({"topic": "in", "partition": 0, "offset": 1}));
    for (field, expect) in [("key", "k1"), ("model", "lin"), ("version", "1")] {
        assert_eq!(found[field], expect);
    }
    assert!(found["timestamp"].is_string(), "{found}");
    assert!(found["message"].as_str().unwrap().contains('x'), "{found}");
    let (letters, counts) = list(file, &["--class", "undecodable", "--source", "in/1/0"]);
    assert_eq!((letters.len(), &letters[0]["key"]), (1, &"\\xff\\x00".into()));
    assert_eq!(counts["dead_letters"], 1);
    let (letters, counts) = list(file, &["--limit", "1"]);
    assert_eq!((letters.len(), &counts["dead_letters"]), (1, &4.into()));
    assert_eq!(list(file, &["--since", "1h"]).1["dead_letters"], 0, "the records are old");
    assert_eq!(list(file, &["--since", "3h"]).1["dead_letters"], 4);
    let (code, out, _) = dlq(file, &["list"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("truncated (the value had 9000 bytes)"), "{out}");
    let counts = "by class: invalid 1, missing 1, undecodable 2\n  by topic: in-dlq 4\n";
    assert!(out.ends_with(counts), "{out}");
    let (code, _, err) = dlq(file, &["list", "--class", "mising"]);
    assert!(code == Some(2) && err.contains("undecodable, missing, invalid"), "{err}");
}

/// All of one, by the place that `list` gives, and what is said where none stands.
fn is_shown(world: &World, file: &Path, missing: &Original) {
    let (letters, _) = list(file, &["--class", "missing"]);
    let place = |letter: &Value| format!("in-dlq/{}/{}", letter["partition"], letter["offset"]);
    let (code, out, err) = dlq(file, &["show", "--json", &place(&letters[0])]);
    assert_eq!(code, Some(0), "{err}");
    let letter: Value = serde_json::from_str(&out).unwrap();
    let value = String::from_utf8(missing.value.clone().unwrap()).unwrap();
    assert_eq!((&letter["value"], &letter["class"]), (&value.into(), &"missing".into()));
    let names: Vec<&str> =
        letter["headers"].as_array().unwrap().iter().map(|h| h["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["own", "trace", "own"]);
    let (letters, _) = list(file, &["--class", "undecodable", "--source", "in/1/0"]);
    let (_, out, _) = dlq(file, &["show", &place(&letters[0]), "--bytes", "16"]);
    assert!(out.contains("    00000000  ff ") && out.contains("1484 bytes more"), "{out}");
    let end = world.observer().fetch_watermarks("in-dlq", 0, PATIENCE).unwrap().1;
    for (place, said) in [
        (format!("in-dlq/0/{end}"), "no dead letter stands there"),
        (format!("in-dlq/0/{}", end - 1), "the end of a transaction"),
        ("7:0".to_owned(), "the topic has partitions 0 to 1"),
    ] {
        let (code, _, err) = dlq(file, &["show", &place]);
        assert!(code == Some(65) && err.contains(said), "{place}: {err}");
    }
    let (code, _, err) = dlq(file, &["show", "out/0/0"]);
    assert!(code == Some(78) && err.contains("the dead-letter topics are in-dlq"), "{err}");
}

/// One class, then another selection, then the rest: each once.
fn come_back(world: &World, file: &Path, [missing, invalid, binary]: &[Original; 3]) {
    let before = read(world, "in");
    let (out, err) = redrive(file, &["--dry-run"], 65);
    assert!(out.contains("would be redriven: 3") && out.contains("missing  to in/0"), "{out}");
    assert!(err.contains("cannot be redriven: it does not hold the whole record"), "{err}");
    assert_eq!(list(file, &[]).1["redriven"], 0);
    assert_eq!(read(world, "in"), before, "nothing was written");

    let (out, _) = redrive(file, &["--class", "missing"], 0);
    assert!(out.starts_with("redriven: 1; missing 1; transactions: 1; not selected: 3"), "{out}");
    let after = read(world, "in");
    assert_eq!((after[&0].len(), &after[&0][3], &after[&1]), (4, &again(missing), &before[&1]));
    let (out, _) = redrive(file, &["--class", "missing"], 0);
    assert!(out.starts_with("redriven: 0"), "{out}");
    // One that its topic does not take is named, and left; the truncated one is named and passed over.
    let (out, err) = redrive(file, &["--source", "in/1", "--to", "small"], 65);
    assert!(out.starts_with("redriven: 0"), "{out}");
    assert!(err.contains("topic small does not take it"), "{err}");
    assert!(out.contains("cannot be redriven: 2; not taken by small 1, truncated 1"), "{out}");
    assert!(err.contains("the record may still stand in in/1/1"), "{err}");
    let (out, _) = redrive(file, &[], 0);
    assert!(out.starts_with("redriven: 2; invalid 1, undecodable 1;"), "{out}");
    let after = read(world, "in");
    assert_eq!((after[&0].len(), &after[&0][4]), (5, &again(invalid)));
    assert_eq!((after[&1].len(), &after[&1][2]), (3, &again(binary)));
    let (out, _) = redrive(file, &[], 0);
    assert!(out.starts_with("redriven: 0"), "{out}");
    assert_eq!(read(world, "in"), after);
    let (_, counts) = list(file, &[]);
    assert_eq!((&counts["redriven"], &counts["truncated"]), (&3.into(), &1.into()));
    let letters: usize = read(world, "in-dlq").values().map(Vec::len).sum();
    assert_eq!(letters, 4, "nothing is deleted");
    let (code, _, err) = dlq(file, &["redrive", "--to", "nowhere"]);
    assert!(code == Some(78) && err.contains("nowhere: the topic does not exist"), "{err}");
}

/// What was wrong is mended: the record is answered. New dead letters are redriven, old ones only again.
fn are_answered(world: &World, file: &Path, missing: &Original) {
    world.add(2, &[Column { name: "x", impute: Some(7.0) }]);
    world.promote(2);
    answer(world);
    let answers = read(world, "out");
    let answer = answers[&0].iter().rfind(|answer| answer.key == missing.key).unwrap();
    let answer: Value = serde_json::from_slice(answer.value.as_ref().unwrap()).unwrap();
    assert_eq!(answer["value"].as_f64(), Some(9.0));
    let (out, _) = redrive(file, &["--class", "undecodable", "--dry-run"], 0);
    assert!(out.contains("would be redriven: 1;"), "{out}");
    // What is wrong with the other one is not mended: it came back, and does not go round for ever.
    let (out, err) = redrive(file, &["--class", "invalid", "--attempts", "1"], 65);
    assert!(out.starts_with("redriven: 0"), "{out}");
    assert!(err.contains("was redriven once and came back"), "{err}");
    let arguments = ["--class", "invalid", "--attempts", "1", "--dry-run", "--json"];
    let (out, _) = redrive(file, &arguments, 65);
    let counts: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&counts["failed"], &counts["reasons"]),
        (&1.into(), &serde_json::json!({"came back": 1}))
    );
    let (out, _) = redrive(file, &["--class", "invalid", "--dry-run", "--json"], 0);
    let counts: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((&counts["redriven"], &counts["dry_run"]), (&1.into(), &true.into()));
    let (out, _) = redrive(file, &["--again", "--source", "in/0/1", "--to", "small"], 0);
    assert!(out.starts_with("redriven: 1; missing 1;"), "{out}");
}

/// Killed again and again, and with two at once: each record comes back once.
fn killed_in_the_middle(world: &World, file: &Path) {
    const RECORDS: usize = 3_000;
    let many: Vec<Original> =
        (0..RECORDS).map(|n| record(Some(format!("n{n}").as_bytes()), b"no", Vec::new())).collect();
    produce(world, 0, &many);
    answer(world);
    redrive(file, &["--source", "in/1"], 0);
    let count = || {
        let records = read(world, "in");
        let mut times = BTreeMap::<Vec<u8>, usize>::new();
        for record in &records[&0] {
            if let Some(key) = record.key.clone().filter(|key| key.starts_with(b"n")) {
                *times.entry(key).or_default() += 1;
            }
        }
        let again = times.values().filter(|times| **times == 2).count();
        assert!(times.values().all(|times| *times <= 2), "some came back twice");
        again
    };
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args(["dlq", "redrive", "--class", "undecodable", "--config"]).arg(file);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let observer = world.observer();
    let end = || observer.fetch_watermarks("in", 0, Duration::from_secs(5)).unwrap().1;
    for _ in 0..3 {
        let before = end();
        let (mut child, mut twin) = (start(), start());
        wait_for("some records", || {
            let over = child.try_wait().unwrap().is_some() && twin.try_wait().unwrap().is_some();
            (over || before + 100 < end()).then_some(())
        });
        for mut one in [child, twin] {
            drop(one.kill());
            one.wait().unwrap();
        }
    }
    wait_for("the rest", || (dlq(file, &["redrive"]).0 == Some(0)).then_some(()));
    assert_eq!(count(), RECORDS);
}

#[test]
fn the_embedded_log_has_dead_letters_too() {
    let dir = tempfile::tempdir().unwrap();
    let (log, file) = (dir.path().join("log.db"), dir.path().join("tidemill.yaml"));
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/linear");
    let text = format!(
        "log: sqlite:{}\ninput: {{ topics: [in] }}\noutput: {{ topic: out }}\nmodel: {{ uri: {} }}\n\
         http: {{ listen: '127.0.0.1:0' }}\ndead_letters: {{ max_ratio: 1.0 }}\n",
        log.display(),
        model.display()
    );
    fs::write(&file, text).unwrap();
    let (code, _, err) = dlq(&file, &["list"]);
    assert!(code == Some(78) && err.contains("open the embedded log"), "{err}");
    assert!(!log.exists(), "nothing is made");
    let mut store = Store::open(&log).unwrap();
    store.create_topic("in", 1).unwrap();
    let bad = Message {
        timestamp: 1_764_000_000_123,
        key: Some(b"k".to_vec()),
        value: Some(b"no".to_vec()),
        headers: vec![header("own", None)],
    };
    store.append("in", 0, [&bad]).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    let command = command.args(["run", "--until-end", "--config"]).arg(&file);
    assert!(command.stderr(Stdio::null()).status().unwrap().success());

    let (letters, counts) = list(&file, &[]);
    assert_eq!(counts["classes"], serde_json::json!({"undecodable": 1}));
    assert_eq!(letters[0]["timestamp"], "2025-11-24T16:00:00.123Z");
    redrive(&file, &["--dry-run"], 0);
    let (out, _) = redrive(&file, &[], 0);
    assert!(out.starts_with("redriven: 1; undecodable 1;"), "{out}");
    let (out, _) = redrive(&file, &[], 0);
    assert!(out.starts_with("redriven: 0"), "{out}");
    let stored = store.read("in", 0, Offset(0), 9).unwrap();
    let messages: Vec<Message> = stored.into_iter().map(|stored| stored.message).collect();
    let mut back = bad.clone();
    back.headers.push(header("tidemill.redrive.attempt", Some(b"1")));
    assert_eq!(messages, [bad, back]);
    let (code, out, err) = dlq(&file, &["show", "0:0"]);
    assert_eq!(code, Some(0), "{err}");
    for line in ["in-dlq/0/0  undecodable", "  from        in/0/0", "  redriven    yes", "    no"] {
        assert!(out.lines().any(|there| there == line), "{line} in\n{out}");
    }
    assert_eq!(list(&file, &[]).1["redriven"], 1);
}

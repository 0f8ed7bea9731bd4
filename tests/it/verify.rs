//! `tidemill verify` against a real broker: what is violated is found, what is healthy is never accused.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::topic_partition_list::Offset as Place;
use serde_json::Value;
use tidemill::log::message::Message;

use crate::world::{Replica, World, wait_for};

#[path = "verify/forge.rs"]
pub(crate) mod forge;

use forge::{Forge, fill, partition};

/// What a run of the command said and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn verify(file: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    let output = command.arg("verify").arg("--config").arg(file).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The verdict: `holds`, `nothing` is proven, or the kinds of what is violated; and the report.
fn verdict(file: &Path, arguments: &[&str]) -> (String, Value) {
    let said = verify(file, &[&["--json"], arguments].concat());
    let report: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
    let kinds: Vec<&str> =
        report["violations"].as_object().unwrap().keys().map(String::as_str).collect();
    let proven = report["proven"].as_u64().unwrap();
    let verdict = match (&kinds[..], proven) {
        ([], 0) => "nothing".to_owned(),
        ([], _) => "holds".to_owned(),
        _ => kinds.join(" "),
    };
    assert_eq!(said.code, Some(if verdict == "holds" { 0 } else { 65 }), "{said:?}");
    (verdict, report)
}

/// Verifies, and compares the verdict and the number of offsets that are proven.
#[track_caller]
fn judged(forge: &Forge, what: &str, expect: &str, proven: u64) -> Value {
    let (found, report) = verdict(&forge.file, &[]);
    assert_eq!(
        (found.as_str(), report["proven"].as_u64()),
        (expect, Some(proven)),
        "{what}: {report:#}"
    );
    report
}

/// The reasons why something cannot be proven.
fn reasons(report: &Value) -> String {
    let unproven = report["unproven"].as_array().unwrap();
    unproven.iter().map(|u| u["because"].as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

/// A world with versions 1 to 3 of the model.
fn world() -> Option<World> {
    let world = World::start(2)?;
    (1..=3).for_each(|version| world.add_version(version));
    world.promote(3);
    Some(world)
}

/// A forge with one input topic, and records 0 to 29 in both of its partitions.
fn one(world: &World, name: &str, extra: &str) -> Forge {
    let input = format!("{name}-in");
    let forge = Forge::new(world, name, &[&input], extra);
    (0..2).for_each(|number| forge.input(world, 0, number, 0..30));
    forge
}

/// The beginning of a partition, up to `offset`, goes.
fn delete_records(world: &World, topic: &str, number: i32, offset: i64) {
    let admin: AdminClient<DefaultClientContext> = world.client().create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, number, Place::Offset(offset)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let done = runtime.block_on(admin.delete_records(&list, &AdminOptions::new())).unwrap();
    done.elements()[0].error().unwrap();
}

fn nothing(_: usize, _: &mut Vec<Message<'_>>) {}

/// Both partitions of the only topic.
const BOTH: [tidemill::record::Partition; 2] = [
    tidemill::record::Partition { topic: 0, number: 0 },
    tidemill::record::Partition { topic: 0, number: 1 },
];

/// All cases side by side: each of them mostly waits for the broker.
fn each<T: Send, const N: usize>(cases: [T; N], check: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| check(case));
        }
    });
}

/// A name, what is changed in the messages of the second batch, and the verdict.
type Case = (&'static str, fn(&mut Vec<Message<'_>>), &'static str);

/// Changes the text of the manifest, which is the last message.
fn manifest(messages: &mut [Message<'_>], from: &str, to: &str) {
    let value = messages.last_mut().unwrap().value.as_mut().unwrap().to_mut();
    let text = String::from_utf8(value.clone()).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    *value = text.replacen(from, to, 1).into_bytes();
}

/// Changes the version in the headers.
fn version(message: &mut Message<'_>) {
    let header = message.headers.iter_mut().find(|(name, _)| **name == *b"tidemill.model.version");
    header.unwrap().1 = Some(b"3".as_slice().into());
}

#[test]
fn what_is_violated_is_found() {
    let Some(world) = world() else { return };
    let cases: [Case; 10] = [
        ("drop", |m| drop(m.remove(4)), "lost count"),
        ("double", |m| m.insert(6, m[4].clone()), "duplicate disorder"),
        ("swap", |m| m.swap(4, 5), "disorder"),
        ("version", |m| version(&mut m[4]), "mixed"),
        ("unmanifested", |m| drop(m.pop()), "uncovered"),
        ("manifests", |m| m.push(m.last().unwrap().clone()), "manifest"),
        ("counts", |m| manifest(m, "\"records\":20", "\"records\":21"), "count"),
        ("range", |m| manifest(m, "\"count\":10", "\"count\":9"), "count"),
        ("topicid", |m| manifest(m, "\"topic_id\":\"", "\"topic_id\":\"x"), "lost"),
        ("group", |m| manifest(m, "\"group\":\"", "\"group\":\"x"), "lost"),
    ];
    each(cases, |(name, edit, expect)| {
        let mut forge = one(&world, name, "");
        forge.history(&BOTH, |part, messages| {
            if part == 1 {
                edit(messages);
            }
        });
        let (found, report) = verdict(&forge.file, &[]);
        assert_eq!(found, expect, "{name}: {report:#}");
    });
    back_and_beyond(&world);
}

/// A version that goes back without a word, and what lies beyond the committed offset.
fn back_and_beyond(world: &World) {
    let mut forge = one(world, "back", "");
    for (part, version) in [(0, 2), (1, 1), (2, 2)] {
        let offsets = 10 * part..10 * part + 10;
        let batch = forge.batch(version, &BOTH.map(|partition| (partition, offsets.clone())));
        forge.commit(&[batch], |_| ());
    }
    judged(&forge, "a recorded rollback", "holds", 60);
    let mut forge = one(world, "silently", "");
    for (part, version) in [(0, 2), (1, 1), (2, 1)] {
        let offsets = 10 * part..10 * part + 10;
        let batch = forge.batch(version, &BOTH.map(|partition| (partition, offsets.clone())));
        forge.commit(&[batch], |messages| {
            let value = messages.last_mut().unwrap().value.as_mut().unwrap().to_mut();
            let text = String::from_utf8(value.clone()).unwrap();
            // Only one partition keeps it: that excuses nothing else.
            *value = text.replacen(",\"previous\":\"lin/2\"", "", 1).into_bytes();
        });
    }
    judged(&forge, "a rollback that one partition records", "version", 60);

    each(["torn", "forged", "aborted"], |name| {
        let mut forge = one(world, name, "");
        forge.history(&BOTH, nothing);
        judged(&forge, name, "holds", 60);
        let batch = forge.batch(2, &[(BOTH[0], 30..32)]);
        match name {
            // All of a transaction but its offsets.
            "torn" => forge.with_messages(&batch, |messages| forge.write(messages)),
            "forged" => forge.with_messages(&batch, |messages| forge.write(&messages[1..])),
            _ => forge.with_messages(&batch, |messages| forge.abort(messages)),
        }
        judged(&forge, name, if name == "aborted" { "holds" } else { "beyond" }, 60);
    });
    // Offsets without outcomes.
    let mut forge = one(world, "offsets", "");
    forge.history(&BOTH, nothing);
    forge.input(world, 0, 1, 30..40);
    judged(&forge, "a tail that is not committed", "holds", 60);
    forge.commit_offset(BOTH[1], 35, None);
    let report = judged(&forge, "committed and not answered", "lost", 60);
    assert_eq!(report["violations"]["lost"]["count"], 5);
    forge.commit_offset(BOTH[1], 35, Some(30..35));
    let report = judged(&forge, "passed over on purpose", "holds", 60);
    assert!(reasons(&report).contains("passed over on purpose"), "{report:#}");
}

#[test]
fn what_is_gone_is_named_and_every_layout_is_judged() {
    let Some(world) = world() else { return };
    let mut forge = one(&world, "short", "");
    forge.history(&BOTH, nothing);
    judged(&forge, "whole", "holds", 60);
    delete_records(&world, "short-in", 0, 7);
    let report = judged(&forge, "the input's beginning is gone", "holds", 53);
    assert!(reasons(&report).contains("the input's records were deleted"), "{report:#}");
    delete_records(&world, "short-out", 0, 5);
    let report = judged(&forge, "the output's too", "holds", 53);
    assert!(reasons(&report).contains("the beginning of short-out/0 was deleted"), "{report:#}");
    delete_records(&world, "short-out", 1, 5);
    let report = judged(&forge, "and the other partition's", "holds", 48);
    assert!(reasons(&report).contains("the beginning of short-out/1 was deleted"), "{report:#}");
    for number in 0..2 {
        let (_, end) = ends(&world, "short-out-manifest", number);
        delete_records(&world, "short-out-manifest", number, end);
    }
    let report = judged(&forge, "all manifests are gone", "nothing", 0);
    assert!(reasons(&report).contains("the manifests of their batches were deleted"), "{report:#}");

    let (found, report) =
        verdict(&one_whole(&world, "ranges").file, &["--from", "5", "--to", "25"]);
    assert_eq!((found.as_str(), report["proven"].as_u64()), ("holds", Some(40)), "{report:#}");

    let mut late = one(&world, "late", "");
    let batch = late.batch(1, &[(BOTH[0], 12..30), (BOTH[1], 12..30)]);
    late.commit(&[batch], |_| ());
    judged(&late, "a head that nobody answered", "lost", 36);
    let text = std::fs::read_to_string(&late.file).unwrap();
    let text = text.replace("kafka: { ", "kafka: { start_from: latest, ");
    std::fs::write(&late.file, text).unwrap();
    let report = judged(&late, "start_from: latest", "holds", 36);
    assert!(reasons(&report).contains("begins before 12"), "{report:#}");
    layouts(&world);
    created_again(&world);
}

fn one_whole(world: &World, name: &str) -> Forge {
    let mut forge = one(world, name, "");
    forge.history(&BOTH, nothing);
    forge
}

/// Where outcomes go and what they say of themselves.
fn layouts(world: &World) {
    let cases = [
        ("key", "partition: key", "", 120),
        ("compact", "headers: compact", "", 120),
        ("both", "headers: compact, partition: key", "dead_letters: { topic: both-dead }", 120),
        ("none", "headers: none", "", 4), // the dead letters say what they are
    ];
    each(cases, |(name, output, extra, proven)| {
        let extra = format!("output: {{ topic: {name}-out, {output} }}\n{extra}");
        let inputs = [format!("{name}-a"), format!("{name}-b")];
        let mut forge = Forge::new(world, name, &[&inputs[0], &inputs[1]], &extra);
        let partitions = [partition(0, 0), partition(0, 1), partition(1, 0), partition(1, 1)];
        for partition in partitions {
            forge.input(world, partition.topic, partition.number, 0..30);
        }
        forge.history(&partitions, nothing);
        judged(&forge, name, "holds", proven);
        let lossy = forge.batch(2, &[(partitions[0], 30..40), (partitions[3], 30..40)]);
        for number in [partitions[0], partitions[3]] {
            forge.input(world, number.topic, number.number, 30..40);
        }
        forge.commit(&[lossy], |messages| drop(messages.remove(3)));
        let (found, report) = verdict(&forge.file, &[]);
        let expect = if name == "none" { "count" } else { "lost count" };
        assert_eq!(found, expect, "{name}: {report:#}");
    });
}

/// A topic that was deleted and made again under its name.
fn created_again(world: &World) {
    let mut forge = one_whole(world, "again");
    let admin: AdminClient<DefaultClientContext> = world.client().create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(admin.delete_topics(&["again-in"], &AdminOptions::new())).unwrap();
    wait_for("the topic to be gone", || {
        let admin: AdminClient<DefaultClientContext> = world.client().create().unwrap();
        let found = admin.inner().fetch_metadata(Some("again-in"), Duration::from_secs(5)).ok()?;
        found.topics()[0].partitions().is_empty().then_some(())
    });
    world.create_topics(&["again-in"], 2);
    (0..2).for_each(|number| forge.input(world, 0, number, 0..30));
    // What librdkafka makes of it: the old offset, of the new topic.
    forge.commit_offset(BOTH[0], 30, None);
    forge.commit_offset(BOTH[1], 30, None);
    let report = judged(&forge, "the offset is of the old topic", "nothing", 0);
    assert!(reasons(&report).contains("the committed offset is of topic id"), "{report:#}");
    forge.look(world);
    forge.commit_offset(BOTH[0], 30, None);
    forge.commit_offset(BOTH[1], 30, None);
    let report = judged(&forge, "the old topic's outcomes are no proof for the new one", "lost", 0);
    assert_eq!(
        (&report["violations"]["lost"]["count"], &report["earlier"]),
        (&60.into(), &60.into())
    );
    assert!(report["violations"]["lost"]["examples"][0].as_str().unwrap().contains("topic id"));
}

fn ends(world: &World, topic: &str, number: i32) -> (i64, i64) {
    use rdkafka::consumer::Consumer as _;
    world.observer().fetch_watermarks(topic, number, Duration::from_secs(10)).unwrap()
}

#[test]
fn answers_are_computed_again() {
    let Some(world) = world() else { return };
    let forge = one_whole(&world, "right");
    let (found, report) = verdict(&forge.file, &["--recompute", "100"]);
    assert_eq!(found, "holds", "{report:#}");
    let again = report["recomputed"].as_array().unwrap();
    assert_eq!((&again[0]["model"], &again[0]["equal"]), (&"lin/1".into(), &20.into()));
    assert_eq!((&again[1]["model"], &again[1]["equal"]), (&"lin/2".into(), &40.into()));

    let mut forge = one(&world, "wrong", "");
    forge.history(&BOTH, |part, messages| {
        if part == 1 {
            messages[5].value = Some(b"{\"value\":18.0}".as_slice().into());
            // A record that can be answered becomes a dead letter.
            let class =
                (b"tidemill.error.class".as_slice().into(), Some(b"missing".as_slice().into()));
            let dead = messages.iter_mut().find(|message| message.topic == "wrong-in-dlq").unwrap();
            dead.headers.retain(|(name, _)| **name != *b"tidemill.error.class");
            dead.headers.push(class);
        }
    });
    judged(&forge, "nobody looks at the values", "holds", 60);
    let (found, report) = verdict(&forge.file, &["--recompute", "100"]);
    assert_eq!(
        (found.as_str(), &report["violations"]["answer"]["count"]),
        ("answer", &2.into()),
        "{report:#}"
    );
    let first = report["violations"]["answer"]["examples"].to_string();
    assert!(first.contains("/value 18 is recorded, and it is 17 now"), "{first}");
    assert!(first.contains("a dead letter of class missing is recorded"), "{first}");

    // What is gone cannot be computed again.
    delete_records(&world, "wrong-in", 0, 30);
    delete_records(&world, "wrong-in", 1, 10);
    std::fs::remove_dir_all(world.registry().join("lin/1")).unwrap();
    let (_, report) = verdict(&forge.file, &["--recompute", "100"]);
    let cannot = report["recomputed"].to_string();
    assert!(
        cannot.contains("lin/1 cannot be loaded") && cannot.contains("not in the input any more"),
        "{cannot}"
    );
}

#[test]
fn what_cannot_be_proven_is_an_error_and_says_why() {
    let Some(world) = world() else { return };
    let forge = one_whole(&world, "plain");
    let whole = verify(&forge.file, &[]);
    assert_eq!(whole.code, Some(0), "{whole:?}");
    assert!(
        whole.out.contains("60 committed records") && whole.out.contains("holds for 60 offsets"),
        "{whole:?}"
    );
    assert!(whole.out.contains(" a second"), "the rate: {whole:?}");

    let typo = verify(&forge.file, &["--group", "plian"]);
    assert_eq!((typo.code, typo.out.as_str()), (Some(65), ""), "{typo:?}");
    assert!(typo.err.contains("group plian has committed no offset"), "{typo:?}");
    let beyond = verify(&forge.file, &["--from", "1000"]);
    assert_eq!(beyond.code, Some(65), "{beyond:?}");
    assert!(beyond.out.contains("nothing is proven"), "{beyond:?}");

    let text = std::fs::read_to_string(&forge.file).unwrap();
    let changed = world.dir.path().join("changed.yaml");
    std::fs::write(&changed, text.replace("plain-in", "plain-inn")).unwrap();
    let missing = verify(&changed, &[]);
    assert_eq!(missing.code, Some(65), "{missing:?}");
    assert!(missing.err.contains("topic plain-inn does not exist"), "{missing:?}");

    let secret = "hunter2hunter2";
    let common = format!("common: {{ security.protocol: {secret}, ");
    std::fs::write(&changed, text.replace("common: { ", &common)).unwrap();
    let refused = verify(&changed, &[]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(!format!("{refused:?}").contains(secret), "{refused:?}");

    // A reader that has seen enough: the verdict is the exit code all the same.
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["verify", "--config"])
        .arg(&forge.file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}

#[test]
fn a_running_service_is_never_accused() {
    let Some(world) = world() else { return };
    world.promote(1);
    let extra = "batch: { max_records: 16, max_wait: 5ms }\ndead_letters: { max_ratio: 1.0 }";
    let config = world.config("a", extra);
    let service = Replica::start(&config, &[]);
    let mut end = 0;
    let observer = world.observer();
    for round in 0..8 {
        if round == 4 {
            world.promote(2);
        }
        // While it works: records come before, and go on being answered while they are verified.
        (0..2).for_each(|number| fill(world.client(), "in", number, end..end + 1_000));
        end += 1_000;
        wait_for("the first commits", || {
            let committed = world.committed(&observer)?;
            committed.iter().all(|next| end - 1_000 < *next).then_some(())
        });
        let (found, report) = verdict(&config, &[]);
        assert_eq!(found, "holds", "{report:#}");
        assert!(report["unproven"].as_array().unwrap().is_empty(), "{report:#}");
    }
    world.wait_for_lag_0();
    assert!(service.stop().success());
    let (found, report) = verdict(&config, &["--recompute", "50"]);
    assert_eq!((found.as_str(), report["proven"].as_i64()), ("holds", Some(2 * end)), "{report:#}");
    assert_eq!(report["recomputed"].as_array().unwrap().len(), 2, "{report:#}");
}

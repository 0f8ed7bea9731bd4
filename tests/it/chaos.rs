//! The promise on a real broker: replicas and the broker are killed, models are swapped, and a reader that
//! shares no code with the service looks at what was committed.
//!
//! Sizes are for CI; `TIDEMILL_CHAOS_RECORDS`, `_KILLS`, `_BROKER_KILLS`, `_SWAPS` make it longer. Faults come at stages
//! of the work, not at times, so a slow machine sees the same schedule.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use serde_json::Value;

use crate::world::{Column, Replica, Seen, World, wait_for};

const PARTITIONS: i32 = 4;

fn size(name: &str, default: usize) -> usize {
    std::env::var(format!("TIDEMILL_CHAOS_{name}"))
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(default)
}

/// What record `n` is: by its number, so that the reader knows without being told.
fn value(n: usize) -> Option<String> {
    match n % 100 {
        13 => Some(format!("{{\"x\":{n}")),       // broken
        57 => Some(format!("{{\"x\":\"{n}\"}}")), // wrong type
        35 => Some(format!("{{\"x\":{n}}}")),     // enough for the odd versions
        91 => None,                               // a tombstone
        _ => Some(format!("{{\"x\":{n},\"y\":{}}}", 3 * n)),
    }
}

/// The odd versions answer x + v, the even ones y + x + v: a swap changes what is read of a record, and where it stands.
fn columns(version: u32) -> &'static [Column] {
    const X: Column = Column { name: "x", impute: None };
    const Y: Column = Column { name: "y", impute: None };
    if version.is_multiple_of(2) { &[Y, X] } else { &[X] }
}

/// Version `v` with the columns that it has.
fn promote(world: &World, version: u32) {
    world.add(version, columns(version));
    world.promote(version);
}

fn outcome(n: usize, version: u32) -> &'static str {
    match n % 100 {
        13 | 57 => "dead letter",
        35 if columns(version).len() == 2 => "dead letter",
        91 => "tombstone",
        _ => "prediction",
    }
}

fn produce(world: &World, numbers: std::ops::Range<usize>) {
    let mut client = world.client();
    client.set("enable.idempotence", "true").set("linger.ms", "5");
    let producer: ThreadedProducer<DefaultProducerContext> = client.create().unwrap();
    for n in numbers {
        let (key, value) = (n.to_string(), value(n));
        let partition = i32::try_from(n).unwrap() % PARTITIONS;
        wait_for("room in the producer", || {
            let record = BaseRecord::to("in").partition(partition).key(&key);
            let record = match &value {
                Some(value) => record.payload(value),
                None => record,
            };
            producer.send(record).ok()
        });
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

/// Does one fault after the other as the committed offsets grow.
struct Faults {
    kinds: Vec<char>,
    total: usize,
    done: usize,
    version: u32,
}

impl Faults {
    /// Kills of replicas (k) and of the broker (b) and swaps (s), spread over the run.
    fn new(total: usize, kills: usize, brokers: usize, swaps: usize) -> Self {
        let mut kinds: Vec<(usize, char)> = Vec::new();
        for (kind, count) in [('k', kills), ('b', brokers), ('s', swaps)] {
            kinds.extend((0..count).map(|n| ((2 * n + 1) * 10_000 / (2 * count), kind)));
        }
        kinds.sort_unstable();
        Self {
            kinds: kinds.into_iter().map(|(_, kind)| kind).collect(),
            total,
            done: 0,
            version: 1,
        }
    }

    /// The share of the records that may be there, or committed, before the next fault.
    fn stage(&self) -> usize {
        self.total * (self.done + 1) / (self.kinds.len() + 1)
    }

    fn next(&mut self, world: &World, replicas: &mut [Replica]) {
        match self.kinds[self.done] {
            'k' => {
                let victim = self.done % replicas.len();
                replicas[victim].crash();
            }
            'b' => {
                world.broker.kill9();
                world.broker.restart();
            }
            _ => {
                self.version += 1;
                promote(world, self.version);
            }
        }
        self.done += 1;
    }
}

/// A configuration that lets a version read other fields than the one before.
fn config(world: &World, instance: &str, extra: &str) -> PathBuf {
    let file = world.config(instance, extra);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("workers: 1 }", "workers: 1, allow_change: [fields] }")).unwrap();
    file
}

#[test]
fn exactly_once_whatever_is_killed() {
    let Some(world) = World::start(PARTITIONS) else { return };
    let total = size("RECORDS", 20_000);
    promote(&world, 1);
    let extra = "batch: { max_records: 20, max_wait: 10ms }\ncommit: { max_batches: 2 }\nlogging: { filter: 'tidemill=debug,info' }";
    let mut replicas: Vec<Replica> =
        ["a", "b"].map(|instance| Replica::start(&config(&world, instance, extra), &[])).into();
    let mut faults =
        Faults::new(total, size("KILLS", 6), size("BROKER_KILLS", 2), size("SWAPS", 3));
    let (mut produced, mut revived) = (0, 0);
    let observer = world.observer();
    while faults.done < faults.kinds.len() {
        // Half of what is produced before a fault is committed when it comes: the other half is in flight.
        let stage = faults.stage();
        produce(&world, produced..stage);
        let wanted = produced.midpoint(stage);
        produced = stage;
        wait_for("half of a stage to be committed", || {
            revived +=
                replicas.iter_mut().filter_map(|replica| replica.revive().then_some(())).count();
            let committed: i64 = world.committed(&observer)?.iter().sum();
            (wanted <= usize::try_from(committed).unwrap()).then_some(())
        });
        faults.next(&world, &mut replicas);
    }
    produce(&world, produced..total);
    world.wait_for_lag_0();
    for replica in replicas {
        let status = replica.stop();
        assert!(status.success(), "a replica stopped with {status}");
    }
    check(&world, total, revived);
    let verified = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["verify", "--config"])
        .arg(world.config("a", extra))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verified.stdout);
    assert!(verified.status.success(), "tidemill verify: {said}");
}

fn check(world: &World, total: usize, revived: usize) {
    let (out, dead) = (world.read("out", "read_committed"), world.read("in-dlq", "read_committed"));
    let uncommitted = world.read("out", "read_uncommitted").len()
        + world.read("in-dlq", "read_uncommitted").len();
    let hidden = uncommitted - out.len() - dead.len();
    let mut outcomes: BTreeMap<(i32, i64), Vec<(&str, usize)>> = BTreeMap::new();
    let mut batches: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    let (versions, manifests) = manifests(world);
    let (mut disorder, mut wrong) = (0, 0);
    for (seen, prefix) in [(&out, "tidemill.source"), (&dead, "__connect.errors")] {
        let mut last: BTreeMap<i32, i64> = BTreeMap::new();
        for seen in seen {
            let n: usize = String::from_utf8(seen.key.clone().unwrap()).unwrap().parse().unwrap();
            let partition: i32 = seen.number(&format!("{prefix}.partition")).unwrap();
            let offset: i64 = seen.number(&format!("{prefix}.offset")).unwrap();
            let before = last.insert(partition, offset).unwrap_or(-1);
            disorder += usize::from(offset <= before || partition != seen.partition);
            let batch = &seen.headers["tidemill.batch.id"];
            let version = versions[batch];
            batches
                .entry(batch.clone())
                .or_default()
                .extend(seen.number::<u32>("tidemill.model.version"));
            wrong += usize::from(!is_right(seen, n, prefix, version));
            let kind = if prefix == "tidemill.source" { "out" } else { "dead" };
            outcomes.entry((partition, offset)).or_default().push((kind, n));
        }
    }
    let numbers: BTreeSet<usize> = outcomes.values().flatten().map(|(_, n)| *n).collect();
    let lost = (0..total).filter(|n| !numbers.contains(n)).count();
    let duplicate = out.len() + dead.len() - numbers.len();
    let said = |batch: &String, found: &BTreeSet<u32>| found.iter().all(|v| *v == versions[batch]);
    let mixed = batches.iter().filter(|(batch, found)| !said(batch, found)).count();
    let versions: BTreeSet<u32> = batches.values().flatten().copied().collect();
    let report = format!(
        "chaos: {total} records, {lost} lost, {duplicate} duplicate, {disorder} out of order, {wrong} wrong, \
         {mixed} mixed of {} batches, versions {versions:?}, {hidden} aborted records hidden, {revived} \
         replicas ended by themselves and were started again\n",
        batches.len()
    );
    std::io::stderr().write_all(report.as_bytes()).unwrap();
    assert_eq!((lost, duplicate, disorder, wrong, mixed), (0, 0, 0, 0, 0), "{report}");
    assert_eq!(manifests, out.len() + dead.len(), "records that manifests account for");
}

/// Whether an outcome is the one that its record must have from this version.
fn is_right(seen: &Seen, n: usize, prefix: &str, version: u32) -> bool {
    if prefix == "__connect.errors" {
        let kept = seen.value == value(n).map(String::into_bytes);
        return outcome(n, version) == "dead letter" && kept;
    }
    match &seen.value {
        None => outcome(n, version) == "tombstone",
        Some(value) => {
            let value: Value = serde_json::from_slice(value).unwrap();
            let times = if columns(version).len() == 2 { 4 } else { 1 };
            let expected = f64::from(times * u32::try_from(n).unwrap() + version);
            outcome(n, version) == "prediction" && value["value"].as_f64() == Some(expected)
        }
    }
}

/// The version of each batch, and how many records the manifests account for.
fn manifests(world: &World) -> (BTreeMap<String, u32>, usize) {
    let (mut versions, mut records) = (BTreeMap::new(), 0);
    for manifest in world.read("out-manifest", "read_committed") {
        let manifest: Value = serde_json::from_slice(&manifest.value.unwrap()).unwrap();
        let id = manifest["batch_id"].as_str().unwrap().to_owned();
        let version = u32::try_from(manifest["version"].as_u64().unwrap()).unwrap();
        assert!(versions.insert(id, version).is_none(), "a batch has two manifests");
        records += usize::try_from(manifest["records"].as_u64().unwrap()).unwrap();
    }
    (versions, records)
}

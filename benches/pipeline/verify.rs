//! `tidemill verify` over ten million records: how fast, and how much memory.
//!
//! The history is written by a service on paper (`tests/it/verify/forge.rs`): no model runs, and outcomes, manifests and
//! offsets are those of a real one.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use tidemill::record::Partition;

use crate::PARTITIONS;
use crate::world::World;

#[path = "../../tests/it/verify/forge.rs"]
mod forge;

use forge::{Forge, fill, partition};

/// As the service's default, over all partitions.
const BATCH: i64 = 256;
/// Batches in a transaction: fewer would measure the broker's transactions.
const BATCHES: i64 = 200;

pub(crate) fn run(world: &World) {
    let records = std::env::var("TIDEMILL_VERIFY_RECORDS").ok();
    let records: i64 = records.map_or(10_000_000, |text| text.parse().unwrap());
    let each = records / i64::from(PARTITIONS);
    let mut forge = Forge::new(world, "ten", &["ten-in"], "");
    let started = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..PARTITIONS {
            let client = world.client();
            scope.spawn(move || fill(client, "ten-in", number, 0..each));
        }
    });
    let partitions: Vec<Partition> = (0..PARTITIONS).map(|number| partition(0, number)).collect();
    let share = BATCH / i64::from(PARTITIONS);
    let starts: Vec<i64> = (0..each).step_by(usize::try_from(share).unwrap()).collect();
    for starts in starts.chunks(usize::try_from(BATCHES).unwrap()) {
        let batch = |start: &i64| {
            let offsets = *start..(start + share).min(each);
            let records: Vec<_> = partitions.iter().map(|p| (*p, offsets.clone())).collect();
            forge.batch(1, &records)
        };
        let batches: Vec<_> = starts.iter().map(batch).collect();
        forge.commit(&batches, |_| ());
    }
    println!("verify: {records} records written in {:.0} s", started.elapsed().as_secs_f64());
    let (report, peak) = measured(&forge);
    let seconds = report["effort"]["seconds"].as_f64().unwrap();
    assert_eq!(report["proven"].as_i64(), Some(each * i64::from(PARTITIONS)), "{report:#}");
    println!(
        "verify: {records} records and as many outcomes in {seconds:.1} s: {:.0} messages/s, peak {:.0} MiB",
        report["effort"]["messages"].as_f64().unwrap() / seconds,
        peak
    );
}

/// The report, and the most memory that the process had, in MiB.
fn measured(forge: &Forge) -> (Value, f64) {
    let out = forge.file.with_extension("json");
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["verify", "--json", "--config"])
        .arg(&forge.file)
        .stdout(fs::File::create(&out).unwrap())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let (status, peak) = crate::peak_of(&mut child);
    assert!(status.success(), "{status}: {}", fs::read_to_string(&out).unwrap());
    (serde_json::from_slice(&fs::read(&out).unwrap()).unwrap(), peak)
}

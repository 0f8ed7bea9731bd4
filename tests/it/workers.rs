//! The inference threads with a real model.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tidemill::config::{self, Config, Include, Output, Size};
use tidemill::decode::Decoder;
use tidemill::format::{Codec, Writer};
use tidemill::model::gate;
use tidemill::model::options::LoadOptions;
use tidemill::pipeline::batch::Cut;
use tidemill::pipeline::{Batch, Part};
use tidemill::record::{Epoch, Offset, Outcome, Partition, Record, Version, Written};
use tidemill::workers::{Answer, Finish, Job, Workers};
use tokio::sync::mpsc;

/// The outcomes of a batch in the order of its records, each record's once.
fn outcomes(parts: Vec<Part<Written>>) -> Vec<Outcome<Written>> {
    let rows = parts.into_iter().flat_map(|part| {
        let outcomes = part.answer.unwrap();
        assert_eq!(part.rows.len(), outcomes.len());
        part.rows.into_iter().zip(outcomes)
    });
    let mut rows: Vec<(usize, Outcome<Written>)> = rows.collect();
    rows.sort_by_key(|(row, _)| *row);
    assert!((0..).zip(&rows).all(|(place, (row, _))| place == *row), "each row once");
    rows.into_iter().map(|(_, outcome)| outcome).collect()
}

/// What becomes of 60 records with 7 texts, one of which is none, a key each, in two batches.
fn answers(cache: u64) -> Vec<(usize, Vec<Outcome<Written>>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/tiny-bert-labels");
    let model = config::Model { cache: Size(cache), ..config::Model::default() };
    let options = LoadOptions { model, ..LoadOptions::default() };
    let served = Arc::new(gate::load(&dir, &options).unwrap());
    let output = Output { include: Include::Key, ..Output::default() };
    let config = Config { output, ..Config::default() };
    let codec = Arc::new(Codec::new(&config).unwrap());
    let writer = Arc::new(Writer::new(&config, Arc::clone(&codec)));
    let decoder = Decoder::new(codec);
    let item = |row: u8| {
        let text = match row % 7 {
            0 => "7".to_owned(),
            kind => format!("\"{}\"", "warm water ".repeat(usize::from(kind))),
        };
        let record = Record {
            key: Some(row.to_string().into_bytes()),
            ..Record::of_value(
                Partition { topic: 0, number: 0 },
                Offset(i64::from(row)),
                Some(format!("{{\"text\":{text}}}").into_bytes()),
            )
        };
        decoder.item(Epoch(1), record, None, &served)
    };
    let finish = Finish::write(writer);
    let (sender, mut answers) = mpsc::channel(8);
    let workers = Workers::start(2, decoder.clone(), sender).unwrap();
    let batch = |number: u64, rows: std::ops::Range<u8>| {
        let cut = Cut::of(rows.map(item).collect(), epoch());
        Batch::new(number, 0, Version::default(), cut, epoch())
    };
    let mut answer = |batch: Batch<_>| {
        let (rows, batch) = ((0..batch.items.len()).collect(), Arc::new(batch));
        let (served, finish) = (Arc::clone(&served), finish.clone());
        workers.submit(Job { number: 7, batch, rows, served, finish });
        let Answer { job, parts, hits, .. } = answers.blocking_recv().unwrap();
        assert_eq!(job, 7);
        (hits, outcomes(parts))
    };
    vec![answer(batch(0, 0..30)), answer(batch(1, 30..60))]
}

/// The same bytes, each with its own record's key; the second batch is not computed at all.
#[test]
fn a_cache_changes_the_time_and_nothing_else() {
    let (plain, cached) = (answers(0), answers(1 << 20));
    for ((plain_hits, plain), (_, cached)) in plain.iter().zip(&cached) {
        assert_eq!(plain, cached);
        assert_eq!(*plain_hits, 0);
    }
    let (hits, second) = &cached[1];
    let predicted = second.iter().filter(|outcome| matches!(outcome, Outcome::Prediction(_)));
    assert_eq!(*hits, predicted.count(), "every text was seen before");
    let Outcome::Prediction(Written { value: last, .. }) = &second[28] else {
        panic!("{:?}", second[28])
    };
    assert!(String::from_utf8_lossy(last).ends_with(",\"key\":\"58\"}"), "its own key");
}

#[expect(clippy::disallowed_methods, reason = "a test needs one arbitrary instant")]
fn epoch() -> Instant {
    Instant::now()
}

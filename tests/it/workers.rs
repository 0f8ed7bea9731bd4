//! The inference threads with a real model.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidemill::config::{self, Include, Input, Output, Size};
use tidemill::decode::Decoder;
use tidemill::model::gate;
use tidemill::model::options::LoadOptions;
use tidemill::pipeline::Batch;
use tidemill::record::{Epoch, Offset, Outcome, Partition, Reason, Record, Version};
use tidemill::workers::{Answer, Job, Workers};
use tokio::sync::mpsc;

/// What becomes of 60 records with 7 texts, one of which is none, a key each, in two batches.
fn answers(cache: u64) -> Vec<Answer> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/tiny-bert-labels");
    let model = config::Model { cache: Size(cache), ..config::Model::default() };
    let options = LoadOptions { model, ..LoadOptions::default() };
    let served = Arc::new(gate::load(&dir, &options).unwrap());
    let decoder = Decoder::new(Input::default());
    let item = |row: u8| {
        let text = match row % 7 {
            0 => "7".to_owned(),
            kind => format!("\"{}\"", "warm water ".repeat(usize::from(kind))),
        };
        let record = Record {
            partition: Partition { topic: 0, number: 0 },
            offset: Offset(i64::from(row)),
            timestamp: None,
            key: Some(row.to_string().into_bytes()),
            value: Some(format!("{{\"text\":{text}}}").into_bytes()),
            headers: Vec::new(),
        };
        decoder.item(Epoch(1), record, None, &served)
    };
    let output = Output { include: Include::Key, ..Output::default() };
    let (sender, mut answers) = mpsc::channel(8);
    let workers = Workers::start(2, decoder.clone(), output, sender).unwrap();
    let batch = |number: u64, rows: std::ops::Range<u8>| Batch {
        number,
        lane: 0,
        version: Version::default(),
        reason: Reason::Records,
        waited: Duration::ZERO,
        items: rows.map(item).collect(),
    };
    let mut answer = |batch: Batch<_>| {
        let (rows, batch) = (0..batch.items.len(), Arc::new(batch));
        workers.submit(Job { batch, rows, served: Arc::clone(&served) });
        answers.blocking_recv().unwrap()
    };
    vec![answer(batch(0, 0..30)), answer(batch(1, 30..60))]
}

/// The same bytes, each with its own record's key; the second batch is not computed at all.
#[test]
fn a_cache_changes_the_time_and_nothing_else() {
    let (plain, cached) = (answers(0), answers(1 << 20));
    for (plain, cached) in plain.iter().zip(&cached) {
        assert_eq!(plain.outcomes, cached.outcomes);
        assert_eq!(plain.hits, 0);
    }
    let second = cached[1].outcomes.as_ref().unwrap();
    let predicted = second.iter().filter(|outcome| matches!(outcome, Outcome::Prediction(_)));
    assert_eq!(cached[1].hits, predicted.count(), "every text was seen before");
    let Outcome::Prediction(last) = &second[28] else { panic!("{:?}", second[28]) };
    assert!(String::from_utf8_lossy(last).ends_with(",\"key\":\"58\"}"), "its own key");
}

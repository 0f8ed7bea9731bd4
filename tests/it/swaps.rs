//! What a record is prepared for: whatever version was current when it was decoded, its outcome is that of its batch's
//! version, as if that version had served from the start.
//!
//! The real core, decoder and inference threads run versions that read different columns; the moments of the swaps, the
//! batches and the records are drawn at random.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tidemill::config::{Config, Include, Input, Output, UnknownFields};
use tidemill::decode::{Decoded, Decoder};
use tidemill::format::{Codec, Writer};
use tidemill::model::gate;
use tidemill::model::options::LoadOptions;
use tidemill::model::served::Served;
use tidemill::pipeline::arrive::Assigned;
use tidemill::pipeline::batch::Cut;
use tidemill::pipeline::{Batch, Effect, Event, Limits, Part, Pipeline, batch};
use tidemill::record::{Epoch, Offset, Outcome, Partition, Record, Version, Written};
use tidemill::workers::{Answer, Finish, Job, Workers};
use tokio::sync::mpsc;

use crate::world::{Column, linear};

const PARTITION: Partition = Partition { topic: 0, number: 0 };

fn limits() -> Limits {
    Limits {
        batch: batch::Limits {
            max_records: 3,
            max_bytes: 1 << 20,
            max_tokens: 1 << 20,
            max_wait: Duration::ZERO,
            flush_when_idle: false,
        },
        lanes: 1,
        slots: 2,
        buffer_bytes: 1 << 20,
        outcome_bytes: 1 << 20,
        commit_wait: Duration::ZERO,
        commit_batches: 2,
        tail_every: Duration::from_secs(1),
        max_dead_ratio: 1.0,
        dead_window: 100,
        takeover_wait: Duration::from_secs(60),
    }
}

/// The versions, the threads that run them, and what each version alone says of a record.
struct Bench {
    versions: BTreeMap<Version, Arc<Served>>,
    decoder: Decoder,
    workers: Workers,
    finish: Finish,
    answers: mpsc::Receiver<Answer>,
}

impl Bench {
    fn new(dir: &Path, versions: &[Vec<Column>], unknown: UnknownFields) -> Self {
        let load = |(number, columns): (u64, &Vec<Column>)| {
            let dir = dir.join(number.to_string());
            #[expect(clippy::cast_precision_loss, reason = "there are three versions")]
            linear(&dir, columns, number as f32 * 1_000.0);
            let version = Version(number);
            let options = LoadOptions { version, ..LoadOptions::default() };
            (version, Arc::new(gate::load(&dir, &options).unwrap()))
        };
        let input = Input { unknown_fields: unknown, ..Input::default() };
        let include = Include::Fields(vec!["a".to_owned()]);
        let output = Output { include, ..Output::default() };
        let config = Config { input, output, ..Config::default() };
        let codec = Arc::new(Codec::new(&config).unwrap());
        let writer = Arc::new(Writer::new(&config, Arc::clone(&codec)));
        let decoder = Decoder::new(codec);
        let (sender, answers) = mpsc::channel(8);
        let workers = Workers::start(2, decoder.clone(), sender).unwrap();
        let finish = Finish::write(writer);
        let versions = (1..).zip(versions).map(load).collect();
        Self { versions, decoder, workers, finish, answers }
    }

    fn run(&mut self, batch: Arc<Batch<Decoded>>, rows: Vec<usize>) -> Answer {
        let served = Arc::clone(&self.versions[&batch.version]);
        let finish = self.finish.clone();
        self.workers.submit(Job { number: 0, batch, rows, served, finish });
        self.answers.blocking_recv().unwrap()
    }

    /// What a service says of a record that has run this version from the start.
    fn alone(&mut self, record: &Record, version: Version) -> Outcome<Written> {
        let item = self.decoder.item(Epoch(1), record.clone(), None, &self.versions[&version]);
        let batch = Batch::new(0, 0, version, Cut::of(vec![item], epoch()), epoch());
        let Part { answer, .. } = self.run(Arc::new(batch), vec![0]).parts.remove(0);
        answer.unwrap().remove(0)
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// The next record is decoded, under the version that is current.
    Decode,
    /// What was decoded arrives at the core.
    Arrive,
    /// A version has passed the gate.
    Stage(u64),
    /// The model answers a call.
    Answer,
}

fn columns() -> impl Strategy<Value = Vec<Column>> {
    let column = |name| {
        prop::option::of(
            prop::option::of(Just(0.5)).prop_map(move |impute| Column { name, impute }),
        )
    };
    (column("a"), column("b"), column("c")).prop_filter_map(
        "a model reads something",
        |(a, b, c)| {
            let columns: Vec<Column> = [a, b, c].into_iter().flatten().collect();
            (!columns.is_empty()).then_some(columns)
        },
    )
}

fn value() -> impl Strategy<Value = Option<String>> {
    let field = |name: &'static str| {
        prop_oneof![
            4 => (0..9_u8).prop_map(move |value| format!("\"{name}\":{value}")),
            2 => Just(String::new()),
            1 => Just(format!("\"{name}\":\"wrong\"")),
        ]
    };
    prop_oneof![
        12 => (field("a"), field("b"), field("c")).prop_map(|(a, b, c)| {
            let fields: Vec<String> = [a, b, c].into_iter().filter(|f| !f.is_empty()).collect();
            Some(format!("{{{}}}", fields.join(",")))
        }),
        1 => Just(Some("no json".to_owned())),
        1 => Just(None),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Decode),
        4 => Just(Step::Arrive),
        2 => (1..=3_u64).prop_map(Step::Stage),
        4 => Just(Step::Answer),
    ];
    prop::collection::vec(step, 20..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    /// Invariant 1 of decoding.
    #[test]
    fn an_outcome_is_that_of_its_batchs_version(
        versions in prop::collection::vec(columns(), 3..=3),
        values in prop::collection::vec(value(), 1..30),
        reject in any::<bool>(),
        steps in steps(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let unknown = if reject { UnknownFields::Reject } else { UnknownFields::Ignore };
        let mut bench = Bench::new(dir.path(), &versions, unknown);
        let record = |(offset, value): (i64, &Option<String>)| Record::of_value(PARTITION, Offset(offset), value.clone().map(String::into_bytes));
        let records: Vec<Record> = (0..).zip(&values).map(record).collect();
        let mut core: Pipeline<Decoded, Written> = Pipeline::new(limits(), Version(1));
        let assigned = Assigned {
            partition: PARTITION,
            epoch: Epoch(1),
            next: Offset(0),
            until: None,
            skip: None,
            recorded: None,
        };
        let (mut current, mut next, now) = (Version(1), 0, epoch());
        let (mut decoded, mut calls, mut seen) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut events = vec![Event::Assigned(vec![assigned])];
        // The script, and then all that is left.
        let rest = [Step::Decode, Step::Arrive, Step::Answer];
        let steps = steps.into_iter().chain(rest.into_iter().cycle().take(3 * 4 * values.len() + 30));
        for step in steps {
            match step {
                Step::Decode => {
                    if let Some(record) = records.get(next) {
                        let served = &bench.versions[&current];
                        decoded.push(bench.decoder.item(Epoch(1), record.clone(), None, served));
                        next += 1;
                    }
                }
                Step::Arrive => events.push(Event::Arrived(std::mem::take(&mut decoded))),
                Step::Stage(version) => {
                    current = Version(version);
                    events.push(Event::Staged(current));
                }
                Step::Answer => {
                    if !calls.is_empty() {
                        let (batch, rows) = calls.remove(0);
                        let Answer { batch, parts, .. } = bench.run(batch, rows);
                        events.push(Event::Inferred { batch, parts, bytes: 0 });
                    }
                }
            }
            while let Some(event) = events.pop() {
                let mut effects = Vec::new();
                core.handle(event, now, &mut effects);
                for effect in effects {
                    match effect {
                        Effect::Infer(batch, rows) => calls.push((batch, rows)),
                        Effect::Commit(lane, transaction) => {
                            for done in transaction.batches {
                                let version = done.batch.version;
                                for (row, outcome) in done.rows {
                                    seen.insert(done.batch.items[row].offset.0, (version, outcome));
                                }
                            }
                            let next = transaction.next.iter();
                            let committed = next.map(|(p, (_, next))| (*p, *next)).collect();
                            let (id, buried) = (transaction.id, Vec::new());
                            let fits = None;
                            events.push(Event::Committed { lane, id, committed, buried, fits });
                        }
                        Effect::Open(..) | Effect::Ask(_) | Effect::Release(_) | Effect::Retire(_) => (),
                        Effect::Stop(stop) => panic!("{stop:?}"),
                    }
                }
            }
        }
        prop_assert_eq!(seen.len(), records.len());
        for (record, (version, outcome)) in records.iter().zip(seen.into_values()) {
            let expected = bench.alone(record, version);
            prop_assert_eq!(outcome, expected, "offset {} under {}", record.offset, version);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a test needs one arbitrary instant")]
fn epoch() -> Instant {
    Instant::now()
}

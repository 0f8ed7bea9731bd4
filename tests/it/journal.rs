//! Records that end the process: found, and never one that did not.
//!
//! The process that dies is this test binary, called again for one test with a model of its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Output};
use std::sync::Arc;
use std::time::Duration;

use tidemill::answer::{Prediction, Refused, Task};
use tidemill::config::{Config, Logging};
use tidemill::field::{Value, Values};
use tidemill::log::message::Naming;
use tidemill::model::report::Report;
use tidemill::model::served::Served;
use tidemill::model::{About, Input, Model};
use tidemill::record::{Fault, FaultClass, ModelId, Offset, Version};
use tidemill::sqlite::{Message, Store};
use tidemill::telemetry::Telemetry;
use tidemill::{service, sqlite};

use crate::world::{Replica, World};

/// Tells this binary that it is the process that dies, and where its files are.
const DIR: &str = "TIDEMILL_TEST_DIES_IN";

/// What a record's number does to the process.
const ABORTS: f64 = 13.0;
const HANGS: f64 = 7.0;
const IS_KILLED: f64 = 9.0;

/// A model that some numbers are the end of.
struct Deadly(About);

impl Model for Deadly {
    fn about(&self) -> &About {
        &self.0
    }

    fn prepare(&self, values: &Values<'_>) -> Result<Input, Fault> {
        let x = values.first().and_then(Option::as_ref).and_then(Value::number);
        let x = x.ok_or_else(|| Fault::new(FaultClass::Missing, "x is missing"))?;
        Ok(Input::Row(Box::new([x])))
    }

    fn predict(&self, inputs: &[&Input]) -> Result<Vec<Prediction>, Refused> {
        inputs
            .iter()
            .map(|input| {
                let Input::Row(row) = input else { panic!("a row") };
                match row[0] {
                    ABORTS => std::process::abort(),
                    HANGS => std::thread::sleep(Duration::from_mins(1)),
                    IS_KILLED => {
                        let own = std::process::id().to_string();
                        Command::new("kill").args(["-9", &own]).status().unwrap();
                        std::thread::sleep(Duration::from_mins(1));
                    }
                    _ => (),
                }
                Ok(Prediction::Value(row[0].into()))
            })
            .collect()
    }
}

fn config(dir: &Path) -> Config {
    let text = format!(
        "log: sqlite:{}\ninput: {{ topics: [in] }}\noutput: {{ topic: out }}\nmodel: {{ uri: . }}\n\
         http: {{ listen: '127.0.0.1:0' }}\nbatch: {{ max_records: 16 }}\n\
         limits: {{ inference: 400ms }}\ndead_letters: {{ max_ratio: 1.0 }}\n",
        dir.join("log.db").display(),
    );
    tidemill::config::load::from_yaml(&text).unwrap()
}

/// Not a test by itself: one life of the process that dies.
#[test]
fn a_life() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let about = About {
        task: Task::TabularRegression,
        architecture: "deadly".to_owned(),
        precision: "f32",
        device: "cpu".to_owned(),
        fields: vec!["x".to_owned()],
        labels: Vec::new(),
        width: 1,
        bytes: 0,
        chunk_tokens: 64,
        padded: false,
        notes: Vec::new(),
    };
    let id = ModelId { name: "deadly".into(), version: Version(1), digest: "sha256:00".into() };
    let served = Served {
        id,
        signature: Arc::new(about.signature()),
        model: Box::new(Deadly(about)),
        report: Report::default(),
        cache: None,
    };
    let options = service::Options {
        until_end: true,
        serve: Some(Arc::new(served)),
        ..service::Options::default()
    };
    let mut changes = options.status.subscribe();
    let config = config(dir.as_ref());
    let telemetry = Telemetry::start(&Logging::default()).unwrap();
    let runtime = service::runtime().unwrap();
    runtime.spawn(async move {
        while changes.changed().await.is_ok() {
            let status = Arc::clone(&changes.borrow_and_update());
            println!("in the model: {:?}", status.in_model.map(|long| long.rows));
            println!("last life: {:?}", status.last_life);
        }
    });
    let ended = runtime.block_on(service::run(config, telemetry, options, |config, opening| {
        let file = config.embedded().unwrap();
        sqlite::open(file, config, &Naming::new(config), opening)
    }));
    #[expect(clippy::exit, reason = "a thread hangs in the model")]
    std::process::exit(ended.map_or_else(|failure| i32::from(failure.exit.code()), |()| 0));
}

fn live(dir: &Path) -> Output {
    let binary = std::env::current_exe().unwrap();
    let arguments = ["journal::a_life", "--exact", "--nocapture"];
    Command::new(binary).args(arguments).env(DIR, dir).output().unwrap()
}

/// Lives until one ends well, or `most` are over: how each ended.
fn live_on(dir: &Path, most: usize) -> Vec<ExitStatus> {
    told_on(dir, most).into_iter().map(|life| life.status).collect()
}

/// The same, with what each said.
fn told_on(dir: &Path, most: usize) -> Vec<Output> {
    let mut lives: Vec<Output> = Vec::new();
    while lives.len() < most && !lives.last().is_some_and(|life| life.status.success()) {
        lives.push(live(dir));
    }
    lives
}

/// A log with one partition of `values`.
fn filled(values: &[f64]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("log.db")).unwrap();
    store.create_topic("in", 1).unwrap();
    let message = |x: &f64| Message {
        timestamp: 0,
        key: None,
        value: Some(format!("{{\"x\":{x}}}").into_bytes()),
        headers: Vec::new(),
    };
    store.append("in", 0, &values.iter().map(message).collect::<Vec<_>>()).unwrap();
    dir
}

/// Dead letters by offset, with their class, and how many predictions there are.
fn outcomes(dir: &Path) -> (BTreeMap<i64, String>, usize) {
    let store = Store::open(&dir.join("log.db")).unwrap();
    let header = |message: &Message, name: &str| {
        let found = message.headers.iter().find(|header| header.name == name.as_bytes());
        String::from_utf8(found.unwrap().value.clone().unwrap()).unwrap()
    };
    let dead = store.read("in-dlq", 0, Offset(0), 100).unwrap();
    let dead = dead.iter().map(|stored| {
        let offset = header(&stored.message, "__connect.errors.offset").parse().unwrap();
        (offset, header(&stored.message, "tidemill.error.class"))
    });
    (dead.collect(), store.read("out", 0, Offset(0), 1_000).unwrap().len())
}

fn numbers(count: usize, (place, deadly): (usize, f64)) -> Vec<f64> {
    (0..count).map(|n| if n == place { deadly } else { 100.0 }).collect()
}

#[test]
fn a_record_that_kills_the_process_becomes_a_dead_letter() {
    let dir = filled(&numbers(40, (20, ABORTS)));
    let lives = live_on(dir.path(), 9);
    let signals: Vec<Option<i32>> = lives.iter().map(ExitStatusExt::signal).collect();
    assert_eq!(
        signals,
        [Some(6), Some(6), Some(6), Some(6), None],
        "once among others, three times alone"
    );
    assert_eq!(outcomes(dir.path()), (BTreeMap::from([(20, "killed".to_owned())]), 39));
}

#[test]
fn a_record_that_overruns_becomes_a_dead_letter() {
    let dir = filled(&numbers(20, (3, HANGS)));
    let told = told_on(dir.path(), 12);
    let lives: Vec<ExitStatus> = told.iter().map(|life| life.status).collect();
    assert!(lives.last().unwrap().success(), "{lives:?}");
    // What is in the model for long is told while it is there, and the next life tells how this one ended.
    let said = |life: &Output, text: &str| String::from_utf8_lossy(&life.stdout).contains(text);
    assert!(said(&told[0], "in the model: Some(16)"), "{told:?}");
    assert!(said(&told[1], "in the model: Some(8)"), "{told:?}");
    assert!(said(&told[0], "last life: None"), "{told:?}");
    let overran =
        "last life: Some(\"The last process of this replica ended because a batch took longer";
    assert!(!said(&told[0], overran) && said(&told[1], overran), "{told:?}");
    // 16 records, 8, 4, 2, and twice alone.
    assert_eq!(lives.iter().filter(|life| life.code() == Some(75)).count(), 6, "{lives:?}");
    assert_eq!(outcomes(dir.path()), (BTreeMap::from([(3, "too_slow".to_owned())]), 19));
}

#[test]
fn a_record_is_not_blamed_for_kills_that_nothing_explains() {
    let dir = filled(&numbers(20, (3, IS_KILLED)));
    let lives = live_on(dir.path(), 10);
    assert!(lives.iter().all(|life| life.signal() == Some(9)), "{lives:?}");
    let (dead, _) = outcomes(dir.path());
    assert!(dead.is_empty(), "{dead:?}");
    let said = String::from_utf8_lossy(&live(dir.path()).stderr).into_owned();
    assert!(said.contains("in/0 offset 3"), "{said}");
}

#[test]
fn nobody_is_blamed_where_nobody_is_answered() {
    let dir = filled(&[ABORTS; 20]);
    let lives = live_on(dir.path(), 8);
    assert!(lives.iter().all(|life| life.signal() == Some(6)), "{lives:?}");
    assert_eq!(outcomes(dir.path()), (BTreeMap::new(), 0));
}

#[test]
fn a_version_that_died_while_it_was_loaded_does_not_serve_at_the_next_start() {
    let Some(world) = World::start(1) else { return };
    for version in 1..=2 {
        world.add_version(version);
        world.promote(version);
    }
    let previous = world.registry().join("lin/aliases/previous");
    fs::write(previous, "1").unwrap();
    world.produce(0, &["{\"x\":1}"]);
    let state = world.dir.path().join("state");
    fs::create_dir_all(&state).unwrap();
    fs::write(state.join("journal"), "tidemill-journal/1 -\nloading lin/2\n").unwrap();
    let extra = format!("state: {{ dir: {} }}", state.display());
    let (code, log) = Replica::start(&world.config("a", &extra), &["--until-end"]).ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("died while it was loaded"), "{log}");
    assert!(log.contains("model=lin/1"), "the one before it serves instead: {log}");
    assert_eq!(world.read("out", "read_committed").len(), 1);
}

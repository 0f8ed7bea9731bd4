//! Commands to a service that runs, by the channel and by signals, and what its status says of it.

use std::path::Path;

use tidemill::config::Logging;
use tidemill::demo::assets;
use tidemill::engine::Command;
use tidemill::failure::Failure;
use tidemill::log::message::Naming;
use tidemill::record::{FaultClass, Offset, Version};
use tidemill::registry::Registry;
use tidemill::sqlite::{Message, Store};
use tidemill::status::{Board, Doing};
use tidemill::telemetry::Telemetry;
use tidemill::{config, service, sqlite};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::world::{Replica, wait_for};

/// A log, a registry with two versions of which the first is named, and the configuration of a service on them that
/// would look for another version in an hour.
pub(crate) fn prepared(dir: &Path) -> (Store, String) {
    let log = dir.join("log.db");
    let store = Store::open(&log).unwrap();
    store.create_topic("in", 1).unwrap();
    assets::write_registry(&dir.join("models")).unwrap();
    let text = format!(
        "log: sqlite:{}\ninput: {{ topics: [in] }}\noutput: {{ topic: out }}\nregistry: {{ root: {} }}\n\
         model: {{ uri: 'models:/{}@champion', poll: 1h }}\nhttp: {{ listen: '127.0.0.1:0' }}\n\
         batch: {{ max_wait: 1ms }}\ndead_letters: {{ max_ratio: 1.0 }}\n",
        log.display(),
        dir.join("models").display(),
        assets::MODEL,
    );
    (store, text)
}

fn promote(dir: &Path, version: u64) {
    let registry = Registry::new(Some(dir.join("models")));
    registry.promote(assets::MODEL, Version(version), "champion").unwrap();
}

pub(crate) fn append(store: &mut Store, records: usize) {
    let good = assets::RECORDS.lines().find(|line| line.contains("mean")).unwrap();
    let message = |_| Message {
        timestamp: 0,
        key: None,
        value: Some(good.as_bytes().to_vec()),
        headers: Vec::new(),
    };
    store.append("in", 0, &(0..records).map(message).collect::<Vec<_>>()).unwrap();
}

/// The version of each prediction.
pub(crate) fn versions(store: &Store) -> Vec<String> {
    let version = |message: &Message| {
        let header = message.headers.iter().find(|h| h.name == b"tidemill.model.version").unwrap();
        String::from_utf8(header.value.clone().unwrap()).unwrap()
    };
    let seen = store.read("out", 0, Offset(0), 1_000).unwrap();
    seen.iter().map(|stored| version(&stored.message)).collect()
}

/// A service in this process.
pub(crate) struct Running {
    commands: mpsc::Sender<Command>,
    pub(crate) status: Board,
    pub(crate) telemetry: Telemetry,
    ended: JoinHandle<Result<(), Failure>>,
    runtime: tokio::runtime::Runtime,
}

impl Running {
    pub(crate) fn start(text: &str, until_end: bool, before: &[Command]) -> Self {
        let config = config::load::from_yaml(text).unwrap();
        let telemetry = Telemetry::start(&Logging::default()).unwrap();
        let options = service::Options { until_end, ..service::Options::default() };
        let (commands, status) = (options.commands.0.clone(), options.status.clone());
        before.iter().for_each(|command| commands.try_send(*command).unwrap());
        let runtime = service::runtime().unwrap();
        let service = service::run(config, telemetry.clone(), options, |config, opening| {
            let file = config.embedded().unwrap();
            sqlite::open(file, config, &Naming::new(config), opening)
        });
        let ended = runtime.spawn(service);
        Self { commands, status, telemetry, ended, runtime }
    }

    pub(crate) fn command(&self, command: Command) {
        self.commands.try_send(command).unwrap();
    }

    fn does(&self, doing: &Doing) {
        wait_for("what it does", || (self.status.now().doing == *doing).then_some(()));
    }

    pub(crate) fn ended(self) -> Result<(), Failure> {
        self.runtime.block_on(self.ended).unwrap()
    }
}

/// Nothing of what arrives in a pause is answered before it is over: a version that is promoted meanwhile answers all.
#[test]
fn a_paused_service_takes_nothing_in_and_goes_on_when_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, text) = prepared(dir.path());
    append(&mut store, 10);
    let service = Running::start(&text, false, &[]);
    wait_for("the first outcomes", || (versions(&store).len() == 10).then_some(()));
    service.command(Command::Pause);
    service.does(&Doing::Paused);
    assert_eq!(service.status.now().unready(std::time::Instant::now()).len(), 1);

    append(&mut store, 40);
    promote(dir.path(), 2);
    service.command(Command::Reload);
    let loaded = "tidemill_model_load_seconds_count 1\n";
    wait_for("version 2", || service.telemetry.render().contains(loaded).then_some(()));
    assert!(service.status.now().swaps.iter().next().is_none());
    service.command(Command::Resume);
    wait_for("the other outcomes", || (versions(&store).len() == 50).then_some(()));
    assert_eq!(versions(&store), [vec!["1"; 10], vec!["2"; 40]].concat());

    let status = service.status.now();
    let swaps: Vec<(u64, u64)> =
        status.swaps.iter().map(|swap| (swap.from.0, swap.to.version.0)).collect();
    assert_eq!((swaps, &status.doing), (vec![(1, 2)], &Doing::Running));
    service.command(Command::Leave);
    service.does(&Doing::Stopping);
    service.ended().unwrap();
}

/// What is left of a job is answered when it was resumed, and then it is done.
#[test]
fn a_paused_job_does_not_finish() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, text) = prepared(dir.path());
    append(&mut store, 10);
    let service = Running::start(&text, true, &[Command::Pause]);
    service.does(&Doing::Paused);
    wait_for("its partition", || service.status.now().assigned);
    // What is sent now is carried out after all that could have ended it.
    service.command(Command::Pause);
    let carried_out = || service.commands.capacity() == Command::WAITING;
    wait_for("the command", || carried_out().then_some(()));
    assert!(!service.ended.is_finished());
    assert!(versions(&store).is_empty());
    service.command(Command::Resume);
    service.ended().unwrap();
    assert_eq!(versions(&store).len(), 10);
}

/// The page may show why a record was not answered, never what it holds.
#[test]
fn the_status_names_dead_letters_by_place_and_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, text) = prepared(dir.path());
    append(&mut store, 1);
    let bad = Message {
        timestamp: 0,
        key: None,
        value: Some(b"{\"secret\":\"S3CRET\"".to_vec()),
        headers: Vec::new(),
    };
    store.append("in", 0, &[bad]).unwrap();
    let service = Running::start(&text, true, &[]);
    let status = service.status.clone();
    service.ended().unwrap();
    let status = status.now();
    let dead: Vec<_> = status.dead_letters.iter().collect();
    let [letter] = dead[..] else { panic!("{dead:?}") };
    assert_eq!((letter.topic.as_str(), letter.offset), ("in", Offset(1)));
    assert_eq!(letter.class, FaultClass::Undecodable);
    assert!(!letter.reason.is_empty() && !letter.reason.contains("S3CRET"), "{letter:?}");
}

/// SIGHUP has the registry looked at; what it names then is loaded.
#[test]
fn a_signal_reloads() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, text) = prepared(dir.path());
    let config = dir.path().join("tidemill.yaml");
    std::fs::write(&config, text).unwrap();
    let replica = Replica::start(&config, &[]);
    replica.says("assignment changed");
    promote(dir.path(), 2);
    replica.signal("HUP");
    replica.says("version staged");
    assert!(replica.stop().success());
}

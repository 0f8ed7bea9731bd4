//! The embedded log under the whole service: killed, started again, and for one process only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tidemill::record::Offset;
use tidemill::sqlite::{Message, Store};

use crate::world::wait_for;

const RECORDS: i64 = 30_000;

fn tidemill(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(["run", "--config"]).arg(config).args(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// A log of `RECORDS` records over two partitions, and the configuration of a service on it.
fn prepared(dir: &Path) -> (PathBuf, PathBuf) {
    let (log, config) = (dir.join("log.db"), dir.join("tidemill.yaml"));
    let mut store = Store::open(&log).unwrap();
    store.create_topic("in", 2).unwrap();
    for partition in 0..2 {
        let value = |n: i64| Some(format!("{{\"a\":{n}}}").into_bytes());
        let message =
            |n: i64| Message { timestamp: n, key: None, value: value(n), headers: Vec::new() };
        let messages: Vec<Message> = (0..RECORDS / 2).map(message).collect();
        store.append("in", partition, &messages).unwrap();
    }
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/linear");
    let text = format!(
        "log: sqlite:{}\ninput: {{ topics: [in] }}\noutput: {{ topic: out }}\nmodel: {{ uri: {} }}\n\
         http: {{ listen: '127.0.0.1:0' }}\nbatch: {{ max_records: 64 }}\ndead_letters: {{ max_ratio: 1.0 }}\n",
        log.display(),
        model.display()
    );
    fs::write(&config, text).unwrap();
    (log, config)
}

/// How many outcomes there are, over both partitions.
fn answered(log: &Path) -> Option<i64> {
    let store = Store::open(log).ok()?;
    Some((0..2).map_while(|partition| Some(store.end("out", partition).ok()?.0)).sum())
}

#[test]
fn killed_and_started_again_each_record_is_answered_once() {
    let dir = tempfile::tempdir().unwrap();
    let (log, config) = prepared(dir.path());
    for kill in 1..=3 {
        let mut child = tidemill(&config, &[]).spawn().unwrap();
        wait_for("some answers", || answered(&log).filter(|seen| kill * 4_000 < *seen));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(answered(&log).unwrap() < RECORDS, "it was killed in the middle");
    let output = tidemill(&config, &["--until-end"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let store = Store::open(&log).unwrap();
    for partition in 0..2 {
        let messages = store.read("out", partition, Offset(0), 100_000).unwrap();
        let source = |headers: &[tidemill::record::Header]| -> i64 {
            let found = headers.iter().find(|header| header.name == b"tidemill.source.offset");
            String::from_utf8(found.unwrap().value.clone().unwrap()).unwrap().parse().unwrap()
        };
        let offsets: Vec<i64> =
            messages.iter().map(|stored| source(&stored.message.headers)).collect();
        assert_eq!(offsets, (0..RECORDS / 2).collect::<Vec<_>>(), "each once, in order");
    }
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (log, config) = prepared(dir.path());
    let mut first = tidemill(&config, &[]).spawn().unwrap();
    wait_for("some answers", || answered(&log).filter(|seen| 0 < *seen));
    let second = tidemill(&config, &[]).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(78), "{said}");
    assert!(said.contains("another process has this log"), "{said}");
    first.kill().unwrap();
    first.wait().unwrap();
}

//! The service on lines: `tidemill predict`, and lines whose outcomes and offsets are elsewhere.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tidemill::config::{Config, Logging, Uri, Workers};
use tidemill::log::message::Naming;
use tidemill::log::{Joint, Log, Opening};
use tidemill::record::Offset;
use tidemill::sqlite::{self, Store};
use tidemill::status::Board;
use tidemill::telemetry::Telemetry;
use tidemill::{lines, service};

use crate::hostile_models::data;
use crate::world::wait_for;

fn predict(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(["predict", "--model"]).arg(data("linear")).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn line(a: i64) -> String {
    format!("{{\"a\":{a},\"b\":0,\"color\":\"red\"}}\n")
}

/// Most memory that a process has had, MiB.
fn peak(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

/// Whoever asks line by line, and waits for each answer, gets it.
#[test]
fn a_line_is_answered_before_the_next_one_comes() {
    let mut child = predict(&[]).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    for a in 0..3 {
        input.write_all(line(a).as_bytes()).unwrap();
        let mut answer = String::new();
        output.read_line(&mut answer).unwrap();
        assert!(answer.contains("\"value\""), "{answer}");
    }
    // The last line needs no end.
    input.write_all(b"broken").unwrap();
    drop(input);
    let mut answer = String::new();
    output.read_line(&mut answer).unwrap();
    assert!(answer.contains("\"class\":\"undecodable\"") && answer.ends_with('\n'), "{answer}");
    assert_eq!(output.read_line(&mut answer).unwrap(), 0);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn each_line_has_one_and_nothing_has_none() {
    for (input, expect) in [("", 0), ("\n", 1), ("\n\n{}", 3), ("{}\r\n \n", 2)] {
        let mut child = predict(&[]).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let lines = String::from_utf8(output.stdout.clone()).unwrap();
        assert_eq!(lines.lines().count(), expect, "{input:?}: {lines}");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

/// Lines that are read of a pipe without end.
const LINES: usize = 200_000;

/// A pipe without end takes no more memory than a short one, also where nobody reads what comes out.
#[test]
fn a_pipe_without_end_ends_with_its_reader() {
    let mut child = predict(&[]).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let endless = std::thread::spawn(move || {
        let lines = line(1).repeat(1_000);
        let mut written = 0_usize;
        while input.write_all(lines.as_bytes()).is_ok() {
            written += lines.len();
        }
        written
    });
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut answer = String::new();
    for _ in 0..LINES {
        answer.clear();
        output.read_line(&mut answer).unwrap();
        assert!(answer.contains("\"value\""), "{answer}");
    }
    let peak = peak(&child);
    drop(output);
    let code = wait_for("the end", || child.try_wait().unwrap()).code();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!((code, said.as_str()), (Some(0), ""));
    // Of its last thousand lines it does not know how many went through.
    assert!((LINES - 1_000) * line(1).len() <= endless.join().unwrap());
    assert!(peak < 200, "{peak} MiB");
}

#[test]
fn what_cannot_be_read_or_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::write(at("lines"), line(1)).unwrap();
    let nowhere = at("nowhere/out");
    for (arguments, code, part) in [
        (["--input", &at("absent"), "--output", "-"], 66, "read "),
        (["--input", &at(""), "--output", "-"], 66, "read line 1: Is a directory"),
        (["--input", &at("lines"), "--output", &nowhere], 66, "write "),
        (["--input", &at("lines"), "--output", "/dev/full"], 74, "write a prediction: No space"),
    ] {
        let output = predict(&arguments).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}

/// A feed goes on where the sink says: lines into an embedded log, twice, and each has its outcome once.
#[test]
fn lines_go_on_where_their_outcomes_end() {
    let dir = tempfile::tempdir().unwrap();
    let (input, file) = (dir.path().join("in.jsonl"), dir.path().join("log.db"));
    let mut config = Config::default();
    config.input.topics = vec!["lines".to_owned()];
    config.output.topic = "out".to_owned();
    config.model.uri = Uri::Directory(data("linear"));
    config.model.workers = Workers::Count(1);
    let naming = Naming::new(&config);
    for total in [700, 1_000] {
        let text: String = (0..total).map(line).collect();
        fs::write(&input, text).unwrap();
        once(&config, &naming, (&input, &file));
        let store = Store::open(&file).unwrap();
        assert_eq!(store.end("out", 0).unwrap(), Offset(total));
        assert_eq!(store.committed(&naming.group, "lines", 0).unwrap(), Some(Offset(total)));
    }
    let store = Store::open(&file).unwrap();
    let outcomes = store.read("out", 0, Offset(0), 2_000).unwrap();
    for (at, stored) in (0..).zip(outcomes) {
        let headers = &stored.message.headers;
        let of = headers.iter().find(|header| header.name == b"tidemill.source.offset").unwrap();
        assert_eq!(of.value.as_deref(), Some(format!("{at}").as_bytes()));
    }
}

fn once(config: &Config, naming: &Naming, (input, file): (&Path, &Path)) {
    let served = service::load_model(config).unwrap();
    let (joint, control) = Joint::new();
    let (sink, offsets) = sqlite::sink(file, config, naming, &Opening::default(), &joint).unwrap();
    let input = File::open(input).unwrap();
    let memory = config.limits.memory.0;
    let feed = lines::feed(input, memory, &offsets, (&joint, control)).unwrap();
    drop(joint);
    let telemetry = Telemetry::start(&Logging::default()).unwrap();
    let runtime = service::runtime().unwrap();
    let log = Log { feed, sink };
    runtime
        .block_on(service::once(config, &telemetry, Arc::new(served), log, Board::default()))
        .unwrap();
}

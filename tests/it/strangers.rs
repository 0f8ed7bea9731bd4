//! The service on an embedded log, and strangers: on its port, in its registry, at the other end of its output.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tidemill::sqlite::{Message, Store};

use crate::hostile_models::{copied, data, fifo, models, registry};
use crate::world::wait_for;

/// A service on an embedded log.
struct Service {
    dir: tempfile::TempDir,
    child: Child,
    address: SocketAddr,
}

impl Service {
    /// Starts it on the model `uri`, with these configuration lines, in a shell that has done `before`, its stderr there.
    fn start(uri: &str, extra: &str, before: &str, stderr: impl Into<Stdio>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Free a moment ago; nobody else is told where it listens when its log is lost.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = format!(
            "log: sqlite:{}\ninput: {{ topics: [in] }}\noutput: {{ topic: out }}\n\
             model: {{ uri: '{uri}', poll: 50ms, workers: 1 }}\nhttp: {{ listen: '{address}' }}\n{extra}\n",
            dir.path().join("log.db").display(),
        );
        let config = dir.path().join("tidemill.yaml");
        fs::write(&config, text).unwrap();
        let child = Command::new("sh")
            .args(["-c", &format!("{before} exec \"$0\" run --config \"$1\"")])
            .arg(env!("CARGO_BIN_EXE_tidemill"))
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Self { dir, child, address }
    }

    /// As [`start`](Self::start), with its log in a file, once it is ready.
    fn ready(uri: &str, extra: &str, before: &str) -> (Self, PathBuf) {
        let log = tempfile::NamedTempFile::new().unwrap().into_temp_path().keep().unwrap();
        let service = Self::start(uri, extra, before, File::create(&log).unwrap());
        service.wait_until_ready();
        (service, log)
    }

    fn wait_until_ready(&self) {
        wait_for("readiness", || self.get("/readyz").filter(|said| said.ends_with("ready\n")));
    }

    /// What a path answers; `None` where nobody does.
    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut said = Vec::new();
        stream.read_to_end(&mut said).ok()?;
        Some(String::from_utf8(said).unwrap()).filter(|said| !said.is_empty())
    }

    fn store(&self) -> Store {
        Store::open(&self.dir.path().join("log.db")).unwrap()
    }

    /// Appends texts, and waits until each has an answer.
    fn answer(&self, texts: &[Vec<u8>]) {
        let mut store = self.store();
        let end = store.end("out", 0).unwrap().0;
        let message = |value: &Vec<u8>| Message {
            timestamp: 0,
            key: None,
            value: Some(value.clone()),
            headers: Vec::new(),
        };
        let messages: Vec<Message> = texts.iter().map(message).collect();
        store.append("in", 0, &messages).unwrap();
        let wanted = end + i64::try_from(texts.len()).unwrap();
        wait_for("the answers", || (store.end("out", 0).unwrap().0 == wanted).then_some(()));
    }

    /// Most memory it had, in MiB.
    fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
    }

    /// SIGTERM, and its exit code.
    fn stop(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        wait_for("the end", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn texts(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| json!({ "text": format!("text {n}") }).to_string().into_bytes()).collect()
}

fn tiny() -> String {
    data("tiny-bert").display().to_string()
}

/// With few descriptors, and fewer than clients want: the probes answer, the records go on, memory stays.
#[test]
fn four_hundred_half_open_requests_change_nothing() {
    for descriptors in [256, 64] {
        let (service, log) = Service::ready(&tiny(), "", &format!("ulimit -n {descriptors};"));
        service.answer(&texts(10));
        let before = service.peak();
        let mut strangers = Vec::new();
        for _ in 0..400 {
            let mut stream = TcpStream::connect(service.address).unwrap();
            let half = "GET /livez HTTP/1.1\r\nX: ".to_owned() + &"a".repeat(12_000);
            // The service may have closed it already.
            drop(stream.write_all(half.as_bytes()));
            strangers.push(stream);
        }
        for path in ["/livez", "/readyz", "/metrics", "/"] {
            let said = wait_for("an answer", || service.get(path));
            assert!(said.starts_with("HTTP/1.1 200"), "{path}: {said}");
        }
        service.answer(&texts(10));
        assert!(service.peak() < before + 16, "{} MiB, {before} before", service.peak());
        assert_eq!(service.stop(), Some(0), "with all of them open");
        drop(strangers);
        fs::remove_file(log).unwrap();
    }
}

/// Whatever the alias is, the look ends and says what it is; the next look finds the version that it names again.
#[test]
fn an_alias_that_is_no_small_file_is_said_and_mended() {
    let root = tempfile::tempdir().unwrap();
    registry(root.path(), 2);
    let alias = root.path().join("m/aliases/champion");
    let extra = format!("registry: {{ root: '{}' }}", root.path().display());
    let (service, log) = Service::ready("models:/m@champion", &extra, "");
    let said = |part: &str| {
        wait_for(part, || fs::read_to_string(&log).unwrap().contains(part).then_some(()));
    };
    let replaced = |make: &dyn Fn()| {
        fs::remove_dir_all(&alias).or_else(|_| fs::remove_file(&alias)).unwrap();
        make();
    };
    replaced(&|| fifo(&alias));
    said("is a FIFO");
    replaced(&|| symlink("/dev/zero", &alias).unwrap());
    said("is a device");
    replaced(&|| fs::create_dir(&alias).unwrap());
    said("is a directory");
    replaced(&|| File::create(&alias).unwrap().set_len(1 << 40).unwrap());
    said("has 1099511627776 bytes");
    replaced(&|| fs::write(&alias, "two").unwrap());
    said("holds \\\"two\\\"");
    replaced(&|| fs::write(&alias, "2\n").unwrap());
    said("version staged");
    service.answer(&texts(1));
    wait_for("version 2", || service.get("/").filter(|page| page.contains("model: m/2")));
    assert!(service.peak() < 200, "{} MiB", service.peak());
    assert_eq!(service.stop(), Some(0));

    replaced(&|| fifo(&alias));
    let mut service = Service::start("models:/m@champion", &extra, "", File::create(&log).unwrap());
    let ended = wait_for("the end", || service.child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(78));
    said("is a FIFO");
    fs::remove_file(log).unwrap();
}

/// What cannot serve is refused beside the version that serves, and the process stays.
#[test]
fn a_promoted_version_that_cannot_be_loaded_leaves_the_serving_one() {
    let root = tempfile::tempdir().unwrap();
    registry(root.path(), 2);
    let extra = format!("registry: {{ root: '{}' }}", root.path().display());
    let (service, log) = Service::ready("models:/m@champion", &extra, "");
    let said = |part: &str| {
        wait_for(part, || fs::read_to_string(&log).unwrap().contains(part).then_some(()));
    };
    fs::remove_file(root.path().join("m/2/manifest.json")).unwrap();
    fs::write(root.path().join("m/aliases/champion"), "2").unwrap();
    said("manifest.json: is missing");
    // A tokenizer of a version that was written by hand: every file as its manifest says.
    let from = root.path().join("from");
    copied("tiny-bert", &from);
    let tokenizer = from.join("tokenizer.json");
    let mut rules: Value = serde_json::from_slice(&fs::read(&tokenizer).unwrap()).unwrap();
    let (code, refusal) = models(root.path(), &["import", from.to_str().unwrap(), "m"]);
    assert_eq!(code, Some(0), "{refusal}");
    let replace = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
    rules["normalizer"] = json!({"type": "Sequence", "normalizers": vec![replace; 40]});
    fs::write(root.path().join("m/3/tokenizer.json"), rules.to_string()).unwrap();
    fs::write(root.path().join("m/aliases/champion"), "3").unwrap();
    said("tokenizer.json: altered");
    service.answer(&texts(5));
    assert!(service.get("/").unwrap().contains("model: m/1"));
    assert_eq!(service.stop(), Some(0));
    fs::remove_file(log).unwrap();
}

#[test]
fn a_name_forges_no_line_no_page_and_no_metric() {
    const NAME: &str = "x\n2026-01-01T00:00:00Z ERROR forged\u{1b}[31m\r";
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join(NAME);
    copied("tiny-bert", &folder);
    let link = dir.path().join("link");
    symlink(&folder, &link).unwrap();
    let (service, log) = Service::ready(link.to_str().unwrap(), "", "");
    service.answer(&texts(3));
    let page = service.get("/").unwrap();
    assert!(page.contains("model: x\\n2026"), "{page}");
    let metrics = service.get("/metrics").unwrap();
    let header = service.store().read("out", 0, tidemill::record::Offset(0), 1).unwrap();
    let header = format!("{:?}", header[0].message.headers);
    assert_eq!(service.stop(), Some(0));
    let log_text = fs::read_to_string(&log).unwrap();
    for text in [
        &page.split_once("\r\n\r\n").unwrap().1.to_owned(),
        &metrics.replace("\r\n", "\n"),
        &log_text,
    ] {
        assert!(!text.contains(['\u{1b}', '\r']), "{text:?}");
        assert!(text.lines().all(|line| !line.starts_with("2026-01-01")), "{text:?}");
    }
    assert!(!header.contains("forged\u{1b}"), "{header}");
    // What a file of the model is called is no line either.
    fs::write(folder.join("a\n2026-01-01 ERROR forged.json"), "{").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["models", "verify"])
        .arg("/nowhere\u{1b}[31m")
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains('\u{1b}'));
    fs::remove_file(log).unwrap();
}

/// Nobody reads the log: its reader has gone, its disk is full, or it has stopped reading.
#[test]
fn the_service_goes_on_without_its_log() {
    const LOUD: &str = "logging: { filter: trace }";
    let (gone, closed) = std::io::pipe().unwrap();
    drop(gone);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (_held, stalled) = std::io::pipe().unwrap();
    let ways: [(&str, Stdio); 4] = [
        ("a reader that has gone", closed.into()),
        ("a full disk", full.into()),
        ("a reader that does not read", stalled.into()),
        ("nothing there", Stdio::null()),
    ];
    for (way, stderr) in ways {
        let before = if way == "nothing there" { "exec 2>&-;" } else { "" };
        let service = Service::start(&tiny(), LOUD, before, stderr);
        service.wait_until_ready();
        service.answer(&texts(300));
        assert_eq!(service.stop(), Some(0), "{way}");
    }
}

/// A log that is read again says how much of it was lost.
#[test]
fn lost_lines_are_counted() {
    let (mut reader, stalled) = std::io::pipe().unwrap();
    let service = Service::start(&tiny(), "logging: { filter: trace }", "", stalled);
    service.wait_until_ready();
    service.answer(&texts(300));
    let log = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    service.answer(&texts(300));
    assert_eq!(service.stop(), Some(0));
    let text = log.join().unwrap();
    assert!(text.contains("lines of the log were lost: nobody read stderr\n"), "{text}");
}

#[test]
fn a_command_whose_reader_has_gone_ends_quietly() {
    let root = tempfile::tempdir().unwrap();
    registry(root.path(), 1);
    let root = root.path().to_str().unwrap();
    let linear = data("linear").display().to_string();
    let lines = root.to_owned() + "/lines";
    fs::write(&lines, "{\"a\":1,\"b\":0,\"color\":\"red\"}\n".repeat(5_000)).unwrap();
    let commands: [&[&str]; 8] = [
        &["--help"],
        &["--version"],
        &["models", "list", "--root", root],
        &["models", "verify", "models:/m/1", "--root", root],
        &["models", "promote", "m", "1", "--root", root],
        &["predict", "--model", &linear, "--input", &lines],
        &["bench", "--model", &linear, "--input", &lines, "--seconds", "1", "--rounds", "1"],
        &["demo", "--passes", "1"],
    ];
    for command in commands {
        for full in [false, true] {
            let stdout: Stdio = if full {
                File::options().write(true).open("/dev/full").unwrap().into()
            } else {
                std::io::pipe().unwrap().1.into()
            };
            let output = Command::new(env!("CARGO_BIN_EXE_tidemill"))
                .args(command)
                .stdin(Stdio::null())
                .stdout(stdout)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            // Help that could not be shown is nobody's loss; results are.
            let lost = full && !command[0].starts_with('-');
            assert_eq!(
                output.status.code(),
                Some(if lost { 74 } else { 0 }),
                "{command:?}: {said}"
            );
            assert!(!said.contains("panicked") && lost == said.contains("No space left"), "{said}");
        }
    }
    // And where stderr is gone too, a failure is still its exit code.
    let (_, gone) = std::io::pipe().unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["models", "promote", "nobody", "1", "--root", root])
        .stderr(gone)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(65));
    let usage = Command::new(env!("CARGO_BIN_EXE_tidemill")).arg("--nonsense").output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

/// The input is not emptied by a command that writes to it, under any of its names.
#[test]
fn predictions_do_not_replace_their_input() {
    let dir = tempfile::tempdir().unwrap();
    let (input, link) = (dir.path().join("in.jsonl"), dir.path().join("link"));
    fs::write(&input, "{\"text\":\"a\"}\n").unwrap();
    symlink(&input, &link).unwrap();
    for output in [&input, &link] {
        let predict = Command::new(env!("CARGO_BIN_EXE_tidemill"))
            .args(["predict", "--model", &tiny(), "--input"])
            .arg(&input)
            .arg("--output")
            .arg(output)
            .output()
            .unwrap();
        assert_eq!(predict.status.code(), Some(64), "{predict:?}");
        assert_eq!(fs::read_to_string(&input).unwrap(), "{\"text\":\"a\"}\n");
    }
}

/// A configuration that has no end is refused.
#[test]
fn a_configuration_without_an_end_is_refused() {
    let check = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["check", "--config", "/dev/zero"])
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(78), "{check:?}");
    assert!(String::from_utf8_lossy(&check.stdout).contains("more than 1 MiB"), "{check:?}");
}

/// 64 records of 4 MB under `limits.memory: 64MiB`.
#[test]
fn large_records_do_not_pile_up() {
    let extra = "limits: { memory: 64MiB }";
    let (service, log) = Service::ready(&tiny(), extra, "");
    let before = service.peak();
    let large = json!({ "text": "a", "more": "x".repeat(4_000_000) }).to_string().into_bytes();
    service.answer(&vec![large; 64]);
    assert!(service.peak() < before + 100, "{} MiB, {before} before", service.peak());
    assert_eq!(service.stop(), Some(0));
    fs::remove_file(log).unwrap();
}

/// Two services on one log would both answer every record, whatever they call it.
#[test]
fn a_link_to_the_log_is_the_log() {
    let (service, log) = Service::ready(&tiny(), "", "");
    let link = service.dir.path().join("other.db");
    symlink("log.db", &link).unwrap();
    let config = service.dir.path().join("tidemill.yaml");
    let text = fs::read_to_string(&config).unwrap().replace("log.db", "other.db");
    let text = text.replace(&service.address.to_string(), "127.0.0.1:0");
    fs::write(&config, text).unwrap();
    let second = run(&config);
    assert_eq!(second.0, Some(78), "{}", second.1);
    assert!(second.1.contains("another process has this log"), "{}", second.1);
    assert_eq!(service.stop(), Some(0));
    fs::remove_file(log).unwrap();
}

fn run(config: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    let output = command.args(["run", "--config"]).arg(config).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

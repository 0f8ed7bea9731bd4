//! A live scrape, as Prometheus' own tool sees it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tidemill::sqlite::{Message, Store};

use crate::world::wait_for;

/// Runs the service on an embedded log with a hundred records, and scrapes it once they are answered.
fn scrape(dir: &Path) -> String {
    let (log, config) = (dir.join("log.db"), dir.join("tidemill.yaml"));
    let mut store = Store::open(&log).unwrap();
    store.create_topic("in", 1).unwrap();
    let value = |n: i64| Some(format!("{{\"a\":{n}}}").into_bytes());
    let message = |n| Message { timestamp: n, key: None, value: value(n), headers: Vec::new() };
    store.append("in", 0, &(0..100).map(message).collect::<Vec<_>>()).unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/linear");
    let text = format!(
        "log: sqlite:{}\ninput: {{ topics: [in] }}\noutput: {{ topic: out }}\nmodel: {{ uri: {} }}\n\
         http: {{ listen: '127.0.0.1:0' }}\ndead_letters: {{ max_ratio: 1.0 }}\n\
         logging: {{ format: json }}\n",
        log.display(),
        model.display()
    );
    fs::write(&config, text).unwrap();
    let said = dir.join("log.jsonl");
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["run", "--config"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    let address = wait_for("the address", || {
        let lines = fs::read_to_string(&said).ok()?;
        let lines = lines.lines().filter_map(|line| serde_json::from_str(line).ok());
        let mut lines = lines
            .filter_map(|line: serde_json::Value| Some(line.get("address")?.as_str()?.to_owned()));
        lines.next()
    });
    let scrape = wait_for("the records to be answered", || {
        let mut answer = ureq::get(format!("http://{address}/metrics")).call().ok()?;
        let scrape = answer.body_mut().read_to_string().ok()?;
        let done = "tidemill_records_total{outcome=\"prediction\"} 100\n";
        scrape.contains(done).then_some(scrape)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    // What collectors of logs are told to look for, in each line.
    for line in fs::read_to_string(&said).unwrap().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        for field in ["timestamp", "level", "target", "message"] {
            assert!(line[field].is_string(), "{field} in {line}");
        }
    }
    scrape
}

fn promtool() -> Option<PathBuf> {
    let cache = std::env::var_os("TIDEMILL_CACHE").map(PathBuf::from);
    let cache = cache
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/tidemill-test")));
    cache.map(|cache| cache.join("bin/promtool")).filter(|tool| tool.exists())
}

#[test]
fn promtool_finds_nothing_wrong_with_a_live_scrape() {
    let dir = tempfile::tempdir().unwrap();
    let scrape = scrape(dir.path());
    for there in [
        "tidemill_model_info{model=\"linear\",version=\"0\",digest=\"sha256:",
        "tidemill_stage_duration_seconds_count{stage=\"infer\"} ",
        "tidemill_kafka_connected ",
        "tidemill_kafka_outage_seconds 0\n",
        "tidemill_uncovered_partitions 0\n",
        "tidemill_last_commit_age_seconds{topic=\"in\",partition=\"0\"} ",
        "tidemill_committed_offset{topic=\"in\",partition=\"0\"} ",
        "tidemill_held_back_records{topic=\"in\",partition=\"0\"} 0\n",
        "tidemill_ready 1\n",
        "tidemill_process_start_time_seconds ",
        "tidemill_process_cpu_seconds_total ",
        "tidemill_memory_limit_bytes ",
    ] {
        assert!(scrape.contains(there), "{there} is not in\n{scrape}");
    }
    let Some(promtool) = promtool() else {
        let line = "skipped: no promtool; tests/helm/tools.sh promtool builds it\n";
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    };
    let mut tool = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    tool.stdin.take().unwrap().write_all(scrape.as_bytes()).unwrap();
    let said = tool.wait_with_output().unwrap();
    let words = [said.stdout, said.stderr].concat();
    let words = String::from_utf8_lossy(&words);
    assert!(said.status.success() && words.is_empty(), "{words}");
}

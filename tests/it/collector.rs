//! A real OpenTelemetry Collector for a test, which writes what it is sent to files.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::world::wait_for;

/// Runs a replica to the end with these variables; its exit code and log.
pub(crate) fn run(config: &Path, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let ended = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["run", "--until-end", "--config"])
        .arg(config)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
}

/// A collector that runs.
pub(crate) struct Collector {
    child: Child,
    dir: tempfile::TempDir,
    http: u16,
    grpc: u16,
}

/// A span as the collector has it, with OTLP's names.
#[derive(Debug, Clone)]
pub(crate) struct Span(pub(crate) Value);

impl Collector {
    /// `None`, and a line on stderr, where it is not there and cannot be built.
    pub(crate) fn start() -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/otel/collector.sh");
        let built = Command::new(script).output().unwrap();
        if !built.status.success() {
            let line = "skipped: the OpenTelemetry Collector cannot be built here; what is sent to one is not checked\n";
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return None;
        }
        let program = String::from_utf8(built.stdout).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (http, grpc) = (free_port(), free_port());
        let at = dir.path().display();
        let config = format!(
            "receivers:\n  otlp:\n    protocols:\n      http: {{endpoint: '127.0.0.1:{http}'}}\n      \
             grpc: {{endpoint: '127.0.0.1:{grpc}'}}\n\
             exporters:\n  file/traces: {{path: {at}/traces.jsonl, flush_interval: 50ms}}\n  \
             file/metrics: {{path: {at}/metrics.jsonl, flush_interval: 50ms}}\n  \
             file/logs: {{path: {at}/logs.jsonl, flush_interval: 50ms}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n    \
             traces: {{receivers: [otlp], exporters: [file/traces]}}\n    \
             metrics: {{receivers: [otlp], exporters: [file/metrics]}}\n    \
             logs: {{receivers: [otlp], exporters: [file/logs]}}\n"
        );
        fs::write(dir.path().join("config.yaml"), config).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(program.trim())
            .arg("--config")
            .arg(format!("file:{}", dir.path().join("config.yaml").display()))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let collector = Self { child, dir, http, grpc };
        for port in [http, grpc] {
            wait_for("the collector", || TcpStream::connect(("127.0.0.1", port)).ok());
        }
        Some(collector)
    }

    /// Where it takes OTLP over HTTP.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// Where it takes OTLP over gRPC.
    pub(crate) fn grpc_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    /// What it has once it has so many: it writes a little later than it takes.
    pub(crate) fn wait_for_spans(&self, count: usize) -> Vec<Span> {
        wait_for("spans", || Some(self.spans()).filter(|spans| count <= spans.len()))
    }

    fn spans(&self) -> Vec<Span> {
        let each = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
        let resources = self.requests("traces").into_iter();
        let resources = resources.flat_map(|request| each(&request, "resourceSpans"));
        let scopes = resources.flat_map(|resource| each(&resource, "scopeSpans"));
        scopes.flat_map(|scope| each(&scope, "spans")).map(Span).collect()
    }

    /// What it was sent of a signal so far, all lines that are whole, with OTLP's names.
    pub(crate) fn requests(&self, signal: &str) -> Vec<Value> {
        let file = self.dir.path().join(format!("{signal}.jsonl"));
        let text = fs::read_to_string(file).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Span {
    pub(crate) fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    pub(crate) fn name(&self) -> &str {
        self.text("name")
    }

    /// An attribute, as OTLP writes it.
    pub(crate) fn attribute(&self, key: &str) -> Option<&Value> {
        let mut all = self.0["attributes"].as_array()?.iter();
        let value = &all.find(|attribute| attribute["key"] == key)?["value"];
        value.as_object()?.values().next()
    }

    /// The traces and spans that it links to.
    pub(crate) fn links(&self) -> Vec<(String, String)> {
        let id = |link: &Value, key: &str| link[key].as_str().unwrap().to_owned();
        let links = self.0["links"].as_array().into_iter().flatten();
        links.map(|link| (id(link, "traceId"), id(link, "spanId"))).collect()
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

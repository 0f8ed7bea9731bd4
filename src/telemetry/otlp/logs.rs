//! Lines of the log on their way to a collector: each event becomes a record in a bounded queue.
//!
//! Whoever logs never waits: what finds no room is counted. Lines about the sending of lines stay on stderr, or each
//! would make another.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use uuid::Uuid;

use super::{attribute, nanos, now, scope};
use crate::telemetry::metrics::Metrics;

/// Where this process's lines go beside stderr.
static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

/// The field that names a trace, as 32 hexadecimal digits.
const TRACE: &str = "trace_id";

/// Most bytes of a text; what is behind is cut off.
const TEXT: usize = 8 << 10;

thread_local! {
    /// Whether this thread sends lines.
    static SENDS: Cell<bool> = const { Cell::new(false) };
}

/// What this thread logs is not sent, from now on: it sends.
pub(super) fn keep_own() {
    SENDS.set(true);
}

/// Lines that wait to be sent.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// Most lines.
    limit: usize,
    /// Most lines of one request.
    batch: usize,
    /// How long lines wait for company.
    delay: Duration,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Line>,
    closed: bool,
}

/// A record, and the module that said it.
#[derive(Debug)]
pub(super) struct Line {
    target: String,
    record: LogRecord,
}

impl Queue {
    pub(super) fn new(limit: usize, batch: usize, delay: Duration, metrics: Metrics) -> Arc<Self> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Arc::new(Self { state, changed, limit, batch: batch.min(limit), delay, metrics })
    }

    /// This process's lines go here from now on. `false`: they go somewhere else already.
    pub(super) fn install(self: &Arc<Self>) -> bool {
        QUEUE.set(Arc::clone(self)).is_ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: Line) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        let full = self.limit <= state.lines.len();
        if !full {
            state.lines.push_back(line);
            // The sender waits for the first line, and then for a batch of them.
            if [1, self.batch].contains(&state.lines.len()) {
                self.changed.notify_one();
            }
        }
        drop(state);
        if full {
            self.metrics.lines_dropped(1);
        }
    }

    /// Waits for lines. `None`: there are no more.
    pub(super) fn next(&self) -> Option<Vec<Line>> {
        let mut state = self.state();
        while state.lines.is_empty() {
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let due: Instant = now() + self.delay;
        while state.lines.len() < self.batch && !state.closed {
            let left = due.saturating_duration_since(now());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let most = state.lines.len().min(self.batch);
        Some(state.lines.drain(..most).collect())
    }

    /// Takes nothing more in.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_one();
    }
}

/// These lines, by the module that said them.
pub(super) fn request(lines: Vec<Line>, resource: Resource) -> ExportLogsServiceRequest {
    let mut scopes: BTreeMap<String, Vec<LogRecord>> = BTreeMap::new();
    for Line { target, record } in lines {
        scopes.entry(target).or_default().push(record);
    }
    let scope_logs = scopes.into_iter().map(|(target, log_records)| ScopeLogs {
        scope: Some(scope(&target)),
        log_records,
        schema_url: String::new(),
    });
    let scope_logs = scope_logs.collect();
    let all = ResourceLogs { resource: Some(resource), scope_logs, schema_url: String::new() };
    ExportLogsServiceRequest { resource_logs: vec![all] }
}

/// Gives what is logged to the queue, where there is one. It stands behind the log's filter.
#[derive(Debug)]
pub(in crate::telemetry) struct Pushed;

impl<S: Subscriber> Layer<S> for Pushed {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // The flag is gone in a thread that ends.
        let own = SENDS.try_with(Cell::get).unwrap_or(true);
        if let Some(queue) = QUEUE.get().filter(|_| !own) {
            queue.push(line(event));
        }
    }
}

fn line(event: &Event<'_>) -> Line {
    let (severity, text) = match *event.metadata().level() {
        Level::TRACE => (SeverityNumber::Trace, "TRACE"),
        Level::DEBUG => (SeverityNumber::Debug, "DEBUG"),
        Level::INFO => (SeverityNumber::Info, "INFO"),
        Level::WARN => (SeverityNumber::Warn, "WARN"),
        Level::ERROR => (SeverityNumber::Error, "ERROR"),
    };
    let at = nanos();
    let record = LogRecord {
        time_unix_nano: at,
        observed_time_unix_nano: at,
        severity_number: severity.into(),
        severity_text: text.to_owned(),
        ..LogRecord::default()
    };
    let mut line = Line { target: event.metadata().target().to_owned(), record };
    event.record(&mut line);
    line
}

impl Line {
    fn field(&mut self, name: &str, value: Value) {
        match (name, value) {
            ("message", value) => self.record.body = Some(AnyValue { value: Some(value) }),
            // What came from the crate `log` says itself who said it.
            ("log.target", Value::StringValue(target)) => self.target = target,
            ("log.module_path" | "log.file" | "log.line", _) => (),
            (TRACE, Value::StringValue(text)) if Uuid::try_parse(&text).is_ok() => {
                let id = Uuid::try_parse(&text).unwrap_or_default();
                self.record.trace_id = id.as_bytes().to_vec();
            }
            (name, value) => self.record.attributes.push(attribute(name, value)),
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = Bounded(String::new());
        // What is too long is cut off, and writing ends there.
        write!(text, "{value:?}").unwrap_or_default();
        self.field(field.name(), Value::StringValue(text.0));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let end = value.floor_char_boundary(TEXT);
        let text = value.get(..end).unwrap_or_default();
        self.field(field.name(), Value::StringValue(text.to_owned()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field.name(), Value::IntValue(value));
    }

    /// OTLP has no larger number than an `i64`.
    fn record_u64(&mut self, field: &Field, value: u64) {
        let text = |_too_large| Value::StringValue(value.to_string());
        self.field(field.name(), i64::try_from(value).map_or_else(text, Value::IntValue));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field.name(), Value::DoubleValue(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field.name(), Value::BoolValue(value));
    }
}

/// A text that takes no more than [`TEXT`] bytes.
struct Bounded(String);

impl std::fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = TEXT - self.0.len();
        let end = text.floor_char_boundary(room);
        self.0.push_str(text.get(..end).unwrap_or_default());
        if end == text.len() { Ok(()) } else { Err(std::fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics;

    fn queue(limit: usize, batch: usize) -> (Arc<Queue>, impl Fn() -> String) {
        let recorder = metrics::recorder().unwrap();
        let handle = recorder.handle();
        let queue = Queue::new(limit, batch, Duration::ZERO, metrics::register(recorder));
        (queue, move || handle.render())
    }

    fn empty() -> Line {
        Line { target: "t".to_owned(), record: LogRecord::default() }
    }

    #[test]
    fn lines_beyond_the_bound_are_counted_and_the_last_ones_are_given() {
        let (queue, scrape) = queue(3, 2);
        for _ in 0..5 {
            queue.push(empty());
        }
        assert!(scrape().contains("tidemill_log_lines_pushed_total{result=\"dropped\"} 2\n"));
        queue.close();
        queue.push(empty());
        let sizes: Vec<usize> = std::iter::from_fn(|| queue.next()).map(|it| it.len()).collect();
        assert_eq!(sizes, [2, 1]);
    }

    #[test]
    fn a_line_keeps_its_fields_and_a_long_text_is_cut() {
        let mut line = empty();
        let string = |text: &str| Value::StringValue(text.to_owned());
        line.field("message", string("it broke"));
        line.field("trace_id", string("0af7651916cd43dd8448eb211c80319c"));
        line.field("rows", Value::IntValue(7));
        line.field("log.target", string("librdkafka"));
        let LogRecord { trace_id, body, attributes, .. } = line.record;
        assert_eq!(trace_id.first().zip(trace_id.last()), Some((&0x0a, &0x9c)));
        assert_eq!(body.unwrap().value, Some(string("it broke")));
        assert_eq!(attributes, [attribute("rows", Value::IntValue(7))]);
        assert_eq!(line.target, "librdkafka");
        let mut line = empty();
        line.field("trace_id", string("not one"));
        assert_eq!(line.record.attributes.len(), 1, "it is kept as it is");
        let mut text = Bounded(String::new());
        assert!(write!(text, "{}", "ä".repeat(TEXT)).is_err());
        assert_eq!(text.0.len(), TEXT);
    }
}

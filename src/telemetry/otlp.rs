//! Metrics and the log, pushed to an OpenTelemetry collector: by option, beside `/metrics` and stderr. Spans go the same way (`send`).
//!
//! ```text
//!  handles ─► recorder ─► the text of /metrics ─► sums, gauges, histograms ─► a thread ─► collector
//!  events ─┬► stderr
//!          └► queue (bounded) ─► records of a log ──────────────────────────► a thread ─► collector
//! ```
//!
//! # What holds
//!
//! 1. A push says what a scrape says: it is made of the same text.
//! 2. Nothing waits for a collector. One that is away costs a counter and a line now and then: metrics are cumulative, so
//!    the next push makes up for those before it; lines of the log are lost for the collector, and stand on stderr.
//! 3. No line about the sending of lines is sent.
//! 4. A stop has the last metrics, lines and spans sent, within one bounded time for all of them ([`Pushes::flush`]).

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::{Key, KeyValue};
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue as Attribute, any_value::Value,
};
use opentelemetry_proto::tonic::resource::v1::Resource as Described;
use opentelemetry_sdk::Resource;

use super::Telemetry;
use super::trace::Traces;
use crate::config::Config;
use crate::failure::{Exit, Failure, temporary};
use crate::repeated::Repeated;

mod client;
pub(super) mod collector;
pub(super) mod logs;
mod metrics;
pub(super) mod send;

use collector::{Collector, Signal, number};
use logs::Queue;
use metrics::Span;
use send::{Push, Sender};

/// How long a stop waits for the collector to take what is left.
const FLUSH: Duration = Duration::from_secs(5);

/// What pushes metrics, lines of the log and spans; by default nothing does.
#[derive(Debug, Default)]
pub struct Pushes {
    /// What has the thread end when it is dropped, and what is hung up when it has ended.
    metrics: Option<(SyncSender<()>, Receiver<()>)>,
    lines: Option<(Arc<Queue>, Receiver<()>)>,
    traces: Traces,
}

impl Pushes {
    /// As the environment and the configuration say.
    ///
    /// # Errors
    ///
    /// An address, a header or a file of certificates that cannot be used, by its name.
    pub fn start(config: &Config, telemetry: &Telemetry) -> Result<Self, Failure> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::with(&set, config, telemetry)
    }

    fn with(
        set: &impl Fn(&str) -> Option<String>,
        config: &Config,
        telemetry: &Telemetry,
    ) -> Result<Self, Failure> {
        let described = described(&resource(config));
        let to = |sender, away| To {
            sender,
            telemetry: telemetry.clone(),
            described: described.clone(),
            away,
        };
        let traces = Traces::start(config, &telemetry.metrics)?;
        let mut pushes = Self { traces, ..Self::default() };
        if let Some(sender) = sender(set, Signal::Metrics, config.metrics.endpoint.as_deref())? {
            let every = Duration::from_millis(number(set, "OTEL_METRIC_EXPORT_INTERVAL", 60_000));
            let to = to(sender, Repeated::default());
            let (stop, stopped) = sync_channel(0);
            let ended = spawn("otlp-metrics", move || meter(to, every, &stopped))?;
            pushes.metrics = Some((stop, ended));
        }
        if let Some(sender) = sender(set, Signal::Logs, config.logging.endpoint.as_deref())? {
            let limit = number(set, "OTEL_BLRP_MAX_QUEUE_SIZE", 2_048);
            let batch = number(set, "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", 512);
            let delay = Duration::from_millis(number(set, "OTEL_BLRP_SCHEDULE_DELAY", 1_000));
            let queue = Queue::new(limit, batch, delay, telemetry.metrics.clone());
            // In tests several services share a process and its log: the first one's.
            if queue.install() {
                let (to, lines) = (to(sender, Repeated::default()), Arc::clone(&queue));
                let ended = spawn("otlp-logs", move || write(to, &lines))?;
                pushes.lines = Some((queue, ended));
            }
        }
        Ok(pushes)
    }

    /// Where spans are told.
    pub fn traces(&self) -> Traces {
        self.traces.clone()
    }

    /// Has the last metrics, lines and spans sent, all within the same few seconds; what is not taken by then is lost.
    pub fn flush(self) {
        for what in self.flush_until(now() + FLUSH) {
            tracing::warn!("the last {what} were not taken within {FLUSH:?}; they are lost");
        }
    }

    /// Has all of them sent side by side, and says of what something is lost.
    fn flush_until(self, over: Instant) -> Vec<&'static str> {
        let Self { metrics, lines, traces } = self;
        let spans = traces.close(over);
        // Dropping this end tells the thread to make its last push.
        let metrics = metrics.map(|(stop, ended)| {
            drop(stop);
            ended
        });
        let lines = lines.map(|(queue, ended)| {
            queue.close();
            ended
        });
        let all = [("spans", spans), ("metrics", metrics), ("lines of the log", lines)];
        let is_lost = |ended: &Receiver<()>| {
            let left = over.saturating_duration_since(now());
            ended.recv_timeout(left) == Err(RecvTimeoutError::Timeout)
        };
        all.into_iter().filter_map(|(what, ended)| is_lost(&ended?).then_some(what)).collect()
    }
}

/// Starts a thread. What is given back is hung up when it ends.
pub(super) fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<Receiver<()>, Failure> {
    let (alive, ended) = sync_channel(0);
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            work();
            drop(alive);
        })
        .map_err(|error| temporary(&format!("start a thread: {error}")))?;
    Ok(ended)
}

/// The way to the collector that is named for `signal`, if one is.
fn sender(
    set: &impl Fn(&str) -> Option<String>,
    signal: Signal,
    configured: Option<&str>,
) -> Result<Option<Sender>, Failure> {
    let to = Collector::read(set, signal, configured)?;
    to.map(|to| way(signal, to)).transpose()
}

/// The way to a collector.
pub(super) fn way(signal: Signal, to: Collector) -> Result<Sender, Failure> {
    let endpoint = to.endpoint.clone();
    let sender = Sender::new(to).map_err(|why| Failure {
        message: format!("send {signal} to {endpoint}: {why}"),
        exit: Exit::Config,
    })?;
    tracing::info!(endpoint, "{signal} are sent");
    Ok(sender)
}

/// What a thread pushes with.
struct To {
    sender: Sender,
    telemetry: Telemetry,
    described: Described,
    away: Repeated,
}

/// Pushes what is scraped each `every`, and when it is told to stop.
fn meter(mut to: To, every: Duration, stopped: &Receiver<()>) {
    let start = nanos();
    let mut due = now() + every;
    loop {
        let left = due.saturating_duration_since(now());
        let over = stopped.recv_timeout(left) == Err(RecvTimeoutError::Disconnected);
        to.push_metrics(Span { start, now: nanos() });
        if over {
            return;
        }
        // After a push that took long the next one is not made at once for each that was missed.
        due = (due + every).max(now());
    }
}

/// Pushes lines of the log until there are no more.
fn write(mut to: To, lines: &Queue) {
    logs::keep_own();
    while let Some(lines) = lines.next() {
        to.push_lines(lines);
    }
}

impl To {
    fn push_metrics(&mut self, span: Span) {
        let text = self.telemetry.render();
        let push = Push::Metrics(metrics::request(&text, self.described.clone(), span));
        let sent = self.sender.send(push);
        self.telemetry.metrics.pushed(sent.is_ok());
        let Err(refused) = sent else {
            if let Some(missed) = self.away.over() {
                tracing::info!(missed, "the collector takes metrics again");
            }
            return;
        };
        if let Some(missed) = self.away.seen(1, now()) {
            let why = refused.why;
            tracing::warn!(
                missed,
                "the collector takes no metrics: {why}. The next push makes up for it, and /metrics has them as ever; \
                 look at OTEL_EXPORTER_OTLP_ENDPOINT or metrics.endpoint"
            );
        }
    }

    fn push_lines(&mut self, lines: Vec<logs::Line>) {
        let all = lines.len();
        let sent = self.sender.send(Push::Logs(logs::request(lines, self.described.clone())));
        let lost = sent.as_ref().err().map_or(0, |refused| refused.items.unwrap_or(all).min(all));
        self.telemetry.metrics.lines_pushed(all - lost, lost);
        let Err(refused) = sent else {
            if let Some(lost) = self.away.over() {
                tracing::info!(lost, "the collector takes lines of the log again");
            }
            return;
        };
        if let Some(lost) = self.away.seen(lost, now()) {
            let why = refused.why;
            tracing::warn!(
                lost,
                "the collector takes no lines of the log: {why}. They stand here as ever; look at \
                 OTEL_EXPORTER_OTLP_ENDPOINT or logging.endpoint"
            );
        }
    }
}

/// Who we are: as `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say, which come before what we say ourselves.
pub(super) fn resource(config: &Config) -> Resource {
    let said = Resource::builder().build();
    let is_said = |key: &'static str| {
        said.get(&Key::from_static_str(key))
            .is_some_and(|value| !value.as_str().starts_with("unknown_service"))
    };
    let instance = config.kafka.instance.clone().unwrap_or_default();
    let own = [
        ("service.name", "tidemill".to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", instance),
    ];
    let own = own.into_iter().filter(|(key, value)| !value.is_empty() && !is_said(key));
    Resource::builder().with_attributes(own.map(|(key, value)| KeyValue::new(key, value))).build()
}

/// The same in OTLP's words.
fn described(resource: &Resource) -> Described {
    let text = |value: &opentelemetry::Value| Value::StringValue(value.as_str().into_owned());
    let attributes = resource.iter().map(|(key, value)| attribute(key.as_str(), text(value)));
    Described { attributes: attributes.collect(), ..Described::default() }
}

/// Who says it.
fn scope(name: &str) -> InstrumentationScope {
    let (name, version) = (name.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    InstrumentationScope { name, version, ..InstrumentationScope::default() }
}

fn attribute(name: &str, value: Value) -> Attribute {
    let value = Some(AnyValue { value: Some(value) });
    Attribute { key: name.to_owned(), value, ..Attribute::default() }
}

/// Nanoseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "what is sent bears the time of the wall")]
fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "pushes are made by the clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::config::load;
    use crate::telemetry::trace::Swap;

    /// One stop for all signals: a collector that accepts and never answers loses each of them by its name.
    #[test]
    fn what_is_not_taken_until_the_end_is_lost_by_name() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let yaml = "kafka: {group: g, common: {bootstrap.servers: 'b:1'}}\ninput: {topics: [in]}\n\
                    output: {topic: out}\nmodel: {uri: m}\n";
        let mut config = load::from_yaml(yaml).unwrap();
        let telemetry = Telemetry::silent().unwrap();
        let start = |config: &Config| {
            let pushes = Pushes::with(&|_| None, config, &telemetry).unwrap();
            let id = crate::record::ModelId {
                name: "m".into(),
                version: crate::record::Version(2),
                digest: "d".into(),
            };
            let whole = crate::telemetry::stage::Stage::new(now(), now());
            pushes.traces().swapped(Swap { from: crate::record::Version(1), to: id, whole });
            pushes
        };
        let soon = || now() + Duration::from_millis(200);
        assert_eq!(start(&config).flush_until(soon()), Vec::<&str>::new());
        config.traces.endpoint = Some(url.clone());
        assert_eq!(start(&config).flush_until(soon()), ["spans"]);
        config.metrics.endpoint = Some(url);
        assert_eq!(start(&config).flush_until(soon()), ["spans", "metrics"]);
    }
}

//! The sending thread: takes what was told, makes spans of it, and gives them to a collector.
//!
//! A collector that is away costs a counter and a line now and then, and nothing else.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::client::{Answered, Client, Heard};
use super::now;
use super::partial::Partial;
use super::queue::{Next, Queue};
use super::settings::{Protocol, Settings};
use super::told::Maker;
use crate::config::{Config, Log};
use crate::failure::{Exit, Failure, temporary};
use crate::printable;
use crate::telemetry::metrics::Metrics;

/// The first pause between two lines about a collector that is away; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(30);
/// The longest.
const LONGEST: Duration = Duration::from_secs(3600);

struct Sender {
    exporter: SpanExporter,
    /// What gRPC needs: a runtime of this thread's own.
    runtime: Runtime,
    queue: Arc<Queue>,
    metrics: Metrics,
    maker: Arc<Maker>,
    batch: usize,
    delay: Duration,
    heard: Heard,
    /// A collector that takes nothing.
    away: Option<Loss>,
    /// One that takes a part.
    picky: Option<Loss>,
}

/// What a collector does not take.
struct Loss {
    /// So many spans.
    spans: usize,
    /// When that is said again.
    next: Instant,
    pause: Duration,
}

impl Loss {
    /// So many more are lost: how many in all, where that is to be said now. At once, and then with growing pauses.
    fn grows(loss: &mut Option<Self>, spans: usize) -> Option<usize> {
        let now = now();
        let loss = loss.get_or_insert(Self { spans: 0, next: now, pause: PAUSE });
        loss.spans += spans;
        if now < loss.next {
            return None;
        }
        loss.next = now + loss.pause;
        loss.pause = (loss.pause * 2).min(LONGEST);
        Some(loss.spans)
    }
}

/// Starts the thread. What is given back is dropped when it ends.
pub(super) fn start(
    settings: &Settings,
    config: &Config,
    queue: &Arc<Queue>,
    metrics: &Metrics,
) -> Result<oneshot::Receiver<()>, Failure> {
    let heard = Heard::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| temporary(&format!("send traces: {error}")))?;
    let entered = runtime.enter();
    let mut exporter = exporter(settings, &heard).map_err(|error| {
        let message = format!("send traces to {}: {error}", settings.endpoint);
        Failure { message, exit: Exit::Config }
    })?;
    exporter.set_resource(&resource(config));
    drop(entered);
    let system = match config.log {
        Log::Kafka => "kafka",
        Log::Sqlite(_) => "sqlite",
    };
    let maker = Maker::new(system, config.kafka.group.clone(), config.input.topics.clone());
    let maker = Arc::new(maker);
    let sender = Sender {
        exporter,
        runtime,
        queue: Arc::clone(queue),
        metrics: metrics.clone(),
        maker,
        batch: settings.batch,
        delay: settings.delay,
        heard,
        away: None,
        picky: None,
    };
    let (alive, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("spans".to_owned())
        .spawn(move || {
            sender.run();
            drop(alive);
        })
        .map_err(|error| temporary(&format!("start a thread: {error}")))?;
    Ok(ended)
}

fn exporter(settings: &Settings, heard: &Heard) -> Result<SpanExporter, String> {
    match settings.protocol {
        Protocol::Http => SpanExporter::builder()
            .with_http()
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_endpoint(&settings.endpoint)
            .with_timeout(settings.timeout)
            .with_http_client(Client::new(settings, heard)?)
            .build()
            .map_err(|error| error.to_string()),
        Protocol::Grpc => SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&settings.endpoint)
            .with_timeout(settings.timeout)
            .build()
            .map_err(|error| error.to_string()),
    }
}

/// Who we are: as `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say, which come before what we say ourselves.
fn resource(config: &Config) -> Resource {
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

impl Sender {
    fn run(mut self) {
        let mut spans = Vec::with_capacity(self.batch);
        let mut due = None;
        loop {
            match self.queue.next(due) {
                Next::Told(told) => {
                    let maker = Arc::clone(&self.maker);
                    for span in maker.spans(&told) {
                        spans.push(span);
                        if self.batch <= spans.len() {
                            self.send(std::mem::take(&mut spans));
                        }
                    }
                    due = (!spans.is_empty()).then(|| due.unwrap_or_else(|| now() + self.delay));
                }
                Next::Due => {
                    self.send(std::mem::take(&mut spans));
                    due = None;
                }
                Next::End => {
                    self.send(spans);
                    return;
                }
            }
        }
    }

    fn send(&mut self, spans: Vec<SpanData>) {
        let count = spans.len();
        if count == 0 {
            return;
        }
        let sent = if self.queue.is_over() {
            Err("the service has stopped".to_owned())
        } else {
            // HTTP blocks, on this thread, which is there for it.
            let sent = self.runtime.block_on(self.exporter.export(spans));
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            let Answered { why, partial } = std::mem::take(&mut *heard);
            sent.map(|()| partial).map_err(|error| why.unwrap_or_else(|| error.to_string()))
        };
        self.queue.done(count);
        match sent {
            Ok(partial) => self.taken(count, &partial),
            Err(why) => {
                self.metrics.spans_failed(count);
                if let Some(lost) = Loss::grows(&mut self.away, count) {
                    tracing::warn!(
                        lost,
                        "the collector takes no spans: {why}. Records are answered as ever; look at OTEL_EXPORTER_OTLP_ENDPOINT"
                    );
                }
            }
        }
    }

    /// The collector has answered that it took them, or a part of them.
    fn taken(&mut self, count: usize, partial: &Partial) {
        let rejected = usize::try_from(partial.rejected).unwrap_or(usize::MAX).min(count);
        self.metrics.spans_exported(count - rejected);
        self.metrics.spans_rejected(rejected);
        if let Some(Loss { spans: lost, .. }) = self.away.take() {
            tracing::info!(lost, "the collector takes spans again");
        }
        if rejected != 0
            && let Some(lost) = Loss::grows(&mut self.picky, rejected)
        {
            let why = printable::name(&partial.message);
            tracing::warn!(
                lost,
                "the collector takes a part of the spans and rejects the others: {why}. Look at its limits"
            );
        }
    }
}

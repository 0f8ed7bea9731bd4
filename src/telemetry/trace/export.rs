//! The sending thread: takes what was told, makes spans of it, and gives them to a collector.
//!
//! A collector that is away costs a counter and a line now and then, and nothing else.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::now;
use super::queue::{Next, Queue};
use super::settings::Settings;
use super::told::Maker;
use crate::config::{Config, Log};
use crate::failure::{Exit, Failure, temporary};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp::away::Away;
use crate::telemetry::otlp::client::{Client, Why};
use crate::telemetry::otlp::collector::{Collector, Protocol};
use crate::telemetry::otlp::resource;

struct Sender {
    exporter: SpanExporter,
    /// What gRPC needs: a runtime of this thread's own.
    runtime: Runtime,
    queue: Arc<Queue>,
    metrics: Metrics,
    maker: Arc<Maker>,
    batch: usize,
    delay: Duration,
    why: Why,
    away: Away,
}

/// Starts the thread. What is given back is dropped when it ends.
pub(super) fn start(
    settings: &Settings,
    config: &Config,
    queue: &Arc<Queue>,
    metrics: &Metrics,
) -> Result<oneshot::Receiver<()>, Failure> {
    let why = Why::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| temporary(&format!("send traces: {error}")))?;
    let entered = runtime.enter();
    let mut exporter = exporter(&settings.collector, &why).map_err(|error| {
        let message = format!("send traces to {}: {error}", settings.collector.endpoint);
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
        why,
        away: Away::default(),
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

fn exporter(settings: &Collector, why: &Why) -> Result<SpanExporter, String> {
    match settings.protocol {
        Protocol::Http => SpanExporter::builder()
            .with_http()
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_endpoint(&settings.endpoint)
            .with_timeout(settings.timeout)
            .with_http_client(Client::new(settings, why)?)
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
            self.runtime.block_on(self.exporter.export(spans)).map_err(|error| {
                let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).take();
                why.unwrap_or_else(|| error.to_string())
            })
        };
        self.queue.done(count);
        match sent {
            Ok(()) => {
                self.metrics.spans_exported(count);
                if let Some(lost) = self.away.back() {
                    tracing::info!(lost, "the collector takes spans again");
                }
            }
            Err(why) => {
                self.metrics.spans_failed(count);
                self.complain(count, &why);
            }
        }
    }

    fn complain(&mut self, count: usize, why: &str) {
        if let Some(lost) = self.away.lost(count, now()) {
            tracing::warn!(
                lost,
                "the collector takes no spans: {why}. Records are answered as ever; look at OTEL_EXPORTER_OTLP_ENDPOINT"
            );
        }
    }
}

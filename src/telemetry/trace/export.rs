//! The sending thread: takes what was told, makes spans of it, and gives them to a collector.
//!
//! A collector that is away costs a counter and a line now and then, and nothing else.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::trace::SpanData;

use super::now;
use super::queue::{Next, Queue};
use super::settings::Settings;
use super::told::Maker;
use crate::config::{Config, Log};
use crate::failure::Failure;
use crate::printable;
use crate::repeated::Repeated;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp;
use crate::telemetry::otlp::collector::Signal;
use crate::telemetry::otlp::send::{self, Push, Refused};

struct Sender {
    to: send::Sender,
    resource: ResourceAttributesWithSchema,
    queue: Arc<Queue>,
    metrics: Metrics,
    maker: Arc<Maker>,
    batch: usize,
    delay: Duration,
    /// What a collector does not take at all.
    away: Repeated,
    /// What one rejects that takes the others.
    picky: Repeated,
}

/// Starts the thread. What is given back is dropped when it ends.
pub(super) fn start(
    settings: &Settings,
    config: &Config,
    queue: &Arc<Queue>,
    metrics: &Metrics,
) -> Result<Receiver<()>, Failure> {
    let to = otlp::way(Signal::Traces, settings.collector.clone())?;
    let system = match config.log {
        Log::Kafka => "kafka",
        Log::Sqlite(_) => "sqlite",
    };
    let maker = Maker::new(system, config.kafka.group.clone(), config.input.topics.clone());
    let maker = Arc::new(maker);
    let sender = Sender {
        to,
        resource: (&otlp::resource(config)).into(),
        queue: Arc::clone(queue),
        metrics: metrics.clone(),
        maker,
        batch: settings.batch,
        delay: settings.delay,
        away: Repeated::default(),
        picky: Repeated::default(),
    };
    otlp::spawn("spans", move || sender.run())
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
            let why = "the service has stopped".to_owned();
            Err(Refused { items: None, why })
        } else {
            let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
            self.to.send(Push::Spans(ExportTraceServiceRequest { resource_spans }))
        };
        self.queue.done(count);
        match sent {
            Ok(()) => self.taken(count),
            Err(Refused { items: Some(items), why }) => {
                let rejected = items.min(count);
                self.taken(count - rejected);
                self.metrics.spans_rejected(rejected);
                if let Some(lost) = self.picky.seen(rejected, now()) {
                    let why = printable::name(&why);
                    tracing::warn!(
                        lost,
                        "the collector takes a part of the spans and rejects the others: {why}. Look at its limits"
                    );
                }
            }
            Err(Refused { items: None, why }) => {
                self.metrics.spans_failed(count);
                if let Some(lost) = self.away.seen(count, now()) {
                    tracing::warn!(
                        lost,
                        "the collector takes no spans: {why}. Records are answered as ever; look at OTEL_EXPORTER_OTLP_ENDPOINT"
                    );
                }
            }
        }
    }

    fn taken(&mut self, count: usize) {
        self.metrics.spans_exported(count);
        if let Some(lost) = self.away.over() {
            tracing::info!(lost, "the collector takes spans again");
        }
    }
}

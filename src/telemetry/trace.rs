//! Traces: what happened to a batch and to each sampled record of it, told after the fact.
//!
//! ```text
//!  producer ─► [traceparent] ─► in ──► process in ──► out ─► [traceparent] ─► consumer     one trace a record
//!                                      ▲      │ link
//!                              link ───┴──────▼
//!                                  process in ─┬─ decode ─ wait ─ infer ─ encode ─ commit  one trace a batch
//!  engine: chooses ids ─► queue (bounded) ─► a thread: makes spans, sends them ─► collector
//! ```
//!
//! Off unless a collector is named, by OpenTelemetry's own variables or by `traces.endpoint`. A record's span is a child
//! of the span that its `traceparent` names, and its outcome bears the record's span in turn: one trace leads from the
//! producer to whoever reads the prediction. The batch's span has a trace of its own, whose id is the batch's id, and links
//! to the spans that its sampled records came with.
//!
//! | whose trace | who decides whether it is recorded                                                  |
//! |-------------|-------------------------------------------------------------------------------------|
//! | a record's  | `OTEL_TRACES_SAMPLER`: its parent, unless another one is named; none without parent |
//! | a batch's   | recorded with any of its records; where no record has a parent, the sampler's share |
//! | a load's, a swap's | the sampler's share                                                          |
//!
//! # What holds
//!
//! 1. The engine never waits for a collector and computes little: it chooses ids, and keeps them with the times that it has
//!    anyway. What finds no room in the queue is dropped and counted.
//! 2. A span is told only after its record's commit was answered. A trace without it says: not committed here.
//! 3. The sending thread needs no runtime but its own, so no runtime of few threads can be locked by it, and a stop waits
//!    for it for a bounded time ([`Traces::flush`]).

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};
use uuid::Uuid;

use crate::config::Config;
use crate::failure::Failure;
use crate::log::trace::{self, TraceParent};
use crate::record::{Outcome, Partition, Record};

use super::metrics::Metrics;

mod export;
mod queue;
mod settings;
mod told;

pub use told::{Batch, Load, Row, Swap};

use queue::Queue;
use settings::{Sampler, Settings};
use told::Told;

/// How long a stop waits for the collector to take what is left.
const FLUSH: Duration = Duration::from_secs(5);

/// Where spans are told. Cheap to clone; by default nobody listens.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<Inner>>);

fn settings(config: &Config) -> Result<Option<Settings>, Failure> {
    let variable = |name: &str| std::env::var(name).ok();
    Settings::read(variable, config.traces.endpoint.as_deref())
}

#[derive(Debug)]
struct Inner {
    sampler: Sampler,
    queue: Arc<Queue>,
    metrics: Metrics,
    ids: RandomIdGenerator,
    /// Dropped by the sending thread when it ends.
    ended: Mutex<Option<Receiver<()>>>,
}

impl Traces {
    /// Whether what the environment and the configuration say can be used.
    ///
    /// # Errors
    ///
    /// An address that is none, by its name.
    pub fn check(config: &Config) -> Result<(), Failure> {
        settings(config).map(drop)
    }

    /// As the environment and the configuration say.
    ///
    /// # Errors
    ///
    /// An address or a file of certificates that cannot be used, by its name.
    pub fn start(config: &Config, metrics: &Metrics) -> Result<Self, Failure> {
        let Some(settings) = settings(config)? else { return Ok(Self::default()) };
        Self::with(&settings, config, metrics)
    }

    fn with(settings: &Settings, config: &Config, metrics: &Metrics) -> Result<Self, Failure> {
        let queue = Arc::new(Queue::new(settings.queue));
        let ended = export::start(settings, config, &queue, metrics)?;
        Ok(Self(Some(Arc::new(Inner {
            sampler: settings.sampler,
            queue,
            metrics: metrics.clone(),
            ids: RandomIdGenerator::default(),
            ended: Mutex::new(Some(ended)),
        }))))
    }

    /// What is to be told of a batch once it is committed; `None` where nobody listens.
    pub fn batch(&self, id: Uuid) -> Option<Chosen> {
        let inner = self.0.as_ref()?;
        let own = TraceParent {
            trace: *id.as_bytes(),
            span: inner.ids.new_span_id().to_bytes(),
            flags: ROOT,
        };
        Some(Chosen { inner: Arc::clone(inner), own, parents: 0, rows: Vec::new() })
    }

    /// The id of the trace that batch `id` has where it is recorded, for a line of the log; `None` where nobody listens.
    pub fn id(&self, id: Uuid) -> Option<String> {
        self.0.as_ref().map(|_| id.simple().to_string())
    }

    /// A batch was committed.
    pub fn committed(&self, batch: Batch) {
        self.tell(Told::Batch(Box::new(batch)));
    }

    /// A version went through the gate.
    pub fn loaded(&self, load: Load) {
        if let Some(own) = self.root() {
            self.tell(Told::Load(Box::new(load), own));
        }
    }

    /// A version serves in the place of another.
    pub fn swapped(&self, swap: Swap) {
        if let Some(own) = self.root() {
            self.tell(Told::Swap(Box::new(swap), own));
        }
    }

    fn root(&self) -> Option<TraceParent> {
        let ids = &self.0.as_ref()?.ids;
        let (trace, span) = (ids.new_trace_id().to_bytes(), ids.new_span_id().to_bytes());
        let own = TraceParent { trace, span, flags: ROOT };
        self.0.as_ref().is_some_and(|inner| inner.sampler.takes(trace)).then_some(own)
    }

    fn tell(&self, told: Told) {
        if let Some(inner) = &self.0 {
            inner.metrics.spans_dropped(inner.queue.push(told));
        }
    }

    /// Has what is left sent, within a few seconds; what is not taken by then is lost.
    pub async fn flush(&self) {
        let Some(ended) = self.close(now() + FLUSH) else { return };
        let late = move || ended.recv_timeout(FLUSH) == Err(RecvTimeoutError::Timeout);
        if tokio::task::spawn_blocking(late).await.unwrap_or(true) {
            tracing::warn!("the last spans were not taken within {FLUSH:?}; they are lost");
        }
    }

    /// Has what is left sent until `over`, and takes nothing more in. What is given back, to the first who closes, is hung
    /// up when all is sent or lost.
    pub(super) fn close(&self, over: Instant) -> Option<Receiver<()>> {
        let inner = self.0.as_ref()?;
        inner.queue.close(over);
        inner.ended.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The flags of a trace that begins here: recorded, and its id is random where it matters.
const ROOT: u8 = TraceParent::SAMPLED | 2;

/// The ids that were chosen for a batch and its sampled records.
#[derive(Debug)]
pub struct Chosen {
    inner: Arc<Inner>,
    own: TraceParent,
    /// Records that came with a parent.
    parents: usize,
    rows: Vec<Row>,
}

impl Chosen {
    /// What the outcome of a record bears in the place of the record's own `traceparent`; `None` leaves that as it is. It
    /// arrived at `arrived`.
    pub fn row<O>(
        &mut self,
        record: &Record,
        outcome: &Outcome<O>,
        arrived: Instant,
    ) -> Option<TraceParent> {
        let parent = TraceParent::of(record)?;
        self.parents += 1;
        let Sampler { parent: obeys, .. } = self.inner.sampler;
        let kept = if obeys { parent.is_sampled() } else { self.inner.sampler.takes(parent.trace) };
        if !kept {
            return None;
        }
        let (span, flags) =
            (self.inner.ids.new_span_id().to_bytes(), parent.flags | TraceParent::SAMPLED);
        let own = TraceParent { span, flags, ..parent };
        self.rows.push(Row {
            own,
            parent: parent.span,
            state: trace::state(record).map(Into::into),
            place: record.partition,
            offset: record.offset,
            arrived,
            tombstone: matches!(outcome, Outcome::Tombstone),
            class: match outcome {
                Outcome::DeadLetter(fault) => Some(fault.class),
                Outcome::Prediction(_) | Outcome::Tombstone => None,
            },
        });
        Some(own)
    }

    /// Whether the batch's own span is recorded.
    pub fn is_kept(&self) -> bool {
        !self.rows.is_empty() || (self.parents == 0 && self.inner.sampler.takes(self.own.trace))
    }

    /// The batch's span, and those of the records in partitions that were committed.
    pub fn committed(self, is_committed: impl Fn(Partition) -> bool) -> (TraceParent, Vec<Row>) {
        let mut rows = self.rows;
        rows.retain(|row| is_committed(row.place));
        (self.own, rows)
    }
}

#[expect(clippy::disallowed_methods, reason = "spans are told with the time of the clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests;

//! What the service counts. Every metric is one of [`ALL`].
//!
//! Names are `tidemill_<what>_<unit>`, in base units (seconds, bytes); counters end in `_total`. Labels have
//! few values, known when this is compiled, but for partitions and versions, which go when they are given up (`text`).
//! Handles are made once and updated once a batch, never once a record but for the age.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, SharedString,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusRecorder};

use crate::log::How;
use crate::memory;
use crate::record::{FaultClass, ModelId, Partition, Reason};
use crate::status::history::Behind;
use crate::status::{Board, LONG_AWAY, wall_clock_ms};

mod declared;
mod text;

pub use declared::{ACTIONS, ALL, Kind, Metric};

use declared::{
    ADMIN, AGE, BATCH_BYTES, BATCH_LIMIT, BATCH_RECORDS, BATCH_TOKENS, BATCHES, CACHE_HITS,
    CLEANED, CONNECTED, DEAD_LETTERS, DRAIN_ETA, GATE, LINES, MEMORY_LIMIT, MEMORY_USED,
    MODEL_LOAD, MODEL_MEMORY, MODEL_SWAPS, OUTAGE, PARTITIONS, PUSHES, READY, REBALANCES, RECORDS,
    RESIDENT, SCHEMAS, SLACK, SPANS, STAGE, TRANSACTIONS, TRUNCATED, UNCOVERED,
};
use text::{OWN, Own, Process};

/// The handles. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Handles>);

struct Handles {
    recorder: PrometheusRecorder,
    outcomes: BTreeMap<&'static str, Counter>,
    batches: BTreeMap<Reason, Counter>,
    batch_records: Histogram,
    batch_bytes: Histogram,
    batch_tokens: Histogram,
    batch_limit: Gauge,
    decode: Histogram,
    infer: Histogram,
    encode: Histogram,
    commit: Histogram,
    wait: Histogram,
    age: Histogram,
    dead_letters: BTreeMap<&'static str, Counter>,
    transactions: BTreeMap<How, Counter>,
    cache_hits: Counter,
    truncated: Counter,
    rebalances: Counter,
    partitions: Gauge,
    model_load: Histogram,
    swapped: Counter,
    refused: Counter,
    model_memory: Gauge,
    drain_eta: Gauge,
    slack: Gauge,
    uncovered: Gauge,
    connected: Gauge,
    ready: Gauge,
    resident: Gauge,
    spans: [Counter; 4],
    pushes: [Counter; 2],
    lines: [Counter; 3],
    /// By action, and whether it was done.
    admin: BTreeMap<(&'static str, bool), Counter>,
    /// When the process was started, in seconds since 1970.
    started: f64,
    /// Since when the cluster does not answer.
    outage: Mutex<Option<Instant>>,
    outage_age: Gauge,
    schemas: Gauge,
    memory_used: Gauge,
    memory_limit: Gauge,
    /// What is written beside the recorder.
    own: Mutex<Own>,
    status: OnceLock<Board>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

const METADATA: Metadata<'static> = Metadata::new("tidemill", Level::INFO, None);

fn key(name: &'static str, labels: Vec<Label>) -> Key {
    Key::from_parts(name, labels)
}

/// Registers every metric at zero: a rate over an absent series is no alert.
pub fn register(recorder: PrometheusRecorder) -> Metrics {
    describe(&recorder);
    let counter = |name, label: &'static str, value: &'static str| {
        recorder.register_counter(&key(name, vec![Label::new(label, value)]), &METADATA)
    };
    let histogram = |name, labels| recorder.register_histogram(&key(name, labels), &METADATA);
    let stage = |stage: &'static str| histogram(STAGE, vec![Label::new("stage", stage)]);
    let gauge = |name| recorder.register_gauge(&key(name, Vec::new()), &METADATA);
    let handles = Handles {
        outcomes: ["prediction", "dead_letter", "tombstone"]
            .map(|outcome| (outcome, counter(RECORDS, "outcome", outcome)))
            .into(),
        batches: Reason::ALL
            .map(|reason| (reason, counter(BATCHES, "reason", reason.name())))
            .into(),
        batch_records: histogram(BATCH_RECORDS, Vec::new()),
        batch_bytes: histogram(BATCH_BYTES, Vec::new()),
        batch_tokens: histogram(BATCH_TOKENS, Vec::new()),
        batch_limit: gauge(BATCH_LIMIT),
        decode: stage("decode"),
        infer: stage("infer"),
        encode: stage("encode"),
        commit: stage("commit"),
        wait: stage("wait"),
        age: histogram(AGE, Vec::new()),
        dead_letters: FaultClass::ALL
            .map(|class| (class.name(), counter(DEAD_LETTERS, "class", class.name())))
            .into(),
        transactions: How::ALL
            .map(|how| (how, counter(TRANSACTIONS, "outcome", how.name())))
            .into(),
        cache_hits: recorder.register_counter(&key(CACHE_HITS, Vec::new()), &METADATA),
        truncated: recorder.register_counter(&key(TRUNCATED, Vec::new()), &METADATA),
        rebalances: recorder.register_counter(&key(REBALANCES, Vec::new()), &METADATA),
        partitions: gauge(PARTITIONS),
        model_load: histogram(MODEL_LOAD, Vec::new()),
        swapped: counter(MODEL_SWAPS, "result", "swapped"),
        refused: counter(MODEL_SWAPS, "result", "refused"),
        model_memory: gauge(MODEL_MEMORY),
        drain_eta: gauge(DRAIN_ETA),
        slack: gauge(SLACK),
        uncovered: gauge(UNCOVERED),
        connected: gauge(CONNECTED),
        ready: gauge(READY),
        started: float(u64::try_from(wall_clock_ms()).unwrap_or(0)) / 1e3,
        outage: Mutex::default(),
        outage_age: gauge(OUTAGE),
        schemas: gauge(SCHEMAS),
        memory_used: gauge(MEMORY_USED),
        memory_limit: gauge(MEMORY_LIMIT),
        own: Mutex::default(),
        status: OnceLock::new(),
        resident: gauge(RESIDENT),
        spans: ["exported", "failed", "dropped", "rejected"]
            .map(|result| counter(SPANS, "result", result)),
        pushes: ["exported", "failed"].map(|result| counter(PUSHES, "result", result)),
        lines: ["exported", "failed", "dropped"].map(|result| counter(LINES, "result", result)),
        admin: actions(&recorder),
        recorder,
    };
    handles.slack.set(f64::INFINITY);
    let metrics = Metrics(Arc::new(handles));
    metrics.drain_eta(None);
    metrics
}

fn describe(recorder: &PrometheusRecorder) {
    for metric in ALL.iter().filter(|metric| !OWN.contains(&metric.name)) {
        let name = KeyName::from_const_str(metric.name);
        let (unit, help) = (Some(metric.unit), SharedString::const_str(metric.help));
        match metric.kind {
            Kind::Counter => recorder.describe_counter(name, unit, help),
            Kind::Gauge => recorder.describe_gauge(name, unit, help),
            Kind::Histogram => recorder.describe_histogram(name, unit, help),
        }
    }
}

/// A counter for each action and result.
fn actions(recorder: &PrometheusRecorder) -> BTreeMap<(&'static str, bool), Counter> {
    let each = ACTIONS.iter().flat_map(|action| [true, false].map(|done| (*action, done)));
    let counted = each.map(|(action, done)| {
        let labels = [("action", action), ("result", result(done))];
        let labels = labels.map(|(name, value)| Label::new(name, value));
        ((action, done), recorder.register_counter(&key(ADMIN, labels.into()), &METADATA))
    });
    counted.collect()
}

impl Metrics {
    /// A batch was closed; its first record had waited `wait`.
    pub fn batch_closed(&self, reason: Reason, records: usize, bytes: u64, tokens: u64) {
        if let Some(batches) = self.0.batches.get(&reason) {
            batches.increment(1);
        }
        self.0.batch_records.record(float(u64::try_from(records).unwrap_or(u64::MAX)));
        self.0.batch_bytes.record(float(bytes));
        self.0.batch_tokens.record(float(tokens));
    }

    /// So many tokens close a batch from now on.
    pub fn batch_limit(&self, tokens: u64) {
        self.0.batch_limit.set(float(tokens));
    }

    /// The oldest record of a batch had waited so long when the batch was closed.
    pub fn waited(&self, wait: Duration) {
        self.0.wait.record(wait.as_secs_f64());
    }

    /// A chunk was decoded and prepared.
    pub fn decoded(&self, took: Duration) {
        self.0.decode.record(took.as_secs_f64());
    }

    /// A batch came back from the model.
    pub fn inferred(&self, took: Duration, encode: Duration, hits: usize) {
        self.0.cache_hits.increment(u64::try_from(hits).unwrap_or(0));
        self.0.infer.record(took.as_secs_f64());
        self.0.encode.record(encode.as_secs_f64());
    }

    /// A transaction was answered.
    pub fn transaction(&self, how: How, took: Duration) {
        if let Some(transactions) = self.0.transactions.get(&how) {
            transactions.increment(1);
        }
        self.0.commit.record(took.as_secs_f64());
    }

    /// Records became visible that were so many seconds old.
    pub fn record_ages(&self, seconds: impl Iterator<Item = f64>) {
        seconds.for_each(|age| self.0.age.record(age));
    }

    /// Committed outcomes, by their labels.
    pub fn outcomes(
        &self,
        outcomes: &BTreeMap<&'static str, u64>,
        classes: &BTreeMap<&'static str, u64>,
    ) {
        for (counters, counts) in [(&self.0.outcomes, outcomes), (&self.0.dead_letters, classes)] {
            for (label, count) in counts {
                if let Some(counter) = counters.get(label) {
                    counter.increment(*count);
                }
            }
        }
    }

    /// So many predictions were for a part of their text.
    pub fn truncated(&self, predictions: u64) {
        self.0.truncated.increment(predictions);
    }

    /// The assignment changed to so many partitions.
    pub fn rebalanced(&self, partitions: usize) {
        self.0.rebalances.increment(1);
        self.0.partitions.set(float(u64::try_from(partitions).unwrap_or(u64::MAX)));
    }

    /// A partition's lag in offsets: control records count until they are passed.
    pub fn lag(&self, topic: &str, partition: Partition, behind: &Behind) {
        lock(&self.0.own).lag(topic, partition, behind);
    }

    /// All partitions are left to others.
    pub fn left(&self) {
        self.0.partitions.set(0.0);
    }

    /// A partition became ours.
    pub fn assigned(&self, topic: &str, partition: Partition, now: Instant) {
        lock(&self.0.own).assigned(topic, partition, now);
    }

    /// Records of a partition were committed at `now`.
    pub fn committed(&self, topic: &str, partition: Partition, now: Instant) {
        lock(&self.0.own).committed(topic, partition, now);
    }

    /// A partition was given up: its lag is another's to tell, and its series go.
    pub fn revoked(&self, topic: &str, partition: Partition) {
        lock(&self.0.own).revoked(topic, partition);
    }

    /// What the recorder does not have, in Prometheus' text format: what there is of each partition, the version that
    /// serves, CPU time.
    pub fn render_own(&self) -> String {
        let process = Process { cpu: memory::cpu_seconds(), started: self.0.started };
        let now = now();
        let away = lock(&self.0.outage).map(|since| now.saturating_duration_since(since));
        lock(&self.0.own).render(process, away.is_none_or(|away| away < LONG_AWAY), now)
    }

    /// Where it is told how the service is. Once.
    pub fn watch(&self, status: Board) {
        self.0.status.set(status).unwrap_or_default();
    }

    /// Whether the cluster answers.
    pub fn reachable(&self, reachable: bool) {
        self.0.connected.set(if reachable { 1.0 } else { 0.0 });
        let mut outage = lock(&self.0.outage);
        *outage = if reachable { None } else { Some(outage.unwrap_or_else(now)) };
    }

    /// So many partitions of the input topics are read by nobody.
    pub fn uncovered(&self, partitions: usize) {
        self.0.uncovered.set(float(u64::try_from(partitions).unwrap_or(u64::MAX)));
    }

    /// Seconds to lag 0; `None`: never at this rate, or not known.
    pub fn drain_eta(&self, seconds: Option<f64>) {
        self.0.drain_eta.set(seconds.unwrap_or(-1.0));
    }

    /// Seconds that a job has beyond what is left of its work; without a deadline infinitely many.
    pub fn slack(&self, seconds: f64) {
        self.0.slack.set(seconds);
    }

    /// This version serves from now on.
    pub fn serving(&self, model: &ModelId, bytes: u64) {
        lock(&self.0.own).serving(model);
        self.0.model_memory.set(float(bytes));
    }

    /// A version was loaded in so long.
    pub fn loaded(&self, took: Duration) {
        self.0.model_load.record(took.as_secs_f64());
    }

    /// A version went through these steps of the gate, in so long each. A service that is ready has loaded one, so the
    /// series are there from then on.
    pub fn gate(&self, steps: impl Iterator<Item = (&'static str, Duration)>) {
        for (step, took) in steps {
            let key = key(GATE, vec![Label::new("step", step)]);
            self.0.recorder.register_histogram(&key, &METADATA).record(took.as_secs_f64());
        }
    }

    /// Counts what a rule for cleaning does with a field. Fields are those of the configuration and of models.
    pub fn cleaned(&self, field: &str, rule: &'static str) -> Counter {
        let labels = vec![Label::new("field", field.to_owned()), Label::new("rule", rule)];
        self.0.recorder.register_counter(&key(CLEANED, labels), &METADATA)
    }

    /// A new version serves.
    pub fn swapped(&self) {
        self.0.swapped.increment(1);
    }

    /// A version did not pass the gate.
    pub fn refused(&self) {
        self.0.refused.increment(1);
    }

    /// The collector has taken so many spans.
    pub fn spans_exported(&self, spans: usize) {
        self.0.spans[0].increment(u64::try_from(spans).unwrap_or(0));
    }

    /// It has not taken so many.
    pub fn spans_failed(&self, spans: usize) {
        self.0.spans[1].increment(u64::try_from(spans).unwrap_or(0));
    }

    /// It has taken others of their batch, and not so many.
    pub fn spans_rejected(&self, spans: usize) {
        self.0.spans[3].increment(u64::try_from(spans).unwrap_or(0));
    }

    /// There was no room for so many to wait.
    pub fn spans_dropped(&self, spans: usize) {
        self.0.spans[2].increment(u64::try_from(spans).unwrap_or(0));
    }

    /// A collector has taken all metrics, or has not.
    pub fn pushed(&self, taken: bool) {
        self.0.pushes[usize::from(!taken)].increment(1);
    }

    /// A collector has taken so many lines of the log, and has not taken so many.
    pub fn lines_pushed(&self, exported: usize, failed: usize) {
        for (counter, lines) in self.0.lines.iter().zip([exported, failed]) {
            counter.increment(u64::try_from(lines).unwrap_or(0));
        }
    }

    /// There was no room for so many lines to wait.
    pub fn lines_dropped(&self, lines: u64) {
        self.0.lines[2].increment(lines);
    }

    /// Somebody asked `/admin` for one of [`ACTIONS`], and it was done or not.
    pub fn admin(&self, action: &'static str, done: bool) {
        if let Some(counter) = self.0.admin.get(&(action, done)) {
            counter.increment(1);
        }
    }

    /// Reads what changes by itself: memory, readiness, for how long the cluster has been away. At each scrape.
    pub fn read(&self) {
        let is_ready = |board: &Board| board.now().unready(now()).is_empty();
        self.0.ready.set(if self.0.status.get().is_some_and(is_ready) { 1.0 } else { 0.0 });
        let outage =
            lock(&self.0.outage).map_or(Duration::ZERO, |since| now().duration_since(since));
        self.0.outage_age.set(outage.as_secs_f64());
        let schemas = self.0.status.get().and_then(|board| board.now().schemas.clone());
        let schemas = schemas.map_or(Duration::ZERO, |(since, _)| now().duration_since(since));
        self.0.schemas.set(schemas.as_secs_f64());
        if let Some(bytes) = memory::resident("self") {
            self.0.resident.set(float(bytes));
        }
        if let Some((used, limit)) = memory::usage() {
            self.0.memory_used.set(float(used));
            self.0.memory_limit.set(float(limit));
        }
    }
}

fn result(done: bool) -> &'static str {
    if done { "done" } else { "refused" }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "an age is read when it is asked for")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float; these stay below 2^52")]
fn float(number: u64) -> f64 {
    number as f64
}

/// The recorder, with fixed buckets: summaries of several replicas cannot be added up.
///
/// # Errors
///
/// Only if a list of buckets below is empty.
pub fn recorder() -> Result<PrometheusRecorder, BuildError> {
    /// 1, 2, 4 … 8192.
    const COUNTS: &[f64] =
        &[1., 2., 4., 8., 16., 32., 64., 128., 256., 512., 1024., 2048., 4096., 8192.];
    /// 1 … 65,536 tokens.
    const TOKENS: &[f64] = &[1., 16., 64., 256., 1024., 4096., 16_384., 65_536.];
    /// 1 KiB … 16 MiB.
    const BYTES: &[f64] =
        &[1024., 4096., 16_384., 65_536., 262_144., 1_048_576., 4_194_304., 16_777_216.];
    /// 100 µs … 60 s, three a decade: for what happens seldom.
    const SECONDS: &[f64] = &[
        0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1., 2., 5.,
        10., 20., 60.,
    ];
    /// 1 ms … a day.
    const AGES: &[f64] = &[
        0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1., 2., 5., 10., 60., 600., 3600., 86_400.,
    ];
    let full = |name: &str| Matcher::Full(name.to_owned());
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(full(BATCH_RECORDS), COUNTS)?
        .set_buckets_for_metric(full(BATCH_TOKENS), TOKENS)?
        .set_buckets_for_metric(full(BATCH_BYTES), BYTES)?
        .set_buckets_for_metric(full(STAGE), &fine())?
        .set_buckets_for_metric(full(MODEL_LOAD), SECONDS)?
        .set_buckets_for_metric(full(GATE), SECONDS)?
        .set_buckets_for_metric(full(AGE), AGES)?;
    Ok(builder.build_recorder())
}

/// 20 µs … 90 s, 25 a decade, so that no quantile that is read off them is wrong by more than 10 %: between two bounds
/// nobody knows where the times are, and the calls of a model often all take the same.
fn fine() -> Vec<f64> {
    let bounds = (0..=166).map(|step| 2e-5 * 10_f64.powf(f64::from(step) / 25.0));
    // Three digits, as a person would write it.
    let rounded = |bound: f64| format!("{bound:.2e}").parse().unwrap_or(bound);
    bounds.map(rounded).collect()
}

#[cfg(test)]
mod tests;

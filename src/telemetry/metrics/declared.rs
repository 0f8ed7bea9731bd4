//! Every metric: its name, what its number does, unit, labels and help.

use metrics::Unit;

/// A metric, as it is scraped.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What its number does.
    pub kind: Kind,
    /// What it is counted in.
    pub unit: Unit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// What a metric's number does, with Prometheus' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It is many, counted by buckets.
    Histogram,
}

impl Kind {
    /// As it is scraped.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

const fn metric(
    name: &'static str,
    kind: Kind,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, unit, labels, help }
}

/// Every metric. README's table is this one; a test compares them.
pub const ALL: &[Metric] = &[
    metric(
        RECORDS,
        Kind::Counter,
        Unit::Count,
        &["outcome"],
        "Records with a committed outcome, by outcome.",
    ),
    metric(
        BATCHES,
        Kind::Counter,
        Unit::Count,
        &["reason"],
        "Batches closed, by what closed them.",
    ),
    metric(BATCH_RECORDS, Kind::Histogram, Unit::Count, &[], "Records in a closed batch."),
    metric(BATCH_BYTES, Kind::Histogram, Unit::Bytes, &[], "Payload bytes in a closed batch."),
    metric(BATCH_TOKENS, Kind::Histogram, Unit::Count, &[], "Tokens in a closed batch."),
    metric(
        BATCH_LIMIT,
        Kind::Gauge,
        Unit::Count,
        &[],
        "Tokens that close a batch: configured, learned, or what fits the device.",
    ),
    metric(STAGE, Kind::Histogram, Unit::Seconds, &["stage"], "Time of a batch in a stage."),
    metric(
        AGE,
        Kind::Histogram,
        Unit::Seconds,
        &[],
        "From a record's timestamp to the commit of its outcome.",
    ),
    metric(
        DEAD_LETTERS,
        Kind::Counter,
        Unit::Count,
        &["class"],
        "Dead letters committed, by class.",
    ),
    metric(
        TRANSACTIONS,
        Kind::Counter,
        Unit::Count,
        &["outcome"],
        "Transactions, by how they ended.",
    ),
    metric(
        CACHE_HITS,
        Kind::Counter,
        Unit::Count,
        &[],
        "Records answered by what an equal one was answered before.",
    ),
    metric(
        TRUNCATED,
        Kind::Counter,
        Unit::Count,
        &[],
        "Predictions for a part of their text, which is longer than the model takes.",
    ),
    metric(
        CLEANED,
        Kind::Counter,
        Unit::Count,
        &["field", "rule"],
        "Values that input.clean or the model's own rules replaced or rejected, each time a record was prepared.",
    ),
    metric(REBALANCES, Kind::Counter, Unit::Count, &[], "Changes of the assignment."),
    metric(PARTITIONS, Kind::Gauge, Unit::Count, &[], "Partitions assigned."),
    metric(
        MODEL_INFO,
        Kind::Gauge,
        Unit::Count,
        &["model", "version", "digest"],
        "1 for the version that serves.",
    ),
    metric(
        MODEL_LOAD,
        Kind::Histogram,
        Unit::Seconds,
        &[],
        "Time to load, check and warm a version.",
    ),
    metric(
        GATE,
        Kind::Histogram,
        Unit::Seconds,
        &["step"],
        "Time of a version in a step of the gate, passed or refused.",
    ),
    metric(MODEL_SWAPS, Kind::Counter, Unit::Count, &["result"], "Swaps, by result."),
    metric(
        MODEL_MEMORY,
        Kind::Gauge,
        Unit::Bytes,
        &[],
        "Bytes of the weights of the version that serves.",
    ),
    metric(
        LAG,
        Kind::Gauge,
        Unit::Count,
        &["topic", "partition"],
        "Records between the committed offset and the partition's end (its high watermark); no series while the cluster has not answered for a minute.",
    ),
    metric(
        HELD,
        Kind::Gauge,
        Unit::Count,
        &["topic", "partition"],
        "Those of them that cannot be read: a transaction of a producer that is not ended holds them back.",
    ),
    metric(
        COMMITTED,
        Kind::Gauge,
        Unit::Count,
        &["topic", "partition"],
        "The offset that the group has committed.",
    ),
    metric(
        DRAIN_ETA,
        Kind::Gauge,
        Unit::Seconds,
        &[],
        "Time until no record is left that can be read, as the lag fell in the last minute; -1: never, or not known.",
    ),
    metric(
        SLACK,
        Kind::Gauge,
        Unit::Seconds,
        &[],
        "Time that a job with --deadline has beyond what is left of its work, at its rate so far; below 0: it will not keep up. +Inf without a deadline.",
    ),
    metric(
        UNCOVERED,
        Kind::Gauge,
        Unit::Count,
        &[],
        "Partitions of the input topics that no member of the group reads, as the cluster said last.",
    ),
    metric(
        CONNECTED,
        Kind::Gauge,
        Unit::Count,
        &[],
        "1 while the cluster answers, 0 while it does not.",
    ),
    metric(
        COMMIT_AGE,
        Kind::Gauge,
        Unit::Seconds,
        &["topic", "partition"],
        "Time since records of the partition were committed, or since it is ours; grows while nothing arrives.",
    ),
    metric(
        READY,
        Kind::Gauge,
        Unit::Count,
        &[],
        "1 while `/readyz` says so, 0 while it does not: starting, paused, stopped, or outside of the group.",
    ),
    metric(
        OUTAGE,
        Kind::Gauge,
        Unit::Seconds,
        &[],
        "Time since the cluster stopped answering; 0 while it answers.",
    ),
    metric(
        SCHEMAS,
        Kind::Gauge,
        Unit::Seconds,
        &[],
        "Time for which the schema registry has not said what a record is; 0 while it does, or nobody asks.",
    ),
    metric(RESIDENT, Kind::Gauge, Unit::Bytes, &[], "Resident memory of the process."),
    metric(
        MEMORY_USED,
        Kind::Gauge,
        Unit::Bytes,
        &[],
        "Memory in use, page cache not counted: by the control group, or on the machine where that leaves less.",
    ),
    metric(
        MEMORY_LIMIT,
        Kind::Gauge,
        Unit::Bytes,
        &[],
        "Memory there is: the limit of that control group, or the machine's.",
    ),
    metric(
        STARTED,
        Kind::Gauge,
        Unit::Seconds,
        &[],
        "When the process was started, in seconds since 1970.",
    ),
    metric(CPU, Kind::Counter, Unit::Seconds, &[], "CPU time of the process."),
    metric(
        SPANS,
        Kind::Counter,
        Unit::Count,
        &["result"],
        "Spans of traces: `exported` to the collector; `failed`, it did not answer or refused all; `rejected`, it took the others of their batch; `dropped`, no room in the queue.",
    ),
    metric(
        PUSHES,
        Kind::Counter,
        Unit::Count,
        &["result"],
        "Pushes of all metrics over OTLP: taken by the collector, or not.",
    ),
    metric(
        LINES,
        Kind::Counter,
        Unit::Count,
        &["result"],
        "Lines of the log over OTLP: taken by the collector, not taken by it, or without room in the queue.",
    ),
    metric(
        ADMIN,
        Kind::Counter,
        Unit::Count,
        &["action", "result"],
        "Requests to `/admin`, by action and result; `unknown` is another action, or without a token that is let in.",
    ),
];

/// What `/admin` does; `unknown` asks for something else, or without a token that is let in.
pub const ACTIONS: [&str; 8] =
    ["pause", "resume", "drain", "reload", "promote", "rollback", "log", "unknown"];

pub(super) const RECORDS: &str = "tidemill_records_total";
pub(super) const BATCHES: &str = "tidemill_batches_total";
pub(super) const BATCH_RECORDS: &str = "tidemill_batch_records";
pub(super) const BATCH_BYTES: &str = "tidemill_batch_bytes";
pub(super) const BATCH_TOKENS: &str = "tidemill_batch_tokens";
pub(super) const BATCH_LIMIT: &str = "tidemill_batch_limit_tokens";
pub(super) const STAGE: &str = "tidemill_stage_duration_seconds";
pub(super) const AGE: &str = "tidemill_record_age_seconds";
pub(super) const DEAD_LETTERS: &str = "tidemill_dead_letters_total";
pub(super) const TRANSACTIONS: &str = "tidemill_transactions_total";
pub(super) const CACHE_HITS: &str = "tidemill_cache_hits_total";
pub(super) const TRUNCATED: &str = "tidemill_truncated_total";
pub(super) const CLEANED: &str = "tidemill_cleaned_total";
pub(super) const REBALANCES: &str = "tidemill_rebalances_total";
pub(super) const PARTITIONS: &str = "tidemill_assigned_partitions";
pub(super) const MODEL_INFO: &str = "tidemill_model_info";
pub(super) const MODEL_LOAD: &str = "tidemill_model_load_seconds";
pub(super) const GATE: &str = "tidemill_gate_seconds";
pub(super) const MODEL_SWAPS: &str = "tidemill_model_swaps_total";
pub(super) const MODEL_MEMORY: &str = "tidemill_model_memory_bytes";
pub(super) const LAG: &str = "tidemill_consumer_lag_records";
pub(super) const HELD: &str = "tidemill_held_back_records";
pub(super) const COMMITTED: &str = "tidemill_committed_offset";
pub(super) const READY: &str = "tidemill_ready";
pub(super) const STARTED: &str = "tidemill_process_start_time_seconds";
pub(super) const DRAIN_ETA: &str = "tidemill_drain_eta_seconds";
pub(super) const SLACK: &str = "tidemill_schedule_slack_seconds";
pub(super) const UNCOVERED: &str = "tidemill_uncovered_partitions";
pub(super) const CONNECTED: &str = "tidemill_kafka_connected";
pub(super) const COMMIT_AGE: &str = "tidemill_last_commit_age_seconds";
pub(super) const OUTAGE: &str = "tidemill_kafka_outage_seconds";
pub(super) const SCHEMAS: &str = "tidemill_schema_registry_outage_seconds";
pub(super) const MEMORY_USED: &str = "tidemill_memory_used_bytes";
pub(super) const MEMORY_LIMIT: &str = "tidemill_memory_limit_bytes";
pub(super) const CPU: &str = "tidemill_process_cpu_seconds_total";
pub(super) const SPANS: &str = "tidemill_trace_spans_total";
pub(super) const PUSHES: &str = "tidemill_metric_pushes_total";
pub(super) const LINES: &str = "tidemill_log_lines_pushed_total";
pub(super) const RESIDENT: &str = "tidemill_process_resident_memory_bytes";
pub(super) const ADMIN: &str = "tidemill_admin_actions_total";

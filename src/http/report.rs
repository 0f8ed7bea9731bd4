//! `/api/status`: how the service is, as JSON. Everything on the page is from here.
//!
//! What each field says stands in [`FIELDS`], which README shows. The answer is bounded, whatever runs for however long:
//! an hour in 360 steps, the [`PARTITIONS`] that are furthest behind, the newest few of each event, texts cut.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::about::{About, BUILD, Build};
use crate::memory;
use crate::record::{FaultClass, ModelId, Reason};
use crate::status::history::{Hour, MINUTE, STAGES, STEP, Told};
use crate::status::{Doing, Drain, Status, wall_clock_ms};

mod fields;
mod sentence;

pub use fields::{FIELDS, Field};

/// Partitions that are told one by one.
pub const PARTITIONS: usize = 32;

/// Longest text of a reason, in characters.
const LONGEST: usize = 500;

/// How long "now" is, for a rate: six whole steps.
const RECENT: usize = 6;

/// How the service is.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What it does now, in one sentence.
    pub sentence: String,
    /// `starting`, `running`, `paused`, `stopping` or `stopped`.
    pub state: &'static str,
    /// Whether that is as it should be.
    pub health: Health,
    /// What it does, in numbers.
    pub now: Now,
    /// The last hour.
    pub hour: Past,
    /// Partitions that are ours.
    pub partitions: Vec<OnePartition>,
    /// How many more are ours.
    pub partitions_left_out: usize,
    /// How batches were.
    pub batches: Batches,
    /// Where their time went.
    pub stages: Vec<OneStage>,
    /// Versions.
    pub models: Models,
    /// Records that could not be answered.
    pub dead_letters: DeadLetters,
    /// The process.
    pub process: Process,
    /// The configuration in force, without secrets.
    pub config: Value,
}

/// Whether all is as it should be.
#[derive(Debug, Clone, Serialize)]
pub struct Health {
    /// As `/readyz` says it.
    pub ready: bool,
    /// Why it is not ready.
    pub reasons: Vec<String>,
    /// What a person should look at, though it is ready.
    pub warnings: Vec<String>,
}

/// Numbers of the last minute, and of now.
#[derive(Debug, Clone, Serialize)]
pub struct Now {
    /// Records with an outcome a second, in the last minute.
    pub records_per_s: f64,
    /// Offsets between what is committed and the ends; `None` where none is ours, or that is not known.
    pub lag: Option<i64>,
    /// Those of them that cannot be read: a producer's transaction that is not ended holds them back.
    pub held_back: i64,
    /// Whether the lag falls: `yes`, `no`, or `unknown`.
    pub drains: &'static str,
    /// Seconds until nothing is left that can be read, what flows in counted; `None` where that is not known, or never.
    pub drain_s: Option<f64>,
    /// Partitions that are ours; `None` before the first assignment.
    pub partitions: Option<usize>,
    /// Since records were committed last, or since the start.
    pub last_commit_age_s: f64,
    /// Whether any were committed since the start.
    pub has_committed: bool,
    /// The longest that a partition's records have waited, none of them committed since.
    pub waited_s: f64,
    /// Since when the model has had a batch for long; `None` while its answers come soon.
    pub in_model_s: Option<f64>,
    /// The records of that batch.
    pub in_model_records: Option<usize>,
}

/// The last hour in steps, the oldest first; the last one is not over yet.
#[derive(Debug, Clone, Serialize)]
pub struct Past {
    /// What a step lasts.
    pub step_s: u64,
    /// Records with an outcome, dead letters among them.
    pub records: Vec<u64>,
    /// Dead letters.
    pub dead_letters: Vec<u64>,
    /// Offsets behind.
    pub lag: Vec<Option<i64>>,
}

/// A partition that is ours.
#[derive(Debug, Clone, Serialize)]
pub struct OnePartition {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// Offsets behind.
    pub lag: Option<i64>,
    /// Those of them that cannot be read.
    pub held_back: i64,
    /// Since when a producer's transaction holds them back at the same place; `None` where none does.
    pub held_back_s: Option<f64>,
    /// The offset where that transaction begins.
    pub held_back_at: Option<i64>,
    /// Since something of it was committed last, or since it is ours.
    pub last_commit_age_s: f64,
    /// Whether something of it was committed since it is ours.
    pub has_committed: bool,
    /// How long records have waited that can be read, none of them committed since.
    pub waited_s: f64,
    /// Records with an outcome in each minute of the last hour.
    pub records: Vec<u64>,
    /// Offsets behind in each.
    pub lags: Vec<Option<i64>>,
}

/// How the batches of the last hour were.
#[derive(Debug, Clone, Serialize)]
pub struct Batches {
    /// How many were committed.
    pub count: u64,
    /// Records of one, on average.
    pub records: f64,
    /// Tokens.
    pub tokens: f64,
    /// Payload bytes.
    pub bytes: f64,
    /// The share of records that were answered from the cache.
    pub cached: f64,
    /// Why they were closed.
    pub reasons: Vec<Count>,
}

/// So many of a kind.
#[derive(Debug, Clone, Serialize)]
pub struct Count {
    /// The kind.
    pub name: &'static str,
    /// How many.
    pub count: u64,
}

/// Where the time of the last hour's batches went.
#[derive(Debug, Clone, Serialize)]
pub struct OneStage {
    /// `decode`, `wait`, `infer`, `encode` or `commit`.
    pub stage: &'static str,
    /// A batch's time in it, on average.
    pub mean_s: f64,
    /// Its share of all stages.
    pub share: f64,
}

/// Which version answers, and which ones did or were to.
#[derive(Debug, Clone, Serialize)]
pub struct Models {
    /// The version that serves.
    pub serving: Option<Serving>,
    /// A version that passed the gate and is taken with the next batch.
    pub staged: Option<u64>,
    /// The version that the registry names and that was refused.
    pub refused: Option<Refused>,
    /// The last swaps, the newest first.
    pub swaps: Vec<Swapped>,
    /// The last refusals, the newest first.
    pub refusals: Vec<Refused>,
}

/// A version.
#[derive(Debug, Clone, Serialize)]
pub struct Serving {
    /// The model.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Of its files.
    pub digest: String,
}

/// One version in the place of another.
#[derive(Debug, Clone, Serialize)]
pub struct Swapped {
    /// When, in ms since 1970.
    pub at: i64,
    /// The version before.
    pub from: u64,
    /// The version since.
    pub to: u64,
}

/// A version that did not pass the gate.
#[derive(Debug, Clone, Serialize)]
pub struct Refused {
    /// When it was tried last, in ms since 1970.
    pub at: i64,
    /// The version.
    pub version: u64,
    /// Whether the registry still names it and it is still refused.
    pub holds: bool,
    /// Why.
    pub reason: String,
}

/// Records that could not be answered.
#[derive(Debug, Clone, Serialize)]
pub struct DeadLetters {
    /// Of the last hour, by class; those that there were.
    pub classes: Vec<Count>,
    /// The last ones, the newest first.
    pub last: Vec<DeadLetter>,
}

/// One of them: never what it holds.
#[derive(Debug, Clone, Serialize)]
pub struct DeadLetter {
    /// When it was committed, in ms since 1970.
    pub at: i64,
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// What kind of thing is wrong with it.
    pub class: &'static str,
    /// One sentence.
    pub reason: String,
}

/// The process.
#[derive(Debug, Clone, Serialize)]
pub struct Process {
    /// What is compiled in.
    #[serde(flatten)]
    pub build: Build,
    /// Its consumer group.
    pub group: String,
    /// When it was started, in ms since 1970.
    pub started: i64,
    /// Now, by its clock.
    pub now: i64,
    /// Since the start.
    pub uptime_s: f64,
    /// Resident memory.
    pub memory_bytes: Option<u64>,
    /// Memory in use of its control group, page cache not counted, or of the machine where that leaves less.
    pub memory_used_bytes: Option<u64>,
    /// How much there is of that.
    pub memory_limit_bytes: Option<u64>,
}

impl Report {
    /// How it is at `now`.
    pub fn new(about: &About, status: &Status, hour: &Hour, now: Instant) -> Self {
        let reasons = status.unready(now);
        let mut report = Self {
            sentence: String::new(),
            state: state(&status.doing),
            health: Health { ready: reasons.is_empty(), reasons, warnings: Vec::new() },
            now: current(status, hour, now),
            hour: past(hour),
            partitions: hour.partitions.iter().map(|told| partition(about, told)).collect(),
            partitions_left_out: hour.more,
            batches: batches(hour),
            stages: stages(hour),
            models: models(status),
            dead_letters: dead_letters(status, hour),
            process: process(about, hour),
            config: about.config.clone(),
        };
        report.sentence = sentence::of(&report, about, status, now);
        report.health.warnings = sentence::warnings(&report, about, status, now);
        report
    }
}

fn state(doing: &Doing) -> &'static str {
    match doing {
        Doing::Starting => "starting",
        Doing::Running => "running",
        Doing::Paused => "paused",
        Doing::Stopping => "stopping",
        Doing::Stopped(_) => "stopped",
    }
}

/// Records of the last whole steps and of the one that is now, a second, from the first step on that has some.
fn rate(hour: &Hour) -> f64 {
    let recent = &hour.steps[hour.steps.len().saturating_sub(RECENT + 1)..];
    // Before the first record there was nothing to do.
    let begin = recent.iter().position(|step| step.records != 0).unwrap_or(0);
    let recent = recent[begin..].iter();
    let (records, steps) = recent.fold((0, 0_u32), |(n, s), step| (n + step.records, s + 1));
    let whole = STEP * steps.saturating_sub(1);
    let seconds = (whole + hour.part).as_secs_f64();
    if seconds < 1.0 { 0.0 } else { short(float(records) / seconds) }
}

fn current(status: &Status, hour: &Hour, now: Instant) -> Now {
    let (drains, drain_s) = match status.drain {
        None => ("unknown", None),
        Some(Drain::Never | Drain::Grows) => ("no", None),
        Some(Drain::In(time)) => ("yes", Some(seconds(time))),
    };
    Now {
        records_per_s: rate(hour),
        lag: status.lag,
        held_back: status.held,
        drains,
        drain_s,
        partitions: status.assigned,
        last_commit_age_s: seconds(hour.quiet),
        has_committed: hour.has_committed,
        waited_s: seconds(hour.waited),
        in_model_s: status.in_model.map(|long| seconds(now.saturating_duration_since(long.since))),
        in_model_records: status.in_model.map(|long| long.rows),
    }
}

fn past(hour: &Hour) -> Past {
    Past {
        step_s: STEP.as_secs(),
        records: hour.steps.iter().map(|step| step.records).collect(),
        dead_letters: hour.steps.iter().map(|step| step.dead_letters).collect(),
        lag: hour.lags.clone(),
    }
}

fn partition(about: &About, told: &Told) -> OnePartition {
    let topic = about.topics.get(usize::from(told.partition.topic));
    OnePartition {
        topic: topic.cloned().unwrap_or_default(),
        partition: told.partition.number,
        lag: told.lag,
        held_back: told.held.map_or(0, |held| held.records),
        held_back_s: told.held.map(|held| seconds(held.time)),
        held_back_at: told.held.map(|held| held.place.0),
        last_commit_age_s: seconds(told.quiet),
        has_committed: told.has_committed,
        waited_s: seconds(told.waited),
        records: told.minutes.iter().map(|minute| minute.records).collect(),
        lags: told.minutes.iter().map(|minute| minute.lag).collect(),
    }
}

fn batches(hour: &Hour) -> Batches {
    let sums = &hour.sums;
    let mean = |sum: u64| short(float(sum) / float(sums.batches.max(1)));
    let reasons = Reason::ALL.iter().zip(sums.reasons);
    Batches {
        count: sums.batches,
        records: mean(sums.batched),
        tokens: mean(sums.tokens),
        bytes: mean(sums.bytes),
        cached: short(float(sums.cached) / float(sums.batched.max(1))),
        reasons: counts(reasons.map(|(reason, count)| (reason.name(), count))),
    }
}

/// Those that there are, most first.
fn counts(all: impl Iterator<Item = (&'static str, u64)>) -> Vec<Count> {
    let some = all.filter(|(_, count)| *count != 0);
    let mut counts: Vec<Count> = some.map(|(name, count)| Count { name, count }).collect();
    counts.sort_by_key(|one| std::cmp::Reverse(one.count));
    counts
}

fn stages(hour: &Hour) -> Vec<OneStage> {
    let all: Duration = hour.sums.stages.iter().sum();
    let batches = float(hour.sums.batches.max(1));
    let of = |(stage, took): (&'static str, Duration)| OneStage {
        stage,
        mean_s: micro(took.as_secs_f64() / batches),
        share: short(took.as_secs_f64() / all.as_secs_f64().max(f64::MIN_POSITIVE)),
    };
    STAGES.into_iter().zip(hour.sums.stages).map(of).collect()
}

fn models(status: &Status) -> Models {
    let serving = |id: &ModelId| Serving {
        name: id.name.to_string(),
        version: id.version.0,
        digest: id.digest.to_string(),
    };
    let refused = |refusal: &crate::status::Refusal| Refused {
        at: refusal.at,
        version: refusal.version.0,
        holds: status.refused.as_ref() == Some(refusal),
        reason: cut(&refusal.reason),
    };
    let swaps = status.swaps.iter().rev();
    Models {
        serving: status.serving.as_ref().map(serving),
        staged: status.staged.as_ref().map(|id| id.version.0),
        refused: status.refused.as_ref().map(refused),
        swaps: swaps
            .map(|swap| Swapped { at: swap.at, from: swap.from.0, to: swap.to.version.0 })
            .collect(),
        refusals: status.refusals.iter().rev().map(refused).collect(),
    }
}

fn dead_letters(status: &Status, hour: &Hour) -> DeadLetters {
    let classes = FaultClass::ALL.iter().zip(hour.sums.classes);
    let last = status.dead_letters.iter().rev().map(|letter| DeadLetter {
        at: letter.at,
        topic: letter.topic.clone(),
        partition: letter.partition.number,
        offset: letter.offset.0,
        class: letter.class.name(),
        reason: cut(&letter.reason),
    });
    DeadLetters {
        classes: counts(classes.map(|(class, count)| (class.name(), count))),
        last: last.collect(),
    }
}

fn process(about: &About, hour: &Hour) -> Process {
    let (used, limit) = memory::usage().unzip();
    Process {
        build: BUILD,
        group: about.group.clone(),
        started: about.started,
        now: wall_clock_ms(),
        uptime_s: seconds(hour.up),
        memory_bytes: memory::resident("self"),
        memory_used_bytes: used,
        memory_limit_bytes: limit,
    }
}

/// The beginning of a text.
fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn seconds(time: Duration) -> f64 {
    short(time.as_secs_f64())
}

/// With three digits after the point: more say nothing, and cost bytes.
fn short(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

fn micro(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "what is shown stays below 2^52")]
fn float(number: u64) -> f64 {
    number as f64
}

/// A partition whose records wait, and of which nothing was committed for so long, does not move.
const STUCK: Duration = MINUTE;

#[cfg(test)]
mod tests;

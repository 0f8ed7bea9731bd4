//! What the service does, in one sentence, and what a person should look at.

use std::time::{Duration, Instant};

use super::{About, OnePartition, Report, STUCK};
use crate::memory::mebibytes;
use crate::printable::{counted, rate, thousands};
use crate::status::{Doing, Drain, InModel, Refused, Status};

/// A rate over the last minute says nothing of now where so long nothing was committed.
pub(super) const QUIET: Duration = Duration::from_secs(15);

/// So much of a memory limit is near it.
const NEAR: f64 = 0.9;

/// So long after a start it is told how the process before ended.
const YOUNG: Duration = Duration::from_secs(3_600);

/// From this share of dead letters on, in the last hour, they are worth a look.
const MANY: f64 = 0.01;

/// Steps between which lag is compared: five minutes.
const BEFORE: usize = 30;

/// What it does now.
pub(super) fn of(report: &Report, about: &About, status: &Status, now: Instant) -> String {
    let topics = topics(about);
    let model = report.models.serving.as_ref();
    let model = model.map(|model| format!("{} version {}", model.name, model.version));
    let since = |since: Instant| span(now.saturating_duration_since(since).as_secs_f64());
    match (&status.doing, model, report.now.partitions, status.unreachable) {
        (Doing::Stopped(why), ..) => format!("Does nothing any more: {why}"),
        (Doing::Stopping, ..) => "Stopping: what was begun is finished and committed.".to_owned(),
        (Doing::Paused, ..) => {
            let waits = report.now.lag.filter(|lag| 0 < *lag);
            let waits = waits
                .map_or_else(String::new, |lag| format!("; {}", counted(lag, "waits", "wait")));
            format!("Paused: nothing is taken in from {topics} until it is resumed{waits}.")
        }
        (_, Some(model), _, Some(away)) => match &status.unwelcome {
            Some(refused) => format!(
                "Waiting for the cluster: {}, for {} now; {model} is ready.",
                refused.what,
                since(away)
            ),
            None => format!(
                "Waiting for the cluster, which has not answered for {}; {model} is ready.",
                since(away)
            ),
        },
        (_, Some(model), ..) if status.outside.is_some() => format!(
            "Stands aside: {}; {model} is ready.",
            status.outside.as_deref().unwrap_or_default()
        ),
        (_, None, ..) => "Starting: the model is loaded and checked.".to_owned(),
        (_, Some(model), None, None) => match status.opening {
            Some(opening) => format!(
                "Starting: {model} is ready; waits for a first answer of {}, for {} so far.",
                about.log,
                since(opening)
            ),
            None => {
                format!("Starting: {model} is ready, the group has not assigned partitions yet.")
            }
        },
        (_, Some(model), Some(0), None) => format!(
            "Standing by with {model}: other members of group {} have all partitions of {topics}.",
            about.group
        ),
        (_, Some(model), Some(_), None) if status.schemas.is_some() => {
            let away = status.schemas.as_ref().map_or(now, |(since, _)| *since);
            format!(
                "Waiting for the schema registry, which has not said for {} what a record of {topics} is; {model} is ready.",
                since(away)
            )
        }
        (_, Some(model), Some(_), None) => works(report, status, now, &topics, &model),
    }
}

fn topics(about: &About) -> String {
    match about.topics.as_slice() {
        [one] => one.clone(),
        [first, second] => format!("{first} and {second}"),
        [first, rest @ ..] => format!("{first} and {} other topics", rest.len()),
        [] => "no topic".to_owned(),
    }
}

/// What it does that has partitions and a cluster.
fn works(report: &Report, status: &Status, now: Instant, topics: &str, model: &str) -> String {
    let super::Now {
        records_per_s: a_second,
        lag,
        held_back: held,
        last_commit_age_s,
        waited_s,
        ..
    } = report.now;
    let next = report
        .models
        .staged
        .map(|version| format!("version {version} is ready and is taken with the next batch"));
    if 0.0 < a_second && last_commit_age_s < QUIET.as_secs_f64() {
        let rate = rounded(a_second);
        return format!(
            "Answers {rate} records a second of {topics} with {model}, {}.",
            behind(report, status.drain)
        );
    }
    if let Some(long) = &status.in_model {
        return format!(
            "A batch of {} of {topics} has been in {model} for {}; nothing was committed meanwhile.",
            counted(long.rows, "record", "records"),
            span(now.saturating_duration_since(long.since).as_secs_f64())
        );
    }
    match lag.map(|lag| lag - held) {
        None => format!(
            "Ready: {model} waits for records of {topics}; how far behind it is is not known yet."
        ),
        Some(readable) if 0 < readable => {
            let (one, more) =
                (format!("record of {topics} waits"), format!("records of {topics} wait"));
            let waiting = counted(readable, &one, &more);
            if waited_s < QUIET.as_secs_f64() {
                return format!("Begins: {waiting} for {model}.");
            }
            format!("Nothing was committed for {}, and {waiting} for {model}.", span(waited_s))
        }
        Some(_) if 0 < held => format!(
            "Waits for producers: {} behind a transaction that is not ended; all before it is answered.",
            counted(
                held,
                &format!("record of {topics} stands"),
                &format!("records of {topics} stand")
            )
        ),
        Some(_) => {
            let next = next.unwrap_or_else(|| format!("{model} waits for more"));
            // Of a topic's partitions others may be behind that are not ours.
            let own = match report.now.partitions {
                Some(partitions @ 2..) => format!("its {partitions} partitions"),
                _ => "its partition".to_owned(),
            };
            format!("Idle: everything in {own} of {topics} is answered; {next}.")
        }
    }
}

fn behind(report: &Report, drain: Option<Drain>) -> String {
    let Some(lag) = report.now.lag else { return "how far behind is not known yet".to_owned() };
    let held = report.now.held_back;
    let held_back = if held == 0 {
        String::new()
    } else {
        let held = counted(held, "more stands", "more stand");
        format!("; {held} behind a producer's transaction that is not ended")
    };
    let behind = match (lag - held, drain) {
        (..=0, _) => "and is up to date".to_owned(),
        (_, Some(Drain::In(time))) if time.as_secs_f64() < 2.0 => "and keeps up".to_owned(),
        (left, Some(Drain::In(time))) => {
            format!("{} behind ({} at this rate)", count(left), span(time.as_secs_f64()))
        }
        (left, Some(Drain::Never)) => {
            format!("{} behind, which does not drain: as many come in as are answered", count(left))
        }
        (left, Some(Drain::Grows)) => {
            format!("{} behind, and falls behind: more come in than are answered", count(left))
        }
        (left, None) => format!("{} behind", count(left)),
    };
    behind + &held_back
}

/// What to look at, in plain words, the worst first.
pub(super) fn warnings(
    report: &Report,
    about: &About,
    status: &Status,
    now: Instant,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |warning: Option<String>| warnings.extend(warning);
    warn(away(about, status, now));
    warn(status.schemas.as_ref().map(|(since, why)| {
        format!(
            "Nothing is read for {}, and nothing is lost: {}. Start the schema registry, or look at schema_registry and the \
             network.",
            span(now.saturating_duration_since(*since).as_secs_f64()),
            super::cut(why)
        )
    }));
    warn(
        status
            .missing
            .as_ref()
            .map(|missing| format!("Nothing can be committed, and nothing is lost: {missing}.")),
    );
    warn(memory(report));
    warn(status.in_model.as_ref().and_then(|long| long_in_model(long, report, now)));
    let young = report.process.uptime_s < YOUNG.as_secs_f64();
    warn(status.last_life.filter(|_| young).map(|how| format!("{how}.")));
    for stuck in report.partitions.iter().filter(|one| is_stuck(one, report)) {
        let OnePartition { topic, partition, lag, held_back, waited_s: age, .. } = stuck;
        warn(Some(format!(
            "{topic}/{partition} does not move: {}, and nothing of it was committed for {}. {}",
            counted(lag.unwrap_or(0) - held_back, "record waits", "records wait"),
            span(*age),
            match status.in_model {
                Some(_) =>
                    "A batch has been in the model for so long: where that is only slow, lower batch.max_records.",
                None => "The log's last warning says what it waits for.",
            }
        )));
    }
    report.partitions.iter().for_each(|one| warn(held(one, about)));
    let uncovered = status.uncovered;
    warn((uncovered != 0).then(|| {
        let uncovered = counted(uncovered,
            "partition of the input topics is",
            "partitions of the input topics are",
        );
        format!(
            "{uncovered} read by no member of the group: start those replicas again that stopped, or more."
        )
    }));
    warn(growing(report));
    let goes_on = report.models.serving.as_ref();
    let goes_on = goes_on.map_or_else(String::new, |s| format!("; version {} goes on", s.version));
    warn(report.models.refused.as_ref().map(|refused| {
        format!("Version {} is refused{goes_on}: {}", refused.version, refused.reason)
    }));
    warn(status.registry.as_ref().map(|why| {
        format!("The registry names no version that is there{goes_on}: {}", super::cut(why))
    }));
    warn(lacking(&status.lacking));
    warn(dead(report));
    warnings
}

/// The cluster does not answer, or it does and will not have new connections of ours.
fn away(about: &About, status: &Status, now: Instant) -> Option<String> {
    if let Some(Refused { what, remedy, said }) = &status.unwelcome {
        let said = super::cut(said);
        return Some(format!("{}: {what}; {remedy}. The client said: {said}", about.log));
    }
    let away = now.saturating_duration_since(status.unreachable?);
    Some(format!(
        "No broker of {} has answered for {}: look at the cluster and the network.",
        about.log,
        span(away.as_secs_f64())
    ))
}

/// A batch that has used up half of the time that a batch may take.
fn long_in_model(long: &InModel, report: &Report, now: Instant) -> Option<String> {
    let InModel { since, rows, limit } = long;
    let time = now.saturating_duration_since(*since);
    let model = report.models.serving.as_ref().map_or("the model", |model| &model.name);
    (*limit / 2 <= time).then(|| {
        format!(
            "A batch of {} has been in {model} for {}. After limits.inference, {}, this process ends, and the next one runs these \
             records by themselves. Where the model is only slow, lower batch.max_records or raise limits.inference.",
            counted(*rows, "record", "records"),
            span(time.as_secs_f64()),
            span(limit.as_secs_f64())
        )
    })
}

/// A transaction of a producer that holds records back for long: none of our doing, and none that we can end.
fn held(one: &OnePartition, about: &About) -> Option<String> {
    let (time, place) = one.held_back_s.zip(one.held_back_at)?;
    let OnePartition { topic, partition, held_back, .. } = one;
    (STUCK.as_secs_f64() < time).then(|| {
        format!(
            "{topic}/{partition}: {} not been readable for {}, because a producer's transaction that begins at offset \
             {place} is not ended. Where that producer is gone: kafka-transactions.sh --bootstrap-server {} abort --topic \
             {topic} --partition {partition} --start-offset {place}",
            counted(*held_back, "record has", "records have"),
            span(time),
            about.log
        )
    })
}

fn is_stuck(one: &OnePartition, report: &Report) -> bool {
    report.state == "running"
        && one.lag.is_some_and(|lag| one.held_back < lag)
        && STUCK.as_secs_f64() < one.waited_s
}

fn memory(report: &Report) -> Option<String> {
    let (used, limit) = (report.process.memory_used_bytes?, report.process.memory_limit_bytes?);
    let own = report.process.memory_bytes?;
    (NEAR < super::float(used) / super::float(limit.max(1))).then(|| {
        format!(
            "Memory is near its limit: {} of {} are in use; this process has {}, what it shares counted. Raise the limit, or \
             lower limits.memory or batch.max_records.",
            mebibytes(used),
            mebibytes(limit),
            mebibytes(own)
        )
    })
}

/// Lag that has grown over five minutes by more than what a minute commits.
fn growing(report: &Report) -> Option<String> {
    let lag = &report.hour.lag;
    let now = (*lag.last()?)?;
    let before = (*lag.get(lag.len().checked_sub(1 + BEFORE)?)?)?;
    // What cannot be read is another's to end.
    let grown = now.saturating_sub(before).saturating_sub(report.now.held_back);
    // Records wait for what is slow: waiting itself is no cause.
    let working = report.stages.iter().filter(|stage| stage.stage != "wait");
    let most = working.max_by(|a, b| a.share.total_cmp(&b.share))?;
    let minute = report.now.records_per_s * 60.0;
    let much = minute < super::float(u64::try_from(grown).unwrap_or(0));
    (0 < grown && much).then(|| {
        format!(
            "Falls behind: lag has grown by {} in five minutes. Of what is done with a batch, {} takes most ({:.0} % of its time).",
            count(grown),
            most.stage,
            most.share * 100.0
        )
    })
}

/// What the last records lack, as a sentence of its own.
fn lacking(lacking: &str) -> Option<String> {
    let mut rest = lacking.chars();
    rest.next().map(|first| first.to_uppercase().chain(rest).collect())
}

fn dead(report: &Report) -> Option<String> {
    let dead: u64 = report.hour.dead_letters.iter().sum();
    let all: u64 = report.hour.records.iter().sum();
    let share = super::float(dead) / super::float(all.max(1));
    let most = report.dead_letters.classes.first()?;
    (MANY <= share).then(|| {
        format!(
            "{:.1} % of the last hour's records are dead letters, most of class {}. `tidemill dlq list` and `dlq show` have the reasons.",
            share * 100.0,
            most.name
        )
    })
}

fn count(number: i64) -> String {
    thousands(u64::try_from(number).unwrap_or(0))
}

/// Below ten with its digit, also where that is 0: it is no count.
fn rounded(a_second: f64) -> String {
    if (0.05..10.0).contains(&a_second) { format!("{a_second:.1}") } else { rate(a_second) }
}

/// A time as people say it.
fn span(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5_400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

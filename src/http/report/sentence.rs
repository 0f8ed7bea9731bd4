//! What the service does, in one sentence, and what a person should look at.

use std::time::Duration;

use super::{About, OnePartition, Report, STUCK};
use crate::memory::mebibytes;
use crate::printable::thousands;
use crate::status::Doing;

/// So much of a memory limit is near it.
const NEAR: f64 = 0.9;

/// From this share of dead letters on, in the last hour, they are worth a look.
const MANY: f64 = 0.01;

/// Steps between which lag is compared: five minutes.
const BEFORE: usize = 30;

/// What it does now.
pub(super) fn of(report: &Report, about: &About, doing: &Doing, away: Option<Duration>) -> String {
    let topics = match about.topics.as_slice() {
        [one] => one.clone(),
        [first, second] => format!("{first} and {second}"),
        [first, rest @ ..] => format!("{first} and {} other topics", rest.len()),
        [] => "no topic".to_owned(),
    };
    let model = report.models.serving.as_ref();
    let model = model.map(|model| format!("{} version {}", model.name, model.version));
    let (rate, lag) = (report.now.records_per_s, report.now.lag);
    match (doing, &model, report.now.partitions, away) {
        (Doing::Stopped(why), ..) => format!("Does nothing any more: {why}"),
        (Doing::Stopping, ..) => "Stopping: what was begun is finished and committed.".to_owned(),
        (Doing::Paused, ..) => {
            format!("Paused: nothing is taken in from {topics} until it is resumed.")
        }
        (_, Some(model), _, Some(away)) => format!(
            "Waiting for the cluster, which has not answered for {}; {model} is ready.",
            span(away.as_secs_f64())
        ),
        (_, None, ..) => "Starting: the model is loaded and checked.".to_owned(),
        (_, Some(model), None, None) => {
            format!("Starting: {model} is ready, the group has not assigned partitions yet.")
        }
        (_, Some(model), Some(0), None) => format!(
            "Standing by with {model}: other members of group {} have all partitions of {topics}.",
            about.group
        ),
        (_, Some(model), Some(_), None) => match lag {
            lag if 0.0 < rate => {
                let rate = rounded(rate);
                format!(
                    "Answers {rate} records a second of {topics} with {model}, {}.",
                    behind(report, lag)
                )
            }
            Some(lag) if 0 < lag => format!(
                "Nothing was committed for {}, and {} records of {topics} wait for {model}.",
                span(report.now.last_commit_age_s),
                count(lag)
            ),
            _ => format!("Idle: all of {topics} is answered; {model} waits for more."),
        },
    }
}

fn behind(report: &Report, lag: Option<i64>) -> String {
    match lag {
        None => "how far behind is not known yet".to_owned(),
        Some(0) => "and is up to date".to_owned(),
        Some(_) if report.now.drain_s.is_some_and(|left| left < 2.0) => "and keeps up".to_owned(),
        Some(lag) => {
            let drain = report
                .now
                .drain_s
                .map_or_else(String::new, |s| format!(" ({} at this rate)", span(s)));
            format!("{} behind{drain}", count(lag))
        }
    }
}

/// What to look at, in plain words, the worst first.
pub(super) fn warnings(report: &Report, away: Option<Duration>, uncovered: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |warning: Option<String>| warnings.extend(warning);
    warn(away.map(|away| {
        format!(
            "No broker has answered for {}: look at the cluster and the network.",
            span(away.as_secs_f64())
        )
    }));
    warn(memory(report));
    for stuck in report.partitions.iter().filter(|one| is_stuck(one, report)) {
        let OnePartition { topic, partition, lag, last_commit_age_s: age, .. } = stuck;
        warn(Some(format!(
            "{topic}/{partition} does not move: {} records wait, and nothing of it was committed for {}.",
            count(lag.unwrap_or(0)),
            span(*age)
        )));
    }
    warn((uncovered != 0).then(|| {
        format!("{uncovered} partitions of the input topics are read by no member of the group.")
    }));
    warn(growing(report));
    warn(report.models.refused.as_ref().map(|refused| {
        let goes_on = report.models.serving.as_ref();
        let goes_on =
            goes_on.map_or_else(String::new, |s| format!("; version {} goes on", s.version));
        format!("Version {} is refused{goes_on}: {}", refused.version, refused.reason)
    }));
    warn(dead(report));
    warnings
}

fn is_stuck(one: &OnePartition, report: &Report) -> bool {
    report.state == "running"
        && one.lag.is_some_and(|lag| 0 < lag)
        && STUCK.as_secs_f64() < one.last_commit_age_s
}

fn memory(report: &Report) -> Option<String> {
    let (used, limit) = (report.process.memory_bytes?, report.process.memory_limit_bytes?);
    (NEAR < super::float(used) / super::float(limit.max(1)))
        .then(|| format!("Memory is near its limit: {} of {}.", mebibytes(used), mebibytes(limit)))
}

/// Lag that has grown over five minutes by more than what a minute commits.
fn growing(report: &Report) -> Option<String> {
    let lag = &report.hour.lag;
    let now = (*lag.last()?)?;
    let before = (*lag.get(lag.len().checked_sub(1 + BEFORE)?)?)?;
    let grown = now.saturating_sub(before);
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

fn dead(report: &Report) -> Option<String> {
    let dead: u64 = report.hour.dead_letters.iter().sum();
    let all: u64 = report.hour.records.iter().sum();
    let share = super::float(dead) / super::float(all.max(1));
    let most = report.dead_letters.classes.first()?;
    (MANY <= share).then(|| {
        format!(
            "{:.1} % of the last hour's records are dead letters, most of class {}.",
            share * 100.0,
            most.name
        )
    })
}

fn count(number: i64) -> String {
    thousands(u64::try_from(number).unwrap_or(0))
}

fn rounded(rate: f64) -> String {
    if rate < 10.0 {
        return format!("{rate:.1}");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate of records is far below 2^64 and never negative"
    )]
    thousands(rate.round() as u64)
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

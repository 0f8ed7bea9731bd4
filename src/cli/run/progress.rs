//! How a bounded run goes on: a line that is written over on a terminal, a line of the log each ten seconds elsewhere,
//! and a summary at its end.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::printable::{counted, rate, thousands};
use crate::status::Board;
use crate::status::history::Total;

/// Between two lines of the log.
const LINE: Duration = Duration::from_secs(10);

/// Between two looks on a terminal.
const LOOK: Duration = Duration::from_millis(500);

/// What is told of a run.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    status: Board,
    start: Instant,
    terminal: bool,
}

impl Progress {
    pub(super) fn new(status: Board) -> Self {
        Self { status, start: now(), terminal: io::stderr().is_terminal() }
    }

    /// Tells it until it is dropped.
    pub(super) async fn tell(self) {
        let mut pace = tokio::time::interval(if self.terminal { LOOK } else { LINE });
        pace.tick().await;
        loop {
            pace.tick().await;
            let status = self.status.now();
            let Total { records, dead_letters } = self.status.total();
            let (seconds, left) =
                (self.start.elapsed().as_secs_f64(), status.lag.unwrap_or(0) - status.held);
            let model =
                status.serving.as_ref().map_or_else(|| "loading".to_owned(), ToString::to_string);
            if self.terminal {
                write(&line(records, dead_letters, left, seconds, &model));
            } else if status.assigned.is_some() {
                tracing::info!(records, dead_letters, left, %model, "progress");
            }
        }
    }

    /// What it did in all.
    pub(super) fn end(&self, done: bool) {
        let Total { records, dead_letters } = self.status.total();
        let took = self.start.elapsed();
        if self.terminal {
            write("");
        }
        let held = self.status.now().held;
        if 0 < held {
            tracing::warn!(
                records = held,
                "records are left that cannot be read yet: a producer has not ended its transaction; a run after its end \
                 answers them, and tidemill lag says where they are"
            );
        }
        let how = if done { "done" } else { "stopped early" };
        tracing::info!(
            records,
            dead_letters,
            ?took,
            "{how}: {}",
            summary(records, dead_letters, took)
        );
    }
}

fn line(records: u64, dead_letters: u64, left: i64, seconds: f64, model: &str) -> String {
    let a_second = per_second(records, seconds);
    let left = u64::try_from(left).unwrap_or(0);
    let dead = if dead_letters == 0 {
        String::new()
    } else {
        format!(" ({})", counted(dead_letters, "dead letter", "dead letters"))
    };
    let to_go = if left == 0 || records == 0 {
        String::new()
    } else {
        format!(", about {} s to go", thousands(seconds_for(left, a_second)))
    };
    format!(
        "{} answered{dead}, {} left here, {} a second{to_go}, {model}",
        thousands(records),
        thousands(left),
        rate(a_second)
    )
}

/// What was done in so long.
pub(in crate::cli) fn summary(records: u64, dead_letters: u64, took: Duration) -> String {
    let a_second = per_second(records, took.as_secs_f64());
    format!(
        "{} answered, {} by a dead letter, in {:.1} s ({} a second)",
        counted(records, "record", "records"),
        thousands(dead_letters),
        took.as_secs_f64(),
        rate(a_second)
    )
}

#[expect(clippy::cast_precision_loss, reason = "a rate that is shown")]
fn per_second(records: u64, seconds: f64) -> f64 {
    records as f64 / seconds.max(0.001)
}

/// Seconds that so many take.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time that is shown"
)]
fn seconds_for(records: u64, a_second: f64) -> u64 {
    (records as f64 / a_second).ceil() as u64
}

/// Writes over the line that stands there. The cursor stays at its beginning: a line of the log takes its place.
fn write(text: &str) {
    // There is no other place to say that this failed.
    io::stderr().lock().write_all(format!("\x1b[2K{text}\r").as_bytes()).unwrap_or_default();
}

#[expect(clippy::disallowed_methods, reason = "how long a run takes is wall time")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_done_and_what_is_left() {
        let said = line(12_000, 0, 3_001, 4.0, "m/2");
        assert_eq!(said, "12,000 answered, 3,001 left here, 3,000 a second, about 2 s to go, m/2");
        let said = line(0, 0, 0, 0.0, "loading");
        assert_eq!(said, "0 answered, 0 left here, 0 a second, loading");
        assert!(line(9, 2, 0, 1.0, "m/2").starts_with("9 answered (2 dead letters), 0 left here"));
        let said = line(2, 0, 3, 10.0, "m/2");
        assert_eq!(said, "2 answered, 3 left here, 0.2 a second, about 15 s to go, m/2");
        let said = summary(12_000, 7, Duration::from_millis(2_500));
        assert_eq!(said, "12,000 records answered, 7 by a dead letter, in 2.5 s (4,800 a second)");
    }
}

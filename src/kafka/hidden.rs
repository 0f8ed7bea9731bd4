//! What was committed and is not yet to be seen.
//!
//! A reader with `isolation.level=read_committed` is given records up to the first one of a transaction that is still open
//! (the last stable offset). A producer that was killed leaves its transaction open until the broker ends it, after
//! `transaction.timeout.ms`, and that holds back what others have committed behind it. A job that says that it is done is
//! taken at its word by the next job, so it waits until readers see what it wrote.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaResult;

use super::native::{self, Which};
use super::shared::Shared;

/// How long the end of a transaction is waited for at a time: markers follow a commit within milliseconds.
const BRIEFLY: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(10);

/// The partitions that outcomes are written to, and up to where readers are to see them.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    /// Those that still hide something, and up to where; `None` before the first look.
    ends: Option<Vec<(String, i32, i64)>>,
}

impl Hidden {
    /// How many partitions hide something of what had been written at the first look; waits a moment for none.
    ///
    /// # Errors
    ///
    /// Where the cluster does not answer within `answer`, or refuses.
    pub(super) fn left(&mut self, shared: &Shared, answer: Duration) -> KafkaResult<usize> {
        let ends = match &mut self.ends {
            Some(ends) => ends,
            none => none.insert(ends(shared, answer)?),
        };
        let deadline = Instant::now() + BRIEFLY;
        loop {
            let stable = list(shared, ends, Which::Stable, answer)?;
            let mut stable = stable.into_iter();
            ends.retain(|(.., end)| stable.next().is_none_or(|stable| stable < *end));
            if ends.is_empty() || deadline <= Instant::now() {
                return Ok(ends.len());
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl std::fmt::Display for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, (topic, number, end)) in self.ends.iter().flatten().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{topic}/{number} below offset {end}")?;
        }
        Ok(())
    }
}

/// The ends of all partitions that are written to, open transactions included.
fn ends(shared: &Shared, answer: Duration) -> KafkaResult<Vec<(String, i32, i64)>> {
    let topics = native::describe_topics(shared.look.client(), &shared.naming.written(), answer)?;
    let mut ends: Vec<_> = topics
        .into_iter()
        .flat_map(|(name, topic)| (0..topic.partitions).map(move |n| (name.clone(), n, 0)))
        .collect();
    let high = list(shared, &ends, Which::High, answer)?;
    for ((.., end), high) in ends.iter_mut().zip(high) {
        *end = high;
    }
    Ok(ends)
}

fn list(
    shared: &Shared,
    partitions: &[(String, i32, i64)],
    which: Which,
    answer: Duration,
) -> KafkaResult<Vec<i64>> {
    let pairs: Vec<_> = partitions.iter().map(|(topic, n, _)| (topic.as_str(), *n)).collect();
    native::list_offsets(shared.look.client(), &pairs, which, answer)
}

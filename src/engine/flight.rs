//! What is under way, and what it is reported with when it ends.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::record::{Buried, Outcome, Version};

/// What an outcome takes beside its bytes.
const FRAME: usize = 96;

/// Rows that the model has.
#[derive(Debug)]
pub(super) struct InModel {
    pub(super) batch: u64,
    pub(super) rows: Range<usize>,
    pub(super) version: Version,
    pub(super) tokens: u64,
    /// Suspects, by themselves.
    pub(super) alone: bool,
    pub(super) since: Instant,
}

/// What a transaction's answer is reported with.
#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) lane: usize,
    /// When the lane was given it.
    pub(super) since: Instant,
    /// Of its records, in ms since 1970.
    timestamps: Vec<i64>,
    pub(super) outcomes: BTreeMap<&'static str, u64>,
    pub(super) classes: BTreeMap<&'static str, u64>,
    /// Version, tokens, and time in the model of each batch.
    pub(super) batches: Vec<(Version, u64, Duration)>,
}

impl Outstanding {
    pub(super) fn new(lane: usize, since: Instant) -> Self {
        Self {
            lane,
            since,
            timestamps: Vec::new(),
            outcomes: BTreeMap::new(),
            classes: BTreeMap::new(),
            batches: Vec::new(),
        }
    }

    pub(super) fn count(&mut self, outcome: &Outcome<Vec<u8>>, timestamp: Option<i64>) {
        self.timestamps.extend(timestamp);
        *self.outcomes.entry(outcome.label()).or_default() += 1;
        if let Outcome::DeadLetter(fault) = outcome {
            *self.classes.entry(fault.class.name()).or_default() += 1;
        }
    }

    /// Predictions became dead letters while they were committed.
    pub(super) fn bury(&mut self, buried: &[Buried]) {
        for (_, _, fault) in buried {
            if let Some(predictions) = self.outcomes.get_mut("prediction") {
                *predictions = predictions.saturating_sub(1);
            }
            *self.outcomes.entry("dead_letter").or_default() += 1;
            *self.classes.entry(fault.class.name()).or_default() += 1;
        }
    }

    /// Its records.
    pub(super) fn records(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// How old the records are at `now`, in seconds. A timestamp is the producer's and may be anything.
    pub(super) fn ages(&self, now: i64) -> impl Iterator<Item = f64> {
        #[expect(clippy::cast_precision_loss, reason = "an age in ms is far below 2^52")]
        self.timestamps.iter().map(move |at| now.saturating_sub(*at).max(0) as f64 / 1e3)
    }
}

/// Bytes of memory that outcomes take.
pub(super) fn memory(outcomes: &[Outcome<Vec<u8>>]) -> u64 {
    let bytes = outcomes.iter().map(|outcome| {
        FRAME
            + match outcome {
                Outcome::Prediction(value) => value.capacity(),
                Outcome::Tombstone => 0,
                Outcome::DeadLetter(fault) => fault.message.capacity(),
            }
    });
    u64::try_from(bytes.sum::<usize>()).unwrap_or(u64::MAX)
}

/// What became of everything that this process has committed.
#[derive(Debug, Default)]
pub(super) struct Tally {
    outcomes: BTreeMap<&'static str, u64>,
    classes: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub(super) fn add(&mut self, outstanding: &Outstanding) {
        for (sums, counts) in
            [(&mut self.outcomes, &outstanding.outcomes), (&mut self.classes, &outstanding.classes)]
        {
            counts.iter().for_each(|(name, count)| *sums.entry(name).or_default() += count);
        }
    }

    /// Says it where it is worth a line: dead letters that nobody has seen yet, or the end of a job.
    pub(super) fn report(&self, job: bool) {
        let dead = self.outcomes.get("dead_letter").copied().unwrap_or(0);
        let good: u64 = self.outcomes.values().sum::<u64>() - dead;
        let classes: Vec<String> =
            self.classes.iter().map(|(class, count)| format!("{class} {count}")).collect();
        let classes = classes.join(", ");
        match (job, dead) {
            // Nobody scrapes the metrics of a job that has ended: this line is where its dead letters are seen.
            (true, 1..) => {
                tracing::warn!("committed {good} predictions and {dead} dead letters ({classes})");
            }
            (false, 1..) => {
                tracing::info!("committed {good} predictions and {dead} dead letters ({classes})");
            }
            (_, 0) => tracing::info!("committed {good} predictions and no dead letters"),
        }
    }
}

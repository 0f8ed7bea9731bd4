//! What became of records: of a transaction's, and of all that were committed.

use std::collections::BTreeMap;

use crate::printable::counted;
use crate::record::{Buried, Outcome, Partition, Record, Written};
use crate::status::KEPT;

/// What an outcome takes beside its bytes.
const FRAME: usize = 96;

/// The outcomes of a transaction.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    /// Of its records, in ms since 1970.
    timestamps: Vec<i64>,
    pub(super) by_label: BTreeMap<&'static str, u64>,
    pub(super) by_class: BTreeMap<&'static str, u64>,
    pub(super) by_partition: BTreeMap<Partition, u64>,
    /// Predictions for a part of their text.
    pub(super) truncated: u64,
    /// The first of its dead letters: a flood is not copied.
    pub(super) dead: Vec<Buried>,
}

impl Outcomes {
    pub(super) fn count(&mut self, outcome: &Outcome<Written>, record: &Record) {
        self.timestamps.extend(record.timestamp);
        *self.by_label.entry(outcome.label()).or_default() += 1;
        *self.by_partition.entry(record.partition).or_default() += 1;
        if let Outcome::Prediction(Written { truncated: Some(_), .. }) = outcome {
            self.truncated += 1;
        }
        if let Outcome::DeadLetter(fault) = outcome {
            *self.by_class.entry(fault.class.name()).or_default() += 1;
            if self.dead.len() < KEPT {
                self.dead.push((record.partition, record.offset, fault.clone()));
            }
        }
    }

    /// Predictions became dead letters while they were committed.
    pub(super) fn bury(&mut self, buried: &[Buried]) {
        for (_, _, fault) in buried {
            if let Some(predictions) = self.by_label.get_mut("prediction") {
                *predictions = predictions.saturating_sub(1);
            }
            *self.by_label.entry("dead_letter").or_default() += 1;
            *self.by_class.entry(fault.class.name()).or_default() += 1;
        }
        let room = KEPT.saturating_sub(self.dead.len());
        self.dead.extend(buried.iter().take(room).cloned());
    }

    /// Its records.
    pub(super) fn records(&self) -> u64 {
        self.by_label.values().sum()
    }

    /// Its dead letters, as far as they are kept, of the partitions that were committed.
    pub(super) fn dead_of<'a>(
        &'a self,
        committed: impl Fn(Partition) -> bool + 'a,
    ) -> impl Iterator<Item = &'a Buried> {
        self.dead.iter().filter(move |(partition, ..)| committed(*partition))
    }

    /// How old the records are at `now`, in seconds. A timestamp is the producer's and may be anything.
    pub(super) fn ages(&self, now: i64) -> impl Iterator<Item = f64> {
        #[expect(clippy::cast_precision_loss, reason = "an age in ms is far below 2^52")]
        self.timestamps.iter().map(move |at| now.saturating_sub(*at).max(0) as f64 / 1e3)
    }
}

/// Bytes of memory that outcomes take.
pub(super) fn memory(outcomes: &[Outcome<Written>]) -> u64 {
    let bytes = outcomes.iter().map(|outcome| {
        FRAME
            + match outcome {
                Outcome::Prediction(Written { value, .. }) => value.capacity(),
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
    pub(super) fn add(&mut self, outcomes: &Outcomes) {
        for (sums, counts) in
            [(&mut self.outcomes, &outcomes.by_label), (&mut self.classes, &outcomes.by_class)]
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
        let good = counted(good, "prediction", "predictions");
        let (count, dead) = (dead, counted(dead, "dead letter", "dead letters"));
        match (job, count) {
            // Nobody scrapes the metrics of a job that has ended: this line is where its dead letters are seen.
            (true, 1..) => {
                tracing::warn!("committed {good} and {dead} ({classes})");
            }
            (false, 1..) => {
                tracing::info!("committed {good} and {dead} ({classes})");
            }
            (_, 0) => tracing::info!("committed {good} and no dead letters"),
        }
    }
}

//! Partitions that are held back: another version answered them last than the one that serves here.
//!
//! ```text
//!  assigned ─┬─ the recorded version serves, or none is known ──────────────► open
//!            └─ another one serves ─► held ─► the registry is asked at once ─► open, when what it names serves
//!                                       └─ for longer than the wait ────────► the process stops
//! ```
//!
//! Two replicas notice that an alias has moved at different times. A partition that goes from the one that did to the
//! one that did not would go back a version. So it is not read until the registry has been asked again: where it names
//! the recorded version, that one is loaded; where it names another, that is a change, and the next manifest of the
//! partition records it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::record::{Epoch, Partition, Version};

/// The partitions that wait.
#[derive(Debug, Default)]
pub(super) struct Held(BTreeMap<Partition, Waiting>);

#[derive(Debug)]
struct Waiting {
    epoch: Epoch,
    recorded: Version,
    since: Instant,
    /// The question to the registry that was asked for it.
    question: u64,
    /// Whether that was answered: what serves, once nothing is staged, is what the registry named or newer.
    settled: bool,
}

impl Held {
    /// Holds a partition back until `question` is answered, or `recorded` serves.
    pub(super) fn hold(
        &mut self,
        (partition, epoch): (Partition, Epoch),
        recorded: Version,
        question: u64,
        since: Instant,
    ) {
        let waiting = Waiting { epoch, recorded, since, question, settled: false };
        self.0.insert(partition, waiting);
    }

    /// Forgets a partition that was taken away.
    pub(super) fn revoke(&mut self, partition: Partition) {
        self.0.remove(&partition);
    }

    /// None of them has waited before `now`.
    pub(super) fn wait_from(&mut self, now: Instant) {
        self.0.values_mut().for_each(|waiting| waiting.since = now);
    }

    /// The registry has answered this question, and with it every earlier one.
    pub(super) fn answered(&mut self, question: u64) {
        let older = self.0.values_mut().filter(|waiting| waiting.question <= question);
        older.for_each(|waiting| waiting.settled = true);
    }

    /// Takes out what may be read now, by the version that serves the partition's lane and whether one is staged.
    pub(super) fn open(
        &mut self,
        lane: impl Fn(Partition) -> (Version, bool),
    ) -> Vec<(Partition, Epoch)> {
        let may = |partition: Partition, waiting: &Waiting| {
            let (serving, staged) = lane(partition);
            serving == waiting.recorded || (waiting.settled && !staged)
        };
        let open: Vec<(Partition, Epoch)> = self
            .0
            .iter()
            .filter(|(partition, waiting)| may(**partition, waiting))
            .map(|(partition, waiting)| (*partition, waiting.epoch))
            .collect();
        open.iter().for_each(|(partition, _)| self.revoke(*partition));
        open
    }

    /// When the first of them has waited too long; `None` while none waits.
    pub(super) fn deadline(&self, wait: Duration) -> Option<Instant> {
        self.0.values().map(|waiting| waiting.since + wait).min()
    }

    /// A partition that has waited too long, with the version that is recorded for it.
    pub(super) fn expired(&self, wait: Duration, now: Instant) -> Option<(Partition, Version)> {
        let late = |waiting: &Waiting| waiting.since + wait <= now;
        let (partition, waiting) = self.0.iter().find(|(_, waiting)| late(waiting))?;
        Some((*partition, waiting.recorded))
    }
}

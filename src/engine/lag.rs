//! How far behind the ends of the partitions the commits are.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::pipeline::arrive::Owned;
use crate::record::{Offset, Partition};

use super::observer::Observer;

/// The newest ends, and what was committed since the last report.
#[derive(Debug)]
pub(super) struct Lag {
    ends: BTreeMap<Partition, Offset>,
    since: Instant,
    records: u64,
}

impl Lag {
    pub(super) fn new(now: Instant) -> Self {
        Self { ends: BTreeMap::new(), since: now, records: 0 }
    }

    /// A partition became ours; its end was seen at `end`.
    pub(super) fn assigned(&mut self, partition: Partition, end: Offset) {
        self.ends.insert(partition, end);
    }

    /// A partition is not ours any more.
    pub(super) fn revoked(&mut self, partition: Partition) {
        self.ends.remove(&partition);
    }

    /// The client's statistics tell the ends of all partitions that it has ever read: only ours are kept.
    pub(super) fn ends(&mut self, ends: BTreeMap<Partition, Offset>) {
        for (partition, end) in ends {
            self.ends.entry(partition).and_modify(|known| *known = end);
        }
    }

    /// So many records were committed.
    pub(super) fn committed(&mut self, records: u64) {
        self.records += records;
    }

    /// Offsets between what is committed and the ends, of all partitions that are ours.
    pub(super) fn left(&self, owned: &Owned) -> i64 {
        let left = |(partition, done): (Partition, Offset)| {
            self.ends.get(&partition).map_or(0, |end| end.0.saturating_sub(done.0).max(0))
        };
        owned.positions().map(left).sum()
    }

    /// Tells the lag of each partition that is ours, and the time until all of them are at 0.
    pub(super) fn report(&mut self, owned: &Owned, observer: &Observer, now: Instant) {
        let of = |(partition, done): (Partition, Offset)| {
            let end = self.ends.get(&partition)?;
            Some((partition, end.0.saturating_sub(done.0).max(0)))
        };
        let lags: Vec<(Partition, i64)> = owned.positions().filter_map(of).collect();
        let total = lags.iter().map(|(_, lag)| lag).sum();
        observer.lag(&lags, total, now);
        let seconds = now.duration_since(std::mem::replace(&mut self.since, now)).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let eta = match (total, std::mem::take(&mut self.records)) {
            (0, _) => 0.0,
            (_, 0) => -1.0,
            (lag, records) => lag as f64 * seconds / records as f64,
        };
        observer.metrics.drain_eta(eta);
    }
}

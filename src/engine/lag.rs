//! How far behind the ends of the partitions the commits are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::pipeline::arrive::Owned;
use crate::record::{Offset, Partition};

use super::observer::Observer;

/// The newest ends, and what was committed since the last report.
#[derive(Debug)]
pub(super) struct Lag {
    ends: BTreeMap<Partition, Offset>,
    /// The ends as they were when a partition became ours: a job has to come no further.
    first: BTreeMap<Partition, Offset>,
    since: Instant,
    records: u64,
    begun: Instant,
    all: u64,
}

impl Lag {
    pub(super) fn new(now: Instant) -> Self {
        let (ends, first) = (BTreeMap::new(), BTreeMap::new());
        Self { ends, first, since: now, records: 0, begun: now, all: 0 }
    }

    /// A partition became ours; its end was seen at `end`.
    pub(super) fn assigned(&mut self, partition: Partition, end: Offset) {
        self.ends.insert(partition, end);
        self.first.insert(partition, end);
    }

    /// A partition is not ours any more.
    pub(super) fn revoked(&mut self, partition: Partition) {
        self.ends.remove(&partition);
        self.first.remove(&partition);
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
        self.all += records;
    }

    /// Offsets between what is committed and the ends, of all partitions that are ours.
    pub(super) fn left(&self, owned: &Owned) -> i64 {
        below(&self.ends, owned)
    }

    /// Tells how much time a job has beyond what is left of its work at its rate since it began.
    pub(super) fn report_slack(
        &self,
        owned: &Owned,
        deadline: Instant,
        observer: &Observer,
        now: Instant,
    ) {
        let left = below(&self.first, owned);
        let until = deadline.saturating_duration_since(now);
        observer.metrics.slack(slack(until, left, self.all, now.duration_since(self.begun)));
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

/// Offsets between what is committed and these ends.
fn below(ends: &BTreeMap<Partition, Offset>, owned: &Owned) -> i64 {
    let left = |(partition, done): (Partition, Offset)| {
        ends.get(&partition).map_or(0, |end| end.0.saturating_sub(done.0).max(0))
    };
    owned.positions().map(left).sum()
}

/// Seconds that are over of the time `until` the deadline when `left` records are done as fast as `done` were in `took`.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn slack(until: Duration, left: i64, done: u64, took: Duration) -> f64 {
    let needed = match (left, done) {
        (0, _) => 0.0,
        (_, 0) => f64::INFINITY,
        (left, done) => left as f64 * took.as_secs_f64() / done as f64,
    };
    until.as_secs_f64() - needed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slack_is_what_is_over_at_the_present_rate() {
        let seconds = Duration::from_secs;
        for (until, left, done, took, stands) in [
            (600, 0, 0, 5, 600.0),
            (600, 1_000, 100, 10, 500.0),
            (600, 100_000, 100, 10, -9_400.0),
            (0, 10, 10, 1, -1.0),
            (600, 10, 0, 5, f64::NEG_INFINITY),
        ] {
            let found = slack(seconds(until), left, done, seconds(took));
            let same = (found - stands).abs() < 1e-9 || found.is_infinite() && stands.is_infinite();
            assert!(
                same && found.is_sign_negative() == stands.is_sign_negative(),
                "{found} {stands}"
            );
        }
    }
}

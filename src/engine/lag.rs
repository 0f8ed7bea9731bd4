//! How far behind the ends of the partitions the commits are.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::log::Reach;
use crate::pipeline::arrive::Owned;
use crate::printable::counted;
use crate::record::{Offset, Partition};
use crate::repeated::Repeated;
use crate::status::Drain;
use crate::status::history::Behind;

use super::observer::Observer;

/// Over how long it is looked how fast the lag falls.
const WINDOW: Duration = Duration::from_secs(60);

/// What does not come in for so long has ended.
const RECENT: Duration = Duration::from_secs(15);

/// Less than this is no measure.
const LEAST: Duration = Duration::from_secs(4);

/// A transaction may be open for so long before it is said that it holds records back.
const LONG: Duration = Duration::from_secs(300);

/// The longest pause before that is said again.
const LONGEST: Duration = Duration::from_secs(3_600);

/// So many places are named then.
const NAMED: usize = 8;

/// A lag of less than the records of so long is none that has to fall.
const CAUGHT_UP: f64 = 2.0;

/// The newest ends, and what became of the lag.
#[derive(Debug)]
pub(super) struct Lag {
    ends: BTreeMap<Partition, Reach>,
    /// Where open transactions hold records back, and since when at the same place.
    held: BTreeMap<Partition, (Offset, Instant)>,
    /// The lag as it was, the newest last: since the partitions are these.
    past: VecDeque<Look>,
    /// Records that were committed since the last report, and when that was.
    records: u64,
    since: Instant,
    /// Whether what arrives from now on is another run's.
    bounded: bool,
    /// The ends as they were when a partition became ours: a job has to come no further.
    first: BTreeMap<Partition, Offset>,
    begun: Instant,
    /// Records that were committed since.
    all: u64,
    /// When it is said again that records are held back.
    said: Repeated,
}

/// How far behind it was at one moment.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    /// Records that could be read and were not committed.
    left: i64,
    /// The sum of the ends that can be read to.
    ends: i64,
}

impl Lag {
    /// `bounded`: up to the ends that were there at the start.
    pub(super) fn new(bounded: bool, now: Instant) -> Self {
        let (ends, held, past) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        let first = BTreeMap::new();
        let (records, all) = (0, 0);
        let said = Repeated::new(LONG, LONGEST);
        Self { ends, held, past, records, since: now, bounded, first, begun: now, all, said }
    }

    /// A partition became ours; its end was seen at `end`.
    pub(super) fn assigned(&mut self, partition: Partition, end: Offset) {
        self.ends.insert(partition, Reach::whole(end));
        self.first.insert(partition, end);
        self.past.clear();
    }

    /// A partition is not ours any more.
    pub(super) fn revoked(&mut self, partition: Partition) {
        self.ends.remove(&partition);
        self.held.remove(&partition);
        self.first.remove(&partition);
        self.past.clear();
    }

    /// How far partitions go now: only ours are kept.
    pub(super) fn ends(&mut self, ends: BTreeMap<Partition, Reach>, now: Instant) {
        for (partition, reach) in ends {
            let Some(known) = self.ends.get_mut(&partition) else { continue };
            *known = reach;
            if reach.high <= reach.stable {
                self.held.remove(&partition);
                continue;
            }
            let held = self.held.entry(partition).or_insert((reach.stable, now));
            if held.0 != reach.stable {
                *held = (reach.stable, now);
            }
        }
    }

    /// So many records were committed.
    pub(super) fn committed(&mut self, records: u64) {
        self.records += records;
        self.all += records;
    }

    /// Records that were there when a bounded run began and are not committed yet, in the partitions that are ours.
    pub(super) fn of_job(&self, owned: &Owned) -> BTreeMap<Partition, i64> {
        let left = |(partition, done): (Partition, Offset)| {
            let end = self.first.get(&partition)?;
            Some((partition, end.0.saturating_sub(done.0).max(0)))
        };
        owned.positions().filter_map(left).collect()
    }

    /// Tells how much time a job has beyond what is left of its work at its rate since it began.
    pub(super) fn report_slack(
        &self,
        owned: &Owned,
        deadline: Instant,
        observer: &Observer,
        now: Instant,
    ) {
        let left = self.of_job(owned).values().sum();
        let until = deadline.saturating_duration_since(now);
        observer.metrics.slack(slack(until, left, self.all, now.duration_since(self.begun)));
    }

    /// Tells how far behind each partition is that is ours, and the time until none is.
    pub(super) fn report(&mut self, owned: &Owned, observer: &Observer, now: Instant) {
        self.tell(owned.positions(), observer, now);
    }

    /// The same of partitions that nobody reads, by what their group has committed; the others are told by whoever has
    /// them.
    pub(super) fn left_behind(
        &mut self,
        left: &BTreeMap<Partition, (Offset, Reach)>,
        observer: &Observer,
        now: Instant,
    ) {
        let others: Vec<Partition> =
            self.ends.keys().filter(|partition| !left.contains_key(partition)).copied().collect();
        for partition in others {
            self.revoked(partition);
            observer.revoked(partition);
        }
        self.ends.extend(left.iter().map(|(partition, (_, reach))| (*partition, *reach)));
        self.ends(left.iter().map(|(partition, (_, reach))| (*partition, *reach)).collect(), now);
        self.tell(left.iter().map(|(partition, (done, _))| (*partition, *done)), observer, now);
    }

    /// Tells that it is not known how far behind it is: no partition is ours, or the cluster does not answer.
    pub(super) fn unknown(&mut self, observer: &Observer, now: Instant) {
        self.past.clear();
        (self.records, self.since) = (0, now);
        observer.lag_unknown(now);
    }

    fn tell(
        &mut self,
        done: impl Iterator<Item = (Partition, Offset)>,
        observer: &Observer,
        now: Instant,
    ) {
        let behind: Vec<(Partition, Behind)> = done
            .filter_map(|(partition, done)| Some((partition, self.of(partition, done)?)))
            .collect();
        if behind.is_empty() {
            return self.unknown(observer, now);
        }
        let lag = behind.iter().map(|(_, behind)| behind.lag).sum();
        let readable = behind.iter().map(|(_, behind)| behind.lag - behind.held).sum();
        let drain = self.drain(readable, now);
        self.complain(&behind, observer, now);
        observer.lag(&behind, (lag, lag - readable), drain, now);
    }

    /// Says where records cannot be read for long, at once and then with growing pauses: it is a producer's doing, and
    /// an operator's to end.
    fn complain(&mut self, behind: &[(Partition, Behind)], observer: &Observer, now: Instant) {
        let held = |(partition, behind): &(Partition, Behind)| {
            Some((*partition, behind.held_back(now).filter(|held| LONG <= held.time)?))
        };
        let held: Vec<_> = behind.iter().filter_map(held).collect();
        if held.is_empty() {
            if self.said.over().is_some() {
                tracing::info!("no transaction of a producer holds records back any more");
            }
            return;
        }
        if self.said.seen(1, now).is_none() {
            return;
        }
        let places = held.iter().take(NAMED).map(|(partition, held)| {
            let (topic, number) = (observer.topic(partition.topic), partition.number);
            let records = counted(held.records, "record", "records");
            format!("{topic}/{number} from offset {} ({records})", held.place)
        });
        let places = places.collect::<Vec<_>>().join(", ");
        tracing::warn!(
            partitions = held.len(),
            "records cannot be read, because a producer has not ended its transaction for minutes: {places}. Where that \
             producer is gone, end it: kafka-transactions.sh abort --topic TOPIC --partition N --start-offset OFFSET"
        );
    }

    fn of(&self, partition: Partition, done: Offset) -> Option<Behind> {
        let reach = self.ends.get(&partition)?;
        let (place, since) = self.held.get(&partition).copied().unzip();
        Some(Behind {
            committed: done,
            lag: reach.high.0.saturating_sub(done.0).max(0),
            held: reach.high.0.saturating_sub(reach.stable.max(done).0).max(0),
            place,
            since,
        })
    }

    /// The time until nothing is left that can be read. What flows in counts, but for a run that ends at ends that are
    /// fixed; who is behind by a moment keeps up.
    fn drain(&mut self, left: i64, now: Instant) -> Option<Drain> {
        let seconds = now.duration_since(std::mem::replace(&mut self.since, now)).as_secs_f64();
        let records = i64::try_from(std::mem::take(&mut self.records)).unwrap_or(i64::MAX);
        while self.past.front().is_some_and(|look| WINDOW < now.duration_since(look.at)) {
            self.past.pop_front();
        }
        let ends = self.ends.values().map(|reach| reach.stable.0).sum();
        self.past.push_back(Look { at: now, left, ends });
        let gross = drain(left, records, seconds);
        let is_short = |time: Duration| time.as_secs_f64() < CAUGHT_UP;
        if self.bounded || matches!(gross, Drain::In(time) if is_short(time)) {
            return Some(gross);
        }
        let within = |window: Duration| {
            let look = self.past.iter().find(|look| now.duration_since(look.at) <= window)?;
            let took = now.duration_since(look.at);
            (LEAST <= took).then(|| (look.ends, drain(left, look.left - left, took.as_secs_f64())))
        };
        let (_, whole) = within(WINDOW)?;
        match (whole, within(RECENT)) {
            // A burst that has ended is no stream that is too strong.
            (Drain::Never | Drain::Grows, Some((_, Drain::In(time)))) => Some(Drain::In(time)),
            (Drain::Never | Drain::Grows, Some((before, _))) if before == ends => None,
            (whole, _) => Some(whole),
        }
    }
}

/// When `left` is 0 if it has fallen by `fallen` in so many seconds.
fn drain(left: i64, fallen: i64, seconds: f64) -> Drain {
    if left == 0 {
        return Drain::In(Duration::ZERO);
    }
    match fallen {
        ..0 => return Drain::Grows,
        0 => return Drain::Never,
        1.. => (),
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let seconds = left as f64 * seconds / fallen as f64;
    Duration::try_from_secs_f64(seconds).map_or(Drain::Never, Drain::In)
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
    use super::super::outcomes::Tally;
    use super::*;
    use crate::status::Board;
    use crate::telemetry::Telemetry;
    use crate::telemetry::trace::Traces;

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

    const P: Partition = Partition { topic: 0, number: 0 };

    fn zero() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "a test needs one arbitrary instant")]
        Instant::now()
    }

    fn reach(stable: i64, high: i64) -> BTreeMap<Partition, Reach> {
        [(P, Reach { stable: Offset(stable), high: Offset(high) })].into()
    }

    #[test]
    fn lag_counts_to_the_last_record_and_what_cannot_be_read_is_told_apart() {
        let (start, at) = (zero(), |s| zero() + Duration::from_secs(s));
        let mut lag = Lag::new(false, start);
        lag.assigned(P, Offset(10));
        let told = |lag: &Lag, done| {
            let behind = lag.of(P, Offset(done)).unwrap();
            (behind.lag, behind.held, behind.place.map(|place| place.0))
        };
        assert_eq!(told(&lag, 4), (6, 0, None));
        lag.ends(reach(10, 60), at(0));
        assert_eq!(told(&lag, 4), (56, 50, Some(10)));
        let since = lag.of(P, Offset(4)).unwrap().since;
        lag.ends(reach(10, 90), at(300));
        assert_eq!(told(&lag, 10), (80, 80, Some(10)), "all that can be read is answered");
        assert_eq!(lag.of(P, Offset(4)).unwrap().since, since, "it has not moved");
        lag.ends(reach(40, 90), at(400));
        assert_ne!(lag.of(P, Offset(4)).unwrap().since, since, "it goes on, slowly");
        lag.ends(reach(90, 90), at(500));
        assert_eq!(told(&lag, 50), (40, 0, None));
        assert_eq!(told(&lag, 95), (0, 0, None), "an end that is told late");
        lag.revoked(P);
        assert!(lag.of(P, Offset(4)).is_none());
    }

    #[test]
    fn lag_is_known_only_of_partitions_that_are_ours_and_of_a_cluster_that_answers() {
        let telemetry = Telemetry::silent().unwrap();
        let observer = Observer {
            metrics: telemetry.metrics.clone(),
            status: Board::default(),
            topics: vec!["in".to_owned()],
            tally: Tally::default(),
            traces: Traces::default(),
            staged: None,
        };
        let told = || {
            let status = observer.status.now();
            (status.lag, status.held, status.drain)
        };
        let now = zero();
        let mut lag = Lag::new(false, now);
        let caught_up = (Some(0), 0, Some(Drain::In(Duration::ZERO)));
        for forget in [
            (|lag, observer, now| lag.tell(std::iter::empty(), observer, now))
                as fn(&mut Lag, &Observer, Instant),
            Lag::unknown,
        ] {
            lag.assigned(P, Offset(4));
            lag.tell([(P, Offset(4))].into_iter(), &observer, now);
            assert_eq!(told(), caught_up);
            assert!(telemetry.render().contains("tidemill_drain_eta_seconds 0\n"));
            assert_eq!(observer.place(P, Offset(2611)), "in/0:2611");
            forget(&mut lag, &observer, now);
            assert_eq!(told(), (None, 0, None));
            assert!(telemetry.render().contains("tidemill_drain_eta_seconds -1\n"));
        }
    }

    #[test]
    fn what_flows_in_counts_for_the_time_to_the_end() {
        let start = zero();
        let at = |seconds| start + Duration::from_secs(seconds);
        let seconds = |drain: Option<Drain>| match drain {
            None => "unknown".to_owned(),
            Some(Drain::Never) => "never".to_owned(),
            Some(Drain::Grows) => "grows".to_owned(),
            Some(Drain::In(time)) => time.as_secs().to_string(),
        };
        // 100 a second are answered; so many flow in.
        for (flows_in, expect) in [(0, "90"), (50, "190"), (100, "never"), (200, "grows")] {
            let mut lag = Lag::new(false, start);
            lag.assigned(P, Offset(10_000));
            assert_eq!(seconds(lag.drain(10_000, start)), "unknown");
            lag.committed(1_000);
            lag.ends(reach(10_000 + 10 * flows_in, 20_000), at(10));
            let left = 10_000 - 10 * (100 - flows_in);
            assert_eq!(seconds(lag.drain(left, at(10))), expect, "{flows_in}");
            assert_eq!(seconds(lag.drain(0, at(20))), "0");
        }
        // A lag that neither falls nor grows, of a second's records, is how a service is that keeps up.
        let mut lag = Lag::new(false, start);
        lag.drain(100, start);
        lag.committed(1_000);
        assert_eq!(seconds(lag.drain(100, at(10))), "1");
        let mut lag = Lag::new(true, start);
        lag.committed(1_000);
        assert_eq!(seconds(lag.drain(10_000, at(10))), "100", "its ends are fixed");
        // What was long ago says nothing.
        let mut lag = Lag::new(false, start);
        lag.drain(50_000, start);
        lag.ends.insert(P, Reach::whole(Offset(0)));
        for ten in 1..=20 {
            lag.ends(reach(i64::try_from(ten).unwrap(), 100), at(ten * 10));
            lag.drain(10_000, at(ten * 10));
        }
        lag.ends(reach(21, 100), at(210));
        assert_eq!(seconds(lag.drain(10_000, at(210))), "never");
        assert!(lag.past.len() < 10);
        // A burst that is over is none that does not end, and where nothing is answered either, nobody knows.
        let mut lag = Lag::new(false, start);
        lag.assigned(P, Offset(0));
        lag.drain(0, start);
        lag.ends(reach(30_000, 30_000), at(20));
        assert_eq!(seconds(lag.drain(30_000, at(20))), "grows");
        lag.drain(29_000, at(25));
        assert_eq!(seconds(lag.drain(28_000, at(30))), "140");
        lag.drain(28_000, at(40));
        assert_eq!(seconds(lag.drain(28_000, at(50))), "unknown");
        lag.assigned(P, Offset(1));
        assert_eq!(seconds(lag.drain(90_000, at(220))), "unknown", "other partitions");
    }
}

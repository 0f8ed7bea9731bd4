//! The last hour, in rings: what was committed, how batches were, how far behind each partition was.
//!
//! Whatever runs for however long and has however many partitions, this takes the same memory: 360 steps of ten seconds,
//! and 60 minutes for each of the first [`MOST_PARTITIONS`].

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::record::{FaultClass, Offset, Partition, Reason};

/// What a step of the hour lasts.
pub const STEP: Duration = Duration::from_secs(10);

/// Steps that are kept: an hour.
pub const STEPS: usize = 360;

/// What a partition's step lasts.
pub const MINUTE: Duration = Duration::from_secs(60);

/// Minutes that are kept of a partition.
pub const MINUTES: usize = 60;

/// Partitions that are kept one by one.
pub const MOST_PARTITIONS: usize = 256;

/// What a batch goes through, in order.
pub const STAGES: [&str; 5] = ["decode", "wait", "infer", "encode", "commit"];

/// What a batch was that was committed.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// Why it was closed.
    pub reason: Reason,
    /// Records when it was closed.
    pub records: u64,
    /// What they cost the model.
    pub tokens: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Records that the cache had.
    pub cached: u64,
    /// What it took in each of [`STAGES`].
    pub stages: [Duration; STAGES.len()],
}

/// What was committed in a step, or in several.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sums {
    /// Records with an outcome.
    pub records: u64,
    /// Those of them that are dead letters.
    pub dead_letters: u64,
    /// Dead letters, in the order of [`FaultClass::ALL`].
    pub classes: [u64; FaultClass::ALL.len()],
    /// Batches.
    pub batches: u64,
    /// Batches, in the order of [`Reason::ALL`].
    pub reasons: [u64; Reason::ALL.len()],
    /// Records of these batches when they were closed.
    pub batched: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Their records that the cache had.
    pub cached: u64,
    /// What they took in each of [`STAGES`].
    pub stages: [Duration; STAGES.len()],
}

impl Sums {
    fn add(&mut self, other: &Self) {
        let each = |sums: &mut [u64], others: &[u64]| {
            sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
        };
        each(&mut self.classes, &other.classes);
        each(&mut self.reasons, &other.reasons);
        for (sum, other) in [
            (&mut self.records, other.records),
            (&mut self.dead_letters, other.dead_letters),
            (&mut self.batches, other.batches),
            (&mut self.batched, other.batched),
            (&mut self.tokens, other.tokens),
            (&mut self.bytes, other.bytes),
            (&mut self.cached, other.cached),
        ] {
            *sum += other;
        }
        self.stages.iter_mut().zip(other.stages).for_each(|(sum, other)| *sum += other);
    }
}

/// A ring of steps; what nothing was written to is as it is by default.
#[derive(Debug, Clone)]
struct Ring<T> {
    step: Duration,
    most: usize,
    /// Which step the last value is of, counted from the start.
    last: u64,
    values: VecDeque<T>,
}

impl<T: Default> Ring<T> {
    fn new(step: Duration, most: usize) -> Self {
        Self { step, most, last: 0, values: VecDeque::from([T::default()]) }
    }

    fn number(&self, since: Duration) -> u64 {
        since.as_secs() / self.step.as_secs().max(1)
    }

    /// The step that is now, with those between.
    fn at(&mut self, since: Duration) -> Option<&mut T> {
        let number = self.number(since);
        let skipped = number.saturating_sub(self.last);
        let new = usize::try_from(skipped).unwrap_or(usize::MAX).min(self.most);
        for _ in 0..new {
            if self.values.len() == self.most {
                self.values.pop_front();
            }
            self.values.push_back(T::default());
        }
        self.last = self.last.max(number);
        self.values.back_mut()
    }
}

/// A minute of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Minute {
    /// Records that were committed.
    pub records: u64,
    /// Offsets that it was behind when that was told last; `None` where it was not told.
    pub lag: Option<i64>,
}

/// How far behind a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// What its group has committed.
    pub committed: Offset,
    /// Offsets from there to its end.
    pub lag: i64,
    /// Those of them that cannot be read yet: they stand behind the first record of a transaction that its producer has
    /// not ended.
    pub held: i64,
    /// The offset of that record, and since when it has held back what follows.
    pub place: Option<Offset>,
    /// See `place`.
    pub since: Option<Instant>,
}

impl Behind {
    /// Behind by so many offsets that can be read.
    pub fn readable(lag: i64) -> Self {
        Self { committed: Offset(0), lag, held: 0, place: None, since: None }
    }

    /// The transaction that holds records back, as it is at `now`.
    pub fn held_back(&self, now: Instant) -> Option<HeldBack> {
        let (place, since) = self.place.zip(self.since).filter(|_| 0 < self.held)?;
        let time = now.saturating_duration_since(since);
        Some(HeldBack { records: self.held, place, time })
    }
}

/// A transaction that holds records back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldBack {
    /// How many.
    pub records: i64,
    /// The offset of its first record.
    pub place: Offset,
    /// How long it has.
    pub time: Duration,
}

#[derive(Debug, Clone)]
struct Series {
    minutes: Ring<Minute>,
    behind: Option<Behind>,
    /// Since when it was seen at each look that records wait that can be read.
    waits: Option<Instant>,
    committed: Option<Instant>,
    since: Instant,
}

impl Series {
    /// How long records have waited of which none was committed since.
    fn waited(&self, now: Instant) -> Duration {
        let since = self.waits.map(|waits| self.committed.map_or(waits, |last| last.max(waits)));
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

/// A partition that is ours.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Which.
    pub partition: Partition,
    /// Offsets that it is behind; `None` before that is known.
    pub lag: Option<i64>,
    /// What holds records back of it.
    pub held: Option<HeldBack>,
    /// How long ago something of it was committed last, or since when it is ours.
    pub quiet: Duration,
    /// Whether something of it was committed since it is ours.
    pub has_committed: bool,
    /// How long records have waited that can be read, and of which none was committed since.
    pub waited: Duration,
    /// Its last hour, the minute that is now last.
    pub minutes: Vec<Minute>,
}

/// What is read of it.
#[derive(Debug, Clone, Default)]
pub struct Hour {
    /// How long the service runs.
    pub up: Duration,
    /// How much of the last step is over.
    pub part: Duration,
    /// The steps of the last hour, or since the start: the one that is now last.
    pub steps: Vec<Sums>,
    /// Offsets behind in each step; `None` before it was known.
    pub lags: Vec<Option<i64>>,
    /// Their sum.
    pub sums: Sums,
    /// Since records were committed last, or since the start.
    pub quiet: Duration,
    /// Whether any were.
    pub has_committed: bool,
    /// The longest that a partition's records have waited, none of them committed since.
    pub waited: Duration,
    /// The partitions that are furthest behind, in order of their names.
    pub partitions: Vec<Told>,
    /// How many partitions are ours beside them, as far as they are counted one by one.
    pub more: usize,
}

/// What a step heard of the lag last.
#[derive(Debug, Clone, Copy, Default)]
enum Heard {
    /// Nothing: what was heard before still holds.
    #[default]
    Nothing,
    Lag(i64),
    /// That it is not known any more.
    Unknown,
}

/// The last hour.
#[derive(Debug)]
pub struct History {
    start: Instant,
    steps: Ring<(Sums, Heard)>,
    committed: Instant,
    total: Total,
    partitions: BTreeMap<Partition, Series>,
}

/// Everything since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    /// Records with an outcome.
    pub records: u64,
    /// Those of them that are dead letters.
    pub dead_letters: u64,
}

impl History {
    /// Nothing yet.
    pub fn new(start: Instant) -> Self {
        let steps = Ring::new(STEP, STEPS);
        let (total, partitions) = (Total::default(), BTreeMap::new());
        Self { start, steps, committed: start, total, partitions }
    }

    fn since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }

    /// A batch was committed.
    pub fn batch(&mut self, batch: &Batch, now: Instant) {
        let since = self.since(now);
        let Some((sums, _)) = self.steps.at(since) else { return };
        let mut one = Sums {
            batches: 1,
            batched: batch.records,
            tokens: batch.tokens,
            bytes: batch.bytes,
            cached: batch.cached,
            stages: batch.stages,
            ..Sums::default()
        };
        let reason = Reason::ALL.iter().position(|reason| *reason == batch.reason);
        reason.into_iter().for_each(|place| one.reasons[place] = 1);
        sums.add(&one);
    }

    /// Records have their outcome: so many of each partition, and so many dead letters of each class.
    pub fn committed<'a>(
        &mut self,
        partitions: impl Iterator<Item = (Partition, u64)>,
        dead: impl Iterator<Item = (&'a str, u64)>,
        now: Instant,
    ) {
        let since = self.since(now);
        self.committed = now;
        let mut all = Sums::default();
        for (partition, records) in partitions {
            all.records += records;
            let Some(series) = self.partitions.get_mut(&partition) else { continue };
            series.committed = Some(now);
            series.minutes.at(since).into_iter().for_each(|minute| minute.records += records);
        }
        for (class, count) in dead {
            all.dead_letters += count;
            let place = FaultClass::ALL.iter().position(|known| known.name() == class);
            place.into_iter().for_each(|place| all.classes[place] += count);
        }
        self.total.records += all.records;
        self.total.dead_letters += all.dead_letters;
        self.steps.at(since).into_iter().for_each(|(sums, _)| sums.add(&all));
    }

    /// So many offsets are between what is committed and the end of each partition that is ours, and of all.
    pub fn lag(
        &mut self,
        partitions: impl Iterator<Item = (Partition, Behind)>,
        all: i64,
        now: Instant,
    ) {
        let since = self.since(now);
        for (partition, behind) in partitions {
            let room = self.partitions.len() < MOST_PARTITIONS;
            let Some(series) = self.series(partition, room, now) else { continue };
            series.behind = Some(behind);
            series.waits = series.waits.or(Some(now)).filter(|_| behind.held < behind.lag);
            let lag = behind.lag;
            series.minutes.at(since).into_iter().for_each(|minute| minute.lag = Some(lag));
        }
        self.steps.at(since).into_iter().for_each(|(_, heard)| *heard = Heard::Lag(all));
    }

    /// How far behind it is is not known any more.
    pub fn lag_unknown(&mut self, now: Instant) {
        let since = self.since(now);
        self.partitions.values_mut().for_each(|series| series.behind = None);
        self.steps.at(since).into_iter().for_each(|(_, heard)| *heard = Heard::Unknown);
    }

    fn series(&mut self, partition: Partition, room: bool, now: Instant) -> Option<&mut Series> {
        if room {
            let new = || Series {
                minutes: Ring::new(MINUTE, MINUTES),
                behind: None,
                waits: None,
                committed: None,
                since: now,
            };
            return Some(self.partitions.entry(partition).or_insert_with(new));
        }
        self.partitions.get_mut(&partition)
    }

    /// Partitions became ours.
    pub fn assigned(&mut self, partition: Partition, now: Instant) {
        let room = self.partitions.len() < MOST_PARTITIONS;
        self.series(partition, room, now);
    }

    /// A partition is not ours any more: what it did is another's to tell.
    pub fn revoked(&mut self, partition: Partition) {
        self.partitions.remove(&partition);
    }

    /// What was committed since the start.
    pub fn total(&self) -> Total {
        self.total
    }

    /// The hour as it is at `now`, with at most so many partitions.
    pub fn read(&mut self, now: Instant, partitions: usize) -> Hour {
        let since = self.since(now);
        self.steps.at(since);
        let mut told: Vec<(&Partition, &mut Series)> = self.partitions.iter_mut().collect();
        let more = told.len().saturating_sub(partitions);
        let waited = told.iter().map(|(_, series)| series.waited(now)).max().unwrap_or_default();
        told.sort_by_key(|(partition, series)| {
            (std::cmp::Reverse(series.behind.map_or(0, |behind| behind.lag)), **partition)
        });
        told.truncate(partitions);
        told.sort_by_key(|(partition, _)| **partition);
        let told = told.into_iter().map(|(partition, series)| {
            series.minutes.at(since);
            let quiet = now.saturating_duration_since(series.committed.unwrap_or(series.since));
            let minutes = series.minutes.values.iter().copied().collect();
            let lag = series.behind.map(|behind| behind.lag);
            let held = series.behind.and_then(|behind| behind.held_back(now));
            let has_committed = series.committed.is_some();
            let waited = series.waited(now);
            Told { partition: *partition, lag, held, quiet, has_committed, waited, minutes }
        });
        let mut sums = Sums::default();
        self.steps.values.iter().for_each(|(step, _)| sums.add(step));
        let mut last = None;
        let carried = self.steps.values.iter().map(|(_, heard)| {
            last = match heard {
                Heard::Nothing => last,
                Heard::Lag(lag) => Some(*lag),
                Heard::Unknown => None,
            };
            last
        });
        Hour {
            up: since,
            part: Duration::from_millis(
                u64::try_from(since.as_millis() % STEP.as_millis()).unwrap_or(0),
            ),
            partitions: told.collect(),
            more,
            lags: carried.collect(),
            steps: self.steps.values.iter().map(|(step, _)| step.clone()).collect(),
            sums,
            quiet: now.saturating_duration_since(self.committed),
            has_committed: self.total.records != 0,
            waited,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zero() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "a test needs one arbitrary instant")]
        Instant::now()
    }

    fn partition(number: i32) -> Partition {
        Partition { topic: 0, number }
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let start = zero();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut history = History::new(start);
        for minute in 0..300 {
            let now = at(minute * 60);
            history.lag([(partition(0), Behind::readable(7))].into_iter(), 7, now);
            history.committed([(partition(0), 2)].into_iter(), [("invalid", 1)].into_iter(), now);
        }
        let hour = history.read(at(300 * 60 - 1), 8);
        assert_eq!((hour.steps.len(), hour.lags.len()), (STEPS, STEPS));
        assert_eq!((hour.sums.records, hour.sums.dead_letters), (120, 60));
        let invalid = FaultClass::ALL.iter().position(|class| *class == FaultClass::Invalid);
        assert_eq!(hour.sums.classes[invalid.unwrap()], 60);
        assert_eq!(hour.partitions[0].minutes, [Minute { records: 2, lag: Some(7) }; MINUTES]);
        assert_eq!((hour.quiet, hour.part), (Duration::from_secs(59), Duration::from_secs(9)));
        assert!(hour.lags.iter().all(|lag| *lag == Some(7)), "what is not told again still holds");
    }

    #[test]
    fn a_lag_that_is_not_known_any_more_is_not_carried_on() {
        let start = zero();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut history = History::new(start);
        history.lag([(partition(0), Behind::readable(7))].into_iter(), 7, start);
        history.lag_unknown(at(20));
        let hour = history.read(at(35), 8);
        assert_eq!(hour.lags, [Some(7), Some(7), None, None]);
        assert_eq!(hour.partitions[0].lag, None);
    }

    #[test]
    fn a_long_silence_is_empty_steps() {
        let start = zero();
        let mut history = History::new(start);
        history.committed([(partition(0), 2)].into_iter(), std::iter::empty(), start);
        let hour = history.read(start + Duration::from_secs(25), 8);
        let records: Vec<u64> = hour.steps.iter().map(|step| step.records).collect();
        assert_eq!((records, hour.lags), (vec![2, 0, 0], vec![None; 3]));
        let hour = history.read(start + Duration::from_secs(100_000_000), 8);
        assert_eq!((hour.steps.len(), hour.sums.records), (STEPS, 0));
        let back = history.read(start, 8);
        assert_eq!(back.steps.len(), STEPS, "a clock that is read late changes nothing");
    }

    #[test]
    fn partitions_are_bounded_the_furthest_behind_are_told_and_those_given_up_are_gone() {
        let start = zero();
        let mut history = History::new(start);
        let lags =
            (0..2_000).map(|number| (partition(number), Behind::readable(i64::from(number))));
        history.lag(lags, 9, start);
        let hour = history.read(start, 3);
        let told: Vec<i32> = hour.partitions.iter().map(|told| told.partition.number).collect();
        assert_eq!((told, hour.more), (vec![253, 254, 255], MOST_PARTITIONS - 3));
        (1..2_000).for_each(|number| history.revoked(partition(number)));
        let hour = history.read(start, 3);
        assert_eq!((hour.partitions.len(), hour.more), (1, 0));
    }

    #[test]
    fn batches_add_up() {
        let start = zero();
        let mut history = History::new(start);
        let millis = |ms: [u64; 5]| ms.map(Duration::from_millis);
        let mut batch = Batch {
            reason: Reason::Time,
            records: 3,
            tokens: 40,
            bytes: 100,
            cached: 1,
            stages: millis([1, 20, 8, 1, 5]),
        };
        history.batch(&batch, start);
        batch.reason = Reason::Records;
        history.batch(&batch, start + Duration::from_secs(30));
        let sums = history.read(start + Duration::from_secs(30), 8).sums;
        assert_eq!((sums.batches, sums.batched, sums.tokens, sums.cached), (2, 6, 80, 2));
        assert_eq!(sums.stages, millis([2, 40, 16, 2, 10]));
        assert_eq!(sums.reasons, [1, 0, 0, 1, 0, 0, 0, 0, 0]);
    }
}

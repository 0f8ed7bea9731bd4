//! Histories drawn at random: what a service, retention and compaction leave behind is never accused, and one change to
//! it is always found.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::log::note::Note;
use crate::record::{Offset, TopicId};

/// Time between two transactions, ms: more than clocks may differ by.
const STEP: u64 = 100_000;
/// The time of the first one.
const START: u64 = 1_764_000_000_000;

/// Numbers from a seed (`SplitMix64`): a history is one number, and replays.
#[derive(Debug, Clone)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(below.max(1)).unwrap()).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.roll(n) == 0
    }
}

/// A message of an outcome topic.
#[derive(Debug, Clone)]
struct Written {
    what: What,
    place: usize,
    offset: i64,
    batch: String,
    version: u64,
    transaction: usize,
}

/// What the topics and the group hold.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is drawn for itself")]
struct History {
    by_key: bool,
    compact: bool,
    shared_dead_letters: bool,
    latest: bool,
    range: (i64, Option<i64>),
    /// Topic and number of each input partition.
    places: Vec<(usize, i32)>,
    /// Existing offsets of each, less what was deleted.
    records: Vec<Vec<i64>>,
    low: Vec<i64>,
    compacted: bool,
    skip: BTreeMap<usize, std::ops::Range<i64>>,
    /// By log and partition. The beginning that was deleted is gone.
    logs: BTreeMap<(usize, i32), Vec<Written>>,
    cut: BTreeSet<(usize, i32)>,
    /// By partition: when they were written, and in which transaction.
    manifests: Vec<Vec<(u64, usize, Manifest)>>,
    manifests_cut: BTreeSet<usize>,
    /// After each transaction.
    committed: Vec<Vec<i64>>,
    /// How many transactions there were at the first offsets, the ends, the manifests after that, and the last offsets.
    moments: [usize; 4],
}

const TOPICS: [&str; 2] = ["a", "b"];
const DEAD_LETTERS: [usize; 2] = [1, 2];

impl History {
    fn draw(dice: &mut Dice, is_plain: bool) -> Self {
        let topics = 1 + dice.roll(2);
        let numbers = 1 + dice.roll(3);
        let places: Vec<(usize, i32)> = (0..topics)
            .flat_map(|t| (0..numbers).map(move |n| (t, i32::try_from(n).unwrap())))
            .collect();
        let mut history = Self {
            by_key: dice.one_in(3),
            compact: dice.one_in(3),
            shared_dead_letters: dice.one_in(2),
            latest: !is_plain && dice.one_in(3),
            range: (0, None),
            records: places.iter().map(|_| Self::input(dice)).collect(),
            low: vec![0; places.len()],
            compacted: false,
            skip: BTreeMap::new(),
            logs: BTreeMap::new(),
            cut: BTreeSet::new(),
            manifests: vec![Vec::new(); 1 + dice.roll(3)],
            manifests_cut: BTreeSet::new(),
            committed: Vec::new(),
            moments: [0; 4],
            places,
        };
        history.run(dice);
        let count = history.committed.len() - 1;
        let first = if is_plain { count } else { count - dice.roll(count) };
        let mut later = || first + dice.roll(count - first + 1);
        let (ends, manifests, last) = (later(), later(), later());
        history.moments = [first, ends, manifests, last.max(manifests).max(ends)];
        if !is_plain {
            history.forget(dice);
        }
        history
    }

    /// Offsets with gaps.
    fn input(dice: &mut Dice) -> Vec<i64> {
        let mut next = 0;
        let offset = |_| {
            next += 1 + i64::from(dice.one_in(6));
            next - 1
        };
        (0..20).map(offset).collect()
    }

    /// The service's life: batches of some partitions, transactions of some batches.
    fn run(&mut self, dice: &mut Dice) {
        let numbers = self.places.iter().map(|(_, number)| number + 1).max().unwrap();
        let dead_letters = if self.shared_dead_letters { 1 } else { 2 };
        for log in 0..=dead_letters {
            self.logs.extend((0..numbers).map(|number| ((log, number), Vec::new())));
        }
        let mut next: Vec<usize> = vec![0; self.places.len()];
        if self.latest {
            next.iter_mut().for_each(|next| *next = dice.roll(8));
        }
        let mut last: Vec<Option<u64>> = vec![None; self.places.len()];
        let offset = |records: &[i64], next: usize| {
            records.get(next).copied().unwrap_or_else(|| records.last().unwrap() + 1)
        };
        let committed = |history: &Self, next: &[usize]| {
            history.records.iter().zip(next).map(|(records, next)| offset(records, *next)).collect()
        };
        self.committed.push(committed(self, &next));
        for transaction in 1..=(6 + dice.roll(8)) {
            let version = 1 + u64::try_from(dice.roll(3)).unwrap();
            // One transaction has one version.
            for part in 0..=dice.roll(2) {
                let mut rows = Vec::new();
                for (place, next) in next.iter_mut().enumerate() {
                    let free = !self.skip.contains_key(&place) && *next != 0;
                    if free && dice.one_in(12) {
                        let from = offset(&self.records[place], *next);
                        *next += dice.roll(3);
                        self.skip.insert(place, from..offset(&self.records[place], *next));
                    }
                    let count = if dice.one_in(3) { 0 } else { dice.roll(4) };
                    let left = self.records[place].len().saturating_sub(*next);
                    let taken = *next..*next + count.min(left);
                    *next = taken.end;
                    rows.extend(taken.map(|record| (place, self.records[place][record])));
                }
                // Partitions take turns; within one the order stays.
                let turn: BTreeMap<usize, usize> =
                    (0..self.places.len()).map(|place| (place, dice.roll(3))).collect();
                rows.sort_by_key(|(place, _)| turn[place]);
                if !rows.is_empty() {
                    self.batch(dice, (transaction, part), version, &rows, &mut last);
                }
            }
            if dice.one_in(5) {
                self.strangers(dice, transaction);
            }
            self.committed.push(committed(self, &next));
        }
    }

    fn id(transaction: usize, part: usize) -> String {
        let millis = START + STEP * u64::try_from(transaction).unwrap();
        let mut bytes = [0; 10];
        bytes[9] = u8::try_from(part).unwrap();
        uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid().to_string()
    }

    fn batch(
        &mut self,
        dice: &mut Dice,
        (transaction, part): (usize, usize),
        version: u64,
        rows: &[(usize, i64)],
        last: &mut [Option<u64>],
    ) {
        let batch = Self::id(transaction, part);
        let mut tally = [0; 3];
        let mut ranges: BTreeMap<usize, Range> = BTreeMap::new();
        for (place, offset) in rows {
            let (topic, number) = self.places[*place];
            let range = ranges.entry(*place).or_insert_with(|| Range {
                topic: TOPICS[topic].to_owned(),
                topic_id: Some(format!("id-{topic}")),
                partition: number,
                first: *offset,
                next: *offset,
                count: 0,
                previous: last[*place]
                    .filter(|last| *last != version)
                    .map(|last| format!("m/{last}")),
            });
            range.next = offset + 1;
            range.count += 1;
            last[*place] = Some(version);
            let what = match dice.roll(8) {
                0 => What::DeadLetter,
                1 => What::Tombstone,
                _ => What::Prediction,
            };
            tally[index::kind(what)] += 1;
            let (log, number) = match what {
                What::DeadLetter if self.shared_dead_letters => (1, number),
                What::DeadLetter => (DEAD_LETTERS[topic], number),
                What::Prediction | What::Tombstone if self.by_key => {
                    let numbers = self.logs.keys().filter(|(log, _)| *log == 0).count();
                    (0, i32::try_from(dice.roll(numbers)).unwrap())
                }
                What::Prediction | What::Tombstone => (0, number),
            };
            let written = Written {
                what,
                place: *place,
                offset: *offset,
                batch: batch.clone(),
                version,
                transaction,
            };
            self.logs.get_mut(&(log, number)).unwrap().push(written);
        }
        let ranges: Vec<Range> = ranges.into_values().collect();
        let share = if dice.one_in(3) { 1 } else { ranges.len() };
        let pieces = u32::try_from(ranges.len().div_ceil(share)).unwrap();
        for (piece, ranges) in (1..).zip(ranges.chunks(share)) {
            let manifest = Manifest {
                batch_id: batch.clone(),
                piece: (pieces != 1).then_some(piece),
                pieces: (pieces != 1).then_some(pieces),
                group: Some("g".to_owned()),
                model: "m".to_owned(),
                version,
                records: tally.iter().sum(),
                predictions: tally[0],
                dead_letters: tally[1],
                tombstones: tally[2],
                ranges: ranges.to_vec(),
                ..Manifest::default()
            };
            self.write_manifest(dice, transaction, manifest);
        }
    }

    fn write_manifest(&mut self, dice: &mut Dice, transaction: usize, manifest: Manifest) {
        let time = START + STEP * u64::try_from(transaction).unwrap() + 5_000;
        let partition = dice.roll(self.manifests.len());
        self.manifests[partition].push((time, transaction, manifest));
    }

    /// Another group with the same topics, and an earlier topic of the same name.
    fn strangers(&mut self, dice: &mut Dice, transaction: usize) {
        for (part, group, id) in [(8, "h", "id-0"), (9, "g", "id-of-old")] {
            let batch = Self::id(transaction, part);
            let offset = i64::try_from(dice.roll(60)).unwrap();
            let range = Range {
                topic: TOPICS[0].to_owned(),
                topic_id: Some(id.to_owned()),
                partition: 0,
                first: offset,
                next: offset + 1,
                count: 1,
                previous: None,
            };
            let manifest = Manifest {
                batch_id: batch.clone(),
                group: Some(group.to_owned()),
                model: "m".to_owned(),
                version: 1,
                records: 1,
                predictions: 1,
                ranges: vec![range],
                ..Manifest::default()
            };
            self.write_manifest(dice, transaction, manifest);
            let (place, what, version) = (0, What::Prediction, 1);
            let written = Written { what, place, offset, batch, version, transaction };
            self.logs.get_mut(&(0, 0)).unwrap().push(written);
        }
    }

    /// Retention and compaction.
    fn forget(&mut self, dice: &mut Dice) {
        if dice.one_in(3) {
            for place in 0..self.places.len() {
                self.low[place] = i64::try_from(dice.roll(15)).unwrap();
                let low = self.low[place];
                self.records[place].retain(|offset| low <= *offset);
            }
        }
        if dice.one_in(4) {
            self.compacted = true;
            self.records.iter_mut().for_each(|records| records.retain(|_| !dice.one_in(4)));
        }
        let keys: Vec<(usize, i32)> = self.logs.keys().copied().collect();
        for key in keys {
            let log = self.logs.get_mut(&key).unwrap();
            if dice.one_in(3) && !log.is_empty() {
                log.drain(..=dice.roll(log.len()));
                self.cut.insert(key);
            }
        }
        // Everywhere at about the same time, as retention by time does, or anywhere.
        for partition in 0..self.manifests.len() {
            let manifests = &mut self.manifests[partition];
            if dice.one_in(3) && !manifests.is_empty() {
                manifests.drain(..=dice.roll(manifests.len()));
                self.manifests_cut.insert(partition);
            }
        }
        if dice.one_in(4) {
            let from = i64::try_from(dice.roll(12)).unwrap();
            self.range = (from, dice.one_in(2).then_some(from + 10));
        }
    }

    fn scope(&self) -> Scope {
        let topic = |topic: usize| Topic {
            name: TOPICS[topic].to_owned(),
            id: Some(format!("id-{topic}")),
            compacted: self.compacted,
        };
        let topics = self.places.iter().map(|(topic, _)| topic + 1).max().unwrap();
        let input = |(place, (topic, number)): (usize, &(usize, i32))| {
            let committed = self.committed[self.moments[0]][place];
            let note = Note {
                topic: Some(TopicId(format!("id-{topic}").into())),
                model: None,
                first: 0,
                partitions: 99,
                seen: Offset(0),
                skip: self.skip.get(&place).cloned(),
            };
            let until = committed.min(self.range.1.unwrap_or(i64::MAX));
            let (topic, number) = (*topic, *number);
            Input { topic, number, committed: Some(committed), note: Some(note), until }
        };
        Scope {
            group: "g".to_owned(),
            topics: (0..topics).map(topic).collect(),
            partitions: self.places.iter().enumerate().map(input).collect(),
            logs: ["out", "dlq-a", "dlq-b"].map(str::to_owned).to_vec(),
            dead_letters: if self.shared_dead_letters { vec![1, 1] } else { vec![1, 2] },
            by_key: self.by_key,
            silent: false,
            from: self.range.0,
            anywhere: self.latest,
            jumps: false,
        }
    }

    /// Reads it in the order in which the command does.
    fn judge(&self) -> Report {
        let [_, ends, manifests, last] = self.moments;
        let mut checker = Checker::new(self.scope());
        let read =
            |checker: &mut Checker, from: &dyn Fn(usize) -> usize, to: &dyn Fn(usize) -> usize| {
                for (partition, manifests) in self.manifests.iter().enumerate() {
                    for (_, transaction, manifest) in manifests {
                        if (from(partition)..to(partition)).contains(transaction) {
                            checker.manifest(Some(manifest), &|| "manifest".to_owned());
                        }
                    }
                }
            };
        // The ends of its partitions are asked one after the other, while a running service writes.
        let end = |partition: usize| (manifests + partition).min(last) + 1;
        read(&mut checker, &|_| 0, &end);
        let first = |partition: &usize| {
            let first =
                self.manifests[*partition].first().filter(|(_, at, _)| *at < end(*partition));
            first.map_or(i64::MAX, |(time, ..)| i64::try_from(*time).unwrap())
        };
        let deleted = self.manifests_cut.iter().map(first).max();
        checker.manifests_read(deleted);
        for (place, records) in self.records.iter().enumerate() {
            records.iter().for_each(|offset| checker.record(place, *offset));
            checker.input_read(place, self.low[place]..99);
        }
        for ((log, partition), written) in &self.logs {
            for (offset, written) in (0..).zip(written.iter().filter(|w| w.transaction <= ends)) {
                let (topic, number) = self.places[written.place];
                let says = !self.compact || written.what == What::DeadLetter;
                let outcome = Outcome {
                    what: written.what,
                    topic: says.then_some(TOPICS[topic]),
                    partition: says.then_some(number),
                    offset: written.offset,
                    batch: &written.batch,
                    version: Some(written.version),
                    model: None,
                    digest: None,
                    class: None,
                };
                checker.outcome(At { log: *log, partition: *partition, offset }, &outcome);
            }
        }
        read(&mut checker, &end, &|_| last + 1);
        checker.manifests_read(deleted);
        let cut = self.logs.keys().map(|key| (*key, self.cut.contains(key))).collect();
        let committed = self.committed[last].iter().copied().map(Some).collect();
        checker.finish(&After { committed, cut, compacted: vec![false; 3] })
    }

    /// An outcome of ours, by log and place.
    fn pick(&self, dice: &mut Dice) -> Option<((usize, i32), usize)> {
        let ours =
            |written: &Written| !written.batch.ends_with('8') && !written.batch.ends_with('9');
        let all: Vec<((usize, i32), usize)> = self
            .logs
            .iter()
            .flat_map(|(key, log)| {
                let ours = log.iter().enumerate().filter(|(_, written)| ours(written));
                ours.map(|(at, _)| (*key, at))
            })
            .collect();
        (!all.is_empty()).then(|| all[dice.roll(all.len())])
    }

    /// Changes one thing; `None` where there is nothing of that kind.
    fn mutate(&mut self, dice: &mut Dice) -> Option<String> {
        let (key, at) = self.pick(dice)?;
        let picked = self.logs[&key][at].clone();
        let log = self.logs.get_mut(&key)?;
        match dice.roll(8) {
            0 => {
                log.remove(at);
                Some(format!("drop {picked:?}"))
            }
            1 => {
                log.insert(at + 1 + dice.roll(log.len() - at), picked.clone());
                Some(format!("duplicate {picked:?}"))
            }
            2 => {
                let behind =
                    log.iter().skip(at + 1).position(|w| w.place == picked.place)? + at + 1;
                let stranger = ['8', '9'].iter().any(|end| log[behind].batch.ends_with(*end));
                if stranger || self.compact && key.0 == 0 {
                    return None; // compact headers do not say whose order that is
                }
                log.swap(at, behind);
                Some(format!("{picked:?} behind {behind}"))
            }
            3 => {
                log[at].version += 1;
                Some(format!("another version of {picked:?}"))
            }
            4 => {
                let committed = self.committed.last()?[picked.place];
                let mut forged =
                    Written { offset: committed + i64::from(dice.one_in(2)), ..picked };
                if dice.one_in(2) {
                    forged.batch = Self::id(forged.transaction, 7);
                }
                log.push(forged.clone());
                Some(format!("forge {forged:?}"))
            }
            _ => self.mutate_manifest(dice),
        }
    }

    fn mutate_manifest(&mut self, dice: &mut Dice) -> Option<String> {
        let partition = dice.roll(self.manifests.len());
        let ours: Vec<usize> = (0..self.manifests[partition].len())
            .filter(|at| !self.manifests[partition][*at].2.batch_id.ends_with(['8', '9']))
            .collect();
        let at = *ours.get(dice.roll(ours.len()))?;
        let manifests = &mut self.manifests[partition];
        let manifest = &mut manifests[at].2;
        let what = match dice.roll(6) {
            0 => {
                let dropped = manifests.remove(at).2;
                return Some(format!("drop {dropped:?}"));
            }
            1 => {
                let twice = manifests[at].clone();
                manifests.push(twice);
                return Some(format!("duplicate {:?}", manifests[at].2));
            }
            2 => {
                manifest.records += 1;
                "records"
            }
            3 => {
                manifest.ranges[0].count += 1;
                "count"
            }
            // With compact headers a dead letter of the one topic may be taken for the other's prediction.
            4 if !self.compact => {
                manifest.ranges[0].topic_id = Some("id-of-another".to_owned());
                "topic id"
            }
            _ => {
                // A version that went back, and does not say so.
                let back = |range: &Range| {
                    let previous = range.previous.as_ref()?.strip_prefix("m/")?;
                    (manifest.version < previous.parse().ok()?).then_some(())
                };
                let at = manifest.ranges.iter().position(|range| back(range).is_some())?;
                manifest.ranges[at].previous = None;
                "previous"
            }
        };
        Some(format!("{what} of {manifest:?}"))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100_000, ..ProptestConfig::default() })]

    /// Health is never accused, whatever was deleted and whoever runs.
    #[test]
    fn health_is_never_accused(seed in any::<u64>()) {
        let history = History::draw(&mut Dice(seed), false);
        let report = history.judge();
        prop_assert!(report.violations.is_empty(), "{}\n{:#?}", report, history);
    }

    /// Where nothing was deleted, everything is proven, and one change is found.
    #[test]
    fn a_change_is_found(seed in any::<u64>()) {
        let mut dice = Dice(seed);
        let mut history = History::draw(&mut dice, true);
        let healthy = history.judge();
        prop_assert!(healthy.violations.is_empty(), "{}", healthy);
        let order = |unproven: &Unproven| unproven.because.contains("in which order") || unproven.because.contains("passed over");
        prop_assert!(healthy.unproven.iter().all(order), "{}", healthy);
        prop_assert_eq!(healthy.proven, healthy.outcomes.iter().sum::<u64>());
        let Some(change) = history.mutate(&mut dice) else { return Ok(()) };
        let report = history.judge();
        prop_assert!(!report.violations.is_empty(), "{}\n{}\n{:#?}", change, report, history);
    }
}

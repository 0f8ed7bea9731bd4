//! The judgement: what the facts prove, refute, or leave open.

use std::cmp::Ordering;
use std::collections::BTreeMap;

mod batches;
mod why;

use why::Why;

use super::checker::{Checker, Head, Pending, State};
use super::doubt::count;
use super::index::{Batch, Found, Span};
use super::offsets::{bits, words};
use super::report::{Kind, Report, Unproven};
use super::scope::After;

/// First and last offset, and how many, by partition and reason.
type Open = BTreeMap<(usize, Why), (i64, i64, u64)>;

/// What the last look at the brokers said, and what follows from it.
struct Judge<'a> {
    checker: Checker,
    after: &'a After,
    open: Open,
}

impl Checker {
    /// The judgement, after everything was read.
    pub fn finish(self, after: &After) -> Report {
        let mut judge = Judge { checker: self, after, open: Open::new() };
        judge.pending();
        judge.doubts();
        judge.checker.index.by_offset();
        for place in 0..judge.checker.states.len() {
            judge.records(place);
            judge.tail(place);
            judge.versions(place);
        }
        judge.batches();
        judge.not_committed();
        judge.report()
    }
}

impl Judge<'_> {
    fn state(&self, place: usize) -> &State {
        &self.checker.states[place]
    }

    fn committed(&self, place: usize) -> Option<i64> {
        self.after.committed(place)
    }

    /// Whether any partition of this one's topic has a committed offset.
    fn has_siblings(&self, place: usize) -> bool {
        let topic = self.state(place).input.topic;
        let same = |at: &usize| self.state(*at).input.topic == topic;
        (0..self.checker.states.len()).filter(same).any(|at| self.committed(at).is_some())
    }

    fn leave_open(&mut self, place: usize, why: Why, offset: i64) {
        let (first, last, count) = self.open.entry((place, why)).or_insert((offset, offset, 0));
        *first = offset.min(*first);
        *last = offset.max(*last);
        *count += 1;
    }

    /// Outcomes whose batch had no manifest when they were read. All manifests are here now.
    fn pending(&mut self) {
        for pending in std::mem::take(&mut self.checker.pending) {
            let Pending { at, id, partition, offset } = pending;
            let checker = &mut self.checker;
            let batch = checker.index.batch(id);
            let is_complete = batch.is_some_and(|batch| checker.index.get(batch).is_complete());
            let place = match (partition, batch) {
                (_, Some(batch)) if !checker.index.get(batch).ours => {
                    checker.report.foreign += 1;
                    continue;
                }
                (None, Some(batch)) => {
                    let found = checker.candidates(batch, checker.unknown_place(at), offset);
                    if 1 < found.now.len() || !found.earlier.is_empty() {
                        continue; // whether the manifest lies beyond the committed offsets is looked at
                    }
                    found.now.first().copied()
                }
                (place, _) => place,
            };
            let found =
                place.zip(batch).map(|(place, batch)| checker.index.find(place, batch, offset));
            match (place, found) {
                (Some(place), Some(Found::Now(_)))
                    if checker.is_judged(&checker.states[place], offset) =>
                {
                    checker.again(place, offset, id);
                }
                (Some(place), Some(Found::Now(_))) => {
                    checker.states[place].tail.insert(offset);
                }
                (Some(place), Some(Found::Earlier)) => checker.states[place].earlier.0 += 1,
                _ if is_complete => {
                    checker.uncovered(pending, "has a manifest that does not tell of it");
                }
                _ if checker.may_be_deleted(id) => checker.weak(pending),
                (Some(place), _) if self.after.is_beyond(place, offset) => {
                    checker.states[place].tail.insert(offset);
                }
                _ => checker.uncovered(pending, "has no manifest"),
            }
        }
    }

    /// Outcomes that may be of several partitions: now every other outcome is known.
    fn doubts(&mut self) {
        for ((batch, number, offset), came) in std::mem::take(&mut self.checker.doubts) {
            let candidates = self.checker.candidates(batch, number, offset);
            let open = self.checker.open(&candidates, offset);
            let wanted = open.len() + candidates.earlier.len();
            let id = self.checker.index.get(batch).id;
            match count(came).cmp(&wanted) {
                Ordering::Equal => self.checker.settle(&candidates, batch, offset),
                Ordering::Greater => self.checker.report.violated(Kind::Duplicate, || {
                    format!(
                        "batch {id} has {came} outcomes of offset {offset}, and {wanted} records"
                    )
                }),
                Ordering::Less => {
                    let excused = open.iter().any(|place| self.is_excused(*place, batch, offset));
                    self.checker.doubtful.insert(batch);
                    if excused || !candidates.earlier.is_empty() {
                        self.checker.unknown.entry(number).or_default().insert(offset);
                        continue;
                    }
                    let name = |place: &usize| self.checker.source_name(*place, offset);
                    let names = open.iter().map(name).collect::<Vec<_>>().join(", ");
                    let message = || format!("one of {names}: {came} outcomes of them");
                    self.checker.report.violated(Kind::Lost, message);
                    for place in open {
                        self.checker.states[place].bare.insert(offset);
                    }
                }
            }
        }
    }

    /// Whether this record of a batch may be none, or its outcome may have been deleted.
    fn is_excused(&self, place: usize, batch: u32, offset: i64) -> bool {
        let Found::Now(span) = self.checker.index.find(place, batch, offset) else { return true };
        let span = Some(&self.checker.index.spans[place].now[span]);
        !self.state(place).exists.contains(offset)
            || self.excuse(place, offset, self.lacks(span)).is_some()
    }

    /// Every record of a partition.
    fn records(&mut self, place: usize) {
        let state = self.state(place);
        let topic = &self.checker.scope.topics[state.input.topic];
        let compacted = topic.compacted;
        let stale = state.input.stale(topic.id.as_deref()).map(str::to_owned);
        let (low, from, until) = (state.low, self.checker.scope.from, state.input.until);
        let (end, committed) = (low.min(until), state.input.committed.unwrap_or(0));
        let count = |end: i64| u64::try_from(end - from).unwrap_or(0);
        if from < end {
            self.open.insert((place, Why::InputDeleted), (from, end - 1, count(end)));
        }
        if let Some(id) = stale.filter(|_| from < committed) {
            self.open.insert((place, Why::Stale(id)), (from, committed - 1, count(committed)));
        }
        let began = self.began(place);
        let state = &mut self.checker.states[place];
        let sets = [
            &mut state.exists,
            &mut state.answered,
            &mut state.weak,
            &mut state.bare,
            &mut state.doubted,
        ]
        .map(std::mem::take);
        for (first, [exists, answered, weak, bare, doubted]) in words(sets.each_ref()) {
            let proven = answered & exists & !weak;
            self.checker.report.proven += u64::from(proven.count_ones());
            if exists == answered && weak | doubted == 0 {
                continue;
            }
            for (why, word) in [
                (Why::ManifestDeleted, weak & !answered),
                (Why::Second, weak & answered),
                (Why::Order, doubted & answered),
            ] {
                bits(first, word).for_each(|offset| self.leave_open(place, why.clone(), offset));
            }
            for offset in bits(first, exists & !answered & !weak & !bare) {
                self.missing(place, offset, began.as_ref());
            }
            for offset in bits(first, answered & !exists & !weak).filter(|offset| low <= *offset) {
                if compacted {
                    self.leave_open(place, Why::InputCompacted, offset);
                    continue;
                }
                let source = self.checker.source_name(place, offset);
                let message = || format!("{source} has an outcome, and there is no such record");
                self.checker.report.violated(Kind::Unknown, message);
            }
        }
    }

    /// Of a partition in which the group may have begun anywhere: where it is first seen to have answered.
    fn began(&self, place: usize) -> Option<Why> {
        let state = self.state(place);
        let note = state.input.note.as_ref();
        // A partition that was added after the group's first start is read from its beginning.
        let appeared = note.is_some_and(|note| note.partitions <= state.input.number);
        if !self.checker.scope.anywhere || appeared {
            return None;
        }
        Some(Why::Began(self.checker.index.spans[place].now.first().map(|span| span.first)))
    }

    /// A record without an outcome.
    fn missing(&mut self, place: usize, offset: i64, began: Option<&Why>) {
        let checker = &self.checker;
        let input = &self.state(place).input;
        let skip = input.note.as_ref().and_then(|note| note.skip.as_ref());
        let span = checker.index.covering(place, offset);
        let why = if skip.is_some_and(|skip| skip.contains(&offset)) {
            Some(Why::Skipped)
        } else if let Some(Why::Began(first)) = began
            && first.is_none_or(|first| offset < first)
        {
            began.cloned()
        } else if self.is_ambiguous(place, offset) {
            Some(Why::Ambiguous)
        } else {
            let jumped = span.is_none() && checker.scope.jumps;
            self.excuse(place, offset, self.lacks(span)).or_else(|| jumped.then_some(Why::Jumped))
        };
        if let Some(why) = why {
            return self.leave_open(place, why, offset);
        }
        let source = checker.source_name(place, offset);
        let (answers, ids) = &self.state(place).earlier;
        let id = checker.scope.topics[input.topic].id.as_deref().unwrap_or("unknown");
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let first = checker.index.spans[place].now.first().map(|span| span.first);
        let example = if *answers != 0 {
            format!(
                "{source}: outcomes there are of topic id {}, the present one is {id}",
                ids.join(", ")
            )
        } else if let Some(first) = first.filter(|first| offset < *first) {
            format!(
                "{source}: no manifest of group {} begins before {first}; where it was meant to begin there, --from \
                 {first}",
                checker.scope.group
            )
        } else {
            source
        };
        self.checker.report.violated(Kind::Lost, || example);
    }

    /// Whether the batch of this range lacks predictions, and dead letters: one that has all its dead letters lacks
    /// predictions only.
    fn lacks(&self, span: Option<&Span>) -> (bool, bool) {
        span.map_or((true, true), |span| {
            let Batch { found, said, .. } = self.checker.index.get(span.batch);
            (found[0] + found[2] < said[0] + said[2], found[1] < said[1])
        })
    }

    /// Whether an outcome of that offset is there, and may be of this partition.
    fn is_ambiguous(&self, place: usize, offset: i64) -> bool {
        let number = self.state(place).input.number;
        let unknown = |at: i32| self.checker.unknown.get(&at);
        [unknown(-1), unknown(number)].into_iter().flatten().any(|set| set.contains(offset))
    }

    /// Why an outcome, a prediction or a dead letter, may have been there and is not seen.
    fn excuse(
        &self,
        place: usize,
        offset: i64,
        (lacks_prediction, lacks_dead_letter): (bool, bool),
    ) -> Option<Why> {
        let checker = &self.checker;
        let input = &self.state(place).input;
        let dead = checker.scope.dead_letters.get(input.topic).copied().unwrap_or(0);
        if lacks_prediction && checker.scope.silent {
            return Some(Why::Silent);
        }
        for (log, lacks) in [(0, lacks_prediction), (dead, lacks_dead_letter)] {
            if lacks && self.after.compacted.get(log) == Some(&true) {
                return Some(Why::Compacted(log));
            }
            let by_key = log == 0 && checker.scope.by_key;
            let numbers = self
                .after
                .cut
                .iter()
                .filter(|((at, number), _)| *at == log && (by_key || *number == input.number));
            for ((_, number), cut) in numbers.filter(|_| lacks) {
                let head = checker.heads.get(&(log, *number));
                let silent = matches!(head, Some(Head::Silent | Head::Both));
                let left = checker.tracks.get(&(place, log, *number));
                if (*cut || silent) && left.is_none_or(|track| offset < track.first) {
                    return Some(if *cut { Why::Deleted(log, *number) } else { Why::Silent });
                }
            }
        }
        None
    }

    /// Nothing lies at or beyond the committed offset: outcomes and offsets are committed together.
    fn tail(&mut self, place: usize) {
        let committed = self.committed(place);
        let input = &self.state(place).input;
        let id = self.checker.scope.topics[input.topic].id.as_deref();
        if committed.is_none() && !self.has_siblings(place) || input.stale(id).is_some() {
            return; // that nothing can be proven is said elsewhere
        }
        let said = committed.map_or_else(
            || "the group has no committed offset there".to_owned(),
            |committed| format!("the committed offset is {committed}"),
        );
        let found: Vec<i64> = self
            .state(place)
            .tail
            .iter()
            .filter(|offset| self.after.is_beyond(place, *offset))
            .collect();
        for offset in &found {
            let source = self.checker.source_name(place, *offset);
            self.checker
                .report
                .violated(Kind::Beyond, || format!("{source} has an outcome; {said}"));
        }
        let last = self.checker.index.spans[place].now.iter().max_by_key(|span| span.next);
        if let Some(span) =
            last.filter(|span| found.is_empty() && self.after.is_beyond(place, span.next - 1))
        {
            let id = self.checker.index.get(span.batch).id;
            let source = self.checker.source_name(place, span.next - 1);
            let message = format!("the manifest of batch {id} goes up to {source}; {said}");
            self.checker.report.violated(Kind::Beyond, || message);
        }
    }

    /// A partition's answers never go back to an older version, but where its own range records it.
    fn versions(&mut self, place: usize) {
        let checker = &self.checker;
        let state = self.state(place);
        let spans = &checker.index.spans[place].now;
        let (mut back, mut holes) = (Vec::new(), Vec::new());
        for pair in spans.windows(2) {
            let [before, span] = pair else { continue };
            let (old, new) = (checker.index.model(before.batch), checker.index.model(span.batch));
            let is_back = old.name == new.name && new.version < old.version;
            if !is_back || !checker.is_judged(state, span.first) {
                continue;
            }
            let recorded = format!("{}/{}", old.name, old.version);
            if checker.index.previous(span) == Some(&recorded) {
                continue;
            }
            if before.next < span.first && checker.deleted.is_some() {
                holes.push(span.first);
            } else {
                let source = checker.source_name(place, span.first);
                back.push(format!("{source}: from {recorded} to {}/{}", new.name, new.version));
            }
        }
        holes.into_iter().for_each(|offset| self.leave_open(place, Why::VersionHole, offset));
        for message in back {
            self.checker.report.violated(Kind::Version, || message);
        }
    }

    /// Partitions of which the group has committed nothing; or a whole topic.
    fn not_committed(&mut self) {
        for topic in 0..self.checker.scope.topics.len() {
            let of = |at: &usize| self.state(*at).input.topic == topic;
            let places: Vec<usize> = (0..self.after.committed.len()).filter(of).collect();
            // Where nothing was ever written there is nothing to commit.
            let is_open = |at: &usize| self.committed(*at).is_none() && self.state(*at).end != 0;
            let (open, all) = (places.iter().filter(|at| is_open(at)), places.iter().all(is_open));
            let numbers: Vec<Option<i32>> = if all && !places.is_empty() {
                vec![None]
            } else {
                open.map(|at| Some(self.state(*at).input.number)).collect()
            };
            for partition in numbers {
                let because = format!(
                    "group {} has no committed offset there: it never read it, or its offsets expired or were deleted",
                    self.checker.scope.group
                );
                let topic = self.checker.scope.topics[topic].name.clone();
                let unproven = Unproven { topic, partition, offsets: None, count: 0, because };
                self.checker.report.unproven.push(unproven);
            }
        }
    }

    fn report(mut self) -> Report {
        self.checker.report.earlier = self.checker.states.iter().map(|state| state.earlier.0).sum();
        for ((place, why), (first, last, count)) in std::mem::take(&mut self.open) {
            let because = why.because(&self.checker, place);
            let input = &self.state(place).input;
            let topic = self.checker.scope.topics[input.topic].name.clone();
            let (partition, offsets) = (Some(input.number), Some((first, last)));
            let unproven = Unproven { topic, partition, offsets, count, because };
            self.checker.report.unproven.push(unproven);
        }
        self.checker.report
    }
}

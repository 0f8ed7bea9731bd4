//! Outcomes with compact headers: they leave out the input topic and partition.
//!
//! The manifest of their batch says in which partitions it has that offset. Where those are several, as many outcomes of
//! the offset as there are such partitions are one for each; only their order is not known.

use std::collections::BTreeMap;

use super::checker::{At, Checker};
use super::facts::Outcome;
use super::index::Found;
use super::scope::Input;

/// How many outcomes of a batch have an offset and may be of several input partitions: by batch, the partition they stand
/// in (-1 where it says nothing), and offset.
pub(super) type Doubts = BTreeMap<(u32, i32, i64), u32>;

/// Partitions that an outcome may be of.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Their number where they all have the same; else -1.
    pub(super) number: i32,
    pub(super) now: Vec<usize>,
    /// Partitions of earlier topics.
    pub(super) earlier: Vec<usize>,
}

/// Whose record an outcome answers.
pub(super) enum Source {
    /// This partition's.
    Of(usize),
    /// One of these partitions', which all have that offset in the batch.
    OneOf(Candidates),
    /// Not known as long as its batch has no manifest.
    Unknown,
    /// Of no partition in the batch.
    None,
    /// Of a topic that is not judged.
    Elsewhere,
}

impl Checker {
    /// Whose record an outcome answers.
    pub(super) fn source(&mut self, at: At, outcome: &Outcome<'_>, batch: Option<u32>) -> Source {
        if let (Some(topic), Some(number)) = (outcome.topic, outcome.partition) {
            return self.place(topic, number).map_or(Source::Elsewhere, Source::Of);
        }
        let only = self.scope.topics.first().filter(|_| self.scope.topics.len() == 1);
        let topic = outcome.topic.or_else(|| only.map(|topic| topic.name.as_str()));
        let number = outcome.partition.unwrap_or_else(|| self.unknown_place(at));
        if let Some(topic) = topic.filter(|_| 0 <= number) {
            let topic = topic.to_owned();
            let Some(place) = self.place(&topic, number) else { return Source::Elsewhere };
            let is_here = |batch| self.index.find(place, batch, outcome.offset) != Found::Not;
            if outcome.partition.is_some() || batch.is_none_or(is_here) {
                return Source::Of(place);
            }
        }
        let Some(batch) = batch.filter(|batch| self.index.get(*batch).is_complete()) else {
            return Source::Unknown;
        };
        let mut candidates = self.candidates(batch, number, outcome.offset);
        if candidates.now.is_empty() && candidates.earlier.is_empty() {
            // Written when `output.partition` was another one.
            candidates = self.candidates(batch, -1, outcome.offset);
        }
        match (&candidates.now[..], &candidates.earlier[..]) {
            ([], []) => Source::None,
            ([place], []) | ([], [place, ..]) => Source::Of(*place),
            _ => Source::OneOf(candidates),
        }
    }

    /// The partitions in which a batch has this offset; `number` is -1 for any.
    pub(super) fn candidates(&self, batch: u32, number: i32, offset: i64) -> Candidates {
        let mut candidates = Candidates { number, ..Candidates::default() };
        for (place, state) in self.states.iter().enumerate() {
            if 0 <= number && state.input.number != number {
                continue;
            }
            match self.index.find(place, batch, offset) {
                Found::Now(_) if !self.is_absent(place, offset) => candidates.now.push(place),
                Found::Earlier => candidates.earlier.push(place),
                Found::Now(_) | Found::Not => (),
            }
        }
        candidates
    }

    /// Whether surely no record ever stood there that the group has read.
    fn is_absent(&self, place: usize, offset: i64) -> bool {
        let state = &self.states[place];
        let Input { topic, .. } = state.input;
        self.is_judged(state, offset)
            && state.low <= offset
            && !self.scope.topics[topic].compacted
            && !state.exists.contains(offset)
    }

    /// An outcome that may be of several partitions.
    pub(super) fn doubt(
        &mut self,
        at: At,
        candidates: &Candidates,
        outcome: &Outcome<'_>,
        batch: u32,
    ) {
        let (offset, number) = (outcome.offset, candidates.number);
        if !candidates.now.iter().all(|place| self.is_judged(&self.states[*place], offset)) {
            self.doubtful.insert(batch);
            self.unknown.entry(number).or_default().insert(offset);
            return;
        }
        self.check_model(at, candidates.now[0], outcome, batch);
        self.tally(batch, outcome.what);
        let came = self.doubts.entry((batch, number, offset)).or_default();
        *came += 1;
        let came = *came;
        if self.open(candidates, offset).len() + candidates.earlier.len() == count(came) {
            self.doubts.remove(&(batch, number, offset));
            self.settle(candidates, batch, offset);
        }
    }

    /// Those of the present partitions that have no outcome of that offset yet.
    pub(super) fn open(&self, candidates: &Candidates, offset: i64) -> Vec<usize> {
        let open = |place: &usize| !self.states[*place].answered.contains(offset);
        candidates.now.iter().copied().filter(open).collect()
    }

    /// Counts one outcome for each of the partitions.
    pub(super) fn settle(&mut self, candidates: &Candidates, batch: u32, offset: i64) {
        for place in self.open(candidates, offset) {
            self.states[place].doubted.insert(offset);
            self.states[place].answered.insert(offset);
            if let Found::Now(span) = self.index.find(place, batch, offset) {
                self.index.spans[place].now[span].found += 1;
            }
        }
        for place in &candidates.earlier {
            self.states[*place].earlier.0 += 1;
        }
    }
}

/// As many.
pub(super) fn count(came: u32) -> usize {
    usize::try_from(came).unwrap_or(usize::MAX)
}

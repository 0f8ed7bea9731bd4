//! Takes the facts in, one after the other; [`judge`](super::judge) ends it.
//!
//! | order | facts                                       | what is kept of them                              |
//! |------:|---------------------------------------------|---------------------------------------------------|
//! |     1 | manifests, up to an end fixed before        | [`Index`]: the range of each batch and partition  |
//! |     2 | input records below the committed offset    | a bit each                                        |
//! |     3 | outcomes, up to an end fixed before         | a bit each; a count for each batch and partition  |
//! |     4 | manifests that were written meanwhile       | as above, for what lay beyond the committed offset|
//! |     5 | committed offsets, once more                | nothing may lie beyond them                       |

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::doubt::{Doubts, Source};
use super::facts::{BatchId, Outcome, What};
use super::index::{Found, Index, Model, Tally, few, kind};
use super::offsets::Offsets;
use super::report::{Kind, Report};
use super::scope::{Input, Scope};
use crate::log::manifest::Manifest;

/// Clocks of two machines differ by at most so much, in ms.
const SKEW: i64 = 60_000;
/// So many outcomes wait for a manifest that was written while they were read; more of them have none.
const PENDING_MAX: usize = 1 << 16;

/// Where a message of an outcome topic stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct At {
    /// The topic, by its place in [`Scope::logs`].
    pub log: usize,
    /// The partition.
    pub partition: i32,
    /// The message's offset.
    pub offset: i64,
}

/// An outcome that counts as proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// The input partition, by its place in [`Scope::partitions`].
    pub partition: usize,
    /// Who answered, by its place in [`Checker::models`].
    pub model: u32,
}

/// An input partition's facts.
#[derive(Debug)]
pub(super) struct State {
    pub(super) input: Input,
    /// Where its log begins, and where it ends.
    pub(super) low: i64,
    pub(super) end: i64,
    /// Its records in the judged range.
    pub(super) exists: Offsets,
    /// Those that have an outcome which a manifest of ours tells of.
    pub(super) answered: Offsets,
    /// Those that have one whose manifest was deleted.
    pub(super) weak: Offsets,
    /// Those that have one without a manifest, which is a violation.
    pub(super) bare: Offsets,
    /// Outcomes at or beyond the committed offset.
    pub(super) tail: Offsets,
    /// Outcomes that do not say whether they are of this partition.
    pub(super) doubted: Offsets,
    /// Outcomes of earlier topics of this name, and the ids.
    pub(super) earlier: (u64, BTreeSet<String>),
}

/// The source offsets of one input partition in one partition of an outcome topic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Track {
    pub(super) first: i64,
    last: i64,
}

/// What a partition of an outcome topic began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// Messages that do not say what they answer.
    Silent,
    /// An outcome.
    Said,
    /// First the one, then the other.
    Both,
}

/// An outcome whose batch has no manifest yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    pub(super) at: At,
    pub(super) id: BatchId,
    pub(super) partition: Option<usize>,
    pub(super) offset: i64,
}

/// Takes the facts in and judges them.
#[derive(Debug, Default)]
pub struct Checker {
    pub(super) scope: Scope,
    pub(super) states: Vec<State>,
    pub(super) index: Index,
    pub(super) tracks: HashMap<(usize, usize, i32), Track>,
    pub(super) heads: BTreeMap<(usize, i32), Head>,
    /// Offsets of outcomes whose source is not known, by the partition they stand in.
    pub(super) unknown: BTreeMap<i32, Offsets>,
    pub(super) doubts: Doubts,
    /// Batches with outcomes that may be of several partitions, and are not as many as those.
    pub(super) doubtful: BTreeSet<u32>,
    pub(super) pending: Vec<Pending>,
    /// Manifests of batches that were made before this time (ms since 1970) may have been deleted.
    pub(super) deleted: Option<i64>,
    pub(super) report: Report,
}

impl Checker {
    /// A checker for this scope.
    pub fn new(scope: Scope) -> Self {
        let mut checker = Self { scope, ..Self::default() };
        checker.report.group.clone_from(&checker.scope.group);
        for input in std::mem::take(&mut checker.scope.partitions) {
            checker.add(input);
        }
        checker
    }

    fn add(&mut self, mut input: Input) -> usize {
        let id = self.scope.topics[input.topic].id.as_deref();
        if input.stale(id).is_some() {
            input.until = self.scope.from; // its committed offset says nothing of this topic
        }
        self.index.spans.push(super::index::Spans::default());
        self.states.push(State {
            input,
            low: 0,
            end: 0,
            exists: Offsets::default(),
            answered: Offsets::default(),
            weak: Offsets::default(),
            bare: Offsets::default(),
            tail: Offsets::default(),
            doubted: Offsets::default(),
            earlier: (0, BTreeSet::new()),
        });
        self.states.len() - 1
    }

    /// The place of an input partition; `None` of a topic that is not judged.
    pub fn place(&mut self, topic: &str, number: i32) -> Option<usize> {
        let topic = self.scope.topics.iter().position(|known| known.name == topic)?;
        let same = |state: &State| state.input.topic == topic && state.input.number == number;
        let known = self.states.iter().position(same);
        // An earlier topic of this name may have had more partitions.
        let input = || Input { topic, number, committed: None, note: None, until: i64::MIN };
        Some(known.unwrap_or_else(|| self.add(input())))
    }

    /// The versions that manifests name.
    pub fn models(&self) -> &[Model] {
        &self.index.models
    }

    /// A message of the manifest topic that is no tombstone; `at` says where it stands.
    pub fn manifest(&mut self, manifest: Option<&Manifest>, at: &dyn Fn() -> String) {
        let Some(manifest) = manifest else {
            let message = || format!("{} is not a manifest that this version reads", at());
            return self.report.violated(Kind::Manifest, message);
        };
        let ours = manifest.group.as_ref().is_none_or(|group| *group == self.scope.group);
        let batch = match self.index.add(manifest, ours) {
            Ok(batch) => batch,
            Err(why) if ours => {
                return self.report.violated(Kind::Manifest, || format!("{}: {why}", at()));
            }
            Err(_) => return,
        };
        for range in &manifest.ranges {
            let place = self.place(&range.topic, range.partition);
            let known = self.index.get_mut(batch);
            known.ranged = known.ranged.saturating_add(few(range.count));
            known.elsewhere |= place.is_none();
            let Some(place) = place else { continue };
            let id = self.scope.topics[self.states[place].input.topic].id.as_ref();
            let other = range.topic_id.as_ref().filter(|was| id.is_some_and(|id| id != *was));
            if let Some(other) = other.filter(|_| ours) {
                self.states[place].earlier.1.insert(other.clone());
            }
            self.index.range(batch, place, other.is_none(), range);
        }
    }

    /// The manifests are read. Those of batches that were made before `deleted` (ms since 1970) may be gone.
    pub fn manifests_read(&mut self, deleted: Option<i64>) {
        self.index.by_batch();
        self.deleted = deleted.map(|time| time.saturating_add(SKEW));
    }

    /// A record of an input partition, below the committed offset.
    pub fn record(&mut self, partition: usize, offset: i64) {
        let state = &mut self.states[partition];
        if (self.scope.from..state.input.until).contains(&offset) && state.exists.insert(offset) {
            self.report.records += 1;
        }
    }

    /// An input partition is read: what is left of its log.
    pub fn input_read(&mut self, partition: usize, log: std::ops::Range<i64>) {
        (self.states[partition].low, self.states[partition].end) = (log.start, log.end);
    }

    /// A message of the output topic whose headers do not say what it answers.
    pub fn silent(&mut self, at: At) {
        self.report.silent += 1;
        let head = self.heads.entry((at.log, at.partition)).or_insert(Head::Silent);
        if *head != Head::Silent && !self.scope.silent {
            self.broken(at);
        }
    }

    /// A message whose headers say it in part only.
    pub fn broken(&mut self, at: At) {
        let name = self.spell(at);
        self.report.violated(Kind::Unknown, || format!("{name} does not say what it answers"));
    }

    /// A message of another program in a dead-letter topic.
    pub fn foreign(&mut self) {
        self.report.foreign += 1;
    }

    /// An outcome, in the order in which its partition gives it. Whether it counts.
    pub fn outcome(&mut self, at: At, outcome: &Outcome<'_>) -> Option<Counted> {
        let head = self.heads.entry((at.log, at.partition)).or_insert(Head::Said);
        if *head == Head::Silent {
            *head = Head::Both;
        }
        let id = BatchId::of(outcome.batch);
        let batch = self.index.batch(id);
        if batch.is_some_and(|batch| !self.index.get(batch).ours) {
            self.report.foreign += 1;
            return None;
        }
        let source = self.source(at, outcome, batch);
        match (source, batch) {
            (Source::Elsewhere, _) => self.report.foreign += 1,
            (Source::Of(place), Some(batch)) => return self.of(at, place, outcome, batch),
            (Source::OneOf(candidates), Some(batch)) => {
                self.doubt(at, &candidates, outcome, batch);
            }
            (Source::Of(place), None) => {
                let (partition, offset) = (Some(place), outcome.offset);
                self.without_manifest(Pending { at, id, partition, offset });
            }
            (Source::Unknown | Source::None | Source::OneOf(_), None) | (Source::Unknown, _) => {
                self.doubtful.extend(batch);
                let (partition, offset) = (None, outcome.offset);
                self.without_manifest(Pending { at, id, partition, offset });
            }
            (Source::None, Some(batch)) => {
                let pending = Pending { at, id, partition: None, offset: outcome.offset };
                self.not_covered(pending, batch);
            }
        }
        None
    }

    pub(super) fn is_judged(&self, state: &State, offset: i64) -> bool {
        (self.scope.from..state.input.until).contains(&offset)
    }

    /// An outcome of a known partition and batch.
    fn of(&mut self, at: At, place: usize, outcome: &Outcome<'_>, batch: u32) -> Option<Counted> {
        let offset = outcome.offset;
        let span = match self.index.find(place, batch, offset) {
            Found::Now(span) => span,
            Found::Earlier => {
                self.states[place].earlier.0 += 1;
                return None;
            }
            Found::Not => {
                let id = self.index.get(batch).id;
                self.not_covered(Pending { at, id, partition: Some(place), offset }, batch);
                return None;
            }
        };
        let judged = self.is_judged(&self.states[place], offset);
        let state = &mut self.states[place];
        let tail = state.input.committed.is_none_or(|committed| committed <= offset);
        if !judged && !tail {
            return None; // outside of --from and --to
        }
        self.check_model(at, place, outcome, batch);
        self.in_order(at, place, offset);
        let state = &mut self.states[place];
        let is_new = if judged { state.answered.insert(offset) } else { state.tail.insert(offset) };
        if !is_new {
            let source = self.source_name(place, offset);
            let name = self.spell(at);
            self.report.violated(Kind::Duplicate, || {
                format!("{source} has several outcomes; {name} is one")
            });
            return None;
        }
        if !judged {
            return None;
        }
        self.index.spans[place].now[span].found += 1;
        self.tally(batch, outcome.what);
        Some(Counted { partition: place, model: self.index.get(batch).model })
    }

    pub(super) fn tally(&mut self, batch: u32, what: What) {
        self.index.get_mut(batch).found[kind(what)] += 1;
        self.report.outcomes[kind(what)] += 1;
    }

    pub(super) fn check_model(&mut self, at: At, place: usize, outcome: &Outcome<'_>, batch: u32) {
        let model = self.index.model(batch);
        let differs = outcome.version.is_some_and(|version| version != model.version)
            || outcome.model.is_some_and(|name| name != model.name)
            || outcome.digest.is_some_and(|digest| digest != model.digest);
        if differs {
            let (name, version) = (outcome.model.unwrap_or(&model.name), outcome.version);
            let version = version.map_or_else(|| "?".to_owned(), |version| version.to_string());
            let message = format!(
                "{} of {} is by {name}/{version}, the manifest of batch {} says {}/{} {}",
                self.spell(at),
                self.source_name(place, outcome.offset),
                self.index.get(batch).id,
                model.name,
                model.version,
                model.digest
            );
            self.report.violated(Kind::Mixed, || message);
        }
    }

    fn in_order(&mut self, at: At, place: usize, offset: i64) {
        let key = (place, at.log, at.partition);
        let track = self.tracks.entry(key).or_insert(Track { first: offset, last: offset });
        let last = track.last;
        track.first = track.first.min(offset);
        track.last = last.max(offset);
        if offset < last {
            let (name, source) = (self.spell(at), self.source_name(place, offset));
            self.report
                .violated(Kind::Disorder, || format!("{name} of {source} stands behind {last}"));
        }
    }

    /// An outcome whose batch has no manifest: deleted, or not read yet, or there never was one.
    fn without_manifest(&mut self, pending: Pending) {
        let Pending { at, id, partition, offset } = pending;
        let Some(place) = partition else {
            if self.may_be_deleted(id) {
                self.unknown.entry(self.unknown_place(at)).or_default().insert(offset);
            } else if self.pending.len() < PENDING_MAX {
                self.pending.push(pending);
            } else {
                self.uncovered(pending, "has no manifest");
            }
            return;
        };
        let state = &self.states[place];
        let judged = self.is_judged(state, offset);
        let tail = state.input.committed.is_none_or(|committed| committed <= offset);
        match (judged, self.may_be_deleted(id)) {
            (true, true) => self.weak(pending),
            (false, _) if !tail => (),
            // Another group may have written it, and its manifest, after the manifests were read.
            _ if self.pending.len() < PENDING_MAX => self.pending.push(pending),
            _ => self.uncovered(pending, "has no manifest"),
        }
    }

    /// An outcome that its batch's manifest does not tell of: no piece that is here.
    fn not_covered(&mut self, pending: Pending, batch: u32) {
        if self.index.get(batch).is_complete() {
            self.uncovered(pending, "has a manifest that does not tell of it");
        } else {
            self.without_manifest(pending);
        }
    }

    /// An outcome whose manifest was deleted: it may be of another group, or of an earlier topic.
    pub(super) fn weak(&mut self, pending: Pending) {
        if let Some(place) = pending.partition {
            self.states[place].weak.insert(pending.offset);
        }
    }

    pub(super) fn uncovered(&mut self, pending: Pending, why: &str) {
        let Pending { at, id, partition, offset } = pending;
        let name = self.spell(at);
        let source = partition.map(|place| {
            self.states[place].bare.insert(offset);
            format!(" of {}", self.source_name(place, offset))
        });
        let source = source.unwrap_or_default();
        self.report.violated(Kind::Uncovered, || format!("{name}{source}: its batch {id} {why}"));
    }

    /// A batch that was committed while this was read answers a record that had been answered before.
    pub(super) fn again(&mut self, place: usize, offset: i64, id: BatchId) {
        let source = self.source_name(place, offset);
        let message =
            || format!("{source} was committed before, and is answered by batch {id} too");
        self.report.violated(Kind::Duplicate, message);
    }

    /// Whether the batch is old enough for its manifest to have been deleted.
    pub(super) fn may_be_deleted(&self, id: BatchId) -> bool {
        self.deleted.is_some_and(|deleted| id.time().is_some_and(|time| time <= deleted))
    }

    /// Where outcomes of unknown source are kept: by partition where that says something.
    pub(super) fn unknown_place(&self, at: At) -> i32 {
        if self.scope.by_key { -1 } else { at.partition }
    }

    pub(super) fn spell(&self, at: At) -> String {
        let name = self.scope.logs.get(at.log).map_or("?", String::as_str);
        format!("{name}/{}/{}", at.partition, at.offset)
    }

    pub(super) fn source_name(&self, place: usize, offset: i64) -> String {
        let Input { topic, number, .. } = &self.states[place].input;
        format!("{}/{number}/{offset}", self.scope.topics[*topic].name)
    }

    /// The furthest offset that an outcome or a manifest of ours was seen to cover in a partition, plus one.
    pub fn reach(&self, partition: usize) -> i64 {
        let state = &self.states[partition];
        let ours = |span: &&super::index::Span| self.index.get(span.batch).ours;
        let spans = self.index.spans[partition].now.iter().filter(ours).map(|span| span.next);
        let tail = state.tail.iter().last().map(|offset| offset.saturating_add(1));
        let of = |pending: &&Pending| pending.partition == Some(partition);
        let pending =
            self.pending.iter().filter(of).map(|pending| pending.offset.saturating_add(1));
        spans.chain(tail).chain(pending).max().unwrap_or(0)
    }

    /// Tally of outcomes so far, for progress.
    pub fn outcomes(&self) -> Tally {
        self.report.outcomes
    }
}

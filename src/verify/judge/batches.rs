//! The outcomes of each batch are exactly what its manifest counts.

use std::collections::{BTreeMap, BTreeSet};

use super::{Judge, Why};
use crate::verify::index::{Batch, Few, Span};
use crate::verify::report::Kind;

/// What the ranges of all batches say.
#[derive(Default)]
struct Ranges {
    /// Batches with a range that is judged.
    judged: Vec<bool>,
    /// Batches with a range that is not.
    partial: Vec<bool>,
    /// Ranges with other outcomes than they count, and no excuse.
    wrong: Vec<(usize, Span)>,
    /// Ranges with fewer, and why that may be.
    short: Vec<(usize, Why, Span)>,
    /// Batches whose missing predictions, and dead letters, are excused.
    excused: BTreeMap<u32, (bool, bool)>,
}

impl Judge<'_> {
    /// Looks at every batch with a range that is judged.
    pub(super) fn batches(&mut self) {
        let ranges = self.ranges();
        self.silent_total(&ranges);
        for (place, span) in &ranges.wrong {
            let Span { first, next, count, found, .. } = span;
            let id = self.checker.index.get(span.batch).id;
            let name = self.checker.source_name(*place, *first);
            self.checker.report.violated(Kind::Count, || {
                let last = next - 1;
                format!(
                    "batch {id}: {found} outcomes of {name} to {last}, the manifest says {count}"
                )
            });
        }
        let wrong: BTreeSet<u32> = ranges.wrong.iter().map(|(_, span)| span.batch).collect();
        for (batch, is_judged) in (0_u32..).zip(&ranges.judged) {
            let Batch { ours, elsewhere, .. } = *self.checker.index.get(batch);
            if !*is_judged || !ours {
                continue;
            }
            self.checker.report.batches += 1;
            let is_whole = !ranges.partial[at(batch)] && !elsewhere && !wrong.contains(&batch);
            let excused = ranges.excused.get(&batch).copied().unwrap_or_default();
            self.batch(batch, is_whole.then_some(excused));
        }
        for (place, why, span) in ranges.short {
            // Where the records are still there, each of them was looked at.
            if span.first < self.state(place).low {
                self.leave_open(place, why, span.first);
            }
        }
    }

    fn ranges(&self) -> Ranges {
        let checker = &self.checker;
        let nothing = vec![false; checker.index.batches.len()];
        let mut ranges = Ranges { judged: nothing.clone(), partial: nothing, ..Ranges::default() };
        for (place, spans) in checker.index.spans.iter().enumerate() {
            for span in &spans.earlier {
                ranges.partial[at(span.batch)] = true;
            }
            for span in &spans.now {
                let inside = |offset: i64| checker.is_judged(self.state(place), offset);
                let (first, last) = (inside(span.first), inside(span.next - 1));
                ranges.judged[at(span.batch)] |= first || last;
                ranges.partial[at(span.batch)] |= !first || !last;
                if !first || !last || span.found == span.count {
                    continue;
                }
                let excuse = |lacks| self.excuse(place, span.first, lacks);
                let excused = ranges.excused.entry(span.batch).or_default();
                excused.0 |= excuse((true, false)).is_some();
                excused.1 |= excuse((false, true)).is_some();
                let doubtful = checker.doubtful.contains(&span.batch).then_some(Why::Ambiguous);
                let why = doubtful.or_else(|| excuse(self.lacks(Some(span))));
                match why.filter(|_| span.found < span.count) {
                    Some(why) => ranges.short.push((place, why, span.clone())),
                    None => ranges.wrong.push((place, span.clone())),
                }
            }
        }
        ranges
    }

    /// Where predictions do not say what they answer, there are still as many as the manifests count.
    fn silent_total(&mut self, ranges: &Ranges) {
        let cut = self.after.cut.iter().any(|((log, _), cut)| *log == 0 && *cut);
        if !self.checker.scope.silent || cut || self.after.compacted.first() == Some(&true) {
            return;
        }
        let whole = |(place, batch): &(usize, &Batch)| {
            ranges.judged[*place] && !ranges.partial[*place] && batch.ours
        };
        let of = |[predictions, _, tombstones]: Few| u64::from(predictions) + u64::from(tombstones);
        let batches = self.checker.index.batches.iter().enumerate().filter(whole);
        let unseen: u64 =
            batches.map(|(_, batch)| of(batch.said).saturating_sub(of(batch.found))).sum();
        let report = &mut self.checker.report;
        if report.silent < unseen {
            let silent = report.silent;
            report.violated(Kind::Count, || {
                format!(
                    "manifests count {unseen} predictions without headers, and {silent} are there"
                )
            });
        }
    }

    /// One batch. `excused` is `None` where not all of it is judged; else whether missing predictions, and missing dead
    /// letters, are excused.
    fn batch(&mut self, batch: u32, excused: Option<(bool, bool)>) {
        let checker = &mut self.checker;
        let batch = checker.index.get(batch);
        let (id, said, found) = (batch.id, batch.said, batch.found);
        if !batch.is_complete() {
            let (pieces, there) = batch.pieces;
            if pieces < there || !checker.may_be_deleted(id) {
                checker.report.violated(Kind::Manifest, || {
                    format!("batch {id}: {there} of {pieces} pieces of its manifest are there")
                });
            }
            return;
        }
        let sum = said.iter().fold(0_u32, |sum, count| sum.saturating_add(*count));
        let (records, ranged) = (batch.records, batch.ranged);
        if sum != records || ranged != records {
            return checker.report.violated(Kind::Count, || {
                format!(
                    "the manifest of batch {id} contradicts itself: {records} records, {sum} outcomes, {ranged} in its \
                     ranges"
                )
            });
        }
        let more = found.iter().zip(said).any(|(found, said)| *found > said);
        let fewer = excused.is_some_and(|(predictions, dead_letters)| {
            let of_output = found[0] < said[0] || found[2] < said[2];
            of_output && !predictions || found[1] < said[1] && !dead_letters
        });
        if more || fewer {
            checker.report.violated(Kind::Count, || {
                format!("batch {id} has {}; its manifest says {}", words(found), words(said))
            });
        }
    }
}

fn words([predictions, dead_letters, tombstones]: Few) -> String {
    format!("{predictions} predictions, {dead_letters} dead letters, {tombstones} tombstones")
}

fn at(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

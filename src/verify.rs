//! The proof of the promise for what was committed: pure, facts in, counter-examples out.
//!
//! ```text
//!  input offsets ┐
//!  outcomes ─────┼─► Checker ─► Report: counts, and the first counter-examples of each kind
//!  manifests ────┘
//! ```
//!
//! Checked: each input offset below the committed one has exactly one outcome; outcomes stand in offset order;
//! no batch has two versions; each manifest counts the outcomes of its batch; a partition goes back to an older
//! version only where a manifest records the swap.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Counter-examples kept of each kind.
const SHOWN: usize = 10;

/// A record's place in the input.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// The input topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

/// An outcome as a reader sees it, in the order of its topic and partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The record it answers.
    pub source: Source,
    /// The batch it was made in.
    pub batch: String,
    /// The version that made it; `None` for a dead letter.
    pub version: Option<u64>,
}

/// A manifest record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The batch.
    pub batch: String,
    /// Its version.
    pub version: u64,
    /// The version before, where the batch is the first after a swap.
    pub swapped_from: Option<u64>,
    /// Outcomes that the batch made.
    pub records: u64,
}

/// The kinds of counter-example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A committed record without an outcome.
    Lost,
    /// A record with more than one.
    Duplicate,
    /// An outcome behind one of a later record of its partition.
    Disorder,
    /// A batch of two versions, or of another version than its manifest says.
    Mixed,
    /// A manifest that counts other outcomes than there are, or is missing or double.
    Manifest,
    /// A partition that went back to an older version without a recorded swap.
    Version,
    /// An outcome of no record: nothing stands at its source, or it has no provenance.
    Unknown,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicate => "duplicate",
            Self::Disorder => "out of order",
            Self::Mixed => "mixed versions",
            Self::Manifest => "manifest",
            Self::Version => "version went back",
            Self::Unknown => "without a record",
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Input records in the range.
    pub records: u64,
    /// Outcomes: predictions and tombstones, dead letters.
    pub outcomes: (u64, u64),
    /// Batches.
    pub batches: u64,
    /// Violations: how many, and the first of them.
    pub violations: BTreeMap<Kind, (u64, Vec<String>)>,
}

impl Report {
    fn violated(&mut self, kind: Kind, example: impl FnOnce() -> String) {
        let (count, examples) = self.violations.entry(kind).or_default();
        *count += 1;
        if examples.len() < SHOWN {
            examples.push(example());
        }
    }
}

/// Takes the facts in and judges them.
#[derive(Debug, Default)]
pub struct Checker {
    /// Outcomes of each record.
    records: BTreeMap<(String, i32), BTreeMap<i64, u32>>,
    /// Where each partition of each output topic has got to: the last source offset.
    order: BTreeMap<(String, String, i32), i64>,
    /// By batch: outcomes, versions.
    batches: BTreeMap<String, (u64, BTreeSet<u64>)>,
    manifests: BTreeMap<String, (Manifest, u32)>,
    /// By input partition: offset and version, in any order.
    versions: BTreeMap<(String, i32), BTreeMap<i64, u64>>,
    report: Report,
}

impl Checker {
    /// A record that was read and is below the committed offset.
    pub fn record(&mut self, source: Source) {
        self.report.records += 1;
        self.records.entry((source.topic, source.partition)).or_default().insert(source.offset, 0);
    }

    /// An outcome, in the order in which its topic's partition gives it. After all records.
    pub fn outcome(&mut self, topic: &str, outcome: Outcome) {
        let Outcome { source, batch, version } = outcome;
        let place = (source.topic.clone(), source.partition);
        let found =
            self.records.get_mut(&place).and_then(|offsets| offsets.get_mut(&source.offset));
        let Some(outcomes) = found else {
            // Beyond the range, or of nothing: only what is committed is judged.
            let last = self.records.get(&place).and_then(|offsets| offsets.keys().next_back());
            if last.is_some_and(|last| source.offset < *last) {
                self.report.violated(Kind::Unknown, || format!("{topic}: an outcome of {source}"));
            }
            return;
        };
        *outcomes += 1;
        if 1 < *outcomes {
            let outcomes = *outcomes;
            self.report.violated(Kind::Duplicate, || format!("{source} has {outcomes} outcomes"));
        }
        let order = (topic.to_owned(), source.topic.clone(), source.partition);
        let before = self.order.insert(order, source.offset);
        if let Some(before) = before.filter(|before| source.offset <= *before) {
            self.report.violated(Kind::Disorder, || format!("{topic}: {source} behind {before}"));
        }
        let (rows, versions) = self.batches.entry(batch).or_default();
        *rows += 1;
        match version {
            Some(version) => {
                self.report.outcomes.0 += 1;
                versions.insert(version);
                self.versions.entry(place).or_default().insert(source.offset, version);
            }
            None => self.report.outcomes.1 += 1,
        }
    }

    /// An outcome whose headers do not say what it answers.
    pub fn without_provenance(&mut self, topic: &str, partition: i32, offset: i64) {
        self.report.violated(Kind::Unknown, || {
            format!("{topic}/{partition}/{offset} has no provenance (output.headers: none?)")
        });
    }

    /// A manifest.
    pub fn manifest(&mut self, manifest: Manifest) {
        let entry = self.manifests.entry(manifest.batch.clone()).or_insert((manifest, 0));
        entry.1 += 1;
    }

    /// The judgement.
    pub fn finish(mut self) -> Report {
        self.check_records();
        self.check_batches();
        self.check_versions();
        self.report.batches = u64::try_from(self.batches.len()).unwrap_or(u64::MAX);
        self.report
    }

    fn check_records(&mut self) {
        for ((topic, partition), offsets) in &self.records {
            for (offset, _) in offsets.iter().filter(|(_, outcomes)| **outcomes == 0) {
                self.report.violated(Kind::Lost, || format!("{topic}/{partition}/{offset}"));
            }
        }
    }

    fn check_batches(&mut self) {
        for (batch, (rows, versions)) in &self.batches {
            if 1 < versions.len() {
                self.report
                    .violated(Kind::Mixed, || format!("batch {batch}: versions {versions:?}"));
            }
            match self.manifests.get(batch) {
                None => self.report.violated(Kind::Manifest, || format!("batch {batch} has none")),
                Some((_, 2..)) => {
                    self.report.violated(Kind::Manifest, || format!("batch {batch} has several"));
                }
                Some((manifest, _)) => {
                    if let Some(other) = versions.iter().find(|v| **v != manifest.version) {
                        let said = manifest.version;
                        let message = || format!("batch {batch}: version {other}, manifest {said}");
                        self.report.violated(Kind::Mixed, message);
                    }
                    // Some of its rows may lie beyond the range that is judged.
                    if manifest.records < *rows {
                        let said = manifest.records;
                        let message = || format!("batch {batch}: {rows} outcomes, manifest {said}");
                        self.report.violated(Kind::Manifest, message);
                    }
                }
            }
        }
    }

    fn check_versions(&mut self) {
        let recorded: BTreeSet<(u64, u64)> = self
            .manifests
            .values()
            .filter_map(|(manifest, _)| Some((manifest.swapped_from?, manifest.version)))
            .collect();
        for ((topic, partition), offsets) in &self.versions {
            let mut before: Option<u64> = None;
            for (offset, version) in offsets {
                let back = before.filter(|before| version < before);
                if let Some(from) = back.filter(|from| !recorded.contains(&(*from, *version))) {
                    self.report.violated(Kind::Version, || {
                        format!("{topic}/{partition}/{offset}: from {from} to {version}")
                    });
                }
                before = Some(*version);
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} committed records, {} predictions and tombstones, {} dead letters, {} batches",
            self.records, self.outcomes.0, self.outcomes.1, self.batches
        )?;
        for (kind, (count, examples)) in &self.violations {
            writeln!(f, "VIOLATED {}: {count}", kind.name())?;
            for example in examples {
                writeln!(f, "  {example}")?;
            }
        }
        if self.violations.is_empty() {
            writeln!(f, "holds: one outcome a record, in order, one version a batch")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Facts as `r:OFFSET`, `o:OFFSET:BATCH:VERSION`, `d:OFFSET:BATCH`, `m:BATCH:VERSION:RECORDS[:FROM]`.
    #[track_caller]
    fn check(facts: &str, expect: &[Kind]) {
        let source = |offset: &str| Source {
            topic: "in".to_owned(),
            partition: 0,
            offset: offset.parse().unwrap(),
        };
        let mut checker = Checker::default();
        for fact in facts.split_whitespace() {
            match fact.split(':').collect::<Vec<_>>()[..] {
                ["r", offset] => checker.record(source(offset)),
                ["o", offset, batch, version] => checker.outcome(
                    "out",
                    Outcome {
                        source: source(offset),
                        batch: batch.to_owned(),
                        version: Some(version.parse().unwrap()),
                    },
                ),
                ["d", offset, batch] => {
                    let outcome =
                        Outcome { source: source(offset), batch: batch.to_owned(), version: None };
                    checker.outcome("dlq", outcome);
                }
                ["m", batch, version, records, ref from @ ..] => checker.manifest(Manifest {
                    batch: batch.to_owned(),
                    version: version.parse().unwrap(),
                    swapped_from: from.first().map(|from| from.parse().unwrap()),
                    records: records.parse().unwrap(),
                }),
                _ => panic!("{fact}"),
            }
        }
        let report = checker.finish();
        let kinds: Vec<Kind> = report.violations.keys().copied().collect();
        assert_eq!(kinds, expect, "{facts}\n{report}");
    }

    #[test]
    fn each_violation_is_found() {
        check("", &[]);
        check("r:0 r:1 r:3 o:0:a:1 d:1:a o:3:a:1 m:a:1:3", &[]);
        check("r:0 r:1 o:0:a:1 m:a:1:1", &[Kind::Lost]);
        check("r:0 o:0:a:1 o:0:b:1 m:a:1:1 m:b:1:1", &[Kind::Duplicate, Kind::Disorder]);
        check("r:0 o:0:a:1 d:0:a m:a:1:2", &[Kind::Duplicate]);
        check("r:0 r:1 o:1:a:1 o:0:a:1 m:a:1:2", &[Kind::Disorder]);
        check("r:0 r:1 o:0:a:1 o:1:a:2 m:a:1:2", &[Kind::Mixed]);
        check("r:0 o:0:a:2 m:a:1:1", &[Kind::Mixed]);
        check("r:0 o:0:a:1", &[Kind::Manifest]);
        check("r:0 o:0:a:1 m:a:1:1 m:a:1:1", &[Kind::Manifest]);
        check("r:0 r:1 o:0:a:1 o:1:a:1 m:a:1:1", &[Kind::Manifest]);
        check("r:0 r:1 o:0:a:2 o:1:b:1 m:a:2:1 m:b:1:1", &[Kind::Version]);
        check("r:0 r:1 o:0:a:2 o:1:b:1 m:a:2:1 m:b:1:1:2", &[]);
        check("r:0 r:2 o:0:a:1 o:1:a:1 o:2:a:1 m:a:1:3", &[Kind::Unknown]);
        check("r:0 o:0:a:1 o:7:b:1 m:a:1:1", &[]);
    }
}

//! What was found: counts, counter-examples, and what cannot be proven.

use std::collections::BTreeMap;
use std::fmt;

use crate::printable::{counted, escaped, rate, thousands};
use serde::{Serialize, Serializer};

use super::index::Tally;

/// Counter-examples kept of each kind.
const SHOWN: usize = 10;

/// The kinds of counter-example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A committed record without an outcome.
    Lost,
    /// A record with more than one.
    Duplicate,
    /// An outcome behind one of a later record of its partition.
    Disorder,
    /// An outcome, or a manifest, at or beyond the committed offset: forged, or a torn transaction.
    Beyond,
    /// An outcome that no manifest tells of.
    Uncovered,
    /// A batch whose outcomes are not what its manifest counts.
    Count,
    /// A manifest that is twice there, or in part, or cannot be read.
    Manifest,
    /// An outcome by another version than its batch's manifest says.
    Mixed,
    /// A partition that went back to an older version, and its own range does not record it.
    Version,
    /// An outcome of no record: nothing stands at its source, or it does not say what it answers.
    Unknown,
    /// An answer that the recorded version does not give.
    Answer,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicate => "duplicate",
            Self::Disorder => "out of order",
            Self::Beyond => "beyond the committed offset",
            Self::Uncovered => "without a manifest",
            Self::Count => "other than its manifest counts",
            Self::Manifest => "manifest",
            Self::Mixed => "mixed versions",
            Self::Version => "version went back",
            Self::Unknown => "without a record",
            Self::Answer => "another answer",
        }
    }
}

/// A violation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Violation {
    /// How often.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<String>,
}

/// What can neither be proven nor refuted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unproven {
    /// The input topic.
    pub topic: String,
    /// The partition; `None` of the whole topic.
    pub partition: Option<i32>,
    /// The first and the last offset of them.
    pub offsets: Option<(i64, i64)>,
    /// How many offsets.
    pub count: u64,
    /// Why.
    pub because: String,
}

/// Records that were answered again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Recomputed {
    /// The version, `name/version`.
    pub model: String,
    /// Answers that are the same, bit for bit.
    pub equal: u64,
    /// Answers within the tolerance of golden vectors, with equal labels: other instructions or another precision.
    pub close: u64,
    /// Other answers.
    pub different: u64,
    /// Records that cannot be answered again, by the reason.
    pub cannot: BTreeMap<String, u64>,
}

/// How much was read.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Effort {
    /// Messages.
    pub messages: u64,
    /// Seconds.
    pub seconds: f64,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Report {
    /// The consumer group.
    pub group: String,
    /// Input records in the judged range.
    pub records: u64,
    /// Their outcomes: predictions, dead letters, tombstones.
    #[serde(serialize_with = "by_name")]
    pub outcomes: Tally,
    /// Batches they were made in.
    pub batches: u64,
    /// Offsets with exactly one outcome, as its manifest says.
    pub proven: u64,
    /// Outcomes that are not judged: of other groups, topics or programs.
    pub foreign: u64,
    /// Messages of the output topic that do not say what they answer.
    pub silent: u64,
    /// Outcomes of earlier topics of an input topic's name.
    pub earlier: u64,
    /// What is violated.
    pub violations: BTreeMap<Kind, Violation>,
    /// What cannot be proven.
    pub unproven: Vec<Unproven>,
    /// What was answered again, by version.
    pub recomputed: Vec<Recomputed>,
    /// How much was read.
    pub effort: Effort,
}

fn by_name<S: Serializer>(outcomes: &Tally, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(["predictions", "dead_letters", "tombstones"].iter().zip(outcomes))
}

impl Report {
    /// Notes a violation; `example` is asked for the first few only.
    pub fn violated(&mut self, kind: Kind, example: impl FnOnce() -> String) {
        let violation = self.violations.entry(kind).or_default();
        violation.count += 1;
        if violation.examples.len() < SHOWN {
            violation.examples.push(escaped(&example(), "").into_owned());
        }
    }

    /// Whether nothing is violated and something is proven.
    pub fn holds(&self) -> bool {
        self.violations.is_empty() && self.proven != 0
    }
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.topic)?;
        if let Some(partition) = self.partition {
            write!(f, "/{partition}")?;
        }
        if let Some((first, last)) = self.offsets {
            write!(f, " offsets {first} to {last}")?;
            let all = u64::try_from(last - first).unwrap_or(0).saturating_add(1);
            if self.count != all {
                write!(f, " ({} of them)", thousands(self.count))?;
            }
        }
        write!(f, ", because {}", self.because)
    }
}

impl fmt::Display for Recomputed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, equal, close, different, .. } = self;
        let model = escaped(model, "");
        write!(f, "answered again by {model}: {} equal bit for bit", thousands(*equal))?;
        if *close != 0 {
            write!(f, ", {} within the tolerance", thousands(*close))?;
        }
        if *different != 0 {
            write!(f, ", {} different", thousands(*different))?;
        }
        for (why, count) in &self.cannot {
            let count = thousands(*count);
            write!(f, "\n  {count} cannot be recomputed, because {}", escaped(why, ""))?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [predictions, dead_letters, tombstones] = self.outcomes;
        writeln!(
            f,
            "group {}: {}, {}, {}, {}, {}",
            self.group,
            counted(self.records, "committed record", "committed records"),
            counted(predictions, "prediction", "predictions"),
            counted(tombstones, "tombstone", "tombstones"),
            counted(dead_letters, "dead letter", "dead letters"),
            counted(self.batches, "batch", "batches")
        )?;
        for (count, what) in [
            (self.foreign, "of other groups, topics or programs"),
            (self.earlier, "of an earlier topic of an input topic's name"),
        ] {
            if count != 0 {
                let outcomes = counted(count, "outcome", "outcomes");
                writeln!(f, "not judged: {outcomes} {what}")?;
            }
        }
        for recomputed in &self.recomputed {
            writeln!(f, "{recomputed}")?;
        }
        for unproven in &self.unproven {
            writeln!(f, "cannot be proven: {unproven}")?;
        }
        for (kind, Violation { count, examples }) in &self.violations {
            writeln!(f, "VIOLATED {}: {}", kind.name(), thousands(*count))?;
            for example in examples {
                writeln!(f, "  {example}")?;
            }
        }
        let Effort { messages, seconds } = self.effort;
        if messages != 0 {
            #[expect(clippy::cast_precision_loss, reason = "a rate for a person")]
            let a_second = rate(messages as f64 / seconds.max(0.001));
            let messages = counted(messages, "message", "messages");
            writeln!(f, "read {messages} in {seconds:.1} s, {a_second} a second")?;
        }
        if self.proven == 0 && self.violations.is_empty() {
            writeln!(f, "nothing is proven")
        } else if self.violations.is_empty() {
            let rest = if self.unproven.is_empty() { "" } else { "; for the rest see above" };
            writeln!(
                f,
                "holds for {}: one outcome a record, in order, one version a batch{rest}",
                counted(self.proven, "offset", "offsets")
            )
        } else {
            writeln!(f, "does not hold")
        }
    }
}

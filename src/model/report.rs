//! The steps of the gate, and how they went.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::files::Error;

/// A step of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is a folder, with weights where they are looked for.
    Folder,
    /// It fits in the memory that is left.
    Memory,
    /// Its files are those of its manifest.
    Digests,
    /// A model can be made of them.
    Build,
    /// It answers, alone and in full calls.
    WarmUp,
    /// It answers as it did when it was made.
    Golden,
}

impl Step {
    /// All, in the order in which they are run.
    pub const ALL: [Self; 6] =
        [Self::Folder, Self::Memory, Self::Digests, Self::Build, Self::WarmUp, Self::Golden];

    /// Its name in the log and as the label `step` of the metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::Memory => "memory",
            Self::Digests => "digests",
            Self::Build => "build",
            Self::WarmUp => "warm_up",
            Self::Golden => "golden",
        }
    }
}

/// A step that was run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Which one.
    pub step: Step,
    /// How long it took.
    pub took: Duration,
    /// What it found, for people; `None` where it refused the version.
    pub found: Option<String>,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, took, found } = self;
        write!(f, "{}, {took:.1?}: {}", step.name(), found.as_deref().unwrap_or("refused"))
    }
}

/// How a version went through the gate: the steps in order, as far as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The steps that were run. Where the last one refused, none comes after it.
    pub steps: Vec<Done>,
}

impl Report {
    /// The names of the steps with the time that each took.
    pub fn times(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        self.steps.iter().map(|done| (done.step.name(), done.took))
    }

    /// Runs a step on a directory. It gives what the next ones work with, and what it found, for people.
    pub(super) fn step<T>(
        &mut self,
        dir: &Path,
        step: Step,
        run: impl FnOnce() -> Result<(T, String), Error>,
    ) -> Result<T, Error> {
        let started = now();
        let result = run();
        let took = started.elapsed();
        let (result, found) = match result {
            Ok((value, found)) => (Ok(value), Some(found)),
            Err(error) => (Err(error), None),
        };
        let said = found.as_deref().unwrap_or("refused");
        tracing::info!(model = %dir.display(), step = step.name(), ?took, found = said, "gate");
        self.steps.push(Done { step, took, found });
        result
    }
}

/// In a few words: how long it took, and where most of that went.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Duration = self.steps.iter().map(|done| done.took).sum();
        write!(f, "{} steps in {all:.1?}", self.steps.len())?;
        match self.steps.iter().max_by_key(|done| done.took) {
            Some(Done { step, took, .. }) => write!(f, ", {} {took:.1?}", step.name()),
            None => Ok(()),
        }
    }
}

/// A version that did not pass. As an error it is the one of the step.
#[derive(Debug)]
pub struct Refused {
    /// How far it came.
    pub report: Report,
    /// Why the last step refused it.
    pub error: Error,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

#[expect(clippy::disallowed_methods, reason = "loading is off the hot path")]
fn now() -> Instant {
    Instant::now()
}

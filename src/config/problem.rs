//! What is wrong with a configuration: all of it, not only the first.

use std::fmt;

/// One thing that is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key with its path, `batch.max_wait`; or the file, where it could not be read at all.
    pub key: String,
    /// What is wrong and what would follow from it. Never a secret's value.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    /// A problem of `key`.
    pub fn new(
        key: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { key: key.into(), message: message.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.key, self.message, self.remedy)
    }
}

/// Every problem that was found, in the order of the keys. Prints one a line, numbered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// A single problem.
    pub fn one(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "the configuration has {count} problem{}", if count == 1 { "" } else { "s" })?;
        for (number, problem) in (1..).zip(&self.0) {
            write!(f, "\n  {number}. {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

//! When a batch closes and is committed, deadlines and memory.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Size, Time};

/// When a batch closes: on the first of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Batch {
    /// Most records.
    pub max_records: u32,
    /// Most payload bytes. A larger record still passes, alone.
    pub max_bytes: Size,
    /// Most tokens that the model will compute.
    pub max_tokens: u32,
    /// Longest that the first record waits for company.
    pub max_wait: Time,
    /// What an idle worker does while the batch is not full.
    pub when_idle: WhenIdle,
    /// Whether `max_tokens` is the size of a batch, or its bound.
    pub size: Sizing,
    /// Where learned sizes are kept from one run to the next.
    pub remember: Option<PathBuf>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            max_records: 256,
            max_bytes: Size::mib(6),
            max_tokens: 16_384,
            max_wait: Time::millis(50),
            when_idle: WhenIdle::Wait,
            size: Sizing::Max,
            remember: None,
        }
    }
}

/// How many tokens close a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sizing {
    /// `max_tokens`.
    Max,
    /// As few as keep the fixed cost of a batch below a twentieth of its time, learned while running.
    Learned,
}

/// What an idle worker does while a batch is not full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenIdle {
    /// Takes what is there.
    Flush,
    /// Waits for `max_wait`.
    Wait,
}

/// When what is ready is committed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Commit {
    /// How long a finished batch waits for others to share its transaction.
    pub max_wait: Time,
    /// Most batches in a transaction.
    pub max_batches: u32,
}

impl Default for Commit {
    fn default() -> Self {
        Self { max_wait: Time::millis(0), max_batches: 16 }
    }
}

/// What is kept over a restart.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// A folder that outlives the process: the journal of the batches in flight, and what a version did to it.
    pub dir: Option<PathBuf>,
}

/// Deadlines and memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Longest that one batch may be in the model before the process stops.
    pub inference: Time,
    /// Longest that one transaction may take before its producer is given up.
    pub transaction: Time,
    /// Longest that a stop may take; less than `terminationGracePeriodSeconds`.
    pub drain: Time,
    /// Memory for records in flight: queues are sized from it.
    pub memory: Size,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inference: Time::millis(60_000),
            transaction: Time::millis(8_000),
            drain: Time::millis(30_000),
            memory: Size::mib(64),
        }
    }
}

//! What can be told, in which unit. One YAML file, read once, checked whole.
//!
//! `config/tidemill.yaml` has every key with its default and its consequence; a test keeps the two equal.

use std::path::Path;

use serde::{Deserialize, Serialize};

pub mod amount;
pub mod identity;
mod input;
mod kafka;
mod limits;
pub mod load;
pub mod log;
mod model;
pub mod observe;
pub mod origin;
mod output;
pub mod owned;
pub mod place;
pub mod pointer;
pub mod problem;
pub mod properties;
pub mod schemas;
pub mod secret;
pub mod topics;
pub mod tree;
pub mod uri;
pub mod validate;
pub mod yaml;

pub use amount::{Size, Time};
pub use input::{Input, InputFormat, Key, KeyFormat, Part, UnknownFields, Unwrap};
pub use kafka::{Kafka, MissingOffset, OnStop, OutOfRange, Recreated, StartFrom};
pub use limits::{Batch, Commit, Limits, Sizing, State, WhenIdle};
pub use log::Log;
pub use model::{Aggregation, Change, Determinism, Model, OnLong, Precision, Registry, Workers};
pub use observe::{Admin, Http, LogFormat, Logging, Metrics, Traces, collector_address};
pub use output::{
    CloudEvents, DeadLetters, Headers, Include, Manifest, Output, OutputFormat, OutputPartition,
};
pub use place::{NoDevice, Place};
pub use pointer::Pointer;
pub use problem::{Problem, Problems};
pub use schemas::{SchemaRegistry, Subject};
pub use uri::Uri;

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The embedded log, `sqlite:FILE`, in place of `kafka`.
    pub log: Log,
    /// The cluster and the group.
    pub kafka: Kafka,
    /// What is read.
    pub input: Input,
    /// Where schemas of records are found.
    pub schema_registry: SchemaRegistry,
    /// Where predictions go.
    pub output: Output,
    /// Where records go that cannot be answered.
    pub dead_letters: DeadLetters,
    /// Where batches are described.
    pub manifest: Manifest,
    /// When a batch closes.
    pub batch: Batch,
    /// When what is ready is committed.
    pub commit: Commit,
    /// Which model, on which device.
    pub model: Model,
    /// Where versions come from.
    pub registry: Registry,
    /// What is kept over a restart.
    pub state: State,
    /// Deadlines and memory.
    pub limits: Limits,
    /// Probes and metrics.
    pub http: Http,
    /// Pause, resume, promote and so on, for who has a token.
    pub admin: Admin,
    /// The log on stderr.
    pub logging: Logging,
    /// Where spans are sent.
    pub traces: Traces,
    /// Where metrics are pushed.
    pub metrics: Metrics,
    /// What was put in for `${…}`, and other values that no message may show. Not a key of the file.
    #[serde(skip)]
    pub secrets: secret::Secrets,
    /// Where the clients' properties came from. Not a key of the file.
    #[serde(skip)]
    pub origin: origin::Origin,
}

impl Config {
    /// The file of the embedded log, where that is the log.
    pub fn embedded(&self) -> Option<&Path> {
        match &self.log {
            Log::Kafka => None,
            Log::Sqlite(file) => Some(file),
        }
    }
}

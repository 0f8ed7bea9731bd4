//! Where predictions, dead letters and manifests go.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::answer::{Part, Scores, Shape, Vectors};

/// Where predictions go.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Output {
    /// The topic. Required.
    pub topic: String,
    /// What predictions are written as.
    pub format: OutputFormat,
    /// Which partition of it.
    pub partition: OutputPartition,
    /// What of the input goes along with the prediction.
    pub include: Include,
    /// Which parts of a prediction are published, by the names that they get; none: all, under their own.
    pub fields: BTreeMap<String, Part>,
    /// What the numbers of an embedding are written as.
    pub embedding_format: Vectors,
    /// What a classification's scores are written as.
    pub scores_format: Scores,
    /// How many labels' scores a classification carries, the best first; default: every label's, in the model's order.
    pub top_k: Option<u32>,
    /// Provenance in headers.
    pub headers: Headers,
    /// Attributes in headers, by which a prediction is an event of `CloudEvents`.
    pub cloud_events: CloudEvents,
}

/// What makes a prediction an event of `CloudEvents` 1.0, in its binary form for Kafka.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CloudEvents {
    /// Where events come from: a URI reference. None: predictions are no events.
    pub source: Option<String>,
    /// What they tell of.
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

impl Output {
    /// What is published of predictions.
    pub fn shape(&self) -> Shape {
        let fields = self.fields.iter().map(|(name, part)| (name.clone(), *part));
        Shape {
            fields: fields.collect(),
            top_k: self.top_k,
            vectors: self.embedding_format,
            scores: self.scores_format,
        }
    }
}

/// What predictions are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputFormat {
    /// JSON objects.
    #[default]
    Json,
    /// Avro by the schemas in `schemas/`: behind Confluent's frame where there is a schema registry.
    Avro,
}

/// Which partition of the output topic a prediction goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputPartition {
    /// The input partition's number: order per partition is kept.
    #[default]
    Same,
    /// By the key's hash, as the Java client does (murmur2): order per key is kept.
    Key,
}

/// What of the input goes along with the prediction.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Include {
    /// Nothing: the prediction alone.
    #[default]
    None,
    /// The record's key, as text, under `key`.
    Key,
    /// These fields, under `input`.
    Fields(Vec<String>),
    /// Every field, under `input`.
    All,
}

/// Provenance in the headers of a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Headers {
    /// Model name, version, digest; batch id; source topic, partition, offset.
    #[default]
    Full,
    /// Model version, batch id and source offset only.
    Compact,
    /// Only the record's own headers. `tidemill verify` then cannot prove anything.
    None,
}

/// Where records go that cannot be answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadLetters {
    /// The topic; default `<input topic>-dlq`.
    pub topic: Option<String>,
    /// Above this share of dead letters over `window` records, stop. 1 never stops.
    pub max_ratio: f64,
    /// Over how many of the last records the share is taken.
    pub window: u32,
}

impl Default for DeadLetters {
    fn default() -> Self {
        Self { topic: None, max_ratio: 0.5, window: 1_000 }
    }
}

/// Where batches are described.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Manifest {
    /// The topic; default `<output topic>-manifest`.
    pub topic: Option<String>,
}

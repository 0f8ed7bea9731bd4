//! A manifest: what a batch was, as it stands in the manifest topic. [`super::message`] writes it; a start that has lost
//! its offsets, `verify`, and the demo read it.

use serde::{Deserialize, Serialize};

use crate::record::{ModelId, Signature, Version};

/// A manifest, or a piece of one, with its fields in the order in which they are written. One without those that have a
/// default is read too: it may be of another version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The batch.
    pub batch_id: String,
    /// The batch that this one is a part of, where that was too large for a transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_of: Option<String>,
    /// Which piece, from 1; absent of a manifest in one piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub piece: Option<u32>,
    /// Of how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pieces: Option<u32>,
    /// The consumer group that the batch was committed by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The model's name.
    pub model: String,
    /// Its version.
    pub version: u64,
    /// The digest of its files.
    #[serde(default)]
    pub digest: String,
    /// What the version takes and gives.
    #[serde(flatten)]
    pub signature: Option<Signature>,
    /// Why the batch was closed.
    #[serde(default)]
    pub reason: String,
    /// Outcomes of the whole batch.
    pub records: u64,
    /// Predictions among them.
    pub predictions: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Payload bytes of the records.
    #[serde(default)]
    pub bytes: u64,
    /// Tokens that the model computed.
    #[serde(default)]
    pub tokens: u64,
    /// Time in the model.
    #[serde(default)]
    pub inference_seconds: f64,
    /// The records that this piece tells of, one range for each input partition.
    pub ranges: Vec<Range>,
}

/// The records of one input partition in a batch: `count` of the offsets `first..next`, which may have gaps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The input topic.
    pub topic: String,
    /// Its id, where the broker gave one: it tells this topic from another one of the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// The partition.
    pub partition: i32,
    /// The first record's offset.
    pub first: i64,
    /// One past the last record's offset.
    pub next: i64,
    /// How many records.
    pub count: u64,
    /// `name/version` of the model that had answered this partition until here, where it is another one: the record of a
    /// change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

impl Manifest {
    /// Reads a record's value.
    ///
    /// # Errors
    ///
    /// Where it is not a manifest: somebody else may write to the topic too.
    pub fn read(value: &[u8]) -> Result<Self, serde_json::Error> {
        let manifest: Self = serde_json::from_slice(value)?;
        let good = |range: &Range| 0 <= range.first && range.first < range.next;
        if manifest.ranges.iter().all(good) {
            return Ok(manifest);
        }
        Err(serde::de::Error::custom("a range of offsets has no record"))
    }

    /// The version that answered.
    pub fn model(&self) -> ModelId {
        ModelId {
            name: self.model.as_str().into(),
            version: Version(self.version),
            digest: self.digest.as_str().into(),
        }
    }
}

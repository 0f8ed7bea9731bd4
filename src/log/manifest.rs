//! A manifest, read back: what a later start needs of it. [`super::message`] writes it.

use serde::Deserialize;

use crate::record::{ModelId, Signature, Version};

/// What is read of a manifest record.
#[derive(Debug, Clone, Deserialize)]
pub struct Manifest {
    /// The consumer group.
    #[serde(default)]
    pub group: String,
    model: String,
    version: u64,
    #[serde(default)]
    digest: String,
    /// What the version takes and gives.
    #[serde(flatten)]
    pub signature: Option<Signature>,
    /// The records that it describes.
    #[serde(default)]
    pub ranges: Vec<Range>,
}

/// Records of one partition.
#[derive(Debug, Clone, Deserialize)]
pub struct Range {
    /// The topic.
    pub topic: String,
    /// Its id, where the broker has told it.
    #[serde(default)]
    pub topic_id: Option<String>,
    /// The partition.
    pub partition: i32,
    /// The offset behind the last record.
    pub next: i64,
}

impl Manifest {
    /// Reads a record's value.
    ///
    /// # Errors
    ///
    /// Where it is not a manifest: somebody else may write to the topic too.
    pub fn read(value: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(value)
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

//! What a reader of the topics sees: outcomes by their headers, manifests by their JSON.

use std::fmt;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::record::Header;

/// A batch's id: a UUID, or for any other text a number that stands for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(u128);

impl BatchId {
    /// The id that is written as `text`.
    pub fn of(text: &str) -> Self {
        Self(match uuid::Uuid::parse_str(text) {
            Ok(id) => id.as_u128(),
            Err(_) => {
                Sha256::digest(text).iter().take(16).fold(0, |n, b| (n << 8) | u128::from(*b))
            }
        })
    }

    /// When the batch was closed, in ms since 1970; `None` where its id is no UUID of version 7.
    pub fn time(self) -> Option<i64> {
        let id = uuid::Uuid::from_u128(self.0);
        let (seconds, nanos) = id.get_timestamp().filter(|_| id.get_version_num() == 7)?.to_unix();
        Some(i64::try_from(seconds).ok()?.saturating_mul(1_000) + i64::from(nanos / 1_000_000))
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_u128(self.0).fmt(f)
    }
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A message with a value in the output topic.
    Prediction,
    /// One without a value there.
    Tombstone,
    /// A message in a dead-letter topic.
    DeadLetter,
}

/// An outcome by its headers. Those that `output.headers: compact` leaves out are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// What it is.
    pub what: What,
    /// The input topic of the record that it answers.
    pub topic: Option<&'a str>,
    /// The record's partition.
    pub partition: Option<i32>,
    /// The record's offset.
    pub offset: i64,
    /// The batch it was made in.
    pub batch: &'a str,
    /// The version that made it.
    pub version: Option<u64>,
    /// The model's name.
    pub model: Option<&'a str>,
    /// The digest of the model's files.
    pub digest: Option<&'a str>,
    /// Of a dead letter: the class of its fault.
    pub class: Option<&'a str>,
}

/// A message of an outcome topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// Somebody's outcome.
    Outcome(Outcome<'a>),
    /// One that does not say what it answers.
    Silent,
    /// One that says it in part, or not as we do.
    Broken,
    /// A dead letter of another program.
    Foreign,
}

impl<'a> Message<'a> {
    /// What a message's headers say. `has_value`: it is no tombstone; `output`: it stands in the output topic.
    pub fn read(headers: &'a [Header], has_value: bool, output: bool) -> Self {
        let find = |name: &str| {
            let header = headers.iter().find(|header| header.name == name.as_bytes())?;
            std::str::from_utf8(header.value.as_ref()?).ok()
        };
        let dead = find("__connect.errors.topic").is_some();
        let (topic, partition, offset) = if dead {
            ("__connect.errors.topic", "__connect.errors.partition", "__connect.errors.offset")
        } else {
            ("tidemill.source.topic", "tidemill.source.partition", "tidemill.source.offset")
        };
        let (batch, offset) = (find("tidemill.batch.id"), find(offset));
        match (batch, offset) {
            (None, _) if dead || !output => return Self::Foreign,
            (None, None) => return Self::Silent,
            _ => (),
        }
        let numbers = offset.and_then(|text| text.parse().ok()).filter(|offset| 0 <= *offset);
        let place = find(partition).map(str::parse::<i32>);
        let (Some(batch), Some(offset), Ok(partition)) = (batch, numbers, place.transpose()) else {
            return Self::Broken;
        };
        Self::Outcome(Outcome {
            what: match (dead, has_value) {
                (true, _) => What::DeadLetter,
                (false, true) => What::Prediction,
                (false, false) => What::Tombstone,
            },
            topic: find(topic),
            partition,
            offset,
            batch,
            version: find("tidemill.model.version").and_then(|text| text.parse().ok()),
            model: find("tidemill.model.name"),
            digest: find("tidemill.model.digest"),
            class: find("tidemill.error.class"),
        })
    }
}

/// A manifest, or a piece of one, as it stands in its topic.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Manifest {
    /// The batch.
    pub batch_id: String,
    /// Which piece, from 1; absent of a manifest in one piece.
    #[serde(default)]
    pub piece: Option<u32>,
    /// Of how many.
    #[serde(default)]
    pub pieces: Option<u32>,
    /// The consumer group that the batch was committed by.
    #[serde(default)]
    pub group: Option<String>,
    /// The model's name.
    pub model: String,
    /// Its version.
    pub version: u64,
    /// The digest of its files.
    #[serde(default)]
    pub digest: String,
    /// Outcomes of the whole batch.
    pub records: u64,
    /// Predictions among them.
    pub predictions: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// The records that this piece tells of, one range for each input partition.
    pub ranges: Vec<Range>,
}

/// The records of one input partition in a batch: `count` of the offsets `first..next`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Range {
    /// The input topic.
    pub topic: String,
    /// Its id, where the broker gave one.
    #[serde(default)]
    pub topic_id: Option<String>,
    /// The partition.
    pub partition: i32,
    /// The first record's offset.
    pub first: i64,
    /// One past the last record's offset.
    pub next: i64,
    /// How many records.
    pub count: u64,
    /// `name/version` of the model that had answered this partition until here, where it is another one.
    #[serde(default)]
    pub previous: Option<String>,
}

impl Manifest {
    /// Reads a manifest's value; `None` where it is no manifest.
    pub fn read(value: &[u8]) -> Option<Self> {
        let manifest: Self = serde_json::from_slice(value).ok()?;
        let sane = |range: &Range| 0 <= range.first && range.first < range.next;
        manifest.ranges.iter().all(sane).then_some(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str) -> Vec<Header> {
        let header = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap();
            Header { name: name.as_bytes().to_vec(), value: Some(value.as_bytes().to_vec()) }
        };
        text.split_whitespace().map(header).collect()
    }

    #[test]
    fn messages_are_told_apart_by_their_headers() {
        const DEAD: &str =
            "__connect.errors.topic=in __connect.errors.partition=2 __connect.errors.offset=7";
        let check = |text: &str, output: bool, expect: &str| {
            let headers = headers(text);
            let found = match Message::read(&headers, true, output) {
                Message::Outcome(Outcome { what, topic, partition, offset, batch, .. }) => {
                    format!("{what:?} {topic:?} {partition:?} {offset} {batch}")
                }
                other @ (Message::Silent | Message::Broken | Message::Foreign) => {
                    format!("{other:?}")
                }
            };
            assert_eq!(found, expect, "{text}");
        };
        check("tidemill.batch.id=b tidemill.source.offset=4", true, "Prediction None None 4 b");
        let full = "tidemill.batch.id=b tidemill.source.topic=in tidemill.source.partition=1 tidemill.source.offset=4";
        check(full, true, "Prediction Some(\"in\") Some(1) 4 b");
        check(&format!("{DEAD} tidemill.batch.id=b"), false, "DeadLetter Some(\"in\") Some(2) 7 b");
        check(DEAD, false, "Foreign");
        check("", false, "Foreign");
        check("", true, "Silent");
        check("trace=x", true, "Silent");
        check("tidemill.batch.id=b", true, "Broken");
        check("tidemill.batch.id=b tidemill.source.offset=-4", true, "Broken");
        check("tidemill.source.offset=4", true, "Broken");
        check(
            "tidemill.batch.id=b tidemill.source.offset=4 tidemill.source.partition=x",
            true,
            "Broken",
        );
    }

    #[test]
    fn ids_know_their_time() {
        let id = uuid::Builder::from_unix_timestamp_millis(1_764_000_000_123, &[7; 10]).into_uuid();
        assert_eq!(BatchId::of(&id.to_string()).time(), Some(1_764_000_000_123));
        assert_eq!(BatchId::of("batch-1").time(), None);
        assert_ne!(BatchId::of("batch-1"), BatchId::of("batch-2"));
    }
}

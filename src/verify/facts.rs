//! What a reader of the topics sees: outcomes by their headers.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::log::headers;
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
        let dead = find(headers::ERRORS_TOPIC).is_some();
        let (topic, partition, offset) = if dead {
            (headers::ERRORS_TOPIC, headers::ERRORS_PARTITION, headers::ERRORS_OFFSET)
        } else {
            (headers::SOURCE_TOPIC, headers::SOURCE_PARTITION, headers::SOURCE_OFFSET)
        };
        let (batch, offset) = (find(headers::BATCH_ID), find(offset));
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
            version: find(headers::MODEL_VERSION).and_then(|text| text.parse().ok()),
            model: find(headers::MODEL_NAME),
            digest: find(headers::MODEL_DIGEST),
            class: find(headers::ERROR_CLASS),
        })
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

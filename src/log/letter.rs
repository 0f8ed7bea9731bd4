//! Reads a dead letter back: what the record was, where it stood, and why it could not be answered. The inverse of what
//! [`message`](super::message) writes. Pure.
//!
//! The headers that Kafka Connect writes are enough to read one: a dead letter of another program is read too, with the
//! class [`OTHER`].

use crate::log::headers;
use crate::record::{FaultClass, Header};

/// The class of a dead letter that is not ours.
pub const OTHER: &str = "other";

/// Where a record stood.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// A record as it came, but for headers of its own whose names are reserved for us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Original {
    /// Milliseconds since 1970; `None` where nothing tells it any more.
    pub timestamp: Option<i64>,
    /// The key's bytes; `None` is Kafka's null.
    pub key: Option<Vec<u8>>,
    /// The value's bytes; `None` is Kafka's null.
    pub value: Option<Vec<u8>>,
    /// Headers in their order.
    pub headers: Vec<Header>,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Where the record stood; `None` where no header tells it.
    pub source: Option<Source>,
    /// The name of its [`FaultClass`], or [`OTHER`].
    pub class: &'static str,
    /// Why it could not be answered.
    pub message: String,
    /// The model that was to answer it, and its version.
    pub model: Option<(String, String)>,
    /// When it was written, in milliseconds since 1970, where its batch's id tells.
    pub written: Option<u64>,
    /// How many bytes the value had, where the dead letter does not hold the whole record.
    pub truncated: Option<String>,
    /// How many times the record had been redriven.
    pub attempt: u32,
    /// The record; not whole where `truncated` is set.
    pub original: Original,
}

impl Letter {
    /// Reads a message of a dead-letter topic. The timestamp is `None` where it is the time of writing.
    pub fn read(written: Original) -> Self {
        let Original { timestamp, key, value, headers } = written;
        let attempt = headers::attempt(&headers).unwrap_or(0);
        let (mut ours, own): (Vec<Header>, Vec<Header>) =
            headers.into_iter().partition(|header| headers::is_reserved(&header.name));
        let mut take = |name: &str| {
            let place = ours.iter().position(|header| header.name == name.as_bytes())?;
            Some(ours.swap_remove(place).value)
        };
        let original_key = take(headers::ORIGINAL_KEY);
        let mut text = |name: &str| {
            take(name).map(|value| {
                String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned()
            })
        };
        let class = text(headers::ERROR_CLASS).unwrap_or_default();
        let class = FaultClass::ALL.into_iter().map(FaultClass::name).find(|name| **name == class);
        let exception = text(headers::ERRORS_EXCEPTION).unwrap_or_default();
        let message = text(headers::ERRORS_MESSAGE).unwrap_or_default();
        let topic = text(headers::ERRORS_TOPIC);
        let partition = text(headers::ERRORS_PARTITION).and_then(|text| text.parse().ok());
        let offset = text(headers::ERRORS_OFFSET).and_then(|text| text.parse().ok());
        let source = topic.zip(partition).zip(offset);
        let source = source.map(|((topic, partition), offset)| Source { topic, partition, offset });
        let original_timestamp = text(headers::ORIGINAL_TIMESTAMP).and_then(|t| t.parse().ok());
        Self {
            source,
            class: class.unwrap_or(OTHER),
            message: if class.is_none() && !exception.is_empty() {
                format!("{exception}: {message}")
            } else {
                message
            },
            model: text(headers::MODEL_NAME).zip(text(headers::MODEL_VERSION)),
            written: text(headers::BATCH_ID).and_then(|id| time_of(&id)),
            truncated: text(headers::TRUNCATED),
            attempt,
            original: Original {
                timestamp: original_timestamp.or(timestamp),
                key: original_key.unwrap_or(key),
                value,
                headers: own,
            },
        }
    }
}

/// The time in a batch's id.
fn time_of(id: &str) -> Option<u64> {
    let id = uuid::Uuid::try_parse(id).ok().filter(|id| id.get_version_num() == 7)?;
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    Some(seconds.saturating_mul(1_000).saturating_add(u64::from(nanos / 1_000_000)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;
    use crate::log::message::{Amend, Message, Naming};
    use crate::log::{BatchInfo, Row};
    use crate::record::{
        Epoch, Fault, ModelId, Offset, Outcome, Partition, Reason, Record, Signature, Version,
    };

    fn info() -> BatchInfo {
        BatchInfo {
            id: uuid::Builder::from_unix_timestamp_millis(1_764_000_000_123, &[7; 10]).into_uuid(),
            model: Arc::new(ModelId { name: "m".into(), version: Version(3), digest: "".into() }),
            signature: Arc::new(Signature::default()),
            part_of: None,
            reason: Reason::Records,
            bytes: 0,
            tokens: 0,
            inference: Duration::ZERO,
        }
    }

    /// What a reader of the topic is given.
    fn seen(message: &Message<'_>) -> Original {
        let bytes = |b: &std::borrow::Cow<'_, [u8]>| b.to_vec();
        let header = |(name, value): &(_, Option<_>)| Header {
            name: bytes(name),
            value: value.as_ref().map(bytes),
        };
        Original {
            timestamp: message.timestamp,
            key: message.key.as_ref().map(bytes),
            value: message.value.as_ref().map(bytes),
            headers: message.headers.iter().map(header).collect(),
        }
    }

    fn bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..12))
    }

    proptest! {
        /// Whatever a dead letter's topic made of it, the record comes back.
        #[test]
        fn a_dead_letter_is_read_back(
            timestamp in proptest::option::of(0..i64::MAX),
            (key, value) in (bytes(), bytes()),
            own in proptest::collection::vec(("[a-z.]{1,8}", bytes()), 0..4),
            class in 0..FaultClass::ALL.len(),
            why in ".{0,20}",
            (amend_timestamp, amend_key, limit) in (any::<bool>(), any::<bool>(), 0..2_000_usize),
        ) {
            let mut config = Config::default();
            config.input.topics = vec!["in".to_owned()];
            let (naming, info) = (Naming::new(&config), info());
            let headers: Vec<Header> =
                own.into_iter().map(|(name, value)| Header { name: name.into_bytes(), value }).collect();
            let record = Record {
                partition: Partition { topic: 0, number: 4 },
                offset: Offset(99),
                timestamp,
                key: key.clone(),
                value: value.clone(),
                headers: headers.clone(),
            };
            let class = FaultClass::ALL[class];
            let outcome = Outcome::DeadLetter(Fault::new(class, why.clone()));
            let row = Row { record: Arc::new(record), epoch: Epoch(1), outcome, parent: None };
            let batch = naming.batch(&info);
            let amend = Amend { timestamp: amend_timestamp, key: amend_key, size: true };
            let message = batch.amended(&row, amend, limit);
            let letter = Letter::read(seen(&message));
            let source = Source { topic: "in".to_owned(), partition: 4, offset: 99 };
            prop_assert_eq!(letter.source, Some(source));
            prop_assert_eq!((letter.class, letter.message), (class.name(), why));
            prop_assert_eq!(letter.model, Some(("m".to_owned(), "3".to_owned())));
            prop_assert_eq!(letter.written, Some(1_764_000_000_123));
            let whole = Original { timestamp, key, value, headers };
            prop_assert!(letter.truncated.is_some() || letter.original == whole);
            let amend = Amend { size: false, ..amend };
            let size = batch.amended(&row, amend, 0).size();
            prop_assert!(letter.truncated.is_none() || limit < size);
        }
    }

    #[test]
    fn other_programs_letters_are_read_too() {
        let header = |name: &str, value: &str| Header {
            name: name.as_bytes().to_vec(),
            value: Some(value.as_bytes().to_vec()),
        };
        let connect = vec![
            header("own", "1"),
            header("__connect.errors.topic", "in"),
            header("__connect.errors.partition", "2"),
            header("__connect.errors.offset", "7"),
            header("__connect.errors.exception.class.name", "DataException"),
            header("__connect.errors.exception.message", "no"),
        ];
        let letter = Letter::read(Original { headers: connect, ..Original::default() });
        let source = Source { topic: "in".to_owned(), partition: 2, offset: 7 };
        assert_eq!((letter.source, letter.class), (Some(source), OTHER));
        assert_eq!(letter.message, "DataException: no");
        assert_eq!(letter.original.headers, [header("own", "1")]);
        let stray = Letter::read(Original { value: Some(vec![1]), ..Original::default() });
        assert_eq!((stray.source, stray.class), (None, OTHER));
    }
}

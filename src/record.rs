//! The nouns: where a record is, what it holds, and what becomes of it. Plain data, no behaviour.
//!
//! Offsets are half-open as in Kafka: `next` is the offset to read next (last + 1), and only that is ever
//! committed. Offsets may have gaps (compaction, control records): never subtract them to count records.

use std::fmt;
use std::sync::Arc;

/// An offset in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

impl Offset {
    /// The offset to read after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A partition of an input topic. Small and `Copy`: the topic is its place in `input.topics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// Index into the list of input topics.
    pub topic: u16,
    /// The partition's number in that topic.
    pub number: i32,
}

/// A topic's id: 22 characters of base64. It changes when a topic is deleted and created again under its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub Arc<str>);

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts how often a partition was assigned to us. A record of an older epoch is not ours any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// A model version, as the registry counts them. A directory without versions is version 0.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A record's header: a name and a value that may be absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The name's bytes: UTF-8 by Kafka's protocol, but not every client keeps to it. The same name may stand several
    /// times.
    pub name: Vec<u8>,
    /// The value's bytes; `None` is Kafka's null.
    pub value: Option<Vec<u8>>,
}

/// One message of an input topic, copied out of the client's buffers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it was read.
    pub partition: Partition,
    /// Its offset there.
    pub offset: Offset,
    /// Milliseconds since 1970 (`CreateTime` or `LogAppendTime`); `None` where the log has none.
    pub timestamp: Option<i64>,
    /// The key's bytes; `None` is Kafka's null.
    pub key: Option<Vec<u8>>,
    /// The value's bytes; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in their order.
    pub headers: Vec<Header>,
}

impl Record {
    /// A record of a value alone, without a time, a key and headers.
    pub fn of_value(partition: Partition, offset: Offset, value: Option<Vec<u8>>) -> Self {
        Self { partition, offset, timestamp: None, key: None, value, headers: Vec::new() }
    }

    /// Payload bytes: key, value and headers. What the byte limits count.
    pub fn bytes(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|h| h.name.len() + h.value.as_ref().map_or(0, Vec::len)).sum();
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + headers
    }

    /// Bytes of memory that it takes, with what the allocator adds.
    pub fn memory(&self) -> usize {
        let bytes =
            |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, |b| b.capacity() + ALLOCATION);
        let headers: usize = self
            .headers
            .iter()
            .map(|h| size_of_val(h) + h.name.capacity() + ALLOCATION + bytes(&h.value))
            .sum();
        size_of::<Self>() + ALLOCATION + bytes(&self.key) + bytes(&self.value) + headers
    }
}

/// What an allocation takes beside its bytes: the allocator's rounding.
pub const ALLOCATION: usize = 16;

/// What becomes of a record. There is no fourth variant: the only other way out is that the process stops.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<O> {
    /// The model's answer.
    Prediction(O),
    /// A record without a value passes through as one, with its key.
    Tombstone,
    /// The record cannot be answered: its original bytes go to the dead-letter topic, with the reason.
    DeadLetter(Fault),
}

/// A prediction as it is published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// The message's value.
    pub value: Vec<u8>,
    /// What of the input the model was not shown.
    pub truncated: Option<Truncated>,
}

/// Written by a model that saw everything.
impl From<Vec<u8>> for Written {
    fn from(value: Vec<u8>) -> Self {
        Self { value, truncated: None }
    }
}

/// A text of which a part was used, in tokens with the special ones: `256/1042`, and `256/>2051` where the end of the
/// text was not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncated {
    /// Tokens that the model saw.
    pub kept: usize,
    /// Tokens that were counted, more than those.
    pub of: usize,
    /// Whether there are more.
    pub more: bool,
}

impl fmt::Display for Truncated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kept, of, more } = self;
        write!(f, "{kept}/{}{of}", if *more { ">" } else { "" })
    }
}

impl<O> Outcome<O> {
    /// The same with another prediction.
    pub fn map<P>(self, prediction: impl FnOnce(O) -> P) -> Outcome<P> {
        match self {
            Self::Prediction(value) => Outcome::Prediction(prediction(value)),
            Self::Tombstone => Outcome::Tombstone,
            Self::DeadLetter(fault) => Outcome::DeadLetter(fault),
        }
    }

    /// The value of the metric label `outcome`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Prediction(_) => "prediction",
            Self::Tombstone => "tombstone",
            Self::DeadLetter(_) => "dead_letter",
        }
    }
}

/// Why a record cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {message}")]
pub struct Fault {
    /// What kind of thing is wrong: the label `class` and the header `tidemill.error.class`.
    pub class: FaultClass,
    /// One sentence for a person: the field, the value's kind, what was expected. Never the value itself.
    pub message: String,
}

impl Fault {
    /// A fault of `class`, explained by `message`.
    pub fn new(class: FaultClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }
}

/// The kinds of [`Fault`]. Few and fixed: they are a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultClass {
    /// The bytes are not what `input.format` says: not valid UTF-8, not valid JSON, not an image.
    Undecodable,
    /// A field the model needs is missing or null and has no fitted replacement.
    Missing,
    /// A field has the wrong type, or a value the model cannot take (NaN, infinity, out of range).
    Invalid,
    /// The input is longer than the model takes, under `on_long: reject`.
    TooLong,
    /// The model refused the record when it was alone.
    Refused,
    /// The prediction is larger than the output topic takes.
    Oversized,
    /// Alone in the model, the record took longer than `limits.inference`, more than once.
    TooSlow,
    /// The process died whenever the record was alone in the model.
    Killed,
}

impl FaultClass {
    /// Every class, in the order of the metric's labels.
    pub const ALL: [Self; 8] = [
        Self::Undecodable,
        Self::Missing,
        Self::Invalid,
        Self::TooLong,
        Self::Refused,
        Self::Oversized,
        Self::TooSlow,
        Self::Killed,
    ];

    /// The name in metrics and headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::Missing => "missing",
            Self::Invalid => "invalid",
            Self::TooLong => "too_long",
            Self::Refused => "refused",
            Self::Oversized => "oversized",
            Self::TooSlow => "too_slow",
            Self::Killed => "killed",
        }
    }

    /// Where in the pipeline it is found: Kafka Connect's `stage` header.
    pub fn stage(self) -> &'static str {
        match self {
            Self::Undecodable => "VALUE_CONVERTER",
            Self::Missing | Self::Invalid | Self::TooLong => "TRANSFORMATION",
            Self::Refused | Self::TooSlow | Self::Killed => "TASK_PUT",
            Self::Oversized => "TASK_PRODUCE",
        }
    }
}

impl fmt::Display for FaultClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What closed a batch: the label `reason`, and a field of its manifest record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// `batch.max_records` was reached.
    Records,
    /// `batch.max_bytes` was reached.
    Bytes,
    /// `batch.max_tokens` was reached.
    Tokens,
    /// `batch.max_wait` had passed since its first record arrived.
    Time,
    /// A worker was idle and nothing more was buffered (`batch.when_idle: flush`).
    Idle,
    /// A new model version was staged.
    Swap,
    /// Partitions were taken away.
    Rebalance,
    /// Its records were in flight when the process died, and are looked at by themselves.
    Alone,
    /// The service stops.
    Shutdown,
}

impl Reason {
    /// Every reason, in the order of the metric's labels.
    pub const ALL: [Self; 9] = [
        Self::Records,
        Self::Bytes,
        Self::Tokens,
        Self::Time,
        Self::Idle,
        Self::Swap,
        Self::Rebalance,
        Self::Alone,
        Self::Shutdown,
    ];

    /// The name in metrics and manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Bytes => "bytes",
            Self::Tokens => "tokens",
            Self::Time => "time",
            Self::Idle => "idle",
            Self::Swap => "swap",
            Self::Rebalance => "rebalance",
            Self::Alone => "alone",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What a version takes and gives. A swap that would change it is refused, unless the configuration allows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Signature {
    /// The task, as Hugging Face spells it.
    pub task: String,
    /// Names of the fields that it reads, in its order.
    pub fields: Vec<String>,
    /// Kind and width of an answer, labels sorted: `embedding of 384 numbers`, `2 labels: no, yes`.
    pub output: String,
}

impl Signature {
    /// Most characters of a list that stand in a signature; a longer one is its beginning and its hash.
    const LONGEST: usize = 400;

    /// What ends the beginning of a list, before its hash.
    const CUT: &str = "… (FNV-1a ";

    /// A list that [`short`](Self::short) has made, for a person: without the hash, which tells two of them apart and says
    /// nothing.
    pub fn plain(short: &str) -> String {
        match short.rsplit_once(Self::CUT) {
            Some((beginning, _)) => format!("{beginning}…"),
            None => short.to_owned(),
        }
    }

    /// A list of names of bounded length, that differs where the names do.
    pub fn short(names: &[String]) -> String {
        let list = names.join(", ");
        if list.len() <= Self::LONGEST {
            return list;
        }
        let end = list.floor_char_boundary(Self::LONGEST);
        let hash = list.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        format!("{}{}{hash:016x})", list.get(..end).unwrap_or_default(), Self::CUT)
    }
}

/// Which model answered: stands in headers, manifests and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelId {
    /// The registered name, or the directory's.
    pub name: Arc<str>,
    /// The version.
    pub version: Version,
    /// `sha256:` and 64 hexadecimal digits over the artifact's files.
    pub digest: Arc<str>,
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.version)
    }
}

/// The end of a partition, as a reader met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The partition.
    pub partition: Partition,
    /// The epoch that it was read under.
    pub epoch: Epoch,
    /// Everything below was read, or is a control record.
    pub next: Offset,
    /// Whether nothing follows, ever: what is read from a file or a pipe ends where it ends.
    pub is_last: bool,
}

/// A dead letter, for the message of a stop.
pub type Buried = (Partition, Offset, Fault);

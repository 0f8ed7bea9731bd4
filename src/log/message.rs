//! What a transaction writes: one message for each row and one manifest for each batch.
//!
//! ```text
//!   Row ── Prediction ─► output topic       same key, the record's headers, provenance
//!       ── Tombstone  ─► output topic       same key, no value
//!       ── DeadLetter ─► dead-letter topic  original bytes, Kafka Connect's error headers
//!   Finished ──────────► manifest topic     which records, by which model, with which outcomes
//! ```
//!
//! Both logs use it, so that a reader cannot tell them apart. Pure: no client, no clock.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::config::{CloudEvents, Config, Headers, Output, OutputFormat, OutputPartition};
use crate::log::manifest::{Manifest, Range};
use crate::log::note::Note;
use crate::log::{BatchInfo, Finished, Row, headers, trace};
use crate::printable;
use crate::record::{Fault, ModelId, Outcome, Partition, Record, Signature, TopicId, Written};

/// What Kafka adds to a message at most: record and batch framing, lengths, timestamps.
const FRAMING: usize = 128;

/// Times in milliseconds since 1970 that RFC 3339 can say: years of four digits.
const YEARS: std::ops::Range<i64> = -62_167_219_200_000..253_402_300_800_000;

/// What each partition's committed offset says beside its number.
pub type Notes = BTreeMap<Partition, Note>;

/// The notes of a batch's partitions after it.
pub(crate) fn answered(notes: &mut Notes, finished: &Finished) {
    let mut partitions: Vec<Partition> =
        finished.rows.iter().map(|row| row.record.partition).collect();
    partitions.sort_unstable();
    partitions.dedup();
    for partition in partitions {
        if let Some(note) = notes.remove(&partition) {
            notes.insert(partition, note.answered(&finished.info.model));
        }
    }
}

/// Where messages go and what is written beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    /// The consumer group.
    pub group: String,
    /// The input topics; [`Partition::topic`] counts them.
    pub inputs: Vec<String>,
    /// Predictions and tombstones.
    pub output: String,
    /// Dead letters: one topic for each of `inputs`.
    pub dead_letters: Vec<String>,
    /// Manifests.
    pub manifest: String,
    /// Which partition of `output`.
    pub partition: OutputPartition,
    /// How much provenance.
    pub headers: Headers,
    /// What makes predictions events.
    pub event: Option<Event>,
}

/// What the events of `CloudEvents` have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where they come from.
    pub source: String,
    /// What they tell of.
    pub kind: String,
    /// What their values are, as a media type.
    pub content: &'static str,
}

impl Event {
    fn of(output: &Output) -> Option<Self> {
        let content = match output.format {
            OutputFormat::Json => "application/json",
            OutputFormat::Avro => "application/avro",
        };
        let CloudEvents { source, kind } = output.cloud_events.clone();
        source.zip(kind).map(|(source, kind)| Self { source, kind, content })
    }
}

impl Naming {
    /// The topics of `config`, with the default names where it gives none.
    pub fn new(config: &Config) -> Self {
        let dead_letter = |input: &String| config.dead_letter_topic(input);
        let group = &config.kafka.group;
        Self {
            // Only the embedded log goes without one.
            group: if group.is_empty() { "tidemill".to_owned() } else { group.clone() },
            inputs: config.input.topics.clone(),
            output: config.output.topic.clone(),
            dead_letters: config.input.topics.iter().map(dead_letter).collect(),
            manifest: config.manifest_topic(),
            partition: config.output.partition,
            headers: config.output.headers,
            event: Event::of(&config.output),
        }
    }

    /// The name of an input partition's topic; empty for a partition of no input topic.
    pub fn input(&self, partition: Partition) -> &str {
        self.inputs.get(usize::from(partition.topic)).map_or("", String::as_str)
    }

    /// Every topic that is written, once.
    pub fn written(&self) -> Vec<&str> {
        let mut topics: Vec<&str> = self.dead_letters.iter().map(String::as_str).collect();
        topics.extend([self.output.as_str(), self.manifest.as_str()]);
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    /// What all messages of a batch share, computed once.
    pub fn batch<'a>(&'a self, info: &'a BatchInfo) -> Batch<'a> {
        let (id, version) = (info.id.to_string(), info.model.version.to_string());
        Batch { naming: self, info, id, version }
    }

    /// Every topic that is read or written, once.
    pub fn all(&self) -> Vec<&str> {
        let mut topics = self.written();
        topics.extend(self.inputs.iter().map(String::as_str));
        topics
    }

    /// Every partition of the input topics, by how many each topic has.
    pub fn partitions(&self, count: impl Fn(&str) -> Option<i32>) -> Vec<Partition> {
        let of = |(topic, name): (u16, &String)| {
            let numbers = 0..count(name).unwrap_or(0);
            numbers.map(move |number| Partition { topic, number })
        };
        (0..).zip(&self.inputs).flat_map(of).collect()
    }

    /// The topics in which an outcome stands in the partition of its record's number, for one of `inputs`: each needs as
    /// many partitions as the input has.
    pub fn numbered(&self, input: u16) -> impl Iterator<Item = &str> {
        let output = (self.partition == OutputPartition::Same).then_some(&self.output);
        self.dead_letters.get(usize::from(input)).into_iter().chain(output).map(String::as_str)
    }

    /// The dead-letter topic of an input partition.
    pub fn dead_letter(&self, partition: Partition) -> &str {
        self.dead_letters.get(usize::from(partition.topic)).map_or("", String::as_str)
    }
}

/// A header: its name's and its value's bytes, `None` for Kafka's null.
pub type Named<'a> = (Cow<'a, [u8]>, Option<Cow<'a, [u8]>>);

/// One message of a transaction, borrowed from its row where that saves a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition; `None` is the one that [`partition_of`] the key says.
    pub partition: Option<i32>,
    /// The key's bytes; `None` is Kafka's null.
    pub key: Option<Cow<'a, [u8]>>,
    /// The value's bytes; `None` is a tombstone.
    pub value: Option<Cow<'a, [u8]>>,
    /// Headers in their order.
    pub headers: Vec<Named<'a>>,
    /// Milliseconds since 1970: the record's own; `None` is the time of writing.
    pub timestamp: Option<i64>,
}

impl<'a> Message<'a> {
    /// Bytes it takes in the log at most, before compression.
    pub fn size(&self) -> usize {
        let bytes = |b: &Option<Cow<'_, [u8]>>| b.as_ref().map_or(0, |b| b.len());
        let headers: usize = self.headers.iter().map(|(n, v)| n.len() + bytes(v) + 10).sum();
        FRAMING + bytes(&self.key) + bytes(&self.value) + headers
    }

    /// Shortens a message to `limit` bytes, as [`size`](Self::size) counts: cuts the value, and where that is
    /// not enough leaves out the record's own headers and then the key. The header
    /// `tidemill.value.truncated` says how long the value was.
    #[must_use]
    pub fn truncated(mut self, limit: usize) -> Self {
        if self.size() <= limit {
            return self;
        }
        let length = self.value.as_ref().map_or(0, |v| v.len());
        self.push(headers::TRUNCATED, length.to_string());
        if self.size() - length > limit {
            self.headers.retain(|(name, _)| headers::is_reserved(name));
        }
        if self.size() - length > limit {
            self.key = None;
        }
        let keep = limit.saturating_sub(self.size() - length);
        self.value = self.value.map(|v| match v {
            Cow::Borrowed(b) => Cow::Borrowed(b.get(..keep).unwrap_or(b)),
            Cow::Owned(mut b) => {
                b.truncate(keep);
                Cow::Owned(b)
            }
        });
        self
    }

    fn push(&mut self, name: &'static str, value: impl Into<Text<'a>>) {
        self.headers.push((Cow::Borrowed(name.as_bytes()), Some(value.into().0)));
    }
}

/// What is changed about a dead letter, because its topic does not take it as the record came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amend {
    /// The time of writing in place of the record's.
    pub timestamp: bool,
    /// `topic/partition/offset` in place of the record's key: no two records have it, so compaction keeps all.
    pub key: bool,
    /// The value cut to what the topic takes.
    pub size: bool,
}

/// Text as a header's bytes.
struct Text<'a>(Cow<'a, [u8]>);

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text.as_bytes()))
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text.into_bytes()))
    }
}

/// Turns the rows of one batch into messages.
#[derive(Debug)]
pub struct Batch<'a> {
    naming: &'a Naming,
    info: &'a BatchInfo,
    id: String,
    version: String,
}

impl Batch<'_> {
    /// The message of one row.
    pub fn message<'a>(&'a self, row: &'a Row) -> Message<'a> {
        let (topic, partition, value) = match &row.outcome {
            Outcome::Prediction(Written { value, .. }) => {
                (self.naming.output.as_str(), self.number(row), Some(value))
            }
            Outcome::Tombstone => (self.naming.output.as_str(), self.number(row), None),
            Outcome::DeadLetter(_) => {
                let topic = self.naming.dead_letter(row.record.partition);
                (topic, Some(row.record.partition.number), row.record.value.as_ref())
            }
        };
        let mut message = Message {
            topic,
            partition,
            key: row.record.key.as_deref().map(Cow::Borrowed),
            value: value.map(|v| Cow::Borrowed(v.as_slice())),
            headers: Vec::with_capacity(row.record.headers.len() + 10),
            timestamp: row.record.timestamp,
        };
        match &row.outcome {
            Outcome::DeadLetter(fault) => self.explain(&mut message, &row.record, fault),
            Outcome::Prediction(Written { truncated, .. }) => {
                self.stamp(&mut message, &row.record);
                if let Some(truncated) = truncated.filter(|_| self.naming.headers != Headers::None)
                {
                    message.push(headers::INPUT_TRUNCATED, truncated.to_string());
                }
            }
            Outcome::Tombstone => self.stamp(&mut message, &row.record),
        }
        if let Some(parent) = row.parent {
            trace::replace(&mut message.headers, parent);
        }
        message
    }

    /// The message of one row, with what its topic does not take changed. The original timestamp and key stand in the
    /// headers `tidemill.original.timestamp` and `tidemill.original.key`. `limit` bytes are what a cut message may have.
    pub fn amended<'a>(&'a self, row: &'a Row, amend: Amend, limit: usize) -> Message<'a> {
        let mut message = self.message(row);
        if amend.timestamp
            && let Some(timestamp) = message.timestamp.take()
        {
            message.push(headers::ORIGINAL_TIMESTAMP, timestamp.to_string());
        }
        if amend.key {
            let Record { partition, offset, .. } = *row.record;
            let name = self.naming.input(partition);
            let unique = format!("{name}/{}/{offset}", partition.number).into_bytes();
            let original = message.key.replace(Cow::Owned(unique));
            message.headers.push((Cow::Borrowed(headers::ORIGINAL_KEY.as_bytes()), original));
        }
        if amend.size { message.truncated(limit) } else { message }
    }

    /// The batch's manifest: what its rows became. Its key is the batch id. One that would be larger than `limit` bytes
    /// is written in pieces, each with its share of the ranges; `notes` says which version answered last where.
    ///
    /// # Errors
    ///
    /// What `serde_json` refuses; no batch is known that it would.
    pub fn manifests(
        &self,
        finished: &Finished,
        notes: &Notes,
        limit: usize,
    ) -> Result<Vec<Message<'_>>, serde_json::Error> {
        let ranges = self.ranges(finished, notes);
        let mut pieces = 1;
        loop {
            let share = ranges.len().div_ceil(pieces).max(1);
            let of = u32::try_from(ranges.len().div_ceil(share).max(1)).unwrap_or(u32::MAX);
            let mut shares = ranges.chunks(share);
            let piece =
                |piece| self.manifest(finished, (piece, of), shares.next().unwrap_or_default());
            let messages: Vec<Message<'_>> = (1..=of).map(piece).collect::<Result<_, _>>()?;
            if share == 1 || messages.iter().all(|message| message.size() <= limit) {
                return Ok(messages);
            }
            pieces *= 2;
        }
    }

    /// The offsets of a batch, by partition.
    fn ranges(&self, finished: &Finished, notes: &Notes) -> Vec<Range> {
        let mut ranges: BTreeMap<Partition, Range> = BTreeMap::new();
        for row in &finished.rows {
            let Record { partition, offset, .. } = *row.record;
            let range = ranges.entry(partition).or_insert_with(|| {
                let note = notes.get(&partition);
                let before = note.filter(|note| !note.is_of(&self.info.model));
                Range {
                    topic: self.naming.input(partition).to_owned(),
                    topic_id: note.and_then(|note| note.topic.as_ref().map(TopicId::to_string)),
                    partition: partition.number,
                    first: offset.0,
                    next: offset.0,
                    count: 0,
                    previous: before.and_then(|note| note.model.as_ref().map(ModelId::to_string)),
                }
            });
            range.next = offset.next().0;
            range.count += 1;
        }
        ranges.into_values().collect()
    }

    /// One of `pieces` manifests, numbered from 1. The counts are the whole batch's in each, the ranges its own.
    fn manifest(
        &self,
        finished: &Finished,
        (piece, pieces): (u32, u32),
        ranges: &[Range],
    ) -> Result<Message<'_>, serde_json::Error> {
        let mut outcomes = [0_u64; 3];
        for row in &finished.rows {
            outcomes[match row.outcome {
                Outcome::Prediction(_) => 0,
                Outcome::DeadLetter(_) => 1,
                Outcome::Tombstone => 2,
            }] += 1;
        }
        let [predictions, dead_letters, tombstones] = outcomes;
        let BatchInfo { model, signature, .. } = self.info;
        let value = serde_json::to_vec(&Manifest {
            batch_id: self.id.clone(),
            part_of: self.info.part_of.map(|id| id.to_string()),
            piece: (pieces != 1).then_some(piece),
            pieces: (pieces != 1).then_some(pieces),
            group: Some(self.naming.group.clone()),
            model: model.name.to_string(),
            version: model.version.0,
            digest: model.digest.to_string(),
            signature: Some(Signature::clone(signature)),
            reason: self.info.reason.name().to_owned(),
            records: predictions + dead_letters + tombstones,
            predictions,
            dead_letters,
            tombstones,
            bytes: self.info.bytes,
            tokens: self.info.tokens,
            inference_seconds: self.info.inference.as_secs_f64(),
            ranges: ranges.to_vec(),
        })?;
        let key = match piece {
            1 => Cow::Borrowed(self.id.as_bytes()),
            // Each piece has a key of its own, or compaction would keep only one of them.
            piece => Cow::Owned(format!("{}/{piece}", self.id).into_bytes()),
        };
        Ok(Message {
            topic: &self.naming.manifest,
            partition: None,
            key: Some(key),
            value: Some(Cow::Owned(value)),
            headers: Vec::new(),
            timestamp: None,
        })
    }

    fn number(&self, row: &Row) -> Option<i32> {
        match self.naming.partition {
            OutputPartition::Same => Some(row.record.partition.number),
            OutputPartition::Key => None,
        }
    }

    /// The record's own headers but for what they say of its value, then where the prediction comes from.
    fn stamp<'a>(&'a self, message: &mut Message<'a>, record: &'a Record) {
        let mode = self.naming.headers;
        let event = self.naming.event.as_ref();
        inherit(message, record, |name| {
            !headers::is_of_value(name) && (event.is_none() || !headers::is_of_event(name))
        });
        if let Some(event) = event {
            self.tell(event, message, record);
        }
        if mode == Headers::None {
            return;
        }
        if mode == Headers::Full {
            message.push(headers::MODEL_NAME, &*self.info.model.name);
        }
        message.push(headers::MODEL_VERSION, self.version.as_str());
        if mode == Headers::Full {
            message.push(headers::MODEL_DIGEST, &*self.info.model.digest);
        }
        message.push(headers::BATCH_ID, self.id.as_str());
        if mode == Headers::Full {
            message.push(headers::SOURCE_TOPIC, self.naming.input(record.partition));
            message.push(headers::SOURCE_PARTITION, record.partition.number.to_string());
        }
        message.push(headers::SOURCE_OFFSET, record.offset.to_string());
    }

    /// The attributes of an event. Its id is of the record and the version: whoever answers the record again with that
    /// version gives it again.
    fn tell<'a>(&'a self, event: &'a Event, message: &mut Message<'a>, record: &'a Record) {
        let Record { partition, offset, .. } = *record;
        let topic = self.naming.input(partition);
        message.push(headers::EVENT_VERSION, "1.0");
        let id = format!("{topic}/{}/{offset}/{}", partition.number, self.info.model.digest);
        message.push(headers::EVENT_ID, id);
        message.push(headers::EVENT_SOURCE, event.source.as_str());
        message.push(headers::EVENT_TYPE, event.kind.as_str());
        if let Some(time) = record.timestamp.filter(|time| YEARS.contains(time)) {
            message.push(headers::EVENT_TIME, printable::utc(time));
        }
        if message.value.is_some() {
            message.push(headers::CONTENT_TYPE, event.content);
        }
    }

    /// The record's own headers, then why it could not be answered, as Kafka Connect writes it.
    fn explain<'a>(&'a self, message: &mut Message<'a>, record: &'a Record, fault: &'a Fault) {
        inherit(message, record, |_| true);
        message.push(headers::ERRORS_TOPIC, self.naming.input(record.partition));
        message.push(headers::ERRORS_PARTITION, record.partition.number.to_string());
        message.push(headers::ERRORS_OFFSET, record.offset.to_string());
        message.push(headers::ERRORS_STAGE, fault.class.stage());
        message.push(headers::ERRORS_DOER, "tidemill");
        message.push(headers::ERRORS_EXCEPTION, fault.class.name());
        message.push(headers::ERRORS_MESSAGE, fault.message.as_str());
        message.push(headers::ERROR_CLASS, fault.class.name());
        message.push(headers::MODEL_NAME, &*self.info.model.name);
        message.push(headers::MODEL_VERSION, self.version.as_str());
        message.push(headers::BATCH_ID, self.id.as_str());
        // So that one that comes back again and again is known.
        if let Some(attempt) = headers::attempt(&record.headers) {
            message.push(headers::ATTEMPT, attempt.to_string());
        }
    }
}

fn inherit<'a>(message: &mut Message<'a>, record: &'a Record, good: impl Fn(&[u8]) -> bool) {
    let kept = record.headers.iter().filter(|h| !headers::is_reserved(&h.name) && good(&h.name));
    let borrowed = |bytes: &'a Vec<u8>| Cow::Borrowed(bytes.as_slice());
    message
        .headers
        .extend(kept.map(|h| (Cow::Borrowed(h.name.as_slice()), h.value.as_ref().map(borrowed))));
}

/// The partition, of `count`, of a key, as the Java client chooses it; 0 for a record without key.
///
/// # Examples
///
/// ```
/// assert_eq!(tidemill::log::message::partition_of(Some(b"user-7"), 1), 0);
/// ```
pub fn partition_of(key: Option<&[u8]>, count: u16) -> i32 {
    let positive = key.map_or(0, murmur2) & 0x7fff_ffff;
    i32::try_from(positive % u32::from(count.max(1))).unwrap_or(0)
}

/// `MurmurHash2` with the seed of Kafka's `Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = 0x9747_b28c ^ length;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |bytes, byte| (bytes << 8) | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests;

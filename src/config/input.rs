//! What is read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Pointer;
use crate::clean::Cleans;

/// What is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Input {
    /// The topics. Required.
    pub topics: Vec<String>,
    /// What values are.
    pub format: InputFormat,
    /// Where values are of another format than `format`, by topic.
    pub formats: BTreeMap<String, InputFormat>,
    /// A header by which a record says itself what its value is, in place of the two: `content-type`.
    pub format_header: Option<String>,
    /// A file with a schema. Of Avro: with a schema registry the reader's, whose defaults and aliases count; without one that
    /// of all values. Of Protobuf (a `.proto`, or a set of descriptors): that of all values.
    pub schema: Option<PathBuf>,
    /// The full name of the message that values are, where a `schema` of Protobuf has several.
    pub message: Option<String>,
    /// For a text or image model: the field that holds the text, or the image in base64; also the name that a `text`
    /// or `bytes` value is given.
    pub field: String,
    /// For a text model that reads pairs: the field that holds the second text.
    pub pair_field: String,
    /// Where a field of the model stands in a record, if not under its own name: a JSON Pointer, such as `/customer/age`.
    pub fields: BTreeMap<String, Pointer>,
    /// What keys are, and which of the model's fields stand in them.
    pub key: Key,
    /// The header that a field of the model stands in, by the field's name: its value is a text.
    pub headers: BTreeMap<String, String>,
    /// What a field of the model is of the record itself.
    pub record: BTreeMap<String, Part>,
    /// What a field must be before the model takes it, and what becomes of one that is not.
    pub clean: Cleans,
    /// What was written around a record, and is taken off.
    pub unwrap: Unwrap,
    /// What a field means that the model does not read.
    pub unknown_fields: UnknownFields,
}

impl Default for Input {
    fn default() -> Self {
        Self {
            topics: Vec::new(),
            format: InputFormat::Json,
            formats: BTreeMap::new(),
            format_header: None,
            schema: None,
            message: None,
            field: "text".to_owned(),
            pair_field: "text_pair".to_owned(),
            fields: BTreeMap::new(),
            key: Key::default(),
            headers: BTreeMap::new(),
            record: BTreeMap::new(),
            clean: BTreeMap::new(),
            unwrap: Unwrap::None,
            unknown_fields: UnknownFields::Ignore,
        }
    }
}

impl Input {
    /// Whether something says where the field `name` stands.
    pub fn knows(&self, name: &String) -> bool {
        self.fields.contains_key(name) || self.beside().any(|beside| beside == name)
    }

    /// The names of the fields that do not stand in a record's value.
    pub fn beside(&self) -> impl Iterator<Item = &String> {
        let key = self.key.field.iter().chain(self.key.fields.keys());
        key.chain(self.headers.keys()).chain(self.record.keys())
    }
}

/// What keys are. They go along untouched in any case; they are read where a field of the model stands in them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Key {
    /// How they are written.
    pub format: KeyFormat,
    /// A file with the Avro schema of keys: as `input.schema` for values.
    pub schema: Option<PathBuf>,
    /// The field that the whole key is.
    pub field: Option<String>,
    /// Where a field of the model stands in a key.
    pub fields: BTreeMap<String, Pointer>,
}

/// How keys are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyFormat {
    /// JSON: an object, or a text or number alone.
    #[default]
    Json,
    /// Avro: behind Confluent's frame where there is a schema registry, else by `schema`.
    Avro,
    /// UTF-8 text.
    Text,
}

/// Something of a record itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The topic's name.
    Topic,
    /// The partition's number.
    Partition,
    /// The offset.
    Offset,
    /// Its time, milliseconds since 1970-01-01 UTC; missing where the log has none.
    Timestamp,
}

/// What was written around a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unwrap {
    /// Nothing: the value is the record.
    None,
    /// `{"schema", "payload"}` of Kafka Connect's `JsonConverter`; without a schema the value is the record.
    Connect,
    /// Debezium's envelope, with Connect's around it or not: the record is `after`. A deleted row is a tombstone.
    Debezium,
    /// A `CloudEvent` in structured mode (`content-type: application/cloudevents+json`, or a `specversion` where there is no
    /// such header): the record is its `data` or `data_base64`. In binary mode the value is the record.
    #[serde(rename = "cloud_events")]
    CloudEvents,
}

/// What the values of the input topics are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputFormat {
    /// A JSON object.
    Json,
    /// UTF-8 text: the value is the field `input.field`.
    Text,
    /// Anything, such as an image: the value is the field `input.field`.
    Bytes,
    /// Avro: behind Confluent's frame where there is a schema registry, else by `input.schema`.
    Avro,
    /// Protobuf: behind Confluent's frame where there is a schema registry, else by `input.schema`.
    Protobuf,
    /// A map of `MessagePack`.
    MessagePack,
    /// A map of CBOR.
    Cbor,
}

/// What a field means that the model does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownFields {
    /// Nothing.
    Ignore,
    /// The record becomes a dead letter.
    Reject,
}

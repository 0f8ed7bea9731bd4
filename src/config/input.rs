//! What is read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Pointer;

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
            unwrap: Unwrap::None,
            unknown_fields: UnknownFields::Ignore,
        }
    }
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

//! What we write: predictions, dead letters and manifests by the schemas in `schemas/`. Every field there has a default,
//! so that a reader of an older or a newer form reads them all.

use apache_avro::Schema;
use serde_json::Value as Json;

use crate::answer::{Prediction, Span, Task, chosen};
use crate::record::Header;

#[cfg(test)]
mod tests;

/// What is written, each with a schema of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A prediction of numbers.
    Embedding,
    /// A prediction of a label with scores.
    Classification,
    /// A prediction of one number: a regression's or a ranking's.
    Value,
    /// A prediction of labelled pieces.
    Spans,
    /// A prediction of a text in windows.
    Chunks,
    /// A prediction of the mean of a text's windows.
    Mean,
    /// A dead letter.
    DeadLetter,
    /// A manifest.
    Manifest,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Embedding,
        Self::Classification,
        Self::Value,
        Self::Spans,
        Self::Chunks,
        Self::Mean,
        Self::DeadLetter,
        Self::Manifest,
    ];

    /// What a model of `task` answers. A text classification with one output alone answers a [`Kind::Value`].
    pub fn of_task(task: Task) -> Self {
        match task {
            Task::TextEmbedding => Self::Embedding,
            Task::TextClassification | Task::TabularClassification | Task::ImageClassification => {
                Self::Classification
            }
            Task::TextRanking | Task::TabularRegression => Self::Value,
            Task::TokenClassification => Self::Spans,
        }
    }

    /// What a prediction is.
    pub fn of(prediction: &Prediction) -> Self {
        match prediction {
            Prediction::Embedding(_) => Self::Embedding,
            Prediction::Label { .. } => Self::Classification,
            Prediction::Value(_) => Self::Value,
            Prediction::Spans(_) => Self::Spans,
            Prediction::Chunks(_) => Self::Chunks,
            Prediction::Mean { .. } => Self::Mean,
        }
    }

    /// The schema's full name: the subject by `RecordNameStrategy`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "tidemill.Embedding",
            Self::Classification => "tidemill.Classification",
            Self::Value => "tidemill.Value",
            Self::Spans => "tidemill.Spans",
            Self::Chunks => "tidemill.Chunks",
            Self::Mean => "tidemill.Mean",
            Self::DeadLetter => "tidemill.DeadLetter",
            Self::Manifest => "tidemill.Manifest",
        }
    }

    /// The schema's text.
    pub fn schema(self) -> &'static str {
        match self {
            Self::Embedding => include_str!("../../schemas/embedding.avsc"),
            Self::Classification => include_str!("../../schemas/classification.avsc"),
            Self::Value => include_str!("../../schemas/value.avsc"),
            Self::Spans => include_str!("../../schemas/spans.avsc"),
            Self::Chunks => include_str!("../../schemas/chunks.avsc"),
            Self::Mean => include_str!("../../schemas/mean.avsc"),
            Self::DeadLetter => include_str!("../../schemas/dead_letter.avsc"),
            Self::Manifest => include_str!("../../schemas/manifest.avsc"),
        }
    }
}

/// What goes along with a prediction, by `output.include`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Along<'a> {
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// The record's fields, as JSON text.
    pub input: Option<&'a str>,
}

/// A record that could not be answered, and why.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetter<'a> {
    /// The name of the fault's class.
    pub class: &'a str,
    /// What was wrong.
    pub message: &'a str,
    /// Where the record stood.
    pub topic: &'a str,
    /// Where the record stood.
    pub partition: i32,
    /// Where the record stood.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// The model that was to answer it, and its version.
    pub model: Option<(&'a str, u64)>,
    /// The batch that it was in.
    pub batch_id: Option<&'a str>,
    /// The key as it came.
    pub key: Option<&'a [u8]>,
    /// The value as it came.
    pub value: Option<&'a [u8]>,
    /// The headers in their order; a name that is not UTF-8 is written with U+FFFD.
    pub headers: &'a [Header],
}

/// Writes Avro data, behind what is in `out` already.
#[derive(Debug)]
pub struct Encoder<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Encoder<'o> {
    /// Writes to `out`.
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Writes a prediction with at most `top_k` scores, the best, by the schema of [`Kind::of`] it.
    pub fn prediction(&mut self, prediction: &Prediction, top_k: Option<u32>, along: Along<'_>) {
        match prediction {
            Prediction::Embedding(numbers) => self.floats(numbers),
            Prediction::Chunks(chunks) => self.block(chunks, |this, chunk| {
                this.size(chunk.start);
                this.size(chunk.end);
                this.floats(&chunk.embedding);
            }),
            Prediction::Mean { embedding, of } => {
                self.floats(embedding);
                self.size(*of);
            }
            Prediction::Label { best, scores, labels } => {
                let label = |index: usize| labels.get(index).map_or("", String::as_str);
                self.text(label(*best));
                self.double(scores.get(*best).map_or(f64::NAN, |score| (*score).into()));
                self.block(&chosen(scores, top_k), |this, index| {
                    this.text(label(*index));
                    this.double(scores[*index].into());
                });
            }
            Prediction::Value(value) => self.double((*value).into()),
            Prediction::Spans(spans) => self.block(spans, Self::span),
        }
        self.optional(along.key, Self::bytes);
        self.optional(along.input, Self::text);
    }

    fn floats(&mut self, numbers: &[f32]) {
        self.out.reserve(numbers.len() * 4 + 16);
        self.block(numbers, |this, number| this.raw(&number.to_le_bytes()));
    }

    fn span(&mut self, span: &Span) {
        self.text(&span.label);
        self.double(span.score.into());
        self.size(span.start);
        self.size(span.end);
        self.text(&span.word);
    }

    /// Writes a dead letter.
    pub fn dead_letter(&mut self, letter: &DeadLetter<'_>) {
        self.text(letter.class);
        self.text(letter.message);
        self.text(letter.topic);
        self.long(letter.partition.into());
        self.long(letter.offset);
        self.optional(letter.timestamp, Self::long);
        self.optional(letter.model.map(|(name, _)| name), Self::text);
        let version = letter.model.map(|(_, version)| i64::try_from(version).unwrap_or(i64::MAX));
        self.optional(version, Self::long);
        self.optional(letter.batch_id, Self::text);
        self.optional(letter.key, Self::bytes);
        self.optional(letter.value, Self::bytes);
        self.block(letter.headers, |this, header| {
            this.text(&String::from_utf8_lossy(&header.name));
            this.optional(header.value.as_deref(), Self::bytes);
        });
    }

    /// Writes a JSON value by a schema of ours: what stands for a field that the object lacks is the default.
    ///
    /// # Errors
    ///
    /// Where the value is not of the schema.
    pub fn json(&mut self, schema: &Schema, value: &Json) -> Result<(), String> {
        match (schema, value) {
            (Schema::Record(record), Json::Object(fields)) => {
                for field in &record.fields {
                    let value = fields.get(&field.name).or(field.default.as_ref());
                    self.json(&field.schema, value.unwrap_or(&Json::Null))
                        .map_err(|rule| format!("{}{rule}", field.name))?;
                }
                Ok(())
            }
            (Schema::Array(array), Json::Array(items)) => {
                let mut written = Ok(());
                self.block(items, |this, item| {
                    if written.is_ok() {
                        written = this.json(&array.items, item);
                    }
                });
                written
            }
            // A union of ours is null or one other type.
            (Schema::Union(_), Json::Null) => {
                self.long(0);
                Ok(())
            }
            (Schema::Union(union), value) => {
                self.long(1);
                union.variants().get(1).map_or(Ok(()), |schema| self.json(schema, value))
            }
            (Schema::String, Json::String(text)) => {
                self.text(text);
                Ok(())
            }
            (Schema::Double, Json::Number(number)) => {
                self.double(number.as_f64().unwrap_or(f64::NAN));
                Ok(())
            }
            (Schema::Int | Schema::Long, Json::Number(number)) => {
                self.long(number.as_i64().unwrap_or(i64::MAX));
                Ok(())
            }
            (schema, _) => Err(format!(" is not {}", super::resolve::kind(schema))),
        }
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Zig-zag, seven bits a byte.
    fn long(&mut self, number: i64) {
        let mut coded = (number << 1 ^ number >> 63).cast_unsigned();
        while 0x7f < coded {
            self.out.push(coded.to_le_bytes()[0] | 0x80);
            coded >>= 7;
        }
        self.out.push(coded.to_le_bytes()[0]);
    }

    fn size(&mut self, size: usize) {
        self.long(i64::try_from(size).unwrap_or(i64::MAX));
    }

    fn double(&mut self, number: f64) {
        self.raw(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.size(bytes.len());
        self.raw(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// A union of null and another type.
    fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.long(0),
            Some(value) => {
                self.long(1);
                write(self, value);
            }
        }
    }

    /// An array or a map, in one block.
    fn block<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        if !items.is_empty() {
            self.size(items.len());
            items.iter().for_each(|item| write(self, item));
        }
        self.long(0);
    }
}

//! What we write: predictions, dead letters and manifests by the schemas in `schemas/`. Every field there has a default,
//! so that a reader of an older or a newer form reads them all.

use std::borrow::Cow;

use apache_avro::Schema;
use serde_json::{Value as Json, json};

use crate::answer::{Number, Out, Part, Prediction, Scores, Shape, Task, Vectors};
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

    /// The parts of such a prediction.
    pub fn parts(self) -> &'static [Part] {
        match self {
            Self::Embedding => &[Part::Embedding],
            Self::Classification => &[Part::Label, Part::Score, Part::Scores],
            Self::Value => &[Part::Value],
            Self::Spans => &[Part::Spans],
            Self::Chunks => &[Part::Chunks],
            Self::Mean => &[Part::MeanEmbedding, Part::MeanOf],
            Self::DeadLetter | Self::Manifest => &[],
        }
    }

    /// The schema's text for predictions of a shape: the released one, with the fields that the shape names in its form.
    pub fn shaped(self, shape: &Shape) -> Cow<'static, str> {
        let plain = Shape { top_k: shape.top_k, ..Shape::default() } == *shape;
        let released = (!plain).then(|| serde_json::from_str::<Json>(self.schema()).ok()).flatten();
        let Some(mut schema) = released else { return Cow::Borrowed(self.schema()) };
        let fields = schema["fields"].as_array().cloned().unwrap_or_default();
        let named = |name: &str| fields.iter().find(|field| field["name"] == name).cloned();
        let parts = shape.names(self.parts()).filter_map(|(name, part)| {
            let mut field = named(part.name())?;
            field["name"] = name.into();
            reform(&mut field, part, shape);
            Some(field)
        });
        let along = ["key", "input"].into_iter().filter_map(named);
        schema["fields"] = parts.chain(along).collect();
        Cow::Owned(schema.to_string())
    }

    /// The released schema's text.
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

/// Gives a part's field the form of a shape.
fn reform(field: &mut Json, part: Part, shape: &Shape) {
    if part == Part::Scores && shape.scores == Scores::Array {
        field["type"] = json!({"type": "array", "items": "double"});
        field["default"] = json!([]);
        field["doc"] = "Every label's score, in the order of the model's labels.".into();
    }
    let numbers = match part {
        Part::Embedding | Part::MeanEmbedding => Some(field),
        Part::Chunks => field.pointer_mut("/type/items/fields/2"),
        Part::MeanOf | Part::Label | Part::Score | Part::Scores | Part::Value | Part::Spans => None,
    };
    if let Some(numbers) = numbers
        && shape.vectors == Vectors::Bytes
    {
        numbers["type"] = "bytes".into();
        numbers["default"] = "".into();
        numbers["doc"] = "As many little-endian 32-bit floats as the model has dimensions.".into();
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

    /// Writes a prediction by the [schema](Kind::shaped) of [`Kind::of`] it.
    pub fn prediction(&mut self, prediction: &Prediction, shape: &Shape, along: Along<'_>) {
        shape.write(prediction, self);
        self.optional(along.key, Self::bytes);
        self.optional(along.input, Self::string);
    }

    /// Writes a dead letter.
    pub fn dead_letter(&mut self, letter: &DeadLetter<'_>) {
        self.string(letter.class);
        self.string(letter.message);
        self.string(letter.topic);
        self.long(letter.partition.into());
        self.long(letter.offset);
        self.optional(letter.timestamp, Self::long);
        self.optional(letter.model.map(|(name, _)| name), Self::string);
        let version = letter.model.map(|(_, version)| i64::try_from(version).unwrap_or(i64::MAX));
        self.optional(version, Self::long);
        self.optional(letter.batch_id, Self::string);
        self.optional(letter.key, Self::bytes);
        self.optional(letter.value, Self::bytes);
        self.block(letter.headers, |this, header| {
            this.string(&String::from_utf8_lossy(&header.name));
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
                self.string(text);
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

    fn string(&mut self, text: &str) {
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

/// Fields have no names in a datum: they stand in the schema's order.
impl Out for Encoder<'_> {
    fn field(&mut self, _name: &str) {}

    fn text(&mut self, text: &str) {
        self.string(text);
    }

    fn number(&mut self, number: Number) {
        self.double(number.into());
    }

    fn count(&mut self, count: usize) {
        self.size(count);
    }

    fn vector(&mut self, numbers: &[f32], form: Vectors) {
        self.out.reserve(numbers.len() * 4 + 16);
        match form {
            Vectors::Array => self.block(numbers, |this, number| this.raw(&number.to_le_bytes())),
            Vectors::Bytes => {
                self.size(numbers.len() * 4);
                numbers.iter().for_each(|number| self.raw(&number.to_le_bytes()));
            }
        }
    }

    fn list<T>(&mut self, items: &[T], each: impl FnMut(&mut Self, &T)) {
        self.block(items, each);
    }

    fn map<'n, T>(
        &mut self,
        items: &[T],
        name: impl Fn(&T) -> &'n str,
        mut each: impl FnMut(&mut Self, &T),
    ) {
        self.block(items, |this, item| {
            this.text(name(item));
            each(this, item);
        });
    }

    fn object(&mut self, fields: impl FnOnce(&mut Self)) {
        fields(self);
    }
}

//! Predictions as JSON.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use crate::answer::{Number, Out, Prediction, Shape, Vectors};

/// A prediction as a JSON object, by itself, with all its parts under their own names.
pub fn prediction_alone(prediction: &Prediction) -> Vec<u8> {
    let mut out = open(prediction, &Shape::default());
    out.push(b'}');
    out
}

/// The prediction, up to the brace that closes it.
pub(super) fn open(prediction: &Prediction, shape: &Shape) -> Vec<u8> {
    let numbers = |embedding: &[f32]| 48 + embedding.len() * 13;
    let mut out = Vec::with_capacity(match prediction {
        Prediction::Embedding(embedding) | Prediction::Mean { embedding, .. } => numbers(embedding),
        Prediction::Chunks(chunks) => {
            chunks.iter().map(|chunk| numbers(&chunk.embedding)).sum::<usize>()
        }
        Prediction::Label { .. } | Prediction::Value(_) | Prediction::Spans(_) => 128,
    });
    out.push(b'{');
    shape.write(prediction, &mut Text { out: &mut out });
    out
}

/// JSON text, behind what is in `out` already.
struct Text<'o> {
    out: &'o mut Vec<u8>,
}

impl Text<'_> {
    /// A comma, but for the first of an object or a list.
    fn separate(&mut self) {
        if !matches!(self.out.last(), Some(b'{' | b'[')) {
            self.out.push(b',');
        }
    }
}

impl Out for Text<'_> {
    fn field(&mut self, name: &str) {
        self.separate();
        json(name, self.out);
        self.out.push(b':');
    }

    fn text(&mut self, text: &str) {
        json(text, self.out);
    }

    fn number(&mut self, number: Number) {
        json(number, self.out);
    }

    fn count(&mut self, count: usize) {
        json(count, self.out);
    }

    fn vector(&mut self, numbers: &[f32], form: Vectors) {
        match form {
            Vectors::Array => {
                self.list(numbers, |this, number| this.number(Number::Single(*number)));
            }
            Vectors::Bytes => {
                let bytes: Vec<u8> =
                    numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
                json(BASE64.encode(bytes), self.out);
            }
        }
    }

    fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.out.push(b'[');
        for item in items {
            self.separate();
            each(self, item);
        }
        self.out.push(b']');
    }

    fn map<'n, T>(
        &mut self,
        items: &[T],
        name: impl Fn(&T) -> &'n str,
        mut each: impl FnMut(&mut Self, &T),
    ) {
        self.object(|this| {
            for item in items {
                this.field(name(item));
                each(this, item);
            }
        });
    }

    fn object(&mut self, fields: impl FnOnce(&mut Self)) {
        self.out.push(b'{');
        fields(self);
        self.out.push(b'}');
    }
}

pub(super) fn member(name: &str, value: impl Serialize, out: &mut Vec<u8>) {
    out.push(b',');
    json(name, out);
    out.push(b':');
    json(value, out);
}

/// Writes a value: of a number the shortest text that reads back as the same; `null` where JSON cannot say it (a model
/// refuses those).
pub(super) fn json(value: impl Serialize, out: &mut Vec<u8>) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, &value).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

/// Writes an object of members that are JSON text.
pub(super) fn object<'a>(
    members: impl Iterator<Item = (&'a str, Cow<'a, str>)>,
    out: &mut Vec<u8>,
) {
    out.push(b'{');
    for (place, (name, text)) in members.enumerate() {
        if place != 0 {
            out.push(b',');
        }
        json(name, out);
        out.push(b':');
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'}');
}

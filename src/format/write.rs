//! Predictions as JSON.

use std::borrow::Cow;

use serde::Serialize;

use crate::answer::{Number, Prediction, chosen};

/// A prediction as a JSON object, by itself.
pub fn prediction_alone(prediction: &Prediction) -> Vec<u8> {
    let mut out = open(prediction, None);
    out.push(b'}');
    out
}

/// The prediction, up to the brace that closes it.
pub(super) fn open(prediction: &Prediction, top_k: Option<u32>) -> Vec<u8> {
    let mut out = Vec::with_capacity(match prediction {
        Prediction::Embedding(values) => 16 + values.len() * 13,
        Prediction::Mean { embedding, .. } => 32 + embedding.len() * 13,
        Prediction::Chunks(chunks) => {
            chunks.iter().map(|chunk| 48 + chunk.embedding.len() * 13).sum::<usize>()
        }
        Prediction::Label { .. } | Prediction::Value(_) | Prediction::Spans(_) => 128,
    });
    out.push(b'{');
    body(prediction, top_k, &mut out);
    out
}

fn body(prediction: &Prediction, top_k: Option<u32>, out: &mut Vec<u8>) {
    match prediction {
        Prediction::Embedding(values) => {
            out.extend_from_slice(b"\"embedding\":");
            numbers(values, out);
        }
        Prediction::Chunks(chunks) => {
            out.extend_from_slice(b"\"chunks\":[");
            for (place, chunk) in chunks.iter().enumerate() {
                out.extend_from_slice(if place == 0 { b"{\"start\":" } else { b",{\"start\":" });
                json(chunk.start, out);
                member("end", chunk.end, out);
                out.extend_from_slice(b",\"embedding\":");
                numbers(&chunk.embedding, out);
                out.push(b'}');
            }
            out.push(b']');
        }
        Prediction::Mean { embedding, of } => {
            out.extend_from_slice(b"\"mean_embedding\":");
            numbers(embedding, out);
            member("mean_of", of, out);
        }
        Prediction::Value(value) => {
            out.extend_from_slice(b"\"value\":");
            json(*value, out);
        }
        Prediction::Label { best, scores, labels } => {
            let label = |index: usize| labels.get(index).map_or("", String::as_str);
            out.extend_from_slice(b"\"label\":");
            json(label(*best), out);
            out.extend_from_slice(b",\"score\":");
            json(scores.get(*best).copied().unwrap_or(Number::Single(f32::NAN)), out);
            out.extend_from_slice(b",\"scores\":{");
            for (place, index) in chosen(scores, top_k).into_iter().enumerate() {
                if place != 0 {
                    out.push(b',');
                }
                json(label(index), out);
                out.push(b':');
                json(scores[index], out);
            }
            out.push(b'}');
        }
        Prediction::Spans(spans) => {
            out.extend_from_slice(b"\"spans\":[");
            for (place, span) in spans.iter().enumerate() {
                if place != 0 {
                    out.push(b',');
                }
                out.extend_from_slice(b"{\"label\":");
                json(span.label.as_str(), out);
                out.extend_from_slice(b",\"score\":");
                json(Number::from(span.score), out);
                member("start", span.start, out);
                member("end", span.end, out);
                member("word", span.word.as_str(), out);
                out.push(b'}');
            }
            out.push(b']');
        }
    }
}

fn numbers(values: &[f32], out: &mut Vec<u8>) {
    out.push(b'[');
    for (place, value) in values.iter().enumerate() {
        if place != 0 {
            out.push(b',');
        }
        json(Number::from(*value), out);
    }
    out.push(b']');
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

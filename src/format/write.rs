//! Predictions as JSON.

use std::borrow::Cow;

use serde_json::Value as Json;

use crate::answer::{Number, Prediction};

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
        Prediction::Label { .. } | Prediction::Value(_) | Prediction::Spans(_) => 128,
    });
    out.push(b'{');
    body(prediction, top_k, &mut out);
    out
}

fn body(prediction: &Prediction, top_k: Option<u32>, out: &mut Vec<u8>) {
    match prediction {
        Prediction::Embedding(values) => {
            out.extend_from_slice(b"\"embedding\":[");
            for (place, value) in values.iter().enumerate() {
                if place != 0 {
                    out.push(b',');
                }
                number((*value).into(), out);
            }
            out.push(b']');
        }
        Prediction::Value(value) => {
            out.extend_from_slice(b"\"value\":");
            number(*value, out);
        }
        Prediction::Label { best, scores, labels } => {
            let label = |index: usize| labels.get(index).map_or("", String::as_str);
            out.extend_from_slice(b"\"label\":");
            json(&Json::from(label(*best)), out);
            out.extend_from_slice(b",\"score\":");
            number(scores.get(*best).copied().unwrap_or(Number::Single(f32::NAN)), out);
            out.extend_from_slice(b",\"scores\":{");
            for (place, index) in chosen(scores, top_k).into_iter().enumerate() {
                if place != 0 {
                    out.push(b',');
                }
                json(&Json::from(label(index)), out);
                out.push(b':');
                number(scores[index], out);
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
                json(&Json::from(span.label.as_str()), out);
                out.extend_from_slice(b",\"score\":");
                number(span.score.into(), out);
                member("start", &Json::from(span.start), out);
                member("end", &Json::from(span.end), out);
                member("word", &Json::from(span.word.as_str()), out);
                out.push(b'}');
            }
            out.push(b']');
        }
    }
}

/// Indices of the `top_k` best scores, the best first and equals in their order; without a number all, as they are.
fn chosen(scores: &[Number], top_k: Option<u32>) -> Vec<usize> {
    let mut chosen: Vec<usize> = (0..scores.len()).collect();
    if let Some(most) = top_k {
        chosen.sort_by(|a, b| f64::from(scores[*b]).total_cmp(&scores[*a].into()));
        chosen.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    }
    chosen
}

pub(super) fn member(name: &str, value: &Json, out: &mut Vec<u8>) {
    out.push(b',');
    json(&Json::from(name), out);
    out.push(b':');
    json(value, out);
}

pub(super) fn json(value: &Json, out: &mut Vec<u8>) {
    out.extend_from_slice(value.to_string().as_bytes());
}

/// Shortest text that reads back as the same number; `null` for what JSON cannot say (a model refuses those).
fn number(value: Number, out: &mut Vec<u8>) {
    use std::io::Write as _;
    let start = out.len();
    if serde_json::to_writer(&mut *out, &value).is_err() {
        out.truncate(start);
        // A Vec takes every write.
        write!(out, "null").unwrap_or_default();
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
        json(&Json::from(name), out);
        out.push(b':');
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'}');
}

//! Record values in, prediction values out. The seam for other formats: an arm here and a file beside.
//!
//! JSON goes both ways: an object in, an object out. Numbers are printed so that they read back as the same
//! f32.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use crate::config::{Include, InputFormat, Output};
use crate::model::{Fields, Prediction};
use crate::record::{Fault, FaultClass};

/// Decodes a record's value into its fields.
///
/// # Errors
///
/// [`FaultClass::Undecodable`], with the place of the first thing wrong; never with the value itself.
pub fn decode(format: InputFormat, field: &str, value: &[u8]) -> Result<Fields, Fault> {
    if format == InputFormat::Bytes {
        return Ok(Fields::from_iter([(field.to_owned(), Value::from(BASE64.encode(value)))]));
    }
    let undecodable = |message: String| Fault::new(FaultClass::Undecodable, message);
    let text = std::str::from_utf8(value)
        .map_err(|error| undecodable(format!("no UTF-8 from byte {} on", error.valid_up_to())))?;
    if format == InputFormat::Text {
        return Ok(Fields::from_iter([(field.to_owned(), Value::from(text))]));
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(undecodable(format!("a JSON {} where an object is wanted", kind(&other)))),
        Err(error) => Err(undecodable(format!("no JSON: {error}"))),
    }
}

/// What kind of JSON a value is, for messages.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Encodes a prediction as a JSON object, with what `output.include` takes along of the input and at most `output.top_k`
/// scores.
pub fn encode(
    prediction: &Prediction,
    output: &Output,
    key: Option<&[u8]>,
    fields: Option<&Fields>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(match prediction {
        Prediction::Embedding(values) => 16 + values.len() * 13,
        Prediction::Label { .. } | Prediction::Value(_) | Prediction::Spans(_) => 128,
    });
    out.push(b'{');
    body(prediction, output.top_k, &mut out);
    match (&output.include, fields) {
        (Include::Key, _) => {
            out.extend_from_slice(b",\"key\":");
            let key = key.map(|key| String::from_utf8_lossy(key));
            json(&Value::from(key.as_deref()), &mut out);
        }
        (Include::All, Some(fields)) => {
            member("input", &Value::Object(fields.clone()), &mut out);
        }
        (Include::Fields(names), Some(fields)) => {
            let taken =
                names.iter().filter_map(|name| Some((name.clone(), fields.get(name)?.clone())));
            member("input", &Value::Object(taken.collect()), &mut out);
        }
        (Include::None, _) | (Include::All | Include::Fields(_), None) => (),
    }
    out.push(b'}');
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
                number(*value, out);
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
            json(&Value::from(label(*best)), out);
            out.extend_from_slice(b",\"score\":");
            number(scores.get(*best).copied().unwrap_or(f32::NAN), out);
            out.extend_from_slice(b",\"scores\":{");
            for (place, index) in chosen(scores, top_k).into_iter().enumerate() {
                if place != 0 {
                    out.push(b',');
                }
                json(&Value::from(label(index)), out);
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
                json(&Value::from(span.label.as_str()), out);
                out.extend_from_slice(b",\"score\":");
                number(span.score, out);
                member("start", &Value::from(span.start), out);
                member("end", &Value::from(span.end), out);
                member("word", &Value::from(span.word.as_str()), out);
                out.push(b'}');
            }
            out.push(b']');
        }
    }
}

/// Indices of the `top_k` best scores, the best first and equals in their order; without a number all, as they are.
fn chosen(scores: &[f32], top_k: Option<u32>) -> Vec<usize> {
    let mut chosen: Vec<usize> = (0..scores.len()).collect();
    if let Some(most) = top_k {
        chosen.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        chosen.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    }
    chosen
}

fn member(name: &str, value: &Value, out: &mut Vec<u8>) {
    out.push(b',');
    json(&Value::from(name), out);
    out.push(b':');
    json(value, out);
}

fn json(value: &Value, out: &mut Vec<u8>) {
    out.extend_from_slice(value.to_string().as_bytes());
}

/// Shortest text that reads back as the same f32; `null` for what JSON cannot say (a model refuses those).
fn number(value: f32, out: &mut Vec<u8>) {
    use std::io::Write as _;
    let start = out.len();
    if serde_json::to_writer(&mut *out, &value).is_err() {
        out.truncate(start);
        // A Vec takes every write.
        write!(out, "null").unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_is_no_object_is_undecodable() {
        let deep = "[".repeat(10_000);
        for (value, expect) in [
            (&b"\xff\xfe"[..], "no UTF-8 from byte 0 on"),
            (b"{\"a\":\"\xc3\x28\"}", "no UTF-8 from byte 6 on"),
            (b"", "no JSON: EOF"),
            (b"{\"a\":1", "no JSON: EOF"),
            (b"[1]", "a JSON array where"),
            (b"7", "a JSON number where"),
            (b"null", "a JSON null where"),
            (b"{\"a\":NaN}", "no JSON: expected value"),
            (b"{\"a\":1e400}", "no JSON: number out of range"),
            (b"{\"a\":\"\\ud800\"}", "no JSON: unexpected end of hex escape"),
            (b"\xef\xbb\xbf{}", "no JSON: expected value"),
            (deep.as_bytes(), "no JSON: recursion limit"),
        ] {
            let fault = decode(InputFormat::Json, "text", value).unwrap_err();
            assert_eq!(fault.class, FaultClass::Undecodable);
            assert!(fault.message.contains(expect), "{} / {expect}", fault.message);
        }
    }

    #[test]
    fn text_and_bytes_are_the_field_they_are_given() {
        let fields = decode(InputFormat::Text, "body", b"a \"b\"").unwrap();
        assert_eq!(Value::Object(fields).to_string(), r#"{"body":"a \"b\""}"#);
        let fields = decode(InputFormat::Bytes, "image", b"\xff\xd8\x00").unwrap();
        assert_eq!(Value::Object(fields).to_string(), r#"{"image":"/9gA"}"#);
    }

    #[track_caller]
    fn encodes(prediction: &Prediction, include: &Include, expect: &str) {
        let output = Output { include: include.clone(), ..Output::default() };
        encodes_as(prediction, &output, expect);
    }

    #[track_caller]
    fn encodes_as(prediction: &Prediction, output: &Output, expect: &str) {
        let fields = decode(InputFormat::Json, "", br#"{"b":1,"a":"x"}"#).unwrap();
        let value = encode(prediction, output, Some(b"k\xff"), Some(&fields));
        assert_eq!(String::from_utf8(value).unwrap(), expect);
    }

    #[test]
    fn the_best_scores_come_first_where_a_number_is_asked() {
        let labels: Arc<[String]> = ["a", "b", "c", "d"].map(str::to_owned).into();
        let label = Prediction::Label { best: 1, scores: vec![0.125, 0.5, 0.25, 0.125], labels };
        for (top_k, scores) in [
            (None, r#""a":0.125,"b":0.5,"c":0.25,"d":0.125"#),
            (Some(1), r#""b":0.5"#),
            (Some(3), r#""b":0.5,"c":0.25,"a":0.125"#),
            (Some(9), r#""b":0.5,"c":0.25,"a":0.125,"d":0.125"#),
        ] {
            let output = Output { top_k, ..Output::default() };
            let expect = format!(r#"{{"label":"b","score":0.5,"scores":{{{scores}}}}}"#);
            encodes_as(&label, &output, &expect);
        }
    }

    #[test]
    fn predictions_are_objects() {
        let labels: Arc<[String]> = Arc::from(["no".to_owned(), "y\"es".to_owned()]);
        let label = Prediction::Label { best: 1, scores: vec![0.25, 0.75], labels };
        let scores = r#"{"label":"y\"es","score":0.75,"scores":{"no":0.25,"y\"es":0.75}}"#;
        encodes(&label, &Include::None, scores);
        let embedding = Prediction::Embedding(vec![0.1, -1.0e-8, 3.0]);
        encodes(&embedding, &Include::None, r#"{"embedding":[0.1,-1e-8,3.0]}"#);
        let value = Prediction::Value(0.5);
        encodes(&value, &Include::Key, "{\"value\":0.5,\"key\":\"k\u{fffd}\"}");
        encodes(&value, &Include::All, r#"{"value":0.5,"input":{"b":1,"a":"x"}}"#);
        let names = vec!["a".to_owned(), "absent".to_owned()];
        encodes(&value, &Include::Fields(names), r#"{"value":0.5,"input":{"a":"x"}}"#);
        encodes(&Prediction::Value(f32::NAN), &Include::None, r#"{"value":null}"#);
    }
}

//! Record values in, prediction values out. The seam for other formats: an arm here and a file beside.
//!
//! JSON goes both ways: an object in, an object out. Numbers are printed so that they read back as the same
//! f32 or f64, as the model computed them.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value as Json;

use crate::answer::{Number, Prediction};
use crate::config::{Include, Input, InputFormat, Output};
use crate::field::Value;
use crate::record::{Fault, FaultClass, Record};

mod envelope;
mod json;
mod wanted;

use envelope::Inside;
pub(crate) use json::explain;
pub use wanted::Wanted;

/// What a record has of the fields that are wanted.
#[derive(Debug)]
pub struct Read<'a> {
    /// In the order in which they are wanted. Of a list or an object only its kind: no model takes one.
    pub values: Vec<Option<Value<'a>>>,
    /// The name of the record's first field that is not wanted.
    pub unknown: Option<Cow<'a, str>>,
}

/// Decodes the fields `wanted` of a record's value; `None` where the value says that there is no record any more.
///
/// # Errors
///
/// [`FaultClass::Undecodable`], with the place of the first thing wrong; never with the value itself.
pub fn decode<'a>(
    settings: &'a Input,
    wanted: &Wanted,
    value: &'a [u8],
) -> Result<Option<Read<'a>>, Fault> {
    let undecodable = |message: String| Fault::new(FaultClass::Undecodable, message);
    if settings.format == InputFormat::Bytes {
        return Ok(Some(alone(settings, wanted, Value::Bytes(Cow::Borrowed(value)))));
    }
    let text = std::str::from_utf8(value).map_err(|error| {
        let utf16 = value.starts_with(b"\xff\xfe") || value.starts_with(b"\xfe\xff");
        let meant = if utf16 { ": its byte order mark says UTF-16; write UTF-8" } else { "" };
        undecodable(format!("is not valid UTF-8 from byte {} on{meant}", error.valid_up_to()))
    })?;
    if settings.format == InputFormat::Text {
        return Ok(Some(alone(settings, wanted, Value::Text(Cow::Borrowed(text)))));
    }
    match envelope::open(text, settings.unwrap).map_err(undecodable)? {
        Inside::Deleted => Ok(None),
        Inside::Record(text) => {
            let json::Read { values, unknown } = json::read(text, wanted).map_err(undecodable)?;
            Ok(Some(Read { values, unknown }))
        }
    }
}

/// A record that is one value: it has the field `input.field`.
fn alone<'a>(settings: &'a Input, wanted: &Wanted, value: Value<'a>) -> Read<'a> {
    let mut values = vec![None; wanted.len()];
    let place = wanted.paths().iter().position(|path| *path == [settings.field.as_str()]);
    if let Some(place) = place {
        values[place] = Some(value);
    }
    let unknown = place.is_none().then_some(Cow::Borrowed(settings.field.as_str()));
    Read { values, unknown }
}

/// Encodes a prediction as a JSON object, with what `output.include` takes along of the record, as its own text has it,
/// and at most `output.top_k` scores.
pub fn encode(prediction: &Prediction, output: &Output, input: &Input, record: &Record) -> Vec<u8> {
    let mut out = answer(prediction, output.top_k);
    match &output.include {
        Include::None => (),
        Include::Key => {
            let key = record.key.as_deref().map(String::from_utf8_lossy);
            member("key", &Json::from(key.as_deref()), &mut out);
        }
        Include::All => include(input, None, record, &mut out),
        Include::Fields(names) => include(input, Some(names), record, &mut out),
    }
    out.push(b'}');
    out
}

/// A prediction as a JSON object, by itself.
pub fn encode_alone(prediction: &Prediction) -> Vec<u8> {
    let mut out = answer(prediction, None);
    out.push(b'}');
    out
}

/// As [`encode`] begins: the prediction, up to the brace that closes it.
fn answer(prediction: &Prediction, top_k: Option<u32>) -> Vec<u8> {
    let mut out = Vec::with_capacity(match prediction {
        Prediction::Embedding(values) => 16 + values.len() * 13,
        Prediction::Label { .. } | Prediction::Value(_) | Prediction::Spans(_) => 128,
    });
    out.push(b'{');
    body(prediction, top_k, &mut out);
    out
}

/// Writes the fields `names` of a record, or all, under `input`.
fn include(input: &Input, names: Option<&[String]>, record: &Record, out: &mut Vec<u8>) {
    let value = record.value.as_deref().unwrap_or_default();
    out.extend_from_slice(b",\"input\":");
    let alone = |value: Json, out: &mut Vec<u8>| {
        let wanted = names.is_none_or(|names| names.contains(&input.field));
        let fields = wanted.then(|| (input.field.clone(), value));
        json(&Json::Object(fields.into_iter().collect()), out);
    };
    // The record was decoded, or there would be no prediction.
    let text = std::str::from_utf8(value).unwrap_or_default();
    match (input.format, names) {
        (InputFormat::Bytes, _) => alone(Json::from(BASE64.encode(value)), out),
        (InputFormat::Text, _) => alone(Json::from(text), out),
        (InputFormat::Json, None) => {
            out.extend_from_slice(json::compact(record_in(input, text).trim()).as_bytes());
        }
        (InputFormat::Json, Some(names)) => {
            let read =
                json::read::<&str>(record_in(input, text), &Wanted::new(names, &input.fields));
            let values = read.map(|read| read.values).unwrap_or_default();
            let mut next = b'{';
            for (name, value) in names.iter().zip(values) {
                if let Some(value) = value {
                    out.push(std::mem::replace(&mut next, b','));
                    json(&Json::from(name.as_str()), out);
                    out.push(b':');
                    out.extend_from_slice(json::compact(value).as_bytes());
                }
            }
            if next == b'{' {
                out.push(b'{');
            }
            out.push(b'}');
        }
    }
}

/// The record in a value that was decoded.
fn record_in<'t>(input: &Input, text: &'t str) -> &'t str {
    match envelope::open(text, input.unwrap) {
        Ok(Inside::Record(record)) => record,
        Ok(Inside::Deleted) | Err(_) => "null",
    }
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

fn member(name: &str, value: &Json, out: &mut Vec<u8>) {
    out.push(b',');
    json(&Json::from(name), out);
    out.push(b':');
    json(value, out);
}

fn json(value: &Json, out: &mut Vec<u8>) {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;

    fn wanted(name: &str) -> Wanted {
        Wanted::new(&[name.to_owned()], &BTreeMap::new())
    }

    #[test]
    fn what_is_no_object_is_undecodable() {
        let deep = "[".repeat(10_000);
        for (value, expect) in [
            (&b"\xff\xfe"[..], "is not valid UTF-8 from byte 0 on"),
            (b"{\"a\":\"\xc3\x28\"}", "is not valid UTF-8 from byte 6 on"),
            (b"", "is not valid JSON: EOF"),
            (b"{\"a\":1", "is not valid JSON: EOF"),
            (b"{\"a\":1}}", "is not valid JSON: trailing"),
            (b"[1]", "a JSON array where"),
            (b"7", "a JSON number where"),
            (b"null", "a JSON null where"),
            (b"{\"b\":2,\n\"a\":NaN}", "NaN at line 2 column 5 is no number of JSON: write null"),
            (b"{\"a\":[1,-Infinity]}", "-Infinity at line 1 column 10 is no number"),
            (b"{\"c\":nan}", "nan at line 1 column 7 is no number"),
            (b"{\"a\":None}", "None at line 1 column 6 is Python's"),
            (b"{\"a\":True}", "True at line 1 column 6 is Python's"),
            (b"{'a':1}", "' at line 1 column 2 cannot stand around"),
            (b"{\"a\":secret}", "is not valid JSON: expected value at line 1"),
            (b"{\"a\":1e400}", "has a number at line 1 column 10 that no 64-bit float can hold"),
            (b"\xef\xbb\xbf{}", "begins with a byte order mark (U+FEFF)"),
            (b"\xff\xfe{\0}\0", "says UTF-16; write UTF-8"),
            (b"\0\0\0\0\x01{}", "begins with a zero byte, as Confluent's"),
            (b"\0\0\0\0\0\0\0\0{}", "is not valid JSON: expected value"),
            (deep.as_bytes(), "is not valid JSON: EOF"),
        ] {
            let fault = decode(&Input::default(), &wanted("a"), value).unwrap_err();
            assert_eq!(fault.class, FaultClass::Undecodable);
            assert!(fault.message.contains(expect), "{} / {expect}", fault.message);
        }
    }

    #[test]
    fn text_and_bytes_are_the_field_they_are_given() {
        for (format, value, expect) in [
            (InputFormat::Text, &b"a \"b\""[..], Value::Text("a \"b\"".into())),
            (InputFormat::Bytes, b"\xff\xd8\x00", Value::Bytes(b"\xff\xd8\x00"[..].into())),
        ] {
            let settings = Input { format, field: "body".to_owned(), ..Input::default() };
            let read = decode(&settings, &wanted("body"), value).unwrap().unwrap();
            assert_eq!((read.values, read.unknown), (vec![Some(expect)], None));
            let read = decode(&settings, &wanted("text"), value).unwrap().unwrap();
            assert_eq!(read.unknown.as_deref(), Some("body"));
        }
    }

    #[test]
    fn deep_and_wide_values_that_nobody_wants_are_passed_over() {
        let value = format!("{{\"deep\":{}{},\"a\":1}}", "[".repeat(10_000), "]".repeat(10_000));
        let settings = Input::default();
        let read = decode(&settings, &wanted("a"), value.as_bytes()).unwrap().unwrap();
        assert_eq!(read.values, [Some(Value::Int(1))]);
    }

    #[track_caller]
    fn encodes(prediction: &Prediction, include: &Include, expect: &str) {
        let output = Output { include: include.clone(), ..Output::default() };
        encodes_as(prediction, &output, expect);
    }

    #[track_caller]
    fn encodes_as(prediction: &Prediction, output: &Output, expect: &str) {
        let record = Record {
            partition: crate::record::Partition { topic: 0, number: 0 },
            offset: crate::record::Offset(0),
            timestamp: None,
            key: Some(b"k\xff".to_vec()),
            value: Some(br#" {"b": 1.50 ,"a":"x y", "c":[ 1 ]} "#.to_vec()),
            headers: Vec::new(),
        };
        let value = encode(prediction, output, &Input::default(), &record);
        assert_eq!(String::from_utf8(value).unwrap(), expect);
    }

    #[test]
    fn what_goes_along_is_of_the_record_in_its_envelope() {
        let pointer = crate::config::Pointer::try_from("/b/c".to_owned()).unwrap();
        let input = Input {
            unwrap: crate::config::Unwrap::Debezium,
            fields: BTreeMap::from([("deep".to_owned(), pointer)]),
            ..Input::default()
        };
        let record = Record {
            partition: crate::record::Partition { topic: 0, number: 0 },
            offset: crate::record::Offset(0),
            timestamp: None,
            key: None,
            value: Some(br#"{"op":"u","after":{"a":1, "b":{"c":1.50}}}"#.to_vec()),
            headers: Vec::new(),
        };
        for (include, expect) in [
            (Include::All, r#"{"value":0.5,"input":{"a":1,"b":{"c":1.50}}}"#),
            (
                Include::Fields(vec!["deep".to_owned(), "a".to_owned()]),
                r#"{"value":0.5,"input":{"deep":1.50,"a":1}}"#,
            ),
        ] {
            let output = Output { include, ..Output::default() };
            let value = encode(&Prediction::Value(0.5_f32.into()), &output, &input, &record);
            assert_eq!(String::from_utf8(value).unwrap(), expect);
        }
    }

    #[test]
    fn the_best_scores_come_first_where_a_number_is_asked() {
        let labels: Arc<[String]> = ["a", "b", "c", "d"].map(str::to_owned).into();
        let label = Prediction::label(&[0.125_f32, 0.5, 0.25, 0.125], &labels);
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
        let label = Prediction::label(&[0.25_f32, 0.75], &labels);
        let scores = r#"{"label":"y\"es","score":0.75,"scores":{"no":0.25,"y\"es":0.75}}"#;
        encodes(&label, &Include::None, scores);
        let embedding = Prediction::Embedding(vec![0.1, -1.0e-8, 3.0]);
        encodes(&embedding, &Include::None, r#"{"embedding":[0.1,-1e-8,3.0]}"#);
        let value = Prediction::Value(0.5_f32.into());
        encodes(&value, &Include::Key, "{\"value\":0.5,\"key\":\"k\u{fffd}\"}");
        let all = r#"{"value":0.5,"input":{"b":1.50,"a":"x y","c":[1]}}"#;
        encodes(&value, &Include::All, all);
        let names = ["c", "absent", "a"].map(str::to_owned).to_vec();
        encodes(&value, &Include::Fields(names), r#"{"value":0.5,"input":{"c":[1],"a":"x y"}}"#);
        let none = vec!["absent".to_owned()];
        encodes(&value, &Include::Fields(none), r#"{"value":0.5,"input":{}}"#);
        encodes(&Prediction::Value(f32::NAN.into()), &Include::None, r#"{"value":null}"#);
        for (value, expect) in [
            (Number::Single(0.1), "0.1"),
            (Number::Double(0.1), "0.1"),
            (Number::Double(0.1 + 0.2), "0.30000000000000004"),
            (Number::Double(1_719_108_850_619.000_2), "1719108850619.0002"),
            (Number::Double(-0.0), "-0.0"),
            (Number::Double(5e-324), "5e-324"),
        ] {
            encodes(&Prediction::Value(value), &Include::None, &format!("{{\"value\":{expect}}}"));
        }
    }
}

//! `CloudEvents` (1.0.2) as Kafka's binding has them: in structured mode the record is inside the event, in binary mode it is
//! the value.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::wanted::Wanted;
use super::{content_type, json, undecodable, utf8};
use crate::config::InputFormat;
use crate::record::{Fault, Record};

/// The header by which an event says how it is written.
const HEADER: &str = "content-type";

/// What a value is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'t> {
    /// The data, or no event at all.
    Binary,
    /// An event with its data in it.
    Structured {
        data: Data<'t>,
        /// What the data is, as a media type, where the event says it.
        media_type: Option<String>,
    },
}

/// The data of an event in structured mode.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Data<'t> {
    /// A value of JSON, as it is written.
    Json(&'t str),
    /// Bytes, from base64.
    Bytes(Vec<u8>),
}

/// What stands in an event.
static MEMBERS: LazyLock<Wanted> = LazyLock::new(|| {
    let names = ["specversion", "data", "data_base64", "datacontenttype"];
    Wanted::new(&names.map(str::to_owned), &BTreeMap::new())
});

/// Looks whether a value is an event in structured mode: by the record's media type, and where it has none by the event's
/// `specversion`.
///
/// # Errors
///
/// An event that is not written in JSON, or has no data, or is not one though it says so.
pub(super) fn open<'t>(record: &Record, value: &'t [u8]) -> Result<Event<'t>, Fault> {
    let said = content_type::media_type(record, HEADER);
    let is_said = match said.as_deref() {
        Some("application/cloudevents+json") => true,
        Some(other) if other.starts_with("application/cloudevents") => {
            let message = "has a header content-type of CloudEvents in batches, or not in JSON: application/cloudevents+json \
                           is read, and events in binary mode";
            return Err(undecodable(message.to_owned()));
        }
        Some(_) => return Ok(Event::Binary),
        None => false,
    };
    let text = match utf8(value) {
        Ok(text) => text,
        Err(fault) if is_said => return Err(fault),
        Err(_) => return Ok(Event::Binary),
    };
    let read = match json::read::<&str>(text, &MEMBERS) {
        Ok(read) => read,
        Err(why) if is_said => return Err(undecodable(why)),
        Err(_) => return Ok(Event::Binary),
    };
    let [version, data, base64, media_type] = [0, 1, 2, 3].map(|place| {
        let value = read.values.get(place).copied().flatten();
        value.filter(|value| *value != "null")
    });
    match version {
        Some(r#""1.0""#) => (),
        None if !is_said => return Ok(Event::Binary),
        Some(_) => {
            let message = "is a CloudEvent of another version: its specversion is not \"1.0\"";
            return Err(undecodable(message.to_owned()));
        }
        None => {
            let message =
                "is not a CloudEvent, as its header content-type says: it has no specversion";
            return Err(undecodable(message.to_owned()));
        }
    }
    let data = match (data, base64) {
        (Some(data), None) => Data::Json(data),
        (None, Some(base64)) => Data::Bytes(bytes(base64)?),
        (None, None) => return Err(undecodable("is a CloudEvent without data".to_owned())),
        (Some(_), Some(_)) => {
            let message = "is a CloudEvent with data and data_base64, of which it may have one";
            return Err(undecodable(message.to_owned()));
        }
    };
    let media_type = media_type.and_then(|text| serde_json::from_str(text).ok());
    Ok(Event::Structured { data, media_type })
}

fn bytes(text: &str) -> Result<Vec<u8>, Fault> {
    let text: Option<String> = serde_json::from_str(text).ok();
    let bytes = text.and_then(|text| BASE64.decode(text).ok());
    bytes.ok_or_else(|| undecodable("is a CloudEvent whose data_base64 is not base64".to_owned()))
}

impl<'t> Data<'t> {
    /// The data as a value of the format.
    ///
    /// # Errors
    ///
    /// A value of JSON that is none of that format.
    pub(super) fn of(self, format: InputFormat) -> Result<Cow<'t, [u8]>, Fault> {
        let text = match self {
            Self::Bytes(bytes) => return Ok(bytes.into()),
            Self::Json(text) => text,
        };
        let wrong = |wanted: &str| {
            undecodable(format!("is a CloudEvent whose data is not {wanted}, as input.format says"))
        };
        match format {
            InputFormat::Json => Ok(text.as_bytes().into()),
            InputFormat::Text | InputFormat::Bytes => {
                let text: String = serde_json::from_str(json::compact(text).as_ref())
                    .map_err(|_other| wrong("a string"))?;
                Ok(text.into_bytes().into())
            }
            InputFormat::Avro
            | InputFormat::Protobuf
            | InputFormat::MessagePack
            | InputFormat::Cbor => Err(wrong("bytes (data_base64)")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Header, Offset, Partition};

    fn record(media_type: Option<&str>) -> Record {
        let header = |value: &str| Header {
            name: b"Content-Type".to_vec(),
            value: Some(value.as_bytes().to_vec()),
        };
        Record {
            headers: media_type.map(header).into_iter().collect(),
            ..Record::of_value(Partition { topic: 0, number: 0 }, Offset(0), None)
        }
    }

    #[test]
    fn events_are_opened() {
        let structured = Some("application/cloudevents+json; charset=UTF-8");
        let json = |text| Data::Json(text);
        for (media_type, text, expect) in [
            (
                structured,
                r#"{"specversion":"1.0","data":{"a":1}}"#,
                Ok(Some((json(r#"{"a":1}"#), None))),
            ),
            (
                None,
                r#"{"data": [1] ,"datacontenttype":"text/json","specversion":"1.0"}"#,
                Ok(Some((json("[1]"), Some("text/json")))),
            ),
            (
                structured,
                r#"{"specversion":"1.0","data":null,"data_base64":"AQI="}"#,
                Ok(Some((Data::Bytes(vec![1, 2]), None))),
            ),
            // In binary mode the value is the data, whatever is in it.
            (Some("application/json"), r#"{"specversion":"1.0","data":{"a":1}}"#, Ok(None)),
            (None, r#"{"a":1,"data":2}"#, Ok(None)),
            (None, "{", Ok(None)),
            (None, "\u{0}\u{0}", Ok(None)),
            (structured, "{", Err("is not valid JSON")),
            (structured, "[]", Err("a JSON array where an object")),
            (structured, r#"{"a":1}"#, Err("it has no specversion")),
            (structured, r#"{"specversion":"0.3","data":1}"#, Err("of another version")),
            (None, r#"{"specversion":1.0,"data":1}"#, Err("of another version")),
            (structured, r#"{"specversion":"1.0"}"#, Err("without data")),
            (
                structured,
                r#"{"specversion":"1.0","data":1,"data_base64":"AQI="}"#,
                Err("may have one"),
            ),
            (structured, r#"{"specversion":"1.0","data_base64":"A*"}"#, Err("is not base64")),
            (structured, r#"{"specversion":"1.0","data_base64":7}"#, Err("is not base64")),
            (Some("application/cloudevents-batch+json"), "[]", Err("in batches, or not in JSON")),
            (Some("application/cloudevents+avro"), "", Err("in batches, or not in JSON")),
        ] {
            match (open(&record(media_type), text.as_bytes()), expect) {
                (Ok(Event::Binary), Ok(None)) => (),
                (Ok(Event::Structured { data, media_type }), Ok(Some((expect, kind)))) => {
                    assert_eq!((data, media_type.as_deref()), (expect, kind), "{text}");
                }
                (Err(fault), Err(part)) => assert!(fault.message.contains(part), "{fault}"),
                (said, _) => panic!("{text}: {said:?}"),
            }
        }
    }

    #[test]
    fn data_is_a_value_of_its_format() {
        use InputFormat::{Avro, Bytes, Json, Protobuf, Text};
        for (data, format, expect) in [
            (r#"{"a":1}"#, Json, Ok(r#"{"a":1}"#)),
            (r#""a\n\u00e9""#, Text, Ok("a\né")),
            (r#""\ud83d""#, Text, Ok("\u{fffd}")),
            (r#""x""#, Bytes, Ok("x")),
            (r#"{"a":1}"#, Text, Err("is not a string")),
            (r#""x""#, Avro, Err("is not bytes (data_base64)")),
            (r#""x""#, Protobuf, Err("is not bytes (data_base64)")),
        ] {
            match (Data::Json(data).of(format), expect) {
                (Ok(bytes), Ok(expect)) => assert_eq!(&*bytes, expect.as_bytes()),
                (Err(fault), Err(part)) => assert!(fault.message.contains(part), "{fault}"),
                (said, _) => panic!("{data}: {said:?}"),
            }
        }
        for format in [Json, Text, Bytes, Avro, Protobuf] {
            assert_eq!(&*Data::Bytes(vec![0, 1]).of(format).unwrap(), [0, 1]);
        }
    }
}

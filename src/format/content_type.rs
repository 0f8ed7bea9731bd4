//! What a record says of itself that it is: a header with a media type, such as `content-type` (RFC 9110, section 8.3, and
//! the Kafka binding of `CloudEvents`).

use super::undecodable;
use crate::config::InputFormat;
use crate::record::{Fault, Record};

/// The format that the header `named` of a record says; `None` where it has none.
///
/// # Errors
///
/// A media type that is not read here.
pub(super) fn of(record: &Record, named: &str) -> Result<Option<InputFormat>, Fault> {
    let Some(media_type) = media_type(record, named) else { return Ok(None) };
    of_media_type(&media_type).map(Some).ok_or_else(|| {
        undecodable(format!(
            "has a header {named} whose media type is not read: those of JSON, Avro, Protobuf, MessagePack and CBOR, text/*, image/* and \
             application/octet-stream are"
        ))
    })
}

/// The media type in the header `named` of a record, in small letters and without its parameters; `None` where it has none.
pub(super) fn media_type(record: &Record, named: &str) -> Option<String> {
    let is = |name: &[u8]| name.eq_ignore_ascii_case(named.as_bytes());
    let header = record.headers.iter().rfind(|header| is(&header.name));
    let value = String::from_utf8_lossy(header?.value.as_deref()?);
    let media_type = bare(&value);
    (!media_type.is_empty()).then_some(media_type)
}

/// A media type in small letters and without its parameters.
fn bare(media_type: &str) -> String {
    // Some clients write their headers as JSON.
    let bare = media_type.split(';').next().unwrap_or_default().trim_matches(['"', ' ', '\t']);
    bare.to_ascii_lowercase()
}

/// The format that a media type says.
pub(super) fn of_media_type(media_type: &str) -> Option<InputFormat> {
    let media_type = bare(media_type);
    let (kind, rest) = media_type.split_once('/').unwrap_or((&media_type, ""));
    let subtype = rest.rsplit_once('+').map_or(rest, |(_, suffix)| suffix);
    Some(match (kind, subtype) {
        ("image", _) | ("application", "octet-stream") => InputFormat::Bytes,
        ("application" | "text", "json") => InputFormat::Json,
        ("application", "avro" | "x-avro" | "x-avro-binary" | "vnd.apache.avro")
        | ("avro", "binary") => InputFormat::Avro,
        (
            "application",
            "protobuf" | "x-protobuf" | "vnd.google.protobuf" | "x-google-protobuf",
        ) => InputFormat::Protobuf,
        ("application", "msgpack" | "x-msgpack" | "vnd.msgpack") => InputFormat::MessagePack,
        ("application", "cbor") => InputFormat::Cbor,
        ("text", _) => InputFormat::Text,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Header, Offset, Partition};

    #[test]
    fn a_header_says_what_a_value_is() {
        use InputFormat::{Avro, Bytes, Json, Protobuf, Text};
        for (value, expect) in [
            ("application/json", Ok(Some(Json))),
            ("Application/JSON; charset=utf-8", Ok(Some(Json))),
            ("\"application/json\"", Ok(Some(Json))),
            ("application/cloudevents+json", Ok(Some(Json))),
            ("text/plain;charset=UTF-8", Ok(Some(Text))),
            ("image/jpeg", Ok(Some(Bytes))),
            ("application/octet-stream", Ok(Some(Bytes))),
            ("application/avro", Ok(Some(Avro))),
            ("avro/binary", Ok(Some(Avro))),
            ("application/vnd.order.v1+avro", Ok(Some(Avro))),
            ("application/x-protobuf", Ok(Some(Protobuf))),
            ("application/protobuf; messageType=shop.Row", Ok(Some(Protobuf))),
            ("", Ok(None)),
            (" ; charset=utf-8", Ok(None)),
            ("application/xml", Err(())),
            ("application", Err(())),
            ("\u{fffd}", Err(())),
        ] {
            let header = |name: &str, value: Option<&str>| Header {
                name: name.as_bytes().to_vec(),
                value: value.map(|value| value.as_bytes().to_vec()),
            };
            let mut record = Record {
                partition: Partition { topic: 0, number: 0 },
                offset: Offset(0),
                timestamp: None,
                key: None,
                value: None,
                headers: vec![header("content-type", Some("text/csv"))],
            };
            assert_eq!(of(&record, "other"), Ok(None));
            // The last of one name counts.
            record.headers.push(header("Content-Type", Some(value)));
            let said = of(&record, "content-type");
            assert_eq!(said.clone().map_err(drop), expect, "{value}");
            if let Err(fault) = said {
                assert!(!fault.message.contains("xml"), "{fault}");
            }
        }
    }
}

//! What goes along of a record with its prediction, as JSON.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::beside::Fields;
use super::envelope::{self, Inside};
use super::packed::{self, Cbor, MessagePack};
use super::wanted::Wanted;
use super::{Codec, Unread, json, undecodable, write};
use crate::config::{InputFormat, Unwrap};
use crate::record::{Fault, Record};

/// Which fields of a record go along.
#[derive(Debug)]
pub(super) enum Taken {
    /// Its value, all of it.
    All,
    /// These, each from where it stands.
    Fields(Vec<String>, Box<Fields>),
}

impl Codec {
    /// Writes the fields of a record that go along as a JSON object. The record was read, or there would be no prediction.
    ///
    /// # Errors
    ///
    /// What cannot be read of what the model did not look at, and what becomes too large.
    pub(super) fn include(
        &self,
        taken: &Taken,
        record: &Record,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let done = match taken {
            Taken::All => self.all(record, out),
            Taken::Fields(names, fields) => self.some(names, fields, record, out),
        };
        done.map_err(|Fault { class, message }| {
            Fault::new(class, format!("what output.include takes along {message}"))
        })
    }

    fn all(&self, record: &Record, out: &mut Vec<u8>) -> Result<(), Fault> {
        match self.text_of(record, None)?.as_deref().map(str::trim) {
            Some(text) => out.extend_from_slice(json::compact(text).as_bytes()),
            None => out.extend_from_slice(b"null"),
        }
        Ok(())
    }

    fn some(
        &self,
        names: &[String],
        fields: &Fields,
        record: &Record,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let wanted = fields.in_value();
        let value = if wanted.is_empty() { None } else { self.text_of(record, Some(wanted))? };
        let read = value.as_deref().map(|text| json::read::<&str>(text, wanted));
        let values = read.transpose().map_err(undecodable)?.map(|read| read.values);
        let values = values.unwrap_or_default().into_iter();
        let mut values: Vec<_> = values.map(|text| text.map(json::compact)).collect();
        self.fill(&mut values, wanted, record)?;
        let all = fields.merged(values, self.beside_as_json(fields, record)?);
        let texts = names.iter().zip(all).filter_map(|(name, text)| Some((&**name, text?)));
        write::object(texts, out);
        Ok(())
    }

    /// Gives the values that a message has and its JSON does not show: the seconds of a time stamp, which is a text there.
    fn fill(
        &self,
        values: &mut [Option<Cow<'_, str>>],
        wanted: &Wanted,
        record: &Record,
    ) -> Result<(), Fault> {
        if values.iter().all(Option::is_some) {
            return Ok(());
        }
        let Some((InputFormat::Protobuf, value)) = self.opened(record)? else { return Ok(()) };
        let found =
            self.messages.values(self.input.unwrap, wanted, record, &value).map_err(fault)?;
        for (value, found) in values.iter_mut().zip(found).filter(|(value, _)| value.is_none()) {
            *value = found.map(Cow::from);
        }
        Ok(())
    }

    /// The record in a value as JSON text, with all that is `wanted` in it; `None` where there is none in its envelope.
    fn text_of<'r>(
        &self,
        record: &'r Record,
        wanted: Option<&Wanted>,
    ) -> Result<Option<Cow<'r, str>>, Fault> {
        let Some((format, value)) = self.opened(record)? else { return Ok(None) };
        let alone = |value: serde_json::Value| {
            let mut text = Vec::new();
            write::json(serde_json::json!({ &self.input.field: value }), &mut text);
            String::from_utf8(text).map_err(|error| undecodable(error.to_string()))
        };
        let text: Cow<'r, str> = match format {
            InputFormat::Bytes => return Ok(Some(alone(BASE64.encode(value).into())?.into())),
            InputFormat::Text => {
                let text = String::from_utf8_lossy(&value).into_owned();
                return Ok(Some(alone(text.into())?.into()));
            }
            InputFormat::Json => match value {
                Cow::Borrowed(value) => super::utf8(self.unframed(value))?.into(),
                Cow::Owned(value) => super::utf8(self.unframed(&value))?.to_owned().into(),
            },
            InputFormat::Avro => self.data.json(record, &value).map_err(fault)?.into(),
            InputFormat::MessagePack => {
                packed::json::<MessagePack<'_>>(&value, wanted).map_err(undecodable)?.into()
            }
            InputFormat::Cbor => {
                packed::json::<Cbor<'_>>(&value, wanted).map_err(undecodable)?.into()
            }
            InputFormat::Protobuf => {
                // What is wanted stands in an envelope where there is one.
                let whole = matches!(self.input.unwrap, Unwrap::None | Unwrap::CloudEvents);
                let wanted = wanted.filter(|_| whole);
                self.messages.json(record, &value, wanted).map_err(fault)?.into()
            }
        };
        Ok(match text {
            Cow::Borrowed(text) => inside(envelope::open(text, self.input.unwrap))?.map(Cow::from),
            Cow::Owned(text) if self.input.unwrap == Unwrap::None => Some(text.into()),
            Cow::Owned(text) => {
                let text = inside(envelope::open(&text, self.input.unwrap))?;
                text.map(|text| text.to_owned().into())
            }
        })
    }
}

fn inside(opened: Result<Inside<'_>, String>) -> Result<Option<&str>, Fault> {
    match opened.map_err(undecodable)? {
        Inside::Record(text) => Ok(Some(text)),
        Inside::Deleted => Ok(None),
    }
}

/// Of what was read already the schema is known: a registry that is away again is the record's fault.
pub(super) fn fault(unread: Unread) -> Fault {
    match unread {
        Unread::Fault(fault) => fault,
        Unread::Away { reason, .. } => undecodable(reason),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use super::super::{Unread, Writer};
    use super::*;
    use crate::answer::Prediction;
    use crate::config::{
        Config, Include, Input, Key, KeyFormat, Output, Part, Pointer, SchemaRegistry,
    };
    use crate::record::{Header, Offset, Partition};

    fn record(key: Option<&[u8]>, value: &[u8]) -> Record {
        let header = |name: &str, value: Option<&[u8]>| Header {
            name: name.as_bytes().to_vec(),
            value: value.map(<[u8]>::to_vec),
        };
        Record {
            timestamp: Some(1_700_000_000_000),
            key: key.map(<[u8]>::to_vec),
            headers: vec![
                header("x-source", Some(b"web \"2\"")),
                header("x-none", None),
                header("x-bad", Some(b"\xff")),
            ],
            ..Record::of_value(Partition { topic: 0, number: 3 }, Offset(7), Some(value.to_vec()))
        }
    }

    fn config(input: Input, names: &[&str]) -> Config {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let include = Include::Fields(names);
        let input = Input { topics: vec!["t".to_owned()], ..input };
        Config { input, output: Output { include, ..Output::default() }, ..Config::default() }
    }

    /// What goes along of a record, or why it cannot.
    fn along(config: &Config, record: &Record) -> String {
        let writer = Writer::new(config, Arc::new(Codec::new(config).unwrap()));
        match writer.write(&Prediction::Value(0.5_f32.into()), record) {
            Ok(written) => {
                let text = String::from_utf8(written).unwrap();
                let text = text.strip_prefix("{\"value\":0.5,\"input\":").unwrap();
                text.strip_suffix('}').unwrap().to_owned()
            }
            Err(fault) => format!("{:?}: {}", fault.class, fault.message),
        }
    }

    fn pointers(places: &[(&str, &str)]) -> std::collections::BTreeMap<String, Pointer> {
        let pointer = |(name, path): &(&str, &str)| {
            ((*name).to_owned(), Pointer::try_from((*path).to_owned()).unwrap())
        };
        places.iter().map(pointer).collect()
    }

    fn input() -> Input {
        let of = |name: &str| name.to_owned();
        Input {
            key: Key { fields: pointers(&[("customer", "/id")]), ..Key::default() },
            headers: [
                ("source", "x-source"),
                ("none", "x-none"),
                ("gone", "x-gone"),
                ("bad", "x-bad"),
            ]
            .map(|(name, header)| (of(name), of(header)))
            .into(),
            record: [
                (of("sent"), Part::Timestamp),
                (of("topic"), Part::Topic),
                (of("part"), Part::Partition),
                (of("at"), Part::Offset),
            ]
            .into(),
            fields: pointers(&[("deep", "/o/p")]),
            ..Input::default()
        }
    }

    #[test]
    fn fields_go_along_from_wherever_they_stand() {
        let value = br#"{"a":1.50,"o":{"p":"x"},"customer":"of the value"}"#;
        let key = br#"{"id": 12345678901234567890, "x": []}"#;
        let whole = record(Some(key), value);
        let all =
            ["sent", "a", "customer", "source", "none", "gone", "deep", "topic", "part", "at", "b"];
        let expect = r#"{"sent":1700000000000,"a":1.50,"customer":12345678901234567890,"source":"web \"2\"","none":null,"deep":"x","topic":"t","part":3,"at":7}"#;
        assert_eq!(along(&config(input(), &all), &whole), expect);
        for (names, key, value, expect) in [
            // Only what is named is read.
            (&["customer"][..], Some(&key[..]), &b"{"[..], r#"{"customer":12345678901234567890}"#),
            (&["a"], Some(b"{"), value, r#"{"a":1.50}"#),
            (&["customer"], None, value, "{}"),
            (&["customer", "a"], Some(b"null"), value, r#"{"a":1.50}"#),
            (
                &["customer"],
                Some(b"{"),
                value,
                "Undecodable: what output.include takes along has a key that is not valid JSON",
            ),
            (
                &["customer"],
                Some(b"7"),
                value,
                "Undecodable: what output.include takes along has a key that is a JSON number where",
            ),
            (
                &["bad"],
                Some(key),
                value,
                "Undecodable: what output.include takes along has a header \"x-bad\" that is not valid UTF-8",
            ),
        ] {
            let said = along(&config(input(), names), &record(key, value));
            assert!(
                said == expect || said.starts_with("Undecodable") && said.starts_with(expect),
                "{said}"
            );
        }
    }

    #[test]
    fn keys_of_every_format_go_along() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let row = r#"{"type":"record","name":"K","fields":[{"name":"id","type":["null","long"]}]}"#;
        file.write_all(row.as_bytes()).unwrap();
        let keyed = |format, field: Option<&str>, fields: &[(&str, &str)], unwrap| Input {
            key: Key {
                format,
                field: field.map(str::to_owned),
                fields: pointers(fields),
                schema: (format == KeyFormat::Avro).then(|| file.path().to_owned()),
            },
            unwrap,
            ..Input::default()
        };
        let (id, none) = (&[("k", "/id")][..], &[][..]);
        let connect = br#"{"schema":{},"payload":{"id":9}}"#;
        for (format, field, fields, unwrap, key, expect) in [
            (KeyFormat::Text, Some("k"), none, Unwrap::None, &b"c\n1"[..], r#"{"k":"c\n1"}"#),
            (KeyFormat::Json, Some("k"), none, Unwrap::None, b" 4.20 ", r#"{"k":4.20}"#),
            (KeyFormat::Json, Some("k"), none, Unwrap::None, b"{\"a\": 1}", r#"{"k":{"a":1}}"#),
            (KeyFormat::Json, None, id, Unwrap::Connect, connect, r#"{"k":9}"#),
            (KeyFormat::Json, None, id, Unwrap::CloudEvents, br#"{"id":5}"#, r#"{"k":5}"#),
            (KeyFormat::Avro, None, id, Unwrap::None, b"\x02\x0e", r#"{"k":7}"#),
            (KeyFormat::Avro, None, id, Unwrap::None, b"\x00", r#"{"k":null}"#),
            (KeyFormat::Avro, Some("k"), none, Unwrap::None, b"\x02\x0e", r#"{"k":{"id":7}}"#),
            (
                KeyFormat::Avro,
                None,
                id,
                Unwrap::None,
                b"\x02",
                "Undecodable: what output.include takes along has a key that ",
            ),
        ] {
            let config = config(keyed(format, field, fields, unwrap), &["k"]);
            let said = along(&config, &record(Some(key), b"{}"));
            assert!(
                said == expect || said.starts_with("Undecodable") && said.starts_with(expect),
                "{said}"
            );
        }
    }

    /// The schema of a key that only goes along is asked for before there is a prediction: nothing is a dead letter for it.
    #[test]
    fn a_key_that_goes_along_waits_for_its_schema() {
        let key =
            Key { format: KeyFormat::Avro, fields: pointers(&[("k", "/id")]), ..Key::default() };
        let away = SchemaRegistry {
            urls: vec!["http://127.0.0.1:9".to_owned()],
            ..SchemaRegistry::default()
        };
        for (names, waits) in [(&["k"][..], true), (&["a"], false)] {
            let config = Config {
                schema_registry: away.clone(),
                ..config(Input { key: key.clone(), ..Input::default() }, names)
            };
            let codec = Codec::new(&config).unwrap();
            let fields = Fields::new(&["a".to_owned()], codec.input());
            let record = record(Some(b"\0\0\0\0\x07\x02"), br#"{"a":1}"#);
            let read = codec.gather(&fields, &record, |_| ());
            assert_eq!(matches!(read, Err(Unread::Away { .. })), waits, "{read:?}");
        }
    }

    #[test]
    fn what_is_inside_an_event_goes_along() {
        let input = |format| Input { format, unwrap: Unwrap::CloudEvents, ..Input::default() };
        let event = |data: &str| {
            format!(r#"{{"specversion":"1.0","id":"1","source":"/a","type":"t",{data}}}"#)
        };
        for (format, value, expect) in [
            (InputFormat::Json, event(r#""data":{"a":1.50,"b":2}"#), r#"{"a":1.50}"#),
            // {"a":7}
            (InputFormat::Json, event(r#""data_base64":"eyJhIjo3fQ==""#), r#"{"a":7}"#),
            (InputFormat::MessagePack, event(r#""data_base64":"gaFhBw==""#), r#"{"a":7}"#),
            (InputFormat::Json, r#"{"a":3}"#.to_owned(), r#"{"a":3}"#),
        ] {
            let config = config(input(format), &["a"]);
            assert_eq!(along(&config, &record(None, value.as_bytes())), expect, "{value}");
        }
        let all = Config {
            output: Output { include: Include::All, ..Output::default() },
            ..config(input(InputFormat::Text), &[])
        };
        let text = event(r#""datacontenttype":"text/plain","data":"x y""#);
        assert_eq!(along(&all, &record(None, text.as_bytes())), r#"{"text":"x y"}"#);
        let lacking = event(r#""time":"2024""#);
        let said = along(&all, &record(None, lacking.as_bytes()));
        assert!(said.contains("is a CloudEvent without data"), "{said}");
    }

    /// Where records say themselves what they are, an event says it of its data.
    #[test]
    fn an_event_says_what_its_data_is() {
        let input = Input {
            format: InputFormat::Text,
            format_header: Some("content-type".to_owned()),
            unwrap: Unwrap::CloudEvents,
            ..Input::default()
        };
        let config = Config {
            output: Output { include: Include::All, ..Output::default() },
            ..config(input, &[])
        };
        for (media_type, value, expect) in [
            (
                "application/cloudevents+json",
                r#"{"specversion":"1.0","data":{"a":1}}"#,
                r#"{"a":1}"#,
            ),
            (
                "application/cloudevents+json",
                r#"{"specversion":"1.0","datacontenttype":"application/cbor","data_base64":"oWFhBw=="}"#,
                r#"{"a":7}"#,
            ),
            ("application/json", r#"{"data":{"a":1}}"#, r#"{"data":{"a":1}}"#),
            ("text/plain", r#"{"data":1}"#, r#"{"text":"{\"data\":1}"}"#),
            (
                "application/cloudevents+json",
                r#"{"specversion":"1.0","datacontenttype":"application/xml","data":"<a/>"}"#,
                "datacontenttype is not read",
            ),
        ] {
            let mut record = record(None, value.as_bytes());
            let name = b"content-type".to_vec();
            record.headers.push(Header { name, value: Some(media_type.as_bytes().to_vec()) });
            let said = along(&config, &record);
            assert!(
                said == expect || said.contains(expect) && said.contains("Undecodable"),
                "{said}"
            );
        }
    }

    #[test]
    fn nulls_that_go_along_are_no_bomb() {
        let value = [&[0x81, 0xa1, b'a', 0xdc, 0xff, 0xff][..], &vec![0xc0; 0xffff]].concat();
        let input = Input { format: InputFormat::MessagePack, ..Input::default() };
        let text = along(&config(input, &["a"]), &record(None, &value));
        assert!(text.starts_with(r#"{"a":[null,null"#) && text.len() < 6 * value.len());
    }
}

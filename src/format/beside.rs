//! Fields that do not stand in a record's value: in its key, in its headers, or of the record itself.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::Value as Json;

use super::doubt::Never;
use super::envelope::{self, Inside};
use super::wanted::Wanted;
use super::{Codec, Read, Unread, along, json, undecodable};
use crate::config::{Input, Key, KeyFormat, Part, Unwrap};
use crate::field::Value;
use crate::record::{Fault, Record};

/// What is wanted of a record, wherever it stands.
#[derive(Debug)]
pub struct Fields {
    /// In its value.
    value: Wanted,
    /// Where the values' places are among all; `None`: they are all.
    beside: Option<Beside>,
    /// Those that next to none of the last records had.
    never: Never,
}

/// What is wanted of a record beside its value.
#[derive(Debug)]
struct Beside {
    /// How many fields there are in all.
    count: usize,
    /// The place of each that stands in the value.
    value: Vec<usize>,
    key: Vec<usize>,
    /// What stands in the key, at these places.
    in_key: Wanted,
    /// The place of each that is found without decoding anything.
    own: Vec<(usize, Own)>,
}

#[derive(Debug)]
enum Own {
    Header(String),
    Part(Part),
}

impl Fields {
    /// The fields `names`, each where `input` says that it stands.
    pub fn new(names: &[String], input: &Input) -> Self {
        let never = Never::new(names, input);
        if input.beside().all(|name| !names.contains(name)) {
            return Self { value: Wanted::new(names, &input.fields), beside: None, never };
        }
        let (mut in_value, mut value) = (Vec::new(), Vec::new());
        let (mut paths, mut key, mut own) = (Vec::new(), Vec::new(), Vec::new());
        for (place, name) in names.iter().enumerate() {
            if let Some(pointer) = input.key.fields.get(name) {
                key.push(place);
                paths.push(pointer.path().to_vec());
            } else if input.key.field.as_ref() == Some(name) {
                key.push(place);
                paths.push(Vec::new());
            } else if let Some(header) = input.headers.get(name) {
                own.push((place, Own::Header(header.clone())));
            } else if let Some(part) = input.record.get(name) {
                own.push((place, Own::Part(*part)));
            } else {
                value.push(place);
                in_value.push(name.clone());
            }
        }
        let beside = Beside { count: names.len(), value, key, in_key: Wanted::at(paths), own };
        let value = Wanted::new(&in_value, &input.fields);
        Self { value, beside: Some(beside), never }
    }

    /// Looks at what a record has of them: what next to none of the last had, when that changes and each hundredth time that
    /// a record lacks it; an empty text when it is over.
    pub fn never(&self, values: &[Option<Value<'_>>], unknown: Option<&str>) -> Option<String> {
        self.never.look(values, unknown)
    }

    /// What stands in the value.
    pub(super) fn in_value(&self) -> &Wanted {
        &self.value
    }

    /// What was read of the value and what was read beside it, each at its place.
    pub(super) fn merged<T>(
        &self,
        values: Vec<Option<T>>,
        besides: Vec<(usize, T)>,
    ) -> Vec<Option<T>> {
        let Some(beside) = &self.beside else { return values };
        let mut all: Vec<Option<T>> = Vec::with_capacity(beside.count);
        all.resize_with(beside.count, || None);
        for (place, value) in beside.value.iter().zip(values) {
            all[*place] = value;
        }
        for (place, value) in besides {
            all[place] = Some(value);
        }
        all
    }
}

impl Codec {
    /// As [`read`](Self::read), with what stands beside the value.
    ///
    /// # Errors
    ///
    /// As there; and where a key or a header cannot be read.
    pub fn gather<R>(
        &self,
        fields: &Fields,
        record: &Record,
        take: impl FnOnce(Read<'_>) -> R,
    ) -> Result<Option<R>, Unread> {
        self.settle_key(record)?;
        let Some(beside) = &fields.beside else { return self.read(&fields.value, record, take) };
        let gathered = self.read(&fields.value, record, |Read { values, unknown }| {
            let mut all: Vec<Option<Value<'_>>> = Vec::with_capacity(beside.count);
            all.resize_with(beside.count, || None);
            self.key(beside, record, &mut all)?;
            for (place, own) in &beside.own {
                all[*place] = self.own(own, record)?;
            }
            for (place, value) in beside.value.iter().zip(values) {
                all[*place] = value;
            }
            Ok(take(Read { values: all, unknown }))
        })?;
        gathered.transpose()
    }

    /// Sees that what goes along of a key can be read without asking anybody.
    fn settle_key(&self, record: &Record) -> Result<(), Unread> {
        let (Some(keys), Some(key)) = (&self.keys, &record.key) else { return Ok(()) };
        let key_has = |name: &String| {
            let Key { field, fields, .. } = &self.input.key;
            field.as_ref() == Some(name) || fields.contains_key(name)
        };
        if self.along.iter().any(key_has) { keys.settle(record, key) } else { Ok(()) }
    }

    /// What stands beside the value, as JSON text, each with its place.
    ///
    /// # Errors
    ///
    /// A key or a header that cannot be read.
    pub(super) fn beside_as_json(
        &self,
        fields: &Fields,
        record: &Record,
    ) -> Result<Vec<(usize, Cow<'static, str>)>, Fault> {
        let mut found = Vec::new();
        let Some(beside) = &fields.beside else { return Ok(found) };
        let key = record.key.as_deref().filter(|_| !beside.key.is_empty());
        if let Some(key) = key.map(|key| self.key_as_json(record, key)).transpose()?.flatten() {
            let texts = texts(&beside.in_key, &key).map_err(|why| in_key(undecodable(why)))?;
            let texts = beside.key.iter().zip(texts);
            found.extend(texts.filter_map(|(place, text)| Some((*place, text?.into()))));
        }
        for (place, own) in &beside.own {
            let text = self.own(own, record)?.map(|value| {
                let value = if let Value::Text(text) = value {
                    Json::from(text)
                } else if let Value::Int(number) = value {
                    Json::from(i64::try_from(number).unwrap_or_default())
                } else {
                    Json::Null
                };
                value.to_string()
            });
            found.extend(text.map(|text| (*place, text.into())));
        }
        Ok(found)
    }

    /// A key as JSON text; `None` where there is none in its envelope.
    fn key_as_json<'r>(
        &self,
        record: &Record,
        key: &'r [u8],
    ) -> Result<Option<Cow<'r, str>>, Fault> {
        match (self.input.key.format, &self.keys) {
            (KeyFormat::Avro, Some(keys)) => {
                let text = keys.json(record, key).map_err(of_key).map_err(along::fault)?;
                Ok(Some(text.into()))
            }
            (KeyFormat::Text, _) => Ok(Some(Json::from(text(key)?).to_string().into())),
            (KeyFormat::Json | KeyFormat::Avro, _) => {
                let opened = self.open_key(text(self.unframed(key))?);
                Ok(opened.map_err(|why| in_key(undecodable(why)))?.map(Cow::from))
            }
        }
    }

    /// What a key of JSON has in its envelope: whoever writes values with one writes keys so. Debezium's keys have Connect's.
    fn open_key<'t>(&self, text: &'t str) -> Result<Option<&'t str>, String> {
        if !matches!(self.input.unwrap, Unwrap::Connect | Unwrap::Debezium) || !is_object(text) {
            return Ok(Some(text));
        }
        Ok(match envelope::open(text, Unwrap::Connect)? {
            Inside::Record(inside) => Some(inside),
            Inside::Deleted => None,
        })
    }

    /// Puts what stands in the key at its places. Without a key nothing stands there.
    fn key<'a>(
        &self,
        beside: &Beside,
        record: &'a Record,
        all: &mut [Option<Value<'a>>],
    ) -> Result<(), Unread> {
        let Some(key) = record.key.as_deref().filter(|_| !beside.key.is_empty()) else {
            return Ok(());
        };
        let mut put = |values: Vec<Option<Value<'a>>>| {
            for (place, value) in beside.key.iter().zip(values) {
                all[*place] = value;
            }
        };
        match (self.input.key.format, &self.keys) {
            (KeyFormat::Avro, Some(keys)) => {
                let owned = |Read { values, .. }: Read<'_>| {
                    values.into_iter().map(|value| value.map(Value::into_owned)).collect()
                };
                let read = keys.read(Unwrap::None, &beside.in_key, record, key, owned);
                put(read.map_err(of_key)?.unwrap_or_default());
            }
            (KeyFormat::Text, _) => {
                put(vec![Some(Value::Text(text(key)?.into())); beside.key.len()]);
            }
            (KeyFormat::Json | KeyFormat::Avro, _) => {
                let read = self.json_key(&beside.in_key, text(self.unframed(key))?);
                put(read.map_err(|why| in_key(undecodable(why)))?);
            }
        }
        Ok(())
    }

    fn json_key<'a>(
        &self,
        wanted: &Wanted,
        text: &'a str,
    ) -> Result<Vec<Option<Value<'a>>>, String> {
        let Some(text) = self.open_key(text)? else { return Ok(Vec::new()) };
        let whole = |value: Value<'a>| {
            let at = |path: &Vec<String>| path.is_empty().then(|| value.clone());
            wanted.paths().iter().map(at).collect::<Vec<_>>()
        };
        if is_object(text) {
            let read = json::read(text, wanted)?;
            let whole = whole(Value::Map);
            return Ok(read
                .values
                .into_iter()
                .zip(whole)
                .map(|(value, whole)| whole.or(value))
                .collect());
        }
        let value: Json =
            serde_json::from_str(text).map_err(|error| json::explain(text, &error))?;
        if !value.is_null() && wanted.paths().iter().any(|path| !path.is_empty()) {
            json::read::<Value<'_>>(text, wanted)?;
        }
        Ok(whole(Value::from(&value).into_owned()))
    }

    fn own<'a>(&'a self, own: &Own, record: &'a Record) -> Result<Option<Value<'a>>, Fault> {
        Ok(match own {
            Own::Header(name) => {
                let header = record.headers.iter().rfind(|header| header.name == name.as_bytes());
                let Some(header) = header else { return Ok(None) };
                let Some(value) = header.value.as_deref() else { return Ok(Some(Value::Null)) };
                let text = std::str::from_utf8(value).map_err(|error| {
                    let at = error.valid_up_to();
                    undecodable(format!(
                        "has a header {name:?} that is not valid UTF-8 from byte {at} on"
                    ))
                })?;
                Some(Value::Text(text.into()))
            }
            Own::Part(Part::Topic) => {
                let topic = self.input.topics.get(usize::from(record.partition.topic));
                topic.map(|topic| Value::Text(Cow::Borrowed(topic)))
            }
            Own::Part(Part::Partition) => Some(Value::Int(record.partition.number.into())),
            Own::Part(Part::Offset) => Some(Value::Int(record.offset.0.into())),
            Own::Part(Part::Timestamp) => record.timestamp.map(|time| Value::Int(time.into())),
        })
    }
}

fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// What stands at the places of `wanted` in a JSON text, as it is written.
fn texts(wanted: &Wanted, text: &str) -> Result<Vec<Option<String>>, String> {
    let inside = if is_object(text) {
        json::read::<&str>(text, wanted)?.values
    } else {
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| json::explain(text, &error))?;
        if text.trim() != "null" && wanted.paths().iter().any(|path| !path.is_empty()) {
            json::read::<&str>(text, wanted)?;
        }
        vec![None; wanted.len()]
    };
    let whole = |path: &Vec<String>| path.is_empty().then(|| text.trim());
    let texts = wanted.paths().iter().map(whole).zip(inside);
    Ok(texts.map(|(whole, inside)| Some(json::compact(whole.or(inside)?).into_owned())).collect())
}

fn text(key: &[u8]) -> Result<&str, Fault> {
    super::utf8(key).map_err(in_key)
}

/// What is wrong, with a key.
fn in_key(Fault { class, message }: Fault) -> Fault {
    Fault { class, message: format!("has a key that {message}") }
}

fn of_key(unread: Unread) -> Unread {
    match unread {
        Unread::Fault(fault) => in_key(fault).into(),
        away @ Unread::Away { .. } => away,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::config::{Config, Pointer};
    use crate::record::{FaultClass, Header, Offset, Partition};

    fn pointer(text: &str) -> Pointer {
        Pointer::try_from(text.to_owned()).unwrap()
    }

    fn record(key: Option<&[u8]>) -> Record {
        let header = |name: &str, value: Option<&[u8]>| Header {
            name: name.as_bytes().to_vec(),
            value: value.map(<[u8]>::to_vec),
        };
        Record {
            partition: Partition { topic: 0, number: 3 },
            offset: Offset(7),
            timestamp: Some(1_700_000_000_000),
            key: key.map(<[u8]>::to_vec),
            value: Some(br#"{"a":1,"customer":"of the value"}"#.to_vec()),
            headers: vec![
                header("source", Some(b"old")),
                header("source", Some(b"web")),
                header("none", None),
                header("bad", Some(b"a\xff")),
            ],
        }
    }

    /// What a record has of the fields, in words.
    fn gathered(input: Input, names: &[&str], record: &Record) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let input = Input { topics: vec!["t".to_owned()], ..input };
        let codec = Codec::new(&Config { input, ..Config::default() }).unwrap();
        let fields = Fields::new(&names, codec.input());
        let before = record.clone();
        let read = codec.gather(&fields, record, |read| {
            let shown = |value: &Option<Value<'_>>| match value {
                None => "-".to_owned(),
                Some(Value::Null) => "null".to_owned(),
                Some(Value::Text(text)) => text.to_string(),
                Some(Value::Int(whole)) => whole.to_string(),
                Some(other) => format!("{other:?}"),
            };
            let values: Vec<String> = read.values.iter().map(shown).collect();
            values.join(" ")
        });
        assert_eq!(*record, before, "what is read is untouched");
        match read {
            Ok(Some(read)) => read,
            Ok(None) => "nothing".to_owned(),
            Err(Unread::Fault(Fault { class: FaultClass::Undecodable, message })) => message,
            other => panic!("{other:?}"),
        }
    }

    fn keyed(format: KeyFormat, field: Option<&str>, at: &[(&str, &str)]) -> Input {
        let fields = at.iter().map(|(name, at)| ((*name).to_owned(), pointer(at))).collect();
        let key = Key { format, field: field.map(str::to_owned), fields, schema: None };
        Input { key, ..Input::default() }
    }

    #[test]
    fn fields_stand_in_keys() {
        use KeyFormat::{Json, Text};
        let id = [("customer", "/id")];
        let deep = [("customer", "/o/id")];
        let none: [(&str, &str); 0] = [];
        for (format, field, at, key, expect) in [
            (Json, None, &id[..], Some(&br#"{"id":"c1","x":[]}"#[..]), "1 c1"),
            (Json, None, &deep, Some(br#" {"o":{"id":5}}"#), "1 5"),
            (Json, None, &id, Some(b"{}"), "1 -"),
            (Json, None, &id, Some(b"null"), "1 -"),
            (Json, None, &id, None, "1 -"),
            (
                Json,
                None,
                &id,
                Some(b"5"),
                "has a key that is a JSON number where an object is wanted",
            ),
            (Json, None, &id, Some(b"{\"id\":"), "has a key that is not valid JSON: EOF"),
            (Json, None, &id, Some(b"\xff"), "has a key that is not valid UTF-8 from byte 0 on"),
            (Json, Some("customer"), &none, Some(b"\"c1\""), "1 c1"),
            (Json, Some("customer"), &none, Some(b" 42 "), "1 42"),
            (Json, Some("customer"), &none, Some(b"null"), "1 null"),
            (Json, Some("customer"), &none, Some(b"{\"a\":1}"), "1 Map"),
            (
                Json,
                Some("customer"),
                &none,
                Some(b"c1"),
                "has a key that is not valid JSON: expected",
            ),
            (
                Json,
                Some("customer"),
                &none,
                Some(b"1,2"),
                "has a key that is not valid JSON: trailing",
            ),
            (Text, Some("customer"), &none, Some("cé".as_bytes()), "1 cé"),
            (Text, Some("customer"), &none, Some(b""), "1 "),
            (Text, Some("customer"), &none, None, "1 -"),
            (
                Text,
                Some("customer"),
                &none,
                Some(b"a\xff"),
                "has a key that is not valid UTF-8 from byte 1",
            ),
        ] {
            let said = gathered(keyed(format, field, at), &["a", "customer"], &record(key));
            assert!(
                said == expect || (expect.contains("key") && said.starts_with(expect)),
                "{said} / {expect}"
            );
        }
        // Where no field of the model stands in it, a key may be anything.
        let said = gathered(keyed(Json, None, &id), &["a"], &record(Some(b"\xff")));
        assert_eq!(said, "1");
        let debezium = Input { unwrap: Unwrap::Debezium, ..keyed(Json, None, &id) };
        let value = Some(br#"{"op":"c","after":{"a":2}}"#.to_vec());
        let key: &[u8] = br#"{"schema":{},"payload":{"id":9}}"#;
        let row = Record { value, ..record(Some(key)) };
        assert_eq!(gathered(debezium.clone(), &["a", "customer"], &row), "2 9");
        let deleted =
            Record { value: Some(br#"{"op":"d","after":null}"#.to_vec()), ..record(Some(b"{")) };
        assert_eq!(gathered(debezium, &["a", "customer"], &deleted), "nothing");
    }

    #[test]
    fn fields_stand_in_avro_keys() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let row =
            r#"{"type":"record","name":"K","fields":[{"name":"id","type":["null","string"]}]}"#;
        file.write_all(row.as_bytes()).unwrap();
        let avro = |field, at: &[(&str, &str)], path: &std::path::Path| {
            let mut input = keyed(KeyFormat::Avro, field, at);
            input.key.schema = Some(path.to_owned());
            input
        };
        let input = avro(None, &[("customer", "/id")], file.path());
        let names = ["customer", "a"];
        assert_eq!(gathered(input.clone(), &names, &record(Some(b"\x02\x04c1"))), "c1 1");
        assert_eq!(gathered(input.clone(), &names, &record(Some(b"\x00"))), "null 1");
        assert_eq!(gathered(input.clone(), &names, &record(None)), "- 1");
        for cut in [&b""[..], b"\x02", b"\x02\x04c", b"\x02\x04c1\x00"] {
            let said = gathered(input.clone(), &names, &record(Some(cut)));
            assert!(said.starts_with("has a key that "), "{said}");
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(br#""long""#).unwrap();
        let input = avro(Some("customer"), &[], file.path());
        assert_eq!(gathered(input, &names, &record(Some(b"\x0a"))), "5 1");
    }

    #[test]
    fn fields_are_headers_and_of_the_record() {
        let map = |entries: &[(&str, &str)]| {
            entries.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        let parts = [Part::Topic, Part::Partition, Part::Offset, Part::Timestamp];
        let record_of = ["topic", "part", "at", "sent"].map(str::to_owned).into_iter().zip(parts);
        let input = Input {
            headers: map(&[("source", "source"), ("n", "none"), ("x", "absent"), ("b", "bad")]),
            record: record_of.collect(),
            ..Input::default()
        };
        let all = ["sent", "source", "a", "n", "x", "topic", "part", "at"];
        let said = gathered(input.clone(), &all, &record(None));
        assert_eq!(said, "1700000000000 web 1 null - t 3 7");
        let said = gathered(input.clone(), &["b"], &record(None));
        assert_eq!(said, "has a header \"bad\" that is not valid UTF-8 from byte 1 on");
        let timeless = Record { timestamp: None, ..record(None) };
        assert_eq!(gathered(input, &["sent", "a"], &timeless), "- 1");
    }
}

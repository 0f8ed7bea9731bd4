//! JSON objects, read once from left to right. Only what is wanted is kept: a record of a million small values takes no
//! more memory than its text.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::Value;

/// What an object has of the fields that are wanted.
#[derive(Debug)]
pub(super) struct Read<V> {
    /// In the order in which they are wanted; the last one where several have one name.
    pub(super) values: Vec<Option<V>>,
    /// The name of the first field that is not wanted.
    pub(super) unknown: Option<String>,
}

/// Reads the fields `wanted` of the object in `text`.
///
/// # Errors
///
/// What is wrong with the text as JSON and where, or what it is instead of an object.
pub(super) fn read<'t, V: Deserialize<'t>>(
    text: &'t str,
    wanted: &[String],
) -> Result<Read<V>, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = deserializer
        .deserialize_any(Top { wanted, of: PhantomData })
        .and_then(|read| deserializer.end().map(|()| read))
        .map_err(|error| explain(text, &error))?;
    read.map_err(|kind| format!("is a JSON {kind} where an object is wanted"))
}

/// What is wrong with a text that serde could not read, in words that say what to do. Nothing of the text is shown but
/// words that others write where JSON has none.
pub(crate) fn explain(text: &str, error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let place = format!("at line {line} column {column}");
    if text.starts_with('\u{feff}') {
        return "begins with a byte order mark (U+FEFF), which is no part of JSON: write UTF-8 without it (in Python \
                encoding=\"utf-8\", not \"utf-8-sig\")"
            .to_owned();
    }
    if text.starts_with('\0') && text.as_bytes().get(5) == Some(&b'{') {
        return "begins with a zero byte, as Confluent's serialisers write it before their schema's number: write plain \
                JSON without a schema registry"
            .to_owned();
    }
    let said = error.to_string();
    if said.starts_with("number out of range") {
        return format!("has a number {place} that no 64-bit float can hold (at most 1.8e308)");
    }
    if said.starts_with("lone leading surrogate") || said.starts_with("unexpected end of hex") {
        return format!("has half of a surrogate pair {place} (\\ud800 to \\udfff): no character");
    }
    let word = word(text, line, column);
    let meant = match word {
        "NaN" | "nan" | "NAN" | "Infinity" | "-Infinity" | "+Infinity" | "inf" | "-inf" | "Inf"
        | "-Inf" => "is no number of JSON: write null where a value is missing",
        "None" => "is Python's: JSON writes null (json.dumps does)",
        "True" | "False" => "is Python's: JSON writes true and false (json.dumps does)",
        "undefined" => "is JavaScript's: JSON writes null, or leaves the name out",
        "'" => "cannot stand around a text or a name: JSON has double quotes",
        _ => return format!("is not valid JSON: {said}"),
    };
    format!("is not valid JSON: {word} {place} {meant}")
}

/// The letters and signs around a place, or else the character there.
fn word(text: &str, line: usize, column: usize) -> &str {
    let line = text.split('\n').nth(line.saturating_sub(1)).unwrap_or_default();
    let bytes = line.as_bytes();
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-_".contains(byte);
    let at = column.saturating_sub(1).min(bytes.len());
    let start = at - bytes[..at].iter().rev().take_while(|byte| part(byte)).count();
    let end = at + bytes[at..].iter().take_while(|byte| part(byte)).count();
    line.get(start..end.max(at + 1)).unwrap_or_default()
}

/// A number, a text, a truth value or null; of a list or an object only that it is one, because no model takes one.
#[derive(Debug)]
pub(super) struct Scalar(pub(super) Value);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Value, A::Error> {
                IgnoredAny.visit_seq(seq)?;
                Ok(Value::Array(Vec::new()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
                IgnoredAny.visit_map(map)?;
                Ok(Value::Object(serde_json::Map::new()))
            }
        }
        deserializer.deserialize_any(Any).map(Self)
    }
}

/// The whole text: an object, or the kind of what stands in its place.
struct Top<'w, V> {
    wanted: &'w [String],
    of: PhantomData<V>,
}

impl<'de, V: Deserialize<'de>> Visitor<'de> for Top<'_, V> {
    type Value = Result<Read<V>, &'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Err("null"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Err("boolean"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Err("number"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Err("number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Err("number"))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Err("string"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_seq(seq)?;
        Ok(Err("array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values: Vec<Option<V>> = self.wanted.iter().map(|_| None).collect();
        let mut unknown = None;
        while let Some(place) =
            map.next_key_seed(Name { wanted: self.wanted, unknown: &mut unknown })?
        {
            match place {
                Some(place) => values[place] = Some(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Ok(Read { values, unknown }))
    }
}

/// A field's name, as its place among those wanted.
struct Name<'w, 'u> {
    wanted: &'w [String],
    unknown: &'u mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Name<'_, '_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_, '_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let place = self.wanted.iter().position(|wanted| wanted == name);
        if place.is_none() && self.unknown.is_none() {
            *self.unknown = Some(name.to_owned());
        }
        Ok(place)
    }
}

/// `text`, which is valid JSON, without the white space between its parts.
pub(super) fn compact(text: &str) -> Cow<'_, str> {
    let space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r');
    let (mut inside, mut escaped) = (false, false);
    let mut keep = |c: char| {
        let kept = inside || !space(c);
        match c {
            '"' if !escaped => inside = !inside,
            '\\' if inside && !escaped => {
                escaped = true;
                return kept;
            }
            _ => (),
        }
        escaped = false;
        kept
    };
    if text.contains(space) { text.chars().filter(|c| keep(*c)).collect() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[ a\"\\\\\n{},:é]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[ab \"]{0,2}", inner), 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn reading_is_parsing(value in value(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.unwrap();
            prop_assert_eq!(compact(&text), serde_json::to_string(&value).unwrap());
            let wanted = ["a".to_owned(), "b".to_owned()];
            let read = read::<Scalar>(&text, &wanted);
            let Value::Object(fields) = value else {
                prop_assert!(read.unwrap_err().contains("where an object is wanted"));
                return Ok(());
            };
            let read = read.unwrap();
            for (name, read) in wanted.iter().zip(read.values) {
                let expect = fields.get(name).cloned().map(|value| match &value {
                    Value::Array(_) => json!([]),
                    Value::Object(_) => json!({}),
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
                });
                prop_assert_eq!(read.map(|read| read.0), expect);
            }
            let unknown = fields.keys().find(|name| !wanted.contains(name));
            prop_assert_eq!(read.unknown.as_ref(), unknown);
        }
    }

    #[test]
    fn the_last_of_one_name_counts() {
        let read = read::<Scalar>(r#"{"a":1,"b":2,"a":"x"}"#, &["a".to_owned()]).unwrap();
        assert_eq!(read.values[0].as_ref().map(|value| &value.0), Some(&json!("x")));
    }
}

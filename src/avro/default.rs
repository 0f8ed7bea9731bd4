//! Values of fields that only the reader's schema has, from the JSON that it gives for them.

use apache_avro::Schema;
use apache_avro::schema::RecordSchema;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value as Json;

use super::decimal;
use super::resolve::kind;
use super::steps::double;
use super::types::{Names, follow};
use crate::field::Value;

/// The value at `path` of a default; `None` where it is in no record of the schema.
///
/// # Errors
///
/// Where the JSON is no value of the schema.
pub(super) fn value(
    names: &Names<'_>,
    schema: &Schema,
    written: &Json,
    path: &[String],
) -> Result<Option<Value<'static>>, String> {
    let schema = follow(names, schema)?;
    if let Schema::Union(union) = schema {
        // The first branch's, by the older rule; any branch's by the newer.
        let branches = union.variants().iter();
        let mut fit = branches.filter_map(|branch| value(names, branch, written, path).ok());
        return fit.next().ok_or_else(|| wrong(schema));
    }
    let Some((first, rest)) = path.split_first() else {
        return whole(schema, written).map(Some).ok_or_else(|| wrong(schema));
    };
    match (schema, written) {
        (Schema::Null, Json::Null) => Ok(Some(Value::Null)),
        (Schema::Record(record), Json::Object(fields)) => {
            within(names, record, fields, first, rest)
        }
        (Schema::Array(array), Json::Array(items)) => {
            let place = first.parse().ok().filter(|place: &usize| place.to_string() == *first);
            let item = place.and_then(|place| items.get(place));
            item.map_or(Ok(None), |item| value(names, &array.items, item, rest))
        }
        (Schema::Map(map), Json::Object(values)) => {
            values.get(first).map_or(Ok(None), |found| value(names, &map.types, found, rest))
        }
        _ => Err(wrong(schema)),
    }
}

/// A default as JSON text, as a datum's values are written: bytes in base64, decimals as numbers.
pub(super) fn text(names: &Names<'_>, schema: &Schema, written: &Json) -> String {
    match value(names, schema, written, &[]) {
        Ok(Some(Value::Bytes(bytes))) => Json::from(BASE64.encode(bytes)).to_string(),
        Ok(Some(Value::Decimal(digits))) => digits.into_string(),
        _ => written.to_string(),
    }
}

fn within(
    names: &Names<'_>,
    record: &RecordSchema,
    fields: &serde_json::Map<String, Json>,
    name: &str,
    rest: &[String],
) -> Result<Option<Value<'static>>, String> {
    let Some(field) = record.fields.iter().find(|field| field.name == name) else {
        return Ok(None);
    };
    match fields.get(name).or(field.default.as_ref()) {
        Some(written) => value(names, &field.schema, written, rest),
        None => Err(format!("has a default without the field {name:?}")),
    }
}

fn wrong(schema: &Schema) -> String {
    format!("has a default in the reader's schema that is not {}", kind(schema))
}

/// A value that is taken as one.
fn whole(schema: &Schema, written: &Json) -> Option<Value<'static>> {
    Some(match (kind(schema), written) {
        ("null", Json::Null) => Value::Null,
        ("a boolean", Json::Bool(is)) => Value::Bool(*is),
        ("an int", Json::Number(number)) => {
            Value::Int(i32::try_from(number.as_i64()?).ok()?.into())
        }
        ("a long", Json::Number(number)) => Value::Int(number.as_i64()?.into()),
        ("a float" | "a double", Json::Number(number)) => {
            Value::Float(number.as_f64().or_else(|| number.as_i64().map(double))?)
        }
        ("a string", Json::String(text)) => Value::Text(text.clone().into()),
        ("bytes" | "a fixed", Json::String(text)) => bytes(schema, text)?,
        ("an enum", Json::String(text)) => {
            let Schema::Enum(of) = schema else { return None };
            of.symbols.contains(text).then(|| Value::Text(text.clone().into()))?
        }
        ("an array", Json::Array(_)) => Value::List,
        ("a map" | "a record", Json::Object(_)) => Value::Map,
        _ => return None,
    })
}

/// Bytes are written as text whose characters are their numbers.
fn bytes(schema: &Schema, text: &str) -> Option<Value<'static>> {
    let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(c).ok()).collect::<Option<_>>()?;
    if let Schema::Decimal(decimal) = schema {
        let fits = (1..=512).contains(&bytes.len());
        return fits.then(|| Value::Decimal(decimal::text(&bytes, decimal.scale)));
    }
    if let Schema::Uuid(_) = schema {
        let uuid = uuid::Uuid::from_slice(&bytes).ok()?;
        return Some(Value::Text(uuid.hyphenated().to_string().into()));
    }
    let plain = !matches!(schema, Schema::BigDecimal | Schema::Duration(_));
    plain.then(|| Value::Bytes(bytes.into()))
}

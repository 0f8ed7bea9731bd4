//! Schemas as producers have registered them, with what older libraries let pass: only what a datum's bytes need counts.

use std::sync::Once;

use apache_avro::error::Details;
use apache_avro::validator::{
    EnumSymbolNameValidator, RecordFieldNameValidator, SchemaNameValidator,
    SchemaNamespaceValidator, set_enum_symbol_name_validator, set_record_field_name_validator,
    set_schema_name_validator, set_schema_namespace_validator,
};
use apache_avro::{AvroResult, Schema};
use serde_json::{Map, Value as Json};

/// Parses the schema of a writer, with the schemas that it refers to. Its defaults do not count: what was written has no
/// need of them, and registries take some that are none.
///
/// # Errors
///
/// As of [`parse`](super::parse).
pub fn parse_written(schema: &str, references: &[String]) -> Result<Schema, String> {
    let references: Vec<String> = references.iter().map(|text| bare(text)).collect();
    super::parse(&bare(schema), &references)
}

/// A schema's text without what reading data of it has no need of. A text that is not JSON stays, for the parser's words.
fn bare(schema: &str) -> String {
    let Ok(mut json) = serde_json::from_str::<Json>(schema) else { return schema.to_owned() };
    strip(&mut json);
    json.to_string()
}

fn strip(json: &mut Json) {
    match json {
        Json::Object(object) => {
            strip_object(object);
            object.values_mut().for_each(strip);
        }
        Json::Array(parts) => parts.iter_mut().for_each(strip),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => (),
    }
}

fn strip_object(object: &mut Map<String, Json>) {
    if !object.contains_key("type") {
        return;
    }
    for name in ["default", "doc", "aliases"] {
        object.shift_remove(name);
    }
    // What a protocol throws is a record.
    if object.get("type").and_then(Json::as_str) == Some("error") {
        object.insert("type".to_owned(), Json::from("record"));
    }
}

/// Names of any letters: those of Java packages and Debezium's servers have dashes and dollars, and Java takes fields of
/// any language.
#[derive(Debug)]
struct AnyName;

fn checked<T>(name: &str, is: T, of: fn(String, &'static str) -> Details) -> AvroResult<T> {
    let strange = |c: char| c.is_control() || c.is_whitespace() || "\"'{}[],:/".contains(c);
    if name.is_empty() || name.contains(strange) {
        return Err(of(name.to_owned(), "a name without spaces and signs of JSON").into());
    }
    Ok(is)
}

impl SchemaNameValidator for AnyName {
    fn validate(&self, name: &str) -> AvroResult<usize> {
        let own = name.rsplit('.').next().unwrap_or_default();
        checked(own, name.len() - own.len(), Details::InvalidSchemaName)
    }
}

impl SchemaNamespaceValidator for AnyName {
    fn validate(&self, namespace: &str) -> AvroResult<()> {
        if namespace.is_empty() {
            Ok(())
        } else {
            checked(namespace, (), Details::InvalidNamespace)
        }
    }
}

impl EnumSymbolNameValidator for AnyName {
    fn validate(&self, symbol: &str) -> AvroResult<()> {
        checked(symbol, (), |name, _| Details::EnumSymbolName(name))
    }
}

impl RecordFieldNameValidator for AnyName {
    fn validate(&self, name: &str) -> AvroResult<()> {
        checked(name, (), |name, _| Details::FieldName(name))
    }
}

/// Lets the library take such names. Before the first schema, once a process.
pub(super) fn take_any_name() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Whoever came first has set others, which hold then.
        drop(set_schema_name_validator(Box::new(AnyName)));
        drop(set_schema_namespace_validator(Box::new(AnyName)));
        drop(set_enum_symbol_name_validator(Box::new(AnyName)));
        drop(set_record_field_name_validator(Box::new(AnyName)));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each is in a real registry somewhere, and Java reads data of it.
    #[test]
    fn what_registries_have_is_parsed() {
        let field = |field: &str| {
            format!(r#"{{"type":"record","name":"r","fields":[{{"name":"f",{field}}}]}}"#)
        };
        for text in [
            field(r#""type":{"type":"string","logicalType":"uuid"},"default":"""#),
            field(r#""type":{"type":"bytes","logicalType":"decimal","precision":4},"default":"""#),
            field(r#""type":"string","default":null"#),
            field(r#""type":"int","default":"0""#),
            field(r#""type":{"type":"array","items":"int"},"default":null"#),
            field(r#""type":"long","default":1.0,"doc":7"#),
            field(r#""type":{"type":"fixed","name":"x","size":4},"default":"a""#),
            field(r#""type":{"type":"enum","name":"e","symbols":["A"],"default":"B"}"#),
            field(r#""type":"int""#).replace("\"r\"", "\"my-app.events.r\""),
            field(r#""type":"int""#).replace("\"r\"", "\"r\",\"namespace\":\"db-1.Outer$\""),
            field(r#""type":"int""#).replace("\"f\"", "\"größe\""),
            field(r#""type":"int""#).replace("record", "error"),
        ] {
            let parsed = parse_written(&text, &[]);
            assert!(parsed.is_ok(), "{text}: {parsed:?}");
        }
        for text in ["{", "{}", "\"nothing\"", r#"{"type":"record","name":"","fields":[]}"#] {
            assert!(parse_written(text, &[]).is_err(), "{text}");
        }
    }
}

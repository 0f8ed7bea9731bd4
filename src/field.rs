//! A record's fields, as a format gives them and a model takes them.

use serde_json::Value;

use crate::record::{Fault, FaultClass};

/// A record's fields, decoded: a JSON object, or text or base64 alone under the name `input.field`.
pub type Fields = serde_json::Map<String, Value>;

/// The text in a field.
///
/// # Errors
///
/// Where it is missing, null, or something else than `wanted`.
pub fn text<'a>(fields: &'a Fields, name: &str, wanted: &str) -> Result<&'a str, Fault> {
    match fields.get(name) {
        Some(Value::String(text)) => Ok(text),
        None | Some(Value::Null) => {
            Err(Fault::new(FaultClass::Missing, format!("field {name:?} is missing or null")))
        }
        Some(other) => {
            let message = format!("field {name:?} is {}, not {wanted}", kind(other));
            Err(Fault::new(FaultClass::Invalid, message))
        }
    }
}

/// What kind of JSON a value is, with its article, for messages.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

//! A record's fields, as a format gives them and a model takes them.

use serde_json::Value as Json;

use crate::record::{Fault, FaultClass};

mod value;

pub use value::Value;

/// A record's fields, decoded: a JSON object, or text or base64 alone under the name `input.field`.
pub type Fields = serde_json::Map<String, Json>;

/// The text in a field.
///
/// # Errors
///
/// Where it is missing, null, or something else than `wanted`.
pub fn text<'a>(fields: &'a Fields, name: &str, wanted: &str) -> Result<&'a str, Fault> {
    match fields.get(name) {
        Some(Json::String(text)) => Ok(text),
        None | Some(Json::Null) => {
            Err(Fault::new(FaultClass::Missing, format!("field {name:?} is missing or null")))
        }
        Some(other) => {
            let message = format!("field {name:?} is {}, not {wanted}", kind(other));
            Err(Fault::new(FaultClass::Invalid, message))
        }
    }
}

/// What kind of JSON a value is, with its article, for messages.
pub fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
}

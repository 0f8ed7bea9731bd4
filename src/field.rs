//! Values of a record's fields, as a format reads them and a model takes them: borrowed from the record wherever its
//! bytes can be, so that nothing is copied between a record and the model's input.

use std::borrow::Cow;

use serde_json::Map;

use crate::record::{Fault, FaultClass};

/// A value of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// There, and null.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A number that is not whole, or too large for an `Int`.
    Float(f64),
    /// A number by its decimal digits, of which an f64 would lose some (Avro's `decimal`).
    Decimal(Box<str>),
    /// Text.
    Text(Cow<'a, str>),
    /// Bytes, of an image for example.
    Bytes(Cow<'a, [u8]>),
    /// A list: no model takes one.
    List,
    /// An object, a map or a nested record: no model takes one.
    Map,
}

/// The values of the fields that were asked for, in the order in which they were asked; `None` of a field that is not
/// there.
pub type Values<'a> = [Option<Value<'a>>];

impl Value<'_> {
    /// What kind of value it is, with its article, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float(_) | Self::Decimal(_) => "a number",
            Self::Text(_) => "a string",
            Self::Bytes(_) => "bytes",
            Self::List => "an array",
            Self::Map => "an object",
        }
    }

    /// The same, borrowed from nothing.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(truth) => Value::Bool(truth),
            Self::Int(whole) => Value::Int(whole),
            Self::Float(number) => Value::Float(number),
            Self::Decimal(digits) => Value::Decimal(digits),
            Self::Text(text) => Value::Text(text.into_owned().into()),
            Self::Bytes(bytes) => Value::Bytes(bytes.into_owned().into()),
            Self::List => Value::List,
            Self::Map => Value::Map,
        }
    }

    /// The number nearest to a number; `None` of everything else.
    #[inline]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            Self::Int(whole) => Some(nearest(*whole)),
            Self::Decimal(digits) => digits.parse().ok(),
            Self::Null
            | Self::Bool(_)
            | Self::Text(_)
            | Self::Bytes(_)
            | Self::List
            | Self::Map => None,
        }
    }
}

#[inline]
#[expect(clippy::cast_precision_loss, reason = "the nearest number is what is asked for")]
fn nearest(whole: i128) -> f64 {
    match i64::try_from(whole) {
        Ok(whole) => whole as f64,
        Err(_) => nearest_of_many_bits(whole),
    }
}

/// Apart, because no processor converts 128 bits, and a compiler would call the function that does for every number.
#[cold]
#[inline(never)]
#[expect(clippy::cast_precision_loss, reason = "the nearest number is what is asked for")]
fn nearest_of_many_bits(whole: i128) -> f64 {
    whole as f64
}

impl<'a> From<&'a serde_json::Value> for Value<'a> {
    fn from(value: &'a serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(truth) => Self::Bool(*truth),
            serde_json::Value::Number(number) => match number.as_i128() {
                Some(whole) => Self::Int(whole),
                None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Self::Text(Cow::Borrowed(text)),
            serde_json::Value::Array(_) => Self::List,
            serde_json::Value::Object(_) => Self::Map,
        }
    }
}

/// The values that a JSON object has for `names`.
pub fn of_object<'a>(
    names: &[String],
    object: &'a Map<String, serde_json::Value>,
) -> Vec<Option<Value<'a>>> {
    names.iter().map(|name| object.get(name).map(Value::from)).collect()
}

/// Whether a field is there and not null.
pub fn is_given(value: Option<&Value<'_>>) -> bool {
    value.is_some_and(|value| *value != Value::Null)
}

/// The text in the field `name`.
///
/// # Errors
///
/// Where it is missing, null, or something else than `wanted`.
pub fn text<'v>(value: Option<&'v Value<'_>>, name: &str, wanted: &str) -> Result<&'v str, Fault> {
    match value {
        Some(Value::Text(text)) => Ok(text),
        Some(Value::Null) | None => Err(missing(name)),
        Some(other) => Err(not(name, other, wanted)),
    }
}

/// The field `name` is missing or null.
pub fn missing(name: &str) -> Fault {
    Fault::new(FaultClass::Missing, format!("field {name:?} is missing or null"))
}

/// The field `name` is something else than `wanted`.
pub fn not(name: &str, found: &Value<'_>, wanted: &str) -> Fault {
    let message = format!("field {name:?} is {}, not {wanted}", found.kind());
    Fault::new(FaultClass::Invalid, message)
}

//! A value of a field, borrowed from the record wherever its bytes can be.

use std::borrow::Cow;

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

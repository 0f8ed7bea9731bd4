//! A message's JSON as it goes along: the library's, but that the same record gives the same bytes, that a number that JSON
//! does not have is null, and that fields have their own names.

use std::borrow::Cow;

use prost_reflect::{Kind, MessageDescriptor};

use super::super::json::{elements, members};
use super::schema::plain;

/// What a part of a text is.
#[derive(Debug, Clone)]
enum Form {
    Message(MessageDescriptor),
    /// A map's, whose values are of this form.
    Map(Box<Form>),
    /// A floating-point number.
    Number,
    Other,
}

/// The names that the library has for numbers that JSON does not have.
const NO_NUMBERS: [&str; 3] = ["\"NaN\"", "\"Infinity\"", "\"-Infinity\""];

/// The text of a message in the order of its maps' keys, which the library has in another order each time; its fields stay
/// in theirs.
pub(super) fn tidied(of: &MessageDescriptor, text: String) -> String {
    let has_maps = || of.parent_pool().all_messages().any(|of| of.is_map_entry());
    let has_marks = || text.contains(super::schema::MARK_IN_JSON);
    if !has_maps() && !has_marks() && !NO_NUMBERS.iter().any(|name| text.contains(name)) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    tidy(&Form::Message(of.clone()), &text, &mut out);
    out
}

fn tidy(form: &Form, text: &str, out: &mut String) {
    if let Some(parts) = elements(text) {
        let each = |part: &&str, out: &mut String| tidy(form, part, out);
        return joined(('[', ']'), &parts, each, out);
    }
    let Some(mut members) = members(text) else {
        let is_number = match form {
            Form::Number => true,
            Form::Message(of) => matches!(
                of.full_name(),
                "google.protobuf.DoubleValue" | "google.protobuf.FloatValue"
            ),
            Form::Map(_) | Form::Other => false,
        };
        let is_none = is_number && NO_NUMBERS.contains(&text.trim());
        return out.push_str(if is_none { "null" } else { text });
    };
    // Google's Struct is a map, a Value may be one, and so may what is not known.
    let maps = ["google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"];
    let of = match form {
        Form::Message(of) if !maps.contains(&of.full_name()) => Some(of),
        Form::Message(_) | Form::Map(_) | Form::Number | Form::Other => None,
    };
    if of.is_none() {
        members.sort_unstable();
    }
    let inner = |name: &str| match (of, form) {
        (Some(of), _) => {
            of.get_field_by_name(name).map_or(Form::Other, |field| self::form(&field.kind()))
        }
        (None, Form::Map(values)) => (**values).clone(),
        (None, _) => Form::Other,
    };
    let each = |(name, value): &(Cow<'_, str>, &str), out: &mut String| {
        let own = if of.is_some() { plain(name) } else { name };
        out.push_str(&serde_json::Value::from(own).to_string());
        out.push(':');
        tidy(&inner(name), value, out);
    };
    joined(('{', '}'), &members, each, out);
}

fn form(kind: &Kind) -> Form {
    if matches!(kind, Kind::Double | Kind::Float) {
        return Form::Number;
    }
    match kind.as_message() {
        Some(of) if of.is_map_entry() => {
            Form::Map(Box::new(form(&of.map_entry_value_field().kind())))
        }
        Some(of) => Form::Message(of.clone()),
        None => Form::Other,
    }
}

fn joined<T>(
    (open, close): (char, char),
    parts: &[T],
    each: impl Fn(&T, &mut String),
    out: &mut String,
) {
    out.push(open);
    for (number, part) in parts.iter().enumerate() {
        if number != 0 {
            out.push(',');
        }
        each(part, out);
    }
    out.push(close);
}

//! A message's bytes with only what is wanted of it and known, so that no more is built than goes along.

use std::borrow::Cow;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::super::wanted::{Branch, Wants};
use super::plan::WRAPPERS;
use super::schema::plain;
use super::weight::MAX_DEPTH;
use super::wire::{Form, Found, Read, Wire, no_group, unfinished, write_varint};

/// The bytes of a message with the fields that are known, of the wire type that they have, and `wanted`: everything where
/// nothing is said. As they are where they are no such message, or nested too deeply: who builds it finds out.
pub(super) fn sifted<'a>(
    of: &MessageDescriptor,
    bytes: &'a [u8],
    wanted: Option<&Branch>,
) -> Cow<'a, [u8]> {
    let mut out = Vec::new();
    let wants = wanted.map_or(Wants::All, Wants::Of);
    match message(of, &mut Wire::new(bytes), None, wants, 0, &mut out) {
        Ok(()) => Cow::Owned(out),
        Err(_found_out_later) => Cow::Borrowed(bytes),
    }
}

fn message(
    of: &MessageDescriptor,
    wire: &mut Wire<'_>,
    group: Option<u32>,
    wanted: Wants<'_>,
    depth: usize,
    out: &mut Vec<u8>,
) -> Read<()> {
    if MAX_DEPTH < depth {
        return Err("is nested too deeply".to_owned());
    }
    while !wire.is_empty() {
        let start = *wire;
        let (number, found) = wire.field()?;
        if found == Found::End {
            return if group == Some(number) { Ok(()) } else { Err(no_group(number)) };
        }
        let field = of.get_field(number).filter(|field| is_of(field, found));
        let below = field.as_ref().and_then(|field| wanted_of(field, wanted));
        let (Some(field), Some(below)) = (field, below) else {
            wire.pass(number, found)?;
            continue;
        };
        match (field.kind(), found) {
            (Kind::Message(inner), Found::Bytes(bytes)) => {
                let mut part = Vec::new();
                message(&inner, &mut Wire::new(bytes), None, below, depth + 1, &mut part)?;
                write_varint(u64::from(number) << 3 | 2, out);
                write_varint(u64::try_from(part.len()).unwrap_or(u64::MAX), out);
                out.extend_from_slice(&part);
            }
            (Kind::Message(inner), Found::Group) => {
                write_varint(u64::from(number) << 3 | 3, out);
                message(&inner, wire, Some(number), below, depth + 1, out)?;
                write_varint(u64::from(number) << 3 | 4, out);
            }
            _ => out.extend_from_slice(start.up_to(*wire)),
        }
    }
    group.map_or(Ok(()), |number| Err(unfinished(number)))
}

/// What is wanted of a field, everything where nothing is said; `None` where it is not wanted itself.
fn wanted_of<'w>(field: &FieldDescriptor, wanted: Wants<'w>) -> Option<Wants<'w>> {
    let Wants::Of(wanted) = wanted else { return Some(Wants::All) };
    let named = |of: &FieldDescriptor| {
        wanted.members().iter().find(|member| member.name() == plain(of.name()))
    };
    let of = field.kind();
    let of = of.as_message();
    let own = named(field).and_then(|member| {
        if !member.places.is_empty() || field.is_list() || field.is_map() {
            return Some(Wants::All);
        }
        // JSON that has no parts shows none of them.
        let has_parts = of.is_none_or(|of| !has_no_parts(of));
        let is_object = of.is_some_and(|of| !is_anything(of));
        has_parts.then_some(if is_object { Wants::Of(&member.below) } else { Wants::All })
    });
    // Of a oneof the last counts, whichever it is.
    let is_rival = || {
        let oneof = field.containing_oneof();
        oneof.is_some_and(|oneof| oneof.fields().any(|other| named(&other).is_some()))
    };
    own.or_else(|| is_rival().then_some(Wants::All))
}

/// Whether a message is a text or a number in JSON.
fn has_no_parts(of: &MessageDescriptor) -> bool {
    let name = of.full_name();
    let texts =
        ["google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask"];
    texts.contains(&name) || WRAPPERS.contains(&name)
}

/// Whether a message is in JSON whatever a record puts in, without the names of its own fields.
fn is_anything(of: &MessageDescriptor) -> bool {
    matches!(
        of.full_name(),
        "google.protobuf.Any"
            | "google.protobuf.Value"
            | "google.protobuf.Struct"
            | "google.protobuf.ListValue"
    )
}

/// Whether a field lies on the wire as its type does. One that does not is an unknown field, as in Google's parsers.
fn is_of(field: &FieldDescriptor, found: Found<'_>) -> bool {
    let form = if field.is_group() { Form::Group } else { Form::of(&field.kind()) };
    let is_packed = field.is_list()
        && matches!(form, Form::Varint | Form::Fixed64 | Form::Fixed32)
        && matches!(found, Found::Bytes(_));
    is_packed || found.form() == Some(form)
}

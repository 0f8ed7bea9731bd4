//! What a [`Plan`](super::plan::Plan) does with a message.

use std::borrow::Cow;

use super::wire::{Form, Found, Read, Wire, no_group, unfinished, zigzag};
use crate::field::Value;

/// What is wanted of a message: fields by their numbers.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// In the order of their numbers.
    pub(super) fields: Box<[Field]>,
    /// What slots have where the message is there and does not say: defaults, and lists and maps that are empty.
    pub(super) absent: Box<[(usize, Value<'static>)]>,
}

/// A field that is wanted, or of a `oneof` with one that is.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    /// Its path, for messages.
    pub(super) at: Box<str>,
    pub(super) takes: Takes,
    /// Its `oneof`, where that matters: the counter that has the number of the field that is set, and what the others have.
    pub(super) oneof: Option<(usize, Below)>,
}

/// The slots, and the counters of lists, that lie below a place.
#[derive(Debug, Clone, Default)]
pub(super) struct Below {
    pub(super) slots: Vec<usize>,
    pub(super) counters: Vec<usize>,
}

/// What is taken of a field.
#[derive(Debug)]
pub(super) enum Takes {
    /// A value.
    One(One),
    /// Elements by their numbers.
    List {
        /// How an element lies where it lies with others; none of what does not.
        packed: Option<Scalar>,
        counter: usize,
        elements: Box<[(usize, One)]>,
    },
    /// Values by their keys.
    Map { key: Scalar, entries: Box<[Entry]> },
}

/// A value of a map that is wanted.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Value<'static>,
    pub(super) value: One,
    /// What it is where the entry does not say.
    pub(super) default: Value<'static>,
    /// What an entry of the same key takes the place of.
    pub(super) below: Below,
}

/// What is taken of one value.
#[derive(Debug)]
pub(super) enum One {
    /// Nothing.
    Nothing,
    Scalar {
        kind: Scalar,
        slots: Box<[usize]>,
    },
    Message {
        node: usize,
        group: bool,
        /// That it is there.
        slots: Box<[usize]>,
    },
}

/// How a value lies on the wire.
#[derive(Debug, Clone)]
pub(super) enum Scalar {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    Text,
    Bytes,
    /// Names by their numbers.
    Enum(Box<[(i32, Box<str>)]>),
    /// The one value of `google.protobuf.NullValue`.
    Null,
}

/// Where values go.
#[derive(Debug)]
pub(super) struct State<'a> {
    pub(super) out: Vec<Option<Value<'a>>>,
    /// How many elements lists had so far, and which field of a `oneof` is set.
    pub(super) counts: Vec<usize>,
    /// The first field of the message itself that is not wanted.
    pub(super) unknown: Option<u32>,
}

impl<'a> State<'a> {
    fn give(&mut self, slots: &[usize], value: &Value<'a>) {
        for slot in slots {
            self.out[*slot] = Some(value.clone());
        }
    }

    fn clear(&mut self, below: &Below) {
        below.slots.iter().for_each(|slot| self.out[*slot] = None);
        below.counters.iter().for_each(|counter| self.counts[*counter] = 0);
    }
}

impl Node {
    fn find(&self, number: u32, next: &mut usize) -> Option<&Field> {
        // Fields stand in the order of their numbers, mostly.
        let at = match self.fields.get(*next) {
            Some(field) if field.number == number => *next,
            _ => self.fields.binary_search_by_key(&number, |field| field.number).ok()?,
        };
        *next = at + 1;
        self.fields.get(at)
    }

    /// Reads a message, or a group up to its end; `top` is the record's own.
    pub(super) fn read<'a>(
        &'a self,
        nodes: &'a [Self],
        wire: &mut Wire<'a>,
        group: Option<u32>,
        top: bool,
        state: &mut State<'a>,
    ) -> Read<()> {
        for (slot, default) in &self.absent {
            state.out[*slot].get_or_insert_with(|| lend(default));
        }
        let mut next = 0;
        while !wire.is_empty() {
            let (number, found) = wire.field()?;
            if found == Found::End {
                return if group == Some(number) { Ok(()) } else { Err(no_group(number)) };
            }
            let field = self.find(number, &mut next);
            if top && field.is_none_or(|field| matches!(field.takes, Takes::One(One::Nothing))) {
                state.unknown.get_or_insert(number);
            }
            match field {
                Some(field) => field.read(nodes, number, found, wire, state)?,
                None => wire.pass(number, found)?,
            }
        }
        group.map_or(Ok(()), |number| Err(unfinished(number)))
    }
}

impl Field {
    fn read<'a>(
        &'a self,
        nodes: &'a [Node],
        number: u32,
        found: Found<'a>,
        wire: &mut Wire<'a>,
        state: &mut State<'a>,
    ) -> Read<()> {
        // As an unknown field, which is Google's rule.
        if !self.takes.is_of(found) {
            return wire.pass(number, found);
        }
        if let Some((set, others)) = &self.oneof {
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            if state.counts[*set] != number {
                state.clear(others);
                state.counts[*set] = number;
            }
        }
        match &self.takes {
            Takes::One(one) => one.read(&self.at, nodes, number, found, wire, state),
            Takes::List { packed, counter, elements } => {
                let one = |found, wire: &mut Wire<'a>, state: &mut State<'a>| {
                    let place = state.counts[*counter];
                    state.counts[*counter] += 1;
                    match elements.iter().find(|(element, _)| *element == place) {
                        Some((_, one)) => one.read(&self.at, nodes, number, found, wire, state),
                        None => wire.pass(number, found),
                    }
                };
                let (Some(packed), Found::Bytes(bytes)) = (packed, found) else {
                    return one(found, wire, state);
                };
                let mut values = Wire::new(bytes);
                while !values.is_empty() {
                    let value = packed.found(&mut values).map_err(|why| self.wrong(&why))?;
                    one(value, wire, state)?;
                }
                Ok(())
            }
            Takes::Map { key, entries } => {
                let Found::Bytes(bytes) = found else { return Err(other(&self.at, found)) };
                self.entry(nodes, key, entries, bytes, state)
            }
        }
    }

    /// Reads an entry of a map: its key first, wherever it stands.
    fn entry<'a>(
        &'a self,
        nodes: &'a [Node],
        kind: &'a Scalar,
        entries: &'a [Entry],
        bytes: &'a [u8],
        state: &mut State<'a>,
    ) -> Read<()> {
        let mut key = kind.default();
        let mut wire = Wire::new(bytes);
        while !wire.is_empty() {
            match wire.field().map_err(|why| self.wrong(&why))? {
                (1, found) if kind.is_of(found) => key = kind.value(&self.at, found)?,
                (number, found) => wire.pass(number, found).map_err(|why| self.wrong(&why))?,
            }
        }
        let Some(entry) = entries.iter().find(|entry| entry.key == key) else { return Ok(()) };
        state.clear(&entry.below);
        match &entry.value {
            One::Nothing => (),
            One::Scalar { slots, .. } => state.give(slots, &lend(&entry.default)),
            // One without bytes.
            one @ One::Message { .. } => {
                one.read(&self.at, nodes, 2, Found::Bytes(&[]), &mut wire, state)?;
            }
        }
        let mut wire = Wire::new(bytes);
        while !wire.is_empty() {
            match wire.field()? {
                (2, found) if entry.value.is_of(found) => {
                    entry.value.read(&self.at, nodes, 2, found, &mut wire, state)?;
                }
                (number, found) => wire.pass(number, found)?,
            }
        }
        Ok(())
    }

    fn wrong(&self, why: &str) -> String {
        format!("field {:?} {why}", self.at)
    }
}

impl Takes {
    /// Whether that is how the field lies on the wire.
    fn is_of(&self, found: Found<'_>) -> bool {
        match self {
            Self::One(one) => one.is_of(found),
            Self::Map { .. } => matches!(found, Found::Bytes(_)),
            Self::List { packed, elements, .. } => {
                (packed.is_some() && matches!(found, Found::Bytes(_)))
                    || elements.first().is_none_or(|(_, one)| one.is_of(found))
            }
        }
    }
}

impl One {
    fn is_of(&self, found: Found<'_>) -> bool {
        match self {
            Self::Nothing => true,
            Self::Scalar { kind, .. } => kind.is_of(found),
            Self::Message { group: false, .. } => matches!(found, Found::Bytes(_)),
            Self::Message { group: true, .. } => matches!(found, Found::Group),
        }
    }

    fn read<'a>(
        &'a self,
        at: &str,
        nodes: &'a [Node],
        number: u32,
        found: Found<'a>,
        wire: &mut Wire<'a>,
        state: &mut State<'a>,
    ) -> Read<()> {
        match (self, found) {
            (Self::Nothing, _) => wire.pass(number, found),
            (Self::Scalar { kind, slots }, _) => {
                let value = kind.value(at, found)?;
                state.give(slots, &value);
                Ok(())
            }
            (Self::Message { node, slots, group: false }, Found::Bytes(bytes)) => {
                state.give(slots, &Value::Map);
                nodes[*node].read(nodes, &mut Wire::new(bytes), None, false, state)
            }
            (Self::Message { node, slots, group: true }, Found::Group) => {
                state.give(slots, &Value::Map);
                nodes[*node].read(nodes, wire, Some(number), false, state)
            }
            (Self::Message { .. }, _) => Err(other(at, found)),
        }
    }
}

impl Scalar {
    /// How it lies on the wire.
    fn form(&self) -> Form {
        match self {
            Self::Double | Self::Fixed64 | Self::Sfixed64 => Form::Fixed64,
            Self::Float | Self::Fixed32 | Self::Sfixed32 => Form::Fixed32,
            Self::Text | Self::Bytes => Form::Bytes,
            Self::Int32
            | Self::Int64
            | Self::Uint32
            | Self::Uint64
            | Self::Sint32
            | Self::Sint64
            | Self::Bool
            | Self::Enum(_)
            | Self::Null => Form::Varint,
        }
    }

    /// The next of several that lie together, which texts and bytes never do.
    fn found<'a>(&self, wire: &mut Wire<'a>) -> Read<Found<'a>> {
        match self.form() {
            Form::Fixed64 => wire.array().map(Found::Fixed64),
            Form::Fixed32 => wire.array().map(Found::Fixed32),
            Form::Varint | Form::Bytes | Form::Group => wire.varint().map(Found::Varint),
        }
    }

    /// Whether that is how it lies on the wire.
    fn is_of(&self, found: Found<'_>) -> bool {
        found.form() == Some(self.form())
    }

    /// The value of what was found.
    #[expect(
        clippy::cast_possible_wrap,
        clippy::cast_possible_truncation,
        reason = "Protobuf's rule: of a number with more bits than its type the low ones count"
    )]
    fn value<'a>(&'a self, at: &str, found: Found<'a>) -> Read<Value<'a>> {
        Ok(match (self, found) {
            (Self::Double, Found::Fixed64(bytes)) => Value::Float(f64::from_le_bytes(bytes)),
            (Self::Float, Found::Fixed32(bytes)) => Value::Float(f32::from_le_bytes(bytes).into()),
            (Self::Int32, Found::Varint(number)) => Value::Int((number as i32).into()),
            (Self::Int64, Found::Varint(number)) => Value::Int((number as i64).into()),
            (Self::Uint32, Found::Varint(number)) => Value::Int((number as u32).into()),
            (Self::Uint64, Found::Varint(number)) => Value::Int(number.into()),
            (Self::Sint32, Found::Varint(number)) => {
                Value::Int((zigzag(u64::from(number as u32)) as i32).into())
            }
            (Self::Sint64, Found::Varint(number)) => Value::Int(zigzag(number).into()),
            (Self::Fixed32, Found::Fixed32(bytes)) => Value::Int(u32::from_le_bytes(bytes).into()),
            (Self::Fixed64, Found::Fixed64(bytes)) => Value::Int(u64::from_le_bytes(bytes).into()),
            (Self::Sfixed32, Found::Fixed32(bytes)) => Value::Int(i32::from_le_bytes(bytes).into()),
            (Self::Sfixed64, Found::Fixed64(bytes)) => Value::Int(i64::from_le_bytes(bytes).into()),
            (Self::Bool, Found::Varint(number)) => Value::Bool(number != 0),
            (Self::Null, Found::Varint(_)) => Value::Null,
            (Self::Enum(names), Found::Varint(number)) => named(names, number as i32),
            (Self::Text, Found::Bytes(bytes)) => {
                let text = std::str::from_utf8(bytes).map_err(|error| {
                    let from = error.valid_up_to();
                    format!("field {at:?} is not valid UTF-8 from byte {from} on")
                })?;
                Value::Text(Cow::Borrowed(text))
            }
            (Self::Bytes, Found::Bytes(bytes)) => Value::Bytes(Cow::Borrowed(bytes)),
            _ => return Err(other(at, found)),
        })
    }

    /// What it is where nothing is said.
    pub(super) fn default(&self) -> Value<'static> {
        match self {
            Self::Double | Self::Float => Value::Float(0.0),
            Self::Bool => Value::Bool(false),
            Self::Null => Value::Null,
            Self::Text => Value::Text(Cow::Borrowed("")),
            Self::Bytes => Value::Bytes(Cow::Borrowed(b"")),
            // Of proto3 the first is 0, of proto2 any.
            Self::Enum(names) => match names.first() {
                Some((_, name)) => Value::Text(Cow::Owned(name.to_string())),
                None => Value::Int(0),
            },
            Self::Int32
            | Self::Int64
            | Self::Uint32
            | Self::Uint64
            | Self::Sint32
            | Self::Sint64
            | Self::Fixed32
            | Self::Fixed64
            | Self::Sfixed32
            | Self::Sfixed64 => Value::Int(0),
        }
    }
}

/// An enum's value by its name; a number without one as it is.
pub(super) fn named(names: &[(i32, Box<str>)], number: i32) -> Value<'_> {
    match names.iter().find(|(known, _)| *known == number) {
        Some((_, name)) => Value::Text(Cow::Borrowed(name)),
        None => Value::Int(number.into()),
    }
}

/// A default, borrowed.
fn lend<'a>(value: &'a Value<'static>) -> Value<'a> {
    match value {
        Value::Text(text) => Value::Text(Cow::Borrowed(text)),
        Value::Bytes(bytes) => Value::Bytes(Cow::Borrowed(bytes)),
        other @ (Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::Decimal(_)
        | Value::List
        | Value::Map) => other.clone(),
    }
}

fn other(at: &str, found: Found<'_>) -> String {
    let wire_type = match found {
        Found::Varint(_) => 0,
        Found::Fixed64(_) => 1,
        Found::Bytes(_) => 2,
        Found::Group => 3,
        Found::End => 4,
        Found::Fixed32(_) => 5,
    };
    format!(
        "field {at:?} is of another type than its schema says (wire type {wire_type}): the schema is not the one that the \
         record was written by"
    )
}

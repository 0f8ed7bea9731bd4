//! How wanted fields are read from messages of one kind: compiled once, from its descriptor.

use std::collections::HashMap;

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, Value as Theirs};

use super::read::{Below, Entry, Field, Node, One, Scalar, State, Takes, named};
use super::schema::{field, plain};
use super::wire::{Read, Wire};
use crate::avro::decimal_text;
use crate::field::Value;

/// Most places of messages that are looked into: `google.protobuf.Value` may contain itself in two ways.
const MAX_NODES: usize = 10_000;

/// Most bytes of a decimal's digits, and digits behind its point.
const MAX_DIGITS: usize = 512;

/// How the wanted fields are read from a message.
#[derive(Debug)]
pub(in crate::format) struct Plan {
    nodes: Box<[Node]>,
    root: usize,
    wanted: usize,
    /// With those that are put together in the end.
    slots: usize,
    counters: usize,
    joined: Box<[Joined]>,
    names: HashMap<u32, String>,
}

/// A value that is put together of two fields of a message.
#[derive(Debug)]
struct Joined {
    at: Box<str>,
    slot: usize,
    parts: [usize; 2],
    how: Join,
}

#[derive(Debug, Clone, Copy)]
enum Join {
    /// Milliseconds of seconds and nanoseconds: since 1970, or how long.
    Milliseconds,
    /// A number of its digits' bytes and its scale.
    Decimal,
}

/// A value that is wanted: where it goes, and its path from the place that is looked at.
#[derive(Debug, Clone)]
struct Want {
    slot: usize,
    path: Vec<String>,
}

impl Plan {
    /// A plan for messages `of`. A wanted field is a path from the record on: names of fields, keys of maps, numbers of
    /// elements.
    ///
    /// # Errors
    ///
    /// Where a path goes on in what has no parts, in words for a message that begins with the record.
    pub(super) fn new(of: &MessageDescriptor, wanted: &[Vec<String>]) -> Result<Self, String> {
        let mut compiler = Compiler { slots: wanted.len(), ..Compiler::default() };
        let wants = wanted.iter().enumerate();
        let wants = wants.map(|(slot, path)| Want { slot, path: path.clone() }).collect();
        let (root, _) = compiler.message(of, wants, "")?;
        let names = of.fields().map(|field| (field.number(), plain(field.name()).to_owned()));
        Ok(Self {
            root,
            wanted: wanted.len(),
            slots: compiler.slots,
            counters: compiler.counters,
            joined: compiler.joined.into_boxed_slice(),
            names: names.collect(),
            nodes: compiler.nodes.into_boxed_slice(),
        })
    }

    /// Reads a message: the wanted fields in their order, and the first field of the message itself that is not wanted.
    ///
    /// # Errors
    ///
    /// Which field breaks which rule, never with its value, in words for a message that begins with the record.
    pub(super) fn read<'a>(
        &'a self,
        message: &'a [u8],
    ) -> Read<(Vec<Option<Value<'a>>>, Option<String>)> {
        let mut state =
            State { out: vec![None; self.slots], counts: vec![0; self.counters], unknown: None };
        let root = &self.nodes[self.root];
        root.read(&self.nodes, &mut Wire::new(message), None, true, &mut state)?;
        let State { mut out, unknown, .. } = state;
        for Joined { at, slot, parts: [first, second], how } in &self.joined {
            let (Some(first), Some(second)) = (&out[*first], &out[*second]) else { continue };
            let value = how.of(first, second).map_err(|why| format!("field {at:?} {why}"))?;
            out[*slot] = Some(value);
        }
        out.truncate(self.wanted);
        let name = |number| self.names.get(&number).cloned().unwrap_or_else(|| number.to_string());
        Ok((out, unknown.map(name)))
    }
}

impl Join {
    fn of(self, first: &Value<'_>, second: &Value<'_>) -> Result<Value<'static>, String> {
        match (self, first, second) {
            (Self::Milliseconds, Value::Int(seconds), Value::Int(nanos)) => {
                if 1_000_000_000 <= nanos.unsigned_abs() {
                    return Err("has nanoseconds of a second and more".to_owned());
                }
                Ok(Value::Int(seconds * 1_000 + nanos.div_euclid(1_000_000)))
            }
            (Self::Decimal, Value::Bytes(digits), Value::Int(scale)) => {
                let scale = usize::try_from(*scale).ok().filter(|scale| *scale <= MAX_DIGITS);
                match scale {
                    Some(scale) if digits.len() <= MAX_DIGITS => {
                        Ok(Value::Decimal(decimal_text(digits, scale)))
                    }
                    _ => Err(format!("is a decimal of more than {MAX_DIGITS} bytes or places")),
                }
            }
            _ => Err("has parts of other types than Google's file says".to_owned()),
        }
    }
}

#[derive(Debug, Default)]
struct Compiler {
    nodes: Vec<Node>,
    slots: usize,
    counters: usize,
    joined: Vec<Joined>,
}

impl Compiler {
    fn slot(&mut self) -> usize {
        self.slots += 1;
        self.slots - 1
    }

    fn counter(&mut self) -> usize {
        self.counters += 1;
        self.counters - 1
    }

    /// What is wanted of a message, all of it by a path.
    fn message(
        &mut self,
        of: &MessageDescriptor,
        wants: Vec<Want>,
        at: &str,
    ) -> Result<(usize, Below), String> {
        if MAX_NODES <= self.nodes.len() {
            return Err("has fields that are wanted in too many places".to_owned());
        }
        let place = self.nodes.len();
        self.nodes.push(Node::default());
        let (mut fields, mut absent, mut all) = (Vec::new(), Vec::new(), Below::default());
        let mut parts_below: HashMap<u32, Below> = HashMap::new();
        for (name, wants) in by_name(wants) {
            let Some(field) = field(of, &name) else { continue };
            let at = join(at, &name);
            absent.extend(default(&field, &wants));
            let (takes, below) = self.field(&field, wants, &at)?;
            all.add(&below);
            parts_below.insert(field.number(), below);
            let (number, at) = (field.number(), at.into_boxed_str());
            fields.push(Field { number, at, takes, oneof: None });
        }
        for oneof in of.oneofs() {
            let members: Vec<u32> = oneof.fields().map(|field| field.number()).collect();
            if !members.iter().any(|member| parts_below.contains_key(member)) {
                continue;
            }
            for field in oneof.fields().filter(|field| !parts_below.contains_key(&field.number())) {
                let at = join(at, plain(field.name())).into_boxed_str();
                let takes = Takes::One(One::Nothing);
                fields.push(Field { number: field.number(), at, takes, oneof: None });
            }
            let set = self.counter();
            all.counters.push(set);
            for field in fields.iter_mut().filter(|field| members.contains(&field.number)) {
                let others = members.iter().filter(|member| **member != field.number);
                let mut below = Below::default();
                others.filter_map(|member| parts_below.get(member)).for_each(|of| below.add(of));
                field.oneof = Some((set, below));
            }
        }
        fields.sort_by_key(|field| field.number);
        self.nodes[place] = Node { fields: fields.into(), absent: absent.into() };
        Ok((place, all))
    }

    fn field(
        &mut self,
        field: &FieldDescriptor,
        wants: Vec<Want>,
        at: &str,
    ) -> Result<(Takes, Below), String> {
        if field.is_map() {
            return self.map(&field.kind(), wants, at);
        }
        if !field.is_list() {
            let (one, below) = self.one(&field.kind(), field.is_group(), wants, at)?;
            return Ok((Takes::One(one), below));
        }
        let (mut elements, counter) = (Vec::new(), self.counter());
        let mut all = Below { slots: whole(&wants), counters: vec![counter] };
        for (name, wants) in by_name(wants) {
            // As of JSON: what is no number of an element is in no list.
            let place = name.parse().ok().filter(|place: &usize| place.to_string() == name);
            let Some(place) = place else { continue };
            let (one, below) =
                self.one(&field.kind(), field.is_group(), wants, &join(at, &name))?;
            all.add(&below);
            elements.push((place, one));
        }
        let packed = scalar(&field.kind());
        let packed = packed.filter(|kind| !matches!(kind, Scalar::Text | Scalar::Bytes));
        Ok((Takes::List { packed, counter, elements: elements.into() }, all))
    }

    fn map(&mut self, of: &Kind, wants: Vec<Want>, at: &str) -> Result<(Takes, Below), String> {
        let Some(of) = of.as_message() else { return Err(format!("field {at:?} is no map")) };
        let (key_kind, value) = (of.map_entry_key_field().kind(), of.map_entry_value_field());
        let Some(kind) = scalar(&key_kind) else {
            return Err(format!("field {at:?} is a map with keys of no kind"));
        };
        let mut all = Below { slots: whole(&wants), counters: Vec::new() };
        let mut entries = Vec::new();
        for (name, wants) in by_name(wants) {
            let Some(key) = key(&kind, &name) else { continue };
            let (one, below) = self.one(&value.kind(), false, wants, &join(at, &name))?;
            all.add(&below);
            let default = scalar(&value.kind()).map_or(Value::Map, |kind| kind.default());
            entries.push(Entry { key, value: one, default, below });
        }
        Ok((Takes::Map { key: kind, entries: entries.into() }, all))
    }

    fn one(
        &mut self,
        kind: &Kind,
        group: bool,
        wants: Vec<Want>,
        at: &str,
    ) -> Result<(One, Below), String> {
        if let Some(kind) = scalar(kind) {
            if let Some(name) = wants.iter().find_map(|want| want.path.first()) {
                return Err(format!("field {at:?} has no parts, so no field {name:?}"));
            }
            let slots = whole(&wants);
            let below = Below { slots: slots.clone(), counters: Vec::new() };
            return Ok((One::Scalar { kind, slots: slots.into() }, below));
        }
        let Kind::Message(of) = kind else { return Ok((One::Nothing, Below::default())) };
        let wants = self.known(of, wants, at);
        let (wholes, wants): (Vec<Want>, Vec<Want>) =
            wants.into_iter().partition(|want| want.path.is_empty());
        let slots = whole(&wholes);
        let (node, mut below) = self.message(of, wants, at)?;
        below.slots.extend(&slots);
        // What is put together is cleared with its parts, which are all below.
        Ok((One::Message { node, group, slots: slots.into() }, below))
    }

    /// Of a message that stands for a value, as Google's own do, what is wanted of its fields.
    fn known(&mut self, of: &MessageDescriptor, wants: Vec<Want>, at: &str) -> Vec<Want> {
        let name = of.full_name();
        let joined = match name {
            "google.protobuf.Timestamp" | "google.protobuf.Duration" => {
                Some((["seconds", "nanos"], Join::Milliseconds))
            }
            "confluent.type.Decimal" => Some((["value", "scale"], Join::Decimal)),
            _ => None,
        };
        let mut known = Vec::new();
        for Want { slot, path } in wants {
            let below = |first: &str| {
                let path = std::iter::once(first.to_owned()).chain(path.iter().cloned());
                Want { slot, path: path.collect() }
            };
            match (joined, name, path.first()) {
                (Some((names, how)), _, None) => {
                    let parts = [self.slot(), self.slot()];
                    self.joined.push(Joined { at: at.into(), slot, parts, how });
                    let part = |(name, slot)| Want { slot, ..below(name) };
                    known.extend(names.into_iter().zip(parts).map(part));
                }
                (_, "google.protobuf.Value", None) => {
                    known.extend(of.fields().map(|field| below(field.name())));
                }
                (_, "google.protobuf.Value", Some(first)) => {
                    known.push(below("struct_value"));
                    known.extend(first.parse::<usize>().is_ok().then(|| below("list_value")));
                }
                (_, "google.protobuf.Struct", Some(_)) => known.push(below("fields")),
                (_, "google.protobuf.ListValue", _) => known.push(below("values")),
                (_, name, None) if WRAPPERS.contains(&name) => known.push(below("value")),
                _ => known.push(Want { slot, path }),
            }
        }
        known
    }
}

/// Messages of one field, which say that a value may be absent.
pub(super) const WRAPPERS: [&str; 9] = [
    "google.protobuf.BoolValue",
    "google.protobuf.BytesValue",
    "google.protobuf.DoubleValue",
    "google.protobuf.FloatValue",
    "google.protobuf.Int32Value",
    "google.protobuf.Int64Value",
    "google.protobuf.StringValue",
    "google.protobuf.UInt32Value",
    "google.protobuf.UInt64Value",
];

impl Below {
    fn add(&mut self, other: &Self) {
        self.slots.extend(&other.slots);
        self.counters.extend(&other.counters);
    }
}

/// The slots of what is wanted as it is.
fn whole(wants: &[Want]) -> Vec<usize> {
    wants.iter().filter(|want| want.path.is_empty()).map(|want| want.slot).collect()
}

/// What is wanted below, by the first name of its path.
fn by_name(wants: Vec<Want>) -> Vec<(String, Vec<Want>)> {
    let mut found: Vec<(String, Vec<Want>)> = Vec::new();
    for Want { slot, path } in wants {
        let Some((first, rest)) = path.split_first() else { continue };
        let want = Want { slot, path: rest.to_vec() };
        match found.iter_mut().find(|(name, _)| name == first) {
            Some((_, wants)) => wants.push(want),
            None => found.push((first.clone(), vec![want])),
        }
    }
    found
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

/// What a field is in a message that is there and does not say.
fn default(field: &FieldDescriptor, wants: &[Want]) -> Vec<(usize, Value<'static>)> {
    let value = if field.is_list() {
        Value::List
    } else if field.is_map() {
        Value::Map
    } else {
        let declared = field.field_descriptor_proto().default_value.is_some();
        let missing =
            field.containing_oneof().is_some() || (field.supports_presence() && !declared);
        match scalar(&field.kind()) {
            Some(kind) if !missing => ours(&kind, field.default_value()),
            _ => return Vec::new(),
        }
    };
    whole(wants).into_iter().map(|slot| (slot, value.clone())).collect()
}

/// A value of a default.
fn ours(kind: &Scalar, value: Theirs) -> Value<'static> {
    match (kind, value) {
        (Scalar::Enum(names), Theirs::EnumNumber(number)) => {
            if let Value::Text(name) = named(names, number) {
                Value::Text(name.into_owned().into())
            } else {
                Value::Int(number.into())
            }
        }
        (_, Theirs::Bool(is)) => Value::Bool(is),
        (_, Theirs::I32(number)) => Value::Int(number.into()),
        (_, Theirs::I64(number)) => Value::Int(number.into()),
        (_, Theirs::U32(number)) => Value::Int(number.into()),
        (_, Theirs::U64(number)) => Value::Int(number.into()),
        (_, Theirs::F32(number)) => Value::Float(number.into()),
        (_, Theirs::F64(number)) => Value::Float(number),
        (_, Theirs::String(text)) => Value::Text(text.into()),
        (_, Theirs::Bytes(bytes)) => Value::Bytes(bytes.to_vec().into()),
        (kind, Theirs::EnumNumber(_) | Theirs::Message(_) | Theirs::List(_) | Theirs::Map(_)) => {
            kind.default()
        }
    }
}

/// How a value without parts lies on the wire.
fn scalar(kind: &Kind) -> Option<Scalar> {
    Some(match kind {
        Kind::Double => Scalar::Double,
        Kind::Float => Scalar::Float,
        Kind::Int32 => Scalar::Int32,
        Kind::Int64 => Scalar::Int64,
        Kind::Uint32 => Scalar::Uint32,
        Kind::Uint64 => Scalar::Uint64,
        Kind::Sint32 => Scalar::Sint32,
        Kind::Sint64 => Scalar::Sint64,
        Kind::Fixed32 => Scalar::Fixed32,
        Kind::Fixed64 => Scalar::Fixed64,
        Kind::Sfixed32 => Scalar::Sfixed32,
        Kind::Sfixed64 => Scalar::Sfixed64,
        Kind::Bool => Scalar::Bool,
        Kind::String => Scalar::Text,
        Kind::Bytes => Scalar::Bytes,
        Kind::Enum(of) if of.full_name() == "google.protobuf.NullValue" => Scalar::Null,
        Kind::Enum(of) => Scalar::Enum(names(of)),
        Kind::Message(_) => return None,
    })
}

fn names(of: &EnumDescriptor) -> Box<[(i32, Box<str>)]> {
    of.values().map(|value| (value.number(), value.name().into())).collect()
}

/// A key of a map by its text; `None` where it is none.
fn key(kind: &Scalar, text: &str) -> Option<Value<'static>> {
    if let Scalar::Text = kind {
        Some(Value::Text(text.to_owned().into()))
    } else if let Scalar::Bool = kind {
        text.parse().ok().map(Value::Bool)
    } else {
        text.parse().ok().map(Value::Int)
    }
}

//! Compiles a pair of schemas and the wanted fields into steps: Avro's resolution, done once.

use std::collections::{BTreeSet, HashSet};

use apache_avro::Schema;
use apache_avro::schema::{Name, RecordField, RecordSchema, UnionSchema, UuidSchema};

use super::default;
use super::steps::{Does, Entry, Step, Take};
use super::types::{Names, Types, bounded, follow, size};
use crate::field::Value;

/// A value that is wanted: where it goes, and its path from the place that is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want<'w> {
    pub(super) slot: usize,
    pub(super) path: &'w [String],
}

/// A pair of values in the two schemas, and the writer's path to it.
#[derive(Clone, Copy)]
struct Pair<'s, 'p> {
    at: &'p str,
    depth: usize,
    writer: &'s Schema,
    reader: &'s Schema,
}

/// What is found while a pair of schemas is walked through.
#[derive(Debug)]
pub(super) struct Compiler<'s> {
    pub(super) types: Types,
    pub(super) writer: Names<'s>,
    pub(super) reader: Names<'s>,
    /// Pairs of records that fit, or are being looked at: a schema may contain itself.
    fit: HashSet<(&'s Name, &'s Name)>,
}

impl<'s> Compiler<'s> {
    pub(super) fn new(writer: Names<'s>, reader: Names<'s>) -> Self {
        Self { types: Types::default(), writer, reader, fit: HashSet::new() }
    }

    /// The steps that read a datum.
    ///
    /// # Errors
    ///
    /// Which field cannot be resolved or taken, and why.
    pub(super) fn compile(
        &mut self,
        writer: &'s Schema,
        reader: &'s Schema,
        wants: &[Want<'_>],
    ) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        self.value(Pair { at: "", depth: 0, writer, reader }, wants, &mut steps)?;
        Ok(steps)
    }

    fn value(
        &mut self,
        pair: Pair<'s, '_>,
        wants: &[Want<'_>],
        steps: &mut Vec<Step>,
    ) -> Result<(), String> {
        bounded(pair.depth)?;
        let writer = follow(&self.writer, pair.writer)?;
        let reader = follow(&self.reader, pair.reader)?;
        let pair = Pair { writer, reader, ..pair };
        if wants.is_empty() {
            // Whether it can be resolved counts all the same.
            if !std::ptr::eq(writer, reader) {
                self.resolve(pair, wants, &mut Vec::new())?;
            }
            return self.pass(pair.at, writer, steps);
        }
        self.resolve(pair, wants, steps)
    }

    /// Passes over a value of the writer's.
    fn pass(&mut self, at: &str, writer: &Schema, steps: &mut Vec<Step>) -> Result<(), String> {
        let id = self.types.add(&self.writer, writer)?;
        let Some(size) = self.types.size(id) else {
            steps.push(Step { field: at.into(), does: Does::Skip(id) });
            return Ok(());
        };
        if let Some(Step { does: Does::Advance(before), .. }) = steps.last_mut()
            && let Some(sum) = before.checked_add(size)
        {
            *before = sum;
        } else if size != 0 {
            steps.push(Step { field: at.into(), does: Does::Advance(size) });
        }
        Ok(())
    }

    fn resolve(
        &mut self,
        pair: Pair<'s, '_>,
        wants: &[Want<'_>],
        steps: &mut Vec<Step>,
    ) -> Result<(), String> {
        if let Schema::Union(union) = pair.writer {
            return self.branches(pair, union, wants, steps);
        }
        if let Schema::Union(union) = pair.reader {
            return self.choose(pair, union, wants, steps);
        }
        match (pair.writer, pair.reader) {
            (Schema::Record(writer), Schema::Record(reader)) => {
                self.record(pair, writer, reader, wants, steps)
            }
            (Schema::Array(writer), Schema::Array(reader)) => {
                self.whole(pair, &writer.items, &reader.items, wants, steps, Take::List)
            }
            (Schema::Map(writer), Schema::Map(reader)) => {
                self.whole(pair, &writer.types, &reader.types, wants, steps, Take::Map)
            }
            (Schema::Null, Schema::Null) => {
                put(pair.at, &Value::Null, wants, steps);
                Ok(())
            }
            _ => self.leaf(pair, wants, steps),
        }
    }

    /// A union of the writer's: each of its branches by itself. One that cannot be resolved counts where it is met.
    fn branches(
        &mut self,
        pair: Pair<'s, '_>,
        union: &'s UnionSchema,
        wants: &[Want<'_>],
        steps: &mut Vec<Step>,
    ) -> Result<(), String> {
        let (mut branches, mut refused) = (Vec::new(), Vec::new());
        for writer in union.variants() {
            let mut own = Vec::new();
            let branch = Pair { writer, depth: pair.depth + 1, ..pair };
            if let Err(rule) = self.value(branch, wants, &mut own) {
                refused.push((matches!(writer, Schema::Null), rule.clone()));
                own = vec![Step { field: "".into(), does: Does::Refuse(rule.into()) }];
            }
            branches.push(own.into_boxed_slice());
        }
        if refused.len() == branches.len() {
            let none = || rule(pair.at, "is a union without a branch");
            // Of the branches that hold something the first, where there is one.
            let first = refused.into_iter().min_by_key(|(is_null, _)| *is_null);
            return Err(first.map_or_else(none, |(_, rule)| rule));
        }
        let does = Does::Union(branches.into_boxed_slice());
        steps.push(Step { field: pair.at.into(), does });
        Ok(())
    }

    /// A union of the reader's only: the branch of the writer's type and name, or else the first that fits.
    fn choose(
        &mut self,
        pair: Pair<'s, '_>,
        union: &'s UnionSchema,
        wants: &[Want<'_>],
        steps: &mut Vec<Step>,
    ) -> Result<(), String> {
        let mut ranked = Vec::new();
        for reader in union.variants() {
            ranked.push((distance(pair.writer, follow(&self.reader, reader)?), reader));
        }
        ranked.sort_by_key(|(distance, _)| *distance);
        let mut first = None;
        for (_, reader) in ranked {
            let mut own = Vec::new();
            let branch = Pair { reader, depth: pair.depth + 1, ..pair };
            match self.value(branch, wants, &mut own) {
                Ok(()) => {
                    steps.append(&mut own);
                    return Ok(());
                }
                Err(rule) => first = first.or(Some(rule)),
            }
        }
        Err(first.unwrap_or_else(|| rule(pair.at, "is a union without a branch")))
    }

    fn record(
        &mut self,
        pair: Pair<'s, '_>,
        writer: &'s RecordSchema,
        reader: &'s RecordSchema,
        wants: &[Want<'_>],
        steps: &mut Vec<Step>,
    ) -> Result<(), String> {
        let names = (&writer.name, &reader.name);
        if wants.is_empty() && !self.fit.insert(names) {
            return Ok(());
        }
        let fits = self.fields(pair, writer, reader, wants, steps);
        if fits.is_err() {
            self.fit.remove(&names);
        }
        fits
    }

    fn fields(
        &mut self,
        pair: Pair<'s, '_>,
        writer: &'s RecordSchema,
        reader: &'s RecordSchema,
        wants: &[Want<'_>],
        steps: &mut Vec<Step>,
    ) -> Result<(), String> {
        let (all, below): (Vec<Want<'_>>, Vec<Want<'_>>) =
            wants.iter().partition(|want| want.path.is_empty());
        put(pair.at, &Value::Map, &all, steps);
        let written: Vec<&str> = writer.fields.iter().map(|field| &*field.name).collect();
        let found = found(&written, reader);
        let depth = pair.depth + 1;
        for (place, field) in writer.fields.iter().enumerate() {
            let at = join(pair.at, &field.name);
            let named = found.iter().position(|found| *found == Some(place));
            let Some(to) = named.map(|named| &reader.fields[named]) else {
                self.pass(&at, &field.schema, steps)?;
                continue;
            };
            let pair = Pair { at: &at, depth, writer: &field.schema, reader: &to.schema };
            self.value(pair, &within(&below, &to.name), steps)?;
        }
        for (field, _) in reader.fields.iter().zip(&found).filter(|(_, found)| found.is_none()) {
            self.absent(&join(pair.at, &field.name), field, &within(&below, &field.name), steps)?;
        }
        Ok(())
    }

    /// A field that only the reader's schema has.
    fn absent(
        &self,
        at: &str,
        field: &RecordField,
        wants: &[Want<'_>],
        steps: &mut Vec<Step>,
    ) -> Result<(), String> {
        let Some(written) = &field.default else {
            let why = "is not in the writer's schema, and the reader's has no default for it";
            return Err(rule(at, why));
        };
        for want in wants {
            let value = default::value(&self.reader, &field.schema, written, want.path);
            if let Some(value) = value.map_err(|why| rule(at, &why))? {
                steps.push(Step { field: at.into(), does: Does::Put(want.slot, value) });
            }
        }
        Ok(())
    }

    /// An array or a map.
    fn whole(
        &mut self,
        pair: Pair<'s, '_>,
        writer: &'s Schema,
        reader: &'s Schema,
        wants: &[Want<'_>],
        steps: &mut Vec<Step>,
        take: impl Fn(super::types::Id) -> Take,
    ) -> Result<(), String> {
        let items = Pair { writer, reader, depth: pair.depth + 1, ..pair };
        self.value(items, &[], &mut Vec::new())?;
        let id = self.types.add(&self.writer, pair.writer)?;
        let (whole, below): (Vec<Want<'_>>, Vec<Want<'_>>) =
            wants.iter().partition(|want| want.path.is_empty());
        if below.is_empty() {
            steps.extend(
                whole.iter().map(|want| Step {
                    field: pair.at.into(),
                    does: Does::Take(want.slot, take(id)),
                }),
            );
            return Ok(());
        }
        // What is looked into is there as a whole, too.
        let value = if let Schema::Array(_) = pair.writer { Value::List } else { Value::Map };
        put(pair.at, &value, &whole, steps);
        let does = self.parts(items, &below, value == Value::List)?;
        steps.push(Step { field: pair.at.into(), does });
        Ok(())
    }

    /// Elements of an array by their numbers, or values of a map by their keys.
    fn parts(
        &mut self,
        items: Pair<'s, '_>,
        wants: &[Want<'_>],
        array: bool,
    ) -> Result<Does, String> {
        let id = self.types.add(&self.writer, items.writer)?;
        let names: BTreeSet<&String> = wants.iter().filter_map(|want| want.path.first()).collect();
        let (mut elements, mut entries) = (Vec::new(), Vec::new());
        for name in names {
            let mut own = Vec::new();
            let at = join(items.at, name);
            let inside = within(wants, name);
            let element = Pair { at: &at, ..items };
            // As of JSON: what is no number of an element is in no array.
            let place = name.parse().ok().filter(|place: &u64| place.to_string() == *name);
            if array && place.is_none() {
                continue;
            }
            self.value(element, &inside, &mut own)?;
            let steps = own.into_boxed_slice();
            if let Some(place) = place.filter(|_| array) {
                elements.push((place, steps));
            } else {
                let slots = inside.iter().map(|want| want.slot).collect();
                entries.push(Entry { key: name.clone(), steps, slots });
            }
        }
        elements.sort_by_key(|(place, _)| *place);
        Ok(if array {
            Does::Elements(elements.into(), id)
        } else {
            Does::Entries(entries.into(), id)
        })
    }

    /// A value without parts.
    fn leaf(
        &mut self,
        pair: Pair<'s, '_>,
        wants: &[Want<'_>],
        steps: &mut Vec<Step>,
    ) -> Result<(), String> {
        let take = taken(pair.writer, pair.reader).map_err(|why| rule(pair.at, &why))?;
        if let Some(want) = wants.first() {
            no_field_in(pair, want)?;
            if let Schema::Duration(_) = pair.reader {
                let why = "is an Avro duration (months, days and milliseconds), which is no number: \
                           write a number of one unit";
                return Err(rule(pair.at, why));
            }
            // Its scale is checked.
            self.types.add(&self.writer, pair.writer)?;
            steps.push(Step { field: pair.at.into(), does: Does::Take(want.slot, take) });
        }
        Ok(())
    }
}

/// Which of the writer's fields each of the reader's is: by its name, or else by one of its aliases.
pub(super) fn found(writer: &[&str], reader: &RecordSchema) -> Vec<Option<usize>> {
    let place = |name: &String| writer.iter().position(|field| field == name);
    let by_name: Vec<Option<usize>> =
        reader.fields.iter().map(|field| place(&field.name)).collect();
    let with_aliases = reader.fields.iter().zip(&by_name).map(|(field, named)| {
        let free = |place: &usize| !by_name.contains(&Some(*place));
        named.or_else(|| field.aliases.iter().filter_map(place).find(free))
    });
    with_aliases.collect()
}

fn put(at: &str, value: &Value<'static>, wants: &[Want<'_>], steps: &mut Vec<Step>) {
    for want in wants {
        let does = Does::Put(want.slot, value.clone());
        steps.push(Step { field: at.into(), does });
    }
}

fn within<'w>(wants: &[Want<'w>], name: &str) -> Vec<Want<'w>> {
    let below = wants.iter().filter_map(|want| {
        let (first, path) = want.path.split_first()?;
        (first == name).then_some(Want { slot: want.slot, path })
    });
    below.collect()
}

fn no_field_in(pair: Pair<'_, '_>, want: &Want<'_>) -> Result<(), String> {
    match want.path.first() {
        None => Ok(()),
        Some(name) => {
            let kind = kind(pair.writer);
            Err(rule(pair.at, &format!("is {kind}, which has no field {name:?}")))
        }
    }
}

/// A rule that a field breaks; an empty path is the whole datum's.
fn rule(at: &str, why: &str) -> String {
    if at.is_empty() { why.to_owned() } else { format!("field {at:?} {why}") }
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

/// How far a branch of the reader's is from the writer's type: 0 the same, 1 by its name without the namespace, 2
/// by its type, 3 otherwise.
fn distance(writer: &Schema, reader: &Schema) -> u8 {
    if kind(writer) != kind(reader) {
        return 3;
    }
    match (writer.name(), reader.name()) {
        (Some(name), Some(other)) => {
            let aliases = reader.aliases().map(Vec::as_slice).unwrap_or_default();
            let full = name.fullname(None);
            let alias =
                |alias: &apache_avro::schema::Alias| alias.fullname(other.namespace()) == full;
            if name == other || aliases.iter().any(alias) {
                0
            } else if name.name() == other.name() {
                1
            } else {
                2
            }
        }
        _ => 0,
    }
}

/// What a type is, with its article, without its logical type.
pub(super) fn kind(schema: &Schema) -> &'static str {
    match schema {
        Schema::Null => "null",
        Schema::Boolean => "a boolean",
        Schema::Int | Schema::Date | Schema::TimeMillis => "an int",
        Schema::Long
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampMicros
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos => "a long",
        Schema::Float => "a float",
        Schema::Double => "a double",
        Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => "bytes",
        Schema::Decimal(decimal) if size(decimal).is_none() => "bytes",
        Schema::String | Schema::Uuid(UuidSchema::String) => "a string",
        Schema::Fixed(_)
        | Schema::Decimal(_)
        | Schema::Uuid(UuidSchema::Fixed(_))
        | Schema::Duration(_) => "a fixed",
        Schema::Array(_) => "an array",
        Schema::Map(_) => "a map",
        Schema::Union(_) => "a union",
        Schema::Record(_) => "a record",
        Schema::Enum(_) => "an enum",
        Schema::Ref { .. } => "a reference",
    }
}

/// How many bytes a fixed has.
fn fixed_size(schema: &Schema) -> Option<usize> {
    if let Schema::Decimal(decimal) = schema {
        return size(decimal);
    }
    if let Schema::Fixed(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) | Schema::Duration(fixed) =
        schema
    {
        return Some(fixed.size);
    }
    None
}

/// How a value without parts is read; otherwise why it cannot be.
fn taken(writer: &Schema, reader: &Schema) -> Result<Take, String> {
    if let (Schema::Decimal(writer), Schema::Decimal(reader)) = (writer, reader)
        && writer.scale != reader.scale
    {
        return Err(format!(
            "is a decimal of scale {} in the writer's schema and of scale {} in the reader's",
            writer.scale, reader.scale
        ));
    }
    let int = kind(writer) == "an int";
    Ok(match (kind(writer), kind(reader)) {
        ("a boolean", "a boolean") => Take::Boolean,
        ("an int", "an int" | "a long") => Take::Int,
        ("a long", "a long") => Take::Long,
        ("an int" | "a long", "a float") => Take::WholeAsFloat { int },
        ("an int" | "a long", "a double") => Take::WholeAsDouble { int },
        ("a float", "a float" | "a double") => Take::Float,
        ("a double", "a double") => Take::Double,
        ("a string" | "bytes", "a string") => Take::Text,
        ("a string" | "bytes", "bytes") => bytes(reader, None, Take::Bytes),
        ("a fixed", "a fixed") => {
            let (from, to) = (fixed_size(writer), fixed_size(reader));
            let size = from.unwrap_or_default();
            if from != to {
                let to = to.unwrap_or_default();
                return Err(format!(
                    "is a fixed of {size} bytes in the writer's schema and of {to} in the reader's"
                ));
            }
            bytes(reader, Some(size), Take::Fixed(size))
        }
        ("an enum", "an enum") => symbols(writer, reader),
        (writer, reader) => {
            return Err(format!("is {writer} in the writer's schema and {reader} in the reader's"));
        }
    })
}

/// How bytes are read, of a fixed of `size` or not; `plain` without a logical type.
fn bytes(reader: &Schema, size: Option<usize>, plain: Take) -> Take {
    if let Schema::Decimal(decimal) = reader {
        return Take::Decimal { scale: decimal.scale, size };
    }
    if let Schema::BigDecimal = reader {
        return Take::BigDecimal;
    }
    if matches!(reader, Schema::Uuid(_)) && size.is_none_or(|size| size == 16) {
        return Take::Uuid { fixed: size.is_some() };
    }
    plain
}

fn symbols(writer: &Schema, reader: &Schema) -> Take {
    let (Schema::Enum(writer), Schema::Enum(reader)) = (writer, reader) else {
        return Take::Enum(Box::default());
    };
    let known = writer.symbols.iter().map(|symbol| {
        if reader.symbols.contains(symbol) { Some(symbol.clone()) } else { reader.default.clone() }
    });
    Take::Enum(known.collect())
}

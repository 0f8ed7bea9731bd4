//! A writer's types, as they lie in a datum: enough to pass over any of them.

use std::collections::{HashMap, HashSet};

use apache_avro::Schema;
use apache_avro::schema::{
    DecimalSchema, EnumSchema, InnerDecimalSchema, Name, RecordSchema, UuidSchema,
};

use super::datum::{Datum, Read, Wrong};

/// Deepest nesting of a datum.
pub(super) const MAX_DEPTH: usize = 128;

/// Deepest nesting of a schema, by its references too.
const MAX_SCHEMA_DEPTH: usize = 256;

/// A type's place among [`Types`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id(usize);

/// How a value lies in a datum.
#[derive(Debug)]
pub(super) enum Type {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    /// Of a fixed of that many bytes, or of bytes.
    Decimal {
        scale: usize,
        size: Option<usize>,
    },
    BigDecimal,
    /// 16 bytes; bytes with a length of their own where not `fixed`.
    Uuid {
        fixed: bool,
    },
    Duration,
    Enum(Box<[String]>),
    Array(Id),
    Map(Id),
    Union(Box<[Id]>),
    Record(Box<[(String, Id)]>),
}

/// A type, and how many bytes each value of it takes where that is known and nothing in them can be wrong.
#[derive(Debug)]
struct Sized {
    is: Type,
    size: Option<usize>,
}

/// Named schemas by their full names.
pub(super) type Names<'s> = HashMap<&'s Name, &'s Schema>;

/// Every named schema within `schema`.
///
/// # Errors
///
/// Where it is nested too deep.
pub(super) fn names(schema: &Schema) -> Result<Names<'_>, String> {
    let mut found = Names::new();
    let mut open = vec![(schema, 0)];
    while let Some((schema, depth)) = open.pop() {
        bounded(depth)?;
        if let Some(name) = schema.name().filter(|_| !matches!(schema, Schema::Ref { .. })) {
            found.entry(name).or_insert(schema);
        }
        let mut push = |inner| open.push((inner, depth + 1));
        if let Schema::Record(record) = schema {
            record.fields.iter().map(|field| &field.schema).for_each(push);
        } else if let Schema::Union(union) = schema {
            union.variants().iter().for_each(push);
        } else if let Schema::Array(array) = schema {
            push(&array.items);
        } else if let Schema::Map(map) = schema {
            push(&map.types);
        }
    }
    Ok(found)
}

/// What a reference stands for.
pub(super) fn follow<'s>(names: &Names<'s>, schema: &'s Schema) -> Result<&'s Schema, String> {
    let Schema::Ref { name } = schema else { return Ok(schema) };
    names
        .get(name)
        .copied()
        .ok_or_else(|| format!("its schema refers to {name}, which it does not define"))
}

/// Whether a schema may be nested so deep.
pub(super) fn bounded(depth: usize) -> Result<(), String> {
    if depth < MAX_SCHEMA_DEPTH {
        Ok(())
    } else {
        Err(format!("its schema is nested deeper than {MAX_SCHEMA_DEPTH} levels"))
    }
}

/// All types of a writer's schema.
#[derive(Debug, Default)]
pub(super) struct Types {
    all: Vec<Sized>,
    named: HashMap<Name, Id>,
    /// Of records the fields that only the reader's schema has, with what it has for them as JSON.
    absent: HashMap<Id, Vec<(String, String)>>,
}

impl Types {
    /// Adds a schema and what it consists of.
    pub(super) fn add(&mut self, names: &Names<'_>, schema: &Schema) -> Result<Id, String> {
        self.add_at(names, schema, 0)
    }

    fn add_at(&mut self, names: &Names<'_>, schema: &Schema, depth: usize) -> Result<Id, String> {
        bounded(depth)?;
        let schema = follow(names, schema)?;
        if let Some(id) = schema.name().and_then(|name| self.named.get(name)) {
            return Ok(*id);
        }
        // A named type may contain itself: its place is taken before its parts are looked at.
        let id = Id(self.all.len());
        self.all.push(Sized { is: Type::Null, size: None });
        if let Some(name) = schema.name() {
            self.named.insert(name.clone(), id);
        }
        let is = self.of(names, schema, depth + 1)?;
        let size = self.size_of(&is);
        self.all[id.0] = Sized { is, size };
        Ok(id)
    }

    fn of(&mut self, names: &Names<'_>, schema: &Schema, depth: usize) -> Result<Type, String> {
        Ok(match schema {
            Schema::Null => Type::Null,
            Schema::Boolean => Type::Boolean,
            Schema::Int | Schema::Date | Schema::TimeMillis => Type::Int,
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => Type::Long,
            Schema::Float => Type::Float,
            Schema::Double => Type::Double,
            Schema::Bytes => Type::Bytes,
            Schema::String | Schema::Uuid(UuidSchema::String) => Type::Text,
            Schema::Decimal(decimal) if super::decimal::MAX_SCALE < decimal.scale => {
                let most = super::decimal::MAX_SCALE;
                return Err(format!(
                    "its schema has a decimal of scale {}, more than {most}",
                    decimal.scale
                ));
            }
            Schema::Decimal(decimal) => Type::Decimal { scale: decimal.scale, size: size(decimal) },
            Schema::BigDecimal => Type::BigDecimal,
            Schema::Uuid(UuidSchema::Bytes) => Type::Uuid { fixed: false },
            Schema::Uuid(UuidSchema::Fixed(fixed)) if fixed.size == 16 => {
                Type::Uuid { fixed: true }
            }
            Schema::Duration(fixed) if fixed.size == 12 => Type::Duration,
            Schema::Fixed(fixed)
            | Schema::Uuid(UuidSchema::Fixed(fixed))
            | Schema::Duration(fixed) => Type::Fixed(fixed.size),
            Schema::Enum(of) => Type::Enum(of.symbols.clone().into_boxed_slice()),
            Schema::Array(array) => Type::Array(self.add_at(names, &array.items, depth)?),
            Schema::Map(map) => Type::Map(self.add_at(names, &map.types, depth)?),
            Schema::Union(union) => {
                let branches =
                    union.variants().iter().map(|branch| self.add_at(names, branch, depth));
                Type::Union(branches.collect::<Result<_, _>>()?)
            }
            Schema::Record(record) => {
                let fields = record.fields.iter();
                let fields = fields.map(|field| {
                    Ok((field.name.clone(), self.add_at(names, &field.schema, depth)?))
                });
                Type::Record(fields.collect::<Result<_, String>>()?)
            }
            // `add` has followed it.
            Schema::Ref { name } => return Err(format!("its schema defines {name} by itself")),
        })
    }

    fn size_of(&self, is: &Type) -> Option<usize> {
        match is {
            Type::Null => Some(0),
            Type::Float => Some(4),
            Type::Double => Some(8),
            Type::Fixed(size) => Some(*size),
            Type::Uuid { fixed: true } => Some(16),
            Type::Duration => Some(12),
            Type::Record(fields) => fields
                .iter()
                .try_fold(0_usize, |sum, (_, id)| sum.checked_add(self.all[id.0].size?)),
            Type::Boolean
            | Type::Int
            | Type::Long
            | Type::Bytes
            | Type::Text
            | Type::Decimal { .. }
            | Type::BigDecimal
            | Type::Uuid { fixed: false }
            | Type::Enum(_)
            | Type::Array(_)
            | Type::Map(_)
            | Type::Union(_) => None,
        }
    }

    pub(super) fn is(&self, id: Id) -> &Type {
        &self.all[id.0].is
    }

    /// Calls fields as `reader` does, and notes what it has for those that are not there. What only the writer has keeps its
    /// name.
    pub(super) fn see_as(&mut self, names: &Names<'_>, id: Id, reader: &Schema) {
        self.see(names, id, reader, &mut HashSet::new());
    }

    fn see(&mut self, names: &Names<'_>, id: Id, reader: &Schema, seen: &mut HashSet<Id>) {
        let Ok(reader) = follow(names, reader) else { return };
        let parts: Vec<Id> = match (&self.all[id.0].is, reader) {
            (Type::Union(branches), _) => branches.to_vec(),
            (_, Schema::Union(union)) => {
                let branches = || union.variants().iter().filter_map(|of| follow(names, of).ok());
                let alike = branches().find(|branch| self.is_alike(id, branch));
                let promoted = || branches().find(|branch| self.promoted(id, branch).is_some());
                if let Some(branch) = alike.or_else(promoted) {
                    self.see(names, id, branch, seen);
                }
                return;
            }
            (Type::Enum(_), Schema::Enum(of)) => {
                // What the reader has for the symbols that it does not know.
                let Some(default) = &of.default else { return };
                if let Type::Enum(symbols) = &mut self.all[id.0].is {
                    let unknown = symbols.iter_mut().filter(|symbol| !of.symbols.contains(symbol));
                    unknown.for_each(|symbol| symbol.clone_from(default));
                }
                return;
            }
            (Type::Bytes | Type::Text, _) => {
                if let Some(promoted) = self.promoted(id, reader) {
                    self.all[id.0].is = promoted;
                }
                return;
            }
            (Type::Array(item), Schema::Array(_)) => vec![*item],
            (Type::Map(value), Schema::Map(_)) => vec![*value],
            (Type::Record(fields), Schema::Record(_)) => fields.iter().map(|(_, id)| *id).collect(),
            _ => return,
        };
        if !seen.insert(id) {
            return;
        }
        let part = match (&self.all[id.0].is, reader) {
            (Type::Record(_), Schema::Record(record)) => {
                let found = self.rename(names, id, record);
                for (field, place) in record.fields.iter().zip(found) {
                    if let Some(part) = place.and_then(|place| parts.get(place)) {
                        self.see(names, *part, &field.schema, seen);
                    }
                }
                return;
            }
            (Type::Array(_), Schema::Array(array)) => &*array.items,
            (Type::Map(_), Schema::Map(map)) => &*map.types,
            _ => reader,
        };
        parts.iter().for_each(|id| self.see(names, *id, part, seen));
    }

    /// Calls a record's fields as `reader` does; where each of the reader's is.
    fn rename(&mut self, names: &Names<'_>, id: Id, reader: &RecordSchema) -> Vec<Option<usize>> {
        let Type::Record(fields) = &mut self.all[id.0].is else { return Vec::new() };
        let written: Vec<&str> = fields.iter().map(|(name, _)| &**name).collect();
        let found = super::resolve::found(&written, reader);
        let mut absent = Vec::new();
        for (field, place) in reader.fields.iter().zip(&found) {
            match (place, &field.default) {
                (Some(place), _) => fields[*place].0.clone_from(&field.name),
                (None, Some(default)) => {
                    let text = super::default::text(names, &field.schema, default);
                    absent.push((field.name.clone(), text));
                }
                (None, None) => (),
            }
        }
        self.absent.insert(id, absent);
        found
    }

    /// What bytes are where the reader has a text, and a text where it has bytes: each may be read as the other.
    fn promoted(&self, id: Id, reader: &Schema) -> Option<Type> {
        match (&self.all[id.0].is, reader) {
            (Type::Bytes, Schema::String) => Some(Type::Text),
            (Type::Text, Schema::Bytes) => Some(Type::Bytes),
            _ => None,
        }
    }

    /// Whether a branch of the reader's union is what a type is seen as: of records that of the same name, or the only one.
    fn is_alike(&self, id: Id, branch: &Schema) -> bool {
        match (&self.all[id.0].is, branch) {
            (Type::Array(_), Schema::Array(_))
            | (Type::Map(_), Schema::Map(_))
            | (Type::Bytes, Schema::Bytes)
            | (Type::Text, Schema::String) => true,
            (Type::Record(_), Schema::Record(RecordSchema { name, .. }))
            | (Type::Enum(_), Schema::Enum(EnumSchema { name, .. })) => {
                self.named.get(name).is_none_or(|known| *known == id)
            }
            _ => false,
        }
    }

    /// The fields of a record that only the reader's schema has, with their defaults as JSON.
    pub(super) fn absent(&self, id: Id) -> &[(String, String)] {
        self.absent.get(&id).map_or(&[], Vec::as_slice)
    }

    /// How many bytes each value takes, where that is known and nothing in them can be wrong.
    pub(super) fn size(&self, id: Id) -> Option<usize> {
        self.all[id.0].size
    }

    /// Passes over so many values, as [`skip`](Self::skip) does.
    pub(super) fn skip_some(&self, id: Id, count: u64, datum: &mut Datum<'_>) -> Read<()> {
        self.skip_at(id, count, datum, 0)
    }

    fn skip_at(&self, id: Id, count: u64, datum: &mut Datum<'_>, depth: usize) -> Read<()> {
        match self.size(id) {
            Some(size) => {
                let all = usize::try_from(count).ok().and_then(|count| count.checked_mul(size));
                datum.take(all.unwrap_or(usize::MAX), "the items of an array").map(drop)
            }
            None => (0..count).try_for_each(|_| self.skip(id, datum, depth)),
        }
    }

    /// Passes over a value, with every check of one that is read. Work is bounded by the datum's bytes: what is not of
    /// a known size takes at least one.
    pub(super) fn skip(&self, id: Id, datum: &mut Datum<'_>, depth: usize) -> Read<()> {
        let Sized { is, size } = &self.all[id.0];
        if let Some(size) = size {
            return datum.take(*size, "its values").map(drop);
        }
        let depth = deeper(depth)?;
        match is {
            Type::Null => Ok(()),
            Type::Boolean => datum.boolean().map(drop),
            Type::Int => datum.int("an int").map(drop),
            Type::Long => datum.long("a long").map(drop),
            Type::Float => datum.float().map(drop),
            Type::Double => datum.double().map(drop),
            Type::Bytes => datum.bytes().map(drop),
            Type::Text => datum.text().map(drop),
            Type::Fixed(size) => datum.take(*size, "a fixed").map(drop),
            Type::Decimal { size, .. } => datum.decimal(*size).map(drop),
            Type::BigDecimal => super::decimal::big(datum).map(drop),
            Type::Uuid { fixed } => super::decimal::uuid(datum, *fixed).map(drop),
            Type::Duration => datum.take(12, "a duration").map(drop),
            Type::Enum(symbols) => datum.choice(symbols.len(), "an enum", "symbol").map(drop),
            Type::Array(item) => {
                datum.blocks("an array", |datum, count| self.skip_at(*item, count, datum, depth))
            }
            Type::Map(value) => datum.blocks("a map", |datum, count| {
                (0..count).try_for_each(|_| {
                    datum.text()?;
                    self.skip(*value, datum, depth)
                })
            }),
            Type::Union(branches) => {
                let branch = datum.choice(branches.len(), "a union", "branch")?;
                self.skip(branches[branch], datum, depth)
            }
            Type::Record(fields) => fields.iter().try_for_each(|(name, id)| {
                self.skip(*id, datum, depth).map_err(|wrong| wrong.within(name))
            }),
        }
    }
}

/// One level deeper, up to [`MAX_DEPTH`].
pub(super) fn deeper(depth: usize) -> Read<usize> {
    if depth < MAX_DEPTH {
        Ok(depth + 1)
    } else {
        Err(Wrong::new(format!("is nested deeper than {MAX_DEPTH} levels")))
    }
}

/// How many bytes a decimal has, where its schema says it.
pub(super) fn size(decimal: &DecimalSchema) -> Option<usize> {
    match &decimal.inner {
        InnerDecimalSchema::Bytes => None,
        InnerDecimalSchema::Fixed(fixed) => Some(fixed.size),
    }
}

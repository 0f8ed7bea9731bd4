//! Avro: a datum's wanted fields, by a plan that is compiled once for a pair of schemas. Pure.
//!
//! ```text
//!  writer's schema ─┐
//!  reader's schema ─┼─► Plan ─► read: each wanted field to its place, text and bytes borrowed from the datum
//!  wanted fields ───┘        └► json: the datum as text, for what goes along with a prediction
//! ```
//!
//! `apache_avro` parses schemas; tests compare with it. Its decoder would build a tree of owned values for each record.
//!
//! # Invariants
//!
//! 1. A datum is read to its end and not beyond: no strict prefix of one is another, and bytes behind it are an error.
//! 2. Whether a datum is good depends on its schema, not on which fields are wanted; with a reader's schema, a wanted
//!    field may have a value that cannot be resolved.
//! 3. Work and memory are bounded by the datum's bytes, whatever lengths and counts it claims.

use std::collections::HashMap;
use std::panic::catch_unwind;

use apache_avro::Schema;

use crate::field::Value;
use datum::{Datum, Read};
use resolve::{Compiler, Want};
use steps::Step;
use types::{Id, Types};

mod datum;
mod decimal;
mod default;
mod encoder;
mod json;
mod resolve;
mod steps;
#[cfg(test)]
mod tests;
mod types;
mod written;

pub(crate) use decimal::text as decimal_text;
pub use encoder::{Along, DeadLetter, Encoder, Kind};
pub use written::parse_written;

/// A schema that is parsed.
pub use apache_avro::Schema as AvroSchema;

/// Parses a schema, with the schemas that it refers to by name.
///
/// # Errors
///
/// What is wrong with it, for a message that begins with the schema.
pub fn parse(schema: &str, references: &[String]) -> Result<Schema, String> {
    written::take_any_name();
    // Of some strange schemas the parser panics.
    let parsed = catch_unwind(|| {
        if references.is_empty() {
            return Schema::parse_str(schema);
        }
        let (mut schema, references) = Schema::parse_str_with_list(schema, references)?;
        schema.denormalize(&references)?;
        Ok(schema)
    });
    match parsed {
        Ok(Ok(schema)) => Ok(schema),
        Ok(Err(error)) => Err(format!("is not a valid Avro schema: {error}")),
        Err(_panic) => Err("is not a valid Avro schema".to_owned()),
    }
}

/// Whether a datum of `schema` may have something at a path.
pub fn has(schema: &Schema, path: &[String]) -> bool {
    types::names(schema).is_ok_and(|names| within(&names, schema, path))
}

fn within(names: &types::Names<'_>, schema: &Schema, path: &[String]) -> bool {
    let (Some((first, rest)), Ok(schema)) = (path.split_first(), types::follow(names, schema))
    else {
        return path.is_empty();
    };
    if let Schema::Record(record) = schema {
        let field = record.fields.iter().find(|field| field.name == *first);
        field.is_some_and(|field| within(names, &field.schema, rest))
    } else if let Schema::Array(array) = schema {
        within(names, &array.items, rest)
    } else if let Schema::Map(map) = schema {
        within(names, &map.types, rest)
    } else if let Schema::Union(union) = schema {
        union.variants().iter().any(|branch| within(names, branch, path))
    } else {
        false
    }
}

/// How the wanted fields are read from a datum.
#[derive(Debug)]
pub struct Plan {
    types: Types,
    root: Id,
    steps: Box<[Step]>,
    slots: usize,
    /// Slots that not every datum has a value for.
    unsure: Box<[usize]>,
    /// Slots whose path stands twice among those wanted: from the first to the others.
    again: Box<[(usize, usize)]>,
    unknown: Option<String>,
}

impl Plan {
    /// A plan for data of `writer`, seen as `reader` where there is one. A wanted field is a path from the record on; an
    /// empty path is the whole datum.
    ///
    /// # Errors
    ///
    /// Where the schemas cannot be resolved, or a wanted field is of a type that nobody can take, in words for a message
    /// that begins with the schema or with the record.
    pub fn new(
        writer: &Schema,
        reader: Option<&Schema>,
        wanted: &[Vec<String>],
    ) -> Result<Self, String> {
        let seen = reader.unwrap_or(writer);
        let mut compiler = Compiler::new(types::names(writer)?, types::names(seen)?);
        let first = |path: &Vec<String>| wanted.iter().position(|other| other == path);
        let places = wanted.iter().enumerate();
        let places = places.map(|(slot, path)| (first(path).unwrap_or(slot), slot));
        let (own, again): (Vec<_>, Vec<_>) = places.partition(|(first, slot)| first == slot);
        let wants: Vec<Want<'_>> =
            own.iter().map(|(slot, _)| Want { slot: *slot, path: &wanted[*slot] }).collect();
        let steps = compiler.compile(writer, seen, &wants)?;
        let root = compiler.types.add(&compiler.writer, writer)?;
        if reader.is_some() {
            compiler.types.see_as(&compiler.reader, root, seen);
        }
        let written = steps::written(&steps);
        let mut plan = Self {
            unsure: (0..wanted.len()).filter(|slot| !written.contains(slot)).collect(),
            types: compiler.types,
            root,
            steps: steps.into_boxed_slice(),
            slots: wanted.len(),
            again: again.into_boxed_slice(),
            unknown: None,
        };
        plan.look_at_fields(writer, seen, wanted);
        Ok(plan)
    }

    /// The first of the writer's fields that nobody wants, by the reader's names for them.
    fn look_at_fields(&mut self, writer: &Schema, reader: &Schema, wanted: &[Vec<String>]) {
        let all = wanted.iter().any(Vec::is_empty);
        for writer in branches(writer) {
            let Schema::Record(writer) = writer else { continue };
            let written: Vec<&str> = writer.fields.iter().map(|field| &*field.name).collect();
            let mut called = HashMap::new();
            for reader in branches(reader) {
                let Schema::Record(reader) = reader else { continue };
                let found = resolve::found(&written, reader);
                for (field, place) in reader.fields.iter().zip(found) {
                    if let Some(place) = place {
                        called.entry(written[place]).or_insert(&*field.name);
                    }
                }
            }
            let known = |name: &str| {
                let name = called.get(name).copied().unwrap_or(name);
                all || wanted.iter().any(|path| path.first().is_some_and(|first| first == name))
            };
            let unknown = written.iter().find(|name| !known(name));
            self.unknown = self.unknown.take().or_else(|| unknown.map(|name| (*name).to_owned()));
        }
    }

    /// The writer's first field that is not wanted.
    pub fn unknown(&self) -> Option<&str> {
        self.unknown.as_deref()
    }

    /// Reads a datum: each wanted field's value to its place in `out`, in the order in which they are wanted; `None`
    /// where neither the datum nor a default has it. After an error `out` has nothing.
    ///
    /// # Errors
    ///
    /// Which field breaks which rule, never with its value, in words for a message that begins with the record.
    pub fn read<'a>(
        &'a self,
        datum: &'a [u8],
        out: &mut [Option<Value<'a>>],
    ) -> Result<(), String> {
        let Some(out) = out.get_mut(..self.slots) else {
            return Err(format!("has {} wanted fields, more than there are places", self.slots));
        };
        for slot in &self.unsure {
            out[*slot] = None;
        }
        let mut datum = Datum::new(datum);
        let done = steps::run(&self.steps, &self.types, &mut datum, out).and_then(|()| datum.end());
        if let Err(wrong) = done {
            out.fill_with(|| None);
            return Err(wrong.to_string());
        }
        for (from, to) in &self.again {
            let value = out[*from].clone();
            out[*to] = value;
        }
        Ok(())
    }

    /// How many fields are wanted: the length of `out`.
    pub fn wanted(&self) -> usize {
        self.slots
    }

    /// Writes a datum as JSON text: as it was written, by the reader's names for its fields, and behind them those that only
    /// the reader has a default for; of the record itself only the fields `names`, where some are given. A null and what is
    /// no record are written whole.
    ///
    /// Whole numbers and decimals keep all digits, bytes and fixed become base64, dates and times stay whole numbers of
    /// their unit, a union's value stands by itself. A NaN or an infinity becomes null.
    ///
    /// # Errors
    ///
    /// As of [`read`](Self::read), and where the text would be longer than 64 MiB; `out` is as before, then.
    pub fn json(
        &self,
        datum: &[u8],
        names: Option<&[String]>,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let start = out.len();
        let written = self.write_json(datum, names, out);
        written.map_err(|wrong| {
            out.truncate(start);
            wrong.to_string()
        })
    }

    fn write_json(&self, datum: &[u8], names: Option<&[String]>, out: &mut Vec<u8>) -> Read<()> {
        let most = out.len().saturating_add(json::most(datum.len()));
        let mut datum = Datum::new(datum);
        let mut writer = json::Writer { types: &self.types, out, most };
        writer.value(self.root, &mut datum, names, 0)?;
        datum.end()
    }
}

/// A schema's branches, or itself.
fn branches(schema: &Schema) -> &[Schema] {
    if let Schema::Union(union) = schema { union.variants() } else { std::slice::from_ref(schema) }
}

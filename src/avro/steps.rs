//! What is done with a datum, from left to right: the program that a [`Plan`](super::Plan) runs for every record.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::datum::{Datum, Read, Wrong};
use super::decimal;
use super::types::{Id, Types};
use crate::field::Value;

/// One step, and the field that it is about, for messages.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) field: Box<str>,
    pub(super) does: Does,
}

/// What a step does.
#[derive(Debug)]
pub(super) enum Does {
    /// Passes over a value.
    Skip(Id),
    /// Passes over bytes that cannot be wrong.
    Advance(usize),
    /// Takes a value to a slot.
    Take(usize, Take),
    /// Puts a value to a slot that is not in the datum, or says no more than its type.
    Put(usize, Value<'static>),
    /// Elements of an array by their numbers; the others are passed over.
    Elements(Box<[(u64, Box<[Step]>)]>, Id),
    /// Values of a map by their keys; the others are passed over.
    Entries(Box<[Entry]>, Id),
    /// Goes on by a union's branch.
    Union(Box<[Box<[Step]>]>),
    /// A branch that cannot be read as it is wanted.
    Refuse(Box<str>),
}

/// A value of a map that is wanted.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) steps: Box<[Step]>,
    /// What they write to: of a key that stands twice the last one counts, and all of it.
    pub(super) slots: Box<[usize]>,
}

/// How a value is read.
#[derive(Debug)]
pub(super) enum Take {
    Boolean,
    Int,
    Long,
    /// A whole number that the reader's schema has as a float (32 bits).
    WholeAsFloat {
        int: bool,
    },
    /// A whole number that the reader's schema has as a double.
    WholeAsDouble {
        int: bool,
    },
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    Decimal {
        scale: usize,
        size: Option<usize>,
    },
    BigDecimal,
    Uuid {
        fixed: bool,
    },
    /// A symbol for each of the writer's; `None` where the reader's schema has none.
    Enum(Box<[Option<String>]>),
    List(Id),
    Map(Id),
}

/// The slots that `steps` write to whatever is in a datum.
pub(super) fn written(steps: &[Step]) -> BTreeSet<usize> {
    let mut slots = BTreeSet::new();
    for step in steps {
        match &step.does {
            Does::Take(slot, _) | Does::Put(slot, _) => {
                slots.insert(*slot);
            }
            Does::Union(branches) => {
                let mut each = branches.iter().map(|branch| written(branch));
                let first = each.next().unwrap_or_default();
                slots.extend(each.fold(first, |all, branch| &all & &branch));
            }
            // Nor is it sure that an element is there.
            Does::Skip(_)
            | Does::Advance(_)
            | Does::Refuse(_)
            | Does::Elements(..)
            | Does::Entries(..) => (),
        }
    }
    slots
}

/// Runs `steps`; `out` has a place for each slot.
pub(super) fn run<'a>(
    steps: &'a [Step],
    types: &Types,
    datum: &mut Datum<'a>,
    out: &mut [Option<Value<'a>>],
) -> Read<()> {
    for step in steps {
        let done = match &step.does {
            Does::Take(slot, take) => match out.get_mut(*slot) {
                Some(place) => take.to(types, datum, place),
                None => Err(Wrong::new("has no place to go to")),
            },
            Does::Skip(id) => types.skip(*id, datum, 0),
            Does::Advance(size) => datum.take(*size, "its values").map(drop),
            Does::Put(slot, value) => {
                if let Some(place) = out.get_mut(*slot) {
                    *place = Some(lend(value));
                }
                Ok(())
            }
            Does::Elements(wanted, id) => {
                let (mut place, mut named) = (0_u64, false);
                let done = datum.blocks("an array", |datum, count| {
                    let end = place.saturating_add(count);
                    while place < end {
                        // The next that is wanted, or this block's end.
                        let next = wanted.iter().find(|(wanted, _)| place <= *wanted);
                        let to = next.map_or(end, |(next, _)| end.min(*next));
                        types.skip_some(*id, to - place, datum)?;
                        place = to;
                        if let Some((_, steps)) = next.filter(|_| to < end) {
                            run(steps, types, datum, out).inspect_err(|_| named = true)?;
                            place += 1;
                        }
                    }
                    Ok(())
                });
                if named {
                    return done;
                }
                done
            }
            Does::Entries(wanted, id) => {
                let mut named = false;
                let done = datum.blocks("a map", |datum, count| {
                    (0..count).try_for_each(|_| {
                        let key = datum.text()?;
                        let Some(entry) = wanted.iter().find(|entry| entry.key == key) else {
                            return types.skip(*id, datum, 0);
                        };
                        entry.slots.iter().for_each(|slot| out[*slot] = None);
                        run(&entry.steps, types, datum, out).inspect_err(|_| named = true)
                    })
                });
                if named {
                    return done;
                }
                done
            }
            // Steps within name their fields in full.
            Does::Union(branches) => match datum.choice(branches.len(), "a union", "branch") {
                Ok(branch) => {
                    run(&branches[branch], types, datum, out)?;
                    Ok(())
                }
                Err(wrong) => Err(wrong),
            },
            Does::Refuse(rule) => Err(Wrong::new(&**rule)),
        };
        done.map_err(|wrong| wrong.within(&step.field))?;
    }
    Ok(())
}

impl Take {
    /// Reads a value to its place. Each is written where it stays: a copy of it costs more than reading it.
    #[inline]
    fn to<'a>(
        &'a self,
        types: &Types,
        datum: &mut Datum<'a>,
        place: &mut Option<Value<'a>>,
    ) -> Read<()> {
        match self {
            Self::Boolean => *place = Some(Value::Bool(datum.boolean()?)),
            Self::Int => *place = Some(Value::Int(datum.int("an int")?.into())),
            Self::Long => *place = Some(Value::Int(datum.long("a long")?.into())),
            Self::Float => *place = Some(Value::Float(datum.float()?.into())),
            Self::Double => *place = Some(Value::Float(datum.double()?)),
            Self::Bytes => *place = Some(Value::Bytes(Cow::Borrowed(datum.bytes()?))),
            Self::Text => *place = Some(Value::Text(Cow::Borrowed(datum.text()?))),
            Self::Fixed(size) => {
                *place = Some(Value::Bytes(Cow::Borrowed(datum.take(*size, "a fixed")?)));
            }
            Self::Enum(symbols) => {
                let index = datum.choice(symbols.len(), "an enum", "symbol")?;
                let symbol = symbols[index].as_ref().ok_or_else(|| Wrong::new(UNRESOLVED))?;
                *place = Some(Value::Text(Cow::Borrowed(symbol)));
            }
            Self::WholeAsFloat { int } => {
                *place = Some(Value::Float(single(whole(datum, *int)?).into()));
            }
            Self::WholeAsDouble { int } => {
                *place = Some(Value::Float(double(whole(datum, *int)?)));
            }
            Self::Decimal { scale, size } => {
                *place = Some(Value::Decimal(decimal::text(datum.decimal(*size)?, *scale)));
            }
            Self::BigDecimal => {
                *place = Some(Value::Decimal(decimal::big_text(&decimal::big(datum)?)));
            }
            Self::Uuid { fixed } => {
                *place = Some(Value::Text(Cow::Owned(decimal::uuid(datum, *fixed)?)));
            }
            Self::List(id) => *place = Some(types.skip(*id, datum, 0).map(|()| Value::List)?),
            Self::Map(id) => *place = Some(types.skip(*id, datum, 0).map(|()| Value::Map)?),
        }
        Ok(())
    }
}

/// Why a symbol of the writer's is none of the reader's.
const UNRESOLVED: &str =
    "is an enum's symbol that the reader's schema neither has nor has a default for";

fn whole(datum: &mut Datum<'_>, int: bool) -> Read<i64> {
    if int { datum.int("an int").map(i64::from) } else { datum.long("a long") }
}

/// As Avro promotes a whole number to a float.
#[expect(clippy::cast_precision_loss, reason = "Avro's rule: a float holds 24 bits of it")]
fn single(number: i64) -> f32 {
    number as f32
}

/// As Avro promotes a whole number to a double.
#[expect(clippy::cast_precision_loss, reason = "Avro's rule: a double holds 53 bits of it")]
pub(super) fn double(number: i64) -> f64 {
    number as f64
}

/// The same value, borrowed.
pub(super) fn lend<'a>(value: &'a Value<'_>) -> Value<'a> {
    match value {
        Value::Text(text) => Value::Text(Cow::Borrowed(text)),
        Value::Bytes(bytes) => Value::Bytes(Cow::Borrowed(bytes)),
        Value::Null => Value::Null,
        Value::Bool(is) => Value::Bool(*is),
        Value::Int(number) => Value::Int(*number),
        Value::Float(number) => Value::Float(*number),
        Value::Decimal(digits) => Value::Decimal(digits.clone()),
        Value::List => Value::List,
        Value::Map => Value::Map,
    }
}

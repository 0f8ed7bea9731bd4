//! What whoever configures should know of where a model's fields stand: names that nobody reads, fields that no record has.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::{Codec, Wanted};
use crate::config::{Input, InputFormat, Part};
use crate::field::Value;

/// Something that works, and is not what was meant, maybe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// What it is about: a key of the configuration.
    pub key: &'static str,
    /// What is found, behind the key.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}; {}", self.key, self.message, self.remedy)
    }
}

impl Codec {
    /// Places of fields that nobody reads, and fields that no record will have, where a model `reads` these.
    pub fn doubts(&self, reads: &[String]) -> Vec<Doubt> {
        let input = self.input();
        let is_read = |name: &&String| reads.contains(name) || self.along.contains(name);
        let key = input.key.field.iter().chain(input.key.fields.keys());
        let places: [(&'static str, Vec<&String>); 4] = [
            ("input.fields", input.fields.keys().collect()),
            ("input.key", key.collect()),
            ("input.headers", input.headers.keys().collect()),
            ("input.record", input.record.keys().collect()),
        ];
        let unread = places.into_iter().filter_map(|(key, mut names)| {
            names.retain(|name| !is_read(name));
            (!names.is_empty()).then(|| Doubt {
                key,
                message: format!("names {names:?}, which the model does not read"),
                remedy: format!("it reads {reads:?}: is a name misspelt? Else leave it out"),
            })
        });
        // A text model reads one text without its pair.
        let needed: Vec<String> =
            reads.iter().filter(|name| **name != input.pair_field).cloned().collect();
        let lacking = self.lacking(&needed);
        let lacking = (!lacking.is_empty()).then(|| Doubt {
            key: "input.schema",
            message: format!(
                "has no field {lacking:?}, which the model reads: a record without becomes a dead letter, or has what the \
                 model's author set for it"
            ),
            remedy: "name another schema, or say under input.fields where they stand".to_owned(),
        });
        let (gone, why) = self.never_along();
        let gone = (!gone.is_empty()).then(|| Doubt {
            key: "output.include",
            message: format!("names {gone:?}, which no record has: {why}"),
            remedy: "say under input where they stand, or leave them out".to_owned(),
        });
        unread.chain(lacking).chain(gone).collect()
    }

    /// What is to go along, and no record has; and why not.
    fn never_along(&self) -> (Vec<String>, String) {
        use InputFormat::{Bytes, Text};
        let input = self.input();
        let field = &input.field;
        if input.format_header.is_none() && self.formats.iter().all(|of| matches!(of, Bytes | Text))
        {
            let is_gone = |name: &&String| *name != field && !input.knows(name);
            let gone = self.along.iter().filter(is_gone).cloned().collect();
            return (gone, format!("by input.format a value is the one field {field:?}"));
        }
        (self.lacking(&self.along), "input.schema does not have it".to_owned())
    }

    /// Which of the fields `names` stand in a record's value, and nowhere in `input.schema`; none where there is no such file.
    fn lacking(&self, names: &[String]) -> Vec<String> {
        let input = self.input();
        let in_value = |name: &&String| input.beside().all(|beside| beside != *name);
        let names: Vec<String> = names.iter().filter(in_value).cloned().collect();
        let wanted = Wanted::new(&names, &input.fields);
        let places = names.iter().zip(wanted.paths());
        let lacking = places.filter(|(_, path)| !(self.data.has(path) && self.messages.has(path)));
        lacking.map(|(name, _)| name.clone()).collect()
    }
}

/// From so many records on that do not have a field, one behind the other, it is said.
const MANY: u32 = 100;

/// A record that has the field stands against so many that do not: it counts as there where more than one in a hundred have it.
const WEIGHT: u32 = 100;

/// No more is counted, so that a field that is there again is soon found there.
const MOST: u32 = 10 * WEIGHT;

/// Most fields that a message names.
const NAMED: usize = 8;

/// Most characters of a field's name that a record chose.
const SHOWN: usize = 100;

/// Which fields nearly none of the last records had.
#[derive(Debug)]
pub(super) struct Never {
    /// By their places.
    fields: Box<[Watched]>,
    /// Records that lack one of those that are said to be lacking.
    lacking: AtomicU32,
}

#[derive(Debug)]
struct Watched {
    /// Its name, with where it stands if not under it.
    name: String,
    /// Records that did not have it, less those that did by their weight. Not written to while each record has it.
    without: AtomicU32,
    is_lacking: AtomicBool,
    /// Whether a record is whole without it.
    is_optional: bool,
}

impl Watched {
    /// Looks whether a record has it: whether what is said of it changes.
    fn look(&self, is_there: bool) -> bool {
        let before = self.without.load(Ordering::Relaxed);
        if self.is_optional || (is_there && before == 0) {
            return false;
        }
        // Threads that count at once may lose one another's: nothing is decided by it but what is said.
        let now = if is_there { before.saturating_sub(WEIGHT) } else { MOST.min(before + 1) };
        self.without.store(now, Ordering::Relaxed);
        match now {
            0 => self.is_lacking.swap(false, Ordering::Relaxed),
            MANY.. => {
                !self.is_lacking.load(Ordering::Relaxed)
                    && !self.is_lacking.swap(true, Ordering::Relaxed)
            }
            _ => false,
        }
    }
}

impl Never {
    pub(super) fn new(names: &[String], input: &Input) -> Self {
        let field = |name: &String| Watched {
            name: format!("{name:?}{}", place(name, input)),
            without: AtomicU32::new(0),
            is_lacking: AtomicBool::new(false),
            // A text without its pair is a text.
            is_optional: *name == input.pair_field,
        };
        Self { fields: names.iter().map(field).collect(), lacking: AtomicU32::new(0) }
    }

    /// Looks at a record's values. Says what nearly none of the last ones had when that changes, and again each hundredth
    /// time that a record lacks it; nothing of it is an empty text. `unknown` is a field that nobody reads.
    pub(super) fn look(
        &self,
        values: &[Option<Value<'_>>],
        unknown: Option<&str>,
    ) -> Option<String> {
        let (mut changed, mut lacks) = (false, false);
        for (field, value) in self.fields.iter().zip(values) {
            changed |= field.look(value.is_some());
            lacks |= value.is_none() && field.is_lacking.load(Ordering::Relaxed);
        }
        if lacks {
            changed |= self.lacking.fetch_add(1, Ordering::Relaxed) % MANY == MANY - 1;
        }
        changed.then(|| self.said(unknown))
    }

    fn said(&self, unknown: Option<&str>) -> String {
        let lacking = self.fields.iter().filter(|field| field.is_lacking.load(Ordering::Relaxed));
        let lacking: Vec<&str> = lacking.map(|field| &*field.name).collect();
        if lacking.is_empty() {
            return String::new();
        }
        let more = lacking.len().saturating_sub(NAMED);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let named = lacking[..lacking.len().min(NAMED)].join(", ");
        let hint = unknown.map_or_else(String::new, |name| {
            let name: String = name.chars().take(SHOWN).collect();
            format!("; the last of them has {name:?}, which nobody reads")
        });
        format!(
            "of the last records next to none has what the model reads as {named}{more}: taken as missing{hint}; is a name \
             misspelt, or does it stand elsewhere now (input.fields, input.key, input.headers)?"
        )
    }
}

/// Where a field stands, if not under its own name in the value.
fn place(name: &String, input: &Input) -> String {
    let key = &input.key;
    if key.field.as_ref() == Some(name) || key.fields.contains_key(name) {
        " (in the key)".to_owned()
    } else if let Some(header) = input.headers.get(name) {
        format!(" (header {header:?})")
    } else if let Some(Part::Timestamp) = input.record.get(name) {
        " (the record's time)".to_owned()
    } else if let Some(pointer) = input.fields.get(name) {
        format!(" (at {:?})", format!("/{}", pointer.path().join("/")))
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of so many records each, by whether they have `a` and `source`.
    fn said(records: &[(u32, bool, bool)]) -> Vec<String> {
        let names = ["a", "source", "text_pair"].map(str::to_owned);
        let headers = [("source".to_owned(), "x-origin".to_owned())].into();
        let input = Input { headers, ..Input::default() };
        let never = Never::new(&names, &input);
        let some = |is: bool| is.then_some(Value::Null);
        let all = records
            .iter()
            .flat_map(|(count, a, source)| (0..*count).map(|_| [some(*a), some(*source), None]));
        all.filter_map(|values| never.look(&values, Some("b"))).collect()
    }

    #[test]
    fn a_field_that_no_record_has_is_said_whenever_it_begins() {
        assert!(said(&[(1_000, true, true), (MANY - 1, true, false)]).is_empty());
        for before in [0, 1, 1_000] {
            let one = said(&[(before, true, true), (MANY, true, false)]);
            assert_eq!(one.len(), 1, "{one:?}");
            assert!(one[0].contains("reads as \"source\" (header \"x-origin\"): taken"), "{one:?}");
            assert!(one[0].contains("has \"b\", which nobody reads"), "{one:?}");
        }
        let both = said(&[(MANY, false, false)]).concat();
        assert!(both.contains("\"a\", \"source\" (header"), "{both}");
        let again = said(&[(10 * MANY, true, false), (10, true, true), (2 * MANY, true, false)]);
        let ends = again.iter().position(String::is_empty).expect("it is over when it is there");
        assert_eq!(ends, 10, "each hundredth record says it: {again:?}");
        assert!(again[ends + 1].contains("source"), "and begins again: {again:?}");
    }

    #[test]
    fn what_some_records_have_is_not_lacking() {
        let mut some = Vec::new();
        (0..50).for_each(|_| some.extend([(40, true, false), (1, true, true)]));
        assert!(said(&some).is_empty());
        some.clear();
        (0..50).for_each(|_| some.extend([(300, true, false), (1, true, true)]));
        assert!(!said(&some).is_empty(), "one in three hundred is next to none");
    }
}

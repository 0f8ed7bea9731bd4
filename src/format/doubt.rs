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

/// So many records are looked at before it is said that none has a field.
const LOOKED_AT: u32 = 100;

/// Most fields that a message names.
const NAMED: usize = 8;

/// Which fields no record had so far.
#[derive(Debug)]
pub(super) struct Never {
    left: AtomicU32,
    /// By their places: the name, with where it stands if not under it, and whether a record had it.
    fields: Box<[(String, AtomicBool)]>,
}

impl Never {
    pub(super) fn new(names: &[String], input: &Input) -> Self {
        let field = |name: &String| {
            // A text without its pair is a text.
            let optional = *name == input.pair_field;
            (format!("{name:?}{}", place(name, input)), AtomicBool::new(optional))
        };
        Self { left: AtomicU32::new(LOOKED_AT), fields: names.iter().map(field).collect() }
    }

    /// Looks at a record's values. Says once what none of the first had; `unknown` is a field that nobody reads.
    pub(super) fn look(
        &self,
        values: &[Option<Value<'_>>],
        unknown: Option<&str>,
    ) -> Option<String> {
        if self.left.load(Ordering::Relaxed) == 0 {
            return None;
        }
        for ((_, seen), _) in self.fields.iter().zip(values).filter(|(_, value)| value.is_some()) {
            seen.store(true, Ordering::Relaxed);
        }
        let one_less = |left: u32| left.checked_sub(1);
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        let never = self.fields.iter().filter(|(_, seen)| !seen.load(Ordering::Relaxed));
        let never: Vec<&str> = never.map(|(name, _)| &**name).collect();
        if before != Ok(1) || never.is_empty() {
            return None;
        }
        let more = never.len().saturating_sub(NAMED);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let named = never[..never.len().min(NAMED)].join(", ");
        let hint = unknown.map_or_else(String::new, |name| {
            format!("; the last of them has {name:?}, which nobody reads")
        });
        Some(format!(
            "none of the first {LOOKED_AT} records has the field {named}{more}, which the model reads: it is taken as missing{hint}; is a \
             name misspelt, or does it stand elsewhere (input.fields, input.key, input.headers)?"
        ))
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

    #[test]
    fn a_field_that_no_record_has_is_said_once() {
        let names = ["a", "source", "text_pair"].map(str::to_owned);
        let headers = [("source".to_owned(), "x-sorce".to_owned())].into();
        let input = Input { headers, ..Input::default() };
        let there = || Some(Value::Null);
        let said = |a: bool, source: bool| {
            let never = Never::new(&names, &input);
            let some = |is: bool| is.then(there).flatten();
            let each = |_| never.look(&[some(a), some(source), None], Some("b"));
            let said: Vec<String> = (0..3 * LOOKED_AT).filter_map(each).collect();
            assert!(said.len() < 2, "{said:?}");
            said.concat()
        };
        assert_eq!(said(true, true), "");
        let one = said(true, false);
        assert!(one.contains("the field \"source\" (header \"x-sorce\"), which"), "{one}");
        assert!(one.contains("has \"b\", which nobody reads"), "{one}");
        assert!(said(false, false).contains("\"a\", \"source\" (header"));
    }
}

//! Cleaning: what a record has of a field becomes what the model should be given, before it is prepared.
//!
//! ```text
//!  values ─► missing? ─► on_missing ─┐
//!              └─► read ─► min, max, allowed ─► on_invalid ─┴─► values, or a Fault
//! ```
//!
//! The words are the configuration's and the model author's ([`Words`]); [`Clean`] is what is done by them with one field, and
//! [`Cleaning`] what one version's fields are cleaned by. All of it is a function of the values: the same record and
//! version give the same, whenever and wherever.

use std::collections::BTreeMap;

use metrics::Counter;

use crate::field::Value;
use crate::record::{Fault, Signature};

mod bound;
mod check;
mod date;
mod number;
mod rule;
#[cfg(test)]
mod tests;
mod words;

pub use rule::{Clean, Cleaned, Ground};
pub use words::{Bound, Case, Decimal, GivenAs, Group, Kind, OnInvalid, OnMissing, Words};

/// Words by field.
pub type Cleans = BTreeMap<String, Clean>;

/// What the fields of one version are cleaned by.
#[derive(Debug, Clone, Default)]
pub struct Cleaning {
    /// Fields that hold units, and that the model does not look at.
    units: Vec<String>,
    /// Those with a unit in a field first: they are to see it as it came.
    rules: Vec<Placed>,
    /// What nothing is said of, and the model fills in by itself.
    filled: Vec<Filled>,
}

/// A field that the model has something for where a record has none.
#[derive(Debug, Clone)]
struct Filled {
    name: String,
    place: usize,
    by: OnMissing,
    missing: Counter,
}

/// What is done with the field at a place.
#[derive(Debug, Clone)]
struct Placed {
    name: String,
    place: usize,
    /// Where its unit is.
    unit: Option<usize>,
    clean: Clean,
    missing: Counter,
    invalid: Counter,
    unclamped: Counter,
}

impl Cleaning {
    /// For the fields `names`, in their order: by what `stated` says of a field, else by what the model's `own` files say.
    pub fn new(names: &[String], own: &Cleans, stated: &Cleans) -> Self {
        let mut cleaning = Self::default();
        if own.is_empty() && stated.is_empty() {
            return cleaning;
        }
        for (place, name) in names.iter().enumerate() {
            let Some(clean) = stated.get(name).or_else(|| own.get(name)) else { continue };
            let unit = clean.words().unit_field.as_ref().map(|unit| {
                let known = names.iter().chain(&cleaning.units).position(|name| name == unit);
                known.unwrap_or_else(|| {
                    cleaning.units.push(unit.clone());
                    names.len() + cleaning.units.len() - 1
                })
            });
            let (missing, invalid, unclamped) = (Counter::noop(), Counter::noop(), Counter::noop());
            let (name, clean) = (name.clone(), clean.clone());
            cleaning.rules.push(Placed { name, place, unit, clean, missing, invalid, unclamped });
        }
        cleaning.rules.sort_by_key(|rule| rule.unit.is_none());
        cleaning
    }

    /// The model `fills` fields, at these places of `names`, by itself: it is counted where no rule has counted it.
    #[must_use]
    pub fn filled(mut self, names: &[String], fills: Vec<(usize, OnMissing)>) -> Self {
        for (place, by) in fills {
            let Some(name) = names.get(place).cloned() else { continue };
            if self.rules.iter().all(|rule| rule.place != place) {
                self.filled.push(Filled { name, place, by, missing: Counter::noop() });
            }
        }
        self
    }

    /// Counts what is done by `counter`, which is given a field and a rule: `missing_` or `invalid_`, and what becomes of it.
    #[must_use]
    pub fn counted(mut self, counter: impl Fn(&str, &'static str) -> Counter) -> Self {
        for rule in &mut self.rules {
            let words = rule.clean.words();
            rule.missing = counter(&rule.name, missing(words.on_missing));
            rule.invalid = counter(&rule.name, invalid(words.on_invalid));
            if words.on_invalid == OnInvalid::Clamp {
                rule.unclamped = counter(&rule.name, invalid(OnInvalid::Reject));
            }
        }
        for filled in &mut self.filled {
            filled.missing = counter(&filled.name, missing(filled.by));
        }
        self
    }

    /// Whether nothing is cleaned.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The fields whose values it needs behind those of the model.
    pub fn units(&self) -> &[String] {
        &self.units
    }

    /// Cleans the values of the model's fields and of [`units`](Self::units), in that order.
    ///
    /// # Errors
    ///
    /// The first that is rejected.
    pub fn clean<'a>(&'a self, values: &mut [Option<Value<'a>>]) -> Result<(), Fault> {
        for rule in &self.rules {
            let unit = rule.unit.and_then(|place| values.get(place).cloned().flatten());
            let Some(value) = values.get_mut(rule.place) else { continue };
            let (result, ground) = rule.clean.clean(&rule.name, value.take(), unit.as_ref());
            match ground {
                None => (),
                Some(Ground::Missing) => rule.missing.increment(1),
                Some(Ground::Invalid) => rule.invalid.increment(1),
                Some(Ground::Unclamped) => rule.unclamped.increment(1),
            }
            *value = result?;
        }
        for filled in &self.filled {
            if let None | Some(None | Some(Value::Null)) = values.get(filled.place) {
                filled.missing.increment(1);
            }
        }
        Ok(())
    }
}

/// What whoever configures should know of what is `stated` beside a model that looks at the fields `names` and has its
/// `own` words: what has no effect, and what holds in place of something. `known` are names of fields that have a place in
/// records all the same.
pub fn doubts(
    names: &[String],
    own: &Cleans,
    stated: &Cleans,
    known: impl Fn(&String) -> bool,
) -> Vec<String> {
    let mut replaced: Vec<String> = stated
        .keys()
        .filter(|name| own.contains_key(*name))
        .map(|name| format!("{name:?}"))
        .collect();
    let fields = if replaced.len() == 1 { "field" } else { "fields" };
    replaced.sort();
    let replaced = (!replaced.is_empty()).then(|| {
        format!(
            "what input.clean says of {fields} {} holds in place of all that the model's preprocess.json says of cleaning \
             that",
            Signature::plain(&Signature::short(&replaced))
        )
    });
    let of = |name: &String| {
        if own.contains_key(name) {
            return None;
        }
        let unknown = !names.contains(name) && !known(name);
        unknown.then(|| {
            format!(
                "input.clean names field {name:?}, which neither the model nor input.fields knows: nothing is cleaned by it; \
                 the model looks at {}",
                Signature::plain(&Signature::short(names))
            )
        })
    };
    replaced.into_iter().chain(stated.keys().filter_map(of)).collect()
}

fn missing(action: OnMissing) -> &'static str {
    match action {
        OnMissing::Reject => "missing_reject",
        OnMissing::Null => "missing_null",
        OnMissing::Impute => "missing_impute",
    }
}

fn invalid(action: OnInvalid) -> &'static str {
    match action {
        OnInvalid::Reject => "invalid_reject",
        OnInvalid::Null => "invalid_null",
        OnInvalid::Clamp => "invalid_clamp",
        OnInvalid::Impute => "invalid_impute",
    }
}

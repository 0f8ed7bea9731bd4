//! What is done with one field's value: a pure function of the rule and the value.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use tokenizers::NormalizedString;

use super::check::{check, is_scalar};
use super::date::{Dates, Unfit};
use super::number::Written;
use super::words::{Bound, Case, GivenAs, Kind, OnInvalid, OnMissing, Words};
use crate::field::Value;
use crate::record::{Fault, FaultClass};

/// Words that go together, ready to be kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Json>", into = "Words")]
pub struct Clean {
    words: Words,
    missing: Vec<Listed>,
    /// The numbers that are allowed.
    allowed: Vec<Bound>,
    reader: Reader,
}

impl PartialEq for Clean {
    /// Two are equal whose words are: everything else follows from them.
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words
    }
}

impl From<Clean> for Words {
    fn from(clean: Clean) -> Self {
        clean.words
    }
}

/// What it was that had something done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// There is no value.
    Missing,
    /// It cannot be read as its type, lies outside of its range, or is not allowed.
    Invalid,
    /// As [`Invalid`](Self::Invalid), and it is no number that could be clamped.
    Unclamped,
}

/// A value as the model is given it, or why there is none; and on which ground, where it was not taken as it is or as it
/// reads.
pub type Cleaned<'a> = (Result<Option<Value<'a>>, Fault>, Option<Ground>);

/// How a value is read.
#[derive(Debug, Clone)]
enum Reader {
    Any,
    Number(Number),
    Boolean { yes: Vec<Listed>, no: Vec<Listed> },
    Date(Dates),
    Text,
}

/// How a number is read.
#[derive(Debug, Clone)]
struct Number {
    /// How texts write it, where they do.
    written: Option<Written>,
    /// What may stand before or behind it, with its factor; longer ones first.
    marks: Vec<(String, f64)>,
}

/// What is wrong with a value.
enum Wrong {
    /// It is of this kind, and not what is wanted.
    Not(&'static str),
    /// It is of this kind, and a time that a change of the clock leaves out or has twice.
    Clock(&'static str),
    Unit,
    /// Its text has a unit, and the field of its unit another.
    Units,
    /// It is less than the least, or more than the greatest.
    Outside(Ordering),
    Allowed(&'static str),
}

/// The sign of a hundredth.
const PERCENT: &str = "%";

impl TryFrom<Map<String, Json>> for Clean {
    type Error = String;

    fn try_from(said: Map<String, Json>) -> Result<Self, String> {
        if said.get("allowed").and_then(Json::as_array).is_some_and(Vec::is_empty) {
            return Err("allowed is empty: no value would be; leave it out".to_owned());
        }
        let words: Words =
            serde_json::from_value(Json::Object(said)).map_err(|error| error.to_string())?;
        let mut wrong = check(&words);
        let reader = match words.kind {
            None => Reader::Any,
            Some(Kind::Text) => Reader::Text,
            Some(Kind::Number) => Reader::Number(Number::new(&words)),
            Some(Kind::Boolean) => {
                Reader::Boolean { yes: listed(&words.yes), no: listed(&words.no) }
            }
            Some(Kind::Date) => {
                match Dates::new(&words.format, words.zone.as_deref(), words.given_as) {
                    Ok(dates) => Reader::Date(dates),
                    Err(why) => {
                        wrong.push(why);
                        Reader::Any
                    }
                }
            }
        };
        if !wrong.is_empty() {
            return Err(wrong.join("; also: "));
        }
        let numbers = words.allowed.iter().filter_map(Json::as_number);
        let allowed = numbers.map(Bound::from).collect();
        let clean = Self { missing: listed(&words.missing), allowed, reader, words };
        clean.check_impute()?;
        Ok(clean)
    }
}

impl Clean {
    /// The words.
    pub fn words(&self) -> &Words {
        &self.words
    }

    /// What is imputed must be what it would be cleaned to.
    fn check_impute(&self) -> Result<(), String> {
        let Some(impute) = self.words.impute.as_ref().filter(|value| is_scalar(value)) else {
            return Ok(());
        };
        let value = Value::from(impute);
        if self.is_missing(&value) {
            return Err(format!(
                "impute is {impute}, which missing has: it would be missing again; write another"
            ));
        }
        let is = match &self.reader {
            // A number that stands for others has its unit already.
            Reader::Number(_) => self.within(value.clone()),
            Reader::Any | Reader::Boolean { .. } | Reader::Date(_) | Reader::Text => {
                self.read(value.clone(), None)
            }
        };
        match is {
            Ok(read) if read == value => Ok(()),
            Ok(_) => Err(format!(
                "impute is {impute}, which would be cleaned to something else; write that"
            )),
            Err(Wrong::Allowed(_)) => {
                Err(format!("impute is {impute}, which is none of allowed; write one of them"))
            }
            Err(
                Wrong::Not(_) | Wrong::Clock(_) | Wrong::Unit | Wrong::Units | Wrong::Outside(_),
            ) => Err(format!("impute is {impute}, a date by its format is wanted")),
        }
    }

    /// The value of the field `name` as the model is given it; `unit` is what the field has that holds its unit.
    ///
    /// A [`Fault`] names field, rule and kind of value, and never the value.
    pub fn clean<'a>(
        &'a self,
        name: &str,
        value: Option<Value<'a>>,
        unit: Option<&Value<'_>>,
    ) -> Cleaned<'a> {
        let impute = || self.words.impute.as_ref().map(Value::from);
        let value = match value {
            Some(value) if !self.is_missing(&value) => value,
            missing => {
                let result = match self.words.on_missing {
                    OnMissing::Null => Ok(missing.map(|_| Value::Null)),
                    OnMissing::Impute => Ok(impute()),
                    OnMissing::Reject => {
                        let message = format!(
                            "field {name:?} is missing or null (clean, on_missing: reject)"
                        );
                        Err(Fault::new(FaultClass::Missing, message))
                    }
                };
                return (result, Some(Ground::Missing));
            }
        };
        let wrong = match self.read(value, unit) {
            Ok(value) => return (Ok(Some(value)), None),
            Err(wrong) => wrong,
        };
        let result = match (self.words.on_invalid, &wrong) {
            (OnInvalid::Null, _) => Ok(Some(Value::Null)),
            (OnInvalid::Impute, _) => Ok(impute()),
            (OnInvalid::Clamp, Wrong::Outside(side)) => Ok(Some(self.nearest(*side))),
            (OnInvalid::Clamp, _) => {
                return (Err(self.fault(name, &wrong)), Some(Ground::Unclamped));
            }
            (OnInvalid::Reject, _) => Err(self.fault(name, &wrong)),
        };
        (result, Some(Ground::Invalid))
    }

    fn is_missing(&self, value: &Value<'_>) -> bool {
        let is_listed = |value: &Value<'_>| self.missing.iter().any(|listed| listed.is(value));
        let by_text = || match (&self.reader, value) {
            // A number that is listed is missing however a text writes it.
            (Reader::Number(Number { written: Some(written), .. }), Value::Text(text)) => {
                self.missing.iter().any(|listed| listed.number.is_some())
                    && written.read(text, &[]).is_some_and(|(number, _)| is_listed(&number))
            }
            _ => false,
        };
        *value == Value::Null || is_listed(value) || by_text()
    }

    /// The bound that is nearest to a number on that side of both.
    fn nearest(&self, side: Ordering) -> Value<'static> {
        let bound = if side == Ordering::Less { self.words.min } else { self.words.max };
        bound.map_or(Value::Null, |bound| Value::Float(bound.number()))
    }

    fn read<'a>(&self, value: Value<'a>, unit: Option<&Value<'_>>) -> Result<Value<'a>, Wrong> {
        let kind = value.kind();
        let value = match (&self.reader, value) {
            (Reader::Any, value) => value,
            (Reader::Number(number), value) => number.read(value, unit, &self.words)?,
            (Reader::Boolean { .. }, Value::Bool(truth)) => Value::Bool(truth),
            (Reader::Boolean { yes, no }, other) => {
                let truth = yes.iter().any(|listed| listed.is(&other));
                if !truth && !no.iter().any(|listed| listed.is(&other)) {
                    return Err(Wrong::Not(kind));
                }
                Value::Bool(truth)
            }
            (Reader::Date(dates), Value::Text(text)) => {
                let date = dates.read(text.trim()).map_err(|unfit| match unfit {
                    Unfit::Format => Wrong::Not(kind),
                    Unfit::Clock => Wrong::Clock(kind),
                })?;
                if dates.given_as == GivenAs::Text { Value::Text(trimmed(text)) } else { date }
            }
            (Reader::Date(dates), value)
                if dates.given_as != GivenAs::Text && value.number().is_some() =>
            {
                value
            }
            (Reader::Text, Value::Text(text)) => Value::Text(self.text(text)),
            (Reader::Date(_) | Reader::Text, _) => return Err(Wrong::Not(kind)),
        };
        self.within(value)
    }

    /// The value, where it lies between `min` and `max` and is allowed.
    fn within<'a>(&self, value: Value<'a>) -> Result<Value<'a>, Wrong> {
        if let Some(number) = value.number().filter(|_| !matches!(self.reader, Reader::Any)) {
            for (bound, outside) in
                [(self.words.min, Ordering::Less), (self.words.max, Ordering::Greater)]
            {
                if bound.is_some_and(|bound| bound.compare(&value) == Some(outside)) {
                    return Err(Wrong::Outside(outside));
                }
            }
            if !number.is_finite() {
                return Err(Wrong::Not("NaN or infinite"));
            }
        }
        let is_allowed = |allowed: &Json| match (allowed, &value) {
            (Json::String(allowed), Value::Text(text)) => allowed == text,
            (Json::Bool(allowed), Value::Bool(truth)) => allowed == truth,
            _ => false,
        };
        let is_number = |value| self.allowed.iter().any(|allowed| allowed.is(value));
        if self.words.allowed.is_empty()
            || self.words.allowed.iter().any(is_allowed)
            || is_number(&value)
        {
            Ok(value)
        } else {
            Err(Wrong::Allowed(value.kind()))
        }
    }

    fn text<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        let mut text = if self.words.trim { trimmed(text) } else { text };
        let changes = |is: fn(char) -> bool| text.contains(|c: char| !c.is_ascii() || is(c));
        match self.words.case {
            Some(Case::Lower) if changes(|c| c.is_ascii_uppercase()) => {
                text = text.to_lowercase().into();
            }
            Some(Case::Upper) if changes(|c| c.is_ascii_lowercase()) => {
                text = text.to_uppercase().into();
            }
            Some(Case::Lower | Case::Upper) | None => (),
        }
        if self.words.nfc && !text.is_ascii() {
            let mut normal = NormalizedString::from(&*text);
            normal.nfc();
            if normal.get() != text {
                text = normal.get().to_owned().into();
            }
        }
        text
    }

    fn fault(&self, name: &str, wrong: &Wrong) -> Fault {
        let said = match (wrong, &self.reader) {
            (Wrong::Outside(_), _) => {
                let bound = |bound: Option<Bound>, none: &str| {
                    bound.map_or_else(|| none.to_owned(), |bound| bound.to_string())
                };
                let (min, max) = (bound(self.words.min, "any"), bound(self.words.max, "any"));
                format!("is a number outside of min and max, {min} to {max}")
            }
            (Wrong::Allowed(kind), _) => format!("is {kind} that is none of those allowed"),
            (Wrong::Unit, _) => self.without_unit(),
            (Wrong::Units, _) => "has a unit, and unit_field has another".to_owned(),
            (Wrong::Not(kind @ "a string"), Reader::Number(Number { written: Some(_), .. })) => {
                let forms = self.forms();
                format!("is {kind} that is not a number in the form that clean states ({forms})")
            }
            (Wrong::Not(kind), Reader::Number(_)) => format!("is {kind}, not a number"),
            (Wrong::Not(kind), Reader::Boolean { .. }) => {
                format!("is {kind} that means neither true nor false")
            }
            (Wrong::Not(kind @ "a string"), Reader::Date(_)) => {
                format!("is {kind} that is no date by its format")
            }
            (Wrong::Clock(kind), _) => format!(
                "is {kind} with a time that a change of the clock in its zone leaves out or has twice: write an offset with it"
            ),
            (Wrong::Not(kind), Reader::Date(_)) => format!("is {kind}, not a date"),
            (Wrong::Not(kind), Reader::Text | Reader::Any) => format!("is {kind}, not a text"),
        };
        let action = match self.words.on_invalid {
            OnInvalid::Clamp => "clamp, which mends only numbers out of range",
            OnInvalid::Reject | OnInvalid::Null | OnInvalid::Impute => "reject",
        };
        let message = format!("field {name:?} {said} (clean, on_invalid: {action})");
        Fault::new(FaultClass::Invalid, message)
    }

    fn without_unit(&self) -> String {
        let units = self.words.units.keys();
        let known: Vec<&str> =
            units.map(|unit| if unit.is_empty() { "none" } else { unit }).collect();
        format!("has no unit, or one that units does not have ({})", known.join(", "))
    }

    /// The words that say how texts write a number.
    fn forms(&self) -> String {
        let words = &self.words;
        let set = [
            ("decimal", words.decimal.is_some()),
            ("group", words.group.is_some()),
            ("percent", words.percent),
            ("currency", !words.currency.is_empty()),
            ("units", !words.units.is_empty()),
        ];
        let set: Vec<&str> = set.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
        set.join(", ")
    }
}

impl Number {
    fn new(words: &Words) -> Self {
        let written = words.decimal.map(|decimal| Written { decimal, group: words.group });
        let factor = words.factor.unwrap_or(1.0);
        let mut marks: Vec<(String, f64)> =
            words.currency.iter().map(|sign| (sign.clone(), factor)).collect();
        marks.extend(words.units.iter().map(|(unit, factor)| (unit.clone(), *factor)));
        marks.extend(words.percent.then(|| (PERCENT.to_owned(), 1.0)));
        marks.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Self { written, marks }
    }

    /// What is wrong with a text that is not read: a number that ends with a unit that is not known, or no number.
    fn unread(&self, text: &str, kind: &'static str, words: &Words) -> Wrong {
        let number = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let is_number = |written: &Written| written.read(number, &[]).is_some();
        if !words.units.is_empty() && self.written.as_ref().is_some_and(is_number) {
            Wrong::Unit
        } else {
            Wrong::Not(kind)
        }
    }

    fn read<'a>(
        &self,
        value: Value<'a>,
        unit: Option<&Value<'_>>,
        words: &Words,
    ) -> Result<Value<'a>, Wrong> {
        let kind = value.kind();
        let (number, mark) = match value {
            Value::Bool(truth) => (Value::Int(truth.into()), None),
            number @ (Value::Int(_) | Value::Float(_) | Value::Decimal(_)) => (number, None),
            Value::Text(text) => {
                let read =
                    self.written.as_ref().and_then(|written| written.read(&text, &self.marks));
                read.ok_or_else(|| self.unread(&text, kind, words))?
            }
            Value::Null | Value::Bytes(_) | Value::List | Value::Map => {
                return Err(Wrong::Not(kind));
            }
        };
        let found = if words.units.is_empty() {
            mark
        } else {
            let unit = match unit {
                None | Some(Value::Null) => "",
                Some(Value::Text(unit)) => unit.trim(),
                Some(_) => return Err(Wrong::Unit),
            };
            let beside = || self.marks.iter().find(|(name, _)| name == unit);
            match mark {
                None => Some(beside().ok_or(Wrong::Unit)?),
                // Another name of the same unit is no other unit.
                Some((_, factor))
                    if unit.is_empty() || beside().is_some_and(|of| is_same(of.1, *factor)) =>
                {
                    mark
                }
                Some(_) => return Err(Wrong::Units),
            }
        };
        let factor = found.map(|(_, factor)| *factor).or(words.factor).unwrap_or(1.0);
        let scaled = |by: &dyn Fn(f64) -> f64| number.number().map(by).map(Value::Float);
        #[expect(clippy::float_cmp, reason = "one changes nothing, exactly")]
        let same = factor == 1.0;
        if found.is_some_and(|(name, _)| name == PERCENT) {
            scaled(&|number| number / 100.0).ok_or(Wrong::Not(kind))
        } else if same {
            Ok(number)
        } else {
            scaled(&|number| number * factor).ok_or(Wrong::Not(kind))
        }
    }
}

/// Whether two units are one, by what they are multiplied by.
#[expect(clippy::float_cmp, reason = "they are as they are written")]
fn is_same(one: f64, other: f64) -> bool {
    one == other
}

/// A value that is looked for. A text is the same with white space around it, and one that is a number is the number too.
#[derive(Debug, Clone)]
struct Listed {
    text: String,
    number: Option<Bound>,
}

fn listed(values: &[Json]) -> Vec<Listed> {
    let of = |value: &Json| {
        let text = value.as_str().map_or_else(|| value.to_string(), |text| text.trim().to_owned());
        Listed { number: Bound::of_text(&text), text }
    };
    values.iter().map(of).collect()
}

impl Listed {
    fn is(&self, value: &Value<'_>) -> bool {
        match value {
            Value::Text(text) => text.trim() == self.text,
            Value::Bool(truth) => self.text == if *truth { "true" } else { "false" },
            Value::Int(_) | Value::Float(_) | Value::Decimal(_) => {
                self.number.is_some_and(|number| number.is(value))
            }
            Value::Null | Value::Bytes(_) | Value::List | Value::Map => false,
        }
    }
}

fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) if text.trim().len() == text.len() => Cow::Owned(text),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    }
}

//! What can be said of a field, in `input.clean` and in an artifact's `preprocess.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value as Json;

pub use super::bound::Bound;

/// What can be said of a field.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Words {
    /// What the value is. Without it a value is taken as what it is.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Values that mean that there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Json>,
    /// What becomes of a value that is not there.
    #[serde(deserialize_with = "or_null")]
    pub on_missing: OnMissing,
    /// What becomes of a value that cannot be read as the type, lies outside of `min` and `max`, or is not `allowed`.
    #[serde(deserialize_with = "or_null")]
    pub on_invalid: OnInvalid,
    /// What stands for a value, by `on_missing: impute` and `on_invalid: impute`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impute: Option<Json>,
    /// The least number, in the unit that the model is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Bound>,
    /// The greatest one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Bound>,
    /// The only values that there may be, as the model is given them; empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<Json>,
    /// What parts the whole from the rest of a number in a text. Without it no text is a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decimal: Option<Decimal>,
    /// What stands between its groups of three digits, where something does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// Whether a number may bear `%`, and is then a hundredth.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub percent: bool,
    /// Signs or words of a currency that a number may bear; they change nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub currency: Vec<String>,
    /// What every number is multiplied by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// What a number is multiplied by, by its unit; that of a number without one by `""`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub units: BTreeMap<String, f64>,
    /// The field that holds the unit, where it does not stand in the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit_field: Option<String>,
    /// What means true, beside true.
    #[serde(rename = "true", skip_serializing_if = "Vec::is_empty")]
    pub yes: Vec<Json>,
    /// What means false, beside false.
    #[serde(rename = "false", skip_serializing_if = "Vec::is_empty")]
    pub no: Vec<Json>,
    /// How a date is written, as strftime has it; of several the first that fits.
    #[serde(deserialize_with = "one_or_more", skip_serializing_if = "Vec::is_empty")]
    pub format: Vec<String>,
    /// The time zone of a date whose text has none: a name such as `Europe/Berlin`. Default: UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// What the model is given of a date. Default: seconds.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub given_as: Option<GivenAs>,
    /// Whether white space around a text is taken off.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub trim: bool,
    /// Which case a text is brought to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub case: Option<Case>,
    /// Whether a text is brought to Unicode's form NFC.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub nfc: bool,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A number, true as 1 and false as 0; a text by `decimal`.
    Number,
    /// True or false.
    Boolean,
    /// A text by `format`; a number is one already.
    Date,
    /// A text.
    Text,
}

/// What becomes of a value that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMissing {
    /// The record becomes a dead letter.
    Reject,
    /// The model is told that there is none, and has its own replacement or refuses the record.
    #[default]
    Null,
    /// `impute` stands for it.
    Impute,
}

/// What becomes of a value that is not as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnInvalid {
    /// The record becomes a dead letter.
    #[default]
    Reject,
    /// It counts as not there; what `on_missing` says does not hold for it.
    Null,
    /// A number outside of `min` and `max` becomes the nearest of them. What is no number is rejected.
    Clamp,
    /// `impute` stands for it.
    Impute,
}

/// What parts the whole from the rest of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decimal {
    /// `1.5`
    #[serde(rename = ".")]
    Point,
    /// `1,5`
    #[serde(rename = ",")]
    Comma,
}

/// What stands between groups of three digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Group {
    /// `1,234`
    #[serde(rename = ",")]
    Comma,
    /// `1.234`
    #[serde(rename = ".")]
    Point,
    /// `1 234`, also with a space that is narrow or does not break.
    #[serde(rename = " ")]
    Space,
    /// `1'234`, also with U+2019.
    #[serde(rename = "'")]
    Apostrophe,
    /// `1_234`
    #[serde(rename = "_")]
    Underscore,
}

/// What the model is given of a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GivenAs {
    /// Seconds since 1970-01-01 00:00 UTC.
    #[default]
    Seconds,
    /// Days from 1970-01-01 to the date as it is written.
    Days,
    /// The text, once it is known to be a date.
    Text,
}

/// Upper or lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Case {
    /// `straße`
    Lower,
    /// `STRASSE`
    Upper,
}

/// A word that YAML reads as nothing.
trait NullWord {
    const NULL: Self;
}

impl NullWord for OnMissing {
    const NULL: Self = Self::Null;
}

impl NullWord for OnInvalid {
    const NULL: Self = Self::Null;
}

/// `on_missing: null`, with quotes or without.
fn or_null<'de, D: Deserializer<'de>, T: NullWord + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or(T::NULL))
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let value = Json::deserialize(deserializer)?;
    match value.as_str() {
        Some(one) => Ok(vec![one.to_owned()]),
        None => Vec::<String>::deserialize(value).map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clean::Clean;

    fn read(text: &str) -> Result<Clean, String> {
        let json = crate::config::yaml::value(text).ok_or("is not YAML")?;
        serde_json::from_value(json).map_err(|error| error.to_string())
    }

    #[test]
    fn words_are_read_and_written_back() {
        for text in [
            "{}",
            "{on_missing: null, on_invalid: null}",
            "{missing: ['', NA, -999], on_missing: impute, impute: 0.5}",
            "{type: number, decimal: ',', group: ' ', min: 0, max: 1e6, on_invalid: clamp}",
            "{type: number, decimal: '.', percent: true}",
            "{type: number, decimal: '.', units: {kg: 1, lb: 0.45359237, '': 1}}",
            "{type: number, units: {kg: 1, g: 0.001}, unit_field: unit}",
            "{type: boolean, true: [yes, y, 1], false: [no, 0]}",
            "{type: date, format: '%d.%m.%Y', zone: Europe/Berlin, as: days, on_missing: impute, impute: 0}",
            "{type: date, format: ['%Y-%m-%dT%H:%M:%S%.f%:z', '%s']}",
            "{type: text, trim: true, case: lower, nfc: true, allowed: [a, b]}",
        ] {
            let clean = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let again = serde_json::to_value(&clean).unwrap();
            assert_eq!(serde_json::from_value::<Clean>(again).unwrap(), clean, "{text}");
        }
        let null = read("{on_missing: null, on_invalid: null}").unwrap();
        assert_eq!(null.words().on_invalid, OnInvalid::Null);
        assert_eq!(read("{}").unwrap().words().on_invalid, OnInvalid::Reject);
        assert_eq!(read("{type: boolean, true: [y]}").unwrap().words().yes, ["y"]);
    }

    #[test]
    fn words_that_do_not_go_together_are_refused() {
        for (text, part) in [
            ("{on_absent: reject}", "unknown field `on_absent`"),
            ("{type: money}", "unknown variant `money`"),
            ("{type: number, decimal: ';'}", "unknown variant `;`"),
            ("{min: 0}", "min goes with type: number or date"),
            ("{type: text, min: 0}", "min goes with type: number or date"),
            ("{type: date, format: '%F', as: text, max: 0}", "max bounds a number"),
            ("{type: number, trim: true}", "trim goes with type: text"),
            ("{type: text, decimal: '.'}", "decimal goes with type: number"),
            ("{decimal: '.'}", "decimal goes with type: number"),
            ("{type: number, true: [y]}", "true goes with type: boolean"),
            ("{type: text, format: '%F'}", "format goes with type: date"),
            ("{type: number, min: 2, max: 1}", "min is 2 and max 1"),
            ("{type: number, decimal: '.', group: '.'}", "decimal and group are the same"),
            ("{type: number, group: ','}", "group says how a text is read, and decimal is missing"),
            ("{type: number, units: {kg: 1}}", "units says how a text is read, and decimal is"),
            ("{type: number, percent: true}", "percent says how a text is read, and decimal is"),
            ("{type: number, unit_field: u}", "unit_field is set, and units is not"),
            ("{type: number, factor: 0}", "factor is 0"),
            ("{type: number, decimal: '.', units: {kg: 0}}", "units has 0 for \"kg\""),
            ("{type: number, factor: 2, unit_field: u, units: {kg: 1}}", "factor and units"),
            ("{type: number, decimal: '.', percent: true, currency: [$]}", "percent and currency"),
            ("{type: number, decimal: '.', currency: ['']}", "currency has an empty text"),
            ("{type: number, decimal: '.', currency: ['5']}", "which begins or ends as a number"),
            ("{type: boolean, true: [y], false: [y]}", "true and false both have \"y\""),
            ("{type: boolean, true: [[y]]}", "true has [\"y\"]"),
            ("{type: date}", "format is missing"),
            ("{type: date, format: '%q'}", "format \"%q\""),
            ("{type: date, format: '%H:%M'}", "format \"%H:%M\""),
            ("{type: date, format: '%F', zone: Mars/Olympus}", "zone \"Mars/Olympus\""),
            ("{on_missing: impute}", "on_missing is impute, and impute is not set"),
            ("{on_invalid: impute}", "on_invalid is impute, and impute is not set"),
            ("{impute: 0}", "impute is set, and neither"),
            (
                "{type: number, on_missing: impute, impute: a}",
                "impute is \"a\", a number is wanted",
            ),
            (
                "{type: number, on_missing: impute, impute: 5, max: 1}",
                "impute is 5, which lies outside",
            ),
            (
                "{type: text, on_missing: impute, impute: c, allowed: [a]}",
                "impute is \"c\", which is none",
            ),
            ("{on_missing: impute, impute: 0, missing: [0]}", "impute is 0, which missing has"),
            (
                "{type: boolean, on_missing: impute, impute: 1}",
                "impute is 1, true or false is wanted",
            ),
            (
                "{type: date, format: '%F', as: text, on_missing: impute, impute: x}",
                "impute is \"x\", a date",
            ),
            ("{on_missing: impute, impute: [0]}", "impute is [0]"),
            ("{type: number, on_invalid: clamp}", "on_invalid is clamp, and neither min nor max"),
            (
                "{type: text, on_invalid: clamp}",
                "on_invalid is clamp, which goes with type: number",
            ),
            ("{type: number, on_invalid: clamp, min: 0, allowed: [1]}", "clamp and allowed"),
            ("{type: number, allowed: [a]}", "allowed has \"a\", a number is wanted"),
            ("{type: number, allowed: [5], max: 1}", "allowed has 5, which lies outside"),
            ("[number]", "expected a map"),
            ("{allowed: []}", "allowed is empty"),
            ("{type: boolean, allowed: [true]}", "allowed goes with type: number or text"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(part), "{text}: {part} in {said}");
        }
    }
}

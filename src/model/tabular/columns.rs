//! `preprocess.json`: what was fitted on each column, and a record's fields by it.
//!
//! A category is compared as scikit-learn's encoders compare it: numbers by their value, `true` as 1, text by its
//! characters. JSON writes what was fitted on numbers as numbers or, as `str()` gives it, as text: a text in the list that
//! is written as a number or a truth value stands for that one too, after the records that spell it in the same way.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::{Number, Value as Json};

use super::members::{Members, shown};
use crate::clean::{Clean, OnMissing};
use crate::field::{self, Value};
use crate::model::Given;
use crate::model::files::{self, Error};
use crate::record::{Fault, FaultClass};

/// The file in the artifact.
const FILE: &str = "preprocess.json";

/// Most features of a record: 512 KiB of f64 for each that waits.
const MOST_FEATURES: usize = 65_536;

/// Reads the columns out of `dir`.
///
/// # Errors
///
/// With the column, its member, and what was expected and found.
pub(super) fn read(dir: &std::path::Path) -> Result<Vec<Column>, Error> {
    let mut top = Members::of(FILE, String::new(), files::json(dir, FILE)?)?;
    let values: Vec<Json> = top.need("columns", "a list of columns")?;
    top.finish("columns")?;
    let (mut columns, mut names, mut features) = (Vec::new(), HashSet::new(), 0);
    for (number, value) in (1..).zip(values) {
        let column = Column::read(number, value)?;
        if !names.insert(column.name.clone()) {
            let message = format!("column {:?} stands twice: a field is read once", column.name);
            return Err(Error::config(FILE, message));
        }
        features += column.width();
        if MOST_FEATURES < features {
            let message = format!("its columns make more than {MOST_FEATURES} features");
            return Err(Error::config(FILE, message));
        }
        columns.push(column);
    }
    if columns.is_empty() {
        return Err(Error::config(FILE, "columns is empty: a record would have no features"));
    }
    Ok(columns)
}

/// A field and its features.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    /// What is done before it is encoded.
    pub(super) clean: Option<Clean>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// One feature: `(value − mean) / scale`.
    Numeric { impute: Option<f64>, mean: f64, scale: f64, min: f64, max: f64 },
    /// A feature for each category. Where it is imputed, null is the replacement among the categories.
    Categorical { imputed: bool, categories: Categories, unknown: Unknown },
}

/// What a category means that was not fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unknown {
    /// All features 0, as scikit-learn's `handle_unknown="ignore"`; of null and an absent field too.
    Ignore,
    /// The record becomes a dead letter.
    Error,
}

impl Column {
    fn read(number: usize, value: Json) -> Result<Self, Error> {
        let mut members = Members::of(FILE, format!("column {number}: "), value)?;
        let name: String = members.need("name", "a field's name")?;
        members.at = format!("column {number} ({name:?}): ");
        let wanted = "\"numeric\" or \"categorical\"";
        let kind: String = members.need("kind", wanted)?;
        let clean = members.clean()?;
        let kind = match kind.as_str() {
            "numeric" => Kind::numeric(members)?,
            "categorical" => Kind::categorical(members)?,
            other => {
                let message = format!("kind is {other:?}, {wanted} is wanted");
                return Err(members.error(&message));
            }
        };
        Ok(Self { name, clean, kind })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether such a value may be one of the column.
    pub(super) fn takes(&self, given: Given) -> bool {
        match (&self.kind, given) {
            (Kind::Numeric { .. }, _) | (Kind::Categorical { .. }, Given::Bytes) => false,
            (Kind::Categorical { .. }, Given::Text) => true,
        }
    }

    pub(super) fn width(&self) -> usize {
        match &self.kind {
            Kind::Numeric { .. } => 1,
            Kind::Categorical { categories, .. } => categories.count,
        }
    }

    /// What stands for a value that a record does not have; `None` where such a record is refused, or where null is a
    /// category like others.
    pub(super) fn fills(&self) -> Option<OnMissing> {
        match &self.kind {
            Kind::Numeric { impute: Some(_), .. } | Kind::Categorical { imputed: true, .. } => {
                Some(OnMissing::Impute)
            }
            Kind::Categorical { categories, unknown: Unknown::Ignore, .. } => {
                categories.null.is_none().then_some(OnMissing::Null)
            }
            Kind::Numeric { impute: None, .. } | Kind::Categorical { .. } => None,
        }
    }

    /// Appends this column's features in f64.
    ///
    /// # Errors
    ///
    /// What is wrong with the field, by its name.
    pub(super) fn encode(
        &self,
        value: Option<&Value<'_>>,
        out: &mut Vec<f64>,
    ) -> Result<(), Fault> {
        match &self.kind {
            Kind::Numeric { impute, mean, scale, min, max } => {
                let number = match value {
                    // As Python has it, and what is fitted on truth values.
                    Some(Value::Bool(truth)) => f64::from(u8::from(*truth)),
                    None | Some(Value::Null) => impute.ok_or_else(|| self.missing())?,
                    Some(other) => match other.number() {
                        Some(number) => number,
                        None => return Err(field::not(&self.name, other, "a number")),
                    },
                };
                if !number.is_finite() {
                    return Err(self.invalid("is NaN or infinite"));
                }
                if !(*min..=*max).contains(&number) {
                    let range = format!("{min} to {max}");
                    return Err(self.invalid(&format!(
                        "is outside of the range that the model was fitted for, {range}"
                    )));
                }
                let feature = (number - mean) / scale;
                if !feature.is_finite() {
                    return Err(self.invalid("is too large"));
                }
                out.push(feature);
            }
            Kind::Categorical { imputed, categories, unknown } => {
                let value = value.unwrap_or(&Value::Null);
                let place = categories.find(value).map_err(|()| {
                    field::not(&self.name, value, "a text, a number or a truth value")
                })?;
                if place.is_none() && *unknown == Unknown::Error {
                    return Err(if *value == Value::Null && !imputed {
                        self.missing()
                    } else {
                        self.invalid("is none of the categories that the model was fitted for")
                    });
                }
                let start = out.len();
                out.resize(start + categories.count, 0.0);
                if let Some(place) = place {
                    out[start + place] = 1.0;
                }
            }
        }
        Ok(())
    }

    fn missing(&self) -> Fault {
        let message = format!(
            "field {:?} is missing or null, and the model has no replacement for it",
            self.name
        );
        Fault::new(FaultClass::Missing, message)
    }

    fn invalid(&self, what: &str) -> Fault {
        Fault::new(FaultClass::Invalid, format!("field {:?} {what}", self.name))
    }
}

impl Kind {
    fn numeric(mut members: Members) -> Result<Self, Error> {
        let mut number = |key: &str| members.take::<f64>(key, "a number");
        let (impute, mean, scale) = (number("impute")?, number("mean")?, number("scale")?);
        let (min, max) = (number("min")?, number("max")?);
        let (mean, scale) = (mean.unwrap_or(0.0), scale.unwrap_or(1.0));
        let (min, max) = (min.unwrap_or(f64::MIN), max.unwrap_or(f64::MAX));
        if !scale.is_normal() {
            let message = format!(
                "scale is {scale}, which nothing can be divided by; scikit-learn's scale_ is 1 for a column that is \
                 always the same"
            );
            return Err(members.error(&message));
        }
        if max < min {
            return Err(members.error(&format!("min is {min} and max {max}: nothing lies between")));
        }
        members.finish("name, kind, clean, impute, mean, scale, min, max")?;
        Ok(Self::Numeric { impute, mean, scale, min, max })
    }

    fn categorical(mut members: Members) -> Result<Self, Error> {
        let impute: Option<Json> = members.take("impute", "a category")?;
        let categories: Vec<Json> = members.need("categories", "a list of categories")?;
        let wanted = "\"ignore\" or \"error\"";
        let unknown = members.take("unknown", wanted)?.unwrap_or(Unknown::Ignore);
        let mut categories =
            Categories::new(&categories).map_err(|message| members.error(&message))?;
        if let Some(value @ (Json::Array(_) | Json::Object(_))) = &impute {
            return Err(members.error(&format!("impute is {}, a category is wanted", shown(value))));
        }
        members.finish("name, kind, clean, impute, categories, unknown")?;
        if let Some(value) = &impute {
            // Lists and objects were refused above.
            categories.null = categories.find(&Value::from(value)).unwrap_or_default();
        }
        Ok(Self::Categorical { imputed: impute.is_some(), categories, unknown })
    }
}

/// The categories of a column by what a record may write for them.
#[derive(Debug)]
struct Categories {
    count: usize,
    /// By their characters.
    texts: HashMap<String, usize>,
    /// By the value of a number or truth value: see [`equal`].
    values: HashMap<String, usize>,
    /// Where a record has none.
    null: Option<usize>,
}

impl Categories {
    fn new(categories: &[Json]) -> Result<Self, String> {
        if !(1..=MOST_FEATURES).contains(&categories.len()) {
            return Err(format!("{} categories, not 1 to {MOST_FEATURES}", categories.len()));
        }
        let (mut texts, mut values, mut null) = (HashMap::new(), HashMap::new(), None);
        let mut as_text = Vec::new();
        for (place, category) in categories.iter().enumerate() {
            let before = match category {
                Json::String(text) => {
                    as_text.extend(meant(text).map(|value| (value, place)));
                    texts.insert(text.clone(), place)
                }
                Json::Number(number) => values.insert(equal(number), place),
                Json::Bool(truth) => values.insert(truth_as_number(*truth), place),
                Json::Null => null.replace(place),
                Json::Array(_) | Json::Object(_) => {
                    return Err(format!(
                        "category {} is {}; texts, numbers, true, false and null can be categories",
                        place + 1,
                        shown(category)
                    ));
                }
            };
            if before.is_some() {
                return Err(format!("category {} stands twice", shown(category)));
            }
        }
        for (value, place) in as_text {
            values.entry(value).or_insert(place);
        }
        Ok(Self { count: categories.len(), texts, values, null })
    }

    /// Which one it is, if it is one; an error of what cannot be a category.
    fn find(&self, value: &Value<'_>) -> Result<Option<usize>, ()> {
        let number = |number: Number| {
            self.texts.get(&number.to_string()).or_else(|| self.values.get(&equal(&number)))
        };
        let place = match value {
            Value::Text(text) => self.texts.get(&**text),
            // Formats read whole numbers that JSON has too; others are their nearest f64.
            Value::Int(whole) => Number::from_i128(*whole).and_then(number),
            Value::Float(value) => Number::from_f64(*value).and_then(number),
            Value::Decimal(digits) => digits.parse().ok().and_then(number),
            Value::Bool(truth) => self
                .texts
                .get(&truth.to_string())
                .or_else(|| self.texts.get(if *truth { "True" } else { "False" }))
                .or_else(|| self.values.get(&truth_as_number(*truth))),
            Value::Null => self.null.as_ref(),
            Value::Bytes(_) | Value::List | Value::Map => return Err(()),
        };
        Ok(place.copied())
    }
}

/// The number that a text writes as JSON or Python does, or the truth value: its [`equal`].
fn meant(text: &str) -> Option<String> {
    match text {
        "true" | "True" => Some(truth_as_number(true)),
        "false" | "False" => Some(truth_as_number(false)),
        _ => text.parse().ok().map(|number| equal(&number)),
    }
}

fn truth_as_number(truth: bool) -> String {
    u8::from(truth).to_string()
}

/// A text that two numbers share where they are equal: 1, 1.0 and 1e0 are `1`.
fn equal(number: &Number) -> String {
    /// Whole numbers below it are exact in both.
    const WHOLE: f64 = 1e38;
    match number.as_f64() {
        Some(value) if number.is_f64() && value.fract() == 0.0 && value.abs() < WHOLE => {
            #[expect(clippy::cast_possible_truncation, reason = "whole, and far below 2^127")]
            let whole = value as i128;
            whole.to_string()
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(json: &str) -> Result<Column, String> {
        let value = serde_json::from_str(json).map_err(|error| error.to_string())?;
        Column::read(1, value).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn encodes(json: &str, fields: &str, expect: Result<&[f64], (FaultClass, &str)>) {
        let fields: serde_json::Map<String, Json> = serde_json::from_str(fields).unwrap();
        let (column, mut out) = (column(json).unwrap(), Vec::new());
        let result = column.encode(fields.get(&column.name).map(Value::from).as_ref(), &mut out);
        match (result, expect) {
            (Ok(()), Ok(expect)) => assert_eq!(out, expect),
            (Err(fault), Err((class, part))) => {
                assert_eq!(fault.class, class);
                assert!(fault.message.contains(part), "{}", fault.message);
            }
            (got, expect) => panic!("{got:?} {out:?}, expected {expect:?}"),
        }
    }

    /// What is refused before a record comes is what every record is refused for.
    #[test]
    fn a_column_takes_what_may_be_one_of_its_values() {
        for (json, text, bytes) in [
            (r#"{"kind":"numeric","name":"a"}"#, false, false),
            (r#"{"kind":"categorical","name":"a","categories":["red"]}"#, true, false),
        ] {
            let column = column(json).unwrap();
            for (given, value, takes) in [
                (Given::Text, Value::Text("red".into()), text),
                (Given::Bytes, Value::Bytes(b"red".into()), bytes),
            ] {
                assert_eq!(column.takes(given), takes, "{json} {given:?}");
                assert_eq!(column.encode(Some(&value), &mut Vec::new()).is_ok(), takes, "{json}");
            }
        }
    }

    #[test]
    fn columns_are_imputed_scaled_and_encoded() {
        use FaultClass::{Invalid, Missing};
        let number = r#"{"kind":"numeric","name":"a","impute":3,"mean":1,"scale":2,"min":-9}"#;
        encodes(number, r#"{"a":5}"#, Ok(&[2.0]));
        encodes(number, "{}", Ok(&[1.0]));
        encodes(number, r#"{"a":null}"#, Ok(&[1.0]));
        encodes(number, r#"{"a":true}"#, Ok(&[0.0]));
        encodes(number, r#"{"a":1e300}"#, Ok(&[5e299]));
        encodes(number, r#"{"a":"5"}"#, Err((Invalid, "field \"a\" is a string, not a number")));
        encodes(number, r#"{"a":-10}"#, Err((Invalid, "outside of the range")));
        let bare = r#"{"kind":"numeric","name":"a","min":null,"impute":null}"#;
        encodes(bare, "{}", Err((Missing, "field \"a\" is missing")));
        encodes(bare, r#"{"a":9007199254740993}"#, Ok(&[9_007_199_254_740_992.0]));
        let small = r#"{"kind":"numeric","name":"a","scale":1e-300}"#;
        encodes(small, r#"{"a":1e300}"#, Err((Invalid, "too large")));
        let color =
            r#"{"kind":"categorical","name":"c","impute":"red","categories":["red","blue"]}"#;
        encodes(color, r#"{"c":"blue"}"#, Ok(&[0.0, 1.0]));
        encodes(color, "{}", Ok(&[1.0, 0.0]));
        encodes(color, r#"{"c":"green"}"#, Ok(&[0.0, 0.0]));
        encodes(color, r#"{"c":7}"#, Ok(&[0.0, 0.0]));
        encodes(color, r#"{"c":[]}"#, Err((Invalid, "is an array, not a text")));
        let bare = r#"{"kind":"categorical","name":"c","categories":["red","blue"]}"#;
        encodes(bare, "{}", Ok(&[0.0, 0.0]));
        encodes(bare, r#"{"c":null}"#, Ok(&[0.0, 0.0]));
        let bare = bare.replace('}', r#","unknown":"error"}"#);
        encodes(&bare, "{}", Err((Missing, "field \"c\" is missing")));
        encodes(&bare, r#"{"c":null}"#, Err((Missing, "field \"c\" is missing")));
        let strict = color.replace('}', r#","unknown":"error"}"#);
        encodes(&strict, r#"{"c":"green"}"#, Err((Invalid, "none of the categories")));
        encodes(&strict, r#"{"c":7}"#, Err((Invalid, "none of the categories")));
    }

    /// Which category a record's value is, beside what numpy and Python say of the values that were fitted.
    #[test]
    fn categories_are_compared_as_encoders_compare_them() {
        let numbers = r"[1, 2, 3]";
        let floats = r"[0.5, 1.0, 9007199254740993]";
        let truths = r"[false, true]";
        let texts = r#"["1", "2", "3"]"#;
        let printed = r#"["1.0", "2.0", "1e+16"]"#;
        let codes = r#"["007", "7", " 8", "nan"]"#;
        let python = r#"["False", "True"]"#;
        let mixed = r#"["red", "1", "true", null]"#;
        for (categories, value, expect) in [
            (numbers, "2", Some(1)),
            (numbers, "2.0", Some(1)),
            (numbers, "20e-1", Some(1)),
            (numbers, "true", Some(0)),
            (numbers, "false", None),
            (numbers, "2.5", None),
            (numbers, "\"2\"", None),
            (floats, "1", Some(1)),
            (floats, "0.5", Some(0)),
            (floats, "9007199254740993", Some(2)),
            (floats, "9007199254740992", None),
            (truths, "true", Some(1)),
            (truths, "1", Some(1)),
            (truths, "0.0", Some(0)),
            (truths, "-0.0", Some(0)),
            (truths, "\"true\"", None),
            (texts, "\"2\"", Some(1)),
            (texts, "2", Some(1)),
            (texts, "2.0", Some(1)),
            (texts, "\"2.0\"", None),
            (texts, "true", Some(0)),
            (printed, "1", Some(0)),
            (printed, "2.0", Some(1)),
            (printed, "10000000000000000", Some(2)),
            (printed, "\"1\"", None),
            (codes, "7", Some(1)),
            (codes, "\"007\"", Some(0)),
            (codes, "8", None),
            (python, "true", Some(1)),
            (python, "0", Some(0)),
            (mixed, "1", Some(1)),
            (mixed, "true", Some(2)),
            (mixed, "\"true\"", Some(2)),
            (mixed, "null", Some(3)),
        ] {
            let categories: Vec<Json> = serde_json::from_str(categories).unwrap();
            let found = Categories::new(&categories).unwrap();
            let value: Json = serde_json::from_str(value).unwrap();
            assert_eq!(found.find(&Value::from(&value)), Ok(expect), "{value} in {categories:?}");
        }
    }

    #[test]
    fn a_column_that_cannot_be_is_refused_by_its_member() {
        for (json, part) in [
            ("7", "column 1: is 7, an object is wanted"),
            (r#"{"kind":"numeric"}"#, "column 1: name is missing"),
            (r#"{"name":"a"}"#, "column 1 (\"a\"): kind is missing, \"numeric\" or"),
            (r#"{"name":"a","kind":"ordinal"}"#, "kind is \"ordinal\", \"numeric\" or"),
            (r#"{"name":"a","kind":"numeric","mean":"1"}"#, "mean is \"1\", a number is wanted"),
            (r#"{"name":"a","kind":"numeric","scale":0}"#, "scale is 0, which nothing"),
            (
                r#"{"name":"a","kind":"numeric","std":2}"#,
                "std is not known here; there may be name",
            ),
            (r#"{"name":"a","kind":"numeric","min":2,"max":1}"#, "nothing lies between"),
            (r#"{"name":"a","kind":"categorical"}"#, "categories is missing"),
            (
                r#"{"name":"a","kind":"categorical","categories":[]}"#,
                "0 categories, not 1 to 65536",
            ),
            (r#"{"name":"a","kind":"categorical","categories":[["a"]]}"#, "category 1 is [\"a\"]"),
            (r#"{"name":"a","kind":"categorical","categories":["a","a"]}"#, "\"a\" stands twice"),
            (r#"{"name":"a","kind":"categorical","categories":[1,1.0]}"#, "1.0 stands twice"),
            (r#"{"name":"a","kind":"categorical","categories":[1,true]}"#, "true stands twice"),
            (
                r#"{"name":"a","kind":"numeric","clean":{"type":"number","decimal":"x"}}"#,
                "clean: unknown variant `x`",
            ),
            (
                r#"{"name":"a","kind":"numeric","clean":{"type":"number","decimal":".","trim":true}}"#,
                "clean: trim goes with type: text",
            ),
            (
                r#"{"name":"a","kind":"numeric","clean":{"on_absent":"null"}}"#,
                "clean: unknown field `on_absent`",
            ),
            (r#"{"name":"a","kind":"numeric","clean":7}"#, "clean: invalid type"),
            (
                r#"{"name":"a","kind":"categorical","categories":["a"],"unknown":"infrequent"}"#,
                "unknown is \"infrequent\", \"ignore\" or \"error\" is wanted",
            ),
        ] {
            let said = column(json).unwrap_err();
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}

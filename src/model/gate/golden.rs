//! Golden vectors: inputs with the answers that they gave when the model was made.
//!
//! A comparison that compares nothing would pass whatever the weights are. So each answer must stand there whole, with
//! every member it is published with; at least one text, or one number that is not 0, must have been compared; and no
//! difference is allowed that an answer of zeros would pass with.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::answer::{Prediction, Task};
use crate::model::artifact::{Golden, Manifest};
use crate::model::files::{Error, bytes, parse, present};
use crate::model::{About, Input, Model, guard};

/// A record's fields.
type Fields = serde_json::Map<String, Value>;

/// The file that holds them where no manifest says more.
pub(super) const FILE: &str = "golden.json";

/// Largest difference that the manifest of an import allows, of 1, or of the number where that is more; in f32 and f64.
const TOLERANCE: f64 = 1e-4;

/// Largest difference that is allowed in any other precision, and by any manifest.
const ROUNDED: f64 = 0.05;

/// Rows that are answered together.
const ROWS: usize = 64;

#[derive(Deserialize)]
struct Pair {
    input: Fields,
    output: Value,
}

/// What the manifest of an import says of [`FILE`], and what goes without a manifest.
pub(super) fn own() -> Golden {
    Golden { file: FILE.to_owned(), tolerance: TOLERANCE }
}

/// How far the numbers of two answers may be apart that the same version gave on other instructions.
pub fn tolerance(about: &About) -> f64 {
    if exact(about) { TOLERANCE } else { ROUNDED }
}

/// Whether a model computes in what it was trained in.
fn exact(about: &About) -> bool {
    ["f32", "f64"].contains(&about.precision)
}

/// Compares what the manifest names, else [`FILE`], where there is one: how many numbers and texts.
///
/// # Errors
///
/// The first difference; or why nothing would be compared.
pub(super) fn check(
    dir: &Path,
    model: &dyn Model,
    manifest: Option<&Manifest>,
) -> Result<Option<usize>, Error> {
    let named = manifest.and_then(|manifest| manifest.golden.clone());
    let Some(golden) = named.or_else(|| present(dir, FILE).then(own)) else {
        return Ok(None);
    };
    if manifest.is_some_and(|manifest| !manifest.files.contains_key(&golden.file)) {
        let what = "is not among the files of manifest.json";
        return Err(Error::Gate(format!("{}: {what}", golden.file)));
    }
    compare(dir, model, &golden).map(Some)
}

/// Runs the inputs of a file, and compares every number.
fn compare(
    dir: &Path,
    model: &dyn Model,
    Golden { file, tolerance }: &Golden,
) -> Result<usize, Error> {
    let fail = |what: String| Err(Error::Gate(format!("{file}: {what}")));
    if !(0.0..=ROUNDED).contains(tolerance) {
        return fail(format!(
            "manifest.json allows a difference of {tolerance}, not 0 to {ROUNDED}: with more, answers of another model \
             would pass"
        ));
    }
    let pairs: Vec<Pair> = parse(file, &bytes(dir, file)?).map_err(|error| {
        Error::Gate(format!(
            "{error}; golden vectors are a list of {{\"input\": {{fields}}, \"output\": {{as published}}}}: write them \
             so, or leave the file out"
        ))
    })?;
    let tolerance = if exact(model.about()) { *tolerance } else { ROUNDED };
    let mut allowed = Allowed { tolerance, largest: BTreeMap::new() };
    for pair in &pairs {
        allowed.read(&pair.output, "");
    }
    let (mut compared, mut others) = (0, false);
    for (part, pairs) in pairs.chunks(ROWS).enumerate() {
        let (same, other) = rows(model, pairs, &allowed).map_err(|(row, what)| {
            Error::Gate(format!("{file}, row {}: {what}", part * ROWS + row))
        })?;
        compared += same;
        others |= other;
    }
    if compared == 0 && !others {
        return fail(
            "compares nothing, or only numbers that are 0: write inputs with the outputs that they gave, or leave the \
             file out"
                .to_owned(),
        );
    }
    Ok(compared)
}

/// How many numbers and texts of these answers are as they should be, and whether a text was answered in windows, which
/// nobody had in mind; else the first row that is not, and how.
fn rows(
    model: &dyn Model,
    pairs: &[Pair],
    allowed: &Allowed,
) -> Result<(usize, bool), (usize, String)> {
    let mut inputs = Vec::with_capacity(pairs.len());
    for (row, pair) in pairs.iter().enumerate() {
        let input = model.prepare_object(&named(model, &pair.input));
        inputs.push(input.map_err(|fault| (row, fault.to_string()))?);
    }
    let refs: Vec<&Input> = inputs.iter().collect();
    let together = guard::predict(model, &refs).map_err(|refused| (0, refused.to_string()))?;
    let (mut compared, mut others) = (0, false);
    for (row, (pair, prediction)) in pairs.iter().zip(together).enumerate() {
        let Some(prediction) = whole(prediction) else {
            others = true;
            continue;
        };
        let value = value(&prediction).map_err(|error| (row, error))?;
        compared += allowed.difference(&pair.output, &value, "").map_err(|what| (row, what))?;
    }
    Ok((compared, others))
}

/// The answer to a whole text; of one that was answered in windows, that of its only window.
fn whole(prediction: Prediction) -> Option<Prediction> {
    match prediction {
        Prediction::Chunks(mut chunks) if chunks.len() == 1 => {
            chunks.pop().map(|chunk| Prediction::Embedding(chunk.embedding))
        }
        Prediction::Mean { embedding, of: 1 } => Some(Prediction::Embedding(embedding)),
        Prediction::Chunks(_) | Prediction::Mean { .. } => None,
        whole @ (Prediction::Embedding(_)
        | Prediction::Label { .. }
        | Prediction::Value(_)
        | Prediction::Spans(_)) => Some(whole),
    }
}

/// Where a model reads one field, or the two texts of a pair, and an input has as many, they are the same in their
/// order: what a text or an image is called is a matter of `input.field`, which may differ where the vectors were made.
fn named<'a>(model: &dyn Model, input: &'a Fields) -> Cow<'a, Fields> {
    let about = model.about();
    let fields = &about.fields;
    let theirs = fields.len() == 1 || about.task == Task::TextRanking;
    if theirs && fields.len() == input.len() && fields.iter().any(|name| !input.contains_key(name))
    {
        return Cow::Owned(fields.iter().cloned().zip(input.values().cloned()).collect());
    }
    Cow::Borrowed(input)
}

/// A prediction as the JSON that is published.
fn value(prediction: &Prediction) -> Result<Value, String> {
    let bytes = crate::format::prediction_alone(prediction);
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

/// How far the numbers of an answer may be from what is expected.
struct Allowed {
    /// Of 1, or of the number where that is more.
    tolerance: f64,
    /// The largest number that is expected in each place of an output, all elements of a list being one place.
    largest: BTreeMap<String, f64>,
}

impl Allowed {
    /// Takes the numbers of an expected output into account.
    fn read(&mut self, expected: &Value, place: &str) {
        match expected {
            Value::Number(number) => {
                let size = number.as_f64().unwrap_or(0.0).abs();
                let largest = self.largest.entry(place.to_owned()).or_default();
                *largest = largest.max(size);
            }
            Value::Array(elements) => elements.iter().for_each(|element| self.read(element, place)),
            Value::Object(members) => {
                members.iter().for_each(|(name, member)| self.read(member, &inner(place, name)));
            }
            Value::Null | Value::Bool(_) | Value::String(_) => (),
        }
    }

    /// How many numbers and texts two outputs share, if they are equal but for what is allowed. Numbers of a place where
    /// only 0 is expected do not count.
    fn difference(&self, expected: &Value, found: &Value, place: &str) -> Result<usize, String> {
        match (expected, found) {
            (Value::Number(e), Value::Number(f)) => {
                // Places of a text are exact.
                let counted = f.is_u64();
                let (e, f) = (e.as_f64().unwrap_or(f64::NAN), f.as_f64().unwrap_or(f64::NAN));
                let largest = self.largest.get(place).copied().unwrap_or(0.0);
                let tolerance = match largest {
                    _ if counted => 0.0,
                    0.0 => self.tolerance,
                    largest => (self.tolerance * e.abs().max(1.0)).min(largest / 2.0),
                };
                if (e - f).abs() <= tolerance {
                    return Ok(usize::from(0.0 < largest));
                }
                Err(format!("{f} where {e} ± {tolerance} was expected"))
            }
            (Value::Array(e), Value::Array(f)) if e.len() == f.len() => {
                let mut pairs = e.iter().zip(f);
                pairs.try_fold(0, |sum, (e, f)| Ok(sum + self.difference(e, f, place)?))
            }
            (Value::Array(e), Value::Array(f)) => {
                Err(format!("{} elements where {} were expected", f.len(), e.len()))
            }
            (Value::Object(e), Value::Object(f)) => {
                if let Some(name) = f.keys().find(|name| !e.contains_key(*name)) {
                    return Err(format!(
                        "the expected output has no member {name:?}, the answer has"
                    ));
                }
                e.iter().try_fold(0, |sum, (name, e)| {
                    let f =
                        f.get(name).ok_or_else(|| format!("the answer has no member {name:?}"))?;
                    let same = self.difference(e, f, &inner(place, name));
                    Ok(sum + same.map_err(|what| format!("{name}: {what}"))?)
                })
            }
            (e, f) if e == f => Ok(1),
            (e, f) => Err(format!("{f} where {e} was expected")),
        }
    }
}

fn inner(place: &str, name: &str) -> String {
    format!("{place}/{name}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn outputs_are_equal_only_where_they_say_the_same() {
        let answer = json!({"label": "a", "scores": {"a": 0.75, "b": 0.25}, "spans": []});
        for (expected, result) in [
            (answer.clone(), Ok(3)),
            (json!({"label": "a", "scores": {"a": 0.7, "b": 0.3}, "spans": []}), Ok(3)),
            (json!({}), Err("no member \"label\"")),
            (
                json!({"label": "a", "scores": {}, "spans": []}),
                Err("scores: the expected output has no"),
            ),
            (json!({"label": "b", "scores": {"a": 0.75, "b": 0.25}, "spans": []}), Err("label: ")),
            (
                json!({"label": "a", "scores": {"a": 0.6, "b": 0.25}, "spans": []}),
                Err("0.75 where 0.6"),
            ),
            (
                json!({"label": "a", "scores": {"a": 0.75, "b": 0.25}, "spans": [], "x": 1}),
                Err("the answer has no member \"x\""),
            ),
            (json!([]), Err("was expected")),
            (json!(null), Err("was expected")),
        ] {
            match (differs(&expected, &answer, 0.1), result) {
                (Ok(count), Ok(expect)) => assert_eq!(count, expect, "{expected}"),
                (Err(what), Err(part)) => assert!(what.contains(part), "{what}"),
                (found, expect) => panic!("{expected}: {found:?}, expected {expect:?}"),
            }
        }
        assert_eq!(differs(&json!([]), &json!([]), 0.1), Ok(0), "nothing was compared");
        let long = differs(&json!([1]), &json!([1, 2]), 0.1);
        assert_eq!(long, Err("2 elements where 1 were expected".to_owned()));
    }

    /// Each of these would pass by the tolerance alone.
    #[test]
    fn an_answer_of_zeros_never_passes() {
        for (expected, found, result) in [
            (json!({"value": 0.0}), json!({"value": 0.0}), Ok(0)),
            (json!({"value": 1e-9}), json!({"value": 0.0}), Err("0 where 0.000000001")),
            (json!({"value": 1e-9}), json!({"value": 1.2e-9}), Ok(1)),
            (json!({"value": 1e9}), json!({"value": 1_000_040_000.0}), Ok(1)),
            (json!({"value": 1e9}), json!({"value": 1_060_000_000.0}), Err("1060000000 where")),
            (json!({"embedding": [0.03, 0.01]}), json!({"embedding": [0.0, 0.0]}), Err("0 where")),
            (json!({"embedding": [0.03, 0.0]}), json!({"embedding": [0.025, 0.004]}), Ok(2)),
            (json!({"embedding": [0.0, 0.0]}), json!({"embedding": [0.0, 0.0]}), Ok(0)),
            (json!({"start": 400}), json!({"start": 401}), Err("401 where 400 ± 0")),
        ] {
            match (differs(&expected, &found, 0.05), result) {
                (Ok(count), Ok(expect)) => assert_eq!(count, expect, "{expected}"),
                (Err(what), Err(part)) => assert!(what.contains(part), "{what}"),
                (found, expect) => panic!("{expected}: {found:?}, expected {expect:?}"),
            }
        }
    }

    fn differs(expected: &Value, found: &Value, tolerance: f64) -> Result<usize, String> {
        let mut allowed = Allowed { tolerance, largest: BTreeMap::new() };
        allowed.read(expected, "");
        allowed.difference(expected, found, "")
    }
}

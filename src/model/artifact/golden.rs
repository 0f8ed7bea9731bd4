//! Golden vectors: inputs with the answers that they gave when the model was made.
//!
//! A comparison that compares nothing would pass whatever the weights are. So each answer must stand there whole, with
//! every member it is published with, and at least one number or text must have been compared.

use std::borrow::Cow;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::files::json;
use super::manifest::{Golden, Manifest};
use super::{Error, LoadOptions};
use crate::config::Precision;
use crate::model::{Fields, Input, Model, Prediction, Task, worker};

/// The file that an import takes them from.
pub(super) const FILE: &str = "golden.json";

/// Largest difference that the manifest of an import allows, in f32.
const TOLERANCE: f64 = 1e-4;

/// Largest difference that is allowed in any other precision.
const ROUNDED: f64 = 0.05;

/// Rows that are answered together.
const ROWS: usize = 64;

#[derive(Deserialize)]
struct Pair {
    input: Fields,
    output: Value,
}

/// What the manifest of an import says of [`FILE`].
pub(super) fn own() -> Golden {
    Golden { file: FILE.to_owned(), tolerance: TOLERANCE }
}

/// Runs the inputs that a manifest names, and compares every number.
///
/// # Errors
///
/// The first difference; or why nothing would be compared.
pub(super) fn compare(
    dir: &Path,
    model: &dyn Model,
    manifest: &Manifest,
    options: &LoadOptions,
) -> Result<(), Error> {
    let Some(Golden { file, tolerance }) = &manifest.golden else {
        return Ok(());
    };
    let fail = |what: String| Err(Error::Gate(format!("{file}: {what}")));
    if !(0.0..=1.0).contains(tolerance) {
        return fail(format!("manifest.json allows a difference of {tolerance}, not 0 to 1"));
    }
    if !manifest.files.contains_key(file) {
        return fail("is not among the files of manifest.json".to_owned());
    }
    let pairs: Vec<Pair> = json(dir, file)?;
    let tolerance =
        if options.precision == Precision::F32 { *tolerance } else { tolerance.max(ROUNDED) };
    let mut compared = 0;
    for (part, pairs) in pairs.chunks(ROWS).enumerate() {
        compared += rows(model, pairs, tolerance).map_err(|(row, what)| {
            Error::Gate(format!("{file}, row {}: {what}", part * ROWS + row))
        })?;
    }
    if compared == 0 {
        return fail(
            "compares nothing: write inputs with the outputs that they gave, or leave the file out"
                .to_owned(),
        );
    }
    Ok(())
}

/// How many numbers and texts of these answers are as they should be; else the first row that is not, and how.
fn rows(model: &dyn Model, pairs: &[Pair], tolerance: f64) -> Result<usize, (usize, String)> {
    let mut inputs = Vec::with_capacity(pairs.len());
    for (row, pair) in pairs.iter().enumerate() {
        let input = model.prepare(&named(model, &pair.input));
        inputs.push(input.map_err(|fault| (row, fault.to_string()))?);
    }
    let refs: Vec<&Input> = inputs.iter().collect();
    let together = worker::predict(model, &refs).map_err(|refused| (0, refused.to_string()))?;
    let mut compared = 0;
    for (row, (pair, prediction)) in pairs.iter().zip(&together).enumerate() {
        let value = value(prediction).map_err(|error| (row, error))?;
        compared += difference(&pair.output, &value, tolerance).map_err(|what| (row, what))?;
    }
    Ok(compared)
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
    let bytes = crate::format::encode_alone(prediction);
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

/// How many numbers and texts two outputs share, if they are equal but for `tolerance` in their numbers.
fn difference(expected: &Value, found: &Value, tolerance: f64) -> Result<usize, String> {
    match (expected, found) {
        (Value::Number(e), Value::Number(f)) => {
            let (e, f) = (e.as_f64().unwrap_or(f64::NAN), f.as_f64().unwrap_or(f64::NAN));
            if (e - f).abs() <= tolerance {
                return Ok(1);
            }
            Err(format!("{f} where {e} ± {tolerance} was expected"))
        }
        (Value::Array(e), Value::Array(f)) if e.len() == f.len() => {
            e.iter().zip(f).try_fold(0, |sum, (e, f)| Ok(sum + difference(e, f, tolerance)?))
        }
        (Value::Array(e), Value::Array(f)) => {
            Err(format!("{} elements where {} were expected", f.len(), e.len()))
        }
        (Value::Object(e), Value::Object(f)) => {
            if let Some(name) = f.keys().find(|name| !e.contains_key(*name)) {
                return Err(format!("the expected output has no member {name:?}, the answer has"));
            }
            e.iter().try_fold(0, |sum, (name, e)| {
                let f = f.get(name).ok_or_else(|| format!("the answer has no member {name:?}"))?;
                let same = difference(e, f, tolerance).map_err(|what| format!("{name}: {what}"))?;
                Ok(sum + same)
            })
        }
        (e, f) if e == f => Ok(1),
        (e, f) => Err(format!("{f} where {e} was expected")),
    }
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
            match (difference(&expected, &answer, 0.1), result) {
                (Ok(count), Ok(expect)) => assert_eq!(count, expect, "{expected}"),
                (Err(what), Err(part)) => assert!(what.contains(part), "{what}"),
                (found, expect) => panic!("{expected}: {found:?}, expected {expect:?}"),
            }
        }
        assert_eq!(difference(&json!([]), &json!([]), 0.1), Ok(0), "nothing was compared");
        let long = difference(&json!([1]), &json!([1, 2]), 0.1);
        assert_eq!(long, Err("2 elements where 1 were expected".to_owned()));
    }
}

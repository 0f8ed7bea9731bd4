//! Random folders of every kind, as `tests/differential/run --commit` wrote them: what transformers, sentence-transformers
//! and scikit-learn answer with them, or the refusal that the documentation announces.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use crate::folders::json;

/// `case.json`. What it says beside is how the folder is made again.
#[derive(Deserialize)]
struct Case {
    /// What `tidemill predict` is told beside the folder and the input.
    args: Vec<String>,
    kind: String,
    /// A part of what is said, where the folder is refused.
    refused: Option<String>,
}

impl Case {
    /// How far a number may be off, as a part of the largest in its answer, and what that largest is at least.
    fn close(&self) -> (f64, f64) {
        match &*self.kind {
            "table" => (1e-9, 1e-3),
            "image" => (1e-3, 0.05),
            "embed" => (2e-4, 1e-3),
            _ => (2e-4, 0.05),
        }
    }
}

/// What an answer says, in the reference's form or in ours: names, and a number for each, or numbers alone.
type Said = (Vec<String>, Vec<f64>);

fn number(value: &Value) -> Result<f64, String> {
    value.as_f64().ok_or_else(|| format!("{value} is not a number"))
}

fn said(answer: &Value) -> Result<Said, String> {
    if let Some(values) = answer["embedding"].as_array() {
        return Ok((Vec::new(), values.iter().map(number).collect::<Result<_, _>>()?));
    }
    if let Some(spans) = answer["spans"].as_array() {
        let place =
            |span: &Value| format!("{} at {} to {}", span["label"], span["start"], span["end"]);
        let scores: Result<_, _> = spans.iter().map(|span| number(&span["score"])).collect();
        return Ok((spans.iter().map(place).collect(), scores?));
    }
    let text = |label: &Value| label.as_str().map_or_else(|| label.to_string(), str::to_owned);
    let scores: Vec<(String, &Value)> = match &answer["scores"] {
        Value::Array(pairs) => pairs.iter().map(|pair| (text(&pair[0]), &pair[1])).collect(),
        Value::Object(scores) => {
            scores.iter().map(|(label, score)| (label.clone(), score)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            vec![("value".to_owned(), &answer["value"])]
        }
    };
    let scores: Result<Vec<_>, String> =
        scores.into_iter().map(|(label, score)| Ok((label, number(score)?))).collect();
    Ok(sorted(scores?))
}

/// By label. Labels that occur twice are numbered in our answers, and the reference gives them by their scores: of those the
/// scores alone count.
fn sorted(mut scores: Vec<(String, f64)>) -> Said {
    let original = |label: &str| label.split('#').next().unwrap_or_default().to_owned();
    scores.iter_mut().for_each(|(label, _)| *label = original(label));
    scores.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    scores.into_iter().unzip()
}

fn compare(case: &Case, expected: &Value, found: &Value) -> Result<(), String> {
    if let Some(part) = expected["refused"].as_str() {
        let error = found["error"].as_str().unwrap_or_default();
        return if error.contains(part) {
            Ok(())
        } else {
            Err(format!("was to be refused with {part}: {found}"))
        };
    }
    let ((names, numbers), (our_names, ours)) = (said(expected)?, said(found)?);
    if names != our_names || numbers.len() != ours.len() {
        return Err(format!(
            "{our_names:?} with {} numbers, not {names:?} with {}",
            ours.len(),
            numbers.len()
        ));
    }
    let (close, least) = case.close();
    let largest = numbers.iter().fold(least, |largest, number| largest.max(number.abs()));
    let off = numbers.iter().zip(&ours).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    if off <= close * largest { Ok(()) } else { Err(format!("off by {off:e} of {largest:e}")) }
}

/// What is wrong with a folder, if something is.
fn judge(dir: &Path) -> Result<(), String> {
    let case: Case = json(&dir.join("case.json"));
    let run = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["predict", "--workers", "1", "--model"])
        .arg(dir.join("model"))
        .arg("--input")
        .arg(dir.join("input.jsonl"))
        .args(&case.args)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&run.stderr);
    match &case.refused {
        Some(part) if !run.status.success() && stderr.contains(part) => return Ok(()),
        Some(part) => return Err(format!("was to be refused with {part}: {stderr}")),
        None if !run.status.success() => return Err(stderr.into_owned()),
        None => {}
    }
    let expected = fs::read_to_string(dir.join("expected.jsonl")).unwrap();
    let found = String::from_utf8(run.stdout).unwrap();
    assert_eq!(expected.lines().count(), found.lines().count(), "{}", dir.display());
    let value = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    for (row, (expected, found)) in (1..).zip(expected.lines().zip(found.lines())) {
        compare(&case, &value(expected), &value(found))
            .map_err(|why| format!("line {row}: {why}"))?;
    }
    Ok(())
}

#[test]
fn random_folders_are_answered_as_the_references_answer_them() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/differential");
    let mut folders: Vec<PathBuf> =
        fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(50 < folders.len(), "{} folders", folders.len());
    let wrong: Vec<String> = folders
        .iter()
        .filter_map(|dir| judge(dir).err().map(|why| format!("{}: {why}", dir.display())))
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), folders.len(), wrong.join("\n"));
}

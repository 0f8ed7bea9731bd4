//! Cleaning against pandas, through `predict`, and in what `check` says.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value as Json, json};
use tidemill::clean::Clean;
use tidemill::field::Value;

fn data(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data").join(name)
}

/// What words make of a text, where they take it.
fn read(words: Json, text: &str) -> Option<f64> {
    let clean: Clean = serde_json::from_value(words).unwrap();
    let (result, _) = clean.clean("f", Some(Value::Text(text.into())), None);
    result.ok().flatten()?.number()
}

/// `pd.read_csv(thousands=…, decimal=…)` and `pd.to_datetime(format=…)`: tests/it/data/make_clean.py.
#[test]
fn numbers_and_dates_are_what_pandas_reads() {
    let golden: Json = serde_json::from_slice(&fs::read(data("clean.json")).unwrap()).unwrap();
    let text = |row: &Json, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let (mut read_some, mut read_none) = (0, 0);
    for row in golden["numbers"].as_array().unwrap() {
        let mut words = Map::from_iter([
            ("type".to_owned(), json!("number")),
            ("decimal".to_owned(), row["decimal"].clone()),
        ]);
        if row["group"] != "" {
            words.insert("group".to_owned(), row["group"].clone());
        }
        let read = read(words.into(), &text(row, "text"));
        assert_eq!(
            read.map(f64::to_bits),
            row["value"].as_f64().map(f64::to_bits),
            "{row} {read:?}"
        );
        *(if read.is_some() { &mut read_some } else { &mut read_none }) += 1;
    }
    for row in golden["dates"].as_array().unwrap() {
        let words = json!({"type": "date", "format": row["format"], "zone": row["zone"]});
        let read = read(words, &text(row, "text"));
        assert_eq!(read, row["seconds"].as_f64(), "{row}");
        *(if read.is_some() { &mut read_some } else { &mut read_none }) += 1;
    }
    assert!(300 < read_some && 100 < read_none, "{read_some} {read_none}");
}

/// The linear model of the tests, whose author says how its fields are written.
fn folder(clean: &[(&str, Json)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(data("linear").join(file), dir.path().join(file)).unwrap();
    }
    let text = fs::read(data("linear").join("preprocess.json")).unwrap();
    let mut preprocess: Json = serde_json::from_slice(&text).unwrap();
    for column in preprocess["columns"].as_array_mut().unwrap() {
        let said = clean.iter().find(|(name, _)| column["name"] == *name);
        if let Some((_, words)) = said {
            column["clean"] = words.clone();
        }
    }
    fs::write(dir.path().join("preprocess.json"), preprocess.to_string()).unwrap();
    dir
}

fn predicted(model: &Path, lines: &str) -> Vec<Json> {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.jsonl");
    fs::write(&input, lines).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    let output = command
        .args(["predict", "--model"])
        .arg(model)
        .arg("--input")
        .arg(&input)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What is cleaned is answered as what was meant, and what is rejected says so without its value.
#[test]
fn a_models_own_words_hold_through_predict() {
    let dir = folder(&[
        ("a", json!({"type": "number", "decimal": ",", "group": ".", "missing": ["NA"]})),
        (
            "b",
            json!({"type": "number", "decimal": ".", "units": {"": 1, "k": 1000.0}, "unit_field": "scale",
                   "max": 5000, "on_invalid": "clamp"}),
        ),
        (
            "color",
            json!({"type": "text", "trim": true, "case": "lower", "allowed": ["red", "blue", "green"]}),
        ),
    ]);
    let dirty = r#"{"a":"1.234,5","b":"2 k","color":" RED "}
{"a":"NA","b":2,"scale":"k","color":"blue"}
{"a":1,"b":"9 k","color":"blue"}
{"a":"1,234.5","b":1,"color":"red"}
{"a":1,"b":1,"color":"hunter2"}
{"a":1,"b":"1 oz","color":"red"}
"#;
    let meant = r#"{"a":1234.5,"b":2000,"color":"red"}
{"b":2000,"color":"blue"}
{"a":1,"b":5000,"color":"blue"}
"#;
    let (dirty, meant) = (predicted(dir.path(), dirty), predicted(&data("linear"), meant));
    assert_eq!(dirty[..3], meant, "{dirty:?}");
    assert!(meant.iter().all(|answer| answer["value"].is_number()));
    for (answer, part) in
        dirty[3..].iter().zip(["\"a\" is a string", "\"color\" is a string", "\"b\" is a string"])
    {
        let said = answer.to_string().replace("\\\"", "\"");
        assert!(
            said.contains("invalid") && said.contains(part) && !said.contains("hunter"),
            "{said}"
        );
    }
}

#[test]
fn check_says_what_has_no_effect_and_what_is_replaced() {
    let model = folder(&[("a", json!({"on_missing": "reject"}))]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.yaml");
    let text = format!(
        "log: sqlite:{}\ninput:\n  topics: [in]\n  clean: {{a: {{on_missing: 'null'}}, total: {{on_missing: reject}}}}\n\
         output: {{topic: out}}\nmodel: {{uri: {}}}\n",
        dir.path().join("log.db").display(),
        model.path().display()
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    let output = command.arg("check").arg("--config").arg(&file).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for part in ["field \"a\" holds in place of all", "names field \"total\", which neither"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(output.status.success(), "{said}");
}

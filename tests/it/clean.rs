//! Cleaning against pandas, through `predict`, and in what `check` says.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};
use tidemill::clean::Clean;
use tidemill::config::{Config, Key, KeyFormat, Uri};
use tidemill::decode::{Decoder, Prepared};
use tidemill::field::Value;
use tidemill::format::Codec;
use tidemill::model::Input;
use tidemill::record::{Offset, Partition, Record};
use tidemill::service;
use tidemill::status::Board;
use tidemill::telemetry::Telemetry;

fn data(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data").join(name)
}

/// What words make of a text, where they take it.
fn read(words: Json, text: &str) -> Option<f64> {
    let clean: Clean = serde_json::from_value(words).unwrap();
    let (result, _) = clean.clean("f", Some(Value::Text(text.into())), None);
    result.ok().flatten()?.number()
}

/// `pd.read_csv(thousands=…, decimal=…)` and `pd.to_datetime(format=…)`: `tests/it/data/make_clean.py`.
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
        // Ours is the nearest number, always; pandas' is the one beside it now and then, where there are groups.
        let expect = row["value"].as_f64();
        let near = |read: f64, expect: f64| (read - expect).abs() <= 4e-16 * expect.abs();
        let same = read
            .zip(expect)
            .map_or_else(|| read.is_none() && expect.is_none(), |(a, b)| near(a, b));
        assert!(same, "{row} {read:?}");
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
        dirty[3..].iter().zip(["\"a\" is a string", "\"color\" is a string", "\"b\" has no unit"])
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

fn record(key: Option<&str>, value: &str) -> Record {
    Record {
        key: key.map(|key| key.as_bytes().to_vec()),
        ..Record::of_value(
            Partition { topic: 0, number: 0 },
            Offset(0),
            Some(value.as_bytes().to_vec()),
        )
    }
}

fn configured(model: &Path, cleans: &[(&str, Json)]) -> Config {
    let mut config = Config::default();
    config.input.topics = vec!["in".to_owned()];
    config.model.uri = Uri::Directory(model.to_owned());
    let clean = |(name, words): &(&str, Json)| {
        ((*name).to_owned(), serde_json::from_value(words.clone()).unwrap())
    };
    config.input.clean = cleans.iter().map(clean).collect();
    config
}

/// The configuration's words hold in place of the model's, whole, for fields in keys too; what they do is counted.
#[test]
fn the_configurations_words_hold_on_decode_threads_and_are_counted() {
    let model = folder(&[("a", json!({"on_missing": "reject"}))]);
    let words = [
        ("a", json!({"type": "number", "decimal": ",", "missing": ["?"]})),
        ("color", json!({"type": "text", "case": "lower"})),
    ];
    let mut config = configured(model.path(), &words);
    config.input.key =
        Key { format: KeyFormat::Text, field: Some("color".to_owned()), ..Key::default() };
    let served = service::load_model(&config).unwrap();
    let plain = service::load_model(&configured(&data("linear"), &[])).unwrap();
    let telemetry = Telemetry::silent().unwrap();
    let codec = Arc::new(Codec::new(&config).unwrap());
    let decoder = Decoder::new(codec).counting(telemetry.metrics.clone());
    let meant = |fields: Json| plain.model.prepare_object(fields.as_object().unwrap()).unwrap();
    let is = |key: Option<&str>, value: &str, expect: Input| match decoder
        .prepare(&record(key, value), &served)
    {
        Prepared::Input(input) => assert_eq!(input, expect, "{key:?} {value}"),
        other @ (Prepared::Tombstone | Prepared::Fault(_)) => panic!("{other:?}"),
    };
    is(Some("RED"), r#"{"a":"1,5","b":2}"#, meant(json!({"a": 1.5, "b": 2, "color": "red"})));
    is(Some("Blue"), r#"{"a":"?","b":2,"color":"red"}"#, meant(json!({"b": 2, "color": "blue"})));
    is(None, r#"{"a":1}"#, meant(json!({"a": 1})));
    let wrong = decoder.prepare(&record(None, r#"{"a":"1.5"}"#), &served);
    assert!(
        matches!(wrong, Prepared::Fault(fault) if fault.message.starts_with("field \"a\" is a string"))
    );
    let scrape = telemetry.render();
    for (field, rule, count) in [
        ("a", "missing_null", 1),
        ("a", "invalid_reject", 1),
        ("color", "missing_null", 1),
        ("color", "invalid_reject", 0),
    ] {
        let line = format!("tidemill_cleaned_total{{field=\"{field}\",rule=\"{rule}\"}} {count}\n");
        assert!(scrape.contains(&line), "{line} in {scrape}");
    }
}

/// Where nothing is said of cleaning, a model fills in by itself what records lack: it is counted, and told while it goes on.
#[test]
fn what_a_model_fills_in_by_itself_is_counted_and_told() {
    let config = configured(&data("linear"), &[]);
    let served = service::load_model(&config).unwrap();
    let (telemetry, board) = (Telemetry::silent().unwrap(), Board::default());
    let codec = Arc::new(Codec::new(&config).unwrap());
    let decoder = Decoder::new(codec).counting(telemetry.metrics.clone()).telling(board.clone());
    let prepare = |count: usize, value: &str| {
        for _ in 0..count {
            let prepared = decoder.prepare(&record(None, value), &served);
            assert!(matches!(prepared, Prepared::Input(_)), "{value}: {prepared:?}");
        }
        board.now().lacking.clone()
    };
    assert_eq!(prepare(50, r#"{"a":1,"b":2,"color":"red"}"#), "");
    assert_eq!(prepare(50, r#"{"a":null,"b":2}"#), "");
    let lacking = prepare(150, r#"{"amount":1,"b":2}"#);
    assert!(lacking.contains(r#"reads as "a", "color": taken as missing"#), "{lacking}");
    assert!(lacking.contains("input.fields"), "{lacking}");
    assert_eq!(prepare(20, r#"{"a":1,"b":2,"color":"red"}"#), "", "it is over");
    let scrape = telemetry.render();
    for (field, count) in [("a", 200), ("b", 0), ("color", 200)] {
        let series = format!("tidemill_cleaned_total{{field=\"{field}\",rule=\"missing_impute\"}}");
        assert!(scrape.contains(&format!("{series} {count}\n")), "{series} in {scrape}");
    }
}

#[test]
fn texts_are_cleaned_too() {
    let words =
        json!({"type": "text", "missing": ["NULL"], "on_missing": "impute", "impute": "nothing"});
    let config = configured(&data("tiny-bert-labels"), &[("text", words)]);
    let served = service::load_model(&config).unwrap();
    let decoder = Decoder::new(Arc::new(Codec::new(&config).unwrap()));
    let input = |value: &str| match decoder.prepare(&record(None, value), &served) {
        Prepared::Input(input) => input,
        other @ (Prepared::Tombstone | Prepared::Fault(_)) => panic!("{value}: {other:?}"),
    };
    let nothing = input(r#"{"text":"nothing"}"#);
    assert_ne!(nothing, input(r#"{"text":"a b"}"#));
    for missing in ["{}", r#"{"text":null}"#, r#"{"text":"NULL"}"#] {
        assert_eq!(input(missing), nothing);
    }
}

//! `tidemill bench` on small models: the shape of what comes out, not how fast they are.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tidemill::config::Config;
use tidemill::config::load::from_yaml;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn bench(model: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.arg("bench").arg("--model").arg(model).args(["--seconds", "1", "--max-records", "8"]);
    command.args(arguments).output().unwrap()
}

fn good(output: &Output) -> &str {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    std::str::from_utf8(&output.stdout).unwrap()
}

/// Laid over `base`, object by object.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// The quickstart with these settings, through the loader of the service.
fn quickstart_with(settings: Value) -> Config {
    let text = std::fs::read_to_string(shipped("config/quickstart.yaml")).unwrap();
    let mut tree: Value = serde_saphyr::from_str(&text).unwrap();
    merge(&mut tree, settings);
    from_yaml(&serde_saphyr::to_string(&tree).unwrap()).unwrap()
}

#[track_caller]
fn check_points(points: &Value) {
    let points = points.as_array().unwrap();
    let sizes: Vec<u64> = points.iter().map(|p| p["records"].as_u64().unwrap()).collect();
    // A busy machine has no time for the largest.
    assert!(!sizes.is_empty() && [1, 2, 4, 8].starts_with(&sizes), "{sizes:?}");
    for point in points {
        for name in ["tokens", "records_per_second", "tokens_per_second", "p50_ms", "batches"] {
            assert!(0.0 < point[name].as_f64().unwrap(), "{name} in {point}");
        }
        assert!(point["p50_ms"].as_f64() <= point["p99_ms"].as_f64(), "{point}");
        if cfg!(target_os = "linux") {
            assert!(1.0 < point["resident_mib"].as_f64().unwrap(), "{point}");
            assert!(0.0 <= point["above_smallest_mib"].as_f64().unwrap(), "{point}");
        }
    }
}

#[test]
fn a_text_model_in_two_precisions() {
    let dir = tempfile::tempdir().unwrap();
    let svg = dir.path().join("curve.svg");
    let arguments = ["--json", "--precision", "f32,int8", "--svg", svg.to_str().unwrap()];
    // Without golden vectors, which a model of random weights does not meet in int8.
    let model = dir.path().join("tiny-bert");
    std::fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(shipped("tests/it/data/tiny-bert").join(name), model.join(name)).unwrap();
    }
    let output = bench(&model, &arguments);
    let report: Value = serde_json::from_str(good(&output)).unwrap();
    assert_eq!(report["model"], "tiny-bert");
    assert_eq!(report["task"], "text-embedding");
    let curves = report["curves"].as_array().unwrap();
    let names: Vec<&str> = curves.iter().map(|c| c["precision"].as_str().unwrap()).collect();
    assert_eq!(names, ["f32", "int8"]);
    for curve in curves {
        check_points(&curve["points"]);
        assert!(0.0 <= curve["fit"]["token_seconds"].as_f64().unwrap(), "{curve}");
    }
    assert!(curves[0]["agreement"].is_null());
    assert!((0.5..=1.000_001).contains(&curves[1]["agreement"].as_f64().unwrap()));

    let found = &report["recommendation"];
    let config =
        quickstart_with(serde_json::json!({ "batch": found["batch"], "model": found["model"] }));
    assert!([1, 2, 4, 8].contains(&config.batch.max_records), "{found}");
    assert_eq!(found["reasons"].as_object().unwrap().len(), 5, "{found}");

    let drawn = std::fs::read_to_string(&svg).unwrap();
    assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"), "{drawn}");
    assert_eq!(drawn.matches("<polyline").count(), 6);
}

#[test]
fn the_printed_settings_can_be_pasted() {
    let output = bench(&shipped("tests/it/data/mlp-relu"), &["--workers", "1"]);
    let text = good(&output);
    let (table, yaml) = text.split_at(text.find("\nbatch:\n").unwrap());
    assert!(table.contains("tabular-") && table.contains(" a row"), "{table}");
    let config = quickstart_with(serde_saphyr::from_str(yaml).unwrap());
    assert!(config.batch.max_records <= 8);
    assert!(0 < config.batch.max_tokens);
    assert!(!config.batch.max_wait.0.is_zero());
}

#[test]
fn rows_come_from_an_input_where_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("rows.jsonl");
    std::fs::write(&input, "{\"a\":1,\"b\":2,\"color\":\"red\"}\n\nbroken\n{\"a\":3}\n").unwrap();
    let arguments = ["--json", "--input", input.to_str().unwrap()];
    let output = bench(&shipped("tests/it/data/linear"), &arguments);
    let report: Value = serde_json::from_str(good(&output)).unwrap();
    assert_eq!(report["unit"], "row");
    check_points(&report["curves"][0]["points"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("of 3 records cannot be used") && said.contains("record 2"), "{said}");
}

#[test]
fn what_is_missing_is_named_with_its_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let (table, broken) = (dir.path().join("table"), dir.path().join("broken"));
    std::fs::create_dir(&table).unwrap();
    for file in ["config.json", "model.safetensors", "preprocess.json"] {
        std::fs::copy(shipped("tests/it/data/linear").join(file), table.join(file)).unwrap();
    }
    std::fs::write(&broken, "broken\n").unwrap();
    let text = shipped("tests/it/data/tiny-bert");
    let broken = broken.to_str().unwrap();
    for (model, arguments, code, parts) in [
        (Path::new("/nowhere"), &[][..], 78, &["/nowhere", "give --model a directory"][..]),
        (Path::new("models:/a@b"), &[], 78, &["models:/a@b", "--root"]),
        (&table, &[], 66, &["golden.json", "--input", "tabular-regression", "a, b, color"]),
        (&table, &["--input", broken], 65, &["record 1", "--input", "a, b, color"]),
        (&table, &["--input", "/no/file"], 66, &["/no/file", "--input"]),
        (&text, &["--precision", "f8"], 2, &["f8", "f32, bf16, f16, int8, auto"]),
        (&text, &["--precision", "f16"], 78, &["f16", "set model.precision: f32"]),
        (&text, &["--svg", "/no/file", "--workers", "1"], 74, &["/no/file", "--svg"]),
    ] {
        let output = bench(model, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{parts:?} in\n{said}");
    }
}

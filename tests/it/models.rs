//! Artifacts that are not good, and a registry's life by its commands.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tidemill::failure::chain;
use tidemill::model::gate;
use tidemill::model::options::LoadOptions;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

fn change(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    fs::write(file, text.replacen(from, to, 1)).unwrap();
}

/// As transformers does, by the rows of the weight.
#[test]
fn labels_without_names_are_numbered() {
    let dir = tempfile::tempdir().unwrap();
    copy(&shipped(TEXT), dir.path());
    change(&dir.path().join("config.json"), "\"id2label\"", "\"names\"");
    let model = gate::build(dir.path(), &LoadOptions::default()).unwrap();
    assert_eq!(model.about().labels, ["LABEL_0", "LABEL_1", "LABEL_2"]);
}

/// Loads `model` after `spoil`; the error's text.
#[track_caller]
fn refused(model: &str, spoil: impl Fn(&Path), parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("m");
    copy(&shipped(model), &dir);
    spoil(&dir);
    let said = chain(&gate::load(&dir, &LoadOptions::default()).unwrap_err());
    assert!(parts.iter().all(|part| said.contains(part)), "{parts:?} in\n{said}");
}

const TABLE: &str = "config/demo/models/breast-cancer/2";
const TEXT: &str = "tests/it/data/tiny-bert-labels";

/// Without its manifest, so that the loader itself meets what is wrong.
fn bare(dir: &Path) {
    fs::remove_file(dir.join("manifest.json")).unwrap();
}

fn shorten(file: &Path, bytes: u64) {
    fs::OpenOptions::new().write(true).open(file).unwrap().set_len(bytes).unwrap();
}

#[test]
fn a_directory_that_is_no_good_model_is_refused() {
    refused(TABLE, |dir| fs::remove_dir_all(dir).unwrap(), &["there is no such folder"]);
    let empty = |dir: &Path| {
        fs::remove_dir_all(dir).unwrap();
        fs::create_dir(dir).unwrap();
    };
    refused(TABLE, empty, &["holds no model", "config.json"]);
    let pickle = |dir: &Path| {
        empty(dir);
        fs::write(dir.join("pytorch_model.bin"), "x").unwrap();
    };
    refused(TEXT, pickle, &["a pickle can run code", "model.safetensors"]);
    let instead = |name: &'static str| {
        move |dir: &Path| fs::rename(dir.join("model.safetensors"), dir.join(name)).unwrap()
    };
    refused(TEXT, instead("model.onnx"), &["ONNX", "save_pretrained"]);
    refused(TEXT, instead("model.safetensors.index.json"), &["index.json", "valid JSON"]);
    refused(TEXT, instead("pytorch_model.bin"), &["BertForSequenceClassification as M", "DIR"]);
    refused(TEXT, instead("tf_model.h5"), &["TensorFlow", "PyTorch"]);
    refused(TEXT, instead("adapter_model.safetensors"), &["adapter", "merge_and_unload()"]);
    let cached = |dir: &Path| {
        let snapshot = dir.with_file_name("snapshots").join("abc");
        fs::create_dir_all(snapshot.parent().unwrap()).unwrap();
        fs::rename(dir, &snapshot).unwrap();
        fs::create_dir_all(dir.join("refs")).unwrap();
        fs::write(dir.join("refs/main"), "abc").unwrap();
        fs::rename(snapshot.parent().unwrap(), dir.join("snapshots")).unwrap();
    };
    refused(TEXT, cached, &["holds no model itself, but its snapshots/abc does: name that"]);

    for (file, kind) in [("model.safetensors", "altered"), ("preprocess.json", "altered")] {
        let cut = |dir: &Path| shorten(&dir.join(file), 100);
        refused(TABLE, cut, &[file, kind, "100 bytes", "the manifest says"]);
    }
    let other = |dir: &Path| change(&dir.join("preprocess.json"), "0", "1");
    refused(TABLE, other, &["preprocess.json", "altered", "sha256"]);
    let gone = |dir: &Path| fs::remove_file(dir.join("model.safetensors")).unwrap();
    refused(TABLE, gone, &["model.safetensors"]);
    let more = |dir: &Path| fs::write(dir.join("new.json"), "{}").unwrap();
    refused(TABLE, more, &["new.json", "not in the manifest"]);
    let digest = |dir: &Path| change(&dir.join("manifest.json"), "sha256:", "sha256:0");
    refused(TABLE, digest, &["manifest.json", "computed"]);
    let climbs = |dir: &Path| {
        change(&dir.join("manifest.json"), "\"model.safetensors\"", "\"../model.safetensors\"");
    };
    refused(TABLE, climbs, &["points outside", ".."]);
    let later = |dir: &Path| change(&dir.join("manifest.json"), "\"format\": 1", "\"format\": 9");
    refused(TABLE, later, &["format 9", "reads 1"]);
}

/// What a folder is for is said where it is loaded for its architecture's name.
#[test]
fn every_architecture_of_images_is_the_image_loaders() {
    for name in ["DeiTForImageClassificationWithTeacher", "SwinForImageClassification"] {
        let other = |dir: &Path| {
            change(&dir.join("config.json"), "BertForSequenceClassification", name);
        };
        refused(TEXT, other, &[name, "of image models, ViTForImageClassification"]);
    }
}

/// Without a manifest too, at every load.
#[test]
fn golden_vectors_of_a_plain_folder_are_compared() {
    let other = |dir: &Path| {
        bare(dir);
        change(&dir.join("golden.json"), "\"score\": 0.9", "\"score\": 0.7");
    };
    refused(TABLE, other, &["golden.json, row ", "score", "was expected"]);
    let broken = |dir: &Path| fs::write(dir.join("golden.json"), "[{}]").unwrap();
    refused(TEXT, broken, &["golden.json", "missing field `input`", "leave the file out"]);
    let cut = |dir: &Path| shorten(&dir.join("golden.json"), 30);
    refused(TEXT, cut, &["golden.json", "is not valid JSON", "leave the file out"]);
    let empty = |dir: &Path| fs::write(dir.join("golden.json"), "[]").unwrap();
    refused(TEXT, empty, &["golden.json", "compares nothing"]);
}

/// The folder is named once, as it was given, and nothing of an import that failed is left.
#[test]
fn a_refused_folder_is_named_once() {
    let dir = tempfile::tempdir().unwrap();
    let (from, root) = (dir.path().join("from"), dir.path().join("models"));
    let named = from.to_str().unwrap();
    let said = |part: &str| {
        let mut predict = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        let output = predict.args(["predict", "--model", named]).output().unwrap();
        let predicted = String::from_utf8(output.stderr).unwrap();
        let (_, imported) = models(&root, &["import", named, "m"]);
        for said in [predicted, imported] {
            assert!(said.contains(part), "{part} in {said}");
            assert_eq!(said.matches(named).count(), 1, "{said}");
            assert!(!said.contains(".import-"), "{said}");
        }
        assert!(!root.join("m").exists(), "{part}");
    };
    said("there is no such folder");
    copy(&shipped(TEXT), &from);
    let weights = from.join("model.safetensors");
    fs::rename(&weights, from.join("pytorch_model.bin")).unwrap();
    said("holds pytorch_model.bin, a pickle");
    fs::write(&weights, "").unwrap();
    said("model.safetensors");
    fs::rename(from.join("pytorch_model.bin"), &weights).unwrap();
    fs::write(from.join("golden.json"), "[]").unwrap();
    said("compares nothing");
    change(&from.join("config.json"), "\"gelu\"", "\"mish\"");
    said("\"mish\"");
}

#[test]
fn links_are_not_followed() {
    for name in ["model.safetensors", "preprocess.json", "manifest.json"] {
        let link = |dir: &Path| {
            let outside = dir.with_file_name("outside");
            fs::rename(dir.join(name), &outside).unwrap();
            symlink(&outside, dir.join(name)).unwrap();
        };
        refused(TABLE, link, &[name, "symbolic link", "cp -rL"]);
    }
}

#[test]
fn what_a_loader_meets_is_named() {
    let cut = |dir: &Path| {
        bare(dir);
        shorten(&dir.join("model.safetensors"), 100);
    };
    refused(TABLE, cut, &["model.safetensors"]);
    let architecture = |dir: &Path| {
        bare(dir);
        change(&dir.join("config.json"), "\"mlp\"", "\"forest\"");
    };
    refused(TABLE, architecture, &["\"forest\"", "linear, logistic, mlp"]);
    refused(TEXT, |dir| shorten(&dir.join("model.safetensors"), 5_000), &["model.safetensors"]);
    refused(TEXT, |dir| fs::write(dir.join("model.safetensors"), "").unwrap(), &["safetensors"]);
    refused(TEXT, |dir| fs::write(dir.join("tokenizer.json"), "{}").unwrap(), &["tokenizer.json"]);
    refused(TEXT, |dir| fs::write(dir.join("config.json"), "[]").unwrap(), &["config.json"]);
    let config = |from: &'static str, to: &'static str| {
        move |dir: &Path| change(&dir.join("config.json"), from, to)
    };
    refused(TEXT, config("\"bert\"", "\"llama\""), &["\"llama\"", "bert", "distilbert"]);
    refused(TEXT, config("\"gelu\"", "\"mish\""), &["\"mish\"", "gelu"]);
    refused(TEXT, config("ForSequenceC", "ForTokenMystery"), &["ForTokenMystery", "model.task"]);
    refused(TEXT, config("\"1\": \"maybe\"", "\"3\": \"maybe\""), &["3 labels", "none for 1"]);
    let fewer = ["classifier.weight", "shape [3, 60]", "expected [2, 60]", "id2label"];
    refused(TEXT, config("\"1\": \"maybe\",", ""), &["2 labels", "none for 1"]);
    refused(TEXT, config(",\n    \"2\": \"yes\"", ""), &fewer);
    refused(
        TEXT,
        config("\"num_hidden_layers\": ", "\"num_hidden_layers\": 9"),
        &["tensor", "is missing"],
    );
    refused(
        TEXT,
        config("\"intermediate_size\": ", "\"intermediate_size\": 1"),
        &["intermediate", "has shape", "expected"],
    );
    refused(
        TEXT,
        config("\"hidden_size\": ", "\"hidden_size\": 99999"),
        &["hidden_size", "between"],
    );
}

fn models(root: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.arg("models").args(arguments).arg("--root").arg(root);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn a_version_is_imported_promoted_and_rolled_back() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let done = |arguments: &[&str], part: &str| {
        let (good, said) = models(root, arguments);
        assert!(good && said.contains(part), "{arguments:?}: {said}");
    };
    let refused = |arguments: &[&str], part: &str| {
        let (good, said) = models(root, arguments);
        assert!(!good && said.contains(part), "{arguments:?}: {said}");
    };
    let (first, second) = (shipped("tests/it/data/tiny-bert-labels"), shipped(TABLE));
    let (first, second) = (first.to_str().unwrap(), second.to_str().unwrap());
    refused(&["rollback", "m"], "has no model \"m\"");
    done(&["import", first, "m"], "version 1");
    done(&["promote", "m", "1"], "models:/m@champion is version 1");
    refused(&["rollback", "m"], "no alias \"previous\"; aliases: champion");
    done(&["import", second, "m", "--alias", "champion"], "version 2");
    done(&["list"], "champion");
    done(&["verify", "models:/m@champion"], "m/2 is good");
    done(&["verify", "models:/m@previous"], "files as in its manifest");
    done(&["rollback", "m"], "is version 1");
    let (_, table) = models(root, &["list"]);
    let row = |version: &str| table.lines().find(|line| line.contains(version)).unwrap().to_owned();
    assert!(row(" 1 ").contains("champion") && row(" 2 ").contains("previous"), "{table}");

    for_programs(root, first);
    refused(&["promote", "m", "7"], "versions: 1, 2, 3");
    refused(&["verify", "models:/m@nobody"], "nobody");
    refused(&["import", "/nowhere", "m"], "/nowhere");
    refused(&["import", first, "../m"], "is not a name");
    shorten(&root.join("m/2/model.safetensors"), 50);
    refused(&["promote", "m", "2"], "altered");
    let left: Vec<_> = fs::read_dir(root.join("m")).unwrap().flatten().collect();
    assert_eq!(left.len(), 4, "1, 2, 3 and aliases: nothing half imported stays: {left:?}");
}

/// Each command says what it did as one JSON object too; what is refused is the same.
fn for_programs(root: &Path, from: &str) {
    let object = |arguments: &[&str]| {
        let (good, said) = models(root, &[arguments, &["--json"]].concat());
        assert!(good && said.trim_end().lines().count() == 1, "{arguments:?}: {said}");
        serde_json::from_str::<serde_json::Value>(&said).unwrap()
    };
    let imported = object(&["import", from, "m", "--alias", "canary"]);
    let what = ["model", "version", "alias", "from"].map(|name| imported[name].clone());
    assert_eq!(what, [json!("m"), json!(3), json!("canary"), json!(from)]);
    let steps: Vec<&str> =
        imported["steps"].as_array().unwrap().iter().map(|s| s["step"].as_str().unwrap()).collect();
    assert_eq!((steps[0], steps.last()), ("folder", Some(&"golden")));
    let verified = object(&["verify", "models:/m@canary"]);
    assert_eq!((&verified["version"], &verified["has_manifest"]), (&3.into(), &true.into()));
    assert_eq!(verified["task"], "text-classification");
    assert_eq!(verified["labels"], json!(["no", "maybe", "yes"]));
    assert!(verified["digest"].as_str().unwrap().starts_with("sha256:"), "{verified}");
    for (arguments, version) in [(vec!["promote", "m", "3"], 3), (vec!["rollback", "m"], 1)] {
        let expect = json!({"model": "m", "alias": "champion", "version": version});
        assert_eq!(object(&arguments), expect);
    }
    let (good, said) = models(root, &["promote", "m", "7", "--json"]);
    assert!(!good && said.contains("versions: 1, 2, 3"), "{said}");
}

#[test]
fn predict_answers_each_line_in_its_place() {
    const LINES: usize = 5_000;
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in"), dir.path().join("out"));
    let line = |n: usize| match n % 10 {
        7 => "broken".to_owned(),
        _ => format!("{{\"a\":{n},\"b\":0,\"color\":\"red\"}}"),
    };
    fs::write(&input, (0..LINES).map(|n| line(n) + "\n").collect::<String>()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(["predict", "--model"]).arg(shipped("tests/it/data/linear"));
    let status = command.arg("--input").arg(&input).arg("--output").arg(&output).status().unwrap();
    assert!(status.success());
    let rows: Vec<serde_json::Value> = fs::read_to_string(&output)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), LINES);
    let value = |n: usize| rows[n]["value"].as_f64();
    // The model is linear: equal steps of the input are equal steps of the output.
    let step = value(1).unwrap() - value(0).unwrap();
    for (n, row) in rows.iter().enumerate() {
        if n % 10 == 7 {
            assert_eq!(row["class"], "undecodable", "line {n}");
        } else {
            let expected = value(0).unwrap() + step * f64::from(u32::try_from(n).unwrap());
            let gap = (value(n).unwrap() - expected).abs();
            assert!(gap <= 1e-3 * expected.abs().max(1.0), "line {n}: {row}, expected {expected}");
        }
    }
}

/// A model whose hidden layer has no units is refused when it is loaded, not when it answers.
#[test]
fn a_layer_without_units_is_refused() {
    let spoil = |dir: &Path| {
        bare(dir);
        let header = br#"{"layers.0.weight":{"dtype":"F32","shape":[0,30],"data_offsets":[0,0]},"layers.0.bias":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#;
        let size = u64::try_from(header.len()).unwrap().to_le_bytes();
        fs::write(dir.join("model.safetensors"), [&size[..], header].concat()).unwrap();
    };
    refused(TABLE, spoil, &["layers.0.weight", "no elements"]);
}

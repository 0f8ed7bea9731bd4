//! Tabular models: what a folder may say, and what it answers.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tidemill::answer::Prediction;
use tidemill::model::gate;
use tidemill::model::options::LoadOptions;

use crate::hostile_models::{edit, models, refused};
use crate::world::{Column, linear};

/// A record's fields.
type Fields = serde_json::Map<String, Value>;

/// Weights of 1 and biases of 0, as a file.
fn weights(dir: &Path, tensors: &[(&str, &[usize])]) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape) in tensors {
        let start = data.len();
        let value: f64 = if name.ends_with("bias") { 0.0 } else { 1.0 };
        data.extend((0..shape.iter().product()).flat_map(|_| value.to_le_bytes()));
        let offsets = [start, data.len()];
        let tensor = json!({"dtype": "F64", "shape": shape, "data_offsets": offsets});
        header.insert((*name).to_owned(), tensor);
    }
    let header = Value::Object(header).to_string();
    let length = u64::try_from(header.len()).unwrap().to_le_bytes();
    let bytes = [&length[..], header.as_bytes(), &data].concat();
    fs::write(dir.join("model.safetensors"), bytes).unwrap();
}

#[test]
fn what_a_table_cannot_be_is_refused_by_its_key() {
    for (file, place, value, parts) in [
        ("config.json", "/task", json!(null), &["task is missing", "tabular-regression"][..]),
        ("config.json", "/task", json!("tabular-ranking"), &["task is \"tabular-ranking\""]),
        ("config.json", "/architecture", json!("forest"), &["\"forest\"", "linear, logistic, mlp"]),
        ("config.json", "/architecture", json!("logistic"), &["has one layer; there are 3"]),
        ("config.json", "/output", json!("probit"), &["output is \"probit\"", "sigmoid, softmax"]),
        (
            "config.json",
            "/output",
            json!("identity"),
            &["output is identity", "sigmoid (one unit)"],
        ),
        (
            "config.json",
            "/output",
            json!("softmax"),
            &["has 1 units", "softmax with 2 labels has 2"],
        ),
        ("config.json", "/activation", json!("gelu"), &["activation is \"gelu\"", "relu, tanh"]),
        ("config.json", "/labels", json!(["a", "a"]), &["label \"a\" stands twice"]),
        ("config.json", "/labels", json!(["1", 1]), &["label \"1\" stands twice"]),
        ("config.json", "/labels", json!([null, 1]), &["label null is neither"]),
        ("config.json", "/labels", json!(["a"]), &["1 labels; output sigmoid", "has 2"]),
        ("config.json", "/labels", json!("yes"), &["labels is \"yes\", a list of labels"]),
        (
            "config.json",
            "/activaton",
            json!("tanh"),
            &["activaton is not known here; there may be"],
        ),
        (
            "preprocess.json",
            "/steps",
            json!([]),
            &["steps is not known here; there may be columns"],
        ),
        ("preprocess.json", "/columns", json!({}), &["columns is {}, a list of columns is wanted"]),
        ("preprocess.json", "/columns/1/name", json!("a"), &["column \"a\" stands twice"]),
        ("preprocess.json", "/columns/0/scale", json!(0), &["column 1 (\"a\"): scale is 0"]),
        ("preprocess.json", "/columns/0/mean", json!("x"), &["column 1 (\"a\"): mean is \"x\""]),
        ("preprocess.json", "/columns/0/std", json!(2), &["column 1 (\"a\"): std is not known"]),
        (
            "preprocess.json",
            "/columns/2/kind",
            json!("ordinal"),
            &["column 3 (\"color\"): kind is"],
        ),
    ] {
        let said = refused("mlp-relu", |dir| {
            edit(&dir.join(file), |whole| {
                let (parent, name) = place.rsplit_once('/').unwrap();
                whole.pointer_mut(parent).unwrap()[name] = value.clone();
            });
        });
        let named = said.contains(file) && parts.iter().all(|part| said.contains(part));
        assert!(named, "{place} {value}: {said}");
    }
    for (text, part) in [
        (r#"{"columns": [{"name": "a", "scale": NaN}]}"#, "NaN at line 1 column 37 is no number"),
        ("\u{feff}{}", "begins with a byte order mark"),
        (r#"{"columns": [{"name": "a", "max": 1e999}]}"#, "that no 64-bit float can hold"),
    ] {
        let said = refused("mlp-relu", |dir| fs::write(dir.join("preprocess.json"), text).unwrap());
        assert!(said.contains("preprocess.json") && said.contains(part), "{said}");
    }
}

#[test]
fn tensors_are_the_layers_and_nothing_else() {
    let layer = |number: usize, shape: [usize; 2]| {
        let name = |part| format!("layers.{number}.{part}");
        [(name("weight"), shape.to_vec()), (name("bias"), shape[..1].to_vec())]
    };
    let two = [layer(0, [4, 5]), layer(1, [1, 4])].concat();
    let with = |name: &str, shape: &[usize]| {
        let mut tensors = two.clone();
        tensors.retain(|(other, _)| other != name);
        tensors.push((name.to_owned(), shape.to_vec()));
        tensors
    };
    for (tensors, parts) in [
        (Vec::new(), &["layers.0.weight", "is missing"][..]),
        (with("layers.0.weight", &[20]), &["has shape [20]", "[units, 5]", "atleast_2d"]),
        (with("layers.0.weight", &[4, 6]), &["has shape [4, 6], expected [4, 5]"]),
        (with("layers.1.bias", &[2]), &["layers.1.bias", "has shape [2], expected [1]"]),
        (with("layers.3.weight", &[1, 1]), &["layers.3.weight", "is not used", "without a gap"]),
        (with("layers.01.weight", &[1, 1]), &["layers.01.weight", "is not used"]),
        (with("scaler.mean", &[5]), &["scaler.mean", "is not used"]),
        (two[..3].to_vec(), &["layers.1.bias", "is missing"]),
        (
            (0..65)
                .flat_map(|number| layer(number, [1, if number == 0 { 5 } else { 1 }]))
                .collect(),
            &["layers.64.weight", "at most 64 layers"],
        ),
    ] {
        let said = refused("mlp-relu", |dir| {
            let tensors: Vec<(&str, &[usize])> =
                tensors.iter().map(|(name, shape)| (&**name, &**shape)).collect();
            weights(dir, &tensors);
        });
        assert!(parts.iter().all(|part| said.contains(part)), "{tensors:?}: {said}");
    }
}

/// scikit-learn's logistic regression chooses by the sum, its networks by the scores: a sum of 1e-17 is 0.5 to both.
#[test]
fn labels_are_chosen_as_scikit_learn_chooses() {
    for (architecture, expected) in [("logistic", 1), ("mlp", 0)] {
        let dir = tempfile::tempdir().unwrap();
        let config = json!({"task": "tabular-classification", "architecture": architecture,
            "output": "sigmoid", "labels": [false, true], "activation": null});
        let columns = json!({"columns": [{"name": "x", "kind": "numeric", "impute": null}]});
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        fs::write(dir.path().join("preprocess.json"), columns.to_string()).unwrap();
        weights(dir.path(), &[("layers.0.weight", &[1, 1]), ("layers.0.bias", &[1])]);
        let model = gate::build(dir.path(), &LoadOptions::default()).unwrap();
        for (x, expected) in [(1e-17, expected), (0.0, 0), (-1e-17, 0), (800.0, 1), (-800.0, 0)] {
            let input =
                model.prepare_object(&Fields::from_iter([("x".to_owned(), json!(x))])).unwrap();
            let Prediction::Label { best, scores, labels } =
                model.predict(&[&input]).unwrap().remove(0)
            else {
                panic!("no label");
            };
            assert_eq!((best, &*labels), (expected, &["false".to_owned(), "true".to_owned()][..]));
            let sum: f64 = scores.into_iter().map(f64::from).sum();
            assert!((sum - 1.0).abs() < 1e-15, "{x}");
        }
    }
}

#[test]
fn goldens_of_zeros_compare_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (root, from) = (dir.path().join("models"), dir.path().join("from"));
    linear(&from, &[Column { name: "a", impute: None }], 0.0);
    for (a, value, good) in [
        (0.0, json!(0.0), false),
        (1e-9, json!(0.0), false),
        (1e-9, json!(3e-9), false),
        (1e-9, json!(1e-9), true),
        (1e12, json!(1_000_000_000_001.0_f64), true),
        (1e12, json!(1_100_000_000_000.0_f64), false),
    ] {
        let golden = json!([{"input": {"a": a}, "output": {"value": value}}]);
        fs::write(from.join("golden.json"), golden.to_string()).unwrap();
        let (code, said) = models(&root, &["import", from.to_str().unwrap(), "m"]);
        assert_eq!(code == Some(0), good, "{golden}: {said}");
        if a == 0.0 {
            assert!(said.contains("compares nothing, or only numbers that are 0"), "{said}");
        }
    }
}

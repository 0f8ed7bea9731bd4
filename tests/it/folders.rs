//! Folders of text models in every layout: what the reference libraries answer, or a refusal.
//! `data/make_folders.py` made the checkpoints and the answers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::{Map, Value};
use tidemill::answer::{Prediction, Task};
use tidemill::failure::chain;
use tidemill::model::Model;
use tidemill::model::gate;
use tidemill::model::options::LoadOptions;

/// A record's fields.
type Fields = Map<String, Value>;

#[derive(Deserialize)]
struct Cases {
    texts: Vec<String>,
    cases: Vec<Case>,
}

/// A variation of a checkpoint's folder.
#[derive(Deserialize)]
struct Case {
    name: String,
    base: String,
    /// By their names: JSON, text, or null where the file is taken away. Of `config.json` the keys that are written.
    files: BTreeMap<String, Value>,
    /// Keys that `config.json` loses.
    #[serde(default)]
    drop: Vec<String>,
    /// What in the names of tensors becomes what; `^` is their beginning.
    #[serde(default)]
    rename: Vec<(String, String)>,
    #[serde(default)]
    add: BTreeMap<String, Numbers>,
    /// Files of weights, where there are several.
    shards: Option<usize>,
    /// Where the checkpoint is moved to.
    folder: Option<String>,
    /// Files of weights of other modules.
    #[serde(default)]
    tensors: BTreeMap<String, BTreeMap<String, Numbers>>,
    task: Option<Task>,
    refused: Option<String>,
    /// A part of what is said of the folder.
    note: Option<String>,
    #[serde(default)]
    answers: Vec<Value>,
}

#[derive(Clone, Deserialize)]
struct Numbers {
    shape: Vec<usize>,
    data: Vec<f32>,
}

type Tensors = BTreeMap<String, Numbers>;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/folders")
}

fn read(file: &Path) -> Tensors {
    let bytes = fs::read(file).unwrap();
    let held = SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |view: &TensorView<'_>| Numbers {
        shape: view.shape().to_vec(),
        data: view.data().as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect(),
    };
    held.tensors().into_iter().map(|(name, view)| (name, numbers(&view))).collect()
}

fn write(file: &Path, tensors: &Tensors) {
    let bytes = |numbers: &Numbers| -> Vec<u8> {
        numbers.data.iter().flat_map(|number| number.to_le_bytes()).collect()
    };
    let bytes: BTreeMap<&String, Vec<u8>> =
        tensors.iter().map(|(name, numbers)| (name, bytes(numbers))).collect();
    let view = |(name, numbers): (&String, &Numbers)| {
        let view = TensorView::new(Dtype::F32, numbers.shape.clone(), &bytes[name]).unwrap();
        (name.clone(), view)
    };
    let views = tensors.iter().map(view).collect::<Vec<_>>();
    fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
}

impl Case {
    /// Makes the folder.
    fn make(&self, dir: &Path) {
        let at = |file: &str| dir.join(file);
        for entry in fs::read_dir(data().join(&self.base)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
        }
        let mut config: Map<String, Value> = json(&at("config.json"));
        config.retain(|key, _| !self.drop.contains(key));
        fs::write(at("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
        self.weights(dir);
        if let Some(folder) = &self.folder {
            let held: Vec<_> = fs::read_dir(dir).unwrap().map(Result::unwrap).collect();
            fs::create_dir(at(folder)).unwrap();
            for entry in held {
                fs::rename(entry.path(), at(folder).join(entry.file_name())).unwrap();
            }
        }
        for (name, content) in &self.files {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            match content {
                Value::Null => fs::remove_file(at(name)).unwrap(),
                Value::String(text) => fs::write(at(name), text).unwrap(),
                Value::Object(keys) if name == "config.json" => {
                    let mut config: Map<String, Value> = json(&at(name));
                    config.extend(keys.clone());
                    fs::write(at(name), serde_json::to_vec(&config).unwrap()).unwrap();
                }
                Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    fs::write(at(name), content.to_string()).unwrap();
                }
            }
        }
        self.tensors.iter().for_each(|(file, tensors)| write(&at(file), tensors));
    }

    fn weights(&self, dir: &Path) {
        let file = dir.join("model.safetensors");
        let mut tensors = read(&file);
        for (from, to) in &self.rename {
            let renamed = |name: String| match &**from {
                "^" => to.clone() + &name,
                from => name.replacen(from, to, 1),
            };
            tensors = tensors.into_iter().map(|(name, held)| (renamed(name), held)).collect();
        }
        tensors.extend(self.add.clone());
        let Some(shards) = self.shards else { return write(&file, &tensors) };
        fs::remove_file(&file).unwrap();
        let mut index = Map::new();
        for shard in 0..shards {
            let name = format!("model-{}.safetensors", shard + 1);
            let held = tensors.iter().skip(shard).step_by(shards);
            let held: Tensors = held.map(|(name, held)| (name.clone(), held.clone())).collect();
            write(&dir.join(&name), &held);
            index.extend(held.into_keys().map(|tensor| (tensor, Value::from(name.clone()))));
        }
        let index = serde_json::json!({ "weight_map": index }).to_string();
        fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
    }
}

/// A file's value.
pub(crate) fn json<T: serde::de::DeserializeOwned>(file: &Path) -> T {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn options(task: Option<Task>) -> LoadOptions {
    let mut options = LoadOptions::default();
    options.model.task = task;
    options
}

/// The largest difference of an answer to the expected one.
fn difference(model: &dyn Model, text: &str, expected: &Value) -> f64 {
    let fields = Fields::from_iter([("text".to_owned(), Value::from(text))]);
    let input = model.prepare_object(&fields).unwrap();
    let found: Vec<(String, f64)> = match model.predict(&[&input]).unwrap().remove(0) {
        Prediction::Embedding(values) => {
            assert_eq!(values.len(), expected["embedding"].as_array().unwrap().len(), "width");
            let named =
                |(place, value): (usize, f32)| (format!("/embedding/{place}"), value.into());
            (0..).zip(values).map(named).collect()
        }
        Prediction::Label { scores, labels, .. } => {
            assert_eq!(scores.len(), expected["scores"].as_object().unwrap().len(), "labels");
            let named = |label: &String| format!("/scores/{label}");
            labels.iter().map(named).zip(scores.into_iter().map(f64::from)).collect()
        }
        other @ (Prediction::Value(_)
        | Prediction::Spans(_)
        | Prediction::Chunks(_)
        | Prediction::Mean { .. }) => panic!("{other:?}"),
    };
    let gap = |(place, value): (String, f64)| {
        (expected.pointer(&place).and_then(Value::as_f64).unwrap() - value).abs()
    };
    found.into_iter().map(gap).fold(0.0, f64::max)
}

/// What is wrong with a case, if something is.
fn judge(case: &Case, texts: &[String]) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    case.make(dir.path());
    let built = gate::load(dir.path(), &options(case.task));
    match (built, &case.refused) {
        (Err(error), Some(part)) if chain(&error).contains(part) => Ok(()),
        (Err(error), _) => Err(format!("refused: {}", chain(&error))),
        (Ok(_), Some(part)) => Err(format!("was to be refused with {part}")),
        (Ok(served), None) => {
            let notes = served.model.about().notes.join("\n");
            if let Some(part) = case.note.as_ref().filter(|part| !notes.contains(*part)) {
                return Err(format!("{part} is not said in {notes:?}"));
            }
            assert_eq!(case.answers.len(), texts.len(), "{}", case.name);
            for (text, expected) in texts.iter().zip(&case.answers) {
                let gap = difference(served.model.as_ref(), text, expected);
                if 1e-4 < gap {
                    return Err(format!("{gap} in the answer to {text:?}"));
                }
            }
            Ok(())
        }
    }
}

#[test]
fn every_folder_gives_the_references_answer_or_a_refusal() {
    let Cases { texts, cases } = json(&data().join("cases.json"));
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| judge(case, &texts).err().map(|why| format!("{}: {why}", case.name)))
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// A snapshot of the hub's cache is links into its blobs; a link to anything else is refused.
#[test]
fn a_snapshot_of_the_hub_cache_is_followed_and_nothing_else() {
    use std::os::unix::fs::symlink;
    let root = tempfile::tempdir().unwrap();
    let cache = root.path().join("models--me--mine");
    let snapshot = cache.join("snapshots/abc");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir(cache.join("blobs")).unwrap();
    for entry in fs::read_dir(data().join("bert")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        fs::copy(entry.path(), cache.join("blobs").join(format!("blob-{name}"))).unwrap();
        symlink(format!("../../blobs/blob-{name}"), snapshot.join(name)).unwrap();
    }
    symlink("../../blobs/blob-of-a-readme", snapshot.join("README.md")).unwrap();
    fs::write(cache.join("blobs/blob-of-a-readme"), "").unwrap();
    gate::load(&snapshot, &options(None)).unwrap();
    let registry = tidemill::registry::Registry::new(Some(root.path().join("registry")));
    registry.import(&snapshot, "mine", &options(None)).unwrap();
    for target in
        ["/etc/passwd", "../../other", "../../blobs/../other", "../../blobs/link", "config.json"]
    {
        let link = snapshot.join("more.json");
        fs::write(cache.join("other"), "{}").unwrap();
        drop(symlink("../other", cache.join("blobs/link")));
        symlink(target, &link).unwrap();
        let said = chain(&gate::load(&snapshot, &options(None)).unwrap_err());
        assert!(said.contains("more.json") && said.contains("cp -rL"), "{target}: {said}");
        fs::remove_file(&link).unwrap();
    }
}

#[test]
fn a_registered_model_keeps_the_task_that_it_was_imported_for() {
    let Cases { cases, .. } = json(&data().join("cases.json"));
    let case = cases.iter().find(|case| case.name == "its task is asked for").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    case.make(&from);
    let registry = tidemill::registry::Registry::new(Some(dir.path().join("models")));
    assert!(registry.import(&from, "mine", &options(None)).is_err(), "nothing says what it is for");
    registry.import(&from, "mine", &options(case.task)).unwrap();
    let served = registry.load(&"models:/mine/1".parse().unwrap(), &options(None)).unwrap();
    assert_eq!(served.model.about().task, Task::TextClassification);
}

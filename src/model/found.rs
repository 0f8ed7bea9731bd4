//! What a directory holds that is no model which can be loaded, and how to go on from there.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::files::{json, present, within};
use super::weights::{FILE as WEIGHTS, INDEX};
use crate::printable;

/// Most entries that are looked at, and how far below: `models--ORG--NAME/snapshots/COMMIT` is three.
const MOST: usize = 2_000;
const DEEPEST: usize = 3;

/// Names that are shown.
const SHOWN: usize = 3;

/// Weights that are not read, by the ends of their files' names, and what is said of them.
const KINDS: [(&[&str], &str); 4] = [
    (
        &[".onnx"],
        "an ONNX graph; those are not run: save the model it was exported from as model.safetensors (transformers: \
         save_pretrained; scikit-learn: config/demo/README.md shows how)",
    ),
    (
        &[".gguf", ".ggml"],
        "weights for llama.cpp; those are not read: take the folder that they were converted from, with \
         model.safetensors",
    ),
    (
        &["openvino_model.xml", ".tflite", ".mlmodel", ".engine"],
        "a graph for another runtime; those are not run: take the folder that it was exported from, with \
         model.safetensors",
    ),
    (
        &[".h5", ".keras", ".msgpack", "saved_model.pb", ".ckpt.index"],
        "weights of TensorFlow or Flax, which transformers 5 does not read either: a checkpoint of PyTorch is wanted, \
         as model.safetensors; look for one of the same model",
    ),
];

/// How the names of pickles end.
const PICKLES: [&str; 8] = [".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".skops"];

/// Pickles of a training beside a model, which are none.
const OF_TRAINING: [&str; 5] = ["training_args", "optimizer", "scheduler", "scaler", "rng_state"];

/// Whether a name ends as one of these.
pub(super) fn ends(name: &str, ends: &[&str]) -> bool {
    ends.iter().any(|end| name.ends_with(end))
}

/// What is said of a directory that is not there.
pub(super) fn absent(dir: &Path) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let plain = |part: &str| part.starts_with(char::is_alphanumeric) && part.chars().all(legal);
    let name = dir.to_string_lossy();
    let named = name.split('/').count() <= 2 && name.split('/').all(plain);
    if !named {
        return "there is no such folder".to_owned();
    }
    format!(
        "there is no such folder here, and names of the Hugging Face hub are not downloaded: where it is one, run \
         `hf download {name} --local-dir DIR` and name DIR"
    )
}

/// What a folder in a directory holds in place of weights that are read.
pub(super) fn instead(dir: &Path, folder: &str) -> String {
    let names = names(&dir.join(folder));
    let config = present(dir, &within(folder, "config.json"));
    if let Some(adapter) = names.iter().find(|name| is_adapter(name)) {
        return format!(
            "holds {adapter}, weights of an adapter and not of a model: load it on its base model with peft, call \
             merge_and_unload() and save_pretrained(DIR), add the tokenizer's files, and name DIR"
        );
    }
    let below = if config { Vec::new() } else { below(dir, folder) };
    if !below.is_empty() {
        let (it, one) = if below.len() == 1 { ("does", "that") } else { ("do", "one of these") };
        return format!("holds no model itself, but its {} {it}: name {one}", below.join(", "));
    }
    for (kinds, what) in KINDS {
        if let Some(name) = names.iter().find(|name| ends(name, kinds)) {
            return format!("holds {name}, {what}");
        }
    }
    // Transformers' own name first: others may stand beside it.
    let pickles = names.iter().filter(|name| is_pickle(name));
    if let Some(name) = pickles.min_by_key(|name| !name.starts_with("pytorch")) {
        let how = resave(dir, folder, config);
        return format!(
            "holds {name}, a pickle; a pickle can run code when it is read: where you trust it, {how}"
        );
    }
    if let Some(name) = names.iter().find(|name| name.ends_with(".safetensors")) {
        return format!(
            "holds {name}, and neither {WEIGHTS} nor {INDEX}, which names the files of weights where there are \
             several: copy the folder whole"
        );
    }
    if config {
        return format!(
            "holds config.json but no weights: {WEIGHTS} is wanted; copy the folder whole"
        );
    }
    format!("holds no model: config.json and {WEIGHTS} are wanted")
}

/// How a pickle becomes weights that are read.
fn resave(dir: &Path, folder: &str, config: bool) -> String {
    if !config {
        return "save the model as model.safetensors (config/demo/README.md shows how for scikit-learn)"
            .to_owned();
    }
    let config: Value = json(dir, &within(folder, "config.json")).unwrap_or_default();
    let class = config.pointer("/architectures/0").and_then(Value::as_str);
    let class = class.filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric()));
    let (library, class, load) = if present(dir, "modules.json") {
        ("sentence_transformers", "SentenceTransformer", "M")
    } else {
        ("transformers", class.unwrap_or("AutoModel"), "M.from_pretrained")
    };
    format!(
        "write {WEIGHTS} beside it with `python -c 'from {library} import {class} as M; \
         {load}(\"DIR\").save_pretrained(\"DIR\")'`"
    )
}

/// Whether a file is an adapter's.
pub(super) fn is_adapter(name: &str) -> bool {
    name == "adapter_config.json" || name.starts_with("adapter_model.")
}

fn is_pickle(name: &str) -> bool {
    ends(name, &PICKLES) && !OF_TRAINING.iter().any(|start| name.starts_with(start))
}

/// Whether a file holds weights of any kind.
fn holds_weights(name: &str) -> bool {
    name.ends_with(".safetensors")
        || is_pickle(name)
        || KINDS.iter().any(|(kinds, _)| ends(name, kinds))
}

/// The names of files in a folder and in those in it, as they can be printed, sorted; not of all, where there are many.
fn names(place: &Path) -> Vec<String> {
    let mut names = Vec::new();
    walk(place, 1, |name| names.push(printable::name(name)));
    names.sort_by_key(|name| (name.contains('/'), name.clone()));
    names
}

/// Folders below one that hold a model, a few of them.
fn below(dir: &Path, folder: &str) -> Vec<String> {
    let place = dir.join(folder);
    let mut found = Vec::new();
    walk(&place, DEEPEST, |name| {
        found.extend(name.strip_suffix("/config.json").map(str::to_owned));
    });
    found.retain(|name| {
        let held = fs::read_dir(place.join(name)).into_iter().flatten().flatten().take(MOST);
        held.map(|entry| entry.file_name()).any(|name| holds_weights(&name.to_string_lossy()))
    });
    found.sort();
    let more = found.len().saturating_sub(SHOWN);
    found.truncate(SHOWN);
    let mut found: Vec<String> = found.iter().map(|name| printable::name(name)).collect();
    found.extend((0 < more).then(|| format!("and {more} more")));
    found
}

/// Looks at what stands in a folder and in those below it, nearest first; no link to a folder is followed.
fn walk(place: &Path, depth: usize, mut file: impl FnMut(&str)) {
    let (mut folders, mut left) = (VecDeque::from([(String::new(), 0)]), MOST);
    while let Some((folder, deep)) = folders.pop_front() {
        for entry in fs::read_dir(place.join(&folder)).into_iter().flatten().flatten() {
            let Some(less) = left.checked_sub(1) else { return };
            left = less;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
            let name = within(&folder, name);
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && deep < depth => folders.push_back((name, deep + 1)),
                Ok(kind) if kind.is_dir() => (),
                _ => file(&name),
            }
        }
    }
}

//! What whoever loads a text model should know of it: what its folder holds and nothing uses.

use std::fs;
use std::path::Path;

use super::encode::Encode;
use super::layout::Layout;
use crate::answer::Task;
use crate::model::found::{ends, is_adapter};
use crate::printable;

/// Names that are shown.
const SHOWN: usize = 5;

/// Notes on a folder, in plain sentences; `unused` are the tensors that nothing took.
pub(super) fn of(
    layout: &Layout<'_>,
    encode: &Encode,
    task: Task,
    unused: &[String],
) -> Vec<String> {
    let mut notes: Vec<String> = ignored(task, unused).into_iter().collect();
    notes.extend(beside(layout.encoder.dir(), task));
    if task == Task::TextEmbedding {
        match &layout.modules {
            None => notes.push(
                "there is no modules.json: embeddings are the mean over all tokens, not normalised, as \
                 sentence-transformers does it"
                    .to_owned(),
            ),
            Some(_) if !encode.prompt.is_empty() => notes.push(format!(
                "the default prompt {:?} is put before every text, as config_sentence_transformers.json says",
                encode.prompt
            )),
            Some(_) => (),
        }
    }
    notes
}

/// Files beside the model that would make it answer something else where they are read.
fn beside(dir: &Path, task: Task) -> Vec<String> {
    const HEAD: &str = "model_head.pkl";
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| printable::name(&entry.file_name().to_string_lossy()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    let has = |name: &str| names.iter().any(|other| other == name);
    let task = task.name();
    let mut notes = Vec::new();
    if has("config_setfit.json") || has(HEAD) {
        notes.push(format!(
            "the folder is SetFit's, and its classifier, {HEAD}, is a pickle, which is not read: {task} is answered, \
             without the labels of config_setfit.json"
        ));
    }
    if let Some(name) = names.iter().find(|name| is_adapter(name)) {
        notes.push(format!("{name}: the adapter is not applied, and the model answers without it"));
    }
    // Weights of the model itself, in another format, and what a training left, are no news.
    let pickles = [".pkl", ".pickle", ".joblib", ".skops"];
    let others = names.iter().filter(|name| ends(name, &pickles) && *name != HEAD);
    notes.extend(
        others.take(SHOWN).map(|name| {
            format!("{name} is a pickle, which is not read: {task} is what is answered")
        }),
    );
    notes
}

/// That tensors are ignored. Not of those that transformers ignores without a word, and not of the pooler, which
/// every BERT has and only its text classifiers use.
fn ignored(task: Task, unused: &[String]) -> Option<String> {
    let silent = |name: &&String| {
        name.ends_with(".position_ids")
            || name.ends_with(".token_type_ids")
            || name.contains("pooler.dense.")
    };
    let unused: Vec<&String> = unused.iter().filter(|name| !silent(name)).collect();
    let count = unused.len();
    let shown: Vec<&str> = unused.iter().take(SHOWN).map(|name| name.as_str()).collect();
    let more = if SHOWN < count { ", …" } else { "" };
    (count != 0).then(|| {
        let (tensors, are) = if count == 1 { ("tensor", "is") } else { ("tensors", "are") };
        format!(
            "{count} {tensors} of the weights {are} not used for {}: {}{more}",
            task.name(),
            shown.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_beside_a_model_and_is_not_read_is_named() {
        for (files, parts) in [
            (
                &["config.json", "pytorch_model.bin", "training_args.bin", "optimizer.pt"][..],
                &[][..],
            ),
            (&["config_setfit.json", "model_head.pkl"], &["model_head.pkl, is a pickle"]),
            // As a registry has it: pickles are not imported.
            (&["config_setfit.json"], &["text-embedding is answered"]),
            (&["model_head.pkl"], &["SetFit"]),
            (
                &["adapter_config.json", "adapter_model.safetensors"],
                &["the adapter is not applied"],
            ),
            (&["a.joblib", "b.pkl"], &["a.joblib is a pickle", "b.pkl is a pickle"]),
        ] {
            let dir = tempfile::tempdir().unwrap();
            files.iter().for_each(|file| fs::write(dir.path().join(file), "").unwrap());
            let notes = beside(dir.path(), Task::TextEmbedding);
            assert_eq!(notes.len(), parts.len(), "{files:?}: {notes:?}");
            assert!(notes.iter().zip(parts).all(|(note, part)| note.contains(part)), "{notes:?}");
        }
    }

    #[test]
    fn ignored_tensors_are_named() {
        let unused = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            ignored(Task::TextEmbedding, &names)
        };
        assert_eq!(unused(&["embeddings.position_ids", "pooler.dense.bias"]), None);
        let said = unused(&["classifier.bias"]).unwrap();
        assert_eq!(said, "1 tensor of the weights is not used for text-embedding: classifier.bias");
        let said = unused(&["a", "b", "c", "d", "e", "f"]).unwrap();
        assert!(said.starts_with("6 tensors") && said.ends_with("a, b, c, d, e, …"), "{said}");
    }
}

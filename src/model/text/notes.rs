//! What whoever loads a text model should know of it: what its folder holds and nothing uses.

use super::encode::Encode;
use super::layout::Layout;
use crate::model::Task;

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

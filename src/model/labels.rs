//! The labels of a classifier, as a `config.json` names them.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

/// Labels by their ids from 0 on, as `id2label` of a `config.json` names them; `LABEL_0` and so on, `rows` of them, where it
/// names none, as transformers does. A number or a truth value is its text.
///
/// # Errors
///
/// What is no label, or which one is missing.
pub(super) fn labels(id2label: Option<&Value>, rows: usize) -> Result<Vec<String>, String> {
    let unnamed = || Ok((0..rows).map(|id| format!("LABEL_{id}")).collect());
    let named = match id2label {
        None | Some(Value::Null) => return unnamed(),
        Some(Value::Object(named)) if named.is_empty() => return unnamed(),
        Some(Value::Object(named)) => named,
        Some(_) => return Err("id2label is no object of labels by their numbers".to_owned()),
    };
    let label = |id: usize| match named.get(&id.to_string()) {
        Some(Value::String(label)) => Ok(label.clone()),
        Some(label @ (Value::Number(_) | Value::Bool(_))) => Ok(label.to_string()),
        Some(other) => Err(format!("id2label names label {id} {other}, which is no text")),
        None => Err(format!("id2label has {} labels, but none for {id}", named.len())),
    };
    (0..named.len()).map(label).collect()
}

/// Labels as the names of scores: of those that occur more than once, all but the first bear a number, as in
/// `crane`, `crane#2`; and a note on each label that was changed.
pub(super) fn unique(labels: Vec<String>) -> (Vec<String>, Vec<String>) {
    let mut taken: HashSet<String> = labels.iter().cloned().collect();
    let mut seen: HashMap<String, u64> = HashMap::new();
    let (mut named, mut notes) = (Vec::with_capacity(labels.len()), Vec::new());
    for (id, label) in labels.into_iter().enumerate() {
        let count = seen.entry(label.clone()).or_insert(0);
        *count += 1;
        if *count == 1 {
            named.push(label);
            continue;
        }
        let mut name = format!("{label}#{count}");
        while !taken.insert(name.clone()) {
            *count += 1;
            name = format!("{label}#{count}");
        }
        notes.push(format!(
            "id2label has {label:?} more than once: that of id {id} is called {name:?}"
        ));
        named.push(name);
    }
    (named, notes)
}

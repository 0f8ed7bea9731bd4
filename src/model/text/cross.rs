//! Cross-encoders of sentence-transformers: classifiers that read a pair of texts at once, and answer by the function
//! that their own files name.

use std::path::Path;

use serde_json::{Map, Value};

use super::head::Scores;
use super::{Error, optional};
use crate::model::artifact;

/// The file that newer versions write.
const FILE: &str = "config_sentence_transformers.json";

/// What the files of a cross-encoder say beside its classifier.
#[derive(Debug)]
pub(super) struct Cross {
    /// What becomes of the classifier's outputs; `None`: what fits their number.
    activation: Option<Scores>,
    /// What is put before each first text.
    pub(super) prompt: String,
}

impl Cross {
    /// `None` where nothing in a directory says that sentence-transformers made a cross-encoder of it.
    pub(super) fn read(dir: &Path, config: &Map<String, Value>) -> Result<Option<Self>, Error> {
        let mut own: Map<String, Value> = Map::new();
        if artifact::present(dir, "modules.json") {
            own = optional(dir, FILE)?.unwrap_or_default();
        }
        let whole = own.get("model_type").is_some_and(|kind| kind == "CrossEncoder");
        let newer = config.get("sentence_transformers").and_then(Value::as_object);
        let older = config.get("sbert_ce_default_activation_function");
        if !whole && newer.is_none() && older.is_none() {
            return Ok(None);
        }
        let said = |file, value: Option<&Value>| match value {
            None | Some(Value::Null) => Ok(None),
            Some(value) => activation(file, value),
        };
        let mut chosen = None;
        if whole {
            chosen = said(FILE, own.get("activation_fn"))?;
        }
        if chosen.is_none() {
            let named = newer.and_then(|newer| newer.get("activation_fn"));
            chosen = said("config.json", named.or(older))?;
        }
        let mut prompt = None;
        if whole && let Some(name) = own.get("default_prompt_name").and_then(Value::as_str) {
            prompt = own.get("prompts").and_then(|prompts| prompts.get(name)?.as_str());
        }
        Ok(Some(Self { activation: chosen, prompt: prompt.unwrap_or_default().to_owned() }))
    }

    /// What becomes of so many outputs.
    pub(super) fn scores(&self, labels: usize) -> Scores {
        let fits = if labels == 1 { Scores::Sigmoid } else { Scores::Identity };
        self.activation.unwrap_or(fits)
    }
}

/// A function by the name of its class in `PyTorch`; `None` where that is code of others, which is not run, here as
/// there.
fn activation(file: &str, value: &Value) -> Result<Option<Scores>, Error> {
    const KNOWN: [(&str, Scores); 5] = [
        ("Identity", Scores::Identity),
        ("Sigmoid", Scores::Sigmoid),
        ("Tanh", Scores::Tanh),
        ("ReLU", Scores::Relu),
        ("Softmax", Scores::Softmax),
    ];
    let name = value.as_str().unwrap_or_default();
    if !name.is_empty() && !name.starts_with("torch.") {
        tracing::warn!(
            file,
            activation_fn = name,
            "the activation function is code in another library, which is not run: the default is taken in its place"
        );
        return Ok(None);
    }
    let class = name.strip_prefix("torch.nn.").map(|rest| {
        rest.trim_start_matches("modules.")
            .trim_start_matches("linear.")
            .trim_start_matches("activation.")
    });
    match KNOWN.iter().find(|(known, _)| Some(*known) == class) {
        Some((_, scores)) => Ok(Some(*scores)),
        None => {
            let names = KNOWN.map(|(name, _)| name).join(", ");
            let message = format!(
                "activation function {value} is not supported; of torch.nn there are {names}"
            );
            Err(artifact::Error::config(file, message).into())
        }
    }
}

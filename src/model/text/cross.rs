//! Cross-encoders of sentence-transformers: classifiers that read a pair of texts at once, and answer by the function
//! that their own files name.

use serde_json::{Map, Value};

use super::layout::{ENCODE, Layout};
use super::outputs::Scores;
use crate::answer::Task;
use crate::model::files::Error;
use crate::model::folder::{Folder, Json};

/// The file of the encoder.
const OWN: &str = "sentence_bert_config.json";

/// What the files of a cross-encoder say beside its classifier.
#[derive(Debug, Default)]
pub(super) struct Cross {
    /// What becomes of the classifier's outputs; `None`: what fits their number.
    activation: Option<Scores>,
    /// What is put before each first text.
    pub(super) prompt: String,
    /// The file that says how long a pair may be, in tokens, and what it says.
    pub(super) longest: Option<(String, Value)>,
    /// What whoever loads it should know.
    pub(super) notes: Vec<String>,
}

impl Cross {
    /// What the files say to a model of this task, where one is asked for: a task that the folder has by itself changes
    /// nothing, and one label is a score to some and a class to others.
    pub(super) fn of(
        layout: &Layout<'_>,
        config: &Json,
        task: Option<Task>,
    ) -> Result<Option<Self>, Error> {
        let config = config.value();
        let labels = config.get("id2label").and_then(Value::as_object).map(Map::len);
        match task {
            None => Self::read(layout, config),
            Some(Task::TextRanking) => Ok(Some(Self::read(layout, config)?.unwrap_or_default())),
            Some(Task::TextClassification) if labels != Some(1) => Self::read(layout, config),
            Some(
                Task::TextEmbedding
                | Task::TextClassification
                | Task::TokenClassification
                | Task::TabularClassification
                | Task::TabularRegression
                | Task::ImageClassification,
            ) => Ok(None),
        }
    }

    /// `None` where nothing in a directory says that sentence-transformers made a cross-encoder of it.
    fn read(layout: &Layout<'_>, config: &Value) -> Result<Option<Self>, Error> {
        let root = Folder::root(layout.encoder.dir());
        let mut own: Map<String, Value> = Map::new();
        if root.has("modules.json") {
            own = root.optional(ENCODE)?.unwrap_or_default();
        }
        let whole = own.get("model_type").is_some_and(|kind| kind == "CrossEncoder");
        let newer = config.get("sentence_transformers").and_then(Value::as_object);
        let older = config.get("sbert_ce_default_activation_function");
        if layout.modules.is_some() || !whole && newer.is_none() && older.is_none() {
            return Ok(None);
        }
        let (mut prompt, mut longest, mut notes) = (None, None, Vec::new());
        let mut said = |folder: &Folder<'_>, file, value: Option<&Value>| match value {
            None | Some(Value::Null) => Ok(None),
            Some(value) => activation(folder, file, value, &mut notes),
        };
        let mut chosen = None;
        if whole {
            chosen = said(&root, ENCODE, own.get("activation_fn"))?;
            let lengths: Map<String, Value> = layout.encoder.optional(OWN)?.unwrap_or_default();
            let length = lengths.get("max_seq_length").filter(|length| !length.is_null());
            longest = length.map(|length| (layout.encoder.file(OWN), length.clone()));
            let name = own.get("default_prompt_name").and_then(Value::as_str);
            let prompts = own.get("prompts");
            prompt = name.and_then(|name| prompts.and_then(|prompts| prompts.get(name)?.as_str()));
        }
        if chosen.is_none() {
            let named = newer.and_then(|newer| newer.get("activation_fn"));
            chosen = said(&layout.encoder, "config.json", named.or(older))?;
        }
        let prompt = prompt.unwrap_or_default().to_owned();
        Ok(Some(Self { activation: chosen, prompt, longest, notes }))
    }

    /// What becomes of so many outputs.
    pub(super) fn scores(&self, labels: usize) -> Scores {
        let fits = if labels == 1 { Scores::Sigmoid } else { Scores::Identity };
        self.activation.unwrap_or(fits)
    }
}

/// A function by the name of its class in `PyTorch`; `None` where that is code of others, which is not run, here as
/// there.
fn activation(
    folder: &Folder<'_>,
    file: &str,
    value: &Value,
    notes: &mut Vec<String>,
) -> Result<Option<Scores>, Error> {
    const KNOWN: [(&str, Scores); 5] = [
        ("Identity", Scores::Identity),
        ("Sigmoid", Scores::Sigmoid),
        ("Tanh", Scores::Tanh),
        ("ReLU", Scores::Relu),
        ("Softmax", Scores::Softmax),
    ];
    let name = value.as_str().unwrap_or_default();
    if !name.is_empty() && !name.starts_with("torch.") {
        notes.push(format!(
            "the activation function {name:?} in {} is code of another library, which is not run: the default is taken",
            folder.file(file)
        ));
        return Ok(None);
    }
    let homes = ["torch.nn.modules.linear.", "torch.nn.modules.activation.", "torch.nn."];
    let class = homes.iter().find_map(|home| name.strip_prefix(home));
    match KNOWN.iter().find(|(known, _)| Some(*known) == class) {
        Some((_, scores)) => Ok(Some(*scores)),
        None => {
            let names = KNOWN.map(|(name, _)| name).join(", ");
            let message = format!(
                "activation function {value} is not supported; of torch.nn there are {names}"
            );
            Err(folder.fail(file, message))
        }
    }
}

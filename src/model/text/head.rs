//! What stands on a text model's hidden states, and how they become a prediction.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::architecture::Architecture;
use super::spans::spans;
use super::{Error, Take, Taken, optional};
use crate::config::Aggregation;
use crate::model::encoder::modernbert;
use crate::model::encoder::{self, Family, Linear};
use crate::model::scores::{sigmoid, softmax};
use crate::model::weights::Weights;
use crate::model::{Input, Prediction, Refused, Task, artifact};

/// What `config.json` says beside the encoder.
#[derive(Debug, Deserialize)]
struct Config {
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    id2label: BTreeMap<String, String>,
    #[serde(default)]
    problem_type: Option<String>,
}

/// `1_Pooling/config.json` of sentence-transformers.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PoolingConfig {
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
}

/// What stands on the encoder.
#[derive(Debug)]
pub(super) enum Head {
    /// A vector for each text.
    Embedding { take: Take, normalise: bool },
    /// Scores for each text.
    Classifier {
        take: Take,
        before: Option<Box<Before>>,
        output: Box<Linear>,
        labels: Arc<[String]>,
        scores: Scores,
    },
    /// Scores for each token, and what becomes of them.
    Tokens {
        before: Option<Box<Before>>,
        output: Box<Linear>,
        labels: Vec<String>,
        aggregation: Aggregation,
    },
}

/// What stands between the states and a classifier's last layer.
#[derive(Debug)]
pub(super) enum Before {
    Dense(Linear, Squash),
    Modern(modernbert::Head),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Squash {
    Tanh,
    Relu,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scores {
    /// One label is right.
    Softmax,
    /// Each label is right or not.
    Sigmoid,
    /// Values, as they are.
    Regression,
}

impl Head {
    /// The head that `config.json` and the folders of sentence-transformers describe.
    pub(super) fn load(
        dir: &Path,
        model: &Architecture,
        weights: &Weights,
        aggregation: Aggregation,
    ) -> Result<Self, Error> {
        let heads: Config = artifact::json(dir, "config.json")?;
        let architecture = heads.architectures.first().map_or("", String::as_str);
        let hidden = model.hidden();
        // A head is a thousandth of the work: it stays f32.
        let exact =
            |name, outputs| weights.linear(&[name], (hidden, outputs), encoder::Precision::F32);
        if architecture.ends_with("ForTokenClassification") {
            let labels = labels(&heads.id2label, weights, "classifier", hidden)?;
            let output = Box::new(exact("classifier", labels.len())?);
            let before = match model {
                Architecture::Bert(..) => None,
                Architecture::ModernBert(config) => Some(Before::modern(config, weights)?),
            };
            return Ok(Self::Tokens { before, output, labels, aggregation });
        }
        if !architecture.ends_with("ForSequenceClassification") {
            if architecture.contains("For") && !architecture.ends_with("ForMaskedLM") {
                let message = format!(
                    "architecture {architecture:?}: embedding, sequence classification and token classification are supported"
                );
                return Err(Error::Unsupported(message));
            }
            return embedding(dir);
        }
        let dense = |name, squash| Ok::<_, Error>(Before::Dense(exact(name, hidden)?, squash));
        let (take, before, output) = match model {
            Architecture::ModernBert(config) => {
                (config.take()?, Before::modern(config, weights)?, "classifier")
            }
            Architecture::Bert(_, family) => {
                let (before, output) = match family {
                    Family::Bert => (dense("bert.pooler.dense", Squash::Tanh)?, "classifier"),
                    Family::DistilBert => (dense("pre_classifier", Squash::Relu)?, "classifier"),
                    Family::Roberta | Family::Mpnet => {
                        (dense("classifier.dense", Squash::Tanh)?, "classifier.out_proj")
                    }
                };
                (Take::First, Box::new(before), output)
            }
        };
        let labels = labels(&heads.id2label, weights, output, hidden)?;
        // As transformers' text-classification pipeline chooses.
        let scores = match heads.problem_type.as_deref() {
            Some("regression") => Scores::Regression,
            Some("multi_label_classification") => Scores::Sigmoid,
            _ if labels.len() == 1 => Scores::Sigmoid,
            _ => Scores::Softmax,
        };
        let output = Box::new(exact(output, labels.len())?);
        let (before, labels) = (Some(before), labels.into());
        Ok(Self::Classifier { take, before, output, labels, scores })
    }

    /// What it wants of the hidden states.
    pub(super) fn take(&self) -> Take {
        match self {
            Self::Embedding { take, .. } | Self::Classifier { take, .. } => *take,
            Self::Tokens { .. } => Take::Tokens,
        }
    }

    /// What it is for.
    pub(super) fn task(&self) -> Task {
        match self {
            Self::Embedding { .. } => Task::TextEmbedding,
            Self::Classifier { .. } => Task::TextClassification,
            Self::Tokens { .. } => Task::TokenClassification,
        }
    }

    /// Labels by index; none where it gives vectors or a value.
    pub(super) fn labels(&self) -> &[String] {
        match self {
            Self::Embedding { .. } => &[],
            Self::Classifier { labels, scores: Scores::Regression, .. } if labels.len() == 1 => &[],
            Self::Classifier { labels, .. } => labels,
            Self::Tokens { labels, .. } => labels,
        }
    }

    /// A prediction for each input, from what was [taken](Self::take) of its hidden states.
    ///
    /// # Errors
    ///
    /// The first input whose output is NaN or infinite.
    pub(super) fn answer(
        &self,
        taken: Taken,
        inputs: &[&Input],
    ) -> Result<Vec<Prediction>, Refused> {
        let Taken { rows, offsets } = taken;
        let count = inputs.len();
        let (values, width) = match self {
            Self::Embedding { .. } => {
                let width = rows.len() / count.max(1);
                (rows, width)
            }
            Self::Classifier { before, output, .. } | Self::Tokens { before, output, .. } => {
                let rows = match before.as_deref() {
                    Some(before) => before.forward(&rows),
                    None => rows,
                };
                (output.forward(&rows), output.outputs())
            }
        };
        let mut predictions = Vec::with_capacity(count);
        for (row, (pair, input)) in offsets.windows(2).zip(inputs).enumerate() {
            let refused = |message: &str| Refused::Row { row, message: message.to_owned() };
            let values = &values[pair[0] * width..pair[1] * width];
            if !values.iter().all(|value| value.is_finite()) {
                return Err(refused("the output is NaN or infinite"));
            }
            let prediction = match (self, input) {
                (Self::Embedding { normalise, .. }, _) => embed(values, *normalise),
                (Self::Classifier { labels, scores, .. }, _) => scores.label(values, labels),
                (Self::Tokens { labels, aggregation, .. }, Input::Marked(marked)) => {
                    let scores: Vec<f32> = values.chunks_exact(width).flat_map(softmax).collect();
                    Prediction::Spans(spans(marked, &scores, labels, *aggregation))
                }
                (Self::Tokens { .. }, Input::Tokens(_) | Input::Row(_) | Input::Pixels { .. }) => {
                    return Err(refused("a token classifier wants the places of its tokens"));
                }
            };
            predictions.push(prediction);
        }
        Ok(predictions)
    }
}

impl Before {
    fn modern(
        config: &modernbert::Config,
        weights: &Weights,
    ) -> Result<Box<Self>, artifact::Error> {
        Ok(Box::new(Self::Modern(modernbert::Head::new(config, weights)?)))
    }

    /// `[rows, hidden]` to `[rows, hidden]`, f32.
    fn forward(&self, x: &[f32]) -> Vec<f32> {
        match self {
            Self::Dense(layer, squash) => {
                let mut y = layer.forward(x);
                squash.apply(&mut y);
                y
            }
            Self::Modern(head) => head.forward(x),
        }
    }
}

impl Squash {
    fn apply(self, values: &mut [f32]) {
        match self {
            Self::Tanh => values.iter_mut().for_each(|value| *value = value.tanh()),
            Self::Relu => values.iter_mut().for_each(|value| *value = value.max(0.0)),
        }
    }
}

impl Scores {
    /// A classifier's outputs, `[labels]`, as its answer.
    fn label(self, values: &[f32], labels: &Arc<[String]>) -> Prediction {
        let scores = match (self, values) {
            (Self::Regression, [value]) => return Prediction::Value((*value).into()),
            (Self::Regression, values) => values.to_vec(),
            (Self::Softmax, values) => softmax(values),
            (Self::Sigmoid, values) => values.iter().map(|value| sigmoid(*value)).collect(),
        };
        Prediction::label(&scores, labels)
    }
}

fn embed(vector: &[f32], normalise: bool) -> Prediction {
    let mut vector = vector.to_vec();
    if normalise {
        let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-12);
        vector.iter_mut().for_each(|value| *value /= length);
    }
    Prediction::Embedding(vector)
}

fn embedding(dir: &Path) -> Result<Head, Error> {
    let config = optional::<PoolingConfig>(dir, "1_Pooling/config.json")?;
    let take = match config {
        Some(PoolingConfig { pooling_mode_cls_token: true, .. }) => Take::First,
        Some(PoolingConfig { pooling_mode_max_tokens: true, .. }) => Take::Max,
        Some(PoolingConfig { pooling_mode_mean_tokens: true, .. }) | None => Take::Mean,
        Some(PoolingConfig { .. }) => {
            let message = "1_Pooling/config.json: mean, cls and max pooling are supported";
            return Err(Error::Unsupported(message.to_owned()));
        }
    };
    let modules = optional::<Vec<Value>>(dir, "modules.json")?.unwrap_or_default();
    let kinds: Vec<&str> =
        modules.iter().filter_map(|module| module.get("type")?.as_str()).collect();
    let known = ["Transformer", "Pooling", "Normalize"];
    if let Some(other) = kinds.iter().find(|kind| !known.iter().any(|known| kind.ends_with(known)))
    {
        let message = format!("modules.json: module {other:?} is none of {}", known.join(", "));
        return Err(Error::Unsupported(message));
    }
    // A directory without modules is a bare encoder: pooled and normalised, as vector stores want it.
    let normalise = kinds.is_empty() || kinds.iter().any(|kind| kind.ends_with("Normalize"));
    Ok(Head::Embedding { take, normalise })
}

/// Labels in the order of their indices, one for each row of the weight `name`. Where the configuration has none they
/// are called `LABEL_0` and so on, as transformers does.
fn labels(
    id2label: &BTreeMap<String, String>,
    weights: &Weights,
    name: &str,
    hidden: usize,
) -> Result<Vec<String>, artifact::Error> {
    let weight = format!("{name}.weight");
    let rows = match weights.shape(&weight) {
        Some([rows, width]) if *width == hidden => Some(*rows),
        _ => None, // taking it says what is wrong
    };
    if id2label.is_empty() {
        return Ok((0..rows.unwrap_or(2)).map(|id| format!("LABEL_{id}")).collect());
    }
    let labels: Vec<String> =
        (0..id2label.len()).map_while(|id| id2label.get(&id.to_string()).cloned()).collect();
    if labels.len() != id2label.len() {
        let missing = labels.len();
        let message = format!("id2label has {} labels, but none for {missing}", id2label.len());
        return Err(artifact::Error::config("config.json", message));
    }
    match rows {
        Some(rows) if rows != labels.len() => {
            let message = format!(
                "has shape [{rows}, {hidden}], expected [{}, {hidden}]: id2label in config.json has {} labels",
                labels.len(),
                labels.len()
            );
            Err(artifact::Error::tensor(&weight, &message))
        }
        Some(_) | None => Ok(labels),
    }
}

//! What stands on a text model's hidden states, and how they become a prediction.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::architecture::Architecture;
use super::backbone::Taken;
use super::cross::Cross;
use super::encode::Encode;
use super::layout::Layout;
use super::outputs::Scores;
use super::spans::spans;
use super::stages::{Embedding, Squash};
use crate::answer::{Prediction, Refused, Task};
use crate::config::Aggregation;
use crate::model::Input;
use crate::model::encoder::{self, Activation, Family, Linear, Names, Take, modernbert};
use crate::model::files::Error;
use crate::model::folder::{Folder, Json};
use crate::model::labels::{labels as named, unique};
use crate::model::scores::softmax;
use crate::model::weights::Weights;

/// The file that says what the head is.
const FILE: &str = "config.json";

/// What `config.json` says beside the encoder. Labels are looked at where they are wanted.
#[derive(Debug, Deserialize)]
struct Config {
    architectures: Option<Vec<String>>,
    id2label: Option<Value>,
    problem_type: Option<Value>,
}

/// What stands on the encoder.
#[derive(Debug)]
pub(super) enum Head {
    /// A vector for each text.
    Embedding(Embedding),
    /// Scores for each text.
    Classifier {
        take: Take,
        before: Option<Box<Before>>,
        output: Box<Linear>,
        labels: Arc<[String]>,
        scores: Scores,
        /// Whether it is a cross-encoder.
        cross: bool,
        /// What whoever loads it should know.
        notes: Vec<String>,
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

/// Whether a second text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pairs {
    /// Two texts are wanted.
    Always,
    /// One or two; an empty second text is a text, as `CrossEncoder.predict` has it.
    Either,
    /// One or two; an empty second text is none, as transformers' pipeline has it.
    Also,
    /// One.
    Never,
}

impl Head {
    /// The head that `config.json` and `modules.json` describe, or `asked` wants of them; `prompt` is the number of
    /// tokens that stand before each text.
    pub(super) fn load(
        (layout, config): (&Layout<'_>, &Json),
        model: &Architecture,
        weights: &Weights,
        asked: (Option<Task>, Aggregation),
        (encode, prompt, cross): (&Encode, usize, Option<Cross>),
    ) -> Result<Self, Error> {
        let heads: Config = config.parse()?;
        let (hidden, (asked, aggregation)) = (model.hidden(), asked);
        match task(layout, &heads, weights, asked)? {
            Task::TextClassification | Task::TextRanking => {
                Self::classifier(&layout.encoder, &heads, model, weights, (asked, cross))
            }
            Task::TokenClassification => {
                let labels = labels(&layout.encoder, &heads, weights, "classifier", hidden)?;
                let output = Box::new(exact(weights, "classifier", hidden, labels.len())?);
                let before = match model {
                    Architecture::Bert(..) => None,
                    Architecture::ModernBert(config) => Some(Before::modern(config, weights)?),
                };
                Ok(Self::Tokens { before, output, labels, aggregation })
            }
            Task::TextEmbedding
            | Task::TabularClassification
            | Task::TabularRegression
            | Task::ImageClassification => {
                let modules = layout.modules.as_deref();
                Ok(Self::Embedding(Embedding::load(modules, encode, hidden, prompt)?))
            }
        }
    }

    fn classifier(
        folder: &Folder<'_>,
        heads: &Config,
        model: &Architecture,
        weights: &Weights,
        (asked, cross): (Option<Task>, Option<Cross>),
    ) -> Result<Self, Error> {
        let hidden = model.hidden();
        let dense = |name: &str, squash| {
            Ok::<_, Error>(Before::Dense(exact(weights, name, hidden, hidden)?, squash))
        };
        let (take, before, output) = match model {
            Architecture::ModernBert(config) => {
                (config.take()?, Before::modern(config, weights)?, "classifier")
            }
            Architecture::Bert(_, family) => {
                let pooler = Names::new(*family, weights).pooler();
                let (before, output) = match family {
                    Family::Bert => (dense(&pooler, Squash::Tanh)?, "classifier"),
                    Family::DistilBert => {
                        (dense("pre_classifier", Squash::Other(Activation::Relu))?, "classifier")
                    }
                    Family::Roberta | Family::Mpnet => {
                        (dense("classifier.dense", Squash::Tanh)?, "classifier.out_proj")
                    }
                };
                (Take::First, Box::new(before), output)
            }
        };
        let labels = labels(folder, heads, weights, output, hidden)?;
        if asked == Some(Task::TextRanking) && labels.len() != 1 {
            let message = format!(
                "model.task is text-ranking, which is one score, and the classifier has {} labels",
                labels.len()
            );
            return Err(Error::Unsupported(message));
        }
        // As sentence-transformers does it, or as transformers' text-classification pipeline chooses.
        let scores = match (&cross, heads.problem_type.as_ref()) {
            (Some(cross), _) => cross.scores(labels.len()),
            (None, Some(kind)) if kind == "regression" => Scores::Regression,
            (None, Some(kind)) if kind == "multi_label_classification" => Scores::Sigmoid,
            (None, Some(kind)) if kind != "single_label_classification" && !kind.is_null() => {
                let message = format!(
                    "problem_type {kind} is none of regression, single_label_classification, multi_label_classification"
                );
                return Err(folder.fail(FILE, message));
            }
            _ if labels.len() == 1 => Scores::Sigmoid,
            _ => Scores::Softmax,
        };
        let output = Box::new(exact(weights, output, hidden, labels.len())?);
        let (labels, mut notes) = unique(labels);
        let is_alone = labels.len() == 1;
        let (before, labels) = (Some(before), labels.into());
        let whole = cross.is_some();
        if !whole && is_alone && heads.problem_type.is_none() {
            notes.push(
                "its classifier has one label, and nothing in the folder says that it ranks pairs: it answers as \
                 transformers' text-classification does; for a reranker set model.task: text-ranking"
                    .to_owned(),
            );
        }
        notes.extend(cross.into_iter().flat_map(|cross| cross.notes));
        Ok(Self::Classifier { take, before, output, labels, scores, cross: whole, notes })
    }

    /// What it wants of the hidden states.
    pub(super) fn take(&self) -> Take {
        match self {
            Self::Embedding(embedding) => embedding.take(),
            Self::Classifier { take, .. } => *take,
            Self::Tokens { .. } => Take::Tokens,
        }
    }

    /// What it is for.
    pub(super) fn task(&self) -> Task {
        match self {
            Self::Embedding(_) => Task::TextEmbedding,
            Self::Classifier { cross: true, labels, .. } if labels.len() == 1 => Task::TextRanking,
            Self::Classifier { .. } => Task::TextClassification,
            Self::Tokens { .. } => Task::TokenClassification,
        }
    }

    /// Whether it reads a second text.
    pub(super) fn pairs(&self) -> Pairs {
        match self {
            Self::Classifier { .. } if self.task() == Task::TextRanking => Pairs::Always,
            Self::Classifier { cross: true, .. } => Pairs::Either,
            Self::Classifier { .. } => Pairs::Also,
            Self::Embedding(_) | Self::Tokens { .. } => Pairs::Never,
        }
    }

    /// What whoever loads it should know.
    pub(super) fn notes(&self) -> &[String] {
        match self {
            Self::Classifier { notes, .. } => notes,
            Self::Embedding(_) | Self::Tokens { .. } => &[],
        }
    }

    /// Numbers in an answer.
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Embedding(embedding) => embedding.width(),
            Self::Classifier { labels, .. } => labels.len(),
            Self::Tokens { labels, .. } => labels.len(),
        }
    }

    /// Labels by index; none where it gives vectors or a value.
    pub(super) fn labels(&self) -> &[String] {
        match self {
            Self::Embedding(_) => &[],
            Self::Classifier { labels, scores: Scores::Regression, .. } if labels.len() == 1 => &[],
            Self::Classifier { labels, .. } => labels,
            Self::Tokens { labels, .. } => labels,
        }
    }

    /// A vector for each row of what was [taken](Self::take), and nothing where it gives something else; whether vectors
    /// are of length 1 beside it.
    ///
    /// # Errors
    ///
    /// The first row whose output is NaN or infinite.
    pub(super) fn embeddings(&self, taken: Taken) -> Result<(Vec<Vec<f32>>, bool), Refused> {
        match self {
            Self::Embedding(embedding) => Ok((vectors(embedding, taken)?, embedding.is_unit())),
            Self::Classifier { .. } | Self::Tokens { .. } => {
                Err(Refused::Batch("windows of a text have embeddings alone".to_owned()))
            }
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
        let (values, width) = match self {
            Self::Embedding(embedding) => {
                let vectors = vectors(embedding, Taken { rows, offsets })?;
                return Ok(vectors.into_iter().map(Prediction::Embedding).collect());
            }
            Self::Classifier { before, output, .. } | Self::Tokens { before, output, .. } => {
                let rows = match before.as_deref() {
                    Some(before) => before.forward(&rows),
                    None => rows,
                };
                (output.forward(&rows), output.outputs())
            }
        };
        let mut predictions = Vec::with_capacity(inputs.len());
        for (row, (pair, input)) in offsets.windows(2).zip(inputs).enumerate() {
            let values = &values[pair[0] * width..pair[1] * width];
            if !values.iter().all(|value| value.is_finite()) {
                return Err(infinite(row));
            }
            let prediction = match (self, input) {
                (Self::Classifier { labels, scores, .. }, _) => scores.label(values, labels),
                (Self::Tokens { labels, aggregation, .. }, Input::Marked(marked)) => {
                    let scores: Vec<f32> = values.chunks_exact(width).flat_map(softmax).collect();
                    Prediction::Spans(spans(marked, &scores, labels, *aggregation))
                }
                _ => {
                    let message = "a token classifier wants the places of its tokens".to_owned();
                    return Err(Refused::Row { row, message });
                }
            };
            predictions.push(prediction);
        }
        Ok(predictions)
    }
}

/// A vector for each row.
fn vectors(
    embedding: &Embedding,
    Taken { rows, offsets }: Taken,
) -> Result<Vec<Vec<f32>>, Refused> {
    let vectors = embedding.forward(rows, &offsets);
    let finite = |vector: &Vec<f32>| vector.iter().all(|value| value.is_finite());
    match vectors.iter().position(|vector| !finite(vector)) {
        Some(row) => Err(infinite(row)),
        None => Ok(vectors),
    }
}

fn infinite(row: usize) -> Refused {
    Refused::Row { row, message: "the output is NaN or infinite".to_owned() }
}

impl Before {
    fn modern(config: &modernbert::Config, weights: &Weights) -> Result<Box<Self>, Error> {
        Ok(Box::new(Self::Modern(modernbert::Head::new(config, weights)?)))
    }

    /// `[rows, hidden]` to `[rows, hidden]`, f32.
    fn forward(&self, x: &[f32]) -> Vec<f32> {
        match self {
            Self::Dense(layer, squash) => {
                let mut y = layer.forward(x);
                squash.apply(&mut y, layer.outputs());
                y
            }
            Self::Modern(head) => head.forward(x),
        }
    }
}

/// A dense layer of a head: a thousandth of the work, so it stays f32.
fn exact(weights: &Weights, name: &str, inputs: usize, outputs: usize) -> Result<Linear, Error> {
    weights.linear(&[name], (inputs, outputs), encoder::Precision::F32)
}

/// Layers that only a classifier has, of texts or of tokens.
const CLASSIFIERS: [&str; 2] = ["classifier.weight", "classifier.out_proj.weight"];

/// What a text model is for: what was asked for, else what its files say.
fn task(
    layout: &Layout<'_>,
    heads: &Config,
    weights: &Weights,
    asked: Option<Task>,
) -> Result<Task, Error> {
    let unsupported = |message: String| Err(Error::Unsupported(message));
    let known = Task::OF_TEXTS;
    match asked {
        Some(task) if task.is_of_text() => return Ok(task),
        Some(task) => {
            let message = format!(
                "model.task is {}, and the folder holds a text model: {known}",
                task.name()
            );
            return unsupported(message);
        }
        None if layout.modules.is_some() => return Ok(Task::TextEmbedding),
        None => (),
    }
    let named = heads.architectures.iter().flatten().next().map(String::as_str);
    let ends = |end: &str| named.is_some_and(|name| name.ends_with(end));
    if ends("ForSequenceClassification") {
        return Ok(Task::TextClassification);
    }
    if ends("ForTokenClassification") {
        return Ok(Task::TokenClassification);
    }
    let named = named.unwrap_or("none");
    let classifier = CLASSIFIERS.iter().find(|name| weights.shape(name).is_some());
    if ["ForQuestionAnswering", "ForMultipleChoice", "ForCausalLM"].iter().any(|end| ends(end)) {
        return unsupported(format!(
            "architectures in config.json names {named}, a task that is not supported; set model.task (--task) to \
             text-embedding to use its encoder alone"
        ));
    }
    match classifier {
        Some(name) => unsupported(format!(
            "architectures in config.json names {named}, and the weights have {name}: set model.task (--task) to say \
             what the model is for: {known}"
        )),
        None => Ok(Task::TextEmbedding),
    }
}

/// Labels in the order of their indices, one for each row of the weight `name`.
fn labels(
    folder: &Folder<'_>,
    heads: &Config,
    weights: &Weights,
    name: &str,
    hidden: usize,
) -> Result<Vec<String>, Error> {
    let weight = format!("{name}.weight");
    let rows = match weights.shape(&weight) {
        Some([rows, width]) if *width == hidden => Some(*rows),
        _ => None, // taking it says what is wrong
    };
    let labels = named(heads.id2label.as_ref(), rows.unwrap_or(2))
        .map_err(|message| folder.fail(FILE, message))?;
    match rows {
        Some(rows) if rows != labels.len() => {
            let message = format!(
                "has shape [{rows}, {hidden}], expected [{}, {hidden}]: id2label in config.json has {} labels",
                labels.len(),
                labels.len()
            );
            Err(Error::tensor(&weight, &message))
        }
        Some(_) | None => Ok(labels),
    }
}

//! Tabular models: linear, logistic, MLP, with their fitted preprocessing inside the artifact.
//!
//! ```text
//!  fields ─► impute ─► (x − mean) / scale ─┐
//!         ─► impute ─► one-hot ────────────┴─► [features] ─► layers ─► sigmoid | softmax | identity
//! ```
//!
//! All of it is f64, from the field to the printed answer, as scikit-learn has it, and on the CPU whatever
//! `model.precision` says: differences of large numbers, time stamps among them, are lost in f32. A row's sums always run
//! in the same order, so a batch gives the bits that single rows give.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::files::Error;
use super::folder::Json;
use super::kernels::Double;
use super::weights::Weights;
use super::{About, Given, Input, Model};
use crate::answer::{Prediction, Refused, Task, best};
use crate::clean::{Cleans, OnMissing};
use crate::field::Values;
use crate::model::SUB_BATCH_TOKENS;
use crate::record::Fault;
use columns::Column;
use members::{Members, shown};

mod columns;
mod members;

/// Most units of a layer, and most layers.
const MOST: (usize, usize) = (65_536, 64);

/// `config.json` of a tabular artifact.
#[derive(Debug)]
struct Config {
    task: Task,
    architecture: Architecture,
    activation: Activation,
    labels: Vec<String>,
    output: Output,
}

/// The estimator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Architecture {
    /// One layer, a value.
    Linear,
    /// One layer, labels: the best is chosen by its sums.
    Logistic,
    /// Several layers: the best is chosen by the scores.
    Mlp,
}

/// Between the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Activation {
    Relu,
    Tanh,
    Logistic,
    Identity,
}

/// After the last layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Output {
    /// One unit: the probability of `labels[1]`.
    Sigmoid,
    /// One unit a label.
    Softmax,
    /// One unit: the value.
    Identity,
}

/// A tabular model. See the module.
#[derive(Debug)]
pub struct Tabular {
    about: About,
    columns: Vec<Column>,
    cleans: Cleans,
    /// Features that the first layer takes.
    width: usize,
    layers: Vec<Double>,
    architecture: Architecture,
    activation: Activation,
    output: Output,
    labels: Arc<[String]>,
}

/// Loads `preprocess.json` and `model.safetensors` out of `dir`, whose `config.json` is at hand.
///
/// # Errors
///
/// With the file, the tensor, and what was expected and found.
pub(super) fn load(dir: &Path, config: &Json) -> Result<Tabular, Error> {
    let config = Config::read(config)?;
    let mut columns = columns::read(dir)?;
    let cleans = columns
        .iter_mut()
        .filter_map(|column| Some((column.name.clone(), column.clean.take()?)))
        .collect();
    let width = columns.iter().map(Column::width).sum();
    let weights = Weights::open(dir)?;
    let layers = layers(&weights, width)?;
    config.check(&layers)?;
    weights.finish()?;
    let architecture = format!("{:?}", config.architecture).to_lowercase();
    let about = About {
        task: config.task,
        architecture,
        precision: "f64",
        device: "cpu".to_owned(),
        fields: columns.iter().map(|column| column.name.clone()).collect(),
        labels: config.labels.clone(),
        width: config.labels.len().max(1),
        bytes: u64::try_from(layers.iter().map(Double::bytes).sum::<usize>()).unwrap_or(u64::MAX),
        chunk_tokens: SUB_BATCH_TOKENS,
        padded: false,
        notes: Vec::new(),
    };
    let Config { architecture, activation, labels, output, .. } = config;
    let labels = labels.into();
    Ok(Tabular { about, columns, cleans, width, layers, architecture, activation, output, labels })
}

/// Layers 0, 1, … of `inputs` features, and nothing beside them.
fn layers(weights: &Weights, mut inputs: usize) -> Result<Vec<Double>, Error> {
    let (units, most) = MOST;
    let mut layers: Vec<Double> = Vec::new();
    loop {
        let (weight, bias) =
            (format!("layers.{}.weight", layers.len()), format!("layers.{}.bias", layers.len()));
        let outputs = match weights.shape(&weight) {
            Some([outputs, _]) => *outputs,
            Some(shape) => {
                let message = format!(
                    "has shape {shape:?}, expected [units, {inputs}]: a row for each unit (numpy.atleast_2d)"
                );
                return Err(Error::tensor(&weight, &message));
            }
            None => break,
        };
        if units < outputs || layers.len() == most {
            let message = format!("is too much: at most {most} layers of {units} units are taken");
            return Err(Error::tensor(&weight, &message));
        }
        let values = weights.doubles(&weight, &[outputs, inputs])?;
        layers.push(Double::new(&values, weights.doubles(&bias, &[outputs])?, inputs));
        inputs = outputs;
    }
    if layers.is_empty() {
        return Err(Error::tensor("layers.0.weight", "is missing"));
    }
    let known = |name: &str| {
        let number = name.strip_prefix("layers.").and_then(|rest| rest.split_once('.'));
        number.is_some_and(|(number, rest)| {
            let place = number.parse::<usize>().ok().filter(|place| place.to_string() == number);
            place.is_some_and(|place| place < layers.len()) && ["weight", "bias"].contains(&rest)
        })
    };
    match weights.elements().find(|(name, ..)| !known(name)) {
        Some((name, ..)) => {
            let message = format!(
                "is not used: layers.0 to layers.{} are, each with weight and bias, without a gap",
                layers.len() - 1
            );
            Err(Error::tensor(name, &message))
        }
        None => Ok(layers),
    }
}

impl Config {
    fn read(config: &Json) -> Result<Self, Error> {
        let mut members = Members::of("config.json", String::new(), config.parse()?)?;
        let tasks = "\"tabular-classification\" or \"tabular-regression\"";
        let task = members.need("task", tasks)?;
        let wanted = "one of linear, logistic, mlp (others are not run here)";
        let architecture = members.need("architecture", wanted)?;
        let wanted = "one of relu, tanh, logistic, identity";
        // As scikit-learn's MLPs.
        let activation = members.take("activation", wanted)?.unwrap_or(Activation::Relu);
        let output = members.need("output", "one of sigmoid, softmax, identity")?;
        let labels: Vec<Value> = members.take("labels", "a list of labels")?.unwrap_or_default();
        let (mut names, mut seen) = (Vec::with_capacity(labels.len()), HashSet::new());
        for label in labels {
            let name = match label {
                Value::String(text) => text,
                Value::Number(_) | Value::Bool(_) => label.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    let message = format!("label {} is neither text nor number", shown(&label));
                    return Err(members.error(&message));
                }
            };
            if !seen.insert(name.clone()) {
                let message =
                    format!("label {name:?} stands twice: give each class a name of its own");
                return Err(members.error(&message));
            }
            names.push(name);
        }
        members.finish("task, architecture, activation, output, labels")?;
        Ok(Self { task, architecture, activation, labels: names, output })
    }

    /// What the files must agree on.
    fn check(&self, layers: &[Double]) -> Result<(), Error> {
        let Self { task, architecture, output, labels, .. } = self;
        let fail = |message: String| Err(Error::config("config.json", message));
        if *architecture != Architecture::Mlp && layers.len() != 1 {
            let name = format!("{architecture:?}").to_lowercase();
            return fail(format!(
                "architecture is {name}, which has one layer; there are {}: mlp has several",
                layers.len()
            ));
        }
        let named = format!("{output:?}").to_lowercase();
        let (units, labelled) = match (task, output) {
            (Task::TabularRegression, Output::Identity) => (1, 0),
            (Task::TabularClassification, Output::Sigmoid) => (1, 2),
            (Task::TabularClassification, Output::Softmax) => (labels.len(), labels.len().max(2)),
            _ => {
                return fail(format!(
                    "output is {named}: tabular-regression has identity, tabular-classification sigmoid (one unit) or \
                     softmax (a unit for each label)"
                ));
            }
        };
        if labels.len() != labelled {
            let found = labels.len();
            return fail(format!("{found} labels; output {named} of this task has {labelled}"));
        }
        match layers.last().map_or(0, Double::outputs) {
            found if found == units => Ok(()),
            found => fail(format!(
                "the last layer has {found} units; output {named} with {labelled} labels has {units}"
            )),
        }
    }
}

impl Tabular {
    fn activate(&self, values: &mut [f64]) {
        match self.activation {
            // Not `max`, which takes 0 for a NaN.
            Activation::Relu => {
                values.iter_mut().for_each(|v| *v = if *v < 0.0 { 0.0 } else { *v });
            }
            Activation::Tanh => values.iter_mut().for_each(|value| *value = value.tanh()),
            Activation::Logistic => values.iter_mut().for_each(|value| *value = sigmoid(*value)),
            Activation::Identity => (),
        }
    }

    fn answer(&self, units: &[f64]) -> Prediction {
        // Scores may be equal where sums are not.
        let by_sum = self.architecture == Architecture::Logistic;
        match self.output {
            Output::Identity => Prediction::Value(units[0].into()),
            Output::Sigmoid => {
                let p = sigmoid(units[0]);
                let scores = [1.0 - p, p];
                let best = if by_sum { usize::from(0.0 < units[0]) } else { best(&scores) };
                Prediction::labelled(best, &scores, &self.labels)
            }
            Output::Softmax => {
                let scores = softmax(units);
                let best = best(if by_sum { units } else { &scores });
                Prediction::labelled(best, &scores, &self.labels)
            }
        }
    }
}

impl Model for Tabular {
    fn about(&self) -> &About {
        &self.about
    }

    fn takes(&self, field: &str, given: Given) -> bool {
        self.columns
            .iter()
            .filter(|column| column.name() == field)
            .all(|column| column.takes(given))
    }

    fn cleans(&self) -> &Cleans {
        &self.cleans
    }

    fn fills(&self) -> Vec<(usize, OnMissing)> {
        let fills = |(place, column): (usize, &Column)| Some((place, column.fills()?));
        self.columns.iter().enumerate().filter_map(fills).collect()
    }

    fn prepare(&self, values: &Values<'_>) -> Result<Input, Fault> {
        let mut row = Vec::with_capacity(self.width);
        for (place, column) in self.columns.iter().enumerate() {
            column.encode(values.get(place).and_then(Option::as_ref), &mut row)?;
        }
        Ok(Input::Row(row.into_boxed_slice()))
    }

    fn predict(&self, inputs: &[&Input]) -> Result<Vec<Prediction>, Refused> {
        let mut x = Vec::with_capacity(inputs.len() * self.width);
        let refused = |row: usize, message: &str| Refused::Row { row, message: message.to_owned() };
        for (row, input) in inputs.iter().enumerate() {
            let Input::Row(features) = input else {
                return Err(refused(row, "a tabular model takes fields, not tokens"));
            };
            x.extend_from_slice(features);
        }
        for (number, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x);
            if number + 1 != self.layers.len() {
                self.activate(&mut x);
            }
        }
        let units = self.layers.last().map_or(1, Double::outputs);
        let mut predictions = Vec::with_capacity(inputs.len());
        for (row, units) in x.chunks_exact(units).enumerate() {
            if units.iter().any(|unit| !unit.is_finite()) {
                return Err(refused(row, "the output is NaN or infinite"));
            }
            predictions.push(self.answer(units));
        }
        Ok(predictions)
    }
}

/// `1 / (1 + e^-x)` as scipy's `expit`: for every finite x between 0 and 1.
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `e^x / Σ e^x`, shifted by the largest so that nothing overflows.
fn softmax(units: &[f64]) -> Vec<f64> {
    let largest = units.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut scores: Vec<f64> = units.iter().map(|unit| (unit - largest).exp()).collect();
    let sum: f64 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
    scores
}

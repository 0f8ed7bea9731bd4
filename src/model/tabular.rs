//! Tabular models: linear, logistic, MLP, with their fitted preprocessing inside the artifact.
//!
//! ```text
//!  fields ─► impute ─► (x − mean) / scale ─┐
//!         ─► impute ─► one-hot ────────────┴─► [features] f32 ─► layers ─► sigmoid | softmax | identity
//! ```
//!
//! Preprocessing is done in f64 as scikit-learn does, the layers in f32. A row's sums always run in the same
//! order, so a batch gives the bits that single rows give.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::artifact::Error;
use super::encoder::{Linear, Precision};
use super::weights::Weights;
use super::worker::SUB_BATCH_TOKENS;
use super::{About, Fields, Input, Model, Prediction, Refused, Task};
use crate::format::kind;
use crate::record::{Fault, FaultClass};

/// Most features of a record: 256 KiB of f32 for each that waits.
const MOST_FEATURES: usize = 65_536;

/// `config.json` of a tabular artifact.
#[derive(Debug, Clone, Deserialize)]
struct Config {
    task: Task,
    architecture: String,
    #[serde(default)]
    activation: Activation,
    #[serde(default)]
    labels: Vec<String>,
    output: Output,
}

/// Between the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Activation {
    #[default]
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

/// `preprocess.json`: what was fitted.
#[derive(Debug, Clone, Deserialize)]
struct Preprocess {
    columns: Vec<Column>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Column {
    /// A number: one feature.
    Numeric {
        name: String,
        #[serde(default)]
        impute: Option<f64>,
        #[serde(default)]
        mean: f64,
        #[serde(default = "one")]
        scale: f64,
        #[serde(default)]
        min: Option<f64>,
        #[serde(default)]
        max: Option<f64>,
    },
    /// A text out of a list: one feature for each.
    Categorical {
        name: String,
        #[serde(default)]
        impute: Option<String>,
        categories: Vec<String>,
        #[serde(default)]
        unknown: Unknown,
    },
}

/// What a category means that was not fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unknown {
    /// All features 0, as scikit-learn's `handle_unknown="ignore"`.
    #[default]
    Ignore,
    /// The record becomes a dead letter.
    Error,
}

fn one() -> f64 {
    1.0
}

impl Column {
    fn name(&self) -> &str {
        match self {
            Self::Numeric { name, .. } | Self::Categorical { name, .. } => name,
        }
    }

    fn width(&self) -> usize {
        match self {
            Self::Numeric { .. } => 1,
            Self::Categorical { categories, .. } => categories.len(),
        }
    }

    /// Appends this column's features, f32 after arithmetic in f64.
    fn encode(&self, fields: &Fields, out: &mut Vec<f32>) -> Result<(), Fault> {
        let value = fields.get(self.name()).filter(|value| !value.is_null());
        match self {
            Self::Numeric { name, impute, mean, scale, min, max } => {
                let number = match value {
                    Some(Value::Number(number)) => number.as_f64(),
                    Some(other) => return Err(wrong_type(name, "number", other)),
                    None => Some(impute.ok_or_else(|| missing(name))?),
                };
                let number = number
                    .filter(|number| number.is_finite())
                    .ok_or_else(|| invalid(name, "is no finite number"))?;
                if min.is_some_and(|min| number < min) || max.is_some_and(|max| max < number) {
                    return Err(invalid(
                        name,
                        "is outside the range that the model was fitted for",
                    ));
                }
                #[expect(clippy::cast_possible_truncation, reason = "the layers are f32")]
                let feature = ((number - mean) / scale) as f32;
                if !feature.is_finite() {
                    return Err(invalid(name, "is too large"));
                }
                out.push(feature);
            }
            Self::Categorical { name, impute, categories, unknown } => {
                let text = match value {
                    Some(Value::String(text)) => text,
                    Some(other) => return Err(wrong_type(name, "string", other)),
                    None => impute.as_ref().ok_or_else(|| missing(name))?,
                };
                if *unknown == Unknown::Error && !categories.contains(text) {
                    return Err(invalid(
                        name,
                        "is none of the categories that the model was fitted for",
                    ));
                }
                let hot = |category| if category == text { 1.0 } else { 0.0 };
                out.extend(categories.iter().map(hot));
            }
        }
        Ok(())
    }
}

fn missing(name: &str) -> Fault {
    let message =
        format!("field {name:?} is missing or null, and the model has no replacement for it");
    Fault::new(FaultClass::Missing, message)
}

fn invalid(name: &str, what: &str) -> Fault {
    Fault::new(FaultClass::Invalid, format!("field {name:?} {what}"))
}

fn wrong_type(name: &str, expected: &str, found: &Value) -> Fault {
    invalid(name, &format!("is a {}, not a {expected}", kind(found)))
}

/// A tabular model. See the module.
#[derive(Debug)]
pub struct Tabular {
    about: About,
    columns: Vec<Column>,
    /// Features that the first layer takes.
    width: usize,
    layers: Vec<Linear>,
    activation: Activation,
    output: Output,
    labels: Arc<[String]>,
}

/// Loads `config.json`, `preprocess.json` and `model.safetensors` out of `dir`.
///
/// # Errors
///
/// With the file, the tensor, and what was expected and found.
pub fn load(dir: &Path) -> Result<Tabular, Error> {
    let config: Config = super::artifact::json(dir, "config.json")?;
    let preprocess: Preprocess = super::artifact::json(dir, "preprocess.json")?;
    let weights = Weights::open(dir)?;
    let features: usize = preprocess.columns.iter().map(Column::width).sum();
    if !(1..=MOST_FEATURES).contains(&features) {
        let message = format!("its columns make {features} features, not 1 to {MOST_FEATURES}");
        return Err(Error::config("preprocess.json", message));
    }
    let (mut width, mut layers) = (features, Vec::new());
    loop {
        let name = format!("layers.{}", layers.len());
        let Some(shape) = weights.shape(&format!("{name}.weight")) else { break };
        let outputs = shape.first().copied().unwrap_or(0);
        layers.push(weights.linear(&[&name], (width, outputs), Precision::F32)?);
        width = outputs;
    }
    check(&config, &preprocess, layers.len(), width)?;
    weights.finish()?;
    let about = About {
        task: config.task,
        architecture: config.architecture,
        precision: "f32",
        device: "cpu".to_owned(),
        fields: preprocess.columns.iter().map(|column| column.name().to_owned()).collect(),
        labels: config.labels.clone(),
        width: config.labels.len().max(1),
        bytes: u64::try_from(layers.iter().map(Linear::bytes).sum::<usize>()).unwrap_or(u64::MAX),
        chunk_tokens: SUB_BATCH_TOKENS,
        padded: false,
        notes: Vec::new(),
    };
    let (activation, output) = (config.activation, config.output);
    let (columns, labels) = (preprocess.columns, config.labels.into());
    Ok(Tabular { about, columns, width: features, layers, activation, output, labels })
}

/// What the files must agree on.
fn check(
    config: &Config,
    preprocess: &Preprocess,
    layers: usize,
    units: usize,
) -> Result<(), Error> {
    let fail = |message: String| Err(Error::Config { file: "config.json".to_owned(), message });
    let one_layer = ["linear", "logistic"].contains(&config.architecture.as_str());
    match config.architecture.as_str() {
        "linear" | "logistic" | "mlp" => (),
        other => return fail(format!("architecture {other:?} is none of linear, logistic, mlp")),
    }
    if layers == 0 {
        return Err(Error::tensor("layers.0.weight", "is missing"));
    }
    if one_layer && layers != 1 {
        return fail(format!("architecture {} with {layers} layers", config.architecture));
    }
    let wanted = match config.output {
        Output::Sigmoid | Output::Identity => 1,
        Output::Softmax => config.labels.len(),
    };
    if units != wanted {
        return fail(format!(
            "output {:?} wants {wanted} units, the last layer has {units}",
            config.output
        ));
    }
    let labels = match (config.task, config.output) {
        (Task::TabularRegression, Output::Identity) => 0,
        (Task::TabularClassification, Output::Sigmoid) => 2,
        (Task::TabularClassification, Output::Softmax) => config.labels.len().max(2),
        (task, output) => return fail(format!("task {task:?} with output {output:?}")),
    };
    if labels != 0 && config.labels.len() != labels {
        return fail(format!("{labels} labels wanted, {} given", config.labels.len()));
    }
    let mut seen = BTreeSet::new();
    if let Some(label) = config.labels.iter().find(|label| !seen.insert(*label)) {
        return fail(format!("label {label:?} stands twice: give each class a name of its own"));
    }
    let mut names = BTreeSet::new();
    for column in &preprocess.columns {
        if !names.insert(column.name()) {
            let message = format!("column {:?} stands twice", column.name());
            return Err(Error::Config { file: "preprocess.json".to_owned(), message });
        }
        if let Column::Numeric { name, scale, mean, .. } = column
            && !(scale.is_normal() && mean.is_finite())
        {
            let message = format!("column {name:?} has scale {scale} and mean {mean}");
            return Err(Error::Config { file: "preprocess.json".to_owned(), message });
        }
    }
    Ok(())
}

impl Tabular {
    fn activate(&self, values: &mut [f32]) {
        match self.activation {
            Activation::Relu => values.iter_mut().for_each(|value| *value = value.max(0.0)),
            Activation::Tanh => values.iter_mut().for_each(|value| *value = value.tanh()),
            Activation::Logistic => values.iter_mut().for_each(|value| *value = sigmoid(*value)),
            Activation::Identity => (),
        }
    }

    fn answer(&self, units: &[f32]) -> Prediction {
        let scores = match self.output {
            Output::Identity => return Prediction::Value(units[0]),
            Output::Sigmoid => {
                let p = sigmoid(units[0]);
                vec![1.0 - p, p]
            }
            Output::Softmax => softmax(units),
        };
        let best = best(&scores);
        Prediction::Label { best, scores, labels: Arc::clone(&self.labels) }
    }
}

impl Model for Tabular {
    fn about(&self) -> &About {
        &self.about
    }

    fn prepare(&self, fields: &Fields) -> Result<Input, Fault> {
        let mut row = Vec::with_capacity(self.width);
        for column in &self.columns {
            column.encode(fields, &mut row)?;
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
        let units = self.layers.last().map_or(1, Linear::outputs);
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

/// `1 / (1 + e^-x)`, without overflow for any finite x.
pub fn sigmoid(x: f32) -> f32 {
    if x < 0.0 {
        let e = x.exp();
        e / (1.0 + e)
    } else {
        1.0 / (1.0 + (-x).exp())
    }
}

/// `e^x / Σ e^x`, shifted by the largest so that nothing overflows.
pub fn softmax(units: &[f32]) -> Vec<f32> {
    let largest = units.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut scores: Vec<f32> = units.iter().map(|unit| (unit - largest).exp()).collect();
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
    scores
}

/// The index of the largest score; the first of equals.
pub fn best(scores: &[f32]) -> usize {
    let mut best = 0;
    for (index, score) in scores.iter().enumerate() {
        if scores[best] < *score {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(json: &str) -> Column {
        serde_json::from_str(json).unwrap()
    }

    #[track_caller]
    fn encodes(json: &str, fields: &str, expect: Result<&[f32], (FaultClass, &str)>) {
        let fields: Fields = serde_json::from_str(fields).unwrap();
        let mut out = Vec::new();
        let result = column(json).encode(&fields, &mut out);
        match (result, expect) {
            (Ok(()), Ok(expect)) => assert_eq!(out, expect),
            (Err(fault), Err((class, part))) => {
                assert_eq!(fault.class, class);
                assert!(fault.message.contains(part), "{}", fault.message);
            }
            (got, expect) => panic!("{got:?} {out:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn columns_are_imputed_scaled_and_encoded() {
        use FaultClass::{Invalid, Missing};
        let number = r#"{"kind":"numeric","name":"a","impute":3,"mean":1,"scale":2,"min":-9}"#;
        encodes(number, r#"{"a":5}"#, Ok(&[2.0]));
        encodes(number, "{}", Ok(&[1.0]));
        encodes(number, r#"{"a":null}"#, Ok(&[1.0]));
        encodes(number, r#"{"a":"5"}"#, Err((Invalid, "field \"a\" is a string, not a number")));
        encodes(number, r#"{"a":true}"#, Err((Invalid, "boolean")));
        encodes(number, r#"{"a":-10}"#, Err((Invalid, "outside the range")));
        encodes(number, r#"{"a":1e300}"#, Err((Invalid, "too large")));
        let bare = r#"{"kind":"numeric","name":"a"}"#;
        encodes(bare, "{}", Err((Missing, "field \"a\" is missing")));
        let color =
            r#"{"kind":"categorical","name":"c","impute":"red","categories":["red","blue"]}"#;
        encodes(color, r#"{"c":"blue"}"#, Ok(&[0.0, 1.0]));
        encodes(color, "{}", Ok(&[1.0, 0.0]));
        encodes(color, r#"{"c":"green"}"#, Ok(&[0.0, 0.0]));
        encodes(color, r#"{"c":7}"#, Err((Invalid, "number, not a string")));
        let strict = color.replace('}', r#","unknown":"error"}"#);
        encodes(&strict, r#"{"c":"green"}"#, Err((Invalid, "none of the categories")));
    }

    #[test]
    fn scores_never_overflow() {
        for x in [-1e30, -200.0, -1.0, 0.0, 1.0, 200.0, 1e30] {
            assert!((0.0..=1.0).contains(&sigmoid(x)), "{x}");
            let scores = softmax(&[x, 0.0, -x]);
            assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{x}: {scores:?}");
        }
        assert_eq!(best(&[0.2, 0.5, 0.5]), 1);
    }
}

//! A classifier's outputs become its answer.

use std::sync::Arc;

use crate::answer::Prediction;
use crate::model::scores::{sigmoid, softmax};

/// What becomes of a classifier's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scores {
    /// One label is right.
    Softmax,
    /// Each label is right or not.
    Sigmoid,
    /// Values, as they are.
    Regression,
    /// Of a cross-encoder, whose answer has labels in any case: outputs as they are.
    Identity,
    /// … between -1 and 1.
    Tanh,
    /// … from 0 on.
    Relu,
}

impl Scores {
    /// A classifier's outputs, `[labels]`, as its answer.
    pub(super) fn label(self, values: &[f32], labels: &Arc<[String]>) -> Prediction {
        let scores = match (self, values) {
            (Self::Regression, [value]) => return Prediction::Value((*value).into()),
            (Self::Regression | Self::Identity, values) => values.to_vec(),
            (Self::Tanh, values) => values.iter().map(|value| value.tanh()).collect(),
            (Self::Relu, values) => values.iter().map(|value| value.max(0.0)).collect(),
            (Self::Softmax, values) => softmax(values),
            (Self::Sigmoid, values) => values.iter().map(|value| sigmoid(*value)).collect(),
        };
        Prediction::label(&scores, labels)
    }
}

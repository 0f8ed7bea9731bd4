//! A model is asked through here: its panics and wrong counts become refusals.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Input, Model};
use crate::answer::{Prediction, Refused};

/// `Model::predict`, with a panic turned into a refusal, so that halving finds the record that causes it.
///
/// # Errors
///
/// What the model says; and `Refused::Batch` when it panics or gives another number of answers.
pub fn predict(model: &dyn Model, inputs: &[&Input]) -> Result<Vec<Prediction>, Refused> {
    let predictions = catch_unwind(AssertUnwindSafe(|| model.predict(inputs)))
        .unwrap_or_else(|_panic| Err(Refused::Batch("the model panicked".to_owned())))?;
    if predictions.len() == inputs.len() {
        return Ok(predictions);
    }
    let (got, asked) = (predictions.len(), inputs.len());
    Err(Refused::Batch(format!("{asked} inputs, {got} predictions")))
}

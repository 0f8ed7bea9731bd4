//! A model is asked through here: its panics and wrong counts become refusals.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Input, Model};
use crate::answer::{Prediction, Refused};

/// `Model::predict`, with a panic turned into a refusal, so that halving finds the record that causes it.
///
/// # Errors
///
/// What the model says; and `Refused::Batch` when it panics or gives another number of answers.
///
/// # Examples
///
/// ```
/// use std::path::Path;
///
/// use serde_json::json;
/// use tidemill::answer::Prediction;
/// use tidemill::model::options::LoadOptions;
/// use tidemill::model::{gate, guard};
///
/// let dir = Path::new("tests/it/data/linear");
/// let model = gate::build(dir, &LoadOptions::default())?;
/// let record = json!({"a": 3.5, "b": -85.0, "color": "blue"});
/// let input = model.prepare_object(record.as_object().expect("an object"))?;
/// let predictions = guard::predict(model.as_ref(), &[&input, &input])?;
/// assert!(matches!(predictions[..], [Prediction::Value(_), Prediction::Value(_)]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn predict(model: &dyn Model, inputs: &[&Input]) -> Result<Vec<Prediction>, Refused> {
    let predictions = catch_unwind(AssertUnwindSafe(|| model.predict(inputs)))
        .unwrap_or_else(|_panic| Err(Refused::Batch("the model panicked".to_owned())))?;
    if predictions.len() == inputs.len() {
        return Ok(predictions);
    }
    let (got, asked) = (predictions.len(), inputs.len());
    Err(Refused::Batch(format!("{asked} inputs, {got} predictions")))
}

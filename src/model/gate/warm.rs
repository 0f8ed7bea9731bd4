//! Warm-up: what a first batch would meet for the first time is met before it.
//!
//! On the CPU that is little: buffers. On a GPU it is every kernel's code, the libraries' workspaces and the memory of
//! the largest batch, so there texts of every length, in steps of two, run alone and as many as one call is best given.

use serde_json::Value;

use crate::answer::{Refused, Task};
use crate::model::files::Error;
use crate::model::{Input, Model, guard, image};
use crate::record::FaultClass;

/// A record's fields.
type Fields = serde_json::Map<String, Value>;

/// No model takes texts of more words.
const MOST_WORDS: usize = 1 << 20;

/// Runs a model that nobody waits for yet; on how many inputs of different sizes.
///
/// # Errors
///
/// What it refuses. A device that has no memory for a full call is asked for half of it, and so on: batches are halved
/// in the same way.
pub(super) fn warm(model: &dyn Model) -> Result<usize, Error> {
    let gate = |refused: &Refused| Error::Gate(format!("warm up: {refused}"));
    let about = model.about();
    let inputs = inputs(model)?;
    for input in &inputs {
        let full =
            if about.device == "cpu" { 2 } else { about.chunk_tokens / input.tokens().max(1) };
        guard::predict(model, &[input]).map_err(|refused| gate(&refused))?;
        let mut rows = full;
        while 1 < rows {
            match guard::predict(model, &vec![input; rows]) {
                Ok(_) => break,
                Err(Refused::OutOfMemory(_)) => rows /= 2,
                Err(refused) => return Err(gate(&refused)),
            }
        }
    }
    Ok(inputs.len())
}

/// One input of each size that matters.
fn inputs(model: &dyn Model) -> Result<Vec<Input>, Error> {
    let about = model.about();
    let longest = if about.device == "cpu" { 8 } else { MOST_WORDS };
    let values: Box<dyn Iterator<Item = String>> = match about.task {
        Task::TextEmbedding
        | Task::TextClassification
        | Task::TextRanking
        | Task::TokenClassification => {
            let doubled = std::iter::successors(Some(1), |words| Some(words * 2));
            Box::new(doubled.take_while(move |words| *words <= longest).map(|n| "warm ".repeat(n)))
        }
        Task::ImageClassification => Box::new(std::iter::once(image::GREY.to_owned())),
        // Tabular rows allocate nothing that a first one would have to.
        Task::TabularClassification | Task::TabularRegression => Box::new(std::iter::empty()),
    };
    let mut inputs: Vec<Input> = Vec::new();
    for value in values {
        let named = |field: &String| (field.clone(), Value::from(value.as_str()));
        let fields: Fields = about.fields.iter().map(named).collect();
        match model.prepare_object(&fields) {
            // Longer texts are cut to this length too.
            Ok(input) if inputs.last().is_some_and(|last| input.tokens() <= last.tokens()) => break,
            Ok(input) => inputs.push(input),
            Err(fault) if fault.class == FaultClass::TooLong => break,
            // A model that resizes nothing takes no single pixel.
            Err(fault) if about.task == Task::ImageClassification => {
                tracing::debug!(%fault, "no warm-up");
                break;
            }
            Err(fault) => return Err(Error::Gate(format!("prepare a warm-up record: {fault}"))),
        }
    }
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;
    use crate::answer::Prediction;
    use crate::field::{self, Values};
    use crate::model::About;
    use crate::record::Fault;

    /// A token a word, at most `longest`; memory for `memory` tokens.
    struct Fake {
        about: About,
        longest: usize,
        reject: bool,
        memory: usize,
        /// Rows and length of each call.
        calls: Mutex<Vec<(usize, usize)>>,
    }

    impl Model for Fake {
        fn about(&self) -> &About {
            &self.about
        }

        fn prepare(&self, values: &Values<'_>) -> Result<Input, Fault> {
            let text = field::text(values[0].as_ref(), "text", "a string")?;
            let words = text.split_whitespace().count();
            if self.reject && self.longest < words {
                return Err(Fault::new(FaultClass::TooLong, "too long".to_owned()));
            }
            Ok(Input::Tokens(vec![1; words.min(self.longest)].into()))
        }

        fn predict(&self, inputs: &[&Input]) -> Result<Vec<Prediction>, Refused> {
            let area = inputs.len() * inputs[0].tokens();
            let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            calls.push((inputs.len(), inputs[0].tokens()));
            if self.memory < area {
                return Err(Refused::OutOfMemory(format!("{area} tokens")));
            }
            Ok(vec![Prediction::Value(0.0_f32.into()); inputs.len()])
        }
    }

    fn fake(device: &str) -> Fake {
        let about = About {
            device: device.to_owned(),
            fields: vec!["text".to_owned()],
            chunk_tokens: 24,
            padded: true,
            ..About::of_tests()
        };
        Fake { about, longest: 6, reject: false, memory: 1_000, calls: Mutex::default() }
    }

    fn calls(fake: &Fake) -> Vec<(usize, usize)> {
        warm(fake).unwrap();
        std::mem::take(&mut *fake.calls.lock().unwrap())
    }

    #[test]
    fn a_device_meets_every_length_alone_and_in_full_calls() {
        let all = [(1, 1), (24, 1), (1, 2), (12, 2), (1, 4), (6, 4), (1, 6), (4, 6)];
        assert_eq!(calls(&fake("cuda:0")), all);
        let rejecting = Fake { reject: true, ..fake("cuda:0") };
        assert_eq!(
            calls(&rejecting),
            all[..6],
            "a text that is too long for it is none of its inputs"
        );
    }

    #[test]
    fn the_cpu_meets_a_few() {
        let long = Fake { longest: 1_000, ..fake("cpu") };
        assert_eq!(calls(&long).last(), Some(&(2, 8)));
    }

    #[test]
    fn a_full_call_without_memory_is_halved_and_one_row_must_fit() {
        let small = Fake { memory: 11, ..fake("cuda:0") };
        let expect = [(1, 1), (24, 1), (12, 1), (6, 1), (1, 2), (12, 2), (6, 2), (3, 2)];
        assert_eq!(calls(&small)[..8], expect);
        let tiny = Fake { memory: 3, ..fake("cuda:0") };
        assert!(matches!(warm(&tiny), Err(Error::Gate(why)) if why.contains("4 tokens")));
    }
}

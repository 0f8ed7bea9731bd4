//! Answers that are given again: a record whose input was answered before is not computed.
//!
//! A cache belongs to one loaded version, so a swap begins with an empty one. An answer is found by the SHA-256 of its
//! input, and is what the model gave: where answers do not depend on the batch (always on the CPU), nobody can tell a
//! cached one from a computed one but by its time. Equal inputs of one call are computed once.
//!
//! Rows of tables are not kept: a model answers them faster than they are found.

use std::collections::HashMap;

use quick_cache::Weighter;
use quick_cache::sync;
use sha2::{Digest as _, Sha256};

use super::{Input, Model, Window, guard};
use crate::answer::{Prediction, Refused};

/// An input's SHA-256.
type Key = [u8; 32];

/// Answers by input, bounded in bytes. Shared by threads.
pub struct Cache(sync::Cache<Key, Prediction, Bytes>);

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("bytes", &self.0.weight()).finish_non_exhaustive()
    }
}

/// What an entry takes.
#[derive(Clone)]
struct Bytes;

/// The key, the table's part, the prediction's frame.
const FRAME: usize = 128;

impl Weighter<Key, Prediction> for Bytes {
    fn weight(&self, _key: &Key, prediction: &Prediction) -> u64 {
        let bytes = match prediction {
            Prediction::Embedding(values) => size_of_val(&values[..]),
            Prediction::Label { scores, .. } => size_of_val(&scores[..]),
            Prediction::Value(_) => 0,
            Prediction::Spans(spans) => spans
                .iter()
                .map(|span| size_of_val(span) + span.label.len() + span.word.len())
                .sum(),
            Prediction::Chunks(chunks) => chunks
                .iter()
                .map(|chunk| size_of_val(chunk) + size_of_val(&chunk.embedding[..]))
                .sum(),
            Prediction::Mean { embedding, .. } => size_of_val(&embedding[..]),
        };
        u64::try_from(FRAME + bytes).unwrap_or(u64::MAX)
    }
}

impl Cache {
    /// One that holds at most so many bytes; `None` of 0.
    pub fn new(bytes: u64) -> Option<Self> {
        // A guess at how many entries that is; the table grows and shrinks with them.
        let entries = usize::try_from(bytes / 1_024).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        (bytes != 0).then(|| Self(sync::Cache::with_weighter(entries, bytes, Bytes)))
    }

    /// As [`guard::predict`], and how many of the predictions were not computed.
    ///
    /// # Errors
    ///
    /// What the model refuses, by the first of equal inputs.
    pub fn predict(
        &self,
        model: &dyn Model,
        inputs: &[&Input],
    ) -> Result<(Vec<Prediction>, usize), Refused> {
        let mut computed: Vec<(usize, Option<Key>)> = Vec::new();
        let mut places: HashMap<Key, usize> = HashMap::new();
        let mut answers: Vec<Result<Prediction, usize>> = Vec::with_capacity(inputs.len());
        for (row, input) in inputs.iter().enumerate() {
            let key = key(input);
            let known = key.and_then(|key| self.0.get(&key));
            let place = key.and_then(|key| places.get(&key).copied());
            answers.push(match (known, place) {
                (Some(prediction), _) => Ok(prediction),
                (None, Some(place)) => Err(place),
                (None, None) => {
                    places.extend(key.map(|key| (key, computed.len())));
                    computed.push((row, key));
                    Err(computed.len() - 1)
                }
            });
        }
        if computed.is_empty() {
            return Ok((answers.into_iter().flatten().collect(), inputs.len()));
        }
        let missing: Vec<&Input> = computed.iter().map(|(row, _)| inputs[*row]).collect();
        let fresh = guard::predict(model, &missing)
            .map_err(|refused| refused.of_part(|row| Some(computed.get(row)?.0)))?;
        for ((_, key), prediction) in computed.iter().zip(&fresh) {
            if let Some(key) = key {
                self.0.insert(*key, prediction.clone());
            }
        }
        let hits = inputs.len() - fresh.len();
        let answers = answers.into_iter().map(|answer| match answer {
            Ok(prediction) => prediction,
            Err(place) => fresh[place].clone(),
        });
        Ok((answers.collect(), hits))
    }
}

/// What an input is found by; `None` where it is not worth it.
fn key(input: &Input) -> Option<Key> {
    let mut hash = Sha256::new();
    match input {
        Input::Tokens(tokens) => tokens.ids.iter().for_each(|id| hash.update(id.to_le_bytes())),
        Input::Marked(marked) => {
            // The places of the tokens follow from these two.
            marked.ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
            hash.update(u32::MAX.to_le_bytes());
            hash.update(marked.text.as_bytes());
        }
        Input::Windows(windows) => {
            for Window { ids, start, end } in windows {
                ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
                hash.update(u32::MAX.to_le_bytes());
                hash.update(start.to_le_bytes());
                hash.update(end.to_le_bytes());
            }
        }
        Input::Pixels { pixels, .. } => hash.update(pixels),
        Input::Row(_) => return None,
    }
    Some(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;
    use crate::field::Values;
    use crate::model::{About, Tokens};
    use crate::record::Fault;

    /// Answers a sequence by its sum, and refuses those with a 9.
    struct Sums {
        about: About,
        /// Rows of each call.
        calls: Mutex<Vec<usize>>,
    }

    impl Model for Sums {
        fn about(&self) -> &About {
            &self.about
        }

        fn prepare(&self, _values: &Values<'_>) -> Result<Input, Fault> {
            Ok(Input::Tokens(Tokens::default()))
        }

        fn predict(&self, inputs: &[&Input]) -> Result<Vec<Prediction>, Refused> {
            self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(inputs.len());
            let answer = |(row, input): (usize, &&Input)| match input {
                Input::Tokens(Tokens { ids, .. }) if !ids.contains(&9) => {
                    Ok(Prediction::Embedding(vec![f32::from(
                        u8::try_from(ids.iter().sum::<u32>()).unwrap_or(0),
                    )]))
                }
                Input::Row(values) => Ok(Prediction::Value(values[0].into())),
                Input::Tokens(_) | Input::Marked(_) | Input::Windows(_) | Input::Pixels { .. } => {
                    Err(Refused::Row { row, message: "a 9".to_owned() })
                }
            };
            inputs.iter().enumerate().map(answer).collect()
        }
    }

    fn sums() -> Sums {
        let about = About::of_tests();
        Sums { about, calls: Mutex::default() }
    }

    fn tokens(ids: &[u32]) -> Input {
        Input::Tokens(ids.into())
    }

    /// Asks for these, and checks answers, hits, and how many rows the model saw.
    #[track_caller]
    fn check(cache: &Cache, model: &Sums, inputs: &[Input], hits: usize, seen: &[usize]) {
        let refs: Vec<&Input> = inputs.iter().collect();
        let (got, found) = cache.predict(model, &refs).unwrap();
        let calls = std::mem::take(&mut *model.calls.lock().unwrap());
        assert_eq!(got, model.predict(&refs).unwrap(), "as the model alone");
        model.calls.lock().unwrap().clear();
        assert_eq!((found, &calls[..]), (hits, seen));
    }

    #[test]
    fn equal_inputs_are_computed_once() {
        let (cache, model) = (Cache::new(1 << 20).unwrap(), sums());
        check(&cache, &model, &[], 0, &[]);
        check(&cache, &model, &[tokens(&[1, 2]), tokens(&[3]), tokens(&[1, 2])], 1, &[2]);
        check(&cache, &model, &[tokens(&[3]), tokens(&[2, 1]), tokens(&[1, 2])], 2, &[1]);
        check(&cache, &model, &[tokens(&[3]), tokens(&[2, 1])], 2, &[]);
        let rows = [Input::Row([1.0].into()), Input::Row([1.0].into())];
        check(&cache, &model, &rows, 0, &[2]);
        check(&cache, &model, &rows, 0, &[2]);
    }

    #[test]
    fn a_refusal_names_the_row_and_nothing_of_its_call_is_kept() {
        let (cache, model) = (Cache::new(1 << 20).unwrap(), sums());
        check(&cache, &model, &[tokens(&[1])], 0, &[1]);
        let call = [tokens(&[1]), tokens(&[2]), tokens(&[2]), tokens(&[9]), tokens(&[9])];
        let refused = cache.predict(&model, &call.iter().collect::<Vec<_>>()).unwrap_err();
        assert_eq!(refused, Refused::Row { row: 3, message: "a 9".to_owned() });
        model.calls.lock().unwrap().clear();
        check(&cache, &model, &[tokens(&[2])], 0, &[1]);
    }

    #[test]
    fn it_holds_no_more_than_its_bytes() {
        assert!(Cache::new(0).is_none());
        let (cache, model) = (Cache::new(20_000).unwrap(), sums());
        for id in 10..3_000 {
            let input = tokens(&[id]);
            cache.predict(&model, &[&input]).unwrap();
            assert!(cache.0.weight() <= 20_000);
        }
        assert!(10_000 < cache.0.weight(), "and uses them: {}", cache.0.weight());
    }
}

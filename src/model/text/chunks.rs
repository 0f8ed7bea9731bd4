//! Windows of texts in the model: rows like others, and their embeddings become one answer a text.

use crate::answer::{Chunk, Prediction};
use crate::model::{Input, Window};

use super::stages::normalise;

/// How many of a text's windows go through the model at once, where `most` tokens do.
pub(super) fn rows_a_run(sequences: &[&[u32]], most: usize) -> usize {
    let longest = sequences.iter().map(|ids| ids.len()).max().unwrap_or(0);
    (most / longest.max(1)).max(1)
}

/// The answer to an input, which takes the embeddings of its own rows from `embeddings`. `mean` is whether the windows'
/// mean is wanted, `unit` whether embeddings are of unit length.
pub(super) fn answer(
    input: &Input,
    embeddings: &mut impl Iterator<Item = Vec<f32>>,
    (mean, unit): (bool, bool),
) -> Prediction {
    let Input::Windows(windows) = input else {
        return Prediction::Embedding(embeddings.next().unwrap_or_default());
    };
    if mean {
        let embedding = mean_of(windows, embeddings, unit);
        return Prediction::Mean { embedding, of: windows.len() };
    }
    let chunk = |(window, embedding): (&Window, _)| {
        let Window { start, end, .. } = *window;
        Chunk { start, end, embedding }
    };
    Prediction::Chunks(windows.iter().zip(embeddings).map(chunk).collect())
}

/// The mean of windows' embeddings by how many tokens each has; of a single window its own, untouched.
fn mean_of(
    windows: &[Window],
    embeddings: &mut impl Iterator<Item = Vec<f32>>,
    unit: bool,
) -> Vec<f32> {
    let mut sum = embeddings.next().unwrap_or_default();
    let [first, others @ ..] = windows else { return sum };
    if others.is_empty() {
        return sum;
    }
    let weight = |window: &Window| f32::from(u16::try_from(window.ids.len()).unwrap_or(u16::MAX));
    let mut all = weight(first);
    sum.iter_mut().for_each(|value| *value *= all);
    for (window, embedding) in others.iter().zip(embeddings) {
        let weight = weight(window);
        sum.iter_mut().zip(embedding).for_each(|(sum, value)| *sum += value * weight);
        all += weight;
    }
    sum.iter_mut().for_each(|value| *value /= all);
    if unit {
        normalise(&mut sum);
    }
    sum
}

//! Softmax attention within each sequence of a batch, head by head, in panels that the products take.

use super::buffer::room;
use super::level::{Level, level};
use super::loops::{add_distances_at, load_head_at, softmax_at};
use super::operands::{Head, Rotation, Scratch};
use super::product::{Line, Panels, multiply};

/// Attention of packed sequences.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// `[heads × head_dim × 3]`: the biases of queries, keys and values, not yet added to the product.
    pub bias: &'a [f32],
    /// Where each sequence begins, and the end of the last: `[sequences + 1]`.
    pub offsets: &'a [usize],
    /// Attention heads.
    pub heads: usize,
    /// How far a token sees to either side; `None`: the whole sequence.
    pub window: Option<usize>,
    /// By which position; `None`: not at all.
    pub rotation: Option<Rotation<'a>>,
    /// How many of each sequence's first tokens attend; the other rows of `out` are left as they were.
    pub queries: usize,
    /// What a score gains by how far its key stands from its query: `[heads, 2 × reach + 1]` f32, from −reach, the key
    /// before the query, to +reach; a key farther away counts as `reach`. `None`: nothing.
    pub distances: Option<&'a [f32]>,
}

/// Queries whose scores are held at once: those of 512 keys stay in the first cache's neighbourhood.
const QUERIES: usize = 48;

/// Softmax attention within each sequence. `qkv` is `[tokens, 3 × hidden]` without its bias, `out` is
/// `[tokens, hidden]`, f32. No mask and no padding.
pub fn attention(qkv: &[f32], out: &mut [f32], attention: Attention<'_>, scratch: &mut Scratch) {
    attention_at(level(), qkv, out, attention, scratch);
}

fn attention_at(
    level: Level,
    qkv: &[f32],
    out: &mut [f32],
    attention: Attention<'_>,
    scratch: &mut Scratch,
) {
    let Attention { bias, offsets, heads, window, rotation, queries, distances } = attention;
    let hidden = bias.len() / 3;
    let dim = hidden / heads;
    for pair in offsets.windows(2) {
        let length = pair[1] - pair[0];
        let tokens = &qkv[pair[0] * 3 * hidden..pair[1] * 3 * hidden];
        let out = &mut out[pair[0] * hidden..pair[1] * hidden];
        room(&mut scratch.queries, length * dim, 0.0);
        room(&mut scratch.key, dim, 0.0);
        // What an earlier sequence has left behind the last key and dimension meets no output.
        let zero = Line([0.0; 16]);
        room(&mut scratch.keys, length.div_ceil(32) * dim * 2, zero);
        room(&mut scratch.values, dim.div_ceil(32) * length * 2, zero);
        for head in 0..heads {
            let column = head * dim;
            load_head_at(level, Head { tokens, bias, hidden, dim, column, rotation }, scratch);
            let distances =
                distances.map(|table| &table[table.len() / heads * head..][..table.len() / heads]);
            let shape = Shape { asked: queries.min(length), length, dim, window };
            weigh(level, shape, distances, (&mut out[column..], hidden), scratch);
        }
    }
}

/// What [`weigh`] computes.
#[derive(Clone, Copy)]
struct Shape {
    /// The first so many queries.
    asked: usize,
    length: usize,
    dim: usize,
    window: Option<usize>,
}

/// `out = softmax(queries · keys) · values` of the head in the scratch.
fn weigh(
    level: Level,
    Shape { asked, length, dim, window }: Shape,
    distances: Option<&[f32]>,
    (out, hidden): (&mut [f32], usize),
    scratch: &mut Scratch,
) {
    let Scratch { queries, keys, values, scores, .. } = scratch;
    for first in (0..asked).step_by(QUERIES) {
        let rows = QUERIES.min(asked - first);
        // The keys that these queries see, from a panel's first on.
        let (begin, end) = match window {
            Some(window) => {
                (first.saturating_sub(window) / 32 * 32, length.min(first + rows + window))
            }
            None => (0, length),
        };
        let (seen, first_seen) = (end - begin, first - begin);
        let padded = seen.next_multiple_of(16);
        let scores = room(scores, rows * padded, 0.0);
        let keys = Panels { lines: &keys[begin * dim / 16..], inputs: dim, outputs: seen };
        multiply(level, rows, (&queries[first * dim..], dim), keys, (scores, padded));
        if let Some(distances) = distances {
            add_distances_at(level, scores, seen, first_seen, distances);
        }
        if let Some(window) = window {
            for (query, row) in (first_seen..).zip(scores.chunks_exact_mut(padded)) {
                row[..query.saturating_sub(window)].fill(f32::MIN);
                row[seen.min(query + window + 1)..seen].fill(f32::MIN);
            }
        }
        let mut inverse = [0.0_f32; QUERIES];
        softmax_at(level, scores, seen, &mut inverse[..rows]);
        let out = &mut out[first * hidden..];
        for (panel, column) in (0..dim).step_by(32).enumerate() {
            let lines = &values[(panel * length + begin) * 2..];
            let values = Panels { lines, inputs: seen, outputs: 32.min(dim - column) };
            multiply(level, rows, (scores, padded), values, (&mut out[column..], hidden));
        }
        for (row, inverse) in inverse[..rows].iter().enumerate() {
            out[row * hidden..][..dim].iter_mut().for_each(|value| *value *= inverse);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::kernels::loops::tests::{LEVELS, close, values};

    /// Attention as it is defined, in f64.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "a reference in f64"
    )]
    fn reference(
        qkv: &[f32],
        bias: &[f32],
        offsets: &[usize],
        heads: usize,
        distances: Option<&[f32]>,
        window: Option<usize>,
        rotation: Option<Rotation<'_>>,
    ) -> Vec<f32> {
        let hidden = bias.len() / 3;
        let dim = hidden / heads;
        let plain = |token: usize, part: usize, head: usize, d: usize| {
            let column = part * hidden + head * dim + d;
            f64::from(qkv[token * 3 * hidden + column]) + f64::from(bias[column])
        };
        let at = |token: usize, part: usize, head: usize, d: usize| {
            let Some(rotation) = rotation.filter(|_| part < 2) else {
                return plain(token, part, head, d);
            };
            let position = token - offsets.iter().rfind(|begin| **begin <= token).unwrap();
            let angle = position * (dim / 2) + d % (dim / 2);
            let (cos, sin) = (f64::from(rotation.cos[angle]), f64::from(rotation.sin[angle]));
            let (a, b) = (
                plain(token, part, head, d % (dim / 2)),
                plain(token, part, head, d % (dim / 2) + dim / 2),
            );
            if d < dim / 2 { a * cos - b * sin } else { b * cos + a * sin }
        };
        let distance = |head: usize, query: usize, key: usize| {
            let Some(table) = distances else { return 0.0 };
            let width = table.len() / heads;
            let place = (key + width / 2).saturating_sub(query).min(width - 1);
            f64::from(table[head * width + place])
        };
        let mut out = vec![0.0; qkv.len() / 3];
        for pair in offsets.windows(2) {
            for head in 0..heads {
                for q in pair[0]..pair[1] {
                    let score = |k: usize| -> f64 {
                        if window.is_some_and(|window| window < k.abs_diff(q)) {
                            return 0.0;
                        }
                        let dot: f64 =
                            (0..dim).map(|d| at(q, 0, head, d) * at(k, 1, head, d)).sum();
                        (dot / (dim as f64).sqrt() + distance(head, q, k)).exp()
                    };
                    let scores: Vec<f64> = (pair[0]..pair[1]).map(score).collect();
                    let sum: f64 = scores.iter().sum();
                    for d in 0..dim {
                        let value: f64 = (pair[0]..pair[1])
                            .zip(&scores)
                            .map(|(k, s)| s * at(k, 2, head, d))
                            .sum();
                        out[q * hidden + head * dim + d] = (value / sum) as f32;
                    }
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn attention_is_the_definition(
            lengths in prop::collection::vec(prop_oneof![1..40_usize, 90..130_usize], 1..4),
            (heads, dim) in prop_oneof![Just((2, 32)), Just((3, 8)), Just((1, 64)), Just((2, 20))],
            seed in values(97),
            reach in prop_oneof![Just(None), (0..45_usize).prop_map(Some)],
            asked in 0..60_usize,
            window in prop_oneof![Just(None), (0..70_usize).prop_map(Some)],
            rotated in any::<bool>(),
        ) {
            let hidden = heads * dim;
            let mut offsets = vec![0];
            lengths.iter().for_each(|length| offsets.push(offsets[offsets.len() - 1] + length));
            let tokens = offsets[offsets.len() - 1];
            let qkv: Vec<f32> = (0..tokens * 3 * hidden).map(|i| seed[(i * 7 + i / 97) % 97] / 3.0).collect();
            let bias: Vec<f32> = (0..3 * hidden).map(|i| seed[i % 97] / 9.0).collect();
            let table: Option<Vec<f32>> =
                reach.map(|reach| (0..heads * (2 * reach + 1)).map(|i| seed[i * 5 % 97] / 2.0).collect());
            let angles: Vec<f32> = (0..130 * (dim / 2)).map(|i| seed[i % 97]).collect();
            let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
            let rotation = rotated.then_some(Rotation { cos: &cos, sin: &sin });
            let expect =
                reference(&qkv, &bias, &offsets, heads, table.as_deref(), window, rotation);
            for level in LEVELS {
                let mut got = vec![0.0; tokens * hidden];
                let all = Attention {
                    bias: &bias,
                    offsets: &offsets,
                    heads,
                    window,
                    rotation,
                    queries: usize::MAX,
                    distances: table.as_deref(),
                };
                attention_at(level, &qkv, &mut got, all, &mut Scratch::default());
                close(&got, &expect, 2e-5)?;
                let mut some = vec![f32::NAN; tokens * hidden];
                let first = Attention { queries: asked, ..all };
                attention_at(level, &qkv, &mut some, first, &mut Scratch::default());
                for (row, (some, all)) in some.chunks(hidden).zip(got.chunks(hidden)).enumerate() {
                    let begins = *offsets.iter().rfind(|begins| **begins <= row).unwrap();
                    if row < begins + asked {
                        prop_assert_eq!(some, all, "the same bits, row {}", row);
                    } else {
                        prop_assert!(some.iter().all(|value| value.is_nan()), "left alone, row {}", row);
                    }
                }
            }
        }
    }
}

//! The loops that a batch spends its time in, each written once and compiled three times: for AVX-512, for AVX2
//! with FMA, and for any CPU. Which one runs is chosen by what the CPU has, so one binary serves all.
//!
//! All matrices are row-major and dense; lengths are checked at the entrance, and the functions need no
//! alignment. A row's result never depends on the rows beside it.
//!
//! The only module of `model` with `unsafe`: calls into a compiled variant after the CPU was asked, and the loads
//! and stores of the matrix products.
#![expect(unsafe_code, reason = "compiled variants are called after the CPU was asked what it has")]

use std::sync::OnceLock;

mod math;
mod product;

pub use product::{Bf16, Dense, Int8, Rows};

use product::{Line, Panels, multiply};

/// What the CPU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing is assumed.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
    /// AVX-512 VNNI beside them: int8 products in one instruction.
    Vnni,
    /// `AVX512_BF16` beside that: bf16 products too. AMD Zen 4, Intel Cooper Lake and Sapphire Rapids, and later.
    Bf16,
}

/// The level in use: the CPU's, or a lower one that the environment variable `TIDEMILL_CPU` names (`portable`, `avx2`,
/// `avx512`, `vnni`).
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let most = match std::env::var("TIDEMILL_CPU").as_deref() {
            Ok("portable") => Level::Portable,
            Ok("avx2") => Level::Avx2,
            Ok("avx512") => Level::Avx512,
            Ok("vnni") => Level::Vnni,
            _ => Level::Bf16,
        };
        detected().min(most)
    })
}

#[cfg(target_arch = "x86_64")]
fn detected() -> Level {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let vnni = avx512 && avx2 && is_x86_feature_detected!("avx512vnni");
    if vnni && is_x86_feature_detected!("avx512bf16") {
        Level::Bf16
    } else if vnni {
        Level::Vnni
    } else if avx512 && avx2 {
        Level::Avx512
    } else if avx2 {
        Level::Avx2
    } else {
        Level::Portable
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detected() -> Level {
    Level::Portable
}

/// Makes `name` run `math::name` compiled for the level in use; `name_at` runs it at a given one.
macro_rules! dispatch {
    ($(#[$doc:meta])* $name:ident, $at:ident, $module:ident, ($($arg:ident: $type:ty),* $(,)?)) => {
        $(#[$doc])*
        pub fn $name($($arg: $type),*) {
            $at(level(), $($arg),*);
        }

        #[cfg(target_arch = "x86_64")]
        mod $module {
            #[allow(unused_imports, clippy::allow_attributes, reason = "not every kernel takes them")]
            use super::{Head, Norm, Scratch};

            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            pub(super) fn avx512($($arg: $type),*) {
                super::math::$name::<true>($($arg),*);
            }

            #[target_feature(enable = "avx2,fma")]
            pub(super) fn avx2($($arg: $type),*) {
                super::math::$name::<true>($($arg),*);
            }
        }

        fn $at(level: Level, $($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            match level.min(detected()) {
                // SAFETY: `detected` has asked the CPU for exactly these features.
                Level::Bf16 | Level::Vnni | Level::Avx512 => {
                    return unsafe { $module::avx512($($arg),*) };
                }
                // SAFETY: as above.
                Level::Avx2 => return unsafe { $module::avx2($($arg),*) },
                Level::Portable => (),
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _: Level = level;
            math::$name::<false>($($arg),*);
        }
    };
}

/// The parameters of a layer norm: each `[hidden]` f32.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// Scale.
    pub gamma: &'a [f32],
    /// Shift.
    pub beta: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

/// Attention of packed sequences.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// `[heads × head_dim × 3]`: the biases of queries, keys and values, not yet added to the product.
    pub bias: &'a [f32],
    /// Where each sequence begins, and the end of the last: `[sequences + 1]`.
    pub offsets: &'a [usize],
    /// Attention heads.
    pub heads: usize,
    /// How many of each sequence's first tokens attend; the other rows of `out` are left as they were.
    pub queries: usize,
    /// What a score gains by how far its key stands from its query: `[heads, 2 × reach + 1]` f32, from −reach, the key
    /// before the query, to +reach; a key farther away counts as `reach`. `None`: nothing.
    pub distances: Option<&'a [f32]>,
}

dispatch!(
    /// `x = gelu(x + bias)` by row, exact (by erf, not tanh). `x` is `[tokens, width]`, `bias` is `[width]`, f32.
    bias_gelu, bias_gelu_at, gelu_levels, (x: &mut [f32], bias: &[f32])
);
dispatch!(
    /// `x = norm(x + bias + residual)` by row. `x` and `residual` are `[tokens, hidden]`, `bias` is `[hidden]`, f32.
    add_norm, add_norm_at, norm_levels, (x: &mut [f32], residual: &[f32], bias: &[f32], norm: Norm<'_>)
);
dispatch!(
    /// Softmax of padded rows of scores, not yet divided by the sums, whose inverses it gives.
    softmax, softmax_at, softmax_levels, (rows: &mut [f32], length: usize, inverse: &mut [f32])
);
dispatch!(
    /// Adds a head's `[2 × reach + 1]` by distance to the padded rows of scores of the queries from `first` on.
    add_distances, add_distances_at, distances_levels,
    (rows: &mut [f32], length: usize, first: usize, distances: &[f32])
);
dispatch!(
    /// Queries, keys and values of a head into the scratch.
    load_head, load_head_at, head_levels, (head: Head<'_>, scratch: &mut Scratch)
);

/// One head of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// `[length, 3 × hidden]`.
    tokens: &'a [f32],
    bias: &'a [f32],
    hidden: usize,
    dim: usize,
    /// Where the head's columns begin.
    column: usize,
}

/// Buffers of [`attention`], reused between calls.
#[derive(Debug, Default)]
pub struct Scratch {
    /// `[length, dim]`, scaled.
    queries: Vec<f32>,
    /// Panels `[dim][32 keys]`.
    keys: Vec<Line<f32, 16>>,
    /// Panels `[length][32 dimensions]`.
    values: Vec<Line<f32, 16>>,
    /// `[QUERIES, padded length]`.
    scores: Vec<f32>,
}

/// The beginning of a buffer that only grows, with room for `length`; what lies there is left from other rows.
pub(super) fn room<T: Copy>(buffer: &mut Vec<T>, length: usize, new: T) -> &mut [T] {
    if buffer.len() < length {
        buffer.resize(length, new);
    }
    &mut buffer[..length]
}

/// Queries whose scores are held at once: those of 512 keys stay in the first cache's neighbourhood.
const QUERIES: usize = 48;

/// Softmax attention within each sequence. `qkv` is `[tokens, 3 × hidden]` without its bias, `out` is
/// `[tokens, hidden]`, f32. No mask and no padding: a sequence sees itself whole.
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
    let Attention { bias, offsets, heads, queries, distances } = attention;
    let hidden = bias.len() / 3;
    let dim = hidden / heads;
    for pair in offsets.windows(2) {
        let length = pair[1] - pair[0];
        let tokens = &qkv[pair[0] * 3 * hidden..pair[1] * 3 * hidden];
        let out = &mut out[pair[0] * hidden..pair[1] * hidden];
        room(&mut scratch.queries, length * dim, 0.0);
        // What an earlier sequence has left behind the last key and dimension meets no output.
        let zero = Line([0.0; 16]);
        room(&mut scratch.keys, length.div_ceil(32) * dim * 2, zero);
        room(&mut scratch.values, dim.div_ceil(32) * length * 2, zero);
        for head in 0..heads {
            let column = head * dim;
            load_head_at(level, Head { tokens, bias, hidden, dim, column }, scratch);
            let distances =
                distances.map(|table| &table[table.len() / heads * head..][..table.len() / heads]);
            let shape = (queries.min(length), length, dim);
            weigh(level, shape, distances, (&mut out[column..], hidden), scratch);
        }
    }
}

/// `out = softmax(queries · keys) · values` of the head in the scratch, for the first `asked` queries.
fn weigh(
    level: Level,
    (asked, length, dim): (usize, usize, usize),
    distances: Option<&[f32]>,
    (out, hidden): (&mut [f32], usize),
    scratch: &mut Scratch,
) {
    let Scratch { queries, keys, values, scores } = scratch;
    let padded = length.next_multiple_of(16);
    let keys = Panels { lines: keys, inputs: dim, outputs: length };
    let values = Panels { lines: values, inputs: length, outputs: dim };
    room(scores, QUERIES.min(asked) * padded, 0.0);
    for first in (0..asked).step_by(QUERIES) {
        let rows = QUERIES.min(asked - first);
        let scores = &mut scores[..rows * padded];
        let mut inverse = [0.0_f32; QUERIES];
        multiply(level, rows, (&queries[first * dim..], dim), keys, (scores, padded));
        if let Some(distances) = distances {
            add_distances_at(level, scores, length, first, distances);
        }
        softmax_at(level, scores, length, &mut inverse[..rows]);
        let out = &mut out[first * hidden..];
        multiply(level, rows, (scores, padded), values, (out, hidden));
        for (row, inverse) in inverse[..rows].iter().enumerate() {
            out[row * hidden..][..dim].iter_mut().for_each(|value| *value *= inverse);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(length: usize) -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(-4.0_f32..4.0, length)
    }

    fn close(got: &[f32], expect: &[f32], tolerance: f32) -> Result<(), TestCaseError> {
        for (place, (got, expect)) in got.iter().zip(expect).enumerate() {
            prop_assert!((got - expect).abs() <= tolerance, "{place}: {got} and {expect}");
        }
        Ok(())
    }

    /// erf to 1e-8: its Maclaurin series, and ±1 beyond 4.
    fn erf(x: f64) -> f64 {
        if 4.0 < x.abs() {
            return x.signum();
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            let n = f64::from(n);
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[expect(clippy::cast_possible_truncation, reason = "the expected value as f32")]
    fn gelu(x: f32) -> f32 {
        let x = f64::from(x);
        (0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))) as f32
    }

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
    ) -> Vec<f32> {
        let hidden = bias.len() / 3;
        let dim = hidden / heads;
        let at = |token: usize, part: usize, head: usize, d: usize| {
            let column = part * hidden + head * dim + d;
            f64::from(qkv[token * 3 * hidden + column]) + f64::from(bias[column])
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

    const LEVELS: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];

    #[test]
    fn gelu_is_exact_far_from_zero() {
        for level in LEVELS {
            for x in [-40.0, -7.320_129, -5.5, -0.0, 0.0, 5.5, 7.320_129, 40.0] {
                let mut got = vec![x; 19];
                bias_gelu_at(level, &mut got, &[0.0; 19]);
                let expect = gelu(x);
                let close = got.iter().all(|got| (got - expect).abs() <= 1e-7 * x.abs().max(5.0));
                assert!(close, "{level:?}, {x}: {got:?}, not {expect}");
            }
        }
    }

    proptest! {
        #[test]
        fn gelu_is_exact(x in values(37), bias in values(37)) {
            let expect: Vec<f32> = x.iter().zip(&bias).map(|(x, b)| gelu(x + b)).collect();
            for level in LEVELS {
                let mut got = x.clone();
                bias_gelu_at(level, &mut got, &bias);
                close(&got, &expect, 2e-6)?;
            }
        }

        #[test]
        fn norm_has_mean_0_and_variance_1(
            (x, residual, bias) in (values(3 * 40), values(3 * 40), values(40)),
        ) {
            let (gamma, beta) = (vec![2.0; 40], vec![0.5; 40]);
            for level in LEVELS {
                let mut got = x.clone();
                let norm = Norm { gamma: &gamma, beta: &beta, eps: 1e-12 };
                add_norm_at(level, &mut got, &residual, &bias, norm);
                for row in got.chunks(40) {
                    let mean = row.iter().sum::<f32>() / 40.0;
                    let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / 40.0;
                    prop_assert!((mean - 0.5).abs() < 1e-5 && (variance - 4.0).abs() < 1e-3);
                }
                let first = (x[0] + bias[0] + residual[0], x[1] + bias[1] + residual[1]);
                prop_assert!(first.1 <= first.0 || got[0] <= got[1], "order is kept");
            }
        }

        #[test]
        fn attention_is_the_definition(
            lengths in prop::collection::vec(1..40_usize, 1..4),
            (heads, dim) in prop_oneof![Just((2, 32)), Just((3, 8)), Just((1, 64)), Just((2, 20))],
            seed in values(97),
            reach in prop_oneof![Just(None), (0..45_usize).prop_map(Some)],
            asked in 0..60_usize,
        ) {
            let hidden = heads * dim;
            let mut offsets = vec![0];
            lengths.iter().for_each(|length| offsets.push(offsets[offsets.len() - 1] + length));
            let tokens = offsets[offsets.len() - 1];
            let qkv: Vec<f32> = (0..tokens * 3 * hidden).map(|i| seed[(i * 7 + i / 97) % 97] / 3.0).collect();
            let bias: Vec<f32> = (0..3 * hidden).map(|i| seed[i % 97] / 9.0).collect();
            let table: Option<Vec<f32>> =
                reach.map(|reach| (0..heads * (2 * reach + 1)).map(|i| seed[i * 5 % 97] / 2.0).collect());
            let expect = reference(&qkv, &bias, &offsets, heads, table.as_deref());
            for level in LEVELS {
                let mut got = vec![0.0; tokens * hidden];
                let all = Attention {
                    bias: &bias,
                    offsets: &offsets,
                    heads,
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

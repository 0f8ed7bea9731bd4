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

pub use product::{Bf16, Dense, Double, Int8, Rows};

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

impl Level {
    /// For people: the newest instructions that it uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "no vector instructions assumed",
            Self::Avx2 => "AVX2",
            Self::Avx512 => "AVX-512",
            Self::Vnni => "AVX-512 VNNI",
            Self::Bf16 => "AVX-512 VNNI BF16",
        }
    }
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

/// What a model's matrix products are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// As it was trained.
    F32,
    /// Both factors rounded to bf16, sums in f32; everything between the products stays f32.
    Bf16,
    /// Weights by output, activations by row; everything between the products stays f32.
    Int8,
}

impl Precision {
    /// As `model.precision` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
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

/// Positions as rotations of queries and keys, `[positions, head_dim / 2]` f32 each: pair `i` of a head is its
/// dimensions `i` and `i + head_dim / 2`. Su et al. 2021.
#[derive(Debug, Clone, Copy)]
pub struct Rotation<'a> {
    /// Cosines.
    pub cos: &'a [f32],
    /// Sines.
    pub sin: &'a [f32],
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

dispatch!(
    /// `x = gelu(x + bias)` by row, exact (by erf, not tanh). `x` is `[tokens, width]`, `bias` is `[width]`, f32.
    bias_gelu, bias_gelu_at, gelu_levels, (x: &mut [f32], bias: &[f32])
);
dispatch!(
    /// `x = norm(x + bias + residual)` by row. `x` and `residual` are `[tokens, hidden]`, `bias` is `[hidden]`, f32.
    add_norm, add_norm_at, norm_levels, (x: &mut [f32], residual: &[f32], bias: &[f32], norm: Norm<'_>)
);
dispatch!(
    /// `x = norm(x)` by row. `x` is `[tokens, hidden]`, f32.
    norm, norm_at, plain_norm_levels, (x: &mut [f32], norm: Norm<'_>)
);
dispatch!(
    /// `x += y + bias`, and `out = norm(x)`, by row. `x`, `y` and `out` are `[tokens, hidden]`, `bias` is `[hidden]`, f32.
    add_then_norm, add_then_norm_at, then_norm_levels,
    (x: &mut [f32], y: &[f32], bias: &[f32], norm: Norm<'_>, out: &mut [f32])
);
dispatch!(
    /// `out = gelu(x) × gate` by row, exact: a row of `x` is `[x, gate]`, each as wide as a row of `out`, f32.
    gelu_gate, gelu_gate_at, gate_levels, (x: &[f32], width: usize, out: &mut [f32])
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
    rotation: Option<Rotation<'a>>,
}

/// Buffers of [`attention`], reused between calls.
#[derive(Debug, Default)]
pub struct Scratch {
    /// `[length, dim]`, scaled.
    queries: Vec<f32>,
    /// A key on its way into the panels, `[dim]`.
    key: Vec<f32>,
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
        fn add_then_norm_is_a_sum_and_a_norm(
            (x, y, bias) in (values(3 * 40), values(3 * 40), values(40)),
        ) {
            let (gamma, beta) = (&bias[..], vec![0.5; 40]);
            let norm = Norm { gamma, beta: &beta, eps: 1e-5 };
            for level in LEVELS {
                let mut expect = x.clone();
                add_norm_at(level, &mut expect, &y, &bias, norm);
                let (mut sum, mut got) = (x.clone(), vec![f32::NAN; x.len()]);
                add_then_norm_at(level, &mut sum, &y, &bias, norm, &mut got);
                prop_assert_eq!(&got, &expect, "{:?}: the bits of the fused one", level);
                for (place, sum) in sum.iter().enumerate() {
                    prop_assert!((sum - (x[place] + y[place] + bias[place % 40])).abs() < 1e-5);
                }
            }
        }

        #[test]
        fn a_gate_multiplies(x in values(3 * 2 * 37)) {
            for level in LEVELS {
                let mut got = vec![f32::NAN; 3 * 37];
                gelu_gate_at(level, &x, 37, &mut got);
                for (row, got) in x.chunks(2 * 37).zip(got.chunks(37)) {
                    let (value, gate) = row.split_at(37);
                    let expect: Vec<f32> = value.iter().zip(gate).map(|(v, g)| gelu(*v) * g).collect();
                    close(got, &expect, 1e-5)?;
                }
            }
        }

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

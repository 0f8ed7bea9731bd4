//! The kernels themselves, in plain Rust over fixed-size blocks that compilers turn into vector registers.
//! `FMA` says whether the CPU has a fused multiply-add; without one it would be a slow library call.

#![expect(clippy::inline_always, reason = "must be compiled into the variant of each CPU")]
#![expect(clippy::needless_range_loop, reason = "lanes are indexed in several arrays at once")]
#![expect(clippy::many_single_char_names, reason = "a, b, c of a × b + c")]

use super::{Attention, Norm};

/// f32 in a block: one AVX-512 register, two of AVX2.
const LANES: usize = 16;

/// Query rows that share one pass over the keys.
const ROWS: usize = 4;

/// Buffers of [`attention`], reused between calls.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Keys of one head, transposed: `[dim, padded length]`.
    keys: Vec<f32>,
    /// Values of one head: `[length, padded dim]`.
    values: Vec<f32>,
    /// Scores of `ROWS` queries: `[ROWS, padded length]`.
    scores: Vec<f32>,
}

#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// e^x to about 2 ulp for x in [-87, 88]. Cephes' polynomial; the power of two goes into the exponent's bits.
#[inline(always)]
fn exp<const FMA: bool>(x: f32) -> f32 {
    /// 1.5 · 2^23: adding it leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.0);
    let shifted = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FMA>(n, -0.693_145_75, x);
    let r = fma::<FMA>(n, -1.428_606_8e-6, r);
    let mut p = 1.987_569_2e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = fma::<FMA>(p, r, c);
    }
    let y = fma::<FMA>(p * r, r, r) + 1.0;
    f32::from_bits(y.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// erf to a few ulp: the rational polynomial of Eigen and XLA.
#[inline(always)]
fn erf<const FMA: bool>(x: f32) -> f32 {
    let x = x.clamp(-3.832_507, 3.832_507);
    let z = x * x;
    let mut a = -2.726_142e-10;
    for c in [
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_5e-5,
        -7.349_906e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ] {
        a = fma::<FMA>(a, z, c);
    }
    let mut b = -1.456_607_2e-5;
    for c in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2] {
        b = fma::<FMA>(b, z, c);
    }
    x * a / b
}

#[inline(always)]
pub(super) fn bias_gelu<const FMA: bool>(x: &mut [f32], bias: &[f32]) {
    for row in x.chunks_exact_mut(bias.len()) {
        for (value, bias) in row.iter_mut().zip(bias) {
            let t = *value + *bias;
            let half = 0.5 * t;
            *value = fma::<FMA>(half, erf::<FMA>(t * std::f32::consts::FRAC_1_SQRT_2), half);
        }
    }
}

/// The sum of a row, in `LANES` partial sums so that it is fast and always in the same order.
#[inline(always)]
fn sum(row: &[f32], each: impl Fn(f32, f32) -> f32) -> f32 {
    let mut partial = [0.0_f32; LANES];
    let (blocks, rest) = row.as_chunks::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            partial[lane] = each(partial[lane], block[lane]);
        }
    }
    for (lane, value) in rest.iter().enumerate() {
        partial[lane] = each(partial[lane], *value);
    }
    partial.iter().sum()
}

#[expect(clippy::cast_precision_loss, reason = "a width is far below 2^24")]
#[inline(always)]
pub(super) fn add_norm<const FMA: bool>(
    x: &mut [f32],
    residual: &[f32],
    bias: &[f32],
    norm: Norm<'_>,
) {
    let width = bias.len();
    let Norm { gamma, beta, eps } = norm;
    let (gamma, beta) = (&gamma[..width], &beta[..width]);
    for (row, residual) in x.chunks_exact_mut(width).zip(residual.chunks_exact(width)) {
        for place in 0..width {
            row[place] += bias[place] + residual[place];
        }
        let mean = sum(row, |sum, value| sum + value) / width as f32;
        let square = |sum: f32, value: f32| fma::<FMA>(value - mean, value - mean, sum);
        let scale = 1.0 / (sum(row, square) / width as f32 + eps).sqrt();
        for place in 0..width {
            row[place] = fma::<FMA>((row[place] - mean) * scale, gamma[place], beta[place]);
        }
    }
}

#[inline(always)]
pub(super) fn attention<const FMA: bool>(
    qkv: &[f32],
    out: &mut [f32],
    attention: Attention<'_>,
    scratch: &mut Scratch,
) {
    let Attention { bias, offsets, heads } = attention;
    let hidden = bias.len() / 3;
    let dim = hidden / heads;
    for pair in offsets.windows(2) {
        let tokens = &qkv[pair[0] * 3 * hidden..pair[1] * 3 * hidden];
        let out = &mut out[pair[0] * hidden..pair[1] * hidden];
        for head in 0..heads {
            let head = Head { tokens, bias, hidden, dim, column: head * dim };
            head.load(scratch);
            match dim.div_ceil(LANES) {
                2 => head.run::<FMA, 2>(out, scratch),
                4 => head.run::<FMA, 4>(out, scratch),
                1 => head.run::<FMA, 1>(out, scratch),
                3 => head.run::<FMA, 3>(out, scratch),
                5 | 6 => head.run::<FMA, 6>(out, scratch),
                _ => head.run::<FMA, 8>(out, scratch),
            }
        }
    }
}

/// The widest head that [`attention`] takes.
pub(super) const WIDEST_HEAD: usize = 8 * LANES;

/// One head of one sequence.
struct Head<'a> {
    /// `[length, 3 × hidden]`.
    tokens: &'a [f32],
    bias: &'a [f32],
    hidden: usize,
    dim: usize,
    /// Where the head's columns begin.
    column: usize,
}

impl Head<'_> {
    #[inline(always)]
    fn length(&self) -> usize {
        self.tokens.len() / (3 * self.hidden)
    }

    /// Blocks of `LANES` that a row of values takes.
    #[inline(always)]
    fn blocks(&self) -> usize {
        match self.dim.div_ceil(LANES) {
            small @ 1..=4 => small,
            5 | 6 => 6,
            _ => 8,
        }
    }

    /// Copies keys, transposed, and values, both with their bias, into the scratch.
    #[inline(always)]
    fn load(&self, scratch: &mut Scratch) {
        let Self { tokens, bias, hidden, dim, column } = *self;
        let length = self.length();
        let padded = length.next_multiple_of(LANES);
        let width = self.blocks() * LANES;
        scratch.keys.clear();
        scratch.keys.resize(dim * padded, 0.0);
        scratch.values.clear();
        scratch.values.resize(length * width, 0.0);
        scratch.scores.resize(ROWS * padded, 0.0);
        let key_bias = &bias[hidden + column..][..dim];
        let value_bias = &bias[2 * hidden + column..][..dim];
        for (place, token) in tokens.chunks_exact(3 * hidden).enumerate() {
            let keys = &token[hidden + column..][..dim];
            for d in 0..dim {
                scratch.keys[d * padded + place] = keys[d] + key_bias[d];
            }
            let values = &token[2 * hidden + column..][..dim];
            let row = &mut scratch.values[place * width..][..dim];
            for d in 0..dim {
                row[d] = values[d] + value_bias[d];
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a head is far narrower than 2^24")]
    #[inline(always)]
    fn run<const FMA: bool, const BLOCKS: usize>(&self, out: &mut [f32], scratch: &mut Scratch) {
        let Self { tokens, bias, hidden, dim, column } = *self;
        let length = self.length();
        let padded = length.next_multiple_of(LANES);
        let scale = 1.0 / (dim as f32).sqrt();
        let Scratch { keys, values, scores } = scratch;
        let mut queries = [[0.0_f32; ROWS]; 8 * LANES];
        for first in (0..length).step_by(ROWS) {
            let rows = (length - first).min(ROWS);
            for row in 0..ROWS {
                // Missing rows repeat the last: their results are not used.
                let token = first + row.min(rows - 1);
                let query = &tokens[token * 3 * hidden + column..][..dim];
                for d in 0..dim {
                    queries[d][row] = scale * (query[d] + bias[column + d]);
                }
            }
            for block in 0..padded / LANES {
                let mut sums = [[0.0_f32; LANES]; ROWS];
                for (query, keys) in queries[..dim].iter().zip(keys.chunks_exact(padded)) {
                    let Some(keys) = keys[block * LANES..].first_chunk::<LANES>() else { continue };
                    for row in 0..ROWS {
                        for lane in 0..LANES {
                            sums[row][lane] = fma::<FMA>(query[row], keys[lane], sums[row][lane]);
                        }
                    }
                }
                for row in 0..ROWS {
                    scores[row * padded + block * LANES..][..LANES].copy_from_slice(&sums[row]);
                }
            }
            let mut inverse = [0.0_f32; ROWS];
            for row in 0..ROWS {
                inverse[row] = softmax::<FMA>(&mut scores[row * padded..][..padded], length);
            }
            self.weigh::<FMA, BLOCKS>(first, rows, (scores, values), inverse, out);
        }
    }

    /// `out = scores · values`, scaled by row.
    #[inline(always)]
    fn weigh<const FMA: bool, const BLOCKS: usize>(
        &self,
        first: usize,
        rows: usize,
        (scores, values): (&[f32], &[f32]),
        inverse: [f32; ROWS],
        out: &mut [f32],
    ) {
        let Self { hidden, dim, column, .. } = *self;
        let padded = scores.len() / ROWS;
        let (values, _) = values.as_chunks::<LANES>();
        for block in 0..BLOCKS {
            let mut sums = [[0.0_f32; LANES]; ROWS];
            for (place, values) in values.chunks_exact(BLOCKS).enumerate() {
                let values = &values[block];
                for row in 0..ROWS {
                    let score = scores[row * padded + place];
                    for lane in 0..LANES {
                        sums[row][lane] = fma::<FMA>(score, values[lane], sums[row][lane]);
                    }
                }
            }
            let width = LANES.min(dim.saturating_sub(block * LANES));
            for row in 0..rows {
                let start = (first + row) * hidden + column + block * LANES;
                let out = &mut out[start..start + width];
                for (out, sum) in out.iter_mut().zip(&sums[row]) {
                    *out = sum * inverse[row];
                }
            }
        }
    }
}

/// Turns scores into weights that are not yet divided by their sum, and gives 1 / sum. `row` is padded to a
/// multiple of `LANES`; what lies behind `length` becomes 0.
#[inline(always)]
fn softmax<const FMA: bool>(row: &mut [f32], length: usize) -> f32 {
    row[length..].fill(f32::MIN);
    let mut largest = [f32::MIN; LANES];
    let (blocks, _) = row.as_chunks_mut::<LANES>();
    for block in &*blocks {
        for lane in 0..LANES {
            largest[lane] = largest[lane].max(block[lane]);
        }
    }
    let largest = largest.iter().copied().fold(f32::MIN, f32::max);
    for block in blocks {
        for value in block {
            *value = exp::<FMA>(*value - largest);
        }
    }
    row[length..].fill(0.0);
    1.0 / sum(row, |sum, value| sum + value)
}

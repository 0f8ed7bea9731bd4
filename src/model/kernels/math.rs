//! The kernels themselves, in plain Rust over fixed-size blocks that compilers turn into vector registers.
//! `FMA` says whether the CPU has a fused multiply-add; without one it would be a slow library call.

#![expect(clippy::inline_always, reason = "must be compiled into the variant of each CPU")]
#![expect(clippy::many_single_char_names, reason = "a, b, c of a × b + c")]

use super::operands::{Head, Norm, Rotation, Scratch};

/// f32 in a block: one AVX-512 register, two of AVX2.
const LANES: usize = 16;

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
fn gelu<const FMA: bool>(x: f32) -> f32 {
    let half = 0.5 * x;
    fma::<FMA>(half, erf::<FMA>(x * std::f32::consts::FRAC_1_SQRT_2), half)
}

#[inline(always)]
pub(super) fn bias_gelu<const FMA: bool>(x: &mut [f32], bias: &[f32]) {
    for row in x.chunks_exact_mut(bias.len()) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value = gelu::<FMA>(*value + *bias);
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
    fold(partial, |a, b| a + b)
}

/// Halves against each other until one is left: fewer steps in a row than lane by lane. Each step has its own array,
/// whose length is known, or it would go through memory lane by lane.
#[inline(always)]
fn fold(sixteen: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let (mut eight, mut four) = ([0.0; 8], [0.0; 4]);
    for lane in 0..8 {
        eight[lane] = join(sixteen[lane], sixteen[lane + 8]);
    }
    for lane in 0..4 {
        four[lane] = join(eight[lane], eight[lane + 4]);
    }
    join(join(four[0], four[2]), join(four[1], four[3]))
}

#[inline(always)]
pub(super) fn add_norm<const FMA: bool>(
    x: &mut [f32],
    residual: &[f32],
    bias: &[f32],
    norm: Norm<'_>,
) {
    let width = bias.len();
    for (row, residual) in x.chunks_exact_mut(width).zip(residual.chunks_exact(width)) {
        for place in 0..width {
            row[place] += bias[place] + residual[place];
        }
        norm_row::<FMA>(row, norm);
    }
}

#[inline(always)]
pub(super) fn norm<const FMA: bool>(x: &mut [f32], norm: Norm<'_>) {
    x.chunks_exact_mut(norm.gamma.len()).for_each(|row| norm_row::<FMA>(row, norm));
}

#[expect(clippy::cast_precision_loss, reason = "a width is far below 2^24")]
#[inline(always)]
fn norm_row<const FMA: bool>(row: &mut [f32], Norm { gamma, beta, eps }: Norm<'_>) {
    let width = row.len();
    let (gamma, beta) = (&gamma[..width], &beta[..width]);
    let mean = sum(row, |sum, value| sum + value) / width as f32;
    let square = |sum: f32, value: f32| fma::<FMA>(value - mean, value - mean, sum);
    let scale = 1.0 / (sum(row, square) / width as f32 + eps).sqrt();
    for place in 0..width {
        row[place] = fma::<FMA>((row[place] - mean) * scale, gamma[place], beta[place]);
    }
}

#[inline(always)]
pub(super) fn add_then_norm<const FMA: bool>(
    x: &mut [f32],
    y: &[f32],
    bias: &[f32],
    norm: Norm<'_>,
    out: &mut [f32],
) {
    let width = bias.len();
    let rows = x.chunks_exact_mut(width).zip(y.chunks_exact(width));
    for ((row, y), out) in rows.zip(out.chunks_exact_mut(width)) {
        for place in 0..width {
            row[place] += bias[place] + y[place];
        }
        out.copy_from_slice(row);
        norm_row::<FMA>(out, norm);
    }
}

#[inline(always)]
pub(super) fn gelu_gate<const FMA: bool>(x: &[f32], width: usize, out: &mut [f32]) {
    for (row, out) in x.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
        let (values, gates) = row.split_at(width);
        for ((out, value), gate) in out.iter_mut().zip(values).zip(gates) {
            *out = gelu::<FMA>(*value) * gate;
        }
    }
}

/// `row[i] = e^(row[i] − largest)` by row, and 1 / sum of each. A row is padded to a multiple of `LANES`; what lies
/// behind `length` becomes 0.
#[inline(always)]
pub(super) fn softmax<const FMA: bool>(rows: &mut [f32], length: usize, inverse: &mut [f32]) {
    let padded = length.next_multiple_of(LANES);
    for (row, inverse) in rows.chunks_exact_mut(padded).zip(inverse) {
        *inverse = softmax_row::<FMA>(row, length);
    }
}

#[inline(always)]
fn softmax_row<const FMA: bool>(row: &mut [f32], length: usize) -> f32 {
    let (blocks, _) = row.as_chunks_mut::<LANES>();
    set_behind(blocks, length, f32::MIN);
    let mut largest = [f32::MIN; LANES];
    for block in &*blocks {
        for lane in 0..LANES {
            largest[lane] = larger(largest[lane], block[lane]);
        }
    }
    let largest = fold(largest, larger);
    for block in &mut *blocks {
        for value in block {
            *value = exp::<FMA>(*value - largest);
        }
    }
    set_behind(blocks, length, 0.0);
    let mut sums = [0.0_f32; LANES];
    for block in &*blocks {
        for lane in 0..LANES {
            sums[lane] += block[lane];
        }
    }
    1.0 / fold(sums, |a, b| a + b)
}

/// One instruction, unlike `f32::max`, which tells a NaN from a number.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a < b { b } else { a }
}

/// Sets what lies behind `length`, all of it in the last block. Not `fill`: a call for a few values.
#[inline(always)]
fn set_behind(blocks: &mut [[f32; LANES]], length: usize, value: f32) {
    if let Some((last, others)) = blocks.split_last_mut() {
        let kept = length - others.len() * LANES;
        for (lane, slot) in last.iter_mut().enumerate() {
            *slot = if lane < kept { *slot } else { value };
        }
    }
}

/// Adds what a score gains by the distance of its key from its query: row `r` is of query `first + r`, and of
/// `[2 × reach + 1]` distances the middle one is 0. What lies farther than `reach` gains what `reach` does.
#[inline(always)]
pub(super) fn add_distances<const FMA: bool>(
    rows: &mut [f32],
    length: usize,
    first: usize,
    distances: &[f32],
) {
    let reach = distances.len() / 2;
    for (query, row) in (first..).zip(rows.chunks_exact_mut(length.next_multiple_of(LANES))) {
        let near = query.saturating_sub(reach)..length.min(query + reach + 1);
        row[..near.start].iter_mut().for_each(|score| *score += distances[0]);
        row[near.end..length].iter_mut().for_each(|score| *score += distances[2 * reach]);
        let gains = &distances[near.start + reach - query..];
        row[near].iter_mut().zip(gains).for_each(|(score, gain)| *score += gain);
    }
}

/// Copies a head's queries, scaled, its keys, transposed into panels, and its values, all with their bias.
#[expect(clippy::cast_precision_loss, reason = "a head is far narrower than 2^24")]
#[inline(always)]
pub(super) fn load_head<const FMA: bool>(head: Head<'_>, scratch: &mut Scratch) {
    let Head { tokens, bias, hidden, dim, column, rotation } = head;
    let scale = 1.0 / (dim as f32).sqrt();
    let query_bias = &bias[column..][..dim];
    let key_bias = &bias[hidden + column..][..dim];
    let value_bias = &bias[2 * hidden + column..][..dim];
    let length = tokens.len() / (3 * hidden);
    // A panel of values is 32 of the head's dimensions; a block behind the last stays 0.
    let width = dim.div_ceil(LANES);
    for (place, token) in tokens.chunks_exact(3 * hidden).enumerate() {
        let query = &token[column..][..dim];
        let key = &token[hidden + column..][..dim];
        let value = &token[2 * hidden + column..][..dim];
        let queries = &mut scratch.queries[place * dim..][..dim];
        for ((out, value), bias) in queries.iter_mut().zip(query).zip(query_bias) {
            *out = scale * (value + bias);
        }
        let row = &mut scratch.key[..dim];
        for ((out, value), bias) in row.iter_mut().zip(key).zip(key_bias) {
            *out = value + bias;
        }
        if let Some(Rotation { cos, sin }) = rotation {
            let angles = place * (dim / 2)..(place + 1) * (dim / 2);
            rotate::<FMA>(queries, &cos[angles.clone()], &sin[angles.clone()]);
            rotate::<FMA>(row, &cos[angles.clone()], &sin[angles]);
        }
        let lines = &mut scratch.keys[place / (2 * LANES) * dim * 2..][..dim * 2];
        let (half, lane) = (place / LANES % 2, place % LANES);
        let lines = lines.as_chunks_mut::<2>().0;
        for (lines, value) in lines.iter_mut().zip(row) {
            lines[half].0[lane] = *value;
        }
        for block in 0..width {
            let panel = block / 2 * length;
            let line = &mut scratch.values[(panel + place) * 2 + block % 2].0;
            let wide = LANES.min(dim.saturating_sub(block * LANES));
            let (value, bias) =
                (&value[block * LANES..][..wide], &value_bias[block * LANES..][..wide]);
            for ((out, value), bias) in line.iter_mut().zip(value).zip(bias) {
                *out = value + bias;
            }
        }
    }
}

/// Turns each pair `(i, i + half)` by its angle.
#[inline(always)]
fn rotate<const FMA: bool>(row: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (left, right) = row.split_at_mut(cos.len());
    for (((a, b), cos), sin) in left.iter_mut().zip(right).zip(cos).zip(sin) {
        (*a, *b) = (fma::<FMA>(*a, *cos, -(*b * sin)), fma::<FMA>(*b, *cos, *a * sin));
    }
}

//! Matrix products with weights that are packed once, when the model is loaded.
//!
//! ```text
//!  f32    panel = [inputs][32 outputs]                 tile = 12 rows × 32 outputs in registers (AVX-512)
//!  bf16   panel = [inputs / 2][32 outputs][2 inputs]   the same tile, 2 inputs an instruction (AVX512_BF16)
//!  int8   panel = [inputs / 4][32 outputs][4 inputs]   the same tile, 4 inputs an instruction (VNNI)
//! ```
//!
//! A tile walks down one panel: two loads of weights and one broadcast a row feed all its multiply-adds. Every
//! row's sums run over the inputs in the same order in every tile, so a row's bits depend neither on the rows
//! beside it nor on its place among them.
//!
//! int8 is dynamic: weights have a scale for each output (symmetric, fitted once), rows a scale and a zero point
//! each (asymmetric over the row's own range, since what follows a GELU is hardly negative). The products are
//! summed in i32, exactly. Without VNNI weights have 7 bits instead of 8, so that the sum of two products fits 16.
//!
//! bf16 rounds both factors to 8 bits of mantissa, to even; products are exact and summed in f32.

use super::{Level, detected, level, room};

#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

/// Outputs of a panel: two AVX-512 registers of f32.
const PANEL: usize = 32;

/// Inputs that one int8 instruction takes at once.
const GROUP: usize = 4;

/// Rows of a tile: 24 accumulators of AVX-512's 32 registers.
const ROWS: usize = 12;

/// Largest weight.
const WIDE: i8 = 127;

/// Largest weight without VNNI: pairs of products are then summed in i16, and 2 × 255 × 63 fits.
const NARROW: i8 = 63;

/// A cache line, so that no load of a panel straddles two.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line<T, const N: usize>(pub(super) [T; N]);

/// Panels of f32: a weight, or the keys or values of an attention head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panels<'a> {
    /// `2 × inputs` lines for each panel of 32 outputs.
    pub(super) lines: &'a [Line<f32, 16>],
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

/// `out[r] = x[r] · panels`: row `r` of `x` begins at `r × x.1`, row `r` of `out` at `r × out.1`. f32.
///
/// # Panics
///
/// When something of that is outside its slice: a bug of the caller.
pub(super) fn multiply(
    level: Level,
    rows: usize,
    (x, x_stride): (&[f32], usize),
    panels: Panels<'_>,
    (out, out_stride): (&mut [f32], usize),
) {
    let Panels { lines, inputs, outputs } = panels;
    let Some(before) = rows.checked_sub(1) else { return };
    assert!(
        before * x_stride + inputs <= x.len()
            && before * out_stride + outputs <= out.len()
            && outputs.div_ceil(PANEL) * inputs * 2 <= lines.len(),
        "shapes of a product"
    );
    #[cfg(target_arch = "x86_64")]
    match level.min(detected()) {
        Level::Bf16 | Level::Vnni | Level::Avx512 => {
            // SAFETY: `detected` has asked the CPU for the features, and the lengths were checked above.
            return unsafe { x86::dense_512(rows, (x, x_stride), panels, (out, out_stride)) };
        }
        Level::Avx2 => {
            // SAFETY: as above.
            return unsafe { x86::dense_256(rows, (x, x_stride), panels, (out, out_stride)) };
        }
        Level::Portable => (),
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _: (Level, fn() -> Level) = (level, detected);
    for row in 0..rows {
        let (x, out) = (&x[row * x_stride..][..inputs], &mut out[row * out_stride..][..outputs]);
        for (panel, out) in lines.chunks_exact(2 * inputs).zip(out.chunks_mut(PANEL)) {
            let mut sums = [0.0_f32; PANEL];
            for (value, weights) in x.iter().zip(panel.as_chunks::<2>().0) {
                let weights = weights[0].0.iter().chain(&weights[1].0);
                sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += value * weight);
            }
            out.copy_from_slice(&sums[..out.len()]);
        }
    }
}

/// Weights in f32.
#[derive(Debug)]
pub struct Dense {
    inputs: usize,
    outputs: usize,
    panels: Vec<Line<f32, 16>>,
}

impl Dense {
    /// Packs `weight`, `[outputs, inputs]` row-major as checkpoints store it.
    ///
    /// # Panics
    ///
    /// When its length is another: a bug of the caller.
    pub fn new(weight: &[f32], inputs: usize, outputs: usize) -> Self {
        assert!(weight.len() == inputs * outputs, "shape of a weight");
        let lines = outputs.div_ceil(PANEL) * inputs * 2;
        let mut panels = vec![Line([0.0; 16]); lines];
        for (output, row) in weight.chunks_exact(inputs.max(1)).enumerate() {
            let (panel, column) = (output / PANEL, output % PANEL);
            for (input, value) in row.iter().enumerate() {
                panels[(panel * inputs + input) * 2 + column / 16].0[column % 16] = *value;
            }
        }
        Self { inputs, outputs, panels }
    }

    /// `out = x · weightᵀ`: `x` is `[rows, inputs]`, `out` is `[rows, outputs]`, f32. One thread.
    ///
    /// # Panics
    ///
    /// When the lengths do not fit: a bug of the caller.
    pub fn product(&self, x: &[f32], out: &mut [f32]) {
        self.product_at(level(), x, out);
    }

    fn product_at(&self, level: Level, x: &[f32], out: &mut [f32]) {
        let Self { inputs, outputs, ref panels } = *self;
        let rows = out.len() / outputs.max(1);
        assert!(x.len() == rows * inputs && out.len() == rows * outputs, "shapes of a product");
        let panels = Panels { lines: panels, inputs, outputs };
        multiply(level, rows, (x, inputs), panels, (out, outputs));
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.panels[..])
    }
}

/// Inputs that one bf16 instruction takes at once.
const PAIR: usize = 2;

/// Weights in bf16.
#[derive(Debug)]
pub struct Bf16 {
    inputs: usize,
    outputs: usize,
    /// `inputs` up to a whole pair.
    pairs: usize,
    panels: Vec<Line<u16, 32>>,
}

impl Bf16 {
    /// Rounds and packs `weight`, `[outputs, inputs]` row-major.
    ///
    /// # Panics
    ///
    /// When its length is another: a bug of the caller.
    pub fn new(weight: &[f32], inputs: usize, outputs: usize) -> Self {
        assert!(weight.len() == inputs * outputs, "shape of a weight");
        let pairs = inputs.div_ceil(PAIR);
        let mut panels = vec![Line([0_u16; 32]); outputs.div_ceil(PANEL) * pairs * 2];
        for (output, row) in weight.chunks_exact(inputs.max(1)).enumerate() {
            let (panel, column) = (output / PANEL, output % PANEL);
            for (input, value) in row.iter().enumerate() {
                let line = (panel * pairs + input / PAIR) * 2 + column / 16;
                panels[line].0[column % 16 * PAIR + input % PAIR] = to_bf16(*value);
            }
        }
        Self { inputs, outputs, pairs, panels }
    }

    /// `out = x · weightᵀ` with `x` rounded to bf16: `x` is `[rows, inputs]`, `out` is `[rows, outputs]`, f32.
    /// One thread.
    ///
    /// # Panics
    ///
    /// When the lengths do not fit: a bug of the caller.
    pub fn product(&self, x: &[f32], out: &mut [f32], rows: &mut Rows) {
        self.product_at(level(), x, out, rows);
    }

    fn product_at(&self, level: Level, x: &[f32], out: &mut [f32], rows: &mut Rows) {
        let count = out.len() / self.outputs.max(1);
        assert!(
            x.len() == count * self.inputs && out.len() == count * self.outputs,
            "shapes of a product"
        );
        rows.pairs = spread(self.pairs * 2 * PAIR) / (2 * PAIR);
        room(&mut rows.halves, count * rows.pairs, [0; PAIR]);
        if !self.inputs.is_multiple_of(PAIR) {
            // The last input's partner meets a weight of 0, and must be a number.
            rows.halves
                .chunks_exact_mut(rows.pairs)
                .for_each(|row| row[self.pairs - 1] = [0; PAIR]);
        }
        #[cfg(target_arch = "x86_64")]
        if level.min(detected()) == Level::Bf16 {
            // SAFETY: `detected` has asked the CPU for the features; the lengths were checked above.
            unsafe {
                x86::round_512(x, self.inputs, rows);
                x86::bf16_512(self, rows, out);
            }
            return;
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _: Level = level;
        round(x, self.inputs, rows);
        self.portable(rows, out);
    }

    /// On any CPU: the scalar twin of the other.
    fn portable(&self, rows: &Rows, out: &mut [f32]) {
        for (row, out) in out.chunks_exact_mut(self.outputs).enumerate() {
            let values = &rows.halves[row * rows.pairs..][..self.pairs];
            for (panel, out) in out.chunks_mut(PANEL).enumerate() {
                let mut sums = [0.0_f32; PANEL];
                let lines = self.panels[panel * self.pairs * 2..].as_chunks::<2>().0;
                for (values, lines) in values.iter().zip(lines) {
                    for (column, sum) in sums.iter_mut().enumerate() {
                        let weights = &lines[column / 16].0[column % 16 * PAIR..][..PAIR];
                        for (value, weight) in values.iter().zip(weights).rev() {
                            *sum += from_bf16(*value) * from_bf16(*weight);
                        }
                    }
                }
                out.copy_from_slice(&sums[..out.len()]);
            }
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.panels[..])
    }
}

/// Nearest bf16, halves to even, as `VCVTNEPS2BF16` rounds normal numbers.
fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded =
        if value.is_nan() { bits | 0x0040_0000 } else { bits + 0x7fff + (bits >> 16 & 1) };
    let [_, _, low, high] = rounded.to_le_bytes();
    u16::from_le_bytes([low, high])
}

fn from_bf16(value: u16) -> f32 {
    f32::from_bits(u32::from(value) << 16)
}

/// Rounds rows of `inputs` values.
fn round(x: &[f32], inputs: usize, rows: &mut Rows) {
    for (values, halves) in x.chunks_exact(inputs).zip(rows.halves.chunks_exact_mut(rows.pairs)) {
        halves.as_flattened_mut().iter_mut().zip(values).for_each(|(half, v)| *half = to_bf16(*v));
    }
}

/// A stride of at least so many bytes. Rows a multiple of 512 apart would share a few sets of the first cache.
fn spread(bytes: usize) -> usize {
    if bytes.is_multiple_of(512) { bytes + 64 } else { bytes }
}

/// Weights in int8, with a scale for each output.
#[derive(Debug)]
pub struct Int8 {
    inputs: usize,
    outputs: usize,
    /// `inputs` up to a whole group.
    groups: usize,
    panels: Vec<Line<i8, 64>>,
    /// By output, up to a whole panel.
    scales: Vec<f32>,
    /// Sum of an output's weights: what a row's zero point adds to its sum.
    sums: Vec<i32>,
}

/// Rows of a product's left side, prepared for its weights; a buffer that is reused.
///
/// For int8 in u8: value = scale × (byte − zero). A row with a NaN has a scale of NaN.
#[derive(Debug, Default)]
pub struct Rows {
    /// `[rows, stride]`.
    bytes: Vec<u8>,
    stride: usize,
    scales: Vec<f32>,
    zeros: Vec<i32>,
    /// For bf16: `[rows, pairs]`.
    halves: Vec<[u16; PAIR]>,
    pairs: usize,
}

impl Int8 {
    /// Quantises and packs `weight`, `[outputs, inputs]` row-major, for the level in use.
    ///
    /// # Panics
    ///
    /// When its length is another: a bug of the caller.
    pub fn new(weight: &[f32], inputs: usize, outputs: usize) -> Self {
        Self::new_at(level(), weight, inputs, outputs)
    }

    fn new_at(level: Level, weight: &[f32], inputs: usize, outputs: usize) -> Self {
        let most = match level.min(detected()) {
            Level::Bf16 | Level::Vnni | Level::Portable => WIDE,
            Level::Avx512 | Level::Avx2 => NARROW,
        };
        let steps = f32::from(most);
        let most = i32::from(most);
        assert!(weight.len() == inputs * outputs, "shape of a weight");
        let groups = inputs.div_ceil(GROUP);
        let whole = outputs.next_multiple_of(PANEL);
        let mut panels = vec![Line([0_i8; 64]); whole / PANEL * groups * 2];
        let (mut scales, mut sums) = (vec![0.0; whole], vec![0; whole]);
        for (output, row) in weight.chunks_exact(inputs.max(1)).enumerate() {
            let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let scale = (largest / steps).max(f32::MIN_POSITIVE);
            let inverse = 1.0 / scale;
            scales[output] = scale;
            let (panel, column) = (output / PANEL, output % PANEL);
            for (input, value) in row.iter().enumerate() {
                #[expect(clippy::cast_possible_truncation, reason = "clamped")]
                let byte = nearest(value * inverse).clamp(-most, most) as i8;
                sums[output] += i32::from(byte);
                let line = (panel * groups + input / GROUP) * 2 + column / 16;
                panels[line].0[column % 16 * GROUP + input % GROUP] = byte;
            }
        }
        Self { inputs, outputs, groups, panels, scales, sums }
    }

    /// `out = x · weightᵀ` with `x` quantised row by row: `x` is `[rows, inputs]`, `out` is `[rows, outputs]`, f32.
    /// One thread.
    ///
    /// # Panics
    ///
    /// When the lengths do not fit: a bug of the caller.
    pub fn product(&self, x: &[f32], out: &mut [f32], rows: &mut Rows) {
        self.product_at(level(), x, out, rows);
    }

    fn product_at(&self, level: Level, x: &[f32], out: &mut [f32], rows: &mut Rows) {
        let count = out.len() / self.outputs.max(1);
        assert!(
            x.len() == count * self.inputs && out.len() == count * self.outputs,
            "shapes of a product"
        );
        let level = level.min(detected());
        quantise(level, x, self.inputs, rows);
        #[cfg(target_arch = "x86_64")]
        match level {
            // SAFETY: `detected` has asked the CPU for the features; the lengths were checked above, and
            // `quantise` has filled `rows` for this many inputs.
            Level::Bf16 | Level::Vnni => return unsafe { x86::int8_vnni(self, rows, out) },
            // SAFETY: as above.
            Level::Avx512 | Level::Avx2 => return unsafe { x86::int8_256(self, rows, out) },
            Level::Portable => (),
        }
        self.portable(rows, out);
    }

    /// On any CPU: the scalar twin of the others.
    fn portable(&self, rows: &Rows, out: &mut [f32]) {
        for (row, out) in out.chunks_exact_mut(self.outputs).enumerate() {
            let values = rows.bytes[row * rows.stride..].as_chunks::<GROUP>().0;
            for (panel, out) in out.chunks_mut(PANEL).enumerate() {
                let mut sums = [0_i32; PANEL];
                let lines = self.panels[panel * self.groups * 2..].as_chunks::<2>().0;
                for (values, lines) in values.iter().zip(&lines[..self.groups]) {
                    for (column, sum) in sums.iter_mut().enumerate() {
                        let weights = &lines[column / 16].0[column % 16 * GROUP..][..GROUP];
                        let pairs = values.iter().zip(weights);
                        *sum += pairs.map(|(v, w)| i32::from(*v) * i32::from(*w)).sum::<i32>();
                    }
                }
                self.finish(rows, row, panel, &sums, out);
            }
        }
    }

    /// Sums of a row and a panel, as f32.
    #[expect(clippy::cast_precision_loss, reason = "a sum is rounded to f32 once")]
    fn finish(&self, rows: &Rows, row: usize, panel: usize, sums: &[i32; PANEL], out: &mut [f32]) {
        let (scale, zero) = (rows.scales[row], rows.zeros[row]);
        let first = panel * PANEL;
        for (column, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
            let exact = sum - zero * self.sums[first + column];
            *out = exact as f32 * (scale * self.scales[first + column]);
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.panels[..]) + size_of_val(&self.scales[..]) * 2
    }
}

/// Largest byte of a row.
const MOST: i32 = 255;

/// Quantises rows of `inputs` values.
fn quantise(level: Level, x: &[f32], inputs: usize, rows: &mut Rows) {
    let count = x.len() / inputs.max(1);
    rows.stride = spread(inputs.next_multiple_of(GROUP));
    room(&mut rows.scales, count, 0.0);
    room(&mut rows.zeros, count, 0);
    // What stands behind the last input meets weights of 0.
    room(&mut rows.bytes, count * rows.stride, 0);
    #[cfg(target_arch = "x86_64")]
    match level {
        // SAFETY: `level` is at most what `detected` found.
        Level::Bf16 | Level::Vnni | Level::Avx512 => {
            return unsafe { x86::quantise_512(x, inputs, rows) };
        }
        // SAFETY: as above.
        Level::Avx2 => return unsafe { x86::quantise_256(x, inputs, rows) },
        Level::Portable => (),
    }
    let Rows { bytes, stride, scales, zeros, .. } = rows;
    let rows = x.chunks_exact(inputs).zip(bytes.chunks_exact_mut(*stride));
    for ((values, bytes), (scale, zero)) in rows.zip(scales.iter_mut().zip(zeros)) {
        let inverse = fit(range(values), scale, zero);
        if values.iter().any(|value| value.is_nan()) {
            *scale = f32::NAN;
        }
        for (byte, value) in bytes.iter_mut().zip(values) {
            *byte = quantised(*value, inverse, *zero);
        }
    }
}

/// A value's byte.
#[expect(clippy::cast_sign_loss, reason = "clamped")]
fn quantised(value: f32, inverse: f32, zero: i32) -> u8 {
    nearest(value * inverse).wrapping_add(zero).clamp(0, MOST) as u8
}

/// Sets a row's scale and zero point; gives 1 / scale.
fn fit((low, high): (f32, f32), scale: &mut f32, zero: &mut i32) -> f32 {
    *scale = ((high - low) / 255.0).max(f32::MIN_POSITIVE);
    let inverse = 1.0 / *scale;
    *zero = nearest(-low * inverse);
    inverse
}

/// Nearest integer of |x| < 2^22, halves to even: adding 1.5 · 2^23 leaves it in the low bits.
fn nearest(x: f32) -> i32 {
    ((x + 12_582_912.0).to_bits() & 0x007f_ffff).cast_signed().wrapping_sub(0x0040_0000)
}

/// Smallest and largest value, 0 included.
fn range(values: &[f32]) -> (f32, f32) {
    values.iter().fold((0.0, 0.0), |(low, high), value| (low.min(*value), high.max(*value)))
}

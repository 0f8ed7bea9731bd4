//! int8.

use super::{Line, PANEL, Rows, rows_of, slot, spread};
use crate::model::kernels::buffer::room;
use crate::model::kernels::level::{Level, detected, level};

#[cfg(target_arch = "x86_64")]
mod x86;

/// Inputs that one int8 instruction takes at once.
const GROUP: usize = 4;

/// Largest weight.
const WIDE: i8 = 127;

/// Largest weight without VNNI: pairs of products are then summed in i16, and 2 × 255 × 63 fits.
const NARROW: i8 = 63;

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

impl Int8 {
    /// Quantises and packs `weight`, `[outputs, inputs]` row-major, for the level in use.
    ///
    /// # Panics
    ///
    /// When its length is another: a bug of the caller.
    pub fn new(weight: &[f32], inputs: usize, outputs: usize) -> Self {
        Self::new_at(level(), weight, inputs, outputs)
    }

    pub(super) fn new_at(level: Level, weight: &[f32], inputs: usize, outputs: usize) -> Self {
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
            for (input, value) in row.iter().enumerate() {
                #[expect(clippy::cast_possible_truncation, reason = "clamped")]
                let byte = nearest(value * inverse).clamp(-most, most) as i8;
                sums[output] += i32::from(byte);
                let (line, place) = slot(GROUP, inputs, output, input);
                panels[line].0[place] = byte;
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

    pub(super) fn product_at(&self, level: Level, x: &[f32], out: &mut [f32], rows: &mut Rows) {
        rows_of((x, self.inputs), (out, self.outputs));
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
    pub(super) fn portable(&self, rows: &Rows, out: &mut [f32]) {
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
pub(super) fn quantise(level: Level, x: &[f32], inputs: usize, rows: &mut Rows) {
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

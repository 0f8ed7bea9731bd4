//! bf16.

use super::{Line, PAIR, PANEL, Rows, rows_of, slot, spread};
use crate::model::kernels::buffer::room;
use crate::model::kernels::level::{Level, detected, level};

#[cfg(target_arch = "x86_64")]
mod x86;

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
            for (input, value) in row.iter().enumerate() {
                let (line, place) = slot(PAIR, inputs, output, input);
                panels[line].0[place] = to_bf16(*value);
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

    pub(super) fn product_at(&self, level: Level, x: &[f32], out: &mut [f32], rows: &mut Rows) {
        let count = rows_of((x, self.inputs), (out, self.outputs));
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
    pub(super) fn portable(&self, rows: &Rows, out: &mut [f32]) {
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
pub(super) fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded =
        if value.is_nan() { bits | 0x0040_0000 } else { bits + 0x7fff + (bits >> 16 & 1) };
    let [_, _, low, high] = rounded.to_le_bytes();
    u16::from_le_bytes([low, high])
}

pub(super) fn from_bf16(value: u16) -> f32 {
    f32::from_bits(u32::from(value) << 16)
}

/// Rounds rows of `inputs` values.
fn round(x: &[f32], inputs: usize, rows: &mut Rows) {
    for (values, halves) in x.chunks_exact(inputs).zip(rows.halves.chunks_exact_mut(rows.pairs)) {
        halves.as_flattened_mut().iter_mut().zip(values).for_each(|(half, v)| *half = to_bf16(*v));
    }
}

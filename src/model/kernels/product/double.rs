//! f64, for tables: what is fitted in f64 is answered in f64.
#![expect(clippy::inline_always, reason = "must be compiled into the variant of each CPU")]

use std::array;

use super::{Line, rows_of};
use crate::model::kernels::level::{Level, detected, level};

#[cfg(target_arch = "x86_64")]
mod x86;

/// Outputs of a panel: two AVX-512 registers of f64, four of AVX2.
const PANEL: usize = 16;

/// A panel's weights of one input.
type Row = Line<f64, PANEL>;

/// Sums of a row for a panel's outputs, in whatever registers there are.
trait Lanes: Copy {
    fn zero() -> Self;
    fn load(row: &Row) -> Self;
    /// `self + value × weights`, rounded once where the CPU can.
    #[must_use]
    fn plus(self, value: f64, weights: Self) -> Self;
    fn store(self) -> [f64; PANEL];
}

impl Lanes for [f64; PANEL] {
    #[inline(always)]
    fn zero() -> Self {
        [0.0; PANEL]
    }

    #[inline(always)]
    fn load(row: &Row) -> Self {
        row.0
    }

    #[inline(always)]
    fn plus(self, value: f64, weights: Self) -> Self {
        array::from_fn(|lane| self[lane] + value * weights[lane])
    }

    #[inline(always)]
    fn store(self) -> [f64; PANEL] {
        self
    }
}

/// A dense layer in f64: weights and bias.
#[derive(Debug)]
pub struct Double {
    inputs: usize,
    /// `inputs` lines for each panel of 16 outputs.
    panels: Vec<Row>,
    bias: Vec<f64>,
}

impl Double {
    /// Packs `weight`, `[outputs, inputs]` row-major; `bias` is `[outputs]`.
    ///
    /// # Panics
    ///
    /// When its length is another: a bug of the caller.
    pub fn new(weight: &[f64], bias: Vec<f64>, inputs: usize) -> Self {
        assert!(weight.len() == inputs * bias.len(), "shape of a weight");
        let mut panels = vec![Line([0.0; PANEL]); bias.len().div_ceil(PANEL) * inputs];
        for (output, row) in weight.chunks_exact(inputs.max(1)).enumerate() {
            let panel = &mut panels[output / PANEL * inputs..][..inputs];
            panel.iter_mut().zip(row).for_each(|(line, value)| line.0[output % PANEL] = *value);
        }
        Self { inputs, panels, bias }
    }

    /// `x · weightᵀ + bias`: `x` is `[rows, inputs]`, the result is `[rows, outputs]`, f64. One thread. A row's sums run
    /// over the inputs in their order, whatever the rows beside it.
    ///
    /// # Panics
    ///
    /// When the length is no whole number of rows: a bug of the caller.
    pub fn forward(&self, x: &[f64]) -> Vec<f64> {
        self.forward_at(level(), x)
    }

    pub(super) fn forward_at(&self, level: Level, x: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; x.len() / self.inputs.max(1) * self.outputs()];
        rows_of((x, self.inputs), (&out, self.outputs()));
        #[cfg(target_arch = "x86_64")]
        match level.min(detected()) {
            Level::Bf16 | Level::Vnni | Level::Avx512 => {
                // SAFETY: `detected` has asked the CPU for the feature.
                unsafe { self.avx512(x, &mut out) };
                return out;
            }
            Level::Avx2 => {
                // SAFETY: as above.
                unsafe { self.avx2(x, &mut out) };
                return out;
            }
            Level::Portable => (),
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _: (Level, fn() -> Level) = (level, detected);
        self.rows::<[f64; PANEL], 1>(x, &mut out);
        out
    }

    /// In tiles of `R` rows: their sums and a panel's weights fit into the registers.
    #[inline(always)]
    fn rows<L: Lanes, const R: usize>(&self, x: &[f64], out: &mut [f64]) {
        let (inputs, outputs) = (self.inputs, self.outputs());
        for (x, out) in x.chunks(R * inputs).zip(out.chunks_mut(R * outputs)) {
            if x.len() == R * inputs {
                self.tile::<L, R>(x, out);
                continue;
            }
            for (x, out) in x.chunks_exact(inputs).zip(out.chunks_exact_mut(outputs)) {
                self.tile::<L, 1>(x, out);
            }
        }
    }

    #[inline(always)]
    fn tile<L: Lanes, const R: usize>(&self, x: &[f64], out: &mut [f64]) {
        let (inputs, outputs) = (self.inputs, self.outputs());
        let x: [&[f64]; R] = array::from_fn(|row| &x[row * inputs..][..inputs]);
        let panels = self.panels.chunks_exact(inputs).zip(self.bias.chunks(PANEL));
        for (number, (panel, bias)) in panels.enumerate() {
            let mut sums = [L::zero(); R];
            for (input, row) in panel.iter().enumerate() {
                let weights = L::load(row);
                for (sum, x) in sums.iter_mut().zip(x) {
                    *sum = sum.plus(x[input], weights);
                }
            }
            for (row, sum) in sums.into_iter().enumerate() {
                let out = &mut out[row * outputs + number * PANEL..][..bias.len()];
                for ((out, sum), bias) in out.iter_mut().zip(sum.store()).zip(bias) {
                    *out = sum + bias;
                }
            }
        }
    }

    /// Values in a row of the result.
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.panels[..]) + size_of_val(&self.bias[..])
    }
}

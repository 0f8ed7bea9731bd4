//! f32.

use super::{Line, PANEL, rows_of, slot};
use crate::model::kernels::level::{Level, detected, level};

#[cfg(target_arch = "x86_64")]
mod x86;

/// Panels of f32: a weight, or the keys or values of an attention head.
#[derive(Debug, Clone, Copy)]
pub(in crate::model::kernels) struct Panels<'a> {
    /// `2 × inputs` lines for each panel of 32 outputs.
    pub(in crate::model::kernels) lines: &'a [Line<f32, 16>],
    pub(in crate::model::kernels) inputs: usize,
    pub(in crate::model::kernels) outputs: usize,
}

/// `out[r] = x[r] · panels`: row `r` of `x` begins at `r × x.1`, row `r` of `out` at `r × out.1`. f32.
///
/// # Panics
///
/// When something of that is outside its slice: a bug of the caller.
pub(in crate::model::kernels) fn multiply(
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
            for (input, value) in row.iter().enumerate() {
                let (line, place) = slot(1, inputs, output, input);
                panels[line].0[place] = *value;
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

    pub(super) fn product_at(&self, level: Level, x: &[f32], out: &mut [f32]) {
        let Self { inputs, outputs, ref panels } = *self;
        let rows = rows_of((x, inputs), (out, outputs));
        let panels = Panels { lines: panels, inputs, outputs };
        multiply(level, rows, (x, inputs), panels, (out, outputs));
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.panels[..])
    }
}

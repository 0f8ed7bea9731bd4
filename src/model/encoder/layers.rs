//! What encoders are made of: dense layers in each precision, norms, buffers.

use std::cell::RefCell;

use crate::model::files::Error;
use crate::model::kernels::{self, Bf16, Dense, Int8, Norm, Precision, Rows, Scratch};
use crate::model::weights::Weights;

impl Weights {
    /// A dense layer as transformers stores it, or several of the same inputs side by side:
    /// `weight` `[outputs, inputs]`, `bias` `[outputs]` each.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take).
    pub fn linear(
        &self,
        names: &[&str],
        shape: (usize, usize),
        precision: Precision,
    ) -> Result<Linear, Error> {
        self.dense(names, shape, true, precision)
    }

    /// As [`linear`](Self::linear); where the checkpoint has no `bias`, zeros stand in.
    pub(in crate::model) fn dense(
        &self,
        names: &[&str],
        (inputs, outputs): (usize, usize),
        biased: bool,
        precision: Precision,
    ) -> Result<Linear, Error> {
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for name in names {
            weight.append(&mut self.take(&format!("{name}.weight"), &[outputs, inputs])?);
            if biased {
                bias.append(&mut self.take(&format!("{name}.bias"), &[outputs])?);
            }
        }
        bias.resize(names.len() * outputs, 0.0);
        Ok(Linear::new(&weight, bias, inputs, precision))
    }
}

#[derive(Debug)]
enum Matrix {
    F32(Dense),
    Bf16(Bf16),
    Int8(Int8),
}

/// A dense layer.
#[derive(Debug)]
pub struct Linear {
    inputs: usize,
    weight: Matrix,
    pub(super) bias: Vec<f32>,
}

impl Linear {
    /// Packs `weight` `[outputs, inputs]`; `bias` is `[outputs]`.
    pub(in crate::model) fn new(
        weight: &[f32],
        bias: Vec<f32>,
        inputs: usize,
        precision: Precision,
    ) -> Self {
        let outputs = bias.len();
        let weight = match precision {
            Precision::F32 => Matrix::F32(Dense::new(weight, inputs, outputs)),
            Precision::Bf16 => Matrix::Bf16(Bf16::new(weight, inputs, outputs)),
            Precision::Int8 => Matrix::Int8(Int8::new(weight, inputs, outputs)),
        };
        Self { inputs, weight, bias }
    }

    /// `x · weightᵀ`, without the bias, at the beginning of `out`: `x` is `[rows, inputs]`, the result is
    /// `[rows, outputs]`, f32.
    pub(in crate::model) fn product<'a>(
        &self,
        x: &[f32],
        out: &'a mut Vec<f32>,
        rounded: &mut Rows,
    ) -> &'a mut [f32] {
        let rows = x.len() / self.inputs.max(1);
        let out = kernels::room(out, rows * self.outputs(), 0.0);
        match &self.weight {
            Matrix::F32(weight) => weight.product(x, out),
            Matrix::Bf16(weight) => weight.product(x, out, rounded),
            Matrix::Int8(weight) => weight.product(x, out, rounded),
        }
        out
    }

    /// `x · weightᵀ + bias`: `x` is `[rows, inputs]`, the result is `[rows, outputs]`, f32.
    pub fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut out = Vec::new();
        self.product(x, &mut out, &mut Rows::default());
        for row in out.chunks_exact_mut(self.bias.len()) {
            row.iter_mut().zip(&self.bias).for_each(|(value, bias)| *value += bias);
        }
        out
    }

    /// Values in a row of the result.
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// Bytes of the weights in memory.
    pub fn bytes(&self) -> usize {
        match &self.weight {
            Matrix::F32(weight) => weight.bytes(),
            Matrix::Bf16(weight) => weight.bytes(),
            Matrix::Int8(weight) => weight.bytes(),
        }
    }
}

#[derive(Debug)]
pub(in crate::model) struct LayerNorm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
    eps: f32,
}

impl LayerNorm {
    /// Over `size` values; where the checkpoint has no `bias`, zeros stand in.
    pub(in crate::model) fn new(
        weights: &Weights,
        name: &str,
        size: usize,
        biased: bool,
        eps: f64,
    ) -> Result<Self, Error> {
        let gamma = weights.take(&format!("{name}.weight"), &[size])?;
        let beta =
            if biased { weights.take(&format!("{name}.bias"), &[size])? } else { vec![0.0; size] };
        #[expect(clippy::cast_possible_truncation, reason = "1e-12 is a normal f32")]
        let eps = eps as f32;
        Ok(Self { gamma, beta, eps })
    }

    pub(in crate::model) fn get(&self) -> Norm<'_> {
        Norm { gamma: &self.gamma, beta: &self.beta, eps: self.eps }
    }
}

/// A thread's buffers. They only grow: what lies behind a batch's rows is left from another.
#[derive(Debug, Default)]
pub struct Workspace {
    /// `[tokens, hidden]`, as the next two.
    pub(in crate::model) x: Vec<f32>,
    pub(in crate::model) y: Vec<f32>,
    pub(in crate::model) z: Vec<f32>,
    /// `[tokens, 3 × hidden or intermediate]`.
    pub(in crate::model) wide: Vec<f32>,
    /// `[tokens, intermediate]`, where a gate halves it.
    pub(in crate::model) gated: Vec<f32>,
    pub(in crate::model) offsets: Vec<usize>,
    pub(in crate::model) scratch: Scratch,
    pub(in crate::model) rows: Rows,
}

thread_local! {
    /// A worker's buffers, for whatever model it runs.
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

impl Workspace {
    /// Runs on this thread's buffers.
    ///
    /// # Panics
    ///
    /// When `run` asks for them again.
    pub fn with<R>(run: impl FnOnce(&mut Self) -> R) -> R {
        WORKSPACE.with_borrow_mut(run)
    }
}

/// Leaves of each sequence its first row, in both `[tokens, hidden]`, and makes `offsets` say so. Gives the length that
/// both have now.
pub(super) fn keep_first(both: [&mut [f32]; 2], offsets: &mut [usize], hidden: usize) -> usize {
    let sequences = offsets.len() - 1;
    for rows in both {
        for (row, first) in offsets[..sequences].iter().enumerate() {
            rows.copy_within(first * hidden..(first + 1) * hidden, row * hidden);
        }
    }
    (0..).zip(offsets).for_each(|(row, offset)| *offset = row);
    sequences * hidden
}

/// Writes where sequences begin that are laid end to end, and the end of the last: `[sequences + 1]`.
pub(super) fn lay(sequences: &[&[u32]], offsets: &mut Vec<usize>) {
    let ends = sequences.iter().scan(0, |end, sequence| {
        *end += sequence.len();
        Some(*end)
    });
    offsets.clear();
    offsets.push(0);
    offsets.extend(ends);
}

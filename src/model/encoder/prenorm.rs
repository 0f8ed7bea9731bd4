//! Layers whose norms stand before what they feed, as in `ModernBERT` and `ViT`.
//!
//! ```text
//!  x ─► ┌ norm ─► qkv ─► attention ─► dense ─► + x ┐
//!       └ norm ─► dense ─► f, or f × gate ─► dense ─► + x ┘ × layers ─► norm ─► [tokens, hidden]
//! ```
//!
//! Xiong et al. 2020 (norms before); Shazeer 2020 (gates). Each sum and the norm that follows it are one pass.

use super::activation::Activation;
use super::layers::{LayerNorm, Linear, Workspace, keep_first};
use super::packed::States;
use crate::model::kernels::{self, Attention, Precision, Rotation};

/// A layer.
#[derive(Debug)]
pub(in crate::model) struct Block {
    /// `[hidden, 3 × hidden]`: queries, keys, values side by side.
    pub(in crate::model) qkv: Linear,
    pub(in crate::model) attended: Linear,
    /// Between the two halves.
    pub(in crate::model) norm: LayerNorm,
    pub(in crate::model) up: Linear,
    /// Whether the second half of what `up` gives, which then has no bias, gates the first.
    pub(in crate::model) gated: bool,
    pub(in crate::model) down: Linear,
    /// The norm of the next layer, or the last of all.
    pub(in crate::model) after: LayerNorm,
    /// How far a token sees to either side.
    pub(in crate::model) window: Option<usize>,
    /// Which of the rotations turns its queries and keys.
    pub(in crate::model) rotation: Option<usize>,
}

/// All layers.
#[derive(Debug)]
pub(in crate::model) struct PreNorm {
    pub(in crate::model) precision: Precision,
    pub(in crate::model) hidden: usize,
    pub(in crate::model) heads: usize,
    pub(in crate::model) activation: Activation,
    pub(in crate::model) blocks: Vec<Block>,
    /// Cosines and sines, `[positions, head_dim / 2]` f32.
    pub(in crate::model) rotations: Vec<(Vec<f32>, Vec<f32>)>,
}

impl PreNorm {
    /// The normalised states of sequences laid end to end, and where each begins. `x` of the workspace holds the states
    /// before the first layer, `[tokens, hidden]`, `y` the same after its norm, `offsets` where sequences begin.
    pub(in crate::model) fn run<'a>(
        &self,
        states: States,
        workspace: &'a mut Workspace,
    ) -> (&'a [f32], &'a [usize]) {
        let Workspace { x, y, z, wide, gated, offsets, scratch, rows } = workspace;
        let mut size = x.len();
        for (number, block) in self.blocks.iter().enumerate() {
            let first = states == States::First && number + 1 == self.blocks.len();
            let qkv = block.qkv.product(&y[..size], wide, rows);
            let rotation = block.rotation.and_then(|number| self.rotations.get(number));
            let shape = Attention {
                bias: &block.qkv.bias,
                offsets,
                heads: self.heads,
                window: block.window,
                rotation: rotation.map(|(cos, sin)| Rotation { cos, sin }),
                queries: if first { 1 } else { usize::MAX },
                distances: None,
            };
            kernels::attention(qkv, &mut y[..size], shape, scratch);
            if first {
                size = keep_first([x, y], offsets, self.hidden);
            }
            let (x, y) = (&mut x[..size], &mut y[..size]);
            let attended = block.attended.product(y, z, rows);
            kernels::add_then_norm(x, attended, &block.attended.bias, block.norm.get(), y);
            let mut up = block.up.product(y, wide, rows);
            if block.gated {
                let width = block.up.outputs() / 2;
                let narrow = kernels::room(gated, up.len() / 2, 0.0);
                self.activation.gate(up, width, narrow);
                up = narrow;
            } else {
                self.activation.apply(up, &block.up.bias);
            }
            let down = block.down.product(up, z, rows);
            kernels::add_then_norm(x, down, &block.down.bias, block.after.get(), y);
        }
        (&y[..size], offsets)
    }

    /// Bytes of the weights.
    pub(in crate::model) fn bytes(&self) -> usize {
        let block = |block: &Block| -> usize {
            [&block.qkv, &block.attended, &block.up, &block.down].map(Linear::bytes).iter().sum()
        };
        let table =
            |(cos, sin): &(Vec<f32>, Vec<f32>)| size_of_val(&cos[..]) + size_of_val(&sin[..]);
        self.blocks.iter().map(block).sum::<usize>()
            + self.rotations.iter().map(table).sum::<usize>()
    }
}

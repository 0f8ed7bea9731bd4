//! `ViT` on the CPU: images laid end to end through the kernels of the text encoders.
//!
//! ```text
//!  [3, side, side] ─► patches [tokens − 1, 3 × patch²] ─► dense ─► class token before, + positions ─► layers ─► [labels]
//! ```
//!
//! Tensor names as in Hugging Face's transformers.

use candle_transformers::models::vit::Config;

use crate::model::encoder::{
    Activation, Block, LayerNorm, Linear, PreNorm, Precision, States, Workspace,
};
use crate::model::files::Error;
use crate::model::kernels;
use crate::model::weights::Weights;

/// An encoder with its classifier.
#[derive(Debug)]
pub(super) struct Vit {
    side: usize,
    patch: usize,
    /// `[3 × patch², hidden]`, without its bias; in f32, it is a hundredth of the work.
    projection: Linear,
    /// `[tokens, hidden]`: positions, the class token added to the first, the projection's bias to the others.
    positions: Vec<f32>,
    before: LayerNorm,
    layers: PreNorm,
    classifier: Linear,
}

impl Vit {
    /// Builds it from a checkpoint's tensors.
    ///
    /// # Errors
    ///
    /// What is missing or has another shape.
    pub(super) fn new(
        config: &Config,
        labels: usize,
        weights: &Weights,
        precision: Precision,
    ) -> Result<Self, Error> {
        let (hidden, wide, patch) =
            (config.hidden_size, config.intermediate_size, config.patch_size);
        let norm = |name: &str| {
            LayerNorm::new(weights, &format!("vit.{name}"), hidden, true, config.layer_norm_eps)
        };
        let block = |number: usize| -> Result<Block, Error> {
            let name = |part: &str| format!("vit.encoder.layer.{number}.{part}");
            let dense = |part: &str, inputs, outputs| {
                weights.linear(&[&name(part)], (inputs, outputs), precision)
            };
            let qkv =
                ["query", "key", "value"].map(|part| name(&format!("attention.attention.{part}")));
            let after = if number + 1 == config.num_hidden_layers {
                norm("layernorm")?
            } else {
                norm(&format!("encoder.layer.{}.layernorm_before", number + 1))?
            };
            Ok(Block {
                qkv: weights.dense(
                    &qkv.each_ref().map(String::as_str),
                    (hidden, hidden),
                    config.qkv_bias,
                    precision,
                )?,
                attended: dense("attention.output.dense", hidden, hidden)?,
                norm: norm(&format!("encoder.layer.{number}.layernorm_after"))?,
                up: dense("intermediate.dense", hidden, wide)?,
                gated: false,
                down: dense("output.dense", wide, hidden)?,
                after,
                window: None,
                rotation: None,
            })
        };
        let tokens = (config.image_size / patch).pow(2) + 1;
        let embedding =
            |name: &str, shape: &[usize]| weights.take(&format!("vit.embeddings.{name}"), shape);
        let projection = "patch_embeddings.projection";
        let kernel = embedding(&format!("{projection}.weight"), &[hidden, 3, patch, patch])?;
        let bias = embedding(&format!("{projection}.bias"), &[hidden])?;
        let class = embedding("cls_token", &[1, 1, hidden])?;
        let mut positions = embedding("position_embeddings", &[1, tokens, hidden])?;
        for (token, position) in positions.chunks_exact_mut(hidden).enumerate() {
            let added = if token == 0 { &class } else { &bias };
            position.iter_mut().zip(added).for_each(|(value, added)| *value += added);
        }
        let inputs = 3 * patch * patch;
        Ok(Self {
            side: config.image_size,
            patch,
            projection: Linear::new(&kernel, vec![0.0; hidden], inputs, Precision::F32),
            positions,
            before: norm("encoder.layer.0.layernorm_before")?,
            layers: PreNorm {
                precision,
                hidden,
                heads: config.num_attention_heads,
                activation: Activation::Gelu,
                blocks: (0..config.num_hidden_layers).map(block).collect::<Result<_, _>>()?,
                rotations: Vec::new(),
            },
            classifier: weights.linear(&["classifier"], (hidden, labels), Precision::F32)?,
        })
    }

    /// The classifier's output for images `[images, 3, side, side]` f32: `[images, labels]` f32. An image's row does not
    /// depend on the others.
    pub(super) fn logits(&self, images: &[f32]) -> Vec<f32> {
        let hidden = self.layers.hidden;
        Workspace::with(|workspace| {
            let Workspace { x, y, z, gated, offsets, rows, .. } = &mut *workspace;
            gated.clear();
            images
                .chunks_exact(3 * self.side * self.side)
                .for_each(|image| self.patches(image, gated));
            let patches = self.projection.product(gated, z, rows);
            x.clear();
            offsets.clear();
            offsets.push(0);
            let (class, others) = self.positions.split_at(hidden);
            for image in patches.chunks_exact(others.len()) {
                x.extend_from_slice(class);
                x.extend(image.iter().zip(others).map(|(patch, position)| patch + position));
                offsets.push(x.len() / hidden);
            }
            y.clear();
            y.extend_from_slice(x);
            kernels::norm(y, self.before.get());
            let (first, _) = self.layers.run(States::First, workspace);
            self.classifier.forward(first)
        })
    }

    /// Appends an image's patches, row by row of them: of each its three channels, row by row.
    fn patches(&self, image: &[f32], out: &mut Vec<f32>) {
        let Self { side, patch, .. } = *self;
        for top in (0..side).step_by(patch) {
            for left in (0..side).step_by(patch) {
                for channel in image.chunks_exact(side * side) {
                    for row in channel[top * side..(top + patch) * side].chunks_exact(side) {
                        out.extend_from_slice(&row[left..left + patch]);
                    }
                }
            }
        }
    }

    /// Bytes of the weights.
    pub(super) fn bytes(&self) -> u64 {
        let tables = size_of_val(&self.positions[..]);
        let bytes =
            tables + self.projection.bytes() + self.layers.bytes() + self.classifier.bytes();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

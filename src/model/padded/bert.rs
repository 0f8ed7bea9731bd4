//! The BERT family as in [`encoder`], padded.

use candle_core::{Result, Tensor};

use super::Batch;
use super::layers::{Linear, Loader, Norm, attention};
use crate::model::artifact::Error;
use crate::model::encoder;

#[derive(Debug)]
struct Layer {
    qkv: Linear,
    attended: Linear,
    attended_norm: Norm,
    up: Linear,
    down: Linear,
    norm: Norm,
}

/// An encoder on a device.
#[derive(Debug)]
pub(super) struct Bert {
    heads: usize,
    /// Where positions begin.
    first: usize,
    /// `[vocab, hidden]`.
    words: Tensor,
    /// `[positions, hidden]`, the vector of token type 0 already added.
    positions: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
}

/// Loads it by the names of [`encoder`].
pub(super) fn load(
    config: &encoder::Config,
    loader: &Loader<'_>,
) -> std::result::Result<Bert, Error> {
    let family = config.family()?;
    let weights = loader.weights();
    let (hidden, wide, heads) =
        (config.hidden_size, config.intermediate_size, config.num_attention_heads);
    let names = encoder::Names::new(config, family, weights);
    #[expect(clippy::cast_possible_truncation, reason = "1e-12 is a normal f32")]
    let eps = config.layer_norm_eps as f32;
    let norm = |name: &str| loader.norm(name, hidden, eps, true);
    let (words, positions) = names.tables(config, weights)?;
    let layer = |number| {
        let name = |bert: &str, distil: &str| names.layer(number, bert, distil);
        let linear = |bert: &str, distil: &str, inputs, outputs| {
            loader.linear(&name(bert, distil), (inputs, outputs), true)
        };
        let parts = [
            name("attention.self.query", "attention.q_lin"),
            name("attention.self.key", "attention.k_lin"),
            name("attention.self.value", "attention.v_lin"),
        ];
        Ok(Layer {
            qkv: loader.qkv(&parts, (hidden, heads), true)?,
            attended: linear("attention.output.dense", "attention.out_lin", hidden, hidden)?,
            attended_norm: norm(&name("attention.output.LayerNorm", "sa_layer_norm"))?,
            up: linear("intermediate.dense", "ffn.lin1", hidden, wide)?,
            down: linear("output.dense", "ffn.lin2", wide, hidden)?,
            norm: norm(&name("output.LayerNorm", "output_layer_norm"))?,
        })
    };
    Ok(Bert {
        heads,
        first: config.first_position(family),
        words: loader.put("word_embeddings", words, &[config.vocab_size, hidden])?,
        positions: loader.put(
            "position_embeddings",
            positions,
            &[config.max_position_embeddings, hidden],
        )?,
        norm: norm(&names.embedding("LayerNorm"))?,
        layers: (0..config.num_hidden_layers)
            .map(layer)
            .collect::<std::result::Result<_, Error>>()?,
    })
}

impl Bert {
    /// The last hidden states, `[rows × longest, hidden]`.
    pub(super) fn forward(&self, batch: &Batch) -> Result<Tensor> {
        let mask = batch.mask(self.words.dtype())?;
        let mut x = self.norm.forward(&self.embed(batch)?)?;
        for layer in &self.layers {
            let attended =
                attention(&layer.qkv.forward(&x)?, batch, self.heads, mask.as_ref(), None)?;
            x = layer.attended_norm.forward(&(layer.attended.forward(&attended)? + x)?)?;
            let wide = layer.up.forward(&x)?.gelu_erf()?;
            x = layer.norm.forward(&(layer.down.forward(&wide)? + x)?)?;
        }
        Ok(x)
    }

    /// Word vectors plus positions.
    fn embed(&self, batch: &Batch) -> Result<Tensor> {
        let words = self.words.index_select(&batch.ids, 0)?;
        match &batch.positions {
            Some(positions) => words + self.positions.index_select(positions, 0)?,
            None => {
                let (area, hidden) = words.dims2()?;
                let positions = self.positions.narrow(0, self.first, batch.longest)?;
                words
                    .reshape((batch.rows, batch.longest, hidden))?
                    .broadcast_add(&positions)?
                    .reshape((area, hidden))
            }
        }
    }
}

//! The BERT family as in [`encoder`], padded.

use candle_core::{DType, Result, Tensor};

use super::batch::Batch;
use super::layers::{Linear, Loader, Norm, attention};
use crate::model::encoder::{self, Activation, REACH, Take};
use crate::model::files::Error;

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
    /// `[types × positions, hidden]`, the vector of the type already added to each position's.
    positions: Tensor,
    norm: Norm,
    /// What attention gains by distance, `[heads, 2 × REACH + 1]`.
    distances: Option<Tensor>,
    activation: Activation,
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
    let names = encoder::Names::new(family, weights);
    #[expect(clippy::cast_possible_truncation, reason = "1e-12 is a normal f32")]
    let eps = config.layer_norm_eps as f32;
    let norm = |name: &str| loader.norm(name, hidden, eps, true);
    let [words, positions, types] = names.tables(config, weights)?;
    let typed = types.chunks_exact(hidden).flat_map(|kind| {
        let kind = kind.iter().cycle();
        positions.iter().zip(kind).map(|(position, kind)| position + kind)
    });
    let typed: Vec<f32> = typed.collect();
    let layer = |number| {
        let name = |part: &str| names.layer(number, part);
        let linear =
            |part: &str, inputs, outputs| loader.linear(&name(part), (inputs, outputs), true);
        let parts = &names.parts;
        Ok(Layer {
            qkv: loader.qkv(&parts.qkv.map(name), (hidden, heads), true)?,
            attended: linear(parts.attended, hidden, hidden)?,
            attended_norm: norm(&name(parts.attended_norm))?,
            up: linear(parts.up, hidden, wide)?,
            down: linear(parts.down, wide, hidden)?,
            norm: norm(&name(parts.norm))?,
        })
    };
    let distances = names.distances(config, weights)?;
    let distances = distances
        .map(|table| loader.put("relative_attention_bias", table, &[heads, 2 * REACH + 1]))
        .transpose()?;
    Ok(Bert {
        heads,
        distances,
        activation: config.activation()?,
        first: config.first_position(family),
        words: loader.put("word_embeddings", words, &[config.vocab_size, hidden])?,
        positions: loader.put(
            "position_embeddings",
            typed,
            &[types.len() / hidden * config.max_position_embeddings, hidden],
        )?,
        norm: norm(&names.embedding("LayerNorm"))?,
        layers: (0..config.num_hidden_layers)
            .map(layer)
            .collect::<std::result::Result<_, Error>>()?,
    })
}

impl Bert {
    /// The last hidden states, `[rows × longest, hidden]`; under [`Take::First`] `[rows, hidden]`.
    pub(super) fn forward(&self, batch: &Batch, take: Take) -> Result<Tensor> {
        let mask = match (&self.distances, batch.mask(self.words.dtype())?) {
            (None, mask) => mask,
            (Some(table), mask) => Some(self.by_distance(table, mask.as_ref(), batch)?),
        };
        let mut x = self.norm.forward(&self.embed(batch)?)?;
        for (number, layer) in self.layers.iter().enumerate() {
            let mut attended =
                attention(&layer.qkv.forward(&x)?, batch, self.heads, mask.as_ref(), None)?;
            if number + 1 == self.layers.len() {
                (attended, x) = (batch.asked(attended, take)?, batch.asked(x, take)?);
            }
            x = layer.attended_norm.forward(&(layer.attended.forward(&attended)? + x)?)?;
            let wide = self.activation.tensor(&layer.up.forward(&x)?)?;
            x = layer.norm.forward(&(layer.down.forward(&wide)? + x)?)?;
        }
        Ok(x)
    }

    /// What is added to the scores of `MPNet`: `[1 or rows, heads, longest, longest]`.
    fn by_distance(&self, table: &Tensor, mask: Option<&Tensor>, batch: &Batch) -> Result<Tensor> {
        let steps = batch.steps.to_dtype(DType::F32)?;
        let reach = f64::from(u32::try_from(REACH).unwrap_or(u32::MAX));
        let place = (steps.broadcast_sub(&steps.t()?)?.clamp(-reach, reach)? + reach)?;
        let place = place.to_dtype(DType::U32)?.flatten_all()?;
        let shape = (1, self.heads, batch.longest, batch.longest);
        let bias = table.index_select(&place, 1)?.reshape(shape)?;
        mask.map_or_else(|| Ok(bias.clone()), |mask| bias.broadcast_add(mask))
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

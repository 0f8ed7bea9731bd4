//! `ModernBERT` as in [`encoder::modernbert`](crate::model::encoder::modernbert), padded. Our own forward rather than
//! candle-transformers': that one adds an f32 mask, so it has neither bf16 nor f16; counts positions in the weights'
//! dtype, so that bf16 would confuse those above 256; uploads the window's mask at each call; and takes a missing norm
//! for one that should be missing.

use candle_core::{DType, Result, Tensor};

use super::batch::{Batch, additive};
use super::layers::{Linear, Loader, Norm, Rotation, attention};
use crate::model::encoder::modernbert::{Config, Reach, rotations};
use crate::model::encoder::{Activation, Take};
use crate::model::files::Error;

#[derive(Debug)]
struct Layer {
    reach: Reach,
    /// None in the first layer: the embedding's norm stands before it.
    before: Option<Norm>,
    qkv: Linear,
    attended: Linear,
    norm: Norm,
    /// What is activated and its gate, side by side.
    up: Linear,
    down: Linear,
}

/// An encoder on a device.
#[derive(Debug)]
pub(super) struct ModernBert {
    heads: usize,
    wide: usize,
    window: usize,
    activation: Activation,
    /// `[vocab, hidden]`.
    words: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
    last: Norm,
    /// Rotations for full attention and for windows: cosines and sines `[longest, hidden / heads / 2]`.
    tables: [(Tensor, Tensor); 2],
}

/// Loads it by transformers' names, with or without the prefix of a model with a head.
pub(super) fn load(config: &Config, loader: &Loader<'_>) -> std::result::Result<ModernBert, Error> {
    let (hidden, heads, wide) = (config.hidden(), config.heads(), config.wide());
    let prefix = Config::prefix(loader.weights());
    #[expect(clippy::cast_possible_truncation, reason = "1e-5 is a normal f32")]
    let eps = config.eps() as f32;
    let norm = |name: &str| loader.norm(&format!("{prefix}{name}"), hidden, eps, false);
    let words = format!("{prefix}embeddings.tok_embeddings.weight");
    let shape = [config.vocab(), hidden];
    let layer = |(number, reach): (usize, Reach)| {
        let name = |name: &str| format!("{prefix}layers.{number}.{name}");
        let linear =
            |layer: &str, inputs, outputs| loader.linear(&name(layer), (inputs, outputs), false);
        let norm = |layer: &str| norm(&format!("layers.{number}.{layer}"));
        Ok(Layer {
            reach,
            before: (number != 0).then(|| norm("attn_norm")).transpose()?,
            qkv: loader.qkv(&[name("attn.Wqkv")], (hidden, heads), false)?,
            attended: linear("attn.Wo", hidden, hidden)?,
            norm: norm("mlp_norm")?,
            up: linear("mlp.Wi", hidden, 2 * wide)?,
            down: linear("mlp.Wo", wide, hidden)?,
        })
    };
    let table = |reach| {
        let (cos, sin) = rotations(hidden / heads, config.positions(), config.theta(reach));
        let shape = [config.positions(), hidden / heads / 2];
        Ok::<_, Error>((loader.put("cos", cos, &shape)?, loader.put("sin", sin, &shape)?))
    };
    let layers = config.reaches()?.into_iter().enumerate().map(layer);
    Ok(ModernBert {
        heads,
        wide,
        window: config.window(),
        activation: config.activation()?,
        words: loader.put(&words, loader.weights().take(&words, &shape)?, &shape)?,
        norm: norm("embeddings.norm")?,
        layers: layers.collect::<std::result::Result<_, Error>>()?,
        last: norm("final_norm")?,
        tables: [table(Reach::Full)?, table(Reach::Window)?],
    })
}

impl ModernBert {
    /// The last hidden states, `[rows × longest, hidden]`; under [`Take::First`] `[rows, hidden]`.
    pub(super) fn forward(&self, batch: &Batch, take: Take) -> Result<Tensor> {
        let mask = batch.mask(self.words.dtype())?;
        let narrow = self.narrow(batch)?;
        let rotation = |(cos, sin): &(Tensor, Tensor)| {
            let part = |table: &Tensor| table.narrow(0, 0, batch.longest);
            Ok::<_, candle_core::Error>(Rotation { cos: part(cos)?, sin: part(sin)? })
        };
        let [full, window] = self.tables.each_ref().map(rotation);
        let (full, window) = ((mask.as_ref(), full?), (narrow.as_ref().or(mask.as_ref()), window?));
        let mut x = self.norm.forward(&self.words.index_select(&batch.ids, 0)?)?;
        for (number, layer) in self.layers.iter().enumerate() {
            let (mask, rotation) = match layer.reach {
                Reach::Full => &full,
                Reach::Window => &window,
            };
            let normed = match &layer.before {
                Some(norm) => norm.forward(&x)?,
                None => x.clone(),
            };
            let qkv = layer.qkv.forward(&normed)?;
            let mut attended = attention(&qkv, batch, self.heads, *mask, Some(rotation))?;
            if number + 1 == self.layers.len() {
                (attended, x) = (batch.asked(attended, take)?, batch.asked(x, take)?);
            }
            x = (layer.attended.forward(&attended)? + x)?;
            let wide = layer.up.forward(&layer.norm.forward(&x)?)?;
            let gate = wide.narrow(1, self.wide, self.wide)?;
            let wide = (self.activation.tensor(&wide.narrow(1, 0, self.wide)?)? * gate)?;
            x = (layer.down.forward(&wide)? + x)?;
        }
        self.last.forward(&x)
    }

    /// The mask of layers with a window, `[1 or rows, 1, longest, longest]`; `None` where every window holds
    /// everything. Made on the device, once a call.
    fn narrow(&self, batch: &Batch) -> Result<Option<Tensor>> {
        if batch.longest <= self.window + 1 {
            return Ok(None);
        }
        let steps = batch.steps.to_dtype(DType::F32)?;
        let distance = steps.t()?.broadcast_sub(&steps)?.abs()?;
        let reach = f64::from(u32::try_from(self.window).unwrap_or(u32::MAX));
        let mut near = distance.le(reach)?.to_dtype(DType::F32)?.unsqueeze(0)?.unsqueeze(0)?;
        if let Some(kept) = &batch.kept {
            near = near.broadcast_mul(&kept.reshape((batch.rows, 1, 1, batch.longest))?)?;
        }
        additive(&near, self.words.dtype()).map(Some)
    }
}

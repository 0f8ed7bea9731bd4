//! Encoders of the BERT family, our own forward on weights that Candle loads.
//!
//! ```text
//!  ids ─► word + position + type ─► norm ─► ┌ qkv ─► attention ─► dense ─► + ─► norm ┐ ─► [tokens, hidden]
//!                                           └ dense ─► gelu ─► dense ─► + ─► norm ───┘ × layers
//! ```
//!
//! Sequences are laid end to end without padding: `[tokens, hidden]`, and only attention knows where one ends.
//! Queries, keys and values are one product; bias, GELU, residual and norm are fused into the passes that read
//! the data anyway. All buffers live in a thread's [`Workspace`] and are reused.
//!
//! Devlin et al. 2019 (BERT); Sanh et al. 2019 (`DistilBERT`); Liu et al. 2019 (`RoBERTa`); Song et al. 2020 (`MPNet`).
//! Tensor names as in Hugging Face's transformers.

use super::files::Error;
use super::kernels::{self, Attention};
use super::weights::Weights;

mod activation;
mod config;
mod layers;
pub mod modernbert;
mod names;
mod packed;
mod prenorm;

pub use super::kernels::Precision;
pub use activation::Activation;
pub use config::{Config, Family};
pub(super) use layers::LayerNorm;
pub use layers::{Linear, Workspace};
pub(super) use names::{Names, REACH};
pub use packed::{Packed, States, TYPED, Take};
pub(super) use prenorm::{Block, PreNorm};

use layers::{keep_first, lay};

#[derive(Debug)]
struct Layer {
    /// `[hidden, 3 × hidden]`: queries, keys, values side by side.
    qkv: Linear,
    attended: Linear,
    attended_norm: LayerNorm,
    up: Linear,
    down: Linear,
    norm: LayerNorm,
}

/// An encoder of the BERT family.
#[derive(Debug)]
pub struct Encoder {
    precision: Precision,
    hidden: usize,
    heads: usize,
    vocab: usize,
    /// `[vocab, hidden]`.
    words: Vec<f32>,
    /// `[positions, hidden]`.
    positions: Vec<f32>,
    /// `[types, hidden]`.
    types: Vec<f32>,
    /// `RoBERTa` counts positions from behind this id, and gives the id itself its own position.
    padding: Option<u32>,
    /// What attention gains by distance, `[heads, 2 × REACH + 1]`, the same in all layers.
    distances: Option<Vec<f32>>,
    norm: LayerNorm,
    activation: Activation,
    layers: Vec<Layer>,
}

impl Encoder {
    /// Builds it from a checkpoint's tensors.
    ///
    /// # Errors
    ///
    /// What is missing or has another shape.
    pub fn new(config: &Config, weights: &Weights, precision: Precision) -> Result<Self, Error> {
        let family = config.family()?;
        let hidden = config.hidden_size;
        let names = Names::new(family, weights);
        let eps = config.layer_norm_eps;
        let norm = |name: String| LayerNorm::new(weights, &name, hidden, true, eps);
        let [words, positions, types] = names.tables(config, weights)?;
        let layer = |number| {
            let name = |part: &str| names.layer(number, part);
            let linear = |part, inputs, outputs| {
                weights.linear(&[&name(part)], (inputs, outputs), precision)
            };
            let parts = names.parts.qkv.map(name);
            let wide = config.intermediate_size;
            Ok(Layer {
                qkv: weights.linear(
                    &parts.each_ref().map(String::as_str),
                    (hidden, hidden),
                    precision,
                )?,
                attended: linear(names.parts.attended, hidden, hidden)?,
                attended_norm: norm(name(names.parts.attended_norm))?,
                up: linear(names.parts.up, hidden, wide)?,
                down: linear(names.parts.down, wide, hidden)?,
                norm: norm(name(names.parts.norm))?,
            })
        };
        Ok(Self {
            precision,
            hidden,
            heads: config.num_attention_heads,
            vocab: config.vocab_size,
            words,
            positions,
            types,
            padding: u32::try_from(config.first_position(family))
                .ok()
                .and_then(|first| first.checked_sub(1)),
            distances: names.distances(config, weights)?,
            norm: norm(names.embedding("LayerNorm"))?,
            activation: config.activation()?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_, Error>>()?,
        })
    }

    /// Word vectors plus positions, normalised.
    fn embed(
        &self,
        sequences: &[&[u32]],
        x: &mut Vec<f32>,
        y: &mut Vec<f32>,
        offsets: &mut Vec<usize>,
    ) {
        let hidden = self.hidden;
        x.clear();
        y.clear();
        lay(sequences, offsets);
        for sequence in sequences {
            let mut next =
                self.padding.map_or(0, |padding| usize::try_from(padding).unwrap_or(0) + 1);
            for id in *sequence {
                let kind = if *id < TYPED { 0 } else { self.types.len() - hidden };
                let id = *id & !TYPED;
                let word = usize::try_from(id).unwrap_or(0).min(self.vocab - 1) * hidden;
                x.extend_from_slice(&self.words[word..word + hidden]);
                let position = match self.padding {
                    Some(padding) if padding == id => word,
                    _ => {
                        next += 1;
                        (next - 1) * hidden
                    }
                };
                let position = &self.positions[position..position + hidden];
                let kind = &self.types[kind..kind + hidden];
                y.extend(position.iter().zip(kind).map(|(position, kind)| position + kind));
            }
        }
        // The kernel adds a bias too: there is none here.
        let none = vec![0.0; hidden];
        kernels::add_norm(x, y, &none, self.norm.get());
    }
}

impl Packed for Encoder {
    fn precision(&self) -> Precision {
        self.precision
    }

    fn hidden(&self) -> usize {
        self.hidden
    }

    fn knows(&self, id: u32) -> bool {
        let typed = id < TYPED || self.hidden < self.types.len();
        typed && usize::try_from(id & !TYPED).is_ok_and(|id| id < self.vocab)
    }

    fn bytes(&self) -> u64 {
        let layer = |layer: &Layer| -> usize {
            [&layer.qkv, &layer.attended, &layer.up, &layer.down].map(Linear::bytes).iter().sum()
        };
        let tables =
            [&self.words, &self.positions, &self.types].map(|table| size_of_val(&table[..]));
        let bytes = tables.iter().sum::<usize>() + self.layers.iter().map(layer).sum::<usize>();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn forward<'a>(
        &self,
        sequences: &[&[u32]],
        states: States,
        workspace: &'a mut Workspace,
    ) -> (&'a [f32], &'a [usize]) {
        let Workspace { x, y, z, wide, offsets, scratch, rows, .. } = workspace;
        self.embed(sequences, x, y, offsets);
        let mut size = x.len();
        for (number, layer) in self.layers.iter().enumerate() {
            let first = states == States::First && number + 1 == self.layers.len();
            let qkv = layer.qkv.product(&x[..size], wide, rows);
            let bias = &layer.qkv.bias;
            let shape = Attention {
                bias,
                offsets,
                heads: self.heads,
                window: None,
                rotation: None,
                queries: if first { 1 } else { usize::MAX },
                distances: self.distances.as_deref(),
            };
            kernels::attention(qkv, kernels::room(y, size, 0.0), shape, scratch);
            if first {
                size = keep_first([x, y], offsets, self.hidden);
            }
            let attended = layer.attended.product(&y[..size], z, rows);
            kernels::add_norm(
                attended,
                &x[..size],
                &layer.attended.bias,
                layer.attended_norm.get(),
            );
            let up = layer.up.product(attended, wide, rows);
            self.activation.apply(up, &layer.up.bias);
            let down = layer.down.product(up, y, rows);
            kernels::add_norm(down, attended, &layer.down.bias, layer.norm.get());
            std::mem::swap(x, y);
        }
        (&x[..size], offsets)
    }
}

//! `ModernBERT`: rotary positions, windows of attention in most layers, norms before what they feed, gated GELU.
//!
//! Warner et al. 2024. Our own forward rather than candle-transformers': that one adds an f32 mask, so it has neither
//! bf16 nor f16; counts positions in the weights' dtype, so that bf16 would confuse those above 256; uploads the
//! window's mask at each call; and takes a missing norm for one that should be missing.

use candle_core::{DType, Result, Tensor};
use serde::Deserialize;

use super::layers::{Linear, Loader, Norm, Rotation, additive, attention};
use super::{Batch, Shape};
use crate::model::artifact::{self, Error};
use crate::model::kernels::{self, Dense};
use crate::model::text::Take;
use crate::model::weights::Weights;

/// `config.json`, in the form of transformers 4 (`global_attn_every_n_layers`, `global_rope_theta`) or 5
/// (`layer_types`, `rope_parameters`).
#[derive(Debug, Clone, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "as transformers writes them; none may be set")]
pub struct Config {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    norm_eps: Option<f64>,
    layer_norm_eps: Option<f64>,
    hidden_activation: Option<String>,
    classifier_activation: Option<String>,
    classifier_pooling: Option<String>,
    local_attention: Option<usize>,
    layer_types: Option<Vec<String>>,
    global_attn_every_n_layers: Option<usize>,
    rope_parameters: Option<Ropes>,
    rope_scaling: Option<serde_json::Value>,
    global_rope_theta: Option<f64>,
    local_rope_theta: Option<f64>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    norm_bias: bool,
    #[serde(default)]
    classifier_bias: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Ropes {
    full_attention: Option<Rope>,
    sliding_attention: Option<Rope>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Rope {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
}

/// How far a layer looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Over the whole sequence.
    Full,
    /// Over half a window to either side.
    Window,
}

impl Config {
    /// Width of a token's vector.
    pub fn hidden(&self) -> usize {
        self.hidden_size
    }

    /// Longest sequence in tokens.
    pub fn longest(&self) -> usize {
        self.max_position_embeddings.max(2)
    }

    /// Checks everything that the forward relies on.
    pub(super) fn shape(&self) -> std::result::Result<Shape, Error> {
        let fail = |message: String| Err(Error::config("config.json", message));
        artifact::bounded(&[
            ("hidden_size", self.hidden_size, 16_384),
            ("num_hidden_layers", self.num_hidden_layers, 256),
            ("num_attention_heads", self.num_attention_heads, 1_024),
            ("intermediate_size", self.intermediate_size, 65_536),
            ("vocab_size", self.vocab_size, 4_000_000),
            ("max_position_embeddings", self.max_position_embeddings, 1_000_000),
            ("local_attention", self.window() * 2, 1_000_000),
        ])?;
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        if hidden % (2 * heads) != 0 {
            return fail(format!(
                "hidden_size {hidden} does not divide into {heads} heads of even width"
            ));
        }
        for activation in [&self.hidden_activation, &self.classifier_activation] {
            if let Some(other) = activation.as_deref().filter(|name| *name != "gelu") {
                return fail(format!("activation {other:?}; only gelu is supported"));
            }
        }
        for (name, set) in [
            ("attention_bias", self.attention_bias),
            ("mlp_bias", self.mlp_bias),
            ("norm_bias", self.norm_bias),
            ("classifier_bias", self.classifier_bias),
        ] {
            if set {
                return fail(format!("{name}: true is not supported"));
            }
        }
        let ropes = self.rope_parameters.clone().unwrap_or_default();
        let kinds = [&ropes.full_attention, &ropes.sliding_attention];
        let kinds = kinds.into_iter().flatten().filter_map(|rope| rope.rope_type.as_deref());
        if let Some(other) = kinds.into_iter().find(|kind| *kind != "default") {
            return fail(format!("rope_type {other:?}; only default is supported"));
        }
        if self.rope_scaling.as_ref().is_some_and(|scaling| !scaling.is_null()) {
            return fail("rope_scaling is not supported".to_owned());
        }
        let (full, local) = (self.theta(Reach::Full), self.theta(Reach::Window));
        if !(full.is_finite() && full > 1.0 && local.is_finite() && local > 1.0) {
            return fail(format!("rope_theta is {full} and {local}: numbers above 1 are wanted"));
        }
        self.take()?;
        self.reaches()?;
        let longest = self.max_position_embeddings;
        Ok(Shape { hidden, vocab: self.vocab_size, longest, padding: None })
    }

    /// Tokens that a layer with a window sees to either side.
    fn window(&self) -> usize {
        self.local_attention.unwrap_or(128) / 2
    }

    #[expect(clippy::cast_possible_truncation, reason = "1e-5 is a normal f32")]
    fn eps(&self) -> f32 {
        self.norm_eps.or(self.layer_norm_eps).unwrap_or(1e-5) as f32
    }

    fn theta(&self, reach: Reach) -> f64 {
        let ropes = self.rope_parameters.as_ref();
        let rope = match reach {
            Reach::Full => ropes.and_then(|ropes| ropes.full_attention.as_ref()),
            Reach::Window => ropes.and_then(|ropes| ropes.sliding_attention.as_ref()),
        };
        let (older, default) = match reach {
            Reach::Full => (self.global_rope_theta, 160_000.0),
            Reach::Window => (self.local_rope_theta, 10_000.0),
        };
        rope.and_then(|rope| rope.rope_theta).or(older).unwrap_or(default)
    }

    /// By layer.
    fn reaches(&self) -> std::result::Result<Vec<Reach>, Error> {
        let fail = |message: String| Err(Error::config("config.json", message));
        let count = self.num_hidden_layers;
        let Some(types) = &self.layer_types else {
            let every = self.global_attn_every_n_layers.unwrap_or(3).max(1);
            let reach = |number: usize| {
                if number.is_multiple_of(every) { Reach::Full } else { Reach::Window }
            };
            return Ok((0..count).map(reach).collect());
        };
        if types.len() != count {
            return fail(format!("{} layer_types for {count} layers", types.len()));
        }
        let reach = |name: &String| match name.as_str() {
            "full_attention" => Ok(Reach::Full),
            "sliding_attention" => Ok(Reach::Window),
            other => {
                let known = "full_attention, sliding_attention";
                let message = format!("layer type {other:?} is none of {known}");
                Err(Error::config("config.json", message))
            }
        };
        types.iter().map(reach).collect()
    }

    /// What a sequence classifier takes of the states, before its [`Head`].
    ///
    /// # Errors
    ///
    /// A `classifier_pooling` other than `cls` and `mean`.
    pub fn take(&self) -> std::result::Result<Take, Error> {
        match self.classifier_pooling.as_deref() {
            None | Some("cls") => Ok(Take::First),
            Some("mean") => Ok(Take::Mean),
            Some(other) => Err(Error::config(
                "config.json",
                format!("classifier_pooling {other:?} is none of cls, mean"),
            )),
        }
    }
}

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
    let (hidden, heads, wide) =
        (config.hidden_size, config.num_attention_heads, config.intermediate_size);
    let prefixed = loader.weights().shape("model.embeddings.tok_embeddings.weight").is_some();
    let prefix = if prefixed { "model." } else { "" };
    let norm = |name: &str| loader.norm(&format!("{prefix}{name}"), hidden, config.eps(), false);
    let words = format!("{prefix}embeddings.tok_embeddings.weight");
    let shape = [config.vocab_size, hidden];
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
        let (cos, sin) =
            rotations(hidden / heads, config.max_position_embeddings, config.theta(reach));
        let shape = [config.max_position_embeddings, hidden / heads / 2];
        Ok((loader.put("cos", cos, &shape)?, loader.put("sin", sin, &shape)?))
    };
    let layers = config.reaches()?.into_iter().enumerate().map(layer);
    Ok(ModernBert {
        heads,
        wide,
        window: config.window(),
        words: loader.put(&words, loader.weights().take(&words, &shape)?, &shape)?,
        norm: norm("embeddings.norm")?,
        layers: layers.collect::<std::result::Result<_, Error>>()?,
        last: norm("final_norm")?,
        tables: [table(Reach::Full)?, table(Reach::Window)?],
    })
}

/// Cosines and sines of position × θ^(−2i / width), `[longest, width / 2]`: computed in f32, whatever the weights are.
/// Su et al. 2021.
fn rotations(width: usize, longest: usize, theta: f64) -> (Vec<f32>, Vec<f32>) {
    let small = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    #[expect(
        clippy::cast_possible_truncation,
        reason = "between 0 and 1; rounded, as transformers does"
    )]
    let frequencies: Vec<f32> =
        (0..width / 2).map(|pair| theta.powf(-2.0 * small(pair) / small(width)) as f32).collect();
    let (mut cos, mut sin) = (Vec::new(), Vec::new());
    for position in 0..longest {
        #[expect(clippy::cast_possible_truncation, reason = "positions are below 2^24")]
        let position = small(position) as f32;
        cos.extend(frequencies.iter().map(|frequency| (position * frequency).cos()));
        sin.extend(frequencies.iter().map(|frequency| (position * frequency).sin()));
    }
    (cos, sin)
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
            let wide = (wide.narrow(1, 0, self.wide)?.gelu_erf()? * gate)?;
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

/// What stands between the states and the classifier of `ModernBertForSequenceClassification` and
/// `…ForTokenClassification`: dense, GELU, norm. On the CPU in f32: a thousandth of the work.
#[derive(Debug)]
pub struct Head {
    dense: Dense,
    gamma: Vec<f32>,
    none: Vec<f32>,
    eps: f32,
}

impl Head {
    /// Loads `head.dense` and `head.norm`.
    ///
    /// # Errors
    ///
    /// What is missing or has another shape.
    pub fn new(config: &Config, weights: &Weights) -> std::result::Result<Self, Error> {
        let hidden = config.hidden_size;
        let dense = weights.take("head.dense.weight", &[hidden, hidden])?;
        Ok(Self {
            dense: Dense::new(&dense, hidden, hidden),
            gamma: weights.take("head.norm.weight", &[hidden])?,
            none: vec![0.0; hidden],
            eps: config.eps(),
        })
    }

    /// `[rows, hidden]` to `[rows, hidden]`, f32; the classifier, a plain dense layer, comes next.
    pub fn forward(&self, rows: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; rows.len()];
        self.dense.product(rows, &mut out);
        kernels::bias_gelu(&mut out, &self.none);
        let residual = vec![0.0; rows.len()];
        let norm = kernels::Norm { gamma: &self.gamma, beta: &self.none, eps: self.eps };
        kernels::add_norm(&mut out, &residual, &self.none, norm);
        out
    }
}

//! What a `ModernBERT` checkpoint says of itself.

use serde::Deserialize;

use crate::model::encoder::activation::Activation;
use crate::model::encoder::packed::Take;
use crate::model::files::{self, Error};
use crate::model::weights::Weights;

/// Most numbers in a table of rotations: 128 MiB, as much as 500,000 positions of heads of 64 take.
const MOST_ROTATIONS: usize = 1 << 25;

/// `config.json`, in the form of transformers 4 (`global_attn_every_n_layers`, `global_rope_theta`) or 5
/// (`layer_types`, `rope_parameters`).
/// What it does not say, or says with null, is what transformers takes for it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Config {
    hidden_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    intermediate_size: Option<usize>,
    vocab_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    norm_eps: Option<f64>,
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
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    norm_bias: Option<bool>,
    classifier_bias: Option<bool>,
    is_causal: Option<bool>,
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
pub(in crate::model) enum Reach {
    /// Over the whole sequence.
    Full,
    /// Over half a window to either side.
    Window,
}

impl Config {
    /// Width of a token's vector.
    pub fn hidden(&self) -> usize {
        self.hidden_size.unwrap_or(768)
    }

    /// Longest sequence in tokens.
    pub fn longest(&self) -> usize {
        self.positions().max(2)
    }

    /// Positions that a token can have.
    pub(in crate::model) fn positions(&self) -> usize {
        self.max_position_embeddings.unwrap_or(8_192)
    }

    /// Heads of attention.
    pub(in crate::model) fn heads(&self) -> usize {
        self.num_attention_heads.unwrap_or(12)
    }

    /// Width between the two dense layers of a block.
    pub(in crate::model) fn wide(&self) -> usize {
        self.intermediate_size.unwrap_or(1_152)
    }

    /// Tokens of the vocabulary.
    pub(in crate::model) fn vocab(&self) -> usize {
        self.vocab_size.unwrap_or(50_368)
    }

    fn layers(&self) -> usize {
        self.num_hidden_layers.unwrap_or(22)
    }

    /// What stands between the two dense layers of a block.
    pub(in crate::model) fn activation(&self) -> Result<Activation, Error> {
        Activation::named("hidden_activation", self.hidden_activation.as_deref())
    }

    /// What stands between a classifier's dense layer and its norm.
    pub(in crate::model) fn head_activation(&self) -> Result<Activation, Error> {
        if self.classifier_bias == Some(true) {
            return Err(Error::config("config.json", "classifier_bias: true is not supported"));
        }
        Activation::named("classifier_activation", self.classifier_activation.as_deref())
    }

    /// Checks everything that the forward relies on.
    ///
    /// # Errors
    ///
    /// What is not supported, with what is.
    pub(in crate::model) fn check(&self) -> Result<(), Error> {
        let fail = |message: String| Err(Error::config("config.json", message));
        files::bounded_layers(self.hidden(), self.layers(), self.heads(), self.wide())?;
        files::bounded(&[
            ("vocab_size", self.vocab(), 4_000_000),
            ("max_position_embeddings", self.positions(), 1_000_000),
            ("local_attention", self.window() * 2, 1_000_000),
            ("global_attn_every_n_layers", self.every(), 1_000),
        ])?;
        let (hidden, heads) = (self.hidden(), self.heads());
        // Rotations are computed, not read: no file is as large as they would be.
        if MOST_ROTATIONS < self.positions() * (hidden / heads) {
            return fail(format!(
                "max_position_embeddings is {}: more than {MOST_ROTATIONS} rotations for heads of width {}",
                self.positions(),
                hidden / heads
            ));
        }
        if !(self.eps().is_finite() && 0.0 < self.eps()) {
            return fail(format!("norm_eps is {}", self.eps()));
        }
        if hidden % (2 * heads) != 0 {
            return fail(format!(
                "hidden_size {hidden} does not divide into {heads} heads of even width"
            ));
        }
        self.activation()?;
        for (name, set) in [
            ("attention_bias", self.attention_bias),
            ("mlp_bias", self.mlp_bias),
            ("norm_bias", self.norm_bias),
            ("is_causal", self.is_causal),
        ] {
            if set == Some(true) {
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
        self.reaches().map(|_| ())
    }

    /// Tokens that a layer with a window sees to either side.
    pub(in crate::model) fn window(&self) -> usize {
        self.local_attention.unwrap_or(128) / 2
    }

    /// Each layer of so many looks over the whole sequence, where `layer_types` does not say which.
    fn every(&self) -> usize {
        self.global_attn_every_n_layers.unwrap_or(3)
    }

    /// Added to variances.
    pub(in crate::model) fn eps(&self) -> f64 {
        self.norm_eps.unwrap_or(1e-5)
    }

    /// The base of the rotations.
    pub(in crate::model) fn theta(&self, reach: Reach) -> f64 {
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
    pub(in crate::model) fn reaches(&self) -> Result<Vec<Reach>, Error> {
        let fail = |message: String| Err(Error::config("config.json", message));
        let count = self.layers();
        let Some(types) = &self.layer_types else {
            let every = self.every();
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

    /// What a sequence classifier takes of the states, before its [`Head`](super::Head).
    ///
    /// # Errors
    ///
    /// A `classifier_pooling` other than `cls` and `mean`.
    pub fn take(&self) -> Result<Take, Error> {
        match self.classifier_pooling.as_deref() {
            None | Some("cls") => Ok(Take::First),
            Some("mean") => Ok(Take::Mean),
            Some(other) => Err(Error::config(
                "config.json",
                format!("classifier_pooling {other:?} is none of cls, mean"),
            )),
        }
    }

    /// What stands before the names of the encoder's tensors in a model with a head.
    pub(in crate::model) fn prefix(weights: &Weights) -> &'static str {
        let prefixed = weights.shape("model.embeddings.tok_embeddings.weight").is_some();
        if prefixed { "model." } else { "" }
    }
}

/// Cosines and sines of position × θ^(−2i / width), `[longest, width / 2]`: computed in f32, whatever the weights are.
/// Su et al. 2021.
pub(in crate::model) fn rotations(
    width: usize,
    longest: usize,
    theta: f64,
) -> (Vec<f32>, Vec<f32>) {
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

//! `ModernBERT`, without padding: no biases, rotations for positions, gates, and windows in two layers of three.
//!
//! Warner et al. 2024. Tensor names as in Hugging Face's transformers.

use super::activation::Activation;
use super::layers::{LayerNorm, Workspace, lay};
use super::packed::{Packed, States};
use super::prenorm::{Block, PreNorm};
use crate::model::files::Error;
use crate::model::kernels::{self, Dense, Precision};
use crate::model::weights::Weights;

mod config;

pub use config::Config;
pub(in crate::model) use config::{Reach, rotations};

/// An encoder.
#[derive(Debug)]
pub struct ModernBert {
    vocab: usize,
    /// `[vocab, hidden]`.
    words: Vec<f32>,
    norm: LayerNorm,
    layers: PreNorm,
}

impl ModernBert {
    /// Builds it from a checkpoint's tensors, with or without the prefix of a model with a head.
    ///
    /// # Errors
    ///
    /// What is not supported, is missing or has another shape.
    pub fn new(config: &Config, weights: &Weights, precision: Precision) -> Result<Self, Error> {
        config.check()?;
        let (hidden, wide, heads) = (config.hidden(), config.wide(), config.heads());
        let (vocab, longest) = (config.vocab(), config.positions());
        let prefix = Config::prefix(weights);
        let norm = |name: &str| {
            LayerNorm::new(weights, &format!("{prefix}{name}"), hidden, false, config.eps())
        };
        let reaches = config.reaches()?;
        let block = |(number, reach): (usize, &Reach)| -> Result<Block, Error> {
            let dense = |name: &str, inputs, outputs| {
                let name = format!("{prefix}layers.{number}.{name}");
                weights.dense(&[&name], (inputs, outputs), false, precision)
            };
            let after = if number + 1 == reaches.len() {
                norm("final_norm")?
            } else {
                norm(&format!("layers.{}.attn_norm", number + 1))?
            };
            Ok(Block {
                qkv: dense("attn.Wqkv", hidden, 3 * hidden)?,
                attended: dense("attn.Wo", hidden, hidden)?,
                norm: norm(&format!("layers.{number}.mlp_norm"))?,
                up: dense("mlp.Wi", hidden, 2 * wide)?,
                gated: true,
                down: dense("mlp.Wo", wide, hidden)?,
                after,
                window: (*reach == Reach::Window).then(|| config.window()),
                rotation: Some(usize::from(*reach == Reach::Window)),
            })
        };
        let table = |reach| rotations(hidden / heads, longest, config.theta(reach));
        let words = format!("{prefix}embeddings.tok_embeddings.weight");
        Ok(Self {
            vocab,
            words: weights.take(&words, &[vocab, hidden])?,
            norm: norm("embeddings.norm")?,
            layers: PreNorm {
                precision,
                hidden,
                heads,
                activation: config.activation()?,
                blocks: reaches.iter().enumerate().map(block).collect::<Result<_, _>>()?,
                rotations: vec![table(Reach::Full), table(Reach::Window)],
            },
        })
    }
}

impl Packed for ModernBert {
    fn forward<'a>(
        &self,
        sequences: &[&[u32]],
        states: States,
        workspace: &'a mut Workspace,
    ) -> (&'a [f32], &'a [usize]) {
        let Workspace { x, y, offsets, .. } = workspace;
        x.clear();
        y.clear();
        lay(sequences, offsets);
        let hidden = self.layers.hidden;
        for sequence in sequences {
            for id in *sequence {
                let word = usize::try_from(*id).unwrap_or(0).min(self.vocab - 1) * hidden;
                x.extend_from_slice(&self.words[word..word + hidden]);
            }
        }
        kernels::norm(x, self.norm.get());
        // The first layer has no norm of its own: this one stands before it.
        y.extend_from_slice(x);
        self.layers.run(states, workspace)
    }

    fn precision(&self) -> Precision {
        self.layers.precision
    }

    fn hidden(&self) -> usize {
        self.layers.hidden
    }

    fn knows(&self, id: u32) -> bool {
        usize::try_from(id).is_ok_and(|id| id < self.vocab)
    }

    fn bytes(&self) -> u64 {
        let bytes = size_of_val(&self.words[..]) + self.layers.bytes();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// What stands between the states and the classifier of `ModernBertForSequenceClassification` and
/// `…ForTokenClassification`: dense, activation, norm. On the CPU in f32: a thousandth of the work.
#[derive(Debug)]
pub struct Head {
    dense: Dense,
    activation: Activation,
    none: Vec<f32>,
    norm: LayerNorm,
}

impl Head {
    /// Loads `head.dense` and `head.norm`.
    ///
    /// # Errors
    ///
    /// What is missing or has another shape.
    pub fn new(config: &Config, weights: &Weights) -> Result<Self, Error> {
        let hidden = config.hidden();
        let dense = weights.take("head.dense.weight", &[hidden, hidden])?;
        Ok(Self {
            dense: Dense::new(&dense, hidden, hidden),
            activation: config.head_activation()?,
            none: vec![0.0; hidden],
            norm: LayerNorm::new(weights, "head.norm", hidden, false, config.eps())?,
        })
    }

    /// `[rows, hidden]` to `[rows, hidden]`, f32; the classifier, a plain dense layer, comes next.
    pub fn forward(&self, rows: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; rows.len()];
        self.dense.product(rows, &mut out);
        self.activation.apply(&mut out, &self.none);
        kernels::norm(&mut out, self.norm.get());
        out
    }
}

//! What makes an embedding of pooled states: modules of sentence-transformers, one after the other, in f32.

use serde::Deserialize;

use super::encode::Encode;
use super::layout::{Kind, Module};
use super::pooling::Pooling;
use crate::model::encoder::{Activation, LayerNorm, Linear, Precision, Take};
use crate::model::files::Error;
use crate::model::folder::Folder;
use crate::model::kernels;
use crate::model::scores::sigmoid;
use crate::model::weights::Weights;

/// The file of a module.
const FILE: &str = "config.json";

/// Most numbers in what a module gives.
const WIDEST: usize = 65_536;

/// From the encoder's states to an embedding.
#[derive(Debug)]
pub(super) struct Embedding {
    pooling: Pooling,
    /// Width of a token's vector.
    hidden: usize,
    stages: Vec<Stage>,
    /// Numbers in an embedding: the last stage's, or fewer where only the first are kept.
    width: usize,
    /// Whether that is all.
    whole: bool,
}

#[derive(Debug)]
enum Stage {
    Dense { linear: Box<Linear>, squash: Squash, residual: Option<Residual> },
    Norm(LayerNorm),
    Normalise,
}

/// What is added to what a layer gives.
#[derive(Debug)]
enum Residual {
    /// What it was given.
    Same,
    /// The same, of another width.
    Projected(Box<Linear>),
}

/// What follows a dense layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Squash {
    None,
    Tanh,
    Sigmoid,
    Other(Activation),
}

/// `config.json` of a `Dense`.
#[derive(Deserialize)]
struct Dense {
    in_features: usize,
    out_features: usize,
    bias: Option<bool>,
    activation_function: Option<String>,
    module_input_name: Option<String>,
    module_output_name: Option<String>,
    use_residual: Option<bool>,
}

/// `config.json` of a `Normalize`, which may be absent.
#[derive(Default, Deserialize)]
struct Normalize {
    module_input_name: Option<String>,
    module_output_name: Option<String>,
}

/// `config.json` of a `LayerNorm`.
#[derive(Deserialize)]
struct Norm {
    dimension: usize,
}

impl Embedding {
    /// Of an encoder of width `hidden`: what `modules` says, or the mean where there are none. `prompt` is the number of
    /// tokens that stand for the prompt.
    pub(super) fn load(
        modules: Option<&[Module<'_>]>,
        encode: &Encode,
        hidden: usize,
        prompt: usize,
    ) -> Result<Self, Error> {
        let (pooling, rest) = match modules {
            None => (Pooling::mean(), &[][..]),
            Some([first, rest @ ..]) if first.kind == Kind::Pooling => {
                (Pooling::read(&first.folder, prompt)?, rest)
            }
            Some(_) => {
                let message = "modules.json: the module after the Transformer must be a Pooling; others are not supported";
                return Err(Error::Unsupported(message.to_owned()));
            }
        };
        let mut width = hidden * pooling.count();
        let mut stages = Vec::new();
        for Module { kind, folder } in rest {
            match kind {
                Kind::Dense => stages.push(dense(folder, &mut width)?),
                Kind::LayerNorm => stages.push(norm(folder, width)?),
                Kind::Normalize => {
                    let names: Normalize = folder.optional(FILE)?.unwrap_or_default();
                    sentence(folder, [names.module_input_name, names.module_output_name])?;
                    stages.push(Stage::Normalise);
                }
                Kind::Dropout => (),
                Kind::Transformer | Kind::Pooling => {
                    let message = "modules.json: one Transformer and one Pooling are supported";
                    return Err(Error::Unsupported(message.to_owned()));
                }
            }
        }
        let whole = encode.kept.is_none_or(|kept| width <= kept);
        let width = encode.kept.map_or(width, |kept| kept.min(width));
        Ok(Self { pooling, hidden, stages, width, whole })
    }

    /// What it wants of the hidden states.
    pub(super) fn take(&self) -> Take {
        self.pooling.take()
    }

    /// Numbers in an embedding.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Whether embeddings are of length 1: they are normalised last, and whole.
    pub(super) fn is_unit(&self) -> bool {
        self.whole && matches!(self.stages.last(), Some(Stage::Normalise))
    }

    /// One embedding for each text of what was [taken](Self::take), f32.
    pub(super) fn forward(&self, taken: Vec<f32>, offsets: &[usize]) -> Vec<Vec<f32>> {
        let count = offsets.len() - 1;
        let mut rows = match self.take() {
            Take::Tokens => self.pooling.forward(&taken, offsets, self.hidden),
            Take::First | Take::Mean | Take::Max => taken,
        };
        for stage in &self.stages {
            rows = stage.forward(rows, count);
        }
        let wide = rows.len() / count.max(1);
        rows.chunks_exact(wide.max(1)).map(|row| row[..self.width].to_vec()).collect()
    }
}

/// Makes a vector one of length 1.
pub(super) fn normalise(row: &mut [f32]) {
    let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
    let length = length.max(1e-12);
    row.iter_mut().for_each(|value| *value /= length);
}

impl Stage {
    /// `count` rows to as many.
    fn forward(&self, mut rows: Vec<f32>, count: usize) -> Vec<f32> {
        match self {
            Self::Dense { linear, squash, residual } => {
                let mut out = linear.forward(&rows);
                squash.apply(&mut out, linear.outputs());
                let added = match residual {
                    None => return out,
                    Some(Residual::Same) => rows,
                    Some(Residual::Projected(linear)) => linear.forward(&rows),
                };
                out.iter_mut().zip(added).for_each(|(value, added)| *value += added);
                out
            }
            Self::Norm(norm) => {
                kernels::norm(&mut rows, norm.get());
                rows
            }
            Self::Normalise => {
                let width = rows.len() / count.max(1);
                rows.chunks_exact_mut(width.max(1)).for_each(normalise);
                rows
            }
        }
    }
}

impl Squash {
    /// By the name of its class in torch. Where a `Dense` names none, it is the hyperbolic tangent.
    fn of(name: Option<&str>) -> Option<Self> {
        let class = match name {
            None => "Tanh",
            Some(name) => name.strip_prefix("torch.nn.")?.rsplit('.').next()?,
        };
        Some(match class {
            "Identity" => Self::None,
            "Tanh" => Self::Tanh,
            "Sigmoid" => Self::Sigmoid,
            "ReLU" => Self::Other(Activation::Relu),
            "GELU" => Self::Other(Activation::Gelu),
            "SiLU" => Self::Other(Activation::Silu),
            _ => return None,
        })
    }

    /// On rows of `width` numbers.
    pub(super) fn apply(self, values: &mut [f32], width: usize) {
        match self {
            Self::None => (),
            Self::Tanh => values.iter_mut().for_each(|value| *value = value.tanh()),
            Self::Sigmoid => values.iter_mut().for_each(|value| *value = sigmoid(*value)),
            Self::Other(activation) => activation.apply(values, &vec![0.0; width]),
        }
    }
}

/// Refuses a module that reads or writes something else than the embedding.
fn sentence(folder: &Folder<'_>, names: [Option<String>; 2]) -> Result<(), Error> {
    match names.into_iter().flatten().find(|name| name != "sentence_embedding") {
        Some(name) => {
            let message = format!(
                "the module works on {name:?}; supported are modules on sentence_embedding"
            );
            Err(folder.fail(FILE, message))
        }
        None => Ok(()),
    }
}

fn dense(folder: &Folder<'_>, width: &mut usize) -> Result<Stage, Error> {
    let config: Dense = folder.declared(FILE)?;
    sentence(folder, [config.module_input_name, config.module_output_name])?;
    let (inputs, outputs) = (config.in_features, config.out_features);
    if inputs != *width || !(1..=WIDEST).contains(&outputs) {
        let message = format!(
            "in_features is {inputs} and out_features {outputs}: what comes before has {width} numbers, and at most \
             {WIDEST} may come after"
        );
        return Err(folder.fail(FILE, message));
    }
    let named = config.activation_function.as_deref();
    let squash = Squash::of(named).ok_or_else(|| {
        let message = format!(
            "activation_function {:?} is not supported; supported are Tanh, Identity, ReLU, GELU, SiLU and Sigmoid of \
             torch.nn",
            named.unwrap_or_default()
        );
        folder.fail(FILE, message)
    })?;
    let weights = open(folder)?;
    let layer = |name: &str, biased| {
        weights.dense(&[name], (inputs, outputs), biased, Precision::F32).map(Box::new)
    };
    let linear = layer("linear", config.bias.unwrap_or(true))?;
    let residual = match config.use_residual {
        Some(true) if inputs == outputs => Some(Residual::Same),
        Some(true) => Some(Residual::Projected(layer("residual", false)?)),
        Some(false) | None => None,
    };
    whole(folder, weights)?;
    *width = outputs;
    Ok(Stage::Dense { linear, squash, residual })
}

fn norm(folder: &Folder<'_>, width: usize) -> Result<Stage, Error> {
    let Norm { dimension } = folder.declared(FILE)?;
    if dimension != width {
        let message =
            format!("dimension is {dimension}, and what comes before has {width} numbers");
        return Err(folder.fail(FILE, message));
    }
    let weights = open(folder)?;
    // As torch has it where nothing else is said.
    let norm = LayerNorm::new(&weights, "norm", width, true, 1e-5)?;
    whole(folder, weights)?;
    Ok(Stage::Norm(norm))
}

fn open(folder: &Folder<'_>) -> Result<Weights, Error> {
    if !folder.has("model.safetensors") && folder.has("pytorch_model.bin") {
        let message = "is a pickle, and a pickle can run code when it is read: load the model with \
                       sentence-transformers and save it again, which writes model.safetensors";
        return Err(folder.fail("pytorch_model.bin", message));
    }
    Weights::open_in(folder.dir(), folder.name())
}

/// Refuses a module's file that holds more than the module has, as sentence-transformers does.
fn whole(folder: &Folder<'_>, weights: Weights) -> Result<(), Error> {
    match weights.finish()?.first() {
        Some(name) => {
            let message = format!("tensor {name:?} is none of this module's");
            Err(folder.fail("model.safetensors", message))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_dense_layer_has_the_name_of_a_class_of_torch() {
        for (name, expect) in [
            (None, Some(Squash::Tanh)),
            (Some("torch.nn.modules.activation.Tanh"), Some(Squash::Tanh)),
            (Some("torch.nn.modules.linear.Identity"), Some(Squash::None)),
            (Some("torch.nn.ReLU"), Some(Squash::Other(Activation::Relu))),
            (Some("torch.nn.modules.activation.Softmax"), None),
            (Some("mine.Tanh"), None),
        ] {
            assert_eq!(Squash::of(name), expect, "{name:?}");
        }
    }
}

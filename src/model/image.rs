//! Image models: classification by a vision transformer, from a plain Hugging Face directory.
//!
//! ```text
//!  base64 ─► bytes ─► RGB ─► pixels: resize, crop ─► [3, side, side] ─► ViT ─► [labels] ─► softmax | sigmoid ─► label
//! ```
//!
//! Decoding and resizing are in `prepare`, on the decode threads. On the CPU the encoder is our own, and an answer does
//! not depend on the batch; on GPUs it is candle-transformers', and its last bits may
//! (`determinism: strict` runs one image a call).
//!
//! Dosovitskiy et al. 2021 (`ViT`). Tensor names as in Hugging Face's transformers.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::Activation;
use candle_transformers::models::vit as candle_vit;
use serde::Deserialize;
use serde_json::Value;

use super::device::{self, Replicas};
use super::files::{self, Error};
use super::folder::Json;
use super::labels::{labels, unique};
use super::options::LoadOptions;
use super::scores::{sigmoid, softmax};
use super::weights::Weights;
use super::{About, Input, Memory, Model, SUB_BATCH_TOKENS, encoder, padded};
use crate::answer::{Prediction, Refused, Task};
use crate::config::{Determinism, Place};
use crate::field::{self, Values};
use crate::record::{Fault, FaultClass};

mod bmp;
mod decode;
mod encoded;
mod gif;
mod jpeg;
mod picture;
mod pixels;
mod png;
mod processor;
mod resample;
mod vit;

use pixels::Preprocess;
use vit::Vit;

/// A grey pixel as a PNG in base64: what a model is warmed up with.
pub(super) const GREY: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==";

/// Most patches: attention takes memory by their square.
const MOST_PATCHES: usize = 4_096;

/// `config.json`, as far as it matters. What is absent or null is what `ViTConfig` of transformers takes.
#[derive(Debug, Deserialize)]
struct Config {
    #[serde(default)]
    model_type: Option<String>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    hidden_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    intermediate_size: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
    image_size: Option<Sides>,
    patch_size: Option<Sides>,
    num_channels: Option<usize>,
    qkv_bias: Option<bool>,
    id2label: Option<Value>,
    problem_type: Option<String>,
    is_causal: Option<bool>,
}

/// The side of a square, or height and width.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Sides {
    Square(u16),
    Both([u16; 2]),
}

impl Sides {
    /// The side of a square.
    fn square(self, name: &str) -> Result<u16, Error> {
        match self {
            Self::Square(side) => Ok(side),
            Self::Both([height, width]) if height == width => Ok(height),
            Self::Both(sides) => {
                let message = format!("{name} {sides:?}; only squares are supported");
                Err(Error::config("config.json", message))
            }
        }
    }
}

impl Config {
    /// Candle's configuration and the number of patches, once everything that the forward relies on was checked.
    fn checked(&self) -> Result<(candle_vit::Config, usize), Error> {
        let fail = |message: String| Err(Error::config("config.json", message));
        let family = self.model_type.as_deref().unwrap_or_default();
        let architecture = self.architectures.iter().flatten().next();
        let architecture = architecture.map_or("ViTForImageClassification", String::as_str);
        if family != "vit" || architecture != "ViTForImageClassification" {
            return fail(format!(
                "architecture {architecture:?} of model_type {family:?}: of image models, ViTForImageClassification of \
                 model_type \"vit\" is supported"
            ));
        }
        let activation = self.hidden_act.as_deref().unwrap_or("gelu");
        if activation != "gelu" {
            return fail(format!("hidden_act {activation:?}; only gelu is supported"));
        }
        if self.is_causal == Some(true) {
            return fail(
                "is_causal: true is not supported; patches that look both ways are".to_owned(),
            );
        }
        let channels = self.num_channels.unwrap_or(3);
        if channels != 3 {
            return fail(format!("num_channels is {channels}; only 3 is supported"));
        }
        let side = |name, sides: Option<Sides>, default| {
            sides.unwrap_or(Sides::Square(default)).square(name).map(usize::from)
        };
        let vit = candle_vit::Config {
            hidden_size: self.hidden_size.unwrap_or(768),
            num_hidden_layers: self.num_hidden_layers.unwrap_or(12),
            num_attention_heads: self.num_attention_heads.unwrap_or(12),
            intermediate_size: self.intermediate_size.unwrap_or(3_072),
            hidden_act: Activation::Gelu,
            layer_norm_eps: self.layer_norm_eps.unwrap_or(1e-12),
            image_size: side("image_size", self.image_size, 224)?,
            patch_size: side("patch_size", self.patch_size, 16)?,
            num_channels: 3,
            qkv_bias: self.qkv_bias.unwrap_or(true),
        };
        files::bounded_layers(
            vit.hidden_size,
            vit.num_hidden_layers,
            vit.num_attention_heads,
            vit.intermediate_size,
        )?;
        files::bounded(&[
            ("image_size", vit.image_size, 4_096),
            ("patch_size", vit.patch_size, vit.image_size),
        ])?;
        for (name, whole, by, part) in [
            ("hidden_size", vit.hidden_size, "num_attention_heads", vit.num_attention_heads),
            ("image_size", vit.image_size, "patch_size", vit.patch_size),
        ] {
            if whole % part != 0 {
                return fail(format!("{name} {whole} is no multiple of {by} {part}"));
            }
        }
        if !(vit.layer_norm_eps.is_finite() && 0.0 < vit.layer_norm_eps) {
            return fail(format!("layer_norm_eps is {}", vit.layer_norm_eps));
        }
        let patches = (vit.image_size / vit.patch_size).pow(2);
        if MOST_PATCHES < patches {
            return fail(format!("{patches} patches, more than {MOST_PATCHES}"));
        }
        Ok((vit, patches))
    }

    /// A label for each of the classifier's rows.
    fn labels(&self, rows: usize) -> Result<Vec<String>, Error> {
        let fail = |message: String| Error::config("config.json", message);
        let labels = labels(self.id2label.as_ref(), rows).map_err(fail)?;
        if labels.len() != rows {
            let count = labels.len();
            return Err(fail(format!("id2label has {count} labels, the classifier {rows} rows")));
        }
        Ok(labels)
    }

    /// Whether each label is right or not by itself, as transformers' pipeline decides it.
    fn independent(&self, labels: usize) -> Result<bool, Error> {
        match self.problem_type.as_deref() {
            Some("multi_label_classification") => Ok(true),
            Some("regression") => {
                let message = "problem_type regression: images are classified only";
                Err(Error::config("config.json", message))
            }
            _ => Ok(labels == 1),
        }
    }
}

/// An image model. See the module.
pub struct Image {
    about: About,
    preprocess: Preprocess,
    encoder: Encoder,
    side: usize,
    /// Patches and the class token.
    tokens: usize,
    /// Sigmoid instead of softmax.
    independent: bool,
    labels: Arc<[String]>,
}

/// What computes a classifier's output.
enum Encoder {
    Packed(Box<Vit>),
    Candle(Candle),
}

/// candle-transformers' model, on each of the devices.
struct Candle {
    replicas: Replicas<(candle_vit::Model, Device)>,
    devices: Vec<Device>,
    dtype: DType,
    /// One image a call: the same bits whatever the batch.
    strict: bool,
}

impl Candle {
    fn new(
        config: &candle_vit::Config,
        labels: usize,
        weights: &Weights,
        devices: Vec<Device>,
        (dtype, strict): (DType, bool),
    ) -> Result<Self, Error> {
        let replicas = Replicas::new(&devices, |device| {
            let model = candle_vit::Model::new(config, labels, weights.builder(dtype, device));
            model.map(|model| (model, device.clone()))
        });
        let replicas = replicas
            .map_err(|error| Error::config("config.json", format!("build its encoder: {error}")))?;
        Ok(Self { replicas, devices, dtype, strict })
    }

    /// Of images `[images, 3, side, side]` f32 the classifier's output `[images, labels]` f32.
    fn logits(&self, images: &[f32], side: usize) -> Result<Vec<f32>, Refused> {
        let image = 3 * side * side;
        let part = if self.strict { image } else { images.len().max(1) };
        let run = |pixels: &[f32]| -> candle_core::Result<Vec<f32>> {
            self.replicas.with(|(model, device)| {
                let shape = (pixels.len() / image, 3, side, side);
                let pixels = Tensor::from_slice(pixels, shape, device)?.to_dtype(self.dtype)?;
                model.forward(&pixels)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
            })
        };
        let parts: candle_core::Result<Vec<_>> = images.chunks_exact(part).map(run).collect();
        parts.map(|parts| parts.concat()).map_err(|error| device::refused(&error))
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("about", &self.about).finish_non_exhaustive()
    }
}

/// Loads `preprocessor_config.json` and `model.safetensors` out of `dir`, whose `config.json` is at hand.
///
/// # Errors
///
/// With the file or tensor, what was expected and what was found.
pub(super) fn load(dir: &Path, config: &Json, options: &LoadOptions) -> Result<Image, Error> {
    let fail = |error: device::Error| Error::config("config.json", error.to_string());
    let place = &options.model.device;
    let config: Config = config.parse()?;
    let (vit, patches) = config.checked()?;
    let side = u32::try_from(vit.image_size).unwrap_or(u32::MAX);
    let preprocess = Preprocess::load(dir, side)?;
    let weights = Weights::open(dir)?;
    let rows = weights.shape("classifier.weight").and_then(|shape| shape.first()).copied();
    let rows = rows.ok_or_else(|| {
        let message =
            "is missing: a backbone alone does not classify; save a ViTForImageClassification";
        Error::tensor("classifier.weight", message)
    })?;
    let (labels, named) = unique(config.labels(rows)?);
    let independent = config.independent(rows)?;
    let (encoder, precision, chunk_tokens, bytes) = if *place == Place::Cpu {
        // Nothing to compare precisions by is known of images: `auto` is f32.
        let precision = device::packed(options.model.precision).map_err(fail)?;
        let precision = precision.unwrap_or(encoder::Precision::F32);
        let vit = Vit::new(&vit, rows, &weights, precision)?;
        let bytes = vit.bytes();
        (Encoder::Packed(Box::new(vit)), precision.name(), SUB_BATCH_TOKENS, bytes)
    } else {
        let (dtype, devices) = (
            device::dtype(place, options.model.precision).map_err(fail)?,
            device::open(place).map_err(fail)?,
        );
        let elements = weights.bytes() / 4 * u64::try_from(devices.len()).unwrap_or(1);
        let bytes = elements * u64::try_from(dtype.size_in_bytes()).unwrap_or(4);
        let how = (dtype, options.model.determinism == Determinism::Strict);
        let encoder = Encoder::Candle(Candle::new(&vit, rows, &weights, devices, how)?);
        (encoder, dtype.as_str(), padded::GPU_TOKENS, bytes)
    };
    weights.finish()?;
    let about = About {
        task: Task::ImageClassification,
        architecture: config.model_type.unwrap_or_default(),
        precision,
        device: place.to_string(),
        fields: vec![options.field.clone()],
        labels: labels.clone(),
        width: labels.len(),
        bytes,
        chunk_tokens,
        padded: false,
        notes: named,
    };
    let (side, tokens, labels) = (vit.image_size, patches + 1, labels.into());
    Ok(Image { about, preprocess, encoder, side, tokens, independent, labels })
}

impl Image {
    fn answer(&self, logits: &[f32]) -> Prediction {
        let scores: Vec<f32> = if self.independent {
            logits.iter().map(|logit| sigmoid(*logit)).collect()
        } else {
            softmax(logits)
        };
        Prediction::label(&scores, &self.labels)
    }
}

impl Model for Image {
    fn about(&self) -> &About {
        &self.about
    }

    fn prepare(&self, values: &Values<'_>) -> Result<Input, Fault> {
        let name = &self.about.fields[0];
        let invalid = |what| Fault::new(FaultClass::Invalid, format!("field {name:?} {what}"));
        let bytes = match values.first().and_then(Option::as_ref) {
            Some(field::Value::Bytes(bytes)) => Cow::Borrowed(&**bytes),
            value => {
                let text = field::text(value, name, "an image in base64")?;
                Cow::Owned(encoded::decode(text).map_err(invalid)?)
            }
        };
        let pixels = self.preprocess.pixels(&bytes).map_err(|Fault { class, message }| {
            Fault::new(class, format!("field {name:?}: {message}"))
        })?;
        Ok(Input::Pixels { pixels, tokens: self.tokens })
    }

    fn memory(&self) -> Option<Memory> {
        match &self.encoder {
            Encoder::Packed(_) => None,
            Encoder::Candle(candle) => device::least(&candle.devices),
        }
    }

    fn predict(&self, inputs: &[&Input]) -> Result<Vec<Prediction>, Refused> {
        let refused = |row: usize, message: &str| Refused::Row { row, message: message.to_owned() };
        let mut images = Vec::with_capacity(inputs.len());
        for (row, input) in inputs.iter().enumerate() {
            match input {
                Input::Pixels { pixels, .. } if pixels.len() == self.side * self.side * 3 => {
                    images.push(&**pixels);
                }
                Input::Pixels { .. } => return Err(refused(row, "an image of another size")),
                Input::Tokens(_) | Input::Marked(_) | Input::Windows(_) | Input::Row(_) => {
                    return Err(refused(
                        row,
                        "an image model takes pixels, not tokens or features",
                    ));
                }
            }
        }
        let mut values = Vec::with_capacity(images.len() * self.side * self.side * 3);
        images.iter().for_each(|pixels| self.preprocess.normalise(pixels, &mut values));
        let logits = match &self.encoder {
            Encoder::Packed(vit) => vit.logits(&values),
            Encoder::Candle(candle) => candle.logits(&values, self.side)?,
        };
        let mut predictions = Vec::with_capacity(images.len());
        for logits in logits.chunks_exact(self.labels.len()) {
            if logits.iter().any(|logit| !logit.is_finite()) {
                return Err(refused(predictions.len(), "the output is NaN or infinite"));
            }
            predictions.push(self.answer(logits));
        }
        Ok(predictions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// candle-transformers' model is what runs on GPUs: here it runs on the CPU.
    #[test]
    fn the_packed_forward_is_that_of_candle() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/tiny-vit");
        let config: Config = files::json(&dir, "config.json").unwrap();
        let (config, _) = config.checked().unwrap();
        let weights = Weights::open(&dir).unwrap();
        let side = config.image_size;
        let images: Vec<f32> = (0..5 * 3 * side * side)
            .map(|at| f32::from(u8::try_from(at * 7 % 251).unwrap()) / 60.0 - 2.0)
            .collect();
        let ours = Vit::new(&config, 3, &weights, encoder::Precision::F32).unwrap().logits(&images);
        let candle = |strict| {
            let devices = vec![Device::Cpu, Device::Cpu];
            let candle = Candle::new(&config, 3, &weights, devices, (DType::F32, strict)).unwrap();
            move |images: &[f32]| candle.logits(images, side).unwrap()
        };
        for candle in [candle(false), candle(true)] {
            let theirs = candle(&images);
            assert_eq!(theirs.len(), ours.len());
            let gap = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(gap < 1e-5, "{gap:e}");
        }
        let strict = candle(true);
        let alone = images.chunks_exact(3 * side * side).flat_map(&strict).collect::<Vec<_>>();
        assert_eq!(alone, strict(&images), "one image a call");
    }
}

//! Which text model a directory holds, and what computes it here.

use serde_json::Value;
use tokenizers::Tokenizer;

use super::backbone::Backbone;
use crate::config::{Determinism, Place};
use crate::model::device;
use crate::model::encoder::{self, Encoder, Family, Packed, States, Workspace, modernbert};
use crate::model::files::Error;
use crate::model::folder::Json;
use crate::model::kernels::{self, Level};
use crate::model::options::LoadOptions;
use crate::model::padded::{Padded, Target};
use crate::model::weights::Weights;

/// What `config.json` describes.
#[derive(Debug)]
pub(super) enum Architecture {
    /// The BERT family.
    Bert(Box<encoder::Config>, Family),
    /// `ModernBERT`.
    ModernBert(Box<modernbert::Config>),
}

impl Architecture {
    /// Reads `config.json`.
    pub(super) fn read(file: &Json) -> Result<Self, Error> {
        if file.value().get("model_type").and_then(Value::as_str) == Some("modernbert") {
            let config: modernbert::Config = file.parse()?;
            config.check()?;
            return Ok(Self::ModernBert(Box::new(config)));
        }
        let config: encoder::Config = file.parse()?;
        let family = config.family()?;
        Ok(Self::Bert(Box::new(config), family))
    }

    /// As `config.json` calls it.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Bert(config, _) => &config.model_type,
            Self::ModernBert(_) => "modernbert",
        }
    }

    /// Width of a token's vector.
    pub(super) fn hidden(&self) -> usize {
        match self {
            Self::Bert(config, _) => config.hidden(),
            Self::ModernBert(config) => config.hidden(),
        }
    }

    /// An id that takes no position, where there is one.
    pub(super) fn padding(&self) -> Option<u32> {
        match self {
            Self::Bert(config, family) => {
                let padding = config.first_position(*family).checked_sub(1)?;
                u32::try_from(padding).ok()
            }
            Self::ModernBert(_) => None,
        }
    }

    /// Longest sequence in tokens.
    pub(super) fn longest(&self) -> usize {
        match self {
            Self::Bert(config, family) => config.longest(*family),
            Self::ModernBert(config) => config.longest(),
        }
    }

    /// How many types of tokens it tells apart; 0 where it knows of none.
    pub(super) fn types(&self) -> usize {
        match self {
            Self::Bert(config, family) => config.types(*family),
            Self::ModernBert(_) => 0,
        }
    }

    /// Whether it could go beyond its longest sequence: where positions are computed, not looked up.
    pub(super) fn extends(&self) -> bool {
        matches!(self, Self::ModernBert(_))
    }

    /// What computes it on `place`, and the name of the precision it computes in.
    pub(super) fn backbone(
        &self,
        weights: &Weights,
        place: &Place,
        options: &LoadOptions,
        tokenizer: &Tokenizer,
    ) -> Result<(Backbone, &'static str), Error> {
        if *place == Place::Cpu {
            let build = |precision| self.packed(weights, precision);
            let packed = match device::packed(options.model.precision)? {
                Some(precision) => build(precision)?,
                None => fastest(build, self.longest(), tokenizer)?,
            };
            let named = packed.precision().name();
            return Ok((Backbone::Packed(packed), named));
        }
        let dtype = device::dtype(place, options.model.precision)?;
        let devices = device::open(place)?;
        let strict = options.model.determinism == Determinism::Strict;
        let target = Target { devices: &devices, dtype, strict };
        let padded = match self {
            Self::Bert(config, _) => Padded::bert(config, weights, target)?,
            Self::ModernBert(config) => Padded::modernbert(config, weights, target)?,
        };
        Ok((Backbone::Padded(padded), dtype.as_str()))
    }

    fn packed(
        &self,
        weights: &Weights,
        precision: encoder::Precision,
    ) -> Result<Box<dyn Packed>, Error> {
        Ok(match self {
            Self::Bert(config, _) => Box::new(Encoder::new(config, weights, precision)?),
            Self::ModernBert(config) => {
                Box::new(modernbert::ModernBert::new(config, weights, precision)?)
            }
        })
    }
}

/// What `precision: auto` looks at.
const PROBES: [&str; 8] = [
    "The quick brown fox jumps over the lazy dog.",
    "no",
    "Delivery took three weeks and the box was damaged, but support refunded me at once.",
    "SELECT count(*) FROM orders WHERE created_at > now() - interval '1 day';",
    "Der Zug nach Hamburg fährt heute von Gleis 7.",
    "Quarterly revenue rose by 12 % to 3.4 billion, well above what analysts had expected.",
    "Call me at 555-0199 before noon!!! :-)",
    "In the beginning the universe was hot, dense and nearly uniform; small differences grew under gravity.",
];

/// The least mean cosine to f32 at which `precision: auto` takes another.
const CLOSE: f32 = 0.995;

/// The fastest on this CPU in which the probes' mean states stay close to those in f32.
fn fastest(
    build: impl Fn(encoder::Precision) -> Result<Box<dyn Packed>, Error>,
    longest: usize,
    tokenizer: &Tokenizer,
) -> Result<Box<dyn Packed>, Error> {
    let exact = build(encoder::Precision::F32)?;
    let faster: &[encoder::Precision] = match kernels::level() {
        Level::Portable => &[],
        Level::Avx2 | Level::Avx512 | Level::Vnni => &[encoder::Precision::Int8],
        Level::Bf16 => &[encoder::Precision::Int8, encoder::Precision::Bf16],
    };
    let mut probes = Vec::new();
    for probe in PROBES {
        let encoded = tokenizer
            .encode_fast(probe, true)
            .map_err(|error| Error::Unsupported(format!("tokenise a probe: {error}")))?;
        let ids: Vec<u32> = encoded.get_ids().iter().copied().take(longest).collect();
        if ids.is_empty() || ids.iter().any(|id| !exact.knows(*id)) {
            return Ok(exact);
        }
        probes.push(ids);
    }
    for precision in faster {
        let fast = build(*precision)?;
        let cosine = closeness(exact.as_ref(), fast.as_ref(), &probes);
        let taken = CLOSE <= cosine;
        tracing::info!(
            cosine,
            precision = precision.name(),
            taken,
            "precision auto: compared with f32"
        );
        if taken {
            return Ok(fast);
        }
    }
    Ok(exact)
}

/// The mean cosine of two encoders' mean states.
fn closeness(exact: &dyn Packed, fast: &dyn Packed, probes: &[Vec<u32>]) -> f32 {
    let mean = |encoder: &dyn Packed, ids: &[u32]| -> Vec<f32> {
        let mut workspace = Workspace::default();
        let (states, _) = encoder.forward(&[ids], States::All, &mut workspace);
        let mut sums = vec![0.0; encoder.hidden()];
        for row in states.chunks_exact(encoder.hidden()) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        sums
    };
    let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let cosine = |ids: &Vec<u32>| {
        let (a, b) = (mean(exact, ids), mean(fast, ids));
        dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
    };
    probes.iter().map(cosine).sum::<f32>()
        / f32::from(u8::try_from(probes.len()).unwrap_or(u8::MAX))
}

//! Text models on Candle's tensors, on GPUs.
//!
//! ```text
//!  ids, lengths ─► upload, once ─► word + position ─► layers ─► pool on the device ─► [rows, hidden] f32 ─► host
//!                                   [rows × longest, hidden] in f32, bf16 or f16
//! ```
//!
//! Sequences stand side by side, padded to the longest: the caller sorts them by length. The mask is finite in every
//! dtype (Candle's own BERT makes NaN of it in f16 and bf16) and left out where no row is padded.
//!
//! # The same answer, whatever the batch?
//!
//! A padded forward computes the same function of a sequence whatever stands beside it, but not always to the bit:
//! the library picks another kernel for another shape of a product, and a softmax over a padded row adds in another
//! order. The differences are those of rounding in the dtype. `strict` runs one sequence a call, on shapes that
//! depend on it alone, and so gives the same bits in every batch, on one kind of device; it costs what batches save.
//!
//! # Copies
//!
//! One upload and one download a call. Both go through pageable memory: Candle has no tensors in pinned memory and
//! no copy into a tensor that is there already. At most 128 KiB of ids and a row a record, they are no hundredth of
//! a forward.

use candle_core::{DType, Device, Result, Tensor};

use super::device::{self, Replicas};
use super::encoder::{self, TYPED, Take};
use super::weights::Weights;
use super::{Memory, files};
use crate::answer::Refused;

mod batch;
mod bert;
mod layers;
mod modernbert;

use batch::{Batch, Shape};
use layers::Loader;

/// Padded tokens that one call is best given on a GPU: enough to keep every unit of a large one busy, little enough
/// for the attention scores of 512 tokens in 12 heads to take 400 MB in bf16.
pub const GPU_TOKENS: usize = 32_768;

/// The same on a core of the CPU, where only tests run this.
pub const CPU_TOKENS: usize = 1_024;

/// Where, in what, and how a model is to run.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// A replica goes to each. Not empty.
    pub devices: &'a [Device],
    /// f32, bf16, f16.
    pub dtype: DType,
    /// One sequence a call: the same bits whatever the batch.
    pub strict: bool,
}

/// A text model's layers, on one or several devices.
#[derive(Debug)]
pub struct Padded {
    replicas: Replicas<Replica>,
    devices: Vec<Device>,
    shape: Shape,
    strict: bool,
    bytes: u64,
}

#[derive(Debug)]
struct Replica {
    device: Device,
    layers: Layers,
    /// `[1, longest]` u32: 0, 1, 2, …
    steps: Tensor,
}

#[derive(Debug)]
enum Layers {
    Bert(bert::Bert),
    ModernBert(modernbert::ModernBert),
}

impl Padded {
    /// The BERT family, from a checkpoint's tensors.
    ///
    /// # Errors
    ///
    /// What is missing, has another shape, or does not fit on the device.
    pub fn bert(
        config: &encoder::Config,
        weights: &Weights,
        target: Target<'_>,
    ) -> std::result::Result<Self, files::Error> {
        let family = config.family()?;
        let shape = Shape {
            hidden: config.hidden(),
            vocab: config.vocab_size,
            longest: config.longest(family),
            padding: u32::try_from(config.first_position(family))
                .ok()
                .and_then(|first| first.checked_sub(1)),
            positions: config.max_position_embeddings,
            types: config.types(family),
        };
        Self::new(weights, target, shape, |loader| Ok(Layers::Bert(bert::load(config, loader)?)))
    }

    /// `ModernBERT`, from a checkpoint's tensors.
    ///
    /// # Errors
    ///
    /// As [`bert`](Self::bert).
    pub fn modernbert(
        config: &encoder::modernbert::Config,
        weights: &Weights,
        target: Target<'_>,
    ) -> std::result::Result<Self, files::Error> {
        config.check()?;
        let (hidden, longest) = (config.hidden(), config.longest());
        let vocab = config.vocab();
        let shape = Shape { hidden, vocab, longest, padding: None, positions: 0, types: 0 };
        let load = |loader: &Loader<'_>| Ok(Layers::ModernBert(modernbert::load(config, loader)?));
        Self::new(weights, target, shape, load)
    }

    fn new(
        weights: &Weights,
        target: Target<'_>,
        shape: Shape,
        load: impl Fn(&Loader<'_>) -> std::result::Result<Layers, files::Error>,
    ) -> std::result::Result<Self, files::Error> {
        let mut bytes = 0;
        let replicas = Replicas::new(target.devices, |device| {
            let loader = Loader::new(weights, device, target.dtype);
            let layers = load(&loader)?;
            bytes += loader.bytes();
            let longest = u32::try_from(shape.longest).unwrap_or(u32::MAX);
            let steps = Tensor::arange(0, longest, device).and_then(|steps| steps.unsqueeze(0));
            let steps = steps.map_err(|error| {
                files::Error::config("config.json", format!("count positions: {error}"))
            })?;
            Ok::<_, files::Error>(Replica { device: device.clone(), layers, steps })
        })?;
        let devices = target.devices.to_vec();
        Ok(Self { replicas, devices, shape, strict: target.strict, bytes })
    }

    /// What is taken of the last hidden states: row-major f32, a row `[hidden]` for each sequence; under
    /// [`Take::Tokens`] one for each token, sequences end to end.
    ///
    /// # Errors
    ///
    /// A sequence that is empty, too long or has an unknown id, by its row; what the device says.
    pub fn states(
        &self,
        sequences: &[&[u32]],
        take: Take,
    ) -> std::result::Result<Vec<f32>, Refused> {
        for (row, sequence) in sequences.iter().enumerate() {
            let refused = |message: String| Err(Refused::Row { row, message });
            if sequence.is_empty() || self.shape.longest < sequence.len() {
                let (length, longest) = (sequence.len(), self.shape.longest);
                return refused(format!("{length} tokens, not 1 to {longest}"));
            }
            // Looked at here: on a GPU an index beyond the table ends the process.
            if let Some(id) = sequence.iter().find(|id| !self.knows(**id)) {
                return refused(format!("token id {id} is beyond the vocabulary"));
            }
        }
        if sequences.is_empty() {
            return Ok(Vec::new());
        }
        let together = if self.strict { 1 } else { sequences.len() };
        let mut states = Vec::new();
        for part in sequences.chunks(together) {
            let run = |replica: &Replica| replica.states(part, take, self.shape);
            states.append(&mut self.replicas.with(run).map_err(|error| device::refused(&error))?);
        }
        Ok(states)
    }

    /// Whether a token id has a vector.
    pub fn knows(&self, id: u32) -> bool {
        let typed = id < TYPED || 1 < self.shape.types;
        typed && usize::try_from(id & !TYPED).is_ok_and(|id| id < self.shape.vocab)
    }

    /// Width of a row.
    pub fn hidden(&self) -> usize {
        self.shape.hidden
    }

    /// Longest sequence in tokens.
    pub fn longest(&self) -> usize {
        self.shape.longest
    }

    /// Bytes of the weights, on all devices.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The memory of the device with the least left; `None` where that is the process's own.
    pub fn memory(&self) -> Option<Memory> {
        device::least(&self.devices)
    }

    /// Padded tokens that one call is best given.
    pub fn chunk_tokens(&self) -> usize {
        if self.devices.iter().all(Device::is_cpu) { CPU_TOKENS } else { GPU_TOKENS }
    }
}

impl Replica {
    fn states(&self, sequences: &[&[u32]], take: Take, shape: Shape) -> Result<Vec<f32>> {
        let batch = Batch::new(sequences, take, shape, &self.steps, &self.device)?;
        let states = match &self.layers {
            Layers::Bert(layers) => layers.forward(&batch, take)?,
            Layers::ModernBert(layers) => layers.forward(&batch, take)?,
        };
        batch.take(&states, take)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
    }
}

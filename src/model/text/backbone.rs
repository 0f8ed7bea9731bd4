//! The seam between a text model's heads and what computes its hidden states.

use crate::answer::Refused;
use crate::model::encoder::{self, States, Take, Workspace};
use crate::model::padded::Padded;
use crate::model::{Memory, SUB_BATCH_TOKENS};

/// What was taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// `[rows, hidden]` f32: a row for each token under [`Take::Tokens`], else one for each sequence.
    pub rows: Vec<f32>,
    /// `[sequences + 1]`: the rows of sequence `i` are `offsets[i]..offsets[i + 1]`.
    pub offsets: Vec<usize>,
}

/// What computes the hidden states.
#[derive(Debug)]
pub enum Backbone {
    /// Our own forward on the CPU, without padding.
    Packed(Box<dyn encoder::Packed>),
    /// Candle's tensors, on GPUs.
    Padded(Padded),
}

impl Backbone {
    /// Runs sequences of token ids and gives what `take` says of their last hidden states. Ids must be
    /// [known](Self::knows), sequences not empty and at most as long as the model takes.
    ///
    /// # Errors
    ///
    /// When the device refuses; the CPU never does.
    pub fn run(&self, sequences: &[&[u32]], take: Take) -> Result<Taken, Refused> {
        match self {
            Self::Packed(encoder) => Workspace::with(|workspace| {
                let wanted = if take == Take::First { States::First } else { States::All };
                let (states, offsets) = encoder.forward(sequences, wanted, workspace);
                Ok(taken(states, offsets, encoder.hidden(), take))
            }),
            Self::Padded(padded) => {
                let rows = padded.states(sequences, take)?;
                let mut offsets = vec![0];
                for sequence in sequences {
                    let count = if take == Take::Tokens { sequence.len() } else { 1 };
                    offsets.push(offsets.last().copied().unwrap_or(0) + count);
                }
                Ok(Taken { rows, offsets })
            }
        }
    }

    /// Whether a token id has a vector.
    pub fn knows(&self, id: u32) -> bool {
        match self {
            Self::Packed(encoder) => encoder.knows(id),
            Self::Padded(padded) => padded.knows(id),
        }
    }

    /// Bytes of the weights.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Packed(encoder) => encoder.bytes(),
            Self::Padded(padded) => padded.bytes(),
        }
    }

    /// The memory of the device; `None` where that is the process's own.
    pub fn memory(&self) -> Option<Memory> {
        match self {
            Self::Packed(_) => None,
            Self::Padded(padded) => padded.memory(),
        }
    }

    /// Tokens that one run is best given.
    pub fn chunk_tokens(&self) -> usize {
        match self {
            Self::Packed(_) => SUB_BATCH_TOKENS,
            Self::Padded(padded) => padded.chunk_tokens(),
        }
    }

    /// Whether a run computes every sequence at the length of the longest.
    pub fn pads(&self) -> bool {
        matches!(self, Self::Padded(_))
    }
}

fn taken(states: &[f32], offsets: &[usize], hidden: usize, take: Take) -> Taken {
    if take == Take::Tokens {
        return Taken { rows: states.to_vec(), offsets: offsets.to_vec() };
    }
    let sequences = offsets.len() - 1;
    let mut rows = Vec::with_capacity(sequences * hidden);
    for pair in offsets.windows(2) {
        pool(&states[pair[0] * hidden..pair[1] * hidden], hidden, take, &mut rows);
    }
    Taken { rows, offsets: (0..=sequences).collect() }
}

/// Appends one vector for a sequence's `[tokens, hidden]`.
fn pool(states: &[f32], hidden: usize, take: Take, out: &mut Vec<f32>) {
    let start = out.len();
    let (first, others) = states.split_at(hidden);
    out.extend_from_slice(first);
    let pooled = &mut out[start..];
    let mut count = 1.0_f32;
    for row in others.chunks_exact(hidden) {
        for (pooled, value) in pooled.iter_mut().zip(row) {
            match take {
                Take::Mean => *pooled += value,
                Take::Max => *pooled = pooled.max(*value),
                Take::First | Take::Tokens => (),
            }
        }
        count += 1.0;
    }
    if take == Take::Mean {
        pooled.iter_mut().for_each(|value| *value /= count);
    }
}

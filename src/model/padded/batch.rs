//! A batch of sequences on the device.

use candle_core::{DType, Device, Result, Tensor};

use crate::model::encoder::{TYPED, Take};

/// What an architecture says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) hidden: usize,
    pub(super) vocab: usize,
    /// Longest sequence in tokens.
    pub(super) longest: usize,
    /// An id whose position is its own, as `RoBERTa` has it.
    pub(super) padding: Option<u32>,
    /// Positions in the table, and types of tokens that it has them for.
    pub(super) positions: usize,
    pub(super) types: usize,
}

/// Sequences on the device.
pub(super) struct Batch {
    pub(super) rows: usize,
    /// Columns: tokens of the longest sequence.
    pub(super) longest: usize,
    /// `[rows × longest]` u32; 0 behind a sequence's end.
    pub(super) ids: Tensor,
    /// `[rows × longest]` u32: rows of the table, where they do not just count up. A sequence has [`Shape::padding`]
    /// inside, or tokens of two types.
    pub(super) positions: Option<Tensor>,
    /// `[1, longest]` u32: 0, 1, 2, …
    pub(super) steps: Tensor,
    /// `[rows, longest]` f32: 1 for a token, 0 behind the end. `None` where all are of one length.
    pub(super) kept: Option<Tensor>,
    /// `[rows, 1]` f32: tokens of each.
    pub(super) lengths: Tensor,
    /// `[tokens]` u32: where real tokens stand in `ids`; with [`Take::Tokens`] where something is padded.
    pub(super) tokens: Option<Tensor>,
}

impl Batch {
    /// Uploads sequences: everything in one copy, taken apart on the device.
    pub(super) fn new(
        sequences: &[&[u32]],
        take: Take,
        shape: Shape,
        steps: &Tensor,
        device: &Device,
    ) -> Result<Self> {
        let rows = sequences.len();
        let longest = sequences.iter().map(|sequence| sequence.len()).max().unwrap_or(0);
        let area = rows * longest;
        let uneven = sequences.iter().any(|sequence| sequence.len() != longest);
        let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let mut upload = Vec::with_capacity(area * 2 + rows);
        for sequence in sequences {
            upload.extend(sequence.iter().map(|id| id & !TYPED));
            upload.resize(upload.len() + longest - sequence.len(), 0);
        }
        upload.extend(sequences.iter().map(|sequence| short(sequence.len())));
        let begins = upload.len();
        if uneven && take == Take::Tokens {
            for (row, sequence) in sequences.iter().enumerate() {
                upload.extend((row * longest..row * longest + sequence.len()).map(short));
            }
        }
        let ends = upload.len();
        let odd = |id: &u32| TYPED <= *id || shape.padding == Some(*id);
        let odd = sequences.iter().any(|sequence| sequence.iter().any(odd));
        if odd {
            for sequence in sequences {
                let mut next = shape.padding.map_or(0, |padding| padding + 1);
                for id in *sequence {
                    let kind = if TYPED <= *id { short(shape.positions) } else { 0 };
                    let own = shape.padding.filter(|padding| *padding == id & !TYPED);
                    upload.push(kind + own.unwrap_or(next));
                    next += u32::from(own.is_none());
                }
                upload.resize(upload.len() + longest - sequence.len(), 0);
            }
        }
        let length = upload.len();
        let all = Tensor::from_vec(upload, length, device)?;
        let steps = steps.narrow(1, 0, longest)?;
        let lengths = all.narrow(0, area, rows)?.reshape((rows, 1))?;
        let kept = || steps.broadcast_lt(&lengths)?.to_dtype(DType::F32);
        let positions = || all.narrow(0, ends, area);
        let tokens = || all.narrow(0, begins, ends - begins);
        Ok(Self {
            rows,
            longest,
            ids: all.narrow(0, 0, area)?,
            positions: odd.then(positions).transpose()?,
            kept: uneven.then(kept).transpose()?,
            lengths: lengths.to_dtype(DType::F32)?,
            tokens: (begins < ends).then(tokens).transpose()?,
            steps,
        })
    }

    /// What is added to attention scores, broadcast over heads: `[rows, 1, 1, longest]` in `dtype`, 0 for a token,
    /// −32768 behind the end, which is far enough and finite in f16 too.
    pub(super) fn mask(&self, dtype: DType) -> Result<Option<Tensor>> {
        let mask = |kept: &Tensor| {
            kept.reshape((self.rows, 1, 1, self.longest)).and_then(|kept| additive(&kept, dtype))
        };
        self.kept.as_ref().map(mask).transpose()
    }

    /// The rows of the last layer whose states are asked for: of `[rows × longest, hidden]` under [`Take::First`] the
    /// first tokens', `[rows, hidden]`, else all.
    pub(super) fn asked(&self, states: Tensor, take: Take) -> Result<Tensor> {
        if take != Take::First {
            return Ok(states);
        }
        let hidden = states.dim(1)?;
        states.reshape((self.rows, self.longest, hidden))?.narrow(1, 0, 1)?.squeeze(1)?.contiguous()
    }

    /// `states` is `[rows × longest, hidden]`, or what [`asked`](Self::asked) has left of it. Sums are taken in f32.
    pub(super) fn take(&self, states: &Tensor, take: Take) -> Result<Tensor> {
        let hidden = states.dim(1)?;
        let by_row = |states: &Tensor| states.reshape((self.rows, self.longest, hidden));
        match take {
            Take::Tokens => match &self.tokens {
                Some(tokens) => states.index_select(tokens, 0),
                None => Ok(states.clone()),
            },
            Take::First => Ok(states.clone()),
            Take::Mean => {
                // A product with the mask: one read of the states, summed in f32.
                let kept = match &self.kept {
                    Some(kept) => kept.clone(),
                    None => Tensor::ones((self.rows, self.longest), DType::F32, states.device())?,
                };
                let share = kept.broadcast_div(&self.lengths)?.unsqueeze(1)?;
                share.matmul(&by_row(&states.to_dtype(DType::F32)?)?)
            }
            Take::Max => {
                let mut states = by_row(&states.to_dtype(DType::F32)?)?;
                if let Some(kept) = &self.kept {
                    let below = ((kept - 1.0)? * 1e30)?.unsqueeze(2)?;
                    states = states.broadcast_add(&below)?;
                }
                states.max(1)
            }
        }
    }
}

/// 1 where a score counts, 0 where not, as what is added to it.
pub(super) fn additive(kept: &Tensor, dtype: DType) -> Result<Tensor> {
    // A power of two, and 0 where it counts: exact in each dtype.
    kept.affine(32_768.0, -32_768.0)?.to_dtype(dtype)
}

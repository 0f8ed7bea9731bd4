//! The seam to whoever asks for hidden states.

use super::layers::Workspace;
use crate::model::kernels::Precision;

/// A token of type 1, one of the second text of a pair, bears this bit in its id.
pub const TYPED: u32 = 1 << 31;

/// A forward without padding, on the CPU.
pub trait Packed: std::fmt::Debug + Send + Sync {
    /// The last hidden states of sequences laid end to end, `[tokens, hidden]` f32, and where each sequence begins
    /// (`[sequences + 1]`); with [`States::First`] a sequence is its first token alone. The same bits either way, and
    /// whatever other sequences there are. Ids must be known, sequences not empty and not longer than the model takes.
    fn forward<'a>(
        &self,
        sequences: &[&[u32]],
        states: States,
        workspace: &'a mut Workspace,
    ) -> (&'a [f32], &'a [usize]);

    /// What its products are computed in.
    fn precision(&self) -> Precision;

    /// Width of a token's vector.
    fn hidden(&self) -> usize;

    /// Whether a token id has a vector.
    fn knows(&self, id: u32) -> bool;

    /// Bytes of the weights.
    fn bytes(&self) -> u64;
}

/// Which hidden states are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum States {
    /// Every token's.
    All,
    /// The first token's of each sequence: the last layer then computes the others' keys and values only.
    First,
}

/// What a head takes of the last hidden states, `[tokens, hidden]` f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// Every token's.
    Tokens,
    /// The first token's of each sequence.
    First,
    /// The mean over all tokens of a sequence, special ones included, as sentence-transformers does.
    Mean,
    /// The largest of each dimension over a sequence.
    Max,
}

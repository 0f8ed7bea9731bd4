//! What the loops take.

use super::product::Line;

/// The parameters of a layer norm: each `[hidden]` f32.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// Scale.
    pub gamma: &'a [f32],
    /// Shift.
    pub beta: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

/// Positions as rotations of queries and keys, `[positions, head_dim / 2]` f32 each: pair `i` of a head is its
/// dimensions `i` and `i + head_dim / 2`. Su et al. 2021.
#[derive(Debug, Clone, Copy)]
pub struct Rotation<'a> {
    /// Cosines.
    pub cos: &'a [f32],
    /// Sines.
    pub sin: &'a [f32],
}

/// One head of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// `[length, 3 × hidden]`.
    pub(super) tokens: &'a [f32],
    pub(super) bias: &'a [f32],
    pub(super) hidden: usize,
    pub(super) dim: usize,
    /// Where the head's columns begin.
    pub(super) column: usize,
    pub(super) rotation: Option<Rotation<'a>>,
}

/// Buffers of [`attention`](super::attention::attention), reused between calls.
#[derive(Debug, Default)]
pub struct Scratch {
    /// `[length, dim]`, scaled.
    pub(super) queries: Vec<f32>,
    /// A key on its way into the panels, `[dim]`.
    pub(super) key: Vec<f32>,
    /// Panels `[dim][32 keys]`.
    pub(super) keys: Vec<Line<f32, 16>>,
    /// Panels `[length][32 dimensions]`.
    pub(super) values: Vec<Line<f32, 16>>,
    /// `[QUERIES, padded length]`.
    pub(super) scores: Vec<f32>,
}

//! Matrix products with weights that are packed once, when the model is loaded.
//!
//! ```text
//!  f32    panel = [inputs][32 outputs]                 tile = 12 rows × 32 outputs in registers (AVX-512)
//!  bf16   panel = [inputs / 2][32 outputs][2 inputs]   the same tile, 2 inputs an instruction (AVX512_BF16)
//!  int8   panel = [inputs / 4][32 outputs][4 inputs]   the same tile, 4 inputs an instruction (VNNI)
//! ```
//!
//! A tile walks down one panel: two loads of weights and one broadcast a row feed all its multiply-adds. Every
//! row's sums run over the inputs in the same order in every tile, so a row's bits depend neither on the rows
//! beside it nor on its place among them.
//!
//! int8 is dynamic: weights have a scale for each output (symmetric, fitted once), rows a scale and a zero point
//! each (asymmetric over the row's own range, since what follows a GELU is hardly negative). The products are
//! summed in i32, exactly. Without VNNI weights have 7 bits instead of 8, so that the sum of two products fits 16.
//!
//! f64 is the same with panels of 16 outputs.
//!
//! bf16 rounds both factors to 8 bits of mantissa, to even; products are exact and summed in f32.

mod bf16;
mod dense;
mod double;
mod int8;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use bf16::Bf16;
pub use dense::Dense;
pub use double::Double;
pub use int8::Int8;

pub(super) use dense::{Panels, multiply};

/// Outputs of a panel: two AVX-512 registers of f32.
const PANEL: usize = 32;

/// Rows of a tile: 24 accumulators of AVX-512's 32 registers.
const ROWS: usize = 12;

/// Inputs that one bf16 instruction takes at once.
const PAIR: usize = 2;

/// A cache line, so that no load of a panel straddles two.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line<T, const N: usize>(pub(super) [T; N]);

/// Rows of a product's left side, prepared for its weights; a buffer that is reused.
///
/// For int8 in u8: value = scale × (byte − zero). A row with a NaN has a scale of NaN.
#[derive(Debug, Default)]
pub struct Rows {
    /// `[rows, stride]`.
    bytes: Vec<u8>,
    stride: usize,
    scales: Vec<f32>,
    zeros: Vec<i32>,
    /// For bf16: `[rows, pairs]`.
    halves: Vec<[u16; PAIR]>,
    pairs: usize,
}

/// Where a weight stands among panels of which an instruction takes `group` inputs at once: its line, and its place there.
#[inline]
fn slot(group: usize, inputs: usize, output: usize, input: usize) -> (usize, usize) {
    let (panel, column) = (output / PANEL, output % PANEL);
    let line = (panel * inputs.div_ceil(group) + input / group) * 2 + column / 16;
    (line, column % 16 * group + input % group)
}

/// Rows of a product `[rows, inputs]` → `[rows, outputs]`.
///
/// # Panics
///
/// When the lengths do not fit: a bug of the caller.
fn rows_of<N>((x, inputs): (&[N], usize), (out, outputs): (&[N], usize)) -> usize {
    let rows = out.len() / outputs.max(1);
    assert!(x.len() == rows * inputs && out.len() == rows * outputs, "shapes of a product");
    rows
}

/// A stride of at least so many bytes. Rows a multiple of 512 apart would share a few sets of the first cache.
fn spread(bytes: usize) -> usize {
    if bytes.is_multiple_of(512) { bytes + 64 } else { bytes }
}

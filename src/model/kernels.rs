//! The loops that a batch spends its time in, each written once and compiled three times: for AVX-512, for AVX2
//! with FMA, and for any CPU. Which one runs is chosen by what the CPU has, so one binary serves all.
//!
//! All matrices are row-major and dense; lengths are checked at the entrance, and the functions need no
//! alignment. A row's result never depends on the rows beside it.
//!
//! The only module of `model` with `unsafe`: calls into a compiled variant after the CPU was asked, and the loads
//! and stores of the matrix products.
#![expect(unsafe_code, reason = "compiled variants are called after the CPU was asked what it has")]

mod attention;
mod buffer;
mod level;
mod loops;
mod math;
mod operands;
mod product;

pub use attention::{Attention, attention};
pub(super) use buffer::room;
pub use level::{Level, level};
pub use loops::{
    add_distances, add_norm, add_then_norm, bias_gelu, gelu_gate, load_head, norm, softmax,
};
pub use operands::{Head, Norm, Rotation, Scratch};
pub use product::{Bf16, Dense, Double, Int8, Rows};

/// What a model's matrix products are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// As it was trained.
    F32,
    /// Both factors rounded to bf16, sums in f32; everything between the products stays f32.
    Bf16,
    /// Weights by output, activations by row; everything between the products stays f32.
    Int8,
}

impl Precision {
    /// As `model.precision` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

//! The proof of the promise for what was committed: pure, facts in, counter-examples out.
//!
//! ```text
//!  manifests ────┐
//!  input offsets ┼─► Checker ─► Report: what is proven, the first counter-examples of each kind, what cannot be proven
//!  outcomes ─────┤
//!  offsets ──────┘
//! ```
//!
//! Proven is, for the offsets of each input partition below the committed one: exactly one outcome, of a batch whose
//! manifest of this group and topic id tells of it; in the order of the input within each partition of the output; by
//! the version that the manifest names; as many in each batch as the manifest counts; and no version that goes back
//! without its range saying so. Nothing may lie at or beyond the committed offset, for outcomes and offsets are one
//! transaction.
//!
//! What retention, compaction or sparse headers have taken away is neither proven nor violated: it is named.
//!
//! Memory: two bits an offset while its stretch of 65,536 is not complete, and then none; about a hundred bytes a batch
//! and 32 for each input partition in it.

pub mod checker;
mod doubt;
pub mod facts;
mod index;
mod judge;
mod offsets;
pub mod recompute;
mod report;
mod scope;

pub use crate::log::manifest::{Manifest, Range};
pub use checker::{At, Checker, Counted};
pub use facts::{Message, Outcome, What};
pub use index::{Model, Tally};
pub use report::{Effort, Kind, Recomputed, Report, Unproven, Violation};
pub use scope::{After, Input, Scope, Topic};

#[cfg(test)]
mod history;
#[cfg(test)]
mod tests;

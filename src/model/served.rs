//! A model as it serves: with its identity, and what it has answered before.

use std::sync::Arc;

use super::Model;
use super::cache::Cache;
use super::report::Report;
use crate::record::{ModelId, Signature};

/// A model with its identity, as the registry hands it over.
pub struct Served {
    /// Name, version, digest.
    pub id: ModelId,
    /// What it takes and gives.
    pub signature: Arc<Signature>,
    /// The model itself.
    pub model: Box<dyn Model>,
    /// How it came through the gate.
    pub report: Report,
    /// What it has answered before, where `model.cache` says so.
    pub cache: Option<Cache>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("id", &self.id).finish_non_exhaustive()
    }
}

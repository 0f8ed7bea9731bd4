//! How a version is to be loaded.

use serde::{Deserialize, Serialize};

use crate::config::{self, Config};
use crate::record::Version;

/// How a version is to be loaded: who it is, which fields its input is in, and what `model` of the configuration says.
/// An option of models is a key of [`config::Model`], and stands nowhere else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadOptions {
    /// The registered name; default: the manifest's, else the directory's.
    pub name: Option<String>,
    /// The version; 0 for a plain directory.
    pub version: Version,
    /// The field that holds the text, or an image in base64: `input.field`.
    pub field: String,
    /// The field that holds the second text of a pair: `input.pair_field`.
    pub pair_field: String,
    /// `model` of the configuration: device, precision, task and the others.
    pub model: config::Model,
}

impl LoadOptions {
    /// What a configuration says, of no version in particular.
    pub fn of(config: &Config) -> Self {
        let config::Input { field, pair_field, .. } = config.input.clone();
        let (name, version) = (None, Version::default());
        Self { name, version, field, pair_field, model: config.model.clone() }
    }
}

/// What a configuration says that says nothing: on the CPU, in f32, the text in the field `text`.
impl Default for LoadOptions {
    fn default() -> Self {
        Self::of(&Config::default())
    }
}

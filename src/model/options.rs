//! How a version is to be loaded.

use serde::{Deserialize, Serialize};

use crate::config::{self, Config};
use crate::record::Version;

/// How a version is to be loaded: who it is, which fields its input is in, and what `model` of the configuration says.
/// An option of models is a key of [`config::Model`], and stands nowhere else.
///
/// # Examples
///
/// ```
/// use tidemill::config::{Model, Precision};
/// use tidemill::model::options::LoadOptions;
///
/// let model = Model { precision: Precision::Int8, max_length: Some(128), ..Model::default() };
/// let options = LoadOptions { field: "body".to_owned(), model, ..LoadOptions::default() };
/// ```
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A trial in a process of its own loads by the same options: they go there as JSON.
    #[test]
    fn options_are_the_same_after_json() {
        let model = "{uri: 'models:/m@champion', poll: 1500 ms, allow_change: [fields], device: 'cuda:0,cuda:1', \
                     workers: 3, task: text-ranking, precision: bf16, determinism: strict, cache: 10 MiB, \
                     on_long: chunks, chunk_overlap: 3, max_length: 77, aggregation: first}";
        let model: config::Model = serde_saphyr::from_str(model).unwrap();
        let version = Version(7);
        let named =
            LoadOptions { name: Some("m".to_owned()), version, model, ..LoadOptions::default() };
        for options in [LoadOptions::default(), named] {
            let text = serde_json::to_vec(&options).unwrap();
            assert_eq!(serde_json::from_slice::<LoadOptions>(&text).unwrap(), options);
        }
    }
}

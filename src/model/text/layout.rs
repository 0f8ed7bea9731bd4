//! Where a text model's files are, and what `modules.json` says comes after the encoder.

use std::path::{Component, Path};

use serde::Deserialize;
use serde_json::Value;

use crate::model::files::Error;
use crate::model::folder::{Folder, MODULES};

/// What says which class of sentence-transformers a folder is for, and how its texts are to be encoded.
pub(super) const ENCODE: &str = "config_sentence_transformers.json";

/// A module that comes after the encoder.
#[derive(Debug)]
pub(super) struct Module<'a> {
    pub(super) kind: Kind,
    /// Its files.
    pub(super) folder: Folder<'a>,
}

/// What is computed of the modules of sentence-transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Transformer,
    Pooling,
    Dense,
    LayerNorm,
    Normalize,
    /// Does nothing but in training.
    Dropout,
}

const KINDS: [(&str, Kind); 6] = [
    ("Transformer", Kind::Transformer),
    ("Pooling", Kind::Pooling),
    ("Dense", Kind::Dense),
    ("LayerNorm", Kind::LayerNorm),
    ("Normalize", Kind::Normalize),
    ("Dropout", Kind::Dropout),
];

/// Where sentence-transformers has kept its modules, up to 5.3 and since.
const HOMES: [&str; 3] = [
    "sentence_transformers.models",
    "sentence_transformers.base.modules",
    "sentence_transformers.sentence_transformer.modules",
];

impl Kind {
    /// The kind that a type in [`MODULES`] names: `HOME.Class`, or `HOME.file.Class` with the class's own file.
    fn of(name: &str) -> Option<Self> {
        let (home, class) = name.rsplit_once('.')?;
        let kind = KINDS.iter().find(|(known, _)| *known == class)?.1;
        let file =
            if class == "LayerNorm" { "layer_norm".to_owned() } else { class.to_lowercase() };
        let known = HOMES.iter().any(|known| {
            home.strip_prefix(known).is_some_and(|rest| {
                rest.is_empty()
                    || rest.strip_prefix('.').is_some_and(|own| own == class || own == file)
            })
        });
        known.then_some(kind)
    }
}

/// Where the encoder's files are, and what comes after it.
#[derive(Debug)]
pub(in crate::model) struct Layout<'a> {
    /// The folder with `config.json`, the weights and the tokenizer.
    pub(in crate::model) encoder: Folder<'a>,
    /// What makes an embedding of the encoder's states; `None` without [`MODULES`], and of a cross-encoder.
    pub(super) modules: Option<Vec<Module<'a>>>,
}

/// A line of [`MODULES`].
#[derive(Deserialize)]
struct Line {
    name: String,
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

impl<'a> Layout<'a> {
    /// Reads `modules.json`, where there is one.
    pub(in crate::model) fn read(dir: &'a Path) -> Result<Self, Error> {
        let root = Folder::root(dir);
        let Some(lines) = root.optional::<Vec<Line>>(MODULES)? else {
            return Ok(Self { encoder: root, modules: None });
        };
        let fail = |message: String| root.fail(MODULES, message);
        let config: Value = root.optional(ENCODE)?.unwrap_or_default();
        // Null is none of these: sentence-transformers then takes the mean, whatever the modules are.
        let cross = match config.get("model_type") {
            None => false,
            Some(class) if class == "SentenceTransformer" => false,
            Some(class) if class == "CrossEncoder" => true,
            Some(other) => {
                let message = format!(
                    "model_type {other}: models of the classes SentenceTransformer and CrossEncoder are supported"
                );
                return Err(root.fail(ENCODE, message));
            }
        };
        let mut modules = Vec::new();
        for (number, line) in lines.iter().enumerate() {
            let Some(kind) = Kind::of(&line.kind) else {
                return Err(fail(unknown(&line.kind)));
            };
            if lines[..number].iter().any(|before| before.name == line.name) {
                return Err(fail(format!("two modules are called {:?}", line.name)));
            }
            let name = line.path.trim_start_matches("./").trim_end_matches('/');
            let inside = Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
            if !inside {
                return Err(fail(format!("path {:?} leads out of the folder", line.path)));
            }
            modules.push(Module { kind, folder: Folder::new(dir, name) });
        }
        let first = modules.first().filter(|module| module.kind == Kind::Transformer);
        let Some(encoder) = first.map(|module| module.folder.clone()) else {
            return Err(fail("the first module must be a Transformer".to_owned()));
        };
        modules.remove(0);
        if cross && !modules.is_empty() {
            let message = "modules after the Transformer of a CrossEncoder are not supported";
            return Err(fail(message.to_owned()));
        }
        Ok(Self { encoder, modules: (!cross).then_some(modules) })
    }
}

/// Why a type of module is refused.
fn unknown(name: &str) -> String {
    let known = KINDS.map(|(name, _)| name).join(", ");
    if name.starts_with("sentence_transformers.") {
        format!(
            "module {name:?} is not supported; supported are {known}. Serve this model with sentence-transformers, or \
             choose one that is made of these modules"
        )
    } else {
        format!(
            "module {name:?} is code in the model's folder, and no code of a model is run; supported are \
             sentence-transformers' own {known}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_modules_are_known_by_their_whole_names() {
        for (name, expect) in [
            ("sentence_transformers.models.Transformer", Some(Kind::Transformer)),
            ("sentence_transformers.models.Pooling", Some(Kind::Pooling)),
            ("sentence_transformers.models.Pooling.Pooling", Some(Kind::Pooling)),
            ("sentence_transformers.base.modules.transformer.Transformer", Some(Kind::Transformer)),
            ("sentence_transformers.base.modules.dense.Dense", Some(Kind::Dense)),
            ("sentence_transformers.base.modules.normalize.Normalize", Some(Kind::Normalize)),
            (
                "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
                Some(Kind::Pooling),
            ),
            (
                "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm",
                Some(Kind::LayerNorm),
            ),
            ("sentence_transformers.models.Dropout", Some(Kind::Dropout)),
            ("sentence_transformers.models.WeightedLayerPooling", None),
            ("sentence_transformers.sparse_encoder.models.SpladePooling", None),
            ("sentence_transformers.models.CNN", None),
            ("sentence_transformers.models.other.Pooling", None),
            ("modeling_mine.Transformer", None),
            ("Pooling", None),
        ] {
            assert_eq!(Kind::of(name), expect, "{name}");
        }
    }
}

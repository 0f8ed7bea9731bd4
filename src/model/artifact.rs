//! A version's files: read, checked against their digests, built, warmed up, compared with golden vectors.
//!
//! An artifact is a directory. With `manifest.json` every file is checked against its SHA-256; a plain
//! Hugging Face directory without one works as it stands, its digest is computed over the files that count.
//! A version of a registry always has one.
//!
//! Nothing is mapped: a file that changes under a mapping is undefined behaviour, and a registry is a place
//! where files change. Nothing outside the directory is read, whatever a name or a link says. Weights are
//! safetensors only: no pickle, no code. Whoever wrote the files, loading them ends, with a model or a reason.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::cache::Cache;
use super::files::{Error, json, present, within};
use super::options::LoadOptions;
use super::served::Served;
use super::{Model, image, tabular, text};
use crate::printable;
use crate::record::ModelId;

mod found;
mod golden;
mod manifest;
mod need;
mod warm;

pub use golden::tolerance;
pub use manifest::{FileDigest, Golden, Manifest};
pub use manifest::{digest, digests, verify, verify_registered, write_manifest};

pub(super) use found::{ends, is_adapter};
pub(crate) use need::check as fits;

/// Builds the model of a directory without any check of the gate.
///
/// # Errors
///
/// What is wrong with its files.
pub fn build(dir: &Path, options: &LoadOptions) -> Result<Box<dyn Model>, Error> {
    // A tokenizer's rules, for one, are code of others on text of others.
    let built = catch_unwind(AssertUnwindSafe(|| unguarded(dir, options)));
    built.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(Error::Gate(format!("loading panicked: {}", printable::name(text))))
    })
}

/// Whether a directory is a tabular model's: by its task or, where that is missing or wrong, by its files.
fn is_tabular(dir: &Path, config: &Value) -> bool {
    let task = config.get("task").and_then(Value::as_str).unwrap_or_default();
    let other = config.get("model_type").is_some() || config.get("architectures").is_some();
    task.starts_with("tabular-") || (!other && present(dir, "preprocess.json"))
}

fn unguarded(dir: &Path, options: &LoadOptions) -> Result<Box<dyn Model>, Error> {
    let folder = found::folder(dir)?;
    let config: Value = json(dir, &within(&folder, "config.json"))?;
    if is_tabular(dir, &config) {
        if options.model.device != "cpu" {
            let message = format!(
                "tables are computed on the CPU, not on {:?}; set model.device: cpu",
                options.model.device
            );
            return Err(Error::config("config.json", message));
        }
        return Ok(Box::new(tabular::load(dir)?));
    }
    if let Some(how) = config.get("quantization_config").filter(|how| !how.is_null()) {
        let message = format!(
            "quantization_config {how}: weights that were quantised are not supported; save the model in float32, \
             bfloat16 or float16 without it, and set model.precision to compute in int8"
        );
        return Err(Error::config("config.json", message));
    }
    let architecture = config.pointer("/architectures/0").and_then(Value::as_str);
    let family = config.get("model_type").and_then(Value::as_str);
    if architecture.is_some_and(|name| name.contains("ForImageClassification"))
        || family == Some("vit")
    {
        return Ok(Box::new(image::load(dir, options)?));
    }
    text::load(dir, options).map_err(|error| Error::Text(Box::new(error)))
}

/// Whether the files of a directory are checked against a manifest.
pub fn has_manifest(dir: &Path) -> bool {
    present(dir, manifest::FILE)
}

/// Loads a version through the whole gate: size, digests, build, warm-up, golden vectors. With `options.name` it is a
/// registered version, and has a manifest.
///
/// # Errors
///
/// The first check that failed, and how.
pub fn load(dir: &Path, options: &LoadOptions) -> Result<Served, Error> {
    fits(dir, options)?;
    let (manifest, digest) = if options.name.is_some() {
        verify_registered(dir).map(|(manifest, digest)| (Some(manifest), digest))?
    } else {
        verify(dir)?
    };
    let said = manifest.as_ref().map(|manifest| manifest.task);
    let mut options = options.clone();
    options.model.task = options.model.task.or(said);
    let model = build(dir, &options)?;
    for note in &model.about().notes {
        tracing::warn!(model = %dir.display(), "{note}");
    }
    warm::warm(model.as_ref())?;
    golden::check(dir, model.as_ref(), manifest.as_ref())?;
    let named = options.name.clone().or_else(|| manifest.and_then(|manifest| manifest.name));
    let absolute = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let directory = || absolute.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = named.or_else(directory).unwrap_or_else(|| "model".to_owned());
    let id = ModelId {
        name: printable::name(&name).into(),
        version: options.version,
        digest: digest.into(),
    };
    let signature = Arc::new(model.about().signature());
    Ok(Served { id, signature, model, cache: Cache::new(options.model.cache.0) })
}

//! The gate: a version serves once it has passed every step, in order.
//!
//! ```text
//!  folder ─► memory ─► digests ─► build ─► warm-up ─► golden ─► Served
//! ```
//!
//! Nothing is mapped: a file that changes under a mapping is undefined behaviour, and a registry is a place
//! where files change. Nothing outside the directory is read, whatever a name or a link says. Weights are
//! safetensors only: no pickle, no code. Whoever wrote the files, loading them ends, with a model or a reason.
//!
//! # Adding a step
//!
//! An arm in [`Step`], and a line in `through`, which runs them.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::artifact::{self, Checked, Manifest};
use super::cache::Cache;
use super::files::Error;
use super::options::LoadOptions;
use super::served::Served;
use super::{Model, image, tabular, text};
use crate::memory::mebibytes;
use crate::printable;
use crate::record::ModelId;
use contents::Contents;

mod contents;
mod golden;
mod need;
mod warm;

use super::report::{Refused, Report, Step};
pub use golden::tolerance;

/// What has passed every step.
struct Passed {
    model: Box<dyn Model>,
    artifact: Checked,
}

/// Loads a version through the whole gate. With `options.name` it is a registered version, and has a manifest.
///
/// # Errors
///
/// The first step that refused it, and why.
pub fn load(dir: &Path, options: &LoadOptions) -> Result<Served, Refused> {
    let check = if options.name.is_some() { artifact::verify_registered } else { artifact::verify };
    let mut report = Report::default();
    match through(dir, options, check, &mut report) {
        Ok(passed) => Ok(served(dir, options, passed, report)),
        Err(error) => Err(Refused { report, error }),
    }
}

/// Makes a version of a registry of a directory whose files are complete: through the gate, and once that is passed the
/// manifest is written. What it says of itself, how it passed, and what whoever loads it should know.
///
/// # Errors
///
/// The first step that refused it, and why; a manifest that cannot be written.
pub fn admit(
    dir: &Path,
    name: &str,
    options: &LoadOptions,
) -> Result<(Manifest, Report, Vec<String>), Refused> {
    let mut report = Report::default();
    // A manifest that is there already is written anew.
    let check = |dir: &Path| artifact::digests(dir).map(artifact::plain);
    let admitted =
        through(dir, options, check, &mut report).and_then(|Passed { model, artifact }| {
            let about = model.about();
            let golden = artifact.files.contains_key(golden::FILE).then(golden::own);
            let manifest = Manifest {
                format: 1,
                task: about.task,
                architecture: about.architecture.clone(),
                name: Some(name.to_owned()),
                files: artifact.files,
                digest: artifact.digest,
                golden,
            };
            manifest.write(dir)?;
            Ok((manifest, about.notes.clone()))
        });
    match admitted {
        Ok((manifest, notes)) => Ok((manifest, report, notes)),
        Err(error) => Err(Refused { report, error }),
    }
}

/// Refuses a directory that holds no model, or one that would not fit, before anything else is done with it.
///
/// # Errors
///
/// What it holds instead; what it takes and what is left.
pub(crate) fn fits(dir: &Path, options: &LoadOptions) -> Result<(), Error> {
    need::check(&Contents::read(dir)?, options).map(drop)
}

/// Builds the model of a directory without any other step.
///
/// # Errors
///
/// What is wrong with its files.
pub fn build(dir: &Path, options: &LoadOptions) -> Result<Box<dyn Model>, Error> {
    guarded(Contents::read(dir)?, options)
}

/// Runs the steps; `check` is what becomes of the digests.
fn through(
    dir: &Path,
    options: &LoadOptions,
    check: impl FnOnce(&Path) -> Result<Checked, Error>,
    report: &mut Report,
) -> Result<Passed, Error> {
    let contents = report.step(dir, Step::Folder, || {
        let contents = Contents::read(dir)?;
        let place = match contents.folder() {
            "" => "the weights are in the folder itself".to_owned(),
            folder => format!("the weights are in {folder}"),
        };
        Ok((contents, place))
    })?;
    report.step(dir, Step::Memory, || Ok(((), need::check(&contents, options)?)))?;
    let artifact = report.step(dir, Step::Digests, || {
        let artifact = check(dir)?;
        let said = if artifact.manifest.is_some() { "as in" } else { "without" };
        let found = format!("{} files, {said} manifest.json", artifact.files.len());
        Ok((artifact, found))
    })?;
    let manifest = artifact.manifest.as_ref();
    let mut options = options.clone();
    options.model.task = options.model.task.or_else(|| manifest.map(|manifest| manifest.task));
    let model = report.step(dir, Step::Build, || {
        let model = guarded(contents, &options)?;
        let about = model.about();
        let (precision, device) = (about.precision, &about.device);
        let bytes = mebibytes(about.bytes);
        let built = format!("{} in {precision} on {device}, {bytes}", about.architecture);
        Ok((model, built))
    })?;
    for note in &model.about().notes {
        tracing::warn!(model = %dir.display(), "{note}");
    }
    report.step(dir, Step::WarmUp, || {
        let inputs = warm::warm(model.as_ref())?;
        Ok(((), format!("{inputs} sizes of input")))
    })?;
    report.step(dir, Step::Golden, || {
        let compared = golden::check(dir, model.as_ref(), manifest)?;
        let found = match compared {
            Some(count) => format!("{count} numbers and texts are as they were"),
            None => "there are no golden vectors".to_owned(),
        };
        Ok(((), found))
    })?;
    Ok(Passed { model, artifact })
}

/// What serves, under its name: the registered one, else the manifest's, else the directory's.
fn served(dir: &Path, options: &LoadOptions, passed: Passed, report: Report) -> Served {
    let Passed { model, artifact: Checked { manifest, digest, .. } } = passed;
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
    let cache = Cache::new(options.model.cache.0);
    Served { id, signature, model, report, cache }
}

/// Builds it. A tokenizer's rules, for one, are code of others on text of others: a panic in it refuses the version.
fn guarded(contents: Contents<'_>, options: &LoadOptions) -> Result<Box<dyn Model>, Error> {
    let built = catch_unwind(AssertUnwindSafe(|| by_family(contents, options)));
    built.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(Error::Gate(format!("loading panicked: {}", printable::name(text))))
    })
}

fn by_family(contents: Contents<'_>, options: &LoadOptions) -> Result<Box<dyn Model>, Error> {
    let (dir, is_tabular) = (contents.dir(), contents.is_tabular());
    let (layout, config) = (contents.layout, contents.config?);
    if is_tabular {
        if options.model.device != "cpu" {
            let message = format!(
                "tables are computed on the CPU, not on {:?}; set model.device: cpu",
                options.model.device
            );
            return Err(Error::config("config.json", message));
        }
        return Ok(Box::new(tabular::load(dir, &config)?));
    }
    let said = config.value();
    if let Some(how) = said.get("quantization_config").filter(|how| !how.is_null()) {
        let message = format!(
            "quantization_config {how}: weights that were quantised are not supported; save the model in float32, \
             bfloat16 or float16 without it, and set model.precision to compute in int8"
        );
        return Err(Error::config("config.json", message));
    }
    let architecture = said.pointer("/architectures/0").and_then(Value::as_str);
    let family = said.get("model_type").and_then(Value::as_str);
    if architecture.is_some_and(|name| name.contains("ForImageClassification"))
        || family == Some("vit")
    {
        return Ok(Box::new(image::load(dir, &config, options)?));
    }
    text::load(&layout, &config, options).map_err(|error| Error::Text(Box::new(error)))
}

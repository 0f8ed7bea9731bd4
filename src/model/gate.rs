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
use crate::answer::Task;
use crate::config::Place;
use crate::memory::mebibytes;
use crate::printable;
use crate::record::ModelId;
use contents::Contents;

mod contents;
mod golden;
mod need;
mod warm;

pub use super::report::{Refused, Report, Step};
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
///
/// # Examples
///
/// ```
/// use std::path::Path;
///
/// use tidemill::model::gate;
/// use tidemill::model::options::LoadOptions;
///
/// let dir = Path::new("tests/it/data/tiny-bert-labels");
/// let served = gate::load(dir, &LoadOptions::default())?;
/// assert_eq!(served.model.about().labels, ["no", "maybe", "yes"]);
/// for done in &served.report.steps {
///     println!("{done}"); // golden, 1.2ms: 90 numbers and texts are as they were
/// }
/// # Ok::<(), gate::Refused>(())
/// ```
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
    let built = catch_unwind(AssertUnwindSafe(|| {
        let model = by_family(contents, options)?;
        let task = model.about().task;
        if options.model.on_long.cuts() && task != Task::TextEmbedding {
            return Err(Error::Unsupported(format!(
                "model.on_long is chunks or mean, which is for embeddings, and the model is for {}: write truncate or \
                 reject",
                task.name()
            )));
        }
        Ok(model)
    }));
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
        if options.model.device != Place::Cpu {
            let message = format!(
                "tables are computed on the CPU, not on {:?}; set model.device: cpu",
                options.model.device.to_string()
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn data(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data").join(name)
    }

    fn copy(name: &str) -> tempfile::TempDir {
        let to = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(data(name)).unwrap().flatten() {
            fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
        }
        to
    }

    fn steps(report: &Report) -> Vec<Step> {
        report.steps.iter().map(|done| done.step).collect()
    }

    #[test]
    fn a_version_passes_every_step_in_order_and_says_what_was_found() {
        for name in ["linear", "tiny-bert-labels", "tiny-vit"] {
            let served = load(&data(name), &LoadOptions::default()).unwrap();
            assert_eq!(steps(&served.report), Step::ALL, "{name}");
            assert!(served.report.steps.iter().all(|done| done.found.is_some()), "{name}");
            assert_eq!(served.report.times().count(), Step::ALL.len());
        }
    }

    type Spoil = Box<dyn Fn(&Path)>;

    #[test]
    fn the_step_that_refuses_is_the_last_and_the_error_is_its_own() {
        let write = |file: &'static str, text: &'static str| {
            move |dir: &Path| fs::write(dir.join(file), text).unwrap()
        };
        let remove =
            |file: &'static str| move |dir: &Path| fs::remove_file(dir.join(file)).unwrap();
        let wrong = r#"[{"input": {"text": "a"}, "output": {"value": 1.0}}]"#;
        let cases: [(Spoil, Step, &str); 5] = [
            (
                Box::new(remove("model.safetensors")),
                Step::Folder,
                "holds config.json but no weights",
            ),
            (
                Box::new(write("extra.json", "{}")),
                Step::Digests,
                "extra.json: altered or truncated",
            ),
            // What is no JSON any more was altered first of all.
            (Box::new(write("config.json", "{")), Step::Digests, "config.json: altered"),
            (Box::new(write("tokenizer.json", "{}")), Step::Build, "load the text model"),
            (Box::new(write("golden.json", wrong)), Step::Golden, "golden.json, row 0"),
        ];
        for (spoil, last, part) in cases {
            let dir = copy("tiny-bert-labels");
            if last == Step::Digests {
                admit(dir.path(), "mine", &LoadOptions::default()).unwrap();
            }
            spoil(dir.path());
            let refused = load(dir.path(), &LoadOptions::default()).unwrap_err();
            let place = Step::ALL.iter().position(|step| *step == last).unwrap();
            assert_eq!(steps(&refused.report), Step::ALL[..=place], "{refused}");
            let found = refused.report.steps.iter().map(|done| done.found.is_some());
            assert!(found.eq((0..=place).map(|step| step < place)), "only the last refused");
            assert!(refused.to_string().contains(part), "{part} in {refused}");
        }
    }

    /// What was imported is what a load through the gate finds, manifest and all.
    #[test]
    fn what_was_admitted_passes_as_a_version_of_a_registry() {
        let dir = copy("tiny-bert-labels");
        let options = LoadOptions::default();
        let (manifest, report, _) = admit(dir.path(), "mine", &options).unwrap();
        assert_eq!(steps(&report), Step::ALL);
        let registered = LoadOptions { name: Some("mine".to_owned()), ..options };
        let served = load(dir.path(), &registered).unwrap();
        assert_eq!(*served.id.digest, *manifest.digest);
        assert_eq!(served.model.about().task, manifest.task);
        assert_eq!(manifest.golden, Some(golden::own()));
        // Once more: the manifest that is there is written anew, whatever was changed since.
        fs::remove_file(dir.path().join("golden.json")).unwrap();
        assert!(load(dir.path(), &registered).is_err());
        assert_eq!(admit(dir.path(), "mine", &registered).unwrap().0.golden, None);
        load(dir.path(), &registered).unwrap();
    }
}

//! A version's files: read, checked against their digests, built, warmed up, compared with golden vectors.
//!
//! An artifact is a directory. With `manifest.json` every file is checked against its SHA-256; a plain
//! Hugging Face directory without one works as it stands, its digest is computed over the files that count.
//!
//! Nothing is mapped: a file that changes under a mapping is undefined behaviour, and a registry is a place
//! where files change. Nothing outside the directory is read, whatever a name or a link says. Weights are
//! safetensors only: no pickle, no code.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::cache::Cache;
use super::{Fields, Input, Model, Prediction, Served, Task, image, tabular, text, worker};
use crate::config::{Aggregation, Determinism, OnLong, Precision};
use crate::record::{ModelId, Version};

mod warm;

/// Largest `config.json` and the like, in bytes.
const MAX_TEXT: u64 = 64 << 20;

/// Largest file of weights, in bytes.
const MAX_WEIGHTS: u64 = 16 << 30;

/// What is wrong with an artifact.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("read {file}: {source}")]
    Read {
        /// Its name in the artifact, or the directory.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{file}: {message}")]
    Config {
        /// Its name in the artifact.
        file: String,
        /// What is wrong, and what is expected.
        message: String,
    },
    /// A tensor is missing or has another shape or type.
    #[error("model.safetensors: tensor {name:?} {message}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong, expected and found.
        message: String,
    },
    /// The files are not those of the manifest.
    #[error("{file}: altered or truncated: {message}")]
    Altered {
        /// Its name in the artifact.
        file: String,
        /// Expected and found.
        message: String,
    },
    /// The loaded model does not answer as it did when it was made.
    #[error("the gate: {0}")]
    Gate(String),
    /// The text model's own.
    #[error("load the text model")]
    Text(#[source] text::Error),
}

impl Error {
    pub(super) fn tensor(name: &str, message: &str) -> Self {
        Self::Tensor { name: name.to_owned(), message: message.to_owned() }
    }

    pub(super) fn config(file: &str, message: impl Into<String>) -> Self {
        Self::Config { file: file.to_owned(), message: message.into() }
    }
}

/// How a version is to be loaded.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LoadOptions {
    /// The registered name; default: the manifest's, else the directory's.
    pub name: Option<String>,
    /// The version.
    pub version: Version,
    /// The field that holds the text, or an image in base64.
    pub field: String,
    /// What the weights are computed in.
    pub precision: Precision,
    /// What happens to a text longer than the model takes.
    pub on_long: OnLong,
    /// Longest input in tokens.
    pub max_length: Option<u32>,
    /// How a token classifier's labels become spans.
    pub aggregation: Aggregation,
    /// `cpu`, `cuda:0`, `cuda:0,cuda:1`, `metal:0`.
    pub device: String,
    /// Whether an answer's last bits may depend on the batch.
    pub determinism: Determinism,
    /// Bytes of answers that are kept to be given again.
    pub cache: u64,
}

/// `manifest.json`, written last.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// 1.
    pub format: u32,
    /// What the model is for.
    pub task: Task,
    /// `bert`, `mlp`, …
    pub architecture: String,
    /// Of the weights in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// The registered name when it was made; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Every other file.
    pub files: BTreeMap<String, FileDigest>,
    /// Over `files`, as [`digest`] computes it.
    pub digest: String,
    /// Inputs with the answers that they gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub golden: Option<Golden>,
}

/// A file's size and SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// 64 hexadecimal digits.
    pub sha256: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// Golden vectors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Golden {
    /// The file: `[{"input": {…}, "output": {…}}, …]`.
    pub file: String,
    /// Largest difference of any number of an output.
    pub tolerance: f64,
}

/// Refuses numbers of `config.json` that are 0 or so large that no size should be computed from them: name, value,
/// most.
pub(super) fn bounded(numbers: &[(&str, usize, usize)]) -> Result<(), Error> {
    match numbers.iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
        Some((name, value, most)) => {
            let message = format!("{name} is {value}, not between 1 and {most}");
            Err(Error::config("config.json", message))
        }
        None => Ok(()),
    }
}

/// As [`bounded`], for what every transformer has.
pub(super) fn bounded_layers(
    hidden: usize,
    layers: usize,
    heads: usize,
    intermediate: usize,
) -> Result<(), Error> {
    bounded(&[
        ("hidden_size", hidden, 16_384),
        ("num_hidden_layers", layers, 256),
        ("num_attention_heads", heads, 1_024),
        ("intermediate_size", intermediate, 65_536),
    ])
}

/// A JSON file of the artifact.
pub(super) fn json<T: DeserializeOwned>(dir: &Path, file: &str) -> Result<T, Error> {
    let bytes = bytes(dir, file)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::config(file, format!("no valid JSON: {error}")))
}

/// A file, opened without leaving the directory; not larger than its kind may be.
pub(super) fn open(dir: &Path, file: &str) -> Result<File, Error> {
    let read = |source| Error::Read { file: file.to_owned(), source };
    let opened = File::open(inside(dir, file)?).map_err(read)?;
    let size = opened.metadata().map_err(read)?.len();
    let limit = if file.ends_with(".safetensors") { MAX_WEIGHTS } else { MAX_TEXT };
    if limit < size {
        return Err(Error::config(file, format!("{size} bytes, more than {limit}")));
    }
    Ok(opened)
}

/// A file's bytes, without leaving the directory.
pub(super) fn bytes(dir: &Path, file: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = |source| Error::Read { file: file.to_owned(), source };
    open(dir, file)?.read_to_end(&mut bytes).map_err(read)?;
    Ok(bytes)
}

/// A file's size and SHA-256, read piece by piece.
fn file_digest(dir: &Path, file: &str) -> Result<FileDigest, Error> {
    let mut opened = open(dir, file)?;
    let (mut hash, mut bytes, mut piece) = (Sha256::new(), 0, vec![0; 1 << 18]);
    loop {
        let read = |source| Error::Read { file: file.to_owned(), source };
        let count = opened.read(&mut piece).map_err(read)?;
        if count == 0 {
            return Ok(FileDigest { sha256: hexadecimal(&hash.finalize()), bytes });
        }
        hash.update(&piece[..count]);
        bytes += u64::try_from(count).unwrap_or(0);
    }
}

/// The path of a file that is a plain file inside `dir`, through no link.
fn inside(dir: &Path, file: &str) -> Result<PathBuf, Error> {
    let plain = |component| matches!(component, Component::Normal(_));
    if !Path::new(file).components().all(plain) || file.is_empty() {
        return Err(Error::config(
            file,
            "points outside the artifact; names are relative, without \"..\"",
        ));
    }
    let mut path = dir.to_owned();
    for component in Path::new(file).components() {
        path.push(component);
        let metadata = fs::symlink_metadata(&path)
            .map_err(|source| Error::Read { file: file.to_owned(), source })?;
        if metadata.is_symlink() {
            let message =
                "is a symbolic link; an artifact holds its files itself (copy with cp -L)";
            return Err(Error::config(file, message));
        }
        if !metadata.is_dir() && !metadata.is_file() {
            return Err(Error::config(file, "is no regular file"));
        }
    }
    Ok(path)
}

/// The files of an artifact that count, by their relative names. Links are refused, hidden files left out.
pub(crate) fn files(dir: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let path = if folder.is_empty() { dir.to_owned() } else { inside(dir, &folder)? };
        let read = |source| Error::Read { file: path.display().to_string(), source };
        for entry in fs::read_dir(&path).map_err(read)? {
            let name = entry.map_err(read)?.file_name();
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
                continue;
            };
            let name = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            if inside(dir, &name)?.is_dir() {
                folders.push(name);
            } else if counts(&name) {
                names.push(name);
            }
        }
    }
    names.sort();
    Ok(names)
}

/// Whether a file is part of the model: the rest of a Hugging Face directory (other formats) is not.
fn counts(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    name != "manifest.json"
        && extension.is_some_and(|e| ["json", "safetensors", "txt"].contains(&e))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        use std::fmt::Write as _;
        write!(text, "{byte:02x}").unwrap_or_default(); // a String takes every write
        text
    })
}

/// The digest of an artifact: SHA-256 over a line `<sha256>  <name>` for each file, sorted by name.
pub fn digest(files: &BTreeMap<String, FileDigest>) -> String {
    let lines: Vec<String> =
        files.iter().map(|(name, file)| format!("{}  {name}\n", file.sha256)).collect();
    format!("sha256:{}", hexadecimal(&Sha256::digest(lines.concat().as_bytes())))
}

/// Sizes and hashes of the files as they are.
///
/// # Errors
///
/// A file that cannot be read, a link, or no files at all.
pub fn digests(dir: &Path) -> Result<BTreeMap<String, FileDigest>, Error> {
    let names = files(dir)?;
    if names.is_empty() {
        return Err(Error::config(&dir.display().to_string(), empty(dir)));
    }
    let digest = |name: String| file_digest(dir, &name).map(|digest| (name, digest));
    names.into_iter().map(digest).collect()
}

/// Why a directory without `model.safetensors` is not loaded, by what it holds instead.
fn empty(dir: &Path) -> &'static str {
    let holds = |wanted: &str| {
        let mut names = fs::read_dir(dir).into_iter().flatten().flatten();
        names.any(|entry| entry.file_name().to_string_lossy().ends_with(wanted))
    };
    if holds(".onnx") {
        "holds an ONNX graph; those are not run: save the model it was exported from as model.safetensors \
         (transformers: save_pretrained; scikit-learn: config/demo/README.md shows how)"
    } else if holds(".bin") || holds(".pt") || holds(".pkl") {
        "holds a pickle; a pickle can run code when it is read: save the model as model.safetensors"
    } else if holds(".safetensors.index.json") {
        "holds its weights in several files: save them as one model.safetensors (max_shard_size)"
    } else {
        "holds no model: config.json and model.safetensors are wanted"
    }
}

/// Reads the manifest, if there is one, and checks every file of it; the digest either way.
///
/// # Errors
///
/// What is missing, altered, or outside.
pub fn verify(dir: &Path) -> Result<(Option<Manifest>, String), Error> {
    if !dir.is_dir() {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(Error::Read { file: dir.display().to_string(), source });
    }
    let found = digests(dir)?;
    if !dir.join("manifest.json").exists() {
        return Ok((None, digest(&found)));
    }
    let manifest: Manifest = json(dir, "manifest.json")?;
    if manifest.format != 1 {
        return Err(Error::config(
            "manifest.json",
            format!("format {}, this reads 1", manifest.format),
        ));
    }
    for (name, expected) in &manifest.files {
        inside(dir, name)?;
        let altered = |message| Error::Altered { file: name.clone(), message };
        match found.get(name) {
            Some(found) if found == expected => (),
            Some(found) => {
                let (f, e) = (found, expected);
                let message = format!(
                    "{} bytes with sha256 {}, the manifest says {} with {}",
                    f.bytes, f.sha256, e.bytes, e.sha256
                );
                return Err(altered(message));
            }
            None => return Err(altered("of a kind that is not loaded".to_owned())),
        }
    }
    if let Some(extra) = found.keys().find(|name| !manifest.files.contains_key(*name)) {
        let message =
            "is not in the manifest: the artifact was altered after it was made".to_owned();
        return Err(Error::Altered { file: extra.clone(), message });
    }
    let computed = digest(&manifest.files);
    if computed != manifest.digest {
        let message = format!("digest {}, computed {computed}", manifest.digest);
        return Err(Error::Altered { file: "manifest.json".to_owned(), message });
    }
    Ok((Some(manifest), computed))
}

/// Builds the model of a directory without any check of the gate.
///
/// # Errors
///
/// What is wrong with its files.
pub fn build(dir: &Path, options: &LoadOptions) -> Result<Box<dyn Model>, Error> {
    if !dir.join("model.safetensors").exists() {
        return Err(Error::config(&dir.display().to_string(), empty(dir)));
    }
    let config: Value = json(dir, "config.json")?;
    let task = config.get("task").and_then(Value::as_str).unwrap_or_default();
    if task.starts_with("tabular-") {
        if options.device != "cpu" {
            let message =
                format!("runs on the CPU, not on {:?}; set model.device: cpu", options.device);
            return Err(Error::config("config.json", message));
        }
        return Ok(Box::new(tabular::load(dir)?));
    }
    let architecture = config.pointer("/architectures/0").and_then(Value::as_str);
    let family = config.get("model_type").and_then(Value::as_str);
    if architecture.is_some_and(|name| name.ends_with("ForImageClassification"))
        || family == Some("vit")
    {
        return Ok(Box::new(image::load(dir, options)?));
    }
    let text = text::Options {
        field: options.field.clone(),
        precision: options.precision,
        on_long: options.on_long,
        max_length: options.max_length,
        aggregation: options.aggregation,
        device: options.device.clone(),
        determinism: options.determinism,
    };
    text::load(dir, &text).map_err(Error::Text)
}

/// Loads a version through the whole gate: digests, build, warm-up, golden vectors.
///
/// # Errors
///
/// The first check that failed, and how.
pub fn load(dir: &Path, options: &LoadOptions) -> Result<Served, Error> {
    let (manifest, digest) = verify(dir)?;
    let model = build(dir, options)?;
    warm::warm(model.as_ref())?;
    if let Some(golden) = manifest.as_ref().and_then(|manifest| manifest.golden.as_ref()) {
        let exact = options.precision == Precision::F32;
        let tolerance = if exact { golden.tolerance } else { golden.tolerance.max(0.05) };
        compare(dir, model.as_ref(), &golden.file, tolerance)?;
    }
    let named = options.name.clone().or_else(|| manifest.and_then(|manifest| manifest.name));
    let absolute = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let directory = || absolute.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = named.or_else(directory).unwrap_or_else(|| "model".to_owned());
    let id = ModelId { name: name.into(), version: options.version, digest: digest.into() };
    let signature = Arc::new(model.about().signature());
    Ok(Served { id, signature, model, cache: Cache::new(options.cache) })
}

/// Runs the golden inputs, alone and together, and compares every number.
fn compare(dir: &Path, model: &dyn Model, file: &str, tolerance: f64) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Pair {
        input: Fields,
        output: Value,
    }
    let pairs: Vec<Pair> = json(dir, file)?;
    let gate = |row: usize, what: String| Error::Gate(format!("{file}, row {row}: {what}"));
    let mut inputs = Vec::with_capacity(pairs.len());
    for (row, pair) in pairs.iter().enumerate() {
        inputs.push(model.prepare(&pair.input).map_err(|fault| gate(row, fault.to_string()))?);
    }
    let refs: Vec<&Input> = inputs.iter().collect();
    let together = worker::predict(model, &refs).map_err(|refused| gate(0, refused.to_string()))?;
    for (row, (pair, prediction)) in pairs.iter().zip(&together).enumerate() {
        let value = value(prediction).map_err(|error| gate(row, error))?;
        difference(&pair.output, &value, tolerance).map_err(|what| gate(row, what))?;
    }
    Ok(())
}

/// A prediction as the JSON that is published.
fn value(prediction: &Prediction) -> Result<Value, String> {
    let bytes = crate::format::encode_alone(prediction);
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

/// Whether two outputs are equal but for `tolerance` in their numbers.
fn difference(expected: &Value, found: &Value, tolerance: f64) -> Result<(), String> {
    match (expected, found) {
        (Value::Number(e), Value::Number(f)) => {
            let (e, f) = (e.as_f64().unwrap_or(f64::NAN), f.as_f64().unwrap_or(f64::NAN));
            if (e - f).abs() <= tolerance {
                return Ok(());
            }
            Err(format!("{f} where {e} ± {tolerance} was expected"))
        }
        (Value::Array(e), Value::Array(f)) if e.len() == f.len() => {
            e.iter().zip(f).try_for_each(|(e, f)| difference(e, f, tolerance))
        }
        (Value::Object(e), Value::Object(f)) => e.iter().try_for_each(|(name, e)| {
            let f = f.get(name).ok_or_else(|| format!("no member {name:?}"))?;
            difference(e, f, tolerance).map_err(|what| format!("{name}: {what}"))
        }),
        (e, f) if e == f => Ok(()),
        (e, f) => Err(format!("{f} where {e} was expected")),
    }
}

/// Writes `manifest.json` for a directory whose other files are complete: the last step of an import.
///
/// # Errors
///
/// What cannot be read, loaded or written.
pub fn write_manifest(dir: &Path, name: &str, options: &LoadOptions) -> Result<Manifest, Error> {
    let model = build(dir, options)?;
    let files = digests(dir)?;
    let golden = files
        .contains_key("golden.json")
        .then(|| Golden { file: "golden.json".to_owned(), tolerance: 1e-4 });
    let manifest = Manifest {
        format: 1,
        task: model.about().task,
        architecture: model.about().architecture.clone(),
        dtype: None,
        name: Some(name.to_owned()),
        digest: digest(&files),
        files,
        golden,
    };
    let write = |source| Error::Read { file: "manifest.json".to_owned(), source };
    let text = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| Error::config("manifest.json", error.to_string()))?;
    let path = dir.join("manifest.json");
    fs::write(&path, text).map_err(write)?;
    File::open(&path).and_then(|file| file.sync_all()).map_err(write)?;
    Ok(manifest)
}

/// Memory that this process may still take, in bytes, as its limits and the machine stand now; `None` where the system
/// does not say.
pub fn available_memory() -> Option<u64> {
    let used = crate::telemetry::metrics::resident_bytes().unwrap_or(0);
    crate::telemetry::metrics::memory_limit().map(|limit| limit.saturating_sub(used))
}

/// Shared by what hands a version on.
pub type Loaded = Arc<Served>;

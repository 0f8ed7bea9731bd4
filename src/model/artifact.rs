//! An artifact: a model's folder whose files have digests.
//!
//! With `manifest.json`, written last, every file is checked against its SHA-256; a plain Hugging Face folder without one
//! works as it stands, its digest is computed over the files that count. A version of a registry always has one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::files::{Error, files, inside, json, open, present};
use super::found;
use crate::answer::Task;
use crate::printable;

/// The file in the artifact.
const FILE: &str = "manifest.json";

/// `manifest.json`, written last.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// 1.
    pub format: u32,
    /// What the model is for.
    pub task: Task,
    /// `bert`, `mlp`, …
    pub architecture: String,
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    /// The file: `[{"input": {…}, "output": {…}}, …]`, each output as it is published, whole.
    pub file: String,
    /// Largest difference of any number of an output, 0 to 0.05: of 1, or of the number where that is more.
    pub tolerance: f64,
}

/// A file's size and SHA-256, read piece by piece.
fn file_digest(dir: &Path, file: &str, size: u64) -> Result<FileDigest, Error> {
    // A file that grows while it is read would never end.
    let mut opened = open(dir, file)?.take(size.saturating_add(1));
    let (mut hash, mut bytes, mut piece) = (Sha256::new(), 0, vec![0; 1 << 18]);
    loop {
        let count = opened.read(&mut piece).map_err(|source| Error::read(file, source))?;
        if count == 0 {
            return Ok(FileDigest { sha256: hexadecimal(&hash.finalize()), bytes });
        }
        hash.update(&piece[..count]);
        bytes += u64::try_from(count).unwrap_or(0);
    }
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
        return Err(Error::Folder(found::instead(dir, "")));
    }
    let digest =
        |(name, size): (String, u64)| file_digest(dir, &name, size).map(|digest| (name, digest));
    names.into_iter().map(digest).collect()
}

/// An artifact whose files are what they should be.
#[derive(Debug, Clone)]
pub struct Checked {
    /// What it says of itself; `None` of a plain folder.
    pub manifest: Option<Manifest>,
    /// Its files.
    pub files: BTreeMap<String, FileDigest>,
    /// Over `files`, as [`digest`] computes it.
    pub digest: String,
}

/// Reads the manifest, if there is one, and checks every file of it; digests either way.
///
/// # Errors
///
/// What is missing, altered, or outside.
pub fn verify(dir: &Path) -> Result<Checked, Error> {
    if !dir.is_dir() {
        return Err(Error::Folder(found::absent(dir)));
    }
    let found = digests(dir)?;
    if !present(dir, FILE) {
        return Ok(plain(found));
    }
    let manifest: Manifest = json(dir, FILE)?;
    if manifest.format != 1 {
        return Err(Error::config(FILE, format!("format {}, this reads 1", manifest.format)));
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
        return Err(Error::Altered { file: FILE.to_owned(), message });
    }
    Ok(Checked { manifest: Some(manifest), files: found, digest: computed })
}

/// As [`verify`], for a version of a registry: there it was imported, so it has a manifest, and a name for people.
///
/// # Errors
///
/// As [`verify`]; no manifest, or a name in it that could not stand in a line.
pub fn verify_registered(dir: &Path) -> Result<Checked, Error> {
    let checked = verify(dir)?;
    let missing = "is missing: every version of a registry has one, and what is checked against it; import the model \
                   again with `tidemill models import`";
    let manifest = checked.manifest.as_ref().ok_or_else(|| Error::config(FILE, missing))?;
    match &manifest.name {
        Some(name) if *name != printable::name(name) => {
            let message = format!(
                "name {:?} has what cannot be printed, or more than 128 characters",
                printable::name(name)
            );
            Err(Error::config(FILE, message))
        }
        _ => Ok(checked),
    }
}

/// The files of a folder as they are, whatever a manifest says of them.
pub(super) fn plain(files: BTreeMap<String, FileDigest>) -> Checked {
    let digest = digest(&files);
    Checked { manifest: None, files, digest }
}

/// Whether the files of a directory are checked against a manifest.
pub fn has_manifest(dir: &Path) -> bool {
    present(dir, FILE)
}

impl Manifest {
    /// Writes it into a directory whose other files are complete.
    pub(super) fn write(&self, dir: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::config(FILE, error.to_string()))?;
        let path = dir.join(FILE);
        let write = |source| Error::Write { file: FILE.to_owned(), source };
        fs::write(&path, text).map_err(write)?;
        File::open(&path).and_then(|file| file.sync_all()).map_err(write)
    }
}

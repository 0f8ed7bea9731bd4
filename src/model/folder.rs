//! A folder with a model's files, read by their short names.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::files::{self, Error};

/// What lists the modules of sentence-transformers.
pub(super) const MODULES: &str = "modules.json";

/// A folder in an artifact, or the artifact itself.
#[derive(Debug, Clone)]
pub(super) struct Folder<'a> {
    dir: &'a Path,
    /// Relative; empty for the artifact itself.
    name: String,
}

impl<'a> Folder<'a> {
    /// The artifact itself.
    pub(super) fn root(dir: &'a Path) -> Self {
        Self::new(dir, "")
    }

    /// A folder in it.
    pub(super) fn new(dir: &'a Path, name: &str) -> Self {
        Self { dir, name: name.to_owned() }
    }

    /// The artifact.
    pub(super) fn dir(&self) -> &'a Path {
        self.dir
    }

    /// Its name in the artifact; empty for the artifact itself.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The name in the artifact of a file in it.
    pub(super) fn file(&self, file: &str) -> String {
        files::within(&self.name, file)
    }

    /// Whether it has a file.
    pub(super) fn has(&self, file: &str) -> bool {
        files::present(self.dir, &self.file(file))
    }

    /// A file's bytes.
    pub(super) fn bytes(&self, file: &str) -> Result<Vec<u8>, Error> {
        files::bytes(self.dir, &self.file(file))
    }

    /// A JSON file.
    pub(super) fn json<T: DeserializeOwned>(&self, file: &str) -> Result<T, Error> {
        files::json(self.dir, &self.file(file))
    }

    /// A JSON file that may be absent.
    pub(super) fn optional<T: DeserializeOwned>(&self, file: &str) -> Result<Option<T>, Error> {
        self.has(file).then(|| self.json(file)).transpose()
    }

    /// A JSON file of a module, which must be there.
    pub(super) fn declared<T: DeserializeOwned>(&self, file: &str) -> Result<T, Error> {
        if !self.has(file) {
            let message = format!(
                "is missing, and {MODULES} names its module: the folder is incomplete, copy it whole"
            );
            return Err(self.fail(file, message));
        }
        self.json(file)
    }

    /// An error about a file in it.
    pub(super) fn fail(&self, file: &str, message: impl Into<String>) -> Error {
        Error::config(&self.file(file), message)
    }
}

/// A JSON file that was read once, for all who want to know something of it.
#[derive(Debug)]
pub(super) struct Json {
    /// Its name in the artifact.
    file: String,
    bytes: Vec<u8>,
    value: Value,
}

impl Json {
    /// Reads a file of a folder.
    pub(super) fn read(folder: &Folder<'_>, file: &str) -> Result<Self, Error> {
        let bytes = folder.bytes(file)?;
        let file = folder.file(file);
        Ok(Self { value: files::parse(&file, &bytes)?, file, bytes })
    }

    /// All of it.
    pub(super) fn value(&self) -> &Value {
        &self.value
    }

    /// What one reader wants of it. From the text again, so that an error names the line and the key.
    pub(super) fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Error> {
        files::parse(&self.file, &self.bytes)
    }
}

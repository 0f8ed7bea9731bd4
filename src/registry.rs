//! Model registry: which version should serve, and its files.
//!
//! ```text
//!  <root>/<name>/1/…            immutable versions, the manifest written last
//!  <root>/<name>/2/…
//!  <root>/<name>/aliases/champion   a text file holding the version, replaced atomically
//! ```
//!
//! Names and words are `MLflow`'s: `models:/name/3`, `models:/name@champion`. A version never changes once it
//! is there; an alias moves, and moving it is how a model ships and how it is rolled back.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::model::Served;
use crate::model::artifact::{self, LoadOptions};
use crate::record::Version;

pub mod change;
pub mod trial;
mod uri;
pub mod watch;

pub use uri::{NotAUri, Uri};

/// What cannot be done in a registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// Verb.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The name or alias is not there.
    #[error("{0}")]
    NotFound(String),
    /// A name that could leave the registry.
    #[error(
        "{0:?} is no name: 1 to 128 of letters, digits, '.', '_', '-', not starting with a dot"
    )]
    Name(String),
    /// The artifact is not good.
    #[error("{path}", path = path.display())]
    Artifact {
        /// Its directory.
        path: PathBuf,
        /// What is wrong.
        source: artifact::Error,
    },
}

/// What a URI means right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The registered name; `None` for a plain directory.
    pub name: Option<String>,
    /// The version; 0 for a plain directory.
    pub version: Version,
    /// Where its files are.
    pub dir: PathBuf,
}

/// A registered version, for `models list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The registered name.
    pub name: String,
    /// The version.
    pub version: Version,
    /// Aliases that point at it.
    pub aliases: Vec<String>,
}

/// The registry of a directory; without a root only plain directories resolve.
#[derive(Debug, Clone)]
pub struct Registry {
    root: Option<PathBuf>,
}

/// Whether a text is a name that cannot leave the registry.
fn name(text: &str) -> Result<&str, Error> {
    let legal = |c: char| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c);
    let good = (1..=128).contains(&text.len()) && text.chars().all(legal) && !text.starts_with('.');
    if good { Ok(text) } else { Err(Error::Name(text.to_owned())) }
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}

impl Registry {
    /// The registry at `root`.
    pub fn new(root: Option<PathBuf>) -> Self {
        Self { root }
    }

    fn model(&self, text: &str) -> Result<PathBuf, Error> {
        let root = self.root.as_ref();
        let root =
            root.ok_or_else(|| Error::NotFound("no registry: set registry.root".to_owned()))?;
        Ok(root.join(name(text)?))
    }

    /// What a URI means right now: an alias is looked up.
    ///
    /// # Errors
    ///
    /// What is not there, and what is.
    pub fn resolve(&self, uri: &Uri) -> Result<Resolved, Error> {
        let (model, version) = match uri {
            Uri::Directory(dir) => {
                return Ok(Resolved { name: None, version: Version(0), dir: dir.clone() });
            }
            Uri::Version { model, version } => (model, *version),
            Uri::Alias { model, alias } => (model, self.alias(model, alias)?),
        };
        let dir = self.model(model)?.join(version.to_string());
        if !dir.is_dir() {
            let known = self.versions(model)?.iter().map(Version::to_string).collect::<Vec<_>>();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let message = format!("model {model:?} has no version {version}; versions: {known}");
            return Err(Error::NotFound(message));
        }
        Ok(Resolved { name: Some(model.clone()), version, dir })
    }

    /// Resolves and loads through the whole gate.
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve) and [`artifact::load`].
    pub fn load(&self, uri: &Uri, options: &LoadOptions) -> Result<Served, Error> {
        let Resolved { name, version, dir } = self.resolve(uri)?;
        let options = LoadOptions { name, version, ..options.clone() };
        artifact::load(&dir, &options).map_err(|source| Error::Artifact { path: dir, source })
    }

    /// The version that an alias holds.
    ///
    /// # Errors
    ///
    /// When the alias is missing or holds no version.
    pub fn alias(&self, model: &str, alias: &str) -> Result<Version, Error> {
        let path = self.model(model)?.join("aliases").join(name(alias)?);
        let text = fs::read_to_string(&path).map_err(io("read the alias", &path))?;
        text.trim().parse().map(Version).map_err(|_error| {
            Error::NotFound(format!(
                "{} holds {:?}, no version number",
                path.display(),
                text.trim()
            ))
        })
    }

    /// The versions of a model, in order.
    ///
    /// # Errors
    ///
    /// When its directory cannot be read.
    pub fn versions(&self, model: &str) -> Result<Vec<Version>, Error> {
        let dir = self.model(model)?;
        let mut versions = Vec::new();
        for entry in fs::read_dir(&dir).map_err(io("list", &dir))? {
            let entry = entry.map_err(io("list", &dir))?;
            versions
                .extend(entry.file_name().to_str().and_then(|name| name.parse().ok()).map(Version));
        }
        versions.sort_unstable();
        Ok(versions)
    }

    /// Every model's versions with their aliases.
    ///
    /// # Errors
    ///
    /// When a directory cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        let root = self.root.as_ref();
        let root = root.ok_or_else(|| Error::NotFound("no registry: give --root".to_owned()))?;
        let mut models = Vec::new();
        for entry in fs::read_dir(root).map_err(io("list", root))? {
            let entry = entry.map_err(io("list", root))?;
            let is_dir = entry.path().is_dir();
            models
                .extend(entry.file_name().into_string().ok().filter(|n| is_dir && name(n).is_ok()));
        }
        models.sort();
        let mut listed = Vec::new();
        for model in models {
            let aliases = self.aliases(&model)?;
            for version in self.versions(&model)? {
                let here = aliases.iter().filter(|(_, at)| *at == version);
                let aliases = here.map(|(alias, _)| alias.clone()).collect();
                listed.push(Listed { name: model.clone(), version, aliases });
            }
        }
        Ok(listed)
    }

    fn aliases(&self, model: &str) -> Result<Vec<(String, Version)>, Error> {
        let dir = self.model(model)?.join("aliases");
        if !dir.exists() {
            return Ok(Vec::new());
        }
        let mut aliases = Vec::new();
        for entry in fs::read_dir(&dir).map_err(io("list", &dir))? {
            let entry = entry.map_err(io("list", &dir))?;
            if let Some(alias) = entry.file_name().to_str().filter(|alias| name(alias).is_ok()) {
                aliases.push((alias.to_owned(), self.alias(model, alias)?));
            }
        }
        aliases.sort();
        Ok(aliases)
    }

    /// Copies a directory in as the next version: beside first, the manifest last, then renamed. Nobody ever
    /// sees a part of it.
    ///
    /// # Errors
    ///
    /// When the directory is no good model, or cannot be copied.
    pub fn import(
        &self,
        from: &Path,
        model: &str,
        options: &LoadOptions,
    ) -> Result<Version, Error> {
        let dir = self.model(model)?;
        fs::create_dir_all(&dir).map_err(io("create", &dir))?;
        let beside = dir.join(format!(".import-{}", uuid::Uuid::now_v7()));
        let result = self.import_through(from, &beside, model, options);
        if result.is_err() {
            fs::remove_dir_all(&beside).unwrap_or_default();
        }
        result
    }

    fn import_through(
        &self,
        from: &Path,
        beside: &Path,
        model: &str,
        options: &LoadOptions,
    ) -> Result<Version, Error> {
        let bad = |source| Error::Artifact { path: from.to_owned(), source };
        for file in artifact::files(from).map_err(bad)? {
            let to = beside.join(&file);
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).map_err(io("create", parent))?;
            }
            fs::copy(from.join(&file), &to).map_err(io("copy to", &to))?;
            File::open(&to).and_then(|file| file.sync_all()).map_err(io("sync", &to))?;
        }
        artifact::write_manifest(beside, model, options).map_err(bad)?;
        artifact::load(beside, options).map_err(bad)?;
        let dir = self.model(model)?;
        let mut version = Version(self.versions(model)?.last().map_or(1, |last| last.0 + 1));
        // Somebody else may take the number meanwhile: rename does not replace a directory with files.
        while let Err(error) = fs::rename(beside, dir.join(version.to_string())) {
            if !dir.join(version.to_string()).exists() {
                return Err(io("rename to a version in", &dir)(error));
            }
            version.0 += 1;
        }
        Ok(version)
    }

    /// Points an alias at a version. What `champion` held goes to `previous`.
    ///
    /// # Errors
    ///
    /// When the version is not there or not good: what could not serve is not promoted.
    pub fn promote(&self, model: &str, version: Version, alias: &str) -> Result<(), Error> {
        let resolved = self.resolve(&Uri::Version { model: model.to_owned(), version })?;
        artifact::verify(&resolved.dir)
            .map_err(|source| Error::Artifact { path: resolved.dir, source })?;
        if alias == "champion"
            && let Ok(before) = self.alias(model, alias)
            && before != version
        {
            self.point(model, "previous", before)?;
        }
        self.point(model, alias, version)
    }

    /// Points `champion` back at `previous`, and `previous` at what it held. The version that serves again.
    ///
    /// # Errors
    ///
    /// When there is no `previous`.
    pub fn rollback(&self, model: &str) -> Result<Version, Error> {
        let previous = self.alias(model, "previous")?;
        self.promote(model, previous, "champion")?;
        Ok(previous)
    }

    /// Writes an alias beside and renames it over the old one: a reader sees the old or the new version.
    fn point(&self, model: &str, alias: &str, version: Version) -> Result<(), Error> {
        let dir = self.model(model)?.join("aliases");
        fs::create_dir_all(&dir).map_err(io("create", &dir))?;
        let path = dir.join(name(alias)?);
        let beside = dir.join(format!(".{alias}-{}", uuid::Uuid::now_v7()));
        let mut file = File::create(&beside).map_err(io("write", &beside))?;
        writeln!(file, "{version}").and_then(|()| file.sync_all()).map_err(io("write", &beside))?;
        fs::rename(&beside, &path).map_err(io("write the alias", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_registry() {
        for good in ["a", "breast-cancer", "m_1.2"] {
            assert!(name(good).is_ok(), "{good}");
        }
        for bad in ["", "..", ".hidden", "a/b", "a\\b", "ä", &"x".repeat(129)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}

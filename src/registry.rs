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
//!
//! A registry is a shared folder: whatever stands there, looking at it ends, and says what is wrong by its name.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::config::uri::{self, LAST, Uri, is_name};
use crate::failure::chain;
use crate::file::{self, Links};
use crate::model::options::LoadOptions;
use crate::model::served::Served;
use crate::model::{artifact, files, gate};
use crate::record::Version;

pub mod change;
mod import;
pub mod trial;
pub mod watch;

pub use import::Imported;

/// Largest file of an alias, in bytes: a version has at most 19 digits.
const LARGEST_ALIAS: u64 = 64;

/// What cannot be done in a registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{what} {path}", path = path.display())]
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
    /// The alias is as it should be, but names a version that is not there.
    #[error("{0}")]
    Dangling(String),
    /// A name that could leave the registry.
    #[error(
        "{0:?} is not a name: 1 to 128 of letters, digits, '.', '_', '-', not starting with a dot"
    )]
    Name(String),
    /// The artifact is not good.
    #[error("the model in {path}", path = path.display())]
    Artifact {
        /// Its directory.
        path: PathBuf,
        /// What is wrong.
        source: files::Error,
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

/// Something in a registry that is not what it should be, for `models list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Its path below the root.
    pub place: String,
    /// What is wrong, and what is wanted.
    pub why: String,
}

/// The registry of a directory; without a root only plain directories resolve.
#[derive(Debug, Clone)]
pub struct Registry {
    root: Option<PathBuf>,
}

/// The text, if it is a name that cannot leave the registry.
///
/// # Errors
///
/// What a name is.
pub fn name(text: &str) -> Result<&str, Error> {
    if is_name(text) { Ok(text) } else { Err(Error::Name(text.to_owned())) }
}

/// Names in a message.
fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The names in a folder, sorted. What is hidden is somebody's who is not done with it.
fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(io("list", dir))? {
        let name = entry.map_err(io("list", dir))?.file_name();
        names.extend(Some(name.to_string_lossy().into_owned()).filter(|n| !n.starts_with('.')));
    }
    names.sort();
    Ok(names)
}

/// A folder that is not there has nothing in it.
fn absent(error: Error) -> Result<Vec<String>, Error> {
    let missing = |source: &std::io::Error| source.kind() == std::io::ErrorKind::NotFound;
    let absent = matches!(&error, Error::Io { source, .. } if missing(source));
    if absent { Ok(Vec::new()) } else { Err(error) }
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
            root.ok_or_else(|| {
                let message = format!(
                    "models:/{text} is a model of a registry, and none is named: set registry.root, or give --root DIR \
                     where a command has it"
                );
                Error::NotFound(message)
            })?;
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
        let number = version.to_string();
        if !self.model(model)?.is_dir() {
            return Err(self.no_model(model));
        }
        let dir = self.model(model)?.join(&number);
        if uri::version(&number).is_none() || !dir.is_dir() {
            let known: Vec<String> = self.versions(model)?.iter().map(Version::to_string).collect();
            let known = listed(&known);
            if let Uri::Alias { alias, .. } = uri {
                return Err(Error::Dangling(format!(
                    "the alias {alias} names version {version}, which is not there; versions of {model}: {known}"
                )));
            }
            let message = format!("model {model:?} has no version {version}; versions: {known}");
            return Err(Error::NotFound(message));
        }
        Ok(Resolved { name: Some(model.clone()), version, dir })
    }

    /// Resolves and loads through the whole gate.
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve) and [`gate::load`].
    pub fn load(&self, uri: &Uri, options: &LoadOptions) -> Result<Served, Error> {
        let Resolved { name, version, dir } = self.resolve(uri)?;
        let options = LoadOptions { name, version, ..options.clone() };
        gate::load(&dir, &options)
            .map_err(|refused| Error::Artifact { path: dir, source: refused.error })
    }

    /// The version that an alias holds.
    ///
    /// # Errors
    ///
    /// When the alias is missing, is no small file, or holds no version.
    pub fn alias(&self, model: &str, alias: &str) -> Result<Version, Error> {
        let path = self.model(model)?.join("aliases").join(name(alias)?);
        // Links are followed: Kubernetes mounts files as such.
        let text = file::read(&path, LARGEST_ALIAS, Links::Follow).map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                return self.no_alias(model, alias);
            }
            io("read the alias", &path)(error)
        })?;
        let text = String::from_utf8_lossy(&text);
        uri::version(text.trim()).ok_or_else(|| {
            let (path, held) = (path.display(), text.trim());
            Error::NotFound(format!(
                "alias {path} holds {held:?}, which is not the number of a version; `tidemill models promote` points it \
                 at one"
            ))
        })
    }

    /// What is there in place of an alias that is not.
    fn no_alias(&self, model: &str, alias: &str) -> Error {
        let dir = self.root.clone().unwrap_or_default().join(model);
        if !dir.is_dir() {
            return self.no_model(model);
        }
        let known = listed(&names(&dir.join("aliases")).unwrap_or_default());
        Error::NotFound(format!(
            "model {model:?} has no alias {alias:?}; aliases: {known}. `tidemill models promote` points one at a version"
        ))
    }

    /// What is there in place of a model that is not.
    fn no_model(&self, model: &str) -> Error {
        let root = self.root.clone().unwrap_or_default();
        let place = root.display();
        Error::NotFound(if root.is_dir() {
            let known = listed(&names(&root).unwrap_or_default());
            format!("the registry {place} has no model {model:?}; models: {known}")
        } else {
            format!(
                "there is no registry at {place}: the folder does not exist; name the registry's folder (registry.root, \
                 --root DIR), or make one with `tidemill models import`"
            )
        })
    }

    /// The versions of a model, in order.
    ///
    /// # Errors
    ///
    /// When its directory cannot be read.
    pub fn versions(&self, model: &str) -> Result<Vec<Version>, Error> {
        let dir = self.model(model)?;
        let folders = names(&dir)?.into_iter().filter(|folder| dir.join(folder).is_dir());
        let mut versions: Vec<Version> = folders.filter_map(|name| uri::version(&name)).collect();
        versions.sort_unstable();
        Ok(versions)
    }

    /// Every model's versions with their aliases, and what stands there that is none of these.
    ///
    /// # Errors
    ///
    /// When the root cannot be read.
    pub fn list(&self) -> Result<(Vec<Listed>, Vec<Broken>), Error> {
        let root = self.root.as_ref();
        let root = root.ok_or_else(|| Error::NotFound("no registry: give --root".to_owned()))?;
        let (mut listed, mut broken) = (Vec::new(), Vec::new());
        let models: Vec<String> =
            names(root)?.into_iter().filter(|model| root.join(model).is_dir()).collect();
        let is_model = |model: &String| {
            let inside = names(&root.join(model)).unwrap_or_default();
            inside.is_empty()
                || inside.iter().any(|name| name == "aliases" || uri::version(name).is_some())
        };
        if !models.is_empty() && !models.iter().any(is_model) {
            let message = format!(
                "{} is no registry: none of its {} folders has versions (folders called 1, 2, 3, …); name the registry's \
                 folder with --root DIR",
                root.display(),
                models.len()
            );
            return Err(Error::NotFound(message));
        }
        for model in models {
            if let Err(error) = self.list_model(&model, &mut listed, &mut broken) {
                broken.push(Broken { place: model, why: chain(&error) });
            }
        }
        Ok((listed, broken))
    }

    fn list_model(
        &self,
        model: &str,
        listed: &mut Vec<Listed>,
        broken: &mut Vec<Broken>,
    ) -> Result<(), Error> {
        let dir = self.model(model)?;
        let (mut versions, mut aliases) = (Vec::new(), Vec::new());
        for folder in names(&dir)?.into_iter().filter(|folder| folder != "aliases") {
            match uri::version(&folder) {
                Some(version) if dir.join(&folder).is_dir() => versions.push(version),
                _ => {
                    let why = "is not a version: versions are folders called 1, 2, 3, …";
                    broken.push(Broken { place: format!("{model}/{folder}"), why: why.to_owned() });
                }
            }
        }
        versions.sort_unstable();
        let known = names(&dir.join("aliases")).or_else(absent).unwrap_or_else(|error| {
            broken.push(Broken { place: format!("{model}/aliases"), why: chain(&error) });
            Vec::new()
        });
        for alias in known {
            let why = match self.alias(model, &alias) {
                Ok(at) if versions.contains(&at) => {
                    aliases.push((alias, at));
                    continue;
                }
                Ok(at) => format!("points at version {at}, which is not there"),
                Err(error) => chain(&error),
            };
            broken.push(Broken { place: format!("{model}@{alias}"), why });
        }
        listed.extend(versions.into_iter().map(|version| {
            let here = aliases.iter().filter(|(_, at)| *at == version);
            let aliases = here.map(|(alias, _)| alias.clone()).collect();
            Listed { name: model.to_owned(), version, aliases }
        }));
        Ok(())
    }

    /// Points an alias at a version. What `champion` held goes to `previous`.
    ///
    /// # Errors
    ///
    /// When the version is not there or not good: what could not serve is not promoted.
    pub fn promote(&self, model: &str, version: Version, alias: &str) -> Result<(), Error> {
        name(alias)?;
        let resolved = self.resolve(&Uri::Version { model: model.to_owned(), version })?;
        artifact::verify_registered(&resolved.dir)
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
    fn an_alias_that_names_what_is_not_there_is_told_from_a_registry_that_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::new(Some(folder.path().to_owned()));
        for below in ["m/1", "m/aliases"] {
            fs::create_dir_all(folder.path().join(below)).unwrap();
        }
        fs::write(folder.path().join("m/aliases/champion"), "77\n").unwrap();
        let alias = Uri::Alias { model: "m".to_owned(), alias: "champion".to_owned() };
        let error = registry.resolve(&alias).unwrap_err();
        assert!(matches!(error, Error::Dangling(_)), "{error:?}");
        assert_eq!(
            error.to_string(),
            "the alias champion names version 77, which is not there; versions of m: 1"
        );
        let number = Uri::Version { model: "m".to_owned(), version: Version(77) };
        assert!(matches!(registry.resolve(&number), Err(Error::NotFound(_))));
    }

    #[test]
    fn what_is_no_registry_is_told_from_a_model_that_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let said = |root: Option<PathBuf>, uri: &str| {
            Registry::new(root).resolve(&uri.parse().unwrap()).unwrap_err().to_string()
        };
        let here = || Some(folder.path().to_owned());
        for uri in ["models:/m@champion", "models:/m/3"] {
            let none = said(None, uri);
            assert!(none.contains("--root DIR") && none.contains("registry.root"), "{none}");
            let away = said(Some(folder.path().join("elsewhere")), uri);
            assert!(away.contains("elsewhere: the folder does not exist"), "{away}");
            let empty = said(here(), uri);
            assert!(empty.contains("has no model \"m\"; models: none"), "{empty}");
        }
        assert!(Registry::new(here()).list().is_ok(), "a registry may be empty");
        fs::create_dir_all(folder.path().join("ssl/certs")).unwrap();
        let other = Registry::new(here()).list().unwrap_err().to_string();
        assert!(other.contains("is no registry: none of its 1 folders has versions"), "{other}");
        fs::create_dir_all(folder.path().join("m/1")).unwrap();
        assert_eq!(Registry::new(here()).list().unwrap().0.len(), 1);
    }
}

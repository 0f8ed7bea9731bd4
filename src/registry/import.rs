//! An import: copied beside, checked, and renamed to its number. Nobody ever sees a part of it.
//!
//! The folder beside is locked by the process that fills it. What is not locked was left by one that was killed, and the
//! next import removes it; where the file system has no locks, once it is a day old.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Error, Registry, io as io_error};
use crate::model::options::LoadOptions;
use crate::model::report::Report;
use crate::model::{files, gate};
use crate::record::Version;

/// What folders of unfinished imports are called, before a unique number.
const BESIDE: &str = ".import-";

/// Age from which an unfinished import is another process's no more, where nothing else tells.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// What an import has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Its number.
    pub version: Version,
    /// What whoever loads it should know.
    pub notes: Vec<String>,
    /// How it came through the gate.
    pub report: Report,
}

impl Registry {
    /// Copies a directory in as the next version, with its manifest.
    ///
    /// # Errors
    ///
    /// When the directory is no good model, or cannot be copied.
    pub fn import(
        &self,
        from: &Path,
        model: &str,
        options: &LoadOptions,
    ) -> Result<Imported, Error> {
        let dir = self.model(model)?;
        let bad = |source| Error::Artifact { path: from.to_owned(), source };
        gate::fits(from, options).map_err(bad)?;
        let beside = Beside::new(&dir)?;
        for (file, _) in files::files(from).map_err(bad)? {
            let to = beside.path.join(&file);
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).map_err(io_error("create", parent))?;
            }
            let mut from = files::open(from, &file).map_err(bad)?;
            let mut copy = File::create(&to).map_err(io_error("write", &to))?;
            io::copy(&mut from, &mut copy).map_err(io_error("copy to", &to))?;
            copy.sync_all().map_err(io_error("sync", &to))?;
        }
        let (_, report, notes) =
            gate::admit(&beside.path, model, options).map_err(|refused| bad(refused.error))?;
        let version = self.number(&beside.path, model)?;
        Ok(Imported { version, notes, report })
    }

    /// Renames a finished import to the next number.
    fn number(&self, beside: &Path, model: &str) -> Result<Version, Error> {
        let dir = self.model(model)?;
        let mut last = self.versions(model)?.last().map_or(0, |last| last.0);
        // Somebody else may take the number meanwhile: rename does not replace a directory with files.
        loop {
            let next = last.checked_add(1).filter(|next| *next <= super::LAST);
            let next = next.ok_or_else(|| {
                Error::NotFound(format!("no version comes after {last} in {}", dir.display()))
            })?;
            let to = dir.join(next.to_string());
            match fs::rename(beside, &to) {
                Ok(()) => return Ok(Version(next)),
                Err(_) if to.exists() => last = next,
                Err(error) => return Err(io_error("rename an import to", &to)(error)),
            }
        }
    }
}

/// A folder that is filled, locked; gone with this, unless it was renamed. So is the folder that it is in, where nothing
/// else is there.
struct Beside {
    path: PathBuf,
    _lock: File,
}

impl Beside {
    fn new(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        // Held for this moment only: another import must not take the new folder, not locked yet, for an old one.
        let one_at_a_time = File::open(dir).map_err(io_error("open", dir))?;
        drop(one_at_a_time.lock()); // without locks in the file system nothing younger than a day is removed
        clean(dir);
        let path = dir.join(format!("{BESIDE}{}", uuid::Uuid::now_v7()));
        // Another import that failed may have removed the folder around it since.
        fs::create_dir_all(&path).map_err(io_error("create", &path))?;
        let lock = File::open(&path).map_err(io_error("open", &path))?;
        drop(lock.try_lock());
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).unwrap_or_default();
        // One with a version in it stays: only empty folders are removed by this.
        self.path.parent().map_or(Ok(()), fs::remove_dir).unwrap_or_default();
    }
}

/// Removes what imports left that were killed.
fn clean(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        // What is no folder is none of ours, and opening it could wait.
        let folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let ours = folder && entry.file_name().to_string_lossy().starts_with(BESIDE);
        if ours && is_abandoned(&entry.path()) {
            tracing::info!(path = %entry.path().display(), "removing an import that was killed");
            fs::remove_dir_all(entry.path()).unwrap_or_default();
        }
    }
}

fn is_abandoned(path: &Path) -> bool {
    let Ok(folder) = File::open(path) else { return false };
    match folder.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(_)) => {
            let changed = folder.metadata().and_then(|metadata| metadata.modified());
            #[expect(clippy::disallowed_methods, reason = "the age of a folder is wall time")]
            let now = SystemTime::now();
            changed
                .is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| ABANDONED < age))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    }

    #[test]
    fn what_a_killed_import_left_is_removed_and_a_running_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("m");
        let killed = dir.join(".import-1");
        fs::create_dir_all(&killed).unwrap();
        fs::write(killed.join("model.safetensors"), "half").unwrap();
        let running = Beside::new(&dir).unwrap();
        let second = Beside::new(&dir).unwrap();
        assert!(!killed.exists());
        assert!(running.path.exists() && second.path.exists(), "each has its own");
        drop(second);
        assert!(running.path.exists());
        drop(running);
        assert!(names(root.path()).is_empty(), "nor is a model without versions left");
        drop(Beside::new(&dir).unwrap());
        let third = Beside::new(&dir).unwrap();
        fs::rename(&third.path, dir.join("1")).unwrap();
        drop(third);
        assert_eq!(names(&dir), ["1"]);
    }

    #[test]
    fn what_only_has_the_name_is_left_alone() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("precious"), "").unwrap();
        std::os::unix::fs::symlink(other.path(), dir.path().join(".import-link")).unwrap();
        let fifo = dir.path().join(".import-fifo");
        assert!(std::process::Command::new("mkfifo").arg(fifo).status().unwrap().success());
        drop(Beside::new(dir.path()).unwrap());
        assert_eq!(names(other.path()), ["precious"]);
        assert_eq!(names(dir.path()).len(), 2);
    }
}

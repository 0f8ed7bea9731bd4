//! What can be seen on this machine, without asking anybody: files that are named, their rights, folders that are written to.

use std::path::Path;
use std::sync::Arc;

use super::Finding;
use crate::config::{Config, Log};
use crate::format::Codec;
use crate::telemetry::trace::Traces;
use crate::{service, sqlite};

/// The embedded log.
pub(super) fn embedded(file: &Path) -> Finding {
    let log = format!("log sqlite:{}", file.display());
    match sqlite::look(file) {
        Ok(()) => Finding::ok(log, "embedded: no cluster is asked"),
        Err(error) => Finding::problem(log, error.to_string(), "name another file under `log`"),
    }
}

/// What a start makes of the configuration and the files that it names. Keeps nothing.
pub(super) fn prepared(config: &Config) -> Result<Arc<Codec>, Finding> {
    let mut config = config.clone();
    config.state.dir = None;
    let prepared = Traces::check(&config).and_then(|()| service::prepare(&config));
    prepared.map_err(|failure| {
        let remedy = "a start is refused by it: correct what is named, a key or its file";
        Finding::problem("files and addresses", failure.message, remedy)
    })
}

/// Files with secrets that everybody may read.
pub(super) fn secrets(config: &Config) -> Vec<Finding> {
    let exposed = config.secrets.exposed().map(|file| {
        let message = "holds a secret, and every user of this system may read it";
        let remedy = "chmod o-r, or a defaultMode of 0440 where Kubernetes mounts it";
        Finding::warning(format!("secrets in {}", file.display()), message, remedy)
    });
    exposed.collect()
}

/// Whether `state.dir` takes what a start writes to it: it is tried, because a full disk has the same permissions.
pub(super) fn writable(dir: &Path) -> Finding {
    let what = format!("state.dir {}", dir.display());
    let probe = dir.join(format!("check-{}", std::process::id()));
    let begun = dir.exists();
    let tried = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&probe, [0; 4_096]));
    let removed = if probe.exists() { std::fs::remove_file(&probe) } else { Ok(()) };
    // What only this made goes again.
    let left = if begun || tried.is_err() { Ok(()) } else { std::fs::remove_dir(dir) };
    match tried.and(removed).and(left) {
        Ok(()) => Finding::ok(what, "can be written"),
        Err(error) => Finding::problem(
            what,
            format!("cannot be written: {error}"),
            "name a directory that this process may write, with room for some megabytes",
        ),
    }
}

/// What is not covered without a folder that outlives the process.
pub(super) fn state(config: &Config) -> Option<Finding> {
    (config.state.dir.is_none() && config.log == Log::Kafka).then(|| {
        Finding::warning(
            "state.dir",
            "is not set: a record that kills the process, or never comes back from the model, is not found and comes \
             again at each start, and so does a version that kills it while it is loaded",
            "name a folder that outlives the process and is this replica's alone",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::Seen;
    use super::*;

    #[test]
    fn a_folder_of_the_state_is_tried_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        for dir in [folder.path().to_owned(), folder.path().join("new")] {
            assert!(matches!(writable(&dir).seen, Seen::Ok(_)));
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let said = writable(&file.join("state"));
        assert!(said.problem_text().unwrap().0.contains("cannot be written"));
    }
}

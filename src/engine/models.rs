//! The versions that are loaded, and which of them serves.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Engine, now};
use crate::failure::{Failure, temporary};
use crate::model::served::Served;
use crate::pipeline::Event;
use crate::record::Version;
use crate::registry::watch::Heard;

/// The versions that a batch may be of.
#[derive(Debug)]
pub(super) struct Models {
    loaded: BTreeMap<Version, Arc<Served>>,
    /// Of the newest batch.
    serving: Version,
    /// The newest version that passed the gate.
    newest: Version,
}

impl Models {
    pub(super) fn new(served: Arc<Served>) -> Self {
        let version = served.id.version;
        Self { loaded: BTreeMap::from([(version, served)]), serving: version, newest: version }
    }

    fn stage(&mut self, served: Arc<Served>) {
        self.newest = served.id.version;
        self.loaded.insert(self.newest, served);
    }

    /// No batch will need this version again. Whether it does not serve any more either: one that is retired while the
    /// next is staged serves until that one's first batch.
    pub(super) fn retire(&mut self, version: Version) -> bool {
        self.loaded.remove(&version).is_some() && !self.serves(version)
    }

    /// Whether it is loaded: not yet retired.
    pub(super) fn holds(&self, version: Version) -> bool {
        self.loaded.contains_key(&version)
    }

    pub(super) fn get(&self, version: Version) -> Result<Arc<Served>, Failure> {
        self.loaded.get(&version).map(Arc::clone).ok_or_else(|| {
            temporary(&format!("version {version} was cut but is not loaded; this is a bug"))
        })
    }

    /// Whether it is the one of the newest batch.
    fn serves(&self, version: Version) -> bool {
        self.serving == version
    }

    /// The version that serves.
    pub(super) fn serving(&self) -> Option<&Served> {
        self.loaded.get(&self.serving).map(|served| &**served)
    }

    /// A batch of this version was closed: the version that it replaces, where it is the first. With several lanes,
    /// batches of the version before may still follow it: only the newest version counts as a swap, once.
    pub(super) fn closed(&mut self, version: Version) -> Option<Version> {
        let first = self.serving != version && version == self.newest;
        first.then(|| std::mem::replace(&mut self.serving, version))
    }
}

impl Engine {
    pub(super) fn heard(&mut self, heard: Heard) -> Result<(), Failure> {
        match heard {
            Heard::Staged(served) => {
                let version = served.id.version;
                self.models.stage(Arc::clone(&served));
                self.observer.staged = Some(now());
                let staged = (!self.models.serves(version)).then(|| served.id.clone());
                self.observer.status.change(|status| status.staged = staged);
                self.parts.current.set(served);
                self.handle(Event::Staged(version))
            }
            Heard::Named(question) => self.handle(Event::Named(question)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::gate;
    use crate::model::options::LoadOptions;

    fn served(version: u64) -> Arc<Served> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo/models/breast-cancer/1");
        let mut served = gate::load(&dir, &LoadOptions::default()).unwrap();
        served.id.version = Version(version);
        Arc::new(served)
    }

    #[test]
    fn a_version_is_said_to_be_retired_once_it_serves_no_more() {
        let mut models = Models::new(served(1));
        models.stage(served(2));
        assert!(!models.retire(Version(1)), "version 2 is only staged");
        assert_eq!(models.closed(Version(2)), Some(Version(1)));
        assert!(!models.holds(Version(1)), "it is said with the swap");
        models.stage(served(3));
        assert_eq!(models.closed(Version(3)), Some(Version(2)));
        assert!(models.holds(Version(2)) && models.retire(Version(2)), "its last batch is over");
    }
}

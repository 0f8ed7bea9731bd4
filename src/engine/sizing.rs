//! The learned size of batches, for the versions that come and go, and from one run to the next.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::flight::Flight;
use crate::config::{self, Sizing as Mode};
use crate::model::Model;
use crate::model::served::Served;
use crate::pipeline::size::{Known, Point, Size};
use crate::record::Version;
use crate::{file, memory};

/// What is known of every version that this process or an earlier one has run.
#[derive(Debug)]
pub(super) struct Sizing {
    most: u64,
    learns: bool,
    file: Option<PathBuf>,
    known: BTreeMap<String, Known>,
    serving: Option<(Version, String, Size)>,
    told: u64,
}

impl Sizing {
    /// With what the file remembers. A file that is something else is left as it is, and nothing is remembered then.
    pub(super) fn new(batch: &config::Batch) -> Self {
        let read = batch.remember.as_ref().map(|file| (file, remembered(file)));
        let (file, known) = match read {
            None => (None, BTreeMap::new()),
            Some((file, Ok(known))) => (Some(file.clone()), known),
            Some((file, Err(error))) => {
                tracing::warn!(
                    file = %file.display(), error,
                    "batch.remember is not a file of learned batch sizes: it is left as it is, and what is learned \
                     now is forgotten at the end; name another file, or delete this one"
                );
                (None, BTreeMap::new())
            }
        };
        let most = u64::from(batch.max_tokens);
        Self { most, learns: batch.size == Mode::Learned, file, known, serving: None, told: 0 }
    }

    /// This version serves from now on.
    pub(super) fn serve(&mut self, served: &Served) {
        self.keep();
        let about = served.model.about();
        let key = format!("{} {} {}", served.id.digest, about.device, about.precision);
        let size = Size::new(self.most, self.known.get(&key).copied());
        self.serving = Some((served.id.version, key, size));
    }

    /// Batches of one transaction, each with its tokens and time in the model; each has its share of the transaction's
    /// time. `model` tells the memory of its device. Asks for nothing where nothing is learned.
    pub(super) fn learn(
        &mut self,
        batches: &[Flight],
        transaction: Duration,
        model: Option<&dyn Model>,
    ) {
        if !self.learns {
            return;
        }
        let (used, total) = memory(model);
        let count = u32::try_from(batches.len()).unwrap_or(u32::MAX).max(1);
        for flight in batches {
            let took = flight.inference.map(|stage| stage.busy).unwrap_or_default();
            let seconds = (took + transaction / count).as_secs_f64();
            let point = Point { tokens: flight.tokens, seconds, bytes: used };
            self.observe(flight.version(), point, total);
        }
    }

    /// A batch of this version cost so much.
    fn observe(&mut self, version: Version, point: Point, memory: Option<u64>) {
        if let Some((serving, _, size)) = &mut self.serving
            && *serving == version
            && self.learns
        {
            size.observe(point, memory);
        }
    }

    /// The device had no memory for so many tokens of this version.
    pub(super) fn too_large(&mut self, version: Version, tokens: u64) {
        if let Some((serving, _, size)) = &mut self.serving
            && *serving == version
        {
            size.too_large(tokens);
            self.save();
        }
    }

    /// The limit of the next batch, where it is another than the last that was told.
    pub(super) fn change(&mut self) -> Option<u64> {
        let (.., size) = self.serving.as_ref()?;
        let ceiling = size.known().ceiling.unwrap_or(u64::MAX);
        let limit = if self.learns { size.limit() } else { self.most.min(ceiling) };
        (std::mem::replace(&mut self.told, limit) != limit).then_some(limit)
    }

    /// Writes what is known where the next start finds it.
    pub(super) fn save(&mut self) {
        self.keep();
        let Some(file) = &self.file else { return };
        let text = serde_json::to_vec_pretty(&self.known).unwrap_or_default();
        if let Err(error) = replace(file, &text) {
            tracing::warn!(file = %file.display(), %error, "write what was learned to batch.remember");
        }
    }

    fn keep(&mut self) {
        if let Some((_, key, size)) = &self.serving {
            let known = size.known();
            if self.learns || known.ceiling.is_some() {
                self.known.insert(key.clone(), known);
            }
        }
    }
}

/// What a file remembers; nothing where it is not there yet, or empty.
fn remembered(file: &Path) -> Result<BTreeMap<String, Known>, String> {
    match std::fs::read(file) {
        Ok(bytes) if bytes.is_empty() => Ok(BTreeMap::new()),
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error.to_string()),
    }
}

/// Puts a new file in the place of one, whole or not at all.
fn replace(file: &Path, text: &[u8]) -> std::io::Result<()> {
    let beside = file::beside(file, &format!(".{}.new", std::process::id()));
    File::create_new(&beside)?.write_all(text)?;
    std::fs::rename(&beside, file)
}

/// Bytes in use and in all, of the device that a model computes on.
fn memory(model: Option<&dyn Model>) -> (Option<u64>, Option<u64>) {
    match model.and_then(Model::memory) {
        Some(device) => (Some(device.total.saturating_sub(device.free)), Some(device.total)),
        None => (memory::resident("self"), memory::limit()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::gate;
    use crate::model::options::LoadOptions;

    fn served() -> Served {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo/models/breast-cancer/1");
        gate::load(&dir, &LoadOptions::default()).unwrap()
    }

    #[test]
    fn what_was_learned_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sizes.json");
        let batch = config::Batch {
            size: Mode::Learned,
            remember: Some(file.clone()),
            ..config::Batch::default()
        };
        let (served, version) = (served(), Version(0));
        let mut first = Sizing::new(&batch);
        first.serve(&served);
        let start = first.change().unwrap();
        for _ in 0..60 {
            let tokens = first.serving.as_ref().unwrap().2.limit();
            let seconds = 0.001 + 1e-5 * f64::from(u32::try_from(tokens).unwrap());
            first.observe(version, Point { tokens, seconds, bytes: None }, None);
        }
        let learned = first.change().unwrap();
        assert!(learned != start && (1_400..=1_900).contains(&learned), "{learned}");
        first.observe(Version(9), Point { tokens: 1, seconds: 1e9, bytes: None }, None);
        assert_eq!(first.change(), None, "another version's batch says nothing");
        first.save();
        let mut second = Sizing::new(&batch);
        second.serve(&served);
        assert_eq!(second.change(), Some(first.serving.as_ref().unwrap().2.known().limit));
        std::fs::write(&file, "my shopping list").unwrap();
        let mut third = Sizing::new(&batch);
        third.serve(&served);
        assert_eq!(third.change(), Some(start), "a broken file costs the memory, not the start");
        third.save();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "my shopping list");
    }

    #[test]
    fn without_learning_only_the_device_lowers_the_limit() {
        let mut sizing = Sizing::new(&config::Batch::default());
        sizing.serve(&served());
        assert_eq!(sizing.change(), Some(16_384));
        sizing.observe(Version(0), Point { tokens: 5, seconds: 1.0, bytes: None }, None);
        assert_eq!(sizing.change(), None);
        sizing.too_large(Version(0), 600);
        assert_eq!(sizing.change(), Some(300));
    }
}

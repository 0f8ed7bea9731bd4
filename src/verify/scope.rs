//! What is judged: known before the first message is read, and once more after the last one.

use std::collections::BTreeMap;

use crate::log::note::Note;

/// What is known before anything is read.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "settings, each for itself")]
pub struct Scope {
    /// The consumer group.
    pub group: String,
    /// The input topics.
    pub topics: Vec<Topic>,
    /// Their partitions.
    pub partitions: Vec<Input>,
    /// Names of the topics that outcomes are in; the first is the output topic.
    pub logs: Vec<String>,
    /// The dead-letter topic of each input topic, by its place in `logs`.
    pub dead_letters: Vec<usize>,
    /// Whether an outcome's partition follows from its key, and not from the input partition.
    pub by_key: bool,
    /// Whether predictions are written without provenance (`output.headers: none`).
    pub silent: bool,
    /// The first offset that is judged, in every partition.
    pub from: i64,
    /// Whether the group may have begun anywhere: `kafka.start_from: latest`, or a group of another configuration.
    pub anywhere: bool,
    /// Whether the group may have passed over records by its configuration: `kafka.on_out_of_range: latest`, or
    /// `kafka.on_missing_offset: start` beside `kafka.start_from: latest`.
    pub jumps: bool,
}

/// An input topic.
#[derive(Debug, Clone, Default)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its present id; `None` where the broker gives none.
    pub id: Option<String>,
    /// Whether compaction may have removed records: it is compacted, or its settings cannot be read.
    pub compacted: bool,
}

/// An input partition.
#[derive(Debug, Clone)]
pub struct Input {
    /// The topic, by its place in [`Scope::topics`].
    pub topic: usize,
    /// The partition's number.
    pub number: i32,
    /// The group's committed offset before anything was read.
    pub committed: Option<i64>,
    /// What the committed offset says beside its number.
    pub note: Option<Note>,
    /// One past the last offset that is judged; never beyond `committed`.
    pub until: i64,
}

impl Input {
    /// The topic's id that the committed offset is of, where that is another one than `id`.
    pub(super) fn stale(&self, id: Option<&str>) -> Option<&str> {
        let noted = self.note.as_ref()?.topic.as_ref()?;
        (id? != &*noted.0).then_some(&*noted.0)
    }
}

/// What is known after the last message was read.
#[derive(Debug, Clone, Default)]
pub struct After {
    /// The group's committed offsets, in the order of [`Scope::partitions`].
    pub committed: Vec<Option<i64>>,
    /// Partitions of outcome topics whose beginning was deleted, by the topic's place in [`Scope::logs`].
    pub cut: BTreeMap<(usize, i32), bool>,
    /// Outcome topics that are compacted, by their place.
    pub compacted: Vec<bool>,
}

impl After {
    /// The committed offset of a partition.
    pub fn committed(&self, place: usize) -> Option<i64> {
        self.committed.get(place).copied().flatten()
    }

    /// Whether an offset is at or beyond the committed one.
    pub fn is_beyond(&self, place: usize, offset: i64) -> bool {
        self.committed(place).is_none_or(|committed| committed <= offset)
    }
}

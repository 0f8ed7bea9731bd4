//! Manifests, packed: about a hundred bytes a batch and 32 for each input partition in it.

use std::collections::{BTreeSet, HashMap};

use super::facts::{BatchId, What};
use crate::log::manifest::{Manifest, Range};

/// Outcomes by what they are: predictions, dead letters, tombstones.
pub type Tally = [u64; 3];
/// The same of one batch, in half of the memory.
pub(super) type Few = [u32; 3];

/// Where an outcome is counted in a [`Tally`].
pub(super) fn kind(what: What) -> usize {
    match what {
        What::Prediction => 0,
        What::DeadLetter => 1,
        What::Tombstone => 2,
    }
}

/// A version as manifests name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// The registered name, or the directory's.
    pub name: String,
    /// The version; 0 of a plain directory.
    pub version: u64,
    /// The digest of its files.
    pub digest: String,
}

/// A batch: what its manifest says, and what was found.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) id: BatchId,
    pub(super) model: u32,
    /// Whether the group is the one that is judged.
    pub(super) ours: bool,
    /// Of how many pieces, and how many of them are there.
    pub(super) pieces: (u32, u32),
    pub(super) records: u32,
    /// Records of all ranges.
    pub(super) ranged: u32,
    /// Whether some of them are of a topic that is not judged.
    pub(super) elsewhere: bool,
    pub(super) said: Few,
    pub(super) found: Few,
}

impl Batch {
    pub(super) fn is_complete(&self) -> bool {
        self.pieces.0 == self.pieces.1
    }
}

/// A batch's range in one input partition.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) first: i64,
    pub(super) next: i64,
    pub(super) count: u32,
    pub(super) found: u32,
    pub(super) batch: u32,
    /// One more than the place of the name in `names`; 0 where the range records no change.
    previous: u32,
}

/// The ranges of one input partition, by batch: of the present topic, and of earlier ones of its name.
#[derive(Debug, Default)]
pub(super) struct Spans {
    pub(super) now: Vec<Span>,
    pub(super) earlier: Vec<Span>,
}

/// Where a batch's outcome belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// In this span of the present topic.
    Now(usize),
    /// In a topic that had this name before.
    Earlier,
    /// Nowhere: the manifest does not tell of it.
    Not,
}

/// All manifests.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) batches: Vec<Batch>,
    by_id: HashMap<BatchId, u32>,
    /// Pieces that are there, of batches that have several.
    pieces: BTreeSet<(u32, u32)>,
    pub(super) models: Vec<Model>,
    /// `name/version` of what had answered before.
    names: Vec<String>,
    /// By input partition.
    pub(super) spans: Vec<Spans>,
}

impl Index {
    pub(super) fn batch(&self, id: BatchId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn get(&self, batch: u32) -> &Batch {
        &self.batches[place(batch)]
    }

    pub(super) fn get_mut(&mut self, batch: u32) -> &mut Batch {
        &mut self.batches[place(batch)]
    }

    pub(super) fn model(&self, batch: u32) -> &Model {
        &self.models[place(self.get(batch).model)]
    }

    /// What the range says had answered before it.
    pub(super) fn previous(&self, span: &Span) -> Option<&str> {
        let place = place(span.previous).checked_sub(1)?;
        self.names.get(place).map(String::as_str)
    }

    /// Takes a manifest's own words in, without its ranges.
    ///
    /// # Errors
    ///
    /// What is wrong with it, beside the others.
    pub(super) fn add(&mut self, manifest: &Manifest, ours: bool) -> Result<u32, String> {
        let id = BatchId::of(&manifest.batch_id);
        let model = self.intern(manifest);
        let said = [manifest.predictions, manifest.dead_letters, manifest.tombstones].map(few);
        let records = few(manifest.records);
        let (piece, pieces) = (manifest.piece.unwrap_or(1), manifest.pieces.unwrap_or(1));
        let Some(batch) = self.batch(id) else {
            let batch = u32::try_from(self.batches.len()).map_err(|e| e.to_string())?;
            self.by_id.insert(id, batch);
            let pieces = (pieces, 1);
            self.batches.push(Batch {
                id,
                model,
                ours,
                pieces,
                records,
                ranged: 0,
                elsewhere: false,
                said,
                found: Few::default(),
            });
            if 1 < pieces.0 {
                self.pieces.insert((batch, piece));
            }
            return Ok(batch);
        };
        let known = &mut self.batches[place(batch)];
        let same = (known.model, known.ours, known.pieces.0, known.records, known.said)
            == (model, ours, pieces, records, said);
        if !same {
            return Err(format!("batch {id} has manifests that contradict each other"));
        }
        if pieces == 1 {
            return Err(format!("batch {id} has several manifests"));
        }
        if !self.pieces.insert((batch, piece)) {
            return Err(format!("piece {piece} of the manifest of batch {id} is there twice"));
        }
        known.pieces.1 += 1;
        Ok(batch)
    }

    fn intern(&mut self, manifest: &Manifest) -> u32 {
        let Manifest { model: name, version, digest, .. } = manifest;
        let same = |m: &Model| m.name == *name && m.version == *version && m.digest == *digest;
        // The newest last: most manifests name it.
        let place = self.models.iter().rposition(same).unwrap_or_else(|| {
            let (name, digest) = (name.clone(), digest.clone());
            self.models.push(Model { name, version: *version, digest });
            self.models.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    /// Takes one of a manifest's ranges in: of the present topic, or of an earlier one.
    pub(super) fn range(&mut self, batch: u32, partition: usize, now: bool, range: &Range) {
        let previous = range.previous.as_ref().map_or(0, |name| {
            let place = self.names.iter().rposition(|known| known == name).unwrap_or_else(|| {
                self.names.push(name.clone());
                self.names.len() - 1
            });
            u32::try_from(place + 1).unwrap_or(0)
        });
        let count = few(range.count);
        let (first, next) = (range.first, range.next);
        let span = Span { first, next, count, found: 0, batch, previous };
        let spans = &mut self.spans[partition];
        if now { spans.now.push(span) } else { spans.earlier.push(span) }
    }

    /// After manifests were added: puts ranges in the order in which they are looked up.
    pub(super) fn by_batch(&mut self) {
        for spans in &mut self.spans {
            spans.now.sort_by_key(|span| span.batch);
            spans.earlier.sort_by_key(|span| span.batch);
        }
    }

    /// When nothing is looked up any more: puts our ranges in the order of their offsets, and leaves out the others.
    pub(super) fn by_offset(&mut self) {
        let Self { spans, batches, .. } = self;
        for spans in spans {
            spans.now.retain(|span| batches[place(span.batch)].ours);
            spans.now.sort_by_key(|span| (span.first, span.batch));
        }
    }

    /// Where the record `offset` of a batch belongs.
    pub(super) fn find(&self, partition: usize, batch: u32, offset: i64) -> Found {
        let spans = &self.spans[partition];
        let look = |list: &[Span]| {
            let first = list.partition_point(|span| span.batch < batch);
            let own =
                list.iter().enumerate().skip(first).take_while(|(_, span)| span.batch == batch);
            let mut own = own.filter(|(_, span)| (span.first..span.next).contains(&offset));
            own.next().map(|(at, _)| at)
        };
        match look(&spans.now) {
            Some(at) => Found::Now(at),
            None if look(&spans.earlier).is_some() => Found::Earlier,
            None => Found::Not,
        }
    }

    /// The range that holds `offset`, when they are in the order of their offsets.
    pub(super) fn covering(&self, partition: usize, offset: i64) -> Option<&Span> {
        let spans = &self.spans[partition].now;
        let after = spans.partition_point(|span| span.first <= offset);
        spans.get(after.checked_sub(1)?).filter(|span| offset < span.next)
    }
}

/// A count of one batch. One that is too large for it is contradicted by what is found.
pub(super) fn few(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn place(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

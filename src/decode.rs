//! The decode thread: records in, model inputs out, in order, while the model runs the batch before.
//!
//! What is prepared here is prepared for the version that is current at that moment, and bears it. A batch that is cut
//! under another version takes nothing of it: its worker asks the [`Decoder`] again, from the record's own bytes.
//!
//! # Invariant
//!
//! 1. An outcome depends on the record's bytes and the batch's version, and on nothing else: not on the version that
//!    was current when the record was decoded, and not on the moment of the swap.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::config::{Input as Settings, UnknownFields};
use crate::format::{self, Read};
use crate::journal::{Journal, Mark};
use crate::log::{Arrival, Chunk, Load, note};
use crate::model::Input;
use crate::model::served::Served;
use crate::pipeline::Item;
use crate::record::{ALLOCATION, Epoch, Fault, FaultClass, Offset, Partition, Record, Version};

/// The version of a record that nobody has decoded yet: no registry counts so far.
pub const UNPREPARED: Version = Version(u64::MAX);

/// A record with what one version's decoding made of it.
#[derive(Debug)]
pub struct Decoded {
    /// The record as it was read.
    pub record: Arc<Record>,
    /// The version that `prepared` is good for. Under any other version the record is decoded again.
    pub version: Version,
    /// What that version's model gets.
    pub prepared: Prepared,
}

impl Decoded {
    /// A record that is decoded only when its batch is in the model.
    pub fn later(record: Arc<Record>) -> Self {
        Self { record, version: UNPREPARED, prepared: Prepared::Tombstone }
    }

    /// Bytes of memory that it takes while it waits, is in the model and is committed, its outcome not counted.
    pub fn memory(&self) -> usize {
        let prepared = match &self.prepared {
            Prepared::Input(input) => input.memory(),
            Prepared::Tombstone => 0,
            Prepared::Fault(fault) => fault.message.capacity() + ALLOCATION,
        };
        size_of::<Item<Self>>()
            + size_of::<Instant>()
            + ALLOCATION
            + self.record.memory()
            + prepared
    }
}

/// What decoding made of a record, for one version.
#[derive(Debug)]
pub enum Prepared {
    /// Ready for the model: what it is given.
    Input(Input),
    /// No value: passes through.
    Tombstone,
    /// Cannot be answered by that version.
    Fault(Fault),
}

impl Prepared {
    /// What the record costs the model; 0 where the model does not see it.
    pub fn tokens(&self) -> usize {
        match self {
            Self::Input(input) => input.tokens(),
            Self::Tombstone | Self::Fault(_) => 0,
        }
    }
}

/// The version that records are prepared for. A batch may be cut under another one: its worker then
/// prepares again.
#[derive(Debug, Clone)]
pub struct Current(Arc<RwLock<Arc<Served>>>);

impl Current {
    /// Begins with `served`.
    pub fn new(served: Arc<Served>) -> Self {
        Self(Arc::new(RwLock::new(served)))
    }

    /// From the next chunk on, records are prepared for `served`.
    pub fn set(&self, served: Arc<Served>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = served;
    }

    fn get(&self) -> Arc<Served> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A chunk, decoded.
#[derive(Debug, Default)]
pub struct Arrived {
    /// The records.
    pub items: Vec<Item<Decoded>>,
    /// Ends of partitions; each lies behind the records before it, and they are all in `items`.
    pub ends: Vec<(Partition, Epoch, Offset)>,
    /// How long it took.
    pub took: Duration,
    /// The records' part of the log's [`Transit`](crate::log::Transit).
    pub load: Option<Load>,
}

/// Decodes and prepares records by the configuration.
#[derive(Debug, Clone)]
pub struct Decoder {
    settings: Settings,
}

impl Decoder {
    /// A decoder for these inputs.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// What the values of the input topics are.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// One record, decoded and prepared for the version `served`, with what it costs. A suspect is not touched here.
    pub fn item(
        &self,
        epoch: Epoch,
        record: Record,
        mark: Option<Mark>,
        served: &Served,
    ) -> Item<Decoded> {
        let (partition, offset) = (record.partition, record.offset);
        let bytes = u64::try_from(record.bytes()).unwrap_or(u64::MAX);
        let version = served.id.version;
        let prepared = |record: Record| {
            let prepared = self.prepare(&record, served);
            Decoded { record: Arc::new(record), version, prepared }
        };
        let (alone, payload) = match mark {
            None => (None, prepared(record)),
            // Several at once are suspected of their number only.
            Some(Mark::Alone(most @ 2..)) => (Some(most), prepared(record)),
            Some(Mark::Condemned(fault, model)) if model == note::short_name(&served.id) => {
                let prepared = Prepared::Fault(fault);
                (Some(1), Decoded { record: Arc::new(record), version, prepared })
            }
            Some(Mark::Alone(_) | Mark::Condemned(..)) => {
                (Some(1), Decoded::later(Arc::new(record)))
            }
        };
        let tokens = u64::try_from(payload.prepared.tokens()).unwrap_or(u64::MAX);
        let memory = u64::try_from(payload.memory()).unwrap_or(u64::MAX);
        Item { partition, epoch, offset, bytes, tokens, memory, alone, payload }
    }

    /// What the version `served` makes of a record. The same record and version give the same, always.
    pub fn prepare(&self, record: &Record, served: &Served) -> Prepared {
        let Some(value) = &record.value else {
            return Prepared::Tombstone;
        };
        // Content of a record never ends the process: what decoding it panics on is this record's fault.
        let decoded = catch_unwind(AssertUnwindSafe(|| self.decode(value, served)));
        let decoded = decoded.unwrap_or_else(|_panic| {
            let message = "decoding the record panicked; please report this as a bug";
            Err(Fault::new(FaultClass::Undecodable, message))
        });
        match decoded {
            Ok(input) => Prepared::Input(input),
            Err(fault) => Prepared::Fault(fault),
        }
    }

    fn decode(&self, value: &[u8], served: &Served) -> Result<Input, Fault> {
        let known = served.model.looks_at();
        let Read { fields, unknown } = format::decode(&self.settings, known, value)?;
        if let Some(name) =
            unknown.filter(|_| self.settings.unknown_fields == UnknownFields::Reject)
        {
            let message = format!("field {name:?} is not one of the model's");
            return Err(Fault::new(FaultClass::Invalid, message));
        }
        served.model.prepare(&fields)
    }
}

/// What the journal calls the chunk that is being decoded.
const IN_DECODER: &str = "decoder";

/// Starts the thread `decode`. It ends when either channel closes.
///
/// # Errors
///
/// When the system gives no thread.
pub fn start(
    decoder: Decoder,
    current: Current,
    journal: Journal,
    mut chunks: mpsc::Receiver<Chunk>,
    arrived: mpsc::Sender<Arrived>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("decode".to_owned()).spawn(move || {
        while let Some(chunk) = chunks.blocking_recv() {
            let decoded = decode(&decoder, &current.get(), &journal, chunk);
            if arrived.blocking_send(decoded).is_err() {
                return;
            }
        }
    })
}

fn decode(decoder: &Decoder, served: &Served, journal: &Journal, chunk: Chunk) -> Arrived {
    #[expect(clippy::disallowed_methods, reason = "measures decoding, decides nothing")]
    let started = Instant::now();
    let mut decoded = Arrived {
        items: Vec::with_capacity(chunk.arrivals.len()),
        load: chunk.load,
        ..Arrived::default()
    };
    let marked: Vec<(Option<Mark>, Arrival)> = chunk
        .arrivals
        .into_iter()
        .map(|arrival| match &arrival {
            Arrival::Record(_, record) => (journal.mark(record.partition, record.offset), arrival),
            Arrival::End(..) => (None, arrival),
        })
        .collect();
    let touched = marked.iter().filter_map(|(mark, arrival)| match (mark, arrival) {
        (None | Some(Mark::Alone(2..)), Arrival::Record(_, r)) => Some((r.partition, r.offset)),
        _ => None,
    });
    journal.begin(IN_DECODER, &served.id, false, touched);
    for (mark, arrival) in marked {
        match arrival {
            Arrival::End(epoch, partition, next) => decoded.ends.push((partition, epoch, next)),
            Arrival::Record(epoch, record) => {
                decoded.items.push(decoder.item(epoch, record, mark, served));
            }
        }
    }
    journal.end(IN_DECODER);
    decoded.took = started.elapsed();
    decoded
}

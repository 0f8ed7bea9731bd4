//! The decode thread: records in, model inputs out, in order, while the model runs the batch before.

use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::config::{Include, Input as Settings, UnknownFields};
use crate::format;
use crate::log::{Arrival, Chunk};
use crate::model::worker::{Decoded, Prepared};
use crate::model::{Fields, Served};
use crate::pipeline::Item;
use crate::record::{Epoch, Fault, FaultClass, Offset, Partition, Record};

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
}

/// Decodes and prepares records by the configuration.
#[derive(Debug, Clone)]
pub struct Decoder {
    settings: Settings,
    /// Whether the fields are kept: for `output.include`, or because a swap may want them again.
    include: Include,
}

impl Decoder {
    /// A decoder for these inputs.
    pub fn new(settings: Settings, include: Include) -> Self {
        Self { settings, include }
    }

    /// One record, decoded and prepared for the version `served`, with what it costs.
    pub fn item(&self, epoch: Epoch, record: Record, served: &Served) -> Item<Decoded> {
        let (partition, offset) = (record.partition, record.offset);
        let bytes = u64::try_from(record.bytes()).unwrap_or(u64::MAX);
        let payload = self.decode(record, served);
        let tokens = match &payload.prepared {
            Prepared::Input(_, input) => u64::try_from(input.tokens()).unwrap_or(u64::MAX),
            Prepared::Tombstone | Prepared::Fault(_) => 0,
        };
        Item { partition, epoch, offset, bytes, tokens, payload }
    }

    fn decode(&self, record: Record, served: &Served) -> Decoded {
        let prepared = match &record.value {
            None => Ok((Prepared::Tombstone, None)),
            Some(value) => self.prepare(value, served),
        };
        let (prepared, fields) = prepared.unwrap_or_else(|fault| (Prepared::Fault(fault), None));
        Decoded { record: Arc::new(record), fields, prepared }
    }

    fn prepare(&self, value: &[u8], served: &Served) -> Result<(Prepared, Option<Fields>), Fault> {
        let mut fields = format::decode(self.settings.format, &self.settings.field, value)?;
        let about = served.model.about();
        if self.settings.unknown_fields == UnknownFields::Reject {
            let unknown = fields.keys().find(|name| !about.fields.contains(name));
            if let Some(name) = unknown {
                let message = format!("field {name:?} is not one of the model's");
                return Err(Fault::new(FaultClass::Invalid, message));
            }
        }
        let input = served.model.prepare(&fields)?;
        match &self.include {
            Include::All => (),
            Include::Fields(names) => {
                fields.retain(|name, _| names.contains(name) || about.fields.contains(name));
            }
            Include::None | Include::Key => fields.retain(|name, _| about.fields.contains(name)),
        }
        Ok((Prepared::Input(served.id.version, input), Some(fields)))
    }
}

/// Starts the thread `decode`. It ends when either channel closes.
///
/// # Errors
///
/// When the system gives no thread.
pub fn start(
    decoder: Decoder,
    current: Current,
    mut chunks: mpsc::Receiver<Chunk>,
    arrived: mpsc::Sender<Arrived>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("decode".to_owned()).spawn(move || {
        while let Some(chunk) = chunks.blocking_recv() {
            if arrived.blocking_send(decode(&decoder, &current.get(), chunk)).is_err() {
                return;
            }
        }
    })
}

fn decode(decoder: &Decoder, served: &Served, chunk: Chunk) -> Arrived {
    #[expect(clippy::disallowed_methods, reason = "measures decoding, decides nothing")]
    let started = Instant::now();
    let mut decoded = Arrived { items: Vec::with_capacity(chunk.0.len()), ..Arrived::default() };
    for arrival in chunk.0 {
        match arrival {
            Arrival::End(epoch, partition, next) => decoded.ends.push((partition, epoch, next)),
            Arrival::Record(epoch, record) => {
                decoded.items.push(decoder.item(epoch, record, served));
            }
        }
    }
    decoded.took = started.elapsed();
    decoded
}

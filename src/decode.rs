//! The decode threads: records in, model inputs out, in order, while the model runs the batch before.
//!
//! ```text
//!  chunks ─► decode-0 ─┐
//!            decode-1 ─┴─► turn ─► arrived
//! ```
//!
//! Each thread takes the next chunk and decodes it by itself; they hand on what they made in the order in which they took
//! it, so records of a partition stay in theirs.
//!
//! What is prepared here is prepared for the version that is current at that moment, and bears it. A batch that is cut
//! under another version takes nothing of it: its worker asks the [`Decoder`] again, from the record's own bytes.
//!
//! # Invariant
//!
//! 1. An outcome depends on the record's bytes and the batch's version, and on nothing else: not on the version that
//!    was current when the record was decoded, and not on the moment of the swap.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::clean::{self, Cleaning};
use crate::config::UnknownFields;
use crate::format::{Codec, Fields, Read, Unread};
use crate::journal::{Journal, Mark};
use crate::log::{Arrival, Chunk, Load, note};
use crate::model::Input;
use crate::model::served::Served;
use crate::pipeline::Item;
use crate::record::{ALLOCATION, End, Epoch, Fault, FaultClass, Record, Version};
use crate::repeated::Repeated;
use crate::status::{Board, Status};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::stage::Stage;

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
    pub ends: Vec<End>,
    /// When they were decoded.
    pub decode: Option<Stage>,
    /// The records' part of the log's [`Transit`](crate::log::Transit).
    pub load: Option<Load>,
}

/// Decodes and prepares records by the configuration.
#[derive(Debug, Clone)]
pub struct Decoder {
    codec: Arc<Codec>,
    /// Whether the schema registry was away when it was asked last.
    away: Arc<AtomicBool>,
    /// What the newest versions look at.
    looks: Arc<RwLock<Vec<Known>>>,
    /// Where is counted what is cleaned.
    metrics: Option<Metrics>,
    /// Where is told what records lack.
    status: Option<Board>,
}

impl Decoder {
    /// A decoder of what `codec` reads.
    pub fn new(codec: Arc<Codec>) -> Self {
        Self { codec, away: Arc::default(), looks: Arc::default(), metrics: None, status: None }
    }

    /// Counts what is cleaned, each time that a record is prepared.
    #[must_use]
    pub fn counting(self, metrics: Metrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Tells what the last records lack.
    #[must_use]
    pub fn telling(self, status: Board) -> Self {
        Self { status: Some(status), ..self }
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
                self.settle(&record);
                (Some(1), Decoded::later(Arc::new(record)))
            }
        };
        let tokens = u64::try_from(payload.prepared.tokens()).unwrap_or(u64::MAX);
        let memory = u64::try_from(payload.memory()).unwrap_or(u64::MAX);
        Item { partition, epoch, offset, bytes, tokens, memory, alone, payload }
    }

    /// What the version `served` makes of a record. The same record and version give the same, always: while the schema
    /// registry does not say what a record is, this waits.
    pub fn prepare(&self, record: &Record, served: &Served) -> Prepared {
        loop {
            // Content of a record never ends the process: what decoding it panics on is this record's fault.
            let decoded = catch_unwind(AssertUnwindSafe(|| self.decode(record, served)));
            let decoded = decoded.unwrap_or_else(|_panic| {
                let message = "decoding the record panicked; please report this as a bug";
                Err(Fault::new(FaultClass::Undecodable, message).into())
            });
            let prepared = match decoded {
                Ok(Some(input)) => Prepared::Input(input),
                Ok(None) => Prepared::Tombstone,
                Err(Unread::Fault(fault)) => Prepared::Fault(fault),
                Err(Unread::Away { reason, retry }) => {
                    self.wait(&reason, retry);
                    continue;
                }
            };
            self.waited();
            return prepared;
        }
    }

    /// Waits until the schema registry has said what a record is that is decoded only when its batch is in the model: no
    /// record is suspected for the time that passes until then.
    fn settle(&self, record: &Record) {
        while let Err(Unread::Away { reason, retry }) = self.codec.settle(record) {
            self.wait(&reason, retry);
        }
        self.waited();
    }

    fn wait(&self, reason: &str, retry: Duration) {
        #[expect(clippy::disallowed_methods, reason = "since when it is away, no outcome")]
        let now = Instant::now();
        let told = |status: &mut Status| {
            let since = status.schemas.as_ref().map_or(now, |(since, _)| *since);
            status.schemas = Some((since, reason.to_owned()));
        };
        self.status.iter().for_each(|status| status.change(told));
        if !self.away.swap(true, Ordering::AcqRel) {
            tracing::warn!("waiting for the schema registry; nothing is lost: {reason}");
        }
        std::thread::park_timeout(retry);
    }

    fn waited(&self) {
        if self.away.load(Ordering::Acquire) && self.away.swap(false, Ordering::AcqRel) {
            self.status.iter().for_each(|status| status.change(|status| status.schemas = None));
            tracing::info!("the schema registry answers again");
        }
    }

    fn decode(&self, record: &Record, served: &Served) -> Result<Option<Input>, Unread> {
        let looks = self.looks(served);
        let settings = self.codec.input();
        let prepared =
            self.codec.gather(&looks.fields, record, |Read { mut values, unknown }| {
                if let Some(never) = looks.fields.never(&values, unknown.as_deref()) {
                    self.lacking(&looks, served, &never);
                }
                let reject = settings.unknown_fields == UnknownFields::Reject;
                if let Some(name) = unknown.filter(|_| reject) {
                    let message = format!("field {name:?} is not one of the model's");
                    return Err(Fault::new(FaultClass::Invalid, message));
                }
                looks.cleaning.clean(&mut values)?;
                served.model.prepare(&values)
            })?;
        Ok(prepared.transpose()?)
    }

    /// Next to none of the last records had a field: told at once, and in the log with growing pauses.
    fn lacking(&self, looks: &Looks, served: &Served, never: &str) {
        if let Some(status) = &self.status
            && status.now().lacking != never
        {
            status.change(|status| never.clone_into(&mut status.lacking));
        }
        #[expect(clippy::disallowed_methods, reason = "when a line is said again, no outcome")]
        let now = Instant::now();
        let mut said = looks.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !never.is_empty() && said.seen(1, now).is_some() {
            tracing::warn!(model = %served.id, "{never}");
        }
    }

    /// What the version `served` looks at.
    fn looks(&self, served: &Served) -> Arc<Looks> {
        let version = served.id.version;
        let known = |looks: &[Known]| {
            looks.iter().find(|(known, _)| *known == version).map(|(_, looks)| Arc::clone(looks))
        };
        let read = self.looks.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(looks) = known(&read) {
            return looks;
        }
        drop(read);
        let looks = Arc::new(Looks::new(&self.codec, served, self.metrics.as_ref()));
        // What the version before looked for is none of this one's.
        self.status.iter().for_each(|status| status.change(|status| status.lacking.clear()));
        let mut all = self.looks.write().unwrap_or_else(PoisonError::into_inner);
        all.truncate(MOST_VERSIONS - 1);
        all.insert(0, (version, Arc::clone(&looks)));
        looks
    }
}

/// What a version looks at.
#[derive(Debug)]
struct Looks {
    /// By where it stands in a record: what the model is given, and behind it what cleaning needs.
    fields: Fields,
    cleaning: Cleaning,
    /// When it was said last what records lack.
    said: Mutex<Repeated>,
}

impl Looks {
    fn new(codec: &Codec, served: &Served, metrics: Option<&Metrics>) -> Self {
        let (input, model) = (codec.input(), &served.model);
        let mut cleaning = Cleaning::new(model.looks_at(), model.cleans(), &input.clean);
        cleaning = cleaning.filled(model.looks_at(), model.fills());
        if let Some(metrics) = metrics {
            cleaning = cleaning.counted(|field, rule| metrics.cleaned(field, rule));
        }
        let names = [model.looks_at(), cleaning.units()].concat();
        let of_cleaning =
            clean::doubts(model.looks_at(), model.cleans(), &input.clean, |name| input.knows(name));
        let of_places = codec.doubts(&names).into_iter().map(|doubt| doubt.to_string());
        for doubt in of_cleaning.into_iter().chain(of_places) {
            tracing::warn!(model = %served.id, "{doubt}");
        }
        Self { fields: Fields::new(&names, input), cleaning, said: Mutex::default() }
    }
}

/// A version and what it looks at.
type Known = (Version, Arc<Looks>);

/// Versions that are prepared for at one time, and one more.
const MOST_VERSIONS: usize = 4;

/// More have nothing to do: the threads that read a log give no more chunks than that.
const MOST_THREADS: usize = 16;

/// How many threads decode on this machine: one a core. They wait where the model is the slower part.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(MOST_THREADS)
}

/// Starts `count` threads, `decode-0` and so on. They end when either channel closes.
///
/// # Errors
///
/// When the system gives no thread.
pub fn start(
    count: usize,
    decoder: &Decoder,
    current: &Current,
    journal: &Journal,
    chunks: mpsc::Receiver<Chunk>,
    arrived: mpsc::Sender<Arrived>,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    let line = Arc::new(Line { chunks: Mutex::new((0, chunks)), turns: Turns::new(), arrived });
    let thread = |number: usize| {
        let name = format!("decode-{number}");
        let (line, decoder) = (Arc::clone(&line), decoder.clone());
        let (current, journal) = (current.clone(), journal.clone());
        std::thread::Builder::new().name(name.clone()).spawn(move || {
            line.work(|chunk| decode(&decoder, &current.get(), &journal, &name, chunk));
        })
    };
    (0..count.max(1)).map(thread).collect()
}

/// What the decode threads share.
#[derive(Debug)]
struct Line {
    /// The number of the next chunk, and where it comes from.
    chunks: Mutex<(u64, mpsc::Receiver<Chunk>)>,
    turns: Turns,
    arrived: mpsc::Sender<Arrived>,
}

impl Line {
    fn work(&self, decode: impl Fn(Chunk) -> Arrived) {
        while let Some((number, chunk)) = self.next() {
            let mut turn = Turn { turns: &self.turns, number, taken: false };
            let decoded = decode(chunk);
            if !self.turns.wait(number) || self.arrived.blocking_send(decoded).is_err() {
                return;
            }
            turn.taken = true;
        }
    }

    fn next(&self) -> Option<(u64, Chunk)> {
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        let chunk = chunks.1.blocking_recv()?;
        chunks.0 += 1;
        Some((chunks.0 - 1, chunk))
    }
}

/// Whose chunk is handed on next.
#[derive(Debug)]
struct Turns {
    next: Mutex<Next>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Next {
    number: u64,
    /// The first that never is, because its thread died or nobody takes it any more. Those before it still are.
    lost: Option<u64>,
}

impl Turns {
    fn new() -> Self {
        Self { next: Mutex::default(), changed: Condvar::new() }
    }

    /// Waits for the turn of chunk `number`: whether it comes.
    fn wait(&self, number: u64) -> bool {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting =
            |next: &mut Next| next.number < number && next.lost.is_none_or(|lost| number < lost);
        let next = self.changed.wait_while(next, waiting);
        next.unwrap_or_else(PoisonError::into_inner).number == number
    }
}

/// A chunk that somebody has taken. When it is dropped the next one has its turn, or none behind it if this one was not handed
/// on: nothing may be passed over.
#[derive(Debug)]
struct Turn<'a> {
    turns: &'a Turns,
    number: u64,
    taken: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut next = self.turns.next.lock().unwrap_or_else(PoisonError::into_inner);
        if self.taken {
            next.number += 1;
        } else {
            next.lost = Some(next.lost.map_or(self.number, |lost| lost.min(self.number)));
        }
        self.turns.changed.notify_all();
    }
}

/// `key` is what the journal calls the chunk.
fn decode(
    decoder: &Decoder,
    served: &Served,
    journal: &Journal,
    key: &str,
    chunk: Chunk,
) -> Arrived {
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
            Arrival::End(_) => (None, arrival),
        })
        .collect();
    let touched = marked.iter().filter_map(|(mark, arrival)| match (mark, arrival) {
        (None | Some(Mark::Alone(2..)), Arrival::Record(_, r)) => Some((r.partition, r.offset)),
        _ => None,
    });
    journal.begin(key, &served.id, false, touched);
    for (mark, arrival) in marked {
        match arrival {
            Arrival::End(end) => decoded.ends.push(end),
            Arrival::Record(epoch, record) => {
                decoded.items.push(decoder.item(epoch, record, mark, served));
            }
        }
    }
    journal.end(key);
    #[expect(clippy::disallowed_methods, reason = "as above")]
    let ended = Instant::now();
    decoded.decode = Some(Stage::new(started, ended));
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Offset, Partition};

    const PARTITION: Partition = Partition { topic: 0, number: 0 };

    fn end(next: i64) -> Arrival {
        let (partition, epoch, next) = (PARTITION, Epoch(0), Offset(next));
        Arrival::End(End { partition, epoch, next, is_last: false })
    }

    /// What arrives of `count` chunks that four threads decode, numbered by their ends.
    fn arrived(count: i64, decode: fn(&Chunk)) -> Vec<i64> {
        let (chunks_in, chunks) = mpsc::channel(4);
        let (arrived_in, mut arrived) = mpsc::channel(2);
        let chunks = Mutex::new((0, chunks));
        let line = Line { chunks, turns: Turns::new(), arrived: arrived_in };
        std::thread::scope(|scope| {
            let line = Arc::new(line);
            for _ in 0..4 {
                let line = Arc::clone(&line);
                scope.spawn(move || {
                    let work = AssertUnwindSafe(|| {
                        line.work(|chunk| {
                            decode(&chunk);
                            let end = |arrival| match arrival {
                                Arrival::End(end) => end,
                                Arrival::Record(..) => panic!("only ends were sent"),
                            };
                            let ends = chunk.arrivals.into_iter().map(end).collect();
                            Arrived { ends, ..Arrived::default() }
                        });
                    });
                    catch_unwind(work).unwrap_or_default();
                });
            }
            drop(line);
            scope.spawn(move || {
                for number in 0..count {
                    let chunk = Chunk { arrivals: vec![end(number)], load: None };
                    if chunks_in.blocking_send(chunk).is_err() {
                        return;
                    }
                }
            });
            let mut numbers = Vec::new();
            while let Some(chunk) = arrived.blocking_recv() {
                numbers.extend(chunk.ends.iter().map(|end| end.next.0));
            }
            numbers
        })
    }

    #[test]
    fn chunks_are_handed_on_as_they_were_taken() {
        let uneven = |chunk: &Chunk| {
            let Some(Arrival::End(end)) = chunk.arrivals.first() else { return };
            (0..end.next.0 % 7 * 50).for_each(|_| std::thread::yield_now());
        };
        assert_eq!(arrived(500, uneven), (0..500).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_passes_a_chunk_whose_thread_died() {
        let dies = |chunk: &Chunk| {
            let end = chunk.arrivals.first();
            assert!(!matches!(end, Some(Arrival::End(end)) if end.next.0 == 7), "planted");
        };
        assert_eq!(arrived(500, dies), (0..7).collect::<Vec<_>>());
    }
}

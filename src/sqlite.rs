//! The embedded log: topics in one `SQLite` file, for trying out, tests, and jobs on files.
//!
//! It is not Kafka and does not pretend to be: one process, one file. What it shares with Kafka is the seam of
//! [`crate::log`] and its promise: a transaction's predictions, dead letters, manifest and offsets are one `SQLite`
//! transaction, synced to disk before it is answered.
//!
//! ```text
//!  records(topic, partition, offset, …) ─► read thread ─► chunks ─► engine ─► lane thread ─► one transaction:
//!  offsets(group, topic, partition, next) ◄────────────────────────────────────┘  outputs + offsets
//! ```

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use crate::config::{Config, StartFrom};
use crate::log::manifest::Manifest;
use crate::log::message::{self, Naming, Notes};
use crate::log::note::Note;
use crate::log::{
    Arrival, Assigned, Chunk, Control, Done, Failure, Gate, How, Leave, Log, Opening, Transaction,
};
use crate::record::{Epoch, ModelId, Offset, Partition, Record, Signature};

mod store;

pub use store::{Error, Message, Store, Stored};

/// Most records of a chunk.
const CHUNK: usize = 512;

/// How long the reading thread waits for new records or for room: the latency this log adds at most.
const PACE: Duration = Duration::from_millis(5);

/// Longest that a commit may take: a disk that is slow, and another program that holds the file.
const PATIENCE: Duration = Duration::from_secs(120);

/// One process has the file, so its partitions are assigned once.
const EPOCH: Epoch = Epoch(1);

/// Opens the log. Topics that are missing are made: inputs with one partition, the others with as many as the
/// largest input.
///
/// # Errors
///
/// When the file cannot be opened, or another process has it.
pub fn open(
    file: &Path,
    config: &Config,
    naming: &Naming,
    opening: &Opening,
) -> Result<Log, Failure> {
    let lock = lock(file)?;
    let store = Store::open(file).map_err(|error| failure(&error))?;
    create_topics(&store, naming).map_err(|error| failure(&error))?;
    let last = last(&store, naming, opening.serving.as_ref()).map_err(|error| failure(&error))?;
    let (reader, notes) = Reader::new(store, naming, config.kafka.start_from, opening.until_end)
        .map_err(|error| failure(&error))?;

    let (control_in, control) = mpsc::channel(8);
    let (chunks_in, chunks) = mpsc::channel(4);
    let (done_in, done) = mpsc::channel(16);
    let leave = Leave::default();
    let no_thread =
        |error: std::io::Error| Failure { message: format!("start a thread: {error}"), exit: 75 };
    let mut threads = Vec::new();
    let mut lanes = Vec::new();
    for lane in 0..usize::from(config.kafka.lanes.max(1)) {
        let (lane_in, transactions) = mpsc::channel(1);
        lanes.push(lane_in);
        let store = Store::open(file).map_err(|error| failure(&error))?;
        let writer = Writer { lane, store, naming: naming.clone(), notes: notes.clone() };
        let (done, control) = (done_in.clone(), control_in.clone());
        let body = move || writer.run(transactions, &done, &control);
        threads.push(thread(&format!("lane-{lane}"), body).map_err(no_thread)?);
    }
    let stop = leave.clone();
    let body = move || {
        reader.run(&control_in, &chunks_in, &stop);
        drop(lock);
    };
    threads.push(thread("read", body).map_err(no_thread)?);
    let (shared, patience, judge) = (false, PATIENCE, None);
    Ok(Log { control, chunks, lanes, done, leave, shared, patience, judge, last, threads })
}

fn thread(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// Holds `FILE.lock` for as long as the log is open: two readers would both answer every record.
fn lock(file: &Path) -> Result<File, Failure> {
    let path = file.with_extension("lock");
    let fail =
        |why: String, exit| Failure { message: format!("lock {}: {why}", path.display()), exit };
    let lock = File::create(&path).map_err(|error| fail(error.to_string(), 78))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            let why = "another process has this log; it is for one process, Kafka is for more";
            Err(fail(why.to_owned(), 78))
        }
        Err(TryLockError::Error(error)) => Err(fail(error.to_string(), 78)),
    }
}

fn failure(error: &Error) -> Failure {
    Failure { message: crate::service::chain(error), exit: 75 }
}

fn create_topics(store: &Store, naming: &Naming) -> Result<(), Error> {
    let mut most = 1;
    for topic in &naming.inputs {
        store.create_topic(topic, 1)?;
        most = most.max(store.partitions(topic)?);
    }
    naming.written().iter().try_for_each(|topic| store.create_topic(topic, most))
}

/// The version that answered last, where it is another than the one that is to serve, with what it took and gave.
fn last(
    store: &Store,
    naming: &Naming,
    serving: Option<&ModelId>,
) -> Result<Option<(ModelId, Signature)>, Error> {
    let mut newest: Option<(i64, ModelId, Signature)> = None;
    for partition in 0..i32::from(store.partitions(&naming.manifest)?) {
        let end = store.end(&naming.manifest, partition)?;
        let before = Offset(end.0.saturating_sub(1).max(0));
        for stored in store.read(&naming.manifest, partition, before, 1)? {
            let (time, value) = (stored.message.timestamp, stored.message.value);
            let Ok(manifest) = Manifest::read(&value.unwrap_or_default()) else { continue };
            let younger = newest.as_ref().is_none_or(|(seen, ..)| *seen <= time);
            if let Some(signature) = manifest.signature.clone().filter(|_| younger) {
                newest = Some((time, manifest.model(), signature));
            }
        }
    }
    let newest = newest.map(|(_, model, signature)| (model, signature));
    Ok(newest.filter(|(model, _)| serving.is_some_and(|serving| serving != model)))
}

/// The reading side.
struct Reader {
    store: Store,
    topics: Vec<String>,
    /// The next offset of each partition, the end that was told last, and whether it may be read.
    positions: BTreeMap<Partition, (Offset, Option<Offset>, Gate)>,
    assigned: Vec<Assigned>,
}

impl Reader {
    fn new(
        store: Store,
        naming: &Naming,
        from: StartFrom,
        until_end: bool,
    ) -> Result<(Self, Notes), Error> {
        let (mut positions, mut notes) = (BTreeMap::new(), Notes::new());
        let mut assigned = Vec::new();
        for (index, topic) in (0_u16..).zip(&naming.inputs) {
            let partitions = i32::from(store.partitions(topic)?);
            for number in 0..partitions {
                let partition = Partition { topic: index, number };
                let committed = store.committed(&naming.group, topic, number)?;
                let end = store.end(topic, number)?;
                let next = committed.unwrap_or(match from {
                    StartFrom::Earliest => Offset(0),
                    StartFrom::Latest => end,
                });
                let note = store.note(&naming.group, topic, number)?.unwrap_or_else(|| Note {
                    topic: None,
                    model: None,
                    first: wall_clock_ms(),
                    partitions,
                    seen: next,
                    skip: None,
                });
                positions.insert(partition, (next, None, Gate::new(|| ())));
                assigned.push(Assigned {
                    partition,
                    epoch: EPOCH,
                    next,
                    end,
                    until: until_end.then_some(end),
                    skip: None,
                    answered: note.model.clone(),
                    topic: note.topic.clone(),
                    gate: positions[&partition].2.clone(),
                });
                notes.insert(partition, note);
            }
        }
        let topics = naming.inputs.clone();
        Ok((Self { store, topics, positions, assigned }, notes))
    }

    /// Reads until told to leave.
    fn run(mut self, control: &mpsc::Sender<Control>, chunks: &mpsc::Sender<Chunk>, leave: &Leave) {
        let assigned = std::mem::take(&mut self.assigned);
        // The file is always there.
        let first = [Control::Reachable(true), Control::Assigned(assigned)];
        if first.into_iter().any(|control_| control.blocking_send(control_).is_err()) {
            return;
        }
        // Nobody sends: it is the pause between two looks.
        let (_sender, pause) = sync_channel::<()>(0);
        while !leave.is_asked() {
            let chunk = match self.next() {
                Ok(chunk) => chunk,
                Err(error) => {
                    // Nobody listens any more only if the service is ending anyhow.
                    control.blocking_send(Control::Failed(failure(&error))).unwrap_or_default();
                    return;
                }
            };
            if chunk.0.is_empty() {
                wait(&pause);
                continue;
            }
            let ends = self.positions.iter().filter_map(|(p, (_, end, _))| Some((*p, (*end)?)));
            control.try_send(Control::Ends(ends.collect())).unwrap_or_default(); // lag may be told later
            let mut waiting = Some(chunk);
            while let Some(chunk) = waiting.take().filter(|_| !leave.is_asked()) {
                match chunks.try_send(chunk) {
                    Ok(()) => (),
                    Err(mpsc::error::TrySendError::Closed(_)) => return,
                    Err(mpsc::error::TrySendError::Full(chunk)) => {
                        waiting = Some(chunk);
                        wait(&pause);
                    }
                }
            }
        }
    }

    /// What is new, of every partition in turn.
    fn next(&mut self) -> Result<Chunk, Error> {
        let mut chunk = Chunk::default();
        for (partition, (position, told, gate)) in &mut self.positions {
            if !gate.is_open() {
                continue;
            }
            let topic = &self.topics[usize::from(partition.topic)];
            let stored = self.store.read(topic, partition.number, *position, CHUNK)?;
            let all = stored.len() < CHUNK;
            for Stored { offset, message } in stored {
                *position = offset.next();
                let Message { timestamp, key, value, headers } = message;
                let timestamp = Some(timestamp);
                let record =
                    Record { partition: *partition, offset, timestamp, key, value, headers };
                chunk.0.push(Arrival::Record(EPOCH, record));
            }
            if all && *told != Some(*position) {
                *told = Some(*position);
                chunk.0.push(Arrival::End(EPOCH, *partition, *position));
            }
        }
        Ok(chunk)
    }
}

fn wait(pause: &Receiver<()>) {
    match pause.recv_timeout(PACE) {
        Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => (),
    }
}

/// A lane.
struct Writer {
    lane: usize,
    store: Store,
    naming: Naming,
    /// What each partition's commits carry forward. A partition belongs to one lane.
    notes: Notes,
}

impl Writer {
    /// Commits until the channel closes.
    fn run(
        mut self,
        mut transactions: mpsc::Receiver<Transaction>,
        done: &mpsc::Sender<Done>,
        control: &mpsc::Sender<Control>,
    ) {
        while let Some(transaction) = transactions.blocking_recv() {
            #[expect(clippy::disallowed_methods, reason = "measures the commit, decides nothing")]
            let started = Instant::now();
            if let Err(error) = self.commit(&transaction) {
                control.blocking_send(Control::Failed(failure(&error))).unwrap_or_default();
                return;
            }
            let committed = transaction.next.iter().map(|(p, (_, next))| (*p, *next)).collect();
            let answer = Done {
                lane: self.lane,
                id: transaction.id,
                committed,
                took: started.elapsed(),
                how: How::Committed,
                buried: Vec::new(),
                fits: None,
            };
            if done.blocking_send(answer).is_err() {
                return;
            }
        }
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<(), Error> {
        let Self { store, naming, notes, .. } = self;
        let mut after = notes.clone();
        store.transaction(|store| {
            for finished in &transaction.batches {
                let batch = naming.batch(&finished.info);
                for row in &finished.rows {
                    store.append_message(&batch.message(row))?;
                }
                let manifests = batch.manifests(finished, &after, usize::MAX);
                for manifest in manifests.map_err(Error::Manifest)? {
                    store.append_message(&manifest)?;
                }
                message::answered(&mut after, finished);
            }
            for (partition, (_, next)) in &transaction.next {
                if let Some(note) = after.get(partition) {
                    let name = naming.input(*partition);
                    store.commit(&naming.group, name, partition.number, (*next, note))?;
                }
            }
            Ok(())
        })?;
        *notes = after;
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "the time of a group's first start is wall time")]
fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

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
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, StartFrom};
use crate::log::message::{Naming, Notes};
use crate::log::{Arrival, Assigned, Chunk, Control, Done, Failure, How, Log, Transaction};
use crate::record::{Epoch, Offset, Partition, Record};

mod store;

pub use store::{Error, Message, Store, Stored};

/// Most records of a chunk.
const CHUNK: usize = 512;

/// How long the reading thread waits for new records or for room: the latency this log adds at most.
const PACE: Duration = Duration::from_millis(5);

/// One process has the file, so its partitions are assigned once.
const EPOCH: Epoch = Epoch(1);

/// Opens the log. Topics that are missing are made: inputs with one partition, the others with as many as the
/// largest input.
///
/// # Errors
///
/// When the file cannot be opened, or another process has it.
pub fn open(file: &Path, config: &Config, naming: &Naming) -> Result<Log, Failure> {
    let lock = lock(file)?;
    let store = Store::open(file).map_err(|error| failure(&error))?;
    let group =
        if config.kafka.group.is_empty() { "tidemill" } else { &config.kafka.group }.to_owned();
    create_topics(&store, naming).map_err(|error| failure(&error))?;
    let reader = Reader::new(store, naming, &group, config.kafka.start_from)
        .map_err(|error| failure(&error))?;

    let (control_in, control) = mpsc::channel(8);
    let (chunks_in, chunks) = mpsc::channel(4);
    let (done_in, done) = mpsc::channel(16);
    let leave = CancellationToken::new();
    let no_thread =
        |error: std::io::Error| Failure { message: format!("start a thread: {error}"), exit: 75 };
    let mut threads = Vec::new();
    let mut lanes = Vec::new();
    for lane in 0..usize::from(config.kafka.lanes.max(1)) {
        let (lane_in, transactions) = mpsc::channel(1);
        lanes.push(lane_in);
        let store = Store::open(file).map_err(|error| failure(&error))?;
        let writer = Writer { lane, store, naming: naming.clone(), group: group.clone() };
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
    Ok(Log { control, chunks, lanes, done, leave, threads })
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

/// The reading side.
struct Reader {
    store: Store,
    topics: Vec<String>,
    /// The next offset of each partition, and the end that was told last.
    positions: BTreeMap<Partition, (Offset, Option<Offset>)>,
    assigned: Vec<Assigned>,
}

impl Reader {
    fn new(store: Store, naming: &Naming, group: &str, from: StartFrom) -> Result<Self, Error> {
        let mut positions = BTreeMap::new();
        let mut assigned = Vec::new();
        for (index, topic) in (0_u16..).zip(&naming.inputs) {
            for number in 0..i32::from(store.partitions(topic)?) {
                let partition = Partition { topic: index, number };
                let committed = store.committed(group, topic, number)?;
                let end = store.end(topic, number)?;
                let start = match from {
                    StartFrom::Earliest => Offset(0),
                    StartFrom::Latest => end,
                };
                positions.insert(partition, (committed.unwrap_or(start), None));
                assigned.push(Assigned { partition, epoch: EPOCH, committed, end });
            }
        }
        Ok(Self { store, topics: naming.inputs.clone(), positions, assigned })
    }

    /// Reads until told to leave.
    fn run(
        mut self,
        control: &mpsc::Sender<Control>,
        chunks: &mpsc::Sender<Chunk>,
        leave: &CancellationToken,
    ) {
        let assigned = std::mem::take(&mut self.assigned);
        if control.blocking_send(Control::Assigned(assigned)).is_err() {
            return;
        }
        // Nobody sends: it is the pause between two looks.
        let (_sender, pause) = sync_channel::<()>(0);
        while !leave.is_cancelled() {
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
            let ends = self.positions.iter().filter_map(|(p, (_, end))| Some((*p, (*end)?)));
            control.try_send(Control::Ends(ends.collect())).unwrap_or_default(); // lag may be told later
            let mut waiting = Some(chunk);
            while let Some(chunk) = waiting.take().filter(|_| !leave.is_cancelled()) {
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
        for (partition, (position, told)) in &mut self.positions {
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
    group: String,
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
            };
            if done.blocking_send(answer).is_err() {
                return;
            }
        }
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<(), Error> {
        let Self { store, naming, group, .. } = self;
        store.transaction(|store| {
            for finished in &transaction.batches {
                let batch = naming.batch(&finished.info);
                for row in &finished.rows {
                    store.append_message(&batch.message(row))?;
                }
                let notes = Notes::new();
                let manifests = batch.manifests(finished, &notes, usize::MAX);
                for manifest in manifests.map_err(Error::Manifest)? {
                    store.append_message(&manifest)?;
                }
            }
            for (partition, (_, next)) in &transaction.next {
                store.commit(group, naming.input(*partition), partition.number, *next)?;
            }
            Ok(())
        })
    }
}

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

use std::collections::VecDeque;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use crate::config::{Config, StartFrom};
use crate::failure::{Exit, Failure, chain};
use crate::file;
use crate::log::manifest::Manifest;
use crate::log::message::{self, Amend, Naming, Notes};
use crate::log::note::Note;
use crate::log::{
    Arrival, Assigned, Chunk, Control, Done, Gate, How, Leave, Log, Opening, Transaction, Transit,
};
use crate::record::{Epoch, ModelId, Offset, Outcome, Partition, Record, Signature};

mod store;

pub use store::{Error, Message, Store, Stored};

/// Most records of a chunk.
const CHUNK: usize = 512;

/// How long the reading thread waits for new records or for room: the latency this log adds at most.
const PACE: Duration = Duration::from_millis(5);

/// Longest that a commit may take: a disk that is slow, and another program that holds the file.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a file of `SQLite` begins with (<https://www.sqlite.org/fileformat2.html>, 1.3).
const MAGIC: &[u8] = b"SQLite format 3\0";

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
    // By its real path: `SQLite` has names that are no paths, `:memory:` and `file:a.db`.
    let (lock, file) = lock(file)?;
    let store = Store::open(&file).map_err(|error| failure(&error))?;
    create_topics(&store, naming).map_err(|error| failure(&error))?;
    let last = last(&store, naming, opening.serving.as_ref()).map_err(|error| failure(&error))?;
    let (reader, notes) = Reader::new(
        store,
        naming,
        config.kafka.start_from,
        opening.until_end,
        Transit::new(config.limits.memory.0),
    )
    .map_err(|error| failure(&error))?;

    let (control_in, control) = mpsc::channel(8);
    let (chunks_in, chunks) = mpsc::channel(4);
    let (done_in, done) = mpsc::channel(16);
    let leave = Leave::default();
    let no_thread = |error: io::Error| Failure {
        message: format!("start a thread: {error}"),
        exit: Exit::Temporary,
    };
    let mut threads = Vec::new();
    let mut lanes = Vec::new();
    for lane in 0..usize::from(config.kafka.lanes.max(1)) {
        let (lane_in, transactions) = mpsc::channel(1);
        lanes.push(lane_in);
        let store = Store::open(&file).map_err(|error| failure(&error))?;
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
) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// Holds `FILE.tidemill-lock` for as long as the log is open: two readers would both answer every record. It stands
/// beside the file itself, whatever links lead there, and nothing is ever written to it. Also the file's real path.
fn lock(file: &Path) -> Result<(File, PathBuf), Failure> {
    let fail = |path: &Path, why: String| Failure {
        message: format!("lock the log {}: {why}", path.display()),
        exit: Exit::Config,
    };
    let real = real(file).map_err(|error| fail(file, error.to_string()))?;
    let path = file::beside(&real, ".tidemill-lock");
    let lock = file::writable(&path).map_err(|error| fail(&path, error.to_string()))?;
    match lock.try_lock() {
        Ok(()) => Ok((lock, real)),
        Err(TryLockError::WouldBlock) => {
            let why = "another process has this log; it is for one process, Kafka is for more";
            Err(fail(&path, why.to_owned()))
        }
        Err(TryLockError::Error(error)) => Err(fail(&path, error.to_string())),
    }
}

/// The path of the log's file without links; the file is made if there is none. One that is there is not opened: closing
/// it would release the locks that `SQLite` has on it in this process.
fn real(file: &Path) -> io::Result<PathBuf> {
    let metadata = match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => file::writable(file)?.metadata(),
        found => found,
    }?;
    single(&metadata)?;
    fs::canonicalize(file)
}

/// Refuses what is no file of one name.
fn single(metadata: &fs::Metadata) -> io::Result<()> {
    if !metadata.is_file() {
        return refused("is not a regular file; name a file, or one that is not there yet");
    }
    // Each name would have a journal of its own beside it.
    if metadata.nlink() != 1 {
        return refused(
            "has a second name (a hard link), under which it could be opened too; copy it",
        );
    }
    Ok(())
}

fn refused(why: &str) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

fn failure(error: &Error) -> Failure {
    let message = chain(error);
    if error.is_no_database() {
        let message =
            format!("{message}: the file is something else; name another one under `log`");
        return Failure { message, exit: Exit::Config };
    }
    Failure { message, exit: Exit::Temporary }
}

/// Whether `file` can be a log, without writing or locking anything: it is one, is empty, or can be made.
///
/// # Errors
///
/// Why it cannot.
pub fn look(file: &Path) -> io::Result<()> {
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            if folder.is_some_and(|folder| !folder.is_dir()) {
                return refused("the folder that it is to stand in does not exist");
            }
            Ok(())
        }
        Err(error) => Err(error),
        Ok(metadata) => {
            single(&metadata)?;
            let mut head = Vec::new();
            File::open(file)?.take(MAGIC.len() as u64).read_to_end(&mut head)?;
            if head.is_empty() || head == MAGIC { Ok(()) } else { refused("is not an SQLite file") }
        }
    }
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
    /// The partitions; whose turn it is stands first.
    reading: VecDeque<Reading>,
    assigned: Vec<Assigned>,
    transit: Transit,
}

/// A partition that is read.
struct Reading {
    partition: Partition,
    /// The next offset.
    position: Offset,
    /// The end that was told last.
    told: Option<Offset>,
    /// Whether it may be read.
    gate: Gate,
}

impl Reader {
    fn new(
        store: Store,
        naming: &Naming,
        from: StartFrom,
        until_end: bool,
        transit: Transit,
    ) -> Result<(Self, Notes), Error> {
        let (mut reading, mut notes) = (VecDeque::new(), Notes::new());
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
                let gate = Gate::new(|| ());
                assigned.push(Assigned {
                    partition,
                    epoch: EPOCH,
                    next,
                    end,
                    until: until_end.then_some(end),
                    skip: None,
                    answered: note.model.clone(),
                    topic: note.topic.clone(),
                    gate: gate.clone(),
                });
                reading.push_back(Reading { partition, position: next, told: None, gate });
                notes.insert(partition, note);
            }
        }
        let topics = naming.inputs.clone();
        Ok((Self { store, topics, reading, assigned, transit }, notes))
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
            if !self.transit.has_room() {
                wait(&pause);
                continue;
            }
            let chunk = match self.next() {
                Ok(chunk) => chunk,
                Err(error) => {
                    // Nobody listens any more only if the service is ending anyhow.
                    control.blocking_send(Control::Failed(failure(&error))).unwrap_or_default();
                    return;
                }
            };
            if chunk.arrivals.is_empty() {
                wait(&pause);
                continue;
            }
            let ends = self.reading.iter().filter_map(|r| Some((r.partition, r.told?)));
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

    /// What is new, of one partition after the other until the chunk is full; the next chunk goes on there.
    fn next(&mut self) -> Result<Chunk, Error> {
        let mut chunk = Chunk::default();
        let mut memory = 0;
        let (mut records, mut bytes) = (CHUNK, self.transit.chunk_bytes());
        for _ in 0..self.reading.len() {
            let Some(reading) = self.reading.front_mut() else { break };
            if !reading.gate.is_open() {
                self.reading.rotate_left(1);
                continue;
            }
            let Reading { partition, position, told, .. } = reading;
            let topic = &self.topics[usize::from(partition.topic)];
            let (stored, all) =
                self.store.read_chunk(topic, partition.number, *position, (records, bytes))?;
            records -= stored.len();
            for Stored { offset, message } in stored {
                *position = offset.next();
                let Message { timestamp, key, value, headers } = message;
                let timestamp = Some(timestamp);
                let record =
                    Record { partition: *partition, offset, timestamp, key, value, headers };
                bytes = bytes.saturating_sub(record.bytes());
                memory += record.memory();
                chunk.arrivals.push(Arrival::Record(EPOCH, record));
            }
            if all && *told != Some(*position) {
                *told = Some(*position);
                chunk.arrivals.push(Arrival::End(EPOCH, *partition, *position));
            }
            self.reading.rotate_left(1);
            if records == 0 || bytes == 0 {
                break;
            }
        }
        chunk.load = Some(self.transit.take(memory));
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
                    // A dead letter is stored with the time of writing; the record's own stands in a header.
                    let amend = Amend { timestamp: true, ..Amend::default() };
                    store.append_message(&match row.outcome {
                        Outcome::DeadLetter(_) => batch.amended(row, amend, usize::MAX),
                        Outcome::Prediction(_) | Outcome::Tombstone => batch.message(row),
                    })?;
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
                    store.commit(
                        &naming.group,
                        name,
                        partition.number,
                        (*next, &note.to_string()),
                    )?;
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_log_has_one_lock_whatever_it_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let precious = ["Cargo.lock", "a.lock", "a.db-lock"].map(at);
        precious.iter().for_each(|file| fs::write(file, "precious").unwrap());
        symlink("a.db", at("link.db")).unwrap();
        symlink(dir.path(), at("folder")).unwrap();
        let _first = lock(&at("link.db")).unwrap();
        for same in ["a.db", "link.db", "folder/a.db", "folder/folder/link.db"] {
            let failure = lock(&at(same)).unwrap_err();
            assert!(failure.message.contains("another process has this log"), "{failure}");
            assert_eq!(failure.exit, Exit::Config);
        }
        assert_eq!(
            lock(&at("file:a.db")).unwrap().1,
            dir.path().canonicalize().unwrap().join("file:a.db")
        );
        for other in ["a.sqlite", "a", "Cargo.db", "a.db.db"] {
            drop(lock(&at(other)).unwrap());
        }
        for file in precious {
            assert_eq!(fs::read_to_string(file).unwrap(), "precious");
        }
    }

    #[test]
    fn nothing_of_the_users_is_emptied_and_what_is_no_file_is_no_log() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["a.db", "a.db.tidemill-lock"] {
            fs::write(at(name), "precious").unwrap();
        }
        drop(lock(&at("a.db")).unwrap());
        for name in ["a.db", "a.db.tidemill-lock"] {
            assert_eq!(fs::read_to_string(at(name)).unwrap(), "precious");
        }
        assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
        fs::create_dir(at("folder")).unwrap();
        fs::hard_link(at("a.db"), at("second.db")).unwrap();
        for (name, part) in [
            ("fifo", "is not a regular file"),
            ("folder", "is not a regular file"),
            ("a.db", "has a second name"),
            ("second.db", "has a second name"),
            ("nowhere/a.db", "No such file"),
        ] {
            let failure = lock(&at(name)).unwrap_err();
            assert!(failure.message.contains(part), "{failure}");
        }
    }
}

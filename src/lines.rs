//! Lines: a log of one partition, whose offsets are the numbers of the lines.
//!
//! ```text
//!  file, pipe ─► read thread ─► chunks ─► engine ─► write thread ─► file, pipe: one line for each, in order
//! ```
//!
//! Where it ends is known when it has ended. What was read is handed on as soon as nothing more is there, so that whoever
//! types lines, or asks with one and waits, is answered; and no faster than it is answered, so that a pipe without end
//! takes no more memory than a file. Nothing is remembered from one run to the next: a line is committed when it is
//! written.

use std::io::{BufRead as _, BufReader, BufWriter, ErrorKind, Read, Write};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use memchr::memchr;
use tokio::sync::mpsc;

use crate::failure::{Exit, Failure, temporary, unwritten};
use crate::log::note::Note;
use crate::log::{
    Arrival, Assigned, Chunk, Control, Done, Feed, Gate, Held, Joint, Leave, Log, Membership,
    Offsets, Sink, Transaction, Transit,
};
use crate::record::{End, Epoch, Offset, Outcome, Partition, Record, Written};

/// The one partition.
pub const LINES: Partition = Partition { topic: 0, number: 0 };

/// It is assigned once.
const EPOCH: Epoch = Epoch(1);

/// Most lines of a chunk.
const CHUNK: usize = 512;

/// What is read at once, bytes.
const BUFFER: usize = 1 << 20;

/// How often room is looked for while the engine is behind, and whether it has gone.
const PACE: Duration = Duration::from_millis(5);

/// Opens the log: lines of `input` are answered with lines of `output`. Of `memory`, the configured bound of the process,
/// lines on their way take a sixteenth.
///
/// # Errors
///
/// When the system gives no thread.
pub fn open(
    input: impl Read + Send + 'static,
    output: impl Write + Send + 'static,
    memory: u64,
) -> Result<Log, Failure> {
    let (joint, control) = Joint::new();
    let nothing: Offsets = Box::new(|_| Ok(None));
    let feed = feed(input, memory, &nothing, (&joint, control))?;
    let sink = sink(output, joint)?;
    Ok(Log { feed, sink })
}

/// A feed of the lines of `input`, less those that `offsets` says are answered already.
///
/// # Errors
///
/// When the offsets cannot be read, or the system gives no thread.
pub fn feed(
    input: impl Read + Send + 'static,
    memory: u64,
    offsets: &Offsets,
    (joint, control): (&Joint, mpsc::Receiver<Control>),
) -> Result<Feed, Failure> {
    let committed = offsets(LINES)?;
    let next = committed.as_ref().map_or(Offset(0), |committed| committed.next);
    let note = committed.and_then(|committed| committed.note);
    let note = note.unwrap_or_else(|| Note::of_a_first_start(1, next));
    // The gate that is dropped unopened ends the thread as well.
    let (open, opened) = sync_channel(1);
    let assigned = Assigned {
        partition: LINES,
        epoch: EPOCH,
        next,
        end: next,
        until: None,
        skip: None,
        answered: note.model.clone(),
        topic: None,
        gate: Gate::new(move || open.try_send(()).unwrap_or_default()),
    };
    joint.owned.write().insert(LINES, Held { epoch: EPOCH, committed: next, note });
    // It is the first that is said.
    joint.control.try_send(Control::Assigned(vec![assigned])).unwrap_or_default();
    let (chunks_in, chunks) = mpsc::channel(4);
    let leave = Leave::default();
    let reader = Reader {
        input: BufReader::with_capacity(BUFFER, input),
        line: Offset(0),
        next,
        chunks: chunks_in,
        transit: Transit::new(memory),
        leave: leave.clone(),
    };
    // Neither joined nor waited for: it may be reading from a terminal.
    let control_in = joint.control.downgrade();
    drop(thread("read", move || {
        // The channel of chunks closes with the reader: behind what went wrong, never before it.
        let mut reader = reader;
        if let Err(failure) = reader.run(&opened)
            && let Some(control) = control_in.upgrade()
        {
            control.blocking_send(Control::Failed(failure)).unwrap_or_default();
        }
    })?);
    let membership = Membership { control, leave, judge: None, threads: Vec::new() };
    Ok(Feed { chunks, membership })
}

/// A sink that writes one line for each: the prediction, `null`, or what is wrong with it.
///
/// # Errors
///
/// When the system gives no thread.
pub fn sink(output: impl Write + Send + 'static, joint: Joint) -> Result<Sink, Failure> {
    let (lane, transactions) = mpsc::channel(1);
    let (done_in, done) = mpsc::channel(1);
    let writer = Writer { output: BufWriter::new(output), next: Offset(0), joint };
    let threads = vec![thread("write", move || writer.run(transactions, &done_in))?];
    // Whoever reads what is written may take any time.
    Ok(Sink { lanes: vec![lane], done, patience: None, last: None, threads })
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(body).map_err(|error| temporary(&format!("start a thread: {error}")))
}

/// The reading side.
struct Reader<R> {
    input: BufReader<R>,
    /// The line that is read next.
    line: Offset,
    /// The first that is not answered yet.
    next: Offset,
    chunks: mpsc::Sender<Chunk>,
    transit: Transit,
    leave: Leave,
}

impl<R: Read> Reader<R> {
    /// Reads to the end, and stays until told to leave: a channel that closes is a thread that died.
    fn run(&mut self, opened: &Receiver<()>) -> Result<(), Failure> {
        let mut more = opened.recv().is_ok();
        while more {
            let chunk = self.chunk()?;
            more = !matches!(chunk.arrivals.last(), Some(Arrival::End(_)));
            more &= self.chunks.blocking_send(chunk).is_ok();
            while more && !self.transit.has_room() {
                std::thread::park_timeout(PACE);
                more = !self.leave.is_asked();
            }
        }
        while !self.leave.is_asked() && !self.chunks.is_closed() {
            std::thread::park_timeout(PACE);
        }
        Ok(())
    }

    /// The lines that are there, one at least, or the end.
    fn chunk(&mut self) -> Result<Chunk, Failure> {
        let (mut arrivals, mut memory) = (Vec::new(), 0);
        while arrivals.len() < CHUNK && memory < self.transit.chunk_bytes() {
            let mut value = Vec::new();
            let is_there = self.line_into(&mut value).map_err(|error| Failure {
                message: format!("read line {}: {error}", self.line.0 + 1),
                exit: Exit::NoInput,
            })?;
            if !is_there {
                let (partition, epoch, next) = (LINES, EPOCH, self.line);
                arrivals.push(Arrival::End(End { partition, epoch, next, is_last: true }));
                break;
            }
            while value.last().is_some_and(u8::is_ascii_whitespace) {
                value.pop();
            }
            let offset = self.line;
            self.line = offset.next();
            if self.next <= offset {
                let record = Record::of_value(LINES, offset, Some(value));
                memory += record.memory();
                arrivals.push(Arrival::Record(EPOCH, record));
            }
            // The next line may be long in coming.
            if !arrivals.is_empty() && memchr(b'\n', self.input.buffer()).is_none() {
                break;
            }
        }
        Ok(Chunk { arrivals, load: Some(self.transit.take(memory)) })
    }

    /// Reads the next line into `line`, without its end; whether there is one.
    fn line_into(&mut self, line: &mut Vec<u8>) -> std::io::Result<bool> {
        let mut is_there = false;
        loop {
            let read = match self.input.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read?,
            };
            let end = memchr(b'\n', read);
            let bytes = &read[..end.unwrap_or(read.len())];
            line.extend_from_slice(bytes);
            is_there |= !read.is_empty();
            let ends = end.is_some() || read.is_empty();
            let taken = bytes.len() + usize::from(end.is_some());
            self.input.consume(taken);
            if ends {
                return Ok(is_there);
            }
        }
    }
}

/// The writing side.
struct Writer<W: Write> {
    output: BufWriter<W>,
    /// The line that is written next.
    next: Offset,
    joint: Joint,
}

impl<W: Write> Writer<W> {
    /// Writes until the channel closes, or nothing can be written any more.
    fn run(mut self, mut transactions: mpsc::Receiver<Transaction>, done: &mpsc::Sender<Done>) {
        while let Some(mut transaction) = transactions.blocking_recv() {
            #[expect(clippy::disallowed_methods, reason = "measures writing, decides nothing")]
            let started = Instant::now();
            let ours = self.joint.owned.keep(&mut transaction);
            if let Err(failure) = self.write(&transaction) {
                self.joint.tell(Control::Failed(failure));
                return;
            }
            self.joint.owned.commit(&transaction);
            let answer = Done::at_once(0, &transaction, ours, started.elapsed());
            if done.blocking_send(answer).is_err() {
                return;
            }
        }
    }

    /// Writes the lines of a transaction, and hands them on.
    fn write(&mut self, transaction: &Transaction) -> Result<(), Failure> {
        let failed = |error| unwritten("write a prediction", &error);
        for row in transaction.batches.iter().flat_map(|finished| &finished.rows) {
            // Whoever reads the output knows a line's input by its number.
            if row.record.offset != self.next {
                let message = format!(
                    "write line {}: the answer to line {} came; this is a bug",
                    self.next.0 + 1,
                    row.record.offset.0 + 1
                );
                return Err(Failure { message, exit: Exit::Software });
            }
            self.next = row.record.offset.next();
            self.line(&row.outcome).map_err(failed)?;
        }
        self.output.flush().map_err(failed)
    }

    fn line(&mut self, outcome: &Outcome<Written>) -> std::io::Result<()> {
        match outcome {
            Outcome::Prediction(Written { value, .. }) => self.output.write_all(value)?,
            Outcome::Tombstone => self.output.write_all(b"null")?,
            Outcome::DeadLetter(fault) => {
                let error = serde_json::json!({
                    "error": fault.message, "class": fault.class.name()
                });
                self.output.write_all(error.to_string().as_bytes())?;
            }
        }
        self.output.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    /// What is read of these bytes, where `next` lines are answered already: offsets and values, and the end.
    fn read(bytes: Vec<u8>, next: i64) -> (Vec<(i64, Vec<u8>)>, End) {
        let (chunks, _engine) = mpsc::channel(1);
        let mut reader = Reader {
            input: BufReader::with_capacity(7, Cursor::new(bytes)),
            line: Offset(0),
            next: Offset(next),
            chunks,
            transit: Transit::new(1 << 20),
            leave: Leave::default(),
        };
        let mut records = Vec::new();
        loop {
            let Chunk { arrivals, .. } = reader.chunk().unwrap();
            assert!(!arrivals.is_empty());
            for arrival in arrivals {
                match arrival {
                    Arrival::Record(epoch, record) => {
                        assert_eq!((epoch, record.partition), (EPOCH, LINES));
                        records.push((record.offset.0, record.value.unwrap()));
                    }
                    Arrival::End(end) => return (records, end),
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_line_is_a_record_and_its_number_the_offset(
            lines in proptest::collection::vec("[a-z{}\" ]{0,12}", 0..40),
            is_closed: bool,
            next in 0_i64..45,
        ) {
            let mut text = lines.join("\n");
            // An empty line at the end is one only with its newline.
            let last = !lines.is_empty() && (is_closed || lines.last().is_some_and(String::is_empty));
            if last {
                text.push('\n');
            }
            let (records, end) = read(text.into_bytes(), next);
            let trimmed = |line: &String| line.trim_end().as_bytes().to_vec();
            let expected: Vec<(i64, Vec<u8>)> =
                (0..).zip(lines.iter().map(trimmed)).filter(|(at, _)| next <= *at).collect();
            prop_assert_eq!(records, expected);
            prop_assert_eq!(end.next.0, i64::try_from(lines.len()).unwrap());
            prop_assert!(end.is_last);
        }
    }
}

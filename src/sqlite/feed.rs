//! The reading side: one thread that looks what is new.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{Error, Message, Opened, Store, Stored, thread};
use crate::config::{Config, StartFrom};
use crate::failure::Failure;
use crate::log::message::Naming;
use crate::log::note::Note;
use crate::log::{
    Arrival, Assigned, Chunk, Control, Feed, Gate, Held, Joint, Leave, Membership, Offsets,
    Opening, Ownership, Reach, Transit,
};
use crate::record::{End, Epoch, Offset, Partition, Record};

/// Most records of a chunk.
const CHUNK: usize = 512;

/// How long the reading thread waits for new records or for room: the latency this log adds at most.
const PACE: Duration = Duration::from_millis(5);

/// How often it is told how far partitions go.
const TELL: Duration = Duration::from_secs(1);

/// One process has the file, so its partitions are assigned once.
const EPOCH: Epoch = Epoch(1);

/// Reads every partition of the inputs, from where it goes on.
pub(super) fn open(
    file: Opened,
    config: &Config,
    (naming, opening): (&Naming, &Opening),
    offsets: &Offsets,
    (joint, control): (Joint, mpsc::Receiver<Control>),
) -> Result<Feed, Failure> {
    let Opened { store, lock, .. } = file;
    let reader = Reader::new(store, config, (naming, opening), (offsets, &joint.owned))?;
    let (chunks_in, chunks) = mpsc::channel(4);
    let leave = Leave::default();
    let stop = leave.clone();
    let body = move || {
        reader.run(&joint.control, &chunks_in, &stop);
        drop(lock);
    };
    let threads = vec![thread("read", body)?];
    Ok(Feed { chunks, membership: Membership { control, leave, judge: None, threads } })
}

/// The reading side.
struct Reader {
    store: Store,
    group: String,
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
        config: &Config,
        (naming, opening): (&Naming, &Opening),
        (offsets, owned): (&Offsets, &Ownership),
    ) -> Result<Self, Failure> {
        let (mut reading, mut assigned) = (VecDeque::new(), Vec::new());
        for (index, topic) in (0_u16..).zip(&naming.inputs) {
            let partitions = i32::from(store.partitions(topic)?);
            for number in 0..partitions {
                let partition = Partition { topic: index, number };
                let end = store.end(topic, number)?;
                let committed = offsets(partition)?;
                let next = match (&committed, config.kafka.start_from) {
                    (Some(committed), _) => committed.next,
                    (None, StartFrom::Earliest) => Offset(0),
                    (None, StartFrom::Latest) => end,
                };
                let note = committed.and_then(|committed| committed.note);
                let note = note.unwrap_or_else(|| Note::of_a_first_start(partitions, next));
                let gate = Gate::new(|| ());
                assigned.push(Assigned {
                    partition,
                    epoch: EPOCH,
                    next,
                    end,
                    until: opening.until_end.then_some(end),
                    skip: None,
                    answered: note.model.clone(),
                    topic: note.topic.clone(),
                    gate: gate.clone(),
                });
                reading.push_back(Reading { partition, position: next, told: None, gate });
                owned.write().insert(partition, Held { epoch: EPOCH, committed: next, note });
            }
        }
        let (group, topics) = (naming.group.clone(), naming.inputs.clone());
        let transit = Transit::new(config.limits.memory.0);
        Ok(Self { store, group, topics, reading, assigned, transit })
    }

    /// Reads until told to leave.
    fn run(mut self, control: &mpsc::Sender<Control>, chunks: &mpsc::Sender<Chunk>, leave: &Leave) {
        let assigned = std::mem::take(&mut self.assigned);
        // The file is always there.
        let first = [Control::Reachable(true), Control::Assigned(assigned)];
        if first.into_iter().any(|control_| control.blocking_send(control_).is_err()) {
            return;
        }
        let mut told = None;
        self.read(control, chunks, leave, &mut told);
        // The process may stay though it does nothing.
        while !leave.is_over() && !control.is_closed() {
            self.tell(control, leave, &mut told);
            std::thread::park_timeout(PACE);
        }
    }

    fn read(
        &mut self,
        control: &mpsc::Sender<Control>,
        chunks: &mpsc::Sender<Chunk>,
        leave: &Leave,
        told: &mut Option<Instant>,
    ) {
        while !leave.is_asked() {
            self.tell(control, leave, told);
            if !self.transit.has_room() {
                std::thread::park_timeout(PACE);
                continue;
            }
            let chunk = match self.next() {
                Ok(chunk) => chunk,
                Err(error) => {
                    // Nobody listens any more only if the service is ending anyhow.
                    control.blocking_send(Control::Failed(error.into())).unwrap_or_default();
                    return;
                }
            };
            if chunk.arrivals.is_empty() {
                std::thread::park_timeout(PACE);
                continue;
            }
            let mut waiting = Some(chunk);
            while let Some(chunk) = waiting.take().filter(|_| !leave.is_asked()) {
                match chunks.try_send(chunk) {
                    Ok(()) => (),
                    Err(mpsc::error::TrySendError::Closed(_)) => return,
                    Err(mpsc::error::TrySendError::Full(chunk)) => {
                        waiting = Some(chunk);
                        self.tell(control, leave, told);
                        std::thread::park_timeout(PACE);
                    }
                }
            }
        }
    }

    /// Tells how far the partitions go, where that is due.
    fn tell(&self, control: &mpsc::Sender<Control>, leave: &Leave, told: &mut Option<Instant>) {
        if told.is_some_and(|told| now().saturating_duration_since(told) < TELL) {
            return;
        }
        *told = Some(now());
        let place = |reading: &Reading| {
            let Partition { topic, number } = reading.partition;
            (self.topics[usize::from(topic)].as_str(), number)
        };
        let end = |reading: &Reading| {
            let (topic, number) = place(reading);
            Some((reading.partition, Reach::whole(self.store.end(topic, number).ok()?)))
        };
        let done = |reading: &Reading| {
            let (topic, number) = place(reading);
            let done = self.store.committed(&self.group, topic, number).ok()?;
            let (partition, reach) = end(reading)?;
            Some((partition, (done.unwrap_or(Offset(0)), reach)))
        };
        let said = if leave.is_asked() {
            Control::Left(self.reading.iter().filter_map(done).collect())
        } else {
            Control::Ends(self.reading.iter().filter_map(end).collect())
        };
        control.try_send(said).unwrap_or_default(); // it may be told later
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
                let (partition, next) = (*partition, *position);
                let end = End { partition, epoch: EPOCH, next, is_last: false };
                chunk.arrivals.push(Arrival::End(end));
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

#[expect(clippy::disallowed_methods, reason = "how often something is told is counted in time")]
fn now() -> Instant {
    Instant::now()
}

//! The seam between the engine and a log: channels and plain data, no trait.
//!
//! ```text
//!               control ─► Assigned(gate), Revoked(ack), Failed           ┌──────── engine ────────┐
//!   a log  ◄──  gate    ◄─ this partition may be read now ────────────────│                        │
//!   (kafka, ──► chunks  ─► records and partition ends, in offset order ──►│                        │
//!   sqlite) ◄── lanes   ◄─ Transaction: outcomes, manifests, offsets ─────│                        │
//!           ──► done    ─► what was committed ───────────────────────────►└────────────────────────┘
//! ```
//!
//! Two logs ship: [`crate::kafka`] and [`crate::sqlite`]. Each opens its threads and gives a [`Log`].
//! Order holds only within one channel; so each record carries the [`Epoch`] of its assignment, and nothing of a
//! partition is read before the engine, which has `Assigned` then, opens its [`Gate`].
//!
//! # Promises of a log
//!
//! 1. Records of one partition arrive in offset order, from the committed offset on.
//! 2. All of a [`Transaction`] becomes visible, or nothing; a lane's transactions take effect in order.
//! 3. After `Revoked` is acknowledged no transaction of those partitions' old epoch takes effect.
//! 4. A failure that the log cannot cure is [`Control::Failed`]: the process must exit.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::record::Buried;
use crate::record::{
    Epoch, ModelId, Offset, Outcome, Partition, Reason, Record, Signature, TopicId,
};

pub mod letter;
pub mod manifest;
pub mod message;
pub mod note;

/// The channel ends of an open log. Dropping `lanes` ends the lane threads.
#[derive(Debug)]
pub struct Log {
    /// Assignments, revocations, failures. Bound 8; the poll thread waits when it is full.
    pub control: mpsc::Receiver<Control>,
    /// Records. Bound 4 chunks; when full the log stops fetching but goes on serving its group.
    pub chunks: mpsc::Receiver<Chunk>,
    /// One sender a lane. Bound 1: the core has at most one transaction outstanding per lane.
    pub lanes: Vec<mpsc::Sender<Transaction>>,
    /// What became of transactions, of all lanes.
    pub done: mpsc::Receiver<Done>,
    /// Told to the reading side after the last commit: stop reading and close.
    pub leave: Leave,
    /// Whether other processes may be members of the same group: then its end is not only ours to judge.
    pub shared: bool,
    /// Longest that a lane may be silent about a transaction: more than all of its own deadlines together.
    pub patience: Duration,
    /// Asks the log to judge now whether the group has come to the end ([`Control::Finished`]). Bound 1: a question
    /// that waits already is as good.
    pub judge: Option<std::sync::mpsc::SyncSender<()>>,
    /// The model that answered last in the group's partitions, with what it took and gave; `None` where nothing says so.
    pub last: Option<(ModelId, Signature)>,
    /// The log's threads, joined last.
    pub threads: Vec<std::thread::JoinHandle<()>>,
}

impl Log {
    /// Asks the log to judge now whether the group has come to the end.
    pub fn judge(&self) {
        if let Some(judge) = &self.judge {
            // Full: it is about to look anyway.
            judge.try_send(()).unwrap_or_default();
        }
    }
}

/// How a log is to be opened.
#[derive(Debug, Clone, Default)]
pub struct Opening {
    /// Read up to the ends that are there now, and no further.
    pub until_end: bool,
    /// The version that is to serve: what answered before is compared with it.
    pub serving: Option<ModelId>,
    /// Cancelled when the process is to stop: opening is given up.
    pub stop: CancellationToken,
}

/// Asks the reading side to close.
#[derive(Debug, Clone, Default)]
pub struct Leave {
    asked: CancellationToken,
    for_good: Arc<AtomicBool>,
}

impl Leave {
    /// Asks; `for_good` gives the partitions to other members at once.
    pub fn ask(&self, for_good: bool) {
        self.for_good.fetch_or(for_good, Ordering::AcqRel);
        self.asked.cancel();
    }

    /// Whether it was asked.
    pub fn is_asked(&self) -> bool {
        self.asked.is_cancelled()
    }

    /// Whether the membership is to end too.
    pub fn is_for_good(&self) -> bool {
        self.for_good.load(Ordering::Acquire)
    }
}

/// Lets a partition be read, once the engine knows that it has it and which version may answer it.
#[derive(Clone)]
pub struct Gate(Arc<(AtomicBool, Box<dyn Fn() + Send + Sync>)>);

impl Gate {
    /// A closed gate; `wake` is called when it opens.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new((AtomicBool::new(false), Box::new(wake))))
    }

    /// Opens it, for good.
    pub fn open(&self) {
        self.0.0.store(true, Ordering::Release);
        (self.0.1)();
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.0.0.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gate").field(&self.is_open()).finish()
    }
}

/// What is not a record.
#[derive(Debug)]
pub enum Control {
    /// These partitions are ours from now on.
    Assigned(Vec<Assigned>),
    /// These partitions are not ours any more. The log waits for `done` before it gives them up, unless
    /// `lost`: then they already belong to somebody else.
    Revoked {
        /// The partitions.
        partitions: Vec<Partition>,
        /// Whether another member may own them already.
        lost: bool,
        /// Dropped or sent when no transaction with these partitions is outstanding.
        done: std::sync::mpsc::SyncSender<()>,
    },
    /// The newest ends of the partitions, for lag. Every few seconds.
    Ends(BTreeMap<Partition, Offset>),
    /// `--until-end`: the group has committed all that was there at the start, whichever member did it, and readers of
    /// committed records see it.
    Finished,
    /// `--until-end`: about so many records of so many partitions are not committed yet, whoever holds them.
    Unfinished(i64, usize),
    /// `--until-end`: all of it is committed, but a transaction that is still open keeps readers of committed records from
    /// seeing it at these places.
    Hidden(String),
    /// Whether the cluster answers; every few seconds.
    Reachable(bool),
    /// Partitions that no member of the group reads.
    Uncovered(usize),
    /// This process is not a member of its group, and why; or is one again.
    Outside(Option<String>),
    /// Nothing more can be done here.
    Failed(Failure),
}

/// A partition that became ours.
#[derive(Debug, Clone)]
pub struct Assigned {
    /// The partition.
    pub partition: Partition,
    /// Its new epoch.
    pub epoch: Epoch,
    /// Where reading begins.
    pub next: Offset,
    /// The end seen when it was assigned.
    pub end: Offset,
    /// Where reading stops for good, under `--until-end`.
    pub until: Option<Offset>,
    /// Offsets that are passed over: they were answered before.
    pub skip: Option<Range<Offset>>,
    /// The model that answered last in this partition, by its committed offset.
    pub answered: Option<ModelId>,
    /// The id of its topic; `None` where the log has none.
    pub topic: Option<TopicId>,
    /// To be opened when it may be read.
    pub gate: Gate,
}

/// Several records at once: one channel operation for all.
#[derive(Debug, Default)]
pub struct Chunk {
    /// What was read, in order for each partition.
    pub arrivals: Vec<Arrival>,
    /// What the records count for in the log's [`Transit`], until the engine has taken them in.
    pub load: Option<Load>,
}

/// Memory of the records between the log and the engine. The log reads on only while there is room, so that a few chunks
/// of large records do not take more than many of small ones.
#[derive(Debug, Clone)]
pub struct Transit {
    taken: Arc<AtomicU64>,
    most: u64,
}

impl Transit {
    /// Room for a sixteenth of `limits.memory`. Decoded beside what they were read from, records take twice that.
    pub fn new(memory: u64) -> Self {
        Self { taken: Arc::default(), most: memory / 16 }
    }

    /// Whether another chunk may be read: all of them exceed the room by no more than its last record.
    pub fn has_room(&self) -> bool {
        self.taken.load(Ordering::Acquire) < self.most
    }

    /// Bytes that a chunk may hold before its last record: an even share for those that are on their way at once.
    pub fn chunk_bytes(&self) -> usize {
        usize::try_from(self.most / 4).unwrap_or(usize::MAX).clamp(1, 1 << 20)
    }

    /// Takes so many bytes, until what is given is dropped.
    pub fn take(&self, bytes: usize) -> Load {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.taken.fetch_add(bytes, Ordering::AcqRel);
        Load { taken: Arc::clone(&self.taken), bytes }
    }
}

/// A chunk's part of a [`Transit`]; given back when dropped.
#[derive(Debug)]
pub struct Load {
    taken: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// One thing read from a partition.
#[derive(Debug)]
pub enum Arrival {
    /// A record.
    Record(Epoch, Record),
    /// The end of a partition: everything below `next` was read or is a control record.
    End(Epoch, Partition, Offset),
}

/// What a lane commits: all of it or nothing.
#[derive(Debug, Default)]
pub struct Transaction {
    /// Counts up; comes back in [`Done`].
    pub id: u64,
    /// Batches in order, all of one version. Empty when only offsets move past control records.
    pub batches: Vec<Finished>,
    /// The offset to read next, for each partition, and the epoch it is committed under.
    pub next: BTreeMap<Partition, (Epoch, Offset)>,
}

/// A batch with its outcomes.
#[derive(Debug)]
pub struct Finished {
    /// What its manifest record says, apart from what follows from `rows`.
    pub info: BatchInfo,
    /// Records with their outcomes, in input order.
    pub rows: Vec<Row>,
}

/// A batch's description.
#[derive(Debug, Clone)]
pub struct BatchInfo {
    /// Unique; sorts by time (UUID version 7).
    pub id: uuid::Uuid,
    /// The version that answered.
    pub model: Arc<ModelId>,
    /// What that version takes and gives.
    pub signature: Arc<Signature>,
    /// The batch that this is a part of, where one was too large for a transaction.
    pub part_of: Option<uuid::Uuid>,
    /// Why the batch was closed.
    pub reason: Reason,
    /// Payload bytes of its records.
    pub bytes: u64,
    /// Tokens that the model computed.
    pub tokens: u64,
    /// Time in the model.
    pub inference: Duration,
}

/// A record and what became of it.
#[derive(Debug)]
pub struct Row {
    /// The record as it was read.
    pub record: Arc<Record>,
    /// The epoch it was read under.
    pub epoch: Epoch,
    /// The outcome, a prediction already encoded as `output.format` says.
    pub outcome: Outcome<Vec<u8>>,
}

/// A transaction's end.
#[derive(Debug)]
pub struct Done {
    /// The lane.
    pub lane: usize,
    /// [`Transaction::id`].
    pub id: u64,
    /// The offsets that were committed. Partitions lost meanwhile are missing.
    pub committed: BTreeMap<Partition, Offset>,
    /// From begin to the answer, redone attempts included.
    pub took: Duration,
    /// How it went: `committed`, `redone`, `resolved`, `dropped`.
    pub how: How,
    /// Predictions that the topic did not take, and that became dead letters here.
    pub buried: Vec<Buried>,
    /// Where a single batch was too much for one transaction: how many of its records were not.
    pub fits: Option<usize>,
}

/// How a transaction ended. The label `outcome` of `transactions_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum How {
    /// At the first attempt.
    Committed,
    /// Aborted at least once, then committed from memory.
    Redone,
    /// Its outcome was unknown and was read from the committed offsets.
    Resolved,
    /// None of its partitions was ours any more.
    Dropped,
}

impl How {
    /// Every way, in the order of the metric's labels.
    pub const ALL: [Self; 4] = [Self::Committed, Self::Redone, Self::Resolved, Self::Dropped];

    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Redone => "redone",
            Self::Resolved => "resolved",
            Self::Dropped => "dropped",
        }
    }
}

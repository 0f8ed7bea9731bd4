//! What reads: records, and which partitions are ours.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::record::{End, Epoch, ModelId, Offset, Partition, Record, TopicId};
use crate::status::Refused;

/// An open feed.
#[derive(Debug)]
pub struct Feed {
    /// Records. Bound 4 chunks; when full the feed stops fetching but goes on serving its group.
    pub chunks: mpsc::Receiver<Chunk>,
    /// Which partitions it reads.
    pub membership: Membership,
}

/// The side of a feed that has no records: which partitions are ours, and the end.
#[derive(Debug)]
pub struct Membership {
    /// Assignments, revocations, failures. Bound 8; the reading thread waits when it is full.
    pub control: mpsc::Receiver<Control>,
    /// Told after the last commit: stop reading and close.
    pub leave: Leave,
    /// Asks the feed to judge now whether its group has come to the end ([`Control::Finished`]). Bound 1: a question
    /// that waits already is as good. `None` where nobody else reads: the end is where our partitions end.
    pub judge: Option<std::sync::mpsc::SyncSender<()>>,
    /// The threads that end when they are told to leave, joined last. One that may wait for its input for ever is none.
    pub threads: Vec<JoinHandle<()>>,
}

impl Membership {
    /// Asks the feed to judge now whether its group has come to the end.
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
    stays: Arc<AtomicBool>,
}

impl Leave {
    /// Asks; `for_good` gives the partitions to other members at once.
    pub fn ask(&self, for_good: bool) {
        self.for_good.fetch_or(for_good, Ordering::AcqRel);
        self.stays.store(false, Ordering::Release);
        self.asked.cancel();
    }

    /// Asks to leave for good, while the process stays and does nothing: it is told on how far behind its group is
    /// ([`Control::Left`]), until it is asked again.
    pub fn ask_and_stay(&self) {
        self.for_good.store(true, Ordering::Release);
        self.stays.store(true, Ordering::Release);
        self.asked.cancel();
    }

    /// Whether it was asked.
    pub fn is_asked(&self) -> bool {
        self.asked.is_cancelled()
    }

    /// Whether nobody wants to be told anything any more.
    pub fn is_over(&self) -> bool {
        self.is_asked() && !self.stays.load(Ordering::Acquire)
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
    /// How far our partitions go, for lag. Every few seconds, also while nothing is taken in.
    Ends(BTreeMap<Partition, Reach>),
    /// After [`Leave::ask_and_stay`]: of the partitions that were ours, those that nobody reads now, with what the group
    /// has committed and how far they go.
    Left(BTreeMap<Partition, (Offset, Reach)>),
    /// `--until-end`: the group has committed all that was there at the start, whichever member did it, and readers of
    /// committed records see it.
    Finished,
    /// `--until-end`: about so many records of these partitions are not committed yet, whoever holds them.
    Unfinished(BTreeMap<Partition, i64>),
    /// `--until-end`: all of it is committed, but a transaction that is still open keeps readers of committed records from
    /// seeing it at these places.
    Hidden(String),
    /// Whether the cluster answers; every few seconds.
    Reachable(bool),
    /// Why it does not take us, or we not it; `None` where that is not so. Every few seconds too.
    Refused(Option<Refused>),
    /// Topics that are written to and do not exist any more, in words; `None` where all are there. Every few seconds.
    Missing(Option<String>),
    /// Partitions that no member of the group reads.
    Uncovered(usize),
    /// This process is not a member of its group, and why; or is one again.
    Outside(Option<String>),
    /// Nothing more can be done here.
    Failed(Failure),
}

/// How far a partition goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The offset behind the last record that readers of committed records are given. What follows stands behind the
    /// first record of a transaction that its producer has not ended.
    pub stable: Offset,
    /// The offset behind the last record.
    pub high: Offset,
}

impl Reach {
    /// A partition that is given whole.
    pub fn whole(end: Offset) -> Self {
        Self { stable: end, high: end }
    }
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
    /// The end of a partition.
    End(End),
}

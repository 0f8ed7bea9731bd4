//! What writes: outcomes, and with them the offsets behind their records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

use super::note::Note;
use crate::failure::Failure;
use crate::record::{
    Buried, Epoch, ModelId, Offset, Outcome, Partition, Reason, Record, Signature, Written,
};

/// An open sink.
#[derive(Debug)]
pub struct Sink {
    /// One sender a lane; dropping them ends the threads. Bound 1: the core has at most one transaction outstanding per
    /// lane.
    pub lanes: Vec<mpsc::Sender<Transaction>>,
    /// What became of transactions, of all lanes.
    pub done: mpsc::Receiver<Done>,
    /// Longest that a lane may be silent about a transaction: more than all of its own deadlines together. `None` where
    /// whoever takes the outcomes may take any time.
    pub patience: Option<Duration>,
    /// The model that answered last in the group's partitions, with what it took and gave; `None` where nothing says so.
    pub last: Option<(ModelId, Signature)>,
    /// Its threads, joined last.
    pub threads: Vec<JoinHandle<()>>,
}

/// Where a partition goes on: what stands with its outcomes.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    /// The offset to read next.
    pub next: Offset,
    /// What stands beside it; `None` where a commit of ours never did.
    pub note: Option<Note>,
}

/// Tells where a partition goes on; `None` where nothing of it was ever committed. A sink gives it to its feed.
pub type Offsets = Box<dyn Fn(Partition) -> Result<Option<Committed>, Failure> + Send>;

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
    pub outcome: Outcome<Written>,
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

impl Done {
    /// The end of a transaction that is committed by one attempt, or dropped where nothing of it was `ours` any more.
    pub fn at_once(lane: usize, transaction: &Transaction, ours: bool, took: Duration) -> Self {
        Self {
            lane,
            id: transaction.id,
            committed: transaction.next.iter().map(|(p, (_, next))| (*p, *next)).collect(),
            took,
            how: if ours { How::Committed } else { How::Dropped },
            buried: Vec::new(),
            fits: None,
        }
    }
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

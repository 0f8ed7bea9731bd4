//! The seam between the engine and a log: channels and plain data, no trait.
//!
//! ```text
//!               control ─► Assigned, Revoked(ack), Failed                 ┌──────── engine ────────┐
//!   a log  ───► chunks  ─► records and partition ends, in offset order ──►│                        │
//!   (kafka, ◄── lanes   ◄─ Transaction: outcomes, manifests, offsets ─────│                        │
//!   sqlite) ───► done   ─► what was committed ───────────────────────────►└────────────────────────┘
//! ```
//!
//! Two logs ship: [`crate::kafka`] and [`crate::sqlite`]. Each opens its threads and gives a [`Log`].
//! Order holds only within one channel; so each record carries the [`Epoch`] of its assignment, and
//! `Assigned` is sent on `control` before the first record of that epoch is sent on `chunks`.
//!
//! # Promises of a log
//!
//! 1. Records of one partition arrive in offset order, from the committed offset on.
//! 2. All of a [`Transaction`] becomes visible, or nothing; a lane's transactions take effect in order.
//! 3. After `Revoked` is acknowledged no transaction of those partitions' old epoch takes effect.
//! 4. A failure that the log cannot cure is [`Control::Failed`]: the process must exit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::record::{Epoch, ModelId, Offset, Outcome, Partition, Reason, Record, Signature};

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
    /// Told to the reading side: stop reading and leave the group. Cancelled after the last commit.
    pub leave: tokio_util::sync::CancellationToken,
    /// The log's threads, joined last.
    pub threads: Vec<std::thread::JoinHandle<()>>,
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
    /// The newest ends of the partitions, for lag and for `--until-end`. Every few seconds.
    Ends(BTreeMap<Partition, Offset>),
    /// Nothing more can be done here.
    Failed(Failure),
}

/// A partition that became ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned {
    /// The partition.
    pub partition: Partition,
    /// Its new epoch.
    pub epoch: Epoch,
    /// The group's committed offset; `None` where it has none.
    pub committed: Option<Offset>,
    /// The end seen when it was assigned: what `--until-end` runs to.
    pub end: Offset,
}

/// Several records at once: one channel operation for all.
#[derive(Debug, Default)]
pub struct Chunk(pub Vec<Arrival>);

/// One thing read from a partition.
#[derive(Debug)]
pub enum Arrival {
    /// A record.
    Record(Epoch, Record),
    /// The end of a partition: everything below `next` was read or is a control record.
    End(Epoch, Partition, Offset),
}

/// What a lane commits: all of it or nothing.
#[derive(Debug)]
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

/// Why a log cannot go on, and with which code the process exits (`sysexits.h`).
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What was being done, with which value, and what to do about it.
    pub message: String,
    /// 65 data, 75 temporary (start again), 78 configuration.
    pub exit: u8,
}

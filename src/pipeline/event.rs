//! What the core hears and what it says: events in, effects out.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::record::{Buried, End, Epoch, Offset, Partition, Version};

use super::arrive::Assigned;
use super::publish::{Flood, Transaction};
use super::{Batch, Item, Part};

/// What has happened outside.
#[derive(Debug)]
pub enum Event<T, O> {
    /// These partitions are ours. Each is read from [`Effect::Open`] on.
    Assigned(Vec<Assigned>),
    /// The registry was asked after [`Effect::Ask`] gave this number, and what it names serves or is staged.
    Named(u64),
    /// These are not any more. Answered by [`Effect::Release`].
    Revoked {
        /// Which.
        partitions: Vec<Partition>,
        /// Whether they may belong to another member already: nothing is waited for.
        lost: bool,
        /// Comes back in `Release`.
        ticket: u64,
    },
    /// Records were read.
    Arrived(Vec<Item<T>>),
    /// Everything of a partition below the offset was read.
    End(End),
    /// The model answered the rows of one [`Effect::Infer`], or refused some of them.
    Inferred {
        /// [`Batch::number`].
        batch: u64,
        /// Each of the rows, in the parts that went through the model together.
        parts: Vec<Part<O>>,
        /// Bytes of memory that the outcomes take.
        bytes: u64,
    },
    /// A transaction was answered. Partitions lost meanwhile are missing from `committed`.
    Committed {
        /// The lane.
        lane: usize,
        /// [`Transaction::id`].
        id: u64,
        /// The committed offsets.
        committed: BTreeMap<Partition, Offset>,
        /// Predictions that became dead letters while they were committed.
        buried: Vec<Buried>,
        /// Where a single batch did not fit into a transaction: how many records did.
        fits: Option<usize>,
    },
    /// A version is loaded and warm.
    Staged(Version),
    /// So many tokens close a batch from now on.
    Limit(u64),
    /// Nothing more is taken in, and no batch is cut, until [`Event::Resume`]. What is in the model goes on to its commit,
    /// and revocations are answered.
    Pause,
    /// The pause is over.
    Resume,
    /// Time has passed.
    Tick,
    /// No more records will be taken; what waits leaves.
    Close,
}

/// What the engine is to do.
#[derive(Debug)]
pub enum Effect<T, O> {
    /// Run these rows of a batch: places in [`Batch::items`], rising. Answered by [`Event::Inferred`].
    Infer(Arc<Batch<T>>, Vec<usize>),
    /// Commit on this lane. Answered by [`Event::Committed`].
    Commit(usize, Transaction<T, O>),
    /// The partition may be read.
    Open(Partition, Epoch),
    /// Ask the registry which version should serve. Answered by [`Event::Named`].
    Ask(u64),
    /// The revocation of this ticket may go on.
    Release(u64),
    /// No batch will need this version again.
    Retire(Version),
    /// The service must stop: the dead letters are too many, or the model cannot go on.
    Stop(Stop),
}

/// Why the core stops. It does nothing more afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Stay up, unready, without committing: an operator decides.
    DeadLetters(Flood),
    /// Exit: a partition's recorded version neither serves nor was it replaced within `takeover_wait`.
    Takeover {
        /// The partition.
        partition: Partition,
        /// The version that answered it last.
        recorded: Version,
        /// The version that serves here.
        serving: Version,
    },
    /// Exit: a partition gave a record below the place where reading was.
    WentBack {
        /// The partition.
        partition: Partition,
        /// The record's offset.
        offset: Offset,
        /// The place where reading was.
        position: Offset,
    },
    /// Exit; the next start reads the records again.
    Model(String),
}

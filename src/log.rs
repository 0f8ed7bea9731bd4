//! The seam between the engine and a log: channels and plain data, no trait.
//!
//! ```text
//!            control ─► Assigned(gate), Revoked(ack), Failed            ┌──────── engine ────────┐
//!   a feed  ◄── gate ◄─ this partition may be read now ─────────────────│                        │
//!      │     chunks  ─► records and partition ends, in offset order ───►│                        │
//!  ownership                                                            │                        │
//!      │     lanes   ◄─ Transaction: outcomes, manifests, offsets ◄─────│                        │
//!   a sink   done    ─► what was committed ────────────────────────────►└────────────────────────┘
//! ```
//!
//! A [`Feed`] reads, a [`Sink`] writes. Two things stand between them. *Which partitions are ours*, and under which epoch,
//! the feed writes down in [`Ownership`], and the sink asks before each commit. *Where a partition goes on* the sink knows:
//! offsets live with the outputs, because only there both change together or not at all; [`Offsets`] tells them to the
//! feed.
//!
//! | log               | feed                                | sink                                                |
//! |-------------------|-------------------------------------|-----------------------------------------------------|
//! | [`crate::kafka`]  | a consumer group                    | transactions; offsets are the group's, within them  |
//! | [`crate::sqlite`] | rows of a file                      | `SQLite` transactions; offsets are a table          |
//! | [`crate::lines`]  | JSON lines of a file or a pipe      | a line for each; offsets are the lines written      |
//!
//! Order holds only within one channel; so each record carries the [`Epoch`] of its assignment, and nothing of a
//! partition is read before the engine, which has `Assigned` then, opens its [`Gate`].
//!
//! # Promises of a log
//!
//! 1. Records of one partition arrive in offset order, from the committed offset on.
//! 2. All of a [`Transaction`] becomes visible, or nothing; a lane's transactions take effect in order.
//! 3. After `Revoked` is acknowledged no transaction of those partitions' old epoch takes effect.
//! 4. A failure that the log cannot cure is [`Control::Failed`]: the process must exit.
//!
//! [`Epoch`]: crate::record::Epoch

use std::sync::Arc;

use tokio::sync::mpsc;

mod feed;
pub mod headers;
pub mod letter;
pub mod manifest;
pub mod message;
pub mod note;
mod ownership;
mod sink;
pub mod trace;

pub use feed::{
    Arrival, Assigned, Chunk, Control, Feed, Gate, Leave, Load, Membership, Opening, Reach, Transit,
};
pub use ownership::{Held, Ownership};
pub use sink::{BatchInfo, Committed, Done, Finished, How, Offsets, Row, Sink, Transaction};
pub use trace::TraceParent;

/// What the two sides of one log have in common.
#[derive(Debug, Clone)]
pub struct Joint {
    /// Which partitions are ours.
    pub owned: Arc<Ownership>,
    /// Where the engine hears of what is not a record.
    pub control: mpsc::Sender<Control>,
}

impl Joint {
    /// With nothing in it, and the engine's end of `control`.
    pub fn new() -> (Self, mpsc::Receiver<Control>) {
        let (control, engine) = mpsc::channel(8);
        (Self { owned: Arc::default(), control }, engine)
    }

    /// Tells the engine, and waits while it has much to hear. One that is gone needs no telling.
    pub fn tell(&self, control: Control) {
        self.control.blocking_send(control).unwrap_or_default();
    }
}

/// An open log: what reads and what writes.
#[derive(Debug)]
pub struct Log {
    /// Records go in here.
    pub feed: Feed,
    /// Outcomes go out here.
    pub sink: Sink,
}

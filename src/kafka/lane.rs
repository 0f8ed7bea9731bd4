//! A lane: one transaction after the other, each of them all or nothing.
//!
//! ```text
//!          ┌─────────────────────────── again, the same records from memory ◄──────────────────────┐
//!          ▼                                                                                       │
//!  ─► CHECK ─► BEGIN ─► PRODUCE ─► DRAIN ─► CHECK ─► OFFSETS ─► COMMIT ─► done                      │
//!       │         └────────┴─────────┴────────┴─────────┴──────────┴─ error ─┬─ redo: abort ────────┤
//!       └─ nothing is ours: dropped                                          ├─ recreate ───────────┤
//!                                       done ◄─ all committed ── resolve ◄───┴─ none committed ─────┘
//! ```
//!
//! 1. Offsets are sent only after every message is reported as delivered, and under a generation of the group
//!    that was valid while they were taken.
//! 2. A transaction whose end is unknown is never repeated: a new producer ends it, and the committed offsets
//!    say how.
//! 3. After a call that may have been sent twice the producer is renewed before the next transaction: a
//!    delayed copy of the request then meets a newer epoch (KAFKA-17754).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{Consumer, ConsumerGroupMetadata};
use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::Offset as Place;
use tokio::sync::mpsc;

use super::class::{Action, Call};
use super::group::committed;
use super::native::generation;
use super::producer::{Inner, Producer, Trouble};
use super::{Shared, settings};
use crate::log::message::Notes;
use crate::log::{Control, Done, Failure, Finished, How, Row, Transaction};
use crate::record::{Fault, FaultClass, Offset, Outcome, Partition};

/// Attempts at one transaction before the process starts anew.
const ATTEMPTS_MAX: u32 = 5;
/// How long a lane waits to be a member of its group again: the session timeout.
const REJOIN: Duration = Duration::from_secs(20);
/// Beyond the deadline of a transaction, for its abort.
const ABORT: Duration = Duration::from_secs(5);
/// How long committed offsets may take to be told: a broker ends a dead transaction within its timeout (15 s)
/// and the interval at which it looks (10 s).
const RESOLVE: Duration = Duration::from_secs(30);
/// So many fencings within [`FENCED_WITHIN`] mean that two live processes share an id.
const FENCED_MAX: usize = 3;
const FENCED_WITHIN: Duration = Duration::from_secs(600);
/// A transaction without messages that follows another at once would wait for the client's back-off.
const SETTLE: Duration = Duration::from_millis(30);
/// What provenance, error headers and framing add to a row at most, bytes; a row above it is looked at.
const HEADROOM: usize = 2_048;
/// No limit is lowered below this, bytes.
const LIMIT_MIN: usize = 16_384;

/// A lane's state.
pub(super) struct Lane {
    number: usize,
    shared: Arc<Shared>,
    producer: Producer,
    /// Largest message, bytes.
    limit: usize,
    /// A call that takes longer may have been sent twice.
    suspicious: Duration,
    /// The producer must be renewed before the next transaction.
    doubt: bool,
    fenced: VecDeque<Instant>,
    last_commit: Instant,
}

impl Lane {
    /// Makes the lane's producer, which ends what a predecessor left open.
    pub(super) fn new(number: usize, shared: Arc<Shared>, limit: usize) -> Result<Self, Failure> {
        let producer = Producer::new(&shared, number, limit)?;
        let settings = settings::producer(&shared.config, &shared.instance, number, limit);
        let backoff =
            settings.get("retry.backoff.ms").and_then(|ms| ms.parse().ok()).unwrap_or(100);
        Ok(Self {
            number,
            shared,
            producer,
            limit,
            // The shortest back-off before a repetition is 80 % of the setting.
            suspicious: Duration::from_millis(backoff) / 2,
            doubt: false,
            fenced: VecDeque::new(),
            last_commit: Instant::now(),
        })
    }

    /// Commits what comes, in order, until the other end is dropped.
    pub(super) fn run(
        mut self,
        mut queue: mpsc::Receiver<Transaction>,
        done: &mpsc::Sender<Done>,
        control: &mpsc::Sender<Control>,
    ) {
        while let Some(transaction) = queue.blocking_recv() {
            match self.commit(transaction) {
                Ok(end) => {
                    if done.blocking_send(end).is_err() {
                        return;
                    }
                }
                Err(failure) => {
                    if let Err(unsent) = control.blocking_send(Control::Failed(failure)) {
                        tracing::debug!(?unsent, "the engine has gone");
                    }
                    return;
                }
            }
        }
    }

    /// Brings one transaction to its end.
    fn commit(&mut self, mut transaction: Transaction) -> Result<Done, Failure> {
        let begin = Instant::now();
        let mut how = How::Committed;
        for attempt in 1..=ATTEMPTS_MAX {
            if self.doubt {
                self.renew()?;
            }
            if !self.keep_owned(&mut transaction) {
                return Ok(self.done(&transaction, begin, How::Dropped));
            }
            self.bury_oversized(&mut transaction);
            let Err(trouble) = self.attempt(&transaction) else {
                return Ok(self.done(&transaction, begin, how));
            };
            tracing::warn!(lane = self.number, attempt, action = ?trouble.action, "{}", trouble.why);
            self.count_fencing(&trouble)?;
            how = How::Redone;
            match trouble.action {
                Action::Exit(exit) => return Err(self.failure(&trouble.why, exit)),
                Action::Redo => self.abort()?,
                Action::Shrink => {
                    self.limit = (self.limit / 2).max(LIMIT_MIN);
                    self.renew()?;
                }
                Action::Again | Action::Drain | Action::Recreate => self.renew()?,
                Action::Resolve => {
                    self.renew()?;
                    if self.keep_owned(&mut transaction) && self.resolve(&transaction.next)? {
                        return Ok(self.done(&transaction, begin, How::Resolved));
                    }
                }
            }
        }
        Err(self.failure(&format!("commit a transaction: {ATTEMPTS_MAX} attempts failed"), 75))
    }

    /// One pass from begin to commit.
    fn attempt(&mut self, transaction: &Transaction) -> Result<(), Trouble> {
        if transaction.batches.is_empty() {
            std::thread::sleep(SETTLE.saturating_sub(self.last_commit.elapsed()));
        }
        self.membership()?;
        let deadline = Instant::now() + self.shared.config.limits.transaction.0;
        let shared = Arc::clone(&self.shared);
        self.producer.call(&shared, Call::Begin, deadline, |p, _| p.begin_transaction())?;
        for finished in &transaction.batches {
            self.produce(finished, deadline)?;
        }
        self.producer.drain(deadline)?;
        let metadata = self.membership()?;
        if !transaction.next.iter().all(|(p, (epoch, _))| shared.owns(*p, *epoch)) {
            return Err(Trouble {
                call: Call::Offsets,
                action: Action::Redo,
                fenced: false,
                why: "add offsets to transaction: partitions were revoked".to_owned(),
            });
        }
        let offsets = self.offsets(&transaction.next)?;
        let watch = Instant::now();
        let added = self.producer.call(&shared, Call::Offsets, deadline, move |p, left| {
            p.send_offsets_to_transaction(&offsets, &metadata, left)
        });
        self.doubt |= watch.elapsed() > self.suspicious;
        added?;
        let watch = Instant::now();
        self.producer.call(&shared, Call::Commit, deadline, Inner::commit_transaction)?;
        self.doubt |= watch.elapsed() > self.suspicious;
        self.last_commit = Instant::now();
        Ok(())
    }

    /// The messages of one batch and its manifest.
    fn produce(&mut self, finished: &Finished, deadline: Instant) -> Result<(), Trouble> {
        let shared = Arc::clone(&self.shared);
        let batch = shared.naming.batch(&finished.info);
        for row in &finished.rows {
            let mut message = batch.message(row);
            if let Outcome::DeadLetter(_) = row.outcome {
                message = message.truncated(self.limit);
            }
            self.producer.send(&message, deadline)?;
        }
        let notes = Notes::new();
        let manifests = batch.manifests(finished, &notes, self.limit).map_err(|e| Trouble {
            call: Call::Send,
            action: Action::Exit(75),
            fenced: false,
            why: format!("write manifest: {e}"),
        })?;
        manifests.iter().try_for_each(|manifest| self.producer.send(manifest, deadline))
    }

    /// The group's metadata under a generation that was valid before and after it was taken.
    fn membership(&self) -> Result<ConsumerGroupMetadata, Trouble> {
        let trouble = |why: &str, action| Trouble {
            call: Call::Offsets,
            action,
            fenced: false,
            why: format!("add offsets to transaction: {why}"),
        };
        let Some(consumer) = self.shared.consumer() else {
            return Err(trouble("the consumer is closed", Action::Exit(75)));
        };
        let deadline = Instant::now() + REJOIN;
        loop {
            let before = generation(consumer.client());
            let metadata = consumer.group_metadata();
            match metadata {
                Some(metadata)
                    if before.is_some()
                        && before == generation(consumer.client())
                        && !consumer.assignment_lost() =>
                {
                    return Ok(metadata);
                }
                _ if Instant::now() >= deadline => {
                    return Err(trouble("not a member of the group", Action::Redo));
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn offsets(
        &self,
        next: &BTreeMap<Partition, (crate::record::Epoch, Offset)>,
    ) -> Result<TopicPartitionList, Trouble> {
        let mut list = TopicPartitionList::with_capacity(next.len());
        for (partition, (_, offset)) in next {
            let name = self.shared.naming.input(*partition);
            list.add_partition_offset(name, partition.number, Place::Offset(offset.0))
                .map_err(|e| Trouble::of(Call::Offsets, &e))?;
        }
        Ok(list)
    }

    /// Leaves out what is not ours any more. False when nothing is left.
    fn keep_owned(&self, transaction: &mut Transaction) -> bool {
        let owned = |p: Partition, epoch| self.shared.owns(p, epoch);
        transaction.next.retain(|p, (epoch, _)| owned(*p, *epoch));
        for finished in &mut transaction.batches {
            finished.rows.retain(|row| owned(row.record.partition, row.epoch));
        }
        transaction.batches.retain(|finished| !finished.rows.is_empty());
        !transaction.next.is_empty()
    }

    /// A prediction that its topic does not take becomes a dead letter.
    fn bury_oversized(&self, transaction: &mut Transaction) {
        for finished in &mut transaction.batches {
            let batch = self.shared.naming.batch(&finished.info);
            for row in &mut finished.rows {
                if roughly(row) <= self.limit {
                    continue;
                }
                let size = batch.message(row).size();
                if matches!(row.outcome, Outcome::Prediction(_)) && size > self.limit {
                    let message =
                        format!("the message has {size} bytes, its topic takes {}", self.limit);
                    row.outcome = Outcome::DeadLetter(Fault::new(FaultClass::Oversized, message));
                }
            }
        }
    }

    /// Ends the open transaction; with a new producer where this one does not manage.
    fn abort(&mut self) -> Result<(), Failure> {
        let (shared, begin) = (Arc::clone(&self.shared), Instant::now());
        let deadline = begin + ABORT;
        let call = self.producer.call(&shared, Call::Abort, deadline, Inner::abort_transaction);
        self.doubt |= begin.elapsed() > self.suspicious;
        match call {
            Ok(()) => Ok(()),
            Err(Trouble { action: Action::Exit(exit), why, .. }) => Err(self.failure(&why, exit)),
            Err(_) => self.renew(),
        }
    }

    /// A new producer with the same id. It fences the old one and ends its transaction.
    fn renew(&mut self) -> Result<(), Failure> {
        self.producer = Producer::new(&self.shared, self.number, self.limit)?;
        self.doubt = false;
        Ok(())
    }

    /// Whether a transaction whose end is unknown was committed.
    fn resolve(
        &self,
        next: &BTreeMap<Partition, (crate::record::Epoch, Offset)>,
    ) -> Result<bool, Failure> {
        let Some(consumer) = self.shared.consumer() else {
            return Err(self.failure("read committed offsets: the consumer is closed", 75));
        };
        let partitions: Vec<Partition> = next.keys().copied().collect();
        let committed = committed(&consumer, &self.shared.naming, &partitions, RESOLVE)
            .map_err(|e| self.shared.failure("read committed offsets", &e, 75))?;
        let reached = next.iter().filter(|(p, (_, next))| committed.get(p) >= Some(next)).count();
        match reached {
            0 => Ok(false),
            all if all == next.len() => Ok(true),
            some => Err(self.failure(
                &format!(
                    "resolve a transaction: torn, {some} of {} partitions are committed; keep the \
                     brokers' logs, compare output and offsets before starting again",
                    next.len()
                ),
                65,
            )),
        }
    }

    /// Often fenced without a deadline of ours missed: somebody else has our id.
    fn count_fencing(&mut self, trouble: &Trouble) -> Result<(), Failure> {
        if !trouble.fenced {
            return Ok(());
        }
        let now = Instant::now();
        self.fenced.push_back(now);
        self.fenced.retain(|at| now.duration_since(*at) < FENCED_WITHIN);
        if self.fenced.len() < FENCED_MAX {
            return Ok(());
        }
        let why = format!(
            "{}: fenced {FENCED_MAX} times in ten minutes; two live processes share kafka.instance {}",
            trouble.call.name(),
            self.shared.instance
        );
        Err(self.failure(&why, 78))
    }

    fn failure(&self, why: &str, exit: u8) -> Failure {
        Failure { message: format!("lane {}: {why}", self.number), exit }
    }

    fn done(&self, transaction: &Transaction, begin: Instant, how: How) -> Done {
        let committed = transaction.next.iter().map(|(p, (_, next))| (*p, *next)).collect();
        Done { lane: self.number, id: transaction.id, committed, took: begin.elapsed(), how }
    }
}

/// Not less than the size of a row's message, cheaply.
fn roughly(row: &Row) -> usize {
    let prediction = match &row.outcome {
        Outcome::Prediction(value) => value.len(),
        Outcome::Tombstone | Outcome::DeadLetter(_) => 0,
    };
    row.record.bytes() + row.record.headers.len() * 16 + prediction + HEADROOM
}

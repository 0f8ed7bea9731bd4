//! A lane: one transaction after the other, each of them all or nothing.
//!
//! ```text
//!          ┌─────────────────────────── again, the same records from memory ◄──────────────────────┐
//!          ▼                                                                                       │
//!  ─► CHECK ─► BEGIN ─► PRODUCE ─► DRAIN ─► CHECK ─► OFFSETS ─► COMMIT ─► done                      │
//!       │         └────────┴─────────┴────────┴─────────┴──────────┴─ error ─┬─ redo: abort ────────┤
//!       └─ nothing is ours: dropped                                          ├─ refused: mend ──────┤
//!                                                                            ├─ recreate ───────────┤
//!                                       done ◄─ all committed ── resolve ◄───┼─ none committed ─────┘
//!                                       two smaller ones, in order ◄─────────┴─ too long
//! ```
//!
//! 1. Offsets are sent only after every message is reported as delivered, and under a generation of the group
//!    that was valid while they were taken. Each carries its [note](crate::log::note).
//! 2. A transaction whose end is unknown is never repeated: a new producer ends it, and the committed offsets
//!    say how.
//! 3. After a call that may have been sent twice the producer is renewed before the next transaction: a
//!    delayed copy of the request then meets a newer epoch (KAFKA-17754). A repetition waits for `retry.backoff.ms` first
//!    (less 20 %), which is six round trips or more, so a call that took three quarters of it may have been repeated.
//! 4. What the broker refuses for good is that record's outcome: see [`refusal`]. The batch commits whole, with its
//!    manifest and offsets, without the refused messages.
//! 5. What does not fit into `limits.transaction` is committed in smaller transactions, in order: see [`parts`]. Each
//!    time-out halves how many batches share one, each that goes well doubles it again.
//! 6. While the topic may have been deleted and created again (the client met an unknown topic), no offsets are committed
//!    until its id was compared.
//! 7. Attempts that fail pause longer and longer, beyond a heartbeat: what the group decides is only known then. An
//!    attempt that has made progress (a refused record was mended, a smaller part was cut) is not counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::producer::Producer as _;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::class::{Action, Call};
use super::native;
use super::producer::{Inner, Producer, Trouble, Verdicts};
use super::settings::Tuning;
use super::shared::Shared;
use crate::failure::{Exit, Failure};
use crate::log::message::Amend;
use crate::log::{Control, Done, How, Row, Transaction};
use crate::record::{Epoch, Offset, Outcome, Partition};

mod attempt;
mod parts;
mod refusal;

use refusal::{Refused, Remedy};

/// Attempts at one transaction, without progress, before the process starts anew.
const ATTEMPTS_MAX: u32 = 6;
/// The pause before the second attempt; each further one is twice as long: 0.2, 0.4, 0.8, 1.6, 3.2 s.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a lane waits to be a member of its group again: the session timeout.
const REJOIN: Duration = Duration::from_secs(20);
/// Beyond the deadline of a transaction, for its abort.
const ABORT: Duration = Duration::from_secs(5);
/// How long committed offsets may take to be told: a broker ends a dead transaction within its timeout (15 s)
/// and the interval at which it looks (10 s).
const RESOLVE: Duration = Duration::from_secs(30);
/// How long the cluster may take to answer one question.
const ANSWER: Duration = Duration::from_secs(5);
/// A transaction that is not through after so long, parts and attempts included, is left to the next start.
const WHOLE: Duration = Duration::from_secs(150);
/// Longest that a lane is silent: [`WHOLE`], and one attempt begun just before its end.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);
/// So many fencings within [`FENCED_WITHIN`] mean that two live processes share an id.
const FENCED_MAX: usize = 3;
const FENCED_WITHIN: Duration = Duration::from_secs(600);
/// A fencing after so long is our own doing: the broker has ended the transaction.
const OWN_TIMEOUT: Duration = Duration::from_secs(10);
/// A batch of the client is not made smaller than this, bytes.
const LIMIT_MIN: usize = 512;

/// A lane's state.
pub(super) struct Lane {
    number: usize,
    shared: Arc<Shared>,
    producer: Producer,
    tuning: Tuning,
    /// The producer must be renewed before the next transaction.
    doubt: bool,
    fenced: VecDeque<Instant>,
    last_commit: Instant,
    /// How many batches share a transaction at most, for now.
    most: usize,
}

/// A transaction on its way: what has become of it so far.
struct Course {
    done: Done,
    begin: Instant,
    /// Dead letters that are not written as their records came.
    amends: BTreeMap<(Partition, Offset), Amend>,
}

/// How one part of it ended.
enum Ended {
    Committed(How),
    Dropped,
    /// It did not fit into the time, and nothing of it was committed.
    TooLong(Transaction),
}

impl Lane {
    /// Makes the lane's producer, which ends what a predecessor left open.
    pub(super) fn new(number: usize, shared: Arc<Shared>) -> Result<Self, Failure> {
        let tuning = Tuning { limit: shared.limit, isolated: false, backoff: shared.backoff() };
        let producer = Producer::new(&shared, number, tuning)?;
        Ok(Self {
            number,
            most: shared.most_batches(),
            shared,
            producer,
            tuning,
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

    /// Brings one transaction to its end, in as many parts as it takes.
    fn commit(&mut self, transaction: Transaction) -> Result<Done, Failure> {
        let done = Done {
            lane: self.number,
            id: transaction.id,
            committed: BTreeMap::new(),
            took: Duration::ZERO,
            how: How::Dropped,
            buried: Vec::new(),
            fits: None,
        };
        let mut course = Course { done, begin: Instant::now(), amends: BTreeMap::new() };
        let mut waiting: VecDeque<Transaction> = parts::by_batches(transaction, self.most).into();
        let mut well = true;
        while let Some(mut part) = waiting.pop_front() {
            match self.bring(&mut part, &mut course)? {
                Ended::Dropped => (),
                Ended::Committed(how) => {
                    let next = part.next.iter().map(|(p, (_, next))| (*p, *next));
                    course.done.committed.extend(next);
                    let before = course.done.how;
                    course.done.how = if before == How::Dropped { how } else { before.max(how) };
                }
                Ended::TooLong(part) => {
                    well = false;
                    let smaller = self.smaller(part, &mut course.done);
                    smaller.into_iter().rev().for_each(|part| waiting.push_front(part));
                }
            }
        }
        if well {
            self.most = self.most.saturating_mul(2).min(self.shared.most_batches());
        }
        course.done.took = course.begin.elapsed();
        Ok(course.done)
    }

    /// What did not fit into the time, in two.
    fn smaller(&mut self, part: Transaction, done: &mut Done) -> Vec<Transaction> {
        match part.batches.len() {
            batches @ 2.. => {
                self.most = batches.div_ceil(2);
                tracing::warn!(
                    lane = self.number,
                    batches = self.most,
                    "a transaction did not fit into limits.transaction: fewer batches share one now"
                );
                parts::by_batches(part, self.most)
            }
            _ => {
                let rows = part.batches.first().map_or(0, |batch| batch.rows.len());
                let fits = rows.div_ceil(2).max(1);
                done.fits = Some(fits.min(done.fits.unwrap_or(fits)));
                tracing::warn!(
                    lane = self.number,
                    records = fits,
                    "a batch did not fit into limits.transaction: it is committed in parts"
                );
                parts::by_rows(part, [Uuid::now_v7(), Uuid::now_v7()])
            }
        }
    }

    /// Brings one part to its end.
    fn bring(&mut self, part: &mut Transaction, course: &mut Course) -> Result<Ended, Failure> {
        let (mut how, mut attempts) = (How::Committed, 0);
        while course.begin.elapsed() < WHOLE {
            if self.doubt {
                self.renew()?;
            }
            if !self.shared.owned.keep(part) {
                return Ok(Ended::Dropped);
            }
            let begin = Instant::now();
            let Err(mut trouble) = self.attempt(part, &course.amends) else {
                self.committed(part)?;
                return Ok(Ended::Committed(how));
            };
            let gone = self.shared.says_gone(&mut trouble);
            tracing::warn!(lane = self.number, "{}", trouble.why);
            how = How::Redone;
            if !trouble.verdicts.refused.is_empty() {
                self.mend(part, &trouble.verdicts, course)?;
                self.renew()?;
                continue;
            }
            self.count_fencing(&trouble, begin.elapsed())?;
            match trouble.action {
                Action::Exit(exit) => return Err(self.failure(&trouble.why, exit)),
                Action::TooLong if !gone && self.can_shrink(part) => {
                    self.abort()?;
                    return Ok(Ended::TooLong(std::mem::take(part)));
                }
                Action::Redo => self.abort()?,
                Action::Again
                | Action::Drain
                | Action::Recreate
                | Action::Refused
                | Action::TooLong => self.renew()?,
                Action::Resolve => {
                    self.renew()?;
                    if self.shared.owned.keep(part) && self.resolve(part)? {
                        self.committed(part)?;
                        return Ok(Ended::Committed(How::Resolved));
                    }
                }
            }
            if part.next.iter().any(|(p, (epoch, _))| !self.shared.owned.holds(*p, *epoch)) {
                continue; // what was taken away meanwhile is left out, and is waited for
            }
            attempts += 1;
            if attempts == ATTEMPTS_MAX {
                let why =
                    format!("commit a transaction: {attempts} attempts failed: {}", trouble.why);
                return Err(self.failure(&why, Exit::Temporary));
            }
            std::thread::sleep(PAUSE.saturating_mul(1 << (attempts - 1)));
        }
        Err(self.failure(
            &format!("commit a transaction: not through within {WHOLE:?}"),
            Exit::Temporary,
        ))
    }

    /// Whether less at once may help: not while the cluster is away, and not for a single record.
    fn can_shrink(&self, part: &Transaction) -> bool {
        let rows = part.batches.first().map_or(0, |batch| batch.rows.len());
        1 < part.batches.len() || (1 < rows && self.shared.is_reachable())
    }

    /// Does what the broker's verdicts ask for.
    fn mend(
        &mut self,
        part: &mut Transaction,
        verdicts: &Verdicts,
        course: &mut Course,
    ) -> Result<(), Failure> {
        let named = verdicts.named || self.tuning.isolated;
        let together = verdicts.refused.len();
        let (mut smaller, mut one_by_one) = (false, false);
        for refusal in &verdicts.refused {
            let Some(place) = place(part, refusal.row) else {
                // A manifest.
                if !self.shrink_batches() {
                    let topic = &self.shared.naming.manifest;
                    let why = format!(
                        "write a manifest: topic {topic} refuses it: {}; give it the brokers' default settings",
                        refusal.words
                    );
                    return Err(self.failure(&why, Exit::Config));
                }
                continue;
            };
            let shared = Arc::clone(&self.shared);
            let finished = &mut part.batches[place.0];
            let row = &finished.rows[place.1];
            let key = (row.record.partition, row.record.offset);
            let amend = self.amend(row, &course.amends);
            let (size, topic) = {
                let batch = shared.naming.batch(&finished.info);
                let message = batch.amended(row, amend, self.tuning.limit);
                (message.size(), message.topic.to_owned())
            };
            let limit = self.tuning.limit;
            let keyless = row.record.key.is_none() && shared.compacted.contains(&topic);
            let topic = topic.as_str();
            let refused = Refused { refusal, named, together, size, limit, topic, keyless, amend };
            match refusal::remedy(refused, &row.outcome) {
                Remedy::Bury(fault) => {
                    let name = shared.naming.input(key.0);
                    tracing::warn!("{name}/{} offset {}: {fault}", key.0.number, key.1);
                    course.done.buried.push((key.0, key.1, fault.clone()));
                    finished.rows[place.1].outcome = Outcome::DeadLetter(fault);
                }
                Remedy::Amend(amend) => {
                    course.amends.insert(key, amend);
                }
                Remedy::SmallerBatches => smaller = true,
                Remedy::OneByOne => one_by_one = true,
                Remedy::Hopeless => return Err(self.hopeless(key, topic, &refusal.words)),
            }
        }
        if smaller && !self.shrink_batches() {
            return Err(
                self.failure("write messages: a topic takes less than 512 bytes", Exit::Config)
            );
        }
        self.tuning.isolated = one_by_one;
        Ok(())
    }

    fn hopeless(
        &self,
        (partition, offset): (Partition, Offset),
        topic: &str,
        words: &str,
    ) -> Failure {
        let name = self.shared.naming.input(partition);
        let why = format!(
            "write the dead letter of {name}/{} offset {offset}: topic {topic} refuses it in every form: {words}; \
             give the topic the brokers' default settings",
            partition.number
        );
        self.failure(&why, Exit::Config)
    }

    /// How a dead letter is written: as its topic needs all of them, and as this one was refused before.
    fn amend(&self, row: &Row, amends: &BTreeMap<(Partition, Offset), Amend>) -> Amend {
        let Outcome::DeadLetter(_) = row.outcome else { return Amend::default() };
        let place = (row.record.partition, row.record.offset);
        let amend = amends.get(&place).copied().unwrap_or_default();
        let topic = self.shared.naming.dead_letter(place.0);
        let compacted = self.shared.compacted.contains(topic);
        // The record's own would be lost.
        let stamped = self.shared.stamped.contains(topic);
        Amend { key: amend.key || compacted, timestamp: amend.timestamp || stamped, ..amend }
    }

    /// Puts less into one batch of the client: what the topics take now, where that has become less, else half; false where
    /// that cannot help any more.
    fn shrink_batches(&mut self) -> bool {
        let before = self.tuning.limit;
        let now = self.shared.limit_now().filter(|now| *now < before);
        self.tuning.limit = now.unwrap_or(before / 2).max(LIMIT_MIN);
        LIMIT_MIN < before
    }

    /// Remembers what is committed now, and goes back to the usual way of sending.
    fn committed(&mut self, part: &Transaction) -> Result<(), Failure> {
        self.last_commit = Instant::now();
        // The members are taken: what was said of a refusal is over.
        self.shared.journal.answered();
        self.shared.owned.commit(part);
        if self.tuning.isolated {
            self.tuning.isolated = false;
            self.renew()?;
        }
        Ok(())
    }

    /// Ends the open transaction; with a new producer where this one does not manage.
    fn abort(&mut self) -> Result<(), Failure> {
        let (shared, begin) = (Arc::clone(&self.shared), Instant::now());
        let deadline = begin + ABORT;
        let call = self.producer.call(&shared, Call::Abort, deadline, Inner::abort_transaction);
        self.doubt |= begin.elapsed() > self.suspicious();
        match call {
            Ok(()) => Ok(()),
            Err(Trouble { action: Action::Exit(exit), why, .. }) => Err(self.failure(&why, exit)),
            Err(_) => self.renew(),
        }
    }

    /// A call that takes longer may have been sent twice.
    fn suspicious(&self) -> Duration {
        self.tuning.backoff * 3 / 4
    }

    /// A new producer with the same id. It fences the old one and ends its transaction.
    fn renew(&mut self) -> Result<(), Failure> {
        self.tuning.backoff = self.shared.backoff();
        self.producer = Producer::new(&self.shared, self.number, self.tuning)?;
        self.doubt = false;
        Ok(())
    }

    /// Whether a transaction whose end is unknown was committed.
    fn resolve(&self, part: &mut Transaction) -> Result<bool, Failure> {
        let wanted: Vec<Partition> = part.next.keys().copied().collect();
        let deadline = Instant::now() + RESOLVE;
        let committed = loop {
            let found = self.shared.committed(&wanted, true, ANSWER);
            let late = deadline <= Instant::now();
            match found {
                // One that is missing is held back by a transaction that has not ended yet.
                Ok(found) if found.len() == wanted.len() => break found,
                Err(error) if late => {
                    return Err(self.shared.failure(
                        "read committed offsets",
                        &error,
                        Exit::Temporary,
                    ));
                }
                Ok(_) if late => {
                    let why = "read committed offsets: a transaction holds them back; look at the brokers";
                    return Err(self.failure(why, Exit::Temporary));
                }
                Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        };
        // What was lost meanwhile may have been committed further by its new owner: only what is ours is judged.
        if !self.shared.owned.keep(part) {
            return Ok(false);
        }
        let reached = |(p, (_, next)): (&Partition, &(Epoch, Offset))| {
            committed.get(p).and_then(Option::as_ref).is_some_and(|c| *next <= c.next)
        };
        match part.next.iter().filter(|entry| reached(*entry)).count() {
            0 => Ok(false),
            all if all == part.next.len() => Ok(true),
            some => Err(self.failure(
                &format!(
                    "resolve a transaction: torn, {some} of {} partitions are committed; keep the \
                     brokers' logs, compare output and offsets before starting again",
                    part.next.len()
                ),
                Exit::Data,
            )),
        }
    }

    /// Often fenced, and not by a time-out of our own: somebody else has our id.
    fn count_fencing(&mut self, trouble: &Trouble, took: Duration) -> Result<(), Failure> {
        if !trouble.fenced || OWN_TIMEOUT <= took {
            return Ok(());
        }
        let now = Instant::now();
        self.fenced.push_back(now);
        self.fenced.retain(|at| now.duration_since(*at) < FENCED_WITHIN);
        if self.fenced.len() < FENCED_MAX {
            return Ok(());
        }
        let why = format!(
            "{}: fenced {FENCED_MAX} times in ten minutes: another live process has the kafka.instance {}; give \
             each replica its own name",
            trouble.call.name(),
            self.shared.instance
        );
        Err(self.failure(&why, Exit::Config))
    }

    fn failure(&self, why: &str, exit: Exit) -> Failure {
        Failure { message: format!("lane {}: {why}", self.number), exit }
    }
}

/// The batch and row of the n-th message of a transaction; `None` for a manifest.
fn place(part: &Transaction, mut row: usize) -> Option<(usize, usize)> {
    for (batch, finished) in part.batches.iter().enumerate() {
        if row < finished.rows.len() {
            return Some((batch, row));
        }
        row = row.checked_sub(finished.rows.len())?;
    }
    None
}

//! Drives the core: wait for something, tell the core, carry out what it says. One task owns all state.
//!
//! ```text
//!   log.control ─┐                                   ┌─► workers.submit
//!   log.done ────┤                                   ├─► log.lanes
//!   answers ─────┤                                   ├─► open a partition's gate
//!   registry ────┼─► select ─► Pipeline::handle ─────┼─► ask the registry
//!   tasks ───────┤     ▲             │ deadline      ├─► release a revocation
//!   records ─────┘     └─────────────┘               └─► stop
//! ```
//!
//! The only reader of the clock. What must not wait comes first in the `select`: control before answers,
//! answers before the timer, and new records last and only while there is room, so that a busy topic can
//! neither starve a due batch nor grow the memory. Whatever can hang outside has a deadline that is known here: a batch
//! in the model, a transaction on its lane, a stop. A task that ends by itself ends the service by its name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::answer::Refused;
use crate::config::{Config, OnStop};
use crate::decode::{Arrived, Current, Decoded};
use crate::failure::{Failure, temporary};
use crate::http::Health;
use crate::journal::Journal;
use crate::log::{self, BatchInfo, Control, Done, Gate, Log, Row};
use crate::model::served::Served;
use crate::pipeline::publish::Transaction;
use crate::pipeline::{Batch, Effect, Event, Pipeline, arrive};
use crate::record::{Epoch, ModelId, Outcome, Partition, Version};
use crate::registry::watch::Heard;
use crate::telemetry::metrics::Metrics;
use crate::workers::{Answer, Job, Workers};

mod deadlines;
mod flight;
mod lag;
mod leave;
mod limits;
mod sizing;
mod submit;
mod tasks;

use flight::{InModel, Outstanding, Tally};
use lag::Lag;
pub use limits::limits;
use sizing::Sizing;
pub use tasks::Tasks;

/// What the engine is made of.
pub struct Parts {
    /// The log, opened; its `chunks` are already taken by the decode thread.
    pub log: Log,
    /// Decoded records.
    pub arrived: mpsc::Receiver<Arrived>,
    /// The inference threads.
    pub workers: Workers,
    /// What they finished.
    pub answers: mpsc::Receiver<Answer>,
    /// Versions that passed the gate, and what the registry named when it was asked.
    pub heard: mpsc::Receiver<Heard>,
    /// Where the registry is asked: the number of the newest question. `None` where nothing is followed.
    pub ask: Option<watch::Sender<u64>>,
    /// The version to begin with.
    pub serving: Arc<Served>,
    /// Where the decode thread looks which version to prepare for.
    pub current: Current,
    /// Where it is written what is in flight.
    pub journal: Journal,
    /// Metric handles.
    pub metrics: Metrics,
    /// What the probes say.
    pub health: Arc<Health>,
    /// The tasks beside the engine.
    pub tasks: Tasks,
    /// Cancelled by a signal.
    pub stop: CancellationToken,
    /// Set by a signal that asks this replica to leave its group for good.
    pub leave_for_good: Arc<std::sync::atomic::AtomicBool>,
    /// Stop by itself when the group has committed what was there at the start.
    pub until_end: bool,
    /// Stop by then with what is left (`--until-end --deadline`).
    pub deadline: Option<Instant>,
}

/// The engine, running. It owns everything that changes: the core, what is in the model, what is being committed. It
/// waits for one thing after the other in [`Engine::work`] and handles each to its end, so nothing is locked and
/// no two things happen at once. The price is that work of several steps is state here: a batch is in `in_model` until
/// it is answered, in `inference` until it is committed, a transaction in `outstanding` until its lane reports.
pub struct Engine {
    parts: Parts,
    pipeline: Pipeline<Decoded, Vec<u8>>,
    effects: Vec<Effect<Decoded, Vec<u8>>>,
    models: BTreeMap<Version, Arc<Served>>,
    /// Ranges in the model, with the time they were given to it.
    in_model: Vec<InModel>,
    journal: Journal,
    /// Versions that have answered records which nobody suspects.
    answers: BTreeSet<Version>,
    /// Versions that need no witness any more, or found none.
    witnessed: BTreeSet<Version>,
    /// Suspects that wait for one.
    delayed: Vec<Job>,
    /// Time in the model, by batch, until it is committed.
    inference: BTreeMap<u64, Duration>,
    sizing: Sizing,
    /// Gates of partitions that may not be read yet.
    gates: BTreeMap<(Partition, Epoch), Gate>,
    /// Revocations that wait for `Release`.
    tickets: BTreeMap<u64, std::sync::mpsc::SyncSender<()>>,
    next_ticket: u64,
    /// What each lane's transaction is reported with.
    outstanding: BTreeMap<u64, Outstanding>,
    /// What became of everything that was committed.
    tally: Tally,
    lag: Lag,
    /// What the group had not committed of a bounded run when it was looked at last: records and partitions.
    unfinished: Option<(i64, usize)>,
    /// Where readers do not see yet what the group has committed.
    hidden: Option<String>,
    topics: Vec<String>,
    inference_limit: Duration,
    takeover_wait: Duration,
    on_stop: OnStop,
    assigned_once: bool,
    /// Under `--until-end`: the group has committed all that was there at the start.
    finished: bool,
    closing: Option<Instant>,
    drain: Duration,
    serving: Version,
    /// The newest version that passed the gate.
    newest: Version,
    stopped: Option<Failure>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("pipeline", &self.pipeline).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine that has not begun.
    pub fn new(config: &Config, parts: Parts) -> Self {
        let serving = parts.serving.id.version;
        let models = BTreeMap::from([(serving, Arc::clone(&parts.serving))]);
        parts.metrics.serving(&parts.serving.id, parts.serving.model.about().bytes);
        parts.health.set_model(Some(parts.serving.id.clone()));
        let mut sizing = Sizing::new(&config.batch);
        sizing.serve(&parts.serving);
        Self {
            pipeline: Pipeline::new(limits(config), serving),
            effects: Vec::new(),
            models,
            in_model: Vec::new(),
            journal: parts.journal.clone(),
            answers: BTreeSet::new(),
            witnessed: BTreeSet::new(),
            delayed: Vec::new(),
            inference: BTreeMap::new(),
            sizing,
            gates: BTreeMap::new(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            outstanding: BTreeMap::new(),
            tally: Tally::default(),
            lag: Lag::new(now()),
            unfinished: None,
            hidden: None,
            topics: config.input.topics.clone(),
            inference_limit: config.limits.inference.0,
            takeover_wait: config.model.takeover_wait.0,
            on_stop: config.kafka.on_stop,
            assigned_once: false,
            finished: false,
            closing: None,
            drain: config.limits.drain.0,
            serving,
            newest: serving,
            stopped: None,
            parts,
        }
    }

    /// Runs until stopped, or at the end with `until_end`.
    ///
    /// # Errors
    ///
    /// A [`Failure`] with its exit code; nothing is lost, the next start goes on at the committed offsets.
    pub async fn run(mut self) -> Result<(), Failure> {
        let result = self.work().await;
        self.sizing.save();
        self.tally.report(self.parts.until_end);
        self.leave(result.is_ok() || self.closing.is_some()).await;
        result
    }

    async fn work(&mut self) -> Result<(), Failure> {
        self.limit()?;
        loop {
            let wake = self.wake();
            let room = self.pipeline.has_room();
            let closing = self.closing.is_some();
            let reads = self.stopped.is_none();
            tokio::select! {
                biased;
                control = self.parts.log.control.recv(), if reads => self.control(control)?,
                done = self.parts.log.done.recv() => self.done(done)?,
                answer = self.parts.answers.recv() => self.answer(answer)?,
                Some(heard) = self.parts.heard.recv() => self.heard(heard)?,
                ended = self.parts.tasks.next(), if !closing => self.task_ended(ended)?,
                () = self.parts.stop.cancelled(), if !closing => self.close()?,
                () = tokio::time::sleep_until(wake.into()) => self.tick()?,
                arrived = self.parts.arrived.recv(), if room && reads => self.arrived(arrived)?,
            }
            if let Some(ended) = self.ended() {
                return ended;
            }
        }
    }

    fn control(&mut self, control: Option<Control>) -> Result<(), Failure> {
        match control {
            None => Err(temporary("the reading thread ended without a word; this is a bug")),
            Some(Control::Failed(failure)) => Err(failure),
            Some(Control::Ends(ends)) => {
                self.lag.ends(ends);
                self.lag.report(self.pipeline.owned(), &self.topics, &self.parts.metrics, now());
                Ok(())
            }
            Some(Control::Finished) => {
                self.finished = true;
                Ok(())
            }
            Some(Control::Unfinished(records, partitions)) => {
                self.unfinished = Some((records, partitions));
                self.hidden = None;
                Ok(())
            }
            Some(Control::Hidden(places)) => {
                self.hidden = Some(places);
                Ok(())
            }
            Some(Control::Reachable(reachable)) => {
                self.parts.health.set_reachable(reachable, now());
                self.parts.metrics.reachable(reachable);
                Ok(())
            }
            Some(Control::Uncovered(partitions)) => {
                self.parts.metrics.uncovered(partitions);
                Ok(())
            }
            Some(Control::Outside(why)) => {
                self.parts.health.set_outside(why);
                Ok(())
            }
            Some(Control::Assigned(assigned)) => self.assigned(assigned),
            Some(Control::Revoked { partitions, lost, done }) => {
                let ticket = self.next_ticket;
                self.next_ticket += 1;
                self.tickets.insert(ticket, done);
                self.gates.retain(|(partition, _), _| !partitions.contains(partition));
                for partition in &partitions {
                    self.lag.revoked(*partition);
                    self.parts.metrics.revoked(self.topic(*partition), *partition);
                }
                self.handle(Event::Revoked { partitions, lost, ticket })?;
                self.rebalanced();
                Ok(())
            }
        }
    }

    fn assigned(&mut self, assigned: Vec<log::Assigned>) -> Result<(), Failure> {
        self.assigned_once = true;
        let mut taken = Vec::with_capacity(assigned.len());
        for assigned in assigned {
            let recorded = self.recorded(assigned.answered.as_ref());
            let log::Assigned { partition, epoch, next, end, until, skip, topic, gate, .. } =
                assigned;
            self.journal.assigned(partition, topic, next);
            self.lag.assigned(partition, end);
            self.gates.insert((partition, epoch), gate);
            taken.push(arrive::Assigned { partition, epoch, next, until, skip, recorded });
        }
        self.handle(Event::Assigned(taken))?;
        self.rebalanced();
        Ok(())
    }

    /// The version that answered a partition last, where it is of the model that is followed here: of another model, a
    /// pinned version or a plain directory it is no question to the registry, only a change to record.
    fn recorded(&self, answered: Option<&ModelId>) -> Option<Version> {
        let answered = answered.filter(|_| self.parts.ask.is_some())?;
        (answered.name == self.parts.serving.id.name).then_some(answered.version)
    }

    fn rebalanced(&self) {
        let partitions = self.pipeline.owned().len();
        self.parts.health.set_assigned(partitions);
        self.parts.metrics.rebalanced(partitions);
        tracing::info!(partitions, "assignment changed");
    }

    fn topic(&self, partition: Partition) -> &str {
        self.topics.get(usize::from(partition.topic)).map_or("", String::as_str)
    }

    fn done(&mut self, done: Option<Done>) -> Result<(), Failure> {
        let Some(done) = done else {
            return Err(temporary("a commit thread ended without a word; this is a bug"));
        };
        let Done { lane, id, committed, took, how, buried, fits } = done;
        self.parts.metrics.transaction(how, took);
        if let Some(mut outstanding) =
            self.outstanding.remove(&id).filter(|_| !committed.is_empty())
        {
            outstanding.bury(&buried);
            self.parts.metrics.record_ages(outstanding.ages(wall_clock_ms()));
            self.parts.metrics.committed(now());
            self.lag.committed(outstanding.records());
            self.tally.add(&outstanding);
            self.parts.metrics.outcomes(&outstanding.outcomes, &outstanding.classes);
            let serving = self.models.get(&self.serving).map(|served| &*served.model);
            self.sizing.learn(&outstanding.batches, took, serving);
        }
        self.handle(Event::Committed { lane, id, committed, buried, fits })?;
        if self.parts.until_end && self.pipeline.is_drained() && self.pipeline.reached_ends() {
            self.parts.log.judge();
        }
        self.limit()
    }

    /// Tells the core a limit that has changed.
    fn limit(&mut self) -> Result<(), Failure> {
        match self.sizing.change() {
            Some(tokens) => {
                self.parts.metrics.batch_limit(tokens);
                self.handle(Event::Limit(tokens))
            }
            None => Ok(()),
        }
    }

    fn answer(&mut self, answer: Option<Answer>) -> Result<(), Failure> {
        let Some(answer) = answer else {
            return Err(temporary("the inference threads ended without a word; this is a bug"));
        };
        let (asked, answer) = self.returned(answer);
        let Some(Answer { batch, rows, outcomes, took, encode, hits }) = answer else {
            return Ok(()); // a witness, whose answer nobody wants
        };
        *self.inference.entry(batch).or_default() += took;
        self.parts.metrics.inferred(took, encode, hits);
        if let Err(refused) = &outcomes {
            tracing::warn!(batch, rows = rows.len(), %refused, "batch refused");
        }
        if let (Err(Refused::OutOfMemory(_)), Some(asked)) = (&outcomes, asked) {
            self.sizing.too_large(asked.version, asked.tokens);
        }
        let bytes = flight::memory(outcomes.as_deref().unwrap_or_default());
        self.handle(Event::Inferred { batch, rows, answer: outcomes, bytes })?;
        self.limit()
    }

    fn heard(&mut self, heard: Heard) -> Result<(), Failure> {
        match heard {
            Heard::Staged(served) => {
                let version = served.id.version;
                self.newest = version;
                self.models.insert(version, Arc::clone(&served));
                self.parts.current.set(served);
                self.handle(Event::Staged(version))
            }
            Heard::Named(question) => self.handle(Event::Named(question)),
        }
    }

    /// A task beside the engine has ended; at a stop they do.
    fn task_ended(&self, ended: Failure) -> Result<(), Failure> {
        if self.parts.stop.is_cancelled() { Ok(()) } else { Err(ended) }
    }

    fn close(&mut self) -> Result<(), Failure> {
        tracing::info!(
            "stopping: batches that were begun are finished, what was only read is left to the next start"
        );
        self.closing = Some(now());
        self.parts.health.set_stopped(Some("stopping".to_owned()));
        self.handle(Event::Close)
    }

    fn arrived(&mut self, arrived: Option<Arrived>) -> Result<(), Failure> {
        let Some(Arrived { items, ends, took, load: _load }) = arrived else {
            return Err(temporary("the decode thread ended without a word; this is a bug"));
        };
        if !items.is_empty() {
            self.parts.metrics.decoded(took);
            self.handle(Event::Arrived(items))?;
        }
        for (partition, epoch, next) in ends {
            self.handle(Event::End(partition, epoch, next))?;
        }
        Ok(())
    }

    /// Tells the core and carries out what it says.
    fn handle(&mut self, event: Event<Decoded, Vec<u8>>) -> Result<(), Failure> {
        let mut effects = std::mem::take(&mut self.effects);
        self.pipeline.handle(event, now(), &mut effects);
        for effect in effects.drain(..) {
            self.carry_out(effect)?;
        }
        self.effects = effects;
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect<Decoded, Vec<u8>>) -> Result<(), Failure> {
        match effect {
            Effect::Infer(batch, rows) => self.infer(batch, rows),
            Effect::Commit(lane, transaction) => self.commit(lane, transaction),
            Effect::Open(partition, epoch) => {
                if let Some(gate) = self.gates.remove(&(partition, epoch)) {
                    gate.open();
                }
                Ok(())
            }
            Effect::Ask(question) => {
                tracing::info!(
                    "a partition was answered by another version last: asking the registry"
                );
                if let Some(ask) = &self.parts.ask {
                    ask.send_replace(question);
                }
                Ok(())
            }
            Effect::Release(ticket) => {
                if let Some(done) = self.tickets.remove(&ticket) {
                    // Nobody waits any more when the revocation timed out; the broker fences then.
                    done.try_send(()).ok();
                }
                Ok(())
            }
            Effect::Retire(version) => {
                if let Some(served) = self.models.remove(&version) {
                    tracing::info!(model = %served.id, "version retired");
                    self.parts.metrics.retired(&served.id);
                }
                Ok(())
            }
            Effect::Stop(stop) => self.stop(stop),
        }
    }

    /// Counts a batch that was just closed, and says so if it is the first of a version. With several lanes, batches of
    /// the version before may still follow it: only the newest version counts as a swap, once.
    fn closed(&mut self, batch: &Batch<Decoded>, served: &Served) {
        let bytes = batch.items.iter().map(|item| item.bytes).sum();
        let tokens = batch.items.iter().map(|item| item.tokens).sum();
        self.parts.metrics.batch_closed(batch.reason, batch.items.len(), bytes, tokens);
        self.parts.metrics.waited(batch.waited);
        if self.serving != batch.version && batch.version == self.newest {
            let from = std::mem::replace(&mut self.serving, batch.version);
            let first = batch.items.first().map(|item| (item.partition.number, item.offset.0));
            tracing::info!(%from, model = %served.id, digest = %served.id.digest, ?first, "swapped");
            self.parts.metrics.serving(&served.id, served.model.about().bytes);
            self.parts.metrics.swapped();
            self.sizing.serve(served);
            self.parts.health.set_model(Some(served.id.clone()));
        }
    }

    fn commit(
        &mut self,
        lane: usize,
        transaction: Transaction<Decoded, Vec<u8>>,
    ) -> Result<(), Failure> {
        let Transaction { id, batches, next } = transaction;
        let mut outstanding = Outstanding::new(lane, now());
        let mut finished = Vec::with_capacity(batches.len());
        for done in batches {
            let batch = done.batch;
            let Some(served) = self.models.get(&batch.version) else {
                return Err(temporary(&format!(
                    "version {} is gone; this is a bug",
                    batch.version
                )));
            };
            let info = BatchInfo {
                id: Uuid::now_v7(),
                model: Arc::new(served.id.clone()),
                signature: Arc::clone(&served.signature),
                part_of: None,
                reason: batch.reason,
                bytes: batch.items.iter().map(|item| item.bytes).sum(),
                tokens: batch.items.iter().map(|item| item.tokens).sum(),
                inference: self.inference.remove(&batch.number).unwrap_or_default(),
            };
            outstanding.batches.push((batch.version, info.tokens, info.inference));
            let row = |(row, outcome): (usize, Outcome<Vec<u8>>)| {
                let item = &batch.items[row];
                outstanding.count(&outcome, item.payload.record.timestamp);
                Row { record: Arc::clone(&item.payload.record), epoch: item.epoch, outcome }
            };
            let rows = done.rows.into_iter().map(row).collect();
            finished.push(log::Finished { info, rows });
        }
        self.outstanding.insert(id, outstanding);
        let transaction = log::Transaction { id, batches: finished, next };
        // Bound 1 and at most one outstanding: full means the lane thread is gone or broke the promise.
        self.parts.log.lanes[lane].try_send(transaction).map_err(|error| {
            temporary(&format!("hand a transaction to lane {lane}: {error}; this is a bug"))
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "the one reader of the clock")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a record's age is wall time against its timestamp")]
fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

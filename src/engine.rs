//! Drives the core: wait for something, tell the core, carry out what it says. One task owns all state.
//!
//! ```text
//!   log.control ─┐                                   ┌─► workers.submit
//!   log.done ────┤                                   ├─► log.lanes
//!   answers ─────┼─► select ─► Pipeline::handle ─────┼─► release a revocation
//!   staged ──────┤     ▲             │ deadline      └─► stop
//!   records ─────┘     └─────────────┘
//! ```
//!
//! The only reader of the clock. What must not wait comes first in the `select`: control before answers,
//! answers before the timer, and new records last and only while there is room, so that a busy topic can
//! neither starve a due batch nor grow the memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::Config;
use crate::decode::{Arrived, Current, Decoded};
use crate::http::Health;
use crate::log::{self, BatchInfo, Control, Done, Failure, Log, Row};
use crate::model::worker::{Answer, Job, Workers};
use crate::model::{Refused, Served};
use crate::pipeline::publish::Transaction;
use crate::pipeline::{Batch, Effect, Event, Limits, Pipeline, Stop, arrive, batch};
use crate::record::{Epoch, Offset, Outcome, Partition, Version};
use crate::telemetry::metrics::Metrics;

mod sizing;

use sizing::Sizing;

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
    /// Versions that passed the gate.
    pub staged: mpsc::Receiver<Arc<Served>>,
    /// The version to begin with.
    pub serving: Arc<Served>,
    /// Where the decode thread looks which version to prepare for.
    pub current: Current,
    /// Metric handles.
    pub metrics: Metrics,
    /// What the probes say.
    pub health: Arc<Health>,
    /// Cancelled by a signal.
    pub stop: CancellationToken,
    /// Stop by itself at the ends seen when partitions were assigned.
    pub until_end: bool,
}

/// The engine, running.
pub struct Engine {
    parts: Parts,
    pipeline: Pipeline<Decoded, Vec<u8>>,
    effects: Vec<Effect<Decoded, Vec<u8>>>,
    models: BTreeMap<Version, Arc<Served>>,
    /// Ranges in the model, with the time they were given to it.
    in_model: Vec<InModel>,
    /// Time in the model, by batch, until it is committed.
    inference: BTreeMap<u64, Duration>,
    sizing: Sizing,
    /// Revocations that wait for `Release`.
    tickets: BTreeMap<u64, std::sync::mpsc::SyncSender<()>>,
    next_ticket: u64,
    /// Timestamps (ms since 1970) of the records in each lane's transaction.
    outstanding: BTreeMap<u64, Outstanding>,
    /// The newest ends that the log told.
    ends: BTreeMap<Partition, Offset>,
    /// Records committed since the last report of the ends.
    recent: (Instant, u64),
    topics: Vec<String>,
    inference_limit: Duration,
    assigned_once: bool,
    /// The newest epoch of an assignment.
    newest: Option<Epoch>,
    closing: Option<Instant>,
    drain: Duration,
    serving: Version,
    stopped: Option<Failure>,
}

/// Rows that the model has.
#[derive(Debug)]
struct InModel {
    batch: u64,
    rows: Range<usize>,
    version: Version,
    tokens: u64,
    since: Instant,
}

/// What a transaction's answer is reported with.
#[derive(Debug, Default)]
struct Outstanding {
    timestamps: Vec<i64>,
    outcomes: BTreeMap<&'static str, u64>,
    classes: BTreeMap<&'static str, u64>,
    /// Version, tokens, and time in the model of each batch.
    batches: Vec<(Version, u64, Duration)>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("pipeline", &self.pipeline).finish_non_exhaustive()
    }
}

/// What bounds the core, from the configuration.
pub fn limits(config: &Config) -> Limits {
    let waiting = u64::from(config.batch.max_records);
    Limits {
        batch: batch::Limits {
            max_records: usize::try_from(waiting).unwrap_or(usize::MAX),
            max_bytes: config.batch.max_bytes.0,
            max_tokens: u64::from(config.batch.max_tokens),
            max_wait: config.batch.max_wait.0,
            flush_when_idle: config.batch.when_idle == crate::config::WhenIdle::Flush,
        },
        lanes: usize::from(config.kafka.lanes.max(1)),
        slots: 2,
        // A quarter of the memory for records between arrival and commit; the client's own queue, decoded
        // inputs and outcomes take the rest.
        buffer_bytes: (config.limits.memory.0 / 4).max(config.batch.max_bytes.0.saturating_mul(2)),
        commit_wait: config.commit.max_wait.0,
        commit_batches: usize::try_from(config.commit.max_batches).unwrap_or(usize::MAX),
        tail_every: Duration::from_secs(1),
        max_dead_ratio: config.dead_letters.max_ratio,
        dead_window: usize::try_from(config.dead_letters.window).unwrap_or(usize::MAX),
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
            inference: BTreeMap::new(),
            sizing,
            tickets: BTreeMap::new(),
            next_ticket: 0,
            outstanding: BTreeMap::new(),
            ends: BTreeMap::new(),
            recent: (now(), 0),
            topics: config.input.topics.clone(),
            inference_limit: config.limits.inference.0,
            assigned_once: false,
            newest: None,
            closing: None,
            drain: config.limits.drain.0,
            serving,
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
        self.leave(result.is_ok()).await;
        result
    }

    async fn work(&mut self) -> Result<(), Failure> {
        self.limit()?;
        loop {
            let wake = self.wake();
            let room = self.pipeline.has_room();
            let closing = self.closing.is_some();
            tokio::select! {
                biased;
                control = self.parts.log.control.recv() => self.control(control)?,
                done = self.parts.log.done.recv() => self.done(done)?,
                answer = self.parts.answers.recv() => self.answer(answer)?,
                Some(served) = self.parts.staged.recv() => self.stage(served)?,
                () = self.parts.stop.cancelled(), if !closing => self.close()?,
                () = tokio::time::sleep_until(wake.into()) => self.tick()?,
                arrived = self.parts.arrived.recv(), if room => self.arrived(arrived)?,
            }
            if let Some(ended) = self.ended() {
                return ended;
            }
        }
    }

    /// When to look again although nothing happened.
    fn wake(&self) -> Instant {
        let stuck = self.in_model.first().map(|first| first.since + self.inference_limit);
        let drained = self.closing.map(|since| since + self.drain);
        let due = [self.pipeline.deadline(), stuck, drained].into_iter().flatten().min();
        due.unwrap_or_else(|| now() + Duration::from_secs(1))
    }

    /// Whether and how the work is over.
    fn ended(&mut self) -> Option<Result<(), Failure>> {
        if let Some(failure) =
            self.stopped.take_if(|_| self.parts.until_end || self.closing.is_some())
        {
            return Some(Err(failure));
        }
        let drained = self.pipeline.is_drained();
        if self.closing.is_some() && drained {
            return Some(Ok(()));
        }
        let finished = self.parts.until_end && self.assigned_once && drained;
        (finished && self.pipeline.reached_ends()).then_some(Ok(()))
    }

    fn control(&mut self, control: Option<Control>) -> Result<(), Failure> {
        match control {
            None => Err(failure("the reading thread ended without a word; this is a bug")),
            Some(Control::Failed(failure)) => Err(failure),
            Some(Control::Ends(ends)) => {
                self.ends.extend(ends);
                self.report_lag();
                Ok(())
            }
            Some(Control::Assigned(assigned)) => {
                self.assigned_once = true;
                let until_end = self.parts.until_end;
                let assigned = assigned.into_iter().map(|assigned| {
                    let until = until_end.then_some(assigned.end);
                    self.ends.insert(assigned.partition, assigned.end);
                    let log::Assigned { partition, epoch, committed, .. } = assigned;
                    self.newest = self.newest.max(Some(epoch));
                    arrive::Assigned { partition, epoch, committed, until }
                });
                let assigned = assigned.collect();
                self.handle(Event::Assigned(assigned))?;
                self.rebalanced();
                Ok(())
            }
            Some(Control::Revoked { partitions, lost, done }) => {
                let ticket = self.next_ticket;
                self.next_ticket += 1;
                self.tickets.insert(ticket, done);
                for partition in &partitions {
                    self.ends.remove(partition);
                    self.parts.metrics.revoked(self.topic(*partition), *partition);
                }
                self.handle(Event::Revoked { partitions, lost, ticket })?;
                self.rebalanced();
                Ok(())
            }
        }
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

    /// Lag and the time until it is 0, once for each report of the partitions' ends.
    fn report_lag(&mut self) {
        let positions: BTreeMap<_, _> = self.pipeline.owned().positions().collect();
        let mut total = 0;
        for (partition, end) in &self.ends {
            let lag = positions.get(partition).map_or(end.0, |done| end.0 - done.0).max(0);
            total += lag;
            self.parts.metrics.lag(self.topic(*partition), *partition, lag);
        }
        let (since, records) = std::mem::replace(&mut self.recent, (now(), 0));
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let eta = match (total, records) {
            (0, _) => 0.0,
            (_, 0) => -1.0,
            (lag, records) => lag as f64 * since.elapsed().as_secs_f64() / records as f64,
        };
        self.parts.metrics.drain_eta(eta);
    }

    fn done(&mut self, done: Option<Done>) -> Result<(), Failure> {
        let Some(done) = done else {
            return Err(failure("a commit thread ended without a word; this is a bug"));
        };
        let Done { lane, id, committed, took, how } = done;
        self.parts.metrics.transaction(how, took);
        if let Some(outstanding) = self.outstanding.remove(&id).filter(|_| !committed.is_empty()) {
            let now = wall_clock_ms();
            #[expect(clippy::cast_precision_loss, reason = "an age in ms is far below 2^52")]
            let ages = outstanding.timestamps.iter().map(|at| (now - at).max(0) as f64 / 1e3);
            self.parts.metrics.record_ages(ages);
            self.recent.1 += outstanding.outcomes.values().sum::<u64>();
            self.parts.metrics.outcomes(&outstanding.outcomes, &outstanding.classes);
            let serving = self.models.get(&self.serving).map(|served| &*served.model);
            self.sizing.learn(&outstanding.batches, took, serving);
        }
        self.handle(Event::Committed { lane, id, committed })?;
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
        let Some(Answer { batch, rows, outcomes, took, encode, hits }) = answer else {
            return Err(failure("the inference threads ended without a word; this is a bug"));
        };
        let place =
            self.in_model.iter().position(|asked| asked.batch == batch && asked.rows == rows);
        let asked = place.map(|place| self.in_model.remove(place));
        *self.inference.entry(batch).or_default() += took;
        self.parts.metrics.inferred(took, encode, hits);
        if let Err(refused) = &outcomes {
            tracing::warn!(batch, rows = rows.len(), %refused, "batch refused");
        }
        if let (Err(Refused::OutOfMemory(_)), Some(asked)) = (&outcomes, asked) {
            self.sizing.too_large(asked.version, asked.tokens);
        }
        self.handle(Event::Inferred { batch, rows, answer: outcomes })?;
        self.limit()
    }

    fn stage(&mut self, served: Arc<Served>) -> Result<(), Failure> {
        let version = served.id.version;
        self.models.insert(version, Arc::clone(&served));
        self.parts.current.set(served);
        self.handle(Event::Staged(version))
    }

    fn close(&mut self) -> Result<(), Failure> {
        tracing::info!(
            "stopping: begun batches are finished, what was read ahead is left to the next start"
        );
        self.closing = Some(now());
        self.parts.health.set_stopped(Some("stopping".to_owned()));
        self.handle(Event::Close)
    }

    fn tick(&mut self) -> Result<(), Failure> {
        let now = now();
        if let Some(InModel { batch, rows, since, .. }) = self.in_model.first()
            && *since + self.inference_limit <= now
        {
            return Err(failure(&format!(
                "run batch {batch} ({} records): no answer within limits.inference = {:?}; the device \
                 hangs, or the limit is too low for this model",
                rows.len(),
                self.inference_limit
            )));
        }
        if self.closing.is_some_and(|since| since + self.drain <= now) {
            return Err(failure(&format!(
                "finish what was read within limits.drain = {:?}; it is read again by the next start",
                self.drain
            )));
        }
        self.handle(Event::Tick)
    }

    fn arrived(&mut self, arrived: Option<Arrived>) -> Result<(), Failure> {
        let Some(Arrived { items, ends, took }) = arrived else {
            return Err(failure("the decode thread ended without a word; this is a bug"));
        };
        // An assignment is sent before its first records, but on another channel: it may have come after `select!`
        // looked there. Records of a partition that is not ours yet would be dropped, and never read again.
        while let Ok(control) = self.parts.log.control.try_recv() {
            self.control(Some(control))?;
        }
        if items.iter().any(|item| self.newest < Some(item.epoch)) {
            return Err(failure("records came before their assignment; this is a bug"));
        }
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

    fn infer(&mut self, batch: Arc<Batch<Decoded>>, rows: Range<usize>) -> Result<(), Failure> {
        let version = batch.version;
        let Some(served) = self.models.get(&version).map(Arc::clone) else {
            return Err(failure(&format!(
                "version {version} was cut but is not loaded; this is a bug"
            )));
        };
        if rows.len() == batch.items.len() {
            self.closed(&batch, &served);
        }
        let tokens = batch.items[rows.clone()].iter().map(|item| item.tokens).sum();
        let (number, asked) = (batch.number, rows.clone());
        self.in_model.push(InModel { batch: number, rows: asked, version, tokens, since: now() });
        self.parts.workers.submit(Job { batch, rows, served });
        Ok(())
    }

    /// Counts a batch that was just closed, and says so if it is the first of a version.
    fn closed(&mut self, batch: &Batch<Decoded>, served: &Served) {
        let bytes = batch.items.iter().map(|item| item.bytes).sum();
        let tokens = batch.items.iter().map(|item| item.tokens).sum();
        self.parts.metrics.batch_closed(batch.reason, batch.items.len(), bytes, tokens);
        self.parts.metrics.waited(batch.waited);
        if self.serving != batch.version {
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
        let mut outstanding = Outstanding::default();
        let mut finished = Vec::with_capacity(batches.len());
        for done in batches {
            let batch = done.batch;
            let Some(served) = self.models.get(&batch.version) else {
                return Err(failure(&format!("version {} is gone; this is a bug", batch.version)));
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
            failure(&format!("hand a transaction to lane {lane}: {error}; this is a bug"))
        })
    }

    fn stop(&mut self, stop: Stop) -> Result<(), Failure> {
        match stop {
            Stop::Model(message) => Err(failure(&message)),
            Stop::DeadLetters { dead, records } => {
                let message = format!(
                    "{dead} of the last {records} records are dead letters, above \
                     dead_letters.max_ratio: stopped without committing them. Look at the newest dead \
                     letters: is the model the right one for this topic? Then restart, or raise the limit"
                );
                tracing::error!("{message}");
                self.parts.health.set_stopped(Some(message.clone()));
                self.stopped = Some(Failure { message, exit: 65 });
                Ok(())
            }
        }
    }

    /// Gives the partitions back and lets the threads end, within the drain.
    async fn leave(&mut self, clean: bool) {
        self.parts.log.leave.cancel();
        self.parts.log.lanes.clear();
        let deadline = now() + if clean { self.drain } else { Duration::from_secs(2) };
        loop {
            let control = self.parts.log.control.recv();
            match tokio::time::timeout_at(deadline.into(), control).await {
                // Nothing of ours is outstanding: every revocation may go on at once.
                Ok(Some(Control::Revoked { done, .. })) => drop(done.try_send(())),
                Ok(Some(_)) => (),
                Ok(None) => break,
                Err(_elapsed) => {
                    tracing::warn!(
                        "the group was not left in time; the session will expire instead"
                    );
                    return;
                }
            }
        }
        for thread in self.parts.log.threads.drain(..) {
            if deadline <= now() && !thread.is_finished() {
                return;
            }
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
    }
}

impl Outstanding {
    fn count(&mut self, outcome: &Outcome<Vec<u8>>, timestamp: Option<i64>) {
        self.timestamps.extend(timestamp);
        *self.outcomes.entry(outcome.label()).or_default() += 1;
        if let Outcome::DeadLetter(fault) = outcome {
            *self.classes.entry(fault.class.name()).or_default() += 1;
        }
    }
}

/// Something that a new start may cure.
fn failure(message: &str) -> Failure {
    Failure { message: message.to_owned(), exit: 75 }
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

//! Drives the core: wait for something, tell the core, carry out what it says. One task owns all state.
//!
//! ```text
//!  feed.control ─┐                                   ┌─► workers.submit
//!   sink.done ───┤                                   ├─► sink.lanes
//!   answers ─────┤                                   ├─► open a partition's gate
//!   registry ────┼─► select ─► Pipeline::handle ─────┼─► ask the registry
//!   commands ────┤     ▲             │ deadline      ├─► release a revocation
//!   tasks ───────┤     └─────────────┘               └─► stop
//!   records ─────┘
//! ```
//!
//! | room         | job                                                                            |
//! |--------------|--------------------------------------------------------------------------------|
//! | `control`    | what the log says that is no record: assignments, revocations, ends            |
//! | `submit`     | rows go into the model and come back; suspects go by themselves                |
//! | `transact`   | finished batches go to their lane and come back                                |
//! | `models`     | the versions that are loaded, and which one serves                             |
//! | `command`    | what an operator wants: pause, resume, reload, leave                           |
//! | `deadlines`  | when to look although nothing happened, and what is late then                  |
//! | `leave`      | how it ends                                                                    |
//! | `flight`     | what is known of each batch that is under way; `outcomes` of its records       |
//! | `observer`   | who is told of it: metrics, status                                             |
//! | `sizing`, `lag`, `limits`, `tasks` | the learned size; how far behind; the core's limits; the tasks beside |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, OnStop};
use crate::decode::{Arrived, Current, Decoded};
use crate::failure::{Failure, temporary};
use crate::journal::Journal;
use crate::log::{Gate, Membership, Sink};
use crate::model::served::Served;
use crate::pipeline::{Effect, Event, Pipeline};
use crate::record::{Epoch, Partition, Written};
use crate::registry::watch::Heard;
use crate::status::{Board, Doing};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Traces;
use crate::workers::{Answer, Finish, Workers};

mod command;
mod control;
mod deadlines;
mod flight;
mod lag;
mod leave;
mod limits;
mod models;
mod observer;
mod outcomes;
mod sizing;
mod submit;
mod tasks;
mod transact;

pub use command::Command;
use deadlines::Slow;
use flight::Flights;
use lag::Lag;
pub use limits::limits;
use models::Models;
use observer::Observer;
use outcomes::Tally;
use sizing::Sizing;
use submit::Suspicion;
pub use tasks::Tasks;

/// What the engine is made of.
pub struct Parts {
    /// Which partitions the feed reads for us.
    pub membership: Membership,
    /// The feed's records, decoded. Bound 2; when full the decode threads wait, and behind them the feed.
    pub arrived: mpsc::Receiver<Arrived>,
    /// Where outcomes go.
    pub sink: Sink,
    /// The inference threads.
    pub workers: Workers,
    /// What they finished. Bound 16; when full the threads wait, and the engine never waits for them.
    pub answers: mpsc::Receiver<Answer>,
    /// What comes of their predictions.
    pub finish: Finish,
    /// Versions that passed the gate, and what the registry named when it was asked.
    pub heard: mpsc::Receiver<Heard>,
    /// Where the registry is asked: the number of the newest question. `None` where nothing is followed.
    pub ask: Option<watch::Sender<u64>>,
    /// What an operator wants: signals, and whoever runs the service in its own process. When full, who commands is told.
    pub commands: mpsc::Receiver<Command>,
    /// The version to begin with.
    pub serving: Arc<Served>,
    /// Where the decode threads look which version to prepare for.
    pub current: Current,
    /// Where it is written what is in flight.
    pub journal: Journal,
    /// Metric handles.
    pub metrics: Metrics,
    /// Where spans are told.
    pub traces: Traces,
    /// Where it is told how the service is.
    pub status: Board,
    /// The tasks beside the engine.
    pub tasks: Tasks,
    /// Cancelled by a signal, and by the engine where it is told to leave.
    pub stop: CancellationToken,
    /// Stop by itself when the group has committed what was there at the start.
    pub until_end: bool,
    /// Stop by then with what is left (`--until-end --deadline`).
    pub deadline: Option<Instant>,
}

/// The engine, running: the one task that changes anything.
///
/// ```text
///  loop {
///      event = select! { biased; … }         what the log, a thread, a task or an operator says, or the next deadline
///      pipeline.handle(event, now, effects)  the core decides; it knows no channel, clock or thread
///      carry out each effect                 sends that never wait: to the workers, a lane, a gate, the registry
///      ended? ─► leave
///  }
/// ```
///
/// **What it waits for, and in which order.** The `select` is biased, and the order is what must not wait. What the log
/// says of partitions comes first: a revocation holds up the whole group. Then what frees memory: transactions that were
/// answered, then batches. Then versions, commands, tasks that ended, and the stop. Then the timer: a batch that is due is
/// cut *before* anything more is read, so a busy topic cannot starve it. Records come last, and only while the core has
/// room: that is all there is of back-pressure, because behind this arm the decode threads stand still, and behind them
/// the feed, which goes on serving its group.
///
/// **Why one owner.** Whether a record may be committed depends on the assignment, the batch, the version and the
/// transaction at one moment. With one owner there is such a moment: each event is handled to its end before the next
/// one is looked at, so nothing is locked and no two things happen at once. Everything slow is elsewhere and comes back as
/// an event: threads decode, run the model and commit, tasks watch the registry and answer HTTP.
///
/// **What that costs.** Work of several steps is state here, and has to be found again when its answer comes: a batch in
/// `flights` from when it is closed until its lane has answered, a revocation in `tickets`, a closed partition in `gates`.
/// Nothing here may wait or compute for long: an effect that could is a bug. And whatever can hang outside has to have a
/// deadline that is known here (`deadlines`): a batch in the model, a transaction on its lane, a stop.
///
/// **How it ends.** A crash needs no code: the next start reads again from the committed offsets. A thread that dies closes
/// its channel, a task that ends is seen in `tasks`; both end the process by name. A stop finishes what was begun, and then
/// leaves the group (`leave`).
pub struct Engine {
    parts: Parts,
    pipeline: Pipeline<Decoded, Written>,
    /// Used again for each event.
    effects: Vec<Effect<Decoded, Written>>,
    models: Models,
    /// Batches that are under way.
    flights: Flights,
    next_job: u64,
    suspicion: Suspicion,
    observer: Observer,
    sizing: Sizing,
    lag: Lag,
    /// Gates of partitions that may not be read yet.
    gates: BTreeMap<(Partition, Epoch), Gate>,
    /// Revocations that wait for `Release`.
    tickets: BTreeMap<u64, std::sync::mpsc::SyncSender<()>>,
    next_ticket: u64,
    assigned_once: bool,
    /// Under `--until-end`: the group has committed all that was there at the start.
    finished: bool,
    /// Records that the group had not committed of a bounded run when it was looked at last.
    unfinished: Option<BTreeMap<Partition, i64>>,
    /// What a bounded run comes to that stops before its ends.
    stopped_by: &'static str,
    /// Where readers do not see yet what the group has committed.
    hidden: Option<String>,
    /// What is said of a batch that the model has for long.
    slow: Slow,
    /// Since when it is stopping.
    closing: Option<Instant>,
    /// Whether the group is to be left for good, whatever the configuration says.
    leave_for_good: bool,
    /// Why it does nothing any more, but stays.
    stopped: Option<Failure>,
    inference_limit: Duration,
    takeover_wait: Duration,
    on_stop: OnStop,
    drain: Duration,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("pipeline", &self.pipeline).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine that has not begun.
    pub fn new(config: &Config, parts: Parts) -> Self {
        let observer = Observer {
            metrics: parts.metrics.clone(),
            status: parts.status.clone(),
            topics: config.input.topics.clone(),
            tally: Tally::default(),
            traces: parts.traces.clone(),
            staged: None,
        };
        observer.begins(&parts.serving);
        let mut sizing = Sizing::new(&config.batch);
        sizing.serve(&parts.serving);
        Self {
            pipeline: Pipeline::new(limits(config), parts.serving.id.version),
            effects: Vec::new(),
            models: Models::new(Arc::clone(&parts.serving)),
            flights: Flights::default(),
            next_job: 0,
            suspicion: Suspicion::default(),
            observer,
            sizing,
            lag: Lag::new(parts.until_end, now()),
            gates: BTreeMap::new(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            assigned_once: false,
            finished: false,
            unfinished: None,
            stopped_by: "the job was stopped",
            hidden: None,
            slow: Slow::default(),
            closing: None,
            leave_for_good: false,
            stopped: None,
            inference_limit: config.limits.inference.0,
            takeover_wait: config.model.takeover_wait.0,
            on_stop: config.kafka.on_stop,
            drain: config.limits.drain.0,
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
        self.observer.tally.report(self.parts.until_end);
        self.leave(result.is_ok() || self.closing.is_some()).await;
        result
    }

    async fn work(&mut self) -> Result<(), Failure> {
        self.observer.status.change(|status| {
            (status.doing, status.opening) = (Doing::Running, None);
        });
        self.limit()?;
        loop {
            let wake = self.wake();
            let room = self.pipeline.has_room();
            let closing = self.closing.is_some();
            let reads = self.stopped.is_none();
            // A log that has closed has nothing more to say to a service that does nothing any more.
            let hears = reads || !self.parts.membership.control.is_closed();
            tokio::select! {
                biased;
                control = self.parts.membership.control.recv(), if hears => self.control(control)?,
                done = self.parts.sink.done.recv() => self.done(done)?,
                answer = self.parts.answers.recv() => self.answer(answer)?,
                Some(heard) = self.parts.heard.recv() => self.heard(heard)?,
                Some(command) = self.parts.commands.recv() => self.command(command)?,
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

    /// A task beside the engine has ended; at a stop they do.
    fn task_ended(&self, ended: Failure) -> Result<(), Failure> {
        if self.parts.stop.is_cancelled() { Ok(()) } else { Err(ended) }
    }

    fn arrived(&mut self, arrived: Option<Arrived>) -> Result<(), Failure> {
        let Some(Arrived { items, ends, decode, load: _load }) = arrived else {
            return Err(temporary("the decode threads ended without a word; this is a bug"));
        };
        if !items.is_empty() {
            let now = now();
            if let Some(decode) = decode {
                self.observer.metrics.decoded(decode.busy);
                self.flights.arrived(now, decode);
            }
            self.handle_at(Event::Arrived(items), now)?;
        }
        ends.into_iter().try_for_each(|end| self.handle(Event::End(end)))
    }

    /// Tells the core and carries out what it says.
    fn handle(&mut self, event: Event<Decoded, Written>) -> Result<(), Failure> {
        self.handle_at(event, now())
    }

    fn handle_at(&mut self, event: Event<Decoded, Written>, now: Instant) -> Result<(), Failure> {
        let mut effects = std::mem::take(&mut self.effects);
        self.pipeline.handle(event, now, &mut effects);
        for effect in effects.drain(..) {
            self.carry_out(effect)?;
        }
        self.effects = effects;
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect<Decoded, Written>) -> Result<(), Failure> {
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
                if self.models.retire(version) {
                    tracing::info!(%version, "version retired");
                }
                Ok(())
            }
            Effect::Stop(stop) => self.stop(stop),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one reader of the clock for the core")]
fn now() -> Instant {
    Instant::now()
}

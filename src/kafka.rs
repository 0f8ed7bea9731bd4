//! The log on Apache Kafka: a consumer group read by one thread, transactions written by the lanes.
//!
//! ```text
//!  cluster ─► consumer ─► poll thread ─► chunks, control ─► engine ─► lanes[n] ─► lane thread n ─► producer n ─► cluster
//!                              │                                                      │
//!                              └──────► ownership: partition → epoch ◄── asked ───────┘
//! ```
//!
//! * [`source`]: polls, hands records over, takes and gives up partitions. Never waits for a full channel.
//! * [`opening`]: finds out where newly assigned partitions begin ([`begin`]; [`manifests`] where offsets are lost).
//! * [`observe`]: looks at the cluster every few seconds: topic ids, partitions that nobody reads, the end of a job.
//! * [`group`]: what the client calls back, and what the group knows.
//! * [`coordinator`]: asks the group's coordinator, and finds another one where it is gone.
//! * [`shared`]: what the threads share: the topics' limits, the partitions that are ours, what was committed.
//! * [`lane`]: one transaction after the other: check, begin, produce, drain, check, offsets, commit.
//! * [`producer`]: a transactional producer whose calls have a deadline; one that is stuck is left behind.
//! * [`class`]: what an error means. [`settings`], with [`owned`](crate::config::owned): the clients' properties.
//! * [`journal`]: what the clients say. [`cause`]: what that means where brokers do not answer. [`identity`]: who they are, where brokers want a token.
//! * [`away`]: how long no broker has answered, and when that is said.
//! * [`native`]: what rdkafka does not wrap.
//!
//! Exactly once rests on the brokers: offsets are committed in the transaction of the predictions, under the
//! group's current generation, by a producer that fences its predecessor. What this module adds is that it
//! never goes on after an answer it does not understand, and that it knows its own topics, groups and versions again.

#![expect(
    clippy::disallowed_methods,
    reason = "deadlines towards the cluster are wall time; these threads exist to wait"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientConfig;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::failure::{Exit, Failure};
use crate::log::message::Naming;
use crate::log::{Control, Feed, Leave, Log, Membership, Opening, Sink};

use shared::Shared;

mod away;
pub mod begin;
pub mod cause;
pub mod class;
mod coordinator;
pub mod group;
mod hidden;
pub mod identity;
pub mod journal;
pub mod lane;
mod manifests;
pub mod native;
mod observe;
mod opening;
pub mod producer;
pub mod settings;
mod shared;
pub mod source;
mod twin;

pub use journal::Journal;

/// Opens the log that `config` describes: looks at the topics, makes each lane's producer (which ends what a
/// predecessor left open), then joins the group.
///
/// Blocks for as long as that takes: up to a minute when a coordinator is away.
///
/// # Errors
///
/// With exit code 78 where the configuration or the cluster's permissions are wrong, with 75 where the
/// cluster does not answer.
pub fn open(config: &Config, naming: Naming, opening: &Opening) -> Result<Log, Failure> {
    let instance = settings::instance(config)?;
    let journal = Journal::new(config);
    let (control_tx, control) = mpsc::channel(8);
    let shared = Arc::new(Shared::open(config, naming, instance, journal, opening.until_end)?);
    let last = shared.last(opening.serving.as_ref());

    let (chunks_tx, chunks) = mpsc::channel(4);
    let lane_count = usize::from(config.kafka.lanes.max(1));
    let (done_tx, done) = mpsc::channel(2 * lane_count);
    let mut ready = Vec::with_capacity(lane_count);
    for number in 0..lane_count {
        ready.push(lane::Lane::new(number, Arc::clone(&shared))?);
    }
    let leave = Leave::default();
    let guard = Guard(control_tx.clone());
    let (orders_tx, orders) = sync_channel(4);
    let source = source::Source::open(
        Arc::clone(&shared),
        source::Ends {
            control: control_tx.clone(),
            chunks: chunks_tx,
            leave: leave.clone(),
            orders,
        },
        &guard,
    )?;
    let (judge, nudges) = sync_channel(1);
    let observer =
        observe::Observer::new(Arc::clone(&shared), control_tx.clone(), orders_tx, leave.clone());
    let mut lanes = Vec::with_capacity(lane_count);
    let mut threads = Vec::with_capacity(lane_count);
    for (number, lane) in ready.into_iter().enumerate() {
        let (transactions, queue) = mpsc::channel(1);
        let (done, control) = (done_tx.clone(), control_tx.clone());
        threads.push(
            guard.spawn(&format!("lane-{number}"), move || lane.run(queue, &done, &control))?,
        );
        lanes.push(transactions);
    }
    let poll = guard.spawn("poll", move || source.run())?;
    // Not joined: it may be waiting for a cluster that does not answer.
    drop(guard.spawn("observe", move || observer.run(&nudges))?);
    let judge = opening.until_end.then_some(judge);
    let membership = Membership { control, leave, judge, threads: vec![poll] };
    let sink = Sink { lanes, done, patience: Some(lane::PATIENCE), last, threads };
    Ok(Log { feed: Feed { chunks, membership }, sink })
}

/// What a client says again and again: after so long first, then after twice as long, up to [`RARELY`].
const SELDOM: Duration = Duration::from_secs(10);
const RARELY: Duration = Duration::from_secs(600);

/// Starts the threads of a log: one that panics says so, and does not leave the service waiting for it.
struct Guard(mpsc::Sender<Control>);

impl Guard {
    fn spawn(
        &self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>, Failure> {
        let (control, thread) = (self.0.clone(), name.to_owned());
        spawn(name, move || {
            if catch_unwind(AssertUnwindSafe(body)).is_err() {
                let message = format!("the thread {thread} panicked; please report this as a bug");
                let failed = Control::Failed(Failure { message, exit: Exit::Temporary });
                // Nobody listens any more only if the service is ending anyhow.
                control.blocking_send(failed).unwrap_or_default();
            }
        })
    }
}

fn servers(settings: &ClientConfig) -> &str {
    let servers =
        settings.get("bootstrap.servers").or_else(|| settings.get("metadata.broker.list"));
    servers.unwrap_or("no bootstrap.servers in kafka.common")
}

/// Drops a client that is of no use any more, on a thread of its own: that may take its time.
fn drop_aside(client: impl Send + 'static) {
    if let Err(failure) = spawn("close", move || drop(client)) {
        tracing::debug!("{failure}");
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(body).map_err(|error| Failure {
        message: format!("start thread {name}: {error}; allow the process more threads"),
        exit: Exit::Temporary,
    })
}

//! Start, run, stop.
//!
//! | order | start                                  | stop                                     |
//! |------:|----------------------------------------|------------------------------------------|
//! |     1 | HTTP: alive, not ready; admin          | signal: not ready, nothing more taken in |
//! |     2 | resolve, load, check and warm the model| finish and commit what was read          |
//! |     3 | open the log: claim the transactional  | leave the group, join the log's threads  |
//! |       | ids, then join the group               |                                          |
//! |     4 | engine; ready when partitions are ours | HTTP                                     |
//!
//! The registry is watched from the fourth step on. A thread that dies closes its channel, a task that ends is seen where
//! the engine waits: the process then exits non-zero. The next start claims the transactional ids, which aborts what was
//! open.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch as cell};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Place, Uri, Workers as WorkerCount};
use crate::decode::{self, Current, Decoder};
use crate::engine::{Command, Engine, Parts, Tasks};
use crate::failure::{Exit, Failure, chain, temporary};
use crate::file;
use crate::format::{Codec, Writer};
use crate::http;
use crate::http::about::About;
use crate::journal::Journal;
use crate::log::{Feed, Log, Opening};
use crate::model::options::LoadOptions;
use crate::model::served::Served;
use crate::model::unfit;
use crate::registry::{self, Registry, watch};
use crate::status::Board;
use crate::telemetry::Telemetry;
use crate::telemetry::trace::Traces;
use crate::workers::{Finish, Workers};

mod admin;
mod start;

use start::{Start, Started};

/// How a run differs from another one of the same configuration, and how it is reached while it runs.
#[derive(Debug)]
pub struct Options {
    /// Stop when the group has committed what was there at the start.
    pub until_end: bool,
    /// Stop by then with what is left.
    pub deadline: Option<Instant>,
    /// Cancelled from outside: stop cleanly.
    pub stop: CancellationToken,
    /// How it is: for whoever runs it to read.
    pub status: Board,
    /// Both ends of its commands: for whoever runs it to keep the first of.
    pub commands: (mpsc::Sender<Command>, mpsc::Receiver<Command>),
    /// A model that is there already: it serves, whatever `model.uri` says, and nothing is followed.
    pub serve: Option<Arc<Served>>,
    /// The program that tries a version before it is loaded here: this one, unless it is a test.
    pub trial: Option<PathBuf>,
    /// Where spans are told, by whoever has the last ones sent when the run has ended. `None`: as the environment and the
    /// configuration say, and the run ends once they are sent.
    pub traces: Option<Traces>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            until_end: false,
            deadline: None,
            stop: CancellationToken::new(),
            status: Board::default(),
            commands: mpsc::channel(Command::WAITING),
            serve: None,
            trial: None,
            traces: None,
        }
    }
}

/// The runtime: I/O only, so two threads do.
///
/// # Errors
///
/// When the system gives no thread.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("io")
        .enable_all()
        .build()
        .map_err(|error| temporary(&format!("start the I/O threads: {error}")))
}

/// How many inference threads `model.workers` means on this machine: by itself one a core, on GPUs one a device.
pub fn workers(config: &Config) -> usize {
    match (config.model.workers, &config.model.device) {
        (WorkerCount::Count(count), _) => usize::from(count.max(1)),
        (WorkerCount::Auto, place @ (Place::Cuda(_) | Place::Metal(_))) => place.count(),
        (WorkerCount::Auto, Place::Cpu) => {
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
        }
    }
}

/// Loads the version that the configuration names now.
///
/// # Errors
///
/// What is wrong with the registry or the artifact, as a configuration failure.
pub fn load_model(config: &Config) -> Result<Served, Failure> {
    let uri = &config.model.uri;
    let registry = Registry::new(config.registry.root.clone());
    let served = registry.load(uri, &LoadOptions::of(config)).map_err(|error| {
        // A directory that was named is not named again.
        let why = match (&error, uri) {
            (registry::Error::Artifact { source, .. }, Uri::Directory(_)) => chain(source),
            _ => chain(&error),
        };
        Failure { message: format!("load {uri}: {why}"), exit: Exit::Config }
    })?;
    let fits = unfit::check(&config.input, &*served.model);
    fits.map_err(|message| Failure { message, exit: Exit::Config })?;
    Ok(served)
}

/// Runs the service on the log that `open` gives, until a signal, `options.stop`, or the end. A stop that comes while
/// the model is loaded or the log is opened ends at once: nothing is held yet.
///
/// # Errors
///
/// A [`Failure`] with the exit code of the process.
pub async fn run(
    config: Config,
    telemetry: Telemetry,
    mut options: Options,
    open: impl FnOnce(&Config, &Opening) -> Result<Log, Failure> + Send + 'static,
) -> Result<(), Failure> {
    telemetry.metrics.watch(options.status.clone());
    if let Some(traces) = options.traces.take() {
        return serve(config, telemetry, options, &traces, open).await;
    }
    let traces = Traces::start(&config, &telemetry.metrics)?;
    let ended = serve(config, telemetry, options, &traces, open).await;
    traces.flush().await;
    ended
}

/// What a start makes of the configuration and the files that it names before it asks anybody, opens a port or a log, or
/// loads a model. `check` begins with the same, so that it refuses what a start would.
///
/// # Errors
///
/// [`Exit::Config`]: what is wrong, with its key.
pub fn prepare(config: &Config) -> Result<Arc<Codec>, Failure> {
    admin::check(config)?;
    Codec::new(config).map(Arc::new)
}

async fn serve(
    config: Config,
    telemetry: Telemetry,
    options: Options,
    traces: &Traces,
    open: impl FnOnce(&Config, &Opening) -> Result<Log, Failure> + Send + 'static,
) -> Result<(), Failure> {
    let journal = journal(&config)?;
    let codec = prepare(&config).inspect_err(|_| journal.close())?;
    options.status.change(|status| status.last_life = journal.last_life());
    let stop = options.stop.child_token();
    let mut tasks = Tasks::default();
    let listener = http::bind("http.listen", config.http.listen).await?;
    let http_stop = CancellationToken::new();
    let (about, status) = (About::new(&config), options.status.clone());
    let http = http::serve(listener, about, status, telemetry.clone(), http_stop.clone());
    tasks.spawn("http", http);
    if let Some(admin) =
        admin::open(&config, &telemetry, (&options.commands.0, &options.status), &stop).await?
    {
        tasks.spawn("admin", admin.serve(http_stop.clone()));
    }
    tasks.spawn("upkeep", upkeep(telemetry.clone()));
    let signals = signals(stop.clone(), options.commands.0.clone(), journal.clone());
    tasks.spawn("signals", signals);
    let start = Start {
        config: &config,
        options: &options,
        stop: &stop,
        journal: &journal,
        metrics: &telemetry.metrics,
        traces,
    };
    let started = tokio::select! {
        started = start.run(open) => started,
        ended = tasks.next() => Err(ended),
    };
    let started = started.inspect_err(|_| journal.close())?;
    let Some(started) = started else {
        tracing::info!("stopped before anything was read");
        journal.close();
        return if options.until_end {
            Err(temporary(
                "reach the ends that were there at the start: the job was stopped before it read anything",
            ))
        } else {
            Ok(())
        };
    };
    let beside = (tasks, &stop, &journal, traces);
    let parts = assemble(&config, &telemetry, options, (started, codec), beside)?;
    let ended = Engine::new(&config, parts).run().await;
    journal.close();
    http_stop.cancel();
    stop.cancel();
    ended
}

/// Answers all that a log gives with one version, and ends where it ends: the same engine without what a service has
/// around it. `status` is told how it goes on. Nothing is followed, no port is opened, no signal is caught, and nothing is remembered.
///
/// # Errors
///
/// A [`Failure`] with the exit code of the process.
pub async fn once(
    config: &Config,
    telemetry: &Telemetry,
    served: Arc<Served>,
    log: Log,
    status: Board,
) -> Result<(), Failure> {
    let options = Options { until_end: true, status, ..Options::default() };
    let mut tasks = Tasks::default();
    tasks.spawn("upkeep", upkeep(telemetry.clone()));
    // A directory has nothing to follow.
    let (registry, uri) = (Registry::new(None), Uri::Directory(PathBuf::new()));
    let started = Started { registry, uri, served, log };
    let stop = options.stop.clone();
    let beside = (tasks, &stop, &Journal::default(), &Traces::default());
    let codec = Arc::new(Codec::new(config)?);
    let parts = assemble(config, telemetry, options, (started, codec), beside)?;
    Engine::new(config, parts).run().await
}

/// The journal of this replica: in `state.dir`, for an embedded log beside its file.
fn journal(config: &Config) -> Result<Journal, Failure> {
    let log = config.embedded();
    let beside = log.map(|log| file::beside(log, ".state"));
    let Some(dir) = config.state.dir.as_ref().or(beside.as_ref()) else {
        return Ok(Journal::default());
    };
    if log.is_some_and(|log| !log.exists()) {
        Journal::forget(dir);
    }
    let in_use = match log {
        Some(log) if config.state.dir.is_none() => format!(
            "open {}: another process has this log; it is for one process, Kafka is for more",
            log.display()
        ),
        _ => format!(
            "use state.dir {}: another process uses it; give each replica its own",
            dir.display()
        ),
    };
    Journal::open(dir, &config.input.topics, &in_use)
}

fn assemble(
    config: &Config,
    telemetry: &Telemetry,
    options: Options,
    (started, codec): (Started, Arc<Codec>),
    (mut tasks, stop, journal, traces): (Tasks, &CancellationToken, &Journal, &Traces),
) -> Result<Parts, Failure> {
    let no_thread = |error: std::io::Error| temporary(&format!("start a thread: {error}"));
    let Started { registry, uri, served, log: Log { feed: Feed { chunks, membership }, sink } } =
        started;
    let writer = Arc::new(Writer::new(config, Arc::clone(&codec)));
    let task = served.model.about().task;
    tokio::task::block_in_place(|| writer.ready(task))?;
    let (heard_in, heard) = mpsc::channel(1);
    let (ask, questions) = cell::channel(0);
    let follows = matches!(uri, Uri::Alias { .. });
    tasks.spawn(
        "watch",
        watch::run(watch::Watch {
            registry,
            uri,
            options: LoadOptions::of(config),
            input: config.input.clone(),
            writer: Arc::clone(&writer),
            journal: journal.clone(),
            allow: config.model.allow_change.clone(),
            trial: options.trial.clone().filter(|_| config.model.device == Place::Cpu),
            poll: config.model.poll.0,
            questions,
            serving: served.id.clone(),
            signature: Arc::clone(&served.signature),
            heard: heard_in,
            metrics: telemetry.metrics.clone(),
            traces: traces.clone(),
            status: options.status.clone(),
            stop: stop.clone(),
        }),
    );
    let (answers_in, answers) = mpsc::channel(16);
    let decoder =
        Decoder::new(codec).counting(telemetry.metrics.clone()).telling(options.status.clone());
    let workers =
        Workers::start(workers(config), decoder.clone(), answers_in).map_err(no_thread)?;
    let current = Current::new(Arc::clone(&served));
    let (arrived_in, arrived) = mpsc::channel(2);
    decode::start(decode::threads(), &decoder, &current, journal, chunks, arrived_in)
        .map_err(no_thread)?;
    Ok(Parts {
        membership,
        arrived,
        sink,
        workers,
        answers,
        finish: Finish::write(writer),
        heard,
        ask: follows.then_some(ask),
        commands: options.commands.1,
        serving: served,
        current,
        journal: journal.clone(),
        metrics: telemetry.metrics.clone(),
        traces: traces.clone(),
        status: options.status,
        tasks,
        stop: stop.clone(),
        until_end: options.until_end,
        deadline: options.deadline,
    })
}

/// Folds what histograms collected into their buckets, so that memory stays flat when nobody scrapes.
async fn upkeep(telemetry: Telemetry) {
    loop {
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        telemetry.prometheus.run_upkeep();
    }
}

/// Kubernetes sends SIGTERM, a terminal SIGINT: a stop, and the second one does not wait. SIGUSR1 also leaves the group
/// for good. SIGHUP has the registry looked at; from a terminal that is closed it ends the process, as it always does.
async fn signals(stop: CancellationToken, commands: mpsc::Sender<Command>, journal: Journal) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut leave)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::user_defined1()),
    ) else {
        tracing::error!("listen for signals: the system refuses");
        return;
    };
    let mut hangup =
        (!std::io::stderr().is_terminal()).then(|| signal(SignalKind::hangup()).ok()).flatten();
    let mut reload = async || match &mut hangup {
        Some(hangup) => hangup.recv().await,
        None => std::future::pending().await,
    };
    let command = |command| {
        if commands.try_send(command).is_err() {
            tracing::warn!(?command, "too many commands wait: this one is not carried out");
        }
    };
    // A hook before the stop asks to leave, and SIGTERM follows it: that is still the first one.
    let mut told = false;
    loop {
        let asks_to_leave = tokio::select! {
            _ = terminate.recv() => false,
            _ = interrupt.recv() => false,
            _ = leave.recv() => true,
            _ = reload() => {
                command(Command::Reload);
                continue;
            }
        };
        if asks_to_leave {
            // Before the stop, so that the engine knows it when it leaves.
            command(Command::Leave);
        } else if told {
            tracing::warn!("second signal: stopping at once; what was not committed is read again");
            journal.close();
            exit_now();
        } else {
            told = true;
        }
        stop.cancel();
    }
}

#[expect(clippy::exit, reason = "the second signal asks for exactly this; a crash is safe")]
fn exit_now() -> ! {
    std::process::exit(Exit::Interrupted.code().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_by_device() {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        for (device, asked, expect) in [
            ("cpu", WorkerCount::Auto, cores),
            ("cuda:0", WorkerCount::Auto, 1),
            ("cuda:0,cuda:2", WorkerCount::Auto, 2),
            ("metal:0", WorkerCount::Auto, 1),
            ("cuda:0,cuda:2", WorkerCount::Count(6), 6),
            ("cpu", WorkerCount::Count(0), 1),
        ] {
            let mut config = Config::default();
            (config.model.device, config.model.workers) = (device.parse().unwrap(), asked);
            assert_eq!(workers(&config), expect, "{device} {asked:?}");
        }
    }
}

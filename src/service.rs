//! Start, run, stop.
//!
//! | order | start                                  | stop                                     |
//! |------:|----------------------------------------|------------------------------------------|
//! |     1 | HTTP: alive, not ready                 | signal: not ready, nothing more taken in |
//! |     2 | resolve, load, check and warm the model| finish and commit what was read          |
//! |     3 | open the log: claim the transactional  | leave the group, join the log's threads  |
//! |       | ids, then join the group               |                                          |
//! |     4 | engine; ready when partitions are ours | HTTP                                     |
//! |     5 | watch the registry                     |                                          |
//!
//! A thread that dies closes its channel; the engine sees it and the process exits non-zero. The next start
//! claims the transactional ids, which aborts what was open.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Workers as WorkerCount};
use crate::decode::{self, Current, Decoder};
use crate::engine::{Engine, Parts};
use crate::http::{self, Health};
use crate::log::{Failure, Log};
use crate::model::Served;
use crate::model::artifact::LoadOptions;
use crate::model::device::Place;
use crate::model::worker::Workers;
use crate::registry::{Registry, Uri, watch};
use crate::telemetry::Telemetry;

/// How a run differs from another one of the same configuration.
#[derive(Debug, Clone)]
pub struct Options {
    /// Stop at the ends seen at the start.
    pub until_end: bool,
    /// Cancelled from outside: stop cleanly.
    pub stop: CancellationToken,
    /// What the probes say.
    pub health: Arc<Health>,
    /// Wakes the registry watcher before its time.
    pub wake: Arc<Notify>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            until_end: false,
            stop: CancellationToken::new(),
            health: Arc::new(Health::default()),
            wake: Arc::new(Notify::new()),
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
    match (config.model.workers, config.model.device.parse()) {
        (WorkerCount::Count(count), _) => usize::from(count.max(1)),
        (WorkerCount::Auto, Ok(place @ (Place::Cuda(_) | Place::Metal(_)))) => place.count(),
        (WorkerCount::Auto, Ok(Place::Cpu) | Err(_)) => {
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
        }
    }
}

/// What loading a version of this configuration needs.
pub fn load_options(config: &Config) -> LoadOptions {
    LoadOptions {
        field: config.input.field.clone(),
        precision: config.model.precision,
        on_long: config.model.on_long,
        max_length: config.model.max_length,
        aggregation: config.model.aggregation,
        device: config.model.device.clone(),
        determinism: config.model.determinism,
        cache: config.model.cache.0,
        ..LoadOptions::default()
    }
}

/// Loads the version that the configuration names now.
///
/// # Errors
///
/// What is wrong with the URI, the registry or the artifact, as a configuration failure.
pub fn load_model(config: &Config) -> Result<(Registry, Uri, Served), Failure> {
    let configuration = |message: String| Failure { message, exit: 78 };
    let uri: Uri = config
        .model
        .uri
        .parse()
        .map_err(|error| configuration(format!("read model.uri: {}", chain(&error))))?;
    let registry = Registry::new(config.registry.root.clone());
    let served = registry
        .load(&uri, &load_options(config))
        .map_err(|error| configuration(format!("load {}: {}", config.model.uri, chain(&error))))?;
    Ok((registry, uri, served))
}

/// Runs the service on the log that `open` gives, until a signal, `options.stop`, or the end.
///
/// # Errors
///
/// A [`Failure`] with the exit code of the process.
pub async fn run(
    config: Config,
    telemetry: Telemetry,
    options: Options,
    open: impl FnOnce(&Config) -> Result<Log, Failure>,
) -> Result<(), Failure> {
    let stop = options.stop.child_token();
    let mut tasks = JoinSet::new();
    let listener = http::bind(config.http.listen).await?;
    let http_stop = CancellationToken::new();
    let health = Arc::clone(&options.health);
    tasks.spawn(http::serve(listener, health, telemetry.clone(), http_stop.clone()));
    tasks.spawn(upkeep(telemetry.clone()));
    tasks.spawn(stop_on_signal(stop.clone()));

    let (registry, uri, served) = tokio::task::block_in_place(|| load_model(&config))?;
    tracing::info!(model = %served.id, digest = %served.id.digest, "model loaded");
    let (staged_in, staged) = mpsc::channel(1);
    tasks.spawn(watch::run(watch::Watch {
        registry,
        uri,
        options: load_options(&config),
        poll: config.model.poll.0,
        wake: Arc::clone(&options.wake),
        serving: served.id.clone(),
        staged: staged_in,
        metrics: telemetry.metrics.clone(),
        health: Arc::clone(&options.health),
        stop: stop.clone(),
    }));
    let parts = assemble(&config, &telemetry, &options, Arc::new(served), staged, &stop, open)?;
    let ended = Engine::new(&config, parts).run().await;
    http_stop.cancel();
    stop.cancel();
    tasks.shutdown().await;
    ended
}

fn assemble(
    config: &Config,
    telemetry: &Telemetry,
    options: &Options,
    serving: Arc<Served>,
    staged: mpsc::Receiver<Arc<Served>>,
    stop: &CancellationToken,
    open: impl FnOnce(&Config) -> Result<Log, Failure>,
) -> Result<Parts, Failure> {
    let no_thread = |error: std::io::Error| temporary(&format!("start a thread: {error}"));
    let (answers_in, answers) = mpsc::channel(16);
    let decoder = Decoder::new(config.input.clone(), config.output.include.clone());
    let (count, output) = (workers(config), config.output.clone());
    let workers = Workers::start(count, decoder.clone(), output, answers_in).map_err(no_thread)?;
    let mut log = tokio::task::block_in_place(|| open(config))?;
    let (_closed, empty) = mpsc::channel(1);
    let chunks = std::mem::replace(&mut log.chunks, empty);
    let current = Current::new(Arc::clone(&serving));
    let (arrived_in, arrived) = mpsc::channel(2);
    decode::start(decoder, current.clone(), chunks, arrived_in).map_err(no_thread)?;
    Ok(Parts {
        log,
        arrived,
        workers,
        answers,
        staged,
        serving,
        current,
        metrics: telemetry.metrics.clone(),
        health: Arc::clone(&options.health),
        stop: stop.clone(),
        until_end: options.until_end,
    })
}

/// Folds what histograms collected into their buckets, so that memory stays flat when nobody scrapes.
async fn upkeep(telemetry: Telemetry) {
    loop {
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        telemetry.prometheus.run_upkeep();
    }
}

/// Kubernetes sends SIGTERM, a terminal SIGINT. The second signal does not wait.
async fn stop_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("listen for signals: the system refuses; stop this process with SIGKILL");
        return;
    };
    for first in [true, false] {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
        if first {
            stop.cancel();
        } else {
            tracing::warn!("second signal: stopping at once; what was not committed is read again");
            exit_now();
        }
    }
}

#[expect(clippy::exit, reason = "the second signal asks for exactly this; a crash is safe")]
fn exit_now() -> ! {
    std::process::exit(130)
}

fn temporary(message: &str) -> Failure {
    Failure { message: message.to_owned(), exit: 75 }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
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
            (config.model.device, config.model.workers) = (device.to_owned(), asked);
            assert_eq!(workers(&config), expect, "{device} {asked:?}");
        }
    }
}

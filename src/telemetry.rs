//! Starts the structured log and the metrics.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use metrics_exporter_prometheus::PrometheusHandle;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, reload};

use crate::config::{LogFormat, Logging};
use crate::failure::{Exit, Failure};

mod lines;
pub mod metrics;
pub mod otlp;
pub mod stage;
pub mod trace;

use lines::Lines;
use metrics::Metrics;
use otlp::logs::Pushed;

/// What the rest of the process needs of it.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// The handles that code counts with.
    pub metrics: Metrics,
    /// Renders `/metrics`.
    pub prometheus: PrometheusHandle,
}

type Change = dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync;

/// What changes the filter of this process's log.
static LOG: OnceLock<Box<Change>> = OnceLock::new();

/// Logs what `text` says from now on: as in `RUST_LOG`.
///
/// # Errors
///
/// What is wrong with it, and what to write.
pub fn filter(text: &str) -> Result<(), String> {
    let filter = parse(text)?;
    match LOG.get() {
        Some(change) => change(filter),
        None => Err("this process has no log of its own to change".to_owned()),
    }
}

/// What always passes: who did what to this service.
const AUDIT: &str = "tidemill::service::admin=info";

fn parse(text: &str) -> Result<EnvFilter, String> {
    // The library takes any word for a module's name.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| levels.iter().any(|level| word.trim().eq_ignore_ascii_case(level));
    let is_directive = |part: &str| is_level(part.rsplit('=').next().unwrap_or_default());
    if let Some(part) = text.split(',').find(|part| !is_directive(part)) {
        return Err(format!("{part:?} names no level; write info or tidemill=debug"));
    }
    EnvFilter::try_new(format!("{text},{AUDIT}"))
        .map_err(|error| format!("{error}; write info or tidemill=debug"))
}

impl Telemetry {
    /// Everything there is to scrape, in Prometheus' text format.
    pub fn render(&self) -> String {
        self.metrics.read();
        self.prometheus.run_upkeep();
        self.prometheus.render() + &self.metrics.render_own()
    }

    /// Installs the log and the recorder for the whole process. Once a process.
    ///
    /// # Errors
    ///
    /// A filter that cannot be parsed, with its text.
    pub fn start(logging: &Logging) -> Result<Self, Failure> {
        let configuration = |message: String| Failure { message, exit: Exit::Config };
        let filter = parse(&logging.filter).map_err(|error| {
            let filter = &logging.filter;
            configuration(format!("read logging.filter {filter:?}: {error}"))
        })?;
        let coloured = std::io::stderr().is_terminal();
        // An error of the log must not be said on stderr, which is where it could not be said.
        let builder = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false);
        let builder = builder.with_writer(Lines::new(coloured)).with_ansi(coloured);
        let failed = |error: reload::Error| format!("change the filter: {error}");
        let (installed, change): (_, Box<Change>) = match logging.format {
            LogFormat::Json => {
                let builder = builder.json().flatten_event(true).with_filter_reloading();
                let handle = builder.reload_handle();
                let change = move |filter| handle.reload(filter).map_err(failed);
                (builder.finish().with(Pushed).try_init(), Box::new(change))
            }
            LogFormat::Text => {
                let builder = builder.with_filter_reloading();
                let handle = builder.reload_handle();
                let change = move |filter| handle.reload(filter).map_err(failed);
                (builder.finish().with(Pushed).try_init(), Box::new(change))
            }
        };
        // In tests several services share a process and its log: the first one's.
        if installed.is_ok() {
            LOG.set(change).unwrap_or_default();
        }
        Self::silent()
    }

    /// Counts, but logs nothing: for a command that says itself what is to be said.
    ///
    /// # Errors
    ///
    /// A metric that cannot be declared.
    pub fn silent() -> Result<Self, Failure> {
        let recorder = metrics::recorder().map_err(|error| Failure {
            message: format!("declare the metrics: {error}; this is a bug"),
            exit: Exit::Config,
        })?;
        let prometheus = recorder.handle();
        let metrics = metrics::register(recorder);
        Ok(Self { metrics, prometheus })
    }
}

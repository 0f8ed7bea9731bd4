//! What there is before the engine begins: a version that serves, and an open log.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Options;
use crate::config::{Config, Place, Uri};
use crate::failure::{Exit, Failure, chain, temporary};
use crate::journal::Journal;
use crate::log::{Log, Opening};
use crate::memory;
use crate::model::gate;
use crate::model::options::LoadOptions;
use crate::model::served::Served;
use crate::model::unfit;
use crate::record::Version;
use crate::registry::trial::{self, Failed};
use crate::registry::{Registry, Resolved, change};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::stage::Stage;
use crate::telemetry::trace::{Load, Traces};

/// What the engine begins with.
pub(super) struct Started {
    pub(super) registry: Registry,
    pub(super) uri: Uri,
    pub(super) served: Arc<Served>,
    pub(super) log: Log,
}

/// What a start works with.
#[derive(Clone, Copy)]
pub(super) struct Start<'a> {
    pub(super) config: &'a Config,
    pub(super) options: &'a Options,
    pub(super) stop: &'a CancellationToken,
    pub(super) journal: &'a Journal,
    pub(super) metrics: &'a Metrics,
    pub(super) traces: &'a Traces,
}

impl Start<'_> {
    /// Loads the first version and opens the log; `None` where a stop came first.
    pub(super) async fn run(
        self,
        open: impl FnOnce(&Config, &Opening) -> Result<Log, Failure> + Send + 'static,
    ) -> Result<Option<Started>, Failure> {
        let Self { config, options, stop, .. } = self;
        let Some((registry, uri, served)) = self.first_version().await? else {
            return Ok(None);
        };
        let digest = &served.id.digest;
        tracing::info!(model = %served.id, %digest, gate = %served.report, "model loaded");
        let serving = Some(served.id.clone());
        options.status.change(|status| {
            (status.serving, status.opening) = (serving.clone(), Some(now()));
        });
        // Until it answers, it is away since now.
        self.metrics.reachable(false);
        let opening = Opening { until_end: options.until_end, serving, stop: stop.clone() };
        let own = config.clone();
        let opened = tokio::task::spawn_blocking(move || open(&own, &opening));
        let Some(log) = self.unless_stopped("open the log", opened).await? else {
            return Ok(None);
        };
        if let Some((model, before)) =
            log.sink.last.as_ref().filter(|(model, _)| *model != served.id)
        {
            change::check(before, &served.signature, &config.model.allow_change).map_err(
                |why| {
                    let message = format!("begin with {} after {model}: {why}", served.id);
                    Failure { message, exit: Exit::Config }
                },
            )?;
        }
        Ok(Some(Started { registry, uri, served, log }))
    }

    /// Loads the version that the configuration names now. Where that one cannot be loaded and the alias `previous` is
    /// there, that version serves instead, and the watcher goes on trying.
    async fn first_version(self) -> Result<Option<(Registry, Uri, Arc<Served>)>, Failure> {
        let configuration = |message: String| Failure { message, exit: Exit::Config };
        let uri = self.config.model.uri.clone();
        let registry = Registry::new(self.config.registry.root.clone());
        if let Some(served) = &self.options.serve {
            return Ok(Some((registry, Uri::default(), Arc::clone(served))));
        }
        let mut wanted = uri.clone();
        loop {
            let (own, asked) = (registry.clone(), wanted.clone());
            let look = tokio::task::spawn_blocking(move || Ok(own.resolve(&asked)));
            let Some(resolved) = self.unless_stopped("look at the registry", look).await? else {
                return Ok(None);
            };
            let refused = |why: String| configuration(format!("load {wanted}: {why}"));
            let resolved = resolved.map_err(|error| refused(chain(&error)))?;
            let version = resolved.version;
            let previous = previous(&registry, &wanted, version);
            let why = match self.load(resolved, previous.is_some()).await? {
                Ok(served) => return Ok(Some((registry, uri, Arc::new(served)))),
                Err(Failed::Stopped) => return Ok(None),
                Err(Failed::Refused(why)) => why,
            };
            tracing::error!(%version, why, "the version is refused");
            wanted = previous.ok_or_else(|| refused(why))?;
            tracing::error!(model = %wanted, "the version before it serves instead; it is tried again");
        }
    }

    /// Loads one version through the gate. What ended this process before is not loaded where another one can serve.
    async fn load(
        self,
        resolved: Resolved,
        replaceable: bool,
    ) -> Result<Result<Served, Failed>, Failure> {
        let Resolved { name, version, dir } = resolved;
        // A plain directory has no name in a registry, and nothing to serve instead.
        let known = name.clone().unwrap_or_default();
        if let Some(why) = self.journal.refuses(&known, version, false) {
            if replaceable {
                return Ok(Err(Failed::Refused(why)));
            }
            tracing::error!(model = known, %version, why, "there is no previous version to serve instead: trying it again");
        }
        let options = LoadOptions { name, version, ..LoadOptions::of(self.config) };
        let started = now();
        if let Err(failed) = self.try_it(&dir, &options).await {
            return Ok(Err(failed));
        }
        self.journal.loading(&known, version);
        let loading = tokio::task::spawn_blocking(move || Ok(gate::load(&dir, &options)));
        let loaded = self.unless_stopped("load the model", loading).await?;
        self.journal.loaded(&known, version);
        let Some(loaded) = loaded else { return Ok(Err(Failed::Stopped)) };
        let report =
            loaded.as_ref().map_or_else(|refused| &refused.report, |served| &served.report);
        self.metrics.gate(report.times());
        self.traces.loaded(Load {
            name: known,
            version,
            whole: Stage::new(started, now()),
            steps: report.times().collect(),
            refused: loaded.as_ref().err().map(|refused| chain(refused)),
        });
        let loaded = loaded.map_err(|refused| chain(&refused)).and_then(|served| {
            unfit::check(&self.config.input, &*served.model)?;
            Ok(served)
        });
        Ok(loaded.map_err(Failed::Refused))
    }

    /// Loads a version in a process of its own first, where it is a program of ours that runs on the CPU.
    async fn try_it(self, dir: &Path, load: &LoadOptions) -> Result<(), Failed> {
        let Some(program) = self.options.trial.as_ref().filter(|_| load.model.device == Place::Cpu)
        else {
            return Ok(());
        };
        let task = trial::Task { dir: dir.to_owned(), options: load.clone() };
        trial::run(program, &task, memory::room().map(|room| room.bytes), self.stop).await
    }

    /// Waits for work on another thread; `None` where a stop comes first, which does not wait for it.
    async fn unless_stopped<T>(
        self,
        what: &str,
        work: JoinHandle<Result<T, Failure>>,
    ) -> Result<Option<T>, Failure> {
        tokio::select! {
            done = work => match done {
                Ok(result) => result.map(Some),
                Err(error) => Err(temporary(&format!("{what}: {error}; this is a bug"))),
            },
            () = self.stop.cancelled() => Ok(None),
        }
    }
}

/// The version to fall back to from `version`, where an alias was followed.
fn previous(registry: &Registry, uri: &Uri, version: Version) -> Option<Uri> {
    let Uri::Alias { model, .. } = uri else { return None };
    let previous = registry.alias(model, "previous").ok().filter(|before| *before != version)?;
    Some(Uri::Version { model: model.clone(), version: previous })
}

#[expect(clippy::disallowed_methods, reason = "what takes long at a start is timed")]
fn now() -> Instant {
    Instant::now()
}

//! The watcher: looks an alias up, loads what it points at beside the hot path, and stages it.
//!
//! A version that does not pass the gate leaves the serving one in place: it is said why, counted, and tried
//! again after a growing pause, because a shared file system may only be slow.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::{Error, Registry, Resolved, Uri};
use crate::http::Health;
use crate::model::Served;
use crate::model::artifact::{self, LoadOptions};
use crate::record::{ModelId, Version};
use crate::telemetry::metrics::Metrics;

/// Longest pause between two tries of a refused version.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What the watcher works with.
#[derive(Debug)]
pub struct Watch {
    /// The registry.
    pub registry: Registry,
    /// What to follow.
    pub uri: Uri,
    /// How to load.
    pub options: LoadOptions,
    /// How often to look.
    pub poll: Duration,
    /// Wakes it before its time.
    pub wake: Arc<Notify>,
    /// The version that serves at the start.
    pub serving: ModelId,
    /// Where versions go that passed the gate. Bound 1.
    pub staged: mpsc::Sender<Arc<Served>>,
    /// Counts loads and refusals.
    pub metrics: Metrics,
    /// Holds the last refusal for the status page.
    pub health: Arc<Health>,
    /// Ends it.
    pub stop: CancellationToken,
}

/// A version that was refused, and when it may be tried again.
struct Refused {
    version: Version,
    tries: u32,
    after: Instant,
}

/// Follows the URI until stopped. A plain directory or a fixed version has nothing to follow.
pub async fn run(watch: Watch) {
    let mut serving = watch.serving.version;
    let mut refused: Option<Refused> = None;
    let follows = matches!(watch.uri, Uri::Alias { .. });
    while follows && !watch.stop.is_cancelled() {
        tokio::select! {
            () = watch.stop.cancelled() => break,
            () = watch.wake.notified() => (),
            () = tokio::time::sleep(watch.poll) => (),
        }
        let Some(resolved) = look(&watch, serving, &mut refused).await else {
            continue;
        };
        let version = resolved.version;
        match load(&watch, resolved).await {
            Ok(served) => {
                tracing::info!(model = %served.id, digest = %served.id.digest, "version staged");
                serving = version;
                refused = None;
                watch.health.set_refused(None);
                if watch.staged.send(Arc::new(served)).await.is_err() {
                    break;
                }
            }
            Err(why) => refuse(&watch, version, &why, &mut refused),
        }
    }
    // The engine waits on the channel: it stays open until the service stops.
    watch.stop.cancelled().await;
}

/// The version to load now, if the alias points elsewhere and its time has come.
async fn look(watch: &Watch, serving: Version, refused: &mut Option<Refused>) -> Option<Resolved> {
    let (registry, uri) = (watch.registry.clone(), watch.uri.clone());
    let resolved = tokio::task::spawn_blocking(move || registry.resolve(&uri)).await;
    let resolved = match resolved {
        Ok(Ok(resolved)) => resolved,
        Ok(Err(error)) => {
            tracing::warn!(uri = %watch.uri, error = crate::service::chain(&error), "registry not readable; the serving version stays");
            return None;
        }
        Err(_cancelled) => return None,
    };
    if resolved.version == serving {
        *refused = None;
        watch.health.set_refused(None);
        return None;
    }
    let waits = |refused: &Refused| refused.version == resolved.version && now() < refused.after;
    (!refused.as_ref().is_some_and(waits)).then_some(resolved)
}

/// Loads through the gate, off the hot path and off the I/O threads.
async fn load(watch: &Watch, resolved: Resolved) -> Result<Served, String> {
    let Resolved { name, version, dir } = resolved;
    let options = LoadOptions { name, version, ..watch.options.clone() };
    let started = now();
    let loaded = tokio::task::spawn_blocking(move || load_from(&dir, &options)).await;
    watch.metrics.loaded(started.elapsed());
    match loaded {
        Ok(Ok(served)) => Ok(served),
        Ok(Err(error)) => Err(crate::service::chain(&error)),
        Err(panicked) => Err(format!("loading panicked: {panicked}")),
    }
}

fn load_from(dir: &Path, options: &LoadOptions) -> Result<Served, Error> {
    artifact::load(dir, options).map_err(|source| Error::Artifact { path: dir.to_owned(), source })
}

fn refuse(watch: &Watch, version: Version, why: &str, refused: &mut Option<Refused>) {
    let before = refused.take().filter(|refused| refused.version == version);
    let tries = before.map_or(0, |refused| refused.tries) + 1;
    let pause = Duration::from_secs(1).saturating_mul(1 << tries.min(10)).min(LONGEST_PAUSE);
    tracing::error!(%version, why, ?pause, "version refused; the serving one stays");
    watch.metrics.refused();
    watch.health.set_refused(Some(format!("version {version}: {why}")));
    *refused = Some(Refused { version, tries, after: now() + pause });
}

#[expect(clippy::disallowed_methods, reason = "the watcher keeps its own time, off the hot path")]
fn now() -> Instant {
    Instant::now()
}

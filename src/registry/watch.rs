//! The watcher: looks an alias up, loads what it points at beside the hot path, and stages it.
//!
//! A version that does not pass the gate leaves the serving one in place: the reason is logged, counted, and the version
//! is tried again after a growing pause, because a shared file system may only be slow. The gate includes a trial in a
//! process of its own and a comparison with the version that serves: what it reads and what it answers must not change
//! unasked.
//!
//! The engine asks for a look of its own when a partition comes here that another version answered last. Its answer is
//! given once what the alias names serves or is staged.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::trial::{self, Failed};
use super::{Error, Registry, Resolved, change};
use crate::config::{Change, Input, Uri};
use crate::format::Writer;
use crate::journal::Journal;
use crate::memory;
use crate::model::gate;
use crate::model::options::LoadOptions;
use crate::model::served::Served;
use crate::model::unfit;
use crate::record::{ModelId, Signature, Version};
use crate::repeated::Repeated;
use crate::status::{self, Board, Refusal};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::stage::Stage;
use crate::telemetry::trace::{Load, Traces};

/// Longest pause between two tries of a refused version.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How often the alias is looked up while the engine waits for an answer.
const URGENT: Duration = Duration::from_secs(1);

/// A look or a load that takes longer is worth a line.
const SLOW: Duration = Duration::from_secs(10);

/// What the watcher tells the engine, in order.
#[derive(Debug)]
pub enum Heard {
    /// A version that passed the gate.
    Staged(Arc<Served>),
    /// What the alias named when it was looked up after this question serves or is staged.
    Named(u64),
}

/// What the watcher works with.
#[derive(Debug)]
pub struct Watch {
    /// The registry.
    pub registry: Registry,
    /// What to follow.
    pub uri: Uri,
    /// How to load.
    pub options: LoadOptions,
    /// What records are.
    pub input: Input,
    /// How its answers will be written.
    pub writer: Arc<Writer>,
    /// Knows which versions have ended this process before.
    pub journal: Journal,
    /// What a version may change.
    pub allow: Vec<Change>,
    /// The program that tries a version first; `None` loads it here at once.
    pub trial: Option<PathBuf>,
    /// How often to look.
    pub poll: Duration,
    /// The number of the newest question of the engine. Written again, even with the same number, it asks for a look
    /// before its time.
    pub questions: watch::Receiver<u64>,
    /// The version that serves at the start.
    pub serving: ModelId,
    /// What that takes and gives.
    pub signature: Arc<Signature>,
    /// Where the engine listens. Bound 1.
    pub heard: mpsc::Sender<Heard>,
    /// Counts loads and refusals.
    pub metrics: Metrics,
    /// Where loads are told.
    pub traces: Traces,
    /// Where refusals are told.
    pub status: Board,
    /// Ends it.
    pub stop: CancellationToken,
}

/// A version that was refused, and when it may be tried again.
struct Refused {
    version: Version,
    tries: u32,
    after: Instant,
}

/// Why the registry tells no version, and how often it was looked at since.
struct Unreadable {
    why: String,
    since: Instant,
    said: Repeated,
}

/// What the watcher knows between two looks.
struct State {
    serving: Version,
    signature: Arc<Signature>,
    refused: Option<Refused>,
    unreadable: Option<Unreadable>,
    /// The newest question that was answered.
    answered: u64,
}

/// Follows the URI until stopped. A plain directory or a fixed version has nothing to follow.
pub async fn run(mut watch: Watch) {
    let mut state = State {
        serving: watch.serving.version,
        signature: Arc::clone(&watch.signature),
        refused: None,
        unreadable: None,
        answered: 0,
    };
    let follows = matches!(watch.uri, Uri::Alias { .. });
    while follows && !watch.stop.is_cancelled() {
        let asked = *watch.questions.borrow();
        let pause = if asked == state.answered { watch.poll } else { watch.poll.min(URGENT) };
        let told = tokio::select! {
            () = watch.stop.cancelled() => break,
            Ok(()) = watch.questions.changed() => true,
            () = tokio::time::sleep(pause) => false,
        };
        // Before the look: what is asked later needs another one.
        let question = *watch.questions.borrow_and_update();
        if told && question == state.answered {
            // An operator who has mended a refused version does not wait until it is tried again.
            state.refused = None;
        }
        let Some(named) = step(&watch, &mut state).await else { continue };
        if named && question != state.answered {
            state.answered = question;
            if watch.heard.send(Heard::Named(question)).await.is_err() {
                break;
            }
        }
    }
    // The engine waits on the channel: it stays open until the service stops.
    watch.stop.cancelled().await;
}

/// One look, and what follows from it. Whether what the alias names serves or is staged; `None` when the service stops.
async fn step(watch: &Watch, state: &mut State) -> Option<bool> {
    let resolved = match look(watch).await? {
        Ok(resolved) => resolved,
        Err(Untold { why, dangling }) => {
            unreadable(watch, &mut state.unreadable, &why, dangling);
            // What it names is not known: whether a refused version still is neither.
            watch.status.change(|status| (status.registry, status.refused) = (Some(why), None));
            return Some(false);
        }
    };
    if let Some(unreadable) = state.unreadable.take() {
        let away = now().saturating_duration_since(unreadable.since).as_secs();
        tracing::info!(uri = %watch.uri, "the registry tells a version again, after {away} s");
    }
    let version = resolved.version;
    watch.status.change(|status| {
        status.registry = None;
        // What is not named any more is refused no more.
        status.refused = status.refused.take().filter(|refused| refused.version == version);
    });
    if version == state.serving {
        state.refused = None;
        watch.status.change(|status| status.refused = None);
        return Some(true);
    }
    let waits = |refused: &Refused| refused.version == version && now() < refused.after;
    if state.refused.as_ref().is_some_and(waits) {
        return Some(false);
    }
    match load(watch, resolved, &state.signature).await {
        Ok(served) => {
            let digest = &served.id.digest;
            tracing::info!(model = %served.id, %digest, gate = %served.report, "version staged");
            state.serving = version;
            state.signature = Arc::clone(&served.signature);
            state.refused = None;
            watch.status.change(|status| status.refused = None);
            watch.heard.send(Heard::Staged(Arc::new(served))).await.ok()?;
            Some(true)
        }
        Err(Failed::Refused(why)) => {
            refuse(watch, version, &why, &mut state.refused);
            Some(false)
        }
        Err(Failed::Stopped) => None,
    }
}

/// Why a look told no version.
struct Untold {
    why: String,
    /// Whether it is the alias that names one that is not there.
    dangling: bool,
}

/// Says so at once and then with growing pauses, for as long as the reason is the same.
fn unreadable(watch: &Watch, known: &mut Option<Unreadable>, why: &str, dangling: bool) {
    let Some(looks) = due(known, why, now()) else { return };
    // A field that is not there is not written.
    let looks = (looks != 1).then_some(looks);
    if dangling {
        tracing::warn!(uri = %watch.uri, error = why, looks, "the alias names a version that is not there; the serving one stays");
    } else {
        tracing::warn!(uri = %watch.uri, error = why, looks, "registry not readable; the serving version stays");
    }
}

/// After how many looks it is said now.
fn due(known: &mut Option<Unreadable>, why: &str, now: Instant) -> Option<usize> {
    let fresh = |since| Unreadable { why: why.to_owned(), since, said: Repeated::default() };
    let known = known.get_or_insert_with(|| fresh(now));
    if known.why != why {
        *known = fresh(known.since);
    }
    known.said.seen(1, now)
}

/// What the alias names now, or why it cannot be read; `None` where the service stops.
async fn look(watch: &Watch) -> Option<Result<Resolved, Untold>> {
    let (registry, uri) = (watch.registry.clone(), watch.uri.clone());
    let look = tokio::task::spawn_blocking(move || registry.resolve(&uri));
    match patiently(watch, "the look at the registry", look).await? {
        Ok(Ok(resolved)) => Some(Ok(resolved)),
        Ok(Err(error)) => {
            let dangling = matches!(error, Error::Dangling(_));
            Some(Err(Untold { why: crate::failure::chain(&error), dangling }))
        }
        Err(error) => {
            tracing::error!(%error, "looking at the registry panicked; the serving version stays");
            Some(Err(Untold { why: error.to_string(), dangling: false }))
        }
    }
}

/// Waits for work on another thread, which a file system may hold up, and says so. `None`: the service stops.
async fn patiently<T>(
    watch: &Watch,
    what: &str,
    mut work: JoinHandle<T>,
) -> Option<Result<T, tokio::task::JoinError>> {
    let mut waited = Duration::ZERO;
    loop {
        tokio::select! {
            done = &mut work => return Some(done),
            () = watch.stop.cancelled() => return None,
            () = tokio::time::sleep(SLOW) => {
                waited += SLOW;
                tracing::warn!(?waited, "{what} takes long; the serving version stays meanwhile");
            }
        }
    }
}

/// Loads through the gate, off the hot path and off the I/O threads.
async fn load(watch: &Watch, resolved: Resolved, before: &Signature) -> Result<Served, Failed> {
    let Resolved { name, version, dir } = resolved;
    let options = LoadOptions { name, version, ..watch.options.clone() };
    let name = options.name.clone().unwrap_or_default();
    if let Some(why) = watch.journal.refuses(&name, version, true) {
        return Err(Failed::Refused(why));
    }
    let started = now();
    if let Some(program) = &watch.trial {
        let room = memory::room().map(|room| room.bytes);
        let task = trial::Task { dir: dir.clone(), options: options.clone() };
        trial::run(program, &task, room, &watch.stop).await?;
    }
    watch.journal.loading(&name, version);
    let place = dir.clone();
    let loaded = tokio::task::spawn_blocking(move || gate::load(&dir, &options));
    let loaded = patiently(watch, "loading a version", loaded).await.ok_or(Failed::Stopped)?;
    watch.journal.loaded(&name, version);
    watch.metrics.loaded(started.elapsed());
    let loaded = loaded.map_err(|panic| Failed::Refused(format!("loading panicked: {panic}")))?;
    let report = loaded.as_ref().map_or_else(|refused| &refused.report, |served| &served.report);
    watch.metrics.gate(report.times());
    watch.traces.loaded(Load {
        name,
        version,
        whole: Stage::new(started, now()),
        steps: report.times().collect(),
        refused: loaded.as_ref().err().map(|refused| crate::failure::chain(refused)),
    });
    let served = loaded.map_err(|refused| {
        let error = Error::Artifact { path: place, source: refused.error };
        Failed::Refused(crate::failure::chain(&error))
    })?;
    change::check(before, &served.signature, &watch.allow).map_err(Failed::Refused)?;
    unfit::check(&watch.input, &*served.model).map_err(Failed::Refused)?;
    let (writer, task) = (Arc::clone(&watch.writer), served.model.about().task);
    let ready = tokio::task::spawn_blocking(move || writer.ready(task));
    match patiently(watch, "looking for the schema of predictions", ready).await {
        None => Err(Failed::Stopped),
        Some(Ok(Ok(()))) => Ok(served),
        Some(Ok(Err(failure))) => Err(Failed::Refused(failure.message)),
        Some(Err(panicked)) => Err(Failed::Refused(format!("it panicked: {panicked}"))),
    }
}

fn refuse(watch: &Watch, version: Version, why: &str, refused: &mut Option<Refused>) {
    let before = refused.take().filter(|refused| refused.version == version);
    let tries = before.map_or(0, |refused| refused.tries) + 1;
    let pause = Duration::from_secs(1).saturating_mul(1 << tries.min(10)).min(LONGEST_PAUSE);
    tracing::error!(%version, why, ?pause, "version refused; the serving one stays");
    watch.metrics.refused();
    let refusal = Refusal { at: status::wall_clock_ms(), version, reason: why.to_owned() };
    watch.status.change(|status| status.refuse(refusal));
    *refused = Some(Refused { version, tries, after: now() + pause });
}

#[expect(clippy::disallowed_methods, reason = "the watcher keeps its own time, off the hot path")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_readable_for_long_is_said_with_growing_pauses_and_another_reason_at_once() {
        let (start, mut known) = (now(), None);
        let mut said = |why, second| due(&mut known, why, start + Duration::from_secs(second));
        let looks = (0..=60).map(|look| 2 * look);
        let lines: Vec<usize> = looks.filter_map(|second| said("a", second)).collect();
        assert_eq!(lines, [1, 16, 46], "of 61 looks");
        assert_eq!((said("b", 122), said("b", 124)), (Some(1), None));
        assert_eq!(known.map(|known| known.since), Some(start), "it is one time all the same");
    }
}

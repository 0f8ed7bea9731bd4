//! How the service is: plain data. The engine and the watcher of the registry write it (HTTP only where it listens); HTTP and
//! whoever runs the service in its own process read it.
//!
//! The newest value is in a [`Board`]; a reader takes it as it is and holds up nobody. What is kept of the past is the
//! newest few of each kind, by place and reason, never what a record holds.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use crate::record::{FaultClass, ModelId, Offset, Partition, Version};

pub mod history;

use history::{History, Hour, Total};

/// A cluster may be away for so long before the service counts as not ready, and before what it said last is old.
pub const LONG_AWAY: Duration = Duration::from_secs(60);

/// So many swaps, refusals and dead letters are kept of each.
pub const KEPT: usize = 16;

/// Everything that is told of the service.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// What it does now.
    pub doing: Doing,
    /// Where HTTP listens.
    pub listening: Option<SocketAddr>,
    /// Since when the log is opened, at the start: the brokers have not answered yet.
    pub opening: Option<Instant>,
    /// The version that serves; `None` while the first one is loaded.
    pub serving: Option<ModelId>,
    /// Partitions that are ours; `None` before the first assignment.
    pub assigned: Option<usize>,
    /// Offsets between what is committed and the ends of the partitions that are ours; `None` where none is, before it is
    /// known, and while the cluster does not answer.
    pub lag: Option<i64>,
    /// Those of them that cannot be read: transactions of producers that are not ended hold them back.
    pub held: i64,
    /// When nothing will be left that can be read; `None` before it is known.
    pub drain: Option<Drain>,
    /// Partitions of the input topics that no member of the group reads.
    pub uncovered: usize,
    /// Since when the cluster has not answered.
    pub unreachable: Option<Instant>,
    /// Why the cluster does not take our clients, or they not it.
    pub unwelcome: Option<Refused>,
    /// Why this process is not a member of its group.
    pub outside: Option<String>,
    /// A version that passed the gate and is taken with the next batch.
    pub staged: Option<ModelId>,
    /// The version that the registry names and that did not pass the gate. The serving one goes on: no reason to be
    /// unready.
    pub refused: Option<Refusal>,
    /// Why the registry cannot be looked at; the serving version goes on.
    pub registry: Option<String>,
    /// Topics that are written to and are not there any more, as a sentence with what to do, without its end.
    pub missing: Option<String>,
    /// Since when the schema registry has not said what a record is, and why; nothing is read until it does.
    pub schemas: Option<(Instant, String)>,
    /// What the model has had for long; `None` while its answers come soon.
    pub in_model: Option<InModel>,
    /// How the process before this one ended, as a sentence without its end, where it did not end in order.
    pub last_life: Option<&'static str>,
    /// What next to none of the last records had of what the model reads, as a sentence; empty where it is all there.
    pub lacking: String,
    /// The last swaps, the newest last.
    pub swaps: Last<Swap>,
    /// The last versions that did not pass the gate, the newest last.
    pub refusals: Last<Refusal>,
    /// The last dead letters that were committed, the newest last.
    pub dead_letters: Last<DeadLetter>,
}

/// A cluster that was reached, and will not have us, or we not it: nothing cures that but other credentials or certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What is refused, as a sentence without its end.
    pub what: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
    /// How the client put it.
    pub said: String,
}

/// Records that the model has had for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InModel {
    /// Since when.
    pub since: Instant,
    /// How many they are.
    pub rows: usize,
    /// `limits.inference`: after so long the process ends.
    pub limit: Duration,
}

/// When nothing will be left that can be read, as the lag has fallen in the last minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// After so long.
    In(Duration),
    /// Never: as much flows in as is answered.
    Never,
    /// Never: more flows in than is answered.
    Grows,
}

/// What the service does now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Doing {
    /// It loads the first version, opens the log, or waits for its group.
    #[default]
    Starting,
    /// It answers what arrives.
    Running,
    /// It was told to take nothing in.
    Paused,
    /// It finishes what was begun.
    Stopping,
    /// It is up, but does nothing any more, and says why.
    Stopped(String),
}

/// A new version began to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swap {
    /// When, in ms since 1970.
    pub at: i64,
    /// The version that served before.
    pub from: Version,
    /// The version that serves since.
    pub to: ModelId,
}

/// A version that did not pass the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// When it was tried last, in ms since 1970.
    pub at: i64,
    /// The version.
    pub version: Version,
    /// Why it does not serve.
    pub reason: String,
}

/// A record that could not be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// When it was committed, in ms since 1970.
    pub at: i64,
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// What kind of thing is wrong with it.
    pub class: FaultClass,
    /// One sentence that never holds the record's value.
    pub reason: String,
}

/// The newest [`KEPT`] of a kind, the newest last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Last<T>(VecDeque<T>);

impl<T> Default for Last<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Last<T> {
    /// Adds one, in the place of the oldest where there are enough.
    pub fn push(&mut self, one: T) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(one);
    }

    /// All that are kept, the newest last.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.0.iter()
    }
}

impl Status {
    /// Whether the cluster answers, as seen at `now`.
    pub fn reachable(&mut self, reachable: bool, now: Instant) {
        self.unreachable = if reachable { None } else { self.unreachable.or(Some(now)) };
    }

    /// A new version serves.
    pub fn swapped(&mut self, swap: Swap) {
        self.serving = Some(swap.to.clone());
        self.staged = self.staged.take().filter(|staged| *staged != swap.to);
        self.swaps.push(swap);
    }

    /// A version was refused. The same one again, for the same reason, is the same refusal.
    pub fn refuse(&mut self, refusal: Refusal) {
        let same =
            |last: &&mut Refusal| last.version == refusal.version && last.reason == refusal.reason;
        match self.refusals.0.back_mut().filter(same) {
            Some(last) => last.at = refusal.at,
            None => self.refusals.push(refusal.clone()),
        }
        self.refused = Some(refusal);
    }

    /// Why the service is not ready at `now`; nothing if it is.
    pub fn unready(&self, now: Instant) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.assigned.is_none() {
            reasons.push("the group has not assigned partitions yet".to_owned());
        }
        if self.serving.is_none() {
            reasons.push("no model is loaded".to_owned());
        }
        match &self.doing {
            Doing::Starting | Doing::Running => (),
            Doing::Paused => {
                reasons.push("paused: nothing is taken in until it is resumed".to_owned());
            }
            Doing::Stopping => reasons.push("stopping".to_owned()),
            Doing::Stopped(why) => reasons.push(why.clone()),
        }
        reasons.extend(self.outside.clone());
        let schemas = self.schemas.as_ref().map(|(since, why)| (now.duration_since(*since), why));
        reasons.extend(schemas.filter(|(away, _)| LONG_AWAY <= *away).map(|(away, why)| {
            format!(
                "the schema registry has not said for {} s what a record is: {why}",
                away.as_secs()
            )
        }));
        let away = self.unreachable.map(|since| now.duration_since(since));
        reasons.extend(away.and_then(|away| match &self.unwelcome {
            // No outage that cures itself.
            Some(Refused { what, remedy, .. }) => {
                Some(format!("{what}, for {} s now; {remedy}", away.as_secs()))
            }
            None => (LONG_AWAY <= away).then(|| {
                format!("no broker has answered for {} s; look at the cluster", away.as_secs())
            }),
        }));
        reasons
    }
}

/// Where the newest [`Status`] is, and the last hour. Whoever holds it may write; a stream of changes is a receiver of it.
#[derive(Debug, Clone)]
pub struct Board {
    newest: watch::Sender<Arc<Status>>,
    /// Locked for as long as a batch is added, or the hour is copied: never while anything is waited for.
    history: Arc<Mutex<History>>,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            newest: watch::Sender::default(),
            history: Arc::new(Mutex::new(History::new(clock()))),
        }
    }
}

impl Board {
    /// Writes; readers see all of a change or nothing of it.
    pub fn change(&self, change: impl FnOnce(&mut Status)) {
        self.newest.send_modify(|status| change(Arc::make_mut(status)));
    }

    /// The newest value.
    pub fn now(&self) -> Arc<Status> {
        Arc::clone(&self.newest.borrow())
    }

    /// Hears of each newer value; where several came, of the newest only.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Status>> {
        self.newest.subscribe()
    }

    /// Adds to the last hour.
    pub fn note(&self, note: impl FnOnce(&mut History)) {
        note(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What was done since the start.
    pub fn total(&self) -> Total {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).total()
    }

    /// The last hour, with the partitions that are furthest behind, at most so many.
    pub fn hour(&self, now: Instant, partitions: usize) -> Hour {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.read(now, partitions)
    }
}

#[expect(clippy::disallowed_methods, reason = "the hour is counted from when the board is hung up")]
fn clock() -> Instant {
    Instant::now()
}

/// Wall time, in ms since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "what people and producers reckon in, never the core"
)]
pub fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(version: u64) -> ModelId {
        ModelId { name: "m".into(), version: Version(version), digest: "d".into() }
    }

    #[test]
    fn ready_wants_partitions_a_model_a_cluster_and_no_stop() {
        #[expect(clippy::disallowed_methods, reason = "a test needs one arbitrary instant")]
        let start = Instant::now();
        let at = |after: u64| start + Duration::from_secs(after);
        let mut status = Status::default();
        assert_eq!(status.unready(start).len(), 2);
        status.assigned = Some(0);
        status.serving = Some(model(1));
        assert!(status.unready(start).is_empty(), "a member without partitions is a warm standby");
        status.reachable(false, start);
        status.reachable(false, at(50));
        assert!(status.unready(at(59)).is_empty(), "an outage may be short");
        let away = status.unready(at(75));
        assert!(away[0].contains("no broker has answered for 75 s"), "{away:?}");
        status.reachable(true, at(80));
        assert!(status.unready(at(155)).is_empty());
        status.reachable(false, at(155));
        status.unwelcome = Some(Refused {
            what: "the credentials are refused",
            remedy: "check sasl.password",
            said: "SASL authentication error".to_owned(),
        });
        let said = "the credentials are refused, for 5 s now; check sasl.password";
        assert_eq!(status.unready(at(160)), [said]);
        status.reachable(true, at(160));
        assert!(status.unready(at(160)).is_empty(), "what is connected goes on");
        for (doing, expect) in [
            (Doing::Running, None),
            (Doing::Paused, Some("paused")),
            (Doing::Stopping, Some("stopping")),
            (Doing::Stopped("too many dead letters".to_owned()), Some("too many dead letters")),
        ] {
            status.doing = doing;
            let reasons = status.unready(start);
            let said = reasons.first().map(|reason| reason.split(':').next().unwrap());
            assert_eq!((said, reasons.len()), (expect, usize::from(expect.is_some())));
        }
    }

    #[test]
    fn what_is_kept_of_the_past_is_bounded() {
        let mut status = Status::default();
        let refusal = |at, reason: &str| Refusal { at, version: Version(2), reason: reason.into() };
        (0..3).for_each(|at| status.refuse(refusal(at, "digest")));
        status.refuse(refusal(3, "golden"));
        let kept: Vec<(i64, &str)> =
            status.refusals.iter().map(|refusal| (refusal.at, &*refusal.reason)).collect();
        assert_eq!(kept, [(2, "digest"), (3, "golden")], "each reason once, with its last time");
        for at in 0..100 {
            status.swapped(Swap { at, from: Version(1), to: model(2) });
        }
        let kept: Vec<i64> = status.swaps.iter().map(|swap| swap.at).collect();
        assert_eq!(kept, (84..100).collect::<Vec<_>>());
        assert_eq!(status.serving, Some(model(2)));
    }

    #[test]
    fn a_reader_keeps_what_it_has_read() {
        let board = Board::default();
        let (before, mut changes) = (board.now(), board.subscribe());
        board.change(|status| status.assigned = Some(3));
        assert_eq!((before.assigned, board.now().assigned), (None, Some(3)));
        assert!(changes.has_changed().unwrap());
        assert_eq!(changes.borrow_and_update().assigned, Some(3));
    }
}

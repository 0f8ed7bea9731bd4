//! What a process does that has lost its place in the group to another one of its name. Pure; the table is the test's.
//!
//! The group lets one member have an instance name; who joins under it later fences the one before (classic protocol),
//! or is refused until the one before is gone (KIP-848). The other one may be a live twin, which is a mistake of the
//! configuration. But it may also be this process's own shadow: a request to join that a network stall has held up, or
//! a predecessor that was killed. A shadow sends no heartbeats and is gone when its session is over; a twin stays.

use std::time::{Duration, Instant};

/// Beyond a session, until the group has noticed that it is over.
const MARGIN: Duration = Duration::from_secs(2);
/// A process that has fenced another so lately does not end when it is fenced itself: two supervised twins would fell
/// each other in turns. It waits for its name instead.
const LATELY: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Longest pause between two looks.
const LONGEST: Duration = Duration::from_secs(60);
/// Longest session that a broker gives with KIP-848, by default.
const BROKERS_SESSION: Duration = Duration::from_secs(60);

/// How the place was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// `FENCED_INSTANCE_ID`: another one has joined under our name.
    Fenced,
    /// `UNRELEASED_INSTANCE_ID`: another one has our name and is not gone.
    Unreleased,
}

/// A place that was lost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lost {
    pub(super) how: How,
    /// When.
    pub(super) since: Instant,
    /// When this process took its name over from another one, if it did.
    pub(super) took_over: Option<Instant>,
    /// The group's session timeout.
    pub(super) session: Duration,
    /// Looks so far.
    pub(super) looks: u32,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Look again after so long.
    Wait(Duration),
    /// Join under a new client.
    Join,
    /// The other one is alive: end, with 78.
    Exit,
}

impl Lost {
    /// Decides at `now`; `held` says whether the group has a member of our name, `None` where that is not told.
    pub(super) fn step(&self, held: Option<bool>, now: Instant) -> Step {
        let waited = now.saturating_duration_since(self.since);
        let growing = LOOK.saturating_mul(1 << self.looks.min(6)).min(LONGEST);
        match (self.how, held) {
            (_, None) => Step::Wait(LOOK),
            (_, Some(false)) => Step::Join,
            (How::Unreleased, Some(true)) if waited < BROKERS_SESSION + MARGIN => {
                Step::Wait(growing.min(LOOK * 8))
            }
            (How::Fenced, Some(true)) if waited < self.session + MARGIN => Step::Wait(LOOK),
            (How::Fenced, Some(true)) if self.has_fenced_lately() => Step::Wait(growing),
            (How::Fenced | How::Unreleased, Some(true)) => Step::Exit,
        }
    }

    fn has_fenced_lately(&self) -> bool {
        self.took_over.is_some_and(|at| self.since.saturating_duration_since(at) < LATELY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_twin_that_stays_is_a_twin() {
        #[expect(clippy::disallowed_methods, reason = "a test needs one arbitrary instant")]
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let lost = |how, took_over: Option<u64>| Lost {
            how,
            since: at(100),
            took_over: took_over.map(at),
            session: Duration::from_secs(20),
            looks: 0,
        };
        let wait = |seconds| Step::Wait(Duration::from_secs(seconds));
        for (lost, held, now, expect) in [
            (lost(How::Fenced, None), Some(false), 100, Step::Join),
            (lost(How::Fenced, None), Some(true), 101, wait(1)),
            (lost(How::Fenced, None), Some(true), 121, wait(1)),
            (lost(How::Fenced, None), Some(true), 123, Step::Exit),
            (lost(How::Fenced, None), None, 500, wait(1)),
            (lost(How::Fenced, Some(90)), Some(true), 123, wait(1)),
            (Lost { looks: 4, ..lost(How::Fenced, Some(90)) }, Some(true), 123, wait(16)),
            (Lost { looks: 40, ..lost(How::Fenced, Some(90)) }, Some(true), 900, wait(60)),
            (lost(How::Fenced, Some(90)), Some(false), 900, Step::Join),
            (lost(How::Fenced, Some(10)), Some(true), 123, Step::Exit),
            (lost(How::Unreleased, None), Some(true), 101, wait(1)),
            (Lost { looks: 9, ..lost(How::Unreleased, None) }, Some(true), 150, wait(8)),
            (lost(How::Unreleased, None), Some(false), 101, Step::Join),
            (lost(How::Unreleased, None), Some(true), 163, Step::Exit),
        ] {
            assert_eq!(lost.step(held, at(now)), expect, "{lost:?} {held:?} {now}");
        }
    }
}

//! Where spans wait to be sent: bounded, and whoever tells never waits.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::now;
use super::told::Told;

/// The queue between who tells and who sends.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// Most spans.
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    told: VecDeque<Told>,
    /// Spans that were told and are not sent, those that are being sent among them.
    spans: usize,
    /// Nothing more is told, and nothing is sent after this.
    closes: Option<Instant>,
}

/// What the sender has to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// Take this in.
    Told(Told),
    /// Send what it has.
    Due,
    /// Send what it has, and end.
    End,
}

impl Queue {
    /// A queue for so many spans.
    pub(super) fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), limit }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what there is room for, of a batch its own spans first, and says how many spans there was no room for.
    pub(super) fn push(&self, mut told: Told) -> usize {
        let mut state = self.state();
        let room = if state.closes.is_some() { 0 } else { self.limit - state.spans };
        let all = told.spans();
        let taken = told.truncate(room);
        if taken != 0 {
            state.spans += taken;
            state.told.push_back(told);
            self.changed.notify_one();
        }
        all - taken
    }

    /// Waits until there is something to do; no longer than until `due`.
    pub(super) fn next(&self, due: Option<Instant>) -> Next {
        let mut state = self.state();
        loop {
            if let Some(told) = state.told.pop_front() {
                return Next::Told(told);
            }
            if state.closes.is_some() {
                return Next::End;
            }
            let Some(due) = due else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = due.saturating_duration_since(now());
            if left.is_zero() {
                return Next::Due;
            }
            let waited = self.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// So many spans were sent, or are lost.
    pub(super) fn done(&self, spans: usize) {
        let mut state = self.state();
        state.spans = state.spans.saturating_sub(spans);
    }

    /// Whether there is no time left to send anything.
    pub(super) fn is_over(&self) -> bool {
        self.state().closes.is_some_and(|closes| closes <= now())
    }

    /// Takes nothing more in. What is there may be sent until `closes`.
    pub(super) fn close(&self, closes: Instant) {
        self.state().closes.get_or_insert(closes);
        self.changed.notify_one();
    }
}

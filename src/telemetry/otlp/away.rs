//! When to say that a collector takes nothing: at once, and then with growing pauses.

use std::time::{Duration, Instant};

/// The first pause between two lines; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(30);
/// The longest.
const LONGEST: Duration = Duration::from_secs(3600);

/// A collector that takes nothing, if it does not.
#[derive(Debug, Default)]
pub(in crate::telemetry) struct Away(Option<Since>);

#[derive(Debug)]
struct Since {
    /// What it did not take.
    lost: usize,
    /// When that is said again.
    next: Instant,
    pause: Duration,
}

impl Away {
    /// It did not take so many at `now`. How many in all, where it is time to say so.
    pub(in crate::telemetry) fn lost(&mut self, count: usize, now: Instant) -> Option<usize> {
        let away = self.0.get_or_insert(Since { lost: 0, next: now, pause: PAUSE });
        away.lost += count;
        let due = away.next <= now;
        if due {
            away.next = now + away.pause;
            away.pause = (away.pause * 2).min(LONGEST);
        }
        due.then_some(away.lost)
    }

    /// It takes something. How many it had not taken, if it was away.
    pub(in crate::telemetry) fn back(&mut self) -> Option<usize> {
        self.0.take().map(|away| away.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_at_once_and_then_ever_more_seldom() {
        #[expect(clippy::disallowed_methods, reason = "a test needs one arbitrary instant")]
        let start = Instant::now();
        let mut away = Away::default();
        assert_eq!(away.back(), None);
        let said = |away: &mut Away, second| away.lost(1, start + Duration::from_secs(second));
        let all: Vec<_> = [0, 29, 30, 89, 90].map(|second| said(&mut away, second)).into();
        assert_eq!(all, [Some(1), None, Some(3), None, Some(5)]);
        assert_eq!((away.back(), away.back()), (Some(5), None));
        assert_eq!(said(&mut away, 91), Some(1), "another time is said at once again");
    }
}

//! How long no broker has answered, and when that is said. Pure.

use std::time::{Duration, Instant};

use crate::repeated::Repeated;

/// What is shorter is a broker that starts again or a network that stumbles: nothing to say.
pub(super) const LONG: Duration = Duration::from_secs(10);

/// When a broker answered last, and what was said of it.
#[derive(Debug)]
pub(super) struct Away {
    answered: Instant,
    said: Repeated,
}

impl Away {
    /// One has answered now.
    pub(super) fn new(now: Instant) -> Self {
        Self { answered: now, said: Repeated::default() }
    }

    /// None has answered. For how long that is so, where it is time to say it.
    pub(super) fn unanswered(&mut self, now: Instant) -> Option<Duration> {
        let away = now.saturating_duration_since(self.answered);
        if away < LONG {
            return None;
        }
        self.said.seen(1, now).map(|_| away)
    }

    /// One has answered. For how long none did, where that was said.
    pub(super) fn answered(&mut self, now: Instant) -> Option<Duration> {
        let away = now.saturating_duration_since(self.answered);
        self.answered = now;
        self.said.over().map(|_| away)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_away_is_said_with_growing_pauses_and_once_when_it_is_back() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let seconds = |said: Option<Duration>| said.map(|away| away.as_secs());
        let mut away = Away::new(at(0));
        assert_eq!((away.unanswered(at(5)), away.answered(at(9))), (None, None), "a stumble");
        let looks = (1..=30).map(|look| 9 + 6 * look);
        let said: Vec<u64> =
            looks.filter_map(|second| seconds(away.unanswered(at(second)))).collect();
        assert_eq!(said, [12, 42, 102]);
        assert_eq!(seconds(away.answered(at(200))), Some(191));
        assert_eq!((away.answered(at(205)), away.unanswered(at(210))), (None, None));
        assert_eq!(seconds(away.unanswered(at(217))), Some(12), "another time is said again");
    }
}

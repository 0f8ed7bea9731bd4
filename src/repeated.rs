//! What is said at once, and then with growing pauses for as long as it goes on.

use std::time::{Duration, Instant};

/// Something that may go on for long: when to say so again, and how much there was of it.
#[derive(Debug)]
pub struct Repeated {
    first: Duration,
    longest: Duration,
    goes_on: Option<GoesOn>,
}

#[derive(Debug)]
struct GoesOn {
    /// How much there was of it.
    count: usize,
    /// When that is said again.
    next: Instant,
    pause: Duration,
}

impl Repeated {
    /// The first pause between two lines, of which each further one is twice as long, and the longest.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, goes_on: None }
    }

    /// There was so much more of it at `now`. How much in all, where it is time to say so.
    pub fn seen(&mut self, count: usize, now: Instant) -> Option<usize> {
        let Self { first, longest, .. } = *self;
        let goes_on = self.goes_on.get_or_insert(GoesOn { count: 0, next: now, pause: first });
        goes_on.count += count;
        let due = goes_on.next <= now;
        if due {
            goes_on.next = now + goes_on.pause;
            goes_on.pause = goes_on.pause.saturating_mul(2).min(longest);
        }
        due.then_some(goes_on.count)
    }

    /// It is over. How much there was of it, if it went on.
    pub fn over(&mut self) -> Option<usize> {
        self.goes_on.take().map(|goes_on| goes_on.count)
    }
}

/// Half a minute first, and an hour at most.
impl Default for Repeated {
    fn default() -> Self {
        Self::new(Duration::from_secs(30), Duration::from_secs(3_600))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_at_once_and_then_ever_more_seldom() {
        #[expect(clippy::disallowed_methods, reason = "a test needs one arbitrary instant")]
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let said = |repeated: &mut Repeated, second| repeated.seen(1, at(second));
        for seconds in [[0, 29, 30, 89, 90], [0, 5, 30, 85, 90]] {
            let mut repeated = Repeated::default();
            assert_eq!(repeated.over(), None);
            let all = seconds.map(|second| said(&mut repeated, second));
            assert_eq!(all, [Some(1), None, Some(3), None, Some(5)]);
            assert_eq!((repeated.over(), repeated.over()), (Some(5), None));
            assert_eq!(said(&mut repeated, 91), Some(1), "another time is said at once again");
        }
        let mut short = Repeated::new(Duration::from_secs(10), Duration::from_secs(20));
        let due = (0..70).filter(|second| said(&mut short, *second).is_some());
        assert_eq!(due.collect::<Vec<_>>(), [0, 10, 30, 50], "no pause is longer than the longest");
    }
}

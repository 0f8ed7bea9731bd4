//! What is said at once, and then with growing pauses for as long as it goes on.

use std::collections::BTreeMap;
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

/// Things of many kinds that may each go on for long: each kind has pauses of its own.
#[derive(Debug)]
pub struct Kinds {
    first: Duration,
    longest: Duration,
    each: BTreeMap<String, Kind>,
}

/// One kind, and when there was one of it first and last.
#[derive(Debug)]
struct Kind {
    repeated: Repeated,
    first: Instant,
    last: Instant,
}

impl Kind {
    /// Whether there was none of it for longer than it is silent about it: what comes then is new.
    fn is_past(&self, now: Instant) -> bool {
        let pause = self.repeated.goes_on.as_ref().map_or(Duration::ZERO, |goes_on| goes_on.pause);
        Kinds::QUIET.max(pause) <= now.saturating_duration_since(self.last)
    }
}

impl Kinds {
    /// So many kinds are told apart. Lines that differ in what they quote would pile up.
    const MOST: usize = 256;

    /// A kind of which there was none for so long is over: the next one is not counted with those before.
    pub const QUIET: Duration = Duration::from_secs(120);

    /// The first pause between two lines of a kind, and the longest.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, each: BTreeMap::new() }
    }

    /// There was one more of this kind at `now`. How many in all, where it is time to say so.
    pub fn seen(&mut self, kind: &str, now: Instant) -> Option<usize> {
        self.seen_over(kind, now).map(|(count, _)| count)
    }

    /// The same, and since how long.
    pub fn seen_over(&mut self, kind: &str, now: Instant) -> Option<(usize, Duration)> {
        if self.each.len() == Self::MOST && !self.each.contains_key(kind) {
            self.each.clear();
        }
        let (first, longest) = (self.first, self.longest);
        let fresh = || Kind { repeated: Repeated::new(first, longest), first: now, last: now };
        let kind = self.each.entry(kind.to_owned()).or_insert_with(fresh);
        if kind.is_past(now) {
            *kind = fresh();
        }
        kind.last = now;
        let over = now.saturating_duration_since(kind.first);
        kind.repeated.seen(1, now).map(|count| (count, over))
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

    #[test]
    fn each_kind_has_its_own_pauses_and_they_do_not_pile_up() {
        #[expect(clippy::disallowed_methods, reason = "a test needs one arbitrary instant")]
        let start = Instant::now();
        let mut kinds = Kinds::new(Duration::from_secs(10), Duration::from_secs(20));
        let mut said = |kind: &str, second| kinds.seen(kind, start + Duration::from_secs(second));
        assert_eq!((said("a", 0), said("b", 1), said("a", 9)), (Some(1), Some(1), None));
        assert_eq!((said("a", 10), said("b", 10), said("b", 11)), (Some(3), None, Some(3)));
        assert_eq!((said("a", 12), said("a", 140)), (None, Some(1)), "what is over is not counted");
        for kind in 0..10 * Kinds::MOST {
            assert_eq!(said(&kind.to_string(), 140), Some(1));
        }
        assert!(kinds.each.len() <= Kinds::MOST);
    }
}

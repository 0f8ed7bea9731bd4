//! When a stage of a batch's life began and ended.

use std::time::{Duration, Instant};

/// A stage: decoding, waiting, the model, encoding, a transaction. What is made after the fact, a metric or a span of a
/// trace, needs both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// When it began.
    pub start: Instant,
    /// When it ended.
    pub end: Instant,
    /// How long it was worked on in between: less than from start to end where there were pauses, more where several
    /// threads worked on it at once.
    pub busy: Duration,
}

impl Stage {
    /// A stage without a pause.
    pub fn new(start: Instant, end: Instant) -> Self {
        Self { start, end, busy: end.saturating_duration_since(start) }
    }

    /// The same, worked on from its start to its end.
    #[must_use]
    pub fn whole(self) -> Self {
        Self::new(self.start, self.end)
    }

    /// Two pieces of one stage: from the first start to the last end, and the sum of the work.
    pub fn both(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        let (Some(a), Some(b)) = (one, other) else { return one.or(other) };
        let (start, end) = (a.start.min(b.start), a.end.max(b.end));
        Some(Self { start, end, busy: a.busy + b.busy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_a_stage_add_up() {
        #[expect(clippy::disallowed_methods, reason = "a test needs one arbitrary instant")]
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let (one, other) = (Some(Stage::new(at(2), at(5))), Some(Stage::new(at(9), at(10))));
        let both = Stage::both(other, one).unwrap();
        assert_eq!((both.start, both.end, both.busy), (at(2), at(10), Duration::from_millis(4)));
        assert_eq!(both.whole().busy, Duration::from_millis(8));
        assert_eq!((Stage::both(one, None), Stage::both(None, one)), (one, one));
    }
}

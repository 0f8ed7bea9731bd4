//! How many tokens a batch is best given, learned from what batches cost.
//!
//! ```text
//!  time   = a + b · tokens    grow until the fixed part a is a twentieth of the whole: tokens = 19 · a / b
//!  memory = c + d · tokens    and no further than what is left of the memory: tokens = (limit − c) / d
//! ```
//!
//! The fixed part is what a batch costs however small it is: its transaction, the start of the model, a copy to a
//! device. A larger batch than that wins nothing and waits longer. Apache Beam's `BatchElements` learns the time in the
//! same way (`target_batch_overhead`), by least squares with outliers thrown out; it knows no memory.
//!
//! Both lines are fitted by the median of slopes (Theil 1950, Sen 1968): a quarter of the batches may be slow for
//! other reasons and the fit stays. The last batches of each order of size are looked at, not the last of all: equal
//! batches say nothing of a slope, and what a small one costs says most of the fixed part.
//! One [`Size`] is of one version on one device in one precision.
//!
//! # Invariants
//!
//! 1. A limit is between 1 and the most that is configured, and never above the ceiling.
//! 2. A limit is at most twice the last one and, above the ceiling's fall, at least half of it.
//! 3. The ceiling only falls: half of what the device had no memory for.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// Share of a batch's time that may be fixed cost.
const OVERHEAD: f64 = 0.05;

/// Share of the memory that batches may fill.
const FILL: f64 = 0.9;

/// The last batches of each order of size (powers of two) that are looked at.
const POINTS: usize = 12;

/// Fewer than this many say nothing yet.
const FEWEST: usize = 8;

/// Each so manieth batch is a quarter of the limit.
const EXPLORE: u64 = 8;

/// No batch needs to be smaller: a few texts.
const LEAST: u64 = 64;

/// The first limit of a version that nothing is known of.
const FIRST: u64 = 1_024;

/// What is known of a version: what is remembered from one run to the next.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Tokens of a batch.
    pub limit: u64,
    /// Tokens that no batch may exceed: the device had no memory for more.
    pub ceiling: Option<u64>,
}

/// The learned size of one version's batches. See the module.
#[derive(Debug, Clone)]
pub struct Size {
    most: u64,
    known: Known,
    /// By order of size.
    points: BTreeMap<u32, VecDeque<Point>>,
    seen: u64,
}

/// What a batch cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Its tokens.
    pub tokens: u64,
    /// Seconds in the model and in its share of a transaction.
    pub seconds: f64,
    /// Bytes in use when it was done; `None` where nothing tells.
    pub bytes: Option<u64>,
}

/// `y = fixed + each · x`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// At x = 0; not below 0.
    pub fixed: f64,
    /// By x.
    pub each: f64,
}

/// The line through points by the median of their slopes; `None` where all have nearly one x.
pub fn fit(points: &[(f64, f64)]) -> Option<Line> {
    let largest = points.iter().map(|(x, _)| *x).fold(0.0, f64::max);
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (place, (x, y)) in points.iter().enumerate() {
        for (other_x, other_y) in &points[..place] {
            // Points side by side say more of the noise than of the slope.
            if largest * 0.1 < (x - other_x).abs() {
                slopes.push((y - other_y) / (x - other_x));
            }
        }
    }
    let each = median(slopes)?;
    let fixed = median(points.iter().map(|(x, y)| y - each * x).collect())?;
    Some(Line { fixed: fixed.max(0.0), each })
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    let middle = values.len() / 2;
    values.sort_by(f64::total_cmp);
    values.get(middle).copied()
}

impl Size {
    /// What `known` says of an earlier run, else a careful start; never above `most`.
    pub fn new(most: u64, known: Option<Known>) -> Self {
        let known = known.unwrap_or(Known { limit: FIRST, ceiling: None });
        Self { most: most.max(1), known, points: BTreeMap::new(), seen: 0 }
    }

    /// What is worth remembering.
    pub fn known(&self) -> Known {
        Known { limit: self.within(self.known.limit), ..self.known }
    }

    /// Tokens of the next batch. Now and then one is a quarter of the limit, to learn from.
    pub fn limit(&self) -> u64 {
        let limit = self.within(self.known.limit);
        if self.seen % EXPLORE == EXPLORE - 1 { self.within(limit / 4) } else { limit }
    }

    /// Takes in a batch's cost; `memory` is how many bytes there are in all.
    pub fn observe(&mut self, point: Point, memory: Option<u64>) {
        self.seen += 1;
        let points = self.points.entry(point.tokens.max(1).ilog2()).or_default();
        if points.len() == POINTS {
            points.pop_front();
        }
        points.push_back(point);
        if FEWEST <= self.points.values().map(VecDeque::len).sum() {
            let wanted = self.by_time().max(LEAST).min(self.by_memory(memory));
            let last = self.within(self.known.limit);
            // Not further at once: the lines are known only as far as there are points.
            self.known.limit = wanted.clamp((last / 2).max(1), last.saturating_mul(2));
        }
    }

    /// The device had no memory for so many tokens.
    pub fn too_large(&mut self, tokens: u64) {
        let half = (tokens / 2).max(1);
        self.known.ceiling = Some(self.known.ceiling.map_or(half, |ceiling| ceiling.min(half)));
    }

    fn within(&self, tokens: u64) -> u64 {
        tokens.min(self.known.ceiling.unwrap_or(u64::MAX)).clamp(1, self.most)
    }

    /// Where the fixed part is no more than its share. Without a fit the last limit stays.
    fn by_time(&self) -> u64 {
        let points = self.points.values().flatten();
        let points: Vec<_> = points.map(|point| (float(point.tokens), point.seconds)).collect();
        match fit(&points) {
            // No time by token is measurable: more tokens are free.
            Some(line) if line.each <= 0.0 => u64::MAX,
            // A batch has a fixed cost: where none is seen, the noise hides it.
            Some(line) if 0.0 < line.fixed => {
                whole(line.fixed / line.each * (1.0 / OVERHEAD - 1.0))
            }
            Some(_) | None => self.known.limit,
        }
    }

    fn by_memory(&self, memory: Option<u64>) -> u64 {
        let point = |point: &Point| Some((float(point.tokens), float(point.bytes?)));
        let points: Vec<_> = self.points.values().flatten().filter_map(point).collect();
        match (fit(&points), memory) {
            (Some(line), Some(memory)) if 0.0 < line.each => {
                whole((float(memory) * FILL - line.fixed) / line.each)
            }
            _ => u64::MAX,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "tokens and bytes of a batch are below 2^52")]
fn float(number: u64) -> f64 {
    number as f64
}

/// A number of tokens, at least 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float becomes an integer saturating, and NaN 0"
)]
fn whole(number: f64) -> u64 {
    (number as u64).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds batches as large as the limit says to a machine of these costs until the limit stands.
    fn learn(size: &mut Size, seconds: impl Fn(u64, u64) -> f64, memory: Option<(u64, u64, u64)>) {
        for batch in 0..200 {
            let tokens = size.limit();
            let bytes = memory.map(|(fixed, each, _)| fixed + each * tokens);
            let point = Point { tokens, seconds: seconds(tokens, batch), bytes };
            size.observe(point, memory.map(|(.., all)| all));
        }
    }

    #[test]
    fn the_fixed_part_becomes_a_twentieth() {
        let mut size = Size::new(100_000, None);
        learn(&mut size, |tokens, _| 0.006 + 30e-6 * float(tokens), None);
        let expect = 19.0 * 0.006 / 30e-6;
        let limit = float(size.known().limit);
        assert!((limit / expect - 1.0).abs() < 0.01, "{limit} and {expect}");
    }

    #[test]
    fn a_quarter_of_slow_batches_changes_little() {
        let mut size = Size::new(100_000, None);
        let slow = |batch: u64| if batch.is_multiple_of(4) { 5.0 } else { 1.0 };
        learn(&mut size, |tokens, batch| slow(batch) * (0.006 + 30e-6 * float(tokens)), None);
        let limit = size.known().limit;
        assert!((1_900..7_600).contains(&limit), "{limit}, where 3,800 is right");
    }

    #[test]
    fn memory_bounds_it() {
        // 1 GiB in all, 500 MiB of it taken, 100 KiB a token: 4,317 tokens fill nine tenths.
        let mut size = Size::new(100_000, None);
        learn(&mut size, |_, _| 1.0, Some((500 << 20, 100 << 10, 1 << 30)));
        let limit = size.known().limit;
        assert!((4_300..4_320).contains(&limit), "{limit}");
    }

    #[test]
    fn what_the_device_had_no_memory_for_is_never_tried_again() {
        let mut size = Size::new(100_000, None);
        size.too_large(8_000);
        learn(&mut size, |_, _| 1.0, None);
        assert_eq!(size.limit().max(size.known().limit), 4_000);
        size.too_large(10_000);
        assert_eq!(size.known().ceiling, Some(4_000), "a ceiling only falls");
        let again = Size::new(100_000, Some(size.known()));
        assert_eq!(again.limit(), 4_000, "and is remembered");
        assert_eq!(
            Size::new(2_000, Some(size.known())).limit(),
            2_000,
            "the configured most holds"
        );
    }

    #[test]
    fn equal_batches_leave_the_limit_alone() {
        let mut size = Size::new(100_000, None);
        for _ in 0..100 {
            size.observe(Point { tokens: 640, seconds: 0.02, bytes: None }, None);
        }
        assert_eq!(size.known().limit, FIRST);
    }

    proptest! {
        /// Invariants 1 to 3 whatever a batch cost and whatever memory there is.
        #[test]
        fn limits_are_within_bounds(
            most in 1..100_000_u64,
            steps in prop::collection::vec(
                (1..200_000_u64, 0.0..100.0_f64, proptest::option::of(any::<u32>()), 0..20_u8), 0..120,
            ),
        ) {
            let mut size = Size::new(most, None);
            let mut ceiling = u64::MAX;
            for (tokens, seconds, bytes, event) in steps {
                let before = size.known().limit;
                if event == 0 {
                    size.too_large(tokens);
                    ceiling = ceiling.min((tokens / 2).max(1));
                    prop_assert_eq!(size.known().ceiling, Some(ceiling), "invariant 3");
                } else {
                    let bytes = bytes.map(u64::from);
                    size.observe(Point { tokens, seconds, bytes }, Some(1 << 31));
                }
                let known = size.known().limit;
                prop_assert!((1..=most.min(ceiling)).contains(&known), "invariant 1: {}", known);
                prop_assert!((1..=known).contains(&size.limit()), "invariant 1");
                prop_assert!(known <= before.saturating_mul(2), "invariant 2");
                prop_assert!((before / 2).min(ceiling) <= known, "invariant 2");
            }
        }

        /// A line comes back from its points, with a tenth of them anywhere.
        #[test]
        fn a_line_is_found(fixed in 0.0..10.0_f64, each in 0.001..10.0_f64, wild in -1e3..1e3_f64) {
            let y = |x: f64| fixed + each * x;
            let points: Vec<(f64, f64)> = (1..=40_u8)
                .map(|n| (f64::from(n), if n % 10 == 0 { wild } else { y(f64::from(n)) }))
                .collect();
            let line = fit(&points).unwrap();
            prop_assert!((line.each - each).abs() < 1e-9 && (line.fixed - fixed).abs() < 1e-6, "{line:?}");
            prop_assert_eq!(fit(&[(3.0, 1.0), (3.0, 2.0)]), None);
        }
    }
}

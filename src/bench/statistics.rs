//! Medians, percentiles, a straight line through times, and how close two lists of answers are.

use serde::Serialize;

use crate::answer::Prediction;

/// A count as a float.
#[expect(clippy::cast_precision_loss, reason = "counts and bytes of a bench stay below 2^52")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

/// A rate as a whole number; 0 where it is none.
pub(super) fn rounded(number: f64) -> u64 {
    format!("{number:.0}").parse().unwrap_or(0)
}

/// The middle value; between the two middle ones of an even number. 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle.wrapping_sub(1)), values.get(middle)) {
        (Some(low), Some(high)) if values.len().is_multiple_of(2) => f64::midpoint(*low, *high),
        (_, Some(value)) => *value,
        (_, None) => 0.0,
    }
}

/// The smallest value that is not below `percent` % of the values (nearest rank). `sorted` ascends; 0 of none.
pub fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent.min(100)).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// `seconds = base + token × tokens`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Fit {
    /// Seconds that a batch takes whatever is in it.
    pub base_seconds: f64,
    /// Seconds for each token, or row.
    pub token_seconds: f64,
    /// The largest distance of a point from the line, as a share of the point.
    pub largest_error: f64,
}

/// A line through `[(tokens, seconds)]`, all above zero, by least squares of the *relative* errors: a batch of one
/// record counts as much as one of a thousand. Neither part is below zero. `None` with fewer than two different
/// numbers of tokens.
pub fn fit(points: &[(f64, f64)]) -> Option<Fit> {
    let least = points.iter().map(|(tokens, _)| *tokens).fold(f64::INFINITY, f64::min);
    let most = points.iter().map(|(tokens, _)| *tokens).fold(0.0, f64::max);
    let good = points.iter().all(|(tokens, seconds)| 0.0 < *tokens && 0.0 < *seconds);
    if !good || most <= least {
        return None;
    }
    // Each equation base + token × tokens = seconds, divided by its seconds.
    let rows = || points.iter().map(|(tokens, seconds)| (1.0 / seconds, tokens / seconds));
    let sum = |term: fn((f64, f64)) -> f64| rows().map(term).sum::<f64>();
    let (one, token) = (sum(|(u, _)| u), sum(|(_, v)| v));
    let (ones, both, tokens) = (sum(|(u, _)| u * u), sum(|(u, v)| u * v), sum(|(_, v)| v * v));
    let determinant = ones * tokens - both * both;
    let mut base_seconds = (tokens * one - both * token) / determinant;
    let mut token_seconds = (ones * token - both * one) / determinant;
    if base_seconds < 0.0 {
        (base_seconds, token_seconds) = (0.0, token / tokens);
    } else if token_seconds < 0.0 {
        (base_seconds, token_seconds) = (one / ones, 0.0);
    }
    let fit = Fit { base_seconds, token_seconds, largest_error: 0.0 };
    let error = |(tokens, seconds): &(f64, f64)| (fit.seconds(*tokens) / seconds - 1.0).abs();
    Some(Fit { largest_error: points.iter().map(error).fold(0.0, f64::max), ..fit })
}

impl Fit {
    /// How long a batch of so many tokens takes.
    pub fn seconds(&self, tokens: f64) -> f64 {
        self.base_seconds + self.token_seconds * tokens
    }

    /// `0.4 ms + 31 µs a token, within 9 % at every size`.
    pub fn words(&self, unit: &str) -> String {
        format!(
            "{} + {} a {unit}, within {:.0} % at every size",
            duration(self.base_seconds),
            duration(self.token_seconds),
            (self.largest_error * 100.0).max(1.0)
        )
    }
}

/// Two digits and a unit.
pub fn duration(seconds: f64) -> String {
    let (amount, unit) = match seconds {
        s if s < 1e-9 => return "0 ms".to_owned(),
        s if s < 1e-6 => (s * 1e9, "ns"),
        s if s < 1e-4 => (s * 1e6, "µs"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let digits = match amount {
        amount if amount < 1.0 => 2,
        amount if amount < 9.95 => 1,
        _ => 0,
    };
    let number = format!("{amount:.digits$}");
    let number =
        if digits == 0 { &number } else { number.trim_end_matches('0').trim_end_matches('.') };
    format!("{number} {unit}")
}

/// How close `found` is to `expected`, answer by answer: the mean cosine of embeddings, or the share of equal best
/// labels. `None` of no answers, and of kinds that have neither.
pub fn agreement(expected: &[Prediction], found: &[Prediction]) -> Option<f64> {
    let one = |(a, b): (&Prediction, &Prediction)| match (a, b) {
        (Prediction::Embedding(a), Prediction::Embedding(b)) => Some(cosine(a, b)),
        (Prediction::Label { best: a, .. }, Prediction::Label { best: b, .. }) => {
            Some(if a == b { 1.0 } else { 0.0 })
        }
        _ => None,
    };
    let each: Vec<f64> = expected.iter().zip(found).map(one).collect::<Option<_>>()?;
    let count = u64::try_from(each.len()).ok().filter(|count| *count != 0)?;
    Some(each.iter().sum::<f64>() / float(count))
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_agree_by_cosine_or_label() {
        let vector = |values: &[f32]| Prediction::Embedding(values.to_vec());
        let label = |best| Prediction::Label { best, scores: Vec::new(), labels: [].into() };
        let (x, y, xy) = (vector(&[2.0, 0.0]), vector(&[0.0, 1.0]), vector(&[3.0, 3.0]));
        near(agreement(&[x.clone(), y.clone()], &[x.clone(), y]).unwrap(), 1.0);
        near(agreement(std::slice::from_ref(&x), &[xy]).unwrap(), f64::sqrt(0.5));
        near(agreement(std::slice::from_ref(&x), &[vector(&[0.0, 0.0])]).unwrap(), 0.0);
        near(agreement(&[label(0), label(1)], &[label(0), label(0)]).unwrap(), 0.5);
        assert_eq!(agreement(&[], &[]), None);
        assert_eq!(agreement(&[x], &[label(0)]), None);
        let value = || Prediction::Value(1.0_f32.into());
        assert_eq!(agreement(&[value()], &[value()]), None);
    }

    #[track_caller]
    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1e-9), "{found} {expected}");
    }

    #[test]
    fn medians_and_percentiles() {
        for (values, expected) in [
            (vec![], 0.0),
            (vec![3.0], 3.0),
            (vec![4.0, 1.0], 2.5),
            (vec![9.0, 1.0, 5.0], 5.0),
            (vec![1.0, 100.0, 2.0, 3.0], 2.5),
        ] {
            near(median(values), expected);
        }
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        for (percent, expected) in [(0, 1.0), (50, 50.0), (99, 99.0), (100, 100.0)] {
            near(percentile(&hundred, percent), expected);
        }
        near(percentile(&[1.0, 2.0, 9.0], 99), 9.0);
        near(percentile(&[], 99), 0.0);
    }

    #[test]
    fn points_on_a_line_give_the_line() {
        for (base, token) in [(4e-4, 31e-6), (0.0, 1e-6), (2.0, 1e-3), (1e-6, 2e-9)] {
            let point =
                |n: i32| (f64::powi(2.0, n) * 17.0, base + token * f64::powi(2.0, n) * 17.0);
            let fit = fit(&(0..=10).map(point).collect::<Vec<_>>()).unwrap();
            near(fit.token_seconds, token);
            assert!((fit.base_seconds - base).abs() < 1e-9 * token.max(base), "{fit:?}");
            assert!(fit.largest_error < 1e-6, "{fit:?}");
        }
    }

    #[test]
    fn neither_part_is_below_zero() {
        let convex = fit(&[(1.0, 0.9), (2.0, 2.2), (4.0, 5.0)]).unwrap();
        near(convex.base_seconds, 0.0);
        assert!(0.0 < convex.token_seconds && 0.05 < convex.largest_error, "{convex:?}");
        let falling = fit(&[(1.0, 2.0), (2.0, 1.0)]).unwrap();
        near(falling.token_seconds, 0.0);
    }

    #[test]
    fn no_line_through_one_size() {
        for points in [&[][..], &[(5.0, 1.0)], &[(5.0, 1.0), (5.0, 2.0)], &[(1.0, 0.0), (2.0, 1.0)]]
        {
            assert_eq!(fit(points), None, "{points:?}");
        }
    }

    #[test]
    fn in_words() {
        let fit = Fit { base_seconds: 4e-4, token_seconds: 31e-6, largest_error: 0.088 };
        assert_eq!(fit.words("token"), "0.4 ms + 31 µs a token, within 9 % at every size");
        for (seconds, words) in [
            (0.0, "0 ms"),
            (3e-8, "30 ns"),
            (2.5e-6, "2.5 µs"),
            (1.2e-3, "1.2 ms"),
            (0.25, "250 ms"),
            (2.0, "2 s"),
            (61.0, "61 s"),
        ] {
            assert_eq!(duration(seconds), words);
        }
    }
}

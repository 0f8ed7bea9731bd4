//! A number that a rule states, and what is the same as it.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::field::Value;

/// A number of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "serde_json::Number", into = "serde_json::Number")]
pub struct Bound {
    /// The nearest f64.
    number: f64,
    /// The nearest f32, as which formats with numbers of 32 bits have it.
    single: f64,
    /// The number itself, where it is a whole one.
    whole: Option<i128>,
}

/// Every whole number of an f64 up to this is an i128 too.
const LARGEST: f64 = 1e38;

impl Bound {
    #[expect(clippy::cast_possible_truncation, reason = "the nearest is what is asked for")]
    fn new(number: f64, whole: Option<i128>) -> Self {
        let single = f64::from(number as f32);
        // Beyond the range of an f32 none is near.
        let single = if (number as f32).is_normal() { single } else { number };
        let is_whole = number.fract() == 0.0 && number.abs() < LARGEST;
        Self { number, single, whole: whole.or_else(|| is_whole.then_some(number as i128)) }
    }

    /// The number that a text is.
    pub(super) fn of_text(text: &str) -> Option<Self> {
        Some(Self::new(text.parse().ok()?, text.parse().ok()))
    }

    /// The nearest f64.
    pub fn number(self) -> f64 {
        self.number
    }

    /// How a value compares with it; `None` of what is no number. Whole numbers are compared digit by digit, and the f32
    /// that is nearest to it is equal.
    #[expect(clippy::float_cmp, reason = "the number that a format of 32 bits has for it")]
    pub(super) fn compare(self, value: &Value<'_>) -> Option<Ordering> {
        let whole = if let Value::Int(whole) = value {
            Some(*whole)
        } else if let Value::Decimal(digits) = value {
            digits.parse().ok()
        } else {
            None
        };
        if let (Some(whole), Some(own)) = (whole, self.whole) {
            return Some(whole.cmp(&own));
        }
        let number = value.number()?;
        let is_single = matches!(value, Value::Float(_)) && number == self.single;
        if is_single { Some(Ordering::Equal) } else { number.partial_cmp(&self.number) }
    }

    /// Whether a value is that number.
    pub(super) fn is(self, value: &Value<'_>) -> bool {
        let both_nan = || self.number.is_nan() && value.number().is_some_and(f64::is_nan);
        self.compare(value) == Some(Ordering::Equal) || both_nan()
    }
}

impl From<serde_json::Number> for Bound {
    fn from(number: serde_json::Number) -> Self {
        Self::new(number.as_f64().unwrap_or(f64::NAN), number.as_i128())
    }
}

impl From<&serde_json::Number> for Bound {
    fn from(number: &serde_json::Number) -> Self {
        number.clone().into()
    }
}

impl From<Bound> for serde_json::Number {
    fn from(bound: Bound) -> Self {
        let whole = bound.whole.and_then(Self::from_i128);
        whole.or_else(|| Self::from_f64(bound.number)).unwrap_or_else(|| 0.into())
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.whole {
            Some(whole) => whole.fmt(f),
            None => self.number.fmt(f),
        }
    }
}

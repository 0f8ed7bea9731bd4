//! Amounts that carry their unit: `50ms`, `6MiB`. A bare number is refused.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration, written `250us`, `50ms`, `2s`, `10m`, `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

impl Time {
    /// So many milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

/// A number of bytes, written `512B`, `64KiB`, `6MiB`, `2GiB` (and `kB`, `MB`, `GB` by thousands).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// So many mebibytes.
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// As a length in memory.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}: write a number and a unit, one of {units}")]
pub struct NotAnAmount {
    text: String,
    what: &'static str,
    units: String,
}

/// A unit's name and how many of the smallest it is.
type Unit = (&'static str, u64);

const TIMES: &[Unit] = &[
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

const SIZES: &[Unit] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// `number × unit`, or `None` where the text has another form or is too large.
fn parse(text: &str, units: &[Unit]) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// In the largest of `units` that divides it.
fn print(amount: u64, units: &[Unit], zero: &str) -> String {
    let unit = units.iter().rev().find(|(_, factor)| amount.is_multiple_of(*factor));
    match unit {
        Some((name, factor)) if amount != 0 => format!("{}{name}", amount / factor),
        _ => zero.to_owned(),
    }
}

fn refuse(text: &str, what: &'static str, units: &[Unit]) -> NotAnAmount {
    let units: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
    NotAnAmount { text: text.to_owned(), what, units: units.join(", ") }
}

impl FromStr for Time {
    type Err = NotAnAmount;

    fn from_str(text: &str) -> Result<Self, NotAnAmount> {
        let nanos = parse(text, TIMES).ok_or_else(|| refuse(text, "a duration", TIMES))?;
        Ok(Self(Duration::from_nanos(nanos)))
    }
}

impl FromStr for Size {
    type Err = NotAnAmount;

    fn from_str(text: &str) -> Result<Self, NotAnAmount> {
        parse(text, SIZES).map(Self).ok_or_else(|| refuse(text, "a size", SIZES))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print(u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX), TIMES, "0ms"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print(self.0, &SIZES[..4], "0B"))
    }
}

/// Both amounts are strings in the file, so that the unit is always there.
macro_rules! as_text {
    ($type:ty) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a number with its unit")
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<$type, E> {
                        self.visit_str(&number.to_string())
                    }
                }
                deserializer.deserialize_any(Visitor)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}
as_text!(Time);
as_text!(Size);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_round_trip() {
        for text in ["0ms", "250us", "50ms", "2s", "10m", "1h", "1500ms", "90s"] {
            assert_eq!(text.parse::<Time>().unwrap().to_string(), text);
        }
        for text in ["0B", "512B", "64KiB", "6MiB", "2GiB"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        assert_eq!("6MB".parse::<Size>().unwrap(), Size(6_000_000));
    }

    #[test]
    fn what_has_no_unit_is_refused() {
        for text in ["", "50", "ms", "-5ms", "5 parsecs", "1.5s", "9999999999h"] {
            let said = text.parse::<Time>().unwrap_err().to_string();
            assert!(said.contains("a duration") && said.contains("us, ms, s, m, h"), "{said}");
        }
        assert!("6".parse::<Size>().is_err());
        assert!("6mb".parse::<Size>().is_err());
    }
}

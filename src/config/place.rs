//! What `model.device` says.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What `model.device` says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Place {
    /// `cpu`.
    #[default]
    Cpu,
    /// `cuda:0`, or several: `cuda:0,cuda:1`. Their numbers, in order, none twice, at least one.
    Cuda(Vec<usize>),
    /// `metal:0`.
    Metal(usize),
}

/// Why a text names no device; [`Place::FORM`] is what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoDevice(String);

impl FromStr for Place {
    type Err = NoDevice;

    fn from_str(text: &str) -> Result<Self, NoDevice> {
        let fail = |why: String| Err(NoDevice(why));
        let (mut kinds, mut ordinals) = (BTreeSet::new(), Vec::new());
        for name in text.split(',').map(str::trim) {
            let ordinal = match name.split_once(':') {
                None if name == "cpu" => Some(0),
                Some(("cuda" | "metal", number)) => number.parse::<u8>().ok(),
                None | Some(_) => None,
            };
            let Some(ordinal) = ordinal.map(usize::from) else {
                return fail(format!("{name:?} is no device"));
            };
            kinds.insert(name.split(':').next().unwrap_or_default());
            if kinds.len() > 1 {
                return fail(format!("{text:?} mixes kinds of devices: their answers differ"));
            }
            if ordinals.contains(&ordinal) {
                return fail(format!("{text:?} has {name} twice: it would hold the weights twice"));
            }
            ordinals.push(ordinal);
        }
        match (kinds.first(), &ordinals[..]) {
            (Some(&"cpu"), _) => Ok(Self::Cpu),
            (Some(&"metal"), [ordinal]) => Ok(Self::Metal(*ordinal)),
            (Some(&"metal"), _) => fail(format!("{text:?}: one Metal device is supported")),
            _ => Ok(Self::Cuda(ordinals)),
        }
    }
}

impl TryFrom<String> for Place {
    type Error = NoDevice;

    fn try_from(text: String) -> Result<Self, NoDevice> {
        text.parse()
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinals) => {
                let names: Vec<String> =
                    ordinals.iter().map(|ordinal| format!("cuda:{ordinal}")).collect();
                f.write_str(&names.join(","))
            }
            Self::Metal(ordinal) => write!(f, "metal:{ordinal}"),
        }
    }
}

impl Place {
    /// What to write.
    pub const FORM: &str = "write `cpu`, `cuda:0`, several as `cuda:0,cuda:1`, or `metal:0`";

    /// How many devices it names.
    pub fn count(&self) -> usize {
        match self {
            Self::Cpu | Self::Metal(_) => 1,
            Self::Cuda(ordinals) => ordinals.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        for (text, place, count) in [
            ("cpu", Place::Cpu, 1),
            ("cuda:0", Place::Cuda(vec![0]), 1),
            ("cuda:1,cuda:0", Place::Cuda(vec![1, 0]), 2),
            ("metal:0", Place::Metal(0), 1),
        ] {
            let read: Place = text.parse().unwrap();
            assert_eq!((read.count(), read.to_string().as_str()), (count, text));
            assert_eq!(read, place);
        }
        assert_eq!("cuda:0, cuda:1".parse(), Ok(Place::Cuda(vec![0, 1])));
        for (text, said) in [
            ("", "no device"),
            ("gpu", "no device"),
            ("cuda", "no device"),
            ("cpu:0", "no device"),
            ("cuda:", "no device"),
            ("cuda:-1", "no device"),
            ("cuda:256", "no device"),
            ("cuda:0,", "no device"),
            ("cuda:0,cuda:00", "twice"),
            ("cpu,cpu", "twice"),
            ("cuda:0,cpu", "mixes"),
            ("metal:0,cuda:0", "mixes"),
            ("metal:0,metal:1", "one Metal device"),
        ] {
            let error = text.parse::<Place>().unwrap_err().to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }
}

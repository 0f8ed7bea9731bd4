//! `models:/name/3`, `models:/name@champion`, or a directory.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::record::Version;

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uri {
    /// A directory as it stands, version 0.
    Directory(PathBuf),
    /// A registered version.
    Version {
        /// The registered name.
        model: String,
        /// The version.
        version: Version,
    },
    /// What an alias points at.
    Alias {
        /// The registered name.
        model: String,
        /// The alias.
        alias: String,
    },
}

/// The highest version: what every database and JSON reader takes.
pub(super) const LAST: u64 = i64::MAX.unsigned_abs();

/// The version that a text is the number of, written as [`Version`] writes it: `1` to `9223372036854775807`. `01` and
/// `+1` would be a second name of it.
pub(super) fn version(text: &str) -> Option<Version> {
    let number: u64 = text.parse().ok()?;
    let canonical = (1..=LAST).contains(&number) && number.to_string() == text;
    canonical.then_some(Version(number))
}

/// Why a text is no URI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no model: write models:/name@alias, models:/name/3, or a directory")]
pub struct NotAUri(String);

impl FromStr for Uri {
    type Err = NotAUri;

    fn from_str(text: &str) -> Result<Self, NotAUri> {
        let refuse = || NotAUri(text.to_owned());
        let Some(rest) = text.strip_prefix("models:/") else {
            let other_scheme = text.contains("://") || text.is_empty();
            return if other_scheme { Err(refuse()) } else { Ok(Self::Directory(text.into())) };
        };
        if let Some((model, alias)) = rest.split_once('@') {
            let (model, alias) = (super::name(model), super::name(alias));
            let (model, alias) =
                (model.map_err(|_error| refuse())?, alias.map_err(|_error| refuse())?);
            return Ok(Self::Alias { model: model.to_owned(), alias: alias.to_owned() });
        }
        let (model, version) = rest.split_once('/').ok_or_else(refuse)?;
        let model = super::name(model).map_err(|_error| refuse())?.to_owned();
        let version = self::version(version).ok_or_else(refuse)?;
        Ok(Self::Version { model, version })
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(dir) => dir.display().fmt(f),
            Self::Version { model, version } => write!(f, "models:/{model}/{version}"),
            Self::Alias { model, alias } => write!(f, "models:/{model}@{alias}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_round_trip_and_others_are_refused() {
        for good in ["models:/a/3", "models:/a-b@champion", "./model", "/srv/model"] {
            assert_eq!(good.parse::<Uri>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "models:/a",
            "models:/a/0",
            "models:/a/x",
            "models:/a/01",
            "models:/a/+1",
            "models:/a/9223372036854775808",
            "models:/../1",
            "models:/a@",
            "s3://b/m",
        ] {
            assert!(bad.parse::<Uri>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_version_has_one_name() {
        for (text, expect) in [
            ("1", Some(1)),
            ("9223372036854775807", Some(LAST)),
            ("9223372036854775808", None),
            ("18446744073709551615", None),
            ("99999999999999999999", None),
            ("0", None),
            ("01", None),
            ("+1", None),
            ("-1", None),
            (" 1", None),
            ("1e3", None),
            ("١", None),
            ("", None),
        ] {
            assert_eq!(version(text), expect.map(Version), "{text:?}");
        }
    }
}

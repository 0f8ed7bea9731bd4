//! What `model.uri` says: `models:/name/3`, `models:/name@champion`, or a directory.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::record::Version;

/// Where a model is. By default in the directory without a name, which is none: it has to be set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
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

impl Uri {
    /// What a registered model's begins with.
    pub const REGISTERED: &str = "models:/";

    /// What to write.
    pub const FORM: &str = "write `models:/NAME@ALIAS`, `models:/NAME/VERSION` or a directory";

    /// Whether it is the default, which names nothing.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Directory(dir) if dir.as_os_str().is_empty())
    }
}

impl Default for Uri {
    fn default() -> Self {
        Self::Directory(PathBuf::new())
    }
}

/// The highest version: what every database and JSON reader takes.
pub const LAST: u64 = i64::MAX.unsigned_abs();

/// The version that a text is the number of, written as [`Version`] writes it: `1` to `9223372036854775807`. `01` and
/// `+1` would be a second name of it.
pub fn version(text: &str) -> Option<Version> {
    let number: u64 = text.parse().ok()?;
    let canonical = (1..=LAST).contains(&number) && number.to_string() == text;
    canonical.then_some(Version(number))
}

/// Whether a model or an alias can have this name: it cannot leave the registry's folder, and hides nothing in it.
pub fn is_name(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c);
    (1..=128).contains(&text.len()) && text.chars().all(legal) && !text.starts_with('.')
}

/// Why a text is no URI; [`Uri::FORM`] is what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAUri {
    /// It has another scheme, or nothing in it.
    #[error("{0:?} names no model")]
    Model(String),
    /// It begins as a registered model's, and goes on otherwise.
    #[error("{0:?} names no version")]
    Version(String),
}

impl FromStr for Uri {
    type Err = NotAUri;

    fn from_str(text: &str) -> Result<Self, NotAUri> {
        let Some(rest) = text.strip_prefix(Self::REGISTERED) else {
            let other_scheme = text.contains("://") || text.is_empty();
            return if other_scheme {
                Err(NotAUri::Model(text.to_owned()))
            } else {
                Ok(Self::Directory(text.into()))
            };
        };
        let by_alias = || {
            let (model, alias) = rest.split_once('@')?;
            (is_name(model) && is_name(alias))
                .then(|| Self::Alias { model: model.to_owned(), alias: alias.to_owned() })
        };
        let by_number = || {
            let (model, number) = rest.split_once('/')?;
            let version = version(number).filter(|_| is_name(model))?;
            Some(Self::Version { model: model.to_owned(), version })
        };
        by_alias().or_else(by_number).ok_or_else(|| NotAUri::Version(text.to_owned()))
    }
}

/// As a file has it, where nothing is the default.
impl TryFrom<String> for Uri {
    type Error = NotAUri;

    fn try_from(text: String) -> Result<Self, NotAUri> {
        if text.is_empty() { Ok(Self::default()) } else { text.parse() }
    }
}

impl From<Uri> for String {
    fn from(uri: Uri) -> Self {
        uri.to_string()
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(dir) => dir.display().fmt(f),
            Self::Version { model, version } => write!(f, "{}{model}/{version}", Self::REGISTERED),
            Self::Alias { model, alias } => write!(f, "{}{model}@{alias}", Self::REGISTERED),
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
    fn names_cannot_leave_the_registry() {
        for good in ["a", "breast-cancer", "m_1.2"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "..", ".hidden", "a/b", "a\\b", "ä", &"x".repeat(129)] {
            assert!(!is_name(bad), "{bad}");
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

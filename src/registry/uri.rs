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

/// Why a text is no URI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no model: write models:/name@alias, models:/name/3, or a directory")]
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
        let version = version.parse().ok().filter(|version| *version != 0).ok_or_else(refuse)?;
        Ok(Self::Version { model, version: Version(version) })
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
            "models:/../1",
            "models:/a@",
            "s3://b/m",
        ] {
            assert!(bad.parse::<Uri>().is_err(), "{bad}");
        }
    }
}

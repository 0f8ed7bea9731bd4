//! What `log` says: which log is read and written.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The log that is read and written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Option<String>", into = "Option<String>")]
pub enum Log {
    /// The cluster that `kafka` names.
    #[default]
    Kafka,
    /// The embedded one, in this file: `sqlite:FILE`.
    Sqlite(PathBuf),
}

/// What names the embedded log.
const SQLITE: &str = "sqlite:";

impl Log {
    /// What to write.
    pub const FORM: &str = "write `sqlite:FILE`, or leave it out";
}

/// Why a text names no log; [`Log::FORM`] is what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no embedded log")]
pub struct NoLog(String);

/// As a file has it, where nothing is Kafka.
impl TryFrom<Option<String>> for Log {
    type Error = NoLog;

    fn try_from(text: Option<String>) -> Result<Self, NoLog> {
        let Some(text) = text else { return Ok(Self::Kafka) };
        let file = text.strip_prefix(SQLITE).filter(|file| !file.is_empty());
        file.map(|file| Self::Sqlite(file.into())).ok_or(NoLog(text))
    }
}

impl From<Log> for Option<String> {
    fn from(log: Log) -> Self {
        match log {
            Log::Kafka => None,
            Log::Sqlite(file) => Some(format!("{SQLITE}{}", file.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_kafka_or_a_file() {
        for (text, log) in [
            (None, Log::Kafka),
            (Some("sqlite:x.db"), Log::Sqlite("x.db".into())),
            (Some("sqlite:/a b/c"), Log::Sqlite("/a b/c".into())),
        ] {
            let text = text.map(str::to_owned);
            assert_eq!(Log::try_from(text.clone()), Ok(log.clone()));
            assert_eq!(Option::<String>::from(log), text);
        }
        for bad in ["", "x.db", "sqlite:", "SQLite:x", "kafka"] {
            let error = Log::try_from(Some(bad.to_owned())).unwrap_err().to_string();
            assert_eq!(error, format!("{bad:?} names no embedded log"));
        }
    }
}

//! What the clients say: their log, and the errors that only there have a cause.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

use crate::log::Failure;

/// Passes the client's log on, and remembers the last line that names the cause of a refused connection:
/// the errors themselves only say that a broker is away.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<Option<String>>>);

impl Journal {
    /// What kept the last connection from coming up, as the client's log had it.
    pub fn cause(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the broker was reached and did not want us: no repetition cures that.
    pub(super) fn refused(&self) -> bool {
        let cause = self.cause().unwrap_or_default().to_ascii_lowercase();
        ["authentication", "certificate"].iter().any(|word| cause.contains(word))
    }

    /// Keeps a line that names why there is no connection.
    fn note(&self, line: &str) {
        let lower = line.to_ascii_lowercase();
        let causes = ["authentication", "ssl", "sasl", "resolve", "connect to"];
        if causes.iter().any(|word| lower.contains(word)) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(line.to_owned());
        }
    }

    pub(super) fn error(&self, error: &KafkaError, reason: &str) {
        self.note(reason);
        tracing::debug!(target: "rdkafka", %error, "{reason}");
    }

    pub(super) fn write(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        if (level as i32) <= RDKafkaLogLevel::Warning as i32 {
            self.note(line);
        }
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(target: "rdkafka", facility, "{line}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "rdkafka", facility, "{line}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "rdkafka", facility, "{line}"),
        }
    }

    pub(super) fn failure(&self, what: &str, error: &KafkaError, exit: u8) -> Failure {
        // Not `Display`: for a property that is not taken it prints the value, which may be a password.
        let why = if let KafkaError::ClientConfig(_, why, key, _) = error {
            format!("property {key}: {why}")
        } else {
            error.to_string()
        };
        let cause = self
            .cause()
            .map_or_else(String::new, |line| format!(" (last from the client: {line})"));
        Failure { message: format!("{what}: {why}{cause}"), exit }
    }
}

impl ClientContext for Journal {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.write(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Self::error(self, &error, reason);
    }
}

impl ConsumerContext for Journal {}

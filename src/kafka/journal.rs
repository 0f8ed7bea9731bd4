//! What the clients say: their log, and the errors that only there have a cause.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

use super::settings;
use crate::config::Config;
use crate::config::secret::Secrets;
use crate::log::Failure;

/// Passes the client's log on, and remembers the last line that names the cause of a refused connection:
/// the errors themselves only say that a broker is away.
///
/// Nothing that goes through it has a secret of the configuration in it.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    cause: Arc<Mutex<Option<String>>>,
    secrets: Arc<Secrets>,
}

impl Journal {
    /// For the clients of this configuration.
    pub fn new(config: &Config) -> Self {
        Self { cause: Arc::default(), secrets: Arc::new(config.secrets.clone()) }
    }

    /// What kept the last connection from coming up, as the client's log had it.
    pub fn cause(&self) -> Option<String> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A text from the client, without secrets.
    pub fn clean(&self, text: &str) -> String {
        self.secrets.redact(text)
    }

    /// What an error says, without the values of properties. `Display` prints them for a property that is not taken.
    pub fn text(&self, error: &KafkaError) -> String {
        let text = match (settings::why(error), error) {
            (Some(why), KafkaError::ClientConfig(_, _, key, _)) => format!("property {key} {why}"),
            _ => error.to_string(),
        };
        self.secrets.redact(&text)
    }

    /// Whether the broker was reached and did not want us: no repetition cures that.
    pub(super) fn refused(&self) -> bool {
        let cause = self.cause().unwrap_or_default().to_ascii_lowercase();
        ["authentication", "certificate"].iter().any(|word| cause.contains(word))
    }

    /// Keeps a line that names why there is no connection.
    fn note(&self, line: &str) {
        let line = self.secrets.redact(without_thread(line));
        let lower = line.to_ascii_lowercase();
        let causes = ["authentication", "ssl", "sasl", "resolve", "connect to", "apiversion_query"];
        if causes.iter().any(|word| lower.contains(word)) {
            *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
        }
    }

    pub(super) fn error(&self, error: &KafkaError, reason: &str) {
        self.note(reason);
        let (error, reason) = (self.text(error), self.secrets.redact(reason));
        tracing::debug!(target: "rdkafka", error, "{reason}");
    }

    pub(super) fn write(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        // A peer that hangs up on the first request speaks another protocol; the client thinks nothing of it.
        if (level as i32) <= RDKafkaLogLevel::Warning as i32 || line.contains("APIVERSION_QUERY") {
            self.note(line);
        }
        let line = self.secrets.redact(line);
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
        let why = self.text(error);
        let cause = self
            .cause()
            .map_or_else(String::new, |line| format!(" (last from the client: {line})"));
        Failure { message: self.secrets.redact(&format!("{what}: {why}{cause}")), exit }
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

/// A line of the client's log without the thread that wrote it.
pub fn without_thread(line: &str) -> &str {
    let thread = line.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: "));
    thread.map_or(line, |(_, line)| line)
}

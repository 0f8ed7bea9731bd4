//! What the clients say: their log, and the errors that only there have a cause.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

use super::identity::Identity;
use crate::config::secret::Secrets;
use crate::config::{Config, properties};
use crate::failure::{Exit, Failure};

/// How long a line explains why there is no connection. The client repeats it every 30 seconds while that is so.
const BELIEVED: Duration = Duration::from_secs(75);

/// A line that names why there is no connection.
#[derive(Debug, Clone)]
struct Cause {
    line: String,
    at: Instant,
}

/// Passes the client's log on, and remembers the last line that names the cause of a refused connection:
/// the errors themselves only say that a broker is away.
///
/// Nothing that goes through it has a secret of the configuration in it.
#[derive(Clone, Default)]
pub struct Journal {
    cause: Arc<Mutex<Option<Cause>>>,
    secrets: Arc<Secrets>,
    identity: Identity,
}

/// Without the secrets and the token.
impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("cause", &self.cause).finish_non_exhaustive()
    }
}

impl Journal {
    /// For the clients of this configuration.
    pub fn new(config: &Config) -> Self {
        let secrets = Arc::new(config.secrets.clone());
        Self { cause: Arc::default(), secrets, identity: Identity::of(config) }
    }

    /// For a client whose connections say nothing of the others': with a cause of its own.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self { cause: Arc::default(), ..self.clone() }
    }

    /// Who its clients are, where brokers want a token.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What keeps a connection from coming up, as the client's log had it; `None` where that was long ago.
    pub fn cause(&self) -> Option<String> {
        self.cause_at(Instant::now()).map(|cause| cause.line)
    }

    fn cause_at(&self, now: Instant) -> Option<Cause> {
        let cause = self.lock().clone()?;
        (now.saturating_duration_since(cause.at) < BELIEVED).then_some(cause)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Cause>> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster has answered: what kept it from that is over, and explains no other outage.
    pub(super) fn answered(&self) {
        *self.lock() = None;
    }

    /// The one of two whose cause is the younger.
    pub(super) fn younger<'a>(&'a self, other: &'a Self) -> &'a Self {
        let at = |journal: &Self| journal.lock().as_ref().map(|cause| cause.at);
        if at(self) < at(other) { other } else { self }
    }

    /// A text from the client, without secrets.
    pub fn clean(&self, text: &str) -> String {
        self.secrets.redact(text)
    }

    /// What an error says, without the values of properties. `Display` prints them for a property that is not taken.
    pub fn text(&self, error: &KafkaError) -> String {
        let text = match (properties::why(error), error) {
            (Some(why), KafkaError::ClientConfig(_, _, key, _)) => format!("property {key} {why}"),
            _ => error.to_string(),
        };
        self.secrets.redact(&text)
    }

    /// Whether the broker was reached and did not want us: no repetition cures that, until credentials are changed.
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
            *self.lock() = Some(Cause { line, at: Instant::now() });
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

    pub(super) fn failure(&self, what: &str, error: &KafkaError, exit: Exit) -> Failure {
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

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &str = "[thrd:b:1]: SASL authentication error: Authentication failed";
    const AWAY: &str = "[thrd:b:1]: Connect to ipv4#127.0.0.1:1 failed: Connection refused";

    #[test]
    fn an_old_refusal_explains_no_other_outage() {
        let journal = Journal::default();
        assert!(journal.cause().is_none() && !journal.refused());
        journal.note(REFUSED);
        assert!(journal.refused());
        let (_, line) = REFUSED.split_once("]: ").unwrap();
        assert_eq!(journal.cause().as_deref(), Some(line));
        // What has nothing to do with connections changes nothing.
        journal.note("a partition has moved");
        assert!(journal.refused());
        journal.note(AWAY);
        assert!(!journal.refused() && journal.cause().unwrap().contains("Connection refused"));
        journal.note(REFUSED);
        journal.answered();
        assert!(journal.cause().is_none() && !journal.refused());
        journal.note(REFUSED);
        let now = Instant::now();
        for (seconds, known) in [(0, true), (40, true), (90, false)] {
            let at = now + Duration::from_secs(seconds);
            assert_eq!(journal.cause_at(at).is_some(), known, "after {seconds} s");
        }
    }

    #[test]
    fn each_client_that_is_beside_has_its_own_cause() {
        let (members, look) = (Journal::default(), Journal::default().beside());
        members.note(AWAY);
        look.note(REFUSED);
        assert!(!members.refused() && look.refused());
        assert!(members.younger(&look).refused() && look.younger(&members).refused());
        look.answered();
        assert!(members.cause().is_some() && look.cause().is_none());
        assert!(members.younger(&look).cause().is_some());
        assert!(look.younger(&members).cause().is_some());
    }
}

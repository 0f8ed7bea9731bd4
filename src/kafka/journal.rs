//! What the clients say: their log, and the errors that only there have a cause.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

use super::identity::Identity;
use super::{RARELY, SELDOM, cause};
use crate::config::identity::{self, Tokens};
use crate::config::secret::Secrets;
use crate::config::{Config, properties};
use crate::failure::{Exit, Failure};
use crate::repeated::Kinds;
use crate::status::Refused;

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
#[derive(Clone)]
pub struct Journal {
    cause: Arc<Mutex<Option<Cause>>>,
    secrets: Arc<Secrets>,
    identity: Identity,
    /// What the clients have said, all of them together.
    said: Arc<Mutex<Kinds>>,
    /// What its clients show who they are.
    tokens: Tokens,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            cause: Arc::default(),
            secrets: Arc::default(),
            identity: Identity::default(),
            said: Arc::new(Mutex::new(Kinds::new(SELDOM, RARELY))),
            tokens: Tokens::default(),
        }
    }
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
        let tokens = identity::tokens(&config.kafka);
        Self { secrets, identity: Identity::of(config), tokens, ..Self::default() }
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

    /// Where the broker was reached and did not want us, or we not it: no repetition cures that, until credentials are
    /// changed.
    pub(super) fn refusal(&self) -> Option<Refused> {
        cause::refused(&self.cause()?, self.tokens)
    }

    /// Whether it is so.
    pub(super) fn refused(&self) -> bool {
        self.refusal().is_some()
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

    /// How often a line of its kind came from any of the clients, and within how long, where it is time to say so.
    fn due(&self, facility: &str, line: &str, now: Instant) -> Option<(usize, Duration)> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.seen_over(&kind(facility, line), now)
    }

    /// While a broker hangs, each client says so again and again: the first line of a kind is passed on at once, and what
    /// follows with growing pauses.
    pub(super) fn write(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        // A peer that hangs up on the first request speaks another protocol; the client thinks nothing of it.
        if (level as i32) <= RDKafkaLogLevel::Warning as i32 || line.contains("APIVERSION_QUERY") {
            self.note(line);
        }
        let line = self.secrets.redact(line);
        if matches!(level, RDKafkaLogLevel::Debug) {
            return tracing::debug!(target: "rdkafka", facility, "{line}");
        }
        let Some((times, over)) = self.due(facility, &line, Instant::now()) else { return };
        // A field that is not there is not written.
        let times = (times != 1).then_some(times);
        let within = times.map(|_| tracing::field::debug(Duration::from_secs(over.as_secs())));
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "rdkafka", facility, times, within, "{line}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::info!(target: "rdkafka", facility, times, within, "{line}");
            }
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

/// What lines have in common that differ in their times, counts and offsets. A broker, whose name stands before the
/// first colon with a space behind it, keeps its number.
fn kind(facility: &str, line: &str) -> String {
    let line = without_thread(line);
    let (of, said) = line.split_once(": ").unwrap_or(("", line));
    let mut kind = format!("{facility} {of}: ");
    for character in said.chars().take(LONGEST_KIND) {
        let digit = character.is_ascii_digit();
        if !digit {
            kind.push(character);
        } else if !kind.ends_with('0') {
            kind.push('0');
        }
    }
    kind
}

/// So many characters tell the kind of a line.
const LONGEST_KIND: usize = 256;

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

    /// A broker that hangs for an hour, as four clients tell it.
    #[test]
    fn what_a_client_repeats_is_said_ever_more_seldom() {
        let journal = Journal::default();
        let clients = [journal.clone(), journal.beside(), journal.clone(), journal.beside()];
        let start = Instant::now();
        let mut said = Vec::new();
        for second in (0..3_600).step_by(5) {
            for client in &clients {
                let line = format!(
                    "[thrd:b:9092/1]: b:9092/1: Timed out FetchRequest in flight (after {}ms, timeout #{second})",
                    60_000 + second
                );
                let now = start + Duration::from_secs(second);
                said.extend(client.due("REQTMOUT", &line, now).map(|(times, _)| times));
            }
        }
        assert!((4..=14).contains(&said.len()), "{said:?}");
        assert_eq!((said[0], said[1]), (1, 9), "four in each five seconds");
        let line =
            |broker: &str| format!("[thrd:{broker}]: {broker}: Timed out FetchRequest in flight");
        let due =
            |facility: &str, line: &str| journal.due(facility, line, start).map(|(times, _)| times);
        assert_eq!(due("REQTMOUT", &line("b:9092/2")), Some(1), "another broker");
        assert_eq!(due("FAIL", &line("b:9092/2")), Some(1), "another kind");
        assert_eq!(due("FAIL", &line("b:9092/2")), None);
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

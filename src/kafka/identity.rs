//! Who our clients are to brokers that want a token: gets it, and gives every client a newer one before it expires.
//!
//! librdkafka asks for a token through a client's queue, and waits until somebody polls that. A client that only asks
//! questions is not polled for hours, and an admin client never. So nobody waits for being asked here: a token is given to
//! each client when it is made, and each newer one to all that live, by a thread of its own.

mod amazon;
mod granted;
mod sign;
mod sources;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use rdkafka::client::{Client, ClientContext};

use super::{drop_aside, native, spawn};
use crate::config::Config;
use crate::config::identity::{self, Tokens};
use crate::failure::Failure;

/// How often the thread looks whether a token is due.
const LOOK: Duration = Duration::from_millis(500);
/// Before a token that could not be had is asked for again: at first, and at most.
const AGAIN: Duration = Duration::from_secs(2);
const AGAIN_MOST: Duration = Duration::from_secs(60);

/// What says to a broker who we are, for a while. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The token itself.
    pub value: String,
    /// Whom it names. Only the client's own log shows it.
    pub principal: String,
    /// When it expires, milliseconds since 1970.
    pub expires: i64,
    /// What goes along to the broker.
    pub extensions: Vec<(String, String)>,
    /// Where it comes from, for a person.
    pub origin: String,
}

type Issue = Box<dyn Fn() -> Result<Token, Failure> + Send + Sync>;
/// Gives a client a token; false where the client has gone.
type Taker = Box<dyn Fn(&Token) -> bool + Send>;

/// Who our clients are. Clones are one identity; without a mechanism that wants tokens it does nothing.
#[derive(Clone, Default)]
pub struct Identity(Option<Arc<Holder>>);

struct Holder {
    issue: Issue,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    token: Option<Token>,
    /// When the next one is to be got.
    due: Option<Instant>,
    takers: Vec<Taker>,
    /// Whether the thread runs.
    renewed: bool,
}

impl Holder {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets a token and gives it to all.
    fn renew(&self) -> Result<(), Failure> {
        let token = (self.issue)()?;
        let mut held = self.held();
        held.due = Some(Instant::now() + until_next(token.expires, now_ms()));
        held.takers.retain(|give| give(&token));
        held.token = Some(token);
        Ok(())
    }
}

/// When a token that expires then is replaced: after two thirds of the time that it has left, long before librdkafka would
/// ask for another one.
fn until_next(expires: i64, now: i64) -> Duration {
    let left = u64::try_from(expires.saturating_sub(now)).unwrap_or(0);
    Duration::from_millis(left / 3 * 2)
}

impl Identity {
    /// For the clients of this configuration. Gets nothing yet.
    pub fn of(config: &Config) -> Self {
        match identity::tokens(&config.kafka) {
            Tokens::None => Self::default(),
            Tokens::Amazon => Self::with(amazon::issuer(&config.kafka)),
            Tokens::Granted => Self::with(granted::issuer(&config.kafka)),
        }
    }

    fn with(issue: Issue) -> Self {
        Self(Some(Arc::new(Holder { issue, held: Mutex::default() })))
    }

    /// Gets the first token where there is none that holds.
    ///
    /// # Errors
    ///
    /// Why none can be had, and what to do: with exit code 78 where who gives tokens refuses, or there are no
    /// credentials; with 75 where it does not answer.
    pub fn ready(&self) -> Result<(), Failure> {
        let Some(holder) = &self.0 else { return Ok(()) };
        let mut held = holder.held();
        let holds = held.token.as_ref().is_some_and(|token| now_ms() < token.expires);
        let runs = std::mem::replace(&mut held.renewed, true);
        drop(held);
        let first = if holds { Ok(()) } else { holder.renew() };
        if first.is_err() {
            holder.held().due = Some(Instant::now() + AGAIN);
        }
        if !runs {
            let weak = Arc::downgrade(holder);
            // Not joined: it ends when the last client has gone.
            drop(spawn("tokens", move || keep_fresh(&weak))?);
        }
        first
    }

    /// Where the token comes from and how long it holds, once there is one.
    pub fn origin(&self) -> Option<(String, Duration)> {
        let held = self.0.as_ref()?.held();
        let token = held.token.as_ref()?;
        let left = u64::try_from(token.expires.saturating_sub(now_ms())).unwrap_or(0);
        Some((token.origin.clone(), Duration::from_millis(left)))
    }

    /// Gives a client the token that there is: enough for one that lives for seconds.
    pub fn show<C: ClientContext>(&self, client: &Client<C>) {
        let Some(holder) = &self.0 else { return };
        match self.ready() {
            Ok(()) => {
                if let Some(token) = &holder.held().token {
                    give(client, token);
                }
            }
            Err(failure) => {
                tracing::warn!("{failure}");
                native::no_token(client, &failure.message);
            }
        }
    }

    /// Gives a client the token that there is, and each newer one for as long as it lives.
    pub fn keep<T, C>(&self, client: &Arc<T>, of: fn(&T) -> &Client<C>)
    where
        T: Send + Sync + 'static,
        C: ClientContext + 'static,
    {
        let Some(holder) = &self.0 else { return };
        let weak = Arc::downgrade(client);
        holder.held().takers.push(Box::new(move |token| {
            let Some(client) = weak.upgrade() else { return false };
            give(of(&client), token);
            if Arc::strong_count(&client) == 1 {
                // Closing a client takes its time.
                drop_aside(client);
            }
            true
        }));
        self.show(of(client));
    }
}

fn give<C: ClientContext>(client: &Client<C>, token: &Token) {
    if let Err(why) = native::set_token(client, token) {
        tracing::warn!("give a Kafka client its token: {why}; it is given another one in time");
    }
}

/// The thread: until the last clone of the identity has gone.
fn keep_fresh(holder: &Weak<Holder>) {
    let mut pause = AGAIN;
    loop {
        std::thread::sleep(LOOK);
        let Some(holder) = holder.upgrade() else { return };
        if holder.held().due.is_none_or(|due| Instant::now() < due) {
            continue;
        }
        let Err(failure) = holder.renew() else {
            pause = AGAIN;
            continue;
        };
        let mut held = holder.held();
        let left = held.token.as_ref().map_or(0, |token| token.expires.saturating_sub(now_ms()));
        held.due = Some(Instant::now() + pause);
        drop(held);
        let seconds = left.max(0) / 1_000;
        tracing::warn!(
            "{failure}; the token that there is holds for {seconds} s more, trying again in {} s",
            pause.as_secs()
        );
        pause = (pause * 2).min(AGAIN_MOST);
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;

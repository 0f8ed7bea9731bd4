//! Questions to the group's coordinator, through a client of their own.
//!
//! Inside the client such a question never runs out of time ([`native`](super::native) says why), and the client asks the
//! coordinator that it knows until that one answers. Where a broker is gone, another client has to find the new one: so
//! one whose question had no answer is replaced.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};

use super::{Journal, drop_aside};

/// A client that is replaced when the coordinator does not answer it.
pub(super) struct Coordinator {
    settings: ClientConfig,
    journal: Journal,
    client: Mutex<Arc<BaseConsumer<Journal>>>,
}

impl Coordinator {
    pub(super) fn new(settings: ClientConfig, journal: Journal) -> KafkaResult<Self> {
        let client = Mutex::new(made(&settings, &journal)?);
        Ok(Self { settings, journal, client })
    }

    /// The answer to a question.
    pub(super) fn ask<T>(
        &self,
        question: impl FnOnce(&BaseConsumer<Journal>) -> KafkaResult<T>,
    ) -> KafkaResult<T> {
        let client = Arc::clone(&self.client.lock().unwrap_or_else(PoisonError::into_inner));
        let answer = question(&client);
        listen_to(&client);
        let code = answer.as_ref().err().and_then(KafkaError::rdkafka_error_code);
        if code == Some(Code::OperationTimedOut) {
            self.replace(&client);
        }
        answer
    }

    /// Has the client say what it has to say, which it does only when it is asked: else that waits for the next question,
    /// and is said then as if it were so then.
    pub(super) fn listen(&self) {
        let client = Arc::clone(&self.client.lock().unwrap_or_else(PoisonError::into_inner));
        listen_to(&client);
    }

    /// Puts another client in the place of this one, unless another question has done so.
    fn replace(&self, asked: &Arc<BaseConsumer<Journal>>) {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&client, asked) {
            return;
        }
        match made(&self.settings, &self.journal) {
            Ok(fresh) => drop_aside(std::mem::replace(&mut *client, fresh)),
            Err(error) => tracing::debug!(%error, "the client is kept: another one cannot be made"),
        }
    }
}

/// What it has to say beside answers goes to the journal.
fn listen_to(client: &BaseConsumer<Journal>) {
    while client.poll(Duration::ZERO).is_some() {}
}

fn made(settings: &ClientConfig, journal: &Journal) -> KafkaResult<Arc<BaseConsumer<Journal>>> {
    let client = Arc::new(settings.create_with_context(journal.clone())?);
    journal.identity().keep(&client, |client: &BaseConsumer<Journal>| client.client());
    Ok(client)
}

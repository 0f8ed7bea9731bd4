//! The tasks beside the engine, watched.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};

use crate::failure::{Failure, temporary};

/// The tasks beside the engine, by name. One that ends by itself ends the service: a watcher that died without a word
/// would mean that no version is ever swapped again.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// Starts a task that is meant to run until the service stops.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.set.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Waits until one of them ends, and says which; for ever while all run.
    pub async fn next(&mut self) -> Failure {
        let (id, why) = match self.set.join_next_with_id().await {
            None => return std::future::pending().await,
            Some(Ok((id, ()))) => (id, "ended by itself".to_owned()),
            Some(Err(error)) => (error.id(), format!("died: {error}")),
        };
        let name = self.names.remove(&id).unwrap_or("unknown");
        temporary(&format!("the task {name:?} {why}; this is a bug, a new start goes on"))
    }
}

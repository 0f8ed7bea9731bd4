//! What an operator wants of a service that runs.
//!
//! One bounded channel, whoever commands: signals, the demo, a program that runs the service in itself. What is sent before the engine begins waits for it. A command is
//! no promise: the status says what came of it.

use super::{Engine, now};
use crate::failure::Failure;
use crate::pipeline::Event;
use crate::status::Doing;

/// A command to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Take nothing more in. What is in the model is finished and committed, the group is served, partitions are kept.
    Pause,
    /// Take records in again.
    Resume,
    /// Look now at what the alias names, not only when `model.poll` is over.
    Reload,
    /// Finish what was begun, give the partitions to other members at once, and end: whatever `kafka.on_stop` says.
    Leave,
}

impl Command {
    /// So many may wait for the engine. More are refused: whoever sends faster than they are carried out does not look
    /// at what comes of them.
    pub const WAITING: usize = 8;
}

impl Engine {
    pub(super) fn command(&mut self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Pause => self.pause(true),
            Command::Resume => self.pause(false),
            Command::Reload => {
                match &self.parts.ask {
                    Some(ask) => {
                        tracing::info!("told to look at the registry now");
                        ask.send_modify(|_| ());
                    }
                    None => tracing::info!(
                        "told to look at the registry, but model.uri names one version: nothing is followed"
                    ),
                }
                Ok(())
            }
            Command::Leave => {
                self.leave_for_good = true;
                self.parts.stop.cancel();
                Ok(())
            }
        }
    }

    /// Pauses or resumes; neither means anything to a service that is stopping.
    fn pause(&mut self, paused: bool) -> Result<(), Failure> {
        if self.closing.is_some() || self.stopped.is_some() {
            tracing::info!("told to pause or to resume, but the service is stopping");
            return Ok(());
        }
        let (doing, event) = if paused {
            tracing::info!("paused: what is in the model is finished, nothing more is taken in");
            (Doing::Paused, Event::Pause)
        } else {
            tracing::info!("resumed");
            (Doing::Running, Event::Resume)
        };
        self.observer.status.change(|status| status.doing = doing);
        self.handle(event)
    }

    /// The stop was asked for.
    pub(super) fn close(&mut self) -> Result<(), Failure> {
        tracing::info!(
            "stopping: batches that were begun are finished, what was only read is left to the next start"
        );
        self.closing = Some(now());
        self.observer.status.change(|status| status.doing = Doing::Stopping);
        self.handle(Event::Close)
    }
}

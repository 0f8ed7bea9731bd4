//! The engine's deadlines, and why it stops: whatever can hang outside is noticed here.

use std::time::{Duration, Instant};

use super::flight;
use super::submit::key;
use super::{Engine, now};
use crate::failure::{Exit, Failure, temporary};
use crate::pipeline::publish::Flood;
use crate::pipeline::{Event, Stop};
use crate::printable::counted;
use crate::status::{Doing, InModel};

/// So long a batch is in the model before that is told, or a quarter of `limits.inference` where that is less.
const LONG: Duration = Duration::from_secs(5);

/// What is said of a batch that the model has for long.
#[derive(Debug, Default)]
pub(super) struct Slow {
    /// Since when it has had the one that is told.
    pub(super) told: Option<Instant>,
    /// Whether it was said that it has used up half of its time.
    pub(super) half: bool,
}

impl Engine {
    /// When to look again although nothing happened.
    pub(super) fn wake(&self) -> Instant {
        let since = self.flights.oldest_job().map(|(_, job)| job.since);
        let stuck = since.map(|since| since + self.inference_limit);
        let half = since.filter(|_| !self.slow.half).map(|since| since + self.inference_limit / 2);
        let long = since
            .filter(|since| self.slow.told != Some(*since))
            .map(|since| since + self.takes_long());
        let drained = self.closing.map(|since| since + self.drain);
        let begun = self.flights.oldest_transaction().map(|out| out.since);
        let lane = begun.zip(self.parts.sink.patience).map(|(since, patience)| since + patience);
        let deadline = self.parts.deadline.filter(|_| self.closing.is_none());
        let due = [self.pipeline.deadline(), stuck, half, long, drained, lane, deadline];
        due.into_iter().flatten().min().unwrap_or_else(|| now() + Duration::from_secs(1))
    }

    /// Whether and how the work is over.
    pub(super) fn ended(&mut self) -> Option<Result<(), Failure>> {
        let over = self.parts.until_end || self.closing.is_some();
        if let Some(failure) = self.stopped.take_if(|_| over) {
            return Some(Err(failure));
        }
        let drained = self.pipeline.is_drained();
        // In a group, others may hold what is left: the log tells when the group has come to the end.
        let alone = self.assigned_once && self.pipeline.reached_ends();
        let reached = if self.parts.membership.judge.is_some() { self.finished } else { alone };
        match (self.closing.is_some(), self.parts.until_end) {
            _ if !drained => None,
            (true, true) if !reached => Some(Err(self.unreached(self.stopped_by))),
            (true, _) => Some(Ok(())),
            // Who pauses a job wants to look at it: it waits until it is resumed.
            (false, until_end) => {
                (until_end && reached && !self.pipeline.is_paused()).then_some(Ok(()))
            }
        }
    }

    fn takes_long(&self) -> Duration {
        LONG.min(self.inference_limit / 4)
    }

    /// Tells what the model has had for long; where that is back, that it has not.
    pub(super) fn tell_long(&mut self, now: Instant) {
        let oldest = self.flights.oldest_job().map(|(_, job)| (job.since, job.rows));
        let long = oldest.filter(|(since, _)| *since + self.takes_long() <= now);
        let half = oldest.filter(|(since, _)| *since + self.inference_limit / 2 <= now);
        if let Some((since, rows)) = half.filter(|_| !self.slow.half) {
            tracing::warn!(
                rows,
                took = ?now.duration_since(since),
                limit = ?self.inference_limit,
                "a batch has used up half of limits.inference: after all of it this process ends, and the next one runs \
                 these records by themselves. Where the model is only slow, lower batch.max_records or raise limits.inference"
            );
        }
        self.slow.half = half.is_some();
        if self.slow.told != long.map(|(since, _)| since) {
            self.slow.told = long.map(|(since, _)| since);
            let limit = self.inference_limit;
            let long = long.map(|(since, rows)| InModel { since, rows, limit });
            self.observer.status.change(|status| status.in_model = long);
        }
    }

    pub(super) fn tick(&mut self) -> Result<(), Failure> {
        let now = now();
        self.tell_long(now);
        if let Some((flight, flight::InModel { job, rows, since, .. })) = self.flights.oldest_job()
            && *since + self.inference_limit <= now
        {
            let batch = flight.number;
            self.parts.journal.overran(&key(batch, *job));
            return Err(temporary(&format!(
                "run batch {batch} ({}): no answer within limits.inference = {:?}; with state.dir the next process runs these \
                 records by themselves. Where the model is only slow, lower batch.max_records or raise limits.inference",
                counted(*rows, "record", "records"),
                self.inference_limit
            )));
        }
        if let Some(patience) = self.parts.sink.patience
            && let Some(late) =
                self.flights.oldest_transaction().filter(|out| out.since + patience <= now)
        {
            return Err(temporary(&format!(
                "commit on lane {}: the lane has been silent for {patience:?}, longer than all of its own \
                 deadlines together; start again, nothing is lost",
                late.lane
            )));
        }
        if self.closing.is_some_and(|since| since + self.drain <= now) {
            return Err(temporary(&format!(
                "finish what was read within limits.drain = {:?}; it is read again by the next start",
                self.drain
            )));
        }
        if self.closing.is_none() && self.parts.deadline.is_some_and(|deadline| deadline <= now) {
            // What was begun is finished, as at any other stop.
            self.stopped_by = "--deadline";
            self.parts.stop.cancel();
            return Ok(());
        }
        self.handle(Event::Tick)
    }

    pub(super) fn stop(&mut self, stop: Stop) -> Result<(), Failure> {
        match stop {
            Stop::Model(message) => Err(temporary(&message)),
            Stop::Takeover { partition, recorded, serving } => Err(temporary(&format!(
                "take over {}/{}: version {recorded} answered it last, version {serving} serves here, and the \
                 registry gave no version that may follow within model.takeover_wait = {:?}; look at the \
                 registry, then start again",
                self.observer.topic(partition.topic),
                partition.number,
                self.takeover_wait
            ))),
            Stop::WentBack { partition, offset, position } => Err(temporary(&format!(
                "read {}/{}: offset {offset} came after {position} had been reached: the partition was cut \
                 off or is another one; starting again looks at it anew",
                self.observer.topic(partition.topic),
                partition.number
            ))),
            Stop::DeadLetters(flood) => {
                let message = self.flood(&flood);
                tracing::error!("{message}");
                let why = message.clone();
                self.observer.status.change(|status| {
                    (status.doing, status.assigned) = (Doing::Stopped(why), Some(0));
                });
                // Its partitions go to the other replicas, and it takes none: it does nothing with them, but goes on
                // telling how far behind they are as long as nobody has them.
                self.parts.membership.leave.ask_and_stay();
                self.observer.metrics.left();
                self.stopped = Some(Failure { message, exit: Exit::Data });
                Ok(())
            }
        }
    }

    /// What is said of too many dead letters: how many, and the newest by place and reason.
    pub(super) fn flood(&self, flood: &Flood) -> String {
        let Flood { dead, records, newest } = flood;
        let named = newest.iter().rev().map(|(partition, offset, fault)| {
            format!(
                "{}/{} offset {offset}: {fault}",
                self.observer.topic(partition.topic),
                partition.number
            )
        });
        format!(
            "{dead} of the last {records} records are dead letters, above dead_letters.max_ratio: stopped, and \
             nothing is committed any more. The newest: {}. Is the model the right one for this topic? Mend the \
             records or the model and start again, or raise the limit",
            named.collect::<Vec<_>>().join("; ")
        )
    }
}

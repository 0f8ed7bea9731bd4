//! Who hears what happens to batches: the metrics, the status, the report at the end.
//!
//! Everything that is to be told of a batch is in its [`Flight`] when it is told here, so that what comes of it later, a
//! span of a trace for instance, is made after the fact and from this file alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::log::Done;
use crate::model::served::Served;
use crate::record::{Offset, Partition, Version};
use crate::status::history::{Batch, Behind};
use crate::status::{Board, DeadLetter, Drain, Swap, wall_clock_ms};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::stage::Stage;
use crate::telemetry::trace::{self, Traces};

use super::flight::{Committing, Flight};
use super::outcomes::Tally;

/// Told by the engine, never asked.
#[derive(Debug)]
pub(super) struct Observer {
    pub(super) metrics: Metrics,
    pub(super) status: Board,
    /// Names of the topics, by their index.
    pub(super) topics: Vec<String>,
    pub(super) tally: Tally,
    pub(super) traces: Traces,
    /// When the version was staged that is to serve next.
    pub(super) staged: Option<Instant>,
}

impl Observer {
    /// This version serves from the start.
    pub(super) fn begins(&self, served: &Served) {
        self.metrics.serving(&served.id, served.model.about().bytes);
        self.status.change(|status| status.serving = Some(served.id.clone()));
    }

    /// This version serves in the place of another.
    pub(super) fn swapped(&mut self, from: Version, served: &Served, now: Instant) {
        let whole = Stage::new(self.staged.take().unwrap_or(now), now);
        self.traces.swapped(trace::Swap { from, to: served.id.clone(), whole });
        self.metrics.serving(&served.id, served.model.about().bytes);
        self.metrics.swapped();
        let swap = Swap { at: wall_clock_ms(), from, to: served.id.clone() };
        self.status.change(|status| status.swapped(swap));
    }

    /// A batch was closed.
    pub(super) fn closed(&self, flight: &Flight) {
        let Flight { reason, records, bytes, tokens, wait, .. } = flight;
        self.metrics.batch_closed(*reason, *records, *bytes, *tokens);
        self.metrics.waited(wait.busy);
    }

    /// One of its jobs came back from the model: in what time, and how many of its records the cache had.
    pub(super) fn answered(&self, inference: Stage, encode: Option<Stage>, hits: usize) {
        let encode = encode.map_or(Duration::ZERO, |stage| stage.busy);
        self.metrics.inferred(inference.busy, encode, hits);
    }

    /// A lane has answered, whatever the transaction held.
    pub(super) fn transaction(&self, done: &Done) {
        self.metrics.transaction(done.how, done.took);
    }

    /// It was committed, with the others of its transaction.
    pub(super) fn committed(&mut self, committing: &mut Committing, done: &Done, now: Instant) {
        committing.flights.iter().for_each(Flight::tell);
        committing.flights.iter_mut().for_each(|flight| self.trace(flight, done));
        let (outcomes, wall) = (&committing.outcomes, wall_clock_ms());
        self.metrics.record_ages(outcomes.ages(wall));
        for partition in outcomes.by_partition.keys() {
            self.metrics.committed(self.topic(partition.topic), *partition, now);
        }
        self.metrics.outcomes(&outcomes.by_label, &outcomes.by_class);
        self.remember(committing, now);
        self.metrics.truncated(outcomes.truncated);
        self.tally.add(outcomes);
        let mut dead =
            outcomes.dead_of(|partition| done.committed.contains_key(&partition)).peekable();
        if dead.peek().is_some() {
            self.status.change(|status| {
                dead.for_each(|(partition, offset, fault)| {
                    status.dead_letters.push(DeadLetter {
                        at: wall,
                        topic: self.topic(partition.topic).to_owned(),
                        partition: *partition,
                        offset: *offset,
                        class: fault.class,
                        reason: fault.message.clone(),
                    });
                });
            });
        }
    }

    /// The spans of a batch and its sampled records.
    fn trace(&self, flight: &mut Flight, done: &Done) {
        let Some(chosen) = flight.chosen.take() else { return };
        let (own, mut rows) = chosen.committed(|partition| done.committed.contains_key(&partition));
        for (place, offset, fault) in &done.buried {
            let row = rows.iter_mut().find(|row| (row.place, row.offset) == (*place, *offset));
            if let Some(row) = row {
                row.class = Some(fault.class);
            }
        }
        self.traces.committed(trace::Batch {
            own,
            id: flight.id,
            model: Arc::clone(&flight.model),
            reason: flight.reason,
            records: flight.rows,
            tokens: flight.tokens,
            how: flight.how,
            topic: flight.topic,
            stages: flight.stages(),
            rows,
        });
    }

    /// Adds what was committed to the last hour.
    fn remember(&self, committing: &Committing, now: Instant) {
        let outcomes = &committing.outcomes;
        let ours = |(partition, records): (&Partition, &u64)| (*partition, *records);
        let dead = |(class, records): (&&'static str, &u64)| (*class, *records);
        self.status.note(|history| {
            let share = u32::try_from(committing.flights.len()).unwrap_or(u32::MAX).max(1);
            committing.flights.iter().for_each(|flight| history.batch(&batch(flight, share), now));
            let partitions = outcomes.by_partition.iter().map(ours);
            history.committed(partitions, outcomes.by_class.iter().map(dead), now);
        });
    }

    /// How far behind each partition is that is ours, and all of them: `lag` offsets, of which `held` cannot be read.
    pub(super) fn lag(
        &self,
        partitions: &[(Partition, Behind)],
        (lag, held): (i64, i64),
        drain: Option<Drain>,
        now: Instant,
    ) {
        for (partition, behind) in partitions {
            self.metrics.lag(self.topic(partition.topic), *partition, behind);
        }
        self.metrics.drain_eta(match drain {
            Some(Drain::In(time)) => Some(time.as_secs_f64()),
            Some(Drain::Never | Drain::Grows) | None => None,
        });
        self.status.note(|history| history.lag(partitions.iter().copied(), lag, now));
        self.status.change(|status| {
            (status.lag, status.held, status.drain) = (Some(lag), held, drain);
        });
    }

    /// How far behind it is is not known: nothing is ours, or the cluster does not answer.
    pub(super) fn lag_unknown(&self, now: Instant) {
        self.metrics.drain_eta(None);
        self.status.note(|history| history.lag_unknown(now));
        self.status.change(|status| (status.lag, status.held, status.drain) = (None, 0, None));
    }

    /// A partition became ours.
    pub(super) fn assigned(&self, partition: Partition, now: Instant) {
        self.metrics.assigned(self.topic(partition.topic), partition, now);
        self.status.note(|history| history.assigned(partition, now));
    }

    /// A partition is not ours any more.
    pub(super) fn revoked(&self, partition: Partition) {
        self.metrics.revoked(self.topic(partition.topic), partition);
        self.status.note(|history| history.revoked(partition));
    }

    /// A record's place in words: `topic/partition:offset`.
    pub(super) fn place(&self, partition: Partition, offset: Offset) -> String {
        format!("{}/{}:{offset}", self.topic(partition.topic), partition.number)
    }

    /// The name of a topic.
    pub(super) fn topic(&self, index: u16) -> &str {
        self.topics.get(usize::from(index)).map_or("", String::as_str)
    }
}

/// What the last hour keeps of a batch; of a commit that `share` batches have together, its part.
fn batch(flight: &Flight, share: u32) -> Batch {
    let busy = |stage: Option<Stage>| stage.map(|stage| stage.busy).unwrap_or_default();
    Batch {
        reason: flight.reason,
        records: u64::try_from(flight.records).unwrap_or(u64::MAX),
        tokens: flight.tokens,
        bytes: flight.bytes,
        cached: u64::try_from(flight.hits).unwrap_or(u64::MAX),
        stages: [
            busy(flight.decode),
            flight.wait.busy,
            busy(flight.inference),
            busy(flight.encode),
            busy(flight.transaction) / share,
        ],
    }
}

//! Rows go into the model, and into the journal, and come back. Suspects go by themselves, and only after somebody else.
//!
//! A suspect that ends the process proves nothing against itself where the version has answered nobody else in this life:
//! the cause may be the version or the machine. So before the first of them goes in, a *witness* does: another record that
//! waits. Its answer is thrown away; in its own batch it is answered again.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::flight::{Flight, InModel};
use super::outcomes::memory;
use super::{Engine, now};
use crate::answer::Refused;
use crate::decode::{Decoded, Prepared};
use crate::failure::{Failure, temporary};
use crate::pipeline::batch::Cut;
use crate::pipeline::{Batch, Event, Item, Part};
use crate::record::{Outcome, Version, Written};
use crate::workers::{Answer, Job};

/// The number of a witness's batch: none of the core's.
const WITNESS: u64 = u64::MAX;

/// What decides whether suspects may go into the model.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    /// Versions that have answered records which nobody suspects.
    answered: BTreeSet<Version>,
    /// Versions that need no witness any more, or found none.
    witnessed: BTreeSet<Version>,
    /// Suspects that wait for one.
    delayed: Vec<Job>,
}

impl Engine {
    /// The rows of a batch that the core wants answered.
    pub(super) fn infer(
        &mut self,
        batch: Arc<Batch<Decoded>>,
        rows: Vec<usize>,
    ) -> Result<(), Failure> {
        let served = self.models.get(batch.version)?;
        if !self.flights.contains(batch.number) {
            self.begin(Flight::of(&batch, &served), &batch);
        }
        let finish = self.parts.finish.clone();
        let job = Job { number: self.number_of_job(), batch, rows, served, finish };
        let version = job.batch.version;
        let unheard = job.batch.is_alone() && !self.suspicion.witnessed.contains(&version);
        if unheard && let Some(witness) = self.witness(&job) {
            self.suspicion.witnessed.insert(version);
            self.suspicion.delayed.push(job);
            self.flights.begin(Flight::of(&witness.batch, &witness.served));
            self.submit(witness);
            return Ok(());
        }
        self.submit(job);
        Ok(())
    }

    fn number_of_job(&mut self) -> u64 {
        self.next_job += 1;
        self.next_job
    }

    /// A batch was just closed. The first of a version is said.
    fn begin(&mut self, flight: Flight, batch: &Batch<Decoded>) {
        self.observer.closed(&flight);
        self.flights.begin(flight);
        let Some(from) = self.models.closed(batch.version) else { return };
        let Some(served) = self.models.serving() else { return };
        let first = batch
            .items
            .first()
            .map_or_else(String::new, |item| self.observer.place(item.partition, item.offset));
        tracing::info!(%from, model = %served.id, digest = %served.id.digest, %first, "swapped");
        if !self.models.holds(from) {
            tracing::info!(version = %from, "version retired");
        }
        self.observer.swapped(from, served, now());
        self.sizing.serve(served);
    }

    fn submit(&mut self, job: Job) {
        let Job { number, batch, rows, served, .. } = &job;
        let items = || rows.iter().map(|row| &batch.items[*row]);
        let records = items().map(|item| (item.partition, item.offset));
        let key = key(batch.number, *number);
        self.parts.journal.begin(&key, &served.id, batch.is_alone(), records);
        let all = rows.len() == batch.items.len();
        let tokens = if all { batch.tokens } else { items().map(|item| item.tokens).sum() };
        if let Some(flight) = self.flights.get_mut(batch.number) {
            flight.submitted(InModel { job: *number, rows: rows.len(), tokens, since: now() });
        }
        self.parts.workers.submit(job);
    }

    /// Rows are back from the model.
    pub(super) fn answer(&mut self, answer: Option<Answer>) -> Result<(), Failure> {
        let Some(Answer { job, batch, parts, inference, encode, hits }) = answer else {
            return Err(temporary("the inference threads ended without a word; this is a bug"));
        };
        self.parts.journal.end(&key(batch, job));
        let Some(flight) = self.flights.get_mut(batch) else {
            return Err(temporary(&format!("batch {batch} was not asked for; this is a bug")));
        };
        let asked = flight.returned(job);
        flight.measured(inference, encode, hits);
        let (id, alone, version) = (flight.id, flight.alone, flight.version());
        let model = Arc::clone(&flight.model);
        if self.slow.told.is_some() {
            self.tell_long(now());
        }
        if !alone && parts.iter().any(predicts) && self.suspicion.heard(version) {
            self.parts.journal.answered(&model);
        }
        if batch == WITNESS {
            self.flights.remove(WITNESS);
            for job in std::mem::take(&mut self.suspicion.delayed) {
                self.submit(job);
            }
            return Ok(());
        }
        self.observer.answered(inference, encode, hits);
        let refusals = || parts.iter().filter_map(|part| part.answer.as_ref().err());
        if let Some(refused) = refusals().next() {
            let rows = parts.iter().filter(|part| part.answer.is_err());
            let rows: usize = rows.map(|part| part.rows.len()).sum();
            let trace_id = self.observer.traces.id(id);
            tracing::warn!(%id, trace_id, batch, rows, %refused, "batch refused");
        }
        if refusals().any(|refused| matches!(refused, Refused::OutOfMemory(_)))
            && let Some(asked) = asked
        {
            self.sizing.too_large(version, asked.tokens);
        }
        let outcomes = parts.iter().filter_map(|part| part.answer.as_deref().ok());
        let bytes = outcomes.map(memory).sum();
        self.handle(Event::Inferred { batch, parts, bytes })?;
        self.limit()
    }

    /// A record that nobody suspects, by itself: the model sees it, whatever it was prepared for.
    fn witness(&mut self, job: &Job) -> Option<Job> {
        let good = |item: &&Item<Decoded>| matches!(item.payload.prepared, Prepared::Input(_));
        let other = self.pipeline.waiting().find(good)?;
        let payload = Decoded::later(Arc::clone(&other.payload.record));
        let item = Item {
            partition: other.partition,
            epoch: other.epoch,
            offset: other.offset,
            bytes: other.bytes,
            tokens: other.tokens,
            memory: 0,
            alone: None,
            payload,
        };
        let (lane, version) = (job.batch.lane, job.batch.version);
        let now = now();
        let batch = Batch::new(WITNESS, lane, version, Cut::of(vec![item], now), now);
        let (served, finish) = (Arc::clone(&job.served), job.finish.clone());
        let number = self.number_of_job();
        Some(Job { number, batch: Arc::new(batch), rows: vec![0], served, finish })
    }
}

impl Suspicion {
    /// A version has answered somebody who is no suspect; whether that is the first time.
    fn heard(&mut self, version: Version) -> bool {
        let first = self.answered.insert(version);
        if first {
            self.witnessed.insert(version);
        }
        first
    }
}

fn predicts(part: &Part<Written>) -> bool {
    let prediction = |outcome: &Outcome<_>| matches!(outcome, Outcome::Prediction(_));
    part.answer.as_ref().is_ok_and(|outcomes| outcomes.iter().any(prediction))
}

/// What the journal calls rows of a batch.
pub(super) fn key(batch: u64, job: u64) -> String {
    format!("{batch}.{job}")
}

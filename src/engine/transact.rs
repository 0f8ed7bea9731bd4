//! Finished batches go to their lane, and come back as a transaction's answer.

use std::sync::Arc;

use super::flight::Committing;
use super::outcomes::Outcomes;
use super::{Engine, now};
use crate::decode::Decoded;
use crate::failure::{Failure, temporary};
use crate::log::{self, Done, Row};
use crate::pipeline::Event;
use crate::pipeline::publish::Transaction;
use crate::record::{Outcome, Written};

impl Engine {
    pub(super) fn commit(
        &mut self,
        lane: usize,
        transaction: Transaction<Decoded, Written>,
    ) -> Result<(), Failure> {
        let Transaction { id, batches, next } = transaction;
        let mut outcomes = Outcomes::default();
        let (mut flights, mut finished) =
            (Vec::with_capacity(batches.len()), Vec::with_capacity(batches.len()));
        for done in batches {
            let batch = done.batch;
            let Some(mut flight) = self.flights.remove(batch.number) else {
                let number = batch.number;
                return Err(temporary(&format!("batch {number} is not known; this is a bug")));
            };
            let row = |(row, outcome): (usize, Outcome<Written>)| {
                let item = &batch.items[row];
                outcomes.count(&outcome, &item.payload.record);
                let record = Arc::clone(&item.payload.record);
                Row { record, epoch: item.epoch, outcome }
            };
            let rows: Vec<Row> = done.rows.into_iter().map(row).collect();
            flight.rows = rows.len();
            finished.push(log::Finished { info: flight.info(), rows });
            flights.push(flight);
        }
        self.flights.hand_over(id, Committing { lane, since: now(), flights, outcomes });
        let transaction = log::Transaction { id, batches: finished, next };
        // Bound 1 and at most one outstanding: full means the lane thread is gone or broke the promise.
        self.parts.sink.lanes[lane].try_send(transaction).map_err(|error| {
            temporary(&format!("hand a transaction to lane {lane}: {error}; this is a bug"))
        })
    }

    pub(super) fn done(&mut self, done: Option<Done>) -> Result<(), Failure> {
        let Some(done) = done else {
            return Err(temporary("a commit thread ended without a word; this is a bug"));
        };
        let now = now();
        self.observer.transaction(&done);
        let landed = self.flights.landed(&done, now).filter(|_| !done.committed.is_empty());
        if let Some(mut landed) = landed {
            landed.outcomes.bury(&done.buried);
            self.observer.committed(&landed, &done, now);
            self.lag.committed(landed.outcomes.records());
            let model = self.models.serving().map(|served| &*served.model);
            self.sizing.learn(&landed.flights, done.took, model);
        }
        let Done { lane, id, committed, buried, fits, .. } = done;
        self.handle_at(Event::Committed { lane, id, committed, buried, fits }, now)?;
        if self.parts.until_end && self.pipeline.is_drained() && self.pipeline.reached_ends() {
            self.parts.membership.judge();
        }
        self.limit()
    }

    /// Tells the core a limit that has changed.
    pub(super) fn limit(&mut self) -> Result<(), Failure> {
        match self.sizing.change() {
            Some(tokens) => {
                self.observer.metrics.batch_limit(tokens);
                self.handle(Event::Limit(tokens))
            }
            None => Ok(()),
        }
    }
}

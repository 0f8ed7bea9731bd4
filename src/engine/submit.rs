//! Rows go into the model, and into the journal. Suspects go by themselves, and only after somebody else.
//!
//! A suspect that ends the process proves nothing against itself where the version has answered nobody else in this life:
//! the cause may be the version or the machine. So before the first of them goes in, a *witness* does: another record that
//! waits. Its answer is thrown away; in its own batch it is answered again.

use std::ops::Range;
use std::sync::Arc;

use super::flight::InModel;
use super::{Engine, now};
use crate::decode::{Decoded, Prepared};
use crate::failure::{Failure, temporary};
use crate::model::served::Served;
use crate::pipeline::{Batch, Item};
use crate::record::{Outcome, Reason, Version};
use crate::workers::{Answer, Job};

/// The number of a witness's batch: none of the core's.
const WITNESS: u64 = u64::MAX;

impl Engine {
    /// The rows of a batch that the core wants answered.
    pub(super) fn infer(
        &mut self,
        batch: Arc<Batch<Decoded>>,
        rows: Range<usize>,
    ) -> Result<(), Failure> {
        let served = self.served(batch.version)?;
        if rows.len() == batch.items.len() {
            self.closed(&batch, &served);
        }
        let job = Job { batch, rows, served };
        let unheard = job.batch.is_alone() && !self.witnessed.contains(&job.batch.version);
        if unheard && let Some(witness) = self.witness(&job) {
            self.witnessed.insert(job.batch.version);
            self.delayed.push(job);
            self.submit(witness);
            return Ok(());
        }
        self.submit(job);
        Ok(())
    }

    fn served(&self, version: Version) -> Result<Arc<Served>, Failure> {
        self.models.get(&version).map(Arc::clone).ok_or_else(|| {
            temporary(&format!("version {version} was cut but is not loaded; this is a bug"))
        })
    }

    fn submit(&mut self, job: Job) {
        let Job { batch, rows, served } = &job;
        let items = &batch.items[rows.clone()];
        let alone = batch.is_alone();
        let records = items.iter().map(|item| (item.partition, item.offset));
        self.journal.begin(&key(batch.number, rows), &served.id, alone, records);
        self.in_model.push(InModel {
            batch: batch.number,
            rows: rows.clone(),
            version: batch.version,
            tokens: items.iter().map(|item| item.tokens).sum(),
            alone,
            since: now(),
        });
        self.parts.workers.submit(job);
    }

    /// Takes what was answered out of the journal; `None` where it was a witness.
    pub(super) fn returned(&mut self, answer: Answer) -> (Option<InModel>, Option<Answer>) {
        self.journal.end(&key(answer.batch, &answer.rows));
        let place = self
            .in_model
            .iter()
            .position(|asked| asked.batch == answer.batch && asked.rows == answer.rows);
        let asked = place.map(|place| self.in_model.remove(place));
        let predicts = |outcomes: &Vec<Outcome<_>>| {
            outcomes.iter().any(|outcome| matches!(outcome, Outcome::Prediction(_)))
        };
        if let Some(asked) = asked.as_ref().filter(|asked| !asked.alone)
            && answer.outcomes.as_ref().is_ok_and(predicts)
            && self.answers.insert(asked.version)
            && let Some(served) = self.models.get(&asked.version)
        {
            self.witnessed.insert(asked.version);
            self.journal.answered(&served.id);
        }
        if answer.batch != WITNESS {
            return (asked, Some(answer));
        }
        for job in std::mem::take(&mut self.delayed) {
            self.submit(job);
        }
        (asked, None)
    }

    /// A record that nobody suspects, by itself: the model sees it, whatever it was prepared for.
    fn witness(&self, job: &Job) -> Option<Job> {
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
        let batch = Batch {
            number: WITNESS,
            lane: job.batch.lane,
            version: job.batch.version,
            reason: Reason::Alone,
            waited: std::time::Duration::ZERO,
            items: vec![item],
        };
        Some(Job { batch: Arc::new(batch), rows: 0..1, served: Arc::clone(&job.served) })
    }
}

/// What the journal calls rows of a batch.
pub(super) fn key(batch: u64, rows: &Range<usize>) -> String {
    format!("{batch}.{}", rows.start)
}

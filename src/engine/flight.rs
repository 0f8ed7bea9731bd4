//! One life of a batch: born when it is closed, it gathers what happens until its transaction is answered.
//!
//! ```text
//!  closed ─► Flight ─── jobs in the model, halves of them again ───► handed to its lane ─► answered: told, and dropped
//!            in `flying`, by the batch's number                      in `committing`, by the transaction's id
//! ```
//!
//! A flight is in one place at a time, and the only one that knows these numbers: metrics, the manifest, the learned size
//! and whoever else observes read them here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use crate::decode::Decoded;
use crate::log::{BatchInfo, Done, How};
use crate::model::served::Served;
use crate::pipeline::Batch;
use crate::record::{ModelId, Reason, Signature, Version};
use crate::telemetry::stage::Stage;
use crate::telemetry::trace::Chosen;

use super::outcomes::Outcomes;

/// So many chunks are remembered by when they arrived: more than wait for their batch at once, unless all are tiny.
const CHUNKS: usize = 256;

/// What is known of a batch.
#[derive(Debug)]
pub(super) struct Flight {
    /// Stands in headers and manifests. Sorts by the time at which the batch was closed.
    pub(super) id: Uuid,
    /// Counts up over all lanes.
    pub(super) number: u64,
    /// The lane that commits it.
    pub(super) lane: usize,
    /// The version that answers it.
    pub(super) model: Arc<ModelId>,
    signature: Arc<Signature>,
    /// Why it was closed.
    pub(super) reason: Reason,
    /// Records when it was closed.
    pub(super) records: usize,
    /// Records that were still ours when it was handed to its lane.
    pub(super) rows: usize,
    /// What they cost the model.
    pub(super) tokens: u64,
    /// Payload bytes.
    pub(super) bytes: u64,
    /// Of suspects: nothing else is in the model with it.
    pub(super) alone: bool,
    /// Of the chunk that its first record came in.
    pub(super) decode: Option<Stage>,
    /// From its first record's arrival until it was closed.
    pub(super) wait: Stage,
    /// In the model, from the first start to the last end; busy is the sum over its jobs.
    pub(super) inference: Option<Stage>,
    /// While predictions were encoded; busy is the sum over threads.
    pub(super) encode: Option<Stage>,
    /// From when its lane was given it until that answered.
    pub(super) transaction: Option<Stage>,
    /// How its transaction went: whether it was done again.
    pub(super) how: Option<How>,
    /// Records that the cache had.
    pub(super) hits: usize,
    /// Where the rows of another moment begin, and when those were here, not decoded yet.
    received: Vec<(usize, Instant)>,
    /// The ids of its spans, once it is handed to its lane.
    pub(super) chosen: Option<Chosen>,
    /// The topic of its records, where they have the same.
    pub(super) topic: Option<u16>,
    /// What of it is in the model.
    jobs: Vec<InModel>,
}

/// Rows that the model has.
#[derive(Debug)]
pub(super) struct InModel {
    /// [`Job::number`](crate::workers::Job::number).
    pub(super) job: u64,
    pub(super) rows: usize,
    pub(super) tokens: u64,
    pub(super) since: Instant,
}

impl Flight {
    /// A batch that was just closed.
    pub(super) fn of(batch: &Batch<Decoded>, served: &Served) -> Self {
        Self {
            id: Uuid::now_v7(),
            number: batch.number,
            lane: batch.lane,
            model: Arc::new(served.id.clone()),
            signature: Arc::clone(&served.signature),
            reason: batch.reason,
            records: batch.items.len(),
            rows: 0,
            tokens: batch.tokens,
            bytes: batch.bytes,
            alone: batch.is_alone(),
            decode: None,
            wait: Stage::new(batch.opened, batch.closed),
            inference: None,
            encode: None,
            transaction: None,
            how: None,
            hits: 0,
            received: batch.arrivals.clone(),
            chosen: None,
            topic: one_topic(batch),
            jobs: Vec::new(),
        }
    }

    /// When the record of a row was here.
    pub(super) fn received(&self, row: usize) -> Instant {
        let next = self.received.partition_point(|(first, _)| *first <= row);
        let run = next.checked_sub(1).and_then(|run| self.received.get(run));
        run.map_or(self.wait.start, |(_, at)| *at)
    }

    /// The stages that it went through, in order, by their names.
    pub(super) fn stages(&self) -> Vec<(&'static str, Stage)> {
        let all = [
            ("decode", self.decode),
            ("wait", Some(self.wait)),
            ("infer", self.inference),
            ("encode", self.encode),
            ("commit", self.transaction),
        ];
        all.into_iter().filter_map(|(name, stage)| Some((name, stage?))).collect()
    }

    pub(super) fn version(&self) -> Version {
        self.model.version
    }

    /// All of it, as a line of the log.
    pub(super) fn tell(&self) {
        let busy = |stage: Option<Stage>| stage.map(|stage| stage.busy);
        // The trace's id is the batch's: so a line leads to its spans.
        let trace_id = self.chosen.as_ref().map(|_| self.id.simple().to_string());
        tracing::debug!(
            id = %self.id,
            trace_id,
            lane = self.lane,
            model = %self.model,
            reason = self.reason.name(),
            records = self.records,
            rows = self.rows,
            tokens = self.tokens,
            bytes = self.bytes,
            hits = self.hits,
            decode = ?busy(self.decode),
            wait = ?self.wait.busy,
            inference = ?busy(self.inference),
            encode = ?busy(self.encode),
            transaction = ?busy(self.transaction),
            how = self.how.map(How::name),
            "batch committed"
        );
    }

    /// What the batch's manifest says.
    pub(super) fn info(&self) -> BatchInfo {
        BatchInfo {
            id: self.id,
            model: Arc::clone(&self.model),
            signature: Arc::clone(&self.signature),
            part_of: None,
            reason: self.reason,
            bytes: self.bytes,
            tokens: self.tokens,
            inference: self.inference.map(|stage| stage.busy).unwrap_or_default(),
        }
    }

    /// One of its jobs took so long, and its predictions so long to encode.
    pub(super) fn measured(&mut self, inference: Stage, encode: Option<Stage>, hits: usize) {
        self.inference = Stage::both(self.inference, Some(inference));
        self.encode = Stage::both(self.encode, encode);
        self.hits += hits;
    }

    /// The model has these rows.
    pub(super) fn submitted(&mut self, job: InModel) {
        self.jobs.push(job);
    }

    /// They are back.
    pub(super) fn returned(&mut self, job: u64) -> Option<InModel> {
        let place = self.jobs.iter().position(|asked| asked.job == job)?;
        Some(self.jobs.remove(place))
    }
}

fn one_topic(batch: &Batch<Decoded>) -> Option<u16> {
    let mut topics = batch.items.iter().map(|item| item.partition.topic);
    let first = topics.next()?;
    topics.all(|topic| topic == first).then_some(first)
}

/// A transaction that a lane has: its batches and what became of their records.
#[derive(Debug)]
pub(super) struct Committing {
    pub(super) lane: usize,
    /// When the lane was given it.
    pub(super) since: Instant,
    pub(super) flights: Vec<Flight>,
    pub(super) outcomes: Outcomes,
}

/// All batches that are under way.
#[derive(Debug, Default)]
pub(super) struct Flights {
    flying: BTreeMap<u64, Flight>,
    committing: BTreeMap<u64, Committing>,
    /// When the last chunks arrived, with when they were decoded.
    chunks: VecDeque<(Instant, Stage)>,
}

impl Flights {
    /// A chunk arrived at `now`.
    pub(super) fn arrived(&mut self, now: Instant, decode: Stage) {
        if self.chunks.len() == CHUNKS {
            self.chunks.pop_front();
        }
        self.chunks.push_back((now, decode));
    }

    /// A batch was closed.
    pub(super) fn begin(&mut self, mut flight: Flight) {
        let decoded = |at: Instant| {
            let chunk = self.chunks.binary_search_by_key(&at, |(arrived, _)| *arrived).ok();
            chunk.map(|place| self.chunks[place].1)
        };
        flight.decode = decoded(flight.wait.start);
        for (_, at) in &mut flight.received {
            *at = decoded(*at).map_or(*at, |decode| decode.start);
        }
        self.flying.insert(flight.number, flight);
    }

    pub(super) fn contains(&self, batch: u64) -> bool {
        self.flying.contains_key(&batch)
    }

    pub(super) fn get_mut(&mut self, batch: u64) -> Option<&mut Flight> {
        self.flying.get_mut(&batch)
    }

    /// Takes a batch out that is not to be committed, or not yet.
    pub(super) fn remove(&mut self, batch: u64) -> Option<Flight> {
        self.flying.remove(&batch)
    }

    /// A lane was given a transaction. What it cut before and did not commit never will be: nothing of it is ours any more.
    pub(super) fn hand_over(&mut self, id: u64, committing: Committing) {
        let Committing { lane, flights, .. } = &committing;
        if let Some(last) = flights.last().map(|flight| flight.number) {
            self.flying.retain(|number, flight| last < *number || flight.lane != *lane);
        }
        self.committing.insert(id, committing);
    }

    /// A lane has answered at `now`.
    pub(super) fn landed(&mut self, done: &Done, now: Instant) -> Option<Committing> {
        let mut committing = self.committing.remove(&done.id)?;
        for flight in &mut committing.flights {
            flight.transaction = Some(Stage::new(committing.since, now));
            flight.how = Some(done.how);
        }
        Some(committing)
    }

    /// What the model has had for longest.
    pub(super) fn oldest_job(&self) -> Option<(&Flight, &InModel)> {
        let jobs =
            self.flying.values().flat_map(|flight| flight.jobs.iter().map(move |j| (flight, j)));
        jobs.min_by_key(|(_, job)| job.since)
    }

    /// The transaction that its lane has had for longest.
    pub(super) fn oldest_transaction(&self) -> Option<&Committing> {
        self.committing.values().min_by_key(|committing| committing.since)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::model::gate;
    use crate::model::options::LoadOptions;
    use crate::pipeline::batch::Cut;

    fn flight(number: u64, lane: usize, opened: Instant, closed: Instant) -> Flight {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo/models/breast-cancer/1");
        let options = LoadOptions::default();
        let served = gate::load(&dir, &options).unwrap();
        let cut = Cut::of(Vec::new(), opened);
        Flight::of(&Batch::new(number, lane, Version(0), cut, closed), &served)
    }

    /// Each stage has both of its ends, and nothing is left when the lane has answered.
    #[test]
    fn a_flight_gathers_its_stages_and_ends() {
        let zero = super::super::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let mut flights = Flights::default();
        (0..1_000).for_each(|ms| flights.arrived(at(ms), Stage::new(at(ms), at(ms))));
        flights.arrived(at(1_010), Stage::new(at(1_000), at(1_005)));
        flights.begin(flight(7, 1, at(1_010), at(1_030)));
        let job = |job, ms| InModel { job, rows: 1, tokens: 1, since: at(ms) };
        let batch = flights.get_mut(7).unwrap();
        assert_eq!(batch.decode, Some(Stage::new(at(1_000), at(1_005))));
        batch.submitted(job(1, 1_030));
        batch.submitted(job(2, 1_031));
        let waits = flights.oldest_job().map(|(flight, job)| (flight.number, job.job));
        assert_eq!(waits, Some((7, 1)));
        let batch = flights.get_mut(7).unwrap();
        assert!(batch.returned(1).is_some() && batch.returned(1).is_none(), "once");
        for (start, end) in [(1_040, 1_050), (1_060, 1_065)] {
            batch.measured(Stage::new(at(start), at(end)), None, 1);
        }
        assert_eq!(
            batch.info().inference,
            Duration::from_millis(15),
            "what lies between is not its"
        );
        let flying = flights.remove(7).unwrap();
        let outcomes = Outcomes::default();
        let transaction = Committing { lane: 1, since: at(1_070), flights: vec![flying], outcomes };
        flights.hand_over(9, transaction);
        assert_eq!(flights.oldest_transaction().map(|out| out.since), Some(at(1_070)));
        let (how, took) = (How::Redone, Duration::ZERO);
        let (committed, buried) = (BTreeMap::new(), Vec::new());
        let done = Done { lane: 1, id: 9, committed, took, how, buried, fits: None };
        let landed = flights.landed(&done, at(1_090)).unwrap();
        let transaction = Some(Stage::new(at(1_070), at(1_090)));
        assert_eq!(landed.flights[0].transaction, transaction);
        assert_eq!(landed.flights[0].how, Some(How::Redone));
        assert!(flights.oldest_transaction().is_none() && flights.oldest_job().is_none());
    }

    /// A batch that lost all of its partitions is in no transaction: it goes with the next of its lane.
    #[test]
    fn what_is_never_committed_is_forgotten() {
        let zero = super::super::now();
        let mut flights = Flights::default();
        for (number, lane) in [(1, 0), (2, 1), (3, 0), (4, 0)] {
            flights.begin(flight(number, lane, zero, zero));
        }
        let done = flights.remove(3).unwrap();
        let outcomes = Outcomes::default();
        flights.hand_over(9, Committing { lane: 0, since: zero, flights: vec![done], outcomes });
        assert!(!flights.contains(1), "cut before it in the same lane");
        assert!(flights.contains(2) && flights.contains(4), "of another lane, or cut later");
    }
}

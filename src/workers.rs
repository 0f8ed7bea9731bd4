//! The inference threads: sub-batches in, outcomes out, each with its row and in no order.
//!
//! ```text
//!  engine ─► submit(job) ─► [ sub-batch | sub-batch | … ] ─► infer-0 ─┐
//!                             sorted by length, as much      infer-1 ─┴─► answers ─► engine
//!                             as the model is best given
//! ```
//!
//! One thread a core, each with one sub-batch at a time: faster than one batch over all cores, because
//! nothing waits for the slowest at the end of every matrix product. The next batch's sub-batches queue
//! behind this one's, so no core idles between two batches. What comes of a prediction is made where it was computed
//! ([`Finish`]). The parts of a job go to the core as they are, with its last one: nobody could do anything with the
//! first of them before, and each answer wakes the engine.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::answer::{Prediction, Refused};
use crate::decode::{Decoded, Decoder, Prepared};
use crate::format::Writer;
use crate::model::guard::predict;
use crate::model::served::Served;
use crate::model::{About, Input, device};
use crate::pipeline::{Batch, Part};
use crate::record::{Outcome, Record, Written};
use crate::telemetry::stage::Stage;

/// Rows of a batch, the model that runs them, and what is made of its predictions.
#[derive(Debug)]
pub struct Job {
    /// Comes back in [`Answer`].
    pub number: u64,
    /// The batch.
    pub batch: Arc<Batch<Decoded>>,
    /// Which of its rows: places in [`Batch::items`].
    pub rows: Vec<usize>,
    /// The batch's version.
    pub served: Arc<Served>,
    /// What comes of each prediction.
    pub finish: Finish,
}

/// What comes of a prediction: a function that runs on the inference threads, once a record. So the same batch can be
/// encoded for the output, compared with what another version says, or only be measured.
#[derive(Clone)]
pub struct Finish(Arc<Function>);

type Function = dyn Fn(&Prediction, &Record) -> Outcome<Vec<u8>> + Send + Sync;

impl Finish {
    /// What `finish` gives.
    pub fn new(
        finish: impl Fn(&Prediction, &Record) -> Outcome<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(finish))
    }

    /// The bytes of an output message, as `writer` writes it.
    pub fn write(writer: Arc<Writer>) -> Self {
        Self::new(move |prediction, record| match writer.write(prediction, record) {
            Ok(value) => Outcome::Prediction(value),
            Err(fault) => Outcome::DeadLetter(fault),
        })
    }
}

impl fmt::Debug for Finish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Finish")
    }
}

/// What became of a [`Job`].
#[derive(Debug)]
pub struct Answer {
    /// The job's number.
    pub job: u64,
    /// The batch's number.
    pub batch: u64,
    /// All rows of the job, in the parts that were run together.
    pub parts: Vec<Part<Written>>,
    /// From the first sub-batch's start to the last one's end.
    pub inference: Stage,
    /// From the first prediction that was finished to the last; busy is the sum over threads.
    pub encode: Option<Stage>,
    /// Predictions that were not computed: the cache had them.
    pub hits: usize,
}

/// A sub-batch is not cut below this part of what the model is best given only to give every worker something to do.
const FEWEST: usize = 4;

/// The pool. Dropping it ends the threads after the queued work.
#[derive(Debug)]
pub struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    decoder: Decoder,
    answers: mpsc::Sender<Answer>,
}

#[derive(Debug, Default)]
struct Queue {
    tasks: VecDeque<Task>,
    closed: bool,
}

/// A sub-batch: rows of a job.
#[derive(Debug)]
struct Task {
    running: Arc<Running>,
    rows: Vec<usize>,
}

#[derive(Debug)]
struct Running {
    job: Job,
    state: Mutex<State>,
}

/// What is known of a job so far.
#[derive(Debug)]
struct State {
    parts: Vec<Part<Written>>,
    /// Sub-batches that are not back.
    tasks: usize,
    inference: Option<Stage>,
    encode: Option<Stage>,
    hits: usize,
}

impl Workers {
    /// Starts `count` threads that send what they finish to `answers`. `decoder` prepares records again that were prepared
    /// for another version than their batch's.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub fn start(
        count: usize,
        decoder: Decoder,
        answers: mpsc::Sender<Answer>,
    ) -> std::io::Result<Self> {
        let (queue, ready) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { queue, ready, decoder, answers });
        let thread = |number| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("infer-{number}")).spawn(move || shared.work())
        };
        let threads = (0..count.max(1)).map(thread).collect::<Result<_, _>>()?;
        Ok(Self { shared, threads })
    }

    /// Queues a job. Its answer comes on the channel, later.
    pub fn submit(&self, job: Job) {
        let (mut known, mut outcomes) = (Vec::new(), Vec::new());
        let mut inputs = Vec::with_capacity(job.rows.len());
        for row in &job.rows {
            let Decoded { version, prepared, .. } = &job.batch.items[*row].payload;
            let fresh = *version == job.served.id.version;
            match fresh.then(|| outcome(prepared)).flatten() {
                Some(outcome) => {
                    known.push(*row);
                    outcomes.push(outcome);
                }
                None => inputs.push((*row, prepared.tokens())),
            }
        }
        let mut sub_batches = cut(inputs, self.threads.len(), job.served.model.about());
        if sub_batches.is_empty() {
            sub_batches.push(Vec::new()); // a batch of faults still has to be answered
        }
        let mut parts = Vec::with_capacity(sub_batches.len() + 1);
        if !known.is_empty() {
            parts.push(Part { rows: known, answer: Ok(outcomes) });
        }
        let tasks = sub_batches.len();
        let state = State { parts, tasks, inference: None, encode: None, hits: 0 };
        let running = Arc::new(Running { job, state: Mutex::new(state) });
        let task = |rows| Task { running: Arc::clone(&running), rows };
        lock(&self.shared.queue).tasks.extend(sub_batches.into_iter().map(task));
        self.shared.ready.notify_all();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.ready.notify_all();
        // Not joined: a thread may hang in a driver, and the process must end all the same.
    }
}

/// Cuts rows, given with their tokens, into sub-batches: longest first, about [`About::chunk_tokens`] each, and enough
/// of them for every worker. Where the model pads, each row counts as long as the longest of its sub-batch.
fn cut(mut rows: Vec<(usize, usize)>, workers: usize, about: &About) -> Vec<Vec<usize>> {
    let total: usize = rows.iter().map(|(_, tokens)| tokens).sum();
    let most = about.chunk_tokens.max(FEWEST);
    let budget = total.div_ceil(workers.max(1)).clamp(most / FEWEST, most);
    rows.sort_by_key(|(row, tokens)| (std::cmp::Reverse(*tokens), *row));
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let (mut left, mut longest) = (0, 0);
    for (row, tokens) in rows {
        let cost = if about.padded { longest } else { tokens };
        match parts.last_mut() {
            Some(part) if cost <= left => {
                part.push(row);
                left -= cost;
            }
            _ => {
                parts.push(vec![row]);
                left = budget.saturating_sub(tokens);
                longest = tokens;
            }
        }
    }
    parts
}

impl Shared {
    /// A thread's life.
    fn work(&self) {
        device::stay_on_this_thread();
        loop {
            let mut queue = lock(&self.queue);
            let task = loop {
                if let Some(task) = queue.tasks.pop_front() {
                    break task;
                }
                if queue.closed {
                    return;
                }
                queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
            };
            drop(queue);
            if !self.run(task) {
                return; // the engine is gone
            }
        }
    }

    /// Runs a sub-batch; answers the job if it was the last. False where nobody takes answers any more.
    fn run(&self, task: Task) -> bool {
        let Task { running, rows } = task;
        let started = now();
        let mut answered = Answered::default();
        let result = self.predict(&running.job, &rows, &mut answered);
        let (part, encode, hits) = match result {
            Ok(()) => {
                let Answered { rows, outcomes, encode, hits } = answered;
                (Part { rows, answer: Ok(outcomes) }, encode, hits)
            }
            Err(refused) => (Part { rows, answer: Err(refused) }, None, 0),
        };
        let mut state = lock(&running.state);
        if !part.rows.is_empty() {
            state.parts.push(part);
        }
        state.hits += hits;
        state.encode = Stage::both(state.encode, encode);
        let inference = Stage::both(state.inference, Some(Stage::new(started, now())));
        state.inference = inference;
        state.tasks -= 1;
        let Some(inference) = inference.filter(|_| state.tasks == 0) else { return true };
        let answer = Answer {
            job: running.job.number,
            batch: running.job.batch.number,
            parts: std::mem::take(&mut state.parts),
            inference: inference.whole(),
            encode: state.encode,
            hits: state.hits,
        };
        drop(state);
        self.answers.blocking_send(answer).is_ok()
    }

    /// The outcomes of the rows, in any order.
    fn predict(&self, job: &Job, rows: &[usize], answered: &mut Answered) -> Result<(), Refused> {
        let Job { batch, served, finish, .. } = job;
        let payload = |row: &usize| &batch.items[*row].payload;
        // A swap came between decoding and this batch: these rows were prepared for another version.
        let again: Vec<Prepared> = rows
            .iter()
            .map(payload)
            .filter(|payload| payload.version != served.id.version)
            .map(|payload| self.decoder.prepare(&payload.record, served))
            .collect();
        let mut asked = Vec::with_capacity(rows.len());
        let mut stale = again.iter();
        for (at, row) in rows.iter().enumerate() {
            let Decoded { record, version, prepared } = payload(row);
            let fresh = *version == served.id.version;
            let prepared = if fresh { prepared } else { stale.next().unwrap_or(prepared) };
            match prepared {
                Prepared::Input(input) => asked.push(Asked { at, row: *row, input, record }),
                known @ (Prepared::Tombstone | Prepared::Fault(_)) => {
                    outcome(known).into_iter().for_each(|outcome| answered.push(*row, outcome));
                }
            }
        }
        if again.is_empty() {
            return ask(served, finish, &asked, answered);
        }
        // They were cut by what they cost the other version.
        let costs = asked.iter().enumerate().map(|(at, asked)| (at, asked.input.tokens()));
        for part in cut(costs.collect(), 1, served.model.about()) {
            let part: Vec<Asked<'_>> = part.into_iter().map(|at| asked[at]).collect();
            ask(served, finish, &part, answered)?;
        }
        Ok(())
    }
}

/// Runs the model, or asks the cache, and finishes the predictions.
fn ask(
    served: &Served,
    Finish(finish): &Finish,
    asked: &[Asked<'_>],
    answered: &mut Answered,
) -> Result<(), Refused> {
    if asked.is_empty() {
        return Ok(());
    }
    let inputs: Vec<&Input> = asked.iter().map(|asked| asked.input).collect();
    let result = match &served.cache {
        Some(cache) => cache.predict(served.model.as_ref(), &inputs),
        None => predict(served.model.as_ref(), &inputs).map(|predictions| (predictions, 0)),
    };
    let (predictions, hits) =
        result.map_err(|refused| refused.of_part(|row| Some(asked.get(row)?.at)))?;
    answered.hits += hits;
    let started = now();
    for (Asked { row, record, input, .. }, prediction) in asked.iter().zip(&predictions) {
        let truncated = input.truncated();
        let written = |value| Written { value, truncated };
        answered.push(*row, finish(prediction, record).map(written));
    }
    answered.encode = Stage::both(answered.encode, Some(Stage::new(started, now())));
    Ok(())
}

/// A row that the model is asked about.
#[derive(Clone, Copy)]
struct Asked<'a> {
    /// Its place in the sub-batch.
    at: usize,
    row: usize,
    input: &'a Input,
    record: &'a Record,
}

/// The outcome of a record that the model need not see.
fn outcome(prepared: &Prepared) -> Option<Outcome<Written>> {
    match prepared {
        Prepared::Input(_) => None,
        Prepared::Tombstone => Some(Outcome::Tombstone),
        Prepared::Fault(fault) => Some(Outcome::DeadLetter(fault.clone())),
    }
}

/// What became of a sub-batch.
#[derive(Debug, Default)]
struct Answered {
    /// Rows, and beside them their outcomes.
    rows: Vec<usize>,
    outcomes: Vec<Outcome<Written>>,
    /// When predictions were finished.
    encode: Option<Stage>,
    hits: usize,
}

impl Answered {
    fn push(&mut self, row: usize, outcome: Outcome<Written>) {
        self.rows.push(row);
        self.outcomes.push(outcome);
    }
}

#[expect(clippy::disallowed_methods, reason = "measures the model, decides nothing")]
fn now() -> Instant {
    Instant::now()
}

/// A poisoned lock holds what it held: the panic is another thread's, and ends the process there.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SUB_BATCH_TOKENS;

    fn about(chunk_tokens: usize, padded: bool) -> About {
        About { chunk_tokens, padded, ..About::of_tests() }
    }

    #[test]
    fn sub_batches_hold_each_row_once_and_feed_every_worker() {
        let packed = about(SUB_BATCH_TOKENS, false);
        assert!(cut(Vec::new(), 2, &packed).is_empty());
        assert_eq!(cut(vec![(0, 5), (1, 9)], 2, &packed), [[1, 0]], "too small to share");
        assert_eq!(cut(vec![(0, 100), (1, 200), (2, 100)], 2, &packed), [vec![1], vec![0, 2]]);
        let rows: Vec<(usize, usize)> = (0..400).map(|row| (row, 1 + row % 120)).collect();
        for about in [packed, about(SUB_BATCH_TOKENS, true), about(1_024, true)] {
            let parts = cut(rows.clone(), 2, &about);
            let mut seen: Vec<usize> = parts.iter().flatten().copied().collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..400).collect::<Vec<_>>());
            for part in &parts {
                let sum: usize = part.iter().map(|row| rows[*row].1).sum();
                let area = part.len() * rows[part[0]].1;
                let cost = if about.padded { area } else { sum };
                assert!(cost <= about.chunk_tokens, "{cost}");
                assert!(part.iter().is_sorted_by_key(|row| std::cmp::Reverse(rows[*row].1)));
            }
        }
        let packed = about(SUB_BATCH_TOKENS, false);
        assert_eq!(cut(vec![(0, 9_000)], 2, &packed), [[0]], "longer than the budget, alone");
    }

    #[test]
    fn padding_counts_where_the_model_pads() {
        let rows = vec![(0, 100), (1, 10), (2, 10), (3, 10)];
        assert_eq!(cut(rows.clone(), 1, &about(256, false)), [[0, 1, 2, 3]]);
        assert_eq!(cut(rows.clone(), 1, &about(256, true)), [vec![0], vec![1, 2, 3]]);
        assert_eq!(cut(rows, 1, &about(1_024, true)), [[0, 1], [2, 3]], "2 × 100 of 256");
        assert_eq!(cut(vec![(0, 9_000), (1, 1)], 2, &about(256, true)), [[0], [1]]);
    }
}

//! The inference threads: sub-batches in, outcomes out.
//!
//! ```text
//!  engine ─► submit(job) ─► [ sub-batch | sub-batch | … ] ─► infer-0 ─┐
//!                             sorted by length, as much      infer-1 ─┴─► answers ─► engine
//!                             as the model is best given
//! ```
//!
//! One thread a core, each with one sub-batch at a time: faster than one batch over all cores, because
//! nothing waits for the slowest at the end of every matrix product. The next batch's sub-batches queue
//! behind this one's, so no core idles between two batches. The last thread of a batch puts its rows in
//! order; answers are encoded where they are computed.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::answer::Refused;
use crate::config::Output;
use crate::decode::{Decoded, Decoder, Prepared};
use crate::format;
use crate::model::guard::predict;
use crate::model::served::Served;
use crate::model::{About, Input, device};
use crate::pipeline::Batch;
use crate::record::{Outcome, Record};

/// Rows of a batch and the model that runs them.
#[derive(Debug)]
pub struct Job {
    /// The batch.
    pub batch: Arc<Batch<Decoded>>,
    /// Which of its rows.
    pub rows: Range<usize>,
    /// The batch's version.
    pub served: Arc<Served>,
}

/// What became of a [`Job`].
#[derive(Debug)]
pub struct Answer {
    /// The batch's number.
    pub batch: u64,
    /// The job's rows.
    pub rows: Range<usize>,
    /// An outcome for each row, predictions encoded; or a refusal of all of them.
    pub outcomes: Result<Vec<Outcome<Vec<u8>>>, Refused>,
    /// From the first sub-batch's start to the last one's end.
    pub took: Duration,
    /// Time spent encoding, summed over threads.
    pub encode: Duration,
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
    output: Output,
    answers: mpsc::Sender<Answer>,
}

#[derive(Debug, Default)]
struct Queue {
    tasks: VecDeque<Task>,
    closed: bool,
}

/// A sub-batch: rows of a job, by their place in it.
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

#[derive(Debug)]
struct State {
    outcomes: Vec<Option<Outcome<Vec<u8>>>>,
    refused: Option<Refused>,
    tasks: usize,
    started: Option<Instant>,
    encode: Duration,
    hits: usize,
}

impl Workers {
    /// Starts `count` threads that encode as `output` says and send what they finish to `answers`. `decoder` prepares
    /// records again that were prepared for another version than their batch's.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub fn start(
        count: usize,
        decoder: Decoder,
        output: Output,
        answers: mpsc::Sender<Answer>,
    ) -> std::io::Result<Self> {
        let (queue, ready) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { queue, ready, decoder, output, answers });
        let thread = |number| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("infer-{number}")).spawn(move || shared.work())
        };
        let threads = (0..count.max(1)).map(thread).collect::<Result<_, _>>()?;
        Ok(Self { shared, threads })
    }

    /// Queues a job. Its answer comes on the channel, later.
    pub fn submit(&self, job: Job) {
        let items = &job.batch.items[job.rows.clone()];
        let mut outcomes = Vec::with_capacity(items.len());
        let mut inputs = Vec::with_capacity(items.len());
        for (row, item) in items.iter().enumerate() {
            let Decoded { version, prepared, .. } = &item.payload;
            let known = (*version == job.served.id.version).then(|| outcome(prepared)).flatten();
            if known.is_none() {
                inputs.push((row, prepared.tokens()));
            }
            outcomes.push(known);
        }
        let mut parts = cut(inputs, self.threads.len(), job.served.model.about());
        if parts.is_empty() {
            parts.push(Vec::new()); // a batch of faults still has to be answered
        }
        let state = State {
            outcomes,
            refused: None,
            tasks: parts.len(),
            started: None,
            encode: Duration::ZERO,
            hits: 0,
        };
        let running = Arc::new(Running { job, state: Mutex::new(state) });
        let tasks = parts.into_iter().map(|rows| Task { running: Arc::clone(&running), rows });
        lock(&self.shared.queue).tasks.extend(tasks);
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
            if self.run(&task).is_err() {
                return; // the engine is gone
            }
        }
    }

    /// Runs a sub-batch; answers the job if it was the last.
    fn run(&self, task: &Task) -> Result<(), mpsc::error::SendError<Answer>> {
        let Running { job, state } = &*task.running;
        #[expect(clippy::disallowed_methods, reason = "measures the model, decides nothing")]
        let started = Instant::now();
        let skip = {
            let mut state = lock(state);
            state.started.get_or_insert(started);
            state.refused.is_some()
        };
        let result = if skip || task.rows.is_empty() {
            Ok(Answered::default())
        } else {
            self.predict(job, &task.rows)
        };
        let mut state = lock(state);
        match result {
            Ok(answered) => {
                state.encode += answered.encode;
                state.hits += answered.hits;
                for (row, outcome) in answered.outcomes {
                    state.outcomes[row] = Some(outcome);
                }
            }
            Err(refused) => state.refused = Some(refused),
        }
        state.tasks -= 1;
        if state.tasks != 0 {
            return Ok(());
        }
        let outcomes = std::mem::take(&mut state.outcomes);
        let outcomes = match state.refused.take() {
            Some(refused) => Err(refused),
            None => Ok(outcomes.into_iter().flatten().collect()),
        };
        let (batch, rows) = (job.batch.number, job.rows.clone());
        let took = state.started.map_or(Duration::ZERO, |started| started.elapsed());
        let (encode, hits) = (state.encode, state.hits);
        let answer = Answer { batch, rows, outcomes, took, encode, hits };
        drop(state);
        self.answers.blocking_send(answer)
    }

    /// The rows' outcomes, in any order.
    fn predict(&self, job: &Job, rows: &[usize]) -> Result<Answered, Refused> {
        let items = &job.batch.items[job.rows.clone()];
        // A swap came between decoding and this batch: these rows were prepared for another version.
        let again: Vec<(usize, Prepared)> = rows
            .iter()
            .filter(|row| items[**row].payload.version != job.served.id.version)
            .map(|row| (*row, self.decoder.prepare(&items[*row].payload.record, &job.served)))
            .collect();
        let mut answered = Answered::default();
        let mut inputs = Vec::with_capacity(rows.len());
        let mut stale = again.iter();
        for row in rows {
            let Decoded { record, version, prepared } = &items[*row].payload;
            let fresh = *version == job.served.id.version;
            let prepared =
                if fresh { prepared } else { stale.next().map_or(prepared, |(_, again)| again) };
            match prepared {
                Prepared::Input(input) => inputs.push(Asked { row: *row, input, record }),
                known @ (Prepared::Tombstone | Prepared::Fault(_)) => {
                    answered.outcomes.extend(outcome(known).map(|outcome| (*row, outcome)));
                }
            }
        }
        if again.is_empty() {
            self.ask(&job.served, &inputs, &mut answered)?;
            return Ok(answered);
        }
        // They were cut by what they cost the other version.
        let costs = inputs.iter().enumerate().map(|(at, asked)| (at, asked.input.tokens()));
        for part in cut(costs.collect(), 1, job.served.model.about()) {
            let part: Vec<Asked<'_>> = part.into_iter().map(|at| inputs[at]).collect();
            self.ask(&job.served, &part, &mut answered)?;
        }
        Ok(answered)
    }

    /// Runs the model, or asks the cache, and encodes the answers.
    fn ask(
        &self,
        served: &Served,
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
            result.map_err(|refused| refused.of_part(|row| Some(asked.get(row)?.row)))?;
        answered.hits += hits;
        #[expect(clippy::disallowed_methods, reason = "measures encoding, decides nothing")]
        let started = Instant::now();
        for (Asked { row, record, .. }, prediction) in asked.iter().zip(&predictions) {
            let input = self.decoder.settings();
            let value = format::encode(prediction, &self.output, input, record);
            answered.outcomes.push((*row, Outcome::Prediction(value)));
        }
        answered.encode += started.elapsed();
        Ok(())
    }
}

/// A row that the model is asked about.
#[derive(Clone, Copy)]
struct Asked<'a> {
    row: usize,
    input: &'a Input,
    record: &'a Record,
}

/// The outcome of a record that the model need not see.
fn outcome(prepared: &Prepared) -> Option<Outcome<Vec<u8>>> {
    match prepared {
        Prepared::Input(_) => None,
        Prepared::Tombstone => Some(Outcome::Tombstone),
        Prepared::Fault(fault) => Some(Outcome::DeadLetter(fault.clone())),
    }
}

/// What became of a sub-batch.
#[derive(Debug, Default)]
struct Answered {
    /// Rows with their outcomes.
    outcomes: Vec<(usize, Outcome<Vec<u8>>)>,
    /// Time that encoding took.
    encode: Duration,
    hits: usize,
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

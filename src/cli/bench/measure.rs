//! Runs batches through the real workers and takes their times.
//!
//! ```text
//!  warm-up   1, 2, 4, …         once, rising: memory is read here, and sizes that would take too long are left out
//!  a round   1, 2, 4, …, again  each size of each side for its share of the time, so that what disturbs the machine
//!                               for a while disturbs all sizes alike
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::bench::Sample;
use crate::bench::statistics::float;
use crate::config::Config;
use crate::decode::{Decoded, Decoder};
use crate::failure::{Exit, Failure};
use crate::format::{Codec, Writer};
use crate::memory;
use crate::model::served::Served;
use crate::pipeline::batch::Cut;
use crate::pipeline::{Batch, Item};
use crate::record::Version;
use crate::workers::{Answer, Finish, Job, Workers};

/// Batches in the model at once, as in the service: one that runs, one that is ready to.
const IN_MODEL: usize = 2;

/// The records, decoded once, as one long batch. What a worker gets is a window of it.
pub(super) struct Records {
    batch: Arc<Batch<Decoded>>,
    /// Windows begin at one of the first so many; behind them they come again.
    pub(super) different: usize,
    /// Tokens of those.
    tokens: u64,
}

impl Records {
    /// Windows of up to `longest` of these records; `again` makes one of them once more.
    pub(super) fn new(
        mut items: Vec<Item<Decoded>>,
        longest: usize,
        again: impl Fn(usize) -> Item<Decoded>,
    ) -> Self {
        let different = items.len();
        let tokens = items.iter().map(|item| item.tokens).sum();
        items.extend((0..longest).map(|row| again(row % different.max(1))));
        let now = now();
        let batch = Batch::new(0, 0, Version::default(), Cut::of(items, now), now);
        Self { batch: Arc::new(batch), different, tokens }
    }

    /// The mean length of a record.
    pub(super) fn tokens_a_record(&self) -> f64 {
        let different = u64::try_from(self.different).unwrap_or(u64::MAX);
        float(self.tokens) / float(different.max(1))
    }

    /// The first of the records, at most `count`.
    pub(super) fn first(&self, count: usize) -> &[Item<Decoded>] {
        &self.batch.items[..count.min(self.different)]
    }
}

/// A size and what was measured at it.
pub(super) struct Measured {
    pub(super) size: u32,
    pub(super) samples: Vec<Sample>,
    /// The most bytes after the warm-up of this size and of those before it.
    pub(super) resident: Option<u64>,
}

impl Measured {
    /// Nothing yet.
    pub(super) fn at(size: u32) -> Self {
        Self { size, samples: Vec::new(), resident: None }
    }
}

/// A loaded model, its workers, and what they did.
pub(super) struct Side {
    pub(super) served: Arc<Served>,
    pub(super) workers: u16,
    pub(super) sizes: Vec<Measured>,
    pool: Workers,
    finish: Finish,
    answers: mpsc::Receiver<Answer>,
    /// Where the next window begins.
    next: usize,
}

impl Side {
    /// Starts so many workers for a model.
    pub(super) fn start(served: Arc<Served>, workers: u16) -> Result<Self, Failure> {
        let (answers_in, answers) = mpsc::channel(16);
        let config = Config::default();
        let codec = Arc::new(Codec::new(&config)?);
        let writer = Arc::new(Writer::new(&config, Arc::clone(&codec)));
        let decoder = Decoder::new(codec);
        // As in the service, so that the times hold there.
        let finish = Finish::write(writer);
        let pool = Workers::start(usize::from(workers), decoder, answers_in).map_err(|error| {
            Failure { message: format!("start a thread: {error}"), exit: Exit::Temporary }
        })?;
        Ok(Self { served, workers, sizes: Vec::new(), pool, finish, answers, next: 0 })
    }

    /// One short run of each size, rising, as long as `rounds` of all of them fit into `time`. The first size that
    /// does not, and how long a batch of it takes.
    pub(super) fn warm_up(
        &mut self,
        records: &Records,
        sizes: impl Iterator<Item = u32>,
        (rounds, time): (u32, Duration),
    ) -> Result<Option<(u32, Duration)>, Failure> {
        let time = time.as_secs_f64();
        // The first batches after a load are slow: pages and caches are cold.
        self.run(records, 1, Duration::ZERO)?;
        let (mut spent, mut last, mut resident) = (0.0, 0.0_f64, None);
        for size in sizes {
            // Twice the records, twice the time; once more for this warm-up.
            let expected = last * 2.0;
            if !self.sizes.is_empty() && time < spent + expected * f64::from(rounds + 1) {
                let batch = Duration::from_secs_f64(expected / 2.0);
                return Ok(Some((size, batch)));
            }
            last = self.run(records, size, Duration::ZERO)?.seconds;
            spent += last * f64::from(rounds + 1);
            // The most so far: what the allocator gives back between two batches is needed again.
            resident = resident.max(memory::resident("self"));
            self.sizes.push(Measured { resident, ..Measured::at(size) });
        }
        Ok(None)
    }

    /// Batches of `size` records for as long as `share`; two at least.
    fn run(&mut self, records: &Records, size: u32, share: Duration) -> Result<Sample, Failure> {
        let rows = usize::try_from(size).unwrap_or(usize::MAX);
        let began = now();
        let mut sample = Sample { tokens: 0, seconds: 0.0, batches: Vec::new() };
        let (mut submitted, mut in_model) = (0, 0);
        loop {
            while in_model < IN_MODEL && (submitted < IN_MODEL || began.elapsed() < share) {
                let window = self.next..self.next + rows;
                self.next = window.end % records.different;
                let items = &records.batch.items[window.clone()];
                sample.tokens += items.iter().map(|item| item.tokens).sum::<u64>();
                self.pool.submit(Job {
                    number: 0,
                    batch: Arc::clone(&records.batch),
                    rows: window.collect(),
                    served: Arc::clone(&self.served),
                    finish: self.finish.clone(),
                });
                submitted += 1;
                in_model += 1;
            }
            if in_model == 0 {
                sample.seconds = began.elapsed().as_secs_f64();
                return Ok(sample);
            }
            let answer = self.answers.blocking_recv().ok_or_else(|| Failure {
                message: "the inference threads ended without a word; this is a bug".to_owned(),
                exit: Exit::Software,
            })?;
            in_model -= 1;
            for part in answer.parts {
                part.answer.map_err(|refused| Failure {
                    message: format!(
                        "run a batch of {size} records: {refused}; try --max-records {}",
                        (size / 2).max(1)
                    ),
                    exit: Exit::Data,
                })?;
            }
            sample.batches.push(answer.inference.busy.as_secs_f64());
        }
    }
}

/// Rounds over every size of every side, within `time`; at least one round.
pub(super) fn rounds(
    sides: &mut [Side],
    records: &Records,
    (rounds, time): (u32, Duration),
) -> Result<(), Failure> {
    let began = now();
    let points = sides.iter().map(|side| side.sizes.len()).sum::<usize>();
    let most = sides.iter().map(|side| side.sizes.len()).max().unwrap_or(0);
    let mut visits = u32::try_from(points).unwrap_or(u32::MAX).saturating_mul(rounds).max(1);
    for round in 0..rounds {
        if round != 0 && time <= began.elapsed() {
            return Ok(());
        }
        for place in 0..most {
            for side in &mut *sides {
                let Some(size) = side.sizes.get(place).map(|measured| measured.size) else {
                    continue;
                };
                let share = time.saturating_sub(began.elapsed()) / visits;
                visits = (visits - 1).max(1);
                let sample = side.run(records, size, share)?;
                if let Some(measured) = side.sizes.get_mut(place) {
                    measured.samples.push(sample);
                }
            }
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
pub(super) fn now() -> Instant {
    Instant::now()
}

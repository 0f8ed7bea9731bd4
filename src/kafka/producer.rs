//! A transactional producer whose calls have a deadline.
//!
//! Some calls of the client cannot be interrupted, and one of them can block for ever when a group's
//! coordinator dies. So they run on a thread of their own: a call that does not return in time is left behind
//! with its thread and its client, and the next producer with the same transactional id fences it. A call that returns
//! after all takes its client with it and is forgotten.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{
    BaseRecord, DeliveryResult, NoCustomPartitioner, Producer as _, ProducerContext, PurgeConfig,
    ThreadedProducer,
};

use super::class::{Action, Call, Symptom, classify, is_of_a_record, overdue};
use super::settings::Tuning;
use super::shared::Shared;
use super::{Journal, native, settings, spawn};
use crate::failure::{Exit, Failure};
use crate::log::message::Message;

/// How long `init_transactions` is repeated: the coordinator may have to be found and an old transaction
/// ended.
const INIT: Duration = Duration::from_secs(60);
/// How long one attempt of it may take.
const INIT_ATTEMPT: Duration = Duration::from_secs(10);
/// Most producers left behind, with a call that has not returned, before the process starts anew.
const STUCK_MAX: u32 = 3;
/// How long the verdicts on the other messages of a transaction are waited for once one was refused.
const VERDICTS: Duration = Duration::from_secs(2);

/// A message that the broker will never take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What [`Producer::send`] was given for it.
    pub(super) row: usize,
    /// Why.
    pub(super) code: Code,
    /// The broker's own words.
    pub(super) words: String,
}

/// What the broker said of the messages of one transaction, where it refused some for good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Verdicts {
    /// Those that it refused.
    pub(super) refused: Vec<Refusal>,
    /// Whether it said of neighbours that they were not the cause: then it has named the cause.
    pub(super) named: bool,
}

/// Why a call did not succeed, and what to do about it.
#[derive(Debug)]
pub(super) struct Trouble {
    /// The call.
    pub(super) call: Call,
    /// The answer to it.
    pub(super) action: Action,
    /// Whether a newer producer has our transactional id.
    pub(super) fenced: bool,
    /// What happened, for a person.
    pub(super) why: String,
    /// The messages that the broker refused for good.
    pub(super) verdicts: Verdicts,
}

impl Trouble {
    pub(super) fn of(call: Call, error: &KafkaError) -> Self {
        use rdkafka::error::RDKafkaErrorCode as Code;
        let symptom = Symptom::of(error);
        let action = symptom.map_or(Action::Resolve, |symptom| classify(call, symptom));
        let fenced = symptom.is_some_and(|s| {
            matches!(s.code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
        });
        let why = format!("{}: {error}", call.name());
        Self { call, action, fenced, why, verdicts: Verdicts::default() }
    }

    /// Something of ours that stands in the way.
    pub(super) fn own(call: Call, action: Action, why: &str) -> Self {
        let why = format!("{}: {why}", call.name());
        Self { call, action, fenced: false, why, verdicts: Verdicts::default() }
    }

    pub(super) fn late(call: Call, action: Action) -> Self {
        Self::own(call, action, "no answer within limits.transaction")
    }
}

/// What the delivery reports said so far.
#[derive(Debug, Default)]
struct Reports {
    arrived: u64,
    /// How many the lane waits for.
    wanted: u64,
    error: Option<KafkaError>,
    verdicts: Verdicts,
}

/// Counts delivery reports. Runs on the client's polling thread: count and return.
#[derive(Debug)]
pub(super) struct Counter {
    journal: Journal,
    reports: Mutex<Reports>,
    changed: Condvar,
}

impl Counter {
    fn reports(&self) -> MutexGuard<'_, Reports> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Counter {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.journal.write(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.journal.error(&error, reason);
    }

    fn stats_raw(&self, _: &[u8]) {}
}

impl ProducerContext for Counter {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, row: usize) {
        let mut reports = self.reports();
        reports.arrived += 1;
        if let Err((error, _)) = result {
            let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
            reports.verdicts.named |= code == Code::InvalidDifferentRecord;
            if is_of_a_record(code) {
                // The broker's sentence about one record cannot be had: the client gives a pointer to it that it has
                // freed (librdkafka 2.12, `rd_kafka_message_produce_errstr`).
                let words = code.to_string();
                reports.verdicts.refused.push(Refusal { row, code, words });
            }
            // What was only purged behind the first error says nothing.
            let says = !matches!(code, Code::PurgeQueue | Code::PurgeInflight);
            if reports.error.is_none() && says {
                reports.error = Some(error.clone());
                self.changed.notify_one();
            }
        }
        if reports.arrived == reports.wanted {
            self.changed.notify_one();
        }
    }
}

pub(super) type Inner = ThreadedProducer<Counter, NoCustomPartitioner>;
type Job = Box<dyn FnOnce(&Inner) -> KafkaResult<()> + Send>;

/// A producer with its call thread.
pub(super) struct Producer {
    inner: Arc<Inner>,
    jobs: SyncSender<Job>,
    answers: Receiver<KafkaResult<()>>,
    sent: u64,
    /// Whether a call did not return in time: its thread takes it back when it does.
    left_behind: Arc<AtomicBool>,
}

impl Producer {
    /// Makes lane `lane`'s producer and fences its predecessor.
    pub(super) fn new(shared: &Arc<Shared>, lane: usize, tuning: Tuning) -> Result<Self, Failure> {
        let counter = Counter {
            journal: shared.journal.clone(),
            reports: Mutex::default(),
            changed: Condvar::new(),
        };
        let settings = settings::producer(&shared.config, &shared.instance, lane, tuning);
        let inner: Inner = settings
            .create_with_context(counter)
            .map_err(|e| shared.failure("configure the Kafka producer", &e, Exit::Config))?;
        let inner = Arc::new(inner);
        shared.journal.identity().keep(&inner, |inner| inner.client());
        let (jobs, queue) = sync_channel::<Job>(1);
        let (answer, answers) = sync_channel(1);
        let client = Arc::clone(&inner);
        let left_behind = Arc::new(AtomicBool::new(false));
        let (behind, stuck) = (Arc::clone(&left_behind), Arc::clone(shared));
        // The last to hold the client drops it: dropping may block too.
        spawn(&format!("txn-{lane}"), move || {
            while let Ok(job) = queue.recv() {
                if answer.send(job(&client)).is_err() {
                    break;
                }
            }
            drop(client);
            if behind.load(Ordering::Acquire) {
                stuck.stuck.fetch_sub(1, Ordering::AcqRel);
            }
        })?;
        let producer = Self { inner, jobs, answers, sent: 0, left_behind };
        producer.init(shared, lane)?;
        Ok(producer)
    }

    fn init(&self, shared: &Shared, lane: usize) -> Result<(), Failure> {
        let deadline = Instant::now() + INIT;
        let what = format!("initialise the transactions of lane {lane}");
        loop {
            let job = |p: &Inner| p.init_transactions(INIT_ATTEMPT);
            let Some(answer) = self.run(Box::new(job), deadline) else {
                let why = format!("{what}: no answer within {INIT:?}; look at the brokers");
                return Err(Failure { message: why, exit: Exit::Temporary });
            };
            let Err(error) = answer else { return Ok(()) };
            match Trouble::of(Call::Init, &error).action {
                Action::Again if Instant::now() < deadline => {
                    tracing::warn!(%error, lane, "transactions are not initialised yet");
                }
                Action::Exit(exit) => return Err(shared.failure(&what, &error, exit)),
                Action::Again
                | Action::Drain
                | Action::Refused
                | Action::TooLong
                | Action::Redo
                | Action::Recreate
                | Action::Resolve => return Err(shared.failure(&what, &error, Exit::Temporary)),
            }
        }
    }

    /// Makes one of the blocking calls, again and again while its error says so, until `deadline`.
    pub(super) fn call(
        &self,
        shared: &Shared,
        call: Call,
        deadline: Instant,
        job: impl Fn(&Inner, Duration) -> KafkaResult<()> + Send + Sync + 'static,
    ) -> Result<(), Trouble> {
        let job = Arc::new(job);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Trouble::late(call, overdue(call)));
            }
            let job = Arc::clone(&job);
            let Some(answer) = self.run(Box::new(move |p| job(p, left)), deadline) else {
                let stuck = shared.stuck.fetch_add(1, Ordering::AcqRel) + 1;
                self.left_behind.store(true, Ordering::Release);
                let stay =
                    if stuck > STUCK_MAX { Action::Exit(Exit::Temporary) } else { overdue(call) };
                tracing::warn!(
                    stuck,
                    call = call.name(),
                    "a call did not return, its producer is left behind"
                );
                return Err(Trouble::late(call, stay));
            };
            let Err(error) = answer else { return Ok(()) };
            let trouble = Trouble::of(call, &error);
            if trouble.action != Action::Again {
                return Err(trouble);
            }
            std::thread::sleep(Duration::from_millis(20).min(left));
        }
    }

    /// `None`: it did not return in time. A little longer than the call's own timeout.
    fn run(&self, job: Job, deadline: Instant) -> Option<KafkaResult<()>> {
        self.jobs.send(job).ok()?;
        let left = deadline.saturating_duration_since(Instant::now());
        self.answers.recv_timeout(left + Duration::from_millis(500)).ok()
    }

    /// Hands a message over to the client, waiting for room where its queue is full. `row` comes back in a refusal.
    pub(super) fn send(
        &mut self,
        message: &Message<'_>,
        row: usize,
        deadline: Instant,
    ) -> Result<(), Trouble> {
        loop {
            let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
            for (name, value) in &message.headers {
                native::add_header(&mut headers, name, value.as_deref());
            }
            let record = BaseRecord::<[u8], [u8], usize> {
                topic: message.topic,
                partition: message.partition,
                payload: message.value.as_deref(),
                key: message.key.as_deref(),
                timestamp: message.timestamp,
                headers: (!message.headers.is_empty()).then_some(headers),
                delivery_opaque: row,
            };
            let Err((error, _)) = self.inner.send(record) else {
                self.sent += 1;
                return Ok(());
            };
            let mut trouble = Trouble::of(Call::Send, &error);
            let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
            if is_of_a_record(code) {
                // The client itself does not take it.
                trouble.verdicts.named = true;
                trouble.verdicts.refused.push(Refusal { row, code, words: error.to_string() });
            }
            if code == Code::State {
                // An earlier message has failed: its report says why, and may not be here yet.
                self.drain(deadline)?;
            }
            if trouble.action != Action::Drain {
                let why = format!("{} for topic {}", trouble.why, message.topic);
                return Err(Trouble { why, ..trouble });
            }
            self.drain(deadline)?;
        }
    }

    /// Waits until every message is reported.
    pub(super) fn drain(&self, deadline: Instant) -> Result<(), Trouble> {
        let counter = self.inner.client().context();
        let mut reports = counter.reports();
        reports.wanted = self.sent;
        loop {
            if let Some(error) = &reports.error {
                let trouble = Trouble::of(Call::Deliver, error);
                drop(reports);
                return Err(Trouble { verdicts: self.verdicts(), ..trouble });
            }
            if reports.arrived >= self.sent {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // Offsets were not sent: nothing can have been committed.
                return Err(Trouble::late(Call::Deliver, Action::TooLong));
            }
            let waited = counter.changed.wait_timeout(reports, left);
            (reports, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What the broker says of the other messages too: those on their way are waited for, the rest is not sent.
    fn verdicts(&self) -> Verdicts {
        self.inner.purge(PurgeConfig::default().queue());
        let deadline = Instant::now() + VERDICTS;
        let counter = self.inner.client().context();
        let mut reports = counter.reports();
        while reports.arrived < self.sent {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = counter.changed.wait_timeout(reports, left);
            (reports, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        reports.verdicts.clone()
    }
}

//! The reading side: one thread polls, hands records over, takes and gives up partitions.
//!
//! Each assigned partition has its own queue in the client. The main queue, with the group's events, is
//! polled always; a partition's queue only while `chunks` has room and the engine has opened its gate. So a stalled
//! engine stops the fetching, never the membership. The client wakes the thread when a queue fills; else it sleeps.
//!
//! The thread itself asks the cluster nothing. What the group assigns is answered at once, with nothing to fetch yet;
//! where the partitions begin is found out [beside](super::opening), and each is fetched from when it is known.
//!
//! A client that the group has fenced is of no use any more. Where no [twin](super::twin) lives, another one joins.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::Offset as Place;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::group::{Context, Rebalance};
use super::observe::Order;
use super::opening::{Answer, Claims, Opener};
use super::shared::Shared;
use super::twin::Lost;
use super::{Guard, RARELY, SELDOM, native, settings, spawn};
use crate::failure::{Exit, Failure};
use crate::log::{Arrival, Chunk, Control, Gate, Leave, Transit};
use crate::record::{End, Epoch, Offset, Partition, Record};
use crate::repeated::Kinds;

/// Most records of a chunk.
const CHUNK_RECORDS: usize = 512;
/// How long the thread sleeps when nothing wakes it: the group's events are served at least so often.
const IDLE: Duration = Duration::from_millis(100);
/// How often the main queue is polled in a pass: a poll takes one event, and says the same for an event that
/// it served itself as for an empty queue.
const EVENTS: usize = 16;
/// How often room in `chunks` is looked for while the engine is behind.
const STALLED: Duration = Duration::from_millis(3);
/// How long leaving the group may take, and closing the client after it.
const CLOSE: Duration = Duration::from_secs(10);
/// How long the cluster may take to describe the group.
const ANSWER: Duration = Duration::from_secs(5);

mod rebalance;
mod trouble;

/// A partition that is fetched.
struct Split {
    partition: Partition,
    epoch: Epoch,
    /// Where reading began.
    start: Offset,
    queue: PartitionQueue<Context>,
    gate: Gate,
}

/// What a pass over the queues left.
enum Left {
    /// Nothing: all queues are empty.
    Nothing,
    /// More than a chunk.
    More,
    /// `chunks` is full.
    NoRoom,
}

/// The other ends of the thread's channels.
pub(super) struct Ends {
    pub(super) control: mpsc::Sender<Control>,
    pub(super) chunks: mpsc::Sender<Chunk>,
    pub(super) leave: Leave,
    pub(super) orders: Receiver<Order>,
}

/// The poll thread's state.
pub(super) struct Source {
    shared: Arc<Shared>,
    /// `None` while the group has fenced the last one.
    consumer: Option<Arc<BaseConsumer<Context>>>,
    ends: Ends,
    /// To the thread that finds out where partitions begin, and back.
    claims: SyncSender<Claims>,
    opened: Receiver<Answer>,
    /// The thread that a filled queue wakes.
    sleeper: Arc<OnceLock<Thread>>,
    splits: Vec<Split>,
    transit: Transit,
    /// Which queue the next chunk begins with.
    turn: usize,
    epoch: u64,
    failed: bool,
    lost: Option<(Lost, Instant)>,
    /// Whether the group is being left in order to join it again.
    rejoining: bool,
    /// Since when other members have refused to agree on how partitions are given out.
    disagreed: Option<Instant>,
    said: Kinds,
}

impl Source {
    /// Makes the consumer and subscribes it.
    pub(super) fn open(shared: Arc<Shared>, ends: Ends, guard: &Guard) -> Result<Self, Failure> {
        let sleeper: Arc<OnceLock<Thread>> = Arc::new(OnceLock::new());
        let (claims, claimed) = sync_channel(64);
        let (answers, opened) = sync_channel(64);
        let (opener, wake) = (Opener::new(Arc::clone(&shared)), waker(&sleeper));
        // Not joined: it may be waiting for a cluster that does not answer.
        drop(guard.spawn("open", move || opener.run(&claimed, &answers, &wake))?);
        let transit = Transit::new(shared.config.limits.memory.0);
        let mut source = Self {
            shared,
            consumer: None,
            ends,
            claims,
            opened,
            sleeper,
            splits: Vec::new(),
            transit,
            turn: 0,
            epoch: 0,
            failed: false,
            lost: None,
            rejoining: false,
            disagreed: None,
            said: Kinds::new(SELDOM, RARELY),
        };
        source.join()?;
        Ok(source)
    }

    /// Makes a client and subscribes it.
    fn join(&mut self) -> Result<(), Failure> {
        let shared = Arc::clone(&self.shared);
        if shared.is_held_by_another(ANSWER) == Some(true) {
            *shared.took_over.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        let context = Context {
            journal: shared.journal.clone(),
            rebalances: Mutex::default(),
            closing: AtomicBool::new(false),
        };
        let settings = settings::consumer(&shared.config, &shared.instance, shared.partitions);
        let mut consumer: BaseConsumer<Context> = settings
            .create_with_context(context)
            .map_err(|e| shared.failure("configure the Kafka consumer", &e, Exit::Config))?;
        consumer.set_nonempty_callback(waker(&self.sleeper));
        let consumer = Arc::new(consumer);
        shared.journal.identity().keep(&consumer, |consumer| consumer.client());
        *shared.consumer.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::downgrade(&consumer);
        self.consumer = Some(consumer);
        self.subscribe()
    }

    fn subscribe(&self) -> Result<(), Failure> {
        let Some(consumer) = &self.consumer else { return Ok(()) };
        let topics: Vec<&str> = self.shared.naming.inputs.iter().map(String::as_str).collect();
        let what = format!("subscribe to {}", topics.join(", "));
        consumer.subscribe(&topics).map_err(|e| self.shared.failure(&what, &e, Exit::Config))
    }

    /// Serves the group until told to leave.
    pub(super) fn run(mut self) {
        self.sleeper.get_or_init(std::thread::current);
        while !self.ends.leave.is_asked() {
            if let Err(failure) = self.pass() {
                self.fail(failure);
            }
            match self.read() {
                Left::Nothing => std::thread::park_timeout(IDLE),
                Left::NoRoom => std::thread::park_timeout(STALLED),
                Left::More => {}
            }
        }
        self.close();
    }

    /// Does what the group, the opener and the observer want.
    fn pass(&mut self) -> Result<(), Failure> {
        self.rejoin()?;
        self.serve()?;
        while let Ok(opened) = self.opened.try_recv() {
            self.take(opened?)?;
        }
        while let Ok(order) = self.ends.orders.try_recv() {
            match order {
                Order::Reopen(partitions) => self.reopen(&partitions)?,
                Order::Rejoin => self.leave_to_rejoin()?,
            }
        }
        Ok(())
    }

    /// Polls the main queue and does what the group wants.
    fn serve(&mut self) -> Result<(), Failure> {
        let Some(consumer) = self.consumer.clone() else { return Ok(()) };
        for event in (0..EVENTS).filter_map(|_| consumer.poll(Duration::ZERO)) {
            match event {
                Ok(message) => {
                    let message = format!(
                        "read {}/{}: a record came past its partition's queue; start again",
                        message.topic(),
                        message.partition()
                    );
                    return Err(Failure { message, exit: Exit::Temporary });
                }
                Err(error) => self.judge(&error, None)?,
            }
        }
        while self.consumer.is_some() {
            let mut rebalances =
                consumer.context().rebalances.lock().unwrap_or_else(PoisonError::into_inner);
            let next = rebalances.pop_front();
            drop(rebalances);
            match next {
                Some(Rebalance::Assign(list)) => self.assign(&list)?,
                Some(Rebalance::Revoke(list)) => self.revoke(&list)?,
                None => break,
            }
        }
        if self.rejoining && self.shared.claimed().is_empty() {
            self.rejoining = false;
            self.subscribe()?;
        }
        Ok(())
    }

    /// Sends what the partitions' queues hold, one chunk.
    fn read(&mut self) -> Left {
        let chunks = self.ends.chunks.clone();
        if !self.transit.has_room() {
            return Left::NoRoom;
        }
        let most = self.transit.chunk_bytes();
        let permit = match chunks.try_reserve() {
            Ok(permit) => permit,
            Err(TrySendError::Full(())) => return Left::NoRoom,
            Err(TrySendError::Closed(())) => return Left::Nothing,
        };
        let (mut arrivals, mut bytes, mut errors) = (Vec::new(), 0, Vec::new());
        let mut left = Left::Nothing;
        self.turn += 1;
        let (before, after) = self.splits.split_at(self.turn % self.splits.len().max(1));
        'splits: for split in after.iter().chain(before).filter(|split| split.gate.is_open()) {
            loop {
                if arrivals.len() >= CHUNK_RECORDS || bytes >= most {
                    left = Left::More;
                    break 'splits;
                }
                match split.queue.poll(Duration::ZERO) {
                    Some(Ok(message)) => {
                        let record = copy(&message, split.partition);
                        bytes += record.memory();
                        arrivals.push(Arrival::Record(split.epoch, record));
                    }
                    Some(Err(KafkaError::PartitionEOF(_))) => {
                        let next = self.position(split);
                        let Split { partition, epoch, .. } = *split;
                        arrivals.push(Arrival::End(End { partition, epoch, next, is_last: false }));
                    }
                    Some(Err(error)) => errors.push((error, split.partition)),
                    None => break,
                }
            }
        }
        if !arrivals.is_empty() {
            let load = Some(self.transit.take(bytes));
            permit.send(Chunk { arrivals, load });
        }
        for (error, partition) in errors {
            if let Err(failure) = self.judge(&error, Some(partition)) {
                self.fail(failure);
            }
        }
        left
    }

    /// The offset after all that was taken out of a partition's queue, control records included.
    fn position(&self, split: &Split) -> Offset {
        let name = self.shared.naming.input(split.partition);
        let position = self.consumer.as_ref().and_then(|consumer| {
            let list = consumer.position().ok()?;
            list.find_partition(name, split.partition.number).map(|p| p.offset())
        });
        match position {
            Some(Place::Offset(next)) => Offset(next.max(split.start.0)),
            Some(_) | None => split.start,
        }
    }

    fn consumer(&self) -> Result<Arc<BaseConsumer<Context>>, Failure> {
        self.consumer.clone().ok_or_else(|| Failure {
            message: "use the group's client: there is none; this is a bug".to_owned(),
            exit: Exit::Temporary,
        })
    }

    fn fail(&mut self, failure: Failure) {
        if !std::mem::replace(&mut self.failed, true) {
            self.tell(Control::Failed(failure));
        }
    }

    /// Waits when `control` is full. An engine that is gone needs no telling.
    fn tell(&self, control: Control) {
        if self.ends.control.blocking_send(control).is_err() {
            tracing::debug!("the engine has gone");
        }
    }

    /// Closes, after leaving the group where it is to be left for good. On a thread of its own: a client that does not
    /// close is left behind.
    fn close(mut self) {
        let Some(consumer) = self.consumer.take() else { return };
        let deadline = Instant::now() + CLOSE;
        let for_good = self.ends.leave.is_for_good();
        if for_good {
            // A static member leaves only when it gives its subscription up.
            consumer.unsubscribe();
        }
        loop {
            let mut rebalances =
                consumer.context().rebalances.lock().unwrap_or_else(PoisonError::into_inner);
            let noted: Vec<Rebalance> = rebalances.drain(..).collect();
            drop(rebalances);
            for rebalance in noted {
                let answer = match rebalance {
                    Rebalance::Assign(_) => consumer.incremental_assign(&TopicPartitionList::new()),
                    Rebalance::Revoke(list) => super::group::give_up(&consumer, &list),
                };
                if let Err(error) = answer {
                    tracing::debug!(%error, "a rebalance was not answered while leaving");
                }
            }
            let left = consumer.assignment().is_ok_and(|list| list.count() == 0);
            if !for_good || left || deadline <= Instant::now() {
                break;
            }
            drop(consumer.poll(Duration::from_millis(20)));
        }
        consumer.context().closing.store(true, Ordering::Release);
        self.splits.clear();
        let (closed, done) = sync_channel::<()>(1);
        let body = move || {
            drop(consumer);
            drop(closed);
        };
        if spawn("close", body).is_ok()
            && done.recv_timeout(CLOSE) == Err(RecvTimeoutError::Timeout)
        {
            tracing::warn!("the consumer did not close within {CLOSE:?} and is left behind");
        }
    }
}

fn waker(sleeper: &Arc<OnceLock<Thread>>) -> impl Fn() + Send + Sync + 'static {
    let sleeper = Arc::clone(sleeper);
    move || {
        if let Some(thread) = sleeper.get() {
            thread.unpark();
        }
    }
}

/// Copies a message out of the client's buffers.
fn copy(message: &BorrowedMessage<'_>, partition: Partition) -> Record {
    Record {
        partition,
        offset: Offset(message.offset()),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: native::headers(message),
    }
}

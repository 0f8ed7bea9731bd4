//! The reading side: one thread polls, hands records over, takes and gives up partitions.
//!
//! Each assigned partition has its own queue in the client. The main queue, with the group's events, is
//! polled always; a partition's queue only while `chunks` has room. So a stalled engine stops the fetching,
//! never the membership. The client wakes the thread when a queue fills; else it sleeps.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::Offset as Place;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;

use super::group::{Context, Rebalance, committed, give_up, partition};
use super::{Shared, native, settings, spawn};
use crate::config::StartFrom;
use crate::log::{Arrival, Assigned, Chunk, Control, Failure};
use crate::record::{Epoch, Offset, Partition, Record};

/// Most records of a chunk.
const CHUNK_RECORDS: usize = 512;
/// Most payload bytes of a chunk; the record that passes it is its last.
const CHUNK_BYTES: usize = 1 << 20;
/// How long the thread sleeps when nothing wakes it: the group's events are served at least so often.
const IDLE: Duration = Duration::from_millis(100);
/// How often the main queue is polled in a pass: a poll takes one event, and says the same for an event that
/// it served itself as for an empty queue.
const EVENTS: usize = 16;
/// How often room in `chunks` is looked for while the engine is behind.
const STALLED: Duration = Duration::from_millis(3);
/// How long committed offsets and watermarks may take at an assignment. A predecessor's open transaction
/// holds them back until it ends.
const LOOK_UP: Duration = Duration::from_secs(30);
/// How long leaving the group may take.
const CLOSE: Duration = Duration::from_secs(10);
/// What the engine has beyond `limits.transaction` to answer a revocation.
const REVOKE_MARGIN: Duration = Duration::from_secs(2);

/// An assigned partition.
struct Split {
    partition: Partition,
    epoch: Epoch,
    /// Where reading began.
    start: Offset,
    queue: PartitionQueue<Context>,
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

/// The poll thread's state.
pub(super) struct Source {
    shared: Arc<Shared>,
    consumer: Arc<BaseConsumer<Context>>,
    control: mpsc::Sender<Control>,
    chunks: mpsc::Sender<Chunk>,
    leave: CancellationToken,
    /// The thread that a filled queue wakes.
    sleeper: Arc<OnceLock<Thread>>,
    splits: Vec<Split>,
    /// Which queue the next chunk begins with.
    turn: usize,
    epoch: u64,
    failed: bool,
}

impl Source {
    /// Makes the consumer and subscribes it.
    pub(super) fn open(
        shared: Arc<Shared>,
        control: mpsc::Sender<Control>,
        chunks: mpsc::Sender<Chunk>,
        leave: CancellationToken,
    ) -> Result<Self, Failure> {
        let context = Context {
            journal: shared.journal.clone(),
            naming: shared.naming.clone(),
            control: control.clone(),
            rebalances: Mutex::default(),
            closing: AtomicBool::new(false),
        };
        let settings = settings::consumer(&shared.config, &shared.instance);
        let mut consumer: BaseConsumer<Context> = settings
            .create_with_context(context)
            .map_err(|e| shared.failure("configure the Kafka consumer", &e, 78))?;
        let sleeper = Arc::new(OnceLock::new());
        consumer.set_nonempty_callback(waker(&sleeper));
        let topics: Vec<&str> = shared.naming.inputs.iter().map(String::as_str).collect();
        let what = format!("subscribe to {}", topics.join(", "));
        consumer.subscribe(&topics).map_err(|e| shared.failure(&what, &e, 78))?;
        let consumer = Arc::new(consumer);
        shared.consumer.get_or_init(|| Arc::downgrade(&consumer));
        let (splits, turn, epoch, failed) = (Vec::new(), 0, 0, false);
        Ok(Self { shared, consumer, control, chunks, leave, sleeper, splits, turn, epoch, failed })
    }

    /// Serves the group until told to leave.
    pub(super) fn run(mut self) {
        self.sleeper.get_or_init(std::thread::current);
        while !self.leave.is_cancelled() {
            self.serve();
            match self.read() {
                Left::Nothing => std::thread::park_timeout(IDLE),
                Left::NoRoom => std::thread::park_timeout(STALLED),
                Left::More => {}
            }
        }
        self.close();
    }

    /// Polls the main queue and does what the group wants.
    fn serve(&mut self) {
        let consumer = Arc::clone(&self.consumer);
        for event in (0..EVENTS).filter_map(|_| consumer.poll(Duration::ZERO)) {
            match event {
                Ok(message) => self.fail(Failure {
                    message: format!(
                        "read {}/{}: a record came past its partition's queue; start again",
                        message.topic(),
                        message.partition()
                    ),
                    exit: 75,
                }),
                Err(error) => self.judge(&error, None),
            }
        }
        loop {
            let mut rebalances =
                consumer.context().rebalances.lock().unwrap_or_else(PoisonError::into_inner);
            let next = rebalances.pop_front();
            drop(rebalances);
            let outcome = match next {
                Some(Rebalance::Assign(list)) => self.assign(&list),
                Some(Rebalance::Revoke(list)) => self.revoke(&list),
                None => break,
            };
            if let Err(failure) = outcome {
                self.fail(failure);
            }
        }
    }

    /// Sends what the partitions' queues hold, one chunk.
    fn read(&mut self) -> Left {
        let chunks = self.chunks.clone();
        let permit = match chunks.try_reserve() {
            Ok(permit) => permit,
            Err(TrySendError::Full(())) => return Left::NoRoom,
            Err(TrySendError::Closed(())) => return Left::Nothing,
        };
        let (mut arrivals, mut bytes, mut errors) = (Vec::new(), 0, Vec::new());
        let mut left = Left::Nothing;
        self.turn += 1;
        let (before, after) = self.splits.split_at(self.turn % self.splits.len().max(1));
        'splits: for split in after.iter().chain(before) {
            loop {
                if arrivals.len() >= CHUNK_RECORDS || bytes >= CHUNK_BYTES {
                    left = Left::More;
                    break 'splits;
                }
                match split.queue.poll(Duration::ZERO) {
                    Some(Ok(message)) => {
                        let record = copy(&message, split.partition);
                        bytes += record.bytes();
                        arrivals.push(Arrival::Record(split.epoch, record));
                    }
                    Some(Err(KafkaError::PartitionEOF(_))) => {
                        let next = self.position(split);
                        arrivals.push(Arrival::End(split.epoch, split.partition, next));
                    }
                    Some(Err(error)) => errors.push((error, split.partition)),
                    None => break,
                }
            }
        }
        if !arrivals.is_empty() {
            permit.send(Chunk(arrivals));
        }
        for (error, partition) in errors {
            self.judge(&error, Some(partition));
        }
        left
    }

    /// The offset after all that was taken out of a partition's queue, control records included.
    fn position(&self, split: &Split) -> Offset {
        let name = self.shared.naming.input(split.partition);
        let position =
            self.consumer.position().ok().and_then(|list| {
                list.find_partition(name, split.partition.number).map(|p| p.offset())
            });
        match position {
            Some(Place::Offset(next)) => Offset(next.max(split.start.0)),
            Some(_) | None => split.start,
        }
    }

    /// Takes partitions: says so, then reads from the committed offsets on.
    fn assign(&mut self, list: &TopicPartitionList) -> Result<(), Failure> {
        let partitions = self.partitions(list);
        let committed = self.committed(&partitions)?;
        let mut places = TopicPartitionList::new();
        let (mut assigned, mut splits) = (Vec::new(), Vec::new());
        for partition in partitions {
            let (low, end) = self.watermarks(partition)?;
            let committed = committed.get(&partition).copied();
            let start = committed.unwrap_or(match self.shared.config.kafka.start_from {
                StartFrom::Earliest => low,
                StartFrom::Latest => end,
            });
            self.epoch += 1;
            let epoch = Epoch(self.epoch);
            let name = self.shared.naming.input(partition);
            let place = Place::Offset(start.0);
            let added = places.add_partition_offset(name, partition.number, place);
            let queue = self.consumer.split_partition_queue(name, partition.number);
            let (Ok(()), Some(mut queue)) = (added, queue) else {
                let message = format!("take {name}/{}: refused by the client", partition.number);
                return Err(Failure { message, exit: 75 });
            };
            queue.set_nonempty_callback(waker(&self.sleeper));
            assigned.push(Assigned { partition, epoch, committed, end });
            splits.push(Split { partition, epoch, start, queue });
        }
        tracing::info!(count = assigned.len(), "partitions assigned");
        for a in &assigned {
            self.shared.own(a.partition, Some(a.epoch));
        }
        self.tell(Control::Assigned(assigned));
        self.splits.append(&mut splits);
        match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.consumer.incremental_assign(&places),
            RebalanceProtocol::Eager | RebalanceProtocol::None => self.consumer.assign(&places),
        }
        .map_err(|e| self.shared.failure("take assigned partitions", &e, 75))
    }

    /// Gives partitions up once no transaction holds them, or at once where they are lost already.
    fn revoke(&mut self, list: &TopicPartitionList) -> Result<(), Failure> {
        let partitions = self.partitions(list);
        let lost = self.consumer.assignment_lost();
        tracing::info!(count = partitions.len(), lost, "partitions revoked");
        let disown = |shared: &Shared| partitions.iter().for_each(|p| shared.own(*p, None));
        if lost {
            disown(&self.shared);
        }
        self.splits.retain(|split| !partitions.contains(&split.partition));
        let (done, answer) = sync_channel(1);
        self.tell(Control::Revoked { partitions: partitions.clone(), lost, done });
        if !lost {
            let patience = self.shared.config.limits.transaction.0 + REVOKE_MARGIN;
            let deadline = Instant::now() + patience;
            while !self.leave.is_cancelled() && Instant::now() < deadline {
                match answer.recv_timeout(IDLE) {
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => {}
                }
            }
            disown(&self.shared);
        }
        give_up(&self.consumer, list)
            .map_err(|e| self.shared.failure("give up revoked partitions", &e, 75))
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<Partition> {
        let naming = &self.shared.naming;
        list.elements().iter().filter_map(|e| partition(naming, e.topic(), e.partition())).collect()
    }

    /// The group's offsets. Waits while a predecessor's transaction with them is open.
    fn committed(&self, of: &[Partition]) -> Result<BTreeMap<Partition, Offset>, Failure> {
        committed(&self.consumer, &self.shared.naming, of, LOOK_UP)
            .map_err(|e| self.shared.failure("read the group's committed offsets", &e, 75))
    }

    /// The first offset and the end of a partition.
    fn watermarks(&self, of: Partition) -> Result<(Offset, Offset), Failure> {
        let name = self.shared.naming.input(of);
        let deadline = Instant::now() + LOOK_UP;
        loop {
            match self.consumer.fetch_watermarks(name, of.number, Duration::from_secs(5)) {
                Ok((low, high)) => return Ok((Offset(low), Offset(high))),
                Err(_) if Instant::now() < deadline => std::thread::sleep(IDLE),
                Err(error) => {
                    let what = format!("read the ends of {name}/{}", of.number);
                    return Err(self.shared.failure(&what, &error, 75));
                }
            }
        }
    }

    /// What an error of the consumer means: most cure themselves inside the client.
    fn judge(&mut self, error: &KafkaError, partition: Option<Partition>) {
        let Some(code) = error.rdkafka_error_code() else {
            tracing::warn!(%error, "consumer");
            return;
        };
        let place = partition
            .map_or_else(String::new, |p| format!(" {}/{}", self.shared.naming.input(p), p.number));
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        if let Some((exit, remedy)) = verdict(code, fatal) {
            let failure = self.shared.failure(&format!("read{place}"), error, exit);
            self.fail(Failure { message: format!("{}; {remedy}", failure.message), exit });
        } else {
            tracing::warn!(%error, "read{place}: the client tries again");
        }
    }

    fn fail(&mut self, failure: Failure) {
        if !std::mem::replace(&mut self.failed, true) {
            self.tell(Control::Failed(failure));
        }
    }

    /// Waits when `control` is full. An engine that is gone needs no telling.
    fn tell(&self, control: Control) {
        if self.control.blocking_send(control).is_err() {
            tracing::debug!("the engine has gone");
        }
    }

    /// Leaves the group, on a thread of its own: a client that does not close is left behind.
    fn close(mut self) {
        self.consumer.context().closing.store(true, Ordering::Release);
        for rebalance in
            self.consumer.context().rebalances.lock().iter_mut().flat_map(|r| r.drain(..))
        {
            if let Rebalance::Revoke(list) = rebalance
                && let Err(error) = give_up(&self.consumer, &list)
            {
                tracing::debug!(%error, "partitions were not given up while leaving");
            }
        }
        self.splits.clear();
        let (closed, done) = sync_channel::<()>(1);
        let consumer = self.consumer;
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

/// The exit code and the remedy for an error that the client does not cure.
fn verdict(code: Code, fatal: bool) -> Option<(u8, &'static str)> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "librdkafka knows about 200 codes")]
    Some(match code {
        Code::AutoOffsetReset | Code::OffsetOutOfRange => (
            65,
            "records were deleted before they were read: restore them, or accept the loss with \
             kafka.on_out_of_range: earliest",
        ),
        Code::FencedInstanceId | Code::UnreleasedInstanceId => {
            (78, "another live process has the same kafka.instance: give each replica its own name")
        }
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            (78, "create the topic, or take it out of input.topics")
        }
        Code::TopicAuthorizationFailed => (78, "allow READ and DESCRIBE on the input topics"),
        Code::GroupAuthorizationFailed => (78, "allow READ on the group kafka.group"),
        Code::PollExceeded => (75, "the poll thread was stopped for minutes; start again"),
        _ if fatal => (75, "start again"),
        _ => return None,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_client_cannot_cure_ends_the_process() {
        let exit = |code, fatal| verdict(code, fatal).map(|(exit, _)| exit);
        assert_eq!(exit(Code::AutoOffsetReset, false), Some(65));
        assert_eq!(exit(Code::FencedInstanceId, true), Some(78));
        assert_eq!(exit(Code::TopicAuthorizationFailed, false), Some(78));
        assert_eq!(exit(Code::Fatal, true), Some(75));
        assert_eq!(exit(Code::BrokerTransportFailure, false), None);
        assert_eq!(exit(Code::AllBrokersDown, false), None);
    }
}

//! A steady producer, and a reader that says how far each partition's outcomes have come. Both go round the proxy.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::world::{PATIENCE, World, wait_for};

/// The pause between two records: what a machine of two cores with three brokers on it takes without effort.
const PACE: Duration = Duration::from_millis(25);

/// Whether record `n` cannot be read, and becomes a dead letter.
pub(super) fn is_bad(n: usize) -> bool {
    n % 20 == 13
}

/// A client of the test's that notices soon that a broker is gone.
pub(super) fn client(world: &World) -> ClientConfig {
    let mut client = world.client();
    client.set("socket.timeout.ms", "3000").set("reconnect.backoff.max.ms", "500");
    client.set("topic.metadata.refresh.interval.ms", "1000");
    client
}

/// Produces record after record, over all partitions in turn, until it is dropped.
pub(super) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    next: AtomicUsize,
    partitions: AtomicI32,
    full: AtomicBool,
    over: AtomicBool,
    /// The newest record with an outcome, by partition.
    newest: Mutex<BTreeMap<i32, usize>>,
}

impl Load {
    pub(super) fn start(world: &World) -> Self {
        let shared = Arc::new(Shared::default());
        shared.partitions.store(world.partitions, Ordering::Release);
        let mut settings = client(world);
        settings.set("enable.idempotence", "true").set("linger.ms", "5");
        let producer: ThreadedProducer<DefaultProducerContext> = settings.create().unwrap();
        let consumer: BaseConsumer = client(world)
            .set("group.id", "watch")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let (first, second) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            spawn("load", move || first.produce(&producer)),
            spawn("watch", move || second.watch(&consumer)),
        ];
        Self { shared, threads }
    }

    /// The number of the record that comes next.
    pub(super) fn next(&self) -> usize {
        self.shared.next.load(Ordering::Acquire)
    }

    /// The input has so many partitions now.
    pub(super) fn grow(&self, partitions: i32) {
        self.shared.partitions.store(partitions, Ordering::Release);
    }

    /// Whether in each partition a record from number `mark` on has its outcome.
    pub(super) fn has_passed(&self, mark: usize) -> bool {
        let newest = self.shared.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let partitions = self.shared.partitions.load(Ordering::Acquire);
        (0..partitions).all(|partition| newest.get(&partition).is_some_and(|n| mark <= *n))
    }

    /// Stops producing once everything is stored; how many records there are.
    pub(super) fn finish(&self) -> usize {
        self.shared.full.store(true, Ordering::Release);
        wait_for("the producer to end", || self.threads[0].is_finished().then_some(()));
        self.next()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.full.store(true, Ordering::Release);
        self.shared.over.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the load or the watch panicked");
        }
    }
}

impl Shared {
    fn produce(&self, producer: &ThreadedProducer<DefaultProducerContext>) {
        while !self.full.load(Ordering::Acquire) {
            let n = self.next.load(Ordering::Acquire);
            let (key, mut value) = (n.to_string(), format!("{{\"x\":{n}}}"));
            if is_bad(n) {
                value.pop();
            }
            let partitions = self.partitions.load(Ordering::Acquire);
            let partition = i32::try_from(n).unwrap() % partitions;
            // A new partition is not known to the client at once.
            wait_for("the producer to take a record", || {
                let record = BaseRecord::to("in").partition(partition);
                producer.send(record.key(&key).payload(&value)).ok()
            });
            self.next.store(n + 1, Ordering::Release);
            std::thread::sleep(PACE);
        }
        producer.flush(PATIENCE).unwrap();
    }

    fn watch(&self, consumer: &BaseConsumer) {
        let mut watched = 0;
        while !self.over.load(Ordering::Acquire) {
            let partitions = self.partitions.load(Ordering::Acquire);
            if watched < partitions {
                let mut list = TopicPartitionList::new();
                for (topic, number) in ["out", "in-dlq"]
                    .iter()
                    .flat_map(|t| (watched..partitions).map(move |p| (t, p)))
                {
                    list.add_partition_offset(topic, number, Offset::Beginning).unwrap();
                }
                consumer.incremental_assign(&list).unwrap();
                watched = partitions;
            }
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                let key = String::from_utf8_lossy(message.key().unwrap()).into_owned();
                let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
                newest.insert(message.partition(), key.parse().unwrap());
            }
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).unwrap()
}

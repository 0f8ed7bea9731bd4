//! The log on a real broker, driven by a loop that answers each record with its own value.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset as Place, TopicPartitionList};
use tidemill::config::Config;
use tidemill::failure::Exit;
use tidemill::kafka;
use tidemill::log::message::Naming;
use tidemill::log::{
    Arrival, BatchInfo, Control, Done, Finished, How, Log, Membership, Opening, Row, Transaction,
};
use tidemill::record::{Epoch, ModelId, Offset, Outcome, Partition, Reason, Record, Version};

use crate::broker::Broker;

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn config(servers: &str, name: &str, lanes: u16) -> Config {
    let mut config = Config::default();
    name.clone_into(&mut config.kafka.group);
    config.kafka.instance = Some(format!("{name}-0"));
    config.kafka.lanes = lanes;
    config.kafka.common.insert("bootstrap.servers".to_owned(), servers.to_owned());
    config.input.topics = vec![format!("{name}-in")];
    config.output.topic = format!("{name}-out");
    config
}

/// Creates all topics; those that are written with `settings`.
fn create_topics(servers: &str, config: &Config, partitions: i32, settings: &[(&str, &str)]) {
    let naming = Naming::new(config);
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", servers);
    let admin: AdminClient<DefaultClientContext> = client.create().unwrap();
    let topic = |name| NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let set = |topic| settings.iter().fold(topic, |topic: NewTopic<'_>, (k, v)| topic.set(k, v));
    let mut topics: Vec<_> = naming.written().into_iter().map(|name| set(topic(name))).collect();
    topics.extend(naming.inputs.iter().map(|name| topic(name)));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let created = runtime.block_on(admin.create_topics(&topics, &AdminOptions::new())).unwrap();
    assert!(created.iter().all(Result::is_ok), "{created:?}");
}

/// `n` and digits after it, `size` bytes in all, that no compression makes much smaller.
fn value(n: usize, size: usize) -> String {
    let mut state = u64::try_from(n).unwrap() + 1;
    let digits = (0..size.saturating_sub(8)).map(|_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(33 + u8::try_from(state >> 57).unwrap() % 90)
    });
    format!("{n:08}{}", digits.collect::<String>())
}

/// Writes `values` round robin, in one transaction, so that control records lie in the input too.
fn produce(
    servers: &str,
    topic: &str,
    partitions: i32,
    range: std::ops::Range<usize>,
    size: usize,
) {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", servers).set("transactional.id", format!("fill-{topic}"));
    let producer: ThreadedProducer<DefaultProducerContext> = client.create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    for n in range {
        let (key, value) = (n.to_string(), value(n, size));
        let number = i32::try_from(n).unwrap() % partitions;
        let record = BaseRecord::to(topic).key(&key).payload(&value).partition(number);
        producer.send(record).map_err(|(e, _)| e).unwrap();
    }
    producer.commit_transaction(PATIENCE).unwrap();
}

/// How often each key is in `topic`, as a reader of committed records sees it.
fn read_all(servers: &str, topic: &str, partitions: i32) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", servers).set("group.id", "reader");
    client.set("enable.partition.eof", "true").set("isolation.level", "read_committed");
    let consumer: BaseConsumer = client.create().unwrap();
    let mut list = TopicPartitionList::new();
    for p in 0..partitions {
        list.add_partition_offset(topic, p, Place::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let (mut ended, mut found) = (0, BTreeMap::<String, Vec<Vec<u8>>>::new());
    while ended < partitions {
        match consumer.poll(PATIENCE) {
            Some(Ok(message)) => {
                let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
                let value = message.payload().unwrap_or_default().to_vec();
                found.entry(key).or_default().push(value);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            other => panic!("read {topic}: {other:?}"),
        }
    }
    found
}

/// What is not committed yet, from the brokers' view.
fn lag(servers: &str, config: &Config, partitions: i32) -> i64 {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", servers).set("group.id", &config.kafka.group);
    let consumer: BaseConsumer = client.create().unwrap();
    let topic = &config.input.topics[0];
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, partitions - 1);
    let committed = consumer.committed_offsets(list, PATIENCE).unwrap();
    let behind = |p: i32| {
        let (_, end) = consumer.fetch_watermarks(topic, p, PATIENCE).unwrap();
        match committed.find_partition(topic, p).unwrap().offset() {
            Place::Offset(next) => end - next,
            Place::Beginning
            | Place::End
            | Place::Stored
            | Place::Invalid
            | Place::OffsetTail(_) => end,
        }
    };
    (0..partitions).map(behind).sum()
}

/// Records of one lane and the next offset of each partition.
type Waiting = (Vec<(Epoch, Arc<Record>)>, BTreeMap<Partition, (Epoch, Offset)>);

/// A stand-in for the engine: one transaction a lane at a time, each record answered with its value.
pub(crate) struct Loop {
    pub(crate) log: Log,
    /// Which lanes have a transaction under way.
    busy: Vec<bool>,
    /// What is to be committed, by lane: records, and the next offset of each partition.
    waiting: Vec<Waiting>,
    pub(crate) done: Vec<Done>,
    pub(crate) assigned: BTreeMap<Partition, Epoch>,
    ends: BTreeMap<Partition, Offset>,
    pub(crate) committed: BTreeMap<Partition, Offset>,
    pub(crate) failure: Option<tidemill::failure::Failure>,
    model: Arc<ModelId>,
    id: u64,
    max: usize,
}

impl Loop {
    pub(crate) fn new(log: Log, max: usize) -> Self {
        let lanes = log.sink.lanes.len();
        Self {
            log,
            busy: vec![false; lanes],
            waiting: (0..lanes).map(|_| Waiting::default()).collect(),
            done: Vec::new(),
            assigned: BTreeMap::new(),
            ends: BTreeMap::new(),
            committed: BTreeMap::new(),
            failure: None,
            model: Arc::new(ModelId {
                name: "echo".into(),
                version: Version(1),
                digest: "sha256:00".into(),
            }),
            id: 0,
            max,
        }
    }

    /// Turns until `over` says so.
    pub(crate) fn turn(&mut self, over: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !over(self) && self.failure.is_none() {
            assert!(Instant::now() < deadline, "still at {:?} of {:?}", self.committed, self.ends);
            let mut idle = true;
            while let Ok(control) = self.log.feed.membership.control.try_recv() {
                idle = false;
                self.control(control);
            }
            if self.waiting.iter().all(|(records, _)| records.len() < 4 * self.max)
                && let Ok(chunk) = self.log.feed.chunks.try_recv()
            {
                idle = false;
                for arrival in chunk.arrivals {
                    self.arrive(arrival);
                }
            }
            while let Ok(done) = self.log.sink.done.try_recv() {
                idle = false;
                self.busy[done.lane] = false;
                self.committed.extend(&done.committed);
                self.done.push(done);
            }
            for lane in 0..self.busy.len() {
                if !self.busy[lane] && !self.waiting[lane].1.is_empty() {
                    idle = false;
                    self.commit(lane);
                }
            }
            if idle {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn control(&mut self, control: Control) {
        match control {
            Control::Assigned(list) => {
                for a in list {
                    self.assigned.insert(a.partition, a.epoch);
                    self.ends.insert(a.partition, a.end);
                    self.committed.insert(a.partition, a.next);
                    a.gate.open();
                }
            }
            Control::Revoked { partitions, done, .. } => {
                for p in &partitions {
                    self.assigned.remove(p);
                    self.ends.remove(p);
                    self.committed.remove(p);
                }
                drop(done);
            }
            Control::Ends(ends) => {
                for (p, reach) in ends {
                    self.ends.entry(p).and_modify(|e| *e = reach.stable);
                }
            }
            Control::Left(_)
            | Control::Missing(_)
            | Control::Finished
            | Control::Unfinished(..)
            | Control::Hidden(_)
            | Control::Reachable(_)
            | Control::Refused(_)
            | Control::Uncovered(_)
            | Control::Outside(_) => (),
            Control::Failed(failure) => self.failure = Some(failure),
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        let (partition, epoch, next) = match &arrival {
            Arrival::Record(epoch, record) => (record.partition, *epoch, record.offset.next()),
            Arrival::End(end) => (end.partition, end.epoch, end.next),
        };
        if self.assigned.get(&partition) != Some(&epoch) {
            return;
        }
        let lane = usize::try_from(partition.number).unwrap() % self.busy.len();
        let (records, offsets) = &mut self.waiting[lane];
        let known = offsets
            .get(&partition)
            .map(|(_, o)| *o)
            .or_else(|| self.committed.get(&partition).copied());
        if known < Some(next) {
            offsets.insert(partition, (epoch, next));
        }
        if let Arrival::Record(epoch, record) = arrival {
            records.push((epoch, Arc::new(record)));
        }
    }

    fn commit(&mut self, lane: usize) {
        let (records, next) = std::mem::take(&mut self.waiting[lane]);
        let row = |(epoch, record): (Epoch, Arc<Record>)| Row {
            outcome: Outcome::Prediction(record.value.clone().unwrap_or_default().into()),
            record,
            epoch,
            parent: None,
        };
        let rows: Vec<Row> = records.into_iter().map(row).collect();
        let info = BatchInfo {
            id: uuid::Uuid::now_v7(),
            model: Arc::clone(&self.model),
            signature: Arc::default(),
            part_of: None,
            reason: Reason::Idle,
            bytes: 0,
            tokens: 0,
            inference: Duration::ZERO,
        };
        let batches = if rows.is_empty() { Vec::new() } else { vec![Finished { info, rows }] };
        self.id += 1;
        self.busy[lane] = true;
        self.log.sink.lanes[lane]
            .blocking_send(Transaction { id: self.id, batches, next })
            .unwrap();
    }

    pub(crate) fn caught_up(&self) -> bool {
        !self.ends.is_empty()
            && self.busy.iter().all(|busy| !busy)
            && self.ends.iter().all(|(p, end)| self.committed.get(p) >= Some(end))
    }

    /// Leaves as the service does and gives back what was done.
    pub(crate) fn stop(self) -> Vec<Done> {
        let Log { feed, sink } = self.log;
        let Membership { control, leave, threads, .. } = feed.membership;
        leave.ask(false);
        drop((sink.lanes, control, feed.chunks, sink.done));
        for thread in threads.into_iter().chain(sink.threads) {
            thread.join().unwrap();
        }
        self.done
    }
}

fn open(config: &Config) -> Loop {
    Loop::new(kafka::open(config, Naming::new(config), &Opening::default()).unwrap(), 100)
}

#[test]
fn each_record_is_answered_once_across_two_openings() {
    let Some(broker) = Broker::start() else { return };
    let config = config(&broker.servers, "twice", 2);
    create_topics(&broker.servers, &config, 4, &[]);
    produce(&broker.servers, "twice-in", 4, 0..1_000, 8);

    let mut first = open(&config);
    first.turn(|l| l.committed.values().map(|o| o.0).sum::<i64>() > 300);
    let done = first.stop();
    assert!(done.iter().any(|d| d.how == How::Committed), "{done:?}");

    let mut second = open(&config);
    second.turn(Loop::caught_up);
    assert_eq!(second.assigned.len(), 4);
    produce(&broker.servers, "twice-in", 4, 1_000..1_200, 8);
    let caught_up_with_news = |l: &Loop| l.committed.values().map(|o| o.0).sum::<i64>() >= 1_200;
    second.turn(caught_up_with_news);
    second.turn(Loop::caught_up);
    // The last control record comes as a partition's end a moment after the last record.
    let last = lag(&broker.servers, &config, 4);
    if last > 0 {
        second.turn(|l| lag(&broker.servers, &config, 4) == 0 && l.failure.is_none());
    }
    second.stop();

    let answers = read_all(&broker.servers, "twice-out", 4);
    assert_eq!(answers.len(), 1_200);
    for (key, values) in &answers {
        let n: usize = key.parse().unwrap();
        assert_eq!(values, &[format!("{n:08}").into_bytes()], "key {key}");
    }
    assert_eq!(lag(&broker.servers, &config, 4), 0);
    assert!(!read_all(&broker.servers, "twice-out-manifest", 4).is_empty());
}

#[test]
fn what_is_too_large_for_its_topic_becomes_a_dead_letter() {
    let Some(broker) = Broker::start() else { return };
    let config = config(&broker.servers, "large", 1);
    create_topics(&broker.servers, &config, 1, &[("max.message.bytes", "20000")]);
    produce(&broker.servers, "large-in", 1, 0..3, 8);
    produce(&broker.servers, "large-in", 1, 3..5, 30_000);
    let mut work = open(&config);
    work.turn(Loop::caught_up);
    assert!(work.failure.is_none(), "{:?}", work.failure);
    work.stop();
    let out = read_all(&broker.servers, "large-out", 1);
    let dead = read_all(&broker.servers, "large-in-dlq", 1);
    assert_eq!((out.len(), dead.len()), (3, 2));
    assert!(dead.values().flatten().all(|value| (15_000..20_000).contains(&value.len())));
}

#[test]
fn a_broker_that_dies_and_returns_costs_nothing() {
    let Some(broker) = Broker::start() else { return };
    let config = config(&broker.servers, "crash", 1);
    create_topics(&broker.servers, &config, 2, &[]);
    produce(&broker.servers, "crash-in", 2, 0..500, 8);
    let mut work = open(&config);
    work.turn(Loop::caught_up);
    broker.kill9();
    broker.restart();
    produce(&broker.servers, "crash-in", 2, 500..1_000, 8);
    work.turn(|l| l.committed.values().map(|o| o.0).sum::<i64>() >= 1_000 && l.busy == [false]);
    assert!(work.failure.is_none(), "{:?}", work.failure);
    work.stop();
    let answers = read_all(&broker.servers, "crash-out", 2);
    assert_eq!(answers.len(), 1_000);
    assert!(answers.values().all(|values| values.len() == 1));
}

#[test]
fn a_missing_topic_is_named() {
    let Some(broker) = Broker::start() else { return };
    let config = config(&broker.servers, "missing", 1);
    let failure = kafka::open(&config, Naming::new(&config), &Opening::default()).unwrap_err();
    assert_eq!(failure.exit, Exit::Config);
    assert!(failure.message.contains("topic missing-"), "{failure}");
}

/// Provenance arrives: a reader finds the source of each prediction.
#[test]
fn headers_name_the_source() {
    let Some(broker) = Broker::start() else { return };
    let config = config(&broker.servers, "source", 1);
    create_topics(&broker.servers, &config, 1, &[]);
    produce(&broker.servers, "source-in", 1, 0..1, 8);
    let mut work = open(&config);
    work.turn(Loop::caught_up);
    work.stop();
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &broker.servers).set("group.id", "reader");
    let consumer: BaseConsumer = client.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("source-out", 0, Place::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let message = consumer.poll(PATIENCE).unwrap().unwrap();
    let headers = message.headers().unwrap();
    let names: Vec<&str> = headers.iter().map(|h| h.key).collect();
    assert!(names.contains(&"tidemill.source.offset"), "{names:?}");
}

/// A stalled engine stops the fetching, not the membership.
#[test]
fn a_stalled_engine_keeps_its_partitions() {
    let Some(broker) = Broker::start() else { return };
    let mut config = config(&broker.servers, "stall", 1);
    for (key, ms) in [("session.timeout.ms", "6000"), ("max.poll.interval.ms", "6000")] {
        config.kafka.consumer.insert(key.to_owned(), ms.to_owned());
    }
    create_topics(&broker.servers, &config, 1, &[]);
    produce(&broker.servers, "stall-in", 1, 0..20_000, 8);
    let mut work = open(&config);
    work.turn(|l| !l.assigned.is_empty());
    let epochs = work.assigned.clone();
    std::thread::sleep(Duration::from_secs(9));
    work.turn(Loop::caught_up);
    assert_eq!(work.assigned, epochs);
    work.stop();
    assert_eq!(read_all(&broker.servers, "stall-out", 1).len(), 20_000);
}

/// A second replica takes half of the partitions, and no record is answered twice.
#[test]
fn partitions_move_to_a_second_replica() {
    let Some(broker) = Broker::start() else { return };
    let config = config(&broker.servers, "move", 2);
    create_topics(&broker.servers, &config, 4, &[]);
    produce(&broker.servers, "move-in", 4, 0..2_000, 8);
    let mut other = config.clone();
    other.kafka.instance = Some("move-1".to_owned());
    let mut first = open(&config);
    first.turn(|l| l.done.len() > 1);
    let halves = [AtomicBool::new(false), AtomicBool::new(false)];
    std::thread::scope(|scope| {
        let halves = &halves;
        let half = |me: usize, mut replica: Loop| {
            // Both stay until both have their half: one that leaves early gives it back.
            replica.turn(|l| {
                halves[me].fetch_or(l.assigned.len() == 2, Ordering::AcqRel);
                halves.iter().all(|h| h.load(Ordering::Acquire))
            });
            replica.turn(Loop::caught_up);
            assert!(replica.failure.is_none(), "{:?}", replica.failure);
            replica.stop();
        };
        let spawn = |me: usize, name: &str, replica| {
            let builder = std::thread::Builder::new().name(name.to_owned());
            builder.spawn_scoped(scope, move || half(me, replica)).unwrap()
        };
        spawn(0, "first", first);
        spawn(1, "second", open(&other));
    });
    assert_eq!(lag(&broker.servers, &config, 4), 0);
    let answers = read_all(&broker.servers, "move-out", 4);
    assert_eq!(answers.len(), 2_000);
    assert!(answers.values().all(|values| values.len() == 1));
}

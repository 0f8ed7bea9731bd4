//! A service that exists on paper: writes what a real one would have written, with the code that a real one writes with,
//! and changes it on the way where it is told to.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::Offset as Place;
use tidemill::answer::Prediction;
use tidemill::config::{Config, OutputPartition, load};
use tidemill::format::{Codec, Writer};
use tidemill::kafka::native;
use tidemill::log::message::{Message, Naming, Notes};
use tidemill::log::note::Note;
use tidemill::log::{BatchInfo, Finished, Row};
use tidemill::record::{
    Epoch, Fault, FaultClass, ModelId, Offset, Outcome, Partition, Reason, Record, Signature,
};
use tidemill::service;

use crate::world::{World, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// A service of one group.
pub(crate) struct Forge {
    pub(crate) file: PathBuf,
    pub(crate) config: Config,
    writer: Writer,
    naming: Naming,
    group: BaseConsumer,
    producer: ThreadedProducer<DefaultProducerContext>,
    models: BTreeMap<u32, (Arc<ModelId>, Arc<Signature>)>,
    /// What each partition's committed offset says, and where it stands.
    notes: Notes,
    next: BTreeMap<Partition, i64>,
    batches: u64,
}

impl Forge {
    /// A service called `name`, with topics of its own; `extra` is added to its configuration.
    pub(crate) fn new(world: &World, name: &str, inputs: &[&str], extra: &str) -> Self {
        let text = format!(
            "kafka: {{ group: {name}, instance: {name}-0, common: {{ bootstrap.servers: \"{}\" }} }}\n\
             input: {{ topics: [{}] }}\nmodel: {{ uri: 'models:/lin@champion' }}\n\
             registry: {{ root: {} }}\nhttp: {{ listen: '127.0.0.1:0' }}\n{extra}\n",
            world.broker.servers,
            inputs.join(", "),
            world.registry().display(),
        );
        let text = if extra.contains("output:") {
            text
        } else {
            format!("{text}output: {{ topic: {name}-out }}\n")
        };
        let file = world.dir.path().join(format!("{name}.yaml"));
        std::fs::write(&file, text).unwrap();
        let config = load::load(Some(&file), std::iter::empty()).unwrap();
        let naming = Naming::new(&config);
        let mut topics: Vec<&str> = naming.written();
        topics.extend(inputs);
        world.create_topics(&topics, world.partitions);
        let group: BaseConsumer = world.client().set("group.id", name).create().unwrap();
        let mut client = world.client();
        client.set("transactional.id", name).set("linger.ms", "2").set("compression.type", "lz4");
        client.set("queue.buffering.max.messages", "1000000");
        if config.output.partition == OutputPartition::Key {
            client.set("partitioner", "murmur2_random");
        }
        let producer: ThreadedProducer<DefaultProducerContext> = client.create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        let mut forge = Self {
            file,
            writer: Writer::new(&config, Arc::new(Codec::new(&config).unwrap())),
            config,
            naming,
            group,
            producer,
            models: BTreeMap::new(),
            notes: Notes::new(),
            next: BTreeMap::new(),
            batches: 0,
        };
        forge.look(world);
        forge
    }

    /// Looks the input topics' ids up.
    pub(crate) fn look(&mut self, world: &World) {
        let names: Vec<&str> = self.naming.inputs.iter().map(String::as_str).collect();
        let topics = wait_for("the topics' ids", || {
            let topics = native::describe_topics(self.group.client(), &names, PATIENCE).ok()?;
            (topics.len() == names.len()).then_some(topics)
        });
        for (topic, name) in (0..).zip(&self.naming.inputs) {
            for number in 0..world.partitions {
                let note = Note {
                    topic: topics[name].id.clone(),
                    model: None,
                    first: 1,
                    partitions: world.partitions,
                    seen: Offset(0),
                    skip: None,
                };
                self.notes.insert(Partition { topic, number }, note);
            }
        }
    }

    /// As [`fill`], by the partition.
    pub(crate) fn input(&self, world: &World, topic: u16, number: i32, offsets: Range<i64>) {
        fill(world.client(), self.naming.input(Partition { topic, number }), number, offsets);
    }

    /// The batch of these records, as version `version` of the model answers them.
    pub(crate) fn batch(&mut self, version: u32, records: &[(Partition, Range<i64>)]) -> Finished {
        self.batches += 1;
        let registry = self.config.registry.root.clone();
        let (model, signature) = self.models.entry(version).or_insert_with(|| {
            let mut config = self.config.clone();
            (config.model.uri, config.registry.root) =
                (format!("models:/lin/{version}").parse().unwrap(), registry);
            let served = service::load_model(&config).unwrap();
            (Arc::new(served.id), served.signature)
        });
        let millis = 1_764_000_000_000 + self.batches * 1_000;
        let info = BatchInfo {
            id: uuid::Builder::from_unix_timestamp_millis(millis, &[3; 10]).into_uuid(),
            model: Arc::clone(model),
            signature: Arc::clone(signature),
            part_of: None,
            reason: Reason::Records,
            bytes: 0,
            tokens: 0,
            inference: Duration::ZERO,
        };
        let offsets = records.iter().flat_map(|(p, offsets)| offsets.clone().map(|o| (*p, o)));
        let row = |(partition, offset)| {
            let record = record(partition, offset);
            let outcome = match &record.value {
                None => Outcome::Tombstone,
                Some(value) if !value.ends_with(b"}") => {
                    Outcome::DeadLetter(Fault::new(FaultClass::Undecodable, "not whole"))
                }
                Some(_) => {
                    #[expect(clippy::cast_precision_loss, reason = "offsets of a test are small")]
                    let value = Prediction::Value(((offset + i64::from(version)) as f64).into());
                    Outcome::Prediction(self.writer.write(&value, &record).unwrap().into())
                }
            };
            Row { record: Arc::new(record), epoch: Epoch(1), outcome, parent: None }
        };
        Finished { rows: offsets.map(row).collect(), info }
    }

    /// Commits batches in one transaction; `edit` may change the messages of it, in the order in which they are sent.
    pub(crate) fn commit(
        &mut self,
        batches: &[Finished],
        edit: impl FnOnce(&mut Vec<Message<'_>>),
    ) {
        self.producer.begin_transaction().unwrap();
        for finished in batches {
            for row in &finished.rows {
                self.next.insert(row.record.partition, row.record.offset.0 + 1);
            }
        }
        let written: Vec<_> = batches.iter().map(|batch| self.naming.batch(&batch.info)).collect();
        let mut messages = Vec::new();
        for (batch, finished) in written.iter().zip(batches) {
            messages.extend(finished.rows.iter().map(|row| batch.message(row)));
            messages.extend(batch.manifests(finished, &self.notes, 1_000_000).unwrap());
        }
        edit(&mut messages);
        messages.iter().for_each(|message| self.send(message));
        for finished in batches {
            for row in &finished.rows {
                let note = self.notes.get_mut(&row.record.partition).unwrap();
                *note = note.clone().answered(&finished.info.model);
            }
        }
        self.offsets();
        self.producer.commit_transaction(PATIENCE).unwrap();
    }

    /// Adds the offsets of every partition to the open transaction.
    fn offsets(&self) {
        let mut list = TopicPartitionList::new();
        for (partition, next) in &self.next {
            let name = self.naming.input(*partition);
            list.add_partition_offset(name, partition.number, Place::Offset(*next)).unwrap();
            let mut element = list.find_partition(name, partition.number).unwrap();
            element.set_metadata(self.notes[partition].to_string());
        }
        let metadata = self.group.group_metadata().unwrap();
        self.producer.send_offsets_to_transaction(&list, &metadata, PATIENCE).unwrap();
    }

    /// Commits an offset and nothing else; `skip` is what the note passes over.
    pub(crate) fn commit_offset(
        &mut self,
        partition: Partition,
        next: i64,
        skip: Option<Range<i64>>,
    ) {
        self.next.insert(partition, next);
        self.notes.get_mut(&partition).unwrap().skip = skip;
        self.producer.begin_transaction().unwrap();
        self.offsets();
        self.producer.commit_transaction(PATIENCE).unwrap();
    }

    /// Writes messages that belong to nothing, and commits no offsets with them.
    pub(crate) fn write(&self, messages: &[Message<'_>]) {
        self.producer.begin_transaction().unwrap();
        messages.iter().for_each(|message| self.send(message));
        self.producer.commit_transaction(PATIENCE).unwrap();
    }

    /// As if the process had died before the commit.
    pub(crate) fn abort(&self, messages: &[Message<'_>]) {
        self.producer.begin_transaction().unwrap();
        messages.iter().for_each(|message| self.send(message));
        self.producer.flush(PATIENCE).unwrap();
        self.producer.abort_transaction(PATIENCE).unwrap();
    }

    /// The messages of a batch's rows.
    pub(crate) fn with_messages<T>(
        &self,
        batch: &Finished,
        act: impl FnOnce(&[Message<'_>]) -> T,
    ) -> T {
        let written = self.naming.batch(&batch.info);
        let messages: Vec<Message<'_>> =
            batch.rows.iter().map(|row| written.message(row)).collect();
        act(&messages)
    }

    fn send(&self, message: &Message<'_>) {
        wait_for("room in the producer", || {
            let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
            for (name, value) in &message.headers {
                native::add_header(&mut headers, name, value.as_deref());
            }
            let record = BaseRecord::<[u8], [u8]> {
                topic: message.topic,
                partition: message.partition,
                payload: message.value.as_deref(),
                key: message.key.as_deref(),
                timestamp: message.timestamp,
                headers: (!message.headers.is_empty()).then_some(headers),
                delivery_opaque: (),
            };
            self.producer.send(record).ok()
        });
    }

    /// A healthy history of every partition's offsets 0 to 29: three transactions, two versions.
    pub(crate) fn history(
        &mut self,
        partitions: &[Partition],
        edit: impl Fn(usize, &mut Vec<Message<'_>>),
    ) {
        for (part, version) in [(0, 1), (1, 2), (2, 2)] {
            let offsets = 10 * part..10 * part + 10;
            let records: Vec<_> = partitions.iter().map(|p| (*p, offsets.clone())).collect();
            let batch = self.batch(version, &records);
            self.commit(&[batch], |messages| edit(usize::try_from(part).unwrap(), messages));
        }
    }
}

/// Writes records with `{"x": offset}` to a partition that is as long as the range begins.
pub(crate) fn fill(mut client: ClientConfig, topic: &str, number: i32, offsets: Range<i64>) {
    client.set("enable.idempotence", "true").set("linger.ms", "5").set("compression.type", "lz4");
    client.set("queue.buffering.max.messages", "1000000");
    let producer: ThreadedProducer<DefaultProducerContext> = client.create().unwrap();
    for offset in offsets {
        let record = record(partition(0, number), offset);
        wait_for("room in the producer", || {
            let message = BaseRecord::<[u8], [u8]> {
                topic,
                partition: Some(number),
                payload: record.value.as_deref(),
                key: record.key.as_deref(),
                timestamp: None,
                headers: None,
                delivery_opaque: (),
            };
            producer.send(message).ok()
        });
    }
    producer.flush(PATIENCE).unwrap();
}

/// What stands at an offset of every input: now and then a tombstone, or what cannot be read.
fn record(partition: Partition, offset: i64) -> Record {
    let value = match offset % 100 {
        13 => Some(format!("{{\"x\":{offset}")),
        17 => None,
        _ => Some(format!("{{\"x\":{offset}}}")),
    };
    Record {
        key: Some(format!("k{}", offset % 7).into_bytes()),
        ..Record::of_value(partition, Offset(offset), value.map(String::into_bytes))
    }
}

/// Partition `number` of the input topic `topic`.
pub(crate) fn partition(topic: u16, number: i32) -> Partition {
    Partition { topic, number }
}

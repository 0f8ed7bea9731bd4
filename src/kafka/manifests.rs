//! What the manifest topic says of partitions whose committed offset is gone.
//!
//! ```text
//!  partition of the manifest topic:  low … [ 4 windows back ][ 2 windows back ][ newest window ] … end
//! ```
//!
//! The topic is read in windows, each twice as long as the one behind it, from its end back to its start, and no further
//! than needed: manifests of one partition are spread over all partitions of the topic, so what was found counts once
//! everything younger has been read too, with [`SKEW`] to spare for clocks that differ.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset as Place, TopicPartitionList};

use super::Journal;
use super::begin::{Described, Manifests};
use crate::failure::{Exit, Failure};
use crate::log::manifest::{Manifest, Range};
use crate::record::{ModelId, Offset, Signature, TopicId};

/// Offsets of the newest window.
const WINDOW: i64 = 500;
/// By how much the clocks of two replicas may differ, in ms.
const SKEW: i64 = 300_000;
/// How long a partition may give nothing before its end.
const QUIET: Duration = Duration::from_secs(15);

/// A partition of an input topic.
pub(super) type Input = (String, i32);

/// Reads the manifest topic backwards.
pub(super) struct Reader {
    consumer: Arc<BaseConsumer<Journal>>,
    topic: String,
    /// The first offset, and where reading has got to from the end.
    places: BTreeMap<i32, (i64, i64)>,
    /// The oldest time seen in each partition.
    oldest: BTreeMap<i32, i64>,
    window: i64,
}

impl Reader {
    /// A reader of `topic`, whose partitions have these first offsets and ends.
    pub(super) fn new(
        settings: &ClientConfig,
        journal: &Journal,
        topic: &str,
        places: BTreeMap<i32, (i64, i64)>,
    ) -> Result<Self, Failure> {
        let consumer: BaseConsumer<Journal> = settings
            .create_with_context(journal.clone())
            .map_err(|error| journal.failure("configure the Kafka client", &error, Exit::Config))?;
        let consumer = Arc::new(consumer);
        journal.identity().keep(&consumer, |consumer| consumer.client());
        let topic = topic.to_owned();
        Ok(Self { consumer, topic, places, oldest: BTreeMap::new(), window: WINDOW })
    }

    /// Whether everything was read.
    fn is_over(&self) -> bool {
        self.places.values().all(|(low, cursor)| cursor <= low)
    }

    /// Whether everything younger than `time` was read.
    fn is_past(&self, time: i64) -> bool {
        self.places.iter().all(|(partition, (low, cursor))| {
            let oldest = self.oldest.get(partition);
            cursor <= low || oldest.is_some_and(|oldest| *oldest < time.saturating_sub(SKEW))
        })
    }

    /// Reads the next window of each partition.
    fn step(&mut self, mut visit: impl FnMut(i64, Manifest)) -> Result<(), Failure> {
        let topic = self.topic.clone();
        let fail = |why: &str| Failure {
            message: format!("read the manifest topic {topic}: {why}"),
            exit: Exit::Temporary,
        };
        let mut open: BTreeMap<i32, (i64, i64)> = BTreeMap::new();
        let mut list = TopicPartitionList::new();
        for (partition, (low, cursor)) in &mut self.places {
            if *low < *cursor {
                let from = cursor.saturating_sub(self.window).max(*low);
                open.insert(*partition, (from, *cursor));
                list.add_partition_offset(&self.topic, *partition, Place::Offset(from))
                    .map_err(|error| fail(&error.to_string()))?;
                *cursor = from;
            }
        }
        self.window = self.window.saturating_mul(2);
        self.consumer.assign(&list).map_err(|error| fail(&error.to_string()))?;
        let mut heard = Instant::now();
        while !open.is_empty() {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let (partition, offset) = (message.partition(), message.offset());
                    let Some((_, end)) = open.get(&partition) else { continue };
                    if *end <= offset {
                        open.remove(&partition);
                        continue;
                    }
                    let time = message.timestamp().to_millis().unwrap_or(i64::MAX);
                    let oldest = self.oldest.entry(partition).or_insert(time);
                    *oldest = time.min(*oldest);
                    match Manifest::read(message.payload().unwrap_or_default()) {
                        Ok(manifest) => visit(time, manifest),
                        // Somebody else writes there too.
                        Err(error) => tracing::debug!(partition, offset, %error, "not a manifest"),
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                }
                Some(Err(error)) => tracing::warn!(%error, "read the manifest topic: again"),
                None if QUIET < heard.elapsed() => {
                    return Err(fail("it gives nothing before its end"));
                }
                None => (),
            }
        }
        Ok(())
    }
}

/// What the topic says of each of `wanted`: of this `group`, and by the topics' present `ids`. Stops at `deadline`.
///
/// # Errors
///
/// With 65 when the deadline is over, because what is not known then must not be guessed; with 75 when the cluster does
/// not answer.
pub(super) fn find(
    reader: &mut Reader,
    group: &str,
    wanted: &BTreeSet<Input>,
    ids: &BTreeMap<String, Option<TopicId>>,
    deadline: Instant,
) -> Result<BTreeMap<Input, Manifests>, Failure> {
    let mut found: BTreeMap<Input, Manifests> =
        wanted.iter().map(|input| (input.clone(), Manifests::default())).collect();
    let mut newest: BTreeMap<Input, i64> = BTreeMap::new();
    let mut others: BTreeMap<Input, i64> = BTreeMap::new();
    loop {
        let complete = newest.len() == wanted.len();
        let oldest = newest.values().min().copied().unwrap_or(i64::MIN);
        if reader.is_over() || (complete && reader.is_past(oldest)) {
            return Ok(found);
        }
        if deadline <= Instant::now() {
            return Err(Failure {
                message: format!(
                    "find where the group left off: the manifest topic {} was not read to its start within \
                     kafka.manifest_scan; raise it, or set kafka.on_missing_offset: start",
                    reader.topic
                ),
                exit: Exit::Data,
            });
        }
        reader.step(|time, manifest| {
            let ours = manifest.group.as_deref() == Some(group);
            let model = manifest.model();
            for Range { topic, topic_id, partition, next, .. } in manifest.ranges {
                let input = (topic, partition);
                let Some(entry) = found.get_mut(&input) else { continue };
                if !ours {
                    let other = manifest.group.clone().unwrap_or_default();
                    entry.other_group.get_or_insert(other);
                    continue;
                }
                let id = topic_id.map(|id| TopicId(id.into()));
                let present = ids.get(&input.0).is_some_and(|now| *now == id);
                let (next, model) = (Offset(next), Some(model.clone()));
                let described = Described { next, topic: id, model };
                if present {
                    // Offsets of one topic only grow: the furthest is the newest, whatever the clocks say.
                    if entry.own.as_ref().is_none_or(|own| own.next < next) {
                        entry.own = Some(described);
                        newest.insert(input, time);
                    }
                } else if others.get(&input).is_none_or(|seen| *seen < time) {
                    entry.other_topic = Some(described);
                    others.insert(input, time);
                }
            }
        })?;
    }
}

/// The newest version of this group that the topic tells, with what it took and gave; `None` where none is found before
/// `deadline`.
pub(super) fn newest(
    reader: &mut Reader,
    group: &str,
    deadline: Instant,
) -> Result<Option<(ModelId, Signature)>, Failure> {
    let mut newest: Option<(i64, ModelId, Signature)> = None;
    while newest.is_none() && !reader.is_over() && Instant::now() < deadline {
        reader.step(|time, manifest| {
            let younger = newest.as_ref().is_none_or(|(seen, ..)| *seen <= time);
            if manifest.group.as_deref() == Some(group) && younger {
                let model = manifest.model();
                newest = manifest
                    .signature
                    .map(|signature| (time, model, signature))
                    .or_else(|| newest.take());
            }
        })?;
    }
    Ok(newest.map(|(_, model, signature)| (model, signature)))
}

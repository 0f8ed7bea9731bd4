//! What the client calls back, and what the group knows: rebalances, offsets, the generation.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;

use super::Journal;
use super::native::{self, GroupOffset};
use crate::log::Committed;
use crate::log::message::Naming;
use crate::log::note::Note;
use crate::record::{Offset, Partition};

/// What the client calls back: it only takes notes for the poll thread.
pub struct Context {
    pub(super) journal: Journal,
    pub(super) rebalances: Mutex<VecDeque<Rebalance>>,
    pub(super) closing: AtomicBool,
}

/// What the group wants.
pub(super) enum Rebalance {
    Assign(TopicPartitionList),
    Revoke(TopicPartitionList),
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.journal.write(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.journal.error(&error, reason);
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let assign = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            // Closing waits for this answer, and nobody reads the notes any more.
            let nothing = TopicPartitionList::new();
            let answer = if assign {
                consumer.incremental_assign(&nothing)
            } else {
                give_up(consumer, list)
            };
            if let Err(error) = answer {
                tracing::debug!(%error, "partitions were not given up while leaving");
            }
            return;
        }
        let note = if assign { Rebalance::Assign } else { Rebalance::Revoke };
        let mut rebalances = self.rebalances.lock().unwrap_or_else(PoisonError::into_inner);
        rebalances.push_back(note(list.clone()));
    }
}

/// Answers a revocation of `list`: of those of its partitions that are fetched. The others are only given back.
pub(super) fn give_up(
    consumer: &BaseConsumer<Context>,
    list: &TopicPartitionList,
) -> KafkaResult<()> {
    let fetched = consumer.assignment()?;
    let mut known = TopicPartitionList::with_capacity(list.count());
    for element in list.elements() {
        if fetched.find_partition(element.topic(), element.partition()).is_some() {
            known.add_partition(element.topic(), element.partition());
        }
    }
    consumer.incremental_unassign(&known)
}

/// A partition by its topic's name; `None` where that is no input topic.
pub(super) fn partition(naming: &Naming, topic: &str, number: i32) -> Option<Partition> {
    let topic = naming.inputs.iter().position(|t| t == topic)?;
    Some(Partition { topic: u16::try_from(topic).ok()?, number })
}

/// The committed offsets of these partitions: `None` for one that has none. One whose offset a transaction is about to
/// commit is missing, if `stable` is asked for.
///
/// # Errors
///
/// When the cluster does not answer in time, or not for a partition.
pub(super) fn committed<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    naming: &Naming,
    of: &[Partition],
    stable: bool,
    timeout: Duration,
) -> KafkaResult<BTreeMap<Partition, Option<Committed>>> {
    let mut list = TopicPartitionList::with_capacity(of.len());
    for p in of {
        list.add_partition(naming.input(*p), p.number);
    }
    let found =
        native::group_offsets(client.client(), &naming.group, Some(&list), stable, timeout)?;
    let mut committed = BTreeMap::new();
    for GroupOffset { topic, partition: number, offset, metadata, error } in found {
        let Some(partition) = partition(naming, &topic, number) else { continue };
        match error {
            Some(Code::UnstableOffsetCommit) => continue,
            Some(code) => return Err(KafkaError::OffsetFetch(code)),
            None => (),
        }
        let next = offset.map(Offset);
        let note = Note::read(&metadata);
        committed.insert(partition, next.map(|next| Committed { next, note }));
    }
    Ok(committed)
}

//! What the client calls back, and what the group knows: rebalances, statistics, offsets, the generation.

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
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::Journal;
use super::native::{self, GroupOffset};
use crate::log::Committed;
use crate::log::Control;
use crate::log::message::Naming;
use crate::log::note::Note;
use crate::record::{Offset, Partition};

/// What the client calls back: it only takes notes for the poll thread.
pub struct Context {
    pub(super) journal: Journal,
    pub(super) naming: Naming,
    pub(super) control: mpsc::Sender<Control>,
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

    /// The newest ends, as the client's statistics have them: what a reader of committed
    /// records can reach.
    fn stats_raw(&self, statistics: &[u8]) {
        let ends = ends(statistics, &self.naming);
        if !ends.is_empty()
            && let Err(TrySendError::Full(_)) = self.control.try_send(Control::Ends(ends))
        {
            tracing::debug!("the engine is behind, partition ends were not sent");
        }
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

/// The last stable offset of each partition in the client's statistics.
fn ends(statistics: &[u8], naming: &Naming) -> BTreeMap<Partition, Offset> {
    #[derive(serde::Deserialize)]
    struct Statistics {
        #[serde(default)]
        topics: BTreeMap<String, Topic>,
    }
    #[derive(serde::Deserialize)]
    struct Topic {
        #[serde(default)]
        partitions: BTreeMap<String, Ends>,
    }
    #[derive(serde::Deserialize)]
    struct Ends {
        partition: i32,
        #[serde(default)]
        ls_offset: i64,
        #[serde(default)]
        hi_offset: i64,
    }
    let statistics: Statistics = match serde_json::from_slice(statistics) {
        Ok(statistics) => statistics,
        Err(error) => {
            tracing::debug!(%error, "the client's statistics cannot be read");
            return BTreeMap::new();
        }
    };
    let mut ends = BTreeMap::new();
    for (name, topic) in &statistics.topics {
        for p in topic.partitions.values().filter(|p| p.partition >= 0) {
            let end = if p.ls_offset >= 0 { p.ls_offset } else { p.hi_offset };
            if let Some(partition) = partition(naming, name, p.partition).filter(|_| end >= 0) {
                ends.insert(partition, Offset(end));
            }
        }
    }
    ends
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn ends_are_taken_from_the_statistics_of_input_topics() {
        let mut config = Config::default();
        config.input.topics = vec!["a".to_owned()];
        let naming = Naming::new(&config);
        let statistics = br#"{"name":"x","topics":{
            "a":{"partitions":{"0":{"partition":0,"ls_offset":7,"hi_offset":9},
                "1":{"partition":1,"ls_offset":-1001,"hi_offset":-1001},
                "-1":{"partition":-1,"ls_offset":5,"hi_offset":5}}},
            "b":{"partitions":{"0":{"partition":0,"ls_offset":1,"hi_offset":1}}}}}"#;
        let expected = BTreeMap::from([(Partition { topic: 0, number: 0 }, Offset(7))]);
        assert_eq!(ends(statistics, &naming), expected);
        assert_eq!(ends(b"no", &naming), BTreeMap::new());
    }
}

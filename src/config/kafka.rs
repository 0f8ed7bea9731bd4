//! The cluster, the group, and what an offset means that is not as it was left.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Time;

/// The cluster and the group.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// The consumer group; also the middle of the transactional ids. Required.
    pub group: String,
    /// This replica's stable name: `group.instance.id`, `client.id`, and the end of its transactional ids.
    /// Default: `$POD_NAME`, else the host's name. Two live processes must not share it.
    pub instance: Option<String>,
    /// Transactional producers, each with its thread; the partitions are spread over them.
    pub lanes: u16,
    /// Where a group that never committed anything begins.
    pub start_from: StartFrom,
    /// What a missing committed offset means in a group that has written manifests before.
    pub on_missing_offset: MissingOffset,
    /// Longest that the manifest topic may be read for missing offsets.
    pub manifest_scan: Time,
    /// What an offset that is no longer there means.
    pub on_out_of_range: OutOfRange,
    /// What an input topic means that was deleted and created again.
    pub on_recreated: Recreated,
    /// What a stop does with the membership of the group.
    pub on_stop: OnStop,
    /// Properties of librdkafka for all clients, by their own dotted names.
    pub common: BTreeMap<String, String>,
    /// … for the consumer.
    pub consumer: BTreeMap<String, String>,
    /// … for the producers.
    pub producer: BTreeMap<String, String>,
}

/// Names of properties only: their values may be secrets.
impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka")
            .field("group", &self.group)
            .field("instance", &self.instance)
            .field("lanes", &self.lanes)
            .field("common", &self.common.keys())
            .field("consumer", &self.consumer.keys())
            .field("producer", &self.producer.keys())
            .finish_non_exhaustive()
    }
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            group: String::new(),
            instance: None,
            lanes: 1,
            start_from: StartFrom::Earliest,
            on_missing_offset: MissingOffset::Manifest,
            manifest_scan: Time::millis(300_000),
            on_out_of_range: OutOfRange::Stop,
            on_recreated: Recreated::Stop,
            on_stop: OnStop::Stay,
            common: BTreeMap::new(),
            consumer: BTreeMap::new(),
            producer: BTreeMap::new(),
        }
    }
}

/// Where a group that never committed anything begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartFrom {
    /// The first record that is there.
    Earliest,
    /// The end at the group's first start: what was written before it is never read.
    Latest,
}

/// What a missing committed offset means in a group that has written manifests before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissingOffset {
    /// Go on behind the newest manifest of the partition; stop where there is none.
    Manifest,
    /// Stop loudly.
    Stop,
    /// Begin at `start_from`, as if nothing had ever been predicted.
    Start,
}

/// What an input topic means that was deleted and created again under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recreated {
    /// Stop loudly.
    Stop,
    /// Begin the new topic at its first record.
    Start,
}

/// What a stop does with the membership of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStop {
    /// Nothing: this replica's partitions wait for it until its session expires.
    Stay,
    /// Leave: the other replicas take the partitions over at once.
    Leave,
}

/// What to do when the committed offset is no longer in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutOfRange {
    /// Stop loudly: records were deleted before they were read.
    Stop,
    /// Go on at the first record that is there.
    Earliest,
    /// Go on at the end.
    Latest,
}

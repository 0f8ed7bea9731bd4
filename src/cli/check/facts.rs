//! What was seen of the cluster.

use std::collections::BTreeMap;

use crate::kafka::native::{Allowed, Group};

/// Settings of a topic or of a broker, by Kafka's names.
pub(super) type Settings = BTreeMap<String, String>;

/// What was seen of the cluster.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// How the cluster calls itself.
    pub cluster: Option<String>,
    /// The brokers, as the cluster's own answer has them.
    pub brokers: Vec<Broker>,
    /// The requests that a broker understands, by number, and the newest version of each. Empty where it is not known.
    pub requests: BTreeMap<i16, i16>,
    /// The topics that are there and may be described.
    pub topics: BTreeMap<String, Topic>,
    /// A broker's settings; `None` where they may not be read.
    pub broker: Option<Settings>,
    /// The group; `None` where it was not asked for.
    pub group: Option<Described>,
    /// What this user may do with topics; those of which the brokers do not say it are missing.
    pub allowed: BTreeMap<String, Allowed>,
    /// … and with the group.
    pub allowed_group: Option<Allowed>,
}

/// What the cluster says of the group.
#[derive(Debug, Clone)]
pub(super) enum Described {
    /// Its members.
    Group(Group),
    /// This user may not know.
    Refused,
    /// Nothing, for this reason.
    Unanswered(String),
}

/// A broker.
#[derive(Debug, Clone)]
pub(super) struct Broker {
    /// Its number.
    pub id: i32,
    /// Host and port that it gives to clients.
    pub address: String,
    /// Why it is not reached there.
    pub unreached: Option<String>,
}

/// A topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Topic {
    /// How many partitions it has.
    pub partitions: usize,
    /// The fewest replicas that one of them has.
    pub replicas: usize,
    /// How many partitions have no leader now.
    pub leaderless: usize,
    /// Whether it has an id. Brokers before 2.8 give none.
    pub id: bool,
    /// Its settings; `None` where they may not be read.
    pub settings: Option<Settings>,
}

impl Topic {
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.as_ref()?.get(name).map(String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.setting(name)?.parse().ok()
    }

    pub(super) fn is_compacted(&self) -> bool {
        self.setting("cleanup.policy").is_some_and(|policy| policy.contains("compact"))
    }

    /// How much older, or newer, than the moment of writing a record may be, ms; `None` where the topic sets the time
    /// itself, or does not say.
    pub(super) fn bound(&self, side: &str) -> Option<i64> {
        if self.setting("message.timestamp.type") == Some("LogAppendTime") {
            return None;
        }
        // Before Kafka 3.6 one setting held for both sides.
        self.number(&format!("message.timestamp.{side}.max.ms"))
            .or_else(|| self.number("message.timestamp.difference.max.ms"))
    }
}

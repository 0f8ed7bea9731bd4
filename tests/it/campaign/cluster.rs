//! Who of three brokers has which part, and when all of them are well again.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::metadata::{Metadata, MetadataTopic};

use crate::world::wait_for;

/// What a broker is to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Coordinates its group.
    Group,
    /// Coordinates one replica's transactions.
    Transactions,
    /// Leads the first partition of a topic.
    Leader(&'static str),
}

impl Role {
    /// The broker that has it now, for the service's group and this transactional id.
    pub(super) fn broker(self, client: &BaseConsumer, group: &str, transaction: &str) -> i32 {
        match self {
            Self::Group => leader(client, "__consumer_offsets", |n| place(group, n)),
            Self::Transactions => leader(client, "__transaction_state", |n| place(transaction, n)),
            Self::Leader(topic) => leader(client, topic, |_| 0),
        }
    }
}

/// The partition of an internal topic that an id belongs to: Java's hash of a string.
fn place(id: &str, partitions: i32) -> i32 {
    let hash = id
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX) % partitions
}

fn leader(client: &BaseConsumer, topic: &str, partition: impl Fn(i32) -> i32) -> i32 {
    wait_for("a leader", || {
        let found = look(client)?;
        let topic = found.topics().iter().find(|t| t.name() == topic)?;
        let partition = partition(i32::try_from(topic.partitions().len()).unwrap());
        let leader = topic.partitions().iter().find(|p| p.id() == partition)?.leader();
        (0 < leader).then_some(leader)
    })
}

fn look(client: &BaseConsumer) -> Option<Metadata> {
    client.fetch_metadata(None, Duration::from_secs(5)).ok()
}

/// Waits until no partition is led by this broker.
pub(super) fn without(client: &BaseConsumer, broker: i32) {
    wait_for("other leaders", || {
        let found = look(client)?;
        let mut partitions = found.topics().iter().flat_map(MetadataTopic::partitions);
        partitions.all(|p| 0 < p.leader() && p.leader() != broker).then_some(())
    });
}

/// Waits until every partition has its three copies in step: one may be lost again.
pub(super) fn whole(client: &BaseConsumer) {
    wait_for("all copies to be in step", || {
        let found = look(client)?;
        let mut partitions = found.topics().iter().flat_map(MetadataTopic::partitions);
        partitions.all(|p| 0 < p.leader() && p.isr().len() == 3).then_some(())
    });
}

#[test]
fn an_id_has_the_place_that_java_gives_it() {
    assert_eq!(place("g", 50), 3); // "g".hashCode() is 103
    assert_eq!(place("hello", 50), 22); // 99162322
    assert_eq!(place("polygenelubricants", 50), 0); // i32::MIN, whose absolute value Kafka takes as 0
}

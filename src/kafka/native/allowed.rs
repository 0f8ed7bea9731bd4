//! What a broker lets this user do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::bindings as c;
use rdkafka::bindings::rd_kafka_AclOperation_t as Native;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, KafkaResult};

use super::admin::{admin, described, failure, string, text};

/// Something that a user may be allowed to do, by the word that `kafka-acls.sh` has for it.
pub type Operation = &'static str;

/// What a user may do with something.
pub type Allowed = BTreeSet<Operation>;

/// What the words are.
fn word(operation: Native) -> Option<Operation> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others are nothing that a service does"
    )]
    match operation {
        Native::RD_KAFKA_ACL_OPERATION_READ => Some("Read"),
        Native::RD_KAFKA_ACL_OPERATION_WRITE => Some("Write"),
        Native::RD_KAFKA_ACL_OPERATION_DESCRIBE => Some("Describe"),
        Native::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS => Some("DescribeConfigs"),
        _ => None,
    }
}

/// # Safety
///
/// `list` is null or has `count` operations.
unsafe fn allowed(list: *const Native, count: usize) -> Option<Allowed> {
    if list.is_null() || count == 0 {
        return None;
    }
    // SAFETY: as the caller promises.
    let list = unsafe { std::slice::from_raw_parts(list, count) };
    Some(list.iter().filter_map(|operation| word(*operation)).collect())
}

/// What this user may do with topics. One of which the broker does not say it is missing.
///
/// # Errors
///
/// When the cluster does not answer in time, or refuses.
pub fn allowed_topics<C: ClientContext>(
    client: &Client<C>,
    names: &[&str],
    timeout: Duration,
) -> KafkaResult<BTreeMap<String, Allowed>> {
    let names = names.iter().map(|name| text(name)).collect::<KafkaResult<Vec<_>>>()?;
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let kind = c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    // SAFETY: the names live until the collection is destroyed, which the client copies.
    let ask = |options: *mut _, queue| unsafe {
        c::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
        let topics =
            c::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        c::rd_kafka_DescribeTopics(client.native_ptr(), topics, options, queue);
        c::rd_kafka_TopicCollection_destroy(topics);
    };
    // SAFETY: everything read here is owned by the event, and copied before the event is destroyed.
    let read = |event| unsafe {
        let (mut count, mut found) = (0, BTreeMap::new());
        let result = c::rd_kafka_event_DescribeTopics_result(event);
        let topics = c::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        for place in 0..count {
            let topic = *topics.add(place);
            let mut count = 0;
            let list = c::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut count);
            let name = string(c::rd_kafka_TopicDescription_name(topic));
            if failure(c::rd_kafka_TopicDescription_error(topic)).is_none()
                && let Some((name, allowed)) = name.zip(allowed(list, count))
            {
                found.insert(name, allowed);
            }
        }
        Ok(found)
    };
    admin(client, kind, timeout, ask, read)
}

/// What this user may do with a group; `None` where the broker does not say it.
///
/// # Errors
///
/// When the cluster does not answer in time, or refuses (`GroupAuthorizationFailed`).
pub fn allowed_group<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
) -> KafkaResult<Option<Allowed>> {
    // SAFETY: everything read here is owned by the event, and copied before the event is destroyed.
    let read = |group| unsafe {
        if let Some(code) = failure(c::rd_kafka_ConsumerGroupDescription_error(group)) {
            return Err(KafkaError::AdminOp(code));
        }
        let mut count = 0;
        let list =
            c::rd_kafka_ConsumerGroupDescription_authorized_operations(group, &raw mut count);
        Ok(allowed(list, count))
    };
    described(client, group, timeout, true, read).map(Option::flatten)
}

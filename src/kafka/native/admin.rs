//! Questions to the cluster: descriptions of topics and groups, ends of partitions, offsets of groups.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as c;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};

use crate::record::TopicId;

/// What the cluster says of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its id; `None` where the broker is too old to have one.
    pub id: Option<TopicId>,
    /// How many partitions it has.
    pub partitions: i32,
}

/// What the cluster says of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// Whether no rebalance is under way.
    pub stable: bool,
    /// Its members.
    pub members: Vec<Member>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// `group.instance.id`, where it has one.
    pub instance: Option<String>,
    /// The id that the broker gave it.
    pub id: String,
    /// Topics and partition numbers that are assigned to it.
    pub partitions: Vec<(String, i32)>,
}

/// Describes topics. A topic that is not there is missing from the answer.
///
/// # Errors
///
/// When the cluster does not answer in time, or refuses.
pub fn describe_topics<C: ClientContext>(
    client: &Client<C>,
    names: &[&str],
    timeout: Duration,
) -> KafkaResult<BTreeMap<String, Topic>> {
    let names: Vec<CString> = names.iter().map(|name| text(name)).collect::<KafkaResult<_>>()?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let kind = c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    // SAFETY: the names live until the collection is destroyed, which the client copies.
    let ask = |options: *mut _, queue| unsafe {
        let topics =
            c::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        c::rd_kafka_DescribeTopics(client.native_ptr(), topics, options, queue);
        c::rd_kafka_TopicCollection_destroy(topics);
    };
    // SAFETY: everything read here is owned by the event, and copied before the event is destroyed.
    let read = |event| unsafe {
        let mut count = 0;
        let result = c::rd_kafka_event_DescribeTopics_result(event);
        let topics = c::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        let mut described = BTreeMap::new();
        for place in 0..count {
            let topic = *topics.add(place);
            match failure(c::rd_kafka_TopicDescription_error(topic)) {
                None => {
                    let name = string(c::rd_kafka_TopicDescription_name(topic));
                    described.insert(name.unwrap_or_default(), self::topic(topic));
                }
                Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => (),
                Some(code) => return Err(KafkaError::AdminOp(code)),
            }
        }
        Ok(described)
    };
    admin(client, kind, timeout, ask, read)
}

/// # Safety
///
/// `topic` is a description that its event still holds.
unsafe fn topic(topic: *const c::rd_kafka_TopicDescription_t) -> Topic {
    // SAFETY: as the caller promises.
    unsafe {
        let mut count = 0;
        c::rd_kafka_TopicDescription_partitions(topic, &raw mut count);
        let id = c::rd_kafka_TopicDescription_topic_id(topic);
        let known = !id.is_null()
            && (c::rd_kafka_Uuid_most_significant_bits(id) != 0
                || c::rd_kafka_Uuid_least_significant_bits(id) != 0);
        let id = if known { string(c::rd_kafka_Uuid_base64str(id)) } else { None };
        Topic {
            id: id.map(|id| TopicId(id.into())),
            partitions: i32::try_from(count).unwrap_or(i32::MAX),
        }
    }
}

/// Describes a group with its members. A group that is not there has none.
///
/// # Errors
///
/// When the cluster does not answer in time, or refuses (`GroupAuthorizationFailed`).
pub fn describe_group<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
) -> KafkaResult<Group> {
    // SAFETY: everything read here is owned by the event, and copied before the event is destroyed.
    let read = |group| unsafe {
        match failure(c::rd_kafka_ConsumerGroupDescription_error(group)) {
            None => (),
            Some(Code::GroupIdNotFound) => return Ok(Group::default()),
            Some(code) => return Err(KafkaError::AdminOp(code)),
        }
        let state = c::rd_kafka_ConsumerGroupDescription_state(group);
        let members = c::rd_kafka_ConsumerGroupDescription_member_count(group);
        let member = |place| member(c::rd_kafka_ConsumerGroupDescription_member(group, place));
        Ok(Group {
            stable: state
                == c::rd_kafka_consumer_group_state_t::RD_KAFKA_CONSUMER_GROUP_STATE_STABLE,
            members: (0..members).map(member).collect(),
        })
    };
    Ok(described(client, group, timeout, false, read)?.unwrap_or_default())
}

/// Asks for the description of a group, with what this user may do with it or without, and reads it before it is destroyed;
/// `None` where there is none.
pub(super) fn described<C: ClientContext, R>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
    permissions: bool,
    read: impl FnOnce(*const c::rd_kafka_ConsumerGroupDescription_t) -> KafkaResult<R>,
) -> KafkaResult<Option<R>> {
    let name = text(group)?;
    let mut pointers = [name.as_ptr()];
    let kind = c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
    // SAFETY: the client copies the name.
    let ask = |options: *mut _, queue| unsafe {
        c::rd_kafka_AdminOptions_set_include_authorized_operations(options, permissions.into());
        let names = pointers.as_mut_ptr();
        c::rd_kafka_DescribeConsumerGroups(client.native_ptr(), names, 1, options, queue);
    };
    // SAFETY: the description is owned by the event, which is destroyed afterwards.
    let first = |event| unsafe {
        let mut count = 0;
        let result = c::rd_kafka_event_DescribeConsumerGroups_result(event);
        let groups = c::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
        if count == 0 { Ok(None) } else { read(*groups).map(Some) }
    };
    admin(client, kind, timeout, ask, first)
}

/// # Safety
///
/// `member` is a description that its event still holds.
unsafe fn member(member: *const c::rd_kafka_MemberDescription_t) -> Member {
    // SAFETY: as the caller promises.
    unsafe {
        let assignment = c::rd_kafka_MemberDescription_assignment(member);
        let mut partitions = Vec::new();
        let list = if assignment.is_null() {
            std::ptr::null()
        } else {
            c::rd_kafka_MemberAssignment_partitions(assignment)
        };
        if let Some(list) = list.as_ref() {
            for place in 0..usize::try_from(list.cnt).unwrap_or(0) {
                let element = &*list.elems.add(place);
                partitions.push((string(element.topic).unwrap_or_default(), element.partition));
            }
        }
        Member {
            instance: string(c::rd_kafka_MemberDescription_group_instance_id(member)),
            id: string(c::rd_kafka_MemberDescription_consumer_id(member)).unwrap_or_default(),
            partitions,
        }
    }
}

/// Which offset of a partition is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The first one that is there.
    First,
    /// The one behind the last record that readers of committed records see.
    Stable,
    /// The one behind the last record.
    High,
    /// The first one at or after this time, in ms since 1970; the end where there is none.
    Since(i64),
}

/// Asks for an offset of each of these partitions. One that has an error of its own is an error of all.
///
/// # Errors
///
/// When the cluster does not answer in time, or not for a partition.
pub fn list_offsets<C: ClientContext>(
    client: &Client<C>,
    partitions: &[(&str, i32)],
    which: Which,
    timeout: Duration,
) -> KafkaResult<Vec<i64>> {
    let found = list_each_offset(client, partitions, which, timeout)?;
    found.into_iter().map(|found| found.map_err(KafkaError::AdminOp)).collect()
}

/// Asks for an offset of each of these partitions; one whose leader is away has an error of its own.
///
/// # Errors
///
/// When the cluster does not answer in time.
pub fn list_each_offset<C: ClientContext>(
    client: &Client<C>,
    partitions: &[(&str, i32)],
    which: Which,
    timeout: Duration,
) -> KafkaResult<Vec<Result<i64, Code>>> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition(topic, *partition);
    }
    // SAFETY: the list is ours, and has as many elements as were added.
    unsafe {
        let list = &mut *list.ptr();
        for place in 0..usize::try_from(list.cnt).unwrap_or(0) {
            (*list.elems.add(place)).offset = match which {
                Which::First => -2,
                Which::Stable | Which::High => -1,
                Which::Since(time) => time.max(0),
            };
        }
    }
    let level = match which {
        Which::First | Which::High => {
            c::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED
        }
        Which::Stable | Which::Since(_) => {
            c::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED
        }
    };
    let kind = c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
    // SAFETY: the client copies the list; a refused option leaves the default, which is the same on every broker.
    let ask = |options: *mut _, queue| unsafe {
        let refused = c::rd_kafka_AdminOptions_set_isolation_level(options, level);
        if !refused.is_null() {
            c::rd_kafka_error_destroy(refused);
        }
        c::rd_kafka_ListOffsets(client.native_ptr(), list.ptr(), options, queue);
    };
    // SAFETY: everything read here is owned by the event, and copied before the event is destroyed.
    let read = |event| unsafe {
        let mut count = 0;
        let result = c::rd_kafka_event_ListOffsets_result(event);
        let infos = c::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
        let mut offsets = BTreeMap::new();
        for place in 0..count {
            let found = &*c::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(place));
            let code = Code::from(found.err);
            let offset = if code == Code::NoError { Ok(found.offset) } else { Err(code) };
            let topic = string(found.topic).unwrap_or_default();
            offsets.insert((topic, found.partition), offset);
        }
        Ok(offsets)
    };
    let offsets = if partitions.is_empty() {
        BTreeMap::new()
    } else {
        admin(client, kind, timeout, ask, read)?
    };
    let offset = |(topic, partition): &(&str, i32)| {
        let found = offsets.get(&((*topic).to_owned(), *partition)).copied();
        found.unwrap_or(Err(Code::UnknownPartition))
    };
    Ok(partitions.iter().map(offset).collect())
}

/// What a group has committed for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset; `None` where nothing is committed.
    pub offset: Option<i64>,
    /// What was committed beside it.
    pub metadata: Vec<u8>,
    /// Why it is not told: a transaction with it is open, for one.
    pub error: Option<Code>,
}

/// What `group` has committed, for these partitions or for all that it has. `stable` does not tell the offsets of
/// partitions that a transaction is about to commit.
///
/// # Errors
///
/// When the cluster does not answer in time, or refuses.
pub fn group_offsets<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    partitions: Option<&TopicPartitionList>,
    stable: bool,
    timeout: Duration,
) -> KafkaResult<Vec<GroupOffset>> {
    let name = text(group)?;
    let kind = c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
    let wanted = partitions.map_or(std::ptr::null(), |list| list.ptr().cast_const());
    // SAFETY: name and list are copied; a refused option would only tell less.
    let ask = |options: *mut _, queue| unsafe {
        let refused =
            c::rd_kafka_AdminOptions_set_require_stable_offsets(options, i32::from(stable));
        if !refused.is_null() {
            c::rd_kafka_error_destroy(refused);
        }
        let mut question = c::rd_kafka_ListConsumerGroupOffsets_new(name.as_ptr(), wanted);
        let pointer = &raw mut question;
        c::rd_kafka_ListConsumerGroupOffsets(client.native_ptr(), pointer, 1, options, queue);
        c::rd_kafka_ListConsumerGroupOffsets_destroy(question);
    };
    // SAFETY: everything read here is owned by the event, and copied before the event is destroyed.
    let read = |event| unsafe {
        let mut count = 0;
        let result = c::rd_kafka_event_ListConsumerGroupOffsets_result(event);
        let groups = c::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut count);
        if count == 0 {
            return Ok(Vec::new());
        }
        if let Some(code) = failure(c::rd_kafka_group_result_error(*groups)) {
            return Err(KafkaError::AdminOp(code));
        }
        let Some(list) = c::rd_kafka_group_result_partitions(*groups).as_ref() else {
            return Ok(Vec::new());
        };
        let element = |place| {
            let element = &*list.elems.add(place);
            let code = Code::from(element.err);
            GroupOffset {
                topic: string(element.topic).unwrap_or_default(),
                partition: element.partition,
                offset: (0 <= element.offset).then_some(element.offset),
                metadata: if element.metadata.is_null() {
                    Vec::new()
                } else {
                    let bytes = element.metadata.cast::<u8>();
                    std::slice::from_raw_parts(bytes, element.metadata_size).to_vec()
                },
                error: (code != Code::NoError).then_some(code),
            }
        };
        Ok((0..usize::try_from(list.cnt).unwrap_or(0)).map(element).collect())
    };
    admin(client, kind, timeout, ask, read)
}

/// The longest that the client lets a question live, milliseconds.
const FOR_COORDINATOR: i32 = 3_600_000;

/// Whether a question goes to a group's coordinator. Such a one must not run out of time inside the client while that
/// broker is away: when it returns, the client uses the question once more, which is freed by then, and the process
/// aborts (librdkafka #4605, #5397: `Assertion eonce->refcnt > 0 failed`). So only we stop waiting for its answer.
fn for_coordinator(kind: c::rd_kafka_admin_op_t) -> bool {
    kind == c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS
        || kind == c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS
}

/// One question to the cluster: `ask` sends it, `read` copies what is wanted out of the answer.
pub(super) fn admin<T, C: ClientContext>(
    client: &Client<C>,
    kind: c::rd_kafka_admin_op_t,
    timeout: Duration,
    ask: impl FnOnce(*mut c::rd_kafka_AdminOptions_t, *mut c::rd_kafka_queue_t),
    read: impl FnOnce(*mut c::rd_kafka_event_t) -> KafkaResult<T>,
) -> KafkaResult<T> {
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).max(1);
    // SAFETY: the client outlives this call. Queue, options and event are ours and are destroyed once, here; the
    // client copies the options. An answer that comes after the queue is gone is dropped by the client.
    unsafe {
        let (client, mut why) = (client.native_ptr(), [0; 256]);
        let queue = c::rd_kafka_queue_new(client);
        let options = c::rd_kafka_AdminOptions_new(client, kind);
        c::rd_kafka_AdminOptions_set_request_timeout(
            options,
            if for_coordinator(kind) { FOR_COORDINATOR } else { millis },
            why.as_mut_ptr(),
            why.len(),
        );
        ask(options, queue);
        let event = c::rd_kafka_queue_poll(queue, millis.saturating_add(1_000));
        let answer = if event.is_null() {
            Err(KafkaError::AdminOp(Code::OperationTimedOut))
        } else {
            let code = Code::from(c::rd_kafka_event_error(event));
            if code == Code::NoError { read(event) } else { Err(KafkaError::AdminOp(code)) }
        };
        if !event.is_null() {
            c::rd_kafka_event_destroy(event);
        }
        c::rd_kafka_AdminOptions_destroy(options);
        c::rd_kafka_queue_destroy(queue);
        answer
    }
}

/// # Safety
///
/// `error` is null or an error that its owner still holds.
pub(super) unsafe fn failure(error: *const c::rd_kafka_error_t) -> Option<Code> {
    if error.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    let code = Code::from(unsafe { c::rd_kafka_error_code(error) });
    (code != Code::NoError).then_some(code)
}

/// # Safety
///
/// `pointer` is null or a text that ends with a zero byte and stays while it is copied.
pub(super) unsafe fn string(pointer: *const c_char) -> Option<String> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    Some(unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}

pub(super) fn text(text: &str) -> KafkaResult<CString> {
    CString::new(text).map_err(KafkaError::Nul)
}

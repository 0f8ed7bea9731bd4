//! The calls of librdkafka that rdkafka does not wrap. The only unsafe code of this side of the house.
//!
//! * Descriptions of topics (with their ids) and of the group (with its members).
//! * Headers whose names are bytes: rdkafka unwraps them as UTF-8 and would panic on a record's content.
//! * A failed message's own error text, and the metadata string of a committed offset.
//! * The group's generation and member id, which a fenced commit needs.
//! * The names of librdkafka's properties.

#![expect(unsafe_code, reason = "rdkafka keeps these to itself")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char, c_void};
use std::time::Duration;

use rdkafka::bindings as c;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, OwnedHeaders};
use rdkafka::types::RDKafkaConfRes;
use rdkafka::{ClientConfig, TopicPartitionList};

use super::owned;
use crate::record::{Header, TopicId};

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
    let name = text(group)?;
    let mut pointers = [name.as_ptr()];
    let kind = c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
    // SAFETY: the client copies the name.
    let ask = |options: *mut _, queue| unsafe {
        let names = pointers.as_mut_ptr();
        c::rd_kafka_DescribeConsumerGroups(client.native_ptr(), names, 1, options, queue);
    };
    // SAFETY: everything read here is owned by the event, and copied before the event is destroyed.
    let read = |event| unsafe {
        let mut count = 0;
        let result = c::rd_kafka_event_DescribeConsumerGroups_result(event);
        let groups = c::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
        if count == 0 {
            return Ok(Group::default());
        }
        let group = *groups;
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
    admin(client, kind, timeout, ask, read)
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
            if code != Code::NoError {
                return Err(KafkaError::AdminOp(code));
            }
            let topic = string(found.topic).unwrap_or_default();
            offsets.insert((topic, found.partition), found.offset);
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
        found.ok_or(KafkaError::AdminOp(Code::UnknownPartition))
    };
    partitions.iter().map(offset).collect()
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

/// One question to the cluster: `ask` sends it, `read` copies what is wanted out of the answer.
fn admin<T, C: ClientContext>(
    client: &Client<C>,
    kind: c::rd_kafka_admin_op_t,
    timeout: Duration,
    ask: impl FnOnce(*mut c::rd_kafka_AdminOptions_t, *mut c::rd_kafka_queue_t),
    read: impl FnOnce(*mut c::rd_kafka_event_t) -> KafkaResult<T>,
) -> KafkaResult<T> {
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client outlives this call. Queue, options and event are ours and are destroyed once, here; the
    // client copies the options. An answer that comes after the queue is gone is dropped by the client.
    unsafe {
        let (client, mut why) = (client.native_ptr(), [0; 256]);
        let queue = c::rd_kafka_queue_new(client);
        let options = c::rd_kafka_AdminOptions_new(client, kind);
        c::rd_kafka_AdminOptions_set_request_timeout(
            options,
            millis.max(1),
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
unsafe fn failure(error: *const c::rd_kafka_error_t) -> Option<Code> {
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
unsafe fn string(pointer: *const c_char) -> Option<String> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    Some(unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}

fn text(text: &str) -> KafkaResult<CString> {
    CString::new(text).map_err(KafkaError::Nul)
}

/// A message's headers in their order, their names as bytes. A name with a zero byte ends there: the client
/// gives no length.
pub fn headers(message: &BorrowedMessage<'_>) -> Vec<Header> {
    let mut headers = Vec::new();
    // SAFETY: the message owns the headers; name and value are copied while it is borrowed.
    unsafe {
        let mut list = std::ptr::null_mut();
        if Code::from(c::rd_kafka_message_headers(message.ptr(), &raw mut list)) != Code::NoError {
            return headers;
        }
        for place in 0..c::rd_kafka_header_cnt(list) {
            let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
            let (n, v, s) = (&raw mut name, &raw mut value, &raw mut size);
            if Code::from(c::rd_kafka_header_get_all(list, place, n, v, s)) != Code::NoError {
                break;
            }
            let name = CStr::from_ptr(name).to_bytes().to_vec();
            let value = (!value.is_null())
                .then(|| std::slice::from_raw_parts(value.cast::<u8>(), size).to_vec());
            headers.push(Header { name, value });
        }
    }
    headers
}

/// Adds a header whose name need not be UTF-8.
pub fn add_header(headers: &mut OwnedHeaders, name: &[u8], value: Option<&[u8]>) {
    let list: *mut c::rd_kafka_headers_t =
        std::ptr::from_ref(headers.as_borrowed()).cast_mut().cast();
    let (bytes, size) = value.map_or((std::ptr::null(), 0), |value| (value.as_ptr(), value.len()));
    let length = |length: usize| isize::try_from(length).unwrap_or(isize::MAX);
    // SAFETY: rdkafka's borrowed headers are the native list under another type, and these are ours alone;
    // name and value are copied.
    unsafe {
        let (name, n) = (name.as_ptr().cast::<c_char>(), length(name.len()));
        // Only a read-only list refuses, which rdkafka never gives out as owned.
        c::rd_kafka_header_add(list, name, n, bytes.cast::<c_void>(), length(size));
    }
}

/// What the broker said of a message that it did not take; the code's own text where it said nothing.
pub fn delivery_error(message: &BorrowedMessage<'_>) -> Option<String> {
    // SAFETY: the text belongs to the message, which is borrowed.
    unsafe { string(c::rd_kafka_message_produce_errstr(message.ptr())) }
}

/// The metadata of the element at `place`: bytes, because whoever committed it may have written anything.
pub fn metadata(list: &TopicPartitionList, place: usize) -> Vec<u8> {
    // SAFETY: the list is borrowed, and the place is looked at before it is read.
    unsafe {
        let list = &*list.ptr();
        if place >= usize::try_from(list.cnt).unwrap_or(0) {
            return Vec::new();
        }
        let element = &*list.elems.add(place);
        if element.metadata.is_null() {
            return Vec::new();
        }
        std::slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size).to_vec()
    }
}

/// The group's generation as this member knows it; `None` while it is no member. A commit without a
/// generation or member id would be accepted by the broker *unfenced*.
pub fn generation<C: ClientContext>(client: &Client<C>) -> Option<i32> {
    // SAFETY: the client outlives this call; the metadata is ours until it is destroyed, and the member id
    // points into it and ends with a zero byte.
    unsafe {
        let metadata = c::rd_kafka_consumer_group_metadata(client.native_ptr());
        if metadata.is_null() {
            return None;
        }
        let generation = c::rd_kafka_consumer_group_metadata_generation_id(metadata);
        let member = c::rd_kafka_consumer_group_metadata_member_id(metadata);
        let valid = generation >= 0 && !member.is_null() && *member != 0;
        c::rd_kafka_consumer_group_metadata_destroy(metadata);
        valid.then_some(generation)
    }
}

/// The names of librdkafka's properties that a text can set, with second names.
pub fn properties() -> BTreeSet<String> {
    let both = owned::ALIASES.iter().flat_map(|(alias, first)| [alias, first]);
    let more = owned::WITHOUT_DEFAULT.iter().chain(both);
    let mut names: BTreeSet<String> = more.map(|name| (*name).to_owned()).collect();
    // What has a value, librdkafka lists itself.
    // SAFETY: both configurations and the lists of names and values are ours, and each is destroyed once, here.
    unsafe {
        let (global, topic) = (c::rd_kafka_conf_new(), c::rd_kafka_topic_conf_new());
        for of_topics in [false, true] {
            let mut count = 0;
            let list = if of_topics {
                c::rd_kafka_topic_conf_dump(topic, &raw mut count)
            } else {
                c::rd_kafka_conf_dump(global, &raw mut count)
            };
            // A name, its value, the next name, …
            names.extend((0..count).step_by(2).filter_map(|place| string(*list.add(place))));
            c::rd_kafka_conf_dump_free(list, count);
        }
        c::rd_kafka_topic_conf_destroy(topic);
        c::rd_kafka_conf_destroy(global);
    }
    names
}

/// Whether librdkafka knows a property of this name, be it a second name.
pub fn is_property(name: &str) -> bool {
    let tried = ClientConfig::new().set(name, "").create_native_config();
    let unknown = RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN;
    !matches!(tried, Err(KafkaError::ClientConfig(code, ..)) if code == unknown)
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers as _;

    use super::*;

    #[test]
    fn names_of_headers_are_bytes() {
        let mut headers = OwnedHeaders::new();
        add_header(&mut headers, b"plain", Some(b"value"));
        add_header(&mut headers, b"\xe9tat", None);
        add_header(&mut headers, b"", Some(b""));
        assert_eq!(headers.count(), 3);
        assert_eq!(headers.get(0).key, "plain");
        assert_eq!(headers.get(2).value, Some(&b""[..]));
    }

    /// librdkafka's own table of its properties, in Markdown.
    fn manual() -> String {
        // SAFETY: the file is ours, and is closed once; the buffer is as long as it is said to be.
        unsafe {
            let file = libc::tmpfile();
            assert!(!file.is_null());
            c::rd_kafka_conf_properties_show(file.cast());
            libc::rewind(file);
            let mut bytes = vec![0_u8; 1 << 20];
            let read = libc::fread(bytes.as_mut_ptr().cast(), 1, bytes.len(), file);
            libc::fclose(file);
            bytes.truncate(read);
            String::from_utf8(bytes).unwrap()
        }
    }

    /// The lists that we keep are those of librdkafka: second names, and which client takes what.
    #[test]
    fn our_lists_are_those_of_librdkafka() {
        let known = properties();
        let mut rows = 0;
        for line in manual().lines() {
            let columns: Vec<&str> = line.splitn(6, '|').map(str::trim).collect();
            let [name, whose @ ("*" | "C" | "P"), .., text] = columns[..] else { continue };
            rows += 1;
            let first = owned::canonical(name);
            if let Some((of, _)) =
                text.strip_prefix("Alias for `").and_then(|rest| rest.split_once('`'))
            {
                let topic = ["enable.auto.commit"].contains(&name);
                assert!(topic || first == owned::canonical(of), "{name} is a second name of {of}");
            }
            assert!(is_property(name), "{name}");
            let ours = owned::OWNED.iter().find(|owned| owned.name == first);
            assert!(
                ours.is_some() || known.contains(name),
                "{name} is not in the list of those without default"
            );
            let client = match whose {
                "C" => owned::Client::Consumer,
                "P" => owned::Client::Producer,
                _ => owned::Client::All,
            };
            match ours {
                Some(ours) => {
                    assert!(client == owned::Client::All || ours.client == client, "{name}");
                }
                None => assert_eq!(owned::client_of(first), client, "{name}"),
            }
        }
        assert!(150 < rows, "{rows}");
        assert!(
            owned::OWNED
                .iter()
                .all(|owned| is_property(owned.name) && owned::canonical(owned.name) == owned.name)
        );
        assert!(known.iter().all(|name| is_property(name)));
        assert!(!is_property("sasl.pasword") && !is_property("ssl.keystore.key"));
    }

    #[test]
    fn a_list_without_metadata_has_none() {
        let mut list = TopicPartitionList::new();
        list.add_partition("t", 0).set_metadata("mine");
        list.add_partition("t", 1);
        assert_eq!(metadata(&list, 0), b"mine");
        assert_eq!(metadata(&list, 1), b"");
        assert_eq!(metadata(&list, 7), b"");
    }
}

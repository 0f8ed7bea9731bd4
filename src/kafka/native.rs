//! The calls of librdkafka that rdkafka does not wrap. The only unsafe code of this side of the house.
//!
//! * Descriptions of topics (with their ids) and of the group (with its members).
//! * Headers whose names are bytes: rdkafka unwraps them as UTF-8 and would panic on a record's content.
//! * A failed message's own error text, and the metadata string of a committed offset.
//! * The group's generation and member id, which a fenced commit needs.
//! * The names of librdkafka's properties.

#![expect(unsafe_code, reason = "rdkafka keeps these to itself")]

use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_void};

use rdkafka::bindings as c;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, OwnedHeaders};
use rdkafka::types::RDKafkaConfRes;
use rdkafka::{ClientConfig, TopicPartitionList};

use super::owned;
use crate::record::Header;

mod admin;

use admin::string;
pub use admin::{
    Group, GroupOffset, Member, Topic, Which, describe_group, describe_topics, group_offsets,
    list_offsets,
};

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

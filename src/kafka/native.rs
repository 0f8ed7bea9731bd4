//! The calls of librdkafka that rdkafka does not wrap. The only unsafe code of this side of the house.
//!
//! * Descriptions of topics (with their ids) and of the group (with its members).
//! * Headers whose names are bytes: rdkafka unwraps them as UTF-8 and would panic on a record's content.
//! * A failed message's own error text, and the metadata string of a committed offset.
//! * What a broker lets this user do.
//! * Tokens of clients that nobody polls.
//! * The group's generation and member id, which a fenced commit needs.

#![expect(unsafe_code, reason = "rdkafka keeps these to itself")]

use std::ffi::{CStr, c_char, c_void};

use rdkafka::TopicPartitionList;
use rdkafka::bindings as c;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::message::{BorrowedMessage, OwnedHeaders};

use crate::record::Header;

mod admin;
mod allowed;
mod token;

pub use admin::{
    Group, GroupOffset, Member, Topic, Which, describe_group, describe_topics, group_offsets,
    list_each_offset, list_offsets,
};
pub use allowed::{Allowed, Operation, allowed_group, allowed_topics};
pub use token::{no_token, set_token};

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

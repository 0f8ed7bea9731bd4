//! Which schema a record was written by: Confluent's frame before the value, or its header beside it. Pure.
//!
//! | form | bytes |
//! |---|---|
//! | before the value | 0, the id in 4 bytes, then the datum; of Protobuf between them which message it is |
//! | header `__value_schema_id` | 1, the schema's GUID in 16 bytes; or 0 and the id; of Protobuf then which message. The value is the datum alone |

use std::fmt;

use uuid::Uuid;

use crate::record::Header;

/// The header of a record that names the schema of its value.
pub const VALUE_HEADER: &str = "__value_schema_id";

/// The same for a key's.
pub const KEY_HEADER: &str = "__key_schema_id";

/// How many bytes stand before a datum.
pub const FRAME: usize = 5;

/// What names a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reference {
    /// A number that the registry gave.
    Id(u32),
    /// A number that is the same in all registries.
    Guid(Uuid),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "schema id {id}"),
            Self::Guid(guid) => write!(f, "schema GUID {guid}"),
        }
    }
}

/// Most bytes of the places of a message: more are no schema's.
const MAX_INDEXES: u64 = 32;

/// The header `name` of a record, [`VALUE_HEADER`] or [`KEY_HEADER`], where it has one.
pub fn header<'h>(headers: &'h [Header], name: &str) -> Option<&'h [u8]> {
    let named = headers.iter().rfind(|header| header.name == name.as_bytes());
    named.and_then(|header| header.value.as_deref())
}

/// Takes a value apart: what names its schema, and the datum. `header` is the record's header for it, where it has one.
///
/// # Errors
///
/// Where it has no frame, in words for a message that begins with the record.
pub fn split<'a>(value: &'a [u8], header: Option<&[u8]>) -> Result<(Reference, &'a [u8]), String> {
    match header {
        None => of_value(value),
        Some(header) => match of_header(header) {
            Some((reference, [])) => Ok((reference, value)),
            _ => Err(no_header(header)),
        },
    }
}

/// Takes a value of Protobuf apart: what names its schema, which of the schema's messages it is (its number in the file,
/// then those within messages), and the message.
///
/// # Errors
///
/// As of [`split`].
pub fn split_message<'a>(
    value: &'a [u8],
    header: Option<&[u8]>,
) -> Result<(Reference, Vec<u32>, &'a [u8]), String> {
    let Some(header) = header else {
        let (reference, rest) = of_value(value)?;
        let (indexes, message) = indexes(rest)?;
        return Ok((reference, indexes, message));
    };
    match of_header(header) {
        Some((reference, [])) => Ok((reference, Vec::new(), value)),
        Some((reference, rest)) => match indexes(rest)? {
            (indexes, []) => Ok((reference, indexes, value)),
            _ => Err(no_header(header)),
        },
        None => Err(no_header(header)),
    }
}

fn of_value(value: &[u8]) -> Result<(Reference, &[u8]), String> {
    match value {
        [0, a, b, c, d, datum @ ..] => {
            Ok((Reference::Id(u32::from_be_bytes([*a, *b, *c, *d])), datum))
        }
        [0, ..] | [] => Err(format!(
            "has {} bytes, fewer than the {FRAME} of Confluent's frame (a zero and a schema's id)",
            value.len()
        )),
        [b'{' | b'[' | b' ' | b'"', ..] => Err(
            "begins as JSON does, not with Confluent's frame (a zero and a schema's id): it was written \
             without a schema registry"
                .to_owned(),
        ),
        _ => Err("does not begin with Confluent's frame (a zero and a schema's id): it was written without \
                  a schema registry, or for another one"
            .to_owned()),
    }
}

/// What a header names, and what follows in it.
fn of_header(header: &[u8]) -> Option<(Reference, &[u8])> {
    match header {
        [0, rest @ ..] => rest
            .split_first_chunk()
            .map(|(id, rest)| (Reference::Id(u32::from_be_bytes(*id)), rest)),
        [1, rest @ ..] => {
            let (guid, rest) = rest.split_first_chunk()?;
            Some((Reference::Guid(Uuid::from_bytes(*guid)), rest))
        }
        _ => None,
    }
}

fn no_header(header: &[u8]) -> String {
    let size = header.len();
    format!(
        "has a header for its schema of {size} bytes that is neither 1 and a GUID nor 0 and an id"
    )
}

/// The places of a message, and what follows: how many they are and each as a zigzag varint; a zero alone is the first.
fn indexes(bytes: &[u8]) -> Result<(Vec<u32>, &[u8]), String> {
    let wrong = || {
        "has no message's number behind its schema's id, as Confluent's serialisers of Protobuf write it: its producer \
         is another one, or an old one (use.deprecated.format)"
            .to_owned()
    };
    let mut rest = bytes;
    let count = number(&mut rest).filter(|count| *count <= MAX_INDEXES).ok_or_else(wrong)?;
    let indexes: Option<Vec<u32>> =
        (0..count).map(|_| number(&mut rest).and_then(|index| u32::try_from(index).ok())).collect();
    let indexes = indexes.ok_or_else(wrong)?;
    // The first message has two forms.
    Ok((if indexes == [0] { Vec::new() } else { indexes }, rest))
}

/// A zigzag varint that is not negative.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for place in 0..5 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << (7 * place);
        if *byte < 0x80 {
            return (number & 1 == 0).then_some(number >> 1);
        }
    }
    None
}

/// Begins a value that is written by the schema `id`.
pub fn begin(id: u32, out: &mut Vec<u8>) {
    out.push(0);
    out.extend_from_slice(&id.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_schema() {
        let guid: Vec<u8> = (0..16).collect();
        let known = Reference::Guid(Uuid::from_slice(&guid).unwrap());
        let header = [&[1][..], &guid].concat();
        let mut written = Vec::new();
        begin(0x0102_0304, &mut written);
        assert_eq!(split(&written, None), Ok((Reference::Id(0x0102_0304), &[][..])));
        for (value, header, expect) in [
            (&b"\0\0\0\0\x07ab"[..], None, Ok((Reference::Id(7), &b"ab"[..]))),
            (b"\0\xff\xff\xff\xff", None, Ok((Reference::Id(u32::MAX), b""))),
            (b"ab", Some(&header[..]), Ok((known, b"ab"))),
            (b"", Some(b"\0\0\0\0\x07"), Ok((Reference::Id(7), b""))),
            (b"", None, Err("has 0 bytes, fewer than the 5")),
            (b"\0\0\0\0", None, Err("has 4 bytes, fewer than the 5")),
            (b"{\"a\":1}", None, Err("begins as JSON does")),
            (b"Obj\x01", None, Err("does not begin with Confluent's frame")),
            (b"\0\0\0\0\x07", Some(b""), Err("a header for its schema of 0 bytes")),
            (b"\0\0\0\0\x07", Some(b"\0\0"), Err("of 2 bytes")),
            (b"\0\0\0\0\x07", Some(b"\x01\0\0\0\0"), Err("of 5 bytes")),
            (b"\0\0\0\0\x07", Some(b"\x02\0\0\0\0"), Err("of 5 bytes")),
        ] {
            let split = split(value, header);
            match (&split, expect) {
                (Ok(split), Ok(expect)) => assert_eq!(*split, expect),
                (Err(said), Err(expect)) => assert!(said.contains(expect), "{said}"),
                _ => panic!("{value:?}: {split:?}"),
            }
        }
    }

    #[test]
    fn a_value_of_protobuf_names_its_message_too() {
        let header = [&[1][..], &[7; 16], b"\x02\x04"].concat();
        for (value, header, expect) in [
            (&b"\0\0\0\0\x07\0ab"[..], None, Ok((&[][..], &b"ab"[..]))),
            (b"\0\0\0\0\x07\x02\0ab", None, Ok((&[], b"ab"))),
            (b"\0\0\0\0\x07\x04\x02\x80\x01ab", None, Ok((&[1, 64], b"ab"))),
            (b"\0\0\0\0\x07\0", None, Ok((&[], b""))),
            (b"ab", Some(&header[..]), Ok((&[2], b"ab"))),
            (b"ab", Some(&header[..17]), Ok((&[], b"ab"))),
            (b"ab", Some(&header[..18]), Err("has no message's number")),
            (b"\0\0\0\0\x07", None, Err("has no message's number")),
            (b"\0\0\0\0\x07\x04\x02", None, Err("has no message's number")),
            (b"\0\0\0\0\x07\x01\x02", None, Err("has no message's number")),
            (b"\0\0\0\0\x07\xff\xff\xff\xff\xff\xff", None, Err("has no message's number")),
            (b"\0\0\0\0", None, Err("has 4 bytes, fewer than the 5")),
        ] {
            match (split_message(value, header), expect) {
                (Ok((_, indexes, rest)), Ok(expect)) => assert_eq!((&*indexes, rest), expect),
                (Err(said), Err(expect)) => assert!(said.contains(expect), "{said}"),
                (said, _) => panic!("{value:?}: {said:?}"),
            }
        }
    }
}

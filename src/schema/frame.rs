//! Which schema a record was written by: Confluent's frame before the value, or its header beside it. Pure.
//!
//! | form | bytes |
//! |---|---|
//! | before the value | 0, the id in 4 bytes, then the datum |
//! | header `__value_schema_id` or `__key_schema_id` | 1, the schema's GUID in 16 bytes; or 0 and the id. The value is the datum alone |

use std::fmt;

use uuid::Uuid;

/// The header of a record that names the schema of its value.
pub const VALUE_HEADER: &str = "__value_schema_id";

/// The header of a record that names the schema of its key.
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

/// Takes a value apart: what names its schema, and the datum. `header` is the record's header for it, where it has one.
///
/// # Errors
///
/// Where it has no frame, in words for a message that begins with the record.
pub fn split<'a>(value: &'a [u8], header: Option<&[u8]>) -> Result<(Reference, &'a [u8]), String> {
    if let Some(header) = header {
        return of_header(header).map(|reference| (reference, value));
    }
    match value {
        [0, a, b, c, d, datum @ ..] => Ok((Reference::Id(u32::from_be_bytes([*a, *b, *c, *d])), datum)),
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

fn of_header(header: &[u8]) -> Result<Reference, String> {
    match header {
        [0, id @ ..] => id.try_into().ok().map(|id| Reference::Id(u32::from_be_bytes(id))),
        [1, guid @ ..] => Uuid::from_slice(guid).ok().map(Reference::Guid),
        _ => None,
    }
    .ok_or_else(|| {
        let size = header.len();
        format!("has a header for its schema of {size} bytes that is neither 1 and a GUID nor 0 and an id")
    })
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
}

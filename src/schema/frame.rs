//! Which schema a record was written by: Confluent's frame before the value, or Confluent's or Apicurio's header beside it.
//! Pure.
//!
//! | form | bytes |
//! |---|---|
//! | before the value | 0 and the id in 4 bytes, or 1 and the schema's GUID in 16; then the datum; of Protobuf between them which message it is |
//! | header `__value_schema_id` | the same, with which message it is of Protobuf. The value is the datum alone |
//! | header `apicurio.value.contentId` | the id in 8 bytes, of Protobuf the message's name in `apicurio.protobuf.type`. The value is the datum alone |
//!
//! Which message it is: how many places, and the places, as zigzag varints; or Apicurio's `Ref`, a message with the name,
//! behind its length.
//!
//! An id is one that the registry's Confluent API knows: Apicurio's content id. Its global ids are others, and an id in 8
//! bytes before a value may be one of the two: without [`Ids`] they are refused, since a schema that is not the writer's may
//! fit by chance.

use std::fmt;

use serde::{Deserialize, Serialize};
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

/// Which of a record's two parts is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Its value.
    Value,
    /// Its key.
    Key,
}

/// What Apicurio's serdes write as an id, where whoever configures says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ids {
    /// Content ids.
    Content,
    /// Global ids, which the registry's Confluent API must take for its own (`apicurio.ccompat.legacy-id-mode.enabled`).
    Global,
}

/// What a record's headers say of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<'h> {
    /// Nothing; but an id before the value may have 8 bytes.
    Before,
    /// Confluent's header.
    Confluent(&'h [u8]),
    /// Apicurio's: an id, and of Protobuf the message's name.
    Apicurio(u32, Option<&'h str>),
}

/// Which of a schema's messages a value of Protobuf is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Which {
    /// The one at its number in the file, then within messages; nothing of the first.
    At(Vec<u32>),
    /// The one of that name.
    Named(String),
}

/// What a record's headers say of the schema of a part, where they do.
///
/// # Errors
///
/// Headers of Apicurio's that name no schema here, in words for a message that begins with the record.
pub fn said(headers: &[Header], of: Of, ids: Option<Ids>) -> Result<Option<Said<'_>>, String> {
    let (name, apicurio) = match of {
        Of::Value => (VALUE_HEADER, "apicurio.value."),
        Of::Key => (KEY_HEADER, "apicurio.key."),
    };
    let mut ours = None;
    for header in headers.iter().rev() {
        let Some(value) = header.value.as_deref() else { continue };
        if header.name == name.as_bytes() {
            return Ok(Some(Said::Confluent(value)));
        }
        let is_ours = header.name.starts_with(apicurio.as_bytes());
        ours = ours.or_else(|| is_ours.then_some(value));
    }
    let said = if ours.is_none() { None } else { of_apicurio(headers, apicurio, of, ids)? };
    Ok(said.or_else(|| ids.map(|_| Said::Before)))
}

/// What headers of Apicurio's say.
fn of_apicurio<'h>(
    headers: &'h [Header],
    prefix: &str,
    of: Of,
    ids: Option<Ids>,
) -> Result<Option<Said<'h>>, String> {
    let named = |name: &str| {
        let header = headers.iter().rfind(|header| header.name == name.as_bytes());
        header.and_then(|header| header.value.as_deref())
    };
    let own = |name: &str| named(&format!("{prefix}{name}"));
    if own("encoding").is_some_and(|encoding| encoding.eq_ignore_ascii_case(b"json")) {
        return Err(format!(
            "is Avro in JSON, as its header {prefix}encoding says: set apicurio.registry.avro.encoding to BINARY"
        ));
    }
    let (name, other, word) = match ids {
        None | Some(Ids::Content) => ("contentId", "globalId", "global"),
        Some(Ids::Global) => ("globalId", "contentId", "content"),
    };
    if let Some(id) = own(name) {
        let id = id.try_into().ok().map(u64::from_be_bytes).and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| {
            format!("has a header {prefix}{name} that is no id in 8 bytes, up to {}", u32::MAX)
        })?;
        let message = named("apicurio.protobuf.type").filter(|_| of == Of::Value);
        let message = message.and_then(|name| std::str::from_utf8(name).ok());
        return Ok(Some(Said::Apicurio(id, message)));
    }
    if own(other).is_some() {
        return Err(format!(
            "names its schema by the header {prefix}{other}: set schema_registry.ids to {word} where the registry's \
             Confluent API takes {word} ids, or apicurio.registry.use-id to {name} where it is written"
        ));
    }
    let without = ["contentHash", "artifactId"].into_iter().find(|name| own(name).is_some());
    without.map_or(Ok(None), |other| {
        Err(format!(
            "names its schema by the header {prefix}{other}, which is no id: set apicurio.registry.use-id to {name} where \
             it is written"
        ))
    })
}

/// Takes a value apart: what names its schema, and the datum; `said` by headers or not.
///
/// # Errors
///
/// Where it has no frame, in words for a message that begins with the record.
pub fn split<'a>(value: &'a [u8], said: Option<Said<'_>>) -> Result<(Reference, &'a [u8]), String> {
    match said {
        None => of_value(value, false),
        Some(Said::Before) => of_value(value, true),
        Some(Said::Apicurio(id, _)) => Ok((Reference::Id(id), value)),
        Some(Said::Confluent(header)) => match of_header(header) {
            Some((reference, [])) => Ok((reference, value)),
            _ => Err(no_header(header)),
        },
    }
}

/// Takes a value of Protobuf apart: what names its schema, which of the schema's messages it is, and the message.
///
/// # Errors
///
/// As of [`split`].
pub fn split_message<'a>(
    value: &'a [u8],
    said: Option<Said<'_>>,
) -> Result<(Reference, Which, &'a [u8]), String> {
    let header = match said {
        None | Some(Said::Before) => {
            let (reference, rest) = of_value(value, said.is_some())?;
            let (which, message) = which(rest)?;
            return Ok((reference, which, message));
        }
        Some(Said::Apicurio(id, name)) => {
            let first = || Which::At(Vec::new());
            let which = name.map_or_else(first, |name| Which::Named(name.to_owned()));
            return Ok((Reference::Id(id), which, value));
        }
        Some(Said::Confluent(header)) => header,
    };
    match of_header(header) {
        Some((reference, [])) => Ok((reference, Which::At(Vec::new()), value)),
        Some((reference, rest)) => match indexes(rest)? {
            (indexes, []) => Ok((reference, Which::At(indexes), value)),
            _ => Err(no_header(header)),
        },
        None => Err(no_header(header)),
    }
}

/// What names the schema before a value; `long` where an id may have 8 bytes. One of 4 is never 0.
fn of_value(value: &[u8], long: bool) -> Result<(Reference, &[u8]), String> {
    match value {
        [0, 0, 0, 0, 0, a, b, c, d, datum @ ..] if long => {
            Ok((Reference::Id(u32::from_be_bytes([*a, *b, *c, *d])), datum))
        }
        [0, 0, 0, 0, 0, _, _, _, _, ..] => Err(
            "has an id in 8 bytes, as Apicurio's Legacy8ByteIdHandler writes it, and whether that is a global or a content \
             id is not said: set schema_registry.ids to content or global, or apicurio.registry.id-handler to \
             Default4ByteIdHandler and apicurio.registry.use-id to contentId where it is written"
                .to_owned(),
        ),
        [0, a, b, c, d, datum @ ..] => {
            Ok((Reference::Id(u32::from_be_bytes([*a, *b, *c, *d])), datum))
        }
        [1, rest @ ..] if 16 <= rest.len() => {
            of_header(value).ok_or_else(|| "has no GUID behind its 1".to_owned())
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

/// Which message follows.
fn which(bytes: &[u8]) -> Result<(Which, &[u8]), String> {
    if let Some((name, message)) = type_ref(bytes) {
        return Ok((Which::Named(name.to_owned()), message));
    }
    indexes(bytes).map(|(indexes, message)| (Which::At(indexes), message))
}

/// The name in Apicurio's `Ref`, and what follows: its length, and its first field, a text. Places of a message do not look so,
/// or only those of one that is the sixth of its file.
fn type_ref(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let [length, 0x0a, size, rest @ ..] = bytes else { return None };
    if *length < 3 || *length != size.checked_add(2)? || 0x80 <= *length {
        return None;
    }
    let (name, message) = rest.split_at_checked(usize::from(*size))?;
    let name = std::str::from_utf8(name).ok()?;
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_name = !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(letter);
    is_name.then_some((name, message))
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

    fn header(name: &str, value: Option<&[u8]>) -> Header {
        Header { name: name.as_bytes().to_vec(), value: value.map(<[u8]>::to_vec) }
    }

    /// By the layouts of Apicurio 3 (`DefaultHeadersHandler`, `Legacy8ByteIdHandler`, `ProtobufSerializer`, `AvroSerdeHeaders`).
    #[test]
    fn apicurios_headers_name_a_schema() {
        let seven: &[u8] = &7_u64.to_be_bytes();
        let content = ("apicurio.value.contentId", seven);
        for (headers, of, expect) in [
            (&[][..], Of::Value, Ok(None)),
            (&[content], Of::Value, Ok(Some(Said::Apicurio(7, None)))),
            (&[content], Of::Key, Ok(None)),
            (&[("apicurio.key.contentId", seven)], Of::Key, Ok(Some(Said::Apicurio(7, None)))),
            (&[("apicurio.key.globalId", seven)], Of::Key, Err("apicurio.key.globalId, which")),
            (
                &[content, ("apicurio.protobuf.type", b"Row"), ("apicurio.value.msgType", b"a.B")],
                Of::Value,
                Ok(Some(Said::Apicurio(7, Some("Row")))),
            ),
            (
                &[content, ("apicurio.value.encoding", b"BINARY")],
                Of::Value,
                Ok(Some(Said::Apicurio(7, None))),
            ),
            (&[content, ("apicurio.value.encoding", b"JSON")], Of::Value, Err("Avro in JSON")),
            (
                &[("apicurio.value.globalId", seven)],
                Of::Value,
                Err("set schema_registry.ids to global where"),
            ),
            (
                &[("apicurio.value.artifactId", b"t-value")],
                Of::Value,
                Err("apicurio.value.artifactId, which"),
            ),
            (&[("apicurio.value.contentId", b"\0\0\0\x07")], Of::Value, Err("no id in 8 bytes")),
            (&[("apicurio.value.contentId", &[0xff; 8])], Of::Value, Err("no id in 8 bytes")),
            // What Confluent's says comes first.
            (
                &[(VALUE_HEADER, b"\0\0\0\0\x09"), content],
                Of::Value,
                Ok(Some(Said::Confluent(b"\0\0\0\0\x09"))),
            ),
            (&[("apicurio.value.schemaType", b"AVRO")], Of::Value, Ok(None)),
        ] {
            let headers: Vec<Header> =
                headers.iter().map(|(name, value)| header(name, Some(*value))).collect();
            match (said(&headers, of, None), expect) {
                (Ok(said), Ok(expect)) => assert_eq!(said, expect),
                (Err(said), Err(part)) => assert!(said.contains(part), "{said}"),
                (said, _) => panic!("{headers:?}: {said:?}"),
            }
        }
        assert_eq!(said(&[header(VALUE_HEADER, None)], Of::Value, None), Ok(None));
        let (global, content) =
            (header("apicurio.value.globalId", Some(seven)), header(content.0, Some(seven)));
        let seen = |ids, headers: &[&Header]| {
            let headers: Vec<Header> = headers.iter().map(|header| (*header).clone()).collect();
            let said = said(&headers, Of::Value, Some(ids));
            said.map(|said| format!("{said:?}"))
        };
        for (ids, headers, expect) in [
            (Ids::Content, &[&content, &global][..], Ok("Some(Apicurio(7, None))")),
            (Ids::Global, &[&content, &global], Ok("Some(Apicurio(7, None))")),
            (Ids::Content, &[&global], Err("set schema_registry.ids to global")),
            (Ids::Global, &[&content], Err("set schema_registry.ids to content")),
            (Ids::Global, &[], Ok("Some(Before)")),
        ] {
            match (seen(ids, headers), expect) {
                (Ok(seen), Ok(expect)) => assert_eq!(seen, expect),
                (Err(seen), Err(part)) => assert!(seen.contains(part), "{seen}"),
                (seen, _) => panic!("{ids:?}: {seen:?}"),
            }
        }
        let long: &[u8] = b"\0\0\0\0\0\0\0\0\x07ab";
        assert_eq!(split(long, Some(Said::Before)), Ok((Reference::Id(7), &b"ab"[..])));
        assert_eq!(
            split(b"\0\0\0\0\x07ab", Some(Said::Before)),
            Ok((Reference::Id(7), &b"ab"[..]))
        );
        assert_eq!(split(b"ab", Some(Said::Apicurio(7, None))), Ok((Reference::Id(7), &b"ab"[..])));
    }

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
            // As Confluent's clients read it, though none writes it.
            (
                b"\x01\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0fab",
                None,
                Ok((known, b"ab")),
            ),
            (b"\x01\0\x01", None, Err("does not begin with Confluent's frame")),
            (b"\0\0\0\0\0\0\0\0\x07ab", None, Err("has an id in 8 bytes, as Apicurio's")),
            (b"\0\0\0\0\0ab", None, Ok((Reference::Id(0), b"ab"))),
        ] {
            let split = split(value, header.map(Said::Confluent));
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
            match (split_message(value, header.map(Said::Confluent)), expect) {
                (Ok((_, Which::At(indexes), rest)), Ok(expect)) => {
                    assert_eq!((&*indexes, rest), expect)
                }
                (Err(said), Err(expect)) => assert!(said.contains(expect), "{said}"),
                (said, _) => panic!("{value:?}: {said:?}"),
            }
        }
        // Apicurio's.
        let named = |name: &str| Which::Named(name.to_owned());
        let id = Reference::Id(7);
        for (value, expect) in [
            (&b"\0\0\0\0\x07\x05\x0a\x03Rowab"[..], Some((named("Row"), &b"ab"[..]))),
            (b"\0\0\0\0\x07\x04\x0a\x02R_ab", Some((named("R_"), b"ab"))),
            (b"\0\0\0\0\x07\x04\x0a\x02\x10\0", Some((Which::At(vec![5, 1]), b"\x10\0"))),
            (b"\0\0\0\0\x07\x05\x0a\x03Ro", None),
            (b"\0\0\0\0\x07\x05\x0a\x031ow", None),
        ] {
            let split = split_message(value, None).ok().map(|(_, which, rest)| (which, rest));
            assert_eq!(split, expect, "{value:?}");
        }
        let said = |name| Some(Said::Apicurio(7, name));
        assert_eq!(split_message(b"ab", said(Some("Row"))), Ok((id, named("Row"), &b"ab"[..])));
        assert_eq!(split_message(b"ab", said(None)), Ok((id, Which::At(Vec::new()), &b"ab"[..])));
    }
}

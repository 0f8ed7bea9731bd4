//! `MessagePack` and CBOR: maps whose parts bear their types and lengths themselves. Read once from left to right; text and
//! bytes are borrowed from the record.
//!
//! ```text
//!  bytes ─► Heads (msgpack, cbor): what begins here ─┬─► read: the wanted fields, by the same paths as of JSON
//!                                                    └─► json: all of it as JSON, for what goes along
//! ```
//!
//! # Invariants
//!
//! 1. A value is read to its end and not beyond: every strict prefix is an error, and so are bytes behind it.
//! 2. Whether it is good does not depend on what is wanted: texts are valid UTF-8 wherever they stand.
//! 3. Work and memory are bounded by its bytes, whatever lengths and counts it claims; nesting by [`MAX_DEPTH`].

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::wanted::{Branch, Member, Wanted, Wants};
use super::{Read, write};
use crate::field::Value;

mod cbor;
mod msgpack;
#[cfg(test)]
mod tests;

pub(super) use cbor::Cbor;
pub(super) use msgpack::MessagePack;

/// Deepest nesting.
const MAX_DEPTH: usize = 128;

/// What is given, or what is wrong, in words for a message that begins with the record.
type Given<T> = Result<T, String>;

/// What begins at a place.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Head<'a> {
    Null,
    Bool(bool),
    Int(i128),
    Single(f32),
    Double(f64),
    Decimal(Box<str>),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    /// So many elements; `None`: up to an end.
    List(Option<u64>),
    /// So many keys with their values.
    Map(Option<u64>),
    /// The end of a list or a map that does not say how long it is.
    End,
    /// Something of an application's own type.
    Other(i8, &'a [u8]),
}

/// A format, as a cursor over a record.
pub(super) trait Heads<'a> {
    /// What it is called.
    const NAME: &'static str;

    /// A cursor at the beginning.
    fn new(bytes: &'a [u8]) -> Self;

    /// What begins here; of a list or a map its parts follow.
    fn head(&mut self) -> Given<Head<'a>>;

    /// How many bytes are left.
    fn left(&self) -> usize;
}

/// Reads the fields `wanted` of a map.
///
/// # Errors
///
/// What is wrong with the bytes, or what they are instead of a map.
pub(super) fn read<'a, H: Heads<'a>>(bytes: &'a [u8], wanted: &Wanted) -> Given<Read<'a>> {
    let mut reader =
        Reader { heads: H::new(bytes), values: vec![None; wanted.len()], unknown: None, depth: 0 };
    let head = reader.heads.head()?;
    let Head::Map(count) = head else {
        let kind = head.value("").map_or("something", |value| value.kind());
        return Err(format!("is {kind} of {} where a map is wanted", H::NAME));
    };
    reader.map(count, wanted.root(), true)?;
    ended(&reader.heads)?;
    Ok(Read { values: reader.values, unknown: reader.unknown })
}

/// Writes a value as JSON text: whole numbers with all digits, bytes as base64, a moment of `MessagePack`'s in milliseconds. A
/// NaN or an infinity becomes null, a whole number as a key its digits. Of what is not `wanted` nothing is written, but null
/// for an element of a list.
///
/// # Errors
///
/// What is wrong with the bytes, or has no form in JSON of what is written.
pub(super) fn json<'a, H: Heads<'a>>(bytes: &'a [u8], wanted: Option<&Wanted>) -> Given<String> {
    let (mut heads, mut out) = (H::new(bytes), Vec::new());
    let head = heads.head()?;
    let wants = wanted.map_or(Wants::All, |wanted| Wants::Of(wanted.root()));
    write_json(&mut heads, head, wants, 0, &mut out)?;
    ended(&heads)?;
    String::from_utf8(out).map_err(|error| error.to_string())
}

fn ended<'a>(heads: &impl Heads<'a>) -> Given<()> {
    match heads.left() {
        0 => Ok(()),
        left => Err(format!("has {left} bytes behind its end")),
    }
}

impl<'a> Head<'a> {
    /// The value; of a list or a map only that it is one.
    fn value(&self, name: &str) -> Given<Value<'a>> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Bool(is) => Value::Bool(*is),
            Self::Int(number) => Value::Int(*number),
            Self::Single(number) => Value::Float(f64::from(*number)),
            Self::Double(number) => Value::Float(*number),
            Self::Decimal(digits) => Value::Decimal(digits.clone()),
            Self::Text(text) => Value::Text(text.clone()),
            Self::Bytes(bytes) => Value::Bytes(bytes.clone()),
            Self::List(_) => Value::List,
            Self::Map(_) => Value::Map,
            Self::End => return Err(no_end()),
            Self::Other(kind, data) => match msgpack::milliseconds(*kind, data) {
                Some(moment) => Value::Int(moment),
                None => {
                    return Err(format!(
                        "field {name:?} is of the extension type {kind}, which is not read: write a number, a text or bytes"
                    ));
                }
            },
        })
    }

    /// What it is as the name of a member.
    fn name(&self) -> Option<Cow<'a, str>> {
        if let Self::Text(text) = self {
            return Some(text.clone());
        }
        if let Self::Int(number) = self { Some(number.to_string().into()) } else { None }
    }
}

fn no_end() -> String {
    "ends a list or a map that has not begun, or within a key and its value".to_owned()
}

/// What is read of a record.
struct Reader<'a, H> {
    heads: H,
    values: Vec<Option<Value<'a>>>,
    unknown: Option<Cow<'a, str>>,
    /// How deep it is nested here.
    depth: usize,
}

impl<'a, H: Heads<'a>> Reader<'a, H> {
    /// The members of a map; `top` is the record's own.
    fn map(&mut self, mut count: Option<u64>, branch: &Branch, top: bool) -> Given<()> {
        let mut next = 0;
        self.depth = deeper(self.depth)?;
        while let Some(key) = part(&mut self.heads, &mut count)? {
            let name = key.name();
            self.skip(&key)?;
            let value = self.heads.head()?;
            let member = name.as_deref().and_then(|name| branch.find(name, &mut next));
            if let Some(member) = member {
                self.keep(member, &value)?;
            } else {
                if top && self.unknown.is_none() {
                    self.unknown = Some(name.unwrap_or(Cow::Borrowed("a key that is no text")));
                }
                self.skip(&value)?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn skip(&mut self, head: &Head<'a>) -> Given<()> {
        skip(&mut self.heads, head, self.depth)
    }

    /// A value that is wanted, or that something is wanted of. As deep as the paths of what is wanted.
    fn keep(&mut self, member: &Member, head: &Head<'a>) -> Given<()> {
        // The last one of a name counts, with all that is in it.
        super::json::forget(&mut self.values, &member.below);
        if let [places @ .., last] = &*member.places {
            let value = head.value(member.name())?;
            for place in places {
                self.values[*place] = Some(value.clone());
            }
            self.values[*last] = Some(value);
        }
        if member.below.is_empty() {
            return self.skip(head);
        }
        if let Head::Map(count) = *head {
            return self.map(count, &member.below, false);
        }
        if let Head::List(count) = *head {
            return self.list(count, &member.below);
        }
        self.skip(head)
    }

    fn list(&mut self, mut count: Option<u64>, branch: &Branch) -> Given<()> {
        let (mut next, mut number) = (0, 0);
        self.depth = deeper(self.depth)?;
        while let Some(element) = part(&mut self.heads, &mut count)? {
            match branch.element(number, &mut next) {
                Some(member) => self.keep(member, &element)?,
                None => self.skip(&element)?,
            }
            number += 1;
        }
        self.depth -= 1;
        Ok(())
    }
}

/// The next part of a list, or key of a map, of which `left` are left; `None` behind the last.
fn part<'a>(heads: &mut impl Heads<'a>, left: &mut Option<u64>) -> Given<Option<Head<'a>>> {
    match left {
        Some(0) => Ok(None),
        Some(count) => {
            *count -= 1;
            Ok(Some(heads.head()?))
        }
        None => Ok(Some(heads.head()?).filter(|head| *head != Head::End)),
    }
}

/// A list or a map that is passed over.
struct Open {
    left: Option<u64>,
    /// Of a map whether a value comes next; nothing of a list.
    value: Option<bool>,
}

/// Passes over what follows a head at a depth.
fn skip<'a>(heads: &mut impl Heads<'a>, head: &Head<'a>, depth: usize) -> Given<()> {
    let mut open = Vec::new();
    enter(head, depth, &mut open)?;
    while let Some(Open { left, value }) = open.last_mut() {
        if *left == Some(0) && *value != Some(true) {
            open.pop();
            continue;
        }
        let head = heads.head()?;
        if head == Head::End {
            if left.is_some() || *value == Some(true) {
                return Err(no_end());
            }
            open.pop();
            continue;
        }
        // A key and its value are one.
        if *value != Some(true) {
            *left = left.map(|left| left - 1);
        }
        *value = value.map(|value| !value);
        enter(&head, depth, &mut open)?;
    }
    Ok(())
}

fn enter(head: &Head<'_>, depth: usize, open: &mut Vec<Open>) -> Given<()> {
    let (left, value) = match head {
        Head::List(count) => (*count, None),
        Head::Map(count) => (*count, Some(false)),
        Head::End => return Err(no_end()),
        Head::Null
        | Head::Bool(_)
        | Head::Int(_)
        | Head::Single(_)
        | Head::Double(_)
        | Head::Decimal(_)
        | Head::Text(_)
        | Head::Bytes(_)
        | Head::Other(..) => return Ok(()),
    };
    deeper(depth + open.len())?;
    open.push(Open { left, value });
    Ok(())
}

fn deeper(depth: usize) -> Given<usize> {
    if depth < MAX_DEPTH {
        Ok(depth + 1)
    } else {
        Err(format!("is nested deeper than {MAX_DEPTH} levels"))
    }
}

/// Writes of a value what is wanted.
fn write_json<'a>(
    heads: &mut impl Heads<'a>,
    head: Head<'a>,
    wants: Wants<'_>,
    depth: usize,
    out: &mut Vec<u8>,
) -> Given<()> {
    let mut next = 0;
    match head {
        Head::Map(mut count) => {
            let (depth, mut before) = (deeper(depth)?, b'{');
            while let Some(key) = part(heads, &mut count)? {
                let name = key.name();
                if matches!(wants, Wants::All) && name.is_none() {
                    return Err("has a key in a map that is neither text nor a whole number, which JSON cannot say".to_owned());
                }
                skip(heads, &key, depth)?;
                let value = heads.head()?;
                let found = name.and_then(|name| {
                    Some((wants.of_part(|branch| branch.find(&name, &mut next))?, name))
                });
                let Some((wants, name)) = found else {
                    skip(heads, &value, depth)?;
                    continue;
                };
                out.push(std::mem::replace(&mut before, b','));
                write::json(name, out);
                out.push(b':');
                write_json(heads, value, wants, depth, out)?;
            }
            close(before, *b"{}", out);
        }
        Head::List(mut count) => {
            let (depth, mut before) = (deeper(depth)?, b'[');
            let mut number = 0;
            while let Some(element) = part(heads, &mut count)? {
                out.push(std::mem::replace(&mut before, b','));
                match wants.of_part(|branch| branch.element(number, &mut next)) {
                    Some(wants) => write_json(heads, element, wants, depth, out)?,
                    None => {
                        skip(heads, &element, depth)?;
                        out.extend_from_slice(b"null");
                    }
                }
                number += 1;
            }
            close(before, *b"[]", out);
        }
        Head::Null => out.extend_from_slice(b"null"),
        Head::Bool(is) => write::json(is, out),
        Head::Int(number) => out.extend_from_slice(number.to_string().as_bytes()),
        // What JSON cannot say is null.
        Head::Single(number) => write::json(number, out),
        Head::Double(number) => write::json(number, out),
        Head::Decimal(digits) => out.extend_from_slice(digits.as_bytes()),
        Head::Text(text) => write::json(text, out),
        Head::Bytes(bytes) => write::json(BASE64.encode(bytes), out),
        Head::End => return Err(no_end()),
        Head::Other(kind, data) => match msgpack::milliseconds(kind, data) {
            Some(moment) => out.extend_from_slice(moment.to_string().as_bytes()),
            None => write::json(BASE64.encode(data), out),
        },
    }
    Ok(())
}

/// Ends what `next` was pushed for; opens it before where nothing was.
fn close(next: u8, brackets: [u8; 2], out: &mut Vec<u8>) {
    if next == brackets[0] {
        out.push(brackets[0]);
    }
    out.push(brackets[1]);
}

/// What is left of a record's bytes.
#[derive(Debug, Clone, Copy)]
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn byte(&mut self) -> Given<u8> {
        let (byte, rest) = self.0.split_first().ok_or("ends before its parts do")?;
        self.0 = rest;
        Ok(*byte)
    }

    fn array<const N: usize>(&mut self) -> Given<[u8; N]> {
        let left = self.0.len();
        let (array, rest) = self
            .0
            .split_first_chunk()
            .ok_or_else(|| format!("wants {N} bytes for a number, and {left} are left"))?;
        self.0 = rest;
        Ok(*array)
    }

    fn take(&mut self, size: u64) -> Given<&'a [u8]> {
        let left = self.0.len();
        let taken = usize::try_from(size).ok().and_then(|size| self.0.split_at_checked(size));
        let (taken, rest) =
            taken.ok_or_else(|| format!("says {size} bytes, and {left} are left"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn text(&mut self, size: u64) -> Given<&'a str> {
        std::str::from_utf8(self.take(size)?).map_err(|error| {
            let at = error.valid_up_to();
            format!(
                "has a text that is not valid UTF-8 from its byte {at} on: write bytes as such, not as a text"
            )
        })
    }
}

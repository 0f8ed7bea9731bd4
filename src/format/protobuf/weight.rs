//! How much memory a message takes once it is built of owned values, found on the wire before it is built.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, Value};

use super::wire::{Form, Found, Read, Wire, no_group};

/// What a value takes, and its place among a message's fields or a map's entries.
const FIELD: usize = size_of::<Value>() + 64;

/// What an element of a list takes.
const ELEMENT: usize = size_of::<Value>();

/// Deepest nesting that is looked at: the library goes no deeper.
pub(super) const MAX_DEPTH: usize = 100;

/// Whether a message `of` these bytes takes at most so much. Of bytes that are no such message nothing is said: who builds
/// it finds out.
pub(super) fn is_at_most(most: usize, of: &MessageDescriptor, bytes: &[u8]) -> bool {
    let mut left = Left(most);
    !matches!(left.message(Some(of), &mut Wire::new(bytes), None, 0), Err(Ended::Spent))
}

/// What is left to be spent.
struct Left(usize);

/// Why it is no longer looked at.
enum Ended {
    Spent,
    Wrong,
}

fn wrong<T>(read: Read<T>) -> Result<T, Ended> {
    read.map_err(|_rule| Ended::Wrong)
}

impl Left {
    fn spend(&mut self, bytes: usize) -> Result<(), Ended> {
        self.0 = self.0.checked_sub(bytes).ok_or(Ended::Spent)?;
        Ok(())
    }

    /// A message, or a group up to its end; `of` nothing that is known.
    fn message(
        &mut self,
        of: Option<&MessageDescriptor>,
        wire: &mut Wire<'_>,
        group: Option<u32>,
        depth: usize,
    ) -> Result<(), Ended> {
        if MAX_DEPTH < depth {
            return Err(Ended::Wrong);
        }
        while !wire.is_empty() {
            let (number, found) = wrong(wire.field())?;
            let field = of.and_then(|of| of.get_field(number));
            let inner = field.as_ref().map(FieldDescriptor::kind);
            let inner = inner.as_ref().and_then(Kind::as_message);
            match found {
                Found::End if group == Some(number) => return Ok(()),
                Found::End => return wrong(Err(no_group(number))),
                Found::Group => {
                    self.spend(FIELD)?;
                    self.message(inner, wire, Some(number), depth + 1)?;
                }
                Found::Bytes(bytes) => match (&field, inner) {
                    (_, Some(inner)) => {
                        self.spend(FIELD)?;
                        self.message(Some(inner), &mut Wire::new(bytes), None, depth + 1)?;
                    }
                    (Some(field), None) => self.bytes(field, bytes)?,
                    (None, None) => self.spend(FIELD.saturating_add(bytes.len()))?,
                },
                Found::Varint(_) | Found::Fixed64(_) | Found::Fixed32(_) => self.spend(FIELD)?,
            }
        }
        Ok(())
    }

    /// A text, bytes, or elements of a list that lie together.
    fn bytes(&mut self, field: &FieldDescriptor, bytes: &[u8]) -> Result<(), Ended> {
        let each = match Form::of(&field.kind()) {
            Form::Bytes | Form::Group => return self.spend(FIELD.saturating_add(bytes.len())),
            Form::Fixed64 => bytes.len() / 8,
            Form::Fixed32 => bytes.len() / 4,
            // Each ends with a byte that says so.
            Form::Varint => bytes.iter().filter(|byte| **byte < 0x80).count(),
        };
        self.spend(FIELD.saturating_add(each.saturating_mul(ELEMENT)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{schema, text};
    use super::*;
    use crate::record::FaultClass;

    const SCHEMA: &str = "syntax = \"proto3\"; message M { repeated int32 packed = 1; repeated M all = 2; map<string, M> map = 3; \
                          string s = 4; repeated double wide = 5; int32 one = 6; }";

    fn of() -> MessageDescriptor {
        schema::at(&schema::of_text(SCHEMA, &[]).unwrap(), &[]).unwrap()
    }

    /// A field of these bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut length = bytes.len();
        let mut out = vec![number << 3 | 2];
        while 0x7f < length {
            out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        out.push(u8::try_from(length).unwrap());
        out.extend_from_slice(bytes);
        out
    }

    #[test]
    fn what_would_take_too_much_is_not_built() {
        let of = of();
        let empty = field(2, &[]);
        for (name, bytes, good) in [
            ("numbers", field(1, &vec![1; 10 << 10]), true),
            ("many numbers", field(1, &vec![1; 2 << 20]), false),
            ("messages", empty.repeat(1 << 10), true),
            ("many messages", empty.repeat(1 << 20), false),
            // They are not built.
            ("unknown fields", [0x78, 1].repeat(1 << 20), true),
            ("a long text", field(4, &vec![b'a'; 4 << 20]), true),
            ("wide numbers", field(5, &vec![0; 1 << 20]), true),
            ("one number again and again", [0x30, 1].repeat(100 << 10), true),
            ("messages in messages", (0..90).fold(Vec::new(), |inner, _| field(2, &inner)), true),
            ("entries", field(3, &field(1, b"a")).repeat(1 << 20), false),
        ] {
            match text(&of, &bytes, None) {
                Ok(_) => assert!(good, "{name}"),
                Err(fault) => {
                    assert!(!good, "{name}: {fault}");
                    assert_eq!(fault.class, FaultClass::Oversized, "{name}: {fault}");
                }
            }
        }
        // What is no message is said as such.
        let fault = text(&of, b"\x0a\x05", None).unwrap_err();
        assert_eq!(fault.class, FaultClass::Undecodable);
    }
}

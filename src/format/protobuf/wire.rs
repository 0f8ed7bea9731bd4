//! Protobuf's wire format, read from left to right: never beyond the end, never more memory than there are bytes.

use prost_reflect::Kind;

/// What reading gives, or what is wrong, in words for a message that begins with the record or with a field.
pub(super) type Read<T> = Result<T, String>;

/// Deepest nesting of groups, as in Google's parsers.
const MAX_DEPTH: usize = 100;

/// What stands behind a field's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    /// A group begins: its fields are what follows.
    Group,
    /// A group ends.
    End,
    Fixed32([u8; 4]),
}

/// How a value lies on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Varint,
    Fixed64,
    Fixed32,
    /// Its length stands before it.
    Bytes,
    Group,
}

impl Form {
    /// Of a field of that kind that is no group.
    pub(super) fn of(kind: &Kind) -> Self {
        match kind {
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Self::Fixed64,
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Self::Fixed32,
            Kind::String | Kind::Bytes | Kind::Message(_) => Self::Bytes,
            Kind::Int32
            | Kind::Int64
            | Kind::Uint32
            | Kind::Uint64
            | Kind::Sint32
            | Kind::Sint64
            | Kind::Bool
            | Kind::Enum(_) => Self::Varint,
        }
    }
}

impl Found<'_> {
    /// How it lies there; `None` of a group's end.
    pub(super) fn form(self) -> Option<Form> {
        Some(match self {
            Self::Varint(_) => Form::Varint,
            Self::Fixed64(_) => Form::Fixed64,
            Self::Fixed32(_) => Form::Fixed32,
            Self::Bytes(_) => Form::Bytes,
            Self::Group => Form::Group,
            Self::End => return None,
        })
    }
}

/// What is left of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wire<'a> {
    rest: &'a [u8],
}

impl<'a> Wire<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(self) -> bool {
        self.rest.is_empty()
    }

    /// What was read from here on, where `rest` is what is left now.
    pub(super) fn up_to(self, rest: Self) -> &'a [u8] {
        &self.rest[..self.rest.len() - rest.rest.len()]
    }

    /// A whole number of at most ten bytes, seven bits in each.
    #[inline]
    pub(super) fn varint(&mut self) -> Read<u64> {
        if let [byte @ 0..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Read<u64> {
        let mut number = 0;
        for (place, byte) in self.rest.iter().take(10).enumerate() {
            if place == 9 && 1 < *byte {
                break;
            }
            number |= u64::from(byte & 0x7f) << (7 * place);
            if *byte < 0x80 {
                self.rest = &self.rest[place + 1..];
                return Ok(number);
            }
        }
        Err(if self.rest.len() < 10 {
            "ends inside a number".to_owned()
        } else {
            "has a number of more than 64 bits".to_owned()
        })
    }

    pub(super) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(format!("wants {N} bytes for a number, and {} are left", self.rest.len()));
        };
        self.rest = rest;
        Ok(*taken)
    }

    fn bytes(&mut self) -> Read<&'a [u8]> {
        let length = self.varint()?;
        let taken =
            usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let Some((taken, rest)) = taken else {
            return Err(format!("says {length} bytes, and {} are left", self.rest.len()));
        };
        self.rest = rest;
        Ok(taken)
    }

    /// The next field's number, and what is found behind it.
    #[inline]
    pub(super) fn field(&mut self) -> Read<(u32, Found<'a>)> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        let Some(number) = number else {
            return Err(format!(
                "has a field number that Protobuf does not have: {NOT_WRITTEN_BY}"
            ));
        };
        let found = match tag & 7 {
            0 => self.varint().map(Found::Varint),
            1 => self.array().map(Found::Fixed64),
            2 => self.bytes().map(Found::Bytes),
            3 => Ok(Found::Group),
            4 => Ok(Found::End),
            5 => self.array().map(Found::Fixed32),
            wire_type => Err(format!(
                "has wire type {wire_type}, which Protobuf does not have: {NOT_WRITTEN_BY}"
            )),
        };
        match found {
            Ok(found) => Ok((number, found)),
            Err(wrong) => Err(format!("field number {number} {wrong}")),
        }
    }

    /// Passes over the rest of a field that nobody wants.
    pub(super) fn pass(&mut self, number: u32, found: Found<'_>) -> Read<()> {
        match found {
            Found::Group => self.pass_group(number),
            Found::End => Err(no_group(number)),
            Found::Varint(_) | Found::Fixed64(_) | Found::Bytes(_) | Found::Fixed32(_) => Ok(()),
        }
    }

    fn pass_group(&mut self, number: u32) -> Read<()> {
        let mut open = vec![number];
        while let Some(last) = open.last() {
            if self.is_empty() {
                return Err(unfinished(*last));
            }
            match self.field()? {
                (number, Found::Group) if open.len() < MAX_DEPTH => open.push(number),
                (_, Found::Group) => {
                    return Err(format!("has groups nested deeper than {MAX_DEPTH} levels"));
                }
                (number, Found::End) if number == *last => drop(open.pop()),
                (number, Found::End) => return Err(no_group(number)),
                (_, Found::Varint(_) | Found::Fixed64(_) | Found::Bytes(_) | Found::Fixed32(_)) => {
                }
            }
        }
        Ok(())
    }
}

/// Writes a whole number, seven bits in each byte.
#[expect(clippy::cast_possible_truncation, reason = "seven bits are taken at a time")]
pub(super) fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    while 0x7f < number {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// What a message may be that does not read as Protobuf.
const NOT_WRITTEN_BY: &str = "it is not Protobuf, or is cut off at its beginning";

/// A group ends that did not begin.
pub(super) fn no_group(number: u32) -> String {
    format!("ends a group of field number {number} that has not begun")
}

/// A group begins and does not end.
pub(super) fn unfinished(number: u32) -> String {
    format!("ends inside the group of field number {number}")
}

/// The number that a zigzag varint stands for.
#[expect(clippy::cast_possible_wrap, reason = "its bits are those of the number")]
pub(super) fn zigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

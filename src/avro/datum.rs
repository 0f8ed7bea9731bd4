//! A datum's bytes, read from left to right: never beyond their end, never more memory than they have.

use std::fmt;

/// What reading gives, or what is wrong.
pub(super) type Read<T> = Result<T, Wrong>;

/// What is wrong with a datum, and in which field. Never a value of it. Boxed, so that a good answer stays small.
#[derive(Debug)]
pub(super) struct Wrong(Box<Broken>);

#[derive(Debug)]
struct Broken {
    /// The innermost first.
    path: Vec<String>,
    rule: String,
}

/// A path of more names is not written out.
const LONG: usize = 16;

impl Wrong {
    #[cold]
    pub(super) fn new(rule: impl Into<String>) -> Self {
        Self(Box::new(Broken { path: Vec::new(), rule: rule.into() }))
    }

    /// The same, seen from outside of `field`; an empty name is the whole datum's.
    #[cold]
    pub(super) fn within(mut self, field: &str) -> Self {
        if !field.is_empty() {
            self.0.path.push(field.to_owned());
        }
        self
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken { path, rule } = &*self.0;
        if path.is_empty() {
            return f.write_str(rule);
        }
        let mut path: Vec<&str> = path.iter().rev().map(String::as_str).collect();
        if LONG < path.len() {
            // A record that contains itself has one name again and again.
            path.dedup();
        }
        let more = if LONG < path.len() { ".…" } else { "" };
        path.truncate(LONG);
        write!(f, "field {:?} {rule}", path.join(".") + more)
    }
}

/// Most bytes of a decimal's digits. Its text takes time by their square.
const MAX_DECIMAL: usize = 512;

/// What is left of a datum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Datum<'a> {
    rest: &'a [u8],
}

impl<'a> Datum<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether all was read.
    pub(super) fn end(&self) -> Read<()> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(Wrong::new(format!(
                "has {left} bytes behind its end: its schema is not the one that it was written by"
            ))),
        }
    }

    /// `size` bytes of `kind`.
    #[inline]
    pub(super) fn take(&mut self, size: usize, kind: &str) -> Read<&'a [u8]> {
        match self.rest.split_at_checked(size) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(beyond(size, kind, self.rest.len())),
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self, kind: &str) -> Read<[u8; N]> {
        match self.rest.split_first_chunk::<N>() {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(*taken)
            }
            None => Err(inside(kind)),
        }
    }

    #[inline]
    pub(super) fn boolean(&mut self) -> Read<bool> {
        match self.array("a boolean")? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Wrong::new("is a boolean that is neither 0 nor 1")),
        }
    }

    #[inline]
    pub(super) fn float(&mut self) -> Read<f32> {
        self.array("a float").map(f32::from_le_bytes)
    }

    #[inline]
    pub(super) fn double(&mut self) -> Read<f64> {
        self.array("a double").map(f64::from_le_bytes)
    }

    #[inline]
    pub(super) fn int(&mut self, kind: &str) -> Read<i32> {
        let long = self.long(kind)?;
        i32::try_from(long).map_err(|_beyond| too_wide(kind))
    }

    /// A number of variable length, zig-zag.
    #[inline]
    pub(super) fn long(&mut self, kind: &str) -> Read<i64> {
        let coded = match self.rest {
            [one, rest @ ..] if *one < 0x80 => {
                self.rest = rest;
                u64::from(*one)
            }
            [one, two, rest @ ..] if *two < 0x80 => {
                self.rest = rest;
                u64::from(*one & 0x7f) | u64::from(*two) << 7
            }
            _ => self.long_varint(kind)?,
        };
        Ok((coded >> 1).cast_signed() ^ -(coded & 1).cast_signed())
    }

    /// Of three bytes or more.
    fn long_varint(&mut self, kind: &str) -> Read<u64> {
        // Eight bytes at once: the first without its high bit is the last, and three shifts close the gaps of one bit.
        if let Some((eight, _)) = self.rest.split_first_chunk::<8>() {
            let word = u64::from_le_bytes(*eight);
            let ends = !word & 0x8080_8080_8080_8080;
            if ends != 0 {
                let size = ends.trailing_zeros() as usize / 8 + 1;
                let word = word & (u64::MAX >> (64 - 8 * size)) & 0x7f7f_7f7f_7f7f_7f7f;
                let word = word & 0x007f_007f_007f_007f | (word & 0x7f00_7f00_7f00_7f00) >> 1;
                let word = word & 0x0000_3fff_0000_3fff | (word & 0x3fff_0000_3fff_0000) >> 2;
                self.rest = &self.rest[size..];
                return Ok(word & 0x0fff_ffff | (word & 0x0fff_ffff_0000_0000) >> 4);
            }
        }
        let mut coded = 0;
        let mut shift = 0;
        for (place, byte) in self.rest.iter().enumerate().take(9) {
            coded |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                self.rest = &self.rest[place + 1..];
                return Ok(coded);
            }
            shift += 7;
        }
        // Of the tenth byte one bit is left.
        match self.rest.get(9) {
            Some(last @ 0..=1) => {
                self.rest = &self.rest[10..];
                Ok(coded | u64::from(*last) << 63)
            }
            Some(_) => Err(Wrong::new(format!("is {kind} of more than 64 bits or 10 bytes"))),
            None => Err(inside(kind)),
        }
    }

    /// A length that is claimed, checked against what is left.
    #[inline]
    fn length(&mut self, kind: &str) -> Read<usize> {
        let claimed = self.long(kind)?;
        match usize::try_from(claimed) {
            Ok(length) if length <= self.rest.len() => Ok(length),
            _ => Err(claims(claimed, kind, self.rest.len())),
        }
    }

    #[inline]
    pub(super) fn bytes(&mut self) -> Read<&'a [u8]> {
        let length = self.length("bytes")?;
        self.take(length, "bytes")
    }

    #[inline]
    pub(super) fn text(&mut self) -> Read<&'a str> {
        let length = self.length("a string")?;
        let bytes = self.take(length, "a string")?;
        std::str::from_utf8(bytes).map_err(|error| not_text(error.valid_up_to()))
    }

    /// A decimal's digits, big-endian; of a fixed of `size` bytes, or of bytes.
    pub(super) fn decimal(&mut self, size: Option<usize>) -> Read<&'a [u8]> {
        let digits = match size {
            Some(size) => self.take(size, "a decimal")?,
            None => self.bytes()?,
        };
        if digits.is_empty() {
            return Err(Wrong::new("is a decimal of no bytes"));
        }
        if MAX_DECIMAL < digits.len() {
            return Err(Wrong::new(format!("is a decimal of more than {MAX_DECIMAL} bytes")));
        }
        Ok(digits)
    }

    /// One of `count` things: a union's branch, an enum's symbol.
    #[inline]
    pub(super) fn choice(&mut self, count: usize, kind: &str, what: &str) -> Read<usize> {
        let index = self.long(kind)?;
        match usize::try_from(index) {
            Ok(index) if index < count => Ok(index),
            _ => Err(not_one_of(count, kind, what, index)),
        }
    }

    /// The blocks of an array or a map, one after the other; `items` reads as many as it is told.
    pub(super) fn blocks(
        &mut self,
        kind: &str,
        mut items: impl FnMut(&mut Self, u64) -> Read<()>,
    ) -> Read<()> {
        loop {
            let count = self.long(kind)?;
            if count == 0 {
                return Ok(());
            }
            let size = if count < 0 { Some(self.length(kind)?) } else { None };
            let before = self.rest.len();
            items(self, count.unsigned_abs())?;
            if size.is_some_and(|size| size != before - self.rest.len()) {
                return Err(Wrong::new(format!(
                    "has a block of {kind} that is not as long as it says"
                )));
            }
        }
    }
}

// What is wrong is written apart from where it is found, so that what finds it is small enough to be part of its caller.

#[cold]
fn beyond(size: usize, kind: &str, left: usize) -> Wrong {
    Wrong::new(format!("wants {size} bytes for {kind}, and {left} are left"))
}

#[cold]
fn claims(length: i64, kind: &str, left: usize) -> Wrong {
    match length {
        ..0 => Wrong::new(format!("claims {kind} of a negative length ({length})")),
        _ => Wrong::new(format!("claims {kind} of {length} bytes, and {left} are left")),
    }
}

#[cold]
fn not_one_of(count: usize, kind: &str, what: &str, index: i64) -> Wrong {
    Wrong::new(format!("names {what} {index} of {kind} that has {count}, from 0 on"))
}

#[cold]
fn too_wide(kind: &str) -> Wrong {
    Wrong::new(format!("is {kind} of more than 32 bits"))
}

#[cold]
fn not_text(good: usize) -> Wrong {
    Wrong::new(format!("is a string that is not valid UTF-8 from byte {good} on"))
}

#[cold]
fn inside(kind: &str) -> Wrong {
    Wrong::new(format!("ends inside {kind}"))
}

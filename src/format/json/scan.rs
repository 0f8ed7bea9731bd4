//! RFC 8259, over text that is UTF-8 already.

use std::borrow::Cow;

use crate::field::Value;

/// Why a text is not what was wanted.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::format) enum Wrong {
    /// It is not valid JSON, from this byte on at the latest.
    Syntax(usize),
    /// A number that ends at this byte is too large for an f64.
    TooLarge(usize),
    /// It begins as something else than an object: what.
    NoObject(&'static str),
}

/// A text, and how far it is read.
#[derive(Debug, Clone)]
pub(in crate::format) struct Scanner<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Scanner<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn wrong<T>(&self) -> Result<T, Wrong> {
        Err(Wrong::Syntax(self.at))
    }

    /// Takes this byte, which must be next.
    fn expect(&mut self, byte: u8) -> Result<(), Wrong> {
        if self.take(byte) { Ok(()) } else { self.wrong() }
    }

    /// Takes this byte, if it is next.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// The text from `start` to here. Both ends lie beside ASCII characters.
    fn since(&self, start: usize) -> &'t str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// The whole text, which is an object that `object` reads.
    pub(super) fn whole(
        mut self,
        object: impl FnOnce(&mut Self) -> Result<(), Wrong>,
    ) -> Result<(), Wrong> {
        self.space();
        match self.peek() {
            Some(b'{') => object(&mut self)?,
            Some(b'[') => return Err(Wrong::NoObject("array")),
            Some(b'"') => return Err(Wrong::NoObject("string")),
            Some(b't' | b'f') => return Err(Wrong::NoObject("boolean")),
            Some(b'n') => return Err(Wrong::NoObject("null")),
            Some(b'-' | b'0'..=b'9') => return Err(Wrong::NoObject("number")),
            _ => return self.wrong(),
        }
        self.space();
        if self.at == self.text.len() { Ok(()) } else { self.wrong() }
    }

    /// An object: `member` is told each name and reads its value.
    pub(super) fn members(
        &mut self,
        mut member: impl FnMut(&mut Self, Cow<'t, str>) -> Result<(), Wrong>,
    ) -> Result<(), Wrong> {
        self.expect(b'{')?;
        self.space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let name = self.string()?;
            self.space();
            self.expect(b':')?;
            self.space();
            member(self, name)?;
            self.space();
            if !self.take(b',') {
                return self.expect(b'}');
            }
            self.space();
        }
    }

    /// A list: `element` is told each number, from 0 on, and reads its value.
    pub(super) fn elements(
        &mut self,
        mut element: impl FnMut(&mut Self, usize) -> Result<(), Wrong>,
    ) -> Result<(), Wrong> {
        self.expect(b'[')?;
        self.space();
        if self.take(b']') {
            return Ok(());
        }
        for number in 0.. {
            element(self, number)?;
            self.space();
            if !self.take(b',') {
                break;
            }
            self.space();
        }
        self.expect(b']')
    }

    /// A value; of a list or an object only that it is one.
    pub(super) fn value(&mut self) -> Result<Value<'t>, Wrong> {
        match self.peek() {
            Some(b'"') => self.string().map(Value::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'{') => self.skip().map(|()| Value::Map),
            Some(b'[') => self.skip().map(|()| Value::List),
            Some(b't') => self.word("true").map(|()| Value::Bool(true)),
            Some(b'f') => self.word("false").map(|()| Value::Bool(false)),
            _ => self.word("null").map(|()| Value::Null),
        }
    }

    /// A value as it is written.
    pub(super) fn raw(&mut self) -> Result<&'t str, Wrong> {
        let start = self.at;
        self.skip()?;
        Ok(self.since(start))
    }

    fn word(&mut self, word: &str) -> Result<(), Wrong> {
        let found = self.text.as_bytes().get(self.at..self.at + word.len());
        if found != Some(word.as_bytes()) {
            return self.wrong();
        }
        self.at += word.len();
        Ok(())
    }

    /// Passes over a string up to its first escape, or to its closing quote, which it takes: whether that was the end.
    fn plain(&mut self) -> Result<bool, Wrong> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let special = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
        self.at += special.unwrap_or(rest.len());
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                Ok(true)
            }
            Some(b'\\') => Ok(false),
            _ => self.wrong(),
        }
    }

    fn string(&mut self) -> Result<Cow<'t, str>, Wrong> {
        self.expect(b'"')?;
        let start = self.at;
        if self.plain()? {
            return Ok(Cow::Borrowed(self.text.get(start..self.at - 1).unwrap_or_default()));
        }
        let mut owned = self.since(start).to_owned();
        loop {
            owned.push(self.escape()?);
            let start = self.at;
            let ended = self.plain()?;
            owned.push_str(self.text.get(start..self.at - usize::from(ended)).unwrap_or_default());
            if ended {
                return Ok(Cow::Owned(owned));
            }
        }
    }

    /// The character that an escape stands for; U+FFFD for half of a surrogate pair.
    fn escape(&mut self) -> Result<char, Wrong> {
        self.expect(b'\\')?;
        let escaped = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                let first = self.code_unit()?;
                return Ok(self.character(first));
            }
            _ => return self.wrong(),
        };
        self.at += 1;
        Ok(escaped)
    }

    /// The character whose first UTF-16 unit was read.
    fn character(&mut self, first: u32) -> char {
        const HALF: char = char::REPLACEMENT_CHARACTER;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).unwrap_or(HALF);
        }
        let before = self.at;
        let second = if self.take(b'\\') && self.take(b'u') { self.code_unit().ok() } else { None };
        if let Some(second) = second.filter(|second| (0xdc00..0xe000).contains(second)) {
            let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            return char::from_u32(code).unwrap_or(HALF);
        }
        // What follows is read by itself.
        self.at = before;
        HALF
    }

    fn code_unit(&mut self) -> Result<u32, Wrong> {
        let digits = self.text.get(self.at..self.at + 4);
        let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let Some(unit) = unit else { return self.wrong() };
        self.at += 4;
        Ok(unit)
    }

    fn digits(&mut self) -> Result<(), Wrong> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { self.wrong() } else { Ok(()) }
    }

    /// Passes over a number: whether it is written as a whole one.
    fn pass_number(&mut self) -> Result<bool, Wrong> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        let mut whole = true;
        if self.take(b'.') {
            whole = false;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            whole = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(whole)
    }

    /// A number as serde has it: whole from -2^63 to 2^64 - 1, else an f64.
    fn number(&mut self) -> Result<Value<'t>, Wrong> {
        const WHOLE: std::ops::RangeInclusive<i128> = i64::MIN as i128..=u64::MAX as i128;
        let start = self.at;
        let whole = self.pass_number()?;
        let text = self.since(start);
        if whole
            && text != "-0"
            && let Ok(number) = text.parse::<i128>()
            && WHOLE.contains(&number)
        {
            return Ok(Value::Int(number));
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Value::Float(number)),
            _ => Err(Wrong::TooLarge(self.at)),
        }
    }

    fn pass_string(&mut self) -> Result<(), Wrong> {
        self.expect(b'"')?;
        while !self.plain()? {
            self.escape()?;
        }
        Ok(())
    }

    /// Passes over a value, however deep it is: what is open is a byte each, not a call.
    pub(super) fn skip(&mut self) -> Result<(), Wrong> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            match self.peek() {
                Some(b'"') => self.pass_string()?,
                Some(b'-' | b'0'..=b'9') => {
                    self.pass_number()?;
                }
                Some(b't') => self.word("true")?,
                Some(b'f') => self.word("false")?,
                Some(b'n') => self.word("null")?,
                Some(bracket @ (b'[' | b'{')) => {
                    self.at += 1;
                    self.space();
                    let close = if bracket == b'[' { b']' } else { b'}' };
                    if !self.take(close) {
                        open.push(close);
                        self.name(close)?;
                        continue;
                    }
                }
                _ => return self.wrong(),
            }
            loop {
                let Some(close) = open.last().copied() else { return Ok(()) };
                self.space();
                if self.take(b',') {
                    self.space();
                    self.name(close)?;
                    break;
                }
                self.expect(close)?;
                open.pop();
            }
        }
    }

    /// Inside of an object, the name of the value that follows.
    fn name(&mut self, close: u8) -> Result<(), Wrong> {
        if close == b'}' {
            self.pass_string()?;
            self.space();
            self.expect(b':')?;
            self.space();
        }
        Ok(())
    }
}

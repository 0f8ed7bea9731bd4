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

    #[inline]
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

    /// An object: `member` reads each [name](Self::name) and then its value.
    pub(super) fn members(
        &mut self,
        mut member: impl FnMut(&mut Self) -> Result<(), Wrong>,
    ) -> Result<(), Wrong> {
        self.expect(b'{')?;
        self.space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            member(self)?;
            // As most writers have it, or with spaces anywhere.
            match self.rest() {
                [b',', b' ', b'"', ..] => self.at += 2,
                [b',', b'"', ..] => self.at += 1,
                _ => {
                    self.space();
                    if !self.take(b',') {
                        return self.expect(b'}');
                    }
                    self.space();
                }
            }
        }
    }

    /// A member's name, up to its value.
    pub(super) fn name(&mut self) -> Result<Cow<'t, str>, Wrong> {
        let name = self.string()?;
        self.colon()?;
        Ok(name)
    }

    /// Takes a member's name up to its value, if it is `name`, which nothing in it escapes: the same bytes, and no other.
    #[inline]
    pub(super) fn take_name(&mut self, name: &str) -> Result<bool, Wrong> {
        let Some(behind) = self.behind(name) else { return Ok(false) };
        self.at = self.text.len() - behind.len();
        match behind {
            [b':', b' ', next, ..] if b' ' < *next => self.at += 2,
            [b':', next, ..] if b' ' < *next => self.at += 1,
            _ => self.colon()?,
        }
        Ok(true)
    }

    /// What is behind `text`, in quotes, where that is next.
    #[inline]
    fn behind(&self, text: &str) -> Option<&'t [u8]> {
        let inside = self.rest().strip_prefix(b"\"")?;
        let (same, behind) = inside.split_at_checked(text.len())?;
        if !is_same(same, text.as_bytes()) {
            return None;
        }
        behind.strip_prefix(b"\"")
    }

    #[inline]
    fn rest(&self) -> &'t [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn colon(&mut self) -> Result<(), Wrong> {
        self.space();
        self.expect(b':')?;
        self.space();
        Ok(())
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

    /// A value; of a list or an object only that it is one. It is written where it stays: copies of it cost more than
    /// reading a number.
    pub(super) fn value(&mut self, into: &mut Option<Value<'t>>) -> Result<(), Wrong> {
        let value = match self.peek() {
            Some(b'"') => Value::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => return self.number(into),
            Some(b'{') => self.skip().map(|()| Value::Map)?,
            Some(b'[') => self.skip().map(|()| Value::List)?,
            Some(b't') => self.word("true").map(|()| Value::Bool(true))?,
            Some(b'f') => self.word("false").map(|()| Value::Bool(false))?,
            _ => self.word("null").map(|()| Value::Null)?,
        };
        *into = Some(value);
        Ok(())
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
        self.at += plain(rest);
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

    /// A number by its digits.
    #[inline]
    fn decimal(&mut self) -> Result<Decimal, Wrong> {
        let rest = self.rest();
        let mut digits = 0;
        let negative = rest.first() == Some(&b'-');
        let start = usize::from(negative);
        let mut at = match rest.get(start) {
            Some(b'0') => start + 1,
            _ => self::digits(rest, start, &mut digits),
        };
        let mut count = at - start;
        let mut places = 0;
        let mut complete = count != 0;
        if rest.get(at) == Some(&b'.') {
            let point = at + 1;
            at = self::digits(rest, point, &mut digits);
            places = at - point;
            count += places;
            complete &= places != 0;
        }
        let exponential = matches!(rest.get(at), Some(b'e' | b'E'));
        if exponential {
            at += 1;
            at += usize::from(matches!(rest.get(at), Some(b'+' | b'-')));
            let exponent = at;
            at = self::digits(rest, exponent, &mut 0);
            complete &= at != exponent;
        }
        self.at += at;
        if !complete {
            return self.wrong();
        }
        Ok(Decimal { negative, digits, count, places, exponential })
    }

    /// A number as serde has it: whole from -2^63 to 2^64 - 1, else an f64.
    fn number(&mut self, into: &mut Option<Value<'t>>) -> Result<(), Wrong> {
        const WHOLE: std::ops::RangeInclusive<i128> = i64::MIN as i128..=u64::MAX as i128;
        let start = self.at;
        let number = self.decimal()?;
        if let Some(exact) = number.exact() {
            *into = Some(exact);
            return Ok(());
        }
        let text = self.since(start);
        let whole = text.parse().ok().filter(|whole| WHOLE.contains(whole));
        *into = Some(match whole {
            Some(whole) => Value::Int(whole),
            None => Value::Float(
                text.parse()
                    .ok()
                    .filter(|number: &f64| number.is_finite())
                    .ok_or(Wrong::TooLarge(self.at))?,
            ),
        });
        Ok(())
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
                    self.decimal()?;
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
                        self.pass_name(close)?;
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
                    self.pass_name(close)?;
                    break;
                }
                self.expect(close)?;
                open.pop();
            }
        }
    }

    /// Inside of an object, the name of the value that follows.
    fn pass_name(&mut self, close: u8) -> Result<(), Wrong> {
        if close == b'}' {
            self.pass_string()?;
            self.colon()?;
        }
        Ok(())
    }
}

/// Takes the digits from `at` on as further ones of `sum`: where they end.
#[inline]
fn digits(text: &[u8], mut at: usize, sum: &mut u64) -> usize {
    while let Some(digit) =
        text.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10)
    {
        *sum = sum.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    at
}

/// The digits of a number, before anything is rounded.
#[derive(Debug)]
struct Decimal {
    negative: bool,
    /// All digits as one number, of which a u64 holds 19.
    digits: u64,
    /// How many there are.
    count: usize,
    /// How many of them stand behind the point.
    places: usize,
    exponential: bool,
}

impl Decimal {
    /// The number, where it is whole and short; or the nearest f64, where two numbers that an f64 holds exactly give it:
    /// one division rounds once (W. D. Clinger, How to Read Floating Point Numbers Accurately, 1990).
    #[inline]
    fn exact(&self) -> Option<Value<'static>> {
        const LARGEST: u64 = 1 << f64::MANTISSA_DIGITS;
        if 18 < self.count || self.exponential {
            return None;
        }
        // A number that is written without a point is whole, but for -0.
        if self.places == 0 && !(self.negative && self.digits == 0) {
            let digits = i128::from(self.digits);
            return Some(Value::Int(if self.negative { -digits } else { digits }));
        }
        if LARGEST < self.digits {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "at most 2^53")]
        let magnitude = self.digits as f64 / POWERS.get(self.places)?;
        Some(Value::Float(if self.negative { -magnitude } else { magnitude }))
    }
}

/// The powers of ten that a short number is divided by; an f64 holds each exactly.
const POWERS: [f64; 19] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18,
];

/// Whether two texts of one length are the same: names are short, and a call of memcmp costs as much as they do.
#[inline]
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let (Some((_, one_end)), Some((_, other_end))) =
        (one.split_last_chunk::<8>(), other.split_last_chunk::<8>())
    else {
        return one.iter().eq(other);
    };
    let (ones, others) = (one.as_chunks::<8>().0, other.as_chunks::<8>().0);
    ones.iter().eq(others) && one_end == other_end
}

/// How many bytes come before the first that is no plain character of a string: a quote, a backslash, a control character.
/// Eight at a time, by the carries of a subtraction (Bit Twiddling Hacks, "Determine if a word has a zero byte").
fn plain(text: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    let (eights, rest) = text.as_chunks::<8>();
    for (number, eight) in eights.iter().enumerate() {
        let word = u64::from_le_bytes(*eight);
        let zero = |word: u64| word.wrapping_sub(ONES) & !word;
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let quote = zero(word ^ (ONES * u64::from(b'"')));
        let found = (control | quote | zero(word ^ (ONES * u64::from(b'\\')))) & HIGHS;
        if found != 0 {
            // The lowest is never a carry's.
            return number * 8 + (found.trailing_zeros() / 8) as usize;
        }
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    text.len() - rest.len() + rest.iter().position(special).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn eight_bytes_at_a_time_are_as_one_by_one(text in prop::collection::vec(
            prop_oneof![any::<u8>(), Just(b'"'), Just(b'\\'), 0x1e..0x22_u8, 0x7e..0x82_u8], 0..40,
        )) {
            let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
            prop_assert_eq!(plain(&text), text.iter().position(special).unwrap_or(text.len()));
        }

        #[test]
        fn numbers_are_the_nearest(
            text in "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,24})?([eE][-+]?[0-9]{1,3})?",
        ) {
            let expect = text.parse::<f64>().unwrap();
            let mut value = None;
            let read = Scanner::new(&text).value(&mut value);
            match value {
                Some(Value::Int(whole)) => prop_assert_eq!(Ok(whole), text.parse::<i128>()),
                Some(Value::Float(number)) => prop_assert_eq!(number.to_bits(), expect.to_bits()),
                other => prop_assert!(read.is_err() && !expect.is_finite(), "{:?}", other),
            }
        }
    }
}

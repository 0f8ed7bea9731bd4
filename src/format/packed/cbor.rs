//! CBOR, by RFC 8949. Of tags those of numbers count (2 to 5, 30, and 264 and 265 as 4 and 5); 25 and 29 are places where
//! something else stands, and are refused; what others stand before is itself.

use std::borrow::Cow;

use super::{Given, Head, Heads, Rest};

/// A cursor.
#[derive(Debug, Clone, Copy)]
pub(in crate::format) struct Cbor<'a>(Rest<'a>);

/// Most digits behind the point of a decimal number, and zeros behind its digits.
const MAX_EXPONENT: i128 = 512;

impl<'a> Heads<'a> for Cbor<'a> {
    const NAME: &'static str = "CBOR";

    fn new(bytes: &'a [u8]) -> Self {
        Self(Rest(bytes))
    }

    fn left(&self) -> usize {
        self.0.0.len()
    }

    fn head(&mut self) -> Given<Head<'a>> {
        let mut tagged = false;
        loop {
            match self.tagged()? {
                Ok(Head::End) if tagged => return Err("has a tag before no value".to_owned()),
                Ok(head) => return Ok(head),
                Err(2) => return self.large(false),
                Err(3) => return self.large(true),
                Err(4 | 264) => return self.decimal(),
                Err(tag @ (5 | 265)) => return self.binary(tag),
                Err(30) => return self.rational(),
                Err(_passed) => tagged = true,
            }
        }
    }
}

impl<'a> Cbor<'a> {
    /// What begins here, or the number of a tag before it.
    fn tagged(&mut self) -> Given<Result<Head<'a>, u64>> {
        let first = self.0.byte()?;
        let (major, form) = (first >> 5, first & 0x1f);
        if major == 7 {
            return self.simple(form).map(Ok);
        }
        let Some(number) = self.number(form)? else {
            return match major {
                2 => self.chunks(major).map(|bytes| Ok(Head::Bytes(bytes.into()))),
                3 => {
                    let text = self.chunks(major)?;
                    let text = String::from_utf8(text).map_err(|error| error.to_string())?;
                    Ok(Ok(Head::Text(text.into())))
                }
                4 => Ok(Ok(Head::List(None))),
                5 => Ok(Ok(Head::Map(None))),
                _ => Err("has a number without an end, which CBOR does not have".to_owned()),
            };
        };
        Ok(Ok(match major {
            0 => Head::Int(number.into()),
            1 => Head::Int(-1 - i128::from(number)),
            2 => Head::Bytes(self.0.take(number)?.into()),
            3 => Head::Text(self.0.text(number)?.into()),
            4 => Head::List(Some(number)),
            5 => Head::Map(Some(number)),
            _ => return not_elsewhere(number).map(Err),
        }))
    }

    /// The number behind a first byte; `None` where it says that an end follows somewhere.
    fn number(&mut self, form: u8) -> Given<Option<u64>> {
        Ok(Some(match form {
            0..24 => form.into(),
            24 => self.0.byte()?.into(),
            25 => u16::from_be_bytes(self.0.array()?).into(),
            26 => u32::from_be_bytes(self.0.array()?).into(),
            27 => u64::from_be_bytes(self.0.array()?),
            31 => return Ok(None),
            _ => return Err(format!("has the form {form} of a number, which CBOR does not use")),
        }))
    }

    fn simple(&mut self, form: u8) -> Given<Head<'a>> {
        Ok(match form {
            20 | 21 => Head::Bool(form == 21),
            // null and undefined.
            22 | 23 => Head::Null,
            25 => Head::Single(half(u16::from_be_bytes(self.0.array()?))),
            26 => Head::Single(f32::from_be_bytes(self.0.array()?)),
            27 => Head::Double(f64::from_be_bytes(self.0.array()?)),
            31 => Head::End,
            _ => return Err("has a simple value that CBOR gives no meaning".to_owned()),
        })
    }

    /// The parts of a text or of bytes that do not say how long they are, put together. Each part of a text is one.
    fn chunks(&mut self, major: u8) -> Given<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let first = self.0.byte()?;
            if first == 0xff {
                return Ok(all);
            }
            let number = if first >> 5 == major { self.number(first & 0x1f)? } else { None };
            let size = number.ok_or("has a text or bytes in parts of another kind")?;
            let part =
                if major == 3 { self.0.text(size)?.as_bytes() } else { self.0.take(size)? };
            all.extend_from_slice(part);
        }
    }

    /// A whole number of any size: bytes, the highest first; of a negative one those of -1 less it.
    fn large(&mut self, negative: bool) -> Given<Head<'a>> {
        let Ok(Head::Bytes(bytes)) = self.tagged()? else {
            return Err("has a large number that is no bytes".to_owned());
        };
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let digits = bytes.get(zeros..).unwrap_or_default();
        if digits.len() <= 15 {
            let number = digits.iter().fold(0_i128, |sum, byte| sum << 8 | i128::from(*byte));
            return Ok(Head::Int(if negative { -1 - number } else { number }));
        }
        // The nearest that there is: 2 to the power of 1024 and more are no 64-bit floats.
        let number = digits.iter().fold(0_f64, |sum, byte| sum.mul_add(256.0, f64::from(*byte)));
        if !number.is_finite() {
            return Err(too_large());
        }
        Ok(Head::Double(if negative { -number } else { number }))
    }

    /// A list of an exponent of ten and a whole number.
    fn decimal(&mut self) -> Given<Head<'a>> {
        let wrong = || {
            format!(
                "has a decimal number that is not [exponent, whole number], or whose exponent is beyond {MAX_EXPONENT}"
            )
        };
        let Head::List(Some(2)) = self.plain()? else { return Err(wrong()) };
        let Head::Int(exponent) = self.plain()? else { return Err(wrong()) };
        let number = self.plain_or_large()?;
        if MAX_EXPONENT < exponent.abs() {
            return Err(wrong());
        }
        let Head::Int(number) = number else { return Err(wrong()) };
        Ok(Head::Decimal(digits(number, exponent).into()))
    }

    /// A list of an exponent of two and a whole number.
    fn binary(&mut self, tag: u64) -> Given<Head<'a>> {
        let wrong =
            || format!("has a binary fraction (tag {tag}) that is not [exponent, whole number]");
        let Head::List(Some(2)) = self.plain()? else { return Err(wrong()) };
        let Head::Int(exponent) = self.plain()? else { return Err(wrong()) };
        let number = self.plain_or_large()?;
        if let (Head::Int(number), Ok(exponent @ 0..=126)) = (&number, u32::try_from(exponent))
            && let Some(whole) = number.checked_mul(1 << exponent)
        {
            return Ok(Head::Int(whole));
        }
        let mut value = double(&number).ok_or_else(wrong)?;
        // More than it takes from the largest number that there is to the smallest. By steps whose powers are floats.
        let mut left = exponent.clamp(-4_000, 4_000);
        while left != 0 && value != 0.0 && value.is_finite() {
            let step = left.clamp(-1_000, 1_000);
            value *= 2_f64.powi(i32::try_from(step).map_err(|error| error.to_string())?);
            left -= step;
        }
        if value.is_finite() { Ok(Head::Double(value)) } else { Err(too_large()) }
    }

    /// A list of two whole numbers: how many parts, and of how many.
    fn rational(&mut self) -> Given<Head<'a>> {
        let wrong = || {
            "has a rational number (tag 30) that is not [whole number, whole number above 0]"
                .to_owned()
        };
        let Head::List(Some(2)) = self.plain()? else { return Err(wrong()) };
        let (parts, of) = (self.plain_or_large()?, self.plain_or_large()?);
        if let (Head::Int(parts), Head::Int(of @ 1..)) = (&parts, &of)
            && parts % of == 0
        {
            return Ok(Head::Int(parts / of));
        }
        let parts = double(&parts).ok_or_else(wrong)?;
        let of = double(&of).filter(|of| 0.0 < *of).ok_or_else(wrong)?;
        Ok(Head::Double(parts / of))
    }

    /// What begins here, without a tag.
    fn plain(&mut self) -> Given<Head<'a>> {
        self.tagged()?.map_err(|_tag| "has a tag within a number of two parts".to_owned())
    }

    fn plain_or_large(&mut self) -> Given<Head<'a>> {
        match self.tagged()? {
            Ok(head) => Ok(head),
            Err(2) => self.large(false),
            Err(3) => self.large(true),
            Err(_tag) => Err("has a tag within a number of two parts".to_owned()),
        }
    }
}

/// A tag's number, but for those that say that what is meant stands elsewhere.
fn not_elsewhere(tag: u64) -> Given<u64> {
    match tag {
        25 => Err("uses CBOR's string references (tag 25), which are not read: write without them"
            .to_owned()),
        29 => {
            Err("uses CBOR's shared values (tag 29), which are not read: write without them"
                .to_owned())
        }
        tag => Ok(tag),
    }
}

fn too_large() -> String {
    "has a number that no 64-bit float can hold (at most 1.8e308)".to_owned()
}

/// A whole number as the nearest 64-bit float.
fn double(head: &Head<'_>) -> Option<f64> {
    if let Head::Double(number) = head {
        return Some(*number);
    }
    // All digits are read, and rounded once.
    if let Head::Int(number) = head { number.to_string().parse().ok() } else { None }
}

/// A number's digits, with the point where the exponent of ten puts it.
fn digits(number: i128, exponent: i128) -> String {
    let sign = if number < 0 { "-" } else { "" };
    let mut digits = number.unsigned_abs().to_string();
    let Ok(places) = usize::try_from(-exponent) else {
        if number != 0 {
            (0..exponent).for_each(|_| digits.push('0'));
        }
        return format!("{sign}{digits}");
    };
    if places == 0 {
        return format!("{sign}{digits}");
    }
    let padded: Cow<'_, str> = if digits.len() <= places {
        format!("{digits:0>width$}", width = places + 1).into()
    } else {
        digits.into()
    };
    let (whole, fraction) = padded.split_at(padded.len() - places);
    format!("{sign}{whole}.{fraction}")
}

/// A number of 16 bits (IEEE 754 binary16), which each f32 can hold.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (bits >> 10 & 0x1f, f32::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction * 2_f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        exponent => (1.0 + fraction / 1024.0) * 2_f32.powi(i32::from(exponent) - 15),
    };
    sign * size
}

//! Numbers by their decimal digits, and UUIDs: what a datum holds as bytes and a reader sees as text.

use uuid::Uuid;

use super::datum::{Datum, Read, Wrong};

/// Most digits behind a decimal's point, or zeros before it.
pub(super) const MAX_SCALE: usize = 1024;

/// Digits that fit into one limb of base 10^9.
const LIMB: u64 = 1_000_000_000;

/// A decimal's text: two's complement, big-endian, with `scale` digits behind the point.
pub(crate) fn text(digits: &[u8], scale: usize) -> Box<str> {
    let negative = digits.first().is_some_and(|first| 0x7f < *first);
    let whole = match digits.len() {
        ..=16 => {
            let mut wide = [if negative { 0xff } else { 0 }; 16];
            wide[16 - digits.len()..].copy_from_slice(digits);
            i128::from_be_bytes(wide).unsigned_abs().to_string()
        }
        _ => long(digits, negative),
    };
    place_point(negative, whole, scale).into_boxed_str()
}

fn place_point(negative: bool, whole: String, scale: usize) -> String {
    let sign = if negative { "-" } else { "" };
    if scale == 0 {
        return if negative { format!("-{whole}") } else { whole };
    }
    let padded = format!("{whole:0>width$}", width = scale + 1);
    let (before, behind) = padded.split_at(padded.len() - scale);
    format!("{sign}{before}.{behind}")
}

/// The digits of a magnitude beyond an `i128`.
fn long(digits: &[u8], negative: bool) -> String {
    let mut limbs: Vec<u64> = vec![0];
    // Of a negative number the complement is the magnitude less one.
    let bytes = digits.iter().map(|byte| u64::from(if negative { !byte } else { *byte }));
    for byte in bytes {
        shift_in(&mut limbs, 256, byte);
    }
    if negative {
        shift_in(&mut limbs, 1, 1);
    }
    let mut limbs = limbs.iter().rev();
    let first = limbs.next().map(u64::to_string).unwrap_or_default();
    limbs.fold(first, |text, limb| format!("{text}{limb:09}"))
}

/// `limbs * factor + add`, the least limb first.
fn shift_in(limbs: &mut Vec<u64>, factor: u64, add: u64) {
    let mut carry = add;
    for limb in limbs.iter_mut() {
        let sum = *limb * factor + carry;
        *limb = sum % LIMB;
        carry = sum / LIMB;
    }
    if carry != 0 {
        limbs.push(carry);
    }
}

/// A `big-decimal`: bytes that hold the digits' bytes and the scale.
pub(super) fn big(datum: &mut Datum<'_>) -> Read<(Vec<u8>, i64)> {
    let mut inner = Datum::new(datum.bytes()?);
    let digits = inner.decimal(None)?;
    let scale = inner.long("a decimal's scale")?;
    inner.end()?;
    if u64::try_from(MAX_SCALE).is_ok_and(|most| most < scale.unsigned_abs()) {
        return Err(Wrong::new(format!("is a decimal of more than {MAX_SCALE} places")));
    }
    Ok((digits.to_vec(), scale))
}

/// The text of what [`big`] read.
pub(super) fn big_text((digits, scale): &(Vec<u8>, i64)) -> Box<str> {
    match usize::try_from(*scale) {
        Ok(scale) => text(digits, scale),
        Err(_negative) => {
            let zeros = usize::try_from(scale.unsigned_abs()).unwrap_or(MAX_SCALE);
            match &*text(digits, 0) {
                "0" => "0".into(),
                whole => format!("{whole}{}", "0".repeat(zeros)).into(),
            }
        }
    }
}

/// A UUID of 16 bytes, as text with hyphens.
pub(super) fn uuid(datum: &mut Datum<'_>, fixed: bool) -> Read<String> {
    let bytes = if fixed { datum.take(16, "a uuid")? } else { datum.bytes()? };
    Uuid::from_slice(bytes)
        .map(|uuid| uuid.hyphenated().to_string())
        .map_err(|_length| Wrong::new(format!("is a uuid of {} bytes, not of 16", bytes.len())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digits_are_exact() {
        for (digits, scale, expect) in [
            (&[0][..], 0, "0"),
            (&[0], 2, "0.00"),
            (&[5], 3, "0.005"),
            (&[0xff], 0, "-1"),
            (&[0xfb], 2, "-0.05"),
            (&[0x00, 0xff], 1, "25.5"),
            (&[0x80], 0, "-128"),
            (&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 3, "9223372036854775.807"),
            (&[0x80; 16], 0, "-169473963133173273960190490760135540608"),
        ] {
            assert_eq!(&*text(digits, scale), expect);
        }
        let mut far = vec![0x80];
        far.extend([0; 16]);
        assert_eq!(&*text(&far, 0), "-43556142965880123323311949751266331066368");
        assert_eq!(&*big_text(&(vec![12], -2)), "1200");
        assert_eq!(&*big_text(&(vec![0], -2)), "0");
        assert_eq!(&*big_text(&(vec![0xf4], 1)), "-1.2");
    }

    proptest! {
        #[test]
        fn long_digits_are_those_of_short_ones(number in any::<i128>()) {
            let bytes = number.to_be_bytes();
            let negative = number < 0;
            prop_assert_eq!(long(&bytes, negative), number.unsigned_abs().to_string());
            let mut wide = vec![if negative { 0xff } else { 0 }; 20];
            wide.extend(bytes);
            prop_assert_eq!(&*text(&wide, 0), number.to_string());
        }
    }
}

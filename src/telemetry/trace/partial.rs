//! What a collector has not taken of a request that it answers with 200: OTLP's `partial_success`.

/// What it has not taken, and why.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Partial {
    /// How many spans.
    pub(super) rejected: u64,
    /// What it says of them, or beside them.
    pub(super) message: String,
}

impl Partial {
    /// Reads the body of an answer, an `ExportTraceServiceResponse` in Protobuf; where it is none, or says nothing, all was
    /// taken.
    pub(super) fn read(body: &[u8]) -> Self {
        let mut partial = Self::default();
        for (number, value) in fields(body) {
            let (1, Value::Bytes(inside)) = (number, value) else { continue };
            for (number, value) in fields(inside) {
                match (number, value) {
                    // Signed there, but less than none is rejected by nobody.
                    (1, Value::Number(rejected)) => {
                        partial.rejected = u64::try_from(rejected.cast_signed()).unwrap_or(0);
                    }
                    (2, Value::Bytes(text)) => {
                        partial.message = String::from_utf8_lossy(text).into_owned();
                    }
                    _ => (),
                }
            }
        }
        partial
    }
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message up to its end, or to what is none.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u64, Value<'_>)> {
    std::iter::from_fn(move || {
        loop {
            let tag = varint(&mut bytes)?;
            let value = match tag & 7 {
                0 => Value::Number(varint(&mut bytes)?),
                2 => {
                    let length = usize::try_from(varint(&mut bytes)?).ok()?;
                    Value::Bytes(take(&mut bytes, length)?)
                }
                1 => {
                    take(&mut bytes, 8)?;
                    continue;
                }
                5 => {
                    take(&mut bytes, 4)?;
                    continue;
                }
                _ => return None,
            };
            return Some((tag >> 3, value));
        }
    })
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for place in 0..10 {
        let [byte] = *take(bytes, 1)? else { return None };
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_not_taken_is_read_and_anything_else_is_nothing() {
        let said = |rejected, message: &str| Partial { rejected, message: message.to_owned() };
        for (body, expect) in [
            (&b""[..], said(0, "")),
            (b"\x0a\x00", said(0, "")),
            (b"\x0a\x02\x08\x05", said(5, "")),
            (b"\x0a\x09\x08\xac\x02\x12\x04full", said(300, "full")),
            (b"\x12\x01x\x0a\x06\x12\x04slow", said(0, "slow")),
            (b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", said(0, "")),
            (b"\x0a\x7f\x08\x05", said(0, "")),
            (b"{\"partialSuccess\":{}}", said(0, "")),
            (b"\xff\xff\xff\xff", said(0, "")),
        ] {
            assert_eq!(Partial::read(body), expect, "{}", body.escape_ascii());
        }
    }

    proptest! {
        /// A stranger's answer is read or not, and never ends the thread.
        #[test]
        fn any_answer_is_read(body in prop::collection::vec(any::<u8>(), 0..60)) {
            Partial::read(&body);
        }
    }
}

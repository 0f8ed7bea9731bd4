//! The trace that a record belongs to: W3C's `traceparent`, read from its headers and written to its outcome's.
//!
//! `tracestate` belongs to whoever began the trace, and stands beside it: it is carried as it came.

use std::borrow::Cow;
use std::fmt;

use super::headers;
use super::message::Named;
use crate::record::Record;

/// A span of a trace, as `traceparent` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: [u8; 16],
    /// The span in it that what follows has for a parent.
    pub span: [u8; 8],
    /// [`SAMPLED`](Self::SAMPLED), and whether the trace's id is random.
    pub flags: u8,
}

impl TraceParent {
    /// The flag of a trace that is recorded.
    pub const SAMPLED: u8 = 1;
    /// The flags that are known; others must not be passed on.
    const KNOWN: u8 = 3;
    /// The length of version 00; others begin with it.
    const LENGTH: usize = 55;

    /// Whether the trace is recorded.
    pub fn is_sampled(self) -> bool {
        self.flags & Self::SAMPLED != 0
    }

    /// What a record's headers say. Of several the last one, as consumers of Kafka take it; `None` where that is not
    /// valid.
    pub fn of(record: &Record) -> Option<Self> {
        Self::read(last(record, headers::TRACEPARENT)?)
    }

    /// Reads a header's value.
    pub fn read(text: &[u8]) -> Option<Self> {
        let (known, rest) = text.split_at_checked(Self::LENGTH)?;
        let version = number::<1>(known.get(..2)?)?[0];
        let separated = [2, 35, 52].iter().all(|at| known.get(*at) == Some(&b'-'));
        let ended = rest.is_empty() || (version != 0 && rest.starts_with(b"-"));
        if version == 0xff || !separated || !ended {
            return None;
        }
        let (trace, span) = (number::<16>(known.get(3..35)?)?, number::<8>(known.get(36..52)?)?);
        let flags = number::<1>(known.get(53..)?)?[0] & Self::KNOWN;
        (trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span, flags })
    }
}

/// As a header has it, in version 00.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, span, flags } = self;
        let (trace, span) = (u128::from_be_bytes(*trace), u64::from_be_bytes(*span));
        write!(f, "00-{trace:032x}-{span:016x}-{flags:02x}")
    }
}

/// What the state of a record's trace is, as the record's headers say; `None` where there is none, or it is no text.
pub fn state(record: &Record) -> Option<&str> {
    std::str::from_utf8(last(record, headers::TRACESTATE)?).ok()
}

/// Puts a span in the place of the one that the headers name: whoever reads the message is its child. One header of
/// several is left, so that no reader takes another.
pub(super) fn replace(headers: &mut Vec<Named<'_>>, parent: TraceParent) {
    let value = Some(Cow::Owned(parent.to_string().into_bytes()));
    let is_parent = |header: &Named<'_>| *header.0 == *headers::TRACEPARENT.as_bytes();
    let Some(place) = headers.iter().rposition(is_parent) else {
        headers.push((Cow::Borrowed(headers::TRACEPARENT.as_bytes()), value));
        return;
    };
    headers[place].1 = value;
    let mut at = 0..;
    headers.retain(|header| at.next() == Some(place) || !is_parent(header));
}

fn last<'a>(record: &'a Record, name: &str) -> Option<&'a [u8]> {
    let found = record.headers.iter().rev().find(|header| header.name == name.as_bytes());
    found?.value.as_deref()
}

/// Lower-case hexadecimal digits.
fn number<const BYTES: usize>(text: &[u8]) -> Option<[u8; BYTES]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; BYTES];
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != BYTES || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = (digit(*high)? << 4) | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01";

    /// The table of W3C's own tests: what is not valid is ignored, what a later version adds is passed over.
    #[test]
    fn a_parent_is_valid_or_ignored() {
        let with = |from: usize, text: &str| {
            let mut good = GOOD.to_owned();
            good.replace_range(from..from + text.len(), text);
            good
        };
        for (text, expect) in [
            (GOOD.to_owned(), Some(1)),
            (with(53, "00"), Some(0)),
            (with(53, "03"), Some(3)),
            (with(53, "ff"), Some(3)),
            (with(0, "01"), Some(1)),
            (with(0, "cc") + "-what-comes", Some(1)),
            (with(0, "cc") + "what-comes", None),
            (GOOD.to_owned() + "-more", None),
            (GOOD.to_owned() + "-", None),
            (with(0, "ff"), None),
            (with(0, "0g"), None),
            (with(3, "00000000000000000000000000000000"), None),
            (with(36, "0000000000000000"), None),
            (with(3, "4BF9"), None),
            (with(36, "00F0"), None),
            (with(53, "0x"), None),
            (with(2, "_"), None),
            (with(35, "_"), None),
            (with(52, "_"), None),
            (GOOD.trim_end_matches('1').to_owned(), None),
            (String::new(), None),
        ] {
            let read = TraceParent::read(text.as_bytes());
            assert_eq!(read.map(|parent| parent.flags), expect, "{text:?}");
        }
        assert_eq!(TraceParent::read(GOOD.as_bytes()).unwrap().to_string(), GOOD);
    }

    #[test]
    fn one_parent_is_left() {
        let named = |name: &'static str, value: &'static str| -> Named<'static> {
            (Cow::Borrowed(name.as_bytes()), Some(Cow::Borrowed(value.as_bytes())))
        };
        let ours = TraceParent::read(GOOD.as_bytes()).unwrap();
        for (before, after) in [
            (vec![], vec!["traceparent"]),
            (vec![named("a", "1")], vec!["a", "traceparent"]),
            (
                vec![named("traceparent", "x"), named("tracestate", "y")],
                vec!["traceparent", "tracestate"],
            ),
            (
                vec![
                    named("traceparent", "x"),
                    named("a", "1"),
                    named("traceparent", "y"),
                    named("b", "2"),
                ],
                vec!["a", "traceparent", "b"],
            ),
        ] {
            let mut headers = before;
            replace(&mut headers, ours);
            let names: Vec<_> =
                headers.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect();
            assert_eq!(names, after);
            let value =
                headers.iter().find(|(name, _)| **name == *b"traceparent").unwrap().1.clone();
            assert_eq!(value.as_deref(), Some(GOOD.as_bytes()));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace in 1_u128.., span in 1_u64.., flags in 0_u8..4) {
            let (trace, span) = (trace.to_be_bytes(), span.to_be_bytes());
            let parent = TraceParent { trace, span, flags };
            prop_assert_eq!(TraceParent::read(parent.to_string().as_bytes()), Some(parent));
        }

        #[test]
        fn no_bytes_end_the_process(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(parent) = TraceParent::read(&bytes) {
                prop_assert!(parent.flags < 4);
            }
        }
    }
}

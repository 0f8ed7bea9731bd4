//! What the proxy understands of Kafka's protocol: where a frame ends, who asks, what for, and for which transaction.

use std::io::{self, Read, Write};

/// Requests that a rule or a count can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Api {
    Produce,
    Fetch,
    OffsetFetch,
    JoinGroup,
    Heartbeat,
    InitProducerId,
    AddPartitionsToTxn,
    AddOffsetsToTxn,
    EndTxn,
    TxnOffsetCommit,
    Other,
}

impl Api {
    fn of(key: i16) -> Self {
        match key {
            0 => Self::Produce,
            1 => Self::Fetch,
            9 => Self::OffsetFetch,
            11 => Self::JoinGroup,
            12 => Self::Heartbeat,
            22 => Self::InitProducerId,
            24 => Self::AddPartitionsToTxn,
            25 => Self::AddOffsetsToTxn,
            26 => Self::EndTxn,
            28 => Self::TxnOffsetCommit,
            _ => Self::Other,
        }
    }

    /// Whether a request of this kind begins with a transactional id, and the first version with compact strings.
    fn transactional(self) -> Option<i16> {
        match self {
            Self::Produce => Some(9),
            Self::InitProducerId => Some(2),
            Self::AddPartitionsToTxn
            | Self::AddOffsetsToTxn
            | Self::EndTxn
            | Self::TxnOffsetCommit => Some(3),
            Self::Fetch | Self::OffsetFetch | Self::JoinGroup | Self::Heartbeat | Self::Other => {
                None
            }
        }
    }
}

/// A request, as far as it is understood.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) api: Api,
    pub(super) version: i16,
    pub(super) correlation: i32,
    pub(super) client: String,
    /// The transactional id; empty where it has none.
    pub(super) transaction: String,
    /// Who commits offsets in a transaction, and in which generation of the group.
    pub(super) member: Option<(i32, String)>,
}

impl Request {
    /// `None` where the frame is not a request.
    pub(super) fn parse(frame: &[u8]) -> Option<Self> {
        let mut left = Reader::new(frame);
        let (key, version, correlation) = (left.i16()?, left.i16()?, left.i32()?);
        let client = left.string()?;
        let api = Api::of(key);
        let mut request =
            Self { api, version, correlation, client, transaction: String::new(), member: None };
        if let Some(compact) = api.transactional() {
            let compact = compact <= version;
            left.compact = compact;
            if compact {
                left.tags()?;
            }
            request.transaction = left.string()?;
            // Before version 3 offsets were committed without a generation: nobody checked whose they are.
            if api == Api::TxnOffsetCommit && compact {
                let _group = left.string()?;
                left.take(8 + 2)?;
                request.member = Some((left.i32()?, left.string()?));
            }
        }
        Some(request)
    }

    /// The error in the answer to an `EndTxn`: 0 where the transaction ended.
    pub(super) fn end_error(&self, answer: &[u8]) -> Option<i16> {
        let mut left = Reader::new(answer);
        left.take(4)?;
        if 3 <= self.version {
            left.tags()?;
        }
        left.take(4)?;
        left.i16()
    }
}

/// What is left of a frame.
struct Reader<'a> {
    left: &'a [u8],
    /// Whether strings are compact, as in newer versions.
    compact: bool,
}

impl<'a> Reader<'a> {
    fn new(left: &'a [u8]) -> Self {
        Self { left, compact: false }
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.left.split_at_checked(bytes)?;
        self.left = left;
        Some(taken)
    }

    fn i16(&mut self) -> Option<i16> {
        self.take(2)?.try_into().ok().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.take(4)?.try_into().ok().map(i32::from_be_bytes)
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let [byte] = *self.take(1)? else { return None };
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A string; null is empty.
    fn string(&mut self) -> Option<String> {
        let length = if self.compact {
            self.varint()?.saturating_sub(1)
        } else {
            usize::try_from(self.i16()?).unwrap_or(0)
        };
        Some(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn tags(&mut self) -> Option<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = self.varint()?;
            self.take(length)?;
        }
        Some(())
    }
}

/// Reads a frame, without its length.
pub(super) fn read(mut from: impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = usize::try_from(i32::from_be_bytes(length)).map_err(io::Error::other)?;
    let mut frame = vec![0; length];
    from.read_exact(&mut frame)?;
    Ok(frame)
}

/// Writes a frame with its length, at once.
pub(super) fn write(mut to: impl Write, frame: &[u8]) -> io::Result<()> {
    let length = i32::try_from(frame.len()).map_err(io::Error::other)?;
    to.write_all(&[&length.to_be_bytes(), frame].concat())
}

/// A `TxnOffsetCommit` of version 3, as a client of a group sends it.
#[test]
fn the_generation_of_a_commit_is_found() {
    let mut frame = Vec::new();
    frame.extend([0, 28, 0, 3, 0, 0, 0, 7, 0, 1, b'a', 0]);
    frame.extend([2, b't', 2, b'g', 0, 0, 0, 0, 0, 0, 0, 9, 0, 1]);
    frame.extend([0, 0, 0, 5, 3, b'm', b'1', 0, 1, 0]);
    let request = Request::parse(&frame).unwrap();
    assert_eq!((request.api, request.correlation), (Api::TxnOffsetCommit, 7));
    assert_eq!((request.client.as_str(), request.transaction.as_str()), ("a", "t"));
    assert_eq!(request.member, Some((5, "m1".to_owned())));
    frame[3] = 2;
    assert_eq!(Request::parse(&frame).unwrap().member, None);
}

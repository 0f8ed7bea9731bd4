//! `MessagePack`, by its specification of 2017 (with `bin`, and moments as the extension -1).

use super::{Given, Head, Heads, Rest};

/// A cursor.
#[derive(Debug, Clone, Copy)]
pub(in crate::format) struct MessagePack<'a>(Rest<'a>);

impl<'a> Heads<'a> for MessagePack<'a> {
    const NAME: &'static str = "MessagePack";

    fn new(bytes: &'a [u8]) -> Self {
        Self(Rest(bytes))
    }

    fn left(&self) -> usize {
        self.0.0.len()
    }

    fn head(&mut self) -> Given<Head<'a>> {
        let marker = self.0.byte()?;
        let list = |count| Head::List(Some(count));
        let map = |count| Head::Map(Some(count));
        Ok(match marker {
            0x00..=0x7f => Head::Int(marker.into()),
            0x80..=0x8f => map(u64::from(marker & 0x0f)),
            0x90..=0x9f => list(u64::from(marker & 0x0f)),
            0xa0..=0xbf => self.text(u64::from(marker & 0x1f))?,
            0xc0 => Head::Null,
            0xc1 => return Err("has the byte c1, which MessagePack does not use".to_owned()),
            0xc2 | 0xc3 => Head::Bool(marker == 0xc3),
            0xc4..=0xc6 => {
                let size = self.size(marker - 0xc4)?;
                Head::Bytes(self.0.take(size)?.into())
            }
            0xc7..=0xc9 => {
                let size = self.size(marker - 0xc7)?;
                self.other(size)?
            }
            0xca => Head::Single(f32::from_be_bytes(self.0.array()?)),
            0xcb => Head::Double(f64::from_be_bytes(self.0.array()?)),
            0xcc..=0xce => Head::Int(self.size(marker - 0xcc)?.into()),
            0xcf => Head::Int(u64::from_be_bytes(self.0.array()?).into()),
            0xd0 => Head::Int(i8::from_be_bytes(self.0.array()?).into()),
            0xd1 => Head::Int(i16::from_be_bytes(self.0.array()?).into()),
            0xd2 => Head::Int(i32::from_be_bytes(self.0.array()?).into()),
            0xd3 => Head::Int(i64::from_be_bytes(self.0.array()?).into()),
            0xd4..=0xd8 => self.other(1 << (marker - 0xd4))?,
            0xd9..=0xdb => {
                let size = self.size(marker - 0xd9)?;
                self.text(size)?
            }
            0xdc | 0xdd => list(self.size(marker - 0xdb)?),
            0xde | 0xdf => map(self.size(marker - 0xdd)?),
            0xe0..=0xff => Head::Int(i8::from_be_bytes([marker]).into()),
        })
    }
}

impl<'a> MessagePack<'a> {
    /// A number of 1, 2 or 4 bytes: 0, 1 or 2.
    fn size(&mut self, form: u8) -> Given<u64> {
        Ok(match form {
            0 => self.0.byte()?.into(),
            1 => u16::from_be_bytes(self.0.array()?).into(),
            _ => u32::from_be_bytes(self.0.array()?).into(),
        })
    }

    fn text(&mut self, size: u64) -> Given<Head<'a>> {
        Ok(Head::Text(self.0.text(size)?.into()))
    }

    fn other(&mut self, size: u64) -> Given<Head<'a>> {
        let [kind] = self.0.array()?;
        Ok(Head::Other(i8::from_be_bytes([kind]), self.0.take(size)?))
    }
}

/// Milliseconds since 1970, rounded down, of a moment: the extension -1 in one of its three forms.
pub(super) fn milliseconds(kind: i8, data: &[u8]) -> Option<i128> {
    let (seconds, nanos): (i128, u32) = match (kind, data.len()) {
        (-1, 4) => (u32::from_be_bytes(data.try_into().ok()?).into(), 0),
        (-1, 8) => {
            let both = u64::from_be_bytes(data.try_into().ok()?);
            ((both & ((1 << 34) - 1)).into(), u32::try_from(both >> 34).ok()?)
        }
        (-1, 12) => {
            let (nanos, seconds) = data.split_first_chunk()?;
            (i64::from_be_bytes(seconds.try_into().ok()?).into(), u32::from_be_bytes(*nanos))
        }
        _ => return None,
    };
    (nanos < 1_000_000_000).then(|| seconds * 1_000 + i128::from(nanos / 1_000_000))
}

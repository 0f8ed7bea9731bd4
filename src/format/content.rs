//! What a producer did to a value before it was sent: the header `content-encoding` (RFC 9110, section 8.4).

use std::borrow::Cow;
use std::io::Read;

use flate2::read::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;

use super::undecodable;
use crate::record::{Fault, Record};

/// The header's name.
const HEADER: &[u8] = b"content-encoding";

/// A value may become so many times as large as it was sent, or [`SMALL`] if that is more.
const RATIO: usize = 100;

/// Whatever the ratio, so much is no bomb.
const SMALL: usize = 1 << 20;

/// Whatever the ratio, more is not read.
const MOST: usize = 64 << 20;

/// The value of a record as its producer had it; `None` where there is none.
///
/// # Errors
///
/// An encoding that is not known here, bytes that are not of it, and what becomes too large.
pub(super) fn of(record: &Record) -> Result<Option<Cow<'_, [u8]>>, Fault> {
    let Some(value) = record.value.as_deref() else { return Ok(None) };
    let named = |name: &[u8]| name.eq_ignore_ascii_case(HEADER);
    let Some(header) = record.headers.iter().rfind(|header| named(&header.name)) else {
        return Ok(Some(Cow::Borrowed(value)));
    };
    let encoding = String::from_utf8_lossy(header.value.as_deref().unwrap_or_default());
    let encoding = encoding.trim().to_ascii_lowercase();
    let decoded = match encoding.as_str() {
        // Some clients write the characters' encoding there.
        "" | "identity" | "utf-8" | "utf8" => return Ok(Some(Cow::Borrowed(value))),
        // Some decoders take it for the end of one that was whole.
        "gzip" | "x-gzip" | "lz4" | "zstd" if value.is_empty() => Err("it is empty".to_owned()),
        "gzip" | "x-gzip" => all(MultiGzDecoder::new(value), value.len()),
        "lz4" => lz4(value),
        "zstd" => zstd::Decoder::with_buffer(value)
            .map_err(|error| error.to_string())
            .and_then(|decoder| all(decoder, value.len())),
        _ => {
            return Err(undecodable(
                "has a header content-encoding that is not known here: gzip, zstd and lz4 are"
                    .to_owned(),
            ));
        }
    };
    decoded.map(|bytes| Some(Cow::Owned(bytes))).map_err(|wrong| {
        undecodable(format!("is not what its header content-encoding ({encoding}) says: {wrong}"))
    })
}

/// The content of LZ4 frames, one behind the other (`lz4_Frame_format.md` of lz4 1.10). The decoder takes an end between two
/// blocks for the end, so frames are told apart here.
fn lz4(value: &[u8]) -> Result<Vec<u8>, String> {
    let (mut rest, mut content) = (value, Vec::new());
    while !rest.is_empty() {
        let (frame, behind) = lz4_frame(rest).ok_or("it is no LZ4 frame, or cut off")?;
        if let Some((frame, size)) = frame {
            let part = all(FrameDecoder::new(frame), value.len())?;
            if size.is_some_and(|size| u64::try_from(part.len()) != Ok(size)) {
                return Err("it has not the size that it says".to_owned());
            }
            content.extend_from_slice(&part);
            if bound(value.len()) < content.len() {
                return Err(too_large(value.len()));
            }
        }
        rest = behind;
    }
    Ok(content)
}

/// The first frame with the size of its content, where it says one, or `None` of a frame to be skipped; and what follows.
#[expect(clippy::type_complexity, reason = "a frame and the rest")]
fn lz4_frame(bytes: &[u8]) -> Option<(Option<(&[u8], Option<u64>)>, &[u8])> {
    let (magic, mut rest) = bytes.split_first_chunk()?;
    let magic = u32::from_le_bytes(*magic);
    if (0x184d_2a50..=0x184d_2a5f).contains(&magic) {
        let (size, rest) = rest.split_first_chunk()?;
        return Some((None, rest.get(usize::try_from(u32::from_le_bytes(*size)).ok()?..)?));
    }
    if magic != 0x184d_2204 {
        return None;
    }
    let flags = *rest.first()?;
    let has = |bit: u8, size: usize| if flags & bit == 0 { 0 } else { size };
    let size = match has(0x08, 8) {
        0 => None,
        _ => rest.get(2..)?.first_chunk().map(|size| u64::from_le_bytes(*size)),
    };
    // Flags, block size, content size, dictionary, the header's checksum.
    rest = rest.get(2 + has(0x08, 8) + has(0x01, 4) + 1..)?;
    loop {
        let (length, behind) = rest.split_first_chunk()?;
        match usize::try_from(u32::from_le_bytes(*length) & 0x7fff_ffff).ok()? {
            0 => {
                let behind = behind.get(has(0x04, 4)..)?;
                let frame = bytes.get(..bytes.len() - behind.len())?;
                return Some((Some((frame, size)), behind));
            }
            length => rest = behind.get(length + has(0x10, 4)..)?,
        }
    }
}

fn bound(sent: usize) -> usize {
    sent.saturating_mul(RATIO).clamp(SMALL, MOST)
}

fn too_large(sent: usize) -> String {
    format!("it becomes more than {} bytes, of {sent}", bound(sent))
}

fn all(decoder: impl Read, sent: usize) -> Result<Vec<u8>, String> {
    let most = bound(sent);
    let mut bytes = Vec::new();
    let bound = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(bound).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if most < bytes.len() {
        return Err(too_large(sent));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::record::{Header, Offset, Partition};

    fn record(value: Vec<u8>, encoding: &str) -> Record {
        let header = Header {
            name: b"Content-Encoding".to_vec(),
            value: Some(encoding.as_bytes().to_vec()),
        };
        Record {
            partition: Partition { topic: 0, number: 0 },
            offset: Offset(0),
            timestamp: None,
            key: None,
            value: Some(value),
            headers: vec![header],
        }
    }

    fn encoded(bytes: &[u8], encoding: &str) -> Vec<u8> {
        match encoding {
            "gzip" => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            "lz4" => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            "zstd" => zstd::encode_all(bytes, 1).unwrap(),
            _ => bytes.to_vec(),
        }
    }

    #[test]
    fn a_value_is_what_its_producer_had() {
        let text = b"{\"a\":1}".repeat(20);
        for encoding in ["gzip", "zstd", "lz4", "identity", "UTF-8", ""] {
            let sent = encoded(&text, encoding);
            let whole = record(sent.clone(), encoding);
            assert_eq!(of(&whole).unwrap().as_deref(), Some(&*text), "{encoding}");
            if ["gzip", "zstd", "lz4"].contains(&encoding) {
                let twice = record([&*sent, &*sent].concat(), encoding);
                assert_eq!(of(&twice).unwrap().as_deref(), Some(&*[&*text, &*text].concat()));
                let more = record([&*sent, b"{}"].concat(), encoding);
                assert!(of(&more).is_err(), "{encoding}, and more behind it");
                for end in 0..sent.len() {
                    let cut = record(sent[..end].to_vec(), encoding);
                    let cut = of(&cut);
                    assert!(cut.is_err(), "{encoding}, cut to {end} bytes");
                }
            }
        }
        let other = record(text, "br");
        let fault = of(&other).unwrap_err();
        assert!(fault.message.contains("gzip, zstd and lz4"), "{fault}");
    }

    #[test]
    fn bombs_are_not_blown_up() {
        for encoding in ["gzip", "zstd", "lz4"] {
            let bomb = record(encoded(&vec![0; 100 << 20], encoding), encoding);
            let fault = of(&bomb).unwrap_err();
            assert!(fault.message.contains("becomes more than"), "{encoding}: {fault}");
        }
    }
}

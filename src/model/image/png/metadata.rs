//! How a PNG says that it is to be turned, wherever Pillow looks for it; of several chunks the last one counts.
//!
//! | chunk | keyword | holds |
//! |---|---|---|
//! | `eXIf` | | EXIF |
//! | `tEXt` | `exif` | EXIF |
//! | `tEXt`, `zTXt`, `iTXt` | `Raw profile type exif` | EXIF in hexadecimal digits behind three lines, as `ImageMagick` writes it; where there is no other |
//! | `tEXt`, `zTXt`, `iTXt` | `XML:com.adobe.xmp` | XMP; where EXIF says nothing |
//!
//! What cannot be read says nothing: a picture whose metadata are broken is a picture still.

use std::borrow::Cow;
use std::io::{self, Read as _};

use ::image::metadata::Orientation;
use flate2::read::ZlibDecoder;

use crate::model::image::picture;

/// Longest text that is inflated, and all of them together, in bytes: Pillow's bounds.
const LONGEST: u64 = 1 << 20;
const MOST: u64 = 64 * LONGEST;

const PROFILE: &[u8] = b"Raw profile type exif";
const XMP: &[u8] = b"XML:com.adobe.xmp";

type Bytes<'a> = Cow<'a, [u8]>;

/// What was met of it.
#[derive(Default)]
pub(super) struct Metadata<'a> {
    exif: Option<&'a [u8]>,
    profile: Option<Bytes<'a>>,
    xmp: Option<Bytes<'a>>,
    /// XMP of an `iTXt`, of whatever bytes: where there is no other, or that is empty.
    packet: Option<Bytes<'a>>,
    /// Bytes that were inflated.
    inflated: u64,
}

impl<'a> Metadata<'a> {
    /// Takes a chunk into account.
    pub(super) fn take(&mut self, name: [u8; 4], body: &'a [u8]) {
        if name == *b"eXIf" {
            self.exif = Some(body);
            return;
        }
        let (keyword, rest) = cut(body).unwrap_or((body, &[]));
        if name == *b"tEXt" && keyword == b"exif" {
            self.exif = Some(rest);
        }
        if ![PROFILE, XMP].contains(&keyword) {
            return;
        }
        let Some(text) = self.text(name, rest) else { return };
        let (international, utf8) = (name == *b"iTXt", std::str::from_utf8(&text).is_ok());
        if international && keyword == XMP {
            self.packet = Some(text.clone());
        }
        // Other chunks are Latin-1, in which everything is a text.
        if utf8 || !international {
            let place = if keyword == XMP { &mut self.xmp } else { &mut self.profile };
            *place = Some(text);
        }
    }

    /// The text of a chunk, behind its keyword.
    fn text(&mut self, name: [u8; 4], rest: &'a [u8]) -> Option<Bytes<'a>> {
        match (&name, rest) {
            (b"tEXt", text) => Some(Cow::Borrowed(text)),
            // What zlib finds wrong is an empty text.
            (b"zTXt", [0, packed @ ..]) => Some(self.inflate(packed).unwrap_or_default().into()),
            (b"iTXt", [flag, method, rest @ ..]) => {
                let (_language, rest) = cut(rest)?;
                let (_translated, text) = cut(rest)?;
                match (flag, method) {
                    (0, _) => Some(Cow::Borrowed(text)),
                    (_, 0) => Some(self.inflate(text)?.into()),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// A text that is not cut short by being too long; by its file it may be.
    fn inflate(&mut self, packed: &[u8]) -> Option<Vec<u8>> {
        let most = LONGEST.min(MOST.saturating_sub(self.inflated));
        let mut text = Vec::new();
        let read = ZlibDecoder::new(packed).take(most + 1).read_to_end(&mut text);
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        self.inflated = self.inflated.saturating_add(length);
        let right = read.map_or_else(|e| e.kind() == io::ErrorKind::UnexpectedEof, |_| true);
        (right && length <= most).then_some(text)
    }

    pub(super) fn orientation(&self) -> Orientation {
        let profile = self.profile.as_deref().map(digits);
        let said = |text: &&[u8]| !text.is_empty();
        let xmp = self.xmp.as_deref().filter(said).or(self.packet.as_deref());
        picture::orientation(self.exif.or(profile.as_deref()), xmp)
    }
}

/// What stands before the first zero byte, and behind it.
fn cut(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let place = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..place], &bytes[place + 1..]))
}

/// The bytes that hexadecimal digits stand for, behind three lines; none where something else is among them.
fn digits(profile: &[u8]) -> Vec<u8> {
    let lines = profile.splitn(4, |byte| *byte == b'\n').nth(3).unwrap_or_default();
    let digits = lines.iter().filter(|byte| !byte.is_ascii_whitespace());
    let digits: Option<Vec<u32>> = digits.map(|digit| char::from(*digit).to_digit(16)).collect();
    let digits = digits.unwrap_or_default();
    let (pairs, odd) = digits.as_chunks::<2>();
    if !odd.is_empty() {
        return Vec::new();
    }
    pairs.iter().filter_map(|[high, low]| u8::try_from(high * 16 + low).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut out = ZlibEncoder::new(Vec::new(), Compression::best());
        out.write_all(text).unwrap();
        out.finish().unwrap()
    }

    fn turned(chunks: &[(&[u8; 4], Vec<u8>)]) -> Orientation {
        let mut metadata = Metadata::default();
        chunks.iter().for_each(|(name, body)| metadata.take(**name, body));
        metadata.orientation()
    }

    fn xmp(digit: u8) -> Vec<u8> {
        format!("<x tiff:Orientation=\"{digit}\"/>").into_bytes()
    }

    /// That it is right where it is right is for Pillow's own pictures to show.
    #[test]
    fn what_is_broken_or_too_long_says_nothing() {
        const PLAIN: &[u8] = b"XML:com.adobe.xmp\0";
        const PACKED: &[u8] = b"XML:com.adobe.xmp\0\x01\0\0\0";
        let long = |length: usize| packed(&[xmp(6), vec![b' '; length]].concat());
        let of = |head: &[u8], body: &[u8]| [head, body].concat();
        let profile = |text: &str| of(b"Raw profile type exif\0", text.as_bytes());
        let none = Orientation::NoTransforms;
        let six = Orientation::from_exif(6).unwrap();
        let exif = "4949 2a00 08000000 0100 1201 0300 01000000 0600\n0000";
        for (what, chunks, expect) in [
            ("a text", vec![(b"tEXt", of(PLAIN, &xmp(6)))], six),
            (
                "the last one",
                vec![(b"tEXt", of(PLAIN, &xmp(1))), (b"iTXt", of(PACKED, &packed(&xmp(6))))],
                six,
            ),
            (
                "an empty one",
                vec![(b"tEXt", of(PLAIN, &xmp(6))), (b"zTXt", of(PLAIN, b"\0nothing"))],
                none,
            ),
            ("a long one", vec![(b"iTXt", of(PACKED, &long(1 << 19)))], six),
            ("a bomb", vec![(b"iTXt", of(PACKED, &long(1 << 20)))], none),
            ("a damaged one", vec![(b"iTXt", of(PACKED, b"nothing"))], none),
            (
                "another method",
                vec![(b"iTXt", of(b"XML:com.adobe.xmp\0\x01\x01\0\0", &packed(&xmp(6))))],
                none,
            ),
            (
                "no text",
                vec![(b"iTXt", PLAIN.to_vec()), (b"zTXt", PLAIN.to_vec()), (b"tEXt", vec![])],
                none,
            ),
            ("a profile", vec![(b"tEXt", profile(&format!("\nexif\n26\n{exif}\n")))], six),
            ("half a byte", vec![(b"tEXt", profile(&format!("\nexif\n26\n{exif}0\n")))], none),
            ("no digits", vec![(b"tEXt", profile(&format!("\nexif\n26\n{exif}xx\n")))], none),
            ("no lines", vec![(b"tEXt", profile(exif))], none),
        ] {
            assert_eq!(turned(&chunks), expect, "{what}");
        }
        // However many there are, little is inflated.
        let mut metadata = Metadata::default();
        let bomb = of(PACKED, &long(1 << 20));
        (0..1_000).for_each(|_| metadata.take(*b"iTXt", &bomb));
        assert!(metadata.inflated <= MOST + 1_000, "{}", metadata.inflated);
    }
}

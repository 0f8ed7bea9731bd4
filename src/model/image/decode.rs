//! An encoded picture becomes RGB, as `load_image` of transformers does it on Pillow: `open`, `exif_transpose`,
//! `convert("RGB")`.
//!
//! ```text
//!  JPEG | PNG | WebP | GIF | BMP ─► is it whole? ─► decode within bounds ─► turn as EXIF says ─► RGB
//! ```
//!
//! Transparency is dropped, 16 bits become the upper 8 but for grey, which Pillow clips at 255, and of an animation the
//! first frame counts. Whether a picture is whole is not for its last bytes to say: what stands behind a picture does
//! not matter, an end marker may be missing where nothing else is, and data that is missing is never made up.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder, ImageError, Limits, RgbImage};

use super::{bmp, gif, jpeg, png};
use crate::record::{Fault, FaultClass};

/// Longest side of an image that is decoded or made by resizing.
pub(super) const LONGEST_SIDE: u32 = 8_192;

/// Most bytes that decoding an image may take: 44 million pixels in RGB.
pub(super) const MOST_BYTES: u64 = 128 << 20;

/// A picture in RGB, upright.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) image: RgbImage,
    /// The one colour that its file calls transparent, where it has no other transparency.
    pub(super) clear: Option<[u8; 3]>,
}

/// Why there is no picture.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It has more pixels than are decoded.
    TooLarge,
    /// What is wrong with its bytes.
    Broken(String),
}

impl Refusal {
    pub(super) fn broken(what: impl Into<String>) -> Self {
        Self::Broken(what.into())
    }
}

impl From<ImageError> for Refusal {
    fn from(error: ImageError) -> Self {
        if matches!(error, ImageError::Limits(_)) {
            Self::TooLarge
        } else {
            Self::Broken(error.to_string())
        }
    }
}

/// Whether an image of these sides, with so many bytes a pixel, is decoded.
pub(super) fn bounded(width: u32, height: u32, bytes: u64) -> Result<(), Refusal> {
    let fits = width.max(height) <= LONGEST_SIDE
        && u64::from(width) * u64::from(height) * bytes <= MOST_BYTES;
    if fits { Ok(()) } else { Err(Refusal::TooLarge) }
}

/// Decodes a JPEG, PNG, WebP, GIF or BMP, told by its first bytes.
///
/// # Errors
///
/// Bytes that are no whole picture of these formats; a picture of too many pixels.
pub(super) fn decode(bytes: &[u8]) -> Result<Picture, Fault> {
    let undecodable = |message: String| Fault::new(FaultClass::Undecodable, message);
    let Some((name, read)) = reader(bytes) else {
        return Err(undecodable(unknown(bytes)));
    };
    let picture = catch_unwind(AssertUnwindSafe(|| read(bytes)))
        .map_err(|_panic| undecodable(format!("the decoder of {name} panicked")))?;
    picture.map_err(|refusal| match refusal {
        Refusal::TooLarge => {
            let message = format!(
                "an image of more than {LONGEST_SIDE} × {LONGEST_SIDE} pixels or {} MiB",
                MOST_BYTES >> 20
            );
            Fault::new(FaultClass::Invalid, message)
        }
        Refusal::Broken(what) => undecodable(format!("a {name} that cannot be decoded: {what}")),
    })
}

type Reader = fn(&[u8]) -> Result<Picture, Refusal>;

/// The name of the format that the bytes begin like, and what decodes it.
fn reader(bytes: &[u8]) -> Option<(&'static str, Reader)> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Some(("JPEG", jpeg::read)),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(("PNG", png::read)),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(("WebP", webp)),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(("GIF", gif::read)),
        [b'B', b'M', ..] => Some(("BMP", bmp::read)),
        _ => None,
    }
}

/// What is said of other bytes: the name of their format, where it is known.
fn unknown(bytes: &[u8]) -> String {
    let name = match bytes {
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Some("a TIFF"),
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', ..] => Some("an AVIF"),
        [_, _, _, _, b'f', b't', b'y', b'p', b'h' | b'm', ..] => Some("a HEIC"),
        [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] | [0xff, 0x4f, 0xff, 0x51, ..] => {
            Some("a JPEG 2000")
        }
        [0xff, 0x0a, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => Some("a JPEG XL"),
        [0, 0, 1, 0, ..] => Some("an icon (ICO)"),
        [b'%', b'P', b'D', b'F', ..] => Some("a PDF"),
        [b'<', ..] => Some("text (SVG, HTML or XML)"),
        _ => None,
    };
    let length = bytes.len();
    match name {
        Some(name) => format!("{name}; only JPEG, PNG, WebP, GIF and BMP are read: convert it"),
        None => format!("not a JPEG, PNG, WebP, GIF or BMP ({length} bytes)"),
    }
}

/// The bounds of the image crate's decoders.
fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(LONGEST_SIDE);
    limits.max_image_height = Some(LONGEST_SIDE);
    limits.max_alloc = Some(MOST_BYTES);
    limits
}

/// What a decoder of the image crate makes of an image, within bounds.
pub(super) fn decoded(mut decoder: impl ImageDecoder) -> Result<DynamicImage, Refusal> {
    let mut limits = limits();
    limits.check_dimensions(decoder.dimensions().0, decoder.dimensions().1)?;
    limits.reserve(decoder.total_bytes())?;
    decoder.set_limits(limits)?;
    Ok(DynamicImage::from_decoder(decoder)?)
}

fn webp(bytes: &[u8]) -> Result<Picture, Refusal> {
    let size = bytes
        .get(4..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |four| u32::from_le_bytes(*four));
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) < u64::from(size) + 8 {
        return Err(Refusal::broken("it is cut off"));
    }
    let mut decoder = ::image::codecs::webp::WebPDecoder::new(Cursor::new(bytes))?;
    // A picture whose metadata cannot be read is a picture still.
    let exif = decoder.exif_metadata().ok().flatten();
    let xmp = decoder.xmp_metadata().ok().flatten();
    let orientation = orientation(exif.as_deref(), xmp.as_deref());
    let image = upright(decoded(decoder)?, orientation);
    Ok(Picture { image: image.into_rgb8(), clear: None })
}

/// Turned as its metadata say.
pub(super) fn upright(mut image: DynamicImage, orientation: Orientation) -> DynamicImage {
    image.apply_orientation(orientation);
    image
}

/// How a picture is to be turned: EXIF's tag, else XMP's, as Pillow finds them.
pub(super) fn orientation(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Orientation {
    let tag = exif.and_then(exif_orientation).or_else(|| xmp.and_then(xmp_orientation));
    tag.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms)
}

/// The tag 0x0112 of the first directory of a TIFF.
fn exif_orientation(exif: &[u8]) -> Option<u8> {
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let little = match exif.first_chunk()? {
        b"II" => true,
        b"MM" => false,
        _ => return None,
    };
    let short = |place: usize| {
        let two = *exif.get(place..)?.first_chunk()?;
        Some(if little { u16::from_le_bytes(two) } else { u16::from_be_bytes(two) })
    };
    let long = |place: usize| {
        let four = *exif.get(place..)?.first_chunk()?;
        Some(if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) })
    };
    let directory = usize::try_from(long(4)?).ok()?;
    let entries = usize::from(short(directory)?);
    let entry = |number: usize| directory + 2 + 12 * number;
    let tag = (0..entries).map(entry).find(|place| short(*place) == Some(0x0112))?;
    let value = match (short(tag + 2)?, long(tag + 4)?) {
        (1, 1) => u32::from(*exif.get(tag + 8)?),
        (3, 1) => u32::from(short(tag + 8)?),
        (4, 1) => long(tag + 8)?,
        _ => return None,
    };
    u8::try_from(value).ok()
}

/// The digit behind `tiff:Orientation="` or `tiff:Orientation>`.
fn xmp_orientation(xmp: &[u8]) -> Option<u8> {
    const NAME: &[u8] = b"tiff:Orientation";
    let behind = xmp.windows(NAME.len()).enumerate().filter(|(_, part)| *part == NAME);
    let digit = |(place, _): (usize, &[u8])| match &xmp[place + NAME.len()..] {
        [b'=', b'"', digit @ b'0'..=b'9', ..] | [b'>', digit @ b'0'..=b'9', ..] => {
            Some(digit - b'0')
        }
        _ => None,
    };
    behind.map(digit).find_map(|digit| digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_orientation_is_found() {
        let entry = |little: bool, kind: u16, value: [u8; 4]| {
            let two = |x: u16| if little { x.to_le_bytes() } else { x.to_be_bytes() };
            let four = |x: u32| if little { x.to_le_bytes() } else { x.to_be_bytes() };
            let head: &[u8] = if little { b"II" } else { b"MM" };
            [
                head,
                &two(42),
                &four(8),
                &two(2),
                &[0; 12],
                &two(0x0112),
                &two(kind),
                &four(1),
                &value,
            ]
            .concat()
        };
        for (exif, expect) in [
            (entry(true, 3, [6, 0, 0, 0]), Some(6)),
            (entry(false, 3, [0, 8, 0, 0]), Some(8)),
            (entry(false, 4, [0, 0, 0, 3]), Some(3)),
            (entry(true, 1, [2, 0, 0, 0]), Some(2)),
            ([b"Exif\0\0", &entry(true, 3, [5, 0, 0, 0])[..]].concat(), Some(5)),
            (entry(true, 2, [6, 0, 0, 0]), None),
            (b"II*\0\xff\xff\xff\xff".to_vec(), None),
            (b"no TIFF".to_vec(), None),
            (Vec::new(), None),
        ] {
            assert_eq!(exif_orientation(&exif), expect, "{exif:?}");
            for end in 0..exif.len() {
                exif_orientation(&exif[..end]);
            }
        }
        let xmp = br#"<x tiff:Orientation=6 tiff:Orientation="7"/>"#;
        assert_eq!(xmp_orientation(xmp), Some(7));
        assert_eq!(xmp_orientation(b"<tiff:Orientation>3</tiff:Orientation>"), Some(3));
        assert_eq!(xmp_orientation(b"tiff:Orientation=\""), None);
        let exif = entry(true, 3, [1, 0, 0, 0]);
        assert_eq!(orientation(Some(&exif), Some(xmp)), Orientation::NoTransforms);
        assert_eq!(orientation(None, Some(xmp)), Orientation::Rotate270FlipH);
        assert_eq!(
            orientation(Some(&entry(true, 3, [9, 0, 0, 0])), None),
            Orientation::NoTransforms
        );
    }

    #[test]
    fn other_formats_are_named() {
        for (bytes, part) in [
            (&b"II*\0"[..], "a TIFF; only JPEG, PNG, WebP, GIF and BMP are read: convert it"),
            (b"\0\0\0\x1cftypavif", "an AVIF"),
            (b"\0\0\0\x1cftypheic", "a HEIC"),
            (b"<svg", "text"),
            (b"", "not a JPEG, PNG, WebP, GIF or BMP (0 bytes)"),
            (b"\xff\xd8", "not a JPEG"),
        ] {
            let fault = decode(bytes).unwrap_err();
            assert_eq!(fault.class, FaultClass::Undecodable);
            assert!(fault.message.contains(part), "{fault}");
        }
    }
}

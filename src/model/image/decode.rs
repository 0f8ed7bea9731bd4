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

use ::image::ImageDecoder as _;

use super::picture::{LONGEST_SIDE, MOST_BYTES, Picture, Refusal, decoded, orientation, upright};
use super::{bmp, gif, jpeg, png};
use crate::record::{Fault, FaultClass};

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

#[cfg(test)]
mod tests {
    use super::*;

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

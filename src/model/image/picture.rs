//! A picture, the bounds within which one is decoded, and how it is turned.

use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder, ImageError, Limits, RgbImage};

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
}

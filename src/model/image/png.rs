//! A PNG as Pillow reads it: what it says before its image data must be right to the last checksum; of the image data
//! zlib's checksum counts, not PNG's; what comes behind it, the end marker too, may be missing or anything.
//!
//! ```text
//!  IHDR, PLTE, tRNS, eXIf, … ─► IDAT … ─► whatever         what Pillow believes
//!            └──── IHDR, PLTE, IDAT, IEND ────► decoder     what the decoder gets
//! ```
//!
//! PNG 3rd edition. Text, profiles and animation never reach the decoder; of text, how the picture is turned is
//! [read](metadata).

use std::io::{self, Cursor, Read as _};

use ::image::codecs::png::PngDecoder;
use ::image::metadata::Orientation;
use ::image::{DynamicImage, RgbImage};
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use super::picture::{MOST_BYTES, Picture, Refusal, decoded, upright};

mod metadata;

use metadata::Metadata;

/// What a PNG begins with.
const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// Colour types.
const GREY: u8 = 0;
const RGB: u8 = 2;
const PALETTE: u8 = 3;

/// Decodes a PNG.
pub(super) fn read(bytes: &[u8]) -> Result<Picture, Refusal> {
    let file = File::read(bytes)?;
    let again = if file.doubtful { Some(file.inflated()?) } else { None };
    let clean = match &again {
        Some(data) => file.clean(&[data]),
        None => file.clean(&file.data),
    };
    let image = decoded(PngDecoder::new(Cursor::new(clean))?)?;
    let clear = file.clear();
    Ok(Picture { image: rgb(upright(image, file.orientation)), clear })
}

/// Eight bits a channel: the upper ones, of grey the lowest ones clipped at 255, as Pillow has them.
fn rgb(image: DynamicImage) -> RgbImage {
    let upper = |value: u16| value.to_be_bytes()[0];
    let (width, height) = (image.width(), image.height());
    let bytes = if let DynamicImage::ImageLuma16(grey) = image {
        grey.iter().flat_map(|value| [u8::try_from(*value).unwrap_or(u8::MAX); 3]).collect()
    } else if let DynamicImage::ImageLumaA16(grey) = image {
        grey.pixels().flat_map(|pixel| [upper(pixel.0[0]); 3]).collect()
    } else if let DynamicImage::ImageRgb16(wide) = image {
        wide.iter().map(|value| upper(*value)).collect()
    } else if let DynamicImage::ImageRgba16(wide) = image {
        wide.pixels().flat_map(|pixel| [0, 1, 2].map(|at| upper(pixel.0[at]))).collect()
    } else {
        return image.into_rgb8();
    };
    RgbImage::from_raw(width, height, bytes).unwrap_or_default()
}

/// What matters of a PNG.
struct File<'a> {
    header: [u8; 13],
    palette: &'a [u8],
    transparency: Option<&'a [u8]>,
    orientation: Orientation,
    /// Bodies of the image data's chunks.
    data: Vec<&'a [u8]>,
    /// Whether a checksum of theirs is wrong or missing.
    doubtful: bool,
}

impl<'a> File<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let mut rest = &bytes[SIGNATURE.len()..];
        let (mut header, mut palette, mut transparency) = (None, &[][..], None);
        let mut metadata = Metadata::default();
        let first = loop {
            let Some((chunk, behind)) = Chunk::next(rest) else {
                return Err(Refusal::broken("it ends before its image data"));
            };
            match &chunk.name {
                b"IDAT" => break chunk,
                b"IEND" => return Err(Refusal::broken("it has no image data")),
                _ => chunk.check()?,
            }
            match &chunk.name {
                b"IHDR" => header = chunk.body.first_chunk::<13>().copied(),
                b"PLTE" => palette = chunk.body,
                b"tRNS" => transparency = Some(chunk.body),
                name => metadata.take(*name, chunk.body),
            }
            rest = behind;
        };
        let Some(mut header) = header else {
            return Err(Refusal::broken("it has no header (IHDR)"));
        };
        // Pillow takes every number but 0 for the one way of interlacing that there is.
        header[12] = u8::from(header[12] != 0);
        let mut data = vec![first.body];
        let mut doubtful = first.check().is_err();
        rest = first.behind;
        while let Some((chunk, behind)) = Chunk::next(rest) {
            match &chunk.name {
                b"IDAT" => {
                    doubtful |= chunk.check().is_err();
                    data.push(chunk.body);
                }
                b"IEND" => break,
                name => metadata.take(*name, chunk.body),
            }
            rest = behind;
        }
        let orientation = metadata.orientation();
        Ok(Self { header, palette, transparency, orientation, data, doubtful })
    }

    /// Image data that zlib finds right, as far as it comes, as zlib stores it uncompressed.
    fn inflated(&self) -> Result<Vec<u8>, Refusal> {
        let damaged =
            |error: io::Error| Refusal::Broken(format!("its image data is damaged: {error}"));
        let data = self.data.concat();
        let mut inflated = ZlibDecoder::new(&data[..]).take(MOST_BYTES);
        let mut stored = ZlibEncoder::new(Vec::new(), Compression::none());
        match io::copy(&mut inflated, &mut stored) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(damaged(error)),
            // Whether all rows have come is for the decoder to say.
            _ => stored.finish().map_err(damaged),
        }
    }

    fn depth(&self) -> u8 {
        self.header[8]
    }

    fn colour(&self) -> u8 {
        self.header[9]
    }

    /// A PNG with this image data that is right in everything.
    fn clean(&self, data: &[&[u8]]) -> Vec<u8> {
        let mut out = SIGNATURE.to_vec();
        let mut push = |name: &[u8; 4], bodies: &[&[u8]]| {
            let length: usize = bodies.iter().map(|body| body.len()).sum();
            out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
            out.extend(name);
            let mut sum = crc32fast::Hasher::new();
            sum.update(name);
            for body in bodies {
                out.extend_from_slice(body);
                sum.update(body);
            }
            out.extend(sum.finalize().to_be_bytes());
        };
        push(b"IHDR", &[&self.header]);
        if self.colour() == PALETTE {
            // Colours that the palette does not have are black.
            let colours = 1 << self.depth().min(8);
            let mut palette: Vec<u8> = self.palette.iter().copied().take(3 * colours).collect();
            palette.resize(3 * colours, 0);
            push(b"PLTE", &[&palette]);
        }
        push(b"IDAT", data);
        push(b"IEND", &[]);
        out
    }

    /// The colour that is transparent, where it is one colour. Pillow compares grey of fewer bits unscaled; so do we.
    fn clear(&self) -> Option<[u8; 3]> {
        let body = self.transparency?;
        let short = |place: usize| {
            let value = u16::from_be_bytes(*body.get(place..)?.first_chunk()?);
            u8::try_from(value).ok()
        };
        match (self.colour(), self.depth()) {
            (GREY, 1) => Some([if short(0)? == 0 { 0 } else { 255 }; 3]),
            (GREY, 2..=8) => Some([short(0)?; 3]),
            (RGB, 8) => Some([short(0)?, short(2)?, short(4)?]),
            (PALETTE, _) => {
                let index = body.iter().position(|alpha| *alpha == 0)?;
                let colour = self.palette.get(3 * index..)?.first_chunk().copied();
                let one = body.iter().enumerate().all(|(at, alpha)| *alpha == 255 || at == index);
                colour.filter(|_| one)
            }
            _ => None,
        }
    }
}

/// A chunk, its checksum where there is one.
struct Chunk<'a> {
    name: [u8; 4],
    body: &'a [u8],
    /// What its length announces is there, and the checksum.
    sum: Option<u32>,
    behind: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// The next chunk, cut where the bytes end, and what stands behind it; none where a chunk has no name.
    fn next(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (name, rest) = rest.split_first_chunk()?;
        let named = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        if !name.iter().all(named) {
            return None;
        }
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (body, rest) = rest.split_at(length.min(rest.len()));
        let (sum, behind) = match rest.split_first_chunk() {
            Some((sum, behind)) => (Some(u32::from_be_bytes(*sum)), behind),
            None => (None, &[][..]),
        };
        Some((Self { name: *name, body, sum, behind }, behind))
    }

    fn check(&self) -> Result<(), Refusal> {
        let mut sum = crc32fast::Hasher::new();
        sum.update(&self.name);
        sum.update(self.body);
        if self.sum == Some(sum.finalize()) {
            return Ok(());
        }
        let name = self.name.escape_ascii();
        Err(Refusal::Broken(format!("the checksum of its chunk {name} is wrong")))
    }
}

//! A BMP as Pillow reads it: 1, 4, 8, 16, 24 and 32 bits, palettes, run lengths, bit fields in the layouts that occur.
//!
//! ```text
//!  "BM", offset ─► header (size, depth, compression, masks) ─► palette ─► rows of pixels, padded to four bytes
//! ```
//!
//! Windows Bitmap 3 to 5 and OS/2 1 and 2.

use std::borrow::Cow;

use ::image::RgbImage;

use super::picture::{Picture, Refusal, bounded};
use super::resample::index;

/// How the pixels are stored: `biCompression`.
const PLAIN: u32 = 0;
const RUNS_OF_8: u32 = 1;
const RUNS_OF_4: u32 = 2;
const FIELDS: u32 = 3;

/// Bytes before the header: the magic, the file's size, where the pixels begin.
const START: usize = 14;

/// Colours that a header may announce, as Pillow bounds them; an index reaches 256 of them.
const MOST_COLOURS: usize = 65_536;

/// Decodes a BMP.
pub(super) fn read(bytes: &[u8]) -> Result<Picture, Refusal> {
    let header = Header::read(bytes).ok_or_else(|| Refusal::broken("it ends in its header"))??;
    let Header { width, height, depth, compression, .. } = header;
    if width == 0 || height == 0 {
        return Err(Refusal::broken("it has no pixel"));
    }
    bounded(width, height, 4)?;
    let mut layout = layout(depth, compression, header.masks)?;
    let palette = header.palette(bytes)?;
    let (across, down) = (index(width), index(height));
    let mut stride = (across * usize::from(depth)).div_ceil(32) * 4;
    let mut used = (across * usize::from(depth)).div_ceil(8);
    let mut rows = Cow::Borrowed(bytes.get(header.pixels..).unwrap_or_default());
    if [RUNS_OF_8, RUNS_OF_4].contains(&compression) {
        rows = Cow::Owned(unrolled(bytes, header.pixels, compression == RUNS_OF_4, (across, down)));
        (layout, stride, used) = (Layout::Indexed(8), across, across);
    }
    if rows.len() < stride * (down - 1) + used {
        return Err(Refusal::broken("it ends before the pixels that its header announces"));
    }
    let mut image = RgbImage::new(width, height);
    for (number, pixels) in image.chunks_exact_mut(3 * across).enumerate() {
        let number = if header.upwards { down - 1 - number } else { number };
        let row = &rows[number * stride..];
        for (at, pixel) in pixels.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            *pixel = layout.pixel(row, at, &palette);
        }
    }
    Ok(Picture { image, clear: None })
}

fn short(bytes: &[u8], place: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(place..)?.first_chunk()?))
}

fn long(bytes: &[u8], place: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(place..)?.first_chunk()?))
}

/// What a pixel is.
#[derive(Debug, Clone, Copy)]
enum Layout {
    /// An index of so many bits, the first one on top of its byte.
    Indexed(u32),
    /// Of two bytes the fields of red, green and blue: their lowest bits, and their widths.
    Fields([(u32, u32); 3]),
    /// So many bytes, and the places of red, green and blue among them.
    Bytes(usize, [usize; 3]),
}

const FIVE_SIX_FIVE: Layout = Layout::Fields([(11, 5), (5, 6), (0, 5)]);
const FIVE_FIVE_FIVE: Layout = Layout::Fields([(10, 5), (5, 5), (0, 5)]);
const BGR: Layout = Layout::Bytes(3, [2, 1, 0]);
const BGRX: Layout = Layout::Bytes(4, [2, 1, 0]);
const XBGR: Layout = Layout::Bytes(4, [3, 2, 1]);
const BGXR: Layout = Layout::Bytes(4, [3, 1, 0]);
const RGBX: Layout = Layout::Bytes(4, [0, 1, 2]);

/// Depth and masks of red, green, blue and alpha that Pillow knows; alpha counts at 32 bits only.
const MASKS: [(u16, [u32; 4], Layout); 11] = [
    (16, [0xf800, 0x7e0, 0x1f, 0], FIVE_SIX_FIVE),
    (16, [0x7c00, 0x3e0, 0x1f, 0], FIVE_FIVE_FIVE),
    (24, [0xff_0000, 0xff00, 0xff, 0], BGR),
    (32, [0xff_0000, 0xff00, 0xff, 0], BGRX),
    (32, [0xff_0000, 0xff00, 0xff, 0xff00_0000], BGRX),
    (32, [0, 0, 0, 0], BGRX),
    (32, [0xff00_0000, 0xff_0000, 0xff00, 0], XBGR),
    (32, [0xff00_0000, 0xff_0000, 0xff00, 0xff], XBGR),
    (32, [0xff00_0000, 0xff00, 0xff, 0], BGXR),
    (32, [0xff00_0000, 0xff00, 0xff, 0xff_0000], BGXR),
    (32, [0xff, 0xff00, 0xff_0000, 0xff00_0000], RGBX),
];

/// What the pixels of a file are.
fn layout(depth: u16, compression: u32, masks: [u32; 4]) -> Result<Layout, Refusal> {
    let [red, green, blue, alpha] = masks;
    let masks = [red, green, blue, if depth == 32 { alpha } else { 0 }];
    match (depth, compression) {
        (1 | 4 | 8, PLAIN | RUNS_OF_8 | RUNS_OF_4) => Ok(Layout::Indexed(u32::from(depth))),
        (16, PLAIN) => Ok(FIVE_FIVE_FIVE),
        (24, PLAIN) => Ok(BGR),
        (32, PLAIN) => Ok(BGRX),
        (16 | 24 | 32, FIELDS) => {
            let known = MASKS.iter().find(|(bits, known, _)| (*bits, *known) == (depth, masks));
            known.map(|(_, _, layout)| *layout).ok_or_else(|| {
                Refusal::Broken(format!(
                    "{depth} bits a pixel with the masks {masks:x?} are not supported"
                ))
            })
        }
        _ => Err(Refusal::Broken(format!(
            "{depth} bits a pixel with compression {compression} are not supported"
        ))),
    }
}

impl Layout {
    /// The pixel `at` so many pixels from the left of its row.
    fn pixel(self, row: &[u8], at: usize, palette: &[[u8; 3]; 256]) -> [u8; 3] {
        match self {
            Self::Indexed(8) => palette[usize::from(row[at])],
            Self::Indexed(bits) => {
                let per_byte = 8 / index(bits);
                let shift = 8 - bits * (u32::try_from(at % per_byte).unwrap_or(0) + 1);
                palette[usize::from(row[at / per_byte] >> shift) & ((1 << bits) - 1)]
            }
            Self::Fields(fields) => {
                let value = u32::from(short(row, 2 * at).unwrap_or(0));
                fields.map(|(lowest, width)| {
                    let most = (1 << width) - 1;
                    u8::try_from(((value >> lowest) & most) * 255 / most).unwrap_or(u8::MAX)
                })
            }
            Self::Bytes(size, places) => places.map(|place| row[size * at + place]),
        }
    }
}

/// What a BMP says of itself.
struct Header {
    width: u32,
    height: u32,
    /// Whether the last row comes first.
    upwards: bool,
    depth: u16,
    compression: u32,
    masks: [u32; 4],
    /// Colours of the palette: how many, where they begin, bytes of each.
    colours: (usize, usize, usize),
    /// Where the pixels begin.
    pixels: usize,
}

impl Header {
    /// None where the bytes end in it.
    fn read(bytes: &[u8]) -> Option<Result<Self, Refusal>> {
        let offset = index(long(bytes, 10)?);
        let size = index(long(bytes, START)?);
        if ![12, 40, 52, 56, 64, 108, 124].contains(&size) {
            let message = format!("its header of {size} bytes is of no known kind");
            return Some(Err(Refusal::Broken(message)));
        }
        let head = bytes.get(START..START + size)?;
        let mut masks = [0; 4];
        let mut behind = START + size;
        let (width, height, upwards, depth, compression, colours);
        let step: usize;
        if size == 12 {
            (width, height) = (u32::from(short(head, 4)?), u32::from(short(head, 6)?));
            (upwards, depth, compression) = (true, short(head, 10)?, PLAIN);
            (colours, step) = (0, 3);
        } else {
            // Pillow takes a height for negative where its uppermost byte is full.
            upwards = head[11] != 0xff;
            width = long(head, 4)?;
            height = if upwards { long(head, 8)? } else { long(head, 8)?.wrapping_neg() };
            (depth, compression) = (short(head, 14)?, long(head, 16)?);
            (colours, step) = (index(long(head, 32)?), 4);
            if compression == FIELDS {
                // They stand in a header that has room for them, else behind it, without alpha.
                let count = if size < 56 { 3 } else { 4 };
                for (number, mask) in masks.iter_mut().enumerate().take(count) {
                    *mask = long(bytes, START + 40 + 4 * number)?;
                }
                behind = behind.max(START + 52);
            }
        }
        let all = 1_usize.checked_shl(u32::from(depth)).unwrap_or(usize::MAX);
        let colours = if colours == 0 { all } else { colours };
        let palette = if depth <= 8 { step.saturating_mul(colours) } else { 0 };
        let pixels = match offset {
            0 => behind.saturating_add(palette),
            // Where the pixels would begin in the palette, they begin behind it.
            offset if offset == START + size => offset.saturating_add(palette),
            offset => offset,
        };
        let colours = (colours, behind, step);
        Some(Ok(Self { width, height, upwards, depth, compression, masks, colours, pixels }))
    }

    /// The colours of its palette, as far as they are there; black behind them.
    fn palette(&self, bytes: &[u8]) -> Result<[[u8; 3]; 256], Refusal> {
        let mut palette = [[0; 3]; 256];
        let (colours, place, step) = self.colours;
        if self.depth <= 8 {
            let given = bytes.get(place..).unwrap_or_default().chunks_exact(step).take(colours);
            if MOST_COLOURS < colours || palette.len() < given.len() {
                let message = format!("its palette has {colours} colours, more than 256");
                return Err(Refusal::Broken(message));
            }
            for (colour, given) in palette.iter_mut().zip(given) {
                *colour = [given[2], given[1], given[0]];
            }
        }
        Ok(palette)
    }
}

/// The indices of a picture in run lengths, row by row in the file's order, as far as they come.
fn unrolled(
    bytes: &[u8],
    mut place: usize,
    fours: bool,
    (across, down): (usize, usize),
) -> Vec<u8> {
    let (mut out, mut x) = (Vec::new(), 0);
    let nibble = |byte: u8, at: usize| if at.is_multiple_of(2) { byte >> 4 } else { byte & 15 };
    while out.len() < across * down {
        let Some([count, byte]) = bytes.get(place..).and_then(|rest| rest.first_chunk()) else {
            break;
        };
        place += 2;
        let count = usize::from(*count);
        match (count, *byte) {
            (0, 0) => {
                out.resize(out.len().next_multiple_of(across), 0);
                x = 0;
            }
            (0, 1) => break,
            (0, 2) => {
                let Some([right, up]) = bytes.get(place..).and_then(|rest| rest.first_chunk())
                else {
                    break;
                };
                place += 2;
                let skipped = usize::from(*right) + usize::from(*up) * across;
                out.resize((out.len() + skipped).min(across * down), 0);
                x = out.len() % across;
            }
            (0, literal) => {
                let wanted = usize::from(literal).min(across * down - out.len());
                let length = if fours { wanted.div_ceil(2) } else { wanted };
                let Some(given) = bytes.get(place..).and_then(|rest| rest.get(..length)) else {
                    break;
                };
                if fours {
                    out.extend((0..wanted).map(|at| nibble(given[at / 2], at)));
                } else {
                    out.extend(given);
                }
                x += usize::from(literal);
                place = (place + length).next_multiple_of(2);
            }
            (count, byte) => {
                // What does not fit into the row is dropped.
                let count = count.min(across.saturating_sub(x));
                out.extend((0..count).map(|at| if fours { nibble(byte, at) } else { byte }));
                x += count;
            }
        }
    }
    out
}

//! A JPEG as libjpeg-turbo decodes it for Pillow, bit for bit: what a picture's pixels are is left open by the standard,
//! and every decoder rounds and blows colours up in its own way.
//!
//! ```text
//!  SOI ─► tables, frame ─► scan: Huffman codes ─► coefficients ─► samples of each component ─► full size ─► RGB
//!            ▲                                        │ progressive: after the last scan
//!            └────────────── the next marker ◄────────┘                       EOI ─► whatever
//! ```
//!
//! A scan has all the blocks that the header announces, or the picture is refused: data that is missing is never made up.
//! A code has a bit at least, so this ends with the data, whatever size the header says. Sequential and progressive
//! pictures of 8 bits; ITU T.81. CMYK is inverted, as Adobe writes it and Pillow takes it.

use ::image::metadata::Orientation;
use ::image::{DynamicImage, RgbImage};

use super::picture::{Picture, Refusal, bounded, orientation, upright};
use huffman::{Codes, Halt, Table};
use samples::Plane;
use scan::Scan;

mod huffman;
mod samples;
mod scan;

/// Samples of a block's side.
const SIDE: usize = 8;

/// Bytes behind a last scan without an end marker at which libjpeg, which looks ahead so far, has all of it.
const AHEAD: usize = 8;

/// Huffman tables: two classes, four of each.
type Tables = [[Option<Table>; 4]; 2];

/// A table of 64 divisors, in their natural order, row by row.
type Divisors = [u16; 64];

/// Rows of eight, walked along their diagonals.
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Decodes a JPEG.
pub(super) fn read(bytes: &[u8]) -> Result<Picture, Refusal> {
    let mut decoder = Decoder { rest: bytes, ..Decoder::default() };
    decoder.run()?;
    let orientation = orientation(decoder.exif, decoder.xmp);
    let image = decoder.rgb()?;
    let image = if orientation == Orientation::NoTransforms {
        image
    } else {
        upright(DynamicImage::ImageRgb8(image), orientation).into_rgb8()
    };
    Ok(Picture { image, clear: None })
}

fn cut_off() -> Refusal {
    Refusal::broken("it is cut off")
}

fn short(bytes: &[u8], place: usize) -> Option<usize> {
    let two = bytes.get(place..)?.first_chunk()?;
    Some(usize::from(u16::from_be_bytes(*two)))
}

/// What was read so far.
#[derive(Default)]
struct Decoder<'a> {
    /// What comes.
    rest: &'a [u8],
    frame: Option<Frame>,
    tables: Tables,
    divisors: [Option<Divisors>; 4],
    /// Units between two restart markers; 0: there are none.
    restart: usize,
    jfif: bool,
    /// What Adobe's marker says of the colours.
    adobe: Option<u8>,
    exif: Option<&'a [u8]>,
    xmp: Option<&'a [u8]>,
}

impl<'a> Decoder<'a> {
    /// Reads everything up to the end marker.
    fn run(&mut self) -> Result<(), Refusal> {
        while let Some((marker, body)) = self.segment()? {
            match marker {
                0xc0..=0xc2 => {
                    if self.frame.is_some() {
                        return Err(Refusal::broken("it has two frames"));
                    }
                    self.frame = Some(Frame::read(marker, body)?);
                }
                0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                    let message = "it is lossless, hierarchical or arithmetically coded, which is not supported";
                    return Err(Refusal::broken(message));
                }
                0xc4 => Table::read_all(body, &mut self.tables)?,
                0xdb => self.read_divisors(body)?,
                0xdd => self.restart = short(body, 0).ok_or_else(cut_off)?,
                0xe0 => self.jfif |= body.starts_with(b"JFIF\0") && 14 <= body.len(),
                0xe1 => {
                    const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
                    if body.starts_with(b"Exif\0\0") {
                        self.exif = self.exif.or(Some(body));
                    } else if let Some(xmp) = body.strip_prefix(XMP) {
                        self.xmp = Some(xmp);
                    }
                }
                0xee if body.starts_with(b"Adobe") => {
                    self.adobe = body.get(11).copied().or(self.adobe);
                }
                0xda if self.scan(body)? => return Ok(()),
                _ => (),
            }
        }
        Ok(())
    }

    /// The next marker that has a body, and the body; none at the end marker. Entropy-coded data, and markers without a
    /// body, are passed over.
    fn segment(&mut self) -> Result<Option<(u8, &'a [u8])>, Refusal> {
        let place = self.rest.windows(2).position(|pair| {
            // A stuffed byte, a filled one, a restart, and markers without a body.
            pair[0] == 0xff && !matches!(pair[1], 0 | 1 | 0xd0..=0xd8 | 0xff)
        });
        let place = place.ok_or_else(cut_off)?;
        let (marker, rest) = (self.rest[place + 1], &self.rest[place + 2..]);
        if marker == 0xd9 {
            return Ok(None);
        }
        let length = short(rest, 0).ok_or_else(cut_off)?;
        if length < 2 {
            return Err(Refusal::broken("a marker says that it has no length"));
        }
        let body = rest.get(2..length).ok_or_else(cut_off)?;
        self.rest = &rest[length..];
        Ok(Some((marker, body)))
    }

    fn read_divisors(&mut self, mut body: &[u8]) -> Result<(), Refusal> {
        while let Some((head, rest)) = body.split_first() {
            let (wide, number) = (head >> 4 != 0, usize::from(head & 15));
            let length = if wide { 128 } else { 64 };
            let bad = || Refusal::broken("a table of divisors is malformed");
            let (values, rest) = rest.split_at_checked(length).ok_or_else(bad)?;
            let table = self.divisors.get_mut(number).ok_or_else(bad)?;
            let value = |at: usize| {
                if wide {
                    u16::from_be_bytes([values[2 * at], values[2 * at + 1]])
                } else {
                    u16::from(values[at])
                }
            };
            let mut divisors = [0; 64];
            for (at, place) in ZIGZAG.iter().enumerate() {
                divisors[usize::from(*place)] = value(at);
            }
            *table = Some(divisors);
            body = rest;
        }
        Ok(())
    }

    /// Decodes a scan. Whether nothing needs to come behind it.
    fn scan(&mut self, body: &[u8]) -> Result<bool, Refusal> {
        let malformed = || Refusal::broken("a scan is malformed");
        let frame = self.frame.as_mut().ok_or_else(malformed)?;
        let scan = Scan::read(frame, body).ok_or_else(malformed)?;
        for part in &scan.parts {
            let component = &mut frame.components[part.component];
            if component.divisors.is_none() {
                let divisors = self.divisors.get(component.table).copied().flatten();
                component.divisors = Some(
                    divisors.ok_or_else(|| Refusal::broken("a table of divisors is missing"))?,
                );
            }
        }
        let mut codes = Codes::new(self.rest);
        match scan.decode(frame, &self.tables, self.restart, &mut codes) {
            Ok(()) => (),
            Err(Halt::Short) if codes.at_end() => return Err(cut_off()),
            Err(Halt::Short) => {
                return Err(Refusal::broken("it ends before the size that its header says"));
            }
            Err(Halt::Malformed) => return Err(Refusal::broken("its data is damaged")),
        }
        for part in &scan.parts {
            frame.components[part.component].missing[scan.start..=scan.end].fill(scan.low);
        }
        frame.complete += scan.parts.len();
        let done = !frame.progressive && frame.components.len() <= frame.complete;
        Ok(done && AHEAD <= codes.left())
    }

    /// The picture, of everything that was read.
    fn rgb(self) -> Result<RgbImage, Refusal> {
        let (jfif, adobe) = (self.jfif, self.adobe);
        let mut frame = self.frame.ok_or_else(|| Refusal::broken("it has no frame"))?;
        if frame.components.iter().any(|component| component.divisors.is_none()) {
            return Err(Refusal::broken("a component has no scan"));
        }
        // libjpeg makes up for these.
        if frame.components.iter().any(|component| component.missing[1..10] != [0; 9]) {
            return Err(Refusal::broken("it ends before its last scans"));
        }
        frame.components.iter_mut().for_each(Component::finish);
        let ids: Vec<u8> = frame.components.iter().map(|component| component.id).collect();
        let colours = samples::Colours::of(&ids, jfif, adobe);
        let size = (frame.width, frame.height);
        let whole = frame.whole();
        let planes: Vec<_> =
            frame.components.into_iter().map(|c| (c.plane, (c.across, c.down))).collect();
        samples::rgb(&planes, whole, size, colours)
    }
}

/// The image's size, and its components.
struct Frame {
    progressive: bool,
    width: usize,
    height: usize,
    components: Vec<Component>,
    /// Components of sequential scans that have come.
    complete: usize,
}

struct Component {
    id: u8,
    /// How many of its blocks lie side by side, and one below the other, in a unit of all components.
    across: usize,
    down: usize,
    /// The number of its divisors, and what they were when its first scan came.
    table: usize,
    divisors: Option<Divisors>,
    /// How many bits of each coefficient have not come, in the order of their codes.
    missing: [u32; 64],
    /// Coefficients of each block, in their natural order, row by row; of progressive pictures only.
    coefficients: Vec<[i16; 64]>,
    plane: Plane,
}

impl Component {
    /// Coefficients become samples, where that was not done block by block.
    fn finish(&mut self) {
        let Some(divisors) = self.divisors else { return };
        let columns = self.plane.stride / SIDE;
        for (number, block) in std::mem::take(&mut self.coefficients).iter().enumerate() {
            self.plane.put(number % columns, number / columns, block, &divisors);
        }
    }
}

impl Frame {
    fn read(marker: u8, body: &[u8]) -> Result<Self, Refusal> {
        let malformed = || Refusal::broken("its frame is malformed");
        let [precision, _, _, _, _, count, rest @ ..] = body else { return Err(malformed()) };
        let (height, width) = (short(body, 1).unwrap_or(0), short(body, 3).unwrap_or(0));
        if *precision != 8 {
            return Err(Refusal::Broken(format!(
                "samples of {precision} bits are not supported, only of 8"
            )));
        }
        if width == 0 || height == 0 {
            return Err(Refusal::broken("it has no pixel"));
        }
        if ![1, 3, 4].contains(count) || rest.len() < 3 * usize::from(*count) {
            return Err(Refusal::Broken(format!(
                "{count} components are not supported, only 1, 3 or 4"
            )));
        }
        let side = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        bounded(side(width), side(height), 3)?;
        let parts = &rest.as_chunks::<3>().0[..usize::from(*count)];
        let sides = |part: &[u8; 3]| (usize::from(part[1] >> 4), usize::from(part[1] & 15));
        let good =
            |(across, down): (usize, usize)| (1..=4).contains(&across) && (1..=4).contains(&down);
        if !parts.iter().map(sides).all(good) {
            return Err(malformed());
        }
        let most = |side: fn((usize, usize)) -> usize| {
            parts.iter().map(|p| side(sides(p))).max().unwrap_or(1)
        };
        let (most_across, most_down) = (most(|s| s.0), most(|s| s.1));
        let progressive = marker == 0xc2;
        let component = |part: &[u8; 3]| {
            let (across, down) = sides(part);
            let columns = width.div_ceil(SIDE * most_across) * across;
            let rows = height.div_ceil(SIDE * most_down) * down;
            Component {
                id: part[0],
                across,
                down,
                table: usize::from(part[2]),
                divisors: None,
                missing: [u32::MAX; 64],
                coefficients: vec![[0; 64]; if progressive { columns * rows } else { 0 }],
                plane: Plane {
                    width: (width * across).div_ceil(most_across),
                    height: (height * down).div_ceil(most_down),
                    stride: columns * SIDE,
                    samples: vec![0; columns * rows * SIDE * SIDE],
                },
            }
        };
        let components = parts.iter().map(component).collect();
        Ok(Self { progressive, width, height, components, complete: 0 })
    }

    /// Blocks of a unit side by side and one below the other.
    fn whole(&self) -> (usize, usize) {
        let most =
            |side: fn(&Component) -> usize| self.components.iter().map(side).max().unwrap_or(1);
        (most(|c| c.across), most(|c| c.down))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A grey JPEG whose header announces this size, and which has so many blocks of nothing: a bit for the first value
    /// of each, and where it is not progressive one for the end of the others.
    fn blank(
        progressive: bool,
        (width, height): (u16, u16),
        blocks: usize,
        restart: u16,
    ) -> Vec<u8> {
        let (w, h) = (width.to_be_bytes(), height.to_be_bytes());
        // One code of one bit: the symbol 0.
        let table = |class: u8| [&[0xff, 0xc4, 0, 20, class, 1][..], &[0; 15], &[0]].concat();
        let spectral = if progressive { [0, 0, 0] } else { [0, 63, 0] };
        let scan = |spectral: [u8; 3]| [&[0xff, 0xda, 0, 8, 1, 1, 0][..], &spectral].concat();
        let frame = if progressive { 0xc2 } else { 0xc0 };
        let part = if restart == 0 { blocks.max(1) } else { usize::from(restart) };
        let bits = if progressive { 1 } else { 2 };
        let mut data = Vec::new();
        let mut left = blocks;
        for number in 0..blocks.div_ceil(part) {
            if number != 0 {
                data.extend([0xff, 0xd0 + u8::try_from((number - 1) % 8).unwrap()]);
            }
            let used = left.min(part) * bits;
            left -= left.min(part);
            data.extend(vec![0; used / 8]);
            if used % 8 != 0 {
                data.push(0xff >> (used % 8));
            }
        }
        let quantisation = [&[0xff, 0xdb, 0, 67, 0][..], &[1; 64]].concat();
        [
            &[0xff, 0xd8][..],
            &quantisation,
            &[0xff, frame, 0, 11, 8, h[0], h[1], w[0], w[1], 1, 1, 0x11, 0],
            &table(0),
            &table(0x10),
            &[0xff, 0xdd, 0, 4],
            &restart.to_be_bytes(),
            &scan(spectral),
            &data,
            &if progressive { [scan([1, 63, 0]), data.clone()].concat() } else { Vec::new() },
            &[0xff, 0xd9],
        ]
        .concat()
    }

    fn refused(bytes: &[u8]) -> String {
        match read(bytes) {
            Err(Refusal::Broken(what)) => what,
            found => panic!("{found:?}"),
        }
    }

    #[test]
    fn a_scan_has_all_its_blocks_or_is_short() {
        for progressive in [false, true] {
            for restart in [0, 1, 3, 8, 100] {
                for (size, blocks) in [((8, 8), 1), ((9, 8), 2), ((64, 40), 40), ((100, 100), 169)]
                {
                    let made = |blocks| blank(progressive, size, blocks, restart);
                    let whole = made(blocks);
                    let image = read(&whole).unwrap().image;
                    assert_eq!(image.dimensions(), (u32::from(size.0), u32::from(size.1)));
                    assert!(
                        image.iter().all(|level| *level == 128),
                        "{size:?} {restart} {progressive}"
                    );
                    // The last bits of a byte are 1, which no code begins with.
                    for missing in [1, blocks.div_ceil(2), blocks] {
                        let what = refused(&made(blocks - missing));
                        let name = format!("{size:?} {restart} {progressive} without {missing}");
                        assert_eq!(what, "it ends before the size that its header says", "{name}");
                    }
                    // Its end marker may be missing where something else is there that libjpeg looks ahead into.
                    let (open, behind) = (&whole[..whole.len() - 2], [0; AHEAD]);
                    assert_eq!(refused(open), "it is cut off");
                    let followed = read(&[open, &behind].concat());
                    assert_eq!(followed.is_ok(), !progressive, "{size:?} {restart}");
                    assert!(read(&[&whole[..], b"\xff\xda and more"].concat()).is_ok());
                }
            }
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let whole = blank(true, (64, 40), 40, 3);
        for end in 0..whole.len() {
            // Neither panics nor hangs, whatever it says.
            assert!(read(&whole[..end]).is_err());
        }
        assert_eq!(refused(b"\xff\xd8\xff\xda\0\x08\x01\x01\0\0\0\0"), "a scan is malformed");
        assert_eq!(refused(b"\xff\xd8\xff\xd9"), "it has no frame");
        let frame = whole.windows(2).position(|pair| pair == [0xff, 0xc2]).unwrap();
        for (place, value, part) in [
            (1, 0xc9, "arithmetically coded"),
            (4, 12, "samples of 12 bits"),
            (6, 0, "no pixel"),
            (9, 2, "2 components"),
            (11, 0x50, "frame is malformed"),
        ] {
            let mut other = whole.clone();
            other[frame + place] = value;
            if place == 6 {
                other[frame + 5] = 0;
            }
            assert!(refused(&other).contains(part), "{part}: {}", refused(&other));
        }
        let last = whole.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap();
        let early = [&whole[..last], &[0xff, 0xd9]].concat();
        assert_eq!(refused(&early), "it ends before its last scans");
        let mut large = whole;
        large[frame + 5..frame + 9].fill(0xff);
        assert!(matches!(read(&large), Err(Refusal::TooLarge)));
    }
}

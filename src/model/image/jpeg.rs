//! A JPEG, once it is known to have all the blocks that its header announces: a decoder fills what is missing with grey,
//! and a model would answer for an image that nobody sent.
//!
//! ```text
//!  SOI ─► tables, frame header ─► scan header ─► Huffman codes of its blocks ─► next marker ─► … ─► EOI ─► whatever
//! ```
//!
//! The codes are walked, not decoded: of a sequential scan all, of a progressive image the first ones of each block. A
//! code has a bit at least, so this ends with the data, whatever size the header says. What is malformed in another way
//! is left to the decoder, which says so. ITU T.81.

use std::io::Cursor;

use ::image::ImageDecoder as _;
use ::image::codecs::jpeg::JpegDecoder;

use super::decode::{Picture, Refusal, decoded, orientation, upright};

/// Components of a scan.
const MOST_COMPONENTS: usize = 4;

/// Huffman tables: two classes, four of each.
type Tables = [[Option<Table>; 4]; 2];

/// Decodes a JPEG.
pub(super) fn read(bytes: &[u8]) -> Result<Picture, Refusal> {
    match extent(bytes) {
        Extent::Whole => (),
        Extent::CutOff => return Err(Refusal::broken("it is cut off")),
        Extent::Short => {
            return Err(Refusal::broken("it ends before the size that its header says"));
        }
    }
    let mut decoder = JpegDecoder::new(Cursor::new(bytes))?;
    let (exif, xmp) = (decoder.exif_metadata()?, decoder.xmp_metadata()?);
    let orientation = orientation(exif.as_deref(), xmp.as_deref());
    let image = upright(decoded(decoder)?, orientation);
    Ok(Picture { image: image.into_rgb8(), clear: None })
}

/// How much of a JPEG is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// All of it; or it is malformed, and the decoder says how.
    Whole,
    /// The bytes end where more must come.
    CutOff,
    /// A scan ends before its blocks do.
    Short,
}

/// Bytes behind a last scan without an end marker at which libjpeg, which looks ahead so far, has all of it.
const AHEAD: usize = 8;

fn extent(bytes: &[u8]) -> Extent {
    let mut rest = Segments { bytes };
    let (mut frame, mut tables, mut restart) = (None, Tables::default(), 0);
    // Components of which every block has come.
    let mut complete = 0;
    loop {
        let (marker, body) = match rest.next() {
            Segment::Body(marker, body) => (marker, body),
            Segment::End => return Extent::Whole,
            Segment::Missing => return Extent::CutOff,
        };
        match marker {
            0xc0..=0xc2 => frame = Frame::read(marker, body),
            0xc4 => Table::read_all(body, &mut tables),
            0xdd => {
                restart = body.first_chunk().map_or(0, |two| usize::from(u16::from_be_bytes(*two)));
            }
            0xda => {
                let Some(frame) = frame.as_ref() else { return Extent::Whole };
                let Some(scan) = Scan::read(frame, body) else { return Extent::Whole };
                let mut codes = Codes::new(rest.bytes);
                match scan.walk(&tables, restart, &mut codes) {
                    Err(Halt::Short) if codes.bytes.is_empty() => return Extent::CutOff,
                    Err(Halt::Short) => return Extent::Short,
                    Err(Halt::Malformed) => return Extent::Whole,
                    Ok(()) => complete += scan.components.len(),
                }
                let sequential = !frame.progressive && frame.components.len() <= complete;
                if sequential && AHEAD <= codes.bytes.len() {
                    return Extent::Whole;
                }
            }
            _ => (),
        }
    }
}

/// What stands between markers.
struct Segments<'a> {
    bytes: &'a [u8],
}

/// What comes next.
enum Segment<'a> {
    /// A marker that has a body, and the body.
    Body(u8, &'a [u8]),
    /// The end marker.
    End,
    /// Neither: the bytes end.
    Missing,
}

impl<'a> Segments<'a> {
    /// Entropy-coded data, and markers without a body, are passed over.
    fn next(&mut self) -> Segment<'a> {
        let place = self.bytes.windows(2).position(|pair| {
            // A stuffed byte, a filled one, a restart, and markers without a body.
            pair[0] == 0xff && !matches!(pair[1], 0 | 1 | 0xd0..=0xd8 | 0xff)
        });
        let Some(place) = place else { return Segment::Missing };
        let marker = self.bytes[place + 1];
        let rest = &self.bytes[place + 2..];
        if marker == 0xd9 {
            return Segment::End;
        }
        let length = rest.first_chunk().map(|two| usize::from(u16::from_be_bytes(*two)));
        let Some((length, body)) = length.and_then(|length| Some((length, rest.get(2..length)?)))
        else {
            return Segment::Missing;
        };
        self.bytes = &rest[length..];
        Segment::Body(marker, body)
    }
}

/// The image's size, and how its components are sampled.
struct Frame {
    progressive: bool,
    width: usize,
    height: usize,
    components: Vec<Component>,
}

#[derive(Clone, Copy)]
struct Component {
    id: u8,
    across: usize,
    down: usize,
}

impl Frame {
    fn read(marker: u8, body: &[u8]) -> Option<Self> {
        let [_precision, h1, h0, w1, w0, count, components @ ..] = body else { return None };
        let component = |three: &[u8; 3]| Component {
            id: three[0],
            across: usize::from(three[1] >> 4),
            down: usize::from(three[1] & 15),
        };
        let components: Vec<_> = components.as_chunks().0.iter().map(component).collect();
        let good = |c: &Component| (1..=4).contains(&c.across) && (1..=4).contains(&c.down);
        (components.len() == usize::from(*count) && components.iter().all(good)).then(|| Self {
            progressive: marker == 0xc2,
            width: usize::from(u16::from_be_bytes([*w1, *w0])),
            height: usize::from(u16::from_be_bytes([*h1, *h0])),
            components,
        })
    }

    /// Units of a scan of these components, and how often each component's block stands in one.
    fn units(&self, components: &[Component]) -> (usize, Vec<usize>) {
        let most =
            |side: fn(&Component) -> usize| self.components.iter().map(side).max().unwrap_or(1);
        let (across, down) = (most(|c| c.across), most(|c| c.down));
        match components {
            [one] => {
                let blocks = |length: usize, part: usize, whole: usize| {
                    (length * part).div_ceil(whole).div_ceil(8)
                };
                let columns = blocks(self.width, one.across, across);
                (columns * blocks(self.height, one.down, down), vec![1])
            }
            several => {
                let units = self.width.div_ceil(8 * across) * self.height.div_ceil(8 * down);
                (units, several.iter().map(|c| c.across * c.down).collect())
            }
        }
    }
}

/// A scan: its units, and for each component how many blocks of one are its own, and its tables.
struct Scan {
    units: usize,
    components: Vec<(usize, usize, usize)>,
    /// Only the first code of each block.
    first: bool,
    /// Whether its blocks are walked: later scans of a progressive image refine them.
    counts: bool,
}

/// Why a walk does not come to the end of its scan.
#[derive(Debug, PartialEq, Eq)]
enum Halt {
    /// The data ends before the blocks do.
    Short,
    /// A table is missing or does not know a code: the decoder will say so.
    Malformed,
}

impl Scan {
    fn read(frame: &Frame, body: &[u8]) -> Option<Self> {
        let (count, rest) = body.split_first()?;
        let count = usize::from(*count);
        if !(1..=MOST_COMPONENTS).contains(&count) {
            return None;
        }
        let (pairs, spectral) = rest.split_at_checked(2 * count)?;
        let [start, _end, approximation] = spectral.first_chunk::<3>()?;
        let find = |id: u8| frame.components.iter().find(|component| component.id == id).copied();
        let pairs = pairs.as_chunks::<2>().0;
        let components: Vec<Component> =
            pairs.iter().map(|[id, _]| find(*id)).collect::<Option<_>>()?;
        let (units, blocks) = frame.units(&components);
        let tables = pairs.iter().map(|[_, t]| (usize::from(*t >> 4), usize::from(*t & 15)));
        let components = blocks.into_iter().zip(tables).map(|(blocks, (dc, ac))| (blocks, dc, ac));
        Some(Self {
            units,
            components: components.collect(),
            first: frame.progressive,
            counts: !frame.progressive || (*start == 0 && approximation >> 4 == 0),
        })
    }

    fn walk(&self, tables: &Tables, restart: usize, codes: &mut Codes<'_>) -> Result<(), Halt> {
        if !self.counts {
            return Ok(());
        }
        let mut components = Vec::new();
        for (blocks, dc, ac) in &self.components {
            let table = |class: usize, number: usize| tables[class].get(number)?.as_ref();
            match (table(0, *dc), table(1, *ac)) {
                (Some(dc), Some(ac)) if !self.first => components.push((*blocks, dc, Some(ac))),
                (Some(dc), _) if self.first => components.push((*blocks, dc, None)),
                _ => return Err(Halt::Malformed),
            }
        }
        for unit in 0..self.units {
            if restart != 0 && unit != 0 && unit % restart == 0 && !codes.restart() {
                return Err(Halt::Short);
            }
            for (blocks, dc, ac) in &components {
                for _ in 0..*blocks {
                    block(codes, dc, *ac)?;
                }
            }
        }
        Ok(())
    }
}

/// Walks a block: the code of its first value, and those of the others where there is a table for them.
fn block(codes: &mut Codes<'_>, dc: &Table, ac: Option<&Table>) -> Result<(), Halt> {
    let bits = codes.symbol(dc)?;
    codes.skip(usize::from(bits));
    let mut value = 1;
    while let Some(ac) = ac.filter(|_| value < 64) {
        let symbol = codes.symbol(ac)?;
        let (zeros, bits) = (symbol >> 4, symbol & 15);
        match (zeros, bits) {
            (15, 0) => value += 16,
            (_, 0) => break,
            _ => value += usize::from(zeros) + 1,
        }
        codes.skip(usize::from(bits));
    }
    if codes.overrun() { Err(Halt::Short) } else { Ok(()) }
}

/// A Huffman table: for each length of a code the first code that is longer, and where its symbols begin.
struct Table {
    /// By length 1 to 16: the code behind the last one, shifted to 16 bits; and symbol − code of them.
    ends: [(u32, i32); 16],
    symbols: Vec<u8>,
}

impl Table {
    /// Reads every table of a segment.
    fn read_all(mut body: &[u8], tables: &mut Tables) {
        while let Some((head, rest)) = body.split_first_chunk::<17>() {
            let count: usize = head[1..].iter().map(|count| usize::from(*count)).sum();
            let Some((symbols, rest)) = rest.split_at_checked(count) else { return };
            let (class, number) = (usize::from(head[0] >> 4), usize::from(head[0] & 15));
            let (mut code, mut first) = (0_u32, 0_i32);
            let mut ends = [(0, 0); 16];
            for (length, count) in head[1..].iter().enumerate() {
                ends[length].1 = first - i32::try_from(code).unwrap_or(i32::MAX);
                code += u32::from(*count);
                first += i32::from(*count);
                ends[length].0 = code << (15 - length);
                code <<= 1;
            }
            if let Some(table) = tables.get_mut(class).and_then(|class| class.get_mut(number)) {
                *table = Some(Self { ends, symbols: symbols.to_vec() });
            }
            body = rest;
        }
    }

    /// The symbol that 16 bits begin with, and the bits of its code.
    fn find(&self, bits: u32) -> Option<(u8, usize)> {
        let length = self.ends.iter().position(|(end, _)| bits < *end)?;
        let code = i32::try_from(bits >> (15 - length)).ok()?;
        let place = usize::try_from(code + self.ends[length].1).ok()?;
        Some((*self.symbols.get(place)?, length + 1))
    }
}

/// The bits of entropy-coded data, up to a marker; behind them 1s.
struct Codes<'a> {
    bytes: &'a [u8],
    /// Bits that were taken from `bytes`, the next one on top.
    bits: u64,
    count: usize,
    /// Bits that were used behind the end.
    beyond: usize,
}

impl<'a> Codes<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, bits: 0, count: 0, beyond: 0 }
    }

    fn fill(&mut self) {
        while self.count <= 48 {
            let (byte, length) = match self.bytes {
                [0xff, 0, ..] => (0xff, 2),
                [0xff, ..] | [] => return,
                [byte, ..] => (*byte, 1),
            };
            self.bytes = &self.bytes[length..];
            self.bits |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    fn symbol(&mut self, table: &Table) -> Result<u8, Halt> {
        self.fill();
        let padded =
            self.bits | u64::MAX.checked_shr(u32::try_from(self.count).unwrap_or(64)).unwrap_or(0);
        let bits = u32::try_from(padded >> 48).unwrap_or(0);
        match table.find(bits) {
            Some((symbol, length)) => {
                self.skip(length);
                Ok(symbol)
            }
            None if self.count < 16 => Err(Halt::Short),
            None => Err(Halt::Malformed),
        }
    }

    fn skip(&mut self, bits: usize) {
        self.fill();
        let here = bits.min(self.count);
        self.bits = self.bits.checked_shl(u32::try_from(here).unwrap_or(64)).unwrap_or(0);
        self.count -= here;
        self.beyond += bits - here;
    }

    /// Whether more was asked for than there is.
    fn overrun(&self) -> bool {
        self.beyond != 0
    }

    /// Goes on behind a restart marker, if one is next.
    fn restart(&mut self) -> bool {
        let [0xff, 0xd0..=0xd7, rest @ ..] = self.bytes else { return false };
        *self = Self::new(rest);
        true
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
            &[0xff, 0xda, 0, 8, 1, 1, 0],
            &spectral,
            &data,
            &[0xff, 0xd9],
        ]
        .concat()
    }

    #[test]
    fn a_scan_has_all_its_blocks_or_is_short() {
        for progressive in [false, true] {
            for restart in [0, 1, 3, 8, 100] {
                for (size, blocks) in [((8, 8), 1), ((9, 8), 2), ((64, 40), 40), ((100, 100), 169)]
                {
                    let made = |blocks| blank(progressive, size, blocks, restart);
                    let whole = made(blocks);
                    assert_eq!(extent(&whole), Extent::Whole, "{size:?} {restart} {progressive}");
                    let decoded = ::image::load_from_memory(&whole).unwrap();
                    assert_eq!(
                        (decoded.width(), decoded.height()),
                        (u32::from(size.0), u32::from(size.1))
                    );
                    // The last bits of a byte are 1, which no code begins with.
                    for missing in [1, blocks.div_ceil(2), blocks] {
                        let short = made(blocks - missing);
                        assert_eq!(
                            extent(&short),
                            Extent::Short,
                            "{size:?} {restart} {progressive} without {missing}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_malformed_is_left_to_the_decoder() {
        let whole = blank(true, (64, 40), 40, 3);
        for end in 0..whole.len() {
            // Neither panics nor hangs, whatever it says.
            extent(&whole[..end]);
        }
        assert_eq!(extent(b""), Extent::CutOff);
        let frameless = b"\xff\xd8\xff\xda\0\x08\x01\x01\0\0\0\0";
        assert_eq!(extent(frameless), Extent::Whole, "a scan without a frame");
    }
}

//! Huffman codes of a scan: tables, and the bits of entropy-coded data.

use super::{Refusal, Tables};

/// Why a scan does not come to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// The data ends before the blocks do.
    Short,
    /// A table is missing or does not know a code, or a block has more than 64 coefficients.
    Malformed,
}

/// Bits of a code that is looked up at once.
const QUICK: usize = 9;

/// A Huffman table.
pub(super) struct Table {
    /// By the first [`QUICK`] bits: the symbol and the length of its code; 0: it is longer.
    quick: Vec<(u8, u8)>,
    /// By length 1 to 16: the code behind the last one, shifted to 16 bits; and symbol − code of them.
    ends: [(u32, i32); 16],
    symbols: Vec<u8>,
}

impl Table {
    /// Reads every table of a segment.
    pub(super) fn read_all(mut body: &[u8], tables: &mut Tables) -> Result<(), Refusal> {
        let malformed = || Refusal::broken("a Huffman table is malformed");
        while !body.is_empty() {
            let (head, rest) = body.split_first_chunk::<17>().ok_or_else(malformed)?;
            let count: usize = head[1..].iter().map(|count| usize::from(*count)).sum();
            let (symbols, rest) = rest.split_at_checked(count).ok_or_else(malformed)?;
            let (class, number) = (usize::from(head[0] >> 4), usize::from(head[0] & 15));
            let (mut code, mut first) = (0_u32, 0_i32);
            let mut ends = [(0, 0); 16];
            for (length, count) in head[1..].iter().enumerate() {
                ends[length].1 = first - i32::try_from(code).unwrap_or(i32::MAX);
                code += u32::from(*count);
                first += i32::from(*count);
                if 1 << (length + 1) < code {
                    return Err(malformed());
                }
                ends[length].0 = code << (15 - length);
                code <<= 1;
            }
            let mut made = Self { quick: Vec::new(), ends, symbols: symbols.to_vec() };
            let quick = |bits: u32| {
                made.find(bits << (16 - QUICK)).filter(|(_, n)| usize::from(*n) <= QUICK)
            };
            made.quick = (0..1 << QUICK).map(|bits| quick(bits).unwrap_or((0, 0))).collect();
            let table = tables.get_mut(class).and_then(|class| class.get_mut(number));
            *table.ok_or_else(malformed)? = Some(made);
            body = rest;
        }
        Ok(())
    }

    /// The symbol that 16 bits begin with, and the bits of its code.
    fn find(&self, bits: u32) -> Option<(u8, u8)> {
        let length = self.ends.iter().position(|(end, _)| bits < *end)?;
        let code = i32::try_from(bits >> (15 - length)).ok()?;
        let place = usize::try_from(code + self.ends[length].1).ok()?;
        Some((*self.symbols.get(place)?, u8::try_from(length + 1).ok()?))
    }
}

/// The bits of entropy-coded data, up to a marker.
pub(super) struct Codes<'a> {
    bytes: &'a [u8],
    /// Bits that were taken from `bytes`, the next one on top.
    bits: u64,
    count: u32,
}

impl<'a> Codes<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, bits: 0, count: 0 }
    }

    /// Whether the bytes themselves end, not only the data before a marker.
    pub(super) fn at_end(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes behind the last code.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() + usize::try_from(self.count / 8).unwrap_or(0)
    }

    fn fill(&mut self) {
        if let Some(next) = self.bytes.first_chunk::<8>()
            && !next.contains(&0xff)
        {
            let taken = (64 - self.count) / 8;
            let kept = self.count + 8 * taken;
            let unused = u64::MAX.checked_shr(kept).unwrap_or(0);
            self.bits |= (u64::from_be_bytes(*next) >> self.count) & !unused;
            self.count = kept;
            self.bytes = &self.bytes[usize::try_from(taken).unwrap_or(0)..];
            return;
        }
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

    /// The symbol of the next code.
    pub(super) fn symbol(&mut self, table: &Table) -> Result<u8, Halt> {
        if self.count < 16 {
            self.fill();
        }
        // Behind the end there are 1s, which no whole code consists of.
        let padded = self.bits | u64::MAX.checked_shr(self.count).unwrap_or(0);
        let bits = u32::try_from(padded >> 48).unwrap_or(0);
        let quick = usize::try_from(bits >> (16 - QUICK)).unwrap_or(0);
        let found = match table.quick[quick] {
            (_, 0) => table.find(bits),
            found => Some(found),
        };
        match found {
            Some((_, length)) if self.count < u32::from(length) => Err(Halt::Short),
            Some((symbol, length)) => {
                self.bits = self.bits.wrapping_shl(u32::from(length));
                self.count -= u32::from(length);
                Ok(symbol)
            }
            None if self.count < 16 => Err(Halt::Short),
            None => Err(Halt::Malformed),
        }
    }

    /// The next bits, at most 16, as a number.
    pub(super) fn bits(&mut self, length: u8) -> Result<u32, Halt> {
        let length = u32::from(length);
        if length == 0 {
            return Ok(0);
        }
        if self.count < length {
            self.fill();
        }
        if self.count < length {
            return Err(Halt::Short);
        }
        let value = self.bits >> (64 - length);
        self.bits <<= length;
        self.count -= length;
        Ok(u32::try_from(value).unwrap_or(u32::MAX))
    }

    pub(super) fn bit(&mut self) -> Result<u8, Halt> {
        Ok(u8::from(self.bits(1)? == 1))
    }

    /// A number of so many bits: without the uppermost bit it is negative.
    pub(super) fn number(&mut self, length: u8) -> Result<i32, Halt> {
        if 16 < length {
            return Err(Halt::Malformed);
        }
        let value = i32::try_from(self.bits(length)?).unwrap_or(i32::MAX);
        let half = (1 << length) >> 1;
        Ok(if value < half { value - (1 << length) + 1 } else { value })
    }

    /// Goes on behind a restart marker, if one is next.
    pub(super) fn restart(&mut self) -> Result<(), Halt> {
        while self.bytes.starts_with(&[0xff, 0xff]) {
            self.bytes = &self.bytes[1..];
        }
        let [0xff, 0xd0..=0xd7, rest @ ..] = self.bytes else { return Err(Halt::Short) };
        *self = Self::new(rest);
        Ok(())
    }
}

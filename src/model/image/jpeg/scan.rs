//! The coefficients that a scan brings: of sequential pictures all, of progressive ones a band of them, or a bit more of it.

use super::huffman::{Codes, Halt, Table};
use super::{Frame, SIDE, Tables, ZIGZAG};

/// Components of a scan.
const MOST_COMPONENTS: usize = 4;

/// A scan: its components, and which part of their coefficients it brings.
pub(super) struct Scan {
    pub(super) parts: Vec<Part>,
    /// The first coefficient and the last one.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Whether bits are added to coefficients that were there, and the place of the bit.
    refines: bool,
    pub(super) low: u32,
}

/// A component of a scan, and its Huffman tables.
pub(super) struct Part {
    pub(super) component: usize,
    dc: usize,
    ac: usize,
}

impl Scan {
    pub(super) fn read(frame: &Frame, body: &[u8]) -> Option<Self> {
        let (count, rest) = body.split_first()?;
        let count = usize::from(*count);
        if !(1..=MOST_COMPONENTS).contains(&count) {
            return None;
        }
        let (pairs, spectral) = rest.split_at_checked(2 * count)?;
        let [start, end, approximation] = spectral.first_chunk::<3>()?;
        let part = |[id, tables]: &[u8; 2]| {
            let component = frame.components.iter().position(|component| component.id == *id)?;
            Some(Part { component, dc: usize::from(tables >> 4), ac: usize::from(tables & 15) })
        };
        let parts: Vec<Part> = pairs.as_chunks::<2>().0.iter().map(part).collect::<Option<_>>()?;
        let (start, end) = (usize::from(*start), usize::from(*end));
        if !frame.progressive {
            return Some(Self { parts, start: 0, end: 63, refines: false, low: 0 });
        }
        let low = u32::from(approximation & 15);
        let one = parts.len() == 1 || start == 0;
        let good = start <= end && end < 64 && one && (start != 0 || end == 0) && low <= 13;
        good.then(|| Self { parts, start, end, refines: approximation >> 4 != 0, low })
    }

    pub(super) fn decode(
        &self,
        frame: &mut Frame,
        tables: &Tables,
        restart: usize,
        codes: &mut Codes<'_>,
    ) -> Result<(), Halt> {
        let (whole, size, progressive) =
            (frame.whole(), (frame.width, frame.height), frame.progressive);
        let mut state = State::default();
        // A component alone comes block by block, without those that lie beyond the picture.
        let alone = self.parts.len() == 1;
        let (columns, rows) = if alone {
            let plane = &frame.components[self.parts[0].component].plane;
            (plane.width.div_ceil(SIDE), plane.height.div_ceil(SIDE))
        } else {
            (size.0.div_ceil(SIDE * whole.0), size.1.div_ceil(SIDE * whole.1))
        };
        for unit in 0..columns * rows {
            if restart != 0 && unit != 0 && unit % restart == 0 {
                codes.restart()?;
                state = State::default();
            }
            let (column, row) = (unit % columns, unit / columns);
            for (number, part) in self.parts.iter().enumerate() {
                let component = &mut frame.components[part.component];
                let (across, down) =
                    if alone { (1, 1) } else { (component.across, component.down) };
                for at in 0..across * down {
                    let place = (column * across + at % across, row * down + at / across);
                    let last = &mut state.last[number];
                    if progressive {
                        let columns = component.plane.stride / SIDE;
                        let block = &mut component.coefficients[place.1 * columns + place.0];
                        self.progressive(block, part, tables, codes, last, &mut state.blank)?;
                    } else {
                        let mut block = [0; 64];
                        sequential(&mut block, part, tables, codes, last)?;
                        let divisors = component.divisors.as_ref().ok_or(Halt::Malformed)?;
                        component.plane.put(place.0, place.1, &block, divisors);
                    }
                }
            }
        }
        Ok(())
    }

    /// What this scan brings of a block.
    fn progressive(
        &self,
        block: &mut [i16; 64],
        part: &Part,
        tables: &Tables,
        codes: &mut Codes<'_>,
        last: &mut i32,
        blank: &mut u32,
    ) -> Result<(), Halt> {
        let low = self.low;
        if self.start == 0 {
            if self.refines {
                block[0] |= i16::from(codes.bit()?) << low;
            } else {
                let bits = codes.symbol(table(tables, 0, part.dc)?)?;
                *last = last.wrapping_add(codes.number(bits)?);
                block[0] = narrow(last.wrapping_shl(low));
            }
            return Ok(());
        }
        let ac = table(tables, 1, part.ac)?;
        if self.refines {
            return self.refine(block, ac, codes, blank);
        }
        if *blank != 0 {
            *blank -= 1;
            return Ok(());
        }
        let mut at = self.start;
        while at <= self.end {
            let symbol = codes.symbol(ac)?;
            let (zeros, bits) = (symbol >> 4, symbol & 15);
            match (zeros, bits) {
                (15, 0) => at += 16,
                (run, 0) => {
                    *blank = (1 << run) - 1 + codes.bits(run)?;
                    break;
                }
                _ => {
                    at += usize::from(zeros);
                    let value = codes.number(bits)?;
                    *block.get_mut(natural(at)?).ok_or(Halt::Malformed)? =
                        narrow(value.wrapping_shl(low));
                    at += 1;
                }
            }
        }
        Ok(())
    }

    /// A bit more of the coefficients that are not 0, and those that now become ±1 in this place.
    fn refine(
        &self,
        block: &mut [i16; 64],
        ac: &Table,
        codes: &mut Codes<'_>,
        blank: &mut u32,
    ) -> Result<(), Halt> {
        let one = 1_i16 << self.low;
        let mut at = self.start;
        if *blank == 0 {
            while at <= self.end {
                let symbol = codes.symbol(ac)?;
                let (mut zeros, bits) = (symbol >> 4, symbol & 15);
                let mut value = 0;
                match (zeros, bits) {
                    (15, 0) => (),
                    (run, 0) => {
                        *blank = (1 << run) + codes.bits(run)?;
                        break;
                    }
                    _ => value = if codes.bit()? == 1 { one } else { -one },
                }
                while at <= self.end {
                    let coefficient = &mut block[natural(at)?];
                    if *coefficient != 0 {
                        correct(coefficient, one, codes)?;
                    } else if zeros == 0 {
                        break;
                    } else {
                        zeros -= 1;
                    }
                    at += 1;
                }
                if value != 0 && at <= self.end {
                    block[natural(at)?] = value;
                }
                at += 1;
            }
        }
        if *blank != 0 {
            for at in at..=self.end {
                let coefficient = &mut block[natural(at)?];
                if *coefficient != 0 {
                    correct(coefficient, one, codes)?;
                }
            }
            *blank -= 1;
        }
        Ok(())
    }
}

/// Adds the next bit to a coefficient, away from 0, where it has not that bit.
fn correct(coefficient: &mut i16, one: i16, codes: &mut Codes<'_>) -> Result<(), Halt> {
    if codes.bit()? == 1 && *coefficient & one == 0 {
        *coefficient = coefficient.wrapping_add(if *coefficient < 0 { -one } else { one });
    }
    Ok(())
}

/// What is remembered from block to block, up to a restart.
#[derive(Default)]
struct State {
    /// The last first coefficient of each component.
    last: [i32; MOST_COMPONENTS],
    /// Blocks that bring nothing.
    blank: u32,
}

fn table(tables: &Tables, class: usize, number: usize) -> Result<&Table, Halt> {
    tables[class].get(number).and_then(Option::as_ref).ok_or(Halt::Malformed)
}

/// A coefficient; a damaged one is cut.
fn narrow(value: i32) -> i16 {
    i16::try_from(value).unwrap_or(if value < 0 { i16::MIN } else { i16::MAX })
}

/// A block of a sequential scan.
fn sequential(
    block: &mut [i16; 64],
    part: &Part,
    tables: &Tables,
    codes: &mut Codes<'_>,
    last: &mut i32,
) -> Result<(), Halt> {
    let bits = codes.symbol(table(tables, 0, part.dc)?)?;
    *last = last.wrapping_add(codes.number(bits)?);
    block[0] = narrow(*last);
    let ac = table(tables, 1, part.ac)?;
    let mut at = 1;
    while at < 64 {
        let symbol = codes.symbol(ac)?;
        let (zeros, bits) = (symbol >> 4, symbol & 15);
        match (zeros, bits) {
            (15, 0) => at += 16,
            (_, 0) => break,
            _ => {
                at += usize::from(zeros);
                block[natural(at)?] = narrow(codes.number(bits)?);
                at += 1;
            }
        }
    }
    Ok(())
}

/// Where in its block the coefficient lies that comes so late.
fn natural(at: usize) -> Result<usize, Halt> {
    ZIGZAG.get(at).map(|place| usize::from(*place)).ok_or(Halt::Malformed)
}

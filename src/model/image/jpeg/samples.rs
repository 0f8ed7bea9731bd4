//! From coefficients to colours: the inverse cosine transform, upsampling and colour spaces of libjpeg-turbo, in integers
//! that round where it rounds.
//!
//! Loeffler, Ligtenberg and Moschytz 1989 (the transform). Samples between two are weighted 3 to 1 ("fancy
//! upsampling").

use ::image::RgbImage;

use super::{Divisors, Refusal, SIDE};

/// Samples of a component.
pub(super) struct Plane {
    /// Those that are part of the picture.
    pub(super) width: usize,
    pub(super) height: usize,
    /// Samples of a row, whole units of them.
    pub(super) stride: usize,
    pub(super) samples: Vec<u8>,
}

/// Binary digits behind the point: of factors, and of what lies between the two passes.
const DIGITS: u32 = 13;
const BETWEEN: u32 = 2;

/// `value` without so many binary digits, rounded.
fn descale(value: i32, digits: u32) -> i32 {
    value.wrapping_add(1 << (digits - 1)) >> digits
}

/// The inverse transform of eight values, with [`DIGITS`] more digits.
fn inverse(v: [i32; 8]) -> [i32; 8] {
    let times = |a: i32, b: i32| a.wrapping_mul(b);
    let plus = |a: i32, b: i32| a.wrapping_add(b);
    let minus = |a: i32, b: i32| a.wrapping_sub(b);
    let z = times(plus(v[2], v[6]), 4_433);
    let (even2, even3) = (plus(z, times(v[6], -15_137)), plus(z, times(v[2], 6_270)));
    let even0 = plus(v[0], v[4]).wrapping_shl(DIGITS);
    let even1 = minus(v[0], v[4]).wrapping_shl(DIGITS);
    let even = [plus(even0, even3), plus(even1, even2), minus(even1, even2), minus(even0, even3)];
    let z5 = times(plus(plus(v[7], v[3]), plus(v[5], v[1])), 9_633);
    let z1 = times(plus(v[7], v[1]), -7_373);
    let z2 = times(plus(v[5], v[3]), -20_995);
    let z3 = plus(times(plus(v[7], v[3]), -16_069), z5);
    let z4 = plus(times(plus(v[5], v[1]), -3_196), z5);
    let odd = [
        plus(times(v[1], 12_299), plus(z1, z4)),
        plus(times(v[3], 25_172), plus(z2, z3)),
        plus(times(v[5], 16_819), plus(z2, z4)),
        plus(times(v[7], 2_446), plus(z1, z3)),
    ];
    std::array::from_fn(|at| {
        if at < 4 { plus(even[at], odd[at]) } else { minus(even[7 - at], odd[7 - at]) }
    })
}

fn clamp(value: i32) -> u8 {
    u8::try_from(value.clamp(0, 255)).unwrap_or(0)
}

impl Plane {
    /// Puts a block of coefficients where it belongs: in units of blocks from the left and from the top.
    pub(super) fn put(
        &mut self,
        column: usize,
        row: usize,
        block: &[i16; 64],
        divisors: &Divisors,
    ) {
        let mut values: [i32; 64] =
            std::array::from_fn(|at| i32::from(block[at]).wrapping_mul(i32::from(divisors[at])));
        let start = row * SIDE * self.stride + column * SIDE;
        if values[1..].iter().all(|value| *value == 0) {
            let level = clamp(descale(values[0].wrapping_shl(BETWEEN), BETWEEN + 3) + 128);
            for row in 0..SIDE {
                self.samples[start + row * self.stride..][..SIDE].fill(level);
            }
            return;
        }
        for column in 0..SIDE {
            if (1..SIDE).all(|row| values[row * SIDE + column] == 0) {
                let level = values[column].wrapping_shl(BETWEEN);
                (0..SIDE).for_each(|row| values[row * SIDE + column] = level);
                continue;
            }
            let done = inverse(std::array::from_fn(|row| values[row * SIDE + column]));
            for (row, value) in done.into_iter().enumerate() {
                values[row * SIDE + column] = descale(value, DIGITS - BETWEEN);
            }
        }
        for (row, values) in values.as_chunks::<SIDE>().0.iter().enumerate() {
            let out = &mut self.samples[start + row * self.stride..][..SIDE];
            for (sample, value) in out.iter_mut().zip(inverse(*values)) {
                *sample = clamp(descale(value, DIGITS + BETWEEN + 3) + 128);
            }
        }
    }

    fn row(&self, row: usize) -> &[u8] {
        &self.samples[row * self.stride..][..self.width]
    }
}

/// What the components are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colours {
    Grey,
    Rgb,
    YCbCr,
    Cmyk,
    Ycck,
}

impl Colours {
    /// As libjpeg tells them by the components' names and what JFIF's and Adobe's markers say.
    pub(super) fn of(ids: &[u8], jfif: bool, adobe: Option<u8>) -> Self {
        match (ids, jfif, adobe) {
            ([_], ..) => Self::Grey,
            ([_, _, _, _], _, None | Some(0)) => Self::Cmyk,
            ([_, _, _, _], _, Some(_)) => Self::Ycck,
            (_, false, Some(0)) | (b"RGB", false, None) => Self::Rgb,
            _ => Self::YCbCr,
        }
    }
}

/// The picture of its components' planes, each with its blocks side by side and one below the other in a unit that has
/// `whole` of them.
pub(super) fn rgb(
    planes: &[(Plane, (usize, usize))],
    whole: (usize, usize),
    (width, height): (usize, usize),
    colours: Colours,
) -> Result<RgbImage, Refusal> {
    let mut out = vec![0; width * height * 3];
    let mut rows = vec![Vec::new(); planes.len()];
    let mut levels = [vec![0; width], vec![0; width], vec![0; width]];
    for (y, out) in out.chunks_exact_mut(width * 3).enumerate() {
        for ((plane, part), row) in planes.iter().zip(&mut rows) {
            upsample(plane, *part, whole, y, row)?;
        }
        put_row(&rows, colours, &mut levels, out.as_chunks_mut::<3>().0);
    }
    let side = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    Ok(RgbImage::from_raw(side(width), side(height), out).unwrap_or_default())
}

/// Row `y` of the picture out of a plane of fewer samples.
fn upsample(
    plane: &Plane,
    (across, down): (usize, usize),
    whole: (usize, usize),
    y: usize,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    if !whole.0.is_multiple_of(across) || !whole.1.is_multiple_of(down) {
        return Err(Refusal::broken(
            "its components are sampled in no whole ratio, which is not supported",
        ));
    }
    out.clear();
    let (across, down) = (whole.0 / across, whole.1 / down);
    let row = y / down;
    // The row above, or below, which is nearer than the others; at the rim it is the row itself.
    let other =
        if y.is_multiple_of(2) { row.saturating_sub(1) } else { (row + 1).min(plane.height - 1) };
    let (near, far) = (plane.row(row), plane.row(other));
    match (across, down) {
        (1, 1) => out.extend_from_slice(near),
        (1, 2) => {
            let bias = if y.is_multiple_of(2) { 1 } else { 2 };
            let sums = near.iter().zip(far).map(|(near, far)| three_to_one(*near, *far));
            out.extend(sums.map(|sum| shifted(sum + bias, 2)));
        }
        (2, 1) if 2 < plane.width => {
            let sums: Vec<u16> = near.iter().map(|near| u16::from(*near)).collect();
            doubled(&sums, (2, 1, 2), out);
        }
        (2, 2) if 2 < plane.width => {
            let pairs = near.iter().zip(far);
            let sums: Vec<u16> = pairs.map(|(near, far)| three_to_one(*near, *far)).collect();
            doubled(&sums, (4, 8, 7), out);
        }
        _ => near.iter().for_each(|near| out.extend(std::iter::repeat_n(*near, across))),
    }
    Ok(())
}

fn three_to_one(near: u8, far: u8) -> u16 {
    3 * u16::from(near) + u16::from(far)
}

/// A weighted mean of samples, which is one.
fn shifted(sum: u16, digits: u32) -> u8 {
    (sum >> digits & 0xff) as u8
}

/// Two samples for each: weighted 3 to 1 with the one before and the one behind it. With them come the digits that are
/// dropped, and what rounds on the left and on the right.
fn doubled(sums: &[u16], (digits, left, right): (u32, u16, u16), out: &mut Vec<u8>) {
    out.resize(2 * sums.len(), 0);
    let pairs = out.as_chunks_mut::<2>().0;
    let pair = |before: u16, sum: u16, behind: u16| {
        [shifted(3 * sum + before + left, digits), shifted(3 * sum + behind + right, digits)]
    };
    for (pair_out, three) in pairs[1..].iter_mut().zip(sums.windows(3)) {
        *pair_out = pair(three[0], three[1], three[2]);
    }
    // At the rims there is nothing before, or behind.
    if let ([first, second, ..], [.., last_but_one, last]) = (sums, sums) {
        pairs[0] = pair(*first, *first, *second);
        pairs[sums.len() - 1] = pair(*last_but_one, *last, *last);
    }
}

/// Puts a row in RGB; `levels` is room for one of each colour.
fn put_row(rows: &[Vec<u8>], colours: Colours, levels: &mut [Vec<u8>; 3], out: &mut [[u8; 3]]) {
    match (colours, rows) {
        (Colours::Grey, [grey, ..]) => {
            out.iter_mut().zip(grey).for_each(|(pixel, grey)| *pixel = [*grey; 3]);
        }
        (Colours::Rgb, [red, green, blue, ..]) => interleave([red, green, blue], out),
        (Colours::YCbCr, [y, cb, cr, ..]) => {
            of_ycc([y, cb, cr], levels);
            let [red, green, blue] = levels;
            interleave([red, green, blue], out);
        }
        (Colours::Cmyk, [c, m, y, k]) => {
            interleave([c, m, y], out);
            out.iter_mut().zip(k).for_each(|(pixel, black)| *pixel = inks(*pixel, *black));
        }
        (Colours::Ycck, [y, cb, cr, k]) => {
            of_ycc([y, cb, cr], levels);
            let [red, green, blue] = levels;
            interleave([red, green, blue], out);
            for (pixel, black) in out.iter_mut().zip(k) {
                *pixel = inks(pixel.map(|level| 255 - level), *black);
            }
        }
        _ => (),
    }
}

fn interleave([red, green, blue]: [&[u8]; 3], out: &mut [[u8; 3]]) {
    for (((pixel, red), green), blue) in out.iter_mut().zip(red).zip(green).zip(blue) {
        *pixel = [*red, *green, *blue];
    }
}

/// Red, green and blue of as many pixels as there is room for. A factor above a half is that of a whole number and the rest,
/// so that each product is one of 16 bits.
fn of_ycc([y, cb, cr]: [&[u8]; 3], [red, green, blue]: &mut [Vec<u8>; 3]) {
    const HALF: i32 = 1 << 15;
    let centred = |sample: &u8| i32::from(*sample) - 128;
    for ((red, y), cr) in red.iter_mut().zip(y).zip(cr) {
        let cr = centred(cr);
        *red = clamp(i32::from(*y) + cr + ((26_345 * cr + HALF) >> 16));
    }
    for (((green, y), cb), cr) in green.iter_mut().zip(y).zip(cb).zip(cr) {
        let (cb, cr) = (centred(cb), centred(cr));
        *green = clamp(i32::from(*y) - cr + ((-22_554 * cb + 18_734 * cr + HALF) >> 16));
    }
    for ((blue, y), cb) in blue.iter_mut().zip(y).zip(cb) {
        let cb = centred(cb);
        *blue = clamp(i32::from(*y) + 2 * cb + ((-14_942 * cb + HALF) >> 16));
    }
}

/// Cyan, magenta, yellow and black, inverted, as Pillow mixes them.
fn inks(cmy: [u8; 3], black: u8) -> [u8; 3] {
    let white = i32::from(black);
    cmy.map(|ink| {
        let product = (255 - i32::from(ink)) * white + 128;
        clamp(white - (((product >> 8) + product) >> 8))
    })
}

//! From coefficients to colours: the inverse cosine transform, upsampling and colour spaces of libjpeg-turbo, in integers
//! that round where it rounds.
//!
//! Loeffler, Ligtenberg and Moschytz 1989 (the transform). Samples between two are weighted 3 to 1 ("fancy
//! upsampling").

use ::image::RgbImage;

use super::{Divisors, Refusal, SIDE, ZIGZAG};

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
        let mut values = [0_i32; 64];
        for (place, divisor) in ZIGZAG.iter().zip(divisors) {
            let place = usize::from(*place);
            values[place] = i32::from(block[place]).wrapping_mul(i32::from(*divisor));
        }
        let start = row * SIDE * self.stride + column * SIDE;
        if values[1..].iter().all(|value| *value == 0) {
            let level = clamp(descale(values[0].wrapping_shl(BETWEEN), BETWEEN + 3) + 128);
            for row in 0..SIDE {
                self.samples[start + row * self.stride..][..SIDE].fill(level);
            }
            return;
        }
        for column in 0..SIDE {
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
    let mut out = Vec::with_capacity(width * height * 3);
    let mut rows = vec![Vec::new(); planes.len()];
    for y in 0..height {
        for ((plane, part), row) in planes.iter().zip(&mut rows) {
            upsample(plane, *part, whole, y, row)?;
        }
        push(&rows, width, colours, &mut out);
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
            let between = |(near, far): (&u8, &u8)| {
                clamp((3 * i32::from(*near) + i32::from(*far) + bias) >> 2)
            };
            out.extend(near.iter().zip(far).map(between));
        }
        (2, 1) if 2 < plane.width => {
            let sums = near.iter().map(|near| i32::from(*near));
            doubled(sums, (2, 1, 2), out);
        }
        (2, 2) if 2 < plane.width => {
            let sums =
                near.iter().zip(far).map(|(near, far)| 3 * i32::from(*near) + i32::from(*far));
            doubled(sums, (4, 8, 7), out);
        }
        _ => near.iter().for_each(|near| out.extend(std::iter::repeat_n(*near, across))),
    }
    Ok(())
}

/// Two samples for each: weighted 3 to 1 with the one before and the one behind it. With them come the digits that are
/// dropped, and what rounds on the left and on the right.
fn doubled(
    sums: impl Iterator<Item = i32>,
    (digits, left, right): (u32, i32, i32),
    out: &mut Vec<u8>,
) {
    let sums: Vec<i32> = sums.collect();
    for (at, sum) in sums.iter().enumerate() {
        let before = at.checked_sub(1).map_or(*sum, |before| sums[before]);
        let behind = sums.get(at + 1).unwrap_or(sum);
        out.push(clamp((3 * sum + before + left) >> digits));
        out.push(clamp((3 * sum + behind + right) >> digits));
    }
}

/// Appends a row in RGB.
fn push(rows: &[Vec<u8>], width: usize, colours: Colours, out: &mut Vec<u8>) {
    match (colours, rows) {
        (Colours::Grey, [grey, ..]) => out.extend(grey[..width].iter().flat_map(|grey| [*grey; 3])),
        (Colours::Rgb, [red, green, blue, ..]) => {
            (0..width).for_each(|x| out.extend([red[x], green[x], blue[x]]));
        }
        (Colours::YCbCr, [y, cb, cr, ..]) => {
            (0..width).for_each(|x| out.extend(of_ycc(y[x], cb[x], cr[x])));
        }
        (Colours::Cmyk, [c, m, y, k]) => {
            (0..width).for_each(|x| out.extend(inks([c[x], m[x], y[x]], k[x])));
        }
        (Colours::Ycck, [y, cb, cr, k]) => (0..width).for_each(|x| {
            out.extend(inks(of_ycc(y[x], cb[x], cr[x]).map(|level| 255 - level), k[x]));
        }),
        _ => (),
    }
}

fn of_ycc(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let [y, cb, cr] = [i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128];
    let red = y + ((91_881 * cr + HALF) >> 16);
    let green = y + ((-22_554 * cb + HALF - 46_802 * cr) >> 16);
    let blue = y + ((116_130 * cb + HALF) >> 16);
    [red, green, blue].map(clamp)
}

/// Cyan, magenta, yellow and black, inverted, as Pillow mixes them.
fn inks(cmy: [u8; 3], black: u8) -> [u8; 3] {
    let white = i32::from(black);
    cmy.map(|ink| {
        let product = (255 - i32::from(ink)) * white + 128;
        clamp(white - (((product >> 8) + product) >> 8))
    })
}

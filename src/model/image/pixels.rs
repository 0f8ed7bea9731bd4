//! An encoded image becomes a model's pixels, as transformers' image processors on Pillow do it.
//!
//! ```text
//!  bytes ─► RGB ─► resize ─► centre crop ─► [height, width, 3] u8 ─► rescale, normalise ─► [3, height, width] f32
//!                                              kept in the batch          in `predict`
//! ```

use std::path::Path;

use ::image::{Rgb, RgbImage};

use super::decode::decode;
use super::picture::{LONGEST_SIDE, Picture};
use super::processor::{Processor, Size};
use super::resample::resize;
use crate::model::files::Error;
use crate::record::{Fault, FaultClass};

/// From bytes to pixels. See the module.
#[derive(Debug)]
pub(super) struct Preprocess {
    processor: Processor,
    /// Side of the square that the model takes: what is left after the crop.
    side: u32,
}

impl Preprocess {
    /// Reads an artifact's files for a model that takes squares of `side` pixels, 1 to [`LONGEST_SIDE`].
    ///
    /// # Errors
    ///
    /// What is not supported, or gives another size.
    pub(super) fn load(dir: &Path, side: u32) -> Result<Self, Error> {
        Ok(Self { processor: Processor::load(dir, side)?, side })
    }

    /// The pixels of an encoded image, `[height, width, 3]` u8.
    ///
    /// # Errors
    ///
    /// Undecodable bytes; an image of a size that is not taken.
    pub(super) fn pixels(&self, bytes: &[u8]) -> Result<Box<[u8]>, Fault> {
        let Picture { mut image, clear } = decode(bytes)?;
        if let Some(clear) = clear.filter(|_| self.processor.white) {
            image
                .pixels_mut()
                .filter(|pixel| pixel.0 == clear)
                .for_each(|pixel| pixel.0 = [255; 3]);
        }
        let (width, height) = image.dimensions();
        let size = match self.processor.resize {
            Some(Size::Exact { height, width }) => (width, height),
            Some(Size::Shortest(shortest)) => {
                let short = u64::from(width.min(height));
                let scale = |side: u32| u64::from(shortest) * u64::from(side) / short;
                let side = |side| u32::try_from(scale(side)).unwrap_or(u32::MAX);
                (side(width), side(height))
            }
            None => (width, height),
        };
        let side = self.side;
        let invalid = |what: String| {
            let message = format!("an image of {width} × {height} pixels {what}");
            Err(Fault::new(FaultClass::Invalid, message))
        };
        if LONGEST_SIDE < size.0.max(size.1) {
            let (width, height) = size;
            return invalid(format!("resized has {width} × {height}, more than {LONGEST_SIDE}"));
        }
        if !self.processor.crop && size != (side, side) {
            let how = match self.processor.resize {
                Some(_) => "resizes the shorter side only",
                None => "resizes nothing",
            };
            return invalid(format!("for a model that takes {side} × {side} and {how}"));
        }
        image = resize(image, size, self.processor.filter);
        if size != (side, side) {
            image = centre(&image, side);
        }
        Ok(image.into_raw().into_boxed_slice())
    }

    /// Appends what the model computes with, `[3, height, width]` f32, of [`pixels`](Self::pixels).
    pub(super) fn normalise(&self, pixels: &[u8], out: &mut Vec<f32>) {
        for (channel, levels) in self.processor.levels.iter().enumerate() {
            let values = pixels.iter().skip(channel).step_by(3);
            out.extend(values.map(|value| levels[usize::from(*value)]));
        }
    }
}

/// The square of `side` pixels in the middle, black where the image is smaller; nearer to the upper left where the middle
/// is between two pixels.
fn centre(image: &RgbImage, side: u32) -> RgbImage {
    let first = |length: u32| (i64::from(length) - i64::from(side)).div_euclid(2);
    let (left, top) = (first(image.width()), first(image.height()));
    RgbImage::from_fn(side, side, |x, y| {
        let place = |at: u32, first: i64| u32::try_from(i64::from(at) + first).ok();
        let pixel = place(x, left).zip(place(y, top));
        pixel.and_then(|(x, y)| image.get_pixel_checked(x, y)).copied().unwrap_or(Rgb([0; 3]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As transformers' `center_crop` in numpy places it.
    #[test]
    fn the_centre_is_cut_out_or_laid_on_black() {
        let image = RgbImage::from_fn(5, 2, |x, y| Rgb([u8::try_from(10 * y + x + 1).unwrap(); 3]));
        let cut = |side| centre(&image, side).pixels().map(|pixel| pixel.0[0]).collect::<Vec<_>>();
        assert_eq!(cut(1), [3]);
        assert_eq!(cut(2), [2, 3, 12, 13]);
        assert_eq!(cut(3), [0, 0, 0, 2, 3, 4, 12, 13, 14]);
        let six = [[0; 6], [0; 6], [0, 1, 2, 3, 4, 5], [0, 11, 12, 13, 14, 15], [0; 6], [0; 6]];
        assert_eq!(cut(6), six.concat());
    }
}

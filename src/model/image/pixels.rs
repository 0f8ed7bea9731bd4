//! An encoded image becomes a model's pixels, as transformers' image processors on Pillow do it.
//!
//! ```text
//!  JPEG | PNG | WebP ─► RGB ─► resize ─► centre crop ─► [height, width, 3] u8 ─► rescale, normalise ─► [3, height, width] f32
//!                                                          kept in the batch          in `predict`
//! ```
//!
//! As with Pillow's `open(…).convert("RGB")`, transparency is dropped (whatever `do_convert_rgb` says) and the
//! orientation in EXIF is not applied. 16 bits become the upper 8, of grey too, which Pillow clips to white. Of an
//! animation the first frame counts.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ::image::{DynamicImage, ImageError, ImageFormat, ImageReader, Limits, RgbImage, imageops};
use serde::Deserialize;

use super::jpeg;
use super::resample::{Filter, resize};
use crate::model::artifact::{self, Error};
use crate::record::{Fault, FaultClass};

/// Longest side of an image that is decoded or made by resizing.
const LONGEST_SIDE: u32 = 8_192;

/// Most bytes that decoding an image may take: 44 million pixels in RGB.
const MOST_BYTES: u64 = 128 << 20;

/// The file in the artifact.
const FILE: &str = "preprocessor_config.json";

/// `preprocessor_config.json`, as far as it matters. Keys may be null.
#[derive(Debug, Deserialize)]
struct Config {
    do_resize: Option<bool>,
    size: Option<Size>,
    resample: Option<u32>,
    do_center_crop: Option<bool>,
    crop_size: Option<Size>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<Channels>,
    image_std: Option<Channels>,
}

/// A size as transformers writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Size {
    Square(u32),
    Exact { height: u32, width: u32 },
    Shortest { shortest_edge: u32 },
}

/// A number for each channel, or one for all.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Channels {
    One(f64),
    Three([f64; 3]),
}

/// From bytes to pixels. See the module.
#[derive(Debug)]
pub(super) struct Preprocess {
    resize: Option<Size>,
    filter: Filter,
    /// Side of the square that the model takes: what is left after the crop.
    side: u32,
    crop: bool,
    /// `(value · rescale_factor − mean) / std` of every value a channel can have.
    levels: [[f32; 256]; 3],
}

impl Preprocess {
    /// Reads `preprocessor_config.json` for a model that takes squares of `side` pixels, 1 to [`LONGEST_SIDE`].
    ///
    /// # Errors
    ///
    /// What is not supported, or gives another size.
    pub(super) fn load(dir: &Path, side: u32) -> Result<Self, Error> {
        Self::new(&artifact::json(dir, FILE)?, side)
    }

    fn new(config: &Config, side: u32) -> Result<Self, Error> {
        let fail = |message: String| Error::config(FILE, message);
        let filter = match config.resample {
            Some(0) => Filter::Nearest,
            Some(2) | None => Filter::Bilinear,
            Some(3) => Filter::Bicubic,
            Some(other) => {
                let message =
                    format!("resample {other} is none of 0 (nearest), 2 (bilinear), 3 (bicubic)");
                return Err(fail(message));
            }
        };
        let wanted = Size::Exact { height: side, width: side };
        let exact = |size| if size == Size::Square(side) { wanted } else { size };
        let crop = config.do_center_crop.unwrap_or(false);
        if crop && config.crop_size.map(exact) != Some(wanted) {
            let message =
                format!("crop_size {:?} for a model that takes {side} × {side}", config.crop_size);
            return Err(fail(message));
        }
        let resize = match config.size {
            _ if !config.do_resize.unwrap_or(true) => None,
            None => return Err(fail("size is missing".to_owned())),
            // CLIP's processor takes it for the shortest edge, ViT's for a square.
            Some(Size::Square(_)) if crop => {
                let message =
                    "size is one number beside a crop: write {height, width} or {shortest_edge}";
                return Err(fail(message.to_owned()));
            }
            Some(size) => {
                let size = exact(size);
                let fits = match size {
                    Size::Exact { height, width } if crop => {
                        (side..=LONGEST_SIDE).contains(&height)
                            && (side..=LONGEST_SIDE).contains(&width)
                    }
                    Size::Shortest { shortest_edge } if crop => {
                        (side..=LONGEST_SIDE).contains(&shortest_edge)
                    }
                    Size::Square(_) | Size::Exact { .. } | Size::Shortest { .. } => size == wanted,
                };
                if !fits {
                    let crop = if crop { "before a crop" } else { "without a crop" };
                    let message =
                        format!("size {size:?} {crop}, for a model that takes {side} × {side}");
                    return Err(fail(message));
                }
                Some(size)
            }
        };
        let levels = levels(config).map_err(fail)?;
        Ok(Self { resize, filter, side, crop, levels })
    }

    /// The pixels of an encoded image, `[height, width, 3]` u8.
    ///
    /// # Errors
    ///
    /// Undecodable bytes; an image of a size that is not taken.
    pub(super) fn pixels(&self, bytes: &[u8]) -> Result<Box<[u8]>, Fault> {
        let mut image = decode(bytes)?;
        let (width, height) = image.dimensions();
        let size = match self.resize {
            Some(Size::Exact { height, width }) => (width, height),
            Some(Size::Shortest { shortest_edge } | Size::Square(shortest_edge)) => {
                let short = u64::from(width.min(height));
                let scale = |side: u32| u64::from(shortest_edge) * u64::from(side) / short;
                let side = |side| u32::try_from(scale(side)).unwrap_or(u32::MAX);
                (side(width), side(height))
            }
            None => (width, height),
        };
        let invalid = |what: String| {
            Fault::new(FaultClass::Invalid, format!("an image of {width} × {height} pixels {what}"))
        };
        if LONGEST_SIDE < size.0.max(size.1) {
            return Err(invalid(format!(
                "resized has {} × {}, more than {LONGEST_SIDE}",
                size.0, size.1
            )));
        }
        image = resize(image, size, self.filter);
        let side = self.side;
        if self.crop && side <= size.0.min(size.1) {
            let (left, top) = ((size.0 - side) / 2, (size.1 - side) / 2);
            image = imageops::crop_imm(&image, left, top, side, side).to_image();
        }
        if image.dimensions() != (side, side) {
            return Err(invalid(format!(
                "for a model that takes {side} × {side} and resizes nothing"
            )));
        }
        Ok(image.into_raw().into_boxed_slice())
    }

    /// Appends what the model computes with, `[3, height, width]` f32, of [`pixels`](Self::pixels).
    pub(super) fn normalise(&self, pixels: &[u8], out: &mut Vec<f32>) {
        for (channel, levels) in self.levels.iter().enumerate() {
            let values = pixels.iter().skip(channel).step_by(3);
            out.extend(values.map(|value| levels[usize::from(*value)]));
        }
    }
}

/// Rescaling in f64 and normalisation in f32, as transformers computes them, for every value of a channel.
fn levels(config: &Config) -> Result<[[f32; 256]; 3], String> {
    let three = |name: &str, channels: Option<Channels>| match channels {
        Some(Channels::One(value)) => Ok([value; 3]),
        Some(Channels::Three(values)) => Ok(values),
        None => Err(format!("{name} is missing")),
    };
    let factor = match config.do_rescale {
        Some(false) => 1.0,
        Some(true) | None => config.rescale_factor.unwrap_or(1.0 / 255.0),
    };
    let (mean, std) = match config.do_normalize {
        Some(false) => ([0.0; 3], [1.0; 3]),
        Some(true) | None => {
            (three("image_mean", config.image_mean)?, three("image_std", config.image_std)?)
        }
    };
    let mut levels = [[0.0; 256]; 3];
    for (channel, levels) in levels.iter_mut().enumerate() {
        for (value, level) in (0..=u8::MAX).zip(levels.iter_mut()) {
            #[expect(clippy::cast_possible_truncation, reason = "the model is f32; checked below")]
            let [x, mean, std] =
                [f64::from(value) * factor, mean[channel], std[channel]].map(|x| x as f32);
            *level = (x - mean) / std;
        }
        if levels.iter().any(|level| !level.is_finite()) {
            return Err(format!(
                "rescale_factor {factor}, image_mean {mean:?} and image_std {std:?} give NaN or infinity"
            ));
        }
    }
    Ok(levels)
}

/// Decodes a JPEG, PNG or WebP, told by its first bytes, to RGB.
fn decode(bytes: &[u8]) -> Result<RgbImage, Fault> {
    let undecodable = |message: String| Fault::new(FaultClass::Undecodable, message);
    let format = ::image::guess_format(bytes)
        .ok()
        .filter(|format| [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP].contains(format))
        .ok_or_else(|| undecodable(format!("{} bytes are no JPEG, PNG or WebP", bytes.len())))?;
    if format == ImageFormat::Jpeg && is_cut_off(bytes) {
        return Err(undecodable("a JPEG that is cut off".to_owned()));
    }
    if format == ImageFormat::Jpeg && !jpeg::is_whole(bytes) {
        let message = "a JPEG that ends before the size that its header says";
        return Err(undecodable(message.to_owned()));
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(LONGEST_SIDE);
    limits.max_image_height = Some(LONGEST_SIDE);
    limits.max_alloc = Some(MOST_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let image = catch_unwind(AssertUnwindSafe(|| reader.decode()))
        .map_err(|_panic| undecodable(format!("the decoder of {format:?} panicked")))?;
    match image {
        Ok(image) => Ok(rgb(image)),
        Err(ImageError::Limits(_)) => {
            let message = format!(
                "an image of more than {LONGEST_SIDE} × {LONGEST_SIDE} pixels or {} MiB",
                MOST_BYTES >> 20
            );
            Err(Fault::new(FaultClass::Invalid, message))
        }
        Err(error) => Err(undecodable(format!("decode a {format:?}: {error}"))),
    }
}

/// Whether a JPEG's last scan (FF DA) has no end (FF D9): the decoder would fill the rest with grey.
fn is_cut_off(bytes: &[u8]) -> bool {
    let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xff, marker]);
    last(0xd9) <= last(0xda)
}

fn rgb(image: DynamicImage) -> RgbImage {
    let color = image.color();
    if color.bytes_per_pixel() == color.channel_count() {
        return image.into_rgb8();
    }
    let wide = image.into_rgb16();
    let narrow = wide.iter().map(|value| u8::try_from(value >> 8).unwrap_or(u8::MAX)).collect();
    RgbImage::from_raw(wide.width(), wide.height(), narrow).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn loads(json: &str, expect: Result<(Option<Size>, bool), &str>) {
        let text = format!(r#"{{"image_mean": [0.5, 0.5, 0.5], "image_std": 0.5, {json}}}"#);
        match (Preprocess::new(&serde_json::from_str(&text).unwrap(), 32), expect) {
            (Ok(found), Ok(expect)) => assert_eq!((found.resize, found.crop), expect),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, expect) => panic!("{found:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn configurations_that_give_another_size_are_refused() {
        let square = Some(Size::Exact { height: 32, width: 32 });
        let shortest = Some(Size::Shortest { shortest_edge: 36 });
        loads(r#""size": {"height": 32, "width": 32}"#, Ok((square, false)));
        loads(r#""size": 32, "crop_size": null, "do_center_crop": null"#, Ok((square, false)));
        loads(
            r#""size": {"shortest_edge": 36}, "do_center_crop": true, "crop_size": {"height": 32, "width": 32}"#,
            Ok((shortest, true)),
        );
        loads(r#""do_resize": false, "size": 99"#, Ok((None, false)));
        loads(r#""do_resize": true"#, Err("size is missing"));
        loads(
            r#""size": 224"#,
            Err("size Square(224) without a crop, for a model that takes 32 × 32"),
        );
        loads(r#""size": {"shortest_edge": 32}"#, Err("without a crop"));
        loads(
            r#""size": 36, "do_center_crop": true, "crop_size": 32"#,
            Err("one number beside a crop"),
        );
        loads(
            r#""size": {"shortest_edge": 31}, "do_center_crop": true, "crop_size": 32"#,
            Err("before a crop"),
        );
        loads(r#""size": 32, "do_center_crop": true, "crop_size": 31"#, Err("crop_size"));
        loads(r#""size": 32, "resample": 1"#, Err("resample 1 is none of"));
        loads(r#""size": 32, "rescale_factor": 1e39"#, Err("give NaN or infinity"));
    }
}

//! `preprocessor_config.json`: what transformers' image processors do with pixels, key by key; a key that is absent means
//! what its class takes for it. A step (`do_…`) that is null is not taken; null elsewhere is as if it were absent.
//!
//! | key | |
//! |---|---|
//! | `image_processor_type`, `feature_extractor_type` | the classes of [`CLASSES`], also as `…FeatureExtractor`, `…Fast`; others are refused; absent: `ViTImageProcessor` |
//! | `do_resize`, `size` | a number, `[height, width]`, `{height, width}`, `{shortest_edge}`; others are refused |
//! | `resample` | all of Pillow's filters, by number |
//! | `do_center_crop`, `crop_size` | a number, `[height, width]`, `{height, width}` |
//! | `do_rescale`, `rescale_factor`, `do_normalize`, `image_mean`, `image_std` | as they are |
//! | `do_convert_rgb` | every picture is RGB; where it is true, a colour that is transparent becomes white |
//! | `do_pad` | refused where it is true |
//!
//! `processor_config.json` counts instead where it has an `image_processor`, as in transformers.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::picture::LONGEST_SIDE;
use super::resample::Filter;
use crate::model::files::{self, Error};

mod class;

use class::{CLASSES, Class};

/// The files in the artifact; the first counts where it holds an image processor.
const NESTED: &str = "processor_config.json";
const FILE: &str = "preprocessor_config.json";

/// A file's keys, as far as they matter. What does not matter for the others is not looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    #[serde(deserialize_with = "step")]
    do_resize: Option<bool>,
    size: Value,
    resample: Value,
    #[serde(deserialize_with = "step")]
    do_center_crop: Option<bool>,
    crop_size: Value,
    #[serde(deserialize_with = "step")]
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    #[serde(deserialize_with = "step")]
    do_normalize: Option<bool>,
    image_mean: Value,
    image_std: Value,
    #[serde(deserialize_with = "step")]
    do_convert_rgb: Option<bool>,
    #[serde(deserialize_with = "step")]
    do_pad: Option<bool>,
}

/// A step's flag: transformers keeps a null as it stands, and it counts as false there.
fn step<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    Ok(Some(Option::deserialize(deserializer)?.unwrap_or(false)))
}

/// `processor_config.json`.
#[derive(Debug, Deserialize)]
struct Nested {
    #[serde(default)]
    image_processor: Value,
}

/// What a picture is resized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// Whatever its sides were.
    Exact { height: u32, width: u32 },
    /// Its shorter side to this, the other in proportion.
    Shortest(u32),
}

/// A square's sides.
const fn square(side: u32) -> Size {
    Size::Exact { height: side, width: side }
}

/// What is done with pixels.
#[derive(Debug)]
pub(super) struct Processor {
    pub(super) resize: Option<Size>,
    pub(super) filter: Filter,
    /// Whether the square that the model takes is cut out of the middle.
    pub(super) crop: bool,
    /// Whether the colour that is transparent becomes white.
    pub(super) white: bool,
    /// `(value · rescale_factor − mean) / std` of every value a channel can have.
    pub(super) levels: [[f32; 256]; 3],
}

impl Processor {
    /// Reads the artifact's files, for a model that takes squares of `side` pixels, 1 to [`LONGEST_SIDE`].
    ///
    /// # Errors
    ///
    /// What is not supported, or gives another size, with the file.
    pub(super) fn load(dir: &Path, side: u32) -> Result<Self, Error> {
        if files::present(dir, NESTED) {
            let nested: Nested = files::json(dir, NESTED)?;
            if nested.image_processor.is_object() {
                let config = serde_json::from_value(nested.image_processor)
                    .map_err(|error| Error::config(NESTED, format!("image_processor: {error}")))?;
                return Self::new(&config, side).map_err(|message| Error::config(NESTED, message));
            }
        }
        if !files::present(dir, FILE) {
            let message = "is missing: it says what is done with pixels; save it beside the model with \
                           AutoImageProcessor's save_pretrained";
            return Err(Error::config(FILE, message));
        }
        let config = files::json(dir, FILE)?;
        Self::new(&config, side).map_err(|message| Error::config(FILE, message))
    }

    fn new(config: &Config, side: u32) -> Result<Self, String> {
        let class = match (&config.image_processor_type, &config.feature_extractor_type) {
            (Some(name), _) => Class::named("image_processor_type", name)?,
            (None, Some(name)) => Class::named("feature_extractor_type", name)?,
            (None, None) => &CLASSES[0],
        };
        if config.do_pad == Some(true) {
            return Err(
                "do_pad is true; padding is not supported: set it to false, and resize or crop"
                    .to_owned(),
            );
        }
        let crop = config.do_center_crop.unwrap_or(class.crop.1);
        if crop {
            let wanted = match size("crop_size", &config.crop_size, false)? {
                None => {
                    class.crop.0.map(square).ok_or("do_center_crop is true without a crop_size")?
                }
                Some(size) => size,
            };
            if wanted != square(side) {
                return Err(format!("crop_size {wanted} for a model that takes {side} × {side}"));
            }
        }
        let resize = if config.do_resize.unwrap_or(true) {
            Some(size("size", &config.size, class.edge)?.unwrap_or(class.size))
        } else {
            None
        };
        let sides = match resize {
            None => [side; 2],
            Some(Size::Exact { height, width }) => [height, width],
            Some(Size::Shortest(shortest)) => [shortest; 2],
        };
        if let Some(size) = resize.filter(|_| sides.iter().any(|s| !(1..=LONGEST_SIDE).contains(s)))
        {
            return Err(format!("size {size} is not between 1 and {LONGEST_SIDE}"));
        }
        if let Some(size) = resize.filter(|_| !crop && sides != [side; 2]) {
            return Err(format!(
                "size {size} without a crop, for a model that takes {side} × {side}"
            ));
        }
        let white = config.do_convert_rgb.unwrap_or(class.white);
        let levels = levels(config, class)?;
        Ok(Self { resize, filter: filter(&config.resample, class)?, crop, white, levels })
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact { height, width } => write!(f, "{{height: {height}, width: {width}}}"),
            Self::Shortest(shortest) => write!(f, "{{shortest_edge: {shortest}}}"),
        }
    }
}

fn filter(resample: &Value, class: &Class) -> Result<Filter, String> {
    if resample.is_null() {
        return Ok(class.filter);
    }
    let number = resample.as_u64().and_then(|number| usize::try_from(number).ok());
    number.and_then(|number| Filter::ALL.get(number)).copied().ok_or_else(|| {
        format!(
            "resample {resample} is none of 0 (nearest), 1 (lanczos), 2 (bilinear), 3 (bicubic), 4 (box), 5 (hamming)"
        )
    })
}

/// A size as transformers writes it; none where it is absent. `edge`: one number is the shorter side.
fn size(key: &str, value: &Value, edge: bool) -> Result<Option<Size>, String> {
    let side = |value: &Value| value.as_u64().and_then(|side| u32::try_from(side).ok());
    let size = match value {
        Value::Null => return Ok(None),
        Value::Number(_) if edge => side(value).map(Size::Shortest),
        Value::Number(_) => side(value).map(square),
        Value::Array(sides) => match &sides[..] {
            [height, width] => side(height).zip(side(width)),
            _ => None,
        }
        .map(|(height, width)| Size::Exact { height, width }),
        Value::Object(sides) => {
            let mut given: Vec<_> = sides.iter().filter(|(_, value)| !value.is_null()).collect();
            given.sort_by_key(|(name, _)| *name);
            match &given[..] {
                [(a, height), (b, width)] if (&***a, &***b) == ("height", "width") => side(height)
                    .zip(side(width))
                    .map(|(height, width)| Size::Exact { height, width }),
                [(name, edge)] if **name == "shortest_edge" && key == "size" => {
                    side(edge).map(Size::Shortest)
                }
                _ => None,
            }
        }
        Value::Bool(_) | Value::String(_) => None,
    };
    let edge = if key == "size" { " or {\"shortest_edge\": …}" } else { "" };
    size.map(Some).ok_or_else(|| {
        format!(
            "{key} {value} is not supported: write a number, [height, width], {{\"height\": …, \"width\": …}}{edge}"
        )
    })
}

/// A number for each channel, or one for all.
fn channels(key: &str, value: &Value, default: [f64; 3]) -> Result<[f64; 3], String> {
    let three = match value {
        Value::Null => Some(default),
        Value::Number(_) => value.as_f64().map(|value| [value; 3]),
        Value::Array(values) => match &values[..] {
            [red, green, blue] => {
                let values = [red, green, blue].map(Value::as_f64);
                values.iter().all(Option::is_some).then(|| values.map(Option::unwrap_or_default))
            }
            _ => None,
        },
        Value::Bool(_) | Value::String(_) | Value::Object(_) => None,
    };
    three.ok_or_else(|| {
        format!("{key} {value} is not a number or a list of three, one for each channel")
    })
}

/// Rescaling in f64 and normalisation in f32, as transformers computes them, for every value of a channel.
fn levels(config: &Config, class: &Class) -> Result<[[f32; 256]; 3], String> {
    let factor = match config.do_rescale {
        Some(false) => 1.0,
        Some(true) | None => config.rescale_factor.unwrap_or(1.0 / 255.0),
    };
    let (mean, std) = match config.do_normalize {
        Some(false) => ([0.0; 3], [1.0; 3]),
        Some(true) | None => (
            channels("image_mean", &config.image_mean, class.mean)?,
            channels("image_std", &config.image_std, class.std)?,
        ),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn loads(json: &str, expect: Result<(Option<Size>, Filter, bool), &str>) {
        let config = serde_json::from_str(&format!("{{{json}}}")).unwrap();
        match (Processor::new(&config, 224), expect) {
            (Ok(found), Ok(expect)) => {
                assert_eq!((found.resize, found.filter, found.crop), expect, "{json}");
            }
            (Err(error), Err(part)) => assert!(error.contains(part), "{json}: {error}"),
            (found, expect) => panic!("{json}: {found:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn absent_keys_are_those_of_the_class() {
        let model = Some(square(224));
        let edge = |edge| Some(Size::Shortest(edge));
        loads("", Ok((model, Filter::Bilinear, false)));
        loads(
            r#""size": null, "resample": null, "crop_size": null, "do_center_crop": null, "image_mean": null"#,
            Ok((model, Filter::Bilinear, false)),
        );
        for name in ["ViTFeatureExtractor", "ViTImageProcessorFast", "ViTImageProcessorPil"] {
            let key = if name.ends_with("Extractor") {
                "feature_extractor_type"
            } else {
                "image_processor_type"
            };
            loads(&format!(r#""{key}": "{name}""#), Ok((model, Filter::Bilinear, false)));
        }
        let of = |name: &str, more: &str| {
            format!(r#""image_processor_type": "{name}ImageProcessor"{more}"#)
        };
        loads(&of("DeiT", ""), Ok((Some(square(256)), Filter::Bicubic, true)));
        loads(&of("CLIP", ""), Ok((edge(224), Filter::Bicubic, true)));
        loads(&of("CLIP", r#", "size": 300"#), Ok((edge(300), Filter::Bicubic, true)));
        loads(
            &of("Bit", r#", "size": [250, 240]"#),
            Ok((Some(Size::Exact { height: 250, width: 240 }), Filter::Bicubic, true)),
        );
        loads(&of("Beit", r#", "do_center_crop": true"#), Ok((model, Filter::Bicubic, true)));
        loads(&of("Siglip", ""), Ok((model, Filter::Bicubic, false)));
        loads(&of("Blip", ""), Err("size {height: 384, width: 384} without a crop"));
        loads(
            &of("ConvNext", ""),
            Err(
                "image_processor_type \"ConvNextImageProcessor\" is not supported; supported are ViTImageProcessor, DeiT",
            ),
        );
        loads(
            r#""feature_extractor_type": "ConvNextFeatureExtractor""#,
            Err("feature_extractor_type \"ConvNextF"),
        );
        // Of both, the newer one counts.
        loads(
            &of("ViT", r#", "feature_extractor_type": "DeiTFeatureExtractor""#),
            Ok((model, Filter::Bilinear, false)),
        );
    }

    #[test]
    fn a_step_that_is_null_is_not_taken() {
        loads(r#""do_resize": null"#, Ok((None, Filter::Bilinear, false)));
        let clip = r#""image_processor_type": "CLIPImageProcessor", "size": 224"#;
        loads(
            &format!(r#"{clip}, "do_center_crop": null, "do_pad": null"#),
            Ok((Some(Size::Shortest(224)), Filter::Bicubic, false)),
        );
        let raw = serde_json::from_str(r#"{"do_rescale": null, "do_normalize": null}"#).unwrap();
        let levels = Processor::new(&raw, 224).unwrap().levels;
        assert_eq!(levels.map(|levels| levels[200].to_bits()), [200.0_f32.to_bits(); 3]);
    }

    /// `data/make_pictures.py` made the numbers.
    #[test]
    fn levels_are_those_of_transformers() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/pictures.json");
        let golden: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        for golden in golden["processors"].as_array().unwrap() {
            let config = serde_json::from_value(golden["config"].clone()).unwrap();
            let levels = Processor::new(&config, 32).unwrap().levels;
            for (levels, expected) in levels.iter().zip(golden["of 100"].as_array().unwrap()) {
                let gap = (f64::from(levels[100]) - expected.as_f64().unwrap()).abs();
                assert!(gap < 1e-6, "{config:?}: {gap:e}");
            }
        }
    }

    #[test]
    fn sizes_are_read_in_every_spelling_or_refused() {
        let model = Some(square(224));
        for size in [
            "224",
            "[224, 224]",
            r#"{"height": 224, "width": 224}"#,
            r#"{"width": 224, "height": 224, "longest_edge": null}"#,
        ] {
            loads(&format!(r#""size": {size}"#), Ok((model, Filter::Bilinear, false)));
            loads(
                &format!(r#""size": 300, "do_center_crop": true, "crop_size": {size}"#),
                Ok((Some(square(300)), Filter::Bilinear, true)),
            );
        }
        loads(
            r#""size": {"shortest_edge": 224}"#,
            Ok((Some(Size::Shortest(224)), Filter::Bilinear, false)),
        );
        loads(
            r#""size": {"shortest_edge": 20}, "do_center_crop": true, "crop_size": 224"#,
            Ok((Some(Size::Shortest(20)), Filter::Bilinear, true)),
        );
        loads(
            r#""do_resize": false, "size": {"longest_edge": 9}"#,
            Ok((None, Filter::Bilinear, false)),
        );
        for (json, part) in [
            (
                r#""size": 32"#,
                "size {height: 32, width: 32} without a crop, for a model that takes 224 × 224",
            ),
            (r#""size": {"shortest_edge": 225}"#, "without a crop"),
            (r#""size": [224, 225]"#, "without a crop"),
            (r#""size": [224]"#, "size [224] is not supported: write a number"),
            (r#""size": "224""#, "is not supported"),
            (r#""size": -1"#, "is not supported"),
            (r#""size": 224.0"#, "is not supported"),
            (r#""size": {"longest_edge": 224}"#, r#"size {"longest_edge":224} is not supported"#),
            (r#""size": {"shortest_edge": 224, "longest_edge": 500}"#, "is not supported"),
            (r#""size": 9000, "do_center_crop": true, "crop_size": 224"#, "not between 1 and 8192"),
            (r#""size": 0, "do_center_crop": true, "crop_size": 224"#, "not between 1 and 8192"),
            (r#""do_center_crop": true"#, "do_center_crop is true without a crop_size"),
            (
                r#""do_center_crop": true, "crop_size": 223"#,
                "crop_size {height: 223, width: 223} for a model",
            ),
            (
                r#""do_center_crop": true, "crop_size": {"shortest_edge": 224}"#,
                "crop_size {\"shortest_edge\":224} is not supported",
            ),
            (r#""do_pad": true"#, "do_pad is true"),
            (r#""resample": 6"#, "resample 6 is none of 0 (nearest), 1 (lanczos)"),
            (r#""resample": "bilinear""#, "resample \"bilinear\" is none of"),
            (r#""rescale_factor": 1e39"#, "give NaN or infinity"),
            (r#""image_mean": [0.5]"#, "image_mean [0.5] is not a number or a list of three"),
            (r#""image_std": [1, "a", 1]"#, "image_std [1,\"a\",1] is not a number"),
        ] {
            loads(json, Err(part));
        }
        for (number, filter) in Filter::ALL.into_iter().enumerate() {
            loads(&format!(r#""resample": {number}"#), Ok((model, filter, false)));
        }
        loads(
            r#""do_normalize": false, "image_mean": "any""#,
            Ok((model, Filter::Bilinear, false)),
        );
    }
}

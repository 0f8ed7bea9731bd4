//! The classes of transformers' image processors that are known here, and what each takes for keys that are absent.

use super::{Filter, Size, square};

/// What a class of transformers takes for keys that are absent.
#[derive(Debug)]
pub(super) struct Class {
    /// Without `ImageProcessor`.
    pub(super) name: &'static str,
    pub(super) size: Size,
    /// Whether one number is the shorter side, not a square's.
    pub(super) edge: bool,
    pub(super) filter: Filter,
    /// The side of a square that is cut out, and whether one is.
    pub(super) crop: (Option<u32>, bool),
    pub(super) mean: [f64; 3],
    pub(super) std: [f64; 3],
    pub(super) white: bool,
}

const HALF: [f64; 3] = [0.5; 3];
const CLIP_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

const VIT: Class = Class {
    name: "ViT",
    size: square(224),
    edge: false,
    filter: Filter::Bilinear,
    crop: (None, false),
    mean: HALF,
    std: HALF,
    white: false,
};

const CLIP: Class = Class {
    name: "CLIP",
    size: Size::Shortest(224),
    edge: true,
    filter: Filter::Bicubic,
    crop: (Some(224), true),
    mean: CLIP_MEAN,
    std: CLIP_STD,
    white: true,
};

/// Processors that do nothing but what the keys say, as transformers 5 has them.
pub(super) const CLASSES: [Class; 7] = [
    VIT,
    Class {
        name: "DeiT",
        size: square(256),
        filter: Filter::Bicubic,
        crop: (Some(224), true),
        ..VIT
    },
    CLIP,
    Class { name: "Bit", ..CLIP },
    Class { name: "Beit", filter: Filter::Bicubic, crop: (Some(224), false), ..VIT },
    Class { name: "Siglip", filter: Filter::Bicubic, edge: true, white: true, ..VIT },
    Class {
        name: "Blip",
        size: square(384),
        filter: Filter::Bicubic,
        mean: CLIP_MEAN,
        std: CLIP_STD,
        white: true,
        ..VIT
    },
];

impl Class {
    /// The class that a key names, in any of its spellings.
    pub(super) fn named(key: &str, name: &str) -> Result<&'static Self, String> {
        let plain = name.trim_end_matches("Fast").trim_end_matches("Pil");
        let plain =
            plain.strip_suffix("ImageProcessor").or_else(|| plain.strip_suffix("FeatureExtractor"));
        CLASSES.iter().find(|class| Some(class.name) == plain).ok_or_else(|| {
            let known: Vec<_> =
                CLASSES.iter().map(|class| format!("{}ImageProcessor", class.name)).collect();
            format!("{key} {name:?} is not supported; supported are {}", known.join(", "))
        })
    }
}

//! Every kind of encoded picture against Pillow, and every way of preparing one against transformers' processors.
//! `data/make_pictures.py` made the numbers.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::read::ZlibDecoder;
use serde_json::{Value, json};
use tidemill::model::gate;
use tidemill::model::options::LoadOptions;
use tidemill::model::{Input, Model};
use tidemill::record::{Fault, FaultClass};

const SIDE: usize = 32;

fn golden() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/pictures.json");
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    BASE64.decode(value.as_str().unwrap()).unwrap()
}

/// The tiny model with this processor, in a directory of its own.
fn model(file: &str, processor: &Value) -> Result<Box<dyn Model>, String> {
    let dir = tempfile::tempdir().unwrap();
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/tiny-vit");
    for name in ["config.json", "preprocessor_config.json", "model.safetensors"] {
        fs::copy(tiny.join(name), dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join(file), processor.to_string()).unwrap();
    let options = LoadOptions { field: "image".to_owned(), ..LoadOptions::default() };
    // Through the whole gate, warm-up and all, and then alone, to be asked for its pixels.
    gate::load(dir.path(), &options).map_err(|error| error.to_string())?;
    gate::build(dir.path(), &options).map_err(|error| error.to_string())
}

fn prepared(model: &dyn Model, text: &Value) -> Result<Vec<u8>, Fault> {
    match model.prepare_object(json!({"image": text}).as_object().unwrap())? {
        Input::Pixels { pixels, .. } => Ok(pixels.into_vec()),
        Input::Tokens(_) | Input::Marked(_) | Input::Windows(_) | Input::Row(_) => {
            panic!("no pixels")
        }
    }
}

/// Rows of RGB in the middle of a black square, as a processor that only crops lays them there.
fn on_black(rgb: &[u8], width: usize) -> Vec<u8> {
    let height = rgb.len() / 3 / width;
    let mut out = vec![0; SIDE * SIDE * 3];
    let (left, top) = ((SIDE - width).div_ceil(2), (SIDE - height).div_ceil(2));
    for (y, row) in rgb.chunks_exact(3 * width).enumerate() {
        let start = 3 * ((top + y) * SIDE + left);
        out[start..start + row.len()].copy_from_slice(row);
    }
    out
}

fn gap(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

/// What Pillow opens gives Pillow's pixels; what it refuses is refused.
#[test]
fn pictures_are_opened_as_pillow_opens_them() {
    let crop = json!({"do_resize": false, "do_center_crop": true, "crop_size": SIDE});
    let model = model("preprocessor_config.json", &crop).unwrap();
    let golden = golden();
    let pictures = golden["pictures"].as_array().unwrap();
    for picture in pictures {
        let name = picture["name"].as_str().unwrap();
        let found = prepared(&*model, &picture["bytes"]);
        if picture.get("rgb").is_none() {
            let fault = found.expect_err(name);
            assert_eq!(fault.class, FaultClass::Undecodable, "{name}: {fault}");
            continue;
        }
        let width = usize::try_from(picture["width"].as_u64().unwrap()).unwrap();
        let expected = on_black(&bytes(&picture["rgb"]), width);
        let gap = gap(&found.unwrap_or_else(|fault| panic!("{name}: {fault}")), &expected);
        assert_eq!(gap, 0, "{name}");
    }
    assert!(120 < pictures.len(), "{} pictures", pictures.len());
}

/// Every filter, every spelling of a size, each class's own values where a key is absent; in its own file and in the one of
/// a whole processor.
#[test]
fn processors_are_those_of_transformers() {
    let golden = golden();
    for processor in golden["processors"].as_array().unwrap() {
        let config = &processor["config"];
        for (file, content) in [
            ("preprocessor_config.json", config.clone()),
            ("processor_config.json", json!({"image_processor": config})),
        ] {
            let model = model(file, &content).unwrap_or_else(|error| panic!("{config}: {error}"));
            for (name, pixels) in processor["pixels"].as_object().unwrap() {
                let mut expected = Vec::new();
                ZlibDecoder::new(&bytes(pixels)[..]).read_to_end(&mut expected).unwrap();
                let found = prepared(&*model, &golden["shown"][name]).unwrap();
                assert_eq!(gap(&found, &expected), 0, "{name}, {config}");
            }
        }
    }
}

/// A size that a picture's own decides is looked at with each picture.
#[test]
fn pictures_of_a_size_that_is_not_taken_are_faults() {
    let golden = golden();
    for (processor, taken, fault) in [
        (json!({"size": {"shortest_edge": SIDE}}), "square", "resizes the shorter side only"),
        (json!({"do_resize": false}), "", "for a model that takes 32 × 32 and resizes nothing"),
    ] {
        let model = model("preprocessor_config.json", &processor).unwrap();
        for name in ["square", "one pixel", "wide"] {
            match prepared(&*model, &golden["shown"][name]) {
                Ok(_) => assert!(!taken.is_empty() && name != "wide", "{name}, {processor}"),
                Err(found) => {
                    assert!(name == "wide" || taken.is_empty(), "{name}, {processor}: {found}");
                    assert_eq!(found.class, FaultClass::Invalid);
                    assert!(found.message.contains(fault), "{found}");
                }
            }
        }
    }
}

/// Few bytes that announce many pixels cost a look at the header, in every format.
#[test]
fn bombs_are_refused_by_their_headers() {
    let crop = json!({"do_resize": false, "do_center_crop": true, "crop_size": SIDE});
    let model = model("preprocessor_config.json", &crop).unwrap();
    let golden = golden();
    let named = |name: &str| {
        let pictures = golden["pictures"].as_array().unwrap();
        bytes(&pictures.iter().find(|picture| picture["name"] == name).unwrap()["bytes"])
    };
    let set = |mut bytes: Vec<u8>, place: usize, value: &[u8]| {
        bytes[place..place + value.len()].copy_from_slice(value);
        bytes
    };
    let frame = |name: &str| {
        let bytes = named(name);
        let place = bytes.iter().rposition(|byte| *byte == b',').unwrap();
        (bytes, place)
    };
    let small = named("gif with 1 bits");
    let (own, comma) = frame("gif with 1 bits");
    for (name, bytes) in [
        ("a GIF's screen", set(small, 6, &[0xff; 4])),
        ("a GIF's frame", set(own, comma + 5, &[0xff; 4])),
        ("a BMP's sides", set(named("bmp with 1 bits"), 18, &[0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0])),
        ("a BMP's width", set(named("bmp with 24 bits"), 18, &[0xff, 0xff, 0xff, 0x7f])),
        ("a BMP's runs", set(named("bmp, runs of 8 bits"), 18, &[0, 0x20, 0, 0, 0, 0x20, 0, 0])),
        ("a BMP of OS/2", set(named("bmp with 1 bits, OS/2"), 18, &[0xff; 4])),
    ] {
        let fault = prepared(&*model, &json!(BASE64.encode(bytes))).expect_err(name);
        assert_eq!(fault.class, FaultClass::Invalid, "{name}: {fault}");
        assert!(
            fault.message.contains("more than 8192 × 8192 pixels or 128 MiB"),
            "{name}: {fault}"
        );
    }
}

/// Bytes that were altered or cut anywhere are an answer or a fault; no decoder panics inside either.
#[test]
fn altered_pictures_are_defined() {
    let crop = json!({"do_resize": false, "do_center_crop": true, "crop_size": SIDE});
    let model = model("preprocessor_config.json", &crop).unwrap();
    let mut state = 1_u32;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::try_from(state >> 8).unwrap() % below
    };
    for picture in golden()["pictures"].as_array().unwrap() {
        let whole = bytes(&picture["bytes"]);
        for round in 0..40 {
            let mut altered = whole.clone();
            if round % 4 == 0 {
                altered.truncate(random(whole.len()));
            }
            for _ in 0..random(4).min(altered.len()) {
                let place = random(altered.len());
                altered[place] = u8::try_from(random(256)).unwrap();
            }
            if let Err(fault) = prepared(&*model, &json!(BASE64.encode(&altered))) {
                assert!(!fault.message.contains("panicked"), "{}: {fault}", picture["name"]);
            }
        }
    }
}

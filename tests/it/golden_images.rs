//! Image models: our pixels against Pillow's, our answers against transformers', and images at the edges.
//! `data/make_images.py` made the numbers.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tidemill::answer::{Prediction, Task};
use tidemill::config::{self, Precision};
use tidemill::field;
use tidemill::model::gate;
use tidemill::model::options::LoadOptions;
use tidemill::model::{Input, Model};
use tidemill::record::{Fault, FaultClass};

/// A record's fields.
type Fields = serde_json::Map<String, Value>;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data").join(name)
}

fn options() -> LoadOptions {
    LoadOptions { field: "image".to_owned(), ..LoadOptions::default() }
}

fn build(dir: &Path) -> Result<Box<dyn Model>, String> {
    gate::build(dir, &options()).map_err(|error| error.to_string())
}

fn read(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// A copy of the tiny model with some of `file` replaced.
fn altered(file: &str, changes: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "preprocessor_config.json", "model.safetensors"] {
        fs::copy(data("tiny-vit").join(name), dir.path().join(name)).unwrap();
    }
    let mut config = read(&dir.path().join(file));
    for (name, value) in changes.as_object().unwrap() {
        config[name] = value.clone();
    }
    fs::write(dir.path().join(file), config.to_string()).unwrap();
    dir
}

fn pixels(input: &Input) -> &[u8] {
    match input {
        Input::Pixels { pixels, .. } => pixels,
        Input::Tokens(_) | Input::Marked(_) | Input::Windows(_) | Input::Row(_) => {
            panic!("{input:?}")
        }
    }
}

fn scores(prediction: &Prediction) -> Vec<f64> {
    match prediction {
        Prediction::Label { scores, .. } => scores.iter().map(|score| (*score).into()).collect(),
        Prediction::Embedding(_)
        | Prediction::Value(_)
        | Prediction::Spans(_)
        | Prediction::Chunks(_)
        | Prediction::Mean { .. } => panic!("{prediction:?}"),
    }
}

/// The input that an image model makes of a picture.
fn prepared(model: &dyn Model, bytes: &[u8]) -> Result<Input, Fault> {
    model.prepare(&[Some(field::Value::Bytes(bytes.into()))])
}

/// Sizes, crops and kinds of images give Pillow's pixels bit for bit.
#[test]
fn pixels_are_pillows() {
    let golden = read(&data("pixels.json"));
    let configs = golden["configs"].as_array().unwrap();
    let models: Vec<Box<dyn Model>> = configs
        .iter()
        .map(|config| build(altered("preprocessor_config.json", config).path()).unwrap())
        .collect();
    for row in golden["rows"].as_array().unwrap() {
        let name = row["name"].as_str().unwrap();
        let config = usize::try_from(row["config"].as_u64().unwrap()).unwrap();
        let fields = Fields::from_iter([("image".to_owned(), golden["images"][name].clone())]);
        let input = models[config].prepare_object(&fields).unwrap();
        let expected = BASE64.decode(row["pixels"].as_str().unwrap()).unwrap();
        assert_eq!(pixels(&input).len(), expected.len());
        let gap = pixels(&input).iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
        assert_eq!(gap, Some(0), "{name}, {}", configs[config]);
    }
}

/// Weights under the names that transformers 5 has in memory, as some save them: the golden vectors in the folder are
/// compared when it is loaded.
#[test]
fn names_of_weights_in_memory_are_known() {
    let dir = altered("config.json", &json!({}));
    fs::copy(data("tiny-vit/golden.json"), dir.path().join("golden.json")).unwrap();
    let file = dir.path().join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let held = SafeTensors::deserialize(&bytes).unwrap();
    let renamed = |name: &str| {
        [
            ("vit.encoder.layer.", "vit.layers."),
            ("attention.attention.query", "attention.q_proj"),
            ("attention.attention.key", "attention.k_proj"),
            ("attention.attention.value", "attention.v_proj"),
            ("attention.output.dense", "attention.o_proj"),
            ("intermediate.dense", "mlp.fc1"),
            ("output.dense", "mlp.fc2"),
        ]
        .iter()
        .fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
    };
    let tensors = held.tensors().into_iter().map(|(name, view)| (renamed(&name), view));
    let written = safetensors::serialize(tensors.collect::<Vec<_>>(), None).unwrap();
    fs::write(file, written).unwrap();
    let served = gate::load(dir.path(), &options()).unwrap();
    assert_eq!(served.model.about().labels, ["cat", "dog", "tide mill"]);
}

#[test]
fn tiny_vit_is_transformers() {
    let model = build(&data("tiny-vit")).unwrap();
    let about = model.about();
    assert_eq!((about.task, about.fields.len()), (Task::ImageClassification, 1));
    assert_eq!(about.labels, ["cat", "dog", "tide mill"]);
    assert!(4 * 45_187 <= about.bytes, "panels are whole: {}", about.bytes);
    let golden = read(&data("tiny-vit/golden.json"));
    let golden = golden.as_array().unwrap();
    let prepare = |row: &Value| model.prepare_object(row["input"].as_object().unwrap()).unwrap();
    let inputs: Vec<Input> = golden.iter().map(prepare).collect();
    let refs: Vec<&Input> = inputs.iter().collect();
    let together = model.predict(&refs).unwrap();
    for (row, (golden, prediction)) in golden.iter().zip(&together).enumerate() {
        let name = golden["name"].as_str().unwrap();
        let expected = &golden["output"]["scores"];
        let labels = about.labels.iter().zip(scores(prediction));
        let gap =
            |(label, score): (&String, f64)| (score - expected[label].as_f64().unwrap()).abs();
        let gap = labels.map(gap).fold(0.0, f64::max);
        println!("{name}: {gap:.1e}");
        assert!(gap <= 1e-6, "{name}: {gap:e}");
        let alone = model.predict(&[&inputs[row]]).unwrap();
        assert_eq!(&alone[0], prediction, "{name}: alone and in a batch");
        assert_eq!(inputs[row].tokens(), 17);
    }
    assert_eq!(model.predict(&[]).unwrap(), Vec::new());
}

/// The bytes of a golden image.
fn golden(name: &str) -> Vec<u8> {
    BASE64.decode(read(&data("pixels.json"))["images"][name].as_str().unwrap()).unwrap()
}

/// A PNG of grey rows of which only `bytes` are there, whose header says `width` × `height`.
fn png(width: u32, height: u32, bytes: usize) -> Vec<u8> {
    let chunk = |name: &[u8; 4], body: &[u8]| {
        let named = [name, body].concat();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&length, &named[..], &crc(&named).to_be_bytes()].concat()
    };
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    // zlib with one stored block.
    let rows = vec![0; bytes];
    let length = u16::try_from(bytes).unwrap();
    let sum = u32::from(length) << 16 | 1; // Adler-32 of zeros
    let body = [
        &[0x78, 0x01, 1][..],
        &length.to_le_bytes(),
        &(!length).to_le_bytes(),
        &rows,
        &sum.to_be_bytes(),
    ]
    .concat();
    [
        b"\x89PNG\r\n\x1a\n",
        &chunk(b"IHDR", &header)[..],
        &chunk(b"IDAT", &body),
        &chunk(b"IEND", b""),
    ]
    .concat()
}

/// CRC-32 as in PNG.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0xedb8_8320 }
        })
    })
}

type Expected = Result<(), (FaultClass, &'static str)>;

/// Each is an answer or a fault of its own, and never a panic.
#[test]
fn images_at_the_edges_are_defined() {
    use FaultClass::{Invalid, Undecodable};
    let model = build(&data("tiny-vit")).unwrap();
    let cut = |name: &str, part: usize| {
        let bytes = golden(name);
        bytes[..bytes.len() * part / 100].to_vec()
    };
    let cases: [(&str, Vec<u8>, Expected); 22] = [
        ("one pixel", png(1, 1, 2), Ok(())),
        ("more rows than the header says", png(3, 2, 400), Ok(())),
        ("fewer rows than the header says", png(300, 200, 400), Err((Undecodable, "a PNG"))),
        ("no pixel", png(0, 0, 1), Err((Undecodable, "a PNG"))),
        ("a bomb", png(8_193, 1, 9_000), Err((Invalid, "more than 8192 × 8192"))),
        ("a larger bomb", png(0x7fff_ffff, 0x7fff_ffff, 9), Err((Invalid, "more than 8192"))),
        ("long and thin", png(8_192, 1, 8_193), Ok(())),
        ("nothing", Vec::new(), Err((Undecodable, "not a JPEG, PNG, WebP, GIF or BMP (0"))),
        ("text", b"<html>".to_vec(), Err((Undecodable, "text (SVG, HTML or XML); only JPEG"))),
        ("an empty GIF", b"GIF89a\x01\0\x01\0\0\0\0;".to_vec(), Err((Undecodable, "a GIF"))),
        ("a GIF's beginning", b"GIF89a".to_vec(), Err((Undecodable, "a GIF"))),
        ("a BMP's beginning", b"BM".to_vec(), Err((Undecodable, "ends in its header"))),
        ("a JPEG's beginning", b"\xff\xd8\xff\xe0".to_vec(), Err((Undecodable, "cut off"))),
        ("a JPEG without its end", cut("jpeg", 99), Err((Undecodable, "cut off"))),
        ("half a JPEG", cut("jpeg", 50), Err((Undecodable, "cut off"))),
        ("half a progressive JPEG", cut("jpeg, progressive", 50), Err((Undecodable, "cut off"))),
        ("a JPEG without scan", b"\xff\xd8\xff\xd9".to_vec(), Err((Undecodable, "a JPEG"))),
        ("half a WebP", cut("webp", 50), Err((Undecodable, "WebP"))),
        ("a WebP's header", cut("webp", 1), Err((Undecodable, "WebP"))),
        ("half a lossy WebP", cut("webp, lossy", 50), Err((Undecodable, "WebP"))),
        ("half a PNG", cut("png", 50), Err((Undecodable, "a PNG"))),
        ("a PNG's header", cut("png", 1), Err((Undecodable, "a PNG"))),
    ];
    for (name, bytes, expect) in cases {
        match (prepared(&*model, &bytes), expect) {
            (Ok(input), Ok(())) => {
                assert!(model.predict(&[&input]).is_ok(), "{name}");
            }
            (Err(fault), Err((class, part))) => {
                assert!(fault.class == class && fault.message.contains(part), "{name}: {fault}");
                assert!(fault.message.starts_with("field \"image\": "), "{name}: {fault}");
            }
            (got, expect) => panic!("{name}: {got:?}, expected {expect:?}"),
        }
    }
}

/// What a decoder would fill with grey is no image: a JPEG whose header says more than there is.
#[test]
fn a_jpeg_is_as_large_as_its_header_says() {
    let model = build(&data("tiny-vit")).unwrap();
    let prepared = |bytes: &[u8]| prepared(&*model, bytes);
    for name in [
        "jpeg",
        "jpeg, 4:4:4",
        "jpeg, 4:2:2 of odd size",
        "jpeg, progressive",
        "jpeg, grey",
        "jpeg, cmyk",
        "jpeg, orientation 6",
    ] {
        let whole = golden(name);
        assert!(prepared(&whole).is_ok(), "{name}");
        let frame =
            whole.windows(2).position(|pair| pair[0] == 0xff && (0xc0..=0xc2).contains(&pair[1]));
        let size = frame.unwrap() + 5;
        for (height, width) in [(20, 0), (0, 20), (64, 64), (6_000, 6_000)] {
            let mut bytes = whole.clone();
            for (place, more) in [(size, height), (size + 2, width)] {
                let side = u16::from_be_bytes([bytes[place], bytes[place + 1]]) + more;
                bytes[place..place + 2].copy_from_slice(&side.to_be_bytes());
            }
            let fault = prepared(&bytes).unwrap_err();
            assert_eq!(fault.class, FaultClass::Undecodable, "{name} and {width} × {height}");
            assert!(fault.message.contains("ends before the size"), "{name}: {fault}");
        }
    }
}

/// Bytes that were altered anywhere are an answer or a fault, never a panic; and the decoder of none of them panics
/// inside either.
#[test]
fn altered_images_are_defined() {
    let model = build(&data("tiny-vit")).unwrap();
    let mut state = 1_u32;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::try_from(state >> 8).unwrap() % below
    };
    let mut answers = 0;
    for name in
        ["png", "png, palette", "jpeg", "jpeg, progressive", "jpeg, cmyk", "webp", "webp, lossy"]
    {
        let whole = golden(name);
        for _ in 0..150 {
            let mut bytes = whole.clone();
            for _ in 0..=random(4) {
                let place = random(bytes.len());
                bytes[place] = u8::try_from(random(256)).unwrap();
            }
            match prepared(&*model, &bytes) {
                Ok(input) => {
                    assert_eq!(pixels(&input).len(), 32 * 32 * 3);
                    answers += 1;
                }
                Err(fault) => assert!(!fault.message.contains("panicked"), "{name}: {fault}"),
            }
        }
    }
    println!("{answers} of 1050 are images still");
}

#[test]
fn fields_that_hold_no_image_are_faults() {
    use FaultClass::{Invalid, Missing};
    let model = build(&data("tiny-vit")).unwrap();
    for (fields, class, part) in [
        (json!({}), Missing, "field \"image\" is missing or null"),
        (json!({"image": null}), Missing, "missing or null"),
        (json!({"image": [1, 2]}), Invalid, "is an array, not an image in base64"),
        (json!({"image": "data:image/png;base64,AAAA"}), FaultClass::Undecodable, "3 bytes"),
        (json!({"image": "A"}), Invalid, "field \"image\" is not valid base64"),
        (json!({"image": "https://example.com/a.png"}), Invalid, "nothing is fetched"),
        (json!({"image": ""}), FaultClass::Undecodable, "0 bytes"),
    ] {
        let fault = model.prepare_object(fields.as_object().unwrap()).unwrap_err();
        assert!(fault.class == class && fault.message.contains(part), "{fields}: {fault}");
    }
    let other = Input::Row([1.0].into());
    let small = Input::Pixels { pixels: [0; 3].into(), tokens: 2 };
    for (input, part) in [(other, "takes pixels"), (small, "another size")] {
        let refused = model.predict(&[&input]).unwrap_err().to_string();
        assert!(refused.contains("input 0") && refused.contains(part), "{refused}");
    }
}

/// What the configuration says is checked before a tensor is made.
#[test]
fn configurations_out_of_bounds_are_refused() {
    for (file, changes, part) in [
        ("config.json", json!({"architectures": ["ViTForMaskedImageModeling"]}), "ViTForMasked"),
        (
            "config.json",
            json!({"architectures": ["ResNetForImageClassification"], "model_type": "resnet"}),
            "resnet",
        ),
        ("config.json", json!({"hidden_act": "relu"}), "only gelu"),
        ("config.json", json!({"is_causal": true}), "is_causal: true is not supported"),
        ("config.json", json!({"num_channels": 1}), "only 3"),
        ("config.json", json!({"hidden_size": 0}), "hidden_size is 0"),
        ("config.json", json!({"hidden_size": 1_u64 << 40}), "hidden_size is 1099511627776"),
        ("config.json", json!({"num_hidden_layers": 100_000}), "num_hidden_layers is 100000"),
        ("config.json", json!({"num_attention_heads": 5}), "no multiple of num_attention_heads 5"),
        ("config.json", json!({"patch_size": 5}), "no multiple of patch_size 5"),
        ("config.json", json!({"patch_size": 64}), "patch_size is 64, not between 1 and 32"),
        ("config.json", json!({"image_size": 4096, "patch_size": 1}), "16777216 patches"),
        ("config.json", json!({"image_size": 48}), "size {height: 32, width: 32} without a crop"),
        ("config.json", json!({"patch_size": 4}), "tensor \"vit.embeddings."),
        ("config.json", json!({"layer_norm_eps": 0}), "layer_norm_eps is 0"),
        ("config.json", json!({"id2label": {"0": "a"}}), "id2label has 1 labels, the classifier 3"),
        ("config.json", json!({"problem_type": "regression"}), "regression"),
        ("preprocessor_config.json", json!({"resample": 6}), "resample 6 is none of"),
        ("preprocessor_config.json", json!({"image_std": [1, 0, 1]}), "give NaN or infinity"),
        ("preprocessor_config.json", json!({"image_std": [1, 1]}), "preprocessor_config.json"),
    ] {
        let error = build(altered(file, &changes).path()).err().unwrap();
        assert!(error.contains(part), "{changes}: {error}");
    }
    let unnamed = build(altered("config.json", &json!({"id2label": {}})).path()).unwrap();
    assert_eq!(unnamed.about().labels, ["LABEL_0", "LABEL_1", "LABEL_2"]);
    for (device, precision, part) in
        [("cuda:0", Precision::F32, "cuda:0"), ("cpu", Precision::F16, "f16 is for GPUs")]
    {
        let model = config::Model {
            device: device.parse().unwrap(),
            precision,
            ..config::Model::default()
        };
        let options = LoadOptions { model, ..options() };
        let error = gate::build(&data("tiny-vit"), &options).err().unwrap().to_string();
        assert!(error.contains(part), "{error}");
    }
}

/// Weights that are NaN are refused when they are read, an output that is when it comes.
#[test]
fn numbers_that_are_none_are_refused() {
    let filled = |value: f32| {
        let dir = altered("config.json", &json!({}));
        let file = dir.path().join("model.safetensors");
        let mut bytes = fs::read(&file).unwrap();
        let start =
            8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
        let header: Value = serde_json::from_slice(&bytes[8..start]).unwrap();
        let place = |end: usize| header["classifier.weight"]["data_offsets"][end].as_u64().unwrap();
        let [first, end] = [0, 1].map(|end| start + usize::try_from(place(end)).unwrap());
        for four in bytes[first..end].chunks_exact_mut(4) {
            four.copy_from_slice(&value.to_le_bytes());
        }
        fs::write(&file, bytes).unwrap();
        dir
    };
    let error = build(filled(f32::NAN).path()).err().unwrap();
    assert!(error.contains("\"classifier.weight\" holds NaN or infinity"), "{error}");
    let model = build(filled(f32::MAX).path()).unwrap();
    let input = prepared(&*model, &golden("png")).unwrap();
    let refused = model.predict(&[&input, &input]).unwrap_err().to_string();
    assert_eq!(refused, "the model refused input 0: the output is NaN or infinite");
}

/// The whole gate: digests, a warm-up with a grey pixel, golden vectors.
#[test]
fn an_image_model_passes_the_gate() {
    let dir = altered("config.json", &json!({"problem_type": "multi_label_classification"}));
    let image = BASE64.encode(golden("png"));
    let model = build(dir.path()).unwrap();
    let input = model.prepare_object(json!({"image": image}).as_object().unwrap()).unwrap();
    let scores = scores(&model.predict(&[&input]).unwrap()[0]);
    assert!((scores.iter().sum::<f64>() - 1.0).abs() > 1e-3, "sigmoids do not add up: {scores:?}");
    let single = build(&data("tiny-vit")).unwrap();
    assert!(gate::load(&data("tiny-vit"), &options()).is_ok());
    assert_ne!(scores, self::scores(&single.predict(&[&input]).unwrap()[0]));
    gate::admit(dir.path(), "tiny", &options()).unwrap();
    assert_eq!(gate::load(dir.path(), &options()).unwrap().model.about(), model.about());
}

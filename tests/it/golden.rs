//! Golden numbers: our answers against those of the reference libraries, and a batch against single records.
//! `data/make_goldens.py` made them.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tidemill::answer::{Number, Prediction, Span, Task};
use tidemill::config::{self, Aggregation, OnLong, Precision};
use tidemill::failure::chain;
use tidemill::model::gate;
use tidemill::model::kernels::{self, Level};
use tidemill::model::options::LoadOptions;
use tidemill::model::{Input, Model};
use tidemill::record::FaultClass;

/// A record's fields.
type Fields = serde_json::Map<String, Value>;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data").join(name)
}

fn load(dir: &Path) -> Box<dyn Model> {
    load_in(dir, Precision::F32)
}

fn load_in(dir: &Path, precision: Precision) -> Box<dyn Model> {
    load_as(dir, precision, Aggregation::default())
}

fn load_as(dir: &Path, precision: Precision, aggregation: Aggregation) -> Box<dyn Model> {
    gate::build(dir, &options(precision, aggregation))
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
}

fn options(precision: Precision, aggregation: Aggregation) -> LoadOptions {
    let model = config::Model { precision, aggregation, ..config::Model::default() };
    LoadOptions { model, ..LoadOptions::default() }
}

/// `[(input, expected output)]` of a golden file.
fn goldens(file: &Path) -> Vec<(Fields, Value)> {
    let text = std::fs::read_to_string(file).unwrap();
    let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
    let row = |row: &Value| (row["input"].as_object().unwrap().clone(), row["output"].clone());
    rows.iter().map(row).collect()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// The largest difference of a prediction to the expected output: cosine distance for embeddings, absolute else.
fn difference(prediction: &Prediction, expected: &Value) -> f64 {
    match prediction {
        Prediction::Embedding(values) => {
            let expected = floats(&expected["embedding"]);
            assert_eq!(values.len(), expected.len());
            let values: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            1.0 - dot(&values, &expected)
                / (dot(&values, &values) * dot(&expected, &expected)).sqrt()
        }
        Prediction::Label { best, scores, labels } => {
            assert_eq!(expected["label"], labels[*best].as_str());
            let gap = |(label, score): (&String, &Number)| {
                (f64::from(*score) - expected["scores"][label].as_f64().unwrap()).abs()
            };
            labels.iter().zip(scores).map(gap).fold(0.0, f64::max)
        }
        Prediction::Value(value) => (f64::from(*value) - expected["value"].as_f64().unwrap()).abs(),
        Prediction::Spans(spans) => {
            let expected = expected["spans"].as_array().unwrap();
            let places: Vec<Value> = spans
                .iter()
                .map(|s| serde_json::json!([s.label, s.start, s.end, s.word]))
                .collect();
            let place = |span: &Value| {
                serde_json::json!([span["label"], span["start"], span["end"], span["word"]])
            };
            assert_eq!(places, expected.iter().map(place).collect::<Vec<_>>());
            let gap = |(span, expected): (&Span, &Value)| {
                (f64::from(span.score) - expected["score"].as_f64().unwrap()).abs()
            };
            spans.iter().zip(expected).map(gap).fold(0.0, f64::max)
        }
        Prediction::Chunks(_) | Prediction::Mean { .. } => panic!("{prediction:?}"),
    }
}

/// Our answers are the reference's within `tolerance`, and a batch gives the bits that single records give.
#[track_caller]
fn check(model: &dyn Model, goldens: &[(Fields, Value)], tolerance: f64) {
    let inputs: Vec<Input> =
        goldens.iter().map(|(fields, _)| model.prepare_object(fields).unwrap()).collect();
    let refs: Vec<&Input> = inputs.iter().collect();
    let together = model.predict(&refs).unwrap();
    for (row, ((fields, expected), prediction)) in goldens.iter().zip(&together).enumerate() {
        let difference = difference(prediction, expected);
        assert!(
            difference <= tolerance,
            "row {row}: {difference:e} of {fields:?}, {:?}",
            inputs[row]
        );
        let alone = model.predict(&[&inputs[row]]).unwrap();
        assert_eq!(&alone[0], prediction, "row {row}: alone and in a batch");
    }
    let backwards: Vec<&Input> = refs.iter().rev().copied().collect();
    let backwards = model.predict(&backwards).unwrap();
    assert!(backwards.iter().rev().eq(&together), "the order within a batch changes nothing");
}

/// The directory of `MiniLM`; `None`, said loudly, where it was not fetched.
fn minilm() -> Option<PathBuf> {
    let cache = std::env::var("TIDEMILL_CACHE").map_or_else(
        |_| PathBuf::from(std::env::var("HOME").unwrap_or_default()).join(".cache/tidemill-test"),
        PathBuf::from,
    );
    let dir = std::env::var("TIDEMILL_MINILM").map_or_else(|_| cache.join("minilm"), PathBuf::from);
    if !dir.join("model.safetensors").exists() {
        let line =
            format!("skipped: MiniLM is not in {}; tests/minilm.sh fetches it\n", dir.display());
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return None;
    }
    Some(dir)
}

#[test]
fn minilm_is_sentence_transformers() {
    let Some(dir) = minilm() else { return };
    check(load(&dir).as_ref(), &goldens(&data("minilm.json")), 1e-5);
}

#[test]
fn minilm_in_int8_stays_close() {
    let Some(dir) = minilm() else { return };
    let (model, goldens) = (load_in(&dir, Precision::Int8), goldens(&data("minilm.json")));
    assert_eq!(model.about().precision, "int8");
    check(model.as_ref(), &goldens, 0.02);
    let inputs = goldens.iter().map(|(fields, _)| model.prepare_object(fields).unwrap());
    let distance = |(input, (_, expected)): (Input, &(Fields, Value))| {
        difference(&model.predict(&[&input]).unwrap()[0], expected)
    };
    let distances: Vec<f64> = inputs.zip(&goldens).map(distance).collect();
    let count = f64::from(u32::try_from(distances.len()).unwrap());
    let mean = distances.iter().sum::<f64>() / count;
    assert!(mean <= 0.005, "mean cosine {}", 1.0 - mean);
}

#[test]
fn minilm_in_bf16_is_all_but_f32() {
    let Some(dir) = minilm() else { return };
    if kernels::level() < Level::Bf16 {
        let options = options(Precision::Bf16, Aggregation::default());
        let error = gate::build(&dir, &options).map(|_| ()).unwrap_err();
        assert!(chain(&error).contains("AVX512_BF16"), "{error}");
        return;
    }
    let model = load_in(&dir, Precision::Bf16);
    assert_eq!(model.about().precision, "bf16");
    check(model.as_ref(), &goldens(&data("minilm.json")), 1e-4);
}

#[test]
fn auto_is_the_fastest_that_is_close() {
    let Some(dir) = minilm() else { return };
    let expect = if kernels::level() == Level::Portable { "f32" } else { "int8" };
    assert_eq!(load_in(&dir, Precision::Auto).about().precision, expect);
}

#[test]
fn tiny_checkpoints_are_transformers() {
    for name in [
        "tiny-bert",
        "tiny-mpnet",
        "tiny-bert-labels",
        "tiny-distilbert-labels",
        "tiny-roberta-labels",
        "tiny-mpnet-labels",
        "tiny-bert-value",
        "tiny-distilbert-values",
        "tiny-modernbert",
        "tiny-modernbert-labels",
    ] {
        println!("{name}");
        let dir = data(name);
        check(load(&dir).as_ref(), &goldens(&dir.join("golden.json")), 1e-5);
    }
}

/// `data/make_texts.py` made them: texts and pairs that are cut, from the beginning or from the end.
#[test]
fn what_is_left_of_texts_and_pairs_is_the_reference_s() {
    for (name, task, fields) in [
        ("tiny-bert-pairs", Task::TextRanking, &["text", "text_pair"][..]),
        ("tiny-bert-pairs-left", Task::TextRanking, &["text", "text_pair"]),
        ("tiny-roberta-pairs", Task::TextClassification, &["text"]),
        ("tiny-bert-end", Task::TextEmbedding, &["text"]),
        ("tiny-bert-tokens-end", Task::TokenClassification, &["text"]),
    ] {
        println!("{name}");
        let dir = data(name);
        let model = load(&dir);
        assert_eq!(model.about().task, task);
        assert_eq!(model.about().fields, fields);
        // Scores of a ranking are of size 1 to 8.
        let tolerance = if task == Task::TextRanking { 5e-5 } else { 1e-5 };
        check(model.as_ref(), &goldens(&dir.join("golden.json")), tolerance);
    }
}

#[test]
fn a_second_text_is_read_or_refused_and_null_is_none() {
    let record = |text: &str, pair: Value| {
        let pair = ("text_pair".to_owned(), pair);
        Fields::from_iter([("text".to_owned(), Value::from(text)), pair])
    };
    for name in ["tiny-bert", "tiny-bert-tokens"] {
        let model = load(&data(name));
        let fault = model.prepare_object(&record("a", Value::from("b"))).unwrap_err();
        assert!(fault.message.contains("takes one: leave the field out"), "{}", fault.message);
        let alone = model.prepare_object(&record("a", Value::Null)).unwrap();
        assert_eq!(alone, model.prepare_object(&record("a", Value::Null)).unwrap());
    }
    let ranking = load(&data("tiny-bert-pairs"));
    for (pair, class) in [(Value::Null, FaultClass::Missing), (Value::from(7), FaultClass::Invalid)]
    {
        assert_eq!(ranking.prepare_object(&record("a", pair)).unwrap_err().class, class);
    }
    let classifier = load(&data("tiny-roberta-pairs"));
    let single = classifier.prepare_object(&record("a", Value::Null)).unwrap();
    assert_eq!(classifier.prepare_object(&record("a", Value::from(""))).unwrap(), single);
    assert_ne!(classifier.prepare_object(&record("a", Value::from("b"))).unwrap(), single);
}

/// A copy of a folder whose `config.json` says something else.
fn changed(name: &str, keys: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(data(name)).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    let file = dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    std::fs::write(file, config.to_string()).unwrap();
    dir
}

#[test]
fn labels_that_occur_twice_are_numbered() {
    let twice = serde_json::json!({"id2label": {"0": "no", "1": "no", "2": "no#2"}});
    let dir = changed("tiny-bert-labels", &twice);
    assert_eq!(load(dir.path()).about().labels, ["no", "no#3", "no#2"]);
}

/// As `CrossEncoder.predict` has it, by what `config.json` says of the activation, in its new place and its old one.
#[test]
fn a_cross_encoder_answers_by_its_own_activation() {
    let record = &goldens(&data("tiny-bert-pairs").join("golden.json"))[0];
    let raw = record.1["score"].as_f64().unwrap();
    let named = |name: &str| serde_json::json!({"sentence_transformers": {"activation_fn": name}});
    let sigmoid = 1.0 / (1.0 + (-raw).exp());
    let old = "sbert_ce_default_activation_function";
    for (keys, expect) in [
        (named("torch.nn.modules.activation.Sigmoid"), sigmoid),
        (named("torch.nn.modules.activation.Tanh"), raw.tanh()),
        (named("my.own.Function"), sigmoid),
        (serde_json::json!({"sentence_transformers": {"version": "5.0.0"}}), sigmoid),
        (
            serde_json::json!({"sentence_transformers": null, old: "torch.nn.modules.linear.Identity"}),
            raw,
        ),
        (serde_json::json!({"sentence_transformers": null, old: null}), sigmoid),
    ] {
        let dir = changed("tiny-bert-pairs", &keys);
        let model = load(dir.path());
        let input = model.prepare_object(&record.0).unwrap();
        let Prediction::Label { scores, .. } = model.predict(&[&input]).unwrap().remove(0) else {
            panic!("{keys}: a score has a label")
        };
        assert!((f64::from(scores[0]) - expect).abs() < 1e-5, "{keys}: {scores:?}, not {expect}");
    }
    let dir = changed("tiny-bert-pairs", &named("torch.nn.modules.activation.Mish"));
    let error = gate::build(dir.path(), &options(Precision::F32, Aggregation::default()));
    let message = error.err().map(|error| chain(&error)).unwrap_or_default();
    assert!(message.contains("Mish") && message.contains("Identity, Sigmoid"), "{message}");
}

#[test]
fn token_classifiers_are_transformers_pipeline() {
    let strategies = [
        ("none", Aggregation::None),
        ("simple", Aggregation::Simple),
        ("first", Aggregation::First),
        ("average", Aggregation::Average),
        ("max", Aggregation::Max),
    ];
    for name in
        ["tiny-bert-tokens", "tiny-distilbert-tokens", "tiny-mpnet-tokens", "tiny-roberta-tokens"]
    {
        let dir = data(name);
        for (strategy, aggregation) in strategies {
            println!("{name}, {strategy}");
            let model = load_as(&dir, Precision::F32, aggregation);
            assert_eq!(model.about().task, Task::TokenClassification);
            let goldens = goldens(&dir.join(format!("golden-{strategy}.json")));
            check(model.as_ref(), &goldens, 1e-5);
        }
    }
}

/// Texts at the edges: each is an answer or a fault of its own, and never a panic.
#[test]
fn texts_at_the_edges_are_defined() {
    let options = |on_long| LoadOptions {
        model: config::Model { on_long, ..config::Model::default() },
        ..LoadOptions::default()
    };
    let dir = data("tiny-bert");
    let model = gate::build(&dir, &options(OnLong::Truncate)).unwrap();
    let strict = gate::build(&dir, &options(OnLong::Reject)).unwrap();
    let fields = |text: &str| Fields::from_iter([("text".to_owned(), Value::from(text))]);
    let long = "word ".repeat(100_000);
    for text in ["", " ", "\u{0}\u{feff}", "\u{1f980}\u{1f980}", "e\u{301}", &long] {
        let input = model.prepare_object(&fields(text)).unwrap();
        let answer = model.predict(&[&input]).unwrap();
        assert!(
            matches!(&answer[..], [Prediction::Embedding(values)] if values.iter().all(|v| v.is_finite()))
        );
    }
    for name in ["tiny-bert-tokens", "tiny-roberta-tokens"] {
        let tokens = load(&data(name));
        for text in ["", " ", "\u{0}\u{feff}", "\u{1f980}\u{1f980}", "e\u{301} \u{df}", &long] {
            let input = tokens.prepare_object(&fields(text)).unwrap();
            let Prediction::Spans(spans) = tokens.predict(&[&input]).unwrap().remove(0) else {
                panic!("{name} finds spans")
            };
            for Span { start, end, word, .. } in spans {
                let slice: String = text.chars().skip(start).take(end - start).collect();
                assert_eq!(slice, word);
            }
        }
        let bare = tokens.predict(&[&Input::Tokens(vec![2, 3].into())]).unwrap_err();
        assert!(bare.to_string().contains("input 0: a token classifier wants the places"));
    }
    for (words, expect) in [(38, None), (39, Some("40/41")), (60, Some("40/62"))] {
        let input = model.prepare_object(&fields(&"word ".repeat(words))).unwrap();
        let truncated = input.truncated().map(|truncated| truncated.to_string());
        assert_eq!(truncated.as_deref(), expect, "{words} words");
    }
    let truncated = model.prepare_object(&fields(&long)).unwrap().truncated();
    assert!(truncated.is_some_and(|truncated| truncated.more && 40 < truncated.of));
    let fault = strict.prepare_object(&fields(&long)).unwrap_err();
    assert!(fault.message.contains("more than"), "{}", fault.message);
    let beyond = Input::Tokens(vec![1, 4_000_000, 2].into());
    let good = model.prepare_object(&fields("good")).unwrap();
    let refused = model.predict(&[&good, &beyond]).unwrap_err();
    assert!(refused.to_string().contains("input 1: token id 4000000 is beyond the vocabulary"));
    assert_eq!(model.predict(&[]).unwrap(), Vec::new());
}

/// Every digit: numbers to a billionth, labels and null alike, from weights of each kind of float.
#[test]
fn tabular_models_are_scikit_learn() {
    for name in [
        "logistic",
        "logistic-three",
        "logistic-kinds",
        "logistic-bf16",
        "mlp-relu",
        "mlp-tanh-three",
        "mlp-f32",
        "mlp-value",
        "linear",
        "linear-f16",
        "linear-times",
    ] {
        println!("{name}");
        let (model, goldens) = (load(&data(name)), goldens(&data(name).join("golden.json")));
        assert_eq!(model.about().precision, "f64");
        // A score of 1e-6 is 1 less one that is rounded.
        let relative = goldens.iter().map(|(_, expected)| {
            expected["value"].as_f64().map_or(1.0, |value| value.abs().max(1e-3))
        });
        // Where two products cancel, a CPU without fused sums rounds each of them before.
        let portable = std::env::var("TIDEMILL_CPU").is_ok_and(|cpu| cpu == "portable");
        let part = if portable && name == "linear-times" { 1e-6 } else { 1e-9 };
        let tolerance = part * relative.fold(f64::INFINITY, f64::min);
        check(model.as_ref(), &goldens, tolerance);
    }
}

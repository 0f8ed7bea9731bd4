use std::collections::BTreeMap;

use apache_avro::types::Value as Theirs;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{BigDecimal, Decimal};
use serde_json::Value as Json;

use super::*;
use crate::answer::{Chunk, Scores, Vectors};
use crate::avro::parse;
use crate::config::{Input, InputFormat};
use crate::failure::Exit;
use crate::record::{Offset, Partition};

fn record(value: &[u8]) -> Record {
    Record {
        key: Some(b"00120".to_vec()),
        ..Record::of_value(Partition { topic: 0, number: 0 }, Offset(0), Some(value.to_vec()))
    }
}

fn writer(config: &Config) -> Writer {
    Writer::new(config, Arc::new(Codec::new(config).unwrap()))
}

fn written(output: &Output, prediction: &Prediction) -> String {
    let config = Config { output: output.clone(), ..Config::default() };
    let bytes = writer(&config).write(prediction, &record(b"{}")).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn fields<const N: usize>(names: [(&str, Part); N]) -> BTreeMap<String, Part> {
    names.map(|(name, part)| (name.to_owned(), part)).into()
}

#[test]
fn parts_stand_under_the_names_that_they_are_given() {
    let labels = ["no".to_owned(), "yes".to_owned()].into();
    let label = Prediction::label(&[0.25_f32, 0.75], &labels);
    let embedding = Prediction::Embedding(vec![1.0, -0.5]);
    let chunk = |start, end| Chunk { start, end, embedding: vec![1.0] };
    let chunks = Prediction::Chunks(vec![chunk(0, 3), chunk(4, 9)]);
    let mean = Prediction::Mean { embedding: vec![0.5], of: 2 };
    let (bytes, array) = (Vectors::Bytes, Scores::Array);
    let named = |names| Output { fields: names, ..Output::default() };
    for (output, prediction, expect) in [
        (
            Output {
                scores_format: array,
                ..named(fields([("p", Part::Score), ("all", Part::Scores)]))
            },
            &label,
            r#"{"all":[0.25,0.75],"p":0.75}"#,
        ),
        (
            Output { top_k: Some(1), ..named(fields([("cls", Part::Label), ("s", Part::Scores)])) },
            &label,
            r#"{"cls":"yes","s":{"yes":0.75}}"#,
        ),
        (
            Output { embedding_format: bytes, ..named(fields([("vector", Part::Embedding)])) },
            &embedding,
            r#"{"vector":"AACAPwAAAL8="}"#,
        ),
        (
            Output { include: Include::Key, ..named(fields([("v", Part::MeanEmbedding)])) },
            &mean,
            r#"{"v":[0.5],"key":"00120"}"#,
        ),
        (Output::default(), &mean, r#"{"mean_embedding":[0.5],"mean_of":2}"#),
        (
            Output::default(),
            &chunks,
            r#"{"chunks":[{"start":0,"end":3,"embedding":[1.0]},{"start":4,"end":9,"embedding":[1.0]}]}"#,
        ),
        (
            Output { embedding_format: bytes, ..Output::default() },
            &chunks,
            r#"{"chunks":[{"start":0,"end":3,"embedding":"AACAPw=="},{"start":4,"end":9,"embedding":"AACAPw=="}]}"#,
        ),
    ] {
        assert_eq!(written(&output, prediction), expect);
    }
}

/// Before a version serves, and where a prediction is none of those after all.
#[test]
fn a_part_that_a_prediction_does_not_have_is_refused() {
    let output = Output { fields: fields([("p", Part::Score)]), ..Output::default() };
    let config = Config { output, ..Config::default() };
    let writer = writer(&config);
    writer.ready(Task::TextClassification).unwrap();
    writer.fits(Task::ImageClassification).unwrap();
    for refused in [writer.ready(Task::TextEmbedding), writer.fits(Task::TextEmbedding)] {
        let Failure { message, exit } = refused.unwrap_err();
        assert_eq!(exit, Exit::Config);
        let words = "output.fields gives \"p\" to score, and a prediction of a model for text-embedding has embedding";
        assert!(message.starts_with(words), "{message}");
    }
    let fault = writer.write(&Prediction::Value(0.5_f32.into()), &record(b"{}")).unwrap_err();
    assert_eq!(fault.class, FaultClass::Refused);
    assert!(fault.message.contains("\"p\" to score, which the prediction does not have"));

    let mut chunked = Config { model: crate::config::Model::default(), ..Config::default() };
    chunked.model.on_long = OnLong::Chunks;
    chunked.output.fields = fields([("v", Part::Embedding)]);
    let Failure { message, .. } = self::writer(&chunked).ready(Task::TextEmbedding).unwrap_err();
    assert!(message.contains("has chunks"), "{message}");
}

/// What a record says of numbers goes along digit by digit: no number of JSON passes through a float.
#[test]
fn numbers_of_a_record_go_along_untouched() {
    let value = r#"{"price":1.50,"id":12345678901234567890,"tiny":1e-400,"deep":[{"n":-0.10E+2}],"text":"\ud83d"}"#;
    let prediction = Prediction::Value(0.5_f32.into());
    let all =
        |names: &[&str]| Include::Fields(names.iter().map(|name| (*name).to_owned()).collect());
    for (include, expect) in [
        // But for half of a pair, which no reader could encode.
        (
            Include::All,
            format!("{{\"value\":0.5,\"input\":{}}}", value.replace("\\ud83d", "\\ufffd")),
        ),
        (
            all(&["id", "price", "deep"]),
            r#"{"value":0.5,"input":{"id":12345678901234567890,"price":1.50,"deep":[{"n":-0.10E+2}]}}"#.to_owned(),
        ),
        (Include::Key, r#"{"value":0.5,"key":"00120"}"#.to_owned()),
    ] {
        for format in [OutputFormat::Json, OutputFormat::Avro] {
            let output = Output { include: include.clone(), format, ..Output::default() };
            let config = Config { output, ..Config::default() };
            let found = writer(&config).write(&prediction, &record(value.as_bytes())).unwrap();
            if format == OutputFormat::Json {
                assert_eq!(String::from_utf8(found).unwrap(), expect);
            } else {
                // The same text stands in the datum.
                let text = expect.split_once("\"input\":").map(|(_, text)| text.strip_suffix('}').unwrap());
                let text = text.unwrap_or("00120").as_bytes();
                assert!(found.windows(text.len()).any(|window| window == text), "{include:?}");
            }
        }
    }
}

/// A decimal has all its digits, and so has a long.
#[test]
fn numbers_of_an_avro_record_go_along_untouched() {
    let schema = r#"{"type":"record","name":"R","fields":[
        {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":30,"scale":2}},
        {"name":"big","type":{"type":"bytes","logicalType":"big-decimal"}},
        {"name":"id","type":"long"},{"name":"ratio","type":"double"}]}"#;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.avsc");
    std::fs::write(&file, schema).unwrap();
    let parsed = parse(schema, &[]).unwrap();
    let cents = 123_456_789_012_345_678_901_234_567_850_i128.to_be_bytes();
    let datum = GenericDatumWriter::builder(&parsed).build().unwrap();
    let theirs = Theirs::Record(vec![
        ("price".to_owned(), Theirs::Decimal(Decimal::new(cents).unwrap())),
        ("big".to_owned(), Theirs::BigDecimal("-0.100".parse::<BigDecimal>().unwrap())),
        ("id".to_owned(), Theirs::Long(i64::MAX)),
        ("ratio".to_owned(), Theirs::Double(0.1)),
    ]);
    let datum = datum.write_value_to_vec(theirs).unwrap();
    let input = Input {
        topics: vec!["t".to_owned()],
        format: InputFormat::Avro,
        schema: Some(file),
        ..Input::default()
    };
    let output = Output { include: Include::All, ..Output::default() };
    let config = Config { input, output, ..Config::default() };
    let found = writer(&config).write(&Prediction::Value(0.5_f32.into()), &record(&datum)).unwrap();
    let found = String::from_utf8(found).unwrap();
    for digits in ["1234567890123456789012345678.50", "-0.100", "9223372036854775807", "0.1"] {
        assert!(found.contains(digits), "{digits} in {found}");
    }
    serde_json::from_str::<Json>(&found).unwrap();
}

use std::fs;
use std::path::Path;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use apache_avro::types::Value as Theirs;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::avro::{Plan, parse};

fn schema(kind: Kind) -> Schema {
    parse(kind.schema(), &[]).unwrap()
}

/// What `apache_avro` reads, which takes every byte.
fn theirs(kind: Kind, mut datum: &[u8]) -> Vec<(String, Theirs)> {
    let schema = schema(kind);
    let reader = GenericDatumReader::builder(&schema).build().unwrap();
    let value = reader.read_value(&mut datum).unwrap();
    assert!(datum.is_empty());
    let Theirs::Record(fields) = value else { panic!("{value:?}") };
    fields
}

fn written(prediction: &Prediction, top_k: Option<u32>, along: Along<'_>) -> Vec<(String, Theirs)> {
    let mut out = Vec::new();
    Encoder::new(&mut out).prediction(prediction, top_k, along);
    theirs(Kind::of(prediction), &out)
}

#[test]
fn every_schema_is_of_its_name_and_every_field_has_a_default() {
    fn all_have_defaults(schema: &Schema) {
        if let Schema::Record(record) = schema {
            for field in &record.fields {
                assert!(field.default.is_some() && field.doc.is_some(), "{}", field.name);
                all_have_defaults(&field.schema);
            }
        } else if let Schema::Array(array) = schema {
            all_have_defaults(&array.items);
        }
    }
    for kind in Kind::ALL {
        let schema = schema(kind);
        assert_eq!(schema.name().unwrap().fullname(None), kind.name());
        all_have_defaults(&schema);
    }
}

/// Where a form has changed, its text of before is kept as `NAME.2.avsc`, and so on.
#[test]
fn schemas_evolve_so_that_all_forms_read_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut compared = 0;
    for entry in fs::read_dir(root.join("tests/it/data/schemas")).unwrap() {
        let before = entry.unwrap().path();
        let name = before.file_name().unwrap().to_str().unwrap().split('.').next().unwrap();
        let kind = Kind::ALL.into_iter().find(|kind| {
            fs::read_to_string(root.join(format!("schemas/{name}.avsc"))).unwrap() == kind.schema()
        });
        let now = schema(kind.unwrap_or_else(|| panic!("schemas/{name}.avsc is of no kind")));
        let older = parse(&fs::read_to_string(&before).unwrap(), &[]).unwrap();
        assert_eq!(SchemaCompatibility::mutual_read(&older, &now), Ok(Compatibility::Full));
        for (writer, reader) in [(&older, &now), (&now, &older)] {
            let Schema::Record(record) = reader else { panic!("{name}") };
            let fields = record.fields.iter().map(|field| vec![field.name.clone()]);
            Plan::new(writer, Some(reader), &fields.collect::<Vec<_>>()).unwrap();
        }
        compared += 1;
    }
    assert!(Kind::ALL.len() <= compared, "{compared} forms are kept");
}

#[test]
fn predictions_are_written_as_their_schemas_say() {
    let along = Along { key: Some(b"k\xff"), input: Some("{\"a\":1}") };
    let fields = written(&Prediction::Embedding(vec![1.5, -0.1]), None, along);
    let float = |n: f32| Theirs::Float(n);
    assert_eq!(fields[0].1, Theirs::Array(vec![float(1.5), float(-0.1)]));
    assert_eq!(fields[1].1, Theirs::Union(1, Box::new(Theirs::Bytes(b"k\xff".to_vec()))));
    assert_eq!(fields[2].1, Theirs::Union(1, Box::new(Theirs::String("{\"a\":1}".to_owned()))));

    let labels = ["no".to_owned(), "yes".to_owned(), "é".to_owned()].into();
    let label = Prediction::label(&[0.25_f32, 0.5, 0.25], &labels);
    let fields = written(&label, Some(2), Along::default());
    assert_eq!(fields[0].1, Theirs::String("yes".to_owned()));
    assert_eq!(fields[1].1, Theirs::Double(0.5));
    let scores = [("yes".to_owned(), Theirs::Double(0.5)), ("no".to_owned(), Theirs::Double(0.25))];
    assert_eq!(fields[2].1, Theirs::Map(scores.into()));
    assert_eq!(fields[3].1, Theirs::Union(0, Box::new(Theirs::Null)));

    let fields = written(&Prediction::Value(0.1_f64.into()), None, Along::default());
    assert_eq!(fields[0].1, Theirs::Double(0.1));

    let span =
        Span { label: "PER".to_owned(), score: 0.5, start: 3, end: 300, word: "Ada".to_owned() };
    let fields = written(&Prediction::Spans(vec![span]), None, Along::default());
    let Theirs::Array(spans) = &fields[0].1 else { panic!("{fields:?}") };
    let Theirs::Record(span) = &spans[0] else { panic!("{spans:?}") };
    let values: Vec<&Theirs> = span.iter().map(|(_, value)| value).collect();
    let text = |text: &str| Theirs::String(text.to_owned());
    assert_eq!(
        values,
        [&text("PER"), &Theirs::Double(0.5), &Theirs::Long(3), &Theirs::Long(300), &text("Ada")]
    );
    assert_eq!(
        written(&Prediction::Embedding(Vec::new()), None, along)[0].1,
        Theirs::Array(vec![])
    );
}

#[test]
fn dead_letters_and_manifests_are_written_as_their_schemas_say() {
    let headers = [Header { name: b"h".to_vec(), value: None }];
    let letter = DeadLetter {
        class: "undecodable",
        message: "field \"a\" ends inside an int",
        topic: "in",
        partition: 3,
        offset: 1 << 40,
        timestamp: Some(-1),
        model: Some(("m", 7)),
        batch_id: None,
        key: None,
        value: Some(&[0, 1]),
        headers: &headers,
    };
    let mut out = Vec::new();
    Encoder::new(&mut out).dead_letter(&letter);
    let fields = theirs(Kind::DeadLetter, &out);
    assert_eq!(fields[4].1, Theirs::Long(1 << 40));
    assert_eq!(fields[5].1, Theirs::Union(1, Box::new(Theirs::TimestampMillis(-1))));
    assert_eq!(fields[7].1, Theirs::Union(1, Box::new(Theirs::Long(7))));
    assert!(matches!(&fields[11].1, Theirs::Array(headers) if headers.len() == 1));

    let manifest = json!({
        "batch_id": "b", "group": "g", "model": "m", "version": 7, "digest": "d", "task": "text-embedding",
        "fields": ["text"], "output": "embedding of 384 numbers", "reason": "records", "records": 2,
        "predictions": 2, "dead_letters": 0, "tombstones": 0, "bytes": 10, "tokens": 4,
        "inference_seconds": 0.25,
        "ranges": [{"topic": "in", "partition": 0, "first": 5, "next": 7, "count": 2}],
    });
    let mut out = Vec::new();
    Encoder::new(&mut out).json(&schema(Kind::Manifest), &manifest).unwrap();
    let fields = theirs(Kind::Manifest, &out);
    assert_eq!(fields[6].1, Theirs::Long(7));
    let plan = Plan::new(&schema(Kind::Manifest), None, &[]).unwrap();
    let mut text = Vec::new();
    plan.json(&out, None, &mut text).unwrap();
    let read: Json = serde_json::from_slice(&text).unwrap();
    for (name, value) in manifest.as_object().unwrap() {
        if name != "ranges" {
            assert_eq!(&read[name], value, "{name}");
        }
    }
    assert_eq!(read["ranges"][0]["next"], 7);
    let wrong = Encoder::new(&mut out).json(&schema(Kind::Manifest), &json!({"group": 1}));
    assert_eq!(wrong.unwrap_err(), "group is not a string");
}

proptest! {
    #[test]
    fn a_number_is_written_as_they_write_it(number in any::<i64>(), shift in 0_u32..64) {
        let number = number >> shift;
        let mut out = Vec::new();
        Encoder::new(&mut out).long(number);
        prop_assert_eq!(out, crate::avro::tests::written(&Schema::Long, number.into()));
    }
}

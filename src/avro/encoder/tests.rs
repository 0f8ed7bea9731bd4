use std::fs;
use std::path::Path;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use apache_avro::types::Value as Theirs;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::answer::{Chunk, Span};
use crate::avro::{Plan, parse};

fn schema(kind: Kind) -> Schema {
    parse(kind.schema(), &[]).unwrap()
}

/// What `apache_avro` reads, which takes every byte.
fn theirs(schema: &Schema, mut datum: &[u8]) -> Vec<(String, Theirs)> {
    let reader = GenericDatumReader::builder(schema).build().unwrap();
    let value = reader.read_value(&mut datum).unwrap();
    assert!(datum.is_empty());
    let Theirs::Record(fields) = value else { panic!("{value:?}") };
    fields
}

fn written(prediction: &Prediction, top_k: Option<u32>, along: Along<'_>) -> Vec<(String, Theirs)> {
    shaped(prediction, &Shape { top_k, ..Shape::default() }, along)
}

fn shaped(prediction: &Prediction, shape: &Shape, along: Along<'_>) -> Vec<(String, Theirs)> {
    let kind = Kind::of(prediction);
    assert_eq!(kind.parts(), Part::of(prediction));
    let schema = parse(&kind.shaped(shape), &[]).unwrap();
    let mut out = Vec::new();
    Encoder::new(&mut out).prediction(prediction, shape, along);
    theirs(&schema, &out)
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
    let other = Shape { vectors: Vectors::Bytes, scores: Scores::Array, ..Shape::default() };
    for kind in Kind::ALL {
        for shape in [Shape::default(), other.clone()] {
            let schema = parse(&kind.shaped(&shape), &[]).unwrap();
            assert_eq!(schema.name().unwrap().fullname(None), kind.name());
            all_have_defaults(&schema);
        }
    }
}

/// A name for a part is a name in the schema; what goes along stands behind.
#[test]
fn predictions_are_written_in_the_shape_that_is_asked() {
    let named = |names: &[(&str, Part)]| Shape {
        fields: names.iter().map(|(name, part)| ((*name).to_owned(), *part)).collect(),
        vectors: Vectors::Bytes,
        scores: Scores::Array,
        ..Shape::default()
    };
    let along = Along { key: Some(b"k"), input: None };
    let bytes = |numbers: &[f32]| {
        Theirs::Bytes(numbers.iter().flat_map(|number| number.to_le_bytes()).collect())
    };
    let vector = named(&[("vector", Part::Embedding)]);
    let fields = shaped(&Prediction::Embedding(vec![1.5, -0.1]), &vector, along);
    let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["vector", "key", "input"]);
    assert_eq!(fields[0].1, bytes(&[1.5, -0.1]));

    let labels = ["no".to_owned(), "yes".to_owned()].into();
    let label = Prediction::label(&[0.25_f32, 0.75], &labels);
    let shape = named(&[("all", Part::Scores), ("cls", Part::Label)]);
    let fields = shaped(&label, &shape, Along::default());
    assert_eq!(fields[0].1, Theirs::Array(vec![Theirs::Double(0.25), Theirs::Double(0.75)]));
    assert_eq!((&*fields[1].0, &fields[1].1), ("cls", &Theirs::String("yes".to_owned())));

    let chunks = || {
        Prediction::Chunks(vec![
            Chunk { start: 0, end: 3, embedding: vec![0.5] },
            Chunk { start: 4, end: 300, embedding: vec![1.0] },
        ])
    };
    for (shape, number) in [
        (Shape::default(), Theirs::Array(vec![Theirs::Float(1.0)])),
        (named(&[("pieces", Part::Chunks)]), bytes(&[1.0])),
    ] {
        let Theirs::Array(found) = &shaped(&chunks(), &shape, Along::default())[0].1 else {
            panic!("{shape:?}")
        };
        let Theirs::Record(second) = &found[1] else { panic!("{found:?}") };
        let values: Vec<&Theirs> = second.iter().map(|(_, value)| value).collect();
        assert_eq!(values, [&Theirs::Long(4), &Theirs::Long(300), &number]);
    }
    let mean = Prediction::Mean { embedding: vec![0.5], of: 3 };
    let fields = written(&mean, None, Along::default());
    assert_eq!(fields[0].1, Theirs::Array(vec![Theirs::Float(0.5)]));
    assert_eq!(fields[1].1, Theirs::Long(3));
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
    let fields = theirs(&schema(Kind::DeadLetter), &out);
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
    let fields = theirs(&schema(Kind::Manifest), &out);
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

//! Apicurio's own serdes for Java at both ends, of versions 2 and 3: they write records of a dozen schemas in each of their
//! forms, and read the predictions.

use std::fs;

use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use serde_json::{Value as Json, json};
use tidemill::answer::{Chunk, Prediction, Shape, Span};
use tidemill::avro::{Along, Encoder, Kind};
use tidemill::schema::frame;

use super::clients::{are_there, run};
use super::schema_registry::Registry;
use super::world::{Column, PATIENCE, Replica, World};

/// Which serdes there are.
const VERSIONS: [&str; 2] = ["3", "2"];

/// What the model adds up: a column, where it stands in a record, and what is in its place where it is missing.
const COLUMNS: [(&str, &str, Option<f64>); 7] = [
    ("x", "/x", None),
    ("y", "/deep/y", Some(0.0)),
    ("item", "/list/1", Some(0.0)),
    ("mark", "/marks/a", Some(0.0)),
    ("price", "/price", Some(0.0)),
    ("day", "/day", Some(0.0)),
    ("at", "/at", Some(0.0)),
];

/// The model's version, and so what it adds.
const VERSION: u32 = 2;

fn serdes(arguments: &[&str]) -> Result<String, String> {
    run("tests/clients/serdes/run", arguments)
}

/// What the serialisers said of what they wrote: topic, answer or `letter`, text.
fn written(lines: &[String], topic: &str) -> Vec<(String, String)> {
    let parts = lines.iter().map(|line| line.splitn(3, '\t').collect::<Vec<_>>());
    parts
        .filter(|parts| parts[0] == topic)
        .map(|parts| (parts[1].to_owned(), parts[2].to_owned()))
        .collect()
}

/// Has everything in the input of `world` answered, in Avro.
fn answer(world: &World, registry: &Registry, more: &str, input: &str) {
    let columns = COLUMNS.map(|(name, _, impute)| Column { name, impute });
    world.add(VERSION, &columns);
    world.promote(VERSION);
    let extra =
        format!("schema_registry: {{ urls: ['{}'], register: true{more} }}", registry.url());
    let config = world.config("a", &extra);
    let fields = COLUMNS.map(|(name, place, _)| format!("{name}: {place}")).join(", ");
    let text = fs::read_to_string(&config).unwrap();
    let text = text
        .replace("input: {", &format!("input: {{ format: avro, fields: {{ {fields} }},{input}"))
        .replace("output: {", "output: { format: avro, include: all,");
    fs::write(&config, text).unwrap();
    let (code, said) = Replica::start(&config, &["--until-end"]).ended();
    assert_eq!(code, Some(0), "{said}");
}

/// Compares the dead letters with what was written for them.
fn compare_letters(world: &World, written: &[(String, String)]) {
    let letters = world.read("in-dlq", "read_committed");
    let whys: Vec<&String> = letters
        .iter()
        .map(|letter| &letter.headers["__connect.errors.exception.message"])
        .collect();
    let expect: Vec<&String> =
        written.iter().filter(|(answer, _)| answer == "letter").map(|(_, why)| why).collect();
    assert_eq!(whys.len(), expect.len(), "{whys:#?}");
    for (why, expect) in whys.iter().zip(expect) {
        assert!(why.contains(expect), "{why:?} has no {expect:?}");
    }
}

/// What the deserialisers read from a topic.
fn shown(read: &str, topic: &str) -> Vec<Json> {
    let lines = read.lines().filter_map(|line| line.strip_prefix(topic)?.strip_prefix('\t'));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What they are to read from it, by what was written for it.
fn expected(written: &[(String, String)]) -> Vec<Json> {
    let answered = written.iter().filter(|(answer, _)| answer != "letter");
    let expected = answered.map(|(answer, text)| {
        let value = answer.parse::<f64>().unwrap() + f64::from(VERSION);
        json!({"value": value, "key": null, "input": text})
    });
    expected.collect()
}

/// A prediction of each kind, written as its schema says, and how Java shows it.
fn kinds() -> Vec<(Prediction, Json)> {
    let labels = ["no".to_owned(), "é".to_owned()].into();
    let span =
        Span { label: "PER".to_owned(), score: 0.5, start: 3, end: 6, word: "Ada".to_owned() };
    let chunk = Chunk { start: 4, end: 300, embedding: vec![1.0, -0.5] };
    vec![
        (Prediction::Embedding(vec![1.5, -0.25]), json!({"embedding": [1.5, -0.25]})),
        (
            Prediction::label(&[0.25_f32, 0.75], &labels),
            json!({"label": "é", "score": 0.75, "scores": {"no": 0.25, "é": 0.75}}),
        ),
        (Prediction::Value(0.1_f64.into()), json!({"value": 0.1})),
        (
            Prediction::Spans(vec![span]),
            json!({"spans": [{"label": "PER", "score": 0.5, "start": 3, "end": 6, "word": "Ada"}]}),
        ),
        (
            Prediction::Chunks(vec![chunk]),
            json!({"chunks": [{"start": 4, "end": 300, "embedding": [1.0, -0.5]}]}),
        ),
        (
            Prediction::Mean { embedding: vec![0.5], of: 3 },
            json!({"mean_embedding": [0.5], "mean_of": 3}),
        ),
    ]
}

/// Writes a prediction of each kind to a topic, by the released schemas; how Java shows them.
fn write_kinds(world: &World, registry: &Registry, topic: &str) -> Vec<Json> {
    world.create_topics(&[topic], 1);
    let producer: ThreadedProducer<DefaultProducerContext> = world.client().create().unwrap();
    let along = Along { key: Some(b"k\xff"), input: Some("{}") };
    let shown = kinds().into_iter().map(|(prediction, mut shown)| {
        let kind = Kind::of(&prediction);
        let mut value = Vec::new();
        frame::begin(registry.register(kind.name(), &json!({"schema": kind.schema()})), &mut value);
        Encoder::new(&mut value).prediction(&prediction, &Shape::default(), along);
        let record = BaseRecord::<[u8], [u8]>::to(topic).partition(0).payload(&value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        shown["key"] = "k\u{ff}".into();
        shown["input"] = "{}".into();
        shown
    });
    let shown = shown.collect();
    producer.flush(PATIENCE).unwrap();
    shown
}

#[test]
fn apicurios_serdes_write_records_and_read_predictions() {
    if !are_there("serdes of Apicurio's", serdes(&["get"])) {
        return;
    }
    let Some(registry) = Registry::start() else { return };
    // Its own rule cannot compare schemas that refer to others.
    registry.take_anything();
    let Some(world) = World::start(1) else { return };
    let beside = |name: &str| world.beside(name, 1, &[]);
    let (content, global, evolved) = (beside("content"), beside("global"), beside("evolved"));
    let servers = &*world.broker.direct;
    let root = registry.root();
    let lines: Vec<String> = VERSIONS
        .iter()
        .flat_map(|version| {
            let said = serdes(&[version, "write", servers, root]).unwrap();
            said.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    assert!(150 < lines.len(), "{lines:#?}");

    // As it is, content ids that are said to be them, and global ones where the registry takes them.
    answer(&world, &registry, "", "");
    answer(&content, &registry, ", ids: content", "");
    let reader = world.dir.path().join("reader.avsc");
    fs::write(&reader, READER).unwrap();
    answer(&evolved, &registry, "", &format!("schema: {},", reader.display()));
    let kinds = write_kinds(&world, &registry, "kinds");
    registry.take_global_ids();
    answer(&global, &registry, ", ids: global", "");

    for world in [&world, &content, &global, &evolved] {
        compare_letters(world, &written(&lines, &world.topic("in")));
    }
    for version in VERSIONS {
        let topics = [
            "kinds:contentId",
            "out:contentId",
            "content-out:contentId",
            "evolved-out:contentId",
            "global-out:globalId",
        ];
        let read = serdes(&[&[version, "read", servers, root], &topics[..]].concat()).unwrap();
        assert_eq!(shown(&read, "kinds"), kinds);
        for world in [&world, &content, &global, &evolved] {
            let expected = expected(&written(&lines, &world.topic("in")));
            assert_eq!(shown(&read, &world.topic("out")), expected, "serdes {version}");
        }
    }
}

/// A later form of a schema of the serialisers', by its aliases and defaults.
const READER: &str = r#"{"type": "record", "name": "Latter", "namespace": "shop", "aliases": ["Former"], "fields": [
    {"name": "x", "type": "double", "aliases": ["ex"]}, {"name": "size", "type": "int", "default": 7},
    {"name": "price", "type": "int", "default": 7}, {"name": "tags", "type": {"type": "array", "items": "string"}, "default": ["a"]}]}"#;

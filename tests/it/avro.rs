//! Avro through Kafka: records behind Confluent's frame, predictions behind theirs, and a registry that goes away.

use std::fs;

use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use serde_json::json;
use tidemill::avro::{AvroSchema, Kind, Plan};
use tidemill::field::Value;
use tidemill::schema::frame;

use super::schema_registry::Registry;
use super::troubles::Watched;
use super::world::{Replica, World, wait_for};

const ROW: &str = r#"{"type":"record","name":"Row","fields":[{"name":"note","type":["null","string"]},
    {"name":"x","type":["null","double"]}]}"#;

/// A framed record with no note and this x.
fn framed(id: u32, x: f64) -> Vec<u8> {
    let mut value = Vec::new();
    frame::begin(id, &mut value);
    value.extend_from_slice(&[0, 2]);
    value.extend_from_slice(&x.to_le_bytes());
    value
}

fn produce(world: &World, values: &[Vec<u8>]) {
    let producer: ThreadedProducer<DefaultProducerContext> = world.client().create().unwrap();
    let topic = world.topic("in");
    for value in values {
        let record = BaseRecord::<[u8], [u8]>::to(&topic).partition(0).payload(value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(std::time::Duration::from_secs(30)).unwrap();
}

/// The values of all predictions, by the schema that is ours.
fn answers(world: &World) -> Vec<f64> {
    let schema = AvroSchema::parse_str(Kind::Value.schema()).unwrap();
    let plan = Plan::new(&schema, None, &[vec!["value".to_owned()]]).unwrap();
    let value = |seen: super::world::Seen| {
        let value = seen.value.unwrap();
        let (_, datum) = frame::split(&value, None).unwrap();
        let mut values = [None];
        plan.read(datum, &mut values).unwrap();
        values[0].as_ref().and_then(Value::number).unwrap()
    };
    world.read(&world.topic("out"), "read_committed").into_iter().map(value).collect()
}

#[test]
fn records_and_predictions_are_avro_by_the_registry() {
    let Some(registry) = Registry::start() else { return };
    let Some(world) = World::start(1) else { return };
    world.add_version(1);
    world.promote(1);
    let id = registry.register("rows", &json!({ "schema": ROW }));
    let mut values: Vec<Vec<u8>> = (0..100).map(|x| framed(id, f64::from(x))).collect();
    values[10].pop();
    values[20].push(0);
    values[30][4] ^= 0x40;
    values[40] = br#"{"x":1}"#.to_vec();
    produce(&world, &values);
    let state = world.registry().with_file_name("state");
    fs::create_dir_all(&state).unwrap();
    let extra = format!(
        "schema_registry: {{ urls: ['{}'], register: true }}\nstate: {{ dir: {} }}",
        registry.url(),
        state.display()
    );
    let config = world.config("a", &extra);
    let text = fs::read_to_string(&config).unwrap();
    let text = text
        .replace("input: {", "input: { format: avro,")
        .replace("output: {", "output: { format: avro,");
    fs::write(&config, text).unwrap();
    let replica = Replica::start(&config, &["--until-end"]);
    let (code, said) = replica.ended();
    assert_eq!(code, Some(0), "{said}");

    let expect: Vec<f64> =
        (0..100).filter(|x| ![10, 20, 30, 40].contains(x)).map(|x| f64::from(x) + 1.0).collect();
    assert_eq!(answers(&world), expect);
    let letters = world.read(&world.topic("in-dlq"), "read_committed");
    let class = |seen: &super::world::Seen| seen.headers["tidemill.error.class"].clone();
    assert_eq!(letters.iter().map(class).collect::<Vec<_>>(), ["undecodable"; 4]);
    assert!(
        letters
            .iter()
            .zip([10, 20, 30, 40])
            .all(|(seen, row)| seen.value.as_ref() == Some(&values[row]))
    );

    // A registry that is gone holds up what nobody knows, and buries nothing; what is known is known over a restart.
    let other = registry.register("others", &json!({ "schema": ROW.replace("note", "remark") }));
    registry.kill9();
    produce(&world, &[framed(id, 1.0), framed(other, 2.0)]);
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text + "logging: { format: json }\n").unwrap();
    let watched = Watched::start(&config);
    watched.says("Waiting for the schema registry");
    watched.warns("Nothing is read for");
    let outage = || watched.metric("tidemill_schema_registry_outage_seconds").unwrap();
    assert!(0.0 < outage());
    registry.start_again();
    wait_for("the records that waited", || {
        (world.read(&world.topic("out"), "read_committed").len() == 98).then_some(())
    });
    assert_eq!(world.read(&world.topic("in-dlq"), "read_committed").len(), 4);
    assert!(outage() == 0.0);
    watched.says("Idle");
    assert!(watched.replica.stop().success());
}

/// The demo in Avro needs neither broker nor registry, and its answers are those of the demo in JSON.
#[test]
fn the_demo_runs_in_avro() {
    let accuracy = |format: &str| {
        let arguments = ["demo", "--passes", "2", "--format", format];
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_tidemill")).args(arguments).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        let line = |name: &str| {
            said.lines().find(|line| line.trim_start().starts_with(name)).unwrap().to_owned()
        };
        (line("accuracy"), line("predictions"))
    };
    assert_eq!(accuracy("json"), accuracy("avro"));
}

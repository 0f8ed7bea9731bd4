//! Confluent's own clients at both ends: their serialisers write records of a dozen schemas to one topic, where each says
//! by its header what it is, and their deserialiser reads the predictions.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;

use super::schema_registry::Registry;
use super::world::{Replica, World};

/// What a script of this project says, or why it failed.
pub(crate) fn run(script: &str, arguments: &[&str]) -> Result<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let output =
        Command::new(script).args(arguments).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Whether others' clients could be fetched. Where not: a line on stderr, and in CI a failure.
pub(crate) fn are_there(what: &str, got: Result<String, String>) -> bool {
    let Err(why) = got else { return true };
    assert!(std::env::var_os("CI").is_none(), "{why}");
    let line = format!("skipped: no {what}; what they write was not read: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    false
}

fn clients(arguments: &[&str]) -> Result<String, String> {
    run("tests/clients/run", arguments)
}

#[test]
fn confluents_clients_write_records_and_read_predictions() {
    if !are_there("clients of Confluent's", clients(&["get"])) {
        return;
    }
    let Some(registry) = Registry::start() else { return };
    let Some(world) = World::start(1) else { return };
    world.add_version(1);
    world.promote(1);
    let (servers, topic) = (&*world.broker.direct, world.topic("in"));
    let count = clients(&["write", servers, registry.url(), &topic]).unwrap();
    let count: u32 = count.trim().parse().unwrap();
    assert!(12 < count, "{count}");

    let extra = format!("schema_registry: {{ urls: ['{}'], register: true }}", registry.url());
    let config = world.config("a", &extra);
    let text = fs::read_to_string(&config).unwrap();
    let text = text
        .replace("input: {", "input: { format_header: content-type,")
        .replace("output: {", "output: { format: avro, include: all,");
    fs::write(&config, text).unwrap();
    let (code, said) = Replica::start(&config, &["--until-end"]).ended();
    assert_eq!(code, Some(0), "{said}");

    let letters = world.read(&world.topic("in-dlq"), "read_committed");
    let why = letters.iter().map(|seen| &seen.headers);
    assert!(letters.is_empty(), "{:#?}", why.collect::<Vec<_>>());
    let read = clients(&["read", servers, registry.url(), &world.topic("out")]).unwrap();
    let answers: Vec<Json> = read.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let values: Vec<f64> = answers.iter().map(|answer| answer["value"].as_f64().unwrap()).collect();
    let expect: Vec<f64> = (1..=count).map(f64::from).collect();
    assert_eq!(values, expect);
    // What went along has the same x, whatever it was written in.
    for (place, answer) in answers.iter().enumerate() {
        let input: Json = serde_json::from_str(answer["input"].as_str().unwrap()).unwrap();
        let whole = u32::try_from(place).unwrap();
        assert_eq!(input["x"].as_f64(), Some(whole.into()), "{input}");
    }
}

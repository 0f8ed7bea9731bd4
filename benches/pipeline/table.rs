//! The demo's table through Kafka, exactly once, as JSON and as Avro, against the loop that a Python team writes.

use std::fmt::Write as _;

use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use serde_json::{Map, Value as Json, json};
use tidemill::avro::{Kind, parse};

use super::{Command, PARTITIONS, Path, Replica, World, fill, fs, median, rate_of_group, start};

const RECORDS: usize = 200_000;
const ROUNDS: usize = 3;

/// Its best batch is one of these.
const BATCHES: [usize; 3] = [256, 1_000, 4_000];

/// The rows that every side can read, and the model's fields.
fn rows() -> (Vec<Map<String, Json>>, Vec<String>) {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo");
    let text = fs::read_to_string(demo.join("models/breast-cancer/2/preprocess.json")).unwrap();
    let preprocess: Json = serde_json::from_str(&text).unwrap();
    let columns = preprocess["columns"].as_array().unwrap().iter();
    let fields: Vec<String> =
        columns.map(|column| column["name"].as_str().unwrap().to_owned()).collect();
    let text = fs::read_to_string(demo.join("records.jsonl")).unwrap();
    let is_good = |row: &Map<String, Json>| {
        fields.iter().all(|name| row.get(name).is_none_or(|v| v.is_number() || v.is_null()))
    };
    let rows = text.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(is_good);
    // What the model that costs nothing reads.
    let with_x = |mut row: Map<String, Json>| {
        row.insert("x".to_owned(), Json::from(1));
        row
    };
    (rows.map(with_x).collect(), fields)
}

/// Avro has no spaces in names.
fn named(name: &str) -> String {
    name.replace(' ', "_")
}

fn schema(fields: &[String]) -> String {
    let fields: Vec<Json> = fields
        .iter()
        .map(|name| json!({ "name": named(name), "type": ["null", "double"], "default": null }))
        .collect();
    json!({ "type": "record", "name": "row", "fields": fields }).to_string()
}

/// One measurement: records a second, and CPU seconds a million records.
#[derive(Clone, Copy)]
struct Measured {
    rate: f64,
    cpu: f64,
}

fn shown(all: &[Measured]) -> Measured {
    let of = |figure: fn(&Measured) -> f64| median(all.iter().map(figure).collect());
    Measured { rate: of(|one| one.rate), cpu: of(|one| one.cpu) }
}

/// CPU seconds of a process so far; `sysconf(_SC_CLK_TCK)` is 100 on Linux.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let behind = stat.rsplit_once(')').unwrap().1;
    let ticks: Vec<f64> =
        behind.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse().unwrap()).collect();
    (ticks[0] + ticks[1]) / 100.0
}

/// The service with the demo's model, or with one that costs nothing.
fn service(world: &World, name: &str, free: bool, avro: Option<(&Path, &[String])>) -> Measured {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo/models/breast-cancer/2");
    // The best batch of the loops is the best of this side too.
    let config = world.config(name, "batch: { max_records: 4000, max_wait: 50ms }");
    let mut text = fs::read_to_string(&config).unwrap();
    text = text.replace("group: g\n", &format!("group: {name}\n  on_missing_offset: start\n"));
    if !free {
        text = text.replace("models:/lin@champion", demo.to_str().unwrap());
        text = text.replace(", workers: 1", "");
    }
    if let Some((schema, fields)) = avro {
        let mut paths = String::new();
        for name in fields {
            write!(paths, "'{name}': /{}, ", named(name)).unwrap();
        }
        let schema = schema.display();
        let input = format!("input: {{ format: avro, schema: {schema}, fields: {{ {paths} }}, ");
        text = text.replace("input: {", &input).replace("output: {", "output: { format: avro,");
    }
    fs::write(&config, text).unwrap();
    let replica = Replica::start(&config, &[]);
    let rate = rate_of_group(world, name, RECORDS);
    let cpu = cpu_seconds(replica.child.id()) / RECORDS as f64 * 1e6;
    assert!(replica.stop().success());
    Measured { rate, cpu }
}

fn python(python: &str, arguments: &[&str]) -> Measured {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/table_peer.py");
    let output = Command::new(python).arg(script).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let answer: Json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    let of = |name: &str| answer[name].as_f64().unwrap();
    Measured { rate: of("rate"), cpu: of("cpu_s_per_million") }
}

fn row(side: &str, other: Measured, ours: Measured) {
    let (rate, cpu) = (ours.rate / other.rate, other.cpu / ours.cpu);
    let Measured { rate: records, cpu: seconds } = other;
    println!(
        "  {side:<28} {records:>8.0}/s, {seconds:>6.2} CPU s a million: {rate:.2} x and {cpu:.2} x"
    );
}

/// Both formats; `quix` where the interpreter has it.
pub(crate) fn run(interpreter: &str) {
    let (rows, fields) = rows();
    let names = serde_json::to_string(&fields).unwrap();
    let world = start();
    world.create_topics(&["peer-out"], PARTITIONS);
    fill(&world, RECORDS, |n| serde_json::to_string(&rows[n % rows.len()]).unwrap().into_bytes());
    let servers = world.broker.servers.clone();
    let records = RECORDS.to_string();
    let (mut ours, mut free) = (Vec::new(), Vec::new());
    let mut loops: Vec<Vec<Measured>> = vec![Vec::new(); BATCHES.len()];
    for round in 0..ROUNDS {
        ours.push(service(&world, &format!("j{round}"), false, None));
        for (batch, measured) in BATCHES.iter().zip(&mut loops) {
            let batch = batch.to_string();
            measured.push(python(interpreter, &["loop", &servers, &records, &names, &batch]));
        }
        free.push(service(&world, &format!("f{round}"), true, None));
    }
    let ours = shown(&ours);
    println!("table: JSON, {RECORDS} records: {:.0}/s, {:.2} CPU s a million", ours.rate, ours.cpu);
    for (batch, measured) in BATCHES.iter().zip(&loops) {
        row(&format!("Python, {batch} a batch"), shown(measured), ours);
    }
    row("a model that costs nothing", shown(&free), ours);
    let has_quix = Command::new(interpreter).args(["-c", "import quixstreams"]).output().unwrap();
    if has_quix.status.success() {
        row(
            "Quix Streams, 10,000 records",
            python(interpreter, &["quix", &servers, "10000", &names]),
            ours,
        );
    }
    // There is one broker at a time.
    drop(world);
    avro(interpreter, &rows, &fields);
}

fn avro(interpreter: &str, rows: &[Map<String, Json>], fields: &[String]) {
    let world = start();
    world.create_topics(&["peer-out"], PARTITIONS);
    let text = schema(fields);
    let (path, out) = (world.dir.path().join("row.avsc"), world.dir.path().join("out.avsc"));
    fs::write(&path, &text).unwrap();
    fs::write(&out, Kind::Classification.schema()).unwrap();
    let parsed = parse(&text, &[]).unwrap();
    let writer = GenericDatumWriter::builder(&parsed).build().unwrap();
    let datum = |row: &Map<String, Json>| {
        let value = |name: &String| {
            let value = row.get(name).and_then(Json::as_f64).map_or_else(
                || Value::Union(0, Box::new(Value::Null)),
                |number| Value::Union(1, Box::new(Value::Double(number))),
            );
            (named(name), value)
        };
        writer.write_value_to_vec(Value::Record(fields.iter().map(value).collect())).unwrap()
    };
    let data: Vec<Vec<u8>> = rows.iter().map(datum).collect();
    fill(&world, RECORDS, |n| data[n % data.len()].clone());
    let names: Vec<String> = fields.iter().map(|name| named(name)).collect();
    let names = serde_json::to_string(&names).unwrap();
    let servers = world.broker.servers.clone();
    let records = RECORDS.to_string();
    let mut ours = Vec::new();
    let mut loops: Vec<Vec<Measured>> = vec![Vec::new(); BATCHES.len()];
    for round in 0..ROUNDS {
        ours.push(service(&world, &format!("a{round}"), false, Some((&path, fields))));
        for (batch, measured) in BATCHES.iter().zip(&mut loops) {
            let batch = batch.to_string();
            let schemas = [path.to_str().unwrap(), out.to_str().unwrap()];
            let mut arguments = vec!["loop", &*servers, &*records, &*names, &*batch];
            arguments.extend(schemas);
            measured.push(python(interpreter, &arguments));
        }
    }
    let ours = shown(&ours);
    println!("table: Avro in and out: {:.0}/s, {:.2} CPU s a million", ours.rate, ours.cpu);
    for (batch, measured) in BATCHES.iter().zip(&loops) {
        row(&format!("fastavro, {batch} a batch"), shown(measured), ours);
    }
}

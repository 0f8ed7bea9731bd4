//! Formats on one core: bytes of records to columns. All sides in one run, interleaved, medians.
//!
//! `cargo bench --bench formats [-- json | avro | image | write]`; with `PYTHON=…` (one that has fastavro) its row too.
//!
//! * json: lines of the demo, all 33 members, against `serde_json` into a struct and `simd-json`'s tape.
//! * avro: records of 20 fields, all wanted or three, against `arrow-avro`, `apache_avro`'s values and fastavro.
//! * image: JPEGs of 224 x 224 and 640 x 480 to what a `ViT` reads, two threads, against Pillow and the reference processor in
//!   two processes (with `PYTHON`).
//! * write: an embedding of 384 numbers against `apache_avro`.
//!
//! Whatever is nobody's dependency but the bench's is built in `benches/formats/peers`, a program that is told when to run.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a bench measures, prints and fails loudly"
)]

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Theirs;
use apache_avro::writer::datum::GenericDatumWriter;
use columns::{CHUNK, Columns};
use tidemill::answer::{Prediction, Shape};
use tidemill::avro::{Along, Encoder, Kind, Plan, parse};
use tidemill::config::{Config, Input};
use tidemill::field::Value;
use tidemill::format::{Codec, Wanted};
use tidemill::model::options::LoadOptions;
use tidemill::model::{Input as ModelInput, Model, gate};
use tidemill::record::{Offset, Partition, Record};
use tidemill::schema::frame;

#[path = "formats/columns.rs"]
mod columns;

const RECORDS: usize = 20_000;
const ROUNDS: usize = 15;

/// The schema's number, in frames.
const ID: u32 = 7;

fn main() {
    let arms: Vec<String> = std::env::args().skip(1).filter(|arm| !arm.starts_with('-')).collect();
    let is_wanted = |arm: &str| arms.is_empty() || arms.iter().any(|wanted| wanted == arm);
    let scratch = tempfile::tempdir().unwrap();
    if is_wanted("json") {
        json(scratch.path());
    }
    if is_wanted("avro") {
        avro(scratch.path());
    }
    if is_wanted("image") {
        image(scratch.path());
    }
    if is_wanted("write") {
        write();
    }
}

/// A program beside us, that decodes the same file each time it is told to.
struct Peer {
    name: &'static str,
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    times: Vec<f64>,
}

impl Peer {
    fn start(name: &'static str, command: &mut Command) -> Self {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let orders = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let mut peer = Self { name, process, orders, answers, times: Vec::new() };
        assert_eq!(peer.line(), "ready", "{name}");
        peer
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// The sum of all numbers that it decoded.
    fn run(&mut self) -> f64 {
        self.order("")
    }

    fn order(&mut self, order: &str) -> f64 {
        writeln!(self.orders, "{order}").unwrap();
        let line = self.line();
        let (time, sum) = line.split_once(' ').unwrap();
        self.times.push(time.parse().unwrap());
        sum.parse().unwrap()
    }

    fn report(mut self, ours: f64) {
        self.process.kill().unwrap();
        let theirs = median(std::mem::take(&mut self.times));
        println!("  {:<28} {theirs:>7.0} ns a record: {:.2} x", self.name, theirs / ours);
    }
}

/// Builds the other libraries' program.
fn peers() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = root.join("target/peers");
    let mut build = Command::new(env!("CARGO"));
    build.arg("build").arg("--release").arg("--manifest-path");
    build.arg(root.join("benches/formats/peers/Cargo.toml")).arg("--target-dir").arg(&target);
    assert!(build.status().unwrap().success());
    target.join("release/peers")
}

fn record(value: Vec<u8>) -> Record {
    Record::of_value(Partition { topic: 0, number: 0 }, Offset(0), Some(value))
}

/// Rows that are read before they go to columns: a column's kind is looked at once for all of them.
const ROWS: usize = 16;

/// A row to columns.
fn push(columns: &mut Columns, is_number: &[bool], row: &[Option<Value<'_>>]) {
    for (column, (value, is_number)) in row.iter().zip(is_number).enumerate() {
        match (value, is_number) {
            (value, true) => columns.number(column, value.as_ref().and_then(Value::number)),
            (Some(Value::Text(text)), false) => columns.text(column, Some(text)),
            (_, false) => columns.text(column, None),
        }
    }
}

/// Rows behind one another to columns.
fn push_all(columns: &mut Columns, is_number: &[bool], rows: &[Option<Value<'_>>]) {
    for (column, is_number) in is_number.iter().enumerate() {
        let values = rows.iter().skip(column).step_by(columns.len());
        if *is_number {
            columns.numbers(column, values.map(|value| value.as_ref().and_then(Value::number)));
        } else {
            for value in values {
                match value {
                    Some(Value::Text(text)) => columns.text(column, Some(text)),
                    _ => columns.text(column, None),
                }
            }
        }
    }
}

fn json(scratch: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("config/demo/records.jsonl")).unwrap();
    let row = |line: &&str| serde_json::from_str::<serde_json::Map<String, _>>(line).ok();
    let has_numbers = |line: &&str| {
        row(line).is_some_and(|row| {
            row.iter().all(|(name, value): (_, &serde_json::Value)| {
                value.is_number() || value.is_null() || ["split", "diagnosis"].contains(&&**name)
            })
        })
    };
    let lines: Vec<&str> = text.lines().filter(has_numbers).collect();
    let names: Vec<String> = row(&lines[0]).unwrap().keys().cloned().collect();
    let is_number: Vec<bool> =
        names.iter().map(|name| !["split", "diagnosis"].contains(&&**name)).collect();
    let all: Vec<&str> = lines.iter().copied().cycle().take(RECORDS).collect();
    let file = scratch.join("records.jsonl");
    fs::write(&file, all.join("\n")).unwrap();
    let records: Vec<Record> = all.iter().map(|line| record(line.as_bytes().to_vec())).collect();
    let input = Input { topics: vec!["t".to_owned()], ..Input::default() };
    let codec = Codec::new(&Config { input, ..Config::default() }).unwrap();
    let wanted = Wanted::new(&names, &BTreeMap::new());
    let program = peers();
    let mut peers = [("serde_json into a struct", "typed"), ("simd-json's tape", "tape")]
        .map(|(name, arm)| Peer::start(name, Command::new(&program).arg(arm).arg(&file)));
    let mut ours = Vec::new();
    for _ in 0..ROUNDS {
        let mut sum = 0.0;
        ours.push(timed(|| {
            let mut columns = Columns::new(&is_number);
            for record in &records {
                let read = codec
                    .read(&wanted, record, |read| push(&mut columns, &is_number, &read.values));
                assert_eq!(read.unwrap(), Some(()));
            }
            sum = black_box(columns).sum();
        }));
        for peer in &mut peers {
            assert_eq!(peer.run().to_bits(), sum.to_bits(), "{}", peer.name);
        }
    }
    let ours = median(ours);
    let bytes = all.iter().map(|line| line.len()).sum::<usize>() / RECORDS;
    println!(
        "json: {RECORDS} records of {} members, {bytes} bytes: {ours:.0} ns a record",
        names.len()
    );
    peers.into_iter().for_each(|peer| peer.report(ours));
}

fn avro(scratch: &Path) {
    let schema = parse(SCHEMA, &[]).unwrap();
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    let framed = |n: usize| {
        let mut out = Vec::new();
        frame::begin(ID, &mut out);
        out.extend(writer.write_value_to_vec(event(n)).unwrap());
        out
    };
    let data: Vec<Vec<u8>> = (0..RECORDS).map(framed).collect();
    let mut file_bytes = Vec::new();
    for datum in &data {
        file_bytes.extend(u32::try_from(datum.len()).unwrap().to_le_bytes());
        file_bytes.extend_from_slice(datum);
    }
    let (file, schema_file) = (scratch.join("records.avro"), scratch.join("schema.avsc"));
    fs::write(&file, file_bytes).unwrap();
    fs::write(&schema_file, SCHEMA).unwrap();
    let reader = GenericDatumReader::builder(&schema).build().unwrap();
    let all: Vec<Vec<String>> = NAMES.iter().map(|name| vec![(*name).to_owned()]).collect();
    let some: Vec<Vec<String>> = ["d1", "country", "o2"].map(|name| vec![name.to_owned()]).to_vec();
    let plans = [Plan::new(&schema, None, &all).unwrap(), Plan::new(&schema, None, &some).unwrap()];
    let texts = ["user", "country", "kind", "o2", "note"];
    let is_number: Vec<bool> = NAMES.iter().map(|name| !texts.contains(name)).collect();
    let program = peers();
    let files = [&file, &schema_file];
    let mut peers =
        vec![Peer::start("arrow-avro", Command::new(&program).arg("arrow").args(files))];
    if let Some(python) = std::env::var_os("PYTHON") {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/formats/peer.py");
        peers.push(Peer::start("fastavro", Command::new(python).arg(script).args(files)));
    }
    let (mut ours, mut few, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(timed(|| read(&plans[0], &data, &is_number)));
        few.push(timed(|| read(&plans[1], &data, &[true, false, false])));
        theirs.push(timed(|| {
            for datum in &data {
                black_box(reader.read_value(&mut &datum[frame::FRAME..]).unwrap());
            }
        }));
        peers.iter_mut().for_each(|peer| {
            peer.run();
        });
    }
    let (ours, few, theirs) = (median(ours), median(few), median(theirs));
    let bytes = data.iter().map(Vec::len).sum::<usize>() / RECORDS;
    println!(
        "avro: {RECORDS} records of 20 fields, {bytes} bytes: {ours:.0} ns a record, three fields {few:.0} ns"
    );
    println!("  {:<28} {theirs:>7.0} ns a record: {:.2} x", "apache_avro's values", theirs / ours);
    peers.into_iter().for_each(|peer| peer.report(ours));
}

fn read(plan: &Plan, data: &[Vec<u8>], is_number: &[bool]) {
    let mut rows = vec![None; plan.wanted() * ROWS];
    for chunk in data.chunks(CHUNK) {
        let mut columns = Columns::new(is_number);
        for some in chunk.chunks(ROWS) {
            for (framed, row) in some.iter().zip(rows.chunks_mut(plan.wanted())) {
                let (_, datum) = frame::split(framed, None).unwrap();
                plan.read(datum, row).unwrap();
            }
            push_all(&mut columns, is_number, &rows[..some.len() * plan.wanted()]);
        }
        black_box(columns);
    }
}

fn image(scratch: &Path) {
    const IMAGES: usize = 400;
    let Some(python) = std::env::var_os("PYTHON") else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/formats/images.py");
    let mut command = Command::new(python);
    let mut peer = Peer::start(
        "Pillow and the processor",
        command.arg(script).arg(scratch).arg(IMAGES.to_string()),
    );
    let model = gate::load(&scratch.join("vit"), &LoadOptions::default()).unwrap();
    let bytes = fs::read(scratch.join("images.bin")).unwrap();
    let mut images = Vec::new();
    let mut rest = &bytes[..];
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let (image, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
        images.push(image);
        rest = behind;
    }
    for (size, part) in [("224 x 224", 0..IMAGES), ("640 x 480", IMAGES..2 * IMAGES)] {
        let mut ours = Vec::new();
        for _ in 0..ROUNDS / 3 {
            let begin = Instant::now();
            std::thread::scope(|scope| {
                for half in images[part.clone()].chunks(IMAGES / 2) {
                    scope.spawn(|| half.iter().for_each(|image| prepare(&*model.model, image)));
                }
            });
            ours.push(begin.elapsed().as_nanos() as f64 / IMAGES as f64);
            peer.order(&format!("{} {}", part.start, part.end));
        }
        let (ours, theirs) = (median(ours), median(std::mem::take(&mut peer.times)));
        println!(
            "image: JPEG of {size} to a ViT's input, two cores: {:.0} us, {} {:.0} us an image: {:.2} x",
            ours / 1e3,
            peer.name,
            theirs / 1e3,
            theirs / ours
        );
    }
    // It ends with its input, and so do the processes that it has.
    let Peer { orders, mut process, .. } = peer;
    drop(orders);
    process.wait().unwrap();
}

/// To the numbers that the model computes on: what it prepares, and what it does first with that.
fn prepare(model: &dyn Model, image: &[u8]) {
    let Ok(ModelInput::Pixels { pixels, .. }) = model.prepare(&[Some(Value::Bytes(image.into()))])
    else {
        panic!("no pixels")
    };
    let numbers: Vec<f32> =
        pixels.iter().map(|byte| (f32::from(*byte) / 255.0 - 0.5) / 0.5).collect();
    black_box(numbers);
}

/// A prediction of 384 numbers.
fn write() {
    let numbers: Vec<f32> = (0..384_u16).map(|n| f32::from(n).sin()).collect();
    let values: Vec<Theirs> = numbers.iter().map(|n| Theirs::Float(*n)).collect();
    let prediction = Prediction::Embedding(numbers);
    let schema = parse(Kind::Embedding.schema(), &[]).unwrap();
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    let null = || Theirs::Union(0, Box::new(Theirs::Null));
    let value = Theirs::Record(vec![
        ("embedding".to_owned(), Theirs::Array(values)),
        ("key".to_owned(), null()),
        ("input".to_owned(), null()),
    ]);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut out = Vec::new();
    for _ in 0..ROUNDS {
        ours.push(timed(|| {
            for _ in 0..RECORDS {
                out.clear();
                Encoder::new(&mut out).prediction(&prediction, &Shape::default(), Along::default());
                black_box(&out);
            }
        }));
        theirs.push(timed(|| {
            for _ in 0..RECORDS / 20 {
                black_box(writer.write_value_ref(&mut Vec::new(), &value).unwrap());
            }
        }));
    }
    let (ours, theirs) = (median(ours), median(theirs) * 20.0);
    println!("write: 384 numbers {ours:.0} ns, apache_avro {theirs:.0} ns: {:.1} x", theirs / ours);
}

/// Nanoseconds a record.
fn timed(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_nanos() as f64 / RECORDS as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

const NAMES: [&str; 20] = [
    "id", "at", "user", "country", "kind", "paid", "d0", "d1", "d2", "d3", "d4", "d5", "n0", "n1",
    "n2", "f0", "o0", "o1", "o2", "note",
];

const SCHEMA: &str = r#"{"type": "record", "name": "event", "fields": [
    {"name": "id", "type": "long"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "user", "type": "string"},
    {"name": "country", "type": "string"},
    {"name": "kind", "type": {"type": "enum", "name": "kinds", "symbols": ["view", "cart", "order"]}},
    {"name": "paid", "type": "boolean"},
    {"name": "d0", "type": "double"}, {"name": "d1", "type": "double"}, {"name": "d2", "type": "double"},
    {"name": "d3", "type": "double"}, {"name": "d4", "type": "double"}, {"name": "d5", "type": "double"},
    {"name": "n0", "type": "int"}, {"name": "n1", "type": "int"}, {"name": "n2", "type": "int"},
    {"name": "f0", "type": "float"},
    {"name": "o0", "type": ["null", "double"]},
    {"name": "o1", "type": ["null", "long"]},
    {"name": "o2", "type": ["null", "string"]},
    {"name": "note", "type": "string"}
]}"#;

fn event(n: usize) -> Theirs {
    let number = i64::try_from(n).unwrap();
    let small = i32::try_from(n % 1_000).unwrap();
    let optional = |value: Theirs| match n % 3 {
        0 => Theirs::Union(0, Box::new(Theirs::Null)),
        _ => Theirs::Union(1, Box::new(value)),
    };
    let values = NAMES.iter().map(|name| {
        let value = match *name {
            "id" => Theirs::Long(number * 7_919),
            "at" => Theirs::TimestampMillis(1_764_000_000_000 + number),
            "user" => Theirs::String(format!("user-{n}")),
            "country" => Theirs::String(["DE", "FR", "US"][n % 3].to_owned()),
            "kind" => Theirs::Enum(1, "cart".to_owned()),
            "paid" => Theirs::Boolean(n.is_multiple_of(2)),
            "f0" => Theirs::Float(0.5),
            "o0" => optional(Theirs::Double(0.25)),
            "o1" => optional(Theirs::Long(number)),
            "o2" => optional(Theirs::String("a coupon".to_owned())),
            "note" => Theirs::String("gift wrapped, please leave at the door".to_owned()),
            name if name.starts_with('n') => Theirs::Int(small),
            _ => Theirs::Double(f64::from(small) / 3.0),
        };
        ((*name).to_owned(), value)
    });
    Theirs::Record(values.collect())
}

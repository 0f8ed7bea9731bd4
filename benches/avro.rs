//! Avro on one core: records of 20 fields, all of them wanted, or three. Both sides in one run, interleaved, medians.
//!
//! `cargo bench --bench avro`: our plan against `apache_avro`'s values, and what we write against what it writes.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a bench measures, prints and fails loudly"
)]

use std::hint::black_box;
use std::time::Instant;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Theirs;
use apache_avro::writer::datum::GenericDatumWriter;
use tidemill::answer::{Prediction, Shape};
use tidemill::avro::{Along, Encoder, Kind, Plan, parse};

const RECORDS: usize = 20_000;
const ROUNDS: usize = 15;

fn main() {
    let schema = parse(SCHEMA, &[]).unwrap();
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    let data: Vec<Vec<u8>> =
        (0..RECORDS).map(|n| writer.write_value_to_vec(record(n)).unwrap()).collect();
    let bytes: usize = data.iter().map(Vec::len).sum();
    println!("{RECORDS} records of 20 fields, {} bytes each", bytes / RECORDS);
    let reader = GenericDatumReader::builder(&schema).build().unwrap();
    let all: Vec<Vec<String>> = NAMES.iter().map(|name| vec![(*name).to_owned()]).collect();
    let some: Vec<Vec<String>> = ["d1", "country", "o2"].map(|name| vec![name.to_owned()]).to_vec();
    let plans = [Plan::new(&schema, None, &all).unwrap(), Plan::new(&schema, None, &some).unwrap()];

    let (mut ours, mut few, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(timed(|| read(&plans[0], &data)));
        few.push(timed(|| read(&plans[1], &data)));
        theirs.push(timed(|| {
            for datum in &data {
                black_box(reader.read_value(&mut &datum[..]).unwrap());
            }
        }));
    }
    let (ours, few, theirs) = (median(ours), median(few), median(theirs));
    println!(
        "read: all 20 {:.0} ns, 3 of them {:.0} ns, apache_avro {:.0} ns a record: {:.1} x",
        ours,
        few,
        theirs,
        theirs / ours
    );
    write();
}

fn read(plan: &Plan, data: &[Vec<u8>]) {
    let mut out = vec![None; plan.wanted()];
    for datum in data {
        plan.read(datum, &mut out).unwrap();
        black_box(&out);
    }
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

fn record(n: usize) -> Theirs {
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

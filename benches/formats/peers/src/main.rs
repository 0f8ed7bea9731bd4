//! Decodes all records of a file into columns each time that a line comes, and prints nanoseconds a record and the sum.
//!
//! `peers typed|tape FILE`: JSON lines by `serde_json` into a struct, by `simd-json`'s tape. `peers arrow FILE SCHEMA`: Avro
//! behind Confluent's frame (id 7) by `arrow-avro`; each record stands behind its length (u32, little-endian).

use std::borrow::Cow;
use std::fs;
use std::hint::black_box;
use std::io::{BufRead as _, stdin};
use std::time::Instant;

use arrow_avro::reader::ReaderBuilder;
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use columns::{CHUNK, Columns};
use serde::Deserialize;
use simd_json::prelude::*;

#[path = "../../columns.rs"]
#[allow(dead_code)]
mod columns;

const NAMES: [&str; 33] = ["id", "split", "mean radius", "mean texture", "mean perimeter", "mean area", "mean smoothness", "mean compactness", "mean concavity", "mean concave points", "mean symmetry", "mean fractal dimension", "radius error", "texture error", "perimeter error", "area error", "smoothness error", "compactness error", "concavity error", "concave points error", "symmetry error", "fractal dimension error", "worst radius", "worst texture", "worst perimeter", "worst area", "worst smoothness", "worst compactness", "worst concavity", "worst concave points", "worst symmetry", "worst fractal dimension", "diagnosis"];

fn is_number(name: &&str) -> bool {
    !["split", "diagnosis"].contains(name)
}

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(rename = "id")]
    f0: Option<f64>,
    #[serde(rename = "split", borrow)]
    f1: Option<Cow<'a, str>>,
    #[serde(rename = "mean radius")]
    f2: Option<f64>,
    #[serde(rename = "mean texture")]
    f3: Option<f64>,
    #[serde(rename = "mean perimeter")]
    f4: Option<f64>,
    #[serde(rename = "mean area")]
    f5: Option<f64>,
    #[serde(rename = "mean smoothness")]
    f6: Option<f64>,
    #[serde(rename = "mean compactness")]
    f7: Option<f64>,
    #[serde(rename = "mean concavity")]
    f8: Option<f64>,
    #[serde(rename = "mean concave points")]
    f9: Option<f64>,
    #[serde(rename = "mean symmetry")]
    f10: Option<f64>,
    #[serde(rename = "mean fractal dimension")]
    f11: Option<f64>,
    #[serde(rename = "radius error")]
    f12: Option<f64>,
    #[serde(rename = "texture error")]
    f13: Option<f64>,
    #[serde(rename = "perimeter error")]
    f14: Option<f64>,
    #[serde(rename = "area error")]
    f15: Option<f64>,
    #[serde(rename = "smoothness error")]
    f16: Option<f64>,
    #[serde(rename = "compactness error")]
    f17: Option<f64>,
    #[serde(rename = "concavity error")]
    f18: Option<f64>,
    #[serde(rename = "concave points error")]
    f19: Option<f64>,
    #[serde(rename = "symmetry error")]
    f20: Option<f64>,
    #[serde(rename = "fractal dimension error")]
    f21: Option<f64>,
    #[serde(rename = "worst radius")]
    f22: Option<f64>,
    #[serde(rename = "worst texture")]
    f23: Option<f64>,
    #[serde(rename = "worst perimeter")]
    f24: Option<f64>,
    #[serde(rename = "worst area")]
    f25: Option<f64>,
    #[serde(rename = "worst smoothness")]
    f26: Option<f64>,
    #[serde(rename = "worst compactness")]
    f27: Option<f64>,
    #[serde(rename = "worst concavity")]
    f28: Option<f64>,
    #[serde(rename = "worst concave points")]
    f29: Option<f64>,
    #[serde(rename = "worst symmetry")]
    f30: Option<f64>,
    #[serde(rename = "worst fractal dimension")]
    f31: Option<f64>,
    #[serde(rename = "diagnosis", borrow)]
    f32: Option<Cow<'a, str>>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let bytes = fs::read(&arguments[1]).unwrap();
    match &*arguments[0] {
        "typed" => {
            let lines: Vec<&[u8]> = bytes.trim_ascii_end().split(|byte| *byte == b'\n').collect();
            serve(lines.len(), || typed(&lines));
        }
        "tape" => {
            let lines: Vec<&[u8]> = bytes.trim_ascii_end().split(|byte| *byte == b'\n').collect();
            let mut buffers = simd_json::Buffers::default();
            serve(lines.len(), || tape(&lines, &mut buffers));
        }
        "arrow" => {
            let schema = fs::read_to_string(&arguments[2]).unwrap();
            let mut records = Vec::new();
            let mut rest = &bytes[..];
            while let Some((length, behind)) = rest.split_first_chunk::<4>() {
                let (record, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
                records.push(record);
                rest = behind;
            }
            serve(records.len(), || arrow(&schema, &records));
        }
        other => panic!("{other}"),
    }
}

fn serve(records: usize, mut work: impl FnMut() -> f64) {
    println!("ready");
    for line in stdin().lock().lines() {
        line.unwrap();
        let begin = Instant::now();
        let sum = work();
        println!("{} {sum}", begin.elapsed().as_nanos() as f64 / records as f64);
    }
}

fn columns() -> Columns {
    Columns::new(&NAMES.map(|name| is_number(&name)))
}

fn typed(lines: &[&[u8]]) -> f64 {
    let mut columns = columns();
    for line in lines {
        let row: Row<'_> = serde_json::from_slice(line).unwrap();
        columns.number(0, row.f0);
        columns.text(1, row.f1.as_deref());
        columns.number(2, row.f2);
        columns.number(3, row.f3);
        columns.number(4, row.f4);
        columns.number(5, row.f5);
        columns.number(6, row.f6);
        columns.number(7, row.f7);
        columns.number(8, row.f8);
        columns.number(9, row.f9);
        columns.number(10, row.f10);
        columns.number(11, row.f11);
        columns.number(12, row.f12);
        columns.number(13, row.f13);
        columns.number(14, row.f14);
        columns.number(15, row.f15);
        columns.number(16, row.f16);
        columns.number(17, row.f17);
        columns.number(18, row.f18);
        columns.number(19, row.f19);
        columns.number(20, row.f20);
        columns.number(21, row.f21);
        columns.number(22, row.f22);
        columns.number(23, row.f23);
        columns.number(24, row.f24);
        columns.number(25, row.f25);
        columns.number(26, row.f26);
        columns.number(27, row.f27);
        columns.number(28, row.f28);
        columns.number(29, row.f29);
        columns.number(30, row.f30);
        columns.number(31, row.f31);
        columns.text(32, row.f32.as_deref());
    }
    black_box(columns).sum()
}

/// The tape wants the bytes to itself, so they are copied: a record's own are the client's.
fn tape(lines: &[&[u8]], buffers: &mut simd_json::Buffers) -> f64 {
    let mut columns = columns();
    let mut own = Vec::new();
    for line in lines {
        own.clear();
        own.extend_from_slice(line);
        let tape = simd_json::to_tape_with_buffers(&mut own, buffers).unwrap();
        let row = tape.as_value().as_object().unwrap();
        for (number, name) in NAMES.iter().enumerate() {
            let value = row.get(name);
            match is_number(name) {
                true => columns.number(number, value.and_then(|value| value.cast_f64())),
                false => columns.text(number, value.and_then(|value| value.into_string())),
            }
        }
    }
    black_box(columns).sum()
}

fn arrow(schema: &str, records: &[&[u8]]) -> f64 {
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(7), AvroSchema::new(schema.to_owned())).unwrap();
    let builder = ReaderBuilder::new().with_writer_schema_store(store).with_batch_size(CHUNK);
    let mut decoder = builder.build_decoder().unwrap();
    let mut rows = 0;
    for chunk in records.chunks(CHUNK) {
        for record in chunk {
            decoder.decode(record).unwrap();
        }
        rows += black_box(decoder.flush().unwrap().unwrap()).num_rows();
    }
    rows as f64
}

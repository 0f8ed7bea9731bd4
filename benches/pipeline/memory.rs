//! The most memory that the service takes, by what its records are, with `limits.memory: 64MiB`, from Kafka and from the
//! embedded log.
//!
//! The bound: the limit, what a process on an empty log takes with the same model, and a tenth of both. A fetch is bounded
//! as it comes: records that compress two hundred times take more.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use tidemill::sqlite::{Message, Store};

use crate::world::{World, wait_for};
use crate::{PARTITIONS, start};

const LIMIT_MIB: f64 = 64.0;

/// Records of a kind.
struct Case {
    name: &'static str,
    /// A text model in place of the linear one.
    text: bool,
    records: usize,
    compression: &'static str,
    value: fn(usize) -> Vec<u8>,
}

impl Case {
    /// Whether its values are Avro by [`CLAIMS`].
    fn is_avro(&self) -> bool {
        self.name.contains("claims")
    }
}

/// What claims are made by: a list, a map, and bytes.
const CLAIMS: &str = r#"{"type": "record", "name": "r", "fields": [
    {"name": "x", "type": "double"},
    {"name": "list", "type": {"type": "array", "items": "string"}},
    {"name": "map", "type": {"type": "map", "values": "bytes"}},
    {"name": "blob", "type": "bytes"}
]}"#;

/// 2 KiB that claim a list or a map of 2^40 items, or 2 GiB of bytes; every fourth is good.
fn claims(n: usize) -> Vec<u8> {
    const GIANT: [u8; 6] = [0x80, 0x80, 0x80, 0x80, 0x80, 0x40];
    const TWO_GIB: [u8; 5] = [0x80, 0x80, 0x80, 0x80, 0x10];
    let mut value = f64::from(u32::try_from(n).unwrap()).to_le_bytes().to_vec();
    match n / 4 % 4 {
        0 => value.extend(GIANT),
        1 => value.extend([&[0][..], &GIANT].concat()),
        2 => value.extend([&[0, 0][..], &TWO_GIB].concat()),
        // 2,048 bytes follow.
        _ => value.extend([0, 0, 0x80, 0x20]),
    }
    value.extend([b'a'; 2_048]);
    value
}

const CASES: [Case; 8] = [
    Case { name: "none", text: false, records: 0, compression: "none", value: |_| Vec::new() },
    Case {
        name: "empty",
        text: false,
        records: 1_000_000,
        compression: "none",
        value: |_| Vec::new(),
    },
    Case {
        name: "200 B",
        text: false,
        records: 400_000,
        compression: "none",
        value: |n| crate::value_200(n).into_bytes(),
    },
    Case {
        name: "900 kB, of which lz4 makes 4",
        text: false,
        records: 400,
        compression: "lz4",
        value: |n| format!("{{\"x\":{n},\"pad\":\"{}\"}}", "p".repeat(900_000)).into_bytes(),
    },
    Case {
        name: "900 kB",
        text: false,
        records: 400,
        compression: "none",
        value: |n| format!("{{\"x\":{n},\"pad\":\"{}\"}}", "p".repeat(900_000)).into_bytes(),
    },
    Case { name: "1,000 numbers", text: false, records: 20_000, compression: "none", value: many },
    Case {
        name: "200 kB of text",
        text: true,
        records: 400,
        compression: "none",
        value: |n| format!("{{\"text\":\"{n}{}\"}}", " a !".repeat(50_000)).into_bytes(),
    },
    Case {
        name: "2 KiB of Avro, with claims",
        text: false,
        records: 200_000,
        compression: "none",
        value: claims,
    },
];

fn many(n: usize) -> Vec<u8> {
    let fields: Vec<String> = (0..1_000).map(|field| format!(",\"f{field}\":[{field}]")).collect();
    let fields = fields.concat();
    format!("{{\"x\":{n}{fields}}}").into_bytes()
}

pub(crate) fn run() {
    let world = start();
    println!("| log | records | peak, MiB | bound, MiB | of the bound |\n|---|---|---|---|---|");
    let idle = [false, true]
        .map(|text| ["Kafka", "embedded"].map(|log| peak(&world, log, &Case { text, ..CASES[0] })));
    for case in &CASES[1..] {
        for (log, idle) in ["Kafka", "embedded"].into_iter().zip(idle[usize::from(case.text)]) {
            let bound = (LIMIT_MIB + idle) * 1.1;
            let peak = peak(&world, log, case);
            println!(
                "| {log} | {} × {} | {peak:.0} | {bound:.0} | {:.2} |",
                case.records,
                case.name,
                peak / bound
            );
        }
    }
}

/// Writes the records to a log of their own, answers them all, and gives the most memory that took, in MiB.
fn peak(world: &World, log: &str, case: &Case) -> f64 {
    let name = format!("{}-{}", case.name.replace([' ', ','], ""), u8::from(case.text));
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/tiny-bert");
    let extra = "limits: { memory: 64MiB }\ndead_letters: { max_ratio: 1.0 }";
    if log == "Kafka" {
        let world = world.beside(&name, PARTITIONS, &[]);
        let config = world.config("a", extra);
        if case.text {
            let linear = "'models:/lin@champion'";
            let text = fs::read_to_string(&config).unwrap();
            fs::write(&config, text.replace(linear, &model.display().to_string())).unwrap();
        }
        avro(&config, case);
        produce(&world, case);
        measured(&config)
    } else {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log.db");
        append(&file, case);
        let registry = world.registry().join("lin/1");
        let uri = if case.text { &model } else { &registry };
        let text = format!(
            "log: sqlite:{}\ninput: {{ topics: [in] }}\noutput: {{ topic: out }}\n\
             model: {{ uri: '{}', workers: 1 }}\nhttp: {{ listen: '127.0.0.1:0' }}\n{extra}\n",
            file.display(),
            uri.display(),
        );
        let config = dir.path().join("tidemill.yaml");
        fs::write(&config, text).unwrap();
        avro(&config, case);
        measured(&config)
    }
}

/// Lets the service read Avro, where the records are.
fn avro(config: &Path, case: &Case) {
    if case.is_avro() {
        let schema = config.with_extension("avsc");
        fs::write(&schema, CLAIMS).unwrap();
        let input = format!("input: {{ format: avro, schema: '{}',", schema.display());
        let text = fs::read_to_string(config).unwrap().replace("input: {", &input);
        fs::write(config, text).unwrap();
    }
}

fn produce(world: &World, case: &Case) {
    let mut client = world.client();
    client.set("linger.ms", "5").set("compression.type", case.compression);
    let producer: ThreadedProducer<DefaultProducerContext> = client.create().unwrap();
    let topic = world.topic("in");
    for n in 0..case.records {
        let (value, partition) = ((case.value)(n), i32::try_from(n).unwrap() % PARTITIONS);
        wait_for("room in the producer", || {
            let record = BaseRecord::<[u8], [u8]>::to(&topic).partition(partition);
            producer.send(record.payload(&value)).ok()
        });
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

fn append(file: &Path, case: &Case) {
    let mut store = Store::open(file).unwrap();
    store.create_topic("in", u16::try_from(PARTITIONS).unwrap()).unwrap();
    let numbers: Vec<usize> = (0..case.records).collect();
    for numbers in numbers.chunks(500) {
        for partition in 0..PARTITIONS {
            let here =
                numbers.iter().filter(|n| i32::try_from(**n).unwrap() % PARTITIONS == partition);
            let message = |n: &usize| Message {
                timestamp: 0,
                key: None,
                value: Some((case.value)(*n)),
                headers: Vec::new(),
            };
            let messages: Vec<Message> = here.map(message).collect();
            store.append("in", partition, &messages).unwrap();
        }
    }
}

fn measured(config: &Path) -> f64 {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["run", "--until-end", "--config"])
        .arg(config)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (status, peak) = crate::peak_of(&mut child);
    assert!(status.success(), "{status}: {}", config.display());
    peak
}

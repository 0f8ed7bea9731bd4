//! The whole service against a real broker, both sides in one run, interleaved, medians.
//!
//! `cargo bench --bench pipeline -- [overhead] [latency] [far] [memory] [swaps] [verify] [observed] [scale] [from_zero]`, and each alone
//! `observed MODEL_DIR LINES_FILE`, `embedding MODEL_DIR LINES_FILE`, `learned MODEL_DIR LINES_FILE`, `pinned MODEL_DIR LINES_FILE`,
//! `peer MODEL_DIR LINES_FILE PYTHON`, `table PYTHON`
//!
//! * overhead: a model that costs nothing and 200-byte values, against a bare librdkafka loop that consumes, produces,
//!   waits for the reports, sends the offsets and commits, with the same batch size.
//! * embedding: `MiniLM` through Kafka, against the same lines through the model alone (`tidemill predict`).
//! * learned: the same through Kafka, `batch.size: learned` against `max`.
//! * pinned: the same, each inference thread on a core of its own against all of them anywhere.
//! * peer: the same through Kafka in f32 and int8, against a Python pipeline on ONNX Runtime, `benches/pipeline_peer.py`.
//! * table: the demo's table through Kafka, JSON and Avro, against a Python loop at several batch sizes and Quix Streams,
//!   `benches/table_peer.py`.
//! * latency: one record every few milliseconds; from append to visible for a `read_committed` reader.
//! * far: transactions a second where the broker's answers take 60 ms.
//! * memory: the most memory by what the records are, from Kafka and from the embedded log, under a limit of 64 MiB.
//! * swaps: resident memory over a thousand swaps.
//! * scale: a hundred replicas on a thousand partitions, simulated with the real core: rebalance storms, a rolling upgrade, crashes.
//! * `from_zero`: a replica from nothing to its first answer, by parts, and its idle memory.
//! * observed: with traces, JSON logs, pushes over OTLP and a scraper, against without: one of ten small records sampled; with a model, all.
//! * verify: `tidemill verify` over ten million records (`TIDEMILL_VERIFY_RECORDS`).
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    dead_code,
    reason = "a bench measures, prints and fails loudly"
)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

#[path = "../tests/it/broker.rs"]
mod broker;
#[path = "pipeline/far.rs"]
mod far;
#[path = "pipeline/from_zero.rs"]
mod from_zero;
#[path = "pipeline/memory.rs"]
mod memory;
#[path = "pipeline/observed.rs"]
mod observed;
#[path = "pipeline/scale.rs"]
mod scale;
#[path = "pipeline/table.rs"]
mod table;
#[path = "pipeline/verify.rs"]
mod verify;
#[path = "../tests/it/world.rs"]
mod world;

use world::{Replica, World, wait_for};

const PARTITIONS: i32 = 4;

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let all = arguments.is_empty();
    let asked = |name: &str| all || arguments.iter().any(|argument| argument == name);
    if asked("overhead") {
        overhead();
    }
    if asked("latency") {
        latency();
    }
    if asked("far") {
        far::run();
    }
    if asked("memory") {
        memory::run();
    }
    if asked("swaps") {
        swaps();
    }
    if asked("scale") {
        scale::run();
    }
    if asked("from_zero") {
        from_zero::run();
    }
    if asked("verify") {
        verify::run(&start());
    }
    if all || arguments == ["observed"] {
        observed::run();
    }
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["embedding", model, lines] => embedding(model, lines),
        ["observed", model, lines] => observed::model(model, &json_lines(lines)),
        ["learned", model, lines] => learned(model, lines),
        ["pinned", model, lines] => pinned(model, lines),
        ["peer", model, lines, python] => peer(model, lines, python),
        ["table", python] => table::run(python),
        _ => (),
    }
}

fn start() -> World {
    let world = World::start(PARTITIONS).unwrap_or_else(|| panic!("no Kafka here"));
    world.add_version(1);
    world.promote(1);
    world
}

fn fill<V: AsRef<[u8]>>(world: &World, records: usize, value: impl Fn(usize) -> V) {
    let mut client = world.client();
    client.set("enable.idempotence", "true").set("linger.ms", "5");
    client.set("queue.buffering.max.messages", "500000");
    let producer: ThreadedProducer<DefaultProducerContext> = client.create().unwrap();
    for n in 0..records {
        let (key, value) = (n.to_string(), value(n));
        let partition = i32::try_from(n).unwrap() % PARTITIONS;
        wait_for("room in the producer", || {
            producer
                .send(BaseRecord::to("in").partition(partition).key(&key).payload(value.as_ref()))
                .ok()
        });
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

/// 200 bytes with one number that the model reads.
fn value_200(n: usize) -> String {
    let mut value = format!("{{\"x\":{n},\"pad\":\"");
    value.push_str(&"p".repeat(198 - value.len()));
    value + "\"}"
}

/// Committed records by time: records a second between the first and the last commit that was seen.
fn rate_of_group(world: &World, group: &str, records: usize) -> f64 {
    let observer: BaseConsumer = world.client().set("group.id", group).create().unwrap();
    let mut first: Option<(Instant, i64)> = None;
    wait_for("the last commit", || {
        let committed: i64 = world.committed(&observer)?.iter().sum();
        let now = Instant::now();
        if first.is_none() && 0 < committed {
            first = Some((now, committed));
        }
        (usize::try_from(committed).unwrap() >= records).then_some(())
    });
    let (since, already) = first.unwrap();
    (records as f64 - already as f64) / since.elapsed().as_secs_f64()
}

fn service_rate(world: &World, name: &str, records: usize, extra: &str) -> f64 {
    service_run(world, name, records, extra).rate
}

/// How a run of the service was.
struct Run {
    /// Records a second.
    rate: f64,
    /// CPU seconds in all, its start with it: on a machine that is full they say more than a rate.
    cpu: f64,
    /// Resident memory at the end.
    mib: f64,
}

impl Run {
    /// Waits until the group has committed so many records, and stops the replica.
    fn of(world: &World, group: &str, records: usize, replica: Replica) -> Self {
        let rate = rate_of_group(world, group, records);
        let pid = replica.child.id();
        let (cpu, mib) = (cpu_seconds(pid), resident_mib(pid));
        assert!(replica.stop().success());
        Self { rate, cpu, mib }
    }
}

fn service_run(world: &World, name: &str, records: usize, extra: &str) -> Run {
    let config = world.config(name, extra);
    let text = fs::read_to_string(&config).unwrap();
    // Each round reads the same records as a group of its own.
    let group = format!("group: {name}\n  on_missing_offset: start\n");
    fs::write(&config, text.replace("group: g\n", &group)).unwrap();
    Run::of(world, name, records, Replica::start(&config, &[]))
}

/// CPU seconds of a process, of its own and in the kernel.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap());
    // A hundred a second, on every Linux there is.
    ticks.sum::<f64>() / 100.0
}

/// The bare loop. Reports drained before the offsets are sent: three times faster than the naive order.
fn copy_rate(world: &World, name: &str, records: usize, batch: usize) -> f64 {
    let mut client = world.client();
    client
        .set("group.id", name)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = client.create().unwrap();
    consumer.subscribe(&["in"]).unwrap();
    let mut client = world.client();
    client.set("transactional.id", name).set("linger.ms", "0").set("compression.type", "zstd");
    let producer: ThreadedProducer<DefaultProducerContext> = client.create().unwrap();
    producer.init_transactions(Duration::from_secs(30)).unwrap();
    let (mut done, mut started) = (0, None);
    while done < records {
        let mut messages = Vec::with_capacity(batch);
        while messages.len() < batch && done + messages.len() < records {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                messages.push(message);
            }
        }
        started.get_or_insert_with(Instant::now);
        producer.begin_transaction().unwrap();
        let mut next = TopicPartitionList::new();
        for message in &messages {
            let record = BaseRecord::to("out").partition(message.partition());
            let record = record.key(message.key().unwrap()).payload(message.payload().unwrap());
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        let mut ends = std::collections::BTreeMap::new();
        for message in &messages {
            ends.insert(message.partition(), message.offset() + 1);
        }
        for (partition, end) in ends {
            next.add_partition_offset("in", partition, Offset::Offset(end)).unwrap();
        }
        while producer.in_flight_count() != 0 {
            producer.poll(Duration::from_millis(1));
        }
        let metadata = consumer.group_metadata().unwrap();
        producer.send_offsets_to_transaction(&next, &metadata, Duration::from_secs(30)).unwrap();
        producer.commit_transaction(Duration::from_secs(30)).unwrap();
        done += messages.len();
    }
    records as f64 / started.unwrap().elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn overhead() {
    let world = start();
    for (batch, records) in [(256, 60_000), (1_000, 120_000)] {
        let already = world.observer().fetch_watermarks("in", 0, Duration::from_secs(5)).unwrap().1;
        let have = usize::try_from(already * i64::from(PARTITIONS)).unwrap();
        fill(&world, records - have, value_200);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..3 {
            let extra = format!("batch: {{ max_records: {batch}, max_wait: 10ms }}");
            ours.push(service_rate(&world, &format!("s{batch}-{round}"), records, &extra));
            theirs.push(copy_rate(&world, &format!("c{batch}-{round}"), records, batch));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!(
            "overhead: batch {batch}, 200-byte values: service {ours:.0}/s, bare copy loop {theirs:.0}/s, ratio {:.2}",
            ours / theirs
        );
    }
}

fn latency() {
    const WAIT_MS: u64 = 50;
    const RECORDS: usize = 3_000;
    let world = start();
    let config = world.config("lat", "batch: { max_wait: 50ms }");
    let replica = Replica::start(&config, &[]);
    let mut client = world.client();
    client.set("group.id", "latency-reader").set("isolation.level", "read_committed");
    let reader: BaseConsumer = client.create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset("out", partition, Offset::Beginning).unwrap();
    }
    reader.assign(&list).unwrap();
    let mut client = world.client();
    client.set("linger.ms", "0");
    let producer: ThreadedProducer<DefaultProducerContext> = client.create().unwrap();
    let (begin, mut sent, mut seen) = (Instant::now(), 0_usize, Vec::new());
    while seen.len() < RECORDS && begin.elapsed() < Duration::from_secs(60) {
        let due = usize::try_from(begin.elapsed().as_micros() / 5_000).unwrap();
        while sent <= due && sent < RECORDS {
            let value = format!("{{\"x\":{sent}}}");
            let key = begin.elapsed().as_micros().to_string();
            let partition = i32::try_from(sent).unwrap() % PARTITIONS;
            let record = BaseRecord::to("in").partition(partition).key(&key).payload(&value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
            sent += 1;
        }
        if let Some(Ok(message)) = reader.poll(Duration::from_millis(1)) {
            let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
            let age = begin.elapsed().as_micros() - key.parse::<u128>().unwrap();
            seen.push(age as f64 / 1e3);
        }
    }
    assert!(replica.stop().success());
    // The first seconds are the group's joining.
    let mut steady = seen.split_off(seen.len() / 3);
    steady.sort_by(f64::total_cmp);
    let at = |percent: usize| steady[(steady.len() - 1) * percent / 100];
    println!(
        "latency: 200 records/s, append to visible: p50 {:.1} ms, p99 {:.1} ms; goal: max_wait {WAIT_MS} + model 0 + 50 = 100 ms",
        at(50),
        at(99)
    );
}

fn resident_mib(pid: u32) -> f64 {
    mebibytes(pid, "VmRSS:").unwrap()
}

/// A line of what the system says of a process's memory, in MiB; `None` where it has ended.
fn mebibytes(pid: u32, line: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|found| found.strip_prefix(line))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

/// Waits for a process to end: how, and the most memory it had, in MiB.
fn peak_of(child: &mut Child) -> (ExitStatus, f64) {
    let mut peak = 0.0_f64;
    loop {
        peak = peak.max(mebibytes(child.id(), "VmHWM:").unwrap_or(0.0));
        if let Some(status) = child.try_wait().unwrap() {
            return (status, peak);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn swaps() {
    const SWAPS: u32 = 1_000;
    let world = start();
    let config = world.config("swap", "batch: { max_wait: 1ms }");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        text.replace("poll: 100ms", "poll: 5ms").replace("127.0.0.1:0", "127.0.0.1:18099"),
    )
    .unwrap();
    let replica = Replica::start(&config, &[]);
    world.add_version(2);
    let mut client = world.client();
    client.set("linger.ms", "0");
    let producer: ThreadedProducer<DefaultProducerContext> = client.create().unwrap();
    let mut samples = Vec::new();
    let begin = Instant::now();
    for swap in 0..SWAPS {
        let version = 2 - swap % 2;
        world.promote(version);
        let record = BaseRecord::<[u8], [u8]>::to("in").partition(0).payload(b"{\"x\":1}");
        producer.send(record).map_err(|(error, _)| error).unwrap();
        let serving = format!("version=\"{version}\"");
        wait_for("a swap", || {
            let text = scrape("127.0.0.1:18099")?;
            let mut lines = text.lines().filter(|line| line.starts_with("tidemill_model_info"));
            lines.any(|line| line.contains(&serving) && line.ends_with(" 1")).then_some(())
        });
        if swap % 100 == 99 {
            samples.push(resident_mib(replica.child.id()).round());
        }
    }
    let each = begin.elapsed().as_secs_f64() / f64::from(SWAPS) * 1e3;
    assert!(replica.stop().success());
    println!(
        "swaps: resident MiB after each 100 of 1,000 swaps: {samples:?}; {each:.0} ms a swap, seen from outside"
    );
}

fn scrape(address: &str) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// The first lines of a file as records.
fn json_lines(file: &str) -> Vec<String> {
    const RECORDS: usize = 2_048;
    let text = fs::read_to_string(file).unwrap();
    let json = |line| serde_json::json!({ "text": line }).to_string();
    text.lines().take(RECORDS).map(json).collect()
}

/// A topic of texts, and the texts as JSON lines.
fn texts(file: &str) -> (World, Vec<String>) {
    let lines = json_lines(file);
    let world = start();
    fill(&world, lines.len(), |n| lines[n].clone());
    (world, lines)
}

/// A run of the service with this model, in a group of its own.
fn embed_run(world: &World, name: &str, model: &str, records: usize, more: (&str, &str)) -> Run {
    let (precision, batch) = more;
    let config = world.config(name, &format!("batch: {{ max_wait: 50ms{batch} }}"));
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("models:/lin@champion", model);
    let text = text.replace(", workers: 1", &format!(", precision: {precision}"));
    // Each round reads the same records as a group of its own.
    let group = format!("group: {name}\n  on_missing_offset: start\n");
    fs::write(&config, text.replace("group: g\n", &group)).unwrap();
    let replica = Replica::start(&config, &[]);
    if name.starts_with("pinned") {
        pin(replica.child.id());
    }
    Run::of(world, name, records, replica)
}

/// Gives each inference thread of a process a core.
fn pin(pid: u32) {
    let pinned = wait_for("the inference threads", || {
        let mut pinned = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if let Some(core) = name.trim().strip_prefix("infer-") {
                let mut taskset = Command::new("taskset");
                let thread = task.file_name().into_string().unwrap();
                let output = taskset.args(["-pc", core, &thread]).output().unwrap();
                pinned += usize::from(output.status.success());
            }
        }
        (pinned != 0).then_some(pinned)
    });
    println!("pinned: {pinned} threads");
}

fn pinned(model: &str, lines: &str) {
    let (world, lines) = texts(lines);
    let (mut free, mut pinned) = (Vec::new(), Vec::new());
    for round in 0..3 {
        let rate = |name: String| embed_run(&world, &name, model, lines.len(), ("f32", "")).rate;
        free.push(rate(format!("free{round}")));
        pinned.push(rate(format!("pinned{round}")));
    }
    let (free, pinned) = (median(free), median(pinned));
    println!(
        "pinned: a core for each inference thread {pinned:.0}/s, anywhere {free:.0}/s, ratio {:.2}",
        pinned / free
    );
}

fn learned(model: &str, lines: &str) {
    let (world, lines) = texts(lines);
    let (mut most, mut learned) = (Vec::new(), Vec::new());
    for round in 0..3 {
        let rate =
            |name: String, batch| embed_run(&world, &name, model, lines.len(), ("f32", batch)).rate;
        most.push(rate(format!("m{round}"), ""));
        let file = world.dir.path().join("sizes.json");
        let batch = format!(", size: learned, remember: {}", file.display());
        learned.push(rate(format!("l{round}"), &batch));
        println!(
            "learned: {}",
            fs::read_to_string(&file).unwrap().split_whitespace().collect::<String>()
        );
    }
    let (most, learned) = (median(most), median(learned));
    println!(
        "learned: batch.size learned {learned:.0}/s, max {most:.0}/s, ratio {:.2}",
        learned / most
    );
}

fn peer(model: &str, lines: &str, python: &str) {
    let (world, lines) = texts(lines);
    world.create_topics(&["peer-out"], PARTITIONS);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/pipeline_peer.py");
    // Made by `cargo bench --bench inference` with the same Python.
    let onnx = std::env::temp_dir().join("tidemill-peer");
    for (precision, file) in [("f32", "fused.onnx"), ("int8", "int8.onnx")] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let (mut memory, mut their_memory) = (0.0_f64, 0.0_f64);
        for round in 0..3 {
            let name = format!("{precision}-{round}");
            let Run { rate, mib, .. } =
                embed_run(&world, &name, model, lines.len(), (precision, ""));
            ours.push(rate);
            memory = memory.max(mib);
            let mut command = Command::new(python);
            command.arg(&script).arg(&world.broker.servers).arg(model).arg(onnx.join(file));
            let output = command.arg(lines.len().to_string()).output().unwrap();
            let answer: serde_json::Value = serde_json::from_slice(&output.stdout)
                .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
            theirs.push(answer["rate"].as_f64().unwrap());
            their_memory = their_memory.max(answer["mib"].as_f64().unwrap());
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!(
            "peer: {precision}: service {ours:.0}/s, {memory:.0} MiB; Python with ONNX Runtime {theirs:.0}/s, \
             {their_memory:.0} MiB; ratios {:.2} and {:.2}",
            ours / theirs,
            memory / their_memory
        );
    }
}

fn embedding(model: &str, lines: &str) {
    let (world, lines) = texts(lines);
    let input = world.dir.path().join("lines.jsonl");
    fs::write(&input, lines.join("\n")).unwrap();
    let (mut ours, mut alone) = (Vec::new(), Vec::new());
    for round in 0..3 {
        let name = format!("e{round}");
        ours.push(embed_run(&world, &name, model, lines.len(), ("f32", "")).rate);
        alone.push(predict_rate(model, &input, lines.len()));
    }
    let (ours, alone) = (median(ours), median(alone));
    println!(
        "embedding: through Kafka, exactly once {ours:.0}/s, the model alone {alone:.0}/s, ratio {:.2}",
        ours / alone
    );
}

/// `tidemill predict` over all lines less over none, so that loading does not count.
fn predict_rate(model: &str, input: &Path, records: usize) -> f64 {
    let run = |input: &Path| {
        let begin = Instant::now();
        let status = Command::new(env!("CARGO_BIN_EXE_tidemill"))
            .args(["predict", "--output", "/dev/null", "--model", model, "--input"])
            .arg(input)
            .status()
            .unwrap();
        assert!(status.success());
        begin.elapsed().as_secs_f64()
    };
    records as f64 / (run(input) - run(Path::new("/dev/null")))
}

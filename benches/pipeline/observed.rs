//! What it costs to be seen: traces, JSON logs and a scraper, against neither of them. The metrics themselves are always on.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use super::world::{World, wait_for};
use super::{PARTITIONS, embed_rate, median, scrape, service_rate, start, value_200};

/// Small records, one of ten sampled.
pub(super) fn run() {
    const RECORDS: usize = 120_000;
    let world = start();
    fill(&world, RECORDS, value_200, |n| n % 10 == 0);
    let (mut seen, mut unseen) = (Vec::new(), Vec::new());
    for round in 0..5 {
        let batch = "batch: { max_records: 256, max_wait: 10ms }";
        unseen.push(service_rate(&world, &format!("unseen{round}"), RECORDS, batch));
        let extra = format!("{batch}\n{}", observed());
        let name = format!("seen{round}");
        seen.push(watched(&world, &name, || service_rate(&world, &name, RECORDS, &extra)));
    }
    report("one record of ten sampled, small records", seen, unseen);
}

/// Texts through a real model, every record sampled.
pub(super) fn model(model: &str, lines: &[String]) {
    let world = start();
    fill(&world, lines.len(), |n| lines[n].clone(), |_| true);
    let (mut seen, mut unseen) = (Vec::new(), Vec::new());
    for round in 0..3 {
        let rate = |name: &str, more: &str| {
            embed_rate(&world, &format!("{name}{round}"), model, lines.len(), ("f32", more)).0
        };
        unseen.push(rate("unseen", ""));
        // `more` stands inside of `batch: { … }`.
        let more = format!(" }}\n{}\nstate: {{ dir: null", observed());
        seen.push(watched(&world, &format!("seen{round}"), || rate("seen", &more)));
    }
    report("every record sampled, texts", seen, unseen);
}

fn report(what: &str, seen: Vec<f64>, unseen: Vec<f64>) {
    let (seen, unseen) = (median(seen), median(unseen));
    println!(
        "observed: {what}: with traces, JSON logs and a scrape a second {seen:.0}/s, without {unseen:.0}/s, ratio {:.3}",
        seen / unseen
    );
}

/// The configuration of a service that is seen, by a collector that takes everything and keeps nothing.
fn observed() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let accept = move || {
        for stream in listener.incoming().flatten() {
            drop(std::thread::Builder::new().spawn(move || swallow(stream)));
        }
    };
    drop(std::thread::Builder::new().spawn(accept).unwrap());
    format!("traces: {{ endpoint: 'http://{address}' }}\nlogging: {{ format: json }}\n")
}

fn swallow(mut stream: TcpStream) -> Option<()> {
    let mut bytes = vec![0; 1 << 16];
    let mut request = Vec::new();
    loop {
        let read = stream.read(&mut bytes).ok().filter(|read| *read != 0)?;
        request.extend_from_slice(&bytes[..read]);
        let Some(head) = request.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
        let length =
            text.split("content-length: ").nth(1)?.lines().next()?.parse::<usize>().ok()?;
        let mut left = (head + 4 + length).saturating_sub(request.len());
        while left != 0 {
            let read = stream.read(&mut bytes).ok().filter(|read| *read != 0)?;
            left = left.saturating_sub(read);
        }
        request.clear();
        let answer =
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer.as_bytes()).ok()?;
    }
}

/// Runs something beside a scraper, and prints what it saw of spans last.
fn watched<T>(world: &World, name: &str, run: impl FnOnce() -> T) -> T {
    let log = world.dir.path().join(format!("{name}.log"));
    let over = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&over);
    let scraper = std::thread::Builder::new().spawn(move || {
        let mut last = String::new();
        while !end.load(Ordering::Relaxed) {
            last = address(&log).and_then(|address| scrape(&address)).unwrap_or(last);
            std::thread::sleep(Duration::from_secs(1));
        }
        last
    });
    let result = run();
    over.store(true, Ordering::Relaxed);
    let last = scraper.unwrap().join().unwrap();
    let spans = last.lines().filter(|line| line.starts_with("tidemill_trace_spans_total"));
    spans.for_each(|line| println!("observed: {line}"));
    result
}

/// Where the service says that it listens.
fn address(log: &Path) -> Option<String> {
    let log = fs::read_to_string(log).ok()?;
    let (_, rest) = log.split_once("listening")?;
    let (_, rest) = rest.split_once("127.0.0.1:")?;
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some(format!("127.0.0.1:{port}"))
}

fn fill(
    world: &World,
    records: usize,
    value: impl Fn(usize) -> String,
    sampled: impl Fn(usize) -> bool,
) {
    let mut client = world.client();
    client.set("enable.idempotence", "true").set("linger.ms", "5");
    let producer: ThreadedProducer<DefaultProducerContext> = client.create().unwrap();
    for n in 0..records {
        let (key, value) = (n.to_string(), value(n));
        let partition = i32::try_from(n).unwrap() % PARTITIONS;
        let parent = format!("00-{:032x}-{:016x}-0{}", n + 1, n + 1, u8::from(sampled(n)));
        wait_for("room in the producer", || {
            let header = Header { key: "traceparent", value: Some(&parent) };
            let headers = OwnedHeaders::new().insert(header);
            let record = BaseRecord::to("in").partition(partition).headers(headers);
            producer.send(record.key(&key).payload(&value)).ok()
        });
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

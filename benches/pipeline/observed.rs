//! What it costs to be seen: traces, JSON logs, a push of both and of the metrics (the shorter `OTEL_METRIC_EXPORT_INTERVAL` is, the
//! more often) and a scraper, against none of them. The metrics themselves are always counted.

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
use super::{PARTITIONS, Run, embed_run, median, scrape, service_run, start, value_200};

/// Small records, one of ten sampled.
pub(super) fn run() {
    const RECORDS: usize = 900_000;
    let world = start();
    fill(&world, RECORDS, value_200, |n| n % 10 == 0);
    let batch = "batch: { max_records: 256, max_wait: 10ms }";
    let unseen = |name: &str| service_run(&world, name, RECORDS, batch);
    let seen = |name: &str| {
        let extra = format!("{batch}\n{}", observed());
        watched(&world, name, || service_run(&world, name, RECORDS, &extra))
    };
    report("one record of ten sampled, small records", 9, unseen, seen);
}

/// Texts through a real model, every record sampled.
pub(super) fn model(model: &str, lines: &[String]) {
    let world = start();
    fill(&world, lines.len(), |n| lines[n].clone(), |_| true);
    let rate = |name: &str, more: &str| embed_run(&world, name, model, lines.len(), ("f32", more));
    let seen = |name: &str| {
        // `more` stands inside of `batch: { … }`.
        let more = format!(" }}\n{}\nstate: {{ dir: null", observed());
        watched(&world, name, || rate(name, &more))
    };
    report("every record sampled, texts", 3, |name| rate(name, ""), seen);
}

/// Runs both sides in turns, each first in every other round, and prints what became of the rate and of the spans.
fn report(
    what: &str,
    rounds: usize,
    unseen: impl Fn(&str) -> Run,
    seen: impl Fn(&str) -> (Run, [u64; 3]),
) {
    let (mut rates, mut ratios, mut spans) = ([Vec::new(), Vec::new()], Vec::new(), [0; 3]);
    let mut cpus = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        let without = || unseen(&format!("unseen{round}"));
        let with = || seen(&format!("seen{round}"));
        let (without, (with, told)) = if round % 2 == 0 {
            let first = without();
            (first, with())
        } else {
            let first = with();
            (without(), first)
        };
        cpus[0].push(without.cpu);
        cpus[1].push(with.cpu);
        let (without, with) = (without.rate, with.rate);
        println!("observed: {what}: {without:.0}/s, seen {with:.0}/s, ratio {:.3}", with / without);
        rates[0].push(without);
        rates[1].push(with);
        ratios.push(with / without);
        spans.iter_mut().zip(told).for_each(|(all, told)| *all += told);
    }
    let ([without, with], [cpu_without, cpu_with]) = (rates.map(median), cpus.map(median));
    let ([exported, failed, dropped], ratio) = (spans, median(ratios));
    println!(
        "observed: {what}: with traces, JSON logs, both pushed with the metrics, and a scrape a second {with:.0}/s, without \
         {without:.0}/s, ratio {:.3}, median of the rounds' ratios {ratio:.3}; CPU of the service {cpu_with:.2} s and {cpu_without:.2} s; spans exported {exported}, failed {failed}, \
         dropped {dropped}",
        with / without
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
    let at = format!("endpoint: 'http://{address}'");
    format!("traces: {{ {at} }}\nmetrics: {{ {at} }}\nlogging: {{ format: json, {at} }}\n")
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

/// Runs something beside a scraper; with what that saw of spans last, by result: exported, failed, dropped.
fn watched<T>(world: &World, name: &str, run: impl FnOnce() -> T) -> (T, [u64; 3]) {
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
    let done = run();
    over.store(true, Ordering::Relaxed);
    let last = scraper.unwrap().join().unwrap();
    let counted = ["exported", "failed", "dropped"].map(|result| {
        let name = format!("tidemill_trace_spans_total{{result=\"{result}\"}} ");
        let found = last.lines().find_map(|line| line.strip_prefix(&name));
        found.map_or(0, |count| count.parse().unwrap())
    });
    (done, counted)
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

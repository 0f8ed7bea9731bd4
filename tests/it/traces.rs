//! One trace leads from the producer's record to whoever reads its outcome, as a real collector sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use crate::collector::{Collector, Span, free_port, run};
use crate::world::{GOOD, PATIENCE, Seen, World};

/// A record whose value no model answers.
const BAD: &str = "{\"x\":\"a word\"}";

/// The parent of record `number`.
fn parent(number: u64, flags: u8) -> String {
    format!("00-{:032x}-{:016x}-{flags:02x}", 0xabc0_0000_u64 + number, number + 1)
}

fn produce(
    world: &World,
    records: impl Iterator<Item = (&'static str, Vec<(&'static str, String)>)>,
) {
    let producer: ThreadedProducer<DefaultProducerContext> = world.client().create().unwrap();
    let topic = world.topic("in");
    for (value, headers) in records {
        let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let record = BaseRecord::<[u8], [u8]>::to(&topic).partition(0).headers(headers);
        producer.send(record.payload(value.as_bytes())).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// Outcomes by the number of their record, which is its offset.
fn by_offset(seen: Vec<Seen>, header: &str) -> BTreeMap<u64, Seen> {
    seen.into_iter().map(|seen| (seen.number(header).unwrap(), seen)).collect()
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name() == name).collect()
}

#[test]
fn one_trace_leads_from_the_producer_to_the_reader() {
    let Some(collector) = Collector::start() else { return };
    let Some(first) = World::start(1) else { return };
    let mut told = 0;
    for (name, records) in [("small", 256), ("large", 2_000)] {
        let world = first.beside(name, 1, &[]);
        produce(
            &world,
            (0..records).map(|number| {
                let value = if number == 7 { BAD } else { GOOD };
                let state = ("tracestate", format!("vendor={number}"));
                (value, vec![("traceparent", parent(number, 1)), state])
            }),
        );
        let batch = format!("batch: {{ max_records: {records}, max_wait: 60s }}");
        let config = world.config("a", &batch);
        let (endpoint, protocol) = match name {
            "small" => (collector.endpoint(), "http/protobuf"),
            _ => (collector.grpc_endpoint(), "grpc"),
        };
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ];
        let (code, log) = run(&config, &variables);
        assert_eq!(code, Some(0), "{log}");
        // A span for each record, six for their batch, seven for the model.
        let all = usize::try_from(records).unwrap() + 13;
        let spans = collector.wait_for_spans(told + all);
        assert_eq!(spans.len(), told + all, "each once");
        prove(&world, &spans[told..], records);
        told = spans.len();
    }
}

/// What the topics and the collector say of one batch.
fn prove(world: &World, spans: &[Span], records: u64) {
    let process = format!("process {}", world.topic("in"));
    let (of_records, of_batch): (Vec<&Span>, Vec<&Span>) =
        named(spans, &process).into_iter().partition(|span| !span.text("parentSpanId").is_empty());
    assert_eq!(of_batch.len(), 1, "one batch");
    let of_records: BTreeMap<&str, &Span> =
        of_records.into_iter().map(|span| (span.text("traceId"), span)).collect();
    let batch = of_batch[0];
    let links: BTreeSet<(String, String)> = batch.links().into_iter().collect();
    assert_eq!(u64::try_from(links.len()).unwrap(), records, "no link is left out");
    let mut seen = by_offset(world.read("out", "read_committed"), "tidemill.source.offset");
    let dead = by_offset(world.read("in-dlq", "read_committed"), "__connect.errors.offset");
    assert_eq!(dead.len(), 1);
    seen.extend(dead);
    for number in 0..records {
        let parent = parent(number, 1);
        let parts: Vec<&str> = parent.split('-').collect();
        let (trace, before) = (parts[1], parts[2]);
        let headers = &seen[&number].headers;
        let span = of_records[trace];
        assert_eq!(span.text("parentSpanId"), before);
        assert_eq!(headers["traceparent"], format!("00-{trace}-{}-01", span.text("spanId")));
        assert_eq!(headers["tracestate"], format!("vendor={number}"));
        assert_eq!(span.text("traceState"), format!("vendor={number}"));
        assert!(links.contains(&(trace.to_owned(), before.to_owned())));
        let own = (batch.text("traceId").to_owned(), batch.text("spanId").to_owned());
        assert_eq!(span.links(), [own]);
        assert_eq!(span.attribute("messaging.kafka.offset").unwrap(), &number.to_string());
        let failed = span.attribute("error.type").map(|class| class.as_str().unwrap());
        assert_eq!(failed, (number == 7).then_some("invalid"));
        assert!(span.text("startTimeUnixNano") < span.text("endTimeUnixNano"));
    }
    assert_eq!(batch.text("traceId"), seen[&0].headers["tidemill.batch.id"].replace('-', ""));
    assert_eq!(batch.0["kind"], 5, "a consumer's");
    assert_eq!(batch.attribute("messaging.system").unwrap(), "kafka");
    let count = batch.attribute("messaging.batch.message_count").unwrap();
    assert_eq!(count, &records.to_string());
    let inside = |span: &&Span| span.text("parentSpanId") == batch.text("spanId");
    let stages: BTreeSet<&str> = spans.iter().filter(inside).map(Span::name).collect();
    assert_eq!(stages, BTreeSet::from(["commit", "decode", "encode", "infer", "wait"]));
    let load = named(spans, "load lin")[0];
    let steps = spans.iter().filter(|span| span.text("parentSpanId") == load.text("spanId"));
    let steps: BTreeSet<&str> = steps.map(Span::name).collect();
    assert!(steps.contains("gate build") && steps.contains("gate warm_up"), "{steps:?}");
}

#[test]
fn what_is_not_sampled_or_not_valid_goes_through_as_it_came() {
    let Some(collector) = Collector::start() else { return };
    let Some(world) = World::start(1) else { return };
    world.add_version(1);
    world.promote(1);
    let given = [
        Some(parent(0, 0)),
        Some("00-not-a-parent-01".to_owned()),
        Some(parent(2, 0).to_uppercase()),
        None,
    ];
    produce(
        &world,
        given.iter().map(|parent| {
            let headers = parent.iter().map(|parent| ("traceparent", parent.clone()));
            (GOOD, headers.collect::<Vec<_>>())
        }),
    );
    let traces = format!("traces: {{ endpoint: '{}' }}", collector.endpoint());
    let (code, log) = run(&world.config("a", &traces), &[]);
    assert_eq!(code, Some(0), "{log}");
    let seen = by_offset(world.read("out", "read_committed"), "tidemill.source.offset");
    for (number, given) in (0..).zip(&given) {
        assert_eq!(seen[&number].headers.get("traceparent"), given.as_ref(), "{number}");
    }
    let spans = collector.wait_for_spans(7);
    assert!(!named(&spans, "load lin").is_empty(), "the collector was told of the model");
    assert_eq!(named(&spans, "process in").len(), 0);
    // A sampler that is named decides for itself.
    produce(&world, std::iter::once((GOOD, vec![("traceparent", parent(4, 0))])));
    let (code, log) = run(&world.config("a", &traces), &[("OTEL_TRACES_SAMPLER", "always_on")]);
    assert_eq!(code, Some(0), "{log}");
    let spans = collector.wait_for_spans(2 * 7 + 7);
    assert_eq!(named(&spans, "process in").len(), 2, "a record's and a batch's");
}

#[test]
fn a_collector_that_is_away_costs_a_line() {
    let Some(world) = World::start(1) else { return };
    world.add_version(1);
    world.promote(1);
    let config = world.config("a", "batch: { max_records: 10 }");
    // One that refuses, and one that takes the connection and never answers.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let silent = silent.local_addr().unwrap().port();
    for port in [free_port(), silent] {
        produce(&world, (0..100).map(|number| (GOOD, vec![("traceparent", parent(number, 1))])));
        let (code, log) = run(
            &config,
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://127.0.0.1:{port}")),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
                ("OTEL_BSP_SCHEDULE_DELAY", "1"),
            ],
        );
        assert_eq!(code, Some(0), "{log}");
        assert_eq!(log.matches("the collector takes no spans").count(), 1, "{log}");
    }
    assert_eq!(world.outcomes(), crate::world::once(1, 0..200));
}

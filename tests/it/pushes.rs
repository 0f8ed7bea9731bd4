//! Metrics and lines of the log, as a real collector is sent them.

use std::net::TcpListener;

use serde_json::Value;

use crate::collector::{Collector, Span, free_port, run};
use crate::world::{Column, World, wait_for};

const GOOD: &str = r#"{"x":1,"y":2}"#;
/// A record whose sum is no number: the model refuses its batch.
const ENDLESS: &str = r#"{"x":1.7e308,"y":1.7e308}"#;

/// A world whose model adds two columns.
fn adding(world: &World) {
    let column = |name| Column { name, impute: None };
    world.add(2, &[column("x"), column("y")]);
    world.promote(2);
}

/// What stands in lists inside of lists.
fn inside<'a>(value: &'a Value, path: &[&str]) -> Vec<&'a Value> {
    let Some((first, rest)) = path.split_first() else { return vec![value] };
    let items = value[first].as_array().into_iter().flatten();
    items.flat_map(|item| inside(item, rest)).collect()
}

/// The point of a metric that has this label, or none.
fn point(push: &Value, name: &str, label: Option<&str>) -> Value {
    let metrics = inside(push, &["resourceMetrics", "scopeMetrics", "metrics"]);
    let metric = metrics.into_iter().find(|metric| metric["name"] == name);
    let metric = metric.unwrap_or_else(|| panic!("{name} in {push}"));
    let kind = ["sum", "gauge", "histogram"].into_iter().find(|kind| metric[kind].is_object());
    let data = &metric[kind.unwrap()];
    if kind != Some("gauge") {
        assert_eq!(data["aggregationTemporality"], 2, "{name} is cumulative");
    }
    let points = data["dataPoints"].as_array().unwrap();
    let found = points.iter().find(|point| {
        let labels = point["attributes"].as_array().into_iter().flatten();
        labels.map(|label| label["value"]["stringValue"].as_str().unwrap()).next_back() == label
    });
    found.unwrap_or_else(|| panic!("{name} {label:?} in {data}")).clone()
}

fn whole(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn a_collector_is_sent_what_is_scraped_and_logged() {
    let Some(collector) = Collector::start() else { return };
    let Some(first) = World::start(1) else { return };
    let (http, grpc) = (collector.endpoint(), collector.grpc_endpoint());
    for (name, endpoint, protocol, compression) in [
        ("http", &http, "http/protobuf", "none"),
        ("zip", &http, "http/protobuf", "gzip"),
        ("grpc", &grpc, "grpc", "none"),
        ("zrpc", &grpc, "grpc", "gzip"),
    ] {
        let world = first.beside(name, 1, &[]);
        adding(&world);
        let mut values = vec![GOOD; 20];
        values[7] = ENDLESS;
        world.produce(0, &values);
        let config = world.config("a", "batch: { max_records: 10 }");
        let had = ["metrics", "logs"].map(|signal| collector.requests(signal).len());
        let (code, log) = run(
            &config,
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", compression),
                ("OTEL_METRICS_EXPORTER", "otlp"),
                ("OTEL_LOGS_EXPORTER", "console,otlp"),
                ("OTEL_SERVICE_NAME", "reviews"),
            ],
        );
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("the collector takes no"), "{log}");
        let push = wait_for("a push", || collector.requests("metrics").get(had[0]).cloned());
        numbers(&push);
        let lines = wait_for("lines", || {
            let all = collector.requests("logs").split_off(had[1]);
            all.iter().any(|all| all.to_string().contains("batch refused")).then_some(all)
        });
        let of = world.read("out", "read_committed");
        let batch = of[0].headers["tidemill.batch.id"].replace('-', "");
        refusal(&lines, &batch);
        // Every line since then, the last one too.
        let (_, since) = log.split_once("logs are sent").unwrap();
        let since = since.lines().filter(|line| line.contains(" INFO ") || line.contains(" WARN "));
        let since = since.count();
        wait_for("the last line", || {
            let all = collector.requests("logs").split_off(had[1]);
            let lines = all.iter().map(|all| records(all).len());
            (lines.sum::<usize>() == since).then_some(())
        });
    }
}

/// The lines of a request.
fn records(request: &Value) -> Vec<&Value> {
    inside(request, &["resourceLogs", "scopeLogs", "logRecords"])
}

/// 19 predictions and a dead letter of 20 records.
fn numbers(push: &Value) {
    let resource = &push["resourceMetrics"][0]["resource"];
    assert_eq!(Span(resource.clone()).attribute("service.name").unwrap(), "reviews");
    let records = "tidemill_records_total";
    let predictions = point(push, records, Some("prediction"));
    assert_eq!(whole(&predictions["asInt"]), 19);
    assert!(whole(&predictions["startTimeUnixNano"]) < whole(&predictions["timeUnixNano"]));
    assert_eq!(whole(&point(push, records, Some("dead_letter"))["asInt"]), 1);
    assert_eq!(point(push, "tidemill_assigned_partitions", None)["asDouble"], 1);
    let batches = point(push, "tidemill_batch_records", None);
    assert_eq!(batches["sum"], 20);
    let counts = batches["bucketCounts"].as_array().unwrap().iter().map(whole).sum::<u64>();
    assert_eq!(counts, whole(&batches["count"]));
    let bounds = batches["explicitBounds"].as_array().unwrap();
    assert_eq!(bounds.len() + 1, batches["bucketCounts"].as_array().unwrap().len());
}

/// The model refused the batch: a warning in the batch's trace.
fn refusal(requests: &[Value], batch: &str) {
    let lines = requests.iter().flat_map(records);
    let refused: Vec<&Value> =
        lines.filter(|line| line["body"]["stringValue"] == "batch refused").collect();
    let line = refused.first().unwrap();
    assert_eq!((&line["severityNumber"], &line["severityText"]), (&13.into(), &"WARN".into()));
    assert_eq!(line["traceId"], batch);
    assert!(Span((*line).clone()).attribute("rows").is_some(), "{line}");
    assert_ne!(line["timeUnixNano"], "0");
    let scopes = requests.iter().flat_map(|all| inside(all, &["resourceLogs", "scopeLogs"]));
    let names: Vec<&str> = scopes.filter_map(|scope| scope["scope"]["name"].as_str()).collect();
    assert!(names.contains(&"tidemill::engine::submit"), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("tidemill::telemetry::otlp::")), "{names:?}");
}

#[test]
fn a_collector_that_is_away_costs_a_line_for_each_signal() {
    let Some(world) = World::start(1) else { return };
    adding(&world);
    let config = world.config("a", "batch: { max_records: 10 }");
    // One that refuses, and one that takes the connection and never answers.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let silent = silent.local_addr().unwrap().port();
    for (round, port) in (1..).zip([free_port(), silent]) {
        world.produce(0, &[GOOD; 100]);
        let endpoint = format!("http://127.0.0.1:{port}");
        let both = format!("{}, endpoint: '{endpoint}' }}", "logging: { filter: info");
        let text = std::fs::read_to_string(&config).unwrap();
        let named = world.dir.path().join(format!("round{round}.yaml"));
        let metrics = format!("metrics: {{ endpoint: '{endpoint}' }}");
        std::fs::write(&named, format!("{text}{both}\n{metrics}\n")).unwrap();
        let (code, log) = run(
            &named,
            &[
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
                ("OTEL_BLRP_SCHEDULE_DELAY", "1"),
                ("OTEL_METRIC_EXPORT_INTERVAL", "50"),
            ],
        );
        assert_eq!(code, Some(0), "{log}");
        assert_eq!(log.matches("the collector takes no metrics").count(), 1, "{log}");
        assert_eq!(log.matches("the collector takes no lines of the log").count(), 1, "{log}");
        assert!(!log.contains("takes no spans"), "{log}");
        assert_eq!(world.outcomes(), crate::world::once(1, 0..100 * round));
    }
}

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};

use super::*;
use crate::record::{ModelId, Offset, Reason, Version};
use crate::telemetry::metrics;
use crate::telemetry::otlp::collector::Collector;
use crate::telemetry::stage::Stage;

fn settings(endpoint: String) -> Settings {
    Settings {
        collector: Collector::plain(endpoint, Duration::from_millis(200)),
        sampler: Sampler { parent: true, share: 1.0 },
        queue: 10,
        batch: 4,
        delay: Duration::from_secs(60),
    }
}

fn traces(settings: &Settings) -> (Traces, impl Fn(&str) -> u64 + use<>) {
    let recorder = metrics::recorder().unwrap();
    let handle = recorder.handle();
    let metrics = metrics::register(recorder);
    let traces = Traces::with(settings, &Config::default(), &metrics).unwrap();
    let spans = move |result: &str| {
        let name = format!("tidemill_trace_spans_total{{result=\"{result}\"}} ");
        let scrape = handle.render();
        scrape.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    };
    (traces, spans)
}

/// A batch of which so many records are sampled: two spans, and one for each.
fn batch(rows: u8) -> Batch {
    let own = |span| TraceParent { trace: [7; 16], span: [span; 8], flags: 1 };
    let place = Partition { topic: 0, number: 0 };
    let row = |number: u8| Row {
        own: own(number + 1),
        parent: [9; 8],
        state: None,
        place,
        offset: Offset(i64::from(number)),
        arrived: now(),
        tombstone: false,
        class: None,
    };
    Batch {
        own: own(200),
        id: Uuid::now_v7(),
        model: Arc::new(ModelId { name: "m".into(), version: Version(1), digest: "d".into() }),
        reason: Reason::Time,
        records: usize::from(rows),
        tokens: 0,
        how: None,
        topic: None,
        stages: vec![("wait", Stage::new(now(), now()))],
        rows: (0..rows).map(row).collect(),
    }
}

/// A collector that takes all it is sent, and what it was sent.
fn collector() -> (String, Receiver<Vec<u8>>) {
    answering(b"")
}

/// A collector that answers each request with this.
fn answering(body: &'static [u8]) -> (String, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let (sent, bodies) = sync_channel(100);
    let serve = move |mut stream: TcpStream| {
        loop {
            let mut request = Vec::new();
            let mut bytes = [0; 4096];
            let told = loop {
                let Ok(read @ 1..) = stream.read(&mut bytes) else { return };
                request.extend_from_slice(&bytes[..read]);
                let text = String::from_utf8_lossy(&request).to_lowercase();
                let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.split("content-length: ").nth(1).unwrap();
                let length: usize = length.lines().next().unwrap().parse().unwrap();
                let start = head.len() + 4;
                if start + length <= request.len() {
                    break request.split_off(start);
                }
            };
            sent.send(told).unwrap();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(answer.as_bytes()).unwrap();
            stream.write_all(body).unwrap();
        }
    };
    let accept = move || listener.incoming().flatten().for_each(serve);
    drop(std::thread::Builder::new().spawn(accept).unwrap());
    (endpoint, bodies)
}

fn on_one_worker(future: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(1).enable_all().build().unwrap().block_on(future);
}

/// What is told is sent, in requests of the size that is set, and none is left at a stop.
#[test]
fn a_stop_sends_what_is_left() {
    let (endpoint, bodies) = collector();
    let (traces, spans) = traces(&settings(endpoint));
    on_one_worker(async {
        traces.committed(batch(3));
        traces.committed(batch(3));
        traces.flush().await;
    });
    assert_eq!((spans("exported"), spans("failed"), spans("dropped")), (10, 0, 0));
    let bodies: Vec<Vec<u8>> = bodies.try_iter().collect();
    assert_eq!(bodies.len(), 3, "four, four and two");
    let resource = b"tidemill";
    assert!(bodies[0].windows(resource.len()).any(|bytes| bytes == resource));
}

/// A collector that answers with 200 may still have rejected some: `partial_success`. More than it was sent is all of it.
#[test]
fn what_a_collector_rejects_is_not_exported() {
    for (body, exported, rejected) in [
        (&b"\x0a\x02\x08\x01"[..], 7, 3),
        (b"\x0a\x09\x08\xac\x02\x12\x04full", 0, 10),
        (b"\x0a\x06\x12\x04slow", 10, 0),
        (b"not Protobuf", 10, 0),
    ] {
        let (endpoint, _bodies) = answering(body);
        let (traces, spans) = traces(&settings(endpoint));
        on_one_worker(async {
            traces.committed(batch(8));
            traces.flush().await;
        });
        let counted = ["exported", "rejected", "failed", "dropped"].map(&spans);
        assert_eq!(counted, [exported, rejected, 0, 0], "{}", body.escape_ascii());
    }
}

/// What finds no room is counted: of a batch its own spans are kept first. And what nobody takes is counted, without an end
/// that waits for it.
#[test]
fn what_is_lost_is_counted() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (traces, spans) = traces(&settings(format!("http://{}", listener.local_addr().unwrap())));
    on_one_worker(async {
        traces.committed(batch(20));
        assert_eq!(spans("dropped"), 12, "eight of the records found room");
        traces.committed(batch(0));
        assert_eq!(spans("dropped"), 14, "there is none until these are sent");
        traces.flush().await;
    });
    assert_eq!((spans("exported"), spans("failed")), (0, 10));
    traces.committed(batch(1));
    assert_eq!(spans("dropped"), 17, "nobody sends after the stop");
}

/// Nothing is chosen where nobody listens, and no header is touched.
#[test]
fn without_a_collector_nothing_happens() {
    let traces = Traces::default();
    assert!(traces.batch(Uuid::now_v7()).is_none());
    on_one_worker(async {
        traces.committed(batch(1));
        traces.flush().await;
    });
}

/// Whose spans are recorded, by what is set and what the records bear.
#[test]
fn who_decides() {
    let record = |parent: Option<&str>| {
        let value = |parent: &str| crate::record::Header {
            name: b"traceparent".to_vec(),
            value: Some(parent.as_bytes().to_vec()),
        };
        Record {
            partition: Partition { topic: 0, number: 0 },
            offset: Offset(0),
            timestamp: None,
            key: None,
            value: None,
            headers: parent.map(value).into_iter().collect(),
        }
    };
    let (yes, no) = (
        "00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-00",
    );
    let parent = |share| Sampler { parent: true, share };
    let own = |share| Sampler { parent: false, share };
    for (sampler, parents, spans, kept) in [
        (parent(1.0), vec![Some(yes), Some(no), None], 1, true),
        (parent(0.0), vec![Some(yes), Some(no), None], 1, true),
        (parent(1.0), vec![Some(no), None], 0, false),
        (parent(1.0), vec![None, Some("garbage")], 0, true),
        (parent(0.0), vec![None], 0, false),
        (own(1.0), vec![Some(no), Some(yes), None], 2, true),
        (own(0.0), vec![Some(yes)], 0, false),
    ] {
        let settings = Settings { sampler, ..settings("http://127.0.0.1:9".to_owned()) };
        let (traces, _) = traces(&settings);
        let mut chosen = traces.batch(Uuid::now_v7()).unwrap();
        let outcome = Outcome::<()>::Tombstone;
        let row = |parent: Option<&str>| chosen.row(&record(parent), &outcome, now());
        let chosen_spans: Vec<TraceParent> = parents.iter().copied().filter_map(row).collect();
        assert_eq!(chosen_spans.len(), spans, "{sampler:?} {parents:?}");
        for span in chosen_spans {
            let before = TraceParent::read(yes.as_bytes()).unwrap();
            assert_eq!(span.trace, before.trace, "its trace goes on");
            assert!(span.is_sampled() && span.span != before.span);
        }
        assert_eq!(chosen.is_kept(), kept, "{sampler:?} {parents:?}");
    }
}

/// A file that cannot be read is named at the start.
#[test]
fn certificates_are_read_at_the_start() {
    let mut settings = settings("https://127.0.0.1:9/v1/traces".to_owned());
    settings.collector.ca = Some("/nowhere/ca.pem".to_owned());
    let metrics = metrics::register(metrics::recorder().unwrap());
    let failure = Traces::with(&settings, &Config::default(), &metrics).unwrap_err();
    assert!(failure.message.contains("/nowhere/ca.pem cannot be read"), "{failure}");
}

//! Sends one request to a collector and waits for its answer, on the thread that asks.

use std::error::Error;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost_reflect::prost::Message as _;
use tokio::runtime::Runtime;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request as GrpcRequest, Status};
use ureq::http::Request as HttpRequest;

use super::client::Client;
use super::collector::{Collector, Protocol};

/// What is sent at once.
#[derive(Debug)]
pub(in crate::telemetry) enum Push {
    Spans(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
    Logs(ExportLogsServiceRequest),
}

/// What was not taken.
#[derive(Debug, PartialEq)]
pub(in crate::telemetry) struct Refused {
    /// How many spans, data points or lines; `None` is all of them.
    pub(in crate::telemetry) items: Option<usize>,
    pub(in crate::telemetry) why: String,
}

impl Refused {
    fn all(why: impl Into<String>) -> Self {
        Self { items: None, why: why.into() }
    }
}

/// The way to a collector.
#[derive(Debug)]
pub(in crate::telemetry) struct Sender {
    to: Collector,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Http(Client),
    /// With a runtime of its thread's own.
    Grpc(Runtime, Channel, MetadataMap),
}

impl Sender {
    /// Asks nobody. The error names what cannot be used: a file, an address, a header.
    pub(in crate::telemetry) fn new(to: Collector) -> Result<Self, String> {
        let way = match to.protocol {
            Protocol::Http => Way::Http(Client::new(&to)?),
            Protocol::Grpc => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.map_err(|error| error.to_string())?;
                let entered = runtime.enter();
                let endpoint = Endpoint::from_shared(to.endpoint.clone());
                let endpoint = endpoint.map_err(|error| error.to_string())?;
                let channel =
                    endpoint.timeout(to.timeout).connect_timeout(to.timeout).connect_lazy();
                drop(entered);
                Way::Grpc(runtime, channel, metadata(&to)?)
            }
        };
        Ok(Self { to, way })
    }

    /// Sends it, within the collector's time-out.
    pub(in crate::telemetry) fn send(&self, push: Push) -> Result<(), Refused> {
        match &self.way {
            Way::Http(client) => {
                let answer = self.http(client, &push).map_err(Refused::all)?;
                partial(&push, &answer)
            }
            Way::Grpc(runtime, channel, metadata) => {
                let sent = grpc(push, channel.clone(), metadata.clone(), self.to.gzip);
                runtime.block_on(sent).map_err(|status| Refused::all(why(&status)))?
            }
        }
    }

    fn http(&self, client: &Client, push: &Push) -> Result<Vec<u8>, String> {
        let body = match push {
            Push::Spans(request) => request.encode_to_vec(),
            Push::Metrics(request) => request.encode_to_vec(),
            Push::Logs(request) => request.encode_to_vec(),
        };
        let mut request =
            HttpRequest::post(&self.to.endpoint).header("content-type", "application/x-protobuf");
        for (name, value) in &self.to.headers {
            request = request.header(name, value);
        }
        let body = if self.to.gzip {
            request = request.header("content-encoding", "gzip");
            gzip(&body).map_err(|error| error.to_string())?
        } else {
            body
        };
        // A header is refused by its name alone: its value may be a secret.
        let request = request.body(&*body).map_err(|_value| {
            "a name or value in OTEL_EXPORTER_OTLP_HEADERS is not valid in HTTP".to_owned()
        })?;
        let answer = client.send(request).map_err(|error| error.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("it answers {}", answer.status()));
        }
        Ok(answer.into_body())
    }
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

fn metadata(to: &Collector) -> Result<MetadataMap, String> {
    let mut metadata = MetadataMap::new();
    for (name, value) in &to.headers {
        let (Ok(key), Ok(value)) =
            (name.parse::<AsciiMetadataKey>(), value.parse::<AsciiMetadataValue>())
        else {
            return Err(format!(
                "the header {name} in OTEL_EXPORTER_OTLP_HEADERS is not valid in gRPC"
            ));
        };
        metadata.append(key, value);
    }
    Ok(metadata)
}

async fn grpc(
    push: Push,
    channel: Channel,
    metadata: MetadataMap,
    gzip: bool,
) -> Result<Result<(), Refused>, Status> {
    let gzip = gzip.then_some(CompressionEncoding::Gzip);
    match push {
        Push::Spans(body) => {
            let client = TraceServiceClient::new(channel);
            let mut client = gzip.into_iter().fold(client, TraceServiceClient::send_compressed);
            let request = GrpcRequest::from_parts(metadata, tonic::Extensions::default(), body);
            let answer = client.export(request).await?.into_inner();
            Ok(of_spans(answer))
        }
        Push::Metrics(body) => {
            let client = MetricsServiceClient::new(channel);
            let mut client = gzip.into_iter().fold(client, MetricsServiceClient::send_compressed);
            let request = GrpcRequest::from_parts(metadata, tonic::Extensions::default(), body);
            let answer = client.export(request).await?.into_inner();
            Ok(of_metrics(answer))
        }
        Push::Logs(body) => {
            let client = LogsServiceClient::new(channel);
            let mut client = gzip.into_iter().fold(client, LogsServiceClient::send_compressed);
            let request = GrpcRequest::from_parts(metadata, tonic::Extensions::default(), body);
            let answer = client.export(request).await?.into_inner();
            Ok(of_logs(answer))
        }
    }
}

/// Why a call failed. Where no connection came about, the innermost error alone says it.
fn why(status: &Status) -> String {
    let mut inner = status.source();
    while let Some(deeper) = inner.and_then(Error::source) {
        inner = Some(deeper);
    }
    match (inner, status.message()) {
        (Some(inner), _) => inner.to_string(),
        (None, "") => status.code().to_string(),
        (None, message) => format!("{}: {message}", status.code()),
    }
}

/// What a collector that answers well has not taken all the same. An answer that is not protobuf says nothing of it.
fn partial(push: &Push, answer: &[u8]) -> Result<(), Refused> {
    match push {
        Push::Spans(_) => of_spans(ExportTraceServiceResponse::decode(answer).unwrap_or_default()),
        Push::Metrics(_) => {
            of_metrics(ExportMetricsServiceResponse::decode(answer).unwrap_or_default())
        }
        Push::Logs(_) => of_logs(ExportLogsServiceResponse::decode(answer).unwrap_or_default()),
    }
}

fn of_spans(answer: ExportTraceServiceResponse) -> Result<(), Refused> {
    let said = answer.partial_success.unwrap_or_default();
    rejected(said.rejected_spans, said.error_message)
}

fn of_metrics(answer: ExportMetricsServiceResponse) -> Result<(), Refused> {
    let said = answer.partial_success.unwrap_or_default();
    rejected(said.rejected_data_points, said.error_message)
}

fn of_logs(answer: ExportLogsServiceResponse) -> Result<(), Refused> {
    let said = answer.partial_success.unwrap_or_default();
    rejected(said.rejected_log_records, said.error_message)
}

fn rejected(items: i64, why: String) -> Result<(), Refused> {
    match usize::try_from(items) {
        Ok(items @ 1..) => Err(Refused { items: Some(items), why }),
        Ok(0) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::time::Duration;

    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsPartialSuccess;

    use super::*;

    /// Answers one request with `answer` and gives what was asked.
    fn ask(answer: &[u8], gzip: bool) -> (Result<(), Refused>, Vec<u8>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}/v1/logs", listener.local_addr().unwrap());
        let mut to = Collector::plain(url, Duration::from_secs(20));
        to.gzip = gzip;
        to.headers = vec![("authorization".to_owned(), "Bearer a,b".to_owned())];
        let sender = Sender::new(to).unwrap();
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let (mut asked, mut bytes) = (Vec::new(), [0; 4096]);
                while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
                    let read = stream.read(&mut bytes).unwrap();
                    asked.extend_from_slice(&bytes[..read]);
                }
                stream.write_all(answer).unwrap();
                asked
            });
            let sent = sender.send(Push::Logs(ExportLogsServiceRequest::default()));
            (sent, asked.join().unwrap())
        })
    }

    fn http(status: &str, body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    #[test]
    fn what_a_collector_did_not_take_is_said() {
        let (sent, asked) = ask(&http("200 OK", b""), true);
        assert_eq!(sent, Ok(()));
        let asked = String::from_utf8_lossy(&asked).to_lowercase();
        for header in [
            "content-type: application/x-protobuf",
            "authorization: bearer a,b",
            "content-encoding: gzip",
        ] {
            assert!(asked.contains(&format!("\r\n{header}\r\n")), "{header} in {asked}");
        }
        let partial = ExportLogsPartialSuccess {
            rejected_log_records: 3,
            error_message: "too old".to_owned(),
        };
        let partial = ExportLogsServiceResponse { partial_success: Some(partial) };
        let (sent, _) = ask(&http("200 OK", &partial.encode_to_vec()), false);
        assert_eq!(sent, Err(Refused { items: Some(3), why: "too old".to_owned() }));
        let (sent, _) = ask(&http("404 Not Found", b"no such page"), false);
        assert_eq!(sent, Err(Refused::all("it answers 404 Not Found")));
        let (sent, _) = ask(&http("200 OK", b"no protobuf"), false);
        assert_eq!(sent, Ok(()), "it says that it took it");
    }
}

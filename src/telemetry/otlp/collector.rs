//! What the standard `OTEL_*` variables say of a collector, for each signal.
//!
//! Traces are sent where `OTEL_EXPORTER_OTLP_ENDPOINT` alone is set, because nothing else has them. Metrics and the log have a
//! place without it, `/metrics` and stderr, and so they are sent only where something asks for just them.

use std::fmt;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::config::collector_address;
use crate::failure::{Exit, Failure};

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::telemetry) enum Signal {
    /// Spans.
    Traces,
    /// Numbers.
    Metrics,
    /// Lines of the log.
    Logs,
}

impl Signal {
    /// The key of the configuration.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Traces => "traces.endpoint",
            Self::Metrics => "metrics.endpoint",
            Self::Logs => "logging.endpoint",
        }
    }

    /// The variable that limits how long one request may take, beside the collector's.
    fn limit(self) -> &'static str {
        match self {
            Self::Traces => "OTEL_BSP_EXPORT_TIMEOUT",
            Self::Metrics => "OTEL_METRIC_EXPORT_TIMEOUT",
            Self::Logs => "OTEL_BLRP_EXPORT_TIMEOUT",
        }
    }

    fn variables(self) -> String {
        self.to_string().to_uppercase()
    }
}

/// As OTLP's paths have it.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        })
    }
}

/// How something is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::telemetry) enum Protocol {
    /// HTTP with protobuf.
    Http,
    /// gRPC, without TLS.
    Grpc,
}

/// Where something is sent, and how.
#[derive(Clone, PartialEq)]
pub(in crate::telemetry) struct Collector {
    /// The whole address.
    pub(in crate::telemetry) endpoint: String,
    pub(in crate::telemetry) protocol: Protocol,
    /// Longest that one request may take.
    pub(in crate::telemetry) timeout: Duration,
    /// Whether requests are compressed with gzip.
    pub(super) gzip: bool,
    /// Names and values, which may be secrets.
    pub(super) headers: Vec<(String, String)>,
    /// Files in PEM: whom to believe, and who is sending.
    pub(in crate::telemetry) ca: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
}

/// Never the values of headers.
impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, protocol, timeout, headers, .. } = self;
        let headers = headers.len();
        write!(f, "Collector({endpoint} {protocol:?} {timeout:?} headers: {headers})")
    }
}

impl Collector {
    /// `None`: nothing names one for `signal`, or it is turned off. `configured` is the configuration's address.
    ///
    /// # Errors
    ///
    /// An address that is none, by the variable that gives it. Other values that cannot be read are said in the log, and
    /// the default stands in for them, as OpenTelemetry has it.
    pub(in crate::telemetry) fn read(
        set: &impl Fn(&str) -> Option<String>,
        signal: Signal,
        configured: Option<&str>,
    ) -> Result<Option<Self>, Failure> {
        if set("OTEL_SDK_DISABLED").is_some_and(|set| set.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        // What is said of a signal is heard before what is said of all of them.
        let name = |name: &str| format!("OTEL_EXPORTER_OTLP_{}_{name}", signal.variables());
        let all = |name: &str| format!("OTEL_EXPORTER_OTLP_{name}");
        let otlp = |option: &str| set(&name(option)).or_else(|| set(&all(option)));
        let protocol = Protocol::of(otlp("PROTOCOL").as_deref());
        let whole = set(&name("ENDPOINT")).map(|url| (name("ENDPOINT"), url));
        let own = whole.is_some() || configured.is_some();
        let exporters = set(&format!("OTEL_{}_EXPORTER", signal.variables()));
        let asked = exporters.as_ref().map(|names| names.split(',').any(|it| it.trim() == "otlp"));
        let base = || set(&all("ENDPOINT")).map(|url| (all("ENDPOINT"), url));
        let key = || configured.map(|url| (signal.key().to_owned(), url.to_owned()));
        let usual = || asked.map(|_| ("OpenTelemetry".to_owned(), protocol.usual().to_owned()));
        let base =
            || base().or_else(key).or_else(usual).map(|(by, url)| (by, protocol.at(signal, &url)));
        let wanted = asked.unwrap_or(own || signal == Signal::Traces);
        let Some((by, endpoint)) = whole.or_else(base).filter(|_| wanted) else { return Ok(None) };
        let failure = |message| Failure { message, exit: Exit::Config };
        collector_address(&endpoint).map_err(|(why, remedy)| {
            failure(format!("send {signal} to the address in {by}: it {why}; {remedy}"))
        })?;
        if protocol == Protocol::Grpc && endpoint.starts_with("https:") {
            return Err(failure(format!(
                "send {signal} to {endpoint}: over gRPC they are sent without TLS only; set \
                 OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf and the collector's port for HTTP, 4318"
            )));
        }
        let limit = if set(&name("TIMEOUT")).is_some() { name("TIMEOUT") } else { all("TIMEOUT") };
        let timeout: u64 = number(set, &limit, 10_000);
        Ok(Some(Self {
            endpoint,
            protocol,
            timeout: Duration::from_millis(timeout.min(number(set, signal.limit(), 30_000))),
            gzip: otlp("COMPRESSION").is_some_and(|name| gzip(&name)),
            headers: otlp("HEADERS").map_or_else(Vec::new, |text| headers(&text)),
            ca: otlp("CERTIFICATE"),
            certificate: otlp("CLIENT_CERTIFICATE"),
            key: otlp("CLIENT_KEY"),
        }))
    }
}

impl Protocol {
    fn of(name: Option<&str>) -> Self {
        match name {
            None | Some("http/protobuf") => Self::Http,
            Some("grpc") => Self::Grpc,
            Some(other) => {
                tracing::warn!(
                    "OTEL_EXPORTER_OTLP_PROTOCOL is {other:?}, which is not spoken here: http/protobuf is used"
                );
                Self::Http
            }
        }
    }

    /// Where a collector takes `signal`, whose address is `base`.
    fn at(self, signal: Signal, base: &str) -> String {
        match self {
            Self::Http => format!("{}/v1/{signal}", base.trim_end_matches('/')),
            Self::Grpc => base.to_owned(),
        }
    }

    /// OpenTelemetry's default, where OTLP is asked for without an address.
    fn usual(self) -> &'static str {
        match self {
            Self::Http => "http://localhost:4318",
            Self::Grpc => "http://localhost:4317",
        }
    }
}

/// Whether `OTEL_EXPORTER_OTLP_COMPRESSION` asks for it.
fn gzip(name: &str) -> bool {
    if !matches!(name, "" | "gzip" | "none") {
        tracing::warn!(
            "OTEL_EXPORTER_OTLP_COMPRESSION is {name:?}, which is neither gzip nor none: nothing is compressed"
        );
    }
    name == "gzip"
}

/// A variable's whole number above 0. One that is none is said in the log, and the default stands in for it.
pub(in crate::telemetry) fn number<N: std::str::FromStr + fmt::Display + PartialOrd + From<u8>>(
    set: &impl Fn(&str) -> Option<String>,
    name: &str,
    default: N,
) -> N {
    let Some(text) = set(name) else { return default };
    if let Some(number) = text.parse().ok().filter(|number| N::from(1) <= *number) {
        return number;
    }
    tracing::warn!("{name} is {text:?}, which is no whole number above 0: {default} is used");
    default
}

/// `name=value,…`, values percent-encoded. What is no header is left out.
fn headers(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let read = pairs.filter_map(|pair| {
        let read = pair.split_once('=').and_then(|(name, value)| {
            let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
            Some((name.trim().to_ascii_lowercase(), value.into_owned()))
        });
        if read.is_none() {
            // Not what it says, which is a secret.
            tracing::warn!(
                "OTEL_EXPORTER_OTLP_HEADERS has a part that is not name=value with a percent-encoded value: it is left out"
            );
        }
        read
    });
    read.collect()
}

#[cfg(test)]
impl Collector {
    /// One over plain HTTP.
    pub(in crate::telemetry) fn plain(endpoint: String, timeout: Duration) -> Self {
        let (protocol, gzip, headers) = (Protocol::Http, false, Vec::new());
        let (ca, certificate, key) = (None, None, None);
        Self { endpoint, protocol, timeout, gzip, headers, ca, certificate, key }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        signal: Signal,
        variables: &[(&str, &str)],
        key: Option<&str>,
    ) -> Result<Option<Collector>, String> {
        let set = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Collector::read(&set, signal, key).map_err(|failure| failure.message)
    }

    #[test]
    fn a_signal_is_sent_where_it_is_asked_for() {
        use Signal::{Logs, Metrics, Traces};
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318/");
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://b/x");
        let metrics = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://b/x");
        let exporter = |signal: Signal| match signal {
            Traces => "OTEL_TRACES_EXPORTER",
            Metrics => "OTEL_METRICS_EXPORTER",
            Logs => "OTEL_LOGS_EXPORTER",
        };
        let (key, off) = (Some("http://c:1"), "OTEL_SDK_DISABLED");
        for (signal, variables, key, expect) in [
            (Traces, vec![], None, None),
            (Traces, vec![], key, Some("http://c:1/v1/traces")),
            (Traces, vec![all], key, Some("http://a:4318/v1/traces")),
            (Traces, vec![all, traces], None, Some("https://b/x")),
            (Traces, vec![all, (off, "TRUE")], None, None),
            (Traces, vec![all, (off, "1")], None, Some("http://a:4318/v1/traces")),
            (Traces, vec![all, (exporter(Traces), "none")], None, None),
            (
                Traces,
                vec![(exporter(Traces), "otlp")],
                None,
                Some("http://localhost:4318/v1/traces"),
            ),
            // The address of all signals alone is for traces.
            (Metrics, vec![all], None, None),
            (Logs, vec![all, metrics], None, None),
            (Metrics, vec![all, metrics], None, Some("https://b/x")),
            (
                Metrics,
                vec![all, (exporter(Metrics), "otlp")],
                None,
                Some("http://a:4318/v1/metrics"),
            ),
            (Metrics, vec![metrics, (exporter(Metrics), "prometheus")], key, None),
            (Metrics, vec![], key, Some("http://c:1/v1/metrics")),
            (Logs, vec![all], key, Some("http://a:4318/v1/logs")),
            (Logs, vec![(exporter(Logs), "console, otlp")], key, Some("http://c:1/v1/logs")),
            (Logs, vec![(off, "true")], key, None),
        ] {
            let read = read(signal, &variables, key).unwrap().map(|settings| settings.endpoint);
            assert_eq!(read.as_deref(), expect, "{signal} {variables:?} {key:?}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_refused_by_its_name_and_never_shown() {
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let read = |variables: &[(&str, &str)]| read(Signal::Traces, variables, None);
        let plain = read(&[grpc, ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317")]);
        assert_eq!(plain.unwrap().unwrap().endpoint, "http://a:4317");
        let said = read(&[grpc, ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://a:4317")]);
        assert!(said.unwrap_err().contains("without TLS only"));
        for url in [
            "a:4318",
            "http://",
            "http:///x",
            "grpc://a",
            "http://u:secret@a",
            "secret",
            "http://a:4318/x?api_key=secret",
            "http://a?secret",
            "https://a/#secret",
        ] {
            for name in ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] {
                for protocol in [grpc, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")] {
                    let said = read(&[(name, url), protocol]).unwrap_err();
                    let begin = format!("send traces to the address in {name}: it ");
                    assert!(said.starts_with(&begin), "{said}");
                    assert!(!said.contains("secret"), "{said}");
                }
            }
        }
    }

    #[test]
    fn variables_are_heard_and_wrong_ones_are_not() {
        let with = |variables: &[(&str, &str)]| {
            read(Signal::Logs, variables, Some("http://c")).unwrap().unwrap()
        };
        let default = with(&[]);
        assert_eq!(default.timeout, Duration::from_secs(10));
        let heard = with(&[
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "300"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20a%2Cb, broken ,x-y=1=2"),
        ]);
        assert_eq!(heard.timeout, Duration::from_millis(300));
        assert_eq!(heard.ca.as_deref(), Some("ca.pem"));
        assert!(heard.gzip);
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(heard.headers, [header("authorization", "Bearer a,b"), header("x-y", "1=2")]);
        assert!(!format!("{heard:?}").contains("Bearer"));
        let wrong = with(&[
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_BLRP_EXPORT_TIMEOUT", "0"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ]);
        assert_eq!(wrong, default);
    }
}

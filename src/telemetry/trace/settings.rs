//! What the standard `OTEL_*` variables say of traces. What is not set has OpenTelemetry's default, but for the queue.

use std::time::Duration;

use crate::failure::{Exit, Failure};

/// How spans are chosen, kept and sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    /// The whole address.
    pub(super) endpoint: String,
    pub(super) protocol: Protocol,
    pub(super) sampler: Sampler,
    /// Most spans that wait to be sent.
    pub(super) queue: usize,
    /// Most spans of one request.
    pub(super) batch: usize,
    /// How long spans wait for company.
    pub(super) delay: Duration,
    /// Longest that one request may take.
    pub(super) timeout: Duration,
    /// Files in PEM: whom to believe, and who is sending.
    pub(super) ca: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
}

/// How spans are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP with protobuf.
    Http,
    /// gRPC, without TLS.
    Grpc,
}

/// Which spans are recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sampler {
    /// Whether what began a trace decides for all of it.
    pub(super) parent: bool,
    /// For traces that begin here, and for all where parents do not decide: the share that is recorded.
    pub(super) share: f64,
}

impl Sampler {
    /// The names of the variable, with what they mean; `None` is the variable's argument.
    const NAMES: [(&'static str, bool, Option<f64>); 6] = [
        ("always_on", false, Some(1.0)),
        ("always_off", false, Some(0.0)),
        ("traceidratio", false, None),
        ("parentbased_always_on", true, Some(1.0)),
        ("parentbased_always_off", true, Some(0.0)),
        ("parentbased_traceidratio", true, None),
    ];

    /// Whether a trace that nobody has decided about is recorded: by the last 56 bits of its id, which are the random ones.
    pub(super) fn takes(self, trace: [u8; 16]) -> bool {
        // A float holds 53 of them.
        let random = (u128::from_be_bytes(trace) & ((1 << 56) - 1)) >> 3;
        #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
        let place = random as f64 / (1_u64 << 53) as f64;
        place < self.share
    }
}

/// The queue where no variable says: a transaction of several full batches, every record of them sampled.
const QUEUE: usize = 32_768;

impl Settings {
    /// `None`: nothing names a collector, or traces are turned off. `endpoint` is the configuration's.
    ///
    /// # Errors
    ///
    /// An address that is none, by the variable that gives it. Other values that cannot be read are said in the log, and
    /// the default stands in for them, as OpenTelemetry has it.
    pub(super) fn read(
        variable: impl Fn(&str) -> Option<String>,
        endpoint: Option<&str>,
    ) -> Result<Option<Self>, Failure> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let says =
            |name: &str, word: &str| set(name).is_some_and(|set| set.eq_ignore_ascii_case(word));
        if says("OTEL_SDK_DISABLED", "true") || says("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        // What is said of traces is heard before what is said of all signals.
        let otlp = |name: &str| {
            let all = || set(&format!("OTEL_EXPORTER_OTLP_{name}"));
            set(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}")).or_else(all)
        };
        let protocol = Protocol::of(otlp("PROTOCOL").as_deref());
        let whole = set(TRACES_ENDPOINT).map(|url| (TRACES_ENDPOINT, url));
        let base = || set(ENDPOINT).map(|url| (ENDPOINT, url));
        let configured = || endpoint.map(|url| ("traces.endpoint", url.to_owned()));
        let base = || base().or_else(configured).map(|(name, url)| (name, protocol.at(&url)));
        let Some((name, endpoint)) = whole.or_else(base) else { return Ok(None) };
        address(name, &endpoint)?;
        if protocol == Protocol::Grpc && endpoint.starts_with("https:") {
            let message = format!(
                "send traces to {endpoint}: over gRPC they are sent without TLS only; set \
                 OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf and the collector's port for HTTP, 4318"
            );
            return Err(Failure { message, exit: Exit::Config });
        }
        let number = |name: &str, default: u64| match set(name).map(|text| (text.parse(), text)) {
            None => default,
            Some((Ok(number @ 1..), _)) => number,
            Some((_, text)) => {
                tracing::warn!(
                    "{name} is {text:?}, which is no whole number above 0: {default} is used"
                );
                default
            }
        };
        let count = |name, default: usize| {
            let default = u64::try_from(default).unwrap_or(u64::MAX);
            usize::try_from(number(name, default)).unwrap_or(usize::MAX)
        };
        let limit = "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT";
        let limit = if set(limit).is_some() { limit } else { "OTEL_EXPORTER_OTLP_TIMEOUT" };
        let queue = count("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE);
        Ok(Some(Self {
            endpoint,
            protocol,
            sampler: sampler(&set),
            queue,
            batch: count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512).min(queue),
            delay: Duration::from_millis(number("OTEL_BSP_SCHEDULE_DELAY", 5_000)),
            timeout: Duration::from_millis(
                number(limit, 10_000).min(number("OTEL_BSP_EXPORT_TIMEOUT", 30_000)),
            ),
            ca: otlp("CERTIFICATE"),
            certificate: otlp("CLIENT_CERTIFICATE"),
            key: otlp("CLIENT_KEY"),
        }))
    }
}

const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

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

    /// Where a collector takes traces, whose address is `base`.
    fn at(self, base: &str) -> String {
        match self {
            Self::Http => format!("{}/v1/traces", base.trim_end_matches('/')),
            Self::Grpc => base.to_owned(),
        }
    }
}

/// A missing scheme would mean https to some and http to others.
fn address(name: &str, url: &str) -> Result<(), Failure> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    if rest.is_some_and(|host| !host.is_empty() && !host.starts_with('/')) {
        return Ok(());
    }
    let message = format!(
        "send traces to {url:?}: {name} does not begin with http:// or https:// and a host; write http://HOST:4318"
    );
    Err(Failure { message, exit: Exit::Config })
}

fn sampler(set: &impl Fn(&str) -> Option<String>) -> Sampler {
    let default = Sampler { parent: true, share: 1.0 };
    let Some(name) = set("OTEL_TRACES_SAMPLER") else { return default };
    let Some((_, parent, share)) = Sampler::NAMES.into_iter().find(|(known, ..)| *known == name)
    else {
        tracing::warn!(
            "OTEL_TRACES_SAMPLER is {name:?}, which is not known here: parentbased_always_on is used"
        );
        return default;
    };
    let share = share.unwrap_or_else(|| {
        let argument = set("OTEL_TRACES_SAMPLER_ARG");
        let read = argument.as_ref().and_then(|text| text.parse().ok());
        let share = read.filter(|share| (0.0..=1.0).contains(share));
        if share.is_none() && argument.is_some() {
            let argument = argument.unwrap_or_default();
            tracing::warn!(
                "OTEL_TRACES_SAMPLER_ARG is {argument:?}, which is no number from 0 to 1: 1 is used"
            );
        }
        share.unwrap_or(1.0)
    });
    Sampler { parent, share }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)], key: Option<&str>) -> Result<Option<Settings>, String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Settings::read(variable, key).map_err(|failure| failure.message)
    }

    #[test]
    fn a_collector_is_named_or_there_are_no_traces() {
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318/");
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://b/x");
        for (variables, key, expect) in [
            (vec![], None, None),
            (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "")], None, None),
            (vec![], Some("http://c:1"), Some("http://c:1/v1/traces")),
            (vec![all], Some("http://c:1"), Some("http://a:4318/v1/traces")),
            (vec![all, traces], None, Some("https://b/x")),
            (vec![all, ("OTEL_SDK_DISABLED", "TRUE")], None, None),
            (vec![all, ("OTEL_SDK_DISABLED", "1")], None, Some("http://a:4318/v1/traces")),
            (vec![all, ("OTEL_TRACES_EXPORTER", "none")], None, None),
        ] {
            let read = read(&variables, key).unwrap().map(|settings| settings.endpoint);
            assert_eq!(read.as_deref(), expect, "{variables:?} {key:?}");
        }
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let plain = read(&[grpc, ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317")], None);
        assert_eq!(plain.unwrap().unwrap().endpoint, "http://a:4317");
        let said = read(&[grpc, ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://a:4317")], None);
        assert!(said.unwrap_err().contains("without TLS only"));
        for url in ["a:4318", "http://", "http:///x", "grpc://a"] {
            let said = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", url)], None).unwrap_err();
            assert!(
                said.contains("OTEL_EXPORTER_OTLP_ENDPOINT does not begin with http://"),
                "{said}"
            );
        }
    }

    #[test]
    fn variables_are_heard_and_wrong_ones_are_not() {
        let with = |variables: &[(&str, &str)]| read(variables, Some("http://c")).unwrap().unwrap();
        let default = with(&[]);
        assert_eq!((default.queue, default.batch), (32_768, 512));
        assert_eq!(default.sampler, Sampler { parent: true, share: 1.0 });
        let heard = with(&[
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "300"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ]);
        assert_eq!((heard.queue, heard.batch), (100, 100));
        assert_eq!(heard.delay, Duration::from_millis(20));
        assert_eq!(heard.timeout, Duration::from_millis(300));
        assert_eq!(heard.ca.as_deref(), Some("ca.pem"));
        assert_eq!(heard.sampler, Sampler { parent: false, share: 0.25 });
        let wrong = with(&[
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ]);
        assert_eq!(wrong, default);
        let ratio = with(&[
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ]);
        assert_eq!(ratio.sampler, Sampler { parent: true, share: 1.0 });
    }

    #[test]
    fn a_share_of_traces_is_taken() {
        let trace = |random: u128| ((7_u128 << 100) | random).to_be_bytes();
        for (share, random, taken) in [
            (0.0, 0, false),
            (1.0, (1 << 56) - 1, true),
            (0.5, (1 << 55) - 1, true),
            (0.5, 1 << 55, false),
        ] {
            let sampler = Sampler { parent: false, share };
            assert_eq!(sampler.takes(trace(random)), taken, "{share} {random:x}");
        }
    }
}

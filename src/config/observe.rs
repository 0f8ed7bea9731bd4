//! How the service is watched: probes, metrics and the log.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Probes and metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address and port.
    pub listen: SocketAddr,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([0, 0, 0, 0], 8080)) }
    }
}

/// Where spans of traces are sent. OpenTelemetry's own variables (`OTEL_*`) come before this.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traces {
    /// A collector's address for OTLP: `http://otel-collector:4318`. Without one there are no traces.
    pub endpoint: Option<String>,
}

/// Where metrics are pushed, beside `/metrics`. OpenTelemetry's own variables (`OTEL_*`) come before this.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// A collector's address for OTLP: `http://otel-collector:4318`. Without one they are only scraped.
    pub endpoint: Option<String>,
}

/// Whether requests can be sent to a collector at `url`; else what is wrong with it, for a sentence that begins with the
/// address's name, and what to do. The address is not quoted: it may hold a secret.
///
/// # Errors
///
/// A scheme that is missing or not HTTP's, which would mean https to some and http to others; no host; a user before it; a query
/// or a fragment.
pub fn collector_address(url: &str) -> Result<(), (&'static str, &'static str)> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    if host.is_empty() {
        return Err((
            "does not begin with http:// or https:// and a host",
            "write http://HOST:4318",
        ));
    }
    if host.contains('@') {
        return Err((
            "has a user before its host, which would be shown with it",
            "write `authorization=…` into the variable OTEL_EXPORTER_OTLP_HEADERS",
        ));
    }
    if url.contains(['?', '#']) {
        return Err((
            "has a query or a fragment, before which no path can be added, and which would be shown with it",
            "write a token into the variable OTEL_EXPORTER_OTLP_HEADERS (`api-key=…`)",
        ));
    }
    Ok(())
}

/// What an operator may do to a service that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address and port.
    pub listen: SocketAddr,
    /// The tokens that are let in. Nothing listens without one.
    pub token_file: Option<PathBuf>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8081)), token_file: None }
    }
}

/// The log on stderr.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logging {
    /// `text` or `json`.
    pub format: LogFormat,
    /// As in `RUST_LOG`: `info`, `tidemill=debug,rdkafka=info`.
    pub filter: String,
    /// A collector's address for OTLP, to which lines are sent beside stderr. OpenTelemetry's own variables come before it.
    pub endpoint: Option<String>,
}

impl Default for Logging {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned(), endpoint: None }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors.
    Json,
}

//! `/livez`, `/readyz`, `/metrics`, and `/` that says where they are.
//!
//! Alive does not depend on the broker: a restart would not bring it back. Ready means that partitions are
//! ours, a model is warm, and nothing has stopped the service.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::failure::{Exit, Failure};
use crate::record::ModelId;
use crate::telemetry::Telemetry;

mod connections;

/// What the probes answer from. Written by the engine, read by HTTP.
#[derive(Debug, Default)]
pub struct Health(Mutex<Facts>);

/// The facts behind the answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Partitions that are ours; `None` before the first assignment.
    pub assigned: Option<usize>,
    /// The version that serves.
    pub model: Option<ModelId>,
    /// Why the service does not go on.
    pub stopped: Option<String>,
    /// The version that did not pass the gate, and why. The serving one goes on: no reason to be unready.
    pub refused: Option<String>,
    /// Where HTTP listens.
    pub listening: Option<SocketAddr>,
    /// Since when the cluster has not answered.
    pub unreachable: Option<Instant>,
    /// Why this process is not a member of its group.
    pub outside: Option<String>,
}

/// A cluster may be away for so long before the service counts as not ready.
const OUTAGE: Duration = Duration::from_secs(60);

impl Health {
    /// A copy of the facts.
    pub fn facts(&self) -> Facts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// So many partitions are ours.
    pub fn set_assigned(&self, partitions: usize) {
        self.change(|facts| facts.assigned = Some(partitions));
    }

    /// This version serves.
    pub fn set_model(&self, model: Option<ModelId>) {
        self.change(|facts| facts.model = model);
    }

    /// The service does not go on, and why.
    pub fn set_stopped(&self, reason: Option<String>) {
        self.change(|facts| facts.stopped = reason);
    }

    /// A version was refused, or the last refusal is over.
    pub fn set_refused(&self, why: Option<String>) {
        self.change(|facts| facts.refused = why);
    }

    /// HTTP listens here.
    pub fn set_listening(&self, address: SocketAddr) {
        self.change(|facts| facts.listening = Some(address));
    }

    /// Why this process is not a member of its group; `None` where it is one.
    pub fn set_outside(&self, why: Option<String>) {
        self.change(|facts| facts.outside = why);
    }

    /// Whether the cluster answers, as seen at `now`.
    pub fn set_reachable(&self, reachable: bool, now: Instant) {
        self.change(|facts| {
            facts.unreachable = if reachable { None } else { facts.unreachable.or(Some(now)) };
        });
    }

    /// Why the service is not ready at `now`; nothing if it is.
    pub fn unready(&self, now: Instant) -> Vec<String> {
        let Facts { assigned, model, stopped, unreachable, outside, .. } = self.facts();
        let mut reasons = Vec::new();
        if assigned.is_none() {
            reasons.push("the group has not assigned partitions yet".to_owned());
        }
        if model.is_none() {
            reasons.push("no model is loaded".to_owned());
        }
        reasons.extend(stopped);
        reasons.extend(outside);
        let away = unreachable.map(|since| now.duration_since(since));
        reasons.extend(away.filter(|away| OUTAGE <= *away).map(|away| {
            format!("no broker has answered for {} s; look at the cluster", away.as_secs())
        }));
        reasons
    }
}

/// Takes the port.
///
/// # Errors
///
/// When it is not to be had, with the address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| Failure {
        message: format!("listen on http.listen = {address}: {error}; choose another port"),
        exit: Exit::Config,
    })
}

#[derive(Clone)]
struct App {
    health: Arc<Health>,
    telemetry: Telemetry,
}

/// Answers until stopped. Whoever can reach the port can open connections: `connections` says what bounds them.
pub async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    telemetry: Telemetry,
    stop: CancellationToken,
) {
    if let Ok(address) = listener.local_addr() {
        health.set_listening(address);
        tracing::info!(%address, "listening: /livez /readyz /metrics");
    }
    let app = axum::Router::new()
        .route("/", get(index))
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .with_state(App { health, telemetry });
    connections::serve(listener, app, stop).await;
}

async fn index(State(app): State<App>) -> impl IntoResponse {
    let facts = app.health.facts();
    let model = facts.model.map_or_else(|| "none yet".to_owned(), |model| model.to_string());
    format!(
        "tidemill {}\nmodel: {model}\npartitions: {}\n/livez /readyz /metrics\n",
        env!("CARGO_PKG_VERSION"),
        facts.assigned.unwrap_or(0)
    )
}

async fn ready(State(app): State<App>) -> Response {
    #[expect(clippy::disallowed_methods, reason = "a probe asks how long something has lasted")]
    let reasons = app.health.unready(Instant::now());
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    let body = serde_json::json!({ "ready": false, "reasons": reasons }).to_string();
    let json = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::SERVICE_UNAVAILABLE, json, body).into_response()
}

async fn scrape(State(app): State<App>) -> impl IntoResponse {
    let text = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (text, app.telemetry.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_wants_partitions_a_model_a_cluster_and_no_stop() {
        #[expect(clippy::disallowed_methods, reason = "a test needs one arbitrary instant")]
        let start = Instant::now();
        let health = Health::default();
        assert_eq!(health.unready(start).len(), 2);
        health.set_assigned(0);
        health.set_model(Some(ModelId {
            name: "m".into(),
            version: crate::record::Version(1),
            digest: "d".into(),
        }));
        let ready = |after: u64| health.unready(start + Duration::from_secs(after));
        assert!(ready(0).is_empty(), "a member without partitions is a warm standby");
        health.set_reachable(false, start);
        health.set_reachable(false, start + Duration::from_secs(50));
        assert!(ready(59).is_empty(), "an outage may be short");
        assert!(ready(75)[0].contains("no broker has answered for 75 s"), "{:?}", ready(75));
        health.set_reachable(true, start);
        assert!(ready(75).is_empty());
        health.set_stopped(Some("too many dead letters".to_owned()));
        assert_eq!(ready(0), ["too many dead letters"]);
    }
}

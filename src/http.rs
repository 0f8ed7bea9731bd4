//! `/livez`, `/readyz`, `/metrics`, and `/` that says where they are.
//!
//! Alive does not depend on the broker: a restart would not bring it back. Ready means that partitions are
//! ours, a model is warm, and nothing has stopped the service.

use std::net::SocketAddr;
use std::time::Instant;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::failure::{Exit, Failure};
use crate::status::Board;
use crate::telemetry::Telemetry;

mod connections;

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
    status: Board,
    telemetry: Telemetry,
}

/// Answers until stopped. Whoever can reach the port can open connections: `connections` says what bounds them.
pub async fn serve(
    listener: TcpListener,
    status: Board,
    telemetry: Telemetry,
    stop: CancellationToken,
) {
    if let Ok(address) = listener.local_addr() {
        status.change(|status| status.listening = Some(address));
        tracing::info!(%address, "listening: /livez /readyz /metrics");
    }
    let app = axum::Router::new()
        .route("/", get(index))
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .with_state(App { status, telemetry });
    connections::serve(listener, app, stop).await;
}

async fn index(State(app): State<App>) -> impl IntoResponse {
    let status = app.status.now();
    let model = status.serving.as_ref().map_or_else(|| "none yet".to_owned(), ToString::to_string);
    format!(
        "tidemill {}\nmodel: {model}\npartitions: {}\n/livez /readyz /metrics\n",
        env!("CARGO_PKG_VERSION"),
        status.assigned.unwrap_or(0)
    )
}

async fn ready(State(app): State<App>) -> Response {
    #[expect(clippy::disallowed_methods, reason = "a probe asks how long something has lasted")]
    let reasons = app.status.now().unready(Instant::now());
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

//! `/livez`, `/readyz`, `/metrics`, `/api/status`, and `/`, the page that shows it.
//!
//! Alive does not depend on the broker: a restart would not bring it back. Ready means that partitions are
//! ours, a model is warm, and nothing has stopped the service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::failure::{Exit, Failure};
use crate::status::Board;
use crate::telemetry::Telemetry;

pub mod about;
pub mod connections;
mod page;
pub mod report;

use about::About;
use page::Page;
use report::{PARTITIONS, Report};

/// Takes the port that the key `name` of the configuration gives.
///
/// # Errors
///
/// When it is not to be had, with the address.
pub async fn bind(name: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| Failure {
        message: format!("listen on {name} = {address}: {error}; choose another port"),
        exit: Exit::Config,
    })
}

#[derive(Clone)]
struct App {
    status: Board,
    telemetry: Telemetry,
    about: Arc<About>,
    page: Arc<Page>,
}

/// Answers until stopped. Whoever can reach the port can open connections: `connections` says what bounds them.
pub async fn serve(
    listener: TcpListener,
    about: About,
    status: Board,
    telemetry: Telemetry,
    stop: CancellationToken,
) {
    if let Ok(address) = listener.local_addr() {
        status.change(|status| status.listening = Some(address));
        tracing::info!(%address, "listening: / /api/status /livez /readyz /metrics");
    }
    let app = App { status, telemetry, about: Arc::new(about), page: Arc::new(Page::new()) };
    let router = axum::Router::new()
        .route("/", get(index))
        .route("/api/status", get(api))
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .with_state(app);
    connections::serve(listener, router, stop).await;
}

#[expect(
    clippy::disallowed_methods,
    reason = "who asks wants to know how long something has lasted"
)]
fn now() -> Instant {
    Instant::now()
}

impl App {
    fn report(&self) -> Report {
        let now = now();
        Report::new(&self.about, &self.status.now(), &self.status.hour(now, PARTITIONS), now)
    }
}

/// What no answer is without: it is not kept, not guessed at, and tells nobody where it was read.
const PLAIN: [(HeaderName, &str); 3] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// The page for a browser, a few lines for whoever asks without one.
async fn index(State(app): State<App>, headers: HeaderMap) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|accepts| accepts.to_str().ok());
    if accepts.is_some_and(|accepts| accepts.contains("text/html")) {
        let html = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
        let policy = [(header::CONTENT_SECURITY_POLICY, app.page.policy.as_str())];
        return (PLAIN, html, policy, app.page.html.clone()).into_response();
    }
    let Report { sentence, health, models, now, process, .. } = app.report();
    let model = models
        .serving
        .map_or_else(|| "none yet".to_owned(), |model| format!("{}/{}", model.name, model.version));
    let warnings = health.warnings.iter().map(|line| format!("warning: {line}\n"));
    let warnings = warnings.collect::<Vec<_>>().concat();
    let text = format!(
        "tidemill {}\n{sentence}\n{warnings}model: {model}\npartitions: {}\n/api/status /livez /readyz /metrics\n",
        process.build.version,
        now.partitions.unwrap_or(0)
    );
    (PLAIN, text).into_response()
}

async fn api(State(app): State<App>) -> Response {
    let body = serde_json::to_vec(&app.report()).unwrap_or_default();
    (PLAIN, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn ready(State(app): State<App>) -> Response {
    let reasons = app.status.now().unready(now());
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

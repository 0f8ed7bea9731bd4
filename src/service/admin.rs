//! `/admin/…`: what an operator may do to a service that runs, on a listener of its own.
//!
//! Nothing listens without a file of tokens. Each request bears one; who it belongs to stands in the log beside what was
//! done, and a metric counts both. Everything is bounded: connections and headers as everywhere, bodies in size and time,
//! actions and wrong tokens in number. A wrong token costs its sender the answer, and never locks out a right one.
//!
//! A pause is this process's alone, and is forgotten with it: what starts again takes records in.
//!
//! An action that the engine carries out is answered with 202, because it is no promise: `/api/status` says what came of
//! it. What means nothing to a service that is stopping, or has stopped by itself, is refused with 409.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Uri};
use crate::engine::Command;
use crate::failure::{Exit, Failure, chain};
use crate::http::connections::Peer;
use crate::http::{self, connections};
use crate::printable;
use crate::record::Version;
use crate::registry::Registry;
use crate::status::{Board, Doing};
use crate::telemetry::metrics::ACTIONS;
use crate::telemetry::{self, Telemetry};

mod tokens;

use tokens::Tokens;

/// Largest body, in bytes.
const LARGEST: usize = 4 << 10;

/// How long a body may take.
const SLOWEST: Duration = Duration::from_secs(5);

/// So many actions, and so many wrong tokens, are looked at in [`WHILE`].
const MOST: usize = 30;

/// What is counted of a request without a token that is let in, or for something else.
const UNKNOWN: &str = "unknown";

/// The window of [`MOST`].
const WHILE: Duration = Duration::from_secs(60);

/// Whoever answers `/admin`.
pub(super) struct Admin {
    listener: TcpListener,
    app: App,
}

#[derive(Clone)]
struct App {
    tokens: Tokens,
    registry: Registry,
    uri: Uri,
    commands: mpsc::Sender<Command>,
    status: Board,
    telemetry: Telemetry,
    service: CancellationToken,
    done: Arc<Mutex<Recent>>,
    wrong: Arc<Mutex<Recent>>,
}

/// When something happened last, at most [`MOST`] times in [`WHILE`].
#[derive(Debug, Default)]
struct Recent(VecDeque<Instant>);

impl Recent {
    /// Whether there is room for one more at `now`.
    fn takes(&mut self, now: Instant) -> bool {
        while self.0.front().is_some_and(|first| WHILE <= now.saturating_duration_since(*first)) {
            self.0.pop_front();
        }
        let room = self.0.len() < MOST;
        if room {
            self.0.push_back(now);
        }
        room
    }
}

/// What became of a request: a status and a sentence.
type Said = (StatusCode, String);

/// Whether the file that is named, where one is, has tokens that can be let in.
///
/// # Errors
///
/// A file that cannot be read, or has no such token.
pub(super) fn check(config: &Config) -> Result<(), Failure> {
    tokens(config).map(drop)
}

fn tokens(config: &Config) -> Result<Option<Tokens>, Failure> {
    let Some(file) = &config.admin.token_file else { return Ok(None) };
    let tokens = Tokens::new(file);
    tokens.check().map_err(|why| Failure {
        message: format!("read admin.token_file {}: {why}", file.display()),
        exit: Exit::Config,
    })?;
    Ok(Some(tokens))
}

/// Takes the port and looks at the tokens; nothing where none are named.
///
/// # Errors
///
/// A port that is not to be had, a file without a good token.
pub(super) async fn open(
    config: &Config,
    telemetry: &Telemetry,
    (commands, status): (&mpsc::Sender<Command>, &Board),
    service: &CancellationToken,
) -> Result<Option<Admin>, Failure> {
    let Some(tokens) = tokens(config)? else { return Ok(None) };
    let listener = http::bind("admin.listen", config.admin.listen).await?;
    let app = App {
        tokens,
        registry: Registry::new(config.registry.root.clone()),
        uri: config.model.uri.clone(),
        commands: commands.clone(),
        status: status.clone(),
        telemetry: telemetry.clone(),
        service: service.clone(),
        done: Arc::default(),
        wrong: Arc::default(),
    };
    Ok(Some(Admin { listener, app }))
}

impl Admin {
    /// Answers until stopped.
    pub(super) async fn serve(self, stop: CancellationToken) {
        if let Ok(address) = self.listener.local_addr() {
            tracing::info!(%address, "listening: /admin");
        }
        let router = axum::Router::new()
            .route("/admin/{action}", post(act))
            .fallback(async || said((StatusCode::NOT_FOUND, unknown())))
            .method_not_allowed_fallback(async || {
                let how = "send a POST with `Authorization: Bearer TOKEN`".to_owned();
                said((StatusCode::METHOD_NOT_ALLOWED, how))
            })
            .with_state(self.app);
        connections::serve(self.listener, router, stop).await;
    }
}

fn unknown() -> String {
    let actions = ACTIONS.iter().filter(|action| **action != UNKNOWN);
    let actions: Vec<String> = actions.map(|action| format!("/admin/{action}")).collect();
    format!("there is {}", actions.join(", "))
}

fn said((status, message): Said) -> Response {
    let body = serde_json::json!({ "done": status.is_success(), "message": message }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[expect(clippy::disallowed_methods, reason = "rates are counted in time")]
fn now() -> Instant {
    Instant::now()
}

fn takes(recent: &Mutex<Recent>) -> bool {
    recent.lock().unwrap_or_else(PoisonError::into_inner).takes(now())
}

/// Does what is asked, and writes down who asked for what from where, and what came of it.
async fn act(
    State(app): State<App>,
    Extension(Peer(peer)): Extension<Peer>,
    Path(asked): Path<String>,
    request: Request,
) -> Response {
    let known = ACTIONS.iter().find(|known| **known == asked && **known != UNKNOWN).copied();
    let bearer = request.headers().get(header::AUTHORIZATION);
    let token = bearer.and_then(|bearer| bearer.to_str().ok()?.strip_prefix("Bearer "));
    let token = token.unwrap_or_default().to_owned();
    let (who, action, done) = match app.who(token, peer).await {
        // Whoever has no token counts as one thing, so that a stranger makes nobody's numbers.
        Err(refused) => (None, UNKNOWN, Err(refused)),
        Ok(who) => match known {
            None => (Some(who), UNKNOWN, Err((StatusCode::NOT_FOUND, unknown()))),
            Some(action) if takes(&app.done) => {
                let done = app.carry_out(action, request).await;
                (Some(who), action, done)
            }
            Some(action) => {
                let message = format!("more than {MOST} actions in a minute: wait, and try again");
                (Some(who), action, Err((StatusCode::TOO_MANY_REQUESTS, message)))
            }
        },
    };
    app.telemetry.metrics.admin(action, done.is_ok());
    let (status, message) = done.as_ref().unwrap_or_else(|refused| refused);
    let (result, status) = (if done.is_ok() { "done" } else { "refused" }, status.as_u16());
    match (who, &done) {
        (Some(who), Ok(_)) => {
            tracing::info!(%peer, who, action, result, status, "told by an operator: {message}");
        }
        (Some(who), Err(_)) => {
            let asked = printable::name(&asked);
            tracing::warn!(%peer, who, action, asked, result, status, "refused to an operator: {message}");
        }
        // Said where the token is looked at, and not more often than there is room for.
        (None, _) => (),
    }
    said(done.unwrap_or_else(|refused| refused))
}

impl App {
    /// Whose token it is.
    async fn who(&self, token: String, peer: SocketAddr) -> Result<String, Said> {
        let tokens = self.tokens.clone();
        let known = tokio::task::spawn_blocking(move || tokens.whose(&token)).await;
        let known = known.unwrap_or_else(|died| Err(format!("looking at it died: {died}")));
        match known {
            Ok(Some(who)) => Ok(who),
            Ok(None) if takes(&self.wrong) => {
                tracing::warn!(%peer, "a request to /admin without a token that is let in");
                let how = "send `Authorization: Bearer TOKEN` with a token of admin.token_file";
                Err((StatusCode::UNAUTHORIZED, how.to_owned()))
            }
            Ok(None) => {
                let message = format!("more than {MOST} wrong tokens in a minute: wait");
                Err((StatusCode::TOO_MANY_REQUESTS, message))
            }
            Err(why) => {
                tracing::error!(
                    "read admin.token_file: {why}; nobody is let in until that is mended"
                );
                let message = "admin.token_file cannot be read; the log says why".to_owned();
                Err((StatusCode::SERVICE_UNAVAILABLE, message))
            }
        }
    }

    async fn carry_out(&self, action: &str, request: Request) -> Result<Said, Said> {
        match action {
            "pause" => {
                let what = "paused: what was begun is finished, nothing more is taken in";
                self.running(Command::Pause, what, &body::<Nothing>(request).await?)
            }
            "resume" => {
                let what = "resumed: records are taken in";
                self.running(Command::Resume, what, &body::<Nothing>(request).await?)
            }
            "reload" => {
                let what = "looks at the registry now";
                self.running(Command::Reload, what, &body::<Nothing>(request).await?)
            }
            "drain" => self.drain(&body(request).await?),
            "promote" => self.promote(body(request).await?).await,
            "rollback" => {
                body::<Nothing>(request).await?;
                self.rollback().await
            }
            _ => Self::log(&body(request).await?),
        }
    }

    /// What only a service that goes on can carry out.
    fn running(&self, command: Command, what: &str, nothing: &Nothing) -> Result<Said, Said> {
        match idle(&self.status.now().doing, self.service.is_cancelled()) {
            Some(why) => Err((StatusCode::CONFLICT, why)),
            None => self.command(command, what, nothing),
        }
    }

    fn command(&self, command: Command, what: &str, _: &Nothing) -> Result<Said, Said> {
        match self.commands.try_send(command) {
            Ok(()) => Ok((StatusCode::ACCEPTED, what.to_owned())),
            Err(mpsc::error::TrySendError::Full(_)) => {
                let why = "too many commands wait for the engine: try again in a moment";
                Err((StatusCode::SERVICE_UNAVAILABLE, why.to_owned()))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                Err((StatusCode::CONFLICT, "the service has ended".to_owned()))
            }
        }
    }

    fn drain(&self, drain: &Drain) -> Result<Said, Said> {
        if drain.leave {
            let what = "stopping: what was begun is committed, and partitions go to others at once";
            return self.command(Command::Leave, what, &Nothing {});
        }
        self.service.cancel();
        let what = "stopping: what was begun is committed, and the process ends";
        Ok((StatusCode::ACCEPTED, what.to_owned()))
    }

    /// The model and the alias that this service follows: others are not its to move.
    fn followed(&self) -> Result<(String, String), Said> {
        match &self.uri {
            Uri::Alias { model, alias } => Ok((model.clone(), alias.clone())),
            Uri::Version { .. } | Uri::Directory(_) => {
                let why = format!(
                    "model.uri is {}, which follows no alias that could be moved",
                    self.uri
                );
                Err((StatusCode::CONFLICT, why))
            }
        }
    }

    async fn promote(&self, promote: Promote) -> Result<Said, Said> {
        let (model, alias) = self.followed()?;
        let (registry, version) = (self.registry.clone(), Version(promote.version));
        self.moved(move || {
            registry.promote(&model, version, &alias)?;
            Ok(format!("models:/{model}@{alias} is version {version} now"))
        })
        .await
    }

    async fn rollback(&self) -> Result<Said, Said> {
        let (model, alias) = self.followed()?;
        if alias != "champion" {
            let why = format!(
                "a roll-back moves champion, and model.uri follows {alias}: promote the version instead"
            );
            return Err((StatusCode::CONFLICT, why));
        }
        let registry = self.registry.clone();
        self.moved(move || {
            let version = registry.rollback(&model)?;
            Ok(format!("models:/{model}@champion is version {version} again"))
        })
        .await
    }

    /// Moves an alias, which is said, and has the registry looked at.
    async fn moved(
        &self,
        moves: impl FnOnce() -> Result<String, crate::registry::Error> + Send + 'static,
    ) -> Result<Said, Said> {
        let moved = tokio::task::spawn_blocking(moves).await;
        let wrong = |why: String| (StatusCode::CONFLICT, why);
        let moved = moved.map_err(|died| wrong(died.to_string()))?;
        let what = moved.map_err(|error| wrong(chain(&error)))?;
        // Too many wait: then a look is due anyway.
        self.commands.try_send(Command::Reload).unwrap_or_default();
        Ok((
            StatusCode::OK,
            format!("{what}; each replica swaps when the version has passed its gate"),
        ))
    }

    fn log(log: &Log) -> Result<Said, Said> {
        telemetry::filter(&log.filter).map_err(|why| {
            (StatusCode::BAD_REQUEST, format!("logging.filter {:?}: {why}", log.filter))
        })?;
        Ok((StatusCode::OK, format!("logs {} until it is told otherwise or ends", log.filter)))
    }
}

/// Why nothing that a service does can be changed any more: it is stopping, or has stopped by itself.
fn idle(doing: &Doing, is_told: bool) -> Option<String> {
    match doing {
        Doing::Stopped(why) => Some(format!(
            "not done: the service has stopped; end it, and start it again. It has stopped because {why}"
        )),
        Doing::Stopping => Some("not done: the service is stopping".to_owned()),
        Doing::Starting | Doing::Running | Doing::Paused => {
            is_told.then(|| "not done: the service is stopping".to_owned())
        }
    }
}

/// No parameters.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    #[serde(default)]
    leave: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Promote {
    version: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    filter: String,
}

/// The parameters: JSON, or nothing, which is `{}`.
async fn body<T: DeserializeOwned>(request: Request) -> Result<T, Said> {
    debug_assert_eq!(request.method(), Method::POST, "the router lets no other through");
    let bytes = axum::body::to_bytes(request.into_body(), LARGEST);
    let bytes: Bytes = match tokio::time::timeout(SLOWEST, bytes).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_larger)) => {
            let why = format!("the body is larger than {LARGEST} bytes, or broke off");
            return Err((StatusCode::PAYLOAD_TOO_LARGE, why));
        }
        Err(_elapsed) => {
            let why = format!("the body took longer than {SLOWEST:?}");
            return Err((StatusCode::REQUEST_TIMEOUT, why));
        }
    };
    let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(text).map_err(|error| {
        let how = "promote takes {\"version\": 3}, log {\"filter\": \"info\"}, drain {\"leave\": true}, others nothing";
        (StatusCode::BAD_REQUEST, format!("the body does not fit: {error}; {how}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_counted_over_a_minute() {
        let (mut recent, start) = (Recent::default(), now());
        let taken = (0..100).filter(|_| recent.takes(start)).count();
        assert_eq!(taken, MOST);
        assert!(!recent.takes(start + Duration::from_secs(59)));
        assert!(recent.takes(start + WHILE));
        assert_eq!(recent.0.len(), 1, "what is over is forgotten");
    }
}

//! The HTTP client of the sending thread: blocking, with the TLS that Kafka has.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use ureq::Agent;
use ureq::tls::ClientCert;

use super::partial::Partial;
use super::settings::Settings;
use crate::tls;

/// Most bytes of an answer, and of a file with certificates.
const MAX: u64 = 1 << 20;

/// What became of the last request: the exporter itself says only whether it failed.
pub(super) type Heard = Arc<Mutex<Answered>>;

/// What a collector has answered.
#[derive(Debug, Default)]
pub(super) struct Answered {
    /// Why the request failed.
    pub(super) why: Option<String>,
    /// What was not taken of one that did not.
    pub(super) partial: Partial,
}

/// Sends requests on the thread that asks.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    heard: Heard,
}

impl Client {
    /// Reads the certificates; asks nobody. The error names the file.
    pub(super) fn new(settings: &Settings, heard: &Heard) -> Result<Self, String> {
        let certificates = |path: &str| {
            tls::certificates(path.as_ref(), MAX)
                .map_err(|why| format!("the certificates {path} {why}"))
        };
        let key = |path: &str| {
            let key = tls::private_key(path.as_ref(), MAX);
            key.map_err(|why| format!("the file {path} {why}"))
        };
        let roots = settings.ca.as_deref().map(certificates).transpose()?;
        let client = match (settings.certificate.as_deref(), settings.key.as_deref()) {
            (Some(own), Some(path)) => {
                Some(ClientCert::new_with_certs(&certificates(own)?, key(path)?))
            }
            _ => None,
        };
        let agent = tls::agent(settings.timeout, tls::settings(roots.as_deref(), client));
        Ok(Self { agent, heard: Arc::clone(heard) })
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (parts, body) = request.into_parts();
        let answer = self.agent.run(Request::from_parts(parts, &*body))?;
        let (parts, mut body) = answer.into_parts();
        let body = body.with_config().limit(MAX).read_to_vec()?;
        Ok(Response::from_parts(parts, body.into()))
    }
}

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let answer = self.send(request);
        let why = match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status())),
            Err(error) => Some(error.to_string()),
        };
        let partial =
            answer.as_ref().map(|answer| Partial::read(answer.body())).unwrap_or_default();
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Answered { why, partial };
        Box::pin(std::future::ready(answer.map_err(Into::into)))
    }
}

//! The HTTP client of the sending threads: blocking, with the TLS that Kafka has.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use ureq::Agent;
use ureq::tls::ClientCert;

use super::collector::Collector;
use crate::tls;

/// Most bytes of an answer, and of a file with certificates.
const MAX: u64 = 1 << 20;

/// Why the last request failed: the exporter itself says only that it did.
pub(in crate::telemetry) type Why = Arc<Mutex<Option<String>>>;

/// Sends requests on the thread that asks.
#[derive(Debug)]
pub(in crate::telemetry) struct Client {
    agent: Agent,
    why: Why,
}

impl Client {
    /// Reads the certificates; asks nobody. The error names the file.
    pub(in crate::telemetry) fn new(settings: &Collector, why: &Why) -> Result<Self, String> {
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
        Ok(Self { agent, why: Arc::clone(why) })
    }

    /// The answer, whatever its status.
    pub(super) fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
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
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why;
        Box::pin(std::future::ready(answer.map_err(Into::into)))
    }
}

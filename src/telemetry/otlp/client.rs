//! The HTTP client of the sending threads: blocking, with the TLS that Kafka has.

use ureq::Agent;
use ureq::http::{Request, Response};
use ureq::tls::ClientCert;

use super::collector::Collector;
use crate::tls;

/// Most bytes of an answer, and of a file with certificates.
const MAX: u64 = 1 << 20;

/// Sends requests on the thread that asks.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
}

impl Client {
    /// Reads the certificates; asks nobody. The error names the file.
    pub(super) fn new(settings: &Collector) -> Result<Self, String> {
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
        Ok(Self { agent })
    }

    /// The answer, whatever its status.
    pub(super) fn send(&self, request: Request<&[u8]>) -> Result<Response<Vec<u8>>, ureq::Error> {
        let (parts, mut body) = self.agent.run(request)?.into_parts();
        let body = body.with_config().limit(MAX).read_to_vec()?;
        Ok(Response::from_parts(parts, body))
    }
}

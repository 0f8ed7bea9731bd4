//! The HTTP client of the sending thread: blocking, with the TLS that Kafka has.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use ureq::Agent;
use ureq::tls::{
    Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, TlsProvider, parse_pem,
};

use super::settings::Settings;
use crate::file::{self, Links};

/// Most bytes of an answer, and of a file with certificates.
const MAX: u64 = 1 << 20;

/// Why the last request failed: the exporter itself says only that it did.
pub(super) type Why = Arc<Mutex<Option<String>>>;

/// Sends requests on the thread that asks.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    why: Why,
}

impl Client {
    /// Reads the certificates; asks nobody. The error names the file.
    pub(super) fn new(settings: &Settings, why: &Why) -> Result<Self, String> {
        let roots = match &settings.ca {
            None => RootCerts::PlatformVerifier,
            Some(ca) => RootCerts::new_with_certs(&certificates(ca)?),
        };
        let client = match (&settings.certificate, &settings.key) {
            (Some(certificate), Some(key)) => {
                Some(ClientCert::new_with_certs(&certificates(certificate)?, private_key(key)?))
            }
            _ => None,
        };
        let tls = TlsConfig::builder()
            .provider(TlsProvider::NativeTls)
            .root_certs(roots)
            .client_cert(client)
            .build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(settings.timeout))
            .user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        Ok(Self { agent: config.into(), why: Arc::clone(why) })
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
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why;
        Box::pin(std::future::ready(answer.map_err(Into::into)))
    }
}

fn pem(path: &str) -> Result<Vec<PemItem<'static>>, String> {
    let wrong = |why: String| format!("the file {path} {why}");
    let pem = file::read(path.as_ref(), MAX, Links::Follow)
        .map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let items: Result<Vec<_>, _> = parse_pem(&pem).collect();
    items.map_err(|error| wrong(format!("is not valid PEM: {error}")))
}

fn certificates(path: &str) -> Result<Vec<Certificate<'static>>, String> {
    let found: Vec<_> = pem(path)?
        .into_iter()
        .filter_map(|item| if let PemItem::Certificate(found) = item { Some(found) } else { None })
        .collect();
    if found.is_empty() {
        return Err(format!(
            "the file {path} holds no certificate: name one with `-----BEGIN CERTIFICATE-----`"
        ));
    }
    Ok(found)
}

fn private_key(path: &str) -> Result<PrivateKey<'static>, String> {
    let mut keys = pem(path)?
        .into_iter()
        .filter_map(|item| if let PemItem::PrivateKey(found) = item { Some(found) } else { None });
    keys.next().ok_or_else(|| format!("the file {path} holds no private key"))
}

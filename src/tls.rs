//! HTTP requests that this program makes by itself, to a schema registry or a collector, and their TLS: the system's
//! authorities, or those of a file.

use std::path::Path;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{
    Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, TlsProvider, parse_pem,
};

use crate::file::{self, Links};

/// What servers are told of who asks.
pub const USER_AGENT: &str = concat!("tidemill/", env!("CARGO_PKG_VERSION"));

/// Trusts `authorities`, or else the system's; shows `client` to a server that asks.
pub fn settings(
    authorities: Option<&[Certificate<'static>]>,
    client: Option<ClientCert>,
) -> TlsConfig {
    let roots = authorities.map_or(RootCerts::PlatformVerifier, RootCerts::new_with_certs);
    TlsConfig::builder()
        .provider(TlsProvider::NativeTls)
        .root_certs(roots)
        .client_cert(client)
        .build()
}

/// What sends requests, each within `timeout`. It follows nobody elsewhere, and an answer is one whatever its status.
pub fn agent(timeout: Duration, tls: TlsConfig) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(timeout))
        .max_response_header_size(64 << 10)
        .user_agent(USER_AGENT)
        .tls_config(tls)
        .build();
    config.into()
}

/// The certificates in a file of at most `most` bytes.
///
/// # Errors
///
/// Why there are none, for a message that begins with the file.
pub fn certificates(path: &Path, most: u64) -> Result<Vec<Certificate<'static>>, String> {
    let certificate =
        |item| if let PemItem::Certificate(found) = item { Some(found) } else { None };
    let found: Vec<_> = pem(path, most)?.into_iter().filter_map(certificate).collect();
    if found.is_empty() {
        return Err(
            "hold no certificate: name a file with `-----BEGIN CERTIFICATE-----`".to_owned()
        );
    }
    Ok(found)
}

/// The private key in a file of at most `most` bytes.
///
/// # Errors
///
/// Why there is none, for a message that begins with the file.
pub fn private_key(path: &Path, most: u64) -> Result<PrivateKey<'static>, String> {
    let key = |item| if let PemItem::PrivateKey(found) = item { Some(found) } else { None };
    let key = pem(path, most)?.into_iter().find_map(key);
    key.ok_or_else(|| "holds no private key".to_owned())
}

fn pem(path: &Path, most: u64) -> Result<Vec<PemItem<'static>>, String> {
    let pem = file::read(path, most, Links::Follow)
        .map_err(|error| format!("cannot be read: {error}"))?;
    let items: Result<Vec<_>, _> = parse_pem(&pem).collect();
    items.map_err(|error| format!("cannot be read as PEM: {error}"))
}

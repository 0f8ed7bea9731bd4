//! Why brokers do not answer, by what the client said last, and what to do about it. Pure; the table is the test's.

use crate::config::identity::Tokens;
use crate::status::Refused;

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The port speaks another protocol.
    Protocol,
    /// The port takes connections, and says nothing.
    Silent,
    /// No such name is known here.
    Name,
    /// Nothing listens there.
    Closed,
    /// The broker does not take the client's certificate, or wants one.
    OwnCertificate,
    /// The broker's certificate is of nobody who is trusted here.
    Certificate,
    /// TLS fails before anybody has shown a certificate.
    Handshake,
    /// The broker does not take who we say we are.
    Credentials,
    /// The client does not say.
    Unknown,
}

impl Cause {
    /// What a line of the client's log means.
    pub fn of(line: &str) -> Self {
        let lower = line.to_ascii_lowercase();
        // The protocol's own name, such as `sasl_ssl`, stands in every line.
        let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        if has(&["plaintext broker listener"]) {
            Self::Protocol
        } else if has(&["apiversion_query", "apiversionrequest"]) {
            Self::Silent
        } else if has(&["resolve"]) {
            Self::Name
        } else if has(&["connection refused"]) {
            Self::Closed
        } else if has(&ALERTS) {
            Self::OwnCertificate
        } else if has(&["certificate"]) {
            Self::Certificate
        } else if has(&["ssl handshake"]) {
            Self::Handshake
        } else if has(&["authentication", "sasl mechanism", "oauthbearer"]) {
            Self::Credentials
        } else {
            Self::Unknown
        }
    }

    /// What to do about it, by what the client shows who it is.
    pub fn remedy(self, tokens: Tokens) -> &'static str {
        match (self, tokens) {
            (Self::Protocol, _) => {
                "check security.protocol under kafka.common: the port speaks another one"
            }
            (Self::Silent, _) => {
                "look whether the broker is well, and check security.protocol under kafka.common: a broker that hangs is \
                 silent, and so is a port that speaks another protocol"
            }
            (Self::Name, _) => {
                "check the host in kafka.common bootstrap.servers; no such name is known here"
            }
            (Self::Closed, _) => {
                "start the broker, or check the port in kafka.common bootstrap.servers"
            }
            (Self::OwnCertificate, _) => {
                "set kafka.common ssl.certificate.location and ssl.key.location to a certificate that has not expired, \
                 signed by an authority that the brokers trust"
            }
            (Self::Certificate | Self::Handshake, _) => {
                "set kafka.common ssl.ca.location to the authority that signed the broker's certificate"
            }
            (Self::Credentials, Tokens::None) => {
                "check sasl.mechanisms, sasl.username and sasl.password under kafka.common"
            }
            (Self::Credentials, Tokens::Amazon) => {
                "the token is refused: check that the role may kafka-cluster:Connect to this cluster, and the region"
            }
            (Self::Credentials, Tokens::Granted) => {
                "the token is refused: check the client's id, scope and audience with who gives it, and what the broker \
                 expects of it"
            }
            (Self::Unknown, _) => {
                "check kafka.common bootstrap.servers and that this machine may reach it"
            }
        }
    }
}

/// What a broker answers to a certificate of ours that it does not take, or to none where it wants one (RFC 8446, 6.2).
const ALERTS: [&str; 7] = [
    "alert bad certificate",
    "alert unsupported certificate",
    "alert certificate",
    "alert unknown ca",
    "alert access denied",
    "alert handshake failure",
    "alert no certificate",
];

/// Where a broker was reached and one side does not take the other: no repetition cures that, until somebody changes
/// credentials or certificates.
pub fn refused(line: &str, tokens: Tokens) -> Option<Refused> {
    let cause = Cause::of(line);
    let what = match cause {
        Cause::Credentials => "the credentials are refused",
        Cause::OwnCertificate => "the brokers refuse this client's certificate, or want one",
        Cause::Certificate => "the brokers' certificate is not trusted here",
        Cause::Protocol
        | Cause::Silent
        | Cause::Name
        | Cause::Closed
        | Cause::Handshake
        | Cause::Unknown => return None,
    };
    Some(Refused { what, remedy: cause.remedy(tokens), said: line.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_says_has_a_cause_and_only_some_of_them_are_refusals() {
        for (said, cause, refusal) in [
            (
                "sasl_ssl://k:1/bootstrap: SASL authentication error: Authentication failed during authentication due to \
                 invalid credentials with SASL mechanism SCRAM-SHA-256",
                Cause::Credentials,
                Some("the credentials are refused"),
            ),
            (
                "ssl://k:1/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker \
                 certificate could not be verified",
                Cause::Certificate,
                Some("the brokers' certificate is not trusted here"),
            ),
            (
                "ssl://k:1/bootstrap: SSL handshake failed: error:0A00045C:SSL routines::tlsv13 alert certificate \
                 required: SSL alert number 116",
                Cause::OwnCertificate,
                Some("the brokers refuse this client's certificate, or want one"),
            ),
            (
                "ssl://k:1/1: SSL handshake failed: error:0A000418:SSL routines::tlsv1 alert unknown ca",
                Cause::OwnCertificate,
                Some("the brokers refuse this client's certificate, or want one"),
            ),
            (
                "sasl_ssl://k:1/bootstrap: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?",
                Cause::Protocol,
                None,
            ),
            (
                "sasl_plaintext://k:1/bootstrap: Disconnected (after 1ms in state APIVERSION_QUERY)",
                Cause::Silent,
                None,
            ),
            ("ssl://k:1/1: SSL handshake failed: Disconnected", Cause::Handshake, None),
            (
                "sasl_ssl://k:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused",
                Cause::Closed,
                None,
            ),
            (
                "sasl_ssl://nowhere:9092/bootstrap: Failed to resolve 'nowhere:9092'",
                Cause::Name,
                None,
            ),
            ("", Cause::Unknown, None),
        ] {
            assert_eq!(Cause::of(said), cause, "{said}");
            let found = refused(said, Tokens::None);
            assert_eq!(found.as_ref().map(|refused| refused.what), refusal, "{said}");
            assert!(found.is_none_or(|refused| refused.said == said));
        }
    }
}

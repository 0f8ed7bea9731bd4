//! Why brokers do not answer, by what the client said last, and what to do about it.

use std::time::Duration;

use super::Finding;
use crate::config::identity::Tokens;
use crate::kafka::cause::Cause;

/// No answer, with what the client said last, and by what it shows who it is.
pub(super) fn unreachable(
    what: String,
    within: Duration,
    error: &str,
    (cause, tokens): (&str, Tokens),
) -> Finding {
    let remedy = Cause::of(cause).remedy(tokens);
    let said = if cause.is_empty() { String::new() } else { format!("; the client said: {cause}") };
    let within = within.as_secs();
    Finding::problem(what, format!("no answer within {within} s: {error}{said}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_failure_is_explained_by_what_the_client_said() {
        for (said, part) in [
            (
                "sasl_ssl://k:1/bootstrap: SASL authentication error: Authentication failed",
                "sasl.password",
            ),
            (
                "ssl://k:1/bootstrap: SSL handshake failed: certificate verify failed",
                "ssl.ca.location",
            ),
            (
                "sasl_ssl://k:1/bootstrap: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?",
                "security.protocol",
            ),
            (
                "sasl_plaintext://k:1/bootstrap: Disconnected (after 1ms in state APIVERSION_QUERY)",
                "security.protocol",
            ),
            (
                "sasl_ssl://k:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused",
                "start the broker",
            ),
            ("sasl_ssl://nowhere:9092/bootstrap: Failed to resolve 'nowhere:9092'", "no such name"),
            ("", "may reach it"),
        ] {
            let cause = (said, Tokens::None);
            let finding =
                unreachable("k".to_owned(), Duration::from_secs(1), "transport failure", cause);
            let (message, remedy) = finding.problem_text().unwrap();
            assert!(message.contains(said) && remedy.contains(part), "{message}: {remedy}");
        }
    }
}

//! Why brokers do not answer, by what the client said last, and what to do about it.

use std::time::Duration;

use super::Finding;
use crate::config::identity::Tokens;

/// No answer, with what the client said last, and by what it shows who it is.
pub(super) fn unreachable(
    what: String,
    within: Duration,
    error: &str,
    (cause, tokens): (&str, Tokens),
) -> Finding {
    let lower = cause.to_ascii_lowercase();
    // The protocol's own name, such as `sasl_ssl`, stands in every line.
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let remedy = if has(&["plaintext broker listener"]) {
        "check security.protocol under kafka.common: the port speaks another one"
    } else if has(&["apiversion_query", "apiversionrequest"]) {
        "look whether the broker is well, and check security.protocol under kafka.common: a broker that hangs is \
         silent, and so is a port that speaks another protocol"
    } else if has(&["resolve"]) {
        "check the host in kafka.common bootstrap.servers; no such name is known here"
    } else if has(&["refused"]) {
        "start the broker, or check the port in kafka.common bootstrap.servers"
    } else if has(&["certificate", "ssl handshake"]) {
        "set kafka.common ssl.ca.location to the authority that signed the broker's certificate"
    } else if has(&["authentication", "sasl mechanism", "oauthbearer"]) {
        match tokens {
            Tokens::None => {
                "check sasl.mechanisms, sasl.username and sasl.password under kafka.common"
            }
            Tokens::Amazon => {
                "the token is refused: check that the role may kafka-cluster:Connect to this cluster, and the region"
            }
            Tokens::Granted => {
                "the token is refused: check the client's id, scope and audience with who gives it, and what the broker \
                 expects of it"
            }
        }
    } else {
        "check kafka.common bootstrap.servers and that this machine may reach it"
    };
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

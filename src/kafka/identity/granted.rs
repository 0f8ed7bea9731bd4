//! Tokens that a server gives to who has a client id and its secret (OAuth 2.0, client credentials).

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

use super::sign::encoded;
use super::sources::answered;
use super::{Issue, Token, now_ms};
use crate::config::Kafka;
use crate::config::identity::{common, extensions};
use crate::failure::{Exit, Failure};
use crate::tls;

/// How long the server may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Most bytes of a file of authorities.
const MAX_CA: u64 = 4 << 20;

/// What is asked, of whom.
struct Grant {
    url: String,
    id: String,
    secret: String,
    scope: Option<String>,
    extensions: Vec<(String, String)>,
    /// The authority of the server, where it is another one than the system's.
    ca: Option<PathBuf>,
}

/// Asks for tokens as it is written for these brokers.
pub(super) fn issuer(kafka: &Kafka) -> Issue {
    let of = |name: &str| common(kafka, &format!("sasl.oauthbearer.{name}")).map(str::to_owned);
    let grant = Grant {
        url: of("token.endpoint.url").unwrap_or_default(),
        id: of("client.id").unwrap_or_default(),
        secret: of("client.secret").unwrap_or_default(),
        scope: of("scope"),
        extensions: extensions(kafka),
        ca: common(kafka, "https.ca.location").filter(|ca| *ca != "probe").map(PathBuf::from),
    };
    Box::new(move || grant.token())
}

impl Grant {
    fn token(&self) -> Result<Token, Failure> {
        let what = format!("ask {} for a token for the brokers", self.url);
        let ca = self.ca.as_ref().map(|ca| {
            tls::certificates(ca, MAX_CA).map_err(|why| Failure {
                message: format!("{what}: the certificates in {} {why}", ca.display()),
                exit: Exit::Config,
            })
        });
        let agent = tls::agent(ANSWER, tls::settings(ca.transpose()?.as_deref(), None));
        let mut body = "grant_type=client_credentials".to_owned();
        if let Some(scope) = &self.scope {
            body = body + "&scope=" + &encoded(scope);
        }
        let basic = STANDARD.encode(format!("{}:{}", self.id, self.secret));
        let request = agent
            .post(&self.url)
            .header("Accept", "application/json")
            .header("Content-Type", "application/x-www-form-urlencoded")
            .header("Authorization", format!("Basic {basic}"));
        let answer = answered(&what, request.send(body))?;
        self.read(&what, &answer, now_ms())
    }

    /// A token out of the answer: when it expires stands beside it, or in it.
    fn read(&self, what: &str, answer: &str, now: i64) -> Result<Token, Failure> {
        let wrong = |why: &str| Failure {
            message: format!("{what}: the answer {why}; look at what the server gives this client"),
            exit: Exit::Temporary,
        };
        let answer: Value =
            serde_json::from_str(answer).map_err(|_error| wrong("is not valid JSON"))?;
        let value = answer["access_token"].as_str().filter(|token| !token.is_empty());
        let value = value.ok_or_else(|| wrong("has no access_token"))?;
        let claims = claims(value).unwrap_or_default();
        let seconds =
            answer["expires_in"].as_i64().or_else(|| answer["expires_in"].as_str()?.parse().ok());
        let beside = seconds.map(|seconds| now.saturating_add(seconds.saturating_mul(1_000)));
        #[expect(
            clippy::cast_possible_truncation,
            reason = "some servers write a time with a fraction"
        )]
        let whole = |exp: &Value| exp.as_i64().or_else(|| exp.as_f64().map(|exp| exp as i64));
        let within = whole(&claims["exp"]).map(|exp| exp.saturating_mul(1_000));
        let expires = beside.into_iter().chain(within).min();
        let expires = expires.ok_or_else(|| wrong("does not say when the token expires"))?;
        if expires <= now {
            return Err(wrong("has a token that has expired already: are both clocks right?"));
        }
        let origin = format!("given by {} to {}", self.url, self.id);
        Ok(Token {
            value: value.to_owned(),
            principal: claims["sub"].as_str().unwrap_or(&self.id).to_owned(),
            expires,
            extensions: self.extensions.clone(),
            origin,
        })
    }
}

/// What a token that is a JWT says of itself. Whether that is true is for the broker to judge.
fn claims(token: &str) -> Option<Value> {
    let middle = token.split('.').nth(1)?.trim_end_matches('=');
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(middle).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000_000;

    fn read(answer: &str) -> Result<Token, Failure> {
        let grant = Grant {
            url: "https://id/token".to_owned(),
            id: "tidemill".to_owned(),
            secret: "hunter2".to_owned(),
            scope: None,
            extensions: Vec::new(),
            ca: None,
        };
        grant.read("ask", answer, NOW)
    }

    fn jwt(claims: &str) -> String {
        format!("e30.{}.", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_holds_for_as_long_as_it_and_the_answer_say() {
        let with = |claims, more: &str| format!(r#"{{"access_token":"{}"{more}}}"#, jwt(claims));
        for (answer, principal, seconds) in [
            (r#"{"access_token":"opaque","expires_in":60}"#.to_owned(), "tidemill", 60),
            (r#"{"access_token":"opaque","expires_in":"60"}"#.to_owned(), "tidemill", 60),
            (with(r#"{"exp":1000300,"sub":"a"}"#, ""), "a", 300),
            (with(r#"{"exp":1000300.7}"#, r#","expires_in":600"#), "tidemill", 300),
            (with(r#"{"exp":1000300}"#, r#","expires_in":30"#), "tidemill", 30),
        ] {
            let token = read(&answer).unwrap();
            assert_eq!(
                (token.principal.as_str(), token.expires),
                (principal, NOW + seconds * 1_000),
                "{answer}"
            );
        }
        for (answer, said) in [
            ("<html>hunter2", "not valid JSON"),
            ("{}", "no access_token"),
            (r#"{"access_token":"opaque"}"#, "when the token expires"),
            (r#"{"access_token":"opaque","expires_in":0}"#, "clocks"),
        ] {
            let message = read(answer).err().unwrap().message;
            assert!(message.contains(said) && !message.contains("hunter2"), "{message}");
        }
    }
}

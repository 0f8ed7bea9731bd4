//! One request of a schema registry, in Confluent's REST API, and what its answer means.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value as Json;
use ureq::Agent;

use crate::tls;

/// Most bytes of an answer.
const MAX_ANSWER: u64 = 4 << 20;

/// By what a server says that it has no such thing, or that this is not its place.
const NOT_FOUND: [u16; 3] = [400, 404, 410];

/// Most bytes of a file with certificates.
const MAX_CA: u64 = 4 << 20;

/// How one speaks to a schema registry.
#[derive(Clone)]
pub struct Settings {
    /// `http://` or `https://`, with a path where the API is not at the root. Several are copies of one registry: the
    /// next is asked where one does not answer.
    pub urls: Vec<String>,
    /// Who is asking.
    pub auth: Auth,
    /// A file with the certificates, in PEM, that its server's is signed by; without one the system's.
    pub ca: Option<PathBuf>,
    /// How long one request may take, from the name's look-up to the answer's last byte.
    pub timeout: Duration,
    /// A file that keeps what was answered, for a start while the registry is away.
    pub kept: Option<PathBuf>,
}

/// Never the secrets.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("urls", &self.urls).finish_non_exhaustive()
    }
}

/// Who is asking.
#[derive(Clone, PartialEq, Eq)]
pub enum Auth {
    /// Nobody in particular.
    None,
    /// A user, or a cloud's API key, with a password or the key's secret.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token.
    Bearer(String),
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// The registry says that there is no such thing, with Confluent's code.
    #[error("{message} (code {code})")]
    Absent {
        /// Confluent's code: 40401 for a subject, 40402 for a version, 40403 for a schema.
        code: u64,
        /// The registry's words.
        message: String,
    },
    /// The registry refuses what it was sent: a schema that is not valid, or not compatible.
    #[error("{0}")]
    Refused(String),
    /// Whatever it was, it says nothing about what was asked for: ask again.
    #[error("{0}")]
    Away(String),
}

/// A connection to a registry.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    urls: Vec<String>,
    authorization: Option<String>,
    /// The one that answered last.
    at: AtomicUsize,
}

impl Client {
    /// Reads the certificates; asks nobody.
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let urls = settings.urls.iter().map(|url| checked(url)).collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() {
            return Err("the schema registry has no URL: name one".to_owned());
        }
        let ca = settings.ca.as_deref().map(|ca| {
            tls::certificates(ca, MAX_CA)
                .map_err(|why| format!("the schema registry's certificates {} {why}", ca.display()))
        });
        let agent = tls::agent(settings.timeout, tls::settings(ca.transpose()?.as_deref(), None));
        let authorization = match &settings.auth {
            Auth::None => None,
            Auth::Basic { user, password } => {
                Some(format!("Basic {}", BASE64.encode(format!("{user}:{password}"))))
            }
            Auth::Bearer(token) => Some(format!("Bearer {token}")),
        };
        Ok(Self { agent, urls, authorization, at: AtomicUsize::new(0) })
    }

    /// What tells one registry from another.
    pub(super) fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Whether it is Apicurio's, by its own place of this API.
    pub(super) fn is_apicurio(&self) -> bool {
        self.urls.iter().any(|url| url.contains("/apis/ccompat/"))
    }

    /// Asks for `path`, or sends `body` to it; the next URL where one is away.
    pub(super) fn ask(&self, path: &str, body: Option<&Json>) -> Result<Json, Failed> {
        self.ask_all(path, body, None).map_err(|(_, failed)| failed)
    }

    /// Asks for `path`, which is absent too where the answer says so without Confluent's code and the place is one of a
    /// registry: Confluent's own server says 404 of a number that it cannot read, others of one that they do not have.
    pub(super) fn find(&self, path: &str) -> Result<Json, Failed> {
        self.ask_all(path, None, None).map_err(|(status, failed)| match failed {
            Failed::Away(_) if NOT_FOUND.contains(&status) && self.is_there() => {
                let code = u64::from(status);
                Failed::Absent { code, message: format!("it answers {status}") }
            }
            other @ (Failed::Absent { .. } | Failed::Refused(_) | Failed::Away(_)) => other,
        })
    }

    /// Whether a registry answers where it should be. Not each of them has the first of these paths.
    fn is_there(&self) -> bool {
        ["/schemas/types", "/subjects"].iter().any(|path| self.ask(path, None).is_ok())
    }

    /// Asks for `path` in one of Apicurio's groups; other registries have none, and answer as ever.
    pub(super) fn ask_in(&self, group: &str, path: &str) -> Result<Json, Failed> {
        self.ask_all(path, None, Some(group)).map_err(|(_, failed)| failed)
    }

    /// Where there is no answer, also the last status; 0 where there was none.
    fn ask_all(
        &self,
        path: &str,
        body: Option<&Json>,
        group: Option<&str>,
    ) -> Result<Json, (u16, Failed)> {
        let first = self.at.load(Ordering::Relaxed);
        let (mut reasons, mut last) = (Vec::new(), 0);
        for place in (first..).take(self.urls.len()) {
            let at = place % self.urls.len();
            match self.ask_at(&self.urls[at], path, body, group) {
                Err((status, Failed::Away(reason))) => {
                    reasons.push(reason);
                    last = status;
                }
                answer => {
                    self.at.store(at, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        Err((last, Failed::Away(reasons.join("; "))))
    }

    fn ask_at(
        &self,
        url: &str,
        path: &str,
        body: Option<&Json>,
        group: Option<&str>,
    ) -> Result<Json, (u16, Failed)> {
        let place = format!("{url}{path}");
        let away = |why: &str| Failed::Away(format!("the schema registry at {url} {why}"));
        let mut answer = match body {
            None => {
                let mut request = self.agent.get(&place).header("Accept", ACCEPT);
                if let Some(authorization) = &self.authorization {
                    request = request.header("Authorization", authorization);
                }
                if let Some(group) = group {
                    request = request.header(GROUP, group);
                }
                request.call()
            }
            Some(body) => {
                let mut request = self.agent.post(&place).header("Accept", ACCEPT);
                request = request.header("Content-Type", CONTENT_TYPE);
                if let Some(authorization) = &self.authorization {
                    request = request.header("Authorization", authorization);
                }
                request.send(body.to_string())
            }
        }
        .map_err(|error| (0, away(&unanswered(&error))))?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
        let text = text.map_err(|error| (0, away(&unanswered(&error))))?;
        meant(status, &text).map_err(|failed| match failed {
            Failed::Away(why) => (status, away(&why)),
            other @ (Failed::Absent { .. } | Failed::Refused(_)) => (status, other),
        })
    }
}

/// The header by which Apicurio's form of this API is told a group.
const GROUP: &str = "X-Registry-GroupId";

const ACCEPT: &str = "application/vnd.schemaregistry.v1+json, application/json";
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// What an answer means. Only what is Confluent's own says that something is absent: a proxy's page does not.
fn meant(status: u16, text: &[u8]) -> Result<Json, Failed> {
    let json: Option<Json> = serde_json::from_slice(text).ok();
    let code = json.as_ref().and_then(|json| json.get("error_code")?.as_u64());
    let said = json.as_ref().and_then(|json| json.get("message")?.as_str()).unwrap_or_default();
    let message: String = said.chars().take(500).collect();
    match (status, code, json) {
        (200, _, Some(json)) => Ok(json),
        (200, _, None) => Err(Failed::Away("answers with something else than JSON".to_owned())),
        (404, Some(code @ 40401..=40499), _) => Err(Failed::Absent { code, message }),
        (409 | 422, Some(_), _) => Err(Failed::Refused(message)),
        (300..=399, ..) => {
            Err(Failed::Away(format!("answers {status}, a redirection: name the place itself")))
        }
        (401, ..) => Err(Failed::Away(
            "answers 401: its user and password, or token, are not right".to_owned(),
        )),
        (403, ..) => {
            Err(Failed::Away("answers 403: this user may not read its schemas".to_owned()))
        }
        (404, ..) => Err(Failed::Away(
            "answers 404, without Confluent's code: is its path right?".to_owned(),
        )),
        _ => Err(Failed::Away(format!("answers {status}"))),
    }
}

/// Why there was no answer.
fn unanswered(error: &ureq::Error) -> String {
    use ureq::Error;
    if let Error::Timeout(_) = error {
        "does not answer in time".to_owned()
    } else if let Error::HostNotFound = error {
        "has a name that no address is known for".to_owned()
    } else if let Error::ConnectionFailed = error {
        "refuses the connection".to_owned()
    } else if let Error::BodyExceedsLimit(most) = error {
        format!("answers more than {} MiB", most >> 20)
    } else {
        format!("does not answer: {error}")
    }
}

/// A URL without what would stand twice.
fn checked(url: &str) -> Result<String, String> {
    let url = url.trim_end_matches('/');
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    match host {
        None | Some("") => Err(format!(
            "the schema registry's URL {url:?} does not begin with http:// or https:// and a host"
        )),
        // Not shown: it may be a password.
        Some(host) if host.contains('@') => Err(
            "the schema registry's URL has a user before its host: give user and password by themselves".to_owned(),
        ),
        Some(_) if url.contains(['?', '#', ' ']) => {
            Err(format!("the schema registry's URL {url:?} has more than a host and a path"))
        }
        Some(_) => Ok(url.to_owned()),
    }
}

/// A part of a path, all but letters, digits and `-._~` by their numbers.
pub(super) fn part(name: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // A String takes every write.
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_confluents_own_answer_says_that_something_is_absent() {
        let absent = br#"{"error_code":40403,"message":"Schema 7 not found"}"#;
        for (status, text, expect) in [
            (200, &b"{\"id\":1}"[..], "ok"),
            (200, b"<html>", "away: answers with something else than JSON"),
            (200, b"", "away: answers with something else than JSON"),
            (404, absent, "absent: Schema 7 not found (code 40403)"),
            (404, b"<html>", "away: answers 404, without Confluent's code"),
            (404, b"{\"error_code\":404,\"message\":\"HTTP 404 Not Found\"}", "away: answers 404"),
            (404, b"{\"detail\":\"no\"}", "away: answers 404"),
            (500, absent, "away: answers 500"),
            (502, b"", "away: answers 502"),
            (429, b"{}", "away: answers 429"),
            (301, b"", "away: answers 301, a redirection"),
            (401, b"{\"error_code\":401,\"message\":\"Unauthorized\"}", "away: answers 401"),
            (403, b"{\"error_code\":40301,\"message\":\"no\"}", "away: answers 403"),
            (409, b"{\"error_code\":409,\"message\":\"incompatible\"}", "refused: incompatible"),
            (422, b"{\"error_code\":42201,\"message\":\"invalid\"}", "refused: invalid"),
            (422, b"<html>", "away: answers 422"),
        ] {
            let said = match meant(status, text) {
                Ok(_) => "ok".to_owned(),
                Err(failed @ Failed::Absent { .. }) => format!("absent: {failed}"),
                Err(failed @ Failed::Refused(_)) => format!("refused: {failed}"),
                Err(failed @ Failed::Away(_)) => format!("away: {failed}"),
            };
            assert!(said.starts_with(expect), "{status}: {said}");
        }
    }

    #[test]
    fn a_url_is_a_host_and_a_path() {
        for (url, expect) in [
            ("http://a:8081/", Ok("http://a:8081")),
            ("https://a/apis/ccompat/v7//", Ok("https://a/apis/ccompat/v7")),
            ("a:8081", Err("does not begin with http")),
            ("http://", Err("does not begin with http")),
            ("http:///x", Err("does not begin with http")),
            ("https://u:secret@a", Err("has a user before its host")),
            ("http://a?x=1", Err("more than a host and a path")),
        ] {
            match (checked(url), expect) {
                (Ok(url), Ok(expect)) => assert_eq!(url, expect),
                (Err(said), Err(expect)) => {
                    assert!(said.contains(expect) && !said.contains("secret"), "{said}");
                }
                (said, _) => panic!("{url}: {said:?}"),
            }
        }
        assert_eq!(part("a/b c-é"), "a%2Fb%20c-%C3%A9");
    }
}

//! Amazon's credentials, from the places where its own programs look for them, in their order: the environment, a pod's
//! web identity, a shared file, what a container is given, what a machine is given.
//!
//! Each is read anew for each token, so what is renewed there is taken up without a restart.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use ureq::Agent;

use super::sign::encoded;
use crate::failure::{Exit, Failure};
use crate::file::{self, Links};
use crate::tls;

/// Most bytes of an answer, and of a file.
const MOST: u64 = 64 << 10;
/// How long Amazon's token service may take; how long what is on this machine may.
const FAR: Duration = Duration::from_secs(10);
const NEAR: Duration = Duration::from_secs(2);
/// Where containers, and machines, are given credentials.
const CONTAINER: &str = "http://169.254.170.2";
const MACHINE: &str = "http://169.254.169.254";
/// Whom a token of a container may be sent to without TLS.
const TRUSTED: [&str; 6] =
    ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]", "localhost", "127.0.0.1", "[::1]"];

/// Who somebody is to Amazon. Never printed.
pub(super) struct Credentials {
    pub(super) access: String,
    pub(super) secret: String,
    pub(super) session: Option<String>,
    /// When they expire, milliseconds since 1970; `None`: not by themselves.
    pub(super) expires: Option<i64>,
    /// Where they come from, for a person.
    pub(super) origin: String,
}

/// Where credentials are looked for.
pub(super) struct Sources<'a> {
    region: &'a str,
    env: &'a dyn Fn(&str) -> Option<String>,
    near: Agent,
}

/// What containers and machines are answered.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

type Found = Result<Option<Credentials>, Failure>;

impl<'a> Sources<'a> {
    pub(super) fn new(region: &'a str, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        // Not through a proxy: what is asked is on this machine.
        let near = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(NEAR))
            .proxy(None)
            .tls_config(tls::settings(None, None))
            .build();
        Self { region, env, near: near.into() }
    }

    /// The first credentials that there are.
    pub(super) fn find(&self) -> Result<Credentials, Failure> {
        let looks: [fn(&Self) -> Found; 5] = [
            Self::environment,
            Self::web_identity,
            Self::shared_file,
            Self::container,
            Self::machine,
        ];
        for look in looks {
            if let Some(found) = look(self)? {
                return Ok(found);
            }
        }
        Err(refused(
            "look for Amazon's credentials: there are none in the environment (AWS_ACCESS_KEY_ID), as web identity \
             (AWS_WEB_IDENTITY_TOKEN_FILE), in ~/.aws/credentials, for a container (AWS_CONTAINER_CREDENTIALS_FULL_URI) or \
             for this machine (its metadata at 169.254.169.254 does not answer); on EKS annotate the service account \
             with a role (eks.amazonaws.com/role-arn) or make a pod identity association",
        ))
    }

    fn var(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.trim().is_empty())
    }

    fn environment(&self) -> Found {
        let Some(access) = self.var("AWS_ACCESS_KEY_ID") else { return Ok(None) };
        let Some(secret) = self.var("AWS_SECRET_ACCESS_KEY") else {
            return Err(refused(
                "look for Amazon's credentials: AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not; set both",
            ));
        };
        let session = self.var("AWS_SESSION_TOKEN");
        let origin = "the environment".to_owned();
        Ok(Some(Credentials { access, secret, session, expires: None, origin }))
    }

    /// A role by the token that Kubernetes puts into a pod's file (IRSA).
    fn web_identity(&self) -> Found {
        let Some(file) = self.var("AWS_WEB_IDENTITY_TOKEN_FILE") else { return Ok(None) };
        let Some(role) = self.var("AWS_ROLE_ARN") else {
            return Err(refused(
                "look for Amazon's credentials: AWS_WEB_IDENTITY_TOKEN_FILE is set and AWS_ROLE_ARN is not; set both",
            ));
        };
        let token = text(Path::new(&file))?;
        let session = self.var("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "tidemill".to_owned());
        let more = if self.region.starts_with("cn-") { ".cn" } else { "" };
        let place = self
            .var("AWS_ENDPOINT_URL_STS")
            .unwrap_or_else(|| format!("https://sts.{}.amazonaws.com{more}", self.region));
        let body = format!(
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn={}&RoleSessionName={}&WebIdentityToken={}",
            encoded(&role),
            encoded(&session),
            encoded(token.trim())
        );
        let what = format!("assume the role {role} at {place}");
        let agent = tls::agent(FAR, tls::settings(None, None));
        let request = agent
            .post(format!("{}/", place.trim_end_matches('/')))
            .header("Content-Type", "application/x-www-form-urlencoded");
        let answer = answered(&what, request.send(body))?;
        let part = |name: &str| {
            let (_, rest) = answer.split_once(&format!("<{name}>"))?;
            rest.split_once(&format!("</{name}>")).map(|(value, _)| value.trim().to_owned())
        };
        let given =
            part("AccessKeyId").zip(part("SecretAccessKey")).map(|(access, secret)| Given {
                access_key_id: access,
                secret_access_key: secret,
                token: part("SessionToken"),
                expiration: part("Expiration"),
            });
        let given = given.ok_or_else(|| away(&format!("{what}: the answer has no credentials")))?;
        credentials(given, &what, format!("role {role}")).map(Some)
    }

    /// `~/.aws/credentials`, with keys that stand there themselves.
    fn shared_file(&self) -> Found {
        let home = self.var("HOME").map(|home| PathBuf::from(home).join(".aws/credentials"));
        let named = self.var("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
        let Some(path) = named.clone().or(home) else { return Ok(None) };
        if named.is_none() && !path.exists() {
            return Ok(None);
        }
        let profile = self.var("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
        Ok(profile_of(&text(&path)?, &profile, &path))
    }

    /// What ECS, or the agent of EKS' pod identities, gives.
    fn container(&self) -> Found {
        let relative = self.var("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let place = relative.map(|path| format!("{CONTAINER}{path}"));
        let Some(place) = place.or_else(|| self.var("AWS_CONTAINER_CREDENTIALS_FULL_URI")) else {
            return Ok(None);
        };
        let what = format!("ask {place} for the container's credentials");
        let host = place.strip_prefix("http://").map(|rest| {
            let host = rest.split('/').next().unwrap_or_default();
            if host.ends_with(']') {
                host
            } else {
                host.rsplit_once(':').map_or(host, |(host, _)| host)
            }
        });
        if host.is_some_and(|host| !TRUSTED.contains(&host)) {
            return Err(refused(&format!(
                "{what}: without TLS a token goes to this machine and to the agents of ECS and EKS alone; write https://"
            )));
        }
        let token = match self.var("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(file) => Some(text(Path::new(&file))?.trim().to_owned()),
            None => self.var("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
        };
        let mut request = self.near.get(&place);
        if let Some(token) = token {
            request = request.header("Authorization", token);
        }
        let given = json(&what, &answered(&what, request.call())?)?;
        credentials(given, &what, "the container".to_owned()).map(Some)
    }

    /// The role of an EC2 machine, by version 2 of its metadata.
    fn machine(&self) -> Found {
        let off = self.var("AWS_EC2_METADATA_DISABLED");
        if off.is_some_and(|off| off.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let place = self.var("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        let place =
            place.map_or_else(|| MACHINE.to_owned(), |p| p.trim_end_matches('/').to_owned());
        let asked = self
            .near
            .put(format!("{place}/latest/api/token"))
            .header("X-aws-ec2-metadata-token-ttl-seconds", "60")
            .send_empty();
        // No answer: it is no machine of Amazon's, or one that pods may not ask.
        let Ok(mut answer) = asked else { return Ok(None) };
        let Ok(token) = answer.body_mut().with_config().limit(MOST).read_to_string() else {
            return Ok(None);
        };
        let what = format!("ask {place} for this machine's role");
        let ask = |path: &str| {
            let request =
                self.near.get(format!("{place}/latest/meta-data/iam/security-credentials/{path}"));
            answered(&what, request.header("X-aws-ec2-metadata-token", token.trim()).call())
        };
        let role = ask("")?;
        let role = role.lines().next().unwrap_or_default().trim();
        let given = json(&what, &ask(role)?)?;
        credentials(given, &what, format!("this machine's role {role}")).map(Some)
    }
}

/// The keys of a profile in a shared file.
fn profile_of(text: &str, profile: &str, path: &Path) -> Option<Credentials> {
    let mut here = false;
    let (mut access, mut secret, mut session) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            here = name.trim_end_matches(']').trim() == profile;
        } else if here && let Some((name, value)) = line.split_once('=') {
            let value = Some(value.trim().to_owned());
            match name.trim() {
                "aws_access_key_id" => access = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => session = value,
                _ => {}
            }
        }
    }
    let origin = format!("profile {profile} in {}", path.display());
    Some(Credentials { access: access?, secret: secret?, session, expires: None, origin })
}

fn credentials(given: Given, what: &str, origin: String) -> Result<Credentials, Failure> {
    let expires = given.expiration.map(|text| {
        let at: Result<jiff::Timestamp, _> = text.parse();
        at.map(jiff::Timestamp::as_millisecond)
            .map_err(|error| away(&format!("{what}: when they expire cannot be read: {error}")))
    });
    Ok(Credentials {
        access: given.access_key_id,
        secret: given.secret_access_key,
        session: given.token,
        expires: expires.transpose()?,
        origin,
    })
}

fn json(what: &str, answer: &str) -> Result<Given, Failure> {
    // The answer may have a secret in it, and the reader's own words quote it.
    serde_json::from_str(answer).map_err(|error| {
        let line = error.line();
        away(&format!("{what}: line {line} of the answer is not what credentials look like"))
    })
}

fn text(path: &Path) -> Result<String, Failure> {
    let bytes = file::read(path, MOST, Links::Follow).map_err(|error| {
        refused(&format!(
            "read {} for Amazon's credentials: {error}; let this user read it",
            path.display()
        ))
    })?;
    String::from_utf8(bytes).map_err(|error| {
        refused(&format!(
            "read {} for Amazon's credentials: {error}; it is to be text",
            path.display()
        ))
    })
}

/// The body of an answer that is one. What refuses says why in it, without secrets of ours.
pub(super) fn answered(
    what: &str,
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<String, Failure> {
    let mut answer = answer.map_err(|error| away(&format!("{what}: {error}")))?;
    let status = answer.status();
    let body = answer.body_mut().with_config().limit(MOST).read_to_string();
    let body = body.map_err(|error| away(&format!("{what}: {error}")))?;
    if status.is_success() {
        return Ok(body);
    }
    let said: String = body.chars().filter(|c| !c.is_control()).take(400).collect();
    let message = format!("{what}: it answers {status}: {said}");
    // Who is refused is refused again; what is only busy or broken is not.
    let final_ = status.is_client_error() && ![408, 425, 429].contains(&status.as_u16());
    Err(if final_ { refused(&message) } else { away(&message) })
}

fn away(message: &str) -> Failure {
    Failure { message: message.to_owned(), exit: Exit::Temporary }
}

fn refused(message: &str) -> Failure {
    Failure { message: message.to_owned(), exit: Exit::Config }
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;

//! Tokens for Amazon MSK's IAM: a signed request to connect, in base64, as Amazon's own signers make it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::sign::{self, Request, Signer};
use super::sources::{Credentials, Sources};
use super::{Issue, Token, now_ms};
use crate::config::{Kafka, properties};
use crate::failure::{Exit, Failure};
use crate::tls::USER_AGENT;

/// How long a token holds, where the credentials do: as long as Amazon lets it.
const SECONDS: u32 = 900;

/// Makes tokens for these brokers.
pub(super) fn issuer(kafka: &Kafka) -> Issue {
    let servers = properties::servers(kafka).unwrap_or_default().to_owned();
    Box::new(move || {
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let region = region(&servers, &env)?;
        let credentials = Sources::new(&region, &env).find()?;
        token(&credentials, &region, now_ms())
    })
}

/// The region of the brokers, by their names, else by the environment.
fn region(servers: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Failure> {
    let of = |server: &str| {
        let host = server.trim().rsplit_once(':').map_or(server, |(host, _)| host);
        let host = host.strip_suffix(".cn").unwrap_or(host).strip_suffix(".amazonaws.com")?;
        Some(host.rsplit_once('.')?.1.to_owned())
    };
    servers
        .split(',')
        .find_map(of)
        .or_else(|| env("AWS_REGION"))
        .or_else(|| env("AWS_DEFAULT_REGION"))
        .ok_or_else(|| Failure {
            message: format!(
                "sign tokens for Amazon MSK: neither the brokers' names ({servers}) nor $AWS_REGION say in which region \
                 they are; set AWS_REGION"
            ),
            exit: Exit::Config,
        })
}

fn token(credentials: &Credentials, region: &str, now: i64) -> Result<Token, Failure> {
    let expires = now.saturating_add(i64::from(SECONDS) * 1_000);
    let expires = credentials.expires.map_or(expires, |until| until.min(expires));
    if expires <= now {
        let message = format!(
            "sign tokens for Amazon MSK: the credentials of {} have expired; renew them",
            credentials.origin
        );
        return Err(Failure { message, exit: Exit::Temporary });
    }
    let at = jiff::Timestamp::from_millisecond(now).unwrap_or_default();
    let at = at.strftime("%Y%m%dT%H%M%SZ").to_string();
    let host = format!("kafka.{region}.amazonaws.com");
    let empty = sign::hex(&Sha256::digest(b""));
    let request = Request {
        host: &host,
        path: "/",
        query: &[("Action", "kafka-cluster:Connect")],
        region,
        service: "kafka-cluster",
        payload: &empty,
        at: &at,
        seconds: SECONDS,
    };
    let signer = Signer {
        access: &credentials.access,
        secret: &credentials.secret,
        session: credentials.session.as_deref(),
    };
    // Who asks is not part of what is signed.
    let url = sign::presigned(&request, &signer) + "&User-Agent=" + &sign::encoded(USER_AGENT);
    Ok(Token {
        value: URL_SAFE_NO_PAD.encode(url),
        principal: credentials.access.clone(),
        expires,
        extensions: Vec::new(),
        origin: format!("signed for {region} with the credentials of {}", credentials.origin),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(session: Option<&str>, expires: Option<i64>) -> Credentials {
        Credentials {
            access: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            session: session.map(str::to_owned),
            expires,
            origin: "a test".to_owned(),
        }
    }

    /// 2026-11-26T12:00:00Z.
    const NOW: i64 = 1_795_694_400_000;

    /// What botocore signs for aws-msk-iam-sasl-signer-python at that time with these credentials.
    #[test]
    fn a_token_is_the_one_that_amazons_own_signer_makes() {
        let session = "IQoJb3JpZ2luX2VjEJr//////////wEaCWV1LXdlc3QtMSJHMEUCIQ==";
        for (session, signature) in [
            (Some(session), "aed54d002869e9866329db6f529704c515cbfe70798d57dc281bdd95755c5fb8"),
            (None, "060989f31f27590f2ebffdee59db15a18e0b859592fa191ee59292b649869ee2"),
        ] {
            let token = token(&credentials(session, None), "eu-west-1", NOW).unwrap();
            let url = String::from_utf8(URL_SAFE_NO_PAD.decode(token.value).unwrap()).unwrap();
            let begin = "https://kafka.eu-west-1.amazonaws.com/?Action=kafka-cluster%3AConnect&X-Amz-Algorithm=";
            assert!(url.starts_with(begin), "{url}");
            assert!(
                url.contains(&format!("&X-Amz-Signature={signature}&User-Agent=tidemill%2F")),
                "{url}"
            );
            assert_eq!(url.contains("X-Amz-Security-Token=IQoJ"), session.is_some());
            assert_eq!(token.expires, NOW + 900_000);
        }
    }

    #[test]
    fn a_token_holds_no_longer_than_the_credentials() {
        let short = token(&credentials(None, Some(NOW + 60_000)), "eu-west-1", NOW).unwrap();
        assert_eq!(short.expires, NOW + 60_000);
        let gone = token(&credentials(None, Some(NOW)), "eu-west-1", NOW).err().unwrap();
        assert!(gone.message.contains("have expired") && gone.exit == Exit::Temporary);
    }

    #[test]
    fn the_region_stands_in_the_brokers_names_or_in_the_environment() {
        let none = |_: &str| None;
        let set = |name: &str| (name == "AWS_REGION").then(|| "us-west-2".to_owned());
        for (servers, env, stands) in [
            (
                "b-1.events.ab12cd.c2.kafka.eu-west-1.amazonaws.com:9098",
                &none as &dyn Fn(&str) -> _,
                Some("eu-west-1"),
            ),
            ("boot-x.c1.kafka-serverless.us-east-2.amazonaws.com:9098", &none, Some("us-east-2")),
            ("b-1.e.a.c2.kafka.cn-north-1.amazonaws.com.cn:9098, x:1", &none, Some("cn-north-1")),
            ("kafka.internal:9098", &set, Some("us-west-2")),
            ("amazonaws.com:9098", &none, None),
            ("kafka.internal:9098", &none, None),
            ("", &none, None),
        ] {
            assert_eq!(region(servers, env).ok().as_deref(), stands, "{servers}");
        }
        let missing = region("kafka.internal:9098", &none).unwrap_err();
        assert!(missing.message.contains("set AWS_REGION") && missing.exit == Exit::Config);
    }
}

//! Who a client says it is where that is a token that expires: the mechanism OAUTHBEARER, and Amazon's use of it.
//!
//! librdkafka has no word for Amazon's, and this build of it fetches no tokens. So the service gets them
//! ([`kafka::identity`](crate::kafka::identity)), and what is written for that is not passed on.

use super::owned::canonical;
use super::{Kafka, Problem, properties, tree};

/// Amazon MSK's mechanism, by the name that Java's client and KEDA have for it. On the wire it is OAUTHBEARER.
pub const AWS_MSK_IAM: &str = "AWS_MSK_IAM";

/// On the wire.
pub const OAUTHBEARER: &str = "OAUTHBEARER";

/// Where tokens come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tokens {
    /// There are none: no SASL, or a mechanism with a password, a certificate or a ticket.
    #[default]
    None,
    /// They are signed here with Amazon's credentials.
    Amazon,
    /// A server gives them to who has a client id and its secret.
    Granted,
}

/// Where the tokens of these clients come from.
pub fn tokens(kafka: &Kafka) -> Tokens {
    let upper = |name| common(kafka, name).map(|value| value.trim().to_ascii_uppercase());
    let protocol = upper("security.protocol").unwrap_or_default();
    match upper("sasl.mechanisms").as_deref() {
        Some(AWS_MSK_IAM) => Tokens::Amazon,
        Some(OAUTHBEARER) if protocol.starts_with("SASL") => Tokens::Granted,
        Some(_) | None => Tokens::None,
    }
}

/// The value of a property for all clients, under whichever name it stands.
pub fn common<'a>(kafka: &'a Kafka, name: &str) -> Option<&'a str> {
    let given = kafka.common.iter().find(|(other, _)| canonical(other) == name);
    given.map(|(_, value)| value.as_str()).filter(|value| !value.trim().is_empty())
}

/// Whether a property, by its first name, says how tokens are got, and is not for librdkafka.
pub fn is_ours(kafka: &Kafka, name: &str) -> bool {
    let about = name.starts_with("sasl.oauthbearer.") || name.starts_with("https.ca.");
    about && tokens(kafka) == Tokens::Granted && properties::is_property(name)
}

/// What `sasl.oauthbearer.extensions` lists: `logicalCluster=lkc-1,identityPoolId=pool-1`.
pub fn extensions(kafka: &Kafka) -> Vec<(String, String)> {
    let listed = common(kafka, "sasl.oauthbearer.extensions").unwrap_or_default().split(',');
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((name.trim().to_owned(), value.trim().to_owned()))
    };
    listed.filter_map(pair).collect()
}

/// Where the secret goes over a network without TLS; `None` where it does not.
pub fn in_the_clear(kafka: &Kafka) -> Option<&str> {
    let url = common(kafka, "sasl.oauthbearer.token.endpoint.url")?;
    let host = url.strip_prefix("http://")?;
    let near = ["localhost", "127.", "[::1]"].iter().any(|near| host.starts_with(near));
    (tokens(kafka) == Tokens::Granted && !near).then_some(url)
}

/// Needed to be given a token.
const NEEDED: [(&str, &str); 3] = [
    ("sasl.oauthbearer.token.endpoint.url", "write the address that gives tokens"),
    ("sasl.oauthbearer.client.id", "write the id that the tokens' server knows this service by"),
    ("sasl.oauthbearer.client.secret", "write it as `${file:PATH}` or `${env:NAME}`"),
];

/// What librdkafka could do and this build does not.
const NOT_HERE: [&str; 3] =
    ["sasl.oauthbearer.assertion.", "sasl.oauthbearer.metadata.authentication.", "https.ca.pem"];

/// What is wrong with what is written about tokens.
pub fn problems(kafka: &Kafka) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut add = |name: &str, message: String, remedy: &str| {
        found.push(Problem::new(tree::shown(&format!("kafka.common.{name}")), message, remedy));
    };
    for (section, given) in [("consumer", &kafka.consumer), ("producer", &kafka.producer)] {
        let mechanism = given.iter().find(|(name, _)| canonical(name) == "sasl.mechanisms");
        let named = mechanism.map(|(_, value)| value.trim().to_ascii_uppercase());
        if named.is_some_and(|name| [AWS_MSK_IAM, OAUTHBEARER].contains(&name.as_str())) {
            let message =
                format!("stands under kafka.{section}, and all clients show the same token");
            add("sasl.mechanisms", message, "write it under kafka.common");
        }
    }
    match tokens(kafka) {
        Tokens::None => {}
        Tokens::Amazon => {
            let protocol = common(kafka, "security.protocol").unwrap_or("not set");
            if !protocol.trim().eq_ignore_ascii_case("sasl_ssl") {
                let message =
                    format!("is {protocol}, and {AWS_MSK_IAM} is spoken over SASL_SSL alone");
                let remedy = "write SASL_SSL; the brokers' port for it is 9098";
                add("security.protocol", message, remedy);
            }
        }
        Tokens::Granted => granted(kafka, &mut add),
    }
    found
}

fn granted(kafka: &Kafka, add: &mut impl FnMut(&str, String, &str)) {
    let method = common(kafka, "sasl.oauthbearer.method").unwrap_or_default();
    if !method.trim().eq_ignore_ascii_case("oidc") {
        let message = "is OAUTHBEARER, and nothing says where a token comes from: unsigned ones, which librdkafka \
                       makes by itself, are taken by no broker that is in use"
            .to_owned();
        let remedy = "write sasl.oauthbearer.method: oidc with sasl.oauthbearer.token.endpoint.url, client.id and \
                      client.secret; for Amazon MSK write sasl.mechanisms: AWS_MSK_IAM";
        add("sasl.mechanisms", message, remedy);
        return;
    }
    for (name, remedy) in NEEDED {
        if common(kafka, name).is_none() {
            add(
                name,
                "is required with sasl.oauthbearer.method: oidc, and not set".to_owned(),
                remedy,
            );
        }
    }
    let url = common(kafka, NEEDED[0].0).unwrap_or("https://");
    if !["https://", "http://"].iter().any(|scheme| url.starts_with(scheme)) {
        add(
            NEEDED[0].0,
            "begins with neither https:// nor http://".to_owned(),
            "write the whole URL",
        );
    }
    let listed = common(kafka, "sasl.oauthbearer.extensions").unwrap_or_default();
    if !listed.is_empty() && listed.split(',').count() != extensions(kafka).len() {
        let remedy =
            "write NAME=VALUE, separated by commas: `logicalCluster=lkc-1,identityPoolId=pool-1`";
        add("sasl.oauthbearer.extensions", "has a part that is no NAME=VALUE".to_owned(), remedy);
    }
    let grant = common(kafka, "sasl.oauthbearer.grant.type").unwrap_or("client_credentials");
    if grant.trim() != "client_credentials" {
        let message =
            "is another one than `client_credentials`, and no other is known here".to_owned();
        add(
            "sasl.oauthbearer.grant.type",
            message,
            "leave it out, and set client.id and client.secret",
        );
    }
    for name in kafka.common.keys().filter(|name| NOT_HERE.iter().any(|not| name.starts_with(not)))
    {
        let message = "is about a way to a token that is not known here".to_owned();
        let remedy = "leave it out; what is known: client.id, client.secret, scope, extensions, \
                      token.endpoint.url and https.ca.location";
        add(name, message, remedy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn kafka(pairs: &[(&str, &str)]) -> Kafka {
        let mut kafka = Config::default().kafka;
        kafka.common.extend(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        kafka
    }

    const WHOLE: [(&str, &str); 6] = [
        ("security.protocol", "sasl_ssl"),
        ("sasl.mechanism", "oauthbearer"),
        ("sasl.oauthbearer.method", "OIDC"),
        ("sasl.oauthbearer.token.endpoint.url", "https://id.example.com/token"),
        ("sasl.oauthbearer.client.credentials.client.id", "tidemill"),
        ("sasl.oauthbearer.client.secret", "hunter2"),
    ];

    #[test]
    fn tokens_that_can_be_had_pass_and_others_say_what_is_missing() {
        assert_eq!(problems(&kafka(&WHOLE)), []);
        assert_eq!(tokens(&kafka(&WHOLE)), Tokens::Granted);
        let amazon = [("security.protocol", "SASL_SSL"), ("sasl.mechanisms", "aws_msk_iam")];
        assert_eq!((tokens(&kafka(&amazon)), problems(&kafka(&amazon)).len()), (Tokens::Amazon, 0));
        for (change, key, said) in [
            (("sasl.oauthbearer.method", "default"), "sasl.mechanisms", "where a token comes from"),
            (("sasl.oauthbearer.client.secret", ""), "client.secret", "is required"),
            (("sasl.oauthbearer.token.endpoint.url", "id/token"), "token.endpoint.url", "https://"),
            (("sasl.oauthbearer.grant.type", "jwt-bearer"), "grant.type", "client_credentials"),
            (("sasl.oauthbearer.assertion.file", "/jwt"), "assertion.file", "not known here"),
            (("sasl.oauthbearer.extensions", "a=b,c"), "extensions", "NAME=VALUE"),
            (("https.ca.pem", "-----BEGIN"), "https.ca.pem", "not known here"),
            (("sasl.mechanism", "AWS_MSK_IAM"), "", ""),
        ] {
            let mut kafka = kafka(&WHOLE);
            kafka.common.insert(change.0.to_owned(), change.1.to_owned());
            let found: Vec<String> = problems(&kafka).iter().map(ToString::to_string).collect();
            assert_eq!(found.len(), usize::from(!key.is_empty()), "{change:?}: {found:?}");
            assert!(
                found.iter().all(|f| f.contains(key) && f.contains(said)),
                "{change:?}: {found:?}"
            );
            assert!(!found.join("").contains("hunter2"));
        }
        let plain =
            kafka(&[("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanisms", "AWS_MSK_IAM")]);
        assert!(problems(&plain)[0].to_string().contains("9098"));
        let mut apart = kafka(&[]);
        apart.producer.insert("sasl.mechanism".to_owned(), "OAUTHBEARER".to_owned());
        assert!(problems(&apart)[0].to_string().contains("write it under kafka.common"));
    }

    #[test]
    fn what_is_about_tokens_is_known_by_name() {
        let kafka = kafka(&WHOLE);
        assert!(is_ours(&kafka, "sasl.oauthbearer.scope") && is_ours(&kafka, "https.ca.location"));
        assert!(!is_ours(&kafka, "sasl.oauthbearer.skope") && !is_ours(&kafka, "sasl.username"));
        assert!(!is_ours(&Config::default().kafka, "sasl.oauthbearer.scope"));
    }

    #[test]
    fn a_secret_that_goes_over_a_network_in_the_clear_is_noticed() {
        for (url, clear) in [
            ("https://id.example.com/token", false),
            ("http://id.example.com/token", true),
            ("http://localhost:8080/token", false),
            ("http://127.0.0.1:8080/token", false),
        ] {
            let mut kafka = kafka(&WHOLE);
            kafka.common.insert("sasl.oauthbearer.token.endpoint.url".to_owned(), url.to_owned());
            assert_eq!(in_the_clear(&kafka), clear.then_some(url));
        }
    }
}

//! What a user may set of librdkafka's properties: passed on or refused with the reason, never dropped ([`refusal`]).

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use super::owned::{self, Client, Ours, canonical};
use super::{Kafka, identity, secret};

mod known;

pub use known::{is_property, properties};

/// Where every accepted value of a property is said.
const MANUAL: &str = "https://github.com/confluentinc/librdkafka/blob/v2.12.1/CONFIGURATION.md";

/// A section of the file whose keys are librdkafka's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// `kafka.common`: for all clients.
    Common,
    /// `kafka.consumer`.
    Consumer,
    /// `kafka.producer`.
    Producer,
}

impl Section {
    /// All, in the order in which a later one wins.
    pub const ALL: [Self; 3] = [Self::Common, Self::Consumer, Self::Producer];

    /// The key of the section.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Common => "kafka.common",
            Self::Consumer => "kafka.consumer",
            Self::Producer => "kafka.producer",
        }
    }

    /// What the file has in it.
    pub const fn of(self, kafka: &Kafka) -> &BTreeMap<String, String> {
        match self {
            Self::Common => &kafka.common,
            Self::Consumer => &kafka.consumer,
            Self::Producer => &kafka.producer,
        }
    }
}

/// Why `property` cannot be `value` in `section`, and what to do: never with the value, which may be a secret.
/// `None` where it is passed on to librdkafka as it is.
///
/// # Examples
///
/// ```
/// use tidemill::config::Config;
/// use tidemill::config::properties::{Section, refusal};
///
/// let kafka = Config::default().kafka;
/// let (message, _) = refusal(&kafka, Section::Common, "enable.auto.commit", "true").unwrap();
/// assert!(message.contains("inside the transaction"));
/// assert_eq!(refusal(&kafka, Section::Common, "ssl.ca.location", "/ca.pem"), None);
/// ```
pub fn refusal(
    kafka: &Kafka,
    section: Section,
    property: &str,
    value: &str,
) -> Option<(String, String)> {
    let name = canonical(property);
    if group_protocol_is_the_brokers(kafka) && owned::CLASSIC.contains(&name) {
        let message =
            "cannot be set with group.protocol: consumer: the broker says it for the whole group";
        let remedy = "leave it out: the brokers' own settings group.consumer.* say it";
        return Some((message.to_owned(), remedy.to_owned()));
    }
    if let Some(owned) = owned::OWNED.iter().find(|owned| owned.name == name) {
        return match owned.ours {
            Ours::Fixed(ours) if ours == value => None,
            Ours::Fixed(ours) => Some((
                format!("cannot be set: it is `{ours}`, because {}", owned.why),
                owned.remedy(),
            )),
            Ours::Made(from) => Some((
                format!("cannot be set: it is made from {from}, because {}", owned.why),
                owned.remedy(),
            )),
            Ours::Never => Some((format!("cannot be set: {}", owned.why), owned.remedy())),
        };
    }
    let client = owned::client_of(name);
    let wrong = match (section, client) {
        (Section::Consumer, Client::Producer) => Some(("producers", Section::Producer)),
        (Section::Producer, Client::Consumer) => Some(("consumer", Section::Consumer)),
        _ => None,
    };
    if let Some((whose, place)) = wrong {
        let message = format!("is a property of the {whose}: it would do nothing here");
        return Some((message, format!("write it under {}", place.key())));
    }
    let twice =
        section.of(kafka).keys().find(|other| *other != property && canonical(other) == name);
    if let Some(other) = twice {
        let message = format!("and `{other}` are two names of one property");
        return Some((message, "leave one of them out".to_owned()));
    }
    if value.contains('\0') {
        let message = "has a NUL character in it, where librdkafka would take it for the end";
        return Some((message.to_owned(), "leave that character out".to_owned()));
    }
    // In a PEM text white space means nothing.
    let pem = name.rsplit('.').next() == Some("pem");
    if value.starts_with([' ', '\t', '\n', '\r', '\x0b', '\x0c']) && !pem {
        let message = "begins with white space, which librdkafka cuts off";
        return Some((message.to_owned(), "write the value without it".to_owned()));
    }
    if identity::is_ours(kafka, name) {
        return None; // judged together
    }
    by_librdkafka(property, value)
}

/// What librdkafka itself says of a property.
pub(crate) fn by_librdkafka(property: &str, value: &str) -> Option<(String, String)> {
    let mut one = ClientConfig::new();
    one.set(property, value);
    match one.create_native_config() {
        Ok(_) => None,
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            let java = owned::JAVA.iter().find(|(java, _)| *java == property);
            let near = || nearest(property).map(|near| format!("did you mean `{near}`?"));
            let remedy = java
                .map(|(_, instead)| (*instead).to_owned())
                .or_else(near)
                .unwrap_or_else(|| format!("leave it out; all properties: {MANUAL}"));
            Some(("is not a property of librdkafka".to_owned(), remedy))
        }
        Err(error) => {
            let java = owned::JAVA.iter().find(|(java, _)| *java == property);
            let remedy = java.map_or_else(
                || format!("write a value that it takes: {MANUAL}"),
                |(_, instead)| (*instead).to_owned(),
            );
            Some((why(&error).unwrap_or_else(|| REFUSED.to_owned()), remedy))
        }
    }
}

const REFUSED: &str = "has a value that librdkafka does not take";

/// Why librdkafka does not take a property's value, without the value; `None` where `error` is another one.
///
/// Its own sentences quote the value, in one form or another, so only those parts are kept that cannot have it.
pub(crate) fn why(error: &KafkaError) -> Option<String> {
    let KafkaError::ClientConfig(code, said, ..) = error else { return None };
    if *code == RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN {
        return Some("is not a property of librdkafka".to_owned());
    }
    // These two begin with the name, which may be the first one of a second name, and quote no text.
    let named = said.strip_prefix("Configuration property \"").unwrap_or_default();
    let build = named.split_once("\" not supported in this build: ");
    let range = named.rsplit_once(" allowed range ");
    Some(if let Some((_, reason)) = build {
        format!("is not supported by this build of librdkafka: {reason}")
    } else if let Some((_, range)) = range {
        format!("is outside of its range, {}", range.trim_end())
    } else if said.contains("true or false") {
        "is neither `true` nor `false`".to_owned()
    } else if said.contains("to empty value") {
        "is empty".to_owned()
    } else {
        REFUSED.to_owned()
    })
}

/// The property that was probably meant.
fn nearest(property: &str) -> Option<String> {
    let names = properties().into_iter().chain(owned::ALIASES.map(|(alias, _)| alias.to_owned()));
    names
        .map(|name| (strsim::jaro_winkler(property, &name), name))
        .filter(|(score, _)| 0.85 < *score)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// Whether a property's value is a secret by its name, whoever wrote it where. A name that librdkafka does not know
/// may be that of a secret with a slip in it.
pub fn sensitive(property: &str) -> bool {
    property.split('.').any(|part| part == "jaas" || secret::names_secret(part))
        || property.starts_with("sasl.oauthbearer.config")
        || property.starts_with("sasl.oauthbearer.extensions")
        || !is_property(property)
}

/// Whether KIP-848's protocol is chosen, in which the broker assigns partitions.
pub fn group_protocol_is_the_brokers(kafka: &Kafka) -> bool {
    let chosen =
        kafka.consumer.get("group.protocol").or_else(|| kafka.common.get("group.protocol"));
    chosen.is_some_and(|protocol| protocol.trim_start().eq_ignore_ascii_case("consumer"))
}

/// The addresses of the brokers, as the file has them.
pub fn servers(kafka: &Kafka) -> Option<&str> {
    let named = |name: &&String| canonical(name) == "bootstrap.servers";
    let (_, servers) = kafka.common.iter().find(|(name, _)| named(name))?;
    (!servers.trim().is_empty()).then_some(servers)
}

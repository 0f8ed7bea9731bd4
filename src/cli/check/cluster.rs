//! Asks the cluster. It writes nothing and joins no group.

#![expect(
    clippy::disallowed_methods,
    reason = "a deadline for hosts that do not answer is wall time"
)]

use std::collections::BTreeMap;
use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::metadata::Metadata;
use rdkafka::producer::BaseProducer;
use rdkafka::types::RDKafkaErrorCode;

use super::facts::{Broker, Described, Facts, Settings, Topic};
use super::{Asked, Finding, create, judge, silent, topics};
use crate::config::identity::tokens;
use crate::config::{Config, identity};
use crate::kafka::{Journal, journal, native, settings};

/// How long a broker may take to accept a connection, and then to answer.
pub(super) const EACH: Duration = Duration::from_secs(5);

/// How long what a client has said is listened to.
const LISTEN: Duration = Duration::from_millis(300);

/// Passes the client's log on, and takes from it what librdkafka tells nowhere else.
#[derive(Debug, Default)]
struct Heard {
    journal: Journal,
    /// What the brokers understand: the newest version of each request.
    requests: Mutex<BTreeMap<i16, i16>>,
    /// Brokers that the client does not reach at the address that the cluster gives.
    unreached: Mutex<BTreeMap<i32, Broker>>,
}

impl Heard {
    fn note(&self, line: &str) {
        if let Some(broker) = advertised(&self.journal.clean(line)) {
            let mut unreached = self.unreached.lock().unwrap_or_else(PoisonError::into_inner);
            unreached.insert(broker.id, broker);
        }
    }
}

impl ClientContext for Heard {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        if let Some((request, newest)) = understood(line) {
            let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            // What all brokers understand counts.
            let known = requests.entry(request).or_insert(newest);
            *known = newest.min(*known);
        }
        if level as i32 <= RDKafkaLogLevel::Warning as i32 {
            self.note(line);
        }
        self.journal.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.note(reason);
        ClientContext::error(&self.journal, error, reason);
    }
}

impl ConsumerContext for Heard {}

/// Number and newest version in `… ApiKey TxnOffsetCommit (28) Versions 0..5`.
fn understood(line: &str) -> Option<(i16, i16)> {
    let (_, rest) = line.split_once("ApiKey ")?;
    let (_, rest) = rest.split_once('(')?;
    let (request, rest) = rest.split_once(") Versions ")?;
    let (_, newest) = rest.split_once("..")?;
    Some((request.parse().ok()?, newest.trim_end().parse().ok()?))
}

/// Number, address and cause in `sasl_ssl://kafka-2:9092/2: Failed to resolve …`. Before the cluster's own answer there
/// is no number, but `bootstrap`.
fn advertised(line: &str) -> Option<Broker> {
    let line = journal::without_thread(line);
    let (address, rest) =
        line.split_once('/').filter(|(before, _)| !before.ends_with(':')).or_else(|| {
            let (_, line) = line.split_once("://")?;
            line.split_once('/')
        })?;
    let (id, why) = rest.split_once(": ")?;
    let broker = Broker {
        id: id.parse().ok()?,
        address: address.to_owned(),
        unreached: Some(why.to_owned()),
    };
    address.contains(':').then_some(broker)
}

/// What is found about the cluster, within about `within` for the first answer.
///
/// What is not there is created, with so many partitions of an input, where `create` says so.
pub(super) fn look(
    config: &Config,
    instance: &str,
    within: Duration,
    create: Option<usize>,
) -> Vec<Finding> {
    let journal = Journal::new(config);
    let mut findings = clients(config, instance, &journal);
    let mut settings = settings::look(config, instance);
    let debug = settings
        .get("debug")
        .map_or_else(|| "feature".to_owned(), |debug| format!("{debug},feature"));
    settings.set("debug", debug).set_log_level(RDKafkaLogLevel::Debug);
    let what = format!("kafka at {}", judge::named(config));
    let heard = Heard { journal: journal.clone(), ..Heard::default() };
    let consumer: BaseConsumer<Heard> = match settings.create_with_context(heard) {
        Ok(consumer) => consumer,
        // Already said: all clients share these properties.
        Err(_) if !findings.is_empty() => return findings,
        Err(error) => {
            let remedy = "correct it under kafka.common";
            findings.push(Finding::problem(what, journal.text(&error), remedy));
            return findings;
        }
    };
    if !token(config, &consumer, &journal, &mut findings) {
        return findings;
    }
    match consumer.fetch_metadata(None, within) {
        Ok(metadata) => {
            let mut facts = ask(config, &consumer, &metadata, &settings, &journal);
            while let Some(inputs) = create {
                let (made, done) = create::create(config, &facts, &settings, &journal, inputs);
                let created = made.len();
                findings.extend(made);
                if created == 0 || !done {
                    break;
                }
                let there = facts.topics.len() + created;
                let Some(metadata) = seen(config, &consumer, there) else { break };
                // What brokers understand is told once a connection.
                let requests = facts.requests;
                facts =
                    Facts { requests, ..ask(config, &consumer, &metadata, &settings, &journal) };
            }
            findings.extend(judge::judge(config, &facts));
        }
        Err(error) => {
            listen(&consumer);
            let unreached = &consumer.context().unreached;
            let unreached =
                std::mem::take(&mut *unreached.lock().unwrap_or_else(PoisonError::into_inner));
            if unreached.is_empty() {
                let cause = journal.cause().unwrap_or_default();
                let tokens = tokens(&config.kafka);
                findings.push(silent::unreachable(
                    what,
                    within,
                    &journal.text(&error),
                    (&cause, tokens),
                ));
            }
            // The first question was answered, and the next one goes where that answer says.
            let unreached = connect(unreached.into_values().collect());
            findings.extend(unreached.iter().filter_map(judge::unreached));
        }
    }
    findings
}

/// Shows the brokers the token that they want; whether there is one, or none is wanted.
fn token(
    config: &Config,
    consumer: &BaseConsumer<Heard>,
    journal: &Journal,
    findings: &mut Vec<Finding>,
) -> bool {
    let what = "token for kafka";
    if let Some(url) = identity::in_the_clear(&config.kafka) {
        let message = format!("the client's secret goes to {url} without TLS");
        findings.push(Finding::warning(what, message, "write https://"));
    }
    if let Err(failure) = journal.identity().ready() {
        let message = journal.clean(&failure.message);
        findings.push(Finding::problem(
            what,
            message,
            "correct what gives tokens, then check again",
        ));
        return false;
    }
    journal.identity().show(consumer.client());
    if let Some((origin, holds)) = journal.identity().origin() {
        findings.push(Finding::ok(what, format!("{origin}; it holds for {} s", holds.as_secs())));
    }
    true
}

/// What the cluster says once it knows so many of our topics: it takes a moment from one that was created until every
/// broker has heard of it.
fn seen(config: &Config, consumer: &BaseConsumer<Heard>, topics: usize) -> Option<Metadata> {
    let deadline = Instant::now() + EACH;
    loop {
        let metadata = consumer.fetch_metadata(None, EACH).ok()?;
        if topics <= described(config, &metadata).len() || deadline <= Instant::now() {
            return Some(metadata);
        }
        drop(consumer.poll(Duration::from_millis(100)));
    }
}

/// Takes in what the client has said so far: its log and its errors are events until they are polled, and a poll takes
/// one of them.
fn listen(consumer: &BaseConsumer<Heard>) {
    let deadline = Instant::now() + LISTEN;
    while Instant::now() < deadline {
        drop(consumer.poll(Duration::from_millis(10)));
    }
}

/// The clients of the service are made, and never connected: librdkafka has rules between properties.
fn clients(config: &Config, instance: &str, journal: &Journal) -> Vec<Finding> {
    let consumer: KafkaResult<BaseConsumer> = settings::consumer(config, instance, 1).create();
    let tuning = settings::Tuning {
        limit: settings::DEFAULT_LIMIT,
        isolated: false,
        backoff: settings::backoff(Duration::ZERO),
    };
    let producer: KafkaResult<BaseProducer> =
        settings::producer(config, instance, 0, tuning).create();
    let problems = [("kafka consumer", consumer.err()), ("kafka producer", producer.err())];
    problems
        .into_iter()
        .filter_map(|(what, error)| {
            let remedy = "correct it under kafka.common, kafka.consumer or kafka.producer";
            Some(Finding::problem(what, journal.text(&error?), remedy))
        })
        .collect()
}

fn ask(
    config: &Config,
    consumer: &BaseConsumer<Heard>,
    metadata: &Metadata,
    settings: &ClientConfig,
    journal: &Journal,
) -> Facts {
    let brokers = metadata.brokers().iter().map(|broker| Broker {
        id: broker.id(),
        address: format!("{}:{}", broker.host(), broker.port()),
        unreached: None,
    });
    let mut brokers = connect(brokers.collect());
    let admin = settings.create_with_context::<_, AdminClient<Journal>>(journal.clone());
    let mut broker = None;
    if let Ok(admin) = &admin {
        journal.identity().show(admin.inner());
        for seen in brokers.iter_mut().filter(|seen| seen.unreached.is_none()) {
            match configuration(admin, &ResourceSpecifier::Broker(seen.id)) {
                Ok(settings) => broker = Some(settings),
                Err(Asked::Refused) => (),
                Err(Asked::Unanswered(error)) => seen.unreached = Some(cause(journal, &error)),
            }
        }
    }
    let mut facts = Facts {
        cluster: consumer.client().fetch_cluster_id(EACH),
        topics: described(config, metadata),
        broker,
        requests: BTreeMap::new(),
        group: None,
        brokers,
        ..Facts::default()
    };
    // What is asked now goes to brokers of the cluster's choice.
    if facts.brokers.iter().any(|broker| broker.unreached.is_some()) {
        return facts;
    }
    let names = topics::names(config);
    let there: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| facts.topics.contains_key(*name)).collect();
    let ids = native::describe_topics(consumer.client(), &there, EACH).unwrap_or_default();
    facts.allowed = native::allowed_topics(consumer.client(), &there, EACH).unwrap_or_default();
    for name in there {
        if let Some(topic) = facts.topics.get_mut(name) {
            // Where the question itself is not understood, there are no ids.
            topic.id = ids.get(name).is_some_and(|topic| topic.id.is_some());
            let asked =
                admin.as_ref().map(|admin| configuration(admin, &ResourceSpecifier::Topic(name)));
            topic.settings = asked.ok().and_then(Result::ok);
        }
    }
    let name = &config.kafka.group;
    facts.group = Some(group(consumer, name, journal));
    facts.allowed_group = native::allowed_group(consumer.client(), name, EACH).unwrap_or_default();
    listen(consumer);
    let requests = &consumer.context().requests;
    facts.requests = std::mem::take(&mut *requests.lock().unwrap_or_else(PoisonError::into_inner));
    facts
}

/// The group's members. A coordinator that has just started says for a while that it is loading.
fn group(consumer: &BaseConsumer<Heard>, group: &str, journal: &Journal) -> Described {
    let deadline = Instant::now() + EACH;
    loop {
        let error = match native::describe_group(consumer.client(), group, EACH) {
            Ok(group) => return Described::Group(group),
            Err(error) => error,
        };
        let code = if let KafkaError::AdminOp(code) = &error { Some(*code) } else { None };
        if code == Some(RDKafkaErrorCode::GroupAuthorizationFailed) {
            return Described::Refused;
        }
        let loading = [
            RDKafkaErrorCode::CoordinatorLoadInProgress,
            RDKafkaErrorCode::CoordinatorNotAvailable,
            RDKafkaErrorCode::NotCoordinator,
        ];
        if !code.is_some_and(|code| loading.contains(&code)) || deadline <= Instant::now() {
            return Described::Unanswered(journal.text(&error));
        }
        drop(consumer.poll(Duration::from_millis(100)));
    }
}

fn described(config: &Config, metadata: &Metadata) -> BTreeMap<String, Topic> {
    let names = topics::names(config);
    let known = metadata.topics().iter().filter(|topic| topic.error().is_none());
    let ours = known.filter(|topic| names.iter().any(|name| name == topic.name()));
    let seen = ours.filter(|topic| !topic.partitions().is_empty()).map(|topic| {
        let partitions = topic.partitions();
        let seen = Topic {
            partitions: partitions.len(),
            replicas: partitions.iter().map(|p| p.replicas().len()).min().unwrap_or(0),
            leaderless: partitions.iter().filter(|p| p.leader() < 0).count(),
            id: false,
            settings: None,
        };
        (topic.name().to_owned(), seen)
    });
    seen.collect()
}

/// Settings of a topic or a broker. A broker's own are asked of that broker, which shows that it is reached.
fn configuration(
    admin: &AdminClient<Journal>,
    of: &ResourceSpecifier<'_>,
) -> Result<Settings, Asked> {
    let options = AdminOptions::new().request_timeout(Some(EACH));
    let described = pollster::block_on(admin.describe_configs([of], &options));
    let resource = described.map_err(Asked::Unanswered)?.into_iter().next();
    match resource {
        // A refusal is an answer without entries.
        Some(Ok(ConfigResource { entries, .. })) if !entries.is_empty() => {
            Ok(entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
        }
        Some(Err(code)) if is_silence(code) => Err(Asked::Unanswered(KafkaError::AdminOp(code))),
        Some(Ok(_) | Err(_)) | None => Err(Asked::Refused),
    }
}

/// Whether it says that no answer came, in place of one.
fn is_silence(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SSL
    )
}

fn cause(journal: &Journal, error: &KafkaError) -> String {
    let said =
        journal.cause().map_or_else(String::new, |line| format!("; the client said: {line}"));
    format!("{}{said}", journal.text(error))
}

/// Tries the address of every broker, side by side. One that is reached keeps the cause that it came with.
fn connect(brokers: Vec<Broker>) -> Vec<Broker> {
    let deadline = Instant::now() + EACH;
    let start = |broker: Broker| {
        let (tell, told) = sync_channel(1);
        let address = broker.address.clone();
        let body = move || {
            // Who asked may have stopped waiting.
            drop(tell.send(reach(&address)));
        };
        let started =
            std::thread::Builder::new().name(format!("connect-{}", broker.id)).spawn(body);
        (broker, told, started)
    };
    let tried: Vec<_> = brokers.into_iter().map(start).collect();
    let end = |(mut broker, told, started): (Broker, Receiver<_>, io::Result<_>)| {
        let left = deadline.saturating_duration_since(Instant::now());
        match (started, told.recv_timeout(left)) {
            (Err(error), _) => broker.unreached = Some(error.to_string()),
            (Ok(_), Ok(Ok(()))) => (),
            (Ok(_), Ok(Err(why))) => broker.unreached = Some(why),
            (Ok(_), Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) => {
                broker.unreached = Some(format!("no answer within {} s", EACH.as_secs()));
            }
        }
        broker
    };
    tried.into_iter().map(end).collect()
}

fn reach(broker: &str) -> Result<(), String> {
    let addresses = broker
        .to_socket_addrs()
        .map_err(|error| format!("the name cannot be resolved: {error}"))?;
    let mut why = "the name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, EACH) {
            Ok(_) => return Ok(()),
            Err(error) => why = format!("connect to {address}: {error}"),
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_broker_understands_stands_in_the_log() {
        let line = "[thrd:main]: 127.0.0.1:9092/1:   ApiKey TxnOffsetCommit (28) Versions 0..5";
        assert_eq!(understood(line), Some((28, 5)));
        assert_eq!(understood("ApiKey Unknown-88? (88) Versions 0..0"), Some((88, 0)));
        assert_eq!(understood("Feature MsgVer1: Produce (3..3) supported by broker"), None);
    }

    #[test]
    fn an_advertised_address_is_told_from_the_first_one() {
        let advertised = |line| advertised(line).map(|broker| (broker.id, broker.address));
        let kafka = |id| Some((id, "kafka-2:9092".to_owned()));
        assert_eq!(
            advertised("kafka-2:9092/2: Failed to resolve 'kafka-2:9092': Name or service"),
            kafka(2)
        );
        assert_eq!(
            advertised("sasl_ssl://kafka-2:9092/17: Connect to ipv4#1.2.3.4:9092 failed: refused"),
            kafka(17)
        );
        assert_eq!(
            advertised("[thrd:kafka-2:9092/2]: kafka-2:9092/2: Connect to x failed"),
            kafka(2)
        );
        assert_eq!(advertised("kafka-2:9092/bootstrap: Failed to resolve 'kafka-2:9092'"), None);
        assert_eq!(advertised("ssl://kafka-2:9092/bootstrap: SSL handshake failed"), None);
        assert_eq!(advertised("1/1 brokers are down"), None);
    }

    #[test]
    fn an_address_that_is_not_there_says_what_failed() {
        assert!(reach("127.0.0.1:1").unwrap_err().contains("connect to 127.0.0.1:1"));
        assert!(reach("nowhere.invalid:1").unwrap_err().contains("cannot be resolved"));
        let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(reach(&open.local_addr().unwrap().to_string()), Ok(()));
    }
}

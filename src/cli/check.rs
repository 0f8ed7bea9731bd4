//! `tidemill check`: the configuration, the connections, the topics and the model, before anything runs.
//!
//! Each line says `ok` or `problem`, with what to do. It writes nothing to the cluster and joins no group.
//! That the group and the transactional id are allowed cannot be seen from outside: the first start shows it.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::metadata::Metadata;

use super::ConfigFile;
use crate::config::{Config, OutputPartition, load};
use crate::service;

/// Arguments of `tidemill check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

/// Looks at everything. 0, or 78 with what is to be done.
pub fn run(args: &Args) -> ExitCode {
    let mut out = io::stdout().lock();
    let code = look(Some(&args.config.config), load::environment(), model, &mut out);
    ExitCode::from(code.unwrap_or(74))
}

/// Loads the model through the gate, as the service will.
fn model(config: &Config) -> Result<String, (String, String)> {
    let remedy = "`tidemill models list` shows what is there, `tidemill models verify` one version";
    let (_, _, served) =
        service::load_model(config).map_err(|failure| (failure.message, remedy.to_owned()))?;
    let about = served.model.about();
    Ok(format!("{}, {:?}, {}, {}", served.id, about.task, about.architecture, about.precision))
}

/// The exit code of a configuration that does not do: `EX_CONFIG` of `sysexits.h`.
pub const BAD_CONFIGURATION: u8 = 78;

/// How long the cluster may take to answer: a connection, TLS, SASL and one request.
const ANSWER: Duration = Duration::from_secs(10);

/// What was found about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// What was seen, or the problem with its remedy.
    pub result: Result<String, (String, String)>,
}

impl Finding {
    fn ok(what: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { what: what.into(), result: Ok(seen.into()) }
    }

    fn problem(
        what: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { what: what.into(), result: Err((message.into(), remedy.into())) }
    }
}

/// Looks at everything and prints a line for each to `out`; gives the exit code, 0 or 78.
///
/// `model` resolves and loads the model: what it is, or the problem and its remedy. Blocks for up to ten seconds
/// where the cluster does not answer.
///
/// # Errors
///
/// `out` cannot be written.
pub fn look(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    model: impl FnOnce(&Config) -> Result<String, (String, String)>,
    out: &mut impl Write,
) -> io::Result<u8> {
    let config = match load::load(file, env) {
        Ok(config) => config,
        Err(problems) => {
            writeln!(out, "problem  {problems}")?;
            return Ok(BAD_CONFIGURATION);
        }
    };
    let mut good = show(out, &Finding::ok("configuration", "every key is known and fits"))?;
    if let Some(log) = &config.log {
        good &= show(out, &Finding::ok("log", format!("{log}, embedded: no cluster is asked")))?;
    } else {
        for finding in cluster(&config, ANSWER) {
            good &= show(out, &finding)?;
        }
    }
    good &= show(out, &Finding { what: "model".to_owned(), result: model(&config) })?;
    Ok(if good { 0 } else { BAD_CONFIGURATION })
}

fn show(out: &mut impl Write, finding: &Finding) -> io::Result<bool> {
    match &finding.result {
        Ok(seen) => writeln!(out, "ok       {}: {seen}", finding.what)?,
        Err((message, remedy)) => {
            writeln!(out, "problem  {}: {message}\n         {remedy}", finding.what)?;
        }
    }
    Ok(finding.result.is_ok())
}

/// Keeps what librdkafka logs: a wrong password and a wrong certificate are both "transport failure" elsewhere.
#[derive(Debug, Default)]
struct Heard(Mutex<BTreeSet<String>>);

impl Heard {
    fn hear(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The same line comes with each attempt; the clock in it is cut off with librdkafka's own prefix.
        let line = line.split_once("]: ").map_or(line, |(_, line)| line);
        if lines.len() < 4 {
            lines.insert(line.to_owned());
        }
    }

    fn said(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("; ")
    }
}

impl ClientContext for Heard {
    fn log(&self, level: RDKafkaLogLevel, _facility: &str, message: &str) {
        // Emergency is 0, warning is 4.
        if level as i32 <= RDKafkaLogLevel::Warning as i32 {
            self.hear(message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.hear(&format!("{reason} ({error})"));
    }
}

impl ConsumerContext for Heard {}

fn cluster(config: &Config, within: Duration) -> Vec<Finding> {
    let servers = config.kafka.common.get("bootstrap.servers").cloned().unwrap_or_default();
    let what = format!("kafka at {servers}");
    let mut settings = ClientConfig::new();
    for (name, value) in config.kafka.common.iter().chain(&config.kafka.consumer) {
        settings.set(name, value);
    }
    settings.set("group.id", &config.kafka.group);
    let consumer: BaseConsumer<Heard> = match settings.create_with_context(Heard::default()) {
        Ok(consumer) => consumer,
        Err(error) => {
            let remedy = "mend that property under kafka.common or kafka.consumer";
            return vec![Finding::problem(what, error.to_string(), remedy)];
        }
    };
    match consumer.fetch_metadata(None, within) {
        Ok(metadata) => {
            let brokers = metadata.brokers().len();
            let mut findings = vec![Finding::ok(what, format!("{brokers} brokers"))];
            findings.extend(topics(config, &Seen::of(&metadata)));
            findings
        }
        Err(error) => {
            // The reason is an event on the client's own queue until it is polled.
            drop(consumer.poll(Duration::from_millis(200)));
            vec![unreachable(what, within, &error, &consumer.context().said())]
        }
    }
}

fn unreachable(what: String, within: Duration, error: &KafkaError, said: &str) -> Finding {
    let lower = said.to_ascii_lowercase();
    let remedy = if lower.contains("certificate") || lower.contains("ssl handshake") {
        "set kafka.common ssl.ca.location to the authority that signed the broker's certificate"
    } else if lower.contains("authentication") || lower.contains("sasl") {
        "check sasl.mechanisms, sasl.username and sasl.password under kafka.common"
    } else if lower.contains("resolve") {
        "check the host in kafka.common bootstrap.servers; no such name is known here"
    } else if lower.contains("refused") {
        "start the broker, or check the port in kafka.common bootstrap.servers"
    } else if lower.contains("disconnected") {
        "check security.protocol under kafka.common: the port may speak TLS or SASL"
    } else {
        "check kafka.common bootstrap.servers and that this machine may reach it"
    };
    let said = if said.is_empty() { String::new() } else { format!("; the client said: {said}") };
    let within = within.as_secs();
    Finding::problem(what, format!("no answer within {within} s: {error}{said}"), remedy)
}

/// Topics with their partition counts.
#[derive(Debug, Default)]
struct Seen(std::collections::BTreeMap<String, usize>);

impl Seen {
    fn of(metadata: &Metadata) -> Self {
        let known = metadata.topics().iter().filter(|topic| topic.error().is_none());
        Self(known.map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect())
    }
}

fn topics(config: &Config, seen: &Seen) -> Vec<Finding> {
    let servers = config.kafka.common.get("bootstrap.servers").map_or("HOST:PORT", String::as_str);
    let command = |verb: &str, topic: &str, partitions: usize| {
        format!(
            "kafka-topics.sh --bootstrap-server {servers} --{verb} --topic {topic} --partitions {partitions}"
        )
    };
    let need = config.input.topics.iter().filter_map(|topic| seen.0.get(topic)).max();
    let need = need.copied().unwrap_or(1);
    let mut findings = Vec::new();
    for topic in &config.input.topics {
        let what = format!("input topic {topic}");
        findings.push(match seen.0.get(topic) {
            Some(partitions) => Finding::ok(what, format!("{partitions} partitions")),
            None => {
                let message = "is not there, or this user may not describe it";
                Finding::problem(what, message, command("create", topic, 1))
            }
        });
    }
    let same = config.output.partition == OutputPartition::Same;
    let mut written = vec![("output topic", config.output.topic.clone(), same)];
    let dead: BTreeSet<String> =
        config.input.topics.iter().map(|input| config.dead_letter_topic(input)).collect();
    written.extend(dead.into_iter().map(|topic| ("dead-letter topic", topic, same)));
    written.push(("manifest topic", config.manifest_topic(), false));
    for (role, topic, same) in written {
        let what = format!("{role} {topic}");
        findings.push(match seen.0.get(&topic) {
            None => {
                let partitions = if same { need } else { 1 };
                let message = "is not there, or this user may not describe it";
                Finding::problem(what, message, command("create", &topic, partitions))
            }
            Some(partitions) if same && *partitions < need => {
                let message = format!(
                    "has {partitions} partitions, fewer than the input's {need}, and output.partition is `same`"
                );
                Finding::problem(what, message, command("alter", &topic, need))
            }
            Some(partitions) => Finding::ok(what, format!("{partitions} partitions")),
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        load::from_yaml(
            "kafka: {group: g, common: {bootstrap.servers: 'b:1'}}\ninput: {topics: [in]}\noutput: {topic: out}\nmodel: {uri: m}",
        )
        .unwrap()
    }

    #[test]
    fn too_few_partitions_are_a_problem_with_a_command() {
        let seen = |pairs: &[(&str, usize)]| {
            Seen(pairs.iter().map(|(topic, n)| ((*topic).to_owned(), *n)).collect())
        };
        let good = seen(&[("in", 6), ("out", 6), ("in-dlq", 6), ("out-manifest", 1)]);
        assert!(topics(&config(), &good).iter().all(|finding| finding.result.is_ok()));
        let few = seen(&[("in", 6), ("out", 3), ("in-dlq", 6)]);
        let findings = topics(&config(), &few);
        let remedies: Vec<&str> =
            findings.iter().filter_map(|f| Some(f.result.as_ref().err()?.1.as_str())).collect();
        assert_eq!(
            remedies,
            [
                "kafka-topics.sh --bootstrap-server b:1 --alter --topic out --partitions 6",
                "kafka-topics.sh --bootstrap-server b:1 --create --topic out-manifest --partitions 1",
            ]
        );
    }

    #[test]
    fn a_transport_failure_is_explained_by_what_the_client_said() {
        let error =
            KafkaError::MetadataFetch(rdkafka::types::RDKafkaErrorCode::BrokerTransportFailure);
        for (said, part) in [
            ("SASL authentication error: Authentication failed", "sasl.password"),
            ("SSL handshake failed: certificate verify failed", "ssl.ca.location"),
            ("Connect to ipv4#127.0.0.1:1 failed: Connection refused", "start the broker"),
            ("Failed to resolve 'nowhere:9092'", "no such name"),
            ("", "may reach it"),
        ] {
            let (message, remedy) =
                unreachable("k".to_owned(), ANSWER, &error, said).result.unwrap_err();
            assert!(message.contains(said) && remedy.contains(part), "{message}: {remedy}");
        }
    }

    #[test]
    fn the_exit_code_tells() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.yaml");
        let text = "log: sqlite:x\ninput: {topics: [in]}\noutput: {topic: out}\nmodel: {uri: m}";
        std::fs::write(&file, text).unwrap();
        let check = |text: &str, model: Result<String, (String, String)>| {
            std::fs::write(&file, text).unwrap();
            let mut out = Vec::new();
            let code = look(Some(&file), std::iter::empty(), |_| model, &mut out).unwrap();
            (code, String::from_utf8(out).unwrap())
        };
        assert_eq!(check(text, Ok("m/1".to_owned())).0, 0);
        let (code, out) = check(text, Err(("no such directory".to_owned(), "make it".to_owned())));
        assert!(code == 78 && out.contains("problem  model: no such directory"), "{out}");
        let (code, out) = check("batch: {max_wait: 5}", Ok(String::new()));
        assert!(code == 78 && out.contains("6. "), "{out}");
    }

    #[test]
    fn a_broker_that_is_not_there_is_a_problem() {
        // Port 1 refuses; the client says so through its log or its error callback.
        let mut config = config();
        config.kafka.common.insert("bootstrap.servers".to_owned(), "127.0.0.1:1".to_owned());
        let findings = cluster(&config, Duration::from_secs(2));
        let (message, remedy) = findings[0].result.clone().unwrap_err();
        assert!(message.contains("refused") && remedy.contains("start the broker"), "{message}");
    }
}

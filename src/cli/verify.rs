//! `tidemill verify`: reads what was committed and proves the promise for it.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset as Place, TopicPartitionList};
use serde_json::Value;

use super::ConfigFile;
use crate::config::Config;
use crate::log::message::Naming;
use crate::verify::{Checker, Manifest, Outcome, Report, Source};

/// Arguments of `tidemill verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Judge input records from this offset on, in every partition
    #[arg(long, default_value_t = 0)]
    from: i64,
}

/// How long the cluster may take to answer, and a topic may give nothing before its end.
const ANSWER: Duration = Duration::from_secs(30);

/// Verifies what the group has committed. 0 it holds, 65 it is violated, 75 it could not be read, 78 configuration.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to its terminal")]
pub fn run(args: &Args) -> ExitCode {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    if config.log.is_some() {
        eprintln!("verify reads Kafka; the embedded log's demo verifies itself");
        return ExitCode::from(78);
    }
    match verify(&config, args.from) {
        Ok(report) => {
            print!("{report}");
            ExitCode::from(if report.violations.is_empty() { 0 } else { 65 })
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(75)
        }
    }
}

fn verify(config: &Config, from: i64) -> Result<Report, String> {
    let naming = Naming::new(config);
    let reader = Reader::new(config)?;
    let mut checker = Checker::default();
    for topic in &naming.inputs {
        let committed = reader.committed(topic)?;
        let below = |partition: i32| committed.get(&partition).copied().unwrap_or(0);
        reader.each(topic, |message| {
            let (partition, offset) = (message.partition(), message.offset());
            if (from..below(partition)).contains(&offset) {
                checker.record(Source { topic: topic.clone(), partition, offset });
            }
        })?;
    }
    reader.each(&naming.output, |message| {
        let version = header(message, "tidemill.model.version").and_then(|text| text.parse().ok());
        outcome(&mut checker, message, "tidemill.source", version, &naming);
    })?;
    let mut dead: Vec<&String> = naming.dead_letters.iter().collect();
    dead.dedup();
    for topic in dead {
        reader.each(topic, |message| {
            outcome(&mut checker, message, "__connect.errors", None, &naming);
        })?;
    }
    reader.each(&naming.manifest, |message| {
        let value: Value =
            serde_json::from_slice(message.payload().unwrap_or_default()).unwrap_or_default();
        let number = |key: &str| value.get(key).and_then(Value::as_u64);
        checker.manifest(Manifest {
            batch: value.get("batch_id").and_then(Value::as_str).unwrap_or_default().to_owned(),
            version: number("version").unwrap_or_default(),
            swapped_from: number("swapped_from"),
            records: number("records").unwrap_or_default(),
        });
    })?;
    Ok(checker.finish())
}

fn header(message: &BorrowedMessage<'_>, name: &str) -> Option<String> {
    let headers = message.headers()?;
    let header = headers.iter().find(|header| header.key == name)?;
    String::from_utf8(header.value?.to_vec()).ok()
}

fn outcome(
    checker: &mut Checker,
    message: &BorrowedMessage<'_>,
    prefix: &str,
    version: Option<u64>,
    naming: &Naming,
) {
    let place = |name: &str| header(message, &format!("{prefix}.{name}"));
    let number = |name: &str| place(name).and_then(|text| text.parse::<i64>().ok());
    // Compact headers leave out the topic and partition where they follow from the message's own.
    let topic = place("topic")
        .or_else(|| naming.inputs.first().filter(|_| naming.inputs.len() == 1).cloned());
    let partition = number("partition").unwrap_or_else(|| i64::from(message.partition()));
    let batch = header(message, "tidemill.batch.id");
    let (Some(topic), Some(offset), Some(batch)) = (topic, number("offset"), batch) else {
        checker.without_provenance(message.topic(), message.partition(), message.offset());
        return;
    };
    let source = Source { topic, partition: i32::try_from(partition).unwrap_or(-1), offset };
    checker.outcome(message.topic(), Outcome { source, batch, version });
}

/// Reads topics whole, without joining the group.
struct Reader {
    settings: ClientConfig,
    group: BaseConsumer,
}

impl Reader {
    fn new(config: &Config) -> Result<Self, String> {
        let mut settings = ClientConfig::new();
        for (name, value) in config.kafka.common.iter().chain(&config.kafka.consumer) {
            settings.set(name, value);
        }
        settings.set("group.id", &config.kafka.group).set("enable.auto.commit", "false");
        settings.set("isolation.level", "read_committed").set("enable.partition.eof", "true");
        let group = settings.create().map_err(|error| format!("make a Kafka client: {error}"))?;
        Ok(Self { settings, group })
    }

    fn partitions(&self, topic: &str) -> Result<Vec<i32>, String> {
        let metadata = self
            .group
            .fetch_metadata(Some(topic), ANSWER)
            .map_err(|error| format!("ask for the partitions of {topic}: {error}"))?;
        let found = metadata.topics().first().filter(|found| found.error().is_none());
        let found = found.ok_or_else(|| format!("topic {topic} does not exist"))?;
        Ok(found.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect())
    }

    fn committed(&self, topic: &str) -> Result<BTreeMap<i32, i64>, String> {
        let mut list = TopicPartitionList::new();
        for partition in self.partitions(topic)? {
            list.add_partition(topic, partition);
        }
        let committed = self
            .group
            .committed_offsets(list, ANSWER)
            .map_err(|error| format!("ask for the group's offsets in {topic}: {error}"))?;
        let next = |at: Place| at.to_raw().filter(|raw| 0 <= *raw).unwrap_or(0);
        Ok(committed.elements().iter().map(|at| (at.partition(), next(at.offset()))).collect())
    }

    fn each(&self, topic: &str, mut visit: impl FnMut(&BorrowedMessage<'_>)) -> Result<(), String> {
        let fail = |error: KafkaError| format!("read {topic}: {error}");
        let consumer: BaseConsumer = self.settings.create().map_err(fail)?;
        let partitions = self.partitions(topic)?;
        let mut list = TopicPartitionList::new();
        for partition in &partitions {
            list.add_partition_offset(topic, *partition, Place::Beginning).map_err(fail)?;
        }
        consumer.assign(&list).map_err(fail)?;
        let mut open = partitions.len();
        let mut heard = now();
        while open != 0 {
            match consumer.poll(Duration::from_millis(500)) {
                Some(Ok(message)) => visit(&message),
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(error)) => tracing::warn!("read {topic}: {error}"),
                None if ANSWER < heard.elapsed() => {
                    return Err(format!(
                        "read {topic}: nothing came for {ANSWER:?} before its end"
                    ));
                }
                None => continue,
            }
            heard = now();
        }
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "a deadline for a cluster that does not answer")]
fn now() -> Instant {
    Instant::now()
}

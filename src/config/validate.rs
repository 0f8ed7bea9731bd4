//! The rules that no single value's type can carry.

use std::collections::BTreeSet;

use super::load::{Problem, problem};
use super::{Config, Headers, Kafka};
use crate::log::message::Naming;

/// Properties of the clients that the service owns, and why.
pub const OWNED: &[(&str, &str)] = &[
    ("enable.auto.commit", "offsets are committed in the transaction of their predictions"),
    ("enable.auto.offset.store", "offsets are committed in the transaction of their predictions"),
    ("enable.idempotence", "a transactional producer is idempotent"),
    ("acks", "a transactional producer waits for all replicas"),
    (
        "transactional.id",
        "it is made of kafka.group, kafka.instance and the lane, so that a restart fences",
    ),
    ("transaction.timeout.ms", "it must outlast limits.transaction; 15 s"),
    ("isolation.level", "input must be read committed, or aborted records leak in"),
    ("group.id", "set kafka.group"),
    ("group.instance.id", "set kafka.instance"),
    ("client.id", "set kafka.instance"),
    ("auto.offset.reset", "set kafka.start_from and kafka.on_out_of_range"),
    ("enable.partition.eof", "it tells where control records end a partition"),
    (
        "partition.assignment.strategy",
        "only cooperative-sticky keeps what stays while partitions move",
    ),
    ("max.poll.interval.ms", "the poll thread never waits for a model"),
];

/// Everything that contradicts.
pub fn problems(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    required(config, &mut problems);
    topics(config, &mut problems);
    limits(config, &mut problems);
    owned(&config.kafka, &mut problems);
    problems
}

fn required(config: &Config, problems: &mut Vec<Problem>) {
    let Config { log, kafka, input, output, model, registry, .. } = config;
    match log.as_deref() {
        None => {
            if !kafka.common.contains_key("bootstrap.servers") {
                let message =
                    "bootstrap.servers is missing: where is the cluster? (or set log: sqlite:FILE)";
                problems.push(problem("kafka.common", message));
            }
            if kafka.group.is_empty() {
                problems
                    .push(problem("kafka.group", "is missing: offsets are kept under its name"));
            }
        }
        Some(log) if log.strip_prefix("sqlite:").is_none_or(str::is_empty) => {
            problems.push(problem("log", format!("{log:?} is not sqlite:FILE")));
        }
        Some(_) => (),
    }
    if input.topics.is_empty() {
        problems.push(problem("input.topics", "is missing: nothing would be read"));
    }
    if output.topic.is_empty() {
        problems.push(problem("output.topic", "is missing: predictions would go nowhere"));
    }
    if model.uri.is_empty() {
        problems.push(problem("model.uri", "is missing: models:/name@champion, or a directory"));
    }
    if model.uri.starts_with("models:/") && registry.root.is_none() {
        let message = format!("is missing: {} is looked up there", model.uri);
        problems.push(problem("registry.root", message));
    }
}

fn topics(config: &Config, problems: &mut Vec<Problem>) {
    let naming = Naming::new(config);
    let mut seen = BTreeSet::new();
    let inputs = naming.inputs.iter().map(|topic| ("input.topics", topic));
    let written = [("output.topic", &naming.output), ("manifest.topic", &naming.manifest)];
    let dead: BTreeSet<&String> = naming.dead_letters.iter().collect();
    let dead = dead.into_iter().map(|topic| ("dead_letters.topic", topic));
    for (key, topic) in inputs.chain(written).chain(dead).filter(|(_, topic)| !topic.is_empty()) {
        if !seen.insert(topic) {
            let message = format!(
                "{topic:?} is used twice: the service would read what it writes, or mix \
                 what it writes"
            );
            problems.push(problem(key, message));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c);
        if 249 < topic.len() || !topic.chars().all(legal) {
            let message =
                format!("{topic:?} is no topic name: 1 to 249 of letters, digits, '.', '_', '-'");
            problems.push(problem(key, message));
        }
    }
    if usize::from(u16::MAX) < config.input.topics.len() {
        problems.push(problem("input.topics", "more than 65,535"));
    }
    if config.output.headers == Headers::None {
        tracing::warn!("output.headers is none: tidemill verify cannot prove anything");
    }
}

fn limits(config: &Config, problems: &mut Vec<Problem>) {
    let Config { kafka, batch, commit, limits, dead_letters, model, .. } = config;
    for (key, zero) in [
        ("batch.max_records", batch.max_records == 0),
        ("batch.max_bytes", batch.max_bytes.0 == 0),
        ("batch.max_tokens", batch.max_tokens == 0),
        ("commit.max_batches", commit.max_batches == 0),
        ("dead_letters.window", dead_letters.window == 0),
        ("model.poll", model.poll.0.is_zero()),
        ("model.workers", matches!(model.workers, super::Workers::Count(0))),
        ("kafka.lanes", kafka.lanes == 0),
    ] {
        if zero {
            problems.push(problem(key, "is 0: nothing would ever happen"));
        }
    }
    if 64 < kafka.lanes {
        problems.push(problem("kafka.lanes", format!("is {}, more than 64", kafka.lanes)));
    }
    if !(0.0..=1.0).contains(&dead_letters.max_ratio) {
        let message = format!("is {}, not between 0 and 1", dead_letters.max_ratio);
        problems.push(problem("dead_letters.max_ratio", message));
    }
    let transaction = limits.transaction.0.as_secs_f64();
    if !(0.5..=10.0).contains(&transaction) {
        let message = format!(
            "is {}, not between 500ms and 10s: the broker aborts a transaction after 15 s, and an abort \
             takes up to 5 s",
            limits.transaction
        );
        problems.push(problem("limits.transaction", message));
    }
    if limits.drain < limits.transaction {
        let message = format!(
            "is {}, less than limits.transaction = {}: a stop could cut off the last commit",
            limits.drain, limits.transaction
        );
        problems.push(problem("limits.drain", message));
    }
    if limits.memory.0 / 8 < batch.max_bytes.0 {
        let message = format!(
            "is {}, less than 8 × batch.max_bytes = {}: two batches and what the client reads ahead would \
             not fit",
            limits.memory, batch.max_bytes
        );
        problems.push(problem("limits.memory", message));
    }
    if limits.inference.0 <= batch.max_wait.0 {
        let message = format!(
            "is {}, not more than batch.max_wait = {}; is it a mistake in the unit?",
            limits.inference, batch.max_wait
        );
        problems.push(problem("limits.inference", message));
    }
}

fn owned(kafka: &Kafka, problems: &mut Vec<Problem>) {
    let sections =
        [("common", &kafka.common), ("consumer", &kafka.consumer), ("producer", &kafka.producer)];
    for (section, properties) in sections {
        for (property, why) in OWNED {
            if properties.contains_key(*property) {
                let message = format!("belongs to the service: {why}");
                problems.push(problem(format!("kafka.{section}.{property}"), message));
            }
        }
    }
}

//! Creates the topics that are not there, where that was asked for.

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};

use super::facts::{Facts, Topic};
use super::topics::{self, Wanted};
use super::{Finding, cluster};
use crate::config::Config;
use crate::kafka::Journal;

/// Creates what is missing, and adds it to the facts: inputs, each with so many partitions, and then what is written.
pub(super) fn create(
    config: &Config,
    facts: &mut Facts,
    settings: &ClientConfig,
    journal: &Journal,
    inputs: usize,
) -> Vec<Finding> {
    let admin = match settings.create_with_context::<_, AdminClient<Journal>>(journal.clone()) {
        Ok(admin) => admin,
        Err(error) => {
            let why = journal.text(&error);
            return vec![Finding::problem("create topics", why, "correct it under kafka.common")];
        }
    };
    let mut findings = Vec::new();
    loop {
        let missing = topics::missing(config, facts, inputs);
        if missing.is_empty() {
            return findings;
        }
        for wanted in missing {
            let what = format!("topic {}", wanted.name);
            match one(&admin, &wanted) {
                Ok(()) => {
                    let said = format!("created, with {} partitions", wanted.partitions);
                    findings.push(Finding::ok(what, said));
                    let made =
                        Topic { partitions: wanted.partitions, id: true, ..Topic::default() };
                    facts.topics.insert(wanted.name, made);
                }
                Err(why) => {
                    let why = format!("could not be created: {why}");
                    let remedy = "allow this user CREATE on the cluster or on the topic, or have it created by who may";
                    findings.push(Finding::problem(what, journal.clean(&why), remedy));
                    return findings;
                }
            }
        }
    }
}

fn one(admin: &AdminClient<Journal>, wanted: &Wanted) -> Result<(), String> {
    let partitions = i32::try_from(wanted.partitions).map_err(|error| error.to_string())?;
    // -1: as the cluster has it.
    let replicas = wanted.replicas.and_then(|replicas| i32::try_from(replicas).ok()).unwrap_or(-1);
    let topic = NewTopic::new(&wanted.name, partitions, TopicReplication::Fixed(replicas));
    let settings = wanted.settings.iter();
    let topic = settings.fold(topic, |topic, (key, value)| topic.set(key, value));
    let options = AdminOptions::new().operation_timeout(Some(cluster::EACH));
    let created = pollster::block_on(admin.create_topics([&topic], &options));
    match created.map_err(|error| error.to_string())?.into_iter().next() {
        Some(Err((_, code))) => Err(code.to_string()),
        Some(Ok(_)) | None => Ok(()),
    }
}

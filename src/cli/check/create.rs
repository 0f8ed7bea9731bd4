//! Creates the topics that are not there, where that was asked for: inputs first, because what is written follows from
//! their partitions and settings.

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};

use super::facts::Facts;
use super::judge::count;
use super::topics::{self, Wanted};
use super::{Finding, cluster};
use crate::config::Config;
use crate::kafka::Journal;

/// Creates what can be created now, with so many partitions of an input; false where one could not be.
pub(super) fn create(
    config: &Config,
    facts: &Facts,
    settings: &ClientConfig,
    journal: &Journal,
    inputs: usize,
) -> (Vec<Finding>, bool) {
    let missing = topics::missing(config, facts, inputs);
    if missing.is_empty() {
        return (Vec::new(), true);
    }
    let admin = match settings.create_with_context::<_, AdminClient<Journal>>(journal.clone()) {
        Ok(admin) => admin,
        Err(error) => {
            let why = journal.text(&error);
            let remedy = "correct it under kafka.common";
            return (vec![Finding::problem("create topics", why, remedy)], false);
        }
    };
    journal.identity().show(admin.inner());
    let mut findings = Vec::new();
    for wanted in missing {
        let what = format!("topic {}", wanted.name);
        if let Err(why) = one(&admin, &wanted) {
            let why = journal.clean(&format!("could not be created: {why}"));
            let remedy = "allow this user CREATE on the cluster or on the topic, or have it created by who may";
            findings.push(Finding::problem(what, why, remedy));
            return (findings, false);
        }
        let partitions = count(wanted.partitions, "partition");
        findings.push(Finding::ok(what, format!("created, with {partitions}")));
    }
    (findings, true)
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

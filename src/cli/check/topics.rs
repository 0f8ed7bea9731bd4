//! What the topics' state means for this configuration, and the commands that make or mend one. No I/O.

use std::collections::BTreeSet;
use std::fmt;

use super::Finding;
use super::facts::{Facts, Topic};
use super::judge::{self, EVER, OFFSETS_RETENTION, count, span};
use crate::cli::cluster::connection;
use crate::config::{Config, Include};
use crate::log::message::Naming;

/// What a topic is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Input,
    Output,
    DeadLetters,
    Manifest,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "input topic",
            Self::Output => "output topic",
            Self::DeadLetters => "dead-letter topic",
            Self::Manifest => "manifest topic",
        })
    }
}

/// How long manifests are kept in the topics that `check` proposes, ms: 30 days.
const MANIFEST_RETENTION: &str = "2592000000";

/// What a dead letter has more than its record: where it came from and why, and the framing, bytes.
const DEAD_LETTER_ROOM: i64 = 16 << 10;

/// The topics of a configuration with what each is for.
pub(super) fn roles(config: &Config) -> Vec<(Role, String)> {
    let inputs = config.input.topics.iter().map(|topic| (Role::Input, topic.clone()));
    let dead: BTreeSet<String> =
        config.input.topics.iter().map(|input| config.dead_letter_topic(input)).collect();
    inputs
        .chain([(Role::Output, config.output.topic.clone())])
        .chain(dead.into_iter().map(|topic| (Role::DeadLetters, topic)))
        .chain([(Role::Manifest, config.manifest_topic())])
        .collect()
}

/// Every topic that the configuration names.
pub(super) fn names(config: &Config) -> Vec<String> {
    roles(config).into_iter().map(|(_, topic)| topic).collect()
}

/// Everything that is to be said of the topics.
pub(super) fn judge(config: &Config, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (role, name) in roles(config) {
        let what = format!("{role} {name}");
        let Some(topic) = facts.topics.get(&name) else {
            let message = "is not there, or this user may not describe it";
            let command = create(config, &wanted(config, facts, role, &name));
            let remedy =
                format!("`tidemill check --create-topics` creates it, and so does: {command}");
            findings.push(Finding::problem(what, message, remedy));
            continue;
        };
        let wanted = partitions(config, facts, &name);
        if topic.partitions < wanted {
            let message = format!(
                "has {}, fewer than the input's {wanted}: an outcome goes to the partition of its record's number",
                count(topic.partitions, "partition")
            );
            let remedy = format!("{} --partitions {wanted}", topic_command(config, "alter", &name));
            findings.push(Finding::problem(&what, message, remedy));
        } else {
            let kept = topic
                .number("retention.ms")
                .map_or_else(String::new, |ms| format!(", kept {}", span(ms)));
            findings.push(Finding::ok(
                &what,
                format!("{}{kept}", count(topic.partitions, "partition")),
            ));
        }
        findings.extend(replication(config, facts, &what, &name, topic));
        match role {
            Role::Input => {}
            Role::Output | Role::DeadLetters => {
                findings.extend(keys(config, role, &what, &name, topic));
                findings.extend(times(config, facts, role, &what, &name, topic));
                findings.extend(size(config, facts, role, &what, &name, topic));
            }
            Role::Manifest => findings.extend(manifests(config, facts, &what, &name, topic)),
        }
    }
    // A cluster that is not reached as a whole is not asked for more.
    if facts.brokers.iter().all(|broker| broker.unreached.is_none()) {
        findings.extend(unread(facts));
        findings.extend(without_id(facts));
    }
    findings
}

fn unread(facts: &Facts) -> Option<Finding> {
    let unread = facts.topics.iter().filter(|(_, topic)| topic.settings.is_none());
    let unread: Vec<&str> = unread.map(|(name, _)| name.as_str()).collect();
    (!unread.is_empty()).then(|| {
        let message = format!(
            "may not be read by this user ({}): whether the topics would refuse or lose something is not known",
            unread.join(", ")
        );
        Finding::warning("topic settings", message, "allow DESCRIBE_CONFIGS on the topics")
    })
}

fn without_id(facts: &Facts) -> Option<Finding> {
    facts.topics.values().any(|topic| !topic.id).then(|| {
        Finding::warning(
            "topic ids",
            "this broker gives none (Kafka before 2.8): a topic that is deleted and created again under its name cannot \
             be told from the old one, and its first records count as read",
            "after such a change, reset the group's offsets by hand",
        )
    })
}

/// The inputs whose records go where `name` is read from or written for.
fn inputs_of<'a>(
    config: &'a Config,
    role: Role,
    name: &'a str,
) -> impl Iterator<Item = &'a String> {
    let mine =
        move |input: &&String| role != Role::DeadLetters || config.dead_letter_topic(input) == name;
    config.input.topics.iter().filter(mine)
}

/// How many partitions a topic needs at least: the service refuses to start with fewer.
fn partitions(config: &Config, facts: &Facts, name: &str) -> usize {
    let naming = Naming::new(config);
    let written = |number: u16| naming.numbered(number).any(|topic| topic == name);
    let inputs = (0..).zip(&naming.inputs).filter(|(number, _)| written(*number));
    inputs.filter_map(|(_, input)| Some(facts.topics.get(input)?.partitions)).max().unwrap_or(1)
}

fn replication(
    config: &Config,
    facts: &Facts,
    what: &str,
    name: &str,
    topic: &Topic,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if topic.leaderless != 0 {
        let message = format!(
            "{} without a leader: nothing is read from or written to them",
            count(topic.leaderless, "partition")
        );
        findings.push(Finding::problem(what, message, "start the brokers that hold them"));
    }
    let replicas = topic.replicas;
    let least = topic.number("min.insync.replicas").and_then(|least| usize::try_from(least).ok());
    let alter = |least: usize| configure(config, name, &format!("min.insync.replicas={least}"));
    if let Some(least) = least.filter(|least| replicas < *least && replicas != 0) {
        let message = format!(
            "has {}, and min.insync.replicas is {least}: every write is refused",
            count(replicas, "replica")
        );
        findings.push(Finding::problem(what, message, alter(replicas.saturating_sub(1).max(1))));
    } else if replicas == 1 && 1 < facts.brokers.len() {
        let message = "has one replica: when its broker is lost, so are its records";
        let remedy = "raise the replication factor with kafka-reassign-partitions.sh, or create the topic anew";
        findings.push(Finding::warning(what, message, remedy));
    } else if 1 < replicas && least == Some(replicas) {
        let message = format!(
            "has {replicas} replicas, and min.insync.replicas is {replicas}: one broker down, and every write is refused"
        );
        findings.push(Finding::warning(what, message, alter(replicas - 1)));
    } else if 1 < replicas && least == Some(1) {
        let message = "min.insync.replicas is 1: what only one broker has counts as written, and is lost with it";
        findings.push(Finding::warning(what, message, alter(2)));
    }
    findings
}

/// A compacted topic refuses records without a key, and keeps the last one of each key.
fn keys(config: &Config, role: Role, what: &str, name: &str, topic: &Topic) -> Option<Finding> {
    if !topic.is_compacted() {
        return None;
    }
    let message = if role == Role::Output {
        "is compacted (cleanup.policy): it refuses the prediction of a record without key, which becomes a dead letter"
    } else {
        "is compacted (cleanup.policy): it keeps only the last dead letter of each key, and a record without key has to \
         be given one"
    };
    Some(Finding::warning(what, message, configure(config, name, "cleanup.policy=delete")))
}

/// An outcome has its record's time, which the written topic must take.
fn times(
    config: &Config,
    facts: &Facts,
    role: Role,
    what: &str,
    name: &str,
    topic: &Topic,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (side, sort) in [("before", "older"), ("after", "newer")] {
        let Some(bound) = topic.bound(side) else { continue };
        let widest = inputs_of(config, role, name)
            .filter_map(|input| {
                let input = facts.topics.get(input)?;
                input.bound(side).or_else(|| {
                    // The input sets the time itself: a record may be as old as it is kept, and never from the future.
                    let kept =
                        input.number("retention.ms").map(|ms| if ms < 0 { i64::MAX } else { ms });
                    input.settings.as_ref().and(if side == "before" { kept } else { None })
                })
            })
            .max();
        let Some(widest) = widest.filter(|widest| bound < *widest) else { continue };
        let message = format!(
            "takes no record more than {} {sort} than the moment it is written (message.timestamp.{side}.max.ms), and the \
             input takes {}: the outcome of such a record is refused",
            span(bound),
            if EVER < widest { "any".to_owned() } else { format!("up to {}", span(widest)) },
        );
        let set = format!("message.timestamp.{side}.max.ms={widest}");
        findings.push(Finding::warning(what, message, configure(config, name, &set)));
    }
    findings
}

/// A dead letter is its record with the reason added; a prediction has what `output.include` takes along.
fn size(
    config: &Config,
    facts: &Facts,
    role: Role,
    what: &str,
    name: &str,
    topic: &Topic,
) -> Option<Finding> {
    let consequence = match (role, &config.output.include) {
        (Role::DeadLetters, _) => {
            "a dead letter is its record with the reason added, and the largest are cut"
        }
        (Role::Output, Include::All) => {
            "output.include: all takes the whole record along, and the largest predictions become dead letters of class \
             oversized"
        }
        _ => return None,
    };
    let limit = topic.number("max.message.bytes")?;
    let inputs = inputs_of(config, role, name);
    let input =
        inputs.filter_map(|input| facts.topics.get(input)?.number("max.message.bytes")).max()?;
    let wanted = input.saturating_add(DEAD_LETTER_ROOM);
    (limit < wanted).then(|| {
        let message =
            format!("max.message.bytes is {limit}, and the input's is {input}: {consequence}");
        Finding::warning(
            what,
            message,
            configure(config, name, &format!("max.message.bytes={wanted}")),
        )
    })
}

/// Manifests tell where a group goes on that has lost its offsets: they must outlive these.
fn manifests(
    config: &Config,
    facts: &Facts,
    what: &str,
    name: &str,
    topic: &Topic,
) -> Option<Finding> {
    let kept = topic.number("retention.ms")?;
    let deletes = topic.setting("cleanup.policy").is_none_or(|policy| policy.contains("delete"));
    let offsets =
        judge::offsets_retention(facts).unwrap_or(OFFSETS_RETENTION).max(OFFSETS_RETENTION);
    let wanted = offsets.saturating_mul(60_000);
    (deletes && 0 <= kept && kept <= wanted).then(|| {
        let message = format!(
            "keeps manifests for {} only, and an idle group's offsets are kept for {}: a group that has lost its offsets \
             finds no manifest to go on from",
            span(kept),
            span(wanted)
        );
        let longer = wanted.max(MANIFEST_RETENTION.parse().unwrap_or(wanted));
        Finding::warning(what, message, configure(config, name, &format!("retention.ms={longer}")))
    })
}

/// The start of a `kafka-topics.sh` command.
fn topic_command(config: &Config, verb: &str, topic: &str) -> String {
    format!("kafka-topics.sh {} --{verb} --topic {topic}", connection(config))
}

/// The command that sets a topic's setting.
fn configure(config: &Config, topic: &str, setting: &str) -> String {
    format!(
        "kafka-configs.sh {} --alter --entity-type topics --entity-name {topic} --add-config {setting}",
        connection(config)
    )
}

/// A topic that is not there, as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) partitions: usize,
    /// As the cluster has it by itself where there is nothing to choose.
    pub(super) replicas: Option<usize>,
    pub(super) settings: Vec<(String, String)>,
}

/// The topics that are not there: inputs with so many partitions, then what is written. The partitions of what is written
/// follow from the inputs', so inputs are made first.
pub(super) fn missing(config: &Config, facts: &Facts, inputs: usize) -> Vec<Wanted> {
    let absent = roles(config).into_iter().filter(|(_, name)| !facts.topics.contains_key(name));
    let (first, rest): (Vec<_>, Vec<_>) = absent.partition(|(role, _)| *role == Role::Input);
    let first = if first.is_empty() { rest } else { first };
    let wanted = |(role, name): (Role, String)| {
        let wanted = wanted(config, facts, role, &name);
        if role == Role::Input { Wanted { partitions: inputs, ..wanted } } else { wanted }
    };
    first.into_iter().map(wanted).collect()
}

/// A topic which gives no cause for another finding.
fn wanted(config: &Config, facts: &Facts, role: Role, name: &str) -> Wanted {
    let mut settings: Vec<(String, String)> = Vec::new();
    let mut add = |key: &str, value: String| settings.push((key.to_owned(), value));
    let replicas = facts.brokers.len().min(3);
    if replicas == 3 {
        add("min.insync.replicas", "2".to_owned());
    }
    if role == Role::Manifest {
        add("retention.ms", MANIFEST_RETENTION.to_owned());
    }
    let inputs = || inputs_of(config, role, name).filter_map(|input| facts.topics.get(input));
    if role == Role::DeadLetters
        && let Some(input) = inputs().filter_map(|input| input.number("max.message.bytes")).max()
    {
        add("max.message.bytes", input.saturating_add(DEAD_LETTER_ROOM).to_string());
    }
    if matches!(role, Role::Output | Role::DeadLetters) {
        for side in ["before", "after"] {
            let usual = facts.broker.as_ref();
            let usual = usual
                .and_then(|broker| broker.get(&format!("log.message.timestamp.{side}.max.ms")));
            let usual: Option<i64> = usual.and_then(|ms| ms.parse().ok());
            let widest = inputs().filter_map(|input| input.bound(side)).max();
            if let (Some(widest), Some(usual)) = (widest, usual)
                && usual < widest
            {
                add(&format!("message.timestamp.{side}.max.ms"), widest.to_string());
            }
        }
    }
    Wanted {
        name: name.to_owned(),
        partitions: partitions(config, facts, name),
        replicas: Some(replicas).filter(|replicas| 1 < *replicas),
        settings,
    }
}

/// The command that makes it, for who may not let `check` do it.
fn create(config: &Config, wanted: &Wanted) -> String {
    let mut command = topic_command(config, "create", &wanted.name);
    let mut add = |text: String| command.push_str(&text);
    add(format!(" --partitions {}", wanted.partitions));
    wanted.replicas.iter().for_each(|replicas| add(format!(" --replication-factor {replicas}")));
    for (key, value) in &wanted.settings {
        add(format!(" --config {key}={value}"));
    }
    command
}

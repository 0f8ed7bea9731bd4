//! What the cluster's state means for this configuration: facts in, findings out. No I/O.

use super::facts::{Broker, Described, Facts};
use super::{Finding, permissions, topics};
use crate::config::{Config, MissingOffset, properties};
use crate::kafka::settings;

/// How long Kafka keeps the offsets of a group without members, unless a broker says otherwise, minutes.
pub(super) const OFFSETS_RETENTION: i64 = 7 * 24 * 60;

/// `TxnOffsetCommit` and the version from which on it carries the group's generation (Kafka 2.5).
const FENCED_COMMIT: (i16, i16) = (28, 3);

/// `ConsumerGroupHeartbeat`: KIP-848's protocol.
const GROUP_HEARTBEAT: i16 = 68;

/// By what a broker that is new enough is known: a release, a request, its newest version there.
const RELEASES: [(&str, i16, i16); 7] = [
    ("4.1", 88, 0),
    ("4.0", 10, 6),
    ("3.8", 75, 0),
    ("3.7", 71, 0),
    ("3.0", 65, 0),
    ("2.8", 60, 0),
    ("2.5", 28, 3),
];

/// Everything that is to be said of the cluster.
pub(super) fn judge(config: &Config, facts: &Facts) -> Vec<Finding> {
    let mut findings = brokers(config, facts);
    findings.extend(version(config, facts));
    findings.extend(topics::judge(config, facts));
    findings.extend(permissions::judge(config, facts));
    findings.extend(memory(config, facts));
    findings.extend(offsets(config, facts));
    findings.extend(group(config, facts));
    findings.extend(session(config, facts));
    findings
}

/// Brokers take a session within their bounds only.
fn session(config: &Config, facts: &Facts) -> Option<Finding> {
    if properties::group_protocol_is_the_brokers(&config.kafka) {
        return None;
    }
    let broker = facts.broker.as_ref();
    let bound = |name: &str, default: i64| {
        broker.and_then(|settings| settings.get(name)?.parse().ok()).unwrap_or(default)
    };
    let lowest = bound("group.min.session.timeout.ms", 6_000);
    let highest = bound("group.max.session.timeout.ms", 1_800_000);
    let session = i64::try_from(settings::session(config).as_millis()).unwrap_or(i64::MAX);
    (!(lowest..=highest).contains(&session)).then(|| {
        Finding::problem(
            "session.timeout.ms",
            format!("is {session}, and the brokers take {lowest} to {highest}: no replica could join the group"),
            "write one in that range under kafka.consumer, or change the brokers' group.min.session.timeout.ms and \
             group.max.session.timeout.ms",
        )
    })
}

/// The brokers must be reached where the cluster says that they are, not only where the file says.
fn brokers(config: &Config, facts: &Facts) -> Vec<Finding> {
    let what = format!("kafka at {}", named(config));
    let cluster =
        facts.cluster.as_deref().map_or_else(String::new, |id| format!(" of cluster {id}"));
    let count = count(facts.brokers.len(), "broker");
    let mut findings = vec![Finding::ok(what, format!("{count}{cluster}"))];
    findings.extend(facts.brokers.iter().filter_map(unreached));
    findings
}

/// What is to be said of a broker that is not reached.
pub(super) fn unreached(broker: &Broker) -> Option<Finding> {
    let why = broker.unreached.as_ref()?;
    Some(Finding::problem(
        format!("broker {} at {}", broker.id, broker.address),
        format!("is not reached at the address that the cluster gives to its clients: {why}"),
        "make that name and port reachable from here, or correct the broker's advertised.listeners; bootstrap.servers is \
         used for the first question only",
    ))
}

/// The addresses as the file has them, unless they came from a reference.
pub(super) fn named(config: &Config) -> String {
    config.secrets.redact(properties::servers(&config.kafka).unwrap_or("no address"))
}

/// What can be seen of the broker's release.
fn version(config: &Config, facts: &Facts) -> Vec<Finding> {
    let what = "broker version";
    if facts.requests.is_empty() {
        return Vec::new();
    }
    let has = |request: i16, version: i16| {
        facts.requests.get(&request).is_some_and(|newest| version <= *newest)
    };
    let mut findings = Vec::new();
    let (request, version) = FENCED_COMMIT;
    if !has(request, version) {
        findings.push(Finding::problem(
            what,
            "is older than Kafka 2.5: a commit of offsets cannot carry the group's generation, so a replica that was \
             taken for dead could still commit",
            "run against Kafka 2.5 or later, best 3.7 or later",
        ));
    } else if let Some((release, ..)) =
        RELEASES.iter().find(|(_, request, version)| has(*request, *version))
    {
        let inter =
            facts.broker.as_ref().and_then(|broker| broker.get("inter.broker.protocol.version"));
        let inter = inter
            .map_or_else(String::new, |inter| format!(", inter.broker.protocol.version {inter}"));
        findings
            .push(Finding::ok(what, format!("speaks as Apache Kafka {release} or later{inter}")));
    }
    if facts.cluster.as_deref().is_some_and(|id| id.to_ascii_lowercase().starts_with("redpanda")) {
        findings.push(Finding::warning(
            what,
            "calls itself Redpanda, which does not fence commits by the group's generation: a replica that was taken \
             for dead may commit after its successor, and a record may be answered twice",
            "use Apache Kafka where that must not happen",
        ));
    }
    if properties::group_protocol_is_the_brokers(&config.kafka) && !has(GROUP_HEARTBEAT, 0) {
        findings.push(Finding::problem(
            what,
            "does not offer the protocol that group.protocol: consumer asks for",
            "leave group.protocol out, or run against Kafka 4.0 or later",
        ));
    }
    findings
}

/// Three of the largest messages: one that is read, one in the model, one that is written.
fn memory(config: &Config, facts: &Facts) -> Option<Finding> {
    let largest = config
        .input
        .topics
        .iter()
        .filter_map(|input| Some((facts.topics.get(input)?.number("max.message.bytes")?, input)))
        .max()?;
    let (bytes, input) = largest;
    let wanted = u64::try_from(bytes).unwrap_or(0).saturating_mul(3);
    (config.limits.memory.0 < wanted).then(|| {
        Finding::problem(
            "limits.memory",
            format!(
                "is {}, less than three times max.message.bytes of input topic {input}, {bytes}: one such record is read, \
                 another is in the model, a third is written",
                config.limits.memory
            ),
            format!("write {}MiB or more, or lower the topic's limit", wanted.div_ceil(1 << 20)),
        )
    })
}

pub(super) fn offsets_retention(facts: &Facts) -> Option<i64> {
    facts.broker.as_ref()?.get("offsets.retention.minutes")?.parse().ok()
}

/// What becomes of a job that runs more rarely than Kafka keeps the offsets of an idle group.
fn offsets(config: &Config, facts: &Facts) -> Option<Finding> {
    if facts.brokers.is_empty() {
        return None;
    }
    let what = "committed offsets";
    let kept = match offsets_retention(facts) {
        Some(minutes) => format!(
            "are kept for {} after the last replica left",
            span(minutes.saturating_mul(60_000))
        ),
        None => format!(
            "are kept for {} after the last replica left, if the brokers have Kafka's default (they may not be read)",
            span(OFFSETS_RETENTION * 60_000)
        ),
    };
    Some(match config.kafka.on_missing_offset {
        MissingOffset::Manifest => Finding::ok(
            what,
            format!(
                "{kept}; a job that runs more rarely goes on from its manifests (kafka.on_missing_offset)"
            ),
        ),
        MissingOffset::Stop => Finding::ok(
            what,
            format!("{kept}; a job that runs more rarely stops (kafka.on_missing_offset)"),
        ),
        MissingOffset::Start => Finding::warning(
            what,
            format!(
                "{kept}; a job that runs more rarely begins at kafka.start_from again, whatever it has answered"
            ),
            "write kafka.on_missing_offset: manifest, or raise offsets.retention.minutes at the brokers",
        ),
    })
}

fn group(config: &Config, facts: &Facts) -> Option<Finding> {
    let what = format!("group {}", config.kafka.group);
    Some(match facts.group.as_ref()? {
        Described::Group(group) if group.members.is_empty() => {
            Finding::ok(what, "has no members now")
        }
        Described::Group(group) => {
            let stable = if group.stable { "" } else { ", in a rebalance" };
            Finding::ok(what, format!("{}{stable}", count(group.members.len(), "member")))
        }
        Described::Refused => Finding::warning(
            what,
            "may not be described by this user: a replica cannot see whether some partition is read by nobody",
            "allow DESCRIBE on the group",
        ),
        Described::Unanswered(why) => Finding::warning(
            what,
            format!("is not known now: {why}"),
            "check again; where it stays so, look at the brokers that hold __consumer_offsets",
        ),
    })
}

/// `1 partition`, `3 partitions`.
pub(super) fn count(number: usize, of: &str) -> String {
    if number == 1 { format!("1 {of}") } else { format!("{number} {of}s") }
}

/// What is longer is no bound, ms: a hundred years.
pub(super) const EVER: i64 = 100 * 365 * 86_400_000;

/// A time in the largest unit that divides it, down to seconds.
pub(super) fn span(millis: i64) -> String {
    const UNITS: [(i64, &str); 5] = [
        (86_400_000, "day"),
        (3_600_000, "hour"),
        (60_000, "minute"),
        (1_000, "second"),
        (1, "millisecond"),
    ];
    if !(0..=EVER).contains(&millis) {
        return "for ever".to_owned();
    }
    let unit = UNITS.iter().find(|(unit, _)| millis != 0 && millis % unit == 0);
    let (unit, name) = unit.copied().unwrap_or((1, "millisecond"));
    let number = millis / unit;
    if number == 1 { format!("1 {name}") } else { format!("{number} {name}s") }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;

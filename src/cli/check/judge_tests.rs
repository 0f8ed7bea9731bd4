//! Tables: a cluster that is as it should be, one thing changed, and what is said of it.

use std::collections::BTreeMap;

use super::*;
use crate::cli::check::Seen;
use crate::cli::check::facts::{Described, Settings, Topic};
use crate::config::{OutputPartition, Size, load};
use crate::kafka::native::{Group, Member};

fn config(more: &str) -> Config {
    load::from_yaml(&format!(
        "kafka: {{group: g, common: {{bootstrap.servers: 'b:1'}}}}\ninput: {{topics: [in]}}\noutput: {{topic: out}}\n\
         model: {{uri: m}}\n{more}"
    ))
    .unwrap()
}

fn settings(pairs: &[(&str, &str)]) -> Settings {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Three brokers, and topics as `check` proposes them.
fn good() -> Facts {
    let topic = |partitions: usize, more: &[(&str, &str)]| {
        let mut all = settings(&[
            ("cleanup.policy", "delete"),
            ("retention.ms", "604800000"),
            ("message.timestamp.type", "CreateTime"),
            ("message.timestamp.before.max.ms", "9223372036854775807"),
            ("message.timestamp.after.max.ms", "3600000"),
            ("max.message.bytes", "1048588"),
            ("min.insync.replicas", "2"),
        ]);
        all.extend(settings(more));
        Topic { partitions, replicas: 3, leaderless: 0, id: true, settings: Some(all) }
    };
    let broker = |id: i32| Broker { id, address: format!("kafka-{id}:9092"), unreached: None };
    let topics = [
        ("in", topic(6, &[])),
        ("out", topic(6, &[])),
        ("in-dlq", topic(6, &[("max.message.bytes", "1064972")])),
        ("out-manifest", topic(1, &[("retention.ms", "2592000000")])),
    ];
    Facts {
        cluster: Some("abc".to_owned()),
        brokers: (1..=3).map(broker).collect(),
        requests: BTreeMap::from([(28, 5), (68, 1), (10, 6), (88, 0)]),
        topics: topics.into_iter().map(|(name, topic)| (name.to_owned(), topic)).collect(),
        broker: Some(settings(&[
            ("offsets.retention.minutes", "10080"),
            ("log.message.timestamp.after.max.ms", "3600000"),
            ("log.message.timestamp.before.max.ms", "9223372036854775807"),
        ])),
        group: Some(Described::Group(Group::default())),
        ..Facts::default()
    }
}

/// What is not `ok`, in lines as they are printed.
fn lines(config: &Config, facts: &Facts) -> Vec<String> {
    let lines = judge(config, facts).into_iter().filter_map(|finding| match finding.seen {
        Seen::Ok(_) => None,
        Seen::Warning(message, remedy) => {
            Some(format!("warning {}: {message}; {remedy}", finding.what))
        }
        Seen::Problem(message, remedy) => {
            Some(format!("problem {}: {message}; {remedy}", finding.what))
        }
    });
    lines.collect()
}

/// One thing changed: exactly one line, which begins so and has this in it.
#[track_caller]
fn changed(begin: &str, has: &str, change: impl Fn(&mut Facts)) {
    let mut facts = good();
    change(&mut facts);
    let lines = lines(&config(""), &facts);
    assert_eq!(lines.len(), 1, "{begin}: {lines:#?}");
    assert!(
        lines[0].starts_with(begin) && lines[0].contains(has),
        "{has:?} is not in {}",
        lines[0]
    );
}

fn set(facts: &mut Facts, topic: &str, name: &str, value: &str) {
    let settings = facts.topics.get_mut(topic).unwrap().settings.as_mut().unwrap();
    settings.insert(name.to_owned(), value.to_owned());
}

#[test]
fn a_cluster_as_it_should_be_gives_no_cause() {
    assert_eq!(lines(&config(""), &good()), [""; 0]);
    let seen: Vec<String> = judge(&config(""), &good())
        .into_iter()
        .filter_map(|finding| match finding.seen {
            Seen::Ok(seen) => Some(format!("{}: {seen}", finding.what)),
            Seen::Warning(..) | Seen::Problem(..) => None,
        })
        .collect();
    assert_eq!(
        seen,
        [
            "kafka at b:1: 3 brokers of cluster abc",
            "broker version: speaks as Apache Kafka 4.1 or later",
            "input topic in: 6 partitions, kept 7 days",
            "output topic out: 6 partitions, kept 7 days",
            "dead-letter topic in-dlq: 6 partitions, kept 7 days",
            "manifest topic out-manifest: 1 partition, kept 30 days",
            "committed offsets: are kept for 7 days after the last replica left; a job that runs more rarely goes on \
             from its manifests (kafka.on_missing_offset)",
            "group g: has no members now",
        ]
    );
}

/// One setting of a written topic changed.
#[track_caller]
fn refuses(topic: &str, setting: (&str, &str), begin: &str, has: &str) {
    changed(begin, has, |facts| set(facts, topic, setting.0, setting.1));
}

#[test]
fn what_the_written_topics_would_refuse_or_lose() {
    let (output, dead, manifest) = (
        "warning output topic out:",
        "warning dead-letter topic in-dlq:",
        "warning manifest topic out-manifest:",
    );
    let compact = ("cleanup.policy", "compact");
    refuses("out", compact, output, "record without key, which becomes a dead letter");
    refuses("out", ("cleanup.policy", "compact,delete"), output, "cleanup.policy=delete");
    refuses("in-dlq", compact, dead, "last dead letter of each key");
    let day = ("message.timestamp.before.max.ms", "86400000");
    refuses("out", day, output, "1 day older");
    refuses("in-dlq", day, dead, "takes any");
    refuses("out", ("message.timestamp.after.max.ms", "60000"), output, "takes up to 1 hour");
    let size = ("max.message.bytes", "1048588");
    refuses("in-dlq", size, dead, "add-config max.message.bytes=1064972");
    let mut facts = good();
    set(&mut facts, "out", "max.message.bytes", "1048588");
    for (include, expect) in [("all", 1), ("key", 0)] {
        let mut all = config("");
        all.output.include = serde_json::from_value(include.into()).unwrap();
        let said = lines(&all, &facts);
        assert_eq!(said.len(), expect, "{include}: {said:?}");
        let is = |line: &String| line.starts_with(output) && line.contains("output.include: all");
        assert!(said.iter().all(is), "{said:?}");
    }
    let day = ("retention.ms", "86400000");
    refuses("out-manifest", day, manifest, "for 1 day only");
    refuses("out-manifest", day, manifest, "add-config retention.ms=2592000000");
    let least = |number| ("min.insync.replicas", number);
    refuses("out", least("4"), "problem output topic out:", "every write is refused");
    refuses("out", least("3"), output, "one broker down");
    refuses("out", least("1"), output, "min.insync.replicas=2");
    for (topic, name, value) in [
        ("out-manifest", "cleanup.policy", "compact"),
        ("out-manifest", "retention.ms", "-1"),
        ("out", "message.timestamp.type", "LogAppendTime"),
        ("in", "retention.ms", "-1"),
    ] {
        let mut facts = good();
        set(&mut facts, topic, name, value);
        assert_eq!(lines(&config(""), &facts), [""; 0], "{topic} {name}={value}");
    }
}

#[test]
fn an_input_that_takes_more_asks_more_of_the_written_topics() {
    let mut facts = good();
    set(&mut facts, "in", "message.timestamp.after.max.ms", "9223372036854775807");
    let said = lines(&config(""), &facts);
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(
        said.iter().all(|line| line.contains("newer") && line.contains("takes any")),
        "{said:#?}"
    );

    // What sets the time itself lets records be as old as they are kept.
    let mut facts = good();
    set(&mut facts, "in", "message.timestamp.type", "LogAppendTime");
    set(&mut facts, "out", "message.timestamp.before.max.ms", "86400000");
    let said = lines(&config(""), &facts);
    assert!(said.len() == 1 && said[0].contains("takes up to 7 days"), "{said:#?}");

    // Before Kafka 3.6 one setting held for both sides.
    let mut facts = good();
    for topic in ["in", "out"] {
        let settings = facts.topics.get_mut(topic).unwrap().settings.as_mut().unwrap();
        settings.retain(|name, _| !name.contains("before") && !name.contains("after"));
        let bound = if topic == "in" { "7200000" } else { "3600000" };
        settings.insert("message.timestamp.difference.max.ms".to_owned(), bound.to_owned());
    }
    let said = lines(&config(""), &facts);
    let out: Vec<&String> = said.iter().filter(|line| line.starts_with("warning output")).collect();
    assert!(
        out.len() == 2 && out[0].contains("1 hour older") && out[0].contains("up to 2 hours"),
        "{said:#?}"
    );
}

#[test]
fn the_cluster_itself() {
    changed("problem broker 2 at kafka-2:9092:", "advertised.listeners", |facts| {
        facts.brokers[1].unreached = Some("the name kafka-2 cannot be resolved".to_owned());
    });
    changed("problem output topic out:", "2 partitions without a leader", |facts| {
        facts.topics.get_mut("out").unwrap().leaderless = 2;
    });
    changed("warning output topic out:", "one replica", |facts| {
        facts.topics.get_mut("out").unwrap().replicas = 1;
        set(facts, "out", "min.insync.replicas", "1");
    });
    changed("warning topic ids:", "cannot be told from the old one", |facts| {
        facts.topics.get_mut("in").unwrap().id = false;
    });
    changed("warning group g:", "allow DESCRIBE on the group", |facts| {
        facts.group = Some(Described::Refused);
    });
    changed("warning group g:", "is not known now: it is loading", |facts| {
        facts.group = Some(Described::Unanswered("it is loading".to_owned()));
    });
    changed("problem broker version:", "older than Kafka 2.5", |facts| {
        facts.requests = BTreeMap::from([(28, 2)]);
    });
    changed("warning broker version:", "Redpanda", |facts| {
        facts.cluster = Some("redpanda.0d5f".to_owned());
    });
    let mut facts = good();
    facts.group = Some(Described::Group(Group {
        stable: false,
        members: vec![Member { instance: None, id: String::new(), partitions: Vec::new() }],
    }));
    facts.broker = None;
    facts.requests.clear();
    for topic in facts.topics.values_mut() {
        topic.settings = None;
    }
    let unread = lines(&config(""), &facts);
    assert!(unread.len() == 1 && unread[0].contains("allow DESCRIBE_CONFIGS"), "{unread:#?}");
    for topic in facts.topics.values_mut() {
        topic.settings = Some(Settings::new());
    }
    facts.brokers.truncate(1);
    facts.topics.get_mut("out").unwrap().replicas = 1;
    assert_eq!(lines(&config(""), &facts), [""; 0], "one broker is for trying out");

    let mut newer = config("");
    newer.kafka.consumer.insert("group.protocol".to_owned(), "consumer".to_owned());
    assert_eq!(lines(&newer, &good()), [""; 0]);
    let mut facts = good();
    facts.requests.remove(&68);
    assert!(lines(&newer, &facts)[0].contains("leave group.protocol out"));
}

#[test]
fn releases_are_known_by_what_they_understand() {
    for (requests, release) in [
        (&[(28, 3)][..], "2.5"),
        (&[(28, 3), (60, 0)], "2.8"),
        (&[(28, 4), (60, 1), (65, 0), (71, 0), (75, 0)], "3.8"),
        (&[(28, 5), (10, 6), (75, 0)], "4.0"),
    ] {
        let mut facts = good();
        facts.requests = requests.iter().copied().collect();
        let findings = version(&config(""), &facts);
        let said = format!("speaks as Apache Kafka {release} or later");
        assert_eq!(findings, [Finding::ok("broker version", said)]);
    }
}

#[test]
fn the_memory_holds_three_of_the_largest_records() {
    for (limit, fits) in [(Size(3 * 1_048_588), true), (Size(3 * 1_048_588 - 1), false)] {
        let mut config = config("");
        config.limits.memory = limit;
        let said = lines(&config, &good());
        assert_eq!(said.is_empty(), fits, "{said:#?}");
        assert!(
            fits || (said[0].starts_with("problem limits.memory:")
                && said[0].contains("write 4MiB")),
            "{said:#?}"
        );
    }
}

#[test]
fn the_session_is_one_that_the_brokers_take() {
    for (millis, more, fits) in [
        ("6000", &[][..], true),
        ("1", &[], false),
        ("5999", &[], false),
        ("1800001", &[], false),
        ("1000", &[("group.min.session.timeout.ms", "1000")], true),
        ("60000", &[("group.max.session.timeout.ms", "30000")], false),
    ] {
        let mut config = config("");
        let settings = [("session.timeout.ms", millis), ("heartbeat.interval.ms", "1")];
        config.kafka.consumer.extend(settings.map(|(name, ms)| (name.to_owned(), ms.to_owned())));
        let mut facts = good();
        facts.broker.as_mut().unwrap().extend(self::settings(more));
        let said = lines(&config, &facts);
        assert_eq!(said.is_empty(), fits, "{millis} {more:?}: {said:#?}");
        assert!(said.iter().all(|line| line.starts_with("problem session.timeout.ms: is")));
    }
}

#[test]
fn what_a_rare_job_relies_on() {
    for (choice, kept, begin, has) in [
        ("manifest", Some("10080"), "ok", "7 days"),
        ("stop", Some("1440"), "ok", "1 day after"),
        ("start", Some("1440"), "warning", "whatever it has answered"),
        ("manifest", None, "ok", "they may not be read"),
    ] {
        let mut config = config("");
        config.kafka.on_missing_offset = match choice {
            "manifest" => MissingOffset::Manifest,
            "stop" => MissingOffset::Stop,
            _ => MissingOffset::Start,
        };
        let mut facts = good();
        facts.broker = kept.map(|minutes| settings(&[("offsets.retention.minutes", minutes)]));
        let finding = offsets(&config, &facts).unwrap();
        let text = match finding.seen {
            Seen::Ok(text) => format!("ok {text}"),
            Seen::Warning(text, _) => format!("warning {text}"),
            Seen::Problem(text, _) => text,
        };
        assert!(text.starts_with(begin) && text.contains(has), "{text}");
    }
    changed("warning manifest topic", "are kept for 60 days", |facts| {
        facts.broker = Some(settings(&[("offsets.retention.minutes", "86400")]));
    });
}

#[test]
fn a_missing_topic_comes_with_the_command_that_makes_it() {
    let mut facts = good();
    facts.topics.remove("out");
    facts.topics.remove("in-dlq");
    facts.topics.remove("out-manifest");
    set(&mut facts, "in", "message.timestamp.after.max.ms", "7200000");
    let said = lines(&config(""), &facts);
    let base = "kafka-topics.sh --bootstrap-server b:1 --create --topic";
    let safe = "--replication-factor 3 --config min.insync.replicas=2";
    for (line, command) in said.iter().zip([
        format!("{base} out --partitions 6 {safe} --config message.timestamp.after.max.ms=7200000"),
        format!(
            "{base} in-dlq --partitions 6 {safe} --config max.message.bytes=1064972 --config \
             message.timestamp.after.max.ms=7200000"
        ),
        format!("{base} out-manifest --partitions 1 {safe} --config retention.ms=2592000000"),
    ]) {
        assert!(line.contains("is not there") && line.ends_with(&command), "{line}\n{command}");
    }
    assert_eq!(said.len(), 3, "{said:#?}");

    let mut facts = good();
    facts.topics.get_mut("out").unwrap().partitions = 3;
    let said = lines(&config(""), &facts);
    assert!(said[0].contains("3 partitions, fewer than the input's 6"), "{said:#?}");
    assert!(
        said[0].ends_with("--bootstrap-server b:1 --alter --topic out --partitions 6"),
        "{said:#?}"
    );
    let mut by_key = config("");
    by_key.output.partition = OutputPartition::Key;
    assert_eq!(lines(&by_key, &facts), [""; 0]);

    let mut hidden = config("");
    hidden.secrets.hide("b:1");
    hidden.kafka.common.insert("security.protocol".to_owned(), "SASL_SSL".to_owned());
    let said = lines(&hidden, &facts);
    assert!(
        said[0].contains("--bootstrap-server HOST:PORT --command-config client.properties"),
        "{said:#?}"
    );
}

#[test]
fn inputs_are_created_before_what_is_written() {
    let mut facts = good();
    let input = facts.topics["in"].clone();
    facts.topics.clear();
    let names = |facts: &Facts| {
        let missing = topics::missing(&config(""), facts, 4);
        missing.into_iter().map(|wanted| (wanted.name, wanted.partitions)).collect::<Vec<_>>()
    };
    let named = |topics: &[(&str, usize)]| -> Vec<(String, usize)> {
        topics.iter().map(|(name, partitions)| ((*name).to_owned(), *partitions)).collect()
    };
    assert_eq!(names(&facts), named(&[("in", 4)]));
    facts.topics.insert("in".to_owned(), Topic { partitions: 4, ..input });
    assert_eq!(names(&facts), named(&[("out", 4), ("in-dlq", 4), ("out-manifest", 1)]));
    assert_eq!(names(&good()), []);
}

#[test]
fn spans_are_said_in_the_largest_unit() {
    for (millis, text) in [
        (0, "0 milliseconds"),
        (1, "1 millisecond"),
        (90_000, "90 seconds"),
        (3_600_000, "1 hour"),
        (604_800_000, "7 days"),
        (-1, "for ever"),
        (i64::MAX, "for ever"),
    ] {
        assert_eq!(span(millis), text);
    }
}

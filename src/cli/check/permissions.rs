//! What this user may do in the cluster and has to, as the brokers themselves say it. No I/O.

use super::Finding;
use super::facts::Facts;
use super::judge;
use super::topics::{Role, roles};
use crate::config::Config;
use crate::kafka::native::Operation;

/// What is needed of a topic, the least: Describe goes along with each.
fn needed(role: Role) -> &'static [Operation] {
    match role {
        Role::Input => &["Read"],
        Role::Output | Role::DeadLetters => &["Write"],
        // Where offsets are lost, the service's own past is read there.
        Role::Manifest => &["Write", "Read"],
    }
}

/// Each permission that is missing, with the command that gives it.
pub(super) fn judge(config: &Config, facts: &Facts) -> Vec<Finding> {
    let group = &config.kafka.group;
    let command = |operation: Operation, of: &str| {
        let servers = judge::named(config);
        format!(
            "kafka-acls.sh --bootstrap-server {servers} --add --allow-principal User:NAME --operation {operation} {of}"
        )
    };
    let mut findings = Vec::new();
    for (role, name) in roles(config) {
        let Some(allowed) = facts.allowed.get(&name) else { continue };
        for operation in needed(role).iter().filter(|operation| !allowed.contains(**operation)) {
            let message = format!("this user may not {} it", operation.to_uppercase());
            let remedy = command(operation, &format!("--topic {name}"));
            findings.push(Finding::problem(format!("{role} {name}"), message, remedy));
        }
    }
    if facts.allowed_group.as_ref().is_some_and(|allowed| !allowed.contains("Read")) {
        let message = "this user may not READ it: no replica could join it or commit its offsets";
        let remedy = command("Read", &format!("--group {group}"));
        findings.push(Finding::problem(format!("group {group}"), message, remedy));
    }
    if findings.is_empty() && !facts.allowed.is_empty() {
        let seen = format!(
            "topics and group as needed; Write on the transactional ids that begin with tidemill/{group}/ shows when a \
             replica starts"
        );
        findings.push(Finding::ok("permissions", seen));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::Seen;
    use crate::config::load;

    #[test]
    fn each_permission_that_is_missing_is_named_with_its_command() {
        let config = load::from_yaml(
            "kafka: {group: g, common: {bootstrap.servers: 'b:1'}}\ninput: {topics: [in]}\noutput: {topic: out}\n\
             model: {uri: m}\n",
        )
        .unwrap();
        let all = ["in", "out", "in-dlq", "out-manifest"];
        let good = || Facts {
            allowed: all.map(|name| (name.to_owned(), ["Read", "Write"].into())).into(),
            allowed_group: Some(["Read"].into()),
            ..Facts::default()
        };
        let said = |facts: &Facts| -> Vec<String> {
            let problem = |finding: Finding| match finding.seen {
                Seen::Problem(message, remedy) => {
                    Some(format!("{} {message} {remedy}", finding.what))
                }
                Seen::Ok(_) | Seen::Warning(..) => None,
            };
            judge(&config, facts).into_iter().filter_map(problem).collect()
        };
        assert_eq!(said(&good()), [""; 0]);
        assert_eq!(said(&Facts::default()), [""; 0], "what is not told is not judged");
        for (topic, operation, begins) in [
            ("in", "Read", "input topic in"),
            ("out", "Write", "output topic out"),
            ("in-dlq", "Write", "dead-letter topic in-dlq"),
            ("out-manifest", "Write", "manifest topic out-manifest"),
            ("out-manifest", "Read", "manifest topic out-manifest"),
        ] {
            let mut facts = good();
            facts.allowed.get_mut(topic).unwrap().remove(operation);
            let said = said(&facts);
            let command = format!("--operation {operation} --topic {topic}");
            assert!(
                said.len() == 1 && said[0].starts_with(begins) && said[0].ends_with(&command),
                "{said:?}"
            );
        }
        let group = Facts { allowed_group: Some(["Describe"].into()), ..good() };
        assert!(said(&group).len() == 1 && said(&group)[0].ends_with("--operation Read --group g"));
    }
}

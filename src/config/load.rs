//! Reads the file, the environment and the secrets; reports every problem at once.
//!
//! ```text
//!  YAML ─► tree ─► environment on top ─► unknown keys? ─► each leaf alone ─► rules ─► Config
//! ```
//!
//! Each leaf is tried alone in the tree of defaults, so that one wrong value does not hide the next.

use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Config, validate};

/// The prefix of overriding environment variables: `TIDEMILL_BATCH__MAX_RECORDS=64`.
const PREFIX: &str = "TIDEMILL_";

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The dotted key; empty for the file itself.
    pub key: String,
    /// What is wrong, its consequence, and what to do.
    pub message: String,
}

/// All that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} problem(s):", self.0.len())?;
        for Problem { key, message } in &self.0 {
            let colon = if key.is_empty() { "" } else { ": " };
            write!(f, "\n  - {key}{colon}{message}")?;
        }
        Ok(())
    }
}

pub(super) fn problem(key: impl Into<String>, message: impl Into<String>) -> Problem {
    Problem { key: key.into(), message: message.into() }
}

/// The configuration of a file with the environment on top.
///
/// # Errors
///
/// Every problem of the file, the environment and their combination.
pub fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, Problems> {
    let text = match file {
        None => String::new(),
        Some(path) => std::fs::read_to_string(path).map_err(|error| {
            Problems(vec![problem("", format!("read {}: {error}", path.display()))])
        })?,
    };
    parse(&text, environment)
}

/// As [`load`], from the file's text.
///
/// # Errors
///
/// As [`load`].
pub fn parse(
    text: &str,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, Problems> {
    let mut tree = match yaml(text) {
        Ok(Value::Object(tree)) => tree,
        Ok(Value::Null) => Map::new(),
        Ok(_) => {
            return Err(Problems(vec![problem("", "the file is no mapping of keys to values")]));
        }
        Err(error) => return Err(Problems(vec![problem("", format!("read the YAML: {error}"))])),
    };
    let defaults = defaults();
    for (name, value) in environment {
        if let Some(name) = name.strip_prefix(PREFIX).filter(|name| name.contains("__")) {
            let path = environment_path(name);
            let value = if free(&path) {
                Value::from(value)
            } else {
                yaml(&value).unwrap_or(Value::from(value))
            };
            set(&mut tree, &path, value);
        }
    }
    let mut problems = Vec::new();
    let mut leaves = Vec::new();
    collect(&tree, &defaults, &mut Vec::new(), &mut leaves, &mut problems);
    let mut whole = defaults.clone();
    for (path, value) in leaves {
        let key = path.join(".");
        let value = match secrets(&value) {
            Ok(value) => value,
            Err(message) => {
                problems.push(problem(key, message));
                continue;
            }
        };
        let mut alone = defaults.clone();
        set(&mut alone, &path, value.clone());
        match serde_json::from_value::<Config>(Value::Object(alone)) {
            Ok(_) => set(&mut whole, &path, value),
            Err(error) => problems.push(problem(key, error.to_string())),
        }
    }
    let config = match serde_json::from_value::<Config>(Value::Object(whole)) {
        Ok(config) => config,
        Err(error) => {
            problems.push(problem("", error.to_string()));
            return Err(Problems(problems));
        }
    };
    problems.extend(validate::problems(&config));
    if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
}

fn yaml(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

/// The tree of defaults: every key there is.
fn defaults() -> Map<String, Value> {
    match serde_json::to_value(Config::default()) {
        Ok(Value::Object(tree)) => tree,
        _ => Map::new(),
    }
}

/// Keys under which any name is allowed: Kafka's own properties.
fn free(path: &[String]) -> bool {
    matches!(path, [kafka, section, ..] if kafka == "kafka"
        && ["common", "consumer", "producer"].contains(&section.as_str()))
}

/// `KAFKA__COMMON__BOOTSTRAP_SERVERS` → `kafka`, `common`, `bootstrap.servers`.
fn environment_path(name: &str) -> Vec<String> {
    let mut path: Vec<String> = name.split("__").map(str::to_lowercase).collect();
    if free(&path)
        && let [_, _, property, ..] = &mut path[..]
    {
        *property = property.replace('_', ".");
    }
    path
}

fn set(tree: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => (),
        [last] => drop(tree.insert(last.clone(), value)),
        [first, rest @ ..] => {
            let below = tree.entry(first.clone()).or_insert_with(|| Value::Object(Map::new()));
            if !below.is_object() {
                *below = Value::Object(Map::new());
            }
            if let Value::Object(below) = below {
                set(below, rest, value);
            }
        }
    }
}

/// The leaves of `tree` with their paths; a key that `defaults` does not have is a problem.
fn collect(
    tree: &Map<String, Value>,
    defaults: &Map<String, Value>,
    path: &mut Vec<String>,
    leaves: &mut Vec<(Vec<String>, Value)>,
    problems: &mut Vec<Problem>,
) {
    for (key, value) in tree {
        path.push(key.clone());
        match (defaults.get(key), value) {
            _ if 3 <= path.len() && free(path) => leaves.push((path.clone(), text(value))),
            (Some(Value::Object(below)), Value::Object(value)) => {
                collect(value, below, path, leaves, problems);
            }
            // A section without keys is one with its defaults.
            (Some(Value::Object(_)), Value::Null) => (),
            (Some(_), value) => leaves.push((path.clone(), value.clone())),
            (None, _) => problems.push(problem(path.join("."), unknown(key, defaults))),
        }
        path.pop();
    }
}

/// Kafka's properties are text, whatever YAML makes of them: `true`, `30000`.
fn text(value: &Value) -> Value {
    match value {
        Value::Bool(_) | Value::Number(_) => Value::from(value.to_string()),
        Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => value.clone(),
    }
}

fn unknown(key: &str, known: &Map<String, Value>) -> String {
    let near = known
        .keys()
        .max_by(|a, b| strsim::jaro_winkler(key, a).total_cmp(&strsim::jaro_winkler(key, b)));
    match near.filter(|near| 0.75 < strsim::jaro_winkler(key, near)) {
        Some(near) => format!("unknown key; did you mean {near:?}?"),
        None => {
            let known: Vec<&str> = known.keys().map(String::as_str).collect();
            format!("unknown key; there are {}", known.join(", "))
        }
    }
}

/// Puts `${env:NAME}` and `${file:PATH}` in. The message never holds the secret.
fn secrets(value: &Value) -> Result<Value, String> {
    let Value::String(text) = value else {
        return Ok(value.clone());
    };
    let mut whole = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("${") {
        let Some((reference, behind)) = after.split_once('}') else {
            return Err("\"${\" without \"}\"; write ${env:NAME} or ${file:PATH}".to_owned());
        };
        whole.push_str(before);
        let found = match reference.split_once(':') {
            Some(("env", name)) => std::env::var(name)
                .map_err(|_error| format!("the environment variable {name} is not set"))?,
            Some(("file", path)) => std::fs::read_to_string(path)
                .map_err(|error| format!("read the secret file {path}: {error}"))?
                .trim_end_matches(['\n', '\r'])
                .to_owned(),
            _ => {
                return Err(format!(
                    "${{{reference}}} is neither ${{env:NAME}} nor ${{file:PATH}}"
                ));
            }
        };
        whole.push_str(&found);
        rest = behind;
    }
    whole.push_str(rest);
    Ok(Value::from(whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WhenIdle;

    pub(crate) const GOOD: &str = "
kafka:
  group: g
  common: { bootstrap.servers: 'localhost:9092', socket.timeout.ms: 10000 }
input: { topics: [in] }
output: { topic: out }
model: { uri: './model' }
";

    fn read(text: &str, environment: &[(&str, &str)]) -> Result<Config, Problems> {
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        parse(text, environment.collect::<Vec<_>>().into_iter())
    }

    #[track_caller]
    fn said(extra: &str) -> String {
        read(&format!("{GOOD}{extra}"), &[]).unwrap_err().to_string()
    }

    #[test]
    fn the_least_is_enough() {
        let config = read(GOOD, &[]).unwrap();
        assert_eq!(config.batch, crate::config::Batch::default());
        assert_eq!(config.kafka.common["socket.timeout.ms"], "10000");
    }

    #[test]
    fn the_environment_overrides() {
        let config = read(
            GOOD,
            &[
                ("TIDEMILL_BATCH__MAX_RECORDS", "64"),
                ("TIDEMILL_BATCH__MAX_WAIT", "2s"),
                ("TIDEMILL_BATCH__WHEN_IDLE", "flush"),
                ("TIDEMILL_KAFKA__COMMON__BOOTSTRAP_SERVERS", "b:1"),
                ("TIDEMILL_CONFIG", "ignored"),
            ],
        )
        .unwrap();
        assert_eq!((config.batch.max_records, config.batch.when_idle), (64, WhenIdle::Flush));
        assert_eq!(config.batch.max_wait.to_string(), "2s");
        assert_eq!(config.kafka.common["bootstrap.servers"], "b:1");
        let wrong = read(GOOD, &[("TIDEMILL_BATCH__MAX_RECORD", "64")]).unwrap_err().to_string();
        assert!(wrong.contains("did you mean \"max_records\""), "{wrong}");
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let said = said(
            "batch: { max_recods: 3, max_wait: 50, max_bytes: 6mb }\nlimits: { drain: 1s }\nhtp: {}\n\
             dead_letters: { max_ratio: lots }\n",
        );
        for part in [
            "batch.max_recods: unknown key; did you mean \"max_records\"?",
            "batch.max_wait: \"50\" is not a duration",
            "batch.max_bytes: \"6mb\" is not a size",
            "htp: unknown key; did you mean \"http\"?",
            "dead_letters.max_ratio: invalid type",
            "limits.drain",
        ] {
            assert!(said.contains(part), "{part} in\n{said}");
        }
        assert!(said.starts_with("the configuration has 6 problem(s)"), "{said}");
    }

    #[test]
    fn secrets_are_read_and_never_said() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hush\n").unwrap();
        let extra = |reference: &str| {
            GOOD.replace("socket.timeout.ms: 10000", &format!("sasl.password: '{reference}'"))
        };
        let reference = format!("${{file:{}}}", file.path().display());
        let config = read(&extra(&reference), &[]).unwrap();
        assert_eq!(config.kafka.common["sasl.password"], "hush");
        assert!(!format!("{config:?}").contains("hush"));
        for (reference, expect) in [
            ("${env:TIDEMILL_TEST_ABSENT}", "TIDEMILL_TEST_ABSENT is not set"),
            ("${file:/nowhere}", "read the secret file /nowhere"),
            ("${vault:x}", "neither ${env:NAME} nor ${file:PATH}"),
            ("${env:X", "without"),
        ] {
            let said = read(&extra(reference), &[]).unwrap_err().to_string();
            assert!(said.contains(expect), "{said}");
        }
    }

    #[test]
    fn what_is_no_configuration_is_said() {
        for (text, expect) in
            [("- a\n- b", "no mapping"), ("a: [", "read the YAML"), ("", "kafka.common")]
        {
            let said = read(text, &[]).unwrap_err().to_string();
            assert!(said.contains(expect), "{said}");
        }
    }
}

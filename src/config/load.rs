//! Reads the file, the environment and the secrets; reports every problem at once.
//!
//! ```text
//! file ─► YAML ─► tree ◄─ TIDEMILL_BATCH__MAX_RECORDS=64
//!                  │  ◄── ${env:…}, ${file:…}
//!                  ▼
//!          each leaf, alone, against the default tree ─► Config ─► rules between keys
//! ```
//!
//! # Invariants
//!
//! 1. One wrong key hides no other.
//! 2. What came from `${…}` is never printed.
//! 3. An empty file gives [`Config::default`] and the problems of the keys that are required.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::secret::{self, Sources};
use super::{Config, Problem, Problems, tree, validate};

/// What names an override begins with.
const PREFIX: &str = "TIDEMILL_";

/// The configuration from `file` (none: the defaults), overridden by `env`.
///
/// `TIDEMILL_BATCH__MAX_RECORDS=64` sets `batch.max_records`; under `kafka.common`, `.consumer` and
/// `.producer` single underscores are dots: `TIDEMILL_KAFKA__COMMON__BOOTSTRAP_SERVERS`. Other variables
/// that begin with `TIDEMILL_` are left alone, because Kubernetes sets `TIDEMILL_PORT` and its like.
///
/// # Errors
///
/// All problems: the file is not there or no YAML; unknown keys; values that do not fit; secrets that are
/// missing; keys that contradict each other.
pub fn load(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Config, Problems> {
    let text = file.map(read).transpose()?.unwrap_or_default();
    let name = file.map_or_else(|| "the file".to_owned(), |file| file.display().to_string());
    let folder = file.and_then(Path::parent).unwrap_or_else(|| Path::new(""));
    build(&text, &name, folder, &env.collect())
}

/// The configuration from `text` alone: no overrides, no variables, files from the working directory.
///
/// # Errors
///
/// As [`load`].
pub fn from_yaml(text: &str) -> Result<Config, Problems> {
    build(text, "the file", Path::new(""), &BTreeMap::new())
}

/// The process's variables, for [`load`]. What is not UTF-8 is left out.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn read(file: &Path) -> Result<String, Problems> {
    std::fs::read_to_string(file).map_err(|error| {
        Problems::one(Problem::new(
            file.display().to_string(),
            format!("read the configuration: {error}"),
            "give the path of a YAML file with --config",
        ))
    })
}

fn build(
    text: &str,
    name: &str,
    folder: &Path,
    env: &BTreeMap<String, String>,
) -> Result<Config, Problems> {
    let mut given = parse(text).map_err(|error| {
        Problems::one(Problem::new(
            name,
            format!("is no YAML: {error}"),
            "mend that line; keys are indented by spaces and a value stands after `: `",
        ))
    })?;
    if !matches!(given, Value::Null | Value::Object(_)) {
        return Err(Problems::one(Problem::new(
            name,
            "holds no keys",
            "begin with `kafka:`, as in config/quickstart.yaml",
        )));
    }
    let defaults = defaults()?;
    let mut state = State {
        sources: Sources { env, folder },
        keys: tree::keys(&defaults),
        tree: defaults.clone(),
        defaults,
        problems: Vec::new(),
        secrets: Vec::new(),
    };
    state.overrides(&mut given);
    state.section(&given, "");
    state.finish()
}

fn parse(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    // `no` and `on` are words: a topic may be called so.
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

/// The default configuration as a tree.
fn defaults() -> Result<Value, Problems> {
    serde_json::to_value(Config::default()).map_err(|error| {
        Problems::one(Problem::new("the defaults", error.to_string(), "report this as a bug"))
    })
}

/// What is known while the tree is walked.
struct State<'a> {
    sources: Sources<'a>,
    /// Every key there is.
    keys: Vec<String>,
    defaults: Value,
    /// The defaults with every good leaf of the file put in.
    tree: Value,
    problems: Vec<Problem>,
    /// Values that came from `${…}`: cut out of every message.
    secrets: Vec<String>,
}

impl State<'_> {
    fn problem(&mut self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem::new(key, message, remedy));
    }

    fn unknown(&mut self, key: &str, written: &str) {
        let remedy = match tree::nearest(key, &self.keys) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => {
                let section = key.rsplit_once('.').map_or("", |(section, _)| section);
                let place = if section.is_empty() { "the file" } else { section };
                format!("{place} has: {}", tree::names(&self.defaults, section))
            }
        };
        self.problem(key, format!("there is no such key{written}"), remedy);
    }

    /// Puts the variables that begin with [`PREFIX`] and have `__` (or are `TIDEMILL_LOG`) into `given`.
    fn overrides(&mut self, given: &mut Value) {
        let env = self.sources.env;
        for (variable, text) in env {
            let Some(name) = variable.strip_prefix(PREFIX) else { continue };
            if !name.contains("__") && name != "LOG" {
                continue;
            }
            let key = name.to_ascii_lowercase().replace("__", ".");
            let free = tree::FREE
                .iter()
                .find_map(|free| Some((free, key.strip_prefix(free)?.strip_prefix('.')?)));
            if let Some((section, property)) = free {
                let property = property.replace('_', ".");
                let path: Vec<&str> = section.split('.').chain([property.as_str()]).collect();
                tree::set(given, &path, Value::String(text.clone()));
                continue;
            }
            match tree::get(&self.defaults, &key) {
                None | Some(Value::Object(_)) => {
                    self.unknown(&key, &format!(", which the variable {variable} sets"));
                }
                Some(default) => {
                    let value = self.scalar(&key, text, default.is_array());
                    tree::set(given, &key.split('.').collect::<Vec<_>>(), value);
                }
            }
        }
    }

    /// A variable's text as YAML; as a string where only that fits; split at commas where a list is due.
    fn scalar(&self, key: &str, text: &str, list: bool) -> Value {
        let string = Value::String(text.to_owned());
        let parsed = parse(text).unwrap_or_else(|_| string.clone());
        if list && !parsed.is_array() {
            return text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        }
        if self.fits(key, &parsed).is_err() && self.fits(key, &string).is_ok() {
            return string;
        }
        parsed
    }

    /// Takes over what `given` has under `path`.
    fn section(&mut self, given: &Value, path: &str) {
        let Value::Object(entries) = given else {
            if !given.is_null() {
                let names = tree::names(&self.defaults, path);
                let message = format!("is a section, not {}", kind(given));
                self.problem(path, message, format!("put its keys under it: {names}"));
            }
            return;
        };
        for (key, value) in entries {
            let key = tree::join(path, key);
            if tree::FREE.contains(&key.as_str()) {
                self.properties(value, &key);
                continue;
            }
            match tree::get(&self.defaults, &key) {
                // A dot inside a key would find a path; it is no key of its own.
                None => self.unknown(&key, ""),
                Some(Value::Object(_)) => self.section(value, &key),
                Some(_) => self.leaf(value, &key),
            }
        }
    }

    /// Librdkafka's own properties: every scalar is a string there.
    fn properties(&mut self, given: &Value, path: &str) {
        let Value::Object(entries) = given else {
            if !given.is_null() {
                self.problem(path, "is no map", "write `name: value` lines under it");
            }
            return;
        };
        let mut flat = BTreeMap::new();
        flatten(entries, "", &mut flat);
        for (name, value) in flat {
            let key = tree::join(path, &name);
            let text = match &value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    let remedy = "write a string, a number, true or false";
                    self.problem(
                        &key,
                        format!("is {}, which no property is", kind(&value)),
                        remedy,
                    );
                    continue;
                }
            };
            match secret::resolve(&text, &self.sources) {
                Ok(resolved) => {
                    self.secrets.extend(resolved.clone());
                    let mut place: Vec<&str> = path.split('.').collect();
                    place.push(&name);
                    tree::set(&mut self.tree, &place, Value::String(resolved.unwrap_or(text)));
                }
                Err((message, remedy)) => self.problem(&key, message, remedy),
            }
        }
    }

    /// One value: its secrets are put in, then it must fit.
    fn leaf(&mut self, given: &Value, key: &str) {
        let mut value = given.clone();
        let mut secrets = Vec::new();
        if let Err((message, remedy)) = fill(&mut value, &self.sources, &mut secrets) {
            return self.problem(key, message, remedy);
        }
        let secret = !secrets.is_empty();
        self.secrets.append(&mut secrets);
        match self.fits(key, &value) {
            Ok(()) => tree::set(&mut self.tree, &key.split('.').collect::<Vec<_>>(), value),
            Err(_) if secret => {
                let message = "the value does not fit (it is not shown: it comes from `${…}`)";
                self.problem(key, message, self.expected(key));
            }
            Err(message) => {
                let quoted = value.is_number() || value.is_boolean();
                let remedy = if quoted && message.contains("a string") {
                    "put it in quotes".to_owned()
                } else {
                    self.expected(key)
                };
                self.problem(key, message, remedy);
            }
        }
    }

    /// A remedy for a value that does not fit: what the default looks like.
    fn expected(&self, key: &str) -> String {
        match tree::get(&self.defaults, key) {
            None | Some(Value::Null) => "see config/tidemill.yaml for its form".to_owned(),
            Some(Value::String(text)) if text.is_empty() => "write a string".to_owned(),
            Some(Value::Array(_)) => "write a list: `[a, b]`".to_owned(),
            Some(default) => {
                let shown = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
                format!("its default is `{shown}`")
            }
        }
    }

    /// Whether the default tree is still a configuration with this one leaf replaced.
    fn fits(&self, key: &str, value: &Value) -> Result<(), String> {
        let mut probe = self.defaults.clone();
        tree::set(&mut probe, &key.split('.').collect::<Vec<_>>(), value.clone());
        serde_json::from_value::<Config>(probe).map(drop).map_err(|error| error.to_string())
    }

    /// The configuration, if nothing is wrong with it.
    fn finish(mut self) -> Result<Config, Problems> {
        let config = match serde_json::from_value::<Config>(self.tree) {
            Ok(config) => config,
            Err(error) => {
                self.problems.push(Problem::new(
                    "the file",
                    error.to_string(),
                    "report this as a bug",
                ));
                return Err(Problems(self.problems));
            }
        };
        // A key that is already named says nothing new; its default would be judged instead of its value.
        let known: BTreeSet<String> = self.problems.iter().map(|p| p.key.clone()).collect();
        let rules = validate::problems(&config);
        self.problems.extend(rules.into_iter().filter(|p| !known.contains(&p.key)));
        for problem in &mut self.problems {
            for secret in self.secrets.iter().filter(|secret| !secret.is_empty()) {
                problem.message = problem.message.replace(secret.as_str(), "(not shown)");
            }
        }
        if self.problems.is_empty() { Ok(config) } else { Err(Problems(self.problems)) }
    }
}

/// Librdkafka's names have dots; `security: {protocol: SSL}` means `security.protocol`.
fn flatten(
    entries: &serde_json::Map<String, Value>,
    path: &str,
    flat: &mut BTreeMap<String, Value>,
) {
    for (key, value) in entries {
        let key = tree::join(path, key);
        if let Value::Object(inner) = value {
            flatten(inner, &key, flat);
        } else {
            flat.insert(key, value.clone());
        }
    }
}

/// Puts secrets into every string of `value`.
fn fill(
    value: &mut Value,
    sources: &Sources<'_>,
    secrets: &mut Vec<String>,
) -> Result<(), secret::Unresolved> {
    match value {
        Value::String(text) => {
            if let Some(resolved) = secret::resolve(text, sources)? {
                secrets.push(resolved.clone());
                *text = resolved;
            }
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| fill(item, sources, secrets)),
        Value::Object(entries) => {
            entries.values_mut().try_for_each(|entry| fill(entry, sources, secrets))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;

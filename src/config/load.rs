//! Reads the file, the environment and the secrets; reports every problem at once.
//!
//! ```text
//! file ─► YAML ─► tree ◄─ TIDEMILL_BATCH__MAX_RECORDS=64
//!                  │  ◄── ${env:…}, ${file:…} under kafka.common, .consumer and .producer
//!                  ▼
//!          each leaf, alone, against the default tree ─► Config ─► rules between keys
//! ```
//!
//! # Invariants
//!
//! 1. One wrong key hides no other.
//! 2. What came from `${…}` is never printed, nor is a value of librdkafka's properties that is a secret by its name.
//! 3. An empty file gives [`Config::default`] and the problems of the keys that are required.
//! 4. A variable that overrides is taken as it is: nothing in it is looked up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde_json::Value;

use super::origin::Origin;
use super::properties;
use super::secret::{self, Secrets, Sources, Unresolved};
use super::{Config, Log, Place, Problem, Problems, Uri, tree, validate, yaml};

/// What names an override begins with.
const PREFIX: &str = "TIDEMILL_";

/// The configuration from `file` (none: the defaults), overridden by `env`.
///
/// `TIDEMILL_BATCH__MAX_RECORDS=64` sets `batch.max_records`; under `kafka.common`, `.consumer` and
/// `.producer` single underscores are dots: `TIDEMILL_KAFKA__COMMON__BOOTSTRAP_SERVERS`. Other variables
/// that begin with `TIDEMILL_` are left alone, because Kubernetes sets `TIDEMILL_PORT` and its like. A variable's text
/// is the value: `${` in it is nothing but two characters.
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
    build(&text, file, &env.collect())
}

/// The configuration from `text` alone: no overrides, no variables, files from the working directory.
///
/// # Errors
///
/// As [`load`].
pub fn from_yaml(text: &str) -> Result<Config, Problems> {
    build(text, None, &BTreeMap::new())
}

/// The process's variables, for [`load`]. Those with names that are not UTF-8 are left out; values that are not have
/// the replacement character in them, by which [`load`] refuses them where they are used.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    })
}

/// Most bytes of a configuration.
const LARGEST: u64 = 1 << 20;

fn read(file: &Path) -> Result<String, Problems> {
    let read = || {
        let mut text = String::new();
        // One byte more than may be, whatever the file says of its size: a device has no end.
        File::open(file)?.take(LARGEST + 1).read_to_string(&mut text)?;
        if LARGEST < u64::try_from(text.len()).unwrap_or(u64::MAX) {
            return Err(io::Error::other("it has more than 1 MiB"));
        }
        Ok(text)
    };
    read().map_err(|error: io::Error| {
        Problems::one(Problem::new(
            file.display().to_string(),
            format!("read the configuration: {error}"),
            "give the path of a YAML file with --config",
        ))
    })
}

fn build(
    text: &str,
    file: Option<&Path>,
    env: &BTreeMap<String, String>,
) -> Result<Config, Problems> {
    let name = file.map_or_else(|| "the file".to_owned(), |file| file.display().to_string());
    let mut given = yaml::parse(text).map_err(|message| {
        let remedy = "mend that line: keys are indented by spaces, a value stands after `: `, and one with `: `, ` #` \
                      or a sign of YAML's at its beginning stands in quotes";
        Problems::one(Problem::new(&name, message, remedy))
    })?;
    if !matches!(given, Value::Null | Value::Object(_)) {
        return Err(Problems::one(Problem::new(
            name,
            "holds no keys",
            "begin with `kafka:`, as in config/quickstart.yaml",
        )));
    }
    let folder = file.and_then(Path::parent).unwrap_or_else(|| Path::new(""));
    let defaults = defaults()?;
    let mut state = State {
        sources: Sources { env, folder },
        file,
        keys: tree::keys(&defaults),
        tree: defaults.clone(),
        defaults,
        problems: Vec::new(),
        secrets: Secrets::default(),
        variables: BTreeMap::new(),
        properties: BTreeMap::new(),
    };
    state.overrides(&mut given);
    state.section(&given, "");
    state.override_properties();
    state.finish()
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
    file: Option<&'a Path>,
    /// Every key there is.
    keys: Vec<String>,
    defaults: Value,
    /// The defaults with every good leaf of the file put in.
    tree: Value,
    problems: Vec<Problem>,
    /// Cut out of every message.
    secrets: Secrets,
    /// Which variable overrides a key, and its text.
    variables: BTreeMap<String, (String, String)>,
    /// Section and name of the properties that variables override, and the text.
    properties: BTreeMap<(&'static str, String), String>,
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
        self.problem(&tree::shown(key), format!("there is no such key{written}"), remedy);
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
                .find_map(|free| Some((*free, key.strip_prefix(free)?.strip_prefix('.')?)));
            let shown = free.map_or_else(
                || tree::shown(&key),
                |(section, name)| tree::shown(&tree::join(section, &name.replace('_', "."))),
            );
            if text.contains(char::REPLACEMENT_CHARACTER) {
                let message =
                    format!("the variable {variable}, which sets it, is not valid UTF-8 text");
                self.problem(&shown, message, "set it to UTF-8 text");
                continue;
            }
            if let Some((section, property)) = free {
                self.properties.insert((section, property.replace('_', ".")), text.clone());
                continue;
            }
            match tree::get(&self.defaults, &key) {
                None | Some(Value::Object(_)) => {
                    self.unknown(&key, &format!(", which the variable {variable} sets"));
                }
                Some(default) => {
                    let value = self.scalar(&key, text, default.is_array());
                    tree::set(given, &key.split('.').collect::<Vec<_>>(), value);
                    self.variables.insert(key, (variable.clone(), text.clone()));
                }
            }
        }
    }

    /// A variable's text: as it is where a text fits, else as YAML; split at commas where a list is due. `null`, or
    /// nothing, is nothing where that fits.
    fn scalar(&self, key: &str, text: &str, list: bool) -> Value {
        let string = Value::String(text.to_owned());
        let parsed = yaml::value(text).unwrap_or_else(|| string.clone());
        if list && !parsed.is_array() {
            return text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        }
        let nothing = parsed.is_null() && self.fits(key, &parsed).is_ok();
        if !nothing && self.fits(key, &string).is_ok() { string } else { parsed }
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
            if tree::NAMED.contains(&key.as_str()) {
                self.named_values(value, &key);
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

    /// Librdkafka's own properties: every scalar is the text that it is.
    fn properties(&mut self, given: &Value, path: &str) {
        let Value::Object(entries) = given else {
            if !given.is_null() {
                self.problem(path, "is not a map", "write `name: value` lines under it");
            }
            return;
        };
        let mut flat = Vec::new();
        flatten(entries, "", &mut flat);
        let mut seen = BTreeSet::new();
        for (name, value) in flat {
            if self.properties.keys().any(|(section, own)| *section == path && *own == name) {
                continue;
            }
            if let Err((message, remedy)) =
                self.property(path, &name, value, seen.insert(name.clone()))
            {
                self.problem(&tree::shown(&tree::join(path, &name)), message, remedy);
            }
        }
    }

    /// Values of ours under names that are not: each must fit by itself.
    fn named_values(&mut self, given: &Value, path: &str) {
        let Value::Object(entries) = given else {
            if !given.is_null() {
                self.problem(path, "is not a map", "write `name: {…}` lines under it");
            }
            return;
        };
        for (name, value) in entries {
            let key = tree::shown(&tree::join(path, name));
            if any_text(value, &secret::refers) {
                let message = "refers to something by `${…}`, and no secret may stand here";
                self.problem(&key, message, "write the value itself");
                continue;
            }
            let entry = serde_json::Map::from_iter([(name.clone(), value.clone())]);
            match self.fits(path, &Value::Object(entry)) {
                Ok(()) => {
                    let place: Vec<&str> = path.split('.').chain([name.as_str()]).collect();
                    tree::set(&mut self.tree, &place, value.clone());
                }
                Err(message) => {
                    self.problem(&key, message, "see input.clean in config/tidemill.yaml");
                }
            }
        }
    }

    /// One property: its references are replaced, and it is noted whether it is a secret.
    fn property(
        &mut self,
        path: &str,
        name: &str,
        value: &Value,
        first: bool,
    ) -> Result<(), Unresolved> {
        if !first {
            let message = "stands there twice, with dots and as maps in maps";
            return Err((message.to_owned(), "leave one of them out".to_owned()));
        }
        let Value::String(text) = value else {
            let remedy = match value {
                Value::Null => {
                    "write a value, or leave the line out; the words `null` and `~` and an empty text are written in \
                     quotes"
                }
                Value::Array(_) => "write one text, its parts separated by commas",
                Value::Object(_) | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                    "write a text, a number, true or false"
                }
            };
            return Err((format!("is {}, which no property is", kind(value)), remedy.to_owned()));
        };
        let value = self.revealed(text, is_secret(path, name))?;
        self.put(path, name, value);
        Ok(())
    }

    /// A text with its references replaced. Where it has none and is a `secret`, it stands in the file itself.
    fn revealed(&mut self, text: &str, secret: bool) -> Result<String, Unresolved> {
        let resolved = secret::resolve(text, &self.sources, &mut self.secrets)?;
        if resolved.is_none() && secret {
            self.secrets.hide(text);
            if let Some(file) = self.file
                && file.metadata().is_ok_and(|about| secret::everybody_reads(&about))
            {
                self.secrets.expose(file);
            }
        }
        Ok(resolved.unwrap_or_else(|| text.to_owned()))
    }

    /// The value of a key that is a secret: a reference to it, or the secret itself. A variable is taken as it is.
    fn secret(&mut self, key: &str, text: &str) {
        let value = if self.variables.contains_key(key) {
            self.secrets.hide(text);
            Ok(text.to_owned())
        } else {
            self.revealed(text, true)
        };
        match value {
            Ok(value) => {
                let place: Vec<&str> = key.split('.').collect();
                tree::set(&mut self.tree, &place, Value::String(value));
            }
            Err((message, remedy)) => self.problem(key, message, remedy),
        }
    }

    /// Puts a value under a name that is not ours. What fields and topics are given must fit all the same.
    fn put(&mut self, section: &str, name: &str, value: String) {
        let entry = serde_json::Map::from_iter([(name.to_owned(), Value::from(value.as_str()))]);
        if let Err(message) = self.fits(section, &Value::Object(entry)) {
            let key = tree::shown(&tree::join(section, name));
            return self.problem(&key, message, "see config/tidemill.yaml for its form");
        }
        let place: Vec<&str> = section.split('.').chain([name]).collect();
        tree::set(&mut self.tree, &place, Value::String(value));
    }

    /// Puts in the properties that variables set.
    fn override_properties(&mut self) {
        for ((section, name), text) in std::mem::take(&mut self.properties) {
            if is_secret(section, &name) {
                self.secrets.hide(&text);
            }
            self.put(section, &name, text);
        }
    }

    /// One value: it must fit, and not refer to anything.
    fn leaf(&mut self, value: &Value, key: &str) {
        if let Value::String(text) = value
            && tree::SECRET.contains(&key)
        {
            return self.secret(key, text);
        }
        let variable = self.variables.get(key).cloned();
        if variable.is_none() && any_text(value, &secret::refers) {
            let message = "refers to something by `${…}`: names, paths and amounts are shown in logs, metrics and \
                           headers, so no secret may stand here";
            let instead = key.to_ascii_uppercase().replace('.', "__");
            let remedy = format!("write the value itself, or set the variable {PREFIX}{instead}");
            return self.problem(key, message, remedy);
        }
        match self.fits(key, value) {
            Ok(()) => {
                tree::set(&mut self.tree, &key.split('.').collect::<Vec<_>>(), value.clone());
            }
            Err(message) => {
                let quoted = value.is_number() || value.is_boolean();
                let remedy = if quoted && message.contains("a string") {
                    "put it in quotes".to_owned()
                } else {
                    self.expected(key, value, &message)
                };
                let message = match &variable {
                    Some((name, text)) => {
                        let message = named(&message, name, text);
                        let mut left = Secrets::default();
                        left.hide(text);
                        if left.within(&message) {
                            format!("${name} does not fit")
                        } else {
                            message
                        }
                    }
                    None => message,
                };
                self.problem(key, message, remedy);
                self.stand_in(key, value);
            }
        }
    }

    /// What a value that does not fit is to the rules between keys. One that was to be a registered model is one to them,
    /// so that a registry that is missing is named as well.
    fn stand_in(&mut self, key: &str, value: &Value) {
        if key == "model.uri"
            && value.as_str().is_some_and(|text| text.starts_with(Uri::REGISTERED))
        {
            let any = Value::String(format!("{}any/1", Uri::REGISTERED));
            tree::set(&mut self.tree, &["model", "uri"], any);
        }
    }

    /// A remedy for a value that does not fit: its forms, or what the default looks like.
    fn expected(&self, key: &str, value: &Value, message: &str) -> String {
        match key {
            "log" => return Log::FORM.to_owned(),
            "model.uri" => return Uri::FORM.to_owned(),
            "model.device" => return Place::FORM.to_owned(),
            key if key.ends_with(".listen") && value.is_number() => {
                return format!("write an address with its port: `0.0.0.0:{value}`");
            }
            _ => (),
        }
        if let Some(Value::Array(_)) = tree::get(&self.defaults, key)
            && let Value::String(text) = value
        {
            return format!("write a list: `[{text}]`");
        }
        if let (Some(near), Some(text)) = (nearest(message), value.as_str()) {
            return format!("did you mean `{near}`, not `{text}`?");
        }
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
            if let Some((name, text)) = self.variables.get(&problem.key) {
                problem.message = named(&problem.message, name, text);
            }
        }
        if self.problems.is_empty() {
            let origin = Origin::new(self.file, &config.kafka);
            Ok(Config { secrets: self.secrets, origin, ..config })
        } else {
            Err(Problems(self.problems))
        }
    }
}

/// `message` with the name of the variable where it quotes its text, which may have been meant for another key.
fn named(message: &str, variable: &str, text: &str) -> String {
    let name = format!("${variable}");
    message.replace(&format!("{text:?}"), &name).replace(&format!("`{text}`"), &name)
}

/// Librdkafka's names have dots; `security: {protocol: SSL}` means `security.protocol`.
fn flatten<'a>(
    entries: &'a serde_json::Map<String, Value>,
    path: &str,
    flat: &mut Vec<(String, &'a Value)>,
) {
    for (key, value) in entries {
        let key = tree::join(path, key);
        if let Value::Object(inner) = value
            && !inner.is_empty()
        {
            flatten(inner, &key, flat);
        } else {
            flat.push((key, value));
        }
    }
}

/// Whether some text in `value` is such.
/// Whether a name in a section of others' names is that of a secret: only librdkafka has such.
fn is_secret(section: &str, name: &str) -> bool {
    section.starts_with("kafka.") && properties::sensitive(name)
}

fn any_text(value: &Value, such: &impl Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => such(text),
        Value::Array(items) => items.iter().any(|item| any_text(item, such)),
        Value::Object(entries) => entries.values().any(|entry| any_text(entry, such)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(entries) if entries.is_empty() => "an empty map",
        Value::Object(_) => "a map",
    }
}

/// The word that is nearest to the one that serde did not know, where at most two of its letters, and half of them, are others
/// or have changed places.
fn nearest(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("unknown variant `")?;
    let (wrong, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2);
    let found = known.map(|word| (strsim::osa_distance(wrong, word), word)).min()?;
    let most = (wrong.chars().count() / 2).min(2);
    (found.0 <= most).then(|| found.1.to_owned())
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;

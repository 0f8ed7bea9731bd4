//! The configuration as a tree: which keys there are, and which is the nearest to one that is not.

use serde_json::{Map, Value};

use super::secret;

/// Sections whose keys are others' names, with dots in them: librdkafka's own, a record's fields, topics.
pub const FREE: [&str; 6] = [
    "kafka.common",
    "kafka.consumer",
    "kafka.producer",
    "input.fields",
    "input.formats",
    "output.fields",
];

/// Keys whose values are secrets: they may refer to one, as librdkafka's properties may.
pub const SECRET: [&str; 2] = ["schema_registry.password", "schema_registry.token"];

/// `section.key`, or `key` at the top.
pub fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// A key as a message may show it. What is no name is cut off, and so is what follows the name of a secret: where a
/// space or a quote is missing, a password becomes a part of the key.
///
/// # Examples
///
/// ```
/// use tidemill::config::tree::shown;
///
/// assert_eq!(shown("kafka.common.sasl.pasword"), "kafka.common.sasl.pasword");
/// assert_eq!(shown("sasl.password:hunter2"), "sasl.password…");
/// assert_eq!(shown("sasl.password.hunter2"), "sasl.password…");
/// ```
pub fn shown(key: &str) -> String {
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let named = key.split(|c| !name(c)).next().unwrap_or_default();
    let mut shown = String::new();
    for part in named.split('.') {
        if !shown.is_empty() {
            shown.push('.');
        }
        shown.push_str(part);
        if secret::names_secret(part) {
            break;
        }
    }
    if shown != key {
        shown.push('…');
    }
    shown
}

/// Every key with its path, sections included.
pub fn keys(tree: &Value) -> Vec<String> {
    fn walk(tree: &Value, path: &str, keys: &mut Vec<String>) {
        let Value::Object(entries) = tree else { return };
        for (key, value) in entries {
            let path = join(path, key);
            walk(value, &path, keys);
            keys.push(path);
        }
    }
    let mut keys = Vec::new();
    walk(tree, "", &mut keys);
    keys
}

/// The value at `path`, where it is there.
pub fn get<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(tree, |tree, key| tree.as_object()?.get(key))
}

/// Puts `value` at `path`; sections that are missing or null are made.
pub fn set(tree: &mut Value, path: &[&str], value: Value) {
    let Some((key, rest)) = path.split_first() else {
        *tree = value;
        return;
    };
    if !tree.is_object() {
        *tree = Value::Object(Map::new());
    }
    if let Value::Object(entries) = tree {
        set(entries.entry((*key).to_owned()).or_insert(Value::Null), rest, value);
    }
}

/// The key that was probably meant by `path`. Its last part counts alone too: `max_wait` at the top is
/// `batch.max_wait`.
pub fn nearest<'a>(path: &str, keys: &'a [String]) -> Option<&'a str> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let (name, section) = (last(path), path.rsplit_once('.').map_or("", |(section, _)| section));
    let score = |key: &str| {
        let whole = strsim::jaro_winkler(path, key);
        let same_section = key.rsplit_once('.').map_or("", |(section, _)| section) == section;
        let part = strsim::jaro_winkler(&name, &last(key));
        // A neighbour's name is judged alone; elsewhere the name must be all but equal.
        if same_section { part } else { whole.min(part).max(if part > 0.96 { 0.85 } else { 0.0 }) }
    };
    keys.iter()
        .map(|key| (score(key), key.as_str()))
        .filter(|(score, _)| *score > 0.78)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| key)
}

/// A section's keys, for a message: `max_records, max_bytes, …`.
pub fn names(tree: &Value, section: &str) -> String {
    let section = if section.is_empty() { Some(tree) } else { get(tree, section) };
    let entries = section.and_then(Value::as_object);
    entries.map_or_else(String::new, |entries| {
        entries.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    })
}

//! What a service is that does not change while it runs: its build, its configuration without secrets.

use serde::Serialize;
use serde_json::Value;

use crate::config::Config;
use crate::config::secret::{HIDDEN, names_secret};
use crate::status::wall_clock_ms;

/// What is compiled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Build {
    /// Of the crate.
    pub version: &'static str,
    /// The commit, where whoever built it has set `TIDEMILL_COMMIT`.
    pub commit: Option<&'static str>,
    /// Architecture and system.
    pub target: &'static str,
    /// The devices that models can run on.
    pub devices: &'static str,
}

/// Of this program.
pub const BUILD: Build = Build {
    version: env!("CARGO_PKG_VERSION"),
    commit: option_env!("TIDEMILL_COMMIT"),
    target: TARGET,
    devices: DEVICES,
};

const TARGET: &str = if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
    "x86_64 linux"
} else if cfg!(all(target_arch = "aarch64", target_os = "linux")) {
    "aarch64 linux"
} else if cfg!(target_os = "macos") {
    "macos"
} else {
    "another system"
};

const DEVICES: &str = if cfg!(feature = "cuda") {
    "cpu, cuda"
} else if cfg!(feature = "metal") {
    "cpu, metal"
} else {
    "cpu"
};

/// What is told beside how the service is.
#[derive(Debug, Clone)]
pub struct About {
    /// The input topics, by their index.
    pub topics: Vec<String>,
    /// Where predictions go.
    pub output: String,
    /// The log's file, or the addresses of the brokers.
    pub log: String,
    /// The consumer group.
    pub group: String,
    /// When it was started, in ms since 1970.
    pub started: i64,
    /// The configuration in force, without secrets.
    pub config: Value,
}

impl About {
    /// Of a service with this configuration that is started now.
    pub fn new(config: &Config) -> Self {
        Self {
            topics: config.input.topics.clone(),
            output: config.output.topic.clone(),
            log: log(config),
            group: config.kafka.group.clone(),
            started: wall_clock_ms(),
            config: shown(config),
        }
    }
}

fn log(config: &Config) -> String {
    if let Some(file) = config.embedded() {
        return file.display().to_string();
    }
    let of = |properties: &std::collections::BTreeMap<String, String>| {
        let names = ["bootstrap.servers", "metadata.broker.list"];
        names.into_iter().find_map(|name| properties.get(name).cloned())
    };
    let servers = of(&config.kafka.consumer).or_else(|| of(&config.kafka.common));
    servers.unwrap_or_else(|| "no bootstrap.servers".to_owned())
}

/// The configuration with [`HIDDEN`] for each secret: what is known as one, what has the name of one, and what stands
/// before the host of an address.
fn shown(config: &Config) -> Value {
    let mut tree = serde_json::to_value(config).unwrap_or_default();
    hide(&mut tree, &|text| without_user(&config.secrets.redact(text)));
    tree
}

fn hide(value: &mut Value, redact: &impl Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = redact(text),
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, redact)),
        Value::Object(entries) => {
            for (key, entry) in entries {
                let key = key.rsplit('.').next().unwrap_or(key);
                let secret = names_secret(key) || key == "token";
                if secret && entry.is_string() {
                    *entry = HIDDEN.into();
                } else {
                    hide(entry, redact);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => (),
    }
}

/// `https://name:word@host` without name and word.
fn without_user(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, _)) => format!("{scheme}://{HIDDEN}{}", rest.strip_prefix(user).unwrap_or("")),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    #[test]
    fn no_secret_is_shown() {
        let config = load::from_yaml(
            "kafka: {group: g, common: {bootstrap.servers: 'b:1', sasl.password: hunter2, ssl.key.pem: k3y}, \
             consumer: {sasl.oauthbearer.config: 'principal=me secret=hunter2'}}\n\
             input: {topics: [in]}\noutput: {topic: out}\nmodel: {uri: m}\n\
             schema_registry: {urls: ['https://joe:pw0rd@registry:1/x'], token: t0ken}",
        )
        .unwrap();
        let text = About::new(&config).config.to_string();
        for secret in ["hunter2", "k3y", "joe", "pw0rd", "t0ken"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        assert!(text.contains("https://(not shown)@registry:1/x"), "{text}");
        assert!(text.contains("\"bootstrap.servers\":\"b:1\""), "{text}");
    }
}

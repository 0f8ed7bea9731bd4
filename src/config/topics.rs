//! What Kafka takes for a name, and the names of the topics that are derived from others.

use super::Config;

/// What a name may be, for a remedy.
pub const NAMES: &str = "1 to 249 of the characters a-z, A-Z, 0-9, `.`, `_`, `-`";

/// What is wrong with a name by Kafka's rule for topics and static members, as in "Kafka does not take …"; `None` where
/// it is one.
pub fn not_a_name(name: &str) -> Option<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() {
        Some("an empty name".to_owned())
    } else if name == "." || name == ".." {
        Some(format!("the name {name:?}"))
    } else if let Some(bad) = name.chars().find(|c| !good(*c)) {
        Some(format!("{bad:?} in the name {name:?}"))
    } else if name.len() > 249 {
        Some(format!("a name of {} characters", name.len()))
    } else {
        None
    }
}

impl Config {
    /// Where dead letters of `input` go: `dead_letters.topic`, else `<input>-dlq`.
    pub fn dead_letter_topic(&self, input: &str) -> String {
        self.dead_letters.topic.clone().unwrap_or_else(|| format!("{input}-dlq"))
    }

    /// Where batches are described: `manifest.topic`, else `<output.topic>-manifest`.
    pub fn manifest_topic(&self) -> String {
        self.manifest.topic.clone().unwrap_or_else(|| format!("{}-manifest", self.output.topic))
    }
}

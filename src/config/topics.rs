//! The names of the topics that are derived from others.

use super::Config;

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

//! Whether the clients' properties are still what this process has read: passwords, tokens and certificates are changed on
//! disk while a service runs, and a client takes them once.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use super::{Config, Kafka, load, tree};
use crate::config::properties::Section;

/// Most bytes of a file that is looked at. Bundles of authorities have some hundred thousand.
const MAX_FILE: u64 = 4 << 20;

/// Where the clients' properties came from. Nothing in it is a secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The configuration file.
    file: Option<PathBuf>,
    /// What stood in the files that properties name, which the client reads by itself.
    files: BTreeMap<PathBuf, Option<u64>>,
}

impl Origin {
    /// Of properties that were just read from `file`.
    pub(super) fn new(file: Option<&Path>, kafka: &Kafka) -> Self {
        let files = named(kafka).map(|(_, path)| (path.to_owned(), contents(path)));
        Self { file: file.map(Path::to_owned), files: files.collect() }
    }

    /// The keys of the properties that would have another value if `config`, which came from here, were loaded again with
    /// the variables `env`; or whose files have other contents. None while that cannot be read: somebody may be writing it.
    pub fn changed(
        &self,
        config: &Config,
        env: impl Iterator<Item = (String, String)>,
    ) -> Vec<String> {
        let Some(file) = &self.file else { return self.changed_files(&config.kafka) };
        let Ok(now) = load::load(Some(file), env) else { return Vec::new() };
        let mut changed = self.changed_files(&now.kafka);
        for section in Section::ALL {
            let (before, now) = (section.of(&config.kafka), section.of(&now.kafka));
            let names = before.keys().chain(now.keys().filter(|name| !before.contains_key(*name)));
            let other = names.filter(|name| before.get(*name) != now.get(*name));
            changed.extend(other.map(|name| tree::join(section.key(), name)));
        }
        changed.sort_unstable();
        changed.dedup();
        changed
    }

    fn changed_files(&self, kafka: &Kafka) -> Vec<String> {
        let other = |(_, path): &(String, &Path)| {
            let (before, now) = (self.files.get(*path), contents(path));
            now.is_some() && before.is_some_and(|before| *before != now)
        };
        named(kafka).filter(other).map(|(key, _)| key).collect()
    }
}

/// The properties that name files, by their keys.
fn named(kafka: &Kafka) -> impl Iterator<Item = (String, &Path)> {
    Section::ALL.into_iter().flat_map(move |section| {
        let properties = section.of(kafka).iter();
        let of_files = properties.filter(|(name, _)| {
            name.rsplit('.')
                .next()
                .is_some_and(|last| ["location", "keytab", "file"].contains(&last))
        });
        of_files
            .map(move |(name, path)| (tree::join(section.key(), name), Path::new(path.as_str())))
    })
}

/// A mark of a small regular file's contents.
fn contents(path: &Path) -> Option<u64> {
    // Looked at first: to open something else may wait, or do something.
    let about = std::fs::metadata(path).ok()?;
    if !about.is_file() || MAX_FILE < about.len() {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    std::fs::read(path).ok()?.hash(&mut hasher);
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_changed_on_disk_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let text = format!(
            "kafka:\n  group: g\n  common:\n    bootstrap.servers: b:1\n    sasl.password: ${{file:password}}\n    \
             ssl.ca.location: {}\n    sasl.username: ${{env:USER_NAME}}\ninput: {{topics: [in]}}\noutput: {{topic: out}}\n\
             model: {{uri: m}}\n",
            at("ca.pem").display()
        );
        let original = [("password", "one\n"), ("ca.pem", "authority"), ("c.yaml", &text)];
        let restore =
            || original.iter().for_each(|(name, text)| fs::write(at(name), text).unwrap());
        let env = |name: &str| [("USER_NAME".to_owned(), name.to_owned())].into_iter();
        restore();
        let config = load::load(Some(&at("c.yaml")), env("alice")).unwrap();
        let password = "kafka.common.sasl.password";
        let more = text.replace("  common:", "  producer: {compression.level: 3}\n  common:");
        let literal = text.replace("${file:password}", "two");
        let batch = format!("{text}batch: {{max_records: 7}}\n");
        for (file, text, expect) in [
            ("password", Some("one\n"), vec![]),
            ("password", Some("one"), vec![]),
            ("password", Some("two\n"), vec![password]),
            ("password", None, vec![]),
            ("ca.pem", Some("another"), vec!["kafka.common.ssl.ca.location"]),
            ("ca.pem", None, vec![]),
            ("c.yaml", Some(&literal), vec![password]),
            ("c.yaml", Some(&more), vec!["kafka.producer.compression.level"]),
            ("c.yaml", Some(&batch), vec![]),
            ("c.yaml", Some("half a"), vec![]),
            ("c.yaml", None, vec![]),
        ] {
            match text {
                Some(text) => fs::write(at(file), text).unwrap(),
                None => fs::remove_file(at(file)).unwrap(),
            }
            assert_eq!(config.origin.changed(&config, env("alice")), expect, "{file}: {text:?}");
            restore();
        }
        assert_eq!(config.origin.changed(&config, env("bob")), ["kafka.common.sasl.username"]);
        // Both at once, as a rotation does it.
        fs::write(at("password"), "two").unwrap();
        fs::write(at("ca.pem"), "another").unwrap();
        let both = [password, "kafka.common.ssl.ca.location"];
        assert_eq!(config.origin.changed(&config, env("alice")), both);
        assert!(!format!("{:?}", config.origin).contains("one"));
    }
}

//! The files that ship say what the code does.

use std::path::{Path, PathBuf};

use tidemill::config::load::{from_yaml, load};
use tidemill::config::properties::{self, Section};
use tidemill::config::{Config, owned, tree};
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

/// What `config/tidemill.yaml` has to set because there is no default.
fn with_the_required(mut config: Config) -> Config {
    config.kafka.group = "tidemill-reviews".into();
    config.kafka.common.insert("bootstrap.servers".to_owned(), "localhost:9092".to_owned());
    config.input.topics = vec!["reviews".to_owned()];
    config.output.topic = "reviews-predictions".into();
    config.model.uri = "models:/sentiment@champion".parse().unwrap();
    config.registry.root = Some(PathBuf::from("/models"));
    config
}

#[test]
fn the_documented_configuration_has_the_defaults() {
    let file = shipped("tidemill.yaml");
    let mut config = load(Some(&file), std::iter::empty()).unwrap();
    // Where it came from is no setting.
    config.origin = Config::default().origin;
    assert_eq!(config, with_the_required(Config::default()));
}

#[test]
fn the_documented_configuration_has_every_key() {
    let text = std::fs::read_to_string(shipped("tidemill.yaml")).unwrap();
    let file: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    let defaults = serde_json::to_value(Config::default()).unwrap();
    for key in tree::keys(&defaults) {
        assert!(tree::get(&file, &key).is_some(), "config/tidemill.yaml does not have {key}");
    }
}

#[test]
fn each_documented_key_is_explained() {
    let text = std::fs::read_to_string(shipped("tidemill.yaml")).unwrap();
    let mut before = "";
    for line in text.lines() {
        let key = !line.trim_start().starts_with('#') && line.contains(": ");
        assert!(!key || before.trim_start().starts_with('#'), "no comment above {line:?}");
        before = line;
    }
}

/// A property that is ours is never offered, and every one that is named is librdkafka's.
#[test]
fn the_documentation_offers_no_property_that_is_refused() {
    let text = std::fs::read_to_string(shipped("tidemill.yaml")).unwrap();
    let (_, text) = text.split_once("Properties of librdkafka").unwrap();
    let (ours, offered) = text.split_once("  common:\n").unwrap();
    let (offered, _) = offered.split_once("\ninput:").unwrap();
    let section = |line: &str| match line {
        line if line.contains("consumer only") => Section::Consumer,
        line if line.contains("producers only") => Section::Producer,
        _ => Section::Common,
    };
    let property = |word: &&str| word.contains('.') && properties::is_property(word);
    let words = |line: &str| -> Vec<String> {
        let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_');
        words.filter(property).map(str::to_owned).collect()
    };
    let mut seen = [0, 0];
    for line in offered.lines() {
        for name in words(line) {
            seen[0] += 1;
            assert!(
                owned::OWNED.iter().all(|owned| owned.name != owned::canonical(&name)),
                "{name} is offered"
            );
            let client = owned::client_of(owned::canonical(&name));
            assert!(section(line) != Section::Common || client == owned::Client::All, "{name}");
        }
    }
    for name in ours.lines().filter(|line| line.contains("   ")).flat_map(words) {
        seen[1] += 1;
        assert!(
            owned::OWNED.iter().any(|owned| owned.name == owned::canonical(&name)),
            "{name} is not ours"
        );
    }
    assert!(5 < seen[0] && 15 < seen[1], "{seen:?}");
}

#[test]
fn the_quickstart_is_valid_and_can_be_overridden() {
    let config = load(Some(&shipped("quickstart.yaml")), std::iter::empty()).unwrap();
    assert_eq!(config.batch, Config::default().batch);
    let env = [("TIDEMILL_KAFKA__COMMON__BOOTSTRAP_SERVERS".to_owned(), "kafka:1".to_owned())];
    let config = load(Some(&shipped("quickstart.yaml")), env.into_iter()).unwrap();
    assert_eq!(config.kafka.common["bootstrap.servers"], "kafka:1");
}

#[test]
fn a_printed_configuration_reads_back() {
    let config = with_the_required(Config::default());
    let text = serde_saphyr::to_string(&config).unwrap();
    assert_eq!(from_yaml(&text).unwrap(), config);
}

/// The page of threats names tests that there are, and at least one for each line.
#[test]
fn each_threat_has_the_tests_that_prove_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join(".github/THREATS.md")).unwrap();
    let mut code = String::new();
    let mut folders = vec![root.join("src"), root.join("tests/it")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                code.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let rows = page.lines().filter(|line| line.starts_with('|') && line.ends_with('|')).skip(2);
    let rows: Vec<&str> = rows.collect();
    assert!(20 < rows.len(), "{} rows", rows.len());
    for row in rows {
        let named = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let tests: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "nothing proves {row}");
        for test in tests {
            assert!(code.contains(&format!("fn {test}(")), "there is no test {test}: {row}");
        }
    }
}

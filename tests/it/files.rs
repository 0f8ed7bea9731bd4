//! The files that ship say what the code does.

use std::path::{Path, PathBuf};

use tidemill::config::load::{from_yaml, load};
use tidemill::config::{Config, tree};

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

/// What `config/tidemill.yaml` has to set because there is no default.
fn with_the_required(mut config: Config) -> Config {
    config.kafka.group = "tidemill-reviews".into();
    config.kafka.common.insert("bootstrap.servers".to_owned(), "localhost:9092".to_owned());
    config.input.topics = vec!["reviews".to_owned()];
    config.output.topic = "reviews-predictions".into();
    config.model.uri = "models:/sentiment@champion".into();
    config.registry.root = Some(PathBuf::from("/models"));
    config
}

#[test]
fn the_documented_configuration_has_the_defaults() {
    let config = load(Some(&shipped("tidemill.yaml")), std::iter::empty()).unwrap();
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

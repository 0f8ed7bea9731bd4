//! The chart in `helm/tidemill` keeps step with the service: the schema of its `config:` is made from the
//! configuration, its alerts and its dashboard know only metrics that exist. `tests/helm/run.sh`, which `tests/run` calls, renders and
//! checks it with Kubernetes' own tools.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use tidemill::config::{Config, tree};
use tidemill::telemetry::metrics;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// `TIDEMILL_BLESS=1 cargo test --release --test it helm` writes the part of the schema that is made from the code.
#[test]
fn the_schema_of_the_charts_config_is_made_from_the_code() {
    let file = "helm/tidemill/values.schema.json";
    let mut schema: Value = serde_json::from_str(&read(file)).unwrap();
    let mut made = Made {
        defaults: serde_json::to_value(Config::default()).unwrap(),
        comments: comments(&read("config/tidemill.yaml")),
    }
    .section("");
    let description =
        "The service's configuration: the keys of its file, as config/tidemill.yaml has them.";
    tree::set(&mut made, &["description"], json!(description));
    let stands = schema.pointer_mut("/properties/config").unwrap();
    if *stands == made {
        return;
    }
    if std::env::var_os("TIDEMILL_BLESS").is_some() {
        *stands = made;
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        return fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(file), text).unwrap();
    }
    panic!("{file} is stale: write it with TIDEMILL_BLESS=1 cargo test --release --test it helm");
}

struct Made {
    defaults: Value,
    comments: BTreeMap<String, String>,
}

impl Made {
    /// A section's keys, closed; librdkafka's own names are open.
    fn section(&self, path: &str) -> Value {
        let at =
            if path.is_empty() { &self.defaults } else { tree::get(&self.defaults, path).unwrap() };
        let mut schema = Map::new();
        if let Some(comment) = self.comments.get(path) {
            schema.insert("description".into(), json!(comment));
        }
        schema.insert("type".into(), json!("object"));
        if tree::FREE.contains(&path) {
            let text = json!({"type": ["string", "number", "boolean", "object"]});
            schema.insert("additionalProperties".into(), text);
            return schema.into();
        }
        let keys = at.as_object().unwrap().keys().map(|key| {
            let path = tree::join(path, key);
            let inner = tree::get(&self.defaults, &path).unwrap().as_object();
            let schema = match inner {
                Some(keys) if keys.is_empty() && !path.starts_with("kafka.") => self.map(&path),
                Some(_) => self.section(&path),
                None => self.leaf(&path),
            };
            (key.clone(), schema)
        });
        schema.insert("properties".into(), keys.collect::<Map<_, _>>().into());
        schema.insert("additionalProperties".into(), json!(false));
        schema.into()
    }

    /// A map with names of the user's own.
    fn map(&self, path: &str) -> Value {
        let words = variants(&self.fits(path, json!({"x": "x"})).err().unwrap_or_default());
        let each = if tree::NAMED.contains(&path) {
            json!({"type": "object"})
        } else if words.is_empty() {
            json!({"type": "string"})
        } else {
            json!({ "enum": words })
        };
        let mut schema = json!({"type": "object", "additionalProperties": each});
        if let Some(comment) = self.comments.get(path) {
            tree::set(&mut schema, &["description"], json!(comment));
        }
        schema
    }

    /// What a key takes: found out by offering it values of every form.
    fn leaf(&self, path: &str) -> Value {
        let fits = |value: Value| self.fits(path, value);
        let mut forms = self.texts(path);
        if fits(json!(0.5)).is_ok() {
            forms.push(json!({"type": "number"}));
        } else if fits(json!(1)).is_ok() {
            forms.push(json!({"type": "integer", "minimum": 0}));
        }
        if fits(json!(true)).is_ok() {
            forms.push(json!({"type": "boolean"}));
        }
        match fits(json!(["x"])) {
            Ok(()) => forms.push(json!({"type": "array", "items": {"type": "string"}})),
            Err(said) if fits(json!([])).is_ok() => {
                forms.push(json!({"type": "array", "items": {"enum": variants(&said)}}));
            }
            Err(_) => {}
        }
        if fits(Value::Null).is_ok() {
            forms.push(json!({"type": "null"}));
        }
        assert!(!forms.is_empty(), "{path} takes nothing that the test offers: teach it");
        let mut schema = if forms.len() == 1 { forms.remove(0) } else { json!({ "anyOf": forms }) };
        if let Some(comment) = self.comments.get(path) {
            tree::set(&mut schema, &["description"], json!(comment));
        }
        schema
    }

    /// Which texts a key takes, and, beside words, maps from a word to a list.
    fn texts(&self, path: &str) -> Vec<Value> {
        let Err(said) = self.fits(path, json!("x")) else { return vec![json!({"type": "string"})] };
        for amount in ["a duration", "a size"] {
            if let Some((_, units)) =
                said.split_once(&format!("{amount}: write a number and a unit, one of "))
            {
                let units: Vec<&str> =
                    units.split(", ").map(|unit| unit.split(' ').next().unwrap()).collect();
                return vec![
                    json!({"type": "string", "pattern": format!("^[0-9]+ ?({})$", units.join("|"))}),
                ];
            }
        }
        if !said.contains("variant") {
            // A text of a form of its own is judged by the service; a number or a list is no text.
            let form = !said.contains("invalid type");
            return form.then(|| json!({"type": "string"})).into_iter().collect();
        }
        let default = tree::get(&self.defaults, path).and_then(Value::as_str);
        let mut known = Vec::new();
        for word in variants(&said).into_iter().chain(default.map(str::to_owned)) {
            if self.fits(path, json!(word)).is_ok() && !known.contains(&word) {
                known.push(word);
            }
        }
        let lists = variants(&said)
            .into_iter()
            .filter(|word| self.fits(path, json!({word: ["x"]})).is_ok());
        let lists = lists.map(|word| {
            json!({"type": "object", "required": [word], "additionalProperties": false,
                   "properties": {word: {"type": "array", "items": {"type": "string"}}}})
        });
        let words = (!known.is_empty()).then(|| json!({ "enum": known }));
        words.into_iter().chain(lists).collect()
    }

    fn fits(&self, path: &str, value: Value) -> Result<(), String> {
        let mut probe = self.defaults.clone();
        tree::set(&mut probe, &path.split('.').collect::<Vec<_>>(), value);
        serde_json::from_value::<Config>(probe).map(drop).map_err(|error| error.to_string())
    }
}

/// The words that serde says it expected.
fn variants(said: &str) -> Vec<String> {
    let Some((_, expected)) = said.split_once("expected ") else { return Vec::new() };
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What stands above each key of the documented configuration.
fn comments(yaml: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let (mut path, mut comment) = (Vec::<&str>::new(), Vec::<&str>::new());
    for line in yaml.lines() {
        let (text, depth) = (line.trim_start(), (line.len() - line.trim_start().len()) / 2);
        if let Some(words) = text.strip_prefix('#') {
            comment.push(words.trim());
            continue;
        }
        if let Some((key, _)) = text.split_once(':') {
            path.truncate(depth);
            path.push(key);
            if !comment.is_empty() {
                found.insert(path.join("."), comment.join(" "));
            }
        }
        comment.clear();
    }
    found
}

/// Names of metrics in a text, without what Prometheus adds to a histogram's.
fn named(text: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let names = text.split(word).filter(|word| word.starts_with("tidemill_"));
    let plain = |name: &str| {
        let suffix =
            ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        suffix.unwrap_or(name).to_owned()
    };
    names.map(plain).collect()
}

const ALERTS: &str = "helm/tidemill/templates/prometheusrule.yaml";
const RUNBOOK: &str = "helm/tidemill/RUNBOOK.md";

#[test]
fn alerts_runbook_and_dashboard_know_only_metrics_that_exist() {
    let exist: BTreeSet<String> =
        metrics::ALL.iter().map(|metric| metric.name.to_owned()).collect();
    for file in
        [ALERTS, RUNBOOK, "helm/tidemill/files/dashboard.json", "tests/helm/alerts_test.yaml"]
    {
        let names = named(&read(file));
        assert!(!names.is_empty(), "{file} names no metric");
        let unknown: Vec<_> = names.difference(&exist).collect();
        assert!(
            unknown.is_empty(),
            "{file} names {unknown:?}, which src/telemetry/metrics.rs does not have"
        );
    }
}

#[test]
fn each_alert_has_its_runbook_and_its_test() {
    let alerts = |text: &str, key: &str| -> BTreeSet<String> {
        let name = |line: &str| {
            Some(line.trim_start_matches([' ', '-']).strip_prefix(key)?.trim().to_owned())
        };
        text.lines().filter_map(name).collect()
    };
    let all = alerts(&read(ALERTS), "alert:");
    assert!(!all.is_empty(), "{ALERTS} has no alert");
    assert_eq!(all, alerts(&read(RUNBOOK), "##"), "{RUNBOOK}");
    assert_eq!(
        all,
        alerts(&read("tests/helm/alerts_test.yaml"), "alertname:"),
        "tests/helm/alerts_test.yaml"
    );
}

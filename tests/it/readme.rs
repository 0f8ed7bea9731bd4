//! What README promises to operators, against the code.

use std::fs;
use std::path::Path;

use tidemill::config::load::{from_yaml, load};
use tidemill::config::{Config, tree};
use tidemill::failure::Exit;
use tidemill::http::report::{FIELDS, Field};
use tidemill::telemetry::metrics;

fn at(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The rows below the table's head, as they stand.
fn table<'a>(readme: &'a str, head: &str) -> Vec<&'a str> {
    let rows = readme.lines().skip_while(|line| !line.starts_with(head)).skip(2);
    rows.take_while(|line| line.starts_with('|')).collect()
}

#[test]
fn readme_has_every_exit_code() {
    let readme = at("README.md");
    let rows = table(&readme, "| exit code | when | what to do |");
    let cells = |row: &str| row.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let codes: Vec<u8> = rows.iter().map(|row| cells(row)[1].parse().unwrap()).collect();
    assert_eq!(codes, Exit::ALL.map(Exit::code));
}

#[test]
fn readme_has_every_metric() {
    let readme = at("README.md");
    let rows = table(&readme, "| metric | type | labels | what it says |");
    let of = |metric: &metrics::Metric| {
        let labels: Vec<String> = metric.labels.iter().map(|name| format!("`{name}`")).collect();
        let labels = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
        let metrics::Metric { name, kind, help, .. } = metric;
        format!("| `{name}` | {} | {labels} | {help} |", kind.name())
    };
    let table: Vec<String> = metrics::ALL.iter().map(of).collect();
    assert_eq!(rows, table, "the table of metrics in README.md is to be\n{}", table.join("\n"));
}

#[test]
fn readme_has_every_field_of_the_status() {
    let readme = at("README.md");
    let rows = table(&readme, "| field of `/api/status` | kind | what it says |");
    let of = |field: &Field| format!("| `{}` | {} | {} |", field.path, field.kind, field.help);
    let table: Vec<String> = FIELDS.iter().map(of).collect();
    assert_eq!(rows, table, "the table of fields in README.md is to be\n{}", table.join("\n"));
}

/// A key that is named in the text is one, and takes the value that is written beside it.
#[test]
fn readme_names_keys_and_values_that_there_are() {
    let readme = at("README.md");
    let prose: Vec<&str> = readme.split("```").step_by(2).collect();
    let defaults = serde_json::to_value(Config::default()).unwrap();
    let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/quickstart.yaml");
    let (mut keys, mut values) = (0, 0);
    for span in prose.concat().split('`').skip(1).step_by(2) {
        let (key, value) = span.split_once(": ").unwrap_or((span, ""));
        let Some((section, _)) = key.split_once('.') else { continue };
        // What the status tells of a section has another table.
        let told = FIELDS.iter().any(|field| field.path == key);
        if told || tree::get(&defaults, section).is_none() {
            continue;
        }
        assert!(tree::get(&defaults, key).is_some(), "`{span}`: there is no key {key}");
        keys += 1;
        if !value.is_empty() {
            let name = format!("TIDEMILL_{}", key.to_uppercase().replace('.', "__"));
            let loaded = load(Some(&quickstart), [(name, value.to_owned())].into_iter());
            assert!(loaded.is_ok(), "`{span}`: {}", loaded.unwrap_err());
            values += 1;
        }
    }
    assert!(30 < keys && 5 < values, "{keys} keys and {values} values: are they still found?");
}

#[test]
fn readmes_configurations_are_good() {
    let readme = at("README.md");
    let blocks: Vec<&str> = readme.split("```yaml\n").skip(1).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let (text, _) = block.split_once("```").unwrap();
        from_yaml(text).unwrap_or_else(|problems| panic!("{problems} in\n{text}"));
    }
}

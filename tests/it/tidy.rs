//! Rules no compiler knows.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// The core is a function of its input: no I/O, no clock, no runtime, no logging.
#[test]
fn the_core_touches_nothing() {
    const FORBIDDEN: &[&str] = &[
        "Instant::now",
        "SystemTime",
        "std::fs",
        "std::net",
        "std::thread",
        "tokio",
        "async fn",
        "tracing",
        "metrics",
        "rdkafka",
        "candle",
    ];
    let mut found = Vec::new();
    let core = sources("src/pipeline").into_iter().chain([root().join("src/pipeline.rs")]);
    for path in core {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in (1..).zip(code.lines()) {
            let is_comment = line.trim_start().starts_with("//");
            for word in FORBIDDEN.iter().filter(|word| !is_comment && line.contains(**word)) {
                found.push(format!("{}:{number}: {word}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The rooms of the house, from the ground up: each uses those before it, and none behind it.
const ROOMS: [&str; 29] = [
    "record",
    "answer",
    "failure",
    "printable",
    "file",
    "memory",
    "field",
    "avro",
    "schema",
    "config",
    "log",
    "format",
    "pipeline",
    "journal",
    "sqlite",
    "kafka",
    "telemetry",
    "model",
    "http",
    "registry",
    "decode",
    "workers",
    "engine",
    "service",
    "verify",
    "demo",
    "bench",
    "cli",
    "main",
];

/// Arrows go one way, so that a room can be read with what lies below it, and moved.
#[test]
fn rooms_use_those_below_them_only() {
    let floor = |room: &str| ROOMS.iter().position(|known| *known == room);
    let (mut found, mut arrows) = (Vec::new(), 0);
    for path in sources("src") {
        let within = path.strip_prefix(root().join("src")).unwrap();
        let room = within.components().next().unwrap().as_os_str().to_str().unwrap();
        let room = room.trim_end_matches(".rs");
        if room == "lib" || within.to_str().unwrap().ends_with("tests.rs") {
            continue;
        }
        let here = floor(room).unwrap_or_else(|| panic!("{room} has no floor in ROOMS"));
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code: Vec<&str> =
            code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for used in code.join("\n").split("crate::").skip(1) {
            // `crate::{a, b::c}` names several.
            let names = used
                .strip_prefix('{')
                .map_or(used, |list| list.split_once('}').map_or(list, |(names, _)| names));
            let count = if used.starts_with('{') { usize::MAX } else { 1 };
            for name in names.split(',').take(count) {
                let word = |c: char| c.is_alphanumeric() || c == '_';
                let name = name.trim_start().split(|c| !word(c)).next().unwrap_or_default();
                let Some(there) = floor(name) else { continue };
                arrows += 1;
                if here < there {
                    found.push(format!("{} uses {name}, which lies above {room}", path.display()));
                }
            }
        }
    }
    assert!(300 < arrows, "{arrows} arrows: are they still found?");
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// A file that is hard to hold in the head is split by a noun.
#[test]
fn no_file_is_too_long() {
    let mut long = Vec::new();
    for path in ["src", "tests", "benches"].into_iter().flat_map(sources) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        if 600 < lines {
            long.push(format!("{}: {lines} lines", path.display()));
        }
    }
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}

//! Rules no compiler knows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

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
const ROOMS: [&str; 31] = [
    "record",
    "answer",
    "failure",
    "status",
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
    "lines",
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

/// How a process ends is said by name: `failure::Exit` has the numbers.
#[test]
fn no_exit_code_is_a_bare_number() {
    let mut found = Vec::new();
    for path in sources("src") {
        for (number, line) in (1..).zip(fs::read_to_string(&path).unwrap().lines()) {
            let bare = |call: &str| {
                let after = line.split_once(call).map(|(_, after)| after);
                after.is_some_and(|after| after.starts_with(|c: char| c.is_ascii_digit()))
            };
            if bare("ExitCode::from(") || bare("process::exit(") {
                found.push(format!("{}:{number}: {line}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The lines of Cargo.toml that name a dependency.
fn dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    let sections = manifest.split("\n[").filter(|text| {
        text.starts_with("dependencies]\n") || text.starts_with("dev-dependencies]\n")
    });
    sections.flat_map(|text| text.lines().skip(1)).filter(|line| line.contains(" = "))
}

/// Each dependency says what for, and is used; one that is there for another reason says so.
#[test]
fn no_dependency_is_unused() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let code: String = ["src", "tests", "benches"]
        .into_iter()
        .flat_map(sources)
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let mut seen = 0;
    for line in dependencies(&manifest) {
        let (name, about) = line.split_once(" = ").unwrap();
        let (_, why) = about.split_once(" # ").unwrap_or_else(|| panic!("{line}: what for?"));
        let name = name.replace('-', "_");
        let pieces: Vec<&str> = code.split(&name).collect();
        let used = pieces.windows(2).any(|around| {
            let word = |c: char| c.is_alphanumeric() || c == '_';
            let called = around[1].starts_with("::");
            let brought = around[0].ends_with("use ") && around[1].starts_with(';');
            !around[0].ends_with(word) && (called || brought)
        });
        assert!(used || why.starts_with("not used: "), "{name} is not used: leave it out");
        seen += 1;
    }
    assert!(30 < seen, "{seen} dependencies: are they still found?");
}

/// What we ship is ours to ship: each package below us, for any platform and feature, comes from crates.io under a
/// licence that asks for no more than its text.
#[test]
fn licences_are_permissive() {
    const ALLOWED: [&str; 10] = [
        "0BSD",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "MIT",
        "Unicode-3.0",
        "Unlicense",
        "Zlib",
    ];
    let metadata = ["metadata", "--locked", "--all-features", "--format-version", "1"];
    let output = Command::new(env!("CARGO")).args(metadata).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(100 < packages.len());
    for package in packages {
        let (name, licence) = (&package["name"], package["license"].as_str().unwrap_or_default());
        // Some write the older `A/B`. Where `AND` and `OR` are nested this refuses too much, never too little.
        let licence = licence.replace(['(', ')'], "").replace('/', " OR ");
        let mut all = licence.split(" AND ").map(|any| any.split(" OR ").map(str::trim));
        let permissive = all.all(|mut any| any.any(|licence| ALLOWED.contains(&licence)));
        assert!(permissive, "{name}: {licence:?} is not among {ALLOWED:?}");
        let source = package["source"].as_str();
        let ours = source.is_none() && name == env!("CARGO_PKG_NAME");
        let registry = "registry+https://github.com/rust-lang/crates.io-index";
        assert!(ours || source == Some(registry), "{name} comes from {source:?}");
    }
}

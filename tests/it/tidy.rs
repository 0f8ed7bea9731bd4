//! Rules no compiler knows.

use std::collections::{BTreeMap, BTreeSet};
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
const ROOMS: [&str; 34] = [
    "record",
    "repeated",
    "answer",
    "failure",
    "status",
    "printable",
    "file",
    "tls",
    "memory",
    "field",
    "clean",
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

/// The floors inside `model`, from the ground up; `model` itself are the nouns of its root.
const FLOORS: [&str; 22] = [
    "model", "labels", "scores", "kernels", "files", "weights", "folder", "found", "artifact",
    "report", "guard", "cache", "served", "options", "device", "encoder", "padded", "tabular",
    "text", "image", "gate", "unfit",
];

/// Arrows go one way, so that a room can be read with what lies below it, and moved.
#[test]
fn rooms_use_those_below_them_only() {
    let arrows = point_down("src", &ROOMS, |_| vec!["crate::"]);
    assert!(300 < arrows, "{arrows} arrows: are they still found?");
}

/// Inside the largest room too. A name of the root, such as `Input`, is an arrow to the root.
#[test]
fn floors_of_a_model_use_those_below_them_only() {
    let prefixes = |within: &Path| match within.components().count() {
        1 => vec!["crate::model::", "super::"],
        2 => vec!["crate::model::", "super::super::"],
        _ => vec!["crate::model::"],
    };
    let arrows = point_down("src/model", &FLOORS, prefixes);
    assert!(100 < arrows, "{arrows} arrows: are they still found?");
    // The root declares its children and names none of them.
    let root = code(&root().join("src/model.rs"));
    let known = FLOORS.iter().filter(|floor| **floor != "model");
    let named: Vec<_> = known.filter(|floor| mentions(&root, &format!("{floor}::"))).collect();
    assert!(named.is_empty(), "model.rs names {named:?}");
}

/// Inside a floor as well: its files stand on one another, and none of them on the one that puts them together.
#[test]
fn files_of_a_floor_make_no_circle() {
    let folder = |floor: &str| root().join("src/model").join(floor);
    for floor in FLOORS.into_iter().filter(|floor| folder(floor).is_dir()) {
        let children: BTreeSet<String> = fs::read_dir(folder(floor))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .map(|name| name.trim_end_matches(".rs").to_owned())
            .filter(|name| !name.ends_with("tests"))
            .collect();
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let whole = code(&root().join(format!("src/model/{floor}.rs")));
        let used = children.iter().filter(|child| mentions(&whole, &format!("{child}::")));
        uses.insert(floor.to_owned(), used.cloned().collect());
        let here = sources(&format!("src/model/{floor}"));
        for path in here.iter().filter(|path| !path.to_str().unwrap().ends_with("tests.rs")) {
            let within = path.strip_prefix(folder(floor)).unwrap();
            let name = within.components().next().unwrap().as_os_str().to_str().unwrap();
            let name = name.trim_end_matches(".rs").to_owned();
            let above = "super::".repeat(within.components().count());
            let code = code(path);
            let absolute = format!("crate::model::{floor}::");
            let names = [above, absolute].map(|prefix| -> Vec<String> {
                paths(&code, &prefix).flat_map(names).map(str::to_owned).collect()
            });
            let names = names.into_iter().flatten().filter(|used| *used != name && used != "super");
            let node =
                |used: String| if children.contains(&used) { used } else { floor.to_owned() };
            uses.entry(name.clone()).or_default().extend(names.map(node));
        }
        // What stands on nothing that is left is taken away, until nothing is left.
        while let Some(free) = uses.iter().find(|(_, used)| used.is_empty()) {
            let free = free.0.clone();
            uses.remove(&free);
            uses.values_mut().for_each(|used| used.retain(|name| *name != free));
        }
        assert!(uses.is_empty(), "{floor}: a circle within {uses:?}");
    }
}

/// What a file says to the compiler: without comments, and without its tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    // Who may use something is no use of it.
    code.collect::<Vec<_>>().join("\n").replace("pub(in crate::", "pub(in ")
}

/// Whether a path begins somewhere with this.
fn mentions(code: &str, path: &str) -> bool {
    paths(code, path).next().is_some()
}

/// What follows a prefix wherever a path begins with it.
fn paths<'a>(code: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    let inner = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    code.match_indices(prefix)
        .filter(move |(at, _)| !code.get(..*at).is_some_and(|before| before.ends_with(inner)))
        .filter_map(move |(at, _)| code.get(at + prefix.len()..))
}

/// The names that a path leads to: of `{a, b::c, d::{e, f}}` a, b and d.
fn names(path: &str) -> Vec<&str> {
    let word = |text: &str| -> usize {
        text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
    };
    let Some(list) = path.strip_prefix('{') else { return vec![path.get(..word(path)).unwrap()] };
    let (mut depth, mut names, mut begins) = (0, Vec::new(), true);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            c if begins && !c.is_whitespace() => {
                let rest = list.get(at..).unwrap();
                names.push(rest.get(..word(rest)).unwrap());
                begins = false;
            }
            _ => (),
        }
    }
    names
}

/// Fails where a file of `folder` uses what lies above it in `floors`; how many arrows there are. `prefixes` are what
/// the floors' names follow in a file at this place in the folder.
#[track_caller]
fn point_down(
    folder: &str,
    floors: &[&str],
    prefixes: impl Fn(&Path) -> Vec<&'static str>,
) -> usize {
    let floor = |name: &str| floors.iter().position(|known| *known == name);
    let (mut found, mut arrows) = (Vec::new(), 0);
    for path in sources(folder) {
        let within = path.strip_prefix(root().join(folder)).unwrap();
        let name = within.components().next().unwrap().as_os_str().to_str().unwrap();
        let name = name.trim_end_matches(".rs");
        if name == "lib" || within.to_str().unwrap().ends_with("tests.rs") {
            continue;
        }
        let here = floor(name).unwrap_or_else(|| panic!("{name} has no place in the list"));
        let code = code(&path);
        for prefix in prefixes(within) {
            for used in paths(&code, prefix).flat_map(names) {
                let Some(there) = floor(used) else { continue };
                arrows += 1;
                if here < there {
                    found.push(format!("{} uses {used}, which lies above {name}", path.display()));
                }
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    arrows
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

//! `.github/MESSAGES.md`, against the code: each warning and error of the log, with what to do about it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rows that the code makes: level, line, file.
fn said() -> BTreeSet<(String, String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut rows = BTreeSet::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                of_file(&src, &path, &mut rows);
            }
        }
    }
    rows
}

fn of_file(src: &Path, path: &PathBuf, rows: &mut BTreeSet<(String, String, String)>) {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap();
    let file = path.strip_prefix(src).unwrap().display().to_string();
    for (level, call) in [("warning", "tracing::warn!("), ("error", "tracing::error!(")] {
        for rest in code.split(call).skip(1) {
            rows.insert((level.to_owned(), literal(rest), file.clone()));
        }
    }
}

/// The last string among the arguments of a call, which begin here: the line's text.
fn literal(arguments: &str) -> String {
    let (mut depth, mut last) = (0, String::new());
    let mut characters = arguments.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                last.clear();
                while let Some(inside) = characters.next().filter(|inside| *inside != '"') {
                    match inside {
                        // The text goes on below, without what stands before it there.
                        '\\' => match characters.next().unwrap() {
                            '\n' => {
                                let rest = characters.as_str().trim_start();
                                characters = rest.chars();
                            }
                            escaped => last.push(escaped),
                        },
                        inside => last.push(inside),
                    }
                }
            }
            '(' => depth += 1,
            ')' if depth == 0 => break,
            ')' => depth -= 1,
            _ => (),
        }
    }
    last
}

#[test]
fn every_warning_and_error_has_its_remedy() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(".github/MESSAGES.md");
    let page = fs::read_to_string(page).unwrap();
    let mut written = BTreeSet::new();
    for row in
        page.lines().filter(|line| line.starts_with("| warning |") || line.starts_with("| error |"))
    {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, level, line, file, remedy, _] = cells[..] else { panic!("five cells: {row}") };
        assert!(15 < remedy.len(), "no remedy: {row}");
        let bare = |cell: &str| cell.trim_matches('`').to_owned();
        written.insert((level.to_owned(), bare(line), bare(file)));
    }
    let said = said();
    assert!(40 < said.len(), "{}: are they still found?", said.len());
    let missing: Vec<String> = said
        .difference(&written)
        .map(|(level, line, file)| format!("| {level} | `{line}` | `{file}` | ? |"))
        .collect();
    assert!(missing.is_empty(), ".github/MESSAGES.md is to have\n{}", missing.join("\n"));
    let gone: Vec<_> = written.difference(&said).collect();
    assert!(gone.is_empty(), "nobody says any more: {gone:?}");
}

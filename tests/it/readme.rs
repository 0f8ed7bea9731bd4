//! What README promises to operators, against the code.

use std::fs;

use tidemill::failure::Exit;

fn readme() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

/// The cells of the table whose first column has this heading, without the heading.
fn table<'a>(readme: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let rows = readme.lines().skip_while(|line| !line.starts_with(&format!("| {heading} |")));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

#[test]
fn readme_has_every_exit_code() {
    let readme = readme();
    let rows = table(&readme, "exit code");
    let codes: Vec<u8> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
    assert_eq!(codes, Exit::ALL.map(Exit::code));
    for row in rows {
        assert!(row.len() == 3 && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
}

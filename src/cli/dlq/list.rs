//! Shows the dead letters.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;

use super::ListArgs;
use super::place::{Found, Letters};
use super::select::Selection;
use crate::cli::terminal;
use crate::config::Config;
use crate::failure::Failure;
use crate::printable;

pub(super) const HELP: &str = "\
A line for each dead letter: where it stands, its class, where its record came from, the record's timestamp, the model that
was to answer it, the bytes of the dead letter, the record's key; and below, why. `redriven` and `truncated` stand there
where it is so. Values are not shown.

Exit codes:
  0   shown
  75  the cluster could not be read; try again
  78  the configuration is wrong, or the cluster refuses";

/// Most characters of a key that are shown.
const KEY: usize = 64;

/// How many there are.
#[derive(Debug, Default)]
struct Counts {
    all: u64,
    redriven: u64,
    truncated: u64,
    classes: BTreeMap<&'static str, u64>,
    topics: BTreeMap<String, u64>,
    shown: u64,
}

/// Prints the dead letters that are selected, and the counts.
///
/// # Errors
///
/// As the help says, and 74 where stdout cannot be written.
pub(super) fn list(config: &Config, args: &ListArgs) -> Result<(), Failure> {
    let letters = Letters::open(config)?;
    let selection = Selection::new(&args.select, &config.input.topics);
    let mut counts = Counts::default();
    for (topic, about) in &letters.topics {
        let ends = letters.place.ends(topic, about.partitions)?;
        let progress = letters.progress(topic, &ends).unwrap_or_else(|failure| {
            terminal::note(format_args!("{failure}; what was redriven is not known"));
            BTreeMap::new()
        });
        letters.place.read(topic, &ends, |found| {
            if !selection.has(&found.letter) {
                return Ok(());
            }
            let done = progress.get(&found.partition);
            let redriven = letters.may_return(&found.letter)
                && done.is_some_and(|done| done.is_done(found.offset, found.letter.class));
            counts.add(&found, redriven);
            if args.limit.is_some_and(|limit| limit <= counts.shown) {
                return Ok(());
            }
            counts.shown += 1;
            if args.json {
                terminal::line(printable::json(&object(&found, redriven)))
            } else {
                terminal::say(text(&found, redriven))
            }
        })?;
    }
    if args.json {
        terminal::line(printable::json(&counts.object()))
    } else {
        terminal::say(counts.text())
    }
}

impl Counts {
    fn add(&mut self, found: &Found, redriven: bool) {
        self.all += 1;
        self.redriven += u64::from(redriven);
        self.truncated += u64::from(found.letter.truncated.is_some());
        *self.classes.entry(found.letter.class).or_default() += 1;
        *self.topics.entry(found.topic.clone()).or_default() += 1;
    }

    fn object(&self) -> serde_json::Value {
        json!({
            "dead_letters": self.all, "shown": self.shown, "redriven": self.redriven, "truncated": self.truncated,
            "classes": self.classes, "topics": self.topics,
        })
    }

    fn text(&self) -> String {
        let s = if self.all == 1 { "" } else { "s" };
        let mut text = format!("{} dead letter{s}", self.all);
        if self.shown < self.all {
            write!(text, ", {} shown", self.shown).unwrap_or_default();
        }
        for (count, what) in [(self.redriven, "redriven"), (self.truncated, "truncated")] {
            if count != 0 {
                write!(text, ", {count} {what}").unwrap_or_default();
            }
        }
        let list = |pairs: Vec<String>| pairs.join(", ");
        if self.all != 0 {
            let classes = self.classes.iter().map(|(class, count)| format!("{class} {count}"));
            let topics = self.topics.iter().map(|(topic, count)| format!("{topic} {count}"));
            let (classes, topics) = (list(classes.collect()), list(topics.collect()));
            write!(text, "\n  by class: {classes}\n  by topic: {topics}").unwrap_or_default();
        }
        text.push('\n');
        text
    }
}

/// A dead letter in two lines.
fn text(found: &Found, redriven: bool) -> String {
    let Found { bytes, letter, .. } = found;
    let mut text = format!("{found}  {}", letter.class);
    let mut add = |part: std::fmt::Arguments<'_>| text.write_fmt(part).unwrap_or_default();
    match &letter.source {
        Some(source) => {
            let topic = printable::name(&source.topic);
            add(format_args!("  from {topic}/{}/{}", source.partition, source.offset));
        }
        None => add(format_args!("  from nowhere that it tells")),
    }
    if let Some(millis) = letter.original.timestamp {
        add(format_args!("  {}", printable::utc(millis)));
    }
    if let Some((name, version)) = &letter.model {
        add(format_args!("  model {}/{}", printable::name(name), printable::name(version)));
    }
    add(format_args!("  {bytes} bytes"));
    match &letter.original.key {
        Some(key) => add(format_args!("  key \"{}\"", key_text(key))),
        None => add(format_args!("  no key")),
    }
    if redriven {
        add(format_args!("  redriven"));
    }
    if let Some(length) = &letter.truncated {
        add(format_args!("  truncated (the value had {} bytes)", printable::name(length)));
    }
    add(format_args!("\n    {}\n", printable::escaped(&letter.message, "")));
    text
}

/// A dead letter in one line of JSON.
pub(super) fn object(found: &Found, redriven: bool) -> serde_json::Value {
    let Found { topic, partition, offset, bytes, letter } = found;
    let source = letter.source.as_ref();
    json!({
        "topic": topic, "partition": partition, "offset": offset,
        "class": letter.class, "message": letter.message,
        "source": source.map(|source| json!({
            "topic": source.topic, "partition": source.partition, "offset": source.offset,
        })),
        "timestamp": letter.original.timestamp.map(printable::utc),
        "model": letter.model.as_ref().map(|(name, _)| name),
        "version": letter.model.as_ref().map(|(_, version)| version),
        "bytes": bytes,
        "key": letter.original.key.as_deref().map(as_text),
        "redriven": redriven,
        "truncated": letter.truncated.is_some(),
    })
}

/// A key for a person.
fn key_text(key: &[u8]) -> String {
    let text = as_text(key);
    let cut = text.char_indices().nth(KEY).map(|(end, _)| end);
    let shown = printable::escaped(cut.and_then(|end| text.get(..end)).unwrap_or(&text), "");
    format!("{shown}{}", if cut.is_some() { "…" } else { "" })
}

/// A text; where it is none, with everything but ASCII escaped as `\xff`.
pub(super) fn as_text(bytes: &[u8]) -> String {
    let escaped = |_| bytes.escape_ascii().to_string();
    std::str::from_utf8(bytes).map_or_else(escaped, str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_whatever_it_is() {
        for (key, expect) in [
            (b"user-7".as_slice(), "user-7"),
            ("ä".as_bytes(), "ä"),
            (b"\x1b[31m", "\\u{1b}[31m"),
            (b"\xff\x00a", "\\xff\\x00a"),
            (b"", ""),
        ] {
            assert_eq!(key_text(key), expect);
        }
        assert_eq!(key_text(&[b'k'; 1_000]).chars().count(), 65);
    }
}

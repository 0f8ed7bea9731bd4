//! Shows one dead letter, all of it.

use std::fmt::Write as _;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::ShowArgs;
use super::list::{as_text, object};
use super::place::{Found, Letters};
use crate::cli::terminal;
use crate::config::Config;
use crate::failure::{Exit, Failure};
use crate::log::letter::Letter;
use crate::printable;
use crate::record::FaultClass;

pub(super) const HELP: &str = "\
PLACE is what `tidemill dlq list` begins a line with, such as in-dlq/0/3; where there is one dead-letter topic, 0/3 or 0:3 is
enough. Shown are: why the record could not be answered and what to do about it, where it stood, its key, its own headers,
and its value: JSON and text as they came, anything else as bytes in hexadecimal digits. Values of records may be private.

Exit codes:
  0   shown
  65  no dead letter stands there (any more)
  75  the cluster could not be read; try again
  78  the configuration is wrong, or the cluster refuses";

/// Bytes in a line of a value that is no text.
const WIDTH: usize = 16;

/// Where a dead letter stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At {
    topic: Option<String>,
    partition: i32,
    offset: i64,
}

/// Reads `TOPIC/PARTITION/OFFSET`, `PARTITION/OFFSET` or either with colons.
///
/// # Errors
///
/// What to write.
pub(super) fn at(text: &str) -> Result<At, String> {
    let form = || {
        "write TOPIC/PARTITION/OFFSET, as `tidemill dlq list` shows it, or PARTITION:OFFSET"
            .to_owned()
    };
    // Neither stands in a topic's name.
    let mut parts = text.rsplit(['/', ':']);
    let offset = parts.next().and_then(|text| text.parse::<u64>().ok());
    let offset = offset.and_then(|offset| i64::try_from(offset).ok()).ok_or_else(form)?;
    let partition = parts.next().and_then(|text| text.parse::<u16>().ok()).ok_or_else(form)?;
    let topic = parts.next().map(str::to_owned);
    if parts.next().is_some() || topic.as_ref().is_some_and(String::is_empty) {
        return Err(form());
    }
    Ok(At { topic, partition: partition.into(), offset })
}

/// Prints the dead letter.
///
/// # Errors
///
/// As the help says, and 74 where stdout cannot be written.
pub(super) fn show(config: &Config, args: &ShowArgs) -> Result<(), Failure> {
    let letters = Letters::open(config)?;
    let At { partition, offset, .. } = args.place;
    let topic = topic(&letters, &args.place)?;
    let place = format!("{topic}/{partition}/{offset}");
    let partitions = letters.topics.get(topic).map_or(0, |about| about.partitions);
    let ends = letters.place.ends(topic, partitions)?;
    let Some(range) = ends.get(&partition) else {
        return Err(absent(&place, &format!("the topic has partitions 0 to {}", partitions - 1)));
    };
    if !range.contains(&offset) {
        return Err(absent(&place, &there(range)));
    }
    let mut found = None;
    let only = [(partition, offset..offset + 1)].into();
    letters.place.read(topic, &only, |letter| {
        found = Some(letter);
        Ok(())
    })?;
    let Some(found) = found else {
        let why =
            format!("it was deleted, or the end of a transaction stands there; {}", there(range));
        return Err(absent(&place, &why));
    };
    let progress = letters.progress(topic, &ends)?;
    let done = progress.get(&partition);
    let redriven = letters.may_return(&found.letter)
        && done.is_some_and(|done| done.is_done(offset, found.letter.class));
    if args.json {
        terminal::line(printable::json(&whole(&found, redriven)))
    } else {
        terminal::say(text(&found, redriven, args.bytes))
    }
}

/// The dead-letter topic that is meant.
fn topic<'a>(letters: &'a Letters, place: &At) -> Result<&'a str, Failure> {
    let names: Vec<&str> = letters.topics.keys().map(String::as_str).collect();
    let found = match (&place.topic, names.as_slice()) {
        (None, [only]) => Some(*only),
        (None, _) => None,
        (Some(topic), names) => names.iter().copied().find(|name| name == topic),
    };
    found.ok_or_else(|| {
        let given = place.topic.as_ref().map_or_else(
            || "a dead letter without its topic".to_owned(),
            |topic| format!("a dead letter of {}", printable::name(topic)),
        );
        let message = format!(
            "show {given}: the dead-letter topics are {}; name one of them",
            names.join(", ")
        );
        Failure { message, exit: Exit::Config }
    })
}

fn there(range: &Range<i64>) -> String {
    if range.is_empty() {
        "the partition is empty".to_owned()
    } else {
        format!("the partition has offsets {} to {}", range.start, range.end - 1)
    }
}

fn absent(place: &str, why: &str) -> Failure {
    let message = format!(
        "show {place}: no dead letter stands there: {why}; `tidemill dlq list` shows where they are"
    );
    Failure { message, exit: Exit::Data }
}

/// What to do about a dead letter of a class.
fn remedy(letter: &Letter) -> &'static str {
    let class = FaultClass::ALL.into_iter().find(|class| class.name() == letter.class);
    match class {
        Some(FaultClass::Undecodable) => {
            "Correct what wrote it; or, where the value below is good, `input.format` or `input.formats`, and redrive it."
        }
        Some(FaultClass::Missing) => {
            "Correct what wrote it; or say where the field stands (`input.fields`), or what replaces it (`input.clean`: \
             on_missing), and redrive it."
        }
        Some(FaultClass::Invalid) => {
            "Correct what wrote it; or say how the field is written or what becomes of such a value (`input.clean`), and \
             redrive it."
        }
        Some(FaultClass::TooLong) => {
            "Shorten the text where it is written; or set `model.on_long` to truncate, chunks or mean, and redrive it."
        }
        Some(FaultClass::Refused) => {
            "The model or the broker does not take this record alone: look at the reason above. Correct the model or the \
             topic, promote a version that takes it, and redrive it."
        }
        Some(FaultClass::Oversized) => {
            "Raise `max.message.bytes` of the output topic, or make predictions smaller (`output.fields`, `top_k`, \
             `embedding_format`), and redrive it."
        }
        Some(FaultClass::TooSlow) => {
            "Raise `limits.inference` where the model is only slow; else look what in this record keeps it busy. Then \
             redrive it."
        }
        Some(FaultClass::Killed) => {
            "The process died each time this record was alone in the model: report it with the value below, or raise the \
             memory limit. Redrive it when that is mended."
        }
        None => "Another program wrote it: see there.",
    }
}

/// All of it, for a person; of the value so many bytes.
fn text(found: &Found, redriven: bool, most: usize) -> String {
    let letter = &found.letter;
    let mut text = format!("{found}  {}\n", letter.class);
    let mut row = |name: &str, said: &str| {
        let said = printable::escaped(said, "");
        writeln!(text, "  {name:<10}  {said}").unwrap_or_default();
    };
    row("why", &letter.message);
    row("what to do", remedy(letter));
    let source = letter.source.as_ref();
    let from = source.map(|at| format!("{}/{}/{}", at.topic, at.partition, at.offset));
    row("from", from.as_deref().unwrap_or("nowhere that it tells"));
    if let Some(millis) = letter.original.timestamp {
        row("timestamp", &printable::utc(millis));
    }
    if let Some((name, version)) = &letter.model {
        row("model", &format!("{name}/{version}"));
    }
    if let Some(millis) = letter.written.and_then(|millis| i64::try_from(millis).ok()) {
        row("written", &printable::utc(millis));
    }
    row("redriven", &state(letter, redriven));
    row("key", &letter.original.key.as_deref().map_or_else(|| "none".to_owned(), quoted));
    for header in &letter.original.headers {
        let value = header.value.as_deref().map_or_else(|| "null".to_owned(), quoted);
        row("header", &format!("{}: {value}", as_text(&header.name)));
    }
    let value = letter.original.value.as_deref();
    let cut = letter.truncated.as_ref();
    let whole = cut.map_or_else(String::new, |length| format!(", of {length} that the record had"));
    row(
        "value",
        &value.map_or_else(|| "none".to_owned(), |v| format!("{}{whole}", Kind::of(v).name(v))),
    );
    text + &value.map_or_else(String::new, |value| shown(value, most))
}

fn state(letter: &Letter, redriven: bool) -> String {
    let attempts = match letter.attempt {
        0 => String::new(),
        1 => "; it was once before, and came back".to_owned(),
        n => format!("; it was {n} times before, and came back"),
    };
    let now = match (&letter.truncated, redriven) {
        (Some(_), _) => "cannot be: it does not hold the whole record",
        (None, true) => "yes",
        (None, false) => "no",
    };
    format!("{now}{attempts}")
}

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    Text,
    /// Behind Confluent's frame, with the schema's id.
    Framed(u32),
    Bytes,
}

impl Kind {
    fn of(value: &[u8]) -> Self {
        // Text has no zero byte at its beginning.
        match value {
            [0, a, b, c, d, ..] => Self::Framed(u32::from_be_bytes([*a, *b, *c, *d])),
            _ if serde_json::from_slice::<serde::de::IgnoredAny>(value).is_ok() => Self::Json,
            _ if std::str::from_utf8(value).is_ok() => Self::Text,
            _ => Self::Bytes,
        }
    }

    fn name(self, value: &[u8]) -> String {
        let bytes = printable::thousands(u64::try_from(value.len()).unwrap_or(u64::MAX));
        match self {
            Self::Json => format!("JSON, {bytes} bytes"),
            Self::Text => format!("text that is not valid JSON, {bytes} bytes"),
            Self::Framed(schema) => {
                format!(
                    "{bytes} bytes that begin like Confluent's frame of the schema with id {schema}"
                )
            }
            Self::Bytes => format!("{bytes} bytes that are not UTF-8"),
        }
    }
}

/// The first `most` bytes of a value, indented: text line by line, anything else in hexadecimal digits.
fn shown(value: &[u8], most: usize) -> String {
    let mut text = String::new();
    let shown = match Kind::of(value) {
        Kind::Json | Kind::Text => {
            let whole = std::str::from_utf8(value).unwrap_or_default();
            let part = whole.get(..whole.floor_char_boundary(most)).unwrap_or_default();
            for line in part.lines() {
                writeln!(text, "    {}", printable::escaped(line, "\t")).unwrap_or_default();
            }
            part.len()
        }
        Kind::Framed(_) | Kind::Bytes => {
            let part = value.get(..most).unwrap_or(value);
            for (number, bytes) in part.chunks(WIDTH).enumerate() {
                let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                let visible =
                    |byte: &u8| if matches!(byte, 0x20..0x7f) { char::from(*byte) } else { '.' };
                let visible: String = bytes.iter().map(visible).collect();
                let (at, digits, width) = (number * WIDTH, digits.join(" "), 3 * WIDTH - 1);
                writeln!(text, "    {at:08x}  {digits:<width$}  {visible}").unwrap_or_default();
            }
            part.len()
        }
    };
    if shown < value.len() {
        let (left, all) = (value.len() - shown, value.len());
        writeln!(text, "    … {left} bytes more; --bytes {all} shows all").unwrap_or_default();
    }
    text
}

/// A short value in quotes, whatever it is.
fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", as_text(bytes))
}

/// All of it in one line of JSON: what `list` has, and the rest.
fn whole(found: &Found, redriven: bool) -> Value {
    let letter = &found.letter;
    let mut object = object(found, redriven);
    let value = letter.original.value.as_deref();
    let headers = letter.original.headers.iter().map(|header| {
        json!({"name": as_text(&header.name), "value": header.value.as_deref().map(as_text)})
    });
    let text = value.and_then(|value| std::str::from_utf8(value).ok());
    for (name, said) in [
        ("remedy", json!(remedy(letter))),
        (
            "written",
            json!(letter.written.and_then(|at| i64::try_from(at).ok()).map(printable::utc)),
        ),
        ("attempt", json!(letter.attempt)),
        ("headers", headers.collect()),
        ("value", json!(text)),
        // Where it is no text.
        (
            "value_base64",
            json!(value.filter(|_| text.is_none()).map(|value| STANDARD.encode(value))),
        ),
        ("value_bytes", json!(value.map(<[u8]>::len))),
    ] {
        object[name] = said;
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::letter::{Original, Source};
    use crate::record::Header;

    #[test]
    fn a_place_has_three_forms() {
        let at_ = |topic: Option<&str>| {
            Ok(At { topic: topic.map(str::to_owned), partition: 0, offset: 3 })
        };
        for (text, expect) in [
            ("in-dlq/0/3", at_(Some("in-dlq"))),
            ("in-dlq:0:3", at_(Some("in-dlq"))),
            ("0/3", at_(None)),
            ("0:3", at_(None)),
        ] {
            assert_eq!(at(text), expect, "{text}");
        }
        for text in ["", "3", "a/3", "in/0/x", "in/0/-1", "/0/3", "a/b/0/3", "in/70000/3"] {
            assert!(at(text).unwrap_err().contains("PARTITION:OFFSET"), "{text}");
        }
    }

    #[test]
    fn a_value_is_shown_as_what_it_is() {
        let binary: Vec<u8> = (0xf0..=0xff).chain(*b"A").collect();
        for (value, kind, expect) in [
            (&b"{\"x\": 1.50}"[..], Kind::Json, "    {\"x\": 1.50}\n"),
            (b"{\"x\": 1", Kind::Text, "    {\"x\": 1\n"),
            (b"a\x1b[31m\r\nb\tc", Kind::Text, "    a\\u{1b}[31m\n    b\tc\n"),
            (b"", Kind::Text, ""),
            (
                b"\0\0\0\0\x07\x02",
                Kind::Framed(7),
                "    00000000  00 00 00 00 07 02                                ......\n",
            ),
            (
                &binary,
                Kind::Bytes,
                "    00000000  f0 f1 f2 f3 f4 f5 f6 f7 f8 f9 fa fb fc fd fe ff  ................\n    \
                 00000010  41                                               A\n",
            ),
        ] {
            assert_eq!((Kind::of(value), &*shown(value, 4_096)), (kind, expect));
        }
        let more = "    … 3 bytes more; --bytes 5 shows all\n";
        assert_eq!(shown("aäö".as_bytes(), 2), format!("    a\n{}", more.replace('3', "4")));
        assert_eq!(shown(b"\xff\xff\xff\xff\xff", 2).lines().count(), 2);
    }

    /// Whatever a stranger wrote stands in its line.
    #[test]
    fn all_of_a_letter_is_shown() {
        let header = Header { name: b"own\n".to_vec(), value: Some(b"\xff".to_vec()) };
        let mut letter = Letter {
            source: Some(Source { topic: "in".to_owned(), partition: 1, offset: 7 }),
            class: "missing",
            message: "field \"x\"\nis missing".to_owned(),
            model: Some(("lin".to_owned(), "1".to_owned())),
            written: Some(0),
            truncated: None,
            attempt: 2,
            original: Original {
                timestamp: Some(0),
                key: Some(b"k".to_vec()),
                value: Some(b"{}".to_vec()),
                headers: vec![header],
            },
        };
        let found = |letter| Found {
            topic: "in-dlq".to_owned(),
            partition: 0,
            offset: 3,
            bytes: 9,
            letter,
        };
        let said = text(&found(letter.clone()), false, 10);
        for line in [
            "in-dlq/0/3  missing",
            "  why         field \"x\"\\nis missing",
            "  from        in/1/7",
            "  redriven    no; it was 2 times before, and came back",
            "  key         \"k\"",
            "  header      own\\n: \"\\xff\"",
            "  value       JSON, 2 bytes",
            "    {}",
        ] {
            assert!(said.lines().any(|there| there == line), "{line} in\n{said}");
        }
        let object = whole(&found(letter.clone()), true);
        assert_eq!((&object["value"], &object["value_base64"]), (&json!("{}"), &Value::Null));
        assert_eq!((&object["attempt"], &object["redriven"]), (&json!(2), &json!(true)));
        letter.original.value = Some(b"\xff".to_vec());
        assert_eq!(whole(&found(letter.clone()), true)["value_base64"], "/w==");
        for class in FaultClass::ALL.map(FaultClass::name) {
            letter.class = class;
            assert!(remedy(&letter).contains("edrive"), "{class}");
        }
    }
}

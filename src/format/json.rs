//! JSON objects, read once from left to right. Only what is wanted is kept, borrowed from the text where no escape stands
//! in it: a record of a million small values takes no more memory than its text.
//!
//! What is valid is decided here, by RFC 8259, with one addition: half of a surrogate pair becomes U+FFFD, as Jackson writes
//! it. The words about what is not valid are serde's, who reads such a text again.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::Read;
use super::wanted::{Branch, Member, Wanted};
use crate::field::Value;

mod scan;

use scan::{Scanner, Wrong};

/// What is kept of a value.
pub(super) trait Keep<'t>: Sized {
    /// Reads the value that begins here.
    fn keep(scanner: &mut Scanner<'t>, into: &mut Option<Self>) -> Result<(), Wrong>;
}

/// The value; of a list or an object only that it is one, because no model takes one.
impl<'t> Keep<'t> for Value<'t> {
    fn keep(scanner: &mut Scanner<'t>, into: &mut Option<Self>) -> Result<(), Wrong> {
        scanner.value(into)
    }
}

/// The value as it is written.
impl<'t> Keep<'t> for &'t str {
    fn keep(scanner: &mut Scanner<'t>, into: &mut Option<Self>) -> Result<(), Wrong> {
        *into = Some(scanner.raw()?);
        Ok(())
    }
}

/// Reads the fields `wanted` of the object in `text`.
///
/// # Errors
///
/// What is wrong with the text as JSON and where, or what it is instead of an object.
pub(super) fn read<'t, V: Keep<'t>>(text: &'t str, wanted: &Wanted) -> Result<Read<'t, V>, String> {
    let mut values: Vec<Option<V>> = Vec::with_capacity(wanted.len());
    values.resize_with(wanted.len(), || None);
    let mut unknown = None;
    let object = |scanner: &mut Scanner<'t>| {
        let mut next = 0;
        scanner.members(|scanner| match find(scanner, wanted.root(), &mut next)? {
            Ok(member) => keep(&mut values, scanner, member),
            Err(name) => {
                if unknown.is_none() {
                    unknown = Some(name);
                }
                scanner.skip()
            }
        })
    };
    match Scanner::new(text).whole(object) {
        Ok(()) => Ok(Read { values, unknown }),
        Err(wrong) => Err(words(text, &wrong)),
    }
}

/// Reads the name of a member: the member of `branch`, or a name that is none's.
#[inline]
fn find<'t, 'b>(
    scanner: &mut Scanner<'t>,
    branch: &'b Branch,
    next: &mut usize,
) -> Result<Result<&'b Member, Cow<'t, str>>, Wrong> {
    if let Some(member) = branch.at(*next)
        && let Some(name) = member.plain_name()
        && scanner.take_name(name)?
    {
        *next += 1;
        return Ok(Ok(member));
    }
    find_any(scanner, branch, next)
}

/// The same where the name is not the one that is expected. Apart, so that what is expected is one path without a call.
#[inline(never)]
fn find_any<'t, 'b>(
    scanner: &mut Scanner<'t>,
    branch: &'b Branch,
    next: &mut usize,
) -> Result<Result<&'b Member, Cow<'t, str>>, Wrong> {
    let name = scanner.name()?;
    Ok(branch.find(&name, next).ok_or(name))
}

/// Reads the value of a member that is wanted, or that something is wanted of.
#[inline]
fn keep<'t, V: Keep<'t>>(
    values: &mut [Option<V>],
    scanner: &mut Scanner<'t>,
    member: &Member,
) -> Result<(), Wrong> {
    match *member.places {
        [place] if member.below.is_empty() => V::keep(scanner, &mut values[place]),
        _ => keep_some(values, scanner, member),
    }
}

/// Of a value that is wanted in several places, or of which something is wanted. As deep as the paths of what is wanted.
fn keep_some<'t, V: Keep<'t>>(
    values: &mut [Option<V>],
    scanner: &mut Scanner<'t>,
    member: &Member,
) -> Result<(), Wrong> {
    let start = scanner.clone();
    // The last one of a name counts, with all that is in it.
    forget(values, &member.below);
    let mut next = 0;
    let read = match scanner.peek() {
        Some(b'{') if !member.below.is_empty() => {
            scanner.members(|scanner| match find(scanner, &member.below, &mut next)? {
                Ok(member) => keep(values, scanner, member),
                Err(_) => scanner.skip(),
            })
        }
        Some(b'[') if !member.below.is_empty() => {
            scanner.elements(|scanner, number| match member.below.element(number, &mut next) {
                Some(member) => keep(values, scanner, member),
                None => scanner.skip(),
            })
        }
        _ => scanner.skip(),
    };
    read?;
    for place in &member.places {
        V::keep(&mut start.clone(), &mut values[*place])?;
    }
    Ok(())
}

pub(super) fn forget<V>(values: &mut [Option<V>], branch: &Branch) {
    for member in branch.members() {
        member.places.iter().for_each(|place| values[*place] = None);
        forget(values, &member.below);
    }
}

fn words(text: &str, wrong: &Wrong) -> String {
    match wrong {
        Wrong::TooLarge(at) => {
            let (before, _) = text.split_at(*at);
            let line = before.matches('\n').count() + 1;
            let column = at - before.rfind('\n').map_or(0, |end| end + 1);
            format!(
                "has a number at line {line} column {column} that no 64-bit float can hold (at most 1.8e308)"
            )
        }
        Wrong::NoObject(kind) => match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => format!("is a JSON {kind} where an object is wanted"),
            Err(error) => explain(text, &error),
        },
        Wrong::Syntax(at) => match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => format!("is not valid JSON: unexpected character at byte {at}"),
            Err(error) => explain(text, &error),
        },
    }
}

/// What is wrong with a text that serde could not read, in words that say what to do. Nothing of the text is shown but
/// words that others write where JSON has none.
pub(crate) fn explain(text: &str, error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let place = format!("at line {line} column {column}");
    if text.starts_with('\u{feff}') {
        return "begins with a byte order mark (U+FEFF), which is no part of JSON: write UTF-8 without it (in Python \
                encoding=\"utf-8\", not \"utf-8-sig\")"
            .to_owned();
    }
    if text.starts_with('\0') && text.as_bytes().get(5) == Some(&b'{') {
        return "begins with a zero byte, as Confluent's serialisers write it before their schema's number: write plain \
                JSON without a schema registry"
            .to_owned();
    }
    if text.trim().is_empty() {
        return "is empty, which is no JSON: write {} where there is nothing to say".to_owned();
    }
    let said = error.to_string();
    if said.starts_with("number out of range") {
        return format!("has a number {place} that no 64-bit float can hold (at most 1.8e308)");
    }
    if said.starts_with("lone leading surrogate") || said.starts_with("unexpected end of hex") {
        return format!("has half of a surrogate pair {place} (\\ud800 to \\udfff): no character");
    }
    let word = word(text, line, column);
    let meant = match word {
        "NaN" | "nan" | "NAN" | "Infinity" | "-Infinity" | "+Infinity" | "inf" | "-inf" | "Inf"
        | "-Inf" => "is no number of JSON: write null where a value is missing",
        "None" => "is Python's: JSON writes null (json.dumps does)",
        "True" | "False" => "is Python's: JSON writes true and false (json.dumps does)",
        "undefined" => "is JavaScript's: JSON writes null, or leaves the name out",
        "'" => "cannot stand around a text or a name: JSON has double quotes",
        "}" | "]"
            if said.starts_with("key must be a string") || said.starts_with("trailing comma") =>
        {
            return format!("is not valid JSON: a comma stands before the bracket {place}");
        }
        _ if said.starts_with("key must be a string") => {
            return format!("is not valid JSON: a name {place} has no double quotes");
        }
        _ => return format!("is not valid JSON: {said}"),
    };
    format!("is not valid JSON: {word} {place} {meant}")
}

/// The letters and signs around a place, or else the character there.
fn word(text: &str, line: usize, column: usize) -> &str {
    let line = text.split('\n').nth(line.saturating_sub(1)).unwrap_or_default();
    let bytes = line.as_bytes();
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-_".contains(byte);
    let at = column.saturating_sub(1).min(bytes.len());
    let start = at - bytes[..at].iter().rev().take_while(|byte| part(byte)).count();
    let end = at + bytes[at..].iter().take_while(|byte| part(byte)).count();
    line.get(start..end.max(at + 1)).unwrap_or_default()
}

/// The members of an object as they are written; `None` of another value.
pub(super) fn members(text: &str) -> Option<Vec<(Cow<'_, str>, &str)>> {
    let mut members = Vec::new();
    let read = Scanner::new(text).whole(|scanner| {
        scanner.members(|scanner| {
            let name = scanner.name()?;
            members.push((name, scanner.raw()?));
            Ok(())
        })
    });
    read.ok().map(|()| members)
}

/// The elements of a list as they are written; `None` of another value.
pub(super) fn elements(text: &str) -> Option<Vec<&str>> {
    let mut elements = Vec::new();
    let mut scanner = Scanner::new(text);
    let read = scanner.elements(|scanner, _| {
        elements.push(scanner.raw()?);
        Ok(())
    });
    read.ok().map(|()| elements)
}

/// `text`, which is valid JSON, without the white space between its parts.
pub(super) fn compact(text: &str) -> Cow<'_, str> {
    let space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r');
    let (mut inside, mut escaped) = (false, false);
    let mut keep = |c: char| {
        let kept = inside || !space(c);
        match c {
            '"' if !escaped => inside = !inside,
            '\\' if inside && !escaped => {
                escaped = true;
                return kept;
            }
            _ => (),
        }
        escaped = false;
        kept
    };
    let text: Cow<'_, str> = if text.contains(space) {
        text.chars().filter(|c| keep(*c)).collect()
    } else {
        text.into()
    };
    paired(text)
}

/// A text of JSON with U+FFFD in place of each half of a surrogate pair: no reader could encode it.
fn paired(text: Cow<'_, str>) -> Cow<'_, str> {
    let unit = |rest: &str| {
        let digits = rest.strip_prefix("\\u")?.get(..4)?;
        u32::from_str_radix(digits, 16).ok()
    };
    let is_half = |unit: u32| (0xd800..0xe000).contains(&unit);
    if !text.contains("\\ud") && !text.contains("\\uD") {
        return text;
    }
    let (mut out, mut rest) = (String::with_capacity(text.len()), &*text);
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let first = unit(escape).filter(|unit| is_half(*unit));
        let second = escape.get(6..).and_then(unit);
        let (length, half) = match (first, second) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => (12, false),
            (Some(_), _) => (6, true),
            (None, _) => (2, false),
        };
        let (escape, behind) = escape.split_at_checked(length).unwrap_or((escape, ""));
        out.push_str(if half { "\\ufffd" } else { escape });
        rest = behind;
    }
    out.push_str(rest);
    out.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::*;
    use crate::config::Pointer;

    fn value() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            any::<f64>().prop_map(Json::from),
            "[ a\"\\\\\n{},:é\u{1}😀]{0,6}".prop_map(Json::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                prop::collection::vec(("[ab \"]{0,2}", inner), 0..4)
                    .prop_map(|entries| Json::Object(entries.into_iter().collect())),
            ]
        })
    }

    fn names() -> [String; 2] {
        ["a", "b"].map(str::to_owned)
    }

    fn wanted() -> Wanted {
        Wanted::new(&names(), &BTreeMap::new())
    }

    /// That reading `text` is reading what serde parses it to.
    fn is_parsing(text: &str, parsed: &Json) -> Result<(), TestCaseError> {
        let read = read::<Value<'_>>(text, &wanted());
        let Json::Object(fields) = parsed else {
            prop_assert!(read.unwrap_err().contains("where an object is wanted"));
            return Ok(());
        };
        let read = read.map_err(TestCaseError::fail)?;
        for (name, read) in names().iter().zip(read.values) {
            prop_assert_eq!(read, fields.get(name).map(Value::from));
        }
        let unknown = fields.keys().find(|name| !names().contains(name));
        prop_assert_eq!(read.unknown.as_deref(), unknown.map(String::as_str));
        Ok(())
    }

    proptest! {
        #[test]
        fn reading_is_parsing(value in value(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.unwrap();
            prop_assert_eq!(compact(&text), serde_json::to_string(&value).unwrap());
            is_parsing(&text, &value)?;
        }

        /// What serde does not take is not taken here, and the other way round.
        #[test]
        fn what_is_valid_is_what_serde_takes(
            value in value(),
            at in any::<prop::sample::Index>(),
            other in "[]{}\\[\",:0-9.eE+\\-tfnul\\\\ bz]{0,2}",
            gone in 0..3_usize,
        ) {
            let text = serde_json::to_string(&value).unwrap();
            let mut characters: Vec<char> = text.chars().collect();
            let at = at.index(characters.len());
            let end = (at + gone).min(characters.len());
            characters.splice(at..end, other.chars());
            let text: String = characters.into_iter().collect();
            match serde_json::from_str::<Json>(&text) {
                Ok(value) => is_parsing(&text, &value)?,
                Err(error) => {
                    // What is passed over may be a number without bounds, and is not unescaped.
                    let lenient = ["number out of range", "surrogate", "hex escape"];
                    let text = error.to_string();
                    prop_assume!(!lenient.iter().any(|word| text.contains(word)));
                }
            }
            if serde_json::from_str::<IgnoredAny>(&text).is_err() {
                prop_assert!(read::<Value<'_>>(&text, &wanted()).is_err(), "{}", text);
            }
        }
    }

    #[test]
    fn fields_are_found_by_their_paths() {
        let pointers = [("deep", "/o/p/q"), ("third", "/l/2"), ("in", "/l/1/x"), ("whole", "/o")];
        let pointer = |(name, path): (&str, &str)| {
            (name.to_owned(), Pointer::try_from(path.to_owned()).unwrap())
        };
        let names = ["deep", "a", "third", "in", "whole"].map(str::to_owned);
        let wanted = Wanted::new(&names, &pointers.map(pointer).into());
        for (text, values, unknown) in [
            (r#"{"o":{"n":0,"p":{"q":1,"r":2}},"a":3,"l":[4,{"x":5},6,7]}"#, "1 3 6 5 {}", None),
            (r#"{"z":[{}],"l":{"2":8},"o":{"p":[]}}"#, "- - 8 - {}", Some("z")),
            (r#"{"o":7,"l":null,"deep":1}"#, "- - - - 7", Some("deep")),
            (r#"{"o":{"p":{"q":1}},"o":{"p":{}},"a":{}}"#, "- {} - - {}", None),
        ] {
            let read = read::<Value<'_>>(text, &wanted).unwrap();
            let shown = read.values.iter().map(|value| match value {
                Some(Value::Int(number)) => number.to_string(),
                Some(Value::Map) => "{}".to_owned(),
                None => "-".to_owned(),
                other => panic!("{other:?}"),
            });
            assert_eq!(shown.collect::<Vec<_>>().join(" "), values, "{text}");
            assert_eq!(read.unknown.as_deref(), unknown, "{text}");
        }
        assert!(read::<Value<'_>>(r#"{"o":{"p":{"q":1]}}"#, &wanted).is_err());
    }

    #[test]
    fn what_goes_along_has_no_half_of_a_pair() {
        for (text, expect) in [
            (r#""\ud83d x""#, r#""\ufffd x""#),
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\\ud83d \uDE00\n""#, r#""\\ud83d \ufffd\n""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\u00e9 é""#, r#""\u00e9 é""#),
        ] {
            assert_eq!(paired(text.into()), expect);
        }
    }

    #[test]
    fn the_last_of_one_name_counts() {
        let read = read::<Value<'_>>(r#"{"a":1,"b":2,"a":"x"}"#, &wanted()).unwrap();
        assert_eq!(read.values, [Some(Value::Text("x".into())), Some(Value::Int(2))]);
    }

    #[test]
    fn numbers_and_escapes_are_as_they_are_written() {
        for (text, expect) in [
            ("-0", Value::Float(-0.0)),
            ("-9223372036854775808", Value::Int(i64::MIN.into())),
            ("18446744073709551615", Value::Int(u64::MAX.into())),
            ("18446744073709551616", Value::Float(2_f64.powi(64))),
            ("1e2", Value::Float(100.0)),
            ("5e-324", Value::Float(5e-324)),
            ("1e-999", Value::Float(0.0)),
            (r#""\ud83d\ude00 \u00e9\/\b""#, Value::Text("😀 é/\u{8}".into())),
            // Half of a pair is no character.
            (r#""\ud83d""#, Value::Text("\u{fffd}".into())),
            (r#""\ud83dx""#, Value::Text("\u{fffd}x".into())),
            (r#""\ud83d\n""#, Value::Text("\u{fffd}\n".into())),
            (r#""\ud83d\ud83d\ude00""#, Value::Text("\u{fffd}😀".into())),
            (r#""\ude00\ud83d""#, Value::Text("\u{fffd}\u{fffd}".into())),
        ] {
            let text = format!("{{\"a\": {text} }}");
            let read = read::<Value<'_>>(&text, &wanted());
            assert_eq!(read.unwrap().values[0], Some(expect), "{text}");
        }
        for text in
            ["01", "+1", "1.", ".5", "1e", "-", "0x1", r#""\x""#, r#""\u12g4""#, "\"\n\"", "tru"]
        {
            let text = format!("{{\"a\":{text}}}");
            let read = read::<Value<'_>>(&text, &wanted());
            assert!(read.is_err(), "{text}");
        }
    }
}

//! Text of strangers, as it can stand in a line of the log, on a page, in a header, on a terminal.
//!
//! A newline in a model's name would be a line of its own in the log, an escape sequence would paint over it, and a mark
//! of direction would turn it around. Such characters are shown as Rust writes them: `\\n`, `\\u{1b}`.

use std::borrow::Cow;

/// Most characters of a [`name`].
const LONGEST: usize = 128;

/// The text with what could steer a terminal or end a line escaped, but for the characters in `kept`.
pub fn escaped<'a>(text: &'a str, kept: &str) -> Cow<'a, str> {
    let steers = |character: char| steers(character) && !kept.contains(character);
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if steers(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// JSON with what could steer a terminal written as JSON escapes it: [`escaped`] leaves it as it is.
pub fn json(value: &serde_json::Value) -> String {
    let mut shown = String::new();
    for character in value.to_string().chars() {
        if steers(character) {
            let units = character.encode_utf16(&mut [0; 2]).to_vec();
            shown.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A name [`escaped`], and cut at 128 characters.
pub fn name(text: &str) -> String {
    // What is escaped only grows.
    let end = text.char_indices().nth(LONGEST).map_or(text.len(), |(end, _)| end);
    let shown = escaped(text.get(..end).unwrap_or(text), "");
    shown.chars().take(LONGEST).collect()
}

/// Control characters, separators of lines and paragraphs, and marks that change the direction of writing.
fn steers(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `12345` → `12,345`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place != 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of something, [`thousands`] in the number: `1 record waits`, `1,200 records wait`. Below 0 counts as 0.
pub fn counted(number: impl TryInto<u64>, one: &str, more: &str) -> String {
    let number = number.try_into().unwrap_or(0);
    format!("{} {}", thousands(number), if number == 1 { one } else { more })
}

/// The first of many, and how many more there are: a list that ends where a sentence is cut says neither.
pub fn some(names: &[String], shown: usize) -> String {
    match names.len().checked_sub(shown) {
        // One more takes as much room as to say that it is there.
        None | Some(0 | 1) => names.join(", "),
        Some(more) => {
            let first = names.get(..shown).unwrap_or(names);
            format!(
                "{} and {} more",
                first.join(", "),
                thousands(u64::try_from(more).unwrap_or(u64::MAX))
            )
        }
    }
}

/// So many in a second, with one digit below ten: what is slow is not nothing.
pub fn rate(a_second: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate that is shown"
    )]
    let whole = a_second.round() as u64;
    let tenths = (a_second * 10.0).round();
    if 0.0 < a_second && tenths < 100.0 && tenths % 10.0 != 0.0 {
        format!("{:.1}", tenths / 10.0)
    } else if 0.0 < a_second && whole == 0 {
        "less than 0.1".to_owned()
    } else {
        thousands(whole)
    }
}

/// Milliseconds since 1970 as RFC 3339 writes them, in UTC.
pub fn utc(millis: i64) -> String {
    let (days, rest) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    // Days since 0000-03-01, in eras of 400 years: leap days stand at the ends of years.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    let year = 400 * era + year + i64::from(month <= 2);
    let (hours, minutes) = (rest / 3_600_000, rest / 60_000 % 60);
    let (seconds, millis) = (rest / 1_000 % 60, rest % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_rate_is_not_nothing_and_a_long_list_has_an_end() {
        for (a_second, expect) in [
            (0.0, "0"),
            (0.01, "less than 0.1"),
            (0.34, "0.3"),
            (7.0, "7"),
            (9.94, "9.9"),
            (9.97, "10"),
            (4_800.2, "4,800"),
        ] {
            assert_eq!(rate(a_second), expect, "{a_second}");
        }
        let names: Vec<String> = (0..31).map(|name| name.to_string()).collect();
        assert_eq!(some(&names, 2), "0, 1 and 29 more");
        assert_eq!((some(&names[..3], 2), some(&[], 2)), ("0, 1, 2".to_owned(), String::new()));
    }

    #[test]
    fn times_are_rfc_3339() {
        for (millis, expect) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_764_122_748_123, "2025-11-26T02:05:48.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(millis), expect);
        }
        // Whatever a producer wrote.
        assert!(!utc(i64::MAX).is_empty() && !utc(i64::MIN).is_empty());
    }

    #[test]
    fn one_is_not_many() {
        for (number, expect) in [(0, "0 records"), (1, "1 record"), (2_000, "2,000 records")] {
            assert_eq!(counted(number, "record", "records"), expect);
        }
    }

    #[test]
    fn a_name_stays_in_its_line() {
        for (text, expect) in [
            ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
            ("mein Modell (ä) \"1\" \\", "mein Modell (ä) \"1\" \\"),
            ("हिन्दी 模型 🌊", "हिन्दी 模型 🌊"),
            ("x\n2026-01-01 ERROR", "x\\n2026-01-01 ERROR"),
            ("\x1b[31mred\r\t\0\u{9b}", "\\u{1b}[31mred\\r\\t\\u{0}\\u{9b}"),
            ("\u{202e}left\u{2028}", "\\u{202e}left\\u{2028}"),
        ] {
            assert_eq!(name(text), expect);
        }
        assert_eq!(name(&"ä".repeat(500)).chars().count(), 128);
        assert_eq!(name(&"\n".repeat(500)).chars().count(), 128);
        assert_eq!(escaped("a\n\tb\r", "\n\t"), "a\n\tb\\r");
    }

    #[test]
    fn json_stays_json() {
        let text = "a\u{202e}\u{9b}\u{7f}\n\u{1b}ä🌊\"\\";
        let shown = json(&serde_json::json!({ "key": text }));
        assert!(!shown.contains(steers), "{shown}");
        let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(read["key"], text);
    }
}

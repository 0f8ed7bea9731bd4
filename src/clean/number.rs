//! Numbers in texts, as a team writes them: by a stated sign for decimals, with groups, units and signs of currency.

use std::borrow::Cow;

use super::words::{Decimal, Group};
use crate::field::Value;

/// How numbers are written.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) decimal: Decimal,
    pub(super) group: Option<Group>,
}

impl Decimal {
    fn sign(self) -> char {
        match self {
            Self::Point => '.',
            Self::Comma => ',',
        }
    }
}

impl Group {
    /// Whether it may stand between two groups.
    fn is(self, c: char) -> bool {
        match self {
            Self::Comma => c == ',',
            Self::Point => c == '.',
            // A thin one, one that is narrow and does not break, one that does not break.
            Self::Space => matches!(c, ' ' | '\u{2009}' | '\u{202f}' | '\u{a0}'),
            Self::Apostrophe => matches!(c, '\'' | '\u{2019}'),
            Self::Underscore => c == '_',
        }
    }
}

/// A minus that is a character of its own stands in texts of several languages.
fn is_minus(c: char) -> bool {
    matches!(c, '-' | '\u{2212}')
}

/// Takes a sign off a text's beginning: whether it is a minus.
fn sign(text: &mut &str) -> Option<bool> {
    let first = text.chars().next().filter(|c| *c == '+' || is_minus(*c))?;
    *text = text.get(first.len_utf8()..).unwrap_or_default();
    Some(is_minus(first))
}

impl Written {
    /// The number in a text, and the first of `marks` that stands before or behind it. `None` where it is no number, or
    /// too large for one.
    pub(super) fn read<'m>(
        &self,
        text: &str,
        marks: &'m [(String, f64)],
    ) -> Option<(Value<'static>, Option<&'m (String, f64)>)> {
        let mut rest = text.trim();
        let mut negative = sign(&mut rest);
        let mut mark = None;
        for candidate in marks {
            let name = candidate.0.as_str();
            let after = rest.strip_prefix(name).map(str::trim_start);
            let bare = after.or_else(|| rest.strip_suffix(name).map(str::trim_end));
            if let Some(bare) = bare.filter(|_| !name.is_empty()) {
                (rest, mark) = (bare, Some(candidate));
                break;
            }
        }
        if mark.is_some() && negative.is_none() {
            negative = sign(&mut rest);
        }
        let number = self.digits(rest)?;
        Some((if negative == Some(true) { number.negated()? } else { number }.value(), mark))
    }

    /// A number without a sign.
    fn digits(&self, text: &str) -> Option<Number> {
        let plain = self.plain(text)?;
        let is_whole = plain.bytes().all(|byte| byte.is_ascii_digit());
        if is_whole && let Ok(whole) = plain.parse() {
            return Some(Number::Whole(whole));
        }
        plain.parse().ok().filter(|number: &f64| number.is_finite()).map(Number::Real)
    }

    /// The text as Rust reads numbers, where it is one: no groups, a point. Digits are those of ASCII.
    fn plain<'t>(&self, text: &'t str) -> Option<Cow<'t, str>> {
        let end = text.find(['e', 'E']).unwrap_or(text.len());
        let (mantissa, exponent) = text.split_at(end);
        if let Some(mut exponent) = exponent.get(1..) {
            let _either = sign(&mut exponent);
            if exponent.is_empty() || !exponent.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
        }
        let point = self.decimal.sign();
        let (whole, part) = match mantissa.split_once(point) {
            Some((whole, part)) => (whole, Some(part)),
            None => (mantissa, None),
        };
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !part.is_none_or(digits) || whole.len() + part.map_or(0, str::len) == 0 {
            return None;
        }
        let grouped = !digits(whole);
        if grouped && !self.groups(whole) {
            return None;
        }
        if !grouped && (point == '.' || part.is_none()) && text.is_ascii() {
            return Some(Cow::Borrowed(text));
        }
        let whole = whole.chars().filter(char::is_ascii_digit);
        let part = part.into_iter().flat_map(|part| std::iter::once('.').chain(part.chars()));
        // The only sign that is not ASCII is a minus.
        let exponent = exponent.chars().map(|c| if c.is_ascii() { c } else { '-' });
        Some(whole.chain(part).chain(exponent).collect())
    }

    /// Whether a text is groups of three digits, the first one of one to three that begin as a number does: `0.001` with
    /// points between groups is no number, and not 1.
    fn groups(&self, text: &str) -> bool {
        let Some(group) = self.group else { return false };
        let mut groups = text.split(|c| group.is(c));
        let digits = |group: &str| group.bytes().all(|byte| byte.is_ascii_digit());
        let first = groups.next().is_some_and(|first| {
            (1..=3).contains(&first.len()) && digits(first) && !first.starts_with('0')
        });
        first && groups.all(|group| group.len() == 3 && digits(group))
    }
}

/// A number without a sign, or with one.
#[derive(Debug, Clone, Copy)]
enum Number {
    Whole(i128),
    Real(f64),
}

impl Number {
    fn negated(self) -> Option<Self> {
        match self {
            Self::Whole(whole) => whole.checked_neg().map(Self::Whole),
            Self::Real(number) => Some(Self::Real(-number)),
        }
    }

    fn value(self) -> Value<'static> {
        match self {
            Self::Whole(whole) => Value::Int(whole),
            Self::Real(number) => Value::Float(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WAYS: [(Decimal, Option<Group>); 8] = [
        (Decimal::Point, None),
        (Decimal::Comma, None),
        (Decimal::Point, Some(Group::Comma)),
        (Decimal::Comma, Some(Group::Point)),
        (Decimal::Comma, Some(Group::Space)),
        (Decimal::Point, Some(Group::Apostrophe)),
        (Decimal::Point, Some(Group::Underscore)),
        (Decimal::Point, Some(Group::Space)),
    ];

    fn number(decimal: Decimal, group: Option<Group>, text: &str) -> Option<f64> {
        let (value, _) = Written { decimal, group }.read(text, &[])?;
        value.number()
    }

    #[test]
    fn a_text_is_a_number_by_what_is_stated() {
        use Decimal::{Comma, Point};
        for (decimal, group, text, expect) in [
            (Point, None, "12", Some(12.0)),
            (Point, None, " -1.5 ", Some(-1.5)),
            (Point, None, "+.5", Some(0.5)),
            (Point, None, "5.", Some(5.0)),
            (Point, None, "1.5e3", Some(1500.0)),
            (Point, None, "1.5E-3", Some(0.0015)),
            (Point, None, "1e\u{2212}3", Some(0.001)),
            (Point, None, "1,234.5", None),
            (Point, None, "1,5", None),
            (Comma, None, "1,5", Some(1.5)),
            (Comma, None, "1.5", None),
            (Comma, None, "1,5e3", Some(1500.0)),
            (Point, Some(Group::Comma), "1,234.5", Some(1234.5)),
            (Point, Some(Group::Comma), "1234.5", Some(1234.5)),
            (Point, Some(Group::Comma), "12,34", None),
            (Point, Some(Group::Comma), "1,2345", None),
            (Point, Some(Group::Comma), ",123", None),
            (Point, Some(Group::Comma), "1,,234", None),
            (Point, Some(Group::Comma), "1234,567", None),
            (Point, Some(Group::Comma), "1,234,567", Some(1_234_567.0)),
            (Point, Some(Group::Comma), "1,234.567,8", None),
            (Comma, Some(Group::Point), "1.234,5", Some(1234.5)),
            (Comma, Some(Group::Point), "1,234.5", None),
            (Comma, Some(Group::Point), "0.001", None),
            (Point, Some(Group::Comma), "0,123", None),
            (Comma, Some(Group::Space), "1 234,5", Some(1234.5)),
            (Comma, Some(Group::Space), "1\u{202f}234\u{a0}567,5", Some(1_234_567.5)),
            (Point, Some(Group::Apostrophe), "1'234.5", Some(1234.5)),
            (Point, Some(Group::Apostrophe), "1\u{2019}234.5", Some(1234.5)),
            (Point, Some(Group::Underscore), "1_000", Some(1000.0)),
        ] {
            assert_eq!(number(decimal, group, text), expect, "{text:?} {decimal:?} {group:?}");
        }
    }

    #[test]
    fn what_is_hostile_is_no_number_or_the_one_that_it_says() {
        let long = "9".repeat(100_000);
        assert_eq!(number(Decimal::Point, None, &long), None, "it is infinite");
        let small = format!("0.{}1", "0".repeat(100_000));
        assert_eq!(number(Decimal::Point, None, &small), Some(0.0));
        let zeros = format!("{}7", "0".repeat(100_000));
        assert_eq!(number(Decimal::Point, None, &zeros), Some(7.0));
        for (decimal, group) in WAYS {
            for text in [
                "", " ", "-", "+", ".", ",", "e5", "1e", "1e+", "--1", "-+1", "- 1", "1e400",
                "-1e400", "NaN", "nan", "inf", "-inf", "Infinity", "0x10", "1f", "１２", "٣",
                "1\u{0}", "½", "1 2", "1e5e5", "1-", "(1)", "−", "1__000", "1 ,5", "e", "1e1.5",
                "1e1,5",
            ] {
                assert_eq!(number(decimal, group, text), None, "{text:?} {decimal:?} {group:?}");
            }
            assert_eq!(number(decimal, group, "\u{2212}5"), Some(-5.0));
        }
    }

    #[test]
    fn marks_stand_before_or_behind() {
        let written = Written { decimal: Decimal::Point, group: Some(Group::Comma) };
        let marks = [("m2", 1.0), ("kg", 1.0), ("lb", 0.5), ("m", 1.0), ("€", 1.0)];
        let marks = marks.map(|(name, factor)| (name.to_owned(), factor));
        for (text, expect) in [
            ("12 lb", Some((12.0, Some("lb")))),
            ("12lb", Some((12.0, Some("lb")))),
            ("3 m2", Some((3.0, Some("m2")))),
            ("3 m", Some((3.0, Some("m")))),
            ("€ 1,234.50", Some((1234.5, Some("€")))),
            ("-€5", Some((-5.0, Some("€")))),
            ("€-5", Some((-5.0, Some("€")))),
            ("-€-5", None),
            ("5 €", Some((5.0, Some("€")))),
            ("€5€", None),
            ("5", Some((5.0, None))),
            ("5 oz", None),
            ("lb", None),
            ("5 KG", None),
        ] {
            let read = written.read(text, &marks);
            let read =
                read.map(|(value, mark)| (value.number().unwrap(), mark.map(|mark| &*mark.0)));
            assert_eq!(read, expect, "{text:?}");
        }
    }

    /// As a locale writes a number: `plain` has a point and no groups.
    fn written(plain: &str, decimal: Decimal, group: Option<Group>) -> String {
        let (sign, plain) = plain.strip_prefix('-').map_or(("", plain), |rest| ("-", rest));
        let (whole, part) = plain.split_once('.').map_or((plain, None), |(w, p)| (w, Some(p)));
        let between = match group {
            None => "",
            Some(Group::Comma) => ",",
            Some(Group::Point) => ".",
            Some(Group::Space) => "\u{202f}",
            Some(Group::Apostrophe) => "'",
            Some(Group::Underscore) => "_",
        };
        let mut text = sign.to_owned();
        for (at, digit) in whole.chars().enumerate() {
            if at != 0 && (whole.len() - at).is_multiple_of(3) {
                text.push_str(between);
            }
            text.push(digit);
        }
        text.extend(part.map(|part| format!("{}{part}", decimal.sign())));
        text
    }

    proptest! {
        #[test]
        fn a_number_that_is_written_reads_back(number: f64, whole: i64, way in 0..WAYS.len()) {
            let (decimal, group) = WAYS[way];
            let plain = format!("{number}");
            prop_assume!(number.is_finite());
            let text = written(&plain, decimal, group);
            prop_assert_eq!(self::number(decimal, group, &text).map(f64::to_bits), Some(number.to_bits()).filter(|_| number != 0.0).or(Some(0)), "{}", text);
            let text = written(&whole.to_string(), decimal, group);
            let (value, _) = Written { decimal, group }.read(&text, &[]).unwrap();
            prop_assert_eq!(value, Value::Int(whole.into()));
        }

        #[test]
        fn no_text_panics(text in "[-+−0-9.,'_ eE€%a１]{0,12}", way in 0..WAYS.len()) {
            let (decimal, group) = WAYS[way];
            let marks = [("€".to_owned(), 1.0), ("a".to_owned(), 2.0)];
            let read = Written { decimal, group }.read(&text, &marks);
            prop_assert!(read.is_none_or(|(value, _)| value.number().is_some_and(f64::is_finite)));
        }
    }
}

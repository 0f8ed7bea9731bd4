//! Dates in texts, by their formats.

use jiff::SignedDuration;
use jiff::civil::Date;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

use super::words::GivenAs;
use crate::field::Value;

/// Why a text is no date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is not written so.
    Format,
    /// A change of the clock leaves it out, or has it twice.
    Clock,
}

/// How dates are written, and what is made of them.
#[derive(Debug, Clone)]
pub(super) struct Dates {
    formats: Vec<String>,
    zone: TimeZone,
    /// What is bundled, whatever the machine has: a record's outcome is the same everywhere.
    zones: TimeZoneDatabase,
    pub(super) given_as: GivenAs,
}

impl Dates {
    /// Dates by the first of `formats` that fits.
    ///
    /// # Errors
    ///
    /// A format that says no date, a zone that is not known.
    pub(super) fn new(
        formats: &[String],
        zone: Option<&str>,
        given_as: Option<GivenAs>,
    ) -> Result<Self, String> {
        let zones = TimeZoneDatabase::bundled();
        let zone = match zone {
            None => TimeZone::UTC,
            Some(name) => zones.get(name).map_err(|_unknown| {
                format!("zone {name:?} is not known: write a name such as Europe/Berlin, or leave it out for UTC")
            })?,
        };
        if formats.is_empty() {
            return Err("format is missing: write how the dates are written, such as \"%Y-%m-%d\""
                .to_owned());
        }
        formats.iter().try_for_each(|format| sound(format))?;
        let dates =
            Self { formats: formats.to_vec(), zone, zones, given_as: given_as.unwrap_or_default() };
        let sample = Date::constant(2001, 12, 31).at(23, 58, 59, 0);
        let sample = sample.to_zoned_datetime(TimeZone::UTC).map_err(|error| error.to_string())?;
        for format in formats {
            let written = BrokenDownTime::from(&sample).to_string(format);
            let written =
                written.map_err(|error| format!("format {format:?} cannot be read: {error}"))?;
            if let Err(error) = BrokenDownTime::parse(format, &written) {
                return Err(format!("format {format:?} cannot be read: {error}"));
            }
            if dates.by(format, &written).is_err() {
                return Err(format!(
                    "format {format:?} says no date: write strftime's signs for a year, a month and a day at least, such as \
                     \"%d.%m.%Y %H:%M\""
                ));
            }
        }
        Ok(dates)
    }

    /// What a text is.
    ///
    /// # Errors
    ///
    /// Why it is no date, or no certain moment.
    pub(super) fn read(&self, text: &str) -> Result<Value<'static>, Unfit> {
        let mut unfit = Unfit::Format;
        for format in &self.formats {
            let read = self.by(format, text).or_else(|first| match other_offset(format, text) {
                Some((format, text)) if first == Unfit::Format => self.by(&format, &text),
                _ => Err(first),
            });
            match read {
                Err(Unfit::Format) => (),
                Err(Unfit::Clock) => unfit = Unfit::Clock,
                Ok(value) => return Ok(value),
            }
        }
        Err(unfit)
    }

    fn by(&self, format: &str, text: &str) -> Result<Value<'static>, Unfit> {
        let time = BrokenDownTime::parse(format, text).ok();
        let time = time.filter(|time| is_so(time, format, text)).ok_or(Unfit::Format)?;
        if self.given_as != GivenAs::Seconds {
            let date = match (time.to_date(), time.timestamp()) {
                (Ok(date), _) => date,
                // Seconds alone say a moment, which is a day in the zone.
                (Err(_), Some(moment)) => self.zone.to_datetime(moment).date(),
                (Err(_), None) => return Err(Unfit::Format),
            };
            let days = (date - Date::constant(1970, 1, 1)).get_days();
            return Ok(Value::Int(days.into()));
        }
        let moment = self.moment(&time)?;
        Ok(if moment.subsec_nanos() == 0 {
            Value::Int(moment.as_secs().into())
        } else {
            Value::Float(moment.as_secs_f64())
        })
    }

    /// Since 1970. Computed by hand: the library's moments end a day before its dates do, so that they hold in each zone.
    fn moment(&self, time: &BrokenDownTime) -> Result<SignedDuration, Unfit> {
        if let Some(moment) = time.timestamp() {
            return Ok(moment.as_duration());
        }
        let local = time.to_datetime().map_err(|_no_date| Unfit::Format)?;
        let offset = if let Some(offset) = time.offset() {
            offset
        } else {
            let named = time.iana_time_zone().map(|name| self.zones.get(name)).transpose();
            let named = named.map_err(|_unknown| Unfit::Format)?;
            let zone = named.as_ref().unwrap_or(&self.zone);
            // What a change of the clock leaves out is no moment, and what it has twice is not known to be one of them.
            match zone.to_ambiguous_timestamp(local).offset() {
                AmbiguousOffset::Unambiguous { offset } => offset,
                AmbiguousOffset::Gap { .. } | AmbiguousOffset::Fold { .. } => {
                    return Err(Unfit::Clock);
                }
            }
        };
        let epoch = Date::constant(1970, 1, 1).at(0, 0, 0, 0);
        Ok(local.duration_since(epoch) - SignedDuration::from_secs(offset.seconds().into()))
    }
}

/// A day.
const DAY: i32 = 86_400;

/// Whether a date that was read as `time` is written so: a year has all its digits and is one of 1 to 9999, an offset is less
/// than a day, and nothing stands there that the format does not have. The parser is lenient with signs, spaces and short
/// years, by which a wrong format would fit.
fn is_so(time: &BrokenDownTime, format: &str, text: &str) -> bool {
    let is_before = time.to_date().is_ok_and(|date| date.year() < 1);
    if is_before || time.offset().is_some_and(|offset| DAY <= offset.seconds().abs()) {
        return false;
    }
    time.to_string(format).map_or(true, |written| {
        bare(&written) == bare(text) && has_years_whole(time, format, &written, text)
    })
}

/// Whether each year has all its digits, two or four, in a text that is otherwise as it is `written`.
fn has_years_whole(time: &BrokenDownTime, format: &str, written: &str, text: &str) -> bool {
    let lengths = |text: &str| -> Vec<usize> {
        let runs = text.split(|c: char| !c.is_ascii_digit());
        runs.map(str::len).filter(|length| *length != 0).collect()
    };
    let (wanted, has) = (lengths(written), lengths(text));
    let is_year =
        |sign: &Sign| matches!(sign.letter, 'y' | 'g' | 'D' | 'Y' | 'G' | 'F') && !sign.bare;
    signs(format).filter(is_year).all(|sign| {
        let before = format.get(..sign.at).and_then(|before| time.to_string(before).ok());
        let Some(before) = before else { return true };
        // Which run of digits it is: `%D` is a month, a day and the year.
        let place = lengths(&before).len() + if sign.letter == 'D' { 2 } else { 0 };
        match (wanted.get(place), has.get(place)) {
            (Some(wanted), Some(has)) => wanted <= has,
            // Within a run of other numbers it is compared with them.
            _ => true,
        }
    })
}

/// A sign of a format.
struct Sign {
    /// Where it begins.
    at: usize,
    letter: char,
    /// Whether it says itself that zeros may be left out.
    bare: bool,
}

/// The signs of a format.
fn signs(format: &str) -> impl Iterator<Item = Sign> {
    let mut rest = format.char_indices();
    std::iter::from_fn(move || {
        let (at, _) = rest.find(|(_, c)| *c == '%')?;
        let mut bare = false;
        let letter = rest.by_ref().map(|(_, c)| c).find(|c| {
            bare |= *c == '-';
            c.is_ascii_alphabetic() || *c == '%'
        })?;
        Some(Sign { at, letter, bare })
    })
}

/// Whether a format says what it must be to be read in one way.
fn sound(format: &str) -> Result<(), String> {
    let has = |letters: &str| signs(format).any(|sign| letters.contains(sign.letter));
    if has("Z") {
        return Err(format!(
            "format {format:?} has %Z, a zone's short name, which says no offset for certain (CST is one in America and in \
             China): write the zone's name as zone and leave %Z out, or %z for an offset, or %Q for a name such as \
             Europe/Berlin"
        ));
    }
    if has("Il") && !has("pPr") {
        return Err(format!(
            "format {format:?} has an hour of twelve (%I) without %p, which says whether it is before noon: write %H for one \
             of 24, or %p beside it"
        ));
    }
    Ok(())
}

/// A text in lower case, without zeros before its numbers and behind its fractions.
fn bare(text: &str) -> String {
    let mut bare = String::new();
    for run in text.split_inclusive(|c: char| !c.is_ascii_digit()) {
        let end = run.len()
            - run.chars().next_back().filter(|c| !c.is_ascii_digit()).map_or(0, char::len_utf8);
        let (digits, sign) = run.split_at(end);
        let is_fraction = bare.ends_with('.');
        let digits = digits.trim_start_matches('0');
        bare.push_str(if is_fraction { digits.trim_end_matches('0') } else { digits });
        bare.push_str(&sign.to_lowercase());
    }
    bare
}

/// The same text where its offset is written in the other way that ISO 8601 has: `Z`, `+01:00`, `+0100`.
fn other_offset(format: &str, text: &str) -> Option<(String, String)> {
    let colon = format.contains("%:z");
    if !colon && !format.contains("%z") {
        return None;
    }
    if let Some(before) = text.strip_suffix(['Z', 'z']) {
        return Some((
            format.to_owned(),
            format!("{before}{}", if colon { "+00:00" } else { "+0000" }),
        ));
    }
    let other = if colon { format.replace("%:z", "%z") } else { format.replace("%z", "%:z") };
    Some((other, text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn dates(format: &str, zone: Option<&str>, given_as: GivenAs) -> Dates {
        Dates::new(&[format.to_owned()], zone, Some(given_as)).unwrap()
    }

    #[track_caller]
    fn reads(
        format: &str,
        zone: Option<&str>,
        given_as: GivenAs,
        text: &str,
        expect: Option<i128>,
    ) {
        let read = dates(format, zone, given_as).read(text).ok();
        assert_eq!(read, expect.map(Value::Int), "{text:?} by {format} in {zone:?}");
    }

    #[test]
    fn a_text_is_a_date_by_its_format() {
        use GivenAs::{Days, Seconds};
        let berlin = Some("Europe/Berlin");
        for (format, zone, given_as, text, expect) in [
            ("%Y-%m-%d", None, Seconds, "1970-01-02", Some(86_400)),
            ("%Y-%m-%d", None, Days, "1970-01-02", Some(1)),
            ("%Y-%m-%d", None, Days, "1969-12-31", Some(-1)),
            ("%d.%m.%Y", None, Days, "29.02.2024", Some(19_782)),
            ("%d.%m.%Y", None, Days, "29.02.2023", None),
            ("%d.%m.%Y", None, Days, "1.2.2024", Some(19_754)),
            ("%d.%m.%Y", None, Days, "01.02.2024 ", None),
            ("%d.%m.%Y", None, Days, "2024-02-01", None),
            ("%m/%d/%y", None, Days, "02/01/24", Some(19_754)),
            ("%d %b %Y", None, Days, "01 Feb 2024", Some(19_754)),
            ("%Y-%m-%d %H:%M", None, Seconds, "2024-02-01 12:30", Some(1_706_790_600)),
            ("%Y-%m-%d %H:%M", None, Seconds, "2024-02-01 24:00", None),
            ("%Y-%m-%d %H:%M", berlin, Seconds, "2024-02-01 12:30", Some(1_706_787_000)),
            ("%Y-%m-%d %H:%M", berlin, Days, "2024-02-01 00:30", Some(19_754)),
            (
                "%Y-%m-%dT%H:%M:%S%:z",
                berlin,
                Seconds,
                "2024-02-01T12:30:00+02:00",
                Some(1_706_783_400),
            ),
            ("%Y-%m-%dT%H:%M:%S%:z", None, Days, "2024-02-01T00:30:00+02:00", Some(19_754)),
            ("%s", None, Seconds, "1706783400", Some(1_706_783_400)),
            ("%s", berlin, Days, "1706783400", Some(19_754)),
            ("%Y-%m-%d", None, Days, "99999-01-01", None),
        ] {
            reads(format, zone, given_as, text, expect);
        }
        for text in ["1970-01-01 00:00:01.25", "1970-01-01 00:00:01.250000"] {
            let fraction = dates("%Y-%m-%d %H:%M:%S%.f", None, Seconds).read(text).ok();
            assert_eq!(fraction, Some(Value::Float(1.25)), "{text}");
        }
    }

    #[test]
    fn the_first_day_and_the_last_and_strange_forms() {
        use GivenAs::{Days, Seconds};
        let berlin = Some("Europe/Berlin");
        for (format, zone, given_as, text, expect) in [
            // In zones to both sides.
            ("%Y-%m-%d", None, Days, "0001-01-01", Some(-719_162)),
            ("%Y-%m-%d", None, Days, "0000-12-31", None),
            ("%F", None, Days, "0999-12-31", Some(-354_286)),
            ("%F", None, Days, "999-12-31", None),
            ("%d.%m.%Y", None, Days, "31.12.0999", Some(-354_286)),
            ("%d.%m.%Y", None, Days, "31.12.999", None),
            ("%Y-%m-%d", None, Seconds, "0001-01-01", Some(-62_135_596_800)),
            ("%Y-%m-%d", Some("Asia/Tokyo"), Seconds, "0001-01-01", Some(-62_135_630_339)),
            ("%Y-%m-%d", None, Days, "9999-12-31", Some(2_932_896)),
            ("%Y-%m-%d", None, Seconds, "9999-12-31", Some(253_402_214_400)),
            ("%Y-%m-%d", berlin, Seconds, "9999-12-31", Some(253_402_210_800)),
            ("%Y-%m-%d", Some("Australia/Sydney"), Seconds, "9999-12-31", Some(253_402_174_800)),
            ("%Y-%m-%d", Some("America/New_York"), Seconds, "9999-12-31", Some(253_402_232_400)),
            ("%Y-%m-%d %H:%M:%S", None, Seconds, "9999-12-31 23:59:59", Some(253_402_300_799)),
            ("%Y-%m-%d %H:%M%z", None, Seconds, "9999-12-31 23:59-2359", Some(253_402_387_080)),
            (
                "%Y-%m-%d %H:%M %Q",
                None,
                Seconds,
                "9999-12-31 00:00 Europe/Berlin",
                Some(253_402_210_800),
            ),
            // An offset is less than a day.
            ("%Y-%m-%d %H:%M%z", None, Seconds, "2024-02-01 12:30+2400", None),
            ("%Y-%m-%d %H:%M%:z", None, Days, "2024-02-01 12:30-25:00", None),
            ("%Y-%m-%d %H:%M%z", None, Seconds, "2024-02-01 12:30+23:59", Some(1_706_704_260)),
            ("%d.%m.%Y", None, Days, "01.02.24", None),
            ("%Y-%m-%d", None, Days, "190-11-14", None),
            ("%Y-%m-%d", None, Days, "+2024-02-09", None),
            ("%Y-%m-%d", None, Days, "2024-  2-9", None),
            ("%Y%m%d", None, Days, "2024 2 9", None),
            ("%d.%m.%Y %H:%M", None, Days, "01.02.202401:02", None),
            ("%d %B %Y", None, Days, "1 february 2024", Some(19_754)),
            ("%Y-%m-%dT%H:%M:%S%z", None, Seconds, "2024-02-01T12:30:00Z", Some(1_706_790_600)),
            (
                "%Y-%m-%dT%H:%M:%S%z",
                None,
                Seconds,
                "2024-02-01T12:30:00+01:00",
                Some(1_706_787_000),
            ),
            (
                "%Y-%m-%dT%H:%M:%S%:z",
                None,
                Seconds,
                "2024-02-01T12:30:00+0100",
                Some(1_706_787_000),
            ),
            ("%Y-%m-%dT%H:%M:%S%:z", None, Seconds, "2024-02-01T12:30:00Z", Some(1_706_790_600)),
            ("%Y-%m-%d %H:%M:%S", None, Seconds, "2024-02-01 12:30:60", None),
            ("%Y-%m-%d", None, Days, "２０２４-01-01", None),
            ("%Y-%m-%d", None, Days, "", None),
        ] {
            reads(format, zone, given_as, text, expect);
        }
    }

    /// A change of the clock leaves hours out and has others twice: pandas refuses both, and so do we. Days are not affected.
    #[test]
    fn the_hours_of_a_change_of_the_clock_are_no_moments() {
        for (zone, text, expect) in [
            ("Europe/Berlin", "2024-03-31 01:59", Some(1_711_846_740)),
            ("Europe/Berlin", "2024-03-31 02:00", None),
            ("Europe/Berlin", "2024-03-31 02:30", None),
            ("Europe/Berlin", "2024-03-31 03:00", Some(1_711_846_800)),
            ("Europe/Berlin", "2024-10-27 01:59", Some(1_729_987_140)),
            ("Europe/Berlin", "2024-10-27 02:00", None),
            ("Europe/Berlin", "2024-10-27 02:59", None),
            ("Europe/Berlin", "2024-10-27 03:00", Some(1_729_994_400)),
            // A day that was left out as a whole.
            ("Pacific/Apia", "2011-12-30 12:00", None),
        ] {
            let moments = dates("%Y-%m-%d %H:%M", Some(zone), GivenAs::Seconds);
            assert_eq!(moments.read(text).ok(), expect.map(Value::Int), "{text} in {zone}");
            let days = dates("%Y-%m-%d %H:%M", Some(zone), GivenAs::Days);
            assert!(days.read(text).is_ok(), "{text}");
            let named = dates("%Y-%m-%d %H:%M %Q", None, GivenAs::Seconds);
            let text = format!("{text} {zone}");
            assert_eq!(named.read(&text).ok(), expect.map(Value::Int), "{text}");
        }
        // An offset says which of the two it is.
        let offset = dates("%Y-%m-%d %H:%M%z", Some("Europe/Berlin"), GivenAs::Seconds);
        assert_eq!(offset.read("2024-10-27 02:30+0100").ok(), Some(Value::Int(1_729_992_600)));
        assert_eq!(offset.read("2024-10-27 02:30+0200").ok(), Some(Value::Int(1_729_989_000)));
    }

    #[test]
    fn a_year_of_two_digits_has_two() {
        for (format, text, is) in [
            ("%m/%d/%y", "02/01/24", true),
            ("%m/%d/%y", "2/1/04", true),
            ("%m/%d/%y", "2/1/4", false),
            ("%m/%d/%y", "02/01/0", false),
            ("%m/%d/%y", "02/01/00", true),
            ("%D", "2/1/4", false),
            ("%D", "2/1/04", true),
            ("%y%m%d", "040201", true),
            ("%y%m%d", "40201", false),
            ("%d%m%y", "010204", true),
            ("%d%m%y", "01024", false),
            ("%y-%m-%d", "4-02-01", false),
            ("100%% %y-%m-%d", "100% 4-02-01", false),
            ("100%% %y-%m-%d", "100% 04-02-01", true),
            ("%-y-%m-%d", "4-02-01", true),
        ] {
            let read = dates(format, None, GivenAs::Days).read(text).ok();
            assert_eq!(read.is_some(), is, "{text:?} by {format}");
        }
    }

    #[test]
    fn a_format_that_is_read_in_two_ways_is_refused() {
        for (format, expect) in [
            ("%Y-%m-%d %I:%M", Some("without %p")),
            ("%Y-%m-%d %l:%M", Some("without %p")),
            ("%Y-%m-%d %I:%M %p", None),
            ("%Y-%m-%d %H:%M", None),
            ("%Y-%m-%d %H:%M %Z", Some("%Z, a zone's short name")),
            ("%Y-%m-%d %%Z", None),
            ("%Y-%m-%d %x", Some("cannot be read")),
            ("%H:%M", Some("says no date")),
            ("%Y-%m", Some("says no date")),
        ] {
            let said = Dates::new(&[format.to_owned()], None, None).map(drop).err();
            let fits = match (&said, expect) {
                (Some(said), Some(part)) => said.contains(part),
                (None, None) => true,
                _ => false,
            };
            assert!(fits, "{format}: {said:?}");
        }
        let noon = dates("%Y-%m-%d %I:%M %p", None, GivenAs::Seconds);
        assert_eq!(noon.read("1970-01-01 12:30 AM").ok(), Some(Value::Int(1_800)));
        assert_eq!(noon.read("1970-01-01 12:30 PM").ok(), Some(Value::Int(45_000)));
        assert_eq!(noon.read("1970-01-01 13:30 PM").ok(), None);
    }

    #[test]
    fn the_first_format_that_fits_counts() {
        let formats = ["%d/%m/%Y", "%m/%d/%Y"].map(str::to_owned);
        let dates = Dates::new(&formats, None, Some(GivenAs::Days)).unwrap();
        assert_eq!(dates.read("01/02/2024").ok(), Some(Value::Int(19_754)));
        assert_eq!(dates.read("02/29/2024").ok(), Some(Value::Int(19_782)));
    }

    #[test]
    fn only_a_change_of_the_clock_is_said_to_be_one() {
        let formats = ["%Y-%m-%d %H:%M", "%d.%m.%Y"].map(str::to_owned);
        let dates = Dates::new(&formats, Some("Europe/Berlin"), None).unwrap();
        for (text, expect) in [
            ("2024-03-31 02:30", Unfit::Clock),
            ("2024-10-27 02:30", Unfit::Clock),
            ("2024-13-31 02:30", Unfit::Format),
            ("9999-12-32 02:30", Unfit::Format),
            ("0000-01-01 02:30", Unfit::Format),
            ("", Unfit::Format),
        ] {
            assert_eq!(dates.read(text), Err(expect), "{text}");
        }
    }
}

//! What a committed offset says beside its number: the metadata string that Kafka keeps with it.
//!
//! ```text
//!  tidemill/1 kW3pZ1bQTbm2dOOpqZJ8pA sentiment/3@9f2c01ab77de 1764000000000/4 1200 700-900
//!  format     topic's id             model that answered last  first start    seen skipped
//!                                                              / partitions
//! ```
//!
//! Every commit carries it forward, commits of control records too. With it a later start can tell its own topic from
//! another one of the same name, its own last version from another one, a new partition from a forgotten one, and a
//! first start from a lost group. A string that is empty or of another form says nothing: whoever wrote it (an operator
//! who moved the offset) is taken at the offset's word.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::str::FromStr;
use std::time::SystemTime;

use crate::record::{ModelId, Offset, TopicId, Version};

/// The first word: a note of another format is unknown.
const FORMAT: &str = "tidemill/1";

/// Hexadecimal digits of a model's digest that a note holds.
const DIGITS: usize = 12;

/// What is remembered beside a committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The id of the topic that the offset is of; `None` where the broker gives no ids.
    pub topic: Option<TopicId>,
    /// The version that answered last in this partition; `None` while none has.
    pub model: Option<ModelId>,
    /// The group's first start, in ms since 1970.
    pub first: i64,
    /// How many partitions the topic had then.
    pub partitions: i32,
    /// The committed offset when the topic's id was compared last: what was committed since may be of another topic.
    pub seen: Offset,
    /// Offsets that are passed over, or were: they were answered before the topic was known to be a new one. Kept for the
    /// topic's life, because `verify` finds no outcome of this topic there.
    pub skip: Option<Range<i64>>,
}

impl Note {
    /// The note of a partition in a group that starts now for the first time, with so many partitions in the topic.
    pub fn of_a_first_start(partitions: i32, next: Offset) -> Self {
        #[expect(clippy::disallowed_methods, reason = "a group's first start is wall time")]
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let first = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        Self { topic: None, model: None, first, partitions, seen: next, skip: None }
    }

    /// Whether `model` is the version that this note remembers: by name and number, a plain directory by its digest.
    pub fn is_of(&self, model: &ModelId) -> bool {
        self.model.as_ref().is_some_and(|noted| {
            let digest = noted.version != Version::default() || noted.digest == short(model);
            noted.name == model.name && noted.version == model.version && digest
        })
    }

    /// This note after `model` has answered.
    #[must_use]
    pub fn answered(mut self, model: &ModelId) -> Self {
        self.model = Some(ModelId { digest: short(model), ..model.clone() });
        self
    }

    /// Reads a metadata string; `None` where it is not one of ours.
    ///
    /// # Examples
    ///
    /// ```
    /// use tidemill::log::note::Note;
    ///
    /// let note = Note::read(b"tidemill/1 - sentiment/3@9f2c01ab77de 1764000000000/4 1200").unwrap();
    /// assert_eq!(note.model.unwrap().version.0, 3);
    /// assert!(Note::read(b"moved by hand").is_none());
    /// ```
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut words = text.split(' ');
        let mut word = || words.next().filter(|word| !word.is_empty());
        if word()? != FORMAT {
            return None;
        }
        let topic = word()?;
        let model = word()?;
        let (first, partitions) = word()?.split_once('/')?;
        let seen = number(word()?)?;
        let skip = match word() {
            Some(range) => {
                let (from, to) = range.split_once('-')?;
                Some(number(from)?..number(to)?)
            }
            None => None,
        };
        Some(Self {
            topic: (topic != "-").then(|| TopicId(topic.into())),
            model: if model == "-" { None } else { Some(self::model(model)?) },
            first: number(first)?,
            partitions: number(partitions)?,
            seen: Offset(seen),
            skip,
        })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FORMAT} ")?;
        match &self.topic {
            Some(topic) => write!(f, "{topic} ")?,
            None => f.write_str("- ")?,
        }
        match &self.model {
            Some(model) => write!(f, "{} ", short_name(model))?,
            None => f.write_str("- ")?,
        }
        write!(f, "{}/{} {}", self.first, self.partitions, self.seen)?;
        match &self.skip {
            Some(skip) => write!(f, " {}-{}", skip.start, skip.end),
            None => Ok(()),
        }
    }
}

/// `NAME/VERSION@DIGITS` in one word, with the first digits of the digest.
pub(crate) fn short_name(model: &ModelId) -> String {
    format!("{}@{}", versioned(&model.name, model.version), short(model))
}

/// `NAME/VERSION` in one word.
pub(crate) fn versioned(name: &str, version: Version) -> String {
    format!("{}/{version}", escape(name))
}

/// The first digits of a model's digest, without its `sha256:`.
fn short(model: &ModelId) -> std::sync::Arc<str> {
    let digits = model.digest.strip_prefix("sha256:").unwrap_or(&model.digest);
    digits.get(..DIGITS).unwrap_or(digits).into()
}

/// A number as [`Note`] prints it: not negative, no sign.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn model(text: &str) -> Option<ModelId> {
    let (name, rest) = text.split_once('/')?;
    let (version, digest) = rest.split_once('@')?;
    Some(ModelId {
        name: unescape(name)?.into(),
        version: Version(number(version)?),
        digest: digest.into(),
    })
}

/// A name in which nothing separates words: a plain directory may be called anything.
fn escape(name: &str) -> String {
    name.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02x}").unwrap_or_default(); // a String takes every write
        }
        text
    })
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(name: &str, version: u64, digest: &str) -> ModelId {
        ModelId { name: name.into(), version: Version(version), digest: digest.into() }
    }

    fn note() -> Note {
        Note { topic: None, model: None, first: 5, partitions: 2, seen: Offset(7), skip: None }
    }

    #[test]
    fn foreign_strings_say_nothing() {
        for foreign in [
            &b""[..],
            b"tidemill/1",
            b"tidemill/2 - - 5/2 7",
            b"tidemill/1 - - 5/2 -7",
            b"tidemill/1 - - 5/2 7 9",
            b"tidemill/1 - m/1 5/2 7",
            b"tidemill/1 - %z0/1@ab 5/2 7",
            b"tidemill/1  - - 5/2 7",
            b"\xff\xfe",
        ] {
            assert_eq!(Note::read(foreign), None, "{}", String::from_utf8_lossy(foreign));
        }
    }

    #[test]
    fn a_version_is_known_by_its_number_and_a_directory_by_its_digest() {
        let three = note().answered(&id("m", 3, "sha256:0123456789abcdef"));
        assert!(three.is_of(&id("m", 3, "sha256:ffff")), "a version never changes");
        assert!(!three.is_of(&id("m", 4, "sha256:0123456789abcdef")));
        assert!(!three.is_of(&id("n", 3, "sha256:0123456789abcdef")));
        let plain = note().answered(&id("dir", 0, "sha256:0123456789abcdef"));
        assert!(plain.is_of(&id("dir", 0, "sha256:0123456789abffff")));
        assert!(!plain.is_of(&id("dir", 0, "sha256:ffff456789abcdef")));
        assert!(!note().is_of(&id("m", 3, "")));
    }

    proptest! {
        /// What is written is read back, and is one line of bounded length.
        #[test]
        fn notes_round_trip(
            topic in prop::option::of("[A-Za-z0-9_-]{22}"),
            name in ".{0,40}",
            version in any::<u64>(),
            digest in "[0-9a-f]{64}",
            answered in any::<bool>(),
            (first, partitions, seen) in (0..i64::MAX, 0..i32::MAX, 0..i64::MAX),
            skip in prop::option::of((0..i64::MAX, 0..i64::MAX)),
        ) {
            let note = Note {
                topic: topic.map(|topic| TopicId(topic.into())),
                model: None,
                first,
                partitions,
                seen: Offset(seen),
                skip: skip.map(|(from, to)| from..to),
            };
            let note = if answered { note.answered(&id(&name, version, &digest)) } else { note };
            let text = note.to_string();
            prop_assert!(!text.contains('\n') && text.is_ascii());
            prop_assert_eq!(Note::read(text.as_bytes()), Some(note));
        }

        /// Whatever stands there is read or not, and never ends the process.
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            Note::read(&bytes);
        }
    }
}

//! YAML as a tree, in which the values of librdkafka's properties are spelt as in the file.
//!
//! YAML takes `012345`, `1e5`, `0x1F` and `1_000` for numbers, and a number printed again is another text. A password
//! of digits must not change, so the file is read twice: once for its shape, and once more under the free sections,
//! where each scalar is taken as the text that it is.
//!
//! No message has anything of the file's text in it but the names of keys: beside a mistake there may be a password.

use std::fmt;

use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::options::NonFiniteFloatPolicy;
use serde_saphyr::{Error, Options};

use super::tree;

/// The tree of `text`; null where it is empty.
///
/// Under [`tree::FREE`] every scalar that is not null is a string, spelt as in the text (`!!binary` is decoded).
///
/// # Errors
///
/// A text that is not YAML: the place and what is wrong there, without anything of the text but a key's name.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut tree = plain(text).map_err(|error| explain(&error))?;
    if tree.is_object() {
        let again = Verbatim { value: &mut tree, path: String::new() };
        serde_saphyr::with_deserializer_from_str_with_options(text, options(), |yaml| {
            again.deserialize(yaml)
        })
        .map_err(|error| explain(&error))?;
    }
    Ok(tree)
}

/// The value of `text`, read as one that stands in the file would be; `None` where it is not YAML.
pub fn value(text: &str) -> Option<Value> {
    plain(text).ok()
}

fn plain(text: &str) -> Result<Value, Error> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str_with_options(text, options())
}

fn options() -> Options {
    serde_saphyr::options! {
        // `no` and `on` are words: a topic may be called so.
        strict_booleans: true,
        // A snippet shows the lines around a mistake, and with them passwords.
        with_snippet: false,
        // `.inf` may be a password, and JSON's numbers have none.
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    }
}

/// Reads a node again and puts the texts of its scalars into `value`, which has its shape.
struct Verbatim<'a> {
    value: &'a mut Value,
    path: String,
}

impl<'de> DeserializeSeed<'de> for Verbatim<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, yaml: D) -> Result<(), D::Error> {
        let under =
            |above: &str| self.path.strip_prefix(above).is_some_and(|rest| rest.starts_with('.'));
        let inside = tree::FREE.iter().any(|free| under(free));
        match self.value {
            Value::Object(entries) => yaml.deserialize_map(Entries { entries, path: &self.path }),
            Value::Bool(_) | Value::Number(_) | Value::String(_) if inside => {
                *self.value = Value::String(String::deserialize(yaml)?);
                Ok(())
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => IgnoredAny::deserialize(yaml).map(drop),
        }
    }
}

struct Entries<'a> {
    entries: &'a mut Map<String, Value>,
    path: &'a str,
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let path = tree::join(self.path, &key);
            match self.entries.get_mut(&key) {
                Some(value) => map.next_value_seed(Verbatim { value, path })?,
                None => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(())
    }
}

/// The place and the kind of a mistake. The parser's own sentences are fixed texts; what serde says may quote a value.
fn explain(error: &Error) -> String {
    let place = error.location().map_or_else(String::new, |place| {
        format!(" at line {}, column {}", place.line(), place.column())
    });
    #[expect(clippy::wildcard_enum_match_arm, reason = "the library has some seventy")]
    let what = match error {
        Error::AliasError { error, .. } => return explain(error),
        Error::ExternalMessage { msg, .. } => msg.clone(),
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().map(tree::shown).unwrap_or_default();
            format!("the key `{key}` stands twice in one section")
        }
        Error::UnknownAnchor { .. } => {
            "a reference to an anchor that is not there (a value that begins with `*` needs quotes)"
                .to_owned()
        }
        Error::Eof { .. } => "the file ends too early".to_owned(),
        Error::MultipleDocuments { .. } => "a second document (`---`) begins".to_owned(),
        Error::TaggedScalarCannotDeserializeIntoString { .. } => {
            "a tag such as `!!int` stands before a text; leave the tag out".to_owned()
        }
        _ => "a value has a form that the file cannot have there".to_owned(),
    };
    format!("is not valid YAML{place}: {what}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `kafka.common` makes of a value that stands in the file as `written`.
    fn property(written: &str) -> Value {
        let text = format!("kafka:\n  common:\n    sasl.password: {written}\n    b: c\n");
        let tree = parse(&text).unwrap_or_else(|error| panic!("{written}: {error}"));
        assert_eq!(tree["kafka"]["common"]["b"], "c", "{written}");
        tree["kafka"]["common"]["sasl.password"].clone()
    }

    #[test]
    fn a_scalar_is_the_text_that_it_is() {
        let as_written = [
            "012345",
            "1e5",
            "0x1F",
            "1.10",
            "1_000",
            "+49",
            "yes",
            "no",
            "on",
            "off",
            "y",
            "true",
            "True",
            "FALSE",
            "2024-01-01",
            "2024-01-01T00:00:00Z",
            "9007199254740993",
            "123456789012345678901234567890",
            ".5",
            "5.",
            "1_0.0",
            "0o17",
            "0b11",
            "-0",
            "1.0000",
            "1E400",
            ".inf",
            "-.INF",
            ".nan",
            "12:30:45",
            "=",
            "<<",
            "1,000",
            "C:\\n",
            "a#b",
            "pa${ss",
            "a%40",
            "ünï",
            "Null0",
            "~x",
            "-x",
            "a b  c",
        ];
        for written in as_written {
            assert_eq!(property(written), written, "{written}");
        }
    }

    #[test]
    fn what_yaml_says_of_quotes_blocks_comments_and_anchors_holds() {
        for (written, text) in [
            ("'012345'", "012345"),
            ("\"1e5\"", "1e5"),
            ("'it''s'", "it's"),
            ("\"a\\tb\\u0041\"", "a\tbA"),
            ("0123 # a comment", "0123"),
            ("&it 0x1F", "0x1F"),
            ("|\n      01\n      02\n", "01\n02\n"),
            ("|-\n      01\n      02\n", "01\n02"),
            (">-\n      01\n      02\n", "01 02"),
            ("''", ""),
            ("'~'", "~"),
            ("\"null\"", "null"),
            ("!!str 012", "012"),
            ("! 012", "012"),
            ("01\n      02", "01 02"),
        ] {
            assert_eq!(property(written), text, "{written}");
        }
        for written in ["~", "null", "Null", "", "# nothing"] {
            assert_eq!(property(written), Value::Null, "{written}");
        }
        let text = "
x: &pin 0123
base: &base { a: 1.10, b: 2 }
kafka:
  group: g
  common:
    pin: *pin
    nested: { deep: { er: 1_0 }, list: [01, 02] }
    <<: *base
    b: 07
batch: { max_records: 0x10 }
";
        let tree = parse(text).unwrap();
        let common = &tree["kafka"]["common"];
        assert_eq!(common["pin"], "0123");
        assert_eq!(common["nested"]["deep"]["er"], "1_0");
        assert_eq!((&common["a"], &common["b"]), (&Value::from("1.10"), &Value::from("07")));
        assert_eq!(
            tree["batch"]["max_records"], 16,
            "outside of the free sections YAML's types hold"
        );
    }

    /// A mistake around a password: the message has a place, and not the password.
    fn refused(text: &str) -> String {
        let said = parse(text).expect_err(text);
        assert!(!said.contains("hunter"), "{text}\n{said}");
        assert!(said.contains("is not valid YAML"), "{said}");
        said
    }

    #[test]
    fn no_mistake_shows_what_stands_beside_it() {
        for (broken, part) in [
            ("    sasl.password: \"hunter2\n", "line"),
            ("    sasl.password: 'hunter2' hunter3\n", "line 3"),
            ("    sasl.password: hunter2: x\n", "line 3"),
            ("    sasl.password: *hunter2\n", "anchor"),
            ("    sasl.password: @hunter2\n", "line 3"),
            ("    sasl.password: `hunter2`\n", "line 3"),
            ("    sasl.password: %hunter2\n", "line 3"),
            ("    sasl.password: {hunter2: [}\n", "line"),
            ("    sasl.password: !hunter!2 x\n", "line 3"),
            ("    sasl.password: !!int hunter2\n", "line 3"),
            ("    sasl.password: hunter2\n   x: y\n", "line 4"),
            (
                "    sasl.password: hunter2\n    sasl.password: hunter3\n",
                "`sasl.password` stands twice",
            ),
            (
                "    sasl.password:hunter2: x\n    sasl.password:hunter2: x\n",
                "`sasl.password…` stands twice",
            ),
            ("    sasl.password: |hunter2\n", "line 3"),
            ("    sasl.password: \"\\hunter2\"\n", "line 3"),
            ("    sasl.password: hunter2\n---\na: b\n", "second document"),
            ("    <<: hunter2\n", "line 3"),
            ("\tsasl.password: hunter2\n", "line 3"),
        ] {
            let said = refused(&format!("kafka:\n  common:\n{broken}"));
            assert!(said.contains(part), "{broken}: {said}");
        }
    }

    proptest! {
        /// Whatever is torn out of a file around a password, no message has it.
        #[test]
        fn no_torn_file_shows_its_password(
            cut in 0_usize..200,
            junk in "[-?:,\\[\\]{}#&*!|>'\"%@` \n\t\\\\a0=~<]{0,6}",
            quote in prop::sample::select(vec!["", "'", "\"", "*", "&", "!", "|", "{", "[", "!!int ", "? ", "- "]),
        ) {
            let text = format!(
                "kafka:\n  group: g\n  common:\n    sasl.username: &u alice\n    sasl.password: {quote}hunter2{quote}\n    \
                 ssl.key.password: *u\ninput: {{ topics: [a] }}\n"
            );
            let place = text.floor_char_boundary(cut.min(text.len()));
            let (before, after) = text.split_at(place);
            if let Err(said) = parse(&format!("{before}{junk}{after}")) {
                prop_assert!(!said.contains("hunter"), "{said}");
            }
        }
    }
}

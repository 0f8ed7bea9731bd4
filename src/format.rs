//! Record values in, prediction values out: the seam of the formats.
//!
//! ```text
//!  record ─► Codec::read ─┬─► Read: the wanted fields' values, borrowed from the record
//!                         ├─► nothing: there is no record any more
//!                         ├─► Fault: a dead letter
//!                         └─► Away: the schema registry does not answer; nobody's fault
//!  prediction ─► Writer::write ─► bytes
//! ```
//!
//! A format is a file beside and an arm in [`Codec::read`] and in what goes along (`along.rs`). JSON goes both ways: an object in, an
//! object out, numbers printed so that they read back as the same f32 or f64. Avro too, with a schema registry or by one
//! schema. Protobuf comes in the same way, `MessagePack` and CBOR by themselves.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Config, Include, Input, InputFormat, KeyFormat, Unwrap};
use crate::failure::{Exit, Failure};
use crate::field::Value;
use crate::record::{Fault, FaultClass, Record};
use crate::schema::{Auth, Schemas, Settings};

mod along;
mod beside;
mod cache;
mod content;
mod content_type;
mod datum;
mod doubt;
mod envelope;
mod event;
mod json;
mod packed;
mod protobuf;
mod wanted;
mod write;
mod writer;

pub use beside::Fields;
use datum::Data;
pub use doubt::Doubt;
use envelope::Inside;
use event::Event;
pub(crate) use json::explain;
use packed::{Cbor, MessagePack};
use protobuf::Messages;
pub use wanted::Wanted;
pub use write::prediction_alone;
pub use writer::Writer;

/// What a record has of the fields that are wanted.
#[derive(Debug)]
pub struct Read<'a, V = Value<'a>> {
    /// In the order in which they are wanted. Of a list or an object only its kind: no model takes one.
    pub values: Vec<Option<V>>,
    /// The name of the record's first field that is not wanted, nor anything in it.
    pub unknown: Option<Cow<'a, str>>,
}

/// Why there are no fields.
#[derive(Debug, PartialEq, Eq)]
pub enum Unread {
    /// The record is at fault.
    Fault(Fault),
    /// Nobody can say: the schema registry does not answer. Ask again after `retry`.
    Away {
        /// Why, with the registry's place.
        reason: String,
        /// How long to wait before.
        retry: Duration,
    },
}

impl From<Fault> for Unread {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

fn undecodable(message: String) -> Fault {
    Fault::new(FaultClass::Undecodable, message)
}

/// A value and what it is.
type Opened<'r> = (InputFormat, Cow<'r, [u8]>);

/// How the values of the input topics are read.
#[derive(Debug)]
pub struct Codec {
    input: Input,
    /// The format of each topic, by its number.
    formats: Vec<InputFormat>,
    data: Data,
    /// How Avro keys are read, where they are.
    keys: Option<Data>,
    messages: Messages,
    /// The fields that go along with predictions, where some are named.
    along: Vec<String>,
}

impl Codec {
    /// As configured. Reads the files that are named there; asks nobody.
    ///
    /// # Errors
    ///
    /// [`Exit::Config`]: a schema that is not valid, a registry's address that cannot be used.
    pub fn new(config: &Config) -> Result<Self, Failure> {
        let schemas = schemas(config)?;
        let data = Data::new(config, schemas.clone()).map_err(|why| refused(&why))?;
        let keys = (config.input.key.format == KeyFormat::Avro)
            .then(|| Data::of_keys(config, schemas.clone()))
            .transpose();
        let keys = keys.map_err(|why| refused(&why))?;
        let messages = Messages::new(config, schemas).map_err(|why| refused(&why))?;
        let input = config.input.clone();
        let formats = input
            .topics
            .iter()
            .map(|topic| input.formats.get(topic).copied().unwrap_or(input.format));
        let formats: Vec<InputFormat> = formats.collect();
        if data.schemas().is_none() {
            fits(&input, &formats).map_err(|why| refused(&why))?;
        }
        let along = match &config.output.include {
            Include::Fields(names) => names.clone(),
            Include::None | Include::Key | Include::All => Vec::new(),
        };
        Ok(Self { input, formats, data, keys, messages, along })
    }

    /// What it reads by, as configured.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// The schema registry, where there is one.
    pub fn schemas(&self) -> Option<&Arc<Schemas>> {
        self.data.schemas()
    }

    /// The value of a record as its producer had it, and what it is; `None` where there is none.
    fn opened<'r>(&self, record: &'r Record) -> Result<Option<Opened<'r>>, Fault> {
        let Some(value) = content::of(record)? else { return Ok(None) };
        if self.input.unwrap == Unwrap::CloudEvents {
            let data = match &value {
                Cow::Borrowed(value) => self.data_of(record, value)?,
                Cow::Owned(value) => self
                    .data_of(record, value)?
                    .map(|(format, data)| (format, data.into_owned().into())),
            };
            if data.is_some() {
                return Ok(data);
            }
        }
        Ok(Some((self.format_of(record)?, value)))
    }

    /// The data of a value that is an event with its data in it.
    fn data_of<'r>(&self, record: &Record, value: &'r [u8]) -> Result<Option<Opened<'r>>, Fault> {
        let Event::Structured { data, media_type } = event::open(record, value)? else {
            return Ok(None);
        };
        let format = match (&self.input.format_header, media_type) {
            (None, _) => self.of_topic(record),
            // What CloudEvents takes it for.
            (Some(_), None) => InputFormat::Json,
            (Some(_), Some(media_type)) => {
                content_type::of_media_type(&media_type).ok_or_else(|| {
                    let message = "is a CloudEvent whose datacontenttype is not read: media types of JSON, Avro, \
                                   Protobuf, MessagePack and CBOR, text/*, image/* and application/octet-stream are";
                    undecodable(message.to_owned())
                })?
            }
        };
        Ok(Some((format, data.of(format)?)))
    }

    /// By the record's own header where one is named and it has it, else by its topic.
    fn format_of(&self, record: &Record) -> Result<InputFormat, Fault> {
        let said = match &self.input.format_header {
            Some(header) => content_type::of(record, header)?,
            None => None,
        };
        Ok(said.unwrap_or_else(|| self.of_topic(record)))
    }

    fn of_topic(&self, record: &Record) -> InputFormat {
        let of_topic = self.formats.get(usize::from(record.partition.topic)).copied();
        of_topic.unwrap_or(self.input.format)
    }

    /// Gives the fields `wanted` of a record to `take`; `None` where its value says that there is no record any more.
    ///
    /// # Errors
    ///
    /// [`FaultClass::Undecodable`], with the place of the first thing wrong, never with the value itself; or that the
    /// registry does not answer.
    pub fn read<R>(
        &self,
        wanted: &Wanted,
        record: &Record,
        take: impl FnOnce(Read<'_>) -> R,
    ) -> Result<Option<R>, Unread> {
        let Some((format, value)) = self.opened(record)? else { return Ok(None) };
        let value = &*value;
        let read = match format {
            InputFormat::Avro => {
                return self.data.read(self.input.unwrap, wanted, record, value, take);
            }
            InputFormat::Protobuf => {
                return self.messages.read(self.input.unwrap, wanted, record, value, take);
            }
            InputFormat::Bytes => self.alone(wanted, Value::Bytes(Cow::Borrowed(value)))?,
            InputFormat::Text => self.alone(wanted, Value::Text(Cow::Borrowed(utf8(value)?)))?,
            InputFormat::MessagePack => {
                packed::read::<MessagePack<'_>>(value, wanted).map_err(undecodable)?
            }
            InputFormat::Cbor => packed::read::<Cbor<'_>>(value, wanted).map_err(undecodable)?,
            InputFormat::Json => {
                let text = utf8(self.unframed(value))?;
                match envelope::open(text, self.input.unwrap).map_err(undecodable)? {
                    Inside::Deleted => return Ok(None),
                    Inside::Record(text) => json::read(text, wanted).map_err(undecodable)?,
                }
            }
        };
        Ok(Some(take(read)))
    }

    /// Sees that a record can be read without asking anybody.
    ///
    /// # Errors
    ///
    /// [`Unread::Away`]: the schema registry does not say what the record is.
    pub fn settle(&self, record: &Record) -> Result<(), Unread> {
        if let (Some(keys), Some(key)) = (&self.keys, &record.key) {
            keys.settle(record, key)?;
        }
        match self.opened(record) {
            Ok(Some((InputFormat::Avro, value))) => self.data.settle(record, &value),
            Ok(Some((InputFormat::Protobuf, value))) => self.messages.settle(record, &value),
            _ => Ok(()),
        }
    }

    /// JSON without the frame that serialisers of a schema registry write before it.
    fn unframed<'a>(&self, value: &'a [u8]) -> &'a [u8] {
        match value {
            // Whatever its 8 bytes mean: of JSON no schema is wanted.
            [0, 0, 0, 0, 0, _, _, _, _, json @ ..] if self.data.schemas().is_some() => json,
            [0, _, _, _, _, json @ ..] if self.data.schemas().is_some() => json,
            _ => value,
        }
    }

    /// A record that is one value: it has the field `input.field`. Whoever reads others of it would find none of them.
    fn alone<'a>(&self, wanted: &Wanted, value: Value<'a>) -> Result<Read<'a>, Fault> {
        let mut values = vec![None; wanted.len()];
        let field = self.input.field.as_str();
        let place = wanted.paths().iter().position(|path| *path == [field]);
        match place {
            Some(place) => values[place] = Some(value),
            None if wanted.is_empty() => (),
            None => {
                return Err(undecodable(format!(
                    "is {} as a whole, the field {field:?} (input.field), which the model does not read",
                    value.kind()
                )));
            }
        }
        Ok(Read { values, unknown: None })
    }
}

fn utf8(value: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(value).map_err(|error| {
        let utf16 = value.starts_with(b"\xff\xfe") || value.starts_with(b"\xfe\xff");
        let meant = if utf16 { ": its byte order mark says UTF-16; write UTF-8" } else { "" };
        undecodable(format!("is not valid UTF-8 from byte {} on{meant}", error.valid_up_to()))
    })
}

fn refused(message: &str) -> Failure {
    Failure { message: message.to_owned(), exit: Exit::Config }
}

/// Whether `input.schema` is of the format of all topics that it alone speaks for.
fn fits(input: &Input, formats: &[InputFormat]) -> Result<(), String> {
    let Some(path) = &input.schema else { return Ok(()) };
    let (wrong, format, fix) = if protobuf::is_named(path) {
        (InputFormat::Avro, "avro", "a file with an Avro schema")
    } else {
        (InputFormat::Protobuf, "protobuf", "a .proto file, or a .desc, .binpb, .pb or .protoset")
    };
    if formats.contains(&wrong) {
        let path = path.display();
        return Err(format!(
            "input.schema {path} says by which schema values are written, and not in {format}, as input.format says: name \
             {fix}, or set schema_registry.urls"
        ));
    }
    Ok(())
}

/// The schema registry of a configuration, where it has one.
fn schemas(config: &Config) -> Result<Option<Arc<Schemas>>, Failure> {
    let registry = &config.schema_registry;
    if registry.urls.is_empty() {
        return Ok(None);
    }
    let auth = match (&registry.token, &registry.username) {
        (Some(token), _) => Auth::Bearer(token.clone()),
        (None, Some(user)) => Auth::Basic {
            user: user.clone(),
            password: registry.password.clone().unwrap_or_default(),
        },
        (None, None) => Auth::None,
    };
    let settings = Settings {
        urls: registry.urls.clone(),
        auth,
        ca: registry.ca.clone(),
        timeout: registry.timeout.0,
        kept: config.state.dir.as_ref().map(|dir| dir.join("schemas.jsonl")),
    };
    Schemas::new(&settings)
        .map(|schemas| Some(Arc::new(schemas)))
        .map_err(|message| refused(&message))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::answer::{Number, Prediction};
    use crate::config::Output;

    fn record(value: &[u8]) -> Record {
        Record {
            key: Some(b"k\xff".to_vec()),
            ..Record::of_value(
                crate::record::Partition { topic: 0, number: 0 },
                crate::record::Offset(0),
                Some(value.to_vec()),
            )
        }
    }

    fn codec(input: &Input) -> Codec {
        let topics = vec!["t".to_owned()];
        let input = Input { topics, ..input.clone() };
        Codec::new(&Config { input, ..Config::default() }).unwrap()
    }

    fn reads(input: &Input, name: &str, value: &[u8], check: impl FnOnce(Read<'_>)) {
        let wanted = Wanted::new(&[name.to_owned()], &input.fields);
        codec(input).read(&wanted, &record(value), check).unwrap().unwrap();
    }

    fn fault(input: &Input, name: &str, value: &[u8]) -> Fault {
        let wanted = Wanted::new(&[name.to_owned()], &input.fields);
        match codec(input).read(&wanted, &record(value), |read| panic!("{read:?}")) {
            Err(Unread::Fault(fault)) => fault,
            other => panic!("{other:?}"),
        }
    }

    fn written(prediction: &Prediction, output: &Output, input: &Input, value: &[u8]) -> String {
        let config = Config { output: output.clone(), ..Config::default() };
        let writer = Writer::new(&config, Arc::new(codec(input)));
        String::from_utf8(writer.write(prediction, &record(value)).unwrap()).unwrap()
    }

    #[test]
    fn what_is_no_object_is_undecodable() {
        let deep = "[".repeat(10_000);
        for (value, expect) in [
            (&b"\xff\xfe"[..], "is not valid UTF-8 from byte 0 on"),
            (b"{\"a\":\"\xc3\x28\"}", "is not valid UTF-8 from byte 6 on"),
            (b"", "is empty, which is no JSON"),
            (b" \n", "is empty, which is no JSON"),
            (b"{\"a\":1,}", "a comma stands before the bracket at line 1 column 8"),
            (b"{a:1}", "a name at line 1 column 2 has no double quotes"),
            (b"{\"a\":1", "is not valid JSON: EOF"),
            (b"{\"a\":1}}", "is not valid JSON: trailing"),
            (b"[1]", "a JSON array where"),
            (b"7", "a JSON number where"),
            (b"null", "a JSON null where"),
            (b"{\"b\":2,\n\"a\":NaN}", "NaN at line 2 column 5 is no number of JSON: write null"),
            (b"{\"a\":[1,-Infinity]}", "-Infinity at line 1 column 10 is no number"),
            (b"{\"c\":nan}", "nan at line 1 column 7 is no number"),
            (b"{\"a\":None}", "None at line 1 column 6 is Python's"),
            (b"{\"a\":True}", "True at line 1 column 6 is Python's"),
            (b"{'a':1}", "' at line 1 column 2 cannot stand around"),
            (b"{\"a\":secret}", "is not valid JSON: expected value at line 1"),
            (b"{\"a\":1e400}", "has a number at line 1 column 10 that no 64-bit float can hold"),
            (b"\xef\xbb\xbf{}", "begins with a byte order mark (U+FEFF)"),
            (b"\xff\xfe{\0}\0", "says UTF-16; write UTF-8"),
            (b"\0\0\0\0\x01{}", "begins with a zero byte, as Confluent's"),
            (b"\0\0\0\0\0\0\0\0{}", "is not valid JSON: expected value"),
            (deep.as_bytes(), "is not valid JSON: EOF"),
        ] {
            let fault = fault(&Input::default(), "a", value);
            assert_eq!(fault.class, FaultClass::Undecodable);
            assert!(fault.message.contains(expect), "{} / {expect}", fault.message);
        }
    }

    #[test]
    fn text_and_bytes_are_the_field_they_are_given() {
        for (format, value, expect) in [
            (InputFormat::Text, &b"a \"b\""[..], Value::Text("a \"b\"".into())),
            (InputFormat::Bytes, b"\xff\xd8\x00", Value::Bytes(b"\xff\xd8\x00"[..].into())),
        ] {
            let settings = Input { format, field: "body".to_owned(), ..Input::default() };
            reads(&settings, "body", value, |read| {
                assert_eq!((read.values, read.unknown), (vec![Some(expect)], None));
            });
            let said = fault(&settings, "text", value).message;
            assert!(said.contains("the field \"body\" (input.field), which the model"), "{said}");
        }
    }

    #[test]
    fn deep_and_wide_values_that_nobody_wants_are_passed_over() {
        let value = format!("{{\"deep\":{}{},\"a\":1}}", "[".repeat(10_000), "]".repeat(10_000));
        reads(&Input::default(), "a", value.as_bytes(), |read| {
            assert_eq!(read.values, [Some(Value::Int(1))]);
        });
    }

    #[track_caller]
    fn encodes(prediction: &Prediction, include: &Include, expect: &str) {
        let output = Output { include: include.clone(), ..Output::default() };
        encodes_as(prediction, &output, expect);
    }

    #[track_caller]
    fn encodes_as(prediction: &Prediction, output: &Output, expect: &str) {
        let value = br#" {"b": 1.50 ,"a":"x y", "c":[ 1 ]} "#;
        assert_eq!(written(prediction, output, &Input::default(), value), expect);
    }

    #[test]
    fn what_goes_along_is_of_the_record_in_its_envelope() {
        let pointer = crate::config::Pointer::try_from("/b/c".to_owned()).unwrap();
        let input = Input {
            unwrap: Unwrap::Debezium,
            fields: BTreeMap::from([("deep".to_owned(), pointer)]),
            ..Input::default()
        };
        let value = br#"{"op":"u","after":{"a":1, "b":{"c":1.50}}}"#;
        for (include, expect) in [
            (Include::All, r#"{"value":0.5,"input":{"a":1,"b":{"c":1.50}}}"#),
            (
                Include::Fields(vec!["deep".to_owned(), "a".to_owned()]),
                r#"{"value":0.5,"input":{"deep":1.50,"a":1}}"#,
            ),
        ] {
            let output = Output { include, ..Output::default() };
            let prediction = Prediction::Value(0.5_f32.into());
            assert_eq!(written(&prediction, &output, &input, value), expect);
        }
    }

    #[test]
    fn the_best_scores_come_first_where_a_number_is_asked() {
        let labels: Arc<[String]> = ["a", "b", "c", "d"].map(str::to_owned).into();
        let label = Prediction::label(&[0.125_f32, 0.5, 0.25, 0.125], &labels);
        for (top_k, scores) in [
            (None, r#""a":0.125,"b":0.5,"c":0.25,"d":0.125"#),
            (Some(1), r#""b":0.5"#),
            (Some(3), r#""b":0.5,"c":0.25,"a":0.125"#),
            (Some(9), r#""b":0.5,"c":0.25,"a":0.125,"d":0.125"#),
        ] {
            let output = Output { top_k, ..Output::default() };
            let expect = format!(r#"{{"label":"b","score":0.5,"scores":{{{scores}}}}}"#);
            encodes_as(&label, &output, &expect);
        }
    }

    #[test]
    fn predictions_are_objects() {
        let labels: Arc<[String]> = Arc::from(["no".to_owned(), "y\"es".to_owned()]);
        let label = Prediction::label(&[0.25_f32, 0.75], &labels);
        let scores = r#"{"label":"y\"es","score":0.75,"scores":{"no":0.25,"y\"es":0.75}}"#;
        encodes(&label, &Include::None, scores);
        let embedding = Prediction::Embedding(vec![0.1, -1.0e-8, 3.0]);
        encodes(&embedding, &Include::None, r#"{"embedding":[0.1,-1e-8,3.0]}"#);
        let value = Prediction::Value(0.5_f32.into());
        encodes(&value, &Include::Key, "{\"value\":0.5,\"key_base64\":\"a/8=\"}");
        let all = r#"{"value":0.5,"input":{"b":1.50,"a":"x y","c":[1]}}"#;
        encodes(&value, &Include::All, all);
        let names = ["c", "absent", "a"].map(str::to_owned).to_vec();
        encodes(&value, &Include::Fields(names), r#"{"value":0.5,"input":{"c":[1],"a":"x y"}}"#);
        let none = vec!["absent".to_owned()];
        encodes(&value, &Include::Fields(none), r#"{"value":0.5,"input":{}}"#);
        encodes(&Prediction::Value(f32::NAN.into()), &Include::None, r#"{"value":null}"#);
        for (value, expect) in [
            (Number::Single(0.1), "0.1"),
            (Number::Double(0.1), "0.1"),
            (Number::Double(0.1 + 0.2), "0.30000000000000004"),
            (Number::Double(1_719_108_850_619.000_2), "1719108850619.0002"),
            (Number::Double(-0.0), "-0.0"),
            (Number::Double(5e-324), "5e-324"),
        ] {
            encodes(&Prediction::Value(value), &Include::None, &format!("{{\"value\":{expect}}}"));
        }
    }
}

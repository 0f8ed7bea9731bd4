//! Avro values: which schema each was written by, and its fields by a plan that is made once for a schema.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use super::cache::{Cache, Made};
use super::wanted::Wanted;
use super::{Read, Unread, undecodable};
use crate::avro::{self, AvroSchema, Plan};
use crate::config::{Config, Unwrap};
use crate::field::Value;
use crate::file::{self, Links};
use crate::record::{Fault, FaultClass, Record};
use crate::schema::frame::{self, Of};
use crate::schema::{Answer, Ids, Language, Reference, Registered, Schemas};

/// Most bytes of a schema's file.
const MAX_SCHEMA: u64 = 1 << 20;

/// Plans by what names the writer's schema; `None` where there is one schema for all.
pub(super) type Plans = Cache<Option<Reference>, Plan>;

/// Keys of the configuration, for messages.
#[derive(Debug)]
struct SaidBy {
    format: &'static str,
    schema: &'static str,
}

const OF_VALUES: SaidBy = SaidBy { format: "input.format", schema: "input.schema" };
const OF_KEYS: SaidBy = SaidBy { format: "input.key.format", schema: "input.key.schema" };

/// Where the schemas of values come from.
#[derive(Debug)]
pub(super) struct Data {
    schemas: Option<Arc<Schemas>>,
    ids: Option<Ids>,
    /// `input.schema`.
    schema: Option<AvroSchema>,
    /// Which part of a record is read.
    part: Of,
    /// The keys of the configuration that say the format and the schema.
    said_by: SaidBy,
    /// Plans that write a whole value as JSON.
    whole: Plans,
}

impl Data {
    /// Reads `input.schema`, where one is named.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn new(config: &Config, schemas: Option<Arc<Schemas>>) -> Result<Self, String> {
        let (input, ids) = (&config.input, config.schema_registry.ids);
        let path = input.schema.as_deref().filter(|path| !super::protobuf::is_named(path));
        let (part, said_by) = (Of::Value, OF_VALUES);
        let schema = path.map(|path| schema_of(path, said_by.schema)).transpose()?;
        Ok(Self { schemas, ids, schema, part, said_by, whole: Plans::default() })
    }

    /// The same of keys: `input.key.schema`.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn of_keys(config: &Config, schemas: Option<Arc<Schemas>>) -> Result<Self, String> {
        let (input, ids) = (&config.input, config.schema_registry.ids);
        let (part, said_by) = (Of::Key, OF_KEYS);
        let path = input.key.schema.as_deref();
        let schema = path.map(|path| schema_of(path, said_by.schema)).transpose()?;
        Ok(Self { schemas, ids, schema, part, said_by, whole: Plans::default() })
    }

    pub(super) fn schemas(&self) -> Option<&Arc<Schemas>> {
        self.schemas.as_ref()
    }

    /// Whether `input.schema` has a field at a path, or is not of Avro.
    pub(super) fn has(&self, path: &[String]) -> bool {
        self.schema.as_ref().is_none_or(|schema| avro::has(schema, path))
    }

    /// What names the schema of a record's value, and the datum.
    fn split<'a>(
        &self,
        record: &Record,
        value: &'a [u8],
    ) -> Result<(Option<Reference>, &'a [u8]), Unread> {
        if self.schemas.is_none() {
            return Ok((None, value));
        }
        let said = frame::said(&record.headers, self.part, self.ids).map_err(undecodable)?;
        let (reference, datum) = frame::split(value, said).map_err(undecodable)?;
        Ok((Some(reference), datum))
    }

    /// A plan for values of the schema `of`.
    fn plan(
        &self,
        plans: &Plans,
        of: Option<Reference>,
        paths: impl FnOnce() -> Vec<Vec<String>>,
    ) -> Result<Arc<Plan>, Unread> {
        let plan = plans.get(&of, || self.compile(of, &paths()))?;
        plan.map_err(|message| undecodable(message).into())
    }

    /// Makes it; asks the registry where the schema is not known.
    fn compile(&self, of: Option<Reference>, paths: &[Vec<String>]) -> Result<Made<Plan>, Unread> {
        let (Some(schemas), Some(reference)) = (&self.schemas, of) else {
            let schema = self.schema.as_ref().ok_or_else(|| {
                let by = self.said_by.schema;
                undecodable(format!(
                    "is Avro, and neither {by} nor a schema registry says by which schema"
                ))
            })?;
            return Ok(Plan::new(schema, None, paths).map(Arc::new));
        };
        let registered = registered(schemas, reference)?;
        if registered.language != Language::Avro {
            let instead = registered.language.instead_of("avro", self.said_by.format);
            return Ok(Err(format!("was written by {reference}, which {instead}")));
        }
        let writer = avro::parse_written(&registered.schema, &registered.texts());
        let plan = writer.and_then(|writer| Plan::new(&writer, self.schema.as_ref(), paths));
        Ok(plan
            .map(Arc::new)
            .map_err(|message| format!("was written by {reference}, which {message}")))
    }

    /// Sees that the schema of a record's value is known, or known to be unknown.
    ///
    /// # Errors
    ///
    /// [`Unread::Away`].
    pub(super) fn settle(&self, record: &Record, value: &[u8]) -> Result<(), Unread> {
        let (Some(schemas), Ok((Some(reference), _))) = (&self.schemas, &self.split(record, value))
        else {
            return Ok(());
        };
        settled(schemas, *reference)
    }

    /// Reads the wanted fields of a record.
    pub(super) fn read<R>(
        &self,
        unwrap: Unwrap,
        wanted: &Wanted,
        record: &Record,
        value: &[u8],
        take: impl FnOnce(Read<'_>) -> R,
    ) -> Result<Option<R>, Unread> {
        let (of, datum) = self.split(record, value)?;
        let debezium = unwrap == Unwrap::Debezium;
        let plan = self.plan(wanted.data(), of, || {
            if debezium { of_envelope(wanted.paths()) } else { wanted.paths().to_vec() }
        })?;
        let mut values = vec![None; plan.wanted()];
        plan.read(datum, &mut values).map_err(undecodable)?;
        if debezium && deleted(&mut values).map_err(undecodable)? {
            return Ok(None);
        }
        let unknown = plan.unknown().filter(|_| !debezium).map(Cow::Borrowed);
        Ok(Some(take(Read { values, unknown })))
    }

    /// Writes a whole value as JSON.
    ///
    /// # Errors
    ///
    /// Where it becomes too large.
    pub(super) fn json(&self, record: &Record, value: &[u8]) -> Result<String, Unread> {
        let (of, datum) = self.split(record, value)?;
        let plan = self.plan(&self.whole, of, Vec::new)?;
        let mut text = Vec::new();
        let long = |why| Fault::new(FaultClass::Oversized, why);
        plan.json(datum, None, &mut text).map_err(long)?;
        String::from_utf8(text).map_err(|error| undecodable(error.to_string()).into())
    }
}

/// Sees that a schema is known, or known to be unknown.
///
/// # Errors
///
/// [`Unread::Away`].
pub(super) fn settled(schemas: &Schemas, reference: Reference) -> Result<(), Unread> {
    match registered(schemas, reference) {
        Err(away @ Unread::Away { .. }) => Err(away),
        Ok(_) | Err(Unread::Fault(_)) => Ok(()),
    }
}

/// The schema that a record was written by.
pub(super) fn registered(
    schemas: &Schemas,
    reference: Reference,
) -> Result<Arc<Registered>, Unread> {
    match schemas.schema(reference) {
        Answer::Known(registered) => Ok(registered),
        Answer::Unknown(why) => Err(undecodable(why).into()),
        Answer::Away { reason, retry } => Err(Unread::Away { reason, retry }),
    }
}

/// Where the fields stand in Debezium's envelope, and behind them what it says itself.
pub(super) fn of_envelope(paths: &[Vec<String>]) -> Vec<Vec<String>> {
    let after = || "after".to_owned();
    let inside =
        |path: &Vec<String>| std::iter::once(after()).chain(path.iter().cloned()).collect();
    let own = [vec!["op".to_owned()], vec![after()]];
    paths.iter().map(inside).chain(own).collect()
}

/// Takes what an envelope says itself off `values` of [`of_envelope`]: whether its row was deleted.
pub(super) fn deleted(values: &mut Vec<Option<Value<'_>>>) -> Result<bool, String> {
    let (after, op) = (values.pop().flatten(), values.pop().flatten());
    let op = match &op {
        Some(Value::Text(op)) => Some(&**op),
        Some(_) => Some(""),
        None => None,
    };
    super::envelope::is_deleted(op, crate::field::is_given(after.as_ref()))
}

fn schema_of(path: &Path, key: &str) -> Result<AvroSchema, String> {
    let at = |why: String| format!("read {key} {}: {why}", path.display());
    let text =
        file::read(path, MAX_SCHEMA, Links::Follow).map_err(|error| at(error.to_string()))?;
    let text = String::from_utf8(text).map_err(|error| at(error.to_string()))?;
    avro::parse(&text, &[]).map_err(at)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::{Codec, Writer};
    use super::*;
    use crate::answer::Prediction;
    use crate::config::{Include, Input, InputFormat, Output, OutputFormat};
    use crate::record::{FaultClass, Offset, Partition};

    const ROW: &str = r#"{"type":"record","name":"Row","fields":[{"name":"a","type":"int"},
        {"name":"t","type":["null","string"]}]}"#;

    fn config(schema: &str, unwrap: Unwrap) -> (tempfile::NamedTempFile, Config) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(schema.as_bytes()).unwrap();
        let schema = Some(file.path().to_owned());
        let topics = vec!["t".to_owned()];
        let input = Input { topics, format: InputFormat::Avro, schema, unwrap, ..Input::default() };
        let include = Include::Fields(vec!["a".to_owned()]);
        let output = Output { format: OutputFormat::Avro, include, ..Output::default() };
        (file, Config { input, output, ..Config::default() })
    }

    fn record(value: &[u8]) -> Record {
        Record::of_value(Partition { topic: 0, number: 0 }, Offset(0), Some(value.to_vec()))
    }

    /// What a value has of the fields `t` and `a`, in words.
    fn read(config: &Config, value: &[u8]) -> String {
        let codec = Codec::new(config).unwrap();
        let wanted = Wanted::new(&["t".to_owned(), "a".to_owned()], &config.input.fields);
        match codec
            .read(&wanted, &record(value), |read| format!("{:?} {:?}", read.values, read.unknown))
        {
            Ok(Some(read)) => read,
            Ok(None) => "deleted".to_owned(),
            Err(Unread::Fault(fault)) => {
                assert_eq!(fault.class, FaultClass::Undecodable);
                fault.message
            }
            Err(away @ Unread::Away { .. }) => panic!("{away:?}"),
        }
    }

    #[test]
    fn fields_are_read_by_the_one_schema() {
        let (_file, config) = config(ROW, Unwrap::None);
        assert_eq!(read(&config, b"\x06\x02\x04ab"), r#"[Some(Text("ab")), Some(Int(3))] None"#);
        assert_eq!(read(&config, b"\x06\x00"), "[Some(Null), Some(Int(3))] None");
        let whole = b"\x06\x02\x04ab";
        for end in 0..whole.len() {
            let said = read(&config, &whole[..end]);
            assert!(!said.contains("Some("), "{end}: {said}");
        }
        let said = read(&config, b"\x06\x00\x00");
        assert!(!said.contains("Some("), "{said}");
    }

    /// Nulls take no bytes: what a record says of them may not take a thousand times its memory.
    #[test]
    fn what_goes_along_is_not_blown_up() {
        let schema = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"},
            {"name":"n","type":{"type":"array","items":"null"}}]}"#;
        let (_file, config) = config(schema, Unwrap::None);
        let writer = Writer::new(&config, Arc::new(Codec::new(&config).unwrap()));
        let prediction = Prediction::Value(0.5_f32.into());
        // 3, and 13,500,000 nulls.
        let nulls = record(b"\x06\xc0\xf9\xef\x0c\x00");
        let fault = writer.write(&prediction, &nulls).unwrap_err();
        assert_eq!(fault.class, FaultClass::Oversized);
        assert!(fault.message.contains("what output.include takes along"), "{fault}");
    }

    #[test]
    fn rows_are_taken_out_of_debeziums_envelopes() {
        let envelope = format!(
            r#"{{"type":"record","name":"Envelope","fields":[{{"name":"before","type":["null",{ROW}]}},
                {{"name":"after","type":["null","Row"]}},{{"name":"op","type":"string"}}]}}"#
        );
        let (_file, config) = config(&envelope, Unwrap::Debezium);
        let created = b"\x00\x02\x06\x02\x04ab\x02c";
        assert_eq!(read(&config, created), r#"[Some(Text("ab")), Some(Int(3))] None"#);
        assert_eq!(read(&config, b"\x02\x06\x00\x00\x02d"), "deleted");
        let (_file, config) = self::config(ROW, Unwrap::Debezium);
        let said = read(&config, b"\x06\x00");
        assert!(said.contains("has no field \"op\""), "{said}");
    }

    /// A prediction is a bare datum where there is no registry, and bears what goes along as JSON.
    #[test]
    fn predictions_are_data_too() {
        let (_file, config) = config(ROW, Unwrap::None);
        let writer = Writer::new(&config, Arc::new(Codec::new(&config).unwrap()));
        writer.ready(crate::answer::Task::TabularRegression).unwrap();
        let prediction = Prediction::Value(0.5_f32.into());
        let value = writer.write(&prediction, &record(b"\x06\x02\x04ab")).unwrap();
        let schema = AvroSchema::parse_str(avro::Kind::Value.schema()).unwrap();
        let paths = [vec!["value".to_owned()], vec!["input".to_owned()]];
        let plan = Plan::new(&schema, None, &paths).unwrap();
        let mut values = vec![None; 2];
        plan.read(&value, &mut values).unwrap();
        assert_eq!(values, [Some(Value::Float(0.5)), Some(Value::Text(r#"{"a":3}"#.into()))]);
    }

    /// What is wrong with a key's schema is said by the key's own settings.
    #[test]
    fn keys_are_named_by_their_own_settings() {
        let input = |schema: Option<&str>| {
            let mut input = Input { topics: vec!["t".to_owned()], ..Input::default() };
            input.key.format = crate::config::KeyFormat::Avro;
            input.key.schema = schema.map(Into::into);
            Config { input, ..Config::default() }
        };
        let said = Codec::new(&input(Some("gone.avsc"))).unwrap_err().message;
        assert!(said.starts_with("read input.key.schema gone.avsc"), "{said}");
        let codec = Codec::new(&input(None)).unwrap();
        let said = codec.keys.as_ref().unwrap().json(&record(b""), b"\x02").unwrap_err();
        let Unread::Fault(fault) = said else { panic!("{said:?}") };
        assert!(
            fault.message.contains("neither input.key.schema nor a schema registry"),
            "{fault}"
        );
        for (language, key, expect) in [
            (
                Language::Json,
                "input.key.format",
                "where input.key.format says avro: write `json` there",
            ),
            (Language::Protobuf, "input.key.format", "leave input.key out"),
            (
                Language::Protobuf,
                "input.format",
                "where input.format says avro: write `protobuf` for its topic",
            ),
        ] {
            let said = language.instead_of("avro", key);
            assert!(said.contains(expect), "{said}");
        }
    }
}

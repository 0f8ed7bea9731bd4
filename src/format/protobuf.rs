//! Protobuf values: which message each is, and its fields by a plan that is made once for a message.
//!
//! ```text
//!  registry's text ─┐
//!  .proto, .desc ───┴─► schema ─► descriptors ─► plan ─► read: wanted fields, borrowed from the record
//!                                      └──────────────► json: the message as JSON, for what goes along
//! ```
//!
//! `protox` compiles schemas, `prost_reflect` has their descriptors and writes JSON, and tests compare with its messages. It
//! would build a tree of owned values for each record, so what a model wants is read from the wire here.
//!
//! # Invariants
//!
//! 1. What is wanted has the value that Google's rules give it: the last of several counts, messages that are given twice
//!    are merged, a oneof has one field, a proto3 field without presence has its default.
//! 2. What nobody wants is passed over by the wire alone, as unknown fields are.
//! 3. Work and memory are bounded by the message's bytes, whatever lengths it claims.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost_reflect::{DynamicMessage, FileDescriptor, MessageDescriptor, SerializeOptions};

use super::cache::{Cache, Made};
use super::datum::{deleted, of_envelope, registered, settled};
use super::wanted::{Branch, Wanted};
use super::{Read, Unread, undecodable};
use crate::config::{Config, Unwrap};
use crate::field::Value;
use crate::record::{Fault, FaultClass, Record};
use crate::schema::frame::{self, Which};
use crate::schema::{Ids, Language, Reference, Schemas};
use plan::Plan;

mod known;
mod plan;
mod read;
mod schema;
mod sift;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_along;
mod tidied;
mod weight;
mod wire;

pub(super) use schema::is_named;

/// What a record's bytes say that it is: the schema and the message in it. Nothing of either where `input.schema` says it.
type Of = (Option<Reference>, Which);

/// Plans by messages.
pub(super) type Plans = Cache<Of, Plan>;

/// A message may become so many times as long as JSON, or [`SMALL`] if that is more.
const RATIO: usize = 100;

/// Whatever the ratio, so much is no bomb.
const SMALL: usize = 1 << 20;

/// More than so much it may not become, unless it is so long itself that this is less than [`LARGE_RATIO`] times as much:
/// fields and text are in memory at once, and a message is more fields than bytes let expect.
const LARGE: usize = 16 << 20;

/// A message that is long may become so many times as long.
const LARGE_RATIO: usize = 4;

/// What breaks one of them.
const RULE: &str =
    "is, written out, more than 100 times as long, or more than 16 MiB and 4 times as long";

/// Where the messages of values come from.
#[derive(Debug)]
pub(super) struct Messages {
    schemas: Option<Arc<Schemas>>,
    ids: Option<Ids>,
    /// That of `input.schema`, which all values are.
    only: Option<MessageDescriptor>,
    files: Cache<Reference, FileDescriptor>,
}

impl Messages {
    /// Reads `input.schema`, where it is of Protobuf.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn new(config: &Config, schemas: Option<Arc<Schemas>>) -> Result<Self, String> {
        let (input, ids) = (&config.input, config.schema_registry.ids);
        let path = input.schema.as_deref().filter(|path| is_named(path));
        let only = path.map(|path| schema::of_file(path, input.message.as_deref())).transpose()?;
        Ok(Self { schemas, ids, only, files: Cache::default() })
    }

    /// Whether `input.schema` has a field at a path, or is not of Protobuf.
    pub(super) fn has(&self, path: &[String]) -> bool {
        self.only.as_ref().is_none_or(|of| schema::has(of, path))
    }

    /// What a value is, and its bytes.
    fn split<'a>(&self, record: &Record, value: &'a [u8]) -> Result<(Of, &'a [u8]), Unread> {
        if self.only.is_some() {
            return Ok(((None, Which::At(Vec::new())), value));
        }
        if self.schemas.is_none() {
            let message =
                "is Protobuf, and neither input.schema nor a schema registry says which message";
            return Err(undecodable(message.to_owned()).into());
        }
        let said = frame::said(&record.headers, frame::Of::Value, self.ids).map_err(undecodable)?;
        let (reference, which, message) = frame::split_message(value, said).map_err(undecodable)?;
        Ok(((Some(reference), which), message))
    }

    /// The message that a value is; asks the registry where it is not known.
    fn message(
        &self,
        (reference, which): &Of,
    ) -> Result<Result<MessageDescriptor, String>, Unread> {
        let (Some(reference), Some(schemas)) = (reference, &self.schemas) else {
            return Ok(self.only.clone().ok_or_else(|| "has no schema".to_owned()));
        };
        let file = self.files.get(reference, || {
            let registered = registered(schemas, *reference)?;
            if registered.language != Language::Protobuf {
                return Ok(Err(registered.language.instead_of("protobuf", "input.format")));
            }
            let file = schema::of_text(&registered.schema, &registered.references);
            Ok::<Made<_>, Unread>(file.map(Arc::new))
        })?;
        let message = file.and_then(|file| schema::named(&file, which));
        Ok(message.map_err(|why| format!("was written by {reference}, which {why}")))
    }

    /// Sees that the schema of a record's value is known, or known to be unknown.
    ///
    /// # Errors
    ///
    /// [`Unread::Away`].
    pub(super) fn settle(&self, record: &Record, value: &[u8]) -> Result<(), Unread> {
        let (Some(schemas), Ok(((Some(reference), _), _))) =
            (&self.schemas, &self.split(record, value))
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
        let (of, message) = self.split(record, value)?;
        let debezium = unwrap == Unwrap::Debezium;
        let plan = wanted.messages().get(&of, || {
            let message = self.message(&of)?;
            let paths =
                if debezium { of_envelope(wanted.paths()) } else { wanted.paths().to_vec() };
            Ok::<Made<_>, Unread>(message.and_then(|of| Plan::new(&of, &paths)).map(Arc::new))
        })?;
        let plan = plan.map_err(undecodable)?;
        let (mut values, unknown) = plan.read(message).map_err(undecodable)?;
        if debezium && deleted(&mut values).map_err(undecodable)? {
            return Ok(None);
        }
        let unknown = unknown.filter(|_| !debezium).map(Cow::Owned);
        Ok(Some(take(Read { values, unknown })))
    }

    /// Writes a value as JSON, by the names that fields have in their `.proto` file: of `wanted` all that may have it, or
    /// everything.
    ///
    /// # Errors
    ///
    /// Where it becomes too large, or has what JSON cannot say.
    pub(super) fn json(
        &self,
        record: &Record,
        value: &[u8],
        wanted: Option<&Wanted>,
    ) -> Result<String, Unread> {
        let (of, bytes) = self.split(record, value)?;
        let message = self.message(&of)?.map_err(undecodable)?;
        Ok(text(&message, bytes, wanted.map(Wanted::root))?)
    }

    /// The wanted fields that have one value, as JSON: those too that the JSON of their message does not show.
    pub(super) fn values(
        &self,
        unwrap: Unwrap,
        wanted: &Wanted,
        record: &Record,
        value: &[u8],
    ) -> Result<Vec<Option<String>>, Unread> {
        let found = self.read(unwrap, wanted, record, value, |read| {
            read.values.into_iter().map(|value| value.as_ref().and_then(value_text)).collect()
        })?;
        Ok(found.unwrap_or_else(|| vec![None; wanted.len()]))
    }
}

/// A value as JSON; `None` of what has parts.
fn value_text(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::Null => "null".to_owned(),
        Value::Bool(is) => is.to_string(),
        Value::Int(whole) => whole.to_string(),
        Value::Float(number) => serde_json::Value::from(*number).to_string(),
        Value::Decimal(digits) => digits.to_string(),
        Value::Text(text) => serde_json::Value::from(&**text).to_string(),
        Value::Bytes(bytes) => serde_json::Value::from(BASE64.encode(bytes)).to_string(),
        Value::List | Value::Map => return None,
    })
}

fn text(of: &MessageDescriptor, bytes: &[u8], wanted: Option<&Branch>) -> Result<String, Fault> {
    let large = bytes.len().saturating_mul(LARGE_RATIO).max(LARGE);
    let most = bytes.len().saturating_mul(RATIO).clamp(SMALL, large);
    let bytes = sift::sifted(of, bytes, wanted);
    if !weight::is_at_most(most, of, &bytes) {
        return Err(Fault::new(FaultClass::Oversized, RULE));
    }
    let message = DynamicMessage::decode(of.clone(), &*bytes)
        .map_err(|error| undecodable(format!("is not read: {error}")))?;
    let options = SerializeOptions::new()
        .stringify_64_bit_integers(false)
        .use_proto_field_name(true)
        .skip_default_fields(false);
    let mut out = Bounded { out: Vec::new(), most, full: false };
    let mut writer = serde_json::Serializer::new(&mut out);
    if let Err(error) = message.serialize_with_options(&mut writer, &options) {
        return Err(if out.full {
            Fault::new(FaultClass::Oversized, RULE)
        } else {
            undecodable(format!("is not JSON: {error}"))
        });
    }
    drop(message);
    let text = String::from_utf8(out.out).map_err(|error| undecodable(error.to_string()))?;
    Ok(tidied::tidied(of, text))
}

/// Text that may not become longer than `most`.
struct Bounded {
    out: Vec<u8>,
    most: usize,
    /// Whether it would have become longer.
    full: bool,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.most < self.out.len() + bytes.len() {
            self.full = true;
            return Err(std::io::Error::other(RULE));
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

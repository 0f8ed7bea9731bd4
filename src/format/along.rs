//! What goes along of a record with its prediction, as JSON.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::beside::Fields;
use super::envelope::{self, Inside};
use super::packed::{self, Cbor, MessagePack};
use super::{Codec, Unread, json, undecodable, write};
use crate::config::InputFormat;
use crate::record::{Fault, Record};

/// Which fields of a record go along.
#[derive(Debug)]
pub(super) enum Taken {
    /// Its value, all of it.
    All,
    /// These, each from where it stands.
    Fields(Vec<String>, Box<Fields>),
}

impl Codec {
    /// Writes the fields of a record that go along as a JSON object. The record was read, or there would be no prediction.
    ///
    /// # Errors
    ///
    /// What cannot be read of what the model did not look at, and what becomes too large.
    pub(super) fn include(
        &self,
        taken: &Taken,
        record: &Record,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let done = match taken {
            Taken::All => self.all(record, out),
            Taken::Fields(names, fields) => self.some(names, fields, record, out),
        };
        done.map_err(|Fault { class, message }| {
            Fault::new(class, format!("what output.include takes along {message}"))
        })
    }

    fn all(&self, record: &Record, out: &mut Vec<u8>) -> Result<(), Fault> {
        match self.text_of(record)?.as_deref().map(str::trim) {
            Some(text) => out.extend_from_slice(json::compact(text).as_bytes()),
            None => out.extend_from_slice(b"null"),
        }
        Ok(())
    }

    fn some(
        &self,
        names: &[String],
        fields: &Fields,
        record: &Record,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let wanted = fields.in_value();
        let value = if wanted.is_empty() { None } else { self.text_of(record)? };
        let read = value.as_deref().map(|text| json::read::<&str>(text, wanted));
        let values = read.transpose().map_err(undecodable)?.map(|read| read.values);
        let values = values.unwrap_or_default().into_iter();
        let all = fields.merged(
            values.map(|text| text.map(json::compact)).collect(),
            self.beside_as_json(fields, record)?,
        );
        let texts = names.iter().zip(all).filter_map(|(name, text)| Some((&**name, text?)));
        write::object(texts, out);
        Ok(())
    }

    /// The record in a value as JSON text; `None` where there is none in its envelope.
    fn text_of<'r>(&self, record: &'r Record) -> Result<Option<Cow<'r, str>>, Fault> {
        let Some((format, value)) = self.opened(record)? else { return Ok(None) };
        let alone = |value: serde_json::Value| {
            let mut text = Vec::new();
            write::json(serde_json::json!({ &self.input.field: value }), &mut text);
            String::from_utf8(text).map_err(|error| undecodable(error.to_string()))
        };
        let text: Cow<'r, str> = match format {
            InputFormat::Bytes => return Ok(Some(alone(BASE64.encode(value).into())?.into())),
            InputFormat::Text => {
                let text = String::from_utf8_lossy(&value).into_owned();
                return Ok(Some(alone(text.into())?.into()));
            }
            InputFormat::Json => match value {
                Cow::Borrowed(value) => super::utf8(self.unframed(value))?.into(),
                Cow::Owned(value) => super::utf8(self.unframed(&value))?.to_owned().into(),
            },
            InputFormat::Avro => self.data.json(record, &value).map_err(fault)?.into(),
            InputFormat::MessagePack => {
                packed::json::<MessagePack<'_>>(&value).map_err(undecodable)?.into()
            }
            InputFormat::Cbor => packed::json::<Cbor<'_>>(&value).map_err(undecodable)?.into(),
            InputFormat::Protobuf => self.messages.json(record, &value).map_err(fault)?.into(),
        };
        Ok(match text {
            Cow::Borrowed(text) => inside(envelope::open(text, self.input.unwrap))?.map(Cow::from),
            Cow::Owned(text) => {
                let text = inside(envelope::open(&text, self.input.unwrap))?;
                text.map(|text| text.to_owned().into())
            }
        })
    }
}

fn inside(opened: Result<Inside<'_>, String>) -> Result<Option<&str>, Fault> {
    match opened.map_err(undecodable)? {
        Inside::Record(text) => Ok(Some(text)),
        Inside::Deleted => Ok(None),
    }
}

/// Of what was read already the schema is known: a registry that is away again is the record's fault.
pub(super) fn fault(unread: Unread) -> Fault {
    match unread {
        Unread::Fault(fault) => fault,
        Unread::Away { reason, .. } => undecodable(reason),
    }
}

//! Predictions as they are published: with what goes along of their records, by a schema that the registry has.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::along::Taken;
use super::{Codec, Fields, refused, write};
use crate::answer::{Part, Prediction, Shape, Task};
use crate::avro::{self, Along, Kind};
use crate::config::{Config, Include, OnLong, Output, OutputFormat, SchemaRegistry};
use crate::failure::{Exit, Failure, temporary};
use crate::record::{Fault, FaultClass, Record};
use crate::schema::{Failed, Language, Schemas, frame};

/// How predictions are written.
#[derive(Debug)]
pub struct Writer {
    output: Output,
    shape: Shape,
    on_long: OnLong,
    registry: SchemaRegistry,
    codec: Arc<Codec>,
    /// Which fields of a record go along, where some do.
    taken: Option<Taken>,
    /// The ids that the schema registry has for our schemas.
    ids: RwLock<BTreeMap<&'static str, u32>>,
}

impl Writer {
    /// Writes as `config.output` says; records that go along are read by `codec`.
    pub fn new(config: &Config, codec: Arc<Codec>) -> Self {
        let (output, registry) = (config.output.clone(), config.schema_registry.clone());
        let taken = match &output.include {
            Include::None | Include::Key => None,
            Include::All => Some(Taken::All),
            Include::Fields(names) => {
                let fields = Fields::new(names, codec.input());
                Some(Taken::Fields(names.clone(), Box::new(fields)))
            }
        };
        let on_long = config.model.on_long;
        let shape = output.shape();
        Self { output, shape, on_long, registry, codec, taken, ids: RwLock::default() }
    }

    /// The registry that has the schemas of what is written.
    fn schemas(&self) -> Option<&Schemas> {
        let schemas = self.codec.schemas().filter(|_| self.output.format == OutputFormat::Avro);
        schemas.map(AsRef::as_ref)
    }

    /// What a model for `task` may answer, the usual first.
    fn kinds(&self, task: Task) -> impl Iterator<Item = Kind> + use<> {
        let usual = match (Kind::of_task(task), self.on_long) {
            (Kind::Embedding, OnLong::Chunks) => Kind::Chunks,
            (Kind::Embedding, OnLong::Mean) => Kind::Mean,
            (kind, _) => kind,
        };
        // A classifier with one output alone answers with its number.
        let second = (task == Task::TextClassification).then_some(Kind::Value);
        std::iter::once(usual).chain(second)
    }

    /// Of what a model for `task` may answer that which has all parts that are published.
    fn published(&self, task: Task) -> Result<Vec<Kind>, Failure> {
        let has = |kind: &Kind| self.shape.lacks(kind.parts()).is_none();
        let (good, others): (Vec<Kind>, Vec<Kind>) = self.kinds(task).partition(has);
        let lacking = others.first().map(|kind| (kind.parts(), self.shape.lacks(kind.parts())));
        match lacking {
            Some((parts, Some((name, part)))) if good.is_empty() => {
                let names: Vec<&str> = parts.iter().map(|part| part.name()).collect();
                Err(refused(&format!(
                    "output.fields gives {name:?} to {}, and a prediction of a model for {} has {}: name these, or \
                     leave output.fields out",
                    part.name(),
                    task.name(),
                    names.join(", ")
                )))
            }
            _ => Ok(good),
        }
    }

    fn subject(&self, kind: Kind) -> String {
        self.registry.subject.of(&self.output.topic, kind.name())
    }

    /// Sees that what a model for `task` answers can be written: that its schema is registered, or registers it. Blocking.
    ///
    /// # Errors
    ///
    /// [`Exit::Config`] where it is not, with what to do; [`Exit::Temporary`] where the registry does not answer.
    pub fn ready(&self, task: Task) -> Result<(), Failure> {
        let kinds = self.published(task)?;
        let Some(schemas) = self.schemas() else { return Ok(()) };
        for kind in kinds {
            let (subject, schema) = (self.subject(kind), kind.shaped(&self.shape));
            let id = if self.registry.register {
                schemas.register(&subject, Language::Avro, &schema)
            } else {
                schemas.look_up(&subject, Language::Avro, &schema)
            };
            let id = id.or_else(|failed| match failed {
                Failed::Away(_) => schemas.known_id(Language::Avro, &schema).ok_or(failed),
                Failed::Absent { .. } | Failed::Refused(_) => Err(failed),
            });
            let id = id.map_err(|failed| {
                let doing = format!("find the schema {} of predictions under {subject:?}", kind.name());
                let (fix, exit) = match &failed {
                    Failed::Away(_) => ("look at the registry", Exit::Temporary),
                    Failed::Refused(_) => (
                        "the subject's rule of compatibility refuses it: name another output.topic or schema_registry.subject",
                        Exit::Config,
                    ),
                    Failed::Absent { .. } => (
                        "set schema_registry.register: true, or register what `schemas/` of the release has",
                        Exit::Config,
                    ),
                };
                Failure { message: format!("{doing}: {failed}; {fix}"), exit }
            })?;
            self.ids.write().unwrap_or_else(PoisonError::into_inner).insert(kind.name(), id);
        }
        Ok(())
    }

    /// Whether [`ready`](Self::ready) will find or register the schema, asked without registering anything. Blocking.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn fits(&self, task: Task) -> Result<(), Failure> {
        let (Some(schemas), true) = (self.schemas(), self.registry.register) else {
            return self.ready(task);
        };
        let Some(kind) = self.published(task)?.first().copied() else { return Ok(()) };
        let (subject, schema) = (self.subject(kind), kind.shaped(&self.shape));
        match schemas.incompatible(&subject, Language::Avro, &schema) {
            Ok(None) => Ok(()),
            Ok(Some(why)) => Err(refused(&format!(
                "register the schema {} under {subject:?}: the registry will refuse it, since it is not compatible \
                 with the newest version there: {why}; name another output.topic or schema_registry.subject",
                kind.name()
            ))),
            Err(failed) => {
                Err(temporary(&format!("ask for the versions of {subject:?}: {failed}")))
            }
        }
    }

    /// A prediction with what `output.include` takes along of its record, and at most `output.top_k` scores.
    ///
    /// # Errors
    ///
    /// A model that answers something else than its task says.
    pub fn write(&self, prediction: &Prediction, record: &Record) -> Result<Vec<u8>, Fault> {
        if let Some((name, part)) = self.shape.lacks(Part::of(prediction)) {
            let message = format!(
                "output.fields gives {name:?} to {}, which the prediction does not have",
                part.name()
            );
            return Err(Fault::new(FaultClass::Refused, message));
        }
        match self.output.format {
            OutputFormat::Json => self.json(prediction, record),
            OutputFormat::Avro => self.avro(prediction, record),
        }
    }

    fn json(&self, prediction: &Prediction, record: &Record) -> Result<Vec<u8>, Fault> {
        let mut out = write::open(prediction, &self.shape);
        if self.output.include == Include::Key {
            // Two keys that are not text must not become one.
            match record.key.as_deref().map(|key| (key, std::str::from_utf8(key))) {
                Some((key, Err(_))) => {
                    write::member("key_base64", Some(&*BASE64.encode(key)), &mut out);
                }
                Some((_, Ok(key))) => write::member("key", Some(key), &mut out),
                None => write::member("key", None::<&str>, &mut out),
            }
        }
        if let Some(taken) = &self.taken {
            out.extend_from_slice(b",\"input\":");
            self.codec.include(taken, record, &mut out)?;
        }
        out.push(b'}');
        Ok(out)
    }

    fn avro(&self, prediction: &Prediction, record: &Record) -> Result<Vec<u8>, Fault> {
        let kind = Kind::of(prediction);
        let mut out = Vec::new();
        if self.schemas().is_some() {
            let ids = self.ids.read().unwrap_or_else(PoisonError::into_inner);
            let id = ids.get(kind.name()).copied().ok_or_else(|| {
                let message = format!(
                    "the prediction is a {}, which the model's task does not say",
                    kind.name()
                );
                Fault::new(FaultClass::Refused, message)
            })?;
            frame::begin(id, &mut out);
        }
        let key = record.key.as_deref().filter(|_| self.output.include == Include::Key);
        let mut input = Vec::new();
        if let Some(taken) = &self.taken {
            self.codec.include(taken, record, &mut input)?;
        }
        let input = String::from_utf8_lossy(&input);
        let along = Along { key, input: self.taken.as_ref().map(|_| &*input) };
        avro::Encoder::new(&mut out).prediction(prediction, &self.shape, along);
        Ok(out)
    }
}

#[cfg(test)]
mod tests;

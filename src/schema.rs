//! The schema registry: which schema a record was written by. Blocking; called from decoding threads.
//!
//! ```text
//!  record ─► frame ─► Reference ─► Schemas ─► Known    decode by it
//!                                     │   ├─► Unknown  the record's fault: a dead letter
//!                                     │   └─► Away     nobody's fault: wait, and ask again
//!                                     └── client ── the registry, in Confluent's REST API
//! ```
//!
//! # Invariants
//!
//! 1. `Unknown` is what a registry says in Confluent's own words, and for [`UNKNOWN_FOR`] only: a schema that is
//!    registered a second late is found. Everything else is `Away`: no answer, a proxy's page, a wrong password.
//! 2. An id is asked for once at a time, however many threads want it, and never again once it is known.
//! 3. Memory and time have bounds, whatever a registry answers.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use client::Client;
use kept::Kept;

pub use client::{Auth, Failed, Settings};
pub use frame::{Ids, Reference};

mod client;
pub mod frame;
mod kept;
#[cfg(test)]
mod tests;

/// How long an unknown id stays unknown.
pub const UNKNOWN_FOR: Duration = Duration::from_secs(30);

/// Most schemas that are known at once, and most ids that are known to be unknown.
const MAX_KNOWN: usize = 10_000;

/// Most bytes of schemas that are known at once.
const MAX_BYTES: usize = 64 << 20;

/// Most schemas that one refers to, by others too.
const MAX_REFERENCES: usize = 200;

/// How long a schema and all that it refers to may take.
const LONGEST_FETCH: Duration = Duration::from_secs(60);

/// How long nobody asks after the first request in vain; each further one doubles it, up to [`LONGEST_REST`].
const FIRST_REST: Duration = Duration::from_millis(200);

/// See [`FIRST_REST`].
const LONGEST_REST: Duration = Duration::from_secs(10);

/// What a schema is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Language {
    /// Avro: what a registry means that says nothing.
    Avro,
    /// JSON Schema.
    Json,
    /// Protobuf.
    Protobuf,
    /// A language that is not known here.
    Other,
}

/// A schema, as a registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// What it is written in.
    pub language: Language,
    /// Its text.
    pub schema: String,
    /// Those that it refers to, by others too.
    pub references: Vec<Referred>,
}

/// A schema that another one refers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referred {
    /// How it is called there: of Protobuf the file that is imported, of Avro the full name.
    pub name: String,
    /// Its text.
    pub schema: String,
}

impl Language {
    /// Why a schema in it cannot be one of the format `asked` by the `key` of the configuration, with what to do, for a
    /// message that begins with the schema.
    pub(crate) fn instead_of(self, asked: &str, key: &str) -> String {
        let of_keys = key == "input.key.format";
        let (is, named) = match self {
            Self::Avro => ("Avro", Some("avro")),
            Self::Json => ("JSON Schema", Some("json")),
            Self::Protobuf => ("Protobuf", Some("protobuf").filter(|_| !of_keys)),
            Self::Other => ("a language that is not known here", None),
        };
        let fix = match named {
            Some(named) if of_keys => format!("write `{named}` there"),
            Some(named) => format!("write `{named}` for its topic"),
            None if of_keys => {
                "such keys go along, and no field is read in them: leave input.key out".to_owned()
            }
            None => "write it by another schema".to_owned(),
        };
        format!("is {is}, where {key} says {asked}: {fix}")
    }
}

impl Registered {
    /// The texts of those that it refers to.
    pub fn texts(&self) -> Vec<String> {
        self.references.iter().map(|of| of.schema.clone()).collect()
    }

    fn bytes(&self) -> usize {
        self.schema.len()
            + self.references.iter().map(|of| of.name.len() + of.schema.len()).sum::<usize>()
    }
}

/// What is known of a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The schema.
    Known(Arc<Registered>),
    /// The registry has none of that number; its words, for a message that begins with the record.
    Unknown(String),
    /// The registry does not say: ask again after `retry`.
    Away {
        /// Why, with the registry's place.
        reason: String,
        /// How long to wait before.
        retry: Duration,
    },
}

/// What is registered under a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The schema's id.
    pub id: u32,
    /// Its version in the subject.
    pub version: u32,
    /// The schema.
    pub registered: Registered,
}

#[derive(Debug)]
enum State {
    /// Somebody asks.
    Asked,
    Known(Arc<Registered>),
    Unknown {
        until: Instant,
        why: String,
    },
}

#[derive(Debug, Default)]
struct Shared {
    states: HashMap<Reference, State>,
    /// Of the schemas that are known.
    bytes: usize,
    /// Until when nobody asks, why, and how long that was from the last request on.
    rest: Option<(Instant, String, Duration)>,
}

/// The schemas of a registry, each asked for once.
#[derive(Debug)]
pub struct Schemas {
    client: Client,
    kept: Option<Kept>,
    shared: Mutex<Shared>,
    answered: Condvar,
}

impl Schemas {
    /// Reads the certificates and what was kept; asks nobody.
    ///
    /// # Errors
    ///
    /// A URL or certificates that cannot be used, a file that cannot be written.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        let client = Client::new(settings)?;
        let (mut kept, mut states, mut bytes) = (None, HashMap::new(), 0);
        if let Some(path) = &settings.kept {
            let (file, known) = Kept::open(path, client.urls())
                .map_err(|error| format!("cannot keep schemas in {}: {error}", path.display()))?;
            kept = Some(file);
            let known = known.into_iter();
            states.extend(known.map(|(reference, of)| {
                bytes += of.bytes();
                (reference, State::Known(Arc::new(of)))
            }));
        }
        let shared = Mutex::new(Shared { states, bytes, rest: None });
        Ok(Self { client, kept, shared, answered: Condvar::new() })
    }

    /// The schema of that number; asks for it where it is not known, and waits while another thread does.
    pub fn schema(&self, reference: Reference) -> Answer {
        let mut shared = self.lock();
        loop {
            match shared.states.get(&reference) {
                Some(State::Known(registered)) => return Answer::Known(Arc::clone(registered)),
                Some(State::Unknown { until, why }) if now() < *until => {
                    return Answer::Unknown(why.clone());
                }
                Some(State::Asked) => {
                    shared = self.answered.wait(shared).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                Some(State::Unknown { .. }) | None => (),
            }
            match &shared.rest {
                Some((until, reason, _)) if now() < *until => {
                    let retry = until.saturating_duration_since(now());
                    return Answer::Away { reason: reason.clone(), retry };
                }
                _ => break,
            }
        }
        shared.make_room();
        shared.states.insert(reference, State::Asked);
        drop(shared);
        let asked = Asked { schemas: self, reference };
        let found = self.fetch(reference);
        asked.answer(found)
    }

    /// The id of a schema that is known already, as after a restart while the registry is away.
    pub fn known_id(&self, language: Language, schema: &str) -> Option<u32> {
        let parsed = |text: &str| serde_json::from_str::<Json>(text).ok();
        let wanted = parsed(schema)?;
        self.lock().states.iter().find_map(|(reference, state)| match (reference, state) {
            (Reference::Id(id), State::Known(known)) if known.language == language => {
                (parsed(&known.schema).as_ref() == Some(&wanted)).then_some(*id)
            }
            _ => None,
        })
    }

    /// Asks for a schema and what it refers to.
    fn fetch(&self, reference: Reference) -> Result<Registered, Failed> {
        let path = match reference {
            Reference::Id(id) => format!("/schemas/ids/{id}"),
            Reference::Guid(guid) => format!("/schemas/guids/{guid}"),
        };
        let answer = self.client.find(&path).map_err(|failed| match failed {
            Failed::Away(why) => Failed::Away(format!("{why} (asked for {reference})")),
            other @ (Failed::Absent { .. } | Failed::Refused(_)) => other,
        });
        self.whole(&answer?)
    }

    /// A schema of an answer, with what it refers to.
    fn whole(&self, answer: &Json) -> Result<Registered, Failed> {
        let strange = |why: &str| {
            let at = self.client.urls().join(", ");
            Failed::Away(format!("the schema registry at {at} {why}"))
        };
        let schema = answer.get("schema").and_then(Json::as_str);
        let schema = schema.ok_or_else(|| strange("answers without a schema"))?;
        let language = match answer.get("schemaType").and_then(Json::as_str) {
            None | Some("AVRO") => Language::Avro,
            Some("JSON") => Language::Json,
            Some("PROTOBUF") => Language::Protobuf,
            Some(_) => Language::Other,
        };
        let (mut references, mut seen) = (Vec::new(), HashSet::new());
        let mut open = referred(answer);
        let begin = now();
        while let Some((name, subject, version)) = open.pop() {
            // Of Protobuf one file may be imported by two names.
            let called = (language == Language::Protobuf).then(|| name.clone());
            if !seen.insert((called, subject.clone(), version)) {
                continue;
            }
            if MAX_REFERENCES < seen.len() {
                let message = format!("the schema refers to more than {MAX_REFERENCES} others");
                return Err(Failed::Absent { code: 0, message });
            }
            if LONGEST_FETCH < begin.elapsed() {
                return Err(strange("takes too long to answer with what a schema refers to"));
            }
            let answer = self.referred_to(language, &name, &subject, version);
            let answer = answer.map_err(|failed| match failed {
                Failed::Absent { code, message } => {
                    let message =
                        format!("its schema refers to {subject:?} version {version}: {message}");
                    Failed::Absent { code, message }
                }
                other @ (Failed::Refused(_) | Failed::Away(_)) => other,
            })?;
            let text = answer.get("schema").and_then(Json::as_str);
            let text = text.ok_or_else(|| strange("answers without a schema"))?;
            references.push(Referred { name, schema: text.to_owned() });
            open.extend(referred(&answer));
        }
        Ok(Registered { language, schema: schema.to_owned(), references })
    }

    /// The schema that another one refers to by `name`, under a subject. Apicurio's serdes register what a schema of Avro
    /// refers to in a group that is called as its namespace, and Confluent's API does not say in which group a subject is.
    fn referred_to(
        &self,
        language: Language,
        name: &str,
        subject: &str,
        version: u64,
    ) -> Result<Json, Failed> {
        // What is deleted is still read by those that refer to it.
        let path = format!("/subjects/{}/versions/{version}?deleted=true", client::part(subject));
        let plain = self.client.ask(&path, None);
        let group = name.rsplit_once('.').map(|(namespace, _)| namespace);
        let sendable = |group: &&str| group.bytes().all(|byte| byte.is_ascii_graphic());
        let of_avro = language == Language::Avro;
        let Some(group) = group.filter(|group| of_avro && sendable(group)) else { return plain };
        match plain {
            Err(absent @ Failed::Absent { .. }) => match self.client.ask_in(group, &path) {
                Err(Failed::Absent { .. }) => Err(absent),
                other => other,
            },
            // Which of two is meant nobody says, and a wrong one may fit by chance.
            Ok(plain) if self.client.is_apicurio() => match self.client.ask_in(group, &path) {
                Ok(other) if text_of(&other) != text_of(&plain) => {
                    let message = format!(
                        "there are two of that name, in no group and in the group {group:?}, and which one is meant is \
                         not said: register it in one of them, or set apicurio.registry.dereference-schema to true where \
                         the record is written"
                    );
                    Err(Failed::Absent { code: 0, message })
                }
                Ok(_) | Err(Failed::Absent { .. }) => Ok(plain),
                Err(failed) => Err(failed),
            },
            plain => plain,
        }
    }

    /// Registers a schema under a subject, or finds that it is registered; its id.
    ///
    /// # Errors
    ///
    /// Where the registry refuses it, as not compatible for example, or is away.
    pub fn register(&self, subject: &str, language: Language, schema: &str) -> Result<u32, Failed> {
        let path = format!("/subjects/{}/versions", client::part(subject));
        self.named(&path, language, schema)
    }

    /// The id of a schema that is registered under a subject.
    ///
    /// # Errors
    ///
    /// Where it is not, or the registry is away.
    pub fn look_up(&self, subject: &str, language: Language, schema: &str) -> Result<u32, Failed> {
        let path = format!("/subjects/{}", client::part(subject));
        self.named(&path, language, schema)
    }

    /// The id that the registry names for a schema, which is known from then on.
    fn named(&self, path: &str, language: Language, schema: &str) -> Result<u32, Failed> {
        let id = self.id_of(&self.client.ask(path, Some(&body(language, schema)))?)?;
        let known = Registered { language, schema: schema.to_owned(), references: Vec::new() };
        self.know(Reference::Id(id), known);
        Ok(id)
    }

    /// Takes over what the registry has said, and keeps it.
    fn know(&self, reference: Reference, registered: Registered) -> Arc<Registered> {
        let mut shared = self.lock();
        if let Some(State::Known(known)) = shared.states.get(&reference) {
            return Arc::clone(known);
        }
        let registered = Arc::new(registered);
        shared.bytes += registered.bytes();
        shared.states.insert(reference, State::Known(Arc::clone(&registered)));
        drop(shared);
        if let Some(kept) = &self.kept {
            kept.keep(reference, &registered);
        }
        registered
    }

    fn id_of(&self, answer: &Json) -> Result<u32, Failed> {
        let id = answer.get("id").and_then(Json::as_u64).and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| {
            let at = self.client.urls().join(", ");
            Failed::Away(format!("the schema registry at {at} answers without an id"))
        })
    }

    /// The newest version of a subject.
    ///
    /// # Errors
    ///
    /// Where there is none, or the registry is away.
    pub fn latest(&self, subject: &str) -> Result<Version, Failed> {
        let path = format!("/subjects/{}/versions/latest", client::part(subject));
        let answer = self.client.ask(&path, None)?;
        let version = answer.get("version").and_then(Json::as_u64).unwrap_or_default();
        Ok(Version {
            id: self.id_of(&answer)?,
            version: u32::try_from(version).unwrap_or(u32::MAX),
            registered: self.whole(&answer)?,
        })
    }

    /// Why a schema is not compatible with the newest version of a subject, by the subject's own rule; `None` where it
    /// is, or where the subject has no version yet. Registers nothing.
    ///
    /// # Errors
    ///
    /// Where the registry refuses to compare them, or is away.
    pub fn incompatible(
        &self,
        subject: &str,
        language: Language,
        schema: &str,
    ) -> Result<Option<String>, Failed> {
        let subject = client::part(subject);
        let path = format!("/compatibility/subjects/{subject}/versions/latest?verbose=true");
        let answer = match self.client.ask(&path, Some(&body(language, schema))) {
            Err(Failed::Absent { code: 40401 | 40402, .. }) => return Ok(None),
            other => other?,
        };
        if answer.get("is_compatible").and_then(Json::as_bool) == Some(true) {
            return Ok(None);
        }
        let messages = answer.get("messages").and_then(Json::as_array);
        let messages = messages.into_iter().flatten().filter_map(Json::as_str);
        let said: String = messages.collect::<Vec<_>>().join("; ").chars().take(500).collect();
        Ok(Some(if said.is_empty() { "is not compatible".to_owned() } else { said }))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Forgets what may be asked for again where there is too much.
    fn make_room(&mut self) {
        let asked = |state: &State| matches!(state, State::Asked);
        if MAX_KNOWN <= self.states.len() {
            self.states.retain(|_, state| asked(state) || matches!(state, State::Known(_)));
        }
        if MAX_KNOWN <= self.states.len() || MAX_BYTES < self.bytes {
            self.states.retain(|_, state| asked(state));
            self.bytes = 0;
        }
    }
}

/// A thread asks for a schema. Whatever becomes of it, the others go on.
struct Asked<'s> {
    schemas: &'s Schemas,
    reference: Reference,
}

impl Asked<'_> {
    fn answer(self, found: Result<Registered, Failed>) -> Answer {
        let mut shared = self.schemas.lock();
        if !matches!(found, Err(Failed::Away(_))) {
            shared.rest = None;
        }
        match found {
            Ok(registered) => {
                drop(shared);
                Answer::Known(self.schemas.know(self.reference, registered))
            }
            Err(Failed::Absent { message, .. } | Failed::Refused(message)) => {
                let why = format!(
                    "was written by {}, which the schema registry does not have: {message}",
                    self.reference
                );
                let state = State::Unknown { until: now() + UNKNOWN_FOR, why: why.clone() };
                shared.states.insert(self.reference, state);
                Answer::Unknown(why)
            }
            Err(Failed::Away(reason)) => {
                let before = shared.rest.as_ref().map(|(_, _, rest)| *rest);
                let rest = before.map_or(FIRST_REST, |rest| (rest * 2).min(LONGEST_REST));
                shared.rest = Some((now() + rest, reason.clone(), rest));
                Answer::Away { reason, retry: rest }
            }
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut shared = self.schemas.lock();
        if let Some(State::Asked) = shared.states.get(&self.reference) {
            shared.states.remove(&self.reference);
        }
        drop(shared);
        self.schemas.answered.notify_all();
    }
}

/// The schema in an answer, however it is laid out.
fn text_of(answer: &Json) -> Option<Json> {
    serde_json::from_str(answer.get("schema")?.as_str()?).ok()
}

/// Names, subjects and versions that a schema refers to.
fn referred(answer: &Json) -> Vec<(String, String, u64)> {
    let references = answer.get("references").and_then(Json::as_array);
    let named = references.into_iter().flatten().filter_map(|reference| {
        let subject = reference.get("subject")?.as_str()?.to_owned();
        let name = reference.get("name").and_then(Json::as_str).unwrap_or(&subject).to_owned();
        Some((name, subject, reference.get("version")?.as_u64()?))
    });
    named.collect()
}

fn body(language: Language, schema: &str) -> Json {
    match language {
        // Older registries know no other.
        Language::Avro | Language::Other => json!({ "schema": schema }),
        Language::Json | Language::Protobuf => json!({ "schema": schema, "schemaType": language }),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a request's rest is the wire's, no decision of the core"
)]
fn now() -> Instant {
    Instant::now()
}

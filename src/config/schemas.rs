//! The schema registry, as configured.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Time;
use crate::schema::Ids;

/// The schema registry: Confluent's, or one that speaks its REST API (Apicurio, Karapace, Redpanda).
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchemaRegistry {
    /// Its addresses; several are copies of one registry. Empty: there is none.
    pub urls: Vec<String>,
    /// The user, or a cloud's API key.
    pub username: Option<String>,
    /// The password, or the API key's secret.
    pub password: Option<String>,
    /// A token instead of the two.
    pub token: Option<String>,
    /// A file with the certificates, in PEM, that its server's is signed by. Default: the system's.
    pub ca: Option<PathBuf>,
    /// How long one request may take.
    pub timeout: Time,
    /// Whether the schemas of predictions are registered where they are not.
    pub register: bool,
    /// Under which subject they are looked for.
    pub subject: Subject,
    /// What Apicurio's serdes write as ids.
    pub ids: Option<Ids>,
}

impl Default for SchemaRegistry {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            username: None,
            password: None,
            token: None,
            ca: None,
            timeout: Time::millis(10_000),
            register: false,
            subject: Subject::Topic,
            ids: None,
        }
    }
}

/// Without the secrets.
impl std::fmt::Debug for SchemaRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SchemaRegistry")
            .field("urls", &self.urls)
            .field("ca", &self.ca)
            .field("register", &self.register)
            .field("subject", &self.subject)
            .field("ids", &self.ids)
            .finish_non_exhaustive()
    }
}

/// How a subject is named, as Confluent's serialisers name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// `TopicNameStrategy`: `<topic>-value`.
    Topic,
    /// `RecordNameStrategy`: the record's full name.
    Record,
    /// `TopicRecordNameStrategy`: `<topic>-<the record's full name>`.
    TopicRecord,
}

impl Subject {
    /// The subject of a record `name` in `topic`.
    pub fn of(self, topic: &str, name: &str) -> String {
        match self {
            Self::Topic => format!("{topic}-value"),
            Self::Record => name.to_owned(),
            Self::TopicRecord => format!("{topic}-{name}"),
        }
    }
}

//! The dead-letter topics: on a cluster, or in the embedded log.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rdkafka::message::{Message as _, Timestamp};

use super::progress::Progress;
use crate::cli::cluster::{Cluster, Ends};
use crate::config::Config;
use crate::failure::{Exit, Failure};
use crate::kafka::native::{self, Topic};
use crate::log::letter::{Letter, Original};
use crate::log::message::Naming;
use crate::sqlite::{self, Store};

/// A dead letter and where it stands.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Bytes of key, value and headers, as they stand in the dead-letter topic.
    pub(super) bytes: usize,
    pub(super) letter: Letter,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

/// Where the topics are.
pub(super) enum Place {
    Kafka(Cluster),
    Embedded { store: Store, file: PathBuf },
}

/// The topics that `config` names, and the group whose offsets say what was redriven.
pub(super) struct Letters {
    pub(super) place: Place,
    pub(super) naming: Naming,
    pub(super) group: String,
    /// The dead-letter topics that are there.
    pub(super) topics: BTreeMap<String, Topic>,
}

impl Letters {
    /// Asks for the dead-letter topics.
    ///
    /// # Errors
    ///
    /// A cluster or a file that does not answer (75), or refuses; a topic that is not there (78).
    pub(super) fn open(config: &Config) -> Result<Self, Failure> {
        let naming = Naming::new(config);
        let group = format!("{}.tidemill-dlq", naming.group);
        let mut names: Vec<&str> = naming.dead_letters.iter().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let place = match config.embedded() {
            Some(file) => {
                // `SQLite` would make a file that is not there.
                let file = std::fs::canonicalize(file).map_err(|error| Failure {
                    message: format!("open the embedded log {}: {error}", file.display()),
                    exit: Exit::Config,
                })?;
                let store = Store::open(&file)?;
                Place::Embedded { store, file }
            }
            None => {
                let mut config = config.clone();
                config.kafka.group.clone_from(&group);
                Place::Kafka(Cluster::new(&config, "tidemill-dlq")?)
            }
        };
        let topics = place.topics(&names)?;
        if let Some(absent) = names.iter().find(|name| !topics.contains_key(**name)) {
            let message = format!(
                "read the dead letters in {absent}: the topic does not exist or may not be described; dead_letters.topic \
                 says where they are"
            );
            return Err(Failure { message, exit: Exit::Config });
        }
        Ok(Self { place, naming, group, topics })
    }

    /// Whether the record of a dead letter is whole, and of one of this service's topics: others are passed over.
    pub(super) fn may_return(&self, letter: &Letter) -> bool {
        let ours = |topic: &String| self.naming.inputs.contains(topic);
        letter.truncated.is_none() && letter.source.as_ref().is_some_and(|s| ours(&s.topic))
    }

    /// What was redriven in each partition of a topic, which ends there. Where the topic was created again, nothing.
    pub(super) fn progress(
        &self,
        topic: &str,
        ends: &Ends,
    ) -> Result<BTreeMap<i32, Progress>, Failure> {
        let committed: BTreeMap<i32, (i64, Vec<u8>)> = match &self.place {
            Place::Kafka(cluster) => {
                let partitions = i32::try_from(ends.len()).unwrap_or(i32::MAX);
                let found = cluster.texts(topic, partitions)?.into_iter();
                found.filter_map(|at| Some((at.partition, (at.offset?, at.metadata)))).collect()
            }
            Place::Embedded { store, .. } => {
                let read = |partition: &i32| {
                    let next = store.committed(&self.group, topic, *partition)?;
                    let text = store.note_text(&self.group, topic, *partition)?;
                    Ok(next.map(|next| (*partition, (next.0, text.unwrap_or_default().into()))))
                };
                let found: Result<Vec<_>, sqlite::Error> = ends.keys().map(read).collect();
                found?.into_iter().flatten().collect()
            }
        };
        let id = self.topics.get(topic).and_then(|topic| topic.id.as_ref()).map(|id| &*id.0);
        let of = |(partition, range): (&i32, &std::ops::Range<i64>)| {
            let committed = committed.get(partition).map(|(next, text)| (*next, text.as_slice()));
            let found = Progress::read(committed, id, range.end);
            (*partition, found.unwrap_or_else(|| Progress::nothing(id)))
        };
        Ok(ends.iter().map(of).collect())
    }
}

impl Place {
    /// The topics' ids and partition counts; those that are not there are missing.
    pub(super) fn topics(&self, names: &[&str]) -> Result<BTreeMap<String, Topic>, Failure> {
        match self {
            Self::Kafka(cluster) => cluster.topics(names),
            Self::Embedded { store, .. } => {
                let mut topics = BTreeMap::new();
                for name in names {
                    match store.partitions(name) {
                        Ok(count) => {
                            let topic = Topic { id: None, partitions: i32::from(count) };
                            topics.insert((*name).to_owned(), topic);
                        }
                        Err(sqlite::Error::NoTopic(_)) => (),
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(topics)
            }
        }
    }

    /// Where each partition begins, and where what is committed ends.
    pub(super) fn ends(&self, topic: &str, partitions: i32) -> Result<Ends, Failure> {
        match self {
            Self::Kafka(cluster) => cluster.stable_ends(topic, partitions),
            Self::Embedded { store, .. } => {
                let end = |number| Ok((number, 0..store.end(topic, number)?.0));
                (0..partitions).map(end).collect()
            }
        }
    }

    /// Gives every dead letter between these ends to `visit`, which may end it.
    pub(super) fn read(
        &self,
        topic: &str,
        ends: &Ends,
        mut visit: impl FnMut(Found) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self {
            Self::Kafka(cluster) => cluster.read(topic, ends, |message| {
                let written = Original {
                    timestamp: match message.timestamp() {
                        Timestamp::CreateTime(millis) if 0 <= millis => Some(millis),
                        // The broker's time of writing, where its topic wants that.
                        Timestamp::CreateTime(_)
                        | Timestamp::NotAvailable
                        | Timestamp::LogAppendTime(_) => None,
                    },
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers: native::headers(message),
                };
                visit(found((topic, message.partition(), message.offset()), written))
            }),
            Self::Embedded { store, .. } => {
                for (partition, range) in ends {
                    store.scan(topic, *partition, range.clone(), |stored| {
                        let sqlite::Message { key, value, headers, .. } = stored.message;
                        let written = Original { timestamp: None, key, value, headers };
                        visit(found((topic, *partition, stored.offset.0), written))
                    })?;
                }
                Ok(())
            }
        }
    }
}

fn found((topic, partition, offset): (&str, i32, i64), written: Original) -> Found {
    let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let headers = written.headers.iter().map(|header| header.name.len() + length(&header.value));
    let bytes = length(&written.key) + length(&written.value) + headers.sum::<usize>();
    let letter = Letter::read(written);
    Found { topic: topic.to_owned(), partition, offset, bytes, letter }
}

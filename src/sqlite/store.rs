//! Topics, records and offsets in `SQLite`.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use crate::log::message;
use crate::log::note::Note;
use crate::record::{Header, Offset};

/// Records, and bytes of them, that a scan reads at once.
const SCAN: (usize, usize) = (4_096, 4 << 20);

const SCHEMA: &str = "
create table if not exists topics (name text primary key, partitions integer not null) strict;
create table if not exists records (
    topic text not null, partition integer not null, offset integer not null, timestamp integer not null,
    key blob, value blob, headers blob not null, primary key (topic, partition, offset)
) strict, without rowid;
create table if not exists offsets (
    grp text not null, topic text not null, partition integer not null, next integer not null,
    primary key (grp, topic, partition)
) strict, without rowid;
create table if not exists notes (
    grp text not null, topic text not null, partition integer not null, note text not null,
    primary key (grp, topic, partition)
) strict, without rowid;
";

/// What cannot be done with the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `SQLite` refused.
    #[error("{what}")]
    Sqlite {
        /// Verb and object.
        what: &'static str,
        /// What it says.
        source: rusqlite::Error,
    },
    /// A topic that was not created.
    #[error("topic {0:?} does not exist in this log")]
    NoTopic(String),
    /// A manifest cannot be written as JSON.
    #[error("write a manifest")]
    Manifest(#[source] serde_json::Error),
}

impl Error {
    /// Whether the file is not one of `SQLite`.
    pub(super) fn is_no_database(&self) -> bool {
        let Self::Sqlite { source, .. } = self else { return false };
        source.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase)
    }
}

fn sqlite(what: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |source| Error::Sqlite { what, source }
}

/// A message without its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// The key's bytes.
    pub key: Option<Vec<u8>>,
    /// The value's bytes; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in their order.
    pub headers: Vec<Header>,
}

/// A message and its offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its offset.
    pub offset: Offset,
    /// The message.
    pub message: Message,
}

/// A connection to the file. Each thread has its own.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
}

impl Store {
    /// Opens or makes the file.
    ///
    /// # Errors
    ///
    /// What `SQLite` says.
    pub fn open(file: &Path) -> Result<Self, Error> {
        let open = sqlite("open the embedded log");
        let connection = Connection::open(file).map_err(&open)?;
        connection.busy_timeout(Duration::from_secs(10)).map_err(&open)?;
        connection.pragma_update(None, "journal_mode", "wal").map_err(&open)?;
        connection.pragma_update(None, "synchronous", "full").map_err(&open)?;
        connection.execute_batch(SCHEMA).map_err(&open)?;
        Ok(Self { connection })
    }

    /// Makes a topic; one that is there stays as it is.
    ///
    /// # Errors
    ///
    /// What `SQLite` says.
    pub fn create_topic(&self, name: &str, partitions: u16) -> Result<(), Error> {
        let create = "insert or ignore into topics values (?1, ?2)";
        let made = self.connection.execute(create, params![name, partitions.max(1)]);
        made.map(drop).map_err(sqlite("create a topic"))
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    ///
    /// When there is no such topic.
    pub fn partitions(&self, topic: &str) -> Result<u16, Error> {
        let query = "select partitions from topics where name = ?1";
        let found = self.connection.query_row(query, [topic], |row| row.get(0)).optional();
        found.map_err(sqlite("look a topic up"))?.ok_or_else(|| Error::NoTopic(topic.to_owned()))
    }

    /// The offset that the next record of a partition gets.
    ///
    /// # Errors
    ///
    /// What `SQLite` says.
    pub fn end(&self, topic: &str, partition: i32) -> Result<Offset, Error> {
        let query =
            "select coalesce(max(offset) + 1, 0) from records where topic = ?1 and partition = ?2";
        let mut query = self.connection.prepare_cached(query).map_err(sqlite("read the end"))?;
        let end = query.query_row(params![topic, partition], |row| row.get(0));
        end.map(Offset).map_err(sqlite("read the end of a partition"))
    }

    /// Appends messages, synced together.
    ///
    /// # Errors
    ///
    /// When there is no such topic, or what `SQLite` says.
    pub fn append<'a>(
        &mut self,
        topic: &str,
        partition: i32,
        messages: impl IntoIterator<Item = &'a Message>,
    ) -> Result<(), Error> {
        self.partitions(topic)?;
        self.transaction(|store| {
            for message in messages {
                let Message { timestamp, key, value, headers } = message;
                let headers = headers.iter().map(|h| (h.name.as_slice(), h.value.as_deref()));
                let place = (topic, partition, *timestamp);
                store.insert(place, key.as_deref(), value.as_deref(), &pack(headers))?;
            }
            Ok(())
        })
    }

    fn insert(
        &self,
        (topic, partition, timestamp): (&str, i32, i64),
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[u8],
    ) -> Result<(), Error> {
        let offset = self.end(topic, partition)?;
        let insert = "insert into records values (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let mut insert =
            self.connection.prepare_cached(insert).map_err(sqlite("append a record"))?;
        let values = params![topic, partition, offset.0, timestamp, key, value, headers];
        insert.execute(values).map(drop).map_err(sqlite("append a record"))
    }

    /// Appends what a transaction writes. The timestamp is now.
    pub(super) fn append_message(&self, message: &message::Message<'_>) -> Result<(), Error> {
        let message::Message { topic, partition, key, value, headers, .. } = message;
        let partition = match partition {
            Some(partition) => *partition,
            None => message::partition_of(key.as_deref(), self.partitions(topic)?),
        };
        let headers = headers.iter().map(|(name, value)| (name.as_ref(), value.as_deref()));
        let place = (*topic, partition, wall_clock_ms());
        self.insert(place, key.as_deref(), value.as_deref(), &pack(headers))
    }

    /// Up to `most` records of a partition from an offset on.
    ///
    /// # Errors
    ///
    /// What `SQLite` says.
    pub fn read(
        &self,
        topic: &str,
        partition: i32,
        from: Offset,
        most: usize,
    ) -> Result<Vec<Stored>, Error> {
        Ok(self.read_chunk(topic, partition, from, (most, usize::MAX))?.0)
    }

    /// Gives every record of a partition within these offsets to `visit`, which may end it. Of what is large, only a few are
    /// in memory at once.
    ///
    /// # Errors
    ///
    /// What `SQLite` says, or what `visit` does.
    pub fn scan<E: From<Error>>(
        &self,
        topic: &str,
        partition: i32,
        offsets: Range<i64>,
        mut visit: impl FnMut(Stored) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut next = offsets.start;
        while next < offsets.end {
            let (stored, _) = self.read_chunk(topic, partition, Offset(next), SCAN)?;
            let Some(last) = stored.last() else { break };
            next = last.offset.next().0;
            let mut within = stored.into_iter().filter(|stored| stored.offset.0 < offsets.end);
            within.try_for_each(&mut visit)?;
        }
        Ok(())
    }

    /// Records of a partition from an offset on, at most so many and of so many bytes, but one if there is one; and
    /// whether they are all there is. The values of other records are not read.
    pub(super) fn read_chunk(
        &self,
        topic: &str,
        partition: i32,
        from: Offset,
        (most, bytes): (usize, usize),
    ) -> Result<(Vec<Stored>, bool), Error> {
        let (end, all) = self.end_of_chunk(topic, partition, from, (most, bytes))?;
        let query = "select offset, timestamp, key, value, headers from records
                     where topic = ?1 and partition = ?2 and offset >= ?3 and offset < ?4 order by offset";
        let read = sqlite("read records");
        let mut query = self.connection.prepare_cached(query).map_err(&read)?;
        let rows = query.query_map(params![topic, partition, from.0, end.0], |row| {
            let headers: Vec<u8> = row.get(4)?;
            let message = Message {
                timestamp: row.get(1)?,
                key: row.get(2)?,
                value: row.get(3)?,
                headers: unpack(&headers),
            };
            Ok(Stored { offset: Offset(row.get(0)?), message })
        });
        let stored = rows.map_err(&read)?.collect::<Result<_, _>>().map_err(&read)?;
        Ok((stored, all))
    }

    /// The offset behind the last record of a chunk, by the records' lengths, which `SQLite` knows without reading them;
    /// and whether no record follows.
    fn end_of_chunk(
        &self,
        topic: &str,
        partition: i32,
        from: Offset,
        (most, bytes): (usize, usize),
    ) -> Result<(Offset, bool), Error> {
        let query = "select offset, coalesce(length(key), 0) + coalesce(length(value), 0) + length(headers)
                     from records where topic = ?1 and partition = ?2 and offset >= ?3 order by offset";
        let read = sqlite("read the lengths of records");
        let mut query = self.connection.prepare_cached(query).map_err(&read)?;
        let mut rows = query.query(params![topic, partition, from.0]).map_err(&read)?;
        let (mut end, mut count, mut sum) = (from, 0, 0_usize);
        while let Some(row) = rows.next().map_err(&read)? {
            let length: i64 = row.get(1).map_err(&read)?;
            sum = sum.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
            if count == most || (count != 0 && bytes < sum) {
                return Ok((end, false));
            }
            end = Offset(row.get(0).map_err(&read)?).next();
            count += 1;
        }
        Ok((end, true))
    }

    /// A group's committed offset.
    ///
    /// # Errors
    ///
    /// What `SQLite` says.
    pub fn committed(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Result<Option<Offset>, Error> {
        let query = "select next from offsets where grp = ?1 and topic = ?2 and partition = ?3";
        let found =
            self.connection.query_row(query, params![group, topic, partition], |row| row.get(0));
        Ok(found.optional().map_err(sqlite("read an offset"))?.map(Offset))
    }

    /// What was committed beside a group's offset.
    pub(super) fn note(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Result<Option<Note>, Error> {
        let found = self.note_text(group, topic, partition)?;
        Ok(found.and_then(|note| Note::read(note.as_bytes())))
    }

    /// What was committed beside a group's offset, as it stands.
    ///
    /// # Errors
    ///
    /// What `SQLite` says.
    pub fn note_text(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Result<Option<String>, Error> {
        let query = "select note from notes where grp = ?1 and topic = ?2 and partition = ?3";
        let found =
            self.connection.query_row(query, params![group, topic, partition], |row| row.get(0));
        found.optional().map_err(sqlite("read what was committed beside an offset"))
    }

    /// Appends messages to partitions, and commits offsets of a group with what stands beside each: all or nothing.
    ///
    /// # Errors
    ///
    /// What `SQLite` says.
    pub fn append_and_commit(
        &mut self,
        messages: &[(&str, i32, Message)],
        group: &str,
        offsets: &[(&str, i32, Offset, String)],
    ) -> Result<(), Error> {
        self.transaction(|store| {
            for (topic, partition, Message { timestamp, key, value, headers }) in messages {
                let headers = headers.iter().map(|h| (h.name.as_slice(), h.value.as_deref()));
                let place = (*topic, *partition, *timestamp);
                store.insert(place, key.as_deref(), value.as_deref(), &pack(headers))?;
            }
            for (topic, partition, next, note) in offsets {
                store.commit(group, topic, *partition, (*next, note))?;
            }
            Ok(())
        })
    }

    pub(super) fn commit(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
        (next, note): (Offset, &str),
    ) -> Result<(), Error> {
        let put = "insert or replace into offsets values (?1, ?2, ?3, ?4)";
        let done = self.connection.execute(put, params![group, topic, partition, next.0]);
        done.map_err(sqlite("commit an offset"))?;
        let put = "insert or replace into notes values (?1, ?2, ?3, ?4)";
        let done = self.connection.execute(put, params![group, topic, partition, note]);
        done.map(drop).map_err(sqlite("commit an offset's note"))
    }

    /// All that `work` does, or nothing.
    pub(super) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let begin =
            rusqlite::Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate);
        let transaction = begin.map_err(sqlite("begin a transaction"))?;
        let result = work(self)?;
        transaction.commit().map_err(sqlite("commit a transaction"))?;
        Ok(result)
    }
}

/// Headers as bytes: for each the name's length, the name, the value's length or -1, the value.
fn pack<'a>(headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = |length: usize| i32::try_from(length).unwrap_or(i32::MAX).to_le_bytes();
    for (name, value) in headers {
        bytes.extend(length(name.len()));
        bytes.extend(name);
        match value {
            None => bytes.extend((-1_i32).to_le_bytes()),
            Some(value) => {
                bytes.extend(length(value.len()));
                bytes.extend(value);
            }
        }
    }
    bytes
}

/// The headers of [`pack`]. What is cut off is left out: only we write them.
fn unpack(bytes: &[u8]) -> Vec<Header> {
    /// One piece: `Ok(None)` is null, `Err` that nothing is left.
    fn take(bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, ()> {
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or(())?;
        *bytes = rest;
        let Ok(length) = usize::try_from(i32::from_le_bytes(*length)) else {
            return Ok(None);
        };
        let (taken, rest) = bytes.split_at_checked(length).ok_or(())?;
        *bytes = rest;
        Ok(Some(taken.to_vec()))
    }
    let mut rest = bytes;
    let mut headers = Vec::new();
    while let (Ok(Some(name)), Ok(value)) = (take(&mut rest), take(&mut rest)) {
        headers.push(Header { name, value });
    }
    headers
}

#[expect(clippy::disallowed_methods, reason = "a record's timestamp is wall time")]
fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_read_byte_for_byte() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("log")).unwrap();
        store.create_topic("t", 2).unwrap();
        let header = |name: &str, value: Option<&[u8]>| Header {
            name: name.as_bytes().to_vec(),
            value: value.map(<[u8]>::to_vec),
        };
        let messages = [
            Message { timestamp: 7, key: None, value: None, headers: Vec::new() },
            Message {
                timestamp: -1,
                key: Some(vec![0, 255]),
                value: Some(Vec::new()),
                headers: vec![header("a", None), header("a", Some(b"")), header("", Some(b"\xff"))],
            },
        ];
        store.append("t", 1, &messages).unwrap();
        let read = store.read("t", 1, Offset(0), 9).unwrap();
        assert_eq!(read.iter().map(|stored| stored.offset.0).collect::<Vec<_>>(), [0, 1]);
        assert!(read.iter().map(|stored| &stored.message).eq(&messages));
        assert_eq!(store.end("t", 0).unwrap(), Offset(0));
        assert!(matches!(store.append("u", 0, &messages), Err(Error::NoTopic(_))));
    }

    #[test]
    fn a_chunk_is_bounded_in_bytes_and_has_one_record_at_least() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("log")).unwrap();
        store.create_topic("t", 1).unwrap();
        let message = |length: usize| Message {
            timestamp: 0,
            key: None,
            value: Some(vec![b'x'; length]),
            headers: Vec::new(),
        };
        store.append("t", 0, &[10, 10, 100, 10, 0, 0].map(message)).unwrap();
        for (from, most, bytes, expect) in [
            (0, 9, 1_000, (vec![0, 1, 2, 3, 4, 5], true)),
            (0, 6, 1_000, (vec![0, 1, 2, 3, 4, 5], true)),
            (0, 5, 1_000, (vec![0, 1, 2, 3, 4], false)),
            (0, 9, 20, (vec![0, 1], false)),
            (2, 9, 20, (vec![2], false)),
            (3, 9, 10, (vec![3, 4, 5], true)),
            (3, 9, 0, (vec![3], false)),
            (6, 9, 0, (vec![], true)),
        ] {
            let (stored, all) = store.read_chunk("t", 0, Offset(from), (most, bytes)).unwrap();
            let offsets: Vec<i64> = stored.iter().map(|stored| stored.offset.0).collect();
            assert_eq!((offsets, all), expect, "from {from}, at most {most} and {bytes} bytes");
        }
    }

    #[test]
    fn a_failed_transaction_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("log")).unwrap();
        let note =
            Note { topic: None, model: None, first: 1, partitions: 1, seen: Offset(0), skip: None };
        let result: Result<(), Error> = store.transaction(|store| {
            store.commit("g", "t", 0, (Offset(5), &note.to_string()))?;
            Err(Error::NoTopic("t".to_owned()))
        });
        assert!(result.is_err());
        assert_eq!(store.committed("g", "t", 0).unwrap(), None);
    }
}

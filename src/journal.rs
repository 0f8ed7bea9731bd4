//! The journal: what is in flight, so that a record which ends the process is found and does not end it for ever.
//!
//! ```text
//!  begin (batch, version, offsets) ─┐
//!  end · answered · overran ────────┼─► state.dir/journal ─► next start: past::judge ─► state.dir/suspects.json
//!  signal (from its handler) ───────┘     no fsync: the page cache outlives a process
//! ```
//!
//! Each batch is a line when it goes into the model and another when it comes back; so is each chunk that is decoded.
//! An orderly end says so. The next start of the replica reads what the last one left, [judges](past), and runs the
//! suspects by themselves.
//!
//! What it does not cover: a machine that loses its page cache, a `state.dir` that did not outlive the process, and a
//! partition that has moved to another replica, which knows nothing of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::failure::{Exit, Failure};
use crate::file;
use crate::log::note;
use crate::record::{Fault, ModelId, Offset, Partition, TopicId, Version};

mod past;
mod signal;

use past::{Death, Life, Past};

/// The first word of a journal.
const FORMAT: &str = "tidemill-journal/1";

/// Bytes after which the journal is written anew, with what is in flight only.
const LONGEST: u64 = 1 << 20;

/// A handle to the journal; all clones are one. Without a directory it writes nothing and knows nothing.
#[derive(Debug, Clone, Default)]
pub struct Journal(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    topics: Vec<String>,
    lines: Mutex<Lines>,
    past: Mutex<Past>,
    /// How the life before this one ended.
    death: Death,
    /// Whether there are suspects.
    suspicious: AtomicBool,
    /// The ids of the topics of assigned partitions.
    ids: Mutex<BTreeMap<Partition, TopicId>>,
    /// Locked while this process lives.
    _lock: File,
}

#[derive(Debug)]
struct Lines {
    file: File,
    header: String,
    bytes: u64,
    flights: BTreeMap<String, String>,
    answered: BTreeSet<String>,
    loading: Option<String>,
    overran: bool,
    /// A write has failed: nothing more is written.
    broken: bool,
}

/// What the journal says of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// It goes into the model with at most so many other suspects and with nothing else.
    Alone(u32),
    /// For this version it is a dead letter; for any other it goes alone.
    Condemned(Fault, String),
}

impl Journal {
    /// Opens the journal in `dir`, which is created, and draws the conclusions from what the last life left there.
    ///
    /// # Errors
    ///
    /// With exit code 78 where the directory cannot be used, or, with the words `in_use`, is used by another process.
    pub fn open(dir: &Path, topics: &[String], in_use: &str) -> Result<Self, Failure> {
        let refused = |what: &str, error: &dyn std::fmt::Display| Failure {
            message: format!(
                "{what} {}: {error}; set state.dir to a directory that this process may write",
                dir.display()
            ),
            exit: Exit::Config,
        };
        std::fs::create_dir_all(dir).map_err(|e| refused("create the directory", &e))?;
        let lock = file::writable(&dir.join("lock")).map_err(|e| refused("write in", &e))?;
        match lock.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => {
                return Err(Failure { message: in_use.to_owned(), exit: Exit::Config });
            }
            Err(TryLockError::Error(error)) => return Err(refused("lock", &error)),
        }
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(dir.join("journal"))
            .map_err(|e| refused("open the journal in", &e))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| refused("read the journal in", &e))?;
        let kills = oom_kills();
        let mut past = read_past(&dir.join("suspects.json"));
        let life = Life::read(&String::from_utf8_lossy(&bytes));
        let death = past.judge(&life, kills);
        tell(death, &life, &past);
        let inner = Inner {
            dir: dir.to_owned(),
            topics: topics.to_vec(),
            lines: Mutex::new(Lines {
                header: kills
                    .map_or_else(|| format!("{FORMAT} -\n"), |kills| format!("{FORMAT} {kills}\n")),
                file,
                bytes: 0,
                flights: BTreeMap::new(),
                answered: BTreeSet::new(),
                loading: None,
                overran: false,
                broken: false,
            }),
            death,
            suspicious: AtomicBool::new(!past.suspects.is_empty()),
            past: Mutex::new(past),
            ids: Mutex::default(),
            _lock: lock,
        };
        // First the conclusions, then the new life: a death between the two only repeats the judgement.
        inner.save(&lock_of(&inner.past)).map_err(|e| refused("write in", &e))?;
        {
            let mut lines = lock_of(&inner.lines);
            lines.rewrite().map_err(|e| refused("write the journal in", &e))?;
            signal::note_in(lines.file.as_raw_fd());
        }
        Ok(Self(Some(Arc::new(inner))))
    }

    /// How the process before this one ended, as a sentence without its end; `None` where it ended in order.
    pub fn last_life(&self) -> Option<&'static str> {
        self.0.as_ref().and_then(|inner| inner.death.told())
    }

    /// Forgets all that is in `dir`: the log that it was about is not there any more.
    pub fn forget(dir: &Path) {
        for name in ["journal", "suspects.json"] {
            // Not there is as good.
            std::fs::remove_file(dir.join(name)).unwrap_or_default();
        }
    }

    /// A partition is ours from `next` on: of what is committed nobody is suspected any more.
    pub fn assigned(&self, partition: Partition, id: Option<TopicId>, next: Offset) {
        let Some(inner) = &self.0 else { return };
        let topic = inner.topic(partition);
        let mut past = lock_of(&inner.past);
        if past.committed(topic, id.as_ref().map(|id| &*id.0), partition.number, next.0) {
            inner.suspicious.store(!past.suspects.is_empty(), Ordering::Release);
            if let Err(error) = inner.save(&past) {
                tracing::warn!(%error, "the suspects cannot be written to state.dir");
            }
        }
        drop(past);
        let mut ids = lock_of(&inner.ids);
        match id {
            Some(id) => ids.insert(partition, id),
            None => ids.remove(&partition),
        };
    }

    /// What is known of a record; `None` of nearly all.
    pub fn mark(&self, partition: Partition, offset: Offset) -> Option<Mark> {
        let inner = self.0.as_ref().filter(|inner| inner.suspicious.load(Ordering::Acquire))?;
        let past = lock_of(&inner.past);
        let suspect = past.find(inner.topic(partition), partition.number, offset.0)?;
        Some(match suspect.verdict() {
            Some((class, message)) => {
                Mark::Condemned(Fault::new(class, message), suspect.model.clone())
            }
            None => Mark::Alone(suspect.most),
        })
    }

    /// Records go into the model, or are decoded, under `key`.
    pub fn begin(
        &self,
        key: &str,
        model: &ModelId,
        alone: bool,
        records: impl Iterator<Item = (Partition, Offset)>,
    ) {
        let Some(inner) = &self.0 else { return };
        let alone = if alone { "alone" } else { "-" };
        let mut line = format!("begin {key} {} {alone}", note::short_name(model));
        let ids = lock_of(&inner.ids);
        list(&mut line, &inner.topics, &ids, records);
        drop(ids);
        line.push('\n');
        let mut lines = lock_of(&inner.lines);
        lines.write(&line);
        lines.flights.insert(key.to_owned(), line);
        if LONGEST < lines.bytes {
            let rewritten = lines.rewrite();
            lines.judge(rewritten);
        }
    }

    /// They are back.
    pub fn end(&self, key: &str) {
        let Some(inner) = &self.0 else { return };
        let mut lines = lock_of(&inner.lines);
        if lines.flights.remove(key).is_some() {
            lines.write(&format!("end {key}\n"));
        }
    }

    /// They did not come back in time: the process is about to end.
    pub fn overran(&self, key: &str) {
        let Some(inner) = &self.0 else { return };
        let mut lines = lock_of(&inner.lines);
        lines.overran = true;
        lines.write(&format!("overran {key}\n"));
    }

    /// The version has answered records that nobody suspects.
    pub fn answered(&self, model: &ModelId) {
        let Some(inner) = &self.0 else { return };
        let mut lines = lock_of(&inner.lines);
        let name = note::short_name(model);
        lines.write(&format!("answered {name}\n"));
        lines.answered.insert(name);
    }

    /// A version is being loaded into this process.
    pub fn loading(&self, name: &str, version: Version) {
        let Some(inner) = &self.0 else { return };
        let version = note::versioned(name, version);
        let mut lines = lock_of(&inner.lines);
        lines.write(&format!("loading {version}\n"));
        lines.loading = Some(version);
    }

    /// It was loaded, or refused: the process lives.
    pub fn loaded(&self, name: &str, version: Version) {
        let Some(inner) = &self.0 else { return };
        let version = note::versioned(name, version);
        let mut lines = lock_of(&inner.lines);
        lines.write(&format!("loaded {version}\n"));
        lines.loading = None;
        drop(lines);
        let mut past = lock_of(&inner.past);
        if past.loaded(&version) {
            inner.save(&past).unwrap_or_else(|error| {
                tracing::warn!(%error, "the suspects cannot be written to state.dir");
            });
        }
    }

    /// Why a version should not serve, by what it did to this process before. With `beside`, where another version
    /// serves meanwhile and it was tried in a process of its own: one death while it was loaded is no reason then.
    pub fn refuses(&self, name: &str, version: Version, beside: bool) -> Option<String> {
        let inner = self.0.as_ref()?;
        lock_of(&inner.past).refuses(&note::versioned(name, version), beside)
    }

    /// The process ends in order: nothing that is in flight is to blame, unless it overran.
    pub fn close(&self) {
        let Some(inner) = &self.0 else { return };
        let mut lines = lock_of(&inner.lines);
        if !lines.overran {
            lines.write("closed\n");
        }
    }
}

impl Inner {
    fn topic(&self, partition: Partition) -> &str {
        topic(&self.topics, partition)
    }

    fn save(&self, past: &Past) -> std::io::Result<()> {
        let next = self.dir.join("suspects.json.next");
        std::fs::write(&next, serde_json::to_vec(past)?)?;
        std::fs::rename(next, self.dir.join("suspects.json"))
    }
}

impl Lines {
    fn write(&mut self, line: &str) {
        if !self.broken {
            self.bytes += u64::try_from(line.len()).unwrap_or(0);
            let written = self.file.write_all(line.as_bytes());
            self.judge(written);
        }
    }

    fn judge(&mut self, written: std::io::Result<()>) {
        if let Err(error) = written {
            self.broken = true;
            tracing::warn!(%error, "the journal in state.dir cannot be written: until the next start, a record that ends the process is not found");
        }
    }

    /// Begins the file anew. A death in between leaves a journal that accuses nobody.
    fn rewrite(&mut self) -> std::io::Result<()> {
        let mut text = self.header.clone();
        text.extend(self.answered.iter().map(|model| format!("answered {model}\n")));
        text.extend(self.loading.iter().map(|version| format!("loading {version}\n")));
        text.extend(self.flights.values().map(String::as_str));
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())?;
        self.bytes = u64::try_from(text.len()).unwrap_or(0);
        Ok(())
    }
}

fn topic(topics: &[String], partition: Partition) -> &str {
    topics.get(usize::from(partition.topic)).map_or("", String::as_str)
}

/// ` TOPIC#ID/PARTITION=5-9,12` for each stretch of records of one partition.
fn list(
    line: &mut String,
    topics: &[String],
    ids: &BTreeMap<Partition, TopicId>,
    records: impl Iterator<Item = (Partition, Offset)>,
) {
    let mut write = |args: std::fmt::Arguments<'_>| line.write_fmt(args).unwrap_or_default(); // a String takes all
    // The partition, the offset, and whether offsets before it in the same run were left out.
    let mut last: Option<(Partition, i64, bool)> = None;
    for (partition, Offset(offset)) in records {
        last = match last {
            Some((before, end, _)) if before == partition && end.checked_add(1) == Some(offset) => {
                Some((partition, offset, true))
            }
            _ => {
                if let Some((_, end, true)) = last {
                    write(format_args!("-{end}"));
                }
                if last.is_some_and(|(before, ..)| before == partition) {
                    write(format_args!(",{offset}"));
                } else {
                    let id = ids.get(&partition).map_or("-", |id| &*id.0);
                    let topic = topic(topics, partition);
                    write(format_args!(" {topic}#{id}/{}={offset}", partition.number));
                }
                Some((partition, offset, false))
            }
        };
    }
    if let Some((_, end, true)) = last {
        write(format_args!("-{end}"));
    }
}

/// What earlier lives left; what cannot be read is nothing, and said.
fn read_past(path: &Path) -> Past {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the suspects of earlier lives cannot be read and are forgotten");
            Past::default()
        }),
        Err(_absent) => Past::default(),
    }
}

/// Says how the last life ended, and who is suspected.
fn tell(death: Death, life: &Life, past: &Past) {
    let suspects = past.records();
    match death {
        Death::None => (),
        Death::Overrun => tracing::warn!(
            suspects,
            "the last process of this replica was ended because a batch took longer than limits.inference: its records go into the model by themselves"
        ),
        Death::Signal => tracing::warn!(
            suspects,
            signal = life.signal.as_deref(),
            "the last process of this replica died: the records that were in flight go into the model by themselves"
        ),
        Death::Memory => tracing::warn!(
            suspects,
            "the last process of this replica was killed for want of memory: the records that were in flight go into the model by themselves"
        ),
        Death::Unexplained => tracing::info!(
            suspects,
            "the last process of this replica was killed, and nothing says why: the records that were in flight go into the model in smaller batches"
        ),
    }
    for suspect in past.suspects.iter().filter(|suspect| 3 <= suspect.unexplained) {
        let span = &suspect.span;
        tracing::error!(
            kills = suspect.unexplained,
            "the process was killed from outside each time {}/{} offset {} was alone in the model: nothing proves that this record is the cause; is the memory limit too low for it?",
            span.topic,
            span.partition,
            span.first
        );
    }
}

/// How often the kernel has killed a process of this control group for want of memory.
fn oom_kills() -> Option<u64> {
    let group = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = group.lines().find_map(|line| line.strip_prefix("0::"))?;
    let events =
        Path::new("/sys/fs/cgroup").join(own.trim_start_matches('/')).join("memory.events");
    let events = std::fs::read_to_string(events)
        .or_else(|_| std::fs::read_to_string("/sys/fs/cgroup/memory.events"))
        .ok()?;
    events.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// A poisoned lock holds what it held.
fn lock_of<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records() -> impl Strategy<Value = Vec<(Partition, Offset)>> {
        // Few partitions and small steps: runs, gaps and changes of the partition all come up.
        let step = (0..2_u16, 0..2_i32, 1..3_i64);
        prop::collection::vec(step, 0..40).prop_map(|steps| {
            let mut next = BTreeMap::new();
            let place = |(topic, number, step): (u16, i32, i64)| {
                let partition = Partition { topic, number };
                let offset = next.entry(partition).or_insert(0_i64);
                *offset += step;
                (partition, Offset(*offset))
            };
            steps.into_iter().map(place).collect()
        })
    }

    proptest! {
        #[test]
        fn a_line_names_each_record_once(records in records()) {
            let topics = ["a.b".to_owned(), "c-d_e".to_owned()];
            let of_a = Partition { topic: 0, number: 1 };
            let ids = BTreeMap::from([(of_a, TopicId("x-_y".into()))]);
            let mut line = format!("{FORMAT} -\nbegin 7.0 m/1@a alone");
            list(&mut line, &topics, &ids, records.iter().copied());
            let life = Life::read(&format!("{line}\n"));
            let named: Vec<(String, Option<String>, i32, i64)> = life
                .spans()
                .flat_map(|s| (s.first..=s.last).map(|at| (s.topic.clone(), s.id.clone(), s.partition, at)))
                .collect();
            let expect = records.iter().map(|(partition, offset)| {
                let id = ids.get(partition).map(|id| id.0.to_string());
                (topic(&topics, *partition).to_owned(), id, partition.number, offset.0)
            });
            prop_assert_eq!(named, expect.collect::<Vec<_>>());
        }
    }
}

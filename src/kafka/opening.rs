//! The thread that finds out where newly assigned partitions begin, so that the poll thread need not wait for it and the
//! partitions that were there before go on.
//!
//! ```text
//!  poll thread ─► claimed partitions ─► committed offsets, notes, ids, ends ─► begin ─► commit the place ─► poll thread
//!                                              ▲      manifests, times ──────────┘
//! ```
//!
//! Each partition is opened as soon as it can be: one whose offsets are held back by a predecessor's open transaction
//! does not hold up the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant, SystemTime};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::Offset as Place;

use super::begin::{self, Begin, Facts, Manifests, Policy};
use super::manifests::{self, Input};
use super::native::{self, Topic, Which};
use super::settings;
use super::shared::Shared;
use crate::failure::{Exit, Failure};
use crate::log::Committed;
use crate::log::note::Note;
use crate::record::{Epoch, Offset, Partition};

/// How long the cluster may take to tell offsets and ends. A predecessor's open transaction holds them back until the
/// broker ends it: its timeout (15 s) and the interval at which the broker looks (10 s).
const PATIENCE: Duration = Duration::from_secs(40);
/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long an offset that does not fit the log is doubted: a new leader may tell an older end for a moment.
const DOUBT: Duration = Duration::from_secs(5);
/// Between two looks.
const AGAIN: Duration = Duration::from_millis(100);

/// A partition that may be read.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) partition: Partition,
    pub(super) epoch: Epoch,
    /// Where reading begins.
    pub(super) next: Offset,
    /// The end, as readers of committed records see it.
    pub(super) end: Offset,
    /// What its next commit carries forward.
    pub(super) note: Note,
}

/// What the poll thread gives: partitions that the group assigned.
pub(super) type Claims = Vec<(Partition, Epoch)>;

/// What it gets back.
pub(super) type Answer = Result<Vec<Opened>, Failure>;

/// The thread's state.
pub(super) struct Opener {
    shared: Arc<Shared>,
    policy: Policy,
    /// Offsets that do not fit the log, since when.
    doubted: BTreeMap<Partition, Instant>,
}

/// What the cluster says of the partitions of one claim.
struct Seen {
    topics: BTreeMap<String, Topic>,
    low: BTreeMap<Partition, i64>,
    end: BTreeMap<Partition, i64>,
    high: BTreeMap<Partition, i64>,
    /// Notes of the group's committed offsets, of all partitions of all input topics.
    notes: BTreeMap<Partition, Note>,
    /// Whether the manifest topic has ever held anything.
    written: bool,
}

impl Opener {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let kafka = &shared.config.kafka;
        let policy = Policy {
            start_from: kafka.start_from,
            on_missing: kafka.on_missing_offset,
            on_out_of_range: kafka.on_out_of_range,
            on_recreated: kafka.on_recreated,
        };
        Self { shared, policy, doubted: BTreeMap::new() }
    }

    /// Opens what comes until the poll thread is gone.
    pub(super) fn run(
        mut self,
        claims: &Receiver<Claims>,
        answers: &SyncSender<Answer>,
        wake: &dyn Fn(),
    ) {
        while let Ok(mut waiting) = claims.recv() {
            waiting.extend(claims.try_iter().flatten());
            let deadline = Instant::now() + PATIENCE;
            while !waiting.is_empty() {
                waiting.retain(|(partition, epoch)| self.shared.claims(*partition, *epoch));
                let answer = self.open(&mut waiting, deadline);
                let failed = answer.is_err();
                let quiet = answer.as_ref().is_ok_and(Vec::is_empty);
                if !quiet && answers.send(answer).is_err() {
                    return;
                }
                wake();
                if failed {
                    break;
                }
                waiting.extend(claims.try_iter().flatten());
                if !waiting.is_empty() {
                    std::thread::sleep(AGAIN);
                }
            }
        }
    }

    /// Opens as many of `waiting` as can be opened now, and takes them out.
    fn open(&mut self, waiting: &mut Claims, deadline: Instant) -> Answer {
        let asked: Vec<Partition> = waiting.iter().map(|(partition, _)| *partition).collect();
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let shared = Arc::clone(&self.shared);
        let committed = match shared.committed(&asked, true, ANSWER) {
            Ok(committed) => committed,
            Err(error) => {
                let what = "read the group's committed offsets";
                return self.again::<()>(what, &error, deadline).map(|_| Vec::new());
            }
        };
        if committed.is_empty() && deadline <= Instant::now() {
            let message = "read the group's committed offsets: a transaction of a predecessor has held them back \
                           for longer than the brokers let one last; look at the brokers"
                .to_owned();
            return Err(Failure { message, exit: Exit::Temporary });
        }
        let Some(seen) = self.see(&asked, deadline)? else { return Ok(Vec::new()) };
        let mut looked: Option<BTreeMap<Input, Manifests>> = None;
        let (mut opened, mut moved) = (Vec::new(), Vec::new());
        for (partition, epoch) in waiting.iter().copied() {
            // Held back by a transaction: the next round asks again.
            let Some(committed) = committed.get(&partition) else { continue };
            self.narrow(partition, &seen)?;
            let place = self.place(partition, committed.as_ref(), &seen, &mut looked)?;
            let Some(place) = place else {
                continue;
            };
            if let Some(why) = &place.moved {
                let name = self.shared.naming.input(partition);
                let from = committed
                    .as_ref()
                    .map_or_else(|| "a committed offset".to_owned(), |c| c.next.to_string());
                let (number, next) = (partition.number, place.next);
                if place.loud {
                    tracing::warn!(
                        "{name}/{number}: reading begins at {next}, not at {from}: {why}"
                    );
                } else {
                    tracing::info!("{name}/{number}: reading begins at {next}: {why}");
                }
                moved.push((partition, place.next, place.note.clone()));
            }
            let end = Offset(seen.end.get(&partition).copied().unwrap_or(place.next.0));
            opened.push(Opened { partition, epoch, next: place.next, end, note: place.note });
        }
        if !moved.is_empty() && !self.commit(&moved, deadline)? {
            return Ok(Vec::new()); // the group has changed meanwhile
        }
        waiting.retain(|(partition, _)| !opened.iter().any(|o| o.partition == *partition));
        Ok(opened)
    }

    /// `None` to ask again, an error when the time is over or no repetition helps.
    fn again<T>(
        &self,
        what: &str,
        error: &KafkaError,
        deadline: Instant,
    ) -> Result<Option<T>, Failure> {
        if let Some(exit) = error.rdkafka_error_code().and_then(super::class::hopeless) {
            return Err(self.shared.failure(what, error, exit));
        }
        if Instant::now() < deadline {
            tracing::debug!(%error, "{what}: again");
            return Ok(None);
        }
        Err(self.shared.failure(what, error, Exit::Temporary))
    }

    /// Asks for everything that decisions need.
    fn see(&self, of: &[Partition], deadline: Instant) -> Result<Option<Seen>, Failure> {
        let naming = &self.shared.naming;
        let client = self.shared.look.client();
        let names: Vec<&str> = naming.all();
        let topics = match self.shared.describe(&names, ANSWER) {
            Ok(topics) => topics,
            Err(error) => return self.again("describe the topics", &error, deadline),
        };
        let pairs: Vec<(&str, i32)> = of.iter().map(|p| (naming.input(*p), p.number)).collect();
        let ask = |which| {
            let offsets = native::list_offsets(client, &pairs, which, ANSWER)?;
            Ok(of.iter().copied().zip(offsets).collect::<BTreeMap<_, _>>())
        };
        let asked = ask(Which::First).and_then(|low| {
            Ok((low, ask(Which::Stable)?, ask(Which::High)?, self.written(&topics)?))
        });
        let (low, end, high, written) = match asked {
            Ok(asked) => asked,
            Err(error) => return self.again("read the ends of partitions", &error, deadline),
        };
        let notes = self.notes(&topics);
        Ok(Some(Seen { topics, low, end, high, notes, written }))
    }

    /// The notes of the group's committed offsets, where they can be told now.
    fn notes(&self, topics: &BTreeMap<String, Topic>) -> BTreeMap<Partition, Note> {
        let naming = &self.shared.naming;
        let all: Vec<Partition> = naming.partitions(|name| topics.get(name).map(|t| t.partitions));
        // Not the stable ones only: a note does not change with what a transaction is about to commit.
        match self.shared.committed(&all, false, ANSWER) {
            Ok(committed) => committed
                .into_iter()
                .filter_map(|(partition, committed)| Some((partition, committed?.note?)))
                .collect(),
            Err(error) => {
                tracing::debug!(%error, "the group's other offsets are not told");
                BTreeMap::new()
            }
        }
    }

    /// Whether the manifest topic has ever held anything.
    fn written(&self, topics: &BTreeMap<String, Topic>) -> Result<bool, KafkaError> {
        let ends = self.manifest_places(topics, Which::High)?;
        Ok(ends.iter().any(|(_, end)| 0 < *end))
    }

    fn manifest_places(
        &self,
        topics: &BTreeMap<String, Topic>,
        which: Which,
    ) -> Result<Vec<(i32, i64)>, KafkaError> {
        let name = self.shared.naming.manifest.as_str();
        let count = topics.get(name).map_or(0, |topic| topic.partitions);
        let pairs: Vec<(&str, i32)> = (0..count).map(|number| (name, number)).collect();
        let offsets = native::list_offsets(self.shared.look.client(), &pairs, which, ANSWER)?;
        Ok((0..count).zip(offsets).collect())
    }

    /// The written topics must have a partition for each of the input's.
    fn narrow(&self, partition: Partition, seen: &Seen) -> Result<(), Failure> {
        let naming = &self.shared.naming;
        for topic in naming.numbered(partition.topic) {
            let count = seen.topics.get(topic).map_or(0, |topic| topic.partitions);
            if count <= partition.number {
                return Err(Failure {
                    message: format!(
                        "take {}/{}: topic {topic} has {count} partitions, so partition {} cannot be written; \
                         add partitions to {topic}, then start again",
                        naming.input(partition),
                        partition.number,
                        partition.number
                    ),
                    exit: Exit::Config,
                });
            }
        }
        Ok(())
    }

    /// Where one partition begins; `None` to look again.
    fn place(
        &mut self,
        partition: Partition,
        committed: Option<&Committed>,
        seen: &Seen,
        looked: &mut Option<BTreeMap<Input, Manifests>>,
    ) -> Result<Option<begin::Place>, Failure> {
        let shared = Arc::clone(&self.shared);
        let name = shared.naming.input(partition);
        let topic = seen.topics.get(name);
        let offset =
            |of: &BTreeMap<Partition, i64>| Offset(of.get(&partition).copied().unwrap_or(0));
        let siblings = seen.notes.iter().filter(|(p, _)| p.topic == partition.topic);
        let mut facts = Facts {
            name,
            number: partition.number,
            committed: committed.map(|committed| (committed.next, committed.note.clone())),
            low: offset(&seen.low),
            end: offset(&seen.end),
            high: offset(&seen.high),
            topic: topic.and_then(|topic| topic.id.clone()),
            partitions: topic.map_or(0, |topic| topic.partitions),
            sibling: siblings.filter(|(p, _)| **p != partition).map(|(_, note)| note).next(),
            known_group: !seen.notes.is_empty(),
            written: seen.written,
            manifests: None,
            at_first: None,
            now: now_ms(),
        };
        loop {
            let new = !self.doubted.contains_key(&partition);
            let doubted = *self.doubted.entry(partition).or_insert_with(Instant::now);
            let sure = DOUBT <= doubted.elapsed();
            let input = (name.to_owned(), partition.number);
            match begin::begin(&facts, self.policy, sure) {
                Begin::At(place) => {
                    self.doubted.remove(&partition);
                    return Ok(Some(place));
                }
                Begin::Stop(stop) => return Err(stop.into()),
                Begin::Doubtful(begin::Stop(why)) => {
                    if new {
                        tracing::info!("{why}; looking again for {DOUBT:?}");
                    }
                    return Ok(None);
                }
                Begin::NeedTime(time) => {
                    let pair = [(name, partition.number)];
                    let client = shared.look.client();
                    let found = native::list_offsets(client, &pair, Which::Since(time), ANSWER);
                    let found = found.map_err(|error| {
                        shared.failure(
                            "find the offset of the group's first start",
                            &error,
                            Exit::Temporary,
                        )
                    })?;
                    // No record is as young as that: the end.
                    let found = found.first().copied().filter(|offset| 0 <= *offset);
                    facts.at_first = Some(found.map_or(facts.end, Offset));
                }
                Begin::NeedManifests => {
                    if looked.is_none() {
                        *looked = Some(self.manifests(seen)?);
                    }
                    let found = looked.as_ref().and_then(|looked| looked.get(&input));
                    facts.manifests = Some(found.cloned().unwrap_or_default());
                }
            }
        }
    }

    /// What the manifest topic says of every partition that the group claims here. One scan serves all of them.
    fn manifests(&self, seen: &Seen) -> Result<BTreeMap<Input, Manifests>, Failure> {
        let shared = &self.shared;
        let limit = shared.config.kafka.manifest_scan.0;
        tracing::warn!(
            "partitions without a committed offset in a group that has predicted before: reading the manifest \
             topic {} for them, for at most {limit:?}",
            shared.naming.manifest
        );
        let wanted: BTreeSet<Input> = shared
            .claimed()
            .iter()
            .map(|p| (shared.naming.input(*p).to_owned(), p.number))
            .collect();
        let ids =
            seen.topics.iter().map(|(name, topic)| (name.clone(), topic.id.clone())).collect();
        let fail =
            |error| shared.failure("read the ends of the manifest topic", &error, Exit::Temporary);
        let low = self.manifest_places(&seen.topics, Which::First).map_err(fail)?;
        let high = self.manifest_places(&seen.topics, Which::High).map_err(fail)?;
        let places = low.into_iter().zip(high).map(|((p, low), (_, high))| (p, (low, high)));
        let settings = settings::reader(&shared.config, &shared.instance);
        let topic = &shared.naming.manifest;
        let mut reader =
            manifests::Reader::new(&settings, &shared.journal, topic, places.collect())?;
        let deadline = Instant::now() + limit;
        manifests::find(&mut reader, &shared.naming.group, &wanted, &ids, deadline)
    }

    /// Commits where partitions begin, under the group's generation. False where the group has changed meanwhile.
    fn commit(
        &self,
        moved: &[(Partition, Offset, Note)],
        deadline: Instant,
    ) -> Result<bool, Failure> {
        let mut list = TopicPartitionList::with_capacity(moved.len());
        for (partition, next, note) in moved {
            let name = self.shared.naming.input(*partition);
            let mut element = list.add_partition(name, partition.number);
            element.set_metadata(note.to_string());
            element.set_offset(Place::Offset(next.0)).map_err(|error| {
                self.shared.failure("note where partitions begin", &error, Exit::Temporary)
            })?;
        }
        let Some(consumer) = self.shared.consumer() else { return Ok(false) };
        // Without a generation the broker would take it from anybody.
        if native::generation(consumer.client()).is_none() {
            return Ok(false);
        }
        let Err(error) = consumer.commit(&list, CommitMode::Sync) else { return Ok(true) };
        drop(consumer);
        let what = "commit where partitions begin";
        match error.rdkafka_error_code() {
            Some(
                Code::IllegalGeneration
                | Code::UnknownMemberId
                | Code::RebalanceInProgress
                | Code::FencedInstanceId
                | Code::StaleMemberEpoch,
            ) => Ok(false),
            _ => self.again::<()>(what, &error, deadline).map(|_| false),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the time of a group's first start is wall time")]
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

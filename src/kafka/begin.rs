//! Where reading of a partition begins. Pure: facts in, a decision out; the table is the test's.
//!
//! ```text
//!  committed offset? ─┬─ yes ─► of this topic's id? ─► within the log? ─► there
//!                     └─ no ──► first start, new partition, lost group, or another topic of the same name?
//! ```
//!
//! | what is found | what it means |
//! |---|---|
//! | a committed offset with a note of this topic's id, or without a note | the place to go on, or an operator's will |
//! | one with a note of another id | the topic was deleted and created again: `kafka.on_recreated` |
//! | one below the log's start or beyond its end | records are gone, or the log is another: `kafka.on_out_of_range` |
//! | none, and the manifest topic has never held anything | the group's first start: `kafka.start_from` |
//! | none, and a sibling's note says that the topic had fewer partitions at the first start | a new partition: its beginning |
//! | none, and a manifest of this group, partition and topic id | the group's offsets are lost: go on behind it |
//! | none, and a sibling has a note, but no manifest is found | never read so far: its beginning, or the end at the first start |
//! | none, and manifests of another id of this topic | as a note of another id |
//! | none at all | `kafka.on_missing_offset` |
//!
//! Wherever reading does not begin at a committed offset, the place is committed, with the group's generation, before the
//! first record is read. So a second look finds the same place, and no race between two replicas can choose another.

use std::ops::Range;

use crate::config::{MissingOffset, OutOfRange, Recreated, StartFrom};
use crate::failure::{Exit, Failure};
use crate::log::note::Note;
use crate::record::{ModelId, Offset, TopicId};

/// What the configuration says.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// `kafka.start_from`.
    pub start_from: StartFrom,
    /// `kafka.on_missing_offset`.
    pub on_missing: MissingOffset,
    /// `kafka.on_out_of_range`.
    pub on_out_of_range: OutOfRange,
    /// `kafka.on_recreated`.
    pub on_recreated: Recreated,
}

/// A manifest that describes records of the partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The offset behind its records.
    pub next: Offset,
    /// The topic's id when it was written.
    pub topic: Option<TopicId>,
    /// The version that answered.
    pub model: Option<ModelId>,
}

/// What a look into the manifest topic gave for one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifests {
    /// The newest one of this group and the topic's present id.
    pub own: Option<Described>,
    /// The newest one of this group and another id of the topic.
    pub other_topic: Option<Described>,
    /// Another group that has described records of this partition.
    pub other_group: Option<String>,
}

/// What is known of a partition.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// Its topic's name.
    pub name: &'a str,
    /// Its number.
    pub number: i32,
    /// The group's committed offset, and its note where it has one of ours.
    pub committed: Option<(Offset, Option<Note>)>,
    /// The first offset that is there.
    pub low: Offset,
    /// The offset behind the last record that readers of committed records see.
    pub end: Offset,
    /// The offset behind the last record.
    pub high: Offset,
    /// The topic's id now.
    pub topic: Option<TopicId>,
    /// How many partitions it has now.
    pub partitions: i32,
    /// A note of another partition of the same topic.
    pub sibling: Option<&'a Note>,
    /// Whether the group has a committed offset with a note anywhere.
    pub known_group: bool,
    /// Whether the manifest topic has ever held anything.
    pub written: bool,
    /// What it holds of this partition; `None` while nobody has looked.
    pub manifests: Option<Manifests>,
    /// The first offset at or after the group's first start; `None` while nobody has looked.
    pub at_first: Option<Offset>,
    /// Now, in ms since 1970.
    pub now: i64,
}

/// What is decided.
#[derive(Debug, PartialEq)]
pub enum Begin {
    /// Reading begins here.
    At(Place),
    /// The manifest topic must be looked at first.
    NeedManifests,
    /// The offset of this time (ms since 1970) must be asked for first.
    NeedTime(i64),
    /// The offset does not fit the log; the log is to be looked at again before that is believed, because a partition
    /// whose leader has just changed may tell an older end.
    Doubtful(Stop),
    /// It cannot be decided; an operator must.
    Stop(Stop),
}

/// Where reading begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The first offset to read.
    pub next: Offset,
    /// What its commit says.
    pub note: Note,
    /// Why it is not simply the committed offset; then it is committed before the first record is read.
    pub moved: Option<String>,
    /// Whether that is worth a warning: records are passed over, or the group has lost something.
    pub loud: bool,
}

/// Why an operator must decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop(pub String);

impl From<Stop> for Failure {
    fn from(Stop(message): Stop) -> Self {
        Self { message, exit: Exit::Data }
    }
}

/// Decides where reading begins; `sure` believes an offset that does not fit the log.
pub fn begin(facts: &Facts<'_>, policy: Policy, sure: bool) -> Begin {
    match &facts.committed {
        Some((offset, note)) => match note.as_ref().and_then(|note| facts.other_id(note)) {
            Some(old) => facts.recreated(*offset, note.as_ref(), &old, policy),
            None => {
                let note = note.clone().unwrap_or_else(|| facts.fresh());
                facts.reconciled(*offset, note, None, (policy, sure))
            }
        },
        None => facts.missing(policy, sure),
    }
}

impl Facts<'_> {
    fn place(&self) -> String {
        format!("{}/{}", self.name, self.number)
    }

    /// A note of a partition of which nothing is remembered.
    fn fresh(&self) -> Note {
        Note {
            topic: self.topic.clone(),
            model: None,
            first: self.now,
            partitions: self.partitions,
            seen: Offset(0),
            skip: None,
        }
    }

    /// The id in a note, where it is another than the topic's now.
    fn other_id(&self, note: &Note) -> Option<TopicId> {
        let (old, now) = (note.topic.as_ref()?, self.topic.as_ref()?);
        (old != now).then(|| old.clone())
    }

    fn id(&self) -> String {
        self.topic.as_ref().map_or_else(|| "unknown".to_owned(), TopicId::to_string)
    }

    /// Somewhere else than at the committed offset, loudly.
    fn moved(&self, next: Offset, note: Note, why: String) -> Begin {
        Begin::At(Place { loud: true, ..self.place_at(next, note, Some(why)) })
    }

    fn at(&self, next: Offset, note: Note, moved: Option<String>) -> Begin {
        Begin::At(self.place_at(next, note, moved))
    }

    fn place_at(&self, next: Offset, note: Note, moved: Option<String>) -> Place {
        // A topic's id is known to be this one now; so whatever is committed from here on is of it.
        let topic = self.topic.clone().or(note.topic);
        let note = Note { topic, seen: next, ..note };
        Place { next, note, moved, loud: false }
    }

    /// A committed offset of a topic that is not there any more.
    fn recreated(
        &self,
        offset: Offset,
        note: Option<&Note>,
        old: &TopicId,
        policy: Policy,
    ) -> Begin {
        let (place, new) = (self.place(), self.id());
        // Behind the place where the id was compared last, what was committed may be of the new topic already.
        let answered = note.map_or(offset, |note| note.seen)..offset;
        let answered = (answered.start < answered.end).then_some(answered);
        let said = answered.as_ref().map_or_else(String::new, |range| {
            format!(
                "; its offsets {} to {} count as answered, because they may have been before this was noticed",
                range.start,
                range.end.0 - 1
            )
        });
        match policy.on_recreated {
            Recreated::Stop => Begin::Stop(Stop(format!(
                "read {place}: the topic was deleted and created again: offset {offset} was committed for the \
                 topic with id {old}, the one there now has id {new}{said}; set kafka.on_recreated: start to \
                 begin the new topic at its first record without that range"
            ))),
            Recreated::Start => {
                let model = note.and_then(|note| note.model.clone());
                let skip = answered.map(|range| Range { start: range.start.0, end: range.end.0 });
                let note = Note { model, skip, ..self.fresh() };
                let moved = format!("the topic was created again with id {new}{said}");
                self.moved(self.low, note, moved)
            }
        }
    }

    /// An offset that is to be gone on from, held against what the log holds.
    fn reconciled(
        &self,
        offset: Offset,
        note: Note,
        moved: Option<String>,
        (policy, sure): (Policy, bool),
    ) -> Begin {
        let gone = offset < self.low;
        if !gone && offset <= self.high {
            return match moved {
                Some(why) => self.moved(offset, note, why),
                None => self.at(offset, note, None),
            };
        }
        let place = self.place();
        let found = if gone {
            format!(
                "records were deleted before they were read: the group is at {offset}, the first that is there \
                 is {}",
                self.low
            )
        } else {
            format!(
                "the group is at {offset}, beyond the partition's end at {}: its records were lost, or the \
                 offset is of another cluster",
                self.high
            )
        };
        let to = match policy.on_out_of_range {
            _ if !sure => {
                return Begin::Doubtful(Stop(format!("read {place}: {found}")));
            }
            OutOfRange::Stop => {
                return Begin::Stop(Stop(format!(
                    "read {place}: {found}; restore the records or the offset, or set kafka.on_out_of_range: \
                     earliest (go on at {}) or latest (go on at {})",
                    self.low, self.end
                )));
            }
            OutOfRange::Earliest => self.low,
            OutOfRange::Latest => self.end,
        };
        self.moved(to, note, found)
    }

    fn missing(&self, policy: Policy, sure: bool) -> Begin {
        let first = match policy.start_from {
            StartFrom::Earliest => self.low,
            StartFrom::Latest => self.end,
        };
        let begins =
            |why: &str| self.at(first, self.fresh(), Some(format!("the group begins here, {why}")));
        if !self.written && !self.known_group {
            return begins("because nothing was ever predicted from it");
        }
        let sibling = self.sibling.filter(|note| self.other_id(note).is_none());
        if let Some(sibling) = sibling.filter(|note| note.partitions <= self.number) {
            let note = Note { model: None, skip: None, ..sibling.clone() };
            return self.at(self.low, note, Some("the partition is new".to_owned()));
        }
        let policy_start = policy.on_missing == MissingOffset::Start;
        if policy_start && sibling.is_none() {
            return begins("because kafka.on_missing_offset is `start`");
        }
        if !self.written {
            return self.unread(sibling, policy).unwrap_or_else(|| begins("as a new topic"));
        }
        let Some(manifests) = &self.manifests else { return Begin::NeedManifests };
        if let Some(own) = &manifests.own {
            if policy.on_missing == MissingOffset::Stop {
                return Begin::Stop(self.lost(Some(own), manifests));
            }
            let model = own.model.clone();
            let note = sibling.map_or_else(|| self.fresh(), Clone::clone);
            let note = Note { model, skip: None, ..note };
            let moved =
                "the group's committed offset is gone, its newest manifest ends here".to_owned();
            return self.reconciled(own.next, note, Some(moved), (policy, sure));
        }
        if let Some(begin) = self.unread(sibling, policy) {
            return begin;
        }
        if let Some(other) = &manifests.other_topic {
            let note = Note { seen: other.next, ..self.fresh() };
            let note = Note { model: other.model.clone(), ..note };
            return match &other.topic {
                Some(old) => self.recreated(other.next, Some(&note), old, policy),
                None => Begin::Stop(self.lost(Some(other), manifests)),
            };
        }
        // The group is alive and has never had this topic, or there is nothing that could be predicted twice.
        if self.known_group || self.low == self.high {
            return begins("as a topic that is new to the group");
        }
        Begin::Stop(self.lost(None, manifests))
    }

    /// A partition that the group has, and has never read: where it begins.
    fn unread(&self, sibling: Option<&Note>, policy: Policy) -> Option<Begin> {
        let sibling = sibling?;
        let next = match (policy.start_from, self.at_first) {
            (StartFrom::Earliest, _) => self.low,
            (StartFrom::Latest, Some(offset)) => offset,
            (StartFrom::Latest, None) => return Some(Begin::NeedTime(sibling.first)),
        };
        let note = Note { model: None, skip: None, ..sibling.clone() };
        Some(self.at(next, note, Some("the group has it since its first start".to_owned())))
    }

    /// The group has written manifests and has no offset.
    fn lost(&self, described: Option<&Described>, manifests: &Manifests) -> Stop {
        let found = match described {
            Some(Described { next, topic: Some(_), .. }) => {
                format!("its newest manifest ends at {next}")
            }
            Some(Described { next, topic: None, .. }) => {
                format!(
                    "its newest manifest ends at {next}, and does not say which topic of this name it is of"
                )
            }
            None => match &manifests.other_group {
                Some(group) => {
                    format!("its manifests are of the group {group:?}, none is of this one")
                }
                None => "no manifest of this group describes the partition".to_owned(),
            },
        };
        Stop(format!(
            "read {}: the group has no committed offset, and something was predicted before ({found}). The \
             group was deleted, was idle for longer than the brokers' offsets.retention.minutes, or has a new \
             name. Commit the offset to go on from (kafka-consumer-groups.sh --reset-offsets), or set \
             kafka.on_missing_offset: start to begin at kafka.start_from, which may predict records again",
            self.place()
        ))
    }
}

#[cfg(test)]
mod tests;

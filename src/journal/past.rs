//! What the last lives of this replica leave to the next one. Pure: text and numbers in, suspects and verdicts out.
//!
//! ```text
//!  journal of the last life ─► Life ─┐
//!  oom_kill then and now ────────────┼─► Past::judge ─► who runs by itself, who becomes a dead letter,
//!  what earlier lives left ──────────┘                  which version is not loaded again
//! ```
//!
//! Who was in flight when the process died is a *suspect*. Suspects are in the model by themselves, so the next death
//! says more. Nobody is blamed for what something else may have done:
//!
//! * `too_slow`: the record alone in the model overran `limits.inference` twice.
//! * `killed`: the process died three times, of a signal of its own or of the kernel's want of memory, with this record
//!   alone in the model. A SIGKILL that nothing explains (an eviction, `kill -9`) never counts.
//! * Both only where the same version answered other records in each of these lives, before.
//! * A version under which three different batches ended the process, and which has answered nothing, is refused.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::record::FaultClass;

/// Deaths with one record alone that make it `killed`.
const DEATHS: u32 = 3;
/// Overruns with one record alone that make it `too_slow`.
const OVERRUNS: u32 = 2;
/// Different batches that ended the process without any answer, before a version is refused.
const BATCHES: usize = 3;
/// Most ranges that are remembered, and for how many lives.
const MOST: usize = 10_000;
const LIVES: u32 = 100;

/// Records of one partition whose offsets follow each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Span {
    pub(super) topic: String,
    /// The topic's id; `None` where the log has none.
    pub(super) id: Option<String>,
    pub(super) partition: i32,
    pub(super) first: i64,
    pub(super) last: i64,
}

impl Span {
    fn overlaps(&self, other: &Self) -> bool {
        (&self.topic, &self.id, self.partition) == (&other.topic, &other.id, other.partition)
            && self.first <= other.last
            && other.first <= self.last
    }

    pub(super) fn len(&self) -> u64 {
        self.last.abs_diff(self.first).saturating_add(1)
    }
}

/// Records that were in flight when the process died.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Suspect {
    pub(super) span: Span,
    /// At most so many of them are in the model at once.
    pub(super) most: u32,
    /// The version under which it was in flight.
    pub(super) model: String,
    #[serde(default)]
    deaths: u32,
    #[serde(default)]
    overruns: u32,
    /// Kills that nothing explains, with this record alone.
    #[serde(default)]
    pub(super) unexplained: u32,
    /// How many lives ago it was seen last.
    #[serde(default)]
    age: u32,
}

impl Suspect {
    /// What is proven of a single record, for the version [`Suspect::model`].
    pub(super) fn verdict(&self) -> Option<(FaultClass, String)> {
        if OVERRUNS <= self.overruns {
            let message = format!(
                "alone in the model, it took longer than limits.inference {} times, while other records were answered",
                self.overruns
            );
            Some((FaultClass::TooSlow, message))
        } else if DEATHS <= self.deaths {
            let message = format!(
                "the process died {} times with this record alone in the model, while other records were answered",
                self.deaths
            );
            Some((FaultClass::Killed, message))
        } else {
            None
        }
    }
}

/// How a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    /// In order, or it never began.
    None,
    /// The watchdog ended it.
    Overrun,
    /// A signal that the process brought upon itself.
    Signal,
    /// The kernel killed it for want of memory.
    Memory,
    /// It was killed, and nothing says why.
    Unexplained,
}

impl Death {
    /// What a person should know of it, with what to do, as a sentence without its end.
    pub(super) fn told(self) -> Option<&'static str> {
        match self {
            Self::None | Self::Unexplained => None,
            Self::Overrun => Some(
                "The last process of this replica ended because a batch took longer than limits.inference; its records go \
                 into the model by themselves. Where the model is only slow, lower batch.max_records or raise \
                 limits.inference",
            ),
            Self::Signal => Some(
                "The last process of this replica died; the records that it had in the model go in by themselves, so that \
                 the one which ended it becomes a dead letter",
            ),
            Self::Memory => Some(
                "The last process of this replica was killed for want of memory; raise the memory limit, or lower \
                 limits.memory or batch.max_records",
            ),
        }
    }
}

/// A batch that was in the model, or a chunk that was decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flight {
    key: String,
    model: String,
    alone: bool,
    spans: Vec<Span>,
}

/// A life as its journal tells it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Life {
    began: bool,
    oom_kills: Option<u64>,
    flights: Vec<Flight>,
    overran: BTreeSet<String>,
    pub(super) signal: Option<String>,
    answered: BTreeSet<String>,
    loading: Option<String>,
    loaded: BTreeSet<String>,
    closed: bool,
}

impl Life {
    /// Reads a journal. A line that is cut off or not understood says nothing.
    pub(super) fn read(text: &str) -> Self {
        let mut life = Self::default();
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let mut words = line.split(' ');
            let (verb, first) = (words.next().unwrap_or_default(), words.next());
            match (verb, first) {
                (super::FORMAT, kills) => {
                    life.began = true;
                    life.oom_kills = kills.and_then(|kills| kills.parse().ok());
                }
                ("begin", Some(key)) => life.flights.extend(flight(key, words)),
                ("end", Some(key)) => life.flights.retain(|flight| flight.key != key),
                ("overran", Some(key)) => drop(life.overran.insert(key.to_owned())),
                ("signal", Some(name)) => {
                    life.signal.get_or_insert_with(|| name.to_owned());
                }
                ("answered", Some(model)) => drop(life.answered.insert(model.to_owned())),
                ("loading", Some(version)) => life.loading = Some(version.to_owned()),
                ("loaded", Some(version)) => {
                    life.loading = None;
                    life.loaded.insert(version.to_owned());
                }
                ("closed", _) => life.closed = true,
                _ => (),
            }
        }
        life
    }

    /// The records that were in flight.
    #[cfg(test)]
    pub(super) fn spans(&self) -> impl Iterator<Item = &Span> {
        self.flights.iter().flat_map(|flight| &flight.spans)
    }

    /// How it ended, by how often the kernel has killed in this control group by now.
    pub(super) fn death(&self, oom_kills: Option<u64>) -> Death {
        if !self.overran.is_empty() {
            Death::Overrun
        } else if self.closed || !self.began {
            Death::None
        } else if self.signal.is_some() {
            Death::Signal
        } else if self.oom_kills.zip(oom_kills).is_some_and(|(then, now)| then < now) {
            Death::Memory
        } else {
            Death::Unexplained
        }
    }
}

/// `MODEL alone|- TOPIC#ID/PARTITION=5-9,12 …`
fn flight<'a>(key: &str, mut words: impl Iterator<Item = &'a str>) -> Option<Flight> {
    let (model, alone) = (words.next()?, words.next()?);
    let mut spans = Vec::new();
    for word in words {
        let (place, runs) = word.split_once('=')?;
        let (topic, place) = place.split_once('#')?;
        let (id, partition) = place.rsplit_once('/')?;
        let partition = partition.parse().ok()?;
        let id = (id != "-").then(|| id.to_owned());
        for run in runs.split(',') {
            // Offsets are not negative, so a minus separates.
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            spans.push(Span { topic: topic.to_owned(), id: id.clone(), partition, first, last });
        }
    }
    Some(Flight { key: key.to_owned(), model: model.to_owned(), alone: alone == "alone", spans })
}

/// What earlier lives have left.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Past {
    pub(super) suspects: Vec<Suspect>,
    /// By version that has answered nothing: batches that ended the process.
    #[serde(default)]
    unanswered: BTreeMap<String, Vec<Vec<Span>>>,
    /// By version: how often the process died while it was loaded.
    #[serde(default)]
    loads: BTreeMap<String, u32>,
}

impl Past {
    /// How many records are suspected, each counted once.
    pub(super) fn records(&self) -> u64 {
        let mut spans: Vec<&Span> = self.suspects.iter().map(|suspect| &suspect.span).collect();
        spans.sort_by_key(|span| (&span.topic, &span.id, span.partition, span.first));
        let mut count = 0;
        let mut last: Option<(&Span, i64)> = None;
        for span in spans {
            let same = last.filter(|(before, _)| {
                (&before.topic, &before.id, before.partition)
                    == (&span.topic, &span.id, span.partition)
            });
            let from = same.map_or(span.first, |(_, end)| span.first.max(end.saturating_add(1)));
            if from <= span.last {
                count += span.last.abs_diff(from).saturating_add(1);
            }
            last = Some((span, same.map_or(span.last, |(_, end)| end.max(span.last))));
        }
        count
    }

    /// Draws the conclusions from one more life.
    pub(super) fn judge(&mut self, life: &Life, oom_kills: Option<u64>) -> Death {
        let death = life.death(oom_kills);
        for model in &life.answered {
            self.unanswered.remove(model);
        }
        for version in &life.loaded {
            self.loads.remove(version);
        }
        self.suspects.iter_mut().for_each(|suspect| suspect.age += 1);
        if death == Death::None {
            return death;
        }
        if let Some(version) = &life.loading {
            *self.loads.entry(version.clone()).or_default() += 1;
        }
        let blamed =
            |flight: &&Flight| death != Death::Overrun || life.overran.contains(&flight.key);
        let flights: Vec<&Flight> = life.flights.iter().filter(blamed).collect();
        for flight in &flights {
            self.suspect(flight, death, life.answered.contains(&flight.model));
        }
        if let Some(flight) = flights.first().filter(|_| death != Death::Unexplained) {
            self.unanswered_by(flight, life);
        }
        self.suspects.retain(|suspect| suspect.age < LIVES);
        let surplus = self.suspects.len().saturating_sub(MOST);
        self.suspects.drain(..surplus);
        death
    }

    /// Every record of a flight goes into the model by itself, or with fewer others than this time.
    fn suspect(&mut self, flight: &Flight, death: Death, answered: bool) {
        let records: u64 = flight.spans.iter().map(Span::len).sum();
        let most = match death {
            // The cause is one record, or their number: one by one tells at once.
            Death::Signal | Death::Memory => 1,
            // Each may take long by itself.
            Death::None | Death::Overrun | Death::Unexplained => {
                u32::try_from(records / 2).unwrap_or(u32::MAX).max(1)
            }
        };
        for span in &flight.spans {
            let known = self.suspects.iter().position(|suspect| suspect.span == *span);
            let known = known.map(|at| self.suspects.remove(at));
            let mut suspect =
                known.filter(|suspect| suspect.model == flight.model).unwrap_or_else(|| Suspect {
                    span: span.clone(),
                    most,
                    model: flight.model.clone(),
                    deaths: 0,
                    overruns: 0,
                    unexplained: 0,
                    age: 0,
                });
            suspect.most = suspect.most.min(most);
            suspect.age = 0;
            if records == 1 && flight.alone {
                match death {
                    Death::Overrun => suspect.overruns += u32::from(answered),
                    Death::Signal | Death::Memory => suspect.deaths += u32::from(answered),
                    Death::Unexplained => suspect.unexplained += 1,
                    Death::None => (),
                }
            }
            self.suspects.push(suspect);
        }
    }

    fn unanswered_by(&mut self, flight: &Flight, life: &Life) {
        if life.answered.contains(&flight.model) || flight.spans.is_empty() {
            return;
        }
        let batches = self.unanswered.entry(flight.model.clone()).or_default();
        let same = |batch: &Vec<Span>| {
            batch.iter().any(|known| flight.spans.iter().any(|span| span.overlaps(known)))
        };
        if batches.len() < BATCHES && !batches.iter().any(same) {
            batches.push(flight.spans.clone());
        }
        if batches.len() == BATCHES {
            // Whoever was in flight under it is not to blame.
            self.suspects.retain(|suspect| suspect.model != flight.model);
        }
    }

    /// What is known of one record: with how many others it may be in the model.
    pub(super) fn find(&self, topic: &str, partition: i32, offset: i64) -> Option<&Suspect> {
        let has = |suspect: &&Suspect| {
            let Span { topic: of, partition: number, first, last, .. } = &suspect.span;
            of == topic && *number == partition && (*first..=*last).contains(&offset)
        };
        self.suspects.iter().filter(has).min_by_key(|suspect| (suspect.most, suspect.span.len()))
    }

    /// Why the version `NAME/NUMBER` should not serve; `only_sure`: not after a single death while it was loaded.
    pub(super) fn refuses(&self, version: &str, only_sure: bool) -> Option<String> {
        let loads = self.loads.get(version).copied().unwrap_or(0);
        if (if only_sure { 2 } else { 1 }) <= loads {
            return Some(format!("the process died while it was loaded ({loads} times)"));
        }
        let of = |model: &str| model.split_once('@').is_some_and(|(name, _)| name == version);
        let refused =
            self.unanswered.iter().any(|(model, batches)| of(model) && BATCHES <= batches.len());
        refused.then(|| {
            format!(
                "{BATCHES} different batches have ended the process, and it has answered nothing"
            )
        })
    }

    /// A version was loaded. Whether that was news.
    pub(super) fn loaded(&mut self, version: &str) -> bool {
        self.loads.remove(version).is_some()
    }

    /// Forgets what is committed of a partition, or of another topic of its name. Whether that was anything.
    pub(super) fn committed(
        &mut self,
        topic: &str,
        id: Option<&str>,
        partition: i32,
        next: i64,
    ) -> bool {
        let before = self.suspects.len();
        self.suspects.retain(|Suspect { span, .. }| {
            let here = span.topic == topic && span.partition == partition;
            !here || (span.id.as_deref() == id && next <= span.last)
        });
        self.suspects.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLS: Option<u64> = Some(4);

    fn life(lines: &str) -> Life {
        let lines: Vec<&str> = lines.split(';').map(str::trim).collect();
        Life::read(&format!("{} 4\n{}\n", super::super::FORMAT, lines.join("\n")))
    }

    /// Lives one after the other; the kernel kills in none of them.
    fn past(lives: &[&str]) -> Past {
        let mut past = Past::default();
        for lines in lives {
            past.judge(&life(lines), KILLS);
        }
        past
    }

    fn verdict(past: &Past, offset: i64) -> Option<FaultClass> {
        past.find("in", 0, offset)?.verdict().map(|(class, _)| class)
    }

    #[test]
    fn a_life_ends_as_its_journal_says() {
        for (lines, oom_kills, expect) in [
            ("closed", KILLS, Death::None),
            ("closed; signal ABRT", KILLS, Death::None), // a library's end, after ours
            ("begin b1 m/1@a - in#-/0=5; overran b1; closed", KILLS, Death::Overrun),
            ("signal SEGV; signal ABRT", KILLS, Death::Signal),
            ("begin b1 m/1@a - in#-/0=5", Some(5), Death::Memory),
            ("begin b1 m/1@a - in#-/0=5", KILLS, Death::Unexplained),
            ("begin b1 m/1@a - in#-/0=5", None, Death::Unexplained),
        ] {
            assert_eq!(life(lines).death(oom_kills), expect, "{lines}");
        }
        assert_eq!(Life::read("").death(KILLS), Death::None, "the first start");
        let torn = Life::read("tidemill-journal/1 4\nbegin b1 m/1@a - in#-/0=5\nend b");
        assert_eq!((torn.flights.len(), torn.death(KILLS)), (1, Death::Unexplained));
        for strange in ["begin", "begin b", "begin b m x in/0=5", "begin b m - in#-/x=5", "\u{0}"] {
            assert!(life(strange).flights.is_empty(), "{strange}");
        }
    }

    #[test]
    fn a_record_is_killed_after_three_deaths_alone_beside_answers() {
        let first = "begin b1 m/1@a - in#-/0=5-8,10; signal ABRT";
        let alone = "answered m/1@a; begin b2 m/1@a alone in#-/0=7; signal ABRT";
        let one = past(&[first]);
        assert_eq!(one.find("in", 0, 8).map(|suspect| suspect.most), Some(1));
        assert!(one.find("in", 0, 9).is_none(), "it was not in flight");
        assert_eq!(verdict(&past(&[first, alone, alone]), 7), None);
        let three = past(&[first, alone, alone, alone]);
        assert_eq!(verdict(&three, 7), Some(FaultClass::Killed));
        for innocent in [5, 6, 8, 10] {
            assert_eq!(verdict(&three, innocent), None);
        }
    }

    #[test]
    fn a_suspect_of_two_lives_counts_once() {
        let first = "begin b1 m/1@a - in#-/0=5-8,10; signal ABRT";
        let second = "begin b1 m/1@a - in#-/0=7-12; begin b2 m/1@a - in#-/1=7; signal ABRT";
        for (lives, records) in [(vec![first], 5), (vec![first, second], 9), (vec![], 0)] {
            assert_eq!(past(&lives).records(), records, "{lives:?}");
        }
    }

    #[test]
    fn innocent_records_are_not_blamed() {
        let alone = "answered m/1@a; begin b2 m/1@a alone in#-/0=7; ";
        let signal = format!("{alone}signal ABRT");
        let other = "answered m/2@a; begin b2 m/2@a alone in#-/0=7; signal ABRT";
        let rows: [(&str, [&str; 3]); 4] = [
            ("kills that nothing explains", [alone, alone, alone]),
            ("one of them", [&signal, alone, &signal]),
            ("no other record answered", ["begin b2 m/1@a alone in#-/0=7; signal ABRT"; 3]),
            ("under different versions", [&signal, &signal, other]),
        ];
        for (why, lives) in rows {
            assert_eq!(verdict(&past(&lives), 7), None, "{why}");
        }
        let beside = "answered m/1@a; begin b2 m/1@a - in#-/0=7; signal ABRT";
        assert_eq!(verdict(&past(&[beside; 9]), 7), None, "it was not alone");
    }

    #[test]
    fn what_takes_too_long_is_halved_and_then_too_slow() {
        let mut past =
            past(&["begin b1 m/1@a - in#-/0=0-7; begin b2 m/1@a - in#-/0=8; overran b1"]);
        assert_eq!(past.find("in", 0, 3).map(|suspect| suspect.most), Some(4));
        assert!(past.find("in", 0, 8).is_none(), "the other batch was in time");
        for (range, most) in [("0-3", 2), ("2-3", 1)] {
            past.judge(&life(&format!("begin b1 m/1@a alone in#-/0={range}; overran b1")), KILLS);
            assert_eq!(past.find("in", 0, 3).map(|suspect| suspect.most), Some(most));
        }
        let alone = "answered m/1@a; begin b1 m/1@a alone in#-/0=3; overran b1; closed";
        past.judge(&life(alone), KILLS);
        assert_eq!(verdict(&past, 3), None);
        past.judge(&life(alone), KILLS);
        assert_eq!(verdict(&past, 3), Some(FaultClass::TooSlow));
        assert_eq!(verdict(&past, 2), None);
    }

    #[test]
    fn a_version_that_answers_nothing_is_refused_after_three_batches() {
        let batch = |range: &str| format!("begin b m/1@a - in#-/0={range}; signal SEGV");
        let refused = |lives: &[&str]| past(lives).refuses("m/1", true).is_some();
        let (a, b, c) = (batch("0-9"), batch("5"), batch("10"));
        let d = batch("11");
        assert!(refused(&[&a, &c, &d]));
        assert!(!refused(&[&a, &b, &c]), "5 was in the first batch");
        assert!(!refused(&[&a, &c, "answered m/1@a; closed", &d]));
        let past = past(&[&a, &c, &d]);
        assert!(past.suspects.is_empty(), "the version is to blame, not they");
        assert!(past.refuses("m/11", true).is_none());
    }

    #[test]
    fn a_version_that_kills_while_it_is_loaded_is_not_loaded_at_the_next_start() {
        let mut past = past(&["loading m/2"]);
        assert!(past.refuses("m/2", false).is_some());
        assert!(past.refuses("m/2", true).is_none(), "it may be tried beside what serves");
        past.judge(&life("loading m/1; loaded m/1; loading m/2"), KILLS);
        assert!(past.refuses("m/2", true).is_some());
        assert!(past.refuses("m/1", false).is_none());
        past.judge(&life("loading m/2; loaded m/2"), KILLS);
        assert!(past.refuses("m/2", false).is_none());
    }

    #[test]
    fn what_is_committed_or_of_another_topic_is_forgotten() {
        let first = past(&["begin b1 m/1@a - in#abc/0=5-8 in#abc/1=3; signal ABRT"]);
        let mut same = Past { suspects: first.suspects.clone(), ..Past::default() };
        assert!(!same.committed("in", Some("abc"), 0, 8), "8 is still to come");
        assert!(same.committed("in", Some("abc"), 0, 9));
        assert_eq!(same.suspects.len(), 1);
        let mut other = first;
        assert!(other.committed("in", Some("xyz"), 1, 0));
        assert!(other.find("in", 1, 3).is_none());
    }
}

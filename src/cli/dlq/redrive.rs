//! Sends the records of dead letters in again.

#![expect(clippy::disallowed_methods, reason = "a rate and what brokers remember are of the clock")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use super::RedriveArgs;
use super::cannot::{Cannot, Why};
use super::place::{Found, Letters};
use super::progress::{Progress, Walk};
use super::select::Selection;
use super::send::{Item, Moved, Sender};
use crate::cli::terminal;
use crate::config::{Config, topics};
use crate::failure::{Exit, Failure};
use crate::kafka::native::Topic;
use crate::log::headers;
use crate::log::message::{Naming, partition_of};
use crate::printable::{self, counted};
use crate::record::Header;

pub(super) const HELP: &str = "\
Each record goes back to the topic and partition that it came from (where there is no such partition, to the one that its
key says), with the key, value, headers and timestamp that it had; headers whose names begin with `tidemill.` or
`__connect.errors.` are not kept in dead letters and do not come back. The dead-letter topics stay as they are. With its old
timestamp a record may be deleted soon where it is older than the topic's retention.ms; in a compacted topic it becomes the
newest of its key.

Exactly once: a transaction holds the records and, as offsets of the group GROUP.tidemill-dlq, which dead letters they came
from. A run goes on behind what was redriven before, wherever that one ended; what a selection leaves out is left for a
later run. Brokers forget the offsets after a week without a run (offsets.retention.minutes); dead letters that are older
are then redriven with --again only. --again begins at the beginning, each time. The transactional id is tidemill/GROUP/dlq: of two that run at once,
the later one ends the earlier one. Users need the permissions Read on that group and Write on that transactional id.

A record that was redriven has the header tidemill.redrive.attempt: 1; where it becomes a dead letter again, that has it too, and
the next time it is 2. One that came back --attempts times is named and left: what is wrong with it is not mended.

A record whose dead letter does not hold the whole of it (truncated) is named and passed over, as is a message that does not
tell where its record stood. A record that its topic does not take, or whose topic is gone, is named and left. Of many with one
reason the first is named, then one now and then with how many came before it; the end tells how many each reason has. Records of
topics that input.topics does not have are another service's and are passed over.

Exit codes:
  0   everything that was selected is redriven
  65  so is the rest, but some could not be; it is said why
  75  the cluster does not answer, or another one redrives; try again, nothing is redriven twice
  78  the configuration is wrong, or the cluster refuses";

/// Most records of a transaction.
const RECORDS: usize = 500;
/// Most dead letters that are passed over before it is committed how far that is.
const PASSED: usize = 50_000;
/// How long brokers remember the offsets of a group that nobody uses, by default.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3_600);
/// How often it is said how far this has come.
const PROGRESS: Duration = Duration::from_secs(10);
/// Most bytes of a transaction, unless one record has more.
const BYTES: usize = 4 << 20;
/// Most bytes that a broker keeps beside an offset (`offset.metadata.max.bytes` is 4096 by default).
const TEXT: usize = 4_096;

/// Sends in again what is selected.
///
/// # Errors
///
/// As the help says.
pub(super) fn redrive(config: &Config, args: &RedriveArgs) -> Result<(), Failure> {
    let letters = Letters::open(config)?;
    let names: Vec<&str> = match &args.to {
        Some(to) => vec![to.as_str()],
        None => letters.naming.inputs.iter().map(String::as_str).collect(),
    };
    if let Some(why) = args.to.as_deref().and_then(|to| not_a_target(to, &letters.naming)) {
        return Err(Failure {
            message: format!("send records to {:?}: {why}", names[0]),
            exit: Exit::Config,
        });
    }
    let targets = letters.place.topics(&names)?;
    if let Some(to) = args.to.as_ref().filter(|to| !targets.contains_key(*to)) {
        let message = format!(
            "send records to {to}: the topic does not exist or may not be described; create it"
        );
        return Err(Failure { message, exit: Exit::Config });
    }
    // Before it is read what was redriven: what a predecessor has left open must have ended.
    let sender = if args.dry_run { None } else { Some(Sender::open(config, &letters)?) };
    let mut run = Run {
        args,
        selection: Selection::new(&args.select, &config.input.topics),
        inputs: letters.naming.inputs.iter().map(String::as_str).collect(),
        targets,
        sender,
        topic: String::new(),
        walks: BTreeMap::new(),
        committed: BTreeMap::new(),
        chunk: Vec::new(),
        items: 0,
        bytes: 0,
        group: &letters.group,
        remembered: remembered(),
        sent: 0,
        told: Instant::now(),
        counts: Counts::default(),
    };
    for (topic, about) in &letters.topics {
        let mut ends = letters.place.ends(topic, about.partitions)?;
        let progress = letters.progress(topic, &ends)?;
        for (partition, range) in &mut ends {
            let first = progress.get(partition).map_or(0, Progress::first);
            if !args.again {
                run.counts.below |= range.start < first;
                range.start = range.start.max(first).min(range.end);
            }
        }
        run.topic.clone_from(topic);
        run.walks = progress.iter().map(|(p, before)| (*p, Walk::new(before.clone()))).collect();
        run.committed = progress;
        letters.place.read(topic, &ends, |found| run.visit(found))?;
        let ends: BTreeMap<i32, i64> = ends.iter().map(|(p, range)| (*p, range.end)).collect();
        run.flush(&ends)?;
    }
    run.end()
}

/// Why records may not be sent to a topic.
fn not_a_target(to: &str, naming: &Naming) -> Option<String> {
    if let Some(wrong) = topics::not_a_name(to) {
        return Some(format!("Kafka does not take {wrong} as a topic's name; give another one"));
    }
    let own = naming.written().contains(&to) || to.starts_with("__");
    own.then(|| {
        "what this service or the broker writes stands there; give an input topic, or one of its own".to_owned()
    })
}

fn remembered() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.saturating_sub(REMEMBERED).as_millis()).unwrap_or(u64::MAX)
}

/// A dead letter that was read, and not yet committed.
struct Passed {
    partition: i32,
    offset: i64,
    class: &'static str,
    /// Whether it is left for a later run.
    left: bool,
    item: Option<Item>,
}

#[derive(Debug, Default)]
struct Counts {
    redriven: BTreeMap<&'static str, u64>,
    transactions: u64,
    before: u64,
    /// Whether others, below the first that was left, are not read again, and so not counted.
    below: bool,
    unselected: u64,
    foreign: u64,
    cannot: Cannot,
}

struct Run<'a> {
    args: &'a RedriveArgs,
    selection: Selection<'a>,
    inputs: BTreeSet<&'a str>,
    targets: BTreeMap<String, Topic>,
    /// `None` where nothing is written.
    sender: Option<Sender<'a>>,
    /// The dead-letter topic that is read.
    topic: String,
    walks: BTreeMap<i32, Walk>,
    committed: BTreeMap<i32, Progress>,
    chunk: Vec<Passed>,
    /// Records in the chunk, and their bytes.
    items: usize,
    bytes: usize,
    group: &'a str,
    /// Milliseconds since 1970: what was committed since then, the brokers still know.
    remembered: u64,
    /// Records that were sent.
    sent: u64,
    /// When it was said last how far this has come.
    told: Instant,
    counts: Counts,
}

/// What becomes of a dead letter.
enum Verdict {
    Send(Item),
    /// It is none of this run's; `true` where it is left for a later one.
    Pass(bool),
    /// It cannot be sent; `true` where that may change.
    Cannot(Why, bool),
}

impl Run<'_> {
    fn visit(&mut self, found: Found) -> Result<(), Failure> {
        let (partition, offset, class) = (found.partition, found.offset, found.letter.class);
        self.remembers(&found)?;
        let bytes = found.bytes;
        let (left, item) = match self.judge(found) {
            Verdict::Send(item) => (false, Some(item)),
            Verdict::Pass(left) => (left, None),
            Verdict::Cannot(why, left) => {
                self.cannot(partition, offset, &why);
                (left, None)
            }
        };
        if item.is_some() {
            self.items += 1;
            self.bytes += bytes;
        }
        self.chunk.push(Passed { partition, offset, class, left, item });
        // A transaction of no more than a second, so that few go at once.
        let rate = self.args.rate.and_then(|rate| usize::try_from(rate.get()).ok());
        let records = rate.map_or(RECORDS, |rate| rate.min(RECORDS));
        let full = records <= self.items || BYTES <= self.bytes || PASSED <= self.chunk.len();
        if full { self.flush(&BTreeMap::new()) } else { Ok(()) }
    }

    /// Without an offset it is not known whether a dead letter was redriven that is older than a broker remembers.
    fn remembers(&self, found: &Found) -> Result<(), Failure> {
        let walk = self.walks.get(&found.partition);
        let forgotten = walk.is_some_and(Walk::is_unknown)
            && found.letter.written.is_some_and(|written| written < self.remembered)
            && matches!(self.sender, Some(Sender::Kafka(_)));
        if !forgotten || self.args.again {
            return Ok(());
        }
        let message = format!(
            "redrive {found}: group {} has no offset there, and the dead letter is older than the 7 days for which brokers \
             keep one (offsets.retention.minutes): it may have been redriven before. Where it was not, or may be again, \
             give --again; or commit the offset to begin at (kafka-consumer-groups.sh --reset-offsets)",
            self.group
        );
        Err(Failure { message, exit: Exit::Data })
    }

    fn judge(&mut self, found: Found) -> Verdict {
        let Found { partition, offset, letter, .. } = found;
        let done = self.walks.get(&partition).is_some_and(|w| w.was_done(offset, letter.class));
        if done && !self.args.again {
            self.counts.before += 1;
            return Verdict::Pass(false);
        }
        if !self.selection.has(&letter) {
            self.counts.unselected += 1;
            return Verdict::Pass(!done);
        }
        let Some(source) = letter.source else {
            let text = "it has no headers that tell where its record stood".to_owned();
            let reason = "without a place".to_owned();
            return Verdict::Cannot(Why { reason, text }, false);
        };
        if !self.inputs.contains(source.topic.as_str()) {
            self.counts.foreign += 1;
            return Verdict::Pass(false);
        }
        let place = format!("{}/{}/{}", source.topic, source.partition, source.offset);
        if let Some(length) = letter.truncated {
            let length = printable::name(&length);
            let text = format!(
                "it does not hold the whole record, whose value had {length} bytes; the record may still stand in {place}"
            );
            return Verdict::Cannot(Why { reason: "truncated".to_owned(), text }, false);
        }
        if self.args.attempts.get() <= letter.attempt {
            let next = letter.attempt.saturating_add(1);
            let times = match letter.attempt {
                1 => "once".to_owned(),
                times => format!("{times} times"),
            };
            let text = format!(
                "{place} was redriven {times} and came back; mend what `tidemill dlq show` says is wrong, and \
                 then give --attempts {next}"
            );
            return Verdict::Cannot(Why { reason: "came back".to_owned(), text }, !done);
        }
        let topic = self.args.to.clone().unwrap_or(source.topic);
        let Some(about) = self.targets.get(&topic) else {
            let text = format!(
                "topic {topic}, where {place} stood, does not exist or may not be described; create it, or name another \
                 one with --to"
            );
            return Verdict::Cannot(Why { reason: format!("no topic {topic}"), text }, !done);
        };
        let count = u16::try_from(about.partitions).unwrap_or(u16::MAX);
        let same = (0..about.partitions).contains(&source.partition);
        let partition = if same {
            source.partition
        } else {
            partition_of(letter.original.key.as_deref(), count)
        };
        let mut original = letter.original;
        original.headers.push(Header {
            name: headers::ATTEMPT.as_bytes().to_vec(),
            value: Some(letter.attempt.saturating_add(1).to_string().into_bytes()),
        });
        Verdict::Send(Item { topic, partition, original })
    }

    fn cannot(&mut self, partition: i32, offset: i64, why: &Why) {
        let place = format!("{}/{partition}/{offset}", self.topic);
        if let Some(line) = self.counts.cannot.add(&place, why, Instant::now()) {
            terminal::note(line);
        }
    }

    /// Commits what was read, in one transaction, or in none where nothing is written. `ends` are the partitions that are
    /// read to their ends.
    fn flush(&mut self, ends: &BTreeMap<i32, i64>) -> Result<(), Failure> {
        let mut chunk = std::mem::take(&mut self.chunk);
        (self.items, self.bytes) = (0, 0);
        loop {
            let mut walks = self.walks.clone();
            for Passed { partition, offset, class, left, .. } in &chunk {
                if let Some(walk) = walks.get_mut(partition) {
                    walk.pass(*offset, class, *left);
                }
            }
            for (partition, walk) in &mut walks {
                if let Some(end) = ends.get(partition) {
                    walk.end(*end);
                }
            }
            let moved = self.moved(&walks, !ends.is_empty())?;
            let items: Vec<&Item> =
                chunk.iter().filter_map(|passed| passed.item.as_ref()).collect();
            let refused = match &mut self.sender {
                Some(sender) if !items.is_empty() || !moved.is_empty() => {
                    let named: Vec<Moved<'_>> =
                        moved.iter().map(|(p, m)| (self.topic.as_str(), *p, m.clone())).collect();
                    sender.send(&items, &named)?
                }
                Some(_) | None => Vec::new(),
            };
            if refused.is_empty() {
                self.count(&chunk)?;
                self.walks = walks;
                self.committed.extend(moved);
                self.pace(chunk.iter().filter(|passed| passed.item.is_some()).count());
                return Ok(());
            }
            let mut sent: Vec<&mut Passed> =
                chunk.iter_mut().filter(|passed| passed.item.is_some()).collect();
            for (place, words) in refused {
                let Some(passed) = sent.get_mut(place) else { continue };
                let Some(item) = passed.item.take() else { continue };
                let walk = self.walks.get(&passed.partition);
                passed.left = walk.is_none_or(|w| !w.was_done(passed.offset, passed.class));
                let text = format!("topic {} does not take it: {words}", item.topic);
                let why = Why { reason: format!("not taken by {}", item.topic), text };
                let (partition, offset) = (passed.partition, passed.offset);
                self.cannot(partition, offset, &why);
            }
        }
    }

    /// So many records were sent: waits as the rate says, and now and then says how far this has come.
    fn pace(&mut self, records: usize) {
        self.sent += u64::try_from(records).unwrap_or(0);
        if self.args.dry_run {
            return;
        }
        if PROGRESS <= self.told.elapsed() {
            self.told = Instant::now();
            terminal::note(format_args!("redriven so far: {}", self.sent));
        }
        if let Some(rate) = self.args.rate {
            let records = u32::try_from(records).unwrap_or(u32::MAX);
            let took = Duration::from_secs_f64(f64::from(records) / f64::from(rate.get()));
            // No transaction is open: what ends the command here ends nothing else.
            std::thread::sleep(took);
        }
    }

    /// The partitions in which something has changed; at the end of the topic all of which something is known, so that
    /// brokers go on remembering it.
    fn moved(
        &self,
        walks: &BTreeMap<i32, Walk>,
        all: bool,
    ) -> Result<BTreeMap<i32, Progress>, Failure> {
        let now = walks.iter().map(|(partition, walk)| (*partition, walk.progress()));
        let changed = |(partition, now): &(i32, Progress)| {
            now.is_any() && (all || self.committed.get(partition) != Some(now))
        };
        let moved: BTreeMap<i32, Progress> = now.filter(changed).collect();
        match moved.iter().find(|(_, progress)| TEXT < progress.text().len()) {
            Some((partition, _)) if self.sender.is_some() => {
                let message = format!(
                    "redrive {}/{partition}: what was selected now and before is scattered over too many places to be kept \
                     beside an offset; select more at once: whole classes, or wider ranges",
                    self.topic
                );
                Err(Failure { message, exit: Exit::Data })
            }
            Some(_) | None => Ok(moved),
        }
    }

    fn count(&mut self, chunk: &[Passed]) -> Result<(), Failure> {
        let mut any = false;
        for Passed { partition: from, offset, class, item, .. } in chunk {
            let Some(Item { topic, partition, .. }) = item else { continue };
            *self.counts.redriven.entry(class).or_default() += 1;
            any = true;
            if self.args.dry_run {
                if self.args.json {
                    let record = json!({
                        "topic": self.topic, "partition": from, "offset": offset, "class": class,
                        "to": {"topic": topic, "partition": partition},
                    });
                    terminal::line(printable::json(&record))?;
                } else {
                    let name = format!("{}/{from}/{offset}", self.topic);
                    terminal::line(format_args!("{name}  {class}  to {topic}/{partition}"))?;
                }
            }
        }
        self.counts.transactions += u64::from(any);
        Ok(())
    }

    fn end(self) -> Result<(), Failure> {
        let Counts { redriven, transactions, before, below, unselected, foreign, cannot } =
            self.counts;
        let total: u64 = redriven.values().sum();
        let failed = cannot.total();
        let failure = || {
            let letters = counted(failed, "dead letter", "dead letters");
            let message = format!("{letters} cannot be redriven: {}", cannot.in_words());
            Failure { message, exit: Exit::Data }
        };
        if self.args.json {
            let counts = json!({
                "redriven": total, "dry_run": self.args.dry_run, "classes": redriven,
                "transactions": if self.args.dry_run { 0 } else { transactions },
                "redriven_before": before, "redriven_below_first_left": below, "not_selected": unselected, "foreign": foreign, "failed": failed,
                "reasons": cannot.counts(),
            });
            terminal::line(printable::json(&counts))?;
            return if failed == 0 { Ok(()) } else { Err(failure()) };
        }
        let verb = if self.args.dry_run { "would be redriven" } else { "redriven" };
        let mut parts = vec![format!("{verb}: {total}")];
        if total != 0 {
            let classes = redriven.iter().map(|(class, count)| format!("{class} {count}"));
            parts.push(classes.collect::<Vec<_>>().join(", "));
        }
        for (count, what) in [
            (if self.args.dry_run { 0 } else { transactions }, "transactions"),
            (before, "redriven before"),
            (unselected, "not selected"),
            (foreign, "of topics that input.topics does not have"),
            (failed, "cannot be redriven"),
        ] {
            if count != 0 {
                parts.push(format!("{what}: {count}"));
            }
        }
        if failed != 0 {
            parts.push(cannot.in_words());
        }
        if below {
            parts.push(
                "what lies before the first letter that was left was redriven earlier".to_owned(),
            );
        }
        terminal::line(parts.join("; "))?;
        if failed == 0 { Ok(()) } else { Err(failure()) }
    }
}

//! The order in which things are asked, so that a running service is never accused of what it is about to commit.
//!
//! | order | asked or read                                  | because                                                  |
//! |------:|------------------------------------------------|----------------------------------------------------------|
//! |     1 | committed offsets                              | only what lies below them is judged for completeness     |
//! |     2 | ends of the manifest and outcome topics        | whatever was committed before 1 was written before 2     |
//! |     3 | that no transaction below those ends is open   | so that all of it is visible                             |
//! |     4 | manifests, input, outcomes, each to its end    |                                                          |
//! |     5 | manifests, up to the end of now                | an outcome that was seen has its manifest there          |
//! |     6 | committed offsets                              | an outcome that was seen lies below them, or is forged   |

use std::collections::BTreeMap;

use rdkafka::message::{BorrowedMessage, Message as _};

use super::{Args, again};
use crate::cli::cluster::{Cluster, Committed, Ends};
use crate::config::{Config, Headers, MissingOffset, OutOfRange, OutputPartition, StartFrom};
use crate::failure::{Exit, Failure};
use crate::kafka::native;
use crate::log::message::Naming;
use crate::verify::recompute::{Sample, Samples};
use crate::verify::{After, At, Checker, Input, Manifest, Message, Report, Scope, Topic};

/// What was asked before anything was read.
struct Before {
    naming: Naming,
    /// Names and ids of the topics that exist.
    topics: BTreeMap<String, native::Topic>,
    policies: BTreeMap<String, String>,
    /// The input partitions, and what is committed there.
    places: Vec<(String, i32)>,
    committed: Vec<Committed>,
    /// Topics with outcomes; the first is the output topic.
    logs: Vec<String>,
}

/// Reads everything and judges it.
///
/// # Errors
///
/// Nothing to prove (65), a cluster that does not answer (75) or refuses (78).
pub(super) fn prove(config: &Config, args: &Args, own_group: bool) -> Result<Report, Failure> {
    let cluster = Cluster::new(config, "tidemill-verify")?;
    let before = Before::ask(&cluster, config)?;
    let (manifests, logs) = before.ends(&cluster)?;
    let mut checker = Checker::new(before.scope(config, args, own_group));
    let manifest = &before.naming.manifest;

    let mut deleted = Deleted::default();
    read_manifests(&cluster, manifest, &manifests, &mut checker, &mut deleted)?;
    let now = cluster.ends(manifest, before.count(manifest))?;
    checker.manifests_read(deleted.until(&now));
    read_input(&cluster, &before, args, &mut checker)?;
    let mut samples = Samples::new(args.recompute);
    for (log, (name, ends)) in before.logs.iter().zip(&logs).enumerate() {
        read_outcomes(&cluster, (log, name), ends, &mut checker, &mut samples)?;
    }
    let mut newer = cluster.ends(manifest, before.count(manifest))?;
    for (partition, range) in &mut newer {
        range.start = manifests.get(partition).map_or(range.start, |read| read.end);
    }
    cluster.settle(manifest, &newer)?;
    read_manifests(&cluster, manifest, &newer, &mut checker, &mut Deleted::default())?;
    checker.manifests_read(deleted.until(&now));

    let after = before.after(&cluster, &checker)?;
    let models = checker.models().to_vec();
    let mut report = checker.finish(&after);
    if args.recompute != 0 {
        again::answer(&cluster, config, (&before.places, &models), &samples, &mut report)?;
    }
    report.effort = cluster.effort();
    Ok(report)
}

impl Before {
    fn ask(cluster: &Cluster, config: &Config) -> Result<Self, Failure> {
        let nothing = |message: String| Failure { message, exit: Exit::Data };
        let naming = Naming::new(config);
        let mut logs = vec![naming.output.clone()];
        for name in &naming.dead_letters {
            if !logs.contains(name) {
                logs.push(name.clone());
            }
        }
        let mut names: Vec<&str> = naming.inputs.iter().chain(&logs).map(String::as_str).collect();
        names.push(&naming.manifest);
        let topics = cluster.topics(&names)?;
        if let Some(name) =
            names.iter().find(|name| topics.get(**name).is_none_or(|t| t.partitions == 0))
        {
            return Err(nothing(format!(
                "topic {name} does not exist, or may not be described: there is nothing to prove; compare the names \
                 under input, output, dead_letters and manifest"
            )));
        }
        let partitions = |name: &String| {
            (0..topics[name].partitions).map(|number| (name.clone(), number)).collect::<Vec<_>>()
        };
        let places: Vec<(String, i32)> = naming.inputs.iter().flat_map(partitions).collect();
        let committed = cluster.committed(&places)?;
        if committed.iter().all(|committed| committed.next.is_none()) {
            return Err(nothing(format!(
                "group {} has committed no offset in {}: there is nothing to prove; is kafka.group right? Offsets of \
                 a group that is idle expire (offsets.retention.minutes)",
                naming.group,
                naming.inputs.join(", ")
            )));
        }
        let policies = cluster.policies(&names);
        Ok(Self { naming, topics, policies, places, committed, logs })
    }

    fn count(&self, topic: &str) -> i32 {
        self.topics.get(topic).map_or(0, |topic| topic.partitions)
    }

    /// The ends of the manifest topic and of the topics with outcomes, below which nothing is open.
    fn ends(&self, cluster: &Cluster) -> Result<(Ends, Vec<Ends>), Failure> {
        let of = |name: &String| cluster.ends(name, self.count(name));
        let logs: Vec<Ends> = self.logs.iter().map(of).collect::<Result<_, _>>()?;
        let manifests = of(&self.naming.manifest)?;
        for (name, ends) in self.logs.iter().zip(&logs) {
            cluster.settle(name, ends)?;
        }
        cluster.settle(&self.naming.manifest, &manifests)?;
        Ok((manifests, logs))
    }

    fn is_compacted(&self, topic: &str) -> Option<bool> {
        self.policies.get(topic).map(|policy| policy.contains("compact"))
    }

    fn scope(&self, config: &Config, args: &Args, own_group: bool) -> Scope {
        let topic = |name: &String| Topic {
            name: name.clone(),
            id: self
                .topics
                .get(name)
                .and_then(|topic| topic.id.as_ref())
                .map(|id| id.0.to_string()),
            compacted: self.is_compacted(name).unwrap_or(true),
        };
        let inputs = &self.naming.inputs;
        let input = |((name, number), committed): (&(String, i32), &Committed)| Input {
            topic: inputs.iter().position(|input| input == name).unwrap_or(0),
            number: *number,
            committed: committed.next,
            note: committed.note.clone(),
            until: args.to.unwrap_or(i64::MAX).min(committed.next.unwrap_or(0)),
        };
        let is_latest = config.kafka.start_from == StartFrom::Latest;
        let log = |name: &String| self.logs.iter().position(|log| log == name).unwrap_or(0);
        Scope {
            group: self.naming.group.clone(),
            topics: inputs.iter().map(topic).collect(),
            partitions: self.places.iter().zip(&self.committed).map(input).collect(),
            logs: self.logs.clone(),
            dead_letters: self.naming.dead_letters.iter().map(log).collect(),
            by_key: config.output.partition == OutputPartition::Key,
            silent: config.output.headers == Headers::None,
            from: args.from,
            anywhere: is_latest || !own_group,
            jumps: config.kafka.on_out_of_range == OutOfRange::Latest
                || is_latest && config.kafka.on_missing_offset == MissingOffset::Start,
        }
    }

    /// The last look.
    fn after(&self, cluster: &Cluster, checker: &Checker) -> Result<After, Failure> {
        let mut committed: Vec<Option<i64>> =
            cluster.committed(&self.places)?.into_iter().map(|committed| committed.next).collect();
        for (at, place) in self.places.iter().enumerate() {
            if committed[at].unwrap_or(0) < checker.reach(at) {
                committed[at] = cluster.settled(place.clone())?.next;
            }
        }
        let mut cut = BTreeMap::new();
        for (log, name) in self.logs.iter().enumerate() {
            for (partition, ends) in cluster.ends(name, self.count(name))? {
                cut.insert((log, partition), 0 < ends.start);
            }
        }
        let compacted = |name: &String| self.is_compacted(name).unwrap_or(false);
        Ok(After { committed, cut, compacted: self.logs.iter().map(compacted).collect() })
    }
}

/// When the first manifests that are left were written, by partition.
#[derive(Default)]
struct Deleted(BTreeMap<i32, i64>);

impl Deleted {
    /// Before when batches were made whose manifests are not there any more; `None` where all of them are.
    fn until(&self, ends: &Ends) -> Option<i64> {
        let cut = ends.iter().filter(|(_, range)| 0 < range.start);
        cut.map(|(partition, _)| self.0.get(partition).copied().unwrap_or(i64::MAX)).max()
    }
}

fn read_manifests(
    cluster: &Cluster,
    topic: &str,
    ends: &Ends,
    checker: &mut Checker,
    deleted: &mut Deleted,
) -> Result<(), Failure> {
    cluster.read(topic, ends, |message| {
        let time = message.timestamp().to_millis().unwrap_or(i64::MAX);
        deleted.0.entry(message.partition()).or_insert(time);
        if let Some(value) = message.payload() {
            let at = || format!("{topic}/{}/{}", message.partition(), message.offset());
            checker.manifest(Manifest::read(value).ok().as_ref(), &at);
        }
        Ok(())
    })
}

fn read_input(
    cluster: &Cluster,
    before: &Before,
    args: &Args,
    checker: &mut Checker,
) -> Result<(), Failure> {
    for topic in &before.naming.inputs {
        let of = |(place, _): &(usize, &(String, i32))| before.places[*place].0 == *topic;
        let places: Vec<(usize, i32)> = before
            .places
            .iter()
            .enumerate()
            .filter(of)
            .map(|(at, (_, number))| (at, *number))
            .collect();
        let mut ends = cluster.ends(topic, before.count(topic))?;
        for (place, number) in &places {
            if let Some(range) = ends.get_mut(number) {
                let until =
                    before.committed[*place].next.unwrap_or(0).min(args.to.unwrap_or(i64::MAX));
                *range = range.start.max(args.from)..range.end.min(until);
            }
        }
        let first = places.first().map_or(0, |(place, _)| *place);
        cluster.read(topic, &ends, |message| {
            // A topic's partitions stand side by side, in the order of their numbers.
            let number = usize::try_from(message.partition()).unwrap_or(usize::MAX);
            checker.record(first + number, message.offset());
            Ok(())
        })?;
        let begins = cluster.ends(topic, before.count(topic))?;
        for (place, number) in places {
            checker.input_read(place, begins.get(&number).cloned().unwrap_or(0..0));
        }
    }
    Ok(())
}

fn read_outcomes(
    cluster: &Cluster,
    (log, topic): (usize, &String),
    ends: &Ends,
    checker: &mut Checker,
    samples: &mut Samples,
) -> Result<(), Failure> {
    cluster.read(topic, ends, |message: &BorrowedMessage<'_>| {
        let headers = native::headers(message);
        let at = At { log, partition: message.partition(), offset: message.offset() };
        match Message::read(&headers, message.payload().is_some(), log == 0) {
            Message::Outcome(outcome) => {
                let Some(counted) = checker.outcome(at, &outcome) else { return Ok(()) };
                samples.offer(counted, outcome.what, outcome.offset, || Sample {
                    partition: counted.partition,
                    offset: outcome.offset,
                    what: outcome.what,
                    value: message.payload().map(<[u8]>::to_vec),
                    class: outcome.class.unwrap_or_default().to_owned(),
                });
            }
            Message::Silent => checker.silent(at),
            Message::Broken => checker.broken(at),
            Message::Foreign => checker.foreign(),
        }
        Ok(())
    })
}

//! A table for each verdict.

use super::report::Kind::{
    self, Beyond, Count, Disorder, Duplicate, Lost, Mixed, Uncovered, Unknown, Version,
};
use super::*;
use crate::log::note::Note;
use crate::record::{Offset, TopicId};

/// A batch's id: a text as it is, or a UUID of this many seconds after 1970 for `@SECONDS`.
fn id(text: &str) -> String {
    let Some(seconds) = text.strip_prefix('@') else { return text.to_owned() };
    let millis = seconds.parse::<u64>().unwrap() * 1_000;
    uuid::Builder::from_unix_timestamp_millis(millis, &[1; 10]).into_uuid().to_string()
}

/// One partition of a topic `in`, and the facts of a script, in any order:
///
/// * `r:0-4` records; `m:BATCH:VERSION:FIRST-NEXT:COUNT[:KEY=VALUE]` a manifest, with `dead`, `group`, `id`, `prev`,
///   `records`, `predictions`, `piece` (`1/2`);
/// * `o:OFFSET:BATCH:VERSION`, `d:…`, `t:…` a prediction, a dead letter, a tombstone; `x` one without headers;
/// * `c:N` and `C:N` the committed offset before and after; `from:N`, `to:N`, `low:N`; `cut:out`, `cut:dlq`, `gone:SECONDS`
///   what was deleted; `latest`, `jumps`, `silent`, `compacted:in`, `compacted:out`, `skip:7-9`, `note:ID`, `parts:N`.
#[derive(Debug, Default)]
struct Script<'a>(Vec<Vec<&'a str>>);

impl<'a> Script<'a> {
    fn new(text: &'a str) -> Self {
        Self(text.split_whitespace().map(|fact| fact.split(':').collect()).collect())
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &[&'a str]> {
        self.0.iter().filter(move |fact| fact[0] == name).map(|fact| &fact[1..])
    }

    fn one(&self, name: &str) -> Option<&'a str> {
        self.all(name).next().map(|fact| fact.first().copied().unwrap_or_default())
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.one(name).map(|text| text.parse().unwrap())
    }

    fn records(&self) -> Vec<i64> {
        self.all("r").flat_map(|fact| range(fact[0])).collect()
    }

    fn scope(&self) -> Scope {
        let committed = self.committed();
        let skip = self.one("skip").map(range);
        let noted = self
            .one("note")
            .or_else(|| self.one("parts").or_else(|| self.one("skip")).map(|_| "T"));
        let note = noted.map(|id| Note {
            topic: Some(TopicId(id.into())),
            model: None,
            first: 0,
            partitions: self.number("parts").map_or(1, |n| i32::try_from(n).unwrap()),
            seen: Offset(0),
            skip,
        });
        let compacted = self.all("compacted").any(|fact| fact[0] == "in");
        let until = self.number("to").unwrap_or(i64::MAX).min(committed);
        Scope {
            group: "g".to_owned(),
            topics: vec![Topic { name: "in".to_owned(), id: Some("T".to_owned()), compacted }],
            partitions: vec![Input {
                topic: 0,
                number: 0,
                committed: Some(committed),
                note,
                until,
            }],
            logs: vec!["out".to_owned(), "dlq".to_owned()],
            dead_letters: vec![1],
            by_key: false,
            silent: self.one("silent").is_some(),
            from: self.number("from").unwrap_or(0),
            anywhere: self.one("latest").is_some(),
            jumps: self.one("jumps").is_some(),
        }
    }

    fn committed(&self) -> i64 {
        let last = self.records().last().map_or(0, |last| last + 1);
        self.number("c").unwrap_or(last)
    }

    fn manifest(fact: &[&str]) -> Manifest {
        let [batch, version, offsets, count, ref rest @ ..] = *fact else { panic!("{fact:?}") };
        let get =
            |key: &str| rest.iter().find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        let number = |key: &str| get(key).map(|text| text.parse::<u64>().unwrap());
        let range = range(offsets);
        let count: u64 = count.parse().unwrap();
        let records = number("records").unwrap_or(count);
        let dead_letters = number("dead").unwrap_or(0);
        let piece = get("piece").map(|text| text.split_once('/').unwrap());
        Manifest {
            batch_id: id(batch),
            piece: piece.map(|(piece, _)| piece.parse().unwrap()),
            pieces: piece.map(|(_, pieces)| pieces.parse().unwrap()),
            group: Some(get("group").unwrap_or("g").to_owned()),
            model: "m".to_owned(),
            version: version.parse().unwrap(),
            records,
            predictions: number("predictions").unwrap_or(records - dead_letters),
            dead_letters,
            ranges: vec![Range {
                topic: "in".to_owned(),
                topic_id: Some(get("id").unwrap_or("T").to_owned()),
                partition: 0,
                first: range.start,
                next: range.end,
                count,
                previous: get("prev").map(|version| format!("m/{version}")),
            }],
            ..Manifest::default()
        }
    }

    fn judge(&self) -> Report {
        let mut checker = Checker::new(self.scope());
        for fact in self.all("m") {
            checker.manifest(Some(&Self::manifest(fact)), &|| "manifest".to_owned());
        }
        checker.manifests_read(self.number("gone").map(|seconds| seconds * 1_000));
        self.records().into_iter().for_each(|offset| checker.record(0, offset));
        checker.input_read(0, self.number("low").unwrap_or(0)..i64::MAX);
        let mut at =
            [At { log: 0, partition: 0, offset: 0 }, At { log: 1, partition: 0, offset: 0 }];
        for fact in &self.0 {
            let (log, what) = match fact[0] {
                "o" => (0, What::Prediction),
                "t" => (0, What::Tombstone),
                "d" => (1, What::DeadLetter),
                "x" => {
                    checker.silent(at[0]);
                    continue;
                }
                _ => continue,
            };
            let batch = id(fact[2]);
            let outcome = Outcome {
                what,
                topic: Some("in"),
                partition: Some(0),
                offset: fact[1].parse().unwrap(),
                batch: &batch,
                version: Some(fact[3].parse().unwrap()),
                model: Some("m"),
                digest: None,
                class: None,
            };
            checker.outcome(at[log], &outcome);
            at[log].offset += 1;
        }
        let is = |kind: &str, name: &str| self.all(kind).any(|fact| fact[0] == name);
        let cut = ["out", "dlq"].into_iter().enumerate();
        let after = After {
            committed: vec![self.number("C").or_else(|| Some(self.committed()))],
            cut: cut.map(|(log, name)| ((log, 0), is("cut", name))).collect(),
            compacted: vec![is("compacted", "out"), is("compacted", "dlq")],
        };
        checker.finish(&after)
    }
}

fn range(text: &str) -> std::ops::Range<i64> {
    let (first, next) = text.split_once('-').unwrap();
    first.parse().unwrap()..next.parse().unwrap()
}

#[track_caller]
fn violated(script: &str, expect: &[Kind]) {
    let report = Script::new(script).judge();
    let kinds: Vec<Kind> = report.violations.keys().copied().collect();
    assert_eq!(kinds, expect, "{script}\n{report}");
    assert!(!report.holds());
}

/// Nothing is violated; so many offsets are proven, and these are named as open, each for a reason that has this word.
#[track_caller]
fn open(script: &str, proven: u64, expect: &[(i64, i64, &str)]) {
    let report = Script::new(script).judge();
    let open: Vec<(i64, i64)> =
        report.unproven.iter().map(|unproven| unproven.offsets.unwrap_or((-1, -1))).collect();
    let wanted: Vec<(i64, i64)> = expect.iter().map(|(first, last, _)| (*first, *last)).collect();
    assert_eq!((report.proven, open), (proven, wanted), "{script}\n{report}");
    for (unproven, (.., word)) in report.unproven.iter().zip(expect) {
        assert!(unproven.because.contains(word), "{script}: {word} in {unproven}");
    }
    assert!(report.violations.is_empty() && report.holds() == (proven != 0), "{script}\n{report}");
}

#[test]
fn what_is_whole_is_proven() {
    open("", 0, &[]);
    open("r:0-2 m:a:1:0-2:2 o:0:a:1 o:1:a:1", 2, &[]);
    // Gaps are control records and aborted ones; a dead letter and a tombstone are outcomes.
    open("r:0-2 r:3-4 m:a:1:0-4:3:dead=1 o:0:a:1 d:1:a:1 o:3:a:1 c:9", 3, &[]);
    // An upgrade, and a rollback that its range records; plain directories are never older.
    open("r:0-2 m:a:1:0-1:1 m:b:2:1-2:1:prev=1 o:0:a:1 o:1:b:2", 2, &[]);
    open("r:0-2 m:a:2:0-1:1 m:b:1:1-2:1:prev=2 o:0:a:2 o:1:b:1", 2, &[]);
    // A running service: what is committed meanwhile is not judged.
    open("r:0-1 m:a:1:0-1:1 m:b:1:1-2:1 o:0:a:1 o:1:b:1 c:1 C:2", 1, &[]);
    // A manifest that is read after the outcomes it tells of.
    open("r:0-1 m:a:1:0-1:1 o:0:a:1 o:1:b:1 c:1 C:2 m:b:1:1-2:1", 1, &[]);
    // Outcomes of another group, and of an earlier topic of this name that was longer.
    open("r:0-1 m:a:1:0-1:1 m:b:1:0-1:1:group=h o:0:b:1 o:0:a:1", 1, &[]);
    open("r:0-1 m:a:1:0-9:1:id=S m:b:1:0-1:1 o:8:a:1 o:0:b:1", 1, &[]);
    // A range of offsets only.
    open(
        "r:2-4 from:2 to:4 c:9 m:a:1:0-3:3 m:b:1:3-6:3 o:0:a:1 o:1:a:1 o:2:a:1 o:3:b:1 o:4:b:1 o:5:b:1",
        2,
        &[],
    );
    // A manifest in pieces.
    open(
        "r:0-2 m:a:1:0-1:1:records=2:piece=1/2 m:a:1:1-2:1:records=2:piece=2/2 o:0:a:1 o:1:a:1",
        2,
        &[],
    );
}

#[test]
fn each_violation_is_found() {
    violated("r:0-2 m:a:1:0-1:1 o:0:a:1", &[Lost]);
    violated("r:0-2 m:a:1:0-2:2 o:0:a:1", &[Lost, Count]);
    violated("r:1-2 low:1 m:a:1:0-2:2 o:1:a:1", &[Count]);
    violated("r:0-1 m:a:1:0-1:1 m:b:1:0-1:1 o:0:a:1 o:0:b:1", &[Duplicate, Count]);
    violated("r:0-1 m:a:1:0-1:1 o:0:a:1 d:0:a:1", &[Duplicate]);
    violated("r:0-2 m:a:1:0-2:2 o:1:a:1 o:0:a:1", &[Disorder]);
    violated("r:0-2 m:a:1:0-2:2 o:0:a:1 o:1:a:2", &[Mixed]);
    violated("r:0-1 m:a:1:0-1:1:dead=1 d:0:a:2", &[Mixed]);
    violated("r:0-1 o:0:a:1", &[Uncovered]);
    violated("r:0-2 m:a:1:0-1:1 o:0:a:1 o:1:a:1", &[Uncovered]);
    violated("r:0-1 m:a:1:0-1:1 m:a:1:0-1:1 o:0:a:1", &[Kind::Manifest]);
    violated("r:0-1 m:a:1:0-1:1:records=2:piece=1/2 o:0:a:1", &[Kind::Manifest]);
    violated("r:0-2 m:a:1:0-2:1 o:0:a:1 o:1:a:1", &[Count]);
    violated("r:0-1 m:a:1:0-1:1:dead=1 o:0:a:1", &[Count]);
    violated("r:0-1 m:a:1:0-1:1:predictions=2 o:0:a:1", &[Count]);
    violated("r:0-1 m:a:1:0-1:1 t:0:a:1", &[Count]);
    violated("r:0-1 r:2-3 m:a:1:0-3:3 o:0:a:1 o:1:a:1 o:2:a:1", &[Unknown]);
    violated("r:0-1 m:a:1:0-1:1 o:0:a:1 x", &[Unknown]);
}

#[test]
fn nothing_lies_beyond_the_committed_offset() {
    violated("r:0-1 m:a:1:0-1:1 o:0:a:1 o:7:b:1", &[Beyond]);
    violated("r:0-1 m:a:1:0-1:1 o:0:a:1 o:1:b:1", &[Beyond]);
    violated("r:0-1 m:a:1:0-1:1 m:b:1:1-2:1 o:0:a:1 o:1:b:1", &[Beyond]);
    violated("r:0-1 m:a:1:0-1:1 m:b:1:1-2:1 o:0:a:1", &[Beyond]);
    violated("r:0-1 m:a:1:0-1:1 m:b:1:1-3:2 o:0:a:1 o:1:b:1 o:2:b:1 C:2", &[Beyond]);
    violated("r:0-1 m:a:1:0-1:1 o:0:a:1 o:1:b:1 C:5", &[Uncovered]);
}

#[test]
fn a_version_goes_back_only_where_its_own_range_says_so() {
    violated("r:0-2 m:a:2:0-1:1 m:b:1:1-2:1 o:0:a:2 o:1:b:1", &[Version]);
    violated("r:0-2 m:a:3:0-1:1 m:b:1:1-2:1:prev=2 o:0:a:3 o:1:b:1", &[Version]);
    // One that is recorded excuses nothing else.
    let again =
        "m:a:2:0-1:1 m:b:1:1-2:1:prev=2 m:c:2:2-3:1 m:d:1:3-4:1 o:0:a:2 o:1:b:1 o:2:c:2 o:3:d:1";
    violated(&format!("r:0-4 {again}"), &[Version]);
    open(
        "gone:100 r:0-3 low:3 m:@500:2:0-1:1 m:@501:1:2-3:1 o:0:@500:2 o:1:@1:1 o:2:@501:1",
        2,
        &[(0, 2, "input"), (1, 1, "manifests"), (2, 2, "version")],
    );
}

#[test]
fn a_topic_that_was_created_again_is_not_proven_by_the_old_ones_outcomes() {
    let old = "r:0-2 m:a:1:0-2:2:id=S o:0:a:1 o:1:a:1";
    violated(old, &[Lost]);
    let report = Script::new(old).judge();
    assert!(
        report.violations[&Lost].examples[0].contains("topic id S, the present one is T"),
        "{report}"
    );
    // The committed offset itself is of the old topic.
    open(&format!("{old} note:S"), 0, &[(0, 1, "topic id S, the present one is T")]);
    // What was answered for the old one before that was known is passed over.
    open("r:0-4 skip:0-2 m:a:1:2-4:2 o:2:a:1 o:3:a:1", 2, &[(0, 1, "passed over")]);
    violated("r:0-4 skip:0-1 m:a:1:2-4:2 o:2:a:1 o:3:a:1", &[Lost]);
}

#[test]
fn where_a_group_began_is_not_known() {
    let began = "r:0-4 m:a:1:2-4:2 o:2:a:1 o:3:a:1";
    open(&format!("{began} latest"), 2, &[(0, 1, "begins before 2")]);
    violated(began, &[Lost]);
    // A partition that was added after the first start is read from its beginning.
    violated(&format!("{began} latest parts:0"), &[Lost]);
    open(&format!("{began} latest parts:1"), 2, &[(0, 1, "begins before 2")]);
    violated("r:0-4 m:a:1:2-3:1 o:2:a:1 latest", &[Lost]);
    // Nor what its configuration lets it pass over, between two batches.
    open("r:0-4 jumps m:a:1:0-1:1 m:b:1:3-4:1 o:0:a:1 o:3:b:1", 2, &[(1, 2, "on_out_of_range")]);
    violated("r:0-4 jumps m:a:1:0-4:3 o:0:a:1 o:1:a:1 o:3:a:1", &[Lost]);
}

#[test]
fn what_was_deleted_is_named() {
    // The input's beginning: what is left of it is proven. What an outcome of the rest answers cannot be seen.
    open("r:2-4 low:2 m:a:1:0-4:4 o:0:a:1 o:1:a:1 o:2:a:1 o:3:a:1", 2, &[(0, 1, "input")]);
    open("r:1-2 compacted:in m:a:1:0-2:2 o:0:a:1 o:1:a:1", 1, &[(0, 0, "compacted")]);
    // The output's: only what lies before the first that is left.
    open(
        "r:0-4 cut:out m:a:1:0-2:2 m:b:1:2-4:2 o:2:b:1 o:3:b:1",
        2,
        &[(0, 1, "out/0 was deleted")],
    );
    violated("r:0-4 cut:out m:a:1:0-2:2 m:b:1:2-4:2 o:1:a:1 o:3:b:1", &[Lost, Count]);
    violated("r:0-4 m:a:1:0-2:2 m:b:1:2-4:2 o:2:b:1 o:3:b:1", &[Lost, Count]);
    // All of the output is gone, and all of its batch's dead letters are there.
    open("r:0-2 cut:out m:a:1:0-2:2:dead=1 d:1:a:1", 1, &[(0, 0, "out/0 was deleted")]);
    // The dead letters': a batch that has all its dead letters has lost a prediction.
    open("r:0-2 cut:dlq m:a:1:0-2:2:dead=1 o:1:a:1", 1, &[(0, 0, "dlq/0 was deleted")]);
    violated("r:0-2 cut:dlq m:a:1:0-2:2 o:1:a:1", &[Lost, Count]);
    open("r:0-2 compacted:out m:a:1:0-2:2 o:1:a:1", 1, &[(0, 0, "out is compacted")]);
    // The manifests': by the age of the batch.
    open("r:0-2 gone:100 m:@500:1:1-2:1 o:0:@50:1 o:1:@500:1", 1, &[(0, 0, "manifests")]);
    violated("r:0-2 gone:100 m:@500:1:1-2:1 o:0:@400:1 o:1:@500:1", &[Uncovered]);
    violated("r:0-2 gone:100 m:@500:1:1-2:1 o:1:@500:1", &[Lost]);
    // A second outcome may be of a group whose manifests are gone.
    open("r:0-1 gone:100 m:@500:1:0-1:1 o:0:@50:1 o:0:@500:1", 0, &[(0, 0, "second")]);
}

#[test]
fn predictions_without_headers_prove_nothing() {
    open("r:0-2 silent m:a:1:0-2:2 x x", 0, &[(0, 1, "output.headers: none")]);
    open("r:0-2 silent m:a:1:0-2:2:dead=1 x d:1:a:1", 1, &[(0, 0, "output.headers: none")]);
    violated("r:0-2 silent m:a:1:0-2:2:dead=1 x x", &[Count]);
    // They are as many as the manifests count, though.
    violated("r:0-2 silent m:a:1:0-2:2 x", &[Count]);
    // The setting was changed: what was written before it says nothing.
    open("r:0-2 m:a:1:0-2:2 x o:1:a:1", 1, &[(0, 0, "output.headers: none")]);
}

/// Two topics with one partition each in one output partition, and compact headers.
#[track_caller]
fn compact(records: [&[i64]; 2], spans: [(i64, i64, u64); 2], offsets: &[i64]) -> Report {
    let topic = |name: &str| Topic { name: name.to_owned(), id: None, compacted: false };
    let input = |topic| Input { topic, number: 0, committed: Some(9), note: None, until: 9 };
    let range = |(topic, (first, next, count)): (&str, (i64, i64, u64))| Range {
        topic: topic.to_owned(),
        topic_id: None,
        partition: 0,
        first,
        next,
        count,
        previous: None,
    };
    let count = spans.iter().map(|(.., count)| count).sum();
    let manifest = Manifest {
        batch_id: "a".to_owned(),
        model: "m".to_owned(),
        version: 1,
        records: count,
        predictions: count,
        ranges: ["a", "b"].into_iter().zip(spans).map(range).collect(),
        ..Manifest::default()
    };
    let mut checker = Checker::new(Scope {
        group: "g".to_owned(),
        topics: vec![topic("a"), topic("b")],
        partitions: vec![input(0), input(1)],
        logs: vec!["out".to_owned()],
        dead_letters: vec![0, 0],
        ..Scope::default()
    });
    checker.manifest(Some(&manifest), &|| "manifest".to_owned());
    checker.manifests_read(None);
    for (place, offsets) in records.into_iter().enumerate() {
        offsets.iter().for_each(|offset| checker.record(place, *offset));
        checker.input_read(place, 0..9);
    }
    for (offset, at) in offsets.iter().zip(0..) {
        let what = What::Prediction;
        let outcome = Outcome {
            what,
            topic: None,
            partition: None,
            offset: *offset,
            batch: "a",
            version: Some(1),
            model: None,
            digest: None,
            class: None,
        };
        checker.outcome(At { log: 0, partition: 0, offset: at }, &outcome);
    }
    checker.finish(&After { committed: vec![Some(9); 2], ..After::default() })
}

#[test]
fn compact_headers_are_resolved_by_manifests_and_counts() {
    // Apart, or told apart by what exists: proven, with their order.
    let report = compact([&[0, 1], &[5, 6]], [(0, 2, 2), (5, 7, 2)], &[0, 5, 1, 6]);
    assert_eq!((report.proven, report.unproven.len(), report.holds()), (4, 0, true), "{report}");
    let report = compact([&[0, 2], &[1]], [(0, 3, 2), (1, 2, 1)], &[0, 1, 2]);
    assert_eq!((report.proven, report.unproven.len(), report.holds()), (3, 0, true), "{report}");
    let report = compact([&[0, 1], &[5, 6]], [(0, 2, 2), (5, 7, 2)], &[1, 0, 5, 6]);
    assert_eq!(report.violations.keys().collect::<Vec<_>>(), [&Disorder], "{report}");
    // The same offset twice, for two partitions that have it: one each, in an order that nobody knows.
    let report = compact([&[0, 1], &[0, 1]], [(0, 2, 2), (0, 2, 2)], &[0, 1, 0, 1]);
    assert_eq!((report.proven, report.holds()), (4, true), "{report}");
    assert!(report.unproven.iter().all(|unproven| unproven.because.contains("in which order")));
    let report = compact([&[0, 1], &[0, 1]], [(0, 2, 2), (0, 2, 2)], &[0, 1, 0]);
    assert_eq!(report.violations.keys().collect::<Vec<_>>(), [&Lost, &Count], "{report}");
    let report = compact([&[0, 1], &[0, 1]], [(0, 2, 2), (0, 2, 2)], &[0, 1, 0, 1, 1]);
    assert_eq!(report.violations.keys().collect::<Vec<_>>(), [&Duplicate, &Count], "{report}");
}

#[test]
fn a_partition_without_a_committed_offset_is_named() {
    let scope = |committed: [Option<i64>; 2]| {
        let input = |(number, committed): (i32, Option<i64>)| Input {
            topic: 0,
            number,
            committed,
            note: None,
            until: committed.unwrap_or(0),
        };
        Scope {
            topics: vec![Topic { name: "in".to_owned(), ..Topic::default() }],
            partitions: (0..).zip(committed).map(input).collect(),
            logs: vec!["out".to_owned()],
            dead_letters: vec![0],
            ..Scope::default()
        }
    };
    for (committed, expect) in [([None, None], "in, because"), ([Some(0), None], "in/1, because")] {
        let mut checker = Checker::new(scope(committed));
        (0..2).for_each(|place| checker.input_read(place, 0..1));
        let after = After { committed: committed.to_vec(), ..After::default() };
        let report = checker.finish(&after);
        let said = report.unproven[0].to_string();
        assert!(said.starts_with(expect) && report.unproven.len() == 1, "{said}");
        assert!(!report.holds(), "nothing is proven");
    }
}

#[test]
fn one_is_told_as_one_and_many_with_commas() {
    let told = |count| {
        let report = Report {
            group: "g".to_owned(),
            records: count,
            outcomes: [count; 3],
            batches: count,
            proven: count,
            foreign: count,
            ..Report::default()
        };
        report.to_string()
    };
    assert_eq!(
        told(1),
        "group g: 1 committed record, 1 prediction, 1 tombstone, 1 dead letter, 1 batch\n\
         not judged: 1 outcome of other groups, topics or programs\n\
         holds for 1 offset: one outcome a record, in order, one version a batch\n"
    );
    assert!(told(1_200).contains("1,200 committed records, 1,200 predictions, 1,200 tombstones"));
}

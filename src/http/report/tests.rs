use std::collections::{BTreeMap, BTreeSet};

use super::sentence::QUIET;
use super::*;
use crate::config::load;
use crate::record::{Offset, Partition, Version};
use crate::status::history::{Batch, Behind, HeldBack, History, STEPS};
use crate::status::{Drain, InModel, KEPT, Refusal, Refused as Unwelcome, Swap};

const CONFIG: &str = "kafka: {group: g, common: {bootstrap.servers: 'b:1', sasl.password: hunter2}}\n\
                      input: {topics: [reviews]}\noutput: {topic: out}\nmodel: {uri: m}";

fn about() -> About {
    About::new(&load::from_yaml(CONFIG).unwrap())
}

fn zero() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a test needs one arbitrary instant")]
    Instant::now()
}

fn model(version: u64) -> ModelId {
    ModelId { name: "sentiment".into(), version: Version(version), digest: "d".into() }
}

/// A service that runs: one partition, so many records a second for ten minutes, and then so far behind.
fn running(rate: u64, lag: i64) -> (Status, Hour, Instant) {
    let start = zero();
    let mut history = History::new(start);
    let partition = Partition { topic: 0, number: 3 };
    history.assigned(partition, start);
    for second in 0..600 {
        let now = start + Duration::from_secs(second);
        if rate != 0 {
            history.committed([(partition, rate)].into_iter(), std::iter::empty(), now);
        }
        history.lag([(partition, Behind::readable(lag))].into_iter(), lag, now);
    }
    let now = start + Duration::from_secs(600);
    let status = Status {
        doing: Doing::Running,
        serving: Some(model(7)),
        assigned: Some(1),
        lag: Some(lag),
        ..Status::default()
    };
    (status, history.read(now, PARTITIONS), now)
}

fn report(status: &Status, hour: &Hour, now: Instant) -> Report {
    let mut report = Report::new(&about(), status, hour, now);
    // What the machine of the test has is not what is tested.
    report.health.warnings.retain(|warning| !warning.starts_with("Memory"));
    report
}

/// What is said of what runs after a change.
fn sentence(running: &(Status, Hour, Instant), change: impl FnOnce(&mut Status)) -> String {
    let (status, hour, now) = running;
    let mut status = status.clone();
    change(&mut status);
    report(&status, hour, *now).sentence
}

#[test]
fn one_sentence_says_what_it_does() {
    let busy = running(20, 0);
    let said = |change: &dyn Fn(&mut Status)| sentence(&busy, change);
    let answers = "Answers 20 records a second of reviews with sentiment version 7, ";
    assert_eq!(said(&|_| ()), format!("{answers}and is up to date."));
    let drains = |seconds| Some(Drain::In(Duration::from_secs(seconds)));
    let open = "stand behind a producer's transaction that is not ended";
    for (lag, held, drain, expect) in [
        (Some(2_400), 0, drains(120), "2,400 behind (2 min at this rate).".to_owned()),
        (Some(13), 0, drains(1), "and keeps up.".to_owned()),
        (
            Some(2_400),
            0,
            Some(Drain::Never),
            "2,400 behind, which does not drain: as many come in as are answered.".to_owned(),
        ),
        (
            Some(2_400),
            0,
            Some(Drain::Grows),
            "2,400 behind, and falls behind: more come in than are answered.".to_owned(),
        ),
        (Some(2_400), 0, None, "2,400 behind.".to_owned()),
        (None, 0, None, "how far behind is not known yet.".to_owned()),
        (Some(90), 90, drains(0), format!("and is up to date; 90 more {open}.")),
        (
            Some(2_490),
            90,
            drains(120),
            format!("2,400 behind (2 min at this rate); 90 more {open}."),
        ),
    ] {
        let said = said(&|s| (s.lag, s.held, s.drain) = (lag, held, drain));
        assert_eq!(said, answers.to_owned() + &expect);
    }
}

#[test]
fn one_sentence_says_why_it_does_nothing() {
    let busy = running(20, 0);
    let now = busy.2;
    let said = |change: &dyn Fn(&mut Status)| sentence(&busy, change);
    for (change, expect) in [
        ((|s| s.serving = None) as fn(&mut Status), "Starting: the model is loaded"),
        (|s| s.assigned = None, "Starting: sentiment version 7 is ready, the group has not"),
        (
            |s| s.assigned = Some(0),
            "Standing by with sentiment version 7: other members of group g",
        ),
        (
            |s| s.doing = Doing::Paused,
            "Paused: nothing is taken in from reviews until it is resumed.",
        ),
        (
            |s| (s.doing, s.lag) = (Doing::Paused, Some(1_200)),
            "Paused: nothing is taken in from reviews until it is resumed; 1,200 wait.",
        ),
        (|s| s.doing = Doing::Stopping, "Stopping: "),
        (
            |s| s.doing = Doing::Stopped("too many dead letters".into()),
            "Does nothing any more: too many",
        ),
    ] {
        assert!(said(&change).starts_with(expect), "{expect}: {}", said(&change));
    }
    let unreachable =
        said(&|s| s.unreachable = Some(now.checked_sub(Duration::from_secs(30)).unwrap()));
    assert!(
        unreachable.starts_with("Waiting for the cluster, which has not answered for 30 s"),
        "{unreachable}"
    );
    let refused = said(&|s| {
        s.unreachable = Some(now.checked_sub(Duration::from_secs(30)).unwrap());
        s.unwelcome = Some(unwelcome());
    });
    assert!(
        refused.starts_with("Waiting for the cluster: the credentials are refused, for 30 s now"),
        "{refused}"
    );
    let idle = running(0, 0);
    let now = idle.2;
    let with = |change: &dyn Fn(&mut Status)| sentence(&idle, change);
    assert_eq!(
        with(&|_| ()),
        "Idle: everything in its partition of reviews is answered; sentiment version 7 waits for more."
    );
    assert_eq!(
        with(&|s| s.staged = Some(model(8))),
        "Idle: everything in its partition of reviews is answered; version 8 is ready and is taken with the next batch."
    );
    let several = with(&|s| s.assigned = Some(4));
    assert!(
        several.starts_with("Idle: everything in its 4 partitions of reviews is answered"),
        "{several}"
    );
    let held = with(&|s| (s.lag, s.held) = (Some(50), 50));
    assert!(held.starts_with("Waits for producers: 50 records of reviews stand behind"), "{held}");
    let unknown = with(&|s| s.lag = None);
    assert!(unknown.starts_with("Ready: sentiment version 7 waits for records"), "{unknown}");
    let opening = with(&|s| (s.assigned, s.opening) = (None, now.checked_sub(MINUTE)));
    assert_eq!(
        opening,
        "Starting: sentiment version 7 is ready; waits for a first answer of b:1, for 60 s so far."
    );
    let stuck = sentence(&running(0, 50), |_| ());
    assert!(
        stuck.starts_with("Nothing was committed for 10 min, and 50 records of reviews wait"),
        "{stuck}"
    );
}

fn unwelcome() -> Unwelcome {
    let said = "SASL authentication error".to_owned();
    Unwelcome { what: "the credentials are refused", remedy: "check sasl.password", said }
}

/// A rate over the last minute is none of now where nothing was committed for a while.
#[test]
fn what_has_stopped_is_not_told_as_going_on() {
    let (mut status, mut hour, now) = running(20, 0);
    hour.quiet = QUIET;
    assert!(
        report(&status, &hour, now)
            .sentence
            .starts_with("Idle: everything in its partition of reviews is answered")
    );
    status.lag = Some(9);
    hour.waited = QUIET;
    let said = report(&status, &hour, now).sentence;
    assert!(said.starts_with("Nothing was committed for 15 s, and 9 records of reviews"), "{said}");
}

/// A batch that does not come back is told while it is in the model, and after it has ended the process.
#[test]
fn what_the_model_has_for_long_is_told() {
    let (status, hour, now) = running(0, 50);
    let said = |seconds, rows| {
        let since = now.checked_sub(Duration::from_secs(seconds)).unwrap();
        let in_model = Some(InModel { since, rows, limit: 2 * MINUTE });
        let report = report(&Status { in_model, ..status.clone() }, &hour, now);
        (report.sentence, report.health.warnings)
    };
    let (sentence, warnings) = said(20, 256);
    let expect = "A batch of 256 records of reviews has been in sentiment version 7 for 20 s; nothing was committed \
                  meanwhile.";
    assert_eq!(sentence, expect);
    assert!(!warnings.iter().any(|one| one.contains("limits.inference")), "{warnings:?}");
    let (_, warnings) = said(61, 1);
    let expect = "A batch of 1 record has been in sentiment for 61 s. After limits.inference, 2 min, this process ends";
    assert!(warnings[0].starts_with(expect), "{warnings:?}");
    let last_life = Some("The last process of this replica died");
    let ended = report(&Status { last_life, ..running(20, 0).0 }, &hour, now);
    assert_eq!(ended.health.warnings[0], "The last process of this replica died.");
}

#[test]
fn one_is_not_told_as_many() {
    let one = sentence(&running(0, 1), |_| ());
    assert!(
        one.ends_with("10 min, and 1 record of reviews waits for sentiment version 7."),
        "{one}"
    );
    let (mut status, hour, now) = running(20, 0);
    status.uncovered = 1;
    let warnings = report(&status, &hour, now).health.warnings;
    assert!(
        warnings[0].starts_with("1 partition of the input topics is read by no"),
        "{warnings:?}"
    );
}

/// What an operator is woken for is said without the source.
#[test]
fn troubles_are_warned_of() {
    let (status, hour, now) = running(20, 0);
    assert_eq!(report(&status, &hour, now).health.warnings, Vec::<String>::new());
    let refused = Refusal { at: 1, version: Version(8), reason: "golden vector 2 differs".into() };
    for (change, expect) in [
        (
            Box::new(|s: &mut Status, _: &mut Hour| s.refuse(refused.clone()))
                as Box<dyn Fn(&mut Status, &mut Hour)>,
            "Version 8 is refused; version 7 goes on: golden vector 2 differs",
        ),
        (
            Box::new(|s, _| s.uncovered = 2),
            "2 partitions of the input topics are read by no member",
        ),
        (Box::new(|s, _| s.unreachable = Some(now)), "No broker of b:1 has answered for 0 s"),
        (
            Box::new(|s, _| (s.unreachable, s.unwelcome) = (Some(now), Some(unwelcome()))),
            "b:1: the credentials are refused; check sasl.password. The client said: SASL authentication error",
        ),
        (
            Box::new(|s, _| s.registry = Some("open /models: gone".to_owned())),
            "The registry names no version that is there; version 7 goes on: open /models: gone",
        ),
        (
            Box::new(|s, _| s.schemas = Some((now, "the schema registry at a is away".to_owned()))),
            "Nothing is read for 0 s, and nothing is lost: the schema registry at a is away. Start the schema registry",
        ),
        (
            Box::new(|_, hour| {
                hour.steps[0].dead_letters = 400;
                hour.sums.classes[2] = 400;
            }),
            "3.3 % of the last hour's records are dead letters, most of class invalid.",
        ),
        (
            Box::new(|_, hour| {
                hour.lags[59] = Some(9_000);
                hour.lags.truncate(60);
                hour.sums.stages[2] = Duration::from_secs(9);
                hour.sums.stages[4] = Duration::from_secs(1);
            }),
            "Falls behind: lag has grown by 9,000 in five minutes. Of what is done with a batch, infer takes most (90 % of its time).",
        ),
        (
            Box::new(|_, hour| {
                hour.partitions[0].lag = Some(9);
                hour.partitions[0].waited = Duration::from_secs(300);
            }),
            "reviews/3 does not move: 9 records wait, and nothing of it was committed for 5 min.",
        ),
        (
            Box::new(|_, hour| {
                let (time, place) = (Duration::from_secs(300), Offset(41));
                hour.partitions[0].lag = Some(9);
                hour.partitions[0].held = Some(HeldBack { records: 9, place, time });
                hour.partitions[0].quiet = time;
            }),
            "reviews/3: 9 records have not been readable for 5 min, because a producer's transaction that begins at offset 41 is \
             not ended. Where that producer is gone: kafka-transactions.sh --bootstrap-server b:1 abort --topic reviews \
             --partition 3 --start-offset 41",
        ),
    ] {
        let (mut status, mut hour) = (status.clone(), hour.clone());
        change(&mut status, &mut hour);
        let warnings = report(&status, &hour, now).health.warnings;
        assert_eq!(warnings.len(), 1, "{expect}: {warnings:?}");
        assert!(warnings[0].starts_with(expect), "{warnings:?}");
    }
}

#[test]
fn memory_near_its_limit_is_told_with_what_of_it_is_ours() {
    let (status, hour, now) = running(20, 0);
    let mut near = report(&status, &hour, now);
    (near.process.memory_bytes, near.process.memory_used_bytes, near.process.memory_limit_bytes) =
        (Some(300 << 20), Some(950 << 20), Some(1000 << 20));
    let said = sentence::warnings(&near, &about(), &status, now);
    assert_eq!(
        said,
        [
            "Memory is near its limit: 950 MiB of 1000 MiB are in use; this process has 300 MiB, what it shares counted. Raise the \
             limit, or lower limits.memory or batch.max_records."
        ]
    );
}

/// A report with as much of everything as there may be.
fn full() -> Report {
    let start = zero();
    let mut history = History::new(start);
    let mut status = Status { doing: Doing::Running, ..running(1, 1).0 };
    for minute in 0..100 {
        let now = start + Duration::from_secs(minute * 60);
        let partitions = (0..1_000).map(|number| Partition { topic: 0, number });
        let behind = Behind::readable(1_234_567_890);
        history.lag(partitions.clone().map(|p| (p, behind)), behind.lag, now);
        let dead = FaultClass::ALL.map(|class| (class.name(), 123_456_789));
        history.committed(partitions.map(|p| (p, 123_456_789)), dead.into_iter(), now);
        for reason in Reason::ALL {
            let stages = [Duration::from_micros(1_234_567); 5];
            let batch =
                Batch { reason, records: 99, tokens: 1 << 40, bytes: 1 << 40, cached: 50, stages };
            history.batch(&batch, now);
        }
    }
    let long = "ß".repeat(100_000);
    for at in 0..100 {
        status.refuse(Refusal {
            at,
            version: Version(1 + at.unsigned_abs()),
            reason: long.clone(),
        });
        status.swapped(Swap { at, from: Version(1), to: model(2) });
        status.dead_letters.push(crate::status::DeadLetter {
            at,
            topic: "reviews".to_owned(),
            partition: Partition { topic: 0, number: 1 },
            offset: Offset(i64::MAX),
            class: FaultClass::Undecodable,
            reason: long.clone(),
        });
    }
    let now = start + Duration::from_secs(6_000);
    Report::new(&about(), &status, &history.read(now, PARTITIONS), now)
}

#[test]
fn an_answer_is_bounded() {
    let report = full();
    let text = serde_json::to_vec(&report).unwrap();
    assert!(text.len() < 128 << 10, "{} bytes", text.len());
    assert_eq!((report.hour.records.len(), report.partitions.len()), (STEPS, PARTITIONS));
    assert_eq!((report.models.swaps.len(), report.dead_letters.last.len()), (KEPT, KEPT));
    assert!(!String::from_utf8(text).unwrap().contains("hunter2"));
}

/// Paths and kinds of what is answered.
fn walk(value: &Value, path: &str, found: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    let kind = match value {
        Value::Object(entries) if path != "config" => {
            let dot = if path.is_empty() { "" } else { "." };
            entries
                .iter()
                .for_each(|(key, entry)| walk(entry, &format!("{path}{dot}{key}"), found));
            return;
        }
        Value::Array(items) => {
            return items.iter().for_each(|item| walk(item, &format!("{path}[]"), found));
        }
        Value::Object(_) => "any",
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "number",
        Value::String(_) => "text",
    };
    found.entry(path.to_owned()).or_default().insert(kind);
}

/// What is answered is what is declared: each field once, with its kind.
#[test]
fn every_field_is_declared() {
    let mut full = full();
    (full.now.in_model_s, full.now.in_model_records) = (Some(5.0), Some(256));
    full.health.reasons.push("stopping".to_owned());
    full.health.warnings.push("look".to_owned());
    let mut found = BTreeMap::new();
    walk(&serde_json::to_value(&full).unwrap(), "", &mut found);
    let declared: BTreeMap<String, &str> =
        FIELDS.iter().map(|field| (field.path.to_owned(), field.kind)).collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), declared.keys().collect::<Vec<_>>());
    assert_eq!(declared.len(), FIELDS.len());
    for (path, kinds) in found {
        let declared = declared[&path];
        let fits =
            |kind: &&str| declared == *kind || declared.split(" or ").any(|one| one == *kind);
        assert!(kinds.iter().all(fits), "{path} is {kinds:?}, not {declared}");
    }
}

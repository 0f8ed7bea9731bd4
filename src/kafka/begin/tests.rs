use super::*;
use crate::record::Version;

const POLICY: Policy = Policy {
    start_from: StartFrom::Earliest,
    on_missing: MissingOffset::Manifest,
    on_out_of_range: OutOfRange::Stop,
    on_recreated: Recreated::Stop,
};

fn latest(policy: Policy) -> Policy {
    Policy { start_from: StartFrom::Latest, ..policy }
}

#[expect(clippy::unnecessary_wraps, reason = "facts and notes may have none")]
fn id(text: &str) -> Option<TopicId> {
    Some(TopicId(text.into()))
}

fn note(topic: &str, partitions: i32, seen: i64) -> Note {
    Note { topic: id(topic), model: None, first: 500, partitions, seen: Offset(seen), skip: None }
}

/// Partition 1 of 4, with the offsets 100 to 200, the last ten of which are not stable yet; a group that has never
/// committed, and no manifest.
fn facts() -> Facts<'static> {
    Facts {
        name: "in",
        number: 1,
        committed: None,
        low: Offset(100),
        end: Offset(190),
        high: Offset(200),
        topic: id("NEW"),
        partitions: 4,
        sibling: None,
        known_group: false,
        written: false,
        manifests: None,
        at_first: None,
        now: 1_000,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "facts may have none")]
fn committed(offset: i64, note: Option<Note>) -> Option<(Offset, Option<Note>)> {
    Some((Offset(offset), note))
}

fn described(next: i64, topic: Option<TopicId>) -> Described {
    let model = ModelId { name: "m".into(), version: Version(3), digest: "".into() };
    Described { next: Offset(next), topic, model: Some(model) }
}

/// Where it begins and whether that is committed, what is needed, or what the stop says.
#[track_caller]
fn decides(facts: &Facts<'_>, policy: Policy, expect: &str) {
    let said = match begin(facts, policy, true) {
        Begin::At(Place { next, moved, .. }) => {
            format!("at {next}{}", if moved.is_some() { ", committed" } else { "" })
        }
        Begin::NeedManifests => "manifests".to_owned(),
        Begin::NeedTime(time) => format!("time {time}"),
        Begin::Doubtful(Stop(why)) => format!("doubtful: {why}"),
        Begin::Stop(Stop(why)) => format!("stop: {why}"),
    };
    assert!(said.contains(expect), "{expect:?} in\n{said}\nfor {facts:?}");
}

#[test]
fn a_committed_offset_is_the_place() {
    for note in [None, Some(note("NEW", 4, 100))] {
        decides(&Facts { committed: committed(150, note), ..facts() }, POLICY, "at 150");
    }
    let at_the_end = Facts { committed: committed(200, None), ..facts() };
    decides(&at_the_end, POLICY, "at 200");
    // An old broker has no ids: they are not compared.
    let old =
        Facts { topic: None, committed: committed(150, Some(note("OLD", 4, 100))), ..facts() };
    decides(&old, POLICY, "at 150");
}

#[test]
fn an_offset_outside_the_log_follows_the_policy() {
    let policy = |on_out_of_range| Policy { on_out_of_range, ..POLICY };
    for (offset, said) in
        [(50, "deleted before they were read"), (500, "beyond the partition's end")]
    {
        let facts = Facts { committed: committed(offset, None), ..facts() };
        decides(&facts, POLICY, said);
        decides(&facts, POLICY, "stop");
        decides(&facts, policy(OutOfRange::Earliest), "at 100, committed");
        decides(&facts, policy(OutOfRange::Latest), "at 190, committed");
        assert!(
            matches!(begin(&facts, POLICY, false), Begin::Doubtful(_)),
            "looked at again first"
        );
    }
}

#[test]
fn another_topic_of_the_same_name_is_noticed() {
    let start = Policy { on_recreated: Recreated::Start, ..POLICY };
    let facts = Facts { committed: committed(150, Some(note("OLD", 4, 120))), ..facts() };
    decides(&facts, POLICY, "id OLD");
    decides(&facts, POLICY, "id NEW");
    decides(&facts, POLICY, "offsets 120 to 149 count as answered");
    decides(&facts, start, "at 100, committed");
    let Begin::At(place) = begin(&facts, start, true) else { panic!() };
    assert_eq!(place.note.skip, Some(120..150));
    assert_eq!(place.note.topic, id("NEW"));
    let passed = Note { skip: Some(120..150), ..note("NEW", 4, 180) };
    let later = Facts { committed: committed(180, Some(passed)), ..facts };
    let Begin::At(place) = begin(&later, start, true) else { panic!() };
    assert_eq!(place.note.skip, Some(120..150), "it is remembered for the topic's life");
    let nothing_between = Facts { committed: committed(150, Some(note("OLD", 4, 150))), ..later };
    let Begin::At(place) = begin(&nothing_between, start, true) else { panic!() };
    assert_eq!(place.note.skip, None);
}

#[test]
fn a_first_start_is_where_nothing_was_ever_written() {
    decides(&facts(), POLICY, "at 100, committed");
    decides(&facts(), latest(POLICY), "at 190, committed");
    let Begin::At(place) = begin(&facts(), POLICY, true) else { panic!() };
    assert_eq!((place.note.first, place.note.partitions), (1_000, 4));
}

#[test]
fn a_partition_that_appears_later_is_read_from_its_beginning() {
    let sibling = note("NEW", 1, 0);
    let known = Facts { sibling: Some(&sibling), known_group: true, ..facts() };
    for written in [false, true] {
        let facts = Facts { written, ..known.clone() };
        decides(&facts, POLICY, "at 100, committed");
        decides(&facts, latest(POLICY), "at 100, committed");
        decides(&facts, latest(Policy { on_missing: MissingOffset::Start, ..POLICY }), "at 100");
    }
}

#[test]
fn a_partition_that_was_there_and_never_read_begins_at_the_first_start() {
    let sibling = note("NEW", 4, 0);
    let known = Facts { sibling: Some(&sibling), known_group: true, ..facts() };
    decides(&known, POLICY, "at 100");
    decides(&known, latest(POLICY), "time 500");
    decides(
        &Facts { at_first: Some(Offset(170)), ..known.clone() },
        latest(POLICY),
        "at 170, committed",
    );
    let written = Facts { written: true, ..known };
    decides(&written, latest(POLICY), "manifests");
    let none = Manifests::default();
    let looked = Facts { manifests: Some(none), ..written };
    decides(&looked, POLICY, "at 100");
    decides(&Facts { at_first: Some(Offset(170)), ..looked }, latest(POLICY), "at 170");
}

#[test]
fn a_lost_group_goes_on_behind_its_newest_manifest() {
    let lost = Facts { written: true, ..facts() };
    decides(&lost, POLICY, "manifests");
    let own = Manifests { own: Some(described(160, id("NEW"))), ..Manifests::default() };
    let found = Facts { manifests: Some(own), ..lost.clone() };
    decides(&found, POLICY, "at 160, committed");
    let Begin::At(place) = begin(&found, POLICY, true) else { panic!() };
    assert_eq!(place.note.model.unwrap().version, Version(3), "the version is known again");
    decides(&found, Policy { on_missing: MissingOffset::Stop, ..POLICY }, "stop");
    decides(&found, Policy { on_missing: MissingOffset::Start, ..POLICY }, "at 100, committed");
    // What it found must lie within the log too.
    let beyond = Manifests { own: Some(described(900, id("NEW"))), ..Manifests::default() };
    decides(&Facts { manifests: Some(beyond), ..lost }, POLICY, "beyond the partition's end");
}

#[test]
fn what_nothing_tells_is_a_stop_with_its_remedies() {
    let lost = Facts { written: true, ..facts() };
    let none = Manifests::default();
    let looked = Facts { manifests: Some(none), ..lost.clone() };
    decides(&looked, POLICY, "no manifest of this group describes the partition");
    decides(&looked, POLICY, "kafka.on_missing_offset: start");
    let other = Manifests { other_group: Some("theirs".to_owned()), ..Manifests::default() };
    decides(&Facts { manifests: Some(other), ..lost.clone() }, POLICY, "of the group \"theirs\"");
    let unnamed = Manifests { other_topic: Some(described(160, None)), ..Manifests::default() };
    decides(
        &Facts { manifests: Some(unnamed), ..lost.clone() },
        POLICY,
        "does not say which topic",
    );
    // Nothing can be predicted twice from an empty partition.
    decides(&Facts { low: Offset(0), end: Offset(0), high: Offset(0), ..looked }, POLICY, "at 0");
    let recreated =
        Manifests { other_topic: Some(described(160, id("OLD"))), ..Manifests::default() };
    let recreated = Facts { manifests: Some(recreated), ..lost };
    decides(&recreated, POLICY, "id OLD");
    decides(&recreated, Policy { on_recreated: Recreated::Start, ..POLICY }, "at 100, committed");
    let start = Policy { on_recreated: Recreated::Start, ..POLICY };
    let Begin::At(place) = begin(&recreated, start, true) else { panic!() };
    assert_eq!(place.note.skip, None, "nothing was committed since");
}

#[test]
fn a_topic_that_is_new_to_a_living_group_is_a_first_start() {
    let none = Manifests::default();
    let facts = Facts { known_group: true, written: true, manifests: Some(none), ..facts() };
    decides(&facts, POLICY, "at 100, committed");
    decides(&facts, latest(POLICY), "at 190, committed");
}

//! Where a partition begins: first starts, lost groups, topics that are others, offsets that do not fit.

use std::collections::BTreeMap;

use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::broker::Broker;
use crate::world::{GOOD, Replica, World, once, wait_for, wait_on};

/// Runs to the end and expects `code`, and `words` in the log.
#[track_caller]
fn runs(world: &World, kafka: &str, code: i32, words: &[&str]) {
    let (ended, log) = world.run(kafka);
    assert_eq!(ended, Some(code), "{log}");
    for word in words {
        assert!(log.contains(word), "{word:?} is missing in {log}");
    }
}

/// Moves the group's offset of partition 0 by hand, as an operator does.
fn commit(world: &World, offset: i64, metadata: &str) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&world.topic("in"), 0, Offset::Offset(offset)).unwrap();
    list.elements()[0].set_metadata(metadata);
    world.observer().commit(&list, CommitMode::Sync).unwrap();
}

/// The tests that need no time of their own share a broker.
#[test]
fn where_a_partition_begins() {
    let retention = "offsets.retention.minutes=1 offsets.retention.check.interval.ms=1000";
    let Some(broker) = Broker::start_with(&[("KAFKA_PROPS", retention)]) else { return };
    let world = World::on(broker, 1);

    // Its offsets expire while the others run.
    let idle = world.beside("idle", 2, &[]);
    idle.produce_each(20);
    runs(&idle, "", 0, &[]);

    lost_group(&world.beside("lost", 2, &[]));
    lost_manifests(&world.beside("nothing", 1, &[]));
    latest_is_the_end_at_the_first_start(world.beside("latest", 1, &[]));
    created_again_while_stopped(&world.beside("stopped", 1, &[]));
    created_again_while_running(&world.beside("running", 1, &[]), "stop");
    created_again_while_running(&world.beside("follows", 1, &[]), "start");
    beyond_the_end(&world);
    moved_by_hand(&world.beside("moved", 1, &[]));

    let observer = idle.observer();
    wait_for("the offsets to expire", || (idle.committed(&observer)? == [0, 0]).then_some(()));
    idle.produce_each(5);
    runs(&idle, "", 0, &["newest manifest"]);
    assert_eq!(idle.outcomes(), once(2, 0..25), "{:?}", idle.outcomes());
}

/// A group that was deleted goes on behind its newest manifests, or as the operator says.
fn lost_group(world: &World) {
    world.produce_each(30);
    runs(world, "", 0, &[]);
    world.produce_each(10);
    world.delete_group();
    runs(world, "on_missing_offset: stop", 65, &["kafka.on_missing_offset"]);
    runs(world, "", 0, &[]);
    assert_eq!(world.outcomes(), once(2, 0..40));
    world.delete_group();
    runs(world, "on_missing_offset: start", 0, &[]);
    assert!(world.outcomes().values().all(|times| *times == 2), "asked for, all again");
}

/// Without any manifest of its own, a group that has lost its offsets stops and says what can be done.
fn lost_manifests(world: &World) {
    world.produce_each(30);
    runs(world, "", 0, &[]);
    let mut all = TopicPartitionList::new();
    all.add_partition_offset(&world.topic("out-manifest"), 0, Offset::End).unwrap();
    let options = AdminOptions::new();
    wait_on(world.admin().delete_records(&all, &options)).unwrap();
    world.delete_group();
    runs(world, "", 65, &["kafka.on_missing_offset: start"]);
    assert_eq!(world.outcomes(), once(1, 0..30));
}

/// `latest` skips what was there before the group's first start, and nothing of what comes later.
fn latest_is_the_end_at_the_first_start(mut world: World) {
    world.produce_each(10);
    runs(&world, "start_from: latest", 0, &[]);
    world.produce_each(5);
    world.grow(3);
    for partition in 1..3 {
        world.produce(partition, &[GOOD; 7]);
    }
    runs(&world, "start_from: latest", 0, &[]);
    let mut expect: BTreeMap<_, _> = (10..15).map(|at| ((0, at), 1)).collect();
    expect.extend((1..3).flat_map(|partition| (0..7).map(move |at| ((partition, at), 1))));
    assert_eq!(world.outcomes(), expect);
}

/// A topic that was deleted and created again while nobody looked is another topic.
fn created_again_while_stopped(world: &World) {
    world.produce_each(20);
    runs(world, "", 0, &[]);
    world.delete_topics(&["in"]);
    world.create_topics(&["in"], 1);
    world.produce_each(30);
    runs(world, "", 65, &["kafka.on_recreated"]);
    assert_eq!(world.outcomes().len(), 20);
    runs(world, "on_recreated: start", 0, &[]);
    let twice = world.outcomes().values().filter(|times| **times == 2).count();
    assert_eq!((world.outcomes().len(), twice), (30, 20), "all of the new topic");
}

/// The same under a service that runs: what was answered between two looks is not answered twice.
fn created_again_while_running(world: &World, on_recreated: &str) {
    world.produce_each(20);
    let filter = "logging: { filter: 'info,tidemill::kafka::observe=debug' }";
    let config = world.config_with("a", &format!("on_recreated: {on_recreated}"), filter);
    let mut replica = Replica::start(&config, &[]);
    // Only what was committed after this counts as answered, whatever it was.
    replica.says("confirmed=20");
    world.delete_topics(&["in"]);
    world.create_topics(&["in"], 1);
    world.produce_each(30);
    if on_recreated == "stop" {
        let (code, log) = replica.ended();
        assert_eq!(code, Some(65), "{log}");
        assert!(log.contains("created again"), "{log}");
        return;
    }
    let old = (0..20).map(|offset| ((0, offset), 1));
    let mut expect: BTreeMap<_, usize> = old.collect();
    (0..30).for_each(|offset| *expect.entry((0, offset)).or_default() += 1);
    wait_for("all of the new topic", || {
        replica.assert_alive();
        (world.outcomes().values().sum::<usize>() >= 50).then_some(())
    });
    assert_eq!(world.outcomes(), expect);
    assert!(replica.stop().success());
}

/// An offset beyond the end, of a topic that lost its tail: where reading begins is said, and lag comes to nothing.
fn beyond_the_end(world: &World) {
    for (name, policy, code, from) in [
        ("beyond-stop", "stop", 65, None),
        ("beyond-earliest", "earliest", 0, Some(0)),
        ("beyond-latest", "latest", 0, Some(10)),
    ] {
        let world = world.beside(name, 1, &[]);
        world.produce_each(10);
        commit(&world, 1_000, "");
        runs(&world, &format!("on_out_of_range: {policy}"), code, &["1000"]);
        let Some(from) = from else { continue };
        world.produce_each(5);
        runs(&world, &format!("on_out_of_range: {policy}"), 0, &[]);
        assert_eq!(world.outcomes(), once(1, from..15), "{policy}");
        world.wait_for_lag_0();
    }
}

/// What an operator has set is the operator's will, whatever stands beside it.
fn moved_by_hand(world: &World) {
    world.produce_each(20);
    runs(world, "", 0, &[]);
    commit(world, 15, "moved by hand");
    runs(world, "", 0, &[]);
    let twice = world.outcomes().into_iter().filter(|(_, times)| *times == 2);
    let places: Vec<i64> = twice.map(|((_, at), _)| at).collect();
    assert_eq!(places, (15..20).collect::<Vec<_>>());
}

/// Partitions that appear while the service runs are read from their beginning.
#[test]
fn partitions_that_appear_are_read_from_their_beginning() {
    let Some(broker) = Broker::start() else { return };
    let base = World::on(broker, 1);
    for policy in ["earliest", "latest"] {
        let mut world = base.beside(policy, 1, &[]);
        let config = world.config_with("a", &format!("start_from: {policy}"), "");
        let replica = Replica::start(&config, &[]);
        replica.says("assignment changed");
        world.wait_for_lag_0();
        world.grow(4);
        for partition in 0..4 {
            world.produce(partition, &[GOOD; 9]);
        }
        wait_for("an outcome of each", || (world.outcomes() == once(4, 0..9)).then_some(()));
        assert!(replica.stop().success());
    }
}

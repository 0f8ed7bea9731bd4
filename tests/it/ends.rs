//! How runs end and members leave: jobs of several, deadlines, stops in every state of the start, twins, strangers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::broker::Broker;
use crate::world::{GOOD, Replica, World, once, wait_for};

/// Longer than any test waits: a member that does not leave keeps its partitions for the whole test.
const LASTING: &str = "consumer: { session.timeout.ms: 290000, heartbeat.interval.ms: 500 }";
type Scenario = fn(&mut World);

const SLOW: &str = "batch: { max_records: 4 }\ncommit: { max_batches: 1 }";

/// Waits until every record is answered, and checks that each is once.
#[track_caller]
fn all_once(world: &World, each: i64) {
    world.wait_for_lag_0();
    assert_eq!(world.outcomes(), once(world.partitions, 0..each));
}

/// The tests that need no broker of their own share one.
#[test]
fn how_a_run_ends() {
    let Some(broker) = Broker::start() else { return };
    let world = World::on(broker, 1);
    let scenarios: [(&str, i32, Scenario); 14] = [
        ("jobs", 4, two_jobs_are_done_when_all_is_done),
        ("heir", 2, a_job_takes_over_what_a_dead_one_left),
        ("hidden", 1, a_job_is_done_when_readers_see_it),
        ("signal", 2, a_job_that_is_stopped_says_what_is_left),
        ("late", 2, a_deadline_says_what_is_left),
        ("backlog", 2, a_deadline_finishes_what_was_begun),
        ("leave", 2, a_member_that_leaves_leaves_at_once),
        ("stop", 1, a_stop_without_partitions_is_quick),
        ("cover", 1, partitions_that_nobody_reads_are_found),
        ("silent", 1, one_that_was_silent_joins_again),
        ("twins", 1, of_two_twins_one_goes_on),
        ("next", 2, kip_848_comes_back),
        ("range", 1, a_range_consumer_is_named),
        ("narrow", 1, an_output_that_became_too_narrow_is_named),
    ];
    // All of them run, whichever fail.
    let failed: Vec<&str> = scenarios
        .into_iter()
        .filter(|(name, partitions, scenario)| {
            let mut beside = world.beside(name, *partitions, &[]);
            catch_unwind(AssertUnwindSafe(|| scenario(&mut beside))).is_err()
        })
        .map(|(name, ..)| name)
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// Neither of two jobs is done before both are.
fn two_jobs_are_done_when_all_is_done(world: &mut World) {
    world.produce_each(500);
    let jobs = ["a", "b"].map(|name| Replica::start(&world.config(name, SLOW), &["--until-end"]));
    let observer = world.observer();
    for job in jobs {
        let (code, log) = job.ended();
        let done: i64 = world.committed(&observer).unwrap().iter().sum();
        assert_eq!((code, done), (Some(0), 2_000), "{log}");
    }
    all_once(world, 500);
}

/// What a killed peer held is waited for and taken over.
fn a_job_takes_over_what_a_dead_one_left(world: &mut World) {
    world.produce_each(300);
    let [mut a, b] =
        ["a", "b"].map(|name| Replica::start(&world.config(name, SLOW), &["--until-end"]));
    a.says("assignment changed partitions=1");
    a.child.kill().unwrap();
    a.child.wait().unwrap();
    let (code, log) = b.ended();
    assert_eq!(code, Some(0), "{log}");
    // At once: the next job reads what this one says is there.
    assert_eq!(world.outcomes(), once(world.partitions, 0..300));
}

/// A transaction that is left open hides what is committed behind it, and the job waits for its end.
fn a_job_is_done_when_readers_see_it(world: &mut World) {
    world.produce_each(10);
    let other: BaseProducer =
        world.client().set("transactional.id", world.topic("other")).create().unwrap();
    let patience = Duration::from_secs(30);
    other.init_transactions(patience).unwrap();
    other.begin_transaction().unwrap();
    let out = world.topic("out");
    other.send(BaseRecord::<(), str>::to(&out).partition(0).payload("open")).unwrap();
    other.flush(patience).unwrap();
    let config = world.config("a", "");
    let (code, log) = Replica::start(&config, &["--until-end", "--deadline", "8s"]).ended();
    assert_eq!(code, Some(75), "{log}");
    assert!(log.contains(&format!("has left open hides it at {out}/0 below offset ")), "{log}");
    assert_eq!(world.committed(&world.observer()), Some(vec![10]), "all is committed");

    let job = Replica::start(&config, &["--until-end"]);
    job.says("another process has left open hides it");
    other.abort_transaction(patience).unwrap();
    let (code, log) = job.ended();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(world.outcomes(), once(1, 0..10));
}

/// A signal does not make a job done: whoever started it must know.
fn a_job_that_is_stopped_says_what_is_left(world: &mut World) {
    world.produce_each(1_000);
    let config = world.config("a", SLOW);
    for signal in ["TERM", "USR1"] {
        let before: i64 = world.committed(&world.observer()).unwrap().iter().sum();
        let job = Replica::start(&config, &["--until-end"]);
        let observer = world.observer();
        wait_for("a commit", || (before < world.committed(&observer)?.iter().sum()).then_some(()));
        job.signal(signal);
        let (code, log) = job.ended();
        assert_eq!(code, Some(75), "{log}");
        assert!(log.contains("before the job was stopped: about "), "{log}");
    }
    let (code, log) = Replica::start(&config, &["--until-end"]).ended();
    assert_eq!(code, Some(0), "{log}");
    all_once(world, 1_000);
}

/// A peer that holds a partition and does nothing keeps a job from its end: the deadline says how much is left.
fn a_deadline_says_what_is_left(world: &mut World) {
    let idle = Replica::start(&world.config_with("idle", LASTING, ""), &[]);
    let b = Replica::start(&world.config_with("b", LASTING, ""), &[]);
    for member in [&idle, &b] {
        member.says("assignment changed partitions=1");
    }
    world.produce_each(10);
    world.wait_for_lag_0();
    assert!(b.stop().success());
    idle.signal("STOP");
    world.produce_each(40);
    let job = world.config_with("b", LASTING, "");
    let (code, log) = Replica::start(&job, &["--until-end", "--deadline", "15s"]).ended();
    assert_eq!(code, Some(75), "{log}");
    assert!(log.contains("about 40 records of 1 partition are left"), "{log}");
    idle.signal("CONT");
    all_once(world, 50);
    assert!(idle.stop().success());
}

/// At its deadline a job stops as by a signal: it says what is left to the record, and leaves its group.
fn a_deadline_finishes_what_was_begun(world: &mut World) {
    const EACH: i64 = 10_000;
    (0..10).for_each(|_| world.produce_each(1_000));
    let job = Replica::start(&world.config("a", SLOW), &["--until-end", "--deadline", "4s"]);
    let (code, log) = job.ended();
    assert_eq!(code, Some(75), "{log}");
    let observer = world.observer();
    let committed = wait_for("the group's offsets", || world.committed(&observer));
    let committed: i64 = committed.iter().sum();
    let left = 2 * EACH - committed;
    let of = if 0 < committed { format!("about {left} records of ") } else { String::new() };
    let said = log.replace(',', "");
    assert!(said.contains(&format!("before --deadline: {of}")), "{left} are left: {log}");
    assert!(!log.contains("not left in time"), "{log}");
    let (code, log) = Replica::start(&world.config("a", ""), &["--until-end"]).ended();
    assert_eq!(code, Some(0), "{log}");
    all_once(world, EACH);
}

/// With `on_stop: leave`, by SIGUSR1 or as a job, a static member gives its partitions back at once; else it keeps them.
fn a_member_that_leaves_leaves_at_once(world: &mut World) {
    let stays = Replica::start(&world.config_with("stays", LASTING, ""), &[]);
    for (name, on_stop, signal) in [("a", "leave", "TERM"), ("b", "stay", "USR1")] {
        let kafka = format!("on_stop: {on_stop}\n  {LASTING}");
        let leaves = Replica::start(&world.config_with(name, &kafka, ""), &[]);
        leaves.says("assignment changed partitions=1");
        leaves.signal(signal);
        let (code, log) = leaves.ended();
        assert_eq!(code, Some(0), "{log}");
        world.produce_each(10);
        world.wait_for_lag_0();
    }
    all_once(world, 20);
    assert!(stays.stop().success());
}

/// A process that holds nothing stops within two seconds, whatever it waits for.
fn a_stop_without_partitions_is_quick(world: &mut World) {
    let nobody = world.config_with("a", "", "");
    let text = std::fs::read_to_string(&nobody).unwrap();
    std::fs::write(&nobody, text.replace(&world.broker.servers, "127.0.0.1:9")).unwrap();
    let away = Replica::start(&nobody, &[]);
    away.says("listening");
    stops_soon(away, "the broker is away");

    // A member that is stopped holds up the rebalance that would give the second one its partitions.
    let first = Replica::start(&world.config_with("first", LASTING, ""), &[]);
    first.says("assignment changed partitions=1");
    first.signal("STOP");
    let second = Replica::start(&world.config_with("second", LASTING, ""), &[]);
    second.says("model loaded");
    stops_soon(second, "the group has assigned nothing");
    first.signal("CONT");
    assert!(first.stop().success());
}

#[track_caller]
fn stops_soon(mut replica: Replica, what: &str) {
    replica.signal("TERM");
    let since = Instant::now();
    let status = wait_for("a stop", || replica.child.try_wait().unwrap());
    let took = since.elapsed();
    assert!(took < Duration::from_secs(2), "{what}: {took:?} until {status}");
}

/// A static member that comes back within its session gets what it had, without a rebalance that would show it the new
/// partitions.
fn partitions_that_nobody_reads_are_found(world: &mut World) {
    let config = world.config_with("a", LASTING, "");
    let replica = Replica::start(&config, &[]);
    replica.says("assignment changed partitions=1");
    assert!(replica.stop().success());
    world.grow(3);
    let replica = Replica::start(&config, &[]);
    world.produce_each(10);
    all_once(world, 10);
    assert!(replica.stop().success());
}

/// A process that was stopped for longer than its session is no twin of itself.
fn one_that_was_silent_joins_again(world: &mut World) {
    let mut replica = Replica::start(&world.config("a", ""), &[]);
    world.produce_each(10);
    world.wait_for_lag_0();
    replica.signal("STOP");
    let admin: BaseConsumer = world.client().create().unwrap();
    wait_for("the session to be over", || {
        let groups = admin.fetch_group_list(Some("silent"), Duration::from_secs(5)).ok()?;
        groups.groups().iter().all(|group| group.members().is_empty()).then_some(())
    });
    world.produce_each(10);
    replica.signal("CONT");
    all_once(world, 20);
    replica.assert_alive();
    assert!(replica.stop().success());
}

/// The older one of two processes with one instance name ends, and says why.
fn of_two_twins_one_goes_on(world: &mut World) {
    let file = world.config("a", "");
    let mut older = Replica::start(&file, &[]);
    older.says("assignment changed partitions=1");
    let twin = copy(&file, "twin");
    let mut younger = Replica::start(&twin, &[]);
    let code = wait_for("one of them to end", || {
        let ended = [&mut older, &mut younger].map(|replica| replica.child.try_wait().unwrap());
        ended.into_iter().flatten().next()
    });
    assert_eq!(code.code(), Some(78));
    world.produce_each(10);
    all_once(world, 10);
    let alive = [&mut older, &mut younger].map(|replica| replica.child.try_wait().unwrap());
    assert_eq!(alive.iter().filter(|ended| ended.is_none()).count(), 1, "{alive:?}");
}

/// The same configuration in a file of another name, so that its log is its own.
fn copy(file: &Path, name: &str) -> std::path::PathBuf {
    let other = file.with_file_name(format!("{name}.yaml"));
    std::fs::copy(file, &other).unwrap();
    other
}

/// Under KIP-848's protocol a replica that was killed comes back under its name.
fn kip_848_comes_back(world: &mut World) {
    let file = world.config_with("a", "consumer: { group.protocol: consumer }", SLOW);
    world.produce_each(200);
    let mut replica = Replica::start(&file, &[]);
    let observer = world.observer();
    wait_for("the first commit", || {
        let committed = world.committed(&observer)?;
        (0 < committed.iter().sum::<i64>()).then_some(())
    });
    replica.crash();
    all_once(world, 200);
    replica.assert_alive();
    assert!(replica.stop().success());
}

/// A member that gives partitions out in another way ends ours with the remedy, not with tries for ever.
fn a_range_consumer_is_named(world: &mut World) {
    let mut other = world.client();
    other.set("group.id", "range").set("partition.assignment.strategy", "range");
    let other: BaseConsumer = other.create().unwrap();
    other.subscribe(&[&world.topic("in")]).unwrap();
    wait_for("the other one's partitions", || {
        drop(other.poll(Duration::from_millis(100)));
        (other.assignment().unwrap().count() == 1).then_some(())
    });
    let mut replica = Replica::start(&world.config("a", ""), &[]);
    let status = wait_for("the end", || {
        drop(other.poll(Duration::from_millis(100)));
        replica.child.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(78));
    replica.says("another member gives partitions out in another way");
}

/// Partitions that are added to the input alone.
fn an_output_that_became_too_narrow_is_named(world: &mut World) {
    let replica = Replica::start(&world.config("a", ""), &[]);
    replica.says("assignment changed partitions=1");
    world.grow_only(&["in"], 3);
    world.produce(2, &[GOOD; 5]);
    let (code, log) = replica.ended();
    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains("narrow-in") && log.contains("add partitions to"), "{log}");
}

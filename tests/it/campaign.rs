//! The fault campaign: three brokers, two replicas behind a proxy that understands Kafka's frames, a steady load, and
//! one fault after the other. After each of them every partition must move again; at the end each record must have
//! exactly one outcome, in order, and `tidemill verify` must say so too.
//!
//! A few rounds run with every test. `TIDEMILL_CAMPAIGN_ROUNDS=N` makes it N rounds of every fault;
//! `TIDEMILL_CAMPAIGN_FAULTS=TEXT` keeps those with this text in their name. The table is printed as Markdown.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;

use crate::broker::Broker;
use crate::world::{Replica, World, wait_for};
use faults::{ALL, FEW, Fault};
use frame::Api;
use load::Load;
use proxy::Proxy;
use report::Round;

mod cluster;
mod faults;
mod frame;
mod load;
mod proxy;
mod report;

const PARTITIONS: i32 = 4;
/// The replicas' instances.
const NAMES: [&str; 2] = ["a", "b"];
const EXTRA: &str =
    "batch: { max_records: 20, max_wait: 50ms }\nlogging: { filter: 'tidemill=debug,info' }";

/// A service under fire.
struct Campaign {
    // First, so that a replica that is stopped is ended before what it talks to.
    replicas: Vec<Replica>,
    load: Load,
    observer: BaseConsumer,
    proxy: Proxy,
    world: World,
    rounds: Vec<Round>,
    /// How replicas ended by themselves in this round.
    ended: Vec<ExitStatus>,
}

impl Campaign {
    /// `None`, said loudly, where no broker can be started.
    fn start() -> Option<Self> {
        let mut proxy = Proxy::bind(3);
        let broker = Broker::behind(&proxy.addresses)?;
        proxy.serve((1..=3).map(|id| broker.address(id, 0)).collect());
        let world = World::on(broker, PARTITIONS);
        world.add_version(1);
        world.promote(1);
        let replicas =
            NAMES.map(|instance| Replica::start(&world.config(instance, EXTRA), &[])).into();
        let load = Load::start(&world);
        let observer = load::client(&world).set("group.id", "g").create().unwrap();
        Some(Self { replicas, load, observer, proxy, world, rounds: Vec::new(), ended: Vec::new() })
    }

    /// Starts replicas that ended by themselves again, as Kubernetes does. Each must have
    /// said that the next start goes on: none may die, nor take the fault for a wrong configuration.
    fn revive(&mut self) {
        self.proxy.assert_guarded();
        for replica in &mut self.replicas {
            if let Some(ended) = replica.revive_after() {
                assert_eq!(
                    ended.code(),
                    Some(75),
                    "a replica ends for good, or died, for a fault that passes: {}",
                    replica.last_words()
                );
                say(&format!("campaign: {ended}\n{}\n", replica.last_words()));
                self.ended.push(ended);
            }
        }
    }

    /// Waits until every partition has an outcome for a record that was produced from now on.
    fn moves(&mut self, since: Instant) -> Duration {
        let mark = self.load.next();
        wait_for("every partition to move again", || {
            self.revive();
            self.load.has_passed(mark).then(|| since.elapsed())
        })
    }

    /// Waits until all is well: every copy in step, both replicas committing.
    fn settle(&mut self) {
        cluster::whole(&self.observer);
        let count = |proxy: &Proxy| NAMES.map(|name| proxy.asked(name, Api::EndTxn));
        let before = count(&self.proxy);
        wait_for("both replicas to commit", || {
            self.revive();
            let now = count(&self.proxy);
            (0..NAMES.len()).all(|n| before[n] + 2 <= now[n]).then_some(())
        });
    }

    fn round(&mut self, fault: Fault, victim: usize) {
        self.settle();
        say(&format!("campaign: {}\n", fault.name()));
        let from = self.load.next();
        if let Some(last) = self.rounds.last_mut() {
            last.records.end = from;
            last.ended.append(&mut self.ended);
        }
        let recovery = self.strike(fault, victim);
        say(&format!("campaign: {:.1} s\n", recovery.as_secs_f64()));
        let ended = std::mem::take(&mut self.ended);
        self.rounds.push(Round { fault: fault.name(), recovery, records: from..usize::MAX, ended });
    }

    /// Ends everything in order, and judges what came out.
    fn judge(mut self) {
        self.settle();
        let total = self.load.finish();
        self.world.wait_for_lag_0();
        for replica in self.replicas.drain(..) {
            let status = replica.stop();
            assert!(status.success(), "a replica stopped with {status}");
        }
        self.proxy.assert_guarded();
        let found = Found::read(&self.world);
        let commits: usize =
            NAMES.iter().map(|name| self.proxy.asked(name, Api::TxnOffsetCommit)).sum();
        let (lost, doubled) = (found.lost(), found.doubled());
        say(&format!(
            "{}campaign: {total} records, {} lost, {} duplicates, {} out of order, {} wrong; {commits} commits of \
             offsets, each with member and generation\n",
            report::table(&self.rounds, &lost, &doubled),
            lost.len(),
            doubled.len(),
            found.disorder,
            found.wrong,
        ));
        assert!(0 < commits, "the proxy saw no commit");
        assert!(lost.is_empty() && doubled.is_empty(), "lost {lost:?}, doubled {doubled:?}");
        assert_eq!((found.disorder, found.wrong), (0, 0));
        let config = self.world.config(NAMES[0], EXTRA);
        let verified = Command::new(env!("CARGO_BIN_EXE_tidemill"))
            .args(["verify", "--config"])
            .arg(config)
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&verified.stdout);
        assert!(verified.status.success(), "tidemill verify: {words}");
    }
}

/// What a reader of committed records finds.
struct Found {
    /// How often each record of the input has an outcome.
    outcomes: BTreeMap<usize, usize>,
    disorder: usize,
    wrong: usize,
}

impl Found {
    fn read(world: &World) -> Self {
        let number = |key: &Option<Vec<u8>>| -> usize {
            String::from_utf8(key.clone().unwrap()).unwrap().parse().unwrap()
        };
        let input = world.read("in", "read_committed");
        let mut found = Self {
            outcomes: input.iter().map(|seen| (number(&seen.key), 0)).collect(),
            disorder: 0,
            wrong: 0,
        };
        assert_eq!(found.outcomes.len(), input.len(), "the input has a record twice");
        for (topic, prefix) in [("out", "tidemill.source"), ("in-dlq", "__connect.errors")] {
            let mut last: BTreeMap<i32, i64> = BTreeMap::new();
            for seen in world.read(topic, "read_committed") {
                let n = number(&seen.key);
                *found.outcomes.entry(n).or_default() += 1;
                let offset: i64 = seen.number(&format!("{prefix}.offset")).unwrap();
                let before = last.insert(seen.partition, offset).unwrap_or(-1);
                found.disorder += usize::from(offset <= before);
                found.wrong += usize::from(load::is_bad(n) != (topic == "in-dlq"));
            }
        }
        found
    }

    fn lost(&self) -> BTreeSet<usize> {
        self.outcomes.iter().filter(|(_, times)| **times == 0).map(|(n, _)| *n).collect()
    }

    fn doubled(&self) -> BTreeSet<usize> {
        self.outcomes.iter().filter(|(_, times)| 1 < **times).map(|(n, _)| *n).collect()
    }
}

fn say(text: &str) {
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}

#[test]
fn exactly_once_whatever_three_brokers_do() {
    let Some(mut campaign) = Campaign::start() else { return };
    let rounds: Option<usize> =
        std::env::var("TIDEMILL_CAMPAIGN_ROUNDS").ok().map(|n| n.parse().unwrap());
    let wanted = std::env::var("TIDEMILL_CAMPAIGN_FAULTS").unwrap_or_default();
    let faults = rounds.map_or(FEW, |_| ALL);
    for round in 0..rounds.unwrap_or(1) {
        let faults = faults.iter().filter(|fault| fault.name().contains(&wanted));
        for (number, fault) in faults.enumerate() {
            campaign.round(*fault, (round + number) % NAMES.len());
        }
    }
    campaign.judge();
}

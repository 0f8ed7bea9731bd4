//! The faults: what each does, and when it is over.

use std::time::{Duration, Instant};

use super::cluster::{self, Role};
use super::frame::Api;
use super::proxy::{Act, Rule, Way};
use super::{Campaign, NAMES};
use crate::world::{Replica, wait_for};

/// Longer than a replica's session (6 s), and than its transactions may take before the broker ends them (15 s, looked at
/// every half a second).
const TIMEOUTS: Duration = Duration::from_secs(17);

/// Longer than a session alone.
const SILENCE: Duration = Duration::from_secs(9);

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// `kill -9` of a broker; it returns once everything moves without it.
    BrokerKilled(Role),
    /// SIGSTOP of a broker, for longer than its session with the controller.
    BrokerStopped(Role),
    /// `kill -9` of a replica, and another process in its place.
    ReplicaKilled,
    /// SIGTERM of a static member, and another process in its place.
    ReplicaRestarted,
    /// SIGSTOP of a replica within a transaction, beyond its session and the transaction's time-out, then SIGCONT.
    Zombie(Way, Api),
    /// The broker does as asked, and the answer never arrives, so many times running.
    AnswerLost(Api, usize),
    /// The same while a replica starts anew.
    AnswerLostAtStart(Api),
    /// The answer comes so many milliseconds late.
    AnswerLate(Api, u64),
    /// Every answer to a replica is so many milliseconds late, for so many answers.
    Slow(u64, usize),
    /// A replica hears nothing for longer than its session, twice.
    Silence,
    /// The end of a transaction arrives when the next one of the same producer id has begun.
    EndOvertaken(Act),
    /// All topics get one more partition.
    Grown,
    /// Two jobs with `--until-end` share a backlog.
    TwoJobs,
}

/// Every fault of the full campaign.
pub(super) const ALL: &[Fault] = &[
    Fault::BrokerKilled(Role::Group),
    Fault::BrokerKilled(Role::Transactions),
    Fault::BrokerKilled(Role::Leader("in")),
    Fault::BrokerKilled(Role::Leader("out")),
    Fault::BrokerStopped(Role::Group),
    Fault::BrokerStopped(Role::Transactions),
    Fault::BrokerStopped(Role::Leader("out")),
    Fault::ReplicaKilled,
    Fault::ReplicaRestarted,
    Fault::Zombie(Way::Answer, Api::AddPartitionsToTxn),
    Fault::Zombie(Way::Answer, Api::Produce),
    Fault::Zombie(Way::Answer, Api::TxnOffsetCommit),
    Fault::Zombie(Way::Request, Api::EndTxn),
    Fault::Zombie(Way::Answer, Api::EndTxn),
    Fault::AnswerLost(Api::AddPartitionsToTxn, 1),
    Fault::AnswerLost(Api::Produce, 1),
    Fault::AnswerLost(Api::AddOffsetsToTxn, 1),
    Fault::AnswerLost(Api::TxnOffsetCommit, 1),
    Fault::AnswerLost(Api::EndTxn, 1),
    Fault::AnswerLost(Api::TxnOffsetCommit, 3),
    Fault::AnswerLost(Api::EndTxn, 3),
    Fault::AnswerLost(Api::Fetch, 1),
    Fault::AnswerLost(Api::Heartbeat, 1),
    Fault::AnswerLostAtStart(Api::InitProducerId),
    Fault::AnswerLostAtStart(Api::OffsetFetch),
    Fault::AnswerLostAtStart(Api::JoinGroup),
    Fault::AnswerLate(Api::TxnOffsetCommit, 3_000),
    Fault::AnswerLate(Api::EndTxn, 3_000),
    Fault::Slow(200, 100),
    Fault::Silence,
    Fault::EndOvertaken(Act::HoldAndCut),
    Fault::EndOvertaken(Act::Hold),
    Fault::Grown,
    Fault::TwoJobs,
];

/// Those that run with every test.
pub(super) const FEW: &[Fault] = &[
    Fault::BrokerKilled(Role::Group),
    Fault::AnswerLost(Api::TxnOffsetCommit, 1),
    Fault::AnswerLost(Api::EndTxn, 1),
    Fault::AnswerLostAtStart(Api::InitProducerId),
    Fault::EndOvertaken(Act::HoldAndCut),
    Fault::ReplicaKilled,
    Fault::Zombie(Way::Answer, Api::TxnOffsetCommit),
    Fault::BrokerKilled(Role::Transactions),
    Fault::BrokerStopped(Role::Leader("out")),
    Fault::Zombie(Way::Request, Api::EndTxn),
    Fault::Grown,
    Fault::ReplicaRestarted,
    Fault::Silence,
    Fault::TwoJobs,
];

impl Fault {
    /// Its name in the table.
    pub(super) fn name(self) -> String {
        let of = |role| match role {
            Role::Group => "the group coordinator's broker".to_owned(),
            Role::Transactions => "the transaction coordinator's broker".to_owned(),
            Role::Leader(topic) => format!("the broker that leads `{topic}`"),
        };
        match self {
            Self::BrokerKilled(role) => format!("`kill -9` of {}", of(role)),
            Self::BrokerStopped(role) => format!("SIGSTOP of {} beyond its session", of(role)),
            Self::ReplicaKilled => "`kill -9` of a replica".to_owned(),
            Self::ReplicaRestarted => "restart of a static member".to_owned(),
            Self::Zombie(Way::Answer, api) => {
                format!("zombie: stopped after {api:?}, beyond every time-out")
            }
            Self::Zombie(Way::Request, api) => {
                format!("zombie: stopped with {api:?} on its way, which arrives late")
            }
            Self::AnswerLost(api, 1) => format!("answer to {api:?} lost"),
            Self::AnswerLost(api, times) => format!("answer to {api:?} lost {times} times running"),
            Self::AnswerLostAtStart(api) => format!("answer to {api:?} lost, at a start"),
            Self::AnswerLate(api, ms) => format!("answer to {api:?} {} s late", ms / 1_000),
            Self::Slow(ms, _) => format!("all answers {ms} ms late"),
            Self::Silence => "no answer to a replica for longer than its session, twice".to_owned(),
            Self::EndOvertaken(Act::HoldAndCut) => {
                "EndTxn delayed past the next transaction, connection cut".to_owned()
            }
            Self::EndOvertaken(_) => "EndTxn delayed past the next transaction, silence".to_owned(),
            Self::Grown => "a partition added".to_owned(),
            Self::TwoJobs => "two `--until-end` jobs at once".to_owned(),
        }
    }
}

impl Campaign {
    /// Does it to replica `victim`, or to the broker that this replica needs, and waits until it is over; how long it
    /// was until every partition moved again.
    pub(super) fn strike(&mut self, fault: Fault, victim: usize) -> Duration {
        match fault {
            Fault::BrokerKilled(role) => {
                let broker = self.broker(role, victim);
                let since = Instant::now();
                self.world.broker.kill9_one(broker);
                let recovery = self.moves(since);
                self.world.broker.restart_one(broker);
                recovery
            }
            Fault::BrokerStopped(role) => {
                let broker = self.broker(role, victim);
                let since = Instant::now();
                self.world.broker.signal_one(broker, "STOP");
                let recovery = self.moves(since);
                cluster::without(&self.observer, broker);
                self.world.broker.signal_one(broker, "CONT");
                recovery
            }
            Fault::ReplicaKilled => {
                let since = Instant::now();
                self.replicas[victim].crash();
                self.moves(since)
            }
            Fault::ReplicaRestarted => {
                let since = Instant::now();
                let ended = self.replicas[victim].restart();
                assert!(ended.success(), "a replica stopped with {ended}");
                self.moves(since)
            }
            Fault::Zombie(way, api) => self.zombie(victim, way, api),
            Fault::AnswerLost(api, times) => self.meddle(victim, Some(api), Act::Lose, times),
            Fault::AnswerLostAtStart(api) => {
                self.rule(victim, Some(api), Way::Answer, Act::Lose, 1);
                self.replicas[victim].crash();
                self.over(1)
            }
            Fault::AnswerLate(api, ms) => {
                self.meddle(victim, Some(api), Act::Late(Duration::from_millis(ms)), 1)
            }
            Fault::Slow(ms, times) => {
                self.meddle(victim, None, Act::Late(Duration::from_millis(ms)), times)
            }
            Fault::Silence => self.silence(victim),
            Fault::EndOvertaken(act) => self.end_overtaken(victim, act),
            Fault::Grown => {
                let since = Instant::now();
                let partitions = self.world.partitions + 1;
                self.world.grow(usize::try_from(partitions).unwrap());
                self.load.grow(partitions);
                self.moves(since)
            }
            Fault::TwoJobs => self.two_jobs(),
        }
    }

    fn broker(&self, role: Role, victim: usize) -> i32 {
        role.broker(&self.observer, "g", &transaction(victim))
    }

    fn rule(&self, victim: usize, api: Option<Api>, way: Way, act: Act, times: usize) {
        self.proxy.rule(Rule { client: NAMES[victim].to_owned(), api, way, act, times });
    }

    /// Waits until the rule has met so many frames, and then until every partition moves.
    fn over(&mut self, times: usize) -> Duration {
        self.caught(1);
        let recovery = self.moves(Instant::now());
        self.caught(times);
        self.proxy.release();
        recovery
    }

    fn caught(&mut self, times: usize) {
        wait_for("a frame for the rule", || {
            self.revive();
            (times <= self.proxy.caught().len()).then_some(())
        });
    }

    fn meddle(&mut self, victim: usize, api: Option<Api>, act: Act, times: usize) -> Duration {
        self.rule(victim, api, Way::Answer, act, times);
        self.over(times)
    }

    /// A replica whose session is over, and which then hears again, joins again: it is no twin of itself.
    fn silence(&mut self, victim: usize) -> Duration {
        let mut recovery = Duration::ZERO;
        for _ in 0..2 {
            self.rule(victim, None, Way::Answer, Act::Hold, usize::MAX);
            self.caught(1);
            let since = Instant::now();
            recovery = recovery.max(self.moves(since));
            wait_for("the session to be over", || (SILENCE < since.elapsed()).then_some(()));
            self.proxy.release();
            self.moves(Instant::now());
        }
        recovery
    }

    /// A replica that sleeps within a transaction and wakes when the others have gone on without it.
    fn zombie(&mut self, victim: usize, way: Way, api: Api) -> Duration {
        self.rule(victim, Some(api), way, Act::Hold, 1);
        self.caught(1);
        let since = Instant::now();
        self.replicas[victim].signal("STOP");
        let recovery = if way == Way::Request {
            // What it wrote stays hidden until the broker ends the transaction: then its own end arrives.
            let recovery = self.moves(since);
            self.proxy.release();
            self.late_end_is_refused();
            recovery
        } else {
            self.proxy.release();
            self.moves(since)
        };
        wait_for("every time-out to pass", || (TIMEOUTS < since.elapsed()).then_some(()));
        self.replicas[victim].signal("CONT");
        recovery
    }

    /// The end of a transaction that was thought lost arrives when the next one with the same id has begun, and would
    /// commit half of that.
    fn end_overtaken(&mut self, victim: usize, act: Act) -> Duration {
        self.rule(victim, Some(Api::EndTxn), Way::Request, act, 1);
        self.caught(1);
        let since = Instant::now();
        let id = transaction(victim);
        let begun = self.proxy.asked(&id, Api::AddPartitionsToTxn);
        wait_for("the next transaction", || {
            self.revive();
            (begun < self.proxy.asked(&id, Api::AddPartitionsToTxn)).then_some(())
        });
        self.proxy.release();
        self.late_end_is_refused();
        self.moves(since)
    }

    fn late_end_is_refused(&self) {
        let answers = wait_for("the answer to the late EndTxn", || {
            Some(self.proxy.late_answers()).filter(|answers| !answers.is_empty())
        });
        assert!(!answers.contains(&0), "a transaction was ended by a request that came late");
    }

    /// Neither of two jobs ends before everything is done, whoever does it.
    fn two_jobs(&mut self) -> Duration {
        let name = format!("jobs{}", self.load.next());
        let jobs = self.world.beside(&name, 4, &[]);
        let values: Vec<String> = (0..500).map(|n| format!("{{\"x\":{n}}}")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        (0..4).for_each(|partition| jobs.produce(partition, &values));
        let since = Instant::now();
        let mut running: Vec<_> = ["j", "k"]
            .map(|instance| {
                let config = jobs.config(instance, "batch: { max_records: 20 }");
                Replica::start(&config, &["--until-end"])
            })
            .into();
        let observer = jobs.observer();
        while !running.is_empty() {
            let ended = wait_for("the end of a job", || {
                self.revive();
                running.iter().position(Replica::has_ended)
            });
            let committed = wait_for("what is committed", || jobs.committed(&observer));
            let (code, log) = running.swap_remove(ended).ended();
            assert_eq!((code, &committed), (Some(0), &vec![500; 4]), "a job ended: {log}");
        }
        let recovery = since.elapsed();
        let outcomes = jobs.outcomes();
        assert_eq!(outcomes.len(), 2_000);
        assert!(outcomes.values().all(|times| *times == 1));
        recovery
    }
}

/// The transactional id of a replica's only lane.
pub(super) fn transaction(victim: usize) -> String {
    format!("tidemill/g/{}/0", NAMES[victim])
}

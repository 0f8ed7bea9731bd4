//! A pause, and the stop that may come in it.

use std::time::Instant;

use super::Pipeline;

impl<T, O> Pipeline<T, O> {
    /// What was held back waits from now on: while nothing is cut, no lane can come to the version that it waits for.
    pub(super) fn resume(&mut self, now: Instant) {
        if std::mem::take(&mut self.paused) {
            self.held.wait_from(now);
        }
    }

    /// What was begun is finished, with one more batch a lane; in a pause without that.
    pub(super) fn close(&mut self) {
        self.closing = true;
        for lane in &mut self.lanes {
            if self.paused {
                lane.batcher.clear();
            } else {
                lane.batcher.finish();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::pipeline::arrive::Assigned;
    use crate::pipeline::publish::Transaction;
    use crate::pipeline::{Effect, Event, Item, Limits, Part, Stop, batch};
    use crate::record::{Epoch, Offset, Outcome, Partition, Version};

    const PARTITION: Partition = Partition { topic: 0, number: 0 };
    const WAIT: Duration = Duration::from_secs(60);

    /// A core with one partition that ends at offset 4, and the clock of its outside.
    struct World {
        core: Pipeline<(), ()>,
        now: Instant,
    }

    impl World {
        fn new(recorded: Option<Version>) -> (Self, Vec<String>) {
            let limits = Limits {
                batch: batch::Limits {
                    max_records: 2,
                    max_bytes: 100,
                    max_tokens: 100,
                    max_wait: Duration::from_millis(5),
                    flush_when_idle: false,
                },
                lanes: 1,
                slots: 1,
                buffer_bytes: 100,
                outcome_bytes: 100,
                commit_wait: Duration::ZERO,
                commit_batches: 1,
                tail_every: Duration::from_secs(1),
                max_dead_ratio: 1.0,
                dead_window: 100,
                takeover_wait: WAIT,
            };
            #[expect(clippy::disallowed_methods, reason = "a test needs one arbitrary instant")]
            let now = Instant::now();
            let mut world = Self { core: Pipeline::new(limits, Version(1)), now };
            let (next, until) = (Offset(0), Some(Offset(4)));
            let (partition, epoch, skip) = (PARTITION, Epoch(1), None);
            let assigned = Assigned { partition, epoch, next, until, skip, recorded };
            let said = world.tell(Event::Assigned(vec![assigned]));
            (world, said)
        }

        /// What the core says to an event, in a word each.
        fn tell(&mut self, event: Event<(), ()>) -> Vec<String> {
            let mut effects = Vec::new();
            self.core.handle(event, self.now, &mut effects);
            let word = |effect| match effect {
                Effect::Infer(batch, rows) => format!("infer {} {rows:?}", batch.number),
                Effect::Commit(_, Transaction { id, next, .. }) => {
                    format!("commit {id} to {}", next[&PARTITION].1)
                }
                Effect::Open(..) => "open".to_owned(),
                Effect::Ask(question) => format!("ask {question}"),
                Effect::Release(ticket) => format!("release {ticket}"),
                Effect::Retire(version) => format!("retire {version}"),
                Effect::Stop(Stop::Takeover { .. }) => "stop: takeover".to_owned(),
                Effect::Stop(stop) => format!("{stop:?}"),
            };
            effects.into_iter().map(word).collect()
        }

        fn arrive(&mut self, offsets: std::ops::Range<i64>) -> Vec<String> {
            let item = |offset| Item {
                partition: PARTITION,
                epoch: Epoch(1),
                offset: Offset(offset),
                bytes: 1,
                tokens: 1,
                memory: 1,
                alone: None,
                payload: (),
            };
            self.tell(Event::Arrived(offsets.map(item).collect()))
        }

        fn answer(&mut self, batch: u64) -> Vec<String> {
            let answer = Ok(vec![Outcome::Prediction(()), Outcome::Prediction(())]);
            let parts = vec![Part { rows: vec![0, 1], answer }];
            self.tell(Event::Inferred { batch, parts, bytes: 1 })
        }

        fn committed(&mut self, id: u64, next: i64) -> Vec<String> {
            let committed = BTreeMap::from([(PARTITION, Offset(next))]);
            self.tell(Event::Committed { lane: 0, id, committed, buried: Vec::new(), fits: None })
        }

        /// So much time passes.
        fn wait(&mut self, time: Duration) -> Vec<String> {
            self.now += time;
            self.tell(Event::Tick)
        }
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn in_a_pause_what_was_cut_is_committed_and_nothing_else_is_cut() {
        let (mut world, _) = World::new(None);
        assert_eq!(world.arrive(0..4), ["infer 0 [0, 1]"]);
        assert_eq!(world.tell(Event::Pause), NOTHING);
        assert!(!world.core.has_room(), "nothing is taken in");
        assert_eq!(world.answer(0), ["commit 1 to 2"], "and the free slot stays free");
        assert_eq!(world.committed(1, 2), NOTHING);
        assert_eq!(world.wait(Duration::from_secs(3_600)), NOTHING, "due for an hour");
        assert_eq!(world.core.deadline(), None, "nothing to look for");
        assert!(!world.core.is_drained() && !world.core.reached_ends(), "a job is not done");
        assert_eq!(world.tell(Event::Resume), ["infer 2 [0, 1]"]);
        assert!(world.core.has_room());
        assert_eq!(world.answer(2), ["commit 3 to 4"]);
        assert_eq!(world.committed(3, 4), NOTHING);
        assert!(world.core.is_drained() && world.core.reached_ends());
    }

    #[test]
    fn a_revocation_in_a_pause_is_answered() {
        let revoked = |ticket| Event::Revoked { partitions: vec![PARTITION], lost: false, ticket };
        let (mut world, _) = World::new(None);
        assert_eq!(world.arrive(0..4), ["infer 0 [0, 1]"]);
        world.tell(Event::Pause);
        assert_eq!(world.answer(0), ["commit 1 to 2"]);
        assert_eq!(world.tell(revoked(7)), NOTHING, "not under a transaction");
        assert_eq!(world.committed(1, 2), ["release 7"]);
        assert!(world.core.is_drained(), "what waited is somebody else's");
        assert_eq!(world.tell(revoked(8)), ["release 8"]);
        assert_eq!(world.tell(Event::Resume), NOTHING);
    }

    #[test]
    fn a_stop_in_a_pause_leaves_what_waits_to_the_next_start() {
        let (mut world, _) = World::new(None);
        world.arrive(0..4);
        world.tell(Event::Pause);
        assert_eq!(world.tell(Event::Close), NOTHING);
        assert_eq!(world.answer(0), ["commit 1 to 2"], "what was begun is finished");
        assert_eq!(world.committed(1, 2), NOTHING);
        assert!(world.core.is_drained());
    }

    /// The version that a partition waits for may not be able to serve before the pause is over.
    #[test]
    fn a_pause_does_not_count_as_waiting_for_a_version() {
        let (mut world, said) = World::new(Some(Version(2)));
        assert_eq!(said, ["ask 1"]);
        world.tell(Event::Pause);
        assert_eq!(world.wait(WAIT * 9), NOTHING);
        assert_eq!(world.core.deadline(), None);
        assert_eq!(world.tell(Event::Resume), NOTHING);
        assert_eq!(world.core.deadline(), Some(world.now + WAIT));
        assert_eq!(world.wait(WAIT), ["stop: takeover"], "it goes on to wait");
    }
}

//! How the engine ends: the group is left, the log's threads are joined, and what is left is said.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::OnStop;
use crate::failure::{Exit, Failure};
use crate::log::Control;
use crate::printable::{counted, thousands};
use crate::record::Partition;

use super::{Engine, now};

/// How long the end of a process may take that holds nothing, or that failed.
const BRIEF: Duration = Duration::from_millis(1_500);

/// How long a job that failed may take to leave its group.
const LEAVING: Duration = Duration::from_secs(8);

impl Engine {
    /// Gives the partitions back and lets the threads end, within the drain.
    pub(super) async fn leave(&mut self, clean: bool) {
        let for_good = self.parts.until_end || self.leave_for_good || self.on_stop == OnStop::Leave;
        self.parts.membership.leave.ask(for_good);
        self.parts.sink.lanes.clear();
        let holds = !self.pipeline.owned().is_empty();
        let deadline = now()
            + match (clean, for_good) {
                (true, _) if holds => self.drain,
                // Others are to go on at once, also where the job has failed before it read anything.
                (false, true) => LEAVING,
                _ => BRIEF,
            };
        loop {
            let control = self.parts.membership.control.recv();
            match tokio::time::timeout_at(deadline.into(), control).await {
                // Nothing of ours is outstanding: every revocation may go on at once.
                Ok(Some(Control::Revoked { done, .. })) => drop(done.try_send(())),
                Ok(Some(_)) => (),
                Ok(None) => break,
                Err(_elapsed) => {
                    if holds {
                        tracing::warn!(
                            "the group was not left in time; the session will expire instead"
                        );
                    }
                    return;
                }
            }
        }
        let feed = self.parts.membership.threads.drain(..);
        for thread in feed.chain(self.parts.sink.threads.drain(..)) {
            if deadline <= now() && !thread.is_finished() {
                return;
            }
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
    }

    /// What a bounded run ends with that has come to `end` before its ends.
    pub(super) fn unreached(&self, end: &str) -> Failure {
        if let Some(places) = &self.hidden {
            let message = format!(
                "show readers what was committed before {end}: all is done, but a transaction that another process has \
                 left open hides it at {places}; the broker ends it within that process's transaction.timeout.ms"
            );
            return Failure { message, exit: Exit::Temporary };
        }
        let own = self.lag.of_job(self.pipeline.owned());
        let (mine, held) = (own.values().sum::<i64>(), own.len());
        // Of our own partitions it is known what was committed since the group was looked at.
        let of_group = |seen: &BTreeMap<Partition, i64>| {
            let left = |(place, left): (&Partition, &i64)| own.get(place).copied().unwrap_or(*left);
            let left: Vec<i64> = seen.iter().map(left).filter(|left| 0 < *left).collect();
            (left.iter().sum::<i64>(), left.len())
        };
        let known = self.unfinished.as_ref().map(of_group);
        let known = known.or_else(|| (held != 0).then_some((mine, held)));
        let left = known.map_or_else(
            || "how many records are left is not known yet".to_owned(),
            |(left, partitions)| {
                format!(
                    "about {} of {} {} left, {} of them in what this replica holds, {}",
                    counted(left, "record", "records"),
                    counted(partitions, "partition", "partitions"),
                    if left == 1 { "is" } else { "are" },
                    thousands(u64::try_from(mine).unwrap_or(0)),
                    counted(held, "partition", "partitions")
                )
            },
        );
        let message = format!(
            "reach the ends that were there at the start before {end}: {left}; the next run goes on where this one stops"
        );
        Failure { message, exit: Exit::Temporary }
    }
}

//! What the log says that is no record: assignments, revocations, ends, how the cluster is.

use super::{Engine, now};
use crate::failure::{Failure, temporary};
use crate::log::{self, Control};
use crate::pipeline::{Event, arrive};
use crate::record::{ModelId, Partition, Version};

impl Engine {
    pub(super) fn control(&mut self, control: Option<Control>) -> Result<(), Failure> {
        let now = now();
        match control {
            // It does nothing any more, and takes nothing.
            None | Some(Control::Failed(_) | Control::Assigned(_)) if self.stopped.is_some() => (),
            None => {
                return Err(temporary("the reading thread ended without a word; this is a bug"));
            }
            Some(Control::Failed(failure)) => return Err(failure),
            Some(Control::Assigned(assigned)) => return self.assigned(assigned),
            Some(Control::Revoked { partitions, lost, done }) => {
                return self.revoked(partitions, lost, done);
            }
            Some(Control::Ends(ends)) => {
                self.lag.ends(ends, now);
                if self.stopped.is_none() {
                    self.lag.report(self.pipeline.owned(), &self.observer, now);
                }
                if let Some(deadline) = self.parts.deadline {
                    let owned = self.pipeline.owned();
                    self.lag.report_slack(owned, deadline, &self.observer, now);
                }
            }
            Some(Control::Left(left)) => self.lag.left_behind(&left, &self.observer, now),
            Some(Control::Finished) => self.finished = true,
            Some(Control::Unfinished(left)) => {
                self.unfinished = Some(left);
                self.hidden = None;
            }
            Some(Control::Hidden(places)) => self.hidden = Some(places),
            Some(Control::Reachable(reachable)) => {
                self.observer.status.change(|status| status.reachable(reachable, now));
                self.observer.metrics.reachable(reachable);
                if !reachable {
                    self.lag.unknown(&self.observer, now);
                }
            }
            Some(Control::Refused(refused)) => {
                self.observer.status.change(|status| status.unwelcome = refused);
            }
            Some(Control::Missing(missing)) => {
                self.observer.status.change(|status| status.missing = missing);
            }
            Some(Control::Uncovered(partitions)) => {
                self.observer.metrics.uncovered(partitions);
                self.observer.status.change(|status| status.uncovered = partitions);
            }
            Some(Control::Outside(why)) => {
                self.observer.status.change(|status| status.outside = why);
            }
        }
        Ok(())
    }

    fn assigned(&mut self, assigned: Vec<log::Assigned>) -> Result<(), Failure> {
        self.assigned_once = true;
        let mut taken = Vec::with_capacity(assigned.len());
        for assigned in assigned {
            let recorded = self.recorded(assigned.answered.as_ref());
            let log::Assigned { partition, epoch, next, end, until, skip, topic, gate, .. } =
                assigned;
            self.parts.journal.assigned(partition, topic, next);
            self.lag.assigned(partition, end);
            self.observer.assigned(partition, now());
            self.gates.insert((partition, epoch), gate);
            taken.push(arrive::Assigned { partition, epoch, next, until, skip, recorded });
        }
        self.handle(Event::Assigned(taken))?;
        self.rebalanced();
        Ok(())
    }

    /// The version that answered a partition last, where it is of the model that is followed here: of another model, a
    /// pinned version or a plain directory it is no question to the registry, only a change to record.
    fn recorded(&self, answered: Option<&ModelId>) -> Option<Version> {
        let answered = answered.filter(|_| self.parts.ask.is_some())?;
        (answered.name == self.parts.serving.id.name).then_some(answered.version)
    }

    fn revoked(
        &mut self,
        partitions: Vec<Partition>,
        lost: bool,
        done: std::sync::mpsc::SyncSender<()>,
    ) -> Result<(), Failure> {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.tickets.insert(ticket, done);
        self.gates.retain(|(partition, _), _| !partitions.contains(partition));
        for partition in &partitions {
            self.lag.revoked(*partition);
            self.observer.revoked(*partition);
        }
        self.handle(Event::Revoked { partitions, lost, ticket })?;
        self.rebalanced();
        Ok(())
    }

    fn rebalanced(&mut self) {
        let is_stopped = self.stopped.is_some();
        // Once it has stopped all is left to others, and it goes on telling the lag of what nobody reads.
        let partitions = if is_stopped { 0 } else { self.pipeline.owned().len() };
        if partitions == 0 && !is_stopped {
            self.lag.unknown(&self.observer, now());
        }
        self.observer.status.change(|status| status.assigned = Some(partitions));
        self.observer.metrics.rebalanced(partitions);
        tracing::info!(partitions, "assignment changed");
    }
}

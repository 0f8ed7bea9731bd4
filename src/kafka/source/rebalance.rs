//! What the group gives and takes.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::Offset as Place;

use super::super::group::{self, Context, partition};
use super::super::opening::{Claims, Opened};
use super::super::shared::Shared;
use super::{IDLE, Source, Split, waker};
use crate::failure::{Exit, Failure};
use crate::log::{Assigned, Control, Gate, Held};
use crate::record::{Epoch, Offset, Partition};

/// What the engine has beyond `limits.transaction` to answer a revocation.
const REVOKE_MARGIN: Duration = Duration::from_secs(2);

impl Source {
    /// The group gives partitions: answered at once, with nothing to fetch yet, so that the others go on.
    pub(super) fn assign(&mut self, list: &TopicPartitionList) -> Result<(), Failure> {
        // The group has us under our name: what was wrong with that before is over.
        (self.disagreed, self.lost) = (None, None);
        let partitions = self.partitions(list);
        tracing::info!(count = partitions.len(), "partitions assigned");
        self.consumer()?
            .incremental_assign(&TopicPartitionList::new())
            .map_err(|e| self.shared.failure("take assigned partitions", &e, Exit::Temporary))?;
        if partitions.is_empty() {
            self.tell(Control::Assigned(Vec::new()));
        }
        self.claim(partitions)
    }

    pub(super) fn claim(&mut self, partitions: Vec<Partition>) -> Result<(), Failure> {
        if partitions.is_empty() {
            return Ok(());
        }
        let mut claims = Claims::new();
        for partition in partitions {
            self.epoch += 1;
            let epoch = Epoch(self.epoch);
            self.shared.claim(partition, Some(epoch));
            claims.push((partition, epoch));
        }
        self.claims.try_send(claims).map_err(|error| Failure {
            message: format!(
                "take assigned partitions: the thread that opens them is behind ({error})"
            ),
            exit: Exit::Temporary,
        })
    }

    /// Partitions whose beginning is known: they are fetched from now on, and read when the engine opens their gates.
    pub(super) fn take(&mut self, opened: Vec<Opened>) -> Result<(), Failure> {
        let shared = Arc::clone(&self.shared);
        let consumer = self.consumer()?;
        let mut places = TopicPartitionList::new();
        let (mut assigned, mut splits) = (Vec::new(), Vec::new());
        for Opened { partition, epoch, next, end, note } in opened {
            if !shared.claims(partition, epoch) {
                continue; // taken away meanwhile
            }
            let name = shared.naming.input(partition);
            let added = places.add_partition_offset(name, partition.number, Place::Offset(next.0));
            let queue = consumer.split_partition_queue(name, partition.number);
            let (Ok(()), Some(mut queue)) = (added, queue) else {
                let message = format!("take {name}/{}: refused by the client", partition.number);
                return Err(Failure { message, exit: Exit::Temporary });
            };
            queue.set_nonempty_callback(waker(&self.sleeper));
            let gate = Gate::new(waker(&self.sleeper));
            let until = shared.until.as_ref().map(|until| {
                // A partition that was not there at the start has nothing that is to be read.
                until.get(&partition).copied().unwrap_or(next)
            });
            let skip = note.skip.clone().map(|skip| Offset(skip.start)..Offset(skip.end));
            assigned.push(Assigned {
                partition,
                epoch,
                next,
                end,
                until,
                skip,
                answered: note.model.clone(),
                topic: note.topic.clone(),
                gate: gate.clone(),
            });
            shared.owned.write().insert(partition, Held { epoch, committed: next, note });
            splits.push(Split { partition, epoch, start: next, queue, gate });
        }
        if assigned.is_empty() {
            return Ok(());
        }
        self.splits.append(&mut splits);
        self.tell(Control::Assigned(assigned));
        consumer
            .incremental_assign(&places)
            .map_err(|e| self.shared.failure("take assigned partitions", &e, Exit::Temporary))
    }

    /// The group takes partitions: given up once no transaction holds them, or at once where they are lost already.
    pub(super) fn revoke(&mut self, list: &TopicPartitionList) -> Result<(), Failure> {
        let consumer = self.consumer()?;
        let lost = consumer.assignment_lost();
        let partitions = self.partitions(list);
        tracing::info!(count = partitions.len(), lost, "partitions revoked");
        self.disown(&partitions, lost);
        self.fetch_no_more(&consumer, list)
    }

    /// Stops reading partitions; unless they are lost, once nothing of theirs is being committed.
    pub(super) fn disown(&mut self, partitions: &[Partition], lost: bool) {
        let held = |shared: &Shared| {
            let held = shared.owned.read();
            partitions.iter().copied().filter(|p| held.contains_key(p)).collect::<Vec<_>>()
        };
        let read = held(&self.shared);
        partitions.iter().for_each(|p| self.shared.claim(*p, None));
        let drop_held = |shared: &Shared| {
            let mut held = shared.owned.write();
            read.iter().for_each(|p| drop(held.remove(p)));
        };
        if lost {
            drop_held(&self.shared);
        }
        self.splits.retain(|split| !partitions.contains(&split.partition));
        if read.is_empty() {
            return;
        }
        let (done, answer) = sync_channel(1);
        self.tell(Control::Revoked { partitions: read.clone(), lost, done });
        if !lost {
            let patience = self.shared.config.limits.transaction.0 + REVOKE_MARGIN;
            let deadline = Instant::now() + patience;
            while !self.ends.leave.is_asked() && Instant::now() < deadline {
                match answer.recv_timeout(IDLE) {
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => {}
                }
            }
            drop_held(&self.shared);
        }
    }

    /// Answers a revocation: what was fetched of `list` is not any more.
    pub(super) fn fetch_no_more(
        &self,
        consumer: &BaseConsumer<Context>,
        list: &TopicPartitionList,
    ) -> Result<(), Failure> {
        group::give_up(consumer, list)
            .map_err(|e| self.shared.failure("give up revoked partitions", &e, Exit::Temporary))
    }

    /// Looks anew where partitions begin that are ours: their topic is another one, or their offset does not fit.
    pub(super) fn reopen(&mut self, partitions: &[Partition]) -> Result<(), Failure> {
        let claimed = self.shared.claimed();
        let ours: Vec<Partition> =
            partitions.iter().copied().filter(|p| claimed.contains(p)).collect();
        if ours.is_empty() {
            return Ok(());
        }
        let consumer = self.consumer()?;
        let mut list = TopicPartitionList::new();
        for partition in &ours {
            list.add_partition(self.shared.naming.input(*partition), partition.number);
        }
        self.disown(&ours, true);
        self.fetch_no_more(&consumer, &list)?;
        self.claim(ours)
    }

    /// Gives everything up, so that the group gives all partitions out again.
    pub(super) fn leave_to_rejoin(&mut self) -> Result<(), Failure> {
        self.consumer()?.unsubscribe();
        self.rejoining = true;
        Ok(())
    }

    pub(super) fn partitions(&self, list: &TopicPartitionList) -> Vec<Partition> {
        let naming = &self.shared.naming;
        list.elements().iter().filter_map(|e| partition(naming, e.topic(), e.partition())).collect()
    }
}

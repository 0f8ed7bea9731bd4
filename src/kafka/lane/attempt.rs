//! One pass of a transaction from begin to commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{Consumer as _, ConsumerGroupMetadata};
use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::Offset as Place;

use super::{Amend, Lane, REJOIN, native};
use crate::failure::Exit;
use crate::kafka::class::{Action, Call};
use crate::kafka::producer::{Inner, Trouble};
use crate::log::Transaction;
use crate::log::message::{self, Notes};
use crate::record::{Offset, Partition};

/// What a manifest has in place of a row's number.
const MANIFEST: usize = usize::MAX;
/// A transaction without messages that follows another at once would wait for the client's back-off.
const SETTLE: Duration = Duration::from_millis(30);

impl Lane {
    /// One pass from begin to commit.
    pub(super) fn attempt(
        &mut self,
        transaction: &Transaction,
        amends: &BTreeMap<(Partition, Offset), Amend>,
    ) -> Result<(), Trouble> {
        if transaction.batches.is_empty() {
            std::thread::sleep(SETTLE.saturating_sub(self.last_commit.elapsed()));
        }
        self.membership()?;
        let deadline = Instant::now() + self.shared.config.limits.transaction.0;
        let shared = Arc::clone(&self.shared);
        self.producer.call(&shared, Call::Begin, deadline, |p, _| p.begin_transaction())?;
        let mut notes = self.shared.owned.notes(transaction.next.keys());
        self.queue(transaction, amends, &mut notes, deadline)?;
        self.producer.drain(deadline)?;
        let metadata = self.membership()?;
        self.known_topics(deadline)?;
        if !transaction.next.iter().all(|(p, (epoch, _))| shared.owned.holds(*p, *epoch)) {
            return Err(Trouble::own(Call::Offsets, Action::Redo, "partitions were revoked"));
        }
        let offsets = self.offsets(transaction, &notes)?;
        let watch = Instant::now();
        let added = self.producer.call(&shared, Call::Offsets, deadline, move |p, left| {
            p.send_offsets_to_transaction(&offsets, &metadata, left)
        });
        self.doubt |= watch.elapsed() > self.suspicious();
        added?;
        let watch = Instant::now();
        self.producer.call(&shared, Call::Commit, deadline, Inner::commit_transaction)?;
        self.doubt |= watch.elapsed() > self.suspicious();
        Ok(())
    }

    /// Hands the transaction's messages to the client. The manifests come first, because their partitions are few and the
    /// client asks for those that it knows of in one round trip.
    fn queue(
        &mut self,
        transaction: &Transaction,
        amends: &BTreeMap<(Partition, Offset), Amend>,
        notes: &mut Notes,
        deadline: Instant,
    ) -> Result<(), Trouble> {
        let shared = Arc::clone(&self.shared);
        let batches = transaction.batches.iter();
        let batches: Vec<_> = batches.map(|f| (f, shared.naming.batch(&f.info))).collect();
        for (finished, batch) in &batches {
            let manifests = batch.manifests(finished, notes, self.tuning.limit);
            let manifests = manifests.map_err(|error| {
                Trouble::own(
                    Call::Send,
                    Action::Exit(Exit::Temporary),
                    &format!("write the manifest: {error}"),
                )
            })?;
            for manifest in &manifests {
                self.producer.send(manifest, MANIFEST, deadline)?;
            }
            message::answered(notes, finished);
        }
        let rows = batches.iter().flat_map(|(f, batch)| f.rows.iter().map(move |row| (batch, row)));
        for (number, (batch, row)) in rows.enumerate() {
            let message = batch.amended(row, self.amend(row, amends), self.tuning.limit);
            self.producer.send(&message, number, deadline)?;
        }
        Ok(())
    }

    /// The group's metadata under a generation that was valid before and after it was taken.
    fn membership(&self) -> Result<ConsumerGroupMetadata, Trouble> {
        let deadline = Instant::now() + REJOIN;
        loop {
            if let Some(consumer) = self.shared.consumer() {
                let before = native::generation(consumer.client());
                let metadata = consumer.group_metadata();
                let after = native::generation(consumer.client());
                let valid = before.is_some() && before == after && !consumer.assignment_lost();
                if let Some(metadata) = metadata.filter(|_| valid) {
                    return Ok(metadata);
                }
            }
            if deadline <= Instant::now() {
                let why = "this process is not a member of the group";
                return Err(Trouble::own(Call::Offsets, Action::Redo, why));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits while it is not known whether the input topics are still the ones that were read.
    fn known_topics(&self, deadline: Instant) -> Result<(), Trouble> {
        while !self.shared.topics_are_known() {
            if deadline <= Instant::now() {
                let why = "an input topic may have been deleted, and its id is not told";
                return Err(Trouble::own(Call::Offsets, Action::Redo, why));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn offsets(
        &self,
        transaction: &Transaction,
        notes: &Notes,
    ) -> Result<TopicPartitionList, Trouble> {
        let mut list = TopicPartitionList::with_capacity(transaction.next.len());
        for (partition, (_, offset)) in &transaction.next {
            let name = self.shared.naming.input(*partition);
            let mut element = list.add_partition(name, partition.number);
            if let Some(note) = notes.get(partition) {
                element.set_metadata(note.to_string());
            }
            element
                .set_offset(Place::Offset(offset.0))
                .map_err(|e| Trouble::of(Call::Offsets, &e))?;
        }
        Ok(list)
    }
}

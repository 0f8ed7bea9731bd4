//! The writing side: a thread for each lane, one transaction after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{Error, Opened, Store, thread};
use crate::config::Config;
use crate::failure::Failure;
use crate::log::manifest::Manifest;
use crate::log::message::{self, Amend, Naming};
use crate::log::{Committed, Control, Done, Joint, Offsets, Opening, Sink, Transaction};
use crate::record::{ModelId, Offset, Outcome, Signature};

/// Longest that a commit may take: a disk that is slow, and another program that holds the file.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts a thread for each lane. Also tells where partitions go on.
pub(super) fn open(
    file: &Opened,
    config: &Config,
    (naming, opening): (&Naming, &Opening),
    joint: &Joint,
) -> Result<(Sink, Offsets), Failure> {
    let store = || Store::open(&file.path);
    let asked = store()?;
    let last = last(&asked, naming, opening.serving.as_ref())?;
    let (done_in, done) = mpsc::channel(16);
    let (mut threads, mut lanes) = (Vec::new(), Vec::new());
    for lane in 0..usize::from(config.kafka.lanes.max(1)) {
        let (lane_in, transactions) = mpsc::channel(1);
        lanes.push(lane_in);
        let (naming, joint) = (naming.clone(), joint.clone());
        let writer = Writer { lane, store: store()?, naming, joint };
        let (done, lock) = (done_in.clone(), Arc::clone(&file.lock));
        let body = move || {
            writer.run(transactions, &done);
            drop(lock);
        };
        threads.push(thread(&format!("lane-{lane}"), body)?);
    }
    let sink = Sink { lanes, done, patience: Some(PATIENCE), last, threads };
    Ok((sink, offsets(asked, naming.clone())))
}

/// Where partitions go on, by the table that the sink writes.
fn offsets(store: Store, naming: Naming) -> Offsets {
    Box::new(move |partition| {
        let (group, name) = (&naming.group, naming.input(partition));
        let read = || {
            let Some(next) = store.committed(group, name, partition.number)? else {
                return Ok(None);
            };
            let note = store.note(group, name, partition.number)?;
            Ok(Some(Committed { next, note }))
        };
        read().map_err(Error::into)
    })
}

/// The version that answered last, where it is another than the one that is to serve, with what it took and gave.
fn last(
    store: &Store,
    naming: &Naming,
    serving: Option<&ModelId>,
) -> Result<Option<(ModelId, Signature)>, Error> {
    let mut newest: Option<(i64, ModelId, Signature)> = None;
    for partition in 0..i32::from(store.partitions(&naming.manifest)?) {
        let end = store.end(&naming.manifest, partition)?;
        let before = Offset(end.0.saturating_sub(1).max(0));
        for stored in store.read(&naming.manifest, partition, before, 1)? {
            let (time, value) = (stored.message.timestamp, stored.message.value);
            let Ok(manifest) = Manifest::read(&value.unwrap_or_default()) else { continue };
            let younger = newest.as_ref().is_none_or(|(seen, ..)| *seen <= time);
            if let Some(signature) = manifest.signature.clone().filter(|_| younger) {
                newest = Some((time, manifest.model(), signature));
            }
        }
    }
    let newest = newest.map(|(_, model, signature)| (model, signature));
    Ok(newest.filter(|(model, _)| serving.is_some_and(|serving| serving != model)))
}

/// A lane.
struct Writer {
    lane: usize,
    store: Store,
    naming: Naming,
    joint: Joint,
}

impl Writer {
    /// Commits until the channel closes.
    fn run(mut self, mut transactions: mpsc::Receiver<Transaction>, done: &mpsc::Sender<Done>) {
        while let Some(mut transaction) = transactions.blocking_recv() {
            #[expect(clippy::disallowed_methods, reason = "measures the commit, decides nothing")]
            let started = Instant::now();
            let ours = self.joint.owned.keep(&mut transaction);
            if let Err(error) = if ours { self.commit(&transaction) } else { Ok(()) } {
                self.joint.tell(Control::Failed(error.into()));
                return;
            }
            let answer = Done::at_once(self.lane, &transaction, ours, started.elapsed());
            if done.blocking_send(answer).is_err() {
                return;
            }
        }
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<(), Error> {
        let Self { store, naming, joint, .. } = self;
        let mut after = joint.owned.notes(transaction.next.keys());
        store.transaction(|store| {
            for finished in &transaction.batches {
                let batch = naming.batch(&finished.info);
                for row in &finished.rows {
                    // A dead letter is stored with the time of writing; the record's own stands in a header.
                    let amend = Amend { timestamp: true, ..Amend::default() };
                    store.append_message(&match row.outcome {
                        Outcome::DeadLetter(_) => batch.amended(row, amend, usize::MAX),
                        Outcome::Prediction(_) | Outcome::Tombstone => batch.message(row),
                    })?;
                }
                let manifests = batch.manifests(finished, &after, usize::MAX);
                for manifest in manifests.map_err(Error::Manifest)? {
                    store.append_message(&manifest)?;
                }
                message::answered(&mut after, finished);
            }
            for (partition, (_, next)) in &transaction.next {
                if let Some(note) = after.get(partition) {
                    let name = naming.input(*partition);
                    store.commit(
                        &naming.group,
                        name,
                        partition.number,
                        (*next, &note.to_string()),
                    )?;
                }
            }
            Ok(())
        })?;
        joint.owned.commit(transaction);
        Ok(())
    }
}

//! A transaction in smaller ones, where it does not fit into the time that one may take. Pure.
//!
//! Batches are what is committed together. As many of them as fit share a transaction; one that does not fit alone is cut
//! into parts that are batches of their own, each with its id, its manifest and its offsets.
//!
//! # Invariants
//!
//! 1. The parts, one after the other, hold the rows of the whole, each once, in order.
//! 2. A part's offsets end one behind its last row of a partition; the last part of a partition ends where the whole does.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use crate::log::{BatchInfo, Finished, Row, Transaction};
use crate::record::{Epoch, Offset, Partition};

/// Parts of at most `most` batches each.
pub(super) fn by_batches(transaction: Transaction, most: usize) -> Vec<Transaction> {
    let Transaction { id, mut batches, next } = transaction;
    let most = most.max(1);
    let mut parts = Vec::new();
    while most < batches.len() {
        let rest = batches.split_off(most);
        parts.push(std::mem::replace(&mut batches, rest));
    }
    parts.push(batches);
    with_offsets(id, parts, next)
}

/// A single batch in two parts, which are batches with the given ids; as it was where it has only one row.
pub(super) fn by_rows(transaction: Transaction, ids: [Uuid; 2]) -> Vec<Transaction> {
    let Transaction { id, mut batches, next } = transaction;
    let Some(Finished { info, mut rows }) =
        batches.pop().filter(|batch| batches.is_empty() && 1 < batch.rows.len())
    else {
        return vec![Transaction { id, batches, next }];
    };
    let total = rows.len();
    let second = rows.split_off(total.div_ceil(2));
    let part = |(rows, id): (Vec<Row>, Uuid)| vec![part(&info, rows, id, total)];
    with_offsets(id, [rows, second].into_iter().zip(ids).map(part).collect(), next)
}

/// Rows of a batch as a batch: what cannot be told apart by rows is shared out by their number.
fn part(whole: &BatchInfo, rows: Vec<Row>, id: Uuid, total: usize) -> Finished {
    let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let of = u32::try_from(total).unwrap_or(u32::MAX).max(1);
    let info = BatchInfo {
        id,
        part_of: whole.part_of.or(Some(whole.id)),
        bytes: rows.iter().map(|row| u64::try_from(row.record.bytes()).unwrap_or(0)).sum(),
        tokens: whole.tokens.saturating_mul(u64::from(count)) / u64::from(of),
        inference: whole.inference.saturating_mul(count) / of,
        model: Arc::clone(&whole.model),
        signature: Arc::clone(&whole.signature),
        reason: whole.reason,
    };
    Finished { info, rows }
}

fn with_offsets(
    id: u64,
    parts: Vec<Vec<Finished>>,
    mut next: BTreeMap<Partition, (Epoch, Offset)>,
) -> Vec<Transaction> {
    let mut done = Vec::with_capacity(parts.len());
    // From the end: the last part that holds a partition ends where the whole does.
    for batches in parts.into_iter().rev() {
        let mut ends: BTreeMap<Partition, (Epoch, Offset)> = BTreeMap::new();
        for row in batches.iter().flat_map(|batch| &batch.rows) {
            ends.insert(row.record.partition, (row.epoch, row.record.offset.next()));
        }
        for (partition, end) in &mut ends {
            *end = next.remove(partition).unwrap_or(*end);
        }
        done.push(Transaction { id, batches, next: ends });
    }
    if let Some(last) = done.first_mut() {
        // Offsets without a row: only control records are passed.
        last.next.extend(next);
    }
    done.reverse();
    done
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::record::{ModelId, Outcome, Reason, Record, Version};

    fn row(partition: i32, offset: i64) -> Row {
        let record = Record::of_value(
            Partition { topic: 0, number: partition },
            Offset(offset),
            Some(vec![0; 10]),
        );
        Row { record: Arc::new(record), epoch: Epoch(1), outcome: Outcome::Tombstone, parent: None }
    }

    fn info(number: u128) -> BatchInfo {
        let version = Version(1);
        BatchInfo {
            id: Uuid::from_u128(number),
            model: Arc::new(ModelId { name: "m".into(), version, digest: "".into() }),
            signature: Arc::default(),
            part_of: None,
            reason: Reason::Records,
            bytes: 0,
            tokens: 100,
            inference: Duration::from_secs(1),
        }
    }

    fn rows_of(transactions: &[Transaction]) -> Vec<(i32, i64)> {
        let batches = transactions.iter().flat_map(|t| &t.batches);
        let rows = batches.flat_map(|batch| &batch.rows);
        rows.map(|row| (row.record.partition.number, row.record.offset.0)).collect()
    }

    /// A transaction of batches with rows of three partitions; each partition ends two offsets behind its last row.
    fn transactions() -> impl Strategy<Value = Transaction> {
        let batch = prop::collection::vec((0..3_i32, 1..4_i64), 1..7);
        prop::collection::vec(batch, 1..9).prop_map(|batches| {
            let mut at = BTreeMap::new();
            let mut number = 0;
            let mut finished = |rows: Vec<(i32, i64)>| {
                let row = |(partition, gap): (i32, i64)| {
                    let offset = at.entry(partition).or_insert(0);
                    *offset += gap;
                    row(partition, *offset)
                };
                number += 1;
                Finished { info: info(number), rows: rows.into_iter().map(row).collect() }
            };
            let batches = batches.into_iter().map(&mut finished).collect();
            let end = |(number, offset): (i32, i64)| {
                (Partition { topic: 0, number }, (Epoch(1), Offset(offset + 3)))
            };
            Transaction { id: 7, batches, next: at.into_iter().map(end).collect() }
        })
    }

    /// Invariants 1 and 2.
    fn check(
        parts: &[Transaction],
        rows: &[(i32, i64)],
        next: &BTreeMap<Partition, (Epoch, Offset)>,
    ) {
        assert_eq!(rows_of(parts), rows);
        let mut seen: BTreeMap<Partition, Offset> = BTreeMap::new();
        for part in parts {
            for (partition, (_, offset)) in &part.next {
                let here = rows_of(std::slice::from_ref(part));
                let last = here.iter().rev().find(|(number, _)| *number == partition.number);
                assert!(last.is_none_or(|(_, last)| *last < offset.0), "past its rows");
                assert!(seen.insert(*partition, *offset).is_none_or(|before| before < *offset));
            }
        }
        let ends: BTreeMap<Partition, Offset> = next.iter().map(|(p, (_, o))| (*p, *o)).collect();
        assert_eq!(seen, ends, "where the whole ends");
    }

    proptest! {
        #[test]
        fn parts_are_the_whole(transaction in transactions(), most in 1..5_usize) {
            let (rows, next) = (rows_of(std::slice::from_ref(&transaction)), transaction.next.clone());
            let parts = by_batches(transaction, most);
            prop_assert!(parts.iter().all(|part| part.batches.len() <= most));
            check(&parts, &rows, &next);
            // Each batch in parts of its own, down to single rows.
            let mut waiting: Vec<Transaction> = parts.into_iter().rev().flat_map(|part| {
                by_batches(part, 1).into_iter().rev().collect::<Vec<_>>()
            }).collect();
            let (mut single, mut number) = (Vec::new(), 1_000);
            while let Some(part) = waiting.pop() {
                let parts = if part.batches[0].rows.len() == 1 { vec![part] } else {
                    number += 2;
                    by_rows(part, [Uuid::from_u128(number), Uuid::from_u128(number + 1)])
                };
                match parts.len() {
                    1 => single.extend(parts),
                    _ => waiting.extend(parts.into_iter().rev()),
                }
            }
            check(&single, &rows, &next);
            prop_assert!(single.iter().all(|part| part.batches[0].rows.len() == 1));
        }
    }

    #[test]
    fn a_part_says_what_it_is_a_part_of() {
        let partition = Partition { topic: 0, number: 0 };
        let batches = vec![Finished { info: info(5), rows: (0..3).map(|n| row(0, n)).collect() }];
        let next = BTreeMap::from([(partition, (Epoch(1), Offset(3)))]);
        let ids = [Uuid::from_u128(8), Uuid::from_u128(9)];
        let parts = by_rows(Transaction { id: 1, batches, next }, ids);
        let told: Vec<_> = parts
            .iter()
            .map(|part| {
                let Finished { info, rows } = &part.batches[0];
                (info.id.as_u128(), info.part_of.unwrap().as_u128(), rows.len(), info.tokens)
            })
            .collect();
        assert_eq!(told, [(8, 5, 2, 66), (9, 5, 1, 33)]);
    }

    #[test]
    fn offsets_without_rows_stay_together() {
        let next = BTreeMap::from([(Partition { topic: 0, number: 1 }, (Epoch(1), Offset(9)))]);
        let parts = by_batches(Transaction { id: 1, batches: Vec::new(), next: next.clone() }, 1);
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].next, next);
    }
}

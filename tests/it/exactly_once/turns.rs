//! Lanes with work for ever.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use tidemill::pipeline::arrive::Assigned;
use tidemill::pipeline::{Batch, Effect, Event, Item, Limits, Part, Pipeline};
use tidemill::record::{Epoch, Offset, Outcome, Version};

use super::{Core, Rec, epoch, limits, partition};

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Invariant 7: with work in every lane, the lanes' batches come in turns, in whatever order they are answered.
    #[test]
    fn lanes_take_turns(lanes in 2..5_usize, slots in 1..4_usize, answers in prop::collection::vec(0..9_usize, 60)) {
        let limits = Limits { lanes, slots, buffer_bytes: u64::MAX, outcome_bytes: u64::MAX, commit_batches: 1_000, ..limits() };
        let mut core: Core = Pipeline::new(limits, Version(1));
        let (mut cut, mut calls) = (Vec::new(), Vec::new());
        let now = epoch();
        let numbers = 0..i32::try_from(lanes).unwrap();
        let mut events: Vec<Event<Rec, u64>> = numbers.rev().flat_map(|number| {
            let assigned = Assigned {
                partition: partition(number),
                epoch: Epoch(1),
                next: Offset(0),
                until: None,
                skip: None,
                recorded: None,
            };
            let item = |offset| Item {
                partition: partition(number),
                epoch: Epoch(1),
                offset: Offset(offset),
                bytes: 1,
                tokens: 1,
                memory: 1,
                alone: None,
                payload: Rec { offset, poison: false },
            };
            [Event::Arrived((0..400).map(item).collect()), Event::Assigned(vec![assigned])]
        }).collect();
        let mut answers = answers.into_iter();
        loop {
            let Some(event) = events.pop() else {
                let Some(answer) = answers.next() else { break };
                let (batch, rows): (Arc<Batch<Rec>>, Vec<usize>) = calls.remove(answer % calls.len());
                let answer = Ok(rows.iter().map(|_| Outcome::Prediction(1)).collect());
                let parts = vec![Part { rows, answer }];
                events.push(Event::Inferred { batch: batch.number, parts, bytes: 0 });
                continue;
            };
            let mut effects = Vec::new();
            core.handle(event, now, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Infer(batch, rows) => {
                        cut.push(batch.lane);
                        calls.push((batch, rows));
                    }
                    Effect::Commit(lane, transaction) => {
                        let next = transaction.next.iter().map(|(p, (_, next))| (*p, *next));
                        let (id, committed, buried) = (transaction.id, next.collect(), Vec::new());
                        events.push(Event::Committed { lane, id, committed, buried, fits: None });
                    }
                    Effect::Open(..) => (),
                    Effect::Ask(_) | Effect::Release(_) | Effect::Retire(_) | Effect::Stop(_) => {
                        panic!("{effect:?}")
                    }
                }
            }
        }
        // Before every lane had records, the first ones had the workers to themselves.
        let begun = cut.iter().position(|lane| *lane == lanes - 1).unwrap();
        for turn in cut[begun..].chunks_exact(lanes) {
            let seen: BTreeSet<usize> = turn.iter().copied().collect();
            prop_assert_eq!(seen.len(), lanes, "{:?}", cut);
        }
    }
}

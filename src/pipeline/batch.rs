//! When a batch is closed: at so many records, bytes or tokens, so old, or because something else happens.
//!
//! ```text
//! push(item, now) ──► [ oldest … newest ] ──► poll(now) ──► Cut: items, sums, reason
//!                              └── deadline() ──► the engine's timer
//! ```
//!
//! A [`Batcher`] keeps items in the order they came and cuts batches off the old end. It reads no clock.
//!
//! # Invariants
//!
//! 1. The batches, laid end to end, are the pushed items less those dropped: none twice, none reordered.
//! 2. A batch is within all size limits, or it is one item too large alone.
//! 3. After `poll` has returned `None`, no item waits that is `max_wait` old or older.
//! 4. A batch with room for the next item leaves only because it is due, idle or flushed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::record::Reason;

use super::Item;

/// The limits that close a batch; whichever is reached first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most records.
    pub max_records: usize,
    /// Most payload bytes. A larger single record still passes, alone.
    pub max_bytes: u64,
    /// Most tokens that the model computes. A longer single record still passes, alone.
    pub max_tokens: u64,
    /// Longest that a record waits for company, counted from its own arrival.
    pub max_wait: Duration,
    /// Whether an idle worker takes what is there instead of waiting.
    pub flush_when_idle: bool,
}

/// Items that leave together, with the sums over them: these are made here and nowhere else.
#[derive(Debug)]
pub struct Cut<T> {
    /// The items, in the order they came.
    pub items: Vec<Item<T>>,
    /// Why they left.
    pub reason: Reason,
    /// When the first of them came.
    pub opened: Instant,
    /// Where the items of another moment begin, and when those came.
    pub arrivals: Vec<(usize, Instant)>,
    /// Their payload, bytes.
    pub bytes: u64,
    /// What they cost the model, tokens.
    pub tokens: u64,
    /// The memory that they take, bytes.
    pub memory: u64,
}

impl<T> Cut<T> {
    fn new(opened: Instant, room: usize) -> Self {
        let items = Vec::with_capacity(room);
        let (reason, arrivals) = (Reason::Records, Vec::new());
        Self { items, reason, opened, arrivals, bytes: 0, tokens: 0, memory: 0 }
    }

    /// All of `items`, which came at once and wait for nobody: of a bench, or a witness.
    pub fn of(items: Vec<Item<T>>, opened: Instant) -> Self {
        let mut cut = Self::new(opened, items.len());
        items.into_iter().for_each(|item| cut.push(item, opened));
        cut
    }

    fn push(&mut self, item: Item<T>, arrived: Instant) {
        if self.arrivals.last().is_none_or(|(_, last)| *last != arrived) {
            self.arrivals.push((self.items.len(), arrived));
        }
        self.bytes += item.bytes;
        self.tokens += item.tokens;
        self.memory += item.memory;
        self.items.push(item);
    }
}

/// Items waiting to become a batch.
#[derive(Debug)]
pub struct Batcher<T> {
    limits: Limits,
    waiting: VecDeque<(Instant, Item<T>)>,
    /// Sums over `waiting`.
    bytes: u64,
    tokens: u64,
    memory: u64,
    flush: Option<Reason>,
    /// No limit of tokens is above this: the device had no memory for more.
    ceiling: u64,
    /// Most records for now: at most what the limits say.
    records: usize,
    /// Nothing follows the next batch.
    last: bool,
}

impl<T> Batcher<T> {
    /// An empty batcher.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            waiting: VecDeque::new(),
            bytes: 0,
            tokens: 0,
            memory: 0,
            flush: None,
            ceiling: u64::MAX,
            records: limits.max_records,
            last: false,
        }
    }

    /// Takes in one item that arrived at `now`.
    pub fn push(&mut self, item: Item<T>, now: Instant) {
        self.bytes += item.bytes;
        self.tokens += item.tokens;
        self.memory += item.memory;
        self.waiting.push_back((now, item));
    }

    /// The next batch that is ready at `now`, oldest first. `idle` says that a worker has nothing else to do.
    #[must_use = "a batch dropped here is a batch of lost records"]
    pub fn poll(&mut self, now: Instant, idle: bool) -> Option<Cut<T>> {
        let due = self.deadline()? <= now;
        let full = if self.alone().is_some() {
            Some(Reason::Alone)
        } else if self.records <= self.waiting.len() {
            Some(Reason::Records)
        } else if self.limits.max_bytes <= self.bytes {
            Some(Reason::Bytes)
        } else if self.limits.max_tokens <= self.tokens {
            Some(Reason::Tokens)
        } else {
            None
        };
        let flush_idle = idle && self.limits.flush_when_idle;
        let early = self
            .flush
            .or_else(|| due.then_some(Reason::Time))
            .or_else(|| flush_idle.then_some(Reason::Idle));
        let reason = full.or(early)?;
        let cut = self.cut(reason)?;
        if self.last {
            self.clear();
        }
        if self.waiting.is_empty() {
            self.flush = None;
        }
        Some(cut)
    }

    /// When the oldest item is due; `None` while nothing waits.
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|(arrived, _)| *arrived + self.limits.max_wait)
    }

    /// What waits now leaves at the next `poll`, for `reason`, in as many batches as it needs.
    pub fn flush(&mut self, reason: Reason) {
        if !self.waiting.is_empty() {
            self.flush = Some(reason);
        }
    }

    /// One more batch leaves, at the next `poll`, and what waits behind it is dropped: a stop does not take as
    /// long as all that was read ahead.
    pub fn finish(&mut self) {
        self.last = true;
        self.flush(Reason::Shutdown);
    }

    /// Drops all that waits.
    pub fn clear(&mut self) {
        self.retain(|_| false);
    }

    /// What waits may wait for company again: the reason to flush is gone.
    pub fn unflush(&mut self) {
        self.flush = None;
    }

    /// Drops the items that are not to be kept.
    pub fn retain(&mut self, keep: impl Fn(&Item<T>) -> bool) {
        let Self { waiting, bytes, tokens, memory, .. } = self;
        waiting.retain(|(_, item)| {
            let kept = keep(item);
            if !kept {
                *bytes -= item.bytes;
                *tokens -= item.tokens;
                *memory -= item.memory;
            }
            kept
        });
        if self.waiting.is_empty() {
            self.flush = None;
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What waits, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = &Item<T>> {
        self.waiting.iter().map(|(_, item)| item)
    }

    /// Bytes of memory that what waits takes.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// With how many others at most the oldest item may be in a batch, where nothing else may be in the model with it.
    pub fn alone(&self) -> Option<u32> {
        self.waiting.front().and_then(|(_, item)| item.alone)
    }

    /// From the next batch on, so many records close one: what a transaction has room for.
    pub fn limit_records(&mut self, records: usize) {
        self.records = records.clamp(1, self.limits.max_records);
    }

    /// Twice as many records may be in the next batch, up to the limit: the last transaction went well.
    pub fn grow_records(&mut self) {
        self.limit_records(self.records.saturating_mul(2));
    }

    /// Lowers the token limit for good: the device had no memory for more.
    pub fn lower_ceiling(&mut self, tokens: u64) {
        self.ceiling = self.ceiling.min(tokens.max(1));
        self.limit_tokens(self.limits.max_tokens);
    }

    /// From the next batch on, so many tokens close one; never more than the ceiling.
    pub fn limit_tokens(&mut self, tokens: u64) {
        self.limits.max_tokens = tokens.clamp(1, self.ceiling);
    }

    /// Cuts off the longest prefix within the limits, at least one item, for the limit that ended it or else for `reason`.
    fn cut(&mut self, reason: Reason) -> Option<Cut<T>> {
        let opened = self.waiting.front()?.0;
        let alone = self.alone();
        let most = alone.map_or(self.records, |most| usize::try_from(most).unwrap_or(1));
        let most = most.clamp(1, self.records);
        let mut cut = Cut::new(opened, most.min(self.waiting.len()));
        cut.reason = reason;
        while let Some((arrived, item)) = self.waiting.pop_front() {
            let over = if item.alone != alone {
                Some(Reason::Alone)
            } else if most < cut.items.len() + 1 {
                Some(if alone.is_some() { Reason::Alone } else { Reason::Records })
            } else if self.limits.max_bytes < cut.bytes + item.bytes {
                Some(Reason::Bytes)
            } else if self.limits.max_tokens < cut.tokens + item.tokens {
                Some(Reason::Tokens)
            } else {
                None
            };
            if let Some(over) = over.filter(|_| !cut.items.is_empty()) {
                self.waiting.push_front((arrived, item));
                cut.reason = over;
                break;
            }
            cut.push(item, arrived);
        }
        self.bytes -= cut.bytes;
        self.tokens -= cut.tokens;
        self.memory -= cut.memory;
        Some(cut)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Epoch, Offset, Partition};

    /// Small enough that a short run meets all of them.
    const LIMITS: Limits = Limits {
        max_records: 3,
        max_bytes: 10,
        max_tokens: 20,
        max_wait: Duration::from_millis(5),
        flush_when_idle: false,
    };

    fn item(number: usize, bytes: u64, tokens: u64) -> Item<usize> {
        Item {
            partition: Partition { topic: 0, number: 0 },
            epoch: Epoch(1),
            offset: Offset(i64::try_from(number).unwrap()),
            bytes,
            tokens,
            memory: bytes,
            alone: None,
            payload: number,
        }
    }

    /// Runs a script of `push:BYTES:TOKENS`, `wait:MS`, `limit:TOKENS`, `lower:TOKENS`, `swap`, `idle`, `finish`, and writes what left and why.
    #[track_caller]
    fn check(script: &str, expect: &str) {
        let limits = Limits { flush_when_idle: script.contains("idle"), ..LIMITS };
        let mut batcher = Batcher::new(limits);
        let mut now = epoch();
        let mut pushed = 0;
        let mut left = Vec::new();
        for step in script.split_whitespace() {
            let parts: Vec<&str> = step.split(':').collect();
            match parts[..] {
                ["push", bytes, tokens] => {
                    let item = item(pushed, bytes.parse().unwrap(), tokens.parse().unwrap());
                    batcher.push(item, now);
                    pushed += 1;
                }
                ["wait", ms] => now += Duration::from_millis(ms.parse().unwrap()),
                ["swap"] => batcher.flush(Reason::Swap),
                ["limit", tokens] => batcher.limit_tokens(tokens.parse().unwrap()),
                ["lower", tokens] => batcher.lower_ceiling(tokens.parse().unwrap()),
                ["finish"] => batcher.finish(),
                ["idle"] => (),
                _ => panic!("unknown step {step}"),
            }
            while let Some(cut) = batcher.poll(now, step == "idle") {
                let batch: Vec<usize> = cut.items.iter().map(|item| item.payload).collect();
                left.push(format!("{batch:?} {}", cut.reason.name()));
            }
        }
        assert_eq!(left.join("; "), expect, "script: {script}");
    }

    #[test]
    fn the_table() {
        check("", "");
        check("wait:9", "");
        check("swap push:1:1", "");
        check("push:1:1 push:1:1 push:1:1", "[0, 1, 2] records");
        check("push:4:1 push:6:1", "[0, 1] bytes");
        check("push:4:1 push:7:1", "[0] bytes");
        check("push:11:1", "[0] bytes");
        check("push:1:12 push:1:9", "[0] tokens");
        check("push:1:30", "[0] tokens");
        check("limit:5 push:1:3 push:1:3", "[0] tokens");
        check("lower:5 limit:9 push:1:3 push:1:3", "[0] tokens");
        check("push:1:1 wait:4 push:1:1 wait:1", "[0, 1] time");
        check("push:1:1 wait:4", "");
        check("push:1:1 swap push:1:1", "[0] swap");
        check("push:1:1 idle", "[0] idle");
        check("push:1:1 finish", "[0] shutdown");
    }

    #[test]
    fn a_finish_leaves_one_batch() {
        let mut batcher = Batcher::new(LIMITS);
        (0..3).for_each(|number| batcher.push(item(number, 6, 1), epoch()));
        batcher.finish();
        let cut = batcher.poll(epoch(), false).unwrap();
        assert_eq!((cut.items.len(), batcher.is_empty(), batcher.memory()), (1, true, 0));
    }

    #[test]
    fn a_flush_ends_with_the_items_that_it_was_for() {
        let mut batcher = Batcher::new(LIMITS);
        batcher.push(item(0, 1, 1), epoch());
        batcher.flush(Reason::Swap);
        batcher.retain(|_| false);
        batcher.flush(Reason::Swap);
        batcher.push(item(1, 1, 1), epoch());
        assert!(batcher.poll(epoch(), false).is_none(), "nothing of it is due");
    }

    #[test]
    fn suspects_leave_by_themselves_and_at_once() {
        let mut batcher = Batcher::new(LIMITS);
        for (number, alone) in [(0, None), (1, Some(2)), (2, Some(2)), (3, Some(2)), (4, Some(1))] {
            batcher.push(Item { alone, ..item(number, 1, 1) }, epoch());
        }
        batcher.push(item(5, 1, 1), epoch());
        let mut left = Vec::new();
        while let Some(cut) = batcher.poll(epoch() + LIMITS.max_wait, false) {
            let batch: Vec<usize> = cut.items.iter().map(|item| item.payload).collect();
            left.push((batch, cut.reason.name()));
        }
        let alone = Reason::Alone.name();
        let expect = [
            (vec![0], alone),
            (vec![1, 2], alone),
            (vec![3], alone),
            (vec![4], alone),
            (vec![5], "time"),
        ];
        assert_eq!(left, expect);
        assert_eq!(batcher.memory(), 0);
    }

    #[test]
    fn a_limit_of_records_grows_back() {
        let mut batcher = Batcher::new(LIMITS);
        batcher.limit_records(1);
        let mut sizes = Vec::new();
        for round in 0..3 {
            (0..3).for_each(|number| batcher.push(item(number, 1, 1), epoch()));
            sizes.push(batcher.poll(epoch(), false).unwrap().items.len());
            batcher.retain(|_| false);
            batcher.grow_records();
            assert!(round < 3);
        }
        assert_eq!(sizes, [1, 2, 3]);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Push(u64, u64),
        Wait(Duration),
        Flush,
        DropEven,
        Poll,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => (0..13_u64, 0..25_u64).prop_map(|(bytes, tokens)| Step::Push(bytes, tokens)),
            4 => (0..7_u64).prop_map(|ms| Step::Wait(Duration::from_millis(ms))),
            1 => Just(Step::Flush),
            1 => Just(Step::DropEven),
            4 => Just(Step::Poll),
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        /// Invariants 1 to 4 on any interleaving of arrivals, waits, flushes and drops.
        #[test]
        fn batches_are_the_items(steps in steps()) {
            let mut batcher = Batcher::new(LIMITS);
            let mut now = epoch();
            let mut next = 0;
            let mut model: VecDeque<(Instant, usize, u64, u64)> = VecDeque::new();
            let mut flushed = false;
            for step in steps {
                match step {
                    Step::Push(bytes, tokens) => {
                        batcher.push(item(next, bytes, tokens), now);
                        model.push_back((now, next, bytes, tokens));
                        next += 1;
                    }
                    Step::Wait(time) => now += time,
                    Step::Flush => {
                        batcher.flush(Reason::Swap);
                        flushed = !model.is_empty();
                    }
                    Step::DropEven => {
                        batcher.retain(|item| item.payload % 2 == 1);
                        model.retain(|(_, number, ..)| number % 2 == 1);
                    }
                    Step::Poll => {
                        while let Some(cut) = batcher.poll(now, true) {
                            let expect: Vec<_> = model.drain(..cut.items.len()).collect();
                            let got: Vec<usize> = cut.items.iter().map(|item| item.payload).collect();
                            let numbers: Vec<usize> = expect.iter().map(|row| row.1).collect();
                            prop_assert_eq!(&got, &numbers, "invariant 1");
                            let bytes: u64 = expect.iter().map(|row| row.2).sum();
                            let tokens: u64 = expect.iter().map(|row| row.3).sum();
                            prop_assert_eq!((cut.bytes, cut.tokens, cut.opened), (bytes, tokens, expect[0].0));
                            let within = cut.items.len() <= LIMITS.max_records
                                && bytes <= LIMITS.max_bytes
                                && tokens <= LIMITS.max_tokens;
                            prop_assert!(within || cut.items.len() == 1, "invariant 2");
                            let after = model.front().map_or((0, 0), |row| (row.2, row.3));
                            let full = cut.items.len() == LIMITS.max_records
                                || LIMITS.max_bytes <= bytes + after.0
                                || LIMITS.max_tokens <= tokens + after.1;
                            let due = expect[0].0 + LIMITS.max_wait <= now;
                            prop_assert!(full || due || flushed, "invariant 4");
                        }
                        flushed = flushed && !model.is_empty();
                        let overdue = model.front().is_some_and(|row| row.0 + LIMITS.max_wait <= now);
                        prop_assert!(!overdue, "invariant 3");
                    }
                }
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs one arbitrary instant")]
    fn epoch() -> Instant {
        Instant::now()
    }
}

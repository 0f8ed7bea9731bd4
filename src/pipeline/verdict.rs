//! What becomes of a batch that the model refuses.
//!
//! A record ends in exactly one of two topics, predictions or dead letters, in the same transaction as its
//! offset. The only other way out is that the process stops.

use crate::answer::Refused;
use crate::record::{Fault, FaultClass};

/// What to do with the rows of a refused part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This row becomes a dead letter; the others run again without it.
    DeadLetter {
        /// Its place in the part.
        row: usize,
        /// Why.
        fault: Fault,
    },
    /// Both halves run again alone.
    Halve,
    /// Both halves run again alone, and no batch is that large again.
    HalveForGood,
    /// Exit without a commit; the records are read again by the next start.
    Exit(String),
}

/// Decides. Total, and without memory: the same refusal of as many `rows`, which went to the model beside others of the
/// same batch or as all that it was `asked`, always gets the same verdict.
pub fn verdict(refused: &Refused, rows: usize, asked: usize) -> Verdict {
    match refused {
        Refused::Row { row, message } if *row < rows => {
            Verdict::DeadLetter { row: *row, fault: Fault::new(FaultClass::Refused, message) }
        }
        Refused::Row { message, .. } | Refused::Batch(message) if rows < 2 => {
            Verdict::DeadLetter { row: 0, fault: Fault::new(FaultClass::Refused, message) }
        }
        Refused::Row { .. } | Refused::Batch(_) => Verdict::Halve,
        // Out of memory says nothing about the record: never a dead letter.
        Refused::OutOfMemory(message) if asked < 2 => Verdict::Exit(format!(
            "run one record alone: out of device memory ({message}); give the device more memory or \
             lower model.max_length"
        )),
        Refused::OutOfMemory(_) => Verdict::HalveForGood,
        Refused::DeviceLost(message) => Verdict::Exit(format!("run a batch: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let message = || "m".to_owned();
        let fault = || Fault::new(FaultClass::Refused, "m");
        let dead = |row| Verdict::DeadLetter { row, fault: fault() };
        for (refused, rows, expect) in [
            (Refused::Batch(message()), 64, Verdict::Halve),
            (Refused::Batch(message()), 2, Verdict::Halve),
            (Refused::Batch(message()), 1, dead(0)),
            (Refused::Row { row: 3, message: message() }, 64, dead(3)),
            (Refused::Row { row: 0, message: message() }, 1, dead(0)),
            (Refused::Row { row: 9, message: message() }, 4, Verdict::Halve),
            (Refused::Row { row: 9, message: message() }, 1, dead(0)),
            (Refused::OutOfMemory(message()), 2, Verdict::HalveForGood),
        ] {
            assert_eq!(verdict(&refused, rows, rows), expect, "{refused:?} of {rows}");
            assert_eq!(verdict(&refused, rows, 99), expect, "{refused:?} of {rows} beside others");
        }
        for refused in [Refused::OutOfMemory(message()), Refused::DeviceLost(message())] {
            assert!(matches!(verdict(&refused, 1, 1), Verdict::Exit(_)), "{refused:?}");
        }
        let beside = verdict(&Refused::OutOfMemory(message()), 1, 2);
        assert_eq!(beside, Verdict::HalveForGood, "its neighbours had the memory");
    }
}

//! What an error of a transactional call means. Pure; the table is the test's.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::failure::Exit;

/// The call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `init_transactions`.
    Init,
    /// `begin_transaction`.
    Begin,
    /// Handing a message to the client.
    Send,
    /// A delivery report.
    Deliver,
    /// `send_offsets_to_transaction`.
    Offsets,
    /// `commit_transaction`.
    Commit,
    /// `abort_transaction`.
    Abort,
}

impl Call {
    /// The verb and object of an error message.
    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "initialise transactions",
            Self::Begin => "begin transaction",
            Self::Send => "queue message",
            Self::Deliver => "deliver message",
            Self::Offsets => "add offsets to transaction",
            Self::Commit => "commit transaction",
            Self::Abort => "abort transaction",
        }
    }
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make the same call again, within the deadline.
    Again,
    /// Wait for delivery reports, then hand the message over again.
    Drain,
    /// The broker refuses a message for good: the verdicts say which; new producer, then what is left again.
    Refused,
    /// It did not fit into the time: abort, then less at once.
    TooLong,
    /// Abort, then the same records again with the same producer.
    Redo,
    /// New producer, then the same records again: nothing was committed.
    Recreate,
    /// New producer, then read from the committed offsets what became of the transaction.
    Resolve,
    /// Stop, and end so.
    Exit(Exit),
}

/// An error as librdkafka marks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symptom {
    /// The code.
    pub code: Code,
    /// The producer cannot be used any more.
    pub fatal: bool,
    /// The transaction must be aborted.
    pub abort: bool,
    /// The same call may be made again.
    pub retriable: bool,
}

impl Symptom {
    /// What `error` says of itself. `None` where it carries no code.
    pub fn of(error: &KafkaError) -> Option<Self> {
        let code = error.rdkafka_error_code()?;
        let plain = Self { code, fatal: false, abort: false, retriable: false };
        #[expect(clippy::wildcard_enum_match_arm, reason = "the other variants carry a code only")]
        Some(match error {
            KafkaError::Transaction(e) => Self {
                fatal: e.is_fatal(),
                abort: e.txn_requires_abort(),
                retriable: e.is_retriable(),
                ..plain
            },
            // The client's own flush before a commit ran out of time: the commit was not sent.
            KafkaError::Flush(_) => Self { retriable: true, ..plain },
            _ => plain,
        })
    }
}

/// What to do about `symptom` of `call`. In the order fatal, abort, retriable, everything else.
pub fn classify(call: Call, symptom: Symptom) -> Action {
    let Symptom { code, fatal, abort, retriable } = symptom;
    if let Some(exit) = hopeless(code) {
        return Action::Exit(exit);
    }
    match (call, code) {
        (Call::Init, _) if retriable => Action::Again,
        (Call::Init, _) | (Call::Begin, Code::State) => Action::Exit(Exit::Temporary),
        (Call::Send, Code::QueueFull) => Action::Drain,
        (Call::Send | Call::Deliver, code) if !fatal && is_of_a_record(code) => Action::Refused,
        // A producer hears of new partitions a moment after the consumer; that they are there was looked at before.
        (Call::Send, Code::UnknownPartition | Code::UnknownTopic) => Action::Redo,
        // A call of ours is still inside the client, or its own state says otherwise than ours.
        (_, Code::Conflict | Code::PreviousInProgress) => Action::Resolve,
        (Call::Send | Call::Deliver, _) if !fatal => Action::Recreate,
        _ if fatal => Action::Resolve,
        (Call::Commit, Code::Inconsistent) if abort => Action::Recreate,
        (Call::Commit, _) if abort => Action::Resolve,
        (Call::Offsets, Code::InvalidProducerIdMapping | Code::UnknownProducerId) if abort => {
            Action::Recreate
        }
        _ if abort => Action::Redo,
        _ if retriable => Action::Again,
        _ => Action::Resolve,
    }
}

/// What to do where `call` has not returned in time. Its producer is left behind, and the next one with the same id ends
/// its transaction: without a call to commit, that end is an abort.
pub fn overdue(call: Call) -> Action {
    match call {
        Call::Commit => Action::Resolve,
        Call::Init | Call::Begin | Call::Send | Call::Deliver | Call::Offsets | Call::Abort => {
            Action::Recreate
        }
    }
}

/// Whether an error is the broker's verdict on one record, which it will never take.
pub fn is_of_a_record(code: Code) -> bool {
    matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::InvalidMessageSize
            | Code::InvalidRecord
            | Code::InvalidTimestamp
            | Code::UnsupportedForMessageFormat
            | Code::PolicyViolation
            | Code::KeySerialization
            | Code::ValueSerialization
    )
}

/// Errors that no repetition cures, with the exit code.
pub(super) fn hopeless(code: Code) -> Option<Exit> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "librdkafka knows about 200 codes")]
    match code {
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::InvalidTransactionTimeout
        | Code::UnsupportedFeature
        | Code::UnsupportedVersion => Some(Exit::Config),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    enum Mark {
        Fatal,
        Abort,
        Retriable,
        Plain,
    }

    fn symptom(code: Code, mark: Mark) -> Symptom {
        Symptom {
            code,
            fatal: matches!(mark, Mark::Fatal),
            abort: matches!(mark, Mark::Abort),
            retriable: matches!(mark, Mark::Retriable),
        }
    }

    #[test]
    fn each_error_has_its_answer() {
        use Mark::{Abort, Fatal, Plain, Retriable};
        let table = [
            (Call::Init, Code::OperationTimedOut, Retriable, Action::Again),
            (Call::Init, Code::CoordinatorNotAvailable, Retriable, Action::Again),
            (Call::Init, Code::InvalidTransactionTimeout, Fatal, Action::Exit(Exit::Config)),
            (
                Call::Init,
                Code::TransactionalIdAuthorizationFailed,
                Fatal,
                Action::Exit(Exit::Config),
            ),
            (Call::Init, Code::UnsupportedFeature, Fatal, Action::Exit(Exit::Config)),
            (Call::Init, Code::Fail, Fatal, Action::Exit(Exit::Temporary)),
            (Call::Begin, Code::State, Plain, Action::Exit(Exit::Temporary)),
            (Call::Begin, Code::Conflict, Retriable, Action::Resolve),
            (Call::Commit, Code::PreviousInProgress, Retriable, Action::Resolve),
            (Call::Send, Code::QueueFull, Plain, Action::Drain),
            (Call::Send, Code::MessageSizeTooLarge, Plain, Action::Refused),
            (Call::Send, Code::State, Plain, Action::Recreate),
            (Call::Send, Code::UnknownPartition, Plain, Action::Redo),
            (Call::Deliver, Code::MessageSizeTooLarge, Plain, Action::Refused),
            (Call::Deliver, Code::InvalidRecord, Plain, Action::Refused),
            (Call::Deliver, Code::InvalidTimestamp, Plain, Action::Refused),
            (Call::Deliver, Code::InvalidDifferentRecord, Plain, Action::Recreate),
            (Call::Deliver, Code::TopicAuthorizationFailed, Plain, Action::Exit(Exit::Config)),
            (Call::Deliver, Code::UnknownProducerId, Plain, Action::Recreate),
            (Call::Deliver, Code::MessageTimedOut, Plain, Action::Recreate),
            (Call::Deliver, Code::OutOfOrderSequenceNumber, Fatal, Action::Resolve),
            (Call::Offsets, Code::InvalidTransactionalState, Fatal, Action::Resolve),
            (Call::Offsets, Code::ProducerFenced, Fatal, Action::Resolve),
            (Call::Offsets, Code::InvalidProducerEpoch, Fatal, Action::Resolve),
            (Call::Offsets, Code::IllegalGeneration, Abort, Action::Redo),
            (Call::Offsets, Code::UnknownMemberId, Abort, Action::Redo),
            (Call::Offsets, Code::RebalanceInProgress, Abort, Action::Redo),
            // Whoever has the name now, which may be this process itself after its session was over: the group says.
            (Call::Offsets, Code::FencedInstanceId, Abort, Action::Redo),
            (Call::Offsets, Code::NotCoordinator, Abort, Action::Redo),
            (Call::Offsets, Code::OperationTimedOut, Retriable, Action::Again),
            (Call::Offsets, Code::InvalidProducerIdMapping, Abort, Action::Recreate),
            (Call::Offsets, Code::GroupAuthorizationFailed, Abort, Action::Exit(Exit::Config)),
            (Call::Commit, Code::OperationTimedOut, Retriable, Action::Again),
            (Call::Commit, Code::Fenced, Fatal, Action::Resolve),
            (Call::Commit, Code::InvalidTransactionalState, Fatal, Action::Resolve),
            (Call::Commit, Code::UnknownProducerId, Abort, Action::Resolve),
            (Call::Commit, Code::Unknown, Abort, Action::Resolve),
            (Call::Commit, Code::Inconsistent, Abort, Action::Recreate),
            (Call::Commit, Code::Fail, Plain, Action::Resolve),
            (Call::Abort, Code::OperationTimedOut, Retriable, Action::Again),
            (Call::Abort, Code::Fenced, Fatal, Action::Resolve),
        ];
        for (call, code, mark, expected) in table {
            assert_eq!(classify(call, symptom(code, mark)), expected, "{call:?} {code:?}");
        }
    }

    #[test]
    fn only_a_commit_without_an_answer_may_have_committed() {
        let calls =
            [Call::Init, Call::Begin, Call::Send, Call::Deliver, Call::Offsets, Call::Abort];
        for call in calls {
            assert_eq!(overdue(call), Action::Recreate, "{call:?}");
        }
        assert_eq!(overdue(Call::Commit), Action::Resolve);
    }

    #[test]
    fn a_flush_that_runs_out_of_time_is_tried_again() {
        let symptom = Symptom::of(&KafkaError::Flush(Code::OperationTimedOut)).unwrap();
        assert_eq!(classify(Call::Commit, symptom), Action::Again);
    }
}

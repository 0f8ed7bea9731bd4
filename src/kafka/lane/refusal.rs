//! What becomes of a message that the broker refuses for good. Pure; the table is the test's.
//!
//! A permanent verdict on a record is that record's outcome: a prediction that its topic does not take becomes a dead
//! letter with the broker's words. A dead letter must be taken: what its topic refuses about it (timestamp, key, size) is
//! made acceptable, and the original goes into headers.

use rdkafka::error::RDKafkaErrorCode as Code;

use crate::kafka::producer::Refusal;
use crate::log::message::Amend;
use crate::record::{Fault, FaultClass, Outcome};

/// What to do about a refused message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The record becomes a dead letter.
    Bury(Fault),
    /// The dead letter is written in this form.
    Amend(Amend),
    /// Fewer bytes go into one batch of the client: it is the batch that is too large.
    SmallerBatches,
    /// Each message goes by itself: the broker does not say which one it means.
    OneByOne,
    /// No form is left that the topic takes; the operator must change the topic.
    Hopeless,
}

/// A message that was refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused<'a> {
    /// What the broker said.
    pub(super) refusal: &'a Refusal,
    /// Whether it has told the culprits from their neighbours, or each message went by itself.
    pub(super) named: bool,
    /// How many it refused in the same transaction.
    pub(super) together: usize,
    /// The message's size in bytes, before compression.
    pub(super) size: usize,
    /// What a batch of the client may hold, in bytes: a larger message goes by itself.
    pub(super) limit: usize,
    /// The topic's name.
    pub(super) topic: &'a str,
    /// Whether the topic is compacted and the record has no key: then that is why.
    pub(super) keyless: bool,
    /// What was changed about it already.
    pub(super) amend: Amend,
}

/// Decides. Each remedy is a step towards one that the broker takes, so the steps come to an end.
pub(super) fn remedy<O>(refused: Refused<'_>, outcome: &Outcome<O>) -> Remedy {
    let Refused { refusal, named, together, size, limit, topic, keyless, amend } = refused;
    let Refusal { code, words, .. } = refusal;
    let letter = matches!(outcome, Outcome::DeadLetter(_));
    if matches!(code, Code::MessageSizeTooLarge | Code::InvalidMessageSize) {
        return if size <= limit && 1 < together {
            Remedy::SmallerBatches
        } else if !letter {
            let message =
                format!("the message has {size} bytes, more than topic {topic} takes: {words}");
            Remedy::Bury(Fault::new(FaultClass::Oversized, message))
        } else if !amend.size {
            Remedy::Amend(Amend { size: true, ..amend })
        } else {
            Remedy::SmallerBatches
        };
    }
    if !named && 1 < together {
        return Remedy::OneByOne;
    }
    if !letter {
        let why = if keyless { ": the topic is compacted, and the record has no key" } else { "" };
        let time = matches!(code, Code::InvalidTimestamp | Code::InvalidRecord) && !keyless;
        let hint = if time {
            "; where it is the record's time, message.timestamp.before.max.ms and message.timestamp.after.max.ms of the \
             topic bound it"
        } else {
            ""
        };
        let message = format!("topic {topic} refuses the prediction{why}: {words}{hint}");
        return Remedy::Bury(Fault::new(FaultClass::Refused, message));
    }
    let time = *code == Code::InvalidTimestamp;
    match (time, amend.timestamp, amend.key) {
        (true, false, _) | (false, false, true) => {
            Remedy::Amend(Amend { timestamp: true, ..amend })
        }
        (false, _, false) | (true, true, false) => Remedy::Amend(Amend { key: true, ..amend }),
        (_, true, true) => Remedy::Hopeless,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: Code) -> Refusal {
        Refusal { row: 0, code, words: "Broker: words".to_owned() }
    }

    fn of(refusal: &Refusal) -> Refused<'_> {
        Refused {
            refusal,
            named: true,
            together: 1,
            size: 500,
            limit: 1_000,
            topic: "out",
            keyless: false,
            amend: Amend::default(),
        }
    }

    fn prediction() -> Outcome<Vec<u8>> {
        Outcome::Prediction(Vec::new())
    }

    fn letter() -> Outcome<Vec<u8>> {
        Outcome::DeadLetter(Fault::new(FaultClass::Missing, "m"))
    }

    #[test]
    fn a_prediction_that_is_refused_becomes_a_dead_letter_with_the_brokers_words() {
        for code in [Code::InvalidRecord, Code::InvalidTimestamp, Code::PolicyViolation] {
            let refusal = refusal(code);
            let Remedy::Bury(fault) = remedy(of(&refusal), &prediction()) else { panic!("{code}") };
            assert_eq!(fault.class, FaultClass::Refused);
            assert!(fault.message.contains("out refuses the prediction: Broker: words"), "{fault}");
        }
    }

    #[test]
    fn where_the_broker_does_not_say_which_each_goes_by_itself() {
        let invalid = refusal(Code::InvalidRecord);
        let vague = Refused { named: false, together: 9, ..of(&invalid) };
        assert_eq!(remedy(vague, &prediction()), Remedy::OneByOne);
        let single = Refused { named: false, together: 1, ..of(&invalid) };
        assert!(matches!(remedy(single, &prediction()), Remedy::Bury(_)));
        assert!(matches!(remedy(Refused { named: true, ..vague }, &prediction()), Remedy::Bury(_)));
    }

    #[test]
    fn a_batch_that_is_too_large_is_told_from_a_message_that_is() {
        let large = refusal(Code::MessageSizeTooLarge);
        let many = Refused { together: 9, ..of(&large) };
        assert_eq!(remedy(many, &prediction()), Remedy::SmallerBatches);
        let alone = Refused { together: 9, size: 2_000, ..of(&large) };
        let Remedy::Bury(fault) = remedy(alone, &prediction()) else { panic!() };
        assert_eq!(fault.class, FaultClass::Oversized);
        let size = Amend { size: true, ..Amend::default() };
        assert_eq!(remedy(alone, &letter()), Remedy::Amend(size));
        assert_eq!(remedy(Refused { amend: size, ..alone }, &letter()), Remedy::SmallerBatches);
    }

    #[test]
    fn a_dead_letter_is_changed_until_its_topic_takes_it() {
        let (time, record) = (refusal(Code::InvalidTimestamp), refusal(Code::InvalidRecord));
        for (first, second) in
            [(&time, &time), (&time, &record), (&record, &time), (&record, &record)]
        {
            let Remedy::Amend(once) = remedy(of(first), &letter()) else { panic!("{first:?}") };
            let again = Refused { amend: once, ..of(second) };
            let Remedy::Amend(twice) = remedy(again, &letter()) else { panic!("{second:?}") };
            assert_eq!(twice, Amend { timestamp: true, key: true, size: false });
            let last = Refused { amend: twice, ..of(first) };
            assert_eq!(remedy(last, &letter()), Remedy::Hopeless);
        }
        let first = Amend { timestamp: true, ..Amend::default() };
        assert_eq!(
            remedy(of(&time), &letter()),
            Remedy::Amend(first),
            "the cause is changed first"
        );
        let first = Amend { key: true, ..Amend::default() };
        assert_eq!(remedy(of(&record), &letter()), Remedy::Amend(first));
    }
}

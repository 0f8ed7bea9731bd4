//! What goes wrong while reading, and what is done about it.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::super::twin::{How, Lost, Step};
use super::super::{drop_aside, settings};
use super::{ANSWER, Source};
use crate::failure::{Exit, Failure};
use crate::log::Control;
use crate::record::Partition;

impl Source {
    /// What an error of the consumer means: most cure themselves inside the client.
    pub(super) fn judge(
        &mut self,
        error: &KafkaError,
        partition: Option<Partition>,
    ) -> Result<(), Failure> {
        let Some(code) = error.rdkafka_error_code() else {
            self.warn(&error.to_string());
            return Ok(());
        };
        let place = partition
            .map_or_else(String::new, |p| format!(" {}/{}", self.shared.naming.input(p), p.number));
        // The first error of a client that is of no use any more says only that it is; the client knows the cause.
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_)) || code == Code::Fatal;
        let cause = self.consumer.as_ref().and_then(|c| c.client().fatal_error());
        let code = cause.map_or(code, |(code, _)| code);
        match meaning(code, fatal) {
            Meaning::Again => self.warn(&format!("read{place}: the client tries again: {error}")),
            Meaning::Reopen => {
                self.warn(&format!("read{place}: {error}: looking anew where it begins"));
                self.reopen(partition.as_slice())?;
            }
            Meaning::UnknownTopic => {
                self.warn(&format!("read{place}: {error}: comparing the topics' ids"));
                self.shared.doubt_topics();
            }
            Meaning::Lost(how) => self.lose(how),
            Meaning::Disagree => {
                let since = *self.disagreed.get_or_insert_with(Instant::now);
                let session = settings::session(&self.shared.config);
                if session <= since.elapsed() {
                    let message = format!(
                        "join the group {}: another member gives partitions out in another way than \
                         cooperative-sticky (a plain consumer's range or roundrobin?); stop it, or give this \
                         service a kafka.group of its own",
                        self.shared.naming.group
                    );
                    return Err(Failure { message, exit: Exit::Config });
                }
                self.warn(
                    "join the group: its members do not agree yet how partitions are given out",
                );
            }
            Meaning::Exit(exit, remedy) => {
                let failure = self.shared.failure(&format!("read{place}"), error, exit);
                return Err(Failure { message: format!("{}; {remedy}", failure.message), exit });
            }
        }
        Ok(())
    }

    /// The group has given our name to another one: this client is of no use any more.
    pub(super) fn lose(&mut self, how: How) {
        let Some(consumer) = self.consumer.take() else { return };
        tracing::warn!(
            instance = self.shared.instance,
            ?how,
            "another member has this kafka.instance: looking whether it lives"
        );
        consumer.context().closing.store(true, Ordering::Release);
        let claimed = self.shared.claimed();
        self.disown(&claimed, true);
        drop_aside(consumer);
        let now = Instant::now();
        // Waiting for the same name again is the same loss.
        let since = match &self.lost {
            Some((lost, _)) if lost.how == how => lost.since,
            _ => now,
        };
        let took_over = *self.shared.took_over.lock().unwrap_or_else(PoisonError::into_inner);
        let session = settings::session(&self.shared.config);
        let lost = Lost { how, since, took_over, session, looks: 0 };
        self.lost = Some((lost, now));
        let reason = format!(
            "another process has joined the group as {}: waiting until it is gone",
            self.shared.instance
        );
        self.tell(Control::Outside(Some(reason)));
    }

    /// Joins again once nobody else has our name.
    pub(super) fn rejoin(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let (Some((lost, next)), None) = (&mut self.lost, &self.consumer) else { return Ok(()) };
        if now < *next {
            return Ok(());
        }
        let held = self.shared.is_held_by_another(ANSWER);
        match lost.step(held, now) {
            Step::Wait(pause) => {
                lost.looks += 1;
                *next = now + pause;
                Ok(())
            }
            Step::Join => {
                tracing::info!("nobody has this kafka.instance any more: joining the group again");
                self.tell(Control::Outside(None));
                self.join()
            }
            Step::Exit => {
                let message = format!(
                    "stay in the group: another live process has the same kafka.instance {}: give each replica \
                     its own name",
                    self.shared.instance
                );
                Err(Failure { message, exit: Exit::Config })
            }
        }
    }

    /// Says a warning at once, and then more and more seldom, with how often it came.
    pub(super) fn warn(&mut self, line: &str) {
        match self.said.seen_over(line, Instant::now()) {
            Some((1, _)) => tracing::warn!("{line}"),
            Some((times, over)) => {
                let within = Duration::from_secs(over.as_secs());
                tracing::warn!(times, ?within, "{line}");
            }
            None => (),
        }
    }
}

/// What an error of the consumer means.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// The client tries again by itself.
    Again,
    /// The offset does not fit the log any more.
    Reopen,
    /// A topic is not there, or not yet.
    UnknownTopic,
    /// Another member has our name.
    Lost(How),
    /// The members do not agree how partitions are given out.
    Disagree,
    /// The process must stop: exit code and remedy.
    Exit(Exit, &'static str),
}

fn meaning(code: Code, fatal: bool) -> Meaning {
    #[expect(clippy::wildcard_enum_match_arm, reason = "librdkafka knows about 200 codes")]
    match code {
        Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => Meaning::Reopen,
        Code::FencedInstanceId => Meaning::Lost(How::Fenced),
        Code::UnreleasedInstanceId => Meaning::Lost(How::Unreleased),
        Code::UnknownTopicOrPartition
        | Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicId => Meaning::UnknownTopic,
        Code::InconsistentGroupProtocol => Meaning::Disagree,
        Code::TopicAuthorizationFailed => {
            Meaning::Exit(Exit::Config, "allow READ and DESCRIBE on the input topics")
        }
        Code::GroupAuthorizationFailed => {
            Meaning::Exit(Exit::Config, "allow READ on the group kafka.group")
        }
        Code::PollExceeded => {
            Meaning::Exit(Exit::Temporary, "the poll thread was stopped for minutes; start again")
        }
        _ if fatal => Meaning::Exit(Exit::Temporary, "start again"),
        _ => Meaning::Again,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_client_cannot_cure_has_a_meaning_of_its_own() {
        for (code, fatal, expect) in [
            (Code::AutoOffsetReset, false, Meaning::Reopen),
            (Code::OffsetOutOfRange, false, Meaning::Reopen),
            (Code::UnknownTopicOrPartition, false, Meaning::UnknownTopic),
            (Code::FencedInstanceId, true, Meaning::Lost(How::Fenced)),
            (Code::UnreleasedInstanceId, true, Meaning::Lost(How::Unreleased)),
            (Code::InconsistentGroupProtocol, false, Meaning::Disagree),
            (Code::Fatal, true, Meaning::Exit(Exit::Temporary, "start again")),
            (Code::BrokerTransportFailure, false, Meaning::Again),
            (Code::AllBrokersDown, false, Meaning::Again),
        ] {
            assert_eq!(meaning(code, fatal), expect, "{code:?}");
        }
        assert!(matches!(
            meaning(Code::TopicAuthorizationFailed, false),
            Meaning::Exit(Exit::Config, _)
        ));
    }
}

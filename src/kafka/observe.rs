//! The thread that looks at the cluster every few seconds, with a client of its own.
//!
//! * Are the input topics still the ones that are read? A topic that is deleted and created again has another id; the
//!   client goes on with it without a word. What was committed between two looks counts as answered.
//! * Is every partition read by somebody? A static member that returns within its session gets its old partitions back
//!   without a rebalance, so nobody notices the partitions that were added meanwhile.
//! * Has the group come to the end of what was there at the start (`--until-end`), whoever holds the partitions, and do
//!   readers of committed records see that?
//! * How far do our partitions go? What a consumer has fetched says nothing of that while it is paused or held up by a slow
//!   model. And where this process has left the group but stays up: how far behind is what nobody reads?
//! * Does the cluster answer at all, and how fast?

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use tokio::sync::mpsc;

use super::away::Away;
use super::hidden::Hidden;
use super::native::{self, Group, Topic, Which};
use super::shared::Shared;
use crate::config::Recreated;
use crate::failure::{Exit, Failure};
use crate::log::Committed;
use crate::log::{Control, Leave, Reach};
use crate::record::{Offset, Partition, TopicId};
use crate::repeated::Repeated;

/// How often the cluster is looked at.
const EVERY: Duration = Duration::from_secs(5);
/// How often the end of a job is judged, and a doubt is looked for.
const SOON: Duration = Duration::from_secs(1);
/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long an input topic may be missing: between deletion and creation, and while metadata spread.
const MISSING: Duration = Duration::from_secs(30);
/// How long refused credentials are tried.
const REFUSED: Duration = Duration::from_secs(120);
/// This member starts the group over at most so often.
const REJOIN_EVERY: Duration = Duration::from_secs(180);

/// What the poll thread is asked to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Look anew where these partitions begin.
    Reopen(Vec<Partition>),
    /// Leave the group and join it again, so that partitions that nobody reads are given out.
    Rejoin,
}

/// The thread's state.
pub(super) struct Observer {
    shared: Arc<Shared>,
    control: mpsc::Sender<Control>,
    orders: SyncSender<Order>,
    leave: Leave,
    looked: Option<Instant>,
    /// How long no broker has answered.
    away: Away,
    /// Input topics that are not there, since when.
    missing: BTreeMap<String, Instant>,
    /// Partitions that nobody reads, as the last look saw it.
    uncovered: BTreeSet<Partition>,
    /// When it is said that nobody reads them, and how often that was seen.
    unread: Repeated,
    rejoined: Option<Instant>,
    /// Since when the brokers refuse our credentials.
    refused: Option<Instant>,
    finished: bool,
    /// What readers do not see yet of what the group has committed.
    hidden: Hidden,
    hidden_said: bool,
    blind: bool,
    /// The partitions whose reach was told last.
    told: BTreeSet<Partition>,
}

impl Observer {
    pub(super) fn new(
        shared: Arc<Shared>,
        control: mpsc::Sender<Control>,
        orders: SyncSender<Order>,
        leave: Leave,
    ) -> Self {
        Self {
            shared,
            control,
            orders,
            leave,
            looked: None,
            away: Away::new(Instant::now()),
            missing: BTreeMap::new(),
            uncovered: BTreeSet::new(),
            unread: Repeated::default(),
            rejoined: None,
            refused: None,
            finished: false,
            hidden: Hidden::default(),
            hidden_said: false,
            blind: false,
            told: BTreeSet::new(),
        }
    }

    /// Looks until the service leaves. `nudges` ask for a judgement now.
    pub(super) fn run(mut self, nudges: &Receiver<()>) {
        while !self.leave.is_over() {
            let nudged = match nudges.recv_timeout(SOON) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                // Nobody asks for judgements: the pause is the same.
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(SOON);
                    false
                }
            };
            // The client says only when it is asked why it has no connection.
            while self.shared.look.poll(Duration::ZERO).is_some() {}
            self.shared.coordinator.listen();
            let due = self.looked.is_none_or(|looked| EVERY <= looked.elapsed());
            let doubt = !self.shared.topics_are_known();
            let result = if due || doubt { self.look() } else { Ok(()) };
            if self.shared.is_reachable() && self.has_others() {
                self.measure();
            }
            let result = result.and_then(|()| self.judge(nudged));
            if let Err(failure) = result {
                self.tell(Control::Failed(failure));
                return;
            }
        }
    }

    fn tell(&self, control: Control) {
        if self.control.blocking_send(control).is_err() {
            tracing::debug!("the engine has gone");
        }
    }

    /// One look.
    fn look(&mut self) -> Result<(), Failure> {
        self.looked = Some(Instant::now());
        let shared = Arc::clone(&self.shared);
        let doubted = shared.topics_doubted.load(Ordering::Acquire);
        // Before the question: what is committed while it is asked is not confirmed by its answer.
        let committed: BTreeMap<Partition, Offset> =
            shared.owned.read().iter().map(|(p, held)| (*p, held.committed)).collect();
        let names: Vec<&str> = shared.naming.inputs.iter().map(String::as_str).collect();
        // Whether any broker is there, first: a question to the controller has the client connect without a pause for as
        // long as it waits for that one.
        let missing = match shared.gone() {
            Ok(missing) => missing,
            Err(error) => return self.unreachable(&error),
        };
        self.say_back();
        let begin = Instant::now();
        let topics = match native::describe_topics(shared.look.client(), &names, ANSWER) {
            Ok(topics) => topics,
            Err(error) => return self.unreachable(&error),
        };
        shared.set_round_trip(begin.elapsed());
        shared.reachable.store(true, Ordering::Release);
        shared.heard().answered();
        self.refused = None;
        self.tell(Control::Reachable(true));
        // New connections of the others may be refused while this one lasts.
        self.tell(Control::Refused(shared.journal.refusal()));
        self.are_there(&names, &topics)?;
        self.are_the_same(&topics, &committed)?;
        shared.topics_compared.fetch_max(doubted, Ordering::AcqRel);
        self.are_read(&topics);
        self.tell(Control::Missing(missing));
        self.measure();
        Ok(())
    }

    /// Whether partitions are ours that were not when it was told how far they go: nobody waits seconds for the first word.
    fn has_others(&self) -> bool {
        self.shared.owned.read().keys().any(|partition| !self.told.contains(partition))
    }

    /// Tells how far partitions go: ours, or those that were ours and nobody reads.
    fn measure(&mut self) {
        let held: Vec<Partition> = self.shared.owned.read().keys().copied().collect();
        self.told = held.iter().copied().collect();
        let told = if self.leave.is_asked() {
            let left: Vec<Partition> =
                held.into_iter().filter(|p| self.blind || self.uncovered.contains(p)).collect();
            // A question for nothing is an error.
            let none = left.is_empty().then(|| Ok(BTreeMap::new()));
            let done = none.unwrap_or_else(|| self.shared.committed(&left, false, ANSWER));
            done.and_then(|done| {
                let reach = reach(&self.shared, &left)?;
                let done = |p: &Partition| Some(done.get(p)?.as_ref()?.next);
                let left = reach.into_iter().filter_map(|(p, reach)| Some((p, (done(&p)?, reach))));
                Ok(Control::Left(left.collect()))
            })
        } else {
            reach(&self.shared, &held).map(Control::Ends)
        };
        match told {
            Ok(told) => self.tell(told),
            Err(error) => tracing::debug!(%error, "how far partitions go is not known now"),
        }
    }

    /// The cluster did not answer. Credentials that are refused for long end the service as they end a start; those that
    /// were changed meanwhile end it at once, because a restart reads them.
    fn unreachable(&mut self, error: &KafkaError) -> Result<(), Failure> {
        tracing::debug!(%error, "the cluster does not answer");
        self.shared.reachable.store(false, Ordering::Release);
        self.tell(Control::Reachable(false));
        let refused = self.shared.heard().refusal();
        let is_refused = refused.is_some();
        self.tell(Control::Refused(refused));
        if !is_refused {
            self.refused = None;
            self.say_away();
            return Ok(());
        }
        let since = *self.refused.get_or_insert_with(Instant::now);
        match refusal(since.elapsed(), !self.shared.changed().is_empty()) {
            None => Ok(()),
            Some(what) => Err(self.shared.failure(what, error, Exit::Config)),
        }
    }

    /// No broker answers, and says nothing against us either.
    fn say_away(&mut self) {
        if let Some(away) = self.away.unanswered(Instant::now()) {
            let (servers, seconds) = (self.shared.servers(), away.as_secs());
            tracing::warn!(
                "no broker of {servers} has answered for {seconds} s: what is read waits, nothing is lost"
            );
        }
    }

    /// A broker answers.
    fn say_back(&mut self) {
        if let Some(away) = self.away.answered(Instant::now()) {
            let (servers, seconds) = (self.shared.servers(), away.as_secs());
            tracing::info!("brokers of {servers} answer again, after {seconds} s");
        }
    }

    /// Input topics may be missing for a moment only.
    fn are_there(
        &mut self,
        names: &[&str],
        topics: &BTreeMap<String, Topic>,
    ) -> Result<(), Failure> {
        self.missing.retain(|name, _| !topics.contains_key(name));
        for name in names.iter().filter(|name| !topics.contains_key(**name)) {
            let since = *self.missing.entry((*name).to_owned()).or_insert_with(Instant::now);
            if MISSING <= since.elapsed() {
                let message = format!(
                    "read {name}: the topic has not been there for {} s; create it, or take it out of input.topics",
                    since.elapsed().as_secs()
                );
                return Err(Failure { message, exit: Exit::Config });
            }
        }
        Ok(())
    }

    /// Whether the topics have the ids that our commits are of.
    fn are_the_same(
        &self,
        topics: &BTreeMap<String, Topic>,
        committed: &BTreeMap<Partition, Offset>,
    ) -> Result<(), Failure> {
        let naming = &self.shared.naming;
        let mut others: BTreeMap<Partition, (TopicId, TopicId, Offset, Offset)> = BTreeMap::new();
        for (partition, held) in self.shared.owned.write().iter_mut() {
            let now = topics.get(naming.input(*partition)).and_then(|topic| topic.id.as_ref());
            match (&held.note.topic, now) {
                (Some(ours), Some(now)) if ours != now => {
                    let (seen, done) = (held.note.seen, held.committed);
                    others.insert(*partition, (ours.clone(), now.clone(), seen, done));
                }
                (_, Some(_)) => {
                    let confirmed = committed.get(partition).copied();
                    held.note.seen = held.note.seen.max(confirmed.unwrap_or(held.note.seen));
                }
                (_, None) => (),
            }
        }
        let Some((first, (ours, now, ..))) = others.iter().next() else {
            let confirmed: i64 =
                self.shared.owned.read().values().map(|held| held.note.seen.0).sum();
            tracing::debug!(confirmed, "the input topics are the ones that the commits are of");
            return Ok(());
        };
        let ranges = others.iter().map(|(partition, (.., seen, done))| {
            format!("{}/{} from {seen} to {done}", naming.input(*partition), partition.number)
        });
        let said = format!(
            "topic {} was deleted and created again: its id was {ours} and is {now}. What was committed since it was \
             compared last counts as answered: {}",
            naming.input(*first),
            ranges.collect::<Vec<_>>().join(", ")
        );
        if self.shared.config.kafka.on_recreated == Recreated::Stop {
            let message = format!(
                "{said}. Set kafka.on_recreated: start to begin the new topic at its first record without these \
                 ranges"
            );
            return Err(Failure { message, exit: Exit::Data });
        }
        tracing::error!("{said}; its partitions are begun anew");
        self.order(Order::Reopen(others.into_keys().collect()));
        Ok(())
    }

    fn order(&self, order: Order) {
        if self.orders.try_send(order).is_err() {
            tracing::debug!("the poll thread is behind; the next look asks again");
        }
    }

    /// Whether each partition is read by some member.
    fn are_read(&mut self, topics: &BTreeMap<String, Topic>) {
        let shared = Arc::clone(&self.shared);
        let count = |name: &str| topics.get(name).map(|topic| topic.partitions);
        let all = shared.naming.partitions(count);
        let left = self.leave.is_asked();
        let mine = if left { Vec::new() } else { shared.claimed() };
        let group = if mine.len() == all.len() {
            None
        } else {
            match shared.describe_group(ANSWER) {
                Ok(group) => {
                    self.blind = false;
                    Some(group)
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.blind, true) {
                        tracing::warn!(
                            %error,
                            "the group may not be described: partitions that nobody reads cannot be seen"
                        );
                    }
                    return;
                }
            }
        };
        let uncovered = match &group {
            None => BTreeSet::new(),
            // Once this member has left, a group without any is not one that changes.
            Some(group) if !(group.stable || left && group.members.is_empty()) => return,
            Some(group) => uncovered(&all, group, |topic| {
                shared.naming.inputs.iter().position(|name| name == topic)
            }),
        };
        // Twice, because a member may be about to join.
        let both: BTreeSet<Partition> = uncovered.intersection(&self.uncovered).copied().collect();
        self.uncovered = uncovered;
        if self.uncovered.is_empty()
            && let Some(looks) = self.unread.over()
        {
            tracing::info!(looks, "every partition of the input topics is read again");
        }
        self.tell(Control::Uncovered(both.len()));
        let first = group.as_ref().is_some_and(|group| is_lowest(group, &shared.instance));
        let late = self.rejoined.is_none_or(|at| REJOIN_EVERY <= at.elapsed());
        if both.is_empty() {
            return;
        }
        if let Some(looks) = self.unread.seen(1, Instant::now()) {
            tracing::warn!(
                count = both.len(),
                looks,
                "partitions of the input topics are read by no member of the group"
            );
        }
        if first && late {
            tracing::warn!("leaving the group and joining it again, so that they are given out");
            self.rejoined = Some(Instant::now());
            self.uncovered.clear();
            self.order(Order::Rejoin);
        }
    }

    /// Whether the group has committed what was there at the start.
    fn judge(&mut self, nudged: bool) -> Result<(), Failure> {
        let Some(until) = self.shared.until.as_ref().filter(|_| !self.finished) else {
            return Ok(());
        };
        let wanted: Vec<Partition> = until.keys().copied().collect();
        let committed = match self.shared.committed(&wanted, false, ANSWER) {
            Ok(committed) => committed,
            Err(error) => {
                tracing::debug!(%error, nudged, "the end is not judged now");
                return match error.rdkafka_error_code() {
                    Some(Code::GroupAuthorizationFailed) => {
                        Err(self.shared.failure("read the group's offsets", &error, Exit::Config))
                    }
                    _ => Ok(()),
                };
            }
        };
        let done = |p: &Partition| committed.get(p).and_then(Option::as_ref).map(|c| c.next);
        let left: Vec<Partition> = until
            .iter()
            .filter(|(p, until)| done(p).is_none_or(|done| done < **until))
            .map(|(p, _)| *p)
            .collect();
        // What retention has deleted nobody can read any more.
        let left = if left.is_empty() { left } else { self.still_there(&left, until) };
        if left.is_empty() && self.fits(&committed) {
            self.show();
        } else {
            let missing =
                |p: &Partition| until[p].0.saturating_sub(done(p).map_or(0, |done| done.0));
            self.tell(Control::Unfinished(left.iter().map(|p| (*p, missing(p))).collect()));
        }
        Ok(())
    }

    /// The group is done; the job is over as soon as readers see that.
    fn show(&mut self) {
        match self.hidden.left(&self.shared, ANSWER) {
            Ok(0) => {
                self.finished = true;
                self.tell(Control::Finished);
            }
            Ok(_) => {
                let places = self.hidden.to_string();
                if !std::mem::replace(&mut self.hidden_said, true) {
                    tracing::warn!(
                        "all is committed, but a transaction that another process has left open hides it from readers \
                         of committed records until the broker ends it: {places}"
                    );
                }
                self.tell(Control::Hidden(places));
            }
            Err(error) => tracing::debug!(%error, "what readers see is not known now"),
        }
    }

    /// Whether committed offsets are of these topics and within them. One beyond a partition's end, or of another topic
    /// of the same name, says nothing about what was done: whoever takes the partition decides.
    fn fits(&self, committed: &BTreeMap<Partition, Option<Committed>>) -> bool {
        let (client, naming) = (self.shared.look.client(), &self.shared.naming);
        let pairs: Vec<(&str, i32)> =
            committed.keys().map(|p| (naming.input(*p), p.number)).collect();
        let names: Vec<&str> = naming.inputs.iter().map(String::as_str).collect();
        let asked = native::list_offsets(client, &pairs, Which::High, ANSWER)
            .and_then(|high| Ok((high, native::describe_topics(client, &names, ANSWER)?)));
        let Ok((high, topics)) = asked else { return false };
        committed.iter().zip(high).all(|((partition, committed), high)| {
            let Some(Committed { next, note }) = committed else { return true };
            let now = topics.get(naming.input(*partition)).and_then(|topic| topic.id.as_ref());
            let of = note.as_ref().and_then(|note| note.topic.as_ref());
            next.0 <= high && (of.is_none() || now.is_none() || of == now)
        })
    }

    /// Those partitions that still hold something below their end.
    fn still_there(
        &self,
        partitions: &[Partition],
        until: &BTreeMap<Partition, Offset>,
    ) -> Vec<Partition> {
        let naming = &self.shared.naming;
        let pairs: Vec<(&str, i32)> =
            partitions.iter().map(|p| (naming.input(*p), p.number)).collect();
        let lows = native::list_offsets(self.shared.look.client(), &pairs, Which::First, ANSWER);
        match lows {
            Ok(lows) => partitions
                .iter()
                .zip(lows)
                .filter(|(p, low)| until.get(p).is_some_and(|until| *low < until.0))
                .map(|(p, _)| *p)
                .collect(),
            Err(_) => partitions.to_vec(),
        }
    }
}

/// What is said of credentials that have been refused for so long, where that is the end; `changed` where a restart would
/// read others.
fn refusal(refused: Duration, changed: bool) -> Option<&'static str> {
    if changed {
        Some("talk to the cluster: it refuses the credentials")
    } else {
        let what = "talk to the cluster: the credentials have been refused for two minutes";
        (REFUSED <= refused).then_some(what)
    }
}

/// The partitions of `all` that no member of the group has.
fn uncovered(
    all: &[Partition],
    group: &Group,
    topic: impl Fn(&str) -> Option<usize>,
) -> BTreeSet<Partition> {
    let assigned = group.members.iter().flat_map(|member| &member.partitions);
    let covered: BTreeSet<Partition> = assigned
        .filter_map(|(name, number)| {
            let topic = u16::try_from(topic(name)?).ok()?;
            Some(Partition { topic, number: *number })
        })
        .collect();
    all.iter().copied().filter(|partition| !covered.contains(partition)).collect()
}

/// How far these partitions go. One whose leader does not answer is missing.
fn reach(shared: &Shared, of: &[Partition]) -> KafkaResult<BTreeMap<Partition, Reach>> {
    let pairs: Vec<_> = of.iter().map(|p| (shared.naming.input(*p), p.number)).collect();
    let list = |which| native::list_each_offset(shared.look.client(), &pairs, which, ANSWER);
    // In this order: what is written between the two questions does not count as held back.
    let (high, stable) = (list(Which::High)?, list(Which::Stable)?);
    let reach = of.iter().zip(high.into_iter().zip(stable)).filter_map(|(p, (high, stable))| {
        let (high, stable) = (high.ok()?, stable.ok()?);
        Some((*p, Reach { stable: Offset(stable), high: Offset(high.max(stable)) }))
    });
    Ok(reach.collect())
}

/// Whether this member is the one of the group's that acts: the lowest name.
fn is_lowest(group: &Group, instance: &str) -> bool {
    let lowest = group.members.iter().filter_map(|member| member.instance.as_deref()).min();
    lowest == Some(instance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::native::Member;

    fn member(instance: &str, partitions: &[(&str, i32)]) -> Member {
        Member {
            instance: Some(instance.to_owned()),
            id: format!("{instance}-id"),
            partitions: partitions.iter().map(|(topic, n)| ((*topic).to_owned(), *n)).collect(),
        }
    }

    #[test]
    fn credentials_that_changed_are_taken_up_at_once_and_others_given_up() {
        for (seconds, changed, ends) in
            [(0, false, false), (119, false, false), (120, false, true), (0, true, true)]
        {
            let found = refusal(Duration::from_secs(seconds), changed);
            assert_eq!(found.is_some(), ends, "{seconds} {changed}");
        }
    }

    #[test]
    fn partitions_that_no_member_has_are_found_and_one_member_acts() {
        let partition = |topic, number| Partition { topic, number };
        let all = [partition(0, 0), partition(0, 1), partition(1, 0)];
        let topic = |name: &str| ["a", "b"].iter().position(|known| *known == name);
        let members = vec![member("m-1", &[("a", 0)]), member("m-0", &[("b", 0), ("other", 7)])];
        let group = Group { stable: true, members };
        assert_eq!(uncovered(&all, &group, topic), BTreeSet::from([partition(0, 1)]));
        assert!(is_lowest(&group, "m-0") && !is_lowest(&group, "m-1"));
        assert!(!is_lowest(&Group::default(), "m-0"));
    }
}

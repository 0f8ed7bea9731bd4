//! Which dead letters are meant.

use std::ops::RangeInclusive;
use std::time::SystemTime;

use crate::cli::terminal;
use crate::config::Time;
use crate::log::letter::{Letter, OTHER};
use crate::printable;
use crate::record::FaultClass;

/// What the arguments say.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only dead letters of this class; may be given several times. Those of other programs have the class `other`
    #[arg(long, value_name = "CLASS", value_parser = classes())]
    class: Vec<String>,
    /// Only records that stood there, both offsets included: `orders`, `orders/3`, `orders/3/120`, `orders/3/120-180`,
    /// `orders/3/120-`; may be given several times
    #[arg(long, value_name = "TOPIC[/PARTITION[/FROM-TO]]", value_parser = source)]
    source: Vec<Sources>,
    /// Only records whose timestamp is not older than this (such as 30m or 24h)
    #[arg(long, value_name = "DURATION")]
    since: Option<Time>,
}

fn classes() -> clap::builder::PossibleValuesParser {
    FaultClass::ALL.map(FaultClass::name).into_iter().chain([OTHER]).collect::<Vec<_>>().into()
}

/// A range of records.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sources {
    topic: String,
    partition: Option<i32>,
    offsets: RangeInclusive<i64>,
}

fn source(text: &str) -> Result<Sources, String> {
    let form = "write TOPIC, TOPIC/PARTITION, TOPIC/PARTITION/OFFSET or TOPIC/PARTITION/FROM-TO";
    let mut parts = text.split('/');
    let topic = parts.next().filter(|topic| !topic.is_empty()).ok_or(form)?.to_owned();
    let partition = parts.next().map(|number| number.parse::<u16>().map_err(|_not_a_number| form));
    let offset = |text: &str| text.parse::<u64>().ok().and_then(|n| i64::try_from(n).ok());
    let offsets = match parts.next() {
        None => 0..=i64::MAX,
        Some(range) => match range.split_once('-') {
            None => offset(range).ok_or(form).map(|one| one..=one)?,
            Some((from, "")) => offset(from).ok_or(form)?..=i64::MAX,
            Some((from, to)) => offset(from).ok_or(form)?..=offset(to).ok_or(form)?,
        },
    };
    if offsets.is_empty() {
        return Err(format!("the range {text} ends before it begins"));
    }
    if parts.next().is_some() {
        return Err(form.to_owned());
    }
    Ok(Sources { topic, partition: partition.transpose()?.map(i32::from), offsets })
}

/// Of topics that are asked for and are no input: what is mistyped selects nothing, which looks like a good end.
fn strangers(args: &Args, inputs: &[String]) -> Vec<String> {
    let strange = args.source.iter().filter(|source| !inputs.contains(&source.topic));
    let said = |source: &Sources| {
        let topic = printable::name(&source.topic);
        format!("--source {topic}: input.topics has no such topic; it has {}", inputs.join(", "))
    };
    strange.map(said).collect()
}

/// Which dead letters are meant.
#[derive(Debug)]
pub(super) struct Selection<'a> {
    args: &'a Args,
    /// Milliseconds since 1970.
    since: Option<i64>,
}

impl<'a> Selection<'a> {
    #[expect(clippy::disallowed_methods, reason = "the timestamps of records are wall time")]
    pub(super) fn new(args: &'a Args, inputs: &[String]) -> Self {
        strangers(args, inputs).into_iter().for_each(terminal::note);
        let since = args.since.map(|since| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            i64::try_from(now.saturating_sub(since.0).as_millis()).unwrap_or(i64::MAX)
        });
        Self { args, since }
    }

    /// Whether a dead letter is meant. One that does not tell where its record stood, or when, is not where that is asked.
    pub(super) fn has(&self, letter: &Letter) -> bool {
        let Args { class, source, .. } = self.args;
        let of = |sources: &Sources| {
            letter.source.as_ref().is_some_and(|source| {
                sources.topic == source.topic
                    && sources.partition.is_none_or(|partition| partition == source.partition)
                    && sources.offsets.contains(&source.offset)
            })
        };
        let young = |since| letter.original.timestamp.is_some_and(|timestamp| since <= timestamp);
        (class.is_empty() || class.iter().any(|class| class == letter.class))
            && (source.is_empty() || source.iter().any(of))
            && self.since.is_none_or(young)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::letter::{Original, Source};

    #[test]
    fn a_source_that_is_no_input_is_told() {
        let args =
            |of: &str| Args { class: Vec::new(), source: vec![source(of).unwrap()], since: None };
        let inputs = ["in".to_owned(), "other".to_owned()];
        assert!(strangers(&args("in/1"), &inputs).is_empty());
        let said = strangers(&args("zzz"), &inputs);
        assert_eq!(said, ["--source zzz: input.topics has no such topic; it has in, other"]);
    }

    #[test]
    fn sources_have_five_forms() {
        let of = |partition, offsets| Ok(Sources { topic: "a.b-c".to_owned(), partition, offsets });
        for (text, expect) in [
            ("a.b-c", of(None, 0..=i64::MAX)),
            ("a.b-c/3", of(Some(3), 0..=i64::MAX)),
            ("a.b-c/3/7", of(Some(3), 7..=7)),
            ("a.b-c/3/7-9", of(Some(3), 7..=9)),
            ("a.b-c/3/7-", of(Some(3), 7..=i64::MAX)),
        ] {
            assert_eq!(source(text), expect, "{text}");
        }
        for text in ["", "/1", "a/x", "a/-1", "a/1/x", "a/1/-5", "a/1/9-7", "a/1/2/3", "a/1/2-x"] {
            assert!(source(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_condition_must_hold() {
        let letter = |class, offset, timestamp| Letter {
            source: Some(Source { topic: "a".to_owned(), partition: 1, offset }),
            class,
            message: String::new(),
            model: None,
            written: None,
            truncated: None,
            attempt: 0,
            original: Original { timestamp, ..Original::default() },
        };
        let args = Args {
            class: vec!["invalid".to_owned(), "missing".to_owned()],
            source: vec![source("a/1/5-7").unwrap(), source("b").unwrap()],
            since: None,
        };
        let selection = Selection { args: &args, since: Some(100) };
        for (class, offset, timestamp, expect) in [
            ("invalid", 5, Some(100), true),
            ("missing", 7, Some(101), true),
            ("other", 5, Some(100), false),
            ("invalid", 8, Some(100), false),
            ("invalid", 5, Some(99), false),
            ("invalid", 5, None, false),
        ] {
            assert_eq!(
                selection.has(&letter(class, offset, timestamp)),
                expect,
                "{class} {offset}"
            );
        }
        let stray = Letter { source: None, ..letter("invalid", 5, Some(100)) };
        assert!(!selection.has(&stray));
    }
}

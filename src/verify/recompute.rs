//! Records that are answered again: which, and whether the answers are the same.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::checker::Counted;
use super::facts::What;
use crate::record::{FaultClass, Outcome};

/// Classes of dead letters that the service or the broker gives, not the model: nothing to compute again.
const OF_THE_SERVICE: [&str; 4] = ["refused", "oversized", "too_slow", "killed"];

/// An outcome as it stands in its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The input partition, by its place in the scope.
    pub partition: usize,
    /// The record's offset.
    pub offset: i64,
    /// What it is.
    pub what: What,
    /// The message's value.
    pub value: Option<Vec<u8>>,
    /// Of a dead letter: the class of its fault.
    pub class: String,
}

/// Chosen outcomes of one version and one sort, by what decides.
type Pool = BTreeMap<(u64, usize, i64), Sample>;

/// So many predictions and so many dead letters of each version, spread over everything that is offered: those whose
/// source has the lowest hash, so that the same history gives the same choice.
#[derive(Debug)]
pub struct Samples {
    most: usize,
    pools: HashMap<(u32, bool), Pool>,
}

impl Samples {
    /// At most so many of each.
    pub fn new(most: usize) -> Self {
        Self { most, pools: HashMap::new() }
    }

    /// Offers an outcome; `sample` is asked for it when it is chosen, which a later one may undo.
    pub fn offer(
        &mut self,
        counted: Counted,
        what: What,
        offset: i64,
        sample: impl FnOnce() -> Sample,
    ) {
        let Counted { partition, model } = counted;
        let pool = self.pools.entry((model, what == What::DeadLetter)).or_default();
        let key = (hash(partition, offset), partition, offset);
        let full = self.most <= pool.len();
        if full && pool.last_key_value().is_none_or(|(last, _)| *last < key) {
            return;
        }
        pool.insert(key, sample());
        if full {
            pool.pop_last();
        }
    }

    /// What was chosen of a version, in the order of its sources.
    pub fn of(&self, model: u32) -> Vec<&Sample> {
        let pools = [false, true].iter().filter_map(|dead| self.pools.get(&(model, *dead)));
        let mut chosen: Vec<&Sample> = pools.flat_map(BTreeMap::values).collect();
        chosen.sort_by_key(|sample| (sample.partition, sample.offset));
        chosen
    }
}

/// `SplitMix64` of a source: near offsets are far apart.
fn hash(partition: usize, offset: i64) -> u64 {
    let seed = offset.cast_unsigned() ^ u64::try_from(partition).unwrap_or(0).rotate_left(40);
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How an answer compares with the recorded one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Same {
    /// The same bytes; of a dead letter, the same class.
    Equal,
    /// Numbers within the tolerance, everything else equal.
    Close,
    /// Another answer: how.
    No(String),
    /// There is nothing to compare with: why.
    Cannot(String),
}

/// Compares what is recorded with what the version answers `now`, or why it cannot. A dead letter of the service's own
/// classes is not answered again: what was too slow for the model, or killed it, would be that here too.
pub fn compare(
    recorded: &Sample,
    now: impl FnOnce() -> Result<Outcome<Vec<u8>>, String>,
    tolerance: f64,
) -> Same {
    let class = recorded.class.as_str();
    let is_dead = recorded.what == What::DeadLetter;
    if is_dead && OF_THE_SERVICE.contains(&class) {
        return Same::Cannot(format!("a dead letter of class {class} is not the model's word"));
    }
    let now = match now() {
        Ok(now) => now,
        Err(why) => return Same::Cannot(why),
    };
    match (recorded.what, &now) {
        (What::DeadLetter, Outcome::DeadLetter(fault)) if fault.class.name() == class => {
            Same::Equal
        }
        (What::Tombstone, Outcome::Tombstone) => Same::Equal,
        (What::Prediction, Outcome::Prediction(now)) => {
            let recorded = recorded.value.as_deref().unwrap_or_default();
            if recorded == &now[..] {
                return Same::Equal;
            }
            let parsed = serde_json::from_slice::<Value>(recorded);
            let (Ok(recorded), Ok(now)) = (parsed, serde_json::from_slice(now)) else {
                return Same::No("the recorded prediction is not valid JSON".to_owned());
            };
            difference(&recorded, &now, tolerance, "").map_or(Same::Close, Same::No)
        }
        (what, Outcome::DeadLetter(fault)) if fault.class == FaultClass::Refused && !is_dead => {
            Same::No(format!("the model refuses it now ({}), {what:?} is recorded", fault.message))
        }
        (what, now) => {
            let class = if is_dead { format!(" of class {class}") } else { String::new() };
            let what = format!("{what:?}").to_lowercase().replace("deadletter", "dead letter");
            let now = match now {
                Outcome::DeadLetter(fault) => format!("a dead letter of class {}", fault.class),
                Outcome::Prediction(_) | Outcome::Tombstone => format!("a {}", now.label()),
            };
            Same::No(format!("a {what}{class} is recorded, and it is {now} now"))
        }
    }
}

/// The first difference of two answers beyond `tolerance` (of 1, or of the number where that is more).
fn difference(recorded: &Value, now: &Value, tolerance: f64, at: &str) -> Option<String> {
    match (recorded, now) {
        (Value::Number(was), Value::Number(is)) => {
            let (was, is) = (was.as_f64().unwrap_or(f64::NAN), is.as_f64().unwrap_or(f64::NAN));
            let near = (was - is).abs() <= tolerance * was.abs().max(1.0);
            (!near).then(|| format!("{at} {was} is recorded, and it is {is} now"))
        }
        (Value::Array(was), Value::Array(is)) if was.len() == is.len() => {
            let mut pairs = (0..).zip(was.iter().zip(is));
            pairs.find_map(|(n, (was, is))| difference(was, is, tolerance, &format!("{at}/{n}")))
        }
        (Value::Object(was), Value::Object(is)) => {
            let names = is.keys().chain(was.keys());
            let mut pairs = names.map(|name| (name, was.get(name), is.get(name)));
            pairs.find_map(|(name, was, is)| {
                let at = format!("{at}/{name}");
                match (was, is) {
                    (Some(was), Some(is)) => difference(was, is, tolerance, &at),
                    (Some(_), None) => Some(format!("{at} is recorded, and it is not there now")),
                    (None, _) => Some(format!("{at} is not recorded, and it is there now")),
                }
            })
        }
        (was, is) if was == is => None,
        (was, is) => Some(format!("{at} {was} is recorded, and it is {is} now")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Fault;

    fn sample(what: What, value: &str) -> Sample {
        let value = Some(value.as_bytes().to_vec());
        Sample { partition: 0, offset: 1, what, value, class: "missing".to_owned() }
    }

    #[test]
    fn answers_compare_by_bytes_then_by_numbers() {
        let check = |recorded: &str, now: &str| {
            let now = || Ok(Outcome::Prediction(now.as_bytes().to_vec()));
            match compare(&sample(What::Prediction, recorded), now, 1e-4) {
                Same::No(why) => why,
                same @ (Same::Equal | Same::Close | Same::Cannot(_)) => format!("{same:?}"),
            }
        };
        assert_eq!(check(r#"{"value":1.5}"#, r#"{"value":1.5}"#), "Equal");
        assert_eq!(check(r#"{"value":1.5}"#, r#"{"value":1.50001}"#), "Close");
        assert_eq!(check(r#"{"value":15000}"#, r#"{"value":15001}"#), "Close");
        assert_eq!(
            check(r#"{"value":1.5}"#, r#"{"value":1.6}"#),
            "/value 1.5 is recorded, and it is 1.6 now"
        );
        assert_eq!(
            check(r#"{"label":"a"}"#, r#"{"label":"b"}"#),
            r#"/label "a" is recorded, and it is "b" now"#
        );
        assert_eq!(
            check(r#"{"e":[1,2]}"#, r#"{"e":[1,3]}"#),
            "/e/1 2 is recorded, and it is 3 now"
        );
        assert_eq!(
            check(r#"{"e":[1]}"#, r#"{"e":[1,3]}"#),
            "/e [1] is recorded, and it is [1,3] now"
        );
        assert_eq!(
            check(r#"{"a":1}"#, r#"{"a":1,"b":2}"#),
            "/b is not recorded, and it is there now"
        );
        assert_eq!(
            check(r#"{"a":1,"b":2}"#, r#"{"a":1}"#),
            "/b is recorded, and it is not there now"
        );
        assert_eq!(check("?", r#"{"a":1}"#), "the recorded prediction is not valid JSON");
    }

    #[test]
    fn dead_letters_compare_by_class() {
        let dead = |class| Outcome::DeadLetter(Fault::new(class, "why"));
        let recorded = sample(What::DeadLetter, "");
        assert_eq!(compare(&recorded, || Ok(dead(FaultClass::Missing)), 0.0), Same::Equal);
        let no = |same: Same| matches!(same, Same::No(_));
        assert!(no(compare(&recorded, || Ok(dead(FaultClass::Invalid)), 0.0)));
        assert!(no(compare(&recorded, || Ok(Outcome::Prediction(Vec::new())), 0.0)));
        let predicted = sample(What::Prediction, "{}");
        assert!(no(compare(&predicted, || Ok(dead(FaultClass::Missing)), 0.0)));
        assert!(no(compare(&predicted, || Ok(Outcome::Tombstone), 0.0)));
        assert!(matches!(compare(&predicted, || Err("away".to_owned()), 0.0), Same::Cannot(_)));
        for class in OF_THE_SERVICE {
            let recorded = Sample { class: class.to_owned(), ..recorded.clone() };
            let asked = || panic!("a record of class {class} was given to the model again");
            assert!(matches!(compare(&recorded, asked, 0.0), Same::Cannot(_)));
        }
    }

    #[test]
    fn the_choice_is_spread_and_the_same_every_time() {
        let choose = || {
            let mut samples = Samples::new(50);
            for offset in 0..10_000 {
                let counted = Counted { partition: 0, model: 3 };
                let make = || Sample { offset, ..sample(What::Prediction, "") };
                samples.offer(counted, What::Prediction, offset, make);
            }
            samples.of(3).iter().map(|sample| sample.offset).collect::<Vec<_>>()
        };
        let chosen = choose();
        assert_eq!((chosen.len(), &chosen), (50, &choose()));
        for tenth in 0..10 {
            let of = |offset: &&i64| (tenth * 1_000..(tenth + 1) * 1_000).contains(*offset);
            assert!(chosen.iter().any(|offset| of(&offset)), "{tenth}: {chosen:?}");
        }
    }
}

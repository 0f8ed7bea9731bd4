//! What a run did, read back from the committed topics: nothing here is told by the service itself.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::avro::{self, Plan};
use crate::config::OutputFormat;
use crate::log::message::Naming;
use crate::printable::thousands;
use crate::sqlite::{Error, Store, Stored};
use crate::verify::{self, Manifest, What};

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Records in the input topics.
    pub records: u64,
    /// Predictions.
    pub predictions: u64,
    /// Dead letters by class.
    pub dead_letters: BTreeMap<String, u64>,
    /// Tombstones that passed through.
    pub tombstones: u64,
    /// Batches by what closed them.
    pub batches: BTreeMap<String, u64>,
    /// For each version the predictions it made, and its first offset in each partition.
    pub versions: BTreeMap<u64, (u64, BTreeMap<i32, i64>)>,
    /// From a record's timestamp to its outcome's, ms, sorted.
    pub ages: Vec<i64>,
    /// Right answers and answers on held-out rows with a known label.
    pub accuracy: (u64, u64),
    /// Offsets with no outcome or with several: must be empty.
    pub violations: Vec<String>,
    /// From the first record's timestamp to the last outcome's.
    pub took: Duration,
}

/// Every record of a topic, partition by partition.
fn scan(store: &Store, topic: &str, mut visit: impl FnMut(i32, Stored)) -> Result<(), Error> {
    for partition in 0..i32::from(store.partitions(topic)?) {
        store.scan(topic, partition, 0..i64::MAX, |stored| {
            visit(partition, stored);
            Ok::<_, Error>(())
        })?;
    }
    Ok(())
}

impl Summary {
    /// Reads it from the log of one input topic.
    ///
    /// # Errors
    ///
    /// When a topic cannot be read.
    pub fn read(store: &Store, naming: &Naming, format: OutputFormat) -> Result<Self, Error> {
        let mut summary = Self::default();
        let plan = match format {
            OutputFormat::Json => None,
            OutputFormat::Avro => avro::parse(avro::Kind::Classification.schema(), &[])
                .and_then(|schema| Plan::new(&schema, None, &[]))
                .ok(),
        };
        // Timestamp and outcomes of every record.
        let mut inputs: BTreeMap<(i32, i64), (i64, u32)> = BTreeMap::new();
        let (mut first, mut last) = (i64::MAX, i64::MIN);
        for topic in &naming.inputs {
            scan(store, topic, |partition, stored| {
                inputs.insert((partition, stored.offset.0), (stored.message.timestamp, 0));
                first = first.min(stored.message.timestamp);
            })?;
        }
        summary.records = u64::try_from(inputs.len()).unwrap_or(u64::MAX);
        let dead = naming.dead_letters.iter().filter(|topic| !naming.inputs.contains(topic));
        for topic in dead.chain([&naming.output]) {
            scan(store, topic, |_, Stored { message, .. }| {
                let has_value = message.value.is_some();
                let read =
                    verify::Message::read(&message.headers, has_value, *topic == naming.output);
                let verify::Message::Outcome(outcome) = read else { return };
                last = last.max(message.timestamp);
                let place = outcome.partition.map(|partition| (partition, outcome.offset));
                if let Some((produced, outcomes)) = place.and_then(|place| inputs.get_mut(&place)) {
                    *outcomes += 1;
                    summary.ages.push((message.timestamp - *produced).max(0));
                }
                let value = message.value.as_deref().unwrap_or_default();
                summary.count(&outcome, value, plan.as_ref());
            })?;
        }
        scan(store, &naming.manifest, |_, Stored { message, .. }| {
            let manifest = Manifest::read(&message.value.unwrap_or_default());
            let reason = manifest.map_or_else(|_| "?".to_owned(), |manifest| manifest.reason);
            *summary.batches.entry(reason).or_default() += 1;
        })?;
        let wrong = inputs.iter().filter(|(_, (_, outcomes))| *outcomes != 1);
        summary.violations = wrong
            .map(|((partition, offset), (_, outcomes))| {
                format!("partition {partition} offset {offset}: {outcomes} outcomes")
            })
            .collect();
        summary.ages.sort_unstable();
        summary.took =
            Duration::from_millis(u64::try_from(last.saturating_sub(first)).unwrap_or(0));
        Ok(summary)
    }

    fn count(&mut self, outcome: &verify::Outcome<'_>, value: &[u8], plan: Option<&Plan>) {
        match outcome.what {
            What::Tombstone => self.tombstones += 1,
            What::DeadLetter => {
                let class = outcome.class.unwrap_or("?").to_owned();
                *self.dead_letters.entry(class).or_default() += 1;
            }
            What::Prediction => {
                self.predictions += 1;
                if let (Some(version), Some(partition)) = (outcome.version, outcome.partition) {
                    let (made, first) = self.versions.entry(version).or_default();
                    *made += 1;
                    let first = first.entry(partition).or_insert(outcome.offset);
                    *first = outcome.offset.min(*first);
                }
                judge(&prediction(value, plan), &mut self.accuracy);
            }
        }
    }

    /// The age in ms below which this share of the outcomes lies.
    pub fn age(&self, share: f64) -> i64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index below the length"
        )]
        let place = (share * self.ages.len() as f64) as usize;
        self.ages.get(place.min(self.ages.len().saturating_sub(1))).copied().unwrap_or(0)
    }
}

/// A prediction as JSON; of Avro by `plan`, where what goes along is JSON within a text.
fn prediction(value: &[u8], plan: Option<&Plan>) -> Value {
    let Some(plan) = plan else { return serde_json::from_slice(value).unwrap_or_default() };
    let mut text = Vec::new();
    plan.json(value, None, &mut text).unwrap_or_default();
    let mut read: Value = serde_json::from_slice(&text).unwrap_or_default();
    let input = read.get("input").and_then(Value::as_str).map(serde_json::from_str);
    if let Some(Ok(input)) = input {
        read["input"] = input;
    }
    read
}

/// Counts an answer on a held-out row whose diagnosis is known.
fn judge(value: &Value, accuracy: &mut (u64, u64)) {
    let text = |path: &str| value.pointer(path).and_then(Value::as_str);
    if let (Some("test"), Some(known)) = (text("/input/split"), text("/input/diagnosis")) {
        accuracy.0 += u64::from(text("/label") == Some(known));
        accuracy.1 += 1;
    }
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    let each = counts.iter().map(|(name, count)| format!("{name} {}", thousands(*count)));
    if counts.is_empty() { "none".to_owned() } else { each.collect::<Vec<_>>().join(", ") }
}

impl fmt::Display for Summary {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dead: u64 = self.dead_letters.values().sum();
        let seconds = self.took.as_secs_f64();
        let mut line = |name: &str, text: &str| writeln!(f, "  {name:<13} {text}");
        line("records", &thousands(self.records))?;
        line("predictions", &thousands(self.predictions))?;
        let classes =
            if dead == 0 { String::new() } else { format!("  ({})", counts(&self.dead_letters)) };
        line("dead letters", &format!("{}{classes}", thousands(dead)))?;
        if self.tombstones != 0 {
            line("tombstones", &thousands(self.tombstones))?;
        }
        let batches: u64 = self.batches.values().sum();
        line("batches", &format!("{}  closed by: {}", thousands(batches), counts(&self.batches)))?;
        for (version, (made, first)) in &self.versions {
            let from = first.iter().map(|(partition, offset)| format!("{partition}:{offset}"));
            let from = from.collect::<Vec<_>>().join(" ");
            let text = format!(
                "{version}  {} predictions, from partition:offset {from}",
                thousands(*made)
            );
            line("version", &text)?;
        }
        let rate = self.records as f64 / seconds.max(0.001);
        line("throughput", &format!("{rate:.0} records/s over {seconds:.2} s"))?;
        line("record age", &format!("p50 {} ms, p99 {} ms", self.age(0.5), self.age(0.99)))?;
        let (right, answers) = self.accuracy;
        if answers != 0 {
            let share = 100.0 * right as f64 / answers as f64;
            line(
                "accuracy",
                &format!("{share:.2} % of {} answers on held-out rows", thousands(answers)),
            )?;
        }
        let once = match self.violations.len() {
            0 => "yes: every record has exactly one outcome, read back from the log".to_owned(),
            wrong => format!("NO: {wrong} records, first {}", self.violations[0]),
        };
        line("exactly once", &once)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, expect) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(thousands(number), expect);
        }
    }

    #[test]
    fn ages_are_percentiles() {
        let summary = Summary { ages: (0..100).collect(), ..Summary::default() };
        assert_eq!((summary.age(0.5), summary.age(0.99), summary.age(1.0)), (50, 99, 99));
        assert_eq!(Summary::default().age(0.99), 0);
    }
}

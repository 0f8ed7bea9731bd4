//! Series that are written beside the recorder, which forgets none and counts in whole numbers: those that come and go with
//! partitions and versions, so that a scrape stays as small as what is served now, and seconds of CPU time.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::time::Instant;

use super::declared::{ALL, COMMIT_AGE, COMMITTED, CPU, HELD, LAG, MODEL_INFO, STARTED};
use crate::record::{ModelId, Partition};
use crate::status::history::Behind;

/// The metrics that are written here.
pub(super) const OWN: [&str; 7] = [LAG, HELD, COMMITTED, COMMIT_AGE, MODEL_INFO, STARTED, CPU];

/// What they say now.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// Each partition that is ours: an autoscaler must be able to trust each one that is there.
    partitions: BTreeMap<(String, i32), Part>,
    serving: Option<ModelId>,
}

/// A partition.
#[derive(Debug)]
struct Part {
    /// How far behind it is, once that is known.
    behind: Option<Behind>,
    /// When records of it were committed, or it became ours.
    committed: Instant,
}

/// What the process itself says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    /// Seconds of CPU that it has used.
    pub(super) cpu: f64,
    /// When it was started, in seconds since 1970.
    pub(super) started: f64,
}

impl Own {
    pub(super) fn assigned(&mut self, topic: &str, partition: Partition, now: Instant) {
        let part = Part { behind: None, committed: now };
        self.partitions.insert((topic.to_owned(), partition.number), part);
    }

    pub(super) fn lag(&mut self, topic: &str, partition: Partition, behind: &Behind) {
        let part = self.partitions.get_mut(&(topic.to_owned(), partition.number));
        part.into_iter().for_each(|part| part.behind = Some(*behind));
    }

    pub(super) fn committed(&mut self, topic: &str, partition: Partition, now: Instant) {
        let part = self.partitions.get_mut(&(topic.to_owned(), partition.number));
        part.into_iter().for_each(|part| part.committed = now);
    }

    pub(super) fn revoked(&mut self, topic: &str, partition: Partition) {
        self.partitions.remove(&(topic.to_owned(), partition.number));
    }

    pub(super) fn serving(&mut self, model: &ModelId) {
        self.serving = Some(model.clone());
    }

    /// All of it in Prometheus' text format, as it is at `now`. The ends of partitions are `known` while the cluster tells
    /// them: without them nobody knows a lag, and the last one is not told as if it were today's.
    pub(super) fn render(&self, process: Process, known: bool, now: Instant) -> String {
        let mut text = String::new();
        let behind = |of: fn(&Behind) -> i64| move |part: &Part| part.behind.as_ref().map(of);
        let told = |of: fn(&Behind) -> i64| move |part: &Part| behind(of)(part).filter(|_| known);
        self.each(&mut text, LAG, told(|behind| behind.lag));
        self.each(&mut text, HELD, told(|behind| behind.held));
        self.each(&mut text, COMMITTED, behind(|behind| behind.committed.0));
        self.each(&mut text, COMMIT_AGE, |part| {
            Some(now.saturating_duration_since(part.committed).as_secs_f64())
        });
        head(&mut text, MODEL_INFO);
        if let Some(ModelId { name, version, digest }) = &self.serving {
            let labels: [(_, &dyn Display); 3] =
                [("model", name), ("version", version), ("digest", digest)];
            series(&mut text, MODEL_INFO, &labels, &1);
        }
        head(&mut text, STARTED);
        series(&mut text, STARTED, &[], &process.started);
        head(&mut text, CPU);
        series(&mut text, CPU, &[], &process.cpu);
        text
    }

    /// A series for each partition of which this is known.
    fn each<T: Display>(&self, text: &mut String, name: &str, value: impl Fn(&Part) -> Option<T>) {
        head(text, name);
        for ((topic, partition), part) in &self.partitions {
            if let Some(value) = value(part) {
                series(text, name, &[("topic", topic), ("partition", partition)], &value);
            }
        }
    }
}

fn head(text: &mut String, name: &str) {
    let Some(metric) = ALL.iter().find(|metric| metric.name == name) else { return };
    // A String takes every write.
    writeln!(text, "# HELP {name} {}\n# TYPE {name} {}", metric.help, metric.kind.name())
        .unwrap_or_default();
}

fn series(text: &mut String, name: &str, labels: &[(&str, &dyn Display)], value: &dyn Display) {
    text.push_str(name);
    for (place, (label, said)) in labels.iter().enumerate() {
        let said = said.to_string().replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        let before = if place == 0 { '{' } else { ',' };
        write!(text, "{before}{label}=\"{said}\"").unwrap_or_default();
    }
    if !labels.is_empty() {
        text.push('}');
    }
    writeln!(text, " {value}").unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::{Offset, Version};

    fn model(version: u64) -> ModelId {
        ModelId { name: "a\"b\\c\nd".into(), version: Version(version), digest: "d".into() }
    }

    /// Ten thousand versions and partitions that are gone leave nothing, and no name breaks a line.
    #[test]
    fn what_is_gone_has_no_series() {
        #[expect(clippy::disallowed_methods, reason = "a test needs one arbitrary instant")]
        let start = Instant::now();
        let process = Process { cpu: 0.5, started: 1_790_000_000.25 };
        let mut own = Own::default();
        let empty = own.render(process, true, start).lines().count();
        for number in 0..10_000_i32 {
            let partition = Partition { topic: 0, number };
            own.assigned(&format!("in-{number}"), partition, start);
            own.lag(&format!("in-{number}"), partition, &Behind::readable(7));
            own.serving(&model(u64::try_from(number).unwrap()));
            own.revoked(&format!("in-{number}"), partition);
        }
        let partition = Partition { topic: 0, number: 3 };
        own.assigned("in", partition, start);
        let behind = Behind { committed: Offset(40), held: 2, ..Behind::readable(5) };
        own.lag("in", partition, &behind);
        own.lag("not-ours", partition, &behind);
        let at = |seconds| start + Duration::from_secs(seconds);
        own.committed("in", partition, at(10));
        let text = own.render(process, true, at(12));
        assert_eq!(text.lines().count(), empty + 5, "{text}");
        let model = r#"tidemill_model_info{model="a\"b\\c\nd",version="9999",digest="d"} 1"#;
        for line in [
            r#"tidemill_consumer_lag_records{topic="in",partition="3"} 5"#,
            r#"tidemill_held_back_records{topic="in",partition="3"} 2"#,
            r#"tidemill_committed_offset{topic="in",partition="3"} 40"#,
            r#"tidemill_last_commit_age_seconds{topic="in",partition="3"} 2"#,
            "tidemill_process_start_time_seconds 1790000000.25",
            "tidemill_process_cpu_seconds_total 0.5",
            model,
        ] {
            assert!(text.lines().any(|there| there == line), "{line} in\n{text}");
        }
        let away = own.render(process, false, at(12));
        let gone = text.lines().filter(|line| !away.lines().any(|there| there == *line));
        let gone: Vec<&str> = gone.filter_map(|line| line.split('{').next()).collect();
        assert_eq!(gone, [LAG, HELD], "while the cluster is away nobody knows them");
    }
}

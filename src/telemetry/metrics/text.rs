//! Series that are written beside the recorder, which forgets none and counts in whole numbers: those that come and go with
//! partitions and versions, so that a scrape stays as small as what is served now, and seconds of CPU time.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use super::declared::{ALL, CPU, LAG, MODEL_INFO};
use crate::record::{ModelId, Partition};

/// The metrics that are written here.
pub(super) const OWN: [&str; 3] = [LAG, MODEL_INFO, CPU];

/// What they say now.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// The lag of each partition that is ours: an autoscaler must be able to trust each one that is there.
    lags: BTreeMap<(String, i32), i64>,
    serving: Option<ModelId>,
}

impl Own {
    pub(super) fn lag(&mut self, topic: &str, partition: Partition, lag: i64) {
        self.lags.insert((topic.to_owned(), partition.number), lag);
    }

    pub(super) fn revoked(&mut self, topic: &str, partition: Partition) {
        self.lags.remove(&(topic.to_owned(), partition.number));
    }

    pub(super) fn serving(&mut self, model: &ModelId) {
        self.serving = Some(model.clone());
    }

    /// All of it in Prometheus' text format; the process has used `cpu` seconds.
    pub(super) fn render(&self, cpu: f64) -> String {
        let mut text = String::new();
        head(&mut text, LAG);
        for ((topic, partition), lag) in &self.lags {
            series(&mut text, LAG, &[("topic", topic), ("partition", partition)], lag);
        }
        head(&mut text, MODEL_INFO);
        if let Some(ModelId { name, version, digest }) = &self.serving {
            let labels: [(_, &dyn Display); 3] =
                [("model", name), ("version", version), ("digest", digest)];
            series(&mut text, MODEL_INFO, &labels, &1);
        }
        head(&mut text, CPU);
        series(&mut text, CPU, &[], &cpu);
        text
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
    use super::*;
    use crate::record::Version;

    fn model(version: u64) -> ModelId {
        ModelId { name: "a\"b\\c\nd".into(), version: Version(version), digest: "d".into() }
    }

    /// Ten thousand versions and partitions that are gone leave nothing, and no name breaks a line.
    #[test]
    fn what_is_gone_has_no_series() {
        let mut own = Own::default();
        let empty = own.render(0.5).lines().count();
        for number in 0..10_000_i32 {
            let partition = Partition { topic: 0, number };
            own.lag(&format!("in-{number}"), partition, 7);
            own.serving(&model(u64::try_from(number).unwrap()));
            own.revoked(&format!("in-{number}"), partition);
        }
        own.lag("in", Partition { topic: 0, number: 3 }, 1);
        let text = own.render(0.5);
        assert_eq!(text.lines().count(), empty + 2, "{text}");
        assert!(text.contains("tidemill_consumer_lag_records{topic=\"in\",partition=\"3\"} 1\n"));
        let line = r#"tidemill_model_info{model="a\"b\\c\nd",version="9999",digest="d"} 1"#;
        assert!(text.lines().any(|there| there == line), "{text}");
        assert!(text.ends_with("tidemill_process_cpu_seconds_total 0.5\n"), "{text}");
    }
}

//! How fast a model is on this machine: what `tidemill bench` makes of its measurements. No clock, no I/O.
//!
//! ```text
//!  Sample … ─► Point … ─► Curve ─┬─► statistics: time = a + b × tokens
//!  a round     a size            ├─► recommend: settings with their reasons, as YAML
//!                                └─► chart: SVG
//! ```

use std::fmt;

use serde::Serialize;

use crate::printable::thousands;

pub mod chart;
pub mod recommend;
pub mod sentences;
pub mod statistics;

use recommend::Recommendation;
use statistics::{Fit, float, median, percentile, rounded};

/// What one round measured at one size.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Tokens of all its batches.
    pub tokens: u64,
    /// From the first batch's submission to the last one's answer.
    pub seconds: f64,
    /// Seconds that each batch was in the model.
    pub batches: Vec<f64>,
}

/// A batch size and how it did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// Records in a batch.
    pub records: u32,
    /// Tokens in a batch, on average; rows count one each.
    pub tokens: u64,
    /// The median over the rounds. Taken from the tokens at the mean length of all records, so that sizes that
    /// met longer texts than others compare.
    pub records_per_second: f64,
    /// The median over the rounds.
    pub tokens_per_second: f64,
    /// Half of the batches were in the model for so long at most.
    pub p50_ms: f64,
    /// 99 % of the batches were (nearest rank: of fewer than 100 batches the slowest).
    pub p99_ms: f64,
    /// Batches that were measured.
    pub batches: u64,
    /// The most resident memory of a process that has this precision alone and has met no larger batch.
    pub resident_mib: Option<f64>,
    /// The part of it that the smallest batch does not take.
    pub above_smallest_mib: Option<f64>,
}

impl Point {
    /// Sums the rounds up. `tokens_a_record` is the mean over all records; `resident` is in bytes.
    pub fn new(
        records: u32,
        tokens_a_record: f64,
        samples: &[Sample],
        resident: Option<u64>,
    ) -> Self {
        let mut times: Vec<f64> = samples.iter().flat_map(|s| s.batches.clone()).collect();
        times.sort_by(f64::total_cmp);
        let batches = u64::try_from(times.len()).unwrap_or(u64::MAX);
        let rate = |sample: &Sample| float(sample.tokens) / sample.seconds.max(1e-9);
        let tokens_per_second = median(samples.iter().map(rate).collect());
        let tokens: u64 = samples.iter().map(|sample| sample.tokens).sum();
        Self {
            records,
            tokens: (tokens + batches / 2) / batches.max(1),
            records_per_second: tokens_per_second / tokens_a_record.max(1.0),
            tokens_per_second,
            p50_ms: percentile(&times, 50) * 1e3,
            p99_ms: percentile(&times, 99) * 1e3,
            batches,
            resident_mib: resident.map(|bytes| float(bytes) / 1_048_576.0),
            above_smallest_mib: None,
        }
    }
}

/// A precision at every size that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    /// `f32`, `int8`, …
    pub precision: String,
    /// Inference threads.
    pub workers: u16,
    /// How close its answers are to those in f32, over some of the records: the mean cosine of embeddings, or the
    /// share of equal labels. `None` for f32 itself and where f32 was not measured.
    pub agreement: Option<f64>,
    /// Time of a batch by its tokens; `None` where one size alone was measured.
    pub fit: Option<Fit>,
    /// Smallest size first.
    pub points: Vec<Point>,
}

impl Curve {
    /// A curve of these points, smallest size first.
    pub fn new(
        precision: String,
        workers: u16,
        agreement: Option<f64>,
        mut points: Vec<Point>,
    ) -> Self {
        let smallest = points.first().and_then(|point| point.resident_mib);
        for point in &mut points {
            let above = point.resident_mib.zip(smallest).map(|(mib, least)| (mib - least).max(0.0));
            point.above_smallest_mib = above;
        }
        let times: Vec<(f64, f64)> =
            points.iter().map(|point| (float(point.tokens), point.p50_ms / 1e3)).collect();
        Self { precision, workers, agreement, fit: statistics::fit(&times), points }
    }

    /// Records per second of its best size.
    pub fn best(&self) -> f64 {
        self.points.iter().map(|point| point.records_per_second).fold(0.0, f64::max)
    }
}

/// A number of inference threads, at the recommended size and precision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Crew {
    /// Inference threads.
    pub workers: u16,
    /// What they did.
    #[serde(flatten)]
    pub point: Point,
}

/// Everything that a run of `tidemill bench` found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Name and version.
    pub model: String,
    /// As Hugging Face spells it.
    pub task: String,
    /// `bert`, `mlp`, …
    pub architecture: String,
    /// `cpu`, `cuda:0`.
    pub device: String,
    /// The instructions that are used on the CPU.
    pub instructions: String,
    /// Cores that this process may use.
    pub cores: u16,
    /// What is counted in tokens: `token`, or `row` where each record counts one.
    pub unit: &'static str,
    /// Different records that went through.
    pub records: u64,
    /// Their mean length.
    pub tokens_a_record: f64,
    /// One for each precision.
    pub curves: Vec<Curve>,
    /// Numbers of inference threads that were compared; empty where the number was given.
    pub crews: Vec<Crew>,
    /// What to write; `None` where nothing was measured.
    pub recommendation: Option<Recommendation>,
}

impl Report {
    /// Where it ran: device, instructions, cores.
    pub fn place(&self) -> String {
        let Self { device, instructions, cores, .. } = self;
        let cores = if *cores == 1 { "1 core".to_owned() } else { format!("{cores} cores") };
        if device == "cpu" {
            format!("{device} ({instructions}), {cores}")
        } else {
            format!("{device}, {cores}")
        }
    }
}

/// For a terminal: a table for each precision, the fits, and the settings as YAML.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, task, architecture, records, unit, .. } = self;
        write!(
            f,
            "{model}: {task}, {architecture}, {}; {} records",
            self.place(),
            count(*records)
        )?;
        if *unit == "token" {
            write!(f, " of {:.0} tokens on average", self.tokens_a_record)?;
        }
        writeln!(f)?;
        for curve in &self.curves {
            curve.table(f, unit)?;
        }
        if !self.crews.is_empty() {
            writeln!(f, "\n  workers  records/s    p50 ms    p99 ms  batches")?;
        }
        for Crew { workers, point } in &self.crews {
            writeln!(
                f,
                "  {workers:>7} {:>10} {:>9} {:>9} {:>8}",
                count(rounded(point.records_per_second)),
                millis(point.p50_ms),
                millis(point.p99_ms),
                count(point.batches)
            )?;
        }
        match &self.recommendation {
            Some(recommendation) => write!(f, "\n{recommendation}"),
            None => Ok(()),
        }
    }
}

impl Curve {
    fn table(&self, f: &mut fmt::Formatter<'_>, unit: &str) -> fmt::Result {
        let plural = if self.workers == 1 { "" } else { "s" };
        writeln!(f, "\n{}, {} worker{plural}", self.precision, self.workers)?;
        let rate = format!("{unit}s/s");
        writeln!(
            f,
            "  {:>7} {:>10} {rate:>11} {:>9} {:>9} {:>8} {:>8} {:>7}",
            "records", "records/s", "p50 ms", "p99 ms", "batches", "MiB", "+ MiB"
        )?;
        let mib = |mib: Option<f64>| mib.map_or_else(|| "?".to_owned(), |mib| format!("{mib:.1}"));
        for point in &self.points {
            writeln!(
                f,
                "  {:>7} {:>10} {:>11} {:>9} {:>9} {:>8} {:>8} {:>7}",
                count(u64::from(point.records)),
                count(rounded(point.records_per_second)),
                count(rounded(point.tokens_per_second)),
                millis(point.p50_ms),
                millis(point.p99_ms),
                count(point.batches),
                mib(point.resident_mib),
                mib(point.above_smallest_mib)
            )?;
        }
        match &self.fit {
            Some(fit) => writeln!(f, "  a batch takes {}", fit.words(unit)),
            None => Ok(()),
        }
    }
}

fn count(number: u64) -> String {
    thousands(number)
}

/// Milliseconds with three significant digits or more.
fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{ms:.4}"),
        ms if ms < 100.0 => format!("{ms:.2}"),
        ms => format!("{ms:.0}"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A point of a made-up model: so many records a second, 10 tokens a record.
    pub(crate) fn point(records: u32, rate: f64, p99_ms: f64) -> Point {
        Point {
            records,
            tokens: u64::from(records) * 10,
            records_per_second: rate,
            tokens_per_second: rate * 10.0,
            p50_ms: p99_ms / 2.0,
            p99_ms,
            batches: 100,
            resident_mib: Some(100.0 + f64::from(records)),
            above_smallest_mib: None,
        }
    }

    pub(crate) fn report(curves: Vec<Curve>, crews: Vec<Crew>) -> Report {
        let mut report = Report {
            model: "sentiment/3".to_owned(),
            task: "text-embedding".to_owned(),
            architecture: "bert".to_owned(),
            device: "cpu".to_owned(),
            instructions: "avx2".to_owned(),
            cores: 2,
            unit: "token",
            records: 1_234,
            tokens_a_record: 10.0,
            curves,
            crews,
            recommendation: None,
        };
        report.recommendation = recommend::recommend(&report);
        report
    }

    #[test]
    fn rounds_become_a_point() {
        let sample =
            |tokens, seconds, batches: &[f64]| Sample { tokens, seconds, batches: batches.into() };
        let samples = [
            sample(100, 0.5, &[0.2, 0.3]),
            sample(100, 0.25, &[0.1, 0.1]),
            sample(120, 0.2, &[0.1, 0.4]),
        ];
        let point = Point::new(5, 10.0, &samples, Some(3 << 20));
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        assert_eq!((point.records, point.tokens, point.batches), (5, 53, 6));
        near(point.tokens_per_second, 400.0);
        near(point.records_per_second, 40.0);
        near(point.p50_ms, 100.0);
        near(point.p99_ms, 400.0);
        near(point.resident_mib.unwrap(), 3.0);
    }

    #[test]
    fn memory_is_counted_from_the_smallest_batch() {
        let points = vec![point(1, 10.0, 1.0), point(2, 10.0, 1.0), point(4, 10.0, 1.0)];
        let curve = Curve::new("f32".to_owned(), 2, None, points);
        let above: Vec<_> = curve.points.iter().map(|p| p.above_smallest_mib.unwrap()).collect();
        assert!(above.iter().zip([0.0, 1.0, 3.0]).all(|(a, b)| (a - b).abs() < 1e-9), "{above:?}");
    }

    #[test]
    fn the_report_reads_well() {
        let points = vec![point(1, 1_000.0, 1.0), point(2, 1_900.0, 2.0)];
        let curve = Curve::new("f32".to_owned(), 2, None, points);
        let text = report(vec![curve], Vec::new()).to_string();
        for part in [
            "sentiment/3: text-embedding, bert, cpu (avx2), 2 cores; 1,234 records of 10 tokens",
            "f32, 2 workers",
            "        2      1,900      19,000      1.00      2.00      100    102.0     1.0\n",
            "a batch takes 0 ms + 50 µs a token",
            "max_records: 2\n",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
    }
}

//! Which settings to write, and why: from the curves to YAML that can be pasted.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::statistics::{duration, rounded};
use super::{Crew, Curve, Point, Report};
use crate::config::{Time, Workers};
use crate::printable::thousands;

/// A smaller batch, or fewer workers, are as good as the best down to this share of its rate: more gains less than
/// a noisy machine takes.
pub const AS_GOOD: f64 = 0.95;

/// Below this agreement with f32 another precision is not recommended; `precision: auto` has the same bar.
pub const CLOSE: f64 = 0.995;

/// Waits that one would write, in milliseconds.
const WAITS: [u32; 11] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000];

/// Settings, under the names that they have in the configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recommendation {
    /// `batch`.
    pub batch: Batch,
    /// `model`.
    pub model: Model,
    /// Why, by the key's full name.
    pub reasons: BTreeMap<&'static str, String>,
}

/// Keys of `batch`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Batch {
    /// The smallest size that is as good as the best.
    pub max_records: u32,
    /// Bounds a batch of long texts.
    pub max_tokens: u32,
    /// As long as a batch runs.
    pub max_wait: Time,
}

/// Keys of `model`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Model {
    /// The fewest that are as good as the best.
    pub workers: Workers,
    /// The fastest whose answers are close to those in f32.
    pub precision: String,
}

/// The place of the smallest size that is as good as the best; `None` of none.
pub fn knee(points: &[Point]) -> Option<usize> {
    let best = points.iter().map(|point| point.records_per_second).fold(0.0, f64::max);
    points.iter().position(|point| best * AS_GOOD <= point.records_per_second)
}

/// The fastest precision among those that are close to f32.
pub fn fastest(curves: &[Curve]) -> Option<&Curve> {
    let close = |curve: &&Curve| curve.agreement.is_none_or(|agreement| CLOSE <= agreement);
    let faster = |a: &&Curve, b: &&Curve| a.best().total_cmp(&b.best());
    curves.iter().filter(close).max_by(faster).or_else(|| curves.first())
}

/// What the report says to write; `None` where it has no point.
pub fn recommend(report: &Report) -> Option<Recommendation> {
    let curve = fastest(&report.curves)?;
    let place = knee(&curve.points)?;
    let at = curve.points.get(place)?;
    let crew = fewest(&report.crews);
    // What the recommended workers did with such a batch.
    let measured = crew.map_or(at, |crew| &crew.point);
    let (workers, why_workers) = workers(report, curve, crew);
    let max_tokens = at.tokens.saturating_mul(2).max(1).next_power_of_two();
    let max_tokens = u32::try_from(max_tokens).unwrap_or(1 << 31);
    let wait = WAITS.into_iter().find(|wait| measured.p50_ms <= f64::from(*wait)).unwrap_or(2_000);
    let same = crew.is_none_or(|crew| crew.workers == curve.workers);
    let most = match curve.fit.filter(|_| same) {
        Some(fit) => {
            format!(", after about {} in the model", duration(fit.seconds(f64::from(max_tokens))))
        }
        None => String::new(),
    };
    let why_tokens = format!(
        "At least twice what such a batch has here ({} {}s): a batch of longer records ends at this{most}.",
        thousands(at.tokens),
        report.unit
    );
    let why_wait = format!(
        "About as long as such a batch is in the model (half of them up to {}): the next one fills meanwhile. \
         Where few records come, each waits this long; less answers sooner in smaller batches.",
        duration(measured.p50_ms / 1e3)
    );
    let reasons = BTreeMap::from([
        ("batch.max_records", why_records(curve, place, measured)),
        ("batch.max_tokens", why_tokens),
        ("batch.max_wait", why_wait),
        ("model.workers", why_workers),
        ("model.precision", why_precision(&report.curves, curve)),
    ]);
    Some(Recommendation {
        batch: Batch { max_records: at.records, max_tokens, max_wait: Time::millis(wait.into()) },
        // Not a value of the key: tables have nothing to choose there.
        model: Model { workers, precision: curve.precision.replace("f64", "f32") },
        reasons,
    })
}

/// The fewest workers that are as good as the best.
fn fewest(crews: &[Crew]) -> Option<&Crew> {
    let best = crews.iter().map(|crew| crew.point.records_per_second).fold(0.0, f64::max);
    let good = |crew: &&Crew| best * AS_GOOD <= crew.point.records_per_second;
    crews.iter().filter(good).min_by_key(|crew| crew.workers)
}

fn workers(report: &Report, curve: &Curve, crew: Option<&Crew>) -> (Workers, String) {
    let count = crew.map_or(curve.workers, |crew| crew.workers);
    let value = if count == report.cores { Workers::Auto } else { Workers::Count(count) };
    let why = match crew {
        Some(_) => {
            let rate = |crew: &Crew| {
                format!("{}: {} records/s", crew.workers, rate(crew.point.records_per_second))
            };
            let rates: Vec<String> = report.crews.iter().map(rate).collect();
            let auto = if value == Workers::Auto { ", which is one a core" } else { "" };
            format!("The fewest within 5 % of the best{auto}. {}.", rates.join("; "))
        }
        None if report.cores == 1 => "One core.".to_owned(),
        None => "As given; without --workers, 1, half and all cores are compared.".to_owned(),
    };
    (value, why)
}

fn why_records(curve: &Curve, place: usize, measured: &Point) -> String {
    let Some(at) = curve.points.get(place) else { return String::new() };
    let best = curve.best();
    let p99 = |point: &Point| duration(point.p99_ms / 1e3);
    let size = |point: &Point| thousands(point.records.into());
    let faster = |a: &&Point, b: &&Point| a.records_per_second.total_cmp(&b.records_per_second);
    let among = match curve.points.iter().max_by(faster) {
        Some(fastest) if at.records_per_second < best => format!(
            "the smallest batch within 5 % of the best ({} at {}, whose p99 is {})",
            rate(best),
            size(fastest),
            p99(fastest)
        ),
        _ => "the best that was measured".to_owned(),
    };
    let smaller = place.checked_sub(1).and_then(|before| curve.points.get(before));
    // Where noise has turned the two around there is nothing to trade.
    let trade = match smaller.filter(|smaller| smaller.p99_ms < measured.p99_ms) {
        Some(smaller) => {
            let share = rounded(smaller.records_per_second / best * 100.0);
            let (size, p99) = (size(smaller), p99(smaller));
            format!(" For less latency {size}: {share} % of the best rate, p99 {p99}.")
        }
        None => String::new(),
    };
    let end = if smaller.is_some() && place + 1 == curve.points.len() {
        " The rate still rises at this largest size measured: try a larger --max-records, or more --seconds."
    } else {
        ""
    };
    let (rate, p99) = (rate(at.records_per_second), p99(measured));
    format!("{rate} records/s, {among}; p99 {p99} a batch.{trade}{end}")
}

fn why_precision(curves: &[Curve], chosen: &Curve) -> String {
    if chosen.precision == "f64" {
        return "The default: tabular models are computed in f64 whatever it says.".to_owned();
    }
    let close = |curve: &Curve| match curve.agreement {
        Some(agreement) if CLOSE <= agreement => format!("agreement with f32 {agreement:.4}"),
        Some(agreement) => {
            format!("agreement with f32 {agreement:.4}, below {CLOSE}: not recommended")
        }
        None if curve.precision == "f32" => "the reference".to_owned(),
        None => "not compared with f32".to_owned(),
    };
    let other = |curve: &Curve| {
        let times = curve.best() / chosen.best().max(1e-9);
        format!(" {}: {times:.2} × its rate, {}.", curve.precision, close(curve))
    };
    let others = curves.iter().filter(|curve| curve.precision != chosen.precision).map(other);
    let others: String = others.collect();
    let alone = if others.is_empty() {
        " The only one measured: --precision f32,int8 compares."
    } else {
        ""
    };
    format!("{}: {}.{others}{alone}", chosen.precision, close(chosen))
}

/// A rate with three digits at least.
fn rate(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.2}") } else { thousands(rounded(rate)) }
}

/// As YAML, each key under its reason.
impl fmt::Display for Recommendation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { batch, model, reasons } = self;
        let workers = match model.workers {
            Workers::Auto => "auto".to_owned(),
            Workers::Count(count) => count.to_string(),
        };
        let mut section = "";
        for (key, value) in [
            ("batch.max_records", batch.max_records.to_string()),
            ("batch.max_tokens", batch.max_tokens.to_string()),
            ("batch.max_wait", batch.max_wait.to_string()),
            ("model.workers", workers),
            ("model.precision", model.precision.clone()),
        ] {
            let (of, name) = key.split_once('.').unwrap_or(("", key));
            if of != section {
                writeln!(f, "{of}:")?;
                section = of;
            }
            for line in wrap(reasons.get(key).map_or("", String::as_str), 96) {
                writeln!(f, "  # {line}")?;
            }
            writeln!(f, "  {name}: {value}")?;
        }
        Ok(())
    }
}

/// Lines of at most `width` characters, broken between words.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tests::{point, report};
    use crate::config::load::from_yaml;

    fn curve(precision: &str, agreement: Option<f64>, rates: &[f64]) -> Curve {
        let records = (0..).map(|power| 1_u32 << power);
        let points = records.zip(rates).map(|(n, rate)| point(n, *rate, f64::from(n) * 3.0));
        Curve::new(precision.to_owned(), 2, agreement, points.collect())
    }

    /// The recommendation for these rates at 1, 2, 4, … records.
    #[track_caller]
    fn for_rates(rates: &[f64]) -> Recommendation {
        let report = report(vec![curve("f32", None, rates)], Vec::new());
        report.recommendation.unwrap()
    }

    #[test]
    fn the_smallest_batch_within_five_percent_of_the_best() {
        for (rates, records, tokens, wait) in [
            // Rising, then flat: the knee.
            (&[100.0, 190.0, 300.0, 380.0, 398.0, 400.0][..], 8, 256, 20),
            // Falling: the smallest.
            (&[400.0, 300.0, 200.0], 1, 32, 2),
            // Rising to the end: the largest.
            (&[100.0, 200.0, 400.0, 800.0], 8, 256, 20),
            // A hump.
            (&[100.0, 500.0, 450.0, 200.0], 2, 64, 5),
            // One point.
            (&[7.0], 1, 32, 2),
        ] {
            let found = for_rates(rates);
            assert_eq!(found.batch.max_records, records, "{rates:?}");
            assert_eq!(found.batch.max_tokens, tokens, "{rates:?}");
            assert_eq!(found.batch.max_wait, Time::millis(wait), "{rates:?}");
        }
        assert_eq!(report(Vec::new(), Vec::new()).recommendation, None);
        let empty = Curve::new("f32".to_owned(), 2, None, Vec::new());
        assert_eq!(report(vec![empty], Vec::new()).recommendation, None);
    }

    #[test]
    fn each_reason_says_what_was_measured() {
        let why = |rates: &[f64], key: &str| for_rates(rates).reasons[key].clone();
        let knee = why(&[100.0, 190.0, 300.0, 380.0, 398.0, 400.0], "batch.max_records");
        let expected = "380 records/s, the smallest batch within 5 % of the best (400 at 32, whose p99 is 96 ms); \
                        p99 24 ms a batch. For less latency 4: 75 % of the best rate, p99 12 ms.";
        assert_eq!(knee, expected);
        let rising = why(&[100.0, 200.0], "batch.max_records");
        assert!(rising.contains("the best that was measured") && rising.contains("still rises"));
        let falling = why(&[200.0, 100.0], "batch.max_records");
        assert_eq!(falling, "200 records/s, the best that was measured; p99 3 ms a batch.");
        let tokens = why(&[100.0, 200.0], "batch.max_tokens");
        assert!(
            tokens.contains("(20 tokens)") && tokens.contains("after about 9.6 ms"),
            "{tokens}"
        );
    }

    #[test]
    fn the_fewest_workers_that_are_as_good() {
        let crew = |workers, rate| Crew { workers, point: point(4, rate, 8.0) };
        for (rates, expected) in [
            (&[(1, 100.0), (2, 190.0)][..], Workers::Auto),
            (&[(1, 100.0), (2, 104.0)], Workers::Count(1)),
            (&[(1, 120.0), (2, 90.0)], Workers::Count(1)),
        ] {
            let crews = rates.iter().map(|(workers, rate)| crew(*workers, *rate)).collect();
            let found = report(vec![curve("f32", None, &[100.0])], crews).recommendation.unwrap();
            assert_eq!(found.model.workers, expected, "{rates:?}");
            let why = &found.reasons["model.workers"];
            assert!(why.contains("1: ") && why.contains("2: "), "{why}");
        }
        let mut given = curve("f32", None, &[100.0]);
        given.workers = 1;
        let found = report(vec![given], Vec::new()).recommendation.unwrap();
        assert_eq!(found.model.workers, Workers::Count(1));
    }

    #[test]
    fn a_faster_precision_only_if_it_is_close() {
        let exact = || curve("f32", None, &[100.0]);
        for (agreement, expected, part) in [
            (
                Some(0.999),
                "int8",
                "int8: agreement with f32 0.9990. f32: 0.38 × its rate, the reference.",
            ),
            (
                Some(0.98),
                "f32",
                "int8: 2.60 × its rate, agreement with f32 0.9800, below 0.995: not",
            ),
        ] {
            let curves = vec![exact(), curve("int8", agreement, &[260.0])];
            let found = report(curves, Vec::new()).recommendation.unwrap();
            assert_eq!(found.model.precision, expected);
            let why = &found.reasons["model.precision"];
            assert!(why.contains(part), "{part} in {why}");
        }
        let alone = report(vec![curve("int8", None, &[9.0])], Vec::new()).recommendation.unwrap();
        assert_eq!(
            alone.reasons["model.precision"],
            "int8: not compared with f32. The only one measured: --precision f32,int8 compares."
        );
    }

    #[test]
    fn a_table_has_no_precision_to_choose() {
        let found = report(vec![curve("f64", None, &[9.0])], Vec::new()).recommendation.unwrap();
        assert_eq!(found.model.precision, "f32");
        assert!(found.reasons["model.precision"].contains("f64"));
    }

    #[test]
    fn the_loader_takes_what_is_recommended() {
        let found = for_rates(&[100.0, 190.0, 300.0, 380.0, 398.0, 400.0]);
        let yaml = found.to_string();
        assert!(yaml.lines().all(|line| line.chars().count() <= 100), "{yaml}");
        let rest = "kafka: { group: g, common: { bootstrap.servers: h } }\ninput: { topics: [a] }\n\
                    output: { topic: b }\n";
        let model = yaml.replace("model:\n", "model:\n  uri: somewhere\n");
        let config = from_yaml(&format!("{rest}{model}")).unwrap();
        assert_eq!(config.batch.max_records, found.batch.max_records);
        assert_eq!(config.batch.max_tokens, found.batch.max_tokens);
        assert_eq!(config.batch.max_wait, found.batch.max_wait);
        assert_eq!(config.model.workers, found.model.workers);
    }
}

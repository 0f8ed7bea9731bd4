//! Makes OTLP's data points of the text that `/metrics` gives, so that a push and a scrape say the same.
//!
//! Names are those of `/metrics`, for alerts and dashboards to hold for both. Counts have no unit: with `1` collectors call
//! a gauge `…_ratio` where they write it for Prometheus.

use std::collections::BTreeMap;

use metrics::Unit;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::{attribute, scope};
use crate::telemetry::metrics::{ALL, Kind, Metric as Declared};

/// From when to when counters have counted, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) now: u64,
}

/// The labels of a series, in their order.
type Labels = Vec<(String, String)>;

/// All that `text` says.
pub(super) fn request(text: &str, resource: Resource, span: Span) -> ExportMetricsServiceRequest {
    let mut series: BTreeMap<&str, Vec<(Labels, f64)>> = BTreeMap::new();
    for (name, labels, value) in text.lines().filter_map(line) {
        series.entry(name).or_default().push((labels, value));
    }
    let metrics = ALL.iter().filter_map(|declared| {
        let data = data(declared, &series, span)?;
        Some(Metric {
            name: declared.name.to_owned(),
            description: declared.help.to_owned(),
            unit: unit(declared.unit).to_owned(),
            metadata: Vec::new(),
            data: Some(data),
        })
    });
    let scope_metrics = vec![ScopeMetrics {
        scope: Some(scope("tidemill")),
        metrics: metrics.collect(),
        schema_url: String::new(),
    }];
    let resource = Some(resource);
    let all = ResourceMetrics { resource, scope_metrics, schema_url: String::new() };
    ExportMetricsServiceRequest { resource_metrics: vec![all] }
}

fn unit(unit: Unit) -> &'static str {
    if unit == Unit::Seconds {
        "s"
    } else if unit == Unit::Bytes {
        "By"
    } else {
        ""
    }
}

/// `None`: it has no series now.
fn data(
    declared: &Declared,
    series: &BTreeMap<&str, Vec<(Labels, f64)>>,
    span: Span,
) -> Option<Data> {
    let temporality = AggregationTemporality::Cumulative.into();
    if declared.kind == Kind::Histogram {
        let of = |part: &str| series.get(&*format!("{}_{part}", declared.name));
        let data_points = histograms(of("bucket")?, of("sum")?, span);
        return Some(Data::Histogram(Histogram {
            data_points,
            aggregation_temporality: temporality,
        }));
    }
    let each = series.get(declared.name)?.iter();
    if declared.kind == Kind::Gauge {
        let span = Span { start: 0, ..span };
        let data_points = each.map(|(labels, value)| {
            number(labels, number_data_point::Value::AsDouble(*value), span)
        });
        return Some(Data::Gauge(Gauge { data_points: data_points.collect() }));
    }
    // Seconds have fractions; what is counted is whole.
    let whole = declared.unit != Unit::Seconds;
    let data_points = each.map(|(labels, value)| {
        let value = match integer(*value) {
            Some(count) if whole => number_data_point::Value::AsInt(count),
            _ => number_data_point::Value::AsDouble(*value),
        };
        number(labels, value, span)
    });
    Some(Data::Sum(Sum {
        data_points: data_points.collect(),
        aggregation_temporality: temporality,
        is_monotonic: true,
    }))
}

fn number(labels: &Labels, value: number_data_point::Value, span: Span) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(labels),
        start_time_unix_nano: span.start,
        time_unix_nano: span.now,
        exemplars: Vec::new(),
        flags: 0,
        value: Some(value),
    }
}

/// A point for each set of labels; its buckets follow each other in the text, each with those before it counted in.
fn histograms(
    buckets: &[(Labels, f64)],
    sums: &[(Labels, f64)],
    span: Span,
) -> Vec<HistogramDataPoint> {
    let points = sums.iter().map(|(labels, sum)| {
        let (mut explicit_bounds, mut bucket_counts, mut count) = (Vec::new(), Vec::new(), 0);
        for (with_bound, below) in buckets {
            let Some((("le", bound), rest)) =
                with_bound.split_last().map(|((name, value), rest)| ((name.as_str(), value), rest))
            else {
                continue;
            };
            if rest != labels.as_slice() {
                continue;
            }
            let below =
                integer(*below).and_then(|below| u64::try_from(below).ok()).unwrap_or(count);
            bucket_counts.push(below.saturating_sub(count));
            count = below;
            // The last has no bound: `+Inf`.
            explicit_bounds.extend(bound.parse::<f64>().ok().filter(|bound| bound.is_finite()));
        }
        HistogramDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: span.start,
            time_unix_nano: span.now,
            count,
            sum: Some(*sum),
            bucket_counts,
            explicit_bounds,
            ..HistogramDataPoint::default()
        }
    });
    points.collect()
}

fn attributes(labels: &Labels) -> Vec<KeyValue> {
    let text = |value: &String| any_value::Value::StringValue(value.clone());
    labels.iter().map(|(name, value)| attribute(name, text(value))).collect()
}

/// A whole number that a float holds exactly.
fn integer(value: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "below 2^53 nothing is cut off")]
    let whole = (value.fract() == 0.0 && value.abs() < 9e15).then_some(value as i64);
    whole
}

/// A series: its name, labels and value. `None` for what is none, and for what cannot be read.
fn line(line: &str) -> Option<(&str, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if name.is_empty() || name.starts_with('#') {
        return None;
    }
    while let Some(label) = rest.strip_prefix(['{', ',']).filter(|label| !label.starts_with('}')) {
        let (label, quoted) = label.split_once("=\"")?;
        let (value, behind) = unquoted(quoted)?;
        labels.push((label.to_owned(), value));
        rest = behind;
    }
    let value = rest.trim_start_matches(['{', ',', '}']).trim();
    Some((name, labels, value.parse().ok()?))
}

/// What stands before the quote that ends it, and what behind.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '"' => return Some((value, characters.as_str())),
            '\\' => match characters.next()? {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::{ModelId, Partition, Reason, Version};
    use crate::telemetry::metrics;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for (text, expect) in [
            ("a 1", Some(("a", vec![], 1.0))),
            ("a{b=\"c\"} -2.5e3", Some(("a", vec![label("b", "c")], -2500.0))),
            (
                r#"a{b="x\"},\\\n{=",le="+Inf"} 7"#,
                Some(("a", vec![label("b", "x\"},\\\n{="), label("le", "+Inf")], 7.0)),
            ),
            ("# TYPE a counter", None),
            ("", None),
            ("a{b=\"c} 1", None),
            ("a{b=\"c\"} many", None),
        ] {
            assert_eq!(line(text), expect, "{text}");
        }
    }

    /// Every series of a scrape is in the push, with its number: counters, gauges, and each bucket of a histogram.
    #[test]
    fn a_push_says_what_a_scrape_says() {
        let recorder = metrics::recorder().unwrap();
        let handle = recorder.handle();
        let metrics = metrics::register(recorder);
        let id = ModelId { name: "a\"b\\c\nd".into(), version: Version(1), digest: "d".into() };
        metrics.serving(&id, 4096);
        let partition = Partition { topic: 0, number: 3 };
        metrics.assigned("in", partition, crate::telemetry::otlp::now());
        metrics.lag("in", partition, &crate::status::history::Behind::readable(7));
        for records in [1, 3, 3, 300, 100_000] {
            metrics.batch_closed(Reason::Time, records, 100, 40);
        }
        metrics.transaction(crate::log::How::ALL[0], Duration::from_millis(250));
        let text = handle.render() + &metrics.render_own();
        let all = request(&text, Resource::default(), Span { start: 1, now: 2 });
        let sent = &all.resource_metrics[0].scope_metrics[0].metrics;
        let points = |metric: &Metric| told(&metric.name, metric.data.as_ref().unwrap());
        let mut back: Vec<String> = sent
            .iter()
            .flat_map(points)
            .map(|(labels, number)| format!("{labels} {number}"))
            .collect();
        let mut expect: Vec<String> = text
            .lines()
            .filter_map(line)
            .map(|(name, labels, value)| format!("{name}{labels:?} {value}"))
            .collect();
        expect.sort();
        back.sort();
        assert_eq!(back, expect);
    }

    /// A metric's points as series again.
    fn told(name: &str, data: &Data) -> Vec<(String, f64)> {
        let labels = |attributes: &[KeyValue]| -> Labels {
            let text = |one: &KeyValue| match one.value.clone().unwrap().value {
                Some(any_value::Value::StringValue(text)) => text,
                _ => panic!("{one:?}"),
            };
            attributes.iter().map(|one| (one.key.clone(), text(one))).collect()
        };
        let points = match data {
            Data::Gauge(gauge) => &gauge.data_points,
            Data::Sum(sum) => {
                assert!(sum.is_monotonic && sum.aggregation_temporality == 2, "{name}");
                &sum.data_points
            }
            Data::Histogram(histogram) => {
                let mut all = Vec::new();
                for point in &histogram.data_points {
                    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
                    let own = labels(&point.attributes);
                    let bounds = point.explicit_bounds.iter().map(f64::to_string);
                    let mut below = 0;
                    for (bound, count) in
                        bounds.chain(["+Inf".to_owned()]).zip(&point.bucket_counts)
                    {
                        below += count;
                        let mut own = own.clone();
                        own.push(("le".to_owned(), bound));
                        all.push((format!("{name}_bucket{own:?}"), float(below)));
                    }
                    all.push((format!("{name}_count{own:?}"), float(point.count)));
                    all.push((format!("{name}_sum{own:?}"), point.sum.unwrap()));
                }
                return all;
            }
            Data::ExponentialHistogram(_) | Data::Summary(_) => panic!("{name}: {data:?}"),
        };
        let each = points.iter().map(|point| {
            let value = match point.value.unwrap() {
                number_data_point::Value::AsInt(count) => float(count.try_into().unwrap()),
                number_data_point::Value::AsDouble(value) => value,
            };
            (format!("{name}{:?}", labels(&point.attributes)), value)
        });
        each.collect()
    }

    fn float(count: u64) -> f64 {
        u32::try_from(count).unwrap().into()
    }
}

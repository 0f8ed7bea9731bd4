//! The curves as an SVG: rate, latency and memory over the size of a batch.
//!
//! Three panels side by side over the same sizes, each size twice the one before. Each line ends at its name, so
//! there is no legend. The ground is transparent and the text grey, lighter where the reader prefers dark.

use std::fmt::Write as _;

use super::recommend::fastest;
use super::statistics::rounded;
use super::{Curve, Point, Report};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 340.0;

/// Edges of the panels' plots, from the top.
const TOP: f64 = 98.0;
const BOTTOM: f64 = 284.0;

/// The first plot's left edge, a plot's width, and from one plot's left edge to the next one's.
const LEFT: f64 = 56.0;
const PLOT: f64 = 212.0;
const STEP: f64 = 316.0;

/// Seen on white and on black; told apart without red and green.
const COLOURS: [&str; 4] = ["#2f81d6", "#d9822b", "#8a63d2", "#2a9d8f"];

const STYLE: &str = "text{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;\
font-size:12px;fill:#6e7781}.title{font-size:16px;font-weight:600}\
.panel{font-size:13px;font-weight:600}.name{font-weight:600}.grid{stroke:#8b949e;stroke-opacity:.28}\
@media(prefers-color-scheme:dark){text{fill:#9aa4ae}.title{fill:#d0d7de}}";

/// How values become heights.
#[derive(Clone, Copy, PartialEq)]
enum Scale {
    /// From 0.
    Linear,
    /// Whole decades.
    Decades,
}

/// One of the three pictures.
struct Panel {
    title: &'static str,
    scale: Scale,
    value: fn(&Point) -> Option<f64>,
}

const PANELS: [Panel; 3] = [
    Panel {
        title: "records/s",
        scale: Scale::Linear,
        value: |point| Some(point.records_per_second),
    },
    Panel { title: "p99 of a batch, ms", scale: Scale::Decades, value: |point| Some(point.p99_ms) },
    Panel {
        title: "resident memory, MiB",
        scale: Scale::Linear,
        value: |point| point.resident_mib,
    },
];

/// The picture of a report.
pub fn svg(report: &Report) -> String {
    let place = report.place();
    let title = format!("{}: rate, latency and memory by batch size", report.model);
    let mut drawing = Drawing(String::new());
    drawing.line(&format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" role=\"img\"><title>{}</title><style>{STYLE}</style>",
        escape(&title)
    ));
    drawing.text((16.0, 28.0), "start", "title", &report.model);
    let mut about = format!("{}, {place}", report.architecture);
    if report.unit == "token" {
        about.push_str(", ");
        about.push_str(&rounded(report.tokens_a_record).to_string());
        about.push_str(" tokens a record");
    }
    drawing.text((16.0, 48.0), "start", "", &about);
    let chosen = report.recommendation.as_ref().zip(fastest(&report.curves));
    let ring =
        chosen.map(|(settings, curve)| (curve.precision.as_str(), settings.batch.max_records));
    if let Some((precision, records)) = ring {
        let text = format!("○ recommended: {} records, {precision}", short(records.into()));
        drawing.text((WIDTH - 16.0, 28.0), "end", "", &text);
    }
    let mut left = LEFT;
    for panel in &PANELS {
        drawing.panel(panel, left, &report.curves, ring);
        left += STEP;
    }
    drawing.line("</svg>");
    drawing.0
}

/// Where a panel's values lie.
struct Axes {
    left: f64,
    /// Of the largest size.
    doublings: f64,
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axes {
    fn x(&self, records: f64) -> f64 {
        let share = if self.doublings < 1.0 { 0.5 } else { records.log2() / self.doublings };
        self.left + share * PLOT
    }

    fn y(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Decades => (value / self.low).log10() / (self.high / self.low).log10(),
        };
        BOTTOM - share * (BOTTOM - TOP)
    }
}

/// Round values over `0..=most` or over the decades of `values`: the first and the last are the axis's ends.
fn ticks(scale: Scale, values: &[f64]) -> Vec<f64> {
    let most = values.iter().copied().fold(0.0, f64::max).max(1e-6);
    let (first, step): (f64, fn(f64, f64) -> f64);
    let unit = match scale {
        Scale::Linear => {
            let rough = most / 4.0;
            let decade = f64::powf(10.0, rough.log10().floor());
            (first, step) = (0.0, |tick, unit| tick + unit);
            let steps = [1.0, 2.0, 2.5, 5.0, 10.0];
            decade * steps.into_iter().find(|step| rough <= decade * step).unwrap_or(10.0)
        }
        Scale::Decades => {
            let least = values.iter().copied().fold(most, f64::min).max(1e-6);
            (first, step) = (f64::powf(10.0, least.log10().floor()), |tick, unit| tick * unit);
            10.0
        }
    };
    let mut ticks = vec![first];
    let mut last = first;
    // Twelve decades are more than a clock tells apart.
    while ticks.len() < 2 || (last < most * 0.999_999 && ticks.len() < 14) {
        last = step(last, unit);
        ticks.push(last);
    }
    ticks
}

/// The text of an SVG as it grows.
struct Drawing(String);

impl Drawing {
    fn line(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: &str, class: &str, text: &str) {
        let text = escape(text);
        self.line(&format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{text}</text>"
        ));
    }

    fn grid(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.line(&format!(
            "<line class=\"grid\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ));
    }

    fn panel(&mut self, panel: &Panel, left: f64, curves: &[Curve], ring: Option<(&str, u32)>) {
        self.text((left - 40.0, TOP - 16.0), "start", "panel", panel.title);
        let known = |point: &Point| (panel.value)(point).filter(|value| value.is_finite());
        let points = || curves.iter().flat_map(|curve| &curve.points);
        let values: Vec<f64> = points().filter_map(known).collect();
        if values.is_empty() {
            let middle = (left + PLOT / 2.0, f64::midpoint(TOP, BOTTOM));
            self.text(middle, "middle", "", "not known here");
            return;
        }
        let ticks = ticks(panel.scale, &values);
        let most = points().map(|point| point.records).max().unwrap_or(1);
        let axes = Axes {
            left,
            doublings: f64::from(most).log2(),
            scale: panel.scale,
            low: ticks.first().copied().unwrap_or(0.0),
            high: ticks.last().copied().unwrap_or(1.0),
        };
        for tick in &ticks {
            let y = axes.y(*tick);
            self.grid((left, y), (left + PLOT, y));
            self.text((left - 6.0, y + 4.0), "end", "", &short(*tick));
        }
        // Every size is a point; every second or third is named.
        let stride = most.ilog2().div_ceil(6).max(1);
        for power in (0..=most.ilog2()).step_by(usize::try_from(stride).unwrap_or(1)) {
            let size = f64::powf(2.0, power.into());
            let x = axes.x(size);
            self.grid((x, BOTTOM), (x, BOTTOM + 4.0));
            self.text((x, BOTTOM + 19.0), "middle", "", &short(size));
        }
        self.text((left + PLOT / 2.0, BOTTOM + 40.0), "middle", "", "records a batch");
        self.lines(&axes, curves, known, ring);
    }

    /// The lines, their points, and their names at their ends, moved apart where they would touch.
    fn lines(
        &mut self,
        axes: &Axes,
        curves: &[Curve],
        known: impl Fn(&Point) -> Option<f64>,
        ring: Option<(&str, u32)>,
    ) {
        let mut names: Vec<(f64, f64, &str, &str)> = Vec::new();
        for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
            let place = |point: &Point| {
                known(point).map(|value| (axes.x(point.records.into()), axes.y(value)))
            };
            let places: Vec<(f64, f64)> = curve.points.iter().filter_map(place).collect();
            let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            self.line(&format!(
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
                 stroke-linejoin=\"round\" points=\"{}\"/>",
                path.join(" ")
            ));
            for (x, y) in &places {
                let dot =
                    format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\"/>");
                self.line(&dot);
            }
            let ringed = |point: &&Point| ring == Some((&curve.precision, point.records));
            if let Some((x, y)) = curve.points.iter().find(ringed).and_then(place) {
                self.line(&format!(
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"6\" fill=\"none\" stroke=\"{colour}\" \
                     stroke-width=\"1.5\"/>"
                ));
            }
            if let Some((x, y)) = places.last() {
                names.push((*x, *y, &curve.precision, colour));
            }
        }
        names.sort_by(|a, b| a.1.total_cmp(&b.1));
        let mut above = f64::NEG_INFINITY;
        for (x, y, name, colour) in names {
            let y = y.max(above + 14.0);
            above = y;
            let (x, y, name) = (x + 8.0, y + 4.0, escape(name));
            self.line(&format!(
                "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"name\" style=\"fill:{colour}\">{name}</text>"
            ));
        }
    }
}

/// A value on an axis: `0.01`, `250`, `1,500`, `20k`, `1.5M`.
fn short(value: f64) -> String {
    let digits = |value: f64| {
        let text = format!("{value:.6}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let mut text = String::new();
    let written = match value {
        value if 1e6 <= value => write!(text, "{}M", digits(value / 1e6)),
        value if 1e4 <= value => write!(text, "{}k", digits(value / 1e3)),
        value if 1e3 <= value => {
            let digits = digits(value);
            write!(text, "{},{}", digits.get(..1).unwrap_or(""), digits.get(1..).unwrap_or(""))
        }
        value => write!(text, "{}", digits(value)),
    };
    written.unwrap_or_default(); // a String takes every write
    text
}

/// Text as XML takes it: escaped, without the control characters that it forbids.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tests::{point, report};

    /// Elements that open and close in order, attributes in quotes, no `<` or `&` that means nothing.
    #[track_caller]
    fn well_formed(xml: &str) {
        let mut open: Vec<&str> = Vec::new();
        for (number, piece) in xml.split('<').enumerate() {
            let (tag, text) =
                if number == 0 { ("", piece) } else { piece.split_once('>').unwrap() };
            assert!(!text.contains('>'), "{piece}");
            let attributes = tag.split_once(' ').map_or("", |(_, attributes)| attributes);
            for entity in text.split('&').skip(1).chain(attributes.split('&').skip(1)) {
                let name = entity.split_once(';').unwrap().0;
                assert!(["amp", "lt", "gt", "quot", "apos"].contains(&name), "{entity}");
            }
            assert_eq!(attributes.matches('"').count() % 2, 0, "{tag}");
            let name = tag.split([' ', '/']).next().unwrap();
            match tag.strip_prefix('/') {
                Some(closed) => assert_eq!(open.pop(), Some(closed)),
                None if tag.ends_with('/') || tag.is_empty() => (),
                None => open.push(name),
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    fn curve(precision: &str, sizes: u32, rate: f64) -> Curve {
        let points = (0..sizes).map(|n| point(1 << n, rate * f64::from(n + 1), 0.5 * rate));
        Curve::new(precision.to_owned(), 2, None, points.collect())
    }

    #[test]
    fn every_report_is_a_drawing() {
        for curves in [
            vec![],
            vec![curve("f32", 1, 100.0)],
            vec![curve("f32", 11, 40.0), curve("int8", 9, 1_000_000.0)],
        ] {
            let mut report = report(curves, Vec::new());
            report.model = "<a & \"b\">\u{1}".to_owned();
            let lines = report.curves.len();
            let drawn = svg(&report);
            well_formed(&drawn);
            assert!(drawn.contains("&lt;a &amp; &quot;b&quot;&gt;\u{fffd}</text>"), "{drawn}");
            assert_eq!(drawn.matches("<polyline").count(), 3 * lines);
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        }
    }

    #[test]
    fn memory_that_is_not_known_is_not_drawn() {
        let mut report = report(vec![curve("f32", 3, 40.0)], Vec::new());
        report.curves[0].points.iter_mut().for_each(|point| point.resident_mib = None);
        let drawn = svg(&report);
        assert_eq!(drawn.matches("<polyline").count(), 2);
        assert!(drawn.contains("not known here"));
    }

    #[test]
    fn ticks_are_round_and_hold_every_value() {
        for (scale, values, expected) in [
            (Scale::Linear, &[412.0][..], &["0", "200", "400", "600"][..]),
            (Scale::Linear, &[7.0, 100.0], &["0", "25", "50", "75", "100"]),
            (Scale::Linear, &[5_800_000.0], &["0", "2M", "4M", "6M"]),
            (Scale::Decades, &[3.0, 250.0], &["1", "10", "100", "1,000"]),
            (Scale::Decades, &[0.004], &["0.001", "0.01"]),
            (Scale::Decades, &[10.0], &["10", "100"]),
        ] {
            let found: Vec<String> = ticks(scale, values).into_iter().map(short).collect();
            assert_eq!(found, expected, "{values:?}");
        }
    }
}

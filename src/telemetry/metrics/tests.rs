use super::*;
use crate::record::Version;

#[test]
fn a_scrape_shows_every_metric_before_the_first_event() {
    let recorder = recorder().unwrap();
    let handle = recorder.handle();
    let metrics = register(recorder);
    for (name, line) in [
        (RECORDS, "{outcome=\"dead_letter\"} 0"),
        (BATCHES, "{reason=\"swap\"} 0"),
        (DEAD_LETTERS, "{class=\"oversized\"} 0"),
        (TRANSACTIONS, "{outcome=\"resolved\"} 0"),
    ] {
        let scrape = handle.render();
        assert!(scrape.contains(&format!("{name}{line}")), "{name}{line} in\n{scrape}");
    }
    metrics.batch_closed(Reason::Time, 3, 100, 40);
    metrics.gate([("build", Duration::from_secs(2))].into_iter());
    metrics.read();
    let scrape = handle.render();
    assert!(scrape.contains("tidemill_batches_total{reason=\"time\"} 1"), "{scrape}");
    assert!(scrape.contains("tidemill_batch_records_bucket{le=\"4\"} 1"), "{scrape}");
    assert!(scrape.contains("tidemill_gate_seconds_count{step=\"build\"} 1"), "{scrape}");
    assert!(!scrape.contains("resident_memory_bytes 0\n"), "{scrape}");
}

/// What is scraped is what is declared: each once, with its kind and its labels.
#[test]
fn every_metric_is_scraped_as_it_is_declared() {
    let recorder = recorder().unwrap();
    let handle = recorder.handle();
    let metrics = register(recorder);
    let id = ModelId { name: "m".into(), version: Version(1), digest: "d".into() };
    metrics.serving(&id, 1);
    let partition = Partition { topic: 0, number: 0 };
    metrics.assigned("in", partition, now());
    metrics.lag("in", partition, &Behind::readable(7));
    metrics.batch_closed(Reason::Time, 3, 100, 40);
    metrics.loaded(Duration::from_secs(1));
    metrics.cleaned("age", "missing_null").increment(1);
    metrics.gate([("build", Duration::from_secs(1))].into_iter());
    metrics.record_ages([1.0].into_iter());
    let second = Duration::from_secs(1);
    metrics.waited(second);
    let scrape = handle.render() + &metrics.render_own();
    let types: BTreeMap<&str, &str> =
        scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let declared: BTreeMap<&str, &str> =
        ALL.iter().map(|metric| (metric.name, metric.kind.name())).collect();
    assert_eq!(types, declared);
    assert_eq!(declared.len(), ALL.len());
    for metric in ALL {
        let part = if metric.kind == Kind::Histogram { "_sum" } else { "" };
        let name = format!("{}{part}", metric.name);
        let of = |line: &str| Some(line.strip_prefix(&name)?.to_owned());
        let series = scrape.lines().filter_map(of).find(|line| line.starts_with(['{', ' ']));
        let series = series.unwrap_or_else(|| panic!("{name} is not in\n{scrape}"));
        let labels = series.strip_prefix('{').and_then(|labels| labels.split_once('}'));
        let labels = labels.map_or("", |(labels, _)| labels);
        let names = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0));
        assert_eq!(names.collect::<Vec<_>>(), metric.labels, "{name}");
    }
}

#[test]
fn the_lag_of_a_partition_that_was_given_up_is_not_told() {
    let metrics = register(recorder().unwrap());
    let partition = |number| Partition { topic: 0, number };
    for number in [0, 1] {
        metrics.assigned("in", partition(number), now());
        metrics.lag("in", partition(number), &Behind::readable(0));
    }
    metrics.revoked("in", partition(0));
    let lags = metrics.render_own();
    assert!(lags.contains("tidemill_consumer_lag_records{topic=\"in\",partition=\"1\"} 0\n"));
    assert!(!lags.contains("partition=\"0\""), "{lags}");
}

#[test]
fn an_outage_grows_and_ends() {
    let recorder = recorder().unwrap();
    let handle = recorder.handle();
    let metrics = register(recorder);
    let said = || {
        metrics.read();
        let scrape = handle.render();
        let of = |line: &str| line.strip_prefix("tidemill_kafka_outage_seconds ")?.parse().ok();
        scrape.lines().find_map(of).unwrap()
    };
    assert!((0.0..f64::MIN_POSITIVE).contains(&said()));
    metrics.reachable(false);
    let first: f64 = said();
    metrics.reachable(false);
    assert!(0.0 < first && first < said(), "it is counted from the first word on");
    metrics.reachable(true);
    assert!((0.0..f64::MIN_POSITIVE).contains(&said()));
}

/// A number from 0 to 1, the same in each run.
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    f64::from(u32::try_from(*state >> 32).unwrap()) / f64::from(u32::MAX)
}

/// The 99 % quantile as Prometheus reads it off the buckets of a stage.
fn quantile(scrape: &str, stage: &str) -> f64 {
    let prefix = format!("tidemill_stage_duration_seconds_bucket{{stage=\"{stage}\",le=\"");
    let bucket = |line: &str| {
        let (bound, count) = line.strip_prefix(&prefix)?.split_once("\"} ")?;
        Some((bound.parse().unwrap(), count.parse().unwrap()))
    };
    let buckets: Vec<(f64, f64)> = scrape.lines().filter_map(bucket).collect();
    let rank = 0.99 * buckets.last().unwrap().1;
    let place = buckets.iter().position(|(_, count)| rank <= *count).unwrap();
    let (below, before) = if place == 0 { (0.0, 0.0) } else { buckets[place - 1] };
    let (bound, count) = buckets[place];
    below + (bound - below) * (rank - before) / (count - before)
}

/// Stages as they are on small and large models: all calls alike, wide tails, two kinds of batches.
#[test]
fn a_quantile_of_a_stage_is_within_a_tenth() {
    let normal = |state: &mut u64| {
        let (a, b) = (uniform(state).max(1e-12), uniform(state));
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    };
    let mut state = 7;
    for median in [5e-5, 3.1e-4, 0.0023, 0.0107, 0.0499, 0.31, 2.7] {
        for (spread, second) in [(0.0, 1.0), (0.02, 1.0), (0.1, 1.0), (0.9, 1.0), (0.05, 7.0)] {
            let recorder = recorder().unwrap();
            let handle = recorder.handle();
            let metrics = register(recorder);
            let times = (0..5_000).map(|call| {
                let kind = if call % 20 == 0 { second } else { 1.0 };
                median * kind * (spread * normal(&mut state)).exp()
            });
            let mut times: Vec<f64> = times.collect();
            times.iter().for_each(|time| metrics.waited(Duration::from_secs_f64(*time)));
            times.sort_by(f64::total_cmp);
            let (exact, read) = (times[4_949], quantile(&handle.render(), "wait"));
            let error = (read / exact - 1.0).abs();
            assert!(error < 0.1, "{median} {spread} {second}: {read} for {exact}");
        }
    }
}

//! A replica from nothing to its first answer, by parts: the process until the model is loaded, the group until its partitions
//! are assigned, ready, the first record committed. What comes before that is Kubernetes' and KEDA's own.

use std::fs;
use std::time::{Duration, Instant};

use crate::world::{Replica, wait_for};
use crate::{mebibytes, median, scrape, start};

const ROUNDS: usize = 5;

pub(crate) fn run() {
    let world = start();
    let mut parts: [Vec<f64>; 4] = Default::default();
    let mut idle = Vec::new();
    for round in 0..ROUNDS {
        // One record waits, as for a scaler that has seen it.
        world.produce(0, &["{\"x\":1}"]);
        let address = format!("127.0.0.1:{}", 18_120 + round);
        let config = world.config(&format!("zero-{round}"), "");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("127.0.0.1:0", &address)).unwrap();
        let begun = Instant::now();
        let replica = Replica::start(&config, &[]);
        let mut seen = [None; 4];
        wait_for("the first answer", || {
            let log = fs::read_to_string(config.with_extension("log")).unwrap_or_default();
            let metrics = scrape(&address).unwrap_or_default();
            let there = [
                log.contains("model loaded"),
                log.contains("partitions assigned"),
                metrics.lines().any(|line| line == "tidemill_assigned_partitions 4"),
                metrics
                    .lines()
                    .any(|line| line == "tidemill_records_total{outcome=\"prediction\"} 1"),
            ];
            for (seen, there) in seen.iter_mut().zip(there) {
                if there && seen.is_none() {
                    *seen = Some(begun.elapsed().as_secs_f64());
                }
            }
            seen.iter().all(Option::is_some).then_some(())
        });
        for (all, one) in parts.iter_mut().zip(seen) {
            all.push(one.unwrap());
        }
        std::thread::sleep(Duration::from_secs(2));
        idle.push(mebibytes(replica.child.id(), "VmRSS:").unwrap());
        replica.signal("USR1");
        assert_eq!(replica.ended().0, Some(0));
    }
    let [load, join, ready, answer] = parts.map(median);
    println!(
        "from_zero: model loaded after {load:.2} s, partitions assigned {join:.2} s, read {ready:.2} s, the first record \
         committed {answer:.2} s; idle {:.0} MiB; medians of {ROUNDS}",
        median(idle)
    );
}

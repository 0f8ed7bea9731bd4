//! What came of each fault, as rows of a table.

use std::collections::BTreeSet;
use std::ops::Range;
use std::process::ExitStatus;
use std::time::Duration;

/// One round: a fault, and what was produced until the next.
pub(super) struct Round {
    pub(super) fault: String,
    /// From the fault until every partition had an outcome for a record that was produced after it.
    pub(super) recovery: Duration,
    /// The records that were produced before, during and after the fault, until the next round.
    pub(super) records: Range<usize>,
    /// How replicas ended by themselves, before they were started again.
    pub(super) ended: Vec<ExitStatus>,
}

/// A table in Markdown, a row for each fault. `lost` and `doubled` are numbers of records.
pub(super) fn table(rounds: &[Round], lost: &BTreeSet<usize>, doubled: &BTreeSet<usize>) -> String {
    let mut names: Vec<&str> = Vec::new();
    for round in rounds {
        if !names.contains(&round.fault.as_str()) {
            names.push(&round.fault);
        }
    }
    let mut text =
        "| fault | rounds | median s | worst s | lost | duplicates | processes ended |\n\
                    |---|---:|---:|---:|---:|---:|---|\n"
            .to_owned();
    for name in names {
        let rounds: Vec<&Round> = rounds.iter().filter(|round| round.fault == name).collect();
        let mut times: Vec<f64> = rounds.iter().map(|r| r.recovery.as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        let among = |numbers: &BTreeSet<usize>| -> usize {
            rounds.iter().map(|round| numbers.range(round.records.clone()).count()).sum()
        };
        let ended: Vec<String> =
            rounds.iter().flat_map(|round| &round.ended).map(ToString::to_string).collect();
        let row = format!(
            "| {name} | {} | {:.1} | {:.1} | {} | {} | {} |\n",
            times.len(),
            times[times.len() / 2],
            times[times.len() - 1],
            among(lost),
            among(doubled),
            if ended.is_empty() { "–".to_owned() } else { ended.join(", ") },
        );
        text.push_str(&row);
    }
    text
}

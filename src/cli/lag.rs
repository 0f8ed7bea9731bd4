//! `tidemill lag`: how far behind the group is, from what it has committed. No service has to run, and no group is joined.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::cluster::{Cluster, connection};
use super::{ConfigFile, terminal};
use crate::config::Config;
use crate::failure::{Exit, Failure, chain};
use crate::printable::thousands;
use crate::sqlite::Store;

/// Arguments of `tidemill lag`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    topic: String,
    partition: i32,
    /// The offset that is read next; nothing where the group has committed none.
    committed: Option<i64>,
    end: i64,
    lag: i64,
    /// Those of them that cannot be read: a producer's transaction that is not ended holds them back.
    held_back: i64,
    /// Where it begins, as far as that is so.
    held_back_at: Option<i64>,
}

/// Prints a line for each partition, and the sum. 75 where the cluster does not answer.
pub fn run(args: &Args) -> ExitCode {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let rows = match config.embedded() {
        Some(log) => embedded(log, &config),
        None => kafka(&config),
    };
    let print = |rows: Vec<Row>| {
        if args.json {
            let sum = |of: fn(&Row) -> i64| rows.iter().map(of).sum::<i64>();
            let (all, held) = (sum(|row| row.lag), sum(|row| row.held_back));
            let group = &config.kafka.group;
            let told = serde_json::json!({ "group": group, "lag": all, "held_back": held, "partitions": rows });
            terminal::line(told)
        } else {
            terminal::say(table(&rows, &connection(&config)))
        }
    };
    terminal::end(rows.and_then(print))
}

fn kafka(config: &Config) -> Result<Vec<Row>, Failure> {
    let cluster = Cluster::new(config, "lag")?;
    let names: Vec<&str> = config.input.topics.iter().map(String::as_str).collect();
    let topics = cluster.topics(&names)?;
    let mut rows = Vec::new();
    for name in names {
        let Some(topic) = topics.get(name) else {
            let message = format!(
                "look at input topic {name}: it is not there, or this user may not describe it"
            );
            return Err(Failure { message, exit: Exit::Config });
        };
        let count = topic.partitions;
        // In this order: what is written between the two questions does not count as held back.
        let ends = cluster.ends(name, count)?;
        let stable = cluster.stable_ends(name, count)?;
        let places: Vec<(String, i32)> =
            ends.keys().map(|partition| (name.to_owned(), *partition)).collect();
        let committed = cluster.committed(&places)?;
        rows.extend(ends.iter().zip(committed).map(|((partition, range), committed)| {
            let from = committed.next.unwrap_or(range.start).max(range.start);
            let stable = stable.get(partition).map_or(range.end, |stable| stable.end);
            row(name, *partition, committed.next, (from, stable, range.end))
        }));
    }
    Ok(rows)
}

fn embedded(log: &Path, config: &Config) -> Result<Vec<Row>, Failure> {
    let fail = |error: crate::sqlite::Error| Failure {
        message: format!("read {}: {}", log.display(), chain(&error)),
        exit: Exit::NoInput,
    };
    let store = Store::open(log).map_err(fail)?;
    let mut rows = Vec::new();
    for topic in &config.input.topics {
        for partition in 0..i32::from(store.partitions(topic).map_err(fail)?) {
            let end = store.end(topic, partition).map_err(fail)?.0;
            let committed = store.committed(&config.kafka.group, topic, partition).map_err(fail)?;
            let committed = committed.map(|next| next.0);
            rows.push(row(topic, partition, committed, (committed.unwrap_or(0), end, end)));
        }
    }
    Ok(rows)
}

/// From what is committed, to what can be read, to the end.
fn row(
    topic: &str,
    partition: i32,
    committed: Option<i64>,
    (from, stable, end): (i64, i64, i64),
) -> Row {
    let lag = end.saturating_sub(from).max(0);
    let held_back = end.saturating_sub(stable.max(from)).max(0);
    let held_back_at = (0 < held_back).then_some(stable);
    Row { topic: topic.to_owned(), partition, committed, end, lag, held_back, held_back_at }
}

/// For people; `connection` is how the brokers are reached.
fn table(rows: &[Row], connection: &str) -> String {
    let place = |row: &Row| format!("{}/{}", row.topic, row.partition);
    let width = rows.iter().map(|row| place(row).len()).max().unwrap_or(0).max("PARTITION".len());
    let shown = |number: i64| thousands(u64::try_from(number).unwrap_or(0));
    let line = |place: &str, [committed, end, lag, held]: [&str; 4]| {
        format!("{place:<width$}  {committed:>14}  {end:>14}  {lag:>14}  {held:>14}")
    };
    let mut lines = vec![line("PARTITION", ["COMMITTED", "END", "LAG", "NOT READABLE"])];
    lines.extend(rows.iter().map(|row| {
        let committed = row.committed.map_or_else(|| "none".to_owned(), shown);
        let (end, lag, held) = (shown(row.end), shown(row.lag), shown(row.held_back));
        line(&place(row), [&committed, &end, &lag, &held])
    }));
    let sum = |of: fn(&Row) -> i64| shown(rows.iter().map(of).sum());
    lines.push(line("all", ["", "", &sum(|row| row.lag), &sum(|row| row.held_back)]));
    let held = rows.iter().filter_map(|row| Some((row, row.held_back_at?)));
    lines.extend(held.map(|(row, at)| {
        format!(
            "{}: a producer's transaction that begins at offset {at} is not ended. Where that producer is gone: \
             kafka-transactions.sh {connection} abort --topic {} --partition {} --start-offset {at}",
            place(row),
            row.topic,
            row.partition
        )
    }));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_partition_and_the_sum() {
        let rows = [
            row("in", 0, Some(90), (90, 1_100, 1_100)),
            row("in", 1, None, (3, 5, 5)),
            row("in", 2, Some(7), (7, 5, 5)),
            row("in", 3, Some(40), (40, 40, 60)),
            row("in", 4, Some(40), (40, 50, 60)),
        ];
        let said = table(&rows, "--bootstrap-server b:1");
        let cells: Vec<Vec<&str>> =
            said.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(cells[1], ["in/0", "90", "1,100", "1,010", "0"]);
        assert_eq!(cells[2], ["in/1", "none", "5", "2", "0"]);
        assert_eq!(cells[3], ["in/2", "7", "5", "0", "0"], "an end that is told late is no lag");
        assert_eq!(cells[4], ["in/3", "40", "60", "20", "20"], "all that can be read is answered");
        assert_eq!(cells[5], ["in/4", "40", "60", "20", "10"]);
        assert_eq!(cells[6], ["all", "1,052", "30"]);
        assert!(said.contains("in/3: a producer's transaction that begins at offset 40"), "{said}");
        assert!(said.contains("kafka-transactions.sh --bootstrap-server b:1 abort"), "{said}");
        assert_eq!(cells.len(), 9);
    }
}

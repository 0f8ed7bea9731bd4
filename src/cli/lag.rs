//! `tidemill lag`: how far behind the group is, from what it has committed. No service has to run, and no group is joined.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::cluster::Cluster;
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
            let all: i64 = rows.iter().map(|row| row.lag).sum();
            let group = &config.kafka.group;
            let told = serde_json::json!({ "group": group, "lag": all, "partitions": rows });
            terminal::line(told)
        } else {
            terminal::say(table(&rows))
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
        let ends = cluster.ends(name, count)?;
        let places: Vec<(String, i32)> =
            ends.keys().map(|partition| (name.to_owned(), *partition)).collect();
        let committed = cluster.committed(&places)?;
        rows.extend(ends.iter().zip(committed).map(|((partition, range), committed)| {
            let from = committed.next.unwrap_or(range.start).max(range.start);
            row(name, *partition, committed.next, from, range.end)
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
            rows.push(row(topic, partition, committed, committed.unwrap_or(0), end));
        }
    }
    Ok(rows)
}

fn row(topic: &str, partition: i32, committed: Option<i64>, from: i64, end: i64) -> Row {
    let lag = end.saturating_sub(from).max(0);
    Row { topic: topic.to_owned(), partition, committed, end, lag }
}

fn table(rows: &[Row]) -> String {
    let place = |row: &Row| format!("{}/{}", row.topic, row.partition);
    let width = rows.iter().map(|row| place(row).len()).max().unwrap_or(0).max("PARTITION".len());
    let shown = |number: i64| thousands(u64::try_from(number).unwrap_or(0));
    let mut lines =
        vec![format!("{:<width$}  {:>14}  {:>14}  {:>14}", "PARTITION", "COMMITTED", "END", "LAG")];
    lines.extend(rows.iter().map(|row| {
        let committed = row.committed.map_or_else(|| "none".to_owned(), shown);
        format!(
            "{:<width$}  {committed:>14}  {:>14}  {:>14}",
            place(row),
            shown(row.end),
            shown(row.lag)
        )
    }));
    let all = rows.iter().map(|row| row.lag).sum();
    lines.push(format!("{:<width$}  {:>14}  {:>14}  {:>14}", "all", "", "", shown(all)));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_partition_and_the_sum() {
        let rows = [
            row("in", 0, Some(90), 90, 1_100),
            row("in", 1, None, 3, 5),
            row("in", 2, Some(7), 7, 5),
        ];
        let said = table(&rows);
        let cells: Vec<Vec<&str>> =
            said.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(cells[1], ["in/0", "90", "1,100", "1,010"]);
        assert_eq!(cells[2], ["in/1", "none", "5", "2"]);
        assert_eq!(cells[3], ["in/2", "7", "5", "0"], "an end that is told late is no lag");
        assert_eq!(cells[4], ["all", "1,012"]);
    }
}

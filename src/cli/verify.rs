//! `tidemill verify`: reads what was committed and proves the promise for it.

use std::process::ExitCode;

use super::{ConfigFile, terminal};
use crate::failure::{Exit, Failure, unwritten};
use crate::verify::Report;

mod again;
mod prove;

/// Arguments of `tidemill verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Judge this consumer group instead of kafka.group
    #[arg(long)]
    group: Option<String>,
    /// Judge input records from this offset on, in every partition
    #[arg(long, value_name = "OFFSET", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    from: i64,
    /// … and below this one; default: the committed offset
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    to: Option<i64>,
    /// Answer so many predictions and dead letters of each version again, with that version from the registry, and
    /// compare: the same bytes, or the same labels and numbers within the tolerance of golden vectors (0.0001; 0.05
    /// where model.precision is not f32) on other instructions
    #[arg(long, value_name = "N", default_value_t = 0)]
    recompute: usize,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
What retention, compaction or sparse headers have taken away is named as what cannot be proven; it is no violation.

Exit codes:
  0   proven; where parts cannot be proven, they are named
  64  --to is not above --from
  65  violated, or there is nothing to prove: no such topic, a group that has committed nothing, no record in the range
  75  the cluster could not be read; try again
  78  the configuration is wrong, or the cluster refuses";

/// Verifies what the group has committed; the exit codes are those of the help.
pub fn run(args: &Args) -> ExitCode {
    let mut config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    if config.embedded().is_some() {
        let message = "verify reads Kafka; the demo verifies the embedded log by itself".to_owned();
        return terminal::end(Err(Failure { message, exit: Exit::Config }));
    }
    if let Some(to) = args.to.filter(|to| *to <= args.from) {
        let message = format!(
            "--to {to} is not above --from {}: no offset is in between; correct one",
            args.from
        );
        return terminal::end(Err(Failure { message, exit: Exit::Usage }));
    }
    let own_group = args.group.as_ref().is_none_or(|group| *group == config.kafka.group);
    if let Some(group) = &args.group {
        config.kafka.group.clone_from(group);
    }
    let report = match prove::prove(&config, args, own_group) {
        Ok(report) => report,
        Err(failure) => return terminal::end(Err(failure)),
    };
    // A reader that has seen enough is none of the verdict's business.
    match print(&report, args.json) {
        Err(failure) if failure.exit != Exit::Success => terminal::end(Err(failure)),
        Ok(()) | Err(_) => if report.holds() { Exit::Success } else { Exit::Data }.into(),
    }
}

fn print(report: &Report, json: bool) -> Result<(), Failure> {
    if !json {
        return terminal::say(report);
    }
    let failed = |error| unwritten("write the report as JSON", &std::io::Error::from(error));
    terminal::line(serde_json::to_string_pretty(report).map_err(failed)?)
}

//! `tidemill dlq`: the dead letters, and the way back.
//!
//! * [`place`]: the dead-letter topics, on Kafka or in the embedded log.
//! * [`select`]: which dead letters are meant. [`progress`]: which were redriven before.
//! * [`list`]: shows them. [`redrive`]: sends their records in again; [`send`] does so in transactions.

use std::process::ExitCode;

use clap::Subcommand;

use super::{ConfigFile, terminal};

mod list;
mod place;
mod progress;
mod redrive;
mod select;
mod send;

/// `tidemill dlq …`.
#[derive(Debug, Subcommand)]
pub enum Dlq {
    /// Show the dead letters, and how many there are of each class and topic
    #[command(after_help = list::HELP)]
    List(ListArgs),
    /// Send the records of dead letters in again, as they came
    #[command(after_help = redrive::HELP)]
    Redrive(RedriveArgs),
}

/// Arguments of `tidemill dlq list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    select: select::Args,
    /// Show at most so many; all are counted
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print a JSON object for each dead letter, and one with the counts at the end
    #[arg(long)]
    json: bool,
}

/// Arguments of `tidemill dlq redrive`.
#[derive(Debug, clap::Args)]
pub struct RedriveArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    select: select::Args,
    /// Send the records to this topic instead of the one that each came from; they count as redriven all the same
    #[arg(long, value_name = "TOPIC")]
    to: Option<String>,
    /// Say what would be sent, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Begin at the beginning of the dead-letter topics, and send what was redriven before once more
    #[arg(long)]
    again: bool,
}

/// Does what the command says; the exit codes are those of its help.
pub fn run(command: &Dlq) -> ExitCode {
    let config = match command {
        Dlq::List(args) => &args.config,
        Dlq::Redrive(args) => &args.config,
    };
    let config = match config.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    terminal::end(match command {
        Dlq::List(args) => list::list(&config, args),
        Dlq::Redrive(args) => redrive::redrive(&config, args),
    })
}

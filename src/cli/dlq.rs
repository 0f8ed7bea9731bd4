//! `tidemill dlq`: the dead letters, and the way back.
//!
//! * [`place`]: the dead-letter topics, on Kafka or in the embedded log.
//! * [`select`]: which dead letters are meant. [`progress`]: which were redriven before.
//! * [`list`]: shows them; [`show`] all of one. [`redrive`]: sends their records in again; [`send`] does so in transactions,
//!   and [`cannot`] counts what must stay.

use std::num::NonZeroU32;
use std::process::ExitCode;

use clap::Subcommand;

use super::{ConfigFile, terminal};

mod cannot;
mod list;
mod place;
mod progress;
mod redrive;
mod select;
mod send;
mod show;

/// `tidemill dlq …`.
#[derive(Debug, Subcommand)]
pub enum Dlq {
    /// Show the dead letters, and how many there are of each class and topic
    #[command(after_help = list::HELP)]
    List(ListArgs),
    /// Show one dead letter, all of it: why, what to do, headers, and the value as it came
    #[command(after_help = show::HELP)]
    Show(ShowArgs),
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

/// Arguments of `tidemill dlq show`.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// Where it stands, as `list` shows it
    #[arg(value_parser = show::at)]
    place: show::At,
    #[command(flatten)]
    config: ConfigFile,
    /// Show at most so many bytes of the value
    #[arg(long, value_name = "N", default_value_t = 4_096)]
    bytes: usize,
    /// Print one JSON object, with the whole value
    #[arg(long, conflicts_with = "bytes")]
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
    /// Send at most so many records a second
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
    /// Leave records that were redriven so many times and came back each time
    #[arg(long, value_name = "N", default_value = "3")]
    attempts: NonZeroU32,
    /// Print JSON: with --dry-run an object for each record, and one with the counts at the end
    #[arg(long)]
    json: bool,
}

/// Does what the command says; the exit codes are those of its help.
pub fn run(command: &Dlq) -> ExitCode {
    let config = match command {
        Dlq::List(args) => &args.config,
        Dlq::Show(args) => &args.config,
        Dlq::Redrive(args) => &args.config,
    };
    let config = match config.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    terminal::end(match command {
        Dlq::List(args) => list::list(&config, args),
        Dlq::Show(args) => show::show(&config, args),
        Dlq::Redrive(args) => redrive::redrive(&config, args),
    })
}

//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, load};
use crate::failure::Exit;
use crate::memory;

pub mod bench;
pub mod check;
mod cluster;
pub mod demo;
pub mod dlq;
pub mod lag;
pub mod manual;
pub mod models;
pub mod predict;
pub mod run;
pub mod status;
mod terminal;
pub mod trial;
pub mod verify;

/// Micro-batch inference on Kafka, exactly once.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, long_version = manual::version(), about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service: records in, predictions out
    Run(run::Args),
    /// Try everything in one process, with a bundled model and real data
    Demo(demo::Args),
    /// Predict JSON lines, without Kafka
    Predict(predict::Args),
    /// Measure a model on this machine; recommend batch size, workers and precision
    Bench(bench::Args),
    /// Check configuration, connections, topics and model; explain every problem at once
    Check(check::Args),
    /// Prove the promise for what was committed
    Verify(verify::Args),
    /// Show what a service that runs does now, and what to look at
    Status(status::Args),
    /// Show how far behind the group is, partition by partition
    Lag(lag::Args),
    /// Look at the dead letters, and send records in again
    #[command(subcommand)]
    Dlq(dlq::Dlq),
    /// Look after the versions of a model registry
    #[command(subcommand)]
    Models(models::Models),
    /// Load a version and exit: the service starts it before it loads one itself
    #[command(hide = true)]
    Trial,
    /// Print completions for a shell
    #[command(hide = true)]
    Completions(manual::Completions),
    /// Print the man page, or write one for each command
    #[command(hide = true)]
    Man(manual::Man),
}

impl Cli {
    /// Reads the process's arguments and does what they say. [`Exit`] lists the exit codes.
    pub fn run() -> ExitCode {
        memory::few_heaps();
        let cli = match Self::try_parse() {
            Ok(cli) => cli,
            // Help and the version are no mistake. Where nobody reads them, there is nobody to tell.
            Err(error) => {
                error.print().unwrap_or_default();
                return if error.use_stderr() { Exit::Arguments } else { Exit::Success }.into();
            }
        };
        match cli.command {
            Command::Run(args) => run::run(&args),
            Command::Demo(args) => demo::run(&args),
            Command::Predict(args) => predict::run(&args),
            Command::Bench(args) => bench::run(&args),
            Command::Check(args) => check::run(&args),
            Command::Verify(args) => verify::run(&args),
            Command::Dlq(command) => dlq::run(&command),
            Command::Models(command) => models::run(&command),
            Command::Trial => trial::run(),
            Command::Status(args) => status::run(&args),
            Command::Lag(args) => lag::run(&args),
            Command::Completions(args) => manual::completions(&args),
            Command::Man(args) => manual::man(&args),
        }
    }
}

/// Where the configuration is; the environment overrides it.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigFile {
    /// The configuration file
    #[arg(long, short, env = "TIDEMILL_CONFIG", value_name = "FILE")]
    pub config: PathBuf,
}

impl ConfigFile {
    /// The configuration with the environment's overrides; or all problems on stderr, and the exit code.
    fn load(&self) -> Result<Config, ExitCode> {
        load::load(Some(&self.config), load::environment()).map_err(|problems| {
            terminal::note(problems);
            ExitCode::from(Exit::Config)
        })
    }
}

//! `tidemill run`: the service.

use std::process::ExitCode;
use std::time::Instant;

use super::{ConfigFile, terminal};
use crate::config::{self, Config, Time};
use crate::failure::Failure;
use crate::log::message::Naming;
use crate::log::{Log, Opening};
use crate::telemetry::Telemetry;
use crate::telemetry::otlp::Pushes;
use crate::telemetry::trace::Traces;
use crate::{kafka, service, sqlite};

pub(super) mod progress;

use progress::Progress;

/// Arguments of `tidemill run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Process up to the ends that are there at the start, wait until the group has committed all of it, and exit 0:
    /// the hourly or daily job
    #[arg(long)]
    until_end: bool,
    /// With --until-end: give up after so long (such as 30m), exit 75, and say what is left
    #[arg(long, requires = "until_end", value_name = "DURATION")]
    deadline: Option<Time>,
}

/// Runs until a signal or the end.
pub fn run(args: &Args) -> ExitCode {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    // Without it there is no log that could say why.
    let telemetry = match Telemetry::start(&config.logging) {
        Ok(telemetry) => telemetry,
        Err(failure) => return terminal::end(Err(failure)),
    };
    let (pushes, ended) = match Pushes::start(&config, &telemetry) {
        Ok(pushes) => {
            let ended = start(config, telemetry, pushes.traces(), args);
            (pushes, ended)
        }
        Err(failure) => (Pushes::default(), Err(failure)),
    };
    let code = match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!(exit = failure.exit.code(), "{failure}");
            failure.exit.into()
        }
    };
    // The line above is the one to have, and what the run took is said: a collector that hangs is no part of it.
    pushes.flush();
    code
}

fn start(config: Config, telemetry: Telemetry, traces: Traces, args: &Args) -> Result<(), Failure> {
    #[expect(clippy::disallowed_methods, reason = "a deadline is counted from the start")]
    let deadline = args.deadline.map(|deadline| Instant::now() + deadline.0);
    let options = service::Options {
        until_end: args.until_end,
        deadline,
        trial: std::env::current_exe().ok(),
        traces: Some(traces),
        ..service::Options::default()
    };
    let runtime = service::runtime()?;
    let progress = args.until_end.then(|| Progress::new(options.status.clone()));
    let ended = runtime.block_on(async {
        let service = service::run(config, telemetry, options, open);
        match progress.clone() {
            None => service.await,
            Some(progress) => tokio::select! {
                ended = service => ended,
                () = progress.tell() => Ok(()),
            },
        }
    });
    progress.into_iter().for_each(|progress| progress.end(ended.is_ok()));
    // A thread may hang in a driver or in librdkafka: the process ends all the same.
    runtime.shutdown_background();
    ended
}

/// Opens the log that the configuration names.
fn open(config: &Config, opening: &Opening) -> Result<Log, Failure> {
    let naming = Naming::new(config);
    match &config.log {
        config::Log::Sqlite(file) => sqlite::open(file, config, &naming, opening),
        config::Log::Kafka => kafka::open(config, naming, opening),
    }
}

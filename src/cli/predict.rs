//! `tidemill predict`: the service on [`crate::lines`], without Kafka.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::run::progress::summary;
use super::terminal;
use crate::answer::Task;
use crate::config::{
    Aggregation, Config, OnLong, Place, Precision, Time, Uri, Workers as WorkerCount,
};
use crate::failure::{Exit, Failure};
use crate::status::Board;
use crate::status::history::Total;
use crate::telemetry::Telemetry;
use crate::{lines, service};

/// Arguments of `tidemill predict`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A directory, or `models:/name@alias` with --root
    #[arg(long, value_name = "URI|DIR")]
    model: Uri,
    /// The registry's directory
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// JSON lines, one record each
    #[arg(long, default_value = "-", value_name = "FILE|-")]
    input: PathBuf,
    /// Where the predictions go, one line for each line of the input
    #[arg(long, default_value = "-", value_name = "FILE|-")]
    output: PathBuf,
    /// The field that holds the text, or an image in base64
    #[arg(long, default_value = "text")]
    field: String,
    /// What a text model is for, where its files do not say: text-embedding, text-classification, text-ranking or
    /// token-classification
    #[arg(long, value_parser = task)]
    task: Option<Task>,
    /// f32, bf16, int8 or auto; on GPUs f32, bf16, f16 or auto
    #[arg(long, default_value = "f32", value_parser = precision)]
    precision: Precision,
    /// Make an error of a text that is too long, instead of using its beginning
    #[arg(long)]
    reject_long: bool,
    /// How a token classifier's labels become spans: none, simple, first, average or max
    #[arg(long, default_value = "simple", value_parser = aggregation)]
    aggregation: Aggregation,
    /// How many labels' scores a classification carries, the best first; default: all, in the model's order
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    top_k: Option<u32>,
    /// cpu, cuda:0
    #[arg(long, default_value = "cpu")]
    device: Place,
    /// Inference threads; default: one a core
    #[arg(long)]
    workers: Option<u16>,
}

pub(super) fn precision(text: &str) -> Result<Precision, String> {
    serde_json::from_value(serde_json::Value::from(text))
        .map_err(|_error| "one of f32, bf16, f16, int8, auto".to_owned())
}

pub(super) fn task(text: &str) -> Result<Task, String> {
    serde_json::from_value(serde_json::Value::from(text))
        .map_err(|_error| format!("one of {}", Task::OF_TEXTS))
}

fn aggregation(text: &str) -> Result<Aggregation, String> {
    serde_json::from_value(serde_json::Value::from(text))
        .map_err(|_error| "one of none, simple, first, average, max".to_owned())
}

/// Predicts every line. Exit code 0 even where some lines are `{"error": …}`.
pub fn run(args: &Args) -> ExitCode {
    terminal::end(predict(args))
}

/// Longest that a batch may be in the model: whoever waits for the command ends it.
const EVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn config(args: &Args) -> Config {
    let mut config = Config::default();
    config.model.uri.clone_from(&args.model);
    config.registry.root.clone_from(&args.root);
    config.input.field.clone_from(&args.field);
    config.model.task = args.task;
    config.model.precision = args.precision;
    config.model.device.clone_from(&args.device);
    config.model.workers = args.workers.map_or(WorkerCount::Auto, WorkerCount::Count);
    config.model.on_long = if args.reject_long { OnLong::Reject } else { OnLong::Truncate };
    config.model.aggregation = args.aggregation;
    config.output.top_k = args.top_k;
    config.batch.max_wait = Time::millis(0);
    config.dead_letters.max_ratio = 1.0;
    config.limits.inference = Time(EVER);
    config
}

fn predict(args: &Args) -> Result<(), Failure> {
    let config = config(args);
    let served = service::load_model(&config)?;
    let notes = &served.model.about().notes;
    notes.iter().for_each(|note| terminal::note(format_args!("note: {note}")));
    let (input, output) = files(args)?;
    let log = lines::open(input, output, config.limits.memory.0)?;
    let (telemetry, runtime) = (Telemetry::silent()?, service::runtime()?);
    let (status, start) = (Board::default(), now());
    let ended = runtime.block_on(async {
        let all = service::once(&config, &telemetry, Arc::new(served), log, status.clone());
        tokio::select! {
            ended = all => ended,
            () = tell(&status, start) => Ok(()),
        }
    });
    if LINE <= start.elapsed() {
        let Total { records, dead_letters } = status.total();
        terminal::note(summary(records, dead_letters, start.elapsed()));
    }
    // The reading thread may wait for a line, and a worker may hang in a driver: the process ends all the same.
    runtime.shutdown_background();
    ended
}

/// Between two lines about how it goes on.
const LINE: Duration = Duration::from_secs(10);

/// Says on stderr how it goes on, until it is dropped: what takes less than [`LINE`] is silent.
async fn tell(status: &Board, start: Instant) {
    let mut pace = tokio::time::interval(LINE);
    pace.tick().await;
    loop {
        pace.tick().await;
        let Total { records, dead_letters } = status.total();
        terminal::note(format_args!("so far: {}", summary(records, dead_letters, start.elapsed())));
    }
}

#[expect(clippy::disallowed_methods, reason = "how long it takes is wall time")]
fn now() -> Instant {
    Instant::now()
}

/// Where lines come from.
type Input = Box<dyn Read + Send>;

/// Where lines go.
type Output = Box<dyn Write + Send>;

/// Opens the input and the output.
fn files(args: &Args) -> Result<(Input, Output), Failure> {
    let cannot = |what: &str, path: &Path, error: &io::Error| Failure {
        message: format!("{what} {}: {error}", path.display()),
        exit: Exit::NoInput,
    };
    let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    if let (Ok(input), Ok(output)) = (fs::metadata(&args.input), fs::metadata(&args.output))
        && input.is_file()
        && same(&input, &output)
    {
        let message = format!(
            "write {}: it is the input, and would be emptied before it is read; give another --output",
            args.output.display()
        );
        return Err(Failure { message, exit: Exit::Usage });
    }
    let input: Input = if args.input.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(&args.input).map_err(|e| cannot("read", &args.input, &e))?)
    };
    let output: Output = if args.output.as_os_str() == "-" {
        Box::new(io::stdout())
    } else {
        Box::new(File::create(&args.output).map_err(|e| cannot("write", &args.output, &e))?)
    };
    Ok((input, output))
}

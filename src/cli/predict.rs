//! `tidemill predict`: JSON lines in, JSON lines out, same order, through the same decoder, batcher and
//! workers as the service, without Kafka.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::terminal;
use crate::answer::Task;
use crate::config::{
    Aggregation, Config, OnLong, Place, Precision, Time, Uri, Workers as WorkerCount,
};
use crate::decode::{Decoded, Decoder};
use crate::failure::{Exit, Failure};
use crate::model::served::Served;
use crate::pipeline::arrive::Assigned;
use crate::pipeline::{Effect, Event, Item, Limits, Pipeline, Stop};
use crate::record::{Epoch, Offset, Outcome, Partition, Record};
use crate::workers::{Answer, Job, Workers};
use crate::{engine, service};

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
    config
}

fn predict(args: &Args) -> Result<(), Failure> {
    let config = config(args);
    let served = service::load_model(&config)?;
    let notes = &served.model.about().notes;
    notes.iter().for_each(|note| terminal::note(format_args!("note: {note}")));
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
    let input: Box<dyn BufRead> = if args.input.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(&args.input).map_err(|e| cannot("read", &args.input, &e))?;
        Box::new(BufReader::with_capacity(1 << 16, file))
    };
    let output: Box<dyn Write> = if args.output.as_os_str() == "-" {
        Box::new(io::stdout().lock())
    } else {
        Box::new(File::create(&args.output).map_err(|e| cannot("write", &args.output, &e))?)
    };
    let mut lines = Lines::new(&config, Arc::new(served), BufWriter::new(output))?;
    lines.run(input)
}

/// A log of one partition: the offset is the line's number.
const LINES: Partition = Partition { topic: 0, number: 0 };

struct Lines<W> {
    pipeline: Pipeline<Decoded, Vec<u8>>,
    limits: Limits,
    decoder: Decoder,
    served: Arc<Served>,
    workers: Workers,
    answers: mpsc::Receiver<Answer>,
    in_model: usize,
    /// Lines of the output.
    written: i64,
    output: W,
}

impl<W: Write> Lines<W> {
    fn new(config: &Config, served: Arc<Served>, output: W) -> Result<Self, Failure> {
        let (answers_in, answers) = mpsc::channel(16);
        let decoder = Decoder::new(config.input.clone());
        let count = service::workers(config);
        let workers = Workers::start(count, decoder.clone(), config.output.clone(), answers_in)
            .map_err(|error| Failure {
                message: format!("start a thread: {error}"),
                exit: Exit::Temporary,
            })?;
        let limits = engine::limits(config);
        let mut lines = Self {
            pipeline: Pipeline::new(limits, served.id.version),
            limits,
            decoder,
            served,
            workers,
            answers,
            in_model: 0,
            written: 0,
            output,
        };
        let assigned = Assigned {
            partition: LINES,
            epoch: Epoch(0),
            next: Offset(0),
            until: None,
            skip: None,
            recorded: None,
        };
        lines.handle(Event::Assigned(vec![assigned]))?;
        Ok(lines)
    }

    fn run(&mut self, mut input: Box<dyn BufRead>) -> Result<(), Failure> {
        let mut offset = Offset(0);
        let mut waiting = Vec::new();
        let mut more = true;
        while more {
            let mut line = Vec::new();
            let read = input.read_until(b'\n', &mut line).map_err(|error| Failure {
                message: format!("read line {}: {error}", offset.0 + 1),
                exit: Exit::NoInput,
            })?;
            more = read != 0;
            if more {
                waiting.push(self.item(line, offset));
                offset = offset.next();
            }
            if waiting.len() == self.limits.batch.max_records || !more {
                self.handle(Event::Arrived(std::mem::take(&mut waiting)))?;
                while self.in_model != 0 && !self.pipeline.has_room() {
                    self.answer()?;
                }
                while let Ok(answer) = self.answers.try_recv() {
                    self.answered(answer)?;
                }
            }
        }
        while !self.pipeline.is_drained() {
            match self.pipeline.deadline() {
                _ if self.in_model != 0 => self.answer()?,
                // Nothing follows: what waits for company is due now.
                Some(due) => self.handle_at(Event::Tick, due)?,
                None => break,
            }
        }
        if self.written != offset.0 {
            let message = format!("{} lines, {} answers; this is a bug", offset.0, self.written);
            return Err(Failure { message, exit: Exit::Software });
        }
        self.output.flush().map_err(|error| written(&error))
    }

    fn item(&self, mut line: Vec<u8>, offset: Offset) -> Item<Decoded> {
        while line.last().is_some_and(u8::is_ascii_whitespace) {
            line.pop();
        }
        let record = Record {
            partition: LINES,
            offset,
            timestamp: None,
            key: None,
            value: Some(line),
            headers: Vec::new(),
        };
        self.decoder.item(Epoch(0), record, None, &self.served)
    }

    fn answer(&mut self) -> Result<(), Failure> {
        let answer = self.answers.blocking_recv().ok_or_else(|| Failure {
            message: "the inference threads ended without a word; this is a bug".to_owned(),
            exit: Exit::Software,
        })?;
        self.answered(answer)
    }

    fn answered(&mut self, answer: Answer) -> Result<(), Failure> {
        self.in_model -= 1;
        let Answer { batch, rows, outcomes, .. } = answer;
        self.handle(Event::Inferred { batch, rows, answer: outcomes, bytes: 0 })
    }

    fn handle(&mut self, event: Event<Decoded, Vec<u8>>) -> Result<(), Failure> {
        #[expect(clippy::disallowed_methods, reason = "the driver of the core reads the clock")]
        self.handle_at(event, Instant::now())
    }

    fn handle_at(&mut self, event: Event<Decoded, Vec<u8>>, now: Instant) -> Result<(), Failure> {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut effects = Vec::new();
            self.pipeline.handle(event, now, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Infer(batch, rows) => {
                        self.in_model += 1;
                        let served = Arc::clone(&self.served);
                        self.workers.submit(Job { batch, rows, served });
                    }
                    Effect::Commit(lane, transaction) => {
                        for finished in &transaction.batches {
                            for (_, outcome) in &finished.rows {
                                self.write(outcome)?;
                            }
                        }
                        let committed = transaction.next.iter().map(|(p, (_, next))| (*p, *next));
                        let committed = committed.collect();
                        let (id, buried) = (transaction.id, Vec::new());
                        events.push(Event::Committed { lane, id, committed, buried, fits: None });
                    }
                    Effect::Stop(Stop::Model(message)) => {
                        return Err(Failure { message, exit: Exit::Temporary });
                    }
                    // Lines are read from the first on, by one version, and each has its answer here, however many
                    // are errors.
                    Effect::Stop(
                        Stop::DeadLetters(_) | Stop::Takeover { .. } | Stop::WentBack { .. },
                    )
                    | Effect::Open(..)
                    | Effect::Ask(_)
                    | Effect::Release(_)
                    | Effect::Retire(_) => (),
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, outcome: &Outcome<Vec<u8>>) -> Result<(), Failure> {
        self.written += 1;
        let result = match outcome {
            Outcome::Prediction(value) => self.output.write_all(value),
            Outcome::Tombstone => self.output.write_all(b"null"),
            Outcome::DeadLetter(fault) => {
                let error = serde_json::json!({
                    "error": fault.message, "class": fault.class.name()
                });
                self.output.write_all(error.to_string().as_bytes())
            }
        };
        result.and_then(|()| self.output.write_all(b"\n")).map_err(|error| written(&error))
    }
}

fn written(error: &io::Error) -> Failure {
    terminal::unwritten("write a prediction", error)
}

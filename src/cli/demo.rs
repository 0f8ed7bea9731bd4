//! `tidemill demo`: the whole service in one process on the embedded log.

use std::io::{self, BufRead, BufReader, IsTerminal as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use super::terminal::{self, line};
use crate::config::{
    self, Config, Include, InputFormat, LogFormat, Logging, OutputFormat, Precision, Time, Uri,
};
use crate::demo::summary::Summary;
use crate::demo::{assets, records};
use crate::engine::Command;
use crate::failure::{Exit, Failure, chain};
use crate::log::Opening;
use crate::log::message::Naming;
use crate::printable::thousands;
use crate::record::{Offset, Version};
use crate::registry::Registry;
use crate::service;
use crate::sqlite::{self, Message, Store};
use crate::status::Board;
use crate::telemetry::Telemetry;

/// Arguments of `tidemill demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How often the bundled table goes through
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    passes: u32,
    /// A sentence-transformers directory: embed lines of text instead
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// With --model: lines of text
    #[arg(long, default_value = "-", value_name = "FILE|-")]
    input: PathBuf,
    /// With --model: f32, int8 or auto
    #[arg(long, default_value = "f32", value_parser = super::predict::precision)]
    precision: Precision,
    /// What the bundled records and their predictions are: json or avro
    #[arg(long, default_value = "json", value_parser = ["json", "avro"], conflicts_with = "model")]
    format: String,
    /// Keep the log's files here; default: a temporary directory that is removed
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Keep running afterwards, with a few records a second and a swap now and then, until Ctrl-C: for looking at its page
    #[arg(long)]
    keep: bool,
    /// Where its page, probes and metrics listen
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

impl Args {
    fn is_avro(&self) -> bool {
        self.format == "avro"
    }
}

/// Partitions of the demo's topics.
const PARTITIONS: u16 = 2;

/// Between two handfuls of records that `--keep` sends.
const TURN: Duration = Duration::from_millis(250);

/// So many handfuls from one swap to the next: half a minute.
const SWAP_TURNS: u64 = 120;

/// From one crest of `--keep` to the next: a minute and a half, because the chart's steps are ten seconds.
const WAVE_TURNS: u64 = 360;

/// So often the table goes through while it is kept: about two hours. Then it is idle, and its log grows no more.
const KEPT_PASSES: usize = 500;

/// Runs the demo. 0 if every record has exactly one outcome.
pub fn run(args: &Args) -> ExitCode {
    match demo(args) {
        Ok(summary) if summary.violations.is_empty() => ExitCode::SUCCESS,
        Ok(_) => Exit::Software.into(),
        Err(failure) => terminal::end(Err(failure)),
    }
}

fn fail(what: &str, error: &dyn std::error::Error) -> Failure {
    Failure { message: format!("{what}: {}", chain(error)), exit: Exit::Io }
}

/// The files of a run; a temporary directory goes with it.
struct Place {
    dir: PathBuf,
    temporary: bool,
}

impl Place {
    fn new(dir: Option<&Path>) -> Result<Self, Failure> {
        let temporary = dir.is_none();
        let name = format!("tidemill-demo-{}", uuid::Uuid::now_v7());
        let dir = dir.map_or_else(|| std::env::temp_dir().join(name), Path::to_owned);
        let exists = dir.join("log.sqlite").exists();
        std::fs::create_dir_all(&dir)
            .map_err(|e| fail(&format!("create {}", dir.display()), &e))?;
        if exists {
            let message = format!("{} holds a log already; choose another --dir", dir.display());
            return Err(Failure { message, exit: Exit::Usage });
        }
        Ok(Self { dir, temporary })
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log.sqlite")
    }

    fn schema(&self) -> PathBuf {
        self.dir.join("measurements.avsc")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.temporary {
            std::fs::remove_dir_all(&self.dir).unwrap_or_default();
        }
    }
}

fn config(args: &Args, place: &Place) -> Config {
    let mut config = Config { log: config::Log::Sqlite(place.log()), ..Config::default() };
    "demo".clone_into(&mut config.kafka.group);
    config.http.listen = args.listen;
    config.batch.max_wait = Time::millis(20);
    match &args.model {
        Some(model) => {
            config.input.topics = vec!["lines".to_owned()];
            config.input.format = InputFormat::Text;
            "embeddings".clone_into(&mut config.output.topic);
            config.model.uri = Uri::Directory(model.clone());
            config.model.precision = args.precision;
        }
        None => {
            config.input.topics = vec!["measurements".to_owned()];
            "diagnoses".clone_into(&mut config.output.topic);
            if args.is_avro() {
                config.input.format = InputFormat::Avro;
                config.input.schema = Some(place.schema());
                config.input.fields = records::fields();
                config.output.format = OutputFormat::Avro;
            }
            let fields = ["id", "split", "diagnosis"].map(str::to_owned);
            config.output.include = Include::Fields(fields.to_vec());
            config.registry.root = Some(place.dir.join("models"));
            let (model, alias) = (assets::MODEL.to_owned(), "champion".to_owned());
            config.model.uri = Uri::Alias { model, alias };
        }
    }
    config
}

/// Whether the page can be where it is wanted: said before anything else is.
fn free(listen: SocketAddr) -> Result<(), Failure> {
    let tried = TcpListener::bind(listen).map(drop);
    tried.map_err(|error| Failure {
        message: format!(
            "listen on {listen} for the page: {error}; give another address to --listen, or leave it out for a free port"
        ),
        exit: Exit::Config,
    })
}

fn demo(args: &Args) -> Result<Summary, Failure> {
    free(args.listen)?;
    let place = Place::new(args.dir.as_deref())?;
    let config = config(args, &place);
    let naming = Naming::new(&config);
    let store = Store::open(&place.log()).map_err(|e| fail("open the log", &e))?;
    for topic in naming.inputs.iter().map(String::as_str).chain(naming.written()) {
        store.create_topic(topic, PARTITIONS).map_err(|e| fail("create a topic", &e))?;
    }
    line(
        "tidemill demo: an embedded log (SQLite, one process, not Kafka), the real service on top of it",
    )?;
    let telemetry = Telemetry::start(&Logging {
        format: LogFormat::Text,
        filter: std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned()),
        endpoint: None,
    })?;
    if args.model.is_none() {
        let root = place.dir.join("models");
        assets::write_registry(&root).map_err(|e| fail("write the bundled models", &e))?;
        std::fs::write(place.schema(), assets::SCHEMA).map_err(|e| fail("write a schema", &e))?;
    }
    let options = service::Options::default();
    let (stop, status) = (options.stop.clone(), options.status.clone());
    let commands = options.commands.0.clone();
    let runtime = service::runtime()?;
    let open_naming = naming.clone();
    let log = place.log();
    let open =
        move |config: &Config, opening: &Opening| sqlite::open(&log, config, &open_naming, opening);
    let running = runtime.spawn(service::run(config.clone(), telemetry, options, open));
    let mut run = Run { store, naming, config, status, commands, running, total: 0 };
    if let Err(failure) = run.answer(args, &place) {
        // What the service says of its end is the cause.
        let ended =
            if run.running.is_finished() { runtime.block_on(run.running).ok() } else { None };
        return Err(ended.and_then(Result::err).unwrap_or(failure));
    }
    let summary = Summary::read(&run.store, &run.naming, run.config.output.format)
        .map_err(|e| fail("read the outcomes", &e))?;
    line(format_args!("\n{summary}"))?;
    let address = run.status.now().listening.map_or_else(String::new, |at| at.to_string());
    if args.keep {
        line(format_args!("  its page      http://{address}/ shows it at work; Ctrl-C ends it"))?;
        if args.model.is_none() {
            run.keep(args, &place)?;
        }
    } else {
        stop.cancel();
    }
    let dir = if args.dir.is_some() { "" } else { "; --dir DIR keeps the log" };
    let ended = runtime.block_on(run.running);
    runtime.shutdown_background();
    drop(place);
    if !args.keep {
        line(format_args!("  its page      was at http://{address}/; --keep leaves it up{dir}"))?;
    }
    ended.map_err(|e| fail("run the service", &e))??;
    Ok(summary)
}

/// Records of a turn: from 3 to 15 and back, so that the chart has something to show.
fn handful(turn: u64) -> usize {
    let from_the_trough = (turn % WAVE_TURNS).abs_diff(WAVE_TURNS / 2);
    3 + usize::try_from(from_the_trough / 15).unwrap_or(0)
}

/// A service that runs, and the log that feeds it.
struct Run {
    store: Store,
    naming: Naming,
    config: Config,
    status: Board,
    commands: mpsc::Sender<Command>,
    running: tokio::task::JoinHandle<Result<(), Failure>>,
    /// Records produced.
    total: u64,
}

impl Run {
    /// Has everything answered.
    fn answer(&mut self, args: &Args, place: &Place) -> Result<(), Failure> {
        self.page()?;
        match &args.model {
            None => self.table(args, place)?,
            Some(_) => self.lines(&args.input)?,
        }
        self.wait_for(self.total)
    }

    /// The bundled table, `passes` times; the alias moves to version 2 half-way.
    fn table(&mut self, args: &Args, place: &Place) -> Result<(), Failure> {
        let passes = args.passes;
        let lines = records::values(args.is_avro());
        line(format_args!(
            "{} records × {passes} passes of the breast-cancer table, model {} version 1",
            lines.len(),
            assets::MODEL
        ))?;
        let half = passes / 2;
        for pass in 0..passes {
            if pass == half {
                self.wait_for(self.total)?;
                self.promote(place, Version(2))?;
            }
            let records = lines.iter().enumerate();
            let records = records.map(|(number, value)| message(number, value.clone()));
            self.append(records.collect())?;
        }
        Ok(())
    }

    /// Moves the alias.
    fn promote(&self, place: &Place, version: Version) -> Result<(), Failure> {
        let registry = Registry::new(Some(place.dir.join("models")));
        let moved = registry.promote(assets::MODEL, version, "champion");
        moved.map_err(|e| fail("move the alias", &e))?;
        // Too many wait: then a look is due anyway.
        self.commands.try_send(Command::Reload).unwrap_or_default();
        line(format_args!(
            "  alias champion moved to version {version}: the service loads, checks and swaps it in"
        ))
    }

    /// A few records a second and a swap now and then, until the service is told to stop; the log takes no more than
    /// [`KEPT_PASSES`] passes of the table.
    fn keep(&mut self, args: &Args, place: &Place) -> Result<(), Failure> {
        let values = records::values(args.is_avro());
        let (_sender, pause) = sync_channel::<()>(0);
        let mut rows = values.iter().enumerate().cycle().take(values.len() * KEPT_PASSES);
        let mut turn = 0_u64;
        while !self.running.is_finished() {
            turn += 1;
            let some = rows.by_ref().take(handful(turn));
            let messages: Vec<Message> =
                some.map(|(number, value)| message(number, value.clone())).collect();
            if !messages.is_empty() {
                self.append(messages)?;
            }
            if turn.is_multiple_of(SWAP_TURNS) {
                self.promote(place, Version(1 + (turn / SWAP_TURNS + 1) % 2))?;
            }
            pause.recv_timeout(TURN).unwrap_or_default();
        }
        Ok(())
    }

    /// Says where its page is, once it is there.
    fn page(&self) -> Result<(), Failure> {
        let (_sender, pause) = sync_channel::<()>(0);
        loop {
            if let Some(address) = self.status.now().listening {
                return line(format_args!("  its page is at http://{address}/"));
            }
            if self.running.is_finished() {
                return Err(ended_early());
            }
            pause.recv_timeout(Duration::from_millis(10)).unwrap_or_default();
        }
    }

    /// Lines of a file or of standard input.
    fn lines(&mut self, input: &Path) -> Result<(), Failure> {
        let reader: Box<dyn BufRead> = if input.as_os_str() == "-" {
            if io::stdin().is_terminal() {
                line("type lines of text, end with Ctrl-D")?;
            }
            Box::new(io::stdin().lock())
        } else {
            let file = std::fs::File::open(input);
            let file = file.map_err(|e| fail(&format!("read {}", input.display()), &e))?;
            Box::new(BufReader::new(file))
        };
        let mut messages = Vec::new();
        for (number, line) in reader.lines().enumerate() {
            let line = line.map_err(|e| fail(&format!("read line {}", number + 1), &e))?;
            messages.push(message(number, line.into_bytes()));
        }
        self.append(messages)?;
        self.wait_for(self.total)?;
        for partition in 0..i32::from(PARTITIONS) {
            let first = self.store.read(&self.naming.output, partition, Offset(0), 2);
            for stored in first.map_err(|e| fail("read the predictions", &e))? {
                let value =
                    String::from_utf8_lossy(stored.message.value.as_deref().unwrap_or(b"null"))
                        .into_owned();
                let short: String = value.chars().take(72).collect();
                line(format_args!("  {short}…"))?;
            }
        }
        Ok(())
    }

    fn append(&mut self, messages: Vec<Message>) -> Result<(), Failure> {
        let topic = self.config.input.topics[0].clone();
        let mut spread: Vec<Vec<Message>> = (0..PARTITIONS).map(|_| Vec::new()).collect();
        for (number, message) in messages.into_iter().enumerate() {
            spread[number % usize::from(PARTITIONS)].push(message);
            self.total += 1;
        }
        for (partition, messages) in (0..).zip(&spread) {
            self.store
                .append(&topic, partition, messages)
                .map_err(|e| fail("produce records", &e))?;
        }
        Ok(())
    }

    /// Waits until so many records have a committed outcome, and shows how it goes on.
    fn wait_for(&self, records: u64) -> Result<(), Failure> {
        let (_sender, pause) = sync_channel::<()>(0);
        let mut shown: Option<Instant> = None;
        loop {
            let mut done = 0;
            for partition in 0..i32::from(PARTITIONS) {
                let topic = &self.config.input.topics[0];
                let committed = self.store.committed(&self.config.kafka.group, topic, partition);
                let committed = committed.map_err(|e| fail("read an offset", &e))?;
                done += committed.map_or(0, |next| u64::try_from(next.0).unwrap_or(0));
            }
            #[expect(clippy::disallowed_methods, reason = "paces what is shown")]
            let now = Instant::now();
            let due = shown.is_none_or(|at| Duration::from_millis(500) < now - at);
            if due || records <= done {
                shown = Some(now);
                let status = self.status.now();
                let version = status
                    .serving
                    .as_ref()
                    .map_or_else(|| "loading".to_owned(), ToString::to_string);
                line(format_args!(
                    "  {:>9} of {} records committed, {version}",
                    thousands(done),
                    thousands(records)
                ))?;
            }
            if records <= done {
                return Ok(());
            }
            if self.running.is_finished() {
                return Err(ended_early());
            }
            pause.recv_timeout(Duration::from_millis(10)).unwrap_or_default();
        }
    }
}

fn ended_early() -> Failure {
    let message = "the service ended early; its log says why".to_owned();
    Failure { message, exit: Exit::Software }
}

fn message(number: usize, value: Vec<u8>) -> Message {
    #[expect(clippy::disallowed_methods, reason = "a record's timestamp is wall time")]
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Message {
        timestamp: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        key: Some(number.to_string().into_bytes()),
        value: Some(value),
        headers: Vec::new(),
    }
}

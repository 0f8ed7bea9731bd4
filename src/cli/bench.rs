//! `tidemill bench`: how fast a model is on this machine, and which settings to write.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::predict::precision;
use super::terminal::{self, note};
use crate::bench::statistics::{agreement, duration};
use crate::bench::{Crew, Curve, Point, Report, chart, recommend, sentences};
use crate::config::{Config, Place, Precision, Uri, Workers};
use crate::decode::{Decoded, Decoder, Prepared};
use crate::failure::{Exit, Failure, chain};
use crate::file::{self, Links};
use crate::format::Codec;
use crate::model::served::Served;
use crate::model::{Input, guard, kernels};
use crate::pipeline::Item;
use crate::record::{Epoch, Offset, Partition, Record};
use crate::registry::Registry;
use crate::service;

mod measure;

use measure::{Measured, Records, Side};

/// A record's fields.
type Fields = serde_json::Map<String, Value>;

/// Arguments of `tidemill bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A directory, or `models:/name@alias` with --root
    #[arg(long, value_name = "URI|DIR")]
    model: Uri,
    /// The registry's directory
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// f32, bf16, int8 or auto, on GPUs f32, bf16, f16 or auto; several are compared: f32,int8
    #[arg(long, default_value = "f32", value_delimiter = ',', value_parser = precision)]
    precision: Vec<Precision>,
    /// cpu, cuda:0
    #[arg(long, default_value = "cpu")]
    device: Place,
    /// Inference threads; default: 1, half and all cores are compared
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
    /// The field that holds the text
    #[arg(long, default_value = "text")]
    field: String,
    /// JSON lines, one record each; default: built-in texts, or the artifact's golden.json
    #[arg(long, value_name = "FILE|-")]
    input: Option<PathBuf>,
    /// The largest batch; sizes are 1, 2, 4, … up to it
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_records: u32,
    /// How often each size is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// About how long all of it may take; sizes that do not fit are left out
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Draw the curves into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// For ourselves: print the resident memory at each size, with this precision alone
    #[arg(long, hide = true, value_parser = precision)]
    memory_of: Option<Precision>,
    /// … up to this size
    #[arg(long, hide = true, default_value_t = 1)]
    memory_up_to: u32,
}

/// Most records that are read: enough of any mix.
const MOST_RECORDS: usize = 4_096;

/// Largest file of golden vectors that is read, in bytes.
const MOST_GOLDEN: u64 = 8 << 20;

/// Records whose answers are compared between precisions.
const COMPARED: usize = 64;

/// The part of the time that goes to comparing numbers of workers.
const CREWS: u32 = 5;

/// Measures and prints. 0, or the failure's code.
pub fn run(args: &Args) -> ExitCode {
    let done = match args.memory_of {
        Some(precision) => memory(args, precision),
        None => bench(args).and_then(|report| shown(args, &report)),
    };
    terminal::end(done.and_then(terminal::say))
}

/// What is printed; the picture is written.
fn shown(args: &Args, report: &Report) -> Result<String, Failure> {
    if let Some(file) = &args.svg {
        fs::write(file, chart::svg(report)).map_err(|error| Failure {
            message: format!("write {}: {error}; give --svg a file", file.display()),
            exit: Exit::Io,
        })?;
    }
    if args.json { as_json(report) } else { Ok(report.to_string()) }
}

fn as_json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map(|json| json + "\n").map_err(|error| Failure {
        message: format!("write the result as JSON: {error}; this is a bug"),
        exit: Exit::Software,
    })
}

fn config(args: &Args, precision: Precision) -> Config {
    let mut config = Config::default();
    config.model.uri.clone_from(&args.model);
    config.registry.root.clone_from(&args.root);
    config.input.field.clone_from(&args.field);
    config.model.precision = precision;
    config.model.device.clone_from(&args.device);
    config.model.workers = args.workers.map_or(Workers::Auto, Workers::Count);
    config
}

fn bench(args: &Args) -> Result<Report, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cores = u16::try_from(cores).unwrap_or(u16::MAX);
    let time = Duration::from_secs(args.seconds.into());
    let counts = if args.workers.is_none() { counts(cores) } else { Vec::new() };
    let for_crews = if counts.is_empty() { Duration::ZERO } else { time / CREWS };
    let (mut sides, records, left) = sides(args, cores, time.saturating_sub(for_crews))?;
    measure::rounds(&mut sides, &records, (args.rounds, left))?;
    let curves = curves(&sides, &records)?;
    let crews = crews(&sides, &curves, &records, (&counts, args.rounds, for_crews))?;
    let Some(side) = sides.first() else {
        let message = "no precision was given; write --precision f32".to_owned();
        return Err(Failure { message, exit: Exit::Usage });
    };
    let about = side.served.model.about();
    let id = &side.served.id;
    let mut report = Report {
        model: if id.version.0 == 0 { id.name.to_string() } else { id.to_string() },
        task: about.task.name(),
        architecture: about.architecture.clone(),
        device: about.device.clone(),
        instructions: kernels::level().name().to_owned(),
        cores,
        unit: if about.task.is_of_text() { "token" } else { "row" },
        records: u64::try_from(records.different).unwrap_or(u64::MAX),
        tokens_a_record: records.tokens_a_record(),
        curves,
        crews,
        recommendation: None,
    };
    report.recommendation = recommend::recommend(&report);
    Ok(report)
}

/// 1, half and all cores; nothing to compare on one core.
fn counts(cores: u16) -> Vec<u16> {
    let mut counts = vec![1, cores / 2, cores];
    counts.retain(|count| *count != 0);
    counts.dedup();
    if counts.len() == 1 { Vec::new() } else { counts }
}

fn sizes(most: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(1_u32), |size| size.checked_mul(2))
        .take_while(move |size| *size <= most)
}

/// Loads every precision and warms it up; the records; and what is left of the time.
fn sides(
    args: &Args,
    cores: u16,
    mut time: Duration,
) -> Result<(Vec<Side>, Records, Duration), Failure> {
    let mut sides: Vec<Side> = Vec::new();
    let mut records: Option<Records> = None;
    let several = 1 < args.precision.len();
    let share = time / u32::try_from(args.precision.len()).unwrap_or(u32::MAX).max(1);
    for precision in &args.precision {
        let served = Arc::new(load(args, *precision)?);
        let computed = served.model.about().precision;
        if sides.iter().any(|side| side.served.model.about().precision == computed) {
            note(format!("{precision:?} is {computed} here, which is measured already: left out"));
            continue;
        }
        let records = match &mut records {
            Some(records) => records,
            none => none.insert(read(args, &served)?),
        };
        let mut side = Side::start(served, args.workers.unwrap_or(cores))?;
        note(format!("{}, {computed}: {} records", side.served.id, records.different));
        let began = measure::now();
        // Memory is read in a pass of its own.
        let passes = args.rounds + u32::from(several);
        if let Some((size, batch)) =
            side.warm_up(records, sizes(args.max_records), (passes, share))?
        {
            note(format!(
                "{computed}: batches of {size} records and more are left out, one takes about {}; give more \
                 --seconds or fewer --rounds to measure them",
                duration(batch.as_secs_f64())
            ));
        }
        if several {
            let most = side.sizes.last().map_or(1, |measured| measured.size);
            let alone = alone(*precision, most);
            if alone.is_empty() {
                note(format!("{computed}: its memory is not known; measure it alone"));
            }
            for (place, measured) in side.sizes.iter_mut().enumerate() {
                measured.resident = alone.get(place).copied();
            }
        }
        time = time.saturating_sub(began.elapsed());
        sides.push(side);
    }
    note(format!("measuring, about {} s", time.as_secs()));
    let records = records.ok_or_else(|| Failure {
        message: "no precision was given; write --precision f32".to_owned(),
        exit: Exit::Usage,
    })?;
    Ok((sides, records, time))
}

/// Resident bytes at each size, as JSON.
fn memory(args: &Args, precision: Precision) -> Result<String, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = args.workers.unwrap_or_else(|| u16::try_from(cores).unwrap_or(u16::MAX));
    let served = Arc::new(load(args, precision)?);
    let records = read(args, &served)?;
    let mut side = Side::start(served, workers)?;
    side.warm_up(&records, sizes(args.memory_up_to.min(args.max_records)), (0, Duration::MAX))?;
    as_json(&side.sizes.iter().filter_map(|measured| measured.resident).collect::<Vec<u64>>())
}

/// Resident bytes at each size, of this command again with one precision: in one process the second model takes the
/// memory that loading the first has freed, and looks smaller than it is. Empty where that cannot be had.
fn alone(precision: Precision, most: u32) -> Vec<u64> {
    let again = || {
        let name = serde_json::to_value(precision).ok()?;
        let output = Command::new(std::env::current_exe().ok()?)
            .args(std::env::args_os().skip(1))
            .args(["--memory-of", name.as_str()?, "--memory-up-to", &most.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        serde_json::from_slice(&output.stdout).ok()
    };
    again().unwrap_or_default()
}

fn load(args: &Args, precision: Precision) -> Result<Served, Failure> {
    let loaded = service::load_model(&config(args, precision));
    loaded.map_err(|failure| Failure {
        message: format!(
            "{}; give --model a directory with config.json and model.safetensors, or models:/NAME@ALIAS with \
             --root DIR",
            failure.message
        ),
        exit: failure.exit,
    })
}

fn point(measured: &Measured, records: &Records) -> Point {
    let mean = records.tokens_a_record();
    Point::new(measured.size, mean, &measured.samples, measured.resident)
}

fn curves(sides: &[Side], records: &Records) -> Result<Vec<Curve>, Failure> {
    let exact = sides.iter().find(|side| side.served.model.about().precision == "f32");
    let inputs: Vec<&Input> = records
        .first(COMPARED)
        .iter()
        .filter_map(|item| match &item.payload.prepared {
            Prepared::Input(input) => Some(input),
            Prepared::Tombstone | Prepared::Fault(_) => None,
        })
        .collect();
    let answers = |side: &Side| {
        guard::predict(side.served.model.as_ref(), &inputs).map_err(|refused| Failure {
            message: format!("compare the answers of two precisions: {refused}"),
            exit: Exit::Data,
        })
    };
    let expected = match exact {
        Some(exact) if sides.len() != 1 => Some(answers(exact)?),
        _ => None,
    };
    let curve = |side: &Side| {
        let precision = side.served.model.about().precision;
        let agreement = match &expected {
            Some(expected) if precision != "f32" => agreement(expected, &answers(side)?),
            _ => None,
        };
        let points = side.sizes.iter().map(|measured| point(measured, records)).collect();
        Ok(Curve::new(precision.to_owned(), side.workers, agreement, points))
    };
    sides.iter().map(curve).collect()
}

/// The recommended size and precision with each number of workers.
fn crews(
    sides: &[Side],
    curves: &[Curve],
    records: &Records,
    (counts, rounds, time): (&[u16], u32, Duration),
) -> Result<Vec<Crew>, Failure> {
    let best = recommend::fastest(curves);
    let size = best.and_then(|best| best.points.get(recommend::knee(&best.points)?));
    let named = |side: &&Side| {
        best.is_some_and(|best| best.precision == side.served.model.about().precision)
    };
    let (Some(size), Some(side)) = (size, sides.iter().find(named)) else {
        return Ok(Vec::new());
    };
    let start = |count: &u16| {
        let mut crew = Side::start(Arc::clone(&side.served), *count)?;
        crew.sizes.push(Measured::at(size.records));
        Ok(crew)
    };
    let mut crews: Vec<Side> = counts.iter().map(start).collect::<Result<_, Failure>>()?;
    // New threads have no scratch space yet: a round that does not count.
    measure::rounds(&mut crews, records, (1, Duration::ZERO))?;
    crews.iter_mut().flat_map(|crew| &mut crew.sizes).for_each(|size| size.samples.clear());
    measure::rounds(&mut crews, records, (rounds, time))?;
    let crew = |side: &Side| {
        let measured = side.sizes.first()?;
        Some(Crew { workers: side.workers, point: point(measured, records) })
    };
    Ok(crews.iter().filter_map(crew).collect())
}

/// The records to run: lines of the input, built-in texts, or the artifact's golden inputs.
fn read(args: &Args, served: &Served) -> Result<Records, Failure> {
    let lines = match &args.input {
        Some(file) => lines(file)?,
        None if served.model.about().task.is_of_text() => {
            let fields = &served.model.about().fields;
            let line = |text: String| {
                let named = fields.iter().map(|field| (field.clone(), Value::from(text.as_str())));
                Value::Object(named.collect()).to_string()
            };
            sentences::texts(sentences::CYCLE).into_iter().map(line).collect()
        }
        None => golden(args, served)?,
    };
    let decoder = Decoder::new(Arc::new(Codec::new(&config(args, Precision::F32))?));
    let item = |line: &String| -> Item<Decoded> {
        let record = Record::of_value(
            Partition { topic: 0, number: 0 },
            Offset(0),
            Some(line.clone().into_bytes()),
        );
        decoder.item(Epoch(0), record, None, served)
    };
    let mut fault = None;
    let (mut good, mut items) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(&lines) {
        let item = item(line);
        match &item.payload.prepared {
            Prepared::Fault(why) => {
                fault.get_or_insert_with(|| format!("record {number}: {why}"));
            }
            Prepared::Tombstone => (),
            Prepared::Input(_) => {
                good.push(line);
                items.push(item);
            }
        }
    }
    let (bad, fault) = (lines.len() - good.len(), fault.unwrap_or_else(|| "no records".to_owned()));
    if good.is_empty() {
        let fields = served.model.about().fields.join(", ");
        let message = format!(
            "read the records: none of {bad} can be used ({fault}); give --input JSON lines with the model's \
             fields: {fields}"
        );
        return Err(Failure { message, exit: Exit::Data });
    }
    if bad != 0 {
        note(format!("{bad} of {} records cannot be used and are left out ({fault})", lines.len()));
    }
    let longest = usize::try_from(args.max_records).unwrap_or(usize::MAX);
    Ok(Records::new(items, longest, |row| item(good[row])))
}

/// Lines that are not blank, the first [`MOST_RECORDS`] of them.
fn lines(file: &Path) -> Result<Vec<String>, Failure> {
    let cannot = |error: io::Error| Failure {
        message: format!("read {}: {error}; give --input a file of JSON lines", file.display()),
        exit: Exit::NoInput,
    };
    let input: Box<dyn BufRead> = if file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(file).map_err(cannot)?))
    };
    let blank = |line: &io::Result<String>| line.as_ref().is_ok_and(|line| line.trim().is_empty());
    let lines = input.lines().filter(|line| !blank(line)).take(MOST_RECORDS);
    lines.collect::<io::Result<_>>().map_err(cannot)
}

/// The inputs of the artifact's golden vectors.
fn golden(args: &Args, served: &Served) -> Result<Vec<String>, Failure> {
    #[derive(Deserialize)]
    struct Pair {
        input: Fields,
    }
    let about = served.model.about();
    let wanted = |why: &str| Failure {
        message: format!(
            "find records for {}: {why}; give --input FILE with JSON lines that have {}",
            about.task.name(),
            about.fields.join(", ")
        ),
        exit: Exit::NoInput,
    };
    let config = config(args, Precision::F32);
    let dir = Registry::new(config.registry.root).resolve(&config.model.uri);
    let file = dir.map_err(|error| wanted(&chain(&error)))?.dir.join("golden.json");
    let text = file::read(&file, MOST_GOLDEN, Links::Refuse);
    let text = text.map_err(|error| wanted(&format!("{}: {error}", file.display())))?;
    let pairs: Vec<Pair> = serde_json::from_slice(&text)
        .map_err(|error| wanted(&format!("{}: {error}", file.display())))?;
    Ok(pairs.into_iter().map(|pair| Value::Object(pair.input).to_string()).collect())
}

//! `tidemill models`: the versions of a registry.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::predict::task;
use super::terminal;
use crate::answer::Task;
use crate::config::Uri;
use crate::config::uri::NotAUri;
use crate::failure::{Exit, Failure, chain};
use crate::model::artifact;
use crate::model::options::LoadOptions;
use crate::model::report::{Done, Report};
use crate::printable;
use crate::record::Version;
use crate::registry::{self, Broken, Error, Imported, Listed, Registry};

/// `tidemill models …`.
#[derive(Debug, Subcommand)]
pub enum Models {
    /// Show every version and its aliases, and what is no version or alias; `models verify` looks into a version's files
    List {
        /// Where the registry is
        #[command(flatten)]
        root: Root,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Copy a model's directory in as the next version, checked and with its manifest
    Import {
        /// Where the registry is
        #[command(flatten)]
        root: Root,
        /// The directory: a Hugging Face one, or an artifact
        from: PathBuf,
        /// The registered name
        name: String,
        /// Point this alias at it
        #[arg(long)]
        alias: Option<String>,
        /// What a text model is for, where its files do not say: text-embedding, text-classification, text-ranking or
        /// token-classification
        #[arg(long, value_parser = task)]
        task: Option<Task>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Check a version's files, load it, and compare its golden vectors
    Verify {
        /// Where the registry is
        #[command(flatten)]
        root: Root,
        /// `models:/name/3`, `models:/name@alias`, or a directory
        model: String,
        /// What the model is for, where its files do not say
        #[arg(long, value_parser = task)]
        task: Option<Task>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Point an alias at a version: this is how a model ships
    Promote {
        /// Where the registry is
        #[command(flatten)]
        root: Root,
        /// The registered name
        name: String,
        /// The version
        #[arg(value_parser = number)]
        version: u64,
        /// The alias
        #[arg(long, default_value = "champion")]
        alias: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Point champion back at the version before; once more, and it points at the newer one again
    Rollback {
        /// Where the registry is
        #[command(flatten)]
        root: Root,
        /// The registered name
        name: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// The registry's place.
#[derive(Debug, Clone, clap::Args)]
pub struct Root {
    /// The registry's directory
    #[arg(long, env = "TIDEMILL_REGISTRY__ROOT", value_name = "DIR", default_value = "models")]
    root: PathBuf,
}

impl Root {
    fn open(&self) -> Registry {
        Registry::new(Some(self.root.clone()))
    }
}

/// Does what the command says. 0, or 65 with what is wrong; 74 where the result cannot be written.
pub fn run(command: &Models) -> ExitCode {
    let done = execute(command);
    let done = done.map_err(|error| Failure { message: chain(&error), exit: Exit::Data });
    terminal::end(done.and_then(terminal::say))
}

fn execute(command: &Models) -> Result<String, Error> {
    match command {
        Models::List { root, json } => {
            let (listed, broken) = root.open().list()?;
            Ok(if *json { object(&listed, &broken) } else { table(&listed, &broken) })
        }
        Models::Import { root, from, name, alias, task, json } => {
            let registry = root.open();
            // Before anything is imported: a version that is there stays.
            if let Some(alias) = alias {
                registry::name(alias)?;
            }
            let Imported { version, notes, report } =
                registry.import(from, name, &options(*task))?;
            if let Some(alias) = alias {
                registry.promote(name, version, alias)?;
            }
            if *json {
                return Ok(one(&json!({
                    "model": name, "version": version.0, "alias": alias, "from": from.display().to_string(),
                    "steps": steps(&report), "notes": notes,
                })));
            }
            let mut said = format!("imported {} as {name} version {version}\n", from.display());
            said.extend(report.steps.iter().map(|done| format!("passed: {done}\n")));
            said.extend(notes.iter().map(|note| format!("note: {note}\n")));
            if let Some(alias) = alias {
                said.push_str(&pointed(name, alias, version, false));
            }
            Ok(said)
        }
        Models::Verify { root, model, task, json } => verify(&root.open(), model, *task, *json),
        Models::Promote { root, name, version, alias, json } => {
            root.open().promote(name, Version(*version), alias)?;
            Ok(pointed(name, alias, Version(*version), *json))
        }
        Models::Rollback { root, name, json } => {
            let version = root.open().rollback(name)?;
            Ok(pointed(name, "champion", version, *json))
        }
    }
}

/// The number of a version.
fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_error| {
        "a version is a whole number, as 3; `tidemill models list` shows those there are".to_owned()
    })
}

fn options(task: Option<Task>) -> LoadOptions {
    let mut options = LoadOptions::default();
    options.model.task = task;
    options
}

fn one(object: &Value) -> String {
    printable::json(object) + "\n"
}

/// How a version went through the gate.
fn steps(report: &Report) -> Vec<Value> {
    let step = |done: &Done| json!({"step": done.step.name(), "seconds": done.took.as_secs_f64(), "found": done.found});
    report.steps.iter().map(step).collect()
}

fn pointed(name: &str, alias: &str, version: Version, json: bool) -> String {
    if json {
        return one(&json!({"model": name, "alias": alias, "version": version.0}));
    }
    format!("models:/{name}@{alias} is version {version} now; replicas swap at their next look\n")
}

fn verify(
    registry: &Registry,
    model: &str,
    task: Option<Task>,
    json: bool,
) -> Result<String, Error> {
    let uri: Uri = model
        .parse()
        .map_err(|error: NotAUri| Error::NotFound(format!("{error}: {}", Uri::FORM)))?;
    let dir = registry.resolve(&uri)?.dir;
    let served = registry.load(&uri, &options(task))?;
    let about = served.model.about();
    let has_manifest = artifact::has_manifest(&dir);
    if json {
        let id = &served.id;
        return Ok(one(&json!({
            "model": *id.name, "version": id.version.0, "digest": *id.digest, "has_manifest": has_manifest,
            "task": about.task, "architecture": about.architecture, "precision": about.precision,
            "bytes": about.bytes, "fields": about.fields, "labels": about.labels,
            "steps": steps(&served.report), "notes": about.notes,
        })));
    }
    let mib = about.bytes.div_ceil(1 << 20);
    Ok(format!(
        "{} is good\n  digest        {}{}\n  task          {}\n  architecture  {}, {}, {mib} MiB\n  fields        {}\n  labels        {}\n{}{}",
        served.id,
        served.id.digest,
        if has_manifest { ", files as in its manifest" } else { ", no manifest: computed now" },
        about.task.name(),
        about.architecture,
        about.precision,
        about.fields.join(", "),
        if about.labels.is_empty() { "-".to_owned() } else { about.labels.join(", ") },
        lines("passed", &served.report.steps),
        lines("note", &about.notes),
    ))
}

/// A line for each, beginning with what they are.
fn lines(what: &str, each: &[impl Display]) -> String {
    each.iter().map(|one| format!("  {what:<13} {one}\n")).collect::<Vec<_>>().concat()
}

fn object(listed: &[Listed], broken: &[Broken]) -> String {
    let versions = listed.iter().map(|Listed { name, version, aliases }| {
        json!({"model": name, "version": version.0, "aliases": aliases})
    });
    let broken = broken.iter().map(|Broken { place, why }| json!({"place": place, "why": why}));
    let (versions, broken): (Vec<_>, Vec<_>) = (versions.collect(), broken.collect());
    one(&json!({ "versions": versions, "broken": broken }))
}

/// A line for each version, then one for each thing that is broken.
fn table(listed: &[Listed], broken: &[Broken]) -> String {
    let width = listed.iter().map(|row| row.name.len()).max().unwrap_or(0).max(5);
    let mut lines = vec![format!("{:<width$}  {:>7}  ALIASES", "MODEL", "VERSION")];
    lines.extend(listed.iter().map(|Listed { name, version, aliases }| {
        format!("{name:<width$}  {:>7}  {}", version.0, aliases.join(", "))
    }));
    lines.extend(broken.iter().map(|Broken { place, why }| format!("broken: {place}: {why}")));
    lines.join("\n") + "\n"
}

//! `tidemill models`: the versions of a registry.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;

use crate::model::artifact::{self, LoadOptions};
use crate::record::Version;
use crate::registry::{Error, Listed, Registry, Uri};
use crate::service;

/// `tidemill models …`.
#[derive(Debug, Subcommand)]
pub enum Models {
    /// Show every version and its aliases
    List(Root),
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
    },
    /// Check a version's files, load it, and compare its golden vectors
    Verify {
        /// Where the registry is
        #[command(flatten)]
        root: Root,
        /// `models:/name/3`, `models:/name@alias`, or a directory
        model: String,
    },
    /// Point an alias at a version: this is how a model ships
    Promote {
        /// Where the registry is
        #[command(flatten)]
        root: Root,
        /// The registered name
        name: String,
        /// The version
        version: u64,
        /// The alias
        #[arg(long, default_value = "champion")]
        alias: String,
    },
    /// Point champion back at the version before
    Rollback {
        /// Where the registry is
        #[command(flatten)]
        root: Root,
        /// The registered name
        name: String,
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

/// Does what the command says. 0, or 65 with what is wrong.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to its terminal")]
pub fn run(command: &Models) -> ExitCode {
    match execute(command) {
        Ok(said) => {
            print!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}", service::chain(&error));
            ExitCode::from(65)
        }
    }
}

fn execute(command: &Models) -> Result<String, Error> {
    match command {
        Models::List(root) => Ok(table(&root.open().list()?)),
        Models::Import { root, from, name, alias } => {
            let registry = root.open();
            let version = registry.import(from, name, &options())?;
            let mut said = format!("imported {} as {name} version {version}\n", from.display());
            if let Some(alias) = alias {
                registry.promote(name, version, alias)?;
                said.push_str(&pointed(name, alias, version));
            }
            Ok(said)
        }
        Models::Verify { root, model } => verify(&root.open(), model),
        Models::Promote { root, name, version, alias } => {
            root.open().promote(name, Version(*version), alias)?;
            Ok(pointed(name, alias, Version(*version)))
        }
        Models::Rollback { root, name } => {
            let version = root.open().rollback(name)?;
            Ok(pointed(name, "champion", version))
        }
    }
}

fn options() -> LoadOptions {
    LoadOptions { field: "text".to_owned(), device: "cpu".to_owned(), ..LoadOptions::default() }
}

fn pointed(name: &str, alias: &str, version: Version) -> String {
    format!("models:/{name}@{alias} is version {version} now; replicas swap at their next look\n")
}

fn verify(registry: &Registry, model: &str) -> Result<String, Error> {
    let uri: Uri = model
        .parse()
        .map_err(|error: crate::registry::NotAUri| Error::NotFound(error.to_string()))?;
    let dir = registry.resolve(&uri)?.dir;
    let manifest = has_manifest(&dir);
    let served = registry.load(&uri, &options())?;
    let about = served.model.about();
    let mib = about.bytes.div_ceil(1 << 20);
    Ok(format!(
        "{} is good\n  digest        {}{}\n  task          {:?}\n  architecture  {}, {}, {mib} MiB\n  fields        {}\n  labels        {}\n",
        served.id,
        served.id.digest,
        if manifest { ", files as in its manifest" } else { ", no manifest: computed now" },
        about.task,
        about.architecture,
        about.precision,
        about.fields.join(", "),
        if about.labels.is_empty() { "-".to_owned() } else { about.labels.join(", ") },
    ))
}

fn has_manifest(dir: &Path) -> bool {
    matches!(artifact::verify(dir), Ok((Some(_), _)))
}

fn table(listed: &[Listed]) -> String {
    let width = listed.iter().map(|row| row.name.len()).max().unwrap_or(0).max(5);
    let mut lines = vec![format!("{:<width$}  {:>7}  ALIASES", "MODEL", "VERSION")];
    lines.extend(listed.iter().map(|Listed { name, version, aliases }| {
        format!("{name:<width$}  {:>7}  {}", version.0, aliases.join(", "))
    }));
    lines.join("\n") + "\n"
}

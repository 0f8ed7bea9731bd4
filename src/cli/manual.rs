//! What packagers ask for: completions of shells, the man pages, and which build this is.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, terminal};
use crate::failure::{Exit, Failure, unwritten};
use crate::http::about::{BUILD, Build};

/// Arguments of `tidemill completions`.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// Which shell
    shell: Shell,
}

/// Arguments of `tidemill man`.
#[derive(Debug, clap::Args)]
pub struct Man {
    /// Write a page for each command here; without it, the page of tidemill goes to stdout
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Which build this is, for `--version`.
pub(super) fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let Build { version, commit, target, devices } = BUILD;
        let commit = commit.map_or_else(String::new, |commit| format!(" ({commit})"));
        let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
        format!(
            "{version}{commit}\ntarget      {target}\ndevices     {devices}\nlibrdkafka  {librdkafka}"
        )
    });
    VERSION.as_str()
}

/// Prints what a shell reads to complete commands.
pub fn completions(args: &Completions) -> ExitCode {
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tidemill", &mut out);
    terminal::end(terminal::say(String::from_utf8_lossy(&out)))
}

/// Writes the man pages.
pub fn man(args: &Man) -> ExitCode {
    let written = match &args.dir {
        Some(dir) => clap_mangen::generate_to(Cli::command(), dir).map_err(|error| Failure {
            message: format!(
                "write the man pages to {}: {error}; it has to be a folder",
                dir.display()
            ),
            exit: Exit::Io,
        }),
        None => {
            let mut page = Vec::new();
            let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
            rendered
                .map_err(|error| unwritten("write the man page", &error))
                .and_then(|()| terminal::say(String::from_utf8_lossy(&page)))
        }
    };
    terminal::end(written)
}

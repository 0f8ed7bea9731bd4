//! Placeholder.
use std::process::ExitCode;
/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}
/// Runs.
pub fn run(_args: &Args) -> ExitCode {
    ExitCode::FAILURE
}

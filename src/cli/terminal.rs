//! What a command says. Nobody may be listening: a reader that has seen enough ends the command quietly
//! (`tidemill models list | head -1`), a stderr that is closed or full ends nothing, and neither ends in a panic.
//!
//! What was said may hold names that strangers chose: what could steer a terminal is escaped.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::failure::{Exit, Failure, unwritten};
use crate::printable::escaped;

/// Control characters that lay a text out.
const KEPT: &str = "\n\t";

/// Writes `text`, as it is but for control characters, to stdout, at once.
///
/// # Errors
///
/// As of [`unwritten`].
pub(super) fn say(text: impl Display) -> Result<(), Failure> {
    let text = text.to_string();
    let text = escaped(&text, KEPT);
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| unwritten("write to stdout", &error))
}

/// As [`say`], with the end of the line.
///
/// # Errors
///
/// As of [`unwritten`].
pub(super) fn line(text: impl Display) -> Result<(), Failure> {
    say(format_args!("{text}\n"))
}

/// Writes a line to stderr: progress, or why the command fails.
pub(super) fn note(text: impl Display) {
    let text = format!("{text}\n");
    let text = escaped(&text, KEPT);
    // There is no other place to say that this failed.
    io::stderr().lock().write_all(text.as_bytes()).unwrap_or_default();
}

/// The exit code of a command that has come to its end; why it failed goes to stderr.
pub(super) fn end(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) | Err(Failure { exit: Exit::Success, .. }) => ExitCode::SUCCESS,
        Err(failure) => {
            note(&failure);
            failure.exit.into()
        }
    }
}

//! Why the process cannot go on, and with which exit code.

use std::process::ExitCode;
use std::{fmt, io};

/// Why the process cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What was being done, with which value, and what to do about it.
    pub message: String,
    /// With which code the process ends.
    pub exit: Exit,
}

/// How a process of ours ends, with the names and numbers of `sysexits.h` where it has them. README's table says the
/// same to operators; a test compares both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// All is done, or whoever read the results has seen enough. Nothing is to be done.
    Success = 0,
    /// The arguments cannot be read. See `--help`.
    Arguments = 2,
    /// The arguments do not go together. Leave one of them out.
    Usage = 64,
    /// What was read cannot be gone on with, and a new start would meet it again: too many dead letters, an offset or a
    /// topic that is gone, a promise that does not hold, a model that is not taken. Decide what is to become of it.
    Data = 65,
    /// A file that was named as input cannot be opened or read. Name another one, or allow it to be read.
    NoInput = 66,
    /// A rule that always holds was broken: a bug. Report it; what is committed is whole.
    Software = 70,
    /// A result cannot be written, and is lost. Make room, and run the command again.
    Io = 74,
    /// It may go well the next time, which begins at the committed offsets: the cluster does not answer, or a deadline
    /// is over. Start again, as Kubernetes and systemd do by themselves.
    Temporary = 75,
    /// The configuration does not hold here: a value, a permission, an address that is taken, a twin with the same name.
    /// Change what the message names; until then each start ends so.
    Config = 78,
    /// A second signal came before the stop was over. Nothing is to be done: a kill is safe at any time.
    Interrupted = 130,
}

impl Exit {
    /// Every one, by number.
    pub const ALL: [Self; 10] = [
        Self::Success,
        Self::Arguments,
        Self::Usage,
        Self::Data,
        Self::NoInput,
        Self::Software,
        Self::Io,
        Self::Temporary,
        Self::Config,
        Self::Interrupted,
    ];

    /// The number that the system is told.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// The number alone, as logs and messages have it.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.code().fmt(f)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Something that a new start may cure.
pub fn temporary(message: &str) -> Failure {
    Failure { message: message.to_owned(), exit: Exit::Temporary }
}

/// What a failed write of results means. A reader that has gone away has seen enough, as it may; else results are lost.
pub fn unwritten(what: &str, error: &io::Error) -> Failure {
    let gone = error.kind() == io::ErrorKind::BrokenPipe;
    let exit = if gone { Exit::Success } else { Exit::Io };
    Failure { message: format!("{what}: {error}"), exit }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_left_is_no_failure() {
        for (kind, exit) in [
            (io::ErrorKind::BrokenPipe, Exit::Success),
            (io::ErrorKind::StorageFull, Exit::Io),
            (io::ErrorKind::PermissionDenied, Exit::Io),
        ] {
            let failure = unwritten("write to stdout", &io::Error::from(kind));
            assert_eq!(failure.exit, exit, "{kind}");
            assert!(failure.message.starts_with("write to stdout: "));
        }
    }
}

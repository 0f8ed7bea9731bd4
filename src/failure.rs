//! Why the process cannot go on, and with which exit code.

/// Why the process cannot go on, and with which code the process exits (`sysexits.h`).
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What was being done, with which value, and what to do about it.
    pub message: String,
    /// 65 data, 75 temporary (start again), 78 configuration.
    pub exit: u8,
}

/// Something that a new start may cure.
pub fn temporary(message: &str) -> Failure {
    Failure { message: message.to_owned(), exit: 75 }
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

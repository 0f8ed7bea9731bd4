//! `tidemill trial`: loads a version in this process, so that one that cannot be loaded does not end the one that serves.
//! The service starts it; the task comes on stdin, and what is wrong goes to stderr.

use std::io::Read as _;
use std::process::ExitCode;

use crate::failure::{Exit, chain};
use crate::model::gate;
use crate::registry::trial::Task;

/// Most bytes of a task.
const MOST: u64 = 1 << 20;

/// Loads what stdin names. 0, or 65 with what is wrong.
#[expect(clippy::print_stderr, reason = "the service reads it")]
pub fn run() -> ExitCode {
    // Where memory runs out, it is this process that the system is to end.
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "1000") {
        tracing::debug!(%error, "this process is as likely to be ended as the service");
    }
    let mut text = Vec::new();
    let task = std::io::stdin()
        .take(MOST)
        .read_to_end(&mut text)
        .map_err(|error| error.to_string())
        .and_then(|_| serde_json::from_slice::<Task>(&text).map_err(|error| error.to_string()));
    let result = task
        .map_err(|error| format!("read what is to be tried: {error}"))
        .and_then(|task| gate::load(&task.dir, &task.options).map_err(|error| chain(&error)));
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            Exit::Data.into()
        }
    }
}

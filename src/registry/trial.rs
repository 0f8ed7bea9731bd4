//! A version is loaded for the first time in a process of its own, so that one which cannot be loaded ends that
//! process and not the one that serves.
//!
//! ```text
//!  service ─► tidemill trial (options on stdin) ─► the whole gate ─► exit 0 ──────────► loaded here
//!     └─ looks at its memory; more than there is ─► killed            └─ words on stderr ─► refused
//! ```

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::memory;
use crate::model::options::LoadOptions;

/// How often the memory of the trial is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Most characters of its last words that are kept.
const WORDS: usize = 2_000;

/// What a trial is to load.
#[derive(Debug, Serialize, Deserialize)]
pub struct Task {
    /// The version's directory.
    pub dir: PathBuf,
    /// How.
    pub options: LoadOptions,
}

/// Why a trial did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub enum Failed {
    /// The version is not good, and why.
    Refused(String),
    /// The process is to stop.
    Stopped,
}

/// Loads a version in a process of `program`, which may take at most `memory` bytes.
///
/// # Errors
///
/// Why the version is not good: what the gate said, what ended the process, or that it takes too much memory.
pub async fn run(
    program: &Path,
    task: &Task,
    memory: Option<u64>,
    stop: &CancellationToken,
) -> Result<(), Failed> {
    let cannot = |what: &str, error: &std::io::Error| {
        Failed::Refused(format!("try the version in a process of its own: {what}: {error}"))
    };
    let text = serde_json::to_vec(task).map_err(|error| cannot("write its task", &error.into()))?;
    let mut child = Command::new(program)
        .arg("trial")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| cannot("start it", &error))?;
    let words = words(&mut child);
    if let Some(mut stdin) = child.stdin.take() {
        // One that has died already says why in its status.
        stdin.write_all(&text).await.unwrap_or_default();
    }
    let most = memory.unwrap_or(u64::MAX);
    loop {
        tokio::select! {
            status = child.wait() => {
                let status = status.map_err(|error| cannot("wait for it", &error))?;
                return if status.success() { Ok(()) } else { Err(ended(status, &words.await)) };
            }
            () = stop.cancelled() => return Err(Failed::Stopped),
            () = tokio::time::sleep(LOOK) => {
                let used = child.id().and_then(|pid| memory::resident(&pid.to_string()));
                if let Some(used) = used.filter(|used| most < *used) {
                    child.kill().await.unwrap_or_default();
                    let (used, most) = (used >> 20, most >> 20);
                    return Err(Failed::Refused(format!(
                        "loading it takes {used} MiB and more, and {most} MiB are left; give the process more \
                         memory or use a smaller model"
                    )));
                }
            }
        }
    }
}

/// What it says on stderr, read while it runs: a full pipe would stop it.
fn words(child: &mut Child) -> impl Future<Output = String> + use<> {
    let stderr = child.stderr.take();
    async move {
        let mut bytes = Vec::new();
        if let Some(mut stderr) = stderr {
            stderr.read_to_end(&mut bytes).await.unwrap_or_default();
        }
        let text = String::from_utf8_lossy(&bytes);
        let start = text.ceil_char_boundary(text.len().saturating_sub(WORDS));
        text.get(start..).unwrap_or_default().trim().replace('\n', "; ")
    }
}

fn ended(status: ExitStatus, words: &str) -> Failed {
    use std::os::unix::process::ExitStatusExt as _;
    Failed::Refused(match (status.signal(), words) {
        (None, "") => format!("its trial ended with {status}"),
        (None, words) => words.to_owned(),
        (Some(signal), words) => {
            let said = if words.is_empty() { String::new() } else { format!(": {words}") };
            format!("its trial was ended by signal {signal} while it was loaded{said}")
        }
    })
}

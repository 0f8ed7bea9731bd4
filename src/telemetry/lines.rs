//! Where the log goes: stderr, a line for each event, and never a reason to stop or to wait.
//!
//! Whoever reads stderr may be gone, its disk full, or it may have stopped reading. Then lines are lost, and when there
//! is a reader again it is told how many. What strangers wrote (names of models, what a broker says) cannot begin a
//! line of its own or paint over one.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing_subscriber::fmt::MakeWriter;

use crate::printable::escaped;

/// The log's writer: a place for whole lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Whether escape sequences of ours colour the lines.
    coloured: bool,
    /// Lines that nobody could read, since the last that somebody could.
    lost: AtomicU64,
    /// Whether the last line found no reader: then the next does not wait for one.
    stalled: AtomicBool,
}

/// Most bytes that a pipe takes at once without blocking, once it says that it takes some (`PIPE_BUF`).
const PIECE: usize = 4096;

/// How long a line waits for a reader that is slow, in nanoseconds: 100 ms, once.
const PATIENCE: i64 = 100_000_000;

impl Lines {
    /// Lines with or without our own colours in them.
    pub(super) fn new(coloured: bool) -> Self {
        Self { coloured, ..Self::default() }
    }

    /// Writes an event, which ends with a newline.
    fn event(&self, event: &str) {
        let text = event.strip_suffix('\n').unwrap_or(event);
        let line = escaped(text, if self.coloured { "\x1b" } else { "" }) + "\n";
        // Other threads' lines wait here, so none is torn.
        let mut stderr = io::stderr().lock();
        let lost = self.lost.load(Ordering::Relaxed);
        let mut written = Ok(());
        if lost != 0 {
            let told = format!("{lost} lines of the log were lost: nobody read stderr\n");
            written = self.pieces(&mut stderr, &told);
        }
        match written.and_then(|()| self.pieces(&mut stderr, &line)) {
            Ok(()) => self.lost.store(0, Ordering::Relaxed),
            Err(_nobody) => self.lost.store(lost + 1, Ordering::Relaxed),
        }
    }

    fn pieces(&self, stderr: &mut io::StderrLock<'_>, line: &str) -> io::Result<()> {
        line.as_bytes().chunks(PIECE).try_for_each(|piece| {
            self.wait_for_room(stderr)?;
            stderr.write_all(piece)
        })
    }

    /// Waits until a write does not block; not for ever, and not twice in a row.
    fn wait_for_room(&self, stderr: &io::StderrLock<'_>) -> io::Result<()> {
        let stalled = self.stalled.load(Ordering::Relaxed);
        let patience = Timespec { tv_sec: 0, tv_nsec: if stalled { 0 } else { PATIENCE } };
        let mut fds = [PollFd::new(stderr, PollFlags::OUT)];
        let ready = poll(&mut fds, Some(&patience))? != 0;
        self.stalled.store(!ready, Ordering::Relaxed);
        if ready { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }
}

/// Takes events one by one: the subscriber writes each with one call.
pub(super) struct Event<'a>(&'a Lines);

impl Write for Event<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.event(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Event<'a>;

    fn make_writer(&'a self) -> Event<'a> {
        Event(self)
    }
}

//! Notes a signal that ends the process, on its way out.

#![expect(
    unsafe_code,
    reason = "std has no handlers for signals; these make two calls, both safe in one"
)]

use std::os::fd::RawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

/// What a process brings upon itself, with its line.
const DEADLY: [(i32, &[u8]); 5] = [
    (libc::SIGABRT, b"signal ABRT\n"),
    (libc::SIGSEGV, b"signal SEGV\n"),
    (libc::SIGBUS, b"signal BUS\n"),
    (libc::SIGILL, b"signal ILL\n"),
    (libc::SIGFPE, b"signal FPE\n"),
];

/// Where the line is written.
static JOURNAL: AtomicI32 = AtomicI32::new(-1);

/// What handled the signals before, in the order of [`DEADLY`].
static BEFORE: OnceLock<[libc::sigaction; DEADLY.len()]> = OnceLock::new();

/// From now on a deadly signal is written to `journal`, which has to stay open.
pub(super) fn note_in(journal: RawFd) {
    JOURNAL.store(journal, Ordering::Release);
    BEFORE.get_or_init(|| DEADLY.map(|(signal, _)| install(signal)));
}

fn install(signal: i32) -> libc::sigaction {
    // SAFETY: both are plain structures for which all zeroes is a valid value, and the handler does only what a
    // handler may do. On the alternate stack, because the cause may be that the stack is used up.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let mut before: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction =
            note as extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(signal, &raw const action, &raw mut before);
        before
    }
}

/// Writes the line, then lets happen what would have happened.
extern "C" fn note(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let Some(at) = DEADLY.iter().position(|(deadly, _)| *deadly == signal) else { return };
    let line = DEADLY[at].1;
    // SAFETY: `write`, `sigaction`, `signal` and `raise` may be called in a handler; the line is static, and `info` is
    // what the kernel gives. A fault happens again on return, now to who handled it before (std says which thread
    // has overflowed its stack); a signal that was sent does not, and is sent again.
    unsafe {
        libc::write(JOURNAL.load(Ordering::Acquire), line.as_ptr().cast(), line.len());
        let sent = (*info).si_code <= 0;
        match BEFORE.get() {
            Some(before) if !sent => {
                libc::sigaction(signal, &raw const before[at], std::ptr::null_mut());
            }
            _ => {
                libc::signal(signal, libc::SIG_DFL);
                libc::raise(signal);
            }
        }
    }
}

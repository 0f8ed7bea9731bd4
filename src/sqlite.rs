//! The embedded log: topics in one `SQLite` file, for trying out, tests, and jobs on files.
//!
//! It is not Kafka and does not pretend to be: one process, one file. What it shares with Kafka is the seam of
//! [`crate::log`] and its promise: a transaction's predictions, dead letters, manifest and offsets are one `SQLite`
//! transaction, synced to disk before it is answered.
//!
//! ```text
//!  records(topic, partition, offset, …) ─► read thread ─► chunks ─► engine ─► lane thread ─► one transaction:
//!  offsets(group, topic, partition, next) ◄────────────────────────────────────┘  outputs + offsets
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::config::Config;
use crate::failure::{Exit, Failure, chain, temporary};
use crate::file;
use crate::log::message::Naming;
use crate::log::{Joint, Log, Offsets, Opening, Sink};

mod feed;
mod sink;
mod store;

pub use store::{Error, Message, Store, Stored};

/// What a file of `SQLite` begins with (<https://www.sqlite.org/fileformat2.html>, 1.3).
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Opens the log. Topics that are missing are made: inputs with one partition, the others with as many as the
/// largest input.
///
/// # Errors
///
/// When the file cannot be opened, or another process has it.
pub fn open(
    file: &Path,
    config: &Config,
    naming: &Naming,
    opening: &Opening,
) -> Result<Log, Failure> {
    let file = Opened::new(file, naming)?;
    let (joint, control) = Joint::new();
    let (sink, offsets) = sink::open(&file, config, (naming, opening), &joint)?;
    let feed = feed::open(file, config, (naming, opening), &offsets, (joint, control))?;
    Ok(Log { feed, sink })
}

/// Opens the writing side alone, for records that come from elsewhere, and tells where they go on. Topics that are
/// missing are made as by [`open`].
///
/// # Errors
///
/// As of [`open`].
pub fn sink(
    file: &Path,
    config: &Config,
    naming: &Naming,
    opening: &Opening,
    joint: &Joint,
) -> Result<(Sink, Offsets), Failure> {
    sink::open(&Opened::new(file, naming)?, config, (naming, opening), joint)
}

/// A file that this process has, with its topics.
struct Opened {
    path: PathBuf,
    store: Store,
    /// Held by all threads that use the file.
    lock: Arc<File>,
}

impl Opened {
    fn new(file: &Path, naming: &Naming) -> Result<Self, Failure> {
        // By its real path: `SQLite` has names that are no paths, `:memory:` and `file:a.db`.
        let (lock, path) = lock(file)?;
        let store = Store::open(&path)?;
        create_topics(&store, naming)?;
        Ok(Self { path, store, lock: Arc::new(lock) })
    }
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(body).map_err(|error| temporary(&format!("start a thread: {error}")))
}

/// Holds `FILE.tidemill-lock` for as long as the log is open: two readers would both answer every record. It stands
/// beside the file itself, whatever links lead there, and nothing is ever written to it. Also the file's real path.
fn lock(file: &Path) -> Result<(File, PathBuf), Failure> {
    let fail = |path: &Path, why: String| Failure {
        message: format!("lock the log {}: {why}", path.display()),
        exit: Exit::Config,
    };
    let real = real(file).map_err(|error| fail(file, error.to_string()))?;
    let path = file::beside(&real, ".tidemill-lock");
    let lock = file::writable(&path).map_err(|error| fail(&path, error.to_string()))?;
    match lock.try_lock() {
        Ok(()) => Ok((lock, real)),
        Err(TryLockError::WouldBlock) => {
            let why = "another process has this log; it is for one process, Kafka is for more";
            Err(fail(&path, why.to_owned()))
        }
        Err(TryLockError::Error(error)) => Err(fail(&path, error.to_string())),
    }
}

/// The path of the log's file without links; the file is made if there is none. One that is there is not opened: closing
/// it would release the locks that `SQLite` has on it in this process.
fn real(file: &Path) -> io::Result<PathBuf> {
    let metadata = match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => file::writable(file)?.metadata(),
        found => found,
    }?;
    single(&metadata)?;
    fs::canonicalize(file)
}

/// Refuses what is no file of one name.
fn single(metadata: &fs::Metadata) -> io::Result<()> {
    if !metadata.is_file() {
        return refused("is not a regular file; name a file, or one that is not there yet");
    }
    // Each name would have a journal of its own beside it.
    if metadata.nlink() != 1 {
        return refused(
            "has a second name (a hard link), under which it could be opened too; copy it",
        );
    }
    Ok(())
}

fn refused(why: &str) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = chain(&error);
        if error.is_no_database() {
            let message =
                format!("{message}: the file is something else; name another one under `log`");
            return Self { message, exit: Exit::Config };
        }
        Self { message, exit: Exit::Temporary }
    }
}

/// Whether `file` can be a log, without writing or locking anything: it is one, is empty, or can be made.
///
/// # Errors
///
/// Why it cannot.
pub fn look(file: &Path) -> io::Result<()> {
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            if folder.is_some_and(|folder| !folder.is_dir()) {
                return refused("the folder that it is to stand in does not exist");
            }
            Ok(())
        }
        Err(error) => Err(error),
        Ok(metadata) => {
            single(&metadata)?;
            let mut head = Vec::new();
            File::open(file)?.take(MAGIC.len() as u64).read_to_end(&mut head)?;
            if head.is_empty() || head == MAGIC { Ok(()) } else { refused("is not an SQLite file") }
        }
    }
}

fn create_topics(store: &Store, naming: &Naming) -> Result<(), Error> {
    let mut most = 1;
    for topic in &naming.inputs {
        store.create_topic(topic, 1)?;
        most = most.max(store.partitions(topic)?);
    }
    naming.written().iter().try_for_each(|topic| store.create_topic(topic, most))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_log_has_one_lock_whatever_it_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let precious = ["Cargo.lock", "a.lock", "a.db-lock"].map(at);
        precious.iter().for_each(|file| fs::write(file, "precious").unwrap());
        symlink("a.db", at("link.db")).unwrap();
        symlink(dir.path(), at("folder")).unwrap();
        let _first = lock(&at("link.db")).unwrap();
        for same in ["a.db", "link.db", "folder/a.db", "folder/folder/link.db"] {
            let failure = lock(&at(same)).unwrap_err();
            assert!(failure.message.contains("another process has this log"), "{failure}");
            assert_eq!(failure.exit, Exit::Config);
        }
        assert_eq!(
            lock(&at("file:a.db")).unwrap().1,
            dir.path().canonicalize().unwrap().join("file:a.db")
        );
        for other in ["a.sqlite", "a", "Cargo.db", "a.db.db"] {
            drop(lock(&at(other)).unwrap());
        }
        for file in precious {
            assert_eq!(fs::read_to_string(file).unwrap(), "precious");
        }
    }

    #[test]
    fn nothing_of_the_users_is_emptied_and_what_is_no_file_is_no_log() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["a.db", "a.db.tidemill-lock"] {
            fs::write(at(name), "precious").unwrap();
        }
        drop(lock(&at("a.db")).unwrap());
        for name in ["a.db", "a.db.tidemill-lock"] {
            assert_eq!(fs::read_to_string(at(name)).unwrap(), "precious");
        }
        assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
        fs::create_dir(at("folder")).unwrap();
        fs::hard_link(at("a.db"), at("second.db")).unwrap();
        for (name, part) in [
            ("fifo", "is not a regular file"),
            ("folder", "is not a regular file"),
            ("a.db", "has a second name"),
            ("second.db", "has a second name"),
            ("nowhere/a.db", "No such file"),
        ] {
            let failure = lock(&at(name)).unwrap_err();
            assert!(failure.message.contains(part), "{failure}");
        }
    }
}

//! Files that others write: opened without waiting, regular, of bounded size.
//!
//! Opening a FIFO waits for its writer, reading a device never ends, and a file may be another one between a look and
//! an opening. So an opening never waits, the look comes after it, at what was opened, and what is read has a bound
//! whatever the file says of its size.

use std::fs::{File, FileType};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// What is done with a path whose last part is a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// What it points at is opened.
    Follow,
    /// It is refused.
    Refuse,
}

/// Opens a regular file of at most `most` bytes for reading.
///
/// # Errors
///
/// What the system says; what else the path is, if it is no regular file; how large it is, if it is larger.
pub fn open(path: &Path, most: u64, links: Links) -> io::Result<File> {
    // A terminal that is opened must not become this process's own.
    let mut how = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    how.set(OFlags::NOFOLLOW, links == Links::Refuse);
    let file = match rustix::fs::open(path, how, Mode::empty()) {
        Ok(opened) => File::from(opened),
        Err(Errno::LOOP) => {
            let why = "is a symbolic link where none may be, or one that leads nowhere";
            return Err(refused(why.to_owned()));
        }
        // What a socket, and a device that is not there, answer.
        Err(Errno::NXIO) => {
            return Err(refused("is a socket or a device, not a regular file".to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if let Some(kind) = irregular(metadata.file_type()) {
        return Err(refused(format!("is {kind}, not a regular file")));
    }
    if most < metadata.len() {
        return Err(refused(too_large(metadata.len(), most)));
    }
    Ok(file)
}

/// The path of a file beside this one: its name with `suffix` after it.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Opens a file for writing, as one to lock: made if there is none, never truncated. A FIFO does not wait for its reader.
///
/// # Errors
///
/// What the system says.
pub fn writable(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    options.write(true).create(true).truncate(false).custom_flags(nonblocking).open(path)
}

/// All of a regular file of at most `most` bytes.
///
/// # Errors
///
/// As [`open`]; also where it grew beyond `most` bytes meanwhile.
pub fn read(path: &Path, most: u64, links: Links) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path, most, links)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if most < length { Err(refused(too_large(length, most))) } else { Ok(bytes) }
}

/// What is no regular file, in words; `None` of one that is.
pub fn irregular(kind: FileType) -> Option<&'static str> {
    let kinds = [
        (kind.is_dir(), "a directory"),
        (kind.is_symlink(), "a symbolic link"),
        (kind.is_fifo(), "a FIFO"),
        (kind.is_socket(), "a socket"),
        (kind.is_char_device() || kind.is_block_device(), "a device"),
    ];
    kinds.into_iter().find(|(is, _)| *is).map(|(_, name)| name)
}

fn too_large(found: u64, most: u64) -> String {
    format!("has {found} bytes, and at most {most} are read")
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_a_small_regular_file_is_read_and_nothing_waits() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("good"), "12345678").unwrap();
        std::fs::write(at("large"), "123456789").unwrap();
        File::create(at("sparse")).unwrap().set_len(1 << 40).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
        let _listener = UnixListener::bind(at("socket")).unwrap();
        for (link, to) in [("zero", "/dev/zero"), ("link", "good"), ("loop", "loop")] {
            symlink(to, at(link)).unwrap();
        }
        let good = Ok("12345678");
        for (name, links, expect) in [
            ("good", Links::Refuse, good),
            ("link", Links::Follow, good),
            ("link", Links::Refuse, Err("is a symbolic link")),
            ("loop", Links::Follow, Err("leads nowhere")),
            ("large", Links::Follow, Err("has 9 bytes, and at most 8 are read")),
            ("sparse", Links::Follow, Err("has 1099511627776 bytes")),
            ("folder", Links::Follow, Err("is a directory, not a regular file")),
            ("fifo", Links::Follow, Err("is a FIFO, not a regular file")),
            ("socket", Links::Follow, Err("is a socket")),
            ("zero", Links::Follow, Err("is a device, not a regular file")),
            ("nothing", Links::Follow, Err("No such file")),
        ] {
            match (read(&at(name), 8, links), expect) {
                (Ok(bytes), Ok(expect)) => assert_eq!(bytes, expect.as_bytes(), "{name}"),
                (Err(error), Err(part)) => {
                    assert!(error.to_string().contains(part), "{name}: {error}");
                }
                (found, expect) => panic!("{name}: {found:?}, expected {expect:?}"),
            }
        }
    }

    #[test]
    fn a_file_that_does_not_say_its_size_is_bounded() {
        // `/proc` says 0 of everything.
        let error = read(Path::new("/proc/self/maps"), 8, Links::Refuse).unwrap_err();
        assert!(error.to_string().contains("has 9 bytes"), "{error}");
    }
}

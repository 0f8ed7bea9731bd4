//! `${env:NAME}` and `${file:PATH}`: values that do not stand in the file, and that no message shows.
//!
//! What is put in is not looked at again: a secret that contains `${` stays as it is.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Most bytes that a secret's file may hold. A chain of certificates has some ten thousand.
const MAX_FILE: u64 = 64 << 10;

/// Parts of a secret are hidden too where they are at least so long: a client may quote the rest of a value from the
/// place on that it does not understand.
const PART: usize = 6;

/// A secret shorter than this is hidden only where it stands alone: every text has an `a`.
const ALONE: usize = 4;

/// What stands where a secret would.
pub const HIDDEN: &str = "(not shown)";

/// The values that no message may show, and the files that show them.
///
/// # Examples
///
/// ```
/// use tidemill::config::secret::Secrets;
///
/// let mut secrets = Secrets::default();
/// secrets.hide("hunter2");
/// assert_eq!(secrets.redact("hunter2 was refused"), "(not shown) was refused");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    values: BTreeSet<String>,
    exposed: BTreeSet<PathBuf>,
}

/// Never the values.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets")
            .field("values", &self.values.len())
            .field("exposed", &self.exposed)
            .finish()
    }
}

impl Secrets {
    /// From now on `value` is not shown, nor are its longer parts.
    pub fn hide(&mut self, value: &str) {
        let value = value.trim();
        if value.is_empty() {
            return;
        }
        let word = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-');
        let parts = value.split(|c| !word(c)).filter(|part| part.len() >= PART);
        self.values.extend(parts.map(str::to_owned));
        self.values.insert(value.to_owned());
    }

    /// A file that holds a secret, and that everybody may read.
    pub fn expose(&mut self, file: &Path) {
        self.exposed.insert(file.to_owned());
    }

    /// The files with secrets that everybody may read.
    pub fn exposed(&self) -> impl Iterator<Item = &Path> {
        self.exposed.iter().map(PathBuf::as_path)
    }

    /// Whether `text` has a secret in it.
    pub fn within(&self, text: &str) -> bool {
        matches!(self.cover(text), Cow::Owned(_))
    }

    /// `text` with [`HIDDEN`] in the place of each secret.
    pub fn redact(&self, text: &str) -> String {
        self.cover(text).into_owned()
    }

    fn cover<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut covered = Cow::Borrowed(text);
        // The longer first: another one may be a part of it.
        let mut values: Vec<&String> = self.values.iter().collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        for value in values {
            if covered.contains(value.as_str()) {
                let free = if value.len() < ALONE {
                    alone(&covered, value)
                } else {
                    covered.replace(value, HIDDEN)
                };
                if free != covered {
                    covered = Cow::Owned(free);
                }
            }
        }
        covered
    }
}

/// `text` with `value` hidden where no letter or digit stands beside it.
fn alone(text: &str, value: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(value) {
        let joined = before.chars().next_back().is_some_and(char::is_alphanumeric)
            || (before.is_empty() && out.chars().next_back().is_some_and(char::is_alphanumeric))
            || after.chars().next().is_some_and(char::is_alphanumeric);
        out.push_str(before);
        out.push_str(if joined { value } else { HIDDEN });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Whether a part of a property's name says that its value is a secret. A slip of the pen says it too.
pub fn names_secret(part: &str) -> bool {
    let part = part.to_ascii_lowercase();
    ["password", "passphrase", "secret", "pem"].iter().any(|word| {
        part.contains(word) || (5 < word.len() && 0.9 < strsim::jaro_winkler(&part, word))
    })
}

/// Where references are looked up.
#[derive(Debug)]
pub struct Sources<'a> {
    /// For `${env:NAME}`.
    pub env: &'a BTreeMap<String, String>,
    /// `${file:PATH}` is relative to this: the folder of the configuration file.
    pub folder: &'a Path,
}

/// Why a reference has no value: message and remedy.
pub type Unresolved = (String, String);

/// Whether `text` refers to something, or tries to.
pub fn refers(text: &str) -> bool {
    text.contains("${")
}

/// `text` with its references replaced; `None` where it has none. What is put in is noted in `secrets`.
///
/// # Errors
///
/// A form that is not known, a variable that is not set, a file that cannot be read or is not a small regular file.
pub fn resolve(
    text: &str,
    sources: &Sources<'_>,
    secrets: &mut Secrets,
) -> Result<Option<String>, Unresolved> {
    let mut out = String::new();
    let mut rest = text;
    let mut found = false;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((reference, after)) = after.split_once('}') else {
            return Err((
                "has a `${` without its `}`".to_owned(),
                "write `${env:NAME}` or `${file:PATH}`".to_owned(),
            ));
        };
        let value = look_up(reference, sources, secrets)?;
        secrets.hide(&value);
        out.push_str(before);
        out.push_str(&value);
        rest = after;
        found = true;
    }
    out.push_str(rest);
    if found {
        secrets.hide(&out);
    }
    Ok(found.then_some(out))
}

fn look_up(
    reference: &str,
    sources: &Sources<'_>,
    secrets: &mut Secrets,
) -> Result<String, Unresolved> {
    match reference.split_once(':') {
        Some(("env", name)) => match sources.env.get(name) {
            Some(value) if value.contains(char::REPLACEMENT_CHARACTER) => Err((
                format!("`${{env:{name}}}` refers to a variable that is not valid UTF-8 text"),
                format!("set {name} to UTF-8 text"),
            )),
            Some(value) => Ok(value.clone()),
            None => Err((
                format!(
                    "`${{env:{name}}}` refers to a variable that the environment does not have"
                ),
                format!("set {name}, or mount the value as a file and write `${{file:PATH}}`"),
            )),
        },
        Some(("file", path)) => {
            let path = sources.folder.join(path);
            let (text, everybody) = read(&path).map_err(|(why, remedy)| {
                (format!("`${{file:…}}` refers to {}, which {why}", path.display()), remedy)
            })?;
            if everybody {
                secrets.expose(&path);
            }
            Ok(text.trim_end_matches(['\n', '\r']).to_owned())
        }
        _ => Err((
            "has a `${…}` that is neither `${env:…}` nor `${file:…}`".to_owned(),
            "write `${env:NAME}` or `${file:PATH}`; a value with a literal `${` comes from one of \
             these, or from a variable that overrides the key"
                .to_owned(),
        )),
    }
}

/// The text of a small regular file, and whether everybody may read it. Never waits: what would be waited for is not
/// a regular file.
fn read(path: &Path) -> Result<(String, bool), Unresolved> {
    let there = "mount the file there and let this user read it";
    let unreadable = |error: std::io::Error| (format!("cannot be read: {error}"), there.to_owned());
    // Looked at before it is opened, because opening a device may do something; and again once it is open.
    regular(&std::fs::metadata(path).map_err(unreadable)?)?;
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    regular(&about)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        let message = format!("is larger than {} KiB", MAX_FILE >> 10);
        return Err((message, "name the file that holds the secret and nothing else".to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|_not_text| {
        ("is not valid UTF-8 text".to_owned(), "store the secret as UTF-8 text".to_owned())
    })?;
    Ok((text, everybody_reads(&about)))
}

fn regular(about: &Metadata) -> Result<(), Unresolved> {
    let kind = about.file_type();
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    let remedy = "name a regular file that holds the secret and nothing else";
    Err((format!("is {what}, not a regular file"), remedy.to_owned()))
}

/// Whether every user of the system may read the file.
pub fn everybody_reads(about: &Metadata) -> bool {
    about.permissions().mode() & 0o004 != 0
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn resolved(
        text: &str,
        env: &[(&str, &str)],
        folder: &Path,
    ) -> Result<Option<String>, Unresolved> {
        let env =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        resolve(text, &Sources { env: &env, folder }, &mut Secrets::default())
    }

    #[test]
    fn references_are_replaced_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("password"), "s3${env:A}\r\n").unwrap();
        let env = [("A", "one")];
        for (text, value) in [
            ("plain", None),
            ("$5 {x}", None),
            ("${env:A}", Some("one")),
            ("x-${env:A}-${env:A}", Some("x-one-one")),
            ("${file:password}", Some("s3${env:A}")),
        ] {
            assert_eq!(resolved(text, &env, folder.path()).unwrap().as_deref(), value, "{text}");
        }
        for (text, said) in [
            ("${env:B}", "`${env:B}` refers to a variable"),
            ("${env:B", "without its `}`"),
            ("${ENV:A}", "neither"),
            ("${A}", "neither"),
            ("${file:absent}", "absent, which cannot be read"),
        ] {
            let (message, remedy) = resolved(text, &env, folder.path()).unwrap_err();
            assert!(message.contains(said) && !remedy.is_empty(), "{text}: {message}");
        }
    }

    #[test]
    fn only_a_small_regular_file_is_read_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let fifo = std::process::Command::new("mkfifo").arg(place("fifo")).status().unwrap();
        assert!(fifo.success());
        std::os::unix::fs::symlink(place("fifo"), place("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(place("socket")).unwrap();
        fs::write(place("huge"), vec![b'x'; (64 << 10) + 1]).unwrap();
        File::create(place("sparse")).unwrap().set_len(1 << 40).unwrap();
        fs::write(place("latin"), b"caf\xe9").unwrap();
        for (name, said) in [
            ("fifo", "is a FIFO"),
            ("link", "is a FIFO"),
            ("socket", "is a socket"),
            (".", "is a directory"),
            ("/dev/zero", "is a device"),
            ("/dev/null", "is a device"),
            ("/dev/stdin/x", "cannot be read"),
            ("huge", "larger than 64 KiB"),
            ("sparse", "larger than 64 KiB"),
            ("latin", "is not valid UTF-8"),
        ] {
            let text = format!("${{file:{name}}}");
            let (message, remedy) = resolved(&text, &[], folder.path()).unwrap_err();
            assert!(message.contains(said) && message.contains(name), "{name}: {message}");
            assert!(!remedy.is_empty());
        }
        fs::write(place("full"), vec![b'x'; 64 << 10]).unwrap();
        let full = resolved("${file:full}", &[], folder.path()).unwrap();
        assert_eq!(full.map(|text| text.len()), Some(64 << 10));
    }

    #[test]
    fn a_file_that_everybody_reads_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        for (name, mode, noted) in [("open", 0o644, 1), ("group", 0o640, 0), ("own", 0o600, 0)] {
            let path = folder.path().join(name);
            fs::write(&path, "secret").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let mut secrets = Secrets::default();
            let sources = Sources { env: &BTreeMap::new(), folder: folder.path() };
            resolve(&format!("${{file:{name}}}"), &sources, &mut secrets).unwrap();
            assert_eq!(secrets.exposed().count(), noted, "{name}");
        }
    }

    #[test]
    fn a_secret_and_its_parts_are_hidden() {
        let mut secrets = Secrets::default();
        for value in ["hunter2", "ab", "principal=admin lifeSeconds=60 token77", "  \n", "ünïcödé"]
        {
            secrets.hide(value);
        }
        for (text, shown) in [
            ("pw hunter2, hunter2!", "pw (not shown), (not shown)!"),
            ("about ab, ab", "about (not shown), (not shown)"),
            ("cab abs ab", "cab abs (not shown)"),
            ("beginning at: token77", "beginning at: (not shown)"),
            ("for ünïcödé", "for (not shown)"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(secrets.redact(text), shown);
            assert_eq!(secrets.within(text), text != shown, "{text}");
        }
        assert!(!format!("{secrets:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn no_secret_is_left_in_a_text(secret in "[a-z0-9]{4,12}", before in "[a-z0-9]{0,12}", after in "[a-z0-9]{0,12}") {
            prop_assume!(!HIDDEN.contains(&secret));
            let mut secrets = Secrets::default();
            secrets.hide(&secret);
            let text = secrets.redact(&format!("{before}{secret}{after}"));
            prop_assert!(!text.contains(&secret), "{text}");
        }
    }
}

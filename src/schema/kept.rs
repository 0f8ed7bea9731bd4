//! What a registry has answered, in a file: a schema's id never means another schema, so it is good for ever.
//!
//! One JSON object a line. The first names the registry: its ids mean nothing to another one. A line that is torn, by a
//! crash for example, is passed over.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Language, MAX_KNOWN, Reference, Referred, Registered};
use crate::file::{self, Links};

/// Most bytes of the file. Beyond them nothing more is kept.
const MAX_FILE: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
struct First {
    /// Of its URLs, which may be nobody's business.
    registry: String,
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    guid: Option<uuid::Uuid>,
    language: Language,
    schema: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    references: Vec<Referred>,
}

/// The file of a registry's schemas.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    /// Open for writing behind its end, with its length.
    open: Mutex<Option<(File, u64)>>,
}

impl Kept {
    /// Reads what was kept of the registry at `urls`; what is of another one is thrown away.
    pub(super) fn open(
        path: &Path,
        urls: &[String],
    ) -> io::Result<(Self, Vec<(Reference, Registered)>)> {
        let text = match file::read(path, MAX_FILE, Links::Follow) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let registry = digest(urls);
        let mut lines = text.lines();
        let first = lines.next().and_then(|line| serde_json::from_str::<First>(line).ok());
        let ours = first.is_some_and(|first| first.registry == registry);
        let known =
            if ours { lines.filter_map(read).take(MAX_KNOWN).collect() } else { Vec::new() };
        let mut open = File::options();
        let mut open = open.create(true).append(true).open(path)?;
        if !ours {
            open.set_len(0)?;
            writeln!(open, "{}", serde_json::to_string(&First { registry })?)?;
        } else if !text.ends_with('\n') {
            // Behind a torn line the next one begins anew.
            writeln!(open)?;
        }
        let length = open.metadata()?.len();
        Ok((Self { path: path.to_owned(), open: Mutex::new(Some((open, length))) }, known))
    }

    /// Keeps a schema. Where that fails, nothing is kept from then on.
    pub(super) fn keep(&self, reference: Reference, registered: &Registered) {
        let (id, guid) = match reference {
            Reference::Id(id) => (Some(id), None),
            Reference::Guid(guid) => (None, Some(guid)),
        };
        let line = Line {
            id,
            guid,
            language: registered.language,
            schema: registered.schema.clone(),
            references: registered.references.clone(),
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((file, length)) = &mut *open else { return };
        let written = serde_json::to_vec(&line).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            *length = length.saturating_add(line.len() as u64);
            if MAX_FILE < *length {
                return Err(io::Error::other("it is full"));
            }
            file.write_all(&line)
        });
        if let Err(error) = written {
            let path = self.path.display();
            tracing::warn!("cannot keep schemas in {path} for the next start: {error}");
            *open = None;
        }
    }
}

fn read(line: &str) -> Option<(Reference, Registered)> {
    let Line { id, guid, language, schema, references } = serde_json::from_str(line).ok()?;
    let reference = id.map(Reference::Id).or_else(|| guid.map(Reference::Guid))?;
    Some((reference, Registered { language, schema, references }))
}

fn digest(urls: &[String]) -> String {
    use std::fmt::Write as _;
    let mut urls = urls.to_vec();
    urls.sort_unstable();
    Sha256::digest(urls.join("\n")).iter().fold(String::new(), |mut text, byte| {
        // A String takes every write.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

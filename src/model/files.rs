//! The files of a model's folder: listed in linear time, opened without leaving the folder, each of a bounded size.
//!
//! Whoever wrote them, reading them ends, with what they hold or with an [`Error`] that names the file.

use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::file::{self, Links, irregular};
use crate::printable;

mod error;

pub use error::Error;

/// Largest file that is no weights, in bytes.
const MAX_TEXT: u64 = 64 << 20;

/// Largest JSON that is read here, in bytes, but for the tokenizer's: what it becomes in memory may be 45 times that.
const MAX_JSON: u64 = 8 << 20;

/// All files that are no weights together, in bytes: every one is hashed at each load.
const MAX_TEXTS: u64 = 1 << 30;

/// Largest file of weights, and all of them together, in bytes.
const MAX_WEIGHTS: u64 = 16 << 30;

/// Most files and folders of an artifact, whatever they hold. A model has about ten.
const MOST_FILES: usize = 10_000;

/// Most folders in one another. A model has one.
const DEEPEST: usize = 64;

/// A JSON file of the artifact.
pub(super) fn json<T: DeserializeOwned>(dir: &Path, file: &str) -> Result<T, Error> {
    parse(file, &bytes(dir, file)?)
}

/// What the bytes of a JSON file say.
pub(super) fn parse<'a, T: Deserialize<'a>>(file: &str, bytes: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| {
        let why = pointer(bytes).unwrap_or_else(|| malformed(bytes, &error));
        Error::config(file, why)
    })
}

/// What a file is that only says where its content is, as copies of repositories have them.
pub(super) fn pointer(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes.get(..bytes.len().min(256))?).ok()?;
    let line = text.lines().next()?;
    if line.starts_with("version https://git-lfs") {
        return Some(
            "is a pointer of Git LFS, not the file: run `git lfs pull` in the folder".to_owned(),
        );
    }
    (line.starts_with("../") && text.lines().count() == 1).then(|| {
        format!(
            "holds the text of a link, {:?}, not the file: copy the folder again, with what its links lead to \
             (`cp -rL FROM TO`)",
            printable::name(line)
        )
    })
}

/// The name in the artifact of a file in one of its folders, `""` being the artifact itself.
pub(super) fn within(folder: &str, file: &str) -> String {
    if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") }
}

/// What is wrong with a JSON file, and in which place: serde knows the value and the line, not the key.
fn malformed(bytes: &[u8], error: &serde_json::Error) -> String {
    const SHOWN: usize = 60;
    if !error.is_data() {
        return crate::format::explain(&String::from_utf8_lossy(bytes), error);
    }
    let line = bytes.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1));
    let line = line.unwrap_or_default();
    let end = error.column().min(line.len());
    let before = String::from_utf8_lossy(&line[end.saturating_sub(SHOWN)..end]).into_owned();
    format!(
        "does not say what is wanted: {error}, at the end of `{}`",
        printable::name(before.trim())
    )
}

/// A file, opened without leaving the directory and without waiting; not larger than its kind may be.
pub(crate) fn open(dir: &Path, file: &str) -> Result<File, Error> {
    let most = if is_weights(file) { MAX_WEIGHTS } else { MAX_TEXT };
    file::open(&inside(dir, file)?, most, Links::Refuse).map_err(|source| Error::read(file, source))
}

/// A file's bytes, without leaving the directory.
pub(super) fn bytes(dir: &Path, file: &str) -> Result<Vec<u8>, Error> {
    let most = if file.ends_with("tokenizer.json") { MAX_TEXT } else { MAX_JSON };
    let read = file::read(&inside(dir, file)?, most, Links::Refuse);
    read.map_err(|source| Error::read(file, source))
}

/// Whether the directory has something of this name, a link that leads nowhere too.
pub(super) fn present(dir: &Path, file: &str) -> bool {
    dir.join(file).symlink_metadata().is_ok()
}

/// The path of a file inside `dir`, through no link but one into the [blobs](blob) of a hub cache.
pub(super) fn inside(dir: &Path, file: &str) -> Result<PathBuf, Error> {
    let plain = |component| matches!(component, Component::Normal(_));
    if !Path::new(file).components().all(plain) || file.is_empty() {
        let message = "points outside the artifact; names are relative, without \"..\"";
        return Err(Error::config(file, message));
    }
    let mut path = dir.to_owned();
    let mut components = Path::new(file).components().peekable();
    while let Some(component) = components.next() {
        path.push(component);
        let metadata = fs::symlink_metadata(&path).map_err(|source| Error::read(file, source))?;
        if metadata.is_symlink() {
            let target = blob(dir, &path).filter(|_| components.peek().is_none());
            return target.ok_or_else(|| link(file));
        }
    }
    Ok(path)
}

/// What a link leads to, if that is a blob of the hub cache that `dir` is a snapshot of:
/// `models--ORG--NAME/snapshots/COMMIT` beside `models--ORG--NAME/blobs`, or a folder beside its `blobs`. A link that
/// leads anywhere else is none. Whether the blob is a link again is looked at when it is opened.
fn blob(dir: &Path, link: &Path) -> Option<PathBuf> {
    let target = link.parent()?.join(fs::read_link(link).ok()?);
    let held = target.parent()?.canonicalize().ok()?;
    let above = dir.canonicalize().ok()?.parent()?.to_owned();
    let cache = if above.ends_with("snapshots") { above.parent()? } else { &above };
    (held == cache.join("blobs")).then(|| held.join(target.file_name().unwrap_or_default()))
}

fn link(file: &str) -> Error {
    let message = "is a symbolic link, and none into the blobs of the hub cache that this folder is a snapshot of; \
                   copy the folder with `cp -rL FROM TO` and name the copy";
    Error::config(file, message)
}

/// The files of an artifact that count, by their relative names, with their sizes. Links, and what is neither file nor
/// folder, are refused; hidden files are left out.
pub(crate) fn files(dir: &Path) -> Result<Vec<(String, u64)>, Error> {
    let fail = Error::Folder;
    let (mut files, mut seen) = (Vec::new(), 0);
    let mut folders = vec![(String::new(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let path = if folder.is_empty() { dir.to_owned() } else { dir.join(&folder) };
        let shown = if folder.is_empty() { "the folder" } else { &folder };
        let read = |source| Error::read(shown, source);
        for entry in fs::read_dir(&path).map_err(read)? {
            let entry = entry.map_err(read)?;
            seen += 1;
            if MOST_FILES < seen {
                let message = "holds more than 10000 files; name the folder of one model";
                return Err(fail(message.to_owned()));
            }
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
                continue;
            };
            let name = within(&folder, name);
            let kind = entry.file_type().map_err(read)?;
            match irregular(kind) {
                Some(_) if kind.is_dir() && depth == DEEPEST => {
                    let message = format!("holds folders more than {DEEPEST} deep in one another");
                    return Err(fail(message));
                }
                Some(_) if kind.is_dir() => folders.push((name, depth + 1)),
                Some(_) if kind.is_symlink() => {
                    let target = blob(dir, &entry.path()).ok_or_else(|| link(&name))?;
                    let size = fs::symlink_metadata(&target)
                        .map_err(|source| Error::read(&name, source))?;
                    match irregular(size.file_type()) {
                        None if counts(&name) => files.push((name, size.len())),
                        None => (),
                        Some(_) => return Err(link(&name)),
                    }
                }
                Some(kind) => {
                    return Err(Error::config(&name, format!("is {kind}, not a regular file")));
                }
                None if counts(&name) => {
                    files.push((name, entry.metadata().map_err(read)?.len()));
                }
                None => (),
            }
        }
    }
    let (weights, texts): (Vec<_>, Vec<_>) = files.iter().partition(|(name, _)| is_weights(name));
    for (what, files, most) in [("weights", weights, MAX_WEIGHTS), ("text", texts, MAX_TEXTS)] {
        let bytes = files.iter().fold(0_u64, |sum, (_, size)| sum.saturating_add(*size));
        if most < bytes {
            return Err(fail(format!("holds {bytes} bytes of {what}; at most {most} are read")));
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a file holds tensors.
pub(super) fn is_weights(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "safetensors")
}

/// Whether a file is part of the model: the rest of a Hugging Face directory (other formats) is not.
fn counts(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    name != "manifest.json"
        && extension.is_some_and(|e| ["json", "safetensors", "txt"].contains(&e))
}

/// Refuses numbers of `config.json` that are 0 or so large that no size should be computed from them: name, value,
/// most.
pub(super) fn bounded(numbers: &[(&str, usize, usize)]) -> Result<(), Error> {
    match numbers.iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
        Some((name, value, most)) => {
            let message = format!("{name} is {value}, not between 1 and {most}");
            Err(Error::config("config.json", message))
        }
        None => Ok(()),
    }
}

/// As [`bounded`], for what every transformer has.
pub(super) fn bounded_layers(
    hidden: usize,
    layers: usize,
    heads: usize,
    intermediate: usize,
) -> Result<(), Error> {
    bounded(&[
        ("hidden_size", hidden, 16_384),
        ("num_hidden_layers", layers, 256),
        ("num_attention_heads", heads, 1_024),
        ("intermediate_size", intermediate, 65_536),
    ])
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[track_caller]
    fn refused(make: impl Fn(&Path), parts: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        let said = files(dir.path()).unwrap_err().to_string();
        assert!(parts.iter().all(|part| said.contains(part)), "{parts:?} in {said}");
    }

    #[test]
    fn what_is_no_model_folder_is_refused_without_reading_it() {
        let fifo = |dir: &Path| {
            assert!(Command::new("mkfifo").arg(dir.join("a.json")).status().unwrap().success());
        };
        refused(fifo, &["a.json: is a FIFO"]);
        let deep = |dir: &Path| fs::create_dir_all(dir.join("d/".repeat(DEEPEST + 1))).unwrap();
        refused(deep, &["more than 64 deep"]);
        let many = |dir: &Path| {
            (0..=MOST_FILES).for_each(|n| drop(File::create(dir.join(n.to_string())).unwrap()));
        };
        refused(many, &["more than 10000 files"]);
        let huge = |dir: &Path| {
            let file = File::create(dir.join("model.safetensors")).unwrap();
            file.set_len(MAX_WEIGHTS + 1).unwrap();
        };
        refused(huge, &["at most 17179869184 are read"]);
        let texts = |dir: &Path| {
            for n in 0..17 {
                let file = File::create(dir.join(format!("{n}.txt"))).unwrap();
                file.set_len(MAX_TEXT).unwrap();
            }
        };
        refused(texts, &["bytes of text; at most 1073741824 are read"]);
    }

    #[test]
    fn a_folder_as_deep_as_may_be_is_listed_and_opened() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("d/".repeat(DEEPEST));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("a.json"), "{}").unwrap();
        let found = files(dir.path()).unwrap();
        assert_eq!(found, [("d/".repeat(DEEPEST) + "a.json", 2)]);
        assert_eq!(bytes(dir.path(), &found[0].0).unwrap(), b"{}");
    }

    #[test]
    fn a_wrong_value_is_shown_with_its_key() {
        #[derive(Debug, serde::Deserialize)]
        struct Numbers {
            #[expect(dead_code, reason = "only read")]
            layers: usize,
        }
        let dir = tempfile::tempdir().unwrap();
        for (text, part) in [
            ("{\n \"width\": 1,\n \"layers\": -1 }", "at the end of `\"layers\": -1`"),
            (
                "{\"layers\": 18446744073709551616}",
                "at the end of `{\"layers\": 18446744073709551616`",
            ),
            ("{\"layers\": 1.5}", "`{\"layers\": 1.5`"),
            ("{", "is not valid JSON"),
            ("../blobs/c.json", "holds the text of a link, \"../blobs/c.json\""),
            ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ] {
            fs::write(dir.path().join("c.json"), text).unwrap();
            let said = json::<Numbers>(dir.path(), "c.json").unwrap_err().to_string();
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}

//! Schemas of Protobuf: the text of `.proto` files and sets of descriptors, compiled in memory.

use std::collections::HashSet;
use std::panic::catch_unwind;
use std::path::{Component, Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost_reflect::prost::Message as _;
use prost_reflect::prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};
use prost_reflect::{DescriptorPool, FieldDescriptor, FileDescriptor, MessageDescriptor};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use crate::file::{self, Links};
use crate::schema::Referred;
use crate::schema::frame::Which;

/// Most bytes of a schema's file.
const MAX_SCHEMA: u64 = 8 << 20;

/// Deepest nesting of braces in a text: the parser calls itself for each.
const MAX_NESTING: usize = 64;

/// What is said of a file of Protobuf's editions.
const EDITIONS: &str = "is written in an edition of Protobuf, which is not read: write syntax = \"proto3\" or \"proto2\"";

/// What the text of a registry is called among those that it refers to.
const MAIN: &str = "tidemill/schema.proto";

/// The file of a registry's schema, with the files that it refers to.
///
/// # Errors
///
/// What is wrong with it, for a message that begins with the schema.
pub(super) fn of_text(schema: &str, references: &[Referred]) -> Result<FileDescriptor, String> {
    let mut texts = vec![(MAIN.to_owned(), schema.to_owned())];
    texts.extend(references.iter().map(|of| (of.name.clone(), of.schema.clone())));
    compile(MAIN, Texts(texts))
}

fn compile(name: &str, first: impl FileResolver + 'static) -> Result<FileDescriptor, String> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(first);
    resolver.add(Texts(super::known::files()));
    resolver.add(GoogleFileResolver::new());
    let compiled = catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut compiler = Compiler::with_file_resolver(resolver);
        compiler.open_file(name).map(|compiler| compiler.descriptor_pool())
    }));
    let pool = match compiled {
        Ok(Ok(pool)) => pool,
        Ok(Err(error)) => return Err(format!("is not a valid Protobuf schema: {error}")),
        Err(_panic) => return Err("is not a valid Protobuf schema".to_owned()),
    };
    pool.get_file_by_name(name).ok_or_else(|| "is not a valid Protobuf schema".to_owned())
}

/// The message of a file that a record says.
///
/// # Errors
///
/// As of [`at`].
pub(super) fn named(file: &FileDescriptor, which: &Which) -> Result<MessageDescriptor, String> {
    let name = match which {
        Which::At(indexes) => return at(file, indexes),
        Which::Named(name) => name,
    };
    file.messages().find(|of| of.name() == name).ok_or_else(|| {
        let has = names(file.parent_pool(), &file.messages().collect::<Vec<_>>(), false);
        format!("has no message {name:?}, which the record says that it is; it has {has}")
    })
}

/// The message of a file that stands at `indexes`: its number in the file, then those within messages.
///
/// # Errors
///
/// Where there is none, in words for a message that begins with the schema.
pub(super) fn at(file: &FileDescriptor, indexes: &[u32]) -> Result<MessageDescriptor, String> {
    let place = |index: &u32| usize::try_from(*index).unwrap_or(usize::MAX);
    let mut indexes = indexes.iter().map(place);
    let first = indexes.next().unwrap_or_default();
    let found = indexes.try_fold(file.messages().nth(first), |message, index| {
        message.map(|message| message.child_messages().filter(|of| !of.is_map_entry()).nth(index))
    });
    found.flatten().ok_or_else(|| "has no message where the record says that its own is".to_owned())
}

/// What a field's name is followed by where the library would take it for another field's: the name as it is written stands
/// before. No name has it.
const MARK: char = '\u{1}';

/// As JSON has it.
pub(super) const MARK_IN_JSON: &str = "\\u0001";

/// The name of a field as its file has it.
pub(super) fn plain(name: &str) -> &str {
    name.split_once(MARK).map_or(name, |(name, _)| name)
}

/// The field of that name.
pub(super) fn field(of: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    of.get_field_by_name(name).or_else(|| of.fields().find(|field| plain(field.name()) == name))
}

/// Marks the fields that differ from others by case and underscores only: protoc takes them, and warns, and the library does
/// not. Whether there are any.
fn mark(message: &mut DescriptorProto) -> bool {
    let (mut names, mut alike) = (HashSet::new(), HashSet::new());
    let mut marked = false;
    for field in &mut message.field {
        let name = field.name().to_owned();
        let is_alike = !alike.insert(name.replace('_', "").to_ascii_lowercase());
        // One that is there twice is a mistake, and is said to be one.
        if names.insert(name.clone()) && is_alike {
            let name = format!("{name}{MARK}{}", field.number());
            field.json_name = Some(name.clone());
            field.name = Some(name);
            marked = true;
        }
    }
    message.nested_type.iter_mut().fold(marked, |marked, inner| mark(inner) || marked)
}

fn mark_all(file: &mut FileDescriptorProto) -> bool {
    // All of them, though the first says it.
    file.message_type.iter_mut().filter_map(|message| mark(message).then_some(())).count() != 0
}

/// Whether a message may have something at a path. What Google's own messages have depends on the record.
pub(super) fn has(of: &MessageDescriptor, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return true };
    if of.full_name().starts_with("google.protobuf.") {
        return true;
    }
    let Some(field) = field(of, first) else { return false };
    let of = field.kind();
    let of = of.as_message();
    if field.is_map() {
        let value = of.map(|of| of.map_entry_value_field().kind());
        let value = value.as_ref().and_then(|kind| kind.as_message());
        return rest.len() < 2 || value.is_some_and(|of| has(of, &rest[1..]));
    }
    let rest = if field.is_list() { rest.get(1..).unwrap_or_default() } else { rest };
    rest.is_empty() || of.is_some_and(|of| has(of, rest))
}

/// Whether a file's name says that it is of Protobuf.
pub(in crate::format) fn is_named(path: &Path) -> bool {
    let names = ["proto", "desc", "binpb", "pb", "protoset"];
    path.extension().is_some_and(|name| names.iter().any(|known| name.eq_ignore_ascii_case(known)))
}

/// The message `named` of a file; its only one where no name is given.
///
/// # Errors
///
/// What is wrong with the file or the name.
pub(super) fn of_file(path: &Path, named: Option<&str>) -> Result<MessageDescriptor, String> {
    let at = |why: String| format!("read input.schema {}: {why}", path.display());
    if !path.exists() {
        return Err(at("no such file; correct the path".to_owned()));
    }
    let is_text = path.extension().is_some_and(|name| name.eq_ignore_ascii_case("proto"));
    let (pool, own) = if is_text { of_proto(path) } else { of_set(path) }.map_err(at)?;
    match (named, own.as_slice()) {
        (Some(name), _) => {
            pool.get_message_by_name(name.trim_start_matches('.')).ok_or_else(|| {
                let has = names(&pool, &own, true);
                at(format!("has no message {name:?}, which input.message names; it has {has}"))
            })
        }
        (None, [only]) => Ok(only.clone()),
        (None, []) => Err(at(format!(
            "has no message of its own; set input.message to the one that values are: {}",
            names(&pool, &own, true)
        ))),
        (None, several) => Err(at(format!(
            "has several messages; set input.message to the one that values are: {}",
            names(&pool, several, false)
        ))),
    }
}

/// Most messages that are named.
const NAMED: usize = 20;

/// The full names of messages, with those `within` them; of all that is known where a file has none of its own.
fn names(pool: &DescriptorPool, own: &[MessageDescriptor], within: bool) -> String {
    let inside = |of: &MessageDescriptor, name: &str| {
        name.strip_prefix(of.full_name())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let is_own = |of: &MessageDescriptor| {
        let name = of.full_name();
        own.iter().any(|own| if within { inside(own, name) } else { own.full_name() == name })
    };
    let known: Vec<String> = pool
        .all_messages()
        .filter(|of| !of.is_map_entry() && (own.is_empty() || is_own(of)))
        .map(|of| of.full_name().to_owned())
        .collect();
    if known.is_empty() {
        return "none".to_owned();
    }
    let more = known.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", known[..known.len().min(NAMED)].join(", "))
}

/// The descriptors of a `.proto` file and the messages that stand in it by themselves.
type Found = (DescriptorPool, Vec<MessageDescriptor>);

fn of_proto(path: &Path) -> Result<Found, String> {
    let (Some(folder), Some(name)) =
        (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Err("is no file".to_owned());
    };
    // Imports are named from a folder above, mostly.
    let canonical = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let canonical = canonical.canonicalize().map_err(|error| error.to_string())?;
    let file = compile(name, Folders(canonical.ancestors().map(Path::to_owned).collect()))?;
    Ok((file.parent_pool().clone(), file.messages().collect()))
}

fn of_set(path: &Path) -> Result<Found, String> {
    let bytes = file::read(path, MAX_SCHEMA, Links::Follow).map_err(|error| error.to_string())?;
    let wrong = |error: &dyn std::fmt::Display| {
        format!(
            "is not a valid FileDescriptorSet, as `protoc --include_imports -o FILE` writes it: {error}"
        )
    };
    // The library knows no editions, and panics on some.
    let mut set = FileDescriptorSet::decode(&*bytes).map_err(|error| wrong(&error))?;
    if let Some(file) = set.file.iter().find(|file| file.syntax() == "editions") {
        return Err(format!("has {:?}, which {EDITIONS}", file.name()));
    }
    for file in &mut set.file {
        mark_all(file);
    }
    let decoded = catch_unwind(|| DescriptorPool::from_file_descriptor_set(set));
    let pool = match decoded {
        Ok(pool) => pool.map_err(|error| wrong(&error))?,
        Err(_panic) => return Err(wrong(&"it cannot be read")),
    };
    // What other files import is not what values are.
    let imported: Vec<String> = pool
        .files()
        .flat_map(|file| file.dependencies().map(|of| of.name().to_owned()).collect::<Vec<_>>())
        .collect();
    let own = pool.files().filter(|file| !imported.iter().any(|name| name == file.name()));
    let own = own.flat_map(|file| file.messages().collect::<Vec<_>>()).collect();
    Ok((pool, own))
}

/// Files by their names and texts.
struct Texts(Vec<(String, String)>);

impl FileResolver for Texts {
    fn resolve_path(&self, path: &Path) -> Option<String> {
        let name = path.to_str()?;
        self.0.iter().any(|(known, _)| known == name).then(|| name.to_owned())
    }

    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.iter().find(|(known, _)| known == name) {
            Some((_, text)) => parse(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// Files below one of some folders.
struct Folders(Vec<PathBuf>);

impl FileResolver for Folders {
    fn resolve_path(&self, path: &Path) -> Option<String> {
        path.to_str().map(str::to_owned)
    }

    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let path = Path::new(name);
        let below = path.components().all(|part| matches!(part, Component::Normal(_)));
        for folder in self.0.iter().filter(|_| below) {
            match file::read(&folder.join(path), MAX_SCHEMA, Links::Follow) {
                Ok(bytes) => {
                    let text = String::from_utf8(bytes).map_err(protox::Error::new)?;
                    return parse(name, &text);
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => (),
                Err(error) => return Err(protox::Error::new(error)),
            }
        }
        Err(protox::Error::file_not_found(name))
    }
}

fn parse(name: &str, text: &str) -> Result<File, protox::Error> {
    // As Confluent's client for Python registers it: a descriptor in base64, which no text of a schema can be.
    let bytes = BASE64.decode(text.trim()).unwrap_or_default();
    if !bytes.is_empty() {
        let mut descriptor = FileDescriptorProto::decode(&*bytes).map_err(protox::Error::new)?;
        if descriptor.syntax() == "editions" {
            return Err(editions(name));
        }
        descriptor.name = Some(name.to_owned());
        mark_all(&mut descriptor);
        return Ok(File::from_file_descriptor_proto(descriptor));
    }
    // As some editors begin a file.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if MAX_NESTING < nesting(text) {
        let message = format!("{name} is nested deeper than {MAX_NESTING} levels");
        return Err(protox::Error::new(std::io::Error::other(message)));
    }
    if text.lines().any(|line| line.trim_start().strip_prefix("edition").is_some_and(is_assigned)) {
        return Err(editions(name));
    }
    let file = File::from_source(name, text)?;
    let mut descriptor = file.file_descriptor_proto().clone();
    let marked = mark_all(&mut descriptor);
    Ok(if marked { File::from_file_descriptor_proto(descriptor) } else { file })
}

fn is_assigned(rest: &str) -> bool {
    rest.trim_start().starts_with('=')
}

fn editions(name: &str) -> protox::Error {
    protox::Error::new(std::io::Error::other(format!("{name} {EDITIONS}")))
}

/// How deep braces are nested, outside of comments and texts.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut rest = text.as_bytes();
    let behind = |text: &[u8], end: &[u8]| {
        text.windows(end.len()).position(|part| part == end).map_or(text.len(), |at| at + end.len())
    };
    while let [first, others @ ..] = rest {
        rest = match (first, others) {
            (b'/', [b'/', more @ ..]) => &more[behind(more, b"\n")..],
            (b'/', [b'*', more @ ..]) => &more[behind(more, b"*/")..],
            (quote @ (b'"' | b'\''), _) => &others[text_end(others, *quote)..],
            (b'{' | b'[' | b'<', _) => {
                depth += 1;
                deepest = deepest.max(depth);
                others
            }
            (b'}' | b']' | b'>', _) => {
                depth = depth.saturating_sub(1);
                others
            }
            _ => others,
        };
    }
    deepest
}

fn text_end(text: &[u8], quote: u8) -> usize {
    let mut escaped = false;
    let end = text.iter().position(|byte| {
        let ends = !escaped && (*byte == quote || *byte == b'\n');
        escaped = !escaped && *byte == b'\\';
        ends
    });
    end.map_or(text.len(), |end| end + 1)
}

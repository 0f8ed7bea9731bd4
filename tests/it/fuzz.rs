//! Seeds of `data/corpus`, changed at random: whatever becomes of them, decoding answers, and answers as the field's own
//! libraries do. `TIDEMILL_FUZZ_CASES` is how many changed seeds each target is given; a second takes about 10,000.

use std::collections::BTreeMap;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use apache_avro::reader::datum::GenericDatumReader;
use proptest::prelude::*;
use proptest::sample::Index;
use serde::de::IgnoredAny;
use serde_json::{Map, Value as Json};
use tidemill::avro;
use tidemill::config::{Config, Input, InputFormat, Pointer, SchemaRegistry, Unwrap};
use tidemill::field::Value;
use tidemill::format::{Codec, Read, Unread, Wanted};
use tidemill::record::{FaultClass, Header, Offset, Partition, Record};

/// What is done to a seed, at places that are drawn.
#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// A piece of itself, once more.
    Again(Index, Index, usize),
    Cut(Index),
    /// Behind a piece of it a piece of another seed.
    Cross(Index, Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<Index>;
    // What formats take for lengths, ends and quotes.
    let pieces: Vec<&[u8]> = vec![
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\xfe\xff\xff\xff\x0f",
        b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
        b"\x01",
        b"\x00",
        b"\xc3\x28",
        b"\\ud800",
        b"1e400",
        b"9999999999999999999999",
        b"-0",
        b"NaN",
        b"null",
        b"{\"a\":",
        b"[[[[[[[[",
        b"\"",
        b"\\",
        b",\"a\":1",
    ];
    prop_oneof![
        (place(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (place(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (place(), prop::sample::select(pieces))
            .prop_map(|(at, piece)| Change::Insert(at, piece.to_vec())),
        (place(), 1..9_usize).prop_map(|(at, bytes)| Change::Remove(at, bytes)),
        (place(), place(), 1..40_usize)
            .prop_map(|(from, to, bytes)| Change::Again(from, to, bytes)),
        place().prop_map(Change::Cut),
        (place(), place(), place()).prop_map(|(at, seed, from)| Change::Cross(at, seed, from)),
    ]
}

fn changed(seeds: &[Vec<u8>], seed: Index, changes: &[Change]) -> Vec<u8> {
    let mut bytes = seeds[seed.index(seeds.len())].clone();
    for change in changes {
        let place = |at: &Index| at.index(bytes.len() + 1);
        match change {
            Change::Set(at, byte) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Change::Flip(at, bit) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            Change::Set(..) | Change::Flip(..) => (),
            Change::Insert(at, piece) => {
                let at = place(at);
                bytes.splice(at..at, piece.iter().copied());
            }
            Change::Remove(at, count) => {
                let at = place(at);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Change::Again(from, to, count) => {
                let (from, to) = (place(from), place(to));
                let piece = bytes[from..(from + count).min(bytes.len())].to_vec();
                bytes.splice(to..to, piece);
            }
            Change::Cut(at) => bytes.truncate(place(at)),
            Change::Cross(at, seed, from) => {
                bytes.truncate(place(at));
                let other = &seeds[seed.index(seeds.len())];
                bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
            }
        }
    }
    bytes
}

fn corpus(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/corpus").join(folder)
}

fn seeds(folder: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(corpus(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let is_seed = |path: &PathBuf| path.extension().is_none();
    paths.into_iter().filter(is_seed).map(|path| fs::read(path).unwrap()).collect()
}

/// Gives changed seeds of `folder` to `check`; the seeds as they are come first.
fn fuzz(folder: &str, check: impl Fn(&[u8]) -> Result<(), TestCaseError>) {
    let seeds = seeds(folder);
    for seed in &seeds {
        check(seed).unwrap_or_else(|error| panic!("{error}: {}", seed.escape_ascii()));
    }
    let cases = std::env::var("TIDEMILL_FUZZ_CASES").map_or(20_000, |cases| cases.parse().unwrap());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let strategy = (any::<Index>(), prop::collection::vec(change(), 0..6));
    let mut runner = prop::test_runner::TestRunner::new(config);
    let ran = runner.run(&strategy, |(seed, changes)| {
        let bytes = changed(&seeds, seed, &changes);
        check(&bytes).map_err(|error| {
            TestCaseError::fail(format!("{error}: {:?}", bytes.escape_ascii().to_string()))
        })
    });
    ran.unwrap_or_else(|error| panic!("{folder}: {error}"));
}

fn codec(input: Input) -> Codec {
    let input = Input { topics: vec!["t".to_owned()], ..input };
    Codec::new(&Config { input, ..Config::default() }).unwrap()
}

fn record(value: &[u8]) -> Record {
    Record::of_value(Partition { topic: 0, number: 0 }, Offset(0), Some(value.to_vec()))
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "b\\", "é"];

fn names() -> Vec<String> {
    NAMES.map(str::to_owned).to_vec()
}

/// What a fault says is of the value's form; the value itself is nobody's to read.
fn is_told(unread: &Unread) -> Result<(), TestCaseError> {
    let Unread::Fault(fault) = unread else { return Err(TestCaseError::fail("nobody was asked")) };
    prop_assert!(matches!(fault.class, FaultClass::Undecodable), "{fault:?}");
    prop_assert!(!fault.message.is_empty() && fault.message.len() < 2_000, "{}", fault.message);
    Ok(())
}

#[test]
fn json_is_what_serde_reads() {
    let codec = codec(Input::default());
    let wanted = Wanted::new(&names(), &BTreeMap::new());
    fuzz("json", |bytes| {
        let record = record(bytes);
        let theirs = serde_json::from_slice::<Map<String, Json>>(bytes);
        let ours = codec.read(&wanted, &record, |Read { values, unknown }| {
            if let Ok(object) = &theirs {
                for (name, value) in NAMES.iter().zip(&values) {
                    prop_assert_eq!(value, &object.get(*name).map(Value::from));
                }
                let others = object.keys().find(|name| !NAMES.contains(&name.as_str()));
                prop_assert_eq!(unknown.is_some(), others.is_some());
            }
            Ok(())
        });
        match ours {
            Ok(Some(same)) => {
                same?;
                prop_assert!(serde_json::from_slice::<IgnoredAny>(bytes).is_ok());
            }
            Ok(None) => prop_assert!(false, "a tombstone"),
            Err(unread) => {
                is_told(&unread)?;
                prop_assert!(theirs.is_err(), "refused: {unread:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn envelopes_are_opened_or_refused() {
    for unwrap in [Unwrap::None, Unwrap::Connect, Unwrap::Debezium, Unwrap::CloudEvents] {
        let pointer = Pointer::try_from("/b/0".to_owned()).unwrap();
        let fields = BTreeMap::from([("c".to_owned(), pointer)]);
        let wanted = Wanted::new(&names(), &fields);
        let codec = codec(Input { unwrap, fields, ..Input::default() });
        fuzz("envelope", |bytes| {
            let record = record(bytes);
            match codec.read(&wanted, &record, |read| read.values.len()) {
                Ok(read) => prop_assert!(read.is_none_or(|values| values == NAMES.len())),
                Err(unread) => is_told(&unread)?,
            }
            Ok(())
        });
    }
}

#[test]
fn avro_is_what_apache_avro_reads() {
    // What a changed length claims is not allocated by them either.
    apache_avro::util::max_allocation_bytes(1 << 20);
    let text = fs::read_to_string(corpus("avro/schema.avsc")).unwrap();
    let schema = avro::parse(&text, &[]).unwrap();
    let wanted =
        ["a", "b", "price", "kind", "id", "at", "ok", "f"].map(|name| vec![name.to_owned()]);
    let plan = avro::Plan::new(&schema, None, &wanted).unwrap();
    let reader = GenericDatumReader::builder(&schema).build().unwrap();
    fuzz("avro", |bytes| {
        let mut values = vec![None; plan.wanted()];
        let ours = plan.read(bytes, &mut values);
        let theirs = catch_unwind(|| {
            let mut rest = bytes;
            reader.read_value(&mut rest).is_ok_and(|_value| rest.is_empty())
        });
        // They drop the bits of a varint that no long has, and pass over the length of a block.
        let strict = ["more than 64 bits", "not as long as it says", " claims a"];
        let strictly =
            ours.as_ref().is_err_and(|wrong| strict.iter().any(|words| wrong.contains(words)));
        prop_assert!(strictly || ours.is_ok() == theirs.unwrap_or(false), "{ours:?}");
        if let Err(message) = &ours {
            prop_assert!(message.len() < 2_000 && values.iter().all(Option::is_none));
        }
        let mut json = Vec::new();
        prop_assert_eq!(plan.json(bytes, None, &mut json).is_ok(), ours.is_ok());
        prop_assert!(ours.is_err() || serde_json::from_slice::<IgnoredAny>(&json).is_ok());
        Ok(())
    });
}

/// Nobody listens where the registry should be: a frame that is one waits for it, anything else is at fault.
#[test]
fn frames_wait_for_their_schema() {
    let registry =
        SchemaRegistry { urls: vec!["http://127.0.0.1:9".to_owned()], ..SchemaRegistry::default() };
    let input =
        Input { topics: vec!["t".to_owned()], format: InputFormat::Avro, ..Input::default() };
    let config = Config { input, schema_registry: registry, ..Config::default() };
    let codec = Codec::new(&config).unwrap();
    let wanted = Wanted::new(&names(), &BTreeMap::new());
    fuzz("frame", |bytes| {
        // An id in 8 bytes may be another schema's.
        let long = bytes.starts_with(&[0; 5]) && 9 <= bytes.len();
        let framed = match bytes.first() {
            Some(0) => 5 <= bytes.len() && !long,
            Some(1) => 17 <= bytes.len(),
            _ => false,
        };
        match codec.read(&wanted, &record(bytes), |read| read.values.len()) {
            Ok(read) => prop_assert!(false, "read {read:?}"),
            Err(Unread::Away { .. }) => prop_assert!(framed),
            Err(unread) => {
                is_told(&unread)?;
                prop_assert!(!framed, "{unread:?}");
            }
        }
        Ok(())
    });
}

/// What is at a member of a map, by the oracle; the last of several of one name counts.
fn member<'v>(value: &'v rmpv::Value, name: &str) -> Option<&'v rmpv::Value> {
    let is = |key: &rmpv::Value| key.as_str() == Some(name);
    value.as_map()?.iter().rfind(|(key, _)| is(key)).map(|(_, value)| value)
}

#[test]
fn messagepack_is_what_rmpv_reads() {
    let codec = codec(Input { format: InputFormat::MessagePack, ..Input::default() });
    let wanted = Wanted::new(&names(), &BTreeMap::new());
    fuzz("messagepack", |bytes| {
        let mut rest = bytes;
        let theirs = rmpv::decode::read_value(&mut rest).ok().filter(|_| rest.is_empty());
        let ours = codec.read(&wanted, &record(bytes), |Read { values, .. }| {
            let Some(theirs) = &theirs else { return Err(TestCaseError::fail("they refuse it")) };
            for (name, value) in NAMES.iter().zip(&values) {
                let expect = member(theirs, name);
                prop_assert_eq!(value.is_some(), expect.is_some());
                match (value, expect) {
                    (Some(Value::Text(text)), Some(expect)) => {
                        prop_assert_eq!(Some(&**text), expect.as_str());
                    }
                    (Some(Value::Int(number)), Some(expect)) if !expect.is_ext() => {
                        prop_assert_eq!(number.to_string(), expect.to_string());
                    }
                    (Some(value), Some(expect)) => {
                        prop_assert_eq!(*value == Value::Map, expect.is_map());
                        prop_assert_eq!(*value == Value::List, expect.is_array());
                        prop_assert_eq!(*value == Value::Null, expect.is_nil());
                    }
                    _ => (),
                }
            }
            Ok(())
        });
        match ours {
            Ok(same) => same.unwrap_or_else(|| Err(TestCaseError::fail("a tombstone"))),
            Err(unread) => {
                is_told(&unread)?;
                // Texts must be texts, records maps, and what is wanted of a type that is known.
                let Unread::Fault(fault) = &unread else { return Ok(()) };
                // They take the byte that is not used for null.
                let strict = [
                    "UTF-8",
                    "where a map is wanted",
                    "extension type",
                    "nested deeper",
                    "the byte c1",
                ];
                let strictly = strict.iter().any(|rule| fault.message.contains(rule));
                prop_assert!(strictly || theirs.is_none(), "{}", fault.message);
                Ok(())
            }
        }
    });
}

/// What a value is but for the tags before it.
fn untagged(mut value: &ciborium::Value) -> &ciborium::Value {
    while let ciborium::Value::Tag(_, of) = value {
        value = of;
    }
    value
}

#[test]
fn cbor_is_what_ciborium_reads() {
    let codec = codec(Input { format: InputFormat::Cbor, ..Input::default() });
    let wanted = Wanted::new(&names(), &BTreeMap::new());
    fuzz("cbor", |bytes| {
        let mut rest = bytes;
        let theirs: Option<ciborium::Value> =
            ciborium::from_reader(&mut rest).ok().filter(|_| rest.is_empty());
        match codec.read(&wanted, &record(bytes), |read| format!("{:?}", read.values)) {
            Ok(read) => {
                prop_assert!(read.is_some());
                let Some(ciborium::Value::Map(all)) = &theirs else { return Ok(()) };
                let is = |key: &ciborium::Value| untagged(key).as_text() == Some("a");
                let last = all.iter().rfind(|(key, _)| is(key)).map(|(_, value)| value);
                if let Some(ciborium::Value::Text(text)) = last.map(untagged) {
                    let text = format!("[Some(Text({text:?}))");
                    prop_assert!(read.unwrap_or_default().starts_with(&text));
                }
            }
            Err(unread) => {
                is_told(&unread)?;
                let Unread::Fault(fault) = &unread else { return Ok(()) };
                let strict = [
                    "where a map is wanted",
                    "decimal number",
                    "large number",
                    // Tags whose content the oracle does not look at.
                    "number of two parts",
                    "binary fraction (tag",
                    "rational number (tag 30)",
                    "string references (tag 25)",
                    "shared values (tag 29)",
                    "64-bit float",
                    "nested deeper",
                    // They take parts within a part.
                    "in parts of another kind",
                    // They take false, true and null in the two bytes of the others.
                    "a simple value",
                ];
                let strictly = strict.iter().any(|rule| fault.message.contains(rule));
                prop_assert!(strictly || theirs.is_none(), "{}", fault.message);
            }
        }
        Ok(())
    });
}

#[test]
fn compressed_values_are_unpacked_or_refused() {
    let codec = codec(Input::default());
    let wanted = Wanted::new(&names(), &BTreeMap::new());
    for encoding in ["gzip", "zstd", "lz4", "identity", "br"] {
        fuzz("encoded", |bytes| {
            let (name, value) = ("content-encoding".into(), Some(encoding.into()));
            let headers = vec![Header { name, value }];
            let record = Record { headers, ..record(bytes) };
            match codec.read(&wanted, &record, |read| read.values.len()) {
                Ok(read) => prop_assert_eq!(read, Some(NAMES.len())),
                Err(unread) => is_told(&unread)?,
            }
            Ok(())
        });
    }
}

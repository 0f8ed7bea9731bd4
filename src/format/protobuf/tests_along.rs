//! What goes along of messages, and which schemas are taken.

#![expect(clippy::unwrap_in_result, reason = "what a test writes is well-formed")]

use super::super::{Codec, Writer};
use super::*;
use crate::answer::Prediction;
use crate::config::{Include, Input, InputFormat, Output, Pointer};
use crate::record::{Offset, Partition};

fn record(value: &[u8]) -> Record {
    Record::of_value(Partition { topic: 0, number: 0 }, Offset(0), Some(value.to_vec()))
}

/// What goes along of a message by paths, or all of it where there are none.
fn along(config: &Config, value: &[u8]) -> Result<String, Fault> {
    let writer = Writer::new(config, Arc::new(Codec::new(config).unwrap()));
    let written = writer.write(&Prediction::Value(0.5_f32.into()), &record(value))?;
    let text = String::from_utf8(written).unwrap();
    Ok(text.split_once("\"input\":").unwrap().1.strip_suffix('}').unwrap().to_owned())
}

fn including(schema: &str, paths: &[(&str, &str)]) -> (tempfile::TempDir, Config) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.proto");
    std::fs::write(&path, schema).unwrap();
    let pointer = |path: &str| Pointer::try_from(path.to_owned()).unwrap();
    let input = Input {
        topics: vec!["t".to_owned()],
        format: InputFormat::Protobuf,
        schema: Some(path),
        message: Some("M".to_owned()),
        fields: paths.iter().map(|(name, path)| ((*name).to_owned(), pointer(path))).collect(),
        ..Input::default()
    };
    let names = paths.iter().map(|(name, _)| (*name).to_owned()).collect();
    let include = if paths.is_empty() { Include::All } else { Include::Fields(names) };
    let output = Output { include, ..Output::default() };
    (folder, Config { input, output, ..Config::default() })
}

const ALONG: &str = r#"syntax = "proto3"; import "google/protobuf/timestamp.proto"; import "google/protobuf/duration.proto";
    import "google/protobuf/wrappers.proto"; import "google/protobuf/field_mask.proto";
    message M { google.protobuf.Timestamp ts = 1; google.protobuf.Duration du = 2; google.protobuf.DoubleValue wd = 3;
      google.protobuf.FieldMask mask = 4; repeated M many = 5; M one = 6; double d = 7; int32 i = 8; string s = 9;
      repeated float f = 10; map<string, double> m = 11; google.protobuf.BytesValue y = 12; }"#;

/// What the model is given goes along, wherever the JSON of its message hides it.
#[test]
fn parts_of_googles_own_messages_go_along() {
    let value = b"\x0a\x04\x08\x05\x10\x07\x12\x02\x08\x09\x1a\x09\x09\0\0\0\0\0\0\x04\x40\x22\x03\x0a\x01a\
                  \x32\x0d\x0a\x04\x08\x06\x10\x07\x32\x05\x0a\x03\x08\x99\x02\x62\x03\x0a\x01\xff";
    for (path, expect) in [
        ("/ts/seconds", "5"),
        ("/ts/nanos", "7"),
        ("/ts", "\"1970-01-01T00:00:05.000000007Z\""),
        ("/du/seconds", "9"),
        ("/du/nanos", "0"),
        ("/wd/value", "2.5"),
        ("/wd", "2.5"),
        ("/y/value", "\"/w==\""),
        ("/mask/paths/0", "\"a\""),
        ("/one/ts/seconds", "6"),
        ("/one/one/ts/seconds", "281"),
        ("/one/one/s", "\"\""),
        ("/one/d", "0.0"),
    ] {
        let (_folder, config) = including(ALONG, &[("x", path)]);
        assert_eq!(along(&config, value).unwrap(), format!("{{\"x\":{expect}}}"), "{path}");
    }
    let (_folder, config) = including(ALONG, &[("x", "/ts/seconds")]);
    assert_eq!(along(&config, b"").unwrap(), "{}");
    let (_folder, config) = including(ALONG, &[("x", "/ts/seconds"), ("at", "/ts"), ("i", "/i")]);
    let expect = r#"{"x":5,"at":"1970-01-01T00:00:05.000000007Z","i":0}"#;
    assert_eq!(along(&config, value).unwrap(), expect);
}

/// What nobody asked for is not built, and what is of another type is no field.
#[test]
fn only_what_goes_along_is_built() {
    let number = b"\x39\0\0\0\0\0\0\xf8\x3f";
    let many = [&number[..], &b"\x2a\0".repeat(300_000)].concat();
    let inside = [&number[..], b"\x32\xc0\xcf\x24", &b"\x2a\0".repeat(300_000)].concat();
    for value in [&many, &inside] {
        let (_folder, config) = including(ALONG, &[("d", "/d"), ("s", "/one/s")]);
        assert!(along(&config, value).unwrap().contains("\"d\":1.5"));
        let (_folder, config) = including(ALONG, &[]);
        let fault = along(&config, value).unwrap_err();
        assert_eq!(fault.class, FaultClass::Oversized, "{fault}");
    }
    // d as a whole number, i as a double, many as a number, and s inside one as one.
    for wrong in [&b"\x38\x01"[..], b"\x41\0\0\0\0\0\0\xf8\x3f", b"\x28\x01", b"\x32\x02\x48\x01"] {
        let value = [&number[..], wrong].concat();
        for paths in [&[("d", "/d"), ("s", "/one/s"), ("many", "/many")][..], &[]] {
            let (_folder, config) = including(ALONG, paths);
            let said = along(&config, &value).unwrap();
            assert!(said.contains("\"d\":1.5"), "{said}");
        }
    }
}

/// Of a oneof the last counts, whether or not it goes along.
#[test]
fn what_a_oneof_no_longer_has_does_not_go_along() {
    let schema = "syntax = \"proto3\"; import \"google/protobuf/timestamp.proto\";
        message M { oneof o { int32 a = 1; google.protobuf.Timestamp b = 2; string c = 3; } int32 d = 4; }";
    for (value, expect) in [
        (&b"\x08\x07"[..], r#"{"a":7}"#),
        (b"\x08\x07\x12\x02\x08\x09", r#"{"s":9}"#),
        (b"\x12\x02\x08\x09\x08\x07", r#"{"a":7}"#),
        (b"\x08\x07\x1a\x01x", "{}"),
        // Of another type, so not one of it.
        (b"\x08\x07\x18\x01", r#"{"a":7}"#),
    ] {
        let (_folder, config) = including(schema, &[("a", "/a"), ("s", "/b/seconds")]);
        assert_eq!(along(&config, value).unwrap(), expect, "{value:?}");
    }
}

/// Numbers that JSON does not have are null, as of other formats; a text with such a name is one.
#[test]
fn numbers_that_json_does_not_have_are_null() {
    let nan = b"\0\0\0\0\0\0\xf8\x7f";
    let value = [
        &b"\x39"[..],
        nan,
        b"\x4a\x03NaN\x52\x08\0\0\x80\x7f\0\0\x80\xff\x5a\x0c\x0a\x01k\x11",
        nan,
        b"\x1a\x09\x09",
        nan,
    ]
    .concat();
    let paths = [("d", "/d"), ("f", "/f"), ("m", "/m"), ("s", "/s"), ("w", "/wd")];
    let (_folder, config) = including(ALONG, &paths);
    let expect = r#"{"d":null,"f":[null,null],"m":{"k":null},"s":"NaN","w":null}"#;
    assert_eq!(along(&config, &value).unwrap(), expect);
    let (_folder, config) = including(ALONG, &[("v", "/wd/value")]);
    assert_eq!(along(&config, &value).unwrap(), r#"{"v":null}"#);
}

/// Names that protoc takes, with a warning at most, and that the library would take for one.
#[test]
fn names_that_differ_by_case_or_underscores_are_names() {
    for (schema, names) in [
        ("message M { int32 userid = 1; int32 user_id = 2; }", ["userid", "user_id"]),
        ("message M { int32 ID = 1; int32 id = 2; }", ["ID", "id"]),
        ("message M { int32 x = 1; optional int32 _x = 2; }", ["x", "_x"]),
        (
            "message M { option deprecated_legacy_json_field_conflicts = true; int32 userId = 1; int32 user_id = 2; }",
            ["userId", "user_id"],
        ),
    ] {
        for begin in ["syntax = \"proto3\";", "\u{feff}syntax = \"proto3\";"] {
            let (folder, config) = including(&format!("{begin} {schema}"), &[]);
            let expect = format!("{{\"{}\":1,\"{}\":2}}", names[0], names[1]);
            assert_eq!(along(&config, b"\x08\x01\x10\x02").unwrap(), expect);
            let text = std::fs::read_to_string(folder.path().join("m.proto")).unwrap();
            let file = schema::of_text(&text, &[]).unwrap();
            let of = schema::at(&file, &[]).unwrap();
            let paths = names.map(|name| vec![name.to_owned()]);
            assert!(paths.iter().all(|path| schema::has(&of, path)));
            let read = Plan::new(&of, &paths).unwrap();
            let (values, _) = read.read(b"\x08\x01\x10\x02").unwrap();
            assert_eq!(values, [Some(Value::Int(1)), Some(Value::Int(2))]);
            let (_, unknown) = Plan::new(&of, &paths[..1]).unwrap().read(b"\x10\x02").unwrap();
            assert_eq!(unknown.as_deref(), Some(names[1]));
        }
    }
    // As a set of descriptors, and as a client's registered descriptor.
    let mut file = protox::file::File::from_source(
        "m.proto",
        "syntax = \"proto3\"; message M { int32 userid = 1; int32 user_id = 2; }",
    )
    .unwrap()
    .file_descriptor_proto()
    .clone();
    file.source_code_info = None;
    let encoded = prost_reflect::prost::Message::encode_to_vec(&file);
    assert!(schema::of_text(&BASE64.encode(encoded), &[]).is_ok());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.desc");
    let set = prost_reflect::prost_types::FileDescriptorSet { file: vec![file] };
    std::fs::write(&path, prost_reflect::prost::Message::encode_to_vec(&set)).unwrap();
    let of = schema::of_file(&path, None).unwrap();
    assert!(schema::has(&of, &["user_id".to_owned()]));
    let said = schema::of_text("syntax = \"proto3\"; message M { int32 x = 1; int32 x = 2; }", &[]);
    assert!(said.unwrap_err().contains("is not a valid Protobuf schema"));
}

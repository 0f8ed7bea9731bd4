//! Against the formats' own libraries, on values that are drawn; and tables of what is wrong.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "values of an oracle have more forms than are drawn"
)]

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::config::Pointer;

fn wanted() -> Wanted {
    let pointers = [("deep", "/o/p"), ("second", "/l/1"), ("in", "/l/0/x"), ("five", "/5")];
    let pointer =
        |(name, path): (&str, &str)| (name.to_owned(), Pointer::try_from(path.to_owned()).unwrap());
    let names = ["a", "deep", "second", "in", "five", "o"].map(str::to_owned);
    Wanted::new(&names, &pointers.map(pointer).into())
}

fn msgpack(bytes: &[u8]) -> Given<String> {
    shown(read::<MessagePack<'_>>(bytes, &wanted()))
}

fn cbor(bytes: &[u8]) -> Given<String> {
    shown(read::<Cbor<'_>>(bytes, &wanted()))
}

fn shown(read: Given<Read<'_>>) -> Given<String> {
    read.map(|read| {
        let values = read.values.iter().map(|value| match value {
            None => "-".to_owned(),
            Some(value) => format!("{value:?}"),
        });
        format!("{}|{}", values.collect::<Vec<_>>().join(" "), read.unknown.unwrap_or_default())
    })
}

/// A value of both formats.
fn value() -> impl Strategy<Value = rmpv::Value> {
    use rmpv::Value as Theirs;
    let leaf = prop_oneof![
        Just(Theirs::Nil),
        any::<bool>().prop_map(Theirs::from),
        any::<i64>().prop_map(Theirs::from),
        any::<u64>().prop_map(Theirs::from),
        any::<u8>().prop_map(Theirs::from),
        any::<f64>().prop_filter("no NaN", |number| !number.is_nan()).prop_map(Theirs::from),
        any::<f32>().prop_filter("no NaN", |number| !number.is_nan()).prop_map(Theirs::from),
        "[a-zé😀\"]{0,40}".prop_map(Theirs::from),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Theirs::from),
    ];
    leaf.prop_recursive(4, 48, 20, |inner| {
        let key = prop_oneof![
            "[aplo]".prop_map(Theirs::from),
            "[a-z]{0,3}".prop_map(Theirs::from),
            (0..9_u64).prop_map(Theirs::from)
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Theirs::Array),
            prop::collection::vec((key, inner), 0..20).prop_map(Theirs::Map),
        ]
    })
}

fn record() -> impl Strategy<Value = rmpv::Value> {
    prop::collection::vec(("[aol]|[a-z]{0,3}", value()), 0..6).prop_map(|members| {
        let member = |(name, value): (String, rmpv::Value)| (rmpv::Value::from(name), value);
        rmpv::Value::Map(members.into_iter().map(member).collect())
    })
}

/// The same in the other library's words.
fn other(value: &rmpv::Value) -> ciborium::Value {
    use ciborium::Value as Other;
    use rmpv::Value as Theirs;
    match value {
        Theirs::Nil => Other::Null,
        Theirs::Boolean(is) => Other::Bool(*is),
        Theirs::Integer(number) => match number.as_u64() {
            Some(number) => Other::Integer(number.into()),
            None => Other::Integer(number.as_i64().unwrap().into()),
        },
        Theirs::F32(number) => Other::Float((*number).into()),
        Theirs::F64(number) => Other::Float(*number),
        Theirs::String(text) => Other::Text(text.as_str().unwrap().to_owned()),
        Theirs::Binary(bytes) => Other::Bytes(bytes.clone()),
        Theirs::Array(all) => Other::Array(all.iter().map(other).collect()),
        Theirs::Map(all) => {
            Other::Map(all.iter().map(|(key, value)| (other(key), other(value))).collect())
        }
        Theirs::Ext(..) => panic!("not drawn"),
    }
}

/// What is at a path, by the oracle; the last of several members of one name counts.
fn at<'v>(value: &'v rmpv::Value, path: &[String]) -> Option<&'v rmpv::Value> {
    let Some((first, rest)) = path.split_first() else { return Some(value) };
    match value {
        rmpv::Value::Map(all) => {
            let is = |key: &rmpv::Value| match key {
                rmpv::Value::String(text) => text.as_str() == Some(first.as_str()),
                key => key.to_string() == *first,
            };
            all.iter().rfind(|(key, _)| is(key)).and_then(|(_, value)| at(value, rest))
        }
        rmpv::Value::Array(all) => {
            let place: usize = first.parse().ok()?;
            all.get(place).filter(|_| place.to_string() == *first).and_then(|value| at(value, rest))
        }
        _ => None,
    }
}

fn ours(value: &rmpv::Value) -> Value<'static> {
    use rmpv::Value as Theirs;
    match value {
        Theirs::Nil => Value::Null,
        Theirs::Boolean(is) => Value::Bool(*is),
        Theirs::Integer(number) => match number.as_u64() {
            Some(number) => Value::Int(number.into()),
            None => Value::Int(number.as_i64().unwrap().into()),
        },
        Theirs::F32(number) => Value::Float((*number).into()),
        Theirs::F64(number) => Value::Float(*number),
        Theirs::String(text) => Value::Text(text.as_str().unwrap().to_owned().into()),
        Theirs::Binary(bytes) => Value::Bytes(bytes.clone().into()),
        Theirs::Array(_) => Value::List,
        Theirs::Map(_) => Value::Map,
        Theirs::Ext(..) => panic!("not drawn"),
    }
}

/// As JSON, with the last of several members of one name.
fn as_json(value: &rmpv::Value) -> Json {
    use rmpv::Value as Theirs;
    match value {
        Theirs::Array(all) => all.iter().map(as_json).collect(),
        Theirs::Map(all) => {
            let name = |key: &Theirs| key.as_str().map_or_else(|| key.to_string(), str::to_owned);
            Json::Object(all.iter().map(|(key, value)| (name(key), as_json(value))).collect())
        }
        Theirs::Binary(bytes) => Json::from(BASE64.encode(bytes)),
        Theirs::F32(number) => {
            let text = serde_json::to_string(number).unwrap();
            serde_json::from_str(&text).unwrap()
        }
        Theirs::F64(number) => serde_json::to_value(number).unwrap(),
        Theirs::Integer(number) => match number.as_u64() {
            Some(number) => Json::from(number),
            None => Json::from(number.as_i64().unwrap()),
        },
        Theirs::String(text) => Json::from(text.as_str().unwrap()),
        Theirs::Boolean(is) => Json::from(*is),
        Theirs::Nil | Theirs::Ext(..) => Json::Null,
    }
}

fn both(record: &rmpv::Value) -> (Vec<u8>, Vec<u8>) {
    let (mut msgpack, mut cbor) = (Vec::new(), Vec::new());
    rmpv::encode::write_value(&mut msgpack, record).unwrap();
    ciborium::into_writer(&other(record), &mut cbor).unwrap();
    (msgpack, cbor)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn values_are_those_of_the_oracles(record in record()) {
        let (msgpack, cbor) = both(&record);
        let wanted = wanted();
        let expect: Vec<Option<Value<'_>>> =
            wanted.paths().iter().map(|path| at(&record, path).map(ours)).collect();
        prop_assert_eq!(&read::<MessagePack<'_>>(&msgpack, &wanted).unwrap().values, &expect);
        prop_assert_eq!(&read::<Cbor<'_>>(&cbor, &wanted).unwrap().values, &expect);
        let text = json::<MessagePack<'_>>(&msgpack, None).unwrap();
        prop_assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), as_json(&record));
        let text = json::<Cbor<'_>>(&cbor, None).unwrap();
        prop_assert!(serde_json::from_str::<Json>(&text).is_ok(), "{}", text);
    }

    #[test]
    fn no_prefix_is_a_record(record in record(), cut in any::<prop::sample::Index>(), more in any::<u8>()) {
        let (msgpack, cbor) = both(&record);
        for (bytes, read) in [(&msgpack, self::msgpack as fn(&[u8]) -> _), (&cbor, self::cbor)] {
            prop_assert!(read(&bytes[..cut.index(bytes.len())]).is_err());
            let longer = [bytes.as_slice(), &[more]].concat();
            prop_assert!(read(&longer).unwrap_err().contains("bytes behind its end"));
        }
    }

    /// What one library takes is taken here, but for what has rules of its own.
    #[test]
    fn what_is_valid_is_what_the_oracles_take(
        record in record(),
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
    ) {
        let (mut msgpack, mut cbor) = both(&record);
        for bytes in [&mut msgpack, &mut cbor] {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        let mut rest = msgpack.as_slice();
        let theirs = rmpv::decode::read_value(&mut rest).ok().filter(|_| rest.is_empty());
        match (self::msgpack(&msgpack), &theirs) {
            (Ok(_), theirs) => prop_assert!(theirs.is_some(), "{:02x?}", msgpack),
            (Err(why), Some(_)) => {
                let ours_alone = ["UTF-8", "where a map is wanted", "extension type", "the byte c1"];
                prop_assert!(ours_alone.iter().any(|rule| why.contains(rule)), "{}", why);
            }
            (Err(_), None) => (),
        }
        let mut rest = cbor.as_slice();
        let theirs: Result<ciborium::Value, _> = ciborium::from_reader(&mut rest);
        if let (Err(why), true) = (self::cbor(&cbor), theirs.is_ok() && rest.is_empty()) {
            let ours_alone = ["where a map is wanted", "a decimal number", "large number", "64-bit float", "two parts", "(tag ", "parts of another kind", "a simple value"];
            prop_assert!(ours_alone.iter().any(|rule| why.contains(rule)), "{}", why);
        }
    }

    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for bytes in [&bytes[..], &[&[0x81, 0xa1, b'a'], &bytes[..]].concat(), &[&[0xbf, 0x61, b'a'], &bytes[..]].concat()] {
            // What can be read can be written, but for keys that JSON does not have.
            let key = |why: &String| why.contains("has a key in a map");
            let read = msgpack(bytes);
            prop_assert!(read.is_err() || json::<MessagePack<'_>>(bytes, None).as_ref().map_or_else(key, |_| true));
            let read = cbor(bytes);
            prop_assert!(read.is_err() || json::<Cbor<'_>>(bytes, None).as_ref().map_or_else(key, |_| true));
        }
    }
}

#[test]
fn messagepack_is_read_by_its_specification() {
    let bomb = [0xdd, 0xff, 0xff, 0xff, 0xff];
    let deep = [&[0x81, 0xa1, b'z'][..], &[0x91; 200], &[0xc0]].concat();
    for (bytes, expect) in [
        (&b"\x81\xa1a\x01"[..], Ok("Int(1) - - - - -|")),
        (b"\x81\xa1a\xe0", Ok("Int(-32) - - - - -|")),
        (b"\x81\xa1a\xd3\x80\0\0\0\0\0\0\0", Ok("Int(-9223372036854775808) - - - - -|")),
        (
            b"\x81\xa1a\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
            Ok("Int(18446744073709551615) - - - - -|"),
        ),
        (b"\x81\xa1a\xc4\x02\xff\xd8", Ok("Bytes([255, 216]) - - - - -|")),
        (b"\x81\xa1a\xd9\x01x", Ok("Text(\"x\") - - - - -|")),
        (b"\x81\x05\xc3", Ok("- - - - Bool(true) -|")),
        (b"\x81\xa1o\x81\xa1p\xc0", Ok("- Null - - - Map|")),
        (b"\x81\xa1l\x92\x81\xa1x\x07\x08", Ok("- - Int(8) Int(7) - -|")),
        // The last of one name counts, with all that is in it.
        (b"\x82\xa1o\x81\xa1p\x01\xa1o\x02", Ok("- - - - - Int(2)|")),
        (b"\x82\x91\x01\x02\xa1z\x03", Ok("- - - - - -|a key that is no text")),
        // Moments: seconds, with nanoseconds, and before 1970.
        (b"\x81\xa1a\xd6\xff\0\0\0\x02", Ok("Int(2000) - - - - -|")),
        (b"\x81\xa1a\xd7\xff\x77\x35\x93\xfc\0\0\0\x01", Ok("Int(1499) - - - - -|")),
        (
            b"\x81\xa1a\xc7\x0c\xff\x07\x73\x59\x40\xff\xff\xff\xff\xff\xff\xff\xff",
            Ok("Int(-875) - - - - -|"),
        ),
        (b"\x81\xa1a\xd4\x05\0", Err("field \"a\" is of the extension type 5")),
        (b"\x81\xa1z\xd4\x05\0", Ok("- - - - - -|z")),
        (b"", Err("ends before its parts do")),
        (b"\x01", Err("is a number of MessagePack where a map is wanted")),
        (b"{\"a\":1}", Err("is a number of MessagePack where")),
        (b"\x91\xa1a", Err("is an array of MessagePack where")),
        (b"\xd4\x05\0", Err("is something of MessagePack where")),
        (b"\x81\xa1a\xc1", Err("the byte c1")),
        (b"\x81\xa1z\xa1\xff", Err("not valid UTF-8 from its byte 0 on: write bytes as such")),
        (b"\x81\xa1z\xdb\xff\xff\xff\xffx", Err("says 4294967295 bytes, and 1 are left")),
        (b"\x81\xa1z\xcd\0", Err("wants 2 bytes for a number, and 1 are left")),
        (b"\xdf\xff\xff\xff\xff", Err("ends before its parts do")),
        (&[&b"\x81\xa1z"[..], &bomb].concat(), Err("ends before its parts do")),
        (&[&b"\x81\xa1l"[..], &bomb].concat(), Err("ends before its parts do")),
        (&deep, Err("nested deeper than 128 levels")),
        (b"\x80\xc0", Err("has 1 bytes behind its end")),
    ] {
        match (msgpack(bytes), expect) {
            (Ok(said), Ok(expect)) => assert_eq!(said, expect, "{bytes:02x?}"),
            (Err(said), Err(part)) => assert!(said.contains(part), "{bytes:02x?}: {said}"),
            (said, _) => panic!("{bytes:02x?}: {said:?}, expected {expect:?}"),
        }
    }
}

#[track_caller]
fn reads_cbor(bytes: &[u8], expect: Result<&str, &str>) {
    match (cbor(bytes), expect) {
        (Ok(said), Ok(expect)) => assert_eq!(said, expect, "{bytes:02x?}"),
        (Err(said), Err(part)) => assert!(said.contains(part), "{bytes:02x?}: {said}"),
        (said, _) => panic!("{bytes:02x?}: {said:?}, expected {expect:?}"),
    }
}

#[test]
fn what_a_tag_makes_of_its_content_is_its_value() {
    for (bytes, expect) in [
        // 1.5 as three halves, and as 3 / 2.
        (&b"\xa1\x61a\xc5\x82\x20\x03"[..], Ok("Float(1.5) - - - - -|")),
        (b"\xa1\x61a\xc5\x82\x02\x25", Ok("Int(-24) - - - - -|")),
        (b"\xa1\x61a\xc5\x82\x39\x04\x31\x01", Ok("Float(5e-324) - - - - -|")),
        (b"\xa1\x61a\xc5\x82\x19\x03\xff\x01", Ok("Float(8.98846567431158e307) - - - - -|")),
        (b"\xa1\x61a\xc5\x82\x1b\xff\xff\xff\xff\xff\xff\xff\xff\0", Ok("Float(0.0) - - - - -|")),
        (b"\xa1\x61a\xc5\x82\x20\xc2\x41\x0f", Ok("Float(7.5) - - - - -|")),
        (b"\xa1\x61a\xc5\x82\x19\x04\0\x01", Err("that no 64-bit float can hold")),
        (b"\xa1\x61z\xc5\x82\x20\x61x", Err("a binary fraction (tag 5) that is not")),
        (b"\xa1\x61a\xd9\x01\x09\x82\x20\x03", Ok("Float(1.5) - - - - -|")),
        (b"\xa1\x61a\xd9\x01\x08\x82\x20\x0f", Ok("Decimal(\"1.5\") - - - - -|")),
        (b"\xa1\x61a\xd8\x1e\x82\x03\x02", Ok("Float(1.5) - - - - -|")),
        (b"\xa1\x61a\xd8\x1e\x82\x25\x03", Ok("Int(-2) - - - - -|")),
        (b"\xa1\x61a\xd8\x1e\x82\x01\0", Err("a rational number (tag 30) that is not")),
        (b"\xa1\x61z\xd8\x1e\x01", Err("a rational number (tag 30) that is not")),
        // References, as a value, a key and where nothing is wanted; their frames alone change nothing.
        (
            b"\xd9\x01\0\xa1\x61a\xd8\x19\0",
            Err("string references (tag 25), which are not read: write without"),
        ),
        (b"\xd9\x01\0\xa2\xd8\x19\0\x01\x61a\x01", Err("string references (tag 25)")),
        (b"\xa2\x61a\x01\x61z\x81\xd8\x19\0", Err("string references (tag 25)")),
        (b"\xa1\x61a\xd8\x1d\0", Err("shared values (tag 29)")),
        (b"\xa1\x61a\xc2\xd8\x19\0", Err("string references (tag 25)")),
        (b"\xd9\x01\0\xa1\x61a\xd8\x1c\x07", Ok("Int(7) - - - - -|")),
        // A tag before the end of a list or of a map, which is no value.
        (b"\xa1\x61z\x9f\xc1\xff", Err("a tag before no value")),
        (b"\xbf\x61a\x01\xc1\xff", Err("a tag before no value")),
        (b"\xa1\x61a\xf8\x14", Err("a simple value")),
    ] {
        reads_cbor(bytes, expect);
    }
}

/// The numbers are those of RFC 8949, appendix A.
#[test]
fn cbor_is_read_by_its_specification() {
    let deep = [&[0xa1, 0x61, b'z'][..], &[0x9f; 200]].concat();
    let large = [&[0xa1, 0x61, b'a', 0xc2, 0x58, 200][..], &[0xff; 200]].concat();
    for (bytes, expect) in [
        (&b"\xa1\x61a\x01"[..], Ok("Int(1) - - - - -|")),
        (
            b"\xa1\x61a\x3b\xff\xff\xff\xff\xff\xff\xff\xff",
            Ok("Int(-18446744073709551616) - - - - -|"),
        ),
        (b"\xa1\x61a\xc2\x49\x01\0\0\0\0\0\0\0\0", Ok("Int(18446744073709551616) - - - - -|")),
        (b"\xa1\x61a\xc3\x49\x01\0\0\0\0\0\0\0\0", Ok("Int(-18446744073709551617) - - - - -|")),
        (b"\xa1\x61a\xc4\x82\x21\x19\x6a\xb3", Ok("Decimal(\"273.15\") - - - - -|")),
        (b"\xa1\x61a\xc4\x82\x22\x24", Ok("Decimal(\"-0.005\") - - - - -|")),
        (b"\xa1\x61a\xc4\x82\x02\x05", Ok("Decimal(\"500\") - - - - -|")),
        (b"\xa1\x61a\xc4\x82\x20\xc2\x41\x0f", Ok("Decimal(\"1.5\") - - - - -|")),
        (b"\xa1\x61a\xf9\x3c\0", Ok("Float(1.0) - - - - -|")),
        (b"\xa1\x61a\xf9\x7b\xff", Ok("Float(65504.0) - - - - -|")),
        (b"\xa1\x61a\xf9\0\x01", Ok("Float(5.960464477539063e-8) - - - - -|")),
        (b"\xa1\x61a\xf9\xc4\0", Ok("Float(-4.0) - - - - -|")),
        (b"\xa1\x61a\xf9\xfc\0", Ok("Float(-inf) - - - - -|")),
        (b"\xa1\x61a\xfa\x47\xc3\x50\0", Ok("Float(100000.0) - - - - -|")),
        (b"\xa1\x61a\xf7", Ok("Null - - - - -|")),
        (b"\xa1\x61a\xc1\x1a\x51\x4b\x67\xb0", Ok("Int(1363896240) - - - - -|")),
        (b"\xd9\xd9\xf7\xa1\x61a\xd8\x20\x61x", Ok("Text(\"x\") - - - - -|")),
        (b"\xbf\x61a\x7f\x61x\x60\x61y\xff\xff", Ok("Text(\"xy\") - - - - -|")),
        (b"\xbf\x61a\x5f\x41\x01\x42\x02\x03\xff\xff", Ok("Bytes([1, 2, 3]) - - - - -|")),
        (b"\xbf\x61l\x9f\xbf\x61x\x07\xff\x08\xff\xff", Ok("- - Int(8) Int(7) - -|")),
        (b"\xa1\x05\xf5", Ok("- - - - Bool(true) -|")),
        (b"\xa2\x61z\x9f\xa1\x61x\x01\x9f\xff\xff\x61a\x02", Ok("Int(2) - - - - -|z")),
        (&large, Err("that no 64-bit float can hold")),
        (b"", Err("ends before its parts do")),
        (b"\xff", Err("is something of CBOR where a map is wanted")),
        (b"{\"a\":1}", Err("wants 8 bytes for a number")),
        (b"\xa1\x61a\xff", Err("ends a list or a map that has not begun")),
        (b"\xbf\x61a\xff", Err("within a key and its value")),
        (b"\xbf\x61z\xbf\x61a\xff\xff", Err("within a key and its value")),
        (b"\xa1\x61z\x9f\x81\xff\xff", Err("within a key and its value")),
        (b"\xa1\x61z\xf8\x20", Err("no meaning")),
        (b"\xa1\x61z\xf0", Err("no meaning")),
        (b"\xa1\x61z\x1c", Err("the form 28")),
        (b"\xa1\x61z\x1f", Err("a number without an end")),
        (b"\xa1\x61z\x7f\x41\x01\xff", Err("parts of another kind")),
        (b"\xa1\x61z\x7f\x7f\xff\xff", Err("parts of another kind")),
        (b"\xa1\x61z\x61\xff", Err("not valid UTF-8 from its byte 0 on")),
        (b"\xa1\x61z\xc2\x01", Err("a large number that is no bytes")),
        (b"\xa1\x61z\xc4\x01", Err("a decimal number that is not")),
        (b"\xa1\x61z\xc4\x82\x1a\x7f\xff\xff\xff\x01", Err("whose exponent is beyond 512")),
        (b"\xa1\x61z\x9b\xff\xff\xff\xff\xff\xff\xff\xff", Err("ends before its parts do")),
        (b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff", Err("ends before its parts do")),
        (b"\xa1\x61z\x5b\x7f\xff\xff\xff\xff\xff\xff\xff", Err("bytes, and 0 are left")),
        (&deep, Err("nested deeper than 128 levels")),
        (b"\xa0\xa0", Err("has 1 bytes behind its end")),
    ] {
        reads_cbor(bytes, expect);
    }
}

#[test]
fn all_of_it_goes_along_as_json() {
    for (bytes, expect) in [
        (
            &b"\x83\xa1a\xca\x3d\xcc\xcc\xcd\xa1b\xc4\x02\xff\xd8\x05\x90"[..],
            r#"{"a":0.1,"b":"/9g=","5":[]}"#,
        ),
        (b"\x82\xa1a\xd6\xff\0\0\0\x02\xa1b\xd4\x05\x01", r#"{"a":2000,"b":"AQ=="}"#),
        (b"\x81\xa1a\xcb\x7f\xf8\0\0\0\0\0\0", r#"{"a":null}"#),
        (b"\x80", "{}"),
    ] {
        assert_eq!(json::<MessagePack<'_>>(bytes, None).unwrap(), expect);
    }
    for (bytes, expect) in [
        (
            &b"\xbf\x61a\xc4\x82\x21\x19\x6a\xb3\x61b\xc2\x49\x01\0\0\0\0\0\0\0\0\xff"[..],
            r#"{"a":273.15,"b":18446744073709551616}"#,
        ),
        (b"\xa1\x24\x9f\xf7\xff", r#"{"-5":[null]}"#),
        (b"\xa2\x61a\xc5\x82\x20\x03\x61b\xd8\x1e\x82\x01\x04", r#"{"a":1.5,"b":0.25}"#),
    ] {
        assert_eq!(json::<Cbor<'_>>(bytes, None).unwrap(), expect);
    }
    let said = json::<MessagePack<'_>>(b"\x81\x90\x01", None).unwrap_err();
    assert!(said.contains("has a key in a map that is neither"), "{said}");
    // As deep as it is read.
    let deep = [&[0x81, 0xa1, b'z'][..], &[0x91; 128], &[0xc0]].concat();
    assert!(msgpack(&deep).is_err() && json::<MessagePack<'_>>(&deep, None).is_err());
    let deep = [&[0x81, 0xa1, b'z'][..], &[0x91; 127], &[0xc0]].concat();
    assert!(msgpack(&deep).is_ok() && json::<MessagePack<'_>>(&deep, None).is_ok());
}

/// A key that JSON cannot say refuses a record only where it is within what is taken along.
#[test]
fn what_is_wanted_goes_along_as_json() {
    for (bytes, expect) in [
        (&b"\x82\x91\x01\x02\xa1a\x03"[..], Ok(r#"{"a":3}"#)),
        (b"\x82\xa1z\x81\xc3\x02\xa1a\x03", Ok(r#"{"a":3}"#)),
        (b"\x82\xc4\x01x\x81\xc3\x02\xa1a\x03", Ok(r#"{"a":3}"#)),
        (b"\x81\xa1o\x82\xc0\x01\xa1p\x02", Err("has a key in a map that is neither")),
        (b"\x81\xa1a\x81\xc0\x01", Err("has a key in a map that is neither")),
        // Of a list the places stay.
        (b"\x81\xa1l\x93\x82\xc0\x01\xa1x\x07\x08\x81\xc0\x01", Ok(r#"{"l":[{"x":7},8,null]}"#)),
        // The last of one name counts.
        (b"\x83\xa1l\x92\x80\x01\xa1l\x02\x05\x06", Ok(r#"{"l":[{},1],"l":2,"5":6}"#)),
        (b"\x81\xa1a", Err("ends before its parts do")),
        (b"\x80", Ok("{}")),
    ] {
        let said = json::<MessagePack<'_>>(bytes, Some(&wanted()));
        match (said, expect) {
            (Ok(said), Ok(expect)) => assert_eq!(said, expect, "{bytes:02x?}"),
            (Err(said), Err(part)) => assert!(said.contains(part), "{bytes:02x?}: {said}"),
            (said, _) => panic!("{bytes:02x?}: {said:?}, expected {expect:?}"),
        }
    }
    let said = json::<Cbor<'_>>(
        b"\xbf\xf5\xbf\xf4\x01\xff\x61l\x9f\xa1\xf6\x01\x08\xff\xff",
        Some(&wanted()),
    );
    assert_eq!(said.unwrap(), r#"{"l":[{},8]}"#);
}

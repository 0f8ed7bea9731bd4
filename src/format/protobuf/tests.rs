//! The plan against `prost_reflect`'s own messages, on random bytes of the wire; and tables of what is wrong.

#![expect(
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    clippy::unwrap_in_result,
    reason = "numbers are drawn, and an oracle may panic"
)]

use proptest::prelude::*;
use prost_reflect::{Kind, MapKey, ReflectMessage as _, Value as Theirs};

use super::super::{Codec, Writer};
use super::*;
use crate::answer::Prediction;
use crate::config::{Include, Input, InputFormat, Output};
use crate::field::Value;
use crate::record::{Offset, Partition};
use crate::schema::Referred;

const THREE: &str = r#"
    syntax = "proto3";
    package shop;
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/duration.proto";
    import "google/protobuf/wrappers.proto";
    import "google/protobuf/struct.proto";
    import "confluent/type/decimal.proto";
    import "side.proto";
    message Order {
      double d = 1; float f = 2; int32 i32 = 3; int64 i64 = 4; uint32 u32 = 5; uint64 u64 = 6;
      sint32 s32 = 7; sint64 s64 = 8; fixed32 f32 = 9; fixed64 f64 = 10; sfixed32 sf32 = 11; sfixed64 sf64 = 12;
      bool b = 13; string s = 14; bytes y = 15; Side side = 16;
      optional int32 maybe = 17;
      oneof either { string left = 18; Item right = 19; int32 number = 20; }
      Item item = 21;
      repeated int32 packed = 22; repeated Item items = 23; repeated string names = 24;
      map<string, double> prices = 25; map<int32, Item> stock = 26; map<bool, string> said = 27;
      google.protobuf.Timestamp at = 28; google.protobuf.Duration took = 29;
      google.protobuf.DoubleValue wrapped = 30; google.protobuf.StringValue text = 31;
      google.protobuf.Value any = 32; google.protobuf.Struct all = 33;
      confluent.type.Decimal amount = 34;
      repeated Side sides = 200 [packed = false];
      message Item { string name = 1; int32 count = 2; Order order = 3; repeated sint64 marks = 4; optional bool new = 5; }
    }"#;

const SIDE: &str = "syntax = \"proto3\"; package shop; enum Side { BUY = 0; SELL = 1; ALSO = 7; }";

const TWO: &str = r#"
    syntax = "proto2";
    message Old {
      optional int32 plain = 1; optional int32 five = 2 [default = 5]; required string must = 3;
      optional string word = 4 [default = "a\"b"]; optional Kind kind = 5 [default = TWO];
      repeated group Row = 6 { optional double x = 7; optional group Deep = 8 { optional bytes y = 1 [default = "\001z"]; } }
      optional group One = 9 { optional float x = 1 [default = -inf]; }
      repeated int32 loose = 10; repeated fixed64 tight = 11 [packed = true];
      enum Kind { ONE = 1; TWO = 2; }
      oneof either { int32 a = 12 [default = 3]; string b = 13; }
    }"#;

fn three() -> MessageDescriptor {
    let side = Referred { name: "side.proto".to_owned(), schema: SIDE.to_owned() };
    schema::at(&schema::of_text(THREE, &[side]).unwrap(), &[]).unwrap()
}

fn two() -> MessageDescriptor {
    schema::at(&schema::of_text(TWO, &[]).unwrap(), &[]).unwrap()
}

fn paths(of: &MessageDescriptor) -> Vec<Vec<String>> {
    let deeper = "item.name item.count item.order.s item.order.item.count item.marks item.marks.1 right.name right.marks.0 \
                  right.order.packed.0 packed.0 packed.2 items.0 items.0.name items.1.count items.1.order.i32 names.1 \
                  prices.a prices. stock.1 stock.1.name stock.0.marks.0 stock.-1.new said.true said.false at.seconds \
                  any.a any.0 any.a.b all.a all.b.c sides.1 wrapped.value row.0 row.0.x row.1.deep row.1.deep.y one.x \
                  loose.1 tight.0 kind";
    let all = of.fields().map(|field| vec![field.name().to_owned()]);
    let deeper = deeper.split_whitespace().map(|path| path.split('.').map(str::to_owned).collect());
    all.chain(deeper)
        .filter(|path: &Vec<String>| of.get_field_by_name(&path[0]).is_some())
        .collect()
}

/// What is at a path, by the oracle.
fn theirs(message: &DynamicMessage, path: &[String]) -> Option<Value<'static>> {
    let (first, rest) = path.split_first()?;
    let field = message.descriptor().get_field_by_name(first)?;
    let value = message.get_field(&field);
    match &*value {
        Theirs::List(_) | Theirs::Map(_) if rest.is_empty() => {
            Some(if field.is_list() { Value::List } else { Value::Map })
        }
        Theirs::List(list) => {
            one(list.get(rest[0].parse::<usize>().ok()?)?, &field.kind(), &rest[1..])
        }
        Theirs::Map(map) => {
            let of = field.kind();
            let of = of.as_message().unwrap();
            let key = match of.map_entry_key_field().kind() {
                Kind::String => MapKey::String(rest[0].clone()),
                Kind::Bool => MapKey::Bool(rest[0].parse().ok()?),
                _ => MapKey::I32(rest[0].parse().ok()?),
            };
            one(map.get(&key)?, &of.map_entry_value_field().kind(), &rest[1..])
        }
        value => {
            let declared = field.field_descriptor_proto().default_value.is_some();
            let missing = field.supports_presence() && !message.has_field(&field);
            if missing && (!declared || field.containing_oneof().is_some()) {
                return None;
            }
            one(value, &field.kind(), rest)
        }
    }
}

fn one(value: &Theirs, kind: &Kind, rest: &[String]) -> Option<Value<'static>> {
    let whole = |number: i128| Some(Value::Int(number));
    match value {
        Theirs::Bool(is) => Some(Value::Bool(*is)),
        Theirs::I32(number) => whole((*number).into()),
        Theirs::I64(number) => whole((*number).into()),
        Theirs::U32(number) => whole((*number).into()),
        Theirs::U64(number) => whole((*number).into()),
        Theirs::F32(number) => Some(Value::Float((*number).into())),
        Theirs::F64(number) => Some(Value::Float(*number)),
        Theirs::String(text) => Some(Value::Text(text.clone().into())),
        Theirs::Bytes(bytes) => Some(Value::Bytes(bytes.to_vec().into())),
        Theirs::EnumNumber(number) => {
            let of = kind.as_enum().unwrap();
            Some(match of.get_value(*number) {
                _ if of.name() == "NullValue" => Value::Null,
                Some(value) => Value::Text(value.name().to_owned().into()),
                None => Value::Int((*number).into()),
            })
        }
        Theirs::Message(message) => known(message, rest),
        Theirs::List(_) | Theirs::Map(_) => panic!("a list within a list"),
    }
}

fn known(message: &DynamicMessage, rest: &[String]) -> Option<Value<'static>> {
    let get = |name: &str, rest: &[String]| theirs(message, &[&[name.to_owned()], rest].concat());
    let number = |name: &str| match get(name, &[]) {
        Some(Value::Int(number)) => number,
        other => panic!("{other:?}"),
    };
    let of = message.descriptor();
    match (of.full_name(), rest) {
        ("google.protobuf.Timestamp" | "google.protobuf.Duration", []) => {
            Some(Value::Int(number("seconds") * 1000 + number("nanos").div_euclid(1_000_000)))
        }
        ("confluent.type.Decimal", []) => Some(Value::Decimal("".into())),
        ("google.protobuf.Value", rest) => {
            let field = of.fields().find(|field| message.has_field(field))?;
            let names = ["struct_value", "list_value"];
            (rest.is_empty() || names.contains(&field.name())).then(|| get(field.name(), rest))?
        }
        ("google.protobuf.Struct", [_, ..]) => get("fields", rest),
        ("google.protobuf.ListValue", _) => get("values", rest),
        (_, []) => Some(
            of.get_field_by_name("value")
                .filter(|_| of.full_name().starts_with("google"))
                .map_or(Value::Map, |_| get("value", &[]).unwrap()),
        ),
        _ => theirs(message, rest),
    }
}

/// Writes numbers of a tape as fields of a message.
struct Drawn<'t> {
    tape: std::slice::Iter<'t, u32>,
}

impl Drawn<'_> {
    fn next(&mut self, below: u32) -> u32 {
        self.tape.next().map_or(0, |number| number % below)
    }

    fn varint(mut number: u64, out: &mut Vec<u8>) {
        while 0x7f < number {
            out.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
    }

    fn tag(number: u32, wire_type: u32, out: &mut Vec<u8>) {
        Self::varint(u64::from(number << 3 | wire_type), out);
    }

    fn bytes(bytes: &[u8], out: &mut Vec<u8>) {
        Self::varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }

    fn message(&mut self, of: &MessageDescriptor, depth: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let fields: Vec<_> = of.fields().collect();
        let all = u32::try_from(fields.len()).unwrap();
        let some = self.next(if depth == 0 { 20 } else { 4 });
        for _ in 0..some {
            match self.next(all + 1) {
                unknown if unknown == all => {
                    Self::tag(500, 3, &mut out);
                    Self::tag(1, 0, &mut out);
                    out.push(1);
                    Self::tag(500, 4, &mut out);
                }
                place => self.field(&fields[place as usize], depth, &mut out),
            }
        }
        out
    }

    fn field(&mut self, field: &prost_reflect::FieldDescriptor, depth: u32, out: &mut Vec<u8>) {
        let number = field.number();
        match field.kind() {
            Kind::Message(_) if 3 < depth => (),
            Kind::Message(of) if field.is_group() => {
                Self::tag(number, 3, out);
                out.extend(self.message(&of, depth + 1));
                Self::tag(number, 4, out);
            }
            Kind::Message(of) => {
                Self::tag(number, 2, out);
                Self::bytes(&self.message(&of, depth + 1), out);
            }
            kind => {
                let wire_type = kind.wire_type() as u32;
                if field.is_list() && wire_type != 2 && self.next(2) == 0 {
                    let mut packed = Vec::new();
                    (0..self.next(4)).for_each(|_| self.scalar(&kind, &mut packed));
                    Self::tag(number, 2, out);
                    Self::bytes(&packed, out);
                } else {
                    Self::tag(number, wire_type, out);
                    self.scalar(&kind, out);
                }
            }
        }
    }

    fn scalar(&mut self, kind: &Kind, out: &mut Vec<u8>) {
        let wide = [0, 1, 2, 7, u64::from(u32::MAX), u64::MAX, 1 << 63, 1 << 31];
        let drawn = wide[self.next(8) as usize];
        match kind.wire_type() as u32 {
            1 => out.extend(drawn.to_le_bytes()),
            5 => out.extend((drawn as u32).to_le_bytes()),
            2 => {
                let texts = ["", "a", "b", "ab", "é"];
                Self::bytes(texts[self.next(5) as usize].as_bytes(), out);
            }
            _ => Self::varint(drawn, out),
        }
    }
}

/// The same, a NaN too.
fn same(one: Option<&Value<'_>>, other: Option<&Value<'_>>) -> bool {
    match (one, other) {
        (Some(Value::Float(one)), Some(Value::Float(other))) => one.to_bits() == other.to_bits(),
        // Its digits are Avro's own business.
        (Some(Value::Decimal(_)), Some(Value::Decimal(_))) => true,
        _ => one == other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn values_are_those_of_the_oracle(
        tape in prop::collection::vec(any::<u32>(), 0..200),
        old in any::<bool>(),
        cut in prop::option::weighted(0.3, any::<prop::sample::Index>()),
        flip in prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let of = if old { two() } else { three() };
        let mut bytes = Drawn { tape: tape.iter() }.message(&of, 0);
        if let Some((at, to)) = flip.filter(|_| !bytes.is_empty()) {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        let paths = paths(&of);
        let plan = Plan::new(&of, &paths).unwrap();
        let ours = plan.read(&bytes);
        // The oracle refuses a field of another wire type, which is an unknown one.
        let known = sift::sifted(&of, &bytes, None);
        match (ours, DynamicMessage::decode(of.clone(), &*known)) {
            (Ok((values, _)), Ok(message)) => {
                for (path, value) in paths.iter().zip(&values) {
                    let expect = theirs(&message, path);
                    prop_assert!(same(value.as_ref(), expect.as_ref()), "{:?}: {:?}, expected {:?} of {:02x?}", path, value, expect, bytes);
                }
            }
            (Err(why), Ok(_)) => {
                let ours_alone = ["nanoseconds", "is a decimal of more"];
                let rule = ours_alone.iter().any(|rule| why.contains(rule));
                prop_assert!(flip.is_some() || rule, "{}", why);
            }
            // What nobody wants is not looked at.
            (_, Err(_)) => prop_assert!(cut.is_some() || flip.is_some()),
        }
    }

    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..64), old in any::<bool>()) {
        let of = if old { two() } else { three() };
        let plan = Plan::new(&of, &paths(&of)).unwrap();
        let _either = plan.read(&bytes);
        let _either = text(&of, &bytes, None);
    }
}

#[test]
fn what_is_no_message_is_said_in_words() {
    let of = three();
    let paths = [vec!["s".to_owned()], vec!["item".to_owned(), "name".to_owned()]];
    let plan = Plan::new(&of, &paths).unwrap();
    let read =
        |bytes: &[u8]| plan.read(bytes).map(|(values, unknown)| format!("{values:?} {unknown:?}"));
    for (bytes, expect) in [
        (&b""[..], Ok(r#"[Some(Text("")), None] None"#)),
        (b"\x72\x01a\x72\x01b", Ok(r#"[Some(Text("b")), None] None"#)),
        (b"\xaa\x01\x00", Ok(r#"[Some(Text("")), Some(Text(""))] None"#)),
        // What was given is not taken back by a second message without it.
        (b"\xaa\x01\x03\x0a\x01x\xaa\x01\x00", Ok(r#"[Some(Text("")), Some(Text("x"))] None"#)),
        (b"\x18\x05", Ok(r#"[Some(Text("")), None] Some("i32")"#)),
        (b"\xa0\x1f\x05", Ok(r#"[Some(Text("")), None] Some("500")"#)),
        (b"\x72\x05a", Err("field number 14 says 5 bytes, and 1 are left")),
        (b"\x72", Err("ends inside a number")),
        (b"\x72\xff\xff\xff\xff\x0f", Err("says 4294967295 bytes, and 0 are left")),
        (b"\x72\x01\xff", Err("field \"s\" is not valid UTF-8 from byte 0 on")),
        // Of another wire type: as an unknown field.
        (b"\x70\x01", Ok(r#"[Some(Text("")), None] None"#)),
        (b"\x72\x01a\x75\0\0\0\0", Ok(r#"[Some(Text("a")), None] None"#)),
        (b"\x00\x01", Err("a field number that Protobuf does not have")),
        (b"\x0e", Err("wire type 6")),
        (b"\x0c", Err("ends a group of field number 1 that has not begun")),
        (b"\x0b", Err("ends inside the group of field number 1")),
        (b"\x0b\x14", Err("ends a group of field number 2 that has not begun")),
        (&[0x0b; 200], Err("groups nested deeper than 100 levels")),
        (b"\x09\x00", Err("wants 8 bytes for a number, and 1 are left")),
        (&[0xff; 12], Err("has a number of more than 64 bits")),
        (b"{\"s\": 1}", Err("")),
    ] {
        match (read(bytes), expect) {
            (Ok(said), Ok(expect)) => assert_eq!(said, expect, "{bytes:?}"),
            (Err(said), Err(expect)) => assert!(said.contains(expect), "{bytes:?}: {said}"),
            (said, _) => panic!("{bytes:?}: {said:?}"),
        }
    }
}

#[test]
fn values_of_googles_and_confluents_own_messages() {
    let of = three();
    let wanted = ["at", "took", "amount", "wrapped", "any", "all.n"];
    let wanted = wanted.map(|path| path.split('.').map(str::to_owned).collect());
    let plan = Plan::new(&of, &wanted).unwrap();
    let mut message = DynamicMessage::new(of.clone());
    assert_eq!(plan.read(b"").unwrap().0, vec![None; 6]);
    let json = r#"{"at": "1969-12-31T23:59:59.999Z", "took": "1.5s", "amount": {"value": "AP8=", "scale": 1},
        "wrapped": 0.25, "any": [1], "all": {"n": 7}}"#;
    let read = DynamicMessage::deserialize(of, &mut serde_json::Deserializer::from_str(json));
    message.clone_from(&read.unwrap());
    let bytes = prost_reflect::prost::Message::encode_to_vec(&message);
    let expect = [
        Value::Int(-1),
        Value::Int(1_500),
        Value::Decimal("25.5".into()),
        Value::Float(0.25),
        Value::List,
        Value::Float(7.0),
    ];
    assert_eq!(plan.read(&bytes).unwrap().0, expect.map(Some));
}

#[test]
fn schemas_are_refused_in_words() {
    let deep = format!("syntax = \"proto3\";{}", "message M {".repeat(100_000));
    for (text, expect) in [
        ("", "has no message where"),
        ("message {", "is not a valid Protobuf schema: "),
        ("syntax = \"proto3\"; import \"gone.proto\"; message M {}", "gone.proto"),
        ("edition = \"2024\"; message M {}", "is not a valid Protobuf schema"),
        ("syntax = \"proto3\"; import \"tidemill/schema.proto\"; message M {}", "is not a valid"),
        (&deep, "is nested deeper than 64 levels"),
    ] {
        let said = schema::of_text(text, &[]).and_then(|file| schema::at(&file, &[])).unwrap_err();
        assert!(said.contains(expect), "{said}");
    }
    let braces = "syntax = \"proto3\"; // {{{\n/* {{ */ message M { string s = 1 [json_name = \"{\\\"{\"]; }";
    assert!(schema::of_text(&braces.replace("{{", &"{{".repeat(100)), &[]).is_ok());
    let nested =
        "message A { message B { message C {} map<string, C> m = 1; message D {} } } message E {}";
    let file = schema::of_text(nested, &[]).unwrap();
    for (indexes, name) in
        [(&[][..], "A"), (&[0], "A"), (&[1], "E"), (&[0, 0, 0], "A.B.C"), (&[0, 0, 1], "A.B.D")]
    {
        assert_eq!(schema::at(&file, indexes).unwrap().full_name(), name);
    }
    assert!(schema::at(&file, &[0, 0, 2]).is_err() && schema::at(&file, &[2]).is_err());
    let said = Plan::new(&three(), &[vec!["s".to_owned(), "x".to_owned()]]).unwrap_err();
    assert_eq!(said, "field \"s\" has no parts, so no field \"x\"");
}

fn record(value: &[u8]) -> Record {
    Record::of_value(Partition { topic: 0, number: 0 }, Offset(0), Some(value.to_vec()))
}

/// Files of schemas, good ones and others.
fn schemas() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    std::fs::create_dir(place("shop")).unwrap();
    std::fs::write(place("shop/side.proto"), SIDE).unwrap();
    let main = "syntax = \"proto3\"; package shop; import \"shop/side.proto\";
        message Row { int64 user_id = 1; Side side = 2; double x = 3; }";
    std::fs::write(place("shop/row.proto"), main).unwrap();
    std::fs::write(place("shop/two.proto"), format!("{main} message Other {{}}")).unwrap();
    let mut compiler = protox::Compiler::new([folder.path()]).unwrap();
    compiler.include_imports(true).open_file("shop/row.proto").unwrap();
    std::fs::write(place("row.desc"), compiler.encode_file_descriptor_set()).unwrap();
    std::fs::write(place("bad.desc"), "no set").unwrap();
    let nested = "syntax = \"proto3\"; package shop; message Outer { message Row {} map<string, Row> m = 1; } message Other {}";
    std::fs::write(place("nested.proto"), nested).unwrap();
    let only = "syntax = \"proto3\"; package shop; import public \"shop/row.proto\";";
    std::fs::write(place("only.proto"), only).unwrap();
    folder
}

#[test]
fn a_file_says_what_values_are() {
    let folder = schemas();
    let place = |name: &str| folder.path().join(name);
    let config = |name: &str, message: Option<&str>| {
        let input = Input {
            topics: vec!["t".to_owned()],
            format: InputFormat::Protobuf,
            schema: Some(place(name)),
            message: message.map(str::to_owned),
            ..Input::default()
        };
        let include = Include::Fields(vec!["user_id".to_owned(), "side".to_owned()]);
        Config { input, output: Output { include, ..Output::default() }, ..Config::default() }
    };
    // The largest number, SELL, and x is not there.
    let value = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x10\x01";
    for (name, message) in [
        ("shop/row.proto", None),
        ("shop/row.proto", Some("shop.Row")),
        ("shop/two.proto", Some("shop.Row")),
        ("row.desc", None),
    ] {
        let config = config(name, message);
        let codec = Arc::new(Codec::new(&config).unwrap());
        let wanted = ["x", "side"].map(str::to_owned);
        let wanted = Wanted::new(&wanted, &config.input.fields);
        let read = codec.read(&wanted, &record(value), |read| format!("{read:?}")).unwrap();
        let expect =
            r#"Read { values: [Some(Float(0.0)), Some(Text("SELL"))], unknown: Some("user_id") }"#;
        assert_eq!(read.as_deref(), Some(expect));
        let prediction = Prediction::Value(0.5_f32.into());
        let written = Writer::new(&config, codec).write(&prediction, &record(value)).unwrap();
        let expect = r#"{"value":0.5,"input":{"user_id":9223372036854775807,"side":"SELL"}}"#;
        assert_eq!(String::from_utf8(written).unwrap(), expect);
    }
    for (name, message, expect) in [
        (
            "shop/two.proto",
            None,
            "set input.message to the one that values are: shop.Row, shop.Other",
        ),
        (
            "row.desc",
            Some("Row"),
            "has no message \"Row\", which input.message names; it has shop.Row",
        ),
        (
            "nested.proto",
            Some("Row"),
            "has no message \"Row\", which input.message names; it has shop.Outer, shop.Outer.Row, shop.Other",
        ),
        (
            "only.proto",
            Some("Row"),
            "has no message \"Row\", which input.message names; it has shop.Row",
        ),
        ("only.proto", None, "has no message of its own; set input.message to the one"),
        ("bad.desc", None, "is not a valid FileDescriptorSet"),
        ("gone.proto", None, "gone.proto"),
    ] {
        let said = Codec::new(&config(name, message)).unwrap_err().message;
        assert!(said.contains(expect), "{said}");
    }
}

//! The plan against `apache_avro`'s own values, on random schemas and data; and tables of what is wrong.

#![expect(
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    clippy::too_many_lines,
    reason = "numbers are drawn, and a table is as long as it is"
)]

use apache_avro::Decimal;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Theirs;
use apache_avro::writer::datum::GenericDatumWriter;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

mod tables;

/// A type of a schema.
#[derive(Debug, Clone)]
enum Shape {
    Plain(&'static str),
    Logical(&'static str, &'static str),
    Fixed(usize),
    Decimal(Option<usize>),
    Uuid,
    Enum(usize),
    Array(Box<Shape>),
    Map(Box<Shape>),
    Optional(Box<Shape>),
    Record(Vec<Shape>),
}

const SCALE: usize = 2;

fn shape() -> impl Strategy<Value = Shape> {
    let plain = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];
    let logical = [
        ("int", "date"),
        ("int", "time-millis"),
        ("long", "time-micros"),
        ("long", "timestamp-millis"),
        ("long", "timestamp-micros"),
        ("long", "local-timestamp-nanos"),
    ];
    let leaf = prop_oneof![
        6 => prop::sample::select(plain.to_vec()).prop_map(Shape::Plain),
        2 => prop::sample::select(logical.to_vec()).prop_map(|(of, is)| Shape::Logical(of, is)),
        1 => (0_usize..5).prop_map(Shape::Fixed),
        1 => prop::option::of(1_usize..20).prop_map(Shape::Decimal),
        1 => Just(Shape::Uuid),
        1 => (1_usize..4).prop_map(Shape::Enum),
    ];
    let tree = leaf.prop_recursive(4, 24, 5, |inner| {
        let boxed = || inner.clone().prop_map(Box::new);
        prop_oneof![
            1 => boxed().prop_map(|of| {
                // Of items without bytes there may be any number: `tables` has those.
                Shape::Array(if of.takes_nothing() { Shape::Plain("int").into() } else { of })
            }),
            1 => boxed().prop_map(Shape::Map),
            2 => boxed().prop_filter_map("[null, null] is no union", |inner| {
                let fits = !matches!(*inner, Shape::Plain("null") | Shape::Optional(_));
                fits.then_some(Shape::Optional(inner))
            }),
            3 => prop::collection::vec(inner, 0..5).prop_map(Shape::Record),
        ]
    });
    prop::collection::vec(tree, 0..6).prop_map(Shape::Record)
}

impl Shape {
    /// Whether no value of it has a byte.
    fn takes_nothing(&self) -> bool {
        match self {
            Self::Plain(is) => *is == "null",
            Self::Fixed(size) => *size == 0,
            Self::Record(fields) => fields.iter().all(Self::takes_nothing),
            _ => false,
        }
    }

    /// As JSON; `named` counts the names that are taken.
    fn schema(&self, named: &mut usize) -> Json {
        let mut name = |letter: &str| {
            *named += 1;
            format!("{letter}{named}")
        };
        match self {
            Self::Plain(is) => json!(is),
            Self::Logical(of, is) => json!({"type": of, "logicalType": is}),
            Self::Fixed(size) => json!({"type": "fixed", "name": name("F"), "size": size}),
            Self::Decimal(None) => {
                json!({"type": "bytes", "logicalType": "decimal", "precision": 100, "scale": SCALE})
            }
            Self::Decimal(Some(size)) => json!({"type": "fixed", "name": name("D"), "size": size,
                "logicalType": "decimal", "precision": SCALE, "scale": SCALE}),
            Self::Uuid => json!({"type": "string", "logicalType": "uuid"}),
            Self::Enum(symbols) => {
                let symbols: Vec<String> = (0..*symbols).map(|n| format!("S{n}")).collect();
                json!({"type": "enum", "name": name("E"), "symbols": symbols})
            }
            Self::Array(of) => json!({"type": "array", "items": of.schema(named)}),
            Self::Map(of) => json!({"type": "map", "values": of.schema(named)}),
            Self::Optional(of) => json!(["null", of.schema(named)]),
            Self::Record(fields) => {
                let name = name("R");
                let fields = fields.iter().enumerate();
                let fields: Vec<Json> = fields
                    .map(|(n, of)| json!({"name": format!("f{n}"), "type": of.schema(named)}))
                    .collect();
                json!({"type": "record", "name": name, "fields": fields})
            }
        }
    }

    fn value(&self, dice: &mut Dice) -> Theirs {
        let int = |dice: &mut Dice| dice.whole() as i32;
        match self {
            Self::Plain(is) | Self::Logical(_, is) => match *is {
                "null" => Theirs::Null,
                "boolean" => Theirs::Boolean(dice.below(2) == 1),
                "int" => Theirs::Int(int(dice)),
                "long" => Theirs::Long(dice.whole()),
                "float" => Theirs::Float(f32::from_bits(dice.next() as u32)),
                "double" => Theirs::Double(f64::from_bits(dice.next())),
                "bytes" => Theirs::Bytes(dice.bytes(6)),
                "string" => Theirs::String(dice.text()),
                "date" => Theirs::Date(int(dice)),
                "time-millis" => Theirs::TimeMillis(int(dice)),
                "time-micros" => Theirs::TimeMicros(dice.whole()),
                "timestamp-millis" => Theirs::TimestampMillis(dice.whole()),
                "timestamp-micros" => Theirs::TimestampMicros(dice.whole()),
                "local-timestamp-nanos" => Theirs::LocalTimestampNanos(dice.whole()),
                other => unreachable!("{other}"),
            },
            Self::Fixed(size) => {
                Theirs::Fixed(*size, (0..*size).map(|_| dice.next() as u8).collect())
            }
            Self::Decimal(None) => {
                let bytes: Vec<u8> = (0..=dice.below(30)).map(|_| dice.next() as u8).collect();
                Theirs::Decimal(Decimal::new(bytes).unwrap())
            }
            // As many digits as its precision has.
            Self::Decimal(Some(size)) => {
                let low = i16::try_from(dice.below(199)).unwrap() - 99;
                let mut bytes = vec![if low < 0 { 0xff } else { 0 }; *size];
                bytes[size - 1] = low.rem_euclid(256) as u8;
                Theirs::Decimal(Decimal::new(bytes).unwrap())
            }
            Self::Uuid => Theirs::Uuid(uuid::Uuid::from_u64_pair(dice.next(), dice.next())),
            Self::Enum(symbols) => {
                let symbol = dice.below(*symbols);
                Theirs::Enum(symbol as u32, format!("S{symbol}"))
            }
            Self::Array(of) => Theirs::Array((0..dice.below(4)).map(|_| of.value(dice)).collect()),
            Self::Map(of) => {
                Theirs::Map((0..dice.below(4)).map(|n| (format!("k{n}"), of.value(dice))).collect())
            }
            Self::Optional(of) => match dice.below(3) {
                0 => Theirs::Union(0, Box::new(Theirs::Null)),
                _ => Theirs::Union(1, Box::new(of.value(dice))),
            },
            Self::Record(fields) => {
                let fields = fields.iter().enumerate();
                Theirs::Record(fields.map(|(n, of)| (format!("f{n}"), of.value(dice))).collect())
            }
        }
    }

    /// Every path to a field, whatever it is.
    fn paths(&self, at: &[String], found: &mut Vec<Vec<String>>) {
        match self {
            Self::Record(fields) => {
                for (n, of) in fields.iter().enumerate() {
                    let path = [at, &[format!("f{n}")]].concat();
                    of.paths(&path, found);
                    found.push(path);
                }
            }
            Self::Optional(of) => of.paths(at, found),
            _ => (),
        }
    }
}

/// Numbers by a seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 29)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() >> 8) as usize % most
    }

    /// Of any size.
    fn whole(&mut self) -> i64 {
        let bits = self.below(64);
        self.next().cast_signed() >> bits
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.next() as u8).collect()
    }

    fn text(&mut self) -> String {
        (0..self.below(6))
            .map(|_| ['a', '"', 'é', '\n', '日', '\u{1f600}'][self.below(6)])
            .collect()
    }
}

/// What `read` is to give for a value of theirs at a path.
fn expected(value: &Theirs, path: &[String]) -> Option<Value<'static>> {
    match (value, path) {
        (Theirs::Union(_, inner), _) => expected(inner, path),
        (Theirs::Null, _) => Some(Value::Null),
        (Theirs::Record(fields), [first, rest @ ..]) => {
            let (_, inner) = fields.iter().find(|(name, _)| name == first)?;
            expected(inner, rest)
        }
        (_, [_, ..]) => None,
        (value, []) => Some(match value {
            Theirs::Boolean(is) => Value::Bool(*is),
            Theirs::Int(n) | Theirs::Date(n) | Theirs::TimeMillis(n) => Value::Int((*n).into()),
            Theirs::Long(n)
            | Theirs::TimeMicros(n)
            | Theirs::TimestampMillis(n)
            | Theirs::TimestampMicros(n)
            | Theirs::LocalTimestampNanos(n) => Value::Int((*n).into()),
            Theirs::Float(n) => Value::Float((*n).into()),
            Theirs::Double(n) => Value::Float(*n),
            Theirs::Bytes(bytes) | Theirs::Fixed(_, bytes) => Value::Bytes(bytes.clone().into()),
            Theirs::String(text) | Theirs::Enum(_, text) => Value::Text(text.clone().into()),
            Theirs::Uuid(uuid) => Value::Text(uuid.to_string().into()),
            Theirs::Decimal(digits) => {
                let bytes: Vec<u8> = digits.try_into().unwrap();
                Value::Decimal(decimal::text(&bytes, SCALE))
            }
            Theirs::Array(_) => Value::List,
            Theirs::Map(_) | Theirs::Record(_) => Value::Map,
            other => unreachable!("{other:?}"),
        }),
    }
}

/// What `json` is to write for a value of theirs.
fn expected_json(value: &Theirs) -> Json {
    match value {
        Theirs::Union(_, inner) => expected_json(inner),
        Theirs::Record(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), expected_json(value)));
            Json::Object(fields.collect())
        }
        Theirs::Map(entries) => {
            let entries = entries.iter().map(|(name, value)| (name.clone(), expected_json(value)));
            Json::Object(entries.collect())
        }
        Theirs::Array(items) => items.iter().map(expected_json).collect(),
        Theirs::Float(n) => serde_json::from_str(&serde_json::to_string(n).unwrap()).unwrap(),
        leaf => match expected(leaf, &[]).unwrap() {
            Value::Null | Value::List | Value::Map => Json::Null,
            Value::Bool(is) => is.into(),
            Value::Int(n) => i64::try_from(n).unwrap().into(),
            Value::Float(n) => n.into(),
            Value::Decimal(digits) => serde_json::from_str(&digits).unwrap(),
            Value::Text(text) => text.into_owned().into(),
            Value::Bytes(bytes) => {
                use base64::Engine as _;
                base64::engine::general_purpose::STANDARD.encode(bytes).into()
            }
        },
    }
}

pub(super) fn written(schema: &Schema, value: Theirs) -> Vec<u8> {
    GenericDatumWriter::builder(schema).build().unwrap().write_value_to_vec(value).unwrap()
}

fn drawn(shape: &Shape, seed: u64) -> (Schema, Theirs, Vec<u8>) {
    let schema = parse(&shape.schema(&mut 0).to_string(), &[]).unwrap();
    let value = shape.value(&mut Dice(seed));
    let datum = written(&schema, value.clone());
    (schema, value, datum)
}

/// What their reader makes of a datum that it reads to its end.
fn theirs(schema: &Schema, datum: &[u8]) -> Result<Theirs, String> {
    let mut left = datum;
    let reader = GenericDatumReader::builder(schema).build().map_err(|error| error.to_string())?;
    let value = reader.read_value(&mut left).map_err(|error| error.to_string())?;
    if left.is_empty() { Ok(value) } else { Err("bytes are left".to_owned()) }
}

fn read<'a>(plan: &'a Plan, datum: &'a [u8]) -> Result<Vec<Option<Value<'a>>>, String> {
    let mut out = vec![None; plan.wanted()];
    plan.read(datum, &mut out).map(|()| out)
}

proptest! {
    #[test]
    fn every_field_is_theirs(shape in shape(), seed in any::<u64>(), mask in any::<u64>()) {
        let (schema, _, datum) = drawn(&shape, seed);
        let value = theirs(&schema, &datum).unwrap();
        let mut paths = vec![Vec::new()];
        shape.paths(&[], &mut paths);
        for wanted in [
            paths.clone(),
            paths.iter().enumerate().filter(|(n, _)| mask >> (n % 64) & 1 == 1).map(|(_, path)| path.clone()).collect(),
        ] {
            let plan = Plan::new(&schema, None, &wanted).unwrap();
            let read = read(&plan, &datum).unwrap();
            for (path, read) in wanted.iter().zip(read) {
                prop_assert_eq!(format!("{read:?}"), format!("{:?}", expected(&value, path)), "{:?}", path);
            }
        }
        let plan = Plan::new(&schema, None, &[]).unwrap();
        let mut text = b"before ".to_vec();
        plan.json(&datum, None, &mut text).unwrap();
        let text = std::str::from_utf8(&text[7..]).unwrap();
        prop_assert_eq!(serde_json::from_str::<Json>(text).unwrap(), expected_json(&value));
    }

    #[test]
    fn no_prefix_is_a_datum_and_no_byte_behind_it(shape in shape(), seed in any::<u64>()) {
        let (schema, _, mut datum) = drawn(&shape, seed);
        let mut paths = Vec::new();
        shape.paths(&[], &mut paths);
        for wanted in [paths, Vec::new()] {
            let plan = Plan::new(&schema, None, &wanted).unwrap();
            for end in 0..datum.len() {
                let text = &mut Vec::new();
                prop_assert!(read(&plan, &datum[..end]).is_err(), "{end} of {}", datum.len());
                prop_assert!(plan.json(&datum[..end], None, text).is_err() && text.is_empty());
            }
            datum.push(0);
            prop_assert!(read(&plan, &datum).unwrap_err().contains("1 bytes behind its end"));
            datum.pop();
        }
    }

    #[test]
    fn a_spoilt_datum_is_judged_as_they_judge_it(
        shape in shape(),
        seed in any::<u64>(),
        spoilt in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
    ) {
        let (schema, _, mut datum) = drawn(&shape, seed);
        if datum.is_empty() {
            return Ok(());
        }
        for (place, byte) in spoilt {
            let place = place.index(datum.len());
            datum[place] = byte;
        }
        let mut paths = Vec::new();
        shape.paths(&[], &mut paths);
        let (all, none) = (Plan::new(&schema, None, &paths).unwrap(), Plan::new(&schema, None, &[]).unwrap());
        let ours = read(&all, &datum);
        prop_assert_eq!(ours.is_ok(), read(&none, &datum).is_ok());
        prop_assert_eq!(ours.is_ok(), none.json(&datum, None, &mut Vec::new()).is_ok());
        let theirs = theirs(&schema, &datum);
        match (&ours, &theirs) {
            (Ok(ours), Ok(value)) => for (path, ours) in paths.iter().zip(ours) {
                // A UUID's text is as it was written.
                let (ours, value) = (format!("{ours:?}"), format!("{:?}", expected(value, path)));
                prop_assert!(ours == value || ours.to_lowercase() == value.to_lowercase());
            },
            (Err(_), Err(_)) => (),
            // A UUID's text is text; a decimal has a byte at least.
            (Ok(_), Err(why)) => prop_assert!(why.to_lowercase().contains("uuid"), "{why}"),
            // They look neither at a block's size nor at bits beyond the 64th.
            (Err(why), Ok(_)) => {
                let stricter = ["not as long as it says", "claims a", "of more than 64 bits"];
                prop_assert!(stricter.iter().any(|rule| why.contains(rule)), "{why}");
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(shape in shape(), datum in prop::collection::vec(any::<u8>(), 0..64)) {
        let schema = parse(&shape.schema(&mut 0).to_string(), &[]).unwrap();
        let mut paths = Vec::new();
        shape.paths(&[], &mut paths);
        let plan = Plan::new(&schema, None, &paths).unwrap();
        let read = read(&plan, &datum);
        prop_assert_eq!(read.is_ok(), plan.json(&datum, None, &mut Vec::new()).is_ok());
    }
}

/// What a reader might have made of a writer's schema: other order, wider numbers, nulls allowed, fields gone and new.
fn evolved(schema: &Json, in_union: bool, dice: &mut Dice) -> Json {
    let Json::Object(of) = schema else {
        let widened = match schema.as_str() {
            Some("int") => ["int", "long", "float", "double"][dice.below(4)],
            Some("long") => ["long", "float", "double"][dice.below(3)],
            Some("float") => ["float", "double"][dice.below(2)],
            Some("string") => ["string", "bytes"][dice.below(2)],
            Some(other) => other,
            None => {
                return schema
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|branch| evolved(branch, true, dice))
                    .collect();
            }
        };
        let optional = !in_union && widened != "null" && dice.below(4) == 0;
        return if optional { json!(["null", widened]) } else { json!(widened) };
    };
    if of["type"] != "record" {
        return schema.clone();
    }
    let mut fields = Vec::new();
    for field in of["fields"].as_array().unwrap() {
        if dice.below(4) != 0 {
            let mut to = field.clone();
            to["type"] = evolved(&field["type"], false, dice);
            fields.push(to);
        }
    }
    if dice.below(2) == 0 {
        fields.reverse();
    }
    for n in 0..dice.below(3) {
        let name = format!("new{n}");
        let news = [
            json!({"name": name, "type": "long", "default": -5}),
            json!({"name": name, "type": ["null", "double"], "default": null}),
            json!({"name": name, "type": "string", "default": "é"}),
            json!({"name": name, "type": {"type": "array", "items": "int"}, "default": []}),
            json!({"name": name, "type": "boolean", "default": true}),
        ];
        fields.insert(dice.below(fields.len() + 1), news[dice.below(news.len())].clone());
    }
    let mut of = of.clone();
    of.insert("fields".to_owned(), fields.into());
    Json::Object(of)
}

/// Every path to a field of a schema.
fn paths_of(schema: &Json, at: &[String], found: &mut Vec<Vec<String>>) {
    match schema {
        Json::Array(branches) => branches.iter().for_each(|branch| paths_of(branch, at, found)),
        Json::Object(of) if of["type"] == "record" => {
            for field in of["fields"].as_array().unwrap() {
                let path = [at, &[field["name"].as_str().unwrap().to_owned()]].concat();
                paths_of(&field["type"], &path, found);
                found.push(path);
            }
        }
        _ => (),
    }
}

proptest! {
    #[test]
    fn a_reader_sees_what_theirs_sees(shape in shape(), seed in any::<u64>()) {
        let (writer, _, datum) = drawn(&shape, seed);
        let json = evolved(&shape.schema(&mut 0), false, &mut Dice(!seed));
        let reader = parse(&json.to_string(), &[]).unwrap();
        let theirs = GenericDatumReader::builder(&writer).reader_schema(&reader).build().unwrap();
        let value = theirs.read_value(&mut &datum[..]).unwrap();
        let mut paths = Vec::new();
        paths_of(&json, &[], &mut paths);
        let plan = Plan::new(&writer, Some(&reader), &paths).unwrap();
        for (path, read) in paths.iter().zip(read(&plan, &datum).unwrap()) {
            prop_assert_eq!(format!("{read:?}"), format!("{:?}", expected(&value, path)), "{:?} of {}", path, json);
        }
        for end in 0..datum.len() {
            prop_assert!(read(&plan, &datum[..end]).is_err());
        }
    }
}

/// Bytes that the reader has as a text are one in what goes along too, and the other way round.
#[test]
fn what_goes_along_is_what_the_reader_sees() {
    let record = |kind: &Json| {
        let of = json!({"type": "record", "name": "r", "fields": [{"name": "a", "type": kind}]});
        Schema::parse_str(&of.to_string()).unwrap()
    };
    let (e, null_or) = ([4, 0xc3, 0xa9], |kind: &str| json!(["null", kind]));
    let in_union = [2, 4, 0xc3, 0xa9];
    for (writer, reader, datum, expect) in [
        (json!("bytes"), json!("string"), &e[..], Ok("é")),
        (json!("bytes"), json!("bytes"), &e, Ok("w6k=")),
        (json!("string"), json!("bytes"), &e, Ok("w6k=")),
        (json!("bytes"), null_or("string"), &e, Ok("é")),
        (null_or("bytes"), null_or("string"), &in_union, Ok("é")),
        (json!("bytes"), json!(["string", "bytes"]), &e, Ok("w6k=")),
        (json!("bytes"), json!("string"), &[2, 0xff], Err("not valid UTF-8")),
    ] {
        let plan = Plan::new(&record(&writer), Some(&record(&reader)), &[]).unwrap();
        let mut out = Vec::new();
        let written = plan.json(datum, None, &mut out);
        match expect {
            Ok(text) => {
                assert_eq!(written, Ok(()), "{writer} {reader}");
                let said: Json = serde_json::from_slice(&out).unwrap();
                assert_eq!(said, json!({"a": text}), "{writer} {reader}");
            }
            Err(why) => assert!(written.unwrap_err().contains(why), "{writer} {reader}"),
        }
    }
}

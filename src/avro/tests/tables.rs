//! Tables: what resolves and how, and what is wrong in which words.

use super::*;

fn schema(json: &Json) -> Schema {
    parse(&json.to_string(), &[]).unwrap()
}

fn record(fields: &Json) -> Json {
    json!({"type": "record", "name": "r", "fields": fields})
}

fn path(text: &str) -> Vec<String> {
    text.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// What is read of `datum` at `wanted`, as text.
fn seen(
    writer: &Json,
    reader: Option<&Json>,
    wanted: &str,
    datum: &[u8],
) -> Result<String, String> {
    let reader = reader.map(schema);
    let plan = Plan::new(&schema(writer), reader.as_ref(), &[path(wanted)])?;
    let read = read(&plan, datum)?;
    Ok(read[0].as_ref().map_or_else(|| "absent".to_owned(), |value| format!("{value:?}")))
}

#[test]
fn a_writer_and_a_reader_agree_by_avros_rules() {
    let enumeration = |symbols: &[&str], default: Option<&str>| {
        let mut of = json!({"type": "enum", "name": "e", "symbols": symbols});
        if let Some(default) = default {
            of["default"] = json!(default);
        }
        of
    };
    let decimal = |scale: u32| json!({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": scale});
    let fixed = |size: u32| json!({"type": "fixed", "name": "f", "size": size});
    let nested = |name: &str, alias: &str| json!({"type": "record", "name": name, "aliases": [alias], "fields": [{"name": "n", "type": "int"}]});
    let at = |of: &Json| record(&json!([{"name": "a", "type": of}]));
    for (writer, reader, datum, expect) in [
        // Promotions.
        (json!("int"), json!("double"), &[4][..], "Float(2.0)"),
        (json!("long"), json!("float"), &[4], "Float(2.0)"),
        (
            json!("long"),
            json!("int"),
            &[4],
            "!field \"a\" is a long in the writer's schema and an int in the reader's",
        ),
        (json!("string"), json!("bytes"), &[2, b'x'], "Bytes([120])"),
        (json!("bytes"), json!("string"), &[2, b'x'], "Text(\"x\")"),
        (
            json!("bytes"),
            json!("string"),
            &[2, 0xff],
            "!field \"a\" is a string that is not valid UTF-8 from byte 0 on",
        ),
        (
            json!("boolean"),
            json!("int"),
            &[1],
            "!field \"a\" is a boolean in the writer's schema and an int in the reader's",
        ),
        // Enums.
        (enumeration(&["x", "y"], None), enumeration(&["y", "x"], None), &[2], "Text(\"y\")"),
        (enumeration(&["x", "y"], None), enumeration(&["z"], Some("z")), &[2], "Text(\"z\")"),
        (enumeration(&["x", "y"], None), enumeration(&["x"], None), &[0], "Text(\"x\")"),
        (
            enumeration(&["x", "y"], None),
            enumeration(&["x"], None),
            &[2],
            "!field \"a\" is an enum's symbol that",
        ),
        (
            enumeration(&["x"], None),
            json!("string"),
            &[0],
            "!field \"a\" is an enum in the writer's schema and a string",
        ),
        // Fixed and decimals.
        (
            fixed(2),
            fixed(3),
            &[1, 2],
            "!field \"a\" is a fixed of 2 bytes in the writer's schema and of 3",
        ),
        (decimal(2), decimal(2), &[2, 7], "Decimal(\"0.07\")"),
        (
            decimal(2),
            decimal(3),
            &[2, 7],
            "!field \"a\" is a decimal of scale 2 in the writer's schema and of scale 3",
        ),
        (decimal(2), json!("bytes"), &[2, 7], "Bytes([7])"),
        (json!("bytes"), decimal(1), &[2, 7], "Decimal(\"0.7\")"),
        // Unions.
        (json!(["null", "int"]), json!(["int", "null"]), &[2, 4], "Int(2)"),
        (json!(["null", "int"]), json!(["int", "null"]), &[0], "Null"),
        (json!(["null", "int"]), json!("long"), &[2, 4], "Int(2)"),
        (
            json!(["null", "int"]),
            json!("long"),
            &[0],
            "!field \"a\" is null in the writer's schema and a long",
        ),
        (
            json!(["null", "string"]),
            json!("long"),
            &[2, 2, 97],
            "!field \"a\" is a string in the writer's schema and a long",
        ),
        (json!("int"), json!(["null", "string", "double"]), &[4], "Float(2.0)"),
        (json!("int"), json!(["double", "int"]), &[4], "Int(2)"),
        (
            json!(["string", "boolean"]),
            json!(["int", "null"]),
            &[0],
            "!field \"a\" is a string in the writer's",
        ),
        (
            json!("int"),
            json!(["null", "string"]),
            &[4],
            "!field \"a\" is an int in the writer's schema and null",
        ),
        (
            json!(["int", "string", "boolean"]),
            json!(["int", "string", "boolean"]),
            &[4, 1],
            "Bool(true)",
        ),
        (nested("p", "q"), json!(["null", nested("z", "y"), nested("w", "p")]), &[4], "Map"),
        // Parts.
        (
            json!({"type": "array", "items": "int"}),
            json!({"type": "array", "items": "long"}),
            &[0],
            "List",
        ),
        (
            json!({"type": "array", "items": "int"}),
            json!({"type": "array", "items": "string"}),
            &[0],
            "!field \"a\" is an int in the writer's schema and a string",
        ),
        (
            json!({"type": "map", "values": "int"}),
            json!({"type": "map", "values": "double"}),
            &[0],
            "Map",
        ),
    ] {
        let seen = seen(&at(&writer), Some(&at(&reader)), "a", datum)
            .unwrap_or_else(|why| format!("!{why}"));
        assert!(seen.starts_with(expect), "{writer} as {reader}: {seen}");
    }
}

/// A symbol that the reader does not know is, to whoever looks, what the reader has for such: also where it goes along.
#[test]
fn what_a_reader_has_for_unknown_symbols_goes_along() {
    let of = |symbols: &[&str], default: Option<&str>| {
        let mut of = json!({"type": "enum", "name": "e", "symbols": symbols});
        if let Some(default) = default {
            of["default"] = json!(default);
        }
        of
    };
    let (old, new) = (of(&["A", "B", "C"], None), |default| of(&["A", "X"], default));
    let fields = |of: Json| record(&json!([{"name": "f", "type": of}]));
    let list = |of: Json| json!({"type": "array", "items": of});
    for (writer, reader, datum, expect) in [
        (old.clone(), new(Some("X")), &[4_u8][..], r#"{"f":"X"}"#),
        (old.clone(), new(Some("X")), &[0], r#"{"f":"A"}"#),
        // As it was written where the reader has nothing for it.
        (old.clone(), new(None), &[4], r#"{"f":"C"}"#),
        (json!(["null", old]), json!(["null", new(Some("X"))]), &[2, 2], r#"{"f":"X"}"#),
        (old.clone(), json!(["null", new(Some("X"))]), &[2], r#"{"f":"X"}"#),
        (list(old), list(new(Some("X"))), &[6, 0, 2, 4, 0], r#"{"f":["A","X","X"]}"#),
    ] {
        let (writer, reader) = (schema(&fields(writer)), schema(&fields(reader)));
        let plan = Plan::new(&writer, Some(&reader), &[]).unwrap();
        let mut text = Vec::new();
        plan.json(datum, None, &mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), expect);
    }
}

#[test]
fn fields_are_found_by_name_alias_or_default() {
    let customer = json!({"type": "record", "name": "c", "fields": [
        {"name": "age", "type": "int"}, {"name": "name", "type": "string"}]});
    let writer = record(&json!([
        {"name": "amt", "type": "double"},
        {"name": "extra", "type": {"type": "map", "values": "string"}},
        {"name": "customer", "type": ["null", customer]},
    ]));
    let older = json!({"type": "record", "name": "c", "fields": [
        {"name": "years", "aliases": ["age"], "type": "long"},
        {"name": "city", "type": "string", "default": "Ulm"}]});
    let reader = record(&json!([
        {"name": "customer", "type": ["null", older]},
        {"name": "amount", "aliases": ["other", "amt"], "type": "double"},
        {"name": "seller", "default": {"years": 7}, "type": "c"},
        {"name": "raw", "type": "bytes", "default": "\u{ff}a"},
        {"name": "price", "default": "\u{1}",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}},
        {"name": "side", "default": "left", "type": {"type": "enum", "name": "s", "symbols": ["left"]}},
        {"name": "either", "default": "x", "type": ["string", "null"]},
    ]));
    let half = 0.5_f64.to_le_bytes();
    let full = [&half[..], &[0, 2, 80, 6, b'A', b'd', b'a']].concat();
    let alone = [&half[..], &[0, 0]].concat();
    for (wanted, expect, without) in [
        ("amount", "Float(0.5)", "Float(0.5)"),
        ("amt", "absent", "absent"),
        ("extra", "absent", "absent"),
        ("customer", "Map", "Null"),
        ("customer.years", "Int(40)", "Null"),
        ("customer.city", "Text(\"Ulm\")", "Null"),
        ("customer.name", "absent", "Null"),
        ("seller", "Map", "Map"),
        ("seller.years", "Int(7)", "Int(7)"),
        ("seller.city", "Text(\"Ulm\")", "Text(\"Ulm\")"),
        ("seller.none", "absent", "absent"),
        ("raw", "Bytes([255, 97])", "Bytes([255, 97])"),
        ("price", "Decimal(\"0.01\")", "Decimal(\"0.01\")"),
        ("side", "Text(\"left\")", "Text(\"left\")"),
        ("either", "Text(\"x\")", "Text(\"x\")"),
        ("", "Map", "Map"),
    ] {
        assert_eq!(seen(&writer, Some(&reader), wanted, &full).unwrap(), expect, "{wanted}");
        assert_eq!(seen(&writer, Some(&reader), wanted, &alone).unwrap(), without, "{wanted}");
    }
    for (wanted, expect) in
        [("amt", "Float(0.5)"), ("customer.name", "Text(\"Ada\")"), ("extra", "Map")]
    {
        assert_eq!(seen(&writer, None, wanted, &full).unwrap(), expect, "{wanted}");
    }
    // One field twice, and a place that is absent.
    let (writer, reader) = (schema(&writer), schema(&reader));
    let wanted = ["amount", "none", "amount", "customer.years", "customer"].map(path);
    let plan = Plan::new(&writer, Some(&reader), &wanted).unwrap();
    let values = read(&plan, &full).unwrap();
    assert_eq!(
        format!("{values:?}"),
        "[Some(Float(0.5)), None, Some(Float(0.5)), Some(Int(40)), Some(Map)]"
    );
    // Names are the reader's.
    assert_eq!(plan.unknown(), Some("extra"));
    let mut text = Vec::new();
    plan.json(&full, Some(&["amount".to_owned(), "customer".to_owned()]), &mut text).unwrap();
    let expect = br#"{"amount":0.5,"customer":{"years":40,"name":"Ada","city":"Ulm"}}"#;
    assert_eq!(text, expect);
    text.clear();
    plan.json(&full, Some(&["none".to_owned()]), &mut text).unwrap();
    assert_eq!(text, b"{}");
    text.clear();
    plan.json(&alone, None, &mut text).unwrap();
    let expect = r#"{"amount":0.5,"extra":{},"customer":null,"seller":{"years":7},"raw":"/2E=","price":0.01,"side":"left",
        "either":"x"}"#;
    assert_eq!(String::from_utf8(text).unwrap(), expect.replace("\n        ", ""));
    let plan = Plan::new(&writer, None, &["amt", "customer", "extra"].map(path)).unwrap();
    assert_eq!(plan.unknown(), None);
    let missing = record(&json!([{"name": "b", "type": "int"}]));
    let why = seen(&missing, Some(&record(&json!([{"name": "a", "type": "int"}]))), "a", &[0])
        .unwrap_err();
    assert_eq!(
        why,
        "field \"a\" is not in the writer's schema, and the reader's has no default for it"
    );
}

#[test]
fn what_nobody_can_take_is_said_before_a_record_is_read() {
    let duration = json!({"type": "fixed", "name": "d", "size": 12, "logicalType": "duration"});
    let writer = record(&json!([
        {"name": "wait", "type": duration},
        {"name": "text", "type": "string"},
        {"name": "list", "type": {"type": "array", "items": "int"}},
    ]));
    for (wanted, expect) in [
        ("wait", "field \"wait\" is an Avro duration (months, days and milliseconds)"),
        ("text.length", "field \"text\" is a string, which has no field \"length\""),
        ("list.0.x", "field \"list.0\" is an int, which has no field \"x\""),
    ] {
        let why = Plan::new(&schema(&writer), None, &[path(wanted)]).unwrap_err();
        assert!(why.starts_with(expect), "{why}");
    }
    assert!(
        seen(&json!("string"), None, "a", &[0])
            .unwrap_err()
            .starts_with("is a string, which has no")
    );
    assert_eq!(seen(&json!("string"), None, "", &[2, b'x']).unwrap(), "Text(\"x\")");
    assert_eq!(seen(&json!(["null", writer]), None, "text", &[0]).unwrap(), "Null");
    // Where nobody wants it, it is passed over.
    let datum = [&[0; 12][..], &[2, b'x', 0]].concat();
    assert_eq!(seen(&writer, None, "text", &datum).unwrap(), "Text(\"x\")");
    let mut text = Vec::new();
    Plan::new(&schema(&writer), None, &[]).unwrap().json(&datum, None, &mut text).unwrap();
    assert_eq!(text, br#"{"wait":{"months":0,"days":0,"millis":0},"text":"x","list":[]}"#);
}

#[test]
fn a_fault_names_field_rule_and_kind() {
    let inner =
        json!({"type": "record", "name": "i", "fields": [{"name": "b", "type": "boolean"}]});
    let map = json!({"type": "map", "values": "int"});
    let list = |items: &Json| json!({"type": "array", "items": items});
    let enumeration = json!({"type": "enum", "name": "e", "symbols": ["x"]});
    let uuid = json!({"type": "bytes", "logicalType": "uuid"});
    let decimal = json!({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2});
    let two_gib = [0x80, 0x80, 0x80, 0x80, 0x10];
    let minus = 2_u8.pow(0);
    for (of, datum, expect) in [
        (json!("int"), &[][..], "ends inside an int"),
        (json!("int"), &[0x80], "ends inside an int"),
        (json!("int"), &[0xff, 0xff, 0xff, 0xff, 0x1f], "is an int of more than 32 bits"),
        (json!("long"), &[0xff; 10], "is a long of more than 64 bits or 10 bytes"),
        (json!("long"), &[0x80; 11], "is a long of more than 64 bits or 10 bytes"),
        (json!("long"), &[0, 0], "!has 1 bytes behind its end"),
        (json!("float"), &[1, 2, 3], "ends inside a float"),
        (json!("double"), &[1, 2, 3], "ends inside a double"),
        (json!("boolean"), &[2], "is a boolean that is neither 0 nor 1"),
        (json!("string"), &two_gib, "claims a string of 2147483648 bytes, and 0 are left"),
        (json!("bytes"), &[6, 1], "claims bytes of 3 bytes, and 1 are left"),
        (json!("string"), &[minus], "claims a string of a negative length (-1)"),
        (json!("string"), &[4, 0xc3, 0x28], "is a string that is not valid UTF-8 from byte 0 on"),
        (json!(["null", "int"]), &[4], "names branch 2 of a union that has 2, from 0 on"),
        (json!(["null", "int"]), &[minus], "names branch -1 of a union that has 2, from 0 on"),
        (enumeration, &[2], "names symbol 1 of an enum that has 1, from 0 on"),
        (
            json!({"type": "fixed", "name": "f", "size": 4}),
            &[1],
            "wants 4 bytes for a fixed, and 1 are left",
        ),
        (decimal, &[0], "is a decimal of no bytes"),
        (uuid, &[2, 0], "is a uuid of 1 bytes, not of 16"),
        (list(&json!("int")), &two_gib, "ends inside an int"),
        (
            list(&json!("double")),
            &two_gib,
            "wants 17179869184 bytes for the items of an array, and 0 are left",
        ),
        (
            list(&json!("int")),
            &[1, 4, 2, 0],
            "has a block of an array that is not as long as it says",
        ),
        (list(&json!("int")), &[1, 40, 2, 0], "claims an array of 20 bytes, and 2 are left"),
        (list(&inner), &[2, 9, 0], "is a boolean"),
        (map.clone(), &[2, 2, 0xff, 0, 0], "is a string that is not valid UTF-8"),
        (map, &two_gib, "ends inside a string"),
    ] {
        let writer = record(&json!([{"name": "a", "type": of}]));
        let expect = match expect.strip_prefix('!') {
            Some(whole) => whole.to_owned(),
            None if of["items"]["type"] == "record" => format!("field \"a.b\" {expect}"),
            None => format!("field \"a\" {expect}"),
        };
        // Whoever wants it or not.
        for wanted in ["a", "none"] {
            let why = seen(&writer, None, wanted, datum).unwrap_err();
            // Bytes that cannot be wrong are passed over together.
            let together = wanted == "none" && why.contains("bytes for its values, and ");
            assert!(why.starts_with(&expect) || together, "{of}: {why}");
        }
        let plan = Plan::new(&schema(&writer), None, &[]).unwrap();
        let why = plan.json(datum, None, &mut Vec::new()).unwrap_err();
        // As JSON the items are read one by one.
        assert!(why.starts_with(&expect) || of["items"] == "double", "{of}: {why}");
    }
}

#[test]
fn what_contains_itself_is_read_to_a_depth() {
    let list =
        record(&json!([{"name": "next", "type": ["null", "r"]}, {"name": "n", "type": "int"}]));
    let chain = |length: usize| [vec![2; length], vec![0], vec![8; length + 1]].concat();
    for wanted in ["n", "next.next.n", "next", ""] {
        let seen_at = |length| seen(&list, None, wanted, &chain(length));
        assert!(seen_at(20).is_ok(), "{:?}", seen_at(20));
        let why = seen_at(100_000).unwrap_err();
        assert!(why.ends_with("is nested deeper than 128 levels"), "{why}");
    }
    assert_eq!(seen(&list, Some(&list), "next.n", &chain(3)).unwrap(), "Int(4)");
    let endless = record(&json!([{"name": "self", "type": "r"}]));
    let why = seen(&endless, None, "none", &[]).unwrap_err();
    assert!(why.ends_with("field \"self\" is nested deeper than 128 levels"), "{why}");
    let deep = seen(&list, None, "", &chain(100_000)).unwrap_err();
    assert!(deep.ends_with("field \"next\" is nested deeper than 128 levels"), "{deep}");
    let plan = Plan::new(&schema(&endless), Some(&schema(&endless)), &[]).unwrap();
    assert!(plan.json(&[], None, &mut Vec::new()).unwrap_err().contains("deeper than 128 levels"));
}

#[test]
fn a_small_datum_does_not_become_large() {
    // Each record has two of the next: a thousand million nulls in no byte at all.
    let mut of = json!("null");
    for level in (0..30).rev() {
        let second = if level == 29 { json!("null") } else { json!(format!("R{}", level + 1)) };
        of = json!({"type": "record", "name": format!("R{level}"),
            "fields": [{"name": "a", "type": of}, {"name": "b", "type": second}]});
    }
    let plan = Plan::new(&schema(&of), None, &[path("a.a.b")]).unwrap();
    assert_eq!(read(&plan, &[]).unwrap(), [Some(Value::Map)]);
    let reader = Plan::new(&schema(&of), Some(&schema(&of)), &[path("a.b")]).unwrap();
    assert_eq!(read(&reader, &[]).unwrap(), [Some(Value::Map)]);
    let nulls = schema(&json!({"type": "array", "items": "null"}));
    let many = written(&Schema::Long, Theirs::Long(i64::MAX));
    let lists = Plan::new(&nulls, None, &[Vec::new()]).unwrap();
    let datum = [&many[..], &[0]].concat();
    assert_eq!(read(&lists, &datum).unwrap(), [Some(Value::List)]);
    for (plan, datum) in [(&plan, &[][..]), (&lists, &datum)] {
        let mut out = Vec::new();
        let mut writer = json::Writer { types: &plan.types, out: &mut out, most: 10_000 };
        assert!(writer.value(plan.root, &mut Datum::new(datum), None, 0).is_err());
        assert!(out.len() < 11_000);
    }
}

#[test]
fn schemas_refer_to_others_in_any_order() {
    let other =
        json!({"type": "record", "name": "a.Other", "fields": [{"name": "e", "type": "a.E"}]});
    let symbols = json!({"type": "enum", "name": "E", "namespace": "a", "symbols": ["x", "y"]});
    let top = json!({"type": "record", "name": "Top", "namespace": "a",
        "fields": [{"name": "o", "type": "Other"}, {"name": "p", "type": ["null", "a.Other"]}]});
    for references in [[&other, &symbols], [&symbols, &other]] {
        let references = references.map(Json::to_string);
        let schema = parse(&top.to_string(), &references).unwrap();
        let plan = Plan::new(&schema, None, &["o.e", "p.e"].map(path)).unwrap();
        let values = read(&plan, &[2, 2, 0]).unwrap();
        assert_eq!(format!("{values:?}"), "[Some(Text(\"y\")), Some(Text(\"x\"))]");
    }
    for (schema, references, expect) in [
        ("{", vec![], "is not a valid Avro schema"),
        ("\"texts\"", vec![], "texts"),
        ("{\"type\":\"record\",\"name\":\"r\"}", vec![], "is not a valid Avro schema"),
        (
            "\"a.Gone\"",
            vec!["{\"type\":\"enum\",\"name\":\"E\",\"symbols\":[\"x\"]}".to_owned()],
            "a.Gone",
        ),
        // Their parser panics on it.
        (
            "\"int\"",
            vec![
                "{\"type\":{\"type\":\"enum\",\"name\":\"E\",\"symbols\":[\"x\"]},\"name\":\"F\"}"
                    .to_owned(),
            ],
            "is not a valid Avro schema",
        ),
    ] {
        let why = parse(schema, &references).unwrap_err();
        assert!(why.contains(expect), "{why}");
    }
    let deep =
        format!("{}\"int\"{}", "{\"type\":\"array\",\"items\":".repeat(2_000), "}".repeat(2_000));
    assert!(parse(&deep, &[]).is_err());
}

#[test]
fn elements_and_values_of_maps_are_found() {
    let row = json!({"type": "record", "name": "Row", "fields": [
        {"name": "x", "type": "int"}, {"name": "t", "type": ["null", "string"]}]});
    let writer = record(&json!([
        {"name": "list", "type": {"type": "array", "items": "int"}},
        {"name": "rows", "type": {"type": "array", "items": row}},
        {"name": "map", "type": {"type": "map", "values": "Row"}},
        {"name": "nulls", "type": {"type": "array", "items": "null"}},
    ]));
    // [1, 2, 3] in two blocks, the second with its size; two rows; a key that stands twice; five nulls.
    let datum = b"\x02\x02\x03\x04\x04\x06\x00\x04\x0a\x00\x0c\x02\x02a\x00\x06\x02k\x02\x02\x02z\x02j\x0e\x00\x02k\x04\x00\x00\x0a\x00";
    let wanted = [
        "list.0",
        "list.2",
        "list.3",
        "list",
        "rows.1.t",
        "rows.0.x",
        "map.k.t",
        "map.j.x",
        "map.none.x",
        "map",
        "nulls.4",
        "nulls.5",
        "list.01",
        "list.x",
        "rows.0",
    ];
    let plan = Plan::new(&schema(&writer), None, &wanted.map(path)).unwrap();
    let mut out = vec![Some(Value::List); wanted.len()];
    plan.read(datum, &mut out).unwrap();
    let int = |number| Some(Value::Int(number));
    let expect = [
        int(1),
        int(3),
        None,
        Some(Value::List),
        Some(Value::Text("a".into())),
        int(5),
        Some(Value::Null),
        int(7),
        None,
        Some(Value::Map),
        Some(Value::Null),
        None,
        None,
        None,
        Some(Value::Map),
    ];
    assert_eq!(out, expect);
    for end in 0..datum.len() {
        assert!(plan.read(&datum[..end], &mut out).is_err(), "{end}");
    }
    let said = plan.read(b"\x02\x02\x00\x02\x02\x04", &mut out).unwrap_err();
    assert!(said.starts_with("field \"rows"), "{said}");
    // Billions of nulls take no time.
    let nulls = b"\x00\x00\x00\xfe\xff\xff\xff\xff\xff\xff\xff\x7f\x00";
    plan.read(nulls, &mut out).unwrap();

    // A default of the reader's.
    let reader = record(&json!([
        {"name": "more", "type": {"type": "array", "items": "int"}, "default": [4, 5]},
        {"name": "said", "type": {"type": "map", "values": "string"}, "default": {"a": "b"}},
    ]));
    let wanted = ["more.1", "more.2", "said.a", "said.c"];
    let plan =
        Plan::new(&schema(&record(&json!([]))), Some(&schema(&reader)), &wanted.map(path)).unwrap();
    let mut out = vec![None; wanted.len()];
    plan.read(b"", &mut out).unwrap();
    assert_eq!(out, [int(5), None, Some(Value::Text("b".into())), None]);
}

/// What goes along is called as the reader's schema calls it, within records and lists too.
#[test]
fn text_has_the_readers_names_and_defaults() {
    let row = |more: Json| json!({"type": "array", "items": {"type": "record", "name": "Row", "fields": [more]}});
    let writer = record(&json!([
        {"name": "old", "type": "int"},
        {"name": "rows", "type": ["null", row(json!({"name": "x", "type": "int"}))]},
        {"name": "mine", "type": "int"},
    ]));
    let reader = record(&json!([
        {"name": "rows", "type": ["null", row(json!({"name": "y", "type": "int", "aliases": ["x"]}))]},
        {"name": "new", "type": "long", "aliases": ["old"]},
        {"name": "more", "type": ["string", "null"], "default": "é"},
    ]));
    let plan = Plan::new(&schema(&writer), Some(&schema(&reader)), &[]).unwrap();
    let datum = b"\x02\x02\x04\x04\x06\x00\x08";
    for (names, expect) in [
        (None, r#"{"new":1,"rows":[{"y":2},{"y":3}],"mine":4,"more":"é"}"#),
        (Some(vec!["more".to_owned(), "new".to_owned()]), r#"{"new":1,"more":"é"}"#),
    ] {
        let mut text = Vec::new();
        plan.json(datum, names.as_deref(), &mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), expect);
    }
}

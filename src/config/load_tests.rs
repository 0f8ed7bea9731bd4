//! Tables: what a file or a variable gives, and what is said of each mistake.

use serde_json::json;

use super::*;

const GOOD: &str = "
kafka: {group: g, common: {bootstrap.servers: 'b:9092'}}
input: {topics: [in]}
output: {topic: out}
model: {uri: ./m}
";

fn vars(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn with(text: &str, pairs: &[(&str, &str)]) -> Result<Config, Problems> {
    build(text, None, &vars(pairs))
}

/// `GOOD` with one more line of YAML is refused, and only with a problem of `key` that says `said`.
fn refused(pairs: &[(&str, &str)], key: &str, said: &str) {
    let problems = with(GOOD, pairs).expect_err(key);
    assert_eq!(problems.0.len(), 1, "{problems}");
    assert_eq!(problems.0[0].key, key, "{problems}");
    assert!(problems.to_string().contains(said), "{problems} lacks {said:?}");
}

#[test]
fn the_minimum_is_enough() {
    let config = from_yaml(GOOD).unwrap();
    assert_eq!(config.kafka.common["bootstrap.servers"], "b:9092");
    assert_eq!(config.batch, Config::default().batch);
}

#[test]
fn a_value_of_another_form_is_answered_with_what_to_write() {
    for (section, expect) in [
        ("http: {listen: 8080}", "write an address with its port: `0.0.0.0:8080`"),
        ("batch: {size: lxarned}", "did you mean `learned`, not `lxarned`?"),
    ] {
        let said = from_yaml(&format!("{GOOD}\n{section}\n")).map_err(|found| found.to_string());
        assert!(
            said.as_ref().err().is_some_and(|said| said.contains(expect)),
            "{section}: {said:?}"
        );
    }
    let topics = GOOD.replace("[in]", "in");
    let said = from_yaml(&topics).unwrap_err().to_string();
    assert!(topics != GOOD && said.contains("write a list: `[in]`"), "{said}");
    let format = GOOD.replace("input: {", "input: {format: arvo, ");
    let said = from_yaml(&format).unwrap_err().to_string();
    assert!(format != GOOD && said.contains("did you mean `avro`, not `arvo`?"), "{said}");
}

#[test]
fn nothing_names_all_that_is_required() {
    for text in ["", "# only a comment\n", "kafka:\n"] {
        let problems = from_yaml(text).unwrap_err();
        let keys: Vec<&str> = problems.0.iter().map(|p| p.key.as_str()).collect();
        let all = [
            "kafka.common.bootstrap.servers",
            "kafka.group",
            "input.topics",
            "output.topic",
            "model.uri",
        ];
        assert_eq!(keys, all, "{text:?}");
    }
    let embedded = "log: sqlite:x.db\ninput: {topics: [a]}\noutput: {topic: b}\nmodel: {uri: m}";
    from_yaml(embedded).unwrap();
}

#[test]
fn secrets_of_the_registry_are_put_in_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "hunter2hunter2\n").unwrap();
    let text = |password: &str| {
        format!(
            "log: sqlite:x\ninput: {{topics: [in]}}\noutput: {{topic: out}}\nmodel: {{uri: m}}\n\
             schema_registry: {{urls: ['http://r'], username: u, password: '{password}'}}"
        )
    };
    for password in [format!("${{file:{}}}", file.display()), "hunter2hunter2".to_owned()] {
        let config = from_yaml(&text(&password)).unwrap();
        assert_eq!(config.schema_registry.password.as_deref(), Some("hunter2hunter2"));
        assert!(config.secrets.within("password hunter2hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
    }
    let problems = from_yaml(&text("${file:/nowhere/x}")).unwrap_err().to_string();
    assert!(problems.contains("schema_registry.password"), "{problems}");
}

#[test]
fn fields_and_topics_have_names_of_their_own() {
    let text = "kafka: {group: g, common: {bootstrap.servers: a}}\n\
                input: {topics: [a.b, c], fields: {x.y: /o/x~1y, text: /t}, formats: {a.b: text}}\n\
                output: {topic: out}\nmodel: {uri: m}";
    let config = from_yaml(text).unwrap();
    let path = |name: &str| config.input.fields[name].path().join(" ");
    assert_eq!((path("x.y"), path("text")), ("o x/y".to_owned(), "t".to_owned()));
    assert_eq!(config.input.formats["a.b"], crate::config::InputFormat::Text);
    for (from, to, part) in [
        ("/t}", "t}", "input.fields.text"),
        ("a.b: text", "a.b: xml", "input.formats"),
        ("a.b: text", "d: text", "names \"d\", which is not one of input.topics"),
        ("fields:", "format: avro, fields:", "nothing says by which schema values were written"),
        ("fields:", "unwrap: none, format: bytes, fields:", "every value is one field"),
    ] {
        let problems = from_yaml(&text.replace(from, to)).unwrap_err().to_string();
        assert!(problems.contains(part), "{problems}");
    }
    refused(&[("TIDEMILL_INPUT__FORMATS__IN", "xml")], "input.formats.in", "unknown variant `xml`");
}

/// What is said of a field is judged by itself, under the field's name, with the words as they are written.
#[test]
fn what_is_said_of_fields_is_judged_by_field() {
    let text = "log: sqlite:x\noutput: {topic: out}\nmodel: {uri: m}\ninput:\n  topics: [a]\n  clean:\n    \
                a.b: {missing: ['', NA, -999], on_missing: null, on_invalid: null}\n    \
                member: {type: boolean, true: [yes, y, 1], false: [no, n]}\n    \
                price: {type: number, decimal: ',', group: '.', min: 0, max: 1e6, on_invalid: clamp}\n";
    let config = from_yaml(text).unwrap();
    let words = |name: &str| config.input.clean[name].words().clone();
    assert_eq!(words("a.b").missing, ["".into(), "NA".into(), serde_json::json!(-999)]);
    assert_eq!(words("member").yes, ["yes".into(), "y".into(), serde_json::json!(1)]);
    assert_eq!(words("price").max.map(crate::clean::Bound::number), Some(1e6));
    let both = text.replace("clamp", "bound").replace("on_missing", "on_absent");
    let problems = from_yaml(&both).unwrap_err();
    assert_eq!(problems.0.len(), 2, "{problems}");
    for (from, to, parts) in [
        ("clamp", "bound", ["input.clean.price: ", "unknown variant `bound`"]),
        ("a.b: {missing", "a.b: {absent", ["input.clean.a.b: ", "unknown field `absent`"]),
        ("min: 0", "min: 2e6", ["input.clean.price: ", "nothing lies between"]),
        ("NA,", "'${env:NA}',", ["input.clean.a.b: ", "no secret may stand here"]),
        ("clean:\n", "clean: x\n  #", ["input.clean: ", "is not a map"]),
    ] {
        let mut text = text.replace(from, to);
        if to.ends_with('#') {
            text.truncate(text.find("  #").unwrap());
        }
        let problems = from_yaml(&text).unwrap_err().to_string();
        assert!(parts.iter().all(|part| problems.contains(part)), "{parts:?} in {problems}");
    }
}

#[test]
fn one_mistake_hides_no_other() {
    let text = "
kafka: {grup: g, lanes: 99, common: {bootstrap.servers: 'b:1', acks: 1}}
input: {topics: [in, in], format: xml}
output: {topic: in}
model: {uri: 'models:/m'}
batch: {max_wait: 50, max_records: -1, max_bytes: 1.5, max_record: 3}
limits: 5
bach: {}
";
    let problems = from_yaml(text).unwrap_err();
    let said = problems.to_string();
    for (key, part) in [
        ("kafka.grup", "did you mean `kafka.group`?"),
        ("kafka.lanes", "1 to 16"),
        ("kafka.common.acks", "once all in-sync replicas have it"),
        ("kafka.group", "required"),
        ("input.topics", "twice"),
        ("input.format", "unknown variant `xml`"),
        ("output.topic", "for ever"),
        ("model.uri", "names no version"),
        ("registry.root", "required"),
        ("batch.max_wait", "a duration"),
        ("batch.max_records", "u32"),
        ("batch.max_bytes", "a number with its unit"),
        ("batch.max_record", "did you mean `batch.max_records`?"),
        ("limits", "is a section"),
        ("bach", "did you mean `batch`?"),
    ] {
        let found = problems.0.iter().find(|p| p.key == key && p.to_string().contains(part));
        assert!(found.is_some(), "{key} with {part:?} is missing in {said}");
    }
    assert!(said.contains("\n  1. ") && said.contains("\n  15. "), "{said}");
}

#[test]
fn variables_override() {
    let config = with(
        GOOD,
        &[
            ("TIDEMILL_BATCH__MAX_RECORDS", "64"),
            ("TIDEMILL_BATCH__MAX_WAIT", "2s"),
            ("TIDEMILL_KAFKA__GROUP", "123"),
            ("TIDEMILL_KAFKA__COMMON__BOOTSTRAP_SERVERS", "c:1,d:2"),
            ("TIDEMILL_KAFKA__PRODUCER__COMPRESSION_TYPE", "lz4"),
            ("TIDEMILL_INPUT__TOPICS", "a, b"),
            ("TIDEMILL_MODEL__WORKERS", "4"),
            ("TIDEMILL_LOG", "null"),
            ("TIDEMILL_OUTPUT__INCLUDE", "{fields: [x]}"),
            ("TIDEMILL_PORT", "tcp://10.0.0.1:80"),
            ("TIDEMILL_SERVICE_HOST", "10.0.0.1"),
            ("HOME", "/root"),
        ],
    )
    .unwrap();
    assert_eq!(config.batch.max_records, 64);
    assert_eq!(config.batch.max_wait.to_string(), "2s");
    assert_eq!(config.kafka.group, "123");
    assert_eq!(config.kafka.common["bootstrap.servers"], "c:1,d:2");
    assert_eq!(config.kafka.producer["compression.type"], "lz4");
    assert_eq!(config.input.topics, ["a", "b"]);
    assert_eq!(config.model.workers, crate::config::Workers::Count(4));
    assert_eq!(config.output.include, crate::config::Include::Fields(vec!["x".to_owned()]));
}

#[test]
fn what_is_published_has_names_that_its_format_can_have() {
    for (output, said) in [
        ("format: json, fields: {'odd name': label, input: score}", None),
        ("format: avro, fields: {'odd name': label}", Some("cannot be the name")),
        ("format: avro, fields: {input: label}", Some("goes along of the record")),
        ("include: all, fields: {input: label}", Some("goes along of the record")),
        ("include: key, fields: {key: label}", Some("goes along of the record")),
        ("fields: {'': label}", Some("cannot be the name")),
        ("fields: {a: label, b: label}", Some("names label twice")),
        ("fields: {a: labels}", Some("mean_embedding")),
        ("scores_format: array, top_k: 3", Some("leave output.top_k out")),
        ("cloud_events: {source: /a}", Some("set both")),
        ("cloud_events: {source: /a b, type: t}", Some("white space")),
        ("cloud_events: {source: /a, type: ''}", Some("white space")),
        ("cloud_events: {source: /a, type: com.t}", None),
        ("cloud_events: {source: 'https://h/a?b=%20#c', type: com.t}", None),
        ("cloud_events: {source: '/a%2', type: com.t}", Some("no reference to a URI")),
        ("cloud_events: {source: '/é', type: com.t}", Some("no reference to a URI")),
        ("cloud_events: {source: '/<a>', type: com.t}", Some("no reference to a URI")),
        ("scores_format: array, embedding_format: bytes", None),
    ] {
        let text = GOOD.replace("output: {", &format!("output: {{{output}, "));
        assert_ne!(text, GOOD);
        let found = with(&text, &[]).err().map(|problems| format!("{problems:?}"));
        match said {
            None => assert_eq!(found, None, "{output}"),
            Some(said) => assert!(found.unwrap_or_default().contains(said), "{output}"),
        }
    }
}

#[test]
fn what_nothing_is_read_by_is_refused() {
    for (more, said) in [
        ("schema: a.avsc", Some("input.schema")),
        ("schema: a.avsc, format: text", Some("input.schema")),
        ("schema: a.avsc, format: avro", None),
        ("schema: a.avsc, formats: {in: avro}", None),
        ("schema: a.avsc, format_header: content-type", None),
        ("schema: a.proto, format: protobuf", None),
        ("key: {schema: a.avsc}", Some("input.key.schema")),
        ("key: {schema: a.avsc, format: avro}", None),
        ("headers: {source: ''}", Some("input.headers")),
        ("headers: {source: s}", None),
        ("format: messagepack", None),
        ("format: cbor, fields: {a: /b}", None),
        ("format: messagepack, unwrap: debezium", Some("input.unwrap")),
        ("formats: {in: cbor}, unwrap: connect", Some("input.unwrap")),
        ("format: cbor, unwrap: cloud_events", None),
        ("format: text, unwrap: cloud_events", None),
        ("format: text, unwrap: connect", Some("input.unwrap")),
    ] {
        let text = GOOD.replace("input: {", &format!("input: {{{more}, "));
        assert_ne!(text, GOOD);
        let found = with(&text, &[]).err().map(|problems| format!("{problems:?}"));
        match said {
            None => assert_eq!(found, None, "{more}"),
            Some(said) => {
                assert!(found.clone().unwrap_or_default().contains(said), "{more}: {found:?}");
            }
        }
    }
}

#[test]
fn windows_that_hardly_move_on_are_refused() {
    for (more, said) in [
        ("on_long: chunks, chunk_overlap: 65, max_length: 128", Some("write at most 64")),
        ("on_long: chunks, chunk_overlap: 64, max_length: 128", None),
        ("on_long: mean, chunk_overlap: 1, max_length: 1", Some("write at most 0")),
    ] {
        let text = GOOD.replace("model: {", &format!("model: {{{more}, "));
        assert_ne!(text, GOOD);
        let found = with(&text, &[]).err().map(|problems| format!("{problems:?}"));
        assert_eq!(found.as_ref().is_some(), said.is_some(), "{more}: {found:?}");
        assert!(found.unwrap_or_default().contains(said.unwrap_or_default()), "{more}");
    }
}

#[test]
fn each_rule_says_its_consequence() {
    for (variable, value, key, said) in [
        ("BATCH__MAX_RECORDS", "0", "batch.max_records", "no batch could ever hold"),
        ("BATCH__MAX_BYTES", "40MiB", "batch.max_bytes", "half of limits.memory"),
        ("BATCH__MAX_WAIT", "2m", "batch.max_wait", "limits.inference"),
        ("BATCH__MAX_WAITS", "2s", "batch.max_waits", "`batch.max_wait`"),
        ("COMMIT__MAX_BATCHES", "0", "commit.max_batches", "1 or more"),
        ("OUTPUT__TOP_K", "0", "output.top_k", "1 or more"),
        ("OUTPUT__INCLUDE", "{fields: [x, y, x]}", "output.include.fields", "names \"x\" twice"),
        ("MODEL__CHUNK_OVERLAP", "8", "model.chunk_overlap", "on_long: chunks"),
        ("LIMITS__DRAIN", "5s", "limits.drain", "a stop would give up"),
        ("LIMITS__TRANSACTION", "10s", "limits.transaction", "less than 10s"),
        ("LIMITS__MEMORY", "64", "limits.memory", "a size"),
        ("DEAD_LETTERS__MAX_RATIO", "1.5", "dead_letters.max_ratio", "no share"),
        ("DEAD_LETTERS__MAX_RATIO", ".nan", "dead_letters.max_ratio", "0.5"),
        ("DEAD_LETTERS__TOPIC", "out", "dead_letters.topic", "output.topic"),
        ("MANIFEST__TOPIC", "in-dlq", "manifest.topic", "of their own"),
        ("OUTPUT__TOPIC", "in", "output.topic", "for ever"),
        ("OUTPUT__TOPIC", "a/b", "output.topic", "'/' in the name"),
        ("INPUT__TOPICS", "a,a", "input.topics", "twice"),
        ("KAFKA__LANES", "17", "kafka.lanes", "1 to 16"),
        ("KAFKA__INSTANCE", "a b", "kafka.instance", "' '"),
        (
            "KAFKA__CONSUMER__ISOLATION_LEVEL",
            "x",
            "kafka.consumer.isolation.level",
            "read_committed",
        ),
        (
            "KAFKA__CONSUMER__PARTITION_ASSIGNMENT_STRATEGY",
            "range",
            "kafka.consumer.partition.assignment.strategy",
            "leave it out",
        ),
        ("KAFKA__MANIFEST_SCAN", "0s", "kafka.manifest_scan", "no manifest could"),
        ("MODEL__TAKEOVER_WAIT", "0ms", "model.takeover_wait", "ever be waited for"),
        ("MODEL__URI", "models:/a/b", "model.uri", "names no version"),
        ("MODEL__DEVICE", "gpu", "model.device", "`cuda:0`"),
        ("MODEL__DEVICE", "cuda:0,cuda:0", "model.device", "twice"),
        ("MODEL__DEVICE", "cpu,cuda:0", "model.device", "mixes kinds"),
        ("MODEL__DETERMINISM", "yes", "model.determinism", "strict"),
        ("MODEL__WORKERS", "0", "model.workers", "auto"),
        ("LOGGING__FILTER", "tidemill=loud", "logging.filter", "no filter"),
        ("TRACES__ENDPOINT", "grpc://otel:4317", "traces.endpoint", "does not begin with http://"),
        ("METRICS__ENDPOINT", "otel:4318", "metrics.endpoint", "does not begin with http://"),
        ("LOGGING__ENDPOINT", "http://u:pw@otel:4318", "logging.endpoint", "has a user before"),
        ("TRACES__ENDPOINT", "http://otel:4318?key=pw", "traces.endpoint", "has a query or"),
        ("LOG", "files", "log", "sqlite:FILE"),
        ("HTTP__LISTEN", "8080", "http.listen", "0.0.0.0:8080"),
    ] {
        let variable = format!("TIDEMILL_{variable}");
        let root = ("TIDEMILL_REGISTRY__ROOT", "/models");
        // Both manifest.topic and output.topic follow from output.topic.
        let manifest = ("TIDEMILL_MANIFEST__TOPIC", "batches");
        if key == "output.topic" {
            refused(&[(&variable, value), root, manifest], key, said);
        } else {
            refused(&[(&variable, value), root], key, said);
        }
    }
}

#[test]
fn the_newer_protocol_keeps_a_replicas_partitions() {
    for section in ["COMMON", "CONSUMER"] {
        let protocol = format!("TIDEMILL_KAFKA__{section}__GROUP_PROTOCOL");
        let given = [("TIDEMILL_KAFKA__ON_STOP", "leave"), (protocol.as_str(), "consumer")];
        refused(&given, "kafka.on_stop", "whatever it says when it goes");
        with(GOOD, &[given[0], (&protocol, "classic")]).unwrap();
        with(GOOD, &[given[1]]).unwrap();
    }
}

#[test]
fn a_variable_is_taken_as_it_is() {
    let password = |text: &str| {
        let config =
            with(GOOD, &[("TIDEMILL_KAFKA__COMMON__SASL_PASSWORD", text), ("A", "b")]).unwrap();
        config.kafka.common["sasl.password"].clone()
    };
    for text in [
        "pa${ss",
        "${env:A}",
        "${file:/dev/zero}",
        "012345",
        "1e5",
        "null",
        "~",
        "",
        "a # b",
        "'q'",
        "{",
        "[a",
        "*x",
    ] {
        assert_eq!(password(text), text);
    }
    let nested =
        "kafka: {group: g, common: {bootstrap.servers: 'b:1', sasl: {password: '${env:ABSENT}'}}}";
    let text =
        format!("{nested}\ninput: {{topics: [in]}}\noutput: {{topic: out}}\nmodel: {{uri: m}}");
    let config = with(&text, &[("TIDEMILL_KAFKA__COMMON__SASL_PASSWORD", "mine")]).unwrap();
    assert_eq!(config.kafka.common["sasl.password"], "mine", "what is overridden is not looked up");

    for (variable, text, key, value) in [
        ("MODEL__URI", "./a # b", "model.uri", json!("./a # b")),
        ("MODEL__URI", "'q'", "model.uri", json!("'q'")),
        ("MODEL__URI", "pa${ss", "model.uri", json!("pa${ss")),
        ("MODEL__URI", "012", "model.uri", json!("012")),
        ("DEAD_LETTERS__TOPIC", "null", "dead_letters.topic", json!(null)),
        ("DEAD_LETTERS__TOPIC", "", "dead_letters.topic", json!(null)),
        ("INPUT__TOPICS", "[a, 'b']", "input.topics", json!(["a", "b"])),
        ("DEAD_LETTERS__MAX_RATIO", "0.25", "dead_letters.max_ratio", json!(0.25)),
        ("OUTPUT__TOP_K", "3", "output.top_k", json!(3)),
    ] {
        let config = with(GOOD, &[(&format!("TIDEMILL_{variable}"), text)]).unwrap();
        let tree = serde_json::to_value(&config).unwrap();
        assert_eq!(tree::get(&tree, key), Some(&value), "{variable}={text}");
    }
    let text = "caf\u{fffd}";
    refused(
        &[("TIDEMILL_KAFKA__COMMON__SASL_PASSWORD", text)],
        "kafka.common.sasl.password",
        "not valid UTF-8",
    );
}

#[test]
fn properties_reach_the_client_as_they_were_written() {
    let text = "
kafka:
  group: g
  common:
    bootstrap: { servers: b:1 }
    sasl.password: 012345
    security: { protocol: sasl_ssl }
    socket.keepalive.enable: True
  consumer: { max.poll.interval.ms: 0300000 }
input: { topics: [in] }
output: { topic: out }
model: { uri: m }
";
    let config = with(text, &[]).unwrap();
    let settings = crate::kafka::settings::consumer(&config, "i", 1);
    for (name, value) in [
        ("bootstrap.servers", "b:1"),
        ("sasl.password", "012345"),
        ("security.protocol", "sasl_ssl"),
        ("socket.keepalive.enable", "True"),
        ("max.poll.interval.ms", "0300000"),
    ] {
        assert_eq!(settings.get(name), Some(value), "{name}");
    }
    for (line, key, said) in [
        (
            "sasl.password: ~",
            "sasl.password",
            "is nothing, which no property is; write a value, or leave",
        ),
        ("sasl.password:", "sasl.password", "quotes"),
        ("sasl.password: [hunter2]", "sasl.password", "separated by commas"),
        ("sasl: {}", "sasl", "is an empty map"),
        (
            "sasl.password: hunter2\n    sasl: { password: hunter3 }",
            "sasl.password",
            "stands there twice",
        ),
        ("sasl.password:hunter2: x", "sasl.password…", "is not a property"),
        ("sasl.password: { hunter2 }", "sasl.password…", "is nothing"),
        ("sasl.pasword: hunter2", "sasl.pasword", "did you mean `sasl.password`?"),
        ("linger.ms: 5", "linger.ms", "it is `0`"),
    ] {
        let text = text.replace("sasl.password: 012345", line);
        let problems = with(&text, &[]).expect_err(line);
        assert_eq!(problems.0[0].key, format!("kafka.common.{key}"), "{problems}");
        assert!(problems.0.len() == 1 && problems.to_string().contains(said), "{line}: {problems}");
        assert!(!problems.to_string().contains("hunter"), "{line}: {problems}");
    }
}

#[test]
fn secrets_are_put_in_and_never_shown() {
    let text = GOOD.replace("bootstrap.servers:", "sasl.password: '${env:PW}', bootstrap.servers:");
    let config = with(&text, &[("PW", "hunter2")]).unwrap();
    assert_eq!(config.kafka.common["sasl.password"], "hunter2");
    assert_eq!(config.secrets.redact("with hunter2"), "with (not shown)");
    assert!(!format!("{config:?}").contains("hunter2"));
    let problems = with(&text, &[]).unwrap_err().to_string();
    assert!(problems.contains("`${env:PW}` refers to a variable that"), "{problems}");

    // What stands in the file or in a variable is a secret by its name.
    for name in [
        "sasl.password",
        "ssl.key.password",
        "ssl.keystore.password",
        "ssl.key.pem",
        "sasl.oauthbearer.config",
    ] {
        let text =
            GOOD.replace("bootstrap.servers:", &format!("{name}: hunter2, bootstrap.servers:"));
        assert!(with(&text, &[]).unwrap().secrets.within("hunter2"), "{name}");
        let variable = format!("TIDEMILL_KAFKA__COMMON__{}", name.to_uppercase().replace('.', "_"));
        assert!(with(GOOD, &[(&variable, "hunter2")]).unwrap().secrets.within("hunter2"), "{name}");
    }
    assert!(!with(GOOD, &[]).unwrap().secrets.within("b:9092 is no secret"));
}

#[test]
fn what_is_shown_cannot_be_a_secret() {
    for (key, value) in [
        ("kafka.group", "'${env:PW}'"),
        ("kafka.instance", "'x-${env:PW}'"),
        ("input.topics", "['a', '${file:/etc/hostname}']"),
        ("output.topic", "'${env:PW}'"),
        ("output.include", "{fields: ['${env:PW}']}"),
        ("model.uri", "'/models/${env:PW}'"),
        ("registry.root", "'${env:PW}'"),
        ("batch.max_wait", "'${env:PW}'"),
        ("http.listen", "'0.0.0.0:${env:PORT}'"),
    ] {
        let (section, name) = key.split_once('.').unwrap();
        let text = format!("{section}: {{{name}: {value}}}");
        let problems = with(&text, &[("PW", "hunter2"), ("PORT", "8080")]).unwrap_err();
        let problem = problems.0.iter().find(|problem| problem.key == key).expect(key);
        assert!(problem.message.contains("no secret may stand here"), "{problem}");
        let variable = format!("TIDEMILL_{}__{}", section.to_uppercase(), name.to_uppercase());
        assert!(problem.remedy.contains(&variable), "{problem}");
        assert!(!problems.to_string().contains("hunter2"), "{problems}");
    }
    // A variable's value may have been meant for another key: its name stands in its place.
    for (variable, value, key) in [
        ("BATCH__MAX_WAIT", "hunter2", "batch.max_wait"),
        ("BATCH__MAX_RECORDS", "hunter2", "batch.max_records"),
        ("BATCH__WHEN_IDLE", "hunter2", "batch.when_idle"),
        ("HTTP__LISTEN", "hunter2", "http.listen"),
        ("OUTPUT__INCLUDE", "{hunter2: 1}", "output.include"),
        ("DEAD_LETTERS__TOPIC", "hunter2/x", "dead_letters.topic"),
        ("KAFKA__GROUP", "hunter 2", "kafka.group"),
        ("MODEL__DEVICE", "hunter2", "model.device"),
        ("MODEL__URI", "models:/hunter2", "model.uri"),
        ("LOGGING__FILTER", "hunter2=loud", "logging.filter"),
        ("LOG", "hunter2", "log"),
    ] {
        let variable = format!("TIDEMILL_{variable}");
        let problems =
            with(GOOD, &[(&variable, value), ("TIDEMILL_REGISTRY__ROOT", "/m")]).unwrap_err();
        assert_eq!(problems.0[0].key, key, "{problems}");
        assert!(!problems.to_string().contains("hunter"), "{problems}");
    }
}

#[test]
fn what_is_no_configuration_is_said_so() {
    for (text, said) in [
        ("- a\n- b\n", "holds no keys"),
        ("just words", "holds no keys"),
        ("a: [1, 2", "is not valid YAML"),
        ("kafka: {group: a}\nkafka: {group: b}\n", "the key `kafka` stands twice"),
        ("kafka: {group: \"a\n", "is not valid YAML"),
    ] {
        let problems = from_yaml(text).unwrap_err().to_string();
        assert!(problems.contains(said), "{text:?}: {problems}");
    }
    let absent = load(Some(Path::new("absent.yaml")), std::iter::empty()).unwrap_err().to_string();
    assert!(absent.contains("absent.yaml") && absent.contains("--config"), "{absent}");
}

#[test]
fn the_state_has_a_folder_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir_all(place("models/sentiment")).unwrap();
    std::fs::write(place("file"), "").unwrap();
    std::os::unix::fs::symlink(place("models"), place("link")).unwrap();
    let root = ("TIDEMILL_REGISTRY__ROOT", place("models"));
    let given = |dir: &str| with(GOOD, &[(root.0, &root.1), ("TIDEMILL_STATE__DIR", &place(dir))]);
    for (dir, said) in [
        ("models", "is in the registry"),
        ("models/sentiment", "is in the registry"),
        ("link", "is in the registry"),
        ("file", "is not a folder"),
    ] {
        let problems = given(dir).expect_err(dir);
        assert!(
            problems.0[0].key == "state.dir" && problems.to_string().contains(said),
            "{problems}"
        );
    }
    for dir in ["state", ".", "models-state"] {
        given(dir).unwrap();
    }
}

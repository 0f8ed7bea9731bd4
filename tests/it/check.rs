//! `tidemill check` against a real broker: what it sees of the topics, the group and the addresses.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

use crate::broker::Broker;
use crate::world::World;

/// Exit code and lines of `check`, each finding in one line.
fn check(config: &Path, env: &[(&str, &str)]) -> (Option<i32>, Vec<String>) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["check", "--config"])
        .arg(config)
        .envs(env.iter().copied())
        .env_remove("POD_NAME")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap().replace("\n         ", "; ");
    (output.status.code(), said.lines().map(str::to_owned).collect())
}

/// Exactly one of the lines begins so, and has this in it.
#[track_caller]
fn says(lines: &[String], begin: &str, has: &str) {
    let found: Vec<&String> =
        lines.iter().filter(|line| line.starts_with(begin) && line.contains(has)).collect();
    assert_eq!(found.len(), 1, "{begin:?} with {has:?} in {lines:#?}");
}

fn create(world: &World, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = world.client().create().unwrap();
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let made = runtime.block_on(admin.create_topics(&[topic], &AdminOptions::new())).unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

/// A newcomer needs no other tool: what is not there is created, a job runs on it, and its lag is told.
#[test]
fn topics_that_are_not_there_are_created() {
    let Some(world) = World::start(1) else { return };
    world.add_version(1);
    world.promote(1);
    let config = world.config("a", "");
    let text = std::fs::read_to_string(&config).unwrap();
    let text =
        text.replace("topics: [in]", "topics: [fresh]").replace("topic: out", "topic: answers");
    std::fs::write(&config, text).unwrap();
    let tidemill = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        let output = command.args(args).arg("--config").arg(&config).output().unwrap();
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
        (output.status.code(), said.concat())
    };
    let (code, said) = tidemill(&["check"]);
    assert_eq!(code, Some(78));
    assert!(
        said.contains("`tidemill check --create-topics` creates it, and so does: kafka-topics.sh"),
        "{said}"
    );
    let (code, said) = tidemill(&["check", "--create-topics", "--partitions", "3"]);
    assert_eq!(code, Some(0), "{said}");
    for line in [
        "fresh: created, with 3",
        "answers: created, with 3",
        "fresh-dlq: created, with 3",
        "input topic fresh: 3",
    ] {
        assert!(said.contains(line), "{line} in\n{said}");
    }
    let (code, said) = tidemill(&["check", "--create-topics"]);
    assert!(code == Some(0) && !said.contains("created"), "{said}");
    let (code, said) = tidemill(&["run", "--until-end"]);
    assert!(code == Some(0) && said.contains("done: 0 records answered"), "{said}");
    let (code, said) = tidemill(&["lag", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &told["lag"]), (Some(0), &0.into()), "{said}");
    assert_eq!(told["partitions"].as_array().unwrap().len(), 3);
}

#[test]
fn topics_the_group_and_the_broker_are_looked_at() {
    let Some(world) = World::start(2) else { return };
    world.add_version(1);
    world.promote(1);
    let state = world.dir.path().join("state");
    let extra = format!("state: {{ dir: {} }}", state.display());
    let (code, lines) = check(&world.config("a", &extra), &[]);
    assert_eq!(code, Some(0), "{lines:#?}");
    says(&lines, "ok       replica: a", "");
    says(&lines, "ok       kafka at 127.0.0.1:", "1 broker of cluster");
    says(&lines, "ok       broker version:", "Apache Kafka 4.");
    says(&lines, "ok       input topic in:", "2 partitions, kept 7 days");
    says(&lines, "ok       output topic out:", "2 partitions");
    says(&lines, "ok       committed offsets:", "7 days");
    says(&lines, "ok       group g:", "no members");
    says(&lines, "ok       model:", "lin");
    // The topics have the broker's defaults.
    says(&lines, "warning  dead-letter topic in-dlq:", "max.message.bytes=1064972");
    says(&lines, "warning  manifest topic out-manifest:", "for 7 days only");
    let warnings = lines.iter().filter(|line| line.starts_with("warning")).count();
    assert_eq!(warnings, 2, "{lines:#?}");
    topics_that_refuse_or_lose(&world);
    what_is_proposed(&world, &extra);
    what_is_wrong_with_the_replica(&world, &extra);
}

fn topics_that_refuse_or_lose(world: &World) {
    create(
        world,
        "b",
        2,
        &[
            ("message.timestamp.after.max.ms", "9223372036854775807"),
            ("max.message.bytes", "30000000"),
        ],
    );
    create(
        world,
        "b-out",
        1,
        &[("cleanup.policy", "compact"), ("message.timestamp.before.max.ms", "86400000")],
    );
    create(world, "b-dlq", 2, &[("cleanup.policy", "compact")]);
    create(world, "b-out-manifest", 1, &[("retention.ms", "3600000")]);
    let env = [
        ("TIDEMILL_INPUT__TOPICS", "b"),
        ("TIDEMILL_OUTPUT__TOPIC", "b-out"),
        ("TIDEMILL_KAFKA__ON_MISSING_OFFSET", "start"),
    ];
    let (code, lines) = check(&world.config("a", ""), &env);
    assert_eq!(code, Some(78), "{lines:#?}");
    says(&lines, "warning  state.dir:", "comes again at each start");
    says(&lines, "problem  output topic b-out:", "--alter --topic b-out --partitions 2");
    says(&lines, "warning  output topic b-out:", "is compacted");
    says(&lines, "warning  output topic b-out:", "1 day older");
    says(&lines, "warning  output topic b-out:", "1 hour newer");
    says(&lines, "warning  dead-letter topic b-dlq:", "is compacted");
    says(&lines, "warning  dead-letter topic b-dlq:", "max.message.bytes=30016384");
    says(&lines, "warning  manifest topic b-out-manifest:", "for 1 hour only");
    says(&lines, "problem  limits.memory:", "write 86MiB or more");
    says(&lines, "warning  committed offsets:", "whatever it has answered");
}

/// What check proposes is what it wants.
fn what_is_proposed(world: &World, extra: &str) {
    let env = [
        ("TIDEMILL_INPUT__TOPICS", "b"),
        ("TIDEMILL_OUTPUT__TOPIC", "c"),
        ("TIDEMILL_LIMITS__MEMORY", "128MiB"),
    ];
    let (_, lines) = check(&world.config("a", extra), &env);
    says(
        &lines,
        "problem  output topic c:",
        "--create --topic c --partitions 2 --config message.timestamp.after.max.ms=9223372036854775807",
    );
    says(
        &lines,
        "problem  manifest topic c-manifest:",
        "--create --topic c-manifest --partitions 1 --config retention.ms=2592000000",
    );
}

fn what_is_wrong_with_the_replica(world: &World, extra: &str) {
    // A rule between properties that only librdkafka knows.
    let env = [("TIDEMILL_KAFKA__COMMON__SOCKET_TIMEOUT_MS", "60000")];
    let (code, lines) = check(&world.config("a", extra), &env);
    assert_eq!(code, Some(78), "{lines:#?}");
    says(&lines, "problem  kafka producer:", "`socket.timeout.ms` must be set <=");

    let (code, lines) = check(
        &world.config("a", extra),
        &[("TIDEMILL_KAFKA__INSTANCE", "null"), ("HOSTNAME", "no name")],
    );
    assert_eq!(code, Some(78), "{lines:#?}");
    says(&lines, "problem  replica:", "by $HOSTNAME: Kafka does not take ' '");
}

/// Bootstrap answers, and names an address that nobody reaches.
#[test]
fn an_advertised_address_that_is_not_reached_is_a_problem() {
    for (host, has) in
        [("nowhere.invalid", "cannot be resolved"), ("127.0.0.1", "connect to 127.0.0.1")]
    {
        // A port that nobody listens on.
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let properties = format!("advertised.listeners=PLAINTEXT://{host}:{closed}");
        let Some(broker) = Broker::start_with(&[("KAFKA_PROPS", &properties)]) else { return };
        let real = std::fs::read_to_string(broker.home.join("1/server.properties")).unwrap();
        let (_, real) = real.split_once("listeners=PLAINTEXT://").unwrap();
        let (real, _) = real.split_once(',').unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.yaml");
        let text = format!(
            "kafka: {{ group: g, instance: a, common: {{ bootstrap.servers: '{real}' }} }}\ninput: {{ topics: [in] }}\n\
             output: {{ topic: out }}\nmodel: {{ uri: {} }}\n",
            dir.path().display()
        );
        std::fs::write(&file, text).unwrap();
        let (code, lines) = check(&file, &[]);
        assert_eq!(code, Some(78), "{lines:#?}");
        says(&lines, &format!("problem  broker 1 at {host}:{closed}:"), has);
        says(&lines, &format!("problem  broker 1 at {host}:{closed}:"), "advertised.listeners");
    }
}

/// Whatever needs no cluster and no model is refused by `check --offline` as by a start, in the same words.
#[test]
fn what_a_start_refuses_is_refused_offline() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, good) = crate::commands::prepared(folder.path());
    let place = |name: &str| folder.path().join(name);
    std::fs::write(place("row.avsc"), r#"{"type": "record"}"#).unwrap();
    std::fs::write(place("row.proto"), "message A {} message B {}").unwrap();
    std::fs::write(place("tokens"), "").unwrap();
    let config = place("c.yaml");
    let tidemill = |text: &str, args: &[&str]| {
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args(args).arg("--config").arg(&config).current_dir(folder.path());
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
        (output.status.code(), said.concat())
    };
    let (check, run) = (&["check", "--offline"][..], &["run", "--until-end"][..]);
    for args in [check, run] {
        let (code, said) = tidemill(&good, args);
        assert_eq!(code, Some(0), "{args:?}: {said}");
    }
    let input = |more: &str| good.replace("topics: [in]", &format!("topics: [in], {more}"));
    let output = |more: &str| good.replace("topic: out", &format!("topic: out, {more}"));
    let model = |more: &str| good.replace("poll: 1h", &format!("poll: 1h, {more}"));
    let beside = |more: &str| format!("{good}{more}\n");
    for (text, word) in [
        (input("format: avro, schema: gone.avsc"), "input.schema gone.avsc"),
        (input("format: avro, schema: row.avsc"), "is not a valid Avro schema"),
        (input("format: protobuf, schema: row.proto"), "several messages"),
        (input("schema: row.avsc"), "no value is read by it"),
        (input("key: {format: avro, schema: gone.avsc, field: k}"), "input.key.schema gone.avsc"),
        (input("key: {schema: row.avsc}"), "no key is read by it"),
        (output("cloud_events: {source: '<a>', type: t}"), "no reference to a URI"),
        (model("on_long: chunks, chunk_overlap: 9, max_length: 16"), "model.chunk_overlap"),
        (beside("schema_registry: {urls: ['a:8081']}"), "a:8081"),
        (beside("schema_registry: {urls: ['http://a:8081'], ca: gone.pem}"), "gone.pem"),
        (beside("admin: {token_file: gone}"), "admin.token_file gone"),
        (beside("admin: {token_file: tokens}"), "admin.token_file tokens"),
        (beside("traces: {endpoint: 'a:4318'}"), "traces.endpoint: does not begin with http://"),
    ] {
        assert_ne!(text, good);
        for args in [check, run] {
            let (code, said) = tidemill(&text, args);
            assert!(code == Some(78) && said.contains(word), "{args:?} {word}: {code:?} {said}");
        }
    }
}

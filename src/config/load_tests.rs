//! Tables: what a file or a variable gives, and what is said of each mistake.

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
    build(text, "test.yaml", Path::new(""), &vars(pairs))
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
        ("kafka.common.acks", "transactions need `all`"),
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
            ("TIDEMILL_KAFKA__PRODUCER__LINGER_MS", "5"),
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
    assert_eq!(config.kafka.producer["linger.ms"], "5");
    assert_eq!(config.input.topics, ["a", "b"]);
    assert_eq!(config.model.workers, crate::config::Workers::Count(4));
    assert_eq!(config.output.include, crate::config::Include::Fields(vec!["x".to_owned()]));
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
        ("MODEL__URI", "models:/a/b", "model.uri", "names no version"),
        ("MODEL__DEVICE", "gpu", "model.device", "`cuda:0`"),
        ("MODEL__DEVICE", "cuda:0,cuda:0", "model.device", "twice"),
        ("MODEL__DEVICE", "cpu,cuda:0", "model.device", "mixes kinds"),
        ("MODEL__DETERMINISM", "yes", "model.determinism", "strict"),
        ("MODEL__WORKERS", "0", "model.workers", "auto"),
        ("LOGGING__FILTER", "tidemill=loud", "logging.filter", "no filter"),
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
fn secrets_are_put_in_and_never_shown() {
    let secret = [("PW", "hunter2")];
    let text = format!("{GOOD}\nregistry: {{root: '${{env:PW}}/x'}}");
    let config = with(&text, &secret).unwrap();
    assert_eq!(config.registry.root.as_deref(), Some(Path::new("hunter2/x")));

    let text = format!("{GOOD}\nbatch: {{max_wait: '${{env:PW}}', max_bytes: '${{env:NO}}'}}");
    let problems = with(&text, &secret).unwrap_err().to_string();
    assert!(!problems.contains("hunter2") && problems.contains("not shown"), "{problems}");
    assert!(problems.contains("no variable NO"), "{problems}");

    let text = GOOD.replace("topic: out", "topic: '${env:PW}'");
    let problems = with(&text, &[("PW", "hunter/2")]).unwrap_err().to_string();
    assert!(!problems.contains("hunter/2") && problems.contains("(not shown)"), "{problems}");

    let text = GOOD.replace("bootstrap.servers:", "sasl.password: '${env:PW}', bootstrap.servers:");
    let config = with(&text, &secret).unwrap();
    assert_eq!(config.kafka.common["sasl.password"], "hunter2");
}

#[test]
fn what_is_no_configuration_is_said_so() {
    for (text, said) in [
        ("- a\n- b\n", "holds no keys"),
        ("just words", "holds no keys"),
        ("a: [1, 2", "is no YAML"),
        ("kafka: {group: a}\nkafka: {group: b}\n", "uplicate"),
        ("kafka: {group: \"a\n", "is no YAML"),
    ] {
        let problems = from_yaml(text).unwrap_err().to_string();
        assert!(problems.contains(said), "{text:?}: {problems}");
    }
    let absent = load(Some(Path::new("absent.yaml")), std::iter::empty()).unwrap_err().to_string();
    assert!(absent.contains("absent.yaml") && absent.contains("--config"), "{absent}");
}

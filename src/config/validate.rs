//! Rules between keys: what is required, what contradicts what, and what would follow from it.

use std::collections::BTreeSet;
use std::path::Path;

use super::properties::{self, Section};
use super::{
    Config, InputFormat, KeyFormat, Log, OnStop, Problem, Time, UnknownFields, Unwrap, Uri,
    Workers, collector_address, identity, topics, tree,
};
use crate::answer::Scores;

/// After so long the broker aborts a transaction by itself: `transaction.timeout.ms`.
pub const TRANSACTION_TIMEOUT: Time = Time::millis(15_000);

/// What is kept of [`TRANSACTION_TIMEOUT`] to learn a transaction's outcome.
const MARGIN: Time = Time::millis(5_000);

/// Most lanes: each is a producer with its threads and buffers.
const MAX_LANES: u16 = 16;

/// What is wrong with `config` beyond each key's own form.
pub fn problems(config: &Config) -> Vec<Problem> {
    let mut found = Found(Vec::new());
    required(config, &mut found);
    zeros(config, &mut found);
    contradictions(config, &mut found);
    roles(config, &mut found);
    kafka(config, &mut found);
    state(config, &mut found);
    collectors(config, &mut found);
    found.0
}

struct Found(Vec<Problem>);

impl Found {
    fn add(&mut self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Problem::new(key, message, remedy));
    }

    fn when(&mut self, wrong: bool, key: &str, message: &str, remedy: &str) {
        if wrong {
            self.add(key, message, remedy);
        }
    }
}

fn required(config: &Config, found: &mut Found) {
    let missing = "is required and not set";
    if config.log == Log::Kafka {
        let servers = properties::servers(&config.kafka).is_none();
        let remedy = "write host:port of a broker, or `log: sqlite:FILE` for the embedded log";
        found.when(servers, "kafka.common.bootstrap.servers", missing, remedy);
        let remedy = "name the consumer group; replicas of one service share it";
        found.when(config.kafka.group.is_empty(), "kafka.group", missing, remedy);
    }
    let remedy = "list the topics to read: `[reviews]`";
    found.when(config.input.topics.is_empty(), "input.topics", missing, remedy);
    let remedy = "name the topic that predictions go to";
    found.when(config.output.topic.is_empty(), "output.topic", missing, remedy);
    found.when(config.model.uri.is_empty(), "model.uri", missing, Uri::FORM);
    if !matches!(config.model.uri, Uri::Directory(_)) {
        let message = "is required for a model.uri that begins with `models:/`, and not set";
        let remedy = "write the directory that holds <name>/<version>/…";
        found.when(config.registry.root.is_none(), "registry.root", message, remedy);
    }
}

fn collectors(config: &Config, found: &mut Found) {
    for (key, endpoint) in [
        ("traces.endpoint", &config.traces.endpoint),
        ("metrics.endpoint", &config.metrics.endpoint),
        ("logging.endpoint", &config.logging.endpoint),
    ] {
        if let Some(Err((wrong, remedy))) = endpoint.as_deref().map(collector_address) {
            found.add(key, wrong, remedy);
        }
    }
}

fn zeros(config: &Config, found: &mut Found) {
    let Config { batch, commit, limits, model, .. } = config;
    let none = "is 0: no batch could ever hold a record";
    found.when(batch.max_records == 0, "batch.max_records", none, "write 1 or more");
    found.when(batch.max_bytes.0 == 0, "batch.max_bytes", none, "write 1KiB or more");
    found.when(batch.max_tokens == 0, "batch.max_tokens", none, "write 1 or more");
    let none = "is 0: nothing could ever be committed";
    found.when(commit.max_batches == 0, "commit.max_batches", none, "write 1 or more");
    let none = "is 0: a classification would carry no score";
    found.when(config.output.top_k == Some(0), "output.top_k", none, "write 1 or more, or null");
    let window = config.dead_letters.window == 0;
    found.when(window, "dead_letters.window", "is 0: no share can be taken", "write 1 or more");
    let none = "is 0: everything would be over it at once";
    for (key, time) in [
        ("limits.inference", limits.inference),
        ("limits.transaction", limits.transaction),
        ("limits.drain", limits.drain),
    ] {
        found.when(time.0.is_zero(), key, none, "write a duration such as `8s`");
    }
    let none = "is 0: no partition could ever be waited for";
    found.when(
        model.takeover_wait.0.is_zero(),
        "model.takeover_wait",
        none,
        "write a duration such as `60s`",
    );
    let none = "is 0: no manifest could ever be read";
    let scan = config.kafka.manifest_scan.0.is_zero();
    found.when(scan, "kafka.manifest_scan", none, "write a duration such as `5m`");
    let none = "is 0: no record could be in flight";
    found.when(limits.memory.0 == 0, "limits.memory", none, "write a size such as `64MiB`");
    let none = "is 0: the registry would be read without a pause";
    found.when(model.poll.0.is_zero(), "model.poll", none, "write a duration such as `10s`");
    let none = model.workers == Workers::Count(0);
    found.when(
        none,
        "model.workers",
        "is 0: nothing would be inferred",
        "write 1 or more, or `auto`",
    );
    let idle = model.chunk_overlap != 0 && !model.on_long.cuts();
    found.when(
        idle,
        "model.chunk_overlap",
        "is about windows, and by model.on_long no text is cut into such",
        "write `on_long: chunks` or `mean`, or leave it out",
    );
    if let Some(longest) = model.max_length.filter(|longest| longest / 2 < model.chunk_overlap) {
        let message = format!(
            "is {}, more than half of model.max_length, {longest}: windows would hardly move on",
            model.chunk_overlap
        );
        found.add("model.chunk_overlap", message, format!("write at most {}", longest / 2));
    }
    let none = model.max_length == Some(0);
    found.when(none, "model.max_length", "is 0: every text would be too long", "write 1 or more");
}

fn contradictions(config: &Config, found: &mut Found) {
    let Config { batch, limits, dead_letters, .. } = config;
    let most = Time(TRANSACTION_TIMEOUT.0.saturating_sub(MARGIN.0));
    if limits.transaction >= most {
        found.add(
            "limits.transaction",
            format!(
                "is {}: the broker aborts a transaction after {TRANSACTION_TIMEOUT} by itself, and {MARGIN} of \
                 that are kept to learn its outcome",
                limits.transaction
            ),
            format!("write less than {most}"),
        );
    }
    if limits.drain < limits.transaction {
        found.add(
            "limits.drain",
            format!(
                "is {}, less than limits.transaction, {}: a stop would give up a transaction that may still be \
                 answered",
                limits.drain, limits.transaction
            ),
            "write more than limits.transaction, and less than terminationGracePeriodSeconds",
        );
    }
    if batch.max_bytes.0 > limits.memory.0 / 2 {
        found.add(
            "batch.max_bytes",
            format!(
                "is {}, more than half of limits.memory, {}: no batch could be prepared while another is \
                 computed",
                batch.max_bytes, limits.memory
            ),
            "lower it, or raise limits.memory to at least twice as much",
        );
    }
    for (key, wait) in
        [("batch.max_wait", batch.max_wait), ("commit.max_wait", config.commit.max_wait)]
    {
        if wait > limits.inference {
            found.add(
                key,
                format!(
                    "is {wait}, longer than limits.inference, {}: a record would wait longer than a batch may \
                     be in the model before the process counts as stuck",
                    limits.inference
                ),
                "lower it, or raise limits.inference",
            );
        }
    }
    if !(0.0..=1.0).contains(&dead_letters.max_ratio) {
        found.add(
            "dead_letters.max_ratio",
            format!("is {}, which is no share", dead_letters.max_ratio),
            "write a number from 0 (none is allowed) to 1 (never stop)",
        );
    }
    let parsed = tracing_subscriber::EnvFilter::try_new(&config.logging.filter);
    if let Err(error) = parsed {
        let message = format!("{:?} is no filter: {error}", config.logging.filter);
        found.add("logging.filter", message, "write `info` or `tidemill=debug,rdkafka=info`");
    }
}

fn roles(config: &Config, found: &mut Found) {
    let inputs = &config.input.topics;
    let mut seen = BTreeSet::new();
    for input in inputs {
        name("input.topics", input, found);
        if !seen.insert(input) {
            let message = format!("has {input:?} twice: it would be read once all the same");
            found.add("input.topics", message, "leave one of them out");
        }
    }
    if inputs.len() > usize::from(u16::MAX) {
        found.add("input.topics", "has more than 65535 topics", "split the service");
    }
    let output = &config.output.topic;
    let dead: BTreeSet<String> =
        inputs.iter().map(|input| config.dead_letter_topic(input)).collect();
    let manifest = config.manifest_topic();
    if !output.is_empty() {
        name("output.topic", output, found);
        name("manifest.topic", &manifest, found);
        let message =
            format!("{output:?} is also read: its predictions would be predicted again, for ever");
        if inputs.contains(output) {
            found.add("output.topic", message, "write to a topic that input.topics does not have");
        }
    }
    for dead in &dead {
        name("dead_letters.topic", dead, found);
        let taken = if inputs.contains(dead) {
            "input.topics"
        } else if dead == output {
            "output.topic"
        } else {
            continue;
        };
        let message =
            format!("{dead:?} is also in {taken}: dead letters would be taken for records");
        found.add("dead_letters.topic", message, "give dead letters a topic of their own");
    }
    if inputs.contains(&manifest) || manifest == *output || dead.contains(&manifest) {
        let message = format!("{manifest:?} has another use: manifests would be taken for records");
        found.add("manifest.topic", message, "give manifests a topic of their own");
    }
    if config.input.pair_field == config.input.field {
        let message =
            format!("is {:?}, as input.field: one field cannot hold two texts", config.input.field);
        found.add("input.pair_field", message, "name another field");
    }
    formats(config, found);
    published(config, found);
    included(config, found);
}

/// The fields that go along.
fn included(config: &Config, found: &mut Found) {
    let super::Include::Fields(names) = &config.output.include else { return };
    let key = "output.include.fields";
    if names.is_empty() {
        found.add(key, "is empty", "list fields, or write `include: none`");
    }
    let mut seen = BTreeSet::new();
    if let Some(name) = names.iter().find(|name| !seen.insert(*name)) {
        let message = format!("names {name:?} twice: an object has one member of a name");
        found.add(key, message, "name it once");
    }
}

/// Names of what is published, and forms that go together.
fn published(config: &Config, found: &mut Found) {
    let output = &config.output;
    let word = |name: &str| {
        let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        first && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let avro = output.format == super::OutputFormat::Avro;
    let mut parts = BTreeSet::new();
    for (name, part) in &output.fields {
        let taken: &[&str] = match &output.include {
            super::Include::None => &[],
            super::Include::Key => &["key", "key_base64"],
            super::Include::Fields(_) | super::Include::All => &["input"],
        };
        if taken.contains(&name.as_str()) || avro && ["key", "input"].contains(&name.as_str()) {
            let message =
                format!("names {name:?}, under which stands what goes along of the record");
            found.add("output.fields", message, "give it another name");
        } else if name.is_empty() || avro && !word(name) {
            let message = format!("names {name:?}, which cannot be the name of a field");
            found.add("output.fields", message, "use letters, digits and _, and no digit first");
        }
        if !parts.insert(part) {
            let message = format!("names {} twice", part.name());
            found.add("output.fields", message, "leave one of them out");
        }
    }
    let super::CloudEvents { source, kind } = &output.cloud_events;
    if source.is_some() != kind.is_some() {
        let message = "source and type belong together, and one of them is missing";
        found.add("output.cloud_events", message, "set both, or none");
    }
    let blank = |text: &&String| text.is_empty() || text.contains(char::is_whitespace);
    let blank = source
        .iter()
        .chain(kind)
        .find(blank)
        .map(|text| (text, "is empty or has white space in it"));
    let no_reference = source.as_ref().filter(|source| !is_reference(source));
    let no_reference = no_reference.map(|text| (text, "is no reference to a URI (RFC 3986)"));
    if let Some((text, wrong)) = blank.or(no_reference) {
        let message = format!("has {text:?}, which {wrong}");
        let remedy = "write a URI reference as source, such as `/payments/scores`, and a name as type, such as \
                      `com.example.payment.scored`";
        found.add("output.cloud_events", message, remedy);
    }
    if output.top_k.is_some() && output.scores_format == Scores::Array {
        let message = "is array, the scores of all labels in their order, and output.top_k is set";
        found.add("output.scores_format", message, "write `map`, or leave output.top_k out");
    }
}

/// Whether a text has the characters of a reference to a URI only, and their numbers where it has a `%`.
fn is_reference(text: &str) -> bool {
    let mut bytes = text.bytes();
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=".contains(&byte);
    let digit =
        |bytes: &mut std::str::Bytes<'_>| bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit());
    while let Some(byte) = bytes.next() {
        let is = if byte == b'%' { digit(&mut bytes) && digit(&mut bytes) } else { plain(byte) };
        if !is {
            return false;
        }
    }
    text.matches('#').count() < 2
}

fn formats(config: &Config, found: &mut Found) {
    let (input, registry) = (&config.input, &config.schema_registry);
    let has =
        |format| input.format == format || input.formats.values().any(|other| *other == format);
    if let Some(topic) = input.formats.keys().find(|topic| !input.topics.contains(topic)) {
        let message = format!("names {topic:?}, which is not one of input.topics");
        found.add("input.formats", message, "name a topic that is read, or leave it out");
    }
    let (avro, protobuf) = (has(InputFormat::Avro), has(InputFormat::Protobuf));
    let packed = has(InputFormat::MessagePack) || has(InputFormat::Cbor);
    // By their headers records may be of every format.
    let any = input.format_header.is_some();
    if input.format_header.as_deref().is_some_and(|header| header.trim().is_empty()) {
        found.add("input.format_header", "is empty", "name a header, such as `content-type`");
    }
    if !has(InputFormat::Json) && !avro && !protobuf && !packed && !any {
        let message = "is about fields, and by input.format every value is one field";
        let fix = "leave it out, or write `format: json`";
        if !input.fields.is_empty() {
            found.add("input.fields", message, fix);
        }
        if !matches!(input.unwrap, Unwrap::None | Unwrap::CloudEvents) {
            found.add("input.unwrap", message, fix);
        }
    }
    found.when(
        packed && matches!(input.unwrap, Unwrap::Connect | Unwrap::Debezium),
        "input.unwrap",
        "is an envelope of JSON, Avro or Protobuf, and input.format or input.formats is messagepack or cbor",
        "leave it out, or say by input.fields where the fields stand, such as `{age: /after/age}`",
    );
    keys(config, found);
    let idle = input.schema.is_some() && !avro && !protobuf && !any;
    found.when(
        idle,
        "input.schema",
        "is set, and by input.format and input.formats no value is read by it",
        "write `format: avro` or `format: protobuf`, or leave it out",
    );
    if (avro || protobuf) && registry.urls.is_empty() && input.schema.is_none() {
        let format = if avro { "avro" } else { "protobuf" };
        let message = format!("is {format}, and nothing says by which schema values were written");
        found.add("input.format", message, "set schema_registry.urls, or input.schema to a file");
    }
    if input.message.is_some() && !((protobuf || any) && input.schema.is_some()) {
        let message = "names a message of Protobuf, and no input.schema of Protobuf has it";
        found.add("input.message", message, "leave it out, or set input.schema to the .proto file");
    }
    if (avro || protobuf || any)
        && input.unwrap == Unwrap::Debezium
        && input.unknown_fields == UnknownFields::Reject
    {
        let message = "is reject, which is not known of Avro and Protobuf in Debezium's envelope";
        found.add("input.unknown_fields", message, "write `ignore`, or leave input.unwrap out");
    }
    if registry.token.is_some() && registry.username.is_some() {
        let message = "is set beside username: a request bears one of the two";
        found.add("schema_registry.token", message, "leave one of them out");
    }
    if registry.username.is_some() != registry.password.is_some() {
        let message = "username and password belong together, and one of them is missing";
        found.add("schema_registry.username", message, "set both, or none");
    }
}

/// What is taken from beside a value.
fn keys(config: &Config, found: &mut Found) {
    let (input, key) = (&config.input, &config.input.key);
    let mut seen: BTreeSet<&String> = input.fields.keys().collect();
    for name in input.beside() {
        if !seen.insert(name) {
            let message = format!(
                "say twice where the field {name:?} stands, or once in input.fields: a field has one place"
            );
            found.add("input.key, headers and record", message, "leave one of them out");
        }
    }
    if let Some((field, _)) = input.headers.iter().find(|(_, header)| header.trim().is_empty()) {
        let message = format!("says that the field {field:?} stands in a header without a name");
        found.add("input.headers", message, "name the header, such as `{source: x-source}`");
    }
    if key.format == KeyFormat::Text && !key.fields.is_empty() {
        let message = "are in a key that is text, which has no fields";
        found.add(
            "input.key.fields",
            message,
            "name the field that the whole key is in input.key.field",
        );
    }
    let idle = key.schema.is_some() && key.format != KeyFormat::Avro;
    found.when(
        idle,
        "input.key.schema",
        "is set, and by input.key.format no key is read by it",
        "write `format: avro` under input.key, or leave it out",
    );
    if key.format == KeyFormat::Avro
        && config.schema_registry.urls.is_empty()
        && key.schema.is_none()
    {
        let message = "is avro, and nothing says by which schema keys were written";
        found.add(
            "input.key.format",
            message,
            "set schema_registry.urls, or input.key.schema to a file",
        );
    }
}

fn name(key: &str, name: &str, found: &mut Found) {
    if let Some(wrong) = topics::not_a_name(name) {
        found.add(key, format!("Kafka does not take {wrong}"), format!("use {}", topics::NAMES));
    }
}

fn kafka(config: &Config, found: &mut Found) {
    let kafka = &config.kafka;
    if kafka.lanes == 0 || kafka.lanes > MAX_LANES {
        let message =
            format!("is {}: each lane is a producer with threads of its own", kafka.lanes);
        found.add("kafka.lanes", message, format!("write 1 to {MAX_LANES}"));
    }
    if !kafka.group.is_empty() {
        name("kafka.group", &kafka.group, found);
    }
    if let Some(instance) = &kafka.instance {
        name("kafka.instance", instance, found);
    }
    if kafka.on_stop == OnStop::Leave && properties::group_protocol_is_the_brokers(kafka) {
        let message = "is `leave`, and group.protocol is `consumer`, in which the broker keeps a replica's partitions \
                       for it until its session expires, whatever it says when it goes";
        let remedy = "write `stay`, or leave group.protocol out";
        found.add("kafka.on_stop", message, remedy);
    }
    found.0.extend(identity::problems(kafka));
    for section in Section::ALL {
        for (property, value) in section.of(kafka) {
            if let Some((message, remedy)) = properties::refusal(kafka, section, property, value) {
                let key = tree::shown(&format!("{}.{property}", section.key()));
                found.add(&key, message, remedy);
            }
        }
    }
}

/// The folder of the state is for this replica alone.
fn state(config: &Config, found: &mut Found) {
    let Some(dir) = &config.state.dir else { return };
    // What is there already may be reached by two names; what is not has only one.
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let dir_is = real(dir);
    if let Some(root) = &config.registry.root
        && dir_is.starts_with(real(root))
    {
        let message = "is in the registry, where every folder is a model that all replicas read";
        found.add("state.dir", message, "name a folder of its own");
    }
    if dir.exists() && !dir.is_dir() {
        found.add(
            "state.dir",
            "is there, but is not a folder",
            "name a folder, or a path that is free",
        );
    }
}

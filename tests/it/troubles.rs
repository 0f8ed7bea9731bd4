//! Troubles that are planted on a real broker, and found as an operator would: by the page's sentence and warnings, by the
//! series that the alerts look at, by `tidemill lag`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use serde_json::Value;

use crate::broker::Broker;
use crate::page::http;
use crate::tokens;
use crate::world::{Column, GOOD, Replica, World, wait_for};

const EXTRA: &str = "batch: { max_wait: 10ms }\nlogging: { format: json }";

/// A replica that logs in JSON, and where its page is.
pub(crate) struct Watched {
    pub(crate) replica: Replica,
    address: SocketAddr,
}

impl Watched {
    pub(crate) fn start(config: &Path) -> Self {
        let replica = Replica::start(config, &[]);
        let address = wait_for("the address", || {
            let log = std::fs::read_to_string(config.with_extension("log")).ok()?;
            let lines =
                log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut addresses = lines.filter_map(|line| line["address"].as_str()?.parse().ok());
            addresses.next()
        });
        Self { replica, address }
    }

    fn get(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        http(self.address, &request).1
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.get("/api/status")).unwrap()
    }

    /// Waits until the first sentence begins so; the whole answer.
    #[track_caller]
    pub(crate) fn says(&self, sentence: &str) -> Value {
        let mut last = String::new();
        let told = || {
            let status = self.status();
            status["sentence"].as_str().unwrap().clone_into(&mut last);
            last.starts_with(sentence).then_some(status)
        };
        wait_for(sentence, told)
    }

    /// Waits until something to look at begins so.
    #[track_caller]
    pub(crate) fn warns(&self, warning: &str) {
        wait_for(warning, || {
            let status = self.status();
            let mut warnings = status["health"]["warnings"].as_array()?.iter();
            warnings.any(|said| said.as_str().unwrap().starts_with(warning)).then_some(())
        });
    }

    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let scrape = self.get("/metrics");
        let of = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
        scrape.lines().find_map(of)
    }

    /// Waits until a series has this value.
    #[track_caller]
    fn shows(&self, series: &str, value: f64) {
        let what = format!("{series} {value}");
        wait_for(&what, || self.metric(series).filter(|told| (told - value).abs() < f64::EPSILON));
    }
}

fn of(name: &str, partition: i32) -> String {
    format!("tidemill_{name}{{topic=\"in\",partition=\"{partition}\"}}")
}

/// What `tidemill lag` prints.
fn lag(config: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["lag", "--config"])
        .arg(config)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A producer that has left a transaction open, with so many records in a partition.
fn upstream(
    world: &World,
    partition: i32,
    records: usize,
) -> ThreadedProducer<DefaultProducerContext> {
    let mut client = world.client();
    client.set("transactional.id", "upstream").set("transaction.timeout.ms", "600000");
    let producer: ThreadedProducer<DefaultProducerContext> = client.create().unwrap();
    producer.init_transactions(Duration::from_secs(30)).unwrap();
    producer.begin_transaction().unwrap();
    for _ in 0..records {
        let record = BaseRecord::<[u8], [u8]>::to("in").partition(partition);
        producer.send(record.payload(GOOD.as_bytes())).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    producer
}

#[test]
fn each_trouble_is_told_where_an_operator_looks() {
    let Some(world) = World::start(2) else { return };
    world.add_version(1);
    world.promote(1);
    let config = world.config("a", EXTRA);
    world.produce_each(10);
    let service = Watched::start(&config);
    service.says(
        "Idle: everything in its 2 partitions of in is answered; lin version 1 waits for more",
    );
    for partition in [0, 1] {
        service.shows(&of("consumer_lag_records", partition), 0.0);
        service.shows(&of("committed_offset", partition), 10.0);
    }
    service.shows("tidemill_ready", 1.0);
    stuck_partition(&world, &config, &service);
    refused_version(&world, &service);
    broker_away(&world, &service);
    slow_model(&world.beside("slow", 1, &[]));
    version_that_no_record_fits(&world.beside("unfit", 1, &[]));
    output_that_is_gone(&world.beside("gone", 1, &[]));
    poison(&world, &service);
}

/// More flows in than is answered: each record is a batch and a transaction of its own.
fn slow_model(world: &World) {
    let slow = "batch: { max_records: 1, max_wait: 0s }\ncommit: { max_batches: 1 }\nlogging: { format: json }";
    let service = Watched::start(&world.config("slow", slow));
    wait_for("a lag that grows", || {
        world.produce(0, &vec![GOOD; 2_000]);
        let status = service.status();
        let said = status["sentence"].as_str()?.to_owned();
        let told = said.contains("and falls behind: more come in than are answered");
        (said.starts_with("Answers ") && told && status["now"]["drains"] == "no").then_some(())
    });
    assert_eq!(service.metric("tidemill_drain_eta_seconds"), Some(-1.0));
    let stages = service.status()["stages"].clone();
    assert!(stages.as_array().unwrap().iter().all(|one| one["share"].is_number()), "{stages}");
}

/// A producer's open transaction: lag is told, and what cannot be read of it, and where it begins.
fn stuck_partition(world: &World, config: &Path, service: &Watched) {
    let producer = upstream(world, 0, 5);
    world.produce(0, &[GOOD; 3]);
    service
        .says("Waits for producers: 8 records of in stand behind a transaction that is not ended");
    service.shows(&of("consumer_lag_records", 0), 8.0);
    service.shows(&of("held_back_records", 0), 8.0);
    service.shows(&of("committed_offset", 0), 10.0);
    service.shows(&of("held_back_records", 1), 0.0);
    let status = service.status();
    assert_eq!((&status["now"]["lag"], &status["now"]["held_back"]), (&8.into(), &8.into()));
    assert_eq!(status["partitions"][0]["held_back_at"], 10);
    let said = lag(config);
    assert!(said.contains("abort --topic in --partition 0 --start-offset 10"), "{said}");
    // The other partition goes on meanwhile.
    world.produce(1, &[GOOD; 4]);
    service.shows(&of("committed_offset", 1), 14.0);
    producer.abort_transaction(Duration::from_secs(30)).unwrap();
    service.shows(&of("held_back_records", 0), 0.0);
    service.shows(&of("consumer_lag_records", 0), 0.0);
    assert!(!lag(config).contains("abort"));
}

/// A version that reads another field: told while the alias names it, and no longer. One that is good and waits for a batch.
fn refused_version(world: &World, service: &Watched) {
    world.add(2, &[Column { name: "another", impute: None }]);
    world.promote(2);
    service.warns("Version 2 is refused; version 1 goes on: ");
    assert_eq!(service.status()["models"]["refusals"][0]["holds"], true);
    service.shows("tidemill_model_swaps_total{result=\"refused\"}", 1.0);
    world.promote(1);
    wait_for("the refusal to be over", || {
        let models = service.status()["models"].clone();
        (models["refused"].is_null() && models["refusals"][0]["holds"] == false).then_some(())
    });
    world.add_version(3);
    world.promote(3);
    let ready = "Idle: everything in its 2 partitions of in is answered; version 3 is ready and is taken with the next batch.";
    assert_eq!(service.says(ready)["models"]["staged"], 3);
    world.produce(1, &[GOOD]);
    wait_for("version 3", || {
        let models = service.status()["models"].clone();
        (models["serving"]["version"] == 3 && models["staged"].is_null()).then_some(())
    });
    // The registry is withdrawn: a version that was refused there is none any more.
    let aliases = world.registry().join("lin/aliases");
    std::fs::rename(&aliases, aliases.with_extension("away")).unwrap();
    service.warns("The registry names no version that is there; version 3 goes on: ");
    std::fs::rename(aliases.with_extension("away"), &aliases).unwrap();
    wait_for("the registry", || {
        service.status()["health"]["warnings"].as_array().unwrap().is_empty().then_some(())
    });
}

/// A version whose new field is a text by the configuration, and a number in the model.
fn version_that_no_record_fits(world: &World) {
    let config = world.config("a", EXTRA);
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replacen("input: {", "input: { clean: { y: { type: text } },", 1);
    let text = text.replacen("poll: 100ms", "poll: 100ms, allow_change: [fields]", 1);
    std::fs::write(&config, text).unwrap();
    let service = Watched::start(&config);
    service.says("Idle: ");
    world.add(2, &["x", "y"].map(|name| Column { name, impute: None }));
    world.promote(2);
    service.warns("Version 2 is refused; version 1 goes on: input.clean, or the model's preprocess.json, makes a text of field \"y\"");
}

/// A deleted output topic is named, and goes on being written to once it is there again.
fn output_that_is_gone(world: &World) {
    let service = Watched::start(&world.config("a", EXTRA));
    world.produce(0, &[GOOD; 3]);
    service.says("Idle: ");
    world.delete_topics(&["out"]);
    let said = format!(
        "Nothing can be committed, and nothing is lost: topic {} does not exist any more: it was deleted while this ran; \
         create it again (tidemill check --create-topics does).",
        world.topic("out")
    );
    service.warns(&said);
    world.create_topics(&["out"], 1);
    wait_for("the topic", || {
        service.status()["health"]["warnings"].as_array().unwrap().is_empty().then_some(())
    });
}

/// No broker: a replica that had one, and one that starts without.
fn broker_away(world: &World, service: &Watched) {
    world.broker.kill9();
    service.says("Waiting for the cluster, which has not answered for ");
    service.warns(&format!("No broker of {} has answered for ", world.broker.servers));
    service.shows("tidemill_kafka_connected", 0.0);
    let servers = &world.broker.servers;
    service.replica.says(&format!("no broker of {servers} has answered for "));
    let starting = Watched::start(&world.config("b", EXTRA));
    let said = format!(
        "Starting: lin version 3 is ready; waits for a first answer of {}, for ",
        world.broker.servers
    );
    starting.says(&said);
    assert_eq!(starting.metric("tidemill_ready"), Some(0.0));
    assert!(1.6e9 < starting.metric("tidemill_process_start_time_seconds").unwrap());
    let away = || starting.metric("tidemill_kafka_outage_seconds").filter(|away| 0.0 < *away);
    wait_for("an outage that begins with the start", away);
    starting.replica.says("since the start: nothing is read yet");
    drop(starting);
    world.broker.restart();
    service.shows("tidemill_kafka_connected", 1.0);
    service.replica.says(&format!("brokers of {servers} answer again, after "));
}

/// Brokers that answer and will not have this client, or it not them: no outage, and an operator is told which.
#[test]
fn what_is_refused_is_no_outage() {
    let Some(broker) = Broker::start_with(&[("KAFKA_SASL", "1")]) else { return };
    let world = World::on(broker, 1);
    world.add_version(1);
    world.promote(1);
    let known =
        "    sasl.mechanisms: PLAIN\n    sasl.username: alice\n    sasl.password: alice-secret\n";
    let config = tokens::config(&world, "a", known);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n{EXTRA}\n")).unwrap();
    let idle = "Idle: everything in its partition of in is answered";
    let service = Watched::start(&config);
    service.says(idle);

    let properties = world.broker.home.join("1/server.properties");
    let before = std::fs::read_to_string(&properties).unwrap();
    let after = before.replace("user_alice=\"alice-secret\"", "user_alice=\"another\"");
    assert_ne!(before, after);
    std::fs::write(&properties, after).unwrap();
    world.broker.restart();
    service.says("Waiting for the cluster: the credentials are refused, for ");
    let remedy = "check sasl.mechanisms, sasl.username and sasl.password under kafka.common";
    is_told(&service, &format!("the credentials are refused; {remedy}. The client said: "), remedy);
    std::fs::write(&properties, &before).unwrap();
    world.broker.restart();
    service.says(idle);
    service.shows("tidemill_ready", 1.0);
    // The members have heard of it too, which is over with the next commit.
    world.produce(0, &[GOOD]);
    wait_for("nothing to look at", || {
        service.status()["health"]["warnings"].as_array()?.is_empty().then_some(())
    });

    let pem = world.broker.home.join("tls/server.pem");
    std::fs::write(&pem, stranger(world.dir.path())).unwrap();
    world.broker.restart();
    service.says("Waiting for the cluster: the brokers' certificate is not trusted here, for ");
    let remedy =
        "set kafka.common ssl.ca.location to the authority that signed the broker's certificate";
    is_told(&service, &format!("the brokers' certificate is not trusted here; {remedy}"), remedy);
}

/// A warning, what keeps it from being ready, and what `tidemill status` prints.
fn is_told(service: &Watched, warning: &str, remedy: &str) {
    service.shows("tidemill_ready", 0.0);
    let status = service.status();
    let first = |what: &str| status["health"][what][0].as_str().unwrap().to_owned();
    let (warned, reason) = (first("warnings"), first("reasons"));
    assert!(warned.contains(warning), "{warned}");
    assert!(reason.contains(remedy) && !reason.contains("no broker has answered"), "{reason}");
    assert!(service.get("/readyz").contains(remedy));
    let url = format!("http://{}", service.address);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    let output = command.args(["status", "--url", &url]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(75) && said.contains(remedy), "{said}");
}

/// A key and a certificate that nobody has signed.
fn stranger(dir: &Path) -> String {
    let files = ["key.pem", "certificate.pem"].map(|name| dir.join(name));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]);
    command.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout"]);
    let output = command.arg(&files[0]).arg("-out").arg(&files[1]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    files.map(|file| std::fs::read_to_string(file).unwrap()).concat()
}

/// Too many dead letters: what stays up and does nothing tells how far behind the partitions are that nobody reads.
fn poison(world: &World, service: &Watched) {
    world.produce(0, &["no"; 400]);
    service.says("Does nothing any more: ");
    service.shows("tidemill_ready", 0.0);
    service.shows("tidemill_assigned_partitions", 0.0);
    assert_eq!(service.status()["now"]["partitions"], 0);
    let why = service.status()["health"]["reasons"][0].as_str().unwrap().to_owned();
    assert!(why.contains("dead letters, above dead_letters.max_ratio"), "{why}");
    let before = service.metric(&of("committed_offset", 1)).unwrap();
    world.produce(1, &[GOOD; 7]);
    service.shows(&of("consumer_lag_records", 1), 7.0);
    world.produce(1, &[GOOD; 2]);
    service.shows(&of("consumer_lag_records", 1), 9.0);
    service.shows(&of("committed_offset", 1), before);
    service.shows("tidemill_uncovered_partitions", 2.0);
    service.warns("2 partitions of the input topics are read by no member of the group: start those replicas again that stopped, or more.");
    // Another replica takes them, and tells of them from then on.
    let patient = format!("{EXTRA}\ndead_letters: {{ max_ratio: 1.0 }}");
    let other = Watched::start(&world.config("c", &patient));
    wait_for("the other's word", || other.metric(&of("committed_offset", 1)));
    wait_for("silence of the first", || {
        service.metric(&of("consumer_lag_records", 1)).is_none().then_some(())
    });
    let ended = service.replica.child.id();
    assert!(Path::new(&format!("/proc/{ended}")).exists(), "it stays up until it is told");
}

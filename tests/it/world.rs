//! What the tests of the whole service share: a broker, topics, models that add their version, replicas as
//! processes, and a reader that shares no code with the service.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tidemill::kafka::native;
use tidemill::model::gate;
use tidemill::model::options::LoadOptions;

use crate::broker::Broker;

/// Longest that anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A record that every version answers.
pub(crate) const GOOD: &str = "{\"x\":1}";

/// Each of these offsets of each partition, once: what [`World::outcomes`] gives where nothing is lost or repeated.
pub(crate) fn once(partitions: i32, offsets: std::ops::Range<i64>) -> BTreeMap<(i32, i64), usize> {
    let places = (0..partitions).flat_map(|p| offsets.clone().map(move |at| ((p, at), 1)));
    places.collect()
}

/// Waits until `condition` gives something.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A cluster with the topics of one service, its registry, and a place for files.
pub(crate) struct World {
    pub(crate) broker: Arc<Broker>,
    /// The service's group; its topics' names begin with it, unless it is the only one.
    name: String,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) partitions: i32,
}

/// One message as a reader sees it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) partition: i32,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Seen {
    pub(crate) fn number<T: std::str::FromStr>(&self, header: &str) -> Option<T> {
        self.headers.get(header)?.parse().ok()
    }
}

impl World {
    /// `None`, said loudly, where no broker can be started.
    pub(crate) fn start(partitions: i32) -> Option<Self> {
        Some(Self::on(Broker::start()?, partitions))
    }

    /// A world on a broker that was started already.
    pub(crate) fn on(broker: Broker, partitions: i32) -> Self {
        Self::named(Arc::new(broker), "g", partitions, &[])
    }

    /// Another service on the same broker, with topics of these settings.
    pub(crate) fn beside(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&'static str, &'static str)],
    ) -> Self {
        let world = Self::named(Arc::clone(&self.broker), name, partitions, settings);
        world.add_version(1);
        world.promote(1);
        world
    }

    fn named(
        broker: Arc<Broker>,
        name: &str,
        partitions: i32,
        settings: &[(&'static str, &'static str)],
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = Self { broker, name: name.to_owned(), dir, partitions };
        world.create_topics_with(&["in", "in-dlq", "out", "out-manifest"], partitions, settings);
        world
    }

    /// A topic of this service.
    pub(crate) fn topic(&self, name: &str) -> String {
        if self.name == "g" { name.to_owned() } else { format!("{}-{name}", self.name) }
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.broker.direct);
        client
    }

    pub(crate) fn create_topics(&self, names: &[&str], partitions: i32) {
        self.create_topics_with(names, partitions, &[]);
    }

    /// Creates topics of this service with these settings.
    pub(crate) fn create_topics_with(
        &self,
        names: &[&str],
        partitions: i32,
        settings: &[(&str, &str)],
    ) {
        let names: Vec<String> = names.iter().map(|name| self.topic(name)).collect();
        let topic = |name| {
            // -1: as the cluster has it, one copy on one broker and three on three.
            let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
            settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
        };
        let topics: Vec<NewTopic<'_>> = names.iter().map(|name| topic(name)).collect();
        let created = wait_on(self.admin().create_topics(&topics, &AdminOptions::new())).unwrap();
        assert!(created.iter().all(Result::is_ok), "{created:?}");
    }

    pub(crate) fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    /// Deletes topics of this service, and waits until they are gone.
    pub(crate) fn delete_topics(&self, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|name| self.topic(name)).collect();
        let named: Vec<&str> = names.iter().map(String::as_str).collect();
        let admin = self.admin();
        wait_on(admin.delete_topics(&named, &AdminOptions::new())).unwrap();
        wait_for("the topics to be gone", || {
            let there = admin.inner().fetch_metadata(None, Duration::from_secs(5)).ok()?;
            let gone = there.topics().iter().all(|topic| !named.contains(&topic.name()));
            gone.then_some(())
        });
    }

    /// Gives all topics of this service so many partitions.
    pub(crate) fn grow(&mut self, partitions: usize) {
        self.grow_only(&["in-dlq", "out", "out-manifest", "in"], partitions);
    }

    /// Gives these topics of this service so many partitions.
    pub(crate) fn grow_only(&mut self, names: &[&str], partitions: usize) {
        let names: Vec<String> = names.iter().map(|name| self.topic(name)).collect();
        let grown: Vec<NewPartitions<'_>> =
            names.iter().map(|name| NewPartitions::new(name, partitions)).collect();
        let done = wait_on(self.admin().create_partitions(&grown, &AdminOptions::new())).unwrap();
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        self.partitions = i32::try_from(partitions).unwrap();
    }

    /// Deletes the service's group with its offsets, once its members are gone.
    pub(crate) fn delete_group(&self) {
        let admin = self.admin();
        wait_for("the group to be empty", || {
            let deleted = wait_on(admin.delete_groups(&[&self.name], &AdminOptions::new())).ok()?;
            deleted.iter().all(Result::is_ok).then_some(())
        });
    }

    pub(crate) fn registry(&self) -> PathBuf {
        self.dir.path().join("models")
    }

    /// Version `v` of a model that answers x + v.
    pub(crate) fn add_version(&self, version: u32) {
        self.add(version, &[Column { name: "x", impute: None }]);
    }

    /// Version `version` of a model that answers the sum of its columns, and its number.
    pub(crate) fn add(&self, version: u32, columns: &[Column]) {
        let dir = self.registry().join("lin").join(version.to_string());
        #[expect(clippy::cast_precision_loss, reason = "versions are small")]
        linear(&dir, columns, version as f32);
        gate::admit(&dir, "lin", &LoadOptions::default()).unwrap();
    }

    /// Points `champion` at a version, as `tidemill models promote` does.
    pub(crate) fn promote(&self, version: u32) {
        let aliases = self.registry().join("lin/aliases");
        fs::create_dir_all(&aliases).unwrap();
        fs::write(aliases.join(".new"), version.to_string()).unwrap();
        fs::rename(aliases.join(".new"), aliases.join("champion")).unwrap();
    }

    /// A configuration file for the replica of this name; `extra` is added at the end.
    pub(crate) fn config(&self, instance: &str, extra: &str) -> PathBuf {
        self.config_with(instance, "", extra)
    }

    /// As [`World::config`], with lines under `kafka`, and with these properties of its clients instead of the classic
    /// protocol's.
    pub(crate) fn config_with(&self, instance: &str, kafka: &str, extra: &str) -> PathBuf {
        let classic = "session.timeout.ms: 6000\n    heartbeat.interval.ms: 500";
        let (kafka, consumer) = kafka.split_once("consumer:").unwrap_or((kafka, classic));
        let text = format!(
            "kafka:\n  group: {}\n  instance: {instance}\n  {kafka}\n  common:\n    bootstrap.servers: {}\n    \
             topic.metadata.refresh.interval.ms: 2000\n  consumer:\n    {consumer}\n\
             input: {{ topics: [{}] }}\noutput: {{ topic: {} }}\n\
             model: {{ uri: 'models:/lin@champion', poll: 100ms, workers: 1 }}\n\
             registry: {{ root: {} }}\nhttp: {{ listen: '127.0.0.1:0' }}\n{extra}\n",
            self.name,
            self.broker.servers,
            self.topic("in"),
            self.topic("out"),
            self.registry().display(),
        );
        let file = self.dir.path().join(format!("{instance}.yaml"));
        fs::write(&file, text).unwrap();
        file
    }

    /// Appends values to a partition of the input.
    pub(crate) fn produce(&self, partition: i32, values: &[&str]) {
        let producer: ThreadedProducer<DefaultProducerContext> = self.client().create().unwrap();
        let topic = self.topic("in");
        for value in values {
            let record = BaseRecord::<[u8], [u8]>::to(&topic).partition(partition);
            producer.send(record.payload(value.as_bytes())).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    }

    /// Appends so many good records to each partition of the input.
    pub(crate) fn produce_each(&self, count: usize) {
        (0..self.partitions).for_each(|partition| self.produce(partition, &vec![GOOD; count]));
    }

    /// Everything in a topic, partition by partition.
    pub(crate) fn read(&self, topic: &str, isolation: &str) -> Vec<Seen> {
        let mut client = self.client();
        client.set("group.id", "reader").set("enable.partition.eof", "true");
        client.set("isolation.level", isolation).set("enable.auto.commit", "false");
        let consumer: BaseConsumer = client.create().unwrap();
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions {
            list.add_partition_offset(&self.topic(topic), partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let (mut ended, mut seen) = (0, Vec::new());
        let deadline = Instant::now() + PATIENCE;
        while ended < self.partitions {
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} for the ends of {topic}");
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let headers = native::headers(&message).into_iter();
                    let headers = headers
                        .map(|header| {
                            (text(&header.name), text(header.value.as_deref().unwrap_or_default()))
                        })
                        .collect();
                    seen.push(Seen {
                        partition: message.partition(),
                        key: message.key().map(<[u8]>::to_vec),
                        value: message.payload().map(<[u8]>::to_vec),
                        headers,
                    });
                }
                Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
                // A broker that was just killed: the next poll says more.
                Some(Err(_)) | None => (),
            }
        }
        seen
    }

    /// What the group has committed, by partition; `None` while the broker does not answer.
    pub(crate) fn committed(&self, consumer: &BaseConsumer) -> Option<Vec<i64>> {
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions {
            list.add_partition(&self.topic("in"), partition);
        }
        let committed = consumer.committed_offsets(list, Duration::from_secs(5)).ok()?;
        Some(
            committed
                .elements()
                .iter()
                .map(|at| at.offset().to_raw().unwrap_or(0).max(0))
                .collect(),
        )
    }

    /// The input records that have outcomes, by partition and offset, and how often each.
    pub(crate) fn outcomes(&self) -> BTreeMap<(i32, i64), usize> {
        let mut outcomes = BTreeMap::new();
        for (topic, prefix) in [("out", "tidemill.source"), ("in-dlq", "__connect.errors")] {
            for seen in self.read(topic, "read_committed") {
                let place = |what: &str| seen.number(&format!("{prefix}.{what}"));
                let partition: i64 = place("partition").unwrap();
                let partition = i32::try_from(partition).unwrap();
                *outcomes.entry((partition, place("offset").unwrap())).or_default() += 1;
            }
        }
        outcomes
    }

    /// Runs one replica to the end that is there now; its exit code and log.
    pub(crate) fn run(&self, kafka: &str) -> (Option<i32>, String) {
        let config = self.config_with("a", kafka, "");
        Replica::start(&config, &["--until-end"]).ended()
    }

    /// A client of the service's group that never joins it.
    pub(crate) fn observer(&self) -> BaseConsumer {
        self.client().set("group.id", &self.name).create().unwrap()
    }

    /// Waits until the group has committed everything in the input and readers see all of it: a transaction that a killed
    /// replica left open holds them back until it times out.
    pub(crate) fn wait_for_lag_0(&self) {
        let observer = self.observer();
        wait_for("lag 0", || {
            let committed = self.committed(&observer)?;
            (self.ends(&observer, "in")? == committed).then_some(())
        });
        let [all, stable] = ["read_uncommitted", "read_committed"]
            .map(|isolation| self.client().set("isolation.level", isolation).create().unwrap());
        for topic in ["out", "in-dlq"] {
            wait_for("the end of every transaction", || {
                (self.ends(&all, topic)? == self.ends(&stable, topic)?).then_some(())
            });
        }
    }

    /// Where the partitions of a topic end for this client.
    fn ends(&self, client: &BaseConsumer, topic: &str) -> Option<Vec<i64>> {
        let end = |partition| {
            let patience = Duration::from_secs(5);
            Some(client.fetch_watermarks(&self.topic(topic), partition, patience).ok()?.1)
        };
        (0..self.partitions).map(end).collect()
    }
}

/// Runs a future of the admin client.
pub(crate) fn wait_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// A column of a [`linear`] model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    /// What takes the place of a missing value.
    pub(crate) impute: Option<f64>,
}

/// Writes a regression that answers `bias` and the sum of its columns.
pub(crate) fn linear(dir: &Path, columns: &[Column], bias: f32) {
    fs::create_dir_all(dir).unwrap();
    let config = r#"{"task":"tabular-regression","architecture":"linear","output":"identity"}"#;
    fs::write(dir.join("config.json"), config).unwrap();
    let fitted = columns.iter().map(
        |Column { name, impute }| serde_json::json!({"name": name, "kind": "numeric", "impute": impute}),
    );
    let preprocess = serde_json::json!({ "columns": fitted.collect::<Vec<_>>() });
    fs::write(dir.join("preprocess.json"), preprocess.to_string()).unwrap();
    let end = 4 + 4 * columns.len();
    let header = serde_json::json!({
        "layers.0.bias": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "layers.0.weight": {"dtype": "F32", "shape": [1, columns.len()], "data_offsets": [4, end]},
    });
    let header = header.to_string();
    let mut bytes = u64::try_from(header.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(bias.to_le_bytes());
    bytes.extend(columns.iter().flat_map(|_| 1.0_f32.to_le_bytes()));
    fs::write(dir.join("model.safetensors"), bytes).unwrap();
}

/// A replica of the service: the real binary.
pub(crate) struct Replica {
    pub(crate) child: Child,
    config: PathBuf,
    arguments: Vec<String>,
}

impl Replica {
    pub(crate) fn start(config: &Path, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>();
        Self { child: spawn(config, &arguments), config: config.to_owned(), arguments }
    }

    /// SIGKILL, and a new process in its place, as Kubernetes does.
    pub(crate) fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.config, &self.arguments);
    }

    /// Starts it again if it has ended by itself; whether it had.
    pub(crate) fn revive(&mut self) -> bool {
        self.revive_after().is_some()
    }

    /// Starts it again if it has ended by itself; how it had.
    pub(crate) fn revive_after(&mut self) -> Option<ExitStatus> {
        let ended = self.child.try_wait().unwrap()?;
        self.child = spawn(&self.config, &self.arguments);
        Some(ended)
    }

    /// SIGTERM, and a new process in its place, as a rollout does; how the old one ended.
    pub(crate) fn restart(&mut self) -> ExitStatus {
        self.signal("TERM");
        let ended = wait_for("a clean stop", || self.child.try_wait().unwrap());
        self.child = spawn(&self.config, &self.arguments);
        ended
    }

    /// Waits until a line of its log has this text.
    pub(crate) fn says(&self, text: &str) {
        wait_for(text, || {
            let ended = self.has_ended();
            let log = fs::read_to_string(log_of(&self.config)).ok()?;
            assert!(!ended || log.contains(text), "it has ended without {text:?}");
            log.contains(text).then_some(())
        });
    }

    /// The last lines of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(log_of(&self.config)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// Whether the process has ended and nobody has asked how.
    pub(crate) fn has_ended(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        stat.is_ok_and(|stat| stat.contains(") Z "))
    }

    /// Fails with its log where it has ended.
    pub(crate) fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("ended with {status}: {}", fs::read_to_string(log_of(&self.config)).unwrap());
        }
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        wait_for("a clean stop", || self.child.try_wait().unwrap())
    }

    /// Waits until it ends by itself; its exit code and log.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let status = wait_for("the end", || self.child.try_wait().unwrap());
        (status.code(), fs::read_to_string(log_of(&self.config)).unwrap())
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            // What the replica said tells why the test failed.
            std::io::stderr().write_all(self.last_words().as_bytes()).unwrap();
        }
    }
}

fn log_of(config: &Path) -> PathBuf {
    config.with_extension("log")
}

fn spawn(config: &Path, arguments: &[String]) -> Child {
    let log = fs::File::options().create(true).append(true).open(log_of(config)).unwrap();
    Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["run", "--config"])
        .arg(config)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

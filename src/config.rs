//! What can be told, in which unit. One YAML file, read once, checked whole.
//!
//! `config/tidemill.yaml` has every key with its default and its consequence; a test keeps the two equal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::answer::Task;
use serde::{Deserialize, Serialize};

pub mod amount;
pub mod load;
pub mod log;
pub mod observe;
pub mod origin;
pub mod owned;
pub mod place;
pub mod pointer;
pub mod problem;
pub mod properties;
pub mod secret;
pub mod topics;
pub mod tree;
pub mod uri;
pub mod validate;
pub mod yaml;

pub use amount::{Size, Time};
pub use log::Log;
pub use observe::{Http, LogFormat, Logging};
pub use place::{NoDevice, Place};
pub use pointer::Pointer;
pub use problem::{Problem, Problems};
pub use uri::Uri;

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The embedded log, `sqlite:FILE`, in place of `kafka`.
    pub log: Log,
    /// The cluster and the group.
    pub kafka: Kafka,
    /// What is read.
    pub input: Input,
    /// Where predictions go.
    pub output: Output,
    /// Where records go that cannot be answered.
    pub dead_letters: DeadLetters,
    /// Where batches are described.
    pub manifest: Manifest,
    /// When a batch closes.
    pub batch: Batch,
    /// When what is ready is committed.
    pub commit: Commit,
    /// Which model, on which device.
    pub model: Model,
    /// Where versions come from.
    pub registry: Registry,
    /// What is kept over a restart.
    pub state: State,
    /// Deadlines and memory.
    pub limits: Limits,
    /// Probes and metrics.
    pub http: Http,
    /// The log on stderr.
    pub logging: Logging,
    /// What was put in for `${…}`, and other values that no message may show. Not a key of the file.
    #[serde(skip)]
    pub secrets: secret::Secrets,
    /// Where the clients' properties came from. Not a key of the file.
    #[serde(skip)]
    pub origin: origin::Origin,
}

impl Config {
    /// The file of the embedded log, where that is the log.
    pub fn embedded(&self) -> Option<&Path> {
        match &self.log {
            Log::Kafka => None,
            Log::Sqlite(file) => Some(file),
        }
    }
}

/// The cluster and the group.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// The consumer group; also the middle of the transactional ids. Required.
    pub group: String,
    /// This replica's stable name: `group.instance.id`, `client.id`, and the end of its transactional ids.
    /// Default: `$POD_NAME`, else the host's name. Two live processes must not share it.
    pub instance: Option<String>,
    /// Transactional producers, each with its thread; the partitions are spread over them.
    pub lanes: u16,
    /// Where a group that never committed anything begins.
    pub start_from: StartFrom,
    /// What a missing committed offset means in a group that has written manifests before.
    pub on_missing_offset: MissingOffset,
    /// Longest that the manifest topic may be read for missing offsets.
    pub manifest_scan: Time,
    /// What an offset that is no longer there means.
    pub on_out_of_range: OutOfRange,
    /// What an input topic means that was deleted and created again.
    pub on_recreated: Recreated,
    /// What a stop does with the membership of the group.
    pub on_stop: OnStop,
    /// Properties of librdkafka for all clients, by their own dotted names.
    pub common: BTreeMap<String, String>,
    /// … for the consumer.
    pub consumer: BTreeMap<String, String>,
    /// … for the producers.
    pub producer: BTreeMap<String, String>,
}

/// Names of properties only: their values may be secrets.
impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka")
            .field("group", &self.group)
            .field("instance", &self.instance)
            .field("lanes", &self.lanes)
            .field("common", &self.common.keys())
            .field("consumer", &self.consumer.keys())
            .field("producer", &self.producer.keys())
            .finish_non_exhaustive()
    }
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            group: String::new(),
            instance: None,
            lanes: 1,
            start_from: StartFrom::Earliest,
            on_missing_offset: MissingOffset::Manifest,
            manifest_scan: Time::millis(300_000),
            on_out_of_range: OutOfRange::Stop,
            on_recreated: Recreated::Stop,
            on_stop: OnStop::Stay,
            common: BTreeMap::new(),
            consumer: BTreeMap::new(),
            producer: BTreeMap::new(),
        }
    }
}

/// Where a group that never committed anything begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartFrom {
    /// The first record that is there.
    Earliest,
    /// The end at the group's first start: what was written before it is never read.
    Latest,
}

/// What a missing committed offset means in a group that has written manifests before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissingOffset {
    /// Go on behind the newest manifest of the partition; stop where there is none.
    Manifest,
    /// Stop loudly.
    Stop,
    /// Begin at `start_from`, as if nothing had ever been predicted.
    Start,
}

/// What an input topic means that was deleted and created again under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recreated {
    /// Stop loudly.
    Stop,
    /// Begin the new topic at its first record.
    Start,
}

/// What a stop does with the membership of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStop {
    /// Nothing: this replica's partitions wait for it until its session expires.
    Stay,
    /// Leave: the other replicas take the partitions over at once.
    Leave,
}

/// What to do when the committed offset is no longer in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutOfRange {
    /// Stop loudly: records were deleted before they were read.
    Stop,
    /// Go on at the first record that is there.
    Earliest,
    /// Go on at the end.
    Latest,
}

/// What is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Input {
    /// The topics. Required.
    pub topics: Vec<String>,
    /// What values are.
    pub format: InputFormat,
    /// For a text or image model: the field that holds the text, or the image in base64; also the name that a `text`
    /// or `bytes` value is given.
    pub field: String,
    /// For a text model that reads pairs: the field that holds the second text.
    pub pair_field: String,
    /// Where a field of the model stands in a record, if not under its own name: a JSON Pointer, such as `/customer/age`.
    pub fields: BTreeMap<String, Pointer>,
    /// What was written around a record, and is taken off.
    pub unwrap: Unwrap,
    /// What a field means that the model does not read.
    pub unknown_fields: UnknownFields,
}

impl Default for Input {
    fn default() -> Self {
        Self {
            topics: Vec::new(),
            format: InputFormat::Json,
            field: "text".to_owned(),
            pair_field: "text_pair".to_owned(),
            fields: BTreeMap::new(),
            unwrap: Unwrap::None,
            unknown_fields: UnknownFields::Ignore,
        }
    }
}

/// What was written around a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unwrap {
    /// Nothing: the value is the record.
    None,
    /// `{"schema", "payload"}` of Kafka Connect's `JsonConverter`; without a schema the value is the record.
    Connect,
    /// Debezium's envelope, with Connect's around it or not: the record is `after`. A deleted row is a tombstone.
    Debezium,
}

/// What the values of the input topics are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputFormat {
    /// A JSON object.
    Json,
    /// UTF-8 text: the value is the field `input.field`.
    Text,
    /// Anything, such as an image: the value in base64 is the field `input.field`.
    Bytes,
}

/// What a field means that the model does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownFields {
    /// Nothing.
    Ignore,
    /// The record becomes a dead letter.
    Reject,
}

/// Where predictions go.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Output {
    /// The topic. Required.
    pub topic: String,
    /// Which partition of it.
    pub partition: OutputPartition,
    /// What of the input goes along with the prediction.
    pub include: Include,
    /// How many labels' scores a classification carries, the best first; default: every label's, in the model's order.
    pub top_k: Option<u32>,
    /// Provenance in headers.
    pub headers: Headers,
}

/// Which partition of the output topic a prediction goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputPartition {
    /// The input partition's number: order per partition is kept.
    #[default]
    Same,
    /// By the key's hash, as the Java client does (murmur2): order per key is kept.
    Key,
}

/// What of the input goes along with the prediction.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Include {
    /// Nothing: the prediction alone.
    #[default]
    None,
    /// The record's key, as text, under `key`.
    Key,
    /// These fields, under `input`.
    Fields(Vec<String>),
    /// Every field, under `input`.
    All,
}

/// Provenance in the headers of a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Headers {
    /// Model name, version, digest; batch id; source topic, partition, offset.
    #[default]
    Full,
    /// Model version, batch id and source offset only.
    Compact,
    /// Only the record's own headers. `tidemill verify` then cannot prove anything.
    None,
}

/// Where records go that cannot be answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadLetters {
    /// The topic; default `<input topic>-dlq`.
    pub topic: Option<String>,
    /// Above this share of dead letters over `window` records, stop. 1 never stops.
    pub max_ratio: f64,
    /// Over how many of the last records the share is taken.
    pub window: u32,
}

impl Default for DeadLetters {
    fn default() -> Self {
        Self { topic: None, max_ratio: 0.5, window: 1_000 }
    }
}

/// Where batches are described.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Manifest {
    /// The topic; default `<output topic>-manifest`.
    pub topic: Option<String>,
}

/// When a batch closes: on the first of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Batch {
    /// Most records.
    pub max_records: u32,
    /// Most payload bytes. A larger record still passes, alone.
    pub max_bytes: Size,
    /// Most tokens that the model will compute.
    pub max_tokens: u32,
    /// Longest that the first record waits for company.
    pub max_wait: Time,
    /// What an idle worker does while the batch is not full.
    pub when_idle: WhenIdle,
    /// Whether `max_tokens` is the size of a batch, or its bound.
    pub size: Sizing,
    /// Where learned sizes are kept from one run to the next.
    pub remember: Option<PathBuf>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            max_records: 256,
            max_bytes: Size::mib(6),
            max_tokens: 16_384,
            max_wait: Time::millis(50),
            when_idle: WhenIdle::Wait,
            size: Sizing::Max,
            remember: None,
        }
    }
}

/// How many tokens close a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sizing {
    /// `max_tokens`.
    Max,
    /// As few as keep the fixed cost of a batch below a twentieth of its time, learned while running.
    Learned,
}

/// What an idle worker does while a batch is not full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenIdle {
    /// Takes what is there.
    Flush,
    /// Waits for `max_wait`.
    Wait,
}

/// When what is ready is committed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Commit {
    /// How long a finished batch waits for others to share its transaction.
    pub max_wait: Time,
    /// Most batches in a transaction.
    pub max_batches: u32,
}

impl Default for Commit {
    fn default() -> Self {
        Self { max_wait: Time::millis(0), max_batches: 16 }
    }
}

/// Which model, on which device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// `models:/name@alias`, `models:/name/3`, or a directory. Required.
    pub uri: Uri,
    /// How often the alias is looked up.
    pub poll: Time,
    /// What a new version may change.
    pub allow_change: Vec<Change>,
    /// How long a partition is held back whose last answer is of another version than the one that serves here.
    pub takeover_wait: Time,
    /// `cpu`, `cuda:0`, several as `cuda:0,cuda:1`, `metal:0`.
    pub device: Place,
    /// Inference threads; `auto` is one a core, on GPUs one a device.
    pub workers: Workers,
    /// What the model is for; default: what its files say.
    pub task: Option<Task>,
    /// What the weights are computed in.
    pub precision: Precision,
    /// Whether an answer's last bits may depend on the batch.
    pub determinism: Determinism,
    /// Memory for answers that are given again to equal inputs; 0 computes each.
    pub cache: Size,
    /// What happens to a text longer than the model takes.
    pub on_long: OnLong,
    /// Longest input in tokens; default: what the model's own files say.
    pub max_length: Option<u32>,
    /// How a token classifier's labels become spans.
    pub aggregation: Aggregation,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            uri: Uri::default(),
            poll: Time::millis(10_000),
            allow_change: Vec::new(),
            takeover_wait: Time::millis(60_000),
            device: Place::Cpu,
            workers: Workers::Auto,
            task: None,
            precision: Precision::F32,
            determinism: Determinism::Fast,
            cache: Size(0),
            on_long: OnLong::Truncate,
            max_length: None,
            aggregation: Aggregation::Simple,
        }
    }
}

/// What a new version may change against the one that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// The fields that it reads.
    Fields,
    /// The task, the kind or width of the output, or the labels.
    Output,
}

/// How many inference threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Workers {
    /// One for each core; on GPUs one for each device.
    #[default]
    Auto,
    /// This many.
    #[serde(untagged)]
    Count(u16),
}

/// What the weights are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As the checkpoint was trained.
    #[default]
    F32,
    /// Half the memory; on GPUs, and on CPUs with `AVX512_BF16`.
    Bf16,
    /// Half the memory, more digits, less range; on GPUs.
    F16,
    /// Weights per channel, activations per row; a quarter of the memory.
    Int8,
    /// On the CPU the fastest that keeps the mean cosine to f32 above 0.995; on GPUs bf16.
    Auto,
}

/// Whether an answer's last bits may depend on the batch that its record was in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Determinism {
    /// They may, on GPUs.
    #[default]
    Fast,
    /// They never do: on a GPU a model runs one record a call.
    Strict,
}

/// What happens to a text longer than the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLong {
    /// Its beginning is used, or its end where the model's tokenizer keeps that.
    #[default]
    Truncate,
    /// It becomes a dead letter.
    Reject,
}

/// How labels of tokens become spans of a text: transformers' `aggregation_strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aggregation {
    /// Each token is a span.
    None,
    /// Tokens of one entity that follow each other are a span.
    #[default]
    Simple,
    /// As `simple` on words, each labelled as its first token.
    First,
    /// As `simple` on words, each labelled by the mean of its tokens' scores.
    Average,
    /// As `simple` on words, each labelled as its surest token.
    Max,
}

/// Where versions come from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// The directory `<root>` of `<root>/<name>/<version>/…`.
    pub root: Option<PathBuf>,
}

/// What is kept over a restart.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// A folder that outlives the process: the journal of the batches in flight, and what a version did to it.
    pub dir: Option<PathBuf>,
}

/// Deadlines and memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Longest that one batch may be in the model before the process stops.
    pub inference: Time,
    /// Longest that one transaction may take before its producer is given up.
    pub transaction: Time,
    /// Longest that a stop may take; less than `terminationGracePeriodSeconds`.
    pub drain: Time,
    /// Memory for records in flight: queues are sized from it.
    pub memory: Size,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inference: Time::millis(60_000),
            transaction: Time::millis(8_000),
            drain: Time::millis(30_000),
            memory: Size::mib(64),
        }
    }
}

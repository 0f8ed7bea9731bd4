//! The names of the headers that we write, for whoever writes or reads them.

/// The registered name of the model that answered.
pub const MODEL_NAME: &str = "tidemill.model.name";
/// Its version.
pub const MODEL_VERSION: &str = "tidemill.model.version";
/// The digest of its files.
pub const MODEL_DIGEST: &str = "tidemill.model.digest";
/// The batch that the record was answered in.
pub const BATCH_ID: &str = "tidemill.batch.id";
/// Of a prediction or a tombstone: the topic of its record.
pub const SOURCE_TOPIC: &str = "tidemill.source.topic";
/// The record's partition.
pub const SOURCE_PARTITION: &str = "tidemill.source.partition";
/// The record's offset.
pub const SOURCE_OFFSET: &str = "tidemill.source.offset";
/// Of a dead letter: the class of its fault.
pub const ERROR_CLASS: &str = "tidemill.error.class";
/// Of a value that was cut: how many bytes it had.
pub const TRUNCATED: &str = "tidemill.value.truncated";
/// The record's timestamp, where the message could not keep it.
pub const ORIGINAL_TIMESTAMP: &str = "tidemill.original.timestamp";
/// The record's key, where the message could not keep it.
pub const ORIGINAL_KEY: &str = "tidemill.original.key";
/// Of a dead letter, as Kafka Connect writes it: the topic of its record.
pub const ERRORS_TOPIC: &str = "__connect.errors.topic";
/// The record's partition.
pub const ERRORS_PARTITION: &str = "__connect.errors.partition";
/// The record's offset.
pub const ERRORS_OFFSET: &str = "__connect.errors.offset";
/// What was being done with the record.
pub const ERRORS_STAGE: &str = "__connect.errors.stage";
/// What was doing it.
pub const ERRORS_DOER: &str = "__connect.errors.class.name";
/// The fault's kind.
pub const ERRORS_EXCEPTION: &str = "__connect.errors.exception.class.name";
/// The fault in words.
pub const ERRORS_MESSAGE: &str = "__connect.errors.exception.message";

/// W3C's name of the span that a message comes from.
pub const TRACEPARENT: &str = "traceparent";
/// Beside it, what tracing systems add.
pub const TRACESTATE: &str = "tracestate";

/// What the names begin with that only we write. A record's own headers of these names are left out of what we write, so
/// that a reader never meets a predecessor's provenance.
const RESERVED: [&str; 2] = ["tidemill.", "__connect.errors."];

/// Whether a header is one that only we write.
pub fn is_reserved(name: &[u8]) -> bool {
    RESERVED.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

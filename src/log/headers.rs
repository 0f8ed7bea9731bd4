//! The names of the headers that we write, for whoever writes or reads them.

use crate::record::Header;

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
/// Of a prediction for a part of its text: tokens that the model saw, a slash, and tokens of the whole, behind `>` where
/// there are more than were counted.
pub const INPUT_TRUNCATED: &str = "tidemill.input.truncated";
/// Of a dead letter: the class of its fault.
pub const ERROR_CLASS: &str = "tidemill.error.class";
/// Of a record that was redriven, and of the dead letter that it became again: how many times.
pub const ATTEMPT: &str = "tidemill.redrive.attempt";
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

/// Of an event, by the Kafka protocol binding of `CloudEvents` 1.0: its version.
pub const EVENT_VERSION: &str = "ce_specversion";
/// Which event it is, among those of its source.
pub const EVENT_ID: &str = "ce_id";
/// Where it comes from.
pub const EVENT_SOURCE: &str = "ce_source";
/// What it tells of.
pub const EVENT_TYPE: &str = "ce_type";
/// When that was.
pub const EVENT_TIME: &str = "ce_time";
/// What the value is.
pub const CONTENT_TYPE: &str = "content-type";

/// Whether a header is an attribute of an event.
pub fn is_of_event(name: &[u8]) -> bool {
    name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"ce_"))
}

/// Whether a header says how a record's value is to be read. It is not true of another value.
pub fn is_of_value(name: &[u8]) -> bool {
    let names = [CONTENT_TYPE, "content-encoding", "__value_schema_id", "apicurio.protobuf.type"];
    names.iter().any(|header| name.eq_ignore_ascii_case(header.as_bytes()))
        || name.starts_with(b"apicurio.value.")
}
/// W3C's name of the span that a message comes from.
pub const TRACEPARENT: &str = "traceparent";
/// Beside it, what tracing systems add.
pub const TRACESTATE: &str = "tracestate";

/// How many times a record with these headers was redriven, where it was. Of several the last one counts.
pub fn attempt(headers: &[Header]) -> Option<u32> {
    let found = headers.iter().rfind(|header| header.name == ATTEMPT.as_bytes())?;
    std::str::from_utf8(found.value.as_deref()?).ok()?.parse().ok()
}

/// What the names begin with that only we write. A record's own headers of these names are left out of what we write, so
/// that a reader never meets a predecessor's provenance.
const RESERVED: [&str; 2] = ["tidemill.", "__connect.errors."];

/// Whether a header is one that only we write.
pub fn is_reserved(name: &[u8]) -> bool {
    RESERVED.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

//! All integration tests, one binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod broker;
mod kafka_log;
mod mock_kafka;

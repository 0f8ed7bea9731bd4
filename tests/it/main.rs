//! Integration tests: one binary.

mod broker;
mod exactly_once;
mod golden;
mod kafka_log;
mod mock_kafka;
mod tidy;

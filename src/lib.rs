//! Micro-batch inference on Kafka, exactly once.
pub mod config;
pub mod kafka;
pub mod log;
pub mod model;
pub mod record;

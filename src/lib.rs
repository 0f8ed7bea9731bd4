//! Micro-batch inference on Kafka, exactly once.
pub mod config;
pub mod log;
pub mod model;
pub mod pipeline;
pub mod record;

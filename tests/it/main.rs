//! All integration tests, one binary.
#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that cannot go on fails; tests wait for real brokers"
)]

mod admin;
mod avro;
mod bench;
mod broker;
mod campaign;
mod chaos;
mod check;
mod clean;
mod clients;
mod collector;
mod commands;
mod differential;
mod dlq;
mod embedded;
mod ends;
mod exactly_once;
mod files;
mod folders;
mod fuzz;
mod golden;
mod golden_images;
mod golden_pictures;
mod helm;
mod hostile_models;
mod journal;
mod kafka_log;
mod lines;
mod long_texts;
mod messages;
mod metrics;
mod mock_kafka;
mod models;
mod padded;
mod page;
mod permissions;
mod pushes;
mod readme;
mod refusals;
mod schema_registry;
mod secrets;
mod serdes;
mod service;
mod slow_link;
mod starts;
mod strangers;
mod swaps;
mod tables;
mod tidy;
mod tokens;
mod traces;
mod troubles;
mod verify;
mod workers;
mod world;

//! Micro-batch inference on Kafka, exactly once.
//!
//! ```text
//!  input topics                                                                    output, dead-letter,
//!       │                                                                          manifest topics + offsets
//!       ▼                                                                                    ▲
//!  log::Feed ──────► decode ─► engine ─► pipeline: arrive ► batch ► infer ► publish ─► engine ─► log::Sink
//!  reading thread    threads   (tokio)   pure core: handle(event, now) → effects   │        a thread a lane
//!                       │         │            │      ▲                            ▼
//!                       └────┬────┘            workers    ◄──── registry: watch, verify, try, load, warm, stage
//!                            ▼
//!                         journal: what is in flight, for the next start after a crash
//! ```
//!
//! # The promise
//!
//! For every record of the input topics, readers with `isolation.level=read_committed` see exactly one outcome:
//! its prediction in the output topic or its dead letter in the dead-letter topic, in offset order within its
//! partition, made by one named model version, whatever crashes, restarts, rebalances or is swapped meanwhile.
//! It ends at Kafka's edge.
//!
//! # In reading order
//!
//! [`record`], [`answer`], [`field`], [`failure`] the nouns; [`clean`] what a field must be; [`pipeline`] the core; [`engine`] drives it; [`log`] the
//! seams to what reads and what writes, [`kafka`], [`sqlite`] and [`lines`]; [`decode`], [`format`](mod@format), [`avro`] and
//! [`schema`]; [`workers`], [`model`] and [`registry`]; [`journal`] what a crash leaves to the next start; [`service`] puts
//! it together; [`config`], [`telemetry`], [`status`], [`http`]; [`cli`], [`demo`], [`verify`], [`bench`](mod@bench). Against strangers: [`file`](mod@file) opens what others write,
//! [`memory`] says what is left, [`printable`] shows names that others chose. A room uses those below it only:
//! `tests/it/tidy.rs` has the floors.
//!
//! Deliberately absent: a clock, I/O or a lock in the core; a mutex around data in the engine; an unbounded
//! queue; a second recovery path beside "forget, and read again from the committed offsets".

pub mod answer;
pub mod avro;
pub mod bench;
pub mod clean;
pub mod cli;
pub mod config;
pub mod decode;
pub mod demo;
pub mod engine;
pub mod failure;
pub mod field;
pub mod file;
pub mod format;
pub mod http;
pub mod journal;
pub mod kafka;
pub mod lines;
pub mod log;
pub mod memory;
pub mod model;
pub mod pipeline;
pub mod printable;
pub mod record;
pub mod registry;
pub mod repeated;
pub mod schema;
pub mod service;
pub mod sqlite;
pub mod status;
pub mod telemetry;
pub mod tls;
pub mod verify;
pub mod workers;

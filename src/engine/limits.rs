//! What bounds the core, from the configuration.

use std::time::Duration;

use crate::config::{Config, WhenIdle};
use crate::pipeline::{Limits, batch};

/// The core's limits. Of `limits.memory`, three sixteenths are for records between arrival and commit, as much for their
/// outcomes and as much for the client's queues; what is being decoded and what is being sent have the rest.
pub fn limits(config: &Config) -> Limits {
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    Limits {
        batch: batch::Limits {
            max_records: count(config.batch.max_records),
            max_bytes: config.batch.max_bytes.0,
            max_tokens: u64::from(config.batch.max_tokens),
            max_wait: config.batch.max_wait.0,
            flush_when_idle: config.batch.when_idle == WhenIdle::Flush,
        },
        lanes: usize::from(config.kafka.lanes.max(1)),
        slots: 2,
        buffer_bytes: config.limits.memory.0 / 16 * 3,
        outcome_bytes: config.limits.memory.0 / 16 * 3,
        commit_wait: config.commit.max_wait.0,
        commit_batches: count(config.commit.max_batches),
        tail_every: Duration::from_secs(1),
        max_dead_ratio: config.dead_letters.max_ratio,
        dead_window: count(config.dead_letters.window),
        takeover_wait: config.model.takeover_wait.0,
    }
}

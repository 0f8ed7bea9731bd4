//! Every field of `/api/status`.

/// A field, as it is answered.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Where it stands; `[]` is each element of a list.
    pub path: &'static str,
    /// `text`, `number`, `true or false`, or `any`; with `or null` where it may be absent.
    pub kind: &'static str,
    /// What it says.
    pub help: &'static str,
}

const fn field(path: &'static str, kind: &'static str, help: &'static str) -> Field {
    Field { path, kind, help }
}

/// Every field. README's table is this one; a test compares them, and what is answered, with it.
pub const FIELDS: &[Field] = &[
    field("sentence", "text", "What it does now."),
    field("state", "text", "`starting`, `running`, `paused`, `stopping` or `stopped`."),
    field("health.ready", "true or false", "As `/readyz`."),
    field("health.reasons[]", "text", "Why it is not ready."),
    field("health.warnings[]", "text", "What to look at though it is ready."),
    field("now.records_per_s", "number", "Records with an outcome a second, in the last minute."),
    field(
        "now.lag",
        "number or null",
        "Offsets between what is committed and the ends of our partitions; null: none is ours, or not known.",
    ),
    field(
        "now.held_back",
        "number",
        "Those of them that cannot be read: behind a transaction that its producer has not ended.",
    ),
    field(
        "now.drains",
        "text",
        "Whether the lag falls, what flows in counted: `yes`, `no`, `unknown`.",
    ),
    field("now.drain_s", "number or null", "Seconds until it is gone; null: not known, or never."),
    field(
        "now.partitions",
        "number or null",
        "Partitions that are ours; null before the first assignment.",
    ),
    field(
        "now.last_commit_age_s",
        "number",
        "Since records were committed last, or since the start.",
    ),
    field("now.has_committed", "true or false", "Whether any were committed since the start."),
    field(
        "now.waited_s",
        "number",
        "The longest that a partition's records have waited, none of them committed since.",
    ),
    field(
        "now.in_model_s",
        "number or null",
        "How long the model has had a batch that takes 5 s or longer; null while its answers come soon.",
    ),
    field("now.in_model_records", "number or null", "The records of that batch."),
    field(
        "hour.step_s",
        "number",
        "What a step of the last hour lasts. The oldest is first; the last is not over.",
    ),
    field("hour.records[]", "number", "Records with an outcome in a step."),
    field("hour.dead_letters[]", "number", "Dead letters among them."),
    field("hour.lag[]", "number or null", "Offsets behind."),
    field("partitions[].topic", "text", "The 32 partitions that are furthest behind: topic,"),
    field("partitions[].partition", "number", "number,"),
    field("partitions[].lag", "number or null", "offsets behind,"),
    field("partitions[].held_back", "number", "those of them that cannot be read,"),
    field(
        "partitions[].held_back_s",
        "number or null",
        "since when a producer's transaction that is not ended holds them back (or null),",
    ),
    field("partitions[].held_back_at", "number or null", "the offset where it begins (or null),"),
    field(
        "partitions[].last_commit_age_s",
        "number",
        "time since its last commit, or since it is ours,",
    ),
    field(
        "partitions[].has_committed",
        "true or false",
        "whether something of it was committed since it is ours,",
    ),
    field(
        "partitions[].waited_s",
        "number",
        "how long records have waited, none of them committed since,",
    ),
    field("partitions[].records[]", "number", "records in each minute of the last hour,"),
    field("partitions[].lags[]", "number or null", "offsets behind in each."),
    field("partitions_left_out", "number", "How many more are ours, up to 256 in all."),
    field("batches.count", "number", "Batches that were committed in the last hour;"),
    field("batches.records", "number", "records of one, on average;"),
    field("batches.tokens", "number", "tokens;"),
    field("batches.bytes", "number", "payload bytes;"),
    field("batches.cached", "number", "the share of records that were answered from the cache."),
    field("batches.reasons[].name", "text", "What closed batches,"),
    field("batches.reasons[].count", "number", "and how many, most first."),
    field("stages[].stage", "text", "`decode`, `wait`, `infer`, `encode`, `commit`:"),
    field(
        "stages[].mean_s",
        "number",
        "a batch's time in it, on average over the last hour, of a commit its part of it;",
    ),
    field("stages[].share", "number", "its share of all stages."),
    field("models.serving.name", "text", "The version that serves (null before): model,"),
    field("models.serving.version", "number", "version,"),
    field("models.serving.digest", "text", "digest of its files."),
    field(
        "models.staged",
        "number or null",
        "A version that is ready and is taken with the next batch; null: none.",
    ),
    field(
        "models.refused.at",
        "number",
        "The version that the registry names and that was refused (or null): when last,",
    ),
    field("models.refused.version", "number", "version,"),
    field("models.refused.holds", "true or false", "true,"),
    field("models.refused.reason", "text", "and why."),
    field(
        "models.swaps[].at",
        "number",
        "The last 16 swaps, the newest first: when (ms since 1970),",
    ),
    field("models.swaps[].from", "number", "the version before,"),
    field("models.swaps[].to", "number", "and since."),
    field("models.refusals[].at", "number", "The last 16 refusals, the newest first: when,"),
    field("models.refusals[].version", "number", "version,"),
    field("models.refusals[].holds", "true or false", "whether that is still so,"),
    field("models.refusals[].reason", "text", "and why."),
    field("dead_letters.classes[].name", "text", "Dead letters of the last hour: class,"),
    field("dead_letters.classes[].count", "number", "and how many, most first."),
    field("dead_letters.last[].at", "number", "The last 16, the newest first: when,"),
    field("dead_letters.last[].topic", "text", "topic,"),
    field("dead_letters.last[].partition", "number", "partition,"),
    field("dead_letters.last[].offset", "number", "offset,"),
    field("dead_letters.last[].class", "text", "class,"),
    field("dead_letters.last[].reason", "text", "and why, never with its content."),
    field("process.version", "text", "Of Tidemill."),
    field("process.commit", "text or null", "Of its source, where the build was told."),
    field("process.target", "text", "Architecture and system."),
    field("process.devices", "text", "Devices that it was built for."),
    field("process.group", "text", "Consumer group."),
    field("process.started", "number", "When it was started, ms since 1970."),
    field("process.now", "number", "Now, by its clock."),
    field("process.uptime_s", "number", "Seconds since the start."),
    field("process.memory_bytes", "number or null", "Resident memory."),
    field(
        "process.memory_used_bytes",
        "number or null",
        "Memory in use of its cgroup, page cache not counted, or of the machine where that leaves less,",
    ),
    field("process.memory_limit_bytes", "number or null", "and how much there is of that."),
    field("config", "any", "The configuration in force, with `(not shown)` for secrets."),
];

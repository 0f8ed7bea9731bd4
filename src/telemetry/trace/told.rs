//! What is told, in few bytes, and the spans that are made of it when they are sent.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use uuid::Uuid;

use super::now;
use crate::log::{How, TraceParent};
use crate::record::{FaultClass, ModelId, Offset, Partition, Reason, Version};
use crate::telemetry::stage::Stage;

/// A sampled record of a batch.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its span here.
    pub own: TraceParent,
    /// The span that it came with.
    pub parent: [u8; 8],
    /// `tracestate` as it came.
    pub state: Option<Box<str>>,
    /// Its partition.
    pub place: Partition,
    /// Its offset there.
    pub offset: Offset,
    /// When it was here, not decoded yet.
    pub arrived: Instant,
    /// Whether it had no value.
    pub tombstone: bool,
    /// Of a dead letter: why.
    pub class: Option<FaultClass>,
}

/// A batch that was committed.
#[derive(Debug)]
pub struct Batch {
    /// Its span.
    pub own: TraceParent,
    /// The id in headers and manifests.
    pub id: Uuid,
    /// The version that answered.
    pub model: Arc<ModelId>,
    /// What closed it.
    pub reason: Reason,
    /// Its records.
    pub records: usize,
    /// What they cost the model, tokens.
    pub tokens: u64,
    /// How its transaction ended.
    pub how: Option<How>,
    /// The topic of its records, where they have the same.
    pub topic: Option<u16>,
    /// Its stages in order, by their names.
    pub stages: Vec<(&'static str, Stage)>,
    /// Its sampled records.
    pub rows: Vec<Row>,
}

/// A version that went through the gate.
#[derive(Debug)]
pub struct Load {
    /// Its name in the registry; empty for a plain directory.
    pub name: String,
    /// Its number.
    pub version: Version,
    /// From the first look at it until it was loaded or refused.
    pub whole: Stage,
    /// The steps in order, with the time that each took; the last one ended with `whole`.
    pub steps: Vec<(&'static str, Duration)>,
    /// Why it was refused.
    pub refused: Option<String>,
}

/// A version that serves in the place of another.
#[derive(Debug)]
pub struct Swap {
    /// The version before.
    pub from: Version,
    /// The one that serves now.
    pub to: ModelId,
    /// From when it was staged until its first batch was closed.
    pub whole: Stage,
}

/// What waits to be sent.
#[derive(Debug)]
pub(super) enum Told {
    Batch(Box<Batch>),
    Load(Box<Load>, TraceParent),
    Swap(Box<Swap>, TraceParent),
}

impl Told {
    /// How many spans are made of it.
    pub(super) fn spans(&self) -> usize {
        match self {
            Self::Batch(batch) => 1 + batch.stages.len() + batch.rows.len(),
            Self::Load(load, _) => 1 + load.steps.len(),
            Self::Swap(..) => 1,
        }
    }

    /// Leaves out records until it makes so many spans at most, and says how many it makes; 0 where that is not enough.
    pub(super) fn truncate(&mut self, most: usize) -> usize {
        if let Self::Batch(batch) = self {
            batch.rows.truncate(most.saturating_sub(1 + batch.stages.len()));
        }
        if self.spans() <= most { self.spans() } else { 0 }
    }
}

/// What all spans have in common, and how they are made.
#[derive(Debug)]
pub(super) struct Maker {
    /// `messaging.system`.
    pub(super) system: &'static str,
    pub(super) group: String,
    pub(super) topics: Vec<String>,
    scope: InstrumentationScope,
}

/// The semantic conventions that names of attributes are taken from.
pub(super) const SCHEMA: &str = "https://opentelemetry.io/schemas/1.42.0";

impl Maker {
    pub(super) fn new(system: &'static str, group: String, topics: Vec<String>) -> Self {
        let scope = InstrumentationScope::builder("tidemill")
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(SCHEMA)
            .build();
        Self { system, group, topics, scope }
    }

    /// The spans of what was told, one by one: many records make many of them, and none is made before it is sent.
    pub(super) fn spans<'a>(&'a self, told: &'a Told) -> Box<dyn Iterator<Item = SpanData> + 'a> {
        let clock = Clock::new();
        match told {
            Told::Batch(batch) => {
                let stages = batch.stages.iter().enumerate();
                let stages =
                    stages.map(move |(number, stage)| self.stage(batch, number, *stage, clock));
                let rows = batch.rows.iter().map(move |row| self.row(batch, row, clock));
                Box::new(std::iter::once(self.batch(batch, clock)).chain(stages).chain(rows))
            }
            Told::Load(load, own) => Box::new(self.load(load, *own, clock).into_iter()),
            Told::Swap(swap, own) => Box::new(std::iter::once(self.swap(swap, *own, clock))),
        }
    }

    fn span(&self, name: impl Into<Cow<'static, str>>, own: TraceParent) -> SpanData {
        SpanData {
            span_context: context(own, None, false),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: name.into(),
            start_time: SystemTime::UNIX_EPOCH,
            end_time: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
    }

    /// What is said of all that is done with messages of a topic; `None` are several topics.
    fn process(&self, topic: Option<u16>, own: TraceParent) -> SpanData {
        let topic = topic.and_then(|topic| self.topics.get(usize::from(topic)));
        let name = topic.map(|topic| Cow::from(format!("process {topic}")));
        let mut span = self.span(name.unwrap_or(Cow::Borrowed("process")), own);
        span.span_kind = SpanKind::Consumer;
        span.attributes = vec![
            KeyValue::new("messaging.system", self.system),
            KeyValue::new("messaging.operation.name", "process"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.consumer.group.name", self.group.clone()),
        ];
        let name = topic.map(|topic| KeyValue::new("messaging.destination.name", topic.clone()));
        span.attributes.extend(name);
        span
    }

    fn batch(&self, batch: &Batch, clock: Clock) -> SpanData {
        let mut span = self.process(batch.topic, batch.own);
        let stages = || batch.stages.iter().map(|(_, stage)| stage);
        let (start, end) = (stages().map(|stage| stage.start).min(), stages().map(|s| s.end).max());
        (span.start_time, span.end_time) = (clock.wall(start), clock.wall(end));
        span.attributes.extend([
            KeyValue::new("messaging.batch.message_count", integer(batch.records)),
            KeyValue::new("tidemill.batch.id", batch.id.to_string()),
            KeyValue::new("tidemill.batch.reason", batch.reason.name()),
            KeyValue::new("tidemill.batch.tokens", integer(batch.tokens)),
            KeyValue::new("tidemill.model.name", batch.model.name.to_string()),
            KeyValue::new("tidemill.model.version", batch.model.version.to_string()),
        ]);
        let how = batch.how.map(|how| KeyValue::new("tidemill.transaction.outcome", how.name()));
        span.attributes.extend(how);
        // As many as there are records: the SDK's limit of 128 is the SDK's spans'.
        span.links.links = batch
            .rows
            .iter()
            .map(|row| {
                let parent = TraceParent { span: row.parent, ..row.own };
                Link::with_context(context(parent, row.state.as_deref(), true))
            })
            .collect();
        span
    }

    /// A stage's id is the batch's and its number: nobody else names it.
    fn stage(
        &self,
        batch: &Batch,
        number: usize,
        (name, stage): (&'static str, Stage),
        clock: Clock,
    ) -> SpanData {
        let mut span = self.span(name, child(batch.own, number));
        span.parent_span_id = SpanId::from_bytes(batch.own.span);
        (span.start_time, span.end_time) =
            (clock.wall(Some(stage.start)), clock.wall(Some(stage.end)));
        let busy = i64::try_from(stage.busy.as_micros()).unwrap_or(i64::MAX);
        span.attributes.push(KeyValue::new("tidemill.stage.busy_us", busy));
        span
    }

    fn row(&self, batch: &Batch, row: &Row, clock: Clock) -> SpanData {
        let mut span = self.process(Some(row.place.topic), row.own);
        span.span_context = context(row.own, row.state.as_deref(), false);
        span.parent_span_id = SpanId::from_bytes(row.parent);
        span.parent_span_is_remote = true;
        let end = batch.stages.iter().map(|(_, stage)| stage.end).max();
        (span.start_time, span.end_time) = (clock.wall(Some(row.arrived)), clock.wall(end));
        span.attributes.extend([
            KeyValue::new("messaging.destination.partition.id", row.place.number.to_string()),
            KeyValue::new("messaging.kafka.offset", row.offset.0),
            KeyValue::new("tidemill.batch.id", batch.id.to_string()),
            KeyValue::new("tidemill.model.version", batch.model.version.to_string()),
        ]);
        if row.tombstone {
            span.attributes.push(KeyValue::new("messaging.kafka.message.tombstone", true));
        }
        if let Some(class) = row.class {
            span.attributes.push(KeyValue::new("error.type", class.name()));
            span.status = Status::error("dead letter");
        }
        span.links.links = vec![Link::with_context(context(batch.own, None, false))];
        span
    }

    fn load(&self, load: &Load, own: TraceParent, clock: Clock) -> Vec<SpanData> {
        let mut whole = self.span(format!("load {}", load.name), own);
        (whole.start_time, whole.end_time) =
            (clock.wall(Some(load.whole.start)), clock.wall(Some(load.whole.end)));
        whole.attributes = vec![
            KeyValue::new("tidemill.model.name", load.name.clone()),
            KeyValue::new("tidemill.model.version", load.version.to_string()),
        ];
        let refused = load.refused.as_ref().map(|why| Status::error(why.clone()));
        whole.status = refused.clone().unwrap_or_default();
        let all: Duration = load.steps.iter().map(|(_, took)| *took).sum();
        let mut start = load.whole.end.checked_sub(all).unwrap_or(load.whole.start);
        let last = load.steps.len().saturating_sub(1);
        let steps = load.steps.iter().enumerate().map(|(number, (name, took))| {
            let mut step = self.span(format!("gate {name}"), child(own, number));
            step.parent_span_id = SpanId::from_bytes(own.span);
            step.start_time = clock.wall(Some(start));
            start += *took;
            step.end_time = clock.wall(Some(start));
            if number == last {
                step.status = refused.clone().unwrap_or_default();
            }
            step
        });
        let steps: Vec<SpanData> = steps.collect();
        std::iter::once(whole).chain(steps).collect()
    }

    fn swap(&self, swap: &Swap, own: TraceParent, clock: Clock) -> SpanData {
        let mut span = self.span(format!("swap {}", swap.to.name), own);
        (span.start_time, span.end_time) =
            (clock.wall(Some(swap.whole.start)), clock.wall(Some(swap.whole.end)));
        span.attributes = vec![
            KeyValue::new("tidemill.model.name", swap.to.name.to_string()),
            KeyValue::new("tidemill.model.version", swap.to.version.to_string()),
            KeyValue::new("tidemill.model.version.before", swap.from.to_string()),
        ];
        span
    }
}

/// The ids of a span inside of another one: its own number is added, so that none stands twice in the trace.
fn child(own: TraceParent, number: usize) -> TraceParent {
    let number = u64::try_from(number).unwrap_or_default() + 1;
    let span = u64::from_be_bytes(own.span).wrapping_add(number).max(1);
    TraceParent { span: span.to_be_bytes(), ..own }
}

fn context(parent: TraceParent, state: Option<&str>, remote: bool) -> SpanContext {
    let state = state.and_then(|state| state.parse().ok()).unwrap_or(TraceState::NONE);
    SpanContext::new(
        TraceId::from_bytes(parent.trace),
        SpanId::from_bytes(parent.span),
        TraceFlags::new(parent.flags),
        remote,
        state,
    )
}

fn integer(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// What the wall clock says now, to tell when something was.
#[derive(Debug, Clone, Copy)]
struct Clock {
    now: Instant,
    wall: SystemTime,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "spans bear the time of the wall")]
    fn new() -> Self {
        Self { now: now(), wall: SystemTime::now() }
    }

    fn wall(self, at: Option<Instant>) -> SystemTime {
        let ago = at.map_or(Duration::ZERO, |at| self.now.saturating_duration_since(at));
        self.wall.checked_sub(ago).unwrap_or(self.wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> TraceParent {
        TraceParent { trace: [1; 16], span: [0xff; 8], flags: 1 }
    }

    fn maker() -> Maker {
        Maker::new("kafka", "g".to_owned(), vec!["in".to_owned()])
    }

    /// The steps lie end to end and end with the load; the one that refused says why, and so does the load.
    #[test]
    fn a_load_is_a_span_with_its_steps_inside() {
        let ms = Duration::from_millis;
        let start = now().checked_sub(ms(100)).unwrap();
        let told = Told::Load(
            Box::new(Load {
                name: "reviews".to_owned(),
                version: Version(3),
                whole: Stage::new(start, start + ms(100)),
                steps: vec![("folder", ms(10)), ("build", ms(30))],
                refused: Some("no".to_owned()),
            }),
            own(),
        );
        let maker = maker();
        let spans: Vec<SpanData> = maker.spans(&told).collect();
        assert_eq!(spans.len(), told.spans());
        let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
        assert_eq!(names, ["load reviews", "gate folder", "gate build"]);
        let after = |span: &SpanData, other: &SpanData| {
            span.start_time.duration_since(other.start_time).unwrap()
        };
        assert_eq!(after(&spans[1], &spans[0]), ms(60));
        assert_eq!(spans[1].end_time, spans[2].start_time);
        assert_eq!(spans[2].end_time, spans[0].end_time);
        let failed: Vec<bool> =
            spans.iter().map(|span| matches!(span.status, Status::Error { .. })).collect();
        assert_eq!(failed, [true, false, true]);
        for span in &spans[1..] {
            assert_eq!(span.parent_span_id, spans[0].span_context.span_id());
            assert!(span.span_context.is_valid(), "an id that overflows is not 0");
        }
    }

    #[test]
    fn a_swap_is_a_span() {
        let to = ModelId { name: "reviews".into(), version: Version(4), digest: "d".into() };
        let whole = Stage::new(now(), now());
        let told = Told::Swap(Box::new(Swap { from: Version(3), to, whole }), own());
        let maker = maker();
        let spans: Vec<SpanData> = maker.spans(&told).collect();
        let [span] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!(span.name, "swap reviews");
        let before = KeyValue::new("tidemill.model.version.before", "3");
        assert!(span.attributes.contains(&before), "{:?}", span.attributes);
    }
}

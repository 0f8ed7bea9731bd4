//! What the standard `OTEL_*` variables say of traces. What is not set has OpenTelemetry's default, but for the queue.

use std::time::Duration;

use crate::failure::Failure;
use crate::telemetry::otlp::collector::{Collector, Signal, number};

/// How spans are chosen, kept and sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    /// Where to.
    pub(super) collector: Collector,
    pub(super) sampler: Sampler,
    /// Most spans that wait to be sent.
    pub(super) queue: usize,
    /// Most spans of one request.
    pub(super) batch: usize,
    /// How long spans wait for company.
    pub(super) delay: Duration,
}

/// Which spans are recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sampler {
    /// Whether what began a trace decides for all of it.
    pub(super) parent: bool,
    /// For traces that begin here, and for all where parents do not decide: the share that is recorded.
    pub(super) share: f64,
}

impl Sampler {
    /// The names of the variable, with what they mean; `None` is the variable's argument.
    const NAMES: [(&'static str, bool, Option<f64>); 6] = [
        ("always_on", false, Some(1.0)),
        ("always_off", false, Some(0.0)),
        ("traceidratio", false, None),
        ("parentbased_always_on", true, Some(1.0)),
        ("parentbased_always_off", true, Some(0.0)),
        ("parentbased_traceidratio", true, None),
    ];

    /// Whether a trace that nobody has decided about is recorded: by the last 56 bits of its id, which are the random ones.
    pub(super) fn takes(self, trace: [u8; 16]) -> bool {
        // A float holds 53 of them.
        let random = (u128::from_be_bytes(trace) & ((1 << 56) - 1)) >> 3;
        #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
        let place = random as f64 / (1_u64 << 53) as f64;
        place < self.share
    }
}

/// The queue where no variable says: a transaction of several full batches, every record of them sampled.
const QUEUE: usize = 32_768;

impl Settings {
    /// `None`: nothing names a collector, or traces are turned off. `endpoint` is the configuration's.
    ///
    /// # Errors
    ///
    /// An address that is none, by the variable that gives it. Other values that cannot be read are said in the log, and
    /// the default stands in for them, as OpenTelemetry has it.
    pub(super) fn read(
        variable: impl Fn(&str) -> Option<String>,
        endpoint: Option<&str>,
    ) -> Result<Option<Self>, Failure> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let Some(collector) = Collector::read(&set, Signal::Traces, endpoint)? else {
            return Ok(None);
        };
        let queue = number(&set, "OTEL_BSP_MAX_QUEUE_SIZE", QUEUE);
        Ok(Some(Self {
            collector,
            sampler: sampler(&set),
            queue,
            batch: number(&set, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512).min(queue),
            delay: Duration::from_millis(number(&set, "OTEL_BSP_SCHEDULE_DELAY", 5_000)),
        }))
    }
}

fn sampler(set: &impl Fn(&str) -> Option<String>) -> Sampler {
    let default = Sampler { parent: true, share: 1.0 };
    let Some(name) = set("OTEL_TRACES_SAMPLER") else { return default };
    let Some((_, parent, share)) = Sampler::NAMES.into_iter().find(|(known, ..)| *known == name)
    else {
        tracing::warn!(
            "OTEL_TRACES_SAMPLER is {name:?}, which is not known here: parentbased_always_on is used"
        );
        return default;
    };
    let share = share.unwrap_or_else(|| {
        let argument = set("OTEL_TRACES_SAMPLER_ARG");
        let read = argument.as_ref().and_then(|text| text.parse().ok());
        let share = read.filter(|share| (0.0..=1.0).contains(share));
        if share.is_none() && argument.is_some() {
            let argument = argument.unwrap_or_default();
            tracing::warn!(
                "OTEL_TRACES_SAMPLER_ARG is {argument:?}, which is no number from 0 to 1: 1 is used"
            );
        }
        share.unwrap_or(1.0)
    });
    Sampler { parent, share }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)], key: Option<&str>) -> Result<Option<Settings>, String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Settings::read(variable, key).map_err(|failure| failure.message)
    }

    #[test]
    fn variables_are_heard_and_wrong_ones_are_not() {
        let with = |variables: &[(&str, &str)]| read(variables, Some("http://c")).unwrap().unwrap();
        let default = with(&[]);
        assert_eq!((default.queue, default.batch), (32_768, 512));
        assert_eq!(default.sampler, Sampler { parent: true, share: 1.0 });
        let heard = with(&[
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ]);
        assert_eq!((heard.queue, heard.batch), (100, 100));
        assert_eq!(heard.delay, Duration::from_millis(20));
        assert_eq!(heard.sampler, Sampler { parent: false, share: 0.25 });
        let wrong = with(&[
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ]);
        assert_eq!(wrong, default);
        let ratio = with(&[
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ]);
        assert_eq!(ratio.sampler, Sampler { parent: true, share: 1.0 });
    }

    #[test]
    fn a_share_of_traces_is_taken() {
        let trace = |random: u128| ((7_u128 << 100) | random).to_be_bytes();
        for (share, random, taken) in [
            (0.0, 0, false),
            (1.0, (1 << 56) - 1, true),
            (0.5, (1 << 55) - 1, true),
            (0.5, 1 << 55, false),
        ] {
            let sampler = Sampler { parent: false, share };
            assert_eq!(sampler.takes(trace(random)), taken, "{share} {random:x}");
        }
    }
}

//! Why something cannot be proven, in words.

use crate::printable::escaped;
use crate::verify::checker::Checker;

/// Why something cannot be proven. In the order in which it is shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    InputDeleted,
    InputCompacted,
    ManifestDeleted,
    Second,
    /// Where the first manifest begins, if there is one.
    Began(Option<i64>),
    Skipped,
    Jumped,
    /// The topic id that the committed offset is of.
    Stale(String),
    /// The topic, by its place, and the partition.
    Deleted(usize, i32),
    Compacted(usize),
    Silent,
    Ambiguous,
    Order,
    VersionHole,
}

impl Why {
    /// What follows "because", for an input partition.
    pub(super) fn because(&self, checker: &Checker, place: usize) -> String {
        let scope = &checker.scope;
        let log = |log: usize| scope.logs.get(log).map_or("?", String::as_str);
        let words = match self {
            Self::InputDeleted => {
                "the input's records were deleted: whether all of them were answered is not known; the outcomes that \
                 are there are judged"
            }
            Self::InputCompacted => {
                "no record stands there: the topic is compacted, or its settings cannot be read"
            }
            Self::ManifestDeleted => {
                "the outcomes are there, and the manifests of their batches were deleted"
            }
            Self::Second => {
                "there is a second outcome, of a batch whose manifest was deleted: it may be of another group or of an \
                 earlier topic"
            }
            Self::Began(None) => {
                return format!("no manifest of group {} tells of them", scope.group);
            }
            Self::Began(Some(first)) => {
                return format!(
                    "no manifest of group {} begins before {first}: it may have begun there (kafka.start_from: \
                     latest, or an offset that was set)",
                    scope.group
                );
            }
            Self::Skipped => {
                "they were passed over on purpose: answered before the topic was known to be a new one"
            }
            Self::Jumped => {
                "no manifest tells of them, and the configuration lets the group pass over records \
                 (kafka.on_out_of_range: latest, or kafka.on_missing_offset: start)"
            }
            Self::Stale(id) => {
                let present = scope.topics[checker.states[place].input.topic].id.as_deref();
                let (id, present) = (escaped(id, ""), present.unwrap_or("unknown"));
                return format!(
                    "the committed offset is of topic id {id}, the present one is {present}"
                );
            }
            Self::Deleted(topic, partition) => {
                return format!("the beginning of {}/{partition} was deleted", log(*topic));
            }
            Self::Compacted(topic) => return format!("{} is compacted", log(*topic)),
            Self::Silent => "predictions do not say what they answer (output.headers: none)",
            Self::Ambiguous => {
                "predictions do not say which input partition they are of (output.headers: compact), and the \
                 manifests do not tell"
            }
            Self::Order => {
                "each has one outcome, but not in which order: predictions do not say which input partition they are \
                 of (output.headers: compact)"
            }
            Self::VersionHole => "the version went back, and the manifests before were deleted",
        };
        words.to_owned()
    }
}

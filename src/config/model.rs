//! Which model, on which device, and where its versions come from.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Place, Size, Time, Uri};
use crate::answer::Task;

/// Which model, on which device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// `models:/name@alias`, `models:/name/3`, or a directory. Required.
    pub uri: Uri,
    /// How often the alias is looked up.
    pub poll: Time,
    /// What a new version may change.
    pub allow_change: Vec<Change>,
    /// How long a partition is held back whose last answer is of another version than the one that serves here.
    pub takeover_wait: Time,
    /// `cpu`, `cuda:0`, several as `cuda:0,cuda:1`, `metal:0`.
    pub device: Place,
    /// Inference threads; `auto` is one a core, on GPUs one a device.
    pub workers: Workers,
    /// What the model is for; default: what its files say.
    pub task: Option<Task>,
    /// What the weights are computed in.
    pub precision: Precision,
    /// Whether an answer's last bits may depend on the batch.
    pub determinism: Determinism,
    /// Memory for answers that are given again to equal inputs; 0 computes each.
    pub cache: Size,
    /// What happens to a text longer than the model takes.
    pub on_long: OnLong,
    /// Where a text is cut into windows: how many tokens of one are also the next one's first, at most.
    pub chunk_overlap: u32,
    /// Longest input in tokens; default: what the model's own files say.
    pub max_length: Option<u32>,
    /// How a token classifier's labels become spans.
    pub aggregation: Aggregation,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            uri: Uri::default(),
            poll: Time::millis(10_000),
            allow_change: Vec::new(),
            takeover_wait: Time::millis(60_000),
            device: Place::Cpu,
            workers: Workers::Auto,
            task: None,
            precision: Precision::F32,
            determinism: Determinism::Fast,
            cache: Size(0),
            on_long: OnLong::Truncate,
            chunk_overlap: 0,
            max_length: None,
            aggregation: Aggregation::Simple,
        }
    }
}

/// What a new version may change against the one that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// The fields that it reads.
    Fields,
    /// The task, the kind or width of the output, or the labels.
    Output,
}

/// How many inference threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Workers {
    /// One for each core; on GPUs one for each device.
    #[default]
    Auto,
    /// This many.
    #[serde(untagged)]
    Count(u16),
}

/// What the weights are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As the checkpoint was trained.
    #[default]
    F32,
    /// Half the memory; on GPUs, and on CPUs with `AVX512_BF16`.
    Bf16,
    /// Half the memory, more digits, less range; on GPUs.
    F16,
    /// Weights per channel, activations per row; a quarter of the memory.
    Int8,
    /// On the CPU the fastest that keeps the mean cosine to f32 above 0.995; on GPUs bf16.
    Auto,
}

/// Whether an answer's last bits may depend on the batch that its record was in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Determinism {
    /// They may, on GPUs.
    #[default]
    Fast,
    /// They never do: on a GPU a model runs one record a call.
    Strict,
}

/// What happens to a text longer than the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLong {
    /// Its beginning is used, or its end where the model's tokenizer keeps that.
    #[default]
    Truncate,
    /// It becomes a dead letter.
    Reject,
    /// Every text is answered in the windows that the model takes, each with its place and an embedding of its own.
    Chunks,
    /// Every text is answered with the mean of its windows' embeddings, weighted by their tokens.
    Mean,
}

impl OnLong {
    /// Whether texts are cut into windows.
    pub fn cuts(self) -> bool {
        match self {
            Self::Truncate | Self::Reject => false,
            Self::Chunks | Self::Mean => true,
        }
    }
}

/// How labels of tokens become spans of a text: transformers' `aggregation_strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aggregation {
    /// Each token is a span.
    None,
    /// Tokens of one entity that follow each other are a span.
    #[default]
    Simple,
    /// As `simple` on words, each labelled as its first token.
    First,
    /// As `simple` on words, each labelled by the mean of its tokens' scores.
    Average,
    /// As `simple` on words, each labelled as its surest token.
    Max,
}

/// Where versions come from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// The directory `<root>` of `<root>/<name>/<version>/…`.
    pub root: Option<PathBuf>,
}

//! What a family's checkpoint calls its tensors, and the tables that are made of them.

use super::config::{Config, Family};
use crate::model::files::Error;
use crate::model::weights::Weights;

/// The tensor that every encoder of these families has.
const WORDS: &str = "embeddings.word_embeddings.weight";

/// Names of a family's tensors.
pub(in crate::model) struct Names {
    prefix: String,
    family: Family,
    /// What a layer calls its parts.
    pub(in crate::model) parts: Parts,
}

/// The parts of a layer.
pub(in crate::model) struct Parts {
    layers: &'static str,
    pub(in crate::model) qkv: [&'static str; 3],
    pub(in crate::model) attended: &'static str,
    pub(in crate::model) attended_norm: &'static str,
    pub(in crate::model) up: &'static str,
    pub(in crate::model) down: &'static str,
    pub(in crate::model) norm: &'static str,
}

impl Family {
    const fn parts(self) -> Parts {
        const BERT: Parts = Parts {
            layers: "encoder.layer",
            qkv: ["attention.self.query", "attention.self.key", "attention.self.value"],
            attended: "attention.output.dense",
            attended_norm: "attention.output.LayerNorm",
            up: "intermediate.dense",
            down: "output.dense",
            norm: "output.LayerNorm",
        };
        match self {
            Self::Bert | Self::Roberta => BERT,
            Self::Mpnet => Parts {
                qkv: ["attention.attn.q", "attention.attn.k", "attention.attn.v"],
                attended: "attention.attn.o",
                attended_norm: "attention.LayerNorm",
                ..BERT
            },
            Self::DistilBert => Parts {
                layers: "transformer.layer",
                qkv: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
                attended: "attention.out_lin",
                attended_norm: "sa_layer_norm",
                up: "ffn.lin1",
                down: "ffn.lin2",
                norm: "output_layer_norm",
            },
        }
    }
}

impl Names {
    /// With what stands before the encoder's names in the file: what a model with a head of the family calls its encoder,
    /// else nothing, else what one of another family does.
    pub(in crate::model) fn new(family: Family, weights: &Weights) -> Self {
        let own = match family {
            Family::Bert => "bert.",
            Family::DistilBert => "distilbert.",
            Family::Roberta => "roberta.",
            Family::Mpnet => "mpnet.",
        };
        let known = [own, "", "model.", "bert.", "roberta.", "distilbert.", "mpnet."];
        let holds = |prefix: &&str| weights.shape(&format!("{prefix}{WORDS}")).is_some();
        let prefix = known.into_iter().find(holds).unwrap_or_default();
        Self { prefix: prefix.to_owned(), family, parts: family.parts() }
    }

    /// The dense layer on the first token that BERT's classifiers stand on.
    pub(in crate::model) fn pooler(&self) -> String {
        format!("{}pooler.dense", self.prefix)
    }

    /// A tensor of the embedding.
    pub(in crate::model) fn embedding(&self, name: &str) -> String {
        format!("{}embeddings.{name}", self.prefix)
    }

    /// A part of a layer.
    pub(in crate::model) fn layer(&self, number: usize, part: &str) -> String {
        format!("{}{}.{number}.{part}", self.prefix, self.parts.layers)
    }

    /// The tables of words `[vocab, hidden]`, of positions `[positions, hidden]` and of token types `[1 or 2, hidden]`:
    /// zeros where the model has no types, and types beyond 1 left out.
    pub(in crate::model) fn tables(
        &self,
        config: &Config,
        weights: &Weights,
    ) -> Result<[Vec<f32>; 3], Error> {
        let hidden = config.hidden_size;
        let table = |name: &str, rows| {
            let name = self.embedding(&format!("{name}_embeddings.weight"));
            weights.take(&name, &[rows, hidden])
        };
        let words = table("word", config.vocab_size)?;
        let positions = table("position", config.max_position_embeddings)?;
        let mut types = match config.types(self.family) {
            0 => vec![0.0; hidden],
            rows => table("token_type", rows)?,
        };
        types.truncate(2 * hidden);
        Ok([words, positions, types])
    }

    /// What attention gains by distance, `[heads, 2 × REACH + 1]`, the same in all layers; `None` where nothing.
    pub(in crate::model) fn distances(
        &self,
        config: &Config,
        weights: &Weights,
    ) -> Result<Option<Vec<f32>>, Error> {
        match self.family {
            Family::Bert | Family::DistilBert | Family::Roberta => Ok(None),
            Family::Mpnet => {
                let (heads, prefix) = (config.num_attention_heads, &self.prefix);
                let name = format!("{prefix}encoder.relative_attention_bias.weight");
                let table = weights.take(&name, &[2 * BUCKETS, heads])?;
                Ok(Some(by_distance(&table, heads)))
            }
        }
    }
}

/// Distances of `MPNet` that can differ: from 91 tokens on all are in the last bucket.
pub(in crate::model) const REACH: usize = 91;

/// Buckets of distances in each direction.
const BUCKETS: usize = 16;

/// The bucket of a key that stands `distance` tokens from its query: one each below 8, from there on two for each
/// doubling. T5 (Raffel et al. 2020), at most 128: `8 + ⌊8 · ln(distance / 8) / ln 16⌋`, in whole numbers.
fn bucket(distance: usize) -> usize {
    match distance {
        0..8 => distance,
        8..REACH => usize::try_from((distance * distance).ilog2()).map_or(0, |log| log + 2),
        _ => BUCKETS - 1,
    }
}

/// A table by bucket, `[2 × BUCKETS, heads]` with keys before their query first, as one by head and distance.
fn by_distance(table: &[f32], heads: usize) -> Vec<f32> {
    let before = (1..=REACH).rev().map(bucket);
    // A key at its query's own place counts as one before it.
    let after = (1..=REACH).map(|distance| BUCKETS + bucket(distance));
    let rows: Vec<usize> = before.chain([bucket(0)]).chain(after).collect();
    (0..heads).flat_map(|head| rows.iter().map(move |row| table[row * heads + head])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `MPNetEncoder.relative_position_bucket` of transformers gives them: where each bucket begins.
    #[test]
    fn buckets_widen_with_the_distance() {
        let first = |wanted| (0..200).find(|distance| bucket(*distance) == wanted);
        let begins: Vec<usize> = (0..BUCKETS).filter_map(first).collect();
        assert_eq!(begins, [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]);
    }

    #[test]
    fn a_table_by_bucket_becomes_one_by_distance() {
        let table: Vec<f32> = (0..64_u8).map(f32::from).collect(); // [32 buckets, 2 heads]
        let by = by_distance(&table, 2);
        assert_eq!(by.len(), 2 * (2 * REACH + 1));
        let zero = REACH;
        let places = [zero, zero - 1, zero + 1, 0, 2 * REACH].map(|place| place + 2 * REACH + 1);
        let second: Vec<f32> = places.iter().map(|place| by[*place]).collect();
        assert_eq!(
            second,
            [1.0, 3.0, 35.0, 31.0, 63.0],
            "itself, before, after, far before, far after"
        );
        assert_eq!(by[..2], [30.0, 28.0], "head 0, far before: the last bucket, the one before it");
    }
}

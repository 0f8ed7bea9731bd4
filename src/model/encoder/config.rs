//! What a checkpoint of the BERT family says of itself.

use serde::Deserialize;
use serde_json::Value;

use super::activation::Activation;
use crate::model::files::{self, Error};

/// The layouts of checkpoints that this reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// BERT, `MiniLM`, BGE, E5, GTE as far as they are BERT.
    Bert,
    /// `DistilBERT`.
    DistilBert,
    /// `RoBERTa`, XLM-RoBERTa, `CamemBERT`: positions begin behind the padding id.
    Roberta,
    /// `MPNet`: as `RoBERTa`, and attention also looks at the distance of two tokens.
    Mpnet,
}

/// `config.json`, as far as it matters. What it does not say, or says with null, is what transformers takes for it.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Written")]
pub struct Config {
    /// `bert`, `distilbert`, `roberta`, `xlm-roberta`, `camembert`, `mpnet`.
    pub model_type: String,
    pub(in crate::model) hidden_size: usize,
    pub(in crate::model) num_hidden_layers: usize,
    pub(in crate::model) num_attention_heads: usize,
    pub(in crate::model) intermediate_size: usize,
    pub(in crate::model) vocab_size: usize,
    pub(in crate::model) max_position_embeddings: usize,
    pub(in crate::model) layer_norm_eps: f64,
    pub(in crate::model) type_vocab_size: usize,
    /// The name of its key, and what stands there.
    activation: (&'static str, Option<String>),
    /// Only some families look at it.
    pad_token_id: Option<Value>,
    position_embedding_type: Option<String>,
    /// The key that makes it look only backwards, where one does.
    causal: Option<String>,
}

/// The keys as they are written.
#[derive(Debug, Deserialize)]
struct Written {
    model_type: Option<String>,
    hidden_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    intermediate_size: Option<usize>,
    hidden_act: Option<String>,
    vocab_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    layer_norm_eps: Option<f64>,
    type_vocab_size: Option<usize>,
    pad_token_id: Option<Value>,
    position_embedding_type: Option<String>,
    is_decoder: Option<bool>,
    is_causal: Option<bool>,
    // `DistilBERT` has names of its own for these; it knows the others' names for the first three.
    dim: Option<usize>,
    n_layers: Option<usize>,
    n_heads: Option<usize>,
    hidden_dim: Option<usize>,
    activation: Option<String>,
}

impl From<Written> for Config {
    fn from(written: Written) -> Self {
        let model_type = written.model_type.unwrap_or_default();
        let distilled = model_type == "distilbert";
        let own = |own: Option<usize>, other: Option<usize>| {
            if distilled { own.or(other) } else { other }
        };
        let wide = if distilled { written.hidden_dim } else { written.intermediate_size };
        let layers = if distilled { 6 } else { 12 };
        let vocab = match &*model_type {
            "roberta" => 50_265,
            "mpnet" => 30_527,
            _ => 30_522,
        };
        Self {
            hidden_size: own(written.dim, written.hidden_size).unwrap_or(768),
            num_hidden_layers: own(written.n_layers, written.num_hidden_layers).unwrap_or(layers),
            num_attention_heads: own(written.n_heads, written.num_attention_heads).unwrap_or(12),
            intermediate_size: wide.unwrap_or(3_072),
            vocab_size: written.vocab_size.unwrap_or(vocab),
            max_position_embeddings: written.max_position_embeddings.unwrap_or(512),
            // `DistilBERT` has no such key.
            layer_norm_eps: written.layer_norm_eps.filter(|_| !distilled).unwrap_or(1e-12),
            type_vocab_size: written.type_vocab_size.unwrap_or(2),
            activation: if distilled {
                ("activation", written.activation)
            } else {
                ("hidden_act", written.hidden_act)
            },
            pad_token_id: written.pad_token_id,
            position_embedding_type: written.position_embedding_type,
            causal: match (written.is_decoder, written.is_causal) {
                (Some(true), _) => Some("is_decoder".to_owned()),
                (_, Some(true)) => Some("is_causal".to_owned()),
                _ => None,
            },
            model_type,
        }
    }
}

impl Config {
    /// The family, once everything that the forward relies on was checked.
    ///
    /// # Errors
    ///
    /// What is not supported, with what is.
    pub fn family(&self) -> Result<Family, Error> {
        let fail = |message: String| Err(Error::config("config.json", message));
        let family = match self.model_type.as_str() {
            "bert" => Family::Bert,
            "distilbert" => Family::DistilBert,
            "roberta" | "xlm-roberta" | "camembert" => Family::Roberta,
            "mpnet" => Family::Mpnet,
            other => {
                return fail(format!(
                    "model_type {other:?} is none of bert, distilbert, roberta, xlm-roberta, camembert, mpnet, \
                     modernbert, vit"
                ));
            }
        };
        self.activation()?;
        if let Some(key) = &self.causal {
            return fail(format!(
                "{key}: true is not supported; encoders, which look both ways, are"
            ));
        }
        if let Some(kind) =
            self.position_embedding_type.as_deref().filter(|kind| *kind != "absolute")
        {
            return fail(format!("position_embedding_type {kind:?}; only absolute is supported"));
        }
        files::bounded_layers(
            self.hidden_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.intermediate_size,
        )?;
        files::bounded(&[
            ("vocab_size", self.vocab_size, 4_000_000),
            ("max_position_embeddings", self.max_position_embeddings, 1_000_000),
        ])?;
        // 0 is a checkpoint without token types.
        files::bounded(&[("type_vocab_size", self.type_vocab_size.max(1), 65_536)])?;
        if family == Family::Roberta && self.vocab_size <= self.padding() {
            return fail(format!(
                "pad_token_id is {}, not one of the vocabulary's {} tokens",
                self.pad_token_id.clone().unwrap_or_else(|| 1.into()),
                self.vocab_size
            ));
        }
        let (first, positions) = (self.first_position(family), self.max_position_embeddings);
        if positions < first + 2 {
            return fail(format!(
                "max_position_embeddings is {positions}: two tokens want {}, because positions begin at {first}",
                first + 2
            ));
        }
        if !(self.layer_norm_eps.is_finite() && 0.0 < self.layer_norm_eps) {
            return fail(format!("layer_norm_eps is {}", self.layer_norm_eps));
        }
        let dim = self.hidden_size / self.num_attention_heads;
        if dim * self.num_attention_heads != self.hidden_size {
            return fail(format!(
                "hidden_size {} does not divide into {} heads",
                self.hidden_size, self.num_attention_heads
            ));
        }
        Ok(family)
    }

    /// What stands between the two dense layers of a block.
    pub(in crate::model) fn activation(&self) -> Result<Activation, Error> {
        let (key, name) = &self.activation;
        Activation::named(key, name.as_deref())
    }

    /// The padding id of `RoBERTa`; beyond every vocabulary where it is none.
    fn padding(&self) -> usize {
        let Some(id) = &self.pad_token_id else { return 1 };
        id.as_u64().and_then(|id| usize::try_from(id).ok()).unwrap_or(usize::MAX)
    }

    /// Where positions begin. The padding id is one of the vocabulary, once it was checked.
    pub(in crate::model) fn first_position(&self, family: Family) -> usize {
        match family {
            Family::Bert | Family::DistilBert => 0,
            Family::Roberta => self.padding().saturating_add(1),
            Family::Mpnet => 2, // transformers fixes its padding id to 1, whatever the file says
        }
    }

    /// How many types of tokens it tells apart; 0 where it knows of none.
    pub(in crate::model) fn types(&self, family: Family) -> usize {
        match family {
            Family::Bert | Family::Roberta => self.type_vocab_size,
            Family::DistilBert | Family::Mpnet => 0,
        }
    }

    /// Longest sequence in tokens.
    pub fn longest(&self, family: Family) -> usize {
        self.max_position_embeddings.saturating_sub(self.first_position(family))
    }

    /// Width of a token's vector.
    pub fn hidden(&self) -> usize {
        self.hidden_size
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(config: Value) -> Config {
        serde_json::from_value(config).unwrap()
    }

    /// As `BertConfig()`, `DistilBertConfig()` and so on of transformers 5.24 are.
    #[test]
    fn what_is_not_said_is_what_transformers_takes_for_it() {
        for (kind, vocab, layers, longest) in [
            ("bert", 30_522, 12, 512),
            ("distilbert", 30_522, 6, 512),
            ("roberta", 50_265, 12, 510),
            ("xlm-roberta", 30_522, 12, 510),
            ("camembert", 30_522, 12, 510),
            ("mpnet", 30_527, 12, 510),
        ] {
            for written in
                [json!({"model_type": kind}), json!({"model_type": kind, "hidden_act": null})]
            {
                let config = read(written);
                let family = config.family().unwrap();
                assert_eq!(
                    (config.vocab_size, config.num_hidden_layers),
                    (vocab, layers),
                    "{kind}"
                );
                assert_eq!((config.hidden(), config.longest(family)), (768, longest), "{kind}");
                assert_eq!(config.activation().unwrap(), Activation::Gelu);
                assert!((config.layer_norm_eps - 1e-12).abs() < 1e-20);
            }
        }
    }

    #[test]
    fn distilbert_has_names_of_its_own() {
        let config = read(json!({
            "model_type": "distilbert", "dim": 8, "hidden_size": 9, "num_hidden_layers": 1, "n_heads": 2,
            "hidden_dim": 16, "intermediate_size": 17, "activation": "relu", "hidden_act": "mish",
            "layer_norm_eps": 0.5,
        }));
        config.family().unwrap();
        let found = [config.hidden_size, config.num_hidden_layers, config.intermediate_size];
        assert_eq!(found, [8, 1, 16]);
        assert_eq!(config.activation().unwrap(), Activation::Relu);
        assert!((config.layer_norm_eps - 1e-12).abs() < 1e-20, "it has no such key");
    }

    #[test]
    fn a_padding_id_matters_where_positions_begin_behind_it() {
        let with =
            |kind: &str, pad: i64| read(json!({"model_type": kind, "pad_token_id": pad})).family();
        for pad in [-1, 30_522] {
            assert!(with("bert", pad).is_ok() && with("distilbert", pad).is_ok(), "{pad}");
        }
        for pad in [-1, 50_265, i64::MAX] {
            let said = with("roberta", pad).unwrap_err().to_string();
            assert!(said.contains("pad_token_id"), "{said}");
        }
        for key in ["is_decoder", "is_causal"] {
            let said = read(json!({"model_type": "bert", key: true})).family().unwrap_err();
            assert!(said.to_string().contains(key), "{said}");
        }
    }
}

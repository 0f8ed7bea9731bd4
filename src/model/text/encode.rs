//! What sentence-transformers' own files say of texts: how they are cut and lower-cased, what is put before them, and
//! how much of an embedding is kept.

use serde_json::{Map, Value};

use super::layout::{ENCODE, Layout};
use crate::model::files::Error;
use crate::model::folder::Folder;

/// The names that the encoder's file has had, in the order in which sentence-transformers looks for them.
const OWN: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// Keys of arguments for transformers that change no answer.
const HARMLESS: [&str; 9] = [
    "trust_remote_code",
    "torch_dtype",
    "dtype",
    "attn_implementation",
    "add_pooling_layer",
    "low_cpu_mem_usage",
    "use_safetensors",
    "device_map",
    "unpad_inputs",
];

/// What these files say.
#[derive(Debug, Default)]
pub(super) struct Encode {
    /// `max_seq_length`: longest text in tokens, and the file that says it.
    pub(super) longest: Option<(String, Value)>,
    /// `do_lower_case`: whether texts are lower-cased before the tokenizer's own rules.
    pub(super) lowercase: bool,
    /// What is put before each text.
    pub(super) prompt: String,
    /// How many numbers of an embedding are kept, the first.
    pub(super) kept: Option<usize>,
}

impl Encode {
    /// Reads them; without `modules.json` sentence-transformers reads neither.
    pub(super) fn read(layout: &Layout<'_>) -> Result<Self, Error> {
        let Some(_) = &layout.modules else { return Ok(Self::default()) };
        let mut read = Self::default();
        for file in OWN {
            let config: Map<String, Value> = layout.encoder.optional(file)?.unwrap_or_default();
            if !config.is_empty() {
                read.own(&layout.encoder, file, config)?;
                break;
            }
        }
        let root = Folder::root(layout.encoder.dir());
        let config: Map<String, Value> = root.optional(ENCODE)?.unwrap_or_default();
        read.all(&root, &config)?;
        Ok(read)
    }

    /// The encoder's file.
    fn own(
        &mut self,
        folder: &Folder<'_>,
        file: &str,
        config: Map<String, Value>,
    ) -> Result<(), Error> {
        for (key, value) in config.into_iter().filter(|(_, value)| !value.is_null()) {
            let good = match &*key {
                "max_seq_length" => {
                    self.longest = Some((folder.file(file), value.clone()));
                    true
                }
                "do_lower_case" => {
                    self.lowercase = value == Value::Bool(true);
                    value.is_boolean()
                }
                "transformer_task" => value == "feature-extraction",
                "module_output_name" => value == "token_embeddings",
                "modality_config" => value.as_object().is_some_and(|modes| {
                    let text = modes.get("text").and_then(Value::as_object);
                    let is = |key: &str, wanted: &str| {
                        text.and_then(|text| text.get(key)).is_some_and(|value| value == wanted)
                    };
                    modes.len() == 1
                        && is("method", "forward")
                        && is("method_output_name", "last_hidden_state")
                }),
                // The last three are for `encode_query` and `encode_document`.
                "unpad_inputs" | "query_length" | "document_length" | "query_expansion" => true,
                "model_args" | "model_kwargs" | "config_args" | "config_kwargs"
                | "tokenizer_args" | "processor_kwargs" | "processing_kwargs" => value
                    .as_object()
                    .is_some_and(|all| all.keys().all(|key| HARMLESS.contains(&&**key))),
                _ => false,
            };
            if !good {
                let message = format!(
                    "{key} is {value}, which is not supported: it changes the answer, or is not known; supported are \
                     max_seq_length, do_lower_case, and a text model's last hidden states"
                );
                return Err(folder.fail(file, message));
            }
        }
        Ok(())
    }

    /// [`ENCODE`].
    fn all(&mut self, root: &Folder<'_>, config: &Map<String, Value>) -> Result<(), Error> {
        let fail = |message: String| root.fail(ENCODE, message);
        let said = |key: &str| config.get(key).filter(|value| !value.is_null());
        if let Some(value) = said("truncate_dim") {
            let kept = value.as_u64().and_then(|kept| usize::try_from(kept).ok());
            let kept = kept.filter(|kept| 0 < *kept);
            let message = || fail(format!("truncate_dim is {value}, not a whole number from 1 on"));
            self.kept = Some(kept.ok_or_else(message)?);
        }
        let Some(name) = said("default_prompt_name") else { return Ok(()) };
        let prompts = said("prompts").and_then(Value::as_object);
        let prompt = name.as_str().and_then(|name| prompts.and_then(|prompts| prompts.get(name)));
        self.prompt = match prompt {
            Some(Value::String(prompt)) => prompt.clone(),
            Some(Value::Null) => String::new(),
            // These two are there without being written.
            None if name == "query" || name == "document" => String::new(),
            Some(_) | None => {
                return Err(fail(format!(
                    "default_prompt_name is {name}, and prompts has no text of that name"
                )));
            }
        };
        Ok(())
    }
}

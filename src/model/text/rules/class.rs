//! The classes of transformers' tokenizers that are known here.

use tokenizers::AddedToken;

/// A class of transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// `tokenizer.json` as it is.
    General,
    /// `BertTokenizer`, `DistilBertTokenizer`.
    Bert,
    Mpnet,
    Roberta,
    XlmRoberta,
    Camembert,
}

/// Names of special tokens, in the order in which they are added.
pub(super) const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl Class {
    /// As `AutoTokenizer` chooses: what the files say, else what the model's kind has.
    pub(super) fn choose(model_type: &str, named: Option<&str>) -> Result<Self, String> {
        let own = match model_type {
            "bert" | "distilbert" => Self::Bert,
            "mpnet" => Self::Mpnet,
            "roberta" => Self::Roberta,
            "xlm-roberta" => Self::XlmRoberta,
            "camembert" => Self::Camembert,
            // transformers takes the general class here, whatever the files say.
            _ => return Ok(Self::General),
        };
        let Some(named) = named else { return Ok(own) };
        match named.strip_suffix("Fast").unwrap_or(named) {
            "BertTokenizer" | "DistilBertTokenizer" => Ok(Self::Bert),
            "MPNetTokenizer" => Ok(Self::Mpnet),
            "RobertaTokenizer" => Ok(Self::Roberta),
            "XLMRobertaTokenizer" => Ok(Self::XlmRoberta),
            "CamembertTokenizer" => Ok(Self::Camembert),
            "PreTrainedTokenizer" | "TokenizersBackend" | "PythonBackend" => Ok(Self::General),
            _ => Err(format!(
                "tokenizer_class {named:?} is not supported; supported are BertTokenizer, DistilBertTokenizer, \
                 MPNetTokenizer, RobertaTokenizer, XLMRobertaTokenizer, CamembertTokenizer, and \
                 PreTrainedTokenizerFast, which takes tokenizer.json as it is: write that, if tokenizer.json holds \
                 every rule"
            )),
        }
    }

    /// The special tokens that it has without being told, by [`NAMES`].
    pub(super) fn special(self) -> [Option<&'static str>; 7] {
        let (cls, sep) = (Some("<s>"), Some("</s>"));
        let (pad, mask) = (Some("<pad>"), Some("<mask>"));
        match self {
            Self::General => [None; 7],
            Self::Bert => {
                let [unk, sep, pad, cls, mask] =
                    ["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"].map(Some);
                [None, None, unk, sep, pad, cls, mask]
            }
            Self::Mpnet => [cls, sep, Some("[UNK]"), sep, pad, cls, mask],
            Self::Roberta | Self::XlmRoberta | Self::Camembert => {
                [cls, sep, Some("<unk>"), sep, pad, cls, mask]
            }
        }
    }

    /// How it adds a special token that is only named.
    pub(super) fn token(self, name: &str, content: &str) -> AddedToken {
        let strips = name == "mask_token" && matches!(self, Self::Mpnet | Self::Camembert);
        AddedToken::from(content, true).normalized(self == Self::Mpnet).lstrip(strips)
    }
}

//! What a model's folder holds, read once for all steps.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::model::files::{Error, present};
use crate::model::folder::Json;
use crate::model::found;
use crate::model::text::Layout;
use crate::model::weights::{FILE as WEIGHTS, INDEX};

/// A folder that has weights where they are looked for.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    dir: &'a Path,
    pub(super) layout: Layout<'a>,
    /// `config.json` beside the weights. What is wrong with it is said when the model is built: a file that was altered
    /// is first said to be altered.
    pub(super) config: Result<Json, Error>,
}

impl<'a> Contents<'a> {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// Where the directory or its weights are not there: what is there instead.
    pub(super) fn read(dir: &'a Path) -> Result<Self, Error> {
        match fs::metadata(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::Folder(found::absent(dir)));
            }
            Err(error) => return Err(Error::read("the folder", error)),
            Ok(found) if !found.is_dir() => {
                return Err(Error::Folder("is no folder; name the one that it is in".to_owned()));
            }
            Ok(_) => (),
        }
        let layout = Layout::read(dir).map_err(|error| Error::Text(Box::new(error)))?;
        let folder = &layout.encoder;
        if !folder.has(WEIGHTS) && !folder.has(INDEX) {
            let message = found::instead(dir, folder.name());
            return Err(if folder.name().is_empty() {
                Error::Folder(message)
            } else {
                Error::config(folder.name(), message)
            });
        }
        let config = Json::read(folder, "config.json");
        Ok(Self { dir, layout, config })
    }

    /// The artifact.
    pub(super) fn dir(&self) -> &'a Path {
        self.dir
    }

    /// The folder in it with the weights; empty for the artifact itself.
    pub(super) fn folder(&self) -> &str {
        self.layout.encoder.name()
    }

    /// Whether it is a tabular model's: by its task or, where that is missing or wrong, by its files.
    pub(super) fn is_tabular(&self) -> bool {
        let Ok(config) = self.config.as_ref().map(Json::value) else { return false };
        let task = config.get("task").and_then(Value::as_str).unwrap_or_default();
        let other = config.get("model_type").is_some() || config.get("architectures").is_some();
        task.starts_with("tabular-") || (!other && present(self.dir, "preprocess.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::found::absent;

    fn refused(dir: &Path) -> Error {
        Contents::read(dir).err().unwrap()
    }

    /// What is said of a folder that holds these files, each of them empty.
    fn said(files: &[&str]) -> String {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let file = dir.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        refused(dir.path()).to_string()
    }

    #[test]
    fn what_a_folder_holds_instead_is_named_with_the_way_on() {
        let hub = "models--me--mine/snapshots/abc";
        let snapshot = [format!("{hub}/config.json"), format!("{hub}/model.safetensors")];
        let snapshot = snapshot.each_ref().map(String::as_str);
        for (files, part) in [
            (&[][..], "holds no model: config.json and model.safetensors are wanted"),
            (&["config.json", "training_args.bin"], "holds config.json but no weights"),
            (&["config.json", "model-00001-of-00002.safetensors"], "neither model.safetensors nor"),
            (&["config.json", "onnx/model.onnx"], "holds onnx/model.onnx, an ONNX graph"),
            (&["config.json", "tf_model.h5"], "tf_model.h5, weights of TensorFlow or Flax, which"),
            (&["config.json", "flax_model.msgpack"], "a checkpoint of PyTorch is wanted"),
            (&["mine.Q4_K_M.gguf"], "weights for llama.cpp"),
            (&["adapter_config.json", "adapter_model.safetensors"], "merge_and_unload()"),
            (&["config.json", "adapter_model.bin"], "merge_and_unload()"),
            (&["config.json", "a.pt", "pytorch_model.bin"], "holds pytorch_model.bin, a pickle;"),
            (
                &["config.json", "pytorch_model.bin"],
                "from transformers import AutoModel as M; M.from_pretrained",
            ),
            (&["model.pkl"], "config/demo/README.md shows how"),
            (&snapshot, "its models--me--mine/snapshots/abc does: name that"),
            (
                &["a/config.json", "a/x.bin", "b/config.json", "b/x.bin", "c/config.json"],
                "its a, b do",
            ),
            (&["1_Pooling/config.json"], "holds no model:"),
        ] {
            let said = said(files);
            assert!(said.contains(part), "{files:?}: {said}");
        }
    }

    #[test]
    fn a_pickle_is_saved_again_by_its_own_class() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(dir.path().join(file), text).unwrap();
        write("config.json", r#"{"architectures": ["BertForTokenClassification"]}"#);
        write("pytorch_model.bin", "");
        let said = || refused(dir.path()).to_string();
        let own =
            "from transformers import BertForTokenClassification as M; M.from_pretrained(\"DIR\")";
        assert!(said().contains(own), "{}", said());
        let line =
            r#"[{"name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]"#;
        write("modules.json", line);
        let own = "from sentence_transformers import SentenceTransformer as M; M(\"DIR\").save_pretrained";
        assert!(said().contains(own), "{}", said());
        write(
            "modules.json",
            r#"[{"name": "0", "path": "0_CLIP", "type": "sentence_transformers.models.CLIPModel"}]"#,
        );
        let said = crate::failure::chain(&refused(dir.path()));
        assert!(said.contains("CLIPModel\" is not supported"), "{said}");
    }

    #[test]
    fn a_folder_that_is_not_there_may_be_a_name_of_the_hub() {
        for (name, hub) in [
            ("sentence-transformers/all-MiniLM-L6-v2", true),
            ("bert-base-uncased", true),
            ("./bert-base-uncased", false),
            ("/srv/models", false),
            ("../m", false),
            ("a/b/c", false),
            ("a b", false),
        ] {
            let said = absent(Path::new(name));
            assert_eq!(said.contains(&format!("hf download {name} ")), hub, "{said}");
            assert!(said.contains("there is no such folder"), "{said}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let said = refused(file.path()).to_string();
        assert!(said.contains("is no folder; name the one that it is in"), "{said}");
    }
}

//! What whoever writes a registry, or hands a model over, can put there: each is refused by name, or shown as what it is.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tidemill::failure::chain;
use tidemill::model::Model;
use tidemill::model::gate;
use tidemill::model::options::LoadOptions;

use crate::world::wait_for;

pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data").join(name)
}

/// A copy of a model of the tests, to be spoiled.
pub(crate) fn copied(name: &str, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(data(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Runs `tidemill models …` on a registry: the exit code, and what it said on both ways.
pub(crate) fn models(root: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.arg("models").args(arguments).arg("--root").arg(root).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// A registry whose model `m` has so many versions of a tiny text model; `champion` is the first.
pub(crate) fn registry(root: &Path, versions: usize) {
    let from = data("tiny-bert");
    for _ in 0..versions {
        let (code, said) = models(root, &["import", from.to_str().unwrap(), "m"]);
        assert_eq!(code, Some(0), "{said}");
    }
    assert_eq!(models(root, &["promote", "m", "1"]).0, Some(0));
}

pub(crate) fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Changes a JSON file.
pub(crate) fn edit(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    change(&mut value);
    fs::write(file, value.to_string()).unwrap();
}

/// Why a spoiled copy of a model is not loaded.
#[track_caller]
pub(crate) fn refused(model: &str, spoil: impl FnOnce(&Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    copied(model, dir.path());
    spoil(dir.path());
    let field = if model == "tiny-vit" { "image" } else { "text" }.to_owned();
    let options = LoadOptions { field, ..LoadOptions::default() };
    match gate::load(dir.path(), &options) {
        Err(error) => chain(&error),
        Ok(served) => panic!("{model} was loaded: {:?}", served.model.about()),
    }
}

#[test]
fn numbers_that_no_size_or_index_can_be_are_refused_by_their_key() {
    let everywhere = [json!(-1), json!(u64::MAX), json!(1_u64 << 63), json!(1.5), json!("2")];
    let sizes = [
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "vocab_size",
        "max_position_embeddings",
        "type_vocab_size",
        "pad_token_id",
    ];
    let modern = ["local_attention", "global_attn_every_n_layers", "max_position_embeddings"];
    let image = ["hidden_size", "image_size", "patch_size", "num_channels", "num_attention_heads"];
    let cases = [
        ("tiny-roberta-labels", &sizes[..], "config.json"),
        ("tiny-bert", &sizes[..7], "config.json"),
        ("tiny-mpnet", &sizes[..6], "config.json"),
        ("tiny-modernbert", &modern, "config.json"),
        ("tiny-vit", &image, "config.json"),
    ];
    for (model, keys, file) in cases {
        for key in keys {
            for number in &everywhere {
                let said = refused(model, |dir| {
                    edit(&dir.join(file), |config| config[*key] = number.clone());
                });
                assert!(
                    said.contains(file) && said.contains(key),
                    "{model} {key} {number}: {said}"
                );
            }
        }
    }
    for (model, key, number, parts) in [
        ("tiny-roberta-labels", "pad_token_id", 50_000, ["pad_token_id is 50000", "vocabulary"]),
        ("tiny-roberta-labels", "max_position_embeddings", 3, ["is 3", "two tokens want 4"]),
        ("tiny-modernbert", "max_position_embeddings", 1_000_000, ["tensor", "is missing"]),
        ("tiny-modernbert", "global_attn_every_n_layers", 0, ["is 0", "between 1"]),
        ("tiny-bert", "type_vocab_size", 70_000, ["is 70000", "between 1"]),
    ] {
        // Rotations of a million positions are computed, not read: they are bounded by their number.
        if parts[0] == "tensor" {
            let said = refused(model, |dir| {
                edit(&dir.join("config.json"), |config| {
                    config["max_position_embeddings"] = json!(number);
                    config["num_attention_heads"] = json!(1);
                });
            });
            assert!(said.contains("max_position_embeddings is 1000000"), "{said}");
            continue;
        }
        let said = refused(model, |dir| edit(&dir.join("config.json"), |c| c[key] = json!(number)));
        assert!(parts.iter().all(|part| said.contains(part)), "{key} {number}: {said}");
    }
    for length in [json!(-1), json!(0), json!(1), json!("many")] {
        let said = refused("tiny-bert", |dir| {
            fs::write(
                dir.join("tokenizer_config.json"),
                json!({"model_max_length": length}).to_string(),
            )
            .unwrap();
        });
        assert!(said.contains("tokenizer_config.json: model_max_length is"), "{length}: {said}");
    }
}

/// Where each integer of a JSON value stands.
fn integers(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(number) if !number.is_f64() => found.push(at.to_owned()),
        Value::Array(list) => {
            (0..).zip(list).for_each(|(n, value)| integers(value, &format!("{at}/{n}"), found));
        }
        Value::Object(map) => {
            map.iter().for_each(|(name, value)| integers(value, &format!("{at}/{name}"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

/// Whichever integer of a configuration is set to what no size, place or number of tokens can be: the folder is refused by
/// the file, or it answers as before. A key that is read in silence as another number would be neither.
#[test]
fn an_integer_that_cannot_be_is_refused_or_does_not_matter() {
    let models = [
        "tiny-bert",
        "tiny-roberta-labels",
        "tiny-mpnet-labels",
        "tiny-distilbert-labels",
        "tiny-modernbert-labels",
        "tiny-vit",
        "mlp-relu",
    ];
    for model in models {
        let dir = tempfile::tempdir().unwrap();
        copied(model, dir.path());
        if model == "tiny-bert" {
            for (file, text) in [
                ("tokenizer_config.json", r#"{"model_max_length": 40}"#),
                ("sentence_bert_config.json", r#"{"max_seq_length": 40, "do_lower_case": false}"#),
            ] {
                fs::write(dir.path().join(file), text).unwrap();
            }
        }
        let golden: Vec<Value> =
            serde_json::from_slice(&fs::read(dir.path().join("golden.json")).unwrap()).unwrap();
        let field = if model == "tiny-vit" { "image" } else { "text" }.to_owned();
        let options = LoadOptions { field, ..LoadOptions::default() };
        let answers = |model: &dyn Model| -> Vec<String> {
            let inputs = golden.iter().take(8).map(|row| row["input"].as_object().unwrap());
            let answer = |fields| match model.prepare_object(fields) {
                Ok(input) => format!("{:?}", model.predict(&[&input])),
                Err(fault) => fault.to_string(),
            };
            inputs.map(answer).collect()
        };
        let before = answers(gate::build(dir.path(), &options).unwrap().as_ref());
        for file in [
            "config.json",
            "tokenizer_config.json",
            "sentence_bert_config.json",
            "preprocessor_config.json",
        ] {
            let path = dir.path().join(file);
            let Ok(text) = fs::read(&path) else { continue };
            let whole: Value = serde_json::from_slice(&text).unwrap();
            let mut places = Vec::new();
            integers(&whole, "", &mut places);
            for place in places {
                for number in [json!(-1), json!(1_u64 << 31), json!(1_u64 << 63), json!(u64::MAX)] {
                    let mut changed = whole.clone();
                    *changed.pointer_mut(&place).unwrap() = number.clone();
                    fs::write(&path, changed.to_string()).unwrap();
                    match gate::build(dir.path(), &options) {
                        Ok(built) => assert!(
                            answers(built.as_ref()) == before,
                            "{model} {file}{place} {number}: it answers otherwise"
                        ),
                        Err(error) => {
                            let said = chain(&error);
                            let named = said.contains(file) || said.contains("tensor");
                            assert!(
                                named && !said.contains("panicked"),
                                "{model} {file}{place} {number}: {said}"
                            );
                        }
                    }
                }
            }
            fs::write(&path, text).unwrap();
        }
    }
}

#[test]
fn a_tokenizer_that_multiplies_its_text_is_refused() {
    let replace = json!({"type": "Replace", "pattern": {"Regex": ""}, "content": "x"});
    // The classes of transformers have rules of their own; this one takes the file's.
    let general = |dir: &Path| {
        let class = json!({"tokenizer_class": "PreTrainedTokenizerFast"}).to_string();
        fs::write(dir.join("tokenizer_config.json"), class).unwrap();
    };
    let said = refused("tiny-bert", |dir| {
        general(dir);
        edit(&dir.join("tokenizer.json"), |file| {
            file["normalizer"] = json!({"type": "Sequence", "normalizers": vec![replace; 30]});
        });
    });
    assert!(said.contains("tokenizer.json") && said.contains("1073741824 times"), "{said}");
    let said = refused("tiny-bert", |dir| {
        general(dir);
        edit(&dir.join("tokenizer.json"), |file| {
            let single = &mut file["post_processor"]["single"];
            let special = single[0].clone();
            single.as_array_mut().unwrap().extend(vec![special; 50]);
        });
    });
    assert!(said.contains("adds 52 special tokens"), "{said}");
}

#[test]
fn weights_that_are_all_zero_are_refused() {
    for model in ["tiny-bert", "linear", "tiny-vit"] {
        let said = refused(model, |dir| {
            let file = dir.join("model.safetensors");
            let mut bytes = fs::read(&file).unwrap();
            let header: [u8; 8] = bytes[..8].try_into().unwrap();
            let start = 8 + usize::try_from(u64::from_le_bytes(header)).unwrap();
            bytes[start..].fill(0);
            fs::write(&file, bytes).unwrap();
        });
        assert!(said.contains("every weight is 0"), "{model}: {said}");
    }
}

#[test]
fn goldens_that_compare_nothing_are_refused_at_the_import() {
    let dir = tempfile::tempdir().unwrap();
    let (root, from) = (dir.path().join("models"), dir.path().join("from"));
    copied("tiny-bert-labels", &from);
    let input = json!({"text": "x"});
    let whole: Value =
        serde_json::from_slice(&fs::read(from.join("golden.json")).unwrap()).unwrap();
    let mut partial = whole.clone();
    for pair in partial.as_array_mut().unwrap() {
        pair["output"].as_object_mut().unwrap().remove("scores");
    }
    for (golden, part) in [
        (json!([]), "compares nothing"),
        (json!({}), "golden.json"),
        (json!([{"input": input, "output": {}}]), "the expected output has no member"),
        (json!([{"input": input, "output": []}]), "was expected"),
        (json!([{"input": input, "output": null}]), "was expected"),
        (json!([{"input": input}]), "missing field `output`"),
        (json!([{"output": {}}]), "missing field `input`"),
        (partial, "the expected output has no member \"scores\""),
    ] {
        fs::write(from.join("golden.json"), golden.to_string()).unwrap();
        let (code, said) = models(&root, &["import", from.to_str().unwrap(), "m"]);
        assert!(code == Some(65) && said.contains(part), "{golden}: {said}");
    }
    // A text's or an image's field may have any name.
    let mut renamed = whole;
    for pair in renamed.as_array_mut().unwrap() {
        pair["input"] = json!({"review": pair["input"]["text"]});
    }
    fs::write(from.join("golden.json"), renamed.to_string()).unwrap();
    let (code, said) = models(&root, &["import", from.to_str().unwrap(), "m"]);
    assert_eq!(code, Some(0), "{said}");

    let manifest = root.join("m/1/manifest.json");
    let good = fs::read_to_string(&manifest).unwrap();
    for tolerance in [json!(-1), json!(0.06), json!(1), json!(1e308)] {
        edit(&manifest, |file| file["golden"]["tolerance"] = tolerance.clone());
        let (code, said) = models(&root, &["verify", "models:/m/1"]);
        assert!(code == Some(65) && said.contains("not 0 to 0.05"), "{tolerance}: {said}");
        fs::write(&manifest, &good).unwrap();
    }
    edit(&manifest, |file| file["golden"]["file"] = json!("config2.json"));
    let (_, said) = models(&root, &["verify", "models:/m/1"]);
    assert!(said.contains("config2.json: is not among the files"), "{said}");
}

#[test]
fn a_registered_version_has_a_manifest_and_a_name_that_can_be_shown() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    registry(root, 1);
    let manifest = root.join("m/1/manifest.json");
    for name in ["x\n2026-01-01 ERROR forged", "\u{1b}[31m", &"x".repeat(129)] {
        edit(&manifest, |file| file["name"] = json!(name));
        let (code, said) = models(root, &["promote", "m", "1"]);
        assert!(code == Some(65) && said.contains("manifest.json: name"), "{said}");
        assert!(!said.contains('\u{1b}') && said.trim_end().lines().count() == 1, "{said:?}");
    }
    fs::remove_file(&manifest).unwrap();
    for arguments in
        [&["promote", "m", "1"][..], &["verify", "models:/m/1"], &["verify", "models:/m@champion"]]
    {
        let (code, said) = models(root, arguments);
        assert!(code == Some(65) && said.contains("manifest.json: is missing"), "{said}");
    }
    // The same folder by its path is a plain one, and good.
    let plain = root.join("m/1");
    assert_eq!(models(root, &["verify", plain.to_str().unwrap()]).0, Some(0));
}

#[test]
fn what_is_broken_in_a_registry_is_listed_and_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    registry(root, 2);
    let (m, aliases) = (root.join("m"), root.join("m/aliases"));
    for folder in ["01", "+2", "18446744073709551615", "9223372036854775808", "latest"] {
        fs::create_dir(m.join(folder)).unwrap();
    }
    fs::write(m.join("7"), "a file").unwrap();
    fs::write(aliases.join("word"), "xx").unwrap();
    fs::write(aliases.join("zero"), "01").unwrap();
    fs::write(aliases.join("gone"), "9").unwrap();
    fs::write(aliases.join("long"), "1".repeat(65)).unwrap();
    File::create(aliases.join("sparse")).unwrap().set_len(1 << 40).unwrap();
    fs::create_dir(aliases.join("folder")).unwrap();
    fifo(&aliases.join("fifo"));
    symlink("/dev/zero", aliases.join("device")).unwrap();
    symlink("champion", aliases.join("link")).unwrap();
    fs::create_dir(root.join("not a name")).unwrap();
    let (code, said) = models(root, &["list"]);
    assert_eq!(code, Some(0), "{said}");
    let row = |start: &str| {
        let found = said.lines().find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("{start} in\n{said}")).to_owned()
    };
    assert!(row("m            1").contains("champion, link"), "{said}");
    row("m            2");
    for (place, why) in [
        ("m/01", "is not a version"),
        ("m/+2", "is not a version"),
        ("m/18446744073709551615", "is not a version"),
        ("m/9223372036854775808", "is not a version"),
        ("m/latest", "is not a version"),
        ("m/7", "is not a version"),
        ("m@word", "holds \"xx\""),
        ("m@zero", "holds \"01\""),
        ("m@gone", "points at version 9, which is not there"),
        ("m@long", "has 65 bytes"),
        ("m@sparse", "at most 64 are read"),
        ("m@folder", "is a directory"),
        ("m@fifo", "is a FIFO"),
        ("m@device", "is a device"),
        ("not a name", "is not a name"),
    ] {
        assert!(row(&format!("broken: {place}: ")).contains(why), "{said}");
    }
    // None of them is in the way of what one does next.
    let from = data("tiny-bert");
    let (code, said) = models(root, &["import", from.to_str().unwrap(), "m", "--alias", "fifo"]);
    assert!(code == Some(0) && said.contains("models:/m@fifo is version 3"), "{said}");
    let (code, said) = models(root, &["promote", "m", "18446744073709551615"]);
    assert!(code == Some(65) && said.contains("versions: 1, 2, 3"), "{said}");
    fs::create_dir_all(m.join("9223372036854775807/x")).unwrap();
    let (code, said) = models(root, &["import", from.to_str().unwrap(), "m"]);
    assert!(code == Some(65) && said.contains("no version comes after"), "{said}");
}

#[test]
fn an_import_is_whole_or_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("models");
    let from = data("tiny-bert");
    let from = from.to_str().unwrap();
    let (code, said) = models(&root, &["import", from, "m", "--alias", "../x"]);
    assert!(code == Some(65) && said.contains("\"../x\" is not a name"), "{said}");
    assert!(!root.exists(), "nothing was imported");

    // Killed in the middle: it waits for its second file, and the next import removes what it left.
    fs::create_dir_all(root.join("m")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["models", "import", from, "m", "--root"])
        .arg(&root)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let beside = || {
        let entries = fs::read_dir(root.join("m")).unwrap().flatten();
        let mut names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.find(|name| name.starts_with(".import-"))
    };
    wait_for("the import to begin, or to be done", || {
        beside().map(drop).or_else(|| root.join("m/1").exists().then_some(()))
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, said) = models(&root, &["import", from, "m"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(beside(), None);
}

#[test]
fn what_stands_in_a_model_folder_is_looked_at_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("models");
    let refused = |name: &str, spoil: &dyn Fn(&Path), part: &str| {
        let from = dir.path().join(name);
        copied("tiny-bert", &from);
        spoil(&from);
        let (code, said) = models(&root, &["import", from.to_str().unwrap(), "m"]);
        assert!(code == Some(65) && said.contains(part), "{name}: {said}");
        let left = fs::read_dir(root.join("m")).into_iter().flatten().count();
        assert_eq!(left, 0, "{name}");
    };
    let replaced = |dir: &Path, file: &str| {
        fs::remove_file(dir.join(file)).unwrap();
        dir.join(file)
    };
    refused("fifo", &|dir| fifo(&replaced(dir, "config.json")), "config.json: is a FIFO");
    refused("other fifo", &|dir| fifo(&dir.join("pipe")), "pipe: is a FIFO");
    refused("folder", &|dir| fs::create_dir(replaced(dir, "config.json")).unwrap(), "config.json");
    let device = |dir: &Path| symlink("/dev/zero", replaced(dir, "model.safetensors")).unwrap();
    refused("device", &device, "model.safetensors: is a symbolic link");
    refused("deep", &|dir| fs::create_dir_all(dir.join("d/".repeat(70))).unwrap(), "64 deep");
    let holes = |bytes: u64| {
        move |dir: &Path| {
            File::create(dir.join("model.safetensors")).unwrap().set_len(bytes).unwrap();
        }
    };
    refused("huge", &holes(1 << 40), "at most 17179869184 are read");
    let config =
        |dir: &Path| File::create(dir.join("config.json")).unwrap().set_len(9 << 20).unwrap();
    refused("config", &config, "config.json");
}

#[test]
fn a_version_that_does_not_fit_is_refused_and_nothing_aborts() {
    let dir = tempfile::tempdir().unwrap();
    copied("tiny-bert", dir.path());
    let file = dir.path().join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let start = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let header = &bytes[8..8 + usize::try_from(start).unwrap()];
    let mut header: Value = serde_json::from_slice(header).unwrap();
    // Another tensor, of 3 GiB of nothing.
    let end = u64::try_from(bytes.len()).unwrap() - 8 - start;
    let more = 3_u64 << 30;
    header["more"] =
        json!({"dtype": "F32", "shape": [more / 4], "data_offsets": [end, end + more]});
    let header = header.to_string();
    let length = u64::try_from(header.len()).unwrap();
    let written = [
        &length.to_le_bytes()[..],
        header.as_bytes(),
        &bytes[8 + usize::try_from(start).unwrap()..],
    ];
    fs::write(&file, written.concat()).unwrap();
    File::options().write(true).open(&file).unwrap().set_len(8 + length + end + more).unwrap();
    let output = Command::new("sh")
        .args(["-c", "ulimit -v 3000000; exec \"$0\" predict --model \"$1\" --workers 1"])
        .arg(env!("CARGO_BIN_EXE_tidemill"))
        .arg(dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("loading it takes about 3073 MiB"), "{said}");
    assert!(
        said.contains("(ulimit -v)") && said.contains("give the process more memory"),
        "{said}"
    );
}

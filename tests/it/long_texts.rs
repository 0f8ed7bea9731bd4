//! Texts longer than a model takes, in windows: `data/make_windows.py` made places and answers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use tidemill::answer::Prediction;
use tidemill::config::{self, OnLong};
use tidemill::failure::chain;
use tidemill::model::cache::Cache;
use tidemill::model::options::LoadOptions;
use tidemill::model::{Input, Model, gate};
use tidemill::record::FaultClass;

#[derive(Deserialize)]
struct Case {
    base: String,
    overlap: u32,
    files: BTreeMap<String, Value>,
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    text: String,
    chunks: Vec<Chunk>,
    mean: Vec<f32>,
}

#[derive(Deserialize)]
struct Chunk {
    start: usize,
    end: usize,
    embedding: Vec<f32>,
}

fn data(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data").join(name)
}

fn cases() -> Vec<Case> {
    serde_json::from_slice(&fs::read(data("windows.json")).unwrap()).unwrap()
}

impl Case {
    fn folder(&self) -> tempfile::TempDir {
        let to = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(data("folders").join(&self.base)).unwrap().flatten() {
            fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
        }
        for (name, content) in &self.files {
            let file = to.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content.to_string()).unwrap();
        }
        to
    }

    fn load(&self, on_long: OnLong) -> Box<dyn Model> {
        let chunk_overlap = if on_long.cuts() { self.overlap } else { 0 };
        build(self.folder().path(), on_long, chunk_overlap)
            .unwrap_or_else(|error| panic!("{}: {error}", self.base))
    }
}

fn build(dir: &Path, on_long: OnLong, chunk_overlap: u32) -> Result<Box<dyn Model>, String> {
    let model = config::Model { on_long, chunk_overlap, ..config::Model::default() };
    let options = LoadOptions { model, ..LoadOptions::default() };
    gate::build(dir, &options).map_err(|error| chain(&error))
}

fn input(model: &dyn Model, text: &str) -> Input {
    let fields = Map::from_iter([("text".to_owned(), Value::from(text))]);
    model.prepare_object(&fields).unwrap()
}

fn near(found: &[f32], expected: &[f32]) -> bool {
    found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-5)
}

/// Every window is where the rule has it, and is answered as sentence-transformers answers that piece: to rounding. As
/// this model answers the piece alone it is answered bit for bit, whatever it shares a call with.
#[test]
fn windows_are_answered_as_their_pieces_are() {
    for (number, case) in cases().iter().enumerate() {
        let (model, plain) = (case.load(OnLong::Chunks), case.load(OnLong::Truncate));
        let inputs: Vec<Input> =
            case.answers.iter().map(|answer| input(model.as_ref(), &answer.text)).collect();
        let together = model.predict(&inputs.iter().collect::<Vec<_>>()).unwrap();
        let cached = Cache::new(1 << 20).unwrap();
        for ((answer, input_of_all), prediction) in case.answers.iter().zip(&inputs).zip(&together)
        {
            let Prediction::Chunks(chunks) = prediction else { panic!("{prediction:?}") };
            let places: Vec<_> = chunks.iter().map(|chunk| (chunk.start, chunk.end)).collect();
            let expected: Vec<_> = answer.chunks.iter().map(|c| (c.start, c.end)).collect();
            assert_eq!(places, expected, "{number} {}: {:?}", case.base, answer.text);
            let mut tokens = 0;
            for (chunk, expected) in chunks.iter().zip(&answer.chunks) {
                let (found, said) = (&chunk.embedding, &expected.embedding);
                assert!(near(found, said), "{number} {}: {found:?}, not {said:?}", case.base);
                let length = chunk.end - chunk.start;
                let piece: String = answer.text.chars().skip(chunk.start).take(length).collect();
                let alone = input(plain.as_ref(), &piece);
                tokens += alone.tokens();
                let alone = plain.predict(&[&alone]).unwrap().remove(0);
                assert_eq!(alone, Prediction::Embedding(chunk.embedding.clone()), "{piece:?}");
            }
            assert_eq!(input_of_all.tokens(), tokens, "a record costs what its windows cost");
            assert_eq!(&model.predict(&[input_of_all]).unwrap()[0], prediction);
            for hits in 0..2 {
                let (found, hit) = cached.predict(model.as_ref(), &[input_of_all]).unwrap();
                assert_eq!((&found[0], hit), (prediction, hits));
            }
        }
    }
}

#[test]
fn a_mean_is_of_all_tokens_and_as_long_as_the_model_makes_them() {
    for case in cases() {
        let model = case.load(OnLong::Mean);
        for Answer { text, chunks, mean } in &case.answers {
            let answer = model.predict(&[&input(model.as_ref(), text)]).unwrap().remove(0);
            let Prediction::Mean { embedding, of } = answer else { panic!("{answer:?}") };
            assert_eq!(of, chunks.len());
            assert!(near(&embedding, mean), "{}: {embedding:?}, not {mean:?}", case.base);
        }
    }
}

#[test]
fn texts_without_end_have_a_bound() {
    let case = &cases()[0];
    let model = case.load(OnLong::Chunks);
    let fields = |text: &str| Map::from_iter([("text".to_owned(), Value::from(text))]);
    let fault = model.prepare_object(&fields(&"the box ".repeat(100_000))).unwrap_err();
    assert_eq!(fault.class, FaultClass::TooLong);
    let words = "800000 bytes, more than 256 windows of 16 tokens: cut it before it is sent";
    assert!(fault.message.contains(words), "{}", fault.message);
    for (text, windows) in [(" ".repeat(1 << 20), 1), ("x".repeat(1 << 20), 4)] {
        let input = model.prepare_object(&fields(&text)).unwrap();
        assert!(matches!(&input, Input::Windows(all) if all.len() == windows), "{windows}");
    }
}

#[test]
fn windows_are_for_embeddings_and_overlap_by_half_at_most() {
    for (name, on_long, overlap, expect) in [
        ("tiny-bert-labels", OnLong::Chunks, 0, "the model is for text-classification"),
        ("tiny-bert-tokens", OnLong::Mean, 0, "the model is for token-classification"),
        ("logistic", OnLong::Chunks, 0, "the model is for tabular-classification"),
        ("tiny-vit", OnLong::Mean, 0, "the model is for image-classification"),
        ("tiny-bert", OnLong::Chunks, 20, "model.chunk_overlap is 20, more than half of the 38"),
    ] {
        let refused = build(&data(name), on_long, overlap).err().unwrap_or_default();
        assert!(refused.contains(expect), "{name}: {refused}");
    }
    build(&data("tiny-bert"), OnLong::Chunks, 19).unwrap();
}

//! What loading a version takes, against the memory there is: an allocation that fails would end the process that serves.
//!
//! Measured on BERT with 108 million weights, 434 MB in f32 (resident peak of the process, 30 MB of it its own): 497 MB in
//! f32, 320 in bf16, 238 in int8, 699 in `auto`, which holds two at once; and 525 MB in f32 from a file in f16. So it is
//! the weights as they will stand (tables of embeddings stay f32), the largest of them once more while it is converted,
//! and an eighth for what allocators lose. A tokenizer takes about 16 bytes for each of its file (15 measured, `WordPiece`
//! of 800,000 words), and a Unigram model 200 for each byte of its vocabulary (199 measured).

use std::borrow::Cow;
use std::path::Path;

use serde::Deserialize;

use super::contents::Contents;
use crate::config::{Place, Precision};
use crate::memory::{self, Room, mebibytes};
use crate::model::files::{Error, bytes, files, is_weights, within};
use crate::model::options::LoadOptions;
use crate::model::weights::Weights;

/// Refuses a version that would not fit; what it takes, for people.
///
/// # Errors
///
/// What it takes and what is left; what [`files`] refuses.
pub(super) fn check(contents: &Contents<'_>, options: &LoadOptions) -> Result<String, Error> {
    match memory::room() {
        Some(room) => against(contents, options, room),
        None => files(contents.dir()).map(|_| "how much memory there is is not known".to_owned()),
    }
}

fn against(contents: &Contents<'_>, options: &LoadOptions, room: Room) -> Result<String, Error> {
    let (dir, folder) = (contents.dir(), contents.folder());
    let largest =
        files(dir)?.into_iter().filter(|(name, _)| is_weights(name)).max_by_key(|(_, size)| *size);
    // Before anything is made of them: whoever writes a version can make a file of any size that holds nothing.
    if let Some((name, size)) = largest
        && room.bytes < size
    {
        let what = format!("{name} has {}", mebibytes(size));
        return Err(Error::TooLarge { bytes: size, what, room });
    }
    let Ok(weights) = Weights::open_in(dir, folder) else {
        return Ok("a header that cannot be read is explained when the weights are".to_owned());
    };
    let weights =
        if contents.is_tabular() { of_table(&weights) } else { of_weights(&weights, options) };
    let tokenizer = of_tokenizer(dir, folder);
    let bytes = weights.saturating_add(tokenizer) / 8 * 9;
    if bytes <= room.bytes {
        return Ok(format!("takes about {}, {room}", mebibytes(bytes)));
    }
    let what = match tokenizer {
        0 => format!("weights {}", mebibytes(weights)),
        _ => format!("weights {}, tokenizer {}", mebibytes(weights), mebibytes(tokenizer)),
    };
    Err(Error::TooLarge { bytes, what, room })
}

/// Bytes that a table's weights will take: in f64 and in panels of 16 outputs, beside the largest in the file's bytes and
/// twice in f64 while it is converted.
fn of_table(weights: &Weights) -> u64 {
    let (mut resident, mut largest) = (0_u64, 0_u64);
    for (name, elements, _) in weights.elements() {
        let padded = match weights.shape(name) {
            Some([outputs @ 1..16, _]) => elements / u64::try_from(*outputs).unwrap_or(1) * 16,
            _ => elements,
        };
        resident = resident.saturating_add(padded.saturating_mul(8));
        largest = largest.max(elements);
    }
    resident.saturating_add(largest.saturating_mul(24))
}

/// Bytes that the weights will take on the host.
fn of_weights(weights: &Weights, options: &LoadOptions) -> u64 {
    let (mut tables, mut others, mut largest) = (0_u64, 0_u64, 0_u64);
    for (name, elements, exact) in weights.elements() {
        let table = name.contains("embed");
        let sum = if table { &mut tables } else { &mut others };
        *sum = sum.saturating_add(elements);
        // A table in f32 is read into its place.
        if !(table && exact) {
            largest = largest.max(elements);
        }
    }
    let on_cpu = options.model.device == Place::Cpu;
    let floats = tables.saturating_add(others).saturating_mul(4);
    let packed = |bytes: u64| tables.saturating_mul(4).saturating_add(others.saturating_mul(bytes));
    let resident = match options.model.precision {
        _ if !on_cpu => largest.saturating_mul(8),
        Precision::F32 | Precision::F16 => floats,
        Precision::Bf16 => packed(2),
        Precision::Int8 => packed(1),
        Precision::Auto => floats.saturating_add(packed(2)),
    };
    resident.saturating_add(largest.saturating_mul(4))
}

/// Bytes that the tokenizer will take; 0 where there is none.
fn of_tokenizer(dir: &Path, folder: &str) -> u64 {
    #[derive(Deserialize)]
    struct File<'a> {
        #[serde(borrow)]
        model: Model<'a>,
    }
    #[derive(Deserialize)]
    struct Model<'a> {
        #[serde(borrow)]
        vocab: Vec<(Cow<'a, str>, f64)>,
    }
    let Ok(bytes) = bytes(dir, &within(folder, "tokenizer.json")) else { return 0 };
    let size = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    let file = size(bytes.len()).saturating_mul(16);
    // Only Unigram has a list there: others are not read by this.
    match serde_json::from_slice::<File<'_>>(&bytes) {
        Ok(File { model }) => {
            let vocabulary: usize = model.vocab.iter().map(|(token, _)| token.len()).sum();
            file.saturating_add(size(vocabulary).saturating_mul(200))
        }
        Err(_) => file,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write as _;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A text model of these elements in words and in layers, its file full of holes.
    fn sparse(words: u64, layers: u64) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let end = 4 * (words + layers);
        let header = serde_json::json!({
            "embeddings.word_embeddings.weight":
                {"dtype": "F32", "shape": [words], "data_offsets": [0, 4 * words]},
            "encoder.weight": {"dtype": "F32", "shape": [layers], "data_offsets": [4 * words, end]},
        });
        let header = header.to_string();
        let length = u64::try_from(header.len()).unwrap();
        let mut file = File::create(dir.path().join("model.safetensors")).unwrap();
        file.write_all(&length.to_le_bytes()).unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.set_len(8 + length + end).unwrap();
        dir
    }

    fn fits(dir: &Path, precision: Precision, mib: u64) -> Result<(), String> {
        let mut options = LoadOptions::default();
        options.model.precision = precision;
        let room = Room { bytes: mib * MIB, of: "here".to_owned() };
        let contents = Contents::read(dir).map_err(|error| error.to_string())?;
        against(&contents, &options, room).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn a_version_is_weighed_in_the_precision_it_will_have() {
        let dir = sparse(25 * MIB, 75 * MIB); // 100 MiB of table, 300 of layers
        for (precision, needs) in [
            (Precision::F32, 100 + 300 + 300),
            (Precision::Bf16, 100 + 150 + 300),
            (Precision::Int8, 100 + 75 + 300),
            (Precision::Auto, 100 + 300 + 100 + 150 + 300),
        ] {
            let needs = needs * 9 / 8;
            assert_eq!(fits(dir.path(), precision, needs + 1), Ok(()), "{precision:?}");
            let said = fits(dir.path(), precision, needs - 1).unwrap_err();
            let room = format!("{} MiB are left here", needs - 1);
            assert!(said.contains(&room) && said.contains("model.precision"), "{said}");
        }
    }

    /// 100 MiB elements: 8 bytes each as they stand, 24 on the way. One output takes the room of 16.
    #[test]
    fn a_table_is_weighed_in_f64_whatever_the_precision() {
        for (shape, needs) in
            [([64, 100 * MIB / 64], 800 + 2_400), ([1, 100 * MIB], 12_800 + 2_400)]
        {
            let dir = tempfile::tempdir().unwrap();
            let end = 100 * MIB;
            let tensor =
                serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * end]});
            let header = serde_json::json!({ "layers.0.weight": tensor }).to_string();
            let length = u64::try_from(header.len()).unwrap();
            let mut file = File::create(dir.path().join("model.safetensors")).unwrap();
            file.write_all(&length.to_le_bytes()).unwrap();
            file.write_all(header.as_bytes()).unwrap();
            file.set_len(8 + length + 4 * end).unwrap();
            fs::write(dir.path().join("config.json"), r#"{"task":"tabular-regression"}"#).unwrap();
            let needs = needs * 9 / 8;
            for precision in [Precision::F32, Precision::Int8] {
                assert_eq!(fits(dir.path(), precision, needs + 1), Ok(()), "{shape:?}");
                assert!(fits(dir.path(), precision, needs - 1).is_err(), "{shape:?}");
            }
        }
    }

    #[test]
    fn a_file_of_holes_is_refused_before_it_is_read() {
        let dir = sparse(1, 1);
        let other = File::create(dir.path().join("other.safetensors")).unwrap();
        other.set_len(10 << 30).unwrap();
        let said = fits(dir.path(), Precision::F32, 1_024).unwrap_err();
        assert!(
            said.contains("(other.safetensors has 10240 MiB), 1024 MiB are left here"),
            "{said}"
        );
    }

    #[test]
    fn a_tokenizer_is_weighed_too() {
        let dir = sparse(1, 1);
        let token = "x".repeat(1_000);
        let model = |vocab| serde_json::json!({ "model": { "vocab": vocab } }).to_string();
        let file = dir.path().join("tokenizer.json");
        let list: Vec<_> = (0..1_000).map(|_| serde_json::json!([token, -1.5])).collect();
        fs::write(&file, model(serde_json::Value::from(list))).unwrap();
        assert_eq!(fits(dir.path(), Precision::F32, 260), Ok(()));
        assert!(fits(dir.path(), Precision::F32, 220).unwrap_err().contains("tokenizer 2"));
        fs::write(&file, model(serde_json::json!({ token: 1 }))).unwrap();
        assert_eq!(fits(dir.path(), Precision::F32, 1), Ok(()));
    }
}

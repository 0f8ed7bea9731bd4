//! The bundled table and its two model versions. `config/demo/README.md` says where they come from.

use std::fs;
use std::io;
use std::path::Path;

/// The schema of the same records in Avro.
pub const SCHEMA: &str = include_str!("../../config/demo/measurements.avsc");

/// The table: one JSON record a line, some of them broken on purpose.
pub const RECORDS: &str = include_str!("../../config/demo/records.jsonl");

/// The registered name of the bundled model.
pub const MODEL: &str = "breast-cancer";

macro_rules! version {
    ($number:literal) => {
        [
            (
                concat!($number, "/config.json"),
                &include_bytes!(concat!(
                    "../../config/demo/models/breast-cancer/",
                    $number,
                    "/config.json"
                ))[..],
            ),
            (
                concat!($number, "/preprocess.json"),
                &include_bytes!(concat!(
                    "../../config/demo/models/breast-cancer/",
                    $number,
                    "/preprocess.json"
                ))[..],
            ),
            (
                concat!($number, "/model.safetensors"),
                &include_bytes!(concat!(
                    "../../config/demo/models/breast-cancer/",
                    $number,
                    "/model.safetensors"
                ))[..],
            ),
            (
                concat!($number, "/golden.json"),
                &include_bytes!(concat!(
                    "../../config/demo/models/breast-cancer/",
                    $number,
                    "/golden.json"
                ))[..],
            ),
            (
                concat!($number, "/manifest.json"),
                &include_bytes!(concat!(
                    "../../config/demo/models/breast-cancer/",
                    $number,
                    "/manifest.json"
                ))[..],
            ),
        ]
    };
}

/// Writes the registry with both versions, `champion` at 1.
///
/// # Errors
///
/// When a file cannot be written.
pub fn write_registry(root: &Path) -> io::Result<()> {
    let model = root.join(MODEL);
    let versions = version!("1").into_iter().chain(version!("2"));
    for (file, bytes) in versions.chain([("aliases/champion", &b"1\n"[..])]) {
        let path = model.join(file);
        fs::create_dir_all(path.parent().unwrap_or(&model))?;
        fs::write(path, bytes)?;
    }
    Ok(())
}

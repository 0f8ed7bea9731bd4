//! Why a model's folder is not loaded.

use crate::memory::{Room, mebibytes};

/// Why a model's folder is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("read {file}")]
    Read {
        /// Its name in the artifact, or the directory.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// The directory as a whole is not what it should be. Whoever named it says which one it is.
    #[error("{0}")]
    Folder(String),
    /// A file cannot be written.
    #[error("write {file}")]
    Write {
        /// Its path.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// There is not enough memory to load it.
    #[error(
        "loading it takes about {} ({what}), {room}: give the process more memory, or choose a smaller model or \
         model.precision",
        mebibytes(*bytes)
    )]
    TooLarge {
        /// Bytes that it takes.
        bytes: u64,
        /// What they are for.
        what: String,
        /// What is left.
        room: Room,
    },
    /// A file is not what it should be.
    #[error("{file}: {message}")]
    Config {
        /// Its name in the artifact.
        file: String,
        /// What is wrong, and what is expected.
        message: String,
    },
    /// A tensor is missing or has another shape or type.
    #[error("model.safetensors: tensor {name:?} {message}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong, expected and found.
        message: String,
    },
    /// The files are not those of the manifest.
    #[error(
        "{file}: altered or truncated: {message}; copy the whole folder again from where it was made"
    )]
    Altered {
        /// Its name in the artifact.
        file: String,
        /// Expected and found.
        message: String,
    },
    /// The loaded model does not answer as it did when it was made.
    #[error("the gate: {0}")]
    Gate(String),
    /// Something this build does not do, and what does.
    #[error("{0}")]
    Unsupported(String),
    /// A text model's own.
    #[error("load the text model")]
    Text(#[source] Box<Self>),
}

impl Error {
    pub(in crate::model) fn read(file: &str, source: std::io::Error) -> Self {
        Self::Read { file: file.to_owned(), source }
    }

    pub(in crate::model) fn tensor(name: &str, message: &str) -> Self {
        Self::Tensor { name: name.to_owned(), message: message.to_owned() }
    }

    pub(in crate::model) fn config(file: &str, message: impl Into<String>) -> Self {
        Self::Config { file: file.to_owned(), message: message.into() }
    }
}

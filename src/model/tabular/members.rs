//! The members of a JSON object of the artifact, taken one by one, so that a refusal names the one that is wrong.

use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::clean::Clean;
use crate::model::files::Error;
use crate::printable;

/// What is left of an object.
#[derive(Debug)]
pub(super) struct Members {
    file: &'static str,
    /// Which object of the file, for messages: empty, or `column 2 ("age"): `.
    pub(super) at: String,
    left: Map<String, Value>,
}

impl Members {
    /// Of an object in `file`.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub(super) fn of(file: &'static str, at: String, value: Value) -> Result<Self, Error> {
        if let Value::Object(left) = value {
            return Ok(Self { file, at, left });
        }
        let message = format!("{at}is {}, an object is wanted", shown(&value));
        Err(Error::config(file, message))
    }

    /// An error that names the object.
    pub(super) fn error(&self, message: &str) -> Error {
        Error::config(self.file, format!("{}{message}", self.at))
    }

    /// Takes the member `key`; `None` where it is absent or null. `wanted` says what it should be.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub(super) fn take<T: DeserializeOwned>(
        &mut self,
        key: &str,
        wanted: &str,
    ) -> Result<Option<T>, Error> {
        match self.left.shift_remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(&value).map(Some).map_err(|_wrong| {
                self.error(&format!("{key} is {}, {wanted} is wanted", shown(&value)))
            }),
        }
    }

    /// As [`take`](Self::take), where there must be one.
    pub(super) fn need<T: DeserializeOwned>(
        &mut self,
        key: &str,
        wanted: &str,
    ) -> Result<T, Error> {
        let found = self.take(key, wanted)?;
        found.ok_or_else(|| self.error(&format!("{key} is missing, {wanted} is wanted")))
    }

    /// Takes the member `clean`, where it is there.
    ///
    /// # Errors
    ///
    /// What is wrong with its words.
    pub(super) fn clean(&mut self) -> Result<Option<Clean>, Error> {
        let value = self.left.shift_remove("clean").filter(|value| !value.is_null());
        let read = value.map(Clean::deserialize).transpose();
        read.map_err(|error| self.error(&format!("clean: {}", printable::name(&error.to_string()))))
    }

    /// Says that every member was taken: one that is not known would change the answer where it was fitted, and not here.
    ///
    /// # Errors
    ///
    /// The first that is left, and what there may be.
    pub(super) fn finish(self, known: &str) -> Result<(), Error> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(key) => {
                let key = printable::name(key);
                Err(self.error(&format!("{key} is not known here; there may be {known}")))
            }
        }
    }
}

/// A value of the artifact in a message.
pub(super) fn shown(value: &Value) -> String {
    printable::name(&value.to_string())
}

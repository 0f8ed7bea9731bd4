//! Who is let in.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::failure::chain;
use crate::file::{self, Links};

/// Largest file of tokens, in bytes.
const LARGEST: u64 = 64 << 10;

/// A shorter token could be guessed.
const SHORTEST: usize = 16;

/// A file of tokens: `name:token` or a token alone in each line. It is read whenever somebody asks, so that a token that is
/// replaced or taken out counts at once.
#[derive(Debug, Clone)]
pub(super) struct Tokens(PathBuf);

impl Tokens {
    pub(super) fn new(file: &Path) -> Self {
        Self(file.to_owned())
    }

    /// Whether the file has tokens that can be let in.
    ///
    /// # Errors
    ///
    /// What is wrong with it, without what it holds.
    pub(super) fn check(&self) -> Result<(), String> {
        read(&self.0).map(drop)
    }

    /// Whose token this is. Takes as long for one as for another: digests are compared, all of them, each in one time.
    ///
    /// # Errors
    ///
    /// What is wrong with the file.
    pub(super) fn whose(&self, token: &str) -> Result<Option<String>, String> {
        let digest = Sha256::digest(token);
        let mut whose = None;
        for (name, known) in read(&self.0)? {
            if bool::from(Sha256::digest(&known).as_slice().ct_eq(digest.as_slice())) {
                whose = Some(name);
            }
        }
        Ok(whose)
    }
}

/// Names and tokens.
fn read(file: &Path) -> Result<Vec<(String, String)>, String> {
    let bytes = file::read(file, LARGEST, Links::Follow).map_err(|error| chain(&error))?;
    let text = String::from_utf8(bytes).map_err(|_binary| "it is not UTF-8 text".to_owned())?;
    let mut tokens = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, token) = match line.split_once(':') {
            Some((name, token)) => (name.trim().to_owned(), token.trim()),
            None => (format!("line {number}"), line),
        };
        if token.len() < SHORTEST {
            return Err(format!(
                "the token in line {number} has fewer than {SHORTEST} characters: `openssl rand -hex 32` makes a good one"
            ));
        }
        if name.is_empty() {
            return Err(format!("line {number} has no name before its token: write `name:token`"));
        }
        tokens.push((name, token.to_owned()));
    }
    if tokens.is_empty() {
        return Err("there is no token in it: write `name:token` in a line".to_owned());
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_token_is_let_in_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        let text = "# operators\n\nanna: 0123456789abcdef\n  fedcba9876543210  \nbo:with:colon-and-16-more\n";
        std::fs::write(&file, text).unwrap();
        let tokens = Tokens::new(&file);
        for (token, who) in [
            ("0123456789abcdef", Some("anna")),
            ("fedcba9876543210", Some("line 4")),
            ("with:colon-and-16-more", Some("bo")),
            ("0123456789abcde", None),
            ("0123456789abcdef0", None),
            ("", None),
            ("anna: 0123456789abcdef", None),
        ] {
            assert_eq!(tokens.whose(token).unwrap().as_deref(), who, "{token}");
        }
        std::fs::write(&file, "anna:another-token-of-hers").unwrap();
        assert_eq!(tokens.whose("0123456789abcdef").unwrap(), None, "it was replaced");
    }

    #[test]
    fn a_file_without_good_tokens_is_refused_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        for (text, said) in [
            (&b""[..], "there is no token in it"),
            (b"# none\n", "there is no token in it"),
            (b"anna:0123456789abcdef\nbo:hunter2\n", "line 2 has fewer than 16"),
            (b"\xff\xfe0123456789abcdef", "is not UTF-8"),
        ] {
            std::fs::write(&file, text).unwrap();
            let why = Tokens::new(&file).check().unwrap_err();
            assert!(why.contains(said) && !why.contains("hunter2"), "{why}");
        }
        let why = Tokens::new(&folder.path().join("absent")).check().unwrap_err();
        assert!(why.contains("No such file"), "{why}");
    }
}

//! `${env:NAME}` and `${file:PATH}`: values that do not stand in the file.
//!
//! What is put in is not looked at again: a secret that contains `${` stays as it is.

use std::collections::BTreeMap;
use std::path::Path;

/// Where references are looked up.
#[derive(Debug)]
pub struct Sources<'a> {
    /// For `${env:NAME}`.
    pub env: &'a BTreeMap<String, String>,
    /// `${file:PATH}` is relative to this: the folder of the configuration file.
    pub folder: &'a Path,
}

/// Why a reference has no value: message and remedy.
pub type Unresolved = (String, String);

/// `text` with its references replaced; `None` where it has none.
///
/// # Errors
///
/// A form that is not known, a variable that is not set, a file that cannot be read.
pub fn resolve(text: &str, sources: &Sources<'_>) -> Result<Option<String>, Unresolved> {
    let mut out = String::new();
    let mut rest = text;
    let mut found = false;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((reference, after)) = after.split_once('}') else {
            return Err((
                "a `${` without its `}`".to_owned(),
                "write `${env:NAME}` or `${file:PATH}`".to_owned(),
            ));
        };
        out.push_str(before);
        out.push_str(&look_up(reference, sources)?);
        rest = after;
        found = true;
    }
    out.push_str(rest);
    Ok(found.then_some(out))
}

fn look_up(reference: &str, sources: &Sources<'_>) -> Result<String, Unresolved> {
    match reference.split_once(':') {
        Some(("env", name)) => sources.env.get(name).cloned().ok_or_else(|| {
            (
                format!(
                    "the environment has no variable {name}, which `${{env:{name}}}` refers to"
                ),
                format!("set {name}, or mount the value as a file and write `${{file:PATH}}`"),
            )
        }),
        Some(("file", path)) => {
            let path = sources.folder.join(path);
            let text = std::fs::read_to_string(&path).map_err(|error| {
                (
                    format!("read {}, which `${{file:…}}` refers to: {error}", path.display()),
                    "mount the file there and let this user read it".to_owned(),
                )
            })?;
            Ok(text.trim_end_matches(['\n', '\r']).to_owned())
        }
        _ => Err((
            "a `${…}` that is neither `${env:…}` nor `${file:…}`".to_owned(),
            "write `${env:NAME}` or `${file:PATH}`; a value with a literal `${` comes from one of \
             these"
                .to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("password"), "s3${env:A}\n").unwrap();
        let env = BTreeMap::from([("A".to_owned(), "one".to_owned())]);
        let sources = Sources { env: &env, folder: folder.path() };
        for (text, value) in [
            ("plain", None),
            ("$5 {x}", None),
            ("${env:A}", Some("one")),
            ("x-${env:A}-${env:A}", Some("x-one-one")),
            ("${file:password}", Some("s3${env:A}")),
        ] {
            assert_eq!(resolve(text, &sources).unwrap().as_deref(), value, "{text}");
        }
        for (text, said) in [
            ("${env:B}", "no variable B"),
            ("${env:B", "without its `}`"),
            ("${ENV:A}", "neither"),
            ("${A}", "neither"),
            ("${file:absent}", "absent"),
        ] {
            let (message, remedy) = resolve(text, &sources).unwrap_err();
            assert!(message.contains(said) && !remedy.is_empty(), "{text}: {message}");
        }
    }
}

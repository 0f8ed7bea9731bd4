//! Places in a record, as configured.

/// A place in a record: `/customer/age`. RFC 6901, but not the whole record.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// The names from the record's own on.
    pub fn path(&self) -> &[String] {
        &self.0
    }
}

impl TryFrom<String> for Pointer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!(
                "{text:?} {what}: write a JSON Pointer such as /customer/age (~1 for / in a name, ~0 for ~)"
            )
        };
        let Some(rest) = text.strip_prefix('/') else {
            return Err(wrong("does not begin with /"));
        };
        let name = |part: &str| {
            let escapes = part.split('~').skip(1);
            for escape in escapes {
                if !escape.starts_with(['0', '1']) {
                    return Err(wrong("has a ~ that neither 0 nor 1 follows"));
                }
            }
            Ok(part.replace("~1", "/").replace("~0", "~"))
        };
        rest.split('/').map(name).collect::<Result<_, _>>().map(Self)
    }
}

impl From<Pointer> for String {
    fn from(Pointer(path): Pointer) -> Self {
        let escaped = path.iter().map(|name| name.replace('~', "~0").replace('/', "~1"));
        escaped.flat_map(|name| ["/".to_owned(), name]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_rfc_6901() {
        for (text, path) in [
            ("/a", vec!["a"]),
            ("/a/b c/0", vec!["a", "b c", "0"]),
            ("/a~1b/m~0n/~01", vec!["a/b", "m~n", "~1"]),
            ("/", vec![""]),
        ] {
            let pointer = Pointer::try_from(text.to_owned()).unwrap();
            assert_eq!(pointer.0, path);
            assert_eq!(String::from(pointer), text);
        }
        for text in ["", "a/b", "/a~", "/~2"] {
            assert!(Pointer::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}

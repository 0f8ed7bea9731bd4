//! The bytes of a picture out of a field of text: base64 as MIME and transformers' `load_image` take it.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Padding may be missing, and the bits behind the last byte may be anything.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes `text`: base64, with or without line breaks, padding, and `data:…;base64,` before it. What stands behind the
/// padding does not count.
///
/// # Errors
///
/// What is wrong, to be read behind the field's name.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, String> {
    let text = text.trim_ascii_start();
    let head = |length: usize| text.get(..length).unwrap_or_default().to_ascii_lowercase();
    if head(7) == "http://" || head(8) == "https://" {
        return Err(
            "is an address, and nothing is fetched: send the picture itself, in base64".to_owned()
        );
    }
    let data = match text.split_once(',') {
        Some((_, data)) if head(5) == "data:" => data,
        _ => text,
    };
    let data = data.split_once('=').map_or(data, |(data, _padding)| data);
    let decoded = if data.bytes().any(|byte| byte.is_ascii_whitespace()) {
        let dense: Vec<u8> = data.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        LENIENT.decode(dense)
    } else {
        LENIENT.decode(data)
    };
    decoded.map_err(|error| {
        let remedy = if data.contains(['-', '_']) {
            " (the URL-safe alphabet is not read: write + for - and / for _)"
        } else {
            ""
        };
        format!("is not valid base64: {error}{remedy}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_mime_decoders_read_it() {
        let bytes: Vec<u8> = (0..=255).collect();
        let plain = base64::engine::general_purpose::STANDARD.encode(&bytes);
        let lines = plain.as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line));
        let lines: Vec<_> = lines.collect();
        for text in [
            plain.clone(),
            format!("{plain}\n"),
            format!(" \t{plain}\r\n"),
            lines.join("\n"),
            lines.join("\r\n") + "\r\n",
            plain.trim_end_matches('=').to_owned(),
            format!("{plain} and more"),
            format!("data:image/png;base64,{plain}"),
            format!("data:image/png;base64,\n{}\n", lines.join("\n")),
            format!("DATA:IMAGE/JPEG;charset=utf-8;base64,{plain}"),
        ] {
            assert_eq!(decode(&text).as_ref(), Ok(&bytes), "{text}");
        }
        assert_eq!(decode("AAF"), Ok(vec![0, 1]), "bits behind the last byte");
        assert_eq!(decode(""), Ok(Vec::new()));
        for (text, part) in [
            ("A", "is not valid base64"),
            ("AA AA A", "is not valid base64"),
            ("{}", "is not valid base64: Invalid symbol 123"),
            ("_-8=", "write + for -"),
            ("https://example.com/a.png", "is an address"),
        ] {
            assert!(decode(text).unwrap_err().contains(part), "{text}: {:?}", decode(text));
        }
    }
}

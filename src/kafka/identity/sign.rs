//! Amazon's Signature Version 4 of a request that anybody may make later: all that it says stands in its URL.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// A request by its parts, and when it is signed.
pub(super) struct Request<'a> {
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    /// The digest of its body, in hex, or the word that stands for none.
    pub(super) payload: &'a str,
    /// `20130524T000000Z`.
    pub(super) at: &'a str,
    /// For how many seconds it may be made.
    pub(super) seconds: u32,
}

/// Who signs.
pub(super) struct Signer<'a> {
    pub(super) access: &'a str,
    pub(super) secret: &'a str,
    pub(super) session: Option<&'a str>,
}

/// The URL of the request with its signature.
pub(super) fn presigned(request: &Request<'_>, signer: &Signer<'_>) -> String {
    let day = request.at.get(..8).unwrap_or(request.at);
    let scope = format!("{day}/{}/{}/aws4_request", request.region, request.service);
    let credential = format!("{}/{scope}", signer.access);
    let seconds = request.seconds.to_string();
    let mut query: Vec<(&str, &str)> = request.query.to_vec();
    query.extend([
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Credential", credential.as_str()),
        ("X-Amz-Date", request.at),
        ("X-Amz-Expires", seconds.as_str()),
        ("X-Amz-SignedHeaders", "host"),
    ]);
    query.extend(signer.session.map(|session| ("X-Amz-Security-Token", session)));
    let mut pairs: Vec<String> =
        query.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    pairs.sort();
    let query = pairs.join("&");
    let canonical = format!(
        "GET\n{}\n{query}\nhost:{}\n\nhost\n{}",
        request.path, request.host, request.payload
    );
    let digest = hex(&Sha256::digest(canonical.as_bytes()));
    let text = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{digest}", request.at);
    let key = key(signer.secret, day, request.region, request.service);
    let signature = hex(&keyed(&key, text.as_bytes()));
    format!("https://{}{}?{query}&X-Amz-Signature={signature}", request.host, request.path)
}

/// The key that signs on one day, in one region, for one service.
fn key(secret: &str, day: &str, region: &str, service: &str) -> [u8; 32] {
    let first = keyed(format!("AWS4{secret}").as_bytes(), day.as_bytes());
    [region, service, "aws4_request"].iter().fold(first, |key, part| keyed(&key, part.as_bytes()))
}

fn keyed(key: &[u8], text: &[u8]) -> [u8; 32] {
    // A key of any length is taken.
    Hmac::<Sha256>::new_from_slice(key).map_or([0; 32], |mut mac| {
        mac.update(text);
        mac.finalize().into_bytes().into()
    })
}

/// `text` as it stands in a URL: only letters, digits and `-._~` as they are.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a text never fails.
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
    }
    out
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").unwrap_or_default();
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Amazon's own example of a presigned request: Authenticating Requests, Using Query Parameters.
    #[test]
    fn the_published_example_is_signed_as_amazon_signs_it() {
        let request = Request {
            host: "examplebucket.s3.amazonaws.com",
            path: "/test.txt",
            query: &[],
            region: "us-east-1",
            service: "s3",
            payload: "UNSIGNED-PAYLOAD",
            at: "20130524T000000Z",
            seconds: 86_400,
        };
        let signer = Signer {
            access: "AKIAIOSFODNN7EXAMPLE",
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            session: None,
        };
        let url = presigned(&request, &signer);
        let signature = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
        assert!(url.ends_with(&format!("&X-Amz-Signature={signature}")), "{url}");
    }

    /// Amazon's own example of a derived key: Create a signed AWS API request.
    #[test]
    fn the_published_key_is_derived() {
        let key = key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20150830", "us-east-1", "iam");
        let stands = "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9";
        assert_eq!(hex(&key), stands);
    }

    #[test]
    fn only_what_needs_no_escape_stands_as_it_is() {
        assert_eq!(
            encoded("kafka-cluster:Connect a/b~ü"),
            "kafka-cluster%3AConnect%20a%2Fb~%C3%BC"
        );
    }
}

//! The page: one file with its style and its script inside, which asks for nothing but `/api/status`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

const HTML: &str = include_str!("page/page.html");
const CSS: &str = include_str!("page/page.css");
const JS: &str = include_str!("page/page.js");

/// The page, and what a browser may do with it.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) html: String,
    /// `Content-Security-Policy`: this style and this script, by their digests, and questions to where it came from.
    pub(super) policy: String,
}

impl Page {
    pub(super) fn new() -> Self {
        let digest = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
        let policy = format!(
            "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            digest(CSS),
            digest(JS)
        );
        Self { html: HTML.replacen("/*style*/", CSS, 1).replacen("/*script*/", JS, 1), policy }
    }
}
